import { refuse } from "@pawl/protocol/errors";
import { elapsed } from "../clock.js";
import type { Coming } from "../domain/queue/ahead.js";
import type { Operation } from "../store/statement.js";
import { type Env, EVERYTHING } from "../turns/operation.js";
import { ALL, again, type Parked, type Rest } from "../turns/waiters.js";
import { classifyShared } from "./failure.js";
import type { ClockStep, PlaceClock } from "./place-clock.js";
import type { Session } from "./session.js";
import { Transaction } from "./transaction.js";
import { ReachesFurther, type ScopedCall, SharedTurn, type TurnSetting, Withdrawn } from "./turn.js";

/** Calls of one line that a turn performs: while it lasts others wait for its locks. */
const MAX_ITEMS_PER_TURN = 64;
/** A transaction that has so many takes no further line. */
const MAX_ITEMS_PER_TRANSACTION = 256;
/**
 * Transactions that are under way at the same time. Of more than one, each would have less to share; so a further one
 * begins where none has begun for longer than they take, as one that waits for the locks of another daemon.
 */
const MAX_TRANSACTIONS = 4;
/** How many times as long as usual that is, and its bounds. */
const PATIENCE = 4;
const MIN_PATIENCE_MS = 20;
const MAX_PATIENCE_MS = 250;
/** Of what is usual, the part that the last transaction says. */
const LAST_PART = 1 / 8;
/** So many locks are taken for what may yet come. */
const MAX_SCOPES_TO_COME = 64;
/** Of a turn that has the whole place. */
const MAX_ITEMS_OF_ALL = 16;
/** A turn that was undone for the sake of others is made again so often. */
const MAX_TRIES = 8;
/** A wait that is over is tried again so much later, while another turn has it. */
const TIMEOUT_AGAIN_MS = 5;

/** What was left to calls at other daemons is theirs for so long. */
const LEFT_MS = 20;

/** A session of the pool, and how many turns that wrote it has begun. */
export interface Slot {
  /** The connection to the place that its session belongs to. */
  readonly life: object;
  readonly daemon: number;
  readonly number: number;
  readonly session: Session;
  turn: number;
}

/** One thing that a turn does. */
export interface Item {
  readonly scopes: readonly string[];
  /** True if something of it may be undone, so that nothing else is written beside it in the transaction. */
  readonly isAlone: boolean;
  /** What it asks for, where it is a call. */
  readonly coming?: Coming | undefined;
  perform(turn: SharedTurn): Promise<void>;
  /** It was not done, and nothing is left of it. */
  failed(error: unknown): void;
}

/** The place, as its lines know it. */
export interface LinesPlace {
  readonly setting: TurnSetting;
  readonly channel: string;
  readonly clock: PlaceClock;
  /** Rejects with a refusal where the database is away. */
  takeSlot(): Promise<Slot>;
  giveSlot(slot: Slot): void;
  /** Nobody heard what a commit has come to: finds out. Rejects with a refusal where that cannot be. */
  resolve(slot: Slot): Promise<boolean>;
  /** What callers are told of an error of the database. */
  toldOf(error: unknown): unknown;
  /** The connection to the database was lost. Gives the refusal of what was not done for that. */
  lost(error: unknown, slot: Slot): Error;
  /** The database has answered what was sent then, in milliseconds of `elapsed`. */
  heardSince(sentAt: number): void;
  /** The server's clock was set, which a turn has put right. */
  clockWasSet(step: ClockStep): void;
  /** A turn was committed. */
  committed(turn: SharedTurn): void;
  /** Has other lines perform the calls again that wait under these keys, which other daemons know or are to be told. */
  wake(keys: Iterable<string>, areKnown: boolean): void;
  /** The same of calls that a turn has left, of which the other daemons know. */
  wakeLeft(left: ReadonlyMap<string, Rest>): void;
  /** Has the line of a call go on with its next step. */
  goOn(call: ScopedCall): void;
  /** A call has waited for as long as it may. */
  timeOut(parked: Parked): void;
  /** Hands something to the line of what uses rows of any scope. */
  reachFurther(item: Item): void;
}

/** The calls that use the same scopes, in the order they came: one turn at a time takes what has arrived. */
export class CallLine {
  readonly #turns: SideBySide;
  /** True for the line of what uses rows of any scope. */
  readonly hasAll: boolean;
  readonly #items: Item[] = [];
  readonly #woken = new Map<string, Rest>();
  readonly #wokenHere = new Map<string, Rest>();
  /** Turns that are under way: one is performed, and the next of the same session may have begun. */
  #underWay = 0;
  readonly #onIdle: () => void;

  constructor(turns: SideBySide, hasAll: boolean, onIdle: () => void) {
    this.#turns = turns;
    this.hasAll = hasAll;
    this.#onIdle = onIdle;
  }

  get waiting(): number {
    return this.#items.length;
  }

  /** Takes what one turn performs, which is then under way. */
  take(): readonly Item[] {
    this.#underWay += 1;
    return this.#items.splice(0, this.hasAll ? MAX_ITEMS_OF_ALL : MAX_ITEMS_PER_TURN);
  }

  /** Offers what comes first, one after the other, as long as that is taken. True if some was. */
  offer(take: (item: Item) => boolean): boolean {
    let taken = 0;
    while (taken < this.#items.length && take(this.#items[taken] as Item)) taken += 1;
    this.#items.splice(0, taken);
    return taken > 0;
  }

  /** A turn that has begun for others performs what it has offered. */
  joined(): void {
    this.#underWay += 1;
  }

  /** What was taken is done. */
  done(): void {
    this.#underWay -= 1;
    if (this.#underWay > 0) return;
    if (this.#items.length > 0) this.#turns.add(this);
    else this.#onIdle();
  }

  submit(item: Item): void {
    this.#items.push(item);
    if (this.#underWay === 0) this.#turns.add(this);
  }

  /** A step that follows one that is done, before all that has come since. */
  goOn(call: ScopedCall): void {
    this.#items.unshift(itemOf(call));
    if (this.#underWay === 0) this.#turns.add(this);
  }

  perform(call: ScopedCall): void {
    this.submit(itemOf(call));
  }

  timeOut(parked: Parked): void {
    const call = parked.call as ScopedCall;
    this.submit({
      scopes: call.scopes,
      isAlone: call.mayBeUndone === true,
      perform: async (turn) => {
        if (await turn.timeOut(parked)) return;
        setTimeout(() => this.#turns.timeOut(parked), TIMEOUT_AGAIN_MS).unref();
      },
      failed: (error) => {
        if (parked.state !== "gone") this.#turns.endWait(parked, error);
      },
    });
  }

  /** Performs a call again that waits, whatever may have made its condition true. */
  tryAgain(parked: Parked): void {
    const call = parked.call as ScopedCall;
    this.submit({
      scopes: call.scopes,
      isAlone: call.mayBeUndone === true,
      perform: (turn) => turn.tryAgain(parked),
      failed: () => {},
    });
  }

  /**
   * @param scopes of the calls that wait under the key.
   * @param isAlone true if something of one may be undone.
   * @param rest of these calls, where the other daemons know that it was woken; undefined if they are to be told.
   */
  wake(key: string, scopes: readonly string[], isAlone: boolean, rest: Rest | undefined): void {
    const woken = rest === undefined ? this.#woken : this.#wokenHere;
    const before = woken.get(key);
    const left = rest ?? ALL;
    woken.set(key, before === undefined ? left : again(before === ALL ? left : before));
    if (before !== undefined) return;
    this.submit({
      scopes,
      isAlone,
      perform: (turn) => {
        const now = woken.get(key) ?? ALL;
        woken.delete(key);
        return rest === undefined ? turn.wake(key) : turn.serveLeft(key, now);
      },
      // All that waits is tried again once the database is there again.
      failed: () => void woken.delete(key),
    });
  }

  performOwn<T>(start: (env: Env) => Operation<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let result: T;
      this.submit({
        scopes: [EVERYTHING],
        isAlone: true,
        perform: async (turn) => {
          result = await turn.performOwn(start);
          turn.afterCommit(() => resolve(result));
        },
        failed: reject,
      });
    });
  }
}

function itemOf(call: ScopedCall): Item {
  return {
    scopes: call.scopes,
    isAlone: call.mayBeUndone === true,
    coming: call.coming,
    perform: (turn) => turn.perform(call),
    failed: (error) => call.settle(error),
  };
}

/** The turns of a daemon at a place: each takes the lines that wait for one. */
export class SideBySide {
  readonly #place: LinesPlace;
  readonly #waiting = new Set<CallLine>();
  readonly #runs = new Set<Run>();
  readonly #awaitingEnd: (() => void)[] = [];
  #isScheduled = false;
  /** Runs when all that are under way have been for longer than usual. */
  #impatience: NodeJS.Timeout | undefined;
  /** Transactions that have begun and are not over. */
  readonly #begun = new Set<Begun>();
  /** Why nothing is committed any more. */
  #refusal: Error | undefined;
  /** True if the last transaction had to wait for locks that other daemons had, and the scopes that it was about. */
  #hadToWait = false;
  #lastScopes: ReadonlySet<string> = new Set();
  /** How long transactions take. */
  #usualMs = MIN_PATIENCE_MS / PATIENCE;

  constructor(place: LinesPlace) {
    this.#place = place;
  }

  get isIdle(): boolean {
    return this.#runs.size === 0 && this.#waiting.size === 0;
  }

  /** Resolves once nothing is under way and nothing waits. */
  async ended(): Promise<void> {
    if (!this.isIdle) await new Promise<void>((resolve) => this.#awaitingEnd.push(resolve));
  }

  /**
   * Refuses from now on what waits, and what has begun but for the commits that have gone out. Locks of others are not
   * waited for, but behind such a commit.
   */
  refuse(refusal: Error): void {
    this.#refusal = refusal;
    const committing = new Set([...this.#begun].filter(isCommitting).map(({ slot }) => slot.session));
    for (const { slot } of this.#begun) if (!committing.has(slot.session)) slot.session.destroy();
  }

  /** A line has something to be performed. */
  add(line: CallLine): void {
    this.#waiting.add(line);
    this.#schedule();
  }

  timeOut(parked: Parked): void {
    this.#place.timeOut(parked);
  }

  endWait(parked: Parked, outcome: unknown): void {
    const { waiters } = this.#place.setting;
    waiters.remove(parked);
    parked.call.settle(outcome);
    this.#place.wake(waiters.takeLeft(), false);
  }

  /** What waits is taken by the next transaction that follows one under way, or begins now if none is to end soon. */
  #schedule(): void {
    if (this.#isScheduled || this.#waiting.size === 0 || this.#runs.size >= MAX_TRANSACTIONS) return;
    const leftMs = this.#patienceLeftMs();
    if (leftMs > 0) {
      this.#impatience ??= setTimeout(() => {
        this.#impatience = undefined;
        this.#schedule();
      }, Math.ceil(leftMs)).unref();
      return;
    }
    this.#isScheduled = true;
    // What arrives in the same turn of the event loop shares a transaction.
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#waiting.size > 0) void this.#run();
    });
  }

  /**
   * How long it takes at most until all transactions have been under way for longer than usual.
   *
   * @param last only those are looked at that came before it.
   */
  #patienceLeftMs(last?: Run): number {
    const patienceMs = Math.min(Math.max(PATIENCE * this.#usualMs, MIN_PATIENCE_MS), MAX_PATIENCE_MS);
    let leftMs = 0;
    for (const run of this.#runs) {
      if (run === last) break;
      leftMs = Math.max(leftMs, run.sinceMs + patienceMs - elapsed());
    }
    return leftMs;
  }

  /** All lines that wait, as far as one transaction may take them. */
  #takeLines(): CallLine[] {
    const lines: CallLine[] = [];
    let items = 0;
    for (const line of this.#waiting) {
      if (line.hasAll && lines.length > 0) continue;
      this.#waiting.delete(line);
      lines.push(line);
      items += line.waiting;
      if (line.hasAll || items >= MAX_ITEMS_PER_TRANSACTION) break;
    }
    return lines;
  }

  async #run(): Promise<void> {
    const run: Run = { sinceMs: elapsed() };
    this.#runs.add(run);
    let share: Share | undefined = new Share(run, this.#takeLines());
    while (share !== undefined) {
      await this.#perform(share, share.items);
      for (const line of share.lines) line.done();
      share = share.takeFollowing();
    }
    this.#runs.delete(run);
    this.#schedule();
    if (!this.isIdle) return;
    for (const resolve of this.#awaitingEnd.splice(0)) resolve();
  }

  /**
   * The commit of a share has gone out: on the same session, behind it, begins the transaction of what has arrived
   * since, also in its own lines, unless one that came before takes it soon.
   */
  #follow(share: Share, slot: Slot): void {
    const { run } = share;
    this.#usualMs += (Math.min(elapsed() - run.sinceMs, MAX_PATIENCE_MS) - this.#usualMs) * LAST_PART;
    if (this.#refusal !== undefined || this.#patienceLeftMs(run) > 0) return;
    for (const line of share.lines) if (line.waiting > 0) this.#waiting.add(line);
    if (this.#waiting.size === 0) return;
    const following = new Share(run, this.#takeLines());
    // The rest of these is performed on this session, too.
    for (const line of share.lines) this.#waiting.delete(line);
    run.sinceMs = elapsed();
    following.begun = this.#begin(slot, following, following.items);
    share.following = following;
  }

  /** Performs items in one transaction; in halves, down to each alone, where one is in the way. Never rejects. */
  async #perform(share: Share, items: readonly Item[]): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const error = await this.#try(share, items);
      if (error === undefined) return;
      if (error instanceof Undone || error instanceof Withdrawn) {
        tries = 0;
        continue;
      }
      if (error instanceof ReachesFurther || classifyShared(error) !== "retry") {
        return await this.#separate(share, items, error);
      }
      if (tries < MAX_TRIES) continue;
      const refusal = refuse(
        "unavailable",
        "The database of these shared names has undone the transaction for the sake of others several times. Ask again.",
        { reason: "shared_unavailable" },
      );
      for (const item of items) item.failed(refusal);
      return;
    }
  }

  async #separate(share: Share, items: readonly Item[], error: unknown): Promise<void> {
    const [item, ...others] = items as [Item, ...Item[]];
    if (error instanceof NotDone) {
      for (const each of items) each.failed(error.refusal);
    } else if (others.length > 0) {
      const half = items.length >> 1;
      await this.#perform(share, items.slice(0, half));
      await this.#perform(share, items.slice(half));
    } else if (error instanceof ReachesFurther && !share.hasAll) this.#place.reachFurther(item);
    else item.failed(this.#place.toldOf(error));
  }

  /** Returns why nothing of it was done. */
  async #try(share: Share, items: readonly Item[]): Promise<unknown> {
    let begun = share.begun;
    share.begun = undefined;
    if (begun === undefined) {
      if (this.#refusal !== undefined) return new NotDone(this.#refusal);
      try {
        begun = this.#begin(await this.#place.takeSlot(), share, items);
      } catch (error) {
        return new NotDone(error as Error);
      }
    }
    const error = await this.#tryOn(begun, share);
    this.#begun.delete(begun);
    // Otherwise what follows has it.
    if (share.following?.begun === undefined) this.#place.giveSlot(begun.slot);
    return error;
  }

  #begin(slot: Slot, share: Share, items: readonly Item[]): Begun {
    const { setting } = this.#place;
    const works: Work[] = share.hasAll ? [{ scopes: undefined, items: [...items] }] : worksOf(items);
    if (this.#hadToWait && mayBeJoined(share, items)) works.push(...this.#worksToCome(works));
    const isAlone = works.length === 1;
    const turns = works.map(({ scopes }) => new SharedTurn(setting, slot.session, { scopes, isAlone }));
    const { daemon } = slot;
    const { clock } = this.#place;
    const transaction = new Transaction(slot.session, turns, { daemon, tables: setting.tables, clock });
    const scopes = share.hasAll ? undefined : works.flatMap(({ scopes: own }) => [...(own ?? [])]);
    const coming = works.map((work) => work.items.flatMap((item) => item.coming ?? []));
    const opened = transaction.begin(setting.lockPrefix, scopes, coming);
    // Whoever performs it learns of a failure, a moment later.
    opened.catch(() => {});
    const begun = { slot, items, works, turns, transaction, opened, isCommitting: false };
    this.#begun.add(begun);
    return begun;
  }

  /**
   * Where others have the locks it takes a while to get them. So a transaction takes those, too, of what the last one
   * was about, whose callers will have asked for more by then.
   */
  #worksToCome(works: readonly Work[]): Work[] {
    const have = new Set(works.flatMap(({ scopes }) => [...(scopes ?? [])]));
    const others = [...this.#lastScopes].filter((scope) => !have.has(scope));
    return others.slice(0, MAX_SCOPES_TO_COME).map((scope) => ({ scopes: new Set([scope]), items: [] }));
  }

  /**
   * Has a transaction perform what has arrived while it waited for its locks, as far as it has those of that. What
   * comes later waits for the next one.
   */
  async #join({ items, works, turns, transaction }: Begun, share: Share): Promise<void> {
    if (!mayBeJoined(share, items)) return;
    this.#hadToWait = transaction.hadToWait;
    const byScope = new Map<string, number>();
    for (const [at, { scopes }] of works.entries()) for (const scope of scopes ?? []) byScope.set(scope, at);
    const coming = new Map<SharedTurn, Coming[]>();
    const join = (item: Item): boolean => {
      const at = byScope.get(item.scopes[0] ?? "");
      const work = at === undefined ? undefined : works[at];
      if (work === undefined || item.isAlone || !item.scopes.every((scope) => work.scopes?.has(scope)))
        return false;
      if (work.items.length >= MAX_ITEMS_PER_TURN || share.items.length >= MAX_ITEMS_PER_TRANSACTION)
        return false;
      share.items.push(item);
      work.items.push(item);
      const turn = turns[at as number] as SharedTurn;
      coming.set(turn, [...(coming.get(turn) ?? []), ...(item.coming === undefined ? [] : [item.coming])]);
      return true;
    };
    for (const line of share.lines) line.offer(join);
    for (const line of this.#waiting) {
      if (!line.offer(join)) continue;
      this.#waiting.delete(line);
      line.joined();
      share.lines.push(line);
    }
    this.#lastScopes = new Set(share.items.flatMap(({ scopes }) => scopes));
    if (coming.size > 0) await transaction.join(coming);
  }

  async #tryOn(begun: Begun, share: Share): Promise<unknown> {
    const { setting, channel } = this.#place;
    const { slot, items, works, turns, transaction, opened } = begun;
    const { daemon, number } = slot;
    try {
      await opened;
      await this.#join(begun, share);
      await allSettled(works.map((work, index) => performAll(work.items, turns[index] as SharedTurn)));
      if (this.#refusal !== undefined) throw this.#refusal;
    } catch (error) {
      return await this.#undo(slot, turns, error);
    }
    const sentAt = elapsed();
    begun.isCommitting = true;
    slot.turn += 1;
    try {
      await transaction.commit({ daemon, slot: number, turn: slot.turn }, channel, () => {
        // What follows a part of it would come before the rest.
        if (items === share.items && share.following === undefined) this.#follow(share, slot);
      });
    } catch (error) {
      // What follows comes after all that was to be done before: it begins again then.
      const following = share.following?.begun;
      if (share.following !== undefined) share.following.begun = undefined;
      if (following !== undefined) this.#begun.delete(following);
      await following?.opened.catch(() => {});
      if (classifyShared(error) !== "lost") return await this.#undo(slot, turns, error);
      this.#place.lost(error, slot);
      let isDone: boolean;
      try {
        isDone = await this.#place.resolve(slot);
      } catch (refusal) {
        for (const turn of turns) turn.rolledBack();
        return new NotDone(refusal as Error);
      }
      if (!isDone) {
        for (const turn of turns) turn.rolledBack();
        return new Undone();
      }
    }
    this.#place.heardSince(sentAt);
    if (transaction.clockStep !== undefined) this.#place.clockWasSet(transaction.clockStep);
    // What was granted by a daemon that others have taken for dead meanwhile is not sure to be held.
    const isDead = daemon !== setting.daemon();
    for (const turn of turns) this.#finish(turn, isDead ? Number.POSITIVE_INFINITY : transaction.ageMs);
    return undefined;
  }

  async #undo(slot: Slot, turns: readonly SharedTurn[], error: unknown): Promise<unknown> {
    await slot.session.rollback();
    for (const turn of turns) turn.rolledBack();
    const refusal = this.#refusal;
    if (refusal !== undefined && error === refusal) return new NotDone(refusal);
    if (classifyShared(error) !== "lost") return error;
    return new NotDone(this.#place.lost(error, slot));
  }

  #finish(turn: SharedTurn, ageMs: number): void {
    turn.committed();
    for (const call of [...turn.later].reverse()) this.#place.goOn(call);
    this.#place.committed(turn);
    turn.answer(ageMs);
    // The others were told of all that it has woken, or have told of it.
    this.#place.wakeLeft(turn.wokenElsewhere);
    const { wokenLater } = turn;
    if (wokenLater.size === 0) return;
    setTimeout(() => {
      for (const key of wokenLater) this.#place.setting.leftBefore.add(key);
      this.#place.wake(wokenLater, true);
    }, LEFT_MS).unref();
  }
}

/** Transactions of one session, each begun with the commit of the one before. */
interface Run {
  /** The beginning of its last one, in milliseconds of `elapsed`. */
  sinceMs: number;
}

/** What some lines have for one transaction. */
class Share {
  readonly run: Run;
  readonly lines: CallLine[];
  readonly items: Item[];
  readonly hasAll: boolean;
  /** The transaction that has begun for all of it; undefined if none has, or if it was undone. */
  begun: Begun | undefined;
  /** What is performed next on the same session. */
  following: Share | undefined;

  constructor(run: Run, lines: CallLine[]) {
    this.run = run;
    this.lines = lines;
    this.hasAll = lines.some((line) => line.hasAll);
    this.items = lines.flatMap((line) => line.take());
  }

  /**
   * What is performed next; it is no longer followed by that. Otherwise one share that a collection has found in use,
   * and so made old, would have all after it become old: each is in use for what the one before it says, though that is
   * garbage.
   */
  takeFollowing(): Share | undefined {
    const { following } = this;
    this.following = undefined;
    return following;
  }
}

interface Begun {
  readonly slot: Slot;
  readonly items: readonly Item[];
  readonly works: readonly Work[];
  /** One for each of the works. */
  readonly turns: readonly SharedTurn[];
  readonly transaction: Transaction;
  readonly opened: Promise<void>;
  /** True once its commit goes out. */
  isCommitting: boolean;
}

/** True if a transaction may perform more than it has begun for. A part of a share comes before the rest. */
function mayBeJoined(share: Share, items: readonly Item[]): boolean {
  return items === share.items && !share.hasAll && !items.some(({ isAlone }) => isAlone);
}

function isCommitting(begun: Begun): boolean {
  return begun.isCommitting;
}

/** What is performed one after the other, with the scopes that it uses; undefined for all. */
interface Work {
  readonly scopes: ReadonlySet<string> | undefined;
  readonly items: Item[];
}

interface ScopedWork extends Work {
  readonly scopes: ReadonlySet<string>;
}

/** Items that have a scope in common are one work, in their order; all are, if something of them may be undone. */
function worksOf(items: readonly Item[]): ScopedWork[] {
  if (items.some(({ isAlone }) => isAlone)) {
    return [{ scopes: new Set(items.flatMap(({ scopes }) => scopes)), items: [...items] }];
  }
  const works = new Set<ScopedWork>();
  const byScope = new Map<string, ScopedWork>();
  for (const item of items) {
    const before = new Set(item.scopes.flatMap((scope) => byScope.get(scope) ?? []));
    const [only] = before;
    let work: ScopedWork;
    if (only !== undefined && before.size === 1 && item.scopes.every((scope) => only.scopes.has(scope))) {
      only.items.push(item);
      continue;
    }
    work = {
      scopes: new Set([...[...before].flatMap(({ scopes }) => [...scopes]), ...item.scopes]),
      items: [...[...before].flatMap((each) => each.items), item],
    };
    for (const each of before) works.delete(each);
    works.add(work);
    for (const scope of work.scopes) byScope.set(scope, work);
  }
  return [...works];
}

async function performAll(items: readonly Item[], turn: SharedTurn): Promise<void> {
  for (const item of items) await item.perform(turn);
}

/** Waits for all; throws what the first of them threw. */
async function allSettled(all: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(all)).find((each) => each.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Nothing was done, since a commit that nobody heard of was none. */
class Undone extends Error {}

/** Nothing was done, because the database is away. */
class NotDone extends Error {
  readonly refusal: Error;

  constructor(refusal: Error) {
    super(refusal.message);
    this.refusal = refusal;
  }
}
