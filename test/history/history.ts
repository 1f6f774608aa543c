// A history: what clients sent over the socket, what they were answered, and when. Nothing here knows the daemon.
import type { RawError } from "../raw-client.js";

/** A moment by the one clock of the process that records: its place among all moments, and milliseconds. */
export interface Moment {
  order: number;
  ms: number;
}

/** One call, and the name of the thing that it is about, such as `queue:mail`. */
export interface Call {
  /** Empty of a call that says nothing of the state of anything. */
  object: string;
  method: string;
  params: Record<string, unknown>;
}

/** A call within `transact`, before the others: a claim that has to be held. */
export const GUARD = "guard";

/** The object of a call that has to be refused, and all that is performed with it. */
export const NOTHING = "nothing";

/** A connection that is lost before the answer leaves the outcome unknown: it may have taken effect or not. */
export type Outcome =
  | { kind: "answered"; results: readonly unknown[] }
  | { kind: "refused"; error: RawError }
  | { kind: "unknown" }
  /** Not answered, but later answers show that it took effect, and its results; undefined where they do not. */
  | { kind: "seen"; results: readonly unknown[] };

/** One request: a call, or several that are performed all or not at all. */
export interface Operation {
  /** Rises in the order in which the requests of a connection are sent, in which they take effect. */
  id: number;
  connection: number;
  /** A call that may wait takes effect later than others that are sent after it. */
  waits: boolean;
  calls: readonly Call[];
  outcome: Outcome;
  /** The daemon refused it because it did not know in time what came of it: what it was granted ends by itself. */
  mayBeGivenBack?: true;
  sent: Moment;
  /** The answer, or the moment after which it can no longer take effect. */
  ended: Moment;
}

/** A time in which others may have taken a daemon for dead: what was bound to its connections may end after that. */
export interface CutOff {
  fromMs: number;
  /** Grants of later are not concerned. */
  untilMs: number;
  /** False if the daemon was stopped meanwhile, and could tell nobody of a loss. */
  couldTell: boolean;
}

/** What is bound to the connections of a daemon that died is held for so long at least (spec: wire.md, shared.md). */
export const GRACE_MS = 5000;

/** By how much the wall clock is ahead of that of recordings; the two may drift apart by some of the slack. */
const WALL_AHEAD_MS = Date.now() - performance.now();
export const WALL_SLACK_MS = 500;

/** The wall clock at a moment of a recording. */
export function wallOf(ms: number): number {
  return ms + WALL_AHEAD_MS;
}

/** The clock of a recording, and what connections there were. */
export class Recording {
  #order = 0;
  #connections = 0;
  #operations = 0;
  /** When connections were closed, in milliseconds, by whichever side. */
  readonly closed = new Map<number, number>();
  /** When grants that are bound to a connection may end: after a restart of the daemon that is later. */
  readonly boundUntil = new Map<number, number>();

  /** Likewise of the connections to daemons that others may have taken for dead. */
  readonly cutOff = new Map<number, CutOff[]>();

  /** By claimId, leaseId (that of a delivery, too) or reservationId, when its holder was told of its loss, in ms. */
  readonly told = new Map<string, number>();

  /** By thing, calls that waited for it and were refused without an effect, as while nothing can be written. */
  readonly refusedWaits = new Map<string, { fromMs: number; untilMs: number }[]>();

  /** When the present daemon said for the first time that its storage has failed and that it ends. */
  storageFailed: Moment | undefined;

  now(): Moment {
    this.#order += 1;
    return { order: this.#order, ms: performance.now() };
  }

  addRefusedWait({ calls: [call], sent }: Operation): void {
    const { object } = call as Call;
    const wait = { fromMs: sent.ms, untilMs: this.now().ms };
    this.refusedWaits.set(object, [...(this.refusedWaits.get(object) ?? []), wait]);
  }

  nextConnection(): number {
    this.#connections += 1;
    return this.#connections;
  }

  nextOperation(): number {
    this.#operations += 1;
    return this.#operations;
  }
}

/** An operation as people read it. */
export function shownOperation({ id, connection, calls, outcome, sent, ended }: Operation): string {
  const asked = calls.map(({ method, params }) => `${method} ${shortened(params)}`).join("; ");
  const when = `${sent.ms.toFixed(1)}..${Number.isFinite(ended.ms) ? ended.ms.toFixed(1) : "open"} ms`;
  return `#${id} connection ${connection}, ${when}: ${asked} -> ${shownOutcome(outcome)}`;
}

function shownOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case "seen":
      return `not answered, but it took effect: ${outcome.results.map(shortened).join("; ")}`;
    case "answered":
      return outcome.results.map(shortened).join("; ");
    case "refused":
      return `refused, ${outcome.error.data.kind}: ${outcome.error.message}`;
    case "unknown":
      return "outcome unknown";
  }
}

const MOST_SHOWN = 1500;

function shortened(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  return text.length <= MOST_SHOWN ? text : `${text.slice(0, MOST_SHOWN)}...`;
}
