// Values as they come from a command line or from standard input, and as messages show them.
import { isUtf8 } from "node:buffer";
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

const TIME = /^(\d{4})-(\d\d)-(\d\d)([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?$/;

/**
 * A point in time, in milliseconds since the Unix epoch: `2026-12-25` or `2026-12-25T18:00`, both by the clock on the
 * wall here, or `2026-12-25T18:00:00Z`. Throws `UsageError` with the option's name.
 */
export function pointInTime(name: string, text: string): number {
  const [whole = "", year, month, day, time = " 00:00"] = TIME.exec(text) ?? [];
  // The parser takes a day alone for one in UTC, and the 30th of February for the 2nd of March.
  const exists =
    new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).getUTCDate() === Number(day);
  const at = whole === "" || !exists ? Number.NaN : Date.parse(`${year}-${month}-${day}T${time.slice(1)}`);
  if (!Number.isNaN(at)) return at;
  throw new UsageError(
    `${name} takes a time such as 2026-12-25, 2026-12-25T18:00 or 2026-12-25T18:00:00Z, not ${JSON.stringify(text)}.`,
  );
}

/** A JSON value from the command line, to be sent as it is. Throws `UsageError` with what it was for. */
export function checkedJson(what: string, text: string): string {
  try {
    JSON.parse(text);
    return text;
  } catch (error) {
    const hint = /^[\w./:@-]+$/.test(text) ? ` A JSON string needs quotes of its own: '"${text}"'.` : "";
    throw new UsageError(`${what} is not JSON: ${shorten(text)} (${(error as Error).message}).${hint}`);
  }
}

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** JSON for people to read: its tokens as they are, with line breaks and spaces of ours between them. */
export function indented(json: string): string {
  let text = "";
  let depth = 0;
  let opened = false;
  const lineBreak = (): string => `\n${"  ".repeat(depth)}`;
  for (const [token] of json.matchAll(TOKEN)) {
    const opens = token === "{" || token === "[";
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    // An object or array is on lines of its own unless it is empty.
    text += opened === closes ? token : lineBreak() + token;
    if (opens) depth += 1;
    if (token === ":") text += " ";
    if (token === ",") text += lineBreak();
    opened = opens;
  }
  return text;
}

const MAX_SHOWN_LENGTH = 80;

/** A value as a message shows it. */
export function shorten(text: string): string {
  return text.length <= MAX_SHOWN_LENGTH ? text : `${text.slice(0, MAX_SHOWN_LENGTH - 3)}...`;
}

/** All of standard input, as text. Throws `UsageError` when it is no UTF-8. */
export async function readAll(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  const bytes = Buffer.concat(chunks);
  if (!isUtf8(bytes)) throw new UsageError("Standard input is not UTF-8.");
  return bytes.toString("utf8");
}

/** The parts of an option's text that has commas between them. */
export function listOf(option: string, text: string | undefined): string[] {
  const parts = text === undefined ? [] : text.split(",").map((part) => part.trim());
  if (parts.includes("")) {
    throw new UsageError(`--${option} takes names with commas between, not ${JSON.stringify(text)}.`);
  }
  return parts;
}
