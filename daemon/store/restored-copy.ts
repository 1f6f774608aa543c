// A database that is an older copy of itself: how it is known by its witness, and how it goes on without giving
// anything again.
import { statSync } from "node:fs";
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import type { Counter, Testimony } from "./witness.js";

/**
 * Why the file of a database is not the one that its witness saw. To be asked before SQLite opens it, and makes one.
 */
export function lostFile(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return "it is not there";
  return found.size === 0 ? "it is empty" : undefined;
}

/** The marks that a database has of itself. */
export interface State {
  /** Undefined for one that was never used. */
  readonly database: string | undefined;
  readonly starts: number;
  readonly counters: ReadonlyMap<Counter, number>;
}

/** Why a database is not the newest that its witness saw; undefined if it may be. */
export function olderThan(witness: Testimony, state: State): string | undefined {
  if (state.database === undefined) return "it was never used";
  if (state.database !== witness.database) return "it is another database";
  for (const [counter, { value }] of witness.counters) {
    const now = state.counters.get(counter) ?? 0;
    const name = NAMES[counter] ?? `the last number of ${counter.replace(/^0\//, "")}`;
    if (now < value) return `${name} was ${value}, and is ${now}`;
  }
  // What the last daemon wrote at its start is gone, and so is whatever it wrote afterwards.
  if (state.starts < witness.starts)
    return "its last start is not in it, as when its write-ahead log was removed";
  return undefined;
}

const NAMES: Readonly<Record<string, string>> = {
  enqueueSeq: "the enqueueSeq of the last batch",
  queueToken: "the highest fencing token of a claim",
  leaseToken: "the highest fencing token of a lease",
  pathToken: "the highest fencing token of paths",
};

/** True if a database has given more than its witness ever allowed: then the witness is older. */
export function newerThan({ counters }: Testimony, state: State): boolean {
  for (const [counter, value] of state.counters) if (value > (counters.get(counter)?.bound ?? 0)) return true;
  return false;
}

/** The refusal to start on an older copy. */
export function refuseCopy(
  path: string,
  why: string,
  witness: Testimony,
  keptAt: number | undefined,
): PawlError {
  const until = keptAt === undefined ? "" : `, which ends at ${shown(keptAt)}`;
  return new PawlError(
    "invalid_state",
    `The database ${path} is an older copy of itself${until}; when its witness was written, at ${shown(witness.writtenAt)}, there was more: ${why}. Numbers and fencing tokens would be given again. Put the newer one back; or go on above all that was given, with --accept-restore: tokens of claims and leases from before are void then.`,
    { from: keptAt ?? null, to: witness.writtenAt },
  );
}

function shown(ms: number): string {
  return new Date(ms).toISOString();
}

/** The counters of a database. Tables that are not there yet have none. */
export function countersOf(database: Database.Database): Map<Counter, number> {
  const values = new Map<Counter, number>();
  const read = <T>(sql: string): T[] => {
    try {
      return database.prepare(sql).all() as T[];
    } catch (error) {
      if (/no such table/.test((error as Error).message)) return [];
      throw error;
    }
  };
  const highest = (counter: Counter, sql: string): void => {
    const value = read<{ value: number | null }>(sql)[0]?.value ?? 0;
    if (value > 0) values.set(counter, value);
  };
  for (const { node_id, type, last } of read<{ node_id: number | string; type: string; last: number }>(
    "SELECT node_id, type, last FROM pawl_sequence WHERE last > 0",
  )) {
    values.set(`${node_id}/${type}`, last);
  }
  highest("enqueueSeq", "SELECT seq AS value FROM sqlite_sequence WHERE name = 'pawl_batch'");
  highest(
    "queueToken",
    `SELECT max(value) AS value FROM (SELECT max(fencing_token) AS value FROM pawl_queue
       UNION ALL SELECT CAST(value AS INTEGER) FROM pawl_meta WHERE key = 'queue_fencing_floor')`,
  );
  highest(
    "leaseToken",
    `SELECT max(value) AS value FROM (SELECT max(highest) AS value FROM pawl_lease_token
       UNION ALL SELECT CAST(value AS INTEGER) FROM pawl_meta WHERE key = 'lease_fencing_floor')`,
  );
  highest(
    "pathToken",
    `SELECT max(value) AS value FROM (SELECT max(highest) AS value FROM pawl_path_root
       UNION ALL SELECT CAST(value AS INTEGER) FROM pawl_meta WHERE key = 'path_fencing_floor')`,
  );
  return values;
}

/**
 * Has a database go on above all that its newer self may have given, and voids what that granted: the key that signs
 * the tokens of claims is removed, for another to be made, and the ids of leases that are kept here are changed.
 */
export function goOnFromBounds(database: Database.Database, { counters }: Testimony): void {
  const bound = (counter: Counter): number => counters.get(counter)?.bound ?? 0;
  const raiseNumber = database.prepare(
    `INSERT INTO pawl_sequence (node_id, type, last) VALUES (:nodeId, :type, :bound)
     ON CONFLICT (node_id, type) DO UPDATE SET last = excluded.last WHERE last < excluded.last`,
  );
  const leaveGrantedOut = [
    "DELETE FROM pawl_sequence_grant WHERE node_id = :nodeId AND type = :type AND last <= :bound",
    `UPDATE pawl_sequence_grant SET first = :bound + 1
     WHERE node_id = :nodeId AND type = :type AND first <= :bound`,
    `UPDATE pawl_sequence SET granted_to = max(granted_to, last), granted_later =
       (SELECT coalesce(sum(g.last - g.first + 1), 0) FROM pawl_sequence_grant g
        WHERE g.node_id = :nodeId AND g.type = :type)
     WHERE node_id = :nodeId AND type = :type AND granted_to IS NOT NULL`,
  ].map((sql) => database.prepare(sql));
  const raiseFloor = database.prepare(
    `INSERT INTO pawl_meta (key, value) VALUES (:key, :bound) ON CONFLICT (key) DO UPDATE SET value = excluded.value
     WHERE CAST(pawl_meta.value AS INTEGER) < CAST(excluded.value AS INTEGER)`,
  );
  database
    .transaction(() => {
      for (const [counter, { value, bound: to }] of counters) {
        const [, nodeId, type] = /^([^/]+)\/(.+)$/.exec(counter) ?? [];
        // A type whose first number was never committed has none.
        if (nodeId === undefined || (value === 0 && to === 0)) continue;
        const of = { nodeId, type, bound: to };
        raiseNumber.run(of);
        // Numbers that were granted stay the only ones of their type.
        for (const statement of leaveGrantedOut) statement.run(of);
      }
      const seq = bound("enqueueSeq");
      const { changes } = database
        .prepare("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'pawl_batch'")
        .run(seq);
      if (changes === 0)
        database.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('pawl_batch', ?)").run(seq);
      const token = bound("queueToken");
      database.prepare("UPDATE pawl_queue SET fencing_token = ? WHERE fencing_token < ?").run(token, token);
      raiseFloor.run({ key: "queue_fencing_floor", bound: String(token) });
      raiseFloor.run({ key: "lease_fencing_floor", bound: String(bound("leaseToken")) });
      raiseFloor.run({ key: "path_fencing_floor", bound: String(bound("pathToken")) });
      database.exec("UPDATE pawl_path_reservation SET reservation_id = 'void_' || reservation_id");
      database.exec("UPDATE pawl_lease SET lease_id = 'void_' || lease_id WHERE provider IS NULL");
      database.exec("UPDATE pawl_on_loss SET grant_id = 'void_' || grant_id");
      database.exec("DELETE FROM pawl_meta WHERE key = 'signing_key'");
    })
    .immediate();
}
