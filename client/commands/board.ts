import { setTimeout as delay } from "node:timers/promises";
import type { Params, Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import { type Context, command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { count, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { CLEAR_SCREEN } from "../terminal/watch.js";
import { draw, type Item, type Stages } from "./board/drawing.js";
import { ACTIONS, actionOf, BOARD_OPTIONS, SHOWN_ITEMS } from "./board/options.js";
import { compact, repair } from "./board/upkeep.js";
import { doWork } from "./board/work.js";

/** The width of a board that is not printed on a terminal, unless $COLUMNS says otherwise. */
const DEFAULT_WIDTH = 100;
const WATCH_MS = 600_000;
/** A board that is written all the time is drawn anew only so often. */
const REDRAW_MS = 200;
const PAGE_ITEMS = 1000;

const board = command({
  args: "[action] [item] [token]",
  endsBySignal: true,
  patient: ({ action, watch }) => action !== undefined || watch,
  summary: "Show the items of the board by stage, and take work from it",
  options: BOARD_OPTIONS,
  details:
    "Stages are columns, as many beside each other as fit. `board rebuild` replays the log of changes, and puts right what differs from it in the tables that items are read from; with --verify it only says so, and exits with 1. `board compact` takes away changes on which nothing of the board rests any more and that all peers are known to have that were heard of within 90 days; a sync tells each what the other has. `board repair` is for a node whose clock was wrong: it gives those of its changes again, with the time as it is, that lie ahead of the time and that no peer is known to have.\n\n`board ready` lists what can be worked on: in a stage that work is taken from, not blocked, claimed by nobody, and all that it depends on done. `board claim` takes the first of it, or the item that is named, and exits with 1 if there is none; the claim has to be renewed before it ends, by lease.heartbeat (`pawl call`), and `board finish` ends it. A claim that ends otherwise is taken back, and counts as a retry. `board configure` says of stages what they are for on this node, and without options shows it.",
  examples: [
    ["pawl board", "Everything, the first items of each stage"],
    ["pawl board --agent coder-1 --watch", "What coder-1 works on, from now on"],
    ['pawl board --text "sign in" --label web', "What somebody has said about it"],
    ["pawl board --json | jq '.stages[][].storyId'", "The ids of all items"],
    ["pawl board ready", "What can be worked on now, the first to be done first"],
    [
      "pawl board claim --agent coder-1 --to 2_current --wait 1h",
      "The first of that, or the next that comes",
    ],
    ["pawl board claim FR-001 --json", "That one, for a script: jq .lease has the lease and its token"],
    ['pawl board finish FR-001 7 --to 5_done --note "merged"', "7 is the token that the claim printed"],
    ["pawl board configure --work 1_backlog,3_qa --done 5_done", "Work is taken for testing, too"],
    ["pawl board rebuild --verify", "Whether the items are what the changes say"],
    ["pawl board compact --dry-run", "How many changes nothing rests on any more, and whom they wait for"],
  ],
  words: { action: ACTIONS },
  async run(args, context) {
    const action = actionOf(args);
    if (action === "rebuild") return await replay(args.verify, context);
    if (action === "compact") return void (await compact(args["dry-run"], context));
    if (action === "repair") return void (await repair(context));
    if (action !== undefined) return await doWork(action, args, context);
    const filter = {
      ...(args.stage === undefined ? {} : { stage: args.stage }),
      ...(args.agent === undefined ? {} : { agent: args.agent }),
      ...(args.blocked ? { blocked: true } : {}),
      ...(args.label === undefined ? {} : { label: args.label }),
      ...(args.text === undefined ? {} : { text: args.text }),
    };
    const client = await context.connect();
    const shown = args.limit ?? SHOWN_ITEMS;
    // A person sees the first items of each stage: the others are only counted.
    const isPartEnough =
      !context.output.json && args.stage === undefined && args.text === undefined && shown > 0;
    const get = (): Promise<Loaded> =>
      isPartEnough ? loadFirst(client, filter, shown) : load(client, filter);
    const none =
      Object.keys(filter).length > 0
        ? "No item matches."
        : "There are no items. Make one with pawl item set.";
    const show = (loaded: Loaded): void => print(loaded, shown, none, context);
    if (args.watch) await showChanges(client, get, show, context.output);
    else show(await get());
    return undefined;
  },
});

/** What is known of a board: items by stage, and how many there are of each, if those are not all. */
interface Loaded {
  readonly stages: Stages;
  readonly counts?: ReadonlyMap<string, number>;
}

async function loadFirst(
  client: PawlClient,
  filter: Params<"pipeline.list">,
  shown: number,
): Promise<Loaded> {
  const stages = new Map<string, Item[]>();
  const counts = new Map<string, number>();
  let after: string | undefined;
  do {
    const page = await client.pipeline.list({
      ...filter,
      perStage: Math.min(shown, PAGE_ITEMS),
      limit: PAGE_ITEMS,
      ...(after === undefined ? {} : { after }),
    });
    for (const [stage, items] of Object.entries(page.stages)) stages.set(stage, items);
    for (const [stage, number] of Object.entries(page.counts ?? {})) counts.set(stage, number);
    after = page.next;
  } while (after !== undefined);
  return { stages, counts };
}

async function load(client: PawlClient, filter: Params<"pipeline.list">): Promise<Loaded> {
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
  return { stages };
}

async function showChanges(
  client: PawlClient,
  get: () => Promise<Loaded>,
  show: (loaded: Loaded) => void,
  output: Output,
): Promise<void> {
  for (let since: number | undefined; !output.closed; ) {
    const { revision } = await client.pipeline.watch(since === undefined ? {} : { since, waitMs: WATCH_MS });
    if (revision === since) continue;
    const loaded = await get();
    if (!output.json && output.isScreen) output.write(CLEAR_SCREEN);
    show(loaded);
    since = revision;
    await delay(REDRAW_MS);
  }
}

/** @param none says that there is nothing to show. */
function print({ stages, counts }: Loaded, shown: number, none: string, { output, env }: Context): void {
  // Names that come from people: a stage may be called __proto__.
  output.result({ stages: Object.fromEntries(stages) }, () => {
    if (stages.size === 0) {
      output.note(none);
      return "";
    }
    const given = output.columns ?? Number(env.COLUMNS);
    return draw(stages, counts, shown, given > 0 ? given : DEFAULT_WIDTH, output.styled);
  });
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

export const commands = { board };
