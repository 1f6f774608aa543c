import { all, type Env, type Operation, one, sql } from "../operation.js";

/** Rows that one turn removes or ends at most, so that a large backlog never stalls other requests. */
const ROWS_PER_STEP = 500;

/**
 * What ends without being asked to: by time, with a connection, or with the daemon. `earliest` finds the next moment at which something is due, from an index;
 * `expire` does what is due at `env.now`, at most `rows` rows of it, and says how many it did. The reactor
 * runs it at that moment, and before anything else in a turn that comes later than it.
 */
export interface Expiry {
  earliest(): Operation<number | undefined>;
  expire(env: Env, rows: number): Operation<number>;
  /** Moves the deadlines of grants when the clock was stepped forward: what remains of them stays the same. */
  postpone?(byMs: number): Operation<void>;
  /** Releases what was granted for as long as this connection lasts. */
  disconnect?(connection: number, env: Env): Operation<void>;
  /** The daemon was started again: no connection of before is left. Runs once, before any call. */
  restart?(env: Env): Operation<void>;
}

/**
 * What is merely kept is removed this long after it may be, so that a daemon with nothing else to do wakes
 * once for many rows. Reading already ignores it from the exact moment on.
 */
const PRUNE_EVERY_MS = 60_000;

const earliestRequest = sql<{ at: number | null }>("SELECT min(expires_at) AS at FROM pawl_request");

const deleteRequests = sql<{ request_id: string }>(`
  DELETE FROM pawl_request WHERE request_id IN
    (SELECT request_id FROM pawl_request WHERE expires_at <= :now ORDER BY expires_at LIMIT :rows)
  RETURNING request_id`);

const requests: Expiry = {
  *earliest() {
    const at = (yield* one(earliestRequest))?.at ?? undefined;
    return at === undefined ? undefined : at + PRUNE_EVERY_MS;
  },
  *expire(env, rows) {
    return (yield* all(deleteRequests, { now: env.now, rows })).length;
  },
};

/** Everything that expires. Grants come before what is merely kept, so that their waiters wait for nothing. */
const EXPIRIES: readonly Expiry[] = [requests];

/** Does what is due, in bounded steps. Returns when it has to run next: `env.now` if a step was full. */
export function* expire(env: Env): Operation<number> {
  let next = Number.POSITIVE_INFINITY;
  for (const expiry of EXPIRIES) {
    const done = yield* expiry.expire(env, ROWS_PER_STEP);
    const earliest = done < ROWS_PER_STEP ? yield* expiry.earliest() : env.now;
    next = Math.min(next, earliest ?? Number.POSITIVE_INFINITY);
  }
  return next;
}

/** Keeps what remains of every grant when the clock jumped forward. */
export function* postpone(byMs: number): Operation<void> {
  for (const expiry of EXPIRIES) {
    if (expiry.postpone !== undefined) yield* expiry.postpone(byMs);
  }
}

/** A connection with grants bound to it has closed. */
export function* disconnect(connection: number, env: Env): Operation<void> {
  for (const expiry of EXPIRIES) {
    if (expiry.disconnect !== undefined) yield* expiry.disconnect(connection, env);
  }
}

/** The first operation of a daemon's life. */
export function* restart(env: Env): Operation<void> {
  for (const expiry of EXPIRIES) {
    if (expiry.restart !== undefined) yield* expiry.restart(env);
  }
}
