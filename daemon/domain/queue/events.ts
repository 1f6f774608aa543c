import type { EventKind } from "@pawl/protocol";
import { type Operation, one, sql } from "../../store/statement.js";
import type { EventDetails } from "../../turns/journal.js";
import type { Env } from "../../turns/operation.js";

const selectId = sql<{ batch_id: string }>("SELECT batch_id FROM pawl_batch WHERE enqueue_seq = :seq");

/** Tells of a batch of which only the enqueueSeq is known. Looks for its id only where somebody follows. */
export function* tellBatch(
  seq: number,
  queue: string,
  kind: EventKind<"queue">,
  env: Env,
  details?: EventDetails,
): Operation<void> {
  if (!env.effects.isFollowed) return env.effects.note("queue", queue, kind, 1);
  const row = yield* one(selectId, { seq });
  if (row !== undefined) env.effects.tell("queue", queue, kind, row.batch_id, details);
}
