import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import type { Ends } from "./grants/ends.js";
import type { TurnLoop } from "./turns/turn-loop.js";

/**
 * Ends the daemon when nobody has been connected for so many seconds (`--idle-exit`). They count from the end of the
 * last grant, since nobody can renew it without connecting. A daemon with an enabled schedule is never idle, nor is one
 * that has to end the process of a grant when that is lost.
 */
export class IdleExit {
  readonly #loop: TurnLoop;
  readonly #ends: Ends;
  /** True if the daemon only reads, so that it has granted nothing. */
  readonly #readOnly: boolean;
  readonly #isIdle: () => boolean;
  readonly #sharedLastMs: () => Promise<number>;
  readonly #exit: () => void;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /**
   * @param options `sharedLastMs` says for how many milliseconds the last of the grants lasts that this daemon has made
   * of shared names; infinity where nobody knows.
   */
  constructor(options: {
    loop: TurnLoop;
    ends: Ends;
    readOnly: boolean;
    isIdle: () => boolean;
    sharedLastMs: () => Promise<number>;
    exit: () => void;
  }) {
    this.#loop = options.loop;
    this.#ends = options.ends;
    this.#readOnly = options.readOnly;
    this.#isIdle = options.isIdle;
    this.#sharedLastMs = options.sharedLastMs;
    this.#exit = options.exit;
  }

  /** Counts down anew if nobody is connected. `seconds` undefined never ends the daemon. */
  watch(seconds: number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (seconds === undefined || this.#stopped || !this.#isIdle()) return;
    this.#countDown(seconds, this.#lastGrantMs());
  }

  /** @param lastsMs for how long the last grant lasts; what is beyond all timers is looked at again. */
  #countDown(seconds: number, lastsMs: number): void {
    const idleMs = seconds * 1000;
    const isKnown = lastsMs + idleMs <= MAX_TIMER_MS;
    this.#timer = setTimeout(
      () => {
        // What was lost lasts on until its process has ended.
        if (isKnown && this.#lastGrantMs() === 0) void this.#exitUnlessShared(seconds);
        else this.watch(seconds);
      },
      isKnown ? lastsMs + idleMs : idleMs,
    );
  }

  /** What is shared is looked at last, since that takes a while. */
  async #exitUnlessShared(seconds: number): Promise<void> {
    const timer = this.#timer;
    const lastsMs = await this.#sharedLastMs();
    // Somebody has connected meanwhile, or it has begun to stop.
    if (this.#timer !== timer || !this.#isIdle()) return;
    if (lastsMs === 0) this.#exit();
    else if (lastsMs === Number.POSITIVE_INFINITY) this.watch(seconds);
    else this.#countDown(seconds, lastsMs);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Infinity while the database cannot be read, and where nobody knows an end, as with a schedule. */
  #lastGrantMs(): number {
    let lastsMs = 0;
    if (this.#readOnly) return lastsMs;
    const ends = this.#ends;
    try {
      this.#loop.performNow(
        function* ({ now }) {
          lastsMs = Math.max(0, ((yield* ends.latest()) ?? now) - now);
        },
        { onlyReads: true },
      );
    } catch {
      return Number.POSITIVE_INFINITY;
    }
    return lastsMs;
  }
}
