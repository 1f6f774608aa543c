import { lstatSync } from "node:fs";
import { PawlError } from "@pawl/protocol/errors";
import Database from "better-sqlite3";
import { lockHolder } from "./kernel-locks.js";

/**
 * Taking a lock goes through weaker ones, so two processes that try at the same moment can each be in the
 * other's way. This long, a process tries on, so that one of them gets it and the others can tell which.
 */
const CONTEST_MS = 300;

/**
 * Holds a file for one process. The lock is SQLite's own on a small database of its own, that is, a POSIX
 * record lock: the kernel releases it when the process dies, however it dies, so it cannot go stale. The file
 * itself is never unlinked, because two processes could then hold locks on two files of one name.
 */
export class FileLock {
  readonly #database: Database.Database;

  private constructor(database: Database.Database) {
    this.#database = database;
  }

  /**
   * Takes the lock, or returns the pid of the process that holds it (null where the kernel does not tell). Refuses with
   * `forbidden` a link: SQLite would follow it to a file of others.
   */
  static take(path: string): FileLock | { heldBy: number | null } {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw new PawlError(
        "forbidden",
        `The lock ${path} is a link, and no link is followed. See who put it there, and remove it.`,
      );
    }
    const database = new Database(path, { timeout: CONTEST_MS });
    try {
      // EXCLUSIVE also keeps others from reading, so that a lock is a lock for whatever opens the file.
      database.pragma("journal_mode = MEMORY");
      database.exec("BEGIN EXCLUSIVE");
      return new FileLock(database);
    } catch (error) {
      database.close();
      if (error instanceof Database.SqliteError && error.code.startsWith("SQLITE_BUSY")) {
        return { heldBy: lockHolder(path, "POSIX") };
      }
      throw error;
    }
  }

  release(): void {
    this.#database.close();
  }
}
