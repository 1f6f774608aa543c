// The row of a queue: how many of its batches are in which state.
import type { BatchState } from "@pawl/protocol";
import { type Operation, one, run, sql } from "../../store/statement.js";

export interface QueueRow extends Record<BatchState, number> {
  queue_id: number;
  queue: string;
  fencing_token: number;
}

/** A negative number takes away. */
type Counts = { readonly [State in BatchState]?: number };

export const NO_COUNTS = { ready: 0, scheduled: 0, claimed: 0, completed: 0, dead: 0, cancelled: 0 };

export const selectQueue = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue = :queue");

const insertQueue = sql(`
  INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
  VALUES (:queue,
    coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'queue_fencing_floor'), 0),
    :ready, :scheduled, 0, 0, 0, 0)`);

const countAdded = sql(`
  UPDATE pawl_queue SET ready = ready + :ready, scheduled = scheduled + :scheduled WHERE queue = :queue`);

const countMoved = sql(`
  UPDATE pawl_queue SET ready = ready + :ready, scheduled = scheduled + :scheduled, claimed = claimed + :claimed,
    completed = completed + :completed, dead = dead + :dead, cancelled = cancelled + :cancelled
  WHERE queue_id = :queueId`);

const sumQueues = sql<Record<BatchState, number>>(`
  SELECT coalesce(sum(ready), 0) AS ready, coalesce(sum(scheduled), 0) AS scheduled,
    coalesce(sum(claimed), 0) AS claimed, coalesce(sum(completed), 0) AS completed,
    coalesce(sum(dead), 0) AS dead, coalesce(sum(cancelled), 0) AS cancelled
  FROM pawl_queue`);

/** Makes the queue if this is its first batch. */
export function* addToQueue(queue: string, ready: number, scheduled: number): Operation<void> {
  const found = yield* run(countAdded, { queue, ready, scheduled });
  if (found === 0) yield* run(insertQueue, { queue, ready, scheduled });
}

export function* move(queueId: number, counts: Counts): Operation<void> {
  yield* run(countMoved, { ...NO_COUNTS, ...counts, queueId });
}

/** How many batches of all queues are in which state. */
export function* countBatches(): Operation<Record<BatchState, number>> {
  return (yield* one(sumQueues)) ?? NO_COUNTS;
}
