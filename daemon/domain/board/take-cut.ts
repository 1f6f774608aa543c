import type { Parsed } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_CLOCK_AHEAD_MS } from "@pawl/protocol/limits";
import { type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { type Cut, ENTRY_BYTES, entryAt, openCut } from "./cut.js";
import { keepCut } from "./cuts.js";
import { compareHlc, observe } from "./hybrid-clock.js";
import type { SignedChange, Standing } from "./signed-text.js";
import {
  beginNewLog,
  findLog,
  findPlace,
  type KnownLog,
  keepNode,
  moveHeads,
  type Node,
  type StoredPlace,
} from "./tables.js";

const widenOpen = sql(`
  UPDATE pawl_branch SET
    open_seq = CASE WHEN open_seq < :seq THEN open_seq ELSE :seq END,
    open_end = CASE WHEN open_end > :end THEN open_end ELSE :end END
  WHERE branch = :branch`);

const closeLog = sql(`
  UPDATE pawl_branch SET open_seq = NULL, open_end = NULL
  WHERE branch = :branch AND open_seq = :seq AND open_end = :end`);

const selectBeginning = sql<{ from_seq: number }>("SELECT from_seq FROM pawl_branch WHERE branch = :branch");

const updateNode = sql("UPDATE pawl_board SET board = :board, wall = :wall, counter = :counter WHERE id = 1");

/**
 * Takes in the places of changes that another node has no more; undefined if they are here already. Those that are here
 * stay as they are. Refuses what does not fit into its log, as a change would be.
 */
export function* takeCut(
  signed: SignedChange,
  node: Node,
  standingOf: (author: string) => Standing,
  env: Env,
): Operation<Node | PawlError | undefined> {
  const cut = openCut(signed, node.board, standingOf);
  if (cut instanceof PawlError) return cut;
  const log = yield* findLog(cut);
  const count = cut.changes.length / ENTRY_BYTES;
  const known = yield* countKnown(cut, log);
  if (known.count === count) return undefined;
  const last = entryAt(cut.changes, count - 1);
  const refused = checkFit(cut, known, env.wallMs);
  if (refused !== undefined) return refused;

  const { author, incarnation, seq } = cut;
  const here = yield* keepNode(node);
  const prev = known.count === 0 ? cut.prev : entryAt(cut.changes, known.count - 1).id;
  const first = seq - count + known.count + 1;
  const branch = yield* moveHeads(
    { author, incarnation, seq, id: last.id, prev, first },
    log,
    known.place,
    here,
    env,
  );
  yield* keepCut(branch, first, cut.changes.subarray(known.count * ENTRY_BYTES));
  const beginning = (yield* one(selectBeginning, { branch }))?.from_seq ?? 0;
  yield* run(widenOpen, { branch, seq: Math.max(beginning, seq - count), end: seq });
  const clock = observe(here.clock, last.hlc);
  const { board } = cut;
  yield* run(updateNode, { board, wall: clock[0], counter: clock[1] });
  const after = { ...here, board, clock };
  const isOwnLog = author === node.author && incarnation === node.incarnation;
  if (!isOwnLog) return after;
  return yield* beginNewLog(
    after,
    "a peer has changes of this node that it does not have: its database is a copy",
    env,
  );
}

/** Closes logs that are still as open as they are said to be. */
export function* settle(settled: readonly OpenLog[]): Operation<void> {
  for (const { author, incarnation, after, cut } of settled) {
    const place = yield* findPlace(yield* findLog({ author, incarnation }), cut.seq, cut.hash);
    if (place === undefined) continue;
    yield* run(closeLog, { branch: place.branch, seq: after?.seq ?? 0, end: cut.seq });
  }
}

type OpenLog = NonNullable<Parsed<"pipeline.apply">["settled"]>[number];

interface Known {
  /** How many of the first are here. */
  readonly count: number;
  /** Where the one before the first that is not here stands; undefined if it is not here, or there is none. */
  readonly place: StoredPlace | undefined;
}

/** Who has a change has all before it, so half of those in question are passed over at a time. */
function* countKnown({ seq, prev, changes }: Cut, log: KnownLog): Operation<Known> {
  const count = changes.length / ENTRY_BYTES;
  const first = seq - count + 1;
  let [least, most] = [0, count];
  let place = prev === null ? undefined : yield* findPlace(log, first - 1, prev);
  while (least < most) {
    const middle = Math.ceil((least + most) / 2);
    const found = yield* findPlace(log, first + middle - 1, entryAt(changes, middle - 1).id);
    if (found === undefined) most = middle - 1;
    else [least, place] = [middle, found];
  }
  return { count: least, place };
}

function checkFit(cut: Cut, { count, place }: Known, nowMs: number): PawlError | undefined {
  const { author, incarnation, seq, prev, changes } = cut;
  const details = { author, incarnation, seq };
  if (place === undefined && prev !== null) {
    return refuse("missing_prev", `The cut up to change ${seq} follows ${prev}, which is not here.`, details);
  }
  const next = entryAt(changes, count);
  if (place !== undefined && compareHlc(next.hlc, place.hlc) <= 0) {
    return refuse(
      "clock_not_monotonic",
      `The change at [${next.hlc}] is not later than the one before it, at [${place.hlc}].`,
      details,
    );
  }
  const aheadMs = entryAt(changes, changes.length / ENTRY_BYTES - 1).hlc[0] - nowMs - MAX_CLOCK_AHEAD_MS;
  if (aheadMs <= 0) return undefined;
  return refuse(
    "clock_ahead",
    `Change ${seq} is more than ${MAX_CLOCK_AHEAD_MS} ms ahead of this node's clock; compare the clocks of both nodes.`,
    { ...details, retryMs: aheadMs },
  );
}
