// Work that is enqueued at times.
import type { Readable } from "node:stream";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import type { Params } from "@pawl/protocol/types";
import { MISSED, type Missed, OVERLAPS, type Overlap } from "@pawl/protocol/values";
import type { PawlClient } from "../connect.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration, when, zoneAt } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { pointInTime } from "../terminal/values.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import type { Schedule } from "../work/schedules.js";
import { payloadsOf, priorityOf } from "./enqueue.js";

const ACTIONS = ["set", "list", "get", "rm", "delete", "run", "next"] as const;
/** The time zone of this machine. */
const LOCAL = "local";
const DEFAULT_COUNT = 5;
/** There was no schedule to delete. */
const EXIT_NOTHING = 1;

const schedule = command({
  args: "<set|list|get|rm|delete|run|next> [schedule] [queue] [payload..]",
  patient: isWatching,
  endsBySignal: true,
  summary: "Have work enqueued at times",
  options: {
    cron: {
      type: "text",
      value: "CRON",
      describe: "Minute, hour, day, month, day of the week, perhaps a second before; or @daily and the like",
    },
    every: { type: "duration", describe: "Every so often instead, first after so long" },
    "time-zone": {
      type: "text",
      value: "ZONE",
      describe: "By whose clock CRON is meant, such as Europe/Berlin; local for that of this machine",
      default: "UTC",
    },
    priority: { type: "text", value: "NUMBER", describe: "From -100 to 100, higher first", default: "0" },
    key: { type: "text", value: "TEXT", describe: "What it is about, for limits by key" },
    "max-attempts": {
      type: "number",
      describe: "Deliveries before a batch is dead, 0 for no limit",
      default: "of the queue, else 20",
    },
    overlap: {
      type: "text",
      choices: OVERLAPS,
      describe: "While the last one is unfinished: enqueue nothing, have at most one wait, or all",
      default: "one",
    },
    missed: {
      type: "text",
      choices: MISSED,
      describe: "What is made up for after a time without a daemon",
      default: "last",
    },
    "missed-window": { type: "duration", describe: "Nothing older is made up for", default: "1d" },
    end: {
      type: "text",
      value: "TIME",
      describe: "None from 2026-12-25, 2026-12-25T18:00 or 2026-12-25T18:00:00Z on",
    },
    disabled: { type: "flag", describe: "Keep it for later" },
    ...WATCH,
    count: {
      type: "number",
      short: "n",
      describe: "How many times next prints",
      default: String(DEFAULT_COUNT),
    },
  },
  details:
    "set takes the name of the schedule, the queue, and the payloads as enqueue does. The same again changes nothing; a change counts from now. run enqueues a batch now, besides. next prints when a schedule comes, or would by --cron. rm and delete are one; what was enqueued stays.",
  examples: [
    [
      `pawl schedule set nightly reports '"sales"' --cron '30 2 * * *' --time-zone Europe/Berlin`,
      "Every night, once, however often the daemon is restarted",
    ],
    ["pawl schedule set poll feeds '{}' --every 5m --overlap skip", "Every five minutes, unless one is left"],
    ["pawl schedule next --cron '0 9 * * MON-FRI' --time-zone local -n 3", "When that would be"],
    ["pawl schedule list", "All of them, and when they come next"],
    ["pawl schedule run nightly", "A batch of it now; prints its id"],
  ],
  async run(args, { connect, output, stdin }) {
    const { "set|list|get|rm|delete|run|next": given, schedule: name } = args;
    const action = ACTIONS.find((each) => each === given);
    if (action === undefined) {
      throw new UsageError(`What to do is one of ${ACTIONS.join(", ")}, not ${JSON.stringify(given)}.`);
    }
    if (args.watch && action !== "list") throw new UsageError("--watch belongs to `pawl schedule list`.");
    if (action !== "set" && args.queue !== undefined) {
      throw new UsageError(`${action} takes no ${JSON.stringify(args.queue)}. Only set takes a queue.`);
    }
    if (action === "set") return await set(await definitionOf(args, stdin), await connect(), output);
    if (action === "list") {
      const client = await connect();
      return await showListed(() => list(client, output), ["schedule:*"], {
        watch: args.watch,
        client,
        output,
      });
    }
    if (action === "next" && name === undefined) return await next(wouldBe(args), await connect(), output);
    if (name === undefined)
      throw new UsageError(`Say which schedule, such as: pawl schedule ${action} nightly`);
    const client = await connect();
    if (action === "next") {
      if (args.cron !== undefined)
        throw new UsageError("next takes the name of a schedule or --cron, not both.");
      return await next({ name, count: args.count ?? DEFAULT_COUNT }, client, output);
    }
    if (action === "get") {
      const { result, text } = await client.callForText("schedule.get", { name });
      output.result(result, () => sentences(result.schedule, text).map(printable), text);
      return undefined;
    }
    if (action === "run") {
      const { result, text } = await client.callForText("schedule.run", { name });
      output.result(result, () => result.batch.batchId, text);
      return undefined;
    }
    const deleted = await client.schedules.delete(name);
    output.result({ deleted }, () => (deleted ? printable(`${name} is deleted.`) : ""));
    if (deleted) return undefined;
    output.note(printable(`There was no schedule ${name}.`));
    return EXIT_NOTHING;
  },
});

interface Given {
  readonly schedule?: string;
  readonly queue?: string;
  readonly payload: readonly string[];
  readonly cron: string | undefined;
  readonly every: number | undefined;
  readonly "time-zone": string | undefined;
  readonly priority: string | undefined;
  readonly key: string | undefined;
  readonly "max-attempts": number | undefined;
  readonly overlap: Overlap | undefined;
  readonly missed: Missed | undefined;
  readonly "missed-window": number | undefined;
  readonly end: string | undefined;
  readonly disabled: boolean;
  readonly count: number | undefined;
}

async function definitionOf(args: Given, stdin: Readable): Promise<Params<"schedule.set">> {
  const { schedule: name, queue, cron, every, overlap, missed, key } = args;
  if (name === undefined || queue === undefined) {
    throw new UsageError(
      "set takes a name, a queue and payloads: pawl schedule set NAME QUEUE JSON --cron CRON",
    );
  }
  if ((cron === undefined) === (every === undefined)) {
    throw new UsageError("Say when it comes, by either --cron '30 2 * * *' or --every 5m.");
  }
  const [maxAttempts, missedWindowMs] = [args["max-attempts"], args["missed-window"]];
  return {
    name,
    queue,
    payloads: await payloadsOf(args.payload, stdin),
    ...(cron === undefined ? {} : { cron }),
    ...(every === undefined ? {} : { everyMs: every }),
    ...timeZoneOf(args),
    ...(args.priority === undefined ? {} : { priority: priorityOf(args.priority) }),
    ...(key === undefined ? {} : { key }),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...(overlap === undefined ? {} : { overlap }),
    ...(missed === undefined ? {} : { missed }),
    ...(missedWindowMs === undefined ? {} : { missedWindowMs }),
    ...(args.end === undefined ? {} : { endAt: pointInTime("--end", args.end) }),
    enabled: !args.disabled,
  };
}

function timeZoneOf({ "time-zone": zone }: Given): { timeZone?: string } {
  if (zone === undefined) return {};
  return { timeZone: zone === LOCAL ? new Intl.DateTimeFormat().resolvedOptions().timeZone : zone };
}

function wouldBe(args: Given): Params<"schedule.next"> {
  if (args.cron === undefined) {
    throw new UsageError("next takes the name of a schedule, or --cron with an expression.");
  }
  return { cron: args.cron, ...timeZoneOf(args), count: args.count ?? DEFAULT_COUNT };
}

async function set(params: Params<"schedule.set">, client: PawlClient, output: Output): Promise<undefined> {
  const { result, text } = await client.callForText("schedule.set", params);
  output.result(result, () => sentences(result.schedule, text).slice(-1).map(printable), text);
}

async function next(params: Params<"schedule.next">, client: PawlClient, output: Output): Promise<undefined> {
  const times = await client.schedules.next(params);
  const [first] = times;
  if (first === undefined) output.note("It does not come.");
  else output.note(`In ${zoneAt(first)}:`);
  output.result({ times }, () => times.map(when));
}

async function list(client: PawlClient, output: Output): Promise<() => void> {
  const schedules: Schedule[] = [];
  const texts: string[] = [];
  for (let after: string | undefined; ; ) {
    const { result, text } = await client.callForText("schedule.list", {
      limit: 1000,
      ...(after === undefined ? {} : { after }),
    });
    schedules.push(...result.schedules);
    texts.push(...(textsAt(text, ["schedules", EACH]) as string[]));
    if (result.next === undefined) break;
    after = result.next;
  }
  const print = (): string => {
    if (schedules.length === 0) {
      output.note("There are no schedules.");
      return "";
    }
    return output.table(
      [
        { title: "NAME", flexible: true },
        { title: "WHEN", flexible: true },
        { title: "QUEUE", flexible: true },
        { title: "NEXT" },
        { title: "LAST" },
      ],
      schedules.map((each) => [
        each.name,
        rhythm(each),
        each.queue,
        each.nextAt === null ? (each.enabled ? "ended" : "disabled") : when(each.nextAt),
        each.lastAt === null ? "" : when(each.lastAt),
      ]),
    );
  };
  return () => output.result({ schedules }, print, `{"schedules":[${texts.join(",")}]}`);
}

function rhythm({ cron, everyMs, timeZone }: Schedule): string {
  return cron === null ? `every ${duration(everyMs as number)}` : `${cron} ${timeZone}`;
}

const OVERLAP_SENTENCES: Readonly<Record<Overlap, string>> = {
  skip: "While the last one is unfinished, nothing is enqueued.",
  one: "While the last one is unfinished, at most one waits.",
  all: "Each is enqueued, whether or not the last one is finished.",
};

const MISSED_SENTENCES: Readonly<Record<Missed, string>> = {
  none: "What is missed without a daemon is not made up for.",
  last: "The last one that is missed without a daemon is made up for",
  all: "All that are missed without a daemon are made up for",
};

/**
 * A schedule for a person; the last sentence says when it comes next.
 *
 * @param text the answer that it stands in.
 */
function sentences(each: Schedule, text: string): string[] {
  const { name, queue, overlap, missed, missedWindowMs, endAt, lastAt, lastBatchId, nextAt } = each;
  const window = missed === "none" ? "" : `, if it is not longer ago than ${duration(missedWindowMs)}.`;
  const said = [
    `${name} enqueues ${textsAt(text, ["schedule", "payloads"])[0]} in ${queue}: ${rhythm(each)}.`,
    OVERLAP_SENTENCES[overlap],
    `${MISSED_SENTENCES[missed]}${window}`,
  ];
  if (endAt !== null) said.push(`It ends ${when(endAt)}.`);
  if (lastAt !== null) said.push(`It came last ${when(lastAt)}: ${lastBatchId}.`);
  if (nextAt !== null) said.push(`${name} comes next ${when(nextAt)}, ${zoneAt(nextAt)}.`);
  else said.push(each.enabled ? `${name} has ended.` : `${name} is disabled.`);
  return said;
}

export const commands = { schedule };
