/**
 * How many handlers run at a time. The daemon counts no command that has ended, although its handler may go on; so it
 * sends more than run, and they wait here.
 */
export class HandlerSlots {
  readonly #slots: number;
  /** How many handlers have begun and not ended. */
  #begun = 0;
  /** Of those whose turn to begin has not come, in their order. */
  readonly #waiting = new Set<() => void>();

  constructor(slots: number) {
    this.#slots = slots;
  }

  /** Resolves once a handler may begin. Rejects with the signal's reason if that is aborted before. */
  async begin(signal: AbortSignal): Promise<void> {
    if (this.#begun < this.#slots) {
      this.#begun += 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#waiting.add(resolve);
      signal.addEventListener("abort", () => {
        if (this.#waiting.delete(resolve)) reject(signal.reason);
      });
    });
  }

  /** A handler has ended: the first that waits has its place. */
  end(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#begun -= 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
