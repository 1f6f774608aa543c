import { Buffer } from "node:buffer";
import type { Parsed, Result } from "@pawl/protocol";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { type BranchRow, findBranches } from "./branches.js";
import { type Change, type Op, readStored } from "./change.js";
import { entryOf } from "./cut.js";
import { keepCut } from "./cuts.js";
import { noteOfField, stampOf } from "./merge.js";
import { type KnownPeer, knownPeers } from "./statement.js";
import { findItem, isColumn, type LoadedItem, setRecent } from "./tables.js";

/*
 * Compaction takes away changes on which nothing of the board rests: others have replaced all that they set, swallowed
 * their increments, and their items have come to a higher generation. What was replaced once is so for good, whatever
 * comes later and in whatever order; so every node may take away what it likes without the boards ceasing to agree.
 * That a peer is known to have a change is asked for because it may be all that the peer knows an item by until what
 * replaces it has come there, too. In place of what is taken away its place in the log stays (`cut.ts`).
 */

/** Changes that one step looks at, some 4 ms of work ... */
const CHANGES_PER_STEP = 32;
/** ... unless they touch many items. */
const CHARACTERS_PER_STEP = 12_288;

const selectBranch = sql<BranchRow>(
  "SELECT * FROM pawl_branch WHERE branch >= :branch ORDER BY branch LIMIT 1",
);

const selectChanges = sql<ChangeRow>(`
  SELECT n, change_id, seq, body, signature FROM pawl_change
  WHERE branch = :branch AND seq > :seq AND seq < :head ORDER BY seq LIMIT :rows`);

const selectLast = sql<{ n: number | null }>("SELECT max(n) AS n FROM pawl_change");

const selectTrust = sql<Trust>(
  "SELECT count(*) AS peers, max(trusted_at) AS since FROM pawl_peer WHERE revoked_at IS NULL",
);

const selectCell = sql<{ n: number }>("SELECT n FROM pawl_cell WHERE story_id = :storyId AND field = :field");

const selectIncrement = sql<{ n: number }>(
  "SELECT n FROM pawl_increment WHERE story_id = :storyId AND field = :field AND n = :n",
);

const deleteTouch = sql(
  "DELETE FROM pawl_touch WHERE story_id = :storyId AND wall = :wall AND counter = :counter AND n = :n",
);

const deleteChange = sql("DELETE FROM pawl_change WHERE n = :n");

const countRemoved = sql("UPDATE pawl_board SET removed = removed + :removed WHERE id = 1");

interface ChangeRow {
  n: number;
  change_id: string;
  seq: number;
  body: string;
  signature: string;
}

/** Whom this node trusts, as far as it says that this has changed. */
interface Trust {
  peers: number;
  since: number | null;
}

type Compacted = Result<"pipeline.compact">;

/** The place where a step begins, and what is known of the peers. */
interface Going {
  readonly branch: number;
  readonly seq: number;
  readonly peers: readonly KnownPeer[];
  readonly trust: string;
}

export function* compact({ dryRun }: Parsed<"pipeline.compact">, env: Env): Operation<Outcome<Compacted>> {
  const branches = yield* findBranches();
  const peers = yield* knownPeers(branches, env.wallMs);
  const waitsFor = peers
    .filter(({ isSilent, places }) => !isSilent && branches.some((each) => lacks(places, each)))
    .map(({ author, name, saidAt }) => ({ author, name, ...(saidAt === null ? {} : { saidAt }) }));
  const none: Compacted = { changes: 0, bytes: 0, kept: 0, unknown: 0, waitsFor };
  return yield* compactFrom({ branch: 0, seq: 0, peers, trust: yield* trustNow() }, none, dryRun, env);
}

function lacks(places: KnownPeer["places"], { branch, head_seq: headSeq }: BranchRow): boolean {
  return (places.get(branch) ?? 0) < headSeq;
}

function* trustNow(): Operation<string> {
  return JSON.stringify(yield* one(selectTrust));
}

/** One step, and those that follow it. */
function* compactFrom(
  from: Going,
  before: Compacted,
  dryRun: boolean,
  env: Env,
): Operation<Outcome<Compacted>> {
  const branch = yield* one(selectBranch, { branch: from.branch });
  if (branch === undefined) return before;
  const trust = yield* trustNow();
  const peers = trust === from.trust ? from.peers : yield* knownPeers(yield* findBranches(), env.wallMs);
  const after = branch.branch === from.branch ? from.seq : 0;
  const known = knownByAll(peers, branch.branch);
  const step = yield* compactStep(branch, after, known, dryRun);
  const result: Compacted = {
    ...before,
    changes: before.changes + step.removed,
    bytes: before.bytes + step.bytes,
    kept: before.kept + step.kept,
    unknown: before.unknown + step.unknown,
  };
  const next =
    step.next === undefined
      ? { branch: branch.branch + 1, seq: 0 }
      : { branch: branch.branch, seq: step.next };
  return new Unfinished((later) => compactFrom({ ...next, peers, trust }, result, dryRun, later));
}

/** Up to which change of a branch all are known to have it who are waited for. */
function knownByAll(peers: readonly KnownPeer[], branch: number): number {
  const places = peers.filter(({ isSilent }) => !isSilent).map((peer) => peer.places.get(branch) ?? 0);
  return Math.min(Number.MAX_SAFE_INTEGER, ...places);
}

interface Step {
  readonly removed: number;
  readonly bytes: number;
  readonly kept: number;
  readonly unknown: number;
  /** The change after which the branch goes on; undefined at its end. */
  readonly next: number | undefined;
}

/** The head of a branch stays, and so does the last change that came here: its number is the board's revision. */
function* compactStep(branch: BranchRow, after: number, known: number, dryRun: boolean): Operation<Step> {
  const rows = yield* all(selectChanges, {
    branch: branch.branch,
    seq: after,
    head: branch.head_seq,
    rows: CHANGES_PER_STEP,
  });
  const last = (yield* one(selectLast))?.n ?? 0;
  let [removed, bytes, kept, unknown, characters] = [0, 0, 0, 0, 0];
  let at = after;
  let taken: Change[] = [];
  for (const row of rows) {
    if (characters > CHARACTERS_PER_STEP) break;
    characters += row.body.length;
    const change = readStored(row.change_id, row);
    const isFree = row.n !== last && !(yield* restsOn(change, row.n));
    if (isFree && row.seq <= known) {
      removed += 1;
      bytes += Buffer.byteLength(row.body) + row.signature.length;
      if (!dryRun) {
        if (taken.length > 0 && row.seq !== at + 1) taken = yield* cutOut(branch.branch, taken);
        yield* forget(change, row.n);
        taken.push(change);
      }
    } else {
      if (isFree) unknown += 1;
      else kept += 1;
      taken = yield* cutOut(branch.branch, taken);
    }
    at = row.seq;
  }
  yield* cutOut(branch.branch, taken);
  if (removed > 0 && !dryRun) yield* run(countRemoved, { removed });
  const isEnd = rows.length < CHANGES_PER_STEP && at === (rows.at(-1)?.seq ?? at);
  return { removed, bytes, kept, unknown, next: isEnd ? undefined : at };
}

/** Notes the places of changes that followed each other; gives the list of the next. */
function* cutOut(branch: number, taken: readonly Change[]): Operation<Change[]> {
  const [first] = taken;
  if (first !== undefined) {
    yield* keepCut(branch, first.seq, Buffer.concat(taken.map(({ id, hlc }) => entryOf({ id, hlc }))));
  }
  return [];
}

function* forget({ ops, hlc: [wall, counter] }: Change, n: number): Operation<void> {
  for (const { storyId } of ops) {
    yield* run(deleteTouch, { storyId, wall, counter, n });
    const recent = (yield* findItem(storyId))?.recent ?? [];
    if (recent.includes(n))
      yield* setRecent(
        storyId,
        recent.filter((each) => each !== n),
      );
  }
  yield* run(deleteChange, { n });
}

/** Whether something of the board rests on a change. */
function* restsOn(change: Change, n: number): Operation<boolean> {
  for (const op of change.ops) {
    const item = yield* findItem(op.storyId);
    if (item === undefined || (yield* opRests(op, item, change, n))) return true;
  }
  return false;
}

function* opRests(op: Op, { row, setBy }: LoadedItem, change: Change, n: number): Operation<boolean> {
  const { storyId, generation, set, add } = op;
  if (generation < row.generation) return false;
  // The newest of its generation: of those that deleted an item, this one stays.
  if (row.stamp.hash === stampOf(change).hash) return true;
  for (const [field, value] of set) {
    if (noteOfField(field, value) !== undefined) return true;
    const by = isColumn(field) ? setBy[field] : (yield* one(selectCell, { storyId, field }))?.n;
    if (by === n) return true;
  }
  for (const field of add.keys()) {
    if ((yield* one(selectIncrement, { storyId, field, n })) !== undefined) return true;
  }
  return false;
}
