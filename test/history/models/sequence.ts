// Counters that are taken from together (spec: sequence.md): numbers only rise, without gaps and without repetition.

import type { RawError } from "../../raw-client.js";
import type { Call } from "../history.js";
import { type Granted as Answered, type CallModel, type Json, modelOf } from "./calls.js";

interface State {
  /** The last number given, by type. */
  last: Readonly<Record<string, number>>;
  /** Numbers that were given to a requestId. */
  given: Readonly<Record<string, Range>>;
  /** Of types whose numbers come from grants: what is left of these. */
  granted: Readonly<Record<string, Granted>>;
}

interface Range {
  first: number;
  last: number;
}

interface Granted {
  left: readonly Range[];
  /** The last number that was granted. */
  highest: number;
}

/** The load repeats no request that is so long ago. */
const MOST_REMEMBERED = 200;

const counters: CallModel<State> = {
  initial: { last: {}, given: {}, granted: {} },
  call: (state, call, answer) => {
    if (answer !== "unknown" && "error" in answer) return isRefused(state, call, answer.error) ? [state] : [];
    switch (call.method) {
      case "sequence.next":
        return take(state, call, 1, answer, ({ seq }) => ({ first: seq, last: seq }));
      case "sequence.reserve":
        return take(state, call, call.params.count as number, answer, (result) => result);
      case "sequence.peek":
        return answer === "unknown" || answer.result.seq === next(state, call, 1)?.first ? [state] : [];
      case "sequence.grant":
        return grant(state, call, answer);
      case "sequence.advance":
        return advance(state, call, answer);
    }
    throw new Error(`no model of ${call.method}`);
  },
};

export const sequenceModel = modelOf(counters);

function lastOf({ last }: State, { params }: Call): number {
  return last[params.type as string] ?? 0;
}

/** The next numbers of a type; undefined if its grants have not as many. */
function next(state: State, call: Call, count: number): Range | undefined {
  const granted = state.granted[call.params.type as string];
  if (granted === undefined) {
    const last = lastOf(state, call);
    return { first: last + 1, last: last + count };
  }
  const range = granted.left.find(({ first, last }) => last - first + 1 >= count);
  return range && { first: range.first, last: range.first + count - 1 };
}

function isRefused(state: State, call: Call, { data: { kind } }: RawError): boolean {
  if (call.method === "sequence.grant") return kind === "conflict" && !mayGrant(state, call);
  const count = (call.params.count as number | undefined) ?? 1;
  return kind === "exhausted" && call.method !== "sequence.advance" && next(state, call, count) === undefined;
}

function mayGrant(state: State, call: Call): boolean {
  const highest = state.granted[call.params.type as string]?.highest ?? 0;
  return (call.params.first as number) > Math.max(highest, lastOf(state, call));
}

function grant(state: State, call: Call, answer: Answered): State[] {
  if (!mayGrant(state, call)) return answer === "unknown" ? [state] : [];
  const { type, first, last } = call.params as { type: string; first: number; last: number };
  const before = state.granted[type]?.left ?? [];
  const previous = before.at(-1);
  // Ranges that adjoin are one.
  const left =
    previous?.last === first - 1
      ? [...before.slice(0, -1), { first: previous.first, last }]
      : [...before, { first, last }];
  if (answer !== "unknown" && answer.result.left !== sizeOf(left)) return [];
  return [{ ...state, granted: { ...state.granted, [type]: { left, highest: last } } }];
}

function sizeOf(ranges: readonly Range[]): number {
  return ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

/** What grants have left above a number, for a type that has any and goes on with them. */
function above({ granted }: State, type: string, to: number): State["granted"] {
  const of = granted[type];
  if (of === undefined) return granted;
  const left = of.left
    .filter(({ last }) => last > to)
    .map(({ first, last }) => ({ first: Math.max(first, to + 1), last }));
  return { ...granted, [type]: { ...of, left } };
}

function take(
  state: State,
  call: Call,
  count: number,
  answer: Answered,
  numbersOf: (result: Json) => Range,
): State[] {
  const key = call.params.requestId as string | undefined;
  const before = key === undefined ? undefined : state.given[key];
  const numbers = before ?? next(state, call, count);
  if (numbers === undefined) return answer === "unknown" ? [state] : [];
  const { first, last } = numbers;
  if (answer !== "unknown") {
    const given = numbersOf(answer.result);
    if (given.first !== first || given.last !== last) return [];
  }
  if (before !== undefined) return [state];
  const type = call.params.type as string;
  return [
    {
      last: { ...state.last, [type]: last },
      granted: above(state, type, last),
      given: key === undefined ? state.given : newest({ ...state.given, [key]: { first, last } }),
    },
  ];
}

function newest<T>(given: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(given).slice(-MOST_REMEMBERED));
}

function advance(state: State, call: Call, answer: Answered): State[] {
  const { type, to } = call.params as { type: string; to: number };
  const last = Math.max(lastOf(state, call), to);
  if (answer !== "unknown" && answer.result.seq !== last) return [];
  const of = state.granted[type];
  if (last === lastOf(state, call) && (of === undefined || to < of.highest)) return [state];
  const { [type]: _, ...others } = state.granted;
  // Above all that was granted, it goes on by itself.
  const granted = of !== undefined && to >= of.highest ? others : above(state, type, to);
  return [{ ...state, granted, last: { ...state.last, [type]: last } }];
}
