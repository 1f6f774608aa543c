import { styleText } from "node:util";

type Style = Parameters<typeof styleText>[0];
type Stream = NodeJS.WriteStream;

/** The two streams of the program: results on stdout, everything said about them on stderr. */
export class Output {
  /** Whether results and errors are for programs: JSON, one line. */
  readonly json: boolean;
  #failure: NodeJS.ErrnoException | undefined;

  constructor(json: boolean) {
    this.json = json;
    process.stdout.on("error", (error: NodeJS.ErrnoException) => {
      this.#failure ??= error;
    });
    // Whoever closed stderr does not want to know.
    process.stderr.on("error", () => {});
  }

  /**
   * Prints a result: as JSON in one line, or the text that `text` makes of it for a person.
   *
   * @param json the result as JSON, if there may be more to it than JavaScript's numbers hold.
   */
  result(value: unknown, text: () => string | Iterable<string>, json?: string): void {
    if (this.json) return this.write(`${json ?? JSON.stringify(value)}\n`);
    const made = text();
    for (const part of typeof made === "string" ? [made] : made) {
      if (this.closed) return;
      this.write(part === "" || part.endsWith("\n") ? part : `${part}\n`);
    }
  }

  write(text: string): void {
    if (!this.closed && text !== "") process.stdout.write(text);
  }

  /** Says something beside the result; not to programs. */
  note(text: string): void {
    if (!this.json) process.stderr.write(`${text}\n`);
  }

  /** A line on a terminal that the next one replaces, and `undefined` removes. Nothing where it cannot be replaced. */
  progress(text: string | undefined): void {
    if (this.json || !process.stderr.isTTY) return;
    process.stderr.write(`\r\x1b[K${text ?? ""}`);
  }

  /** Whether nobody reads the results any more, as after `| head -1`. */
  get closed(): boolean {
    return this.#failure !== undefined;
  }

  /** Waits until all is written. Rejects when the results could not be: no space, say. */
  async flush(): Promise<void> {
    await new Promise<void>((resolve) => process.stdout.write("", () => resolve()));
    if (this.#failure !== undefined && this.#failure.code !== "EPIPE") throw this.#failure;
  }
}

/** Styles text for a stream: only if it is a terminal, and by NO_COLOR and FORCE_COLOR. */
export function styled(style: Style, text: string, stream: Stream = process.stdout): string {
  return styleText(style, text, { stream });
}

export interface Column {
  readonly title: string;
  readonly align?: "right";
  /** May be cut to fit the terminal. */
  readonly flexible?: boolean;
}

export type Cell = string | { readonly text: string; readonly style: Style };

const GAP = "  ";
const MIN_FLEXIBLE_WIDTH = 8;

/** Rows under a line of titles, in aligned columns. Control characters in cells are shown, not sent. */
export function table(columns: readonly Column[], rows: readonly (readonly Cell[])[]): string {
  const cells = rows.map((row) =>
    row.map((cell) =>
      typeof cell === "string"
        ? { text: printable(cell), style: undefined }
        : { text: printable(cell.text), style: cell.style },
    ),
  );
  const widths = columns.map(({ title }, index) =>
    Math.max(width(title), ...cells.map((row) => width(row[index]?.text ?? ""))),
  );
  fit(columns, widths);
  const line = (parts: readonly { text: string; style: Style | undefined }[]): string =>
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

/** Narrows the widest flexible columns until the table fits the terminal. A pipe is as wide as it has to be. */
function fit(columns: readonly Column[], widths: number[]): void {
  const available = process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
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

/** 12,345 */
export function count(number: number): string {
  return number.toLocaleString("en-US");
}

/** 1 batch, 12,345 batches */
export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** 12.3 MB */
export function bytes(number: number): string {
  let value = number;
  let unit = 0;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** How long something takes, in the two units that matter: 250 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(ms: number): string {
  if (ms < 10) return `${Number(ms.toFixed(2))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${Number((ms / 1000).toFixed(1))} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return two(hours, "h", minutes % 60, "min");
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function two(major: number, majorUnit: string, minor: number, minorUnit: string): string {
  return minor === 0 ? `${major} ${majorUnit}` : `${major} ${majorUnit} ${minor} ${minorUnit}`;
}

/** A time as the clock on the wall has it: 2026-11-21 18:00:00. */
export function when(at: number): string {
  const date = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19).replace("T", " ");
}

/** The same for a table: the time if it was today, else the day. */
export function whenShort(at: number): string {
  const [day = "", time = ""] = when(at).split(" ");
  return day === when(Date.now()).split(" ")[0] ? time : day;
}
