import type { Boottime } from "../clock.js";
import type { Operation } from "../store/statement.js";
import { type Due, NEVER } from "../turns/alarm.js";
import type { Env } from "../turns/operation.js";

/**
 * Rows that are merely kept are removed this long after they may be, so that a daemon with nothing else to do wakes
 * once for many of them. Reading ignores them from the exact moment on.
 */
export const PRUNE_EVERY_MS = 60_000;

/** A moment of elapsed time, as a query for the earliest one gives it. */
export function dueAt(at: number | null | undefined): Due {
  return at === null || at === undefined ? NEVER : { ...NEVER, at };
}

/** A moment of the wall clock, likewise. */
export function dueWallAt(wallAt: number | null | undefined): Due {
  return wallAt === null || wallAt === undefined ? NEVER : { ...NEVER, wallAt };
}

/** When what has been final since this moment is removed. */
export function retentionEnd(since: number | null | undefined, env: Env): Due {
  if (since === null || since === undefined) return NEVER;
  return dueAt(env.now + since - env.retentionNow + env.retentionMs + PRUNE_EVERY_MS);
}

/** Something has become final now: sees to it that it is removed when the time of retention is over. */
export function retain(env: Env): void {
  env.effects.deadline(env.now + env.retentionMs + PRUNE_EVERY_MS);
}

/**
 * Something that ends or begins without a call: by time, with a connection, or with the daemon. `earliest` finds the
 * next moment from an index; `expire` does what is due at `env.now` and `env.wallMs`, at most `rows` rows of it, and
 * says how many rows that were. The turn loop calls `expire` at that moment, and in a turn that comes later before
 * anything else.
 */
export interface Ending {
  earliest(env: Env): Operation<Due>;
  expire(env: Env, rows: number): Operation<number>;
  /** The noun of what `disconnect` releases. */
  readonly noun?: string;
  /** Releases what was granted for as long as this connection lasts, in the same way. */
  disconnect?(connection: number, env: Env, rows: number): Operation<number>;
  /** The daemon was started again: no connection of before is left. Runs once, before any call. */
  restart?(env: Env, boottime: Boottime): Operation<void>;
  /**
   * The daemon that had the connections from `first` to `last` is gone, among others that go on: as after a restart,
   * but of its own connections alone.
   */
  abandon?(first: number, last: number, env: Env): Operation<void>;
  /** No daemon was there for a while, so that nobody could renew: every grace begins anew. */
  prolong?(env: Env): Operation<void>;
  /** The machine slept. */
  wakeUp?(env: Env, boottime: Boottime): Operation<void>;
  /**
   * The daemon was held up: what has ended since `since` goes on until `until`, so that a renewal counts that was sent
   * meanwhile.
   */
  goOn?(since: number, until: number, env: Env): Operation<void>;
  /**
   * When the last of these grants ends, or several such times, or none: until then a daemon is not idle. Infinity where
   * nobody knows.
   *
   * @param own the connections of a daemon, where others share the rows: of what these have made or renewed.
   */
  latest?(own?: Connections): Operation<readonly number[]>;
}

/** The numbers of the connections of one of several daemons, from the first to the last. */
export type Connections = Readonly<Record<"first" | "last", number>>;
