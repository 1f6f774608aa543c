// Commands of those who look after queues: pause and resume them, and take batches away.
import type { Result } from "@pawl/protocol/types";
import { MOVED_STATES, PURGED_STATES } from "@pawl/protocol/values";
import { command, UsageError } from "../terminal/command.js";
import { plural, when, zoneAt } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { pointInTime } from "../terminal/values.js";

const BATCH_ID = /^qwb:[0-9a-f]{64}$/;
/** What was to be cancelled stays as it is. */
const EXIT_LEFT = 1;

type PurgedState = (typeof PURGED_STATES)[number];
type MovedState = (typeof MOVED_STATES)[number];

const pause = command({
  args: "<queue>",
  summary: "Have nothing claimed from a queue for a while",
  options: {
    reason: { type: "text", value: "TEXT", describe: "Why, for others to see" },
    for: { type: "duration", describe: "For how long", default: "until pawl resume" },
    until: {
      type: "text",
      value: "TIME",
      describe: "Until 2026-12-25, 2026-12-25T18:00 or 2026-12-25T18:00:00Z",
    },
  },
  details: "What is claimed goes on. Work that is enqueued meanwhile waits.",
  examples: [
    [`pawl pause mails --reason "the mail server is being moved"`, "Until pawl resume mails"],
    ["pawl pause builds --for 30m", "For half an hour"],
  ],
  async run({ queue, reason, for: ms, until }, { connect, output }) {
    if (ms !== undefined && until !== undefined) {
      throw new UsageError("--for and --until both say when it ends. Leave one of them out.");
    }
    const named = until === undefined ? undefined : pointInTime("--until", until);
    const client = await connect();
    const end = ms === undefined ? named : (await client.daemon.ping({})).now + ms;
    const { settings } = await client.queue.configure({
      queue,
      paused: true,
      pausedUntilAt: end ?? null,
      reason: reason ?? null,
    });
    const untilAt = settings.pausedUntilAt;
    const time = untilAt === null ? "" : ` until ${when(untilAt)}, ${zoneAt(untilAt)}`;
    output.result({ settings }, () => `${printable(queue)} is paused${time}.`);
    return undefined;
  },
});

const resume = command({
  args: "<queue>",
  summary: "Have a paused or throttled queue claimed from again",
  options: {},
  examples: [["pawl resume mails", "Workers that wait for it go on at once"]],
  async run({ queue }, { connect, output }) {
    const client = await connect();
    await client.queue.throttle({ queue, untilAt: null });
    const { settings } = await client.queue.configure({ queue, paused: false });
    output.result({ settings }, () => `${printable(queue)} is not paused.`);
    return undefined;
  },
});

const purge = command({
  args: "<queue-or-batch> [state..]",
  summary: "Remove batches for good",
  options: {
    "older-than": { type: "duration", describe: "Only what ended, or else was enqueued, so long ago" },
    "dry-run": { type: "flag", describe: "Only say how many there are" },
  },
  details:
    "Each STATE is ready, scheduled, blocked, completed, dead, cancelled or expired. What is claimed stays, and what other batches wait for.",
  examples: [
    ["pawl purge mails dead --older-than 7d --dry-run", "How many would go"],
    ["pawl purge mails dead cancelled", "All of these states"],
  ],
  async run({ "queue-or-batch": which, state: states, ...options }, { connect, output }) {
    const dryRun = options["dry-run"];
    const olderThanMs = options["older-than"];
    const isBatch = BATCH_ID.test(which);
    const wrong = states.find((state) => !PURGED_STATES.includes(state as PurgedState));
    if (wrong !== undefined) {
      throw new UsageError(`${JSON.stringify(wrong)} is no state to purge: ${PURGED_STATES.join(", ")}.`);
    }
    if (!isBatch && states.length === 0) {
      throw new UsageError("Say which batches of the queue are to go, such as: pawl purge mails dead");
    }
    const what = isBatch ? { batchIds: [which] } : { queue: which, states: states as PurgedState[] };
    const client = await connect();
    let purged = 0;
    for (let more = true; more; ) {
      const done: Result<"queue.purge"> = await client.queue.purge({
        ...what,
        dryRun,
        ...(olderThanMs === undefined ? {} : { olderThanMs }),
      });
      purged += done.purged;
      more = done.more && !dryRun;
    }
    const would = dryRun ? "would be " : "";
    output.result({ purged, more: false }, () => `${plural(purged, "batch", "batches")} ${would}removed.`);
    return undefined;
  },
});

const move = command({
  args: "<queue-or-batch> <to>",
  summary: "Move batches to another queue",
  options: {
    state: {
      type: "text",
      choices: MOVED_STATES,
      describe: "Which batches of a queue",
    },
  },
  details:
    "Each keeps its id and its place in the order. What is claimed or completed stays, and so does a batch whose source key is in use there.",
  examples: [
    ["pawl move mails mails-later --state ready", "All that wait to be claimed"],
    ["pawl move mails failed --state dead", "What failed too often, for somebody to look at"],
  ],
  async run({ "queue-or-batch": which, to, state }, { connect, output }) {
    const isBatch = BATCH_ID.test(which);
    if (!isBatch && state === undefined) {
      throw new UsageError("Say which batches of the queue are to move: give --state, such as --state dead.");
    }
    const what = isBatch ? { batchIds: [which] } : { queue: which, state: state as MovedState };
    const client = await connect();
    let moved = 0;
    let kept = 0;
    for (let more = true; more; ) {
      const done: Result<"queue.move"> = await client.queue.move({ ...what, to });
      moved += done.moved;
      kept = done.kept;
      more = done.more;
    }
    output.result(
      { moved, kept, more: false },
      () => `${plural(moved, "batch", "batches")} moved to ${printable(to)}.`,
    );
    if (kept > 0)
      output.note(
        `${plural(kept, "batch stays", "batches stay")} where ${kept === 1 ? "it is" : "they are"}.`,
      );
    return undefined;
  },
});

const cancel = command({
  args: "<queue-or-batch>",
  summary: "Take work back, also from whoever works on it",
  options: {
    "source-key": { type: "text", value: "KEY", describe: "Which batch of a queue" },
    stop: { type: "flag", describe: "Stop the work on what is claimed; otherwise it is left alone" },
    grace: { type: "duration", describe: "With --stop: how long its worker has to end", default: "30s" },
    reason: { type: "text", value: "TEXT", describe: "Why, for its worker and for who looks at it" },
  },
  details:
    "Exits with 0 for what is cancelled, or is to be when its worker ends; with 1 for what stays as it is. A worker that completes before the grace is over has completed.",
  examples: [
    [
      "pawl cancel qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
      "A batch, by its id",
    ],
    ["pawl cancel reports --source-key 2026-W47", "A batch, by the key that it was enqueued with"],
    [
      `pawl cancel reports --source-key 2026-W47 --stop --grace 10s --reason "wrong week"`,
      "Also if somebody works on it",
    ],
  ],
  async run(args, { connect, output }) {
    const { "queue-or-batch": which, "source-key": sourceKey, stop, grace, reason } = args;
    const isBatch = BATCH_ID.test(which);
    if (isBatch === (sourceKey !== undefined)) {
      throw new UsageError("Give the id of a batch, or a queue with --source-key.");
    }
    if (grace !== undefined && !stop) throw new UsageError("--grace is for --stop; give both.");
    const client = await connect();
    const { outcome } = await client.queue.cancel({
      ...(sourceKey === undefined ? { batchId: which } : { queue: which, sourceKey }),
      ...(stop ? { stop } : {}),
      ...(grace === undefined ? {} : { graceMs: grace }),
      ...(reason === undefined ? {} : { reason }),
    });
    const isTakenBack = ["cancelled", "cancelling", "already_cancelled"].includes(outcome);
    const sentence = `${outcome.replace("_", " ")}.`.replace(/^./, (first) => first.toUpperCase());
    output.result({ outcome }, () => (isTakenBack ? sentence : ""));
    if (isTakenBack) return undefined;
    output.note(sentence);
    return EXIT_LEFT;
  },
});

export const commands = { pause, resume, purge, move, cancel };
