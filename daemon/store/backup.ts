import { randomBytes } from "node:crypto";
import { closeSync, lstatSync, openSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, normalize } from "node:path";
import type { Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import { elapsed } from "../clock.js";
import { nameNewFile } from "./new-file.js";
import { fileSizeLimit } from "./space.js";
import { systemCode } from "./system-code.js";

/** Pages copied between two turns: 1 MiB at the usual page size, a few milliseconds. */
const PAGES_PER_STEP = 256;
/** A second process that writes makes the copy begin anew; after so many times it is made in one step. */
const MAX_RESTARTS = 3;
const PROGRESS_EVERY_MS = 100;
const ALL_PAGES = 2 ** 31 - 1;
/** Bytes of an ordinary file name (NAME_MAX). */
const MAX_FILE_NAME_BYTES = 255;

export interface Progress {
  readonly pages: number;
  readonly totalPages: number;
}

export interface BackupWatch {
  /** Called with how far it is, at most every `PROGRESS_EVERY_MS`. */
  onProgress: (progress: Progress) => void;
  /** True if nobody wants the copy any more; it is then given up and removed. */
  givenUp: () => boolean;
}

/**
 * Copies a database while it is in use, by SQLite's own backup: a few pages between turns, and what is written
 * meanwhile is written to the copy as well. The copy lies under a hidden name beside `path` until it is whole
 * and on disk, and then gets its own name, unless something has that name by now. Its mode is 0600.
 *
 * Refuses with `invalid_params`, `not_found` (no such directory), `conflict` (the file exists), `forbidden` (the
 * directory is not writable) and `unavailable` (no space or no descriptor left, or given up).
 */
export async function backUp(
  database: Database.Database,
  path: string,
  watch: BackupWatch,
): Promise<Result<"daemon.backup">> {
  const refusal = checkTarget(path);
  if (refusal !== undefined) throw refusal;
  const directory = dirname(path);
  const partial = join(directory, `.pawl-backup-${randomBytes(8).toString("hex")}.partial`);

  let copied = 0;
  let restarts = 0;
  let nextProgressAt = 0;
  try {
    const { totalPages } = await database.backup(partial, {
      progress: ({ totalPages: total, remainingPages }) => {
        if (watch.givenUp()) throw refuse("unavailable", "The backup was given up.", { reason: "given_up" });
        const pages = total - remainingPages;
        if (pages < copied) restarts += 1;
        copied = pages;
        if (elapsed() >= nextProgressAt) {
          watch.onProgress({ pages, totalPages: total });
          nextProgressAt = elapsed() + PROGRESS_EVERY_MS;
        }
        return restarts > MAX_RESTARTS ? ALL_PAGES : PAGES_PER_STEP;
      },
    });
    await sync(partial);
    const { size } = statSync(partial);
    nameNewFile(partial, path);
    await sync(directory);
    return { bytes: size, pages: totalPages };
  } catch (error) {
    throw explain(error, { path, partial, bytes: bytesOf(database) });
  } finally {
    rmSync(partial, { force: true });
    rmSync(`${partial}-journal`, { force: true });
  }
}

function checkTarget(path: string): PawlError | undefined {
  if (!isAbsolute(path) || normalize(path) !== path || path.endsWith("/")) {
    const message = "must be an absolute path to a file, without . and ..";
    return refuse("invalid_params", `daemon.backup: /path ${message}, not ${shown(path)}.`, {
      issues: [{ path: "/path", message }],
    });
  }
  if (Buffer.byteLength(basename(path)) > MAX_FILE_NAME_BYTES) {
    const message = `must end in a file name of at most ${MAX_FILE_NAME_BYTES} bytes`;
    return refuse("invalid_params", `daemon.backup: /path ${message}.`, {
      issues: [{ path: "/path", message }],
    });
  }
  if (!statSync(dirname(path), { throwIfNoEntry: false })?.isDirectory()) {
    return refuse(
      "not_found",
      `There is no directory ${shown(dirname(path))} to put the backup into. Make it.`,
      {
        what: "directory",
      },
    );
  }
  return lstatSync(path, { throwIfNoEntry: false }) === undefined ? undefined : exists(path);
}

function exists(path: string): PawlError {
  return refuse(
    "conflict",
    `There is a file ${shown(path)} already, and a backup replaces none. Choose another name, or remove it.`,
    { path },
  );
}

/**
 * SQLite says of a file that could not be opened for any reason that it cannot be opened. Here one that can be made
 * after all, because there are descriptors again.
 */
function isOutOfDescriptors(code: string | undefined, partial: string): boolean {
  if (code === "EMFILE" || code === "ENFILE" || code === "EEXIST") return true;
  if (code !== "SQLITE_CANTOPEN") return false;
  try {
    closeSync(openSync(partial, "wx"));
    return true;
  } catch (error) {
    return isOutOfDescriptors((error as NodeJS.ErrnoException).code, partial);
  }
}

function bytesOf(database: Database.Database): number {
  const [pages, pageBytes] = ["page_count", "page_size"].map((name) =>
    database.pragma(name, { simple: true }),
  );
  return Number(pages) * Number(pageBytes);
}

/**
 * Errors of the file system are about the path of the caller: it may fix them.
 *
 * @param to where the copy was to be, under which name until it is whole, and its size in bytes.
 */
function explain(
  error: unknown,
  { path, partial, bytes }: { readonly path: string; readonly partial: string; readonly bytes: number },
): unknown {
  if (error instanceof PawlError) return error;
  const code = systemCode(error);
  const isTooLong = code.startsWith("SQLITE_IOERR") && bytes > fileSizeLimit();
  if (code === "EEXIST") return exists(path);
  if (isTooLong) {
    const text = `The daemon may write no file of ${bytes} bytes, as many as the backup would have. Raise its limit (ulimit -f, LimitFSIZE=).`;
    return refuse("unavailable", text, { reason: "disk_full" });
  }
  if (code === "ENOSPC" || code === "SQLITE_FULL" || code === "EDQUOT") {
    return refuse(
      "unavailable",
      "There is no space left for the backup. Make room, or choose another place.",
      {
        reason: "disk_full",
      },
    );
  }
  if (isOutOfDescriptors(code, partial)) {
    return refuse(
      "unavailable",
      "The daemon can open no more files now. Ask again when connections have closed, or raise its limit (LimitNOFILE=).",
      { reason: "no_descriptors" },
    );
  }
  if (code === "EACCES" || code === "EROFS" || code === "EPERM" || code === "SQLITE_CANTOPEN") {
    return refuse(
      "forbidden",
      `The daemon may not write to ${shown(dirname(path))}: its user may not, or its service unit does not let it (ReadWritePaths=). Choose another place.`,
      {
        path,
      },
    );
  }
  return error;
}

/** Waits until a file, or the names in a directory, are on disk. */
async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
