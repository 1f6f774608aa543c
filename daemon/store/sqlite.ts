import { readFileSync, statSync, truncateSync } from "node:fs";
import { endianness } from "node:os";
import { PawlError } from "@pawl/protocol/errors";
import Database from "better-sqlite3";
import {
  type Operation,
  type SqlParams,
  type SqlValue,
  type Statement,
  type Step,
  sql,
} from "./statement.js";
import type { Failure, Store } from "./store.js";

/** Another connection of this process or a backup may hold a lock for a moment. */
const BUSY_TIMEOUT_MS = 5000;
/**
 * Pages kept in memory, as they are used; better-sqlite3 would keep 16 MB. One that is not there is a copy out of the
 * kernel's cache, some 2 microseconds, and large params that pass through fill it whatever its size.
 */
const CACHE_KIBIBYTES = 2 * 1024;
/** Pages in the write-ahead log before a commit moves them into the database: 4,000 x 4 KiB = 16 MB. */
const CHECKPOINT_PAGES = 4000;
/**
 * Large values in the log before it is moved all the same. Rows that are changed again and again are better moved
 * late, but a large value is written once, and 16 MB of them would stall everybody for 50 ms instead of 2.
 */
const MOVED_VALUE_BYTES = 512 * 1024;
/** A write-ahead log that grew beyond this is cut back once it has been moved. */
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;
/**
 * The time is kept this far ahead of what it is, so that not each commit has to write it: that is a page more,
 * a tenth of what a commit of one caller takes. After a crash the clock goes on from there, which is behind the
 * time of day by then: a daemon takes longer to start.
 */
const TIME_AHEAD_MS = 100;

const saveTime = sql(
  "INSERT INTO pawl_meta (key, value) VALUES ('high_water_mark', :now) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
);

const readState = sql<{ key: string; value: string }>(
  "SELECT key, value FROM pawl_meta WHERE key IN ('high_water_mark', 'schema_version')",
);

/** The process that writes has migrated the database: its tables are no longer those that this program reads. */
class Migrated extends Error {}

export interface SqliteOptions {
  /** Path of the database file, or ":memory:". */
  path: string;
  /** Opens without ever writing, beside the process that writes. */
  readOnly?: boolean;
}

/** The store on better-sqlite3: write-ahead log, `synchronous=FULL`. */
export class SqliteStore implements Store {
  readonly database: Database.Database;
  readonly #readOnly: boolean;
  readonly #prepared = new Map<Statement, Prepared>();
  readonly #begin: Database.Statement;
  readonly #commit: Database.Statement;
  readonly #rollback: Database.Statement;
  readonly #savepoint: Database.Statement;
  readonly #rollbackTo: Database.Statement;
  readonly #release: Database.Statement;
  readonly #dataVersion: Database.Statement;
  readonly #moveLog: Database.Statement;
  /** As first read. */
  #schemaVersion: string | undefined;
  /** Whether the operation under way has changed a row. */
  #wrote = false;
  /** Whether any operation of the transaction has. */
  #turnWrote = false;
  /** The high-water mark as written: until then the time need not be written again. */
  #keptUntil = 0;
  /** Of large values, since the log was moved. */
  #unmovedBytes = 0;

  constructor(options: SqliteOptions) {
    this.#readOnly = options.readOnly ?? false;
    this.database = new Database(options.path, {
      readonly: this.#readOnly,
      fileMustExist: this.#readOnly,
      timeout: BUSY_TIMEOUT_MS,
    });
    if (!this.#readOnly) {
      this.database.pragma("journal_mode = WAL");
      this.database.pragma("synchronous = FULL");
      this.database.pragma(`wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
      this.database.pragma(`journal_size_limit = ${WAL_LIMIT_BYTES}`);
      this.database.pragma("foreign_keys = ON");
    }
    this.database.pragma("temp_store = MEMORY");
    this.database.pragma(`cache_size = -${CACHE_KIBIBYTES}`);
    // IMMEDIATE, because an application's own connection may write its tables in the same file: a deferred
    // transaction that read first could then never get to write.
    this.#begin = this.database.prepare(this.#readOnly ? "BEGIN" : "BEGIN IMMEDIATE");
    this.#commit = this.database.prepare("COMMIT");
    this.#rollback = this.database.prepare("ROLLBACK");
    this.#savepoint = this.database.prepare("SAVEPOINT operation");
    this.#rollbackTo = this.database.prepare("ROLLBACK TO operation");
    this.#release = this.database.prepare("RELEASE operation");
    this.#moveLog = this.database.prepare("PRAGMA wal_checkpoint(PASSIVE)");
    this.#dataVersion = this.database.prepare("PRAGMA data_version").pluck();
  }

  begin(): void {
    this.#turnWrote = false;
    this.#begin.run();
  }

  commit(now: number): boolean {
    const wrote = this.#turnWrote;
    if (wrote && now > this.#keptUntil) this.keepTime(now + TIME_AHEAD_MS);
    this.#commit.run();
    return wrote;
  }

  lastTime(): number {
    const rows = this.#execute({ statement: readState, params: {} }) as { key: string; value: string }[];
    const state = Object.fromEntries(rows.map(({ key, value }) => [key, value]));
    this.#schemaVersion ??= state.schema_version;
    if (state.schema_version !== this.#schemaVersion) {
      throw new Migrated(`migrated from schema version ${this.#schemaVersion} to ${state.schema_version}`);
    }
    return Number(state.high_water_mark ?? 0) - TIME_AHEAD_MS;
  }

  dataVersion(): number {
    return this.#dataVersion.get() as number;
  }

  keepTime(now: number): void {
    this.#execute({ statement: saveTime, params: { now: String(now) } });
    this.#keptUntil = now;
  }

  rollback(): void {
    this.#keptUntil = 0;
    // After an error SQLite may already have rolled the whole transaction back.
    if (this.database.inTransaction) this.#rollback.run();
  }

  perform<T>(operation: Operation<T>): T {
    this.#wrote = false;
    const outcome = this.#drive(operation);
    if (this.#wrote && outcome instanceof PawlError) {
      throw new Error(`refused (${outcome.kind}) after it had written`, { cause: outcome });
    }
    return outcome;
  }

  performOrUndo<T>(operation: Operation<T>): T {
    this.#savepoint.run();
    const outcome = this.#drive(operation);
    if (outcome instanceof PawlError) this.#rollbackTo.run();
    this.#release.run();
    return outcome;
  }

  #drive<T>(operation: Operation<T>): T {
    let step = operation.next();
    while (!step.done) step = operation.next(this.#execute(step.value));
    return step.value;
  }

  #execute({ statement, params, single }: Step): unknown {
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      prepared = this.#prepare(statement);
      this.#prepared.set(statement, prepared);
    }
    const values = valuesOf(params, prepared.names);
    const { compiled, columns, writes } = prepared;
    let result: unknown;
    let changed: boolean;
    if (columns === undefined) {
      const done = compiled.run(...values);
      changed = done.changes > 0;
      result = done;
    } else if (single) {
      const row = compiled.get(...values) as RawRow | undefined;
      changed = row !== undefined;
      result = row === undefined ? undefined : toObject(row, columns);
    } else {
      const rows = compiled.all(...values) as RawRow[];
      changed = rows.length > 0;
      result = rows.map((row) => toObject(row, columns));
    }
    if (writes && changed) {
      this.#wrote = true;
      this.#turnWrote = true;
      for (const value of values) if (value instanceof Uint8Array) this.#unmovedBytes += value.length;
    }
    return result;
  }

  /**
   * Values are bound by place and rows come as arrays, because better-sqlite3 makes and looks up every name
   * anew for each value: an update of 13 columns takes 2.2 instead of 3.8 microseconds, a row of 13 columns 3.8
   * instead of 6.4. Without the array, a row of one column takes 0.6 instead of 1.5.
   */
  #prepare(statement: Statement): Prepared {
    const { text, names } = byPlace(statement.sql);
    const compiled = this.database.prepare<SqlValue[]>(text);
    const columns = compiled.reader ? compiled.columns().map(({ name }) => name) : undefined;
    if (columns?.length === 1) compiled.pluck();
    else if (columns !== undefined) compiled.raw();
    return { compiled, names, columns, writes: !compiled.readonly };
  }

  dropUncommitted(): void {
    if (this.#readOnly) return;
    try {
      this.rollback();
      cutLog(this.database.name);
    } catch {
      // What is on disk then is for the next start to find out; nobody was told that it is there.
    }
  }

  checkpoint(): void {
    if (!this.#readOnly) this.database.pragma("wal_checkpoint(TRUNCATE)");
  }

  get hasMuchToMove(): boolean {
    return this.#unmovedBytes >= MOVED_VALUE_BYTES;
  }

  moveLog(): void {
    this.#unmovedBytes = 0;
    try {
      this.#moveLog.get();
    } catch {
      // Like the checkpoints that SQLite makes by itself within a commit: the next one tries again.
    }
  }

  sizes(): { bytes: number; walBytes: number } {
    const { name, memory } = this.database;
    if (memory) return { bytes: 0, walBytes: 0 };
    return {
      bytes: statSync(name).size,
      walBytes: statSync(`${name}-wal`, { throwIfNoEntry: false })?.size ?? 0,
    };
  }

  close(): void {
    this.database.close();
  }
}

interface Prepared {
  readonly compiled: Database.Statement<SqlValue[]>;
  /** Of the params, in the order of their places. */
  readonly names: readonly string[];
  /** Undefined for a statement that returns no rows. */
  readonly columns: readonly string[] | undefined;
  readonly writes: boolean;
}

/**
 * Replaces `:name` by `?`, and gives the names in their order. The plus after LIMIT keeps SQLite from planning
 * the statement anew whenever another value is bound there, which takes some 30 microseconds each time.
 */
function byPlace(sql: string): { text: string; names: string[] } {
  const names: string[] = [];
  const text = sql.replace(PARAMETER, (found, limit: string | undefined, name: string | undefined) => {
    if (name === undefined) return found;
    names.push(name);
    return limit === undefined ? "?" : `${limit}+?`;
  });
  return { text, names };
}

/** Text literals and comments, where a colon is only a colon, or a parameter, perhaps after LIMIT. */
const PARAMETER = /'(?:[^']|'')*'|--[^\n]*|(LIMIT\s+)?:([A-Za-z_]\w*)/g;

function valuesOf(params: SqlParams, names: readonly string[]): SqlValue[] {
  const values = new Array<SqlValue>(names.length);
  for (let index = 0; index < names.length; index++) {
    const name = names[index] as string;
    const value = params[name];
    // SQLite would take it for NULL.
    if (value === undefined) throw new Error(`no value for :${name}`);
    values[index] = value;
  }
  return values;
}

/** As better-sqlite3 gives it: its values, or its only value. */
type RawRow = readonly SqlValue[] | SqlValue;

function toObject(row: RawRow, columns: readonly string[]): Record<string, SqlValue> {
  if (!Array.isArray(row)) return { [columns[0] as string]: row as SqlValue };
  const object: Record<string, SqlValue> = {};
  for (let index = 0; index < columns.length; index++) {
    object[columns[index] as string] = row[index] as SqlValue;
  }
  return object;
}

/**
 * Cuts the write-ahead log after its last committed frame. A commit whose fsync failed has written all its
 * frames before that, and recovery, which reads the log alone, would take them for committed. What is
 * committed is in the shared index beside the log, which a commit changes last (the format of both:
 * https://www.sqlite.org/walformat.html).
 */
function cutLog(database: string): void {
  const index = readFileSync(`${database}-shm`);
  const read16 = (at: number): number => (IS_LITTLE_ENDIAN ? index.readUInt16LE(at) : index.readUInt16BE(at));
  const read32 = (at: number): number => (IS_LITTLE_ENDIAN ? index.readUInt32LE(at) : index.readUInt32BE(at));
  const pageBytes = read16(INDEX_PAGE_SIZE_OFFSET) === 1 ? 65536 : read16(INDEX_PAGE_SIZE_OFFSET);
  const frames = read32(INDEX_FRAMES_OFFSET);
  truncateSync(`${database}-wal`, LOG_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + pageBytes));
}

/** The index is in the byte order of the machine. */
const IS_LITTLE_ENDIAN = endianness() === "LE";
const INDEX_PAGE_SIZE_OFFSET = 14;
const INDEX_FRAMES_OFFSET = 16;
const LOG_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;

/** Sorts an error thrown by the store or by an operation (https://www.sqlite.org/rescode.html). */
export function classify(error: unknown): Failure {
  if (error instanceof Migrated) return "broken";
  if (error instanceof PawlError && error.kind === "log_corrupt") return "corrupt";
  const code = error instanceof Database.SqliteError ? error.code : "";
  // The shared index of the write-ahead log grows too; SQLite has a code of its own for no space there.
  if (code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE") return "full";
  if (code.startsWith("SQLITE_IOERR") || code === "SQLITE_CORRUPT" || code === "SQLITE_NOTADB")
    return "broken";
  return "defect";
}
