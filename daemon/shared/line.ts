import { refuse } from "@pawl/protocol/errors";
import { elapsed } from "../clock.js";
import type { Operation } from "../store/statement.js";
import { type Env, EVERYTHING } from "../turns/operation.js";
import type { Parked } from "../turns/waiters.js";
import { classifyShared } from "./failure.js";
import type { Session } from "./session.js";
import { ReachesFurther, type ScopedCall, SharedTurn, type TurnSetting, Withdrawn } from "./turn.js";

/** Calls that one turn performs: while it lasts others wait for its locks. */
const MAX_ITEMS_PER_TURN = 64;
/** Turns that are under way at the same time: more of them would share less. */
const MAX_TURNS = 3;
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
    this.submit({ scopes: call.scopes, perform: (turn) => turn.tryAgain(parked), failed: () => {} });
  }

  /** @param scopes of the calls that wait under the key. */
  wake(key: string, scopes: readonly string[]): void {
    if (this.#woken.has(key)) return;
    this.#woken.add(key);
    this.submit({
      scopes,
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
    if (this.#isScheduled || this.#underWay >= MAX_TURNS) return;
    this.#isScheduled = true;
    // What arrives in the same turn of the event loop shares a transaction.
    setImmediate(() => {
      this.#isScheduled = false;
      while (this.#waiting.size > 0 && this.#underWay < MAX_TURNS) void this.#run(this.#takeLines());
    });
  }

  /** The lines of the next turn: as many as there are for each turn that may begin now. */
  #takeLines(): CallLine[] {
    const share = Math.ceil(this.#waiting.size / (MAX_TURNS - this.#underWay));
    const lines: CallLine[] = [];
    for (const line of this.#waiting) {
      if (line.hasAll && lines.length > 0) continue;
      this.#waiting.delete(line);
      lines.push(line);
      if (line.hasAll || lines.length >= share) break;
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

  /** Performs items in one transaction; one by one where that is in the way. Never rejects. */
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
      for (const each of items) await this.#perform([each], hasAll);
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
    const scopes = hasAll ? undefined : new Set(items.flatMap(({ scopes }) => scopes));
    const turn = new SharedTurn(setting, slot.session, scopes);
    slot.turn += 1;
    try {
      await turn.begin();
      for (const item of items) await item.perform(turn);
    } catch (error) {
      return await this.#undo(slot, turn, error);
    }
    const sentAt = elapsed();
    try {
      await turn.commit({ daemon: slot.daemon, slot: slot.number, turn: slot.turn, channel });
    } catch (error) {
      if (classifyShared(error) !== "lost") return await this.#undo(slot, turn, error);
      this.#place.lost(error, slot);
      let isDone: boolean;
      try {
        isDone = await this.#place.resolve(slot);
      } catch (refusal) {
        turn.rolledBack();
        return new NotDone(refusal as Error);
      }
      if (!isDone) {
        turn.rolledBack();
        return new Undone();
      }
    }
    this.#place.heardSince(sentAt);
    this.#finish(turn, slot.daemon !== setting.daemon());
    return undefined;
  }

  async #undo(slot: Slot, turn: SharedTurn, error: unknown): Promise<unknown> {
    await slot.session.rollback();
    turn.rolledBack();
    if (classifyShared(error) !== "lost") return error;
    return new NotDone(this.#place.lost(error, slot));
  }

  #finish(turn: SharedTurn, isDead: boolean): void {
    turn.committed();
    for (const call of [...turn.later].reverse()) this.#place.goOn(call);
    this.#place.committed(turn);
    turn.answer(isDead);
    this.#place.wake(turn.wokenElsewhere);
    const { wokenLater } = turn;
    if (wokenLater.size > 0) setTimeout(() => this.#place.wake(wokenLater), LEFT_MS).unref();
  }
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
