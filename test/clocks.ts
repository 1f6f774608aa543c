// The clocks of a machine as a test wants them.
import type { TimeSource } from "../daemon/dist/clock.js";

/** The time with which the clocks of every test begin. */
export const START = 1_700_000_000_000;

export class Clocks implements TimeSource {
  #wall = START;
  #monotonic = 5000;
  #slept = 0;
  #boots = 1;
  wall = (): number => this.#wall;
  monotonic = (): number => this.#monotonic;
  boottime = (): number => this.#monotonic + this.#slept;
  get boot(): string {
    return `boot ${this.#boots}`;
  }

  /** Time passes as it should. */
  pass(ms: number): void {
    this.#wall += ms;
    this.#monotonic += ms;
  }

  /** The wall clock is set forward, or back. */
  step(ms: number): void {
    this.#wall += ms;
  }

  sleep(ms: number): void {
    this.#wall += ms;
    this.#slept += ms;
  }

  /** The machine is off for so long, and has another wall clock by so much then. */
  reboot(offMs: number, steppedMs = 0): void {
    this.#wall += offMs + steppedMs;
    this.#monotonic = 0;
    this.#slept = 0;
    this.#boots += 1;
  }
}
