// The lines of keys: of the ready batches of a key at most one, the next, is a candidate; the others are in line.
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { IN_LINE_LANES, LANE_OF, LAST_CANDIDATE_LANE, LAST_READY_LANE } from "./lanes.js";
import type { Settings } from "./settings.js";

/**
 * The candidate of a key, if it has one, and the first that is in line. Lanes are bounded on one side alone: where they
 * are on both, SQLite goes through those lanes of all keys.
 */
const selectReady = sql<{ enqueue_seq: number; lane: number }>(`
  SELECT enqueue_seq, lane FROM
    (SELECT enqueue_seq, lane FROM pawl_batch
     WHERE queue_id = :queueId AND key = :key AND lane <= ${LAST_CANDIDATE_LANE}
     ORDER BY lane, enqueue_seq LIMIT 1) AS candidate
  UNION ALL
  SELECT enqueue_seq, lane FROM
    (SELECT enqueue_seq, lane FROM pawl_batch
     WHERE queue_id = :queueId AND key = :key AND lane > ${LAST_CANDIDATE_LANE}
     ORDER BY lane, enqueue_seq LIMIT 1) AS first WHERE lane <= ${LAST_READY_LANE}`);

/** Claims, not batches: those that join are claimed as one. */
const countClaims = sql<{ claims: number }>(`
  SELECT count(DISTINCT claim_seq) AS claims FROM pawl_batch
  WHERE queue_id = :queueId AND key = :key AND lane = ${LANE_OF.claimed}`);

const selectAnyClaimed = sql<{ enqueue_seq: number }>(`
  SELECT enqueue_seq FROM pawl_batch WHERE queue_id = :queueId AND key = :key AND lane = ${LANE_OF.claimed} LIMIT 1`);

/** The first of a key that is unfinished or dead, without those that are blocked, and without two lanes. */
const selectFirst = sql<{ seq: number | null }>(`
  WITH RECURSIVE lanes(lane) AS (
    SELECT min(lane) AS lane FROM pawl_batch WHERE queue_id = :queueId AND key = :key
    UNION ALL
    SELECT (SELECT min(b.lane) FROM pawl_batch b WHERE b.queue_id = :queueId AND b.key = :key AND b.lane > lanes.lane)
    FROM lanes WHERE lanes.lane < ${LANE_OF.dead})
  SELECT min((SELECT min(b.enqueue_seq) FROM pawl_batch b
    WHERE b.queue_id = :queueId AND b.key = :key AND b.lane = lanes.lane AND b.enqueue_seq > :after)) AS seq
  FROM lanes WHERE lane <= ${LANE_OF.dead} AND lane <> :exceptLane AND lane <> :exceptLineLane`);

const selectLane = sql<{ lane: number }>("SELECT lane FROM pawl_batch WHERE enqueue_seq = :seq");

const putInLine = sql("UPDATE pawl_batch SET in_line = 1 WHERE enqueue_seq = :seq");
const takeOutOfLine = sql("UPDATE pawl_batch SET in_line = NULL WHERE enqueue_seq = :seq");

const selectNextKey = sql<{ key: string | null }>(
  "SELECT min(key) AS key FROM pawl_batch WHERE queue_id = :queueId AND key > :after",
);

/** No lane has this number. */
const NO_LANE = -1000;

/** Sees to it that the next batch of a key is a candidate, if the key has room for it, and that no other is. */
export function* layLine(queueId: number, key: string, settings: Settings): Operation<void> {
  const named = { queueId, key };
  const ready = yield* all(selectReady, named);
  if (ready.length === 0) return;
  const candidates = ready.filter(({ lane }) => lane <= LAST_CANDIDATE_LANE);
  const next = (yield* hasRoom(queueId, key, settings)) ? yield* nextOf(ready, named, settings) : undefined;
  for (const { enqueue_seq: seq } of candidates) if (seq !== next) yield* run(putInLine, { seq });
  if (next !== undefined && next !== candidates[0]?.enqueue_seq) yield* run(takeOutOfLine, { seq: next });
}

/** The batch of a key that may be claimed next, if the key has room. */
function* nextOf(
  ready: readonly { enqueue_seq: number; lane: number }[],
  named: { queueId: number; key: string },
  { keyOrder }: Settings,
): Operation<number | undefined> {
  if (keyOrder === "strict") {
    const seq = yield* firstUnfinished(named.queueId, named.key);
    const lane = seq === null ? undefined : (yield* one(selectLane, { seq }))?.lane;
    return seq !== null && lane !== undefined && lane <= LAST_READY_LANE ? seq : undefined;
  }
  // A lower lane is a higher priority, in line or not.
  const ranked = ready.map(({ enqueue_seq: seq, lane }) => ({
    seq,
    rank: lane > LAST_CANDIDATE_LANE ? lane - IN_LINE_LANES : lane,
  }));
  ranked.sort((a, b) => a.rank - b.rank || a.seq - b.seq);
  return ranked[0]?.seq;
}

/** Whether one more claim of a key may be made: counted from those that are held. */
export function* hasRoom(
  queueId: number,
  key: string,
  { maxClaimedPerKey: most }: Settings,
): Operation<boolean> {
  if (most === undefined) return true;
  if (most === 1) return (yield* one(selectAnyClaimed, { queueId, key })) === undefined;
  return (yield* countClaimsOfKey(queueId, key)) < most;
}

/** How many claims of a key are held. */
export function* countClaimsOfKey(queueId: number, key: string): Operation<number> {
  return (yield* one(countClaims, { queueId, key }))?.claims ?? 0;
}

/**
 * The enqueueSeq of the first batch of a key that is unfinished or dead, blocked ones not counted; null for none.
 *
 * @param exceptPriority without those of this priority that are ready.
 * @param after without those up to this enqueueSeq.
 */
export function* firstUnfinished(
  queueId: number,
  key: string,
  exceptPriority?: number,
  after = 0,
): Operation<number | null> {
  const except = exceptPriority === undefined ? NO_LANE : -exceptPriority;
  const lanes = { exceptLane: except, exceptLineLane: except + IN_LINE_LANES };
  return (yield* one(selectFirst, { queueId, key, after, ...lanes }))?.seq ?? null;
}

/** Lays lines of keys that come after one, in the order of their names. Returns the last; null if there are no more. */
export function* layLinesAfter(
  queueId: number,
  after: string,
  settings: Settings,
  keys: number,
): Operation<string | null> {
  let last = after;
  for (let laid = 0; laid < keys; laid++) {
    const next = (yield* one(selectNextKey, { queueId, after: last }))?.key ?? null;
    if (next === null) return null;
    yield* layLine(queueId, next, settings);
    last = next;
  }
  return last;
}
