import { textsAt } from "@pawl/protocol/json-text";
import { MAX_WAIT_MS } from "@pawl/protocol/limits";
import type { Params, Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import { JsonText } from "../connection/json-text.js";
import { readAnswer } from "../deployment/answer-text.js";
import type { SendOptions } from "../deployment/send.js";
import { type Context, command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { RETRY_OPTIONS, retryOf } from "../terminal/retry.js";
import { printable } from "../terminal/text.js";
import { checkedJson, indented, readAll } from "../terminal/values.js";

/** The answer is an error, or there is none yet. */
const EXIT_NO_ANSWER = 1;

type Command = Result<"command.get">;
type Response = Params<"command.respond">["response"] | null;

const FINAL: readonly Command["state"][] = ["SUCCEEDED", "FAILED", "EXPIRED"];

const send = command({
  args: "<deployment> <command> [params]",
  endsBySignal: true,
  summary: "Send a command, and perhaps wait for the answer",
  options: {
    wait: { type: "duration", describe: "Wait so long for the answer, and print it", default: "not at all" },
    ttl: { type: "duration", describe: "It expires unless it is answered in so long", default: "never" },
    "execution-time": {
      type: "duration",
      describe: "How long one delivery may take",
      default: "as the receiver says",
    },
    target: { type: "text", value: "TEXT", describe: "A resource within the deployment", default: "none" },
    incarnation: {
      type: "text",
      value: "TEXT",
      describe: "The one receiver that it is for; GONE when that has ended",
      default: "whichever takes it",
    },
    key: {
      type: "text",
      value: "TEXT",
      describe: "Makes it happen once: the same key and params is the same command",
    },
    "max-attempts": {
      type: "number",
      describe: "Deliveries without an answer before it has failed",
      default: "20; 0 for no limit",
    },
    ...RETRY_OPTIONS,
  },
  details:
    "The receiver need not be running: it gets the command when it comes. PARAMS is JSON, or - to read it from standard input, of any size. With any of the --retry options, a command whose delivery ended without an answer rests before the next one: not yet the first time that its receiver died, but whenever one gives it back, and then from --retry-base on, each time longer. Without --wait the id of the command is printed, for `pawl answer`. With it the answer is: as text if it is a string, else as JSON. pawl exits with 1 if the answer is an error or did not come in time. TRACEPARENT and TRACESTATE of its environment are handed on to the receiver.",
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
  async run(args, { connect, output, stdin, env }) {
    const { deployment, command: name, wait, ttl, key, "max-attempts": maxAttempts } = args;
    const { "execution-time": executionMs } = args;
    const text = args.params === "-" ? await readAll(stdin) : args.params;
    const params = text === undefined ? null : new JsonText(checkedJson("PARAMS", text));
    const retry = retryOf(args);
    const client = await connect();
    const created = await client.commands.create(deployment, name, params, {
      ...(ttl === undefined ? {} : { ttlMs: ttl }),
      ...(executionMs === undefined ? {} : { executionMs }),
      ...(args.target === undefined ? {} : { target: args.target }),
      ...(args.incarnation === undefined ? {} : { incarnation: args.incarnation }),
      ...traceOf(env),
      ...(key === undefined ? {} : { idempotencyKey: key }),
      ...(maxAttempts === undefined ? {} : { maxAttempts }),
      ...(retry === undefined ? {} : { retry }),
    });
    if (wait !== undefined) return await printAnswer(client, created.commandId, wait, output);
    output.result(created, () => created.commandId);
    if (!created.created) output.note("It was sent before under this key, so nothing was sent.");
    return undefined;
  },
});

const answer = command({
  args: "<command-id>",
  endsBySignal: true,
  summary: "Print the answer to a command",
  options: { wait: { type: "duration", describe: "How long to wait for it", default: "not at all" } },
  details: "It is printed as `pawl send --wait` prints it.",
  examples: [["pawl answer cmd_0199 --wait 1m", "The answer to a command, by the id that pawl send printed"]],
  async run({ "command-id": commandId, wait = 0 }, { connect, output }) {
    return await printAnswer(await connect(), commandId, wait, output);
  },
});

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The trace that this program belongs to (W3C Trace Context); one that is malformed counts as none. */
function traceOf({
  TRACEPARENT: traceparent,
  TRACESTATE: tracestate,
}: Context["env"]): Pick<SendOptions, "trace"> {
  if (traceparent === undefined || !TRACEPARENT.test(traceparent)) return {};
  return { trace: { traceparent, ...(tracestate ? { tracestate } : {}) } };
}

async function printAnswer(
  client: PawlClient,
  commandId: string,
  waitMs: number,
  output: Output,
): Promise<number | undefined> {
  const command = await finalOrLast(client, commandId, waitMs);
  const { state, deployment, command: name } = command;
  const { result, text: line } = await client.callForText("command.response", { commandId });
  const isLong = result.response !== null && "$upload" in result.response;
  const text = isLong ? await readAnswer(client, commandId) : (textsAt(line, ["response"])[0] as string);
  const response: Response = JSON.parse(text);
  const json = `{"commandId":"${commandId}","state":"${state}","response":${text}}`;
  output.result({ commandId, state, response }, () => answerText(response, text), json);
  if (response?.status === "success") return undefined;
  if (response === null) {
    const at =
      state === "DISPATCHED" ? `${printable(deployment)} has it` : `it waits for ${printable(deployment)}`;
    output.note(`No answer yet: ${at}. pawl answer ${commandId} has the answer later.`);
  } else {
    const what = `${printable(name)} of ${printable(deployment)}`;
    output.note(
      `${output.styledNote("red", "pawl:")} ${what}: ${printable(response.message)} [${printable(response.code)}]`,
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

/** @param text that of the response. */
function answerText(response: Response, text: string): string {
  if (response?.status !== "success") return "";
  const { response: value = null } = response;
  return typeof value === "string" ? value : indented(textsAt(text, ["response"])[0] ?? "null");
}

export const commands = { send, answer };
