import { elapsed, type Reading } from "../clock.js";

/** The database's clock, as far as this daemon knows it. */
export class PlaceClock {
  /** The database's clock ahead of `elapsed`, as it was read last. */
  #aheadMs = 0;

  /** @param now what a turn read behind its locks, in milliseconds since 1970. */
  follow(now: number): void {
    this.#aheadMs = now - elapsed();
  }

  /** @param now what was read without a lock: a turn may have been ahead of it. */
  noEarlierThan(now: number): void {
    this.#aheadMs = Math.max(this.#aheadMs, now - elapsed());
  }

  time(): Reading {
    const now = Math.floor(elapsed() + this.#aheadMs);
    return { now, retentionNow: now, wallMs: now };
  }
}
