// @ts-check
/**
 * Long histories and backlogs, written into the database of a pawld that is not running. Over its socket a
 * million commands take six minutes. Here the daemon makes one, and SQLite repeats its rows with a single
 * `INSERT ... SELECT` for each table: every table and index then holds what the daemon would have written.
 */
import path from "node:path";
import Database from "better-sqlite3";

const DATABASE_FILE = "pawl.db";
/** So that the indexes whose keys come in no order are in memory while they are written. */
const CACHE_KIBIBYTES = 512 * 1024;

/** The text of the report about it. */
export const HOW =
  "Rows kept or waiting before the start: the daemon made the first; it was stopped, one INSERT ... SELECT for each table made the others from that, with ids and times of their own, and it was started again.";

/**
 * Starts a daemon on many rows.
 *
 * @param {import("./program.js").Peer} peer
 * @param {string} state an empty directory.
 * @param {(socket: string) => Promise<void>} first has the daemon make the one row that is repeated.
 * @param {(state: string) => void} multiply repeats it.
 * @returns {Promise<import("./program.js").Server>}
 */
export async function startOn(peer, state, first, multiply) {
  const before = await peer.start(state);
  await first(before.socket);
  await before.stop();
  multiply(state);
  return await peer.start(state);
}

/**
 * Makes the one batch in a database, which waits in a queue, so many.
 *
 * @param {string} directory of the state of a daemon that has been stopped.
 * @param {number} count
 */
export function multiplyBatches(directory, count) {
  const database = openDatabase(directory);
  // batch_key is the first 48 bits of the hexadecimal digits in batch_id; numbers above 1 go on from the template.
  repeat(database, "pawl_batch", count, {
    enqueue_seq: "enqueue_seq + i",
    batch_key: "random_key",
    batch_id: "'qwb:' || printf('%012x', random_key) || lower(hex(randomblob(26)))",
  });
  database.exec(`UPDATE pawl_queue SET ready = ${count}`);
  database.exec(`
    INSERT INTO pawl_batch_id SELECT 4, batch_key, enqueue_seq FROM pawl_batch ORDER BY batch_key;
    UPDATE pawl_batch_level SET ids = ${count} WHERE level = 4;
    UPDATE pawl_batch_level SET next = (SELECT max(enqueue_seq) FROM pawl_batch) WHERE level = 0`);
  finish(database);
}

/**
 * Makes the one command in a database, which has been answered, so many, finished a millisecond after one another
 * before it.
 *
 * @param {string} directory of the state of a daemon that has been stopped.
 * @param {number} count
 */
export function multiplyCommands(directory, count) {
  const database = openDatabase(directory);
  const [{ seq, created_at: createdAt }] = /** @type {any[]} */ (
    database.prepare("SELECT seq, created_at FROM pawl_command").all()
  );
  const tables = ["pawl_command", "pawl_command_params", "pawl_command_response"];
  // Its id is the latest, so it goes to the end.
  for (const table of tables) database.exec(`UPDATE ${table} SET seq = ${count} WHERE seq = ${seq}`);
  const at = `${createdAt} - ${count} + i`;
  const time = `printf('%012x', ${at})`;
  repeat(database, "pawl_command", count, {
    seq: "i",
    command_id: `'cmd_' || substr(${time}, 1, 8) || '-' || substr(${time}, 9) || '-7000-8000-' || lower(hex(randomblob(6)))`,
    created_at: at,
    dispatched_at: at,
    completed_at: at,
    ended_at: at,
  });
  repeat(database, "pawl_command_params", count, { seq: "i" });
  repeat(database, "pawl_command_response", count, { seq: "i" });
  finish(database);
}

/**
 * Adds counters, each at 1.
 *
 * @param {string} directory
 * @param {number} count
 */
export function addTypes(directory, count) {
  insertNumbered(directory, "INSERT INTO pawl_sequence (node_id, type, last) SELECT 0, 'T' || i, 1", count);
}

/**
 * Adds queues that have no batches.
 *
 * @param {string} directory
 * @param {number} count
 */
export function addQueues(directory, count) {
  const columns = "queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled";
  insertNumbered(
    directory,
    `INSERT INTO pawl_queue (${columns}) SELECT 'queue-' || i, 0, 0, 0, 0, 0, 0, 0`,
    count,
  );
}

/**
 * Adds deployments that were declared.
 *
 * @param {string} directory
 * @param {number} count
 */
export function addDeployments(directory, count) {
  const columns = "deployment, model, project_id, declared";
  insertNumbered(
    directory,
    `INSERT INTO pawl_deployment (${columns}) SELECT 'deployment-' || i, 'pull', NULL, 1`,
    count,
  );
}

/**
 * Makes the one command in a database, which is pending, so many.
 *
 * @param {string} directory
 * @param {number} count
 */
export function multiplyPending(directory, count) {
  const database = openDatabase(directory);
  const [{ seq }] = /** @type {any[]} */ (database.prepare("SELECT seq FROM pawl_command").all());
  repeat(database, "pawl_command", count, {
    seq: `${seq} + i`,
    command_id: "'cmd_' || printf('%08x', i) || '-0000-7000-8000-' || printf('%012x', random_key)",
    ready_place: "ready_place + i",
  });
  repeat(database, "pawl_command_params", count, { seq: `${seq} + i` });
  finish(database);
}

/**
 * Makes the one lease in a database so many.
 *
 * @param {string} directory
 * @param {number} count
 */
export function multiplyLeases(directory, count) {
  const database = openDatabase(directory);
  const own = { name: "name || i", lease_id: "'lease:' || printf('%012x', random_key) || i" };
  repeat(database, "pawl_lease", count, own);
  repeat(database, "pawl_lease_token", count, { name: "name || i" });
  finish(database);
}

/** @param {string} directory @param {string} insertion of what is made of each `i`. @param {number} count */
function insertNumbered(directory, insertion, count) {
  const database = openDatabase(directory);
  database.exec(`
    ${insertion} FROM
      (WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ${count})
       SELECT i FROM numbers)`);
  finish(database);
}

/** @param {string} directory */
function openDatabase(directory) {
  const database = new Database(path.join(directory, DATABASE_FILE), { fileMustExist: true });
  database.pragma("synchronous = OFF");
  database.pragma(`cache_size = -${CACHE_KIBIBYTES}`);
  return database;
}

/**
 * Repeats the one row of a table, so that there are `count`.
 *
 * @param {import("better-sqlite3").Database} database
 * @param {string} table
 * @param {number} count
 * @param {Record<string, string>} own what is another in each row: SQL over the row, `i` from 1, and `random_key`, a
 *   random number of 48 bits.
 */
function repeat(database, table, count, own) {
  const columns = /** @type {string[]} */ (
    database.prepare("SELECT name FROM pragma_table_info(?)").pluck().all(table)
  );
  database.exec(`
    INSERT INTO ${table} (${columns.join(", ")})
    WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ${count - 1}),
      keys AS MATERIALIZED (SELECT i, random() & 0xffffffffffff AS random_key FROM numbers),
      template AS MATERIALIZED (SELECT * FROM ${table})
    SELECT ${columns.map((column) => own[column] ?? column).join(", ")} FROM keys CROSS JOIN template`);
  const rows = database.prepare(`SELECT count(*) FROM ${table}`).pluck().get();
  if (rows !== count) throw new Error(`${table} has ${rows} rows, not ${count}`);
}

/** @param {import("better-sqlite3").Database} database */
function finish(database) {
  const [problem] = database.pragma("quick_check");
  database.pragma("wal_checkpoint(TRUNCATE)");
  database.close();
  if (/** @type {any} */ (problem)?.quick_check !== "ok")
    throw new Error(`the database is broken: ${JSON.stringify(problem)}`);
}
