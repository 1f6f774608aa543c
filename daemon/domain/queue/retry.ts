import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_RETRIED_BATCHES } from "@pawl/protocol/limits";
import { type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { findQueue, move } from "./queue-row.js";
import { byId, waitKey } from "./row.js";

const retryBatch = sql(
  "UPDATE pawl_batch SET state = 'ready', attempt = 0, available_at = :now, available_at_wall = :wallMs WHERE enqueue_seq = :seq",
);

const retryDead = sql(`
  UPDATE pawl_batch SET state = 'ready', attempt = 0, available_at = :now, available_at_wall = :wallMs
  WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'dead'
     ORDER BY enqueue_seq LIMIT :rows)`);

export function* retry(
  params: Parsed<"queue.retry">,
  env: Env,
): Operation<Result<"queue.retry"> | PawlError> {
  if (params.batchId !== undefined) {
    const row = yield* byId(params.batchId);
    if (row instanceof PawlError) return row;
    if (row.state !== "dead") return { retried: 0 };
    yield* run(retryBatch, { seq: row.enqueue_seq, now: env.now, wallMs: env.wallMs });
    yield* move(row.queue_id, { dead: -1, ready: 1 }, env);
    env.effects.wake(waitKey(row.queue));
    return { retried: 1 };
  }
  const queue = params.queue as string;
  const row = yield* findQueue(queue, env);
  if (row === undefined || row.dead === 0) return { retried: 0 };
  const { queue_id: queueId, dead } = row;
  const { now, wallMs } = env;
  const retried = yield* run(retryDead, { queueId, now, wallMs, rows: MAX_RETRIED_BATCHES });
  yield* move(queueId, { dead: -retried, ready: retried }, env);
  env.effects.wake(waitKey(queue));
  return { retried, ...(retried < dead ? { more: true as const } : {}) };
}
