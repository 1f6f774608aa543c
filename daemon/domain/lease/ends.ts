// Leases end by their ttl, with their connection and after a restart; their holders are warned of that.
import { shownAt } from "../../clock.js";
import { dueAt, type Ending } from "../../grants/ending.js";
import type { GrantRule } from "../../grants/grant.js";
import { all, one, run, sql } from "../../store/statement.js";
import { drop, giveBack, LEASE_COLUMNS, type LeaseRow, tell, tellLost } from "./row.js";

export const leases: GrantRule<LeaseRow> = {
  ...LEASE_COLUMNS,
  *end(row, cause, env) {
    if (cause === "expired") tellLost(row, "expired", null, env);
    else tell(row, "lost", env);
    yield* drop(row, env);
    yield* giveBack(row, env);
    return 1;
  },
};

const earliestWarning = sql<{ at: number | null }>(
  "SELECT min(warn_at) AS at FROM pawl_lease WHERE warn_at IS NOT NULL",
);

const takeWarnings = sql<LeaseRow>(`
  UPDATE pawl_lease SET warn_at = NULL WHERE name IN
    (SELECT name FROM pawl_lease WHERE warn_at <= :now ORDER BY warn_at LIMIT :rows)
  RETURNING *`);

/** Connections are numbered anew in each life of the daemon. */
const forgetConnections = sql("UPDATE pawl_lease SET warn_at = NULL, connection = 0");

/** When holders are told that their lease is about to end. */
export const leaseWarnings: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestWarning))?.at);
  },

  *expire(env, rows) {
    const warned = yield* all(takeWarnings, { now: env.now, rows });
    for (const row of warned) {
      const { name, lease_id: leaseId, fencing_token: fencingToken, expires_at: at, connection } = row;
      const end = { expiresAt: shownAt(at, env), remainingMs: at - env.now };
      env.effects.notify(connection, "lease.expiring", { name, leaseId, fencingToken, ...end });
    }
    return warned.length;
  },

  *restart() {
    yield* run(forgetConnections);
  },
};
