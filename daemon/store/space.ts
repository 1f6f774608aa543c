// Why a write finds no space, beyond the full disk that SQLite knows of.
import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";
import { NoSpace } from "./failure.js";
import { systemCode } from "./system-code.js";

/** SQLite writes no more at once: a page of the largest size, and what comes before it in the log. */
const TRIED_BYTES = 65536 + 24;

/**
 * An error of SQLite, as `NoSpace` where a write failed for want of space. SQLite has a name for a full disk alone, and
 * says of a quota that is used up, and of a file that may grow no further, only that a write has failed. So the same
 * is tried: zeros are appended to the log, which ignores them and on which there are no locks (`WriteAheadLog`).
 *
 * @param path of the database.
 */
export function spaceFailure(error: unknown, path: string): unknown {
  if ((error as { code?: unknown } | undefined)?.code !== "SQLITE_IOERR_WRITE") return error;
  const log = `${path}-wal`;
  const code = whyNotLonger(log);
  const why = WHY[code ?? ""]?.();
  if (why === undefined) return error;
  return Object.assign(new NoSpace(`${log} ${why}`, { cause: error }), { code });
}

const WHY: Readonly<Record<string, () => string>> = {
  EFBIG: () => `may not grow beyond ${fileSizeLimit()} bytes (ulimit -f, LimitFSIZE=)`,
  EDQUOT: () => "may not grow, since the quota of the user is used up (quota)",
  ENOSPC: () => "may not grow, since there is no space left",
};

function whyNotLonger(path: string): string | undefined {
  try {
    const file = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW);
    try {
      const zeros = Buffer.alloc(TRIED_BYTES);
      // A part may find space where the whole finds none.
      for (let tried = 0; tried < TRIED_BYTES; )
        tried += writeSync(file, zeros, tried, TRIED_BYTES - tried, 0);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    return systemCode(error);
  }
  return undefined;
}

/** The bytes that a file of this process may have (setrlimit(2)); infinite without a limit, or /proc to find it in. */
export function fileSizeLimit(): number {
  try {
    const [, soft] = /^Max file size +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    if (soft !== undefined) return Number(soft);
  } catch {
    // Not Linux, or a container without /proc.
  }
  return Number.POSITIVE_INFINITY;
}
