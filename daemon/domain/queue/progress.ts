// Progress: the holder of a claim says how far its work has come, and from where another could go on.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { progressAfter, tooLarge } from "../../json/kept-values.js";
import { type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { membersOf, renew } from "./holder.js";

const selectProgress = sql<{ progress: string | null }>(
  "SELECT progress FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

const setProgress = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, progress, checkpoint) VALUES (:seq, :progress, :checkpoint)
  ON CONFLICT (enqueue_seq) DO UPDATE SET progress = coalesce(excluded.progress, pawl_batch_more.progress),
    checkpoint = coalesce(excluded.checkpoint, pawl_batch_more.checkpoint)`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :seq AND has_more IS NULL");

/** Renews the claim, and keeps with each of its batches what is given; what is not given stays. */
export function* progress(
  params: Parsed<"queue.progress">,
  env: Env,
  [checkpoint]: Texts,
): Operation<Result<"queue.progress"> | PawlError> {
  const { percent, note, ...claim } = params;
  const members = yield* membersOf(params, env);
  if (members instanceof PawlError) return members;
  const wrong =
    checkpoint === undefined
      ? undefined
      : tooLarge("queue.progress", "/checkpoint", checkpoint, members.length);
  if (wrong !== undefined) return wrong;
  const held = yield* renew(claim, env);
  if (held instanceof PawlError) return held;
  const isTold = percent !== undefined || note !== undefined;
  if (!isTold && checkpoint === undefined) return held;
  const [head] = members;
  const before = isTold && head.has_more === 1 ? yield* one(selectProgress, { seq: head.enqueue_seq }) : null;
  const now = progressAfter(before?.progress, params);
  for (const { enqueue_seq: seq, has_more: hasMore } of members) {
    yield* run(setProgress, {
      seq,
      progress: isTold ? now : null,
      checkpoint: checkpoint ?? null,
    });
    if (hasMore === null) yield* run(setHasMore, { seq });
    yield* tellBatch(seq, head.queue, "progressed", env);
  }
  return held;
}
