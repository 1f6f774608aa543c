import { elapsed } from "../clock.js";
import type { OtherWriter } from "../store/store.js";

/**
 * The time between two looks at the database of the process that writes: SQLite tells other processes of nothing. A
 * look takes microseconds, and there is none while no call waits.
 */
const LOOK_EVERY_MS = 20;
/** Performing all that waits once more takes this part of the time at most. */
const LOOK_SHARE = 0.1;

interface Watcher {
  /** True if any call waits. */
  isNeeded(): boolean;
  /** Another process has committed something: performs all that waits once more, in a turn. */
  onChange(): void;
}

/** In a daemon that only reads: finds out that the process that writes has committed something. */
export class WriterWatch {
  readonly #writer: OtherWriter;
  readonly #watcher: Watcher;
  #timer: NodeJS.Timeout | undefined;
  /** The version of the database with which all that waits was last performed. */
  #seenVersion: number | undefined;
  #stopped = false;

  constructor(writer: OtherWriter, watcher: Watcher) {
    this.#writer = writer;
    this.#watcher = watcher;
  }

  /** Begins to look, if any call waits. */
  start(): void {
    if (this.#timer === undefined && this.#watcher.isNeeded()) this.#lookAfter(LOOK_EVERY_MS);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #lookAfter(ms: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.#look(), ms);
    this.#timer.unref();
  }

  #look(): void {
    this.#timer = undefined;
    if (!this.#watcher.isNeeded()) return;
    const start = elapsed();
    const version = this.#versionNow();
    if (version === undefined || version !== this.#seenVersion) {
      this.#seenVersion = version;
      this.#watcher.onChange();
    }
    this.#lookAfter(Math.max(LOOK_EVERY_MS, (elapsed() - start) / LOOK_SHARE));
  }

  /** Undefined when it cannot be read: the turn finds out why. */
  #versionNow(): number | undefined {
    try {
      return this.#writer.version();
    } catch {
      return undefined;
    }
  }
}
