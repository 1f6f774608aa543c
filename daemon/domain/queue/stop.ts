// Stop: the holder of a claimed batch is told that it is cancelled, and has a while to end its work.
import type { Result } from "@pawl/protocol";
import { dueAt, type Ending } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { CLAIM_TABLE, type ClaimRow, end } from "./give-back.js";
import { cancelAtOf, endAt, KEPT, nameToStop, reasonOf, stoppedOf, tellLost, tellToStop } from "./terms.js";

const selectHead = sql<ClaimRow>(`${CLAIM_TABLE.rows} b.enqueue_seq = :head`);

const earliestStop = sql<{ at: number | null }>(
  "SELECT min(cancel_at) AS at FROM pawl_claim_terms WHERE cancel_at IS NOT NULL",
);

const selectOver = sql<ClaimRow>(`${CLAIM_TABLE.rows} b.enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_claim_terms WHERE cancel_at IS NOT NULL AND cancel_at <= :now
     ORDER BY cancel_at LIMIT :rows)`);

const prolongGraces = sql(
  "UPDATE pawl_claim_terms SET cancel_at = :until WHERE cancel_at > :since AND cancel_at <= :now",
);

/** No connection of before is left. */
const forgetHolders = sql(`
  UPDATE pawl_batch SET holder_connection = NULL WHERE holder_connection IS NOT NULL AND (expires_at IS NOT NULL
    OR enqueue_seq IN (SELECT enqueue_seq FROM pawl_claim_terms))`);

/**
 * Has the holder of a batch stop: told at once, and without the claim when the grace is over. A grace that was given
 * before can only become shorter, and the first reason stays. Its holder is told again only of what is new to it.
 *
 * @param row the batch, which is claimed, and the first one of its claim.
 */
export function* stop(
  row: { readonly enqueue_seq: number; readonly claim_seq: number | null },
  graceMs: number,
  reason: string | null,
  env: Env,
): Operation<Result<"queue.cancel">> {
  const { enqueue_seq: seq } = row;
  const head = (yield* one(selectHead, { head: row.claim_seq as number })) as ClaimRow;
  const before = head.has_terms !== KEPT ? null : yield* cancelAtOf(head.enqueue_seq);
  const stopped = before === null ? [] : yield* stoppedOf(head);
  const wasNamed = stopped.some(({ enqueue_seq }) => enqueue_seq === seq);
  const hasReason = reason === null || reasonOf(stopped) !== null;
  yield* nameToStop(seq, stopped, reason);
  const cancelAt = Math.min(before ?? Number.POSITIVE_INFINITY, env.now + graceMs);
  if (wasNamed && hasReason && cancelAt === before) return { outcome: "cancelling" };
  yield* endAt(head.enqueue_seq, head.fencing_token, cancelAt, env);
  yield* tellToStop(head, cancelAt - env.now, env);
  if (cancelAt <= env.now) yield* endStopped({ ...head, has_terms: KEPT }, env);
  return { outcome: "cancelling" };
}

/** The grace is over: the named batches are cancelled, the others are ready at once, and no attempt is counted. */
function* endStopped(head: ClaimRow, env: Env): Operation<number> {
  yield* tellLost(head, "cancelled", env);
  yield* end(head, { counts: false, error: null, delayMs: 0, final: true }, env);
  return head.claim_size;
}

/** Claims whose holders have not stopped in time. */
export const stoppedClaims: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestStop))?.at);
  },

  *expire(env, rows) {
    let ended = 0;
    for (const head of yield* all(selectOver, { now: env.now, rows })) {
      if (ended >= rows) break;
      ended += yield* endStopped(head, env);
    }
    return ended;
  },

  *restart() {
    yield* run(forgetHolders);
  },

  *goOn(since, until, env) {
    yield* run(prolongGraces, { since, until, now: env.now });
  },
};
