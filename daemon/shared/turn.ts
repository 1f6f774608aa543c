import { PawlError } from "@pawl/protocol/errors";
import { elapsed, type Reading } from "../clock.js";
import { type Ahead, aheadOf, type Coming, forgetAhead } from "../domain/queue/ahead.js";
import type { Operation } from "../store/statement.js";
import type { Due } from "../turns/alarm.js";
import {
  isToUndo,
  lengthOf,
  MAX_ASKED_FOR_ANCESTORS,
  MAX_UNTANGLED,
  MAX_WOKEN_ANSWERS_LENGTH,
  type Refused,
  shortestFirst,
  UNTANGLED,
} from "../turns/attempt.js";
import { type Call, DAEMON } from "../turns/call.js";
import type { Outlet } from "../turns/effects.js";
import {
  type Caller,
  type Contender,
  type Env,
  EVERYTHING,
  nameOfProcess,
  type Outcome,
  type Process,
  Tried,
  Unfinished,
  Wait,
} from "../turns/operation.js";
import { pooledRandom } from "../turns/random.js";
import { TurnMemory } from "../turns/turn-memory.js";
import { ALL, again, type Parked, type Rest, TurnMarks, type Waiters } from "../turns/waiters.js";
import { SharedEffects } from "./effects.js";
import type { Session } from "./session.js";

/** The same for every turn of a daemon at a place. */
export interface TurnSetting extends Pick<Env, "mode" | "idDigits" | "sign" | "idMark" | "processOf"> {
  /** How long what has ended is kept; may change. */
  readonly retentionMs: number;
  readonly isFollowed: () => boolean;
  readonly waiters: Waiters;
  /** The keys of which all daemons know that calls wait here under them. */
  readonly registered: Set<string>;
  /** The keys whose calls were left to others for their time: the next turn performs them. */
  readonly leftBefore: Set<string>;
  /** The number of this daemon. */
  readonly daemon: () => number;
  /** The calls that wait and that some turn is performing again: no other does so meanwhile. */
  readonly busy: Set<Parked>;
  /** A caller as all daemons know it, whose connection and process are no other's. */
  readonly known: (caller: Caller) => Caller;
  /** When a process began, by its machine's own ticks, of one of this machine; undefined for one of another. */
  readonly ticksHere: (known: number) => number | undefined;
  readonly ancestorsOf: (caller: Caller) => readonly Process[];
  /** The text that all locks of the place begin with. */
  readonly lockPrefix: string;
  /** Which tables it has (`TABLES`). */
  readonly tables: number;
}

/** A call with the scopes of the rows that it uses; `EVERYTHING` is one of them where these are not known. */
export interface ScopedCall extends Call {
  readonly scopes: readonly string[];
  /** What it asks for; undefined for one of the daemon itself, or a step that follows. */
  readonly coming?: Coming | undefined;
  /** The scopes that suffice when it waits and a key was woken. */
  scopesWhenWoken(key: string): readonly string[];
  /** The same call, for a step that follows. */
  following(goOn: Call["start"]): ScopedCall;
  /** It waits for its condition, so that what came later on its connection may be performed. */
  performed(): void;
  /** Settles it with what a turn made of it whose clock was read so long ago. */
  answered(outcome: unknown, ageMs: number): void;
}

/** A connection that was granted something, and the scopes that this is in. */
export interface Holder {
  readonly connection: number;
  readonly scopes: readonly string[];
}

/** Thrown where an operation comes upon rows of a scope that its turn has no lock of. */
export class ReachesFurther extends Error {
  constructor(scope: string) {
    super(`the turn has no lock of ${scope}`);
  }
}

/** Thrown where a call was granted something whose wait was ended meanwhile: the turn is made again without it. */
export class Withdrawn extends Error {}

/** A turn performs no more of the calls that wait after so long: its locks keep others. */
const MAX_TURN_MS = 40;

/** How often what comes free is left to calls that wait at other daemons. */
const LEFT_TO_OTHERS_OF_256 = 64;

/**
 * The calls of some scopes that a transaction performs: the twin of the turns' `Attempt`, which awaits. Other turns of
 * the same transaction go on beside it; as it has the locks of its scopes, nobody else uses their rows meanwhile.
 */
export class SharedTurn {
  readonly #setting: TurnSetting;
  readonly #session: Session;
  /** Undefined for a turn that has the whole place. */
  readonly #scopes: ReadonlySet<string> | undefined;
  /** True if no other turn writes in its transaction, so that writes can be undone. */
  readonly #isAlone: boolean;
  readonly #marks = new TurnMarks();
  readonly #memory = new TurnMemory();
  readonly #answered: ScopedCall[] = [];
  readonly #outcomes: unknown[] = [];
  readonly #parked: ScopedCall[] = [];
  readonly #later: ScopedCall[] = [];
  readonly #goingOn = new Set<number>();
  readonly #afterwards: (() => void)[] = [];
  readonly #busy = new Set<Parked>();
  /** The keys whose calls this turn does not perform, so that those at other daemons may be first. */
  readonly #leftToOthers = new Set<string>();
  /** The keys under which this turn could not perform all calls again, with those that are to be served yet. */
  readonly #wokenElsewhere = new Map<string, Rest>();
  readonly #wokenLater = new Set<string>();
  readonly #inVain = new Set<Parked>();
  readonly #letFirst = new Set<Parked>();
  readonly #behindOthers = new Map<string, Rest>();
  /** The keys that calls wait under from this turn on, and of which other daemons do not know. */
  readonly #toRegister = new Set<string>();
  #until = 0;
  /** The characters of the long answers to calls that have waited. */
  #answersLength = 0;
  /** Connections whose peers have too much to read, as far as was asked in this turn. */
  readonly #withoutRoom = new Set<number>();
  readonly #holders: Holder[] = [];
  #effects: SharedEffects;
  #time: Reading = { now: 0, retentionNow: 0, wallMs: 0 };
  performed = 0;

  constructor(
    setting: TurnSetting,
    session: Session,
    { scopes, isAlone }: { scopes: ReadonlySet<string> | undefined; isAlone: boolean },
  ) {
    this.#setting = setting;
    this.#session = session;
    this.#scopes = scopes;
    this.#isAlone = isAlone;
    this.#effects = new SharedEffects(0, setting.isFollowed);
  }

  /**
   * Its locks are held, and the clock was read behind them.
   *
   * @param waiting the scopes under whose names calls wait at other daemons.
   */
  begin(time: Reading, waiting: readonly string[]): void {
    this.#time = time;
    this.#until = elapsed() + MAX_TURN_MS;
    this.#effects = new SharedEffects(time.wallMs, this.#setting.isFollowed);
    this.#leaveSome(waiting);
  }

  /** What is known of calls before they are performed. */
  ahead(calls: readonly Coming[]): Ahead {
    return aheadOf(calls, this.#scopes ?? NO_SCOPES, this.#memory);
  }

  /** Reads ahead, side by side, what would be read by one call after the other. */
  async readAhead({ reads, keep }: Ahead): Promise<void> {
    await Promise.all(reads.map((read) => this.#session.drive(read)));
    keep();
  }

  /**
   * Others wait under these keys too, or did so before: now and then what comes free is left to them, lest they wait
   * for ever, but not twice in a row.
   */
  #leaveSome(keys: readonly string[]): void {
    const { leftBefore } = this.#setting;
    for (const key of keys) {
      if (!leftBefore.has(key) && pooledRandom(1).readUInt8() < LEFT_TO_OTHERS_OF_256)
        this.#leftToOthers.add(key);
    }
    if (leftBefore.size > 0) for (const key of this.#scopes ?? leftBefore) leftBefore.delete(key);
  }

  get #waiters(): Waiters {
    const { waiters } = this.#setting;
    waiters.goOnWith(this.#marks);
    return waiters;
  }

  get time(): Reading {
    return this.#time;
  }

  async perform(call: ScopedCall): Promise<void> {
    if (this.#goingOn.has(call.caller.connection)) return void this.#later.push(call);
    const outcome = await this.#try(call, call.waitMs > 0 && !call.closed, null);
    if (outcome instanceof Wait) await this.#park(call, outcome);
    else this.#answer(call, outcome);
    await this.#serveWoken();
  }

  async performOwn<T>(start: (env: Env) => Operation<T>): Promise<T> {
    forgetAhead(undefined, this.#memory);
    const result = await this.#session.perform(start(this.#env(DAEMON, false, null)));
    this.#waiters.apart.forget();
    await this.#serveWoken();
    return result;
  }

  /** Answers a call that has waited for as long as it may. False if another turn has it: it is to be tried again. */
  async timeOut(parked: Parked): Promise<boolean> {
    if (parked.state === "gone") return true;
    if (parked.state === "waiting" && this.#holdsUp(parked)) {
      this.#waiters.holdUp(parked, { isTimedOut: true });
      return true;
    }
    if (parked.state !== "waiting" || !this.#take(parked)) return false;
    const outcome = await this.#tryAgain(parked, false, null);
    if (outcome !== GONE) await this.#serve(parked, outcome);
    await this.#serveWoken();
    return true;
  }

  /** Performs a call again that waits, whatever may have made its condition true. */
  async tryAgain(parked: Parked): Promise<void> {
    if (parked.state !== "waiting") return;
    if (this.#holdsUp(parked)) return this.#waiters.holdUp(parked, { isTimedOut: false });
    if (!this.#take(parked)) return;
    const outcome = await this.#tryAgain(parked, true, null);
    if (outcome === GONE) return;
    if (outcome instanceof Wait) {
      this.#register(outcome);
      if (outcome.keysChange) this.#move(parked, outcome.keys);
    } else await this.#serve(parked, outcome);
    await this.#serveWoken();
  }

  /** Performs the calls again that wait under a key, of which the other daemons are told. */
  async wake(key: string): Promise<void> {
    this.#effects.wake(key);
    await this.#serveWoken();
  }

  /**
   * Performs those calls again that wait under a key, of which the other daemons know. Were they told once more,
   * daemons whose calls are granted nothing would wake one another for ever.
   */
  async serveLeft(key: string, rest: Rest): Promise<void> {
    this.#forgetTried();
    await this.#serveKey(key, rest);
    await this.#serveAllWoken();
  }

  /** Writes what the turn has kept in memory. */
  async writeBack(): Promise<void> {
    await this.#session.drive(this.#memory.writeBack());
  }

  /** The keys that it has woken, and of which the other daemons are to know. */
  get woken(): ReadonlySet<string> {
    return this.#effects.woken;
  }

  /** After the commit: what was parked waits. */
  committed(): void {
    this.#waiters.commit();
    this.#free();
  }

  rolledBack(): void {
    this.#waiters.rollBack();
    this.#free();
  }

  #free(): void {
    for (const parked of this.#busy) this.#setting.busy.delete(parked);
    this.#busy.clear();
  }

  carryOut(outlet: Outlet): void {
    this.#effects.carryOut(outlet);
  }

  /** Undefined where there is nothing to be told. */
  get tellAll(): ((effects: Env["effects"]) => void) | undefined {
    return this.#effects.tellsSome ? (effects) => this.#effects.tellAll(effects) : undefined;
  }

  /** Has something done once the turn is committed. */
  afterCommit(action: () => void): void {
    this.#afterwards.push(action);
  }

  /**
   * After the commit: answers every call that does not wait on.
   *
   * @param ageMs how long ago the turn's time was; infinity if nothing that was granted is sure to be held.
   */
  answer(ageMs: number): void {
    for (const action of this.#afterwards) action();
    for (const [index, call] of this.#answered.entries()) call.answered(this.#outcomes[index], ageMs);
  }

  /** The calls that wait since this turn. */
  get parked(): readonly ScopedCall[] {
    return this.#parked;
  }

  get later(): readonly ScopedCall[] {
    return this.#later;
  }

  /** The keys that this turn has woken and of which it could not perform all, with those that are to be served yet. */
  get wokenElsewhere(): ReadonlyMap<string, Rest> {
    return this.#wokenElsewhere;
  }

  /** The keys under which calls wait that are performed once those at other daemons have had time for it. */
  get wokenLater(): ReadonlySet<string> {
    return this.#wokenLater;
  }

  /** The keys that other daemons know from now on that calls wait under here. */
  get registered(): ReadonlySet<string> {
    return this.#toRegister;
  }

  get earliestEnd(): Due {
    return this.#effects.earliestEnd;
  }

  get holders(): readonly Holder[] {
    return this.#holders;
  }

  async #park(call: ScopedCall, wait: Wait): Promise<void> {
    const refusal = this.#waiters.refusal(call, wait);
    if (refusal !== undefined) return this.#answer(call, refusal);
    const parked = this.#waiters.park(call, wait, this.#time.now);
    this.#parked.push(call);
    // Other turns leave it alone before this one is committed.
    this.#take(parked);
    this.#register(wait);
    if (parked.contender !== undefined) await this.#untangle(parked, parked.contender);
  }

  async #untangle(parked: Parked, contender: Contender): Promise<void> {
    const refusal = await this.#findCircle(parked, contender);
    if (refusal !== undefined) await this.#serve(parked, refusal);
  }

  async #findCircle(
    parked: Parked,
    contender: Contender,
    known = new Map<string, unknown>(),
  ): Promise<PawlError | undefined> {
    const { contest } = contender;
    if (await this.#session.perform(contest.someAwaitChildren())) this.#learnAncestors(parked);
    else if (this.#waiters.contenders === 1) {
      this.#waiters.apart.forget();
      return undefined;
    }
    return await this.#session.perform(
      contest.untangle(contender, this.#env(parked.call.caller, false, null, parked), known),
    );
  }

  #learnAncestors(parked: Parked): void {
    const { ancestorsOf } = this.#setting;
    this.#waiters.learnAncestors(parked, MAX_ASKED_FOR_ANCESTORS, ({ caller }) =>
      ancestorsOf(caller).map(nameOfProcess),
    );
  }

  async #try(
    call: Call,
    mayWait: boolean,
    woken: string | null,
    parked?: Parked,
    mayOvertake?: boolean,
  ): Promise<unknown> {
    const session = this.#session;
    this.#effects.begin();
    forgetAhead((call as ScopedCall).coming, this.#memory);
    const operation = call.start(this.#env(call.caller, mayWait, woken, parked, mayOvertake));
    if (call.mayBeUndone) await session.drive(this.#memory.writeBack());
    const heldBefore = this.#effects.holders.length;
    const outcome: Outcome<unknown> = call.mayBeUndone
      ? await session.performOrUndo(operation, isToUndo)
      : await session.perform(operation);
    if (isToUndo(outcome)) {
      this.#effects.forget();
      if (call.mayBeUndone) this.#memory.forget();
    }
    if (this.#effects.holders.length > heldBefore) {
      const scopes = this.#scopesOf(call as ScopedCall, woken);
      for (const connection of this.#effects.holders.slice(heldBefore))
        this.#holders.push({ connection, scopes });
    }
    this.performed += 1;
    if (call.writes !== false && !(outcome instanceof Wait)) this.#waiters.apart.forget();
    return outcome instanceof Tried ? outcome.result : outcome;
  }

  /** Whose rows a call has used, if it was performed because this key was woken. */
  #scopesOf(call: ScopedCall, woken: string | null): readonly string[] {
    return woken === null || this.#scopes === undefined ? call.scopes : call.scopesWhenWoken(woken);
  }

  /**
   * Performs a call again that waits. Its wait may be ended meanwhile: then it is granted nothing, for which the whole
   * turn is undone if need be.
   */
  async #tryAgain(
    parked: Parked,
    mayWait: boolean,
    key: string | null,
    mayOvertake = false,
  ): Promise<unknown> {
    const { refusal } = parked.call;
    const outcome = refusal ?? (await this.#try(parked.call, mayWait, key, parked, mayOvertake));
    // What the type knows of the state is from before.
    if ((parked.state as string) !== "gone") return outcome;
    if (outcome instanceof Wait || outcome instanceof PawlError) return GONE;
    throw new Withdrawn();
  }

  async #serve(parked: Parked, outcome: unknown): Promise<void> {
    this.#inVain.clear();
    this.#behindOthers.clear();
    this.#waiters.serve(parked);
    this.#answersLength += lengthOf(outcome);
    this.#answer(parked.call as ScopedCall, outcome);
    const { holdsBackUnder: keys } = parked;
    if (keys.length > 1 || outcome instanceof PawlError) for (const key of keys) this.#effects.wake(key);
    if (parked.lineKey !== undefined) this.#effects.wake(parked.lineKey);
    const { contender } = parked;
    if (contender !== undefined && !(outcome instanceof PawlError))
      await this.#untangleOthers(parked, contender);
  }

  async #untangleOthers(granted: Parked, contender: Contender): Promise<void> {
    const { contest, caller } = contender;
    if (contest.awaitsChildren) this.#learnAncestors(granted);
    const others = this.#waiters.behindGrant(granted, contender, this.#setting.known(caller));
    if (others.length === 0) return;
    const env = this.#env(caller, false, null);
    const known = new Map<string, unknown>();
    if (others.length > 1 && !(await this.#session.perform(contest.isInCircle(env, known)))) return;
    const last = others.slice(-MAX_UNTANGLED);
    const refused: Refused[] = [];
    for (const [index, other] of last.entries()) {
      if (index < last.length - UNTANGLED && elapsed() >= this.#until) continue;
      const parked = this.#waiters.overtaking(other.overtakeKey);
      const refusal = parked && (await this.#findCircle(parked, other, known));
      if (refusal !== undefined) refused.push({ parked: parked as Parked, contender: other, refusal });
    }
    for (const [index, { parked, contender: other, refusal }] of shortestFirst(refused).entries()) {
      const still = index === 0 ? refusal : await this.#findCircle(parked, other);
      if (still !== undefined) await this.#serve(parked, still);
    }
  }

  async #letsOthersFirst(parked: Parked, contender: Contender): Promise<boolean> {
    const { contest, caller } = contender;
    const known = this.#setting.known(caller);
    if (this.#letFirst.has(parked) || !this.#waiters.mayLetOthersFirst(parked, contender, known))
      return false;
    this.#letFirst.add(parked);
    return await this.#session.perform(contest.letOthersFirst(this.#env(caller, false, null, parked)));
  }

  #answer(call: ScopedCall, outcome: unknown): void {
    if (outcome instanceof Unfinished) return this.#goOn(call, outcome);
    this.#answered.push(call);
    this.#outcomes.push(outcome);
  }

  #goOn(call: ScopedCall, { goOn, heldBytes }: Unfinished<unknown>): void {
    const { connection } = call.caller;
    call.holds?.((call.bytes ?? 0) + heldBytes);
    this.#later.push(call.following(goOn));
    if (connection !== DAEMON.connection) this.#goingOn.add(connection);
  }

  async #serveWoken(): Promise<void> {
    this.#forgetTried();
    await this.#serveAllWoken();
  }

  #forgetTried(): void {
    this.#inVain.clear();
    this.#letFirst.clear();
    this.#behindOthers.clear();
  }

  async #serveAllWoken(): Promise<void> {
    for (let key = this.#effects.nextWoken(); key !== undefined; key = this.#effects.nextWoken()) {
      await this.#serveKey(key);
    }
  }

  async #serveKey(key: string, rest?: Rest): Promise<void> {
    const left = this.#wokenElsewhere.get(key);
    if (left !== undefined) return void this.#wokenElsewhere.set(key, again(left));
    const alone = this.#waiters.overtaking(key);
    if (alone !== undefined) return await this.#overtake(alone, key);
    const line = this.#waiters.wokenBy(key, rest ?? this.#behindOthers.get(key));
    if (line === undefined) return;
    if (this.#leftToOthers.has(key)) return void this.#wokenLater.add(key);
    let isFirst = true;
    for (let parked = line.next(); parked !== undefined; parked = line.next()) {
      if (this.#holdsUp(parked)) {
        this.#waiters.holdUp(parked, { isTimedOut: false });
        continue;
      }
      // The first is served even when the time is over, so that what came free goes to no call that comes later.
      if ((!isFirst && this.#isOver) || !this.#covers(parked, key) || !this.#take(parked)) {
        this.#wokenElsewhere.set(key, line.rest);
        return;
      }
      isFirst = false;
      if (this.#inVain.has(parked)) {
        line.closeSort();
        continue;
      }
      if (parked.contender !== undefined && (await this.#letsOthersFirst(parked, parked.contender))) {
        this.#behindOthers.set(key, line.rest);
        this.#effects.wake(key);
        return;
      }
      const outcome = await this.#tryAgain(parked, true, key);
      if (outcome === GONE) continue;
      if (outcome instanceof Wait) {
        if (outcome.keysChange) this.#move(parked, outcome.keys);
        if (outcome.line === undefined && !outcome.isAlone) line.closeSort();
        if (outcome.isForAll) this.#inVain.add(parked);
        if (outcome.contest !== undefined && parked.contender !== undefined)
          await this.#untangle(parked, parked.contender);
      } else await this.#serve(parked, outcome);
    }
  }

  /** True if those who have waited are to be answered in a later turn. */
  get #isOver(): boolean {
    return this.#answersLength >= MAX_WOKEN_ANSWERS_LENGTH || elapsed() >= this.#until;
  }

  /** True if a call that reads has to wait on since its peer has too much to read (`Attempt`). */
  #holdsUp({ call }: Parked): boolean {
    if (call.writes !== false) return false;
    const { connection } = call.caller;
    if (call.hasRoom === false) this.#withoutRoom.add(connection);
    return this.#withoutRoom.has(connection);
  }

  async #overtake(alone: Parked, key: string): Promise<void> {
    if (!this.#covers(alone, key) || !this.#take(alone)) return void this.#wokenElsewhere.set(key, ALL);
    const outcome = await this.#tryAgain(alone, true, key, true);
    if (outcome === GONE) return;
    if (!(outcome instanceof Wait)) await this.#serve(alone, outcome);
    else if (outcome.line !== undefined) this.#move(alone, outcome.keys);
  }

  #move(parked: Parked, keys: readonly string[]): void {
    this.#waiters.move(parked, keys);
    this.#register({ keys, beginnings: [] });
  }

  #register({ keys, beginnings }: Pick<Wait, "keys" | "beginnings">): void {
    const { registered } = this.#setting;
    for (const key of keys) if (!registered.has(key)) this.#toRegister.add(key);
    for (const key of beginnings) if (!registered.has(key)) this.#toRegister.add(key);
  }

  /** True if this turn has the locks of what a call uses that waits. */
  #covers({ call }: Parked, key: string): boolean {
    if (call.mayBeUndone && !this.#isAlone) return false;
    return (call as ScopedCall).scopesWhenWoken(key).every((scope) => this.#has(scope));
  }

  #has(scope: string): boolean {
    return this.#scopes === undefined || this.#scopes.has(scope);
  }

  /** Takes a call that waits for this turn; false if another one has it. */
  #take(parked: Parked): boolean {
    if (this.#busy.has(parked)) return true;
    if (this.#setting.busy.has(parked)) return false;
    this.#busy.add(parked);
    this.#setting.busy.add(parked);
    return true;
  }

  readonly #reach = (scope: string): void => {
    if (this.#scopes !== undefined && (scope === EVERYTHING || !this.#scopes.has(scope))) {
      throw new ReachesFurther(scope);
    }
  };

  #env(caller: Caller, mayWait: boolean, woken: string | null, parked?: Parked, mayOvertake = false): Env {
    const { mode, idDigits, sign, retentionMs, idMark, known, processOf } = this.#setting;
    const { now, retentionNow, wallMs } = this.#time;
    const waiters = this.#waiters;
    return {
      now,
      retentionNow,
      wallMs,
      mode,
      idDigits,
      caller: known(caller),
      mayWait,
      woken,
      mayGoOn: true,
      effects: this.#effects,
      turn: this.#memory,
      waiting: waiters.waiting,
      waitsBefore:
        parked === undefined ? waiters.someoneWaits : (key, sort) => waiters.waitsBefore(key, parked, sort),
      isLeft: UNKNOWN_HERE,
      before: parked === undefined ? waiters.everyoneIn : (line) => waiters.inLine(line, parked),
      contenders: waiters,
      contender: parked?.contender,
      mayOvertake,
      cancelWaits: NOTHING_CANCELLED,
      random: pooledRandom,
      sign,
      identity: null,
      processOf,
      retentionMs,
      idMark,
      reach: this.#reach,
    };
  }
}

const NO_SCOPES: ReadonlySet<string> = new Set();

/** A call that waited was performed when its wait had been ended. */
const GONE = Symbol("gone");

/** Whom turns leave is known to the lines that perform them. */
const UNKNOWN_HERE = (): boolean => false;

/** `rpc.cancel` is performed in this process's own turns. */
const NOTHING_CANCELLED = (): boolean => false;
