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
  /** The canonical texts of its elements or of its members' values. */
  readonly values: string[];
  readonly names: string[];
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
  const scanner = new Scanner(json);
  const open: Open[] = [];
  for (;;) {
    let value: string;
    const first = json[scanner.at];
    if (first === "{" || first === "[") {
      const container: Open = { isObject: first === "{", values: [], names: [] };
      if (scanner.enter()) {
        open.push(container);
        if (container.isObject) container.names.push(scanner.takeName());
        continue;
      }
      value = shortened(close(container), plainCharacters);
    } else {
      value = scalar(scanner.takeValue());
    }

    // Close what is complete, then go on with the next value of what is not.
    for (;;) {
      const inner = open.at(-1);
      if (inner === undefined) return digest(value);
      inner.values.push(value);
      if (scanner.next()) {
        if (inner.isObject) inner.names.push(scanner.takeName());
        break;
      }
      open.pop();
      value = shortened(close(inner), plainCharacters);
    }
  }
}

function close({ isObject, values, names }: Open): string {
  if (!isObject) return `[${values.join()}]`;
  const order = names.map((_, index) => index);
  // The sort is stable, so members of one name stay in their order.
  order.sort((a, b) => compare(names[a] as string, names[b] as string));
  return `{${order.map((index) => `${quote(names[index] as string)}:${values[index]}`).join()}}`;
}

/** By UTF-16 code units. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function scalar(token: string): string {
  const first = token[0] as string;
  if (first === '"') return quote(token.includes("\\") ? (JSON.parse(token) as string) : token.slice(1, -1));
  return first === "-" || (first >= "0" && first <= "9") ? canonicalNumber(token) : token;
}

/** As ECMAScript writes it, with lone surrogates escaped: what no UTF-8 can hold must not fold into one another. */
function quote(text: string): string {
  return JSON.stringify(text);
}

/** The one spelling of a number: a sign, an integer without zeros at its end, and a power of ten. */
function canonicalNumber(token: string): string {
  const [, sign, whole, fraction = "", exponent = "0"] = NUMBER.exec(token) as unknown as string[];
  const digits = `${whole}${fraction}`.replace(/^0+/, "");
  if (digits === "") return "0";
  if (exponent.length > MAX_EXPONENT_DIGITS) return token;
  const significant = withoutZerosAtEnd(digits);
  const power = Number(exponent) - fraction.length + (digits.length - significant.length);
  return `${sign}${significant}e${power}`;
}

const NUMBER = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/;

/** Not by a regular expression, which would try anew at each zero of a long number. */
function withoutZerosAtEnd(digits: string): string {
  let end = digits.length;
  while (digits[end - 1] === "0") end -= 1;
  return digits.slice(0, end);
}

/** A text never begins with `#` otherwise. */
function shortened(text: string, plainCharacters: number): string {
  return text.length > plainCharacters ? `#${digest(text)}` : text;
}

function digest(text: string): string {
  return hash("sha256", text, "hex");
}
