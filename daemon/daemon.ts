import { lstatSync, mkdirSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { METHODS } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import * as limits from "@pawl/protocol/limits";
import { sharedTemporaryDirectory } from "@pawl/protocol/paths";
import type { Logger } from "pino";
import { elapsed } from "./clock.js";
import type { Config } from "./config.js";
import { Connection } from "./connection.js";
import { Dispatcher } from "./dispatch.js";
import type { Inside } from "./domain/daemon.js";
import { restart } from "./domain/expiry.js";
import { type Engine, openEngine } from "./engine.js";
import { handlers } from "./handlers.js";
import { Inbox } from "./inbox.js";
import { Listener } from "./listener.js";
import type { Operation } from "./operation.js";
import { Reactor } from "./reactor.js";
import { Rpc } from "./rpc.js";
import { Statistics } from "./statistics.js";
import { classify } from "./store/sqlite.js";

/** How long a stopping daemon waits for its peers to read their last answers. */
const DRAIN_MS = 2000;
const DATABASE_FILE = "pawl.db";

/** The parts of a running daemon, put together in the order of the way of a request. */
export class Daemon {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #engine: Engine;
  readonly #statistics = new Statistics();
  readonly #inbox = new Inbox();
  readonly #reactor: Reactor;
  readonly #rpc: Rpc;
  readonly #connections = new Set<Connection>();
  readonly #listeners: Listener[] = [];
  readonly #startedAt: number;
  readonly #startedElapsed = elapsed();
  #nextConnection = 1;
  #idleTimer: NodeJS.Timeout | undefined;
  /** Resolves with the exit code once the daemon has stopped by itself. */
  readonly ended: Promise<number>;
  #end: (code: number) => void = () => {};

  private constructor(config: Config, log: Logger, engine: Engine) {
    this.#config = config;
    this.#log = log;
    this.#engine = engine;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const statistics = this.#statistics;
    this.#reactor = new Reactor({
      store: engine.store,
      clock: engine.clock,
      mode: engine.mode,
      classify,
      takeUp: () => this.#takeUp(),
      onTurn: (calls, commitMs) => statistics.turn(calls, commitMs),
      onRollback: (error) => {
        statistics.turnsRolledBack += 1;
        log.error({ err: error }, "turn rolled back");
      },
      onCount: (counter, by) => {
        statistics.counters[counter] += by;
      },
      onBroken: (error) => {
        log.fatal(
          { err: error },
          "the storage failed; ending, so that a restart begins from what is on disk",
        );
        void this.#closeConnections().then(() => this.#end(1));
      },
    });
    const dispatcher = new Dispatcher({
      handlers: handlers(this.#inside()),
      reactor: this.#reactor,
      statistics,
      log,
      readOnly: false,
    });
    this.#rpc = new Rpc(
      dispatcher,
      METHODS.map(({ name }) => name),
    );
    this.#startedAt = this.#reactor.now();
  }

  /** Opens the database and listens. Refuses with a `PawlError` that says what is in the way. */
  static async start(config: Config, log: Logger): Promise<Daemon> {
    // Files are 0600 and directories 0700 from the first instant, not after a chmod.
    process.umask(0o077);
    const engine = openEngine({
      path: join(config.stateDir, DATABASE_FILE),
      mode: config.mode,
      acceptModeChange: config.acceptModeChange,
    });
    const daemon = new Daemon(config, log, engine);
    try {
      daemon.#recover();
      await daemon.#listen();
    } catch (error) {
      engine.close();
      throw error;
    }
    daemon.#reactor.schedule();
    daemon.#watchIdle();
    return daemon;
  }

  /** Stops in order: answers what was received, ends waits, lets peers read, checkpoints, removes the socket. */
  async stop(reason: string): Promise<void> {
    this.#log.info({ reason }, "stopping");
    clearTimeout(this.#idleTimer);
    for (const listener of this.#listeners) listener.stopAccepting();
    this.#reactor.stop(
      refuse("unavailable", "The daemon is stopping. Connect again in a moment.", { reason: "stopping" }),
    );
    await this.#closeConnections();
    const { store } = this.#engine;
    store.begin();
    store.keepTime(this.#reactor.now());
    store.commit(this.#reactor.now());
    store.checkpoint();
    for (const listener of this.#listeners) listener.remove();
    this.#engine.close();
    this.#log.info("stopped");
  }

  /** The first operation of this life: grants that were bound to connections of the one before. */
  #recover(): void {
    const { store } = this.#engine;
    this.#reactor.performNow(restart);
    store.checkpoint();
  }

  async #listen(): Promise<void> {
    const { socket, socketMode, socketGroup } = this.#config;
    checkTemporaryDirectory(socket);
    this.#listeners.push(
      await Listener.open({
        path: socket,
        mode: socketMode,
        group: socketGroup,
        onConnection: (accepted) => this.#accept(accepted),
      }),
    );
  }

  #accept(socket: Socket): void {
    this.#statistics.connectionsAccepted += 1;
    const connection = new Connection({
      socket,
      caller: { connection: this.#nextConnection++, pid: null, uid: null },
      readOnly: false,
      maxMessageBytes: this.#config.maxMessageBytes,
      onLine: (from, line) => {
        this.#inbox.push(from, line);
        this.#reactor.schedule();
      },
      onRefused: ({ caller }, kind) => {
        this.#statistics.error("-", kind);
        this.#log.info({ method: "-", kind, ...caller }, "refused");
      },
      onRoom: () => this.#reactor.schedule(),
      onClose: (closed) => {
        this.#connections.delete(closed);
        this.#reactor.disconnect(closed.caller.connection);
        this.#watchIdle();
      },
    });
    this.#connections.add(connection);
    clearTimeout(this.#idleTimer);
  }

  #takeUp(): number {
    const { taken, left } = this.#inbox.takeUp((line, connection) => this.#rpc.receive(line, connection));
    if (left) this.#reactor.schedule();
    return taken;
  }

  async #closeConnections(): Promise<void> {
    // The last answers are on their way through promises; they are all queued by the next turn of the loop.
    await new Promise((resolve) => setImmediate(resolve));
    const closed = [...this.#connections].map(
      (connection) => new Promise((resolve) => connection.socket.once("close", resolve)),
    );
    for (const connection of this.#connections) connection.close({ linger: false });
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, DRAIN_MS);
    });
    await Promise.race([Promise.all(closed), timeout]);
    clearTimeout(timer);
    for (const connection of this.#connections) connection.socket.destroy();
  }

  /** Starts counting down to the idle exit when nobody is connected. */
  #watchIdle(): void {
    const { idleExit } = this.#config;
    if (idleExit === undefined || this.#connections.size > 0) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => {
      if (this.#connections.size === 0) void this.stop("idle").then(() => this.#end(0));
    }, idleExit * 1000);
  }

  #inside(): Inside {
    const daemon = this;
    return {
      info: () => ({
        instance: daemon.#config.instance,
        startedAt: daemon.#startedAt,
        readOnly: false,
        database: {
          path: join(daemon.#config.stateDir, DATABASE_FILE),
          schemaVersion: daemon.#engine.schemaVersion,
        },
        sockets: daemon.#listeners.map(({ path }) => ({ path, readOnly: false })),
        limits: {
          maxMessageBytes: daemon.#config.maxMessageBytes,
          maxBatchCalls: limits.MAX_BATCH_CALLS,
          maxInFlightRequests: limits.MAX_IN_FLIGHT_REQUESTS,
          maxUnsentBytes: limits.MAX_UNSENT_BYTES,
          maxTransactCalls: limits.MAX_TRANSACT_CALLS,
          maxWaitMs: limits.MAX_WAIT_MS,
          minLeaseMs: limits.MIN_LEASE_MS,
          maxLeaseMs: limits.MAX_LEASE_MS,
          maxReserveCount: limits.MAX_RESERVE_COUNT,
        },
      }),
      *stats(): Operation<never> {
        const statistics = daemon.#statistics;
        return {
          uptimeMs: Math.round(elapsed() - daemon.#startedElapsed),
          memoryBytes: process.memoryUsage.rss(),
          connections: {
            open: daemon.#connections.size,
            accepted: statistics.connectionsAccepted,
            waiting: daemon.#reactor.waiters.size,
          },
          requests: Object.fromEntries(statistics.requests),
          errors: Object.fromEntries(
            [...statistics.errors].map(([method, kinds]) => [method, Object.fromEntries(kinds)]),
          ),
          turns: {
            total: statistics.turnsCommitted + statistics.turnsRolledBack,
            committed: statistics.turnsCommitted,
            rolledBack: statistics.turnsRolledBack,
            operations: statistics.operations,
          },
          operationsPerTurn: statistics.operationsPerTurn,
          commitMs: statistics.commitMs,
          sequences: { dispensed: statistics.counters.sequencesDispensed },
          database: daemon.#engine.store.sizes(),
        } as never;
      },
    };
  }
}

/**
 * The temporary directory is everybody's: a directory there with our name may have been made by somebody
 * else, who could then read what we serve.
 */
function checkTemporaryDirectory(socket: string): void {
  const uid = process.getuid?.() ?? 0;
  const shared = sharedTemporaryDirectory({ env: {}, uid, temporaryDirectory: tmpdir(), homeDirectory: "" });
  if (dirname(socket) !== shared) return;
  mkdirSync(shared, { recursive: true, mode: 0o700 });
  const found = lstatSync(shared);
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new PawlError(
      "forbidden",
      `${shared} is not a directory of ours alone (owner ${found.uid}, mode ${(found.mode & 0o777).toString(8)}). Remove it, or set XDG_RUNTIME_DIR or --socket.`,
    );
  }
}
