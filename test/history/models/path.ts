// The paths of one root (spec: lease.md): reservations of which no two meet, unless both only read; tokens only rise.
//
// The load has literal paths and directories alone, so that two patterns meet if one is, or is below, the other.
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

interface Reservation extends Lasting {
  /** Null of one that was not answered. */
  id: string | null;
  patterns: readonly string[];
  mode: string;
  token: number | null;
  ttlMs: number;
}

interface State {
  reservations: readonly Reservation[];
  /** The highest token ever granted is not below this. */
  highest: number;
}

const DEFAULT_TTL_MS = 30_000;
/** Of reservations that may have ended, those of which all combinations are tried. */
const MAX_SUBSETS = 6;

export function pathModel(connections: Connections) {
  const mayHaveEnded = endsByItself(connections);
  const model: CallModel<State> = {
    initial: { reservations: [], highest: 0 },
    call: (state, call, answer, when) => {
      const shown = shownTokens(call, answer);
      const over = state.reservations
        .filter((each) => mayHaveEnded(each, when.beforeMs))
        .filter(({ token }) => token === null || !shown?.has(token))
        .sort((a, b) => b.untilMs - a.untilMs);
      let states = [state];
      for (const [index, each] of over.entries()) {
        // A list tells which have ended, and of many those have that could have for longest.
        const hasEnded = index >= MAX_SUBSETS || (shown !== undefined && each.token !== null);
        states = states.flatMap((before) => (hasEnded ? [] : [before]).concat(without(before, each)));
      }
      return states.flatMap((each) => perform(each, call, answer, when, connections));
    },
  };
  return modelOf(model);
}

/** The tokens of all that are held, as a list tells. */
function shownTokens({ method }: Call, answer: Answer): Set<number> | undefined {
  if (method !== "path.list" || answer === "unknown" || "error" in answer) return undefined;
  return new Set(answer.result.reservations.map(({ fencingToken }: Json) => fencingToken));
}

function without(state: State, gone: Reservation): State {
  return { ...state, reservations: state.reservations.filter((each) => each !== gone) };
}

function perform(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  switch (call.method) {
    case "path.reserve":
      return reserve(state, call, answer, when, connections);
    case "path.heartbeat":
      return heartbeat(state, call, answer, when, connections);
    case "path.release":
      return release(state, call, answer);
    case "path.check":
      return answer === "unknown" ? [state] : check(state, call, answer);
    case "path.list":
      return answer === "unknown" ? [state] : list(state, answer);
  }
  throw new Error(`no model of ${call.method}`);
}

/** True if some path fits both. */
export function meet(one: readonly string[], other: readonly string[]): boolean {
  const covers = (a: string, b: string): boolean => a === b || (a.endsWith("/") && b.startsWith(a));
  return one.some((a) => other.some((b) => covers(a, b) || covers(b, a)));
}

function reserve(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  const { patterns, mode = "write", ttlMs = DEFAULT_TTL_MS } = call.params as Json;
  const isFree = state.reservations.every(
    (each) => (mode === "read" && each.mode === "read") || !meet(each.patterns, patterns),
  );
  if (answer !== "unknown" && "error" in answer) {
    if (answer.error.data.kind !== "lease_held") return [];
    return isFree && !isKeptForOthers(call, when, connections) ? [] : [state];
  }
  if (!isFree) return [];
  const shown = answer === "unknown" ? undefined : answer.result.reservation;
  if (shown !== undefined && shown.fencingToken <= state.highest) return [];
  const reservation: Reservation = {
    id: shown?.reservationId ?? null,
    patterns,
    mode,
    token: shown?.fencingToken ?? null,
    ttlMs,
    untilMs: grantedUntilMs(ttlMs, when),
    bound: boundTo(call, when),
  };
  const highest = shown?.fencingToken ?? state.highest + 1;
  return [{ reservations: [...state.reservations, reservation], highest }];
}

function heartbeat(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  const held = state.reservations.find(({ id }) => id === call.params.reservationId);
  if (answer !== "unknown" && "error" in answer)
    return answer.error.data.kind === "lease_lost" && held === undefined ? [state] : [];
  if (held === undefined) return answer === "unknown" ? [state] : [];
  const bound = boundAfterRenewal(held, connections, when);
  const renewed = { ...held, untilMs: when.sentMs + held.ttlMs, bound };
  return [{ ...state, reservations: state.reservations.map((each) => (each === held ? renewed : each)) }];
}

function release(state: State, call: Call, answer: Answer): State[] {
  const held = state.reservations.find(({ id }) => id === call.params.reservationId);
  if (answer !== "unknown" && ("error" in answer || answer.result.released !== (held !== undefined)))
    return [];
  return held === undefined ? [state] : [without(state, held)];
}

function check(state: State, { params }: Call, answer: Exclude<Answer, "unknown">): State[] {
  if ("error" in answer) return [];
  const isFree = state.reservations.every(({ patterns }) => !meet(patterns, [params.path as string]));
  return answer.result.allowed === isFree ? [state] : [];
}

/** All that are held, each with its token. */
function list(state: State, answer: Exclude<Answer, "unknown">): State[] {
  if ("error" in answer) return [];
  const shown = answer.result.reservations as Json[];
  if (shown.length !== state.reservations.length) return [];
  const left = [...shown];
  const reservations: Reservation[] = [];
  for (const each of state.reservations) {
    const at = left.findIndex(
      ({ fencingToken, patterns, mode }) =>
        (each.token === null || each.token === fencingToken) &&
        mode === each.mode &&
        patterns.join() === each.patterns.join(),
    );
    if (at < 0) return [];
    const [found] = left.splice(at, 1) as [Json];
    reservations.push(each.token === null ? { ...each, token: found.fencingToken } : each);
  }
  const highest = Math.max(state.highest, ...reservations.map(({ token }) => token ?? 0));
  if (reservations.every((each, at) => each === state.reservations[at])) return [state];
  return [{ reservations, highest }];
}
