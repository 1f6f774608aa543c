import { setTimeout as delay } from "node:timers/promises";
import type { Dispenser, MethodName, Params, Result } from "@pawl/protocol";
import { failure, isResponse, type Request, type Response } from "@pawl/protocol/envelope";
import { ERRORS, type ErrorData, type ErrorKind, PawlError, refuse } from "@pawl/protocol/errors";
import { isRepeatable } from "@pawl/protocol/repeatable";
import { Link } from "./link.js";

const FIRST_RETRY_MS = 10;
const MAX_RETRY_MS = 1000;
export const DEFAULT_RECONNECT_MS = 30_000;

/**
 * The connection ended before the answer came, so nobody knows whether the request took effect. What can be
 * repeated without harm has been repeated; this is for the rest.
 */
export class ConnectionLost extends Error {
  override readonly name = "ConnectionLost";
  /** The method whose answer was lost, or undefined when no daemon could be reached at all. */
  readonly method: string | undefined;

  constructor(message: string, method?: string, options?: ErrorOptions) {
    super(message, options);
    this.method = method;
  }
}

export interface CallOptions {
  /** Gives up the call; whether it took effect is then unknown, as with a lost connection. */
  signal?: AbortSignal;
}

type Group<N extends MethodName> = N extends `${infer G}.${string}` ? G : never;
type Within<G extends string> = Extract<MethodName, `${G}.${string}`> extends `${G}.${infer M}` ? M : never;
type Call<N extends MethodName> =
  Record<string, never> extends Params<N>
    ? (params?: Params<N>, options?: CallOptions) => Promise<Result<N>>
    : (params: Params<N>, options?: CallOptions) => Promise<Result<N>>;

/** `client.sequence.next({...})` for every method of the protocol. */
export type Groups = {
  readonly [G in Group<MethodName>]: { readonly [M in Within<G>]: Call<Extract<MethodName, `${G}.${M}`>> };
};

/**
 * Performs a request of the daemon (push) and returns its result. What it throws is answered as an error.
 */
export type RequestHandler = (params: Record<string, unknown>) => unknown;

interface Pending {
  readonly request: Request & { id: number };
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  /** Whether it was sent on the present connection. */
  sent: boolean;
}

/**
 * A connection to a daemon that survives its restarts.
 *
 * `up`: requests are sent at once. `down`: requests wait while it tries to connect again, with growing pauses,
 * for at most `reconnectMs`; then they are rejected with `ConnectionLost`, and the next request tries anew.
 * `closed`: for good.
 */
export class ClientConnection {
  readonly socketPath: string;
  readonly #reconnectMs: number;
  #link: Link | undefined;
  #state: "up" | "down" | "closed" = "down";
  #connecting = false;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();
  readonly #handlers = new Map<string, RequestHandler>();
  readonly #onUp = new Set<() => void>();
  readonly #onDown = new Set<() => void>();

  constructor(socketPath: string, reconnectMs: number) {
    this.socketPath = socketPath;
    this.#reconnectMs = reconnectMs;
  }

  /** Connects once; rejects with the system's error. */
  async open(): Promise<void> {
    this.#link = await Link.open(this.socketPath, {
      onMessage: (message) => this.#received(message),
      onClose: () => this.#lost(),
    });
    this.#state = "up";
    for (const pending of this.#pending.values()) this.#send(pending);
    for (const listener of this.#onUp) listener();
  }

  /** Sends a request and resolves with its result; rejects with `PawlError`, `ConnectionLost`, or the signal's reason. */
  call<N extends MethodName>(method: N, params: Params<N>, options?: CallOptions): Promise<Result<N>>;
  call(method: string, params: Record<string, unknown>, options?: CallOptions): Promise<unknown>;
  call(method: string, params: Record<string, unknown> = {}, options: CallOptions = {}): Promise<unknown> {
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#state === "closed") return Promise.reject(new ConnectionLost("The client is closed.", method));
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const onAbort = (): void => {
        this.#pending.delete(id);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const pending: Pending = {
        request: { jsonrpc: "2.0", id, method, params },
        resolve: (result) => {
          signal?.removeEventListener("abort", onAbort);
          resolve(result);
        },
        reject: (error) => {
          signal?.removeEventListener("abort", onAbort);
          reject(error);
        },
        sent: false,
      };
      this.#pending.set(id, pending);
      if (this.#state === "up") this.#send(pending);
      else void this.#reconnect();
    });
  }

  /** Answers a method that the daemon calls on this connection, request or notification. */
  handle(method: string, handler: RequestHandler): void {
    this.#handlers.set(method, handler);
  }

  /** Calls `up` after each reconnection and `down` after each loss, until the returned function is called. */
  watch(listener: { up?: () => void; down?: () => void }): () => void {
    const { up, down } = listener;
    if (up !== undefined) this.#onUp.add(up);
    if (down !== undefined) this.#onDown.add(down);
    return () => {
      if (up !== undefined) this.#onUp.delete(up);
      if (down !== undefined) this.#onDown.delete(down);
    };
  }

  /** Keeps trying to connect although no request waits: for receivers of push. */
  reconnect(): void {
    if (this.#state === "down") void this.#reconnect();
  }

  /** Closes for good. Requests without an answer are rejected with `ConnectionLost`. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#link?.close();
    this.#rejectAll("The client was closed before the answer came.");
  }

  #send(pending: Pending): void {
    pending.sent = true;
    this.#link?.send(pending.request);
  }

  #received(message: unknown): void {
    if (Array.isArray(message)) {
      for (const each of message) this.#received(each);
    } else if (isResponse(message)) {
      this.#answered(message);
    } else {
      void this.#asked(message as Request);
    }
  }

  #answered(response: Response): void {
    const pending = this.#pending.get(response.id as number);
    if (pending === undefined) return;
    if ("error" in response) {
      const error = toError(response.error);
      // The daemon refused it unseen because it is stopping: the next one will take it.
      if (error.kind === "unavailable" && error.details.reason === "stopping") {
        pending.sent = false;
        return;
      }
      this.#pending.delete(pending.request.id);
      pending.reject(error);
    } else {
      this.#pending.delete(pending.request.id);
      pending.resolve(response.result);
    }
  }

  async #asked({ id, method, params }: Request): Promise<void> {
    const handler = this.#handlers.get(method);
    const link = this.#link;
    if (handler === undefined) {
      if (id === undefined) return;
      const refusal = refuse("method_not_found", `This client does not serve ${JSON.stringify(method)}.`);
      return link?.send(failure(id, refusal));
    }
    try {
      const result = await handler(params ?? {});
      if (id !== undefined) link?.send({ jsonrpc: "2.0", id, result: result ?? null });
    } catch (error) {
      if (id !== undefined) link?.send({ jsonrpc: "2.0", id, error: toErrorObject(error) });
    }
  }

  #lost(): void {
    this.#link = undefined;
    if (this.#state === "closed") return;
    this.#state = "down";
    for (const pending of [...this.#pending.values()]) {
      const { method, params, id } = pending.request;
      if (pending.sent && !isRepeatable(method, params ?? {})) {
        this.#pending.delete(id);
        pending.reject(
          new ConnectionLost(
            `The connection ended before the answer to ${method} came; it may have taken effect.`,
            method,
          ),
        );
      }
      pending.sent = false;
    }
    for (const listener of this.#onDown) listener();
    if (this.#pending.size > 0) void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    if (this.#connecting) return;
    this.#connecting = true;
    try {
      const givingUp = performance.now() + this.#reconnectMs;
      for (let pause = FIRST_RETRY_MS; this.#state === "down"; pause = Math.min(pause * 2, MAX_RETRY_MS)) {
        try {
          return await this.open();
        } catch (error) {
          if (performance.now() + pause > givingUp) {
            return this.#rejectAll(`No daemon answers on ${this.socketPath}.`, error);
          }
        }
        // Spread, so that all clients of a restarted daemon do not come at once.
        await delay(pause * (0.5 + Math.random() / 2));
      }
    } finally {
      this.#connecting = false;
    }
  }

  #rejectAll(message: string, cause?: unknown): void {
    for (const { request, reject } of this.#pending.values()) {
      reject(new ConnectionLost(message, request.method, { cause }));
    }
    this.#pending.clear();
  }
}

function toError({ code, message, data }: { code: number; message: string; data?: unknown }): PawlError {
  const { kind, retryable: _, ...details } = (data ?? {}) as Partial<ErrorData>;
  if (kind !== undefined && Object.hasOwn(ERRORS, kind))
    return new PawlError(kind as ErrorKind, message, details);
  return new PawlError("internal", `${message} (code ${code})`, details);
}

function toErrorObject(error: unknown): { code: number; message: string; data?: unknown } {
  if (error instanceof PawlError) return { code: error.code, message: error.message, data: error.data };
  return { code: ERRORS.internal.code, message: error instanceof Error ? error.message : String(error) };
}

/** A proxy that turns `group.method(params)` into calls, so that no list of methods is needed at run time. */
export function groupsOf(connection: ClientConnection): Groups {
  const groups = new Map<string, unknown>();
  return new Proxy({} as Groups, {
    get(_target, group) {
      if (typeof group !== "string") return undefined;
      const known = groups.get(group);
      if (known !== undefined) return known;
      const made = new Proxy(
        {},
        {
          get(_group, method) {
            // A promise would be asked for `then` before it is resolved with us.
            if (typeof method !== "string" || method === "then") return undefined;
            return (params?: Record<string, unknown>, options?: CallOptions) =>
              connection.call(`${group}.${method}`, params ?? {}, options);
          },
        },
      );
      groups.set(group, made);
      return made;
    },
  });
}

/** The sequences of a daemon, behind the same interface as those of a file or of memory. */
export function dispenserOf(connection: ClientConnection): Dispenser {
  return {
    next: async (type) => (await connection.call("sequence.next", { type })).seq,
    nextId: async (type) => (await connection.call("sequence.next", { type })).id,
    peek: async (type) => (await connection.call("sequence.peek", { type })).seq,
    state: () => connection.call("sequence.state", {}),
    formatId: async (type, seq) => (await connection.call("sequence.format", { type, seq })).id,
  };
}
