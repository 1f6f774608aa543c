// The size that a file of this process may have (setrlimit(2), RLIMIT_FSIZE; `ulimit -f`).
import { readFileSync, statSync } from "node:fs";
import { NoSpace } from "./failure.js";

/** SQLite writes no more at once: a page of the largest size, and what comes before it in the log. */
const MAX_WRITE_BYTES = 65536 + 24;

/**
 * An error of SQLite, as `NoSpace` where a write failed because one of these files may grow no further: SQLite says of
 * that only that a write has failed.
 */
export function spaceFailure(error: unknown, paths: readonly string[]): unknown {
  if ((error as { code?: unknown } | undefined)?.code !== "SQLITE_IOERR_WRITE") return error;
  const limitBytes = fileSizeLimit();
  const full = paths.find((path) => sizeOf(path) + MAX_WRITE_BYTES > limitBytes);
  if (full === undefined) return error;
  const text = `${full} may not grow beyond ${limitBytes} bytes (ulimit -f, LimitFSIZE=)`;
  return Object.assign(new NoSpace(text, { cause: error }), { code: "EFBIG" });
}

/** The limit in bytes; infinite where there is none, or no /proc to find it in. */
export function fileSizeLimit(): number {
  try {
    const [, soft] = /^Max file size +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    if (soft !== undefined) return Number(soft);
  } catch {
    // Not Linux, or a container without /proc.
  }
  return Number.POSITIVE_INFINITY;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
