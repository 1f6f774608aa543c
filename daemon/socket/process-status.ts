// Processes of the machine, as /proc tells of them.
import { readFileSync } from "node:fs";
import type { Caller, Process } from "../turns/operation.js";

/** Processes between one and the oldest that it descends from, as far as is looked. */
const MAX_ANCESTORS = 32;
/** Where the parent and the start stand in /proc/PID/stat, behind the name of the program (proc(5)). */
const PARENT_FIELD = 1;
const START_FIELD = 19;

/** When the process that has a pid now began, in clock ticks since the machine did; null where that is not told. */
export function startTicksOf(pid: number | null): number | null {
  return pid === null ? null : (statusOf(pid)?.startTicks ?? null);
}

/** The processes that a caller's process descends from, the nearest first; none if it is not there any more. */
export function ancestorsOf({ pid, startTicks }: Caller): Process[] {
  const found: Process[] = [];
  if (pid === null) return found;
  const own = statusOf(pid);
  if (own === undefined || own.startTicks !== startTicks) return found;
  let { parent } = own;
  while (parent > 0 && found.length < MAX_ANCESTORS) {
    const status = statusOf(parent);
    if (status === undefined) break;
    found.push({ pid: parent, startTicks: status.startTicks });
    parent = status.parent;
  }
  return found;
}

function statusOf(pid: number): { parent: number; startTicks: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The name of the program is in parentheses, and may hold any characters.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [parent, startTicks] = [Number(fields[PARENT_FIELD]), Number(fields[START_FIELD])];
  return Number.isSafeInteger(parent) && Number.isSafeInteger(startTicks)
    ? { parent, startTicks }
    : undefined;
}
