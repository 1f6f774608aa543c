// Claims that live as long as a lease (`under`): their end is not stored, but that of the lease counts.
import type { Parsed } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { dueAt, type Ending } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { NEVER } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import { CLAIM_TABLE, type ClaimRow, end } from "./give-back.js";
import { LEASE_END } from "./row.js";
import { KEPT, LEASE_ENDED, tellLost } from "./terms.js";

/** Claims that the end of a lease ends at once; the others follow in steps of as many. */
const CLAIMS_PER_STEP = 50;

const selectEnd = sql<{ at: number }>(`
  SELECT ${LEASE_END} AS at FROM pawl_lease l WHERE l.name = :name AND l.fencing_token = :fencingToken`);

const selectEndOfClaim = sql<{ at: number }>(`
  SELECT ${LEASE_END} AS at FROM pawl_claim_terms t CROSS JOIN pawl_lease l
  WHERE t.enqueue_seq = :head AND t.fencing_token = :fencingToken
    AND l.name = t.lease_name AND l.fencing_token = t.lease_token`);

const keepLease = sql(`
  INSERT INTO pawl_claim_terms (enqueue_seq, fencing_token, lease_name, lease_token)
  VALUES (:head, :fencingToken, :name, :leaseToken)
  ON CONFLICT (enqueue_seq) DO UPDATE SET fencing_token = excluded.fencing_token, lease_name = excluded.lease_name,
    lease_token = excluded.lease_token, cancel_at = NULL`);

const noteClaims = sql(`
  UPDATE pawl_lease SET has_claims = 1 WHERE name = :name AND fencing_token = :leaseToken AND has_claims IS NULL`);

const selectClaims = sql<ClaimRow>(`
  ${CLAIM_TABLE.rows} b.has_terms = ${KEPT} AND b.state = 'claimed' AND b.enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_claim_terms WHERE lease_name = :name AND lease_token = :fencingToken
     ORDER BY enqueue_seq LIMIT :rows)`);

const markEnded = sql(`UPDATE pawl_batch SET has_terms = ${LEASE_ENDED} WHERE enqueue_seq = :head`);

const insertEnded = sql(`
  INSERT INTO pawl_claim_lease_ended (name, fencing_token, is_released) VALUES (:name, :fencingToken, :isReleased)
  ON CONFLICT (name, fencing_token) DO NOTHING`);

const deleteEnded = sql(
  "DELETE FROM pawl_claim_lease_ended WHERE name = :name AND fencing_token = :fencingToken",
);

const selectEnded = sql<{ name: string; fencing_token: number; is_released: number }>(
  "SELECT name, fencing_token, is_released FROM pawl_claim_lease_ended LIMIT 1",
);

type Under = NonNullable<Parsed<"queue.claim">["under"]>["lease"];

/** How many milliseconds are left of a lease, or `lease_lost` if it is not held. */
export function* remainingUnder({ name, fencingToken }: Under, env: Env): Operation<number | PawlError> {
  const at = (yield* one(selectEnd, { name, fencingToken }))?.at;
  if (at !== undefined && at > env.now) return at - env.now;
  return refuse(
    "lease_lost",
    `The lease ${shown(name)} is not held with the fencing token ${fencingToken}, so nothing can be claimed under it. Acquire it again, and claim under the new token.`,
    { name, fencingToken },
  );
}

/** How many milliseconds are left of the lease that a claim is under; undefined if there is none, or it has ended. */
export function* remainingOfLease(
  head: number,
  fencingToken: number,
  env: Env,
): Operation<number | undefined> {
  const at = (yield* one(selectEndOfClaim, { head, fencingToken }))?.at;
  return at === undefined || at <= env.now ? undefined : at - env.now;
}

/** From now on the claim lives as long as this lease. */
export function* keepUnder(
  head: number,
  fencingToken: number,
  { name, fencingToken: leaseToken }: Under,
): Operation<void> {
  yield* run(keepLease, { head, fencingToken, name, leaseToken });
  yield* run(noteClaims, { name, leaseToken });
}

/**
 * A lease has ended, and with it the claims under it: many of them in steps. They cannot be completed late.
 *
 * @param isReleased whether its holder gave it up: then no attempt is counted.
 */
export function* leaseEnded(
  name: string,
  fencingToken: number,
  isReleased: boolean,
  env: Env,
): Operation<void> {
  if ((yield* endClaims(name, fencingToken, isReleased, env)) < CLAIMS_PER_STEP) return;
  yield* run(insertEnded, { name, fencingToken, isReleased: isReleased ? 1 : 0 });
  env.effects.deadline(env.now);
}

/** Ends some claims under a lease, and returns how many. */
function* endClaims(name: string, fencingToken: number, isReleased: boolean, env: Env): Operation<number> {
  const claims = yield* all(selectClaims, { name, fencingToken, rows: CLAIMS_PER_STEP });
  for (const claim of claims) {
    const { owner, pid, fencing_token: token } = claim;
    const holder = `${owner}${pid === null ? "" : `, pid ${pid}`}, fencing token ${token}`;
    const error = isReleased
      ? null
      : `The claim of ${holder} ended with the lease ${name} that it was under.`;
    yield* tellLost(claim, "lease_ended", env);
    const delayMs = isReleased ? 0 : undefined;
    yield* end(claim, { counts: !isReleased, error, delayMs, final: false }, env);
    yield* run(markEnded, { head: claim.enqueue_seq });
  }
  return claims.length;
}

/** Claims under leases that have ended, as many as one step did not end. */
export const claimsOfEndedLeases: Ending = {
  *earliest(env) {
    return (yield* one(selectEnded)) === undefined ? NEVER : dueAt(env.now);
  },

  *expire(env, rows) {
    const ended = yield* one(selectEnded);
    if (ended === undefined) return 0;
    const { name, fencing_token: fencingToken, is_released: isReleased } = ended;
    if ((yield* endClaims(name, fencingToken, isReleased === 1, env)) < CLAIMS_PER_STEP) {
      yield* run(deleteEnded, { name, fencingToken });
    }
    return rows;
  },
};
