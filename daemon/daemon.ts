import { lstatSync, mkdirSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { METHODS, type NotificationParams } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import * as limits from "@pawl/protocol/limits";
import { sharedTemporaryDirectory } from "@pawl/protocol/paths";
import type { Logger } from "pino";
import { elapsed, uptime, wallTime } from "./clock.js";
import { type Config, isReloadable } from "./config/config.js";
import { countBoard } from "./domain/board/items.js";
import { countCommands } from "./domain/command/counts.js";
import type { Inside } from "./domain/daemon.js";
import { countLeases } from "./domain/lease/lease.js";
import { endByClockOfBoot } from "./domain/lease/remote-lease.js";
import { countBatches } from "./domain/queue/queue-row.js";
import { endings, latestGrant, restart } from "./grants/expiry.js";
import { settleIdentity } from "./identity/identity.js";
import { loadProvider } from "./remote/load.js";
import { OutsideLeases, type Site, type SiteRule } from "./remote/remote-leases.js";
import { loggable } from "./remote/secrets.js";
import type { LeaseRule } from "./remote/specification.js";
import { Backups } from "./rpc/backups.js";
import { Receivers } from "./rpc/command-push.js";
import { Dispatcher } from "./rpc/dispatch.js";
import { servedMethods } from "./rpc/handlers.js";
import { Rpc } from "./rpc/rpc.js";
import { Connection } from "./socket/connection.js";
import { Inbox } from "./socket/inbox.js";
import { type Credentials, type Kernel, openKernel } from "./socket/kernel.js";
import { Listener, type SocketOption } from "./socket/listener.js";
import { Notices, type Passed } from "./socket/supervisor.js";
import { cannotOpen } from "./store/cannot-open.js";
import { classify } from "./store/failure.js";
import { type OpenDatabase, openDatabase, openDatabaseToRead } from "./store/open-database.js";
import type { Operation } from "./store/statement.js";
import type { Call } from "./turns/call.js";
import type { Caller, Env } from "./turns/operation.js";
import { Statistics } from "./turns/statistics.js";
import { TurnLoop, type TurnReports } from "./turns/turn-loop.js";

/** How long a stopping daemon goes on refusing what still arrives. */
const REFUSING_MS = 50;
/** How long a stopping daemon waits for its peers to read their last answers. */
const DRAIN_MS = 2000;
const DAY_MS = 24 * 60 * 60 * 1000;
/** What a step of a migration is given: at worst it writes all of the database anew, on a slow disk. */
const MIGRATION_STEP_MS = 60_000;
const MIGRATED_BYTES_PER_MS = 1000;
const DATABASE_FILE = "pawl.db";

/** Where the kernel does not tell. */
const UNKNOWN = { pid: null, uid: null, gid: null } satisfies Record<keyof Credentials, null>;

/** The parts of a running daemon, put together in the order of the way of a request. */
export class Daemon {
  #config: Config;
  readonly #log: Logger;
  readonly #notices: Notices;
  readonly #engine: OpenDatabase;
  readonly #kernel: Kernel | undefined;
  readonly #statistics = new Statistics();
  readonly #inbox = new Inbox();
  readonly #loop: TurnLoop;
  readonly #rpc: Rpc;
  readonly #receivers: Receivers;
  readonly #backups: Backups;
  /** Only where leases are kept elsewhere. */
  readonly #outside: OutsideLeases | undefined;
  /** The open ones, by the number that grants are bound to. */
  readonly #connections = new Map<number, Connection>();
  readonly #listeners: { listener: Listener; readOnly: boolean }[] = [];
  readonly #startedAt: number;
  readonly #startedElapsed = elapsed();
  #nextConnection = 1;
  #idleTimer: NodeJS.Timeout | undefined;
  #stopping = false;
  /** Why the configuration was not taken over when it was last read again. */
  #notTaken: string | undefined;
  /** Whether a write found no space since the last that found some. */
  #full = false;
  /** Resolves with the exit code once the daemon has stopped by itself. */
  readonly ended: Promise<number>;
  #end: (code: number) => void = () => {};

  private constructor(
    config: Config,
    log: Logger,
    notices: Notices,
    engine: OpenDatabase,
    identity: Env["identity"],
    kernel: Kernel | undefined,
    sites: readonly SiteRule[],
  ) {
    this.#config = config;
    this.#log = log;
    this.#notices = notices;
    this.#engine = engine;
    this.#kernel = kernel;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const statistics = this.#statistics;
    this.#loop = new TurnLoop({
      setting: {
        store: engine.store,
        clock: engine.clock,
        mode: engine.mode,
        sign: engine.sign,
        identity,
        retentionMs: config.retentionDays * DAY_MS,
        readOnly: config.readOnly,
      },
      classify,
      endings,
      arrivals: {
        take: (calls) => this.#take(calls),
        isOpen: (connection) => this.#connections.has(connection),
      },
      reports: this.#reports(),
    });
    this.#backups = new Backups(engine, log, (connection, progress) =>
      this.#connections.get(connection)?.notify("daemon.backupProgress", progress),
    );
    this.#receivers = new Receivers({
      loop: this.#loop,
      log,
      connection: (number) => this.#connections.get(number),
      ask: (connection, method, params, onAnswer) => this.#rpc.ask(connection, method, params, onAnswer),
      refuse: (connection, refusal) => this.#rpc.refuse(refusal, connection),
    });
    if (sites.some(({ site }) => site !== undefined)) {
      this.#outside = new OutsideLeases({
        rules: sites,
        loop: this.#loop,
        log,
        readOnly: config.readOnly,
      });
    }
    const dispatcher = new Dispatcher({
      methods: servedMethods({
        inside: this.#inside(),
        receivers: this.#receivers,
        remoteLeases: this.#outside,
        async: {
          "daemon.backup": (params, sender) => this.#backups.make(params, sender),
          ...this.#outside?.handlers(),
        },
      }),
      statistics,
      log,
      readOnly: config.readOnly,
    });
    this.#rpc = new Rpc(
      dispatcher,
      METHODS.map(({ name }) => name),
    );
    this.#startedAt = this.#loop.now();
  }

  /**
   * Opens the database and listens. Refuses with a `PawlError` that says what is in the way.
   *
   * @param passed what the supervisor passed; a socket of it takes the place of the one that the configuration names.
   */
  static async start(config: Config, log: Logger, passed: Passed): Promise<Daemon> {
    // Files are 0600 and directories 0700 from the first instant, not after a chmod.
    process.umask(0o077);
    const kernel = await askKernel(config, log);
    const notices = new Notices(kernel, passed, (message, details) => log.warn(details, message));
    notices.status("Opening the database");
    try {
      return await Daemon.#start(config, log, passed, kernel, notices);
    } catch (error) {
      notices.status(`Could not start: ${(error as Error).message}`);
      throw error;
    }
  }

  static async #start(
    config: Config,
    log: Logger,
    passed: Passed,
    kernel: Kernel | undefined,
    notices: Notices,
  ): Promise<Daemon> {
    const { mode, acceptModeChange } = config;
    // What cannot be loaded is found before the database is touched.
    const sites = await loadSites(config.leaseRules);
    const path = join(config.stateDir, DATABASE_FILE);
    const engine = config.readOnly
      ? openDatabaseToRead({ path, mode })
      : openDatabase({
          path,
          mode,
          acceptModeChange,
          onMigrate: (from, to, bytes) =>
            notices.extend(
              MIGRATION_STEP_MS + bytes / MIGRATED_BYTES_PER_MS,
              `Migrating the database: version ${from} of ${to}, ${Math.ceil(bytes / 1e6)} MB`,
            ),
        });
    let daemon: Daemon | undefined;
    try {
      const settled = config.readOnly
        ? undefined
        : settleIdentity(
            engine,
            { ...config, acceptChange: config.acceptIdentityChange },
            // At the start it is logged after what is in the way of one.
            (author) => setImmediate(() => log.info({ author }, "made the identity key of this node")),
          );
      const identity = settled?.identity ?? null;
      daemon = new Daemon(config, log, notices, engine, identity, kernel, sites);
      const adopt = await daemon.#bind(passed);
      // As late as can be: what the grants of the life before are given to be renewed begins here.
      daemon.#recover();
      await adopt();
      const renamed = settled?.renamed;
      if (renamed !== undefined) log.info(renamed, "the board goes on under a new incarnation");
    } catch (error) {
      for (const { listener } of daemon === undefined ? [] : daemon.#listeners) {
        listener.stopAccepting();
        listener.remove();
      }
      engine.close();
      // The first writes are made here.
      throw isSqlite(error) ? cannotOpen(path, error) : error;
    }
    daemon.#loop.schedule();
    daemon.#watchIdle();
    notices.ready(daemon.#state());
    return daemon;
  }

  /** What it is doing, in a line for people. */
  #state(): string {
    const { idleExit, readOnly } = this.#config;
    if (this.#full) return "No space left for the database: reads go on, writes are refused";
    const open = this.#connections.size;
    const serving = `Serving ${readOnly ? "reads of " : ""}${open} connection${open === 1 ? "" : "s"}`;
    const state = open === 0 && idleExit !== undefined ? `Idle; ends if that lasts ${idleExit} s` : serving;
    return this.#notTaken === undefined ? state : `${state}; on its former options: ${this.#notTaken}`;
  }

  /** Where it listens: what takes writes, or everything in a daemon that only reads, and what takes only reads. */
  get addresses(): { socket: string; readOnlySocket?: string } {
    const forReads = ({ readOnly }: { readOnly: boolean }): boolean => readOnly && !this.#config.readOnly;
    const paths = (wanted: boolean): string =>
      this.#listeners
        .filter((each) => forReads(each) === wanted)
        .map(({ listener }) => listener.path)
        .join(", ");
    const readOnlySocket = paths(true);
    return {
      socket: paths(false),
      ...(readOnlySocket === "" ? {} : { readOnlySocket }),
    };
  }

  /**
   * Takes over what can be changed while it runs, and says what would need another start. A configuration that
   * cannot be read changes nothing, and says so: in the log, and to the supervisor until one was taken over, since
   * whoever asked for it by a signal gets no other answer.
   *
   * @param read throws a `PawlError` when there is something wrong with it.
   */
  reload(read: () => Config): void {
    if (this.#stopping) return;
    this.#notices.reloading();
    try {
      this.#takeOver(read());
      this.#notTaken = undefined;
    } catch (error) {
      this.#notTaken = (error as Error).message;
      this.#log.error({ err: error }, "the configuration was not taken over; the former one stays");
    }
    this.#notices.ready(this.#state());
  }

  #takeOver(config: Config): void {
    const allows = config.allowUids.length > 0 || config.allowGids.length > 0;
    if (allows && this.#kernel === undefined) throw cannotTell("the kernel cannot be asked");
    const differs = (name: keyof Config): boolean =>
      JSON.stringify(config[name]) !== JSON.stringify(this.#config[name]);
    const changed = (Object.keys(config) as (keyof Config)[]).filter(differs);
    const taken = changed.filter(isReloadable);
    const needRestart = changed.filter((name) => !isReloadable(name));
    this.#config = { ...this.#config, ...Object.fromEntries(taken.map((name) => [name, config[name]])) };

    this.#log.level = config.logLevel;
    this.#loop.retain(config.retentionDays * DAY_MS);
    for (const connection of this.#connections.values()) {
      connection.forbidden = this.#forbid(connection.socket, connection.caller);
      connection.maxMessageBytes = config.maxMessageBytes;
    }
    clearTimeout(this.#idleTimer);
    this.#watchIdle();
    this.#log.info({ taken }, "configuration read again");
    if (needRestart.length > 0)
      this.#log.warn({ needRestart }, "these options take effect at the next start");
  }

  /** Ends the process after a failure of the storage, without another look at the disk. */
  exitAtOnce(code: number): void {
    this.#kernel?.exit(code);
  }

  /** Stops in order: answers what was received, ends waits, lets peers read, checkpoints, removes the socket. */
  async stop(reason: string): Promise<void> {
    this.#log.info({ reason }, "stopping");
    this.#stopping = true;
    this.#notices.stopping(`Stopping (${reason})`);
    clearTimeout(this.#idleTimer);
    for (const { listener } of this.#listeners) listener.stopAccepting();
    const refusal = refuse("unavailable", "The daemon is stopping. Connect again in a moment.", {
      reason: "stopping",
    });
    this.#outside?.stop(refusal);
    await this.#loop.stop(refusal);
    // Requests that are on their way are refused as not performed, so that their senders know; a connection
    // that closed on them would leave that open.
    await new Promise((resolve) => setTimeout(resolve, REFUSING_MS));
    await Promise.all([this.#closeConnections(), this.#backups.stop(), this.#outside?.giveBackAtEnd()]);
    await this.#outside?.close();
    if (!this.#config.readOnly) this.#keep();
    for (const { listener } of this.#listeners) listener.remove();
    this.#engine.close();
    this.#log.info("stopped");
  }

  /** The last transaction of this life: the time, so that the next one begins no earlier. */
  #keep(): void {
    try {
      this.#engine.end(this.#loop.now());
    } catch (error) {
      // Everything that was answered is on disk; only this could not be added.
      this.#log.error({ err: error }, "the time and a checkpoint could not be written at the end");
    }
  }

  /** The first operations of this life: grants that were bound to connections of the one before. */
  #recover(): void {
    if (this.#config.readOnly) return;
    // It takes long after a crash under load, so it comes before the time that grants are given to be renewed.
    this.#engine.moveLog();
    this.#loop.performNow((env) => endByClockOfBoot(uptime(), env));
    this.#loop.performNow(restart);
    this.#outside?.start();
  }

  /**
   * Takes its places and looks at what was passed: whatever may be in the way of a start is found before anybody can
   * connect. What it resolves with lets them.
   */
  async #bind({ sockets }: Passed): Promise<() => Promise<void>> {
    const { socket, socketMode, readOnlySocket, readOnlySocketMode, readOnly } = this.#config;
    const passed = sockets.map((each) => ({ ...each, path: this.#pathOf(each) }));
    const has = (forReads: boolean): boolean => sockets.some((each) => each.readOnly === forReads);
    if (!has(false)) await this.#listenOn("--socket", socket, socketMode, readOnly);
    if (readOnlySocket !== undefined && !has(true)) {
      await this.#listenOn("--read-only-socket", readOnlySocket, readOnlySocketMode, true);
    }
    return async () => {
      for (const each of passed) await this.#adopt(each);
      // systemd passes them in any order; whoever looks for one to talk to finds the main one first.
      this.#listeners.sort((a, b) => Number(a.readOnly) - Number(b.readOnly));
      for (const { listener } of this.#listeners) listener.show();
    };
  }

  /** Where a socket that was passed listens. */
  #pathOf({ fd, name }: Passed["sockets"][number]): string {
    const path = this.#kernel === undefined ? this.#config.socket : this.#kernel.takeListening(fd);
    if (path === undefined) {
      throw new PawlError(
        "invalid_params",
        `What was passed as ${JSON.stringify(name)} (descriptor ${fd}) is no listening stream socket of the Unix family. Pass one: ListenStream= with a path.`,
      );
    }
    return path;
  }

  async #adopt({ fd, path, ...passed }: Passed["sockets"][number] & { path: string }): Promise<void> {
    const readOnly = passed.readOnly || this.#config.readOnly;
    const listener = await Listener.adopt({
      fd,
      path,
      onConnection: (accepted) => this.#accept(accepted, readOnly),
    });
    this.#listeners.push({ listener, readOnly });
  }

  async #listenOn(option: SocketOption, path: string, mode: number, readOnly: boolean): Promise<void> {
    checkTemporaryDirectory(path);
    const listener = await Listener.open({
      path,
      option,
      mode,
      group: this.#config.socketGroup,
      onConnection: (accepted) => this.#accept(accepted, readOnly),
    });
    this.#listeners.push({ listener, readOnly });
  }

  #accept(socket: Socket, readOnly: boolean): void {
    this.#statistics.connectionsAccepted += 1;
    const { pid, uid, gid } = this.#kernel?.credentials(socket) ?? UNKNOWN;
    const caller = { connection: this.#nextConnection++, pid, uid, gid };
    const connection = new Connection({
      socket,
      caller,
      readOnly,
      forbidden: this.#forbid(socket, caller),
      hangUps: this.#kernel?.hangUps,
      maxMessageBytes: this.#config.maxMessageBytes,
      onLine: (from, line) => {
        this.#inbox.push(from, line);
        this.#loop.schedule();
      },
      onRefused: (from, refusal) => this.#rpc.refuse(refusal, from),
      onRoom: () => this.#loop.schedule(),
      onDrain: (drained) => this.#receivers.roomAgain(drained.caller.connection),
      onSilent: (silent) => this.#receivers.leave(silent.caller.connection),
      onClose: (closed) => {
        this.#connections.delete(closed.caller.connection);
        // What it answered before it closed comes before what is taken back because it closed.
        this.#loop.takeUp();
        this.#receivers.leave(closed.caller.connection);
        this.#outside?.disconnect(closed.caller.connection);
        this.#loop.disconnect(closed.caller.connection);
        this.#watchIdle();
        this.#notices.statusSoon(() => this.#state());
      },
    });
    this.#connections.set(connection.caller.connection, connection);
    clearTimeout(this.#idleTimer);
    this.#notices.statusSoon(() => this.#state());
  }

  /**
   * The refusal of a peer whose user is not among those allowed. The connection stays open and each of its
   * requests gets this answer: it then reaches whoever sent it under its own id, where a connection that was
   * closed would show as a daemon that is not there.
   */
  #forbid(socket: Socket, { uid, gid }: Caller): PawlError | undefined {
    const { allowUids, allowGids } = this.#config;
    if (allowUids.length === 0 && allowGids.length === 0) return undefined;
    if (uid !== null && allowUids.includes(uid)) return undefined;
    if (gid !== null && allowGids.includes(gid)) return undefined;
    if (allowGids.length > 0 && this.#kernel?.groups(socket).some((each) => allowGids.includes(each))) {
      return undefined;
    }
    return refuse(
      "forbidden",
      `This daemon does not serve the user with uid ${uid} (--allow-uid, --allow-gid). Ask whoever runs it to allow you.`,
      { uid, gid },
    );
  }

  /** Adds the calls that have arrived; returns how many lines were taken up for that. */
  #take(calls: Call[]): number {
    const { taken, left } = this.#inbox.takeUp(
      (line, connection) => this.#rpc.receive(line, connection, calls),
      calls,
    );
    if (left) this.#loop.schedule();
    return taken;
  }

  /** Where the loop tells of its turns. */
  #reports(): TurnReports {
    const statistics = this.#statistics;
    const notices = this.#notices;
    const log = this.#log;
    return {
      committed: ({ performed, commitMs, wrote }) => {
        statistics.turn(performed, commitMs);
        if (wrote && this.#full) {
          this.#full = false;
          log.info("there is space for the database again; writes go on");
          notices.statusSoon(() => this.#state());
        }
      },
      rolledBack: (error, failure) => {
        statistics.turnsRolledBack += 1;
        if (failure !== "full") log.error({ err: error }, "turn rolled back");
        else if (!this.#full) {
          this.#full = true;
          log.error({ err: error }, "no space left for the database; writes are refused until there is");
          notices.statusSoon(() => this.#state());
        }
      },
      broken: (error) => {
        this.#stopping = true;
        notices.stopping("Ending, because the storage failed");
        log.fatal(
          { err: error },
          "the storage failed; ending, so that a restart begins from what is on disk",
        );
        void this.#closeConnections().then(() => this.#end(1));
      },
      count: (counter, by) => {
        statistics.counters[counter] += by;
      },
      log: (message, details) => log.info(details, message),
      notify: (number, method, params) => {
        const told = this.#connections.get(number)?.notify(method, params) ?? false;
        if (told && method === "command.cancelled") this.#receivers.ended(number, commandOf(params));
      },
    };
  }

  async #closeConnections(): Promise<void> {
    // The last answers are on their way through promises; they are all queued by the next turn of the loop.
    await new Promise((resolve) => setImmediate(resolve));
    const closed = [...this.#connections.values()].map(
      (connection) => new Promise((resolve) => connection.socket.once("close", resolve)),
    );
    for (const connection of this.#connections.values()) connection.close({ linger: false });
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, DRAIN_MS);
    });
    await Promise.race([Promise.all(closed), timeout]);
    clearTimeout(timer);
    for (const connection of this.#connections.values()) connection.socket.destroy();
  }

  /**
   * Starts counting down to the idle exit when nobody is connected: from the end of the last grant, since
   * nobody can renew it without connecting.
   */
  #watchIdle(): void {
    const { idleExit } = this.#config;
    if (idleExit === undefined || this.#stopping || this.#connections.size > 0) return;
    clearTimeout(this.#idleTimer);
    let lastGrantMs = 0;
    // A daemon that only reads has granted nothing.
    if (!this.#config.readOnly) {
      this.#loop.performNow(function* ({ now }) {
        lastGrantMs = Math.max(0, ((yield* latestGrant()) ?? now) - now);
      });
    }
    this.#idleTimer = setTimeout(
      () => {
        if (this.#connections.size === 0) void this.stop("idle").then(() => this.#end(0));
      },
      lastGrantMs + idleExit * 1000,
    );
  }

  #inside(): Inside {
    const daemon = this;
    return {
      info: () => ({
        instance: daemon.#config.instance,
        startedAt: daemon.#startedAt,
        readOnly: daemon.#config.readOnly,
        database: {
          path: join(daemon.#config.stateDir, DATABASE_FILE),
          schemaVersion: daemon.#engine.schemaVersion,
        },
        sockets: daemon.#listeners.map(({ listener, readOnly }) => ({ path: listener.path, readOnly })),
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
          inlineMaxBytes: limits.INLINE_MAX_BYTES,
          maxUploadBytes: limits.MAX_UPLOAD_BYTES,
          maxParamsPieceBytes: limits.MAX_PARAMS_PIECE_BYTES,
        },
      }),
      *stats(env): Operation<never> {
        const statistics = daemon.#statistics;
        return {
          uptimeMs: Math.round(elapsed() - daemon.#startedElapsed),
          memoryBytes: process.memoryUsage.rss(),
          connections: {
            open: daemon.#connections.size,
            accepted: statistics.connectionsAccepted,
            waiting: daemon.#loop.waiting,
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
          queues: yield* countBatches(env),
          commands: {
            states: daemon.#config.readOnly ? yield* countCommands() : statistics.commandStates,
            lateAnswers: statistics.counters.commandAnswersLate,
          },
          leases: { held: yield* countLeases(env) },
          pipeline: yield* countBoard(),
          database: daemon.#engine.sizes(),
        } as never;
      },
    };
  }
}

/** The providers that rules name, each loaded once. */
async function loadSites(rules: readonly LeaseRule[]): Promise<SiteRule[]> {
  const sites = new Map<string, Site>();
  const loaded: SiteRule[] = [];
  for (const { pattern, provider: specification } of rules) {
    const { text } = specification;
    if (specification.kind !== "local" && !sites.has(text)) {
      const clocks = { elapsed, now: wallTime };
      sites.set(text, {
        text,
        kind: specification.kind,
        loggable: loggable(specification, process.env),
        provider: await loadProvider(specification, clocks),
      });
    }
    loaded.push({ pattern, site: sites.get(text) });
  }
  return loaded;
}

function isSqlite(error: unknown): boolean {
  return `${(error as { code?: unknown }).code}`.startsWith("SQLITE_");
}

function commandOf(params: object): string {
  return (params as NotificationParams<"command.cancelled">).commandId;
}

/** The kernel's calls, if they can be had; that they cannot is said once. They must be for --allow-uid. */
async function askKernel({ allowUids, allowGids }: Config, log: Logger): Promise<Kernel | undefined> {
  const kernel = await openKernel();
  if (typeof kernel !== "string") return kernel;
  if (allowUids.length > 0 || allowGids.length > 0) throw cannotTell(kernel);
  log.warn({ reason: kernel }, "running without knowing who connects");
  return undefined;
}

function cannotTell(reason: string): PawlError {
  return new PawlError(
    "unavailable",
    `--allow-uid and --allow-gid need to know who connects, and the kernel cannot be asked here: ${reason}. Leave them out and let the mode of the socket decide.`,
  );
}

/**
 * The temporary directory is everybody's: a directory there with our name may have been made by somebody
 * else, who could then read what we serve.
 */
function checkTemporaryDirectory(socket: string): void {
  const uid = process.getuid?.() ?? 0;
  const around = { env: {}, uid, temporaryDirectory: tmpdir(), homeDirectory: () => "" };
  const shared = resolve(sharedTemporaryDirectory(around));
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
