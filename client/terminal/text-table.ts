import { cutTo, printable, type Style, width } from "./text.js";

export interface Column {
  readonly title: string;
  readonly align?: "right";
  /** May be cut to fit the terminal. */
  readonly flexible?: boolean;
}

export type Cell = string | { readonly text: string; readonly style: Style };

interface StyledText {
  readonly text: string;
  readonly style: Style | undefined;
}

const GAP = "  ";
const MIN_FLEXIBLE_WIDTH = 8;

/**
 * Rows under a line of titles, in aligned columns. Control characters in cells are shown, not sent.
 *
 * @param available how many columns of characters the terminal has.
 */
export function textTable(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  available: number,
  styled: (style: Style, text: string) => string,
): string {
  const cells = rows.map((row) => row.map(cellText));
  const widths = columns.map(({ title }, index) =>
    Math.max(width(title), ...cells.map((row) => width(row[index]?.text ?? ""))),
  );
  fit(columns, widths, available);
  const line = (parts: readonly StyledText[]): string =>
    columns
      .map(({ align }, index) => {
        const { text = "", style } = parts[index] ?? {};
        const cut = cutTo(text, widths[index] as number);
        const shown = style === undefined ? cut : styled(style, cut);
        const space = " ".repeat((widths[index] as number) - width(cut));
        return align === "right" ? space + shown : index === columns.length - 1 ? shown : shown + space;
      })
      .join(GAP)
      .trimEnd();
  const titles = line(columns.map(({ title }) => ({ text: title, style: "bold" })));
  return [titles, ...cells.map(line)].map((each) => `${each}\n`).join("");
}

function cellText(cell: Cell): StyledText {
  return typeof cell === "string"
    ? { text: printable(cell), style: undefined }
    : { text: printable(cell.text), style: cell.style };
}

/** Narrows the widest flexible columns until the table fits into `available` columns of characters. */
function fit(columns: readonly Column[], widths: number[], available: number): void {
  let excess = widths.reduce((sum, each) => sum + each + GAP.length, -GAP.length) - available;
  while (excess > 0) {
    const flexible = columns.flatMap((column, index) =>
      column.flexible && (widths[index] as number) > MIN_FLEXIBLE_WIDTH ? [index] : [],
    );
    const widest = flexible.reduce<number | undefined>(
      (best, index) =>
        best === undefined || (widths[index] as number) > (widths[best] as number) ? index : best,
      undefined,
    );
    if (widest === undefined) return;
    widths[widest] = (widths[widest] as number) - 1;
    excess -= 1;
  }
}
