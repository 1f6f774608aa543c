import { readFileSync } from "node:fs";
import { type ErrorKind, PawlError } from "@pawl/protocol/errors";
import { connect, defaultSocketPath, type PawlClient } from "../connect.js";
import { ConnectionLost } from "../connection/connection.js";
import { type Arguments, type Context, type Options, UsageError } from "../terminal/command.js";
import { Output, printable, styled } from "../terminal/output.js";
import { entries } from "./command-list.js";
import { commandOf, firstWord, ownPart, parse } from "./parse.js";

/** Exit codes of `pawl` (spec: operations.md). */
const EXIT_DONE = 0;
const EXIT_REFUSED = 1;
const EXIT_USAGE = 2;
const EXIT_NO_DAEMON = 3;
const EXIT_TROUBLE = 4;

/** The script of `pawl completion` calls the program with this to ask what could come next on the line. */
const COMPLETION_FLAG = "--get-yargs-completions";

/** Runs one command line and resolves with the exit code. Everything is printed. */
export async function main(args: readonly string[]): Promise<number> {
  const own = ownPart(args);
  const output = new Output(own.includes("--json"));
  const name = commandOf(own);
  let client: PawlClient | undefined;
  try {
    if (args[0] === COMPLETION_FLAG) {
      await (await import("./completion.js")).complete(args.slice(1));
    } else if (own.length === 0) {
      process.stderr.write(await (await import("./help.js")).help(undefined));
      return EXIT_USAGE;
    } else if (own.includes("--help") || own.includes("-h") || own[0] === "help") {
      if (name === undefined) await checkWord(own);
      output.write(await (await import("./help.js")).help(name));
    } else if (own.includes("--version")) {
      output.write(`pawl ${version()}\n`);
    } else {
      const entry = entries().get(name ?? "");
      if (entry === undefined) return complain(await unknownCommand(own), output, undefined);
      const command = await entry.load();
      const values = parse(args, entry, command.options);
      const context: Context = {
        output,
        instance: values.instance as string | undefined,
        socketPath: () => chosenSocket(values),
        connect: async () => {
          client ??= await connect({ socket: chosenSocket(values) });
          return client;
        },
      };
      const code = await command.run(values as Arguments<string, Options>, context);
      if (code !== undefined) return code;
    }
    await output.flush();
    return EXIT_DONE;
  } catch (error) {
    return complain(error, output, name);
  } finally {
    client?.close();
  }
}

/** Help for a word that is no command is a mistake, not the help of the program. */
async function checkWord(args: readonly string[]): Promise<void> {
  const word = firstWord(args.filter((arg) => arg !== "help"));
  if (word !== undefined) throw await unknownCommand([word]);
}

async function unknownCommand(args: readonly string[]): Promise<UsageError> {
  const word = firstWord(args);
  if (word === undefined) return new UsageError("Name a command.");
  const meant = await (await import("./completion.js")).closestCommand(word);
  return new UsageError(
    `There is no command ${JSON.stringify(word)}.${meant === undefined ? "" : ` Did you mean ${meant}?`}`,
  );
}

function chosenSocket(values: Record<string, unknown>): string {
  return (values.socket as string | undefined) ?? defaultSocketPath(values.instance as string | undefined);
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}

/** Kinds that say the request itself cannot be right. */
const USAGE_KINDS: ReadonlySet<ErrorKind> = new Set([
  "invalid_params",
  "invalid_request",
  "method_not_found",
  "parse_error",
]);
/** Kinds that say nothing about the request. */
const TROUBLE_KINDS: ReadonlySet<ErrorKind> = new Set(["internal", "unavailable", "provider_unavailable"]);

/** Prints what went wrong and returns the exit code for it. */
function complain(error: unknown, output: Output, command: string | undefined): number {
  const { code, kind, message, rest } = classify(error, command);
  if (output.json) {
    process.stderr.write(`${JSON.stringify(rest)}\n`);
  } else {
    const label = kind === undefined ? "" : styled("dim", ` [${kind}]`, process.stderr);
    process.stderr.write(`${styled("red", "pawl:", process.stderr)} ${lines(message)}${label}\n`);
  }
  return code;
}

/** Only the report of a defect has lines; what comes from elsewhere stays in one. */
function lines(message: string): string {
  return message.startsWith(DEFECT) ? message.split("\n").map(printable).join("\n") : printable(message);
}

const DEFECT = "This is a defect of pawl; please report it.";

interface Complaint {
  readonly code: number;
  readonly kind?: ErrorKind;
  readonly message: string;
  /** The JSON-RPC error object, also where no daemon sent one. */
  readonly rest: { code: number; message: string; data: unknown };
}

function classify(error: unknown, command: string | undefined): Complaint {
  if (error instanceof PawlError) {
    const { kind, message, data } = error;
    const code = USAGE_KINDS.has(kind) ? EXIT_USAGE : TROUBLE_KINDS.has(kind) ? EXIT_TROUBLE : EXIT_REFUSED;
    return { code, kind, message, rest: { code: error.code, message, data } };
  }
  const made = (code: number, kind: ErrorKind, message: string, details = {}): Complaint => {
    const { code: rpcCode, data } = new PawlError(kind, message, details);
    return { code, message, rest: { code: rpcCode, message, data } };
  };
  if (error instanceof UsageError) {
    const where = command === undefined ? "pawl --help" : `pawl ${command} --help`;
    return made(EXIT_USAGE, "invalid_params", `${error.message} See ${where}.`);
  }
  if (error instanceof ConnectionLost) {
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    const absent = code === "ENOENT" || code === "ECONNREFUSED";
    return made(absent ? EXIT_NO_DAEMON : EXIT_TROUBLE, "unavailable", error.message, {
      reason: absent ? "no_daemon" : "connection_lost",
      mayHaveTakenEffect: error.mayHaveTakenEffect,
    });
  }
  const { stack, message, code, exitCode } = error as NodeJS.ErrnoException & { exitCode?: number };
  // A command that cannot be run; these are the codes by which shells tell it.
  if (exitCode !== undefined) return made(exitCode, "invalid_params", message);
  // A system error says it all; anything else is a defect of this program.
  const text = code === undefined ? `${DEFECT} ${stack}` : message;
  return made(EXIT_TROUBLE, "internal", text);
}
