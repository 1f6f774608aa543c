// Update: a batch that waits gets another priority, or another time.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { GETS_IN_LINE } from "./lanes.js";
import { forgetHeads, move, touchKey } from "./queue-row.js";
import { byId, checkKept, isFinal, readMore, shownBatch, waitKey } from "./row.js";

const updateBatch = sql(`
  UPDATE pawl_batch SET priority = :priority, state = :state, available_at = :availableAt,
    available_at_wall = :availableAtWall, ttl_ends_at = :ttlEndsAt, ${GETS_IN_LINE}
  WHERE enqueue_seq = :seq`);

/** A time that is named takes the place of a delay that was to begin with the end of others. */
const endDelay = sql("UPDATE pawl_batch_more SET delay_ms = NULL WHERE enqueue_seq = :seq");

export function* update(
  params: Parsed<"queue.update">,
  env: Env,
): Operation<Result<"queue.update"> | PawlError> {
  const { batchId, priority, availableAt } = params;
  const row = yield* byId(batchId);
  if (row instanceof PawlError) return row;
  if (row.state === "claimed" || isFinal(row.state)) {
    return refuse(
      "invalid_state",
      `The batch ${shown(batchId)} is ${row.state}, and only one that waits can be changed. ${row.state === "claimed" ? "Wait for the end of its claim." : "Enqueue another."}`,
      { batchId, from: row.state, to: row.state },
    );
  }
  const before = row.state;
  if (priority !== undefined) row.priority = priority;
  if (availableAt !== undefined) {
    const isLater = availableAt > env.wallMs;
    row.available_at = env.now;
    row.available_at_wall = isLater ? availableAt : env.wallMs;
    if (before === "blocked") yield* run(endDelay, { seq: row.enqueue_seq });
    else {
      row.state = isLater ? "scheduled" : "ready";
      // Once it has been available its ttl goes on, whatever its time is now.
      if (!isLater && row.ttl_ms !== null) row.ttl_ends_at ??= env.now + row.ttl_ms;
    }
    if (isLater) env.effects.wallDeadline(availableAt);
    if (row.ttl_ends_at !== null) env.effects.deadline(row.ttl_ends_at);
  }
  yield* run(updateBatch, {
    seq: row.enqueue_seq,
    priority: row.priority,
    state: row.state,
    availableAt: row.available_at,
    availableAtWall: row.available_at_wall,
    ttlEndsAt: row.ttl_ends_at,
  });
  const { queue_id: queueId } = row;
  if (row.state !== before) yield* move(queueId, { [before]: -1, [row.state]: 1 }, env);
  yield* forgetHeads(queueId, env);
  yield* touchKey(queueId, row.key, env);
  env.effects.tell("queue", row.queue, "updated", row.batch_id);
  // What follows it in its old place may be the head now.
  env.effects.wake(waitKey(row.queue));
  yield* readMore(row);
  checkKept(row);
  return { batch: shownBatch(row, JSON.stringify(row.queue), undefined, env) };
}
