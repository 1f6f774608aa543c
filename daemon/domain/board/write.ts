import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_GENERATION } from "@pawl/protocol/limits";
import type { Json } from "./canonical.js";
import { DEPENDS_ON, type Op } from "./change.js";
import { type ItemRow, itemOf } from "./merge.js";
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
  readonly dependsOn?:
    | readonly string[]
    | { readonly add?: readonly string[] | undefined; readonly remove?: readonly string[] | undefined }
    | undefined;
  readonly rank?: string | undefined;
}

/**
 * The op that a local write is. An item that does not exist is created, with a stage, in the next odd
 * generation; without a rank it goes last in its stage. Writing a field that has the value already still
 * says it anew, and so wins over what other nodes wrote before. Refuses with `invalid_params`, naming the
 * path. Undefined if nothing is left to say: an empty list of dependencies for an item that has none.
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
  const { add = [], remove = [] } = isList(dependsOn)
    ? { add: dependsOn, remove: isAlive ? row.dependsOn.filter((id) => !dependsOn.includes(id)) : [] }
    : (dependsOn ?? {});
  for (const id of remove) set.set(DEPENDS_ON + id, "false");
  for (const id of add) set.set(DEPENDS_ON + id, "true");
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

/** An op as `pipeline.history` shows it: fields known here, elements of dependsOn gathered. */
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
  const elements = [...set].filter(([field]) => field.startsWith(DEPENDS_ON));
  if (elements.length > 0) {
    const having = (json: string) =>
      elements.filter(([, value]) => value === json).map(([field]) => field.slice(DEPENDS_ON.length));
    fields.dependsOn = { add: having("true"), remove: having("false") };
  }
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

function isList(value: ItemWrite["dependsOn"]): value is readonly string[] {
  return Array.isArray(value);
}

function invalid(path: string, message: string): PawlError {
  return refuse("invalid_params", message, { issues: [{ path, message }] });
}
