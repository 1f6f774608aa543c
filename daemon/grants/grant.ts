// Grants: claims, deliveries and leases, each for a while. A noun says how its kind is kept; this file says once when a
// grant ends and what a renewal does.
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { all, type Operation, one, run, type Statement, sql, write } from "../store/statement.js";
import { sooner } from "../turns/alarm.js";
import type { Env } from "../turns/operation.js";
import { dueAt, type Ending } from "./ending.js";

/** Why a grant has ended that nobody gave back. */
export type Cause = "expired" | "disconnected";

/**
 * One kind of grant: the table and the columns that keep it, and what its end does. A grant ends when its time is up.
 * One that is bound to a connection ends with that, too. After a restart of the daemon there is no such connection any
 * more: then it may be renewed for the time of a grace, and is bound to the connection that renews it.
 */
export interface GrantRule<Row> {
  readonly noun: string;
  readonly table: string;
  /** The SELECT of rows as `end` takes them, up to its first condition. */
  readonly rows: string;
  /**
   * The column of when the grant ends by itself, in elapsed milliseconds. Null for nothing granted, or for no end but
   * that of the connection.
   */
  readonly expiresAt: string;
  /**
   * The column of when the grace ends, in elapsed milliseconds. Null for a grant that is in none. Each of the two
   * columns has an index.
   */
  readonly graceEndsAt: string;
  /**
   * What rows call these two columns, and the key of the table: by that those end one after the other that end at the
   * same time. They are put in order here, since the database would look at all of them, however few a step ends.
   */
  readonly inRows: {
    readonly expiresAt: keyof Row & string;
    readonly graceEndsAt: keyof Row & string;
    readonly key: readonly (keyof Row & string)[];
  };
  /** The column of the connection, and what it has where there is none. */
  readonly connection: string;
  readonly unconnected: "NULL" | "0";
  /** The column of the connection that made or renewed a grant last, also one that is bound to none. */
  readonly holder: string;
  /** The condition of rows that are bound to a connection, which is that of an index. */
  readonly bound: string;
  /** The condition of grants in no grace that a renewal ties to its connection, too, if there are any. */
  readonly follows?: string;
  /**
   * The condition of grants, if there are any, that another one ends too, who knows nothing of a pause of the daemon.
   */
  readonly endedElsewhere?: string;
  /**
   * Of grants whose holder may come back after its connection has closed: the column of how many milliseconds that may
   * take, null for not at all, and the column that names the grant. Rows have both, as `end` takes them.
   */
  readonly comeBack?: {
    readonly graceMs: keyof Row & string;
    /** How the table calls that, if not as rows do. */
    readonly column?: string;
    readonly key: keyof Row & string;
  };
  /** Ends a grant; returns of how many rows that was. */
  end(row: Row, cause: Cause, env: Env): Operation<number>;
}

type Columns = Pick<GrantRule<never>, "expiresAt" | "graceEndsAt">;

/** The condition of grants that have not ended at `:now`. */
export function lasts({ expiresAt, graceEndsAt }: Columns): string {
  return `${expiresAt} > :now AND (${graceEndsAt} IS NULL OR ${graceEndsAt} > :now)`;
}

/** The SET of an UPDATE for a grant that is renewed until `:expiresAt` on `:connection`. */
export function renewal(rule: Columns & Pick<GrantRule<never>, "connection" | "follows">): string {
  const { expiresAt, graceEndsAt, connection, follows } = rule;
  const moves = `${graceEndsAt} IS NOT NULL${follows === undefined ? "" : ` OR ${follows}`}`;
  return `${expiresAt} = :expiresAt, ${graceEndsAt} = NULL,
    ${connection} = CASE WHEN ${moves} THEN :connection ELSE ${connection} END`;
}

/** When a grant ends: by itself, or sooner with the grace after a restart, unless it is renewed. */
export function endOf<N extends number | null>(expiresAt: N, graceEndsAt: number | null): N | number {
  return graceEndsAt === null ? expiresAt : Math.min(expiresAt ?? graceEndsAt, graceEndsAt);
}

/** The order in which grants of one kind end of those that have. */
export function orderOfEnds<Row>({ inRows }: Pick<GrantRule<Row>, "inRows">): (a: Row, b: Row) => number {
  const { expiresAt, graceEndsAt, key } = inRows;
  const endedAt = (row: Row): number =>
    endOf(row[expiresAt] as number | null, row[graceEndsAt] as number | null) as number;
  return (a, b) => {
    const different = key.find((column) => a[column] !== b[column]);
    return endedAt(a) - endedAt(b) || (different === undefined ? 0 : a[different] < b[different] ? -1 : 1);
  };
}

/** The ends of the grants of one kind: by time, with connections, over restarts. */
export function grants<Row>(rule: GrantRule<Row>): Ending {
  const { table, rows, expiresAt, graceEndsAt, connection, unconnected, bound } = rule;
  const byEnd = orderOfEnds(rule);
  const earliestEnd = earliestOf(table, expiresAt);
  const earliestGrace = earliestOf(table, graceEndsAt);
  const latestEnd = sql<{ at: number | null }>(
    `SELECT max(${expiresAt}) AS at FROM ${table} WHERE ${expiresAt} IS NOT NULL AND ${graceEndsAt} IS NULL`,
  );
  const latestGrace = sql<{ at: number | null }>(`
    SELECT max(CASE WHEN ${expiresAt} < ${graceEndsAt} THEN ${expiresAt} ELSE ${graceEndsAt} END) AS at
    FROM ${table} WHERE ${graceEndsAt} IS NOT NULL`);
  const latestOf = sql<{ at: number | null }>(`
    SELECT max(CASE WHEN ${graceEndsAt} < ${expiresAt} THEN ${graceEndsAt} ELSE ${expiresAt} END) AS at FROM ${table}
    WHERE ${expiresAt} IS NOT NULL AND ${rule.holder} >= :first AND ${rule.holder} <= :last`);
  const selectEnded = [expiresAt, graceEndsAt].map((column) =>
    sql<Row>(`${rows} ${column} IS NOT NULL AND ${column} <= :now ORDER BY ${column} LIMIT :rows`),
  );
  const selectBound = sql<Row>(`${rows} ${bound} AND ${connection} = :connection LIMIT :rows`);
  // A grant that has no end but that of its connection cannot be renewed.
  const { comeBack } = rule;
  const ownMs = comeBack?.column ?? comeBack?.graceMs;
  const own = ownMs === undefined ? "" : `WHEN ${ownMs} > :graceMs THEN ${ownMs} `;
  const grace = `CAST(:now AS BIGINT) + CASE WHEN ${expiresAt} IS NULL THEN 0 ${own}ELSE :graceMs END`;
  // Of another daemon nobody knows whether it has ended with its connections, or is to tell them yet.
  const graceOfOthers = `CAST(:now AS BIGINT) + CASE WHEN ${expiresAt} IS NULL THEN :graceMs ${own}ELSE :graceMs END`;
  const prolongGraces = sql(
    `UPDATE ${table} SET ${graceEndsAt} = ${graceOfOthers} WHERE ${graceEndsAt} IS NOT NULL`,
  );
  const beginGraces = sql(
    `UPDATE ${table} SET ${graceEndsAt} = ${grace}, ${connection} = ${unconnected} WHERE ${bound}`,
  );
  const beginGracesOf = sql(`
    UPDATE ${table} SET ${graceEndsAt} = ${graceOfOthers}, ${connection} = ${unconnected}
    WHERE ${bound} AND ${connection} >= :first AND ${connection} <= :last`);
  const beginGrace =
    comeBack &&
    sql(`
      UPDATE ${table} SET ${graceEndsAt} = :graceEndsAt, ${connection} = ${unconnected}
      WHERE ${comeBack.key} = :key AND ${bound} AND ${connection} = :connection`);

  const goesOn = rule.endedElsewhere === undefined ? "" : ` AND NOT (${rule.endedElsewhere})`;
  const prolongEnded = [expiresAt, graceEndsAt].map((column) =>
    sql(`UPDATE ${table} SET ${column} = :until WHERE ${column} > :since AND ${column} <= :now${goesOn}`),
  );

  /** The connection of a grant has closed: it ends, or its holder has some time to come back. */
  function* loseConnection(row: Row, number: number, env: Env): Operation<number> {
    const graceMs = comeBack && row[comeBack.graceMs];
    if (!graceMs) return yield* rule.end(row, "disconnected", env);
    const graceEnd = env.now + (graceMs as number);
    const key = row[comeBack.key] as string | number;
    const rowsOfGrant = yield* run(beginGrace as Statement<never>, {
      graceEndsAt: graceEnd,
      key,
      connection: number,
    });
    env.effects.deadline(graceEnd);
    return rowsOfGrant;
  }

  return {
    noun: rule.noun,

    *earliest() {
      return sooner(dueAt((yield* one(earliestEnd))?.at), dueAt((yield* one(earliestGrace))?.at));
    },

    *expire(env, most) {
      let ended = 0;
      // One grant can hold many rows: what is left follows in the next step.
      for (const select of selectEnded) {
        const rows = yield* all(select, { now: env.now, rows: most });
        for (const row of rows.sort(byEnd)) {
          if (ended >= most) return ended;
          ended += yield* rule.end(row, "expired", env);
        }
      }
      return ended;
    },

    *disconnect(number, env, most) {
      let ended = 0;
      for (const row of yield* all(selectBound, { connection: number, rows: most })) {
        if (ended >= most) break;
        ended += yield* loseConnection(row, number, env);
      }
      return ended;
    },

    /** The grace begins anew with each restart, since nobody could renew while there was no daemon. */
    *restart(env) {
      const times = { now: env.now, graceMs: RESTART_GRACE_MS };
      yield* run(prolongGraces, times);
      yield* run(beginGraces, times);
    },

    *prolong(env) {
      yield* run(prolongGraces, { now: env.now, graceMs: RESTART_GRACE_MS });
    },

    *abandon(first, last, env) {
      yield* write(beginGracesOf, { first, last, now: env.now, graceMs: RESTART_GRACE_MS });
    },

    *goOn(since, until, env) {
      for (const prolong of prolongEnded) yield* run(prolong, { since, until, now: env.now });
    },

    *latest(own) {
      const ends = own
        ? [(yield* one(latestOf, own))?.at]
        : [(yield* one(latestEnd))?.at, (yield* one(latestGrace))?.at];
      return ends.filter((at) => typeof at === "number");
    },
  };
}

function earliestOf(table: string, column: string): Statement<{ at: number | null }> {
  return sql(`SELECT min(${column}) AS at FROM ${table} WHERE ${column} IS NOT NULL`);
}
