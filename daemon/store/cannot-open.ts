import { accessSync, constants, type Stats, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { databaseLockHolder } from "./kernel-locks.js";
import { systemCode } from "./system-code.js";

/** An error of the system or of SQLite as a refusal that names the database and what to do; any other as it is. */
export function cannotOpen(path: string, error: unknown): unknown {
  const { code: named, message } = error as { code?: unknown; message?: string };
  if (error instanceof PawlError || typeof named !== "string") return error;
  // That is about a program, not about this database.
  if (howToBuildSqlite(error) !== undefined) return error;
  const code = systemCode(error);
  const text = `The database ${path} cannot be opened: ${message}. ${remedy(path, code)}`;
  return new PawlError("unavailable", text, { reason: code }, { cause: error });
}

/**
 * The command that mends an SQLite module without its native part, if an error is about that: installing with
 * `--ignore-scripts`, or by a package manager that asks first, leaves that part out, and each Node wants its own.
 */
export function howToBuildSqlite(error: unknown): string | undefined {
  const { code, message } = error as { code?: unknown; message?: string };
  const isMissing = code === "MODULE_NOT_FOUND" && /better_sqlite3\.node/.test(message ?? "");
  if (!isMissing && !(code === "ERR_DLOPEN_FAILED" && /better_sqlite3/.test(message ?? ""))) return undefined;
  const directory = dirname(createRequire(import.meta.url).resolve("better-sqlite3/package.json"));
  const why = isMissing ? "its install script was not run" : "it was built for another version of Node";
  return `SQLite cannot be loaded, because ${why}. Run: npm run install --prefix ${directory}`;
}

function remedy(path: string, code: string): string {
  if (/^(ENOSPC|EDQUOT|SQLITE_FULL|SQLITE_IOERR_SHMSIZE)$/.test(code))
    return "There is no space left on its file system. Make some, or name another state directory.";
  if (code === "EFBIG") return "Raise that limit, or name another state directory.";
  if (/^SQLITE_(NOTADB|CORRUPT)/.test(code))
    return "It is damaged, or none of pawl's. Restore a copy, or move it away and begin anew.";
  if (code.startsWith("SQLITE_BUSY")) {
    const pid = databaseLockHolder(path);
    return `Another program${pid === null ? "" : ` (pid ${pid})`} holds a lock on it. Wait until that is done, or end it.`;
  }
  const blocked = blockedAt([path, `${path}.lock`, dirname(path)], constants.R_OK | constants.W_OK);
  if (blocked?.code === "EROFS")
    return `${blocked.path} is on a file system that is mounted read-only. Mount it for writing, name another state directory, or ${HOW_TO_READ}`;
  if (blocked !== undefined)
    return `${describeBlock(blocked)} Start pawld as that user, or name another state directory.`;
  return "Make its directory ours to write, or name another.";
}

/** SQLite makes files beside a database also to read it. */
const HOW_TO_READ =
  "copy pawl.db, and pawl.db-wal if it is there, to a directory that is ours to write, and read the copy: pawld --read-only --state-dir DIR.";

/** The advice for a database that cannot be read where it is; undefined if its file system can be written. */
export function adviceForReadOnly(path: string): string | undefined {
  if (blockedAt([path, dirname(path)], constants.W_OK)?.code !== "EROFS") return undefined;
  return `It is on a file system that is mounted read-only, where nobody has it open: ${HOW_TO_READ}`;
}

/** The file that stands in the way of a path, with its owner. */
export interface Block {
  readonly path: string;
  readonly code: string;
  readonly uid: number;
  readonly mode: number;
}

/** The first of these paths, or of the directories above them, that we may not use so (access(2)). */
export function blockedAt(paths: readonly string[], wanted: number): Block | undefined {
  for (const path of paths) {
    // Above what is not there, or cannot be looked at, is what keeps us from it.
    let at = path;
    let found = statOf(at);
    while (found === undefined && dirname(at) !== at) {
      at = dirname(at);
      found = statOf(at);
    }
    if (found === undefined) continue;
    try {
      accessSync(at, found.isDirectory() ? wanted | constants.X_OK : wanted);
    } catch (error) {
      const { uid, mode } = found;
      return { path: at, code: (error as NodeJS.ErrnoException).code ?? "", uid, mode: mode & 0o777 };
    }
  }
  return undefined;
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

export function describeBlock({ path, uid, mode }: Block): string {
  return `${path} belongs to the user with uid ${uid} and has mode ${mode.toString(8).padStart(4, "0")}; we are uid ${process.getuid?.()}.`;
}
