// The settings of a queue, and when they keep anything from being claimed.
import type { Retry } from "@pawl/protocol";
import type { Env } from "../../turns/operation.js";

/** Kept as JSON in the row of the queue; what is not set is not there. */
export interface Settings {
  readonly retry?: Retry;
  readonly maxAttempts?: number;
  readonly ttlMs?: number;
  readonly maxClaimed?: number;
  readonly maxClaimedPerKey?: number;
  readonly keyOrder?: "free" | "strict";
  readonly rate?: Rate;
  readonly maxWaiting?: number;
  readonly pause?: Pause;
  readonly throttle?: Throttle;
}

export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

export interface Pause {
  /** By the wall clock; null until it is taken back. */
  readonly untilAt: number | null;
  readonly reason: string | null;
  /** Whoever paused it last. */
  readonly by: { readonly pid: number | null; readonly uid: number | null };
}

export interface Throttle {
  /** In elapsed time, for an end that was given as a delay. */
  readonly until: number | null;
  /** By the wall clock, for one that was named. */
  readonly untilAt: number | null;
  readonly reason: string | null;
}

export const NO_SETTINGS: Settings = {};

/** Elapsed time, and the wall clock. */
export type Time = Pick<Env, "now" | "wallMs">;

export function isPaused({ pause }: Settings, { wallMs }: Pick<Time, "wallMs">): boolean {
  return pause !== undefined && (pause.untilAt === null || pause.untilAt > wallMs);
}

export function isThrottled({ throttle }: Settings, { now, wallMs }: Time): boolean {
  if (throttle === undefined) return false;
  const { until, untilAt } = throttle;
  return (until !== null && until > now) || (untilAt !== null && untilAt > wallMs);
}

/** Less than a thousandth of a token, for what sums of fractions lose. */
const TOLERANCE_TOKENS = 1e-6;

/**
 * How many batches may be claimed now. The bucket holds `count`, and refills evenly.
 *
 * @param fullAt when it is full again, in elapsed time; null for full.
 */
export function tokensOf({ count, perMs }: Rate, fullAt: number | null, now: number): number {
  const missingMs = Math.max(0, (fullAt ?? now) - now);
  return Math.floor(Math.max(0, count - (missingMs * count) / perMs) + TOLERANCE_TOKENS);
}

/** When the bucket is full again, after so many tokens are taken from it. */
export function fullAfter(
  { count, perMs }: Rate,
  fullAt: number | null,
  tokens: number,
  now: number,
): number {
  return Math.max(fullAt ?? now, now) + (tokens * perMs) / count;
}

/** When the bucket has a token again; `now` if it has one. */
export function nextTokenAt({ count, perMs }: Rate, fullAt: number | null, now: number): number {
  if (fullAt === null) return now;
  return Math.max(now, Math.ceil(fullAt + perMs / count - perMs - TOLERANCE_TOKENS));
}
