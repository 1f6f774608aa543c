import Database from "better-sqlite3";
import { fileSizeLimit } from "./space.js";
import { AUTOMATIC_CHECKPOINT_PAGES, FRAME_BYTES, LOG_LIMIT_BYTES } from "./write-ahead-log.js";

/** Another connection of this process or a backup may hold a lock for a moment. */
const BUSY_TIMEOUT_MS = 5000;
/**
 * Pages kept in memory, as they are used; better-sqlite3 would keep 16 MB. One that is not there is a copy out of the
 * kernel's cache, some 2 microseconds, and large params that pass through fill it whatever its size.
 */
const CACHE_KIBIBYTES = 2 * 1024;

/** Connects to a database file, or to ":memory:", to write it: write-ahead log, each commit on disk. */
export function connect(path: string): Database.Database {
  return toWrite(new Database(path, { timeout: BUSY_TIMEOUT_MS }));
}

/**
 * The same where there is no space for the index of the write-ahead log, which is in the memory of this process then:
 * nobody else can read the database meanwhile.
 */
export function connectAlone(path: string): Database.Database {
  const database = new Database(path, { timeout: BUSY_TIMEOUT_MS });
  database.pragma("locking_mode = EXCLUSIVE");
  return toWrite(database);
}

function toWrite(database: Database.Database): Database.Database {
  try {
    return forWriting(database);
  } catch (error) {
    database.close();
    throw error;
  }
}

function forWriting(database: Database.Database): Database.Database {
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  // Where files may not grow as long as the log may, it is moved sooner: a commit that finds no room for it fails.
  const pages = Math.min(AUTOMATIC_CHECKPOINT_PAGES, Math.ceil(fileSizeLimit() / (2 * FRAME_BYTES)));
  database.pragma(`wal_autocheckpoint = ${pages}`);
  database.pragma(`journal_size_limit = ${LOG_LIMIT_BYTES}`);
  database.pragma("foreign_keys = ON");
  return tuned(database);
}

/** Connects to a database file without ever writing, beside the process that writes it. */
export function connectToRead(path: string): Database.Database {
  return tuned(new Database(path, { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS }));
}

function tuned(database: Database.Database): Database.Database {
  database.pragma("temp_store = MEMORY");
  database.pragma(`cache_size = -${CACHE_KIBIBYTES}`);
  return database;
}
