// The words of a command line, before the options of its command are known.
import type { Options } from "../terminal/command.js";
import { commandNamed, type Entry } from "./command-list.js";

/** The options of every command. */
export const GLOBAL_OPTIONS = {
  socket: {
    type: "text",
    value: "PATH",
    describe: "Socket of the daemon",
    default: "as `pawl socket-path` says",
  },
  instance: {
    type: "text",
    value: "NAME",
    describe: "Which daemon of this user",
    default: "$PAWL_INSTANCE, or default",
  },
  timeout: {
    type: "duration",
    describe: "How long the daemon may take to answer, beyond a wait that was asked for",
    default: "30s; no limit (0) for work, serve, lock, sync, import, backup, check and board rebuild",
  },
  json: { type: "flag", describe: "Results and errors as JSON in one line, for programs" },
  help: { type: "flag", short: "h", describe: "Show help, of a command if one is named" },
  version: { type: "flag", describe: "Show the version" },
} as const satisfies Options;

/** All of a command line that belongs to this program: all before `--`. */
export function ownPart(args: readonly string[]): readonly string[] {
  const dashes = args.indexOf("--");
  return dashes < 0 ? args : args.slice(0, dashes);
}

/** The first word of a command line that is no option and no global option's value. */
export function firstWord(args: readonly string[]): string | undefined {
  const isValue = (index: number): boolean =>
    ["--socket", "--instance", "--timeout"].includes(args[index - 1] ?? "");
  return args.find((arg, index) => !arg.startsWith("-") && !isValue(index));
}

/** The command that a line names, which may come after `help`. */
export function commandOf(args: readonly string[]): Entry | undefined {
  const first = firstWord(args);
  return commandNamed(first === "help" ? firstWord(args.slice(args.indexOf("help") + 1)) : first);
}
