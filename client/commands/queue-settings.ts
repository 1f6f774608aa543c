import type { Params, Result } from "@pawl/protocol";
import { command, UsageError } from "../terminal/command.js";
import { duration } from "../terminal/quantities.js";
import { RETRY_OPTIONS, retryOf } from "../terminal/retry.js";
import { printable } from "../terminal/text.js";
import { wholeNumber } from "../terminal/values.js";

type Settings = Result<"queue.settings">["settings"];

/** Takes a setting back. */
const NONE = "none";

const queue = command({
  args: "<set|show> <queue>",
  summary: "Configure a queue",
  options: {
    ...RETRY_OPTIONS,
    "no-retry": { type: "flag", describe: "Batches rest as they do by default again" },
    "max-attempts": {
      type: "text",
      value: "NUMBER",
      describe: "Of batches enqueued from now on without any; 0 for no limit, none to take it back",
      default: "20",
    },
  },
  details:
    "set changes what is given and prints all settings; show only prints them. A batch that is enqueued with settings of its own keeps to those.",
  words: { "set|show": ["set", "show"] },
  examples: [
    ["pawl queue set mails --retry-base 10s --retry-factor 3", "Failed mails rest for 10 s, 30 s, 90 s ..."],
    ["pawl queue set mails --max-attempts none", "As by default again"],
    ["pawl queue show mails --json", "Every setting, null where there is none"],
  ],
  async run(args, { connect, output }) {
    const { "set|show": action, queue: name } = args;
    const changes = changesOf(args);
    if (action !== "set" && action !== "show") {
      throw new UsageError(`What to do is set or show, not ${JSON.stringify(action)}.`);
    }
    if (action === "set" && Object.keys(changes).length === 0) {
      throw new UsageError("There is nothing to set. Give an option, such as --retry-base 10s.");
    }
    if (action === "show" && Object.keys(changes).length > 0) {
      throw new UsageError("show changes nothing. Use set with these options.");
    }
    const client = await connect();
    const found =
      action === "set"
        ? await client.queue.configure({ queue: name, ...changes })
        : await client.queue.settings({ queue: name });
    output.result(found, () => sentences(name, found.settings).map(printable));
    return undefined;
  },
});

function changesOf(
  args: Parameters<typeof retryOf>[0] & {
    readonly "no-retry": boolean;
    readonly "max-attempts": string | undefined;
  },
): Omit<Params<"queue.configure">, "queue"> {
  const { "no-retry": noRetry, "max-attempts": most } = args;
  const retry = retryOf(args);
  if (noRetry && retry !== undefined) {
    throw new UsageError("--no-retry takes back what the other --retry options set. Leave one out.");
  }
  return {
    ...(noRetry ? { retry: null } : retry === undefined ? {} : { retry }),
    ...(most === undefined
      ? {}
      : { maxAttempts: most === NONE ? null : wholeNumber("--max-attempts", most) }),
  };
}

/** The settings of a queue, for a person. */
function sentences(name: string, { retry, maxAttempts }: Settings): string[] {
  const said: string[] = [];
  if (retry !== null) {
    const { baseMs, factor, maxMs, jitter } = retry;
    said.push(
      `What fails in ${name} rests for ${duration(baseMs)}, ${factor} times longer each time, up to ${duration(maxMs)}${jitter ? ", or a random part of it from half on" : ""}.`,
    );
  }
  if (maxAttempts !== null) {
    said.push(
      maxAttempts === 0
        ? `Batches of ${name} are tried without a limit.`
        : `Batches of ${name} are dead after ${maxAttempts} attempts.`,
    );
  }
  return said.length === 0 ? [`${name} has no settings of its own.`] : said;
}

export const commands = { queue };
