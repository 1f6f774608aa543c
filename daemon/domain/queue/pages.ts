// Pages: the batches of a queue in enqueueSeq order, by their state and their key. Each lane has its own in order.
import { BATCH_STATES, type BatchState } from "@pawl/protocol";
import { all, type Operation, sql } from "../../store/statement.js";
import { LANE_OF, LAST_READY_LANE } from "./lanes.js";
import { MORE_BYTES } from "./row.js";

/** Without payloads, which are read only of those that the page has room for. */
const PAGE_COLUMNS = `b.enqueue_seq, b.payload_bytes, ${MORE_BYTES}`;

/** The lanes of ready batches that there are. */
const selectReadyLanes = sql<{ lane: number }>(`
  WITH RECURSIVE lanes(lane) AS (
    SELECT min(lane) AS lane FROM pawl_batch WHERE queue_id = :queueId AND lane <= ${LAST_READY_LANE}
    UNION ALL
    SELECT (SELECT min(b.lane) FROM pawl_batch b WHERE b.queue_id = :queueId AND b.lane > lanes.lane
      AND b.lane <= ${LAST_READY_LANE})
    FROM lanes WHERE lanes.lane IS NOT NULL)
  SELECT lane FROM lanes WHERE lane IS NOT NULL`);

const selectReadyLanesOfKey = sql<{ lane: number }>(`
  WITH RECURSIVE lanes(lane) AS (
    SELECT min(lane) AS lane FROM pawl_batch WHERE queue_id = :queueId AND key = :key
    UNION ALL
    SELECT (SELECT min(b.lane) FROM pawl_batch b
      WHERE b.queue_id = :queueId AND b.key = :key AND b.lane > lanes.lane)
    FROM lanes WHERE lanes.lane < ${LAST_READY_LANE})
  SELECT lane FROM lanes WHERE lane <= ${LAST_READY_LANE}`);

const selectPageOfLane = sql<PageRow>(`
  SELECT ${PAGE_COLUMNS} FROM pawl_batch b
  WHERE queue_id = :queueId AND lane = :lane AND enqueue_seq > :after ORDER BY enqueue_seq LIMIT :rows`);

const selectPageOfLaneAndKey = sql<PageRow>(`
  SELECT ${PAGE_COLUMNS} FROM pawl_batch b
  WHERE queue_id = :queueId AND key = :key AND lane = :lane AND enqueue_seq > :after
  ORDER BY enqueue_seq LIMIT :rows`);

interface PageRow {
  readonly enqueue_seq: number;
  readonly payload_bytes: number;
  readonly more_bytes: number;
}

export interface Page {
  /** Undefined for all. */
  readonly state?: BatchState | undefined;
  readonly key?: string | undefined;
  readonly after: number;
  readonly rows: number;
}

/** The first rows behind `after`. */
export function* pageOf(queueId: number, { state, key, after, rows }: Page): Operation<PageRow[]> {
  const lanes: number[] = [];
  for (const each of state === undefined ? BATCH_STATES : [state]) {
    if (each !== "ready") lanes.push(LANE_OF[each]);
    else if (key === undefined) {
      for (const { lane } of yield* all(selectReadyLanes, { queueId })) lanes.push(lane);
    } else {
      for (const { lane } of yield* all(selectReadyLanesOfKey, { queueId, key })) lanes.push(lane);
    }
  }
  const found: PageRow[] = [];
  for (const lane of lanes) {
    const page = { queueId, lane, after, rows };
    found.push(
      ...(key === undefined
        ? yield* all(selectPageOfLane, page)
        : yield* all(selectPageOfLaneAndKey, { ...page, key })),
    );
  }
  return found.sort((a, b) => a.enqueue_seq - b.enqueue_seq).slice(0, rows);
}
