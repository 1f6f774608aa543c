// Ends the processes of those who have lost what they hold, where they have asked for that (`onLoss`).
import { constants as system } from "node:os";
import { PawlError } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { FREE } from "./domain/ends.js";
import { type LostRow, takeLostHolders } from "./grants/on-loss.js";
import type { KnownProcess, Processes } from "./socket/pidfds.js";
import type { Operation } from "./store/statement.js";
import { type Call, performUntilDone } from "./turns/call.js";
import type { Env, Wait } from "./turns/operation.js";

/** A process is found again so much later where there was no descriptor left. */
const FIND_AGAIN_MS = 1000;
/** A killed process that goes on for so long is told of: a frozen or an unreachable disk keeps it. */
const TELL_AFTER_MS = 10_000;

/** A grant that was lost. */
interface Lost {
  readonly row: LostRow;
  /** That has to have closed; 0 for one of an earlier life. */
  readonly connection: number;
  hasEnded: boolean;
}

/** A process that is being ended, however many grants it has lost. */
interface Ending {
  readonly sent: Set<string>;
  killTimer: NodeJS.Timeout | undefined;
  /** In milliseconds of elapsed time. */
  killAt: number;
}

/** The turns over the rows that say who has lost what. */
export interface HoldersTurns {
  submit(call: Call): void;
  /** In elapsed milliseconds, as those rows have it. */
  time(): { readonly now: number };
  /** Takes those that this daemon has to end, where not all are. */
  take?(env: Env): Operation<readonly LostRow[] | Wait>;
  /** The connection here that has to close, where rows have another number; 0 for none. */
  connectionOf?(row: LostRow): number;
}

/**
 * Signals the holders of lost grants, kills them after their grace, and frees the grants once process and connection
 * are gone. The database keeps which those are (`pawl_on_loss`), so another life of the daemon goes on with it.
 */
export class EndingHolders {
  readonly #turns: HoldersTurns;
  readonly #processes: Processes;
  readonly #log: Logger;
  readonly #isOpen: (connection: number) => boolean;
  /** By the number of the connection that has to close. */
  readonly #lost = new Map<number, Set<Lost>>();
  /** By their ids, the grants that are not free yet. */
  readonly #grants = new Set<string>();
  readonly #endings = new Map<KnownProcess, Ending>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #stopped = false;

  /** @param options `isOpen` says whether a connection of this life is. */
  constructor(options: {
    turns: HoldersTurns;
    processes: Processes;
    log: Logger;
    isOpen: (connection: number) => boolean;
  }) {
    this.#turns = options.turns;
    this.#processes = options.processes;
    this.#log = options.log;
    this.#isOpen = options.isOpen;
  }

  /** Ends whom the life before has left to be ended, and then whoever loses something. */
  watch(): void {
    if (this.#stopped) return;
    const { take, connectionOf } = this.#turns;
    performUntilDone(this.#turns, {
      start: (env) => take?.(env) ?? takeLostHolders(env),
      waits: true,
      done: (rows) => {
        for (const row of rows) this.end(row, connectionOf?.(row) ?? row.connection);
        this.watch();
      },
      failed: (error) => this.#goesOn(error),
    });
  }

  /** A connection has closed. */
  closed(connection: number): void {
    for (const lost of this.#lost.get(connection) ?? []) this.#freeIfGone(lost);
  }

  /** Ends nobody any more; the next life of the daemon goes on with that. */
  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /** Ends a holder, and then frees what it has lost. */
  end(row: LostRow, connection: number): void {
    // A daemon that others took for dead meets its own again.
    if (this.#grants.has(row.grant_id)) return;
    this.#grants.add(row.grant_id);
    const lost: Lost = { row, connection, hasEnded: false };
    const ofConnection = this.#lost.get(connection);
    if (ofConnection === undefined) this.#lost.set(connection, new Set([lost]));
    else ofConnection.add(lost);
    this.#endProcess(lost);
  }

  #endProcess(lost: Lost): void {
    const { row } = lost;
    const found = this.#processes.find({
      pid: row.pid,
      startTime: row.start_time,
      pidfdInode: row.pidfd_inode,
      boot: row.boot,
      pidNamespace: row.pid_namespace,
      databaseFile: row.database_file,
    });
    if (found === "later") return void this.#after(FIND_AGAIN_MS, () => this.#endProcess(lost));
    if (found === "ended") return this.#ended(lost);
    if (found === "unknown") {
      // To signal whoever has the pid now could hit another. A holder that looks at its lease stops meanwhile.
      this.#log.warn(
        { pid: row.pid, graceMs: row.grace_ms },
        "the process of a lost lease cannot be found from here; the lease is granted to others after its grace",
      );
      return void this.#after(this.#killAt(row) - this.#turns.time().now, () => this.#ended(lost));
    }
    found.onEnd(() => this.#ended(lost));
    if (!lost.hasEnded) this.#signal(found, row);
  }

  #killAt({ lost_at: lostAt, grace_ms: graceMs }: LostRow): number {
    return (lostAt as number) + graceMs;
  }

  /** Sends each signal once to a process, and kills it at the earliest time that one of its grants asks for. */
  #signal(process: KnownProcess, row: LostRow): void {
    let ending = this.#endings.get(process);
    if (ending === undefined) {
      ending = { sent: new Set(), killTimer: undefined, killAt: Number.POSITIVE_INFINITY };
      this.#endings.set(process, ending);
      process.onEnd(() => this.#forget(process));
    }
    if (!ending.sent.has(row.signal)) {
      ending.sent.add(row.signal);
      this.#send(process, row.signal);
      // One that is stopped would not see it.
      if (row.signal !== "SIGKILL") this.#send(process, "SIGCONT");
    }
    const killAt = this.#killAt(row);
    if (killAt >= ending.killAt) return;
    ending.killAt = killAt;
    if (ending.killTimer !== undefined) this.#clear(ending.killTimer);
    ending.killTimer = this.#after(killAt - this.#turns.time().now, () => this.#kill(process));
  }

  #kill(process: KnownProcess): void {
    this.#send(process, "SIGKILL");
    const timer = this.#after(TELL_AFTER_MS, () =>
      this.#log.warn(
        { pid: process.pid },
        "a process that lost its lease was killed and does not end; nobody is granted the lease before it has",
      ),
    );
    process.onEnd(() => this.#clear(timer));
  }

  #send(process: KnownProcess, signal: NodeJS.Signals): void {
    const errno = process.signal(signal);
    if (errno === 0 || errno === system.errno.ESRCH) return;
    this.#log.warn(
      { pid: process.pid, signal, errno },
      "a process that lost its lease cannot be signalled any more; nobody is granted the lease before it has ended",
    );
  }

  #forget(process: KnownProcess): void {
    const timer = this.#endings.get(process)?.killTimer;
    if (timer !== undefined) this.#clear(timer);
    this.#endings.delete(process);
  }

  #ended(lost: Lost): void {
    lost.hasEnded = true;
    this.#freeIfGone(lost);
  }

  /** Others may have what was lost, if its process has ended and nobody has the connection any more. */
  #freeIfGone(lost: Lost): void {
    const { row, connection } = lost;
    const { noun, grant_id: grantId } = row;
    if (!lost.hasEnded || this.#isOpen(connection) || this.#stopped) return;
    const ofConnection = this.#lost.get(connection);
    if (!ofConnection?.delete(lost)) return;
    this.#grants.delete(grantId);
    if (ofConnection.size === 0) this.#lost.delete(connection);
    performUntilDone(this.#turns, {
      start: (env: Env) => FREE[noun](grantId, env),
      failed: (error) => this.#goesOn(error),
    });
  }

  #goesOn(error: Error): boolean {
    if (this.#stopped) return false;
    if (error instanceof PawlError && error.details.reason === "shared_unavailable") return true;
    this.#log.error({ err: error }, "the holders of lost leases cannot be seen to now");
    return true;
  }

  #after(ms: number, action: () => void): NodeJS.Timeout {
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        action();
      },
      Math.max(ms, 0),
    );
    timer.unref();
    this.#timers.add(timer);
    return timer;
  }

  #clear(timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}
