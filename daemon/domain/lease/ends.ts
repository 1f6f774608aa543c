// Leases end by their ttl, with their connection and after a restart; their holders are warned of that.
import { shownAt } from "../../clock.js";
import { dueAt, type Ending } from "../../grants/ending.js";
import { type GrantRule, orderOfEnds } from "../../grants/grant.js";
import { all, one, run, sql, write } from "../../store/statement.js";
import { itemOfLease } from "../board/claims.js";
import { giveBack, LEASE_COLUMNS, type LeaseRow, lose, tell, tellLost } from "./row.js";

/** The end of an item's lease is as much work as the ends of so many others. */
const ROWS_PER_ITEM = 10;

export const leases: GrantRule<LeaseRow> = {
  ...LEASE_COLUMNS,
  *end(row, cause, env) {
    const lost = yield* lose(row, env);
    if (lost.length === 0) return 0;
    for (const each of lost) {
      if (cause === "expired") tellLost(each, "expired", null, env);
      else tell(each, "lost", env);
    }
    yield* giveBack(row, env);
    // The end of a claim of an item makes a signed change.
    const items = lost.filter(({ name }) => itemOfLease(name) !== undefined).length;
    return lost.length + items * ROWS_PER_ITEM;
  },
};

const earliestWarning = sql<{ at: number | null }>(
  "SELECT min(warn_at) AS at FROM pawl_lease WHERE warn_at IS NOT NULL",
);

const takeWarnings = sql<LeaseRow>(`
  UPDATE pawl_lease SET warn_at = NULL WHERE lease_id IN
    (SELECT lease_id FROM pawl_lease WHERE warn_at <= :now ORDER BY warn_at LIMIT :rows)
  RETURNING *`);

/** Connections are numbered anew in each life of the daemon. */
const forgetConnections = sql("UPDATE pawl_lease SET warn_at = NULL, connection = 0");

const forgetConnectionsOf = sql(`
  UPDATE pawl_lease SET warn_at = NULL, connection = 0 WHERE connection >= :first AND connection <= :last`);

const byEnd = orderOfEnds<LeaseRow>(LEASE_COLUMNS);

/** When holders are told that their lease is about to end. */
export const leaseWarnings: Ending = {
  *earliest() {
    return dueAt((yield* one(earliestWarning))?.at);
  },

  *expire(env, rows) {
    const warned = yield* all(takeWarnings, { now: env.now, rows });
    for (const row of warned.sort(byEnd)) {
      const { name, lease_id: leaseId, fencing_token: fencingToken, expires_at: at, connection } = row;
      const end = { expiresAt: shownAt(at, env), remainingMs: at - env.now };
      env.effects.notify(connection, "lease.expiring", { name, leaseId, fencingToken, ...end });
    }
    return warned.length;
  },

  *restart() {
    yield* run(forgetConnections);
  },

  *abandon(first, last) {
    yield* write(forgetConnectionsOf, { first, last });
  },
};
