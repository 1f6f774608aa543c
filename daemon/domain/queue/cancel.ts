import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { retain } from "../../grants/ending.js";
import { type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { move, touchKey } from "./queue-row.js";
import { availableAt, byId, waitKey } from "./row.js";

const cancelBatch = sql(`
  UPDATE pawl_batch SET state = 'cancelled', finished_at = :finishedAt, available_at_wall = :availableAt,
    ttl_ends_at = NULL
  WHERE enqueue_seq = :seq`);

export function* cancel(
  params: Parsed<"queue.cancel">,
  env: Env,
): Operation<Result<"queue.cancel"> | PawlError> {
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  const { state } = row;
  if (state !== "ready" && state !== "scheduled" && state !== "blocked")
    return { outcome: `already_${state}` };
  yield* run(cancelBatch, {
    seq: row.enqueue_seq,
    finishedAt: env.retentionNow,
    availableAt: availableAt(row, env),
  });
  yield* move(row.queue_id, { [state]: -1, cancelled: 1 }, env);
  yield* touchKey(row.queue_id, row.key, env);
  retain(env);
  // It may have been the head that a claim at a checkpoint has to wait behind.
  if (state === "ready") env.effects.wake(waitKey(row.queue));
  return { outcome: "cancelled" };
}
