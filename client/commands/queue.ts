import { EACH, textsAt } from "@pawl/protocol/json-text";
import type { Result } from "@pawl/protocol/types";
import { BATCH_STATES } from "@pawl/protocol/values";
import type { PawlClient } from "../connect.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { bytes, count, duration, plural, when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { shorten } from "../terminal/values.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import { saidOfNone } from "./kept-elsewhere.js";

/** Payloads of a batch that a list shows. */
const MAX_SHOWN_PAYLOADS = 3;

type Batch = Result<"queue.get">["batch"];

const queues = command({
  args: "[queue]",
  patient: isWatching,
  endsBySignal: true,
  summary: "List the queues and what is in them",
  options: WATCH,
  examples: [
    ["pawl queues", "A table of all queues and how many batches are in which state"],
    ["pawl queues --watch", "The same, shown again whenever something happens to a batch"],
    ["pawl queues mails --json | jq '.queues[0].ready'", "One figure of one queue"],
  ],
  async run({ queue, watch }, { connect, output }) {
    const client = await connect();
    const read = async () => {
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
      const isNone = queue !== undefined && !output.json && !(await isThere(queue, client));
      const isEmpty = !isNone && found.length === 0;
      const none = isEmpty
        ? await saidOfNone("There are no queues. A queue exists by being used.", "queue", { client, output })
        : "";
      return () =>
        output.result({ queues: found }, () => {
          if (!isNone && found.length > 0) return queueTable(found, output);
          output.note(isNone ? noQueue(queue) : none);
          return "";
        });
    };
    return await showListed(read, [`queue:${queue ?? "*"}`], { watch, client, output });
  },
});

/** Says that a queue does not exist. */
export function noQueue(queue: string): string {
  return `There is no queue ${printable(queue)}. A queue exists by being used.`;
}

/** False for a queue that nothing is in and nothing is set of: a figure of one that is not there is 0. */
export async function isThere(queue: string, client: PawlClient): Promise<boolean> {
  const { queues: own } = await client.queue.stats({ queue });
  if (own.some((each) => Object.values(each).some((value) => value === true || (value as number) > 0))) {
    return true;
  }
  let after: string | undefined;
  do {
    const page: Result<"queue.stats"> = await client.queue.stats(after === undefined ? {} : { after });
    if (page.queues.some((each) => each.queue === queue)) return true;
    after = page.next;
  } while (after !== undefined);
  return false;
}

function queueTable(found: Result<"queue.stats">["queues"], output: Output): string {
  const number = (value: number): string => (value === 0 ? "·" : count(value));
  // Few queues have any, and a line is only so long.
  const blocked = found.some((each) => each.blocked > 0);
  const expired = found.some((each) => each.expired > 0);
  return output.table(
    [
      { title: "QUEUE", flexible: true },
      { title: "READY", align: "right" },
      { title: "SCHEDULED", align: "right" },
      ...(blocked ? [{ title: "BLOCKED", align: "right" } as const] : []),
      { title: "CLAIMED", align: "right" },
      { title: "DEAD", align: "right" },
      { title: "COMPLETED", align: "right" },
      { title: "CANCELLED", align: "right" },
      ...(expired ? [{ title: "EXPIRED", align: "right" } as const] : []),
      { title: "OLDEST READY", align: "right" },
    ],
    found.map((each) => [
      each.paused ? `${each.queue} (paused)` : each.queue,
      number(each.ready),
      number(each.scheduled),
      ...(blocked ? [number(each.blocked)] : []),
      number(each.claimed),
      each.dead === 0 ? "·" : { text: count(each.dead), style: "red" },
      number(each.completed),
      number(each.cancelled),
      ...(expired ? [number(each.expired)] : []),
      each.oldestReadyMs === null ? "" : duration(each.oldestReadyMs),
    ]),
  );
}

const batches = command({
  args: "<queue-or-batch>",
  patient: isWatching,
  endsBySignal: true,
  summary: "List the batches of a queue, or show one",
  options: {
    state: {
      type: "text",
      choices: BATCH_STATES,
      describe: "Only those in this state",
    },
    key: { type: "text", value: "TEXT", describe: "Only those of this key" },
    limit: { type: "number", describe: "Most batches to list, up to 1,000", default: "100" },
    after: { type: "number", value: "SEQ", describe: "Go on behind this enqueueSeq" },
    ...WATCH,
  },
  details: "In the order in which they were added.",
  examples: [
    ["pawl batches mails", "Each with its state, its holder, its payloads and its last error"],
    ["pawl batches mails --state ready --key ada", "What waits for one customer"],
    ["pawl batches mails --json | jq -r '.batches[].batchId'", "Only the ids"],
  ],
  async run({ "queue-or-batch": which, state, key, limit, after, watch }, { connect, output }) {
    const client = await connect();
    const readOne = async () => {
      const { result, text } = await client.callForText("queue.get", { batchId: which });
      const payloads = textsAt(text, ["batch", "payloads", EACH]) as string[];
      return () =>
        output.result(result, () => batchText(result.batch, payloads, payloads.length, output), text);
    };
    // It may be moved to any queue.
    if (BATCH_ID.test(which)) return await showListed(readOne, ["queue:*"], { watch, client, output });
    const read = async () => {
      const { result: found, text } = await client.callForText("queue.list", {
        queue: which,
        ...(state === undefined ? {} : { state }),
        ...(key === undefined ? {} : { key }),
        ...(limit === undefined ? {} : { limit }),
        ...(after === undefined ? {} : { after }),
      });
      return () => {
        output.result(found, () => batchTexts(found.batches, text, output), text);
        if (found.batches.length === 0) output.note(`There is no such batch in ${printable(which)}.`);
        if (found.next !== undefined) output.note(`There are more: --after ${found.next} goes on with them.`);
      };
    };
    return await showListed(read, [`queue:${which}`], { watch, client, output });
  },
});

export const BATCH_ID = /^qwb:[0-9a-f]{64}$/;

/** @param text of the result that the batches came in. */
function batchTexts(found: readonly Batch[], text: string, output: Output): string[] {
  const texts = textsAt(text, ["batches", EACH]) as string[];
  return found.map((each, index) => {
    const payloads = textsAt(texts[index] as string, ["payloads", EACH]) as string[];
    return batchText(each, payloads, MAX_SHOWN_PAYLOADS, output);
  });
}

function batchText(batch: Batch, payloads: readonly string[], most: number, output: Output): string {
  const { batchId, state, priority, key, attempt, maxAttempts, availableAt, enqueuedAt, claim } = batch;
  const facts = [
    state,
    ...(claim === undefined ? [] : [`by ${printable(claim.owner)} for ${duration(claim.remainingMs)} more`]),
    ...(state === "scheduled" ? [`from ${when(availableAt)} on`] : []),
    ...(priority === 0 ? [] : [`priority ${priority}`]),
    ...(key === null ? [] : [`key ${printable(JSON.stringify(key))}`]),
    ...(attempt === 0
      ? []
      : [`${plural(attempt, "attempt")}${maxAttempts === 0 ? "" : ` of ${maxAttempts}`}`]),
    `enqueued ${when(enqueuedAt)}`,
  ];
  const error =
    batch.lastError === undefined ? "" : `  ${output.styled("red", printable(batch.lastError))}\n`;
  return `${output.styled("bold", batchId)}\n  ${facts.join(", ")}\n${error}${payloadLines(payloads, most)}`;
}

const dead = command({
  args: "<queue>",
  patient: isWatching,
  endsBySignal: true,
  summary: "List what has failed too often",
  options: {
    limit: { type: "number", describe: "Most batches to list, up to 1,000", default: "100" },
    ...WATCH,
  },
  details: "They have used up their attempts, and wait for `pawl retry`. They do not hold up the queue.",
  examples: [
    ["pawl dead mails", "Their ids, payloads and last errors"],
    ["pawl dead mails --json | jq -r '.batches[].batchId'", "Only the ids"],
  ],
  async run({ queue, limit, watch }, { connect, output }) {
    const client = await connect();
    const read = async () => {
      const { result: found, text } = await client.callForText("queue.list", {
        queue,
        state: "dead",
        ...(limit === undefined ? {} : { limit }),
      });
      return () => {
        output.result(found, () => deadTexts(found.batches, text, output), text);
        if (found.batches.length === 0) output.note(`Nothing in ${printable(queue)} is dead.`);
        if (found.next !== undefined) output.note("There are more; --limit lists more of them.");
      };
    };
    return await showListed(read, [`queue:${queue}`], { watch, client, output });
  },
});

/** @param text of the result that the batches came in. */
function deadTexts(batches: readonly Batch[], text: string, output: Output): string[] {
  const texts = textsAt(text, ["batches", EACH]) as string[];
  return batches.map((each, index) =>
    deadText(each, textsAt(texts[index] as string, ["payloads", EACH]) as string[], output),
  );
}

/** @param payloads their JSON texts. */
function deadText(
  { batchId, attempt, enqueuedAt, lastError }: Batch,
  payloads: readonly string[],
  output: Output,
): string {
  return `${output.styled("bold", batchId)}
  ${plural(attempt, "attempt")}, enqueued ${when(enqueuedAt)}
  ${output.styled("red", printable(lastError ?? "no error was given"))}
${payloadLines(payloads, MAX_SHOWN_PAYLOADS)}`;
}

/** @param payloads the JSON text of each. */
function payloadLines(payloads: readonly string[], most: number): string {
  const shown = payloads.slice(0, most).map((text) => {
    return `  ${printable(shorten(text))}${text.length > shorten(text).length ? ` (${bytes(text.length)})` : ""}\n`;
  });
  const more = payloads.length - shown.length;
  return `${shown.join("")}${more > 0 ? `  and ${plural(more, "more payload")}\n` : ""}`;
}

const retry = command({
  args: "<queue-or-batch>",
  summary: "Make dead batches ready again",
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
    const params = BATCH_ID.test(which) ? { batchId: which } : { queue: which };
    let retried = 0;
    for (let more = true; more; ) {
      const done: Result<"queue.retry"> = await client.queue.retry(params);
      retried += done.retried;
      more = done.more;
    }
    if (retried === 0 && !output.json) {
      output.note(
        (await isThere(which, client)) ? `Nothing in ${printable(which)} is dead.` : noQueue(which),
      );
      return undefined;
    }
    output.result(
      { retried, more: false },
      () => `${plural(retried, "batch is", "batches are")} ready again.`,
    );
    return undefined;
  },
});

/** Why the head of a queue can or cannot be claimed, for a person. */
export function sentencesOf(found: Result<"queue.explain">): string[] {
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
  if (reason === "resting" && availableAt !== undefined) {
    said.push(
      `Nothing in ${queue} can be claimed now: ${batchId} failed and rests, until ${when(availableAt)}.`,
    );
  }
  const limit = limitSentence(found);
  if (limit !== undefined) said.push(limit);
  if (deadBatches > 0) {
    const are = plural(deadBatches, "batch is", "batches are");
    said.push(`${are} dead; pawl dead ${queue} shows them, pawl retry ${queue} brings them back.`);
  }
  if (waiting !== null && waiting > 0)
    said.push(`${plural(waiting, "worker waits", "workers wait")} for it.`);
  return said;
}

/** What of its settings, its key or other batches keeps a batch from being claimed; undefined for nothing of these. */
function limitSentence(found: Result<"queue.explain">): string | undefined {
  const { queue, reason, batchId, until, pause, throttle, key, claims, most, behind, behindState } = found;
  const end = typeof until === "number" ? ` until ${when(until)}` : "";
  const because = (why: string | null | undefined): string => (why ? `: ${why}` : "");
  switch (reason) {
    case "paused": {
      const by = pause?.by.pid == null ? "" : ` by pid ${pause.by.pid}`;
      return `${queue} is paused${by}${end}${because(pause?.reason)}. pawl resume ${queue} goes on.`;
    }
    case "throttled":
      return `${queue} is throttled${end}${because(throttle?.reason)}.`;
    case "rate":
      return `${queue} has reached its rate, and goes on at ${when(until ?? 0)}.`;
    case "full":
      return `${queue} has ${claims} of ${most} claims that it may have at a time.`;
    case "key_full":
      return `${batchId} waits: its key ${JSON.stringify(key)} has ${claims} of ${most} claims.`;
    case "strict":
      return `${batchId} waits for ${behind} of its key ${JSON.stringify(key)}, which is ${behindState}.`;
    case "blocked": {
      const waitsFor = found.waitsFor ?? [];
      return `${batchId} waits for the end of ${waitsFor.length === 0 ? "another" : waitsFor.join(", ")}.`;
    }
    case "final":
      return `${batchId} has ended: it is ${found.state}.`;
    default:
      return undefined;
  }
}

/** What keeps batches of a queue from being claimed, within a sentence; undefined if nothing does. */
export function obstacleOf(found: Result<"queue.explain">): string | undefined {
  const { reason, until, availableAt, key, claims, most } = found;
  const end = typeof until === "number" ? ` until ${when(until)}` : "";
  switch (reason) {
    case "paused":
      return `it is paused${end}`;
    case "throttled":
      return `it is throttled${end}`;
    case "rate":
      return `its rate is used up${end}`;
    case "full":
      return `it has ${claims} of ${most} claims`;
    case "key_full":
      return `the key ${JSON.stringify(key)} has ${claims} of ${most} claims`;
    case "strict":
      return `the key ${JSON.stringify(key)} has one that is not finished`;
    case "resting":
      return `what failed rests until ${when(availableAt ?? 0)}`;
    case "scheduled":
      return `none can be claimed before ${when(availableAt ?? 0)}`;
    case "boundary":
      return "they are for claims at idle";
    default:
      return undefined;
  }
}

export const commands = { queues, batches, dead, retry };
