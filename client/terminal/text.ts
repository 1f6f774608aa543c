// Text on a terminal: how wide it is, how it is cut, and what of it must not be sent there as it is.
import type { styleText } from "node:util";

export type Style = Parameters<typeof styleText>[0];

/** A text cut to so many columns, with a sign that it was. */
export function cutTo(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let cut = text;
  while (width(cut) > columns - 1) cut = [...cut].slice(0, -1).join("");
  return `${cut}…`;
}

/** Columns that a terminal takes for it, near enough for tables: wide scripts take two, marks none. */
export function width(text: string): number {
  let columns = 0;
  for (const character of text) {
    if (/\p{Mark}|\u200d|\ufe0f/u.test(character)) continue;
    columns += WIDE.test(character) ? 2 : 1;
  }
  return columns;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u4dbf\u4e00-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;

/**
 * Labels and errors come from other processes: what would move the cursor, change the title or reverse the
 * line is shown as an escape instead.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
