// The room of names that several daemons share. One `Place` is one database of PostgreSQL, as this daemon uses it.
//
//     place    the database: connecting, this daemon's life there, other daemons, ends, what waits
//     line     calls that use the same scopes: one turn after the other      turn, transaction  what performs them
//     session  one connection, on which operations are driven                batch  statements that go out together
//     statements, schema, tables  the SQL
//     messages  what daemons tell each other
//     held, held-elsewhere, grants-made  what connections hold here, and are told when it is lost
//     places   the places of a daemon, and which of them has a name
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { hostname } from "node:os";
import type { Mode, NotificationName } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Logger } from "pino";
import { elapsed, type Reading } from "../clock.js";
import { type About, type GivenId, NOTHING, scopeOf, scopesOf } from "../domain/about.js";
import { EXECUTION_TIME } from "../domain/command/ends.js";
import type { Ending } from "../grants/ending.js";
import type { Ends } from "../grants/ends.js";
import { type LostRow, takeLostHolders } from "../grants/on-loss.js";
import { SIGNING_KEY_BYTES, signWith } from "../identity/signature.js";
import type { Operation, Statement } from "../store/statement.js";
import { run } from "../store/statement.js";
import { Alarm, type Due, NEVER, sooner } from "../turns/alarm.js";
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
import { CANCELLED, type Parked, Waiters } from "../turns/waiters.js";
import type { ConnectionOrder } from "./connection-order.js";
import { classifyShared } from "./failure.js";
import { changesBy } from "./grants-made.js";
import { type HeldGrant, HeldGrants } from "./held.js";
import { type Losses, lossesOf } from "./held-elsewhere.js";
import { CallLine, type Item, type LinesPlace, SideBySide, type Slot } from "./line.js";
import { Messages, messageOfAll, messagesOf } from "./messages.js";
import { PlacedCall } from "./placed-call.js";
import { placeOf, Session } from "./session.js";
import { useTables } from "./tables.js";
import type { ScopedCall, SharedTurn, TurnSetting } from "./turn.js";

/** Sessions on which turns go on side by side. */
const SESSIONS = 6;
/** The numbers of connections of one daemon; those of all daemons fit into 2^53. */
const CONNECTIONS_PER_DAEMON = 2 ** 32;
/** A session that is silent within a transaction is ended by the server, so that its locks are free. */
const SILENT_IN_TRANSACTION_MS = 5000;
/** A statement waits for a lock of others for so long. */
const LOCK_TIMEOUT_MS = 30_000;
/** The time between two looks whether the database answers, and whether other daemons have gone. */
const MAX_PULSE_MS = 1000;
const MIN_PULSE_MS = 50;
/** The end of another daemon is waited for so long at once. */
const WATCH_MS = 5000;
/** The last turns of a daemon are kept for so long after it has gone. */
const TURNS_KEPT_MS = 7 * 86_400_000;
/** A database that was lost is asked for again after so long, then twice as long, up to the most. */
const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 5000;
/** A daemon that gets no answer tells its holders after this part of the shortest time that it has granted ... */
const TOLD_AFTER_PART = 1 / 3;
/** A grant is given back instead of answered once this part of its time is over. */
const TOO_LATE_PART = 1 / 2;
/** ... and before others end what is bound to its connections. */
const MAX_TOLD_AFTER_MS = RESTART_GRACE_MS / 3;
/** The time that answers then have to be read. */
const READING_MS = 50;
/** All that waits is looked at so often, in case a notification was lost. */
const LOOK_MS = 30_000;
/** What is due is looked for again so much later where that failed. */
const ENDS_AGAIN_MS = 1000;
/** A daemon that stops waits so long for the turns that are under way. */
const STOP_MS = 1000;
/** Hexadecimal digits that the ids of the place end with. */
const MARK_DIGITS = 8;
/** Claims and leases whose scopes are remembered. */
const MAX_REMEMBERED = 50_000;
/** The ticks of processes are told apart by so many values of their machines. */
const MACHINES = 2 ** 20;
/** Reads of one snapshot. */
const MAX_READS = 64;
/** Keys under which nobody waits any more that are withdrawn in one turn. */
const MAX_WITHDRAWN = 200;
/** Calls under one key that are looked at for the lines that perform them. */
const MAX_WOKEN = 1000;

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
  /** The others take this daemon for dead, and know of nothing that its connections have said. */
  readonly onCutOff: (place: Place) => void;
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

/** A connection of this daemon to the place; the same number goes on with the next, unless others took it for dead. */
export interface Life {
  readonly number: number;
  readonly listener: Session;
}

export class Place implements LinesPlace {
  readonly #options: PlaceOptions;
  readonly shown: string;
  readonly #schema: string;
  readonly channel: string;
  readonly #waiters = new Waiters((parked) => this.timeOut(parked));

  readonly #turns = new SideBySide(this);
  readonly #lines = new Map<string, CallLine>();
  readonly #order: ConnectionOrder;
  readonly #messages = new Messages();
  readonly #held = new HeldGrants();
  readonly #alarm = new Alarm(NEVER, () => void this.#end());
  /** Scopes by the ids of claims and leases that were granted here. */
  readonly #scopes = new Map<string, readonly string[]>();
  /** Connections of this daemon with grants that end with them. */
  readonly #holders = new Set<number>();
  readonly #toRead: Call[] = [];
  #isReading = false;
  readonly #busy = new Set<Parked>();
  readonly #registered = new Set<string>();
  #setting: TurnSetting | undefined;
  readonly #keptMark: string | undefined;
  #life: Life | undefined;
  /** Why nothing can be done; undefined while the database is there. */
  #away: PawlError | undefined = NOT_YET;
  #stopped: PawlError | undefined;
  #wasThere = false;
  #slots: Slot[] = [];
  /** Slots are never used again, so that the row of a turn that nobody heard of stays. */
  #nextSlot = 0;
  readonly #awaitingSlot: { resolve: (slot: Slot) => void; reject: (error: Error) => void }[] = [];
  readonly #awaitingReturn: (() => void)[] = [];
  /** The database's clock ahead of `elapsed`, as it was read last. */
  #aheadMs = 0;
  /** The sending of what was answered last, in milliseconds of `elapsed`. */
  #heardAt = elapsed();
  #retryMs = FIRST_RETRY_MS;
  #ending = false;
  #pulse: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout | undefined;
  /** The connection that is being asked whether it is there. */
  #beating: Life | undefined;
  readonly #buried = new Set<number>();
  /** Others that are not there are taken for dead from then on, in milliseconds of `elapsed`. */
  #buriesFrom = 0;
  /** The daemon whose end is waited for, and the session that waits. */
  #neighbour: number | undefined;
  #watcher: Session | undefined;
  #lookedAround: (() => void) | undefined;

  /** @param order of the calls of connections, at all places. */
  constructor(options: PlaceOptions, order: ConnectionOrder) {
    this.#options = options;
    this.#order = order;
    const { schema, shown } = placeOf(options.url);
    this.shown = shown;
    this.#schema = schema;
    this.channel = `pawl_${schema}`;
    this.#keptMark = options.keptMark(options.url);
  }

  /** Connects. Where the database is away that goes on in the background; throws where it is not fit (`PawlError`). */
  async start(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      if (classifyShared(error) !== "lost") throw error;
      this.#options.log.warn({ err: error }, "the database of shared names is away; local names are served");
      this.#connectLater();
    }
    this.#look = setInterval(() => {
      this.#tryAll();
      this.#withdraw();
      // Another daemon that hangs may know alone of an end.
      void this.#end();
    }, LOOK_MS).unref();
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

  // ---- calls

  /** Performs a call in its order among those of its connection. */
  arrive(call: Call, request: Request): void {
    const refusal = this.#stopped ?? this.#away;
    if (refusal !== undefined) return call.settle(refusal);
    const { connection } = call.caller;
    if (AS_THEY_ARE.has(request.method)) {
      return this.#order.add(connection, AS_THEY_ARE, () => {
        this.#toRead.push(call);
        void this.#read();
      });
    }
    const known = this.#knownScopes(request.about);
    const line = known === undefined ? undefined : this.#lineOf(known);
    this.#order.add(connection, line, () =>
      this.perform(call, request, () => this.#order.performed(connection), known),
    );
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
    known = this.#knownScopes(about),
  ): void {
    const elsewhere: Elsewhere = new Map();
    const remember = (outcome: unknown, ageMs: number): unknown =>
      this.#remember({ method, params, elsewhere }, call, outcome, ageMs);
    const perform = (scopes: readonly string[]): void =>
      this.#lineOf(scopes).perform(new PlacedCall({ call, about, scopes, remember, performed }));
    if (known !== undefined) return perform(known);
    this.#findScopes(about, RENEWING.has(method) ? elsewhere : undefined).then(perform, (error) => {
      call.settle(error);
      performed();
    });
  }

  /**
   * Performs reads without a lock, all that have arrived in one snapshot: a long list would keep a queue, and figures
   * of all queues the whole place, from everybody who works there.
   */
  async #read(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    while (this.#toRead.length > 0) {
      let calls: readonly Call[] = this.#toRead.splice(0, MAX_READS);
      try {
        const slot = await this.takeSlot();
        try {
          await slot.session.begin([], { toRead: true });
          for (const call of calls) {
            const outcome = await slot.session.perform(call.start(this.#readingEnv(call.caller)));
            calls = calls.slice(1);
            call.settle(outcome);
            this.#order.performed(call.caller.connection);
          }
        } catch (error) {
          throw classifyShared(error) === "lost" ? this.lost(error, slot) : error;
        } finally {
          await slot.session.rollback();
          this.giveSlot(slot);
        }
      } catch (error) {
        // Of a defect only the first one is to blame.
        const failed = error instanceof PawlError ? calls : calls.slice(0, 1);
        this.#toRead.unshift(...calls.slice(failed.length));
        for (const call of failed) {
          call.settle(error);
          this.#order.performed(call.caller.connection);
        }
      }
    }
    this.#isReading = false;
  }

  /** Undefined if they have to be looked up. */
  #knownScopes(about: About): readonly string[] | undefined {
    if (about.reaches) return [EVERYTHING];
    const scopes = [...about.names.map(scopeOf), ...about.beside];
    for (const { id } of about.ids) {
      const known = this.#scopes.get(id);
      if (known === undefined) return undefined;
      scopes.push(...known);
    }
    return [...new Set(scopes)];
  }

  /** @param elsewhere is given what holders have to be told of what was not granted here; undefined if nobody asks. */
  async #findScopes(about: About, elsewhere?: Elsewhere): Promise<readonly string[]> {
    const scopes = [...about.names.map(scopeOf), ...about.beside];
    for (const given of about.ids) {
      const found = await this.look(() => scopesOf(given));
      scopes.push(...found);
      if (found.length > 0) this.#rememberScopes(given, found);
      elsewhere?.set(given.id, await this.look(() => lossesOf(given)));
    }
    // What is not there is refused by any turn.
    return scopes.length === 0 ? [NOWHERE] : [...new Set(scopes)];
  }

  /** Performs an operation that only reads, as the rows are now: without a lock. Rejects where the database is away. */
  async look<T>(start: () => Operation<T>): Promise<T> {
    const slot = await this.takeSlot();
    try {
      return await slot.session.drive(start());
    } catch (error) {
      throw classifyShared(error) === "lost" ? this.lost(error, slot) : error;
    } finally {
      this.giveSlot(slot);
    }
  }

  #rememberScopes({ kind, id }: Pick<GivenId, "kind" | "id">, scopes: readonly string[]): void {
    if (kind === "batch") return;
    if (this.#scopes.size >= MAX_REMEMBERED) this.#scopes.clear();
    this.#scopes.set(id, scopes);
  }

  /** Notes what a call was granted, or has given back. */
  #remember(
    { method, params, elsewhere }: Pick<Request, "method" | "params"> & { readonly elsewhere: Elsewhere },
    { caller }: Call,
    outcome: unknown,
    ageMs: number,
  ): unknown {
    if (outcome instanceof Error) return outcome;
    if (method === "queue.explain") return { ...(outcome as object), keptIn: this.shown };
    const changes = changesBy(method, params, outcome);
    const { connection } = caller;
    if (changes.some(({ ttlMs }) => ttlMs > 0 && ageMs >= ttlMs * TOO_LATE_PART)) {
      for (const { giveBack } of changes) if (giveBack !== undefined) this.#giveBack(giveBack);
      if (method !== "transact") return TOO_LATE;
      // The rest of it was done: it is answered as it is, and then its holder is told.
      setImmediate(() => {
        for (const { tell = [] } of changes) this.#tellLost(connection, tell);
      });
      return outcome;
    }
    for (const { id, scopes, ttlMs, tell, onLoss: ending } of changes) {
      if (ttlMs === 0) {
        this.#scopes.delete(id);
        this.#held.drop(id);
        continue;
      }
      if (scopes !== undefined) this.#rememberScopes({ kind: "claim", id }, scopes);
      const other = tell !== undefined || this.#held.has(id) ? undefined : elsewhere.get(id);
      const told = tell ?? other?.tell;
      if (told === undefined) this.#held.renew(id, ttlMs);
      else if (told.length > 0) {
        const how = ending ?? other?.ending;
        const holder = how && this.#options.processOf(caller);
        const onLoss = how && holder && !(holder instanceof PawlError) ? { ...how, holder } : undefined;
        this.#hold(id, { connection, ttlMs, tell: told, onLoss });
      }
    }
    return outcome;
  }

  /** A connection of this daemon is to be told if others may end this. */
  #hold(id: string, grant: HeldGrant): void {
    const { shortestMs } = this.#held;
    this.#held.keep(id, grant);
    if (this.#held.shortestMs >= shortestMs) return;
    // What has a shorter time is looked after more often from now on; the turn that granted it was just heard of.
    this.#watchSilence();
    if (this.#life !== undefined && this.#beating !== this.#life) this.#beatLater(this.#life);
  }

  /** A connection was sent a command, and is to be told if others may deliver it anew. */
  sent(connection: number, commandId: string): void {
    const params = { commandId, reason: EXECUTION_TIME };
    const tell = [{ method: "command.cancelled" as const, params }];
    this.#hold(commandId, { connection, ttlMs: RESTART_GRACE_MS, tell, onLoss: undefined });
  }

  /** It has answered, or was told that nobody waits for the answer. */
  answered(commandId: string): void {
    this.#held.drop(commandId);
  }

  /** Gives back what was granted, and nobody was told of in time. If that fails, it ends by its time. */
  #giveBack(giveBack: (env: Env) => Operation<unknown>): void {
    this.#whole.performOwn(giveBack).catch(() => {});
  }

  #lineOf(scopes: readonly string[]): CallLine {
    const hasAll = scopes.includes(EVERYTHING);
    // Circles of waits for what is held are looked for in one line, one turn after the other.
    const key = hasAll ? EVERYTHING : HELD.test(scopes[0] ?? "") ? "held" : (scopes[0] ?? NOWHERE);
    let line = this.#lines.get(key);
    if (line === undefined) {
      line = new CallLine(this.#turns, hasAll, () => void this.#lines.delete(key));
      this.#lines.set(key, line);
    }
    return line;
  }

  get #whole(): CallLine {
    return this.#lineOf([EVERYTHING]);
  }

  timeOut(parked: Parked): void {
    this.#lineOf((parked.call as ScopedCall).scopes).timeOut(parked);
  }

  goOn(call: ScopedCall): void {
    this.#lineOf(call.scopes).goOn(call);
  }

  reachFurther(item: Item): void {
    this.#whole.submit({ ...item, scopes: [EVERYTHING] });
  }

  wake(keys: Iterable<string>): void {
    for (const key of keys) {
      const alone = this.#waiters.overtaking(key);
      if (alone !== undefined) {
        const { scopes, mayBeUndone = false } = alone.call as ScopedCall;
        this.#lineOf(scopes).wake(key, scopes, mayBeUndone);
        continue;
      }
      const woken = this.#waiters.wokenBy(key);
      const byLine = new Map<CallLine, Set<string>>();
      let mayBeUndone = false;
      let left = MAX_WOKEN;
      for (let parked = woken?.next(); parked !== undefined && left > 0; parked = woken?.next()) {
        left -= 1;
        const scopes = (parked.call as ScopedCall).scopesWhenWoken(key);
        const line = this.#lineOf(scopes);
        const all = byLine.get(line) ?? new Set();
        for (const scope of scopes) all.add(scope);
        byLine.set(line, all);
        if (parked.call.mayBeUndone === true) mayBeUndone = true;
      }
      for (const [line, scopes] of byLine) line.wake(key, [...scopes], mayBeUndone);
    }
  }

  /** Performs everything again that waits. */
  #tryAll(): void {
    if (this.#away !== undefined) return;
    for (const parked of this.#waiters.all())
      this.#lineOf((parked.call as ScopedCall).scopes).tryAgain(parked);
  }

  /** Nobody waits any more under some keys that the other daemons know of. */
  #withdraw(): void {
    const life = this.#life;
    if (life === undefined || this.#away !== undefined || this.#registered.size === 0) return;
    const [waiters, registered] = [this.#waiters, this.#registered];
    this.#whole
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

  /** Ends the waits of a connection that has closed. */
  endWaits(connection: number): void {
    this.#waiters.removeOf(connection);
    this.wake(this.#waiters.takeLeft());
  }

  /** Releases what a connection holds that has closed, after what it sent before. */
  disconnect(connection: number): void {
    this.#order.inOrder(connection, (performed) => {
      performed();
      this.#held.dropOf(connection);
      if (this.#holders.delete(connection)) this.#release(connection);
    });
  }

  #release(connection: number): void {
    const life = this.#life;
    if (life === undefined || this.#stopped !== undefined) return;
    const known = numberOf(connection, life.number);
    this.submit({
      caller: DAEMON,
      waitMs: 0,
      closed: false,
      start: (env) => this.#options.endings.disconnect(known, env),
      settle: (outcome) => {
        // Nobody is left to try again, and a grant may have been given for a day.
        if (outcome instanceof Error && this.#stopped === undefined && this.#life?.number === life.number)
          setTimeout(() => this.#release(connection), ENDS_AGAIN_MS).unref();
      },
    });
  }

  /** Performs a call of the daemon itself, that uses rows of these scopes. */
  submit(call: Call, scopes: readonly string[] = [EVERYTHING]): void {
    const remember = (outcome: unknown): unknown => outcome;
    this.#lineOf(scopes).perform(
      new PlacedCall({ call, about: NOTHING, scopes, remember, performed: () => {} }),
    );
  }

  /** The holders of lost grants that this daemon has to end. */
  take(env: Env, databaseFile: string): Operation<readonly LostRow[] | Wait> {
    const number = this.#life?.number;
    const [first, last] = number === undefined ? NONE : [numberOf(0, number), numberOf(0, number + 1) - 1];
    return takeLostHolders(env, { first, last, databaseFile });
  }

  /** The number of a connection of this daemon as all daemons know it. */
  numberOf(connection: number): number {
    return numberOf(connection, this.#life?.number ?? 0);
  }

  /** The number here of a connection as all daemons know it; 0 for one of another daemon. */
  connectionOf(known: number): number {
    return (this.#life && ownConnection(known, this.#life.number)) ?? 0;
  }

  /** Ends the waits of a connection's requests with this id; true if there was one. */
  cancel(connection: number, id: string | number | null): boolean {
    const parked = this.#waiters.withId(connection, id);
    for (const each of parked) {
      this.#waiters.remove(each);
      each.call.settle(CANCELLED);
    }
    this.wake(this.#waiters.takeLeft());
    return parked.length > 0;
  }

  // ---- turns

  get setting(): TurnSetting {
    return this.#setting as TurnSetting;
  }

  committed(turn: SharedTurn): void {
    const { now } = turn.time;
    this.#aheadMs = now - elapsed();
    for (const call of turn.parked) {
      call.performed();
      // Its connection may have closed while it began to wait.
      if (call.closed) this.endWaits(call.caller.connection);
    }
    for (const key of turn.registered) this.#registered.add(key);
    const life = this.#life;
    for (const known of turn.holders) {
      const connection = life === undefined ? undefined : ownConnection(known, life.number);
      if (connection === undefined || connection === 0) continue;
      if (this.#options.isOpen(connection)) this.#holders.add(connection);
      else this.#release(connection);
    }
    this.#alarm.noLaterThan(byOneClock(turn.earliestEnd));
    this.#alarm.wind(this.time());
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
    if (ENDS_HELD.has(method)) {
      const { leaseId, claimId, reservationId, commandId } = params as Record<string, string | undefined>;
      this.#held.drop((leaseId ?? claimId ?? reservationId ?? commandId) as string);
    }
    this.#options.outlet.notify(connection, method, params);
  }

  #heard(message: string): void {
    const life = this.#life;
    const told = this.#messages.take(message);
    if (told === undefined || life === undefined || told.from === life.number) return;
    if (told.to !== undefined && told.method !== undefined) {
      const connection = ownConnection(told.to, life.number);
      if (connection !== undefined) this.#tellConnection(connection, told.method, told.params ?? {});
    } else if (told.keys !== undefined) this.wake(told.keys);
    else {
      // As one does that has just begun, too.
      this.#tryAll();
      this.#beat(life);
    }
  }

  /** The database's clock, as far as it is known. */
  time(): Reading {
    const now = Math.floor(elapsed() + this.#aheadMs);
    return { now, retentionNow: now, wallMs: now };
  }

  /** Ends what is due, if anything is: that is looked at without a lock. */
  async #end(): Promise<void> {
    if (this.#ending || this.#away !== undefined) return;
    this.#ending = true;
    // What is granted meanwhile says by itself when it ends.
    this.#alarm.setTo(NEVER);
    try {
      const { due, next } = await this.#lookForEnds();
      this.#alarm.noLaterThan(byOneClock(next));
      if (due.length > 0) {
        const { endings } = this.#options;
        this.#alarm.noLaterThan(byOneClock(await this.#whole.performOwn((env) => endings.expire(env, due))));
      }
    } catch (error) {
      this.#alarm.noLaterThan({ ...NEVER, at: this.time().now + ENDS_AGAIN_MS });
      if (this.#away === undefined && this.#stopped === undefined)
        this.#options.log.error({ err: error }, "what has ended of shared names cannot be ended now");
    }
    this.#ending = false;
    if (this.#stopped === undefined) this.#alarm.wind(this.time());
  }

  /** What has something due, and when something of the others will be; all are asked at once. */
  async #lookForEnds(): Promise<{ due: readonly Ending[]; next: Due }> {
    const slot = await this.takeSlot();
    const { session } = slot;
    try {
      await session.begin([], { toRead: true });
      const [clock] = await session.query<{ now: number }>(
        "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now",
      );
      this.#aheadMs = Math.max(this.#aheadMs, Number(clock?.now) - elapsed());
      const env = this.#readingEnv(DAEMON);
      const { all } = this.#options.endings;
      const earliest = await Promise.all(all.map((ending) => session.drive(ending.earliest(env))));
      const isDue = ({ at, wallAt }: Due): boolean => at <= env.now || wallAt <= env.wallMs;
      return {
        due: all.filter((_, index) => isDue(earliest[index] as Due)),
        next: earliest.filter((each) => !isDue(each)).reduce(sooner, NEVER),
      };
    } catch (error) {
      if (classifyShared(error) === "lost") throw this.lost(error);
      throw error;
    } finally {
      await session.rollback();
      this.giveSlot(slot);
    }
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

  async takeSlot(): Promise<Slot> {
    const refusal = this.#stopped ?? this.#away;
    if (refusal !== undefined) throw refusal;
    const free = this.#slots.pop();
    if (free?.session.isOpen) return free;
    if (free !== undefined) {
      // Only this session was lost: a new one takes its place.
      try {
        return { ...free, session: await this.#openForTurns() };
      } catch (error) {
        throw classifyShared(error) === "lost" ? this.lost(error, free) : error;
      }
    }
    return await new Promise((resolve, reject) => this.#awaitingSlot.push({ resolve, reject }));
  }

  giveSlot(slot: Slot): void {
    if (slot.life !== this.#life || this.#away !== undefined) return slot.session.destroy();
    const next = this.#awaitingSlot.shift();
    this.#slots.push(slot);
    if (next !== undefined) this.takeSlot().then(next.resolve, next.reject);
  }

  async #openForTurns(): Promise<Session> {
    const session = await Session.open(this.#options.url);
    await session.script(
      `SET idle_in_transaction_session_timeout = ${SILENT_IN_TRANSACTION_MS}; SET lock_timeout = ${LOCK_TIMEOUT_MS}`,
    );
    return session;
  }

  async resolve(slot: Slot): Promise<boolean> {
    const { now: lostAt } = this.time();
    for (;;) {
      if (this.#stopped !== undefined) throw OUTCOME_UNKNOWN;
      if (this.#away !== undefined) await new Promise<void>((resolve) => this.#awaitingReturn.push(resolve));
      let session: Session | undefined;
      try {
        session = await this.#openForTurns();
        // The transaction has all its locks until it is over.
        const [, rows = []] = await session.begin([
          {
            text: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL AS locked",
            values: [this.#lockPrefix],
          },
          {
            text: `SELECT turn, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
              FROM (VALUES (1)) AS always LEFT JOIN pawl_shared_turn ON daemon = $1 AND slot = $2`,
            values: [slot.daemon, slot.number],
          },
        ]);
        const [found] = rows;
        // Of a machine that slept for days the turn may be forgotten.
        if (found?.turn === null && Number(found.now) - lostAt >= TURNS_KEPT_MS / 2) throw OUTCOME_UNKNOWN;
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
    const listener = await Session.open(this.#options.url);
    try {
      await useTables(listener);
      const setting = await this.#settingFrom(listener);
      const number = await this.#takeNumber(listener);
      await listener.listen(this.channel, (payload) => this.#heard(payload));
      const sessions = await Promise.all(Array.from({ length: SESSIONS }, () => this.#openForTurns()));
      this.#setting = setting;
      if (setting.idMark !== this.#keptMark) this.#options.keepMark(this.#options.url, setting.idMark);
      this.#begin({ number, listener }, sessions);
    } catch (error) {
      listener.destroy();
      throw error;
    }
  }

  async #settingFrom(listener: Session): Promise<TurnSetting> {
    await listener.query(
      "INSERT INTO pawl_meta (key, value) VALUES ('signing_key', $1) ON CONFLICT DO NOTHING",
      [randomBytes(SIGNING_KEY_BYTES).toString("base64")],
    );
    const [row] = await listener.query<{ value: string }>(
      "SELECT value FROM pawl_meta WHERE key = 'signing_key'",
    );
    const key = Buffer.from((row as { value: string }).value, "base64");
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
      idMark: createHash("sha256").update(key).update("mark").digest("hex").slice(0, MARK_DIGITS),
      get retentionMs() {
        return retentionMs();
      },
      isFollowed,
      waiters: this.#waiters,
      busy: this.#busy,
      registered: this.#registered,
      daemon: () => this.#life?.number ?? 0,
      known,
      processOf: (caller) =>
        this.#options.processOf({ ...caller, connection: this.connectionOf(caller.connection) }),
      ancestorsOf: (caller) =>
        ancestorsOf(caller).map(({ pid, startTicks }) => ({
          pid,
          startTicks: startTicks * MACHINES + machine,
        })),
      lockPrefix: this.#lockPrefix,
    };
  }

  /** The number that this daemon had, if nobody has taken it for dead; otherwise one that nobody had. */
  async #takeNumber(listener: Session): Promise<number> {
    const former = this.#life?.number;
    if (former !== undefined) {
      const [row] = await listener.query<{ taken: number }>(
        `SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AND EXISTS
          (SELECT 1 FROM pawl_shared_daemon WHERE number = $2) AS taken`,
        [this.#lifeLock(former), former],
      );
      if (row?.taken === 1) return former;
    }
    const [row] = await listener.query<{ number: number }>(
      "SELECT nextval('pawl_shared_daemon_number') AS number",
    );
    const { number } = row as { number: number };
    // The lock is there before the row, so that nobody sees one without the other.
    await listener.query("SELECT pg_advisory_lock(hashtextextended($1, 0)) IS NULL AS locked", [
      this.#lifeLock(number),
    ]);
    await listener.query("INSERT INTO pawl_shared_daemon (number, node) VALUES ($1, $2)", [
      number,
      hostname(),
    ]);
    await listener.query("SELECT pg_notify($1, $2)", [this.channel, messageOfAll(number)]);
    return number;
  }

  #lifeLock(number: number): string {
    return `${this.#lockPrefix} daemon ${number}`;
  }

  #begin(life: Life, sessions: readonly Session[]): void {
    if (this.#life !== undefined && this.#life.number !== life.number) this.#giveUpLife();
    this.#life = life;
    this.#away = undefined;
    this.#retryMs = FIRST_RETRY_MS;
    this.#heardAt = elapsed();
    this.#slots = sessions.map((session, index) => ({
      life,
      daemon: life.number,
      number: this.#nextSlot + index,
      turn: 0,
      session,
    }));
    this.#nextSlot += sessions.length;
    life.listener.onEnd((error) => {
      if (this.#life === life) this.lost(error);
    });
    for (const resolve of this.#awaitingReturn.splice(0)) resolve();
    // A server that was away was so for all of them; whoever is not back by then has told its holders.
    if (this.#wasThere) this.#buriesFrom = elapsed() + MAX_TOLD_AFTER_MS;
    this.#wasThere = true;
    this.#options.log.info(
      { place: this.shown, daemon: life.number },
      "the database of shared names is there",
    );
    this.#options.onChange();
    this.#beat(life);
    void this.#watch(life);
    void this.#end();
    this.#tryAll();
  }

  lost(error: unknown, slot?: Slot): PawlError {
    const refusal = this.#stopped ?? this.#away;
    if (refusal !== undefined) return refusal;
    // A session of before says nothing of those that there are now.
    if (slot !== undefined && slot.life !== this.#life) return this.#awayRefusal;
    const away = this.#awayRefusal;
    this.#away = away;
    clearTimeout(this.#pulse);
    this.#options.log.warn({ err: error, place: this.shown }, "the database of shared names is away");
    this.#options.onChange();
    for (const { session } of this.#slots.splice(0)) session.destroy();
    this.#life?.listener.destroy();
    this.#watcher?.destroy();
    for (const { reject } of this.#awaitingSlot.splice(0)) reject(away);
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
      this.#connect().catch((error) => {
        if (classifyShared(error) !== "lost")
          this.#options.log.error(
            { err: error, place: this.shown },
            "the database of shared names refuses us",
          );
        this.#connectLater();
      });
    }, delayMs).unref();
  }

  /** Looks whether the database answers, and whether another daemon has gone. */
  #beat(life: Life): void {
    if (this.#life !== life || this.#away !== undefined || this.#stopped !== undefined) return;
    if (this.#beating === life) return;
    clearTimeout(this.#pulse);
    this.#beating = life;
    const sentAt = elapsed();
    const buries = sentAt >= this.#buriesFrom;
    life.listener
      .query<{ number: number; dead: number }>(
        `SELECT number,
            CASE WHEN $3 THEN pg_try_advisory_lock(hashtextextended($2 || ' daemon ' || number, 0)) ELSE false END AS dead
          FROM pawl_shared_daemon WHERE number <> $1 ORDER BY number`,
        [life.number, this.#lockPrefix, buries ? 1 : 0],
        "pawl_look_at_others",
      )
      .then(
        (others) => {
          if (this.#life !== life) return;
          this.#beating = undefined;
          this.heardSince(sentAt);
          for (const { number, dead } of others) {
            if (dead === 1)
              void this.#bury(number, "looked at").then(() => this.#unlock(number, life.listener));
          }
          const [first, next = first] = [others[0], others.find(({ number }) => number > life.number)];
          this.#neighbour = next?.number;
          this.#lookedAround?.();
          this.#beatLater(life);
        },
        (error) => {
          if (this.#life === life) this.lost(error);
        },
      );
  }

  #beatLater(life: Life): void {
    clearTimeout(this.#pulse);
    const shortestMs = this.#held.shortestMs * TOLD_AFTER_PART;
    const pulseMs = Math.min(Math.max(shortestMs / 4, MIN_PULSE_MS), MAX_PULSE_MS);
    this.#pulse = setTimeout(() => this.#beat(life), pulseMs).unref();
  }

  /**
   * Waits for the end of the next daemon in a ring of all of them, whose lock is free then. A wait holds up what the
   * server cleans away, so none lasts long, and one that is over is no error that the server would log.
   */
  async #watch(life: Life): Promise<void> {
    try {
      const session = await Session.open(this.#options.url);
      if (this.#life !== life || this.#away !== undefined || this.#stopped !== undefined)
        return session.destroy();
      this.#watcher = session;
      await session.script(`SET lock_timeout = ${WATCH_MS}`);
      while (this.#life === life && this.#away === undefined && this.#stopped === undefined) {
        const number = this.#neighbour;
        if (number === undefined || elapsed() < this.#buriesFrom) {
          await new Promise<void>((resolve) => {
            this.#lookedAround = resolve;
          });
          continue;
        }
        const key = `hashtextextended('${this.#lifeLock(number)}', 0)`;
        const [, [lock] = []] = await session.together([
          {
            text: `DO 'BEGIN PERFORM pg_advisory_lock_shared(${key.replaceAll("'", "''")}); EXCEPTION WHEN lock_not_available THEN END'`,
          },
          { text: `SELECT pg_try_advisory_lock_shared(${key}) AS free` },
        ]);
        if (lock?.free !== 1) continue;
        if (this.#neighbour === number) this.#neighbour = undefined;
        await this.#bury(number, "waited for");
        await session.query("SELECT pg_advisory_unlock_all() IS NULL AS free");
      }
    } catch (error) {
      if (this.#life !== life || this.#away !== undefined || this.#stopped !== undefined) return;
      this.#options.log.debug(
        { err: error, place: this.shown },
        "other daemons are looked at, not waited for",
      );
      setTimeout(() => void this.#watch(life), MAX_RETRY_MS).unref();
    }
  }

  #unlock(number: number, session: Session): void {
    session
      .query("SELECT pg_advisory_unlock(hashtextextended($1, 0))", [this.#lifeLock(number)])
      .catch(() => {});
  }

  /**
   * Another daemon has gone: others may come back to what its connections held, or it ends.
   *
   * @param noticed how that was noticed.
   */
  async #bury(number: number, noticed: "looked at" | "waited for"): Promise<void> {
    if (this.#buried.has(number)) return;
    this.#buried.add(number);
    try {
      const { endings, log } = this.#options;
      await this.#whole.performOwn(function* (env): Operation<void> {
        const first = number * CONNECTIONS_PER_DAEMON;
        yield* endings.abandon(first, first + CONNECTIONS_PER_DAEMON - 1, env);
        yield* run(forgetDaemon, { number });
        yield* run(forgetWaiting, { number });
        yield* run(forgetTurns, { before: env.now - TURNS_KEPT_MS });
        env.effects.deadline(env.now);
      });
      log.info(
        { place: this.shown, daemon: number, noticed },
        "another daemon has gone; what its connections held ends unless they come back",
      );
    } catch (error) {
      this.#options.log.warn({ err: error, daemon: number }, "a daemon that has gone cannot be seen to now");
    }
    this.#buried.delete(number);
  }

  /** Sees to it that holders are told in time if the database is silent. */
  #watchSilence(): void {
    clearTimeout(this.#silence);
    const { shortestMs } = this.#held;
    if (shortestMs === Number.POSITIVE_INFINITY) return;
    const afterMs = Math.min(shortestMs * TOLD_AFTER_PART, MAX_TOLD_AFTER_MS);
    const leftMs = this.#heardAt + afterMs - elapsed();
    this.#silence = setTimeout(() => this.#fallSilent(afterMs), Math.max(leftMs, 0)).unref();
  }

  /** The database has answered what was sent then. */
  heardSince(sentAt: number): void {
    if (sentAt <= this.#heardAt) return;
    this.#heardAt = sentAt;
    this.#watchSilence();
  }

  #fallSilent(afterMs: number, isSure = false): void {
    if (elapsed() - this.#heardAt < afterMs) return this.#watchSilence();
    if (!isSure) {
      // This process may have been held up, and the answer be there to be read.
      this.#silence = setTimeout(() => this.#fallSilent(afterMs, true), READING_MS).unref();
      return;
    }
    this.lost(new Error(`it has not answered for ${Math.round(afterMs)} ms`));
    this.#giveUpLife();
  }

  /** The others may take this daemon for dead: its holders are told, and it comes back as another. */
  #giveUpLife(): void {
    const all = this.#held.takeAll();
    this.#holders.clear();
    this.#scopes.clear();
    this.#registered.clear();
    this.#life = undefined;
    const { now } = this.time();
    for (const { id, connection, ttlMs, since, tell, onLoss } of all) {
      this.#tellLost(connection, tell);
      // What was not renewed here for so long may have been given back at another daemon.
      if (onLoss === undefined || elapsed() - since > ttlMs) continue;
      this.#endHolder({ ...onLoss, grantId: id, connection, lostAt: now });
    }
    if (all.length > 0)
      this.#options.log.warn(
        { grants: all.length, place: this.shown },
        "holders were told that they lost what they hold",
      );
    this.#options.onCutOff(this);
  }

  #endHolder({
    holder,
    grantId,
    connection,
    lostAt,
    ...ending
  }: NonNullable<HeldGrant["onLoss"]> & { grantId: string; connection: number; lostAt: number }): void {
    const row: LostRow = {
      ...ending,
      grant_id: grantId,
      connection: 0,
      pid: holder.pid,
      start_time: holder.startTime,
      pidfd_inode: holder.pidfdInode,
      boot: holder.boot,
      pid_namespace: holder.pidNamespace,
      database_file: holder.databaseFile,
      lost_at: lostAt,
    };
    this.#options.endHolder(this, row, connection);
  }

  #tellLost(connection: number, tell: HeldGrant["tell"]): void {
    for (const { method, params } of tell) this.#options.outlet.notify(connection, method, params);
  }

  /** Refuses everything from now on. */
  async stop(refusal: PawlError): Promise<void> {
    this.#stopped = refusal;
    clearTimeout(this.#pulse);
    clearTimeout(this.#silence);
    clearInterval(this.#look);
    this.#alarm.stop();
    this.#refuseWaiting(refusal);
    for (const { reject } of this.#awaitingSlot.splice(0)) reject(refusal);
    for (const resolve of this.#awaitingReturn.splice(0)) resolve();
    // Those that are under way are answered yet, and what they leave waiting is refused.
    await Promise.race([this.#turns.ended(), new Promise((resolve) => setTimeout(resolve, STOP_MS).unref())]);
    this.#refuseWaiting(refusal);
  }

  #refuseWaiting(refusal: PawlError): void {
    for (const parked of this.#waiters.all()) {
      this.#waiters.remove(parked);
      parked.call.settle(refusal);
    }
  }

  async close(): Promise<void> {
    const sessions = this.#slots.splice(0).map(({ session }) => session);
    if (this.#life !== undefined) sessions.push(this.#life.listener);
    this.#life = undefined;
    this.#watcher?.destroy();
    await Promise.all(sessions.map((session) => session.close()));
  }
}

const forgetDaemon: Statement<never> = { sql: "DELETE FROM pawl_shared_daemon WHERE number = :number" };
const withdrawWaiting: Statement<never> = {
  sql: "DELETE FROM pawl_shared_waiting WHERE key = :key AND daemon = :daemon",
};
const forgetTurns: Statement<never> = {
  sql: `DELETE FROM pawl_shared_turn
    WHERE now_ms < :before AND daemon NOT IN (SELECT number FROM pawl_shared_daemon)`,
};
const forgetWaiting: Statement<never> = { sql: "DELETE FROM pawl_shared_waiting WHERE daemon = :number" };

const NOT_YET = refuse(
  "unavailable",
  "The database of these shared names cannot be reached. Ask again in a moment; local names are served meanwhile.",
  { reason: "shared_unavailable" },
);

/**
 * Reads that give rows as they are, whatever the time is: those of any moment since they were asked for. Others judge
 * by the clock what has ended, and one that is ahead of a turn under way would say so of what that renews.
 */
const AS_THEY_ARE = new Set(["queue.get", "queue.list", "queue.stats", "sequence.peek"]);
/** After these a connection has no more of what it held. */
const ENDS_HELD: ReadonlySet<NotificationName> = new Set([
  "lease.lost",
  "claim.lost",
  "path.lost",
  "command.cancelled",
]);

/** The numbers of no connection, from the first to the last. */
const NONE = [1, 0] as const;

/** True of a counter of what has happened at this daemon. */
function isOfThisLife(counter: Counter): boolean {
  if (counter === "sequencesDispensed" || counter === "commandAnswersLate") return true;
  return counter.startsWith("commandsEnded");
}

/** By their ids, what holders of grants are told of a loss that were not granted here. */
type Elsewhere = Map<string, Losses>;

/** Methods that may renew what was granted elsewhere. */
const RENEWING = new Set(["lease.heartbeat", "queue.renew", "path.heartbeat", "transact"]);

/** The scopes of leases and of paths. */
const HELD = /^(?:lease|path):/;

const TOO_LATE = refuse(
  "unavailable",
  "The database of these shared names took so long to answer that what was granted is not sure to be held any more; it is given back. Ask again.",
  { reason: "shared_unavailable" },
);

/** The clock of a place is one: nobody has to look whether it was set. */
function byOneClock({ at, wallAt }: Due): Due {
  return { ...NEVER, at: Math.min(at, wallAt) };
}

const OUTCOME_UNKNOWN = refuse(
  "unavailable",
  "The daemon could not find out whether this was done, since the database of these shared names did not answer in time. Look before you ask for it again.",
  { reason: "shared_outcome_unknown" },
);

/** The scope of what is about nothing that is there. */
const NOWHERE = "nowhere";

/** A connection's number among those of all daemons. */
function numberOf(connection: number, daemon: number): number {
  return daemon * CONNECTIONS_PER_DAEMON + connection;
}

/** The number here of a connection of this daemon; undefined for one of another. */
function ownConnection(known: number, daemon: number): number | undefined {
  return Math.floor(known / CONNECTIONS_PER_DAEMON) === daemon ? known % CONNECTIONS_PER_DAEMON : undefined;
}
