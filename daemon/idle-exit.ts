import type { Ends } from "./grants/ends.js";
import type { TurnLoop } from "./turns/turn-loop.js";

/**
 * Ends the daemon when nobody has been connected for so many seconds (`--idle-exit`). They count from the end of the
 * last grant, since nobody can renew it without connecting. A daemon with an enabled schedule is never idle.
 */
export class IdleExit {
  readonly #loop: TurnLoop;
  readonly #ends: Ends;
  /** True if the daemon only reads, so that it has granted nothing. */
  readonly #readOnly: boolean;
  readonly #isIdle: () => boolean;
  readonly #exit: () => void;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: {
    loop: TurnLoop;
    ends: Ends;
    readOnly: boolean;
    isIdle: () => boolean;
    exit: () => void;
  }) {
    this.#loop = options.loop;
    this.#ends = options.ends;
    this.#readOnly = options.readOnly;
    this.#isIdle = options.isIdle;
    this.#exit = options.exit;
  }

  /** Counts down anew if nobody is connected. `seconds` undefined never ends the daemon. */
  watch(seconds: number | undefined): void {
    clearTimeout(this.#timer);
    if (seconds === undefined || this.#stopped || !this.#isIdle()) return;
    const lastsMs = this.#lastGrantMs();
    const isKnown = lastsMs !== undefined && lastsMs !== Number.POSITIVE_INFINITY;
    this.#timer = setTimeout(
      () => {
        if (!this.#isIdle()) return;
        if (isKnown) this.#exit();
        else this.watch(seconds);
      },
      (isKnown ? lastsMs : 0) + seconds * 1000,
    );
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Undefined while the database cannot be read; infinity where nobody knows an end, as with a schedule. */
  #lastGrantMs(): number | undefined {
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
      return undefined;
    }
    return lastsMs;
  }
}
