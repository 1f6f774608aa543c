// The time of a place. What lasts is judged by its elapsed time: the server's clock, and ahead of it by as much as that
// was ever set back. What is named as a time is judged by the server's clock as it is.
import { elapsed, type Reading } from "../clock.js";
import type { Ask } from "./batch.js";
import { TABLES } from "./tables.js";

/** A clock was set if it has left the time that has passed by more than this. */
export const STEP_MS = 1000;
/** Of the time since a clock was read last, as much as two clocks may run apart. */
const DRIFT_PART = 1 / 1000;

/** The server's clock, in milliseconds since 1970. */
export const WALL = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const AHEAD_KEY = "clock_ahead_ms";
/** What a `Seen` is made of. Only turns that write leave their time: what a read saw as now binds nobody. */
export const CLOCK_COLUMNS = `${WALL} AS wall,
  coalesce((SELECT value::bigint FROM pawl_meta WHERE key = '${AHEAD_KEY}'), 0) AS ahead,
  coalesce((SELECT max(now_ms) FROM pawl_shared_turn), 0) AS latest`;
export const LOOK_AT_CLOCK: Ask = { name: "pawl_look_at_clock", text: `SELECT ${CLOCK_COLUMNS}, ${TABLES}` };

/** What the database says of the time. */
export interface Seen {
  readonly wall: number;
  /** The elapsed time ahead of the server's clock. */
  readonly ahead: number;
  /** The elapsed time of the last turn that wrote. */
  readonly latest: number;
}

/** The time that something seen says. */
export function timeOf({ wall, ahead, latest }: Seen): Reading {
  const now = Math.max(wall + ahead, latest);
  return { now, retentionNow: now, wallMs: wall };
}

/** The server's clock was set: the elapsed time is to be so far ahead of it, and was before by as much. */
export interface ClockStep {
  readonly from: number;
  readonly to: number;
}

/** Puts a step right; of several daemons that have seen it, the first does. */
export function correctClock({ from, to }: ClockStep): Ask {
  if (to < from) {
    const text = `UPDATE pawl_meta SET value = $1 WHERE key = '${AHEAD_KEY}' AND value = $2`;
    return { text, values: [`${to}`, `${from}`] };
  }
  const text = `INSERT INTO pawl_meta (key, value) VALUES ('${AHEAD_KEY}', $1) ON CONFLICT (key)
    DO UPDATE SET value = greatest(CAST(pawl_meta.value AS BIGINT), CAST(excluded.value AS BIGINT))`;
  return { text, values: [`${to}`] };
}

/** The time of a place, as far as this daemon knows it. */
export class PlaceClock {
  /** The place's time ahead of `elapsed` as it was read last: at least, if the answer took no time, and at most. */
  #leastMs = 0;
  #mostMs = 0;
  #wallBehindMs = 0;
  /** When it was read, in milliseconds of `elapsed`. */
  #readAt = 0;
  /** False as long as a new connection has read nothing: time may have passed that `elapsed` does not know of. */
  #isFollowed = false;

  /** There is a new connection. */
  begin(): void {
    this.#isFollowed = false;
  }

  /** @param sentAt when it was asked for, in milliseconds of `elapsed`. */
  follow(seen: Seen, sentAt: number): Reading {
    const time = timeOf(seen);
    this.#readAt = elapsed();
    this.#leastMs = time.now - this.#readAt;
    this.#mostMs = time.now - sentAt;
    this.#wallBehindMs = time.now - time.wallMs;
    this.#isFollowed = true;
    return time;
  }

  time(): Reading {
    const now = Math.floor(elapsed() + this.#leastMs);
    return { now, retentionNow: now, wallMs: now - this.#wallBehindMs };
  }

  /**
   * How the server's clock was set, if it was: back, or, where it had been before, forward again. Back is what its
   * own turns say: a daemon whose clock runs fast would end what all others hold. Any other step forward counts as time
   * that has passed, since this machine may have stood still.
   */
  stepIn({ wall, ahead, latest }: Seen): ClockStep | undefined {
    if (latest - wall - ahead > STEP_MS) return { from: ahead, to: latest - wall };
    if (ahead === 0 || !this.#isFollowed) return undefined;
    const [now, readAt] = [elapsed(), this.#readAt];
    const most = Math.ceil(now + this.#mostMs);
    const earlyMs = wall + ahead - most;
    // What a turn has left of it binds all others.
    if (earlyMs <= STEP_MS + (now - readAt) * DRIFT_PART || latest > most) return undefined;
    return { from: ahead, to: Math.max(ahead - earlyMs, 0) };
  }
}
