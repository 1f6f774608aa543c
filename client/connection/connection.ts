// The room of the connection: one socket at a time to one daemon, the calls on it, and what the daemon sends of its own
// accord; finding and starting a daemon.
import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { checkRequest, isResponse, type Response } from "@pawl/protocol/envelope";
import { PawlError } from "@pawl/protocol/errors";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_MAX_MESSAGE_BYTES } from "@pawl/protocol/limits";
import type { MethodName, OneLease, Params, Result, SeveralLeases, SeveralNames } from "@pawl/protocol/types";
import {
  type AnswerCallbacks,
  type CallOptions,
  cancelOf,
  PendingCall,
  toError,
  type WithText,
} from "./call.js";
import { ConnectionLost } from "./connection-lost.js";
import { GivenUpCalls } from "./given-up-calls.js";
import { IncomingRequests, type NotificationListener, type RequestHandler } from "./incoming-requests.js";
import { type Ending, LineSocket, nobodyListens } from "./line-socket.js";
import { ReconnectionPause } from "./reconnection-pause.js";

export const DEFAULT_RECONNECT_MS = 30_000;

/** Told of connections that come and go. */
export interface ConnectionWatcher {
  /** There is a connection again. */
  up?: () => void;
  /** There is none any more. */
  down?: () => void;
  /** Connecting was tried, and nobody listens: no daemon has started since. */
  refused?: () => void;
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
export class Connection {
  readonly socketPath: string;
  readonly #reconnectMs: number;
  readonly #timeoutMs: number | undefined;
  readonly #closing = new AbortController();
  #socket: LineSocket | undefined;
  #state: "up" | "leaving" | "down" | "closed" = "down";
  #connecting = false;
  readonly #pause = new ReconnectionPause();
  /** How many keep the client connecting although no request waits. */
  #keepers = 0;
  #maxMessageBytes: number | undefined;
  #nextId = 1;
  /** In the order of the calls. */
  readonly #pending = new Map<number, PendingCall>();
  readonly #givenUp = new GivenUpCalls();
  readonly #incoming = new IncomingRequests();
  readonly #watchers = new Set<ConnectionWatcher>();

  /**
   * @param reconnectMs how long a request waits for a daemon that went away.
   * @param timeoutMs how long an answer may take, beyond the `waitMs` of its request.
   */
  constructor(socketPath: string, reconnectMs: number, timeoutMs?: number) {
    this.socketPath = socketPath;
    this.#reconnectMs = reconnectMs;
    this.#timeoutMs = timeoutMs;
    // Every grant that is held over this connection listens, and takes its listener away.
    setMaxListeners(0, this.closed);
  }

  /** Aborted when the client is closed. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  get up(): boolean {
    return this.#state === "up";
  }

  /** The number of its file in this process; undefined while there is no connection. */
  get descriptor(): number | undefined {
    return this.#socket?.descriptor;
  }

  /** Connects once; rejects with the system's error. */
  async open(): Promise<void> {
    const socket = await LineSocket.open(this.socketPath, {
      onMessage: (message, line) => this.#received(message, line),
      onClose: (ending) => this.#lost(ending),
    });
    if (this.#state === "closed") {
      socket.close();
      throw new ConnectionLost("The client was closed while it was connecting.");
    }
    this.#socket = socket;
    this.#state = "up";
    this.#pause.opened();
    for (const pending of this.#pending.values()) {
      pending.shortenWait();
      socket.send(pending);
    }
    for (const { up } of [...this.#watchers]) up?.();
  }

  /** Sends a request. Resolves with its result; rejects with `PawlError`, `ConnectionLost` or the signal's reason. */
  call(method: "lease.acquire", params: SeveralNames, options?: CallOptions): Promise<SeveralLeases>;
  call(method: "lease.acquire", params: Params<"lease.acquire">, options?: CallOptions): Promise<OneLease>;
  call<N extends MethodName>(method: N, params: Params<N>, options?: CallOptions): Promise<Result<N>>;
  call(method: string, params: Record<string, unknown>, options?: CallOptions): Promise<unknown>;
  call(method: string, params: Record<string, unknown> = {}, options: CallOptions = {}): Promise<unknown> {
    return new Promise((resolve, reject) => this.#request(method, params, options, { resolve, reject }));
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
      const resolveWithText = (result: unknown, line: string): void =>
        resolve({ result, text: textsAt(line, ["result"])[0] as string });
      this.#request(method, params, options, { resolve: resolveWithText, reject });
    });
  }

  #request(
    method: string,
    params: Record<string, unknown>,
    { signal, endWait }: CallOptions,
    callbacks: AnswerCallbacks,
  ): void {
    if (signal?.aborted) return callbacks.reject(signal.reason);
    if (endWait?.aborted) return callbacks.reject(endWait.reason);
    if (this.#state === "closed") {
      return callbacks.reject(new ConnectionLost("The client is closed.", method));
    }
    const call = new PendingCall(this.#nextId++, method, params, callbacks);
    if (signal !== undefined) call.endBy(signal, (reason) => this.#giveUp(call, reason));
    if (endWait !== undefined) call.endWaitBy(endWait, (reason) => this.#endWait(call, reason));
    if (this.#timeoutMs !== undefined) {
      call.endAfter(this.#timeoutMs, () => this.#giveUp(call, call.lateness(this.socketPath)));
    }
    this.#pending.set(call.id, call);
    if (this.#state === "up") this.#socket?.send(call);
    else void this.#reconnect();
  }

  /** The longest line that the daemon takes, in bytes; it is asked once per connection. */
  async maxMessageBytes(): Promise<number> {
    this.#maxMessageBytes ??= (await this.call("daemon.info", {})).limits.maxMessageBytes;
    return this.#maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
  }

  /** Answers a method that the daemon calls on this connection. */
  handle(method: string, handler: RequestHandler): void {
    this.#incoming.handle(method, handler);
  }

  /** Listens to a notification, until the returned function is called. */
  on(method: string, listener: NotificationListener): () => void {
    return this.#incoming.on(method, listener);
  }

  /** Tells of connections that come and go, until the returned function is called. */
  watch(watcher: ConnectionWatcher): () => void {
    const own = { ...watcher };
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  /** Keeps connecting although no request waits, for what the daemon pushes, until the returned function is called. */
  keep(): () => void {
    let kept = true;
    this.#keepers += 1;
    void this.#reconnect();
    return () => {
      if (kept) this.#keepers -= 1;
      kept = false;
    };
  }

  /**
   * Gives up all calls with this reason. Resolves once their waits are ended and what they were granted is given back,
   * or after so long.
   */
  async giveUpAll(reason: unknown, limitMs: number): Promise<void> {
    for (const call of [...this.#pending.values()]) this.#giveUp(call, reason);
    if (this.#state !== "up") return;
    const signal = AbortSignal.timeout(limitMs);
    // Requests of a connection are performed in their order: the cancels before the first of these, of which the
    // answers come before its own, and what gives back before the second.
    for (let times = 0; times < 2; times++) await this.call("daemon.ping", {}, { signal }).catch(() => {});
  }

  /** Closes for good. Requests without an answer are rejected with `ConnectionLost`. */
  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    // Answers that were given still go out; requests, whose answers nobody will hear, do not.
    for (const pending of this.#pending.values()) pending.dropped ||= !pending.sent;
    const socket = this.#socket;
    // A handler that has ended is still on its way to its answer by promises, all of which are done with before.
    if (this.#incoming.busy) setImmediate(() => socket?.close());
    else socket?.close();
    for (const pending of this.#pending.values()) {
      pending.rejectAsLost("The client was closed before the answer came.");
    }
    this.#pending.clear();
    this.#closing.abort(new ConnectionLost("The client was closed."));
    this.#incoming.stopListening();
    this.#watchers.clear();
  }

  #giveUp(call: PendingCall, reason: unknown): void {
    this.#pending.delete(call.id);
    if (call.sent) {
      this.#givenUp.add(call);
      if (call.waits) this.#socket?.send(cancelOf(call));
    }
    call.reject(reason);
  }

  /** What was not sent yet is given up; otherwise the daemon answers at once. */
  #endWait(call: PendingCall, reason: unknown): void {
    if (!call.sent) this.#giveUp(call, reason);
    else if (call.waits) this.#socket?.send(cancelOf(call));
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
    if (isResponse(message)) return this.#answered(message, line);
    const request = checkRequest(message);
    if (request instanceof PawlError) return "it sent what is not JSON-RPC";
    const socket = this.#socket;
    this.#incoming.take(request, line, (answer) => {
      socket?.send({ line: answer, sent: false, dropped: false });
    });
    return undefined;
  }

  #answered(response: Response, line: string): string | undefined {
    const { id } = response;
    const error = "error" in response ? toError(response.error) : undefined;
    if (id === null) return this.#refusedLine(error);
    this.#pause.answered();
    const pending = this.#pending.get(id as number);
    if (pending === undefined) {
      this.#giveBack(id as number, "result" in response ? response.result : undefined);
    } else if (error?.kind === "unavailable" && error.details.reason === "stopping") {
      // The request was not performed. The next daemon will take it.
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
   * A line that was refused unread has no id in its answer. The longest of ours is too long for sure, or the one that
   * did not come to its end while others needed its room; what was sent after it was not performed (spec: wire.md,
   * Transport).
   */
  #refusedLine(error: PawlError | undefined): string | undefined {
    if (error?.kind !== "message_too_large" && error?.kind !== "exhausted")
      return `it answered no request of ours: ${error?.message}`;
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

  /** Gives back what a call was granted that was given up. */
  #giveBack(id: number, result: unknown): void {
    // If this fails too, the grant ends by its time.
    for (const [method, params] of this.#givenUp.undo(id, result)) this.call(method, params).catch(() => {});
  }

  #lost({ complete, reason }: Ending): void {
    // A stopping daemon answers all that it performed, then closes.
    const answeredAll = this.#state === "leaving" && complete;
    this.#socket = undefined;
    this.#maxMessageBytes = undefined;
    this.#givenUp.clear();
    if (this.#state === "closed") return;
    this.#state = "down";
    const worked = this.#pause.closed();
    for (const pending of [...this.#pending.values()]) {
      if (worked) pending.waitsSince = performance.now();
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
        const pause = Math.min(this.#pause.next(), this.#patienceMs());
        if (pause > 0) await delay(pause, undefined, { signal: this.closed });
        try {
          return await this.open();
        } catch (error) {
          this.#rejectOverdue(error);
          if (nobodyListens(error)) for (const { refused } of [...this.#watchers]) refused?.();
        }
      }
      // Nobody waits any more. The next call shall not wait for the pauses of those before.
      this.#pause.reset();
    } catch {
      // The client was closed during a pause.
    } finally {
      this.#connecting = false;
    }
  }

  /** How long until the first of the waiting requests has waited long enough. */
  #patienceMs(): number {
    const [first] = this.#pending.values();
    if (first === undefined) return Number.POSITIVE_INFINITY;
    return Math.max(0, first.waitsSince + this.#reconnectMs - performance.now());
  }

  #rejectOverdue(cause: unknown): void {
    const now = performance.now();
    for (const pending of [...this.#pending.values()]) {
      if (now - pending.waitsSince < this.#reconnectMs) continue;
      this.#reject(pending, `No daemon answers on ${this.socketPath}.`, cause);
    }
  }

  #reject(call: PendingCall, message: string, cause?: unknown): void {
    this.#pending.delete(call.id);
    call.rejectAsLost(message, cause);
  }
}
