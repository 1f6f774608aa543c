// A database that is silent: holders are told in time, and once it is away calls are refused instead of waiting for it.
import { elapsed } from "../clock.js";
import { TOLD_AFTER_PART } from "./held.js";

/** A database that has not answered for so long is away, whatever is held, ... */
const MAX_SILENT_MS = 10_000;
/** ... and none that has not for less: short grants are no reason to refuse all others. */
export const MIN_SILENT_MS = 1000;
/** The time that answers then have to be read. */
const READING_MS = 50;

export class Silence {
  readonly #shortestMs: () => number;
  readonly #onSilence: (forMs: number) => void;
  /** The sending of what was answered last, in milliseconds of `elapsed`. */
  #heardAt = elapsed();
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param shortestMs the shortest time for which nobody else ends something that is held here; infinity for nothing.
   * @param onSilence is called when the database has not answered for too long.
   */
  constructor(shortestMs: () => number, onSilence: (forMs: number) => void) {
    this.#shortestMs = shortestMs;
    this.#onSilence = onSilence;
  }

  /** There is a new connection to the database. */
  begin(): void {
    this.#heardAt = elapsed();
    this.watch();
  }

  get heardAt(): number {
    return this.#heardAt;
  }

  /** The database has answered what was sent then. */
  heardSince(sentAt: number): void {
    if (sentAt <= this.#heardAt) return;
    this.#heardAt = sentAt;
    this.watch();
  }

  /**
   * Sees to it that silence is noticed in time; to be called again when something is held for a shorter time.
   *
   * @param mostMs after which it is noticed, whatever is held.
   */
  watch(mostMs = MAX_SILENT_MS): void {
    clearTimeout(this.#timer);
    const afterMs = Math.min(this.#shortestMs() * TOLD_AFTER_PART, mostMs);
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
