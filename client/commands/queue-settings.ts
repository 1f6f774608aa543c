import type { Params, Result } from "@pawl/protocol/types";
import { KEY_ORDERS } from "@pawl/protocol/values";
import { command, UsageError } from "../terminal/command.js";
import { duration, plural, when } from "../terminal/quantities.js";
import { RETRY_OPTIONS, retryOf } from "../terminal/retry.js";
import { printable } from "../terminal/text.js";
import { milliseconds, wholeNumber } from "../terminal/values.js";

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
    ttl: { type: "text", value: "DURATION", describe: "Of batches enqueued from now on without any" },
    "max-claimed": { type: "text", value: "NUMBER", describe: "Claims at a time, over all workers" },
    "max-claimed-per-key": { type: "text", value: "NUMBER", describe: "Claims of one key at a time" },
    "key-order": {
      type: "text",
      choices: [...KEY_ORDERS, NONE],
      describe: "strict: a batch waits for every earlier one of its key",
    },
    rate: {
      type: "text",
      value: "COUNT/TIME",
      describe: "Batches claimed per time, such as 50/s or 100/m",
    },
    "max-waiting": { type: "text", value: "NUMBER", describe: "Batches that may wait; more are refused" },
  },
  details:
    "none takes a setting back. set changes what is given and prints all settings; show only prints them. A batch that is enqueued with settings of its own keeps to those.",
  words: { "set|show": ["set", "show"] },
  examples: [
    ["pawl queue set mails --retry-base 10s --retry-factor 3", "Failed mails rest for 10 s, 30 s, 90 s ..."],
    ["pawl queue set mails --rate 50/s --max-claimed 8", "50 mails a second, 8 workers at a time"],
    [
      "pawl queue set builds --max-claimed-per-key 1 --key-order strict",
      "One build of a branch after the other",
    ],
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
    readonly ttl: string | undefined;
    readonly "max-claimed": string | undefined;
    readonly "max-claimed-per-key": string | undefined;
    readonly "key-order": string | undefined;
    readonly rate: string | undefined;
    readonly "max-waiting": string | undefined;
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
    ...changed("ttlMs", args.ttl, (text) => milliseconds("--ttl", text)),
    ...changed("maxClaimed", args["max-claimed"], (text) => wholeNumber("--max-claimed", text)),
    ...changed("maxClaimedPerKey", args["max-claimed-per-key"], (text) =>
      wholeNumber("--max-claimed-per-key", text),
    ),
    ...changed("keyOrder", args["key-order"], (text) => text as "free" | "strict"),
    ...changed("rate", args.rate, rateOf),
    ...changed("maxWaiting", args["max-waiting"], (text) => wholeNumber("--max-waiting", text)),
  };
}

/** A setting as an option says it: none takes it back. */
function changed<N extends string, V>(
  name: N,
  text: string | undefined,
  read: (text: string) => V,
): Partial<Record<N, V | null>> {
  return text === undefined ? {} : ({ [name]: text === NONE ? null : read(text) } as Record<N, V | null>);
}

function rateOf(text: string): { count: number; perMs: number } {
  const [, count, time] = /^(\d+)\/(.+)$/.exec(text) ?? [];
  if (count === undefined || time === undefined) {
    throw new UsageError(`--rate takes COUNT/TIME, such as 50/s or 100/5m, not ${JSON.stringify(text)}.`);
  }
  // 50/s is 50/1s.
  return { count: Number(count), perMs: milliseconds("--rate", /^\d/.test(time) ? time : `1${time}`) };
}

/** The settings of a queue, for a person. */
function sentences(name: string, settings: Settings): string[] {
  const { retry, maxAttempts, ttlMs, maxClaimed, maxClaimedPerKey, keyOrder, rate, maxWaiting } = settings;
  const said: string[] = [];
  if (settings.paused) {
    const until = settings.pausedUntilAt === null ? "" : ` until ${when(settings.pausedUntilAt)}`;
    said.push(`${name} is paused${until}${settings.reason === null ? "" : `: ${settings.reason}`}.`);
  }
  if (settings.throttledUntilAt !== null) {
    const why = settings.throttledReason === null ? "" : `: ${settings.throttledReason}`;
    said.push(`${name} is throttled until ${when(settings.throttledUntilAt)}${why}.`);
  }
  if (maxClaimed !== null) said.push(`${plural(maxClaimed, "claim")} of ${name} may be held at a time.`);
  if (maxClaimedPerKey !== null) {
    said.push(`${plural(maxClaimedPerKey, "claim")} of one key may be held at a time.`);
  }
  if (keyOrder === "strict") said.push("A batch waits for every earlier one of its key.");
  if (rate !== null) {
    said.push(`${plural(rate.count, "batch", "batches")} may be claimed per ${duration(rate.perMs)}.`);
  }
  if (maxWaiting !== null) said.push(`${plural(maxWaiting, "batch", "batches")} may wait.`);
  if (ttlMs !== null) said.push(`What nobody claims within ${duration(ttlMs)} expires.`);
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
        : `Batches of ${name} are dead after ${plural(maxAttempts, "attempt")}.`,
    );
  }
  return said.length === 0 ? [`${name} has no settings of its own.`] : said;
}

export const commands = { queue };
