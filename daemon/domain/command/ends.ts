// What time, connections and restarts end.
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { ownEnd, postponedConnection } from "../../grants/restart-grace.js";
import { all, one, run, sql } from "../../store/statement.js";
import { countStates } from "./counts.js";
import { abort, EXPIRED, giveBack, LIVE_COLUMNS, type LiveRow, readyKey } from "./row.js";

const earliest = sql<{ due: number | null; lease: number | null; delayed: number | null }>(`
  SELECT (SELECT min(due_at) FROM pawl_command WHERE due_at IS NOT NULL) AS due,
    (SELECT min(lease_expires_at) FROM pawl_command WHERE lease_expires_at IS NOT NULL) AS lease,
    (SELECT min(delayed_until) FROM pawl_command WHERE delayed_until IS NOT NULL) AS delayed`);

const latestLease = sql<{ at: number | null }>(
  "SELECT max(lease_expires_at) AS at FROM pawl_command WHERE lease_expires_at IS NOT NULL",
);

const selectDue = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE due_at <= :now ORDER BY due_at LIMIT :rows`);

const selectEnded = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE lease_expires_at <= :now ORDER BY lease_expires_at LIMIT :rows`);

const endDelays = sql<{ deployment: string }>(`
  UPDATE pawl_command SET ready_at = delayed_until, delayed_until = NULL WHERE seq IN
    (SELECT seq FROM pawl_command WHERE delayed_until <= :now ORDER BY delayed_until LIMIT :rows)
  RETURNING deployment`);

const postponeLeases = sql(`
  UPDATE pawl_command SET lease_expires_at = lease_expires_at + :byMs,
    lease_connection = ${postponedConnection("lease_connection")}
  WHERE lease_expires_at IS NOT NULL`);

const selectOfConnection = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE lease_connection = :connection ORDER BY seq LIMIT :rows`);

const endOfConnection = sql(`
  UPDATE pawl_command SET lease_expires_at = :now, lease_connection = NULL WHERE lease_connection = :connection`);

/** A push ends with its connection; a lease that ends with one is given time to be renewed on another. */
const DELIVERY_END = ownEnd("lease_connection", "coalesce(lease_expires_at, :now)");

const forgetConnections = sql(`
  UPDATE pawl_command
  SET lease_connection = -${DELIVERY_END}, lease_expires_at = min(:grace, ${DELIVERY_END})
  WHERE lease_connection IS NOT NULL`);

/** Everything about commands that time, connections and restarts end. */
export const deliveries: Expiry = {
  *earliest() {
    const found = yield* one(earliest);
    const moments = [found?.due, found?.lease, found?.delayed].filter((at) => typeof at === "number");
    return moments.length === 0 ? undefined : Math.min(...moments);
  },

  *expire(env, rows) {
    // First: what is due at the moment at which its lease ends is EXPIRED, not given back.
    const due = yield* all(selectDue, { now: env.now, rows });
    for (const row of due) yield* abort(row, { state: "EXPIRED", cause: EXPIRED, reason: "EXPIRED" }, env);
    const ended = yield* all(selectEnded, { now: env.now, rows });
    for (const row of ended) yield* giveBack(row, 0, env);
    const delayed = yield* all(endDelays, { now: env.now, rows });
    for (const deployment of new Set(delayed.map((each) => each.deployment))) {
      env.effects.wake(readyKey(deployment));
    }
    return Math.max(due.length, ended.length, delayed.length);
  },

  *postpone(byMs) {
    yield* run(postponeLeases, { byMs });
  },

  *disconnect(connection, env, rows) {
    const ended = yield* all(selectOfConnection, { connection, rows });
    for (const row of ended) yield* giveBack(row, 0, env);
    if (ended.length < rows) return;
    // The others by the next steps of expiry.
    yield* run(endOfConnection, { connection, now: env.now });
    env.effects.deadline(env.now);
  },

  *restart(env) {
    for (const { state, commands } of yield* all(countStates))
      env.effects.count(`commands${state}`, commands);
    yield* run(forgetConnections, { now: env.now, grace: env.now + RESTART_GRACE_MS });
  },

  *latest() {
    return (yield* one(latestLease))?.at ?? undefined;
  },
};
