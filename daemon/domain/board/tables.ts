import { Buffer } from "node:buffer";
import { all, insert, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { Json } from "./canonical.js";
import { type Change, isCounter, NOTE, type Op, OWN_FIELD, ownFieldOf } from "./change.js";
import { findCut } from "./cuts.js";
import { CLOCK_START, compareHlc, type Hlc, observe } from "./hybrid-clock.js";
import { type Place, stepHeads } from "./log.js";
import {
  type Cell,
  type Increment,
  type Item,
  type ItemRow,
  itemOf,
  type Merged,
  merge,
  noteOfField,
  type Stamp,
  type Stored,
  stampOf,
} from "./merge.js";
import { loadRules, type Rules, type RulesRow, rulesOf } from "./rules.js";
import { indexChange } from "./texts.js";
import { keepDependencies, keepLabels, tellOfItem, type WorkState } from "./work-state.js";

/*
 * How changes come into the tables: one way for those made here and those of others. Nothing of this is kept
 * in memory, so that after a rolled-back transaction the clock and the logs are what the database says.
 */

/** The key under which calls are parked that wait for the board to change. */
export const BOARD_KEY = "board";

const selectNode = sql<NodeRow>(`
  SELECT n.author, n.board, n.incarnation, n.wall, n.counter, n.branch, n.texts, b.head_seq, b.head_id,
    r.stages, r.transitions, r.max_retries, r.laying
  FROM pawl_board n LEFT JOIN pawl_branch b ON b.branch = n.branch LEFT JOIN pawl_board_rules r ON r.id = 1`);

const insertNode = sql(`
  INSERT INTO pawl_board (id, author, incarnation, board, branch, wall, counter, file)
  VALUES (1, :author, :incarnation, NULL, NULL, 0, 0, :file)`);

const updateNode = sql(
  "UPDATE pawl_board SET board = :board, branch = :branch, wall = :wall, counter = :counter WHERE id = 1",
);

const beginLog = sql("UPDATE pawl_board SET incarnation = :incarnation, branch = NULL WHERE id = 1");

const selectBranches = sql<BranchRow>(
  "SELECT branch, from_seq, head_seq, head_id, cut_seq FROM pawl_branch WHERE author = :author AND incarnation = :incarnation",
);

const insertBranch = sql(`
  INSERT INTO pawl_branch (author, incarnation, parent, from_seq, head_seq, head_id)
  VALUES (:author, :incarnation, :parent, :fromSeq, :seq, :id)`);

const moveHead = sql("UPDATE pawl_branch SET head_seq = :seq, head_id = :id WHERE branch = :branch");

const selectAt = sql<{ change_id: string; wall: number; counter: number }>(
  "SELECT change_id, wall, counter FROM pawl_change WHERE branch = :branch AND seq = :seq",
);

const selectHead = sql<PlaceRow>(`
  SELECT b.author, b.incarnation, c.branch, c.seq, c.wall, c.counter
  FROM pawl_branch b JOIN pawl_change c ON c.branch = b.branch AND c.seq = b.head_seq
  WHERE b.head_id = :id`);

const insertChange = sql(`
  INSERT INTO pawl_change (change_id, branch, seq, wall, counter, body, signature)
  VALUES (:id, :branch, :seq, :wall, :counter, :body, :signature)`);

const keepTouch = sql(`
  INSERT INTO pawl_touch (story_id, wall, counter, n)
  SELECT :storyId, wall, counter, n FROM pawl_change WHERE n = :n`);

const updateRecent = sql("UPDATE pawl_item SET recent = :recent WHERE story_id = :storyId");

const selectItem = sql<StoredItem>("SELECT * FROM pawl_item WHERE story_id = :storyId");

const upsertItem = sql(`
  INSERT INTO pawl_item (story_id, generation, wall, counter, author, change_id, stage, name, agent, blocked,
    rank, retry_base, retry_added, depends_on, labels, fields, notes, priority, set_by, recent, waits, held, ready)
  VALUES (:storyId, :generation, :wall, :counter, :author, :id, :stage, :name, :agent, :blocked,
    :rank, :retryBase, :retryAdded, :dependsOn, :labels, :fields, :notes, :priority, :setBy, :recent,
    :waits, :held, :ready)
  ON CONFLICT (story_id) DO UPDATE SET generation = excluded.generation, wall = excluded.wall,
    counter = excluded.counter, author = excluded.author, change_id = excluded.change_id, stage = excluded.stage,
    name = excluded.name, agent = excluded.agent, blocked = excluded.blocked, rank = excluded.rank,
    retry_base = excluded.retry_base, retry_added = excluded.retry_added, depends_on = excluded.depends_on,
    labels = excluded.labels, fields = excluded.fields, notes = excluded.notes, priority = excluded.priority,
    set_by = excluded.set_by, recent = excluded.recent, waits = excluded.waits, held = excluded.held,
    ready = excluded.ready`);

const selectStamp = sql<StampRow>(`
  SELECT c.wall, c.counter, b.author, c.change_id
  FROM pawl_change c JOIN pawl_branch b ON b.branch = c.branch WHERE c.n = :n`);

const selectCell = sql<StampRow & { value: string }>(`
  SELECT e.value, c.wall, c.counter, b.author, c.change_id
  FROM pawl_cell e JOIN pawl_change c ON c.n = e.n JOIN pawl_branch b ON b.branch = c.branch
  WHERE e.story_id = :storyId AND e.field = :field`);

const upsertCell = sql(`
  INSERT INTO pawl_cell (story_id, field, value, n) VALUES (:storyId, :field, :value, :n)
  ON CONFLICT (story_id, field) DO UPDATE SET value = excluded.value, n = excluded.n`);

/** The values of fields of the user's own: their names begin with f/, and 0 is the character after the slash. */
const selectFields = sql<{ field: string; value: string }>(`
  SELECT field, value FROM pawl_cell
  WHERE story_id = :storyId AND field > '${OWN_FIELD}' AND field < 'f0' ORDER BY field`);

const insertNote = sql(`
  INSERT INTO pawl_note (story_id, wall, counter, n, idx)
  SELECT :storyId, wall, counter, n, :index FROM pawl_change WHERE n = :n`);

const deleteNotes = sql("DELETE FROM pawl_note WHERE story_id = :storyId");

const deleteCells = sql("DELETE FROM pawl_cell WHERE story_id = :storyId");

const selectIncrements = sql<StampRow & { n: number; amount: number }>(`
  SELECT e.n, e.amount, c.wall, c.counter, b.author, c.change_id
  FROM pawl_increment e JOIN pawl_change c ON c.n = e.n JOIN pawl_branch b ON b.branch = c.branch
  WHERE e.story_id = :storyId AND e.field = :field`);

const insertIncrement = sql(
  "INSERT INTO pawl_increment (story_id, field, n, amount) VALUES (:storyId, :field, :n, :amount)",
);

const deleteIncrement = sql(
  "DELETE FROM pawl_increment WHERE story_id = :storyId AND field = :field AND n = :n",
);

const deleteIncrements = sql("DELETE FROM pawl_increment WHERE story_id = :storyId");

interface NodeRow extends RulesRow {
  author: string;
  board: string | null;
  incarnation: string;
  wall: number;
  counter: number;
  branch: number | null;
  texts: string | null;
  head_seq: number | null;
  head_id: string | null;
}

interface BranchRow {
  branch: number;
  from_seq: number;
  head_seq: number;
  head_id: string;
  cut_seq: number;
}

interface PlaceRow {
  author: string;
  incarnation: string;
  branch: number;
  seq: number;
  wall: number;
  counter: number;
}

/** A stamp as columns. */
export interface StampRow {
  wall: number;
  counter: number;
  author: string;
  change_id: string;
}

/** A row of `pawl_item`. */
export interface StoredItem extends StampRow {
  story_id: string;
  generation: number;
  stage: string | null;
  name: string | null;
  agent: string | null;
  blocked: number;
  rank: string;
  retry_base: number;
  retry_added: number;
  depends_on: string;
  labels: string;
  fields: string;
  /** -1 for an item that is to be made anew from its changes. */
  notes: number;
  priority: number;
  set_by: string;
  recent: string;
  waits: number;
  held: number;
  ready: number;
}

/** Fields that have a column in an item's row; what set them is known by `set_by`. */
const COLUMN_FIELDS = ["stage", "name", "agent", "blocked", "rank", "retryCount"] as const;
type ColumnField = (typeof COLUMN_FIELDS)[number];

/** By field, the number of the change that set it, in the order of the columns. */
export type SetBy = Readonly<Partial<Record<ColumnField, number>>>;

export interface LoadedItem {
  readonly row: ItemRow;
  readonly setBy: SetBy;
  readonly recent: Recent;
  readonly work: WorkState;
}

/** The numbers of the last changes about an item, which are not in `pawl_touch` yet. */
export type Recent = readonly number[];

/** They move there so many at a time: only one change in so many writes a page of it. */
const MAX_RECENT_CHANGES = 32;

/** This node as it stands in the database. */
export interface Node {
  readonly author: string;
  readonly incarnation: string;
  /** Null fits any. */
  readonly board: string | null;
  /** The latest time of any change here. */
  readonly clock: Hlc;
  /** The last change of its own log, and the branch it is on; null before the first. */
  readonly head: { readonly branch: number; readonly seq: number; readonly hash: string } | null;
  readonly rules: Rules;
  /** Up to which item their words are in the index of texts; null if there is none. */
  readonly texts: string | null;
  /** Which file the database is, for a node that is not in it yet: it is when it first has something to keep. */
  readonly newIn?: string;
}

/** Where a stored change stands, and on which branch. */
export type StoredPlace = Place & {
  readonly branch: number;
  /** True if the change itself was taken away. */
  readonly isCut?: true;
};

/** This node; undefined in a database that was not used on a board. */
export function* findNode(): Operation<Node | undefined> {
  const row = yield* one(selectNode);
  if (row === undefined) return undefined;
  const { author, board, incarnation, wall, counter, branch, texts, head_seq: seq, head_id: hash } = row;
  const head = branch === null || seq === null || hash === null ? null : { branch, seq, hash };
  return { author, board, incarnation, clock: [wall, counter], head, rules: rulesOf(row), texts };
}

/** This node, in a daemon that writes. Its key is made if there is none. */
export function* loadNode(env: Env): Operation<Node> {
  const node = yield* findNode();
  if (node !== undefined) return node;
  if (env.identity === null) throw new Error("what only reads has no identity");
  const { author, databaseFile } = env.identity();
  // As good as random, and the same until it is kept: nobody else knows the secret of this database.
  const incarnation = Buffer.from(env.sign(`board ${author} ${databaseFile}`), "base64url")
    .subarray(0, INCARNATION_BYTES)
    .toString("hex");
  return {
    author,
    board: null,
    incarnation,
    clock: CLOCK_START,
    head: null,
    texts: null,
    rules: yield* loadRules(),
    newIn: databaseFile,
  };
}

/** Puts a node into the database that is not there yet. */
export function* keepNode({ newIn: file, ...node }: Node): Operation<Node> {
  const { author, incarnation } = node;
  if (file !== undefined) yield* run(insertNode, { author, incarnation, file });
  return node;
}

/** Goes on under a new random incarnation: somebody has changes of the log that this node does not have. */
export function* beginNewLog(node: Node, reason: string, env: Env): Operation<Node> {
  const incarnation = env.random(INCARNATION_BYTES).toString("hex");
  yield* run(beginLog, { incarnation });
  env.effects.log("the board goes on under a new incarnation", {
    reason,
    from: node.incarnation,
    to: incarnation,
  });
  return { ...node, incarnation, head: null };
}

/** Of the random name of a log. */
export const INCARNATION_BYTES = 16;

/** A log, and the branches of it that are here: one, or more where it is forked. */
export interface KnownLog {
  readonly author: string;
  readonly incarnation: string;
  readonly branches: readonly BranchRow[];
}

export function* findLog({ author, incarnation }: Omit<KnownLog, "branches">): Operation<KnownLog> {
  return { author, incarnation, branches: yield* all(selectBranches, { author, incarnation }) };
}

/** Where a change of a log stands, undefined if it is not here. */
export function* findPlace(
  { author, incarnation, branches }: KnownLog,
  seq: number,
  id: string,
): Operation<StoredPlace | undefined> {
  for (const { branch, from_seq: fromSeq, head_seq: headSeq, cut_seq: cutSeq } of branches) {
    if (seq <= fromSeq || seq > headSeq) continue;
    const row = yield* one(selectAt, { branch, seq });
    const cut = row === undefined && seq <= cutSeq ? yield* findCut(branch, seq) : undefined;
    if (cut?.id === id) return { author, incarnation, branch, seq, hlc: cut.hlc, isCut: true };
    if (row?.change_id !== id) continue;
    return { author, incarnation, branch, seq, hlc: [row.wall, row.counter] };
  }
  return undefined;
}

/** Where a change stands that is the last of any log. */
export function* findHead(id: string): Operation<StoredPlace | undefined> {
  const row = yield* one(selectHead, { id });
  if (row === undefined) return undefined;
  const { author, incarnation, branch, seq, wall, counter } = row;
  return { author, incarnation, branch, seq, hlc: [wall, counter] };
}

/** The rows of an item; undefined if it was never seen. */
export function* findItem(storyId: string): Operation<LoadedItem | undefined> {
  const row = yield* one(selectItem, { storyId });
  return row && loadedItem(row);
}

export function loadedItem(row: StoredItem): LoadedItem {
  return {
    row: itemRowOf(row),
    setBy: JSON.parse(row.set_by) as SetBy,
    recent: JSON.parse(row.recent) as Recent,
    work: { waits: row.waits, held: row.held === 1, ready: row.ready === 1 },
  };
}

function itemRowOf(row: StoredItem): ItemRow {
  return {
    storyId: row.story_id,
    generation: row.generation,
    stamp: stampOfRow(row),
    stage: row.stage,
    name: row.name,
    agent: row.agent,
    blocked: row.blocked === 1,
    rank: row.rank,
    retryBase: row.retry_base,
    retryAdded: row.retry_added,
    dependsOn: parseSet(row.depends_on),
    labels: parseSet(row.labels),
    fields: parseSet(row.fields),
    notes: Math.max(0, row.notes),
    priority: row.priority,
  };
}

/** Most are empty. */
function parseSet(json: string): readonly string[] {
  return json === "[]" ? NO_ELEMENTS : (JSON.parse(json) as string[]);
}

const NO_ELEMENTS: readonly string[] = [];

/** The item that a row shows, with the values of its fields: a statement more for an item that has any. */
export function* showItem(row: ItemRow): Operation<Item | null> {
  if (row.fields.length === 0 || row.stage === null) return itemOf(row);
  const names = new Set(row.fields);
  const fields: [string, Json][] = [];
  for (const { field, value } of yield* all(selectFields, { storyId: row.storyId })) {
    const name = ownFieldOf(field);
    if (name !== undefined && names.has(name)) fields.push([name, JSON.parse(value) as Json]);
  }
  return itemOf(row, Object.fromEntries(fields));
}

export function stampOfRow({ wall, counter, author, change_id: hash }: StampRow): Stamp {
  return { wall, counter, author, hash };
}

/**
 * Stores a change that is not stored yet and fits into its log (`checkPlace`), and brings everything that
 * follows from it up to date. Gives the node as it is afterwards.
 *
 * @param log that it belongs to; not needed for what continues this node's own.
 * @param prev where the change before it stands, undefined for the first of a log.
 * @param items those of its ops that were loaded already, which then are as it makes them.
 * @param told what those who follow its item are told, if it is more than a change of the item.
 */
export function* storeChange(
  change: Change,
  log: KnownLog | undefined,
  prev: Pick<StoredPlace, "branch"> | undefined,
  known: Node,
  env: Env,
  items: Map<string, LoadedItem | undefined> = new Map(),
  told?: Told,
): Operation<Node> {
  const node = yield* keepNode(known);
  const branch = yield* moveHeads(change, log, prev, node, env);
  return yield* storeAt(branch, change, node, env, items, told);
}

/** Stores a change at its place in a branch, and what it makes of its items. */
export function* storeAt(
  branch: number,
  change: Change,
  node: Node,
  env: Env,
  items: Map<string, LoadedItem | undefined> = new Map(),
  told?: Told,
): Operation<Node> {
  const { id, seq, hlc, body, signature } = change;
  const [wall, counter] = hlc;
  const n = yield* insert(insertChange, { id, branch, seq, wall, counter, body, signature });
  const isOwnLog = change.author === node.author && change.incarnation === node.incarnation;
  const isOwn = isOwnLog && seq > (node.head?.seq ?? 0);
  const after: Node = {
    ...node,
    board: change.board,
    clock: observe(node.clock, hlc),
    head: isOwn ? { branch, seq, hash: id } : node.head,
  };
  const [latestWall, latestCounter] = after.clock;
  yield* run(updateNode, {
    board: change.board,
    branch: after.head?.branch ?? null,
    wall: latestWall,
    counter: latestCounter,
  });
  const isLatest = compareHlc(hlc, node.clock) > 0;
  for (const op of change.ops) {
    const item = items.has(op.storyId) ? items.get(op.storyId) : yield* findItem(op.storyId);
    const merged = yield* mergeOp(op, item, stampOf(change), n, isLatest, node.rules);
    if (node.texts !== null && merged !== undefined && merged.row !== item?.row) {
      yield* indexChange(node.texts, op, item?.row, merged.row, n);
    }
    countShown(item?.row, merged?.row, env);
    if (merged !== undefined && merged.row !== item?.row) {
      tellItem(item?.row, merged.row, told, env);
      yield* tellOfItem(item?.row, merged.row, merged.work, node.rules, 1 / change.ops.length, env);
    }
    items.set(op.storyId, merged);
  }
  env.effects.wake(BOARD_KEY);
  return after;
}

/** The event that a change is. */
export interface Told {
  readonly kind: "claimed" | "finished" | "abandoned";
  readonly by: string;
}

/** Tells what a change has made of an item; nothing if it shows nothing else. */
function tellItem(before: ItemRow | undefined, after: ItemRow, told: Told | undefined, env: Env): void {
  const [from, to] = [before?.stage ?? undefined, after.stage ?? undefined];
  const { storyId } = after;
  const by = after.agent ?? undefined;
  if (from === undefined && to === undefined) return;
  if (told !== undefined)
    return env.effects.tell("item", storyId, told.kind, storyId, { by: told.by, from, to });
  if (from === undefined) env.effects.tell("item", storyId, "created", storyId, { by, to });
  else if (to === undefined) env.effects.tell("item", storyId, "deleted", storyId, { from });
  else if (from !== to) env.effects.tell("item", storyId, "moved", storyId, { by, from, to });
  else env.effects.tell("item", storyId, "changed", storyId, { by });
}

/** Counts an item that begins or ceases to be shown. */
export function countShown(before: ItemRow | undefined, after: ItemRow | undefined, env: Env): void {
  const isShown = (row: ItemRow | undefined): number => (typeof row?.stage === "string" ? 1 : 0);
  const by = isShown(after) - isShown(before);
  if (by !== 0) env.effects.count("items", by);
}

/**
 * Gives the branch on which a change goes on, or a new one for what begins or forks a log.
 *
 * @param change one, or the last of some that follow each other from `first` and `prev` on.
 */
export function* moveHeads(
  change: Pick<Change, "author" | "incarnation" | "seq" | "id" | "prev"> & { readonly first?: number },
  log: KnownLog | undefined,
  prev: Pick<StoredPlace, "branch"> | undefined,
  { head }: Pick<Node, "head">,
  env: Env,
): Operation<number> {
  const { author, incarnation, seq, id, first = seq } = change;
  // The most frequent by far, for which nothing has to be looked up: this node's own log goes on.
  if (head !== null && head.hash === change.prev) {
    yield* run(moveHead, { branch: head.branch, seq, id });
    return head.branch;
  }
  const { branches } = log ?? (yield* findLog(change));
  const { replaces, forks } = stepHeads(new Set(branches.map(({ head_id }) => head_id)), change);
  if (forks) env.effects.log("a log of the board is forked", { author, incarnation, seq, changeId: id });
  const followed = branches.find(({ head_id }) => head_id === replaces);
  if (followed !== undefined) {
    yield* run(moveHead, { branch: followed.branch, seq, id });
    return followed.branch;
  }
  const parent = prev?.branch ?? null;
  return yield* insert(insertBranch, { author, incarnation, parent, fromSeq: first - 1, seq, id });
}

/**
 * Gives the item as the op makes it.
 *
 * @param isLatest whether no change here is as late as this one, so that no cell can be newer.
 */
function* mergeOp(
  op: Op,
  item: LoadedItem | undefined,
  stamp: Stamp,
  n: number,
  isLatest: boolean,
  rules: Rules,
): Operation<LoadedItem | undefined> {
  const { stored, increments } = yield* loadStored(op, item, isLatest);
  const merged = merge(stored, op, stamp);
  const recent = yield* addRecent(op.storyId, item?.recent ?? [], n);
  if (merged !== undefined) return yield* writeMerged(merged, n, item, increments, recent, rules);
  yield* setRecent(op.storyId, recent);
  return item && { ...item, recent };
}

/** What is here of an item, as far as an op is about it; the increments with the numbers of their changes. */
function* loadStored(op: Op, item: LoadedItem | undefined, isLatest: boolean): Operation<LoadedRows> {
  // The rows of another generation are of no account, so they are not loaded.
  const isSame = item?.row.generation === op.generation;
  const cells = isSame && !isLatest ? yield* loadCells(op, item) : NO_CELLS;
  const increments = isSame ? yield* loadIncrements(op) : NO_INCREMENTS;
  return {
    stored: item && { item: item.row, cells, increments: [...increments.keys()] },
    increments,
  };
}

interface LoadedRows {
  readonly stored: Stored | undefined;
  readonly increments: ReadonlyMap<Increment, number>;
}

/** Whether something of the board would rest on a change that is not stored here. */
export function* saysSomething(change: Change): Operation<boolean> {
  const stamp = stampOf(change);
  for (const op of change.ops) {
    const { stored } = yield* loadStored(op, yield* findItem(op.storyId), false);
    if (merge(stored, op, stamp) !== undefined) return true;
  }
  return false;
}

/** Notes that a change is about an item. Gives what is to be kept in the item's row. */
function* addRecent(storyId: string, recent: Recent, n: number): Operation<Recent> {
  if (recent.length < MAX_RECENT_CHANGES) return [...recent, n];
  for (const each of recent) yield* run(keepTouch, { storyId, n: each });
  return [n];
}

export function* setRecent(storyId: string, recent: Recent): Operation<void> {
  yield* run(updateRecent, { storyId, recent: JSON.stringify(recent) });
}

const NO_CELLS: ReadonlyMap<string, Cell> = new Map();
const NO_INCREMENTS: ReadonlyMap<Increment, number> = new Map();

function* loadCells({ storyId, set, add }: Op, { row, setBy }: LoadedItem): Operation<Map<string, Cell>> {
  const cells = new Map<string, Cell>();
  for (const field of [...set.keys(), ...add.keys()]) {
    if (isNote(field, set)) continue;
    if (isColumn(field)) {
      const n = setBy[field];
      const stamp = n === undefined ? undefined : yield* one(selectStamp, { n });
      if (stamp !== undefined)
        cells.set(field, { field, value: shownValue(row, field), stamp: stampOfRow(stamp) });
    } else {
      const cell = yield* one(selectCell, { storyId, field });
      if (cell !== undefined) cells.set(field, { field, value: cell.value, stamp: stampOfRow(cell) });
    }
  }
  return cells;
}

export function isColumn(field: string): field is ColumnField {
  return (COLUMN_FIELDS as readonly string[]).includes(field);
}

function shownValue(row: ItemRow, field: ColumnField): string {
  return JSON.stringify(field === "retryCount" ? row.retryBase : row[field]);
}

/** The increments of the fields that an op sets, each with the number of its change. */
function* loadIncrements({ storyId, set }: Op): Operation<Map<Increment, number>> {
  const increments = new Map<Increment, number>();
  for (const field of set.keys()) {
    if (!isCounter(field) || isNote(field, set)) continue;
    for (const row of yield* all(selectIncrements, { storyId, field })) {
      increments.set({ field, amount: row.amount, stamp: stampOfRow(row) }, row.n);
    }
  }
  return increments;
}

function isNote(field: string, set: Op["set"]): boolean {
  const json = field.startsWith(NOTE) ? set.get(field) : undefined;
  return json !== undefined && noteOfField(field, json) !== undefined;
}

function* writeMerged(
  { item, reset, cells, swallowed, increments, notes }: Merged,
  n: number,
  former: LoadedItem | undefined,
  known: ReadonlyMap<Increment, number>,
  recent: Recent,
  rules: Rules,
): Operation<LoadedItem> {
  const { storyId } = item;
  if (reset && former !== undefined) {
    yield* run(deleteCells, { storyId });
    yield* run(deleteIncrements, { storyId });
    if (former.row.notes > 0) yield* run(deleteNotes, { storyId });
  }
  const setNow = new Set(cells.map(({ field }) => field));
  const setBefore = reset ? {} : (former?.setBy ?? {});
  const setBy = setByOf((field) => (setNow.has(field) ? n : setBefore[field]));
  const work = yield* keepDependencies(former, item, rules);
  yield* writeItem(item, setBy, recent, work);
  yield* keepLabels(former?.work.ready ? former.row : undefined, work.ready ? item : undefined);
  for (const { field, value } of cells) {
    if (!isColumn(field)) yield* run(upsertCell, { storyId, field, value, n });
  }
  for (const each of swallowed) {
    yield* run(deleteIncrement, { storyId, field: each.field, n: known.get(each) as number });
  }
  for (const { field, amount } of increments) yield* run(insertIncrement, { storyId, field, n, amount });
  for (const { index } of notes) yield* run(insertNote, { storyId, n, index });
  return { row: item, setBy, recent, work };
}

/** In the order of the columns, so that equal ones are equal as text. */
export function setByOf(numberOf: (field: ColumnField) => number | undefined): SetBy {
  const setBy: Partial<Record<ColumnField, number>> = {};
  for (const field of COLUMN_FIELDS) {
    const n = numberOf(field);
    if (n !== undefined) setBy[field] = n;
  }
  return setBy;
}

export function* writeItem(
  item: ItemRow,
  setBy: SetBy,
  recent: Recent,
  { waits, held, ready }: WorkState,
): Operation<void> {
  yield* run(upsertItem, {
    storyId: item.storyId,
    generation: item.generation,
    wall: item.stamp.wall,
    counter: item.stamp.counter,
    author: item.stamp.author,
    id: item.stamp.hash,
    stage: item.stage,
    name: item.name,
    agent: item.agent,
    blocked: item.blocked ? 1 : 0,
    rank: item.rank,
    retryBase: item.retryBase,
    retryAdded: item.retryAdded,
    dependsOn: JSON.stringify(item.dependsOn),
    labels: JSON.stringify(item.labels),
    fields: JSON.stringify(item.fields),
    notes: item.notes,
    priority: item.priority,
    setBy: JSON.stringify(setBy),
    recent: JSON.stringify(recent),
    waits,
    held: held ? 1 : 0,
    ready: ready ? 1 : 0,
  });
}
