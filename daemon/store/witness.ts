// The numbers that a database was seen to have given, in a file beside it, by which an older copy is known.
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { FileInSteps, removePartial } from "./file-in-steps.js";
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
/** Numbers are written down so long after they were reached. */
const REFRESH_MS = 10_000;
/** So many lines are made at a time, in a millisecond or less: between them the daemon answers. */
const STEP_LINES = 256;
const STEP_PAUSE_MS = 10;
/** The file is written whole, without the lines that no longer count, once it is twice as long and this. */
const SPARE_BYTES = 64 * 1024;

/** One line of the file for each counter; of several for one the last counts. */
interface Line {
  readonly counter: Counter;
  /** Committed when this was written. */
  readonly value: number;
  /** Not passed before a higher one is on disk. */
  readonly bound: number;
  /** When, if it was after the head and all lines before. */
  readonly writtenAt?: number;
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

/** The content of the file; it was written last at `writtenAt`. */
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
  let lastAt = writtenAt;
  for (const line of lines) {
    const { counter, value, bound, writtenAt: at = lastAt } = JSON.parse(line) as Line;
    if (typeof counter !== "string" || !Number.isSafeInteger(value) || !(bound >= value)) return "unreadable";
    if (!Number.isSafeInteger(at)) return "unreadable";
    counters.set(counter, { value, bound });
    lastAt = at;
  }
  return { database, writtenAt: lastAt, starts, counters };
}

/**
 * Keeps the witness of an open database. A bound is on disk before a commit passes it, so whatever the database ever
 * gave is not above the bounds; the values are written down a while after they were reached, and at an orderly stop.
 * Whatever is new is appended. The file is written whole at the start, and when it has become long: that in steps,
 * since there may be 100,000 counters.
 */
export class Witness {
  readonly #path: string;
  readonly #database: string;
  #starts = 0;
  readonly #wallMs: () => number;
  readonly #values: Map<Counter, number>;
  readonly #bounds = new Map<Counter, number>();
  readonly #ahead = new Map<Counter, number>();
  /** Counters whose values were committed and are not written down. */
  readonly #unsaid = new Set<Counter>();
  /** The file, open to be appended to: kept, so that the witness can be written where no descriptor is left. */
  #file: number | undefined;
  /** How long this has made it, and was it when it was written whole. */
  #bytes = 0;
  #wholeBytes = 0;
  #refreshing: NodeJS.Timeout | undefined;
  #rewriting: FileInSteps | undefined;
  /** What was appended since that began, which it may have passed. */
  readonly #meanwhile = new Set<Counter>();

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
    orNotWritten(() => {
      removePartial(this.#path);
      this.#write();
    });
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
    orNotWritten(() => {
      try {
        this.#append(passed, textOf(this.#linesOf(passed.keys(), passed)));
      } catch (error) {
        if (isFull(error)) throw error;
        // Whoever removed the file, or whatever of the lines could not be taken off: it is written whole.
        this.#write(passed);
      }
    });
  }

  /** After the commit. */
  committed(reached: Reached): void {
    if (reached.size === 0) return;
    for (const [counter, value] of reached) {
      // Tokens of one name go up from where that name is.
      if (value <= (this.#values.get(counter) ?? 0)) continue;
      this.#values.set(counter, value);
      this.#unsaid.add(counter);
    }
    if (this.#unsaid.size > 0) this.#refreshing ??= this.#refreshIn(REFRESH_MS);
  }

  /** The last word of this life, after its last commit. */
  stop(): void {
    clearTimeout(this.#refreshing);
    this.#rewriting?.giveUp();
    if (this.#unsaid.size === 0) return;
    try {
      this.#say([...this.#unsaid]);
    } catch {
      this.#write();
    }
  }

  close(): void {
    clearTimeout(this.#refreshing);
    this.#rewriting?.giveUp();
    this.#letGo();
  }

  #refreshIn(pauseMs: number): NodeJS.Timeout {
    return setTimeout(() => this.#refresh(), pauseMs).unref();
  }

  #refresh(): void {
    this.#refreshing = undefined;
    try {
      if (this.#unsaid.size > 0) this.#say(firstOf(this.#unsaid, STEP_LINES));
      if (this.#unsaid.size > 0) this.#refreshing = this.#refreshIn(STEP_PAUSE_MS);
      else if (this.#bytes > 2 * this.#wholeBytes + SPARE_BYTES) this.#rewrite();
    } catch (error) {
      // The bounds that are on disk hold all the same.
      if (!isFull(error)) this.#rewrite();
    }
  }

  /** Appends what the counters have reached, with bounds as far above that as ever. */
  #say(counters: readonly Counter[]): void {
    const bounds = new Map(counters.map((counter) => [counter, this.#boundOf(counter)]));
    const writtenAt = this.#wallMs();
    const lines = this.#linesOf(counters, bounds).map((line) => ({ ...line, writtenAt }));
    this.#append(bounds, textOf(lines));
    for (const counter of counters) this.#unsaid.delete(counter);
  }

  /** Throws also when the file that is open has lost its name, or does not end as this has left it. */
  #append(bounds: ReadonlyMap<Counter, number>, lines: string): void {
    const file = this.#file ?? openToAppend(this.#path);
    this.#file = file;
    const [open, named] = [fstatSync(file), lstatSync(this.#path)];
    if (open.ino !== named.ino || open.dev !== named.dev) throw new Error(`${this.#path} was replaced`);
    if (open.size !== this.#bytes)
      throw new Error(`${this.#path} has ${open.size} bytes, not ${this.#bytes}`);
    try {
      writeFileSync(file, lines);
      fdatasyncSync(file);
    } catch (error) {
      ftruncateSync(file, open.size);
      throw error;
    }
    this.#bytes += Buffer.byteLength(lines);
    for (const [counter, bound] of bounds) {
      this.#bounds.set(counter, bound);
      if (this.#rewriting !== undefined) this.#meanwhile.add(counter);
    }
  }

  /** @param raised bounds that take the place of what they were. */
  #write(raised: ReadonlyMap<Counter, number> = new Map()): void {
    this.#rewriting?.giveUp();
    const bounds = new Map(this.#bounds);
    for (const counter of this.#values.keys()) bounds.set(counter, this.#boundOf(counter));
    for (const [counter, bound] of raised) bounds.set(counter, bound);
    // Its descriptor may be the last there is, and the new file needs one.
    this.#letGo();
    const text = textOf([this.#head(), ...this.#linesOf(bounds.keys(), bounds)]);
    replaceFile(this.#path, text, { durable: true });
    this.#isWhole(Buffer.byteLength(text));
    for (const [counter, bound] of bounds) this.#bounds.set(counter, bound);
    this.#unsaid.clear();
    try {
      this.#file = openToAppend(this.#path);
    } catch {
      // Opened when it is needed.
    }
  }

  /** Writes it whole without having anybody wait. */
  #rewrite(): void {
    this.#rewriting?.giveUp();
    this.#meanwhile.clear();
    this.#rewriting = new FileInSteps(this.#path, this.#wholeInSteps(), {
      last: () => textOf(this.#linesOf(this.#meanwhile, this.#bounds)),
      named: (file) => {
        this.#letGo();
        this.#file = file;
        this.#isWhole(fstatSync(file).size);
      },
      ended: () => {
        this.#rewriting = undefined;
      },
    });
  }

  *#wholeInSteps(): Generator<string, void> {
    yield textOf([this.#head()]);
    const counters = [...this.#bounds.keys()];
    for (let from = 0; from < counters.length; from += STEP_LINES)
      yield textOf(this.#linesOf(counters.slice(from, from + STEP_LINES), this.#bounds));
  }

  #isWhole(bytes: number): void {
    this.#bytes = bytes;
    this.#wholeBytes = bytes;
  }

  #letGo(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #boundOf(counter: Counter): number {
    const bound = boundAbove(this.#values.get(counter) ?? 0, this.#ahead.get(counter) ?? firstAhead(counter));
    return Math.max(bound, this.#bounds.get(counter) ?? 0);
  }

  #head(): Head {
    return { witness: 1, database: this.#database, writtenAt: this.#wallMs(), starts: this.#starts };
  }

  /** @param bounds of these counters, and perhaps of others. */
  #linesOf(counters: Iterable<Counter>, bounds: ReadonlyMap<Counter, number>): Line[] {
    return Array.from(counters, (counter) => ({
      counter,
      value: this.#values.get(counter) ?? 0,
      bound: bounds.get(counter) as number,
    }));
  }
}

/** Throws whatever goes wrong as `WitnessNotWritten`. */
function orNotWritten(action: () => void): void {
  try {
    action();
  } catch (error) {
    throw new WitnessNotWritten(error as NodeJS.ErrnoException);
  }
}

/**
 * True if the file system is full, or what its user may have of it: where there is no space for a line there is none
 * for a new file, which may be long. In the place of a file that may not grow, a new one has room.
 */
function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes(systemCode(error));
}

function textOf(lines: readonly (Head | Line)[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

function firstOf<T>(all: Iterable<T>, count: number): T[] {
  const first: T[] = [];
  for (const one of all) {
    first.push(one);
    if (first.length === count) break;
  }
  return first;
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
