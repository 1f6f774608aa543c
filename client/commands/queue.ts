import type { Params, Result } from "@pawl/protocol";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { MAX_ENQUEUED_BATCHES } from "@pawl/protocol/limits";
import { command, parseJson, readInput, shorten, UsageError } from "../terminal/command.js";
import { bytes, count, duration, plural, printable, styled, table, when } from "../terminal/output.js";

/** Payloads of a batch that a list shows. */
const MAX_SHOWN_PAYLOADS = 3;
/** There was nothing to claim: no failure, but for a script not the same as something. */
const EXIT_NOTHING = 1;

type Batch = Result<"queue.get">["batch"];

export const enqueue = command<"<queue> [payload..]">()({
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
  async run(args, { connect, output }) {
    const { queue, each, "source-key": sourceKey } = args;
    const payloads = await payloadsOf(args.payload);
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

async function payloadsOf(texts: readonly string[]): Promise<unknown[]> {
  if (texts.length === 0) {
    throw new UsageError("There is nothing to enqueue. Give JSON, or - to read it from standard input.");
  }
  if (texts.length > 1 || texts[0] !== "-") {
    return texts.map((text, index) =>
      parseJson(texts.length === 1 ? "PAYLOAD" : `PAYLOAD ${index + 1}`, text),
    );
  }
  const lines = (await readInput()).split("\n");
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

/** How long a claim is held, for the commands that make or renew one. */
const lease = {
  type: "duration",
  describe: "How long the claim lasts unless it is renewed",
} as const;
const boundary = {
  type: "text",
  choices: ["idle", "active_turn_checkpoint"],
  describe: "Where you stand: at a checkpoint, only what may come there is handed out",
  default: "idle",
} as const;

export const claim = command<"<queue>">()({
  options: {
    wait: { type: "duration", describe: "How long to wait for something to claim", default: "not at all" },
    lease: { ...lease, default: "30s" },
    "max-batches": { type: "number", describe: "How many that join are claimed together", default: "1" },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who claims, for others to see",
      default: "user and program",
    },
    boundary,
  },
  details:
    "Exits with 1 if there is nothing to claim. The claim has to be renewed before it ends, and to be completed or abandoned; `pawl work` does all of that by itself.",
  examples: [
    [
      "claim=$(pawl claim mails --json)",
      "For a script: jq -r .claim.claimId and .claim.leaseToken have the proof",
    ],
    ["pawl claim mails --wait 1m --lease 5m", "Wait for work, and hold it for five minutes"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const { result: found, text } = await client.callForText("queue.claim", {
      queue: args.queue,
      owner: args.owner ?? `${process.env.USER ?? process.getuid?.() ?? "somebody"}:pawl claim`,
      waitMs: args.wait ?? 0,
      ...(args.lease === undefined ? {} : { leaseMs: args.lease }),
      ...(args["max-batches"] === undefined ? {} : { maxBatches: args["max-batches"] }),
      ...(args.boundary === undefined ? {} : { boundary: args.boundary }),
    });
    output.result(found, () => (found.claim === null ? "" : claimText(found.claim, text)), text);
    if (found.claim !== null) return undefined;
    output.note(
      `There is nothing to claim in ${printable(args.queue)}. pawl why ${printable(args.queue)} says more.`,
    );
    return EXIT_NOTHING;
  },
});

function claimText(made: NonNullable<Result<"queue.claim">["claim"]>, text: string): string {
  const texts = textsAt(text, ["claim", "batches", EACH, "payloads", EACH]).values();
  return `claim    ${made.claimId}
token    ${made.leaseToken}
fencing  ${made.fencingToken}
ends in  ${duration(made.remainingMs)}
${made.batches
  .map(({ batchId, attempt, maxAttempts, payloads }) => {
    const tries = `attempt ${attempt + 1}${maxAttempts === 0 ? "" : ` of ${maxAttempts}`}`;
    return `batch    ${batchId}, ${tries}\n${payloads.map(() => `         ${texts.next().value}\n`).join("")}`;
  })
  .join("")}`;
}

export const renew = command<"<claim> <token>">()({
  options: { lease: { ...lease, describe: "How long it lasts from now on", default: "as it was claimed" } },
  examples: [["pawl renew qwc:17:4 TOKEN --lease 5m", "CLAIM and TOKEN as pawl claim printed them"]],
  async run({ claim: claimId, token: leaseToken, lease: leaseMs }, { connect, output }) {
    const held = await (await connect()).queue.renew({
      claimId,
      leaseToken,
      ...(leaseMs === undefined ? {} : { leaseMs }),
    });
    output.result(held, () => `It is held for ${duration(held.remainingMs)} more.`);
    return undefined;
  },
});

export const complete = command<"<claim> <token>">()({
  options: {},
  details: "To do it twice is no mistake.",
  examples: [["pawl complete qwc:17:4 TOKEN", "CLAIM and TOKEN as pawl claim printed them"]],
  async run({ claim: claimId, token: leaseToken }, { connect, output }) {
    const done = await (await connect()).queue.complete({ claimId, leaseToken });
    output.result(done, () => `${plural(done.completed, "batch", "batches")} completed.`);
    return undefined;
  },
});

export const abandon = command<"<claim> <token>">()({
  options: {
    error: {
      type: "text",
      value: "TEXT",
      describe: "Why it failed; this delivery then counts as an attempt",
    },
    delay: { type: "duration", describe: "Not to be claimed again before so long from now" },
  },
  examples: [
    ["pawl abandon qwc:17:4 TOKEN", "Somebody else may have it; no attempt is counted"],
    [
      `pawl abandon qwc:17:4 TOKEN --error "no disk" --delay 5m`,
      "It failed; to be tried again in five minutes",
    ],
  ],
  async run({ claim: claimId, token: leaseToken, error, delay }, { connect, output }) {
    const done = await (await connect()).queue.abandon({
      claimId,
      leaseToken,
      ...(error === undefined ? {} : { error }),
      ...(delay === undefined ? {} : { delayMs: delay }),
    });
    output.result(done, () =>
      [
        `${plural(done.released, "batch", "batches")} given back.`,
        ...(done.dead === 0 ? [] : [`${plural(done.dead, "batch", "batches")} dead: no attempts are left.`]),
      ].join("\n"),
    );
    return undefined;
  },
});

export const queues = command<"[queue]">()({
  options: {},
  examples: [
    ["pawl queues", "A table of all queues and how many batches are in which state"],
    ["pawl queues mails --json | jq '.queues[0].ready'", "One figure of one queue"],
  ],
  async run({ queue }, { connect, output }) {
    const client = await connect();
    const found: Result<"queue.stats">["queues"] = [];
    let after: string | undefined;
    do {
      const page = await client.queue.stats({
        ...(queue === undefined ? {} : { queue }),
        ...(after === undefined ? {} : { after }),
      });
      found.push(...page.queues);
      after = page.next;
    } while (after !== undefined);
    output.result({ queues: found }, () => {
      if (found.length === 0) {
        output.note("There are no queues. A queue exists by being used.");
        return "";
      }
      return queueTable(found);
    });
    return undefined;
  },
});

function queueTable(found: Result<"queue.stats">["queues"]): string {
  const number = (value: number): string => (value === 0 ? "·" : count(value));
  return table(
    [
      { title: "QUEUE", flexible: true },
      { title: "READY", align: "right" },
      { title: "SCHEDULED", align: "right" },
      { title: "CLAIMED", align: "right" },
      { title: "DEAD", align: "right" },
      { title: "COMPLETED", align: "right" },
      { title: "CANCELLED", align: "right" },
      { title: "OLDEST READY", align: "right" },
    ],
    found.map((each) => [
      each.queue,
      number(each.ready),
      number(each.scheduled),
      number(each.claimed),
      each.dead === 0 ? "·" : { text: count(each.dead), style: "red" },
      number(each.completed),
      number(each.cancelled),
      each.oldestReadyMs === null ? "" : duration(each.oldestReadyMs),
    ]),
  );
}

export const dead = command<"<queue>">()({
  options: { limit: { type: "number", describe: "Most batches to list, up to 1,000", default: "100" } },
  details: "They have used up their attempts, and wait for `pawl retry`. They do not hold up the queue.",
  examples: [
    ["pawl dead mails", "Their ids, payloads and last errors"],
    ["pawl dead mails --json | jq -r '.batches[].batchId'", "Only the ids"],
  ],
  async run({ queue, limit }, { connect, output }) {
    const client = await connect();
    const { result: found, text } = await client.callForText("queue.list", {
      queue,
      state: "dead",
      ...(limit === undefined ? {} : { limit }),
    });
    output.result(found, () => found.batches.map(deadText), text);
    if (found.batches.length === 0) output.note(`Nothing in ${printable(queue)} is dead.`);
    if (found.next !== undefined) output.note("There are more; --limit lists more of them.");
    return undefined;
  },
});

function deadText({ batchId, attempt, enqueuedAt, lastError, payloads }: Batch): string {
  const shown = payloads.slice(0, MAX_SHOWN_PAYLOADS).map((each) => {
    const text = JSON.stringify(each);
    return `  ${printable(shorten(text))}${text.length > shorten(text).length ? ` (${bytes(text.length)})` : ""}\n`;
  });
  const more = payloads.length - shown.length;
  return `${styled("bold", batchId)}
  ${plural(attempt, "attempt")}, enqueued ${when(enqueuedAt)}
  ${styled("red", printable(lastError ?? "no error was given"))}
${shown.join("")}${more > 0 ? `  and ${plural(more, "more payload")}\n` : ""}`;
}

export const retry = command<"<queue-or-batch>">()({
  options: {},
  details: "They are ready again, with a fresh count of attempts.",
  examples: [
    ["pawl retry mails", "All that are dead in a queue"],
    [
      "pawl retry qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
      "One batch, by its id",
    ],
  ],
  async run({ "queue-or-batch": which }, { connect, output }) {
    const client = await connect();
    const params = /^qwb:[0-9a-f]{64}$/.test(which) ? { batchId: which } : { queue: which };
    let retried = 0;
    for (let more: true | undefined = true; more; ) {
      const done: Result<"queue.retry"> = await client.queue.retry(params);
      retried += done.retried;
      more = done.more;
    }
    output.result({ retried }, () => `${plural(retried, "batch is", "batches are")} ready again.`);
    return undefined;
  },
});

export const why = command<"<queue>">()({
  options: {},
  examples: [
    ["pawl why mails", "Nothing in mails can be claimed now: ..."],
    ["pawl why mails --json | jq .holder", "Who holds its head"],
  ],
  async run({ queue }, { connect, output }) {
    const found = await (await connect()).queue.explain({ queue });
    output.result(found, () => sentences(found).map(printable));
    return undefined;
  },
});

/** Why the head of a queue can or cannot be claimed, for a person. */
function sentences(found: Result<"queue.explain">): string[] {
  const { queue, reason, batchId, holder, availableAt, dead: deadBatches, waiting } = found;
  const said: string[] = [];
  if (reason === "ready") said.push(`${queue} has work: ${batchId} can be claimed now.`);
  if (reason === "boundary") {
    said.push(`${queue} has work: ${batchId} can be claimed now, but only between turns (boundary idle).`);
  }
  if (reason === "empty") said.push(`There is nothing to claim in ${queue}.`);
  if (reason === "claimed" && holder !== undefined) {
    const process = holder.pid === null ? "" : ` (pid ${holder.pid})`;
    said.push(
      `Nothing in ${queue} can be claimed now: ${holder.owner}${process} holds ${batchId} for ${duration(holder.remainingMs)} more, and longer if it renews.`,
    );
  }
  if (reason === "scheduled" && availableAt !== undefined) {
    said.push(`Nothing in ${queue} can be claimed now: ${batchId} can be, from ${when(availableAt)} on.`);
  }
  if (deadBatches > 0) {
    const are = plural(deadBatches, "batch is", "batches are");
    said.push(`${are} dead; pawl dead ${queue} shows them, pawl retry ${queue} brings them back.`);
  }
  if (waiting !== null && waiting > 0)
    said.push(`${plural(waiting, "worker waits", "workers wait")} for it.`);
  return said;
}
