import { createHash } from "node:crypto";

/**
 * What is kept of a leaseId where others can read it: enough to know it again, not enough to use it.
 */
export function proofOf(leaseId: string): string {
  return createHash("sha256").update(leaseId).digest("base64url");
}
