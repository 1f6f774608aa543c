import type { EventKind } from "@pawl/protocol";
import { type Operation, one, sql } from "../../store/statement.js";
import type { EventDetails } from "../../turns/journal.js";
import type { Env } from "../../turns/operation.js";

const selectName = sql<{ queue: string; batch_id: string }>(`
  SELECT q.queue, b.batch_id FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.enqueue_seq = :seq AND q.queue_id = b.queue_id`);

/** Tells of a batch of which only the enqueueSeq is known. Looks for its name only where somebody follows. */
export function* tellBatch(
  seq: number,
  kind: EventKind<"queue">,
  env: Env,
  details?: EventDetails,
): Operation<void> {
  if (!env.effects.isFollowed) return;
  const row = yield* one(selectName, { seq });
  if (row !== undefined) env.effects.tell("queue", row.queue, kind, row.batch_id, details);
}
