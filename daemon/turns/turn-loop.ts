/**
 * The room of turns: one transaction for all that has arrived. The room knows operations, calls and the store, and
 * neither the rules of any noun nor JSON-RPC nor sockets.
 *
 *     turn-loop  takes, performs, answers        attempt  one transaction, and what is forgotten with it
 *     call       what is performed               waiters  calls that wait for a condition
 *     effects    held back until the commit      gathering, alarm, writer-watch  when a turn begins
 */
import { type PawlError, refuse } from "@pawl/protocol/errors";
import type { Jump, Reading, Step } from "../clock.js";
import type { Failure } from "../store/failure.js";
import type { Operation } from "../store/statement.js";
import { Alarm, NEVER } from "./alarm.js";
import { Attempt, type Endings, type Setting } from "./attempt.js";
import { type Call, DAEMON, performUntilDone } from "./call.js";
import type { Outlet } from "./effects.js";
import { Gathering } from "./gathering.js";
import type { Env } from "./operation.js";
import { type Parked, Waiters } from "./waiters.js";
import { WriterWatch } from "./writer-watch.js";

/** Calls that one turn performs at most: some 50 ms of work, so that no caller waits long for the commit. */
const MAX_CALLS_PER_TURN = 4096;
/** The time until what has ended is looked for again after that failed. */
const RETRY_MS = 1000;

/** A part of the arrivals that was taken up. */
export interface Taken {
  /** How many lines, whole or in part; they may hold no call, or several. */
  readonly lines: number;
  /** True if the next turn may take up more. */
  readonly left: boolean;
}

/** Where calls come from. */
export interface Arrivals {
  /** Adds the calls that have arrived and may be performed, in the order in which they came. */
  take(calls: Call[]): Taken;
  /** True if a connection is open, so that a grant may be bound to it. */
  isOpen(connection: number): boolean;
}

/** The receiver of news about turns. */
export interface TurnReports extends Outlet {
  /** A turn was committed; `commitMs` is how long that took. */
  committed(turn: { performed: number; commitMs: number; wrote: boolean }): void;
  /** A turn, or a part of one, was rolled back. */
  rolledBack(error: unknown, failure: Failure): void;
  /** The storage broke: memory may differ from the disk, so the process has to end. */
  broken(error: unknown): void;
  /** The wall clock was set. */
  stepped(step: Step): void;
}

export interface TurnLoopOptions {
  readonly setting: Setting;
  readonly arrivals: Arrivals;
  readonly endings: Endings;
  readonly reports: TurnReports;
  readonly classify: (error: unknown) => Failure;
}

/** The work of a turn, performed in this order. */
interface Work {
  readonly time: Reading;
  /** Whether the time is to be kept, since the wall clock jumped. */
  readonly keepsTime: boolean;
  /** Parked calls whose conditions another process may have made true. */
  readonly again: readonly Parked[];
  /** Parked calls that have waited for as long as they may. */
  readonly timedOut: readonly Parked[];
  readonly calls: readonly Call[];
}

/**
 * Performs calls in turns of the event loop: takes all that has arrived, performs it in one transaction with one sync
 * (group commit), and only then answers.
 */
export class TurnLoop {
  readonly #options: TurnLoopOptions;
  readonly #setting: Setting;
  readonly #waiters = new Waiters((parked) => this.#timeUp(parked));
  readonly #gathering = new Gathering();
  readonly #alarm: Alarm;
  readonly #writerWatch: WriterWatch | undefined;
  /** Calls taken or submitted and not yet performed. */
  #calls: Call[] = [];
  /** Calls of the turn under way that are performed in the next one, before any other. */
  #later: Call[] = [];
  #timedOut: Parked[] = [];
  #scheduled = false;
  /** True if all that waits is to be performed again. */
  #tryAll = false;
  /** Whether the machine slept and ends have not followed that. */
  #slept = false;
  /** The wall clock by which more has ended than one turn removes, should the clock be set back meanwhile. */
  #endedByWallMs = 0;
  /** Connections with grants that end with them. */
  readonly #holders = new Set<number>();
  /** The answer to every call since the end. */
  #refusal: PawlError | undefined;

  constructor(options: TurnLoopOptions) {
    this.#options = options;
    this.#setting = options.setting;
    const { store, readOnly } = options.setting;
    // At first to find out what has ended; never in a daemon that only reads.
    this.#alarm = new Alarm(readOnly ? NEVER : AT_ONCE, () => this.schedule());
    if (store.writer === undefined) return;
    this.#writerWatch = new WriterWatch(store.writer, {
      isNeeded: () => this.#waiters.size > 0 && this.#refusal === undefined,
      onChange: () => {
        this.#tryAll = true;
        this.#turn();
      },
    });
  }

  /** How many calls wait, without those of the daemon itself. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** The current time, for what is not part of a turn. */
  time(): Reading {
    const time = this.#setting.clock.read();
    return time.wallMs < this.#endedByWallMs ? { ...time, wallMs: this.#endedByWallMs } : time;
  }

  /** Changes how long what has ended is kept, for what has ended already too. */
  retain(retentionMs: number): void {
    this.#setting.retentionMs = retentionMs;
    if (this.#setting.readOnly) return;
    this.#alarm.setTo(AT_ONCE);
    this.schedule();
  }

  /** Asks for a turn. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  /** Queues a call that came by no connection for the next turn, in the order of these calls. */
  submit(call: Call): void {
    if (this.#refusal !== undefined) return call.settle(this.#refusal);
    this.#calls.push(call);
    this.schedule();
  }

  /** Performs an operation of the daemon itself at once, in a transaction of its own; throws if that fails. */
  performNow(start: (env: Env) => Operation<unknown>): void {
    const error = this.#inTransaction(this.time(), (attempt) => attempt.performOwn(start));
    if (error !== undefined) throw error;
  }

  /** Has the database keep the time, for the next life of the daemon; throws if that fails. */
  keepTime(): void {
    const error = this.#inTransaction(this.time(), (attempt) => attempt.keepTime());
    if (error !== undefined) throw error;
  }

  /** Ends the waits of a connection that has closed, and releases what was granted for as long as it lasts. */
  disconnect(connection: number): void {
    this.#waiters.removeOf(connection);
    if (this.#holders.delete(connection)) this.#releaseGrants(connection);
  }

  #releaseGrants(connection: number): void {
    performUntilDone(this, {
      start: (env) => this.#options.endings.disconnect(connection, env),
      // Nobody is left to try again, and a grant may have been given for a day.
      failed: () => this.#refusal === undefined,
    });
  }

  /** Performs what has arrived, then ends all waits and refuses every later call with this refusal. */
  async stop(refusal: PawlError): Promise<void> {
    while (this.#refusal === undefined && (this.#turn() > 0 || this.#calls.length > 0)) {
      // The answers are written before more is taken up, so that no more is than may be unsent. Nothing else arrives
      // meanwhile.
      await new Promise<void>((resolve) => process.nextTick(resolve));
    }
    this.#end(refusal);
  }

  /** The storage was found broken beside the turns: ends as a turn that finds it so does. */
  breakOff(error: unknown): void {
    if (this.#refusal === undefined) this.#break(error, []);
  }

  /** Takes what has arrived before its turn: for whoever does something that has to come after it. */
  takeUp(): void {
    this.#take();
    if (this.#refusal !== undefined) this.#refuseCalls(this.#refusal);
    else if (this.#calls.length > 0) this.schedule();
  }

  /** Returns how many lines it took up. */
  #turn(): number {
    this.#scheduled = false;
    const lines = this.#take();
    if (this.#refusal !== undefined) this.#refuseCalls(this.#refusal);
    else if (this.#gathering.waitsForMore(this.#calls.length)) this.schedule();
    else this.#perform(this.#nextWork());
    return lines;
  }

  /** Returns how many lines it took up. */
  #take(): number {
    const { lines, left } = this.#options.arrivals.take(this.#calls);
    if (left) this.schedule();
    return lines;
  }

  #nextWork(): Work {
    const time = this.time();
    const jump = this.#setting.clock.takeJump();
    if (jump !== undefined) this.#see(jump);
    const again = this.#tryAll ? this.#waiters.everyone() : [];
    this.#tryAll = false;
    const calls = this.#calls;
    this.#calls = calls.length <= MAX_CALLS_PER_TURN ? [] : calls.splice(MAX_CALLS_PER_TURN);
    if (this.#calls.length > 0) this.schedule();
    return {
      time,
      keepsTime: jump !== undefined && !this.#setting.readOnly,
      again,
      timedOut: this.#timedOut.splice(0).filter(({ state }) => state === "waiting"),
      calls,
    };
  }

  #perform(work: Work): void {
    const { time, keepsTime, again, timedOut, calls } = work;
    const endingsDue = this.#slept || this.#alarm.isDue(time);
    if (calls.length === 0 && timedOut.length === 0 && again.length === 0 && !endingsDue && !keepsTime) {
      return this.#alarm.wind(time);
    }
    this.#later = [];
    const error = this.#inTransaction(time, (attempt) => {
      if (keepsTime) attempt.keepTime();
      if (endingsDue) this.#endWhatIsDue(attempt);
      for (const parked of again) attempt.tryAgain(parked);
      for (const parked of timedOut) attempt.timeOut(parked);
      for (const call of calls) attempt.perform(call);
    });
    if (error === undefined) this.#alarm.wind(time);
    else if (!this.#breaks(error, calls)) this.#performOneByOne(work);
    this.#performLater();
  }

  /** Puts what goes on before the calls of the next turn. */
  #performLater(): void {
    if (this.#later.length === 0) return;
    this.#calls = [...this.#later, ...this.#calls];
    this.#later = [];
    if (this.#refusal === undefined) this.schedule();
    else this.#refuseCalls(this.#refusal);
  }

  #see({ step, slept }: Jump): void {
    if (step !== undefined) this.#options.reports.stepped(step);
    if (slept && !this.#setting.readOnly) this.#slept = true;
  }

  #endWhatIsDue(attempt: Attempt): void {
    const { endings } = this.#options;
    if (this.#slept) attempt.performOwn((env) => endings.wakeUp(env, this.#setting.clock.boottime()));
    attempt.endWhatIsDue(endings);
  }

  /** Returns what made it roll back. */
  #inTransaction(time: Reading, work: (attempt: Attempt) => void): unknown {
    const attempt = new Attempt(this.#setting, this.#waiters, time);
    try {
      attempt.begin();
      work(attempt);
      attempt.commit();
    } catch (error) {
      attempt.rollBack();
      return error;
    }
    this.#finish(attempt);
    return undefined;
  }

  /** After the commit: counts, notifies, answers, and only then does what nobody waits for. */
  #finish(attempt: Attempt): void {
    const { reports, arrivals } = this.#options;
    const { nextEnding, time } = attempt;
    if (nextEnding !== undefined) {
      this.#slept = false;
      this.#alarm.setTo(nextEnding);
      this.#endedByWallMs = nextEnding.at <= time.now ? time.wallMs : 0;
    }
    this.#alarm.noLaterThan(attempt.earliestEnd);
    for (const connection of attempt.holders) {
      // The connection may have closed between sending the request and the turn that granted something.
      if (arrivals.isOpen(connection)) this.#holders.add(connection);
      else this.#releaseGrants(connection);
    }
    this.#later.push(...attempt.later);
    attempt.carryOut(reports);
    const answered = attempt.answer();
    this.#gathering.committed(answered, attempt.wrote ? attempt.commitMs : undefined);
    reports.committed(attempt);
    this.#writerWatch?.start();
  }

  #timeUp(parked: Parked): void {
    this.#timedOut.push(parked);
    this.schedule();
  }

  /**
   * A turn was rolled back: performs each part of it in a transaction of its own, so that only the one at fault fails.
   * The parked calls that were to be performed again are so after the next change.
   */
  #performOneByOne({ time, timedOut, calls }: Work): void {
    let unanswered = calls;
    const alone = (perform: (attempt: Attempt) => void, failed: (error: unknown) => void): void => {
      if (this.#refusal !== undefined) return;
      const error = this.#inTransaction(this.time(), perform);
      if (error !== undefined && !this.#breaks(error, unanswered)) failed(error);
    };

    if (this.#slept || this.#alarm.isDue(time)) {
      alone(
        (attempt) => this.#endWhatIsDue(attempt),
        () => this.#alarm.setTo({ ...NEVER, at: time.now + RETRY_MS }),
      );
    }
    for (const parked of timedOut) {
      alone(
        (attempt) => attempt.timeOut(parked),
        (error) => this.#settleParked(parked, this.#told(error)),
      );
    }
    for (const [index, call] of calls.entries()) {
      unanswered = calls.slice(index);
      const { connection } = call.caller;
      if (
        connection !== DAEMON.connection &&
        this.#later.some(({ caller }) => caller.connection === connection)
      ) {
        this.#later.push(call);
        continue;
      }
      alone(
        (attempt) => attempt.perform(call),
        (error) => {
          call.settle(this.#told(error));
          if (this.#options.classify(error) === "corrupt") this.#break(error, unanswered.slice(1));
        },
      );
    }
    if (this.#refusal === undefined) this.#alarm.wind(this.time());
  }

  /** Reports what rolled a transaction back. Ends the loop and returns true if the storage is broken. */
  #breaks(error: unknown, unanswered: readonly Call[]): boolean {
    const failure = this.#options.classify(error);
    this.#options.reports.rolledBack(error, failure);
    if (failure === "broken") this.#break(error, unanswered);
    return failure === "broken";
  }

  /** The answer to a call that failed: no space is a refusal that will pass, everything else a defect. */
  #told(error: unknown): unknown {
    return this.#options.classify(error) === "full" ? NO_SPACE : error;
  }

  #break(error: unknown, unanswered: readonly Call[]): void {
    for (const call of unanswered) call.settle(STORAGE_FAILED);
    this.#end(STORAGE_FAILED);
    this.#options.reports.broken(error);
  }

  #end(refusal: PawlError): void {
    this.#refusal ??= refusal;
    this.#alarm.stop();
    this.#writerWatch?.stop();
    this.#refuseCalls(refusal);
    for (const parked of this.#waiters.everyone()) this.#settleParked(parked, refusal);
  }

  #refuseCalls(refusal: PawlError): void {
    for (const call of this.#calls.splice(0)) call.settle(refusal);
  }

  #settleParked(parked: Parked, outcome: unknown): void {
    this.#waiters.remove(parked);
    parked.call.settle(outcome);
  }
}

/** To find out when something ends. */
const AT_ONCE = { ...NEVER, at: 0 };

const NO_SPACE = refuse(
  "unavailable",
  "There is no space left for the database. Reads go on; writes work again once space is made.",
  { reason: "disk_full" },
);

const STORAGE_FAILED = refuse(
  "unavailable",
  "The storage failed and the daemon is ending. Whether this request took effect is known after its restart.",
  { reason: "storage_failed" },
);
