// How much the calls of a transact name: known before it is begun, since it cannot be done in steps.
import { type PawlError, refuse } from "@pawl/protocol/errors";
import {
  MAX_CHANGES_PER_CALL,
  MAX_CLAIMED_BATCHES,
  MAX_LEASED_COMMANDS,
  MAX_NEXT_TIMES,
  MAX_NOTES_PER_READ,
  MAX_STATE_TYPES,
  MAX_TRANSACT_NAMED,
} from "@pawl/protocol/limits";
import type { Operation } from "../store/statement.js";
import { sizeOfClaim } from "./queue/holder.js";

interface NamedCall {
  readonly method: string;
  readonly params?: Readonly<Record<string, unknown>> | undefined;
}

/** A page of items with filters looks at 1,000 of them, which is as much work as this many batches. */
const FILTERED_PAGE = 150;
/** Dead batches of a queue that one step brings back. */
const RETRIED_BATCHES = 250;
/** Batches that one step of these moves and removes. */
const MOVED_BATCHES = 150;
const PURGED_BATCHES = 100;
/** So many types of sequences are as much work as one batch. */
const TYPES_PER_BATCH = 100;
/** To find a time in a time zone is as much work as so many batches. */
const BATCHES_PER_TIME = 4;

type Count = (params: Readonly<Record<string, unknown>>) => number;

/** By method; every other call names one thing. Pages are bounded by the length of the results. */
const NAMED: Readonly<Record<string, Count>> = {
  "queue.enqueue": ({ after }) => 1 + lengthOf(after),
  "queue.enqueueMany": ({ batches }) =>
    lengthOf(batches) +
    (Array.isArray(batches) ? batches : []).reduce((sum: number, each) => sum + lengthOf(each?.after), 0),
  "queue.claim": ({ maxBatches, batchIds }) =>
    isGiven(batchIds) ? lengthOf(batchIds) : numberIn(maxBatches, 1, MAX_CLAIMED_BATCHES),
  "queue.move": ({ batchIds }) => (isGiven(batchIds) ? lengthOf(batchIds) : MOVED_BATCHES),
  "queue.purge": ({ batchIds }) => (isGiven(batchIds) ? lengthOf(batchIds) : PURGED_BATCHES),
  "queue.retry": ({ queue }) => (isGiven(queue) ? RETRIED_BATCHES : 1),
  "schedule.next": ({ count }) => numberIn(count, 1, MAX_NEXT_TIMES) * BATCHES_PER_TIME,
  "lease.acquire": ({ names }) => Math.max(1, lengthOf(names)),
  "command.lease": ({ max }) => numberIn(max, 1, MAX_LEASED_COMMANDS),
  "path.reserve": ({ patterns, files }) => lengthOf(patterns) + lengthOf(files),
  "path.release": ({ patterns }) => 1 + lengthOf(patterns),
  "pipeline.list": ({ agent, blocked, label }) =>
    agent === undefined && !isGiven(blocked) && !isGiven(label) ? 1 : FILTERED_PAGE,
  "pipeline.read": ({ notes }) => 1 + (isGiven(notes) ? numberIn(notes, 0, MAX_NOTES_PER_READ) : 0),
  "pipeline.ready": () => FILTERED_PAGE,
  "pipeline.configure": () => FILTERED_PAGE,
  "pipeline.heads": ({ known }) => 1 + lengthOf(known),
  "pipeline.changes": ({ heads, want, limit }) =>
    lengthOf(heads) + lengthOf(want) + numberIn(limit, MAX_CHANGES_PER_CALL, MAX_CHANGES_PER_CALL),
  "pipeline.apply": ({ changes }) => lengthOf(changes),
  "sequence.state": ({ limit }) =>
    Math.ceil(numberIn(limit, MAX_STATE_TYPES, MAX_STATE_TYPES) / TYPES_PER_BATCH),
};

/** Refuses calls that name too much: nothing of them has been done. */
export function* tooMuchNamed(calls: readonly NamedCall[]): Operation<PawlError | undefined> {
  let named = 0;
  for (const { method, params = {} } of calls) named += yield* namedBy(method, params);
  if (named <= MAX_TRANSACT_NAMED) return undefined;
  const message = `name ${named} batches, changes and items in all, and a transaction takes at most ${MAX_TRANSACT_NAMED}`;
  return refuse("invalid_params", `transact: the calls ${message}. Split it. Nothing was begun.`, {
    issues: [{ path: "/calls", message }],
    named,
    most: MAX_TRANSACT_NAMED,
  });
}

function* namedBy(method: string, params: Readonly<Record<string, unknown>>): Operation<number> {
  if (method === "queue.complete" || method === "queue.abandon" || method === "queue.progress") {
    // A claim that is made in the same transaction has been counted where it is made.
    return typeof params.claimId === "string" ? yield* sizeOfClaim(params.claimId) : 1;
  }
  return Object.hasOwn(NAMED, method) ? (NAMED[method] as Count)(params) : 1;
}

/** A number that was given; the most there can be for one that is not known yet, as `$result`. */
function numberIn(given: unknown, otherwise: number, most: number): number {
  if (!isGiven(given)) return otherwise;
  return typeof given === "number" ? Math.min(Math.max(given, 1), most) : most;
}

function lengthOf(given: unknown): number {
  return Array.isArray(given) ? given.length : isGiven(given) ? MAX_TRANSACT_NAMED : 0;
}

/** Null is an optional param that is not given, where its type has no null. */
function isGiven(param: unknown): boolean {
  return param !== undefined && param !== null;
}
