import { randomUUID } from "node:crypto";

/** Shorter lines are not worth it. */
const LONG_LINE_BYTES = 64 * 1024;
const QUOTE = 0x22;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const SPACE = 0x20;

/** Stands for the string that was taken out. The text never leaves the process, so nobody can send it. */
export const EXTRACTED = randomUUID();

/**
 * A long line without its longest part: the string of the member of this name, the first in the line. That
 * string would otherwise be in memory three times until the next collection of garbage: as a part of the line, of
 * its text and of what is parsed from it.
 *
 * @param line one line of JSON, in UTF-8; nothing of that is checked.
 * @param name of letters only.
 * @returns the line with `EXTRACTED` in that place, and the bytes of the string as a view into the line; undefined
 * if the line is short, or if there is no such string without escapes that is most of it.
 */
export function extractBase64(line: Buffer, name: string): { json: string; bytes: Buffer } | undefined {
  if (line.length < LONG_LINE_BYTES) return undefined;
  // A quote in a string has a backslash before it, so this is the end of a name.
  const found = line.indexOf(`${name}"`);
  if (found === -1) return undefined;
  const colon = afterSpace(line, found + name.length + 1);
  const begin = afterSpace(line, colon + 1);
  if (line[colon] !== COLON || line[begin] !== QUOTE) return undefined;
  const end = line.indexOf(QUOTE, begin + 1);
  const bytes = line.subarray(begin + 1, end);
  if (end === -1 || bytes.length < line.length / 2 || bytes.includes(BACKSLASH)) return undefined;
  return { json: `${line.toString("utf8", 0, begin + 1)}${EXTRACTED}${line.toString("utf8", end)}`, bytes };
}

function afterSpace(line: Buffer, from: number): number {
  let at = from;
  while (at < line.length && (line[at] as number) <= SPACE) at += 1;
  return at;
}
