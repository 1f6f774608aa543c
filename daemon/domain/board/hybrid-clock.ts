import { MAX_CLOCK_COUNTER } from "@pawl/protocol/limits";

/**
 * A reading of a hybrid logical clock: the latest wall clock seen, in milliseconds since the epoch, and how
 * many changes were made without it moving on. (Kulkarni et al., "Logical Physical Clocks", 2014.)
 */
export type Hlc = readonly [wallMs: number, counter: number];

export const CLOCK_START: Hlc = [0, 0];

/** Negative, zero or positive as `a` is before, at or after `b`. */
export function compareHlc(a: Hlc, b: Hlc): number {
  return a[0] - b[0] || a[1] - b[1];
}

/**
 * The time of a local change: later than everything seen, and the wall clock's if that is later still. A wall
 * clock that went backwards never blocks; the counter goes on until the wall clock has caught up.
 */
export function tick(seen: Hlc, nowMs: number): Hlc {
  if (nowMs > seen[0]) return [nowMs, 0];
  return seen[1] < MAX_CLOCK_COUNTER ? [seen[0], seen[1] + 1] : [seen[0] + 1, 0];
}

/** The latest time seen, once a change with this time has been seen. */
export function observe(seen: Hlc, received: Hlc): Hlc {
  return compareHlc(received, seen) > 0 ? received : seen;
}
