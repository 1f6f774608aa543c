import type { Operation } from "./statement.js";

/**
 * Drives operations against a database. One transaction is open at a time; everything is synchronous, so no
 * other request can come between two steps.
 */
export interface Store {
  /** Opens the transaction of a turn. */
  begin(): void;
  /**
   * Commits it and returns after the data is on disk. If anything was written, the high-water mark of the clock
   * is then at `now` or a little ahead of it; a transaction that wrote nothing costs no fsync.
   * @returns whether anything was written.
   */
  commit(now: number): boolean;
  /**
   * A time that the process that writes had reached when it wrote what the open transaction sees, at most a tenth
   * of a second earlier; for a store that only reads. Throws when that process has migrated the database meanwhile.
   */
  lastTime(): number;
  /** A number that is another one after another process has committed something; asking opens no transaction. */
  dataVersion(): number;
  /** Keeps `now` as the high-water mark even if nothing else is written: at the end of the daemon's life. */
  keepTime(now: number): void;
  /** Undoes what is open, if anything still is. */
  rollback(): void;
  /**
   * Performs one operation inside the open transaction and returns what it returned. Throws if it throws, and
   * if it returns a refusal after it had written, which would leave something behind.
   */
  perform<T>(operation: Operation<T>): T;
  /** Performs one operation like `perform`, but undoes its writes when it returns a refusal. */
  performOrUndo<T>(operation: Operation<T>): T;
  /**
   * After a commit that failed on the way to the disk: takes away what it left there, so that nothing comes
   * back at the next start that nobody was told of. Nothing may be done with the store afterwards but `close`.
   */
  dropUncommitted(): void;
  /** Moves what is in the write-ahead log into the database, as far as readers allow. */
  checkpoint(): void;
  /** Whether so much has been written that no later write changes that it is time for `moveLog`. */
  readonly hasMuchToMove: boolean;
  /** Moves what is in the write-ahead log into the database; what cannot be moved now stays there. Never throws. */
  moveLog(): void;
  /** Size of the database and of its write-ahead log. */
  sizes(): { bytes: number; walBytes: number };
  close(): void;
}

/**
 * What a storage failure means for the daemon. `full`: no space; reads go on and writes will again.
 * `broken`: an I/O error; what memory says and what is on disk may differ, so the process has to end.
 * `corrupt`: something stored is not what was stored; whoever asked for it is told, and the process has to end.
 * `defect`: anything else, to be blamed on the operation.
 */
export type Failure = "full" | "broken" | "corrupt" | "defect";
