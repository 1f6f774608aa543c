/**
 * The room of turns: one transaction for all that has arrived. The room knows operations, calls and the store, and
 * neither the rules of any noun nor JSON-RPC nor sockets.
 *
 *     turn-loop  takes, performs, answers        attempt  one transaction, and what is forgotten with it
 *     call       what is performed               waiters  calls that wait for a condition
 *     effects    held back until the commit      gathering, alarm, writer-watch  when a turn begins
 *     held-calls wait for a locked database
 */
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { elapsed, type Jump, processorMs, type Reading, type Step } from "../clock.js";
import type { Failure } from "../store/failure.js";
import type { Operation } from "../store/statement.js";
import { Alarm, NEVER } from "./alarm.js";
import { Attempt, type Endings, type Pause, type Setting } from "./attempt.js";
import { type Call, DAEMON, performUntilDone } from "./call.js";
import type { Outlet } from "./effects.js";
import { Gathering } from "./gathering.js";
import { HeldCalls, MAX_HELD_MS } from "./held-calls.js";
import type { Env } from "./operation.js";
import { type Parked, Waiters } from "./waiters.js";
import { WriterWatch } from "./writer-watch.js";

/** A turn takes up no more requests after so long, so that no caller waits long for its commit and its answers ... */
const TURN_MS = 5;
/** ... or after so many times as long as a commit takes, where that is longer. */
const COMMITS_PER_TURN = 3;
const MAX_TURN_MS = 12;
/** The part of a turn that goes to what nobody asked for in this turn: ends, waits that are over, the daemon's own. */
const OWN_SHARE = 0.5;
/** A request counts for no more of the time that calls took which it woke. */
const MAX_WAKING_MS = 0.25;
/** A daemon that stops performs what was received for so long ... */
const STOP_MS = 1500;
/** ... ends waits for so long, of which there may be tens of thousands ... */
const ENDING_WAITS_MS = 750;
/** ... and refuses the rest for so long; then connections close without an answer. */
const REFUSING_MS = 500;
/** The time until what has ended is looked for again after that failed. */
const RETRY_MS = 1000;
/** An alarm that rings later than this shows that the daemon was held up: stopped, or swapped out. */
const HELD_UP_MS = 20;
/** While nothing can be committed, that is tried again after so long at most: SQLite tells nobody. */
const MAX_TRY_AGAIN_MS = 10;
/** A lock that lasts so long is told of. */
const TELLING_MS = 1000;
/** The time that clients then have to be read before a grant ends ... */
const READING_MS = 200;
/** ... which is given again only after so long, lest nothing ever end on a machine that is always late. */
const READING_PAUSE_MS = 1000;

/** The requests that have arrived and are not taken up, by connections that share the turns. */
export interface Arrivals {
  /** How many wait, as far as that is known. */
  readonly waiting: number;
  /** True if another turn may take up more. */
  readonly mayTakeMore: boolean;
  /** A turn begins. */
  beginTurn(): void;
  /**
   * Takes up the next request and adds its calls: none if it needs no turn, or is not read to its end.
   *
   * @returns how many milliseconds of the turn it may well take beside what is performed of it, such as its answer;
   * undefined if nothing more may be taken up in this turn.
   */
  takeNext(calls: Call[]): number | undefined;
  /** The request that was taken up last is performed, and took so long. */
  took(ms: number): void;
  /** A wait of a connection ended, which took so long. */
  used(connection: number, ms: number): void;
  /** Takes up nothing more in this turn of the connection of the request that was taken up last. */
  stop(): void;
  /**
   * Keeps a call of the request that was taken up last, and everything of its connection that comes after it, until it
   * is told to go on.
   */
  hold(call: Call): Holding;
  /**
   * From now on it is kept when requests arrive; those that are there count as waiting since `since`. Undefined ends
   * that.
   */
  keepTimes(since: number | undefined): void;
  /** Has the connection of a call go on with that before anything else of it; returns false if there is no such one. */
  goOn(call: Call): boolean;
  /** True if a connection is open, so that a grant may be bound to it. */
  isOpen(connection: number): boolean;
}

/** A call that is kept before the rest of its connection. */
export interface Holding {
  /** Since when its request waits, in milliseconds of `elapsed`. */
  readonly since: number;
  /** The call is to be taken up again. */
  goOn(): void;
  /** The call was answered; the connection goes on after it. */
  drop(): void;
}

/** The receiver of news about turns. */
export interface TurnReports extends Outlet {
  /** A turn was committed; `commitMs` is how long that took. */
  committed(turn: { performed: number; commitMs: number; wrote: boolean }): void;
  /** A turn, or a part of one, was rolled back. */
  rolledBack(error: unknown, failure: Failure): void;
  /** Another program has kept the database locked for a while; `pid` is null where the kernel does not tell. */
  locked(pid: number | null): void;
  /** That has ended, after so long. */
  unlocked(lockedMs: number): void;
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
  /** The pid of another process that has locked the database; null where the kernel does not tell. */
  readonly lockHolder?: () => number | null;
  /** The clock by which it is told whether this process was held up; that of the machine, unless a test has its own. */
  readonly elapsed?: () => number;
  /** How many milliseconds the next turn has, if a test says that: none has each do no more than it must. */
  readonly turnMs?: () => number;
}

/** Nothing can be committed now. */
interface Outage {
  /** `locked`: calls that write wait for a while. `full`: they are refused. */
  cause: "locked" | "full";
  /** When that was noticed, in milliseconds of `elapsed`. */
  readonly begun: number;
  /** The time that does not pass meanwhile, so that nothing ends: just before the next thing does. */
  readonly at: Reading;
  /** The first thing to be done when something can be committed; throws when it still cannot. */
  readonly first: (() => void) | undefined;
  tries: number;
  /** When that is tried again, in milliseconds of `elapsed`. */
  triesAt: number;
  isTold: boolean;
}

/** What a turn has begun to perform. */
interface Work {
  readonly time: Reading;
  /** True if something is to be ended, and whether grants are kept from that for now. */
  readonly ends: "none" | "due" | Pause;
  /** Parked calls that have waited for as long as they may. */
  readonly timedOut: Parked[];
  readonly calls: Call[];
  /** Those of the request that was taken up last. */
  taken: readonly Call[];
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
  /** Calls that came by no connection and are not yet performed. */
  #own: Call[] = [];
  /** The calls of the request that is being taken up; undefined while none is. */
  #taken: Call[] | undefined;
  /** Calls of the turn under way that are performed in the next one, before any other. */
  #later: Call[] = [];
  #timedOut: Parked[] = [];
  /** Parked calls whose conditions another process may have made true. */
  #again: Parked[] = [];
  #scheduled = false;
  /** True if all that waits is to be performed again. */
  #tryAll = false;
  /** The elapsed time of the last turn. */
  #lastTurnAt: number | undefined;
  /** No grant ends before this, since the daemon was held up. */
  #readingUntil = Number.NEGATIVE_INFINITY;
  /** True if the machine slept and ends have not followed that. */
  #slept = false;
  /** The wall clock by which more has ended than one turn removes, should the clock be set back meanwhile. */
  #endedByWallMs = 0;
  /** Set while nothing can be committed. */
  #outage: Outage | undefined;
  /** What was due, and could not be ended because there is no space: until it is, each turn begins with it. */
  #owedEnds: Work["ends"] = "none";
  readonly #held = new HeldCalls();
  #tryingAgain: NodeJS.Timeout | undefined;
  /** The time that stood still while nothing could be committed, until what it granted has been prolonged. */
  #stoodStillAt: number | undefined;
  /** Connections with grants that end with them. */
  readonly #holders = new Set<number>();
  /** The answer to every call since the end. */
  #refusal: PawlError | undefined;
  /** True once what arrives is not even refused. */
  #rests = false;

  constructor(options: TurnLoopOptions) {
    this.#options = options;
    const { arrivals } = options;
    this.#setting = Object.assign(options.setting, {
      served: (connection: number, ms: number) => arrivals.used(connection, ms),
      othersWait: () => arrivals.mayTakeMore,
    });
    const { store, readOnly } = options.setting;
    // At first to find out what has ended; never in a daemon that only reads.
    this.#alarm = new Alarm(readOnly ? NEVER : AT_ONCE, () => this.schedule(), options.elapsed);
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

  /** What those take. */
  get waitingBytes(): number {
    return this.#waiters.bytes;
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

  /**
   * Queues a call that came by no connection for the next turn, in the order of these calls; one that taking up a
   * request brings about is performed in its place.
   */
  submit(call: Call): void {
    if (this.#refusal !== undefined) return call.settle(this.#refusal);
    if (this.#taken !== undefined) return void this.#taken.push(call);
    this.#own.push(call);
    this.schedule();
  }

  /**
   * Takes a call of the daemon back that waits, and that nobody needs the outcome of any more: only what the turn under
   * way has done with it may settle it. Returns true if it waited.
   */
  withdraw(call: Call): boolean {
    const waited = this.#waiters.withdraw(call);
    if (this.#waiters.someLeft) this.schedule();
    return waited;
  }

  /** Performs an operation of the daemon itself at once, in a transaction of its own; throws if that fails. */
  performNow(start: (env: Env) => Operation<unknown>, { onlyReads = false } = {}): void {
    const error = this.#inTransaction(
      this.time(),
      Number.POSITIVE_INFINITY,
      (attempt) => attempt.performOwn(start),
      onlyReads,
    );
    if (error !== undefined) throw error;
  }

  /**
   * Serves only reads until this can be performed: the first thing of a daemon that finds the database locked, or no
   * space for it. Throws what else is in the way.
   */
  begin(first: () => void): void {
    try {
      first();
    } catch (error) {
      const failure = this.#options.classify(error);
      if (failure !== "full" && failure !== "locked") throw error;
      if (failure === "full") this.#options.reports.rolledBack(error, failure);
      this.#stop(failure, this.time(), undefined, first);
    }
  }

  /** Has the database keep the time, for the next life of the daemon; throws if that fails. */
  keepTime(): void {
    const error = this.#inTransaction(this.time(), Number.POSITIVE_INFINITY, (attempt) => attempt.keepTime());
    if (error !== undefined) throw error;
  }

  /** Ends the waits of a connection that has closed. */
  endWaits(connection: number): void {
    this.#waiters.removeOf(connection);
    if (this.#waiters.someLeft) this.schedule();
  }

  /** The peer of a connection has read: its waits that were held up for that go on. */
  roomAgain(connection: number): void {
    const timedOut = this.#waiters.roomAgain(connection);
    if (timedOut === undefined) return;
    this.#timedOut.push(...timedOut);
    this.schedule();
  }

  /** Releases what was granted for as long as a connection lasts that has closed. */
  disconnect(connection: number): void {
    if (this.#holders.delete(connection)) this.#releaseGrants(connection);
  }

  #releaseGrants(connection: number): void {
    performUntilDone(this, {
      start: (env) => this.#options.endings.disconnect(connection, env),
      // Nobody is left to try again, and a grant may have been given for a day.
      failed: () => this.#refusal === undefined,
    });
  }

  /**
   * Performs what has arrived, then ends all waits and refuses every later call with this refusal.
   *
   * @returns false if more had arrived than could be refused in time.
   */
  async stop(refusal: PawlError): Promise<boolean> {
    const until = elapsed() + STOP_MS;
    while (this.#refusal === undefined && (this.#turn() || this.#hasOwn) && elapsed() < until) {
      // The answers are written before more is taken up, so that no more is than may be unsent. Nothing else arrives
      // meanwhile.
      if (this.#held.size === 0) await new Promise<void>((resolve) => process.nextTick(resolve));
      else await new Promise<void>((resolve) => setTimeout(resolve, MAX_TRY_AGAIN_MS));
    }
    this.#end(refusal, elapsed() + ENDING_WAITS_MS);
    const refusingUntil = elapsed() + REFUSING_MS;
    while (this.#refuseArrived(refusal)) {
      if (elapsed() >= refusingUntil) return false;
      await new Promise<void>((resolve) => process.nextTick(resolve));
    }
    return true;
  }

  /**
   * Takes up nothing from now on: the connections close, and nobody would read that it was refused. Reading what they
   * have sent could take longer than all else of a stop.
   */
  rest(): void {
    this.#rests = true;
  }

  get #hasOwn(): boolean {
    return this.#own.length > 0 || this.#held.size > 0;
  }

  /** The storage was found broken beside the turns: ends as a turn that finds it so does. */
  breakOff(error: unknown): void {
    if (this.#refusal === undefined) this.#break(error, []);
  }

  /** Returns true if it took up or performed anything. */
  #turn(): boolean {
    const { arrivals } = this.#options;
    this.#scheduled = false;
    arrivals.beginTurn();
    if (this.#refusal !== undefined) return this.#refuseArrived(this.#refusal);
    if (this.#gathering.waitsForMore(this.#own.length + arrivals.waiting)) {
      this.schedule();
      return true;
    }
    return this.#perform();
  }

  /** Refuses what has arrived, for as long as a turn takes; returns true if there was anything. */
  #refuseArrived(refusal: PawlError): boolean {
    if (this.#rests) {
      this.#refuseOwn(refusal);
      return false;
    }
    const { arrivals } = this.#options;
    const until = elapsed() + TURN_MS;
    arrivals.beginTurn();
    let some = false;
    const calls: Call[] = [];
    while (this.#takeNext(calls) !== undefined) {
      some = true;
      for (const call of calls.splice(0)) call.settle(refusal);
      if (elapsed() >= until) break;
    }
    this.#refuseOwn(refusal);
    if (arrivals.mayTakeMore) this.schedule();
    return some;
  }

  /** Returns true if it took up or performed anything. */
  #perform(): boolean {
    const time = this.time();
    if (this.#outage !== undefined && !this.#canCommit(this.#outage)) return this.#performReads(this.#outage);
    if (this.#refusal !== undefined) return false;
    const jump = this.#setting.clock.takeJump();
    if (jump !== undefined) this.#see(jump);
    if (this.#tryAll) this.#again = this.#waiters.all();
    this.#tryAll = false;
    this.#later = [];
    const begun = elapsed();
    const lasts =
      this.#options.turnMs?.() ??
      Math.min(Math.max(TURN_MS, COMMITS_PER_TURN * this.#gathering.commitMs), MAX_TURN_MS);
    const before = this.#lastTurnAt;
    const work: Work = { time, ends: this.#endsAt(time), timedOut: [], calls: [], taken: [] };
    let some = false;
    const error = this.#inTransaction(time, begun + lasts, (attempt) => {
      if (jump !== undefined && !this.#setting.readOnly) attempt.keepTime();
      this.#performEnds(attempt, work.ends);
      if (this.#waiters.someLeft) attempt.serveLeft();
      this.#performOwn(attempt, work, begun + lasts * OWN_SHARE);
      some = this.#performArrived(attempt, work, Math.max(begun + lasts, elapsed() + lasts * OWN_SHARE));
    });
    if (error === undefined) this.#alarm.wind(time);
    else if (this.#options.classify(error) === "locked") this.#stopFor(work, before);
    else if (!this.#breaks(error, work.calls)) this.#performOneByOne(work);
    this.#performLater();
    if (this.#hasMore) this.schedule();
    return some || work.calls.length > 0;
  }

  /** What a daemon that was held up has not read yet may be a renewal that was sent in time, so that is read first. */
  #endsAt(time: Reading): Work["ends"] {
    const { now } = time;
    const since = this.#lastTurnAt;
    this.#lastTurnAt = now;
    if (this.#stoodStillAt !== undefined) {
      this.#readingUntil = now + READING_MS;
      return { since: this.#stoodStillAt, until: this.#readingUntil };
    }
    if (this.#slept) return "due";
    if (this.#owedEnds !== "none") return this.#owedEnds;
    if (!this.#alarm.isDue(time)) return "none";
    const isLate = this.#alarm.lateMs > HELD_UP_MS && now >= this.#readingUntil + READING_PAUSE_MS;
    if (!isLate || since === undefined) return "due";
    this.#readingUntil = now + READING_MS;
    return { since, until: this.#readingUntil };
  }

  get #hasMore(): boolean {
    if (this.#own.length > 0 || this.#timedOut.length > 0 || this.#again.length > 0) return true;
    return this.#waiters.someLeft || this.#options.arrivals.mayTakeMore;
  }

  /** Performs what came by no connection, until this time, and the first of each kind in any case. */
  #performOwn(attempt: Attempt, { timedOut, calls }: Work, until: number): void {
    const isOver = (): boolean => elapsed() >= until || attempt.isOver;
    performSome(this.#again, isOver, (parked) => attempt.tryAgain(parked));
    let before = elapsed();
    performSome(this.#timedOut, isOver, (parked) => {
      if (parked.state === "gone") return;
      timedOut.push(parked);
      attempt.timeOut(parked);
      const now = elapsed();
      this.#options.arrivals.used(parked.call.caller.connection, now - before);
      before = now;
    });
    performSome(this.#own, isOver, (call) => {
      calls.push(call);
      attempt.perform(call);
    });
  }

  /**
   * Performs what has arrived, until this time, and the first request in any case. Returns true if there was anything.
   *
   * On a busy machine others have the processor for longer than that in the middle of a turn. Then one request at a
   * time would be performed with a commit of its own, and each turn take several times as long as its requests do. So
   * once a turn would be over, it has as much longer as the daemon did not have the processor until then.
   */
  #performArrived(attempt: Attempt, work: Work, until: number): boolean {
    const { arrivals } = this.#options;
    const { calls } = work;
    const taken: Call[] = [];
    work.taken = taken;
    const usedBefore = processorMs();
    const begunAt = elapsed();
    let end = until;
    let isProlonged = false;
    let now = begunAt;
    attempt.takeWokenMs();
    /** What answering will take of the turn. */
    let answersMs = 0;
    let some = false;
    do {
      const begun = now;
      const answerMs = this.#takeNext(taken);
      if (answerMs === undefined) return some;
      some = true;
      answersMs += answerMs;
      for (let index = 0; index < taken.length; index++) calls.push(taken[index] as Call);
      for (let index = 0; index < taken.length; index++) {
        attempt.perform(taken[index] as Call);
        if (attempt.goesOn(taken[index] as Call)) arrivals.stop();
      }
      taken.length = 0;
      now = elapsed();
      // Who made true what hundreds wait for has not asked for that much: it is charged to those who are served.
      arrivals.took(now - begun - Math.max(attempt.takeWokenMs() - MAX_WAKING_MS, 0));
      if (now + answersMs >= end && !isProlonged) {
        isProlonged = true;
        end += Math.max(now - begunAt - (processorMs() - usedBefore), 0);
      }
    } while (now + answersMs < end);
    return some;
  }

  #takeNext(calls: Call[]): number | undefined {
    this.#taken = calls;
    try {
      return this.#options.arrivals.takeNext(calls);
    } finally {
      this.#taken = undefined;
    }
  }

  /** Gives what goes on its place before the rest of its connection, or before the calls of the daemon itself. */
  #performLater(): void {
    if (this.#later.length === 0) return;
    const { arrivals } = this.#options;
    const later = this.#later.filter((call) => !arrivals.goOn(call));
    this.#later = [];
    if (later.length > 0) this.#own = [...later, ...this.#own];
    if (this.#refusal !== undefined) this.#refuseOwn(this.#refusal);
  }

  #see({ step, slept }: Jump): void {
    if (step !== undefined) this.#options.reports.stepped(step);
    if (this.#setting.readOnly) return;
    if (slept) this.#slept = true;
    // What waits by the wall clock may have to wait for another time.
    this.#alarm.setTo(AT_ONCE);
  }

  #performEnds(attempt: Attempt, ends: Work["ends"]): void {
    const { endings } = this.#options;
    if (ends === "none") return;
    if (ends !== "due") attempt.performOwn((env) => endings.goOn(ends.since, ends.until, env));
    if (this.#slept) attempt.performOwn((env) => endings.wakeUp(env, this.#setting.clock.boottime()));
    attempt.endWhatIsDue(endings);
  }

  /** Returns what made it roll back. */
  #inTransaction(time: Reading, until: number, work: (attempt: Attempt) => void, onlyReads = false): unknown {
    const attempt = new Attempt(this.#setting, this.#waiters, time, until, onlyReads);
    try {
      work(attempt);
      attempt.commit();
    } catch (error) {
      attempt.rollBack();
      return error;
    }
    if (attempt.begun) this.#finish(attempt);
    return undefined;
  }

  /** After the commit: counts, notifies, answers, and only then does what nobody waits for. */
  #finish(attempt: Attempt): void {
    const { reports, arrivals } = this.#options;
    const { nextEnding, time } = attempt;
    if (nextEnding !== undefined) {
      this.#slept = false;
      this.#stoodStillAt = undefined;
      this.#owedEnds = "none";
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
    // Who finds nothing, although something is to be ended that may be it, must not take it that there is nothing.
    const answered = attempt.answer(this.#owedEnds === "none" ? undefined : NO_SPACE);
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
  #performOneByOne({ time, ends, timedOut, calls }: Work): void {
    let unanswered = calls;
    const alone = (perform: (attempt: Attempt) => void, failed: (error: unknown) => void): void => {
      if (this.#refusal !== undefined) return;
      const error = this.#inTransaction(this.time(), elapsed() + TURN_MS, perform);
      if (error !== undefined && this.#options.classify(error) === "locked") failed(this.#lockedRefusal());
      else if (error !== undefined && !this.#breaks(error, unanswered)) failed(error);
    };

    if (ends !== "none") {
      alone(
        (attempt) => this.#performEnds(attempt, ends),
        (error) => {
          if (this.#options.classify(error) === "full") this.#owedEnds = ends;
          this.#alarm.setTo({ ...NEVER, at: time.now + RETRY_MS });
        },
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

  /** The answer to a call that failed: what there is too little of will be there again, everything else is a defect. */
  #told(error: unknown): unknown {
    const failure = this.#options.classify(error);
    if (failure === "full") return NO_SPACE;
    return failure === "starved" ? NO_DESCRIPTORS : error;
  }

  #break(error: unknown, unanswered: readonly Call[]): void {
    for (const call of unanswered) call.settle(STORAGE_FAILED);
    this.#end(STORAGE_FAILED);
    this.#options.reports.broken(error);
  }

  /** @param until when no more waits are ended; their connections close without an answer to them. */
  #end(refusal: PawlError, until = Number.POSITIVE_INFINITY): void {
    this.#refusal ??= refusal;
    this.#alarm.stop();
    clearTimeout(this.#tryingAgain);
    this.#held.refuseAll(refusal);
    this.#writerWatch?.stop();
    this.#refuseOwn(refusal);
    this.#waiters.end(
      (call) => call.settle(refusal),
      () => elapsed() >= until,
    );
  }

  #refuseOwn(refusal: PawlError): void {
    for (const call of this.#own.splice(0)) call.settle(refusal);
  }

  /** A turn found the database locked, and has performed nothing. */
  #stopFor({ time, timedOut, calls, taken }: Work, before: number | undefined): void {
    this.#stop("locked", time, before);
    const outage = this.#outage as Outage;
    this.#tryAll ||= this.#setting.readOnly;
    this.#timedOut.unshift(...timedOut);
    for (const call of calls) {
      const isTaken = taken.includes(call);
      if (!isTaken || call.writes !== false || !this.#readsCall(outage, call)) this.#hold(call, isTaken);
    }
  }

  /** Nothing can be committed from now on, until `#canCommit`. */
  #stop(cause: Outage["cause"], time: Reading, before: number | undefined, first?: () => void): void {
    const { now, retentionNow, wallMs } = time;
    // The turn may have been for what is due, and that does not end either.
    const standsAt = Math.max(before ?? now, Math.min(now, this.#alarm.dueAt(time) - 1));
    const behindMs = now - standsAt;
    const at = { now: standsAt, retentionNow: retentionNow - behindMs, wallMs: wallMs - behindMs };
    const begun = elapsed();
    this.#outage = { cause, begun, at, first, tries: 0, triesAt: 0, isTold: false };
    this.#options.arrivals.keepTimes(begun);
    this.#tryLater(this.#outage);
  }

  /** Tries whether something can be committed again; then all that waits goes on. */
  #canCommit(outage: Outage): boolean {
    if (elapsed() < outage.triesAt) return false;
    const error = this.#tryToBegin(outage);
    const failure = error === undefined ? undefined : this.#options.classify(error);
    if (failure === "locked" || (failure === "full" && outage.first !== undefined)) {
      outage.cause = failure;
      this.#tryLater(outage);
      return false;
    }
    if (error !== undefined && this.#breaks(error, [])) return true;
    this.#outage = undefined;
    if (!this.#setting.readOnly) this.#stoodStillAt = outage.at.now;
    this.#options.arrivals.keepTimes(undefined);
    if (outage.isTold) this.#options.reports.unlocked(elapsed() - outage.begun);
    this.#held.goOn();
    return true;
  }

  /** Returns what is in the way of a transaction that writes. */
  #tryToBegin({ first }: Outage): unknown {
    const attempt = new Attempt(this.#setting, this.#waiters, this.time());
    try {
      attempt.begin();
    } catch (error) {
      return error;
    } finally {
      attempt.rollBack();
    }
    try {
      first?.();
    } catch (error) {
      return error;
    }
    return undefined;
  }

  /**
   * A turn while nothing can be committed: performs what only reads, each in a transaction of its own, and keeps the
   * rest back. Returns true if it took up anything.
   */
  #performReads(outage: Outage): boolean {
    const { arrivals } = this.#options;
    for (const call of this.#own.splice(0)) this.#hold(call, false);
    for (const parked of this.#timedOut.splice(0)) {
      const failed = (error: unknown): void => this.#settleParked(parked, this.#told(error));
      if (parked.state === "gone" || this.#reads(outage, (attempt) => attempt.timeOut(parked), failed))
        continue;
      this.#holdParked(parked);
    }
    const taken: Call[] = [];
    const begun = elapsed();
    let some = false;
    for (let now = begun, answersMs = 0; now + answersMs < begun + TURN_MS; ) {
      const answerMs = this.#takeNext(taken);
      if (answerMs === undefined) break;
      some = true;
      answersMs += answerMs;
      for (const call of taken.splice(0)) {
        if (call.writes !== false || !this.#readsCall(outage, call)) this.#hold(call, true);
      }
      const before = now;
      now = elapsed();
      arrivals.took(now - before);
    }
    this.#performLater();
    this.#held.refuseOverdue(() => this.#lockedRefusal());
    if (!outage.isTold && outage.cause === "locked" && elapsed() - outage.begun >= TELLING_MS) {
      outage.isTold = true;
      this.#options.reports.locked(this.#lockHolder());
    }
    this.#wakeToTry(outage);
    if (this.#timedOut.length > 0 || arrivals.mayTakeMore) this.schedule();
    return some;
  }

  /** Performs a call that only reads; false if the database cannot even be read. */
  #readsCall(outage: Outage, call: Call): boolean {
    return this.#reads(
      outage,
      (attempt) => {
        attempt.perform(call);
        if (attempt.goesOn(call)) this.#options.arrivals.stop();
      },
      (error) => call.settle(this.#told(error)),
    );
  }

  /** Performs something that only reads, by the time that stands still. Returns false if it has to wait. */
  #reads({ at }: Outage, perform: (attempt: Attempt) => void, failed: (error: unknown) => void): boolean {
    const error = this.#inTransaction(at, Number.POSITIVE_INFINITY, perform, true);
    if (error === undefined) return true;
    if (this.#options.classify(error) === "locked") return false;
    if (!this.#breaks(error, [])) failed(error);
    return true;
  }

  /** Keeps a call until something can be committed, or refuses it where that may take long. */
  #hold(call: Call, isTaken: boolean): void {
    const { bytes = 0 } = call;
    const full = this.#outage?.cause === "full";
    const refusal = full ? NO_SPACE : this.#held.isFullFor(bytes) ? this.#lockedRefusal() : undefined;
    if (refusal !== undefined) return call.settle(refusal);
    // What is no request has no place among those that have arrived.
    const holding = isTaken && call.writes !== undefined ? this.#options.arrivals.hold(call) : undefined;
    this.#held.add({
      since: holding?.since ?? elapsed(),
      bytes,
      goOn: () => {
        if (holding === undefined) this.#own.push(call);
        else holding.goOn();
      },
      refuse: (given) => {
        holding?.drop();
        call.settle(given);
      },
    });
  }

  #holdParked(parked: Parked): void {
    const refuseIt = (given: PawlError): void => {
      if (parked.state !== "gone") this.#settleParked(parked, given);
    };
    if (this.#outage?.cause === "full") return refuseIt(NO_SPACE);
    this.#held.add({
      since: elapsed(),
      bytes: 0,
      goOn: () => void this.#timedOut.push(parked),
      refuse: refuseIt,
    });
  }

  /** Tries again soon: sooner at first, since most locks are short. */
  #tryLater(outage: Outage): void {
    outage.tries += 1;
    outage.triesAt =
      elapsed() + (outage.cause === "full" ? RETRY_MS : Math.min(outage.tries, MAX_TRY_AGAIN_MS));
    this.#wakeToTry(outage);
  }

  #wakeToTry({ triesAt }: Outage): void {
    this.#tryingAgain ??= setTimeout(() => {
      this.#tryingAgain = undefined;
      this.schedule();
    }, triesAt - elapsed()).unref();
  }

  #lockHolder(): number | null {
    return this.#options.lockHolder?.() ?? null;
  }

  #lockedRefusal(): PawlError {
    const pid = this.#lockHolder();
    const who = pid === null ? "Another program" : `The process ${pid}`;
    return refuse(
      "unavailable",
      `${who} has locked the database for longer than ${MAX_HELD_MS / 1000} s. Reads go on; writes work again once it lets go, or is ended.`,
      { reason: "database_locked", pid },
    );
  }

  #settleParked(parked: Parked, outcome: unknown): void {
    this.#waiters.remove(parked);
    parked.call.settle(outcome);
    if (this.#waiters.someLeft) this.schedule();
  }
}

/** To find out when something ends. */
const AT_ONCE = { ...NEVER, at: 0 };

const NO_SPACE = refuse(
  "unavailable",
  "There is no space left for the database. Reads go on; writes work again once space is made.",
  { reason: "disk_full" },
);

const NO_DESCRIPTORS = refuse(
  "unavailable",
  "The daemon can open no more files now. Ask again when connections have closed, or raise its limit (LimitNOFILE=).",
  { reason: "no_descriptors" },
);

const STORAGE_FAILED = refuse(
  "unavailable",
  "The storage failed and the daemon is ending. Whether this request took effect is known after its restart.",
  { reason: "storage_failed" },
);

/** Takes the first out of a list and performs it, and more of them until it is over. */
function performSome<T>(list: T[], isOver: () => boolean, perform: (each: T) => void): void {
  if (list.length === 0) return;
  let count = 0;
  try {
    do perform(list[count++] as T);
    while (count < list.length && !isOver());
  } finally {
    list.splice(0, count);
  }
}
