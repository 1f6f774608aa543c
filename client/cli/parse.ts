import { parseArgs } from "node:util";
import { type AnyCommand, type Option, type Options, UsageError } from "../terminal/command.js";
import { milliseconds, wholeNumber } from "../terminal/values.js";
import { GLOBAL_OPTIONS, ownPart } from "./command-line.js";

/**
 * The values of a command's options and arguments by their names, checked and in their types. Throws `UsageError`
 * for whatever does not fit.
 *
 * The parser is Node's: yargs takes as long to load as everything else together (45 of 100 ms), and it is only
 * needed to complete lines and to guess what was meant.
 */
export function parse(
  args: readonly string[],
  command: Pick<AnyCommand, "args" | "options">,
): Record<string, unknown> {
  const all: Options = { ...GLOBAL_OPTIONS, ...command.options };
  const { values, words, after } = split(args, all);
  const typed = argumentsOf(command.args, words.slice(1), after);
  for (const [name, option] of Object.entries(all)) {
    typed[name] = valueOfType(`--${name}`, option, values[name]);
  }
  return typed;
}

/** The positional arguments by their names, and under `--` the command to run. */
function argumentsOf(
  shape: string,
  words: readonly string[],
  after: readonly string[],
): Record<string, unknown> {
  const takesCommand = shape.endsWith("-- command");
  // Without a command to run, two dashes only say that what follows is no option.
  const left = takesCommand ? [...words] : [...words, ...after];
  const typed: Record<string, unknown> = { "--": takesCommand ? after : [] };
  for (const each of shape.match(/[<[][^>\]]+[>\]]/g) ?? []) {
    const name = each.slice(1, -1).replace("..", "");
    if (each.includes("..") && (left.length > 0 || each.startsWith("["))) typed[name] = left.splice(0);
    else if (left.length > 0) typed[name] = left.shift();
    else if (each.startsWith("<")) throw new UsageError(missing(name));
  }
  if (left.length > 0) {
    const hint = takesCommand ? " The command to run comes after two dashes: -- COMMAND..." : "";
    throw new UsageError(`${JSON.stringify(left[0])} is one argument too many.${hint}`);
  }
  if (takesCommand && !after[0]) {
    throw new UsageError("The command to run is missing. Put it after two dashes: -- COMMAND...");
  }
  return typed;
}

/** An argument that was not given: a name, or one of some words. */
function missing(name: string): string {
  const words = name.split("|");
  const last = words.pop();
  return words.length === 0
    ? `${name.toUpperCase()} is missing.`
    : `Say what is to be done: ${words.join(", ")} or ${last}.`;
}

/** Before an argument that the parser would take for an option: no argument of a process begins so. */
const NO_OPTION = "\0";
/** A token of the daemon, which may begin with a dash; no option is as long. */
const TOKEN = /^-[\w-]{42}$/;

interface Split {
  readonly values: Readonly<Record<string, unknown>>;
  /** The words that are no options, with the command itself. */
  readonly words: string[];
  /** The words after `--`. */
  readonly after: string[];
}

function split(args: readonly string[], options: Options): Split {
  const own = ownPart(args);
  try {
    const { values, positionals } = parseArgs({
      // A word with a blank after its dash is an argument, such as the line of a peer that has no board yet.
      args: own.map((arg) => (arg.startsWith("- ") || TOKEN.test(arg) ? `${NO_OPTION}${arg}` : arg)),
      allowPositionals: true,
      options: Object.fromEntries(
        Object.entries(options).map(([name, { type, short }]) => [
          name,
          {
            // Numbers stay text here, so that a value like "abc" can be named as it was typed.
            type: type === "flag" ? ("boolean" as const) : ("string" as const),
            ...(short === undefined ? {} : { short }),
          },
        ]),
      ),
    });
    const words = positionals.map((word) =>
      word.startsWith(NO_OPTION) ? word.slice(NO_OPTION.length) : word,
    );
    return { values, words, after: args.slice(own.length + 1) };
  } catch (error) {
    throw explain(error as NodeJS.ErrnoException, options);
  }
}

/** The parser's complaints, as sentences of ours. */
function explain({ code, message }: NodeJS.ErrnoException, options: Options): UsageError {
  const [, flag = ""] = /'(-[^' ]*)/.exec(message) ?? [];
  if (code === "ERR_PARSE_ARGS_UNKNOWN_OPTION") {
    const dashes = /^-[0-9]/.test(flag) ? ` To give ${flag} as an argument, put -- before it.` : "";
    return new UsageError(`There is no option ${flag} here.${dashes}`);
  }
  // The message shows both names of an option: '-n, --count <value>'.
  const name = /--([\w-]+)/.exec(message)?.[1] ?? "";
  const option = options[name];
  if (option?.type === "flag") return new UsageError(`--${name} takes no value.`);
  return new UsageError(`--${name} needs a value: --${name}=${option?.value ?? "VALUE"}.`);
}

function valueOfType(flag: string, { type, choices }: Option, value: unknown): unknown {
  if (type === "flag") return value === true;
  if (typeof value !== "string") return undefined;
  if (value === "") throw new UsageError(`${flag} must not be empty.`);
  if (type === "number") return wholeNumber(flag, value);
  if (type === "duration") return milliseconds(flag, value);
  if (choices !== undefined && !choices.includes(value)) {
    throw new UsageError(`${flag} takes ${choices.join(" or ")}, not ${JSON.stringify(value)}.`);
  }
  return value;
}
