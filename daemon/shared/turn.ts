import { PawlError } from "@pawl/protocol/errors";
import { elapsed, type Reading } from "../clock.js";
import type { Operation } from "../store/statement.js";
import type { Due } from "../turns/alarm.js";
import { isToUndo, MAX_ASKED_FOR_ANCESTORS, MAX_UNTANGLED, UNTANGLED } from "../turns/attempt.js";
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
import { type Parked, TurnMarks, type Waiters } from "../turns/waiters.js";
import type { Ask } from "./batch.js";
import { SharedEffects } from "./effects.js";
import { messageOfKeys } from "./messages.js";
import type { Session } from "./session.js";
import { arrayOf } from "./statements.js";

/** The same for every turn of a daemon at a place. */
export interface TurnSetting extends Pick<Env, "mode" | "idDigits" | "sign" | "idMark" | "processOf"> {
  /** How long what has ended is kept; may change. */
  readonly retentionMs: number;
  readonly isFollowed: () => boolean;
  readonly waiters: Waiters;
  /** The keys of which all daemons know that calls wait here under them. */
  readonly registered: Set<string>;
  /** The number of this daemon. */
  readonly daemon: () => number;
  /** The calls that wait and that some turn is performing again: no other does so meanwhile. */
  readonly busy: Set<Parked>;
  /** A caller as all daemons know it, whose connection and process are no other's. */
  readonly known: (caller: Caller) => Caller;
  readonly ancestorsOf: (caller: Caller) => readonly Process[];
  /** The text that all locks of the place begin with. */
  readonly lockPrefix: string;
}

/** A call with the scopes of the rows that it uses; `EVERYTHING` is one of them where these are not known. */
export interface ScopedCall extends Call {
  readonly scopes: readonly string[];
  /** The scopes that suffice when it waits and a key was woken. */
  scopesWhenWoken(key: string): readonly string[];
  /** The same call, for a step that follows. */
  following(goOn: Call["start"]): ScopedCall;
  /** It waits for its condition, so that what came later on its connection may be performed. */
  performed(): void;
  /** Settles it with what a turn made of it whose clock was read so long ago. */
  answered(outcome: unknown, ageMs: number): void;
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

const LOCK_PLACE: Ask = {
  name: "pawl_lock_place",
  text: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL AS locked",
};
const LOCK_SCOPES: Ask = {
  name: "pawl_lock_scopes",
  text: `SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0)) IS NULL AS place,
    count(*) FILTER (WHERE pg_advisory_xact_lock(hashtextextended($1 || ' ' || scope, 0)) IS NULL) AS scopes
    FROM unnest($2::text[]) AS scope`,
};
const NOW = `greatest(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    (SELECT max(now_ms) FROM pawl_shared_turn)) AS now`;
/** Only turns that write leave their time: what a read saw as now binds nobody. */
const READ_CLOCK: Ask = { name: "pawl_read_clock", text: `SELECT ${NOW}` };
/** The same, and under which keys of its scopes calls wait at other daemons. */
const READ_CLOCK_AND_WAITING: Ask = {
  name: "pawl_read_clock_and_waiting",
  text: `SELECT ${NOW}, (SELECT json_agg(key) FROM pawl_shared_waiting
    WHERE key = ANY($1::text[]) AND daemon <> $2) AS waiting`,
};
const LEAVE_TURN: Ask = {
  name: "pawl_leave_turn",
  text: `INSERT INTO pawl_shared_turn (daemon, slot, turn, now_ms) VALUES ($1, $2, $3, $4)
    ON CONFLICT (daemon, slot) DO UPDATE SET turn = excluded.turn, now_ms = excluded.now_ms`,
};
const NOTIFY: Ask = {
  name: "pawl_notify_waiting",
  text: `SELECT pg_notify($1, $2) IS NULL AS told
    WHERE EXISTS (SELECT 1 FROM pawl_shared_waiting WHERE key = ANY($3::text[]) AND daemon <> $4)`,
};
const REGISTER: Ask = {
  name: "pawl_register_waiting",
  text: `INSERT INTO pawl_shared_waiting (key, daemon) SELECT key, $2 FROM unnest($1::text[]) AS key
    ON CONFLICT (key, daemon) DO NOTHING`,
};

/** How often what comes free is left to calls that wait at other daemons. */
const LEFT_TO_OTHERS_OF_256 = 64;

/**
 * One transaction over shared names: the twin of the turns' `Attempt`, which awaits. It holds the locks of its scopes
 * from its beginning to its end, so no other turn of any daemon uses their rows meanwhile.
 */
export class SharedTurn {
  readonly #setting: TurnSetting;
  readonly #session: Session;
  /** Undefined for a turn that has the whole place. */
  readonly #scopes: ReadonlySet<string> | undefined;
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
  /** The keys of calls that this turn could not perform again. */
  readonly #wokenElsewhere = new Set<string>();
  readonly #wokenLater = new Set<string>();
  readonly #inVain = new Set<Parked>();
  readonly #letFirst = new Set<Parked>();
  /** The keys that calls wait under from this turn on, and of which other daemons do not know. */
  readonly #toRegister = new Set<string>();
  readonly #until = elapsed() + MAX_TURN_MS;
  #effects: SharedEffects;
  #time: Reading = { now: 0, retentionNow: 0, wallMs: 0 };
  /** When the clock was read again, in milliseconds of `elapsed`, and how much later that was than the turn's time. */
  #readAt = 0;
  #readBeforeMs = 0;
  performed = 0;

  constructor(setting: TurnSetting, session: Session, scopes: ReadonlySet<string> | undefined) {
    this.#setting = setting;
    this.#session = session;
    this.#scopes = scopes;
    this.#effects = new SharedEffects(0, setting.isFollowed);
  }

  /** Opens the transaction, takes its locks, and reads the clock behind them, in one round trip. */
  async begin(): Promise<void> {
    const { lockPrefix } = this.#setting;
    const scopes = this.#scopes;
    // In one order everywhere, so that no two turns wait for each other.
    const keys = arrayOf([...(scopes ?? [])].sort());
    const asks: Ask[] =
      scopes === undefined
        ? [{ ...LOCK_PLACE, values: [lockPrefix] }, READ_CLOCK]
        : [
            { ...LOCK_SCOPES, values: [lockPrefix, keys] },
            { ...READ_CLOCK_AND_WAITING, values: [keys, this.#setting.daemon()] },
          ];
    this.#readAt = elapsed();
    const [, [clock] = []] = await this.#session.begin(asks);
    const now = Number(clock?.now);
    if (typeof clock?.waiting === "string") this.#leaveSome(JSON.parse(clock.waiting) as string[]);
    this.#time = { now, retentionNow: now, wallMs: now };
    this.#effects = new SharedEffects(now, this.#setting.isFollowed);
  }

  /** Others wait under these keys too: now and then what comes free is left to them, lest they wait for ever. */
  #leaveSome(keys: readonly string[]): void {
    for (const key of keys) {
      if (pooledRandom(1).readUInt8() < LEFT_TO_OTHERS_OF_256) this.#leftToOthers.add(key);
    }
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
    const result = await this.#session.perform(start(this.#env(DAEMON, false, null)));
    this.#waiters.apart.forget();
    await this.#serveWoken();
    return result;
  }

  /** Answers a call that has waited for as long as it may. False if another turn has it: it is to be tried again. */
  async timeOut(parked: Parked): Promise<boolean> {
    if (parked.state === "gone") return true;
    if (parked.state !== "waiting" || !this.#take(parked)) return false;
    const outcome = await this.#tryAgain(parked, false, null);
    if (outcome !== GONE) await this.#serve(parked, outcome);
    await this.#serveWoken();
    return true;
  }

  /** Performs a call again that waits, whatever may have made its condition true. */
  async tryAgain(parked: Parked): Promise<void> {
    if (parked.state !== "waiting" || !this.#take(parked)) return;
    const outcome = await this.#tryAgain(parked, true, null);
    if (outcome === GONE) return;
    if (outcome instanceof Wait) {
      this.#register(outcome);
      if (outcome.line !== undefined) this.#move(parked, outcome.keys);
    } else await this.#serve(parked, outcome);
    await this.#serveWoken();
  }

  /** Performs the calls again that wait under these keys. */
  async wake(keys: Iterable<string>): Promise<void> {
    for (const key of keys) this.#effects.wake(key);
    await this.#serveWoken();
  }

  /** The last statements and the commit, in one round trip. */
  async commit(own: { daemon: number; slot: number; turn: number; channel: string }): Promise<void> {
    const session = this.#session;
    await session.drive(this.#memory.writeBack());
    const { daemon } = own;
    const last: Ask[] = [];
    if (this.#toRegister.size > 0) {
      last.push({ ...REGISTER, values: [arrayOf([...this.#toRegister]), daemon] });
    }
    if (session.wrote || last.length > 0) {
      last.push({ ...LEAVE_TURN, values: [daemon, own.slot, own.turn, this.#time.now] });
    }
    const woken = [...this.#effects.woken];
    if (woken.length > 0) {
      const payload = messageOfKeys(daemon, woken);
      const keys = arrayOf(woken.flatMap(beginningsOf));
      last.push({ ...NOTIFY, values: [own.channel, payload, keys, daemon] });
    }
    this.#readAt = elapsed();
    const answers = await session.commit([...last, READ_CLOCK]);
    this.#readBeforeMs = Number(answers.at(-1)?.[0]?.now) - this.#time.now;
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
   * @param isDead true if others have taken the daemon for dead meanwhile: nothing that was granted is sure to be held.
   */
  answer(isDead: boolean): void {
    for (const action of this.#afterwards) action();
    const ageMs = isDead ? Number.POSITIVE_INFINITY : this.#readBeforeMs + elapsed() - this.#readAt;
    for (const [index, call] of this.#answered.entries()) call.answered(this.#outcomes[index], ageMs);
  }

  /** The calls that wait since this turn. */
  get parked(): readonly ScopedCall[] {
    return this.#parked;
  }

  get later(): readonly ScopedCall[] {
    return this.#later;
  }

  /** The keys under which calls wait that this turn has woken and could not perform. */
  get wokenElsewhere(): ReadonlySet<string> {
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

  get holders(): readonly number[] {
    return this.#effects.holders;
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

  async #untangle(parked: Parked, contender: Contender, known = new Map<string, unknown>()): Promise<void> {
    const { ancestorsOf } = this.#setting;
    const { contest } = contender;
    const someAwait = await this.#session.perform(contest.someAwaitChildren());
    if (someAwait) {
      this.#waiters.learnAncestors(parked, MAX_ASKED_FOR_ANCESTORS, ({ caller }) =>
        ancestorsOf(caller).map(nameOfProcess),
      );
    } else if (this.#waiters.contenders === 1) return this.#waiters.apart.forget();
    const refusal = await this.#session.perform(
      contest.untangle(contender, this.#env(parked.call.caller, false, null, parked), known),
    );
    if (refusal !== undefined) await this.#serve(parked, refusal);
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
    const operation = call.start(this.#env(call.caller, mayWait, woken, parked, mayOvertake));
    if (call.mayBeUndone) await session.drive(this.#memory.writeBack());
    const outcome: Outcome<unknown> = call.mayBeUndone
      ? await session.performOrUndo(operation, isToUndo)
      : await session.perform(operation);
    if (isToUndo(outcome)) {
      this.#effects.forget();
      if (call.mayBeUndone) this.#memory.forget();
    }
    this.performed += 1;
    if (call.writes !== false && !(outcome instanceof Wait)) this.#waiters.apart.forget();
    return outcome instanceof Tried ? outcome.result : outcome;
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
    this.#waiters.serve(parked);
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
    const others = this.#waiters.behindGrant(granted, contender, this.#setting.known(caller));
    if (others.length === 0) return;
    const env = this.#env(caller, false, null);
    const known = new Map<string, unknown>();
    if (others.length > 1 && !(await this.#session.perform(contest.isInCircle(env, known)))) return;
    const last = others.slice(-MAX_UNTANGLED);
    for (const [index, other] of last.entries()) {
      if (index < last.length - UNTANGLED && elapsed() >= this.#until) continue;
      const parked = this.#waiters.overtaking(other.overtakeKey);
      if (parked !== undefined) await this.#untangle(parked, other, known);
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

  #goOn(call: ScopedCall, { goOn }: Unfinished<unknown>): void {
    const { connection } = call.caller;
    this.#later.push(call.following(goOn));
    if (connection !== DAEMON.connection) this.#goingOn.add(connection);
  }

  async #serveWoken(): Promise<void> {
    this.#inVain.clear();
    this.#letFirst.clear();
    for (let key = this.#effects.nextWoken(); key !== undefined; key = this.#effects.nextWoken()) {
      if (!this.#wokenElsewhere.has(key)) await this.#serveKey(key);
    }
  }

  async #serveKey(key: string): Promise<void> {
    const alone = this.#waiters.overtaking(key);
    if (alone !== undefined) return await this.#overtake(alone, key);
    const line = this.#waiters.wokenBy(key);
    if (line === undefined) return;
    if (this.#leftToOthers.has(key)) return void this.#wokenLater.add(key);
    let isFirst = true;
    for (let parked = line.next(); parked !== undefined; parked = line.next()) {
      // The first is served even when the time is over, so that what came free goes to no call that comes later.
      if ((!isFirst && elapsed() >= this.#until) || !this.#covers(parked, key) || !this.#take(parked)) {
        this.#wokenElsewhere.add(key);
        return;
      }
      isFirst = false;
      if (this.#inVain.has(parked)) {
        line.closeSort();
        continue;
      }
      if (parked.contender !== undefined && (await this.#letsOthersFirst(parked, parked.contender))) {
        this.#effects.wake(key);
        return;
      }
      const outcome = await this.#tryAgain(parked, true, key);
      if (outcome === GONE) continue;
      if (outcome instanceof Wait) {
        if (outcome.line !== undefined) this.#move(parked, outcome.keys);
        else if (!outcome.isAlone) line.closeSort();
        if (outcome.isForAll) this.#inVain.add(parked);
        if (outcome.contest !== undefined && parked.contender !== undefined)
          await this.#untangle(parked, parked.contender);
      } else await this.#serve(parked, outcome);
    }
  }

  async #overtake(alone: Parked, key: string): Promise<void> {
    if (!this.#covers(alone, key) || !this.#take(alone)) return void this.#wokenElsewhere.add(key);
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

/** A call that waited was performed when its wait had been ended. */
const GONE = Symbol("gone");

/** `rpc.cancel` is performed in this process's own turns. */
const NOTHING_CANCELLED = (): boolean => false;

/** A key, and the beginnings of it that calls may wait under. */
function beginningsOf(key: string): string[] {
  const found = [key];
  for (let at = key.indexOf("/"); at >= 0; at = key.indexOf("/", at + 1)) found.push(key.slice(0, at + 1));
  return found;
}
