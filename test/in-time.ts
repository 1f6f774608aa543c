// How late what comes at its time may be. A busy machine only adds to that, so the best of many rounds is what the
// daemon does, and on a quiet one there is one round.
import { expect } from "vitest";

/** An end by time or with a connection may be this late. */
const LATE_MS = 50;
const MOST_ROUNDS = 30;

/** True once one of the rounds was in time. Fails when there were too many that were late. */
export function isInTime(late: readonly number[]): boolean {
  if (late.length === MOST_ROUNDS) expect(Math.min(...late)).toBeLessThan(LATE_MS);
  return late.some((ms) => ms < LATE_MS);
}
