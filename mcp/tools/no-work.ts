// Why there is no work: what there is instead.
import type { Params, Result } from "@pawl/protocol/types";
import type { Passed, Session } from "../sessions/session.js";
import { SESSION_LEASES } from "../sessions/session-name.js";
import { BEGUN_STAGE, type BoardStages } from "./board-stages.js";
import { reservedBy, worksOf } from "./path-works.js";
import type { SessionCall } from "./tool.js";

/** So many items of each stage are looked at. */
const LOOKED_ITEMS = 100;
const ITEMS = "item/";
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
  const kinds = sorted(
    items.filter(({ stage }) => !board.isDone(stage)),
    board,
    (stage) => among?.includes(stage) ?? board.isReady(stage),
  );
  const waiting = await Promise.all(kinds.waiting.map((item, place) => whyItWaits(link, item, place)));
  const isMore = Object.keys(counts).some(
    (stage) => !board.isDone(stage) && (counts[stage] ?? 0) > LOOKED_ITEMS,
  );
  const sentences = [
    said(
      passedOver.map((id) => `${id} (${howPassed(session.passed.get(id))})`),
      (ids) => `Passed over: ${ids}; work_claim takes it again.`,
    ),
    ...sentencesOf(kinds, session.name, passedOver),
    said(waiting, (reasons, count) => `Waiting for what is not done, ${count}: ${reasons}.`),
    isMore ? `Only the first ${LOOKED_ITEMS} items of each stage were looked at.` : "",
  ].filter((each) => each !== "");
  return `Nothing${ofThese} is ready for you. ${sentences.join(" ")}`.trimEnd();
}

function howPassed(passed: Passed | undefined): string {
  if (passed?.how === "handoff") return `handed by you to ${passed.to}, not yet taken`;
  return passed?.how === "failed" ? "failed by you" : "given back by you";
}

/** True if nothing becomes ready unless it is added: nobody works on anything, and nobody else may take anything. */
export async function isIdle({ link }: SessionCall, passedOver: readonly string[] = []): Promise<boolean> {
  const [{ leases: works }, { leases: agents }, { counts, stages }] = await Promise.all([
    link.call("lease.list", { prefix: ITEMS, limit: 1 }),
    link.call("lease.list", { prefix: SESSION_LEASES, limit: 2 }),
    // Begun where this daemon does not see it: by hand, or on another node.
    link.call("pipeline.list", { stage: BEGUN_STAGE, limit: 1 }),
  ]);
  const begun = counts?.[BEGUN_STAGE] ?? stages[BEGUN_STAGE]?.length ?? 0;
  return works.length === 0 && begun === 0 && (passedOver.length === 0 || agents.length === 1);
}

export const IDLE = "Nobody works on anything: you may stop, unless stories are added.";

/** What a session has that it needs for nothing. */
export function needlessPaths(session: Session): string | undefined {
  const paths = reservedBy(session).flatMap(({ patterns }) => patterns);
  if (paths.length === 0 || worksOf(session).length > 0) return undefined;
  return `You hold ${paths.join(" ")} and have no work: paths_release.`;
}

interface Kinds {
  readonly held: readonly Item[];
  readonly blocked: readonly Item[];
  readonly waiting: readonly Item[];
  readonly ready: readonly Item[];
  /** Where nobody looks for work. */
  readonly aside: readonly Item[];
}

function sorted(items: readonly Item[], board: BoardStages, inReach: (stage: string) => boolean): Kinds {
  const free = items.filter(({ claim }) => claim === undefined);
  const rest = free.filter(({ blocked }) => !blocked);
  return {
    held: items.filter(({ claim }) => claim !== undefined),
    blocked: free.filter(({ blocked }) => blocked),
    waiting: rest.filter(({ stage, ready }) => board.isReady(stage) && !ready),
    ready: rest.filter(({ stage, ready }) => inReach(stage) && ready),
    aside: rest.filter(({ stage }) => !board.isReady(stage)),
  };
}

function sentencesOf({ held, blocked, ready, aside }: Kinds, name: string, passedOver: readonly string[]) {
  const own = held.filter(({ claim }) => claim?.agent === name);
  const others = held.filter(({ claim }) => claim?.agent !== name);
  return [
    said(
      ready.map(idOf).filter((id) => !passedOver.includes(id)),
      (ids) => `Ready by now: ${ids}; ask again.`,
    ),
    said(own.map(idOf), (ids) => `You hold ${ids}: end it first.`),
    said(
      others.map(({ storyId, claim }) => `${storyId} (${claim?.agent})`),
      (ids) => `Others work on ${ids}.`,
    ),
    said(
      blocked.map(idOf),
      (ids, count) => `Blocked until a person unblocks, ${count}: ${ids}; work_claim says what it needs.`,
    ),
    said(
      aside.map(({ storyId, stage }) => `${storyId} (${stage})`),
      (ids, count) => `In stages that work is not taken from, ${count}: ${ids}.`,
    ),
  ];
}

/** Of the first few: the item and what it waits for, in the daemon's words. */
async function whyItWaits(link: SessionCall["link"], { storyId }: Item, place: number): Promise<string> {
  if (place >= NAMED) return storyId;
  const { reason = storyId } = await link.call("pipeline.read", { storyId });
  return reason.replace(/\.$/, "");
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
