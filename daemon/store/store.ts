// The room of the store: a database, and the operations that are driven against it. SQLite is in this room and nowhere
// else.
import type { KeptTime } from "../clock.js";
import type { Operation } from "./statement.js";

/**
 * Drives operations against a database. One transaction is open at a time; everything is synchronous, so no
 * other request can come between two steps.
 */
export interface Store {
  /** Opens the transaction of a turn. Throws at once where another program has locked the database. */
  begin(): void;
  /** Opens a transaction that only reads: an operation in it that would write throws `OnlyReads`. */
  beginToRead(): void;
  /** True if the open transaction, or the last one, has written anything. */
  readonly wrote: boolean;
  /**
   * Commits it and returns after the data is on disk; a transaction that wrote nothing costs no fsync. When it fails on
   * the way to the disk, nothing of it comes back at the next start.
   */
  commit(): void;
  /** Undoes what is open, if anything still is. */
  rollback(): void;
  /**
   * Performs one operation inside the open transaction and returns what it returned. Throws if it throws, and
   * if it returns a refusal after it had written, which would leave something behind.
   */
  perform<T>(operation: Operation<T>): T;
  /** Performs one operation like `perform`, but undoes its writes where `isToUndo` says so of what it returned. */
  performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): T;
  /** The process that writes, for a store that only reads; undefined for the store that writes. */
  readonly writer: OtherWriter | undefined;
}

/** Another process, as far as a store that only reads can tell. */
export interface OtherWriter {
  /**
   * The time that it kept last, as the open transaction sees it: the same object as long as it is the same time. Throws
   * when it has migrated the database meanwhile.
   */
  keptTime(): KeptTime | undefined;
  /** A number that is another one after it has committed something; asking opens no transaction. */
  version(): number;
}
