// Claims of one batch, as most are.
import { sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { KeptRows } from "../../turns/turn-memory.js";
import type { HasTerms } from "./terms.js";

/** The queue of a claim of one batch that is still held, or whose end has not been noticed. */
export const selectSingle = sql<SingleRow>(`
  SELECT queue_id, key, has_more, has_terms, claimed_at FROM pawl_batch
  WHERE enqueue_seq = :head AND fencing_token = :fencingToken AND state = 'claimed' AND claim_size = 1`);

export interface SingleRow {
  readonly queue_id: number;
  readonly key: string | null;
  readonly has_more: 1 | null;
  readonly has_terms: HasTerms;
  readonly claimed_at: number | null;
}

/** Such claims by their ids, as they were before the first operation of the turn that may have changed one. */
export class SinglesAhead implements KeptRows {
  readonly byId = new Map<string, SingleRow>();

  *writeBack() {
    // They are only read.
  }
}

/** A claim as it was read ahead, for whoever completes it: once. */
export function takeSingle(claimId: string, env: Pick<Env, "turn">): SingleRow | undefined {
  const singles = env.turn.known(SinglesAhead)?.byId;
  const single = singles?.get(claimId);
  // With the end of what others wait for, and of what has followers, more may change than this one.
  if (single?.has_more === 1) singles?.clear();
  else singles?.delete(claimId);
  return single;
}
