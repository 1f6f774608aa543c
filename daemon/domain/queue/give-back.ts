// The end of a claim otherwise than by completion.
import type { BatchState, Result } from "@pawl/protocol";
import type { GrantRule } from "../../grants/grant.js";
import { all, type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { move } from "./queue-row.js";
import { claimIdOf, waitKey } from "./row.js";

/** Of the first batch of a claim, and of its queue. */
export const CLAIM_COLUMNS = `
  b.enqueue_seq, b.state, b.attempt, b.max_attempts, b.claim_size, b.fencing_token, b.owner, b.pid, b.expires_at,
  b.grace_ends_at, b.queue_id, q.queue`;

/** How claims are kept, for what is common to all that is granted (grants/grant.ts). */
export const CLAIM_TABLE = {
  table: "pawl_batch",
  rows: `SELECT ${CLAIM_COLUMNS} FROM pawl_batch b CROSS JOIN pawl_queue q WHERE q.queue_id = b.queue_id AND`,
  expiresAt: "expires_at",
  graceEndsAt: "grace_ends_at",
  connection: "connection",
  unconnected: "NULL",
  bound: "connection IS NOT NULL",
} as const satisfies Partial<GrantRule<ClaimRow>>;

interface MemberRow {
  enqueue_seq: number;
  state: BatchState;
  attempt: number;
  max_attempts: number;
}

/** The head of a claim. */
export interface ClaimRow extends MemberRow {
  queue_id: number;
  queue: string;
  claim_size: number;
  fencing_token: number;
  owner: string;
  pid: number | null;
  expires_at: number | null;
  grace_ends_at: number | null;
}

/** The batches of a claim beside its head, as far as no other claim has taken them. */
const selectMembers = sql<MemberRow>(`
  SELECT enqueue_seq, state, attempt, max_attempts FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken
  ORDER BY enqueue_seq`);

export function* batchesOf(head: ClaimRow): Operation<MemberRow[]> {
  if (head.claim_size === 1) return [head];
  const { enqueue_seq, fencing_token: fencingToken } = head;
  return [head, ...(yield* all(selectMembers, { head: enqueue_seq, fencingToken }))];
}

const giveBack = sql(`
  UPDATE pawl_batch SET state = :state, available_at = :availableAt, available_at_wall = :availableAtWall, attempt = :attempt,
    last_error = coalesce(:error, last_error), claim_seq = :claimSeq, fencing_token = :fencingToken,
    expires_at = NULL, grace_ends_at = NULL, connection = NULL
  WHERE enqueue_seq = :seq`);

export interface End {
  /** Whether the delivery counts as an attempt. */
  readonly counts: boolean;
  readonly error: string | null;
  /** After how many milliseconds its batches can be claimed again. */
  readonly delayMs: number;
  /** Whether the holder gave it up, so that it cannot even be completed late. */
  readonly final: boolean;
}

/** Ends a claim otherwise than by completion: its batches come back, or are dead if they have no attempts left. */
export function* end(head: ClaimRow, how: End, env: Env): Operation<Result<"queue.abandon">> {
  const { queue, queue_id: queueId, enqueue_seq, fencing_token } = head;
  const { error, delayMs } = how;
  const availableAt = env.now + delayMs;
  const claimSeq = how.final ? null : enqueue_seq;
  const fencingToken = how.final ? null : fencing_token;
  const back = delayMs > 0 ? "scheduled" : "ready";
  const batches = yield* batchesOf(head);
  let dead = 0;
  for (const { enqueue_seq: seq, attempt: before, max_attempts: most } of batches) {
    const attempt = how.counts ? before + 1 : before;
    const isDead = how.counts && most > 0 && attempt >= most;
    if (isDead) dead += 1;
    const state = isDead ? "dead" : back;
    const availableAtWall = state === "scheduled" ? null : env.wallMs + delayMs;
    yield* run(giveBack, {
      seq,
      state,
      availableAt,
      availableAtWall,
      attempt,
      error,
      claimSeq,
      fencingToken,
    });
  }
  const released = batches.length - dead;
  yield* move(queueId, { claimed: -batches.length, [back]: released, dead }, env);
  if (dead > 0) {
    const { owner, pid } = head;
    env.effects.log("batches have no attempts left", {
      queue,
      dead,
      claim: claimIdOf(enqueue_seq, fencing_token),
      owner,
      pid,
    });
  }
  if (released > 0) {
    if (back === "ready") env.effects.wake(waitKey(queue));
    else env.effects.deadline(availableAt);
  }
  return { released, dead };
}
