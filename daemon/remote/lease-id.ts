import { createHash, randomBytes } from "node:crypto";

const LEASE_ID_BYTES = 16;
/** What the leaseIds of remote leases begin with: no other begins so. */
const PREFIX = "lease_x";

export function newLeaseId(): string {
  return PREFIX + randomBytes(LEASE_ID_BYTES).toString("hex");
}

/** Whether a lease is kept by a provider. */
export function isRemote(leaseId: string): boolean {
  return leaseId.startsWith(PREFIX);
}

/** What is kept of a leaseId where others can read it: enough to know it again, not enough to use it. */
export function digestOf(leaseId: string): string {
  return createHash("sha256").update(leaseId).digest("base64url");
}
