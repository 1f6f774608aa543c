// Receivers that named themselves end with their connections and deliveries, and with them the commands that were for
// them alone.
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { dueAt, type Ending, retentionEnd } from "../../grants/ending.js";
import { all, type Operation, one, run, sql, write } from "../../store/statement.js";
import { sooner } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import { expire } from "./ends.js";
import { endUnlessAlive, gone } from "./incarnation.js";
import { abort, LIVE_COLUMNS, type LiveRow } from "./row.js";
import { isFinal, stateAt } from "./state.js";

const earliestGrace = sql<{ at: number | null }>(
  "SELECT min(grace_ends_at) AS at FROM pawl_incarnation WHERE grace_ends_at IS NOT NULL",
);

const earliestEnded = sql<{ at: number | null }>(
  "SELECT min(ended_at) AS at FROM pawl_incarnation WHERE ended_at IS NOT NULL",
);

const endGraces = sql<{ incarnationId: number }>(`
  UPDATE pawl_incarnation SET grace_ends_at = NULL WHERE incarnation_id IN
    (SELECT incarnation_id FROM pawl_incarnation WHERE grace_ends_at IS NOT NULL AND grace_ends_at <= :now
     ORDER BY grace_ends_at LIMIT :rows)
  RETURNING incarnation_id AS "incarnationId"`);

const selectWithCommands = sql<{ incarnationId: number; deployment: string; incarnation: string }>(`
  SELECT incarnation_id AS "incarnationId", deployment, incarnation FROM pawl_incarnation
  WHERE has_commands = 1 ORDER BY incarnation_id LIMIT 1`);

const forgetCommands = sql(
  "UPDATE pawl_incarnation SET has_commands = NULL WHERE incarnation_id = :incarnationId",
);

const selectMeant = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command
  WHERE deployment = :deployment AND incarnation = :incarnation AND completed_at IS NULL ORDER BY seq LIMIT :rows`);

const deleteEnded = sql<{ incarnationId: number }>(`
  DELETE FROM pawl_incarnation WHERE incarnation_id IN
    (SELECT incarnation_id FROM pawl_incarnation WHERE ended_at IS NOT NULL AND ended_at <= :before
     AND has_commands IS NULL ORDER BY ended_at LIMIT :rows)
  RETURNING incarnation_id AS "incarnationId"`);

const selectOfConnection = sql<{ incarnationId: number }>(`
  SELECT incarnation_id AS "incarnationId" FROM pawl_incarnation_connection
  WHERE connection = :connection ORDER BY incarnation_id LIMIT :rows`);

const deleteConnection = sql(`
  DELETE FROM pawl_incarnation_connection WHERE connection = :connection AND incarnation_id = :incarnationId`);

const deleteConnections = sql("DELETE FROM pawl_incarnation_connection");

const beginGraces = sql("UPDATE pawl_incarnation SET grace_ends_at = :graceEndsAt WHERE ended_at IS NULL");

const deleteConnectionsOf = sql(
  "DELETE FROM pawl_incarnation_connection WHERE connection >= :first AND connection <= :last",
);

const beginGracesOf = sql(`
  UPDATE pawl_incarnation SET grace_ends_at = :graceEndsAt WHERE ended_at IS NULL AND incarnation_id IN
    (SELECT incarnation_id FROM pawl_incarnation_connection WHERE connection >= :first AND connection <= :last)`);

const beginAnew = sql(
  "UPDATE pawl_incarnation SET grace_ends_at = :graceEndsAt WHERE grace_ends_at IS NOT NULL",
);

const prolongGraces = sql(`
  UPDATE pawl_incarnation SET grace_ends_at = :until
  WHERE grace_ends_at IS NOT NULL AND grace_ends_at > :since AND grace_ends_at <= :now`);

/** After deliveries, with which receivers end. */
export const incarnations: Ending = {
  noun: "command",

  *earliest(env) {
    if ((yield* one(selectWithCommands)) !== undefined) return dueAt(env.now);
    return sooner(dueAt((yield* one(earliestGrace))?.at), retentionEnd((yield* one(earliestEnded))?.at, env));
  },

  *expire(env, rows) {
    const graces = yield* all(endGraces, { now: env.now, rows });
    for (const { incarnationId } of graces) yield* endUnlessAlive(incarnationId, env);
    const ended = graces.length + (yield* endCommands(env, rows - graces.length));
    const before = env.retentionNow - env.retentionMs;
    const forgotten = ended >= rows ? 0 : (yield* all(deleteEnded, { before, rows: rows - ended })).length;
    return ended + forgotten;
  },

  *disconnect(connection, env, rows) {
    const named = yield* all(selectOfConnection, { connection, rows });
    for (const { incarnationId } of named) {
      yield* run(deleteConnection, { connection, incarnationId });
      yield* endUnlessAlive(incarnationId, env);
    }
    return named.length;
  },

  /** As for grants: its receiver may be there again, on another connection. */
  *restart(env) {
    yield* run(deleteConnections);
    yield* run(beginGraces, { graceEndsAt: env.now + RESTART_GRACE_MS });
  },

  *abandon(first, last, env) {
    yield* write(beginGracesOf, { first, last, graceEndsAt: env.now + RESTART_GRACE_MS });
    yield* write(deleteConnectionsOf, { first, last });
  },

  *prolong(env) {
    yield* run(beginAnew, { graceEndsAt: env.now + RESTART_GRACE_MS });
  },

  *goOn(since, until, env) {
    yield* run(prolongGraces, { since, until, now: env.now });
  },
};

/** Ends at most so many commands whose receivers have ended. */
function* endCommands(env: Env, most: number): Operation<number> {
  let ended = 0;
  while (ended < most) {
    const receiver = yield* one(selectWithCommands);
    if (receiver === undefined) return ended;
    const { incarnationId, deployment, incarnation } = receiver;
    const rows = most - ended;
    const found = yield* all(selectMeant, { deployment, incarnation, rows });
    for (const row of found) {
      const end = { state: "FAILED", cause: gone(incarnation), reason: "GONE" } as const;
      if (isFinal(stateAt(row, env).state)) yield* expire(row, env);
      else yield* abort(row, end, env);
    }
    if (found.length < rows) yield* run(forgetCommands, { incarnationId });
    ended += Math.max(1, found.length);
  }
  return ended;
}
