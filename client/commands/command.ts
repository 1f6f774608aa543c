import { basename, resolve } from "node:path";
import type { Result } from "@pawl/protocol";
import { textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS, MAX_WAIT_MS } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";
import { CommandError, type ReceivedCommand } from "../deployment/receive.js";
import {
  CannotRun,
  clockTime,
  failureOf,
  killAfterMs,
  type Performed,
  RunningCommands,
} from "../process/child.js";
import { command, indented, parseJson, readInput, roundedNumber } from "../terminal/command.js";
import { duration, type Output, printable, styled, table, whenShort } from "../terminal/output.js";
import { isForGood, Postpone } from "../work/worker-pool.js";

/** What a running command has to end by itself when pawl is told to end. */
const DEFAULT_GRACE_MS = 10_000;
/** Of an answer; the daemon takes less in a line unless it is told otherwise. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
/** The answer is an error, or there is none yet. */
const EXIT_NO_ANSWER = 1;

type Command = Result<"command.get">;
type State = Command["state"];
type Response = Result<"command.response">["response"];

const FINAL: readonly State[] = ["SUCCEEDED", "FAILED", "EXPIRED"];

export const send = command<"<deployment> <command> [params]">()({
  options: {
    wait: { type: "duration", describe: "Wait so long for the answer, and print it", default: "not at all" },
    ttl: { type: "duration", describe: "It expires unless it is answered in so long", default: "never" },
    key: {
      type: "text",
      value: "TEXT",
      describe: "Makes it happen once: the same key and params is the same command",
    },
    "max-attempts": {
      type: "number",
      describe: "Deliveries without an answer before it has failed",
      default: "no limit",
    },
  },
  details:
    "The receiver need not be running: it gets the command when it comes. PARAMS is JSON, or - to read it from standard input, of any size. Without --wait the id of the command is printed, for `pawl answer`. With it the answer is: as text if it is a string, else as JSON. pawl exits with 1 if the answer is an error or did not come in time.",
  examples: [
    [
      `pawl send builder build '{"ref": "main"}' --wait 10m`,
      "Have something done, and wait for what comes of it",
    ],
    ["id=$(pawl send builder build - < params.json)", "Leave it to be done, and ask later: pawl answer $id"],
    [
      "pawl send mailer digest --key 2026-11-21 --ttl 1h",
      "Once a day, however often it is asked for, or not at all",
    ],
  ],
  async run(args, { connect, output }) {
    const { deployment, command: name, wait, ttl, key, "max-attempts": maxAttempts } = args;
    const text = args.params === "-" ? await readInput() : args.params;
    const params = text === undefined ? null : parseJson("PARAMS", text);
    const client = await connect();
    const created = await client.commands.create(deployment, name, params, {
      ...(ttl === undefined ? {} : { ttlMs: ttl }),
      ...(key === undefined ? {} : { idempotencyKey: key }),
      ...(maxAttempts === undefined ? {} : { maxAttempts }),
    });
    if (wait !== undefined) return await printAnswer(client, created.commandId, wait, output);
    output.result(created, () => created.commandId);
    if (!created.created) output.note("It was sent before under this key, so nothing was sent.");
    return undefined;
  },
});

export const answer = command<"<command-id>">()({
  options: { wait: { type: "duration", describe: "How long to wait for it", default: "not at all" } },
  details: "It is printed as `pawl send --wait` prints it.",
  examples: [["pawl answer cmd_0199 --wait 1m", "The answer to a command, by the id that pawl send printed"]],
  async run({ "command-id": commandId, wait = 0 }, { connect, output }) {
    return await printAnswer(await connect(), commandId, wait, output);
  },
});

async function printAnswer(
  client: PawlClient,
  commandId: string,
  waitMs: number,
  output: Output,
): Promise<number | undefined> {
  const command = await finalOrLast(client, commandId, waitMs);
  const { state, deployment, command: name } = command;
  const { result, text } = await client.callForText("command.response", { commandId });
  const { response } = result;
  const json = `{"commandId":"${commandId}","state":"${state}","response":${textsAt(text, ["response"])[0]}}`;
  output.result({ commandId, state, response }, () => answerText(response, text), json);
  if (response?.status === "success") return undefined;
  if (response === null) {
    const at =
      state === "DISPATCHED" ? `${printable(deployment)} has it` : `it waits for ${printable(deployment)}`;
    output.note(`No answer yet: ${at}. pawl answer ${commandId} has the answer later.`);
  } else {
    const what = `${printable(name)} of ${printable(deployment)}`;
    output.note(
      `${styled("red", "pawl:", process.stderr)} ${what}: ${printable(response.message)} [${printable(response.code)}]`,
    );
  }
  return EXIT_NO_ANSWER;
}

async function finalOrLast(client: PawlClient, commandId: string, waitMs: number): Promise<Command> {
  const givingUp = performance.now() + waitMs;
  for (;;) {
    const left = Math.max(0, Math.round(givingUp - performance.now()));
    const found = await client.command.wait({ commandId, waitMs: Math.min(left, MAX_WAIT_MS) });
    if (FINAL.includes(found.state) || left <= MAX_WAIT_MS) return found;
  }
}

/** @param text of the result that the answer came in. */
function answerText(response: Response, text: string): string {
  if (response?.status !== "success") return "";
  const { response: value = null } = response;
  return typeof value === "string" ? value : indented(textsAt(text, ["response", "response"])[0] ?? "null");
}

export const serve = command<"<deployment> -- command">()({
  options: {
    jobs: {
      type: "number",
      short: "j",
      describe: "How many commands are carried out at a time",
      default: "1",
    },
    pull: { type: "flag", describe: "Take commands under leases, which outlive a restart of the daemon" },
    lease: {
      type: "duration",
      describe: "With --pull: how long one outlives the last sign of life",
      default: "30s",
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
    "For each command sent to the deployment the program is run, with the params as JSON on its standard input. Exit code 0 answers with its standard output, as JSON if it is JSON and else as text; anything else answers with an error of the code EXIT_<code> and the last line of standard error. It is ended (TERM, then KILL) when the command is cancelled or expires or when its lease is lost, and killed when pawl is. SIGTERM ends pawl: what is not finished in time is delivered anew. The program finds PAWL_COMMAND, PAWL_COMMAND_ID, PAWL_DEPLOYMENT, PAWL_ATTEMPT and PAWL_DEADLINE in its environment.",
  examples: [
    [
      `pawl serve builder -- sh -c 'make "$(jq -r .ref)" >&2 && echo "{\\"ok\\": true}"'`,
      "Answers with JSON",
    ],
    [`pawl serve tools --jobs 4 -- sh -c '"./tools/$PAWL_COMMAND"'`, "A program for each command"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const { deployment, "--": line, lease: leaseMs = DEFAULT_LEASE_MS, grace = DEFAULT_GRACE_MS } = args;
    const commands = new RunningCommands(grace);
    let unable: CannotRun | undefined;

    const carryOut = async (_params: unknown, received: ReceivedCommand): Promise<unknown> => {
      const startedAt = performance.now();
      const report = (kind: Outcome, error?: string): void => {
        tell(received, kind, error, performance.now() - startedAt, output);
      };
      let performed: Performed;
      try {
        performed = await commands.perform(line, {
          env: environmentOf(received, client.socketPath),
          input: `${received.paramsText()}\n`,
          stdout: "pipe",
          maxOutputBytes: MAX_ANSWER_BYTES,
          lost: received.signal,
          killAfterMs: killAfterMs(leaseMs),
        });
      } catch (error) {
        if (!(error instanceof CannotRun)) throw error;
        unable = error;
        commands.end();
        report("given back");
        throw new Postpone();
      }
      if (received.signal.aborted) {
        report("stopped", (received.signal.reason as Error).message);
        throw received.signal.reason;
      }
      if (performed.code !== 0 && commands.ending.aborted) {
        report("given back");
        throw new Postpone();
      }
      try {
        const value = answerOf(performed);
        report("done");
        return value;
      } catch (error) {
        report("failed", (error as Error).message);
        throw error;
      }
    };

    const options = {
      concurrency: args.jobs ?? 1,
      owner: args.owner ?? `${basename(line[0] as string)}:${process.pid}`,
      signal: commands.ending,
      onError: (error: unknown) => {
        // What is refused for good is told at the end.
        if (!isForGood(error)) output.note(`pawl: ${printable((error as Error).message)}`);
      },
    };
    try {
      const handle = args.pull
        ? client.commands.pull(deployment, every(carryOut), { ...options, leaseMs })
        : client.commands.serve(deployment, every(carryOut), options);
      await handle.done;
    } finally {
      commands.close();
    }
    if (unable !== undefined) throw unable;
    return undefined;
  },
});

/** Handlers for whatever command comes: what the program knows is its own business. */
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
  const text = output.toString("utf8").trimEnd();
  if (text === "") return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return text;
  }
  const rounded = roundedNumber(text);
  if (rounded === undefined) return value;
  throw new CommandError("ANSWER_NOT_EXACT", `The answer holds ${rounded}, which would be rounded.`);
}

/** What a program can know of the command it is run for. */
function environmentOf(received: ReceivedCommand, socketPath: string): Record<string, string> {
  const { commandId, deployment, command: name, attempt, deadline } = received;
  return {
    PAWL_SOCKET: resolve(socketPath),
    PAWL_DEPLOYMENT: deployment,
    PAWL_COMMAND: name,
    PAWL_COMMAND_ID: commandId,
    PAWL_ATTEMPT: String(attempt),
    PAWL_DEADLINE: deadline === null ? "" : String(deadline),
  };
}

type Outcome = "done" | "failed" | "stopped" | "given back";

const OUTCOME_STYLES = { done: "green", failed: "red", stopped: "yellow", "given back": "dim" } as const;

/** A line for each command that was carried out: on a terminal for people, in JSON for programs. */
function tell(
  { commandId, command: name, attempt }: ReceivedCommand,
  outcome: Outcome,
  error: string | undefined,
  tookMs: number,
  output: Output,
): void {
  if (output.json) {
    const line = { outcome, commandId, command: name, attempt, tookMs: Math.round(tookMs) };
    output.write(`${JSON.stringify({ ...line, ...(error === undefined ? {} : { error }) })}\n`);
  } else if (process.stderr.isTTY) {
    const parts = [
      styled("dim", clockTime(), process.stderr),
      commandId,
      printable(name),
      styled(OUTCOME_STYLES[outcome], outcome.padEnd("given back".length), process.stderr),
      duration(tookMs),
      ...(error === undefined ? [] : [printable(error)]),
      ...(attempt > 1 ? [`attempt ${attempt}`] : []),
    ];
    output.note(parts.join("  "));
  }
}

const STATES = [
  "PENDING_UPLOAD",
  "PENDING",
  "DISPATCHED",
  "SUCCEEDED",
  "FAILED",
  "EXPIRED",
] as const satisfies readonly State[];
const STATE_STYLES: Readonly<Partial<Record<State, "green" | "red" | "yellow">>> = {
  DISPATCHED: "yellow",
  SUCCEEDED: "green",
  FAILED: "red",
  EXPIRED: "red",
};

export const commands = command<"[deployment]">()({
  options: {
    state: { type: "text", choices: STATES, describe: "Only those in a state" },
    limit: { type: "number", describe: "Most commands to list, up to 1,000", default: "100" },
  },
  details: "Newest first.",
  examples: [
    ["pawl commands", "A table of commands with their states"],
    ["pawl commands builder --state PENDING", "What waits for a receiver"],
    ["pawl commands --json | jq -r '.commands[].commandId'", "Only the ids"],
  ],
  async run({ deployment, state, limit }, { connect, output }) {
    const found = await (await connect()).command.list({
      ...(deployment === undefined ? {} : { deployment }),
      ...(state === undefined ? {} : { state }),
      ...(limit === undefined ? {} : { limit }),
    });
    output.result(found, () => (found.commands.length === 0 ? "" : commandTable(found.commands)));
    if (found.commands.length === 0) output.note("There are no such commands.");
    if (found.next !== undefined) output.note("There are more; --limit lists more of them.");
    return undefined;
  },
});

function commandTable(found: readonly Command[]): string {
  return table(
    [
      { title: "COMMAND ID" },
      { title: "DEPLOYMENT", flexible: true },
      { title: "COMMAND", flexible: true },
      { title: "STATE" },
      { title: "TRY", align: "right" },
      { title: "CREATED" },
      { title: "TOOK", align: "right" },
      { title: "BY, OR WHY NOT", flexible: true },
    ],
    found.map((each) => {
      const style = STATE_STYLES[each.state];
      return [
        each.commandId,
        each.deployment,
        each.command,
        style === undefined ? each.state : { text: each.state, style },
        String(each.attempt),
        whenShort(each.createdAt),
        each.completedAt === null ? "" : duration(Math.max(0, each.completedAt - each.createdAt)),
        each.lease?.owner ?? (each.error === null ? "" : `${each.error.code}: ${each.error.message}`),
      ];
    }),
  );
}
