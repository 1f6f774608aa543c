import type { Id } from "@pawl/protocol/envelope";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_CONNECTION_WAITS_BYTES, MAX_WAITS_BYTES, MAX_WAITS_PER_CONNECTION } from "@pawl/protocol/limits";
import { ActorsApart } from "./apart.js";
import { type Call, DAEMON } from "./call.js";
import {
  type Caller,
  type Contender,
  type Contenders,
  type Contest,
  type InLine,
  nameOfProcess,
  type Wait,
  type WaitingCall,
} from "./operation.js";

/** Bytes that a call that waits takes beside its request, and for each key but the first. */
const WAIT_BYTES = 2048;
const KEY_BYTES = 256;

/**
 * A call that waits for its condition.
 *
 *     fresh ----> waiting ----> serving ----> gone
 *
 * `fresh`: parked in the turn under way. The commit makes it `waiting`; a rollback, or its condition coming true in the
 * same turn, makes it `gone`.
 * `waiting`: parked for good, until its condition comes true, its time is up, or its connection closes.
 * `serving`: performed in the turn under way. The commit makes it `gone`; a rollback makes it `waiting` again.
 * `gone`: answered, or its connection has closed.
 */
export interface Parked {
  readonly call: Call;
  readonly sort: string;
  /** Its keys, if calls that came later wait for it too; otherwise none. */
  readonly holdsBackUnder: readonly string[];
  /** The key that is woken when it leaves the line that it stands in; undefined for one in no line. */
  readonly lineKey: string | undefined;
  readonly state: "fresh" | "waiting" | "serving" | "gone";
  /** This call as a contender; undefined if it waits for nothing that others hold. */
  readonly contender: Contender | undefined;
}

interface Entry extends Parked {
  state: Parked["state"];
  contender: Entrant | undefined;
  /** Counts up with each that is parked. */
  readonly number: number;
  /** Since when it waits, in elapsed milliseconds. */
  readonly since: number;
  /** The lines that it waits in: one for each of its keys. */
  lines: KeyLine[];
  /** Its keys before the turn under way, if that has moved it to others. */
  movedFrom: readonly string[] | undefined;
  /** The line in which no later call overtakes it. */
  readonly line: Wait["line"];
  /** Bytes that it takes. */
  readonly bytes: number;
  timer: NodeJS.Timeout | undefined;
}

interface Entrant extends Contender {
  ancestors: readonly string[] | undefined;
}

/** What a turn under way has done to the calls that wait. */
export class TurnMarks {
  /** The calls that it has parked or served. */
  touched: Entry[] = [];
  /** The keys that it leaves to a later turn, each with what is to be served yet; undefined for what it has done. */
  readonly leaving = new Map<string, Rest | undefined>();
}

/** Calls of a sort, by their numbers: from one to before another, round behind the last to the first. */
interface Part {
  readonly from: number;
  readonly until: number;
}

/**
 * The calls under a key that are to be served yet. Nobody is tried twice for one wake: where each of many waits for
 * something else, no turn would come further.
 */
export interface Rest {
  /** By line and sort, how far calls of it are served that could not be met, while others behind them may be. */
  readonly parts: ReadonlyMap<string, Part>;
  /** True if all other sorts are to be served as well, each from its first: so nobody overtakes another of its sort. */
  readonly hasOthers: boolean;
}

export const ALL: Rest = { parts: new Map(), hasOthers: true };

/** What is to be served once a key is woken of whose calls some were left. */
export function again({ parts }: Rest): Rest {
  if (parts.size === 0) return ALL;
  const whole = [...parts].map(([sort, { from }]) => [sort, { from, until: from }] as const);
  return { parts: new Map(whole), hasOthers: true };
}

/** The calls under one key, or under one beginning of keys, by their sorts, each in the order they came. */
interface KeyLine {
  readonly key: string;
  /** The lines that it is one of. */
  readonly among: Map<string, KeyLine>;
  readonly sorts: Map<string, Set<Entry>>;
  /** How many callers wait, without the daemon itself and without those that the turn under way has served. */
  callers: number;
}

/** The parked calls, by their keys and by their connections, each in the order they came. */
export class Waiters implements Contenders {
  readonly apart = new ActorsApart();
  readonly #byKey = new Map<string, KeyLine>();
  /** The calls that wait for all keys that begin so; each beginning ends in a slash. */
  readonly #byBeginning = new Map<string, KeyLine>();
  readonly #byConnection = new Map<number, Set<Entry>>();
  /** Those of the daemon itself. */
  readonly #ofDaemon = new Map<Call, Entry>();
  /** The calls in each line, in the order they came. */
  readonly #lines = new Map<string, Set<Entry>>();
  /** Those that wait for what others hold: by whom they are of, by their ancestors, by the key to overtake others. */
  readonly #byActor = new Map<string, Set<Entry>>();
  readonly #byAncestor = new Map<string, Set<Entry>>();
  readonly #byOvertakeKey = new Map<string, Entry>();
  /** Those whose ancestors nobody has asked for. */
  readonly #withoutAncestors = new Set<Entry>();
  #parked = 0;
  readonly #bytesByConnection = new Map<number, number>();
  /** How much all calls that wait take, without those of the daemon itself. */
  #bytes = 0;
  /** The keys that were woken, and whose calls there was no time for. */
  readonly #left = new Map<string, Rest>();
  #marks = new TurnMarks();
  /** By connections whose peers have too much to read: what is to be done for their calls once they have read. */
  readonly #heldUp = new Map<number, { keys: Set<string>; timedOut: Set<Parked> }>();
  readonly #onTimeUp: (parked: Parked) => void;

  // The answers to calls that have just arrived, as functions that are made once and not in each turn.
  readonly waiting = (key: string): number => this.count(key);
  readonly someoneWaits = (key: string, sort?: string): boolean => this.waitsBefore(key, undefined, sort);
  readonly everyoneIn = (line: string): InLine[] => this.inLine(line);
  readonly isLeft = (key: string): boolean => {
    const { leaving } = this.#marks;
    if (leaving.size > 0 && leaving.has(key)) return leaving.get(key) !== undefined;
    return this.#left.size > 0 && this.#left.has(key);
  };

  /** @param onTimeUp called when a call has waited for as long as it may. */
  constructor(onTimeUp: (parked: Parked) => void) {
    this.#onTimeUp = onTimeUp;
  }

  /** Where turns go on side by side: the one with these marks is under way from now on, until another one is. */
  goOnWith(marks: TurnMarks): void {
    this.#marks = marks;
  }

  /** The refusal of one more wait: of a connection that has too many, or because all together take too much. */
  refusal(call: Call, wait: Wait): PawlError | undefined {
    const { connection } = call.caller;
    if (connection === DAEMON.connection) return undefined;
    if ((this.#byConnection.get(connection)?.size ?? 0) >= MAX_WAITS_PER_CONNECTION) return TOO_MANY_WAITS;
    const bytes = bytesOf(call, wait);
    const ofConnection = this.#bytesByConnection.get(connection) ?? 0;
    if (ofConnection + bytes > MAX_CONNECTION_WAITS_BYTES) return WAITS_TOO_LONG;
    return this.#bytes + bytes > MAX_WAITS_BYTES ? ALL_WAIT_TOO_MUCH : undefined;
  }

  /** Parks a call in the turn under way; `now` is its elapsed time. */
  park(call: Call, wait: Wait, now: number): Parked {
    this.#parked += 1;
    const { keys, beginnings, holdsBack, line } = wait;
    // Calls in a line have sorts of their own, since each can be met where others are not.
    const sort = line === undefined ? wait.sort : String(this.#parked);
    const lineKey = line === undefined ? undefined : `waiter:${this.#parked}`;
    const lines = keys.map((key) => lineOf(this.#byKey, key));
    for (const beginning of beginnings) lines.push(lineOf(this.#byBeginning, beginning));
    const bytes = bytesOf(call, wait);
    const entry: Entry = {
      call,
      sort,
      holdsBackUnder: holdsBack ? keys : NONE,
      lineKey,
      number: this.#parked,
      since: now,
      lines,
      movedFrom: undefined,
      line,
      bytes,
      state: "fresh",
      contender: undefined,
      timer: undefined,
    };
    for (const each of lines) add(each.sorts, sort, entry);
    if (line !== undefined) add(this.#lines, line.name, entry);
    add(this.#byConnection, call.caller.connection, entry);
    if (call.caller.connection === DAEMON.connection) this.#ofDaemon.set(call, entry);
    this.#count(entry, 1);
    this.#take(call, bytes);
    this.#marks.touched.push(entry);
    if (wait.contest !== undefined) this.#enter(entry, wait.contest);
    return entry;
  }

  #enter(entry: Entry, contest: Contest): void {
    const { number, call } = entry;
    const overtakeKey = `${OVERTAKE}${number}`;
    entry.contender = { contest, caller: call.caller, number, overtakeKey, ancestors: undefined };
    add(this.#byActor, contest.actor, entry);
    this.#byOvertakeKey.set(overtakeKey, entry);
    this.#withoutAncestors.add(entry);
  }

  #withdrawFrom(entry: Entry, { contest, overtakeKey, ancestors = NONE }: Entrant): void {
    drop(this.#byActor, contest.actor, entry);
    this.#byOvertakeKey.delete(overtakeKey);
    this.#withoutAncestors.delete(entry);
    for (const ancestor of ancestors) drop(this.#byAncestor, ancestor, entry);
  }

  /** Keeps the ancestors of a contender that has none yet, and of up to `most` others, those that came first. */
  learnAncestors(
    parked: Parked,
    most: number,
    ancestorsOf: (contender: Contender) => readonly string[],
  ): void {
    if (this.#withoutAncestors.has(parked as Entry)) this.#learn(parked as Entry, ancestorsOf);
    let left = most;
    for (const entry of this.#withoutAncestors) {
      if (left-- === 0) return;
      this.#learn(entry, ancestorsOf);
      // An ancestor may wait for it, of which nothing was known.
      this.apart.forget();
    }
  }

  #learn(entry: Entry, ancestorsOf: (contender: Contender) => readonly string[]): void {
    this.#withoutAncestors.delete(entry);
    if (entry.contender === undefined) return;
    entry.contender.ancestors = ancestorsOf(entry.contender);
    for (const ancestor of entry.contender.ancestors) add(this.#byAncestor, ancestor, entry);
  }

  /** The call that a key has overtake others, if it is such a key and the call still waits. */
  overtaking(key: string): Parked | undefined {
    if (this.#byOvertakeKey.size === 0 || !key.startsWith(OVERTAKE)) return undefined;
    const entry = this.#byOvertakeKey.get(key);
    return entry?.state === "serving" ? undefined : entry;
  }

  /** How many wait for what others hold, with those that the turn under way has served. */
  get contenders(): number {
    return this.#byOvertakeKey.size;
  }

  /** How many wait so, each with all of its waits, and with those that the turn under way has served. */
  get actors(): number {
    return this.#byActor.size;
  }

  of(actor: string, most: number): Contender[] {
    return contendersIn(this.#byActor.get(actor) ?? NOBODY, most);
  }

  /** True if any call waits under a key, or under a beginning of keys. */
  hasUnder(key: string): boolean {
    return this.#byKey.has(key) || this.#byBeginning.has(key);
  }

  /** The waits of processes that descend from that of a caller. */
  childrenOf({ pid, startTicks }: Caller): Contender[] {
    if (pid === null || typeof startTicks !== "number") return [];
    return this.below(nameOfProcess({ pid, startTicks }));
  }

  /**
   * The other waits of the one who is granted what a call has waited for, and of the children of its process, where
   * somebody waits for what was granted: that one waits for those, too.
   *
   * @param caller of the call, as its process is known.
   */
  behindGrant(granted: Parked, { contest }: Contender, caller: Caller): Contender[] {
    if (!this.isWaitedFor(granted)) return [];
    const children = this.childrenOf(caller);
    if (this.actors < 2 && children.length === 0) return [];
    return [...this.of(contest.actor, Number.POSITIVE_INFINITY), ...children];
  }

  /** True if the one who makes a call, or a child of that, waits for more, and others for what the call waits for. */
  mayLetOthersFirst(parked: Parked, { contest }: Contender, caller: Caller): boolean {
    if (this.actors < 2) return false;
    if (this.of(contest.actor, 2).length < 2 && this.childrenOf(caller).length === 0) return false;
    return this.isWaitedFor(parked);
  }

  /** True if somebody else waits for what a call that is served has waited for, or stands in its line. */
  isWaitedFor(parked: Parked): boolean {
    const { line, lines } = parked as Entry;
    if (line !== undefined) return this.standingIn(line.name, 1).length > 0;
    return lines.some(({ key }) => this.under(key, 1).length > 0);
  }

  below(process: string): Contender[] {
    return contendersIn(this.#byAncestor.get(process) ?? NOBODY, Number.POSITIVE_INFINITY);
  }

  standingIn(line: string, most: number): Contender[] {
    return contendersIn(this.#lines.get(line) ?? NOBODY, most);
  }

  everyone(most: number): WaitingCall[] {
    const found: WaitingCall[] = [];
    for (const [connection, entries] of this.#byConnection) {
      if (connection === DAEMON.connection) continue;
      for (const { call, lines, since, contender, state } of entries) {
        if (found.length >= most) return found;
        const keys = lines.map(({ key }) => key);
        if (state !== "serving") found.push({ caller: call.caller, keys, since, contender });
      }
    }
    return found;
  }

  under(key: string, most: number): Contender[] {
    const line = this.#byKey.get(key);
    if (line === undefined) return [];
    const [first, ...others] = line.sorts.values();
    if (first !== undefined && others.length === 0) return contendersIn(first, most);
    const found = [...line.sorts.values()].flatMap((entries) => contendersIn(entries, most));
    return found.sort((a, b) => a.number - b.number).slice(0, most);
  }

  /** Has a call wait under other keys: something else stands in its way now. */
  move(parked: Parked, keys: readonly string[]): void {
    const entry = parked as Entry;
    const before = entry.lines.map(({ key }) => key);
    if (keys.length === before.length && keys.every((key, index) => key === before[index])) return;
    entry.movedFrom ??= before;
    this.#putUnder(entry, keys);
    this.#marks.touched.push(entry);
  }

  #putUnder(entry: Entry, keys: readonly string[]): void {
    const isCounted = entry.state !== "serving";
    if (isCounted) this.#count(entry, -1);
    // Under the keys that stay it keeps its place.
    const before = new Map(entry.lines.map((line) => [line.key, line]));
    const lines = keys.map((key) => before.get(key) ?? lineOf(this.#byKey, key));
    for (const line of lines) if (!before.delete(line.key)) add(line.sorts, entry.sort, entry);
    for (const line of before.values()) leave(line, entry);
    entry.lines = lines;
    if (isCounted) this.#count(entry, 1);
  }

  /** The calls that wait in a line, and came before one of them; all if none is given. */
  inLine(name: string, before?: Parked): InLine[] {
    const found: InLine[] = [];
    for (const entry of this.#lines.get(name) ?? []) {
      if (entry === before) break;
      if (entry.state === "serving" || entry.line === undefined || entry.lineKey === undefined) continue;
      found.push({ wants: entry.line.wants, key: entry.lineKey, contender: entry.contender });
    }
    return found;
  }

  /** Says that the turn under way has performed a parked call. */
  serve(parked: Parked): void {
    const entry = parked as Entry;
    if (entry.state === "fresh") return this.#drop(entry);
    this.#count(entry, -1);
    entry.state = "serving";
    this.#marks.touched.push(entry);
  }

  /** The turn under way is committed. */
  commit(): void {
    this.apart.forget();
    for (const [key, left] of this.#marks.leaving) {
      // Whatever a turn had no time for comes first in the next.
      this.#left.delete(key);
      if (left !== undefined) this.#left.set(key, left);
    }
    this.#marks.leaving.clear();
    if (this.#marks.touched.length === 0) return;
    for (const entry of this.#marks.touched) {
      entry.movedFrom = undefined;
      if (entry.state === "serving") this.#drop(entry);
      else if (entry.state === "fresh") this.#startWaiting(entry);
    }
    this.#marks.touched = [];
  }

  /** The turn under way is rolled back. */
  rollBack(): void {
    this.apart.forget();
    this.#marks.leaving.clear();
    for (const entry of this.#marks.touched) {
      if (entry.state === "fresh") this.#drop(entry);
      if (entry.state === "gone") continue;
      if (entry.movedFrom !== undefined) this.#putUnder(entry, entry.movedFrom);
      entry.movedFrom = undefined;
      if (entry.state === "serving") {
        entry.state = "waiting";
        this.#count(entry, 1);
      }
    }
    this.#marks.touched = [];
  }

  /** Removes a call between two turns. Calls that it held back are to be performed again in the next. */
  remove(parked: Parked): void {
    this.#drop(parked as Entry);
    const { lineKey, holdsBackUnder } = parked;
    for (const key of lineKey === undefined ? holdsBackUnder : [lineKey]) {
      if (this.#byKey.has(key)) this.#left.set(key, ALL);
    }
  }

  #drop(entry: Entry): void {
    if (entry.state === "gone") return;
    if (entry.state !== "serving") this.#count(entry, -1);
    entry.state = "gone";
    clearTimeout(entry.timer);
    const { call, line, bytes, contender } = entry;
    leaveLines(entry);
    if (contender !== undefined) this.#withdrawFrom(entry, contender);
    if (line !== undefined) drop(this.#lines, line.name, entry);
    drop(this.#byConnection, call.caller.connection, entry);
    if (call.caller.connection === DAEMON.connection) this.#ofDaemon.delete(call);
    this.#take(call, -bytes);
  }

  /** The calls of a connection under this id that wait and that the turn under way has not served. */
  withId(connection: number, id: Id): Parked[] {
    const found: Parked[] = [];
    for (const entry of this.#byConnection.get(connection) ?? []) {
      if (entry.call.id === id && entry.state !== "serving") found.push(entry);
    }
    return found;
  }

  /** Takes a call of the daemon itself back, whose outcome nobody needs any more. Returns true if it waited. */
  withdraw(call: Call): boolean {
    const entry = this.#ofDaemon.get(call);
    if (entry !== undefined) this.remove(entry);
    return entry !== undefined;
  }

  removeOf(connection: number): void {
    this.#heldUp.delete(connection);
    for (const entry of [...(this.#byConnection.get(connection) ?? [])]) this.remove(entry);
  }

  /**
   * The calls that wait for `key` and that the turn under way has not served; undefined for none.
   *
   * @param rest those of them that are to be served: all, unless it was not woken since some were left.
   */
  wokenBy(key: string, rest?: Rest): WokenLine | undefined {
    if (this.#byConnection.size === 0) return undefined;
    const lines = this.#linesOf(key);
    return lines.length === 0 ? undefined : new WokenLine(lines, rest ?? again(this.leftOf(key)));
  }

  /** The calls under a key that are to be served yet, if some were left. */
  leftOf(key: string): Rest {
    return this.#marks.leaving.get(key) ?? this.#left.get(key) ?? ALL;
  }

  /** The calls under a key, and those under each beginning of it. */
  #linesOf(key: string): KeyLine[] {
    const line = this.#byKey.get(key);
    const lines = line === undefined ? [] : [line];
    if (this.#byBeginning.size === 0) return lines;
    for (let at = key.indexOf("/"); at >= 0; at = key.indexOf("/", at + 1)) {
      const beginning = this.#byBeginning.get(key.slice(0, at + 1));
      if (beginning !== undefined) lines.push(beginning);
    }
    return lines;
  }

  /** The turn under way has no time for more of the calls under a key: the rest is to be performed in the next. */
  leave(key: string, rest: Rest = ALL): void {
    this.#marks.leaving.set(key, rest);
  }

  /** A key was woken again whose calls the turn under way has left: all are to be performed once more. */
  leaveAll(key: string): void {
    this.leave(key, again(this.leftOf(key)));
  }

  /** The turn under way has performed all calls under a key that it could. */
  servedAll(key: string): void {
    if (this.#left.size > 0 || this.#marks.leaving.size > 0) this.#marks.leaving.set(key, undefined);
  }

  /** The keys whose calls were left for a later turn. */
  left(): string[] {
    return [...this.#left.keys()];
  }

  /** The same keys, which the caller sees to from now on. */
  takeLeft(): string[] {
    const left = [...this.#left.keys()];
    this.#left.clear();
    return left;
  }

  get someLeft(): boolean {
    return this.#left.size > 0;
  }

  /**
   * A call could be answered, and its peer has too much to read: it waits on, until `roomAgain`. Done with no turn, so
   * that a rollback changes nothing: at worst it is tried once more.
   */
  holdUp(parked: Parked, { isTimedOut }: { isTimedOut: boolean }): void {
    const { call, lines } = parked as Entry;
    const { connection } = call.caller;
    const held = this.#heldUp.get(connection) ?? { keys: new Set(), timedOut: new Set() };
    this.#heldUp.set(connection, held);
    if (isTimedOut) held.timedOut.add(parked);
    else for (const { key } of lines) held.keys.add(key);
  }

  /** The peer of a connection has read: its calls are performed in the next turn; returns those whose time is up. */
  roomAgain(connection: number): Iterable<Parked> | undefined {
    const held = this.#heldUp.get(connection);
    if (held === undefined) return undefined;
    this.#heldUp.delete(connection);
    for (const key of held.keys) if (this.#byKey.has(key)) this.#left.set(key, ALL);
    return held.timedOut;
  }

  /**
   * The daemon ends: nobody waits any more, and as many are told as there is time for. To take each out by itself takes
   * as long as to tell it, and those for whom there is no time would have to be taken out as their connections close.
   */
  end(tell: (call: Call) => void, isOver: () => boolean): void {
    const entries = this.all() as Entry[];
    for (const entry of entries) entry.state = "gone";
    const lines = [this.#byKey, this.#byBeginning, this.#byConnection, this.#ofDaemon, this.#lines];
    const contenders = [this.#byActor, this.#byAncestor, this.#byOvertakeKey, this.#withoutAncestors];
    for (const each of [...lines, ...contenders, this.#bytesByConnection, this.#heldUp, this.#left])
      each.clear();
    this.#bytes = 0;
    for (const { call, bytes } of entries) {
      if (isOver()) return;
      if (call.caller.connection !== DAEMON.connection) call.parked?.(-bytes);
      tell(call);
    }
  }

  all(): Parked[] {
    return [...this.#byConnection.values()].flatMap((entries) => [...entries]);
  }

  /**
   * True if a call waits under a key that was parked before another one, or at all if that is none, and that the turn
   * under way has not served, also under a beginning of it. If a sort is given, a call of that sort.
   */
  waitsBefore(key: string, than: Parked | undefined, sort?: string): boolean {
    const lines = this.#linesOf(key);
    if (lines.length === 0) return false;
    const before = (than as Entry | undefined)?.number ?? Number.POSITIVE_INFINITY;
    const isBefore = (entries: Set<Entry> | undefined): boolean =>
      entries !== undefined && (nextOf(entries.values())?.number ?? before) < before;
    for (const { sorts } of lines) {
      if (sort !== undefined ? isBefore(sorts.get(sort)) : [...sorts.values()].some(isBefore)) return true;
    }
    return false;
  }

  /** How many callers wait for `key`, without those that the turn under way has served. */
  count(key: string): number {
    return this.#linesOf(key).reduce((sum, { callers }) => sum + callers, 0);
  }

  /** How many calls wait, without those of the daemon itself. */
  get size(): number {
    let size = 0;
    for (const [connection, entries] of this.#byConnection) {
      if (connection !== DAEMON.connection) size += entries.size;
    }
    return size;
  }

  /** How much they take. */
  get bytes(): number {
    return this.#bytes;
  }

  #count({ call, lines }: Entry, by: number): void {
    if (call.caller.connection === DAEMON.connection) return;
    for (const line of lines) line.callers += by;
  }

  /** Counts the bytes that a call takes, or no longer takes. */
  #take(call: Call, bytes: number): void {
    const { connection } = call.caller;
    if (connection === DAEMON.connection) return;
    this.#bytes += bytes;
    const sum = (this.#bytesByConnection.get(connection) ?? 0) + bytes;
    if (sum === 0) this.#bytesByConnection.delete(connection);
    else this.#bytesByConnection.set(connection, sum);
    call.parked?.(bytes);
  }

  #startWaiting(entry: Entry): void {
    entry.state = "waiting";
    entry.timer = setTimeout(() => this.#onTimeUp(entry), entry.call.waitMs);
    // A wait by itself is no reason for the process to live on: its connection is.
    entry.timer.unref();
  }
}

/**
 * The calls that a key wakes, first come first, without those of sorts that could not be met. No call is in two of the
 * lines: whoever waits for a beginning of keys waits for none of them by itself.
 */
class WokenLine {
  /** The first of each sort that is still to be performed, and those behind it. */
  readonly #heads: Head[] = [];
  /** The one that `next` gave last. */
  #given: Head | undefined;

  constructor(lines: readonly KeyLine[], { parts, hasOthers }: Rest) {
    for (const { key, sorts } of lines) {
      for (const [sort, entries] of sorts) {
        const part = parts.size === 0 ? undefined : parts.get(nameOf(key, sort));
        if (part === undefined && !hasOthers) continue;
        const rest = part === undefined ? entries.values() : partOf(entries, part);
        const entry = nextOf(rest);
        if (entry !== undefined) this.#heads.push({ key, entry, rest, part });
      }
    }
  }

  next(): Parked | undefined {
    if (this.#given !== undefined) this.#goOn(this.#given);
    this.#given = undefined;
    // Whoever was served since may have ended the wait of another sort.
    for (let index = this.#heads.length - 1; index >= 0; index -= 1) {
      const head = this.#heads[index] as Head;
      if (!isWaiting(head.entry)) this.#goOn(head);
    }
    for (const head of this.#heads) {
      if (this.#given === undefined || isBefore(head, this.#given)) this.#given = head;
    }
    return this.#given?.entry;
  }

  #goOn(head: Head): void {
    const entry = nextOf(head.rest);
    if (entry === undefined) this.#heads.splice(this.#heads.indexOf(head), 1);
    else head.entry = entry;
  }

  /** The call that `next` gave last, and those behind it. */
  get rest(): Rest {
    const parts = this.#heads.map(
      ({ key, entry, part }) =>
        [nameOf(key, entry.sort), { from: entry.number, until: part?.until ?? 0 }] as const,
    );
    return { parts: new Map(parts), hasOthers: false };
  }

  /** The call that `next` gave last could not be met, so no other of its sort can. */
  closeSort(): void {
    const sort = this.#given?.entry.sort;
    for (let index = this.#heads.length - 1; index >= 0; index -= 1) {
      if (this.#heads[index]?.entry.sort === sort) this.#heads.splice(index, 1);
    }
    this.#given = undefined;
  }
}

interface Head {
  /** Of its line. */
  readonly key: string;
  entry: Entry;
  readonly rest: Iterator<Entry>;
  readonly part: Part | undefined;
}

function nameOf(key: string, sort: string): string {
  return `${key}\0${sort}`;
}

/** First come first, but for those that were tried already for the last wake. */
function isBefore(a: Head, b: Head): boolean {
  const [wasTried, wasOtherTried] = [isRound(a), isRound(b)];
  return wasTried === wasOtherTried ? a.entry.number < b.entry.number : wasOtherTried;
}

function isRound({ entry, part }: Head): boolean {
  return part !== undefined && entry.number < part.from;
}

function* partOf(entries: ReadonlySet<Entry>, { from, until }: Part): Generator<Entry> {
  const goesRound = from >= until;
  for (const entry of entries) if (entry.number >= from && (goesRound || entry.number < until)) yield entry;
  if (!goesRound) return;
  for (const entry of entries) if (entry.number < until) yield entry;
}

const NONE: readonly string[] = [];
const NOBODY: readonly Entry[] = [];
/** The beginning of the keys that have one call overtake others. */
const OVERTAKE = "overtake:";

/** The contenders among calls, without those that the turn under way has served. */
function contendersIn(entries: Iterable<Entry>, most: number): Contender[] {
  const found: Contender[] = [];
  for (const { contender, state } of entries) {
    if (contender === undefined || state === "serving") continue;
    if (found.length >= most) break;
    found.push(contender);
  }
  return found;
}

function bytesOf({ bytes = 0 }: Call, { keys, beginnings }: Wait): number {
  return bytes + WAIT_BYTES + (keys.length + beginnings.length - 1) * KEY_BYTES;
}

function leaveLines(entry: Entry): void {
  for (const line of entry.lines) leave(line, entry);
}

function leave(line: KeyLine, entry: Entry): void {
  drop(line.sorts, entry.sort, entry);
  if (line.sorts.size === 0) line.among.delete(line.key);
}

function lineOf(lines: Map<string, KeyLine>, key: string): KeyLine {
  let line = lines.get(key);
  if (line === undefined) {
    line = { key, among: lines, sorts: new Map(), callers: 0 };
    lines.set(key, line);
  }
  return line;
}

function nextOf(entries: Iterator<Entry>): Entry | undefined {
  for (let next = entries.next(); !next.done; next = entries.next()) {
    if (isWaiting(next.value)) return next.value;
  }
  return undefined;
}

function isWaiting({ state }: Entry): boolean {
  return state !== "serving" && state !== "gone";
}

function add<K>(map: Map<K, Set<Entry>>, key: K, entry: Entry): void {
  const entries = map.get(key);
  if (entries === undefined) map.set(key, new Set([entry]));
  else entries.add(entry);
}

function drop<K>(map: Map<K, Set<Entry>>, key: K, entry: Entry): void {
  const entries = map.get(key);
  if (entries?.delete(entry) && entries.size === 0) map.delete(key);
}

/** The answer to a call whose wait was ended. */
export const CANCELLED = refuse(
  "cancelled",
  "The wait of this request was ended by rpc.cancel. Nothing was granted to it; send it again if it is still wanted.",
);

export const TOO_MANY_WAITS = refuse(
  "exhausted",
  `This connection has ${MAX_WAITS_PER_CONNECTION} requests that wait already. Let some of them end, or open another connection.`,
  { limit: MAX_WAITS_PER_CONNECTION, retryable: true },
);

const WAITS_TOO_LONG = refuse(
  "exhausted",
  `The requests of this connection that wait take ${MAX_CONNECTION_WAITS_BYTES} bytes already. Let some of them end, or open another connection.`,
  { limitBytes: MAX_CONNECTION_WAITS_BYTES, retryable: true },
);

const ALL_WAIT_TOO_MUCH = refuse(
  "exhausted",
  `The requests that wait, of all connections, take ${MAX_WAITS_BYTES} bytes already. Ask again in a moment.`,
  { limitBytes: MAX_WAITS_BYTES, retryable: true },
);
