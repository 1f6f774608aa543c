import type { Id } from "@pawl/protocol/envelope";
import type { PawlError } from "@pawl/protocol/errors";
import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import type { Operation } from "../store/statement.js";
import type { Caller, Env, Outcome } from "./operation.js";

/** One request on its way: an operation to perform, for whom, and where its outcome goes. */
export interface Call {
  readonly caller: Caller;
  /** The id of its request, by which its wait may be ended; undefined for a notification and for the daemon itself. */
  readonly id?: Id | undefined;
  /** How long the operation may wait for its condition, in milliseconds; 0 has it answered at once. */
  readonly waitMs: number;
  /** True if the method of its request writes; undefined for a call that is no request by itself. */
  readonly writes?: boolean | undefined;
  /** The bytes of its request; a call of the daemon itself has none. */
  readonly bytes?: number;
  /** For operations made of others: a refusal, or a try, undoes the writes before it. */
  readonly mayBeUndone?: boolean;
  /** True if nobody is there any more to get the answer; such a call is performed but never parked. */
  readonly closed: boolean;
  /** False while its peer has so much to read that its answer, if it is a long one, has to wait. */
  readonly hasRoom?: boolean;
  /** The answer to a call that has waited, once no other can be kept: it is not performed then. */
  readonly refusal?: PawlError | undefined;
  /** Makes the operation anew for each try. */
  start(env: Env): Operation<Outcome<unknown>>;
  /** Told how many bytes the call takes while it waits, and less as many once it does not. */
  parked?(bytes: number): void;
  /** Told after each step but the last how many bytes the call takes until the next one. */
  holds?(bytes: number): void;
  /** Called exactly once, after the commit: with the result, a refusal, or the defect that was thrown. */
  settle(outcome: unknown): void;
}

/** A call whose first step is done: the next one is made by `goOn`. Nobody is left to be answered once it is closed. */
export function following(call: Call, goOn: Call["start"]): Call {
  return {
    caller: call.caller,
    waitMs: call.waitMs,
    writes: call.writes,
    bytes: call.bytes ?? 0,
    get closed() {
      return call.closed;
    },
    *start(env) {
      return call.closed ? undefined : yield* goOn(env);
    },
    parked: (bytes) => call.parked?.(bytes),
    holds: (bytes) => call.holds?.(bytes),
    settle: (outcome) => call.settle(outcome),
  };
}

/** The daemon as a caller; 0 is the number of no connection. */
export const DAEMON: Caller = { connection: 0, pid: process.pid, uid: null, gid: null };

/** The time until a call of the daemon itself is performed again after it failed. */
const RETRY_MS = 1000;

/** Something that the daemon itself has to do in a turn. */
export interface OwnCall<T> {
  /** True if the operation waits for its condition, for as long as a timer can: then `failed` or `done` begins anew. */
  readonly waits?: boolean;
  start(env: Env): Operation<Outcome<T>>;
  /** Called after the commit with the result. */
  done?(result: T): void;
  /** Called with a refusal or a defect; returns whether the call is to be performed again in a second. */
  failed(error: Error): boolean;
}

/** Performs a call of the daemon itself, again while the storage refuses it. Returns the call. */
export function performUntilDone<T>(loop: { submit(call: Call): void }, own: OwnCall<T>): Call {
  const call: Call = {
    caller: DAEMON,
    waitMs: own.waits ? MAX_TIMER_MS : 0,
    closed: false,
    start: (env) => own.start(env),
    settle(outcome) {
      if (!(outcome instanceof Error)) own.done?.(outcome as T);
      else if (own.failed(outcome)) setTimeout(() => loop.submit(call), RETRY_MS).unref();
    },
  };
  loop.submit(call);
  return call;
}
