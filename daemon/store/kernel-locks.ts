// The holder of a lock on a file, from the kernel's own list (proc_locks(5)). Without /proc nobody is named.
import { readFileSync, statSync } from "node:fs";

/** How a lock was taken: flock(2), or fcntl(2) and thereby SQLite. */
export type LockKind = "FLOCK" | "POSIX";

/** The process that has a write lock on a file; null where the kernel does not tell. */
export function lockHolder(path: string, kind: LockKind): number | null {
  return lockHolders(path, kind)[0] ?? null;
}

/** A process, other than this one, that keeps the one that writes an SQLite database from that; null likewise. */
export function databaseLockHolder(path: string): number | null {
  // A writer locks the index of the write-ahead log; one that lets nobody else read locks the database.
  const pids = [...lockHolders(`${path}-shm`, "POSIX"), ...lockHolders(path, "POSIX")];
  return pids.find((pid) => pid !== process.pid) ?? null;
}

/** A process, other than this one, that reads an SQLite database and keeps its log from being moved; null likewise. */
export function logReader(path: string): number | null {
  // Each reader has one of the marks up to which the log may be moved (https://www.sqlite.org/walformat.html).
  const isMark = (byte: number): boolean => byte >= FIRST_READ_MARK_BYTE && byte <= LAST_READ_MARK_BYTE;
  return lockHolders(`${path}-shm`, "POSIX", "READ", isMark).find((pid) => pid !== process.pid) ?? null;
}

const FIRST_READ_MARK_BYTE = 123;
const LAST_READ_MARK_BYTE = 127;

function lockHolders(
  path: string,
  kind: LockKind,
  access: "READ" | "WRITE" = "WRITE",
  isOfInterest = (_firstByte: number): boolean => true,
): number[] {
  const pids: number[] = [];
  try {
    const { ino, dev } = statSync(path);
    const file = `${hex(major(dev))}:${hex(minor(dev))}:${ino}`;
    for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
      const fields = line.trim().split(/\s+/);
      const pid = Number(fields[4]);
      if (fields[1] !== kind || fields[3] !== access || fields[5] !== file || pid <= 0) continue;
      if (isOfInterest(Number(fields[6]))) pids.push(pid);
    }
  } catch {
    // A refusal is the same without the pid, only less telling.
  }
  return pids;
}

/** makedev(3): the major number in bits 8 to 19 and from 32 on, the minor in 0 to 7 and 20 to 31. */
function major(dev: number): number {
  return Math.floor(dev / 2 ** 8) % 2 ** 12;
}

function minor(dev: number): number {
  return (dev % 2 ** 8) + (Math.floor(dev / 2 ** 20) % 2 ** 12) * 2 ** 8;
}

function hex(value: number): string {
  return value.toString(16).padStart(2, "0");
}
