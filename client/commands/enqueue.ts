import type { Readable } from "node:stream";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { MAX_ENQUEUED_BATCHES } from "@pawl/protocol/limits";
import type { Params } from "@pawl/protocol/types";
import { ON_EXISTING, WHENS } from "@pawl/protocol/values";
import { JsonText } from "../connection/json-text.js";
import { command, UsageError } from "../terminal/command.js";
import { when, zoneAt } from "../terminal/quantities.js";
import { RETRY_OPTIONS, retryOf } from "../terminal/retry.js";
import { checkedJson, pointInTime, readAll } from "../terminal/values.js";

const enqueue = command({
  args: "<queue> [payload..]",
  summary: "Add work to a queue",
  options: {
    each: { type: "flag", describe: "A batch for each payload, instead of one batch of them all" },
    "source-key": {
      type: "text",
      value: "KEY",
      describe: "Makes it happen once: the same KEY and content is the same batch, also later",
    },
    "on-existing": {
      type: "text",
      choices: ON_EXISTING,
      describe: "What becomes of other content under the same KEY",
      default: "refuse",
    },
    "max-delay": {
      type: "duration",
      describe: "With --on-existing replace: its delay begins anew for so long at most",
    },
    "unique-unfinished": { type: "flag", describe: "KEY is forgotten when the batch has ended" },
    priority: {
      type: "text",
      value: "NUMBER",
      describe: "From -100 to 100, higher first",
      default: "0",
    },
    key: { type: "text", value: "TEXT", describe: "What it is about, for limits by key" },
    ttl: { type: "duration", describe: "It expires if nobody claims it for so long" },
    wait: { type: "duration", describe: "How long to wait for room in a full queue", default: "not at all" },
    delay: { type: "duration", describe: "Not to be claimed before so long from now" },
    at: {
      type: "text",
      value: "TIME",
      describe:
        "Not to be claimed before: 2026-12-25 or 2026-12-25T18:00 in local time, or 2026-12-25T18:00:00Z",
    },
    join: { type: "flag", describe: "May be claimed together with those that follow it" },
    "merge-key": {
      type: "text",
      value: "KEY",
      describe: "With whom: never, payload_default or group:NAME",
      default: "never",
    },
    "after-commit": { type: "flag", describe: "Not for claims with --boundary active_turn_checkpoint" },
    "max-attempts": {
      type: "number",
      describe: "Deliveries before it is dead, 0 for no limit",
      default: "of the queue, else 20",
    },
    ...RETRY_OPTIONS,
    after: {
      type: "text",
      value: "BATCHES",
      describe: "Not before these have ended: their ids, with commas between them",
    },
    when: {
      type: "text",
      choices: WHENS,
      describe: "With --after: what has to become of them",
      default: "success",
    },
    trace: {
      type: "text",
      value: "TRACEPARENT",
      describe: "The trace that it belongs to (W3C), which its worker goes on with",
    },
  },
  details: "Each PAYLOAD is JSON. With - they are read from standard input, one per line.",
  examples: [
    [`pawl enqueue mails '{"to": "ada"}'`, "A batch of one payload; prints its id"],
    ["pawl enqueue builds 17 18 19 --each", "Three batches"],
    ["jq -c '.[]' tasks.json | pawl enqueue tasks - --each", "A batch for each line of a pipe"],
    [
      `pawl enqueue index '"docs"' --source-key docs --on-existing replace --delay 5s --max-delay 1m`,
      "A debounce: 5 s after the last, at most a minute after the first",
    ],
    [
      `pawl enqueue reports '"all"' --after "$(pawl enqueue parts 1),$(pawl enqueue parts 2)"`,
      "Once both parts are done; the claim has their results",
    ],
    ["pawl enqueue deploys '{}' --key production --priority=10", "Before others; --key for limits by key"],
    [
      `pawl enqueue reports '"weekly"' --source-key 2026-W47 --delay 2h`,
      "Once, however often it is asked for",
    ],
  ],
  async run(args, { connect, output, stdin }) {
    const { queue, each, "source-key": sourceKey } = args;
    const payloads = await payloadsOf(args.payload, stdin);
    const shape = shapeOf(args);
    const { availableAt } = shape;
    if (availableAt !== undefined) {
      output.note(`It can be claimed from ${when(availableAt)} on, ${zoneAt(availableAt)}.`);
    }
    if (!each) {
      const once = {
        ...onceOf(args),
        ...(args.wait === undefined ? {} : { waitMs: args.wait }),
      };
      const client = await connect();
      const { result: done, text } = await client.callForText("queue.enqueue", {
        queue,
        payloads,
        ...once,
        ...shape,
      });
      output.result(done, () => done.batch.batchId, text);
      if (done.outcome !== "created") output.note(SAID[done.outcome]);
      return undefined;
    }
    if (args.wait !== undefined) {
      throw new UsageError("--wait is for one batch, and --each makes several. Leave one of them out.");
    }
    if (sourceKey !== undefined) {
      throw new UsageError("--source-key names one batch, and --each makes several. Leave one of them out.");
    }
    const client = await connect();
    const ids: string[] = [];
    const batches: string[] = [];
    const outcomes: string[] = [];
    for (let from = 0; from < payloads.length; from += MAX_ENQUEUED_BATCHES) {
      const some = payloads.slice(from, from + MAX_ENQUEUED_BATCHES);
      const { result, text } = await client.callForText<"queue.enqueueMany">("queue.enqueueMany", {
        batches: some.map((payload) => ({ queue, payloads: [payload], ...shape })),
      });
      outcomes.push(...result.outcomes);
      ids.push(...result.batches.map(({ batchId }) => batchId));
      batches.push(...(textsAt(text, ["batches", EACH]) as string[]));
    }
    const json = `{"batches":[${batches.join(",")}],"created":[${ids.map(() => true).join(",")}],"outcomes":${JSON.stringify(outcomes)}}`;
    output.result(undefined, () => ids, json);
    return undefined;
  },
});

/** The outcome for a batch that was there, in words. */
const SAID = {
  existing: "It was there already, so nothing was added.",
  replaced: "It took the place of the one that waited.",
  kept: "It took the place of the one that waited, and its time.",
  appended: "It was added to the one that waits.",
  follower: "It waits for the end of the one before it.",
} as const;

/** The options about batches with the same source key. */
function onceOf(args: {
  readonly "source-key": string | undefined;
  readonly "on-existing": string | undefined;
  readonly "max-delay": number | undefined;
  readonly "unique-unfinished": boolean;
}): Partial<Params<"queue.enqueue">> {
  const { "source-key": sourceKey, "on-existing": onExisting, "max-delay": maxDelayMs } = args;
  if (sourceKey === undefined && (onExisting !== undefined || args["unique-unfinished"])) {
    throw new UsageError("--on-existing and --unique-unfinished are about a --source-key; give one.");
  }
  if (maxDelayMs !== undefined && onExisting !== "replace") {
    throw new UsageError("--max-delay is for --on-existing replace.");
  }
  return {
    ...(sourceKey === undefined ? {} : { sourceKey }),
    ...(onExisting === undefined
      ? {}
      : { onExisting: onExisting as NonNullable<Params<"queue.enqueue">["onExisting"]> }),
    ...(maxDelayMs === undefined ? {} : { maxDelayMs }),
    ...(args["unique-unfinished"] ? { uniqueFor: "unfinished" as const } : {}),
  };
}

export async function payloadsOf(texts: readonly string[], stdin: Readable): Promise<JsonText[]> {
  if (texts.length === 0) {
    throw new UsageError("There is nothing to enqueue. Give JSON, or - to read it from standard input.");
  }
  if (texts.length > 1 || texts[0] !== "-") {
    return texts.map((text, index) =>
      payloadOf(texts.length === 1 ? "PAYLOAD" : `PAYLOAD ${index + 1}`, text),
    );
  }
  const lines = (await readAll(stdin)).split("\n");
  const payloads = lines.flatMap((line, index) =>
    line.trim() === "" ? [] : [payloadOf(`Line ${index + 1}`, line)],
  );
  if (payloads.length === 0) throw new UsageError("There is nothing to enqueue on standard input.");
  return payloads;
}

function payloadOf(what: string, text: string): JsonText {
  return new JsonText(checkedJson(what, text));
}

type Shape = Omit<Params<"queue.enqueue">, "queue" | "payloads" | "sourceKey">;

function shapeOf(
  args: Parameters<typeof retryOf>[0] & {
    delay: number | undefined;
    at: string | undefined;
    join: boolean;
    "merge-key": string | undefined;
    "after-commit": boolean;
    "max-attempts": number | undefined;
    priority: string | undefined;
    key: string | undefined;
    ttl: number | undefined;
    trace: string | undefined;
    after: string | undefined;
    when: string | undefined;
  },
): Shape {
  const {
    delay,
    at,
    join,
    "merge-key": mergeKey,
    "after-commit": afterCommit,
    "max-attempts": maxAttempts,
  } = args;
  const retry = retryOf(args);
  if (args.when !== undefined && args.after === undefined) {
    throw new UsageError("--when is about --after; give both.");
  }
  if (mergeKey !== undefined && !join)
    throw new UsageError("--merge-key says with whom to --join; give both.");
  if (join && mergeKey === undefined) {
    throw new UsageError("--join needs a --merge-key that says with whom: payload_default or group:NAME.");
  }
  return {
    ...(delay === undefined ? {} : { delayMs: delay }),
    ...(at === undefined ? {} : { availableAt: pointInTime("--at", at) }),
    ...(join ? { slotPolicy: "join" } : {}),
    ...(mergeKey === undefined ? {} : { mergeKey: mergeKeyOf(mergeKey) }),
    ...(args.priority === undefined ? {} : { priority: priorityOf(args.priority) }),
    ...(args.key === undefined ? {} : { key: args.key }),
    ...(args.ttl === undefined ? {} : { ttlMs: args.ttl }),
    ...(afterCommit ? { deliveryPolicy: "after_current_turn_commit" } : {}),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...(retry === undefined ? {} : { retry }),
    ...(args.after === undefined ? {} : { after: args.after.split(/[\s,]+/).filter((id) => id !== "") }),
    ...(args.when === undefined ? {} : { when: args.when as NonNullable<Shape["when"]> }),
    ...(args.trace === undefined ? {} : { trace: { traceparent: args.trace } }),
  };
}

export function priorityOf(text: string): number {
  if (!/^[+-]?\d{1,3}$/.test(text)) {
    throw new UsageError(`--priority takes a number from -100 to 100, not ${JSON.stringify(text)}.`);
  }
  return Number(text);
}

function mergeKeyOf(key: string): NonNullable<Shape["mergeKey"]> {
  if (key === "never" || key === "payload_default") return key;
  if (key.startsWith("group:") && key.length > "group:".length) return { group: key.slice("group:".length) };
  throw new UsageError(`--merge-key takes never, payload_default or group:NAME, not ${JSON.stringify(key)}.`);
}

export const commands = { enqueue };
