import { statSync } from "node:fs";
import { PawlError } from "@pawl/protocol/errors";
import Database from "better-sqlite3";
import { type Operation, type SqlParams, type Statement, type Step, sql } from "../operation.js";
import type { Failure, Store } from "./store.js";

/** Another connection of this process or a backup may hold a lock for a moment. */
const BUSY_TIMEOUT_MS = 5000;
/** Pages in the write-ahead log before a commit moves them into the database: 4,000 x 4 KiB = 16 MB. */
const CHECKPOINT_PAGES = 4000;
/** A write-ahead log that grew beyond this is cut back once it has been moved. */
const WAL_LIMIT_BYTES = 64 * 1024 * 1024;

const saveTime = sql(
  "INSERT INTO pawl_meta (key, value) VALUES ('high_water_mark', :now) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
);

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
  /** Whether the operation under way has changed a row. */
  #wrote = false;
  /** Whether any operation of the transaction has. */
  #turnWrote = false;

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
    // IMMEDIATE, because an application's own connection may write its tables in the same file: a deferred
    // transaction that read first could then never get to write.
    this.#begin = this.database.prepare(this.#readOnly ? "BEGIN" : "BEGIN IMMEDIATE");
    this.#commit = this.database.prepare("COMMIT");
    this.#rollback = this.database.prepare("ROLLBACK");
    this.#savepoint = this.database.prepare("SAVEPOINT operation");
    this.#rollbackTo = this.database.prepare("ROLLBACK TO operation");
    this.#release = this.database.prepare("RELEASE operation");
  }

  begin(): void {
    this.#turnWrote = false;
    this.#begin.run();
  }

  commit(now: number): void {
    if (this.#turnWrote) this.keepTime(now);
    this.#commit.run();
  }

  keepTime(now: number): void {
    this.#execute({ statement: saveTime, params: { now: String(now) } });
  }

  rollback(): void {
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

  #execute({ statement, params }: Step): unknown[] {
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      prepared = this.#prepare(statement);
      this.#prepared.set(statement, prepared);
    }
    const rows = prepared.execute(params);
    if (prepared.writes && (prepared.changes === undefined ? rows.length > 0 : prepared.changes > 0)) {
      this.#wrote = true;
      this.#turnWrote = true;
    }
    return rows;
  }

  #prepare(statement: Statement): Prepared {
    const compiled = this.database.prepare<SqlParams>(statement.sql);
    const writes = !compiled.readonly;
    if (compiled.reader) return { writes, changes: undefined, execute: (params) => compiled.all(params) };
    const prepared: Prepared = {
      writes,
      changes: 0,
      execute: (params) => {
        prepared.changes = compiled.run(params).changes;
        return NO_ROWS;
      },
    };
    return prepared;
  }

  checkpoint(): void {
    if (!this.#readOnly) this.database.pragma("wal_checkpoint(TRUNCATE)");
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
  readonly writes: boolean;
  /** Rows changed by the last execution; undefined for a statement that returns rows instead. */
  changes: number | undefined;
  execute(params: SqlParams): unknown[];
}

const NO_ROWS: unknown[] = [];

/** Sorts an error thrown by the store or by an operation (https://www.sqlite.org/rescode.html). */
export function classify(error: unknown): Failure {
  const code = error instanceof Database.SqliteError ? error.code : "";
  if (code === "SQLITE_FULL") return "full";
  if (code.startsWith("SQLITE_IOERR") || code === "SQLITE_CORRUPT" || code === "SQLITE_NOTADB")
    return "broken";
  return "defect";
}
