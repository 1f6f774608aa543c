// The holder of a claim renews it, completes its batches, or abandons them.
import { timingSafeEqual } from "node:crypto";
import type { NotificationParams, Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { retain } from "../../grants/ending.js";
import { endOf, lasts, renewal } from "../../grants/grant.js";
import { all, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { remainingOfLease } from "./claims-under-lease.js";
import { tellBatch } from "./events.js";
import { ended } from "./flows.js";
import {
  batchesOf,
  CLAIM_COLUMNS,
  CLAIM_TABLE,
  type ClaimRow,
  end,
  type Members,
  noteRun,
} from "./give-back.js";
import { knownName, move, NO_COUNTS, queueOf, touchKey } from "./queue-row.js";
import { keepResults, resultsFor } from "./results.js";
import { finishedKey } from "./row.js";
import { selectSingle, takeSingle } from "./single-claim.js";
import { cancelAtOf, completedFirst, endAt, type HasTerms, KEPT, LEASE_ENDED } from "./terms.js";

const extend = sql<{ has_terms: HasTerms }>(`
  UPDATE pawl_batch SET ${renewal(CLAIM_TABLE)}, holder_connection = :connection
  WHERE enqueue_seq = :head AND fencing_token = :fencingToken AND state = 'claimed' AND ${lasts(CLAIM_TABLE)}
  RETURNING has_terms`);

/** Its holder is from now on whoever renewed it last. */
const takeOver = sql(`
  UPDATE pawl_batch SET holder_connection = :connection
  WHERE enqueue_seq = :head AND fencing_token = :fencingToken AND state = 'claimed' AND expires_at IS NULL`);

const selectLeaseLength = sql<{ lease_ms: number | null }>(`
  SELECT lease_ms FROM pawl_batch WHERE enqueue_seq = :head AND fencing_token = :fencingToken`);

const selectSize = sql<{ size: number | null }>(`
  SELECT claim_size AS size FROM pawl_batch WHERE enqueue_seq = :head AND fencing_token = :fencingToken`);

const selectClaim = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.enqueue_seq = :head AND b.claim_seq = :head AND b.fencing_token = :fencingToken AND q.queue_id = b.queue_id`);

const completeHead = sql(
  `UPDATE pawl_batch SET state = 'completed', finished_at = :finishedAt, expires_at = NULL, grace_ends_at = NULL,
    connection = NULL
  WHERE enqueue_seq = :head`,
  { writes: "head" },
);

/** When those that rest would have been available stays what is shown of them, and so does a time that was named. */
const endRests = sql(`
  UPDATE pawl_batch SET available_at_wall = available_at + :wallAheadMs
  WHERE (enqueue_seq = :head AND claim_seq = :head OR claim_seq = :head AND claim_seq <> enqueue_seq)
    AND fencing_token = :fencingToken AND state = 'scheduled' AND available_at_wall IS NULL`);

const completeMembers = sql(`
  UPDATE pawl_batch SET state = 'completed', finished_at = :finishedAt
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken`);

export function* renew(
  params: Pick<Parsed<"queue.renew">, "claimId" | "leaseToken" | "leaseMs">,
  env: Env,
): Operation<Result<"queue.renew"> | PawlError> {
  const claim = verify(params, env);
  if (claim === undefined) return lost(params.claimId);
  const leaseMs = params.leaseMs ?? (yield* one(selectLeaseLength, claim))?.lease_ms;
  if (leaseMs === null) return yield* renewUnder(claim, params.claimId, env);
  if (leaseMs === undefined) return lost(params.claimId);
  const { now } = env;
  const expiresAt = now + leaseMs;
  const { connection } = env.caller;
  const extended = yield* one(extend, { ...claim, now, expiresAt, connection });
  if (extended === undefined) return yield* renewUnder(claim, params.claimId, env);
  env.effects.deadline(expiresAt);
  const cancelAt = extended.has_terms !== KEPT ? null : yield* cancelAtOf(claim.head);
  if (cancelAt !== null) {
    yield* endAt(claim.head, claim.fencingToken, cancelAt, env);
    env.effects.bind(connection);
    const remainingMs = Math.min(expiresAt, cancelAt) - now;
    return { expiresAt: env.wallMs + remainingMs, remainingMs, cancelling: true };
  }
  // If the claim belongs to no connection, or to another, this only costs a look when this one closes.
  env.effects.bind(connection);
  return { expiresAt: env.wallMs + leaseMs, remainingMs: leaseMs, cancelling: false };
}

/** Of a claim under a lease nothing is made longer: the answer is what remains of the lease. */
function* renewUnder(
  claim: { head: number; fencingToken: number },
  claimId: string,
  env: Env,
): Operation<Result<"queue.renew"> | PawlError> {
  const left = yield* remainingOfLease(claim.head, claim.fencingToken, env);
  const { connection } = env.caller;
  if (left === undefined || (yield* run(takeOver, { ...claim, connection })) === 0) return lost(claimId);
  const cancelAt = yield* cancelAtOf(claim.head);
  const remainingMs = cancelAt === null ? left : Math.min(left, Math.max(0, cancelAt - env.now));
  return { expiresAt: env.wallMs + remainingMs, remainingMs, cancelling: cancelAt !== null };
}

export function* complete(
  params: Parsed<"queue.complete">,
  env: Env,
  texts: Texts,
): Operation<Result<"queue.complete"> | PawlError> {
  const claim = verify(params, env);
  if (claim === undefined) return lost(params.claimId);
  const finishedAt = env.retentionNow;
  const single = takeSingle(params.claimId, env) ?? (yield* one(selectSingle, claim));
  if (single !== undefined && single.has_terms !== KEPT) {
    const results = texts.every(isNotGiven) ? undefined : yield* resultsFor([claim.head], texts);
    if (results instanceof PawlError) return results;
    yield* write(completeHead, { head: claim.head, finishedAt });
    if (results !== undefined) yield* keepResults(results);
    yield* move(single.queue_id, { claimed: -1, completed: 1, claims: -1 }, env);
    const name = knownName(single.queue_id, env);
    noteRun(name, single.claimed_at, 1, env);
    if (env.effects.isFollowed) yield* tellBatch(claim.head, name, "completed", env);
    else env.effects.note("queue", name, "completed", 1);
    if (single.key !== null) yield* touchKey(single.queue_id, single.key, env);
    if (single.has_more === null) env.effects.wake(finishedKey(claim.head));
    else {
      const { queue } = yield* queueOf(single.queue_id, env);
      yield* ended(claim.head, queue, single.has_more, env);
    }
    retain(env);
    return { completed: 1 };
  }
  const head = yield* one(selectClaim, claim);
  if (head === undefined) return lost(params.claimId);
  if (yield* isOver(head, env)) return lost(params.claimId);
  if (head.state === "completed") return { completed: head.claim_size };
  const batches = yield* batchesOf(head);
  // After its end others may have claimed its batches, or cancelled them; while it lasts nobody can.
  if (batches.length < head.claim_size || batches.some(({ state }) => state === "cancelled")) {
    return lost(params.claimId);
  }

  const seqs = batches.map(({ enqueue_seq: seq }) => seq);
  const results = yield* resultsFor(seqs, texts);
  if (results instanceof PawlError) return results;
  if (batches.some(({ state }) => state === "scheduled")) {
    yield* write(endRests, { ...claim, wallAheadMs: env.wallMs - env.now });
  }
  if (head.has_terms === KEPT) yield* completedFirst(head);
  yield* write(completeHead, { head: claim.head, finishedAt });
  if (batches.length > 1) yield* write(completeMembers, { ...claim, finishedAt });
  if (results !== undefined) yield* keepResults(results);
  retain(env);
  const counts = { ...NO_COUNTS, completed: batches.length };
  for (const { state } of batches) counts[state] -= 1;
  yield* move(head.queue_id, { ...counts, claims: head.state === "claimed" ? -1 : 0 }, env);
  for (const { enqueue_seq: seq, key, has_more: hasMore } of batches) {
    yield* touchKey(head.queue_id, key, env);
    yield* tellBatch(seq, head.queue, "completed", env);
    yield* ended(seq, head.queue, hasMore, env);
  }
  noteRun(head.queue, head.claimed_at, batches.length, env);
  return { completed: batches.length };
}

function isNotGiven(text: string | undefined): boolean {
  return text === undefined;
}

export function* abandon(
  params: Parsed<"queue.abandon">,
  env: Env,
): Operation<Result<"queue.abandon"> | PawlError> {
  const claim = verify(params, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  if (head === undefined || !(yield* isHeld(head, env))) return lost(params.claimId);
  const { delayMs, error = null, dead: dies } = params;
  return yield* end(head, { counts: error !== null, error, delayMs, final: true, dies }, env);
}

/** The batches of a claim that is held. */
export function* membersOf(
  named: { claimId: string; leaseToken: string },
  env: Env,
): Operation<Members | PawlError> {
  const claim = verify(named, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  return head !== undefined && (yield* isHeld(head, env)) ? yield* batchesOf(head) : lost(named.claimId);
}

/** A guard of `transact`: `claim_lost` unless the claim is held. */
export function* guardClaim(
  guard: { claimId: string; leaseToken: string },
  env: Env,
): Operation<PawlError | undefined> {
  const claim = verify(guard, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  return head !== undefined && (yield* isHeld(head, env)) ? undefined : lost(guard.claimId);
}

function* isHeld(claim: ClaimRow, env: Env): Operation<boolean> {
  const { state, expires_at: expiresAt, grace_ends_at: graceEndsAt } = claim;
  if (state !== "claimed") return false;
  return expiresAt === null ? yield* isUnderLease(claim, env) : endOf(expiresAt, graceEndsAt) > env.now;
}

/** True of a claim whose lease has ended: it cannot even be completed late, as one that has a time of its own. */
function* isOver(claim: ClaimRow, env: Env): Operation<boolean> {
  if (claim.has_terms === LEASE_ENDED) return true;
  return claim.state === "claimed" && claim.expires_at === null && !(yield* isUnderLease(claim, env));
}

function* isUnderLease({ enqueue_seq, fencing_token }: ClaimRow, env: Env): Operation<boolean> {
  return (yield* remainingOfLease(enqueue_seq, fencing_token, env)) !== undefined;
}

const CLAIM_ID = /^qwc:([1-9][0-9]{0,15}):([1-9][0-9]{0,15})$/;

const selectQueueOfHead = sql<{ queue: string }>(`
  SELECT q.queue FROM pawl_batch b CROSS JOIN pawl_queue q WHERE b.enqueue_seq = :head AND q.queue_id = b.queue_id`);

/** The queue of the first batch of a claim; undefined for an id that names none. */
export function* queueOfClaim(claimId: string): Operation<string | undefined> {
  const [, head] = CLAIM_ID.exec(claimId) ?? [];
  return head === undefined ? undefined : (yield* one(selectQueueOfHead, { head: Number(head) }))?.queue;
}

const selectBatches = sql<{ batch_id: string; queue: string }>(`
  SELECT b.batch_id, q.queue FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE (b.enqueue_seq = :head OR b.claim_seq = :head AND b.claim_seq <> b.enqueue_seq)
    AND b.fencing_token = :fencingToken AND q.queue_id = b.queue_id`);

/** What the holder of a claim is told when it ends by its time; nothing for an id of none. */
export function* lossOfClaim(claimId: string): Operation<NotificationParams<"claim.lost">[]> {
  const [, head, fencingToken] = CLAIM_ID.exec(claimId) ?? [];
  const named = { head: Number(head ?? 0), fencingToken: Number(fencingToken ?? 0) };
  const batches = yield* all(selectBatches, named);
  const [first] = batches;
  if (first === undefined) return [];
  const batchIds = batches.map(({ batch_id: batchId }) => batchId);
  return [{ claimId, queue: first.queue, batchIds, cause: "expired", reason: null }];
}

/** How many batches a claim was made of; 1 for an id that names none. */
export function* sizeOfClaim(claimId: string): Operation<number> {
  const [, head, fencingToken] = CLAIM_ID.exec(claimId) ?? [];
  const named = { head: Number(head ?? 0), fencingToken: Number(fencingToken ?? 0) };
  return (yield* one(selectSize, named))?.size ?? 1;
}

/** The claim that is named, held or not, or `claim_lost` for a token that is not its own, or a lease that has ended. */
export function* verifiedClaim(
  named: { claimId: string; leaseToken: string },
  env: Env,
): Operation<{ head: number; fencingToken: number } | PawlError> {
  const claim = verify(named, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  if (claim === undefined || (head !== undefined && (yield* isOver(head, env)))) return lost(named.claimId);
  return claim;
}

/** What a claimId names, if the token was given out with it. */
function verify(
  { claimId, leaseToken }: { claimId: string; leaseToken: string },
  env: Env,
): { head: number; fencingToken: number } | undefined {
  const claim = namedClaim(claimId);
  if (claim === undefined) return undefined;
  const given = Buffer.from(leaseToken);
  const granted = Buffer.from(env.sign(claimId));
  return given.length === granted.length && timingSafeEqual(given, granted) ? claim : undefined;
}

/** What a claimId names; undefined for a text that is none. */
export function namedClaim(claimId: string): { head: number; fencingToken: number } | undefined {
  const [, head, fencingToken] = CLAIM_ID.exec(claimId) ?? [];
  if (head === undefined || fencingToken === undefined) return undefined;
  return { head: Number(head), fencingToken: Number(fencingToken) };
}

function lost(claimId: string): PawlError {
  return refuse(
    "claim_lost",
    `The claim ${shown(claimId)} is not held any more: it expired, or its connection closed, or it was ended, or the leaseToken is not its own. Stop the work on its batches and claim again.`,
    { claimId },
  );
}
