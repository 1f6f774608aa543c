import type { Json } from "./canonical.js";
import { type Change, DEPENDS_ON, labelOf, noteIndexOf, noteOf, type Op, ownFieldOf } from "./change.js";
import { FIRST_RANK } from "./rank.js";

/*
 * Merging says how one op changes what is stored of its item (spec: pipeline.md, Merge rules). Whatever the order in
 * which a set of changes is merged, the rows end up the same; so nothing is ever computed from the log again.
 *
 * The rows are in these tables (`store/schema/0005-board.sql` has their columns, `tables.ts` the statements):
 *
 *   pawl_change     every change, once, by the number `n` that rows of the other tables name it by
 *   pawl_branch     the logs, as trees: where each stretch begins, and its head (`log.ts`)
 *   pawl_touch      the changes that had an op on an item, for `pipeline.history`; the last of them are still in the
 *                   column `recent` of the item
 *   pawl_item       one row for each item ever seen, tombstones too, as in `ItemRow`; `set_by` has the changes that
 *                   set its columns
 *   pawl_cell       the winning write of each other field, of the item's generation only
 *   pawl_note       the notes, of the item's generation only; their texts are read from the changes
 *   pawl_increment  additions to a counter, of the item's generation only, and newer than the set value of the field
 *
 * One transaction takes in a change: it inserts the change, moves the head, and for each op loads `Stored`, calls
 * `merge`, and writes what that says. An op must be merged once only, because increments are summed; `sync.ts` passes
 * over a change that is stored already.
 */

/** The time and the author of a write: the order of writes within one generation. */
export interface Stamp {
  readonly wall: number;
  readonly counter: number;
  readonly author: string;
  readonly hash: string;
}

/** The row of an item: its generation, and what is shown of it, kept up to date by each change. */
export interface ItemRow {
  readonly storyId: string;
  /** Odd while the item is alive. */
  readonly generation: number;
  /** Of the newest op at this generation. */
  readonly stamp: Stamp;
  /** Null until an op that sets it has come: the author's change that created the item may come later. */
  readonly stage: string | null;
  readonly name: string | null;
  readonly agent: string | null;
  readonly blocked: boolean;
  readonly rank: string;
  /** The count is the set value plus the sum of the increments newer than it; each of the two is exact. */
  readonly retryBase: number;
  readonly retryAdded: number;
  /** Sorted. */
  readonly dependsOn: readonly string[];
  /** Sorted. */
  readonly labels: readonly string[];
  /** The names of the fields of the user's own that are not null, sorted. Their values are cells. */
  readonly fields: readonly string[];
  /** How many there are. */
  readonly notes: number;
  /** What the field `priority` says, 0 to 4; anything else, and nothing, is `NO_PRIORITY`. */
  readonly priority: number;
}

/** Behind all priorities that there are. */
const NO_PRIORITY = 5;

/** The winning write of one field. */
export interface Cell {
  readonly field: string;
  /** Canonical JSON. */
  readonly value: string;
  readonly stamp: Stamp;
}

/** A note is no cell: those of all changes are kept. */
export interface NoteCell {
  /** Its number within its change. */
  readonly index: number;
  readonly stamp: Stamp;
}

/** An addition to a counter that no newer set value has swallowed. */
export interface Increment {
  readonly field: string;
  readonly amount: number;
  readonly stamp: Stamp;
}

/** The rows of an item that are loaded before an op on it is merged. */
export interface Stored {
  readonly item: ItemRow;
  /** At least those of the fields in `op.set` and `op.add`. */
  readonly cells: ReadonlyMap<string, Cell>;
  /** At least those of the fields in `op.set`. */
  readonly increments: readonly Increment[];
}

/** The rows that an op changes. */
export interface Merged {
  /** The item's new row. */
  readonly item: ItemRow;
  /** First, all cells, increments and notes of the item go: it has come to a higher generation. */
  readonly reset: boolean;
  /** Cells to insert, or to update where there is one of the field. */
  readonly cells: readonly Cell[];
  /** Increments to delete: swallowed by a set value newer than they are. */
  readonly swallowed: readonly Increment[];
  /** Increments to insert. */
  readonly increments: readonly Increment[];
  /** Notes to insert. */
  readonly notes: readonly NoteCell[];
}

export function stampOf({ hlc: [wall, counter], author, id }: Change): Stamp {
  return { wall, counter, author, hash: id };
}

/** True if a write is newer than another at the same generation. No two ops on an item have equal stamps. */
export function isNewer(a: Stamp, b: Stamp): boolean {
  if (a.wall !== b.wall) return a.wall > b.wall;
  if (a.counter !== b.counter) return a.counter > b.counter;
  if (a.author !== b.author) return a.author > b.author;
  return a.hash > b.hash;
}

/**
 * Merges an op into what is stored of its item, `undefined` for an item never seen. Gives the rows to change,
 * or `undefined` if there are none: the op is of an older generation, or all that it sets was set later.
 */
export function merge(stored: Stored | undefined, op: Op, stamp: Stamp): Merged | undefined {
  if (stored !== undefined && op.generation < stored.item.generation) return undefined;
  const reset = stored === undefined || op.generation > stored.item.generation;
  const before = reset ? undefined : stored;
  const newest = before === undefined || isNewer(stamp, before.item.stamp);

  let item = before?.item ?? blank(op.storyId, op.generation, stamp);
  if (newest) item = { ...item, stamp };
  const cells: Cell[] = [];
  const swallowed: Increment[] = [];
  const increments: Increment[] = [];
  const notes: NoteCell[] = [];
  for (const [field, value] of op.set) {
    const index = noteOfField(field, value);
    if (index !== undefined) {
      notes.push({ index, stamp });
      continue;
    }
    const cell = before?.cells.get(field);
    if (cell !== undefined && !isNewer(stamp, cell.stamp)) continue;
    cells.push({ field, value, stamp });
    const older =
      before?.increments.filter((each) => each.field === field && isNewer(stamp, each.stamp)) ?? [];
    swallowed.push(...older);
    item = show(item, field, JSON.parse(value));
    if (field === "retryCount") item = { ...item, retryAdded: item.retryAdded - sum(older) };
  }
  for (const [field, amount] of op.add) {
    const cell = before?.cells.get(field);
    if (cell !== undefined && !isNewer(stamp, cell.stamp)) continue;
    increments.push({ field, amount, stamp });
    if (field === "retryCount") item = { ...item, retryAdded: item.retryAdded + amount };
  }

  if (notes.length > 0) item = { ...item, notes: item.notes + notes.length };
  const nothing = !newest && cells.length === 0 && increments.length === 0 && notes.length === 0;
  return nothing ? undefined : { item, reset, cells, swallowed, increments, notes };
}

/** Which note of its change a set value is; undefined for any other. */
export function noteOfField(field: string, json: string): number | undefined {
  const index = noteIndexOf(field);
  return index === undefined || noteOf(JSON.parse(json)) === undefined ? undefined : index;
}

/** An item as `pipeline.read` gives it. */
export interface Item {
  storyId: string;
  stage: string;
  name: string | null;
  agent: string | null;
  retryCount: number;
  blocked: boolean;
  dependsOn: string[];
  labels: string[];
  fields: Record<string, Json>;
  notes: number;
  rank: string;
  updatedAt: number;
  updatedBy: string;
}

/**
 * The item that a row shows: null for a tombstone, and for an item of which only later changes have come.
 *
 * @param fields the values of its `row.fields`, which are cells.
 */
export function itemOf(row: ItemRow, fields: Record<string, Json> = {}): Item | null {
  // A tombstone has no stage either: its generation began without fields, and no op can give it any.
  if (row.stage === null) return null;
  const count = row.retryBase + row.retryAdded;
  return {
    storyId: row.storyId,
    stage: row.stage,
    name: row.name,
    agent: row.agent,
    // Kept exact where it is stored, and within what JSON can carry where it is shown.
    retryCount: Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, count)),
    blocked: row.blocked,
    dependsOn: [...row.dependsOn],
    labels: [...row.labels],
    fields,
    notes: row.notes,
    rank: row.rank,
    updatedAt: row.stamp.wall,
    updatedBy: row.stamp.author,
  };
}

function blank(storyId: string, generation: number, stamp: Stamp): ItemRow {
  return {
    storyId,
    generation,
    stamp,
    stage: null,
    name: null,
    agent: null,
    blocked: false,
    rank: FIRST_RANK,
    retryBase: 0,
    retryAdded: 0,
    dependsOn: [],
    labels: [],
    fields: [],
    notes: 0,
    priority: NO_PRIORITY,
  };
}

/** The row with a field's new value, checked when the change was opened. Fields unknown here are not shown. */
function show(item: ItemRow, field: string, value: Json): ItemRow {
  if (field.startsWith(DEPENDS_ON)) {
    return { ...item, dependsOn: element(item.dependsOn, field.slice(DEPENDS_ON.length), value === true) };
  }
  const label = labelOf(field);
  if (label !== undefined) return { ...item, labels: element(item.labels, label, value === true) };
  const own = ownFieldOf(field);
  if (own !== undefined) {
    const fields = element(item.fields, own, value !== null);
    return own === "priority" ? { ...item, fields, priority: priorityOf(value) } : { ...item, fields };
  }
  switch (field) {
    case "stage":
    case "name":
    case "agent":
    case "blocked":
    case "rank":
      return { ...item, [field]: value };
    case "retryCount":
      return { ...item, retryBase: value as number };
    default:
      return item;
  }
}

/** A sorted set with an element in it or not. */
function element(set: readonly string[], each: string, isIn: boolean): readonly string[] {
  if (set.includes(each) === isIn) return set;
  return isIn ? [...set, each].sort() : set.filter((other) => other !== each);
}

function priorityOf(value: Json): number {
  const isOne = Number.isInteger(value) && (value as number) >= 0 && (value as number) < NO_PRIORITY;
  return isOne ? (value as number) : NO_PRIORITY;
}

function sum(increments: readonly Increment[]): number {
  return increments.reduce((total, { amount }) => total + amount, 0);
}
