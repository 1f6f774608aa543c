// The room of the terminal: what a command is, and how values come from the command line and results go out.
import type { Readable } from "node:stream";
import type { PawlClient } from "../connect.js";
import type { Output, Terminal } from "./output.js";

/** An option of a command, as the parser and the help take it. */
export interface Option {
  /** `duration` is milliseconds, also written as 90s, 5m, 2h or 1d; `flag` takes no value. */
  readonly type: "text" | "number" | "duration" | "flag";
  readonly describe: string;
  /** The value's name in the help. */
  readonly value?: string;
  readonly short?: string;
  /** Only shown: what holds when the option is not given. */
  readonly default?: string;
  readonly choices?: readonly string[];
}

export type Options = Readonly<Record<string, Option>>;

type Value<O extends Option> = O["type"] extends "flag"
  ? boolean
  : O["type"] extends "text"
    ? (O extends { readonly choices: readonly (infer C)[] } ? C : string) | undefined
    : number | undefined;

/**
 * `<type>` is required, `[file]` is not; `[json..]` takes all that is left, `<queue..>` too, and at least one;
 * `-- command` follows two dashes.
 */
type Positionals<A extends string> = A extends `${infer Head} ${infer Rest}`
  ? Positional<Head> & Positionals<Rest>
  : Positional<A>;
type Positional<A extends string> = A extends `<${infer N}..>` | `[${infer N}..]`
  ? { readonly [K in N]: readonly string[] }
  : A extends `<${infer N}>`
    ? { readonly [K in N]: string }
    : A extends `[${infer N}]`
      ? { readonly [K in N]?: string }
      : unknown;

export type Arguments<A extends string, O extends Options> = Positionals<A> & {
  readonly [K in keyof O]: Value<O[K]>;
} & {
  /** The program and its arguments after `--`. */
  readonly "--": readonly string[];
};

/** The streams, options and client that a command works with. */
export interface Context {
  readonly output: Output;
  readonly stdin: Readable;
  readonly env: Terminal["env"];
  /** Which daemon, if the options say so. */
  readonly instance: string | undefined;
  /** The version of this program. */
  version(): string;
  /** Where the daemon may listen, by the options given, the likeliest first. */
  socketPaths(): readonly [string, ...string[]];
  /** Connects at the first call; the program closes the connection at the end. */
  connect(): Promise<PawlClient>;
}

/** Everything that a command is, but for its name and its place among the others, which `cli/command-list.ts` has. */
export interface Command<A extends string, O extends Options> {
  /** Its positional arguments: `<queue> [payload..]`, `<name> -- command`. */
  readonly args: A;
  /** The first sentence of its help, without a full stop. */
  readonly summary: string;
  readonly options: O;
  /** The rest that a user needs to know, as sentences. */
  readonly details?: string;
  /** Command lines and what they do. */
  readonly examples: readonly (readonly [line: string, does: string])[];
  /** The words that an argument can be, by its name, for completion. */
  readonly words?: Readonly<Record<string, readonly string[]>>;
  /** True if its calls may take as long as they do unless `--timeout` is given: it waits, works, or moves a lot. */
  readonly patient?: (args: Arguments<A, O>) => boolean;
  /** True if a signal ends its waits, and gives back what they are granted, before it ends the program. */
  readonly endsBySignal?: boolean;
  /** Performs it. Resolves with an exit code where that is not 0; rejects with the error to show. */
  run(args: Arguments<A, O>, context: Context): Promise<number | undefined>;
}

/** A command as those take it who know nothing of its arguments. */
export interface AnyCommand extends Omit<Command<string, Options>, "run" | "patient"> {
  readonly patient?: (args: never) => boolean;
  run(args: never, context: Context): Promise<number | undefined>;
}

/** Declares a command, so that `run` gets its arguments and options in their types. */
export function command<const A extends string, const O extends Options>(
  definition: Command<A, O>,
): Command<A, O> {
  return definition;
}

/** The command line cannot be right: exit code 2. The message names the value and says what to do. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}
