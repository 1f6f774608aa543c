import { readFileSync, statSync } from "node:fs";
import Database from "better-sqlite3";

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

  /** Takes the lock, or returns the pid of the process that holds it (null where the kernel does not tell). */
  static take(path: string): FileLock | { heldBy: number | null } {
    const database = new Database(path, { timeout: CONTEST_MS });
    try {
      // EXCLUSIVE also keeps others from reading, so that a lock is a lock for whatever opens the file.
      database.pragma("journal_mode = MEMORY");
      database.exec("BEGIN EXCLUSIVE");
      return new FileLock(database);
    } catch (error) {
      database.close();
      if (error instanceof Database.SqliteError && error.code.startsWith("SQLITE_BUSY")) {
        return { heldBy: lockHolder(path) };
      }
      throw error;
    }
  }

  release(): void {
    this.#database.close();
  }
}

/** The process that has a write lock on a file, from the kernel's own list (proc_locks(5)). */
function lockHolder(path: string): number | null {
  try {
    const { ino, dev } = statSync(path);
    const device = `${hex(major(dev))}:${hex(minor(dev))}`;
    for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
      const fields = line.trim().split(/\s+/);
      const pid = Number(fields[4]);
      if (fields[3] === "WRITE" && fields[5] === `${device}:${ino}` && pid > 0) return pid;
    }
  } catch {
    // Without /proc the refusal is the same, only less telling.
  }
  return null;
}

/** makedev(3): the major number in bits 8 to 19 and from 32 on, the minor in 0 to 7 and 20 to 31. */
function major(dev: number): number {
  return Math.floor(dev / 2 ** 8) % 2 ** 12;
}

function minor(dev: number): number {
  return (dev % 2 ** 8) + (Math.floor(dev / 2 ** 20) % 2 ** 12) * 2 ** 8;
}

function hex(value: number): string {
  return value.toString(16).padStart(2, "0");
}
