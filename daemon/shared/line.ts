import { refuse } from "@pawl/protocol/errors";
import { elapsed } from "../clock.js";
import type { Operation } from "../store/statement.js";
import { type Env, EVERYTHING } from "../turns/operation.js";
import type { Parked } from "../turns/waiters.js";
import { classifyShared } from "./failure.js";
import type { Session } from "./session.js";
import { Transaction } from "./transaction.js";
import { ReachesFurther, type ScopedCall, SharedTurn, type TurnSetting, Withdrawn } from "./turn.js";

/** Calls of one line that a turn performs: while it lasts others wait for its locks. */
const MAX_ITEMS_PER_TURN = 64;
/** A transaction that has so many takes no further line. */
const MAX_ITEMS_PER_TRANSACTION = 256;
/** Transactions that are under way at the same time: of more, each would have less to share. */
const MAX_TRANSACTIONS = 2;
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
  perform(turn: SharedTurn): Promise<void>;
  /** It was not done, and nothing is left of it. */
  failed(error: unknown): void;
}

/** The place, as its lines know it. */
export interface LinesPlace {
  readonly setting: TurnSetting;
  readonly channel: string;
  /** Rejects with a refusal where the database is away. */
  takeSlot(): Promise<Slot>;
  giveSlot(slot: Slot): void;
  /** Nobody heard what a commit has come to: finds out. Rejects with a refusal where that cannot be. */
  resolve(slot: Slot): Promise<boolean>;
  /** The connection to the database was lost. Gives the refusal of what was not done for that. */
  lost(error: unknown, slot: Slot): Error;
  /** The database has answered what was sent then, in milliseconds of `elapsed`. */
  heardSince(sentAt: number): void;
  /** A turn was committed. */
  committed(turn: SharedTurn): void;
  /** Has other lines perform the calls again that wait under these keys. */
  wake(keys: Iterable<string>): void;
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
  readonly #woken = new Set<string>();
  #isRunning = false;
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
    this.#isRunning = true;
    return this.#items.splice(0, this.hasAll ? MAX_ITEMS_OF_ALL : MAX_ITEMS_PER_TURN);
  }

  /** What was taken is done. */
  done(): void {
    this.#isRunning = false;
    if (this.#items.length > 0) this.#turns.add(this);
    else this.#onIdle();
  }

  submit(item: Item): void {
    this.#items.push(item);
    if (!this.#isRunning) this.#turns.add(this);
  }

  /** A step that follows one that is done, before all that has come since. */
  goOn(call: ScopedCall): void {
    this.#items.unshift(itemOf(call));
    if (!this.#isRunning) this.#turns.add(this);
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
   */
  wake(key: string, scopes: readonly string[], isAlone: boolean): void {
    if (this.#woken.has(key)) return;
    this.#woken.add(key);
    this.submit({
      scopes,
      isAlone,
      perform: (turn) => {
        this.#woken.delete(key);
        return turn.wake([key]);
      },
      // All that waits is tried again once the database is there again.
      failed: () => void this.#woken.delete(key),
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
    perform: (turn) => turn.perform(call),
    failed: (error) => call.settle(error),
  };
}

/** The turns of a daemon at a place, several side by side: each takes the lines that wait for one, a share of them. */
export class SideBySide {
  readonly #place: LinesPlace;
  readonly #waiting = new Set<CallLine>();
  #underWay = 0;
  readonly #awaitingEnd: (() => void)[] = [];
  #isScheduled = false;

  constructor(place: LinesPlace) {
    this.#place = place;
  }

  /** Resolves once nothing is under way and nothing waits. */
  async ended(): Promise<void> {
    if (this.#underWay > 0 || this.#waiting.size > 0) {
      await new Promise<void>((resolve) => this.#awaitingEnd.push(resolve));
    }
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
    this.#place.wake(waiters.takeLeft());
  }

  #schedule(): void {
    if (this.#isScheduled || this.#underWay >= MAX_TRANSACTIONS) return;
    this.#isScheduled = true;
    // What arrives in the same turn of the event loop shares a transaction.
    setImmediate(() => {
      this.#isScheduled = false;
      while (this.#waiting.size > 0 && this.#underWay < MAX_TRANSACTIONS) void this.#run(this.#takeLines());
    });
  }

  /** The lines of the next turn: as many as there are for each turn that may begin now. */
  #takeLines(): CallLine[] {
    const share = Math.ceil(this.#waiting.size / (MAX_TRANSACTIONS - this.#underWay));
    const lines: CallLine[] = [];
    let items = 0;
    for (const line of this.#waiting) {
      if (line.hasAll && lines.length > 0) continue;
      this.#waiting.delete(line);
      lines.push(line);
      items += line.waiting;
      if (line.hasAll || lines.length >= share || items >= MAX_ITEMS_PER_TRANSACTION) break;
    }
    return lines;
  }

  async #run(lines: readonly CallLine[]): Promise<void> {
    this.#underWay += 1;
    const hasAll = lines.some((line) => line.hasAll);
    await this.#perform(
      lines.flatMap((line) => line.take()),
      hasAll,
    );
    this.#underWay -= 1;
    for (const line of lines) line.done();
    if (this.#waiting.size > 0) this.#schedule();
    else if (this.#underWay === 0) for (const resolve of this.#awaitingEnd.splice(0)) resolve();
  }

  /** Performs items in one transaction; in halves, down to each alone, where one is in the way. Never rejects. */
  async #perform(items: readonly Item[], hasAll: boolean): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const error = await this.#try(items, hasAll);
      if (error === undefined) return;
      if (error instanceof Undone || error instanceof Withdrawn) {
        tries = 0;
        continue;
      }
      if (error instanceof ReachesFurther || classifyShared(error) !== "retry") {
        return await this.#separate(items, hasAll, error);
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

  async #separate(items: readonly Item[], hasAll: boolean, error: unknown): Promise<void> {
    const [item, ...others] = items as [Item, ...Item[]];
    if (error instanceof NotDone) {
      for (const each of items) each.failed(error.refusal);
    } else if (others.length > 0) {
      const half = items.length >> 1;
      await this.#perform(items.slice(0, half), hasAll);
      await this.#perform(items.slice(half), hasAll);
    } else if (error instanceof ReachesFurther && !hasAll) this.#place.reachFurther(item);
    else item.failed(classifyShared(error) === "full" ? NO_SPACE : error);
  }

  /** Returns why nothing of it was done. */
  async #try(items: readonly Item[], hasAll: boolean): Promise<unknown> {
    let slot: Slot;
    try {
      slot = await this.#place.takeSlot();
    } catch (error) {
      return new NotDone(error as Error);
    }
    try {
      return await this.#tryOn(slot, items, hasAll);
    } finally {
      this.#place.giveSlot(slot);
    }
  }

  async #tryOn(slot: Slot, items: readonly Item[], hasAll: boolean): Promise<unknown> {
    const { setting, channel } = this.#place;
    const { session, daemon, number } = slot;
    const works = hasAll ? [{ scopes: undefined, items }] : worksOf(items);
    const isAlone = works.length === 1;
    const turns = works.map(({ scopes }) => new SharedTurn(setting, session, { scopes, isAlone }));
    const transaction = new Transaction(session, turns, daemon);
    slot.turn += 1;
    try {
      const scopes = hasAll ? undefined : items.flatMap(({ scopes }) => scopes);
      await transaction.begin(setting.lockPrefix, scopes);
      await allSettled(works.map(({ items }, index) => performAll(items, turns[index] as SharedTurn)));
    } catch (error) {
      return await this.#undo(slot, turns, error);
    }
    const sentAt = elapsed();
    try {
      await transaction.commit({ daemon, slot: number, turn: slot.turn }, channel);
    } catch (error) {
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
    // What was granted by a daemon that others have taken for dead meanwhile is not sure to be held.
    const isDead = daemon !== setting.daemon();
    for (const turn of turns) this.#finish(turn, isDead ? Number.POSITIVE_INFINITY : transaction.ageMs);
    return undefined;
  }

  async #undo(slot: Slot, turns: readonly SharedTurn[], error: unknown): Promise<unknown> {
    await slot.session.rollback();
    for (const turn of turns) turn.rolledBack();
    if (classifyShared(error) !== "lost") return error;
    return new NotDone(this.#place.lost(error, slot));
  }

  #finish(turn: SharedTurn, ageMs: number): void {
    turn.committed();
    for (const call of [...turn.later].reverse()) this.#place.goOn(call);
    this.#place.committed(turn);
    turn.answer(ageMs);
    this.#place.wake(turn.wokenElsewhere);
    const { wokenLater } = turn;
    if (wokenLater.size > 0) setTimeout(() => this.#place.wake(wokenLater), LEFT_MS).unref();
  }
}

/** What is performed one after the other, with the scopes that it uses. */
interface Work {
  readonly scopes: ReadonlySet<string>;
  readonly items: readonly Item[];
}

/** Items that have a scope in common are one work, in their order; all are, if something of them may be undone. */
function worksOf(items: readonly Item[]): Work[] {
  if (items.some(({ isAlone }) => isAlone)) {
    return [{ scopes: new Set(items.flatMap(({ scopes }) => scopes)), items }];
  }
  const works = new Set<Work>();
  const byScope = new Map<string, Work>();
  for (const item of items) {
    const before = new Set(item.scopes.flatMap((scope) => byScope.get(scope) ?? []));
    const [only] = before;
    let work: Work;
    if (only !== undefined && before.size === 1 && item.scopes.every((scope) => only.scopes.has(scope))) {
      (only.items as Item[]).push(item);
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

const NO_SPACE = refuse(
  "unavailable",
  "There is no space left for the database of these shared names. Reads go on; writes work again once space is made.",
  { reason: "disk_full" },
);
