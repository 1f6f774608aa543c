import type { MethodName } from "@pawl/protocol";
import { MAX_ID_LENGTH } from "@pawl/protocol/limits";

export const CANCEL = "rpc.cancel" satisfies MethodName;
/** The name by which libraries of the Language Server Protocol cancel, as a notification. */
export const CANCEL_NOTIFICATION = "$/cancelRequest";

/** A cancel with the longest id, each of its characters escaped, and some space. */
const MAX_CANCEL_BYTES = 6 * MAX_ID_LENGTH + 512;

/** True if a line is a request that ends a wait: what makes room, where there is room for no other. */
export function isCancel(line: Buffer): boolean {
  if (line.length > MAX_CANCEL_BYTES) return false;
  try {
    const { method } = JSON.parse(line.toString("utf8"));
    return method === CANCEL || method === CANCEL_NOTIFICATION;
  } catch {
    return false;
  }
}
