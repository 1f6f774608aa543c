// A database that is silent: the others may end what this daemon has granted, so its holders are told before.
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";

/** A daemon that gets no answer tells its holders after this part of the shortest time that it has granted ... */
export const TOLD_AFTER_PART = 1 / 3;
/** ... and before others end what is bound to its connections. */
export const MAX_TOLD_AFTER_MS = RESTART_GRACE_MS / 3;
/** The time that answers then have to be read. */
const READING_MS = 50;

export class Silence {
  readonly #shortestMs: () => number;
  readonly #onSilence: (forMs: number) => void;
  /** The sending of what was answered last, in milliseconds of `elapsed`. */
  #heardAt = elapsed();
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param shortestMs the shortest time for which something is held here; infinity for nothing.
   * @param onSilence is called when the database has not answered for too long.
   */
  constructor(shortestMs: () => number, onSilence: (forMs: number) => void) {
    this.#shortestMs = shortestMs;
    this.#onSilence = onSilence;
  }

  /** There is a new connection to the database. */
  begin(): void {
    this.#heardAt = elapsed();
  }

  /** The database has answered what was sent then. */
  heardSince(sentAt: number): void {
    if (sentAt <= this.#heardAt) return;
    this.#heardAt = sentAt;
    this.watch();
  }

  /** Sees to it that holders are told in time; to be called again when something is held for a shorter time. */
  watch(): void {
    clearTimeout(this.#timer);
    const shortestMs = this.#shortestMs();
    if (shortestMs === Number.POSITIVE_INFINITY) return;
    const afterMs = Math.min(shortestMs * TOLD_AFTER_PART, MAX_TOLD_AFTER_MS);
    const leftMs = this.#heardAt + afterMs - elapsed();
    this.#timer = setTimeout(() => this.#fall(afterMs), Math.max(leftMs, 0)).unref();
  }

  #fall(afterMs: number, isSure = false): void {
    if (elapsed() - this.#heardAt < afterMs) return this.watch();
    if (isSure) return this.#onSilence(afterMs);
    // This process may have been held up, and the answer be there to be read.
    this.#timer = setTimeout(() => this.#fall(afterMs, true), READING_MS).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
