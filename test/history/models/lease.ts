// One name, held by one at a time, whose tokens only rise (spec: lease.md).
import type { Call } from "../history.js";
import {
  type Answer,
  boundAfterRenewal,
  boundTo,
  type CallModel,
  type Circumstances,
  type Connections,
  endsByItself,
  grantedUntilMs,
  isKeptForOthers,
  type Json,
  type Lasting,
  modelOf,
} from "./calls.js";

interface Holder extends Lasting {
  /** Null of a grant that was not answered. */
  leaseId: string | null;
  token: number | null;
  ttlMs: number;
}

interface State {
  holder: Holder | null;
  /** The highest token ever granted is not below this, and is this if `isExact`. */
  highest: number;
  isExact: boolean;
}

const DEFAULT_TTL_MS = 30_000;

export function leaseModel(connections: Connections) {
  const mayHaveEnded = endsByItself(connections);
  const model: CallModel<State> = {
    initial: { holder: null, highest: 0, isExact: true },
    call: (state, call, answer, when) => {
      // What may have ended by now has ended or not.
      const over = state.holder !== null && mayHaveEnded(state.holder, when.beforeMs);
      const states = over ? [state, { ...state, holder: null }] : [state];
      return states.flatMap((each) => perform(each, call, answer, when, connections));
    },
  };
  return modelOf(model);
}

function perform(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  switch (call.method) {
    case "lease.acquire":
      return acquire(state, call, answer, when, connections);
    case "lease.heartbeat":
      return heartbeat(state, call, answer, when, connections);
    case "lease.release":
      return release(state, call, answer);
    case "lease.break":
      return end(state, answer, state.holder !== null, "broken");
    case "lease.get":
      return answer === "unknown" ? [state] : get(state, answer);
    case "lease.check":
      return answer === "unknown" ? [state] : check(state, call, answer);
  }
  throw new Error(`no model of ${call.method}`);
}

function acquire(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  const ttlMs = (call.params.ttlMs as number | undefined) ?? DEFAULT_TTL_MS;
  const grant = { untilMs: grantedUntilMs(ttlMs, when), ttlMs, bound: boundTo(call, when) };
  if (answer === "unknown") {
    if (state.holder !== null) return [];
    const holder = { ...grant, leaseId: null, token: null };
    return [{ holder, highest: state.highest + 1, isExact: false }];
  }
  if ("error" in answer) {
    if (answer.error.data.kind !== "lease_held") return [];
    const isKept = state.holder === null && isKeptForOthers(call, when, connections);
    return isKept ? [state] : held(state, answer.error.data);
  }
  const { leaseId, fencingToken: token } = answer.result.lease as Json;
  if (state.holder !== null || token <= state.highest) return [];
  return [{ holder: { ...grant, leaseId, token }, highest: token, isExact: true }];
}

/** Somebody holds it, and the refusal says who. */
function held(state: State, details: Json): State[] {
  if (state.holder === null) return [];
  const token = details.holder?.fencingToken;
  return token === undefined ? [state] : learned(state, token);
}

/** The state, where the token of the holder turns out to be this one. */
function learned(state: State, token: number): State[] {
  const { holder } = state;
  if (holder === null) return [];
  if (holder.token !== null) return holder.token === token ? [state] : [];
  return token < state.highest ? [] : [{ holder: { ...holder, token }, highest: token, isExact: true }];
}

function heartbeat(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  const { holder } = state;
  const isHeld = holder !== null && holder.leaseId === call.params.leaseId;
  if (answer !== "unknown" && "error" in answer)
    return answer.error.data.kind === "lease_lost" && !isHeld ? [state] : [];
  if (!isHeld) return answer === "unknown" ? [state] : [];
  const ttlMs = (call.params.ttlMs as number | undefined) ?? holder.ttlMs;
  const bound = boundAfterRenewal(holder, connections, when);
  return [{ ...state, holder: { ...holder, untilMs: when.sentMs + ttlMs, bound } }];
}

function release(state: State, call: Call, answer: Answer): State[] {
  return end(
    state,
    answer,
    state.holder !== null && state.holder.leaseId === call.params.leaseId,
    "released",
  );
}

function end(state: State, answer: Answer, ends: boolean, field: "released" | "broken"): State[] {
  if (answer !== "unknown" && ("error" in answer || answer.result[field] !== ends)) return [];
  return ends ? [{ ...state, holder: null }] : [state];
}

function get(state: State, answer: Exclude<Answer, "unknown">): State[] {
  if ("error" in answer) return [];
  const { lease } = answer.result;
  if (lease === null) return state.holder === null ? [state] : [];
  return learned(state, lease.fencingToken);
}

function check(state: State, call: Call, answer: Exclude<Answer, "unknown">): State[] {
  if ("error" in answer) return [];
  const { current, highest } = answer.result;
  if (highest < state.highest || (state.isExact && highest !== state.highest)) return [];
  const { holder } = state;
  const asked = call.params.fencingToken as number;
  if (current) return holder === null ? [] : learned({ ...state, highest, isExact: true }, asked);
  if (holder !== null && holder.token === asked) return [];
  if (state.isExact) return [state];
  return [{ ...state, highest, isExact: true }];
}
