import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_RETRIED_BATCHES } from "@pawl/protocol/limits";
import { type Operation, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { findQueue, move } from "./queue-row.js";
import { byId, waitKey } from "./row.js";

/** Batches that one step brings back: some 3 ms of work. */
const BATCHES_PER_STEP = 250;

const retryBatch = sql(
  "UPDATE pawl_batch SET state = 'ready', attempt = 0, lost_before = NULL, available_at = :now, available_at_wall = :wallMs WHERE enqueue_seq = :seq",
);

const retryDead = sql(`
  UPDATE pawl_batch SET state = 'ready', attempt = 0, lost_before = NULL, available_at = :now, available_at_wall = :wallMs
  WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'dead'
     ORDER BY enqueue_seq LIMIT :rows)`);

export function* retry(params: Parsed<"queue.retry">, env: Env): Operation<Outcome<Result<"queue.retry">>> {
  if (params.batchId === undefined) return yield* retryQueue(params.queue as string, 0, env);
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  if (row.state !== "dead") return { retried: 0 };
  yield* run(retryBatch, { seq: row.enqueue_seq, now: env.now, wallMs: env.wallMs });
  yield* move(row.queue_id, { dead: -1, ready: 1 }, env);
  env.effects.wake(waitKey(row.queue));
  return { retried: 1 };
}

/** One step, and those that follow it. `before`: how many batches the steps before it brought back. */
function* retryQueue(queue: string, before: number, env: Env): Operation<Outcome<Result<"queue.retry">>> {
  const row = yield* findQueue(queue, env);
  if (row === undefined || row.dead === 0) return { retried: before };
  const { queue_id: queueId, dead } = row;
  const { now, wallMs } = env;
  const rows = Math.min(BATCHES_PER_STEP, MAX_RETRIED_BATCHES - before);
  const batches = yield* run(retryDead, { queueId, now, wallMs, rows });
  yield* move(queueId, { dead: -batches, ready: batches }, env);
  env.effects.wake(waitKey(queue));
  const retried = before + batches;
  if (batches === dead) return { retried };
  if (retried === MAX_RETRIED_BATCHES || !env.mayGoOn) return { retried, more: true };
  return new Unfinished((later) => retryQueue(queue, retried, later));
}
