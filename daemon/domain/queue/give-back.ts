// The end of a claim otherwise than by completion.
import type { BatchState, EventKind, Result, Retry } from "@pawl/protocol";
import { retain } from "../../grants/ending.js";
import type { GrantRule } from "../../grants/grant.js";
import { chanceOf, DEFAULT_RETRY, restMs } from "../../grants/retry-rest.js";
import { all, type Operation, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { tellBatch } from "./events.js";
import { ended } from "./flows.js";
import { GETS_IN_LINE } from "./lanes.js";
import { move, settingsOfQueue, touchKey } from "./queue-row.js";
import { claimIdOf, waitKey } from "./row.js";
import { cancelNamed, dropTerms, type HasTerms, KEPT } from "./terms.js";

/** Of the first batch of a claim, and of its queue. */
export const CLAIM_COLUMNS = `
  b.enqueue_seq, b.state, b.key, b.has_more, b.attempt, b.max_attempts, b.retry, b.lost_before, b.claim_size, b.fencing_token, b.owner, b.pid, b.claimed_at, b.expires_at,
  b.grace_ends_at, b.grace_ms, b.has_terms, b.holder_connection, b.queue_id, q.queue`;

/** How claims are kept, for what is common to all that is granted (grants/grant.ts). */
export const CLAIM_TABLE = {
  noun: "queue",
  table: "pawl_batch",
  rows: `SELECT ${CLAIM_COLUMNS} FROM pawl_batch b CROSS JOIN pawl_queue q WHERE q.queue_id = b.queue_id AND`,
  expiresAt: "expires_at",
  graceEndsAt: "grace_ends_at",
  inRows: { expiresAt: "expires_at", graceEndsAt: "grace_ends_at", key: ["enqueue_seq"] },
  connection: "connection",
  unconnected: "NULL",
  holder: "holder_connection",
  bound: "connection IS NOT NULL",
  comeBack: { graceMs: "grace_ms", key: "enqueue_seq" },
} as const satisfies Partial<GrantRule<ClaimRow>>;

/** A batch of a claim. */
export interface MemberRow {
  enqueue_seq: number;
  state: BatchState;
  key: string | null;
  has_more: 1 | null;
  attempt: number;
  max_attempts: number;
  /** As JSON; null where that of its queue counts. */
  retry: string | null;
  /** How many deliveries of it ended by expiry or with their connections; null for none. */
  lost_before: number | null;
}

/** The head of a claim. */
export interface ClaimRow extends MemberRow {
  queue_id: number;
  queue: string;
  claim_size: number;
  fencing_token: number;
  owner: string;
  pid: number | null;
  /** In elapsed time; null for a claim made before that was kept. */
  claimed_at: number | null;
  expires_at: number | null;
  grace_ends_at: number | null;
  /** How long its holder may take to come back after its connection has closed; null for not at all. */
  grace_ms: number | null;
  has_terms: HasTerms;
  /** The connection that claimed or renewed it last, if that is known. */
  holder_connection: number | null;
}

/** The batches of a claim beside its head, as far as no other claim has taken them. */
const selectMembers = sql<MemberRow>(`
  SELECT enqueue_seq, state, key, has_more, attempt, max_attempts, retry, lost_before FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken
  ORDER BY enqueue_seq`);

/** The batches of a claim, its head first. */
export type Members = readonly [ClaimRow, ...MemberRow[]];

export function* batchesOf(head: ClaimRow): Operation<Members> {
  if (head.claim_size === 1) return [head];
  const { enqueue_seq, fencing_token: fencingToken } = head;
  return [head, ...(yield* all(selectMembers, { head: enqueue_seq, fencingToken }))];
}

/** Of a batch whose attempts are used up by this delivery, which counts, or that is given up. */
const DIES = "(:dies = 1 OR (:counts = 1 AND max_attempts > 0 AND attempt + 1 >= max_attempts))";

const GIVEN_BACK = `
  UPDATE pawl_batch SET state = CASE WHEN ${DIES} THEN 'dead' ELSE CAST(:back AS TEXT) END,
    available_at = :availableAt,
    available_at_wall = CASE WHEN ${DIES} OR :back = 'ready' THEN CAST(:availableAtWall AS BIGINT) END,
    attempt = attempt + :counts, last_error = coalesce(:error, last_error), lost_before = CASE WHEN CAST(:lost AS BIGINT) IS NULL THEN lost_before ELSE coalesce(lost_before, 0) + 1 END,
    claim_seq = :claimSeq, fencing_token = :newToken, ${GETS_IN_LINE}, expires_at = NULL, grace_ends_at = NULL, connection = NULL`;

const giveBackHead = sql(`${GIVEN_BACK} WHERE enqueue_seq = :head`);

/** All at once: a claim of 1,000 batches ends in some 5 ms. */
const giveBackMembers = sql(`
  ${GIVEN_BACK} WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken`);

export interface End {
  /** Whether the delivery counts as an attempt. */
  readonly counts: boolean;
  readonly error: string | null;
  /** After how many milliseconds its batches can be claimed again; if it counts, undefined is as `retry` says. */
  readonly delayMs: number | undefined;
  /** Whether the holder gave it up, so that it cannot even be completed late. Otherwise it was lost. */
  readonly final: boolean;
  /** Whether the holder says that no further attempt is of use. */
  readonly dies?: boolean;
}

/** Tells of each batch of a claim that has ended so, and whether it is dead. */
function* tellEnd(
  { owner: by, fencing_token: fencingToken, queue }: ClaimRow,
  batches: readonly (readonly [MemberRow, boolean])[],
  kind: EventKind<"queue">,
  env: Env,
): Operation<void> {
  for (const [{ enqueue_seq: seq }, isDead] of batches)
    yield* tellBatch(seq, queue, isDead ? "dead" : kind, env, { by, fencingToken });
}

/** Counts how long the batches of a claim were worked on. */
export function noteRun(queue: string, claimedAt: number | null, batches: number, env: Env): void {
  if (claimedAt === null) return;
  for (let batch = 0; batch < batches; batch++) env.effects.noteDuration(queue, "run", env.now - claimedAt);
}

/** Ends a claim otherwise than by completion: its batches come back, or are dead if they have no attempts left. */
export function* end(head: ClaimRow, how: End, env: Env): Operation<Result<"queue.abandon">> {
  const { queue, queue_id: queueId, enqueue_seq, fencing_token } = head;
  const { error, dies = false } = how;
  const members = yield* batchesOf(head);
  const cancelled = head.has_terms !== KEPT ? NONE : yield* cancelNamed(head, error, env);
  if (head.has_terms === KEPT) yield* dropTerms(enqueue_seq);
  const batches = cancelled.size === 0 ? members : members.filter((each) => !cancelled.has(each.enqueue_seq));
  const delayMs = how.delayMs ?? (how.counts ? yield* restOf(batches, queueId, !how.final, env) : 0);
  const availableAt = env.now + delayMs;
  const back = delayMs > 0 ? "scheduled" : "ready";
  const given = {
    head: enqueue_seq,
    counts: how.counts ? 1 : 0,
    dies: dies ? 1 : 0,
    back,
    availableAt,
    availableAtWall: env.wallMs + delayMs,
    error,
    lost: how.final || !how.counts ? null : 1,
    claimSeq: how.final ? null : enqueue_seq,
    newToken: how.final ? null : fencing_token,
  };
  if (!cancelled.has(enqueue_seq)) yield* write(giveBackHead, given);
  if (members.length > 1) yield* write(giveBackMembers, { ...given, fencingToken: fencing_token });
  const isDead = (batch: MemberRow): boolean => dies || (how.counts && !hasAttemptsLeft(batch));
  const dead = batches.filter(isDead).length;
  const released = batches.length - dead;
  const counts = { claimed: -members.length, [back]: released, dead, cancelled: cancelled.size, claims: -1 };
  yield* move(queueId, counts, env);
  for (const { key } of members) yield* touchKey(queueId, key, env);
  if (how.final) noteRun(queue, head.claimed_at, members.length, env);
  const kind = !how.counts ? "released" : how.final ? "failed" : "lost";
  if (env.effects.isFollowed) {
    yield* tellEnd(
      head,
      batches.map((batch) => [batch, isDead(batch)]),
      kind,
      env,
    );
    for (const seq of cancelled) yield* tellBatch(seq, queue, "cancelled", env);
  } else {
    env.effects.note("queue", queue, kind, released);
    env.effects.note("queue", queue, "dead", dead);
    env.effects.note("queue", queue, "cancelled", cancelled.size);
  }
  for (const batch of dead + cancelled.size === 0 ? [] : members) {
    const hasEnded = cancelled.has(batch.enqueue_seq) || isDead(batch);
    if (hasEnded) yield* ended(batch.enqueue_seq, queue, batch.has_more, env);
  }
  if (cancelled.size > 0) retain(env);
  if (dead > 0) {
    const { owner, pid } = head;
    env.effects.log(dies ? "batches were given up" : "batches have no attempts left", {
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

const NONE: ReadonlySet<number> = new Set();

/** Whether a batch comes back when one more attempt is counted. */
function hasAttemptsLeft({ attempt, max_attempts: most }: MemberRow): boolean {
  return most === 0 || attempt + 1 < most;
}

/**
 * How many milliseconds those of a claim that come back rest together: by the highest count of attempts among them, as
 * long as the one of them whose `retry` says the most.
 */
function* restOf(
  batches: readonly MemberRow[],
  queueId: number,
  isLost: boolean,
  env: Env,
): Operation<number> {
  const back = batches.filter(hasAttemptsLeft);
  // The first loss of a batch may have had nothing to do with it.
  const resting = isLost ? back.filter((batch) => batch.lost_before !== null) : back;
  if (resting.length === 0) return 0;
  const { retry: ofQueue = DEFAULT_RETRY } = yield* settingsOfQueue(queueId, env);
  const attempts = Math.max(...back.map(({ attempt }) => attempt)) + 1;
  const chance = chanceOf(env);
  const rests = resting.map(({ retry: own }) =>
    restMs(own === null ? ofQueue : (JSON.parse(own) as Retry), attempts, chance),
  );
  return Math.max(...rests);
}
