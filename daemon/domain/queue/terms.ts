// Terms: what few claims have beside their batches, above all until when their holder has to stop.
import type { NotificationParams } from "@pawl/protocol";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { claimIdOf } from "./row.js";

const selectTerms = sql<{ cancel_at: number | null }>(
  "SELECT cancel_at FROM pawl_claim_terms WHERE enqueue_seq = :head",
);

const setCancelAt = sql(`
  INSERT INTO pawl_claim_terms (enqueue_seq, fencing_token, cancel_at) VALUES (:head, :fencingToken, :cancelAt)
  ON CONFLICT (enqueue_seq) DO UPDATE SET cancel_at = excluded.cancel_at`);

/** No renewal outlives the grace. */
const shortenLease = sql(`
  UPDATE pawl_batch SET has_terms = 1,
    expires_at = CASE WHEN expires_at > :cancelAt THEN CAST(:cancelAt AS BIGINT) ELSE expires_at END
  WHERE enqueue_seq = :head`);

const deleteTerms = sql("DELETE FROM pawl_claim_terms WHERE enqueue_seq = :head");
const endTerms = sql("UPDATE pawl_batch SET has_terms = NULL WHERE enqueue_seq = :head");

/** The first reason of a batch stays, and so does its place among those of the claim. */
const nameStopped = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, cancelling, cancel_reason) VALUES (:seq, :place, :reason)
  ON CONFLICT (enqueue_seq) DO UPDATE SET
    cancelling = CASE WHEN pawl_batch_more.cancel_reason IS NULL THEN excluded.cancelling
      ELSE pawl_batch_more.cancelling END,
    cancel_reason = coalesce(pawl_batch_more.cancel_reason, excluded.cancel_reason)`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :seq");

const endStopping = sql(
  "UPDATE pawl_batch_more SET cancelling = NULL, cancel_reason = NULL WHERE enqueue_seq = :seq",
);

/** The batches of a claim that are to be cancelled. */
const selectStopped = sql<StoppedRow>(`
  SELECT b.enqueue_seq, b.batch_id, m.cancelling, m.cancel_reason FROM pawl_batch b CROSS JOIN pawl_batch_more m
  WHERE b.claim_seq = :head AND b.claim_seq <> b.enqueue_seq AND b.fencing_token = :fencingToken
    AND b.has_more IS NOT NULL AND m.enqueue_seq = b.enqueue_seq AND m.cancelling IS NOT NULL
  UNION ALL
  SELECT b.enqueue_seq, b.batch_id, m.cancelling, m.cancel_reason FROM pawl_batch b CROSS JOIN pawl_batch_more m
  WHERE b.enqueue_seq = :head AND b.fencing_token = :fencingToken
    AND m.enqueue_seq = b.enqueue_seq AND m.cancelling IS NOT NULL`);

const selectIds = sql<{ batch_id: string }>(`
  SELECT batch_id FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken ORDER BY enqueue_seq`);

const selectHeadId = sql<{ batch_id: string }>("SELECT batch_id FROM pawl_batch WHERE enqueue_seq = :head");

const cancelStopped = sql(`
  UPDATE pawl_batch SET state = 'cancelled', finished_at = :finishedAt,
    last_error = coalesce(:reason, CAST(:error AS TEXT), last_error),
    claim_seq = NULL, fencing_token = NULL, expires_at = NULL, grace_ends_at = NULL, connection = NULL
  WHERE enqueue_seq = :seq`);

interface StoppedRow {
  readonly enqueue_seq: number;
  readonly batch_id: string;
  /** Which of those of its claim was named first, or was first given a reason: its place among them, from 1 on. */
  readonly cancelling: number;
  readonly cancel_reason: string | null;
}

/**
 * The first batch of a claim says of it: `KEPT`, that there is a row of its terms; `TOLD`, that there is none, and that
 * its holder is told if it is lost; `LEASE_ENDED`, that the lease has ended that it was under, so that it cannot be
 * completed any more. Null for a claim that has nothing.
 */
export type HasTerms = typeof KEPT | typeof TOLD | typeof LEASE_ENDED | null;
export const KEPT = 1;
export const TOLD = 2;
export const LEASE_ENDED = 3;

/** A claim as it is told of. */
interface Told {
  readonly enqueue_seq: number;
  readonly fencing_token: number;
  readonly queue: string;
  readonly has_terms: HasTerms;
  readonly holder_connection: number | null;
}

/** When the grace ends that the holder of a claim was given to stop, in elapsed time; null for none. */
export function* cancelAtOf(head: number): Operation<number | null> {
  return (yield* one(selectTerms, { head }))?.cancel_at ?? null;
}

/** Has the claim end at this moment of elapsed time, if nothing ends it before. */
export function* endAt(head: number, fencingToken: number, cancelAt: number, env: Env): Operation<void> {
  yield* run(setCancelAt, { head, fencingToken, cancelAt });
  yield* run(shortenLease, { head, cancelAt });
  env.effects.deadline(cancelAt);
}

/**
 * Names a batch of a claim that is to be cancelled with its end, if it does not complete before.
 *
 * @param stopped the batches of the claim that are named so already.
 * @param reason why, if nobody has said so of this batch before.
 */
export function* nameToStop(
  seq: number,
  stopped: readonly StoppedRow[],
  reason: string | null,
): Operation<void> {
  const place = 1 + Math.max(0, ...stopped.map(({ cancelling }) => cancelling));
  yield* run(nameStopped, { seq, place, reason });
  yield* run(setHasMore, { seq });
}

/** Why a claim is to be stopped: the first reason that was given for any of its batches; null for none. */
export function reasonOf(stopped: readonly StoppedRow[]): string | null {
  const given = stopped.filter(({ cancel_reason: reason }) => reason !== null);
  given.sort((a, b) => a.cancelling - b.cancelling);
  return given[0]?.cancel_reason ?? null;
}

/** The batches of a claim that are named so. */
export function* stoppedOf({
  enqueue_seq: head,
  fencing_token: fencingToken,
}: Told): Operation<StoppedRow[]> {
  const stopped = yield* all(selectStopped, { head, fencingToken });
  return stopped.sort((a, b) => a.enqueue_seq - b.enqueue_seq);
}

/** A claim that has terms has ended: its terms go. */
export function* dropTerms(head: number): Operation<void> {
  yield* run(deleteTerms, { head });
  yield* run(endTerms, { head });
}

/** The batches of a claim were completed, also those that were to be cancelled. */
export function* completedFirst(claim: Told): Operation<void> {
  for (const { enqueue_seq: seq } of yield* stoppedOf(claim)) yield* run(endStopping, { seq });
  yield* dropTerms(claim.enqueue_seq);
}

/**
 * Cancels the batches of a claim that are named so: it ends, and has not completed.
 *
 * @param error of the end, which is kept where nobody said why they are cancelled.
 */
export function* cancelNamed(claim: Told, error: string | null, env: Env): Operation<Set<number>> {
  const stopped = yield* stoppedOf(claim);
  for (const { enqueue_seq: seq, cancel_reason: reason } of stopped) {
    yield* run(cancelStopped, { seq, finishedAt: env.retentionNow, reason, error });
    yield* run(endStopping, { seq });
  }
  return new Set(stopped.map(({ enqueue_seq: seq }) => seq));
}

/** The ids of all batches of a claim. */
function* idsOf({ enqueue_seq: head, fencing_token: fencingToken }: Told): Operation<string[]> {
  const rows = [...(yield* all(selectHeadId, { head })), ...(yield* all(selectIds, { head, fencingToken }))];
  return rows.map(({ batch_id }) => batch_id);
}

/** Tells the holder of a claim that it is to stop. */
export function* tellToStop(claim: Told, graceMs: number, env: Env): Operation<void> {
  const { holder_connection: connection, queue } = claim;
  if (connection === null) return;
  const stopped = yield* stoppedOf(claim);
  const batchIds = stopped.map(({ batch_id }) => batch_id);
  const params = { claimId: nameOf(claim), queue, batchIds, reason: reasonOf(stopped), graceMs };
  env.effects.notify(connection, "claim.cancelling", params);
}

type Cause = NotificationParams<"claim.lost">["cause"];

/** Tells the holder of a claim that it ends now, before its batches are anybody else's. */
export function* tellLost(claim: Told, cause: Cause, env: Env): Operation<void> {
  const { holder_connection: connection, queue } = claim;
  if (connection === null) return;
  const batchIds = yield* idsOf(claim);
  const reason = reasonOf(yield* stoppedOf(claim));
  env.effects.notify(connection, "claim.lost", { claimId: nameOf(claim), queue, batchIds, cause, reason });
}

function nameOf({ enqueue_seq: head, fencing_token: fencingToken }: Told): string {
  return claimIdOf(head, fencingToken);
}
