// The meaning of the tables, for a look at a whole database (daemon.check), and the counts that agree with rows.

import {
  BATCH_STATES,
  type BatchState,
  COMMAND_STATES,
  LEASE_MODES,
  LOSS_SIGNALS,
  MISSED,
  OVERLAPS,
} from "@pawl/protocol/values";
import { HELD_NOUNS } from "../grants/on-loss.js";
import type { Fault, Key, Meaning, Piece } from "../store/inspection.js";
import { all, type Operation, one, sql } from "../store/statement.js";
import { verifyLog } from "./board/rebuild.js";

export const MEANING: Meaning = {
  json: {
    pawl_batch: ["payloads", "retry"],
    pawl_batch_payloads: ["payloads"],
    pawl_batch_more: ["trace", "progress", "checkpoint", "result", "after_ids"],
    pawl_queue: ["settings", "prefixes"],
    pawl_schedule: ["payloads"],
    pawl_command_params: ["params"],
    pawl_command_response: ["response"],
    pawl_lease: ["members"],
    pawl_lease_pool: ["members"],
    pawl_request: ["result"],
    pawl_item: ["depends_on", "labels", "fields", "set_by", "recent"],
    pawl_cell: ["value"],
    pawl_change: ["body"],
    pawl_board_rules: ["stages", "transitions", "laying"],
  },
  values: {
    pawl_batch: { state: BATCH_STATES },
    pawl_schedule: { overlap: OVERLAPS, missed: MISSED },
    pawl_command: { state: COMMAND_STATES },
    pawl_lease: { mode: LEASE_MODES },
    pawl_on_loss: { noun: HELD_NOUNS, signal: LOSS_SIGNALS },
  },
  references: [
    reference("pawl_batch.queue_id", "pawl_queue.queue_id"),
    reference("pawl_batch.enqueue_seq", "pawl_batch_payloads.enqueue_seq", "t.payloads IS NULL"),
    reference("pawl_batch_payloads.enqueue_seq", "pawl_batch.enqueue_seq"),
    reference("pawl_batch_more.enqueue_seq", "pawl_batch.enqueue_seq"),
    reference("pawl_batch_after.enqueue_seq", "pawl_batch.enqueue_seq"),
    reference("pawl_queue_offer.queue_id", "pawl_queue.queue_id"),
    reference("pawl_queue_offer.enqueue_seq", "pawl_batch.enqueue_seq"),
    reference("pawl_command.deployment", "pawl_deployment.deployment"),
    reference("pawl_command_params.seq", "pawl_command.seq"),
    reference("pawl_command_response.seq", "pawl_command.seq"),
    reference("pawl_command_upload.seq", "pawl_command.seq"),
    reference("pawl_command_chunk.seq", "pawl_command.seq"),
    reference("pawl_command_answer.seq", "pawl_command.seq"),
    reference(
      "pawl_command.lease_incarnation_id",
      "pawl_incarnation.incarnation_id",
      "t.lease_incarnation_id IS NOT NULL",
    ),
    reference("pawl_incarnation_connection.incarnation_id", "pawl_incarnation.incarnation_id"),
    reference("pawl_lease.name", "pawl_lease_token.name"),
    reference("pawl_lease_pool.name", "pawl_lease_token.name"),
    reference("pawl_path_reservation.root_id", "pawl_path_root.root_id"),
    reference("pawl_path_pattern.number", "pawl_path_reservation.number"),
    reference("pawl_on_loss.grant_id", "pawl_lease.lease_id", "t.noun = 'lease'"),
    reference("pawl_on_loss.grant_id", "pawl_path_reservation.reservation_id", "t.noun = 'path'"),
    reference("pawl_change.branch", "pawl_branch.branch"),
    reference("pawl_cut.branch", "pawl_branch.branch"),
    reference("pawl_touch.n", "pawl_change.n"),
    reference("pawl_cell.n", "pawl_change.n"),
    reference("pawl_increment.n", "pawl_change.n"),
    reference("pawl_text.story_id", "pawl_item.story_id"),
    reference("pawl_note.n", "pawl_change.n"),
    reference("pawl_note.story_id", "pawl_item.story_id"),
    reference("pawl_cell.story_id", "pawl_item.story_id"),
    reference("pawl_item_dependency.story_id", "pawl_item.story_id"),
    reference("pawl_item_ready_label.story_id", "pawl_item.story_id"),
    reference("pawl_item_claim.story_id", "pawl_item.story_id"),
  ],
};

function reference(from: string, to: string, where?: string): Meaning["references"][number] {
  const [table, column] = from.split(".") as [string, string];
  const [toTable, toColumn] = to.split(".") as [string, string];
  return { table, column, to: toTable, toColumn, ...(where === undefined ? {} : { where }) };
}

/** Rows that one piece counts: some 2 ms of work. */
const ROWS_PER_PIECE = 8192;
/** Queues whose counts are read at once. */
const QUEUES_PER_PIECE = 32;
/** Changes or items that one piece replays, but for an item that more changes are about. */
const REPLAYED_PER_PIECE = 4;

const selectQueues = sql<{ queue_id: number; queue: string } & Record<BatchState, number>>(`
  SELECT queue_id, queue, ${BATCH_STATES.join(", ")} FROM pawl_queue
  WHERE queue_id > :after ORDER BY queue_id LIMIT :rows`);

const selectLane = sql<{ lane: number | null }>(
  "SELECT min(lane) AS lane FROM pawl_batch WHERE queue_id = :queueId AND lane > :after",
);

const countBatches = sql<{ counted: number; last: number | null }>(`
  SELECT count(*) AS counted, max(enqueue_seq) AS last FROM
    (SELECT enqueue_seq FROM pawl_batch
     WHERE queue_id = :queueId AND lane = :lane AND enqueue_seq > :after ORDER BY enqueue_seq LIMIT :rows) AS next`);

const selectState = sql<{ state: BatchState }>(
  "SELECT state FROM pawl_batch WHERE queue_id = :queueId AND lane = :lane ORDER BY enqueue_seq LIMIT 1",
);

const selectLevels = sql<{ level: number; ids: number }>(
  "SELECT level, ids FROM pawl_batch_level WHERE level > 0 ORDER BY level",
);

const countIds = sql<{ counted: number; last: number | null }>(`
  SELECT count(*) AS counted, max(batch_key) AS last FROM
    (SELECT batch_key FROM pawl_batch_id WHERE level = :level AND batch_key > :after ORDER BY batch_key
     LIMIT :rows) AS next`);

/** A piece of a look at more than single rows. `within` has it go on where it was, in the same state of a database. */
export interface WidePiece extends Piece {
  readonly within?: unknown;
}

/** A place between two keys: the group that is being counted, how far that is, and how many there were. */
interface Within {
  readonly group: number;
  readonly after: number;
  readonly counted: number;
}

/** The parts that are about more than single rows, by their names. */
export const WIDE_PARTS: readonly WidePart[] = [
  { name: "queues", keyLength: 1, look: lookAtQueues },
  { name: "ids", keyLength: 1, look: lookAtIds },
  { name: "log", keyLength: 2, look: lookAtLog },
];

interface WidePart {
  readonly name: string;
  /** Of its keys, in values. */
  readonly keyLength: number;
  look(after: Key | undefined, within: unknown): Operation<WidePiece>;
}

/** Rows that are counted somewhere: the statement counts the next of them. */
interface Group {
  readonly where: string;
  readonly what: string;
  readonly kept: number;
  count(after: number): Operation<{ counted: number; last: number | null } | undefined>;
}

/** A place in a queue: its batches are counted lane by lane, which is how they are indexed. */
interface InQueue {
  readonly index: number;
  readonly lane: number;
  /** The last batch of the lane that is counted. */
  readonly after: number;
  readonly counts: ReadonlyMap<BatchState, number>;
}

function* lookAtQueues(after: Key | undefined, within: unknown): Operation<WidePiece> {
  const queues = yield* all(selectQueues, { after: Number(after?.[0] ?? 0), rows: QUEUES_PER_PIECE });
  const faults: Fault[] = [];
  let checked = 0;
  let from = (within as InQueue | undefined) ?? atQueue(0);
  for (const [index, row] of queues.entries()) {
    if (index < from.index) continue;
    if (from.index < index) from = atQueue(index);
    const { queue_id: queueId } = row;
    for (;;) {
      if (checked >= ROWS_PER_PIECE) return { faults, checked, next: after, within: from };
      const step = yield* countLane(queueId, from);
      if (step === undefined) break;
      checked += step.counted;
      from = step.to;
    }
    for (const state of BATCH_STATES) {
      const counted = from.counts.get(state) ?? 0;
      if (counted !== row[state])
        faults.push(miscount(`queue ${row.queue}`, `${state} batches`, counted, row[state]));
    }
  }
  const last = queues.at(-1);
  return { faults, checked: checked + queues.length, next: last && [last.queue_id] };
}

function atQueue(index: number): InQueue {
  return { index, lane: BEFORE_LANES, after: ALL_COUNTED, counts: new Map() };
}

/** Counts the next batches of a queue; undefined when there are no more. */
function* countLane(queueId: number, from: InQueue): Operation<{ counted: number; to: InQueue } | undefined> {
  let { lane, after } = from;
  if (after === ALL_COUNTED) {
    const next = (yield* one(selectLane, { queueId, after: lane }))?.lane;
    if (next === null || next === undefined) return undefined;
    [lane, after] = [next, BEFORE_ALL];
  }
  const found = yield* one(countBatches, { queueId, lane, after, rows: ROWS_PER_PIECE });
  const { counted = 0, last = null } = found ?? {};
  const counts = new Map(from.counts);
  const state = (yield* one(selectState, { queueId, lane }))?.state;
  if (state !== undefined) counts.set(state, (counts.get(state) ?? 0) + counted);
  const isWhole = last === null || counted < ROWS_PER_PIECE;
  return { counted, to: { ...from, lane, after: isWhole ? ALL_COUNTED : last, counts } };
}

/** Lower than every lane. */
const BEFORE_LANES = -1_000_000;
/** In the place of a batch: the lane is counted to its end. */
const ALL_COUNTED = -2;

function miscount(where: string, what: string, counted: number, kept: number): Fault {
  return {
    what: "count",
    where,
    message: `has ${counted} ${what}, and ${kept} are counted. Restore the database from a backup.`,
  };
}

function* lookAtIds(after: Key | undefined, within: unknown): Operation<WidePiece> {
  const levels = after === undefined ? yield* all(selectLevels) : [];
  const groups = levels.map(({ level, ids }) => ({
    where: `pawl_batch_level ${level}`,
    what: "ids",
    kept: ids,
    count: (last: number) => one(countIds, { level, after: last, rows: ROWS_PER_PIECE }),
  }));
  const last = levels.at(-1);
  return yield* compareCounts(groups, within, after, last && [last.level]);
}

/** Compares the counts of groups with what is kept of them, for one piece. */
function* compareCounts(
  groups: readonly Group[],
  within: unknown,
  after: Key | undefined,
  next: Key | undefined,
): Operation<WidePiece> {
  const faults: Fault[] = [];
  let checked = 0;
  let from: Within = (within as Within | undefined) ?? { group: 0, after: BEFORE_ALL, counted: 0 };
  for (const [index, group] of groups.entries()) {
    if (index < from.group) continue;
    let { after: last, counted } = from.group === index ? from : { after: BEFORE_ALL, counted: 0 };
    for (;;) {
      if (checked >= ROWS_PER_PIECE) {
        from = { group: index, after: last, counted };
        return { faults, checked, next: after, within: from };
      }
      const found = yield* group.count(last);
      counted += found?.counted ?? 0;
      checked += found?.counted ?? 0;
      if (found === undefined || found.last === null || found.counted < ROWS_PER_PIECE) break;
      last = found.last;
    }
    if (counted === group.kept) continue;
    faults.push(miscount(group.where, group.what, counted, group.kept));
  }
  return { faults, checked, next };
}

/** Before every key that counts up. */
const BEFORE_ALL = -1;

/** Replays the log of the board: signatures, hashes, heads, and the items that it makes. */
function* lookAtLog(after: Key | undefined, within: unknown): Operation<WidePiece> {
  return yield* verifyLog(after, REPLAYED_PER_PIECE, within);
}
