// The room of ends: by time, with a connection, over a restart. The room knows the rules and no noun; each noun gives
// its own (`domain/ends.ts` lists them).
import type { Boottime } from "../clock.js";
import type { Operation } from "../store/statement.js";
import { type Due, NEVER, sooner } from "../turns/alarm.js";
import type { Endings } from "../turns/attempt.js";
import type { Env } from "../turns/operation.js";
import { dueAt, type Ending } from "./ending.js";

/** Rows that one turn removes or ends at most, so that a large backlog never stalls other requests. */
const ROWS_PER_STEP = 500;

/** All ends that nobody asks for, in their order. */
export class Ends implements Endings {
  readonly #endings: readonly Ending[];

  constructor(endings: readonly Ending[]) {
    this.#endings = endings;
  }

  /** Does what is due, in bounded steps. Returns when it has to run next: at `env.now` if a step was full. */
  *expire(env: Env): Operation<Due> {
    let due = NEVER;
    for (const ending of this.#endings) {
      const done = yield* ending.expire(env, ROWS_PER_STEP);
      due = sooner(due, done < ROWS_PER_STEP ? yield* ending.earliest(env) : dueAt(env.now));
    }
    return due;
  }

  /** A connection with grants bound to it has closed. */
  *disconnect(connection: number, env: Env): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.disconnect !== undefined) yield* ending.disconnect(connection, env, ROWS_PER_STEP);
    }
  }

  /** The first operation of a daemon's life. */
  *restart(env: Env, boottime: Boottime): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.restart !== undefined) yield* ending.restart(env, boottime);
    }
  }

  /** The machine slept, which some go on in. */
  *wakeUp(env: Env, boottime: Boottime): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.wakeUp !== undefined) yield* ending.wakeUp(env, boottime);
    }
  }

  /** When the last grant ends, or undefined when nothing is granted. */
  *latest(): Operation<number | undefined> {
    const ends: number[] = [];
    for (const ending of this.#endings) {
      if (ending.latest !== undefined) ends.push(...(yield* ending.latest()));
    }
    return ends.length === 0 ? undefined : Math.max(...ends);
  }
}
