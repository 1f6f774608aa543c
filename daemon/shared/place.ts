// The room of names that several daemons share. One `Place` is one database of PostgreSQL, as this daemon uses it.
//
//     specification  what --shared says
//     places         the places of a daemon, and which of them has a name; connection-order keeps calls in their order
//     place          the database: connecting to it, calls (placed-call) and connections of this daemon, what is told
//     lines, line    calls that use the same scopes: one turn after the other; known-scopes finds the scopes
//     turn, transaction, effects  perform them
//     snapshot-reads reads without a lock          due-ends  what ends by time
//     granted        what connections hold here, and are told when it is lost (held, held-elsewhere, grants-made)
//     other-daemons  whether the others are there  silence   whether the database answers in time
//     graph          who holds what is shared, at whichever daemon
//     messages       what daemons tell each other  connection-number  how they number connections
//     session-pool   the sessions of turns and reads
//     session        one connection, on which operations are driven
//     gathered, batch  statements that go out together
//     statements, schema, tables  the SQL; own-tables has the tables of names in PostgreSQL alone
//     place-clock    the time of the place         failure   what its errors mean
//     within         waits for something for so long
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Mode, NotificationName } from "@pawl/protocol";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import { elapsed, type Reading } from "../clock.js";
import { type About, NOTHING } from "../domain/about.js";
import type { Found } from "../domain/graph.js";
import type { Ends } from "../grants/ends.js";
import { type LostRow, takeLostHolders } from "../grants/on-loss.js";
import { SIGNING_KEY_BYTES, signWith } from "../identity/signature.js";
import type { Operation, Statement } from "../store/statement.js";
import { run } from "../store/statement.js";
import { type Call, DAEMON } from "../turns/call.js";
import type { Outlet } from "../turns/effects.js";
import {
  type Caller,
  type Counter,
  type Env,
  EVERYTHING,
  type Process,
  type Wait,
} from "../turns/operation.js";
import { TurnMemory } from "../turns/turn-memory.js";
import { CANCELLED, type Parked, type Rest, Waiters } from "../turns/waiters.js";
import { numberOf, numbersOf, ownConnection } from "./connection-number.js";
import type { ConnectionOrder } from "./connection-order.js";
import { DueEnds } from "./due-ends.js";
import { classifyShared } from "./failure.js";
import { Granted } from "./granted.js";
import { notedParams } from "./grants-made.js";
import { findShared } from "./graph.js";
import { HeldScopes } from "./held.js";
import { type Elsewhere, KnownScopes } from "./known-scopes.js";
import { type Item, type LinesPlace, SideBySide, type Slot } from "./line.js";
import { Lines } from "./lines.js";
import { Messages, messagesOf } from "./messages.js";
import { LISTENING, type Life, OtherDaemons, TURNS_KEPT_MS, takeNumber } from "./other-daemons.js";
import {
  CLOCK_COLUMNS,
  type ClockStep,
  correctClock,
  LOOK_AT_CLOCK,
  PlaceClock,
  type Seen,
  STEP_MS,
  timeOf,
} from "./place-clock.js";
import { PlacedCall } from "./placed-call.js";
import { placeOf, Session } from "./session.js";
import { SessionPool } from "./session-pool.js";
import { MIN_SILENT_MS, Silence } from "./silence.js";
import { AS_THEY_ARE, SnapshotReads } from "./snapshot-reads.js";
import { TABLES, TablesReplaced, useTables } from "./tables.js";
import type { ScopedCall, SharedTurn, TurnSetting } from "./turn.js";
import { isDoneWithin } from "./within.js";

/** A database that was lost is asked for again after so long, then twice as long, up to the most. */
const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 5000;
/** A start waits no longer for a database that says nothing: local names are served then. */
const STARTING_MS = 2000;
/** A connection is given up that is not there after so long: a server that has stopped says nothing. */
const CONNECTING_MS = 10_000;
/** All that waits is looked at so often, in case a notification was lost. */
const LOOK_MS = 30_000;
/** What a closed connection held is released again so much later where that failed. */
const RELEASE_AGAIN_MS = 1000;
/** The log says no more often that the server refuses something. */
const REFUSED_AGAIN_MS = 10_000;
/** A daemon that stops performs for so long what has come, of the 5 s that it may take. */
const PERFORMING_MS = 1000;
/** Then it waits so long for the answers to commits, and so long for callers to be told. */
const COMMITTING_MS = 500;
const REFUSING_MS = 250;
/** Hexadecimal digits that the ids of the place end with. */
const MARK_DIGITS = 8;
/** The ticks of processes are told apart by so many values of their machines. */
const MACHINES = 2 ** 20;
/** Keys under which nobody waits any more that are withdrawn in one turn. */
const MAX_WITHDRAWN = 200;

export interface PlaceOptions {
  readonly url: string;
  readonly log: Logger;
  readonly mode: Mode;
  readonly idDigits: number;
  readonly retentionMs: () => number;
  readonly endings: Ends;
  /** True if somebody follows events of this daemon. */
  readonly isFollowed: () => boolean;
  /** Tells those, in a turn of this process. */
  readonly tell: (tell: (effects: Env["effects"]) => void) => void;
  readonly outlet: Outlet;
  readonly isOpen: (connection: number) => boolean;
  readonly ancestorsOf: (caller: Caller) => readonly Process[];
  readonly processOf: NonNullable<Env["processOf"]>;
  /** Ends the holder of a grant, who has to stop now, as its connection here. */
  readonly endHolder: (place: Place, row: LostRow, connection: number) => void;
  /** The daemon is there again, which others may have taken for dead: they know nothing of its connections. */
  readonly onReturn: (place: Place) => void;
  /** Which boot of the machine this is; null where the kernel does not say. */
  readonly boot: string | null;
  /** The mark of the ids of the place, as it was kept in an earlier life of the daemon; undefined for none. */
  readonly keptMark: (url: string) => string | undefined;
  readonly keepMark: (url: string, mark: string) => void;
  /** The database is there, or away. */
  readonly onChange: () => void;
}

/** A request that is about names of the place. */
export interface Request {
  readonly method: string;
  /** As they were checked. */
  readonly params: object;
  readonly about: About;
}

export class Place implements LinesPlace {
  readonly #options: PlaceOptions;
  readonly shown: string;
  readonly #schema: string;
  readonly channel: string;
  readonly #waiters = new Waiters((parked) => this.timeOut(parked));
  readonly #turns = new SideBySide(this);
  readonly #lines = new Lines(this.#turns, this.#waiters);
  readonly #order: ConnectionOrder;
  readonly #messages = new Messages();
  readonly clock = new PlaceClock();
  readonly #ends: DueEnds;
  readonly #granted: Granted;
  readonly #scopes = new KnownScopes();
  readonly #reads: SnapshotReads;
  /** Connections of this daemon with grants that end with them, and the scopes that those are in. */
  readonly #holders = new Map<number, HeldScopes>();
  readonly #busy = new Set<Parked>();
  readonly #registered = new Set<string>();
  readonly #pool: SessionPool;
  readonly #silence: Silence;
  readonly #others: OtherDaemons;
  #setting: TurnSetting | undefined;
  readonly #keptMark: string | undefined;
  #life: Life | undefined;
  /** True if others may have taken the last life for dead, until there is another. */
  #isCutOff = false;
  /** Why nothing can be done; undefined while the database is there. */
  #away: PawlError | undefined = NOT_YET;
  #stopped: PawlError | undefined;
  readonly #awaitingReturn: (() => void)[] = [];
  #retryMs = FIRST_RETRY_MS;
  /** When the log said last that the server refuses something. */
  #refusedAt = Number.NEGATIVE_INFINITY;
  #look: NodeJS.Timeout | undefined;

  /** @param order of the calls of connections, at all places. */
  constructor(options: PlaceOptions, order: ConnectionOrder) {
    this.#options = options;
    this.#order = order;
    const { schema, shown } = placeOf(options.url);
    this.shown = shown;
    this.#schema = schema;
    this.channel = `pawl_${schema}`;
    this.#keptMark = options.keptMark(options.url);
    const { url, log, endings } = options;
    const shortestMs = (): number => this.#granted.shortestMs;
    const env = (caller: Caller): Env => this.#readingEnv(caller);
    const performOwn = <T>(start: (env: Env) => Operation<T>): Promise<T> =>
      this.#lines.whole.performOwn(start);
    this.#pool = new SessionPool(
      url,
      () => this.#refusal,
      (error, slot) => this.#failure(error, slot),
    );
    this.#reads = new SnapshotReads(this.#withSlot, env);
    this.#ends = new DueEnds({
      endings,
      clock: this.clock,
      log,
      isServed: () => this.#refusal === undefined,
      withSlot: this.#withSlot,
      env,
      performOwn,
    });
    this.#granted = new Granted({
      scopes: this.#scopes,
      processOf: options.processOf,
      notify: (connection, method, params) => options.outlet.notify(connection, method, params),
      giveBack: (giveBack) => void performOwn(giveBack).catch(() => {}),
      endHolder: (row, connection) => options.endHolder(this, row, connection),
      onLost: (grants, endWithLife) => {
        log.warn({ grants, place: shown }, "holders were told that they lost what they hold");
        // The others may take this daemon for dead, so it comes back as another.
        if (endWithLife) this.#giveUpLife();
      },
      now: () => this.time().now,
      onShorter: () => {
        // It is looked after more often from now on; the turn that granted it was just heard of.
        this.#silence.watch();
        if (this.#life !== undefined) this.#others.lookMoreOften(this.#life);
      },
    });
    this.#silence = new Silence(shortestMs, (forMs) => this.#fellSilent(forMs));
    this.#others = new OtherDaemons({
      url,
      shown,
      lockPrefix: this.#lockPrefix,
      log,
      endings,
      isServed: (life) => this.#life === life && this.#refusal === undefined,
      shortestMs,
      performOwn,
      heardSince: (sentAt) => this.heardSince(sentAt),
      onQuiet: () => void this.#ends.look(),
      // Where that fails the connection is lost, or the next turn does it.
      onClock: (seen, sentAt, life) => void this.#lookAtClock(seen, sentAt, life).catch(() => {}),
      lost: (life, error) => {
        if (this.#life === life) this.lost(error);
      },
    });
  }

  /** Connects. Where the database is away that goes on in the background; throws where it is not fit (`PawlError`). */
  async start(): Promise<void> {
    const connecting = this.#connect();
    try {
      if (!(await isDoneWithin(connecting, STARTING_MS))) {
        this.#options.log.warn(AWAY_AT_START);
        connecting.catch((error) => this.#connectAgain(error));
      }
    } catch (error) {
      if (classifyShared(error) !== "lost") throw error;
      this.#options.log.warn({ err: error }, AWAY_AT_START);
      this.#connectLater();
    }
    if (this.#life !== undefined) await this.#others.inherit(this.#life);
    this.#look = setInterval(() => {
      this.#granted.dropLapsed();
      this.#tryAll();
      this.#withdraw();
      // Another daemon that hangs may know alone of an end.
      void this.#ends.look();
    }, LOOK_MS).unref();
  }

  /** Why nothing can be done; undefined if it can. */
  get #refusal(): PawlError | undefined {
    return this.#stopped ?? this.#away;
  }

  get isConnected(): boolean {
    return this.#away === undefined;
  }

  /** Undefined before the first connection that there ever was. */
  get mark(): string | undefined {
    return this.#setting?.idMark ?? this.#keptMark;
  }

  /** True once the place was connected to, so that it knows what it has signed. */
  get isKnown(): boolean {
    return this.#setting !== undefined;
  }

  /** True if this place has signed a text so. */
  hasSigned(text: string, signature: string): boolean {
    const own = Buffer.from(this.#setting?.sign(text) ?? "");
    const given = Buffer.from(signature);
    return own.length === given.length && timingSafeEqual(own, given);
  }

  get waiting(): number {
    return this.#waiters.size;
  }

  get waitingBytes(): number {
    return this.#waiters.bytes;
  }

  // ---- calls

  /** Performs a call in its order among those of its connection. */
  arrive(call: Call, request: Request): void {
    const refusal = this.#refusal;
    if (refusal !== undefined) return call.settle(refusal);
    const { connection } = call.caller;
    const { bytes = 0 } = call;
    const performed = (): void => this.#order.performed(connection, bytes);
    if (AS_THEY_ARE.has(request.method)) {
      return this.#order.add(connection, AS_THEY_ARE, () => this.#reads.add(call, performed), bytes);
    }
    const known = this.#knownScopes(request);
    const line = known === undefined ? undefined : this.#lines.of(known);
    this.#order.add(connection, line, () => this.perform(call, request, performed, known), bytes);
  }

  /**
   * Performs a call whose turn it is.
   *
   * @param performed called once it is answered, or waits for its condition.
   */
  perform(
    call: Call,
    { method, params, about }: Request,
    performed: () => void,
    known = this.#knownScopes({ method, about }),
  ): void {
    const elsewhere: Elsewhere = new Map();
    const noted = { method, params: notedParams(method, params), elsewhere };
    const remember = this.#remembering(noted, call.caller);
    const perform = (scopes: readonly string[]): void =>
      this.#lines
        .of(scopes)
        .perform(new PlacedCall({ call, about, scopes, coming: { method, params }, remember, performed }));
    if (known !== undefined) return perform(known);
    const asked = RENEWING.has(method) ? elsewhere : undefined;
    this.#scopes
      .find(about, (start) => this.look(start), asked)
      .then(perform, (error) => {
        call.settle(error);
        performed();
      });
  }

  /** Apart from what else performs the call: the function lasts, with all that it knows, as long as that waits. */
  #remembering(
    noted: { readonly method: string; readonly params: object; readonly elsewhere: Elsewhere },
    caller: Caller,
  ): (outcome: unknown, ageMs: number) => unknown {
    return (outcome, ageMs) => {
      if (outcome instanceof Error) return outcome;
      if (noted.method === "queue.explain") return { ...(outcome as object), keptIn: this.shown };
      return this.#granted.note(noted, caller, outcome, ageMs);
    };
  }

  /** Undefined if they have to be looked up. */
  #knownScopes({ method, about }: Pick<Request, "method" | "about">): readonly string[] | undefined {
    // Of what is renewed that was not leased here, its holder may have to be told.
    const isKnown = ({ id }: { readonly id: string }): boolean => this.#granted.knowsDelivery(id);
    if (RENEWING_DELIVERY.has(method) && !about.ids.every(isKnown)) return undefined;
    return this.#scopes.of(about);
  }

  /** Performs an operation that only reads, as the rows are now: without a lock. Rejects where the database is away. */
  async look<T>(start: () => Operation<T>): Promise<T> {
    return await this.#withSlot(({ session }) => session.drive(start()));
  }

  /** Adds who holds what is kept here, and who waits for it at this daemon. Rejects where the database is away. */
  async findHolders(found: Found): Promise<void> {
    await this.#withSlot(async ({ session }) => {
      const { known, ticksHere } = this.setting;
      const looking = { known, ticksHere, own: this.#life?.number ?? 0 };
      try {
        await session.begin([], { toRead: true });
        const env = { ...this.#readingEnv(DAEMON), contenders: this.#waiters };
        await session.drive(findShared(found, env, looking));
      } finally {
        await session.rollback();
      }
    });
  }

  /** For how many milliseconds the last grant lasts of those that connections of this daemon have made or renewed. */
  async lastMs(): Promise<number> {
    const [first, last] = this.#ownConnections;
    const at = await this.look(() => this.#options.endings.latest({ first, last }));
    return at === undefined ? 0 : Math.max(0, at - this.time().now);
  }

  /** Lends a session. Rejects with a refusal where the database is away. */
  readonly #withSlot = async <T>(use: (slot: Slot) => Promise<T>): Promise<T> => {
    const slot = await this.#pool.take();
    try {
      return await use(slot);
    } catch (error) {
      throw this.#failure(error, slot);
    } finally {
      this.#pool.give(slot);
    }
  };

  /** What is thrown for an error of a session. */
  #failure(error: unknown, slot: Slot): unknown {
    return classifyShared(error) === "lost" ? this.lost(error, slot) : this.toldOf(error);
  }

  toldOf(error: unknown): unknown {
    const failure = classifyShared(error);
    if (failure === "full") return NO_SPACE;
    if (failure !== "refused") return error;
    // Somebody took tables or rights away: for that no caller is to blame, nor this daemon.
    if (elapsed() >= this.#refusedAt + REFUSED_AGAIN_MS) {
      this.#refusedAt = elapsed();
      this.#options.log.error({ err: error, place: this.shown }, REFUSES_US);
    }
    const message = `The database of these shared names (${this.shown}) refuses what the daemon needs of it; the daemon's log says what.`;
    return refuse("unavailable", message, { reason: "shared_unavailable" });
  }

  /** A connection was sent a command, and is to be told if others may deliver it anew. */
  sent(connection: number, commandId: string): void {
    this.#granted.sent(connection, commandId);
  }

  /** It has answered, or was told that nobody waits for the answer. */
  answered(commandId: string): void {
    this.#granted.answered(commandId);
  }

  timeOut(parked: Parked): void {
    this.#lines.timeOut(parked);
  }

  goOn(call: ScopedCall): void {
    this.#lines.of(call.scopes).goOn(call);
  }

  reachFurther(item: Item): void {
    this.#lines.whole.submit({ ...item, scopes: [EVERYTHING] });
  }

  wake(keys: Iterable<string>, areKnown: boolean): void {
    this.#lines.wake(keys, areKnown);
  }

  wakeLeft(left: ReadonlyMap<string, Rest>): void {
    this.#lines.wakeLeft(left);
  }

  /** Performs everything again that waits. */
  #tryAll(): void {
    if (this.#away === undefined) this.#lines.tryAll();
  }

  /** Nobody waits any more under some keys that the other daemons know of. */
  #withdraw(): void {
    const life = this.#life;
    if (life === undefined || this.#away !== undefined || this.#registered.size === 0) return;
    const [waiters, registered] = [this.#waiters, this.#registered];
    this.#lines.whole
      .performOwn(function* (): Operation<void> {
        // No other turn is under way: whatever is to wait from now on is registered anew.
        const unused = [...registered].filter((key) => !waiters.hasUnder(key)).slice(0, MAX_WITHDRAWN);
        for (const key of unused) {
          registered.delete(key);
          yield* run(withdrawWaiting, { key, daemon: life.number });
        }
      })
      .catch(() => {});
  }

  // ---- connections

  /** Does something between the calls of a connection (`ConnectionOrder.inOrder`). */
  inOrder(connection: number, begin: (performed: () => void) => void): void {
    this.#order.inOrder(connection, begin);
  }

  /** The peer of a connection has read: answers that there was no room for are made. */
  roomAgain(connection: number): void {
    this.#reads.roomAgain(connection);
    for (const parked of this.#waiters.roomAgain(connection) ?? []) this.timeOut(parked);
    this.wake(this.#waiters.takeLeft(), false);
  }

  /** Ends the waits of a connection that has closed. */
  endWaits(connection: number): void {
    this.#reads.roomAgain(connection);
    this.#waiters.removeOf(connection);
    this.wake(this.#waiters.takeLeft(), false);
  }

  /** Releases what a connection holds that has closed, after what it sent before. */
  disconnect(connection: number): void {
    this.#order.inOrder(connection, (performed) => {
      performed();
      this.#granted.disconnected(connection);
      const held = this.#holders.get(connection);
      this.#holders.delete(connection);
      if (held !== undefined) this.#release(connection, held);
    });
  }

  /** Releases what a connection holds, in a turn that has its scopes alone: others go on beside it. */
  #release(connection: number, held: HeldScopes): void {
    const life = this.#life;
    if (life === undefined || this.#stopped !== undefined) return;
    const known = numberOf(connection, life.number);
    for (const [noun, scopes] of held.byNoun()) {
      const call: Call = {
        caller: DAEMON,
        waitMs: 0,
        closed: false,
        start: (env) => this.#options.endings.disconnect(known, env, noun),
        settle: (outcome) => {
          // Nobody is left to try again, and a grant may have been given for a day.
          if (outcome instanceof Error && this.#stopped === undefined && this.#life?.number === life.number)
            setTimeout(() => this.submit(call, scopes), RELEASE_AGAIN_MS).unref();
        },
      };
      this.submit(call, scopes);
    }
  }

  /** Performs a call of the daemon itself, that uses rows of these scopes. */
  submit(call: Call, scopes: readonly string[] = [EVERYTHING]): void {
    const remember = (outcome: unknown): unknown => outcome;
    this.#lines
      .of(scopes)
      .perform(new PlacedCall({ call, about: NOTHING, scopes, remember, performed: () => {} }));
  }

  /** The holders of lost grants that this daemon has to end. */
  take(env: Env, databaseFile: string): Operation<readonly LostRow[] | Wait> {
    const [first, last] = this.#ownConnections;
    return takeLostHolders(env, { first, last, databaseFile });
  }

  get #ownConnections(): readonly [first: number, last: number] {
    return this.#life === undefined ? NONE : numbersOf(this.#life.number);
  }

  /** The number of a connection of this daemon as all daemons know it. */
  numberOf(connection: number): number {
    return numberOf(connection, this.#life?.number ?? 0);
  }

  /** The number here of a connection as all daemons know it; 0 for one of another daemon. */
  connectionOf(known: number): number {
    return (this.#life && ownConnection(known, this.#life.number)) ?? 0;
  }

  /**
   * The connection here that has to close before others are granted what was lost; 0 for none. Its row may tell none,
   * where others took this daemon for dead before it ended the process.
   */
  connectionOfLost({ connection, grant_id: id }: LostRow): number {
    return this.connectionOf(connection) || this.#granted.toClose(id);
  }

  /** Ends the waits of a connection's requests with this id; true if there was one. */
  cancel(connection: number, id: string | number | null): boolean {
    const parked = this.#waiters.withId(connection, id);
    for (const each of parked) {
      this.#waiters.remove(each);
      each.call.settle(CANCELLED);
    }
    this.wake(this.#waiters.takeLeft(), false);
    return parked.length > 0;
  }

  // ---- turns

  get setting(): TurnSetting {
    return this.#setting as TurnSetting;
  }

  committed(turn: SharedTurn): void {
    for (const call of turn.parked) {
      call.performed();
      // Its connection may have closed while it began to wait.
      if (call.closed) this.endWaits(call.caller.connection);
    }
    for (const key of turn.registered) this.#registered.add(key);
    const life = this.#life;
    for (const { connection: known, scopes } of turn.holders) {
      const connection = life === undefined ? undefined : ownConnection(known, life.number);
      if (connection === undefined || connection === 0) continue;
      const isOpen = this.#options.isOpen(connection);
      const held = (isOpen && this.#holders.get(connection)) || new HeldScopes();
      held.add(scopes);
      if (isOpen) this.#holders.set(connection, held);
      else this.#release(connection, held);
    }
    this.#ends.noLaterThan(turn.earliestEnd);
    turn.carryOut(this.#outlet);
    if (turn.tellAll !== undefined) this.#options.tell(turn.tellAll);
  }

  readonly #outlet: Outlet = {
    count: (counter, by) => {
      // How many there are now is not this daemon's alone to say.
      if (isOfThisLife(counter)) this.#options.outlet.count(counter, by);
    },
    log: (message, details) => this.#options.outlet.log(message, details),
    notify: (known, method, params) => this.#notify(known, method, params),
  };

  /** Tells a connection of this daemon, or has the daemon tell it that has it. */
  #notify(known: number, method: NotificationName, params: object): void {
    const life = this.#life;
    if (life === undefined) return;
    const connection = ownConnection(known, life.number);
    if (connection !== undefined) return this.#tellConnection(connection, method, params);
    for (const message of messagesOf({ from: life.number, to: known, method, params }))
      life.listener.query("SELECT pg_notify($1, $2)", [this.channel, message]).catch(() => {});
  }

  #tellConnection(connection: number, method: NotificationName, params: object): void {
    this.#granted.told(method, params);
    this.#options.outlet.notify(connection, method, params);
  }

  #heard(message: string): void {
    const life = this.#life;
    const told = this.#messages.take(message);
    if (told === undefined || life === undefined || told.from === life.number) return;
    if (told.to !== undefined && told.method !== undefined) {
      const connection = ownConnection(told.to, life.number);
      if (connection !== undefined) this.#tellConnection(connection, told.method, told.params ?? {});
    } else if (told.keys !== undefined) this.wake(told.keys, true);
    else {
      // As one does that has just begun, too.
      this.#tryAll();
      this.#others.look(life);
    }
  }

  /** The database's clock, as far as it is known. */
  time(): Reading {
    return this.clock.time();
  }

  async #lookAtClock(seen: Seen & { tables?: number }, sentAt: number, { listener }: Life): Promise<void> {
    if (seen.tables !== this.setting.tables) {
      this.lost(new TablesReplaced());
      return;
    }
    const step = this.clock.stepIn(seen);
    if (step !== undefined) {
      const againAt = elapsed();
      const [, [again] = []] = await listener.together([correctClock(step), LOOK_AT_CLOCK]);
      this.clock.follow(again as unknown as Seen, againAt);
      return this.clockWasSet(step);
    }
    const { wallMs: expected } = this.time();
    const { wallMs } = this.clock.follow(seen, sentAt);
    if (Math.abs(wallMs - expected) > STEP_MS) void this.#ends.look();
  }

  clockWasSet({ from, to }: ClockStep): void {
    this.#options.log.warn(
      { place: this.shown, byMs: from - to },
      "the clock of the database of shared names was set; what lasts goes on as if it was not",
    );
    void this.#ends.look();
  }

  /** As much as is needed to ask when something ends, or what there is. */
  #readingEnv(caller: Caller): Env {
    const { mode, idDigits, sign, idMark, retentionMs } = this.setting;
    return {
      ...this.time(),
      mode,
      idDigits,
      sign,
      idMark,
      retentionMs,
      caller,
      mayWait: false,
      mayGoOn: false,
      turn: new TurnMemory(),
    } as unknown as Env;
  }

  // ---- sessions

  takeSlot(): Promise<Slot> {
    return this.#pool.take();
  }

  giveSlot(slot: Slot): void {
    this.#pool.give(slot);
  }

  async resolve(slot: Slot): Promise<boolean> {
    const { now: lostAt } = this.time();
    for (;;) {
      if (this.#stopped !== undefined) throw OUTCOME_UNKNOWN;
      if (this.#away !== undefined) await new Promise<void>((resolve) => this.#awaitingReturn.push(resolve));
      let session: Session | undefined;
      try {
        session = await this.#pool.open();
        // The transaction has all its locks until it is over.
        const [, rows = []] = await session.begin([
          {
            text: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL AS locked",
            values: [this.#lockPrefix],
          },
          {
            text: `SELECT turn, ${CLOCK_COLUMNS}
              FROM (VALUES (1)) AS always LEFT JOIN pawl_shared_turn ON daemon = $1 AND slot = $2`,
            values: [slot.daemon, slot.number],
          },
        ]);
        const [found] = rows;
        // Of a machine that slept for days the turn may be forgotten.
        if (found?.turn === null && timeOf(found as unknown as Seen).now - lostAt >= TURNS_KEPT_MS / 2)
          throw OUTCOME_UNKNOWN;
        return found?.turn === slot.turn;
      } catch (error) {
        if (error === OUTCOME_UNKNOWN) throw error;
        if (classifyShared(error) === "lost") this.lost(error);
        await new Promise((resolve) => setTimeout(resolve, FIRST_RETRY_MS));
      } finally {
        await session?.close();
      }
    }
  }

  get #lockPrefix(): string {
    return `pawl ${this.#schema}`;
  }

  // ---- the life of this daemon there

  async #connect(): Promise<void> {
    const listener = await Session.open(this.#options.url, { application: LISTENING });
    const late = setTimeout(() => listener.destroy(), CONNECTING_MS);
    try {
      await useTables(listener);
      const setting = await this.#settingFrom(listener);
      const number = await takeNumber(listener, this.#life?.number, {
        lockPrefix: this.#lockPrefix,
        channel: this.channel,
      });
      await listener.listen(this.channel, (payload) => this.#heard(payload));
      const sessions = await this.#pool.openAll();
      this.#setting = setting;
      if (setting.idMark !== this.#keptMark) this.#options.keepMark(this.#options.url, setting.idMark);
      this.#begin({ number, listener }, sessions);
    } catch (error) {
      listener.destroy();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  async #settingFrom(listener: Session): Promise<TurnSetting> {
    await listener.query(
      "INSERT INTO pawl_meta (key, value) VALUES ('signing_key', $1) ON CONFLICT DO NOTHING",
      [randomBytes(SIGNING_KEY_BYTES).toString("base64")],
    );
    const [row] = await listener.query<{ value: string; tables: number }>(
      `SELECT value, ${TABLES} FROM pawl_meta WHERE key = 'signing_key'`,
    );
    const { value, tables } = row as { value: string; tables: number };
    const key = Buffer.from(value, "base64");
    const idMark = createHash("sha256").update(key).update("mark").digest("hex").slice(0, MARK_DIGITS);
    if (this.#setting !== undefined && idMark !== this.#setting.idMark) throw otherTables(listener.shown);
    const { mode, idDigits, retentionMs, isFollowed, ancestorsOf, boot } = this.#options;
    const machine = createHash("sha256").update(`${boot}`).digest().readUInt32BE() % MACHINES;
    const known = (caller: Caller): Caller => {
      const { connection, startTicks } = caller;
      if (connection === DAEMON.connection) return caller;
      return {
        ...caller,
        connection: numberOf(connection, this.#life?.number ?? 0),
        startTicks: typeof startTicks === "number" ? startTicks * MACHINES + machine : null,
      };
    };
    return {
      mode,
      idDigits,
      sign: signWith(key),
      idMark,
      get retentionMs() {
        return retentionMs();
      },
      isFollowed,
      waiters: this.#waiters,
      busy: this.#busy,
      registered: this.#registered,
      leftBefore: new Set(),
      daemon: () => this.#life?.number ?? 0,
      known,
      ticksHere: (ticks) => (ticks % MACHINES === machine ? Math.floor(ticks / MACHINES) : undefined),
      processOf: (caller) =>
        this.#options.processOf({ ...caller, connection: this.connectionOf(caller.connection) }),
      ancestorsOf: (caller) =>
        ancestorsOf(caller).map(({ pid, startTicks }) => ({
          pid,
          startTicks: startTicks * MACHINES + machine,
        })),
      lockPrefix: this.#lockPrefix,
      tables,
    };
  }

  #begin(life: Life, sessions: readonly Session[]): void {
    if (this.#life !== undefined && this.#life.number !== life.number) this.#giveUpLife();
    this.#life = life;
    this.#away = undefined;
    this.#retryMs = FIRST_RETRY_MS;
    this.clock.begin();
    this.#granted.goOn();
    this.#silence.begin();
    this.#pool.begin(life, life.number, sessions);
    life.listener.onEnd((error) => {
      if (this.#life === life) this.lost(error);
    });
    for (const resolve of this.#awaitingReturn.splice(0)) resolve();
    if (this.#isCutOff) this.#options.onReturn(this);
    this.#isCutOff = false;
    this.#options.log.info(
      { place: this.shown, daemon: life.number },
      "the database of shared names is there",
    );
    this.#options.onChange();
    this.#others.begin(life);
    void this.#ends.look();
    this.#tryAll();
  }

  /** The database has not answered for so long: it is away, or before that holders of short grants are told. */
  #fellSilent(forMs: number): void {
    const { heardAt } = this.#silence;
    if (forMs >= MIN_SILENT_MS || this.#granted.losesLife(heardAt)) {
      this.lost(new Error(`it has not answered for ${Math.round(forMs)} ms`));
      return;
    }
    this.#granted.tellLost(heardAt);
    this.#silence.watch(MIN_SILENT_MS);
  }

  lost(error: unknown, slot?: Slot): PawlError {
    const refusal = this.#refusal;
    if (refusal !== undefined) return refusal;
    // A session of before says nothing of those that there are now.
    if (slot !== undefined && slot.life !== this.#life) return this.#awayRefusal;
    const away = this.#awayRefusal;
    this.#away = away;
    this.#options.log.warn({ err: error, place: this.shown }, "the database of shared names is away");
    this.#options.onChange();
    this.#pool.lose(away);
    this.#granted.cutOff(this.#silence.heardAt);
    this.#life?.listener.destroy();
    this.#others.stop();
    this.#connectLater();
    return away;
  }

  get #awayRefusal(): PawlError {
    return refuse(
      "unavailable",
      `The database of these shared names (${this.shown}) cannot be reached. Ask again in a moment; local names are served meanwhile.`,
      { reason: "shared_unavailable" },
    );
  }

  #connectLater(): void {
    if (this.#stopped !== undefined) return;
    const delayMs = this.#retryMs;
    this.#retryMs = Math.min(2 * delayMs, MAX_RETRY_MS);
    setTimeout(() => {
      if (this.#stopped !== undefined) return;
      this.#connect().catch((error) => this.#connectAgain(error));
    }, delayMs).unref();
  }

  #connectAgain(error: unknown): void {
    if (classifyShared(error) !== "lost")
      this.#options.log.error({ err: error, place: this.shown }, REFUSES_US);
    this.#connectLater();
  }

  heardSince(sentAt: number): void {
    this.#silence.heardSince(sentAt);
  }

  /** The others may take this daemon for dead: what ends with it is lost, and it comes back as another. */
  #giveUpLife(): void {
    if (this.#life === undefined) return;
    this.#holders.clear();
    this.#scopes.clear();
    this.#registered.clear();
    this.#life = undefined;
    this.#isCutOff = true;
    this.#granted.giveUpLife();
  }

  /** Refuses everything from now on. */
  async stop(refusal: PawlError): Promise<void> {
    this.#stopped = refusal;
    this.#others.stop();
    this.#silence.stop();
    this.#granted.goOn();
    clearInterval(this.#look);
    this.#ends.stop();
    this.#refuseWaiting(refusal);
    this.#pool.refuse(refusal);
    for (const resolve of this.#awaitingReturn.splice(0)) resolve();
    // What has come is performed for a while. Then nothing takes effect any more of which nobody would hear: the rest
    // is refused, commits that have gone out are waited for, and of those that say nothing nobody knows what they did.
    const ended = this.#allEnded();
    await isDoneWithin(ended, PERFORMING_MS);
    this.#turns.refuse(refusal);
    await isDoneWithin(ended, COMMITTING_MS);
    this.#pool.lose(refusal);
    await isDoneWithin(ended, REFUSING_MS);
    this.#refuseWaiting(refusal);
  }

  /** Resolves once no turn and no read is under way, and none waits. */
  async #allEnded(): Promise<void> {
    do {
      await Promise.all([this.#turns.ended(), this.#reads.ended()]);
    } while (!(this.#turns.isIdle && this.#reads.isIdle));
  }

  #refuseWaiting(refusal: PawlError): void {
    for (const parked of this.#waiters.all()) {
      this.#waiters.remove(parked);
      parked.call.settle(refusal);
    }
  }

  async close(): Promise<void> {
    const listener = this.#life?.listener;
    this.#life = undefined;
    await Promise.all([this.#pool.close(), listener?.close()]);
  }
}

const withdrawWaiting: Statement<never> = {
  sql: "DELETE FROM pawl_shared_waiting WHERE key = :key AND daemon = :daemon",
};

const NOT_YET = refuse(
  "unavailable",
  "The database of these shared names cannot be reached. Ask again in a moment; local names are served meanwhile.",
  { reason: "shared_unavailable" },
);

const AWAY_AT_START = "the database of shared names is away; local names are served";
const REFUSES_US = "the database of shared names refuses us";

/** Numbers begin anew in tables that were made anew, so nobody goes on there without knowing. */
function otherTables(place: string): PawlError {
  return refuse(
    "invalid_state",
    `The tables in ${place} are not those that this daemon began with: they were made anew, or restored from others. Start the daemon again to go on with them, and what they count from.`,
    { from: "", to: "" },
  );
}

const NO_SPACE = refuse(
  "unavailable",
  "There is no space left for the database of these shared names. Reads go on; writes work again once space is made.",
  { reason: "disk_full" },
);

/** The numbers of no connection, from the first to the last. */
const NONE = [1, 0] as const;

/** True of a counter of what has happened at this daemon. */
function isOfThisLife(counter: Counter): boolean {
  if (counter === "sequencesDispensed" || counter === "commandAnswersLate") return true;
  return counter.startsWith("commandsEnded");
}

/** Methods that may renew what was granted elsewhere. */
const RENEWING_DELIVERY = new Set(["command.renew", "command.progress"]);
const RENEWING = new Set([
  ...RENEWING_DELIVERY,
  ...["lease.heartbeat", "queue.renew", "path.heartbeat", "transact"],
]);

const OUTCOME_UNKNOWN = refuse(
  "unavailable",
  "The daemon could not find out whether this was done, since the database of these shared names did not answer in time. Look before you ask for it again.",
  { reason: "shared_outcome_unknown" },
);
