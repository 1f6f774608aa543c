// Enqueue: a batch is added, or found by its sourceKey.
import type { Parsed, Result, Retry } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { DEFAULT_BATCH_ATTEMPTS, MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";
import { digestOfMeaning } from "../../json/digest.js";
import { nestingLevels, RawJson } from "../../json/raw-json.js";
import { insert, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { newId, noteId } from "./ids.js";
import { addTo, findQueue, settingsOfQueue, touchKey } from "./queue-row.js";
import { removeOutdated } from "./retention.js";
import {
  BATCH_COLUMNS,
  type Batch,
  type BatchRow,
  checkKept,
  claimOf,
  HOLDER_COLUMNS,
  type HolderRow,
  keptMergeKey,
  roomKey,
  shownBatch,
  shownMergeKey,
  waitKey,
} from "./row.js";
import { NO_SETTINGS } from "./settings.js";

/** Payloads up to this size are kept in the row of their batch, which every change of its state writes anew. */
const MAX_INLINE_PAYLOAD_BYTES = 1024;

/** How much of a payload a refusal shows. */
const MAX_SHOWN_CONTENT_CHARACTERS = 200;

const selectBySourceKey = sql<
  BatchRow & HolderRow & { queue_id: number; content_digest: string; finished_at: number | null }
>(`
  SELECT ${BATCH_COLUMNS}, b.queue_id, b.content_digest, b.finished_at,
    ${HOLDER_COLUMNS}
  FROM pawl_queue q CROSS JOIN pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE q.queue = :queue AND b.queue_id = q.queue_id AND b.source_key = :sourceKey AND b.key_elsewhere IS NULL`);

const insertBatch = sql(`
  INSERT INTO pawl_batch (queue_id, state, available_at, available_at_wall, attempt, max_attempts, retry, delivery_policy,
    slot_policy, merge_key, batch_key, batch_id, source_key, content_digest, enqueued_at, payload_bytes, payloads,
    priority, key, in_line, ttl_ms, ttl_ends_at)
  VALUES (:queueId, :state, :availableAt, :availableAtWall, 0, :maxAttempts, :retry,
    :deliveryPolicy, :slotPolicy, :mergeKey, :batchKey, :batchId, :sourceKey, :contentDigest, :enqueuedAt,
    :payloadBytes, :payloads, :priority, :key, :inLine, :ttlMs, :ttlEndsAt)`);

const insertPayloads = sql(
  "INSERT INTO pawl_batch_payloads (enqueue_seq, payloads) VALUES (:enqueueSeq, :payloads)",
);

type Enqueued = Parsed<"queue.enqueueMany">["batches"][number];

/** A batch as it is asked for, checked. */
interface Draft {
  readonly params: Enqueued;
  readonly payloads: string;
  readonly mergeKey: string | null;
  /** Only with a sourceKey, since only then is it compared. */
  readonly contentDigest: string | null;
  /** In elapsed time; of a batch that is to be available at a time that was named, now. */
  readonly availableAt: number;
  /** The time that was named, if it has not come. */
  readonly availableAtWall: number | null;
  readonly state: "ready" | "scheduled";
}

/** What is there under a draft's sourceKey, if anything is. */
type Known = { readonly batch: Batch } | { readonly outdated: { queue_id: number; enqueue_seq: number } };

export function* enqueue(
  params: Parsed<"queue.enqueue">,
  env: Env,
  texts: Texts,
): Operation<Outcome<Result<"queue.enqueue">>> {
  const draft = draftOf(params, texts[0] as string, env, "/payloads");
  if (draft instanceof PawlError) return draft;
  const known = params.sourceKey === undefined ? undefined : yield* find(draft, env);
  if (known instanceof PawlError) return known;
  if (known !== undefined && "batch" in known) return { batch: known.batch, created: false };
  const full = yield* noRoom(params.queue, 1, env);
  if (full !== undefined) return env.mayWait ? new Wait(roomKey(params.queue)) : full;

  if (known !== undefined) yield* removeOutdated([known.outdated.enqueue_seq], env);
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

  const added = new Map<string, number>();
  for (const each of plan) {
    if (isDraft(each)) added.set(each.params.queue, (added.get(each.params.queue) ?? 0) + 1);
  }
  for (const [queue, count] of added) {
    const full = yield* noRoom(queue, count, env);
    if (full !== undefined) return full;
  }

  yield* removeOutdated(outdated, env);
  const batches: Batch[] = [];
  for (const each of plan) {
    if (typeof each === "number") batches.push(batches[each] as Batch);
    else batches.push(isDraft(each) ? yield* add(each, env) : each);
  }
  return { batches, created: plan.map(isDraft) };
}

/** The refusal of so many more batches in a queue that is configured to have no more of them wait. */
function* noRoom(queue: string, more: number, env: Env): Operation<PawlError | undefined> {
  const row = yield* findQueue(queue, env);
  if (row === undefined || row.settings === null) return undefined;
  const { maxWaiting } = yield* settingsOfQueue(row.queue_id, env);
  const waiting = row.ready + row.scheduled + row.blocked;
  if (maxWaiting === undefined || waiting + more <= maxWaiting) return undefined;
  return refuse(
    "exhausted",
    `The queue ${shown(queue)} has ${waiting} batches that wait, and may have ${maxWaiting}. Try again once some are claimed, or wait for it with waitMs.`,
    { queue, waiting, maxWaiting, retryable: true },
  );
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
  const availableAt = env.now + (params.delayMs ?? 0);
  const named = params.availableAt ?? 0;
  const availableAtWall = named > env.wallMs ? named : null;
  return {
    params,
    payloads,
    mergeKey: keptMergeKey(params.mergeKey),
    contentDigest: params.sourceKey === undefined ? null : digestOf(params, payloads),
    availableAt,
    availableAtWall,
    state: availableAt > env.now || availableAtWall !== null ? "scheduled" : "ready",
  };
}

/** Before the digest of what was given. Batches of before have one of what was given or filled in. */
const GIVEN = "given ";

/** Of all that makes two batches of one key the same, which does not include when they are to be delivered. */
function digestOf(params: Enqueued, payloads: string): string {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = null, retry = null } = params;
  const { priority, key, ttlMs } = params;
  const rest: unknown[] = [deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry];
  // Entries of before know nothing of these, and are compared with batches that are given none of them.
  if (priority !== 0 || key !== undefined || ttlMs !== undefined) rest.push({ priority, key, ttlMs });
  return GIVEN + digestOfMeaning(`[${payloads},${JSON.stringify(rest)}]`);
}

function hasContent(row: { readonly content_digest: string }, draft: Draft): boolean {
  const { content_digest: digest } = row;
  if (digest.startsWith(GIVEN)) return digest === draft.contentDigest;
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = DEFAULT_BATCH_ATTEMPTS, retry } = draft.params;
  const { priority, key, ttlMs } = draft.params;
  const rest = JSON.stringify([deliveryPolicy, slotPolicy, mergeKey, maxAttempts]);
  const hasMore = retry !== undefined || priority !== 0 || key !== undefined || ttlMs !== undefined;
  return !hasMore && digest === digestOfMeaning(`[${draft.payloads},${rest}]`);
}

/** Refuses with `conflict` if the key is there with other content. */
function* find(draft: Draft, env: Env, index?: number): Operation<Known | undefined | PawlError> {
  const { queue, sourceKey } = draft.params;
  const row = yield* one(selectBySourceKey, { queue, sourceKey: sourceKey as string });
  if (row === undefined) return undefined;
  if (row.finished_at !== null && row.finished_at + env.retentionMs <= env.retentionNow)
    return { outdated: row };
  if (hasContent(row, draft)) {
    checkKept(row);
    return { batch: shownBatch(row, JSON.stringify(queue), claimOf(row, env), env) };
  }
  const first = {
    deliveryPolicy: row.delivery_policy,
    slotPolicy: row.slot_policy,
    mergeKey: shownMergeKey(row.merge_key),
    maxAttempts: row.max_attempts,
    priority: row.priority,
    key: row.key ?? undefined,
    ...(row.retry === null ? {} : { retry: JSON.parse(row.retry) as Retry }),
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
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry, priority, key, ttlMs } = params;
  const cut = payloads.length > MAX_SHOWN_CONTENT_CHARACTERS;
  const text = cut ? `${payloads.slice(0, MAX_SHOWN_CONTENT_CHARACTERS - 3)}...` : payloads;
  return { payloads: text, priority, key, deliveryPolicy, slotPolicy, mergeKey, ttlMs, maxAttempts, retry };
}

function* add(draft: Draft, env: Env): Operation<Batch> {
  const { params, payloads, mergeKey, contentDigest, availableAt, availableAtWall, state } = draft;
  const enqueuedAt = env.wallMs;
  const { queue, deliveryPolicy, slotPolicy, priority, key = null } = params;
  const retry = params.retry === undefined ? null : JSON.stringify(params.retry);
  const sourceKey = params.sourceKey ?? null;
  const queueText = JSON.stringify(queue);
  const { batchId, batchKey } = newId(queueText, sourceKey, env);
  const payloadBytes = Buffer.byteLength(payloads);
  const isInline = payloadBytes <= MAX_INLINE_PAYLOAD_BYTES;
  const { queue_id: queueId, settings: configured } = yield* addTo(queue, state, priority, env);
  const settings = configured === null ? NO_SETTINGS : yield* settingsOfQueue(queueId, env);
  const maxAttempts = params.maxAttempts ?? settings.maxAttempts ?? DEFAULT_BATCH_ATTEMPTS;
  const ttlMs = params.ttlMs ?? settings.ttlMs ?? null;
  const ttlEndsAt = ttlMs !== null && state === "ready" ? availableAt + ttlMs : null;
  const enqueueSeq = yield* insert(insertBatch, {
    queueId,
    state,
    availableAt,
    availableAtWall,
    maxAttempts,
    retry,
    deliveryPolicy,
    slotPolicy,
    mergeKey,
    batchKey,
    batchId,
    sourceKey,
    contentDigest,
    enqueuedAt,
    payloadBytes,
    payloads: isInline ? payloads : null,
    priority,
    key,
    inLine: key === null ? null : 1,
    ttlMs,
    ttlEndsAt,
  });
  if (!isInline) yield* run(insertPayloads, { enqueueSeq, payloads });
  yield* noteId(enqueueSeq);
  env.effects.reached("enqueueSeq", enqueueSeq);

  if (key !== null) yield* touchKey(queueId, key, env);
  if (ttlEndsAt !== null) env.effects.deadline(ttlEndsAt);
  if (state === "ready") env.effects.wake(waitKey(queue));
  else if (availableAtWall === null) env.effects.deadline(availableAt);
  else env.effects.wallDeadline(availableAtWall);
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
      retry,
      enqueued_at: enqueuedAt,
      available_at: availableAt,
      available_at_wall: availableAtWall,
      last_error: null,
      priority,
      key,
      ttl_ms: ttlMs,
      ttl_ends_at: ttlEndsAt,
      has_more: null,
    },
    queueText,
    undefined,
    env,
  );
}
