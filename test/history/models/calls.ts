// From a model of single calls to a model of operations, which may have several calls that are performed as one.
import type { RawError } from "../../raw-client.js";
import type { Call, Operation } from "../history.js";
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

/** A grant that lasts for a time: when it may end by itself at the earliest, and which connection it is bound to. */
export interface Lasting {
  untilMs: number;
  connection: number | null;
}

/** Clocks of two processes are read in whole milliseconds. */
const ROUNDING_MS = 2;

/** True if a grant may have ended by itself before a moment. */
export type MayHaveEnded = (grant: Lasting, beforeMs: number) => boolean;

/** When connections were closed, and when what was bound to them may end. */
export interface Connections {
  closed: ReadonlyMap<number, number>;
  boundUntil: ReadonlyMap<number, number>;
  /** By thing, when somebody waited for it who was refused in the end, without an effect. */
  refusedWaits: ReadonlyMap<string, readonly { fromMs: number; untilMs: number }[]>;
}

/**
 * The connection that a grant is bound to once it is renewed: the one that renews it, if a restart of the daemon took
 * its own, else the one that it has.
 */
export function boundAfterRenewal(
  { connection }: Lasting,
  { closed, boundUntil }: Connections,
  { operation, sentMs }: Circumstances,
): number | null {
  if (connection === null) return null;
  const closedMs = closed.get(connection);
  const byRestart = closedMs !== undefined && closedMs < sentMs && boundUntil.get(connection) !== closedMs;
  return byRestart ? operation.connection : connection;
}

/** @param endOf when what is bound to a connection may end; nothing of those that are open. */
export function endsByItself(endOf: ReadonlyMap<number, number>): MayHaveEnded {
  return ({ untilMs, connection }, beforeMs) => {
    const boundMs = connection === null ? undefined : endOf.get(connection);
    return Math.min(untilMs, boundMs ?? Number.POSITIVE_INFINITY) <= beforeMs + ROUNDING_MS;
  };
}

/** The connection that the grant of a call is bound to. */
export function boundTo({ params }: Call, { operation }: Circumstances): number | null {
  return params.releaseOn === "disconnect" ? operation.connection : null;
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
