// One call: its request as a line, and its answer as a result or an error.
import { setMaxListeners } from "node:events";
import type { ErrorObject } from "@pawl/protocol/envelope";
import { ERRORS, type ErrorData, PawlError } from "@pawl/protocol/errors";
import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import { isRepeatable } from "@pawl/protocol/repeatable";
import type { MethodName } from "@pawl/protocol/types";
import { ConnectionLost } from "./connection-lost.js";
import { stringify } from "./json-text.js";
import type { Outgoing } from "./line-socket.js";

export interface CallOptions {
  /**
   * Gives up the call, which rejects with the signal's reason. A wait of it is ended (`rpc.cancel`); otherwise nobody
   * knows whether it took effect. A claim or lease that it was granted all the same is given back.
   */
  signal?: AbortSignal;
  /**
   * Ends the wait of the call and nothing else: its answer still comes, which is `cancelled`, or what it was granted
   * right before. So nothing is granted that nobody hears of.
   */
  endWait?: AbortSignal;
}

/** A result, and the JSON text that it came as: numbers of JavaScript do not hold all that JSON can say. */
export interface WithText<R> {
  readonly result: R;
  readonly text: string;
}

/** The functions by which a call tells its end. */
export interface AnswerCallbacks {
  /** Called with the result and the line that it came in. */
  readonly resolve: (result: unknown, line: string) => void;
  readonly reject: (error: unknown) => void;
}

/** A call that has no answer yet. */
export class PendingCall implements Outgoing {
  readonly id: number;
  readonly method: string;
  line: string;
  sent = false;
  dropped = false;
  /** True if the request may be sent again when nobody knows whether it was performed. */
  readonly repeatable: boolean;
  /** True if the request was sent on an earlier connection and may have been performed there. */
  mayHaveTakenEffect = false;
  /** Since when the call has waited for a connection that works. */
  waitsSince = performance.now();
  /** How long the daemon may wait for the condition of the call, from `#startedAt`. */
  readonly #waitMs: number;
  readonly #startedAt = this.waitsSince;
  readonly #callbacks: AnswerCallbacks;
  #timeoutMs = 0;
  #isWaitEnded = false;
  #stopListening: () => void = () => {};

  /** Throws a `PawlError` `invalid_params` when the params cannot be JSON. */
  constructor(id: number, method: string, params: Record<string, unknown>, callbacks: AnswerCallbacks) {
    this.id = id;
    this.method = method;
    this.line = toLine(id, method, params);
    this.repeatable = isRepeatable(method, params);
    this.#waitMs = typeof params.waitMs === "number" ? params.waitMs : 0;
    this.#callbacks = callbacks;
  }

  /** Calls `giveUp` with the reason when the signal is aborted before the call has ended. */
  endBy(signal: AbortSignal, giveUp: (reason: unknown) => void): void {
    const onAbort = (): void => giveUp(signal.reason);
    // One signal for all calls of a program is no leak: each call takes its listener away.
    setMaxListeners(0, signal);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#stopListening = () => signal.removeEventListener("abort", onAbort);
  }

  /** Calls `end` with the reason when the signal that ends the wait is aborted before the call has ended. */
  endWaitBy(signal: AbortSignal, end: (reason: unknown) => void): void {
    const stopListening = this.#stopListening;
    const onAbort = (): void => {
      this.#isWaitEnded = true;
      end(signal.reason);
    };
    setMaxListeners(0, signal);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#stopListening = () => {
      signal.removeEventListener("abort", onAbort);
      stopListening();
    };
  }

  /** Calls `giveUp` when the answer takes longer than this, beyond the time for which the daemon was asked to wait. */
  endAfter(timeoutMs: number, giveUp: () => void): void {
    const stopListening = this.#stopListening;
    const timer = setTimeout(giveUp, Math.min(timeoutMs + this.#waitMs, MAX_TIMER_MS));
    this.#timeoutMs = timeoutMs;
    this.#stopListening = () => {
      clearTimeout(timer);
      stopListening();
    };
  }

  /** The error for an answer that takes too long. */
  lateness(socketPath: string): ConnectionLost {
    const mayHaveTakenEffect = this.mayHaveTakenEffect || this.sent;
    const effect = mayHaveTakenEffect && !this.repeatable ? "; it may have taken effect" : "";
    const message = `The daemon on ${socketPath} has not answered ${this.method} within ${this.#timeoutMs / 1000} s: it is stopped or busy${effect}.`;
    return new ConnectionLost(message, this.method, { mayHaveTakenEffect });
  }

  /** Makes the request wait no longer than the caller does, whose patience began with the call. */
  shortenWait(): void {
    if (this.#waitMs === 0) return;
    const { params } = JSON.parse(this.line) as { params: Record<string, unknown> };
    const rest = Math.max(0, Math.round(this.#waitMs - (performance.now() - this.#startedAt)));
    const left = this.#isWaitEnded ? 0 : rest;
    this.line = toLine(this.id, this.method, { ...params, waitMs: left });
  }

  /** True if the daemon may wait for the condition of the call. */
  get waits(): boolean {
    return this.#waitMs > 0;
  }

  resolve(result: unknown, line: string): void {
    this.#stopListening();
    this.#callbacks.resolve(result, line);
  }

  reject(error: unknown): void {
    this.dropped = true;
    this.#stopListening();
    this.#callbacks.reject(error);
  }

  /** Rejects with `ConnectionLost`, which says whether the request may have been performed. */
  rejectAsLost(message: string, cause?: unknown): void {
    const mayHaveTakenEffect = this.mayHaveTakenEffect || this.sent;
    this.reject(new ConnectionLost(message, this.method, { cause, mayHaveTakenEffect }));
  }
}

/** The notification that ends the wait of a call. */
export function cancelOf({ id }: PendingCall): Outgoing {
  const line = JSON.stringify({ jsonrpc: "2.0", method: "rpc.cancel" satisfies MethodName, params: { id } });
  return { line, sent: false, dropped: false };
}

function toLine(id: number, method: string, params: Record<string, unknown>): string {
  try {
    return stringify({ jsonrpc: "2.0", id, method, params });
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `The params of ${method} cannot be JSON: ${error}.`,
      {},
      { cause: error },
    );
  }
}

/** The error that an error object of the daemon stands for. */
export function toError(object: ErrorObject): PawlError {
  const { code, message, data } = (object ?? {}) as Partial<ErrorObject>;
  const { kind, ...details } = (typeof data === "object" ? (data ?? {}) : {}) as ErrorData;
  if (Object.hasOwn(ERRORS, kind)) return new PawlError(kind, String(message), details);
  // The daemon is newer than this client.
  return new PawlError("internal", `${message} (${kind ?? "code"} ${code})`, {
    ...details,
    retryable: false,
    kind,
    code,
  });
}
