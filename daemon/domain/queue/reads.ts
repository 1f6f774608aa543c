import type { BatchState, Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { findQueue, headOf, NO_COUNTS, type QueueRow } from "./queue-row.js";
import {
  availableAt,
  BATCH_COLUMNS,
  BATCH_OVERHEAD_BYTES,
  type Batch,
  type BatchRow,
  byId,
  checkKept,
  claimOf,
  HOLDER_COLUMNS,
  type HolderRow,
  shownBatch,
  waitKey,
} from "./row.js";

/** Without payloads, which are read only of those that the page has room for. */
const PAGE_COLUMNS = "enqueue_seq, payload_bytes, coalesce(length(last_error), 0) AS last_error_length";

const selectPageOfState = sql<PageRow>(`
  SELECT ${PAGE_COLUMNS} FROM pawl_batch
  WHERE queue_id = :queueId AND state = :state AND enqueue_seq > :after ORDER BY enqueue_seq LIMIT :rows`);

/** Merged from the states, each of which an index has in order. */
const selectPage = sql<PageRow>(
  `${(["ready", "scheduled", "claimed", "completed", "dead", "cancelled"] satisfies BatchState[])
    .map(
      (state) => `
  SELECT ${PAGE_COLUMNS} FROM pawl_batch
  WHERE queue_id = :queueId AND state = '${state}' AND enqueue_seq > :after`,
    )
    .join(" UNION ALL ")} ORDER BY enqueue_seq LIMIT :rows`,
);

const selectBySeq = sql<BatchRow & HolderRow>(`
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = :seq`);

const selectQueues = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id AND b.state = 'ready'
    ORDER BY b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue > :after ORDER BY q.queue LIMIT :rows`);

const selectQueueStats = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id AND b.state = 'ready'
    ORDER BY b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue = :queue`);

/** The first batch of a queue that nobody can claim now: held or scheduled. */
const selectUnavailable = sql<BatchRow & HolderRow>(`
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = (SELECT min(seq) FROM (
    SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'claimed'
    UNION ALL
    SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'scheduled') AS heads)`);

interface PageRow {
  enqueue_seq: number;
  payload_bytes: number;
  last_error_length: number;
}

export function* get(params: Parsed<"queue.get">, env: Env): Operation<Result<"queue.get"> | PawlError> {
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  checkKept(row);
  return { batch: shownBatch(row, JSON.stringify(row.queue), claimOf(row, env), env) };
}

export function* list(params: Parsed<"queue.list">, env: Env): Operation<Result<"queue.list">> {
  const { queue, state, limit } = params;
  const found = yield* findQueue(queue, env);
  if (found === undefined) return { batches: [] };
  const page = { queueId: found.queue_id, after: params.after ?? 0, rows: limit + 1 };
  const rows =
    state === undefined ? yield* all(selectPage, page) : yield* all(selectPageOfState, { ...page, state });
  const queueText = JSON.stringify(queue);
  const batches: Batch[] = [];
  let bytes = 0;
  let last = 0;
  for (const { enqueue_seq: seq, payload_bytes, last_error_length } of rows) {
    bytes += payload_bytes + last_error_length + BATCH_OVERHEAD_BYTES;
    if (batches.length > 0 && (batches.length === limit || bytes > MAX_PAGE_BYTES)) {
      return { batches, next: last };
    }
    const row = (yield* one(selectBySeq, { seq })) as BatchRow & HolderRow;
    checkKept(row);
    batches.push(shownBatch(row, queueText, claimOf(row, env), env));
    last = seq;
  }
  return { batches };
}

export function* stats(params: Parsed<"queue.stats">, env: Env): Operation<Result<"queue.stats">> {
  const { queue, limit } = params;
  yield* env.turn.writeBack();
  if (queue !== undefined) {
    const row = yield* one(selectQueueStats, { queue });
    return { queues: [row === undefined ? { queue, ...NO_COUNTS, oldestReadyMs: null } : toStats(row, env)] };
  }
  const rows = yield* all(selectQueues, { after: params.after ?? "", rows: limit + 1 });
  const queues = rows.slice(0, limit).map((row) => toStats(row, env));
  return { queues, ...(rows.length > limit ? { next: (queues.at(-1) as { queue: string }).queue } : {}) };
}

function toStats(
  row: QueueRow & { available_at: number | null },
  env: Env,
): Result<"queue.stats">["queues"][number] {
  const { queue, ready, scheduled, claimed, completed, dead, cancelled, available_at: since } = row;
  const oldestReadyMs = since === null ? null : Math.max(0, env.now - since);
  return { queue, ready, scheduled, claimed, completed, dead, cancelled, oldestReadyMs };
}

export function* explain(params: Parsed<"queue.explain">, env: Env): Operation<Result<"queue.explain">> {
  const { queue } = params;
  const found = yield* findQueue(queue, env);
  const known = { queue, dead: found?.dead ?? 0, waiting: env.waiting(waitKey(queue)) };
  const ready = yield* headOf(queue, env);
  if (ready !== undefined) {
    const { head } = ready;
    const { batch_id: batchId, delivery_policy: deliveryPolicy } = head;
    const reason = deliveryPolicy === "earliest_safe_boundary" ? "ready" : "boundary";
    return {
      ...known,
      claimable: true,
      reason,
      batchId,
      deliveryPolicy,
      availableAt: availableAt(head, env),
    };
  }
  const first = found === undefined ? undefined : yield* one(selectUnavailable, { queueId: found.queue_id });
  if (first === undefined) return { ...known, claimable: false, reason: "empty" };
  const { batch_id: batchId, delivery_policy: deliveryPolicy } = first;
  const claim = claimOf(first, env);
  if (claim === undefined) {
    const when = { availableAt: availableAt(first, env) };
    const hasBeenTried = first.attempt > 0 && first.available_at_wall === null;
    const reason = hasBeenTried ? "resting" : "scheduled";
    return { ...known, claimable: false, reason, batchId, deliveryPolicy, ...when };
  }
  const holder = { ...claim, pid: first.pid };
  return { ...known, claimable: false, reason: "claimed", batchId, deliveryPolicy, holder };
}
