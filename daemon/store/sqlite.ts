import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import type { KeptTime } from "../clock.js";
import { classify, Migrated, OnlyReads } from "./failure.js";
import { readTime } from "./kept-time.js";
import { OwnFiles } from "./own-files.js";
import { type Prepared, prepare, type RawRow, USES_BEFORE_COMPILING } from "./prepared-statement.js";
import { spaceFailure } from "./space.js";
import { type Operation, type SqlParams, type Statement, type Step, sql } from "./statement.js";
import type { OtherWriter, Store } from "./store.js";
import { WriteAheadLog } from "./write-ahead-log.js";

const readState = sql<{ key: string; value: string }>(
  "SELECT key, value FROM pawl_meta WHERE key IN ('clock', 'schema_version')",
);

/** Drives operations on a connection of SQLite, synchronously. */
export class SqliteStore implements Store {
  readonly writer: OtherWriter | undefined;
  readonly #database: Database.Database;
  /** Undefined where nothing is written. */
  readonly #log: WriteAheadLog | undefined;
  readonly #files: OwnFiles;
  readonly #prepared = new Map<Statement, Prepared>();
  readonly #begin: Database.Statement;
  readonly #beginToRead: Database.Statement;
  readonly #commit: Database.Statement;
  readonly #rollback: Database.Statement;
  readonly #savepoint: Database.Statement;
  readonly #rollbackTo: Database.Statement;
  readonly #release: Database.Statement;
  /** True if the operation under way has changed a row. */
  #wrote = false;
  /** True if any operation of the transaction has. */
  #turnWrote = false;
  /** True if the open transaction, or the last one, may not write. */
  #onlyReads = false;
  /** Of the large values that the transaction wrote. */
  #valueBytes = 0;

  /** @param database a connection from `connect` or `connectToRead`. */
  constructor(database: Database.Database) {
    this.#database = database;
    this.#files = filesOf(database);
    this.#log = database.readonly ? undefined : new WriteAheadLog(database, this.#files);
    this.writer = database.readonly ? this.#otherWriter() : undefined;
    // IMMEDIATE, because an application's own connection may write its tables in the same file: a deferred
    // transaction that read first could then never get to write.
    this.#begin = database.prepare(database.readonly ? "BEGIN" : "BEGIN IMMEDIATE");
    this.#beginToRead = database.prepare("BEGIN");
    this.#commit = database.prepare("COMMIT");
    this.#rollback = database.prepare("ROLLBACK");
    this.#savepoint = database.prepare("SAVEPOINT operation");
    this.#rollbackTo = database.prepare("ROLLBACK TO operation");
    this.#release = database.prepare("RELEASE operation");
  }

  /** The connection, for what is done with the file as a whole. */
  get database(): Database.Database {
    return this.#database;
  }

  begin(): void {
    this.#turnWrote = false;
    this.#valueBytes = 0;
    this.#onlyReads = false;
    this.#begin.run();
  }

  beginToRead(): void {
    this.#turnWrote = false;
    this.#onlyReads = true;
    this.#beginToRead.run();
  }

  /** From now on a lock of another program is an error at once: nothing waits for it here. */
  waitForNobody(): void {
    this.#database.pragma("busy_timeout = 0");
  }

  get wrote(): boolean {
    return this.#turnWrote;
  }

  commit(): void {
    try {
      this.#commit.run();
    } catch (error) {
      const explained = this.#explained(error);
      if (classify(explained) === "broken") this.#dropUncommitted();
      throw explained;
    }
    if (!this.#turnWrote) return;
    this.checkFiles();
    this.#log?.committed(this.#valueBytes);
  }

  /** Throws `FilesMoved` when a file of the database is not in its place any more. */
  checkFiles(): void {
    this.#files.check();
  }

  rollback(): void {
    // After an error SQLite may already have rolled the whole transaction back.
    if (this.#database.inTransaction) this.#rollback.run();
  }

  perform<T>(operation: Operation<T>): T {
    this.#wrote = false;
    const outcome = this.#drive(operation);
    if (this.#wrote && outcome instanceof PawlError) {
      throw new Error(`refused (${outcome.kind}) after it had written`, { cause: outcome });
    }
    return outcome;
  }

  performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): T {
    this.#savepoint.run();
    const outcome = this.#drive(operation);
    if (isToUndo(outcome)) this.#rollbackTo.run();
    this.#release.run();
    return outcome;
  }

  /** Ends this life: the next one finds everything in the database file. */
  end(): void {
    this.#log?.empty();
  }

  /** Moves what the life before has left in the write-ahead log into the database, as far as readers allow. */
  moveLog(): void {
    this.#log?.move();
  }

  /** Moves the log into the database and cuts it, if nobody reads what is in it. Never throws. */
  cutLog(): void {
    this.#log?.cut();
  }

  close(): void {
    this.#log?.close();
    // SQLite removes the log by its name, which may be that of another database by now.
    if (this.#files.areThere) this.#database.close();
  }

  #drive<T>(operation: Operation<T>): T {
    let step = operation.next();
    while (!step.done) step = operation.next(this.#execute(step.value));
    return step.value;
  }

  #execute({ statement, params, single, each }: Step): unknown {
    if (each !== undefined) return this.#executeEach(statement, each, single);
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      prepared = prepare(this.#database, statement);
      this.#prepared.set(statement, prepared);
    }
    prepared.uses += 1;
    if (prepared.uses === USES_BEFORE_COMPILING) prepared.speedUp();
    const values = prepared.valuesOf(params);
    const { compiled, toObject, writes } = prepared;
    if (writes && this.#onlyReads) throw new OnlyReads("the transaction only reads");
    let result: unknown;
    let changed: boolean;
    try {
      if (toObject === undefined) {
        const done = compiled.run(...values);
        changed = done.changes > 0;
        result = done;
      } else if (single) {
        const row = compiled.get(...values) as RawRow | undefined;
        changed = row !== undefined;
        result = row === undefined ? undefined : toObject(row);
      } else {
        const rows = compiled.all(...values) as RawRow[];
        changed = rows.length > 0;
        result = rows.map(toObject);
      }
    } catch (error) {
      throw this.#explained(error);
    }
    if (writes && changed) {
      this.#wrote = true;
      this.#turnWrote = true;
      // By index: to iterate takes as long as to bind.
      for (let index = 0; index < values.length; index++) {
        const value = values[index];
        if (value instanceof Uint8Array) this.#valueBytes += value.length;
      }
    }
    return result;
  }

  #executeEach(statement: Statement, each: readonly SqlParams[], single: true | undefined): unknown[] {
    return each.map((params) => this.#execute({ statement, params, ...(single && { single }) }));
  }

  /** An error of SQLite, or that a file may grow no further; what the log then has is moved, so that it begins anew. */
  #explained(error: unknown): unknown {
    const explained = spaceFailure(error, this.#database.name);
    if (explained !== error) this.#log?.moveSoon();
    return explained;
  }

  #dropUncommitted(): void {
    try {
      this.rollback();
      if (this.#files.areThere) this.#log?.dropUncommitted();
    } catch {
      // The next start finds out what is on disk then; nobody was told that it is there.
    }
  }

  #otherWriter(): OtherWriter {
    const version = this.#database.prepare("PRAGMA data_version").pluck();
    /** As first read. */
    let schemaVersion: string | undefined;
    /** As last read. */
    let kept: { readonly text: string | undefined; readonly time: KeptTime | undefined } | undefined;
    return {
      version: () => version.get() as number,
      keptTime: () => {
        const rows = this.#execute({ statement: readState, params: {} }) as { key: string; value: string }[];
        const state = Object.fromEntries(rows.map(({ key, value }) => [key, value]));
        schemaVersion ??= state.schema_version;
        if (state.schema_version !== schemaVersion) {
          throw new Migrated(`migrated from schema version ${schemaVersion} to ${state.schema_version}`);
        }
        if (kept === undefined || kept.text !== state.clock) {
          kept = { text: state.clock, time: readTime(state.clock) };
        }
        return kept.time;
      },
    };
  }
}

/**
 * A writer's log and its index go with the database: another program would make a new index, and both would write the
 * log as if they were alone. Of one that only reads, both may be made and removed by the writer.
 */
function filesOf({ name, memory, readonly }: Database.Database): OwnFiles {
  if (memory) return new OwnFiles([]);
  return new OwnFiles(readonly ? [name] : [name, `${name}-wal`, `${name}-shm`]);
}
