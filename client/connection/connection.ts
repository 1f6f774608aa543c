import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Dispenser, MethodName, Params, Result } from "@pawl/protocol";
import {
  checkRequest,
  type ErrorObject,
  type Id,
  isResponse,
  type Request,
  type Response,
} from "@pawl/protocol/envelope";
import { ERRORS, type ErrorData, PawlError, refuse, shown } from "@pawl/protocol/errors";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_MAX_MESSAGE_BYTES } from "@pawl/protocol/limits";
import { isRepeatable } from "@pawl/protocol/repeatable";
import { type Ending, Link, nobodyListens, type Outgoing } from "./line-socket.js";

const FIRST_RETRY_MS = 10;
const MAX_RETRY_MS = 500;
/** A connection that has lasted so long works, even if nothing was asked on it that could have been answered. */
const WORKING_MS = 1000;
export const DEFAULT_RECONNECT_MS = 30_000;

/**
 * The connection ended, or there is none. What can be repeated without harm has been repeated, for as long as
 * `reconnectMs`; this is for the rest.
 *
 * @example
 * try {
 *   await client.queue.abandon({ claimId, leaseToken });
 * } catch (error) {
 *   if (error instanceof ConnectionLost && !error.mayHaveTakenEffect) return again();
 *   throw error;
 * }
 */
export class ConnectionLost extends Error {
  override readonly name = "ConnectionLost";
  /** The method whose answer was lost, or undefined when it is about no call. */
  readonly method: string | undefined;
  /** Whether the request may have been performed. When false it certainly was not. */
  readonly mayHaveTakenEffect: boolean;

  constructor(
    message: string,
    method?: string,
    options: ErrorOptions & { mayHaveTakenEffect?: boolean } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.method = method;
    this.mayHaveTakenEffect = options.mayHaveTakenEffect ?? false;
  }
}

export interface CallOptions {
  /**
   * Gives up the call, which rejects with the signal's reason. Whether it took effect is then unknown, but a
   * claim or lease that it is granted later is given back.
   */
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

/** Thrown by a `RequestHandler` to choose the error object that answers the request. */
export class RequestFailure extends Error {
  readonly object: ErrorObject;

  constructor(object: ErrorObject) {
    super(object.message);
    this.object = object;
  }
}

/** A result, and the JSON text that it came as: numbers of JavaScript do not hold all that JSON can say. */
export interface WithText<R> {
  readonly result: R;
  readonly text: string;
}

/**
 * Performs a request of the daemon (push) and returns its result. What it throws is answered as an error.
 * `line` is the request as it came.
 */
export type RequestHandler = (params: Record<string, unknown>, line: string) => unknown;

/** Called with the params of each notification of a method. */
export type NotificationListener = (params: Record<string, unknown>) => void;

/** What those want to know who hold something that depends on the connection. */
export interface Watcher {
  /** There is a connection again. */
  up?: () => void;
  /** There is none any more. */
  down?: () => void;
  /** Connecting was tried, and nobody listens: no daemon has started since. */
  refused?: () => void;
}

interface Pending extends Outgoing {
  readonly id: number;
  readonly method: string;
  line: string;
  /** Whether it may be sent again when nobody knows whether it was performed. */
  readonly repeatable: boolean;
  /** Whether it was sent on an earlier connection and may have been performed there. */
  mayHaveTakenEffect: boolean;
  /** How long its condition may be waited for, from `startedAt`. */
  readonly waitMs: number;
  readonly startedAt: number;
  /** Since when it has waited for a connection that works. */
  waitsSince: number;
  readonly resolve: (result: unknown, line: string) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A connection to a daemon that survives its restarts. Requests are sent in the order of their calls, also
 * those that are sent again.
 *
 * `up`: requests are sent at once.
 * `leaving`: the daemon has said that it performs nothing more on this connection (it is stopping, or was sent
 * too long a line). Answers on their way are still read, new requests wait for the next connection.
 * `down`: no connection. While a request waits, or somebody `keep`s it, connecting is tried with growing
 * pauses; a request that has waited for `reconnectMs` is rejected with `ConnectionLost`.
 * `closed`: for good.
 */
export class ClientConnection {
  readonly socketPath: string;
  readonly #reconnectMs: number;
  readonly #closing = new AbortController();
  #link: Link | undefined;
  #state: "up" | "leaving" | "down" | "closed" = "down";
  #connecting = false;
  /** Before the next attempt to connect. Grows until a connection works: some peers accept only to close again. */
  #pauseMs = 0;
  #openedAt = 0;
  #answeredSinceOpened = false;
  #keepers = 0;
  #maxMessageBytes: number | undefined;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();
  /** Calls given up after they were sent whose answer may grant something. */
  readonly #givenUp = new Map<number, string>();
  readonly #handlers = new Map<string, RequestHandler>();
  readonly #listeners = new Map<string, Set<NotificationListener>>();
  readonly #watchers = new Set<Watcher>();

  /** @param reconnectMs how long a request waits for a daemon that went away. */
  constructor(socketPath: string, reconnectMs: number) {
    this.socketPath = socketPath;
    this.#reconnectMs = reconnectMs;
    // Everything that is held over this connection listens, and takes its listener away.
    setMaxListeners(0, this.closed);
  }

  /** Aborted when the client is closed. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  get up(): boolean {
    return this.#state === "up";
  }

  /** Connects once; rejects with the system's error. */
  async open(): Promise<void> {
    const link = await Link.open(this.socketPath, {
      onMessage: (message, line) => this.#received(message, line),
      onClose: (ending) => this.#lost(ending),
    });
    if (this.#state === "closed") {
      link.close();
      throw new ConnectionLost("The client was closed while it was connecting.");
    }
    this.#link = link;
    this.#state = "up";
    this.#openedAt = performance.now();
    this.#answeredSinceOpened = false;
    for (const pending of this.#pending.values()) this.#sendAgain(pending);
    for (const { up } of [...this.#watchers]) up?.();
  }

  /** Sends a request and resolves with its result; rejects with `PawlError`, `ConnectionLost`, or the signal's reason. */
  call<N extends MethodName>(method: N, params: Params<N>, options?: CallOptions): Promise<Result<N>>;
  call(method: string, params: Record<string, unknown>, options?: CallOptions): Promise<unknown>;
  call(method: string, params: Record<string, unknown> = {}, options: CallOptions = {}): Promise<unknown> {
    return new Promise((resolve, reject) => this.#request(method, params, options, resolve, reject));
  }

  /** Like `call`, with the JSON text of the result beside it. */
  callForText<N extends MethodName>(
    method: N,
    params: Params<N>,
    options?: CallOptions,
  ): Promise<WithText<Result<N>>>;
  callForText(
    method: string,
    params: Record<string, unknown>,
    options?: CallOptions,
  ): Promise<WithText<unknown>>;
  callForText(
    method: string,
    params: Record<string, unknown>,
    options: CallOptions = {},
  ): Promise<WithText<unknown>> {
    return new Promise((resolve, reject) => {
      const take = (result: unknown, line: string): void =>
        resolve({ result, text: textsAt(line, ["result"])[0] as string });
      this.#request(method, params, options, take, reject);
    });
  }

  #request(
    method: string,
    params: Record<string, unknown>,
    { signal }: CallOptions,
    resolve: Pending["resolve"],
    reject: Pending["reject"],
  ): void {
    if (signal?.aborted) return reject(signal.reason);
    if (this.#state === "closed") return reject(new ConnectionLost("The client is closed.", method));
    const id = this.#nextId++;
    const now = performance.now();
    const onAbort = (): void => this.#giveUp(pending, signal?.reason);
    const pending: Pending = {
      id,
      method,
      line: toLine(id, method, params),
      repeatable: isRepeatable(method, params),
      sent: false,
      dropped: false,
      mayHaveTakenEffect: false,
      waitMs: typeof params.waitMs === "number" ? params.waitMs : 0,
      startedAt: now,
      waitsSince: now,
      resolve: (result, line) => {
        signal?.removeEventListener("abort", onAbort);
        resolve(result, line);
      },
      reject: (error) => {
        signal?.removeEventListener("abort", onAbort);
        reject(error);
      },
    };
    // One signal for all calls of a program is no leak: each call takes its listener away.
    if (signal !== undefined) setMaxListeners(0, signal);
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#pending.set(id, pending);
    if (this.#state === "up") this.#link?.send(pending);
    else void this.#reconnect();
  }

  /** The longest line that the daemon takes, in bytes; it is asked once per connection. */
  async maxMessageBytes(): Promise<number> {
    this.#maxMessageBytes ??= (await this.call("daemon.info", {})).limits.maxMessageBytes;
    return this.#maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
  }

  /** Answers a method that the daemon calls on this connection. */
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

  /** Tells of connections that come and go, until the returned function is called. */
  watch(watcher: Watcher): () => void {
    const own = { ...watcher };
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  /** Keeps connecting although no request waits, until the returned function is called: for what is pushed. */
  keep(): () => void {
    let kept = true;
    this.#keepers += 1;
    void this.#reconnect();
    return () => {
      if (kept) this.#keepers -= 1;
      kept = false;
    };
  }

  /** Closes for good. Requests without an answer are rejected with `ConnectionLost`. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    // Answers that were given still go out; questions that nobody will hear the answer to do not.
    for (const pending of this.#pending.values()) pending.dropped ||= !pending.sent;
    this.#link?.close();
    for (const pending of this.#pending.values()) {
      this.#reject(pending, "The client was closed before the answer came.");
    }
    this.#closing.abort(new ConnectionLost("The client was closed."));
    this.#listeners.clear();
    this.#watchers.clear();
  }

  #sendAgain(pending: Pending): void {
    if (pending.waitMs > 0) {
      // The caller's patience began with the call, not with this connection.
      const { params } = JSON.parse(pending.line) as { params: Record<string, unknown> };
      const left = Math.max(0, Math.round(pending.waitMs - (performance.now() - pending.startedAt)));
      pending.line = toLine(pending.id, pending.method, { ...params, waitMs: left });
    }
    this.#link?.send(pending);
  }

  #giveUp(pending: Pending, reason: unknown): void {
    pending.dropped = true;
    this.#pending.delete(pending.id);
    if (pending.sent && Object.hasOwn(GIVING_BACK, pending.method)) {
      this.#givenUp.set(pending.id, pending.method);
    }
    pending.reject(reason);
  }

  /** Returns what is wrong with a message, if no daemon of ours sends such. */
  #received(message: unknown, line: string): string | undefined {
    if (!Array.isArray(message)) return this.#receivedOne(message, line);
    const lines = textsAt(line, [EACH]) as string[];
    for (const [index, each] of message.entries()) {
      const wrong = this.#receivedOne(each, lines[index] as string);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  #receivedOne(message: unknown, line: string): string | undefined {
    return isResponse(message) ? this.#answered(message, line) : this.#requested(checkRequest(message), line);
  }

  #answered(response: Response, line: string): string | undefined {
    const { id } = response;
    const error = "error" in response ? toError(response.error) : undefined;
    if (id === null) return this.#refusedLine(error);
    this.#answeredSinceOpened = true;
    const pending = this.#pending.get(id as number);
    if (pending === undefined) {
      this.#giveBack(id as number, "result" in response ? response.result : undefined);
    } else if (error?.kind === "unavailable" && error.details.reason === "stopping") {
      // It was not performed. The next daemon will take it.
      pending.sent = false;
      this.#leave();
    } else {
      this.#pending.delete(pending.id);
      if (error === undefined) pending.resolve((response as { result: unknown }).result, line);
      else pending.reject(error);
    }
    return undefined;
  }

  /**
   * A line that was refused unread has no id in its answer. The longest of ours is too long for sure; what was
   * sent after it was not performed (spec: wire.md, Transport).
   */
  #refusedLine(error: PawlError | undefined): string | undefined {
    if (error?.kind !== "message_too_large") return `it answered no request of ours: ${error?.message}`;
    const sent = [...this.#pending.values()].filter((pending) => pending.sent);
    const bytes = sent.map(({ line }) => Buffer.byteLength(line));
    const index = bytes.indexOf(Math.max(...bytes));
    const longest = sent[index];
    if (longest === undefined) return undefined;
    this.#pending.delete(longest.id);
    longest.reject(error);
    for (const pending of sent.slice(index + 1)) pending.sent = false;
    this.#leave();
    return undefined;
  }

  #leave(): void {
    if (this.#state === "up") this.#state = "leaving";
  }

  /** The answer to a call that was given up: what it granted is held by nobody. */
  #giveBack(id: number, result: unknown): void {
    const method = this.#givenUp.get(id);
    if (method === undefined) return;
    this.#givenUp.delete(id);
    if (result === undefined) return;
    for (const [undo, params] of GIVING_BACK[method]?.(result as never) ?? []) {
      // If this fails too, the grant ends by its time.
      this.call(undo, params).catch(() => {});
    }
  }

  #requested(request: Request | PawlError, line: string): string | undefined {
    if (request instanceof PawlError) return "it sent what is not JSON-RPC";
    if (request.id === undefined) this.#notified(request);
    else void this.#asked(request, line);
    return undefined;
  }

  #notified({ method, params }: Request): void {
    for (const listener of this.#listeners.get(method) ?? []) {
      // What a listener throws is for the application to see, not for this connection to break by.
      queueMicrotask(() => listener(params ?? {}));
    }
  }

  async #asked({ id = null, method, params }: Request, asked: string): Promise<void> {
    const link = this.#link;
    const handler = this.#handlers.get(method);
    let line: string;
    try {
      if (handler === undefined) {
        throw refuse("method_not_found", `This client does not serve ${shown(method)}.`);
      }
      const result = await handler(params ?? {}, asked);
      line = JSON.stringify({ jsonrpc: "2.0", id, result: result ?? null } satisfies Response);
    } catch (error) {
      line = errorLine(id, error);
    }
    link?.send({ line, sent: false, dropped: false });
  }

  #lost({ complete, reason }: Ending): void {
    // A stopping daemon answers all that it performed, then closes.
    const answeredAll = this.#state === "leaving" && complete;
    this.#link = undefined;
    this.#maxMessageBytes = undefined;
    this.#givenUp.clear();
    if (this.#state === "closed") return;
    this.#state = "down";
    const now = performance.now();
    const worked = this.#answeredSinceOpened || now - this.#openedAt >= WORKING_MS;
    if (worked) this.#pauseMs = 0;
    for (const pending of [...this.#pending.values()]) {
      if (worked) pending.waitsSince = now;
      if (pending.sent && !answeredAll) pending.mayHaveTakenEffect = true;
      const unknown = pending.sent && !answeredAll && !pending.repeatable;
      pending.sent = false;
      if (unknown) this.#reject(pending, this.#lossOf(pending.method, reason));
    }
    this.#rejectOverdue(reason);
    for (const { down } of [...this.#watchers]) down?.();
    void this.#reconnect();
  }

  #lossOf(method: string, reason: string | undefined): string {
    return reason === undefined
      ? `The connection ended before the answer to ${method} came; it may have taken effect.`
      : `What answers on ${this.socketPath} is no pawld: ${reason}.`;
  }

  async #reconnect(): Promise<void> {
    if (this.#connecting || this.#state !== "down") return;
    this.#connecting = true;
    try {
      while (this.#state === "down" && (this.#pending.size > 0 || this.#keepers > 0)) {
        // Spread, so that all clients of a restarted daemon do not come at once.
        const pause = this.#pauseMs * (0.5 + Math.random() / 2);
        if (pause > 0) await delay(Math.min(pause, this.#patienceMs()), undefined, { signal: this.closed });
        this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, FIRST_RETRY_MS), MAX_RETRY_MS);
        try {
          return await this.open();
        } catch (error) {
          this.#rejectOverdue(error);
          if (nobodyListens(error)) for (const { refused } of [...this.#watchers]) refused?.();
        }
      }
      // Nobody waits any more; who comes next shall not wait for the pauses of those before.
      this.#pauseMs = 0;
    } catch {
      // The client was closed during a pause.
    } finally {
      this.#connecting = false;
    }
  }

  /** How long until the first of the waiting requests has waited long enough. */
  #patienceMs(): number {
    const [first] = this.#pending.values();
    if (first === undefined) return MAX_RETRY_MS;
    return Math.max(0, first.waitsSince + this.#reconnectMs - performance.now());
  }

  #rejectOverdue(cause: unknown): void {
    const now = performance.now();
    for (const pending of [...this.#pending.values()]) {
      if (now - pending.waitsSince < this.#reconnectMs) continue;
      this.#reject(pending, `No daemon answers on ${this.socketPath}.`, cause);
    }
  }

  #reject(pending: Pending, message: string, cause?: unknown): void {
    pending.dropped = true;
    this.#pending.delete(pending.id);
    const mayHaveTakenEffect = pending.mayHaveTakenEffect || pending.sent;
    pending.reject(new ConnectionLost(message, pending.method, { cause, mayHaveTakenEffect }));
  }
}

/** How to give back what a call granted that nobody waits for any more. */
const GIVING_BACK: Readonly<
  Record<string, (result: never) => [method: string, params: Record<string, unknown>][]>
> = {
  "queue.claim": ({ claim }: { claim: { claimId: string; leaseToken: string } | null }) =>
    claim === null ? [] : [["queue.abandon", { claimId: claim.claimId, leaseToken: claim.leaseToken }]],
  "lease.acquire": ({ lease }: { lease: { leaseId: string } }) => [
    ["lease.release", { leaseId: lease.leaseId }],
  ],
  "command.lease": ({ leases }: { leases: { leaseId: string }[] }) =>
    leases.map(({ leaseId }) => ["command.release", { leaseId }]),
};

function toLine(id: number, method: string, params: Record<string, unknown>): string {
  try {
    return JSON.stringify({ jsonrpc: "2.0", id, method, params });
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `The params of ${method} cannot be JSON: ${error}.`,
      {},
      { cause: error },
    );
  }
}

function toError(object: ErrorObject): PawlError {
  const { code, message, data } = (object ?? {}) as Partial<ErrorObject>;
  const { kind, retryable: _, ...details } = (typeof data === "object" ? (data ?? {}) : {}) as ErrorData;
  if (Object.hasOwn(ERRORS, kind)) return new PawlError(kind, String(message), details);
  // From a daemon that is newer than we are.
  return new PawlError("internal", `${message} (${kind ?? "code"} ${code})`, { ...details, kind, code });
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

/** A group of methods, made from their names as they are asked for, so that no list is needed at run time. */
export function groupOf(connection: ClientConnection, group: string): unknown {
  return new Proxy({} as Record<string, unknown>, {
    get(methods, name) {
      // A promise would be asked for `then` before it is resolved with us.
      if (typeof name !== "string" || name === "then" || name in methods) return Reflect.get(methods, name);
      methods[name] = (params?: Record<string, unknown>, options?: CallOptions) =>
        connection.call(`${group}.${name}`, params ?? {}, options);
      return methods[name];
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
