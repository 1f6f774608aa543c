import type { Caller, Link } from "../link.js";
import type { Hold } from "./state-file.js";

/** How long what a session holds outlives the last sign of life of the daemon's connection, in milliseconds. */
export const TTL_MS = 60_000;
/** How long it outlives the server's connection: a server that is started again has so long to take it up. */
export const GRACE_MS = 30_000;
/** So often all is renewed. A connection that ends right before leaves more than the grace. */
export const RENEW_MS = 20_000;

/** How leases of an agent are asked for. */
export const TERMS = { ttlMs: TTL_MS, releaseOn: "disconnect", graceMs: GRACE_MS } as const;
/** How claims of a queue are asked for. */
export const CLAIM_TERMS = { leaseMs: TTL_MS, releaseOn: "disconnect", graceMs: GRACE_MS } as const;

/** Renews what is held, and binds it to this connection. Rejects as the daemon refuses. */
export async function renew(link: Link, hold: Hold): Promise<void> {
  switch (hold.kind) {
    case "item":
    case "lock":
      await link.call("lease.heartbeat", { leaseId: hold.leaseId, ttlMs: TTL_MS });
      return;
    case "paths":
      await link.call("path.heartbeat", { reservationId: hold.reservationId, ttlMs: TTL_MS });
      return;
    case "batch":
    case "messages": {
      const { claimId, leaseToken } = hold;
      await link.call("queue.renew", { claimId, leaseToken, leaseMs: TTL_MS });
      return;
    }
    case "notice":
    case "request":
      await link.call("command.renew", { leaseId: hold.leaseId, leaseMs: TTL_MS });
  }
}

/** Gives back what is held as if it had not been taken: nothing is counted as a failed try. */
export async function giveBack(link: Caller, hold: Hold): Promise<void> {
  switch (hold.kind) {
    case "item":
    case "lock":
      await link.call("lease.release", { leaseId: hold.leaseId });
      return;
    case "paths":
      await link.call("path.release", { reservationId: hold.reservationId });
      return;
    case "batch":
    case "messages":
      await link.call("queue.abandon", { claimId: hold.claimId, leaseToken: hold.leaseToken });
      return;
    case "notice":
    case "request":
      await link.call("command.release", { leaseId: hold.leaseId });
  }
}

/** The agent has seen the messages that were shown to it last. */
export async function confirm(
  link: Link,
  hold: Extract<Hold, { kind: "messages" | "notice" }>,
): Promise<void> {
  if (hold.kind === "messages") {
    await link.call("queue.complete", { claimId: hold.claimId, leaseToken: hold.leaseToken });
  } else {
    const response = { status: "success", response: null } as const;
    await link.call("command.respond", { commandId: hold.id, leaseId: hold.leaseId, response });
  }
}

/** True of what is only shown, and nothing that an agent thinks it holds. */
export function isShown(hold: Hold): hold is Extract<Hold, { kind: "messages" | "notice" }> {
  return hold.kind === "messages" || hold.kind === "notice";
}

/** The secret by which the daemon tells of the loss of what is held. */
export function secretOf(hold: Hold): string {
  if (hold.kind === "paths") return hold.reservationId;
  return "claimId" in hold ? hold.claimId : hold.leaseId;
}
