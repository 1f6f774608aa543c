// Holders as they see it themselves. The search for an order (search.ts) goes by when grants may end; this goes by what
// their holders know: whoever has not been told of a loss, and whose time is not over, has it, and nobody else has.
import { type CutOff, type Operation, shownOperation } from "./history.js";
import type { Connections, Json } from "./models/calls.js";
import { meet } from "./models/path.js";

/** What is known of holders: beside the connections, who was told of a loss. */
export interface Knowledge extends Connections {
  readonly told: ReadonlyMap<string, number>;
}

interface Hold {
  operation: Operation;
  /** The name, the batch, the root or the command that is held. */
  thing: string;
  token: number;
  id: string;
  isBound: boolean;
  untilMs: number;
  /** Of paths. */
  patterns?: readonly string[];
  mode?: string;
}

/** Answers of different daemons are read in any order where they come at about the same time. */
const READING_MS = 50;

/** Those who were granted something while somebody else still had to think that it is theirs. */
export function twoHolders(operations: readonly Operation[], known: Knowledge): string[] {
  const holds = heldFrom(operations, known);
  const findings: string[] = [];
  for (const all of holds.values()) {
    const sorted = all.sort((a, b) => a.token - b.token);
    for (const [index, hold] of sorted.entries()) {
      const other = sorted
        .slice(index + 1)
        .find((later) => conflict(hold, later) && later.operation.ended.ms + READING_MS < hold.untilMs);
      if (other === undefined) continue;
      findings.push(
        `${hold.thing}: was granted while its holder, who was told of no loss, had ${(hold.untilMs - other.operation.ended.ms).toFixed(0)} ms left ${lastMoments(hold, known)}\n  ${shownOperation(hold.operation)}\n  ${shownOperation(other.operation)}`,
      );
    }
  }
  return findings;
}

/** When a holder was told, its connection closed, or its daemon was in trouble. */
function lastMoments({ id, operation: { connection } }: Hold, { told, closed, cutOff }: Knowledge): string {
  return JSON.stringify({
    told: told.get(id),
    closed: closed.get(connection),
    cutOff: cutOff.get(connection),
  });
}

function conflict(one: Hold, other: Hold): boolean {
  if (one.id === other.id) return false;
  if (one.patterns === undefined || other.patterns === undefined) return true;
  return !(one.mode === "read" && other.mode === "read") && meet(one.patterns, other.patterns);
}

/** By thing, what was granted, and until when each holder thinks that it has it. */
function heldFrom(operations: readonly Operation[], known: Knowledge): Map<string, Hold[]> {
  const byThing = new Map<string, Hold[]>();
  const byId = new Map<string, Hold[]>();
  for (const hold of operations.flatMap(grantsOf)) {
    add(byThing, hold.thing, hold);
    add(byId, hold.id, hold);
  }
  // Later ones cannot prolong what earlier ones have ended.
  for (const operation of [...operations].sort((a, b) => a.sent.order - b.sent.order)) {
    for (const call of operation.calls) {
      if (call.method === "lease.break") {
        for (const hold of byThing.get(call.object) ?? [])
          if (hold.operation.sent.order < operation.ended.order) end(hold, operation.sent.ms);
        continue;
      }
      // Nobody is given it any more.
      if (call.method === "command.cancel") {
        for (const hold of byThing.get(call.object) ?? []) end(hold, operation.sent.ms);
        continue;
      }
      const { leaseId, claimId, reservationId, leaseMs } = call.params as Json;
      for (const hold of byId.get(leaseId ?? claimId ?? reservationId) ?? []) {
        if (hold.operation === operation) continue;
        if (/heartbeat|renew/.test(call.method)) renew(hold, operation, leaseMs);
        else end(hold, operation.sent.ms);
      }
    }
  }
  for (const hold of [...byThing.values()].flat()) {
    end(hold, known.told.get(hold.id) ?? Number.POSITIVE_INFINITY);
    if (hold.isBound) end(hold, boundUntilMs(hold.operation, known));
  }
  return byThing;
}

function end(hold: Hold, ms: number): void {
  hold.untilMs = Math.min(hold.untilMs, ms);
}

/** A renewal that is answered counts from when it was sent; one that is not may have made the time shorter. */
function renew(hold: Hold, { connection, outcome, sent, ended }: Operation, leaseMs?: number): void {
  const ttlMs = leaseMs ?? ttlOf(hold.operation);
  // It may be bound to the other connection from now on.
  if (hold.isBound && connection !== hold.operation.connection) return end(hold, sent.ms);
  if (outcome.kind === "refused") return end(hold, ended.ms);
  if (outcome.kind !== "answered") return end(hold, sent.ms + ttlMs);
  if (hold.isBound) end(hold, sent.ms + ttlMs);
  else if (hold.untilMs >= ended.ms) hold.untilMs = sent.ms + ttlMs;
}

function ttlOf({ calls }: Operation): number {
  const { ttlMs, leaseMs } = (calls.find(({ params }) => params.ttlMs ?? params.leaseMs)?.params ??
    {}) as Json;
  return ttlMs ?? leaseMs ?? 0;
}

/** When the holder of what is bound to a connection knows that this is gone, or can be told of nothing. */
function boundUntilMs({ connection, sent }: Operation, { closed, cutOff }: Knowledge): number {
  const silent = (cutOff.get(connection) ?? []).filter(
    ({ couldTell, untilMs }: CutOff) => !couldTell && untilMs >= sent.ms,
  );
  return Math.min(closed.get(connection) ?? Number.POSITIVE_INFINITY, ...silent.map(({ fromMs }) => fromMs));
}

function grantsOf(operation: Operation): Hold[] {
  const { outcome, calls, sent } = operation;
  if (outcome.kind !== "answered") return [];
  return calls.flatMap(({ object, method, params }, index): Hold[] => {
    const result = (outcome.results[index] ?? {}) as Json;
    const ttlMs = (params.ttlMs ?? params.leaseMs) as number;
    const common = { operation, isBound: params.releaseOn === "disconnect", untilMs: sent.ms + ttlMs };
    if (method === "lease.acquire") {
      const { leaseId: id, fencingToken: token } = result.lease;
      return [{ ...common, thing: object, id, token }];
    }
    // One that is pushed is its receiver's until that is told otherwise, or is gone.
    if (method === "command.execute") {
      const { leaseId: id, attempt: token } = result;
      return [{ ...common, thing: object, id, token, isBound: true, untilMs: Number.POSITIVE_INFINITY }];
    }
    if (method === "command.lease") {
      return result.leases.map(({ leaseId: id, attempt: token, envelope }: Json) => ({
        ...common,
        thing: `command:${envelope.params.label}`,
        id,
        token,
      }));
    }
    if (method === "path.reserve") {
      const { reservationId: id, fencingToken: token, patterns, mode } = result.reservation;
      return [{ ...common, thing: object, id, token, patterns, mode }];
    }
    // Of the loss of others nobody is told.
    if (method !== "queue.claim" || result.claim === null || params.notify !== true) return [];
    const { claimId: id, fencingToken: token, batches } = result.claim;
    return batches.map(({ batchId }: Json) => ({ ...common, thing: `${object} ${batchId}`, id, token }));
  });
}

function add<T>(map: Map<string, T[]>, key: string, value: T): void {
  map.set(key, [...(map.get(key) ?? []), value]);
}
