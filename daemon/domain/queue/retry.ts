// Retry: what is dead, was cancelled or has expired is ready again.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_RETRIED_BATCHES } from "@pawl/protocol/limits";
import { all, type Operation, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { turned, waitAgain } from "./flows.js";
import { GETS_IN_LINE, LANE_OF } from "./lanes.js";
import { findQueue, move, touchKey } from "./queue-row.js";
import { byId, waitKey } from "./row.js";

/** Batches that one step brings back: some 3 ms of work. */
const BATCHES_PER_STEP = 250;

const BROUGHT_BACK = `
  UPDATE pawl_batch SET state = 'ready', attempt = 0, lost_before = NULL, finished_at = NULL, ${GETS_IN_LINE},
    available_at = :now, available_at_wall = :wallMs, claim_seq = NULL, fencing_token = NULL,
    ttl_ends_at = CASE WHEN ttl_ms IS NULL THEN NULL ELSE CAST(:now AS BIGINT) + ttl_ms END`;

const RETURNED = "RETURNING enqueue_seq, key, has_more, ttl_ends_at";

/** Where another batch has its sourceKey now, that is what was asked for last. */
const retryBatch = sql<BackRow>(
  `${BROUGHT_BACK} WHERE enqueue_seq = :seq AND key_elsewhere IS NULL ${RETURNED}`,
);

const retryDead = sql<BackRow>(`${BROUGHT_BACK} WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE queue_id = :queueId AND lane = ${LANE_OF.dead}
      AND enqueue_seq > :after AND key_elsewhere IS NULL
     ORDER BY enqueue_seq LIMIT :rows) ${RETURNED}`);

interface BackRow {
  enqueue_seq: number;
  key: string | null;
  has_more: 1 | null;
  ttl_ends_at: number | null;
}

export function* retry(params: Parsed<"queue.retry">, env: Env): Operation<Outcome<Result<"queue.retry">>> {
  if (params.batchId === undefined) return yield* retryQueue(params.queue as string, 0, 0, env);
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  const { state, queue_id: queueId, enqueue_seq: seq } = row;
  if (state !== "dead" && state !== "cancelled" && state !== "expired") return { retried: 0, more: false };
  if (row.key_elsewhere !== null) return { retried: 0, more: false };
  const again = row.has_more === null ? "ready" : yield* waitAgain(seq, queueId, state, env);
  if (again === "stays") return { retried: 0, more: false };
  if (again === "blocked") {
    yield* turned(seq, env);
    return { retried: 1, more: false };
  }
  const back = yield* all(retryBatch, { seq, now: env.now, wallMs: env.wallMs });
  if (back.length === 0) return { retried: 0, more: false };
  yield* move(queueId, { [state]: -1, ready: 1 }, env);
  yield* comeBack(queueId, row.queue, back, env);
  return { retried: 1, more: false };
}

/**
 * One step, and those that follow it.
 *
 * @param before how many batches the steps before it brought back, and `after` up to which enqueueSeq.
 */
function* retryQueue(
  queue: string,
  before: number,
  after: number,
  env: Env,
): Operation<Outcome<Result<"queue.retry">>> {
  const row = yield* findQueue(queue, env);
  if (row === undefined || row.dead === 0) return { retried: before, more: false };
  const { queue_id: queueId } = row;
  const { now, wallMs } = env;
  const rows = Math.min(BATCHES_PER_STEP, MAX_RETRIED_BATCHES - before);
  const back = yield* all(retryDead, { queueId, after, now, wallMs, rows });
  const batches = back.length;
  yield* move(queueId, { dead: -batches, ready: batches }, env);
  yield* comeBack(queueId, queue, back, env);
  const retried = before + batches;
  if (batches < rows || (yield* findQueue(queue, env))?.dead === 0) return { retried, more: false };
  if (retried === MAX_RETRIED_BATCHES || !env.mayGoOn) return { retried, more: true };
  const last = Math.max(...back.map(({ enqueue_seq }) => enqueue_seq));
  return new Unfinished((later) => retryQueue(queue, retried, last, later));
}

function* comeBack(queueId: number, queue: string, back: readonly BackRow[], env: Env): Operation<void> {
  if (!env.effects.isFollowed) env.effects.note("queue", queue, "retried", back.length);
  for (const { enqueue_seq: seq, key, has_more: hasMore, ttl_ends_at: endsAt } of back) {
    if (hasMore !== null) yield* turned(seq, env);
    if (env.effects.isFollowed) yield* tellBatch(seq, queue, "retried", env);
    yield* touchKey(queueId, key, env);
    if (endsAt !== null) env.effects.deadline(endsAt);
  }
  env.effects.wake(waitKey(queue));
}
