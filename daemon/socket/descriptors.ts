// Descriptors of this process. Node raises the soft limit to the hard one before any of this runs.
import { readdirSync, readFileSync } from "node:fs";

/** So many stay free for what is no connection: files of SQLite, a backup, providers of leases. */
const RESERVED = 64;

/**
 * The limit of descriptors, and the number from which on connections are to wait: the kernel gives each one the
 * lowest number that is free. Where the limit is low, half of what is left at the start stays free. Both infinite
 * without /proc.
 */
export function descriptorLimits(): { limit: number; connectionsBelow: number } {
  try {
    const [, soft] = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    if (soft !== undefined) {
      const limit = Number(soft);
      const left = limit - readdirSync("/proc/self/fd").length;
      return { limit, connectionsBelow: limit - Math.min(RESERVED, Math.floor(left / 2)) };
    }
  } catch {
    // Not Linux, or a container without /proc.
  }
  return { limit: Number.POSITIVE_INFINITY, connectionsBelow: Number.POSITIVE_INFINITY };
}
