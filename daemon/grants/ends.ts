// The room of ends: by time, with a connection, over a restart. The room knows the rules and no noun; each noun gives
// its own (`domain/ends.ts` lists them).
import type { Boottime } from "../clock.js";
import type { Operation } from "../store/statement.js";
import { type Due, NEVER, sooner } from "../turns/alarm.js";
import type { Endings } from "../turns/attempt.js";
import { type Env, type Outcome, Unfinished } from "../turns/operation.js";
import { type Connections, dueAt, type Ending } from "./ending.js";

/** Rows that one turn ends or removes: some 4 ms of work, so that a large backlog never stalls other requests. */
const ROWS_PER_STEP = 300;
/** The same of one closed connection: less, since the half of a turn that is for these has to do for several. */
const ROWS_OF_CONNECTION = 100;
/** Rows of each kind that a turn ends at least, so that none waits for the end of another's backlog. */
const MIN_ROWS_PER_STEP = 20;

/** All ends that nobody asks for, in their order. */
export class Ends implements Endings {
  readonly #endings: readonly Ending[];

  constructor(endings: readonly Ending[]) {
    this.#endings = endings;
  }

  get all(): readonly Ending[] {
    return this.#endings;
  }

  /**
   * Does what is due, in bounded steps. Returns when it has to run next: at `env.now` if a step was full.
   *
   * @param some of the endings, where it is known that nothing is due of the others.
   */
  *expire(env: Env, some = this.#endings): Operation<Due> {
    let due = NEVER;
    let left = ROWS_PER_STEP;
    for (const ending of some) {
      const rows = Math.max(left, MIN_ROWS_PER_STEP);
      const done = yield* ending.expire(env, rows);
      left -= done;
      due = sooner(due, done < rows ? yield* ending.earliest(env) : dueAt(env.now));
    }
    return due;
  }

  /**
   * A connection with grants bound to it has closed. One step of releasing them, and those that follow it.
   *
   * @param noun whose grants alone are released, where it is known that there are no others.
   */
  *disconnect(connection: number, env: Env, noun?: string): Operation<Outcome<void>> {
    let left = ROWS_OF_CONNECTION;
    for (const ending of this.#endings) {
      if (ending.disconnect === undefined || (noun !== undefined && ending.noun !== noun)) continue;
      left -= yield* ending.disconnect(connection, env, left);
      if (left <= 0) return new Unfinished((later) => this.disconnect(connection, later, noun));
    }
  }

  /** The first operation of a daemon's life. */
  *restart(env: Env, boottime: Boottime): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.restart !== undefined) yield* ending.restart(env, boottime);
    }
  }

  /** Another daemon, which had these connections, is gone. */
  *abandon(first: number, last: number, env: Env): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.abandon !== undefined) yield* ending.abandon(first, last, env);
    }
  }

  /** None of several daemons was there for a while. */
  *prolong(env: Env): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.prolong !== undefined) yield* ending.prolong(env);
    }
  }

  /** The machine slept, which some go on in. */
  *wakeUp(env: Env, boottime: Boottime): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.wakeUp !== undefined) yield* ending.wakeUp(env, boottime);
    }
  }

  /** The daemon was held up: what has ended since `since` goes on until `until`. */
  *goOn(since: number, until: number, env: Env): Operation<void> {
    for (const ending of this.#endings) {
      if (ending.goOn !== undefined) yield* ending.goOn(since, until, env);
    }
  }

  /** When the last grant ends, of all or of those of some connections, or undefined when nothing is granted. */
  *latest(own?: Connections): Operation<number | undefined> {
    const ends: number[] = [];
    for (const ending of this.#endings) {
      if (ending.latest !== undefined) ends.push(...(yield* ending.latest(own)));
    }
    return ends.length === 0 ? undefined : Math.max(...ends);
  }
}
