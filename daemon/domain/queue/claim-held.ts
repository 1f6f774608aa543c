// Claims beside those that the caller has: their batches are passed over, and one that ran out is taken up again.
import type { Parsed } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import {
  type CandidateRow,
  type Claimed,
  candidateOf,
  claimFirst,
  claimRows,
  FOLLOWING_COLUMNS,
  handOut,
  laneBehind,
} from "./claim.js";
import { type Candidate, mayBeJoined, selectBatches } from "./claim-selection.js";
import { verifiedClaim } from "./holder.js";
import { IN_LINE_LANES, LAST_CANDIDATE_LANE, LAST_READY_LANE } from "./lanes.js";
import { firstUnfinished, hasRoom } from "./lines.js";
import { closureOf, headToClaim, mostByRate, move, settingsOfQueue, touchKey } from "./queue-row.js";
import { BATCH_COLUMNS, type BatchRow, claimIdOf, readMore } from "./row.js";

/** Rows that are looked at for one that is of none of these claims. */
const ROWS_PER_LOOK = 32;

/** The queue of a claim some of whose batches are where it left them. */
const selectLeft = sql<{ queue_id: number }>(`
  SELECT queue_id FROM pawl_batch
  WHERE enqueue_seq = :head AND claim_seq = :head AND fencing_token = :fencingToken AND state IN ('ready', 'scheduled')
  UNION ALL
  SELECT queue_id FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken
    AND state IN ('ready', 'scheduled')
  LIMIT 1`);

const selectSize = sql<{ claim_size: number }>(`
  SELECT claim_size FROM pawl_batch
  WHERE enqueue_seq = :head AND claim_seq = :head AND fencing_token = :fencingToken AND state = 'ready'`);

const countMembers = sql<{ batches: number }>(`
  SELECT count(*) AS batches FROM pawl_batch
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken AND state = 'ready'`);

const selectMembers = sql<BatchRow>(`
  SELECT ${BATCH_COLUMNS} FROM pawl_batch b
  WHERE b.claim_seq = :head AND b.claim_seq <> b.enqueue_seq AND b.fencing_token = :fencingToken
  ORDER BY b.enqueue_seq`);

const selectBatch = sql<BatchRow>(`SELECT ${BATCH_COLUMNS} FROM pawl_batch b WHERE b.enqueue_seq = :seq`);

/** The end of the claim did not happen: it counts neither as an attempt nor as a delivery that was lost. */
const TAKEN_BACK = `attempt = CASE WHEN attempt > 0 THEN attempt - 1 ELSE 0 END,
  lost_before = CASE WHEN lost_before > 1 THEN lost_before - 1 END`;

const takeBackHead = sql(`UPDATE pawl_batch SET ${TAKEN_BACK} WHERE enqueue_seq = :head`);

const takeBackMembers = sql(`
  UPDATE pawl_batch SET state = 'claimed', ${TAKEN_BACK}
  WHERE claim_seq = :head AND claim_seq <> enqueue_seq AND fencing_token = :fencingToken`);

const RANKED_COLUMNS = "enqueue_seq, lane, key, claim_seq, fencing_token";

const selectCandidates = sql<RankedRow>(`
  SELECT ${RANKED_COLUMNS} FROM pawl_batch
  WHERE queue_id = :queueId AND lane <= ${LAST_CANDIDATE_LANE} AND (lane, enqueue_seq) > (:lane, :after)
  ORDER BY lane, enqueue_seq LIMIT ${ROWS_PER_LOOK}`);

const selectInLine = sql<RankedRow>(`
  SELECT ${RANKED_COLUMNS} FROM
    (SELECT ${RANKED_COLUMNS} FROM pawl_batch
     WHERE queue_id = :queueId AND key = :key AND (lane, enqueue_seq) > (:lane, :after)
     ORDER BY lane, enqueue_seq LIMIT ${ROWS_PER_LOOK}) AS line
  WHERE lane <= ${LAST_READY_LANE} ORDER BY lane, enqueue_seq`);

const FOLLOWING = `
  SELECT ${FOLLOWING_COLUMNS}, b.claim_seq, b.fencing_token FROM pawl_batch b
  WHERE b.queue_id = :queueId AND b.lane = :lane AND b.enqueue_seq > :after`;

const selectFollowing = sql<FollowingRow>(`${FOLLOWING} ORDER BY b.enqueue_seq LIMIT ${ROWS_PER_LOOK}`);

const selectFollowingOfKey = sql<FollowingRow>(`
  ${FOLLOWING} AND b.key = :key AND b.enqueue_seq < :before ORDER BY b.enqueue_seq LIMIT ${ROWS_PER_LOOK}`);

/** The last claim of a batch. */
interface LastClaim {
  readonly claim_seq: number | null;
  readonly fencing_token: number | null;
}

interface RankedRow extends LastClaim {
  readonly enqueue_seq: number;
  readonly lane: number;
  readonly key: string | null;
}

interface FollowingRow extends CandidateRow, LastClaim {
  readonly more_bytes: number;
}

interface HeldClaim {
  readonly head: number;
  readonly fencingToken: number;
  readonly queueId: number;
}

/** The claims that a caller has, as far as any of their batches is where one of them left it when it ran out. */
export class HeldClaims {
  readonly #claims = new Map<string, HeldClaim>();
  /** True once a batch was passed over for one of them. */
  hasPassed = false;

  add(claim: HeldClaim): void {
    this.#claims.set(claimIdOf(claim.head, claim.fencingToken), claim);
  }

  /** The one of these claims that a batch was left by. */
  of({ claim_seq: head, fencing_token: fencingToken }: LastClaim): HeldClaim | undefined {
    if (head === null || fencingToken === null) return undefined;
    return this.#claims.get(claimIdOf(head, fencingToken));
  }

  /** The queues that they are of. */
  get queueIds(): number[] {
    return [...new Set([...this.#claims.values()].map(({ queueId }) => queueId))];
  }
}

/** Something that may be claimed: its place in the order, and what claims it. */
export interface Taking {
  readonly queue: string;
  readonly priority: number;
  readonly enqueue_seq: number;
  take(): Operation<Claimed>;
}

/** The claims that are named, or `claim_lost` for a token that is not that of its claim. */
export function* heldClaims(
  named: NonNullable<Parsed<"queue.claim">["held"]>,
  env: Env,
): Operation<HeldClaims | PawlError> {
  const held = new HeldClaims();
  for (const each of named) {
    const claim = yield* verifiedClaim(each, env);
    if (claim instanceof PawlError) return claim;
    const left = yield* one(selectLeft, { ...claim });
    if (left !== undefined) held.add({ ...claim, queueId: left.queue_id });
  }
  return held;
}

/** What a claim takes of a queue beside these claims: one of them again, or batches of none of them. */
export function* takingBeside(
  queue: string,
  queueId: number,
  held: HeldClaims,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Taking | undefined> {
  // The lines of its keys are laid by this, too.
  if ((yield* headToClaim(queue, env)) === undefined) return undefined;
  if ((yield* closureOf(queueId, env)) !== undefined) return undefined;
  const first = yield* firstBeside(queueId, held, env);
  if (first === undefined) return undefined;
  const head = (yield* one(selectBatch, { seq: first.seq })) as BatchRow;
  const { priority, enqueue_seq, delivery_policy: policy } = head;
  if (params.boundary === "active_turn_checkpoint" && policy !== "earliest_safe_boundary") return undefined;
  const { again } = first;
  if (again !== undefined) {
    return { queue, priority, enqueue_seq, take: () => takeUp(queue, again, params, env) };
  }
  return {
    queue,
    priority,
    enqueue_seq,
    *take() {
      const rows = [head];
      for (const seq of yield* groupBeside(queueId, head, held, params, env)) {
        rows.push((yield* one(selectBatch, { seq })) as BatchRow);
      }
      return yield* claimRows(queue, queueId, rows, params, env);
    },
  };
}

/** The first candidate of a queue for this caller; `again`: the claim that left it, if that can be taken up again. */
function* firstBeside(
  queueId: number,
  held: HeldClaims,
  env: Env,
): Operation<{ seq: number; again: HeldClaim | undefined } | undefined> {
  const settings = yield* settingsOfQueue(queueId, env);
  const others: RankedRow[] = [];
  let page: RankedRow[] = [];
  let place = { lane: -IN_LINE_LANES, after: 0 };
  for (let isLast = false; ; ) {
    if (page.length === 0 && !isLast) {
      page = yield* all(selectCandidates, { queueId, ...place });
      isLast = page.length < ROWS_PER_LOOK;
    }
    others.sort(byRank);
    const row =
      others[0] === undefined || (page[0] && byRank(page[0], others[0]) < 0) ? page.shift() : others.shift();
    if (row === undefined) return undefined;
    const { enqueue_seq: seq, lane, key } = row;
    if (lane <= LAST_CANDIDATE_LANE) place = { lane, after: seq };
    // By the rules of now, where the lines are still being laid by them.
    if (key !== null && !(yield* hasRoom(queueId, key, settings))) continue;
    const isStrict = settings.keyOrder === "strict";
    if (key !== null && isStrict && (yield* firstUnfinished(queueId, key)) !== seq) continue;
    const again = held.of(row);
    if (again === undefined || (yield* isWhole(again))) return { seq, again };
    held.hasPassed = true;
    const next = key === null || isStrict ? undefined : yield* nextInLine(queueId, key, held);
    if (next !== undefined) others.push(next);
  }
}

/** The first batch in line of a key that none of these claims left. */
function* nextInLine(queueId: number, key: string, held: HeldClaims): Operation<RankedRow | undefined> {
  let place = { lane: LAST_CANDIDATE_LANE, after: MAX_INTEGER };
  for (;;) {
    const page = yield* all(selectInLine, { queueId, key, ...place });
    const found = page.find((row) => held.of(row) === undefined);
    const last = page.at(-1);
    if (found !== undefined || last === undefined || page.length < ROWS_PER_LOOK) return found;
    place = { lane: last.lane, after: last.enqueue_seq };
  }
}

/** By the order in which batches are claimed, in line or not. */
function byRank(a: RankedRow, b: RankedRow): number {
  return rankOf(a) - rankOf(b) || a.enqueue_seq - b.enqueue_seq;
}

function rankOf({ lane }: RankedRow): number {
  return lane > LAST_CANDIDATE_LANE ? lane - IN_LINE_LANES : lane;
}

/** True if all batches of a claim that ran out are there to be claimed. */
export function* isWhole({ head, fencingToken }: HeldClaim): Operation<boolean> {
  const size = (yield* one(selectSize, { head, fencingToken }))?.claim_size;
  if (size === undefined) return false;
  return size === 1 || (yield* one(countMembers, { head, fencingToken }))?.batches === size - 1;
}

/** A claim that ran out goes on as what it was, for as long as is asked for now. */
export function* takeUp(
  queue: string,
  { head, fencingToken, queueId }: HeldClaim,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Claimed> {
  const { claim_size: size } = (yield* one(selectSize, { head, fencingToken })) as { claim_size: number };
  yield* claimFirst(head, size, fencingToken, params, env);
  yield* run(takeBackHead, { head });
  if (size > 1) yield* run(takeBackMembers, { head, fencingToken });
  const rows = [(yield* one(selectBatch, { seq: head })) as BatchRow];
  if (size > 1) rows.push(...(yield* all(selectMembers, { head, fencingToken })));
  yield* move(queueId, { ready: -size, claimed: size, claims: 1 }, env);
  for (const key of new Set(rows.map((row) => row.key))) yield* touchKey(queueId, key, env);
  return yield* handOut(queue, rows, fencingToken, params, env);
}

/** The batches that join a head, without those that these claims left: as if they were not there. */
function* groupBeside(
  queueId: number,
  head: BatchRow,
  held: HeldClaims,
  { boundary, maxBatches: wanted = 1 }: Parsed<"queue.claim">,
  env: Env,
): Operation<number[]> {
  const maxBatches = Math.min(wanted, yield* mostByRate(queueId, env));
  if (head.has_more !== null) yield* readMore(head);
  const candidates = [candidateOf(head)];
  if (maxBatches === 1 || !mayBeJoined(candidates[0] as Candidate)) return [];
  const claiming = { now: env.now, boundary, maxBatches, maxBytes: MAX_PAGE_BYTES };
  const { key } = head;
  const lane = laneBehind(head);
  const before = key === null ? 0 : yield* endBeside(queueId, head, key, held, env);
  let after = head.enqueue_seq;
  for (;;) {
    const page =
      key === null
        ? yield* all(selectFollowing, { queueId, lane, after })
        : yield* all(selectFollowingOfKey, { queueId, lane, after, key, before });
    for (const row of page) if (held.of(row) === undefined) candidates.push(candidateOf(row, row.more_bytes));
    const selected = selectBatches(candidates, claiming);
    if (selected.length < candidates.length || page.length < ROWS_PER_LOOK) {
      return selected.slice(1).map(({ seq }) => seq);
    }
    after = (page.at(-1) as FollowingRow).enqueue_seq;
  }
}

/** The enqueueSeq of the batch that ends the group of a key for this caller. */
function* endBeside(
  queueId: number,
  { priority, enqueue_seq }: BatchRow,
  key: string,
  held: HeldClaims,
  env: Env,
): Operation<number> {
  let end = MAX_INTEGER;
  for (let after = enqueue_seq; ; ) {
    const page = yield* all(selectFollowing, { queueId, lane: -priority, after });
    const other = page.find((row) => held.of(row) === undefined);
    if (other !== undefined) end = other.enqueue_seq;
    if (other !== undefined || page.length < ROWS_PER_LOOK) break;
    after = (page.at(-1) as FollowingRow).enqueue_seq;
  }
  const { keyOrder } = yield* settingsOfQueue(queueId, env);
  if (keyOrder !== "strict") return end;
  return Math.min(end, (yield* firstUnfinished(queueId, key, priority)) ?? MAX_INTEGER);
}
