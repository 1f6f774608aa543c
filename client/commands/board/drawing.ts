import type { Result } from "@pawl/protocol/types";
import { count, plural } from "../../terminal/quantities.js";
import { cutTo, printable, type Style, width } from "../../terminal/text.js";

export type Item = Result<"pipeline.list">["stages"][string][number];
export type Stages = ReadonlyMap<string, readonly Item[]>;

/** A column narrower than this says nothing; there are then fewer beside each other. */
const MIN_COLUMN_WIDTH = 18;
const MAX_COLUMN_WIDTH = 44;
const GAP = "  ";

/**
 * The board in bands of columns, each band as wide as the terminal at most.
 *
 * @param counts how many items a stage has, where those given are only the first.
 * @param shown how many items of a stage; for the others there is a line that counts them.
 * @param available how many columns of characters the terminal has.
 */
export function draw(
  stages: Stages,
  counts: ReadonlyMap<string, number> | undefined,
  shown: number,
  available: number,
  styled: (style: Style, text: string) => string,
): string {
  const beside = Math.max(
    1,
    Math.min(stages.size, Math.floor((available + GAP.length) / (MIN_COLUMN_WIDTH + GAP.length))),
  );
  const columnWidth = Math.min(
    MAX_COLUMN_WIDTH,
    Math.floor((available - GAP.length * (beside - 1)) / beside),
  );
  const columns = [...stages].map(([stage, items]) =>
    columnOf(stage, items, counts?.get(stage) ?? items.length, shown, columnWidth),
  );
  const bands: string[] = [];
  for (let from = 0; from < columns.length; from += beside) {
    const band = columns.slice(from, from + beside);
    const height = Math.max(...band.map((lines) => lines.length));
    const lines = Array.from({ length: height }, (_, row) =>
      band
        .map((column) => padded(column[row] ?? { text: "" }, columnWidth, styled))
        .join(GAP)
        .trimEnd(),
    );
    bands.push(lines.map((line) => `${line}\n`).join(""));
  }
  return bands.join("\n");
}

interface Part {
  readonly text: string;
  readonly style?: Style;
}
/** A line of a column: one part, or several with a space between. */
type Line = Part & { readonly more?: readonly Part[] };

function columnOf(
  stage: string,
  items: readonly Item[],
  total: number,
  shown: number,
  columnWidth: number,
): Line[] {
  const lines: Line[] = [
    { text: stage, style: "bold", more: [{ text: count(total), style: "dim" }] },
    { text: "─".repeat(columnWidth), style: "dim" },
  ];
  const first = items.slice(0, shown);
  for (const item of first) lines.push(...cardOf(item));
  if (total > first.length) {
    lines.push({ text: `and ${plural(total - first.length, "other")}`, style: "dim" });
  }
  return lines;
}

/** An item: its id and how it stands, its name, who works on it and what it waits for. */
function cardOf({ storyId, name, agent, blocked, retryCount, dependsOn, labels, notes }: Item): Line[] {
  const marks: Part[] = [];
  if (blocked) marks.push({ text: "blocked", style: "red" });
  if (retryCount !== 0) marks.push({ text: `×${retryCount}`, style: "yellow" });
  if (agent !== null) marks.push({ text: `@${agent}`, style: "cyan" });
  if (notes > 0) marks.push({ text: `✎${notes}`, style: "dim" });
  const lines: Line[] = [{ text: storyId, more: marks }];
  if (name !== null) lines.push({ text: `  ${name}` });
  if (labels.length > 0)
    lines.push({ text: `  ${labels.map((label) => `#${label}`).join(" ")}`, style: "dim" });
  if (dependsOn.length > 0) lines.push({ text: `  after ${dependsOn.join(", ")}`, style: "dim" });
  return lines;
}

/** A line cut or filled to a width. Styles take no room. */
function padded(
  { text, style, more = [] }: Line,
  columnWidth: number,
  styled: (style: Style, text: string) => string,
): string {
  let left = columnWidth;
  let line = "";
  for (const part of [{ text, style }, ...more]) {
    const space = line === "" ? "" : " ";
    if (left <= space.length) break;
    const cut = cutTo(printable(part.text), left - space.length);
    line += space + (part.style === undefined ? cut : styled(part.style, cut));
    left -= space.length + width(cut);
  }
  return line + " ".repeat(Math.max(0, left));
}
