// @ts-check
/** One of the processes that raise a counter in a file: `files-worker.js WAY FILE WARM_UP OPERATIONS`. */
import { once } from "node:events";
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import Database from "better-sqlite3";
import * as toml from "smol-toml";

const BUSY_TIMEOUT_MS = 60_000;
/**
 * How long a process sleeps that found the lock taken. Lock libraries sleep from 10 ms to 1 s; short sleeps suit
 * this work, which holds the lock for less than 1 ms.
 */
const MIN_LOCK_RETRY_MS = 1;
const MAX_LOCK_RETRY_MS = 5;

const sleeper = new Int32Array(new SharedArrayBuffer(4));
const [way = "", file = "", warmUp = "", operations = ""] = process.argv.slice(2);
const increment = way === "toml" ? tomlIncrement(file) : sqliteIncrement(file);
/** @type {number[]} */
const numbers = [];
const latenciesMs = new Float64Array(Number(operations));

for (let i = 0; i < Number(warmUp); i++) numbers.push(increment());
process.send?.("ready");
await once(process, "message");
let sinceMs = performance.now();
for (let i = 0; i < latenciesMs.length; i++) {
  numbers.push(increment());
  const nowMs = performance.now();
  latenciesMs[i] = nowMs - sinceMs;
  sinceMs = nowMs;
}
process.send?.("done");
await once(process, "message");
process.send?.({ numbers, latenciesMs });

/**
 * A counter in a TOML file, as careful as a lock file allows: the new file is on disk before it takes the old
 * one's name, and the name before the lock is given up.
 *
 * @param {string} file
 */
function tomlIncrement(file) {
  const directory = openSync(path.dirname(file), "r");
  const lock = `${file}.lock`;
  const temporary = `${file}.new`;
  return () => {
    takeLock(lock);
    try {
      const content = /** @type {{sequences: {FR: number}}} */ (toml.parse(readFileSync(file, "utf8")));
      content.sequences.FR += 1;
      const descriptor = openSync(temporary, "w");
      writeSync(descriptor, toml.stringify(content));
      fsyncSync(descriptor);
      closeSync(descriptor);
      renameSync(temporary, file);
      fsyncSync(directory);
      return content.sequences.FR;
    } finally {
      unlinkSync(lock);
    }
  };
}

/** @param {string} lock */
function takeLock(lock) {
  for (;;) {
    try {
      closeSync(openSync(lock, "wx"));
      return;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
      const ms = MIN_LOCK_RETRY_MS + Math.random() * (MAX_LOCK_RETRY_MS - MIN_LOCK_RETRY_MS);
      Atomics.wait(sleeper, 0, 0, ms);
    }
  }
}

/** @param {string} file */
function sqliteIncrement(file) {
  const database = new Database(file, { timeout: BUSY_TIMEOUT_MS });
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  const update = database
    .prepare("UPDATE counters SET last = last + 1 WHERE name = 'FR' RETURNING last")
    .pluck();
  // BEGIN IMMEDIATE takes the write lock first: a read that becomes a write is refused without waiting.
  const transaction = database.transaction(() => /** @type {number} */ (update.get()));
  return () => transaction.immediate();
}
