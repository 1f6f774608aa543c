import { deliveries } from "../domain/command/ends.js";
import { keptCommands } from "../domain/command/retention.js";
import { leases } from "../domain/lease/lease.js";
import { claims } from "../domain/queue/ends.js";
import { endedBatches } from "../domain/queue/retention.js";
import { all, type Operation, one, run, sql } from "../store/statement.js";
import type { Endings } from "../turns/attempt.js";
import type { Env } from "../turns/operation.js";
import { PRUNE_EVERY_MS } from "./pruning.js";

/** Rows that one turn removes or ends at most, so that a large backlog never stalls other requests. */
const ROWS_PER_STEP = 500;

/**
 * What ends without being asked to: by time, with a connection, or with the daemon. `earliest` finds the next moment at which something is due, from an index;
 * `expire` does what is due at `env.now`, at most `rows` rows of it, and says how many it did. The reactor
 * runs it at that moment, and before anything else in a turn that comes later than it.
 */
export interface Expiry {
  earliest(env: Env): Operation<number | undefined>;
  expire(env: Env, rows: number): Operation<number>;
  /** Moves the deadlines of grants when the clock was stepped forward: what remains of them stays the same. */
  postpone?(byMs: number): Operation<void>;
  /** Releases what was granted for as long as this connection lasts; of more than `rows`, the rest expires. */
  disconnect?(connection: number, env: Env, rows: number): Operation<void>;
  /** The daemon was started again: no connection of before is left. Runs once, before any call. */
  restart?(env: Env): Operation<void>;
  /** When the last of these grants ends, if there are any: until then a daemon is not idle. */
  latest?(): Operation<number | undefined>;
}

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
const EXPIRIES: readonly Expiry[] = [leases, claims, deliveries, requests, endedBatches, keptCommands];

/**
 * While something is granted, the time is written to the database at least this often: a daemon that is killed
 * and restarted with the clock set back goes on from there, so what remains of a grant grows by no more.
 */
const KEEP_TIME_MS = 10_000;

/** The store keeps the time with every transaction that changes anything, so this only has to change something. */
const touchTime = sql(
  "UPDATE pawl_meta SET value = :now WHERE key = 'high_water_mark' AND CAST(value AS INTEGER) < CAST(:now AS INTEGER)",
);

/** Does what is due, in bounded steps. Returns when it has to run next: `env.now` if a step was full. */
export function* expire(env: Env): Operation<number> {
  let next = Number.POSITIVE_INFINITY;
  for (const expiry of EXPIRIES) {
    const done = yield* expiry.expire(env, ROWS_PER_STEP);
    const earliest = done < ROWS_PER_STEP ? yield* expiry.earliest(env) : env.now;
    next = Math.min(next, earliest ?? Number.POSITIVE_INFINITY);
  }
  if ((yield* latestGrant()) !== undefined) {
    yield* run(touchTime, { now: String(env.now) });
    next = Math.min(next, env.now + KEEP_TIME_MS);
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
function* disconnect(connection: number, env: Env): Operation<void> {
  for (const expiry of EXPIRIES) {
    if (expiry.disconnect !== undefined) yield* expiry.disconnect(connection, env, ROWS_PER_STEP);
  }
}

/** The first operation of a daemon's life. */
export function* restart(env: Env): Operation<void> {
  for (const expiry of EXPIRIES) {
    if (expiry.restart !== undefined) yield* expiry.restart(env);
  }
}

/** When the last grant ends, or undefined when nothing is granted. */
export function* latestGrant(): Operation<number | undefined> {
  let latest: number | undefined;
  for (const expiry of EXPIRIES) {
    const at = expiry.latest === undefined ? undefined : yield* expiry.latest();
    if (at !== undefined && (latest === undefined || at > latest)) latest = at;
  }
  return latest;
}

/** What the turn loop is to know of all this. */
export const endings: Endings = { keepTimeMs: KEEP_TIME_MS, expire, disconnect, postpone };
