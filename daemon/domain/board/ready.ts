// Items that can be worked on now, in the order in which they should be.
import type { Parsed, Result } from "@pawl/protocol";
import { shown } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";
import { findClaim, remainingOf } from "./claims.js";
import { loadRules, type Rules } from "./rules.js";
import { shownItem } from "./shown-item.js";
import { type LoadedItem, loadedItem, type StoredItem } from "./tables.js";

/** Items of one stage that are read at once. */
const ITEMS_PER_READ = 32;
/** Items that one step looks at for those that fit: some 3 ms of work. */
const ITEMS_PER_STEP = 500;
/** Dependencies that an explanation names. */
const EXPLAINED_DEPENDENCIES = 16;

const selectReady = sql<StoredItem>(`
  SELECT * FROM pawl_item
  WHERE stage = :stage AND ready = 1 AND (priority, rank, story_id) > (:priority, :rank, :storyId)
  ORDER BY priority, rank, story_id LIMIT :rows`);

const selectReadyLabelled = sql<StoredItem>(`
  SELECT i.* FROM pawl_item_ready_label l CROSS JOIN pawl_item i
  WHERE l.label = :label AND l.stage = :stage AND (l.priority, l.rank, l.story_id) > (:priority, :rank, :storyId)
    AND i.story_id = l.story_id
  ORDER BY l.priority, l.rank, l.story_id LIMIT :rows`);

const selectStage = sql<{ stage: string | null }>("SELECT stage FROM pawl_item WHERE story_id = :storyId");

/** What items are asked for. */
export interface Wanted {
  /** The stages that they are in. */
  readonly stages: readonly string[];
  /** The labels that each of them has; none for any. */
  readonly labels: readonly string[];
}

/** The next items of one stage. */
interface Ahead {
  readonly stage: string;
  readonly rows: StoredItem[];
  /** The last that was given; undefined for none yet. */
  given: StoredItem | undefined;
  /** Behind which item the next are read; undefined for the first. */
  after: StoredItem | undefined;
  isEnd: boolean;
}

/** The ready items of some stages, one after the other: by priority, rank and storyId over all of them. */
export class ReadyItems {
  readonly #wanted: Wanted;
  #ahead: readonly Ahead[];
  /** Items are found by the first label, and looked at for the others. */
  readonly #label: string | undefined;
  readonly #otherLabels: readonly string[];
  /** How many were looked at. */
  looked = 0;

  constructor(wanted: Wanted) {
    const { stages, labels } = wanted;
    const [first, ...others] = labels;
    this.#wanted = wanted;
    this.#ahead = stages.map((stage) => ({
      stage,
      rows: [],
      given: undefined,
      after: undefined,
      isEnd: false,
    }));
    this.#label = first;
    this.#otherLabels = others;
  }

  /** The items behind those that were given, for a later step: they are read anew, and these stay as they are. */
  rest(): ReadyItems {
    const rest = new ReadyItems(this.#wanted);
    rest.#ahead = this.#ahead.map(({ stage, given }) => ({
      stage,
      rows: [],
      given,
      after: given,
      isEnd: false,
    }));
    rest.looked = this.looked;
    return rest;
  }

  /** The next one before so many were looked at; undefined if there is none. */
  *next(most: number): Operation<StoredItem | undefined> {
    while (this.looked < most) {
      const row = yield* this.#nextOfFirst();
      if (row === undefined || this.#otherLabels.length === 0) return row;
      const labels = new Set(JSON.parse(row.labels) as string[]);
      if (this.#otherLabels.every((label) => labels.has(label))) return row;
    }
    return undefined;
  }

  *#nextOfFirst(): Operation<StoredItem | undefined> {
    let first: Ahead | undefined;
    for (const ahead of this.#ahead) {
      if (ahead.rows.length === 0 && !ahead.isEnd) yield* this.#read(ahead);
      const [row] = ahead.rows;
      if (row !== undefined && (first === undefined || comesBefore(row, first.rows[0] as StoredItem)))
        first = ahead;
    }
    if (first === undefined) return undefined;
    this.looked += 1;
    first.given = first.rows.shift();
    return first.given;
  }

  *#read(ahead: Ahead): Operation<void> {
    const { priority = -1, rank = "", story_id: storyId = "" } = ahead.after ?? {};
    // The first one is mostly all that is wanted.
    const rows = ahead.after === undefined ? 1 : ITEMS_PER_READ;
    const place = { stage: ahead.stage, priority, rank, storyId, rows };
    const label = this.#label;
    const found: StoredItem[] = yield* label === undefined
      ? all(selectReady, place)
      : all(selectReadyLabelled, { ...place, label });
    ahead.rows.push(...found);
    ahead.after = found.at(-1) ?? ahead.after;
    ahead.isEnd = found.length < rows;
  }
}

function comesBefore(a: StoredItem, b: StoredItem): boolean {
  if (a.priority !== b.priority) return a.priority < b.priority;
  return a.rank === b.rank ? a.story_id < b.story_id : a.rank < b.rank;
}

/** The stages of a request that work is taken from. */
export function stagesOf(stages: readonly string[] | undefined, rules: Rules): string[] {
  return stages === undefined
    ? [...rules.ready]
    : [...new Set(stages)].filter((each) => rules.ready.has(each));
}

export function* ready(
  params: Parsed<"pipeline.ready">,
  env: Env,
): Operation<Outcome<Result<"pipeline.ready">>> {
  const { labels = [] } = params;
  const found = new ReadyItems({ stages: stagesOf(params.stages, yield* loadRules()), labels });
  return yield* readyFrom(found, { items: [], bytes: 0 }, params, env);
}

interface Found {
  readonly items: Result<"pipeline.ready">["items"];
  readonly bytes: number;
}

/** One step, and those that follow it. */
function* readyFrom(
  from: ReadyItems,
  before: Found,
  params: Parsed<"pipeline.ready">,
  env: Env,
): Operation<Outcome<Result<"pipeline.ready">>> {
  const { agent, limit } = params;
  const ahead = from.rest();
  const items = [...before.items];
  let { bytes } = before;
  const until = ahead.looked + ITEMS_PER_STEP;
  while (items.length < limit && bytes < MAX_PAGE_BYTES) {
    const row: StoredItem | undefined = yield* ahead.next(until);
    if (row === undefined && ahead.looked >= until && env.mayGoOn) {
      const rest = ahead.rest();
      const heldBytes = pageBytes(bytes, items.length, limit);
      return new Unfinished((later) => readyFrom(rest, { items, bytes }, params, later), heldBytes);
    }
    if (row === undefined) break;
    if (agent !== undefined && row.agent !== agent) continue;
    const item = yield* shownItem(loadedItem(row), env);
    if (item === null) continue;
    bytes += JSON.stringify(item).length;
    items.push(item);
  }
  return { items };
}

/** Why an item is not ready, in sentences; undefined if it is. */
export function* whyNotReady(item: LoadedItem, rules: Rules, env: Env): Operation<string | undefined> {
  const { row, work } = item;
  const { storyId, stage } = row;
  if (work.ready || stage === null) return undefined;
  const reasons: string[] = [];
  if (!rules.ready.has(stage)) {
    const from = rules.ready.size === 0 ? "no stage" : [...rules.ready].map((each) => shown(each)).join(", ");
    reasons.push(`${storyId} is in ${shown(stage)}, and work is taken from ${from}.`);
  }
  if (row.blocked) reasons.push(`${storyId} is blocked.`);
  if (work.held) {
    const claim = yield* findClaim(item, env);
    reasons.push(
      claim === undefined
        ? `The lease item/${storyId} is held, and not by a claim.`
        : `${storyId} is claimed by ${shown(claim.agent)} for ${remainingOf(claim, env)} ms more unless that is renewed.`,
    );
  }
  if (work.waits > 0) reasons.push(yield* whyItWaits(item, rules));
  return reasons.length === 0 ? `${storyId} is about to be ready; ask again.` : reasons.join(" ");
}

function* whyItWaits(
  { row: { storyId, dependsOn }, work: { waits } }: LoadedItem,
  rules: Rules,
): Operation<string> {
  const named: string[] = [];
  for (const each of dependsOn) {
    if (named.length === EXPLAINED_DEPENDENCIES) break;
    const stage = (yield* one(selectStage, { storyId: each }))?.stage ?? null;
    if (stage === null) named.push(`${each}, which does not exist`);
    else if (each === storyId) named.push("itself");
    else if (!rules.done.has(stage)) named.push(`${each}, which is in ${shown(stage)}`);
  }
  const more = waits > named.length ? `, and on ${waits - named.length} more that are not done` : "";
  return `${storyId} depends on ${named.join(", and on ")}${more}.`;
}
