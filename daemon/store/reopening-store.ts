import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import type Database from "better-sqlite3";
import { connect, connectAlone } from "./connection.js";
import { NoSpace } from "./failure.js";
import { SqliteStore } from "./sqlite.js";
import type { Operation } from "./statement.js";
import type { Store } from "./store.js";

/** The index of the write-ahead log, its first pages and a witness fit into so much. */
const NEEDED_BYTES = 128 * 1024;

/**
 * The store of a database that was opened where there is no space for the index of its write-ahead log. It is read by
 * `connectAlone`, and opened anew by `reopen` once there is space.
 */
export class ReopeningStore implements Store {
  readonly writer = undefined;
  readonly #path: string;
  #current: SqliteStore;
  #isAlone = true;

  constructor(path: string) {
    this.#path = path;
    this.#current = new SqliteStore(connectAlone(path));
  }

  get database(): Database.Database {
    return this.#current.database;
  }

  /** Opens the database as ever, if that has not been done. Throws when there is no space for that. */
  reopen(): void {
    if (!this.#isAlone) return;
    const { bavail, bsize } = statfsSync(dirname(this.#path));
    if (bavail * bsize < NEEDED_BYTES) throw new NoSpace("no space left for the write-ahead log");
    this.#current.close();
    try {
      this.#current = new SqliteStore(connect(this.#path));
      this.#isAlone = false;
    } catch (error) {
      this.#current = new SqliteStore(connectAlone(this.#path));
      throw error;
    }
  }

  get wrote(): boolean {
    return this.#current.wrote;
  }

  begin(): void {
    this.#current.begin();
  }

  beginToRead(): void {
    this.#current.beginToRead();
  }

  commit(): void {
    this.#current.commit();
  }

  rollback(): void {
    this.#current.rollback();
  }

  perform<T>(operation: Operation<T>): T {
    return this.#current.perform(operation);
  }

  performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): T {
    return this.#current.performOrUndo(operation, isToUndo);
  }

  waitForNobody(): void {
    this.#current.waitForNobody();
  }

  checkFiles(): void {
    this.#current.checkFiles();
  }

  moveLog(): void {
    this.#current.moveLog();
  }

  cutLog(): void {
    this.#current.cutLog();
  }

  end(): void {
    this.#current.end();
  }

  close(): void {
    this.#current.close();
  }
}
