import { type Boottime, elapsed } from "../clock.js";
import { tooLate } from "../domain/lease/refusals.js";
import type { Lasting } from "../domain/lease/row.js";

/** The holder gives a lease up when this part of its ttl is left, before the provider may give it to another. */
const MARGIN_FRACTION = 1 / 10;

/**
 * The time that remains for the holder: the rest when the provider answered, without the margin and the time since.
 *
 * @param answered by the clock that `elapsed` reads.
 */
export function lasting(remainingMs: number, ttlMs: number, answered: number, boottime: Boottime): Lasting {
  const passedMs = elapsed() - answered;
  return { remainingMs: Math.floor(remainingMs - passedMs - ttlMs * MARGIN_FRACTION), boottime };
}

/** This process may have been stopped since the answer: what has ended is not handed out. */
export function checkStillHeld(provider: string, remainingMs: number, answered: number, ttlMs: number): void {
  if (elapsed() - answered >= remainingMs) throw tooLate(provider, ttlMs);
}
