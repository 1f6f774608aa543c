import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Dispenser } from "@pawl/protocol/dispenser";
import { PawlError, shown } from "@pawl/protocol/errors";
import { checkInstance, checkSocketPath } from "@pawl/protocol/paths";
import type {
  MethodName,
  NotificationName,
  NotificationParams,
  OneLease,
  Params,
  Result,
  SeveralLeases,
  SeveralNames,
} from "@pawl/protocol/types";
import type { CallOptions, WithText } from "./connection/call.js";
import { Connection, DEFAULT_RECONNECT_MS } from "./connection/connection.js";
import { ConnectionLost } from "./connection/connection-lost.js";
import { cloneOfProject } from "./connection/daemon-program.js";
import { type Events, eventsOf } from "./connection/events.js";
import type { NotificationListener } from "./connection/incoming-requests.js";
import { isBusy, nobodyListens } from "./connection/line-socket.js";
import { dispenserOf, type Groups, groupOf } from "./connection/method-groups.js";
import { defaultInstance, defaultSocketPaths } from "./connection/socket-path.js";
import { type SpawnOptions, startDaemon } from "./connection/start-daemon.js";
import { type Commands, commandsOf } from "./deployment/commands.js";
import type { HoldOptions } from "./grants/hold.js";
import { type HeldLease, type LeaseRequest, type WithLeaseOptions, withLease } from "./grants/with-lease.js";
import { type HeldPaths, type PathRequest, withPaths } from "./grants/with-paths.js";
import { type Work, type WorkOptions, work } from "./work/queue-worker.js";
import { type Schedules, schedulesOf } from "./work/schedules.js";
import {
  type ClaimedItem,
  type DoneItem,
  type ItemRequest,
  type WithItemOptions,
  withItem,
} from "./work/with-item.js";
import type { WorkHandle } from "./work/worker-pool.js";

const BUSY_RETRY_MS = 20;

export interface ConnectOptions {
  /**
   * Path of the daemon's socket; otherwise by the rule of `pawl socket-path`: of the places where this user's daemon
   * may listen, the first at which one answers.
   */
  socket?: string;
  /** Which daemon of this user, when `socket` is not given; otherwise `$PAWL_INSTANCE` or `default`. */
  instance?: string;
  /** Starts a daemon when none listens. Any number of processes may do so at once: one daemon runs. */
  spawn?: boolean | SpawnOptions;
  /** How long a request waits for a daemon that went away, in milliseconds; 30,000 by default. */
  reconnectMs?: number;
  /**
   * How long the answer to a call may take, in milliseconds, beyond the `waitMs` that it asks for; no limit by default.
   * A call whose answer takes longer rejects with `ConnectionLost`.
   */
  timeoutMs?: number;
}

/** One call of a `transact`. Its params may hold `$result` references, so they are checked by the daemon. */
export interface TransactCall {
  readonly method: MethodName;
  readonly params?: Readonly<Record<string, unknown>>;
}

/** The result of each call, in their order. */
export type TransactResults<C extends readonly TransactCall[]> = {
  -readonly [I in keyof C]: Result<C[I]["method"]>;
};

/** A client: one typed group per noun, and what is built on them. */
export interface PawlClient extends Groups, AsyncDisposable {
  readonly socketPath: string;
  /**
   * Calls any method by its name.
   *
   * @example const { seq } = await client.call("sequence.next", { type: "FR" });
   */
  call(method: "lease.acquire", params: SeveralNames, options?: CallOptions): Promise<SeveralLeases>;
  call(method: "lease.acquire", params: Params<"lease.acquire">, options?: CallOptions): Promise<OneLease>;
  call<N extends MethodName>(method: N, params: Params<N>, options?: CallOptions): Promise<Result<N>>;
  call(method: string, params?: Record<string, unknown>, options?: CallOptions): Promise<unknown>;
  /** Like `call`, with the JSON text of the result beside it, as the daemon sent it. */
  callForText<N extends MethodName>(
    method: N,
    params: Params<N>,
    options?: CallOptions,
  ): Promise<WithText<Result<N>>>;
  callForText(
    method: string,
    params?: Record<string, unknown>,
    options?: CallOptions,
  ): Promise<WithText<unknown>>;
  /**
   * Performs several calls in one transaction: all of them or none. `{ $result: "/0/id" }`, anywhere in the
   * params of a later call, stands for a value of an earlier one's result. Never repeated by itself.
   *
   * @example
   * const { results: [{ id }] } = await client.transact({
   *   calls: [
   *     { method: "sequence.next", params: { type: "FR" } },
   *     { method: "pipeline.write", params: { storyId: { $result: "/0/id" }, stage: "1_backlog" } },
   *   ],
   *   guards: [{ lease: { name: "board", fencingToken } }],
   * });
   */
  transact<const C extends readonly TransactCall[]>(
    params: { calls: C; guards?: Params<"transact">["guards"]; dryRun?: boolean },
    options?: CallOptions,
  ): Promise<{ results: TransactResults<C> }>;
  /**
   * Listens to a notification of the daemon, until the returned function is called.
   *
   * @example const stop = client.on("lease.lost", ({ name }) => console.error(`lost ${name}`));
   */
  on<N extends NotificationName>(
    notification: N,
    listener: (params: NotificationParams<N>) => void,
  ): () => void;
  /**
   * The methods `events.*`; called itself, it follows topics from now on, over restarts of the daemon. Where events may
   * be missing it yields `{ kind: "gap" }`: then list again what is followed.
   *
   * @example
   * for await (const event of client.events(["queue:mail", "lease:deploy/*"])) console.log(event.topic, event.kind);
   */
  readonly events: Events;
  /**
   * Works on a queue, or on several (names, or `prefix/*`), until closed: claims batches, waiting for them, has the
   * handler do the work, renews the claim while it runs, and completes it when it returns, with what it returns as the
   * result (JSON; undefined for none). An error of the handler is kept with the batches, which are given back for
   * another attempt. The handler's signal is aborted when the claim is lost or cancelled.
   *
   * @example
   * const worker = client.work<{ image: string }>("thumbnails", async ({ payloads, signal, fencingToken }) => {
   *   for (const { image } of payloads) await makeThumbnail(image, { signal, fencingToken });
   * }, { concurrency: 4 });
   * process.once("SIGTERM", () => void worker.close());
   * await worker.done;
   */
  work<T = unknown>(
    queues: string | readonly string[],
    handler: (work: Work<T>) => unknown,
    options?: WorkOptions,
  ): WorkHandle;
  /**
   * Performs a function while holding a lease: renews it, aborts the function's signal when it is lost, and gives it
   * back at the end. Resolves or rejects as the function does. A name is held alone, unless a mode or slots are given;
   * several names are granted all or none.
   *
   * Rejects with `PawlError` `lease_held` when another holds it and `waitMs` has passed, and with `lease_lost`
   * when it was lost meanwhile, whatever the function returned: somebody else may have held it too.
   *
   * @example
   * await client.withLease("release/1.2", async ({ fencingToken, signal }) => {
   *   await deploy({ fencingToken, signal });
   * }, { ttlMs: 10_000, waitMs: 60_000 });
   * @example
   * await client.withLease({ names: ["/srv/a", "/srv/b"], mode: "shared" }, () => backUp(), { waitMs: 60_000 });
   */
  withLease<T>(
    request: string | LeaseRequest,
    perform: (lease: HeldLease) => T | Promise<T>,
    options?: WithLeaseOptions,
  ): Promise<T>;
  /**
   * Performs a function while paths below a root are reserved, as `withLease` does: all of them or none. Two
   * reservations conflict when some path fits a pattern of each and one of them writes.
   *
   * @example
   * await client.withPaths({ root, patterns: ["src/cart/", "test/cart-*.ts"] }, async ({ signal }) => {
   *   await edit({ signal });
   * }, { waitMs: 60_000, note: "the cart's totals" });
   */
  withPaths<T>(
    request: PathRequest,
    perform: (paths: HeldPaths) => T | Promise<T>,
    options?: HoldOptions,
  ): Promise<T>;
  /**
   * Works on an item of the board: claims one that is ready, or the one that is named, performs a function while the
   * claim is renewed, and finishes it when the function returns. Resolves with what came of it, or with undefined if
   * there was no item and `waitMs` has passed. An error of the function is noted at the item, which goes back to where
   * it was and counts a retry; the error is thrown. Rejects with `lease_lost` when the claim was lost meanwhile.
   *
   * @example
   * while (!stopping.aborted) {
   *   await client.withItem({ agent: "coder-1", toStage: "2_current" }, async ({ item, signal, fencingToken }) => {
   *     await work(item, { signal, fencingToken });
   *   }, { doneStage: "3_qa", waitMs: 60_000, signal: stopping });
   * }
   */
  withItem<T>(
    request: ItemRequest,
    perform: (claimed: ClaimedItem) => T | Promise<T>,
    options?: WithItemOptions,
  ): Promise<DoneItem<T> | undefined>;
  /** Commands to deployments and answers to them; `client.command` has the methods under it. */
  readonly commands: Commands;
  /** Work that is enqueued at times; `client.schedule` has the methods under it. */
  readonly schedules: Schedules;
  /** The sequences behind the interface that is also there without a daemon. */
  dispenser(): Dispenser;
  /** Closes the connection for good. Calls without an answer are rejected with `ConnectionLost`. */
  close(): void;
}

/**
 * Connects to a daemon. The client survives the daemon's restarts: it connects again, sends again what was not
 * performed and what may be performed twice, and rejects the rest with `ConnectionLost`.
 *
 * Rejects with `ConnectionLost` when none listens (and none is to be started), and with a `PawlError`
 * `invalid_params` when an option cannot be right.
 *
 * @example
 * await using client = await connect({ spawn: true });
 * const { id } = await client.sequence.next({ type: "FR" });
 */
export async function connect(options: ConnectOptions = {}): Promise<PawlClient> {
  const { reconnectMs = DEFAULT_RECONNECT_MS, timeoutMs } = options;
  checkMilliseconds("reconnectMs", reconnectMs);
  checkMilliseconds("timeoutMs", timeoutMs ?? 0);
  const instance = options.instance ?? defaultInstance();
  checkInstance(instance);
  const paths = options.socket === undefined ? defaultSocketPaths(instance) : ([options.socket] as const);
  return await connectToOneOf(paths, instance, { ...options, reconnectMs });
}

function checkMilliseconds(name: string, value: unknown): void {
  if (typeof value === "number" && value >= 0) return;
  throw new PawlError("invalid_params", `${name} is a number of milliseconds, not ${shown(value)}.`);
}

/** Connects to the daemon at the first of some places where one answers, or starts one at the first of them. */
export async function connectToOneOf(
  paths: readonly [string, ...string[]],
  instance: string,
  { reconnectMs = DEFAULT_RECONNECT_MS, timeoutMs, spawn }: ConnectOptions,
): Promise<PawlClient> {
  for (const path of paths) checkSocketPath(path, Buffer.byteLength(path));
  const patienceMs = Math.min(reconnectMs, timeoutMs ?? reconnectMs);
  let failure: unknown;
  for (const path of paths) {
    const connection = new Connection(path, reconnectMs, timeoutMs);
    try {
      await openSoon(connection, patienceMs);
      return assemble(connection);
    } catch (error) {
      if (!nobodyListens(error)) throw cannotConnect([path], error as NodeJS.ErrnoException);
      failure ??= error;
    }
  }
  const [first] = paths;
  if (!spawn) throw cannotConnect(paths, failure as NodeJS.ErrnoException);
  const connection = new Connection(first, reconnectMs, timeoutMs);
  await startDaemon(resolve(first), instance, spawn === true ? {} : spawn, () => connection.open());
  return assemble(connection);
}

/** Connects now, or when the daemon has room for one more: thousands may come at once. */
async function openSoon(connection: Connection, patienceMs: number): Promise<void> {
  const givingUp = performance.now() + patienceMs;
  for (;;) {
    try {
      return await connection.open();
    } catch (error) {
      if (!isBusy(error) || performance.now() >= givingUp) throw error;
    }
    await delay(BUSY_RETRY_MS);
  }
}

const CONNECTIONS = new WeakMap<PawlClient, Connection>();

/** Ends the calls of a client, their waits and what they were granted, before its program ends by a signal. */
export async function giveUpCalls(client: PawlClient, reason: unknown, limitMs: number): Promise<void> {
  await CONNECTIONS.get(client)?.giveUpAll(reason, limitMs);
}

/** The connection that a client stands on, for what holds things over it by itself, and for the guard of a command. */
export function connectionOf(client: PawlClient): Connection | undefined {
  return CONNECTIONS.get(client);
}

/** Makes the client. A name that is no property of its own is a group of methods, made when it is asked for. */
function assemble(connection: Connection): PawlClient {
  const own: Record<string | symbol, unknown> = {
    socketPath: connection.socketPath,
    call: (method: string, params?: Record<string, unknown>, options?: CallOptions) =>
      connection.call(method, params ?? {}, options),
    callForText: (method: string, params?: Record<string, unknown>, options?: CallOptions) =>
      connection.callForText(method, params ?? {}, options),
    transact: (params: Record<string, unknown>, options?: CallOptions) =>
      connection.call("transact", params, options),
    on: (notification: string, listener: NotificationListener) => connection.on(notification, listener),
    work: <T>(queues: string | readonly string[], handler: (work: Work<T>) => unknown, how?: WorkOptions) =>
      work(connection, queues, handler, how),
    withLease: <T>(
      request: string | LeaseRequest,
      perform: (lease: HeldLease) => T | Promise<T>,
      how?: WithLeaseOptions,
    ) => withLease(connection, request, perform, how),
    withPaths: <T>(request: PathRequest, perform: (paths: HeldPaths) => T | Promise<T>, how?: HoldOptions) =>
      withPaths(connection, request, perform, how),
    withItem: <T>(
      request: ItemRequest,
      perform: (claimed: ClaimedItem) => T | Promise<T>,
      how?: WithItemOptions,
    ) => withItem(connection, request, perform, how),
    events: eventsOf(connection),
    commands: commandsOf(connection),
    schedules: schedulesOf(connection),
    dispenser: () => dispenserOf(connection),
    close: () => connection.close(),
    [Symbol.asyncDispose]: async () => connection.close(),
  };
  const client = new Proxy(own, {
    get(target, name) {
      // A promise would be asked for `then` before it is resolved with the client.
      if (typeof name !== "string" || name === "then" || name in target) return Reflect.get(target, name);
      target[name] = groupOf(connection, name);
      return target[name];
    },
  }) as unknown as PawlClient;
  CONNECTIONS.set(client, connection);
  return client;
}

/** In a clone of the repository there may be no pawld on the PATH. */
function howToStart(): string {
  const clone = cloneOfProject();
  return `Start one with pawld${clone === undefined ? "" : `, or with npm start in ${clone}`}.`;
}

function cannotConnect(paths: readonly string[], error: NodeJS.ErrnoException): ConnectionLost {
  const message = nobodyListens(error)
    ? `No daemon listens on ${paths.join(" or ")}. ${howToStart()}`
    : `Cannot connect to ${paths[0]}: ${error.message}`;
  return new ConnectionLost(message, undefined, { cause: error });
}
