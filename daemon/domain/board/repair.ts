import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { all, insert, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { type BranchRow, changeAt, findBranches } from "./branches.js";
import { type Change, readStored, writeChange } from "./change.js";
import { dropCutsAfter, lastCutAtMost } from "./cuts.js";
import { CLOCK_START, compareHlc, type Hlc, observe } from "./hybrid-clock.js";
import { makeAnew } from "./rebuild.js";
import { knownPeers } from "./statement.js";
import { BOARD_KEY, beginNewLog, loadNode, type Node } from "./tables.js";

/*
 * A node whose wall clock was wrong has written changes that lie ahead of the time: others refuse them until it has
 * come there, and all that it writes is later still. Repair takes back those that nobody is known to have, and gives
 * them again in a log of their own. They keep their numbers, so that all that rests on them still does; only their
 * times and hashes become others. All in one turn: between two of these changes the board would be none that anybody
 * wrote.
 */

const selectTail = sql<ChangeRow>(`
  SELECT n, change_id, seq, wall, counter, body, signature FROM pawl_change
  WHERE branch = :branch AND seq > :seq AND seq <= :before ORDER BY seq DESC LIMIT 64`);

const deleteBranch = sql("DELETE FROM pawl_branch WHERE branch = :branch");

const moveHead = sql("UPDATE pawl_branch SET head_seq = :seq, head_id = :id WHERE branch = :branch");

const insertBranch = sql(`
  INSERT INTO pawl_branch (author, incarnation, parent, from_seq, head_seq, head_id)
  VALUES (:author, :incarnation, NULL, 0, 0, '')`);

const selectChild = sql<BranchRow>(
  "SELECT * FROM pawl_branch WHERE parent = :branch AND from_seq = :seq ORDER BY branch LIMIT 1",
);

const moveChanges = sql("UPDATE pawl_change SET branch = :to WHERE branch = :from");
const moveCuts = sql("UPDATE pawl_cut SET branch = :to WHERE branch = :from");
const moveChildren = sql("UPDATE pawl_branch SET parent = :to WHERE parent = :from");
const joinBranch = sql(`
  UPDATE pawl_branch SET head_seq = :seq, head_id = :id, cut_seq = :cutSeq, cut_id = :cutId WHERE branch = :branch`);
const openBranch = sql(`
  UPDATE pawl_branch SET open_seq = coalesce(open_seq, :openSeq), open_end = :openEnd WHERE branch = :branch`);

const closeBehind = sql(
  "UPDATE pawl_branch SET open_seq = NULL, open_end = NULL WHERE branch = :branch AND open_seq >= :seq",
);
const shortenOpen = sql("UPDATE pawl_branch SET open_end = :seq WHERE branch = :branch AND open_end > :seq");

const rewriteChange = sql(`
  UPDATE pawl_change SET change_id = :id, branch = :branch, seq = :seq, wall = :wall, counter = :counter,
    body = :body, signature = :signature
  WHERE n = :n`);

const moveTouch = sql(`
  UPDATE pawl_touch SET wall = :wall, counter = :counter
  WHERE story_id = :storyId AND wall = :oldWall AND counter = :oldCounter AND n = :n`);

const moveNotes = sql(`
  UPDATE pawl_note SET wall = :wall, counter = :counter
  WHERE story_id = :storyId AND wall = :oldWall AND counter = :oldCounter AND n = :n`);

const restampItem = sql(`
  UPDATE pawl_item SET wall = :wall, counter = :counter, change_id = :id
  WHERE story_id = :storyId AND change_id = :oldId`);

const updateNode = sql(
  "UPDATE pawl_board SET branch = :branch, wall = :wall, counter = :counter WHERE id = 1",
);

interface ChangeRow {
  n: number;
  change_id: string;
  seq: number;
  wall: number;
  counter: number;
  body: string;
  signature: string;
}

/** The changes of a branch that lie ahead of the time, and after which it ends once they are taken back. */
interface Tail {
  readonly branch: BranchRow;
  readonly end: number;
  readonly changes: readonly Ahead[];
}

interface Ahead {
  readonly n: number;
  readonly change: Change;
}

export function* repair(_params: Parsed<"pipeline.repair">, env: Env): Operation<Result<"pipeline.repair">> {
  const node = yield* loadNode(env);
  const branches = yield* findBranches();
  const peers = yield* knownPeers(branches, env.wallMs);
  const tails: Tail[] = [];
  for (const branch of branches) {
    if (branch.author !== node.author) continue;
    const known = Math.max(branch.from_seq, ...peers.map(({ places }) => places.get(branch.branch) ?? 0));
    const tail = yield* findTail(branch, known, env.wallMs);
    if (tail.end < branch.head_seq) tails.push(tail);
  }
  if (tails.length === 0) return answer(0, node, node.clock, env);
  const emptied = new Set<number>();
  for (const tail of tails) if (!(yield* takeBack(tail))) emptied.add(tail.branch.branch);
  const clock = yield* latestTime(emptied);
  const next = yield* beginNewLog(
    { ...node, clock },
    "its latest changes lay ahead of the time, and are given again",
    env,
  );
  const ahead = tails
    .flatMap(({ changes }) => changes)
    .sort((a, b) => compareHlc(a.change.hlc, b.change.hlc) || (a.change.id < b.change.id ? -1 : 1));
  const after = yield* giveAgain(ahead, next, env);
  // Until now those that were taken back had their places, and the new log must not get the number of theirs.
  for (const branch of emptied) yield* run(deleteBranch, { branch });
  for (const { branch, end } of tails.toReversed()) {
    if (end > branch.from_seq) yield* join(branch.branch, end);
  }
  // Where changes of others lie ahead, too, the order of theirs and of these may have become another.
  const stories = new Set<string>();
  for (const { change } of ahead) {
    if (compareHlc(change.hlc, clock) <= 0) for (const { storyId } of change.ops) stories.add(storyId);
  }
  for (const storyId of stories) yield* makeAnew(storyId, env);
  env.effects.wake(BOARD_KEY);
  return answer(ahead.length, next, after, env);
}

function answer(changes: number, { incarnation }: Node, clock: Hlc, env: Env): Result<"pipeline.repair"> {
  const aheadMs = clock[0] - env.wallMs;
  return { changes, incarnation, ...(aheadMs > 0 ? { aheadMs } : {}) };
}

/** @param known up to which change it stays: somebody has that. */
function* findTail(branch: BranchRow, known: number, nowMs: number): Operation<Tail> {
  const changes: Ahead[] = [];
  let end = known;
  let before = branch.head_seq;
  search: while (before > known) {
    const rows = yield* all(selectTail, { branch: branch.branch, seq: known, before });
    for (const row of rows) {
      if (row.wall <= nowMs) {
        end = row.seq;
        break search;
      }
      changes.push({ n: row.n, change: readStored(row.change_id, row) });
      before = row.seq - 1;
    }
    if (rows.length === 0) break;
  }
  // Some between may have been taken away.
  end = Math.max(end, yield* lastCutAtMost(branch.branch, nowMs));
  return { branch, end: Math.min(end, branch.head_seq), changes };
}

/** Has a branch end before the changes that lie ahead. Returns false if nothing is left of it. */
function* takeBack({ branch: row, end }: Tail): Operation<boolean> {
  const { branch, from_seq: fromSeq } = row;
  yield* dropCutsAfter(branch, end);
  yield* run(closeBehind, { branch, seq: end });
  yield* run(shortenOpen, { branch, seq: end });
  if (end === fromSeq) return false;
  const last = yield* changeAt(branch, end);
  if (last === undefined) throw new Error(`branch ${branch} has no change ${end}`);
  yield* run(moveHead, { branch, seq: end, id: last.id });
  return true;
}

/** A branch that another one goes off from at its end is continued by that. */
function* join(branch: number, end: number): Operation<void> {
  const child = yield* one(selectChild, { branch, seq: end });
  if (child === undefined) return;
  yield* run(moveChanges, { from: child.branch, to: branch });
  yield* run(moveCuts, { from: child.branch, to: branch });
  yield* run(moveChildren, { from: child.branch, to: branch });
  yield* run(joinBranch, {
    branch,
    seq: child.head_seq,
    id: child.head_id,
    cutSeq: child.cut_seq,
    cutId: child.cut_id,
  });
  if (child.open_seq !== null) {
    yield* run(openBranch, { branch, openSeq: child.open_seq, openEnd: child.open_end });
  }
  yield* run(deleteBranch, { branch: child.branch });
}

/** The latest time of all changes that are left: in each log of which something is, that is the last. */
function* latestTime(emptied: ReadonlySet<number>): Operation<Hlc> {
  let latest = CLOCK_START;
  for (const { branch, head_seq: seq } of yield* findBranches()) {
    if (emptied.has(branch)) continue;
    const head = yield* changeAt(branch, seq);
    if (head !== undefined) latest = observe(latest, head.hlc);
  }
  return latest;
}

/** Writes changes again, in their order, as the first ones of this node's new log. Gives the time of the last. */
function* giveAgain(ahead: readonly Ahead[], node: Node, env: Env): Operation<Hlc> {
  const identity = env.identity?.();
  if (identity?.author !== node.author) throw new Error("the identity is not that of the database");
  const { author, incarnation, board } = node;
  if (board === null) throw new Error("a node that has changes has a board");
  let { clock } = node;
  if (ahead.length === 0) {
    yield* run(updateNode, { branch: null, wall: clock[0], counter: clock[1] });
    return clock;
  }
  const branch = yield* insert(insertBranch, { author, incarnation });
  let head: { readonly seq: number; readonly hash: string } | null = null;
  for (const { n, change } of ahead) {
    const again = writeChange(
      { author, board, incarnation, head, clock },
      change.ops,
      env.wallMs,
      identity.privateKey,
    );
    if (again instanceof PawlError) throw again;
    yield* rewrite(n, change, again, branch);
    head = { seq: again.seq, hash: again.id };
    clock = again.hlc;
  }
  const { seq, hash } = head as { readonly seq: number; readonly hash: string };
  yield* run(moveHead, { branch, seq, id: hash });
  yield* run(updateNode, { branch, wall: clock[0], counter: clock[1] });
  return clock;
}

function* rewrite(n: number, before: Change, after: Change, branch: number): Operation<void> {
  const { id, seq, body, signature } = after;
  const [wall, counter] = after.hlc;
  const [oldWall, oldCounter] = before.hlc;
  yield* run(rewriteChange, { n, id, branch, seq, wall, counter, body, signature });
  for (const { storyId } of after.ops) {
    yield* run(moveTouch, { storyId, n, wall, counter, oldWall, oldCounter });
    yield* run(moveNotes, { storyId, n, wall, counter, oldWall, oldCounter });
    yield* run(restampItem, { storyId, id, wall, counter, oldId: before.id });
  }
}
