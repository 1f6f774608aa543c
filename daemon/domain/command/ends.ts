// Commands whose time is over, deliveries that end unanswered, and delays.
import { dueAt, dueWallAt, type Ending } from "../../grants/ending.js";
import type { GrantRule } from "../../grants/grant.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { sooner } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import { EXECUTION_TIME } from "./delivery.js";
import {
  abort,
  DELIVERY_TABLE,
  EXPIRED,
  isPushed,
  LIVE_COLUMNS,
  type LiveRow,
  lose,
  makeReady,
} from "./row.js";
import { lostBefore } from "./state.js";

const earliestDue = sql<{ at: number | null }>(
  "SELECT min(due_at) AS at FROM pawl_command WHERE due_at IS NOT NULL",
);

const earliestDeadline = sql<{ at: number | null }>(
  "SELECT min(deadline) AS at FROM pawl_command WHERE deadline IS NOT NULL AND completed_at IS NULL",
);

const selectDue = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE due_at <= :now ORDER BY due_at LIMIT :rows`);

const selectOverdue = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE deadline <= :wallMs AND completed_at IS NULL
  ORDER BY deadline LIMIT :rows`);

const prolongDue = sql(
  "UPDATE pawl_command SET due_at = :until WHERE due_at > :since AND due_at <= :now AND completed_at IS NULL",
);

/** Those go on as ones that were given a time from their creation on, and show the deadline that was named. */
const prolongDeadlines = sql(`
  UPDATE pawl_command SET deadline = NULL, ttl_ends_at = :now - (:wallMs - deadline), due_at = :until
  WHERE deadline > :wallSince AND deadline <= :wallMs AND completed_at IS NULL`);

const prolongExecution = sql(`
  UPDATE pawl_command SET execution_ends_at = :until WHERE execution_ends_at > :since AND execution_ends_at <= :now`);

/** Before the ends of deliveries: what is due at the moment at which its lease ends is EXPIRED, and not given back. */
export const overdueCommands: Ending = {
  *earliest() {
    return sooner(dueAt((yield* one(earliestDue))?.at), dueWallAt((yield* one(earliestDeadline))?.at));
  },

  *expire(env, rows) {
    const { now, wallMs } = env;
    let ended = 0;
    for (const [statement, times] of [
      [selectDue, { now }],
      [selectOverdue, { wallMs }],
    ] as const) {
      const due = yield* all(statement, { ...times, rows });
      for (const row of due) yield* expire(row, env);
      ended = Math.max(ended, due.length);
    }
    return ended;
  },

  /** An answer that was sent in time counts. */
  *goOn(since, until, env) {
    const { now, wallMs } = env;
    yield* run(prolongDue, { since, until, now });
    yield* run(prolongDeadlines, { wallSince: wallMs - (now - since), wallMs, now, until });
  },
};

/** Ends a command whose time is over, or whose last delivery has ended before that. */
export function* expire(row: LiveRow, env: Env): Operation<void> {
  const end = { state: "EXPIRED", cause: EXPIRED, reason: "EXPIRED" } as const;
  const lost = lostBefore(row, env);
  if (lost === undefined) return yield* abort(row, end, env);
  yield* endOverlong(row, env);
  if (lost.state === "PENDING") yield* abort({ ...row, ...lost, leaseExpiresAt: null }, end, env);
}

export const deliveries: GrantRule<LiveRow> = {
  ...DELIVERY_TABLE,
  *end(row, _cause, env) {
    yield* lose(row, env);
    return 1;
  },
};

const earliestExecutionEnd = sql<{ at: number | null }>(
  "SELECT min(execution_ends_at) AS at FROM pawl_command WHERE execution_ends_at IS NOT NULL",
);

const selectOverlong = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE execution_ends_at <= :now
  ORDER BY execution_ends_at LIMIT :rows`);

/**
 * Ends a delivery that is over. Whoever has it by push is told, and has room for another from then on; the others find
 * out by renewing.
 */
function* endOverlong(row: LiveRow, env: Env): Operation<void> {
  yield* lose(row, env);
  const { commandId, leaseConnection: connection } = row;
  if (!isPushed(row) || connection === null) return;
  env.effects.notify(connection, "command.cancelled", { commandId, reason: EXECUTION_TIME });
}

/** Deliveries that took longer than they may. */
export const overlongDeliveries: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestExecutionEnd))?.at);
  },

  *expire(env, rows) {
    const found = yield* all(selectOverlong, { now: env.now, rows });
    for (const row of found) yield* endOverlong(row, env);
    return found.length;
  },

  *goOn(since, until, env) {
    yield* run(prolongExecution, { since, until, now: env.now });
  },
};

const earliestDelay = sql<{ at: number | null }>(
  "SELECT min(delayed_until) AS at FROM pawl_command WHERE delayed_until IS NOT NULL",
);

const selectDelayed = sql<{ seq: number; deployment: string; incarnation: string | null }>(`
  SELECT seq, deployment, incarnation FROM pawl_command WHERE delayed_until <= :now ORDER BY delayed_until, seq LIMIT :rows`);

/** Commands that were given back to be leased later. */
export const delayedCommands: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestDelay))?.at);
  },

  *expire(env, rows) {
    const delayed = yield* all(selectDelayed, { now: env.now, rows });
    for (const row of delayed) yield* makeReady(row, env);
    return delayed.length;
  },
};
