import type { KeyObject } from "node:crypto";
import type { BatchState, CommandState, EventKind, EventNoun, Mode, NotificationName } from "@pawl/protocol";
import type { Id } from "@pawl/protocol/envelope";
import type { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../store/statement.js";
import type { Counter as WitnessedCounter } from "../store/witness.js";
import type { ActorsApart } from "./apart.js";
import type { HolderProcess } from "./holder-process.js";
import type { EventDetails } from "./journal.js";
import type { TurnMemory } from "./turn-memory.js";

/**
 * Everything that an operation may know of the world. Time, randomness and identity come in; nothing is read from
 * outside.
 */
export interface Env {
  /** Elapsed time in milliseconds, one value per turn, never running backwards: what lasts is judged by it. */
  readonly now: number;
  /** Elapsed time as retention counts it. */
  readonly retentionNow: number;
  /**
   * The wall clock as it is, in milliseconds since the Unix epoch, one value per turn: for what callers name as a time,
   * what is shown, and what other nodes compare with theirs. It may run backwards.
   */
  readonly wallMs: number;
  readonly mode: Mode;
  /** Digits that the numbers in ids have at least. */
  readonly idDigits: number;
  readonly caller: Caller;
  /** True if the condition may be waited for: false at once for `waitMs` 0, and when the wait has ended. */
  readonly mayWait: boolean;
  /** The key that was woken, where a call that waited is performed again for that; null otherwise. */
  readonly woken: string | null;
  /** True if the operation may be done in steps (`Unfinished`); false within `transact`, which does one. */
  readonly mayGoOn: boolean;
  /** How many places of patterns the calls of a `transact` may still compare together; undefined outside of one. */
  readonly places?: { left: number };
  readonly effects: Effects;
  /** The rows that operations of this transaction have in common. */
  readonly turn: TurnMemory;
  /** How many calls wait under a key; null in a daemon that only reads, since they wait in the one that writes. */
  readonly waiting: (key: string) => number | null;
  /** True if a call that came before this one waits under a key; if a sort is given, one of that sort. */
  readonly waitsBefore: (key: string, sort?: string) => boolean;
  /** True if calls that wait under a key were woken, and are left for a later turn. */
  readonly isLeft: (key: string) => boolean;
  /** The calls in a line that came before this one and still wait, in their order. */
  readonly before: (line: string) => readonly InLine[];
  /** The calls that wait for what others hold. */
  readonly contenders: Contenders;
  /** This call among them, if it is one that waited and is performed again. */
  readonly contender: Contender | undefined;
  /** True if it may be granted before those that came before it and wait for its caller. */
  readonly mayOvertake: boolean;
  /** Ends the waits of a caller's connection whose requests have this id; returns whether there was one. */
  readonly cancelWaits: (caller: Caller, id: Id) => boolean;
  /**
   * The process that opened the caller's connection, where it is known for certain and the daemon may end it; otherwise
   * the refusal of that. Undefined where nobody connects.
   */
  readonly processOf?: ((caller: Caller) => HolderProcess | PawlError) | undefined;
  /** Cryptographically strong random bytes. */
  readonly random: (bytes: number) => Buffer;
  /** Proof that this database granted what the text names: nobody else can make it, and it never changes. */
  readonly sign: (text: string) => string;
  /** The identity of this node on the board: its key is made at the first call. Null where nothing is written. */
  readonly identity: (() => Identity) | null;
  /** How long what has ended is kept. */
  readonly retentionMs: number;
  /** Hexadecimal digits that new ids end with, by which it is known where they were given; empty for this database. */
  readonly idMark: string;
  /**
   * Where several daemons share the rows, and this turn may use those of some things only: says that the operation
   * uses the rows of this one, or of any (`EVERYTHING`). Throws if the turn may not; it is then made again so that it
   * may.
   */
  readonly reach?: ((scope: string) => void) | undefined;
}

/** The scope of an operation that uses rows of things that it does not know beforehand. */
export const EVERYTHING = "*";

/** An id as it is given out, by its random hexadecimal digits. */
export function marked(digits: string, { idMark }: Pick<Env, "idMark">): string {
  return idMark === "" ? digits : digits.slice(0, -idMark.length) + idMark;
}

/** A key pair of Ed25519, by whose public half an author is known. */
export interface Identity {
  /** The public key: 64 lower-case hexadecimal digits. */
  readonly author: string;
  readonly privateKey: KeyObject;
  /** Which file the database is: a copy of it, also under the same name, is another. */
  readonly databaseFile: string;
}

/** The maker of a request. Grants that end with the connection are bound to `connection`. */
export interface Caller {
  /** A number unique in the life of the daemon; 0 for the daemon itself and in-process use. */
  readonly connection: number;
  /** From the kernel (SO_PEERCRED); null where it cannot be had. */
  readonly pid: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  /** When the process began, in clock ticks since the machine did; null or undefined where that is not known. */
  readonly startTicks?: number | null;
}

/**
 * The effects of an operation beside its rows, held back until its transaction is committed. A refused or
 * rolled-back operation has no effects.
 */
export interface Effects {
  /** Wakes the calls that are parked under this key, in the order they came, within the same turn. */
  wake(key: string): void;
  /** Says that something ends at this elapsed time, so that it is ended then. */
  deadline(at: number): void;
  /** Says the same of a time of the wall clock. */
  wallDeadline(wallAt: number): void;
  /** Adds to a counter of `daemon.stats`. */
  count(counter: Counter, by: number): void;
  /** Says how far a counter has come that must never come down, for the witness of the database. */
  reached(counter: WitnessedCounter, value: number): void;
  /** Says that this connection now holds a grant that ends with it, so that `disconnect` runs when it closes. */
  bind(connection: number): void;
  /** Sends a JSON-RPC notification to a connection, if it is still open and its peer reads. */
  notify(connection: number, method: NotificationName, params: object): void;
  /**
   * Says what has happened to a thing, for those who follow it: labels and ids, never a payload or a secret. Before
   * somebody follows it is only counted.
   *
   * @param name of the topic, as the queue.
   */
  tell<N extends EventNoun>(
    noun: N,
    name: string,
    kind: EventKind<N>,
    id: string,
    details?: EventDetails,
  ): void;
  /**
   * Counts what `tell` would tell of, so often, where nobody follows (`isFollowed`) and what an event needs is not
   * looked for.
   */
  note<N extends EventNoun>(noun: N, name: string, kind: EventKind<N>, times: number): void;
  /** Counts how long a batch of a queue waited for its claim, or was worked on. */
  noteDuration(queue: string, what: "wait" | "run", ms: number): void;
  /** True if somebody follows, so that what an event needs is worth looking for. */
  readonly isFollowed: boolean;
  /** Writes a log line about something that an operator wants to know of. */
  log(message: string, details: object): void;
  /** Runs after the commit. Must not throw. */
  afterCommit(action: () => void): void;
}

/** How many there are now: of batches and commands in each state, of leases that are held, of items on the board. */
export type Gauge = `${BatchState}Batches` | `commands${CommandState}` | "leases" | "reservations" | "items";

/** The counters of operations since the start of the daemon, and the gauges, which begin with what is there then. */
export type Counter =
  | "sequencesDispensed"
  | "commandAnswersLate"
  | `commandsEnded${"SUCCEEDED" | "FAILED" | "EXPIRED"}`
  | Gauge;

/**
 * Returned by an operation whose condition is not met and may be waited for (`env.mayWait`): the call is
 * parked under its keys and performed again when one of them is woken (`env.woken`), or with `mayWait` false when its
 * wait ends. `sort` tells apart calls under one key that are met by different things: once a call of a sort could not
 * be met, the later ones of that sort are not tried in the same waking, unless that call failed for a reason that the
 * others do not share. A call in a line keeps its place there when it is performed again and has to wait under other
 * keys; any other stays under those that it was parked under, unless it says that they may change.
 */
export class Wait {
  readonly keys: readonly string[];
  readonly sort: string;
  /** Each ends in a slash: it waits for every key that begins so, too. */
  readonly beginnings: readonly string[];
  /** True if others of its sort may be met although it was not. */
  readonly isAlone: boolean;
  /** True if it may have to wait under other keys each time that it is tried in vain. */
  readonly keysChange: boolean;
  /** True if it would be in vain under each of its keys, until something is granted or an operation performed. */
  readonly isForAll: boolean;
  /** Whether later calls wait for it too (`env.waitsBefore`): when it leaves, they are performed again. */
  readonly holdsBack: boolean;
  /** The line that it stands in, where later calls must not overtake it, and what they see of it. */
  readonly line: { readonly name: string; readonly wants: unknown } | undefined;
  /** Set if it waits for what others hold, and may have closed a circle, or shown that only order keeps one closed. */
  readonly contest: Contest | undefined;

  constructor(
    keys: string | readonly string[],
    sort = "",
    {
      beginnings = NONE,
      isAlone = false,
      keysChange = false,
      isForAll = false,
      holdsBack = false,
      line,
      contest,
    }: {
      beginnings?: readonly string[];
      isAlone?: boolean;
      keysChange?: boolean;
      isForAll?: boolean;
      holdsBack?: boolean;
      line?: Wait["line"];
      contest?: Contest | undefined;
    } = {},
  ) {
    this.keys = typeof keys === "string" ? [keys] : keys;
    this.sort = sort;
    this.beginnings = beginnings;
    this.isAlone = isAlone;
    this.keysChange = keysChange || line !== undefined;
    this.isForAll = isForAll;
    this.holdsBack = holdsBack;
    this.line = line;
    this.contest = contest;
  }
}

/** A call that waits in a line. */
export interface InLine {
  readonly wants: unknown;
  /** The key that is woken when it waits no more, also when it was granted nothing. */
  readonly key: string;
  /** This call as one that waits for what others hold, if it does. */
  readonly contender: Contender | undefined;
}

const NONE: readonly string[] = [];

/**
 * Returned by an operation that has done one step of its work (`env.mayGoOn`). The step is committed with its turn, and
 * `goOn` makes the operation of the next step, for a later turn. The call is answered after its last step; until then
 * later calls of its connection wait. A turn may be rolled back and performed again, so `goOn` changes nothing outside.
 */
export class Unfinished<T> {
  readonly goOn: (env: Env) => Operation<Outcome<T>>;
  /** What the steps so far have collected, in bytes of memory, about: it counts for the connection meanwhile. */
  readonly heldBytes: number;

  constructor(goOn: (env: Env) => Operation<Outcome<T>>, heldBytes = 0) {
    this.goOn = goOn;
    this.heldBytes = heldBytes;
  }
}

/** What a row of a list takes as values, in bytes, beside the long texts in it. */
const SHOWN_ROW_BYTES = 1024;
/** The characters that a page has at most. */
const MAX_PAGE_CHARACTERS = 1024 * 1024;

/**
 * What a page of a list may well come to in memory, in bytes: the pages of many connections grow at the same time, so
 * each counts from its beginning for as much as it will be.
 *
 * @param characters of what is on it so far.
 */
export function pageBytes(characters: number, shown: number, limit: number): number {
  const mayCome = shown === 0 ? 0 : (characters / shown) * limit;
  return Math.max(characters, Math.min(mayCome, MAX_PAGE_CHARACTERS)) + limit * SHOWN_ROW_BYTES;
}

/** Returned by an operation that has only tried: all that it wrote is undone, and its caller is answered `result`. */
export class Tried<T> {
  readonly result: T;

  constructor(result: T) {
    this.result = result;
  }
}

/** A result, a refusal, a condition to wait for, a step that others follow, or the result of a try. */
export type Outcome<T> = T | PawlError | Wait | Unfinished<T> | Tried<T>;

/** A wait for what others hold. The noun that it is of knows what that is. */
export interface Contest {
  /** Those who wait: all that one actor holds and waits for belongs together. */
  readonly actor: string;
  /** True if it will hold what it waits for until its child processes have what they wait for. */
  readonly awaitsChildren: boolean;
  /** Whether anybody holds something until its child processes have what they wait for. */
  someAwaitChildren(): Operation<boolean>;
  /**
   * Looks for circles that the wait closes, right after it began or was tried in vain: refuses it if there is one, and
   * wakes those whom only the order of arrival keeps in one.
   *
   * @param known what such searches have learned since anything has changed.
   */
  untangle(self: Contender, env: Env, known: Map<string, unknown>): Operation<PawlError | undefined>;
  /** Wakes those who wait for its actor behind others whom it waits for, to overtake. Returns true if there are any. */
  letOthersFirst(env: Env): Operation<boolean>;
  /** Whether some wait of the same actor may be in a circle: one look at all of them. */
  isInCircle(env: Env, known: Map<string, unknown>): Operation<boolean>;
}

/** A call while it waits so. */
export interface Contender {
  readonly contest: Contest;
  readonly caller: Caller;
  /** Counts up with each call that waits. */
  readonly number: number;
  /** The key that has it performed again, allowed to overtake others. */
  readonly overtakeKey: string;
  /** The processes that it descends from, as `nameOfProcess` names them; undefined as long as nobody has asked. */
  readonly ancestors: readonly string[] | undefined;
}

/** The calls that wait for what others hold, without those that the turn under way has served. */
export interface Contenders {
  /** Those who are known to be in no circle with others. */
  readonly apart: ActorsApart;
  /** The first waits of an actor. */
  of(actor: string, most: number): readonly Contender[];
  /** The waits of processes that descend from another one. */
  below(process: string): readonly Contender[];
  /** The first that wait under a key, in the order in which they came. */
  under(key: string, most: number): readonly Contender[];
  /** The first that wait in a line, in the order in which they came. */
  standingIn(line: string, most: number): readonly Contender[];
  /** The first of all calls that wait, also for what nobody holds, but for those of the daemon itself. */
  everyone(most: number): readonly WaitingCall[];
}

/** A call that waits, for whatever it is. */
export interface WaitingCall {
  readonly caller: Caller;
  /** The keys that it waits under, and beginnings of keys, which end in a slash. */
  readonly keys: readonly string[];
  /** Since when, in elapsed milliseconds. */
  readonly since: number;
  readonly contender: Contender | undefined;
}

/** A process, which its number alone does not tell from a later one. */
export interface Process {
  readonly pid: number;
  /** When it began, in clock ticks since the machine did. */
  readonly startTicks: number;
}

/** The name of a process among the ancestors of a call. */
export function nameOfProcess({ pid, startTicks }: Process): string {
  return `${pid}.${startTicks}`;
}
