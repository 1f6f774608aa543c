// Values as they come from a command line or from standard input, and as messages show them.
import type { Readable } from "node:stream";
import { UsageError } from "./command.js";

const UNITS_MS: Readonly<Record<string, number>> = {
  "": 1,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A whole number as it was typed. Throws `UsageError` with the option's name. */
export function wholeNumber(name: string, text: string): number {
  const number = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(number)) {
    throw new UsageError(`${name} takes a whole number, not ${JSON.stringify(text)}.`);
  }
  return number;
}

/** Milliseconds from `1500`, `90s`, `5m`, `2h` or `1d`. Throws `UsageError` with the option's name. */
export function milliseconds(name: string, text: string): number {
  const [, digits = "", unit = ""] = /^([0-9]+)(ms|s|m|h|d|)$/.exec(text) ?? [];
  const number = digits === "" ? Number.NaN : Number(digits) * (UNITS_MS[unit] as number);
  if (!Number.isSafeInteger(number)) {
    throw new UsageError(`${name} takes milliseconds, or 90s, 5m, 2h, 1d; not ${JSON.stringify(text)}.`);
  }
  return number;
}

/** A JSON value from the command line. Throws `UsageError` with what it was for. */
export function parseJson(what: string, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const hint = /^[\w./:@-]+$/.test(text) ? ` A JSON string needs quotes of its own: '"${text}"'.` : "";
    throw new UsageError(`${what} is not JSON: ${shorten(text)} (${(error as Error).message}).${hint}`);
  }
  const rounded = roundedNumber(text);
  if (rounded !== undefined) {
    throw new UsageError(`${what} holds ${shorten(rounded)}, which would be rounded. Send it as a string.`);
  }
  return value;
}

/** A number in a JSON text that JavaScript cannot hold, if there is one: it must not be changed in silence. */
export function roundedNumber(json: string): string | undefined {
  const numbers = json.replace(/"(?:[^"\\]|\\.)*"/g, "").match(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g) ?? [];
  return numbers.find((each) => {
    const value = Number(each);
    return Math.abs(value) > Number.MAX_SAFE_INTEGER && (/^-?\d+$/.test(each) || !Number.isFinite(value));
  });
}

/** JSON for people to read. A text with a number that would be changed by that stays as it is. */
export function indented(json: string): string {
  return roundedNumber(json) === undefined ? JSON.stringify(JSON.parse(json), null, 2) : json;
}

const MAX_SHOWN_LENGTH = 80;

/** A value as a message shows it. */
export function shorten(text: string): string {
  return text.length <= MAX_SHOWN_LENGTH ? text : `${text.slice(0, MAX_SHOWN_LENGTH - 3)}...`;
}

/** All of a stream, as text. */
export async function readAll(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}
