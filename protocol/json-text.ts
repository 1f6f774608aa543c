/*
 * JSON as the text that it is. What `JSON.parse` gives does not tell it: 1.0 and 1 are one number to it, and
 * 12345678901234567890 is another number than it was. No schemas here: clients import this file at run time.
 */

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

/**
 * The params that a method keeps as the text they were sent as (`raw` in its definition), found by `textsAt`.
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

/**
 * The texts that some paths in params lead to, one path after the other. A param that is not there is not looked for.
 *
 * @param json gives the text that they are in, at the path `before`; asked only if one of the params is there.
 */
export function textsOf(
  params: object,
  paths: readonly (readonly string[])[],
  json: () => string,
  before: readonly string[] = [],
): Texts {
  const texts: (string | undefined)[] = [];
  for (const path of paths) {
    if (!Object.hasOwn(params, path[0] as string)) texts.push(undefined);
    else collect(new Scanner(json()), before.concat(path), 0, texts);
  }
  return texts;
}

/** The text of each member of a JSON object, by its name. Of members of one name the last counts. */
export function memberTexts(json: string): Map<string, string> {
  const texts = new Map<string, string>();
  const scanner = new Scanner(json);
  for (let more = scanner.enter(); more; more = scanner.next()) {
    const name = scanner.takeName();
    texts.set(name, scanner.takeValue());
  }
  return texts;
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

  /** Goes on after a value to the next element or member; false behind the end of the array or object. */
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

/** True if the character at `at` has an odd number of backslashes before it. */
function isEscaped(json: string, at: number): boolean {
  let before = at;
  while (json.charCodeAt(before - 1) === BACKSLASH) before -= 1;
  return (at - before) % 2 === 1;
}
