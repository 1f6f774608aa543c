const FIRST_PAUSE_MS = 10;
const MAX_PAUSE_MS = 500;
/** A connection that has lasted so long works, even if nothing was asked on it that could have been answered. */
const WORKING_MS = 1000;

/**
 * How long to wait before connecting again. The pauses grow until a connection works, and not only until there is one:
 * some peers accept only to close again.
 */
export class ReconnectionPause {
  #pauseMs = 0;
  #openedAt = 0;
  #answered = false;

  /** The next pause in milliseconds, spread so that all clients of a restarted daemon do not come at once. */
  next(): number {
    const pause = this.#pauseMs * (0.5 + Math.random() / 2);
    this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, FIRST_PAUSE_MS), MAX_PAUSE_MS);
    return pause;
  }

  /** Begins with short pauses again. */
  reset(): void {
    this.#pauseMs = 0;
  }

  opened(): void {
    this.#openedAt = performance.now();
    this.#answered = false;
  }

  answered(): void {
    this.#answered = true;
  }

  /** The connection ended. Returns whether it had worked. */
  closed(): boolean {
    const worked = this.#answered || performance.now() - this.#openedAt >= WORKING_MS;
    if (worked) this.reset();
    return worked;
  }
}
