import { setTimeout as delay } from "node:timers/promises";
import type { Params, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { PawlClient } from "../connect.js";
import { type Arguments, type Context, command, type Options, UsageError } from "../terminal/command.js";
import { count, cutTo, type Output, plural, printable, styled, when, width } from "../terminal/output.js";

type Item = Result<"pipeline.list">["stages"][string][number];
type Stages = ReadonlyMap<string, readonly Item[]>;

/** A column narrower than this says nothing; there are then fewer beside each other. */
const MIN_COLUMN_WIDTH = 18;
const MAX_COLUMN_WIDTH = 44;
const GAP = "  ";
/** Where the width is nobody's. */
const DEFAULT_WIDTH = 100;
/** Items of a stage that a person sees, unless more are asked for. */
const SHOWN_ITEMS = 20;
const WATCH_MS = 600_000;
/** A board that is written all the time is drawn anew only so often. */
const REDRAW_MS = 200;
const PAGE_ITEMS = 1000;
/** Changes that `pawl item show` lists. */
const SHOWN_CHANGES = 10;

const CLEAR_SCREEN = "\x1b[2J\x1b[H";

export const board = command<"[rebuild]">()({
  options: {
    stage: { type: "text", value: "STAGE", describe: "Only this stage" },
    agent: { type: "text", value: "NAME", describe: "Only what this agent works on" },
    blocked: { type: "flag", describe: "Only what is blocked" },
    limit: {
      type: "number",
      short: "n",
      value: "COUNT",
      describe: "Items of a stage to show",
      default: String(SHOWN_ITEMS),
    },
    watch: { type: "flag", short: "w", describe: "Go on: show it again after each change" },
    verify: { type: "flag", describe: "With rebuild: only compare, and change nothing" },
  },
  details:
    "Stages are columns, as many beside each other as fit. `board rebuild` replays the log of changes, and puts right what differs from it in the tables that items are read from; with --verify it only says so, and exits with 1.",
  examples: [
    ["pawl board", "Everything, the first items of each stage"],
    ["pawl board --agent coder-1 --watch", "What coder-1 works on, from now on"],
    ["pawl board --json | jq '.stages[][].storyId'", "The ids of all items"],
    ["pawl board rebuild --verify", "Whether the items are what the changes say"],
  ],
  async run(args, context) {
    const { rebuild, verify, watch } = args;
    if (rebuild !== undefined) {
      if (rebuild !== "rebuild")
        throw new UsageError(`${JSON.stringify(rebuild)} is nothing that a board does.`);
      return await replay(verify, context);
    }
    if (verify) throw new UsageError("--verify belongs to `pawl board rebuild`.");
    const filter = {
      ...(args.stage === undefined ? {} : { stage: args.stage }),
      ...(args.agent === undefined ? {} : { agent: args.agent }),
      ...(args.blocked ? { blocked: true } : {}),
    };
    const client = await context.connect();
    const shown = args.limit ?? SHOWN_ITEMS;
    if (!watch) show(await load(client, filter), shown, context.output);
    else await goOn(client, filter, shown, context.output);
    return undefined;
  },
});

async function load(client: PawlClient, filter: Params<"pipeline.list">): Promise<Stages> {
  const stages = new Map<string, Item[]>();
  let after: string | undefined;
  do {
    const page = await client.pipeline.list({
      ...filter,
      limit: PAGE_ITEMS,
      ...(after === undefined ? {} : { after }),
    });
    for (const [stage, items] of Object.entries(page.stages)) {
      stages.set(stage, [...(stages.get(stage) ?? []), ...items]);
    }
    after = page.next;
  } while (after !== undefined);
  return stages;
}

async function goOn(
  client: PawlClient,
  filter: Params<"pipeline.list">,
  shown: number,
  output: Output,
): Promise<void> {
  const isScreen = !output.json && process.stdout.isTTY;
  for (let since: number | undefined; !output.closed; ) {
    const { revision } = await client.pipeline.watch(since === undefined ? {} : { since, waitMs: WATCH_MS });
    if (revision === since) continue;
    const stages = await load(client, filter);
    if (isScreen) output.write(CLEAR_SCREEN);
    show(stages, shown, output);
    since = revision;
    await delay(REDRAW_MS);
  }
}

function show(stages: Stages, shown: number, output: Output): void {
  // Names that come from people: a stage may be called __proto__.
  output.result({ stages: Object.fromEntries(stages) }, () => {
    if (stages.size === 0) {
      output.note("There are no items. Make one with pawl item set.");
      return "";
    }
    return draw(stages, shown, terminalWidth());
  });
}

function terminalWidth(): number {
  const given = process.stdout.isTTY ? process.stdout.columns : Number(process.env.COLUMNS);
  return given > 0 ? given : DEFAULT_WIDTH;
}

/** The board in bands of columns, each band as wide as the terminal at most. */
function draw(stages: Stages, shown: number, available: number): string {
  const beside = Math.max(
    1,
    Math.min(stages.size, Math.floor((available + GAP.length) / (MIN_COLUMN_WIDTH + GAP.length))),
  );
  const columnWidth = Math.min(
    MAX_COLUMN_WIDTH,
    Math.floor((available - GAP.length * (beside - 1)) / beside),
  );
  const columns = [...stages].map(([stage, items]) => columnOf(stage, items, shown, columnWidth));
  const bands: string[] = [];
  for (let from = 0; from < columns.length; from += beside) {
    const band = columns.slice(from, from + beside);
    const height = Math.max(...band.map((lines) => lines.length));
    const lines = Array.from({ length: height }, (_, row) =>
      band
        .map((column) => padded(column[row] ?? { text: "" }, columnWidth))
        .join(GAP)
        .trimEnd(),
    );
    bands.push(lines.map((line) => `${line}\n`).join(""));
  }
  return bands.join("\n");
}

interface Part {
  readonly text: string;
  readonly style?: Parameters<typeof styled>[0];
}
/** A line of a column: one part, or several with a space between. */
type Line = Part & { readonly more?: readonly Part[] };

function columnOf(stage: string, items: readonly Item[], shown: number, columnWidth: number): Line[] {
  const lines: Line[] = [
    { text: stage, style: "bold", more: [{ text: count(items.length), style: "dim" }] },
    { text: "─".repeat(columnWidth), style: "dim" },
  ];
  for (const item of items.slice(0, shown)) lines.push(...cardOf(item));
  if (items.length > shown)
    lines.push({ text: `and ${plural(items.length - shown, "other")}`, style: "dim" });
  return lines;
}

/** What is to be seen of an item: its id and how it stands, its name, who works on it and what it waits for. */
function cardOf({ storyId, name, agent, blocked, retryCount, dependsOn }: Item): Line[] {
  const marks: Part[] = [];
  if (blocked) marks.push({ text: "blocked", style: "red" });
  if (retryCount !== 0) marks.push({ text: `×${retryCount}`, style: "yellow" });
  if (agent !== null) marks.push({ text: `@${agent}`, style: "cyan" });
  const lines: Line[] = [{ text: storyId, more: marks }];
  if (name !== null) lines.push({ text: `  ${name}` });
  if (dependsOn.length > 0) lines.push({ text: `  after ${dependsOn.join(", ")}`, style: "dim" });
  return lines;
}

/** A line cut or filled to a width; what is styled takes no more room for it. */
function padded({ text, style, more = [] }: Line, columnWidth: number): string {
  let left = columnWidth;
  let line = "";
  for (const part of [{ text, style }, ...more]) {
    const space = line === "" ? "" : " ";
    if (left <= space.length) break;
    const cut = cutTo(printable(part.text), left - space.length);
    line += space + (part.style === undefined ? cut : styled(part.style, cut));
    left -= space.length + width(cut);
  }
  return line + " ".repeat(Math.max(0, left));
}

/** Found differences are no failure of the program, but for a script not the same as none. */
const EXIT_DIFFERENT = 1;

async function replay(verify: boolean, { connect, output }: Context): Promise<number | undefined> {
  const client = await connect();
  const { pipeline } = await client.daemon.stats();
  const differences: Result<"pipeline.rebuild">["differences"] = [];
  let [changes, items] = [0, 0];
  let after: string | undefined;
  try {
    do {
      const step: Result<"pipeline.rebuild"> = await client.pipeline.rebuild({
        verify,
        ...(after === undefined ? {} : { after }),
      });
      differences.push(...step.differences);
      // The second time round, changes are replayed to see what they make of items.
      if (step.items === 0) changes += step.changes;
      items += step.items;
      after = step.next;
      output.progress(
        items === 0
          ? `Checked ${count(changes)} of ${plural(pipeline.changes, "change")}`
          : `Compared ${plural(items, "item")}`,
      );
    } while (after !== undefined);
  } finally {
    output.progress(undefined);
  }
  output.result({ changes, items, differences }, () => {
    const what = differences.map(({ changeId, storyId, what: how }) =>
      printable(`${storyId ?? `change ${changeId}`}: ${how}`),
    );
    const done = `Replayed ${plural(changes, "change")} on ${plural(items, "item")}: `;
    const found =
      differences.length === 0
        ? "nothing differs."
        : `${plural(differences.length, "difference")}${verify ? "." : ", put right."}`;
    return [...what, done + found];
  });
  return differences.length > 0 && verify ? EXIT_DIFFERENT : undefined;
}

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

export const item = command<"<set|show|rm> <story>">()({
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
  output.result(written, () => describe(written.item));
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

function listOf(option: string, text: string | undefined): string[] {
  const parts = text === undefined ? [] : text.split(",").map((part) => part.trim());
  if (parts.includes(""))
    throw new UsageError(`--${option} takes names with commas between, not ${JSON.stringify(text)}.`);
  return parts;
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
    else yield describe(found.item);
    if (found.missing !== undefined)
      yield styled("yellow", `  It depends on what does not exist: ${found.missing.join(", ")}`);
    if (found.cycle !== undefined)
      yield styled("red", `  It depends on itself: ${[storyId, ...found.cycle, storyId].join(" → ")}`);
    yield "\n";
    for (const change of history.changes) yield lineOf(change);
    if (history.next !== undefined) yield styled("dim", "  and more before that");
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

function describe({
  storyId,
  stage,
  name,
  agent,
  retryCount,
  blocked,
  dependsOn,
  rank,
  updatedAt,
}: Item): string {
  const rows: [string, string | null][] = [
    ["Stage", `${stage}, rank ${rank}`],
    ["Agent", agent],
    ["Retries", retryCount === 0 ? null : String(retryCount)],
    ["Blocked", blocked ? "yes" : null],
    ["After", dependsOn.length === 0 ? null : dependsOn.join(", ")],
    ["Updated", when(updatedAt)],
  ];
  const head = name === null ? storyId : `${storyId}  ${printable(name)}`;
  const lines = rows.flatMap(([title, text]) =>
    text === null ? [] : [`  ${title.padEnd(7)}  ${printable(text)}\n`],
  );
  return `${styled("bold", head)}\n${lines.join("")}`;
}

function lineOf({
  at,
  name,
  set: fields,
  delta,
  deleted,
}: Result<"pipeline.history">["changes"][number]): string {
  const parts = [
    ...(deleted ? ["deleted"] : []),
    ...Object.entries(fields).map(([field, value]) => `${field} ${JSON.stringify(value)}`),
    ...Object.entries(delta).map(([field, by]) => `${field} ${by < 0 ? by : `+${by}`}`),
  ];
  const who = name === null ? "" : ` ${styled("cyan", printable(name))}`;
  return `  ${styled("dim", when(at))}${who}  ${printable(parts.join(", "))}`;
}
