// The rest of what comes back after a delivery without success.
import type { Retry } from "@pawl/protocol";
import { DEFAULT_RETRY_BASE_MS, DEFAULT_RETRY_FACTOR, DEFAULT_RETRY_MAX_MS } from "@pawl/protocol/limits";
import type { Env } from "../turns/operation.js";

export const DEFAULT_RETRY: Retry = {
  baseMs: DEFAULT_RETRY_BASE_MS,
  factor: DEFAULT_RETRY_FACTOR,
  maxMs: DEFAULT_RETRY_MAX_MS,
  jitter: true,
};

/** Where a rest with jitter lies between its ends, from 0 to 1. */
export function chanceOf({ random }: Pick<Env, "random">): number {
  return random(4).readUInt32BE() / 2 ** 32;
}

/**
 * How many milliseconds a batch or a command rests (spec: queue.md, Settings of a queue).
 *
 * @param attempts its counted attempts of any kind, 1 or more.
 * @param chance from 0 to 1: where between half of the rest and all of it, with jitter.
 */
export function restMs({ baseMs, factor, maxMs, jitter }: Retry, attempts: number, chance: number): number {
  const whole = Math.min(baseMs * factor ** (attempts - 1), maxMs);
  // 0 times an overflow is no number.
  if (baseMs === 0) return 0;
  return Math.round(jitter ? whole * (0.5 + chance / 2) : whole);
}
