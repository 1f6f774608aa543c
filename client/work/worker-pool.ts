// The room of work: loops that take work from the daemon and have the application do it, several at a time.
import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { PawlError, shown } from "@pawl/protocol/errors";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { callListener } from "./listeners.js";
import { isForGood } from "./refusals.js";

/** How many questions for more one pool has open: the daemon serves a connection only so many requests at a time. */
const MAX_ASKING = 4;
const MAX_CONCURRENCY = 1000;
/** How long one question for more waits at the daemon. */
export const ASK_WAIT_MS = 30_000;
export const FIRST_PAUSE_MS = 100;
export const MAX_PAUSE_MS = 5000;

/** Refuses a number of handlers that cannot run at a time. */
export function checkConcurrency(concurrency: number, most: number): void {
  if (Number.isInteger(concurrency) && concurrency >= 1 && concurrency <= most) return;
  throw new PawlError(
    "invalid_params",
    `concurrency is a whole number from 1 to ${most}, not ${shown(concurrency)}.`,
  );
}

/** Work under way. */
export interface WorkHandle extends AsyncDisposable {
  /**
   * Resolves when the last handler has ended after `close`. Rejects with a `PawlError` when the daemon refuses
   * for good to give any: a name that cannot be, a read-only socket.
   */
  readonly done: Promise<void>;
  /** Takes nothing more, waits for the handlers that run, and ends like `done`. */
  close(): Promise<void>;
}

export interface WorkerPoolOptions<T> {
  connection: Connection;
  /** How many are performed at a time. */
  concurrency: number;
  /** True to close when there is nothing more. */
  drains?: boolean;
  /** True to close once one is taken. */
  once?: boolean;
  /** Asks for one more, waiting at the daemon; undefined when there was none. */
  take: (signal: AbortSignal) => Promise<T | undefined>;
  /** Performs one to its end. Must not reject. */
  perform: (taken: T) => Promise<void>;
  /** Told what went wrong in asking, each time. */
  onError: (error: unknown) => void;
  /** Ends it as `close` does. */
  signal: AbortSignal | undefined;
}

/**
 * Takes work while it has hands free and performs it. Survives the daemon's restarts; pauses, longer each
 * time, while asking fails.
 *
 * `working`: asks and performs. `closing`: performs what it has. `done`: nothing is under way.
 */
export class WorkerPool<T> implements WorkHandle {
  readonly #options: WorkerPoolOptions<T>;
  readonly #closing = new AbortController();
  /** How many are performed, or may come of the questions that are open. */
  #busy = 0;
  #changed: (() => void)[] = [];
  #refusal: PawlError | undefined;
  readonly done: Promise<void>;

  constructor(options: WorkerPoolOptions<T>) {
    this.#options = options;
    checkConcurrency(options.concurrency, MAX_CONCURRENCY);
    this.done = this.#run();
    // An application that does not look at it is told by onError.
    this.done.catch(() => {});
  }

  close(): Promise<void> {
    this.#close();
    return this.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(): Promise<void> {
    const { connection, concurrency, signal } = this.#options;
    const close = (): void => this.#close();
    const ends = [connection.closed, ...(signal === undefined ? [] : [signal])];
    setMaxListeners(0, ...ends);
    for (const end of ends) end.addEventListener("abort", close, { once: true });
    if (ends.some((end) => end.aborted)) close();
    const letGo = connection.keep();
    await Promise.all(Array.from({ length: Math.min(concurrency, MAX_ASKING) }, () => this.#ask()));
    while (this.#busy > 0) await this.#change();
    letGo();
    for (const end of ends) end.removeEventListener("abort", close);
    if (this.#refusal !== undefined) throw this.#refusal;
  }

  #close(): void {
    this.#closing.abort();
    this.#tellChange();
  }

  async #ask(): Promise<void> {
    const { concurrency, take, perform, onError, drains = false, once = false } = this.#options;
    const { signal } = this.#closing;
    let pause = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      if (this.#busy >= concurrency) {
        await this.#change();
        continue;
      }
      this.#busy += 1;
      let taken: T | undefined;
      try {
        taken = await take(signal);
        pause = FIRST_PAUSE_MS;
      } catch (error) {
        this.#free();
        if (signal.aborted) return;
        if (isForGood(error)) this.#refuse(error);
        // A daemon that was started again is no news: a grant that it may have made ended with the connection, or
        // ends by its time.
        else if (!(error instanceof ConnectionLost && error.mayHaveTakenEffect)) callListener(onError, error);
        await delay(pause * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
        pause = Math.min(pause * 2, MAX_PAUSE_MS);
        continue;
      }
      if (taken === undefined) {
        this.#free();
        if (drains) this.#close();
        continue;
      }
      void perform(taken).finally(() => this.#free());
      if (once) this.#close();
    }
  }

  #refuse(error: PawlError): void {
    if (this.#refusal !== undefined) return;
    this.#refusal = error;
    callListener(this.#options.onError, error);
    this.#close();
  }

  #free(): void {
    this.#busy -= 1;
    this.#tellChange();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve));
  }

  #tellChange(): void {
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}
