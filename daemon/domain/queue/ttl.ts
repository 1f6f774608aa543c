// Batches that nobody has claimed within their ttl.
import type { BatchState } from "@pawl/protocol";
import { dueAt, type Ending, retain } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { ended } from "./flows.js";
import { move, queueOf, touchKey } from "./queue-row.js";

const earliestTtl = sql<{ at: number | null }>(
  "SELECT min(ttl_ends_at) AS at FROM pawl_batch WHERE ttl_ends_at IS NOT NULL",
);

/** One that is scheduled has been available before. */
const selectOverdue = sql<OverdueRow>(`
  SELECT enqueue_seq, queue_id, state, key, has_more FROM pawl_batch
  WHERE ttl_ends_at IS NOT NULL AND ttl_ends_at <= :now ORDER BY ttl_ends_at, enqueue_seq LIMIT :rows`);

const expireBatch = sql(`
  UPDATE pawl_batch SET state = 'expired', finished_at = :finishedAt, ttl_ends_at = NULL WHERE enqueue_seq = :seq`);

interface OverdueRow {
  readonly enqueue_seq: number;
  readonly queue_id: number;
  readonly state: BatchState;
  readonly key: string | null;
  readonly has_more: 1 | null;
}

/** Ends a batch that waits, since its ttl is over. */
export function* expire(
  { enqueue_seq: seq, queue_id: queueId, state, key, has_more: hasMore }: OverdueRow,
  env: Env,
): Operation<void> {
  yield* run(expireBatch, { seq, finishedAt: env.retentionNow });
  yield* move(queueId, { [state]: -1, expired: 1 }, env);
  yield* touchKey(queueId, key, env);
  const { queue } = yield* queueOf(queueId, env);
  yield* tellBatch(seq, queue, "expired", env);
  yield* ended(seq, queue, hasMore, env);
  retain(env);
}

export const overdueBatches: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestTtl))?.at);
  },

  *expire(env, rows) {
    const overdue = yield* all(selectOverdue, { now: env.now, rows });
    for (const row of overdue) yield* expire(row, env);
    return overdue.length;
  },
};
