import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Fault, Key, Piece } from "../../store/inspection.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { changeAt } from "./branches.js";
import { type Change, openChange, readStored } from "./change.js";
import { compareHlc } from "./hybrid-clock.js";
import { type Cell, type Increment, type ItemRow, merge, type NoteCell, stampOf } from "./merge.js";
import { loadRules } from "./rules.js";
import {
  countShown,
  findItem,
  findNode,
  isColumn,
  type Node,
  type SetBy,
  setByOf,
  setRecent,
  writeItem,
} from "./tables.js";
import { indexAnew } from "./texts.js";
import { forgetWork, keptWork, layWork, rightWork } from "./work-state.js";

/** Changes that one step goes through: some 4 ms of work ... */
const CHANGES_PER_STEP = 12;
/** ... unless they touch many items. */
const CHARACTERS_PER_STEP = 8192;
/** Items that one step makes anew ... */
const ITEMS_PER_STEP = 24;
/** ... and changes that it replays for that: an item that more changes are about takes several steps. */
const MAX_REPLAYED_CHANGES = 48;
/** Changes that are read at once for an item. */
const CHANGES_PER_READ = 8;

const selectChanges = sql<ChangeRow>(`
  SELECT c.n, c.change_id, c.branch, c.seq, c.wall, c.counter, c.body, c.signature,
    b.author, b.incarnation, b.parent, b.from_seq, b.head_seq, b.head_id
  FROM pawl_change c LEFT JOIN pawl_branch b ON b.branch = c.branch
  WHERE c.n > :after ORDER BY c.n LIMIT :rows`);

const selectNext = sql<{ n: number | null }>("SELECT min(n) AS n FROM pawl_change WHERE n > :after");

const moveHead = sql("UPDATE pawl_branch SET head_seq = :seq, head_id = :id WHERE branch = :branch");

const raiseClock = sql("UPDATE pawl_board SET wall = :wall, counter = :counter WHERE id = 1");

const selectTouch = sql<{ n: number }>(`
  SELECT n FROM pawl_touch WHERE story_id = :storyId AND wall = :wall AND counter = :counter AND n = :n`);

const insertTouch = sql(
  "INSERT INTO pawl_touch (story_id, wall, counter, n) VALUES (:storyId, :wall, :counter, :n)",
);

const deleteTouch = sql(
  "DELETE FROM pawl_touch WHERE story_id = :storyId AND wall = :wall AND counter = :counter AND n = :n",
);

/** Items that have a row of their own, or are only spoken of. */
const selectStories = sql<{ story_id: string }>(`
  SELECT story_id FROM
    (SELECT story_id FROM pawl_item WHERE story_id > :after ORDER BY story_id LIMIT :rows) AS items
  UNION
  SELECT story_id FROM
    (SELECT DISTINCT story_id FROM pawl_touch WHERE story_id > :after ORDER BY story_id LIMIT :rows) AS touches
  ORDER BY story_id LIMIT :rows`);

const selectTouching = sql<TouchRow>(`
  SELECT t.n, t.wall, t.counter, c.change_id, c.body, c.signature
  FROM pawl_touch t LEFT JOIN pawl_change c ON c.n = t.n
  WHERE t.story_id = :storyId AND (t.wall, t.counter, t.n) > (:wall, :counter, :n)
  ORDER BY t.wall, t.counter, t.n LIMIT :rows`);

const selectSince = sql<TouchRow>(`
  SELECT n, wall, counter, change_id, body, signature FROM pawl_change WHERE n > :n ORDER BY n LIMIT :rows`);

const selectLast = sql<{ n: number | null }>("SELECT max(n) AS n FROM pawl_change");

const selectRecent = sql<TouchRow>(`
  SELECT n, wall, counter, change_id, body, signature FROM pawl_change WHERE n = :n`);

const selectCells = sql<{ field: string; value: string; n: number }>(
  "SELECT field, value, n FROM pawl_cell WHERE story_id = :storyId",
);

const selectIncrements = sql<{ field: string; n: number; amount: number }>(
  "SELECT field, n, amount FROM pawl_increment WHERE story_id = :storyId",
);

const selectNotes = sql<{ n: number; idx: number; wall: number; counter: number }>(
  "SELECT n, idx, wall, counter FROM pawl_note WHERE story_id = :storyId",
);

const deleteItem = sql("DELETE FROM pawl_item WHERE story_id = :storyId");
const deleteCells = sql("DELETE FROM pawl_cell WHERE story_id = :storyId");
const deleteIncrements = sql("DELETE FROM pawl_increment WHERE story_id = :storyId");

const deleteNotes = sql("DELETE FROM pawl_note WHERE story_id = :storyId");

const insertNote = sql(`
  INSERT INTO pawl_note (story_id, wall, counter, n, idx) VALUES (:storyId, :wall, :counter, :n, :idx)`);

const selectStale = sql<{ story_id: string }>(
  "SELECT story_id FROM pawl_item WHERE notes < 0 ORDER BY story_id LIMIT 1",
);

const markRenewed = sql("UPDATE pawl_item SET notes = 0 WHERE story_id = :storyId AND notes < 0");

const insertCell = sql(
  "INSERT INTO pawl_cell (story_id, field, value, n) VALUES (:storyId, :field, :value, :n)",
);

const insertIncrement = sql(
  "INSERT INTO pawl_increment (story_id, field, n, amount) VALUES (:storyId, :field, :n, :amount)",
);

interface ChangeRow {
  n: number;
  change_id: string;
  branch: number;
  seq: number;
  wall: number;
  counter: number;
  body: string;
  signature: string;
  author: string | null;
  incarnation: string | null;
  parent: number | null;
  from_seq: number | null;
  head_seq: number | null;
  head_id: string | null;
}

interface TouchRow {
  n: number;
  wall: number;
  counter: number;
  change_id: string | null;
  body: string | null;
  signature: string | null;
}

/** The answer of one call. */
type Part = Result<"pipeline.rebuild">;
type Difference = Part["differences"][number];
/** Where a step begins: after a change, by its number, or after an item. */
type Place = readonly ["change", number] | readonly ["item", string];

interface Step extends Omit<Part, "next"> {
  readonly next?: Place;
  /** The item behind `next` whose changes are replayed in part. */
  readonly open?: Begun;
}

/** An item that was begun, and after how many steps. A step that is performed again finds that it was changed since. */
interface Begun {
  readonly replaying: Replaying;
  readonly steps: number;
}

/**
 * A part of replaying the log, in steps. First all changes are gone through, each checked as it was when it came here:
 * one that is not what it was ends the daemon with `log_corrupt`. Then every item is made anew from the changes
 * that touch it and compared with what the tables say.
 */
export function* rebuild(params: Parsed<"pipeline.rebuild">, env: Env): Operation<Outcome<Part>> {
  const { after, limit, verify } = params;
  const place = after === undefined ? (["change", 0] as const) : placeOf(after);
  if (place === undefined) {
    const message = `${shown(after)} is not the \`next\` of a step`;
    return refuse("invalid_params", `${message}. Begin without \`after\`.`, {
      issues: [{ path: "/after", message }],
    });
  }
  return yield* replay(place, { changes: 0, items: 0, differences: [] }, limit, verify, env);
}

/**
 * One step, and those that follow it.
 *
 * @param rows changes or items that are still to be gone through.
 */
function* replay(
  from: Place,
  before: Part,
  rows: number,
  verify: boolean,
  env: Env,
  begun?: Begun,
): Operation<Outcome<Part>> {
  const isOfItems = from[0] === "item";
  const { next, open, ...step } = isOfItems
    ? yield* replayItems(from[1], Math.min(rows, ITEMS_PER_STEP), verify, env, begun)
    : yield* replayChanges(from[1], Math.min(rows, CHANGES_PER_STEP), verify);
  const part = {
    changes: before.changes + step.changes,
    items: before.items + step.items,
    differences: [...before.differences, ...step.differences],
  };
  if (next === undefined) return part;
  const left = rows - (isOfItems ? step.items : step.changes);
  if (open !== undefined) return new Unfinished((later) => replay(next, part, left, verify, later, open));
  if (left === 0 || next[0] !== from[0]) return { ...part, next: JSON.stringify(next) };
  return new Unfinished((later) => replay(next, part, left, verify, later));
}

function* replayChanges(after: number, limit: number, verify: boolean): Operation<Step> {
  const rows = yield* all(selectChanges, { after, rows: limit });
  const differences: Difference[] = [];
  // Where there are changes there is a node.
  let node = (yield* findNode()) as Node;
  let characters = 0;
  let last: ChangeRow | undefined;
  for (const row of rows) {
    if (characters > CHARACTERS_PER_STEP) break;
    characters += row.body.length;
    last = row;
    const change = readStored(row.change_id, row);
    yield* checkStored(change, row, node);
    for (const what of yield* compareChange(change, row, verify)) {
      differences.push({ changeId: change.id, what });
    }
    if (compareHlc(change.hlc, node.clock) > 0) {
      differences.push({
        changeId: change.id,
        what: `the clock is at [${node.clock}], and the change at [${change.hlc}]`,
      });
      node = { ...node, clock: change.hlc };
      if (!verify) yield* run(raiseClock, { wall: change.hlc[0], counter: change.hlc[1] });
    }
  }
  const isEnd = rows.length < limit && last === rows.at(-1);
  const changes = last === undefined ? 0 : rows.indexOf(last) + 1;
  return { changes, items: 0, differences, next: isEnd ? ["item", ""] : ["change", (last as ChangeRow).n] };
}

/** That a change and its place are what they were when it was taken in; throws `log_corrupt` if not. */
function* checkStored(change: Change, row: ChangeRow, node: Node): Operation<void> {
  const corrupt = (why: string): PawlError =>
    refuse(
      "log_corrupt",
      `The stored change ${change.id} is damaged: ${why}. Restore the database from a copy.`,
      { changeId: change.id },
    );
  const opened = openChange(change, node.board, () => "trusted");
  if (opened instanceof PawlError) throw corrupt(opened.message);
  const { author, incarnation, seq, hlc, prev } = change;
  const fits =
    row.author === author &&
    row.incarnation === incarnation &&
    row.seq === seq &&
    row.wall === hlc[0] &&
    row.counter === hlc[1];
  if (!fits) throw corrupt("its place in the log is not what its body says");
  const isFirst = seq - 1 === row.from_seq;
  const branch = isFirst ? row.parent : row.branch;
  const before = branch === null ? undefined : yield* changeAt(branch, seq - 1);
  if ((before?.id ?? null) !== prev) throw corrupt("the change before it is not the one that it names");
}

/** Compares the notes about a change elsewhere: it is the last of its branch, and it is about these items. */
function* compareChange(change: Change, row: ChangeRow, verify: boolean): Operation<string[]> {
  const differences: string[] = [];
  const { branch, seq, n, wall, counter } = row;
  const follower = yield* changeAt(branch, seq + 1);
  const isHead = row.head_seq === seq && row.head_id === change.id;
  if (follower === undefined && !isHead) {
    differences.push(`is the last of its log, and the head there is ${row.head_id} at ${row.head_seq}`);
    if (!verify) yield* run(moveHead, { branch, seq, id: change.id });
  }
  for (const { storyId } of change.ops) {
    const place = { storyId, wall, counter, n };
    if ((yield* one(selectTouch, place)) !== undefined) continue;
    if ((yield* findItem(storyId))?.recent.includes(n)) continue;
    differences.push(`is missing in the history of ${storyId}`);
    if (!verify) yield* run(insertTouch, place);
  }
  return differences;
}

/** @param env of a caller that writes; none is needed to verify. */
function* replayItems(
  after: string,
  limit: number,
  verify: boolean,
  env: Env | undefined,
  begun: Begun | undefined,
): Operation<Step> {
  const stories =
    begun === undefined
      ? yield* all(selectStories, { after, rows: limit })
      : [{ story_id: begun.replaying.storyId }];
  const differences: Difference[] = [];
  let items = 0;
  let replayed = 0;
  let last = after;
  for (const { story_id: storyId } of stories) {
    if (replayed >= MAX_REPLAYED_CHANGES) break;
    const isSame = begun !== undefined && begun.replaying.steps === begun.steps;
    const replaying = isSame ? begun.replaying : yield* beginItem(storyId);
    replaying.steps += 1;
    const before = replaying.replayed;
    const isWhole = yield* replayItem(replaying, MAX_REPLAYED_CHANGES - replayed, verify);
    replayed += replaying.replayed - before;
    for (const what of replaying.surplus.splice(0)) differences.push({ storyId, what });
    if (!isWhole) {
      forgetNumbers(replaying);
      return {
        changes: replayed,
        items,
        differences,
        next: ["item", last],
        open: { replaying, steps: replaying.steps },
      };
    }
    for (const what of yield* compareItem(storyId, saidBy(replaying), verify, env)) {
      differences.push({ storyId, what });
    }
    items += 1;
    last = storyId;
  }
  const isEnd = begun === undefined && items === stories.length && stories.length < limit;
  return { changes: replayed, items, differences, ...(isEnd ? {} : { next: ["item", last] }) };
}

/** An item as its changes make it. */
interface Said {
  readonly item: ItemRow | undefined;
  readonly setBy: SetBy | undefined;
  readonly cells: readonly { field: string; value: string; n: number }[];
  readonly increments: readonly { field: string; n: number; amount: number }[];
  readonly notes: readonly { n: number; idx: number; wall: number; counter: number }[];
}

/** An item whose changes are being replayed. The order is of no account to what they make of it. */
interface Replaying {
  readonly storyId: string;
  steps: number;
  /** Changes that were about it last and are in no row of `pawl_touch`, to be replayed first. */
  readonly recent: number[];
  /** Members of the same that are replayed, and may have such a row by now. */
  readonly done: Set<number>;
  /** The last change that is replayed by its row of `pawl_touch`; null once all are. */
  touch: Pick<TouchRow, "wall" | "counter" | "n"> | null;
  /** The last change that was here when the item was begun; later ones are replayed at the end. */
  last: number;
  replayed: number;
  /** Rows that are found too much. */
  readonly surplus: string[];
  item: ItemRow | undefined;
  readonly cells: Map<string, Cell>;
  increments: Increment[];
  notes: NoteCell[];
  /** The numbers of the changes, by their ids. */
  readonly numbers: Map<string, number>;
}

function* beginItem(storyId: string): Operation<Replaying> {
  return {
    storyId,
    steps: 0,
    recent: [...((yield* findItem(storyId))?.recent ?? [])],
    done: new Set(),
    touch: { wall: -1, counter: -1, n: -1 },
    last: (yield* one(selectLast))?.n ?? 0,
    replayed: 0,
    surplus: [],
    item: undefined,
    cells: new Map(),
    increments: [],
    notes: [],
    numbers: new Map(),
  };
}

/** Replays some of the changes about an item; returns true when all are that are here. */
function* replayItem(replaying: Replaying, most: number, verify: boolean): Operation<boolean> {
  const { storyId, recent, done } = replaying;
  let left = most;
  let characters = 0;
  const isFull = (): boolean => left <= 0 || characters > CHARACTERS_PER_STEP;
  for (let n = recent[0]; n !== undefined; n = recent[0]) {
    if (isFull()) return false;
    const row = yield* one(selectRecent, { n });
    const read = row ?? { n, wall: 0, counter: 0, change_id: null, body: null, signature: null };
    if (!replayChange(replaying, read)) {
      replaying.surplus.push(surplus(read));
      if (!verify) {
        const kept = (yield* findItem(storyId))?.recent.filter((each) => each !== n);
        if (kept !== undefined) yield* setRecent(storyId, kept);
      }
    }
    recent.shift();
    done.add(n);
    left -= 1;
    characters += read.body?.length ?? 0;
  }
  while (replaying.touch !== null) {
    if (isFull()) return false;
    const { wall, counter, n: before } = replaying.touch;
    const rows = yield* all(selectTouching, { storyId, wall, counter, n: before, rows: CHANGES_PER_READ });
    for (const row of rows) {
      replaying.touch = row;
      left -= 1;
      characters += row.body?.length ?? 0;
      if (done.has(row.n) || row.n > replaying.last) continue;
      if (replayChange(replaying, row)) continue;
      replaying.surplus.push(surplus(row));
      if (!verify) yield* run(deleteTouch, { storyId, wall: row.wall, counter: row.counter, n: row.n });
    }
    if (rows.length < CHANGES_PER_READ) replaying.touch = null;
  }
  for (;;) {
    const rows = yield* all(selectSince, { n: replaying.last, rows: CHANGES_PER_READ });
    for (const row of rows) {
      replayChange(replaying, row);
      replaying.last = row.n;
      left -= 1;
      characters += row.body?.length ?? 0;
    }
    if (rows.length < CHANGES_PER_READ) return true;
    if (isFull()) return false;
  }
}

/** Replays one change; returns false for one that is not about the item. */
function replayChange(replaying: Replaying, row: TouchRow): boolean {
  const { n, change_id: id, body, signature } = row;
  const { storyId, cells, numbers } = replaying;
  const change =
    id === null || body === null || signature === null ? undefined : readStored(id, { body, signature });
  const op = change?.ops.find((each) => each.storyId === storyId);
  if (change === undefined || op === undefined) return false;
  replaying.replayed += 1;
  const { item, increments } = replaying;
  const merged = merge(item && { item, cells, increments }, op, stampOf(change));
  if (merged === undefined) return true;
  numbers.set(change.id, n);
  replaying.item = merged.item;
  if (merged.reset) {
    cells.clear();
    replaying.increments = [];
    replaying.notes = [];
  }
  for (const cell of merged.cells) cells.set(cell.field, cell);
  if (merged.swallowed.length > 0) {
    const swallowed = new Set(merged.swallowed);
    replaying.increments = replaying.increments.filter((each) => !swallowed.has(each));
  }
  replaying.increments.push(...merged.increments);
  replaying.notes.push(...merged.notes);
  return true;
}

/** Drops the numbers of changes whose writes others have replaced. */
function forgetNumbers({ numbers, cells, increments, notes }: Replaying): void {
  const kept = [...cells.values(), ...increments, ...notes];
  if (numbers.size < 2 * kept.length) return;
  const ids = new Set(kept.map(({ stamp }) => stamp.hash));
  for (const id of numbers.keys()) if (!ids.has(id)) numbers.delete(id);
}

function surplus({ change_id: id, n }: TouchRow): string {
  return `has change ${id ?? n} in its history, which is not about it`;
}

function saidBy({ item, cells, increments, notes, numbers }: Replaying): Said {
  const numberOf = ({ stamp }: Cell | Increment | NoteCell): number => numbers.get(stamp.hash) as number;
  return {
    item,
    setBy: item && setByOf((field) => (cells.has(field) ? numberOf(cells.get(field) as Cell) : undefined)),
    cells: [...cells.values()]
      .filter(({ field }) => !isColumn(field))
      .map((cell) => ({ field: cell.field, value: cell.value, n: numberOf(cell) })),
    increments: increments.map((each) => ({ field: each.field, n: numberOf(each), amount: each.amount })),
    notes: notes.map((each) => ({
      n: numberOf(each),
      idx: each.index,
      wall: each.stamp.wall,
      counter: each.stamp.counter,
    })),
  };
}

/** Compares an item with what the tables say of it, and unless only to verify, makes them say the same. */
function* compareItem(
  storyId: string,
  said: Said,
  verify: boolean,
  env: Env | undefined,
): Operation<string[]> {
  const found = yield* findItem(storyId);
  const stored: Said = {
    item: found?.row,
    setBy: found?.setBy,
    cells: yield* all(selectCells, { storyId }),
    increments: yield* all(selectIncrements, { storyId }),
    notes: yield* all(selectNotes, { storyId }),
  };
  const differences: string[] = [];
  for (const part of ["item", "setBy", "cells", "increments", "notes"] as const) {
    const [has, says] = [textOf(stored[part]), textOf(said[part])];
    if (has !== says)
      differences.push(`${part}: the table has ${shown(has)}, and the log says ${shown(says)}`);
  }
  const rules = yield* loadRules();
  if (said.item !== undefined && found !== undefined && differences.length === 0) {
    const kept = yield* keptWork(storyId, said.item.dependsOn, found.work);
    const right = yield* rightWork(said.item, rules);
    if (right !== undefined && JSON.stringify(kept) !== JSON.stringify(right)) {
      differences.push(`work: the table has ${shown(kept)}, and the board says ${shown(right)}`);
    }
  }
  if (differences.length === 0 || verify) return differences;
  if (found !== undefined) yield* forgetWork(found.row);
  yield* run(deleteItem, { storyId });
  yield* run(deleteCells, { storyId });
  yield* run(deleteIncrements, { storyId });
  yield* run(deleteNotes, { storyId });
  if (env !== undefined) countShown(found?.row, said.item, env);
  if (said.item !== undefined && env !== undefined) {
    const work = yield* layWork(said.item, found, rules, env);
    yield* writeItem(said.item, said.setBy ?? {}, found?.recent ?? [], work);
  }
  for (const cell of said.cells) yield* run(insertCell, { storyId, ...cell });
  for (const each of said.increments) yield* run(insertIncrement, { storyId, ...each });
  for (const each of said.notes) yield* run(insertNote, { storyId, ...each });
  yield* indexAnew(storyId);
  return differences;
}

/**
 * Makes those items anew from their changes whose rows a version of before has written that did not know all of what
 * the changes say. Once after an upgrade; nothing else finds any.
 */
export function* renewStaleItems(env: Env): Operation<void> {
  for (let stale = yield* one(selectStale); stale !== undefined; stale = yield* one(selectStale)) {
    yield* makeAnew(stale.story_id, env);
    // One whose changes are not there, which a rebuild tells of, must not be come back to.
    yield* run(markRenewed, { storyId: stale.story_id });
  }
}

/** Makes one item anew from all of its changes, in one step. */
export function* makeAnew(storyId: string, env: Env): Operation<void> {
  const replaying = yield* beginItem(storyId);
  yield* replayItem(replaying, Number.POSITIVE_INFINITY, false);
  yield* compareItem(storyId, saidBy(replaying), false, env);
}

/** Equal for what is equal: rows come in any order, their columns in that of the statements above. */
function textOf(value: Said[keyof Said]): string {
  if (value === undefined || !Array.isArray(value)) return JSON.stringify(value ?? null);
  return value
    .map((row) => JSON.stringify(row))
    .sort()
    .join(" ");
}

/**
 * A piece of a look at the log and at the items that it makes, which only reads. Goes on behind a change that is
 * damaged.
 */
export function* verifyLog(
  after: Key | undefined,
  rows: number,
  begun: unknown,
): Operation<Piece & { within?: unknown }> {
  const [kind, at] = after ?? ["change", 0];
  const isOfItems = kind === "item";
  const faults: Fault[] = [];
  let step: Step;
  try {
    step = isOfItems
      ? yield* replayItems(String(at), rows, true, undefined, begun as Begun | undefined)
      : yield* replayChanges(Number(at), rows, true);
  } catch (error) {
    if (!(error instanceof PawlError) || error.kind !== "log_corrupt") throw error;
    // Which of them it was is found one by one.
    if (rows > 1) return yield* verifyLog(after, 1, begun);
    const { changeId } = error.details as { changeId: string };
    faults.push({ what: "log", where: `change ${changeId}`, message: error.message });
    const next = isOfItems
      ? (yield* all(selectStories, { after: String(at), rows: 1 }))[0]?.story_id
      : undefined;
    const n = isOfItems ? undefined : (yield* one(selectNext, { after: Number(at) }))?.n;
    return {
      faults,
      checked: 1,
      next: isOfItems ? (next === undefined ? undefined : ["item", next]) : ["change", n ?? 0],
    };
  }
  for (const { changeId, storyId, what } of step.differences) {
    const where = storyId === undefined ? `change ${changeId}` : `item ${storyId}`;
    faults.push({ what: "log", where, message: `${what}. Put it right with \`pawl board rebuild\`.` });
  }
  const { open, next } = step;
  return { faults, checked: isOfItems ? step.items : step.changes, next, ...(open && { within: open }) };
}

function placeOf(cursor: string): Place | undefined {
  try {
    const place = JSON.parse(cursor) as unknown;
    if (!Array.isArray(place) || place.length !== 2) return undefined;
    const [kind, after] = place as [unknown, unknown];
    if (kind === "change" && Number.isSafeInteger(after)) return [kind, after as number];
    return kind === "item" && typeof after === "string" ? [kind, after] : undefined;
  } catch {
    return undefined;
  }
}
