import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_GENERATION, MAX_OWN_FIELDS } from "@pawl/protocol/limits";
import type { Json } from "./canonical.js";
import {
  DEPENDS_ON,
  LABEL,
  labelOf,
  NOTE,
  type Note,
  noteOf,
  type Op,
  OWN_FIELD,
  ownFieldOf,
} from "./change.js";
import { type ItemRow, itemOf, noteOfField } from "./merge.js";
import { FIRST_RANK, isRank, rankBetween } from "./rank.js";

/** The params of `pipeline.write`, checked by its schema. */
export interface ItemWrite {
  readonly storyId: string;
  readonly stage?: string | undefined;
  readonly name?: string | null | undefined;
  readonly agent?: string | null | undefined;
  readonly retryCount?: number | undefined;
  readonly retryCountDelta?: number | undefined;
  readonly blocked?: boolean | undefined;
  readonly dependsOn?: SetWrite | undefined;
  readonly labels?: SetWrite | undefined;
  /** Null takes a field away. */
  readonly fields?: Readonly<Record<string, unknown>> | undefined;
  /** Its agent, unless it says so itself, is the one that the item has then. */
  readonly note?: string | { readonly text: string; readonly agent?: string | null | undefined } | undefined;
  readonly rank?: string | undefined;
}

/** All elements of a set, or those to add and to remove. */
type SetWrite =
  | readonly string[]
  | { readonly add?: readonly string[] | undefined; readonly remove?: readonly string[] | undefined };

/**
 * The op that a local write is. An item that does not exist is created, with a stage, in the next odd
 * generation; without a rank it goes last in its stage. Writing a field that has the value already still
 * says it anew, and so wins over what other nodes wrote before. Refuses with `invalid_params`, naming the
 * path, and with `too_large` for more fields of the user's own than an item has. Undefined if nothing is left
 * to say: an empty list of dependencies for an item that has none.
 *
 * @param row what is stored of the item, undefined if it was never seen.
 * @param lastRank the highest rank among the items of the stage, null if there are none.
 */
export function planWrite(
  row: ItemRow | undefined,
  write: ItemWrite,
  lastRank: string | null,
): Op | PawlError | undefined {
  const { storyId, stage, name, agent, retryCount, blocked, dependsOn } = write;
  const exists = row !== undefined && itemOf(row) !== null;
  if (!exists && stage === undefined) {
    return invalid("stage", `The item ${storyId} does not exist; give the stage in which to create it.`);
  }
  const isAlive = row !== undefined && row.generation % 2 === 1;
  const generation = isAlive ? row.generation : (row?.generation ?? 0) + 1;
  if (write.rank !== undefined && !isRank(write.rank)) {
    return invalid(
      "rank",
      `${write.rank} is not a fractional index key; take a0, or one between two others.`,
    );
  }
  const rank = write.rank ?? (exists ? undefined : rankAfter(lastRank));

  const set = new Map<string, string>();
  for (const [field, value] of Object.entries({ stage, name, agent, retryCount, blocked, rank })) {
    if (value !== undefined) set.set(field, JSON.stringify(value));
  }
  setElements(set, DEPENDS_ON, dependsOn, isAlive ? row.dependsOn : []);
  setElements(set, LABEL, write.labels, isAlive ? row.labels : []);
  const tooMany = setFields(set, storyId, write.fields, isAlive ? row.fields : []);
  if (tooMany !== undefined) return tooMany;
  if (write.note !== undefined) {
    const { text, agent: by } = typeof write.note === "string" ? { text: write.note } : write.note;
    const note: Note = { agent: by ?? agent ?? (isAlive ? row.agent : null), text };
    set.set(`${NOTE}0`, JSON.stringify(note));
  }
  const delta = write.retryCountDelta;
  // JSON can say -0, which as an integer means nothing and in a change is refused; adding 0 makes it 0.
  const increments = new Map(delta === undefined ? [] : [["retryCount", delta + 0]]);
  if (set.size + increments.size === 0) return undefined;
  return { storyId, generation, set, add: increments };
}

/** The op that a local delete is: the next even generation. Undefined if there is nothing to delete. */
export function planDelete(row: ItemRow | undefined): Op | PawlError | undefined {
  if (row === undefined || itemOf(row) === null) return undefined;
  const generation = row.generation + 1;
  if (generation > MAX_GENERATION) {
    return refuse("exhausted", `${row.storyId} has been deleted and created as often as can be counted.`);
  }
  return { storyId: row.storyId, generation, set: new Map(), add: new Map() };
}

/** Whether an item is what a write takes it for, so that the write may be made. */
export function holds(condition: ItemCondition, row: ItemRow | undefined): boolean {
  const item = row === undefined ? null : itemOf(row);
  const { stage, agent, updatedAt } = condition;
  if (item === null)
    return stage === null || (stage === undefined && agent === undefined && updatedAt === undefined);
  return (
    (stage === undefined || stage === item.stage) &&
    (agent === undefined || agent === item.agent) &&
    (updatedAt === undefined || updatedAt === item.updatedAt)
  );
}

/** `if` of a write. A stage of null says that there is no such item. */
export interface ItemCondition {
  readonly stage?: string | null | undefined;
  readonly agent?: string | null | undefined;
  readonly updatedAt?: number | undefined;
}

/** The notes of an op, in their order. */
export function notesOf(set: Op["set"]): { readonly index: number; readonly note: Note }[] {
  const notes: { readonly index: number; readonly note: Note }[] = [];
  for (const [field, json] of set) {
    const index = noteOfField(field, json);
    if (index !== undefined) notes.push({ index, note: noteOf(JSON.parse(json) as Json) as Note });
  }
  return notes.sort((a, b) => a.index - b.index);
}

/** An op as `pipeline.history` shows it: fields known here, elements of sets gathered. */
export function describeOp({ generation, set, add }: Op): {
  set: Record<string, Json>;
  delta: Record<string, number>;
  deleted?: true;
} {
  const fields: Record<string, Json> = {};
  for (const field of ["stage", "name", "agent", "retryCount", "blocked", "rank"]) {
    const json = set.get(field);
    if (json !== undefined) fields[field] = JSON.parse(json);
  }
  const isElement = (field: string): boolean => field.startsWith(DEPENDS_ON);
  const dependsOn = elementsOf(set, (field) =>
    isElement(field) ? field.slice(DEPENDS_ON.length) : undefined,
  );
  if (dependsOn !== undefined) fields.dependsOn = dependsOn;
  const labels = elementsOf(set, labelOf);
  if (labels !== undefined) fields.labels = labels;
  const own = [...set].flatMap(([field, json]) => {
    const name = ownFieldOf(field);
    return name === undefined ? [] : [[name, JSON.parse(json) as Json] as const];
  });
  if (own.length > 0) fields.fields = Object.fromEntries(own);
  const notes = notesOf(set).map(({ note: { agent, text } }) => ({ agent, text }));
  if (notes.length > 0) fields.notes = notes;
  const increment = add.get("retryCount");
  return {
    set: fields,
    delta: increment === undefined ? {} : { retryCount: increment },
    ...(generation % 2 === 0 ? { deleted: true } : {}),
  };
}

function rankAfter(last: string | null): string {
  const next = rankBetween(last, null);
  // Nobody comes to the end of all ranks by appending. Where somebody went there, a tie is no harm.
  return typeof next === "string" ? next : (last ?? FIRST_RANK);
}

function setElements(
  set: Map<string, string>,
  prefix: string,
  given: SetWrite | undefined,
  present: readonly string[],
): void {
  const { add = [], remove = [] } = isList(given)
    ? { add: given, remove: present.filter((each) => !given.includes(each)) }
    : (given ?? {});
  for (const each of remove) set.set(prefix + each, "false");
  for (const each of add) set.set(prefix + each, "true");
}

function setFields(
  set: Map<string, string>,
  storyId: string,
  given: ItemWrite["fields"],
  present: readonly string[],
): PawlError | undefined {
  if (given === undefined) return undefined;
  const after = new Set(present);
  for (const [name, value] of Object.entries(given)) {
    let isBeyond = false;
    const json = JSON.stringify(value, (_, each: unknown) => {
      isBeyond ||= each === Number.POSITIVE_INFINITY || each === Number.NEGATIVE_INFINITY;
      return each;
    });
    // JSON.parse makes Infinity of 1e400, and JSON.stringify null of that, which would take the field away.
    if (isBeyond) {
      return refuse("bad_value", `The field ${name} holds a number beyond 1.8e308. Write it as a text.`);
    }
    set.set(OWN_FIELD + name, json);
    if (value === null) after.delete(name);
    else after.add(name);
  }
  if (after.size <= MAX_OWN_FIELDS || after.size <= present.length) return undefined;
  return refuse(
    "too_large",
    `An item has at most ${MAX_OWN_FIELDS} fields of its own, and ${storyId} would have ${after.size}. Take some away, by writing null to them.`,
  );
}

/** The elements of a set that an op adds and removes; undefined if it is not about the set. */
function elementsOf(
  set: Op["set"],
  elementOf: (field: string) => string | undefined,
): { add: string[]; remove: string[] } | undefined {
  const [add, remove]: [string[], string[]] = [[], []];
  for (const [field, json] of set) {
    const element = elementOf(field);
    if (element === undefined) continue;
    if (json === "true") add.push(element);
    else if (json === "false") remove.push(element);
  }
  return add.length + remove.length > 0 ? { add, remove } : undefined;
}

function isList(value: SetWrite | undefined): value is readonly string[] {
  return Array.isArray(value);
}

function invalid(path: string, message: string): PawlError {
  return refuse("invalid_params", message, { issues: [{ path, message }] });
}
