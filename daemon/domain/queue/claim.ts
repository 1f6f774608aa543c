// Claim: the head of a queue, alone or with those that join it, is given to a worker for a while.
import type { Parsed, Result } from "@pawl/protocol";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { type Candidate, mayBeJoined, selectBatches } from "./claim-selection.js";
import { countClaim, type Head, headOf } from "./queue-row.js";
import {
  BATCH_COLUMNS,
  BATCH_OVERHEAD_BYTES,
  type BatchRow,
  checkKept,
  claimIdOf,
  shownBatch,
  waitKey,
} from "./row.js";

/** Batches that a claim looks at first beyond its head; twice as many each time that all of them join. */
const FIRST_FOLLOWING_ROWS = 16;

/** What follows the head, as far as selecting needs it. */
const selectFollowing = sql<CandidateRow & { last_error_length: number }>(`
  SELECT enqueue_seq, available_at, delivery_policy, slot_policy, merge_key, payload_bytes,
    coalesce(length(last_error), 0) AS last_error_length
  FROM pawl_batch WHERE queue_id = :queueId AND state = 'ready' AND enqueue_seq > :after
  ORDER BY enqueue_seq LIMIT :rows`);

type CandidateRow = Pick<
  BatchRow,
  "enqueue_seq" | "available_at" | "delivery_policy" | "slot_policy" | "merge_key" | "payload_bytes"
>;

/** The batches of a group are all that are ready from its head to its last. */
const selectGroup = sql<BatchRow>(`
  SELECT ${BATCH_COLUMNS} FROM pawl_batch b
  WHERE b.queue_id = :queueId AND b.state = 'ready' AND b.enqueue_seq > :head AND b.enqueue_seq <= :last
  ORDER BY b.enqueue_seq`);

const selectPayloads = sql<{ payloads: string }>(
  "SELECT payloads FROM pawl_batch_payloads WHERE enqueue_seq = :seq",
);

const claimHead = sql(`
  UPDATE pawl_batch SET state = 'claimed', claim_seq = :head, fencing_token = :fencingToken, claim_size = :size,
    owner = :owner, pid = :pid, lease_ms = :leaseMs, connection = :connection, expires_at = :expiresAt
  WHERE enqueue_seq = :head`);

const claimFollowing = sql(`
  UPDATE pawl_batch SET state = 'claimed', claim_seq = :head, fencing_token = :fencingToken
  WHERE queue_id = :queueId AND state = 'ready' AND enqueue_seq > :head AND enqueue_seq <= :last`);

export function* claim(params: Parsed<"queue.claim">, env: Env): Operation<Outcome<Result<"queue.claim">>> {
  const { queue, owner, boundary, leaseMs, releaseOn } = params;
  const { now, caller } = env;
  const found = yield* headOf(queue, env);
  const last = found === undefined ? undefined : yield* lastOfGroup(found, params, env);
  if (found === undefined || last === undefined) {
    // Those at different boundaries wait for different things: one that cannot be met does not hold up the others.
    return env.mayWait ? new Wait(waitKey(queue), boundary) : { claim: null };
  }

  const { queueId, head } = found;
  const { enqueue_seq: seq } = head;
  const rows: BatchRow[] = [{ ...head, payloads: yield* payloadsOf(head) }];
  if (last > seq) rows.push(...(yield* all(selectGroup, { queueId, head: seq, last })));
  const size = rows.length;
  const fencingToken = yield* countClaim(queueId, size, env);
  const expiresAt = now + leaseMs;
  const connection = releaseOn === "disconnect" ? caller.connection : null;
  yield* run(claimHead, {
    head: seq,
    fencingToken,
    size,
    owner,
    pid: caller.pid,
    leaseMs,
    connection,
    expiresAt,
  });
  if (size > 1) yield* run(claimFollowing, { queueId, head: seq, last, fencingToken });

  env.effects.deadline(expiresAt);
  if (connection !== null) env.effects.bind(connection);
  // What follows a head that had to wait for the end of a turn may be claimed at a checkpoint.
  if (head.delivery_policy === "after_current_turn_commit") env.effects.wake(waitKey(queue));
  const claimId = claimIdOf(seq, fencingToken);
  const shownEnd = env.wallMs + leaseMs;
  const holder = { owner, claimId, fencingToken, expiresAt: shownEnd, remainingMs: leaseMs };
  const queueText = JSON.stringify(queue);
  return {
    claim: {
      claimId,
      leaseToken: env.sign(claimId),
      fencingToken,
      queue,
      owner,
      claimedAt: env.wallMs,
      expiresAt: shownEnd,
      remainingMs: leaseMs,
      batches: rows.map((row) => {
        checkKept(row);
        row.state = "claimed";
        return shownBatch(row, queueText, holder, env);
      }),
    },
  };
}

/** Long payloads are not in the row of their batch. */
function* payloadsOf({ enqueue_seq: seq, payloads }: Head): Operation<string> {
  return payloads ?? ((yield* one(selectPayloads, { seq })) as { payloads: string }).payloads;
}

/** The enqueueSeq of the last batch that is claimed with a head, or undefined if the head may not be claimed. */
function* lastOfGroup(
  { queueId, head }: { readonly queueId: number; readonly head: Head },
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<number | undefined> {
  const { boundary, maxBatches } = params;
  const claiming = { now: env.now, boundary, maxBatches, maxBytes: MAX_PAGE_BYTES };
  const candidates = [toCandidate(head, head.last_error?.length ?? 0)];
  let selected = selectBatches(candidates, claiming);
  if (selected.length > 0 && mayBeJoined(candidates[0] as Candidate)) {
    // More are read only as long as all that were read join.
    for (let rows = FIRST_FOLLOWING_ROWS; selected.length === candidates.length; rows *= 2) {
      const wanted = Math.min(rows, maxBatches - candidates.length);
      if (wanted === 0) break;
      const after = (candidates.at(-1) as { seq: number }).seq;
      const following = yield* all(selectFollowing, { queueId, after, rows: wanted });
      for (const row of following) candidates.push(toCandidate(row, row.last_error_length));
      selected = selectBatches(candidates, claiming);
      if (following.length < wanted) break;
    }
  }
  return selected.at(-1)?.seq;
}

function toCandidate(row: CandidateRow, lastErrorLength: number): Candidate & { readonly seq: number } {
  return {
    seq: row.enqueue_seq,
    availableAt: row.available_at,
    // Those that are held are not read at all.
    heldUntil: null,
    deliveryPolicy: row.delivery_policy,
    slotPolicy: row.slot_policy,
    mergeKey: row.merge_key,
    bytes: row.payload_bytes + lastErrorLength + BATCH_OVERHEAD_BYTES,
  };
}
