// A batch as it is asked for: checked, compared by its content, added, or put in the place of one that waits.
import type { BatchState, Parsed, Retry } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { DEFAULT_BATCH_ATTEMPTS, MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";
import { digestOfMeaning, PLAIN_CHARACTERS } from "../../json/digest.js";
import { nestingLevels } from "../../json/raw-json.js";
import { insert, NEW_KEY, type Operation, run, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { type After, delayAfterOthers, dropAfter, isBlocked, keepAfter } from "./flows.js";
import { isFollowing, setFollower } from "./followers.js";
import { enterIds, isStep, newId } from "./ids.js";
import { addTo, forgetHeads, move, settingsOfQueue, touchKey } from "./queue-row.js";
import {
  type Batch,
  type BatchRow,
  byId,
  type FoundRow,
  keptMergeKey,
  NO_MORE,
  namedKey,
  readMore,
  shownBatch,
  shownMergeKey,
  waitKey,
} from "./row.js";
import { NO_SETTINGS, type Settings } from "./settings.js";
import { expire } from "./ttl.js";

/** Payloads up to this size are kept in the row of their batch, which every change of its state writes anew. */
const MAX_INLINE_PAYLOAD_BYTES = 1024;

/** How much of a payload a refusal shows. */
const MAX_SHOWN_CONTENT_CHARACTERS = 200;

export const insertBatch = sql(
  `INSERT INTO pawl_batch (queue_id, state, available_at, available_at_wall, attempt, max_attempts, retry, delivery_policy,
    slot_policy, merge_key, batch_key, batch_id, source_key, content_digest, enqueued_at, payload_bytes, payloads,
    priority, key, in_line, ttl_ms, ttl_ends_at, key_elsewhere, has_more)
  VALUES (:queue_id, :state, :available_at, :available_at_wall, 0, :max_attempts, :retry, :delivery_policy,
    :slot_policy, :merge_key, :batch_key, :batch_id, :source_key, :content_digest, :enqueued_at, :payload_bytes,
    :inline_payloads, :priority, :key, :in_line, :ttl_ms, :ttl_ends_at, :key_elsewhere, :has_more)`,
  { writes: NEW_KEY },
);

const insertPayloads = sql(
  "INSERT INTO pawl_batch_payloads (enqueue_seq, payloads) VALUES (:enqueueSeq, :payloads)",
  { writes: "enqueueSeq" },
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
  UPDATE pawl_batch SET state = :state, available_at = :available_at, available_at_wall = :available_at_wall,
    attempt = 0, max_attempts = :max_attempts, retry = :retry, delivery_policy = :delivery_policy,
    slot_policy = :slot_policy, merge_key = :merge_key, content_digest = :content_digest, enqueued_at = :enqueued_at,
    payload_bytes = :payload_bytes, payloads = :inline_payloads, priority = :priority, key = :key, in_line = :in_line,
    ttl_ms = :ttl_ms, ttl_ends_at = :ttl_ends_at, last_error = NULL, lost_before = NULL, claim_seq = NULL,
    fencing_token = NULL
  WHERE enqueue_seq = :enqueue_seq`);

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
  /** The batches that it waits for, once they are found. */
  readonly after?: After | undefined;
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

/**
 * Before the digest of what was given. Batches of before have one that was made otherwise, and those of before that one
 * of what was given or filled in.
 */
const MEANT = "meant ";
const GIVEN = "given ";

/** Of all that makes two batches of one key the same, which does not include when they are to be delivered. */
export function digestOf(params: Enqueued, payloads: string, after?: After): string {
  return MEANT + digestOfMeaning(meaningOf(params, payloads, after), PLAIN_CHARACTERS);
}

function meaningOf(params: Enqueued, payloads: string, after: After | undefined): string {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = null, retry = null } = params;
  const { priority, key, ttlMs } = params;
  const rest: unknown[] = [deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry];
  // Entries of before know nothing of these, and are compared with batches that are given none of them.
  if (priority !== 0 || key !== undefined || ttlMs !== undefined) rest.push({ priority, key, ttlMs });
  if (after !== undefined)
    rest.push({ after: after.batches.map(({ batchId }) => batchId), when: params.when });
  return `[${payloads},${JSON.stringify(rest)}]`;
}

export function hasContent({ content_digest: digest }: { content_digest: string }, draft: Draft): boolean {
  if (digest.startsWith(MEANT)) return digest === draft.contentDigest;
  if (digest.startsWith(GIVEN)) {
    return digest === GIVEN + digestOfMeaning(meaningOf(draft.params, draft.payloads, draft.after));
  }
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts = DEFAULT_BATCH_ATTEMPTS, retry } = draft.params;
  const { priority, key, ttlMs } = draft.params;
  const rest = JSON.stringify([deliveryPolicy, slotPolicy, mergeKey, maxAttempts]);
  const hasMore =
    retry !== undefined ||
    priority !== 0 ||
    key !== undefined ||
    ttlMs !== undefined ||
    draft.after !== undefined;
  return !hasMore && digest === digestOfMeaning(`[${draft.payloads},${rest}]`);
}

/** The draft, with the batches that it waits for. */
export function waitingFor(draft: Draft, after: After): Draft {
  const { params, payloads } = draft;
  const contentDigest = params.sourceKey === undefined ? null : digestOf(params, payloads, after);
  return { ...draft, after, contentDigest };
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
      now: content(draft.params, draft.payloads, draft.after),
      ...(index === undefined ? {} : { index }),
    },
  );
}

type Content = Partial<Omit<Enqueued, "queue" | "payloads">>;

function content(params: Content, payloads: string, after?: After): object {
  const { deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry, priority, key, ttlMs } = params;
  const cut = payloads.length > MAX_SHOWN_CONTENT_CHARACTERS;
  const text = cut ? `${payloads.slice(0, MAX_SHOWN_CONTENT_CHARACTERS - 3)}...` : payloads;
  return {
    payloads: text,
    priority,
    key,
    deliveryPolicy,
    slotPolicy,
    mergeKey,
    ttlMs,
    maxAttempts,
    retry,
    ...(after === undefined ? {} : { after: after.batches.map(({ batchId }) => batchId), when: after.when }),
  };
}

/** The row of a batch as it is written. Its enqueueSeq is 0 until it is added. */
type NewRow = Omit<BatchRow, "more"> & {
  readonly queue_id: number;
  readonly batch_key: number;
  readonly content_digest: string | null;
  /** Null for payloads that are kept elsewhere. */
  readonly inline_payloads: string | null;
  readonly in_line: 1 | null;
  readonly key_elsewhere: 1 | null;
};

/** What a batch has that its draft does not say. */
interface Own {
  readonly enqueueSeq: number;
  readonly queueId: number;
  readonly batchId: string;
  readonly batchKey: number;
  readonly sourceKey: string | null;
  readonly state: BatchState;
  readonly settings: Settings;
  readonly follows: boolean;
  readonly hasMore: 1 | null;
}

/** One object is what is written and what is shown: to copy it takes as long as the statement. */
function rowOf(draft: Draft, own: Own, env: Env): NewRow {
  const { params, payloads, availableAt } = draft;
  const { state, settings } = own;
  const { key = null } = params;
  const ttlMs = params.ttlMs ?? settings.ttlMs ?? null;
  const payloadBytes = Buffer.byteLength(payloads);
  return {
    enqueue_seq: own.enqueueSeq,
    queue_id: own.queueId,
    state,
    available_at: availableAt,
    available_at_wall: draft.availableAtWall,
    attempt: 0,
    max_attempts: params.maxAttempts ?? settings.maxAttempts ?? DEFAULT_BATCH_ATTEMPTS,
    retry: params.retry === undefined ? null : JSON.stringify(params.retry),
    delivery_policy: params.deliveryPolicy,
    slot_policy: params.slotPolicy,
    merge_key: draft.mergeKey,
    last_error: null,
    batch_key: own.batchKey,
    batch_id: own.batchId,
    source_key: own.sourceKey,
    content_digest: draft.contentDigest,
    enqueued_at: env.wallMs,
    payload_bytes: payloadBytes,
    payloads,
    inline_payloads: payloadBytes <= MAX_INLINE_PAYLOAD_BYTES ? payloads : null,
    priority: params.priority,
    key,
    in_line: key === null ? null : 1,
    ttl_ms: ttlMs,
    ttl_ends_at: ttlMs !== null && state === "ready" ? availableAt + ttlMs : null,
    key_elsewhere: own.follows ? 1 : null,
    has_more: own.hasMore,
  };
}

/** The effects of a batch that has come, or come anew. */
function announce(row: NewRow, queue: string, env: Env): void {
  if (row.ttl_ends_at !== null) env.effects.deadline(row.ttl_ends_at);
  if (row.state === "ready") env.effects.wake(waitKey(queue));
  else if (row.state === "blocked") return;
  else if (row.available_at_wall === null) env.effects.deadline(row.available_at);
  else env.effects.wallDeadline(row.available_at_wall);
}

/** @param trace as JSON; null for none. */
function shownNew(
  row: NewRow,
  queueText: string,
  trace: string | null,
  after: After | undefined,
  env: Env,
): Batch {
  if (trace === null && after === undefined) return shownBatch(row, queueText, undefined, env);
  const ids = after === undefined ? null : JSON.stringify(after.batches.map(({ batchId }) => batchId));
  const more = { ...NO_MORE, trace, after_ids: ids, after_when: after?.when ?? null };
  return shownBatch({ ...row, more }, queueText, undefined, env);
}

/** Keeps what a batch waits for, and shows it as it is then: it may have been cancelled at once. */
function* shownWaiting(
  row: NewRow,
  { after }: Draft,
  delayMs: number | undefined,
  queueText: string,
  trace: string | null,
  env: Env,
): Operation<Batch> {
  if (after !== undefined && (yield* keepAfter(row.enqueue_seq, after, delayMs, env))) {
    return yield* shownAsKept(row, queueText, env);
  }
  return shownNew(row, queueText, trace, after, env);
}

/** A batch that has ended at once, as it is then. */
function* shownAsKept({ batch_id: batchId }: NewRow, queueText: string, env: Env): Operation<Batch> {
  const row = (yield* byId(batchId)) as FoundRow;
  yield* readMore(row);
  return shownBatch(row, queueText, undefined, env);
}

/**
 * Adds a batch behind all others.
 *
 * @param followsSeq the batch with the same sourceKey whose end it waits for.
 */
export function* add(draft: Draft, env: Env, followsSeq: number | null = null): Operation<Batch> {
  const { params, payloads } = draft;
  const { queue } = params;
  const sourceKey = params.sourceKey ?? null;
  const queueText = JSON.stringify(queue);
  const { batchId, batchKey } = newId(queueText, sourceKey, env);
  const follows = followsSeq !== null;
  const { after } = draft;
  const state = follows || (after !== undefined && isBlocked(after)) ? "blocked" : draft.state;
  const { queue_id: queueId, settings: set } = yield* addTo(queue, state, params.priority, env);
  const settings = set === null ? NO_SETTINGS : yield* settingsOfQueue(queueId, env);
  const forgetsKey = params.uniqueFor === "unfinished" ? 1 : null;
  const replaceUntil = params.maxDelayMs === undefined ? null : env.now + params.maxDelayMs;
  const trace = params.trace === undefined ? null : JSON.stringify(params.trace);
  const isMarked = forgetsKey !== null || replaceUntil !== null || follows || trace !== null;
  const own = {
    enqueueSeq: 0,
    queueId,
    batchId,
    batchKey,
    sourceKey,
    state,
    settings,
    follows,
    hasMore: isMarked || after !== undefined ? 1 : null,
  } as const;
  const row = rowOf(draft, own, env);
  const enqueueSeq = yield* insert(insertBatch, row);
  row.enqueue_seq = enqueueSeq;
  if (row.inline_payloads === null) yield* write(insertPayloads, { enqueueSeq, payloads });
  if (isMarked) yield* write(insertMore, { enqueueSeq, forgetsKey, replaceUntil, followsSeq, trace });
  if (isStep(enqueueSeq, env)) yield* enterIds(enqueueSeq);
  env.effects.reached("enqueueSeq", enqueueSeq);
  env.effects.tell("queue", queue, "enqueued", batchId);
  if (row.key !== null) yield* touchKey(queueId, row.key, env);
  announce(row, queue, env);
  if (followsSeq !== null) yield* setFollower(followsSeq, enqueueSeq);
  return yield* shownWaiting(row, draft, params.delayMs, queueText, trace, env);
}

/**
 * Puts what was asked for in the place of a batch that waits: all but its batchId and its enqueueSeq is taken over.
 *
 * @param keepsTime whether it is available when it would have been.
 */
export function* replace(
  draft: Draft,
  before: BatchRow & { readonly queue_id: number },
  env: Env,
  keepsTime: boolean,
): Operation<Batch> {
  const { enqueue_seq: enqueueSeq, queue_id: queueId, batch_id: batchId, source_key: sourceKey } = before;
  const { params, payloads } = draft;
  const hadAfter = before.has_more === null ? undefined : yield* delayAfterOthers(enqueueSeq);
  if (hadAfter !== undefined) yield* dropAfter(enqueueSeq, before.state);
  const wasBlocked = before.state === "blocked";
  const isFollower = wasBlocked && (hadAfter === undefined || (yield* isFollowing(enqueueSeq)));
  const isWaiting = isFollower || (draft.after !== undefined && isBlocked(draft.after));
  const isDelayed = before.available_at > env.now || (before.available_at_wall ?? 0) > env.wallMs;
  const timed = keepsTime
    ? wasBlocked && !isWaiting && !isDelayed
      ? // It is available from now on.
        { ...draft, availableAt: env.now, availableAtWall: env.wallMs }
      : { ...draft, availableAt: before.available_at, availableAtWall: before.available_at_wall }
    : draft;
  const keptState = wasBlocked ? (isDelayed ? "scheduled" : "ready") : before.state;
  const state: BatchState = isWaiting ? "blocked" : keepsTime ? keptState : draft.state;
  const settings = yield* settingsOfQueue(queueId, env);
  const trace = params.trace === undefined ? null : JSON.stringify(params.trace);
  const hasMore = before.has_more ?? (trace === null && draft.after === undefined ? null : 1);
  // Its id stays as it is entered.
  const own = {
    enqueueSeq,
    queueId,
    batchId,
    batchKey: 0,
    sourceKey,
    state,
    settings,
    follows: false,
    hasMore,
  };
  const row = rowOf(timed, own, env);
  if (keepsTime) row.enqueued_at = before.enqueued_at;
  if (before.key !== null) yield* touchKey(queueId, before.key, env);
  yield* run(deletePayloads, { enqueueSeq });
  if (row.inline_payloads === null) yield* write(insertPayloads, { enqueueSeq, payloads });
  yield* run(replaceBatch, row);
  const counts = before.state === state ? { ready: 0 } : { [before.state]: -1, [state]: 1 };
  yield* move(queueId, counts, env);
  yield* forgetHeads(queueId, env);
  if (row.key !== null) yield* touchKey(queueId, row.key, env);
  announce(row, params.queue, env);
  // Whoever waits for it by its id may have it at another boundary than before.
  if (row.delivery_policy !== before.delivery_policy) env.effects.wake(namedKey(params.queue));
  if (hasMore !== null) yield* run(replaceMore, { enqueueSeq, trace });
  if (before.has_more === null && hasMore !== null) yield* run(setHasMore, { enqueueSeq });
  env.effects.tell("queue", params.queue, "updated", batchId);
  const leftMs = before.available_at_wall === null ? Math.max(before.available_at - env.now, 0) : 0;
  const keptDelayMs = wasBlocked && hadAfter !== undefined ? hadAfter.delayMs : leftMs;
  const delayMs = keepsTime ? keptDelayMs : params.delayMs;
  const shown = yield* shownWaiting(row, draft, delayMs, JSON.stringify(params.queue), trace, env);
  if (row.ttl_ends_at === null || row.ttl_ends_at > env.now) return shown;
  // It keeps its time, since when its new ttl is over.
  yield* expire(row, env);
  return yield* shownAsKept(row, JSON.stringify(params.queue), env);
}
