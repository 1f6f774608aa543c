// What an answer says of grants at a place: their scopes, so that later calls by their ids need not look these up, and
// how long they last, so that their holders are told in time if the database is away.
import type { Parsed, Result } from "@pawl/protocol";
import { DEFAULT_LEASE_MS, DEFAULT_LOSS_GRACE_MS, RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { scopeOf } from "../domain/about.js";
import { commandOfLease, EXECUTION_TIME } from "../domain/command/delivery.js";
import { release as releaseDelivery } from "../domain/command/lease.js";
import { release } from "../domain/lease/lease.js";
import { releasePaths } from "../domain/path/path.js";
import { abandon } from "../domain/queue/holder.js";
import { References } from "../domain/references.js";
import type { HeldNoun, LostRow, OnLoss } from "../grants/on-loss.js";
import type { RawJson } from "../json/raw-json.js";
import type { Operation } from "../store/statement.js";
import type { Env } from "../turns/operation.js";
import type { HeldGrant } from "./held.js";

export interface Change {
  /** Of the claim, the lease, the reservation or the command. */
  readonly id: string;
  /** Of a new one. */
  readonly scopes?: readonly string[];
  /** From now on; 0 for a grant that is over. */
  readonly ttlMs: number;
  /** For how long it goes on once its daemon is dead, of a new one that ends with its connection. */
  readonly graceMs?: number;
  /** True of a delivery: its id is that of its command, whose scopes stay what they are. */
  readonly isDelivery?: true;
  /** What its holder is told when it is lost, of a new one. */
  readonly tell?: HeldGrant["tell"];
  /** How its process is ended when it is lost, of a new one. */
  readonly onLoss?: Pick<LostRow, "noun" | "signal" | "grace_ms"> | undefined;
  /** Ends it again, of a new one. */
  readonly giveBack?: (env: Env) => Operation<unknown>;
}

export function changesBy(method: string, params: object, outcome: unknown): Change[] {
  switch (method) {
    case "lease.acquire":
      return acquired(params as Parsed<"lease.acquire">, outcome as Result<"lease.acquire">);
    case "lease.heartbeat": {
      const { leaseId, ttlMs } = params as Parsed<"lease.heartbeat">;
      return [{ id: leaseId, ttlMs: ttlMs ?? (outcome as Result<"lease.heartbeat">).remainingMs }];
    }
    case "lease.release":
      return [{ id: (params as Parsed<"lease.release">).leaseId, ttlMs: 0 }];
    case "queue.claim":
      return claimed(params as Parsed<"queue.claim">, outcome as Result<"queue.claim">);
    case "queue.renew":
      return [
        {
          id: (params as Parsed<"queue.renew">).claimId,
          ttlMs: (outcome as Result<"queue.renew">).remainingMs,
        },
      ];
    case "queue.complete":
    case "queue.abandon":
      return [{ id: (params as Parsed<"queue.complete">).claimId, ttlMs: 0 }];
    case "command.create": {
      const { deployment } = params as Parsed<"command.create">;
      const { commandId: id } = outcome as Result<"command.create">;
      return [{ id, scopes: [scopeOf({ noun: "command", name: deployment })], ttlMs: NEVER_MS, tell: [] }];
    }
    case "command.lease":
      return delivered(params as Parsed<"command.lease">, outcome as Result<"command.lease">);
    case "command.renew":
    case "command.progress":
      return deliveryOf(params, (outcome as Result<"command.renew">).remainingMs);
    case "command.release":
    case "command.respond":
      return deliveryOf(params, 0);
    case "command.answer":
      return (params as Parsed<"command.answer">).final === true ? deliveryOf(params, 0) : [];
    case "path.reserve":
      return reserved(params as Parsed<"path.reserve">, outcome as Result<"path.reserve">);
    case "path.heartbeat": {
      const { reservationId } = params as Parsed<"path.heartbeat">;
      return [{ id: reservationId, ttlMs: (outcome as Result<"path.heartbeat">).remainingMs }];
    }
    case "path.release": {
      const { patterns } = outcome as Result<"path.release">;
      if (patterns.length > 0) return [];
      return [{ id: (params as Parsed<"path.release">).reservationId, ttlMs: 0 }];
    }
    case "transact":
      return inTransaction(params as Parsed<"transact">, outcome as Result<"transact">);
    default:
      return [];
  }
}

/** The params that `changesBy` looks at. What a call gives others may be long, and is not kept while that waits. */
export function notedParams(method: string, params: object): object {
  if (method === "command.create") return { deployment: (params as Parsed<"command.create">).deployment };
  return method === "transact" || OF_GRANTS.has(method) ? params : NOTHING_NOTED;
}

const NOTHING_NOTED = {};

/** The methods of a transaction that grant something, or change for how long something is held. */
const OF_GRANTS = new Set([
  "lease.acquire",
  "lease.heartbeat",
  "lease.release",
  "queue.claim",
  "queue.renew",
  "queue.complete",
  "queue.abandon",
  "command.lease",
  "command.renew",
  "command.progress",
  "command.release",
  "command.respond",
  "command.answer",
  "path.reserve",
  "path.heartbeat",
  "path.release",
]);

function inTransaction({ calls, dryRun }: Parsed<"transact">, { results }: Result<"transact">): Change[] {
  if (dryRun === true || !calls.some(({ method }) => OF_GRANTS.has(method))) return [];
  const texts = results as unknown as readonly RawJson[];
  const references = new References();
  return calls.flatMap(({ method, params }, index) => {
    const result = texts[index] as RawJson;
    const given = references.putInto((params ?? {}) as Record<string, unknown>).params;
    references.add(result.text);
    if (!OF_GRANTS.has(method)) return [];
    return changesBy(method, given, method === "queue.claim" ? result : JSON.parse(result.text));
  });
}

/** As `Change` has it. */
function graceOf({
  releaseOn,
  graceMs = 0,
}: {
  releaseOn?: string | undefined;
  graceMs?: number | undefined;
}): Pick<Change, "graceMs"> {
  return releaseOn === "disconnect" ? { graceMs: Math.max(graceMs, RESTART_GRACE_MS) } : {};
}

function acquired(params: Parsed<"lease.acquire">, outcome: Result<"lease.acquire">): Change[] {
  const leases = "leases" in outcome ? outcome.leases : [outcome.lease];
  const [first] = leases;
  if (first === undefined) return [];
  const { leaseId, remainingMs: ttlMs } = first;
  const tell = leases.map(({ name, fencingToken }) => ({
    method: "lease.lost" as const,
    params: { name, leaseId, fencingToken, cause: "expired", reason: null },
  }));
  const scopes = leases.map(({ name }) => scopeOf({ noun: "lease", name }));
  const onLoss = endingOf("lease", params.onLoss);
  const giveBack = (env: Env): Operation<unknown> => release({ leaseId }, env);
  return [{ id: leaseId, scopes, ttlMs, ...graceOf(params), tell, onLoss, giveBack }];
}

function reserved(asked: Parsed<"path.reserve">, { reservation }: Result<"path.reserve">): Change[] {
  const { reservationId: own } = asked;
  const { reservationId, root, fencingToken, remainingMs: ttlMs } = reservation;
  const params = { reservationId, root, fencingToken, cause: "expired" };
  const scopes = [scopeOf({ noun: "path", name: root })];
  const tell = [{ method: "path.lost" as const, params }];
  // What was added to one that was held stays with it.
  const giveBack = (env: Env): Operation<unknown> => releasePaths({ reservationId }, env);
  const onLoss = endingOf("path", asked.onLoss);
  const isNew = own === undefined;
  return [
    { id: reservationId, scopes, ttlMs, ...graceOf(asked), tell, onLoss, ...(isNew ? { giveBack } : {}) },
  ];
}

/** Within a transaction defaults are not filled in. */
export function endingOf(noun: HeldNoun, onLoss: Partial<OnLoss> | undefined): Change["onLoss"] {
  if (onLoss === undefined) return undefined;
  const { signal = "SIGTERM", graceMs = DEFAULT_LOSS_GRACE_MS } = onLoss;
  return { noun, signal, grace_ms: graceMs };
}

/** Of what is no grant. */
const NEVER_MS = Number.POSITIVE_INFINITY;

/** Whoever pulls finds out by renewing that a delivery has ended, unless it may end before its time. */
function delivered(
  { deployment, leaseMs: ttlMs = DEFAULT_LEASE_MS, releaseOn }: Parsed<"command.lease">,
  { leases }: Result<"command.lease">,
): Change[] {
  const scopes = [scopeOf({ noun: "command", name: deployment })];
  return leases.map(({ commandId: id, leaseId }) => {
    const giveBack = (env: Env): Operation<unknown> => releaseDelivery({ leaseId }, env);
    const params = { commandId: id, reason: EXECUTION_TIME };
    const tell = releaseOn === "disconnect" ? [{ method: "command.cancelled" as const, params }] : [];
    return { id, scopes, ttlMs, graceMs: RESTART_GRACE_MS, isDelivery: true as const, tell, giveBack };
  });
}

/** A delivery lasts for so long from now on. */
function deliveryOf(params: object, ttlMs: number): Change[] {
  const id = commandOfLease((params as { leaseId: string }).leaseId);
  return id === undefined ? [] : [{ id, ttlMs, isDelivery: true }];
}

/** The beginning of the text of an answer, which holds no payloads. */
const CLAIM =
  /^\{"claim":\{"claimId":"([^"]+)","leaseToken":"([^"]*)","fencingToken":\d+,"queue":("(?:[^"\\]|\\.)*")/;
const CLAIM_CHARACTERS = 4096;

function claimed(asked: Parsed<"queue.claim">, outcome: Result<"queue.claim">): Change[] {
  const { leaseMs = DEFAULT_LEASE_MS, notify, under } = asked;
  if (outcome.claim === null) return [];
  const { text } = outcome as unknown as RawJson;
  const [, id, leaseToken, queueText] = CLAIM.exec(text.slice(0, CLAIM_CHARACTERS)) ?? [];
  if (id === undefined || leaseToken === undefined || queueText === undefined) return [];
  const giveBack = (env: Env): Operation<unknown> => abandon({ claimId: id, leaseToken, dead: false }, env);
  const queue = JSON.parse(queueText) as string;
  const scopes = [scopeOf({ noun: "queue", name: queue })];
  if (notify !== true) return [{ id, scopes, ttlMs: leaseMs, tell: [], giveBack }];
  const { claim } = JSON.parse(text) as { claim: { remainingMs: number; batches: { batchId: string }[] } };
  const batchIds = claim.batches.map(({ batchId }) => batchId);
  const params = { claimId: id, queue, batchIds, cause: "expired", reason: null };
  const tell = [{ method: "claim.lost" as const, params }];
  if (under === undefined) return [{ id, scopes, ttlMs: leaseMs, ...graceOf(asked), tell, giveBack }];
  // The lease may end with its connection.
  return [{ id, scopes, ttlMs: claim.remainingMs, graceMs: RESTART_GRACE_MS, tell, giveBack }];
}
