import { hash } from "node:crypto";
import { Scanner } from "@pawl/protocol/json-text";

/**
 * Longer texts of an array or object are replaced by their digests, so that the whole takes time and space in
 * proportion to its size. Another bound makes another digest: with one as short as a digest, which older ones have,
 * each of 500 arrays in one another was digested by itself.
 */
export const PLAIN_CHARACTERS = 512;
const FORMER_PLAIN_CHARACTERS = 64;
/** An exponent of more digits is beyond anything that a reader can calculate with; it is taken as it is written. */
const MAX_EXPONENT_DIGITS = 15;

/** An array or object whose end has not come yet. */
interface Open {
  readonly isObject: boolean;
  /** Where its text begins, and how many bytes more than characters came before that. */
  readonly start: number;
  readonly surplus: number;
  /** The place of its first member among those of all. */
  readonly firstMember: number;
  /** False once the name of a member comes before that of the one before it. */
  isInOrder: boolean;
}

/**
 * A digest of the meaning of a JSON text: equal for texts that differ only in space, in the order of members, in how
 * characters are escaped and in how a number is written (1.0 and 1, 1e2 and 100). Numbers are compared exactly,
 * also where a double could not tell them apart. Members of the same name are all kept, in their order: readers
 * disagree on which of them counts. Nothing recurses: JSON may be nested more deeply than the stack.
 *
 * @param json must be JSON that `JSON.parse` takes.
 */
export function digestOfMeaning(json: string, plainCharacters = FORMER_PLAIN_CHARACTERS): string {
  return new CanonicalText(json, plainCharacters).digest();
}

/** Bytes that are used again: to take new ones takes longer than a short text. */
let spareBytes = Buffer.allocUnsafeSlow(16 * 1024);
const MAX_SPARE_BYTES = 1024 * 1024;

/**
 * The one text of a meaning, written as bytes while the JSON is read: a MiB can hold half a million values, and a
 * string for each took 0.3 s.
 */
class CanonicalText {
  readonly #scanner: Scanner;
  readonly #plainCharacters: number;
  #bytes = spareBytes;
  #size = 0;
  /** How many bytes more there are than characters, as JavaScript counts these. */
  #surplus = 0;
  readonly #open: Open[] = [];
  /** The members of all open objects: their names, and where the text of each begins. */
  readonly #names: string[] = [];
  readonly #starts: number[] = [];
  #members = 0;

  constructor(json: string, plainCharacters: number) {
    this.#scanner = new Scanner(json);
    this.#plainCharacters = plainCharacters;
  }

  digest(): string {
    const scanner = this.#scanner;
    for (;;) {
      const { code } = scanner;
      if (code === OPEN_BRACE || code === OPEN_BRACKET) {
        const open = this.#begin(code);
        if (scanner.enter()) {
          if (open.isObject) this.#takeName(open);
          continue;
        }
        this.#end();
      } else {
        this.#putScalar(code, scanner.takeValue());
      }

      // Close what is complete, then go on with the next value of what is not.
      for (;;) {
        const open = this.#open[this.#open.length - 1];
        if (open === undefined) return this.#finish();
        if (scanner.next()) {
          this.#put(COMMA);
          if (open.isObject) this.#takeName(open);
          break;
        }
        this.#end();
      }
    }
  }

  #finish(): string {
    if (this.#bytes.length <= MAX_SPARE_BYTES) spareBytes = this.#bytes;
    return digest(this.#bytes.subarray(0, this.#size));
  }

  #begin(code: number): Open {
    const open = {
      isObject: code === OPEN_BRACE,
      start: this.#size,
      surplus: this.#surplus,
      firstMember: this.#members,
      isInOrder: true,
    };
    this.#open.push(open);
    this.#put(code);
    return open;
  }

  /** Ends the innermost array or object; a long one is replaced by its digest. */
  #end(): void {
    const { isObject, start, surplus, firstMember, isInOrder } = this.#open.pop() as Open;
    if (!isInOrder) this.#sort(firstMember);
    this.#members = firstMember;
    this.#put(isObject ? CLOSE_BRACE : CLOSE_BRACKET);
    const characters = this.#size - start - (this.#surplus - surplus);
    if (characters <= this.#plainCharacters) return;
    const short = digest(this.#bytes.subarray(start, this.#size));
    this.#size = start;
    this.#surplus = surplus;
    // No other text begins so.
    this.#put(NUMBER_SIGN);
    this.#putText(short);
  }

  #takeName(open: Open): void {
    const index = this.#members;
    this.#members += 1;
    this.#starts[index] = this.#size;
    const name = this.#scanner.takeName();
    this.#names[index] = name;
    if (index > open.firstMember && name < (this.#names[index - 1] as string)) open.isInOrder = false;
    this.#putString(name);
    this.#put(COLON);
  }

  /** Puts the members of the innermost object in the order of their names. */
  #sort(firstMember: number): void {
    const starts = this.#starts;
    const start = starts[firstMember] as number;
    // Behind the last one comes what is between two.
    this.#put(COMMA);
    starts[this.#members] = this.#size;
    const texts = Buffer.from(this.#bytes.subarray(start, this.#size));
    const members: number[] = [];
    for (let member = firstMember; member < this.#members; member++) members.push(member);
    const bytes = this.#bytes;
    let size = start;
    for (const member of byName(members, this.#names)) {
      const end = (starts[member + 1] as number) - start;
      for (let at = (starts[member] as number) - start; at < end; at++) bytes[size++] = texts[at] as number;
    }
    this.#size -= 1;
  }

  #putScalar(first: number, token: string): void {
    if (first === QUOTE) this.#putString(token.includes("\\") ? JSON.parse(token) : token.slice(1, -1));
    else if (first === MINUS || (first >= ZERO && first <= NINE)) this.#putNumber(token);
    else this.#putText(token);
  }

  /** As ECMAScript writes it, with lone surrogates escaped: what no UTF-8 can hold must not fold into one another. */
  #putString(text: string): void {
    this.#room(text.length + 2);
    const bytes = this.#bytes;
    let size = this.#size;
    bytes[size++] = QUOTE;
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index);
      if (code < SPACE || code > TILDE || code === QUOTE || code === BACKSLASH)
        return this.#putText(JSON.stringify(text));
      bytes[size++] = code;
    }
    bytes[size++] = QUOTE;
    this.#size = size;
  }

  /** The one spelling of a number: a sign, an integer without zeros at its end, and a power of ten. */
  #putNumber(token: string): void {
    this.#room(token.length + MAX_POWER_CHARACTERS);
    const bytes = this.#bytes;
    let size = this.#size;
    let at = 0;
    if (token.charCodeAt(0) === MINUS) {
      bytes[size++] = MINUS;
      at = 1;
    }
    const first = size;
    /** Behind the last digit that is no zero. */
    let end = size;
    let point = -1;
    for (; at < token.length; at++) {
      const code = token.charCodeAt(at);
      if (code === POINT) {
        point = at;
        continue;
      }
      if (code < ZERO || code > NINE) break;
      if (code === ZERO && size === first) continue;
      bytes[size++] = code;
      if (code !== ZERO) end = size;
    }
    if (end === first) return this.#put(ZERO);
    let power = size - end;
    if (point >= 0) power -= at - point - 1;
    if (at < token.length) {
      const exponent = token.slice(at + 1);
      if (exponent.length > MAX_EXPONENT_DIGITS) return this.#putText(token);
      power += Number(exponent);
    }
    bytes[end] = LOWER_E;
    this.#size = end + 1;
    if (power >= 0 && power <= 9) this.#put(ZERO + power);
    else this.#putText(String(power));
  }

  #putText(text: string): void {
    const { length } = text;
    this.#room(length * MAX_BYTES_PER_CHARACTER);
    if (length < 32) {
      const bytes = this.#bytes;
      let size = this.#size;
      let index = 0;
      for (; index < length; index++) {
        const code = text.charCodeAt(index);
        if (code > 127) break;
        bytes[size++] = code;
      }
      if (index === length) {
        this.#size = size;
        return;
      }
    }
    const written = this.#bytes.write(text, this.#size);
    this.#size += written;
    this.#surplus += written - length;
  }

  #put(code: number): void {
    this.#room(1);
    this.#bytes[this.#size++] = code;
  }

  #room(bytes: number): void {
    if (this.#size + bytes <= this.#bytes.length) return;
    const more = Buffer.allocUnsafeSlow(2 * this.#bytes.length + bytes);
    this.#bytes.copy(more, 0, 0, this.#size);
    this.#bytes = more;
  }
}

/**
 * Members in the order of their names by UTF-16 code units; those of one name stay in their order. Many are sorted by
 * two characters at a time, as numbers, which takes less than half the time.
 */
function byName(members: number[], names: readonly string[], from = 0): number[] {
  const { length } = members;
  if (length < MIN_BY_NUMBER || length > MAX_BY_NUMBER || from >= MAX_SORTED_CHARACTERS) {
    return members.sort((a, b) => compare(names[a] as string, names[b] as string));
  }
  const keys = new Float64Array(length);
  for (let index = 0; index < length; index++) {
    const name = names[members[index] as number] as string;
    const two = unitAt(name, from) * UNITS + unitAt(name, from + 1);
    keys[index] = two * length + index;
  }
  keys.sort();
  const sorted: number[] = [];
  for (let index = 0; index < length; ) {
    const two = Math.floor((keys[index] as number) / length);
    const alike: number[] = [];
    for (; index < length && Math.floor((keys[index] as number) / length) === two; index++)
      alike.push(members[(keys[index] as number) % length] as number);
    const isEnd = alike.length === 1 || two % UNITS === 0;
    for (const member of isEnd ? alike : byName(alike, names, from + 2)) sorted.push(member);
  }
  return sorted;
}

/** A code unit of a text, counted from 1; 0 behind its end. */
function unitAt(text: string, at: number): number {
  return at < text.length ? text.charCodeAt(at) + 1 : 0;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function digest(text: Buffer): string {
  return hash("sha256", text, "hex");
}

/** What `unitAt` gives is less. */
const UNITS = 2 ** 16 + 1;
/** Fewer names are compared as they are; the keys of more would be no exact numbers. */
const MIN_BY_NUMBER = 64;
const MAX_BY_NUMBER = 2 ** 20;
/** Names that are alike for so long are compared as they are: they are few, or the text is not that long. */
const MAX_SORTED_CHARACTERS = 32;
/** A sign and 16 digits, with the letter before them. */
const MAX_POWER_CHARACTERS = 18;
const MAX_BYTES_PER_CHARACTER = 3;
const SPACE = 0x20;
const QUOTE = 0x22;
const NUMBER_SIGN = 0x23;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_E = 0x65;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const TILDE = 0x7e;
