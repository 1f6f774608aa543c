// Later answers tell of operations that were not answered: a batch, a claim or a lease that is shown was made, and one
// that is missing where it would have to be shown was not. That leaves few operations of which nobody knows anything.
import type { Call, Operation } from "./history.js";
import { boundEndMs, type Connections, type Json } from "./models/calls.js";

interface Shown {
  /** The moments between which it was so. */
  answer: Operation;
  batches: readonly Json[];
}

interface Evidence {
  connections: Connections;
  /** Batches that some answer showed, by label. */
  batches: ReadonlyMap<string, Json>;
  /** How many operations add a batch, by its label. */
  added: ReadonlyMap<string, number>;
  /** Whole lists, by queue. */
  lists: ReadonlyMap<string, readonly Shown[]>;
  /** Leases and reservations that some answer showed as held, by their owner. */
  leases: ReadonlyMap<string, Json>;
  reservations: ReadonlyMap<string, Json>;
}

/** The operations as later answers show them; without those that had no effect. */
export function withEvidence(operations: readonly Operation[], connections: Connections): Operation[] {
  const evidence = evidenceOf(operations, connections);
  return withoutIdleKeys(operations).flatMap((operation) => {
    if (operation.outcome.kind !== "unknown") return [operation];
    const results = operation.calls.map((call) => resultOf(call, operation, evidence));
    if (results.includes(NO_EFFECT)) return [];
    if (results.every((result) => result === undefined)) return [operation];
    return [{ ...operation, outcome: { kind: "seen", results } }];
  });
}

/** Of a call that has not taken effect. */
const NO_EFFECT = Symbol("no effect");

/** The result that a call must have had; `NO_EFFECT`; or undefined if nothing is known. */
function resultOf(call: Call, operation: Operation, evidence: Evidence): unknown {
  switch (call.method) {
    case "queue.enqueue": {
      const batch = addedBatch(call, call.params, operation, evidence);
      return typeof batch === "object" ? { batch, created: true } : batch;
    }
    case "queue.enqueueMany": {
      const each = (call.params.batches as Call["params"][]).map((params) =>
        addedBatch(call, params, operation, evidence),
      );
      if (each.includes(NO_EFFECT)) return NO_EFFECT;
      return each.includes(undefined) ? undefined : { batches: each, created: each.map(() => true) };
    }
    case "queue.claim":
      return claimOf(call, operation, evidence);
    case "lease.acquire":
      return leaseOf(call, evidence);
    case "path.reserve": {
      const reservation = evidence.reservations.get(call.params.owner as string);
      return reservation === undefined ? undefined : { reservation };
    }
  }
  return undefined;
}

function addedBatch(
  call: Call,
  params: Call["params"],
  operation: Operation,
  { batches, added, lists }: Evidence,
): Json {
  const [label] = params.payloads as [string];
  const batch = batches.get(label);
  // A repetition of the request may have made it as well.
  if (batch !== undefined) return added.get(label) === 1 ? batch : undefined;
  const isMissing = lists.get(call.params.queue as string)?.some((list) => isAfter(list.answer, operation));
  return isMissing === true ? NO_EFFECT : undefined;
}

/** True if an answer was asked for when the operation could no longer take effect. */
function isAfter(answer: Operation, operation: Operation): boolean {
  return answer.sent.order > operation.ended.order;
}

/** The load has each claim and each lease asked for by an owner of its own. */
function claimOf(call: Call, operation: Operation, { lists, connections }: Evidence): unknown {
  const { queue, owner, leaseMs } = call.params as { queue: string; owner: string; leaseMs: number };
  for (const { answer, batches } of lists.get(queue) ?? []) {
    const held = batches.filter(({ claim }) => claim?.owner === owner);
    const [head] = held;
    if (head !== undefined) return { claim: { ...head.claim, batches: held } };
    if (isAfter(answer, operation) && lasts(call, operation, leaseMs, answer, connections)) return NO_EFFECT;
  }
  return undefined;
}

function leaseOf({ params }: Call, { leases }: Evidence): unknown {
  const lease = leases.get(params.owner as string);
  return lease === undefined ? undefined : { lease };
}

/** True if a grant cannot have ended by itself when something was answered. */
function lasts(
  call: Call,
  operation: Operation,
  lastsMs: number,
  answer: Operation,
  connections: Connections,
): boolean {
  const untilMs = operation.sent.ms + lastsMs;
  if (call.params.releaseOn !== "disconnect") return untilMs > answer.ended.ms;
  const bound = { connection: operation.connection, sinceMs: operation.sent.ms };
  return Math.min(untilMs, boundEndMs(connections, bound)) > answer.ended.ms;
}

function evidenceOf(operations: readonly Operation[], connections: Connections): Evidence {
  const [batches, added] = [new Map<string, Json>(), new Map<string, number>()];
  const [lists, leases] = [new Map<string, Shown[]>(), new Map<string, Json>()];
  const reservations = new Map<string, Json>();
  for (const operation of operations) {
    operation.calls.forEach((call, index) => {
      for (const label of labelsOf(call)) added.set(label, (added.get(label) ?? 0) + 1);
      if (operation.outcome.kind !== "answered") return;
      const result = (operation.outcome.results[index] ?? {}) as Json;
      const shown: Json[] = result.batches ?? result.claim?.batches ?? (result.batch ? [result.batch] : []);
      for (const batch of shown) batches.set(batch.payloads[0], batch);
      if (call.method === "queue.list")
        append(lists, call.params.queue, { answer: operation, batches: shown });
      if (call.method === "lease.get" && result.lease !== null) leases.set(result.lease.owner, result.lease);
      if (call.method === "path.list")
        for (const each of result.reservations) reservations.set(each.owner, each);
    });
  }
  return { connections, batches, added, lists, leases, reservations };
}

function append<T>(map: Map<string, T[]>, key: unknown, value: T): void {
  const list = map.get(key as string);
  if (list === undefined) map.set(key as string, [value]);
  else list.push(value);
}

function labelsOf({ method, params }: Call): string[] {
  if (method === "queue.enqueue") return [(params.payloads as [string])[0]];
  if (method !== "queue.enqueueMany") return [];
  return (params.batches as { payloads: [string] }[]).map(({ payloads }) => payloads[0]);
}

/** A requestId that is used once means nothing. */
function withoutIdleKeys(operations: readonly Operation[]): Operation[] {
  const used = new Map<unknown, number>();
  for (const { calls } of operations) {
    for (const { params } of calls) used.set(params.requestId, (used.get(params.requestId) ?? 0) + 1);
  }
  return operations.map((operation) => {
    if (!operation.calls.some(({ params }) => used.get(params.requestId) === 1)) return operation;
    const calls = operation.calls.map((call) => {
      const { requestId, ...params } = call.params;
      return used.get(requestId) === 1 ? { ...call, params } : call;
    });
    return { ...operation, calls };
  });
}
