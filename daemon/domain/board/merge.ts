import type { Json } from "./canonical.js";
import { type Change, DEPENDS_ON, type Op } from "./change.js";
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
}

/** The winning write of one field. */
export interface Cell {
  readonly field: string;
  /** Canonical JSON. */
  readonly value: string;
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
  /** First, all cells and increments of the item go: it has come to a higher generation. */
  readonly reset: boolean;
  /** Cells to insert, or to update where there is one of the field. */
  readonly cells: readonly Cell[];
  /** Increments to delete: swallowed by a set value newer than they are. */
  readonly swallowed: readonly Increment[];
  /** Increments to insert. */
  readonly increments: readonly Increment[];
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
  for (const [field, value] of op.set) {
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

  const nothing = !newest && cells.length === 0 && increments.length === 0;
  return nothing ? undefined : { item, reset, cells, swallowed, increments };
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
  rank: string;
  updatedAt: number;
  updatedBy: string;
}

/** The item that a row shows: null for a tombstone, and for an item of which only later changes have come. */
export function itemOf(row: ItemRow): Item | null {
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
  };
}

/** The row with a field's new value, checked when the change was opened. Fields unknown here are not shown. */
function show(item: ItemRow, field: string, value: Json): ItemRow {
  if (field.startsWith(DEPENDS_ON)) {
    const id = field.slice(DEPENDS_ON.length);
    const others = item.dependsOn.filter((each) => each !== id);
    return { ...item, dependsOn: value === true ? [...others, id].sort() : others };
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

function sum(increments: readonly Increment[]): number {
  return increments.reduce((total, { amount }) => total + amount, 0);
}
