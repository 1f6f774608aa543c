import { isUtf8 } from "node:buffer";
import { basename, resolve } from "node:path";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import { JsonText } from "../connection/json-text.js";
import { CommandError, type ReceivedCommand } from "../deployment/receive.js";
import { CannotRun } from "../process/program.js";
import { failureOf, killAfterMs, type Performed, RunningCommands } from "../process/running-commands.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { clockTime, duration } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { Postpone } from "../work/postpone.js";
import { isForGood } from "../work/refusals.js";

/** How long a running program has to end by itself when pawl is told to end. */
const DEFAULT_GRACE_MS = 10_000;
/** The longest answer that is read; the daemon takes less in a line unless it is told otherwise. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

const serve = command({
  args: "<deployment> -- command",
  patient: () => true,
  summary: "Run a program for each command to a deployment",
  options: {
    jobs: {
      type: "number",
      short: "j",
      describe: "How many commands are carried out at a time",
      default: "1",
    },
    targets: {
      type: "text",
      value: "A,B",
      describe: "Take only commands of these targets",
      default: "those of all",
    },
    incarnation: {
      type: "text",
      value: "TEXT",
      describe: "Take also the commands that are for the receiver of this name, which no other ever has",
      default: "none",
    },
    pull: { type: "flag", describe: "Take commands under leases, which outlive a restart of the daemon" },
    lease: {
      type: "duration",
      describe: "With --pull: how long one outlives the last sign of life",
      default: "30s",
    },
    "execution-time": {
      type: "duration",
      describe: "How long a command may take, unless it says itself; without --pull only",
      default: "15m",
    },
    grace: { type: "duration", describe: "What a running command has to end after SIGTERM", default: "10s" },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who receives, for others to see",
      default: "program and pid",
    },
  },
  details:
    "For each command sent to the deployment the program is run, with the params as JSON on its standard input. Exit code 0 answers with its standard output, as JSON if it is JSON and else as text; anything else answers with an error of the code EXIT_<code> and the last line of standard error. It is ended (TERM, then KILL) when the command is cancelled or expires, when it takes longer than it may or when its lease is lost, and killed when pawl is. SIGTERM ends pawl: what is not finished in time is delivered anew. The program finds PAWL_COMMAND, PAWL_COMMAND_ID, PAWL_DEPLOYMENT, PAWL_TARGET, PAWL_ATTEMPT and PAWL_DEADLINE in its environment, and TRACEPARENT if the sender had one.",
  examples: [
    [
      `pawl serve builder -- sh -c 'make "$(jq -r .ref)" >&2 && echo "{\\"ok\\": true}"'`,
      "Answers with JSON",
    ],
    [`pawl serve tools --jobs 4 -- sh -c '"./tools/$PAWL_COMMAND"'`, "A program for each command"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const { deployment, "--": program, lease: leaseMs = DEFAULT_LEASE_MS } = args;
    const { "execution-time": executionMs } = args;
    if (executionMs !== undefined && args.pull) {
      throw new UsageError("--execution-time is of commands that are pushed. Leave it or --pull out.");
    }
    const running = new RunningCommands(args.grace ?? DEFAULT_GRACE_MS);
    const receiver = new Receiver(program, leaseMs, client.socketPath, running, output);
    const handlers = every((_params: unknown, received: ReceivedCommand) => receiver.carryOut(received));
    const options = {
      concurrency: args.jobs ?? 1,
      owner: args.owner ?? `${basename(program[0] as string)}:${process.pid}`,
      signal: running.ending,
      ...(args.targets === undefined ? {} : { targets: args.targets.split(",") }),
      ...(args.incarnation === undefined ? {} : { incarnation: args.incarnation }),
      onError: (error: unknown) => {
        // A refusal that stays the same is told at the end.
        if (!isForGood(error)) output.note(`pawl: ${printable((error as Error).message)}`);
      },
    };
    try {
      const handle = args.pull
        ? client.commands.pull(deployment, handlers, { ...options, leaseMs })
        : client.commands.serve(deployment, handlers, {
            ...options,
            ...(executionMs === undefined ? {} : { executionMs }),
          });
      await handle.done;
    } finally {
      running.close();
    }
    running.throwIfUnable();
    return undefined;
  },
});

/** Has a program carry out commands, and prints what became of each. */
class Receiver {
  readonly #program: readonly string[];
  readonly #leaseMs: number;
  readonly #socketPath: string;
  readonly #running: RunningCommands;
  readonly #output: Output;

  constructor(
    program: readonly string[],
    leaseMs: number,
    socketPath: string,
    running: RunningCommands,
    output: Output,
  ) {
    this.#program = program;
    this.#leaseMs = leaseMs;
    this.#socketPath = socketPath;
    this.#running = running;
    this.#output = output;
  }

  /** Resolves with the answer; rejects with `CommandError` for an answer that is an error, or with `Postpone`. */
  async carryOut(received: ReceivedCommand): Promise<unknown> {
    const startedAt = performance.now();
    const report = (outcome: Outcome, error?: unknown): void => {
      const message = error === undefined ? undefined : (error as Error).message;
      printOutcome(received, outcome, message, performance.now() - startedAt, this.#output);
    };
    const performed = await this.#perform(received);
    if (performed !== undefined && received.signal.aborted) {
      report("stopped", received.signal.reason);
      throw received.signal.reason;
    }
    if (performed === undefined || (performed.code !== 0 && this.#running.ending.aborted)) {
      report("given back");
      throw new Postpone();
    }
    try {
      const value = answerOf(performed);
      report("done");
      return value;
    } catch (error) {
      report("failed", error);
      throw error;
    }
  }

  /** Undefined when the program cannot be run. */
  async #perform(received: ReceivedCommand): Promise<Performed | undefined> {
    try {
      return await this.#running.perform(this.#program, {
        env: environmentOf(received, this.#socketPath),
        input: `${received.paramsText()}\n`,
        stdout: "pipe",
        maxOutputBytes: MAX_ANSWER_BYTES,
        lost: received.signal,
        killAfterMs: () => killAfterMs(this.#leaseMs),
      });
    } catch (error) {
      if (error instanceof CannotRun) return undefined;
      throw error;
    }
  }
}

/** Handlers for whatever command comes: which ones there are, the program knows. */
function every<H>(handler: H): Readonly<Record<string, H>> {
  return new Proxy<Record<string, H>>(
    {},
    {
      get: () => handler,
      getOwnPropertyDescriptor: () => ({ configurable: true, enumerable: true, value: handler }),
    },
  );
}

/** The answer that a program gave by its output and its exit code. Throws `CommandError` for an error. */
function answerOf(performed: Performed): unknown {
  const { code, signal, output, tail } = performed;
  if (code !== 0) {
    throw new CommandError(signal ?? `EXIT_${code}`, failureOf(performed), { exitCode: code, stderr: tail });
  }
  if (output.length > MAX_ANSWER_BYTES) {
    throw new CommandError("ANSWER_TOO_LARGE", `The program printed more than ${MAX_ANSWER_BYTES} bytes.`);
  }
  if (!isUtf8(output)) throw new CommandError("ANSWER_NOT_UTF8", "The program printed what is not UTF-8.");
  const text = output.toString("utf8").trimEnd();
  if (text === "") return null;
  try {
    JSON.parse(text);
    return new JsonText(text);
  } catch {
    return text;
  }
}

/** The variables by which a program knows the command it is run for. */
function environmentOf(received: ReceivedCommand, socketPath: string): Record<string, string> {
  const { commandId, deployment, target, command: name, attempt, deadline, trace } = received;
  return {
    PAWL_SOCKET: resolve(socketPath),
    PAWL_DEPLOYMENT: deployment,
    PAWL_TARGET: target,
    PAWL_COMMAND: name,
    PAWL_COMMAND_ID: commandId,
    PAWL_ATTEMPT: String(attempt),
    PAWL_DEADLINE: deadline === null ? "" : String(deadline),
    ...(trace === undefined ? {} : { TRACEPARENT: trace.traceparent }),
    ...(trace?.tracestate === undefined ? {} : { TRACESTATE: trace.tracestate }),
  };
}

type Outcome = "done" | "failed" | "stopped" | "given back";

const OUTCOME_STYLES = { done: "green", failed: "red", stopped: "yellow", "given back": "dim" } as const;

/** A line for each command that was carried out: on a terminal for people, in JSON for programs. */
function printOutcome(
  { commandId, command: name, attempt }: ReceivedCommand,
  outcome: Outcome,
  error: string | undefined,
  tookMs: number,
  output: Output,
): void {
  if (output.json) {
    const line = { outcome, commandId, command: name, attempt, tookMs: Math.round(tookMs) };
    output.write(`${JSON.stringify({ ...line, ...(error === undefined ? {} : { error }) })}\n`);
  } else if (output.isWatched) {
    const parts = [
      output.styledNote("dim", clockTime()),
      commandId,
      printable(name),
      output.styledNote(OUTCOME_STYLES[outcome], outcome.padEnd("given back".length)),
      duration(tookMs),
      ...(error === undefined ? [] : [printable(error)]),
      ...(attempt > 1 ? [`attempt ${attempt}`] : []),
    ];
    output.note(parts.join("  "));
  }
}

export const commands = { serve };
