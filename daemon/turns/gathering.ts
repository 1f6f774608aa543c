import { elapsed } from "../clock.js";

/**
 * A turn waits for more calls for this part of a commit at most. Callers that were answered together mostly ask again
 * together, but not at the same moment: without a wait, the first have a commit for themselves while the others wait
 * for that commit and then for their own.
 */
const GATHER_SHARE = 0.5;
/** How fast the time of a commit is forgotten: the last 10 or so count. */
const COMMIT_FORGETTING = 0.9;

/** Decides whether a turn waits for more calls. */
export class Gathering {
  /** How many calls the last turn answered. */
  #answered = 0;
  /** How long commits take of late. */
  commitMs = 0;
  /** Since when a turn waits for more calls. */
  #since: number | undefined;

  /** True if so many calls are to wait for more that can be expected. */
  waitsForMore(calls: number): boolean {
    if (calls > 0 && calls < this.#answered) {
      const now = elapsed();
      this.#since ??= now;
      if (now - this.#since < GATHER_SHARE * this.commitMs) return true;
    }
    this.#since = undefined;
    return false;
  }

  /** @param commitMs how long the commit took, if it wrote anything. */
  committed(answered: number, commitMs: number | undefined): void {
    this.#answered = answered;
    if (commitMs === undefined) return;
    this.commitMs = COMMIT_FORGETTING * this.commitMs + (1 - COMMIT_FORGETTING) * commitMs;
  }
}
