import { PawlError } from "@pawl/protocol/errors";
import type { Params, Result } from "@pawl/protocol/types";
import { type Arguments, type Context, command, type Options, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { plural, when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { listOf } from "../terminal/values.js";

type Item = Result<"pipeline.list">["stages"][string][number];

/** Changes that `pawl item show` lists. */
const SHOWN_CHANGES = 10;
/** Notes that it prints, the last ones. */
const SHOWN_NOTES = 10;

const CLEARABLE = ["name", "agent", "dependencies", "labels", "description", "priority"] as const;

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
  labels: { type: "text", value: "LABELS", describe: "All its labels, with commas" },
  "add-label": { type: "text", value: "LABELS", describe: "Labels that it has as well" },
  "remove-label": { type: "text", value: "LABELS", describe: "Labels that it no longer has" },
  description: { type: "text", value: "TEXT", describe: "The field description: all that is to be said" },
  priority: { type: "number", describe: "The field priority, 0 to 4: of what is ready, 0 comes first" },
  fields: {
    type: "text",
    value: "JSON",
    describe: "Fields of your own, as an object; null takes one away",
  },
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

const ARGS = "<set|note|show|rm> <item> [text..]";

type ItemArguments = Arguments<typeof ARGS, typeof ITEM_OPTIONS>;

const item = command({
  args: ARGS,
  summary: "Make, change, show or delete an item",
  options: ITEM_OPTIONS,
  details:
    "set makes an item or changes what is given of it and nothing else; note adds a text to it, for good, in the name of --agent, or else of the agent of the item; show prints it, its last notes and what was done to it last; rm deletes it, also where other nodes write to it meanwhile. The other options are those of set.",
  examples: [
    ['pawl item set FR-001 --stage 1_backlog --name "Sign in with a key"', "A new item"],
    ["pawl item set FR-001 --stage 2_current --agent coder-1", "It moves on"],
    ["pawl item set FR-001 --retry --block", "Tried in vain"],
    [
      "pawl item set FR-001 --priority 1 --add-label web --fields '{\"estimate\": 3}'",
      "What else is known of it",
    ],
    [
      'pawl item note FR-001 "The cookie has to be Secure." --agent ana',
      "Something that is to be remembered",
    ],
    ["pawl item show FR-001", "How it stands, and its history"],
    ["pawl item rm FR-001", "It goes"],
  ],
  async run(args, context) {
    const { "set|note|show|rm": action, item: storyId } = args;
    if (action !== "note" && args.text.length > 0) {
      throw new UsageError(`${JSON.stringify(args.text[0])} is one argument too many.`);
    }
    switch (action) {
      case "set":
        return await set(storyId, args, context);
      case "note":
        checkNone(args, "agent");
        return await addNote(storyId, args, context);
      case "show":
        checkNone(args);
        return await showItem(storyId, context);
      case "rm":
        checkNone(args);
        return await remove(storyId, context);
      default:
        throw new UsageError(`What to do is set, note, show or rm, not ${JSON.stringify(action)}.`);
    }
  },
});

function checkNone(args: ItemArguments, except?: keyof typeof ITEM_OPTIONS): void {
  const names = Object.keys(ITEM_OPTIONS) as (keyof typeof ITEM_OPTIONS)[];
  const given = names.find((name) => name !== except && args[name] !== undefined && args[name] !== false);
  if (given !== undefined) throw new UsageError(`--${given} belongs to \`pawl item set\`.`);
}

async function set(storyId: string, args: ItemArguments, { connect, output }: Context): Promise<undefined> {
  const fields = fieldsOf(args);
  if (Object.keys(fields).length === 0) throw new UsageError("Say what to set: --stage, --name, --agent...");
  const written = await (await connect()).pipeline.write({ storyId, ...fields });
  output.result(written, () => describe(written.item, output));
  return undefined;
}

async function addNote(
  storyId: string,
  { text: words, agent }: ItemArguments,
  { connect, output }: Context,
): Promise<undefined> {
  const text = words.join(" ");
  if (text === "") throw new UsageError(`Say what to note: pawl item note ${storyId} TEXT.`);
  const note = agent === undefined ? text : { text, agent };
  const written = await (await connect()).pipeline.write({ storyId, note });
  output.result(written, () => `${storyId} has ${plural(written.item.notes, "note")}.`);
  return undefined;
}

function fieldsOf(args: ItemArguments): Omit<Params<"pipeline.write">, "storyId"> {
  const { stage, name, agent, retries, retry, block, unblock, rank, description, priority } = args;
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
  const [labels, addLabels, removeLabels] = [
    listOf("labels", args.labels),
    listOf("add-label", args["add-label"]),
    listOf("remove-label", args["remove-label"]),
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
    [
      [labels.length > 0, addLabels.length + removeLabels.length > 0, clears("labels")].filter(Boolean)
        .length > 1,
      "More than one of --labels, --add-label with --remove-label, and --clear labels",
    ],
    [description !== undefined && clears("description"), "--description and --clear description"],
    [priority !== undefined && clears("priority"), "--priority and --clear priority"],
  ];
  const conflict = several.find(([isGiven]) => isGiven);
  if (conflict !== undefined) throw new UsageError(`${conflict[1]} cannot go together.`);
  const fields = {
    ...objectOf(args.fields),
    ...(description === undefined ? {} : { description }),
    ...(clears("description") ? { description: null } : {}),
    ...(priority === undefined ? {} : { priority }),
    ...(clears("priority") ? { priority: null } : {}),
  };
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
    ...(labels.length > 0 ? { labels } : {}),
    ...(clears("labels") ? { labels: [] } : {}),
    ...(addLabels.length + removeLabels.length > 0
      ? { labels: { add: addLabels, remove: removeLabels } }
      : {}),
    ...(Object.keys(fields).length > 0 ? { fields } : {}),
    ...(rank === undefined ? {} : { rank }),
  };
}

function objectOf(text: string | undefined): object {
  if (text === undefined) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Refused below, like every other text that is no object.
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new UsageError(
    `--fields takes an object as JSON, such as '{"estimate": 3}', not ${JSON.stringify(text)}.`,
  );
}

async function showItem(storyId: string, { connect, output }: Context): Promise<undefined> {
  const client = await connect();
  const [found, history] = await Promise.all([
    client.pipeline.read({ storyId, notes: SHOWN_NOTES }),
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
    if (found.before !== undefined) yield `\n  ${output.styled("dim", "notes before these")}`;
    for (const { at, agent, text } of found.notes ?? []) {
      const by = agent === null ? "" : ` ${output.styled("cyan", printable(`@${agent}`))}`;
      yield `\n  ${output.styled("dim", when(at))}${by}\n`;
      for (const line of text.split("\n")) yield `    ${printable(line)}`;
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

/** The refusal of an item that is not there. */
export function noItem(storyId: string): PawlError {
  return new PawlError("not_found", `There is no item ${JSON.stringify(storyId)}. See pawl board.`, {
    what: "item",
  });
}

function describe(item: Item, output: Output): string {
  const {
    storyId,
    stage,
    name,
    agent,
    retryCount,
    blocked,
    dependsOn,
    labels,
    fields,
    notes,
    rank,
    updatedAt,
    claim,
  } = item;
  const { description, ...others } = fields;
  const rows: [string, string | null][] = [
    ["Stage", `${stage}, rank ${rank}`],
    ["Agent", agent],
    ["Retries", retryCount === 0 ? null : String(retryCount)],
    ["Blocked", blocked ? "yes" : null],
    ["After", dependsOn.length === 0 ? null : dependsOn.join(", ")],
    ["Claim", claim === undefined ? null : `${claim.agent}${claim.pid === null ? "" : `, pid ${claim.pid}`}`],
    ["Ready", item.ready ? "yes" : null],
    ["Labels", labels.length === 0 ? null : labels.join(", ")],
    ...Object.entries(others).map(
      ([field, value]) =>
        [field, typeof value === "string" ? value : JSON.stringify(value)] as [string, string],
    ),
    ["Notes", notes === 0 ? null : String(notes)],
    ["Updated", when(updatedAt)],
  ];
  const head = name === null ? storyId : `${storyId}  ${printable(name)}`;
  const lines = rows.flatMap(([title, text]) =>
    text === null ? [] : [`  ${title.padEnd(7)}  ${printable(text)}\n`],
  );
  if (description !== undefined) {
    const text = typeof description === "string" ? description : JSON.stringify(description);
    lines.push("\n", ...text.split("\n").map((line) => `  ${printable(line)}\n`));
  }
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
