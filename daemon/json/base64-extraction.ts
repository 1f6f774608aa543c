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
 * A long line without its longest part, which is the string of the member of this name. That
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
  // What is most of the line has the middle of it. A quote in a string has a backslash before it.
  const middle = line.length >> 1;
  const begin = line.lastIndexOf(QUOTE, middle);
  const end = line.indexOf(QUOTE, middle + 1);
  if (begin === -1 || end === -1 || end - begin <= line.length / 2) return undefined;
  const colon = beforeSpace(line, begin - 1);
  const nameEnd = beforeSpace(line, colon - 1);
  const nameBegin = nameEnd - name.length;
  if (line[colon] !== COLON || line.toString("latin1", Math.max(nameBegin, 0), nameEnd + 1) !== `${name}"`)
    return undefined;
  const bytes = line.subarray(begin + 1, end);
  if (bytes.includes(BACKSLASH)) return undefined;
  return { json: `${line.toString("utf8", 0, begin + 1)}${EXTRACTED}${line.toString("utf8", end)}`, bytes };
}

function beforeSpace(line: Buffer, from: number): number {
  let at = from;
  while (at >= 0 && (line[at] as number) <= SPACE) at -= 1;
  return at;
}
