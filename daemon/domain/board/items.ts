import { Buffer } from "node:buffer";
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES, MAX_STAGE_LENGTH } from "@pawl/protocol/limits";
import { RawJson } from "../../json/raw-json.js";
import { all, type Operation, one, type Statement, sql } from "../../store/statement.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";
import { type Op, readStored } from "./change.js";
import { underClaim, wroteUnderClaim } from "./claims.js";
import { dependencyProblems } from "./dependencies.js";
import { prepare, store } from "./local-change.js";
import { type ItemRow, isNewer } from "./merge.js";
import { type NotesPage, readNotes } from "./notes.js";
import { whyNotReady } from "./ready.js";
import { loadRules, refuseMove } from "./rules.js";
import { type ShownItem, shownItem } from "./shown-item.js";
import {
  findItem,
  type LoadedItem,
  loadedItem,
  type StampRow,
  type StoredItem,
  stampOfRow,
} from "./tables.js";
import { findMatches, isIndexWhole, makeIndex, queryOf } from "./texts.js";
import { describeOp, holds, type ItemCondition, planDelete, planWrite } from "./write.js";

/** Items that are looked at for a cycle of dependencies: a read ends on a board that is tied into one knot. */
const MAX_GRAPH_ITEMS = 10_000;
/** Items that one step looks at for that: some 3 ms of work. */
const GRAPH_ITEMS_PER_STEP = 500;
/** Items that a page of a list looks at for those that fit: some 2 ms of work. A page that found few ends there. */
const MAX_SCANNED_ITEMS = 1000;
/** Items that a list reads at once: one can be large, and a page is full after some bytes. */
const ITEMS_PER_READ = 64;

/** Items that a list shows at once, and in one step of a longer one: some 2 ms of work. */
const LISTED_AT_ONCE = 250;
const LISTED_PER_STEP = 150;
/** Fields of their own that the items of a page have, each a row to be read: some 4 ms of work. */
const MAX_PAGE_FIELDS = 2048;
/** What a place in a list, or an id that was found, takes in memory, about. */
const PLACE_BYTES = 256;
/** Items of a stage that are counted at once, and in one step: some 2 ms of work. */
const COUNTED_AT_ONCE = 1000;
const COUNTED_PER_STEP = 2000;
/** Items found by their texts that one step looks at: some 3 ms of work. */
const FOUND_PER_STEP = 300;

/** Changes that one step of a history shows: some 2 ms of work ... */
const HISTORY_PER_STEP = 48;
/** ... unless their bodies are long. */
const HISTORY_CHARACTERS_PER_STEP = 65_536;

const selectLastRank = sql<{ rank: string }>(`
  SELECT rank FROM pawl_item WHERE stage = :stage ORDER BY rank DESC, story_id DESC LIMIT 1`);

const selectDependsOn = sql<{ depends_on: string }>(
  "SELECT depends_on FROM pawl_item WHERE story_id = :storyId AND stage IS NOT NULL",
);

/** A label is looked for by its JSON, with its quotes: no part of another one is like that. */
const FILTERS = `
  (:label = '' OR replace(labels, :label, '') <> labels)
  AND (:anyAgent = 1 OR agent = :agent OR (:agent IS NULL AND agent IS NULL))
  AND (:anyBlocked = 1 OR blocked = :blocked)`;

const AFTER_PLACE = "stage IS NOT NULL AND (stage, rank, story_id) > (:stage, :rank, :storyId)";

const AFTER_PLACE_IN_STAGE = "stage = :stage AND (rank, story_id) > (:rank, :storyId)";

const selectItems = sql<StoredItem>(`
  SELECT * FROM pawl_item
  WHERE ${AFTER_PLACE} AND (stage, rank, story_id) <= (:lastStage, :lastRank, :lastStoryId) AND ${FILTERS}
  ORDER BY stage, rank, story_id LIMIT :rows`);

const selectItemsOfStage = sql<StoredItem>(`
  SELECT * FROM pawl_item
  WHERE ${AFTER_PLACE_IN_STAGE} AND (rank, story_id) <= (:lastRank, :lastStoryId) AND ${FILTERS}
  ORDER BY rank, story_id LIMIT :rows`);

const selectPlaces = sql<PlaceRow>(`
  SELECT stage, rank, story_id FROM pawl_item
  WHERE ${AFTER_PLACE} AND (stage, rank, story_id) <= (:lastStage, :lastRank, :lastStoryId) AND ${FILTERS}
  ORDER BY stage, rank, story_id LIMIT :rows`);

const selectPlacesOfStage = sql<PlaceRow>(`
  SELECT stage, rank, story_id FROM pawl_item
  WHERE ${AFTER_PLACE_IN_STAGE} AND (rank, story_id) <= (:lastRank, :lastStoryId) AND ${FILTERS}
  ORDER BY rank, story_id LIMIT :rows`);

const countItemsOfStage = sql<{ counted: number }>(`
  SELECT count(*) AS counted FROM pawl_item
  WHERE ${AFTER_PLACE_IN_STAGE} AND (rank, story_id) <= (:lastRank, :lastStoryId) AND ${FILTERS}`);

const selectNextStage = sql<{ stage: string | null }>(
  "SELECT min(stage) AS stage FROM pawl_item WHERE stage > :stage",
);

/** The last place that a page looks at, if there are so many: found without reading what is before it. */
function placeBehind(place: string): Statement<PlaceRow> {
  return sql(`
    SELECT stage, rank, story_id FROM pawl_item WHERE ${place} ORDER BY stage, rank, story_id LIMIT 1 OFFSET :passed`);
}

const selectPlaceBehind = placeBehind(AFTER_PLACE);

const selectPlaceBehindInStage = placeBehind(AFTER_PLACE_IN_STAGE);

/** From the newest on; those at the same time are in the order that the merge gives them, on all nodes the same. */
const selectHistory = sql<TouchRow>(`
  SELECT c.n, c.wall, c.counter, b.author, c.change_id
  FROM pawl_touch t JOIN pawl_change c ON c.n = t.n JOIN pawl_branch b ON b.branch = c.branch
  WHERE t.story_id = :storyId AND t.wall <= :wall
    AND (t.wall, t.counter, b.author, c.change_id) < (:wall, :counter, :author, :id)
  ORDER BY t.wall DESC, t.counter DESC, b.author DESC, c.change_id DESC LIMIT :rows`);

const selectTouch = sql<TouchRow>(`
  SELECT c.n, c.wall, c.counter, b.author, c.change_id
  FROM pawl_change c JOIN pawl_branch b ON b.branch = c.branch WHERE c.n = :n`);

const selectChange = sql<ChangeRow>(`
  SELECT c.body, c.signature, p.name
  FROM pawl_change c JOIN pawl_branch b ON b.branch = c.branch LEFT JOIN pawl_peer p ON p.author = b.author
  WHERE c.n = :n`);

/** The last change that came here is never taken away. */
const lastChange = sql<{ n: number | null }>("SELECT max(n) AS n FROM pawl_change");

const selectRemoved = sql<{ removed: number }>("SELECT removed FROM pawl_board");

const selectForks = sql<{ forks: number }>(`
  SELECT count(*) AS forks FROM pawl_branch b WHERE EXISTS
    (SELECT 1 FROM pawl_branch o
     WHERE o.author = b.author AND o.incarnation = b.incarnation AND o.branch < b.branch)`);

interface PlaceRow {
  stage: string;
  rank: string;
  story_id: string;
}

/** A change that was about an item: its number and its stamp. */
interface TouchRow extends StampRow {
  n: number;
}

interface ChangeRow {
  body: string;
  signature: string;
  name: string | null;
}

export function* write(
  params: Parsed<"pipeline.write">,
  env: Env,
): Operation<Result<"pipeline.write"> | PawlError> {
  const { storyId } = params;
  const found = yield* findItem(storyId);
  const row = found?.row;
  if (params.if !== undefined && !holds(params.if, row)) {
    return yield* otherwise(storyId, params.if, found, env);
  }
  const isNew = row === undefined || row.stage === null;
  const { claim: given, ...fields } = params;
  const writes = { stage: params.stage !== undefined, agent: params.agent !== undefined };
  const claim = yield* underClaim(storyId, found, given, isNew || writes.stage || writes.agent, env);
  if (claim instanceof PawlError) return claim;
  const last =
    isNew && params.stage !== undefined && params.rank === undefined
      ? yield* one(selectLastRank, { stage: params.stage })
      : undefined;
  const op = planWrite(row, fields, last?.rank ?? null);
  if (op instanceof PawlError) return op;
  // Nothing is left to say: the item is what the last change about it made it.
  if (op === undefined && row !== undefined) {
    return { item: (yield* shownItem(found as LoadedItem, env)) as ShownItem, changeId: row.stamp.hash };
  }
  const prepared = yield* prepare(op as Op, env);
  if (prepared instanceof PawlError) return prepared;
  const refused = refuseMove(storyId, row?.stage ?? null, params.stage, prepared.node.rules);
  if (refused !== undefined) return refused;
  const item = yield* store(prepared, found, env);
  if (claim !== undefined) yield* wroteUnderClaim(item, writes);
  return { item: (yield* shownItem(item, env)) as ShownItem, changeId: prepared.change.id };
}

/** The refusal of a write whose `if` does not hold, with the item as it is. */
function* otherwise(
  storyId: string,
  expected: ItemCondition,
  found: LoadedItem | undefined,
  env: Env,
): Operation<PawlError> {
  const item = found === undefined ? null : yield* shownItem(found, env);
  const is =
    item === null
      ? "does not exist"
      : `is in stage ${shown(item.stage)}, its agent ${shown(item.agent)}, updated at ${item.updatedAt}`;
  return refuse(
    "conflict",
    `The item ${storyId} ${is}; the write was to be made if ${shown(expected)}. Read it anew.`,
    {
      item,
    },
  );
}

export function* remove(
  params: Parsed<"pipeline.delete">,
  env: Env,
): Operation<Result<"pipeline.delete"> | PawlError> {
  const found = yield* findItem(params.storyId);
  const op = planDelete(found?.row);
  if (op === undefined) return { deleted: false };
  if (op instanceof PawlError) return op;
  const claim = yield* underClaim(params.storyId, found, params.claim, true, env);
  if (claim instanceof PawlError) return claim;
  const prepared = yield* prepare(op, env);
  if (prepared instanceof PawlError) return prepared;
  yield* store(prepared, found, env);
  return { deleted: true, changeId: prepared.change.id };
}

export function* read(
  params: Parsed<"pipeline.read">,
  env: Env,
): Operation<Outcome<Result<"pipeline.read">>> {
  const { storyId } = params;
  const found = yield* findItem(storyId);
  const item = found === undefined ? null : yield* shownItem(found, env);
  const notes = params.notes === undefined ? {} : yield* readNotes(storyId, params.notes, params.before);
  if (notes instanceof PawlError) return notes;
  if (item === null) return { item, ...(params.notes === undefined ? {} : { notes: [] }) };
  const reason = item.ready ? undefined : yield* whyNotReady(found as LoadedItem, yield* loadRules(), env);
  const read = { item, ...notes, ...(reason === undefined ? {} : { reason }) };
  if (item.dependsOn.length === 0) return read;
  return yield* readDependencies(read, { graph: new Map(), waiting: [storyId], next: 0 }, env);
}

/** The part of the board that can be reached from an item, as far as it was looked at. */
interface Reached {
  readonly graph: Map<string, readonly string[]>;
  /** Items to look at, those before `next` are. */
  readonly waiting: string[];
  readonly next: number;
}

/** One step of looking for missing items and a cycle, and those that follow it. */
function* readDependencies(
  read: Pick<Result<"pipeline.read">, "reason"> & { readonly item: ShownItem } & NotesPage,
  { graph, waiting, next }: Reached,
  env: Env,
): Operation<Outcome<Result<"pipeline.read">>> {
  let looked = 0;
  let at = next;
  for (; at < waiting.length && graph.size < MAX_GRAPH_ITEMS; at++) {
    if (looked === GRAPH_ITEMS_PER_STEP) {
      // In a transaction there is one step: what it has not looked at is taken for none of a cycle.
      if (!env.mayGoOn) break;
      const reached = { graph, waiting, next: at };
      const heldBytes = (graph.size + waiting.length) * PLACE_BYTES;
      return new Unfinished((later) => readDependencies(read, reached, later), heldBytes);
    }
    const storyId = waiting[at] as string;
    if (graph.has(storyId)) continue;
    looked += 1;
    const known = yield* one(selectDependsOn, { storyId });
    if (known === undefined) continue;
    const dependsOn = JSON.parse(known.depends_on) as string[];
    graph.set(storyId, dependsOn);
    if (waiting.length < 2 * MAX_GRAPH_ITEMS || at === 0) waiting.push(...dependsOn);
  }
  const looksAtAll = at >= waiting.length || at > read.item.dependsOn.length;
  const { missing, cycle } = dependencyProblems(read.item.storyId, graph);
  return {
    ...read,
    ...(missing.length > 0 && looksAtAll ? { missing } : {}),
    ...(cycle === null ? {} : { cycle }),
  };
}

export function* list(
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  const { stage, agent, blocked, label, limit, after } = params;
  const start = after === undefined ? START : placeOf(after);
  if (start === undefined || (stage !== undefined && after !== undefined && start[0] !== stage)) {
    const message = `${shown(after)} is not the \`next\` of a page of this list`;
    return refuse("invalid_params", `${message}. Begin without \`after\`.`, {
      issues: [{ path: "/after", message }],
    });
  }
  if (params.perStage !== undefined) return yield* overview(start[0], params.perStage, params, env);
  if (params.text !== undefined) return yield* searchItems(queryOf(params.text), start, params, env);
  const from: ListPlace = stage === undefined ? start : [stage, start[1], start[2]];
  const isFiltered = agent !== undefined || blocked !== undefined || label !== undefined;
  const behind = yield* one(stage === undefined ? selectPlaceBehind : selectPlaceBehindInStage, {
    ...placeParams(from),
    // The first that the page has no room for, of a list that shows all.
    passed: isFiltered ? MAX_SCANNED_ITEMS - 1 : limit,
  });
  const end: ListPlace = behind === undefined ? END : [behind.stage, behind.rank, behind.story_id];
  const range = { ...filtersOf(params), lastStage: end[0], lastRank: end[1], lastStoryId: end[2] };
  const next = behind && end;
  if (limit <= LISTED_AT_ONCE || !env.mayGoOn) return yield* listAtOnce(from, range, next, params, env);
  const rows = { ...placeParams(from), ...range, rows: limit + 1 };
  const places = yield* all(stage === undefined ? selectPlaces : selectPlacesOfStage, rows);
  const listed = places.map((row): ListPlace => [row.stage, row.rank, row.story_id]);
  return yield* showFrom(0, listed, new Page(limit), next, params, env);
}

/** A page of what is in a range, which `next` is behind, if anything is. */
function* listAtOnce(
  from: ListPlace,
  range: Readonly<Record<string, string | number | null>>,
  next: ListPlace | undefined,
  { stage, limit }: Parsed<"pipeline.list">,
  env: Env,
): Operation<Result<"pipeline.list">> {
  const page = new Page(limit);
  let place = from;
  for (;;) {
    const rows: StoredItem[] = yield* all(stage === undefined ? selectItems : selectItemsOfStage, {
      ...placeParams(place),
      ...range,
      rows: ITEMS_PER_READ,
    });
    for (const stored of rows) {
      const loaded = loadedItem(stored);
      if (page.isFull) return page.upTo(place);
      const item = (yield* shownItem(loaded, env)) as ShownItem;
      if (!page.add(item)) return page.upTo(place);
      place = placeOfItem(item);
    }
    if (rows.length < ITEMS_PER_READ) return page.upTo(next);
    const last = rows.at(-1) as StoredItem;
    place = [last.stage as string, last.rank, last.story_id];
  }
}

/**
 * One step of a long page, and those that follow it. Others move items between two steps, so the page has those that
 * were in it when it was begun, each once, as its step finds it: an item that has been deleted, or that the filters do
 * not let through any more, is left out.
 */
function* showFrom(
  first: number,
  places: readonly ListPlace[],
  before: Page,
  next: ListPlace | undefined,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  const page = before.copy();
  const end = Math.min(first + LISTED_PER_STEP, places.length);
  for (let index = first; index < end; index++) {
    const place = places[index] as ListPlace;
    const loaded = page.isFull ? undefined : yield* findItem(place[2]);
    if (!page.isFull && (loaded === undefined || !fits(loaded.row, params))) continue;
    const item = loaded && (yield* shownItem(loaded, env));
    if (item === null) continue;
    if (item === undefined || !page.add(item, place)) return page.upTo(places[index - 1]);
  }
  page.write();
  if (end === places.length) return page.upTo(next);
  const heldBytes = page.heldBytes + places.length * PLACE_BYTES;
  return new Unfinished((later) => showFrom(end, places, page, next, params, later), heldBytes);
}

/** True of an item that is there, and that the filters of a list let through. */
function fits(row: ItemRow, { stage, agent, blocked, label }: Parsed<"pipeline.list">): boolean {
  return (
    row.stage !== null &&
    (stage === undefined || row.stage === stage) &&
    (agent === undefined || row.agent === agent) &&
    (blocked === undefined || row.blocked === blocked) &&
    (label === undefined || row.labels.includes(label))
  );
}

function filtersOf({
  agent,
  blocked,
  label,
}: Parsed<"pipeline.list">): Record<string, string | number | null> {
  return {
    anyAgent: agent === undefined ? 1 : 0,
    agent: agent ?? null,
    label: label === undefined ? "" : JSON.stringify(label),
    anyBlocked: blocked === undefined ? 1 : 0,
    blocked: blocked ? 1 : 0,
  };
}

/**
 * The first items of each stage behind one, and how many each has. Refuses with `invalid_params` within `transact`,
 * because there may be much to count.
 */
function* overview(
  after: string,
  perStage: number,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  if (!env.mayGoOn) return notInTransaction("perStage");
  return yield* countFrom([after, END[1], END[2]], NO_OVERVIEW, perStage, params, env);
}

/** What is known of the stages so far. A step goes on with a copy, because its turn may be rolled back. */
interface Overview {
  readonly stages: ReadonlyMap<string, ShownItem[]>;
  readonly counts: ReadonlyMap<string, number>;
  /** Of all items shown. */
  readonly items: number;
  readonly characters: number;
  readonly fields: number;
  /** True if no more items of the stage at hand are shown: there was no room for one. */
  readonly isCut: boolean;
}

const NO_OVERVIEW: Overview = {
  stages: new Map<string, ShownItem[]>(),
  counts: new Map(),
  items: 0,
  characters: 0,
  fields: 0,
  isCut: false,
};

/** One step of counting, and those that follow it; a step begins a stage or goes on within one. */
function* countFrom(
  from: ListPlace,
  before: Overview,
  perStage: number,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  const [stages, counts] = [new Map(before.stages), new Map(before.counts)];
  let { items, characters, fields, isCut } = before;
  let place = from;
  // A stage that is begun is shown as far as was asked for, unless that is too much at all.
  const isLarge = (): boolean => characters > MAX_PAGE_BYTES || fields >= MAX_PAGE_FIELDS;
  for (let counted = 0; counted < COUNTED_PER_STEP; ) {
    if (place[1] === END[1]) {
      const { stage = null } = (yield* one(selectNextStage, { stage: place[0] })) ?? {};
      if (stage === null || items >= params.limit || isLarge()) {
        const answer = { stages: Object.fromEntries(stages), counts: Object.fromEntries(counts) };
        return stage === null ? answer : { ...answer, next: JSON.stringify([place[0], "", ""]) };
      }
      place = [stage, "", ""];
      isCut = false;
    }
    const [stage] = place;
    const behind = yield* one(selectPlaceBehindInStage, {
      ...placeParams(place),
      passed: COUNTED_AT_ONCE - 1,
    });
    const end: ListPlace =
      behind === undefined ? [stage, END[1], END[2]] : [stage, behind.rank, behind.story_id];
    const range = { ...placeParams(place), ...filtersOf(params), lastRank: end[1], lastStoryId: end[2] };
    const shown = [...(stages.get(stage) ?? [])];
    const rows =
      isCut || shown.length >= perStage
        ? []
        : yield* all(selectItemsOfStage, { ...range, rows: perStage - shown.length });
    for (const row of rows) {
      isCut = shown.length > 0 && isLarge();
      if (isCut) break;
      const item = (yield* shownItem(loadedItem(row), env)) as ShownItem;
      shown.push(item);
      items += 1;
      characters += charactersOf([item]);
      fields += fieldsOf(item);
    }
    const found = (yield* one(countItemsOfStage, range))?.counted ?? 0;
    if (found > 0) {
      stages.set(stage, shown);
      counts.set(stage, (counts.get(stage) ?? 0) + found);
    }
    counted += behind === undefined ? found + 1 : COUNTED_AT_ONCE;
    place = end;
  }
  const after: Overview = { stages, counts, items, characters, fields, isCut };
  const heldBytes = pageBytes(characters, items, params.limit) + counts.size * PLACE_BYTES;
  return new Unfinished((later) => countFrom(place, after, perStage, params, later), heldBytes);
}

function notInTransaction(param: string): PawlError {
  const message = "is not taken in a transaction; ask before it";
  return refuse("invalid_params", `pipeline.list: ${param} ${message}.`, {
    issues: [{ path: `/${param}`, message }],
  });
}

function fieldsOf({ fields }: ShownItem): number {
  return isEmpty(fields) ? 0 : Object.keys(fields).length;
}

/** As much as items are as JSON, but for what is the same in all. */
function charactersOf(items: readonly ShownItem[]): number {
  let characters = 0;
  for (const { storyId, name, agent, dependsOn, labels, fields } of items) {
    characters += storyId.length + (name?.length ?? 0) + (agent?.length ?? 0);
    for (const set of [dependsOn, labels, fields]) {
      if (!isEmpty(set)) characters += JSON.stringify(set).length;
    }
  }
  return characters;
}

/** An item of a page, or its text, and the place that it has. */
interface Shown {
  readonly place: ListPlace;
  item: ShownItem;
}

/** Items by stage, as many as there is room for. */
class Page {
  #stages = new Map<string, Shown[]>();
  readonly #limit: number;
  #taken = 0;
  #characters = 0;
  #fields = 0;
  /** True if items stand where others were when the page was begun. */
  #hasMoved = false;
  /** Those that were added since the page was copied. */
  #added: Shown[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** For another step: the turn of the last one may be rolled back. */
  copy(): Page {
    const page = new Page(this.#limit);
    page.#stages = new Map([...this.#stages].map(([stage, items]) => [stage, [...items]]));
    page.#taken = this.#taken;
    page.#characters = this.#characters;
    page.#fields = this.#fields;
    page.#hasMoved = this.#hasMoved;
    return page;
  }

  get isFull(): boolean {
    return this.#taken === this.#limit || this.#fields >= MAX_PAGE_FIELDS;
  }

  /**
   * Returns false for an item that there is no room for; the first is taken however large it is.
   *
   * @param before its place when the page was begun, if others have been served since.
   */
  add(item: ShownItem, before?: ListPlace): boolean {
    this.#characters += charactersOf([item]);
    this.#fields += fieldsOf(item);
    if (this.#taken > 0 && this.#characters > MAX_PAGE_BYTES) return false;
    const place = placeOfItem(item);
    if (before !== undefined && (before[0] !== place[0] || before[1] !== place[1])) this.#hasMoved = true;
    const shown = { place, item };
    const items = this.#stages.get(item.stage);
    if (items === undefined) this.#stages.set(item.stage, [shown]);
    else items.push(shown);
    this.#added.push(shown);
    this.#taken += 1;
    return true;
  }

  /** What it takes in memory, about. */
  get heldBytes(): number {
    return pageBytes(this.#characters, this.#taken, this.#limit);
  }

  /** Writes what was added: as texts they take less memory until the page is whole, and no time then. */
  write(): void {
    for (const each of this.#added)
      each.item = new RawJson(JSON.stringify(each.item)) as unknown as ShownItem;
    this.#added = [];
  }

  /** The page, and after which place the next one begins. */
  upTo(place: ListPlace | undefined): Result<"pipeline.list"> {
    const stages = [...this.#stages];
    if (this.#hasMoved) {
      stages.sort(([a], [b]) => (isBefore([a, "", ""], [b, "", ""]) ? -1 : 1));
      for (const [, items] of stages) items.sort((a, b) => (isBefore(a.place, b.place) ? -1 : 1));
    }
    return {
      stages: Object.fromEntries(stages.map(([stage, items]) => [stage, items.map(({ item }) => item)])),
      ...(place === undefined ? {} : { next: JSON.stringify(place) }),
    };
  }
}

function isEmpty(set: object): boolean {
  for (const _ in set) return false;
  return true;
}

/**
 * A page of the items whose words are searched for, in the order of all lists. Refuses with `not_found` in a daemon
 * that only reads, if nobody has searched before, and with `invalid_params` within `transact`, because there may be
 * much to go through.
 */
function* searchItems(
  query: string,
  after: ListPlace,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  if (!env.mayGoOn) return notInTransaction("text");
  const mayWrite = env.identity !== null;
  if (mayWrite ? !(yield* makeIndex()) : !(yield* isIndexWhole())) {
    if (mayWrite) return new Unfinished((later) => searchItems(query, after, params, later));
    return refuse(
      "not_found",
      "Nobody has searched this board yet, so that there is no index of its texts. Ask the daemon that writes the database.",
      { what: "index" },
    );
  }
  return yield* matchFrom(0, new Set(), query, after, params, env);
}

/** One step through the rows of the index, and those that follow it. */
function* matchFrom(
  doc: number,
  before: ReadonlySet<string>,
  query: string,
  after: ListPlace,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  const found = new Set(before);
  const next = yield* findMatches(query, doc, found);
  if (next !== undefined) {
    const heldBytes = found.size * PLACE_BYTES;
    return new Unfinished((later) => matchFrom(next, found, query, after, params, later), heldBytes);
  }
  return yield* placeFrom(0, [...found], [], after, params, env);
}

/** One step through the items that were found, which keeps those that a page may have, and those that follow it. */
function* placeFrom(
  first: number,
  found: readonly string[],
  before: readonly ListPlace[],
  after: ListPlace,
  params: Parsed<"pipeline.list">,
  env: Env,
): Operation<Outcome<Result<"pipeline.list">>> {
  const { limit } = params;
  const fitting = [...before];
  for (const storyId of found.slice(first, first + FOUND_PER_STEP)) {
    const loaded = yield* findItem(storyId);
    if (loaded === undefined || !fits(loaded.row, params)) continue;
    const place = placeOfItem(loaded.row as Placed);
    if (isBefore(after, place)) fitting.push(place);
  }
  fitting.sort((a, b) => (isBefore(a, b) ? -1 : 1));
  // One more than a page has room for says that there is another one.
  const kept = fitting.slice(0, limit + 1);
  if (first + FOUND_PER_STEP < found.length) {
    const heldBytes = (found.length + kept.length) * PLACE_BYTES;
    const next = first + FOUND_PER_STEP;
    return new Unfinished((later) => placeFrom(next, found, kept, after, params, later), heldBytes);
  }
  return yield* showFrom(0, kept, new Page(limit), undefined, params, env);
}

interface Placed {
  readonly stage: string;
  readonly rank: string;
  readonly storyId: string;
}

function placeOfItem({ stage, rank, storyId }: Placed): ListPlace {
  return [stage, rank, storyId];
}

/** In the order of the database, which compares texts by their bytes in UTF-8. */
function isBefore(a: ListPlace, b: ListPlace): boolean {
  for (const [index, part] of a.entries()) {
    const other = b[index] as string;
    if (part !== other) return Buffer.compare(Buffer.from(part), Buffer.from(other)) < 0;
  }
  return false;
}

function placeParams([stage, rank, storyId]: ListPlace): Record<string, string> {
  return { stage, rank, storyId };
}

export function* history(
  params: Parsed<"pipeline.history">,
  env: Env,
): Operation<Outcome<Result<"pipeline.history">>> {
  const { after } = params;
  const from = after === undefined ? NEWEST : stampAt(after);
  if (from === undefined) {
    const message = `${shown(after)} is not the \`next\` of a page of a history`;
    return refuse("invalid_params", `${message}. Begin without \`after\`.`, {
      issues: [{ path: "/after", message }],
    });
  }
  return yield* historyFrom(from, { changes: [], bytes: 0 }, params, env);
}

/** One step of a page, and those that follow it. */
function* historyFrom(
  from: StampRow,
  before: { readonly changes: Result<"pipeline.history">["changes"]; readonly bytes: number },
  { storyId, limit }: Parsed<"pipeline.history">,
  env: Env,
): Operation<Outcome<Result<"pipeline.history">>> {
  const rows = Math.min(limit - before.changes.length, HISTORY_PER_STEP);
  const { wall, counter, author, change_id: id } = from;
  const isOlder = (a: StampRow, b: StampRow) => isNewer(stampOfRow(b), stampOfRow(a));
  const recent: TouchRow[] = [];
  for (const n of (yield* findItem(storyId))?.recent ?? []) {
    const touch = yield* one(selectTouch, { n });
    if (touch !== undefined && isOlder(touch, from)) recent.push(touch);
  }
  const touches = [
    ...(yield* all(selectHistory, { storyId, wall, counter, author, id, rows: rows + 1 })),
    ...recent,
  ].sort((a, b) => (isOlder(a, b) ? 1 : -1));
  const changes = [...before.changes];
  let { bytes } = before;
  let characters = 0;
  let last: TouchRow | undefined;
  for (const touch of touches) {
    const isStepFull =
      changes.length - before.changes.length === rows || characters > HISTORY_CHARACTERS_PER_STEP;
    const row = isStepFull ? undefined : ((yield* one(selectChange, { n: touch.n })) as ChangeRow);
    bytes += row?.body.length ?? 0;
    const isFull = changes.length > 0 && (changes.length === limit || bytes > MAX_PAGE_BYTES);
    if (last !== undefined && (isFull || (row === undefined && !env.mayGoOn))) {
      return { changes, next: cursorOf(last) };
    }
    if (row === undefined) {
      const to = last ?? from;
      const heldBytes = pageBytes(bytes, changes.length, limit);
      return new Unfinished(
        (later) => historyFrom(to, { changes, bytes }, { storyId, limit }, later),
        heldBytes,
      );
    }
    characters += row.body.length;
    const op = readStored(touch.change_id, row).ops.find((each) => each.storyId === storyId) as Op;
    changes.push({
      changeId: touch.change_id,
      author: touch.author,
      name: row.name,
      at: touch.wall,
      ...describeOp(op),
    });
    last = touch;
  }
  return { changes };
}

/** A place in a history, by which the next page is found without going through those before. */
function cursorOf({ wall, counter, author, change_id: id }: StampRow): string {
  return JSON.stringify([wall, counter, author, id]);
}

function stampAt(cursor: string): StampRow | undefined {
  try {
    const [wall, counter, author, id, ...rest] = JSON.parse(cursor) as unknown[];
    const areNumbers = Number.isSafeInteger(wall) && Number.isSafeInteger(counter);
    if (!areNumbers || typeof author !== "string" || typeof id !== "string" || rest.length > 0)
      return undefined;
    return { wall: wall as number, counter: counter as number, author, change_id: id };
  } catch {
    return undefined;
  }
}

/** How many logs go off from others. */
export function* countForks(): Operation<number> {
  return (yield* one(selectForks))?.forks ?? 0;
}

/** How many changes are stored here: those that came, but for those that compaction has taken away. */
export function* countChanges(): Operation<number> {
  return (yield* revisionOfBoard()) - ((yield* one(selectRemoved))?.removed ?? 0);
}

/** The number of the last change that came here. */
export function* revisionOfBoard(): Operation<number> {
  return (yield* one(lastChange))?.n ?? 0;
}

/** A place in a list: stage, rank, storyId. */
type ListPlace = readonly [string, string, string];

/** Before every item: no stage is empty. */
const START: ListPlace = ["", "", ""];

/** After every item: no character is greater, and no rank has this one. */
const END: ListPlace = ["\u{10ffff}".repeat(MAX_STAGE_LENGTH), "\u{10ffff}", ""];

/** After every change: a counter is less. */
const NEWEST: StampRow = {
  wall: Number.MAX_SAFE_INTEGER,
  counter: Number.MAX_SAFE_INTEGER,
  author: "",
  change_id: "",
};

function placeOf(cursor: string): ListPlace | undefined {
  try {
    const place = JSON.parse(cursor) as unknown;
    const fits =
      Array.isArray(place) && place.length === 3 && place.every((part) => typeof part === "string");
    return fits ? (place as unknown as ListPlace) : undefined;
  } catch {
    return undefined;
  }
}
