// Followers: a batch that waits for the end of the one before it with the same sourceKey, of which it is the next run.
import { type Operation, one, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { GETS_IN_LINE } from "./lanes.js";
import { knownName, move, touchKey } from "./queue-row.js";
import { waitKey } from "./row.js";

const setFollowerSeq = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, follower_seq) VALUES (:seq, :followerSeq)
  ON CONFLICT (enqueue_seq) DO UPDATE SET follower_seq = excluded.follower_seq`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :seq");

const selectFollower = sql<{ follower_seq: number | null }>(
  "SELECT follower_seq FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

const selectFollowed = sql<{ follows_seq: number | null }>(
  "SELECT follows_seq FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

const selectLeft = sql<{ after_left: number | null }>(
  "SELECT after_left FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

const takeKey = sql("UPDATE pawl_batch SET key_elsewhere = NULL WHERE enqueue_seq = :seq");
const endFollowing = sql("UPDATE pawl_batch_more SET follows_seq = NULL WHERE enqueue_seq = :seq");
const forgetFollower = sql("UPDATE pawl_batch_more SET follower_seq = NULL WHERE enqueue_seq = :seq");
const giveKeyUp = sql("UPDATE pawl_batch SET key_elsewhere = 1 WHERE enqueue_seq = :seq");

/** Its delay went on while it waited. */
const release = sql<{
  queue_id: number;
  state: "ready" | "scheduled";
  key: string | null;
  ttl_ends_at: number | null;
}>(`
  UPDATE pawl_batch SET key_elsewhere = NULL, ${GETS_IN_LINE},
    state = CASE WHEN available_at_wall > :wallMs OR available_at > :now THEN 'scheduled' ELSE 'ready' END,
    available_at = CASE WHEN available_at > :now THEN available_at ELSE CAST(:now AS BIGINT) END,
    available_at_wall = CASE WHEN available_at_wall > :wallMs THEN available_at_wall
      WHEN available_at > :now THEN NULL ELSE CAST(:wallMs AS BIGINT) END,
    ttl_ends_at = CASE WHEN ttl_ms IS NULL OR available_at_wall > :wallMs OR available_at > :now THEN NULL
      ELSE CAST(:now AS BIGINT) + ttl_ms END
  WHERE enqueue_seq = :seq
  RETURNING queue_id, state, key, ttl_ends_at`);

const forgetClaim = sql(`
  UPDATE pawl_batch SET claim_seq = NULL, fencing_token = NULL
  WHERE enqueue_seq = :seq AND state = 'dead' AND claim_seq IS NOT NULL`);

const selectTimes = sql<{ available_at: number; available_at_wall: number | null }>(
  "SELECT available_at, available_at_wall FROM pawl_batch WHERE enqueue_seq = :seq",
);

/** Remembers which batch waits for the end of one. */
export function* setFollower(seq: number, followerSeq: number): Operation<void> {
  yield* write(setFollowerSeq, { seq, followerSeq });
  yield* write(setHasMore, { seq });
}

/** The enqueueSeq of the follower of a batch, if it has one. */
export function* followerOf(seq: number, hasMore: 1 | null): Operation<number | null> {
  return hasMore === null ? null : ((yield* one(selectFollower, { seq }))?.follower_seq ?? null);
}

/** Once something was done because a batch died, its earlier claim cannot be completed any more. */
export function* forgetClaimOfDead(seq: number): Operation<void> {
  yield* write(forgetClaim, { seq });
}

/** A batch has become final: its follower takes the sourceKey and its turn, once it waits for nothing else. */
export function* releaseFollower(seq: number, queue: string, env: Env): Operation<void> {
  const followerSeq = yield* followerOf(seq, 1);
  if (followerSeq === null) return;
  yield* write(giveKeyUp, { seq });
  yield* write(forgetFollower, { seq });
  yield* write(endFollowing, { seq: followerSeq });
  yield* forgetClaimOfDead(seq);
  if (((yield* one(selectLeft, { seq: followerSeq }))?.after_left ?? null) !== null) {
    yield* write(takeKey, { seq: followerSeq });
    return;
  }
  const { now, wallMs } = env;
  const released = yield* one(release, { seq: followerSeq, now, wallMs });
  if (released === undefined) throw new Error(`the follower ${followerSeq} of the batch ${seq} is not there`);
  const { queue_id: queueId, state, key, ttl_ends_at: endsAt } = released;
  yield* move(queueId, { blocked: -1, [state]: 1 }, env);
  yield* tellBatch(followerSeq, knownName(queueId, env), "unblocked", env);
  yield* touchKey(queueId, key, env);
  if (endsAt !== null) env.effects.deadline(endsAt);
  if (state === "ready") return env.effects.wake(waitKey(queue));
  const times = yield* one(selectTimes, { seq: followerSeq });
  if (times === undefined) return;
  if (times.available_at_wall === null) env.effects.deadline(times.available_at);
  else env.effects.wallDeadline(times.available_at_wall);
}

/** Whether a batch waits for the end of the one before it. */
export function* isFollowing(seq: number): Operation<boolean> {
  return ((yield* one(selectFollowed, { seq }))?.follows_seq ?? null) !== null;
}

/** A batch that waits is cancelled or goes elsewhere: it follows no other any more. */
export function* unfollow(seq: number, hasMore: 1 | null): Operation<void> {
  if (hasMore === null) return;
  const followed = (yield* one(selectFollowed, { seq }))?.follows_seq ?? null;
  if (followed === null) return;
  yield* write(endFollowing, { seq });
  yield* write(forgetFollower, { seq: followed });
}
