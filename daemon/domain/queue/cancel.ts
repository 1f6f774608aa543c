// Cancel: a batch is taken back, and whoever works on it told to stop.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { DEFAULT_STOP_MS } from "@pawl/protocol/limits";
import { retain } from "../../grants/ending.js";
import { type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { ended } from "./flows.js";
import { followerOf, unfollow } from "./followers.js";
import { move, touchKey } from "./queue-row.js";
import { availableAt, type BatchRow, byId, type HolderRow, isFinal, OWN_COLUMNS } from "./row.js";
import { stop } from "./stop.js";

const cancelBatch = sql(`
  UPDATE pawl_batch SET state = 'cancelled', finished_at = :finishedAt, available_at_wall = :availableAt,
    ttl_ends_at = NULL, last_error = coalesce(:reason, last_error)
  WHERE enqueue_seq = :seq`);

const selectBySourceKey = sql<CancelledRow>(`
  SELECT ${OWN_COLUMNS}, b.claim_seq, b.queue_id, q.queue FROM pawl_queue q CROSS JOIN pawl_batch b
  WHERE q.queue = :queue AND b.queue_id = q.queue_id AND b.source_key = :sourceKey AND b.key_elsewhere IS NULL`);

const selectBySeq = sql<CancelledRow>(`
  SELECT ${OWN_COLUMNS}, b.claim_seq, b.queue_id, q.queue FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.enqueue_seq = :seq AND q.queue_id = b.queue_id`);

type CancelledRow = Omit<BatchRow, "payloads"> &
  Pick<HolderRow, "claim_seq"> & { readonly queue_id: number; readonly queue: string };

export function* cancel(
  params: Parsed<"queue.cancel">,
  env: Env,
): Operation<Result<"queue.cancel"> | PawlError> {
  const { batchId, queue, sourceKey, reason = null } = params;
  const row =
    batchId === undefined ? yield* byKey(queue as string, sourceKey as string) : yield* byId(batchId);
  if (row instanceof PawlError) return row;
  const { state, enqueue_seq: seq } = row;
  if (state === "claimed" && params.stop) {
    return yield* stop(row, params.graceMs ?? DEFAULT_STOP_MS, reason, env);
  }
  if (state === "claimed" || isFinal(state)) {
    return { outcome: `already_${state as "claimed" | "completed" | "cancelled" | "dead" | "expired"}` };
  }
  yield* unfollow(seq, row.has_more);
  // The delay of one that comes back blocked begins with the end of those that it waits for.
  const shownAt = state === "blocked" ? row.available_at_wall : availableAt(row, env);
  yield* run(cancelBatch, { seq, finishedAt: env.retentionNow, availableAt: shownAt, reason });
  yield* move(row.queue_id, { [state]: -1, cancelled: 1 }, env);
  yield* touchKey(row.queue_id, row.key, env);
  yield* tellBatch(seq, row.queue, "cancelled", env, { from: state });
  yield* ended(seq, row.queue, row.has_more, env);
  retain(env);
  return { outcome: "cancelled" };
}

/** The batch of a sourceKey: first the follower of the one that has it. */
function* byKey(queue: string, sourceKey: string): Operation<CancelledRow | PawlError> {
  const row = yield* one(selectBySourceKey, { queue, sourceKey });
  if (row === undefined) {
    return refuse(
      "not_found",
      `There is no batch with the sourceKey ${shown(sourceKey)} in the queue ${shown(queue)}. What has ended is removed some days later.`,
      { what: "batch", queue, sourceKey },
    );
  }
  const seq = yield* followerOf(row.enqueue_seq, row.has_more);
  return seq === null ? row : ((yield* one(selectBySeq, { seq })) as CancelledRow);
}
