import { createHash, randomBytes } from "node:crypto";

const LEASE_ID_BYTES = 16;
/** The prefix of the leaseIds of remote leases: no other begins so. */
const PREFIX = "lease_x";

export function newLeaseId(): string {
  return PREFIX + randomBytes(LEASE_ID_BYTES).toString("hex");
}

/** True if a provider keeps the lease. */
export function isRemote(leaseId: string): boolean {
  return leaseId.startsWith(PREFIX);
}

/** The digest of a leaseId, kept where others can read it: enough to recognize it, not enough to use it. */
export function digestOf(leaseId: string): string {
  return createHash("sha256").update(leaseId).digest("base64url");
}
