import type { Readable } from "node:stream";
import type { Params, Result } from "@pawl/protocol";
import { MAX_ENQUEUED_BATCHES } from "@pawl/protocol/limits";
import { command, UsageError } from "../terminal/command.js";
import { parseJson, readAll } from "../terminal/values.js";

type Batch = Result<"queue.get">["batch"];

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
    at: { type: "text", value: "TIME", describe: "Not to be claimed before, such as 2026-11-21T18:00:00Z" },
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
      default: "20",
    },
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
    if (!each) {
      const once = sourceKey === undefined ? {} : { sourceKey };
      const done = await (await connect()).queue.enqueue({ queue, payloads, ...once, ...shape });
      output.result(done, () => done.batch.batchId);
      if (!done.created) output.note("It was there already, so nothing was added.");
      return undefined;
    }
    if (sourceKey !== undefined) {
      throw new UsageError("--source-key names one batch, and --each makes several. Leave one of them out.");
    }
    const client = await connect();
    const batches: Batch[] = [];
    for (let from = 0; from < payloads.length; from += MAX_ENQUEUED_BATCHES) {
      const some = payloads.slice(from, from + MAX_ENQUEUED_BATCHES);
      const added = await client.queue.enqueueMany({
        batches: some.map((payload) => ({ queue, payloads: [payload], ...shape })),
      });
      batches.push(...added.batches);
    }
    output.result({ batches, created: batches.map(() => true) }, () => batches.map(({ batchId }) => batchId));
    return undefined;
  },
});

async function payloadsOf(texts: readonly string[], stdin: Readable): Promise<unknown[]> {
  if (texts.length === 0) {
    throw new UsageError("There is nothing to enqueue. Give JSON, or - to read it from standard input.");
  }
  if (texts.length > 1 || texts[0] !== "-") {
    return texts.map((text, index) =>
      parseJson(texts.length === 1 ? "PAYLOAD" : `PAYLOAD ${index + 1}`, text),
    );
  }
  const lines = (await readAll(stdin)).split("\n");
  const payloads = lines.flatMap((line, index) =>
    line.trim() === "" ? [] : [parseJson(`Line ${index + 1}`, line)],
  );
  if (payloads.length === 0) throw new UsageError("There is nothing to enqueue on standard input.");
  return payloads;
}

type Shape = Omit<Params<"queue.enqueue">, "queue" | "payloads" | "sourceKey">;

function shapeOf(args: {
  delay: number | undefined;
  at: string | undefined;
  join: boolean;
  "merge-key": string | undefined;
  "after-commit": boolean;
  "max-attempts": number | undefined;
}): Shape {
  const {
    delay,
    at,
    join,
    "merge-key": key,
    "after-commit": afterCommit,
    "max-attempts": maxAttempts,
  } = args;
  const availableAt = at === undefined ? undefined : Date.parse(at);
  if (Number.isNaN(availableAt)) {
    throw new UsageError(`--at takes a time such as 2026-11-21T18:00:00Z, not ${JSON.stringify(at)}.`);
  }
  if (key !== undefined && !join) throw new UsageError("--merge-key says with whom to --join; give both.");
  return {
    ...(delay === undefined ? {} : { delayMs: delay }),
    ...(availableAt === undefined ? {} : { availableAt }),
    ...(join ? { slotPolicy: "join" } : {}),
    ...(key === undefined ? {} : { mergeKey: mergeKeyOf(key) }),
    ...(afterCommit ? { deliveryPolicy: "after_current_turn_commit" } : {}),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
  };
}

function mergeKeyOf(key: string): NonNullable<Shape["mergeKey"]> {
  if (key === "never" || key === "payload_default") return key;
  if (key.startsWith("group:") && key.length > "group:".length) return { group: key.slice("group:".length) };
  throw new UsageError(`--merge-key takes never, payload_default or group:NAME, not ${JSON.stringify(key)}.`);
}

export const commands = { enqueue };
