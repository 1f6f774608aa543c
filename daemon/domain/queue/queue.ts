import { hash, timingSafeEqual } from "node:crypto";
import type { BatchState, DeliveryPolicy, MergeKey, Parsed, Result, SlotPolicy } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import {
  MAX_PAGE_BYTES,
  MAX_PAYLOAD_NESTING_LEVELS,
  MAX_RETRIED_BATCHES,
  RESTART_GRACE_MS,
} from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { PRUNE_EVERY_MS } from "../../grants/pruning.js";
import { ownEnd, postponedConnection } from "../../grants/restart-grace.js";
import { digestOfMeaning } from "../../json/digest.js";
import { nestingLevels, RawJson } from "../../json/raw-json.js";
import { all, insert, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { type Candidate, mayBeJoined, selectBatches } from "./claim-selection.js";

/** Payloads up to this size are kept in the row of their batch, which every change of its state writes anew. */
const MAX_INLINE_PAYLOAD_BYTES = 1024;
/** Hexadecimal digits of a batch id that its index holds: 48 bits, the most that SQLite keeps in six bytes. */
const BATCH_KEY_DIGITS = 12;
const NONCE_BYTES = 12;
/** What a batch takes in a reply beside its payloads and its last error. */
const BATCH_OVERHEAD_BYTES = 512;
/** Batches that a claim looks at first beyond its head; twice as many each time that all of them join. */
const FIRST_FOLLOWING_ROWS = 16;
/** Batches that one turn removes at most: some 2 ms of work. */
const PRUNED_ROWS_PER_STEP = 100;
/** How much of a payload a refusal shows. */
const MAX_SHOWN_CONTENT_CHARACTERS = 200;

const BATCH_COLUMNS = `
  b.enqueue_seq, b.state, b.available_at, b.attempt, b.max_attempts, b.delivery_policy, b.slot_policy, b.merge_key,
  b.last_error, b.batch_id, b.source_key, b.enqueued_at, b.payload_bytes,
  coalesce(b.payloads, (SELECT p.payloads FROM pawl_batch_payloads p WHERE p.enqueue_seq = b.enqueue_seq)) AS payloads`;

/** Of the last claim of a batch `b`, with what only its first batch `h` knows. */
const HOLDER_COLUMNS = "b.claim_seq, b.fencing_token, h.owner, h.pid, h.expires_at";

/** Of the first batch of a claim, and of its queue. */
const CLAIM_COLUMNS = `
  b.enqueue_seq, b.state, b.attempt, b.max_attempts, b.claim_size, b.fencing_token, b.owner, b.pid, b.expires_at,
  b.queue_id, q.queue`;

/** A batch with what it takes to describe it. */
interface BatchRow {
  enqueue_seq: number;
  state: BatchState;
  available_at: number;
  attempt: number;
  max_attempts: number;
  delivery_policy: DeliveryPolicy;
  slot_policy: SlotPolicy;
  merge_key: string | null;
  last_error: string | null;
  batch_id: string;
  source_key: string | null;
  enqueued_at: number;
  payload_bytes: number;
  payloads: string;
}

/** Who held a batch last; all null if nobody did. */
interface HolderRow {
  claim_seq: number | null;
  fencing_token: number | null;
  owner: string | null;
  pid: number | null;
  expires_at: number | null;
}

/** The text of one: see `shownBatch`. */
type Batch = Result<"queue.get">["batch"];
type BatchClaim = NonNullable<Batch["claim"]>;
type Enqueued = Parsed<"queue.enqueue">;

// Counts ----------------------------------------------------------------------------------------------------

/** A negative number takes away. */
type Counts = { readonly [State in BatchState]?: number };

const insertQueue = sql(`
  INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
  VALUES (:queue,
    coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'queue_fencing_floor'), 0),
    :ready, :scheduled, 0, 0, 0, 0)`);

const countAdded = sql(`
  UPDATE pawl_queue SET ready = ready + :ready, scheduled = scheduled + :scheduled WHERE queue = :queue`);

const countMoved = sql(`
  UPDATE pawl_queue SET ready = ready + :ready, scheduled = scheduled + :scheduled, claimed = claimed + :claimed,
    completed = completed + :completed, dead = dead + :dead, cancelled = cancelled + :cancelled
  WHERE queue_id = :queueId`);

/** Makes the queue if this is its first batch. */
function* addToQueue(queue: string, ready: number, scheduled: number): Operation<void> {
  const found = yield* run(countAdded, { queue, ready, scheduled });
  if (found === 0) yield* run(insertQueue, { queue, ready, scheduled });
}

function* move(queueId: number, counts: Counts): Operation<void> {
  yield* run(countMoved, { ...NO_COUNTS, ...counts, queueId });
}

const NO_COUNTS = { ready: 0, scheduled: 0, claimed: 0, completed: 0, dead: 0, cancelled: 0 };

// Enqueue ---------------------------------------------------------------------------------------------------

const selectBySourceKey = sql<
  BatchRow & HolderRow & { queue_id: number; content_digest: string; finished_at: number | null }
>(`
  SELECT ${BATCH_COLUMNS}, b.queue_id, b.content_digest, b.finished_at,
    ${HOLDER_COLUMNS}
  FROM pawl_queue q CROSS JOIN pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE q.queue = :queue AND b.queue_id = q.queue_id AND b.source_key = :sourceKey`);

const insertBatch = sql(`
  INSERT INTO pawl_batch (queue_id, state, available_at, attempt, max_attempts, delivery_policy, slot_policy,
    merge_key, batch_key, batch_id, source_key, content_digest, enqueued_at, payload_bytes, payloads)
  VALUES ((SELECT queue_id FROM pawl_queue WHERE queue = :queue), :state, :availableAt, 0, :maxAttempts,
    :deliveryPolicy, :slotPolicy, :mergeKey, :batchKey, :batchId, :sourceKey, :contentDigest, :now, :payloadBytes,
    :payloads)`);

const insertPayloads = sql(
  "INSERT INTO pawl_batch_payloads (enqueue_seq, payloads) VALUES (:enqueueSeq, :payloads)",
);

/** A batch as it is asked for, checked. */
interface Draft {
  readonly params: Enqueued;
  readonly payloads: string;
  readonly mergeKey: string | null;
  /** Only with a sourceKey, since only then is it compared. */
  readonly contentDigest: string | null;
  readonly availableAt: number;
  readonly state: "ready" | "scheduled";
}

/** What is there under a draft's sourceKey, if anything is. */
type Known = { readonly batch: Batch } | { readonly outdated: { queue_id: number; enqueue_seq: number } };

export function* enqueue(
  params: Enqueued,
  env: Env,
  texts: Texts,
): Operation<Result<"queue.enqueue"> | PawlError> {
  const draft = draftOf(params, texts[0] as string, env, "/payloads");
  if (draft instanceof PawlError) return draft;
  const known = params.sourceKey === undefined ? undefined : yield* find(draft, env);
  if (known instanceof PawlError) return known;
  if (known !== undefined && "batch" in known) return { batch: known.batch, created: false };

  if (known !== undefined) yield* removeOutdated([known.outdated.enqueue_seq]);
  const ready = draft.state === "ready" ? 1 : 0;
  yield* addToQueue(params.queue, ready, 1 - ready);
  return { batch: yield* add(draft, env), created: true };
}

export function* enqueueMany(
  params: Parsed<"queue.enqueueMany">,
  env: Env,
  texts: Texts,
): Operation<Result<"queue.enqueueMany"> | PawlError> {
  // All is decided before the first is added: drafts to be added, batches that are there, or the index of an
  // earlier one of these with the same key.
  const plan: (Draft | Batch | number)[] = [];
  const indexes = new Map<string, number>();
  const outdated: number[] = [];
  for (const [index, each] of params.batches.entries()) {
    const draft = draftOf(each, texts[index] as string, env, `/batches/${index}/payloads`);
    if (draft instanceof PawlError) return draft;
    if (each.sourceKey === undefined) {
      plan.push(draft);
      continue;
    }
    const key = JSON.stringify([each.queue, each.sourceKey]);
    const earlier = indexes.get(key);
    if (earlier !== undefined) {
      const first = params.batches[earlier] as Enqueued;
      const firstText = texts[earlier] as string;
      if (digestOf(first, firstText) !== draft.contentDigest) {
        return conflict(draft, { index: earlier, ...content(first, firstText) }, index);
      }
      plan.push(earlier);
      continue;
    }
    indexes.set(key, index);
    const known = yield* find(draft, env, index);
    if (known instanceof PawlError) return known;
    if (known !== undefined && "outdated" in known) outdated.push(known.outdated.enqueue_seq);
    plan.push(known !== undefined && "batch" in known ? known.batch : draft);
  }

  yield* removeOutdated(outdated);
  const added = new Map<string, { ready: number; scheduled: number }>();
  for (const each of plan) {
    if (!isDraft(each)) continue;
    const counts = added.get(each.params.queue) ?? { ready: 0, scheduled: 0 };
    counts[each.state] += 1;
    added.set(each.params.queue, counts);
  }
  for (const [queue, { ready, scheduled }] of added) yield* addToQueue(queue, ready, scheduled);
  const batches: Batch[] = [];
  for (const each of plan) {
    if (typeof each === "number") batches.push(batches[each] as Batch);
    else batches.push(isDraft(each) ? yield* add(each, env) : each);
  }
  return { batches, created: plan.map(isDraft) };
}

function isDraft(each: Draft | Batch | number): each is Draft {
  return typeof each === "object" && !(each instanceof RawJson);
}

/** @param path where the payloads are in the request. */
function draftOf(params: Enqueued, payloads: string, env: Env, path: string): Draft | PawlError {
  // One level is that of the array of payloads itself.
  if (nestingLevels(payloads) > MAX_PAYLOAD_NESTING_LEVELS + 1) {
    const message = `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another`;
    return refuse("invalid_params", `${path} ${message}. Send it as text, or flatten it.`, {
      issues: [{ path, message }],
    });
  }
  const availableAt = Math.max(env.now, params.availableAt ?? env.now + (params.delayMs ?? 0));
  return {
    params,
    payloads,
    mergeKey: keptMergeKey(params.mergeKey),
    contentDigest: params.sourceKey === undefined ? null : digestOf(params, payloads),
    availableAt,
    state: availableAt > env.now ? "scheduled" : "ready",
  };
}

/** Of all that makes two batches of one key the same, which does not include when they are to be delivered. */
function digestOf(params: Enqueued, payloads: string): string {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts } = params;
  const rest = JSON.stringify([deliveryPolicy, slotPolicy, mergeKey, maxAttempts]);
  return digestOfMeaning(`[${payloads},${rest}]`);
}

/** Refuses with `conflict` if the key is there with other content. */
function* find(draft: Draft, env: Env, index?: number): Operation<Known | undefined | PawlError> {
  const { queue, sourceKey } = draft.params;
  const row = yield* one(selectBySourceKey, { queue, sourceKey: sourceKey as string });
  if (row === undefined) return undefined;
  if (row.finished_at !== null && row.finished_at + env.retentionMs <= env.now) return { outdated: row };
  if (row.content_digest === draft.contentDigest) {
    return { batch: shownBatch(row, JSON.stringify(queue), claimOf(row, env)) };
  }
  const first = {
    deliveryPolicy: row.delivery_policy,
    slotPolicy: row.slot_policy,
    mergeKey: shownMergeKey(row.merge_key),
    maxAttempts: row.max_attempts,
  };
  return conflict(draft, { batchId: row.batch_id, ...content(first, row.payloads) }, index);
}

function conflict(draft: Draft, first: object, index?: number): PawlError {
  const { queue, sourceKey } = draft.params;
  return refuse(
    "conflict",
    `The sourceKey ${shown(sourceKey)} of the queue ${shown(queue)} was used for another batch. Use a new sourceKey for new content.`,
    {
      queue,
      sourceKey,
      first,
      now: content(draft.params, draft.payloads),
      ...(index === undefined ? {} : { index }),
    },
  );
}

function content(params: Omit<Enqueued, "queue" | "payloads">, payloads: string): object {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts } = params;
  const cut = payloads.length > MAX_SHOWN_CONTENT_CHARACTERS;
  const text = cut ? `${payloads.slice(0, MAX_SHOWN_CONTENT_CHARACTERS - 3)}...` : payloads;
  return { payloads: text, deliveryPolicy, slotPolicy, mergeKey, maxAttempts };
}

/** Inserts a batch that is already counted. */
function* add(draft: Draft, env: Env): Operation<Batch> {
  const { params, payloads, mergeKey, contentDigest, availableAt, state } = draft;
  const { now } = env;
  const { queue, deliveryPolicy, slotPolicy, maxAttempts } = params;
  const sourceKey = params.sourceKey ?? null;
  const queueText = JSON.stringify(queue);
  const nonce = env.random(NONCE_BYTES).toString("base64");
  const digest = hash("sha256", `[${queueText},${JSON.stringify(sourceKey)},${now},"${nonce}"]`, "hex");
  const payloadBytes = Buffer.byteLength(payloads);
  const isInline = payloadBytes <= MAX_INLINE_PAYLOAD_BYTES;
  const batchId = `qwb:${digest}`;
  const enqueueSeq = yield* insert(insertBatch, {
    queue,
    state,
    availableAt,
    maxAttempts,
    deliveryPolicy,
    slotPolicy,
    mergeKey,
    batchKey: batchKey(digest),
    batchId,
    sourceKey,
    contentDigest,
    now,
    payloadBytes,
    payloads: isInline ? payloads : null,
  });
  if (!isInline) yield* run(insertPayloads, { enqueueSeq, payloads });

  if (state === "ready") env.effects.wake(waitKey(queue));
  else env.effects.deadline(availableAt);
  return shownBatch(
    {
      batch_id: batchId,
      enqueue_seq: enqueueSeq,
      payloads,
      source_key: sourceKey,
      delivery_policy: deliveryPolicy,
      slot_policy: slotPolicy,
      merge_key: mergeKey,
      state,
      attempt: 0,
      max_attempts: maxAttempts,
      enqueued_at: now,
      available_at: availableAt,
      last_error: null,
    },
    queueText,
    undefined,
  );
}

function batchKey(digest: string): number {
  return Number.parseInt(digest.slice(0, BATCH_KEY_DIGITS), 16);
}

function keptMergeKey(mergeKey: MergeKey): string | null {
  if (mergeKey === "never") return null;
  return mergeKey === "payload_default" ? "" : mergeKey.group;
}

function shownMergeKey(kept: string | null): MergeKey {
  if (kept === null) return "never";
  return kept === "" ? "payload_default" : { group: kept };
}

// Claim -----------------------------------------------------------------------------------------------------

const selectHead = sql<BatchRow & { queue_id: number; last_token: number }>(`
  SELECT ${BATCH_COLUMNS}, q.queue_id, q.fencing_token AS last_token
  FROM pawl_queue q CROSS JOIN pawl_batch b
  WHERE q.queue = :queue AND b.queue_id = q.queue_id AND b.state = 'ready'
  ORDER BY b.enqueue_seq LIMIT 1`);

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

const countClaimed = sql(`
  UPDATE pawl_queue SET fencing_token = :fencingToken, ready = ready - :size, claimed = claimed + :size
  WHERE queue_id = :queueId`);

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
  const head = yield* one(selectHead, { queue });
  const last = head === undefined ? undefined : yield* lastOfGroup(head, params, env);
  if (head === undefined || last === undefined) {
    // Those at different boundaries wait for different things: one that cannot be met does not hold up the others.
    return env.mayWait ? new Wait(waitKey(queue), boundary) : { claim: null };
  }

  const { queue_id: queueId, enqueue_seq: seq } = head;
  const rows: BatchRow[] = [head];
  if (last > seq) rows.push(...(yield* all(selectGroup, { queueId, head: seq, last })));
  const size = rows.length;
  const fencingToken = head.last_token + 1;
  const expiresAt = now + leaseMs;
  const connection = releaseOn === "disconnect" ? caller.connection : null;
  yield* run(countClaimed, { queueId, fencingToken, size });
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
  const holder = { owner, claimId, fencingToken, expiresAt, remainingMs: leaseMs };
  const queueText = JSON.stringify(queue);
  return {
    claim: {
      claimId,
      leaseToken: env.sign(claimId),
      fencingToken,
      queue,
      owner,
      claimedAt: now,
      expiresAt,
      remainingMs: leaseMs,
      batches: rows.map((row) => {
        row.state = "claimed";
        return shownBatch(row, queueText, holder);
      }),
    },
  };
}

/** The enqueueSeq of the last batch that is claimed with a head, or undefined if the head may not be claimed. */
function* lastOfGroup(
  head: BatchRow & { queue_id: number },
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
      const following = yield* all(selectFollowing, { queueId: head.queue_id, after, rows: wanted });
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

// What a holder does with its claim -------------------------------------------------------------------------

const extend = sql(`
  UPDATE pawl_batch SET expires_at = :now + :leaseMs,
    connection = CASE WHEN connection < 0 THEN :connection ELSE connection END
  WHERE enqueue_seq = :head AND fencing_token = :fencingToken AND state = 'claimed' AND expires_at > :now`);

const selectLeaseLength = sql<{ lease_ms: number }>(`
  SELECT lease_ms FROM pawl_batch WHERE enqueue_seq = :head AND fencing_token = :fencingToken`);

/** All of a claim of one batch that is still held, or whose end has not been noticed. */
const completeOne = sql(`
  UPDATE pawl_batch SET state = 'completed', finished_at = :now, expires_at = NULL, connection = NULL
  WHERE enqueue_seq = :head AND fencing_token = :fencingToken AND state = 'claimed' AND claim_size = 1`);

const countCompletedOne = sql(`
  UPDATE pawl_queue SET claimed = claimed - 1, completed = completed + 1
  WHERE queue_id = (SELECT queue_id FROM pawl_batch WHERE enqueue_seq = :head)`);

const selectClaim = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.enqueue_seq = :head AND b.claim_seq = :head AND b.fencing_token = :fencingToken AND q.queue_id = b.queue_id`);

/** The batches of a claim beside its head, as far as no other claim has taken them. */
const selectMembers = sql<MemberRow>(`
  SELECT enqueue_seq, state, attempt, max_attempts FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken
  ORDER BY enqueue_seq`);

const completeHead = sql(`
  UPDATE pawl_batch SET state = 'completed', finished_at = :now, expires_at = NULL, connection = NULL
  WHERE enqueue_seq = :head`);

const completeMembers = sql(`
  UPDATE pawl_batch SET state = 'completed', finished_at = :now
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken`);

interface MemberRow {
  enqueue_seq: number;
  state: BatchState;
  attempt: number;
  max_attempts: number;
}

/** The head of a claim. */
interface ClaimRow extends MemberRow {
  queue_id: number;
  queue: string;
  claim_size: number;
  fencing_token: number;
  owner: string;
  pid: number | null;
  expires_at: number | null;
}

export function* renew(
  params: Parsed<"queue.renew">,
  env: Env,
): Operation<Result<"queue.renew"> | PawlError> {
  const claim = verify(params, env);
  if (claim === undefined) return lost(params.claimId);
  const leaseMs = params.leaseMs ?? (yield* one(selectLeaseLength, claim))?.lease_ms;
  if (leaseMs === undefined) return lost(params.claimId);
  const { now } = env;
  const { connection } = env.caller;
  if ((yield* run(extend, { ...claim, now, leaseMs, connection })) === 0) return lost(params.claimId);
  env.effects.deadline(now + leaseMs);
  // If the claim belongs to no connection, or to another, this only costs a look when this one closes.
  env.effects.bind(connection);
  return { expiresAt: now + leaseMs, remainingMs: leaseMs };
}

export function* complete(
  params: Parsed<"queue.complete">,
  env: Env,
): Operation<Result<"queue.complete"> | PawlError> {
  const claim = verify(params, env);
  if (claim === undefined) return lost(params.claimId);
  const { now } = env;
  if ((yield* run(completeOne, { ...claim, now })) === 1) {
    yield* run(countCompletedOne, { head: claim.head });
    return { completed: 1 };
  }
  const head = yield* one(selectClaim, claim);
  if (head === undefined) return lost(params.claimId);
  if (head.state === "completed") return { completed: head.claim_size };
  const batches = yield* batchesOf(head);
  // After its end others may have claimed its batches, or cancelled them; while it lasts nobody can.
  if (batches.length < head.claim_size || batches.some(({ state }) => state === "cancelled")) {
    return lost(params.claimId);
  }

  yield* run(completeHead, { head: claim.head, now });
  if (batches.length > 1) yield* run(completeMembers, { ...claim, now });
  const counts = { ...NO_COUNTS, completed: batches.length };
  for (const { state } of batches) counts[state] -= 1;
  yield* move(head.queue_id, counts);
  if (counts.ready < 0) env.effects.wake(waitKey(head.queue));
  return { completed: batches.length };
}

export function* abandon(
  params: Parsed<"queue.abandon">,
  env: Env,
): Operation<Result<"queue.abandon"> | PawlError> {
  const claim = verify(params, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  if (head === undefined || !isHeld(head, env)) return lost(params.claimId);
  const availableAt = env.now + (params.delayMs ?? 0);
  const error = params.error ?? null;
  return yield* end(head, { counts: error !== null, error, availableAt, final: true }, env);
}

/** A guard of `transact`: `claim_lost` unless the claim is held. */
export function* guardClaim(
  guard: { claimId: string; leaseToken: string },
  env: Env,
): Operation<PawlError | undefined> {
  const claim = verify(guard, env);
  const head = claim === undefined ? undefined : yield* one(selectClaim, claim);
  return head !== undefined && isHeld(head, env) ? undefined : lost(guard.claimId);
}

function isHeld({ state, expires_at: expiresAt }: ClaimRow, env: Env): boolean {
  return state === "claimed" && expiresAt !== null && expiresAt > env.now;
}

function* batchesOf(head: ClaimRow): Operation<MemberRow[]> {
  if (head.claim_size === 1) return [head];
  const { enqueue_seq, fencing_token: fencingToken } = head;
  return [head, ...(yield* all(selectMembers, { head: enqueue_seq, fencingToken }))];
}

const CLAIM_ID = /^qwc:([1-9][0-9]{0,15}):([1-9][0-9]{0,15})$/;

function claimIdOf(head: number, fencingToken: number): string {
  return `qwc:${head}:${fencingToken}`;
}

/** What a claimId names, if the token was given out with it. */
function verify(
  { claimId, leaseToken }: { claimId: string; leaseToken: string },
  env: Env,
): { head: number; fencingToken: number } | undefined {
  const [, head, fencingToken] = CLAIM_ID.exec(claimId) ?? [];
  if (head === undefined || fencingToken === undefined) return undefined;
  const given = Buffer.from(leaseToken);
  const granted = Buffer.from(env.sign(claimId));
  if (given.length !== granted.length || !timingSafeEqual(given, granted)) return undefined;
  return { head: Number(head), fencingToken: Number(fencingToken) };
}

function lost(claimId: string): PawlError {
  return refuse(
    "claim_lost",
    `The claim ${shown(claimId)} is not held any more: it expired, or its connection closed, or it was ended, or the leaseToken is not its own. Stop the work on its batches and claim again.`,
    { claimId },
  );
}

// Ends that give batches back -------------------------------------------------------------------------------

const giveBack = sql(`
  UPDATE pawl_batch SET state = :state, available_at = :availableAt, attempt = :attempt,
    last_error = coalesce(:error, last_error), claim_seq = :claimSeq, fencing_token = :fencingToken,
    expires_at = NULL, connection = NULL
  WHERE enqueue_seq = :seq`);

interface End {
  /** Whether the delivery counts as an attempt. */
  readonly counts: boolean;
  readonly error: string | null;
  /** When its batches can be claimed again. */
  readonly availableAt: number;
  /** Whether the holder gave it up, so that it cannot even be completed late. */
  readonly final: boolean;
}

/** Ends a claim otherwise than by completion: its batches come back, or are dead if they have no attempts left. */
function* end(head: ClaimRow, how: End, env: Env): Operation<Result<"queue.abandon">> {
  const { queue, queue_id: queueId, enqueue_seq, fencing_token } = head;
  const { error, availableAt } = how;
  const claimSeq = how.final ? null : enqueue_seq;
  const fencingToken = how.final ? null : fencing_token;
  const back = availableAt > env.now ? "scheduled" : "ready";
  const batches = yield* batchesOf(head);
  let dead = 0;
  for (const { enqueue_seq: seq, attempt: before, max_attempts: most } of batches) {
    const attempt = how.counts ? before + 1 : before;
    const isDead = how.counts && most > 0 && attempt >= most;
    if (isDead) dead += 1;
    const state = isDead ? "dead" : back;
    yield* run(giveBack, { seq, state, availableAt, attempt, error, claimSeq, fencingToken });
  }
  const released = batches.length - dead;
  yield* move(queueId, { claimed: -batches.length, [back]: released, dead });
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

const earliestEnd = sql<{ at: number | null }>(
  "SELECT min(expires_at) AS at FROM pawl_batch WHERE expires_at IS NOT NULL",
);
const latestEnd = sql<{ at: number | null }>(
  "SELECT max(expires_at) AS at FROM pawl_batch WHERE expires_at IS NOT NULL",
);
const earliestScheduled = sql<{ at: number | null }>(
  "SELECT min(available_at) AS at FROM pawl_batch WHERE state = 'scheduled'",
);

const selectExpired = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.expires_at IS NOT NULL AND b.expires_at <= :now AND q.queue_id = b.queue_id
  ORDER BY b.expires_at LIMIT :rows`);

const selectOfConnection = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.connection = :connection AND q.queue_id = b.queue_id
  ORDER BY b.enqueue_seq LIMIT :rows`);

const expireOfConnection = sql(
  "UPDATE pawl_batch SET expires_at = :now, connection = NULL WHERE connection = :connection",
);

const makeAvailable = sql<{ queue_id: number }>(`
  UPDATE pawl_batch SET state = 'ready' WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE state = 'scheduled' AND available_at <= :now
     ORDER BY available_at, enqueue_seq LIMIT :rows)
  RETURNING queue_id`);

const selectQueueName = sql<{ queue: string }>("SELECT queue FROM pawl_queue WHERE queue_id = :queueId");

const postponeEnds = sql(`
  UPDATE pawl_batch SET expires_at = expires_at + :byMs,
    connection = ${postponedConnection("connection")}
  WHERE expires_at IS NOT NULL`);

const CLAIM_END = ownEnd("connection", "expires_at");
const orphan = sql(`
  UPDATE pawl_batch SET connection = -${CLAIM_END}, expires_at = min(:grace, ${CLAIM_END})
  WHERE connection IS NOT NULL`);

/** Claims that end by time, with their connection or after a restart, and batches whose time comes. */
export const claims: Expiry = {
  *earliest() {
    const claimEnd = (yield* one(earliestEnd))?.at ?? Number.POSITIVE_INFINITY;
    const available = (yield* one(earliestScheduled))?.at ?? Number.POSITIVE_INFINITY;
    const at = Math.min(claimEnd, available);
    return Number.isFinite(at) ? at : undefined;
  },

  *expire(env, rows) {
    let ended = 0;
    for (const head of yield* all(selectExpired, { now: env.now, rows })) {
      // A claim can hold more batches than one step is meant to do: the rest follows in the next.
      if (ended >= rows) break;
      yield* end(head, unasked("expired", head, env), env);
      ended += head.claim_size;
    }
    const available = yield* all(makeAvailable, { now: env.now, rows });
    for (const [queueId, count] of countBy(available, (row) => row.queue_id)) {
      yield* move(queueId, { scheduled: -count, ready: count });
      const { queue } = (yield* one(selectQueueName, { queueId })) as { queue: string };
      env.effects.wake(waitKey(queue));
    }
    return Math.max(ended, available.length);
  },

  *postpone(byMs) {
    yield* run(postponeEnds, { byMs });
  },

  *disconnect(connection, env, rows) {
    const heads = yield* all(selectOfConnection, { connection, rows });
    for (const head of heads) {
      yield* end(head, unasked("ended with its connection", head, env), env);
    }
    if (heads.length < rows) return;
    // The rest ends as if it had expired now, in steps that do not stall others.
    yield* run(expireOfConnection, { connection, now: env.now });
    env.effects.deadline(env.now);
  },

  *restart(env) {
    yield* run(orphan, { grace: env.now + RESTART_GRACE_MS });
  },

  *latest() {
    return (yield* one(latestEnd))?.at ?? undefined;
  },
};

/** An end that the holder did not ask for: counted, and it may still complete as long as nobody else claims. */
function unasked(what: string, { owner, pid, fencing_token: fencingToken }: ClaimRow, env: Env): End {
  const holder = `${owner}${pid === null ? "" : `, pid ${pid}`}, fencing token ${fencingToken}`;
  return { counts: true, error: `The claim of ${holder} ${what}.`, availableAt: env.now, final: false };
}

function countBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, number> {
  const counts = new Map<K, number>();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1);
  return counts;
}

// Retention -------------------------------------------------------------------------------------------------

const earliestFinished = sql<{ at: number | null }>(
  "SELECT min(finished_at) AS at FROM pawl_batch WHERE finished_at IS NOT NULL",
);

const selectOutdated = sql<{ enqueue_seq: number }>(`
  SELECT enqueue_seq FROM pawl_batch WHERE finished_at IS NOT NULL AND finished_at <= :until
  ORDER BY finished_at LIMIT :rows`);

const deleteBatch = sql<{ queue_id: number; state: BatchState; is_inline: number }>(`
  DELETE FROM pawl_batch WHERE enqueue_seq = :seq
  RETURNING queue_id, state, CASE WHEN payloads IS NULL THEN 0 ELSE 1 END AS is_inline`);

const deletePayloads = sql("DELETE FROM pawl_batch_payloads WHERE enqueue_seq = :seq");

const deleteEmptyQueue = sql<{ fencing_token: number }>(`
  DELETE FROM pawl_queue WHERE queue_id = :queueId
    AND ready + scheduled + claimed + completed + dead + cancelled = 0
  RETURNING fencing_token`);

const raiseFloor = sql(`
  INSERT INTO pawl_meta (key, value) VALUES ('queue_fencing_floor', :fencingToken)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value
    WHERE CAST(pawl_meta.value AS BIGINT) < CAST(excluded.value AS BIGINT)`);

/** What has ended is removed after the time of retention. What is dead stays: it is work that was not done. */
export const endedBatches: Expiry = {
  *earliest(env) {
    const at = (yield* one(earliestFinished))?.at ?? undefined;
    return at === undefined ? undefined : at + env.retentionMs + PRUNE_EVERY_MS;
  },

  *expire(env, rows) {
    const until = env.now - env.retentionMs;
    const outdated = yield* all(selectOutdated, { until, rows: PRUNED_ROWS_PER_STEP });
    yield* removeOutdated(outdated.map(({ enqueue_seq }) => enqueue_seq));
    return outdated.length < PRUNED_ROWS_PER_STEP ? outdated.length : rows;
  },
};

/** Removes batches, and queues that are empty then. */
function* removeOutdated(seqs: readonly number[]): Operation<void> {
  const removed: { queue_id: number; state: BatchState }[] = [];
  for (const seq of seqs) {
    const row = (yield* one(deleteBatch, { seq })) as {
      queue_id: number;
      state: BatchState;
      is_inline: number;
    };
    if (row.is_inline === 0) yield* run(deletePayloads, { seq });
    removed.push(row);
  }
  for (const queueId of new Set(removed.map((row) => row.queue_id))) {
    const counts = { ...NO_COUNTS };
    for (const row of removed) if (row.queue_id === queueId) counts[row.state] -= 1;
    yield* move(queueId, counts);
    const gone = yield* one(deleteEmptyQueue, { queueId });
    if (gone !== undefined) yield* run(raiseFloor, { fencingToken: String(gone.fencing_token) });
  }
}

// Cancel and retry ------------------------------------------------------------------------------------------

const selectById = sql<BatchRow & HolderRow & { queue_id: number; queue: string }>(`
  SELECT ${BATCH_COLUMNS}, b.queue_id, q.queue, ${HOLDER_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.batch_key = :batchKey AND b.batch_id = :batchId AND q.queue_id = b.queue_id`);

const cancelBatch = sql(
  "UPDATE pawl_batch SET state = 'cancelled', finished_at = :now WHERE enqueue_seq = :seq",
);

const retryBatch = sql(
  "UPDATE pawl_batch SET state = 'ready', attempt = 0, available_at = :now WHERE enqueue_seq = :seq",
);

const retryDead = sql(`
  UPDATE pawl_batch SET state = 'ready', attempt = 0, available_at = :now WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'dead'
     ORDER BY enqueue_seq LIMIT :rows)`);

const selectQueue = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue = :queue");

interface QueueRow extends Record<BatchState, number> {
  queue_id: number;
  queue: string;
  fencing_token: number;
}

export function* cancel(
  params: Parsed<"queue.cancel">,
  env: Env,
): Operation<Result<"queue.cancel"> | PawlError> {
  const row = yield* byId(params.batchId);
  if (row instanceof PawlError) return row;
  const { state } = row;
  if (state !== "ready" && state !== "scheduled") return { outcome: `already_${state}` };
  yield* run(cancelBatch, { seq: row.enqueue_seq, now: env.now });
  yield* move(row.queue_id, { [state]: -1, cancelled: 1 });
  // It may have been the head that a claim at a checkpoint has to wait behind.
  if (state === "ready") env.effects.wake(waitKey(row.queue));
  return { outcome: "cancelled" };
}

export function* retry(
  params: Parsed<"queue.retry">,
  env: Env,
): Operation<Result<"queue.retry"> | PawlError> {
  if (params.batchId !== undefined) {
    const row = yield* byId(params.batchId);
    if (row instanceof PawlError) return row;
    if (row.state !== "dead") return { retried: 0 };
    yield* run(retryBatch, { seq: row.enqueue_seq, now: env.now });
    yield* move(row.queue_id, { dead: -1, ready: 1 });
    env.effects.wake(waitKey(row.queue));
    return { retried: 1 };
  }
  const queue = params.queue as string;
  const row = yield* one(selectQueue, { queue });
  if (row === undefined || row.dead === 0) return { retried: 0 };
  const { queue_id: queueId } = row;
  const retried = yield* run(retryDead, { queueId, now: env.now, rows: MAX_RETRIED_BATCHES });
  yield* move(queueId, { dead: -retried, ready: retried });
  env.effects.wake(waitKey(queue));
  return { retried, ...(retried < row.dead ? { more: true as const } : {}) };
}

/** A batch and its holder, or `not_found`. */
function* byId(
  batchId: string,
): Operation<(BatchRow & HolderRow & { queue_id: number; queue: string }) | PawlError> {
  const row = /^qwb:[0-9a-f]{64}$/.test(batchId)
    ? yield* one(selectById, { batchId, batchKey: batchKey(batchId.slice("qwb:".length)) })
    : undefined;
  if (row !== undefined) return row;
  return refuse(
    "not_found",
    `There is no batch ${shown(batchId)}. What is completed or cancelled is removed some days later.`,
    { what: "batch", batchId },
  );
}

// Reads -----------------------------------------------------------------------------------------------------

/** Without payloads, which are read only of those that the page has room for. */
const PAGE_COLUMNS = "enqueue_seq, payload_bytes, coalesce(length(last_error), 0) AS last_error_length";

const selectPageOfState = sql<PageRow>(`
  SELECT ${PAGE_COLUMNS} FROM pawl_batch
  WHERE queue_id = :queueId AND state = :state AND enqueue_seq > :after ORDER BY enqueue_seq LIMIT :rows`);

/** Merged from the states, each of which an index has in order. */
const selectPage = sql<PageRow>(
  `${(["ready", "scheduled", "claimed", "completed", "dead", "cancelled"] satisfies BatchState[])
    .map(
      (state) => `
  SELECT ${PAGE_COLUMNS} FROM pawl_batch
  WHERE queue_id = :queueId AND state = '${state}' AND enqueue_seq > :after`,
    )
    .join(" UNION ALL ")} ORDER BY enqueue_seq LIMIT :rows`,
);

const selectBySeq = sql<BatchRow & HolderRow>(`
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = :seq`);

const selectQueues = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id AND b.state = 'ready'
    ORDER BY b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue > :after ORDER BY q.queue LIMIT :rows`);

const selectQueueStats = sql<QueueRow & { available_at: number | null }>(`
  SELECT q.*, (SELECT b.available_at FROM pawl_batch b WHERE b.queue_id = q.queue_id AND b.state = 'ready'
    ORDER BY b.enqueue_seq LIMIT 1) AS available_at
  FROM pawl_queue q WHERE q.queue = :queue`);

const sumQueues = sql<Record<BatchState, number>>(`
  SELECT coalesce(sum(ready), 0) AS ready, coalesce(sum(scheduled), 0) AS scheduled,
    coalesce(sum(claimed), 0) AS claimed, coalesce(sum(completed), 0) AS completed,
    coalesce(sum(dead), 0) AS dead, coalesce(sum(cancelled), 0) AS cancelled
  FROM pawl_queue`);

/** The first batch of a queue that nobody can claim now: held or scheduled. */
const selectUnavailable = sql<BatchRow & HolderRow>(`
  SELECT ${BATCH_COLUMNS}, ${HOLDER_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = (SELECT min(seq) FROM (
    SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'claimed'
    UNION ALL
    SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND state = 'scheduled') AS heads)`);

interface PageRow {
  enqueue_seq: number;
  payload_bytes: number;
  last_error_length: number;
}

export function* get(params: Parsed<"queue.get">, env: Env): Operation<Result<"queue.get"> | PawlError> {
  const row = yield* byId(params.batchId);
  return row instanceof PawlError
    ? row
    : { batch: shownBatch(row, JSON.stringify(row.queue), claimOf(row, env)) };
}

export function* list(params: Parsed<"queue.list">, env: Env): Operation<Result<"queue.list">> {
  const { queue, state, limit } = params;
  const found = yield* one(selectQueue, { queue });
  if (found === undefined) return { batches: [] };
  const page = { queueId: found.queue_id, after: params.after ?? 0, rows: limit + 1 };
  const rows =
    state === undefined ? yield* all(selectPage, page) : yield* all(selectPageOfState, { ...page, state });
  const queueText = JSON.stringify(queue);
  const batches: Batch[] = [];
  let bytes = 0;
  let last = 0;
  for (const { enqueue_seq: seq, payload_bytes, last_error_length } of rows) {
    bytes += payload_bytes + last_error_length + BATCH_OVERHEAD_BYTES;
    if (batches.length > 0 && (batches.length === limit || bytes > MAX_PAGE_BYTES)) {
      return { batches, next: last };
    }
    const row = (yield* one(selectBySeq, { seq })) as BatchRow & HolderRow;
    batches.push(shownBatch(row, queueText, claimOf(row, env)));
    last = seq;
  }
  return { batches };
}

export function* stats(params: Parsed<"queue.stats">, env: Env): Operation<Result<"queue.stats">> {
  const { queue, limit } = params;
  if (queue !== undefined) {
    const row = yield* one(selectQueueStats, { queue });
    return { queues: [row === undefined ? { queue, ...NO_COUNTS, oldestReadyMs: null } : toStats(row, env)] };
  }
  const rows = yield* all(selectQueues, { after: params.after ?? "", rows: limit + 1 });
  const queues = rows.slice(0, limit).map((row) => toStats(row, env));
  return { queues, ...(rows.length > limit ? { next: (queues.at(-1) as { queue: string }).queue } : {}) };
}

function toStats(
  row: QueueRow & { available_at: number | null },
  env: Env,
): Result<"queue.stats">["queues"][number] {
  const { queue, ready, scheduled, claimed, completed, dead, cancelled, available_at: since } = row;
  const oldestReadyMs = since === null ? null : Math.max(0, env.now - since);
  return { queue, ready, scheduled, claimed, completed, dead, cancelled, oldestReadyMs };
}

/** How many batches of all queues are in which state. */
export function* countBatches(): Operation<Record<BatchState, number>> {
  return (yield* one(sumQueues)) ?? NO_COUNTS;
}

export function* explain(params: Parsed<"queue.explain">, env: Env): Operation<Result<"queue.explain">> {
  const { queue } = params;
  const found = yield* one(selectQueue, { queue });
  const known = { queue, dead: found?.dead ?? 0, waiting: env.waiting(waitKey(queue)) };
  const head = yield* one(selectHead, { queue });
  if (head !== undefined) {
    const { batch_id: batchId, delivery_policy: deliveryPolicy, available_at: availableAt } = head;
    const reason = deliveryPolicy === "earliest_safe_boundary" ? "ready" : "boundary";
    return { ...known, claimable: true, reason, batchId, deliveryPolicy, availableAt };
  }
  const first = found === undefined ? undefined : yield* one(selectUnavailable, { queueId: found.queue_id });
  if (first === undefined) return { ...known, claimable: false, reason: "empty" };
  const { batch_id: batchId, delivery_policy: deliveryPolicy, available_at: availableAt } = first;
  const claim = claimOf(first, env);
  if (claim === undefined) {
    return { ...known, claimable: false, reason: "scheduled", batchId, deliveryPolicy, availableAt };
  }
  const holder = { ...claim, pid: first.pid };
  return { ...known, claimable: false, reason: "claimed", batchId, deliveryPolicy, holder };
}

/**
 * A batch as replies show it. Its text is written here, with the payloads as they came: as an object for
 * `JSON.stringify` it would cost three times as much, which is a tenth of what a claim costs.
 *
 * @param queueText the name of its queue as JSON, made once for all batches of a reply.
 */
function shownBatch(
  row: Omit<BatchRow, "payload_bytes">,
  queueText: string,
  claim: BatchClaim | undefined,
): Batch {
  const { merge_key: kept, source_key: sourceKey, last_error: lastError } = row;
  const text = `{"batchId":"${row.batch_id}","queue":${queueText},"enqueueSeq":${row.enqueue_seq},"payloads":${row.payloads},"sourceKey":${
    sourceKey === null ? "null" : JSON.stringify(sourceKey)
  },"deliveryPolicy":"${row.delivery_policy}","slotPolicy":"${row.slot_policy}","mergeKey":${
    kept === null ? '"never"' : JSON.stringify(shownMergeKey(kept))
  },"state":"${row.state}","attempt":${row.attempt},"maxAttempts":${row.max_attempts},"enqueuedAt":${row.enqueued_at},"availableAt":${row.available_at}${
    claim === undefined ? "" : `,"claim":${JSON.stringify(claim)}`
  }${lastError === null ? "" : `,"lastError":${JSON.stringify(lastError)}`}}`;
  return new RawJson(text) as unknown as Batch;
}

/** A batch remembers its last claim after that has ended. */
function claimOf(row: BatchRow & HolderRow, env: Env): BatchClaim | undefined {
  const { state, claim_seq: head, fencing_token: fencingToken, owner, expires_at: expiresAt } = row;
  if (state !== "claimed" || head === null || fencingToken === null || owner === null || expiresAt === null) {
    return undefined;
  }
  const remainingMs = Math.max(0, expiresAt - env.now);
  return { owner, claimId: claimIdOf(head, fencingToken), fencingToken, expiresAt, remainingMs };
}

/** What those who wait for a queue are parked under. */
function waitKey(queue: string): string {
  return `queue:${queue}`;
}
