// A batch: its row, and its text in replies.
import type { BatchState, DeliveryPolicy, MergeKey, Result, SlotPolicy } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { shownAt } from "../../clock.js";
import { endOf } from "../../grants/grant.js";
import { Damaged } from "../../json/damaged.js";
import { keptJson, RawJson } from "../../json/raw-json.js";
import { each, type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { placeOfEach, placesOf } from "./ids.js";

/** What a batch takes in a reply beside its payloads and its last error. */
export const BATCH_OVERHEAD_BYTES = 512;

/** Of a batch `b`, without its payloads. */
export const OWN_COLUMNS = `
  b.enqueue_seq, b.state, b.available_at, b.available_at_wall, b.attempt, b.max_attempts, b.retry, b.delivery_policy,
  b.slot_policy, b.merge_key, b.last_error, b.batch_id, b.source_key, b.enqueued_at, b.payload_bytes, b.priority, b.key,
  b.ttl_ms, b.ttl_ends_at, b.has_more`;

export const BATCH_COLUMNS = `${OWN_COLUMNS},
  coalesce(b.payloads, (SELECT p.payloads FROM pawl_batch_payloads p WHERE p.enqueue_seq = b.enqueue_seq)) AS payloads`;

/** How much a batch `b` adds to a reply beside its payloads, in its last error and in what few batches have. */
export const MORE_BYTES = `coalesce(length(b.last_error), 0) + CASE WHEN b.has_more IS NULL THEN 0 ELSE
  (SELECT coalesce(octet_length(m.trace), 0) + coalesce(octet_length(m.progress), 0)
    + coalesce(octet_length(m.checkpoint), 0) + coalesce(octet_length(m.result), 0)
    + 2 * coalesce(octet_length(m.after_ids), 0)
   FROM pawl_batch_more m WHERE m.enqueue_seq = b.enqueue_seq) END AS more_bytes`;

/** The end of a lease `l`, in elapsed time. */
export const LEASE_END = `CASE WHEN l.lost_at IS NOT NULL THEN l.lost_at
  WHEN l.grace_ends_at < l.expires_at THEN l.grace_ends_at ELSE l.expires_at END`;

/** Of the last claim of a batch `b`, with what only its first batch `h` knows. */
export const HOLDER_COLUMNS = `b.claim_seq, b.fencing_token, h.owner, h.pid, h.grace_ends_at,
  coalesce(h.expires_at, CASE WHEN h.has_terms = 1 THEN (SELECT ${LEASE_END}
    FROM pawl_claim_terms t CROSS JOIN pawl_lease l WHERE t.enqueue_seq = h.enqueue_seq
      AND t.fencing_token = h.fencing_token AND l.name = t.lease_name AND l.fencing_token = t.lease_token) END) AS expires_at`;

/** A batch with what it takes to describe it. */
export interface BatchRow {
  enqueue_seq: number;
  state: BatchState;
  /** In elapsed time, also since when it is ready. */
  available_at: number;
  /** See `availableAt`. */
  available_at_wall: number | null;
  attempt: number;
  max_attempts: number;
  /** As JSON; null where that of its queue counts. */
  retry: string | null;
  delivery_policy: DeliveryPolicy;
  slot_policy: SlotPolicy;
  merge_key: string | null;
  last_error: string | null;
  batch_id: string;
  source_key: string | null;
  /** By the wall clock of that moment. */
  enqueued_at: number;
  payload_bytes: number;
  priority: number;
  /** What it is about; null for nothing. */
  key: string | null;
  /** How long it may be available before its first claim; null for ever, and from that claim on. */
  ttl_ms: number | null;
  /** When that is over, in elapsed time; null while it is not available. */
  ttl_ends_at: number | null;
  /** 1 if `pawl_batch_more` has a row of it. */
  has_more: 1 | null;
  payloads: string;
  /** What `pawl_batch_more` has of it, where that was read. */
  more?: ShownMore | undefined;
}

/** What few batches have, as replies show it: JSON each. */
export interface ShownMore {
  trace: string | null;
  progress: string | null;
  checkpoint: string | null;
  result: string | null;
  /** The ids of the batches that it waits for, or has waited for. */
  after_ids: string | null;
  /** A word, no JSON. */
  after_when: string | null;
}

export const NO_MORE: ShownMore = {
  trace: null,
  progress: null,
  checkpoint: null,
  result: null,
  after_ids: null,
  after_when: null,
};

const selectShownMore = sql<ShownMore>(`
  SELECT trace, progress, checkpoint, result, after_ids, after_when FROM pawl_batch_more WHERE enqueue_seq = :seq`);

/** Reads what a batch has that few have, for replies that show it. */
export function* readMore(row: Pick<BatchRow, "enqueue_seq" | "has_more" | "more">): Operation<void> {
  if (row.has_more !== null) row.more = yield* one(selectShownMore, { seq: row.enqueue_seq });
}

/** Reads that of several at once. */
export function* readMoreOf(
  rows: readonly Pick<BatchRow, "enqueue_seq" | "has_more" | "more">[],
): Operation<void> {
  const having = rows.filter(({ has_more: hasMore }) => hasMore !== null);
  const found = yield* each(
    selectShownMore,
    having.map(({ enqueue_seq: seq }) => ({ seq })),
  );
  for (const [index, row] of having.entries()) row.more = found[index];
}

/** Who held a batch last; all null if nobody did. */
export interface HolderRow {
  claim_seq: number | null;
  fencing_token: number | null;
  owner: string | null;
  pid: number | null;
  expires_at: number | null;
  grace_ends_at: number | null;
}

/** The text of one: see `shownBatch`. */
export type Batch = Result<"queue.get">["batch"];

type BatchClaim = NonNullable<Batch["claim"]>;

/** A batch as it is found by its id. */
export type FoundRow = BatchRow & HolderRow & { queue_id: number; queue: string; key_elsewhere: 1 | null };

const selectById = sql<FoundRow>(`
  SELECT ${BATCH_COLUMNS}, b.key_elsewhere, b.queue_id, q.queue, ${HOLDER_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q LEFT JOIN pawl_batch h ON h.enqueue_seq = b.claim_seq
  WHERE b.enqueue_seq = :seq AND b.batch_id = :batchId AND q.queue_id = b.queue_id`);

/** Batches and their holders, in the order of their ids; the first that is not there is `not_found`, and the last. */
export function* byIds(batchIds: readonly string[]): Operation<(FoundRow | PawlError)[]> {
  const places = yield* placeOfEach(batchIds);
  const found = yield* each(
    selectById,
    batchIds.map((batchId, index) => ({ batchId, seq: places[index] ?? 0 })),
  );
  const rows: (FoundRow | PawlError)[] = [];
  for (const [index, batchId] of batchIds.entries()) {
    // Ids may be the same in what their index has of them.
    const row = found[index] ?? (yield* byId(batchId));
    rows.push(row);
    if (row instanceof PawlError) break;
  }
  return rows;
}

/** A batch and its holder, or `not_found`. */
export function* byId(batchId: string): Operation<FoundRow | PawlError> {
  for (const seq of yield* placesOf(batchId)) {
    const row = yield* one(selectById, { seq, batchId });
    if (row !== undefined) return row;
  }
  return refuse(
    "not_found",
    `There is no batch ${shown(batchId)}. What is completed or cancelled is removed some days later.`,
    { what: "batch", batchId },
  );
}

/**
 * A batch as replies show it. Its text is written here, with the payloads as they came: as an object for
 * `JSON.stringify` it would cost three times as much, which is a tenth of what a claim costs.
 *
 * @param queueText the name of its queue as JSON, made once for all batches of a reply.
 * @param claim who holds it, perhaps as text.
 */
export function shownBatch(
  row: Omit<BatchRow, "payload_bytes">,
  queueText: string,
  claim: BatchClaim | RawJson | undefined,
  env: Env,
): Batch {
  const { merge_key: kept, source_key: sourceKey, last_error: lastError } = row;
  const { more } = row;
  const text = `{"batchId":"${row.batch_id}","queue":${queueText},"enqueueSeq":${row.enqueue_seq},"payloads":${row.payloads},"priority":${row.priority},"key":${
    row.key === null ? "null" : JSON.stringify(row.key)
  },"sourceKey":${
    sourceKey === null ? "null" : JSON.stringify(sourceKey)
  },"deliveryPolicy":"${row.delivery_policy}","slotPolicy":"${row.slot_policy}","mergeKey":${
    kept === null ? '"never"' : JSON.stringify(shownMergeKey(kept))
  },"state":"${row.state}","attempt":${row.attempt},"maxAttempts":${row.max_attempts},"retry":${row.retry},"enqueuedAt":${row.enqueued_at},"availableAt":${availableAt(row, env)}${
    row.ttl_ms === null && row.ttl_ends_at === null ? "" : expiryText(row, env)
  }${more === undefined ? "" : waitingText(more)}${
    claim === undefined ? "" : `,"claim":${claim instanceof RawJson ? claim.text : JSON.stringify(claim)}`
  }${more === undefined ? "" : doneText(more)}${lastError === null ? "" : `,"lastError":${JSON.stringify(lastError)}`}}`;
  return new RawJson(text) as unknown as Batch;
}

/** When a batch expires that nobody claims, as far as that is known: not of one that is blocked, or has ended. */
function expiryText(row: Omit<BatchRow, "payload_bytes">, env: Env): string {
  const { state, ttl_ms: ttlMs, ttl_ends_at: endsAt } = row;
  const isKnown = endsAt !== null || (state === "scheduled" && ttlMs !== null);
  if (!isKnown) return "";
  const expiresAt = endsAt === null ? availableAt(row, env) + (ttlMs as number) : shownAt(endsAt, env);
  return `,"expiresAt":${expiresAt},"remainingMs":${Math.max(0, expiresAt - env.wallMs)}`;
}

function waitingText({ after_ids: after, after_when: when, trace }: ShownMore): string {
  return `${after === null ? "" : `,"after":${after},"when":"${when}"`}${trace === null ? "" : `,"trace":${trace}`}`;
}

function doneText({ progress, checkpoint, result }: ShownMore): string {
  return `${progress === null ? "" : `,"progress":${progress}`}${
    checkpoint === null ? "" : `,"checkpoint":${checkpoint}`
  }${result === null ? "" : `,"result":${result}`}`;
}

/**
 * Throws `Damaged` for a batch as it is kept whose text would be no JSON, as after a bit of the database has flipped:
 * then its reply is an error, and those that travel with it are not damaged.
 */
export function checkKept(row: Omit<BatchRow, "payload_bytes">): void {
  const what = `The batch with enqueueSeq ${row.enqueue_seq}`;
  keptJson(row.payloads, what);
  if (row.retry !== null) keptJson(row.retry, what);
  if (row.more !== undefined) {
    const { trace, progress, checkpoint, result, after_ids } = row.more;
    for (const kept of [trace, progress, checkpoint, result, after_ids])
      if (kept !== null) keptJson(kept, what);
  }
  const isRight =
    BATCH_ID.test(row.batch_id) &&
    WORD.test(row.delivery_policy) &&
    WORD.test(row.slot_policy) &&
    WORD.test(row.state) &&
    Number.isFinite(row.attempt) &&
    Number.isFinite(row.max_attempts) &&
    Number.isFinite(row.enqueued_at) &&
    Number.isFinite(row.available_at) &&
    Number.isFinite(row.available_at_wall ?? 0) &&
    Number.isFinite(row.priority) &&
    Number.isFinite(row.ttl_ends_at ?? 0);
  if (!isRight) throw new Damaged(what, "its id, a word or a number of it is none");
}

const BATCH_ID = /^qwb:[0-9a-f]{64}$/;
const WORD = /^[a-z_]+$/;

/**
 * When a batch can be claimed, or could be first, by the wall clock: a time that was named, and that of a moment which
 * has come, as they were; the end of a delay by the clock as it is now.
 */
export function availableAt(
  row: Pick<BatchRow, "state" | "available_at" | "available_at_wall" | "enqueued_at">,
  env: Env,
): number {
  if (row.available_at_wall !== null) return row.available_at_wall;
  return row.state === "scheduled" || row.state === "blocked"
    ? shownAt(row.available_at, env)
    : row.enqueued_at;
}

/** A batch remembers its last claim after that has ended. */
export function claimOf(row: BatchRow & HolderRow, env: Env): BatchClaim | undefined {
  const { state, claim_seq: head, fencing_token: fencingToken, owner, expires_at: expires } = row;
  if (state !== "claimed" || head === null || fencingToken === null || owner === null || expires === null) {
    return undefined;
  }
  const remainingMs = Math.max(0, endOf(expires, row.grace_ends_at) - env.now);
  const expiresAt = env.wallMs + remainingMs;
  return { owner, claimId: claimIdOf(head, fencingToken), fencingToken, expiresAt, remainingMs };
}

export function claimIdOf(head: number, fencingToken: number): string {
  return `qwc:${head}:${fencingToken}`;
}

export function keptMergeKey(mergeKey: MergeKey): string | null {
  if (mergeKey === "never") return null;
  return mergeKey === "payload_default" ? "" : mergeKey.group;
}

export function shownMergeKey(kept: string | null): MergeKey {
  if (kept === null) return "never";
  return kept === "" ? "payload_default" : { group: kept };
}

/** What those who wait for the end of a batch are parked under. */
export function finishedKey(seq: number): string {
  return `batch:${seq}`;
}

/** Whether a batch has ended: only `queue.retry` brings it back. */
export function isFinal(state: BatchState): boolean {
  return FINAL.has(state);
}

const FINAL: ReadonlySet<BatchState> = new Set(["completed", "dead", "cancelled", "expired"]);

/** What those who wait for room in a queue are parked under. */
export function roomKey(queue: string): string {
  return `room:${queue}`;
}

const selectQueueOf = sql<{ queue: string }>(`
  SELECT q.queue FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.enqueue_seq = :seq AND b.batch_id = :batchId AND q.queue_id = b.queue_id`);

/** The queue of a batch; undefined for an id of none. */
export function* queueOfBatch(batchId: string): Operation<string | undefined> {
  for (const seq of yield* placesOf(batchId)) {
    const found = yield* one(selectQueueOf, { seq, batchId });
    if (found !== undefined) return found.queue;
  }
  return undefined;
}

/** The scope of what uses the rows of a queue and of its batches. */
export function scopeOf(queue: string): string {
  return `${SCOPE}${queue}`;
}

/** The queue of such a scope; undefined for one of another noun. */
export function queueOfScope(scope: string): string | undefined {
  return scope.startsWith(SCOPE) ? scope.slice(SCOPE.length) : undefined;
}

const SCOPE = "queue:";

/** What those who wait for a queue are parked under. */
export function waitKey(queue: string): string {
  return `${WAIT}${queue}`;
}

const WAIT = "queue:";

/** The key under which calls wait for certain batches of a queue to be ready, or not to be held up by its limits. */
export function namedKey(queue: string): string {
  return `named:${queue}`;
}

/** A queue may hand out batches that it did not hand out: wakes all who wait for any of them. */
export function wakeQueue(queue: string, { effects }: Pick<Env, "effects">): void {
  effects.wake(waitKey(queue));
  effects.wake(namedKey(queue));
}

/**
 * True of a call that has just come, and may wait, if others wait for the same whom no turn had time for: those are
 * served first, and it is served behind them.
 */
export function waitsBehindOthers(
  key: string,
  { isLeft, effects }: Pick<Env, "isLeft" | "effects">,
): boolean {
  if (!isLeft(key)) return false;
  // With this one, however it differs from them.
  effects.wake(key);
  return true;
}

/** The queue that is waited for under such a key. */
export function queueOfWaitKey(key: string): string {
  return key.slice(WAIT.length);
}
