// From a model of single calls to a model of operations, which may have several calls that are performed as one.
import type { RawError } from "../../raw-client.js";
import { type Call, type CutOff, GRACE_MS, type Operation } from "../history.js";
import type { Model } from "../search.js";

// biome-ignore lint/suspicious/noExplicitAny: an answer is read as it should be; what does not fit is a violation
export type Json = any;

/** The known part of the outcome of one call that was not refused. */
export type Granted = { result: Json } | "unknown";

/** The known part of the outcome of one call. */
export type Answer = Granted | { error: RawError };

/** When, and by whom, a call was made. */
export interface Circumstances {
  operation: Operation;
  /** The call took effect between these. */
  sentMs: number;
  beforeMs: number;
}

export interface CallModel<State> {
  initial: State;
  /** As `Model.step`, of one call. */
  call(state: State, call: Call, answer: Answer, when: Circumstances): State[];
}

/** A grant that lasts for a time: when it may end by itself at the earliest, and which connections may end it. */
export interface Lasting {
  untilMs: number;
  bound: readonly Bound[];
}

/** A connection that a grant is bound to, and since when at the earliest. */
export interface Bound {
  connection: number;
  sinceMs: number;
}

/** Clocks of two processes are read in whole milliseconds. */
const ROUNDING_MS = 2;

/** True if a grant may have ended by itself before a moment. */
export type MayHaveEnded = (grant: Lasting, beforeMs: number) => boolean;

type Ends = Pick<Connections, "boundUntil" | "cutOff">;

/** When connections were closed, and when what was bound to them may end. */
export interface Connections {
  closed: ReadonlyMap<number, number>;
  boundUntil: ReadonlyMap<number, number>;
  /** By connection, when its daemon may have been taken for dead by others that share what it granted. */
  cutOff: ReadonlyMap<number, readonly CutOff[]>;
  /** By thing, when somebody waited for it who was refused in the end, without an effect. */
  refusedWaits: ReadonlyMap<string, readonly { fromMs: number; untilMs: number }[]>;
}

/**
 * The connection that a grant is bound to once it is renewed: the one that renews it, if a restart of the daemon took
 * its own, else the one that it has; both where others may have taken the daemon for dead or not.
 */
export function boundAfterRenewal(
  { bound }: Lasting,
  { closed, boundUntil, cutOff }: Connections,
  { operation, sentMs }: Circumstances,
): readonly Bound[] {
  const renewed = { connection: operation.connection, sinceMs: sentMs };
  const isCutOff = bound.some(({ connection }) => cutOff.has(connection));
  if (isCutOff) return [...bound, renewed];
  const [first] = bound;
  if (first === undefined) return bound;
  const closedMs = closed.get(first.connection);
  const byRestart =
    closedMs !== undefined && closedMs < sentMs && boundUntil.get(first.connection) !== closedMs;
  return byRestart ? [renewed] : bound;
}

/**
 * When what is bound to a connection may end at the earliest; infinity for one that is open.
 *
 * @param graceMs how long others leave it alone that take its daemon for dead.
 */
export function boundEndMs(
  { boundUntil, cutOff }: Ends,
  { connection, sinceMs }: Bound,
  graceMs = GRACE_MS,
): number {
  const cuts = (cutOff.get(connection) ?? []).filter(({ untilMs }) => untilMs >= sinceMs);
  return Math.min(
    boundUntil.get(connection) ?? Number.POSITIVE_INFINITY,
    ...cuts.map(({ fromMs }) => fromMs + graceMs),
  );
}

export function endsByItself(connections: Ends, graceMs = GRACE_MS): MayHaveEnded {
  return ({ untilMs, bound }, beforeMs) =>
    Math.min(untilMs, ...bound.map((each) => boundEndMs(connections, each, graceMs))) <=
    beforeMs + ROUNDING_MS;
}

/**
 * True if what a call asks for may be kept for those who came before, who cannot have it as long as nothing can be
 * written.
 */
export function isKeptForOthers(
  { object }: Call,
  { sentMs, beforeMs }: Circumstances,
  { refusedWaits }: Connections,
): boolean {
  const waits = refusedWaits.get(object) ?? [];
  return waits.some(({ fromMs, untilMs }) => fromMs <= beforeMs && untilMs >= sentMs);
}

/** When what a call was granted may end by its time. */
export function grantedUntilMs(ttlMs: number, { operation, sentMs }: Circumstances): number {
  return operation.mayBeGivenBack === true ? sentMs : sentMs + ttlMs;
}

/** The connection that the grant of a call is bound to. */
export function boundTo({ params }: Call, { operation, sentMs }: Circumstances): readonly Bound[] {
  return params.releaseOn === "disconnect" ? [{ connection: operation.connection, sinceMs: sentMs }] : [];
}

export function modelOf<State>({ initial, call }: CallModel<State>): Model<State> {
  return {
    initial,
    step: (state, operation, beforeMs) => {
      const when = { operation, sentMs: operation.sent.ms, beforeMs };
      let states = [state];
      operation.calls.forEach((each, index) => {
        const answer = answerOf(operation, index);
        states = states.flatMap((before) => call(before, each, answer, when));
      });
      return states;
    },
  };
}

function answerOf({ outcome }: Operation, index: number): Answer {
  switch (outcome.kind) {
    case "seen":
      return outcome.results[index] === undefined ? "unknown" : { result: outcome.results[index] };
    case "answered":
      return { result: outcome.results[index] };
    case "refused":
      return { error: outcome.error };
    case "unknown":
      return "unknown";
  }
}
