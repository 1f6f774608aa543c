import type { PawlClient } from "../connect.js";
import type { Output } from "./output.js";

/** An option of a command, as the parser and the help take it. */
export interface Option {
  /** `duration` is milliseconds, also written as 90s, 5m, 2h or 1d; `flag` takes no value. */
  readonly type: "text" | "number" | "duration" | "flag";
  readonly describe: string;
  /** What the help shows as the value's name. */
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

/** `<type>` is required, `[file]` is not, `[json..]` takes all that is left, `-- command` follows two dashes. */
type Positionals<A extends string> = A extends `${infer Head} ${infer Rest}`
  ? Positional<Head> & Positionals<Rest>
  : Positional<A>;
type Positional<A extends string> = A extends `<${infer N}>`
  ? { readonly [K in N]: string }
  : A extends `[${infer N}..]`
    ? { readonly [K in N]: readonly string[] }
    : A extends `[${infer N}]`
      ? { readonly [K in N]?: string }
      : unknown;

export type Arguments<A extends string, O extends Options> = Positionals<A> & {
  readonly [K in keyof O]: Value<O[K]>;
} & {
  /** The program and its arguments after `--`. */
  readonly "--": readonly string[];
};

/** What a command works with. */
export interface Context {
  readonly output: Output;
  /** Which daemon, if the options say so. */
  readonly instance: string | undefined;
  /** Where the daemon listens, by the options given. */
  socketPath(): string;
  /** Connects at the first call; the program closes the connection at the end. */
  connect(): Promise<PawlClient>;
}

export interface Command<A extends string = string, O extends Options = Options> {
  readonly options: O;
  /** What the summary leaves open, as sentences. */
  readonly details?: string;
  /** Command lines and what they do. */
  readonly examples: readonly (readonly [line: string, does: string])[];
  /** Performs it. Resolves with an exit code where that is not 0; rejects with the error to show. */
  run(args: Arguments<A, O>, context: Context): Promise<number | undefined>;
}

/** Declares a command. `A` names its positional arguments as `table.ts` has them. */
export function command<const A extends string>() {
  return <const O extends Options>(definition: Command<A, O>): Command<A, O> => definition;
}

/** The command line cannot be right: exit code 2. The message names the value and says what to do. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

const UNITS_MS: Readonly<Record<string, number>> = {
  "": 1,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A whole number as it was typed. Throws `UsageError` with the option's name. */
export function wholeNumber(name: string, text: string): number {
  const number = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(number)) {
    throw new UsageError(`${name} takes a whole number, not ${JSON.stringify(text)}.`);
  }
  return number;
}

/** Milliseconds from `1500`, `90s`, `5m`, `2h` or `1d`. Throws `UsageError` with the option's name. */
export function milliseconds(name: string, text: string): number {
  const [, digits = "", unit = ""] = /^([0-9]+)(ms|s|m|h|d|)$/.exec(text) ?? [];
  const number = digits === "" ? Number.NaN : Number(digits) * (UNITS_MS[unit] as number);
  if (!Number.isSafeInteger(number)) {
    throw new UsageError(`${name} takes milliseconds, or 90s, 5m, 2h, 1d; not ${JSON.stringify(text)}.`);
  }
  return number;
}

/** A JSON value from the command line. Throws `UsageError` with what it was for. */
export function parseJson(what: string, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const hint = /^[\w./:@-]+$/.test(text) ? ` A JSON string needs quotes of its own: '"${text}"'.` : "";
    throw new UsageError(`${what} is not JSON: ${shorten(text)} (${(error as Error).message}).${hint}`);
  }
  const rounded = roundedNumber(text);
  if (rounded !== undefined) {
    throw new UsageError(`${what} holds ${shorten(rounded)}, which would be rounded. Send it as a string.`);
  }
  return value;
}

/** A number in a JSON text that JavaScript cannot hold, if there is one: it must not be changed in silence. */
export function roundedNumber(json: string): string | undefined {
  const numbers = json.replace(/"(?:[^"\\]|\\.)*"/g, "").match(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g) ?? [];
  return numbers.find((each) => {
    const value = Number(each);
    return Math.abs(value) > Number.MAX_SAFE_INTEGER && (/^-?\d+$/.test(each) || !Number.isFinite(value));
  });
}

/** JSON for people to read. A text with a number that would be changed by that stays as it is. */
export function indented(json: string): string {
  return roundedNumber(json) === undefined ? JSON.stringify(JSON.parse(json), null, 2) : json;
}

const MAX_SHOWN_LENGTH = 80;

/** A value as a message shows it. */
export function shorten(text: string): string {
  return text.length <= MAX_SHOWN_LENGTH ? text : `${text.slice(0, MAX_SHOWN_LENGTH - 3)}...`;
}

/** All of standard input, as text. */
export async function readInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
