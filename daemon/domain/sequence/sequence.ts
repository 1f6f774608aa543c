import type { Mode, NodeId, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_NODE_ID, MAX_NODE_NAME_LENGTH, MAX_TYPE_LENGTH } from "@pawl/protocol/limits";
import { Damaged } from "../../json/damaged.js";
import { RawJson } from "../../json/raw-json.js";
import { all, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import type { KeptRows } from "../../turns/turn-memory.js";
import * as grants from "./grants.js";
import { answeredBefore, remember } from "./requests.js";

const selectCounter = sql<Counter>(`
  SELECT last, granted_to AS "grantedTo" FROM pawl_sequence WHERE node_id = :nodeId AND type = :type`);

/** Takes `count` numbers. No row when the range in use has not as many left, and then nothing has changed. */
const take = sql<Counter>(`
  INSERT INTO pawl_sequence (node_id, type, last) VALUES (:nodeId, :type, :count)
  ON CONFLICT (node_id, type) DO UPDATE SET last = pawl_sequence.last + :count
    WHERE pawl_sequence.last <= coalesce(pawl_sequence.granted_to, ${MAX_INTEGER}) - :count
  RETURNING last, granted_to AS "grantedTo"`);

const raise = sql(`
  INSERT INTO pawl_sequence (node_id, type, last) VALUES (:nodeId, :type, :to)
  ON CONFLICT (node_id, type) DO UPDATE SET last = excluded.last WHERE pawl_sequence.last < excluded.last`);

const selectPage = sql<{ type: string; last: number; left: number | null }>(`
  SELECT type, last, granted_to - last + granted_later AS "left" FROM pawl_sequence
  WHERE node_id = :nodeId AND type > :after AND (last > 0 OR granted_to IS NOT NULL)
  ORDER BY type LIMIT :rows`);

/** Types that one step of `sequence.state` reads: some 3 ms of work. */
const TYPES_PER_STEP = 1000;

/** Which operation performs which method. */
export const sequenceHandlers: HandlersOf<"sequence"> = {
  next,
  reserve,
  peek,
  state,
  format,
  parse,
  grant,
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
  const result = { type, seq: taken, id: idOf(type, taken, env) };
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
    firstId: idOf(type, first, env),
    lastId: idOf(type, last, env),
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
  const { last, grantedTo } = yield* counterOf(type, env);
  const counter = { nodeId: keyOf(env.mode), type, last, grantedTo };
  const seq = isGranted(counter) ? yield* grants.nextNumber(counter) : last + 1;
  if (seq === undefined) return yield* grants.exhausted(counter as grants.GrantedCounter, 1);
  if (seq > MAX_INTEGER) return exhausted(type, 1, MAX_INTEGER);
  return { type, seq, id: idOf(type, seq, env) };
}

export function* state(
  params: Parsed<"sequence.state">,
  env: Env,
): Operation<Outcome<Result<"sequence.state">>> {
  const { limit } = params;
  const after = params.after?.toUpperCase() ?? "";
  return yield* stateFrom(after, limit, [], env);
}

type State = Pick<Result<"sequence.state">, "sequences" | "granted">;

/**
 * One step of reading the counters of a page, and those that follow it.
 *
 * @param before what the steps before have read, of which each has other types.
 */
function* stateFrom(
  after: string,
  limit: number,
  before: readonly WrittenState[],
  env: Env,
): Operation<Outcome<Result<"sequence.state">>> {
  yield* env.turn.writeBack();
  const { mode } = env;
  const most = Math.min(limit, TYPES_PER_STEP);
  const rows = yield* all(selectPage, { nodeId: keyOf(mode), after, rows: most + 1 });
  const page = rows.slice(0, most);
  const read: State = { sequences: {}, granted: {} };
  for (const { type, last, left } of page) {
    checkKept(type, last);
    if (last > 0) read.sequences[type] = last;
    if (left !== null) read.granted[type] = left;
  }
  const next = rows.length > most ? page.at(-1)?.type : undefined;
  const goesOn = next !== undefined && most < limit && env.mayGoOn;
  if (before.length === 0 && !goesOn) return { mode, ...read, ...(next === undefined ? {} : { next }) };
  const written = [...before, { sequences: membersOf(read.sequences), granted: membersOf(read.granted) }];
  if (goesOn)
    return new Unfinished((later) => stateFrom(next, limit - most, written, later), heldBytesOf(written));
  const whole = { sequences: allOf(written, "sequences"), granted: allOf(written, "granted") };
  return { mode, ...(whole as unknown as State), ...(next === undefined ? {} : { next }) };
}

/** Members of objects, as text: to put 10,000 of them together anew in each step takes longer than to read them. */
type WrittenState = { readonly [Part in keyof State]: string };

function membersOf(object: object): string {
  return JSON.stringify(object).slice(1, -1);
}

function heldBytesOf(written: readonly WrittenState[]): number {
  return written.reduce((sum, { sequences, granted }) => sum + sequences.length + granted.length, 0);
}

function allOf(written: readonly WrittenState[], part: keyof State): RawJson {
  const members = written.map((each) => each[part]).filter((text) => text !== "");
  return new RawJson(`{${members.join(",")}}`);
}

export function* format(params: Parsed<"sequence.format">, env: Env): Operation<Result<"sequence.format">> {
  return { id: idOf(params.type.toUpperCase(), params.seq, env) };
}

function* parse(params: Parsed<"sequence.parse">): Operation<Result<"sequence.parse"> | PawlError> {
  const parsed = parseId(params.id);
  if (parsed !== undefined) return parsed;
  const message = `${shown(params.id)} is not an id such as FR-001, FR-7-001 or FR-JM-001: a type, the number or the name of a node if distributed, and a number from 1 to ${MAX_INTEGER}.`;
  return refuse("invalid_params", message, { issues: [{ path: "/id", message }] });
}

/** Has the numbers of a type come from a range that another node gave. */
export function* grant(
  params: Parsed<"sequence.grant">,
  env: Env,
): Operation<Result<"sequence.grant"> | PawlError> {
  const type = params.type.toUpperCase();
  const { first, last } = params;
  if (first > last) {
    const message = `must be ${first} or more, where the range begins, not ${last}`;
    return refuse("invalid_params", `sequence.grant: /last ${message}.`, {
      issues: [{ path: "/last", message }],
    });
  }
  const counter = { nodeId: keyOf(env.mode), type, ...(yield* counterOf(type, env)) };
  const left = yield* grants.add(counter, { first, last });
  if (typeof left !== "number") return left;
  env.turn.of(KeptCounters).byType.delete(type);
  env.effects.tell("sequence", type, "granted", idOf(type, first, env), { to: idOf(type, last, env) });
  return { type, left };
}

export function* advance(
  params: Parsed<"sequence.advance">,
  env: Env,
): Operation<Result<"sequence.advance">> {
  const type = params.type.toUpperCase();
  const { to } = params;
  const counter = { nodeId: keyOf(env.mode), type, ...(yield* counterOf(type, env)) };
  const { nodeId, last } = counter;
  const { byType } = env.turn.of(KeptCounters);
  if (isGranted(counter)) {
    if (yield* grants.leaveOut(counter, to)) byType.delete(type);
    if (to <= last) return { type, seq: last };
  } else {
    if (to <= last) return { type, seq: last };
    yield* run(raise, { nodeId, type, to });
    byType.set(type, { nodeId, last: to, grantedTo: null, changed: false });
  }
  env.effects.reached(`${nodeId}/${type}`, to);
  env.effects.tell("sequence", type, "advanced", idOf(type, to, env), { from: String(last) });
  return { type, seq: to };
}

/** Takes the next `count` numbers of a type and returns the last of them, or refuses with `exhausted`. */
function* takeNumbers(type: string, count: number, env: Env): Operation<number | PawlError> {
  const nodeId = keyOf(env.mode);
  const { byType } = env.turn.of(KeptCounters);
  const kept = byType.get(type);
  const taken = kept === undefined ? yield* one(take, { nodeId, type, count }) : takeKept(kept, count);
  const counter = taken ?? (yield* takeOther(type, count, env));
  if (!("last" in counter)) return counter;
  const { last, grantedTo } = counter;
  byType.set(type, { nodeId, last, grantedTo, changed: kept !== undefined });
  env.effects.count("sequencesDispensed", count);
  env.effects.reached(`${nodeId}/${type}`, last);
  return last;
}

function takeKept({ last, grantedTo }: Counter, count: number): Counter | undefined {
  return last > (grantedTo ?? MAX_INTEGER) - count ? undefined : { last: last + count, grantedTo };
}

/** Takes numbers of a counter that goes on no further, or not in the range in use. */
function* takeOther(type: string, count: number, env: Env): Operation<Counter | PawlError> {
  const { last, grantedTo } = yield* counterOf(type, env);
  const counter = { nodeId: keyOf(env.mode), type, last, grantedTo };
  return isGranted(counter) ? yield* grants.takeLater(counter, count) : exhausted(type, count, last);
}

/** A counter as of the turn under way; of a type without one, as its first number will find it. */
function* counterOf(type: string, env: Env): Operation<Counter> {
  const kept = env.turn.of(KeptCounters).byType.get(type);
  if (kept !== undefined) return { last: kept.last, grantedTo: kept.grantedTo };
  const counter = (yield* one(selectCounter, { nodeId: keyOf(env.mode), type })) ?? NEW_COUNTER;
  checkKept(type, Math.max(counter.last, counter.grantedTo ?? 0));
  return counter;
}

/** Throws `Damaged` for a number that no counter reaches: read here, it is not even the one that is kept. */
function checkKept(type: string, last: number): void {
  if (last > MAX_INTEGER) throw new Damaged(`The counter of ${type}`, `it stands above ${MAX_INTEGER}`);
}

interface Counter {
  readonly last: number;
  /** Null for one that goes on by itself; else the last number of the granted range in use. */
  readonly grantedTo: number | null;
}

const NEW_COUNTER: Counter = { last: 0, grantedTo: null };

function isGranted<C extends Counter>(counter: C): counter is C & { readonly grantedTo: number } {
  return counter.grantedTo !== null;
}

/** The last number of a type, as of the turn under way. */
interface KeptCounter extends Counter {
  readonly nodeId: string;
  /** True if it is not written yet. */
  changed: boolean;
}

/** The counters of which a turn takes numbers: the first call of a turn writes at once, all others together. */
class KeptCounters implements KeptRows {
  readonly byType = new Map<string, KeptCounter>();

  *writeBack(): Operation<void> {
    for (const [type, kept] of this.byType) {
      if (!kept.changed) continue;
      yield* write(raise, { nodeId: kept.nodeId, type, to: kept.last });
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
export function nodeIdOf(mode: Mode): NodeId {
  return mode.kind === "distributed" ? mode.nodeId : 0;
}

/** The same as counters have it. */
function keyOf(mode: Mode): string {
  return mode.kind === "distributed" ? String(mode.nodeId) : "0";
}

function idOf(type: string, seq: number, { mode, idDigits }: Pick<Env, "mode" | "idDigits">): string {
  return formatId(type, seq, mode, idDigits);
}

/** `FR-001`, or `FR-7-001` with a node id. `type` is upper case already. */
export function formatId(type: string, seq: number, mode: Mode, idDigits: number): string {
  const digits = String(seq).padStart(idDigits, "0");
  return mode.kind === "distributed" ? `${type}-${mode.nodeId}-${digits}` : `${type}-${digits}`;
}

const ID = new RegExp(
  `^([A-Za-z][A-Za-z0-9_]{0,${MAX_TYPE_LENGTH - 1}})(?:-([1-9][0-9]{0,9}|[A-Za-z][A-Za-z0-9]{0,${MAX_NODE_NAME_LENGTH - 1}}))?-0*([1-9][0-9]{0,15})$`,
);

/** The parts of an id, or undefined. Its number may have any padding; case tells nothing apart. */
export function parseId(id: string): { type: string; nodeId: NodeId; seq: number } | undefined {
  const [, type, node, digits] = ID.exec(id) ?? [];
  if (type === undefined || digits === undefined) return undefined;
  const nodeId = node === undefined ? 0 : /^[0-9]/.test(node) ? Number(node) : node.toUpperCase();
  const seq = Number(digits);
  if ((typeof nodeId === "number" && nodeId > MAX_NODE_ID) || seq > MAX_INTEGER) return undefined;
  return { type: type.toUpperCase(), nodeId, seq };
}
