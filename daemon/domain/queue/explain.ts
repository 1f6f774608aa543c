// Explain: why the head of a queue, or a batch, can or cannot be claimed now, and what would change it.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { shownAt } from "../../clock.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { LANE_OF, LAST_CANDIDATE_LANE, LAST_READY_LANE } from "./lanes.js";
import { countClaimsOfKey, firstUnfinished } from "./lines.js";
import { closureOf, findQueue, headOf, type QueueRow, settingsOfQueue } from "./queue-row.js";
import {
  availableAt,
  BATCH_COLUMNS,
  type BatchRow,
  byId,
  claimOf,
  HOLDER_COLUMNS,
  type HolderRow,
  waitKey,
} from "./row.js";
import { isPaused, isThrottled, nextTokenAt, type Settings } from "./settings.js";

/** Batches that another waits for, as far as they are named. */
const MAX_SHOWN_WAITED_FOR = 100;

const FIRST = `
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq`;

/** The first batch that is ready, and held up by others of its key. */
const selectFirstInLine = sql<BatchRow & HolderRow>(`
  ${FIRST} WHERE b.queue_id = :queueId AND b.lane > ${LAST_CANDIDATE_LANE} AND b.lane <= ${LAST_READY_LANE}
  ORDER BY b.lane, b.enqueue_seq LIMIT 1`);

/** The first batch of a queue that nobody can claim now: held, scheduled or blocked. */
const selectUnavailable = sql<BatchRow & HolderRow>(`
  ${FIRST} WHERE b.enqueue_seq = (SELECT min(seq) FROM (${(["claimed", "scheduled", "blocked"] as const)
    .map(
      (state) =>
        `SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND lane = ${LANE_OF[state]}`,
    )
    .join(" UNION ALL ")}) AS heads)`);

const selectBySeq = sql<Pick<BatchRow, "batch_id" | "state">>(
  "SELECT batch_id, state FROM pawl_batch WHERE enqueue_seq = :seq",
);

const selectWaitedFor = sql<{ batch_id: string }>(`
  SELECT p.batch_id FROM pawl_batch_after a CROSS JOIN pawl_batch p
  WHERE a.enqueue_seq = :seq AND p.enqueue_seq = a.after_seq AND p.finished_at IS NULL AND p.state <> 'dead'
  UNION ALL
  SELECT p.batch_id FROM pawl_batch_more m CROSS JOIN pawl_batch p
  WHERE m.enqueue_seq = :seq AND p.enqueue_seq = m.follows_seq
  LIMIT :rows`);

type Explained = Result<"queue.explain">;
type Why = Omit<Explained, "queue" | "dead" | "waiting" | "pause" | "throttle">;

export function* explain(
  params: Parsed<"queue.explain">,
  env: Env,
): Operation<Result<"queue.explain"> | PawlError> {
  if (params.batchId !== undefined) {
    const row = yield* byId(params.batchId);
    if (row instanceof PawlError) return row;
    const queue = (yield* findQueue(row.queue, env)) as QueueRow;
    return yield* withQueue(row.queue, queue, yield* whyOf(row, queue, env), env);
  }
  const queue = params.queue as string;
  const found = yield* findQueue(queue, env);
  const why = found === undefined ? EMPTY : yield* whyOfHead(queue, found, env);
  return yield* withQueue(queue, found, why, env);
}

const EMPTY: Why = { claimable: false, reason: "empty" };

function* withQueue(
  queue: string,
  row: QueueRow | undefined,
  why: Why,
  env: Env,
): Operation<Result<"queue.explain">> {
  const settings = row === undefined ? {} : yield* settingsOfQueue(row.queue_id, env);
  const { pause, throttle } = settings;
  return {
    queue,
    ...why,
    ...(pause !== undefined && isPaused(settings, env)
      ? { pause: { reason: pause.reason, by: pause.by } }
      : {}),
    ...(throttle !== undefined && isThrottled(settings, env)
      ? { throttle: { reason: throttle.reason } }
      : {}),
    dead: row?.dead ?? 0,
    waiting: env.waiting(waitKey(queue)),
  };
}

function* whyOfHead(queue: string, row: QueueRow, env: Env): Operation<Why> {
  const found = yield* headOf(queue, env);
  if (found !== undefined) return yield* whyReady(found.head, row, env);
  const { queue_id: queueId } = row;
  const first = (yield* one(selectFirstInLine, { queueId })) ?? (yield* one(selectUnavailable, { queueId }));
  return first === undefined ? EMPTY : yield* whyOf(first, row, env);
}

function* whyOf(batch: BatchRow & HolderRow, queue: QueueRow, env: Env): Operation<Why> {
  const { state } = batch;
  const named = { claimable: false, ...nameOf(batch) };
  if (state === "ready") return yield* whyReady(batch, queue, env);
  if (state === "scheduled") {
    const reason = batch.attempt > 0 && batch.available_at_wall === null ? "resting" : "scheduled";
    return { ...named, reason, availableAt: availableAt(batch, env) };
  }
  if (state === "blocked") {
    const { enqueue_seq: seq } = batch;
    const waited = yield* all(selectWaitedFor, { seq, rows: MAX_SHOWN_WAITED_FOR });
    return { ...named, reason: "blocked", waitsFor: waited.map(({ batch_id }) => batch_id) };
  }
  if (state !== "claimed") return { ...named, reason: "final" };
  const claim = claimOf(batch, env);
  return {
    ...named,
    reason: "claimed",
    ...(claim === undefined ? {} : { holder: { ...claim, pid: batch.pid } }),
  };
}

type Ready = Pick<
  BatchRow,
  | "enqueue_seq"
  | "batch_id"
  | "state"
  | "delivery_policy"
  | "key"
  | "available_at"
  | "available_at_wall"
  | "enqueued_at"
>;

/** Of a batch that is ready: whether its queue and its key let it be claimed. */
function* whyReady(batch: Ready, queue: QueueRow, env: Env): Operation<Why> {
  const { queue_id: queueId } = queue;
  const named = { claimable: false, ...nameOf(batch), availableAt: availableAt(batch, env) };
  const settings = yield* settingsOfQueue(queueId, env);
  const closure = yield* closureOf(queueId, env);
  if (closure === "full") {
    return { ...named, reason: closure, claims: queue.claims, most: settings.maxClaimed as number };
  }
  if (closure !== undefined)
    return { ...named, reason: closure, until: opensAt(closure, queue, settings, env) };
  const { key, enqueue_seq: seq } = batch;
  if (key !== null && settings.maxClaimedPerKey !== undefined) {
    const claims = yield* countClaimsOfKey(queueId, key);
    const most = settings.maxClaimedPerKey;
    if (claims >= most) return { ...named, reason: "key_full", key, claims, most };
  }
  if (key !== null && settings.keyOrder === "strict") {
    const first = yield* firstUnfinished(queueId, key);
    const behind = first === null || first >= seq ? undefined : yield* one(selectBySeq, { seq: first });
    if (behind !== undefined) {
      return { ...named, reason: "strict", key, behind: behind.batch_id, behindState: behind.state };
    }
  }
  const reason = batch.delivery_policy === "earliest_safe_boundary" ? "ready" : "boundary";
  return { ...named, claimable: true, reason };
}

function nameOf({
  batch_id: batchId,
  state,
  delivery_policy: deliveryPolicy,
}: Pick<BatchRow, "batch_id" | "state" | "delivery_policy">): Pick<
  Why,
  "batchId" | "state" | "deliveryPolicy"
> {
  return { batchId, state, deliveryPolicy };
}

/** When a closed queue opens, by the wall clock; null for no such time. */
function opensAt(
  closure: "paused" | "throttled" | "rate",
  queue: QueueRow,
  { pause, throttle, rate }: Settings,
  env: Env,
): number | null {
  if (closure === "paused") return pause?.untilAt ?? null;
  if (closure === "rate") {
    return rate === undefined ? null : shownAt(nextTokenAt(rate, queue.rate_full_at, env.now), env);
  }
  const until = throttle?.until ?? null;
  return Math.max(until === null ? 0 : shownAt(until, env), throttle?.untilAt ?? 0);
}
