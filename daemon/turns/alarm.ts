import { MAX_TIMER_MS } from "@pawl/protocol/limits";

/** The next time at which something ends by itself, and the timer that asks for a turn then. */
export class Alarm {
  #at: number;
  #timer: NodeJS.Timeout | undefined;
  /** The time for which the timer is running, if it is. */
  #woundFor: number | undefined;
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

  /**
   * Starts the timer, or goes on with it if the time is the same. A time beyond the longest timer is looked at again
   * then.
   */
  wind(now: number): void {
    if (this.#at === this.#woundFor) return;
    this.stop();
    if (this.#at === Number.POSITIVE_INFINITY) return;
    this.#woundFor = this.#at;
    this.#timer = setTimeout(
      () => {
        this.#woundFor = undefined;
        this.#ring();
      },
      Math.min(Math.max(this.#at - now, 0), MAX_TIMER_MS),
    );
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#woundFor = undefined;
  }
}
