import { PawlError } from "@pawl/protocol/errors";
import { type Boottime, type Clock, elapsed, type KeptTime, type Reading } from "../clock.js";
import { RawJson } from "../json/raw-json.js";
import { keepTime } from "../store/kept-time.js";
import type { Operation } from "../store/statement.js";
import type { Store } from "../store/store.js";
import type { Witness } from "../store/witness.js";
import type { Due } from "./alarm.js";
import { type Call, DAEMON, following } from "./call.js";
import { CollectedEffects, type Outlet } from "./effects.js";
import type { Journal } from "./journal.js";
import {
  type Caller,
  type Contender,
  type Env,
  nameOfProcess,
  type Outcome,
  type Process,
  Tried,
  Unfinished,
  Wait,
} from "./operation.js";
import { pooledRandom } from "./random.js";
import type { Tally } from "./tally.js";
import { TurnMemory } from "./turn-memory.js";
import { CANCELLED, type Parked, type Rest, type Waiters } from "./waiters.js";

/** The same for every turn of a daemon. */
export interface Setting extends Pick<Env, "mode" | "idDigits" | "sign" | "identity" | "processOf"> {
  readonly store: Store;
  readonly clock: Clock;
  /** Told of counters before they are committed; undefined where there is none. */
  readonly witness: Pick<Witness, "raise" | "committed"> | undefined;
  /** Where random bytes come from, if not from the kernel. */
  readonly random?: Env["random"];
  /** Events for those who follow them; undefined in a daemon that only reads. */
  readonly journal?: Journal | undefined;
  /** Counts effects; undefined where nobody asks for that. */
  readonly tally?: Tally | undefined;
  /** Told how long it took to serve a call that was woken; undefined where nobody shares turns by that. */
  readonly served?: ((connection: number, ms: number) => void) | undefined;
  /** True if requests that have arrived wait for their turn. */
  readonly othersWait?: (() => boolean) | undefined;
  /** True if another process writes the database, and keeps the time of it. */
  readonly readOnly: boolean;
  /** How long what has ended is kept; may change. */
  retentionMs: number;
  /** Ends the waits for what is kept elsewhere of a connection's requests with this id; true if there was one. */
  readonly cancelElsewhere?: Env["cancelWaits"] | undefined;
  /** The processes that a caller's process descends from, the nearest first, as far as is looked. */
  readonly ancestorsOf?: ((caller: Caller) => readonly Process[]) | undefined;
}

/** Of the waits of one actor that was granted something, the last ones that are looked at while time is left ... */
export const MAX_UNTANGLED = 32;
/** ... and those that are in any case. */
export const UNTANGLED = 8;
/** Calls whose ancestors are asked for in one go: each costs some reads of /proc, and is asked for once. */
export const MAX_ASKED_FOR_ANCESTORS = 16;
/** So much of a turn goes to calls that were woken while requests wait that have arrived ... */
const WOKEN_MS = 2.5;
/** ... and they are left for a later turn once the long answers of this one have so many characters. */
export const MAX_WOKEN_ANSWERS_LENGTH = 8 * 1024 * 1024;

/** The things that end without being asked to: turns know when and for whom, the rules are above this room. */
export interface Endings {
  /** Ends what is due, in bounded steps; returns when it has to run next: at `env.now` if there is more. */
  expire(env: Env): Operation<Due>;
  /** Ends what was granted for as long as this connection lasts, in steps. */
  disconnect(connection: number, env: Env): Operation<Outcome<void>>;
  /** The daemon was held up: what it granted and what has ended since `since` goes on until `until`. */
  goOn(since: number, until: number, env: Env): Operation<void>;
  /** The machine slept, and some ends came nearer meanwhile. */
  wakeUp(env: Env, boottime: Boottime): Operation<void>;
}

/** Since when the daemon was held up, and until when what it granted goes on for that; both in elapsed time. */
export interface Pause {
  readonly since: number;
  readonly until: number;
}

/** One try at a turn, or at a part of it: everything that has to be forgotten if it is rolled back. */
export class Attempt {
  readonly #setting: Setting;
  readonly #waiters: Waiters;
  readonly #effects: CollectedEffects;
  readonly #memory = new TurnMemory();
  readonly #cancelWaits: Env["cancelWaits"];
  /** The calls that are to be answered, and their outcomes. */
  readonly #answered: Call[] = [];
  readonly #outcomes: unknown[] = [];
  /** The calls that go on in a later turn, and those that follow one on its connection, in their order. */
  readonly #later: Call[] = [];
  readonly #goingOn = new Set<number>();
  #time: Reading;
  readonly #onlyReads: boolean;
  /** When what is woken is left for a later turn. */
  readonly #until: number;
  #begun = false;
  #timeToKeep: KeptTime | undefined;
  /** The calls that were tried in vain for all their keys, since the last operation and the last grant. */
  readonly #inVain = new Set<Parked>();
  /** The characters of the long answers to calls that have waited. */
  #answersLength = 0;
  /** Connections whose peers have too much to read, as far as was asked in this turn. */
  #withoutRoom: Set<number> | undefined;
  /** How long calls took that were woken, since that was last asked. */
  #wokenMs = 0;
  /** What is left for them in this turn, and when that is over. */
  #wokenLeftMs = WOKEN_MS;
  #wokenUntil = Number.POSITIVE_INFINITY;
  /** The calls that have let those first who wait for their callers, since the last operation. */
  readonly #letFirst = new Set<Parked>();
  /** By the keys that woke those: who is to be served once the others were, as long as none of them was granted. */
  readonly #behindOthers = new Map<string, Rest>();
  /** True once one of those was served that are to overtake others, since the last operation. */
  #hasOvertaken = false;
  /** Operations performed, also those of calls that wait on. */
  performed = 0;
  commitMs = 0;
  /** When the next thing ends by itself, if this attempt has found out. */
  nextEnding: Due | undefined;
  /** True if the commit wrote anything. */
  wrote = false;

  /**
   * @param until the elapsed milliseconds (`elapsed`) at which calls that are woken are left for a later turn.
   * @param onlyReads true for a transaction that needs no lock, in which nothing can be written.
   */
  constructor(
    setting: Setting,
    waiters: Waiters,
    time: Reading,
    until = Number.POSITIVE_INFINITY,
    onlyReads = false,
  ) {
    this.#until = until;
    this.#onlyReads = onlyReads;
    this.#setting = setting;
    this.#waiters = waiters;
    this.#time = time;
    this.#effects = new CollectedEffects(setting.journal, setting.tally, time.wallMs);
    this.#cancelWaits = this.#cancellation();
  }

  /**
   * V8 allocates a function literal that is assigned to a member in the old generation: all that it refers to, here
   * the whole turn, would outlive each collection of the young one.
   */
  #cancellation(): Env["cancelWaits"] {
    return (caller, id) => {
      const parked = this.#waiters.withId(caller.connection, id);
      for (const each of parked) this.#serve(each, CANCELLED);
      const isElsewhere = this.#setting.cancelElsewhere?.(caller, id) ?? false;
      return parked.length > 0 || isElsewhere;
    };
  }

  /** True if the transaction was begun. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Begins the transaction, if it has not begun: the first thing that is performed does this. */
  begin(): void {
    if (this.#begun) return;
    const { store, clock } = this.#setting;
    try {
      if (this.#onlyReads) store.beginToRead();
      else store.begin();
    } catch (error) {
      store.rollback();
      throw error;
    }
    this.#begun = true;
    if (store.writer === undefined) return;
    // The writing process has a time of its own, and wrote what this transaction sees before now.
    const kept = store.writer.keptTime();
    if (kept !== undefined) clock.goOnFrom(kept);
    this.#time = clock.read();
  }

  /** Performs a call, then those that it woke. What follows a call that goes on waits for that. */
  perform(call: Call): void {
    this.begin();
    if (this.#goingOn.has(call.caller.connection)) {
      this.#later.push(call);
      return;
    }
    const outcome = this.#try(call, call.waitMs > 0 && !call.closed, null);
    if (outcome instanceof Wait) this.#park(call, outcome);
    else this.#answer(call, outcome);
    this.#serveWoken();
  }

  #park(call: Call, wait: Wait): void {
    const refusal = this.#waiters.refusal(call, wait);
    if (refusal !== undefined) return this.#answer(call, refusal);
    const parked = this.#waiters.park(call, wait, this.#time.now);
    if (parked.contender !== undefined) this.#untangle(parked, parked.contender);
  }

  /** A call waits for what others hold: it is refused if that closes a circle. */
  #untangle(parked: Parked, contender: Contender): void {
    const refusal = this.#findCircle(parked, contender);
    if (refusal !== undefined) this.#serve(parked, refusal);
  }

  /** The refusal of a call whose wait closes a circle. */
  #findCircle(
    parked: Parked,
    contender: Contender,
    known = new Map<string, unknown>(),
  ): PawlError | undefined {
    const { store, ancestorsOf } = this.#setting;
    const { contest } = contender;
    const someAwait = ancestorsOf !== undefined && store.perform(contest.someAwaitChildren());
    if (someAwait) this.#learnAncestors(parked);
    else if (this.#waiters.contenders === 1) {
      this.#waiters.apart.forget();
      return undefined;
    }
    return store.perform(
      contest.untangle(contender, this.#env(parked.call.caller, false, null, parked), known),
    );
  }

  #learnAncestors(parked: Parked): void {
    const { ancestorsOf } = this.#setting;
    if (ancestorsOf === undefined) return;
    this.#waiters.learnAncestors(parked, MAX_ASKED_FOR_ANCESTORS, ({ caller }) =>
      ancestorsOf(caller).map(nameOfProcess),
    );
  }

  /** True if those who have waited are to be answered in a later turn. */
  get isOver(): boolean {
    return this.#answersLength >= MAX_WOKEN_ANSWERS_LENGTH || elapsed() >= this.#until;
  }

  /** Answers a call that has waited for as long as it may, unless this turn has served it, once its peer reads. */
  timeOut(parked: Parked): void {
    if (parked.state !== "waiting") return;
    if (this.#holdsUp(parked)) return this.#waiters.holdUp(parked, { isTimedOut: true });
    this.begin();
    this.#serve(parked, this.#try(parked.call, false, null, parked));
    this.#serveWoken();
  }

  /** Performs a parked call again, because another process may have made its condition true. */
  tryAgain(parked: Parked): void {
    if (parked.state !== "waiting") return;
    if (this.#holdsUp(parked)) return this.#waiters.holdUp(parked, { isTimedOut: false });
    this.begin();
    const outcome = this.#try(parked.call, true, null, parked);
    if (!(outcome instanceof Wait)) this.#serve(parked, outcome);
  }

  /** Performs an operation of the daemon itself and gives its result. */
  performOwn<T>(start: (env: Env) => Operation<T>): T {
    this.begin();
    const result = this.#setting.store.perform(start(this.#env(DAEMON, false, null)));
    this.#waiters.apart.forget();
    this.#serveWoken();
    return result;
  }

  /** Ends what is due, in bounded steps. */
  endWhatIsDue(endings: Endings): void {
    this.nextEnding = this.performOwn((env) => endings.expire(env));
  }

  /** Has the database keep the time, unless the one that it keeps will do. */
  keepTime(): void {
    this.begin();
    const { store, clock } = this.#setting;
    const time = clock.toKeep(this.#time);
    if (time !== undefined) store.perform(keepTime(time));
    this.#timeToKeep = time;
  }

  commit(): void {
    // Without anything to perform it may have found that nobody waits any more whom an earlier turn has left.
    if (!this.#begun) return this.#waiters.commit();
    const { store, clock, witness } = this.#setting;
    store.perform(this.#memory.writeBack());
    this.wrote = store.wrote;
    if (this.wrote && this.#timeToKeep === undefined) this.keepTime();
    const start = elapsed();
    const reached = witness === undefined ? undefined : this.#effects.highestReached;
    if (reached !== undefined) witness?.raise(reached);
    store.commit();
    this.commitMs = elapsed() - start;
    if (reached !== undefined) witness?.committed(reached);
    if (this.#timeToKeep !== undefined) clock.wasKept(this.#timeToKeep);
    this.#waiters.commit();
    this.#setting.tally?.commit();
    this.#setting.journal?.commit();
  }

  rollBack(): void {
    if (this.#begun) this.#setting.store.rollback();
    this.#waiters.rollBack();
    this.#setting.tally?.forget(0);
    this.#setting.journal?.forget(0);
  }

  /** After the commit: carries out the effects. */
  carryOut(outlet: Outlet): void {
    this.#effects.carryOut(outlet);
  }

  /**
   * After the commit: answers every call that does not wait on; returns how many.
   *
   * @param idleRefusal the answer to calls that may write and found nothing to write, if they are not refused anyway.
   */
  answer(idleRefusal?: PawlError): number {
    const calls = this.#answered;
    for (let index = 0; index < calls.length; index++) {
      const call = calls[index] as Call;
      const outcome = this.#outcomes[index];
      const isIdle = idleRefusal !== undefined && !this.wrote && call.writes === true;
      call.settle(isIdle && !(outcome instanceof PawlError) ? idleRefusal : outcome);
    }
    return calls.length;
  }

  /** True if a call that was performed goes on in a later turn. */
  goesOn({ caller }: Call): boolean {
    return this.#goingOn.size > 0 && this.#goingOn.has(caller.connection);
  }

  /** The calls to be performed before any that comes later. */
  get later(): readonly Call[] {
    return this.#later;
  }

  get time(): Reading {
    return this.#time;
  }

  /** The earliest time at which something that was granted here ends. */
  get earliestEnd(): Due {
    return this.#effects.earliestEnd;
  }

  /** The connections that were granted something for as long as they last. */
  get holders(): readonly number[] {
    return this.#effects.holders;
  }

  #try(call: Call, mayWait: boolean, woken: string | null, parked?: Parked, mayOvertake?: boolean): unknown {
    const refusal = parked === undefined ? undefined : call.refusal;
    if (refusal !== undefined) return refusal;
    const { store } = this.#setting;
    this.#effects.begin();
    const operation = call.start(this.#env(call.caller, mayWait, woken, parked, mayOvertake));
    if (call.mayBeUndone) store.perform(this.#memory.writeBack());
    const outcome = call.mayBeUndone ? store.performOrUndo(operation, isToUndo) : store.perform(operation);
    if (isToUndo(outcome)) {
      this.#effects.forget();
      if (call.mayBeUndone) this.#memory.forget();
    }
    this.performed += 1;
    if (call.writes !== false && !(outcome instanceof Wait)) this.#waiters.apart.forget();
    return outcome instanceof Tried ? outcome.result : outcome;
  }

  #serve(parked: Parked, outcome: unknown): void {
    this.#inVain.clear();
    this.#behindOthers.clear();
    this.#waiters.serve(parked);
    this.#answersLength += lengthOf(outcome);
    this.#answer(parked.call, outcome);
    // Who waits behind it under the one key that was woken is tried next anyway.
    const { holdsBackUnder: keys } = parked;
    if (keys.length > 1 || outcome instanceof PawlError) for (const key of keys) this.#effects.wake(key);
    if (parked.lineKey !== undefined) this.#effects.wake(parked.lineKey);
    const { contender } = parked;
    if (contender !== undefined && !(outcome instanceof PawlError)) this.#untangleOthers(parked, contender);
  }

  /**
   * A call was granted what it waited for, while its caller, or a child of that, waits for more. Those who wait for
   * what it was granted wait for that, too.
   */
  #untangleOthers(granted: Parked, contender: Contender): void {
    const { contest, caller } = contender;
    // Its children may have begun to wait when nobody awaited them.
    if (contest.awaitsChildren) this.#learnAncestors(granted);
    const others = this.#waiters.behindGrant(granted, contender, caller);
    if (others.length === 0) return;
    const env = this.#env(caller, false, null);
    const known = new Map<string, unknown>();
    if (others.length > 1 && !this.#setting.store.perform(contest.isInCircle(env, known))) return;
    const last = others.slice(-MAX_UNTANGLED);
    const refused: Refused[] = [];
    for (const [index, other] of last.entries()) {
      if (index < last.length - UNTANGLED && elapsed() >= this.#until) continue;
      const parked = this.#waiters.overtaking(other.overtakeKey);
      const refusal = parked && this.#findCircle(parked, other, known);
      if (refusal !== undefined) refused.push({ parked: parked as Parked, contender: other, refusal });
    }
    for (const [index, { parked, contender: other, refusal }] of shortestFirst(refused).entries()) {
      const still = index === 0 ? refusal : this.#findCircle(parked, other);
      if (still !== undefined) this.#serve(parked, still);
    }
  }

  /**
   * What a call waits for may have come free, while its caller, or a child of that, waits for more. Those who have
   * that, and wait behind it, are woken and come first: what it was granted now would close a circle. It is next, if
   * none of them could have what it waits for. Returns false if it is its turn.
   */
  #letsOthersFirst(parked: Parked, contender: Contender): boolean {
    const { contest, caller } = contender;
    if (this.#letFirst.has(parked) || !this.#waiters.mayLetOthersFirst(parked, contender, caller))
      return false;
    this.#letFirst.add(parked);
    return this.#setting.store.perform(contest.letOthersFirst(this.#env(caller, false, null, parked)));
  }

  /**
   * True if a call has to wait on since its peer has too much to read: thousands may be given the same long answer at
   * once. One that writes takes what others want, so it keeps its place, and is answered no more than is written.
   */
  #holdsUp({ call }: Parked): boolean {
    if (call.writes !== false) return false;
    const { connection } = call.caller;
    if (this.#withoutRoom?.has(connection)) return true;
    if (call.hasRoom !== false) return false;
    this.#withoutRoom ??= new Set();
    this.#withoutRoom.add(connection);
    return true;
  }

  #answer(call: Call, outcome: unknown): void {
    if (outcome instanceof Unfinished) return this.#goOn(call, outcome);
    this.#answered.push(call);
    this.#outcomes.push(outcome);
  }

  #goOn(call: Call, { goOn, heldBytes }: Unfinished<unknown>): void {
    const { connection } = call.caller;
    call.holds?.((call.bytes ?? 0) + heldBytes);
    this.#later.push(following(call, goOn));
    if (connection !== DAEMON.connection) this.#goingOn.add(connection);
  }

  /** Performs the calls whose conditions were made true by a turn that had no time left for them. */
  serveLeft(): void {
    const begun = this.#beginWoken();
    let isFirst = true;
    for (const key of this.#waiters.left()) {
      this.#serveKey(key, isFirst ? "goesOn" : "mayWait");
      isFirst = false;
    }
    this.#endWoken(begun);
    this.#serveAllWoken();
  }

  /** Performs the calls whose conditions the last operation made true; theirs may make others true. */
  #serveWoken(): void {
    // To clear one that is empty makes a new table all the same, and mostly nobody was tried.
    if (this.#inVain.size > 0) this.#inVain.clear();
    if (this.#letFirst.size > 0) this.#letFirst.clear();
    if (this.#behindOthers.size > 0) this.#behindOthers.clear();
    this.#hasOvertaken = false;
    this.#serveAllWoken();
  }

  /**
   * A key for whose calls there was no time left is done with, however often it was woken: each time would serve one
   * more of them.
   */
  #serveAllWoken(): void {
    let left: Set<string> | undefined;
    let key = this.#effects.nextWoken();
    if (key === undefined) return;
    const begun = this.#beginWoken();
    for (; key !== undefined; key = this.#effects.nextWoken()) {
      if (left?.has(key)) this.#waiters.leaveAll(key);
      else if (!this.#serveKey(key)) {
        left ??= new Set();
        left.add(key);
      }
    }
    this.#endWoken(begun);
  }

  #beginWoken(): number {
    const begun = elapsed();
    this.#wokenUntil = begun + this.#wokenLeftMs;
    return begun;
  }

  #endWoken(begun: number): void {
    const ms = elapsed() - begun;
    this.#wokenMs += ms;
    this.#wokenLeftMs -= ms;
  }

  /** True if those who were woken are to be served in a later turn: a change may wake thousands. */
  get #isOverForWoken(): boolean {
    if (this.isOver) return true;
    return this.#setting.othersWait?.() === true && elapsed() >= this.#wokenUntil;
  }

  /** How long calls took that were woken, since this was last asked. */
  takeWokenMs(): number {
    const ms = this.#wokenMs;
    this.#wokenMs = 0;
    return ms;
  }

  /**
   * Performs the calls that wait under a key. Returns false if some were left for a later turn.
   *
   * @param how `goesOn` if only those are performed that an earlier turn has left, `mayWait` if that need not be in
   * this one.
   */
  #serveKey(key: string, how: "woken" | "goesOn" | "mayWait" = "woken"): boolean {
    const alone = this.#waiters.overtaking(key);
    if (alone !== undefined) {
      // One goes on even when the time is over, and whom another lets go first comes before that one.
      if (this.#hasOvertaken && this.#letFirst.size === 0 && elapsed() >= this.#until) {
        this.#waiters.leave(key);
        return false;
      }
      this.#hasOvertaken = true;
      this.#overtake(alone, key);
      this.#waiters.servedAll(key);
      return true;
    }
    const rest = how !== "woken" ? this.#waiters.leftOf(key) : this.#behindOthers.get(key);
    const line = this.#waiters.wokenBy(key, rest);
    if (line === undefined) {
      this.#waiters.servedAll(key);
      return true;
    }
    this.begin();
    // The first is served even when the time is over: what came free must not go to a call that comes before the rest.
    // In a line that cannot be, and to try each of hundreds takes some milliseconds; but whom another lets go first
    // comes before that one.
    let isFirst = true;
    for (let parked = line.next(); parked !== undefined; parked = line.next()) {
      if (this.#holdsUp(parked)) {
        this.#waiters.holdUp(parked, { isTimedOut: false });
        continue;
      }
      const isInLine = parked.lineKey !== undefined && this.#letFirst.size === 0;
      const isNeeded = isFirst && (how === "goesOn" || !isInLine);
      if (!isNeeded && this.#isOverForWoken) {
        // Else it stays as the earlier turn has left it, before those of which some are served in this one.
        if (how !== "mayWait" || !isFirst) this.#waiters.leave(key, line.rest);
        return false;
      }
      isFirst = false;
      if (this.#inVain.has(parked)) {
        line.closeSort();
        continue;
      }
      if (parked.contender !== undefined && this.#letsOthersFirst(parked, parked.contender)) {
        // Were all tried once more, turns without time would go on for ever.
        this.#behindOthers.set(key, line.rest);
        this.#effects.wake(key);
        return true;
      }
      const begun = elapsed();
      const outcome = this.#try(parked.call, true, key, parked);
      if (outcome instanceof Wait) {
        if (outcome.keysChange) this.#waiters.move(parked, outcome.keys);
        if (outcome.line === undefined && !outcome.isAlone) line.closeSort();
        if (outcome.isForAll) this.#inVain.add(parked);
        if (outcome.contest !== undefined && parked.contender !== undefined)
          this.#untangle(parked, parked.contender);
      } else {
        this.#serve(parked, outcome);
        this.#setting.served?.(parked.call.caller.connection, elapsed() - begun);
      }
    }
    this.#waiters.servedAll(key);
    return true;
  }

  /** Performs a call again that may be granted before those that wait for its caller. */
  #overtake(parked: Parked, key: string): void {
    this.begin();
    const outcome = this.#try(parked.call, true, key, parked, true);
    if (!(outcome instanceof Wait)) this.#serve(parked, outcome);
    else if (outcome.line !== undefined) this.#waiters.move(parked, outcome.keys);
  }

  #env(caller: Caller, mayWait: boolean, woken: string | null, parked?: Parked, mayOvertake = false): Env {
    const { mode, idDigits, sign, identity, processOf, retentionMs, readOnly } = this.#setting;
    const { now, retentionNow, wallMs } = this.#time;
    const waiters = this.#waiters;
    return {
      now,
      retentionNow,
      wallMs,
      mode,
      idDigits,
      caller,
      mayWait,
      woken,
      mayGoOn: true,
      effects: this.#effects,
      turn: this.#memory,
      waiting: readOnly ? NOT_KNOWN : waiters.waiting,
      waitsBefore:
        parked === undefined ? waiters.someoneWaits : (key, sort) => waiters.waitsBefore(key, parked, sort),
      isLeft: waiters.isLeft,
      before: parked === undefined ? waiters.everyoneIn : (line) => waiters.inLine(line, parked),
      contenders: waiters,
      contender: parked?.contender,
      mayOvertake,
      cancelWaits: this.#cancelWaits,
      random: this.#setting.random ?? pooledRandom,
      sign,
      identity,
      processOf,
      retentionMs,
      idMark: "",
    };
  }
}

/** A wait that closes a circle, and its refusal. */
export interface Refused {
  readonly parked: Parked;
  readonly contender: Contender;
  readonly refusal: PawlError;
}

/** In the order in which they are refused: a circle may have a shorter one in it, and then ends with that. */
export function shortestFirst(refused: readonly Refused[]): Refused[] {
  const lengthOfCircle = ({ refusal }: Refused): number =>
    refusal.kind === "would_deadlock" ? refusal.details.cycle.length : 0;
  return [...refused].sort((a, b) => lengthOfCircle(a) - lengthOfCircle(b));
}

/** Those who wait do so in the daemon that writes. */
const NOT_KNOWN = () => null;

/** The characters of the kept texts in an answer: all else in it is short. */
export function lengthOf(outcome: unknown): number {
  if (outcome instanceof RawJson) return outcome.text.length;
  let length = 0;
  for (const name in outcome as object) {
    const value = (outcome as Record<string, unknown>)[name];
    if (value instanceof RawJson) length += value.text.length;
  }
  return length;
}

/** True if what an operation wrote is undone for its outcome. */
export function isToUndo(outcome: unknown): boolean {
  return outcome instanceof PawlError || outcome instanceof Tried;
}
