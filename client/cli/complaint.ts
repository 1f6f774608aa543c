import { type ErrorKind, PawlError } from "@pawl/protocol/errors";
import { ConnectionLost } from "../connection/connection-lost.js";
import { UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { printable } from "../terminal/text.js";
import type { Entry } from "./command-list.js";
import { EXIT_NO_DAEMON, EXIT_REFUSED, EXIT_TROUBLE, EXIT_USAGE } from "./exit-codes.js";
import { inShellWords } from "./shell-words.js";

/** Kinds that say the request itself cannot be right. */
const USAGE_KINDS: ReadonlySet<ErrorKind> = new Set([
  "invalid_params",
  "invalid_request",
  "method_not_found",
  "parse_error",
]);
/** Kinds that say nothing about the request. */
const TROUBLE_KINDS: ReadonlySet<ErrorKind> = new Set(["internal", "unavailable", "provider_unavailable"]);

const DEFECT = "This is a defect of pawl; please report it.";

interface Complaint {
  readonly code: number;
  /** Shown to people, if the daemon sent one. */
  readonly kind?: ErrorKind;
  readonly message: string;
  /** The JSON-RPC error object, also where no daemon sent one. */
  readonly object: { code: number; message: string; data: unknown };
}

/**
 * Prints what went wrong, for people or as a JSON-RPC error object, and returns the exit code for it. Programs are told
 * of a refusal as the daemon told of it.
 *
 * @param command that was run, if the line names one.
 * @param line the program's own part of the command line.
 */
export async function complain(
  error: unknown,
  output: Output,
  command: Entry | undefined,
  line: readonly string[],
): Promise<number> {
  const { code, kind, message: told, object } = classify(error, command?.name);
  if (output.json) {
    output.complain(JSON.stringify(object));
  } else {
    const isOfDaemon = error instanceof PawlError && command !== undefined;
    const message = isOfDaemon ? inShellWords(error, command.name, await command.load(), line) : told;
    const label = kind === undefined ? "" : output.styledNote("dim", ` [${kind}]`);
    output.complain(`${output.styledNote("red", "pawl:")} ${lines(message)}${label}`);
  }
  return code;
}

/** Only the report of a defect has lines; what comes from elsewhere stays in one. */
function lines(message: string): string {
  return message.startsWith(DEFECT) ? message.split("\n").map(printable).join("\n") : printable(message);
}

function classify(error: unknown, command: string | undefined): Complaint {
  if (error instanceof PawlError) {
    const { kind, message, data } = error;
    const ofKind = USAGE_KINDS.has(kind) ? EXIT_USAGE : TROUBLE_KINDS.has(kind) ? EXIT_TROUBLE : EXIT_REFUSED;
    const { exitCode: code = ofKind } = error as { exitCode?: number };
    return { code, kind, message, object: { code: error.code, message, data } };
  }
  if (error instanceof UsageError) {
    const where = command === undefined ? "pawl --help" : `pawl ${command} --help`;
    return complaint(EXIT_USAGE, "invalid_params", `${sentence(error.message)} See ${where}.`);
  }
  if (error instanceof ConnectionLost) {
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    const absent = code === "ENOENT" || code === "ECONNREFUSED";
    return complaint(absent ? EXIT_NO_DAEMON : EXIT_TROUBLE, "unavailable", error.message, {
      reason: absent ? "no_daemon" : "connection_lost",
      mayHaveTakenEffect: error.mayHaveTakenEffect,
    });
  }
  const { stack, message, code, exitCode } = error as NodeJS.ErrnoException & { exitCode?: number };
  // A command that cannot be run; these are the codes by which shells tell it.
  if (exitCode !== undefined) return complaint(exitCode, "invalid_params", message);
  // A system error says it all; anything else is a defect of this program.
  return complaint(EXIT_TROUBLE, "internal", code === undefined ? `${DEFECT} ${stack}` : message);
}

/** With a full stop, also where it ends with what is to be typed. */
function sentence(message: string): string {
  return /[.?!]$/.test(message) ? message : `${message}.`;
}

function complaint(code: number, kind: ErrorKind, message: string, details = {}): Complaint {
  const { code: rpcCode, data } = new PawlError(kind, message, details);
  return { code, message, object: { code: rpcCode, message, data } };
}
