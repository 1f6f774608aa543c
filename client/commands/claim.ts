import { EACH, textsAt } from "@pawl/protocol/json-text";
import type { Params, Result } from "@pawl/protocol/types";
import { BOUNDARIES, CLAIM_ORDERS, type ClaimOrder } from "@pawl/protocol/values";
import { JsonText } from "../connection/json-text.js";
import { command, UsageError } from "../terminal/command.js";
import { duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { checkedJson } from "../terminal/values.js";

/** There was nothing to claim: no failure, but for a script not the same as something. */
const EXIT_NOTHING = 1;

/** The option of the commands that make or renew a claim. */
const lease = {
  type: "duration",
  describe: "How long the claim lasts unless it is renewed",
} as const;
const boundary = {
  type: "text",
  choices: BOUNDARIES,
  describe: "At active_turn_checkpoint, nothing that was enqueued with --after-commit",
  default: "idle",
} as const;

/** The option of the commands that take from several queues. */
export const order = {
  type: "text",
  choices: CLAIM_ORDERS,
  describe: "Of several queues: in the order given, or by priority and age over all",
  default: "listed",
} as const;

/** The params that say what is wanted, by the words of a command line: `build/*` is all queues that begin so. */
function wantedOf(
  names: readonly string[],
  order: ClaimOrder | undefined,
): Pick<Params<"queue.claim">, "queue" | "queues" | "order" | "batchIds"> {
  const ids = names.filter((each) => BATCH_ID.test(each));
  if (ids.length === names.length) return { batchIds: ids };
  if (ids.length > 0) throw new UsageError("A claim is of queues or of batches: name one kind of them.");
  const queue = onlyQueueOf(names);
  if (queue !== undefined) return { queue };
  return { queues: [...names], ...(order === undefined ? {} : { order }) };
}

const BATCH_ID = /^qwb:[0-9a-f]{64}$/;

/** The one queue that is named; undefined for several, or a prefix. */
export function onlyQueueOf(names: readonly string[]): string | undefined {
  return names.length === 1 && !isPrefix(names[0] as string) ? names[0] : undefined;
}

function isPrefix(name: string): boolean {
  return name.endsWith("/*");
}

const claim = command({
  args: "<queue-or-batch..>",
  endsBySignal: true,
  summary: "Take the next batch, for a script of your own",
  options: {
    order,
    wait: { type: "duration", describe: "How long to wait for something to claim", default: "not at all" },
    lease: { ...lease, default: "30s" },
    "max-batches": { type: "number", describe: "How many that join are claimed together", default: "1" },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who claims, for others to see",
      default: "$USER, else the uid, and :pawl claim",
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
    ["pawl claim urgent 'build/*'", "From urgent, and if that is empty from any queue below build/"],
    [
      "pawl claim qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
      "This batch, if nobody has it",
    ],
  ],
  async run(args, { connect, output, env }) {
    const client = await connect();
    const names = args["queue-or-batch"];
    const { result: found, text } = await client.callForText("queue.claim", {
      ...wantedOf(names, args.order),
      owner: args.owner ?? `${env.USER ?? process.getuid?.() ?? "somebody"}:pawl claim`,
      waitMs: args.wait ?? 0,
      ...(args.lease === undefined ? {} : { leaseMs: args.lease }),
      ...(args["max-batches"] === undefined ? {} : { maxBatches: args["max-batches"] }),
      ...(args.boundary === undefined ? {} : { boundary: args.boundary }),
    });
    output.result(found, () => (found.claim === null ? "" : claimText(found.claim, text)), text);
    if (found.claim !== null) return undefined;
    const shown = names.map(printable).join(", ");
    const more = names.length === 1 && !isPrefix(names[0] as string) ? ` pawl why ${shown} says more.` : "";
    output.note(
      args.wait === undefined
        ? `There is nothing to claim in ${shown}.${more}`
        : `There was nothing to claim in ${shown} within ${duration(args.wait)}.${more}`,
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

const renew = command({
  args: "<claim> <token>",
  summary: "Hold a claim for longer",
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

const complete = command({
  args: "<claim> <token>",
  summary: "Say that the work of a claim is done",
  options: {
    result: { type: "text", value: "JSON", describe: "What came of it, kept with its batches as it is" },
  },
  details: "To do it twice is no mistake.",
  examples: [
    ["pawl complete qwc:17:4 TOKEN", "CLAIM and TOKEN as pawl claim printed them"],
    [`pawl complete qwc:17:4 TOKEN --result '{"bytes": 48211}'`, "With what came of it"],
  ],
  async run({ claim: claimId, token: leaseToken, result }, { connect, output }) {
    const done = await (await connect()).queue.complete({
      claimId,
      leaseToken,
      ...(result === undefined ? {} : { result: new JsonText(checkedJson("--result", result)) }),
    });
    output.result(done, () => `${plural(done.completed, "batch", "batches")} completed.`);
    return undefined;
  },
});

const abandon = command({
  args: "<claim> <token>",
  summary: "Give the work of a claim back",
  options: {
    error: {
      type: "text",
      value: "TEXT",
      describe: "Why it failed; this delivery then counts as an attempt",
    },
    delay: { type: "duration", describe: "Not to be claimed again before so long from now" },
    dead: { type: "flag", describe: "No further attempt is of use" },
  },
  examples: [
    ["pawl abandon qwc:17:4 TOKEN", "Somebody else may have it; no attempt is counted"],
    [
      `pawl abandon qwc:17:4 TOKEN --error "no disk" --delay 5m`,
      "It failed; to be tried again in five minutes",
    ],
    [`pawl abandon qwc:17:4 TOKEN --dead --error "no such address"`, "It cannot be done"],
  ],
  async run({ claim: claimId, token: leaseToken, error, delay, dead }, { connect, output }) {
    if (dead && delay !== undefined) {
      throw new UsageError("--delay is about another attempt, and --dead says that there is none.");
    }
    const done = await (await connect()).queue.abandon({
      claimId,
      leaseToken,
      ...(error === undefined ? {} : { error }),
      ...(delay === undefined ? {} : { delayMs: delay }),
      ...(dead ? { dead } : {}),
    });
    output.result(done, () =>
      [
        `${plural(done.released, "batch", "batches")} given back.`,
        ...(done.dead === 0
          ? []
          : [`${plural(done.dead, "batch", "batches")} dead${dead ? "" : ": no attempts are left"}.`]),
      ].join("\n"),
    );
    return undefined;
  },
});

export const commands = { claim, renew, complete, abandon };
