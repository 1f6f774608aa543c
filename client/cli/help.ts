import type { Command, Options } from "../terminal/command.js";
import { styled } from "../terminal/output.js";
import { COMMANDS, type Entry, entries, GLOBAL_OPTIONS } from "./command-list.js";

/** Where descriptions begin, so that all helps look alike. */
const COLUMN = 30;
const INDENT = " ".repeat(COLUMN);
/** No wider than is easy to read, no narrower than descriptions need. */
const MAX_WIDTH = 100;
const MIN_WIDTH = 60;
const WIDTH = (): number => Math.max(MIN_WIDTH, Math.min(process.stdout.columns ?? MAX_WIDTH, MAX_WIDTH));

/** The help of a command, or of the whole program. */
export async function help(name: string | undefined): Promise<string> {
  const entry = name === undefined ? undefined : entries().get(name);
  return name !== undefined && entry !== undefined
    ? commandHelp(name, entry, await entry.load())
    : programHelp();
}

function programHelp(): string {
  const groups = Object.entries(COMMANDS).map(
    ([title, group]) =>
      `${heading(title)}\n${Object.entries(group)
        .map(([name, { args, summary }]) => row(`${name} ${shape(args)}`.trim(), summary))
        .join("")}`,
  );
  return `${heading("Usage:")} pawl COMMAND [options]

Talks to pawld, the daemon that hands out numbers, work, commands and write leases on this machine.

${groups.join("\n")}
${heading("Options")}
${optionRows(GLOBAL_OPTIONS)}
${heading("Examples")}
${row("pawl next FR", "FR-001, then FR-002 for whoever asks next")}${row("pawl state --json", "for programs: the result in one line")}${row("pawl next --help", "the options and examples of a command")}
Exit codes: 0 done, 1 refused, 2 bad usage, 3 no daemon, 4 daemon trouble.
`;
}

function commandHelp(
  name: string,
  { args, summary }: Entry,
  { options, details, examples }: Command,
): string {
  const usage = `pawl ${name} ${shape(args)}`.trim();
  // Options come before the command to run: what follows the two dashes is that command's own.
  const [before, after] = usage.split(/(?= -- )/);
  return `${heading("Usage:")} ${before} [options]${after ?? ""}

${wrap(`${summary}.${details === undefined ? "" : ` ${details}`}`, WIDTH()).join("\n")}

${Object.keys(options).length === 0 ? "" : `${heading("Options")}\n${optionRows(options)}\n`}${heading("Options of every command")}
${optionRows(GLOBAL_OPTIONS)}
${heading("Examples")}
${examples.map(([line, does]) => `  ${line}\n      ${does}\n`).join("")}`;
}

/** `<queue> [json..] -- command` as people read it: `QUEUE [JSON...] -- COMMAND...` */
function shape(args: string): string {
  return (
    args
      .replace(/-- command$/, "-- command...")
      .replace(/<([^>]+)>/g, "$1")
      .replace("..]", "...]")
      // What stands for something is in upper case; words to choose from are typed as they are.
      .replace(/\S+/g, (word) => (/\||^\[rebuild\]$/.test(word) ? word : word.toUpperCase()))
  );
}

function optionRows(options: Options): string {
  return Object.entries(options)
    .map(([name, { short, value, describe, default: otherwise, choices, type }]) => {
      const flag = `${short === undefined ? "    " : `-${short}, `}--${name}`;
      const taken =
        type === "flag" ? "" : ` ${choices?.join("|") ?? value ?? (type === "duration" ? "MS" : "N")}`;
      return row(flag + taken, `${describe}${otherwise === undefined ? "" : ` [${otherwise}]`}`);
    })
    .join("");
}

function row(left: string, right: string): string {
  const start = `  ${left}`;
  const [first = "", ...more] = wrap(right, WIDTH() - COLUMN);
  const lines = start.length < COLUMN - 1 ? [start.padEnd(COLUMN) + first] : [start, INDENT + first];
  return [...lines, ...more.map((line) => INDENT + line)].map((line) => `${line}\n`).join("");
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

function heading(text: string): string {
  return styled("bold", text);
}
