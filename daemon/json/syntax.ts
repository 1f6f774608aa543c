import { isUtf8 } from "node:buffer";
import { MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";

/*
 * The grammar of JSON (RFC 8259) in UTF-8 as a table: for each state and byte the next state. What the table cannot
 * know, because it depends on the arrays and objects that are open, are the states from `OpenArray` on: they are
 * left at once, for the state that follows from that.
 */

/** `Value`: a value is to come, as after a colon. `First`: a value, or the end of the array that has just begun. */
const VALUE = 0;
const FIRST = 1;
/** A name is to come, or the end of the object that has just begun; a name; the colon after one. */
const FIRST_NAME = 2;
const NAME = 3;
const COLON = 4;
/** A value is complete. */
const AFTER = 5;
/** In a number: after its sign, a first zero, a digit, the point, a digit behind it, the e, its sign, a digit. */
const MINUS = 6;
const ZERO = 7;
const DIGITS = 8;
const POINT = 9;
const FRACTION = 10;
const EXPONENT = 11;
const EXPONENT_SIGN = 12;
const EXPONENT_DIGITS = 13;
/** In a string that is a value, and in one that is a name: as many states each, from here on. */
const IN_VALUE = 14;
const STATES_IN_STRING = 13;
const IN_NAME = IN_VALUE + STATES_IN_STRING;
/** In true, false or null: a state for each letter that is to come. */
const IN_WORDS = IN_NAME + STATES_IN_STRING;
const WORDS = ["true", "false", "null"];
const STATES_IN_WORDS = WORDS.reduce((sum, word) => sum + word.length - 1, 0);

const OPEN_ARRAY = IN_WORDS + STATES_IN_WORDS;
const OPEN_OBJECT = OPEN_ARRAY + 1;
const CLOSE_ARRAY = OPEN_ARRAY + 2;
const CLOSE_OBJECT = OPEN_ARRAY + 3;
const COMMA = OPEN_ARRAY + 4;
/** The byte cannot be there. */
const WRONG = OPEN_ARRAY + 5;

const BYTES = 256;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const TABLE = new Uint8Array(OPEN_ARRAY * BYTES).fill(WRONG);

/** From these states, each of these characters or bytes leads to that one. */
function lead(
  from: readonly number[],
  by: string | readonly [first: number, last: number],
  to: number,
): void {
  const [first, last] = typeof by === "string" ? [0, BYTES - 1] : by;
  for (const state of from) {
    for (let byte = first; byte <= last; byte++) {
      if (typeof by !== "string" || by.includes(String.fromCharCode(byte))) TABLE[state * BYTES + byte] = to;
    }
  }
}

const SPACE = " \t\n\r";
const DIGIT_1_TO_9 = "123456789";
const DIGIT = `0${DIGIT_1_TO_9}`;
/** States after which a number may be over, so that what follows a value may follow. */
const NUMBER_ENDS = [ZERO, DIGITS, FRACTION, EXPONENT_DIGITS];

for (const state of [VALUE, FIRST, FIRST_NAME, NAME, COLON, AFTER]) lead([state], SPACE, state);
const beforeValue = [VALUE, FIRST];
lead(beforeValue, "[", OPEN_ARRAY);
lead(beforeValue, "{", OPEN_OBJECT);
lead(beforeValue, '"', IN_VALUE);
lead(beforeValue, "-", MINUS);
lead([...beforeValue, MINUS], "0", ZERO);
lead([...beforeValue, MINUS, DIGITS], DIGIT_1_TO_9, DIGITS);
lead([FIRST], "]", CLOSE_ARRAY);
lead([FIRST_NAME], "}", CLOSE_OBJECT);
lead([FIRST_NAME, NAME], '"', IN_NAME);
lead([COLON], ":", VALUE);
lead([AFTER, ...NUMBER_ENDS], SPACE, AFTER);
lead([AFTER, ...NUMBER_ENDS], ",", COMMA);
lead([AFTER, ...NUMBER_ENDS], "]", CLOSE_ARRAY);
lead([AFTER, ...NUMBER_ENDS], "}", CLOSE_OBJECT);
lead([DIGITS], "0", DIGITS);
lead([ZERO, DIGITS], ".", POINT);
lead([POINT, FRACTION], DIGIT, FRACTION);
lead([ZERO, DIGITS, FRACTION], "eE", EXPONENT);
lead([EXPONENT], "+-", EXPONENT_SIGN);
lead([EXPONENT, EXPONENT_SIGN, EXPONENT_DIGITS], DIGIT, EXPONENT_DIGITS);

for (const [text, end] of [
  [IN_VALUE, AFTER],
  [IN_NAME, COLON],
] as const) {
  const backslash = text + 1;
  /** So many hexadecimal digits are to come: from four down. */
  const hex = text + 2;
  /** So many bytes of a character are to come: from one up. */
  const [rest1, rest2, rest3] = [text + 6, text + 7, text + 8];
  /** The next byte has narrower limits (the Unicode Standard, table 3-7): nothing longer than it need be, ... */
  const [afterE0, afterF0] = [text + 9, text + 10];
  /** ... no surrogates, and nothing beyond U+10FFFF. */
  const [afterEd, afterF4] = [text + 11, text + 12];
  lead([text], [0x20, 0x7f], text);
  lead([text], '"', end);
  lead([text], "\\", backslash);
  lead([backslash], '"\\/bfnrt', text);
  lead([backslash], "u", hex);
  for (let index = 0; index < 4; index++) {
    lead([hex + index], `${DIGIT}abcdefABCDEF`, index === 3 ? text : hex + index + 1);
  }
  lead([text], [0xc2, 0xdf], rest1);
  lead([text], [0xe0, 0xef], rest2);
  lead([text], [0xf0, 0xf4], rest3);
  lead([text], [0xe0, 0xe0], afterE0);
  lead([text], [0xed, 0xed], afterEd);
  lead([text], [0xf0, 0xf0], afterF0);
  lead([text], [0xf4, 0xf4], afterF4);
  lead([rest3], [0x80, 0xbf], rest2);
  lead([rest2], [0x80, 0xbf], rest1);
  lead([rest1], [0x80, 0xbf], text);
  lead([afterE0], [0xa0, 0xbf], rest1);
  lead([afterEd], [0x80, 0x9f], rest1);
  lead([afterF0], [0x90, 0xbf], rest2);
  lead([afterF4], [0x80, 0x8f], rest2);
}

let state = IN_WORDS;
for (const word of WORDS) {
  lead(beforeValue, word.charAt(0), state);
  for (let index = 1; index < word.length; index++) {
    lead([state], word.charAt(index), index === word.length - 1 ? AFTER : state + 1);
    state += 1;
  }
}

const HEADER_BYTES = 3;

/**
 * Checks that bytes are a JSON text in UTF-8 while they arrive, in pieces that may end anywhere, so that a text of
 * any size needs no memory but for the arrays and objects that are open: one bit each. What it has to remember
 * between two pieces can be saved and restored.
 */
export class JsonSyntax {
  #state = VALUE;
  #depth = 0;
  /** One bit for each open container: 1 for an object. */
  readonly #isObject: Uint8Array;
  readonly #levels: number;

  /** @param levels how many arrays and objects may be in one another. */
  constructor(levels = MAX_PAYLOAD_NESTING_LEVELS) {
    this.#levels = levels;
    this.#isObject = new Uint8Array(Math.ceil(levels / 8));
  }

  static restore(saved: Uint8Array): JsonSyntax {
    const syntax = new JsonSyntax();
    const view = new DataView(saved.buffer, saved.byteOffset, saved.byteLength);
    syntax.#state = view.getUint8(0);
    syntax.#depth = view.getUint16(1);
    syntax.#isObject.set(saved.subarray(HEADER_BYTES));
    return syntax;
  }

  save(): Uint8Array {
    const containers = this.#isObject.subarray(0, Math.ceil(this.#depth / 8));
    const saved = new Uint8Array(HEADER_BYTES + containers.length);
    const view = new DataView(saved.buffer);
    view.setUint8(0, this.#state);
    view.setUint16(1, this.#depth);
    saved.set(containers, HEADER_BYTES);
    return saved;
  }

  /** True if what has arrived is one whole JSON text. */
  get complete(): boolean {
    return this.#depth === 0 && (this.#state === AFTER || NUMBER_ENDS.includes(this.#state));
  }

  /**
   * Takes the next piece. Returns the index in it of the first byte that cannot be there, or nests too deeply;
   * undefined if there is none. After such a byte it is of no further use.
   */
  take(bytes: Uint8Array): number | undefined {
    const text = new PlainText(bytes);
    const isObject = this.#isObject;
    const levels = this.#levels;
    // Held here, where they cost nothing: this loop is most of what an upload costs.
    const [table, isPlain] = [TABLE, IS_PLAIN];
    const [length, begin, end] = [bytes.length, text.begin, text.end];
    let depth = this.#depth;
    let state = this.#state;
    for (let at = 0; at < length; ) {
      state = table[(state << 8) | (bytes[at] as number)] as number;
      if (state < OPEN_ARRAY) {
        at++;
        if ((state !== IN_VALUE && state !== IN_NAME) || at < begin) continue;
        // Most of a large text is in strings. As a rule they are short, but those that are not are most of it.
        const near = Math.min(at + SHORT_BYTES, end);
        while (at < near && isPlain[bytes[at] as number] === 1) at++;
        if (at === near && at < end) at = text.endFrom(at);
        continue;
      }
      if (state === COMMA) {
        if (depth === 0) return at;
        state = isSet(isObject, depth - 1) ? NAME : VALUE;
      } else if (state === OPEN_ARRAY || state === OPEN_OBJECT) {
        if (depth === levels) return at;
        set(isObject, depth, state === OPEN_OBJECT);
        depth++;
        state = state === OPEN_OBJECT ? FIRST_NAME : FIRST;
      } else {
        if (state === WRONG || depth === 0 || isSet(isObject, depth - 1) !== (state === CLOSE_OBJECT))
          return at;
        depth--;
        state = AFTER;
      }
      at++;
    }
    this.#depth = depth;
    this.#state = state;
    return undefined;
  }
}

function isSet(bits: Uint8Array, index: number): boolean {
  return ((bits[index >> 3] as number) & (1 << (index & 7))) !== 0;
}

function set(bits: Uint8Array, index: number, to: boolean): void {
  const bit = 1 << (index & 7);
  const others = (bits[index >> 3] as number) & ~bit;
  bits[index >> 3] = to ? others | bit : others;
}

/** Bytes of a string that are simply a part of it, alone or as a part of a character of several bytes. */
const IS_PLAIN = Uint8Array.from({ length: BYTES }, (_, byte) =>
  byte < 0x20 || byte === QUOTE || byte === BACKSLASH ? 0 : 1,
);
/** Bytes of a string that are looked at one by one, before it is taken for a long one. */
const SHORT_BYTES = 16;
const MAX_CHARACTER_BYTES = 4;

/** Finds the ends of what needs no state in the long strings of a piece. */
class PlainText {
  readonly #bytes: Uint8Array;
  /** From the one to the other the bytes are whole characters of UTF-8. */
  readonly begin: number;
  readonly end: number;
  /** The bytes by fours, as far as they are whole words in memory, and the place of the first. */
  readonly #words: Int32Array;
  readonly #firstWord: number;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    // At both ends there may be a part of a character, which is left to the table.
    let [begin, end] = [0, bytes.length];
    while (begin < Math.min(MAX_CHARACTER_BYTES, end) && isContinuation(bytes[begin] as number)) begin++;
    do end--;
    while (end > Math.max(begin, bytes.length - MAX_CHARACTER_BYTES) && isContinuation(bytes[end] as number));
    this.begin = begin;
    // The engine checks this much faster than the table does. If it is not so, the table finds the place.
    this.end = end > begin && isUtf8(bytes.subarray(begin, end)) ? end : 0;
    this.#firstWord = -bytes.byteOffset & 3;
    const words = Math.max(0, (bytes.length - this.#firstWord) >> 2);
    this.#words = new Int32Array(
      bytes.buffer,
      bytes.byteOffset + (words > 0 ? this.#firstWord : -bytes.byteOffset),
      words,
    );
  }

  /** The place of the first byte from `from` on, which is between the two, that is not simply a part of a string. */
  endFrom(from: number): number {
    const bytes = this.#bytes;
    const words = this.#words;
    const lastWord = (this.end - this.#firstWord) >> 2;
    // The first may begin before `from`, with bytes that are no ends either.
    let word = (from - this.#firstWord) >> 2;
    while (word < lastWord && isPlainWord(words[word] as number)) word++;
    let at = Math.max(from, this.#firstWord + (word << 2));
    while (at < this.end && IS_PLAIN[bytes[at] as number] === 1) at++;
    return at;
  }
}

/**
 * True if none of four bytes is below 0x20, a quote or a backslash: "less than n" and "equal to n" of each byte of a
 * word at once (Bit Twiddling Hacks, https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord).
 */
function isPlainWord(word: number): boolean {
  const quote = word ^ 0x22222222;
  const backslash = word ^ 0x5c5c5c5c;
  const found =
    ((word - 0x20202020) & ~word) | ((quote - 0x01010101) & ~quote) | ((backslash - 0x01010101) & ~backslash);
  return (found & 0x80808080) === 0;
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}
