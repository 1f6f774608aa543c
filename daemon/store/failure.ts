import { PawlError } from "@pawl/protocol/errors";
import Database from "better-sqlite3";
import { FilesMoved } from "./own-files.js";
import { WitnessNotWritten } from "./witness.js";

/**
 * The meaning of a storage failure for the daemon. `full`: no space; reads go on and writes will again.
 * `starved`: no descriptor was left for it; nothing was performed, and it will be again once some are free.
 * `locked`: another program holds a lock on the database, and will let go of it; nothing was performed.
 * `broken`: an I/O error, or files that others have moved; what memory says and what is on disk may differ, so the
 * process has to end.
 * `corrupt`: something stored is not what was stored; whoever asked for it is told, and the process has to end.
 * `defect`: anything else, to be blamed on the operation.
 */
export type Failure = "full" | "starved" | "locked" | "broken" | "corrupt" | "defect";

/** The process that writes has migrated the database: its tables are no longer those that this program reads. */
export class Migrated extends Error {}

/** There is too little space for something to be tried. */
export class NoSpace extends Error {}

/** An operation would write in a transaction that only reads. */
export class OnlyReads extends Error {}

/** Sorts an error thrown by the store or by an operation (https://www.sqlite.org/rescode.html). */
export function classify(error: unknown): Failure {
  if (error instanceof Migrated || error instanceof FilesMoved) return "broken";
  if (error instanceof WitnessNotWritten) return LACKS[error.lack ?? "nothing"];
  if (error instanceof PawlError && error.kind === "log_corrupt") return "corrupt";
  if (error instanceof OnlyReads) return "locked";
  if (error instanceof NoSpace) return "full";
  const code = error instanceof Database.SqliteError ? error.code : "";
  // The protocol of locks fails where others take and release them without end.
  if (code.startsWith("SQLITE_BUSY") || code === "SQLITE_PROTOCOL") return "locked";
  // The shared index of the write-ahead log grows too; SQLite has a code of its own for no space there.
  if (code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE") return "full";
  if (code.startsWith("SQLITE_IOERR") || code === "SQLITE_CORRUPT" || code === "SQLITE_NOTADB")
    return "broken";
  return "defect";
}

const LACKS = { space: "full", descriptors: "starved", nothing: "broken" } as const;
