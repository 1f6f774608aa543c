import type { Mode, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { ID_DIGITS, MAX_INTEGER, MAX_NODE_ID, MAX_TYPE_LENGTH } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import type { Env } from "../../turns/operation.js";
import type { KeptRows } from "../../turns/turn-memory.js";
import { answeredBefore, remember } from "./requests.js";

const selectLast = sql<{ last: number }>(`
  SELECT last FROM pawl_sequence WHERE node_id = :nodeId AND type = :type`);

/** Takes `count` numbers; no row when that many are not left, and then nothing has changed. */
const take = sql<{ last: number }>(`
  INSERT INTO pawl_sequence (node_id, type, last) VALUES (:nodeId, :type, :count)
  ON CONFLICT (node_id, type) DO UPDATE SET last = pawl_sequence.last + :count
    WHERE pawl_sequence.last <= ${MAX_INTEGER} - :count
  RETURNING last`);

const raise = sql(`
  INSERT INTO pawl_sequence (node_id, type, last) VALUES (:nodeId, :type, :to)
  ON CONFLICT (node_id, type) DO UPDATE SET last = excluded.last WHERE pawl_sequence.last < excluded.last`);

const selectPage = sql<{ type: string; last: number }>(`
  SELECT type, last FROM pawl_sequence WHERE node_id = :nodeId AND type > :after AND last > 0
  ORDER BY type LIMIT :rows`);

/** Which operation performs which method. */
export const sequenceHandlers: HandlersOf<"sequence"> = {
  next,
  reserve,
  peek,
  state,
  format,
  parse,
  advance,
};

export function* next(
  params: Parsed<"sequence.next">,
  env: Env,
): Operation<Result<"sequence.next"> | PawlError> {
  const type = params.type.toUpperCase();
  const request = { method: "sequence.next", type };
  const earlier = yield* answeredBefore<Result<"sequence.next">>(params.requestId, request, env);
  if (earlier !== undefined) return earlier;
  const taken = yield* takeNumbers(type, 1, env);
  if (typeof taken !== "number") return taken;
  const result = { type, seq: taken, id: formatId(type, taken, env.mode) };
  yield* remember(params.requestId, request, result, env);
  env.effects.tell("sequence", type, "dispensed", result.id);
  return result;
}

export function* reserve(
  params: Parsed<"sequence.reserve">,
  env: Env,
): Operation<Result<"sequence.reserve"> | PawlError> {
  const type = params.type.toUpperCase();
  const { count } = params;
  const request = { method: "sequence.reserve", type, count };
  const earlier = yield* answeredBefore<Result<"sequence.reserve">>(params.requestId, request, env);
  if (earlier !== undefined) return earlier;
  const last = yield* takeNumbers(type, count, env);
  if (typeof last !== "number") return last;
  const first = last - count + 1;
  const result = {
    type,
    first,
    last,
    firstId: formatId(type, first, env.mode),
    lastId: formatId(type, last, env.mode),
  };
  yield* remember(params.requestId, request, result, env);
  env.effects.tell("sequence", type, "reserved", result.firstId, { to: result.lastId });
  return result;
}

export function* peek(
  params: Parsed<"sequence.peek">,
  env: Env,
): Operation<Result<"sequence.peek"> | PawlError> {
  const type = params.type.toUpperCase();
  const seq = (yield* lastNumber(type, env)) + 1;
  if (seq > MAX_INTEGER) return exhausted(type, 1, MAX_INTEGER);
  return { type, seq, id: formatId(type, seq, env.mode) };
}

export function* state(params: Parsed<"sequence.state">, env: Env): Operation<Result<"sequence.state">> {
  yield* env.turn.writeBack();
  const { limit } = params;
  const after = params.after?.toUpperCase() ?? "";
  const rows = yield* all(selectPage, { nodeId: nodeIdOf(env.mode), after, rows: limit + 1 });
  const page = rows.slice(0, limit);
  return {
    mode: env.mode,
    sequences: Object.fromEntries(page.map(({ type, last }) => [type, last])),
    ...(rows.length > limit ? { next: (page.at(-1) as { type: string }).type } : {}),
  };
}

export function* format(params: Parsed<"sequence.format">, env: Env): Operation<Result<"sequence.format">> {
  return { id: formatId(params.type.toUpperCase(), params.seq, env.mode) };
}

function* parse(params: Parsed<"sequence.parse">): Operation<Result<"sequence.parse"> | PawlError> {
  const parsed = parseId(params.id);
  if (parsed !== undefined) return parsed;
  const message = `${shown(params.id)} is not an id such as FR-001 or FR-7-001: a type, a node id if distributed, and a number of at least ${ID_DIGITS} digits.`;
  return refuse("invalid_params", message, { issues: [{ path: "/id", message }] });
}

export function* advance(
  params: Parsed<"sequence.advance">,
  env: Env,
): Operation<Result<"sequence.advance">> {
  const type = params.type.toUpperCase();
  const last = yield* lastNumber(type, env);
  if (params.to <= last) return { type, seq: last };
  const nodeId = nodeIdOf(env.mode);
  yield* run(raise, { nodeId, type, to: params.to });
  env.effects.reached(`${nodeId}/${type}`, params.to);
  env.turn.of(KeptCounters).byType.set(type, { nodeId, last: params.to, changed: false });
  env.effects.tell("sequence", type, "advanced", formatId(type, params.to, env.mode), { from: String(last) });
  return { type, seq: params.to };
}

/** Takes the next `count` numbers of a type and returns the last of them, or refuses with `exhausted`. */
function* takeNumbers(type: string, count: number, env: Env): Operation<number | PawlError> {
  const nodeId = nodeIdOf(env.mode);
  const { byType } = env.turn.of(KeptCounters);
  const kept = byType.get(type);
  if (kept !== undefined && kept.last > MAX_INTEGER - count) return exhausted(type, count, kept.last);
  const last = kept === undefined ? (yield* one(take, { nodeId, type, count }))?.last : kept.last + count;
  if (last === undefined) return exhausted(type, count, yield* lastNumber(type, env));
  byType.set(type, { nodeId, last, changed: kept !== undefined });
  env.effects.count("sequencesDispensed", count);
  env.effects.reached(`${nodeId}/${type}`, last);
  return last;
}

function* lastNumber(type: string, env: Env): Operation<number> {
  const kept = env.turn.of(KeptCounters).byType.get(type);
  return kept?.last ?? (yield* one(selectLast, { nodeId: nodeIdOf(env.mode), type }))?.last ?? 0;
}

/** The last number of a type, as of the turn under way. */
interface KeptCounter {
  readonly nodeId: number;
  readonly last: number;
  /** True if it is not written yet. */
  changed: boolean;
}

/** The counters of which a turn takes numbers: the first call of a turn writes at once, all others together. */
class KeptCounters implements KeptRows {
  readonly byType = new Map<string, KeptCounter>();

  *writeBack(): Operation<void> {
    for (const [type, kept] of this.byType) {
      if (!kept.changed) continue;
      yield* run(raise, { nodeId: kept.nodeId, type, to: kept.last });
      kept.changed = false;
    }
  }
}

function exhausted(type: string, count: number, last: number): PawlError {
  return refuse(
    "exhausted",
    `The sequence ${type} has ${MAX_INTEGER - last} numbers left after ${last}, not ${count}. Use another type.`,
    { type, last, left: MAX_INTEGER - last },
  );
}

/** The node that the counters belong to; 0 in centralized mode. */
export function nodeIdOf(mode: Mode): number {
  return mode.kind === "distributed" ? mode.nodeId : 0;
}

/** `FR-001`, or `FR-7-001` with a node id. `type` is upper case already. */
export function formatId(type: string, seq: number, mode: Mode): string {
  const digits = String(seq).padStart(ID_DIGITS, "0");
  return mode.kind === "distributed" ? `${type}-${mode.nodeId}-${digits}` : `${type}-${digits}`;
}

const ID = new RegExp(
  `^([A-Za-z][A-Za-z0-9_]{0,${MAX_TYPE_LENGTH - 1}})(?:-([1-9][0-9]{0,9}))?-([0-9]{${ID_DIGITS},16})$`,
);

/**
 * The parts of an id, or undefined. One number has one spelling: `FR-1`, `FR-0001` and `FR-000` are no ids,
 * so that two strings never name the same thing; only the type may come in lower case.
 */
export function parseId(id: string): { type: string; nodeId: number; seq: number } | undefined {
  const [, type, node, digits] = ID.exec(id) ?? [];
  if (type === undefined || digits === undefined) return undefined;
  const nodeId = node === undefined ? 0 : Number(node);
  const seq = Number(digits);
  if (nodeId > MAX_NODE_ID || seq < 1 || seq > MAX_INTEGER) return undefined;
  if (String(seq).padStart(ID_DIGITS, "0") !== digits) return undefined;
  return { type: type.toUpperCase(), nodeId, seq };
}
