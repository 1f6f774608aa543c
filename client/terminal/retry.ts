// The options by which batches and commands rest after they failed.
import type { Params } from "@pawl/protocol/types";
import { UsageError } from "./command.js";

type Retry = NonNullable<Params<"queue.enqueue">["retry"]>;

export const RETRY_OPTIONS = {
  "retry-base": { type: "duration", describe: "The rest after it failed for the first time", default: "1s" },
  "retry-factor": {
    type: "text",
    value: "NUMBER",
    describe: "How many times longer each further rest is",
    default: "2",
  },
  "retry-max": { type: "duration", describe: "The longest rest", default: "1h" },
  "retry-jitter": {
    type: "text",
    choices: ["on", "off"],
    describe: "With on, a rest is a random time, from half of it to all",
    default: "on",
  },
} as const;

/** The retry that the options describe, or undefined if none of them is given. Throws `UsageError`. */
export function retryOf(args: {
  "retry-base": number | undefined;
  "retry-factor": string | undefined;
  "retry-max": number | undefined;
  "retry-jitter": "on" | "off" | undefined;
}): Retry | undefined {
  const { "retry-base": baseMs, "retry-factor": factor, "retry-max": maxMs, "retry-jitter": jitter } = args;
  if (factor !== undefined && !/^[0-9]+(\.[0-9]+)?$/.test(factor)) {
    throw new UsageError(`--retry-factor takes a number such as 2 or 1.5, not ${JSON.stringify(factor)}.`);
  }
  const retry = {
    ...(baseMs === undefined ? {} : { baseMs }),
    ...(factor === undefined ? {} : { factor: Number(factor) }),
    ...(maxMs === undefined ? {} : { maxMs }),
    ...(jitter === undefined ? {} : { jitter: jitter === "on" }),
  };
  return Object.keys(retry).length === 0 ? undefined : retry;
}
