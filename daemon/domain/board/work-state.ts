// Which items are ready is kept by each change: whether all that an item depends on is done, and whether somebody has
// its lease. So work is found by an index, and whoever waits for it is woken by the write that made it ready.
import { dueAt, type Ending } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { NEVER } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import type { ItemRow } from "./merge.js";
import { loadRules, type Rules } from "./rules.js";

/** Items that one change tells that what they depend on is done, or is not any more; others are told in steps. */
const DEPENDENTS_PER_CHANGE = 32;
/** Items that one step tells, or looks at: some 3 ms of work. */
const ITEMS_PER_STEP = 150;

/** In `pawl_item_turned`, for the stages that are to be laid anew: no item has this name. */
const LAYING = "";

/** Beside what changes say of an item: what has to be known to take work from the board. */
export interface WorkState {
  /** How many of the items that it depends on are not done. */
  readonly waits: number;
  /** True while the lease of the item is held, by a claim or otherwise. */
  readonly held: boolean;
  readonly ready: boolean;
}

interface DependentRow {
  story_id: string;
  stage: string | null;
  blocked: number;
  priority: number;
  rank: string;
  labels: string;
  waits: number;
  held: number;
  ready: number;
}

const DEPENDENT_COLUMNS = "story_id, stage, blocked, priority, rank, labels, waits, held, ready";

/** The parts of an item by which it is found while it is ready. */
type Place = Pick<ItemRow, "storyId" | "stage" | "priority" | "rank" | "labels">;

const selectLeased = sql<{ held: number }>("SELECT 1 AS held FROM pawl_lease WHERE name = :name LIMIT 1");

const selectStage = sql<{ stage: string | null }>("SELECT stage FROM pawl_item WHERE story_id = :storyId");

const insertDependency = sql(
  "INSERT INTO pawl_item_dependency (depends_on, done, story_id) VALUES (:dependsOn, :done, :storyId)",
);

const selectDependency = sql<{ done: number }>(`
  SELECT done FROM pawl_item_dependency WHERE depends_on = :dependsOn AND done IN (0, 1) AND story_id = :storyId`);

const deleteDependency = sql<{ done: number }>(`
  DELETE FROM pawl_item_dependency WHERE depends_on = :dependsOn AND done IN (0, 1) AND story_id = :storyId
  RETURNING done`);

const selectDependents = sql<{ story_id: string }>(`
  SELECT story_id FROM pawl_item_dependency
  WHERE depends_on = :storyId AND done = :was AND story_id <> depends_on ORDER BY story_id LIMIT :rows`);

const turnDependency = sql(`
  UPDATE pawl_item_dependency SET done = 1 - done
  WHERE depends_on = :dependsOn AND done = :was AND story_id = :storyId`);

const addWaits = sql<DependentRow>(`
  UPDATE pawl_item SET waits = waits + :by WHERE story_id = :storyId RETURNING ${DEPENDENT_COLUMNS}`);

const setHeld = sql<DependentRow>(`
  UPDATE pawl_item SET held = :held WHERE story_id = :storyId RETURNING ${DEPENDENT_COLUMNS}`);

const setReady = sql("UPDATE pawl_item SET ready = :ready WHERE story_id = :storyId");

const insertTurned = sql(
  "INSERT INTO pawl_item_turned (story_id) VALUES (:storyId) ON CONFLICT (story_id) DO NOTHING",
);

const deleteTurned = sql("DELETE FROM pawl_item_turned WHERE story_id = :storyId");

const selectTurned = sql<{ story_id: string }>(
  "SELECT story_id FROM pawl_item_turned ORDER BY story_id LIMIT 1",
);

const selectLaying = sql<{ laying: string | null }>("SELECT laying FROM pawl_board_rules");

const setLaying = sql("UPDATE pawl_board_rules SET laying = :laying");

const insertLabel = sql(`
  INSERT INTO pawl_item_ready_label (label, stage, priority, rank, story_id)
  VALUES (:label, :stage, :priority, :rank, :storyId)`);

const deleteLabel = sql(`
  DELETE FROM pawl_item_ready_label
  WHERE label = :label AND stage = :stage AND priority = :priority AND rank = :rank AND story_id = :storyId`);

const selectItem = sql<DependentRow>(`SELECT ${DEPENDENT_COLUMNS} FROM pawl_item WHERE story_id = :storyId`);

const selectToLay = sql<Pick<DependentRow, "story_id" | "rank">>(`
  SELECT story_id, rank FROM pawl_item
  WHERE stage = :stage AND (rank, story_id) > (:rank, :storyId) ORDER BY rank, story_id LIMIT :rows`);

/** The stages that are still to be laid, and where the first of them is. */
interface Laying {
  readonly stages: readonly string[];
  readonly rank: string;
  readonly storyId: string;
}

/** The name of the lease that a claim of an item is. */
export function leaseOf(storyId: string): string {
  return `${LEASE_BEGINNING}${storyId}`;
}

export const LEASE_BEGINNING = "item/";

/** The key under which claims wait for any item of a stage. */
export function readyKey(stage: string): string {
  return `item-ready:${stage}`;
}

/** The key under which claims wait for one item. */
export function itemKey(storyId: string): string {
  return `item:${storyId}`;
}

/** The key under which claims wait that other rules could meet. */
export const RULES_KEY = "item-rules";

export function isReady(
  { stage, blocked, waits, held }: Pick<ItemRow, "stage" | "blocked"> & Pick<WorkState, "waits" | "held">,
  { ready }: Rules,
): boolean {
  return stage !== null && !blocked && waits === 0 && !held && ready.has(stage);
}

function isDone(row: { readonly stage: string | null } | undefined, { done }: Rules): boolean {
  return row !== undefined && row.stage !== null && done.has(row.stage);
}

/**
 * Notes what an item depends on as a change makes it, and gives what follows for the item itself. Nothing is read where
 * its dependencies stay the same, but for an item that was never seen: its lease may be held already.
 */
export function* keepDependencies(
  former: { readonly row: ItemRow; readonly work: WorkState } | undefined,
  item: ItemRow,
  rules: Rules,
): Operation<WorkState> {
  const { storyId } = item;
  const before = former?.row.dependsOn ?? NONE;
  const after = item.dependsOn;
  let waits = former?.work.waits ?? 0;
  if (before !== after) {
    const [had, has] = [new Set(before), new Set(after)];
    for (const dependsOn of before) {
      if (has.has(dependsOn)) continue;
      for (const { done } of yield* all(deleteDependency, { dependsOn, storyId })) waits -= 1 - done;
    }
    for (const dependsOn of after) {
      if (had.has(dependsOn)) continue;
      const done =
        dependsOn !== storyId && isDone(yield* one(selectStage, { storyId: dependsOn }), rules) ? 1 : 0;
      yield* run(insertDependency, { dependsOn, done, storyId });
      waits += 1 - done;
    }
  }
  const held = former?.work.held ?? (yield* isLeased(storyId));
  return { waits, held, ready: isReady({ ...item, waits, held }, rules) };
}

const NONE: readonly string[] = [];

/** What is kept of an item beside what its changes say, and what that should be. */
export interface KeptWork extends WorkState {
  /** What it depends on, and whether that counts as done. */
  readonly dependencies: readonly (readonly [dependsOn: string, done: number])[];
}

/** What is kept; dependencies that are noted and that it never had are found as those of others. */
export function* keptWork(
  storyId: string,
  dependsOn: readonly string[],
  work: WorkState,
): Operation<KeptWork> {
  const dependencies: [string, number][] = [];
  for (const each of dependsOn) {
    for (const { done } of yield* all(selectDependency, { dependsOn: each, storyId })) {
      dependencies.push([each, done]);
    }
  }
  return { ...work, dependencies };
}

/** What should be kept; undefined while some items are still to be told of others. */
export function* rightWork(item: ItemRow, rules: Rules): Operation<KeptWork | undefined> {
  if ((yield* one(selectTurned)) !== undefined) return undefined;
  const { storyId } = item;
  const dependencies: [string, number][] = [];
  for (const each of item.dependsOn) {
    const done = each !== storyId && isDone(yield* one(selectStage, { storyId: each }), rules);
    dependencies.push([each, done ? 1 : 0]);
  }
  const waits = dependencies.filter(([, done]) => done === 0).length;
  const held = yield* isLeased(storyId);
  return { waits, held, ready: isReady({ ...item, waits, held }, rules), dependencies };
}

/** Nothing is noted any more of an item that may have been noted so. */
export function* forgetWork(row: ItemRow): Operation<void> {
  const { storyId, dependsOn, stage } = row;
  for (const each of dependsOn) yield* all(deleteDependency, { dependsOn: each, storyId });
  if (stage !== null) yield* keepLabels(row, undefined);
}

/** Notes anew what an item depends on, whatever was noted, and has all who wait for it told what it is. */
export function* layWork(
  item: ItemRow,
  noted: { readonly row: ItemRow } | undefined,
  rules: Rules,
  env: Env,
): Operation<WorkState> {
  const { storyId } = item;
  for (const row of [noted?.row, item]) if (row !== undefined) yield* forgetWork(row);
  yield* run(insertTurned, { storyId });
  env.effects.deadline(env.now);
  const work = yield* keepDependencies(undefined, item, rules);
  if (work.ready) yield* keepLabels(undefined, item);
  wakeWaiting(item, work, env);
  return work;
}

function* isLeased(storyId: string): Operation<boolean> {
  return (yield* one(selectLeased, { name: leaseOf(storyId) })) !== undefined;
}

/**
 * After a change of an item: wakes those who wait for it, and tells those that depend on it whether it is done.
 *
 * @param share the part of a change that the item is: of many together each tells few at once.
 */
export function* tellOfItem(
  former: ItemRow | undefined,
  item: ItemRow,
  { ready }: WorkState,
  rules: Rules,
  share: number,
  env: Env,
): Operation<void> {
  wakeWaiting(item, { ready }, env);
  const done = isDone(item, rules);
  // While the stages are laid anew, those that depend on it may not know what it was.
  if (!rules.isLaying && done === isDone(former, rules)) return;
  const rows = Math.max(1, Math.floor(DEPENDENTS_PER_CHANGE * share));
  if ((yield* tellDependents(item.storyId, done, rows, rules, env)) < rows) return;
  yield* run(insertTurned, { storyId: item.storyId });
  env.effects.deadline(env.now);
}

/** Wakes those who wait to claim an item that is ready, or that is there no more. */
function wakeWaiting({ storyId, stage }: ItemRow, { ready }: Pick<WorkState, "ready">, env: Env): void {
  if (ready) wakeFor(storyId, stage as string, env);
  else if (stage === null) env.effects.wake(itemKey(storyId));
}

function wakeFor(storyId: string, stage: string, env: Env): void {
  env.effects.wake(itemKey(storyId));
  env.effects.wake(readyKey(stage));
}

/** Tells some of the items that depend on one and do not know yet whether it is done. Gives how many. */
function* tellDependents(
  dependsOn: string,
  done: boolean,
  rows: number,
  rules: Rules,
  env: Env,
): Operation<number> {
  const was = done ? 0 : 1;
  const dependents = yield* all(selectDependents, { storyId: dependsOn, was, rows });
  for (const { story_id: storyId } of dependents) {
    yield* run(turnDependency, { dependsOn, was, storyId });
    const row = yield* one(addWaits, { storyId, by: done ? -1 : 1 });
    if (row !== undefined) yield* keepReady(row, rules, env);
  }
  return dependents.length;
}

function* keepReady(row: DependentRow, rules: Rules, env: Env): Operation<void> {
  const { story_id: storyId, stage, waits } = row;
  const ready = isReady({ stage, blocked: row.blocked === 1, waits, held: row.held === 1 }, rules);
  if (ready !== (row.ready === 1)) yield* turnReady(row, ready);
  if (ready) wakeFor(storyId, stage as string, env);
}

function* turnReady(row: DependentRow, ready: boolean): Operation<void> {
  const { story_id: storyId, stage, priority, rank } = row;
  yield* run(setReady, { storyId, ready: ready ? 1 : 0 });
  const place: Place = { storyId, stage, priority, rank, labels: JSON.parse(row.labels) as string[] };
  yield* keepLabels(ready ? undefined : place, ready ? place : undefined);
}

/** Notes the labels of an item that is ready at a place, where it was at another one; undefined for one that is not. */
export function* keepLabels(before: Place | undefined, after: Place | undefined): Operation<void> {
  if (before !== undefined && after !== undefined && isSamePlace(before, after)) return;
  for (const label of before?.labels ?? []) yield* run(deleteLabel, keyOf(label, before as Place));
  for (const label of after?.labels ?? []) yield* run(insertLabel, keyOf(label, after as Place));
}

function keyOf(label: string, { storyId, stage, priority, rank }: Place) {
  return { label, stage: stage as string, priority, rank, storyId };
}

function isSamePlace(a: Place, b: Place): boolean {
  return a.labels === b.labels && a.stage === b.stage && a.priority === b.priority && a.rank === b.rank;
}

/** The lease of an item is granted: it is not ready until that ends. */
export function* holdItem(storyId: string): Operation<void> {
  const row = yield* one(setHeld, { storyId, held: 1 });
  if (row !== undefined && row.ready === 1) yield* turnReady(row, false);
}

/** A lease of an item has ended. Others may share its name. */
export function* freeItem(storyId: string, env: Env): Operation<void> {
  if (yield* isLeased(storyId)) return;
  const row = yield* one(setHeld, { storyId, held: 0 });
  if (row !== undefined) yield* keepReady(row, yield* loadRules(), env);
}

/** Has the items of these stages looked at anew, because work is or is no longer taken from them, or they end it. */
export function* layStages(stages: readonly string[], env: Env): Operation<void> {
  const before = (yield* one(selectLaying))?.laying ?? null;
  const left = before === null ? [] : (JSON.parse(before) as Laying).stages;
  const laying: Laying = { stages: [...new Set([...left, ...stages])], rank: "", storyId: "" };
  yield* run(setLaying, { laying: JSON.stringify(laying) });
  yield* run(insertTurned, { storyId: LAYING });
  env.effects.deadline(env.now);
}

/** Tells some of the items that are still to be told of anything. Gives how many were; 0 when there are no more. */
export function* tellTurned(env: Env, most: number): Operation<number> {
  const storyId = (yield* one(selectTurned))?.story_id;
  if (storyId === undefined) return 0;
  const rules = yield* loadRules();
  const rows = Math.min(most, ITEMS_PER_STEP);
  if (storyId === LAYING) return yield* layItems(rows, rules, env);
  const done = isDone(yield* one(selectStage, { storyId }), rules);
  const told = yield* tellDependents(storyId, done, rows, rules, env);
  if (told < rows) yield* run(deleteTurned, { storyId });
  return Math.max(1, told);
}

function* layItems(rows: number, rules: Rules, env: Env): Operation<number> {
  const { laying } = (yield* one(selectLaying)) ?? { laying: null };
  const { stages, rank, storyId } = JSON.parse(laying as string) as Laying;
  const [stage] = stages as [string];
  const items = yield* all(selectToLay, { stage, rank, storyId, rows });
  let laid = 0;
  let last: Laying = { stages, rank, storyId };
  for (const { story_id: each, rank: itsRank } of items) {
    if (laid >= rows) break;
    // As it is now: those before it may have told it that they are not done any more.
    const row = yield* one(selectItem, { storyId: each });
    if (row !== undefined) yield* keepReady(row, rules, env);
    const told = yield* tellDependents(each, rules.done.has(stage), rows, rules, env);
    if (told === rows) yield* run(insertTurned, { storyId: each });
    last = { stages, rank: itsRank, storyId: each };
    laid += 1 + told;
  }
  const isEnd = items.length < rows && last.storyId === (items.at(-1)?.story_id ?? storyId);
  const next: Laying = isEnd ? { stages: stages.slice(1), rank: "", storyId: "" } : last;
  const isAll = next.stages.length === 0;
  yield* run(setLaying, { laying: isAll ? null : JSON.stringify(next) });
  if (isAll) {
    yield* run(deleteTurned, { storyId: LAYING });
    env.effects.wake(RULES_KEY);
  }
  return Math.max(1, laid);
}

/** Items that depend on one that has become done, or is so no more, as many as its change did not tell. */
export const turnedItems: Ending = {
  *earliest(env) {
    return (yield* one(selectTurned)) === undefined ? NEVER : dueAt(env.now);
  },

  *expire(env, rows) {
    const told = yield* tellTurned(env, rows);
    return told === 0 ? 0 : rows;
  },
};
