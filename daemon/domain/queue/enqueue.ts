// Enqueue: a batch is added, or found by its sourceKey; what becomes of one that is there, its caller says.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { MAX_BATCH_PAYLOADS, MAX_KNOWN_BATCHES_LENGTH, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { type RawJson, written } from "../../json/raw-json.js";
import { type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { AwaitedBatches, circleOf, orderOf } from "./after.js";
import { add, conflict, type Draft, digestOf, draftOf, hasContent, replace } from "./new-batch.js";
import { findQueue, isKnownPlain, settingsOfQueue } from "./queue-row.js";
import { removeOutdated } from "./retention.js";
import {
  BATCH_COLUMNS,
  type Batch,
  type BatchRow,
  checkKept,
  claimOf,
  HOLDER_COLUMNS,
  type HolderRow,
  isFinal,
  readMore,
  roomKey,
  shownBatch,
  waitsBehindOthers,
} from "./row.js";

const KNOWN_COLUMNS = `${BATCH_COLUMNS}, b.queue_id, b.content_digest, b.finished_at, ${HOLDER_COLUMNS}`;

const selectBySourceKey = sql<KnownRow>(`
  SELECT ${KNOWN_COLUMNS}
  FROM pawl_queue q CROSS JOIN pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE q.queue = :queue AND b.queue_id = q.queue_id AND b.source_key = :sourceKey AND b.key_elsewhere IS NULL`);

const selectFollower = sql<KnownRow>(`
  SELECT ${KNOWN_COLUMNS}
  FROM pawl_batch b LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq WHERE b.enqueue_seq = :seq`);

const selectMore = sql<MoreRow>(
  "SELECT forgets_key, replace_until, follower_seq, awaited FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

/** Its sourceKey is another batch's from now on. */
const giveKeyUp = sql("UPDATE pawl_batch SET key_elsewhere = 1 WHERE enqueue_seq = :seq");

const setReplaceUntil = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, replace_until) VALUES (:seq, :until)
  ON CONFLICT (enqueue_seq) DO UPDATE SET replace_until = excluded.replace_until`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :seq");

/** A batch that has a sourceKey. */
type KnownRow = BatchRow &
  HolderRow & { queue_id: number; content_digest: string; finished_at: number | null };

interface MoreRow {
  forgets_key: 1 | null;
  replace_until: number | null;
  follower_seq: number | null;
  /** How many batches wait for it. */
  awaited: number | null;
}

type Enqueue = Result<"queue.enqueue">;

/** Says that a queue has no room. */
class Full {
  readonly refusal: PawlError;

  constructor(refusal: PawlError) {
    this.refusal = refusal;
  }
}

export function* enqueue(
  params: Parsed<"queue.enqueue">,
  env: Env,
  texts: Texts,
): Operation<Outcome<Result<"queue.enqueue">>> {
  const asked = draftOf(params, texts[0] as string, env, "/payloads");
  if (asked instanceof PawlError) return asked;
  const draft = params.after === undefined ? asked : yield* new AwaitedBatches().of(asked);
  if (draft instanceof PawlError) return draft;
  const done = yield* enqueueOne(draft, env);
  if (done instanceof PawlError) return done;
  if (!(done instanceof Full)) return answerOf(done);
  return env.mayWait ? new Wait(roomKey(params.queue)) : done.refusal;
}

function answerOf(done: Enqueue): Enqueue {
  return written(
    done,
    `{"batch":${textOf(done.batch)},"created":${done.created},"outcome":"${done.outcome}"}`,
  );
}

/** One after the other. The first that is refused undoes those before it, as in a `transact`. */
export function* enqueueMany(
  params: Parsed<"queue.enqueueMany">,
  env: Env,
  texts: Texts,
): Operation<Result<"queue.enqueueMany"> | PawlError> {
  const drafts: Draft[] = [];
  for (const [index, each] of params.batches.entries()) {
    const draft = draftOf(each, texts[index] as string, env, `/batches/${index}/payloads`);
    if (draft instanceof PawlError) return draft;
    drafts.push(draft);
  }
  const order = orderOf(params.batches);
  if (order instanceof PawlError) return order;
  const awaited = new AwaitedBatches();
  const result: Result<"queue.enqueueMany"> = { batches: [], created: [], outcomes: [] };
  let knownLength = 0;
  for (const index of order) {
    const { after, ref } = params.batches[index] as (typeof params.batches)[number];
    const asked = drafts[index] as Draft;
    const draft = after === undefined ? asked : yield* awaited.of(asked, index);
    if (draft instanceof PawlError) return draft;
    const done = yield* enqueueOne(draft, env, index);
    if (done instanceof PawlError) return withEarlier(done, drafts, index);
    if (done instanceof Full) return done.refusal;
    if (asked.params.sourceKey !== undefined) awaited.haveChanged();
    if (!done.created) {
      knownLength += Math.max(0, textOf(done.batch).length - draft.payloads.length);
      if (knownLength > MAX_KNOWN_BATCHES_LENGTH) return knownTooLong(draft, index);
    }
    if (ref !== undefined) awaited.name(ref, ...placeOf(done.batch));
    result.batches[index] = done.batch;
    result.created[index] = done.created;
    result.outcomes[index] = done.outcome;
  }
  return result;
}

/** The refusal of what would be answered with far more than was sent. */
function knownTooLong({ params }: Draft, index: number): PawlError {
  const path = `/batches/${index}`;
  const message = `names by its sourceKey ${shown(params.sourceKey)} a batch that is there already, and with it those of this call are more than ${MAX_KNOWN_BATCHES_LENGTH} characters longer than what was sent`;
  return refuse(
    "invalid_params",
    `queue.enqueueMany: ${path} ${message}. Enqueue fewer of such batches at once. None was enqueued.`,
    { issues: [{ path, message }] },
  );
}

function textOf(batch: Batch): string {
  return (batch as unknown as RawJson).text;
}

const ENQUEUE_SEQ = '"enqueueSeq":';

/** The id of a batch as it is shown, and its enqueueSeq: the first members of its text, but for the queue. */
function placeOf(batch: Batch): [batchId: string, seq: number] {
  const text = textOf(batch);
  const batchId = text.slice('{"batchId":"'.length, text.indexOf('",'));
  return [batchId, Number.parseInt(text.slice(text.indexOf(ENQUEUE_SEQ) + ENQUEUE_SEQ.length), 10)];
}

/** A conflict with an earlier one of the same call names its index, since its batch is undone. */
function withEarlier(refusal: PawlError, drafts: readonly Draft[], index: number): PawlError {
  const { queue, sourceKey } = (drafts[index] as Draft).params;
  const earlier = drafts.findIndex(({ params }) => params.queue === queue && params.sourceKey === sourceKey);
  const { first } = refusal.details as { first?: { batchId?: string } };
  if (refusal.kind !== "conflict" || earlier >= index || first === undefined) return refusal;
  const { batchId: _, ...rest } = first;
  return refuse("conflict", refusal.message, { ...refusal.details, first: { index: earlier, ...rest } });
}

function* enqueueOne(draft: Draft, env: Env, index?: number): Operation<Enqueue | PawlError | Full> {
  const { queue, sourceKey, onExisting } = draft.params;
  const known = sourceKey === undefined ? undefined : yield* one(selectBySourceKey, { queue, sourceKey });
  if (known === undefined) return yield* create(draft, env);
  const { enqueue_seq: seq } = known;
  const isOutdated = known.finished_at !== null && known.finished_at + env.retentionMs <= env.retentionNow;
  const more = known.has_more === null ? undefined : yield* one(selectMore, { seq });
  const changes = onExisting !== "refuse" && onExisting !== "return";
  if (isOutdated || (isFinal(known.state) && (changes || more?.forgets_key === 1))) {
    const full = yield* noRoom(queue, env);
    if (full !== undefined) return full;
    const isAwaited = (more?.awaited ?? 0) > 0 || draft.after?.batches.some((each) => each.seq === seq);
    if (isOutdated && !isAwaited) yield* removeOutdated([seq], env);
    else yield* run(giveKeyUp, { seq });
    return yield* create(draft, env);
  }
  if (!changes) {
    if (onExisting === "refuse" && !hasContent(known, draft)) return conflict(draft, known, index);
    yield* readMore(known);
    checkKept(known);
    const batch = shownBatch(known, JSON.stringify(queue), claimOf(known, env), env);
    return { batch, created: false, outcome: "existing" };
  }
  if (known.state === "claimed" || onExisting === "rerun") return yield* follow(draft, known, more, env);
  const batch = yield* change(draft, known, more, env);
  return batch instanceof PawlError ? batch : { batch, created: false, outcome: OUTCOMES[onExisting] };
}

const OUTCOMES = { replace: "replaced", keepTime: "kept", append: "appended" } as const;

function* create(draft: Draft, env: Env): Operation<Enqueue | Full> {
  const { queue } = draft.params;
  const full = isKnownPlain(queue, env) ? undefined : yield* noRoom(queue, env);
  if (full !== undefined) return full;
  return { batch: yield* add(draft, env), created: true, outcome: "created" };
}

/** Of a batch that goes on, one follower waits for its end. */
function* follow(
  draft: Draft,
  known: KnownRow,
  more: MoreRow | undefined,
  env: Env,
): Operation<Enqueue | PawlError | Full> {
  const seq = more?.follower_seq ?? null;
  if (seq === null) {
    const full = yield* noRoom(draft.params.queue, env);
    if (full !== undefined) return full;
    const batch = yield* add(draft, env, known.enqueue_seq);
    return { batch, created: true, outcome: "follower" };
  }
  const follower = (yield* one(selectFollower, { seq })) as KnownRow;
  const batch = yield* change(draft, follower, yield* one(selectMore, { seq }), env);
  return batch instanceof PawlError ? batch : { batch, created: false, outcome: "follower" };
}

/** Has a batch that waits take over what was asked for. */
function* change(
  draft: Draft,
  row: KnownRow,
  more: MoreRow | undefined,
  env: Env,
): Operation<Batch | PawlError> {
  const { onExisting, maxDelayMs } = draft.params;
  const circle = draft.after === undefined ? undefined : yield* circleOf(row.enqueue_seq, draft.after);
  if (circle !== undefined) return circle;
  if (onExisting === "keepTime") return yield* replace(draft, row, env, true);
  if (onExisting === "append") {
    const appended = appendedTo(draft, row);
    return appended instanceof PawlError ? appended : yield* replace(appended, row, env, true);
  }
  const until = more?.replace_until ?? (maxDelayMs === undefined ? null : env.now + maxDelayMs);
  if (until === null) return yield* replace(draft, row, env, false);
  if (until !== more?.replace_until) {
    const { enqueue_seq: seq } = row;
    yield* run(setReplaceUntil, { seq, until });
    yield* run(setHasMore, { seq });
    row.has_more = 1;
  }
  return yield* replace(noLaterThan(until, draft, env), row, env, false);
}

/** The draft, available at the latest at a moment of elapsed time. */
function noLaterThan(until: number, draft: Draft, env: Env): Draft {
  const untilWall = env.wallMs + until - env.now;
  const isLate = draft.availableAtWall !== null && draft.availableAtWall > untilWall;
  const availableAt = isLate
    ? Math.max(until, env.now)
    : Math.min(draft.availableAt, Math.max(until, env.now));
  const availableAtWall = isLate ? null : draft.availableAtWall;
  const state = availableAt > env.now || availableAtWall !== null ? "scheduled" : "ready";
  return { ...draft, availableAt, availableAtWall, state };
}

/** The draft with the payloads of a batch before its own. */
function appendedTo(draft: Draft, row: KnownRow): Draft | PawlError {
  const { params } = draft;
  const before = JSON.parse(row.payloads) as unknown[];
  const count = before.length + params.payloads.length;
  const payloads = `${row.payloads.trimEnd().slice(0, -1)},${draft.payloads.trimStart().slice(1)}`;
  if (count > MAX_BATCH_PAYLOADS || Buffer.byteLength(payloads) > MAX_PAGE_BYTES) {
    return refuse(
      "exhausted",
      `The batch ${row.batch_id} has ${before.length} payload${before.length === 1 ? "" : "s"}, to which no ${params.payloads.length} more can be appended: it takes ${MAX_BATCH_PAYLOADS} of ${MAX_PAGE_BYTES} bytes in all. Use another sourceKey.`,
      { batchId: row.batch_id, payloads: before.length, most: MAX_BATCH_PAYLOADS, mostBytes: MAX_PAGE_BYTES },
    );
  }
  return { ...draft, payloads, contentDigest: digestOf(params, payloads, draft.after) };
}

/** Says that a queue is configured to have no more batches wait. */
function* noRoom(queue: string, env: Env): Operation<Full | undefined> {
  const row = yield* findQueue(queue, env);
  if (row === undefined || row.settings === null) return undefined;
  const { maxWaiting } = yield* settingsOfQueue(row.queue_id, env);
  const waiting = row.ready + row.scheduled + row.blocked;
  if (maxWaiting === undefined) return undefined;
  const isBehind = env.mayWait && env.woken === null && waitsBehindOthers(roomKey(queue), env);
  if (waiting < maxWaiting && !isBehind) return undefined;
  return new Full(
    refuse(
      "exhausted",
      `The queue ${shown(queue)} has ${waiting} ${waiting === 1 ? "batch that waits" : "batches that wait"}, and may have ${maxWaiting}. Try again once some are claimed, or wait for it with waitMs.`,
      { queue, waiting, maxWaiting, retryable: true },
    ),
  );
}
