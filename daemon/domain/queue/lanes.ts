// Lanes: the order in which a queue has its batches (store/schema/0014-queue-order.sql).
import type { BatchState } from "@pawl/protocol";

/** Lanes up to here have candidates, the highest priority first: the lane of a candidate is its priority, negated. */
export const LAST_CANDIDATE_LANE = 100;
/** Ready batches that are in line behind others of their key have the lane of their priority, so much later. */
export const IN_LINE_LANES = 300;
/** Lanes up to here have all that is ready. */
export const LAST_READY_LANE = IN_LINE_LANES + 100;

/** Each other state has a lane. Up to that of the dead ones they hold up later ones of their key, if that is strict. */
export const LANE_OF = {
  scheduled: 1001,
  claimed: 1002,
  dead: 1003,
  blocked: 1004,
  completed: 1005,
  cancelled: 1006,
  expired: 1007,
} as const satisfies Record<Exclude<BatchState, "ready">, number>;

/** The SET of an UPDATE that makes batches ready: with a key, one is in line until the line of its key is laid. */
export const GETS_IN_LINE = "in_line = CASE WHEN key IS NULL THEN NULL ELSE 1 END";
