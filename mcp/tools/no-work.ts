// Why there is no work: what there is instead.
import type { Params, Result } from "@pawl/protocol/types";
import type { BoardStages } from "./board-stages.js";
import type { SessionCall } from "./tool.js";

/** So many items of each stage are looked at. */
const LOOKED_ITEMS = 100;
/** So many ids a sentence names. */
const NAMED = 5;

type Item = NonNullable<Result<"pipeline.read">["item"]>;

interface Wanted {
  readonly stages?: readonly string[] | undefined;
  readonly labels?: readonly string[] | undefined;
}

/** Says what there is, where nothing is ready for a session. */
export async function whyNoWork(
  { link, session }: SessionCall,
  board: BoardStages,
  { stages, labels = [] }: Wanted,
  passedOver: readonly string[] = [],
): Promise<string> {
  const among = stages?.filter((stage) => board.isReady(stage));
  if (among?.length === 0)
    return `Work is not taken from ${stages?.join(" or ")}, but from stages such as ${board.ready}: leave \`stages\` out.`;
  const [label] = labels;
  const page = { perStage: LOOKED_ITEMS, ...(label === undefined ? {} : { label }) };
  const { stages: listed, counts = {} } = await link.call("pipeline.list", page as Params<"pipeline.list">);
  const all = Object.values(listed).flat();
  const items = all.filter((item) => labels.every((each) => item.labels.includes(each)));
  const ofThese = labels.length === 0 ? "" : ` with the label ${labels.join(", ")}`;
  if (items.length === 0) return `There are no items${ofThese}.`;
  if (Object.keys(counts).every((stage) => counts[stage] === 0 || board.isDone(stage)))
    return `All is done: no item${ofThese} is left.`;
  const open = items.filter(({ stage }) => !board.isDone(stage));
  const done = new Set(all.filter(({ stage }) => board.isDone(stage)).map(idOf));
  const inReach = (stage: string) => among?.includes(stage) ?? board.isReady(stage);
  const held = open.filter(({ claim }) => claim !== undefined);
  const blocked = open.filter(({ blocked: is, claim }) => is && claim === undefined);
  const rest = open.filter((item) => !held.includes(item) && !blocked.includes(item));
  const waiting = rest.filter(({ stage, ready }) => board.isReady(stage) && !ready);
  const now = rest.filter((item) => item.ready && inReach(item.stage) && !passedOver.includes(item.storyId));
  const aside = rest.filter(({ stage }) => !inReach(stage) && !board.isReady(stage));
  const own = held.filter(({ claim }) => claim?.agent === session.name).map(idOf);
  const others = held.filter(({ claim }) => claim?.agent !== session.name);
  const isMore = Object.values(counts).some((count) => count > LOOKED_ITEMS);
  const sentences = [
    said(passedOver, (ids) => `${ids}: given back, failed or handed on by you; work_claim takes it again.`),
    said(now.map(idOf), (ids) => `Ready by now: ${ids}; ask again.`),
    said(own, (ids) => `You hold ${ids}: end it first.`),
    said(
      others.map(({ storyId, claim }) => `${storyId} (${claim?.agent})`),
      (ids) => `Others work on ${ids}.`,
    ),
    said(
      waiting.map((item) => waitOf(item, done)),
      (ids, count) => `Waiting for what is not done, ${count}: ${ids}.`,
    ),
    said(blocked.map(idOf), (ids, count) => `Blocked until a person unblocks, ${count}: ${ids}.`),
    said(
      aside.map(({ storyId, stage }) => `${storyId} (${stage})`),
      (ids, count) => `In stages that work is not taken from, ${count}: ${ids}.`,
    ),
    isMore ? `Only the first ${LOOKED_ITEMS} items of each stage were looked at.` : "",
  ].filter((each) => each !== "");
  return `Nothing${ofThese} is ready for you. ${sentences.join(" ")}`.trimEnd();
}

/** A sentence about some items, if there are any. */
function said(ids: readonly string[], sentence: (ids: string, count: number) => string): string {
  if (ids.length === 0) return "";
  const more = ids.length > NAMED ? ` and ${ids.length - NAMED} more` : "";
  return sentence(`${ids.slice(0, NAMED).join(", ")}${more}`, ids.length);
}

function idOf({ storyId }: Item): string {
  return storyId;
}

function waitOf({ storyId, dependsOn }: Item, done: ReadonlySet<string>): string {
  const missing = dependsOn.filter((id) => !done.has(id));
  return missing.length === 0 ? storyId : `${storyId} for ${missing.slice(0, 2).join(" and ")}`;
}
