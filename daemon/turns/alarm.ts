import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import { elapsed, type Reading } from "../clock.js";

/** The wall clock can be set at any moment and tells nobody: while something waits by it, it is looked at so often. */
const LOOK_EVERY_MS = 1000;

/** The next times at which something ends by itself, in milliseconds of each of the two clocks; infinity for never. */
export interface Due {
  /** Elapsed time. */
  readonly at: number;
  readonly wallAt: number;
}

export const NEVER: Due = { at: Number.POSITIVE_INFINITY, wallAt: Number.POSITIVE_INFINITY };

/** The sooner of the times, for each clock. */
export function sooner(a: Due, b: Due): Due {
  return { at: Math.min(a.at, b.at), wallAt: Math.min(a.wallAt, b.wallAt) };
}

/** The next time at which something ends by itself, and the timer that asks for a turn then. */
export class Alarm {
  #due: Due;
  #timer: NodeJS.Timeout | undefined;
  /** The time for which the timer is running, if it is. */
  #woundFor: Due | undefined;
  /** When the timer rings, in milliseconds of `elapsed`. */
  #ringsAt = Number.POSITIVE_INFINITY;
  readonly #ring: () => void;
  readonly #elapsed: () => number;

  /** @param elapsedTime the clock by which it is told how late the timer rings. */
  constructor(due: Due, ring: () => void, elapsedTime: () => number = elapsed) {
    this.#due = due;
    this.#ring = ring;
    this.#elapsed = elapsedTime;
  }

  isDue({ now, wallMs }: Reading): boolean {
    return now >= this.#due.at || wallMs >= this.#due.wallAt;
  }

  /** The elapsed time at which the next thing ends, if the wall clock goes on as it does now. */
  dueAt({ now, wallMs }: Reading): number {
    return Math.min(this.#due.at, this.#due.wallAt - wallMs + now);
  }

  /** How long ago the timer should have rung, in milliseconds; negative while that is still to come. */
  get lateMs(): number {
    return this.#elapsed() - this.#ringsAt;
  }

  setTo(due: Due): void {
    this.#due = due;
  }

  noLaterThan(due: Due): void {
    if (due.at < this.#due.at || due.wallAt < this.#due.wallAt) this.#due = sooner(this.#due, due);
  }

  /**
   * Starts the timer, or goes on with it if the time is the same. A time beyond the longest timer is looked at again
   * then.
   */
  wind({ now, wallMs }: Reading): void {
    const { at, wallAt } = this.#due;
    if (at === this.#woundFor?.at && wallAt === this.#woundFor.wallAt) return;
    this.stop();
    const looks = wallAt === Number.POSITIVE_INFINITY ? MAX_TIMER_MS : LOOK_EVERY_MS;
    if (at === Number.POSITIVE_INFINITY && looks === MAX_TIMER_MS) return;
    this.#woundFor = this.#due;
    const delayMs = Math.max(Math.min(at - now, wallAt - wallMs, looks), 0);
    this.#ringsAt = this.#elapsed() + delayMs;
    this.#timer = setTimeout(() => {
      this.#woundFor = undefined;
      this.#ring();
    }, delayMs);
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#ringsAt = Number.POSITIVE_INFINITY;
    this.#woundFor = undefined;
  }
}
