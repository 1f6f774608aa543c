import type { AnyCommand, Options } from "../terminal/command.js";
import type { Style } from "../terminal/text.js";
import { GLOBAL_OPTIONS } from "./command-line.js";
import { COMMANDS, type Entry } from "./command-list.js";

/** Where descriptions begin, so that all helps look alike. */
const COLUMN = 30;
const INDENT = " ".repeat(COLUMN);
/** No wider than is easy to read, no narrower than descriptions need. */
const MAX_WIDTH = 100;
const MIN_WIDTH = 60;

/** The value of an option that takes a time, and what is said of it once. */
const DURATION = "DURATION";
const DURATION_NOTE =
  "DURATION is a number with ms, s, m, h or d, such as 10s or 5m; without one it is milliseconds.";

/** The terminal or file that a help is printed on. */
export interface Paper {
  /** How many characters fit in a line, if there is a limit. */
  readonly columns: number | undefined;
  readonly styled: (style: Style, text: string) => string;
}

/** The help of a command, or of the whole program. */
export async function help(entry: Entry | undefined, paper: Paper): Promise<string> {
  const layout = new Layout(paper);
  if (entry !== undefined) return commandHelp(entry.name, await entry.load(), layout);
  const commands = await Promise.all(COMMANDS.map(async (each) => ({ ...each, ...(await each.load()) })));
  return programHelp(commands, layout);
}

function programHelp(
  commands: readonly (Entry & AnyCommand)[],
  { heading, row, options, width }: Layout,
): string {
  const groups = [...new Set(commands.map((each) => each.heading))].map((title) => {
    const rows = commands
      .filter((each) => each.heading === title)
      .map(({ name, args, summary }) => row(`${name} ${shape(args)}`.trim(), summary));
    return `${heading(title)}\n${rows.join("")}`;
  });
  return `${heading("Usage:")} pawl COMMAND [options]

Talks to pawld, the daemon that hands out numbers, work, commands and leases on this machine.

${groups.join("\n")}
${heading("Options")}
${options(GLOBAL_OPTIONS)}
${wrap(DURATION_NOTE, width).join("\n")}

${heading("Examples")}
${row("pawl next FR", "FR-001, then FR-002 for whoever asks next")}${row("pawl state --json", "for programs: the result in one line")}${row("pawl next --help", "the options and examples of a command")}
Exit codes: 0 done, 1 refused, 2 bad usage, 3 no daemon, 4 daemon trouble.
`;
}

function commandHelp(
  name: string,
  { args, summary, details, options, examples }: AnyCommand,
  layout: Layout,
): string {
  const { heading } = layout;
  const usage = `pawl ${name} ${shape(args)}`.trim();
  // Options come before the command to run: what follows the two dashes is that command's own.
  const [before, after] = usage.split(/(?= -- )/);
  const own = Object.keys(options).length === 0 ? "" : `${heading("Options")}\n${layout.options(options)}\n`;
  return `${heading("Usage:")} ${before} [options]${after ?? ""}

${wrap(`${summary}.${details === undefined ? "" : ` ${details}`}`, layout.width).join("\n")}

${own}${heading("Options of every command")}
${layout.options(GLOBAL_OPTIONS)}
${wrap(DURATION_NOTE, layout.width).join("\n")}

${heading("Examples")}
${examples.map(([line, does]) => `  ${line}\n      ${does}\n`).join("")}`;
}

/** `<queue> [json..] -- command` as people read it: `QUEUE [JSON...] -- COMMAND...` */
function shape(args: string): string {
  return (
    args
      .replace(/-- command$/, "-- command..")
      .replaceAll("..", "...")
      .replace(/<([^>]+)>/g, "$1")
      // A word that stands for something is in upper case; words to choose from are typed as they are.
      .replace(/\S+/g, (word) => (/\||^\[rebuild\]$/.test(word) ? word : word.toUpperCase()))
  );
}

/** Headings, and rows of a name with its description beside or below. */
class Layout {
  readonly width: number;
  readonly #styled: Paper["styled"];

  constructor({ columns = MAX_WIDTH, styled }: Paper) {
    this.width = Math.max(MIN_WIDTH, Math.min(columns, MAX_WIDTH));
    this.#styled = styled;
  }

  readonly heading = (text: string): string => this.#styled("bold", text);

  readonly row = (left: string, right: string): string => {
    const start = `  ${left}`;
    const [first = "", ...more] = wrap(right, this.width - COLUMN);
    const lines = start.length < COLUMN - 1 ? [start.padEnd(COLUMN) + first] : [start, INDENT + first];
    return [...lines, ...more.map((line) => INDENT + line)].map((line) => `${line}\n`).join("");
  };

  readonly options = (options: Options): string =>
    Object.entries(options)
      .map(([name, { short, value, describe, default: otherwise, choices, type }]) => {
        const flag = `${short === undefined ? "    " : `-${short}, `}--${name}`;
        const taken =
          type === "flag" ? "" : ` ${choices?.join("|") ?? value ?? (type === "duration" ? DURATION : "N")}`;
        return this.row(flag + taken, `${describe}${otherwise === undefined ? "" : ` [${otherwise}]`}`);
      })
      .join("");
}

/** Breaks text into lines at spaces. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
