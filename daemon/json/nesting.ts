const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const COLON = 0x3a;
const CLOSE_BRACE = 0x7d;
/** Bytes of a string that are looked at one by one, before it is taken for a long one. */
const SHORT_BYTES = 32;

/** True if more than so many arrays and objects are in one another in a line of JSON; nothing is built from it. */
export function nestsDeeper(line: Buffer, levels: number): boolean {
  // Most lines are too short for it.
  if (line.length <= levels) return false;
  let depth = 0;
  for (let at = 0; at < line.length; at++) {
    const byte = line[at];
    if (byte === QUOTE) at = endOfString(line, at + 1);
    else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
      depth += 1;
      if (depth > levels) return true;
    } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) depth -= 1;
  }
  return false;
}

/**
 * How many arrays, objects and members are in a line of JSON, as far as can be told at a glance; one more than `most`
 * for any more.
 */
export function partsOf(line: Buffer | string, most: number): number {
  const bytes = typeof line === "string" ? Buffer.from(line) : line;
  let parts = 0;
  for (let at = 0; at < bytes.length && parts <= most; at++) {
    const byte = bytes[at];
    if (byte === COLON || byte === OPEN_BRACKET || byte === OPEN_BRACE) parts += 1;
  }
  return parts;
}

/** The index of the quote that ends the string whose first byte is at `from`. */
function endOfString(line: Buffer, from: number): number {
  const near = Math.min(from + SHORT_BYTES, line.length);
  let at = from;
  while (at < near && line[at] !== QUOTE) at += line[at] === BACKSLASH ? 2 : 1;
  if (at < near) return at;
  for (let end = line.indexOf(QUOTE, at); end !== -1; end = line.indexOf(QUOTE, end + 1)) {
    let first = end;
    // No further back than where the look at single bytes ended, since what is there is known.
    while (first > at && line[first - 1] === BACKSLASH) first -= 1;
    if ((end - first) % 2 === 0) return end;
  }
  return line.length;
}
