import type { ErrorObject, Id, Request, Response } from "@pawl/protocol/envelope";
import { ERRORS, PawlError, refuse, shown } from "@pawl/protocol/errors";
import { stringify } from "./json-text.js";

/** Thrown by a `RequestHandler` to choose the error object that answers the request. */
export class RequestFailure extends Error {
  readonly object: ErrorObject;

  constructor(object: ErrorObject) {
    super(object.message);
    this.object = object;
  }
}

/**
 * Performs a request of the daemon (push) and returns its result. An error that it throws is the answer.
 * `line` is the request as it came.
 */
export type RequestHandler = (params: Record<string, unknown>, line: string) => unknown;

/** Called with the params of each notification of a method. */
export type NotificationListener = (params: Record<string, unknown>) => void;

/**
 * Requests and notifications that the daemon sends of its own accord. A request is answered by the handler of its
 * method; a notification is given to all listeners of its method.
 */
export class IncomingRequests {
  readonly #handlers = new Map<string, RequestHandler>();
  readonly #listeners = new Map<string, Set<NotificationListener>>();
  /** How many requests are performed. */
  #underWay = 0;

  /** Has a handler answer the requests of a method. */
  handle(method: string, handler: RequestHandler): void {
    this.#handlers.set(method, handler);
  }

  /** Listens to a notification, until the returned function is called. */
  on(method: string, listener: NotificationListener): () => void {
    const listeners = this.#listeners.get(method) ?? new Set();
    this.#listeners.set(method, listeners);
    // Wrapped, so that the same function given twice is called twice and taken away once.
    const own: NotificationListener = (params) => listener(params);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  /** True if there are requests that have no answer yet. */
  get busy(): boolean {
    return this.#underWay > 0;
  }

  stopListening(): void {
    this.#listeners.clear();
  }

  /**
   * Takes a request or a notification.
   *
   * @param line the message as it came.
   * @param answer sends the line of an answer on the connection that the request came by.
   */
  take({ id, method, params = {} }: Request, line: string, answer: (line: string) => void): void {
    if (id !== undefined) {
      void this.#perform(id, method, params, line, answer);
      return;
    }
    for (const listener of this.#listeners.get(method) ?? []) {
      // An error of a listener is for the application to see, not for this connection to break by.
      queueMicrotask(() => listener(params));
    }
  }

  async #perform(
    id: Id,
    method: string,
    params: Record<string, unknown>,
    line: string,
    answer: (line: string) => void,
  ): Promise<void> {
    let answerLine: string;
    this.#underWay += 1;
    try {
      const handler = this.#handlers.get(method);
      if (handler === undefined) {
        throw refuse("method_not_found", `This client does not serve ${shown(method)}.`);
      }
      const result = await handler(params, line);
      answerLine = stringify({ jsonrpc: "2.0", id, result: result ?? null } satisfies Response);
    } catch (error) {
      answerLine = errorLine(id, error);
    }
    this.#underWay -= 1;
    answer(answerLine);
  }
}

function errorLine(id: Id, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const plain = { code: ERRORS.internal.code, message };
  try {
    const object =
      error instanceof RequestFailure
        ? error.object
        : error instanceof PawlError
          ? { code: error.code, message, data: error.data }
          : plain;
    return JSON.stringify({ jsonrpc: "2.0", id, error: object } satisfies Response);
  } catch {
    // Details that are no JSON.
    return JSON.stringify({ jsonrpc: "2.0", id, error: plain } satisfies Response);
  }
}
