import { MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";

/**
 * Where the checker is. `Value`: a value is to come, as after a colon. `First`: a value or the end of the array.
 * `FirstName`: a name or the end of the object. `After`: a value is complete. `Text`, `Escape` and `Hex` are in
 * a string. `Word` is in true, false or null. The others are in a number, after what they are called.
 */
const Phase = {
  Value: 0,
  First: 1,
  FirstName: 2,
  Name: 3,
  Colon: 4,
  After: 5,
  Text: 6,
  Escape: 7,
  Hex: 8,
  Word: 9,
  Minus: 10,
  Zero: 11,
  Digits: 12,
  Point: 13,
  Fraction: 14,
  Exponent: 15,
  ExponentSign: 16,
  ExponentDigits: 17,
} as const;
type Phase = (typeof Phase)[keyof typeof Phase];

const WORDS = ["true", "false", "null"].map((word) => Buffer.from(word));
const HEX_DIGITS = 4;

const TAB = 0x09;
const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LETTER_E = 0x65;
const LETTER_U = 0x75;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const LOWER_CASE = 0x20;
const ASCII_LIMIT = 0x80;
const ESCAPABLE = new Set([...'"\\/bfnrt'].map((character) => character.charCodeAt(0)));

const HEADER_BYTES = 11;

/**
 * Checks that bytes are a JSON text (RFC 8259) in UTF-8 while they arrive, in pieces that may end anywhere, so that
 * a text of any size needs no memory but for the arrays and objects that are open: one bit each. What it has to
 * remember between two pieces can be saved and restored.
 */
export class JsonSyntax {
  #phase: Phase = Phase.Value;
  /** Whether the string at hand is the name of a member. */
  #inName = false;
  /** How many hexadecimal digits are to come, or how much of the word has. */
  #count = 0;
  #word = 0;
  /** Bytes of the UTF-8 character at hand that are to come, and within which limits the next one has to be. */
  #continuations = 0;
  #lowest = 0;
  #highest = 0;
  #depth = 0;
  /** One bit for each open container: 1 for an object. */
  readonly #isObject = new Uint8Array(Math.ceil(MAX_PAYLOAD_NESTING_LEVELS / 8));

  static restore(saved: Uint8Array): JsonSyntax {
    const syntax = new JsonSyntax();
    const view = new DataView(saved.buffer, saved.byteOffset, saved.byteLength);
    syntax.#phase = view.getUint8(0) as Phase;
    syntax.#inName = view.getUint8(1) === 1;
    syntax.#count = view.getUint8(2);
    syntax.#word = view.getUint8(3);
    syntax.#continuations = view.getUint8(4);
    syntax.#lowest = view.getUint8(5);
    syntax.#highest = view.getUint8(6);
    syntax.#depth = view.getUint32(7);
    syntax.#isObject.set(saved.subarray(HEADER_BYTES));
    return syntax;
  }

  save(): Uint8Array {
    const saved = new Uint8Array(HEADER_BYTES + Math.ceil(this.#depth / 8));
    const view = new DataView(saved.buffer);
    view.setUint8(0, this.#phase);
    view.setUint8(1, this.#inName ? 1 : 0);
    view.setUint8(2, this.#count);
    view.setUint8(3, this.#word);
    view.setUint8(4, this.#continuations);
    view.setUint8(5, this.#lowest);
    view.setUint8(6, this.#highest);
    view.setUint32(7, this.#depth);
    saved.set(this.#isObject.subarray(0, Math.ceil(this.#depth / 8)), HEADER_BYTES);
    return saved;
  }

  /** Whether what has arrived is one whole JSON text. */
  get complete(): boolean {
    if (this.#depth > 0) return false;
    switch (this.#phase) {
      case Phase.After:
      case Phase.Zero:
      case Phase.Digits:
      case Phase.Fraction:
      case Phase.ExponentDigits:
        return true;
      default:
        return false;
    }
  }

  /**
   * Takes the next piece. Returns the index in it of the first byte that cannot be there, or nests more deeply than
   * `MAX_PAYLOAD_NESTING_LEVELS`; undefined if there is none. After such a byte it is of no further use.
   */
  take(bytes: Uint8Array): number | undefined {
    let at = 0;
    while (at < bytes.length) {
      if (this.#phase === Phase.Text && this.#continuations === 0) {
        at = endOfPlainText(bytes, at);
        if (at === bytes.length) break;
      }
      if (!this.#accepts(bytes[at] as number)) return at;
      at += 1;
    }
    return undefined;
  }

  #accepts(byte: number): boolean {
    switch (this.#phase) {
      case Phase.Text:
        return this.#text(byte);
      case Phase.Value:
        return isSpace(byte) || this.#beginValue(byte);
      case Phase.First:
        return isSpace(byte) || (byte === CLOSE_BRACKET ? this.#close(false) : this.#beginValue(byte));
      case Phase.FirstName:
        return isSpace(byte) || (byte === CLOSE_BRACE ? this.#close(true) : this.#beginName(byte));
      case Phase.Name:
        return isSpace(byte) || this.#beginName(byte);
      case Phase.Colon:
        return isSpace(byte) || (byte === COLON && this.#enter(Phase.Value));
      case Phase.After:
        return isSpace(byte) || this.#after(byte);
      case Phase.Escape:
        if (byte !== LETTER_U) return ESCAPABLE.has(byte) && this.#enter(Phase.Text);
        this.#count = HEX_DIGITS;
        return this.#enter(Phase.Hex);
      case Phase.Hex:
        this.#count -= 1;
        return isHexDigit(byte) && (this.#count > 0 || this.#enter(Phase.Text));
      case Phase.Word: {
        const word = WORDS[this.#word] as Uint8Array;
        if (byte !== word[this.#count]) return false;
        this.#count += 1;
        return this.#count < word.length || this.#enter(Phase.After);
      }
      case Phase.Minus:
        if (byte === DIGIT_0) return this.#enter(Phase.Zero);
        return isDigit(byte) && this.#enter(Phase.Digits);
      case Phase.Zero:
        return this.#afterWhole(byte);
      case Phase.Digits:
        return isDigit(byte) || this.#afterWhole(byte);
      case Phase.Point:
        return isDigit(byte) && this.#enter(Phase.Fraction);
      case Phase.Fraction:
        return isDigit(byte) || this.#exponentOrEnd(byte);
      case Phase.Exponent:
        if (byte === PLUS || byte === MINUS) return this.#enter(Phase.ExponentSign);
        return isDigit(byte) && this.#enter(Phase.ExponentDigits);
      case Phase.ExponentSign:
        return isDigit(byte) && this.#enter(Phase.ExponentDigits);
      case Phase.ExponentDigits:
        return isDigit(byte) || this.#endNumber(byte);
    }
  }

  #enter(phase: Phase): true {
    this.#phase = phase;
    return true;
  }

  #beginValue(byte: number): boolean {
    switch (byte) {
      case OPEN_BRACE:
        return this.#open(true);
      case OPEN_BRACKET:
        return this.#open(false);
      case QUOTE:
        this.#inName = false;
        return this.#enter(Phase.Text);
      case MINUS:
        return this.#enter(Phase.Minus);
      case DIGIT_0:
        return this.#enter(Phase.Zero);
    }
    if (isDigit(byte)) return this.#enter(Phase.Digits);
    this.#word = WORDS.findIndex((word) => word[0] === byte);
    this.#count = 1;
    return this.#word !== -1 && this.#enter(Phase.Word);
  }

  #beginName(byte: number): boolean {
    this.#inName = true;
    return byte === QUOTE && this.#enter(Phase.Text);
  }

  #open(isObject: boolean): boolean {
    if (this.#depth === MAX_PAYLOAD_NESTING_LEVELS) return false;
    const index = this.#depth >> 3;
    const bit = 1 << (this.#depth & 7);
    const bits = this.#isObject[index] as number;
    this.#isObject[index] = isObject ? bits | bit : bits & ~bit;
    this.#depth += 1;
    return this.#enter(isObject ? Phase.FirstName : Phase.First);
  }

  get #innermostIsObject(): boolean {
    const level = this.#depth - 1;
    return ((this.#isObject[level >> 3] as number) & (1 << (level & 7))) !== 0;
  }

  #close(isObject: boolean): boolean {
    if (this.#depth === 0 || this.#innermostIsObject !== isObject) return false;
    this.#depth -= 1;
    return this.#enter(Phase.After);
  }

  #after(byte: number): boolean {
    if (byte === CLOSE_BRACE) return this.#close(true);
    if (byte === CLOSE_BRACKET) return this.#close(false);
    if (byte !== COMMA || this.#depth === 0) return false;
    return this.#enter(this.#innermostIsObject ? Phase.Name : Phase.Value);
  }

  #afterWhole(byte: number): boolean {
    return byte === POINT ? this.#enter(Phase.Point) : this.#exponentOrEnd(byte);
  }

  #exponentOrEnd(byte: number): boolean {
    return (byte | LOWER_CASE) === LETTER_E ? this.#enter(Phase.Exponent) : this.#endNumber(byte);
  }

  /** A number has no end of its own: this byte comes after it. */
  #endNumber(byte: number): boolean {
    this.#phase = Phase.After;
    return isSpace(byte) || this.#after(byte);
  }

  #text(byte: number): boolean {
    if (this.#continuations > 0) {
      if (byte < this.#lowest || byte > this.#highest) return false;
      this.#continuations -= 1;
      this.#lowest = 0x80;
      this.#highest = 0xbf;
      return true;
    }
    if (byte === QUOTE) return this.#enter(this.#inName ? Phase.Colon : Phase.After);
    if (byte === BACKSLASH) return this.#enter(Phase.Escape);
    if (byte < ASCII_LIMIT) return byte >= SPACE;
    // The well-formed sequences of the Unicode Standard, table 3-7: no surrogates, nothing longer than it need be.
    this.#lowest = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
    this.#highest = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    this.#continuations = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    return byte >= 0xc2 && byte <= 0xf4;
  }
}

/** Most of a large text is within strings: the first byte that is not simply a part of one. */
function endOfPlainText(bytes: Uint8Array, from: number): number {
  let at = from;
  for (; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte === QUOTE || byte === BACKSLASH || byte < SPACE || byte >= ASCII_LIMIT) break;
  }
  return at;
}

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === NEWLINE || byte === CARRIAGE_RETURN || byte === TAB;
}

function isDigit(byte: number): boolean {
  return byte >= DIGIT_0 && byte <= DIGIT_9;
}

function isHexDigit(byte: number): boolean {
  const letter = byte | LOWER_CASE;
  return isDigit(byte) || (letter >= 0x61 && letter <= 0x66);
}
