import type { Readable } from "node:stream";
import type { Params } from "@pawl/protocol";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { MAX_ENQUEUED_BATCHES } from "@pawl/protocol/limits";
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
    "after-commit": { type: "flag", describe: "For claims between turns only, not at a checkpoint of one" },
    "max-attempts": {
      type: "number",
      describe: "Deliveries before it is dead, 0 for no limit",
      default: "of the queue, else 20",
    },
    ...RETRY_OPTIONS,
  },
  details: "Each PAYLOAD is JSON. With - they are read from standard input, one per line.",
  examples: [
    [`pawl enqueue mails '{"to": "ada"}'`, "A batch of one payload; prints its id"],
    ["pawl enqueue builds 17 18 19 --each", "Three batches"],
    ["jq -c '.[]' tasks.json | pawl enqueue tasks - --each", "A batch for each line of a pipe"],
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
      const once = sourceKey === undefined ? {} : { sourceKey };
      const client = await connect();
      const { result: done, text } = await client.callForText("queue.enqueue", {
        queue,
        payloads,
        ...once,
        ...shape,
      });
      output.result(done, () => done.batch.batchId, text);
      if (!done.created) output.note("It was there already, so nothing was added.");
      return undefined;
    }
    if (sourceKey !== undefined) {
      throw new UsageError("--source-key names one batch, and --each makes several. Leave one of them out.");
    }
    const client = await connect();
    const ids: string[] = [];
    const batches: string[] = [];
    for (let from = 0; from < payloads.length; from += MAX_ENQUEUED_BATCHES) {
      const some = payloads.slice(from, from + MAX_ENQUEUED_BATCHES);
      const { result, text } = await client.callForText<"queue.enqueueMany">("queue.enqueueMany", {
        batches: some.map((payload) => ({ queue, payloads: [payload], ...shape })),
      });
      ids.push(...result.batches.map(({ batchId }) => batchId));
      batches.push(...(textsAt(text, ["batches", EACH]) as string[]));
    }
    const json = `{"batches":[${batches.join(",")}],"created":[${ids.map(() => true).join(",")}]}`;
    output.result(undefined, () => ids, json);
    return undefined;
  },
});

async function payloadsOf(texts: readonly string[], stdin: Readable): Promise<JsonText[]> {
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
  },
): Shape {
  const {
    delay,
    at,
    join,
    "merge-key": key,
    "after-commit": afterCommit,
    "max-attempts": maxAttempts,
  } = args;
  const retry = retryOf(args);
  if (key !== undefined && !join) throw new UsageError("--merge-key says with whom to --join; give both.");
  return {
    ...(delay === undefined ? {} : { delayMs: delay }),
    ...(at === undefined ? {} : { availableAt: pointInTime("--at", at) }),
    ...(join ? { slotPolicy: "join" } : {}),
    ...(key === undefined ? {} : { mergeKey: mergeKeyOf(key) }),
    ...(afterCommit ? { deliveryPolicy: "after_current_turn_commit" } : {}),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...(retry === undefined ? {} : { retry }),
  };
}

function mergeKeyOf(key: string): NonNullable<Shape["mergeKey"]> {
  if (key === "never" || key === "payload_default") return key;
  if (key.startsWith("group:") && key.length > "group:".length) return { group: key.slice("group:".length) };
  throw new UsageError(`--merge-key takes never, payload_default or group:NAME, not ${JSON.stringify(key)}.`);
}

export const commands = { enqueue };
