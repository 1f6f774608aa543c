import { randomBytes } from "node:crypto";
import type { Mode, NotificationName } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { type Clock, elapsed } from "../clock.js";
import { disconnect, expire, KEEP_TIME_MS, postpone } from "../grants/expiry.js";
import type { Operation } from "../store/statement.js";
import type { Failure, Store } from "../store/store.js";
import { type Caller, type Counter, type Effects, type Env, type Outcome, Wait } from "./operation.js";
import { type Parked, Waiters } from "./waiters.js";

/** Calls that one turn performs at most: some 50 ms of work, so that no caller waits long for the commit. */
const MAX_CALLS_PER_TURN = 4096;
/**
 * Callers that were answered together mostly ask again together, but not at the same moment: without a wait, those
 * who ask first have a commit for themselves while the others wait for it and then for their own. So a turn that has
 * fewer calls than the last one answered waits for more, for this part of the time that a commit takes at most.
 */
const GATHER_SHARE = 0.5;
/** How fast the time of a commit is forgotten: the last 10 or so count. */
const COMMIT_FORGETTING = 0.9;
/** What the daemon itself has to do and could not is tried again this much later. */
const RETRY_MS = 1000;
/**
 * While calls wait in a daemon that only reads, it looks this often whether the one that writes has committed
 * something: SQLite tells other processes of nothing. It takes microseconds, and nothing when nobody waits.
 */
const LOOK_EVERY_MS = 20;
/** Performing all that waits once more takes this part of the time at most. */
const LOOK_SHARE = 0.1;
/** `setTimeout` fires at once for longer delays; a deadline further away is looked at again then. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** One request on its way: what to perform, for whom, and where the answer goes. */
export interface Call {
  readonly caller: Caller;
  /** Makes the operation anew for each try. */
  readonly start: (env: Env) => Operation<Outcome<unknown>>;
  /** How long its condition may be waited for; 0 answers at once. */
  readonly waitMs: number;
  /** For operations made of others: a refusal undoes what was written before it. */
  readonly undoOnRefusal?: boolean;
  /** Whether nobody is there any more to get the answer; such a call is performed but never parked. */
  readonly closed: () => boolean;
  /** Called exactly once, after the commit: with the result, a refusal, or the defect that was thrown. */
  readonly settle: (outcome: unknown) => void;
}

export interface ReactorOptions {
  store: Store;
  clock: Clock;
  mode: Mode;
  sign: Env["sign"];
  identity: Env["identity"];
  retentionMs: number;
  /** Whether another process writes the database, and keeps the time of it. */
  readOnly: boolean;
  classify: (error: unknown) => Failure;
  /** Called at the start of each turn, to parse what has arrived and submit it; returns how much that was. */
  takeUp: () => number;
  /** A turn that committed: how many calls it performed, how long the commit took, whether it wrote anything. */
  onTurn: (calls: number, commitMs: number, wrote: boolean) => void;
  onRollback: (error: unknown, failure: Failure) => void;
  onCount: (counter: Counter, by: number) => void;
  onLog: (message: string, details: object) => void;
  /** Whether a connection is open, so that a grant may be bound to it. */
  isOpen: (connection: number) => boolean;
  notify: (connection: number, method: NotificationName, params: object) => void;
  /** The storage broke: what memory says may differ from what is on disk, so the process has to end. */
  onBroken: (error: unknown) => void;
}

/**
 * Performs calls in turns of the event loop: all that has arrived runs in one transaction and shares one
 * fsync, and only then is anything answered (group commit).
 */
export class Reactor {
  readonly #options: ReactorOptions;
  readonly waiters = new Waiters();
  #queue: Call[] = [];
  #timedOut: Parked[] = [];
  #scheduled = false;
  /** How many calls the last turn answered, and how long commits take of late. */
  #answered = 0;
  #commitMs = 0;
  /** Since when a turn waits for more calls. */
  #gathersSince: number | undefined;
  #moving = false;
  #stopped: PawlError | undefined;
  /** When `expire` has something to do, in the daemon's time: at first to find out, and never when it only reads. */
  #expiryAt: number;
  #expiryTimer: NodeJS.Timeout | undefined;
  /** Connections with grants that end with them. */
  readonly #holders = new Set<number>();
  #lookTimer: NodeJS.Timeout | undefined;
  /** What the database was at when all that waited had been performed with it. */
  #seenVersion: number | undefined;
  /** Whether all that waits is to be performed again, because another process may have made its condition true. */
  #tryAll = false;

  constructor(options: ReactorOptions) {
    this.#options = options;
    this.#expiryAt = options.readOnly ? Number.POSITIVE_INFINITY : 0;
  }

  /** Changes how long what has ended is kept, for what has ended already too. */
  retain(retentionMs: number): void {
    this.#options.retentionMs = retentionMs;
    if (this.#options.readOnly) return;
    this.#expiryAt = 0;
    this.schedule();
  }

  /** Queues a call for the next turn; calls are performed in the order they were submitted. */
  submit(call: Call): void {
    if (this.#stopped !== undefined) {
      call.settle(this.#stopped);
      return;
    }
    this.#queue.push(call);
    this.schedule();
  }

  /** Asks for a turn. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  /** The current time, for what is not part of a turn. */
  now(): number {
    return this.#options.clock.read().now;
  }

  /** Performs an operation of the daemon itself at once, in a transaction of its own; throws if that fails. */
  performNow(operation: (env: Env) => Operation<unknown>): void {
    const attempt = new Attempt(this.#options, this.waiters, this.now());
    try {
      attempt.begin();
      attempt.performOwn(operation);
      attempt.commit();
    } catch (error) {
      attempt.rollBack();
      throw error;
    }
    this.#finish(attempt);
  }

  /** Ends the waits of a connection that has closed, and releases what was granted for as long as it lasts. */
  disconnect(connection: number): void {
    for (const parked of this.waiters.of(connection)) this.waiters.remove(parked);
    if (this.#holders.delete(connection)) this.#releaseGrants(connection);
  }

  #releaseGrants(connection: number): void {
    this.submit({
      caller: { ...DAEMON, connection },
      start: (env) => disconnect(connection, env),
      waitMs: 0,
      closed: () => true,
      settle: (outcome) => {
        // Nobody is left to try again, and a grant may have been given for a day.
        if (!(outcome instanceof Error) || this.#stopped !== undefined) return;
        setTimeout(() => this.#releaseGrants(connection), RETRY_MS).unref();
      },
    });
  }

  /** Performs what has arrived, then ends all waits and refuses every later call with this refusal. */
  async stop(refusal: PawlError): Promise<void> {
    while (this.#stopped === undefined && (this.#turn() > 0 || this.#queue.length > 0)) {
      // The answers are made before more is taken up, so that no more are than may be unsent. Nothing else arrives
      // meanwhile.
      await new Promise<void>((resolve) => process.nextTick(resolve));
    }
    this.#end(refusal);
  }

  /** Returns how much it took up of what had arrived. */
  #turn(): number {
    this.#scheduled = false;
    const arrived = this.#options.takeUp();
    if (this.#stopped !== undefined) return arrived;
    if (this.#gathers()) this.schedule();
    else this.#performTurn();
    return arrived;
  }

  /** Whether what has arrived is to wait for more that can be expected. */
  #gathers(): boolean {
    const calls = this.#queue.length;
    if (calls > 0 && calls < this.#answered) {
      const now = elapsed();
      this.#gathersSince ??= now;
      if (now - this.#gathersSince < GATHER_SHARE * this.#commitMs) return true;
    }
    this.#gathersSince = undefined;
    return false;
  }

  #performTurn(): void {
    const calls = this.#queue.splice(0, MAX_CALLS_PER_TURN);
    const timedOut = this.#timedOut.splice(0).filter((parked) => parked.state === "waiting");
    const again = this.#tryAll ? this.waiters.everyone() : [];
    this.#tryAll = false;
    if (this.#queue.length > 0) this.schedule();

    const reading = this.#options.clock.read();
    const steppedMs = this.#options.readOnly ? 0 : reading.steppedMs;
    const now = reading.now + steppedMs;
    const expiryDue = now >= this.#expiryAt || steppedMs > 0;
    if (calls.length === 0 && timedOut.length === 0 && again.length === 0 && !expiryDue) {
      this.#setExpiryTimer(now);
      return;
    }

    const attempt = new Attempt(this.#options, this.waiters, now);
    try {
      attempt.begin();
      if (steppedMs > 0) attempt.postpone(steppedMs);
      if (expiryDue) attempt.expire();
      for (const parked of again) attempt.tryAgain(parked);
      for (const parked of timedOut) attempt.timeOut(parked);
      for (const call of calls) attempt.perform(call);
      attempt.commit();
    } catch (error) {
      attempt.rollBack();
      if (this.#isBroken(error)) return this.#break(error, calls);
      // What waits is looked at again with the next change.
      return this.#oneByOne(calls, timedOut, { now: reading.now, steppedMs });
    }
    if (steppedMs > 0) this.#options.clock.follow(steppedMs);
    this.#finish(attempt);
    this.#setExpiryTimer(now);
  }

  /** Something threw: each part of the turn is performed again in a transaction of its own, so only the one at fault fails. */
  #oneByOne(calls: Call[], timedOut: Parked[], reading: { now: number; steppedMs: number }): void {
    let now = reading.now;
    const alone = (work: (attempt: Attempt) => void): unknown => {
      const attempt = new Attempt(this.#options, this.waiters, now);
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
    };

    if (reading.steppedMs > 0) {
      const error = alone((attempt) => attempt.postpone(reading.steppedMs));
      if (error === undefined) {
        this.#options.clock.follow(reading.steppedMs);
        now += reading.steppedMs;
      } else if (this.#isBroken(error)) return this.#break(error, calls);
    }
    if (now >= this.#expiryAt || reading.steppedMs > 0) {
      const error = alone((attempt) => attempt.expire());
      if (this.#isBroken(error)) return this.#break(error, calls);
      if (error !== undefined) this.#expiryAt = now + RETRY_MS;
    }
    for (const parked of timedOut) {
      const error = alone((attempt) => attempt.timeOut(parked));
      if (error === undefined) continue;
      if (this.#isBroken(error)) return this.#break(error, calls);
      this.waiters.remove(parked);
      parked.call.settle(this.#blame(error));
    }
    for (const [index, call] of calls.entries()) {
      const error = alone((attempt) => attempt.perform(call));
      if (error === undefined) continue;
      if (this.#isBroken(error)) return this.#break(error, calls.slice(index));
      call.settle(this.#blame(error));
      if (this.#options.classify(error) === "corrupt") return this.#break(error, calls.slice(index + 1));
    }
    this.#setExpiryTimer(now);
  }

  /** Reports what rolled a transaction back, and says whether the storage is broken. */
  #isBroken(error: unknown): boolean {
    if (error === undefined) return false;
    const failure = this.#options.classify(error);
    this.#options.onRollback(error, failure);
    return failure === "broken";
  }

  /** What a caller is told about an error: no space is a refusal that will pass, everything else a defect. */
  #blame(error: unknown): unknown {
    if (this.#options.classify(error) !== "full") return error;
    return refuse(
      "unavailable",
      "There is no space left for the database. Reads go on; writes work again once space is made.",
      { reason: "disk_full" },
    );
  }

  #break(error: unknown, unanswered: Call[]): void {
    this.#options.store.dropUncommitted();
    const refusal = refuse(
      "unavailable",
      "The storage failed and the daemon is ending. Whether this request took effect is known after its restart.",
      { reason: "storage_failed" },
    );
    for (const call of unanswered) call.settle(refusal);
    this.#end(refusal);
    this.#options.onBroken(error);
  }

  #end(refusal: PawlError): void {
    this.#stopped ??= refusal;
    clearTimeout(this.#expiryTimer);
    clearTimeout(this.#lookTimer);
    for (const call of this.#queue.splice(0)) call.settle(refusal);
    for (const parked of this.waiters.everyone()) {
      this.waiters.remove(parked);
      parked.call.settle(refusal);
    }
  }

  /** After the commit: parks, counts, notifies, answers. */
  #finish(attempt: Attempt): void {
    if (attempt.nextExpiryAt !== undefined) this.#expiryAt = attempt.nextExpiryAt;
    this.#expiryAt = Math.min(this.#expiryAt, attempt.earliestDeadline);
    if (attempt.wrote) this.#expiryAt = Math.min(this.#expiryAt, attempt.now + KEEP_TIME_MS);
    for (const parked of attempt.touched) {
      if (parked.state === "serving") this.waiters.remove(parked);
      else if (parked.state === "fresh") this.#startWaiting(parked);
    }
    for (const [counter, by] of attempt.counts) this.#options.onCount(counter, by);
    for (const connection of attempt.holders) {
      // It may have closed between sending the request and the turn that granted something.
      if (this.#options.isOpen(connection)) this.#holders.add(connection);
      else this.#releaseGrants(connection);
    }
    this.#answered = attempt.answers.length;
    if (attempt.wrote) {
      this.#commitMs = COMMIT_FORGETTING * this.#commitMs + (1 - COMMIT_FORGETTING) * attempt.commitMs;
    }
    for (const action of attempt.actions) action();
    for (const { call, outcome } of attempt.answers) call.settle(outcome);
    this.#options.onTurn(attempt.performed, attempt.commitMs, attempt.wrote);
    if (this.#options.store.hasMuchToMove) this.#moveLogSoon();
  }

  /** After the answers have gone out, and not within a turn, so that nobody waits for both. */
  #moveLogSoon(): void {
    if (this.#moving) return;
    this.#moving = true;
    setImmediate(() => {
      this.#moving = false;
      if (this.#stopped === undefined) this.#options.store.moveLog();
    });
  }

  #startWaiting(parked: Parked): void {
    parked.state = "waiting";
    parked.timer = setTimeout(() => {
      this.#timedOut.push(parked);
      this.schedule();
    }, parked.call.waitMs);
    // A wait by itself is no reason for the process to live on: its connection is.
    parked.timer.unref();
    if (this.#options.readOnly && this.#lookTimer === undefined) this.#lookAfter(LOOK_EVERY_MS);
  }

  #lookAfter(ms: number): void {
    this.#lookTimer = setTimeout(() => this.#look(), ms);
    this.#lookTimer.unref();
  }

  /** In a daemon that only reads: has what waits performed again if another process has committed something. */
  #look(): void {
    this.#lookTimer = undefined;
    if (this.waiters.size === 0 || this.#stopped !== undefined) return;
    const version = this.#versionNow();
    const start = elapsed();
    if (version === undefined || version !== this.#seenVersion) {
      this.#seenVersion = version;
      this.#tryAll = true;
      this.#turn();
    }
    if (this.#stopped === undefined)
      this.#lookAfter(Math.max(LOOK_EVERY_MS, (elapsed() - start) / LOOK_SHARE));
  }

  /** Undefined when it cannot be read: the turn finds out what that means. */
  #versionNow(): number | undefined {
    try {
      return this.#options.store.dataVersion();
    } catch {
      return undefined;
    }
  }

  #setExpiryTimer(now: number): void {
    clearTimeout(this.#expiryTimer);
    if (this.#expiryAt === Number.POSITIVE_INFINITY) return;
    const delay = Math.min(Math.max(this.#expiryAt - now, 0), MAX_TIMER_MS);
    this.#expiryTimer = setTimeout(() => this.schedule(), delay);
    this.#expiryTimer.unref();
  }
}

/** One try at a turn, or at a part of it: everything that has to be forgotten if it is rolled back. */
class Attempt {
  readonly #options: ReactorOptions;
  readonly #waiters: Waiters;
  #now: number;
  readonly #effects: AttemptEffects;
  readonly #waiting: Env["waiting"];
  readonly #wallMs: Env["wallMs"];
  readonly answers: { call: Call; outcome: unknown }[] = [];
  /** Waiters that were parked or served. */
  readonly touched: Parked[] = [];
  nextExpiryAt: number | undefined;
  performed = 0;
  commitMs = 0;
  wrote = false;

  constructor(options: ReactorOptions, waiters: Waiters, now: number) {
    this.#options = options;
    this.#waiters = waiters;
    this.#now = now;
    this.#effects = new AttemptEffects(options);
    this.#wallMs = () => options.clock.wallMs();
    this.#waiting = options.readOnly ? () => null : (key) => waiters.count(key);
  }

  begin(): void {
    const { store, readOnly } = this.#options;
    store.begin();
    // What this transaction sees was written at a time of the process that writes, and is not of the future.
    if (readOnly) this.#now = Math.max(this.#now, store.lastTime());
  }

  perform(call: Call): void {
    const outcome = this.#try(call, call.waitMs > 0 && !call.closed());
    if (outcome instanceof Wait) this.#park(call, outcome);
    else this.answers.push({ call, outcome });
    this.#serveWoken();
  }

  timeOut(parked: Parked): void {
    // An earlier part of this turn may have served it.
    if (parked.state !== "waiting") return;
    const outcome = this.#try(parked.call, false);
    this.#serve(parked, outcome);
    this.#serveWoken();
  }

  /** Another process may have made its condition true. */
  tryAgain(parked: Parked): void {
    if (parked.state !== "waiting") return;
    const outcome = this.#try(parked.call, true);
    if (!(outcome instanceof Wait)) this.#serve(parked, outcome);
  }

  expire(): void {
    this.nextExpiryAt = this.#options.store.perform(expire(this.#env(DAEMON, false)));
    this.#serveWoken();
  }

  postpone(byMs: number): void {
    this.#options.store.perform(postpone(byMs));
  }

  performOwn(operation: (env: Env) => Operation<unknown>): void {
    this.#options.store.perform(operation(this.#env(DAEMON, false)));
    this.#serveWoken();
  }

  commit(): void {
    const start = elapsed();
    this.wrote = this.#options.store.commit(this.#now);
    this.commitMs = elapsed() - start;
  }

  rollBack(): void {
    this.#options.store.rollback();
    for (const parked of this.touched) {
      if (parked.state === "fresh") this.#waiters.remove(parked);
      else if (parked.state === "serving") parked.state = "waiting";
    }
  }

  get now(): number {
    return this.#now;
  }
  get earliestDeadline(): number {
    return this.#effects.earliestDeadline;
  }
  get counts(): Iterable<[Counter, number]> {
    return this.#effects.counts;
  }
  get actions(): Iterable<() => void> {
    return this.#effects.actions;
  }
  get holders(): Iterable<number> {
    return this.#effects.holders;
  }

  #try(call: Call, mayWait: boolean): unknown {
    const { store } = this.#options;
    const mark = this.#effects.mark();
    const operation = call.start(this.#env(call.caller, mayWait));
    const outcome = call.undoOnRefusal ? store.performOrUndo(operation) : store.perform(operation);
    if (outcome instanceof PawlError) this.#effects.forgetSince(mark);
    this.performed += 1;
    return outcome;
  }

  #env(caller: Caller, mayWait: boolean): Env {
    return {
      now: this.#now,
      wallMs: this.#wallMs,
      mode: this.#options.mode,
      caller,
      mayWait,
      effects: this.#effects,
      waiting: this.#waiting,
      random: pooledRandom,
      sign: this.#options.sign,
      identity: this.#options.identity,
      retentionMs: this.#options.retentionMs,
    };
  }

  #park(call: Call, { key, sort }: Wait): void {
    const parked: Parked = { call, key, sort, state: "fresh", timer: undefined };
    this.#waiters.park(parked);
    this.touched.push(parked);
  }

  #serve(parked: Parked, outcome: unknown): void {
    if (parked.state === "fresh") {
      // Parked and served in one turn: there is nothing to go back to but not being parked.
      this.#waiters.remove(parked);
    } else {
      parked.state = "serving";
      this.touched.push(parked);
    }
    this.answers.push({ call: parked.call, outcome });
  }

  /** Performs the calls whose conditions the last operation made true; theirs may make others true. */
  #serveWoken(): void {
    for (let key = this.#effects.nextWoken(); key !== undefined; key = this.#effects.nextWoken()) {
      const unmet = new Set<string>();
      for (const parked of this.#waiters.under(key)) {
        if (parked.state === "serving" || unmet.has(parked.sort)) continue;
        const outcome = this.#try(parked.call, true);
        if (outcome instanceof Wait) unmet.add(parked.sort);
        else this.#serve(parked, outcome);
      }
    }
  }
}

const DAEMON: Caller = { connection: 0, pid: process.pid, uid: null, gid: null };

/** Random bytes are taken so many at once, because asking takes 3 microseconds however few they are. */
const RANDOM_POOL_BYTES = 4096;
let randomPool: Buffer = Buffer.alloc(0);
let randomTaken = 0;

function pooledRandom(bytes: number): Buffer {
  if (randomPool.length - randomTaken < bytes) {
    // A new one each time: parts of the last may still be in use.
    randomPool = randomBytes(Math.max(RANDOM_POOL_BYTES, bytes));
    randomTaken = 0;
  }
  randomTaken += bytes;
  return randomPool.subarray(randomTaken - bytes, randomTaken);
}

/** Collects the effects of the operations of an attempt. */
class AttemptEffects implements Effects {
  readonly #options: ReactorOptions;
  readonly #woken: string[] = [];
  #wokenTaken = 0;
  readonly counts: [Counter, number][] = [];
  readonly actions: (() => void)[] = [];
  /** One too many only costs one look when that connection closes. */
  readonly holders: number[] = [];
  earliestDeadline = Number.POSITIVE_INFINITY;

  constructor(options: ReactorOptions) {
    this.#options = options;
  }

  wake(key: string): void {
    this.#woken.push(key);
  }
  deadline(at: number): void {
    if (at < this.earliestDeadline) this.earliestDeadline = at;
  }
  count(counter: Counter, by: number): void {
    this.counts.push([counter, by]);
  }
  notify(connection: number, method: NotificationName, params: object): void {
    this.actions.push(() => this.#options.notify(connection, method, params));
  }
  log(message: string, details: object): void {
    this.actions.push(() => this.#options.onLog(message, details));
  }
  afterCommit(action: () => void): void {
    this.actions.push(action);
  }
  bind(connection: number): void {
    this.holders.push(connection);
  }

  nextWoken(): string | undefined {
    return this.#wokenTaken < this.#woken.length ? this.#woken[this.#wokenTaken++] : undefined;
  }

  mark(): { woken: number; counts: number; actions: number } {
    return { woken: this.#woken.length, counts: this.counts.length, actions: this.actions.length };
  }
  /** Forgets what a refused operation did. A deadline too early only costs one look. */
  forgetSince(mark: { woken: number; counts: number; actions: number }): void {
    this.#woken.length = mark.woken;
    this.counts.length = mark.counts;
    this.actions.length = mark.actions;
  }
}
