import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { Lease, NotificationParams } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { HeldGrant, type ReleaseOn } from "./held-grant.js";
import { defaultOwner } from "./owner.js";

/** How long the answer is waited for when a lease is given back; the lease ends by itself too. */
const RELEASE_TIMEOUT_MS = 5000;
const REACQUIRE_PAUSE_MS = 100;

type LeaseLost = NotificationParams<"lease.lost">;

/** What is to be held: one name, or several that are granted all or none; and how. */
export type LeaseRequest = ({ name: string } | { names: string[] }) & {
  /** `shared`: together with any number of others that share it; by default `exclusive`. */
  mode?: "exclusive" | "shared";
  /** How many slots of each name, where names have several; 1 by default. */
  slots?: number;
};

export interface WithLeaseOptions {
  /** The holder's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long the lease outlives the last sign of life, in milliseconds; 30,000 by default. */
  ttlMs?: number;
  /** How long to wait while another holds it, in milliseconds; by default not at all (`lease_held`). */
  waitMs?: number;
  /** `disconnect` (default) lets go of it the moment this process ends; `expiry` when its ttl has passed. */
  releaseOn?: ReleaseOn;
  /** With `disconnect`, how long the lease outlives the connection of this process, in milliseconds; 0 by default. */
  graceMs?: number;
  /** A label of what it is held for; by default one for each outermost `withLease` of this process. */
  task?: string;
  /** This process waits for its children while it holds the lease, and so for what they wait for. */
  awaitsChildren?: boolean;
  /** Shown to others by `lease.get`. */
  note?: string;
  /** Ends the waiting, and aborts the function's signal. */
  signal?: AbortSignal;
}

/** A name that is held. */
export interface HeldName {
  readonly name: string;
  /** To be sent along with every write: greater than that of every earlier holder. */
  readonly fencingToken: number;
  /** The members of the name's pool that are its own; none if it is no pool. */
  readonly members: readonly string[];
}

/** A lease while its function runs; of several names, the name, the token and the members are those of the first. */
export interface HeldLease extends HeldName {
  readonly owner: string;
  /** Each name, in their order. */
  readonly names: readonly HeldName[];
  /** For guards of a `transact` and for `lease.*` calls of one's own. */
  readonly leaseId: string;
  /** Aborted when the lease is lost: stop writing. */
  readonly signal: AbortSignal;
}

/** The task of the outermost function that runs with a lease. */
const taskNow = new AsyncLocalStorage<string>();
let tasks = 0;

/**
 * Performs `perform` while holding a lease of one or several names, and gives it back. See `PawlClient.withLease`.
 */
export async function withLease<T>(
  connection: Connection,
  request: string | LeaseRequest,
  perform: (lease: HeldLease) => T | Promise<T>,
  options: WithLeaseOptions = {},
): Promise<T> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", graceMs = 0, signal } = options;
  const task = options.task ?? taskNow.getStore() ?? `lease-${process.pid}-${++tasks}`;
  const asked = typeof request === "string" ? { name: request } : request;
  const { leases, askedAt } = await acquire(connection, asked, { ...options, ttlMs, releaseOn, task });
  const names = leases.map(({ name, fencingToken, members = [] }) => ({ name, fencingToken, members }));
  const [{ leaseId, owner, remainingMs }, first] = [leases[0] as Lease, names[0] as HeldName];
  const name = names.map((each) => JSON.stringify(each.name)).join(" and ");
  const grant = new HeldGrant({
    connection,
    what: `The lease of ${name}`,
    lostKind: "lease_lost",
    leaseMs: ttlMs,
    releaseOn,
    graceMs,
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
  const held = { ...first, names, owner, leaseId, signal: bothSignals };
  const outcome = await taskNow.run(task, () => outcomeOf(perform, held));
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
  request: LeaseRequest,
  options: WithLeaseOptions & { ttlMs: number; releaseOn: ReleaseOn },
): Promise<{ leases: readonly Lease[]; askedAt: number }> {
  const { owner = defaultOwner(), waitMs = 0, releaseOn, signal, ...others } = options;
  const giveUp = signal === undefined ? {} : { signal };
  const givingUpAt = performance.now() + waitMs;
  for (;;) {
    const askedAt = performance.now();
    const left = Math.max(0, Math.round(givingUpAt - askedAt));
    const how = { ...others, owner, waitMs: left, releaseOn };
    try {
      if ("names" in request) {
        const { leases } = await connection.call("lease.acquire", { ...request, ...how }, giveUp);
        return { leases, askedAt };
      }
      const { lease } = await connection.call("lease.acquire", { ...request, ...how }, giveUp);
      return { leases: [lease], askedAt };
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

/** @param name as messages show it. */
function lossOf(name: string, { cause = "expired", reason = null }: Partial<LeaseLost> = {}): PawlError {
  const how = cause === "broken" ? `was broken by force: ${reason}` : "has ended before it was given back";
  return new PawlError("lease_lost", `The lease of ${name} ${how}.`, { reason: cause });
}

/** The reason of a loss, with what the caller's function threw as its cause, if that was something else. */
function withCause(reason: unknown, outcome: Outcome<unknown>): unknown {
  if (!(reason instanceof PawlError) || !("error" in outcome) || outcome.error === reason) return reason;
  return new PawlError(reason.kind, reason.message, reason.details, { cause: outcome.error });
}
