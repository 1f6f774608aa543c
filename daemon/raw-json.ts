import { randomUUID } from "node:crypto";

/**
 * JSON that is kept as the text it came in: `JSON.parse` and `JSON.stringify` would turn 1.0 into 1, 1e400
 * into null and 12345678901234567890 into another number, and would lose duplicate members, their order and
 * how characters were escaped. Node 20 has no access to the source of a parsed value, so the text is found in
 * the line by a scan of its own, and put into the reply as it stands.
 */
export class RawJson {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  /** What `JSON.stringify` asks for: inside `encode` a place for the text, elsewhere the value. */
  toJSON(): unknown {
    if (texts === undefined) return JSON.parse(this.text);
    texts.push(this.text);
    return PLACE;
  }
}

/** The texts that belong to the places of the `encode` under way, in their order. */
let texts: string[] | undefined;

/** Stands for a text while the rest is made by `JSON.stringify`. It never leaves the process, so nobody can send it. */
const PLACE = randomUUID();
const QUOTED_PLACE = JSON.stringify(PLACE);

/**
 * `JSON.stringify` with each `RawJson` as its text. Costs nothing for values that hold none; one that does is
 * still made by the engine's own code, which is several times faster than any walk through the value here.
 */
export function encode(value: unknown): string {
  texts = [];
  try {
    const encoded = JSON.stringify(value);
    if (texts.length === 0) return encoded;
    const pieces = encoded.split(QUOTED_PLACE);
    let result = pieces[0] as string;
    for (let index = 0; index < texts.length; index++) {
      result += (texts[index] as string) + (pieces[index + 1] as string);
    }
    return result;
  } finally {
    texts = undefined;
  }
}

/**
 * What a method keeps as the text it was sent as (`raw` in its definition): what `textsAt` finds in its params.
 */
export type Texts = readonly (string | undefined)[];

/** In a path, every element of an array; where there is an object, the member of that name. */
export const EACH = "*";

/**
 * The texts of the values that a path leads to in a JSON text, byte for byte and without the space around them:
 * one, or with `EACH` one for each element, in their order; undefined where there is nothing. Of members of one
 * name the last counts, as for `JSON.parse`.
 *
 * @param json must be JSON that `JSON.parse` takes; nothing is checked here.
 */
export function textsAt(json: string, path: readonly string[]): (string | undefined)[] {
  const found: (string | undefined)[] = [];
  collect(new Scanner(json), path, 0, found);
  return found;
}

/** Adds what the rest of a path leads to, and takes the value at the scanner. Recurses only along the path. */
function collect(
  scanner: Scanner,
  path: readonly string[],
  depth: number,
  found: (string | undefined)[],
): void {
  if (depth === path.length) {
    found.push(scanner.takeValue());
    return;
  }
  const step = path[depth] as string;
  const isArray = scanner.code === OPEN_BRACKET;
  if (isArray ? step !== EACH : scanner.code !== OPEN_BRACE) {
    scanner.skipValue();
    found.push(undefined);
    return;
  }
  const before = found.length;
  let isThere = isArray;
  for (let more = scanner.enter(); more; more = scanner.next()) {
    if (isArray) {
      collect(scanner, path, depth + 1, found);
    } else if (scanner.takeName() === step) {
      // An earlier member of that name does not count.
      found.length = before;
      isThere = true;
      collect(scanner, path, depth + 1, found);
    } else {
      scanner.skipValue();
    }
  }
  if (!isThere) found.push(undefined);
}

/** How many arrays and objects are open at the deepest place of a JSON text. */
export function nestingLevels(json: string): number {
  let levels = 0;
  let deepest = 0;
  const scanner = new Scanner(json);
  for (; scanner.at < json.length; ) {
    const { code } = scanner;
    if (code === QUOTE) {
      scanner.skipString();
      continue;
    }
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      levels += 1;
      if (levels > deepest) deepest = levels;
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      levels -= 1;
    }
    scanner.at += 1;
  }
  return deepest;
}

/**
 * A JSON text with every object whose only member has the given name and a string as its value replaced by the
 * text that stands for that string. What was replaced is not looked into again.
 */
export function replaceReferences(json: string, name: string, textOf: (reference: string) => string): string {
  const scanner = new Scanner(json);
  let result = "";
  let copied = 0;
  while (scanner.at < json.length) {
    if (scanner.code === QUOTE) {
      scanner.skipString();
    } else if (scanner.code === OPEN_BRACE) {
      const start = scanner.at;
      const reference = takeReference(scanner, name);
      if (reference === undefined) {
        scanner.at = start + 1;
      } else {
        result += json.slice(copied, start) + textOf(reference);
        // The space behind the object stays.
        copied = json.lastIndexOf("}", scanner.at - 1) + 1;
      }
    } else {
      scanner.at += 1;
    }
  }
  return copied === 0 ? json : result + json.slice(copied);
}

/**
 * The value of an object at the scanner whose only member is called `name`, and takes the object; undefined for
 * any other, and then the scanner is somewhere in it. Looks no further than the first value that is no string,
 * so that objects in objects are not read again at every level.
 */
function takeReference(scanner: Scanner, name: string): string | undefined {
  let reference: string | undefined;
  for (let more = scanner.enter(); more; more = scanner.next()) {
    if (scanner.takeName() !== name || scanner.code !== QUOTE) return undefined;
    reference = JSON.parse(scanner.takeValue()) as string;
  }
  return reference;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

/**
 * Goes through a JSON text that is known to be well formed. `at` is where it is, after each step on something
 * that is no space. Nothing recurses: JSON may be nested more deeply than the stack.
 */
export class Scanner {
  readonly json: string;
  at = 0;

  constructor(json: string) {
    this.json = json;
    this.#skipSpace();
  }

  /** The character here, as a UTF-16 code unit; NaN at the end. */
  get code(): number {
    return this.json.charCodeAt(this.at);
  }

  /** Goes into the array or object that begins here; false if it is empty, and then it is behind. */
  enter(): boolean {
    this.#step();
    return !this.#leaves();
  }

  /** Goes on after a value to the next element or member; false at the end of the array or object, which is then behind. */
  next(): boolean {
    if (this.#leaves()) return false;
    // A comma.
    this.#step();
    return true;
  }

  /** The name of the member that begins here; goes on to its value. */
  takeName(): string {
    const start = this.at;
    this.skipString();
    const text = this.json.slice(start, this.at);
    this.#skipSpace();
    // A colon.
    this.#step();
    return text.includes("\\") ? (JSON.parse(text) as string) : text.slice(1, -1);
  }

  /** The text of the value that begins here. */
  takeValue(): string {
    const start = this.at;
    this.#passValue();
    const text = this.json.slice(start, this.at);
    this.#skipSpace();
    return text;
  }

  skipValue(): void {
    this.#passValue();
    this.#skipSpace();
  }

  /** Goes behind the string that begins here, and no further. */
  skipString(): void {
    const { json } = this;
    let end = json.indexOf('"', this.at + 1);
    while (isEscaped(json, end)) end = json.indexOf('"', end + 1);
    this.at = end + 1;
  }

  #passValue(): void {
    const { code } = this;
    if (code === QUOTE) return this.skipString();
    if (code !== OPEN_BRACE && code !== OPEN_BRACKET) return this.#passWord();
    const { json } = this;
    let levels = 0;
    do {
      switch (json.charCodeAt(this.at)) {
        case QUOTE:
          this.skipString();
          continue;
        case OPEN_BRACE:
        case OPEN_BRACKET:
          levels += 1;
          break;
        case CLOSE_BRACE:
        case CLOSE_BRACKET:
          levels -= 1;
          break;
      }
      this.at += 1;
    } while (levels > 0);
  }

  /** A number, true, false or null. */
  #passWord(): void {
    const { json } = this;
    for (; this.at < json.length; this.at++) {
      const code = json.charCodeAt(this.at);
      if (code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET || code <= SPACE) return;
    }
  }

  #leaves(): boolean {
    const { code } = this;
    if (code !== CLOSE_BRACE && code !== CLOSE_BRACKET) return false;
    this.#step();
    return true;
  }

  #step(): void {
    this.at += 1;
    this.#skipSpace();
  }

  #skipSpace(): void {
    while (this.json.charCodeAt(this.at) <= SPACE) this.at += 1;
  }
}

/** Whether the character at `at` has an odd number of backslashes before it. */
function isEscaped(json: string, at: number): boolean {
  let before = at;
  while (json.charCodeAt(before - 1) === BACKSLASH) before -= 1;
  return (at - before) % 2 === 1;
}
