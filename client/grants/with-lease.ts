import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { Lease, NotificationParams } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { askFor, type HoldOptions, whileHeld } from "./hold.js";
import { defaultOwner } from "./owner.js";
import { taskOf, underTask } from "./task.js";

type LeaseLost = NotificationParams<"lease.lost">;

/** What is to be held: one name, or several that are granted all or none; and how. */
export type LeaseRequest = ({ name: string } | { names: string[] }) & {
  /** `shared`: together with any number of others that share it; by default `exclusive`. */
  mode?: "exclusive" | "shared";
  /** How many slots of each name, where names have several; 1 by default. */
  slots?: number;
};

export type WithLeaseOptions = HoldOptions;

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

/**
 * Performs `perform` while holding a lease of one or several names, and gives it back. See `PawlClient.withLease`.
 */
export async function withLease<T>(
  connection: Connection,
  request: string | LeaseRequest,
  perform: (lease: HeldLease) => T | Promise<T>,
  options: WithLeaseOptions = {},
): Promise<T> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", graceMs = 0 } = options;
  const { owner = defaultOwner(), signal, waitMs: _waitMs, ...others } = options;
  const task = taskOf(options.task);
  const asked = typeof request === "string" ? { name: request } : request;
  const terms = { ...others, owner, ttlMs, releaseOn, task };
  const { granted: leases, askedAt } = await askFor(connection, { ...options, releaseOn }, (waitMs, giveUp) =>
    acquire(connection, asked, { ...terms, waitMs }, giveUp),
  );
  const names = leases.map(({ name, fencingToken, members = [] }) => ({ name, fencingToken, members }));
  const [{ leaseId, remainingMs }, first] = [leases[0] as Lease, names[0] as HeldName];
  const name = names.map((each) => JSON.stringify(each.name)).join(" and ");
  const holding = {
    connection,
    what: `The lease of ${name}`,
    ttlMs,
    releaseOn,
    graceMs,
    askedAt,
    remainingMs,
    renew: async (giveUp: AbortSignal) =>
      (await connection.call("lease.heartbeat", { leaseId, ttlMs }, { signal: giveUp })).remainingMs,
    whenLost: (lose: (loss: PawlError) => void) =>
      connection.on("lease.lost", (lost) => {
        if (lost.leaseId === leaseId) lose(lossOf(name, lost as LeaseLost));
      }),
    release: async (soon: AbortSignal) =>
      (await connection.call("lease.release", { leaseId }, { signal: soon })).released,
    ended: () => lossOf(name),
  };
  const held = { ...first, names, owner, leaseId };
  const performIt = (both: AbortSignal) => underTask(task, () => perform({ ...held, signal: both }));
  return await whileHeld(holding, performIt, signal);
}

/** The leases of a request: one for each name. */
async function acquire(
  connection: Connection,
  request: LeaseRequest,
  how: Omit<WithLeaseOptions, "signal"> & { owner: string },
  giveUp: { signal?: AbortSignal },
): Promise<readonly Lease[]> {
  if ("names" in request)
    return (await connection.call("lease.acquire", { ...request, ...how }, giveUp)).leases;
  return [(await connection.call("lease.acquire", { ...request, ...how }, giveUp)).lease];
}

/** @param name as messages show it. */
function lossOf(name: string, { cause = "expired", reason = null }: Partial<LeaseLost> = {}): PawlError {
  const how = cause === "broken" ? `was broken by force: ${reason}` : "has ended before it was given back";
  return new PawlError("lease_lost", `The lease of ${name} ${how}.`, { reason: cause });
}
