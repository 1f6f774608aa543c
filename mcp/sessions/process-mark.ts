import { readFileSync, readlinkSync } from "node:fs";

/** One process of this machine, told from those that get its pid later. */
export interface ProcessMark {
  readonly pid: number;
  /** When it started, in ticks since the boot (proc_pid_stat(5)); 0 where that cannot be known. */
  readonly startTicks: number;
  /** The pid namespace in which the pid counts (namespaces(7)). */
  readonly pidSpace: string;
}

/** The mark of a process of this namespace. */
export function markOf(pid: number = process.pid): ProcessMark {
  return { pid, startTicks: startOf(pid) ?? 0, pidSpace: pidSpace() };
}

/**
 * False if the process has certainly ended: nobody has its pid, or one that started at another time has. A process of
 * another container, or one that may not be looked at, counts as alive.
 */
export function isAlive({ pid, startTicks, pidSpace: space }: ProcessMark): boolean {
  if (space !== pidSpace()) return true;
  const fields = fieldsOf(pid);
  if (fields === undefined) return isTaken(pid);
  return !hasEnded(fields) && (startTicks === 0 || Number(fields[START]) === startTicks);
}

/** True if a process has the pid, by the kernel: EPERM says that one has it, and whose it is not. */
export function isTaken(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The pid of a process's parent, if it lives. */
export function parentOf(pid: number): number | undefined {
  const fields = fieldsOf(pid);
  return fields === undefined ? undefined : Number(fields[1]);
}

function startOf(pid: number): number | undefined {
  const fields = fieldsOf(pid);
  return fields === undefined || hasEnded(fields) ? undefined : Number(fields[START]);
}

/** The place of the start among the fields. */
const START = 19;

/** A zombie, or one that is being removed. */
function hasEnded([state]: readonly string[]): boolean {
  return state === "Z" || state === "X";
}

/** The fields of proc_pid_stat(5) behind the name of the program, which may hold anything: from the state on. */
function fieldsOf(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** The pid namespace of this process. */
export function pidSpace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}
