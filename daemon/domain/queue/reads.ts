// Reads: one batch, the batches of a queue, and how many there are.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, each, type Operation, one, sql } from "../../store/statement.js";
import { type Env, type Outcome, pageBytes, Unfinished, Wait } from "../../turns/operation.js";
import { placesOf } from "./ids.js";
import { LAST_READY_LANE } from "./lanes.js";
import { pageOf } from "./pages.js";
import { findQueue, NO_COUNTS, type QueueRow } from "./queue-row.js";
import {
  BATCH_COLUMNS,
  BATCH_OVERHEAD_BYTES,
  type Batch,
  type BatchRow,
  byId,
  checkKept,
  claimOf,
  finishedKey,
  HOLDER_COLUMNS,
  type HolderRow,
  isFinal,
  readMore,
  readMoreOf,
  shownBatch,
} from "./row.js";
import { isPaused, type Settings } from "./settings.js";

/** Batches that one step of a list shows: some 2 ms of work. */
const LISTED_PER_STEP = 250;

const selectState = sql<Pick<BatchRow, "state">>(
  "SELECT state FROM pawl_batch WHERE enqueue_seq = :seq AND batch_id = :batchId",
);

const selectBySeq = sql<BatchRow & HolderRow>(`
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = :seq`);

const selectQueues = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id
    AND b.lane <= ${LAST_READY_LANE} ORDER BY b.lane, b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue > :after ORDER BY q.queue LIMIT :rows`);

const selectQueueStats = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id
    AND b.lane <= ${LAST_READY_LANE} ORDER BY b.lane, b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue = :queue`);

export function* get(params: Parsed<"queue.get">, env: Env): Operation<Result<"queue.get"> | PawlError> {
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  yield* readMore(row);
  checkKept(row);
  return { batch: shownBatch(row, JSON.stringify(row.queue), claimOf(row, env), env) };
}

/** Waits for the end of a batch. */
export function* wait(params: Parsed<"queue.wait">, env: Env): Operation<Outcome<Result<"queue.wait">>> {
  const seq = env.mayWait ? yield* unfinished(params.batchId) : undefined;
  if (seq !== undefined) return new Wait(finishedKey(seq));
  return yield* get(params, env);
}

/** The place of a batch that has not ended: what it holds may be long, and is not read for that. */
function* unfinished(batchId: string): Operation<number | undefined> {
  for (const seq of yield* placesOf(batchId)) {
    const row = yield* one(selectState, { seq, batchId });
    if (row !== undefined) return isFinal(row.state) ? undefined : seq;
  }
  return undefined;
}

export function* list(params: Parsed<"queue.list">, env: Env): Operation<Outcome<Result<"queue.list">>> {
  return yield* listFrom(params.after ?? 0, { batches: [], bytes: 0 }, params, env);
}

/** One step of a page, and those that follow it. A batch keeps its place, so none is left out or shown twice. */
function* listFrom(
  after: number,
  before: { readonly batches: readonly Batch[]; readonly bytes: number },
  params: Parsed<"queue.list">,
  env: Env,
): Operation<Outcome<Result<"queue.list">>> {
  const { queue, limit, state, key } = params;
  const batches = [...before.batches];
  yield* env.turn.writeBack();
  const kept = yield* findQueue(queue, env);
  if (kept === undefined) return { batches };
  const left = limit - batches.length;
  const most = env.mayGoOn ? Math.min(left, LISTED_PER_STEP) : left;
  // One more, if there are more.
  const rows = yield* pageOf(kept.queue_id, { state, key, after, rows: most + 1 });
  const seqs: number[] = [];
  let { bytes } = before;
  let isFull = false;
  for (const { enqueue_seq: seq, payload_bytes, more_bytes } of rows.slice(0, most)) {
    bytes += payload_bytes + more_bytes + BATCH_OVERHEAD_BYTES;
    isFull = batches.length + seqs.length > 0 && bytes > MAX_PAGE_BYTES;
    if (isFull) break;
    seqs.push(seq);
  }
  const found = (yield* each(
    selectBySeq,
    seqs.map((seq) => ({ seq })),
  )) as (BatchRow & HolderRow)[];
  yield* readMoreOf(found);
  const queueText = JSON.stringify(queue);
  for (const row of found) {
    checkKept(row);
    batches.push(shownBatch(row, queueText, claimOf(row, env), env));
  }
  const last = seqs.at(-1) ?? after;
  if (isFull || (rows.length > most && most === left)) return { batches, next: last };
  if (rows.length <= most) return { batches };
  const heldBytes = pageBytes(bytes, batches.length, limit);
  return new Unfinished((later) => listFrom(last, { batches, bytes }, params, later), heldBytes);
}

export function* stats(params: Parsed<"queue.stats">, env: Env): Operation<Result<"queue.stats">> {
  const { queue, limit } = params;
  yield* env.turn.writeBack();
  if (queue !== undefined) {
    const row = yield* one(selectQueueStats, { queue });
    return {
      queues: [
        row === undefined ? { queue, ...NO_COUNTS, paused: false, oldestReadyMs: null } : toStats(row, env),
      ],
    };
  }
  const rows = yield* all(selectQueues, { after: params.after ?? "", rows: limit + 1 });
  const queues = rows.slice(0, limit).map((row) => toStats(row, env));
  return { queues, ...(rows.length > limit ? { next: (queues.at(-1) as { queue: string }).queue } : {}) };
}

function toStats(
  row: QueueRow & { available_at: number | null },
  env: Env,
): Result<"queue.stats">["queues"][number] {
  const { queue, ready, scheduled, blocked, claimed, completed, dead, cancelled, expired } = row;
  const { available_at: since, settings } = row;
  const paused = settings !== null && isPaused(JSON.parse(settings) as Settings, env);
  const oldestReadyMs = since === null ? null : Math.max(0, env.now - since);
  return {
    queue,
    ready,
    scheduled,
    blocked,
    claimed,
    completed,
    dead,
    cancelled,
    expired,
    paused,
    oldestReadyMs,
  };
}
