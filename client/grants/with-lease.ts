import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { NotificationParams, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { HeldGrant, type ReleaseOn } from "./held-grant.js";
import { defaultOwner } from "./owner.js";

/** How long the answer is waited for when a lease is given back; the lease ends by itself too. */
const RELEASE_TIMEOUT_MS = 5000;
const REACQUIRE_PAUSE_MS = 100;

type LeaseLost = NotificationParams<"lease.lost">;
type Lease = Result<"lease.acquire">["lease"];

export interface WithLeaseOptions {
  /** The holder's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long the lease outlives the last sign of life, in milliseconds; 30,000 by default. */
  ttlMs?: number;
  /** How long to wait while another holds it, in milliseconds; by default not at all (`lease_held`). */
  waitMs?: number;
  /** `disconnect` (default) lets go of it the moment this process ends; `expiry` when its ttl has passed. */
  releaseOn?: ReleaseOn;
  /** Shown to others by `lease.get`. */
  note?: string;
  /** Ends the waiting, and aborts the function's signal. */
  signal?: AbortSignal;
}

/** A lease while its function runs. */
export interface HeldLease {
  readonly name: string;
  readonly owner: string;
  /** To be sent along with every write: greater than that of every earlier holder. */
  readonly fencingToken: number;
  /** For guards of a `transact` and for `lease.*` calls of one's own. */
  readonly leaseId: string;
  /** Aborted when the lease is lost: stop writing. */
  readonly signal: AbortSignal;
}

/**
 * Performs `perform` while holding the write lease of a name, and gives it back. See `PawlClient.withLease`.
 */
export async function withLease<T>(
  connection: Connection,
  name: string,
  perform: (lease: HeldLease) => T | Promise<T>,
  options: WithLeaseOptions = {},
): Promise<T> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", signal } = options;
  const { lease, askedAt } = await acquire(connection, name, { ...options, ttlMs, releaseOn });
  const { leaseId, fencingToken, owner, remainingMs } = lease;
  const grant = new HeldGrant({
    connection,
    what: `The lease of ${JSON.stringify(name)}`,
    lostKind: "lease_lost",
    leaseMs: ttlMs,
    releaseOn,
    askedAt,
    remainingMs,
    renew: async (giveUp) =>
      (await connection.call("lease.heartbeat", { leaseId, ttlMs }, { signal: giveUp })).remainingMs,
  });
  const stopListening = connection.on("lease.lost", (lost) => {
    if (lost.leaseId === leaseId) grant.lose(lossOf(name, lost as LeaseLost));
  });
  await grant.confirmed;
  if (grant.lost) {
    stopListening();
    // The daemon may hold the lease all the same, for nobody who knows.
    void release(connection, leaseId);
    throw grant.signal.reason;
  }
  const bothSignals = signal === undefined ? grant.signal : AbortSignal.any([grant.signal, signal]);
  const outcome = await outcomeOf(perform, { name, owner, fencingToken, leaseId, signal: bothSignals });
  stopListening();
  grant.pause();
  const loss = grant.lost
    ? grant.signal.reason
    : (await release(connection, leaseId))
      ? undefined
      : lossOf(name);
  grant.end();
  if (loss !== undefined) throw withCause(loss, outcome);
  if ("error" in outcome) throw outcome.error;
  return outcome.result;
}

/** The end of the caller's function. */
type Outcome<T> = { readonly result: T } | { readonly error: unknown };

function outcomeOf<T>(perform: (lease: HeldLease) => T | Promise<T>, held: HeldLease): Promise<Outcome<T>> {
  return Promise.resolve(held)
    .then(perform)
    .then(
      (result) => ({ result }),
      (error: unknown) => ({ error }),
    );
}

async function acquire(
  connection: Connection,
  name: string,
  options: WithLeaseOptions & { ttlMs: number; releaseOn: ReleaseOn },
): Promise<{ lease: Lease; askedAt: number }> {
  const { owner = defaultOwner(), ttlMs, waitMs = 0, releaseOn, note, signal } = options;
  const giveUp = signal === undefined ? {} : { signal };
  const givingUpAt = performance.now() + waitMs;
  for (;;) {
    const askedAt = performance.now();
    const left = Math.max(0, Math.round(givingUpAt - askedAt));
    const params = { name, owner, ttlMs, waitMs: left, releaseOn, ...(note === undefined ? {} : { note }) };
    try {
      const { lease } = await connection.call("lease.acquire", params, giveUp);
      return { lease, askedAt };
    } catch (error) {
      // A lease that the lost connection was granted ended with it; so asking again does no harm.
      const again = error instanceof ConnectionLost && releaseOn === "disconnect" && left > 0;
      if (!again || connection.closed.aborted) throw error;
    }
    // If the signal is aborted meanwhile, the next call rejects with its reason.
    await delay(REACQUIRE_PAUSE_MS, undefined, giveUp).catch(() => {});
  }
}

/** Gives a lease back. Resolves with false if the lease had ended before, and with true if that is not known soon. */
async function release(connection: Connection, leaseId: string): Promise<boolean> {
  if (!connection.up) return true;
  try {
    const signal = AbortSignal.timeout(RELEASE_TIMEOUT_MS);
    return (await connection.call("lease.release", { leaseId }, { signal })).released;
  } catch {
    return true;
  }
}

function lossOf(name: string, { cause = "expired", reason = null }: Partial<LeaseLost> = {}): PawlError {
  const how = cause === "broken" ? `was broken by force: ${reason}` : "has ended before it was given back";
  return new PawlError("lease_lost", `The lease of ${JSON.stringify(name)} ${how}.`, { reason: cause });
}

/** The reason of a loss, with what the caller's function threw as its cause, if that was something else. */
function withCause(reason: unknown, outcome: Outcome<unknown>): unknown {
  if (!(reason instanceof PawlError) || !("error" in outcome) || outcome.error === reason) return reason;
  return new PawlError(reason.kind, reason.message, reason.details, { cause: outcome.error });
}
