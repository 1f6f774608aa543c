import type { EventKind, NotificationParams } from "@pawl/protocol";
import { refuse } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { elapsed } from "./clock.js";
import type { Config } from "./config/config.js";
import { reloaded } from "./config/reload.js";
import { scopeOf } from "./domain/about.js";
import { renewStaleItems } from "./domain/board/rebuild.js";
import { EXECUTION_TIME } from "./domain/command/delivery.js";
import { ENDINGS, SHARED_ENDINGS } from "./domain/ends.js";
import { countAtStart } from "./domain/gauges.js";
import { keepMark, markKey, readMarks } from "./domain/marks.js";
import { EndingHolders, type HoldersTurns } from "./ending-holders.js";
import { Ends } from "./grants/ends.js";
import { IdleExit } from "./idle-exit.js";
import { introspection, statusLine } from "./introspection.js";
import { RepeatedLines } from "./log/repeated-lines.js";
import { LogGrowth } from "./log-growth.js";
import type { ProviderRule } from "./remote/configured-provider.js";
import { RemoteLeases } from "./remote/remote-leases.js";
import { Backups } from "./rpc/backups.js";
import { Checks } from "./rpc/checks.js";
import { CommandPush, type CommandTurns } from "./rpc/command-push.js";
import { Dispatcher } from "./rpc/dispatch.js";
import { EventSubscriptions } from "./rpc/event-subscriptions.js";
import { OwnRequests } from "./rpc/own-requests.js";
import { Rpc } from "./rpc/rpc.js";
import { servedMethods } from "./rpc/served-methods.js";
import type { Place } from "./shared/place.js";
import type { Places } from "./shared/places.js";
import type { Access } from "./socket/access.js";
import type { Connection } from "./socket/connection.js";
import { Connections } from "./socket/connections.js";
import { AfterPeak } from "./socket/garbage.js";
import { Inbox } from "./socket/inbox.js";
import type { Kernel } from "./socket/kernel.js";
import { Processes } from "./socket/pidfds.js";
import { Ancestors } from "./socket/process-status.js";
import { ServedSockets } from "./socket/served-sockets.js";
import type { Notices, PassedSocket } from "./socket/supervisor.js";
import { classify } from "./store/failure.js";
import type { OpenDatabase } from "./store/open-database.js";
import { CountedTurns } from "./turn-reports.js";
import { type Call, performUntilDone } from "./turns/call.js";
import { CollectedEffects } from "./turns/effects.js";
import { notKnown } from "./turns/holder-process.js";
import { type EventDetails, Journal } from "./turns/journal.js";
import type { Env } from "./turns/operation.js";
import { Statistics } from "./turns/statistics.js";
import { Tally } from "./turns/tally.js";
import { TurnLoop } from "./turns/turn-loop.js";

/** How often the files of the database are looked at, also while nothing is written. */
const LOOK_AT_FILES_MS = 500;
/** The time for which a stopping daemon goes on refusing what still arrives. */
const REFUSING_MS = 50;
/** So long after the beginning of a stop connections are closed, or soon after, whatever they have not read. */
const CLOSED_MS = 3500;
/** The bytes of a line that was read and not kept. */
const NO_BYTES = Buffer.alloc(0);
const DAY_MS = 24 * 60 * 60 * 1000;

/** The parts that `startDaemon` has opened for a daemon. */
export interface DaemonParts {
  readonly config: Config;
  readonly log: Logger;
  /** Where the log's lines go. */
  readonly lines: { readonly linesDropped: number };
  readonly notices: Notices;
  readonly kernel: Kernel | undefined;
  readonly access: Access;
  readonly databasePath: string;
  readonly database: OpenDatabase;
  readonly identity: Env["identity"];
  readonly providers: readonly ProviderRule[];
  /** The room of names that daemons share; loaded only where there are such names. */
  readonly shared: typeof import("./shared/places.js") | undefined;
}

/** The parts of a running daemon, put together in the order of the way of a request. */
export class Daemon {
  #config: Config;
  readonly #log: Logger;
  readonly #repeatedLines: RepeatedLines;
  readonly #notices: Notices;
  readonly #kernel: Kernel | undefined;
  readonly #access: Access;
  readonly #database: OpenDatabase;
  readonly #sockets: ServedSockets;
  readonly #connections: Connections;
  readonly #inbox = new Inbox<Connection>((line, connection, calls) =>
    this.#rpc.receive(line, connection, calls),
  );
  readonly #ownRequests = new OwnRequests();
  readonly #ends = new Ends(ENDINGS);
  readonly #rpc: Rpc;
  /** Of the own database, then of each place of shared names. */
  readonly #commandPushes = new Map<Place | undefined, CommandPush>();
  readonly #tally = new Tally();
  readonly #journal: Journal | undefined;
  readonly #subscriptions: EventSubscriptions;
  readonly #backups: Backups;
  readonly #checks: Checks;
  /** Only where leases are kept elsewhere. */
  readonly #remoteLeases: RemoteLeases | undefined;
  /** Only where names are kept in databases that other daemons share. */
  readonly #places: Places | undefined;
  readonly #ancestors = new Ancestors();
  readonly #loop: TurnLoop;
  readonly #processes: Processes;
  /** Of the own database, then of each place of shared names; none in a daemon that only reads. */
  readonly #endingHolders = new Map<Place | undefined, EndingHolders>();
  readonly #turns: CountedTurns;
  readonly #logGrowth: LogGrowth;
  readonly #idleExit: IdleExit;
  readonly #afterPeak: AfterPeak;
  #fileLooks: NodeJS.Timeout | undefined;
  #stopping = false;
  /** Why the configuration was not taken over when it was last read again. */
  #configError: string | null = null;
  /** Resolves with the exit code once the daemon has stopped by itself. */
  readonly ended: Promise<number>;
  #end: (code: number) => void = () => {};

  constructor(parts: DaemonParts) {
    const { config, log, notices, kernel, access, database, providers } = parts;
    const { readOnly } = config;
    const statistics = new Statistics();
    this.#config = config;
    this.#log = log;
    this.#repeatedLines = new RepeatedLines(log);
    this.#notices = notices;
    this.#kernel = kernel;
    this.#access = access;
    this.#database = database;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#processes = new Processes(kernel, database.clock.boottime().boot, database.fileId);
    this.#sockets = new ServedSockets({
      settings: config,
      kernel,
      log,
      onConnection: (socket, forReads) => {
        this.#processes.accepted(socket);
        this.#connections.accept(socket, forReads);
      },
    });
    this.#connections = this.#makeConnections();
    this.#journal = readOnly ? undefined : new Journal(database.clock.read().wallMs);
    this.#subscriptions = new EventSubscriptions(
      this.#journal,
      (connection) => this.#connections.get(connection),
      () => this.#loop.time().wallMs,
    );
    this.#turns = this.#makeTurnReports(statistics);
    this.#logGrowth = new LogGrowth(database, log, () => this.#tellStatusSoon());
    this.#loop = this.#makeLoop(parts);
    this.#places = this.#makePlaces(parts);
    if (!readOnly) this.#makeEndingHolders();
    this.#afterPeak = new AfterPeak(
      () => kernel?.trim(),
      () => this.#connections.heldBytes + this.#inbox.heldBytes + this.#loop.waitingBytes,
    );
    this.#makeCommandPushes();
    if (providers.some(({ configured }) => configured !== undefined)) {
      const boottime = () => database.clock.boottime();
      this.#remoteLeases = new RemoteLeases({ rules: providers, loop: this.#loop, log, readOnly, boottime });
    }
    this.#backups = new Backups(database, log, (connection, progress) =>
      this.#connections.get(connection)?.notify("daemon.backupProgress", progress),
    );
    this.#checks = new Checks(parts.databasePath);
    this.#rpc = this.#makeRpc(parts, statistics);
    this.#idleExit = new IdleExit({
      loop: this.#loop,
      ends: this.#ends,
      readOnly,
      isIdle: () => this.#connections.size === 0,
      sharedLastMs: async () => (await this.#places?.lastMs()) ?? 0,
      exit: () => void this.stop("idle").then(() => this.#end(0)),
    });
  }

  #makeConnections(): Connections {
    return new Connections({
      access: this.#access,
      hangUps: this.#kernel?.hangUps,
      maxMessageBytes: this.#config.maxMessageBytes,
      maxUnsentBytes: this.#config.maxUnsentBytes,
      onChange: () => {
        this.#idleExit.watch(this.#config.idleExit);
        this.#tellStatusSoon();
        this.#sockets.acceptAgain();
      },
      events: {
        // A daemon that stops refuses what it takes up, and all that was sent is to be.
        mayTakeUp: (from) =>
          this.#places === undefined ||
          this.#stopping ||
          this.#places.mayTakeUp(from.caller.connection, from.requestsPerTurn),
        onLine: (from, line) => {
          this.#inbox.push(from, line);
          this.#loop.schedule();
        },
        isAsked: (from) => this.#ownRequests.isAsked(from),
        onSkipped: (from, members) => {
          this.#inbox.push(from, () => {
            from.tookUp(NO_BYTES);
            if (!this.#ownRequests.takeTooLong(members, from)) from.refuseTooLong();
          });
          this.#loop.schedule();
        },
        onRefused: (from, refusal) => this.#rpc.refuse(refusal, from),
        onWrote: (connection, bytes, sharing) => this.#inbox.answered(connection, bytes, sharing),
        onHolds: (bytes) => {
          if (this.#inbox.holds(bytes)) this.#loop.schedule();
        },
        onRoom: (connection) => {
          this.#inbox.roomAgain(connection);
          this.#loop.schedule();
        },
        onOverload: ({ caller }, reason) =>
          this.#repeatedLines.log("warn", "closed a connection, since memory runs out", { reason }, () => ({
            caller,
          })),
        onDrain: ({ caller: { connection } }) => {
          this.#loop.roomAgain(connection);
          this.#places?.roomAgain(connection);
          for (const push of this.#commandPushes.values()) push.roomAgain(connection);
          this.#subscriptions.roomAgain(connection);
        },
        onSilent: ({ caller }) => {
          for (const push of this.#commandPushes.values()) push.leave(caller.connection);
        },
        onClose: (closed) => {
          const { connection } = closed.caller;
          this.#loop.endWaits(connection);
          this.#places?.endWaits(connection);
          this.#subscriptions.leave(connection);
          // What it sent before it closed comes before what is taken back because it closed.
          this.#inbox.afterLines(closed, () => {
            for (const push of this.#commandPushes.values()) push.leave(connection);
            this.#remoteLeases?.disconnect(connection);
            this.#places?.disconnect(connection);
            this.#loop.disconnect(connection);
            for (const holders of this.#endingHolders.values()) holders.closed(connection);
          });
          this.#loop.schedule();
        },
      },
    });
  }

  #makeTurnReports(statistics: Statistics): CountedTurns {
    return new CountedTurns({
      statistics,
      log: this.#log,
      lines: this.#repeatedLines,
      tell: (kind, details) => this.#tell(kind, details),
      onTrouble: () => this.#tellStatusSoon(),
      notify: (number, method, params) => {
        const told = this.#connections.get(number)?.notify(method, params) ?? false;
        const tells = told && method === "command.cancelled";
        if (!tells || !hasEnded(params)) return;
        for (const push of this.#commandPushes.values()) push.ended(number, commandOf(params));
      },
      broken: (error) => void this.#endBroken(error),
    });
  }

  #makeLoop({ config, database, identity }: DaemonParts): TurnLoop {
    const { store, clock, witness, mode, idDigits, sign } = database;
    const { readOnly } = config;
    return new TurnLoop({
      setting: {
        store,
        clock,
        witness,
        mode,
        idDigits,
        sign,
        identity,
        processOf: this.#processOf,
        journal: this.#journal,
        tally: this.#tally,
        retentionMs: config.retentionDays * DAY_MS,
        cancelElsewhere: (caller, id) => this.#places?.cancel(caller, id) ?? false,
        ancestorsOf: (caller) => this.#ancestors.of(caller),
        readOnly,
      },
      classify,
      lockHolder: () => database.lockHolder(),
      endings: this.#ends,
      arrivals: this.#inbox.arrivals((connection) => this.#connections.get(connection)),
      reports: this.#turns,
    });
  }

  #makeEndingHolders(): void {
    const { fileId } = this.#database;
    const make = (turns: HoldersTurns): EndingHolders =>
      new EndingHolders({
        turns,
        processes: this.#processes,
        log: this.#log,
        isOpen: (connection) => this.#connections.get(connection) !== undefined,
      });
    this.#endingHolders.set(undefined, make(this.#loop));
    for (const place of this.#places?.all ?? []) {
      const turns: HoldersTurns = {
        submit: (call) => place.submit(call),
        time: () => place.time(),
        take: (env) => place.take(env, fileId),
        connectionOf: (row) => place.connectionOfLost(row),
      };
      this.#endingHolders.set(place, make(turns));
    }
  }

  #makeCommandPushes(): void {
    const make = (turns: CommandTurns): CommandPush =>
      new CommandPush({
        turns,
        lines: this.#repeatedLines,
        ownRequests: this.#ownRequests,
        peer: (connection) => this.#connections.get(connection),
        refuse: (peer, refusal) => this.#rpc.refuse(refusal, peer),
      });
    this.#commandPushes.set(undefined, make(this.#loop));
    for (const place of this.#places?.all ?? []) {
      const turns: CommandTurns = {
        submit: (call, name) =>
          place.submit(call, name === undefined ? undefined : [scopeOf({ noun: "command", name })]),
        inOrder: (connection, begin) => place.inOrder(connection, begin),
        numberOf: (connection) => place.numberOf(connection),
        connectionOf: (known) => place.connectionOf(known),
        sent: (connection, commandId) => place.sent(connection, commandId),
        answered: (commandId) => place.answered(commandId),
      };
      this.#commandPushes.set(place, make(turns));
    }
  }

  readonly #processOf: NonNullable<Env["processOf"]> = (caller) => {
    const socket = this.#connections.get(caller.connection)?.socket;
    return socket === undefined ? notKnown("it has closed") : this.#processes.of(socket, caller);
  };

  #makePlaces({ config, shared, log, database }: DaemonParts): Places | undefined {
    if (shared === undefined) return undefined;
    const { mode, idDigits, clock, sign } = database;
    const marks = new Map<string, string>();
    this.#loop.performNow(() => readMarks(marks), { onlyReads: true });
    const options: Parameters<typeof shared.Places.of>[1] = {
      log,
      mode,
      idDigits,
      retentionMs: () => this.#config.retentionDays * DAY_MS,
      endings: new Ends(SHARED_ENDINGS),
      isFollowed: () => this.#isFollowed,
      tell: (tell) => this.#tellOfShared(tell),
      outlet: this.#turns,
      isOpen: (connection) => this.#connections.get(connection) !== undefined,
      ancestorsOf: (caller) => this.#ancestors.of(caller),
      processOf: this.#processOf,
      onReturn: (place) => this.#commandPushes.get(place)?.nameAgain(),
      endHolder: (place, row, connection) => this.#endingHolders.get(place)?.end(row, connection),
      boot: clock.boottime().boot,
      keptMark: (url) => marks.get(markKey(url)),
      keepMark: (url, mark) =>
        performUntilDone(this.#loop, {
          start: () => keepMark(url, mark),
          failed: () => !this.#stopping,
        }),
      onChange: () => this.#tellStatusSoon(),
    };
    const here = {
      hasSigned: (text: string, signature: string) => sign(text) === signature,
      submit: (call: Call) => this.#loop.submit(call),
      everyoneWaiting: () => this.#remoteLeases?.everyoneWaiting() ?? [],
    };
    return shared.Places.of(config.sharedRules, options, here, (connection) => {
      const from = this.#connections.get(connection);
      if (from?.lane.state !== "held") return;
      this.#inbox.roomAgain(from);
      this.#loop.schedule();
    });
  }

  /** Connects to the databases that other daemons share, if there are any. Refuses those that are not fit. */
  async connect(): Promise<void> {
    await this.#places?.start();
  }

  #makeRpc({ config, lines, database, databasePath }: DaemonParts, statistics: Statistics): Rpc {
    const ownReport = introspection(() => ({
      config: this.#config,
      databasePath,
      database,
      loop: this.#loop,
      connections: this.#connections,
      sockets: this.#sockets,
      statistics,
      tally: this.#tally,
      logLinesDropped: lines.linesDropped,
      places: this.#places,
      heldLog: this.#logGrowth.held,
      configError: this.#configError,
    }));
    const dispatcher = new Dispatcher({
      methods: servedMethods({
        ownReport,
        commandPush: ({ idMark }) => this.#commandPushes.get(this.#places?.markedBy(idMark)) as CommandPush,
        remoteLeases: this.#remoteLeases,
        places: this.#places,
        events: { journal: this.#journal, subscriptions: this.#subscriptions },
        async: {
          "daemon.backup": (params, sender) => this.#backups.make(params, sender),
          "daemon.check": (params, sender) => this.#checks.check(params, sender),
          ...this.#remoteLeases?.handlers(),
        },
      }),
      statistics,
      lines: this.#repeatedLines,
      readOnly: config.readOnly,
      places: this.#places,
    });
    return new Rpc(dispatcher, this.#ownRequests);
  }

  /** Takes the places to listen at, ends what the life before has left to be ended, and lets others connect. */
  async listen(passed: readonly PassedSocket[]): Promise<void> {
    const letConnect = await this.#sockets.bind(passed);
    // As late as can be: the time in which the grants of the life before may be renewed begins here.
    if (!this.#config.readOnly) {
      this.#loop.performNow(countAtStart, { onlyReads: true });
      this.#loop.begin(() => this.#recover());
    }
    await letConnect();
    this.#database.announce(this.#sockets.paths.map(({ path }) => path));
  }

  /** True if somebody follows events of this daemon. */
  get #isFollowed(): boolean {
    return this.#journal?.isKept === true;
  }

  /**
   * Tells of what was committed over shared names. Those who follow it are woken in a turn; only to be counted it needs
   * none, which would cost as much as a call.
   */
  #tellOfShared(tell: (effects: Env["effects"]) => void): void {
    if (this.#isFollowed) return this.#tellInTurn(tell);
    tell(new CollectedEffects(undefined, this.#tally, 0));
    this.#tally.commit();
  }

  /** Counts what has happened to the daemon itself, and tells those who follow it. */
  #tell(kind: EventKind<"daemon">, details?: EventDetails): void {
    if (!this.#isFollowed) return this.#tally.count("daemon", kind);
    this.#tellInTurn((effects) => effects.tell("daemon", "", kind, "pawld", details));
  }

  #tellInTurn(tell: (effects: Env["effects"]) => void): void {
    performUntilDone(this.#loop, {
      *start({ effects }) {
        tell(effects);
      },
      failed: () => false,
    });
  }

  /** Undoes `listen`, for a start that failed. */
  stopListening(): void {
    this.#sockets.stopAccepting();
    this.#sockets.remove();
  }

  /**
   * The first operations of this life: grants that were bound to connections of the one before. May be repeated where
   * something was in the way.
   */
  #recover(): void {
    // It takes long after a crash under load, so it comes before the time that grants are given to be renewed.
    this.#database.begin();
    this.#loop.performNow((env) => this.#ends.restart(env, this.#database.clock.boottime()));
    this.#loop.performNow(renewStaleItems);
    this.#loop.keepTime();
    this.#remoteLeases?.start();
    for (const holders of this.#endingHolders.values()) holders.watch();
  }

  /** Begins to answer. */
  serve(): void {
    this.#tally.count("daemon", "started");
    this.#loop.schedule();
    this.#fileLooks = setInterval(() => this.#lookAtFiles(), LOOK_AT_FILES_MS).unref();
    this.#idleExit.watch(this.#config.idleExit);
    this.#notices.ready(this.#status);
  }

  /** The turns that write look themselves; those that only read have to end soon too. */
  #lookAtFiles(): void {
    try {
      this.#database.checkFiles();
      if (!this.#config.readOnly) this.#logGrowth.look();
    } catch (error) {
      this.#loop.breakOff(error);
    }
  }

  get addresses(): ServedSockets["addresses"] {
    return this.#sockets.addresses;
  }

  /** What is to be told of databases that other daemons share, and that cannot be reached. */
  get #placesAway(): string | undefined {
    const away = this.#places?.away ?? [];
    if (away.length === 0) return undefined;
    return `Shared names are refused, since ${away.join(", ")} cannot be reached; local names are served`;
  }

  get #status(): string {
    const { size: open } = this.#connections;
    return statusLine(this.#config, {
      open,
      trouble: this.#turns.trouble ?? this.#logGrowth.trouble ?? this.#placesAway,
      configError: this.#configError,
    });
  }

  #tellStatusSoon(): void {
    this.#notices.statusSoon(() => this.#status);
  }

  /**
   * Takes over what can be changed while it runs, and says what would need another start. A configuration that
   * cannot be read changes nothing, and says so: in the log, and until one was taken over in `daemon.info` and to the
   * supervisor, since whoever asked for it by a signal gets no other answer.
   *
   * @param read throws a `PawlError` when there is something wrong with it.
   */
  reload(read: () => Config): void {
    if (this.#stopping) return;
    this.#notices.reloading();
    try {
      this.#takeOver(read());
      this.#configError = null;
    } catch (error) {
      this.#configError = (error as Error).message;
      this.#log.error({ err: error }, "the configuration was not taken over; the former one stays");
    }
    this.#notices.ready(this.#status);
  }

  #takeOver(read: Config): void {
    const { config, taken, needRestart } = reloaded(this.#config, read);
    this.#access.allow(config);
    this.#config = config;
    this.#log.level = config.logLevel;
    this.#loop.retain(config.retentionDays * DAY_MS);
    this.#connections.reconfigure(config);
    this.#idleExit.watch(config.idleExit);
    this.#log.info({ taken }, "configuration read again");
    if (needRestart.length > 0)
      this.#log.warn({ needRestart }, "these options take effect at the next start");
  }

  /** Stops in order: answers what was received, ends waits, lets peers read, checkpoints, removes the sockets. */
  async stop(reason: string): Promise<void> {
    const begun = elapsed();
    this.#log.info({ reason }, "stopping");
    this.#stopping = true;
    this.#tell("stopping", { reason });
    clearInterval(this.#fileLooks);
    this.#notices.stopping(`Stopping (${reason})`);
    this.#idleExit.stop();
    this.#afterPeak.end();
    this.#sockets.stopAccepting();
    const refusal = refuse("unavailable", "The daemon is stopping. Connect again in a moment.", {
      reason: "stopping",
    });
    for (const holders of this.#endingHolders.values()) holders.stop();
    this.#remoteLeases?.stop(refusal);
    const placesStopped = this.#places?.stop(refusal);
    // Those that were held until a database has performed their calls are taken up, and refused, now.
    if (placesStopped !== undefined) for (const each of this.#connections) this.#inbox.roomAgain(each);
    const isAllRefused = await this.#loop.stop(refusal);
    await placesStopped;
    // Requests that are on their way are refused as not performed, so that their senders know; a connection
    // that closed on them would leave that open. Of those who have sent more than could be refused, no more is read.
    if (isAllRefused) await new Promise((resolve) => setTimeout(resolve, REFUSING_MS));
    this.#loop.rest();
    this.#connections.dropArrivals();
    await Promise.all([
      this.#connections.close(Math.max(CLOSED_MS - (elapsed() - begun), 0)),
      this.#backups.stop(),
      this.#checks.stop(),
      this.#places?.close(),
      this.#remoteLeases?.giveBackAtEnd(),
    ]);
    await this.#remoteLeases?.close();
    if (!this.#config.readOnly) this.#keepTime();
    this.#sockets.remove();
    this.#database.close();
    this.#repeatedLines.end();
    await this.#notices.sent();
    this.#log.info("stopped");
  }

  /** The last transaction of this life: the time, from which the next one goes on. */
  #keepTime(): void {
    // Everything that was answered is on disk; what cannot be added now is not needed.
    for (const write of [() => this.#loop.keepTime(), () => this.#database.end()]) {
      try {
        write();
      } catch (error) {
        this.#log.warn({ err: error }, "not everything could be written at the end; nothing is lost by that");
      }
    }
  }

  /** The storage failed: nothing more is written, the answers that are made go out, and what arrives is refused. */
  async #endBroken(error: unknown): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#fileLooks);
    this.#idleExit.stop();
    this.#notices.stopping("Ending, because the storage failed");
    this.#log.fatal(
      { err: error },
      "the storage failed; ending, so that a restart begins from what is on disk",
    );
    // As at a stop: a connection that closed on a request would leave open whether that was performed.
    await new Promise((resolve) => setTimeout(resolve, REFUSING_MS));
    this.#loop.rest();
    this.#connections.dropArrivals();
    await this.#connections.close();
    this.#end(1);
  }

  /** Ends the process after a failure of the storage, without another look at the disk. */
  exitAtOnce(code: number): void {
    this.#kernel?.exit(code);
  }
}

/** A command whose delivery took too long may be answered yet, and until then counts as one that its receiver has. */
function hasEnded(params: object): boolean {
  return (params as NotificationParams<"command.cancelled">).reason !== EXECUTION_TIME;
}

function commandOf(params: object): string {
  return (params as NotificationParams<"command.cancelled">).commandId;
}
