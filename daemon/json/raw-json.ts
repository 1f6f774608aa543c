// The room of JSON as the text that it came as: values that are never parsed, their digests and their syntax, and
// base64 that is too long for a string.
import { randomUUID } from "node:crypto";
import { Scanner } from "@pawl/protocol/json-text";
import { Damaged } from "./damaged.js";
import { JsonSyntax } from "./syntax.js";

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

  /** The value that `JSON.stringify` asks for: inside `encode` a placeholder for the text, elsewhere the value. */
  toJSON(): unknown {
    if (texts === undefined) return JSON.parse(this.text);
    texts.push(this.text);
    return PLACE;
  }
}

/**
 * A result that is an object to whoever reads it here, and that is answered by the text that was made with it: for an
 * object with texts in it `encode` takes 2 microseconds.
 */
export function written<T extends object>(result: T, text: string): T {
  return Object.assign(new RawJson(text), result);
}

/** Longer texts are not parsed to see whether they are JSON: the values of one can take 50 times as much memory. */
const MAX_PARSED_CHARACTERS = 16_384;

/** Text that was kept, as JSON; throws `Damaged` if it is none, as after a bit of the database has flipped. */
export function keptJson(text: unknown, what: string): RawJson {
  if (typeof text === "string" && isJson(text)) return new RawJson(text);
  throw new Damaged(what, "what is kept of it is no JSON");
}

function isJson(text: string): boolean {
  if (text.length > MAX_PARSED_CHARACTERS) {
    const syntax = new JsonSyntax();
    if (syntax.take(Buffer.from(text)) === undefined && syntax.complete) return true;
  }
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
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
 * text that stands for that string, if one does. What was replaced is not looked into again.
 */
export function replaceReferences(
  json: string,
  name: string,
  textOf: (reference: string) => string | undefined,
): string {
  const scanner = new Scanner(json);
  let result = "";
  let copied = 0;
  while (scanner.at < json.length) {
    if (scanner.code === QUOTE) {
      scanner.skipString();
    } else if (scanner.code === OPEN_BRACE) {
      const start = scanner.at;
      const reference = takeReference(scanner, name);
      const text = reference === undefined ? undefined : textOf(reference);
      if (text === undefined) {
        scanner.at = start + 1;
      } else {
        result += json.slice(copied, start) + text;
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
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
