import type { Result } from "@pawl/protocol";
import type { Logger } from "pino";
import { elapsed } from "./clock.js";
import type { OpenDatabase } from "./store/open-database.js";
import { LOG_LIMIT_BYTES } from "./store/write-ahead-log.js";

/** Longer than any log is that can be moved; one commit of large values makes it longer for a moment. */
const GROWN_BYTES = LOG_LIMIT_BYTES + 8 * 1024 * 1024;
/** What keeps the log from being moved for less than this is not told of: a backup, or a check. */
const PATIENCE_MS = 2000;

/**
 * Watches a write-ahead log that grows, because somebody reads the database without end: nothing that was written since
 * that began can be moved out of the log. Everything goes on meanwhile. It is told of once, and each time that the log
 * is twice as long; and the log is cut when the reader is gone, also if nothing is written any more.
 */
export class LogGrowth {
  readonly #database: OpenDatabase;
  readonly #log: Logger;
  readonly #onTrouble: () => void;
  #grownSince: number | undefined;
  #toldBytes = 0;
  /** The reader, and how long the log is; null while all is well. */
  held: Result<"daemon.info">["heldLog"] = null;

  /** @param onTrouble called when there is another `trouble`, or none any more. */
  constructor(database: OpenDatabase, log: Logger, onTrouble: () => void) {
    this.#database = database;
    this.#log = log;
    this.#onTrouble = onTrouble;
  }

  /** The state of the log, for people, if that is of interest. */
  get trouble(): string | undefined {
    if (this.held === null) return undefined;
    const { pid, walBytes } = this.held;
    return `The write-ahead log has ${Math.round(walBytes / 1e6)} MB, since ${nameOf(pid)} reads the database without end`;
  }

  /** To be called now and then, outside of turns. */
  look(): void {
    const { walBytes } = this.#database.sizes();
    if (walBytes <= GROWN_BYTES) return this.#end(walBytes);
    this.#grownSince ??= elapsed();
    const pid = this.#database.logReader();
    if (pid === null) this.#database.cutLog();
    if (pid === null && this.#database.sizes().walBytes <= GROWN_BYTES) return;
    if (elapsed() - this.#grownSince < PATIENCE_MS) return;
    this.held = { pid, walBytes };
    if (walBytes < 2 * this.#toldBytes) return;
    this.#toldBytes = walBytes;
    this.#log.warn(
      this.held,
      "the write-ahead log grows, since another program reads the database without end; end it, or its transaction",
    );
    this.#onTrouble();
  }

  #end(walBytes: number): void {
    this.#grownSince = undefined;
    if (this.held === null) return;
    this.held = null;
    this.#toldBytes = 0;
    this.#log.info(
      { walBytes },
      "the write-ahead log is moved and cut, since nobody reads the database without end",
    );
    this.#onTrouble();
  }
}

function nameOf(pid: number | null): string {
  return pid === null ? "another program" : `the process ${pid}`;
}
