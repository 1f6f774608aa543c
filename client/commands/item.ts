import { PawlError } from "@pawl/protocol/errors";
import type { Params, Result } from "@pawl/protocol/types";
import { type Arguments, type Context, command, type Options, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { listOf } from "../terminal/values.js";

type Item = Result<"pipeline.list">["stages"][string][number];

/** Changes that `pawl item show` lists. */
const SHOWN_CHANGES = 10;

const CLEARABLE = ["name", "agent", "dependencies"] as const;

const ITEM_OPTIONS = {
  stage: { type: "text", value: "STAGE", describe: "Where it stands; needed when it is new" },
  name: { type: "text", value: "TEXT", describe: "What it is about" },
  agent: { type: "text", value: "NAME", describe: "Who works on it; information, not a lock" },
  retries: { type: "number", describe: "How often it was tried" },
  retry: { type: "flag", describe: "One try more; counts also when other nodes do the same" },
  block: { type: "flag", describe: "It cannot go on" },
  unblock: { type: "flag", describe: "It can" },
  "depends-on": { type: "text", value: "IDS", describe: "All that it depends on, with commas" },
  "add-dependency": { type: "text", value: "IDS", describe: "What it depends on as well" },
  "remove-dependency": { type: "text", value: "IDS", describe: "What it no longer depends on" },
  rank: {
    type: "text",
    value: "KEY",
    describe: "Its place in the stage: a fractional index key",
    default: "last",
  },
  clear: {
    type: "text",
    value: "FIELDS",
    describe: `What to take away, with commas: ${CLEARABLE.join(", ")}`,
  },
} as const satisfies Options;

type ItemArguments = Arguments<"<set|show|rm> <story>", typeof ITEM_OPTIONS>;

const item = command({
  args: "<set|show|rm> <story>",
  summary: "Make, change, show or delete an item",
  options: ITEM_OPTIONS,
  details:
    "set makes an item or changes what is given of it and nothing else; show prints it and what was done to it last; rm deletes it, also where other nodes write to it meanwhile. The options are those of set.",
  examples: [
    ['pawl item set FR-001 --stage 1_backlog --name "Sign in with a key"', "A new item"],
    ["pawl item set FR-001 --stage 2_current --agent coder-1", "It moves on"],
    ["pawl item set FR-001 --retry --block", "Tried in vain"],
    ["pawl item show FR-001", "How it stands, and its history"],
    ["pawl item rm FR-001", "It goes"],
  ],
  async run(args, context) {
    const { "set|show|rm": action, story: storyId } = args;
    switch (action) {
      case "set":
        return await set(storyId, args, context);
      case "show":
        checkNone(args);
        return await showItem(storyId, context);
      case "rm":
        checkNone(args);
        return await remove(storyId, context);
      default:
        throw new UsageError(`What to do is set, show or rm, not ${JSON.stringify(action)}.`);
    }
  },
});

function checkNone(args: ItemArguments): void {
  const given = Object.keys(ITEM_OPTIONS).find((name) => args[name as keyof typeof ITEM_OPTIONS]);
  if (given !== undefined) throw new UsageError(`--${given} belongs to \`pawl item set\`.`);
}

async function set(storyId: string, args: ItemArguments, { connect, output }: Context): Promise<undefined> {
  const fields = fieldsOf(args);
  if (Object.keys(fields).length === 0) throw new UsageError("Say what to set: --stage, --name, --agent...");
  const written = await (await connect()).pipeline.write({ storyId, ...fields });
  output.result(written, () => describe(written.item, output));
  return undefined;
}

function fieldsOf(args: ItemArguments): Omit<Params<"pipeline.write">, "storyId"> {
  const { stage, name, agent, retries, retry, block, unblock, rank } = args;
  const cleared = listOf("clear", args.clear);
  for (const field of cleared) {
    if (!(CLEARABLE as readonly string[]).includes(field)) {
      throw new UsageError(`--clear takes ${CLEARABLE.join(", ")}, not ${JSON.stringify(field)}.`);
    }
  }
  const [whole, add, removed] = [
    listOf("depends-on", args["depends-on"]),
    listOf("add-dependency", args["add-dependency"]),
    listOf("remove-dependency", args["remove-dependency"]),
  ];
  const clears = (field: (typeof CLEARABLE)[number]): boolean => cleared.includes(field);
  const several: [boolean, string][] = [
    [name !== undefined && clears("name"), "--name and --clear name"],
    [agent !== undefined && clears("agent"), "--agent and --clear agent"],
    [block && unblock, "--block and --unblock"],
    [retry && retries !== undefined, "--retry and --retries"],
    [
      [whole.length > 0, add.length + removed.length > 0, clears("dependencies")].filter(Boolean).length > 1,
      "More than one of --depends-on, --add-dependency with --remove-dependency, and --clear dependencies",
    ],
  ];
  const conflict = several.find(([isGiven]) => isGiven);
  if (conflict !== undefined) throw new UsageError(`${conflict[1]} cannot go together.`);
  return {
    ...(stage === undefined ? {} : { stage }),
    ...(name === undefined ? {} : { name }),
    ...(clears("name") ? { name: null } : {}),
    ...(agent === undefined ? {} : { agent }),
    ...(clears("agent") ? { agent: null } : {}),
    ...(retries === undefined ? {} : { retryCount: retries }),
    ...(retry ? { retryCountDelta: 1 } : {}),
    ...(block || unblock ? { blocked: block } : {}),
    ...(whole.length > 0 ? { dependsOn: whole } : {}),
    ...(clears("dependencies") ? { dependsOn: [] } : {}),
    ...(add.length + removed.length > 0 ? { dependsOn: { add, remove: removed } } : {}),
    ...(rank === undefined ? {} : { rank }),
  };
}

async function showItem(storyId: string, { connect, output }: Context): Promise<undefined> {
  const client = await connect();
  const [found, history] = await Promise.all([
    client.pipeline.read({ storyId }),
    client.pipeline.history({ storyId, limit: SHOWN_CHANGES }),
  ]);
  if (found.item === null && history.changes.length === 0) throw noItem(storyId);
  output.result({ ...found, ...history }, function* () {
    if (found.item === null) yield `${storyId} was deleted.`;
    else yield describe(found.item, output);
    if (found.missing !== undefined) {
      yield output.styled("yellow", `  It depends on what does not exist: ${found.missing.join(", ")}`);
    }
    if (found.cycle !== undefined) {
      yield output.styled("red", `  It depends on itself: ${[storyId, ...found.cycle, storyId].join(" → ")}`);
    }
    yield "\n";
    for (const change of history.changes) yield lineOf(change, output);
    if (history.next !== undefined) yield output.styled("dim", "  and more before that");
  });
  return undefined;
}

async function remove(storyId: string, { connect, output }: Context): Promise<undefined> {
  const done = await (await connect()).pipeline.delete({ storyId });
  if (!done.deleted) throw noItem(storyId);
  output.result(done, () => `${storyId} is deleted.`);
  return undefined;
}

function noItem(storyId: string): PawlError {
  return new PawlError("not_found", `There is no item ${JSON.stringify(storyId)}. See pawl board.`, {
    what: "item",
  });
}

function describe(item: Item, output: Output): string {
  const { storyId, stage, name, agent, retryCount, blocked, dependsOn, rank, updatedAt, claim } = item;
  const rows: [string, string | null][] = [
    ["Stage", `${stage}, rank ${rank}`],
    ["Agent", agent],
    ["Retries", retryCount === 0 ? null : String(retryCount)],
    ["Blocked", blocked ? "yes" : null],
    ["After", dependsOn.length === 0 ? null : dependsOn.join(", ")],
    ["Claim", claim === undefined ? null : `${claim.agent}${claim.pid === null ? "" : `, pid ${claim.pid}`}`],
    ["Ready", item.ready ? "yes" : null],
    ["Updated", when(updatedAt)],
  ];
  const head = name === null ? storyId : `${storyId}  ${printable(name)}`;
  const lines = rows.flatMap(([title, text]) =>
    text === null ? [] : [`  ${title.padEnd(7)}  ${printable(text)}\n`],
  );
  return `${output.styled("bold", head)}\n${lines.join("")}`;
}

type Change = Result<"pipeline.history">["changes"][number];

function lineOf({ at, name, set: fields, delta, deleted }: Change, output: Output): string {
  const parts = [
    ...(deleted ? ["deleted"] : []),
    ...Object.entries(fields).map(([field, value]) => `${field} ${JSON.stringify(value)}`),
    ...Object.entries(delta).map(([field, by]) => `${field} ${by < 0 ? by : `+${by}`}`),
  ];
  const who = name === null ? "" : ` ${output.styled("cyan", printable(name))}`;
  return `  ${output.styled("dim", when(at))}${who}  ${printable(parts.join(", "))}`;
}

export const commands = { item };
