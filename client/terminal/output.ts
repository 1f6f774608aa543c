import type { Readable, Writable } from "node:stream";
import { styleText } from "node:util";
import type { Style } from "./text.js";
import { type Cell, type Column, textTable } from "./text-table.js";

/** A stream that may be a terminal. */
export type TerminalStream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** The streams and the environment of a run of the program; `process` is one. */
export interface Terminal {
  readonly stdin: Readable;
  readonly stdout: TerminalStream;
  readonly stderr: TerminalStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** The two streams of the program: results on stdout, everything said about them on stderr. */
export class Output {
  /** True if results and errors are for programs: JSON, one line. */
  readonly json: boolean;
  readonly #stdout: TerminalStream;
  readonly #stderr: TerminalStream;
  #failure: NodeJS.ErrnoException | undefined;

  constructor({ stdout, stderr }: Pick<Terminal, "stdout" | "stderr">, json: boolean) {
    this.json = json;
    this.#stdout = stdout;
    this.#stderr = stderr;
    stdout.on("error", (error: NodeJS.ErrnoException) => {
      this.#failure ??= error;
    });
    // Whoever closed stderr does not want to know.
    stderr.on("error", () => {});
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
    if (!this.closed && text !== "") this.#stdout.write(text);
  }

  /** Says something beside the result; not to programs. */
  note(text: string): void {
    if (!this.json) this.complain(text);
  }

  /** Says something on stderr, to people and to programs. */
  complain(text: string): void {
    this.#stderr.write(text.endsWith("\n") ? text : `${text}\n`);
  }

  /** A line on a terminal that the next one replaces, and `undefined` removes. Nothing where it cannot be replaced. */
  progress(text: string | undefined): void {
    if (this.json || !this.isWatched) return;
    this.#stderr.write(`\r\x1b[K${text ?? ""}`);
  }

  /** Text for stdout, styled if that is a terminal, and by NO_COLOR and FORCE_COLOR. */
  readonly styled = (style: Style, text: string): string => styleText(style, text, { stream: this.#stdout });

  /** The same for stderr. */
  readonly styledNote = (style: Style, text: string): string =>
    styleText(style, text, { stream: this.#stderr });

  /** Rows in aligned columns that fit the terminal. In a pipe they are as wide as they have to be. */
  table(columns: readonly Column[], rows: readonly (readonly Cell[])[]): string {
    return textTable(columns, rows, this.columns ?? Number.POSITIVE_INFINITY, this.styled);
  }

  /** How many characters the terminal shows in a line, or undefined where results go elsewhere. */
  get columns(): number | undefined {
    return this.isScreen ? this.#stdout.columns : undefined;
  }

  /** True if results go to a terminal. */
  get isScreen(): boolean {
    return this.#stdout.isTTY === true;
  }

  /** True if notes and errors go to a terminal. */
  get isWatched(): boolean {
    return this.#stderr.isTTY === true;
  }

  /** True if nobody reads the results any more, as after `| head -1`. */
  get closed(): boolean {
    return this.#failure !== undefined;
  }

  /** Waits until all is written. Rejects when the results could not be: no space, say. */
  async flush(): Promise<void> {
    await new Promise<void>((resolve) => this.#stdout.write("", () => resolve()));
    if (this.#failure !== undefined && this.#failure.code !== "EPIPE") throw this.#failure;
  }
}
