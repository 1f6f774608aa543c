// A batch as it is asked for: checked, compared by its content, added, or put in the place of one that waits.
import type { BatchState, Parsed, Retry } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { DEFAULT_BATCH_ATTEMPTS, MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";
import { digestOfMeaning } from "../../json/digest.js";
import { nestingLevels } from "../../json/raw-json.js";
import { insert, type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { setFollower } from "./followers.js";
import { newId, noteId } from "./ids.js";
import { addTo, forgetHeads, move, settingsOfQueue, touchKey } from "./queue-row.js";
import {
  type Batch,
  type BatchRow,
  keptMergeKey,
  NO_MORE,
  shownBatch,
  shownMergeKey,
  waitKey,
} from "./row.js";
import { NO_SETTINGS } from "./settings.js";

/** Payloads up to this size are kept in the row of their batch, which every change of its state writes anew. */
const MAX_INLINE_PAYLOAD_BYTES = 1024;

/** How much of a payload a refusal shows. */
const MAX_SHOWN_CONTENT_CHARACTERS = 200;

const insertBatch = sql(`
  INSERT INTO pawl_batch (queue_id, state, available_at, available_at_wall, attempt, max_attempts, retry, delivery_policy,
    slot_policy, merge_key, batch_key, batch_id, source_key, content_digest, enqueued_at, payload_bytes, payloads,
    priority, key, in_line, ttl_ms, ttl_ends_at, key_elsewhere, has_more)
  VALUES (:queueId, :state, :availableAt, :availableAtWall, 0, :maxAttempts, :retry,
    :deliveryPolicy, :slotPolicy, :mergeKey, :batchKey, :batchId, :sourceKey, :contentDigest, :enqueuedAt,
    :payloadBytes, :payloads, :priority, :key, :inLine, :ttlMs, :ttlEndsAt, :keyElsewhere, :hasMore)`);

const insertPayloads = sql(
  "INSERT INTO pawl_batch_payloads (enqueue_seq, payloads) VALUES (:enqueueSeq, :payloads)",
);

const deletePayloads = sql("DELETE FROM pawl_batch_payloads WHERE enqueue_seq = :enqueueSeq");

const insertMore = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, forgets_key, replace_until, follows_seq, trace)
  VALUES (:enqueueSeq, :forgetsKey, :replaceUntil, :followsSeq, :trace)`);

/** A batch that takes over what was asked for keeps no trace, progress, checkpoint or result of before. */
const replaceMore = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, trace) VALUES (:enqueueSeq, :trace)
  ON CONFLICT (enqueue_seq) DO UPDATE SET trace = excluded.trace, progress = NULL, checkpoint = NULL, result = NULL`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :enqueueSeq");

/** What it was before is forgotten, so nothing of an earlier claim can be completed any more. */
const replaceBatch = sql(`
  UPDATE pawl_batch SET state = :state, available_at = :availableAt, available_at_wall = :availableAtWall, attempt = 0,
    max_attempts = :maxAttempts, retry = :retry, delivery_policy = :deliveryPolicy, slot_policy = :slotPolicy,
    merge_key = :mergeKey, content_digest = :contentDigest, enqueued_at = :enqueuedAt, payload_bytes = :payloadBytes,
    payloads = :payloads, priority = :priority, key = :key, in_line = :inLine, ttl_ms = :ttlMs,
    ttl_ends_at = :ttlEndsAt, last_error = NULL, lost_before = NULL, claim_seq = NULL, fencing_token = NULL
  WHERE enqueue_seq = :enqueueSeq`);

export type Enqueued = Parsed<"queue.enqueueMany">["batches"][number];

/** A batch as it is asked for, checked. */
export interface Draft {
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

/** @param path where the payloads are in the request. */
export function draftOf(params: Enqueued, payloads: string, env: Env, path: string): Draft | PawlError {
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
export function digestOf(params: Enqueued, payloads: string): string {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = null, retry = null } = params;
  const { priority, key, ttlMs } = params;
  const rest: unknown[] = [deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry];
  // Entries of before know nothing of these, and are compared with batches that are given none of them.
  if (priority !== 0 || key !== undefined || ttlMs !== undefined) rest.push({ priority, key, ttlMs });
  return GIVEN + digestOfMeaning(`[${payloads},${JSON.stringify(rest)}]`);
}

export function hasContent({ content_digest: digest }: { content_digest: string }, draft: Draft): boolean {
  if (digest.startsWith(GIVEN)) return digest === draft.contentDigest;
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = DEFAULT_BATCH_ATTEMPTS, retry } = draft.params;
  const { priority, key, ttlMs } = draft.params;
  const rest = JSON.stringify([deliveryPolicy, slotPolicy, mergeKey, maxAttempts]);
  const hasMore = retry !== undefined || priority !== 0 || key !== undefined || ttlMs !== undefined;
  return !hasMore && digest === digestOfMeaning(`[${draft.payloads},${rest}]`);
}

/** The refusal of a draft whose sourceKey is there with other content. */
export function conflict(draft: Draft, row: BatchRow, index?: number): PawlError {
  const { queue, sourceKey } = draft.params;
  const first = {
    deliveryPolicy: row.delivery_policy,
    slotPolicy: row.slot_policy,
    mergeKey: shownMergeKey(row.merge_key),
    maxAttempts: row.max_attempts,
    priority: row.priority,
    key: row.key ?? undefined,
    ...(row.retry === null ? {} : { retry: JSON.parse(row.retry) as Retry }),
  };
  return refuse(
    "conflict",
    `The sourceKey ${shown(sourceKey)} of the queue ${shown(queue)} was used for another batch. Use a new sourceKey for new content, or say with onExisting what is to become of it.`,
    {
      queue,
      sourceKey,
      first: { batchId: row.batch_id, ...content(first, row.payloads) },
      now: content(draft.params, draft.payloads),
      ...(index === undefined ? {} : { index }),
    },
  );
}

type Content = Partial<Omit<Enqueued, "queue" | "payloads">>;

function content(params: Content, payloads: string): object {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry, priority, key, ttlMs } = params;
  const cut = payloads.length > MAX_SHOWN_CONTENT_CHARACTERS;
  const text = cut ? `${payloads.slice(0, MAX_SHOWN_CONTENT_CHARACTERS - 3)}...` : payloads;
  return { payloads: text, priority, key, deliveryPolicy, slotPolicy, mergeKey, ttlMs, maxAttempts, retry };
}

/** The columns of a batch that its draft decides, in a state. */
function* columnsOf(draft: Draft, state: BatchState, queueId: number, hasSettings: boolean, env: Env) {
  const { params, payloads, mergeKey, contentDigest, availableAt, availableAtWall } = draft;
  const { deliveryPolicy, slotPolicy, priority, key = null } = params;
  const settings = hasSettings ? yield* settingsOfQueue(queueId, env) : NO_SETTINGS;
  const ttlMs = params.ttlMs ?? settings.ttlMs ?? null;
  const payloadBytes = Buffer.byteLength(payloads);
  return {
    state,
    availableAt,
    availableAtWall,
    maxAttempts: params.maxAttempts ?? settings.maxAttempts ?? DEFAULT_BATCH_ATTEMPTS,
    retry: params.retry === undefined ? null : JSON.stringify(params.retry),
    deliveryPolicy,
    slotPolicy,
    mergeKey,
    contentDigest,
    enqueuedAt: env.wallMs,
    payloadBytes,
    payloads: payloadBytes <= MAX_INLINE_PAYLOAD_BYTES ? payloads : null,
    priority,
    key,
    inLine: key === null ? null : 1,
    ttlMs,
    ttlEndsAt: ttlMs !== null && state === "ready" ? availableAt + ttlMs : null,
  };
}

/** The effects of a batch that has come, or come anew. */
function* announce(
  { state, availableAt, availableAtWall, key, ttlEndsAt }: Columns,
  queueId: number,
  queue: string,
  env: Env,
): Operation<void> {
  if (key !== null) yield* touchKey(queueId, key, env);
  if (ttlEndsAt !== null) env.effects.deadline(ttlEndsAt);
  if (state === "ready") env.effects.wake(waitKey(queue));
  else if (state === "blocked") return;
  else if (availableAtWall === null) env.effects.deadline(availableAt);
  else env.effects.wallDeadline(availableAtWall);
}

type Columns = ReturnType<typeof columnsOf> extends Generator<unknown, infer C, unknown> ? C : never;

/**
 * Adds a batch behind all others.
 *
 * @param followsSeq the batch with the same sourceKey whose end it waits for.
 */
export function* add(draft: Draft, env: Env, followsSeq: number | null = null): Operation<Batch> {
  const { params, payloads } = draft;
  const { queue, priority } = params;
  const sourceKey = params.sourceKey ?? null;
  const queueText = JSON.stringify(queue);
  const { batchId, batchKey } = newId(queueText, sourceKey, env);
  const state = followsSeq === null ? draft.state : "blocked";
  const { queue_id: queueId, settings } = yield* addTo(queue, state, priority, env);
  const columns = yield* columnsOf(draft, state, queueId, settings !== null, env);
  const forgetsKey = params.uniqueFor === "unfinished" ? 1 : null;
  const replaceUntil = params.maxDelayMs === undefined ? null : env.now + params.maxDelayMs;
  const trace = params.trace === undefined ? null : JSON.stringify(params.trace);
  const hasMore =
    forgetsKey !== null || replaceUntil !== null || followsSeq !== null || trace !== null ? 1 : null;
  // Each by its name: to spread them takes longer than the statement.
  const enqueueSeq = yield* insert(insertBatch, {
    state: columns.state,
    availableAt: columns.availableAt,
    availableAtWall: columns.availableAtWall,
    maxAttempts: columns.maxAttempts,
    retry: columns.retry,
    deliveryPolicy: columns.deliveryPolicy,
    slotPolicy: columns.slotPolicy,
    mergeKey: columns.mergeKey,
    contentDigest: columns.contentDigest,
    enqueuedAt: columns.enqueuedAt,
    payloadBytes: columns.payloadBytes,
    payloads: columns.payloads,
    priority: columns.priority,
    key: columns.key,
    inLine: columns.inLine,
    ttlMs: columns.ttlMs,
    ttlEndsAt: columns.ttlEndsAt,
    queueId,
    batchKey,
    batchId,
    sourceKey,
    keyElsewhere: followsSeq === null ? null : 1,
    hasMore,
  });
  if (columns.payloads === null) yield* run(insertPayloads, { enqueueSeq, payloads });
  if (hasMore !== null) yield* run(insertMore, { enqueueSeq, forgetsKey, replaceUntil, followsSeq, trace });
  yield* noteId(enqueueSeq);
  env.effects.reached("enqueueSeq", enqueueSeq);
  env.effects.tell("queue", queue, "enqueued", batchId);
  yield* announce(columns, queueId, queue, env);
  if (followsSeq !== null) yield* setFollower(followsSeq, enqueueSeq);
  return shownBatch(
    rowOf(columns, { enqueueSeq, batchId, sourceKey, payloads, hasMore, trace }),
    queueText,
    undefined,
    env,
  );
}

/**
 * Puts what was asked for in the place of a batch that waits: all but its batchId and its enqueueSeq is taken over.
 *
 * @param keepsTime whether it is available when it would have been.
 */
export function* replace(
  draft: Draft,
  row: BatchRow & { readonly queue_id: number },
  env: Env,
  keepsTime: boolean,
): Operation<Batch> {
  const { enqueue_seq: enqueueSeq, queue_id: queueId, batch_id: batchId, source_key: sourceKey } = row;
  const { queue } = draft.params;
  const { payloads } = draft;
  const timed = keepsTime
    ? { ...draft, availableAt: row.available_at, availableAtWall: row.available_at_wall }
    : draft;
  const state = keepsTime || row.state === "blocked" ? row.state : draft.state;
  const columns = yield* columnsOf(timed, state, queueId, true, env);
  if (keepsTime) columns.enqueuedAt = row.enqueued_at;
  yield* touchKey(queueId, row.key, env);
  yield* run(deletePayloads, { enqueueSeq });
  if (columns.payloads === null) yield* run(insertPayloads, { enqueueSeq, payloads });
  yield* run(replaceBatch, { ...columns, enqueueSeq });
  const counts = row.state === state ? { ready: 0 } : { [row.state]: -1, [state]: 1 };
  yield* move(queueId, counts, env);
  yield* forgetHeads(queueId, env);
  yield* announce(columns, queueId, queue, env);
  const trace = draft.params.trace === undefined ? null : JSON.stringify(draft.params.trace);
  const hasMore = row.has_more ?? (trace === null ? null : 1);
  if (hasMore !== null) yield* run(replaceMore, { enqueueSeq, trace });
  if (row.has_more === null && hasMore !== null) yield* run(setHasMore, { enqueueSeq });
  env.effects.tell("queue", queue, "updated", batchId);
  return shownBatch(
    rowOf(columns, { enqueueSeq, batchId, sourceKey, payloads, hasMore, trace }),
    JSON.stringify(queue),
    undefined,
    env,
  );
}

function rowOf(
  columns: Columns,
  own: {
    readonly enqueueSeq: number;
    readonly batchId: string;
    readonly sourceKey: string | null;
    readonly payloads: string;
    readonly hasMore: 1 | null;
    readonly trace: string | null;
  },
): Omit<BatchRow, "payload_bytes"> {
  return {
    batch_id: own.batchId,
    enqueue_seq: own.enqueueSeq,
    payloads: own.payloads,
    source_key: own.sourceKey,
    delivery_policy: columns.deliveryPolicy,
    slot_policy: columns.slotPolicy,
    merge_key: columns.mergeKey,
    state: columns.state,
    attempt: 0,
    max_attempts: columns.maxAttempts,
    retry: columns.retry,
    enqueued_at: columns.enqueuedAt,
    available_at: columns.availableAt,
    available_at_wall: columns.availableAtWall,
    last_error: null,
    priority: columns.priority,
    key: columns.key,
    ttl_ms: columns.ttlMs,
    ttl_ends_at: columns.ttlEndsAt,
    has_more: own.hasMore,
    more: own.trace === null ? undefined : { ...NO_MORE, trace: own.trace },
  };
}
