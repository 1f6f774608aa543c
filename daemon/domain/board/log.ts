import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_CLOCK_AHEAD_MS } from "@pawl/protocol/limits";
import type { Change } from "./change.js";
import { compareHlc, type Hlc } from "./hybrid-clock.js";

/** The place of a stored change in its log: all that is needed to judge the change that follows. */
export interface Place {
  readonly author: string;
  readonly incarnation: string;
  readonly seq: number;
  readonly hlc: Hlc;
}

/**
 * Refuses a change that does not fit into the log that it says it belongs to. A log is a chain, or a tree where it is
 * forked: every change names the one before it by hash, in the same log, with the sequence number before its
 * own and an earlier time.
 *
 * @param prev the place of the change named by `change.prev`, undefined if it is not stored here.
 * @param nowMs the local wall clock. Not the hybrid clock: following that, each change could push it further.
 */
export function checkPlace(change: Change, prev: Place | undefined, nowMs: number): PawlError | undefined {
  const { author, incarnation, seq, hlc } = change;
  const details = { author, incarnation, seq };
  if ((seq === 1) !== (change.prev === null)) {
    return refuse("bad_chain", "The first change of a log, and only that, has no change before it.", details);
  }
  if (change.prev !== null) {
    if (prev === undefined) {
      return refuse("missing_prev", `Change ${seq} follows ${change.prev}, which is not here.`, details);
    }
    if (prev.author !== author || prev.incarnation !== incarnation || prev.seq !== seq - 1) {
      return refuse(
        "bad_chain",
        `${change.prev} is not change ${seq - 1} of the log of change ${seq}.`,
        details,
      );
    }
    if (compareHlc(hlc, prev.hlc) <= 0) {
      return refuse(
        "clock_not_monotonic",
        `Change ${seq} at [${hlc}] is not later than the one before it, at [${prev.hlc}].`,
        details,
      );
    }
  }
  const aheadMs = hlc[0] - nowMs - MAX_CLOCK_AHEAD_MS;
  if (aheadMs > 0) {
    return refuse(
      "clock_ahead",
      `Change ${seq} is more than ${MAX_CLOCK_AHEAD_MS} ms ahead of this node's clock; compare the clocks of both nodes.`,
      { ...details, retryMs: aheadMs },
    );
  }
  return undefined;
}

/** How the heads of a log change when it takes in a change that fits (`checkPlace`) and is no duplicate. */
export interface HeadStep {
  /** The hash of the head that this change follows and replaces. */
  readonly replaces: string | null;
  /** Another change stands at the same sequence number: both stay, as heads or below them. */
  readonly forks: boolean;
}

/** @param heads the hashes of the log's heads: of all its changes that none follows. */
export function stepHeads(heads: ReadonlySet<string>, { prev }: Pick<Change, "prev">): HeadStep {
  if (prev !== null && heads.has(prev)) return { replaces: prev, forks: false };
  // Something follows `prev` already, or, at the beginning of a log, something began it already.
  return { replaces: null, forks: prev !== null || heads.size > 0 };
}
