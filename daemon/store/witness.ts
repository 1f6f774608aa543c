// The numbers that a database was seen to have given, in a file beside it, by which an older copy is known.
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { elapsed } from "../clock.js";
import { replaceFile } from "./new-file.js";
import { systemCode } from "./system-code.js";

/** A bound could not be written down, and so nothing above it may be given. */
export class WitnessNotWritten extends Error {
  /** The thing of which there is too little for now; undefined if the disk failed. */
  readonly lack: "space" | "descriptors" | undefined;

  constructor(cause: NodeJS.ErrnoException) {
    super(`the witness of the database cannot be written: ${cause.message}`, { cause });
    this.lack = LACKS.get(systemCode(cause));
  }
}

const LACKS: ReadonlyMap<string, "space" | "descriptors"> = new Map([
  ["ENOSPC", "space"],
  ["EDQUOT", "space"],
  ["EFBIG", "space"],
  ["EMFILE", "descriptors"],
  ["ENFILE", "descriptors"],
]);

/** `NODE/TYPE` for the numbers of a type, or one of those that are of all queues, and of all leases kept here. */
export type Counter = `${string}/${string}` | "enqueueSeq" | "queueToken" | "leaseToken" | "pathToken";

/** How far a bound is above what was reached, at first and at most. It doubles each time that a counter comes to it. */
const FIRST_NUMBERS = 100;
const FIRST_TOKENS = 100_000;
const MOST_AHEAD = 1_000_000;
/** Numbers are written down so long after they were reached, and not more often than takes this part of the time. */
const REFRESH_MS = 10_000;
const REFRESH_SHARE = 0.002;

/** One line of the file for each counter; of several for one the last counts. */
interface Line {
  readonly counter: Counter;
  /** Committed when this was written. */
  readonly value: number;
  /** Not passed before a higher one is on disk. */
  readonly bound: number;
}

/** The first line of the file. */
interface Head {
  readonly witness: 1;
  /** Of which database. */
  readonly database: string;
  /** When, by the wall clock. */
  readonly writtenAt: number;
  /** How often it was opened; the database has kept that before the witness says it. */
  readonly starts: number;
}

/** The content of the file. */
export interface Testimony extends Pick<Head, "database" | "writtenAt" | "starts"> {
  readonly counters: ReadonlyMap<Counter, Pick<Line, "value" | "bound">>;
}

/**
 * Reads a witness: undefined when there is none, `unreadable` when what is there says nothing that can be relied on.
 */
export function readWitness(path: string): Testimony | "unreadable" | undefined {
  let text: string;
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      text = readFileSync(file, "utf8");
    } finally {
      closeSync(file);
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? undefined : "unreadable";
  }
  try {
    return parse(text);
  } catch {
    return "unreadable";
  }
}

/** A line that was not written to its end is of a turn that was not committed. */
function parse(text: string): Testimony | "unreadable" {
  const [first, ...lines] = text.split("\n").slice(0, -1);
  const { witness, database, writtenAt, starts } = JSON.parse(first ?? "") as Head;
  if (witness !== 1 || typeof database !== "string") return "unreadable";
  if (!Number.isSafeInteger(writtenAt) || !Number.isSafeInteger(starts)) return "unreadable";
  const counters = new Map<Counter, Pick<Line, "value" | "bound">>();
  for (const line of lines) {
    const { counter, value, bound } = JSON.parse(line) as Line;
    if (typeof counter !== "string" || !Number.isSafeInteger(value) || !(bound >= value)) return "unreadable";
    counters.set(counter, { value, bound });
  }
  return { database, writtenAt, starts, counters };
}

/**
 * Keeps the witness of an open database. A bound is on disk before a commit passes it, so whatever the database ever
 * gave is not above the bounds; the values are written down a while after they were reached, and at an orderly stop.
 */
export class Witness {
  readonly #path: string;
  readonly #database: string;
  #starts = 0;
  readonly #wallMs: () => number;
  readonly #values: Map<Counter, number>;
  readonly #bounds = new Map<Counter, number>();
  readonly #ahead = new Map<Counter, number>();
  /** The file, open to be appended to: kept, so that the witness can be written where no descriptor is left. */
  #file: number | undefined;
  #refreshing: NodeJS.Timeout | undefined;
  #pauseMs = REFRESH_MS;

  /**
   * @param database its name, which no other has.
   * @param values of its counters, as they are.
   */
  constructor(path: string, database: string, values: ReadonlyMap<Counter, number>, wallMs: () => number) {
    this.#path = path;
    this.#database = database;
    this.#values = new Map(values);
    this.#wallMs = wallMs;
  }

  /**
   * Writes the witness anew, once the database has kept how often it was started. Before that nothing is given. Throws
   * `WitnessNotWritten`.
   */
  begin(starts: number): void {
    this.#starts = starts;
    try {
      this.#write();
    } catch (error) {
      throw new WitnessNotWritten(error as NodeJS.ErrnoException);
    }
  }

  /** Before a commit: has bounds above these values on disk when it returns. Throws `WitnessNotWritten`. */
  raise(reached: Reached): void {
    const passed = new Map<Counter, number>();
    for (const [counter, value] of reached) {
      if (value <= (this.#bounds.get(counter) ?? -1)) continue;
      const ahead = Math.min((this.#ahead.get(counter) ?? firstAhead(counter) / 2) * 2, MOST_AHEAD);
      this.#ahead.set(counter, ahead);
      passed.set(counter, boundAbove(value, ahead));
    }
    if (passed.size === 0) return;
    try {
      this.#append(passed);
    } catch {
      // Whatever of it was written, or whoever removed the file: it is written whole.
      try {
        this.#write(passed);
      } catch (error) {
        throw new WitnessNotWritten(error as NodeJS.ErrnoException);
      }
    }
    for (const [counter, bound] of passed) this.#bounds.set(counter, bound);
  }

  /** After the commit. */
  committed(reached: Reached): void {
    if (reached.size === 0) return;
    for (const [counter, value] of reached) {
      // Tokens of one name go up from where that name is.
      if (value > (this.#values.get(counter) ?? 0)) this.#values.set(counter, value);
    }
    this.#refreshing ??= setTimeout(() => this.#refresh(), this.#pauseMs).unref();
  }

  /** The last word of this life, after its last commit. */
  stop(): void {
    clearTimeout(this.#refreshing);
    this.#write();
  }

  close(): void {
    clearTimeout(this.#refreshing);
    this.#letGo();
  }

  #refresh(): void {
    this.#refreshing = undefined;
    const start = elapsed();
    try {
      this.#write();
    } catch {
      // The bounds that are on disk hold all the same.
    }
    this.#pauseMs = Math.max(REFRESH_MS, (elapsed() - start) / REFRESH_SHARE);
  }

  /** Throws also when the file that is open has lost its name. */
  #append(bounds: ReadonlyMap<Counter, number>): void {
    const file = this.#file ?? openToAppend(this.#path);
    this.#file = file;
    const [open, named] = [fstatSync(file), lstatSync(this.#path)];
    if (open.ino !== named.ino || open.dev !== named.dev) throw new Error(`${this.#path} was replaced`);
    writeSync(file, [...bounds].map(([counter, bound]) => this.#line(counter, bound)).join(""));
    fdatasyncSync(file);
  }

  /** @param raised bounds that take the place of what they were. */
  #write(raised: ReadonlyMap<Counter, number> = new Map()): void {
    const bounds = new Map([...this.#bounds, ...raised]);
    for (const [counter, value] of this.#values) {
      const bound = boundAbove(value, this.#ahead.get(counter) ?? firstAhead(counter));
      bounds.set(counter, Math.max(bound, bounds.get(counter) ?? 0));
    }
    const head: Head = {
      witness: 1,
      database: this.#database,
      writtenAt: this.#wallMs(),
      starts: this.#starts,
    };
    const lines = [...bounds].map(([counter, bound]) => this.#line(counter, bound));
    // Its descriptor may be the last there is, and the new file needs one.
    this.#letGo();
    replaceFile(this.#path, `${JSON.stringify(head)}\n${lines.join("")}`, { durable: true });
    for (const [counter, bound] of bounds) this.#bounds.set(counter, bound);
    try {
      this.#file = openToAppend(this.#path);
    } catch {
      // Opened when it is needed.
    }
  }

  #letGo(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #line(counter: Counter, bound: number): string {
    const line: Line = { counter, value: this.#values.get(counter) ?? 0, bound };
    return `${JSON.stringify(line)}\n`;
  }
}

function openToAppend(path: string): number {
  return openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW);
}

/** The highest value of each counter that a transaction raised. */
export type Reached = ReadonlyMap<Counter, number>;

function firstAhead(counter: Counter): number {
  return counter.includes("/") ? FIRST_NUMBERS : FIRST_TOKENS;
}

function boundAbove(value: number, ahead: number): number {
  return Math.min(value + ahead, Number.MAX_SAFE_INTEGER);
}
