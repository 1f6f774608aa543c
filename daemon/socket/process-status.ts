// Processes of the machine, as /proc tells of them.
import { closeSync, openSync, readSync } from "node:fs";
import { devNull } from "node:os";
import { elapsed } from "../clock.js";
import type { Caller, Process } from "../turns/operation.js";

/** Processes between one and the oldest that it descends from, as far as is looked. */
const MAX_ANCESTORS = 32;
/** What is read of ancestors serves so long for others that descend from them, too. */
const KEPT_MS = 100;
/** Where the parent and the start stand in /proc/PID/stat, behind the name of the program (proc(5)). */
const PARENT_FIELD = 1;
const START_FIELD = 19;
/** More than a line of /proc/PID/stat has: 52 numbers and a name of 64 bytes. */
const STATUS_BYTES = 2048;

interface Status {
  readonly parent: number;
  readonly startTicks: number;
}

const status = Buffer.alloc(STATUS_BYTES);

/** When the process of a pid began, in clock ticks since the machine did; null where that is not told. */
export function startTicksOf(pid: number | null): number | null {
  return pid === null ? null : (statusOf(pid)?.startTicks ?? null);
}

/** The processes that others descend from: children of one shell, which wait at a time, have most in common. */
export class Ancestors {
  readonly #known = new Map<number, Status>();
  #knownSince = 0;

  /** Those of a caller, the nearest first; none if its process is not there any more. */
  of({ pid, startTicks }: Caller): Process[] {
    const found: Process[] = [];
    if (pid === null) return found;
    const own = statusOf(pid);
    if (own === undefined || own.startTicks !== startTicks) return found;
    this.#forget();
    let { parent } = own;
    while (parent > 0 && found.length < MAX_ANCESTORS) {
      const known = this.#known.get(parent) ?? statusOf(parent);
      if (known === undefined) break;
      this.#known.set(parent, known);
      found.push({ pid: parent, startTicks: known.startTicks });
      parent = known.parent;
    }
    return found;
  }

  /** A pid may be another's later, and a process have another parent. */
  #forget(): void {
    const now = elapsed();
    if (now - this.#knownSince < KEPT_MS) return;
    this.#known.clear();
    this.#knownSince = now;
  }
}

function statusOf(pid: number): Status | undefined {
  const text = textOf(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The name of the program is in parentheses, and may hold any characters.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ", START_FIELD + 1);
  const [parent, startTicks] = [Number(fields[PARENT_FIELD]), Number(fields[START_FIELD])];
  return Number.isSafeInteger(parent) && Number.isSafeInteger(startTicks)
    ? { parent, startTicks }
    : undefined;
}

/** A descriptor that is given up for as long as one file is read when no other is left. */
let spare: number | undefined;

/** The line of a file of /proc, also when no descriptor is left; undefined if there is none. */
function textOf(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (spare === undefined || (code !== "EMFILE" && code !== "ENFILE")) return undefined;
    closeSync(spare);
    spare = undefined;
    return textOf(path);
  }
  try {
    return status.toString("latin1", 0, readSync(fd, status, 0, STATUS_BYTES, 0));
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
    spare ??= openSpare();
  }
}

function openSpare(): number | undefined {
  try {
    return openSync(devNull, "r");
  } catch {
    return undefined;
  }
}
