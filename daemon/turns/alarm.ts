import { MAX_TIMER_MS } from "@pawl/protocol/limits";

/** The next time at which something ends by itself, and the timer that asks for a turn then. */
export class Alarm {
  #at: number;
  #timer: NodeJS.Timeout | undefined;
  readonly #ring: () => void;

  /** @param at in milliseconds of the daemon's time; infinity for never. */
  constructor(at: number, ring: () => void) {
    this.#at = at;
    this.#ring = ring;
  }

  isDue(now: number): boolean {
    return now >= this.#at;
  }

  setTo(at: number): void {
    this.#at = at;
  }

  noLaterThan(at: number): void {
    if (at < this.#at) this.#at = at;
  }

  /** Starts the timer anew. A time beyond the longest timer is looked at again then. */
  wind(now: number): void {
    clearTimeout(this.#timer);
    if (this.#at === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(this.#ring, Math.min(Math.max(this.#at - now, 0), MAX_TIMER_MS));
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
