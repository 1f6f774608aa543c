// Claim of a queue: its head, alone or with those that join it, is given to a worker for a while.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS, MAX_INTEGER, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { RawJson, written } from "../../json/raw-json.js";
import { all, type Operation, one, sql, write } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { type Candidate, mayBeJoined, selectBatches } from "./claim-selection.js";
import { keepUnder, remainingUnder } from "./claims-under-lease.js";
import { IN_LINE_LANES } from "./lanes.js";
import { firstUnfinished } from "./lines.js";
import { parentsOf } from "./parents.js";
import {
  closureOf,
  countClaim,
  type Found,
  forgetHeads,
  type Head,
  headToClaim,
  mostByRate,
  settingsOfQueue,
  touchKey,
} from "./queue-row.js";
import {
  BATCH_COLUMNS,
  BATCH_OVERHEAD_BYTES,
  type BatchRow,
  checkKept,
  claimIdOf,
  MORE_BYTES,
  readMore,
  readMoreOf,
  shownBatch,
  waitKey,
  waitsBehindOthers,
} from "./row.js";
import { KEPT, TOLD } from "./terms.js";

/** Batches that a claim looks at first beyond its head; twice as many each time that all of them join. */
const FIRST_FOLLOWING_ROWS = 16;

export const FOLLOWING_COLUMNS = `
  b.enqueue_seq, b.available_at, b.delivery_policy, b.slot_policy, b.merge_key, b.payload_bytes, b.priority, b.key,
  ${MORE_BYTES}`;

/** The candidates that follow a head without a key, as far as selecting needs them. */
const selectFollowing = sql<FollowingRow>(`
  SELECT ${FOLLOWING_COLUMNS} FROM pawl_batch b WHERE queue_id = :queueId AND lane = :lane AND enqueue_seq > :after
  ORDER BY enqueue_seq LIMIT :rows`);

/** Of the key of a head, those in line behind it, up to the next candidate of another. */
const selectFollowingOfKey = sql<FollowingRow>(`
  SELECT ${FOLLOWING_COLUMNS} FROM pawl_batch b
  WHERE queue_id = :queueId AND key = :key AND lane = :lane AND enqueue_seq > :after AND enqueue_seq < :before
  ORDER BY enqueue_seq LIMIT :rows`);

const selectNextCandidate = sql<{ seq: number | null }>(`
  SELECT min(enqueue_seq) AS seq FROM pawl_batch WHERE queue_id = :queueId AND lane = :lane AND enqueue_seq > :after`);

export type CandidateRow = Pick<
  BatchRow,
  | "enqueue_seq"
  | "available_at"
  | "delivery_policy"
  | "slot_policy"
  | "merge_key"
  | "payload_bytes"
  | "priority"
  | "key"
>;

interface FollowingRow extends CandidateRow {
  readonly more_bytes: number;
}

/** The batches of a group are all of one lane from its head to its last. */
const IN_GROUP = "queue_id = :queueId AND lane = :lane AND enqueue_seq > :head AND enqueue_seq <= :last";

const selectGroup = sql<BatchRow>(
  `SELECT ${BATCH_COLUMNS} FROM pawl_batch b WHERE ${IN_GROUP} ORDER BY b.enqueue_seq`,
);

const selectGroupOfKey = sql<BatchRow>(
  `SELECT ${BATCH_COLUMNS} FROM pawl_batch b WHERE ${IN_GROUP} AND key = :key ORDER BY b.enqueue_seq`,
);

const selectPayloads = sql<{ payloads: string }>(
  "SELECT payloads FROM pawl_batch_payloads WHERE enqueue_seq = :seq",
);

const claimHead = sql(
  `UPDATE pawl_batch SET state = 'claimed', claim_seq = :head, fencing_token = :fencingToken, claim_size = :size,
    owner = :owner, pid = :pid, claimed_at = :claimedAt, lease_ms = :leaseMs, connection = :connection, holder_connection = :holder,
    expires_at = :expiresAt, grace_ms = :graceMs, has_terms = :hasTerms
  WHERE enqueue_seq = :head`,
  { writes: "head" },
);

const CLAIM_FOLLOWING = `
  UPDATE pawl_batch SET state = 'claimed', claim_seq = :head, fencing_token = :fencingToken WHERE ${IN_GROUP}`;

const claimFollowing = sql(CLAIM_FOLLOWING);

const claimFollowingOfKey = sql(`${CLAIM_FOLLOWING} AND key = :key`);

const claimOther = sql(`
  UPDATE pawl_batch SET state = 'claimed', claim_seq = :head, fencing_token = :fencingToken WHERE enqueue_seq = :seq`);

const endProgress = sql("UPDATE pawl_batch_more SET progress = NULL WHERE enqueue_seq = :seq");

/** From its first claim on a batch does not expire. */
const endTtl = sql("UPDATE pawl_batch SET ttl_ms = NULL, ttl_ends_at = NULL WHERE enqueue_seq = :seq");

export type Claimed = Result<"queue.claim">;

export function* claimQueue(
  queue: string,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Outcome<Claimed>> {
  const choice = yield* choiceOf(queue, params, env);
  if (choice !== undefined) return yield* claimGroup(choice, params, env);
  // Those at different boundaries wait for different things: one that cannot be met does not hold up the others.
  return env.mayWait ? new Wait(waitKey(queue), params.boundary) : { claim: null };
}

/** A head that may be claimed, and the enqueueSeq of the last batch that is claimed with it. */
export interface Choice {
  readonly queue: string;
  readonly found: Found;
  readonly last: number;
}

/** The batches of a queue that a claim takes now; undefined for none. */
export function* choiceOf(
  queue: string,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Choice | undefined> {
  const found = yield* headToClaim(queue, env);
  if (found === undefined) return undefined;
  if (env.mayWait && env.woken === null && waitsBehindOthers(waitKey(queue), env)) return undefined;
  if (found.head.has_more !== null) yield* readMore(found.head);
  const last = yield* lastOfGroup(found, params, env);
  return last === undefined ? undefined : { queue, found, last };
}

/** Claims these batches of a queue together, wherever they stand; the first is the head of the claim. */
export function* claimRows(
  queue: string,
  queueId: number,
  rows: readonly BatchRow[],
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Claimed> {
  const [head, ...others] = rows.map((row) => row.enqueue_seq) as [number, ...number[]];
  const fencingToken = yield* countClaim(queueId, rows.length, null, env);
  yield* claimFirst(head, rows.length, fencingToken, params, env);
  for (const seq of others) yield* write(claimOther, { head, fencingToken, seq });
  yield* forgetHeads(queueId, env);
  for (const key of new Set(rows.map((row) => row.key))) yield* touchKey(queueId, key, env);
  // What comes after them may be claimed at a checkpoint, or by those who wait for one of its key.
  env.effects.wake(waitKey(queue));
  return yield* handOut(queue, rows, fencingToken, params, env);
}

export function* claimGroup(
  { queue, found: { queueId, head }, last }: Choice,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Claimed> {
  const { enqueue_seq: seq, key } = head;
  const rows: BatchRow[] = [hasPayloads(head) ? head : { ...head, payloads: yield* longPayloadsOf(seq) }];
  const group = { queueId, head: seq, last, lane: laneBehind(head) };
  if (last > seq && key === null) rows.push(...(yield* all(selectGroup, group)));
  if (last > seq && key !== null) rows.push(...(yield* all(selectGroupOfKey, { ...group, key })));
  const fencingToken = yield* countClaim(queueId, rows.length, key, env);
  yield* claimFirst(seq, rows.length, fencingToken, params, env);
  if (last > seq && key === null) yield* write(claimFollowing, { ...group, fencingToken });
  if (last > seq && key !== null) yield* write(claimFollowingOfKey, { ...group, key, fencingToken });
  return yield* handOut(queue, rows, fencingToken, params, env);
}

/** The first batch of a claim is claimed, and with it are kept the terms of the whole. */
export function* claimFirst(
  head: number,
  size: number,
  fencingToken: number,
  params: Parsed<"queue.claim">,
  { now, caller, effects }: Env,
): Operation<void> {
  const { owner, under, releaseOn, graceMs: grace = 0, notify = false } = params;
  const { connection: holder, pid } = caller;
  if (under !== undefined) {
    const noTime = { leaseMs: null, connection: null, expiresAt: null, graceMs: null, hasTerms: KEPT };
    yield* write(claimHead, { head, fencingToken, size, owner, pid, claimedAt: now, holder, ...noTime });
    return yield* keepUnder(head, fencingToken, under.lease);
  }
  const leaseMs = params.leaseMs ?? DEFAULT_LEASE_MS;
  const expiresAt = now + leaseMs;
  const connection = releaseOn === "disconnect" ? holder : null;
  const hasTerms = notify ? TOLD : null;
  const graceMs = grace === 0 ? null : grace;
  yield* write(claimHead, {
    head,
    fencingToken,
    size,
    owner,
    pid,
    claimedAt: now,
    leaseMs,
    connection,
    holder,
    expiresAt,
    graceMs,
    hasTerms,
  });
  effects.deadline(expiresAt);
  if (connection !== null) effects.bind(connection);
}

/** The deliveries of batches that are claimed begin, and their claim is answered. */
export function* handOut(
  queue: string,
  rows: readonly BatchRow[],
  fencingToken: number,
  { owner, under, leaseMs = DEFAULT_LEASE_MS }: Parsed<"queue.claim">,
  env: Env,
): Operation<Claimed> {
  const head = rows[0] as BatchRow;
  const lasting = under === undefined ? leaseMs : yield* remainingUnder(under.lease, env);
  const remainingMs = lasting instanceof PawlError ? 0 : lasting;
  let hasWaited = false;
  const unread = rows.filter(({ has_more: hasMore, more }) => hasMore !== null && more === undefined);
  if (unread.length > 0) yield* readMoreOf(unread);
  for (const row of rows) {
    if (row.has_more !== null) {
      yield* handOver(row);
      if (row.more !== undefined && row.more.after_ids !== null) hasWaited = true;
    }
    if (row.ttl_ms === null) continue;
    yield* write(endTtl, { seq: row.enqueue_seq });
    row.ttl_ms = null;
    row.ttl_ends_at = null;
  }

  for (const { available_at: availableAt } of rows)
    env.effects.noteDuration(queue, "wait", env.now - availableAt);
  if (env.effects.isFollowed) {
    for (const { batch_id: batchId } of rows)
      env.effects.tell("queue", queue, "claimed", batchId, { by: owner, fencingToken });
  } else env.effects.note("queue", queue, "claimed", rows.length);
  // What follows a head that had to wait for the end of a turn may be claimed at a checkpoint.
  if (head.delivery_policy === "after_current_turn_commit") env.effects.wake(waitKey(queue));
  const claimId = claimIdOf(head.enqueue_seq, fencingToken);
  const shownEnd = env.wallMs + remainingMs;
  const leaseToken = env.sign(claimId);
  const ends = `"expiresAt":${shownEnd},"remainingMs":${remainingMs}`;
  const [queueText, ownerText] = [JSON.stringify(queue), JSON.stringify(owner)];
  const holder = new RawJson(
    `{"owner":${ownerText},"claimId":"${claimId}","fencingToken":${fencingToken},${ends}}`,
  );
  let batches = "";
  for (const row of rows) {
    checkKept(row);
    row.state = "claimed";
    const { text } = shownBatch(row, queueText, holder, env) as unknown as RawJson;
    batches += batches === "" ? text : `,${text}`;
  }
  const parents = hasWaited ? yield* parentsOf(rows) : undefined;
  // As an object only what `transact` looks for.
  return written(
    { claim: { leaseToken } as Claimed["claim"] },
    `{"claim":{"claimId":"${claimId}","leaseToken":${JSON.stringify(leaseToken)},"fencingToken":${fencingToken},"queue":${queueText},"owner":${ownerText},"claimedAt":${env.wallMs},${ends},"batches":[${batches}]${parents === undefined ? "" : `,"parents":${parents.text}`}}}`,
  );
}

/** A delivery begins: its progress is none yet, and the checkpoint of the one before is handed on. */
function* handOver(row: BatchRow): Operation<void> {
  if (row.more === undefined || row.more.progress === null) return;
  yield* write(endProgress, { seq: row.enqueue_seq });
  row.more.progress = null;
}

/** How much that few batches have adds to a reply. */
function bytesOf(more: BatchRow["more"]): number {
  if (more === undefined) return 0;
  const { trace, progress, checkpoint, result, after_ids: after } = more;
  const texts = [trace, progress, checkpoint, result, after, after];
  return texts.reduce((sum, text) => sum + (text === null ? 0 : Buffer.byteLength(text)), 0);
}

/** Long payloads are not in the row of their batch. */
function hasPayloads(head: Head): head is Head & BatchRow {
  return head.payloads !== null;
}

function* longPayloadsOf(seq: number): Operation<string> {
  return ((yield* one(selectPayloads, { seq })) as { payloads: string }).payloads;
}

/** The lane of the batches that may join a head: those of its key are in line behind it. */
export function laneBehind({ priority, key }: Pick<BatchRow, "priority" | "key">): number {
  return key === null ? -priority : IN_LINE_LANES - priority;
}

/** The enqueueSeq of the last batch that is claimed with a head, or undefined if the head may not be claimed. */
function* lastOfGroup(
  { queueId, head, hasSettings }: Found,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<number | undefined> {
  if (hasSettings && (yield* closureOf(queueId, env)) !== undefined) return undefined;
  const { boundary, maxBatches: wanted = 1 } = params;
  const maxBatches = hasSettings ? Math.min(wanted, yield* mostByRate(queueId, env)) : wanted;
  const claiming = { now: env.now, boundary, maxBatches, maxBytes: MAX_PAGE_BYTES };
  const candidates = [candidateOf(head)];
  let selected = selectBatches(candidates, claiming);
  if (selected.length > 0 && mayBeJoined(candidates[0] as Candidate) && maxBatches > 1) {
    const { key } = head;
    const before = key === null ? 0 : yield* endOfGroup(queueId, head, key, env);
    // More are read only as long as all that were read join.
    for (let rows = FIRST_FOLLOWING_ROWS; selected.length === candidates.length; rows *= 2) {
      const wanted = Math.min(rows, maxBatches - candidates.length);
      if (wanted === 0) break;
      const after = (candidates.at(-1) as { seq: number }).seq;
      const page = { queueId, lane: laneBehind(head), after, rows: wanted };
      const following =
        key === null
          ? yield* all(selectFollowing, page)
          : yield* all(selectFollowingOfKey, { ...page, key, before });
      for (const row of following) candidates.push(candidateOf(row, row.more_bytes));
      selected = selectBatches(candidates, claiming);
      if (following.length < wanted) break;
    }
  }
  return selected.at(-1)?.seq;
}

/** The enqueueSeq of the batch that ends the group of a key: the next candidate of another, or what holds it up. */
function* endOfGroup(queueId: number, head: Head, key: string, env: Env): Operation<number> {
  const { enqueue_seq: after, priority } = head;
  const next = (yield* one(selectNextCandidate, { queueId, lane: -priority, after }))?.seq ?? MAX_INTEGER;
  const { keyOrder } = yield* settingsOfQueue(queueId, env);
  if (keyOrder !== "strict") return next;
  return Math.min(next, (yield* firstUnfinished(queueId, key, priority)) ?? MAX_INTEGER);
}

/** @param moreBytes of what few batches have, and of its last error; if not given, the row is a whole one. */
export function candidateOf(
  row: CandidateRow & Partial<Pick<BatchRow, "last_error" | "more">>,
  moreBytes = (row.last_error?.length ?? 0) + bytesOf(row.more),
): Candidate & { readonly seq: number } {
  return {
    seq: row.enqueue_seq,
    availableAt: row.available_at,
    // Those that are held are not read at all.
    heldUntil: null,
    deliveryPolicy: row.delivery_policy,
    slotPolicy: row.slot_policy,
    priority: row.priority,
    key: row.key,
    mergeKey: row.merge_key,
    bytes: row.payload_bytes + moreBytes + BATCH_OVERHEAD_BYTES,
  };
}
