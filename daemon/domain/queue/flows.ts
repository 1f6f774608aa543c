// Flows: batches that wait for the end of others. Those that wait are told in steps, so that no turn tells many.
import type { BatchState } from "@pawl/protocol";
import { dueAt, type Ending, retain } from "../../grants/ending.js";
import { all, type Operation, one, sql, write } from "../../store/statement.js";
import { NEVER } from "../../turns/alarm.js";
import { type Env, EVERYTHING } from "../../turns/operation.js";
import type { KeptRows } from "../../turns/turn-memory.js";
import { tellBatch } from "./events.js";
import { forgetClaimOfDead, isFollowing, releaseFollower, unfollow } from "./followers.js";
import { GETS_IN_LINE } from "./lanes.js";
import { knownName, move, queueOf, touchKey } from "./queue-row.js";
import { finishedKey, isFinal, wakeQueue } from "./row.js";

/** Batches that one turn tells of the end of those that they wait for: some 4 ms of work. */
const TOLD_PER_TURN = 150;

const COMPLETED = 1;
const ENDED_OTHERWISE = 2;

export type When = "success" | "failure" | "finished";

const selectTurned = sql<TurnedRow>(
  "SELECT enqueue_seq, batch_id, state FROM pawl_batch WHERE enqueue_seq = :seq",
);

const selectOwnAfter = sql<{ after_ids: string | null; delay_ms: number | null; state: BatchState }>(`
  SELECT m.after_ids, m.delay_ms, b.state FROM pawl_batch_more m CROSS JOIN pawl_batch b
  WHERE m.enqueue_seq = :seq AND b.enqueue_seq = :seq`);

const selectWaiting = sql<WaitingRow>(`
  SELECT a.enqueue_seq, a.outcome, b.queue_id, b.state, b.key, b.key_elsewhere, b.available_at_wall, b.ttl_ms, m.after_when,
    m.after_left, m.cancel_cause, m.follows_seq, m.delay_ms
  FROM pawl_batch_after a CROSS JOIN pawl_batch b CROSS JOIN pawl_batch_more m
  WHERE a.after_seq = :seq AND a.enqueue_seq > :told AND b.enqueue_seq = a.enqueue_seq
    AND m.enqueue_seq = a.enqueue_seq
  ORDER BY a.enqueue_seq LIMIT :rows`);

const selectOneWaiting = sql<Omit<WaitingRow, "outcome">>(`
  SELECT b.enqueue_seq, b.queue_id, b.state, b.key, b.key_elsewhere, b.available_at_wall, b.ttl_ms, m.after_when,
    m.after_left, m.cancel_cause, m.follows_seq, m.delay_ms
  FROM pawl_batch b CROSS JOIN pawl_batch_more m WHERE b.enqueue_seq = :seq AND m.enqueue_seq = :seq`);

const setOutcome = sql(
  "UPDATE pawl_batch_after SET outcome = :outcome WHERE after_seq = :afterSeq AND enqueue_seq = :seq",
);

const setLeft = sql("UPDATE pawl_batch_more SET after_left = :left WHERE enqueue_seq = :seq");

const countOutcomes = sql<{ unfinished: number; failed: number | null }>(`
  SELECT sum(CASE WHEN outcome IS NULL THEN 1 ELSE 0 END) AS unfinished,
    min(CASE WHEN outcome = ${ENDED_OTHERWISE} THEN after_seq END) AS failed
  FROM pawl_batch_after WHERE enqueue_seq = :seq`);

/** A batch that was removed before it had ended does not complete any more. */
const noteRemoved = sql(`
  UPDATE pawl_batch_after SET outcome = ${ENDED_OTHERWISE} WHERE enqueue_seq = :seq AND outcome IS NULL
    AND NOT EXISTS (SELECT 1 FROM pawl_batch b WHERE b.enqueue_seq = pawl_batch_after.after_seq)`);

const releaseBatch = sql(`
  UPDATE pawl_batch SET state = :state, available_at = :availableAt, available_at_wall = :availableAtWall,
    ttl_ends_at = :ttlEndsAt, ${GETS_IN_LINE}
  WHERE enqueue_seq = :seq`);

const cancelBatch = sql(`
  UPDATE pawl_batch SET state = 'cancelled', finished_at = :finishedAt, last_error = :why WHERE enqueue_seq = :seq`);

const setCause = sql("UPDATE pawl_batch_more SET cancel_cause = :cause WHERE enqueue_seq = :seq");

const blockBatch = sql(`
  UPDATE pawl_batch SET state = 'blocked', finished_at = NULL, last_error = NULL, attempt = 0, lost_before = NULL,
    ttl_ends_at = NULL, claim_seq = NULL, fencing_token = NULL
  WHERE enqueue_seq = :seq`);

const blockMore = sql(
  "UPDATE pawl_batch_more SET cancel_cause = NULL, after_left = :left WHERE enqueue_seq = :seq",
);

const forgetClaims = sql(`
  UPDATE pawl_batch SET claim_seq = NULL, fencing_token = NULL
  WHERE state = 'dead' AND claim_seq IS NOT NULL
    AND enqueue_seq IN (SELECT after_seq FROM pawl_batch_after WHERE enqueue_seq = :seq)`);

const countAwaited = sql(`
  UPDATE pawl_batch_more SET awaited = coalesce(awaited, 0) + :by
  WHERE enqueue_seq IN (SELECT after_seq FROM pawl_batch_after WHERE enqueue_seq = :seq)`);

const deleteAfter = sql("DELETE FROM pawl_batch_after WHERE enqueue_seq = :seq");

const clearAfter = sql(`
  UPDATE pawl_batch_more SET after_ids = NULL, after_when = NULL, after_left = NULL, delay_ms = NULL, cancel_cause = NULL
  WHERE enqueue_seq = :seq`);

const insertAfter = sql(
  "INSERT INTO pawl_batch_after (after_seq, enqueue_seq, outcome) VALUES (:afterSeq, :seq, :outcome)",
);

const setAfter = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, after_ids, after_when, after_left, delay_ms)
  VALUES (:seq, :ids, :when, :left, :delayMs)
  ON CONFLICT (enqueue_seq) DO UPDATE SET after_ids = excluded.after_ids, after_when = excluded.after_when,
    after_left = excluded.after_left, delay_ms = excluded.delay_ms`);

const awaitBatches = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, awaited)
  SELECT after_seq, 1 FROM pawl_batch_after WHERE enqueue_seq = :seq
  ON CONFLICT (enqueue_seq) DO UPDATE SET awaited = coalesce(pawl_batch_more.awaited, 0) + 1`);

const awaitedHaveMore = sql(`
  UPDATE pawl_batch SET has_more = 1 WHERE has_more IS NULL
    AND enqueue_seq IN (SELECT after_seq FROM pawl_batch_after WHERE enqueue_seq = :seq)`);

const selectOwed = sql<{ enqueue_seq: number; told_seq: number }>(
  "SELECT enqueue_seq, told_seq FROM pawl_batch_turned ORDER BY enqueue_seq LIMIT 1",
);

const owe = sql(`
  INSERT INTO pawl_batch_turned (enqueue_seq, told_seq) VALUES (:seq, :told)
  ON CONFLICT (enqueue_seq) DO UPDATE SET told_seq = excluded.told_seq`);

const deleteOwed = sql("DELETE FROM pawl_batch_turned WHERE enqueue_seq = :seq");

const selectIsOwed = sql<{ enqueue_seq: number }>(
  "SELECT enqueue_seq FROM pawl_batch_turned WHERE enqueue_seq = :seq",
);

interface TurnedRow {
  readonly enqueue_seq: number;
  readonly batch_id: string;
  readonly state: BatchState;
}

/** A batch that waits, or waited, for another. */
interface WaitingRow {
  readonly enqueue_seq: number;
  readonly outcome: number | null;
  readonly queue_id: number;
  readonly state: BatchState;
  readonly key: string | null;
  readonly key_elsewhere: 1 | null;
  readonly available_at_wall: number | null;
  readonly ttl_ms: number | null;
  readonly after_when: When;
  readonly after_left: number | null;
  readonly cancel_cause: number | null;
  readonly follows_seq: number | null;
  readonly delay_ms: number | null;
}

type Waiting = Omit<WaitingRow, "outcome">;

/** How many batches a turn may still tell. */
class Telling implements KeptRows {
  left = TOLD_PER_TURN;

  *writeBack(): Operation<void> {}
}

/**
 * A batch has become final: whoever waits for it is woken, its follower takes its sourceKey and its turn, and batches
 * that wait for it are told.
 *
 * @param hasMore whether the batch has anything that few have.
 */
export function* ended(seq: number, queue: string, hasMore: 1 | null, env: Env): Operation<void> {
  env.effects.wake(finishedKey(seq));
  if (hasMore === null) return;
  yield* releaseFollower(seq, queue, env);
  yield* letGo(seq, env);
  yield* turned(seq, env);
}

/** Batches that a final batch has waited for need not be kept for it, unless it is dead. */
function* letGo(seq: number, env: Env): Operation<void> {
  const own = yield* one(selectOwnAfter, { seq });
  if (own === undefined || own.after_ids === null) return;
  env.reach?.(EVERYTHING);
  if (own.state === "completed" || own.state === "cancelled" || own.state === "expired") {
    yield* write(countAwaited, { seq, by: -1 });
  }
  if (own.state === "completed") yield* write(deleteAfter, { seq });
}

/** A batch has ended, or has come back: tells those that wait for it, as far as this turn has time for it. */
export function* turned(seq: number, env: Env): Operation<void> {
  yield* tellWaiting(seq, 0, env);
}

function* tellWaiting(first: number, after: number, env: Env): Operation<void> {
  const budget = env.turn.of(Telling);
  const work = [{ seq: first, told: after }];
  for (let next = work.shift(); next !== undefined; next = work.shift()) {
    const { seq } = next;
    const row = yield* one(selectTurned, { seq });
    if (row === undefined) continue;
    for (let told = next.told; ; ) {
      const rows = budget.left;
      const waiting = yield* all(selectWaiting, { seq, told, rows: Math.max(rows, 1) });
      if (waiting.length > 0) env.reach?.(EVERYTHING);
      if (waiting.length > 0 && rows <= 0) {
        yield* write(owe, { seq, told });
        env.effects.deadline(env.now);
        break;
      }
      for (const each of waiting) {
        budget.left -= 1;
        told = each.enqueue_seq;
        if (yield* tell(each, row, env)) work.push({ seq: each.enqueue_seq, told: 0 });
      }
      if (waiting.length < rows || waiting.length === 0) break;
    }
  }
}

/** Tells a batch how one that it waits for stands. Returns whether it has ended by that, or come back. */
function* tell(waiting: WaitingRow, about: TurnedRow, env: Env): Operation<boolean> {
  const outcome = outcomeOf(about.state);
  if (waiting.outcome === outcome) return false;
  const { enqueue_seq: seq, state, after_left: left, after_when: when } = waiting;
  yield* write(setOutcome, { afterSeq: about.enqueue_seq, seq, outcome });
  if (state === "cancelled" && waiting.cancel_cause === about.enqueue_seq && outcome === null) {
    return yield* bringBack(waiting, env);
  }
  if (state !== "blocked" || left === null) return false;
  const before = waiting.outcome === null ? 0 : 1;
  const now = left + before - (outcome === null ? 0 : 1);
  yield* write(setLeft, { seq, left: now });
  if (outcome === ENDED_OTHERWISE && when === "success") {
    yield* cancelWaiting(waiting, about, env);
    return true;
  }
  if (now > 0) return false;
  if (when === "failure" && ((yield* one(countOutcomes, { seq }))?.failed ?? null) === null) {
    yield* cancelWaiting(waiting, about, env);
    return true;
  }
  yield* release(waiting, env);
  return false;
}

function outcomeOf(state: BatchState): number | null {
  if (!isFinal(state)) return null;
  return state === "completed" ? COMPLETED : ENDED_OTHERWISE;
}

/** All that a batch has waited for is final, as it has to be: its delay and its ttl begin. */
function* release(waiting: Waiting, env: Env): Operation<void> {
  const { enqueue_seq: seq, queue_id: queueId, key, available_at_wall: named, ttl_ms: ttlMs } = waiting;
  yield* write(setLeft, { seq, left: null });
  if (waiting.after_when !== "success") yield* write(forgetClaims, { seq });
  // What it followed may have been told before it, and have ended by that.
  if (waiting.follows_seq !== null && (yield* isFollowing(seq))) return;
  const isNamed = named !== null && named > env.wallMs;
  const delayMs = waiting.delay_ms ?? 0;
  const state = isNamed || delayMs > 0 ? "scheduled" : "ready";
  const availableAt = env.now + delayMs;
  const ttlEndsAt = state === "ready" && ttlMs !== null ? env.now + ttlMs : null;
  yield* write(releaseBatch, {
    seq,
    state,
    availableAt,
    availableAtWall: isNamed ? named : delayMs > 0 ? null : env.wallMs,
    ttlEndsAt,
  });
  yield* move(queueId, { blocked: -1, [state]: 1 }, env);
  yield* touchKey(queueId, key, env);
  yield* tellBatch(seq, knownName(queueId, env), "unblocked", env);
  if (ttlEndsAt !== null) env.effects.deadline(ttlEndsAt);
  if (state === "ready") wakeQueue((yield* queueOf(queueId, env)).queue, env);
  else if (isNamed) env.effects.wallDeadline(named);
  else env.effects.deadline(availableAt);
}

/** What a batch waits for cannot come true any more. */
function* cancelWaiting(waiting: Waiting, cause: TurnedRow, env: Env): Operation<void> {
  const { enqueue_seq: seq, queue_id: queueId, key, after_when: when } = waiting;
  const why =
    when === "success"
      ? `The batch ${cause.batch_id}, which it waits for to succeed, is ${cause.state}.`
      : `It waits for one of its batches to fail, and all are completed; the last was ${cause.batch_id}.`;
  yield* unfollow(seq, 1);
  yield* write(cancelBatch, { seq, finishedAt: env.retentionNow, why });
  yield* write(setCause, { seq, cause: cause.enqueue_seq });
  yield* forgetClaimOfDead(cause.enqueue_seq);
  yield* write(countAwaited, { seq, by: -1 });
  yield* move(queueId, { blocked: -1, cancelled: 1 }, env);
  yield* touchKey(queueId, key, env);
  yield* tellBatch(seq, knownName(queueId, env), "cancelled", env, { from: "blocked" });
  env.effects.wake(finishedKey(seq));
  yield* releaseFollower(seq, (yield* queueOf(queueId, env)).queue, env);
  retain(env);
}

/** How many of those that a cancelled batch waits for are unfinished, and the first of them that has failed. */
function* outcomesOf(seq: number): Operation<{ unfinished: number; failed: number | null }> {
  yield* write(noteRemoved, { seq });
  return (yield* one(countOutcomes, { seq })) ?? { unfinished: 0, failed: null };
}

/** The batch for whose end this one was cancelled has come back. Returns whether this one has, too. */
function* bringBack(waiting: Waiting, env: Env): Operation<boolean> {
  const { enqueue_seq: seq, queue_id: queueId, after_when: when } = waiting;
  // Another batch has its sourceKey now: that is what was asked for last.
  if (waiting.key_elsewhere !== null) return false;
  const { unfinished, failed } = yield* outcomesOf(seq);
  if (when === "success" && failed !== null) {
    yield* write(setCause, { seq, cause: failed });
    return false;
  }
  yield* block(seq, queueId, "cancelled", unfinished, env);
  return true;
}

/** A batch that was cancelled waits again. */
function* block(seq: number, queueId: number, from: BatchState, left: number, env: Env): Operation<void> {
  yield* write(blockBatch, { seq });
  yield* write(blockMore, { seq, left });
  yield* write(countAwaited, { seq, by: 1 });
  yield* move(queueId, { [from]: -1, blocked: 1 }, env);
  yield* tellBatch(seq, knownName(queueId, env), "retried", env);
}

/**
 * Where a batch stands that is to be tried again: `ready` if it waits for nothing, `blocked` once this has put it
 * there, `stays` if what it waits for cannot come true, or if it comes back only with what it was cancelled for.
 */
export function* waitAgain(
  seq: number,
  queueId: number,
  from: BatchState,
  env: Env,
): Operation<"ready" | "blocked" | "stays"> {
  const waiting = yield* one(selectOneWaiting, { seq });
  if (waiting === undefined || waiting.after_when === null) return "ready";
  if (waiting.cancel_cause !== null) return "stays";
  if (waiting.after_left !== null) {
    const { unfinished, failed } = yield* outcomesOf(seq);
    const isPossible =
      waiting.after_when === "success"
        ? failed === null
        : waiting.after_when === "finished" || unfinished > 0 || failed !== null;
    if (!isPossible) return "stays";
    if (unfinished > 0) {
      yield* block(seq, queueId, from, unfinished, env);
      return "blocked";
    }
    yield* write(setLeft, { seq, left: null });
  }
  if (from !== "dead") yield* write(countAwaited, { seq, by: 1 });
  return "ready";
}

/** A batch that another waits for. */
export interface Awaited {
  readonly seq: number;
  readonly batchId: string;
  readonly state: BatchState;
  /** True once the batch is marked to have more: that others wait for it. */
  hasMore: boolean;
}

/** What a batch waits for, as it was asked for. */
export interface After {
  readonly batches: readonly Awaited[];
  readonly when: When;
}

/** How many of the batches that one waits for are not final. */
function unfinishedOf({ batches }: After): number {
  return batches.filter(({ state }) => !isFinal(state)).length;
}

/** Whether what a batch waits for cannot come true: because of this one. */
function obstacleOf({ batches, when }: After): Awaited | undefined {
  if (when === "success") return batches.find(({ state }) => outcomeOf(state) === ENDED_OTHERWISE);
  if (when === "failure" && batches.every(({ state }) => state === "completed")) return batches.at(-1);
  return undefined;
}

/** Whether a batch that waits for these is blocked at first, if only to be cancelled at once. */
export function isBlocked(after: After): boolean {
  return unfinishedOf(after) > 0 || obstacleOf(after) !== undefined;
}

/**
 * Keeps what a batch waits for that is marked to have more. Returns whether it was cancelled, since that cannot come
 * true.
 */
export function* keepAfter(
  seq: number,
  after: After,
  delayMs: number | undefined,
  env: Env,
): Operation<boolean> {
  const { batches, when } = after;
  const ids = JSON.stringify(batches.map(({ batchId }) => batchId));
  const left = isBlocked(after) ? unfinishedOf(after) : null;
  yield* write(setAfter, { seq, ids, when, left, delayMs: delayMs ?? null });
  for (const { seq: afterSeq, state } of batches)
    yield* write(insertAfter, { afterSeq, seq, outcome: outcomeOf(state) });
  yield* write(awaitBatches, { seq });
  if (batches.some(({ hasMore }) => !hasMore)) yield* write(awaitedHaveMore, { seq });
  for (const each of batches) each.hasMore = true;
  const obstacle = obstacleOf(after);
  if (obstacle === undefined) {
    if (left === null && when !== "success") yield* write(forgetClaims, { seq });
    return false;
  }
  const waiting = (yield* one(selectOneWaiting, { seq })) as Waiting;
  const cause = (yield* one(selectTurned, { seq: obstacle.seq })) as TurnedRow;
  yield* cancelWaiting(waiting, cause, env);
  yield* turned(seq, env);
  return true;
}

/** The delay that a batch was given for the time after those that it waits for; undefined if it waits for none. */
export function* delayAfterOthers(seq: number): Operation<{ readonly delayMs: number } | undefined> {
  const own = yield* one(selectOwnAfter, { seq });
  return own === undefined || own.after_ids === null ? undefined : { delayMs: own.delay_ms ?? 0 };
}

/** A batch waits for nothing any more: it is removed, or something else is asked for in its place. */
export function* dropAfter(seq: number, state: BatchState): Operation<void> {
  const isCounted = state !== "completed" && state !== "cancelled" && state !== "expired";
  if (isCounted) yield* write(countAwaited, { seq, by: -1 });
  yield* write(deleteAfter, { seq });
  yield* write(clearAfter, { seq });
}

/** Whether those that wait for a batch are still to be told how it stands. */
export function* isTurning(seq: number): Operation<boolean> {
  return (yield* one(selectIsOwed, { seq })) !== undefined;
}

/** Batches that have ended or come back, and whose waiting ones were too many for one turn. */
export const turnedBatches: Ending = {
  *earliest(env) {
    return (yield* one(selectOwed)) === undefined ? NEVER : dueAt(env.now);
  },

  *expire(env, rows) {
    const owed = yield* one(selectOwed);
    if (owed === undefined) return 0;
    yield* write(deleteOwed, { seq: owed.enqueue_seq });
    yield* tellWaiting(owed.enqueue_seq, owed.told_seq, env);
    return rows;
  },
};
