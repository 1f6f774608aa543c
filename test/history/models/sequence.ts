// Counters that are taken from together (spec: sequence.md): numbers only rise, without gaps and without repetition.
import type { Call } from "../history.js";
import { type CallModel, type Granted, type Json, modelOf } from "./calls.js";

interface State {
  /** The last number given, by type. */
  last: Readonly<Record<string, number>>;
  /** Numbers that were given to a requestId. */
  given: Readonly<Record<string, { first: number; last: number }>>;
}

/** The load repeats no request that is so long ago. */
const MOST_REMEMBERED = 200;

const counters: CallModel<State> = {
  initial: { last: {}, given: {} },
  call: (state, call, answer) => {
    if (answer !== "unknown" && "error" in answer) return [];
    switch (call.method) {
      case "sequence.next":
        return take(state, call, 1, answer, ({ seq }) => ({ first: seq, last: seq }));
      case "sequence.reserve":
        return take(state, call, call.params.count as number, answer, (result) => result);
      case "sequence.peek":
        return answer === "unknown" || answer.result.seq === lastOf(state, call) + 1 ? [state] : [];
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

function take(
  state: State,
  call: Call,
  count: number,
  answer: Granted,
  numbersOf: (result: Json) => { first: number; last: number },
): State[] {
  const key = call.params.requestId as string | undefined;
  const before = key === undefined ? undefined : state.given[key];
  const first = before?.first ?? lastOf(state, call) + 1;
  const last = before?.last ?? first + count - 1;
  if (answer !== "unknown") {
    const numbers = numbersOf(answer.result);
    if (numbers.first !== first || numbers.last !== last) return [];
  }
  if (before !== undefined) return [state];
  return [
    {
      last: { ...state.last, [call.params.type as string]: last },
      given: key === undefined ? state.given : newest({ ...state.given, [key]: { first, last } }),
    },
  ];
}

function newest<T>(given: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(given).slice(-MOST_REMEMBERED));
}

function advance(state: State, call: Call, answer: Granted): State[] {
  const last = Math.max(lastOf(state, call), call.params.to as number);
  if (answer !== "unknown" && answer.result.seq !== last) return [];
  if (last === lastOf(state, call)) return [state];
  return [{ ...state, last: { ...state.last, [call.params.type as string]: last } }];
}
