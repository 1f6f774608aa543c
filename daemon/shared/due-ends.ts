import type { Logger } from "pino";
import { elapsed } from "../clock.js";
import type { Ending } from "../grants/ending.js";
import type { Ends } from "../grants/ends.js";
import type { Operation } from "../store/statement.js";
import { Alarm, type Due, NEVER, sooner } from "../turns/alarm.js";
import { DAEMON } from "../turns/call.js";
import type { Caller, Env } from "../turns/operation.js";
import type { Slot } from "./line.js";
import { LOOK_AT_CLOCK, type PlaceClock, type Seen } from "./place-clock.js";

/** What is due is looked for again so much later where that failed. */
const ENDS_AGAIN_MS = 1000;

export interface DueEndsOptions {
  readonly endings: Ends;
  readonly clock: PlaceClock;
  readonly log: Logger;
  /** False while the database is away, and once the daemon stops. */
  readonly isServed: () => boolean;
  /** Lends a session; rejects with a refusal where the database is away. */
  readonly withSlot: <T>(use: (slot: Slot) => Promise<T>) => Promise<T>;
  /** What operations know that only read. */
  readonly env: (caller: Caller) => Env;
  /** Performs an operation of the daemon itself, which has the whole place. */
  readonly performOwn: <T>(start: (env: Env) => Operation<T>) => Promise<T>;
}

/** What ends by time at a place: whichever daemon comes first ends it, and each knows when it has to look. */
export class DueEnds {
  readonly #options: DueEndsOptions;
  readonly #alarm = new Alarm(NEVER, () => void this.look());
  #isLooking = false;
  #isStopped = false;

  constructor(options: DueEndsOptions) {
    this.#options = options;
  }

  /** A turn has made something that ends then. */
  noLaterThan(due: Due): void {
    this.#alarm.noLaterThan(this.#byOneClock(due));
    this.#wind();
  }

  #wind(): void {
    if (!this.#isStopped) this.#alarm.wind(this.#options.clock.time());
  }

  /** Ends what is due, if anything is: that is looked at without a lock. */
  async look(): Promise<void> {
    const { endings, clock, log, isServed, performOwn } = this.#options;
    if (this.#isLooking || !isServed()) return;
    this.#isLooking = true;
    // What is granted meanwhile says by itself when it ends.
    this.#alarm.setTo(NEVER);
    try {
      const { due, next } = await this.#find();
      this.#alarm.noLaterThan(this.#byOneClock(next));
      if (due.length > 0) {
        this.#alarm.noLaterThan(this.#byOneClock(await performOwn((env) => endings.expire(env, due))));
      }
    } catch (error) {
      this.#alarm.noLaterThan({ ...NEVER, at: clock.time().now + ENDS_AGAIN_MS });
      if (isServed()) log.error({ err: error }, "what has ended of shared names cannot be ended now");
    }
    this.#isLooking = false;
    this.#wind();
  }

  /** What has something due, and when something of the others will be; all are asked at once. */
  async #find(): Promise<{ due: readonly Ending[]; next: Due }> {
    const { endings, clock, withSlot } = this.#options;
    return await withSlot(async ({ session }) => {
      try {
        const sentAt = elapsed();
        const [[row] = []] = await session.begin([LOOK_AT_CLOCK], { toRead: true });
        const seen = row as unknown as Seen;
        // A step of it is put right by who may write.
        if (clock.stepIn(seen) === undefined) clock.follow(seen, sentAt);
        const env = this.#options.env(DAEMON);
        const { all } = endings;
        const earliest = await Promise.all(all.map((ending) => session.drive(ending.earliest(env))));
        const isDue = ({ at, wallAt }: Due): boolean => at <= env.now || wallAt <= env.wallMs;
        return {
          due: all.filter((_, index) => isDue(earliest[index] as Due)),
          next: earliest.filter((each) => !isDue(each)).reduce(sooner, NEVER),
        };
      } finally {
        await session.rollback();
      }
    });
  }

  /** Who notices that the server's clock was set looks at once, so nobody has to look now and then whether it was. */
  #byOneClock({ at, wallAt }: Due): Due {
    const { now, wallMs } = this.#options.clock.time();
    return { ...NEVER, at: Math.min(at, wallAt - wallMs + now) };
  }

  stop(): void {
    this.#isStopped = true;
    this.#alarm.stop();
  }
}
