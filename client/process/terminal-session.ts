// The terminal that this program was started on, if there is one, and what runs on it.
import { closeSync, constants, openSync, readdirSync, readFileSync } from "node:fs";

/** True if this program has a terminal, even if none of its streams goes there. */
export function hasTerminal(): boolean {
  try {
    closeSync(openSync("/dev/tty", constants.O_RDWR | constants.O_NOCTTY));
    return true;
  } catch {
    return false;
  }
}

interface ProcessState {
  readonly pid: number;
  /** R, S, T and others, as in proc(5). */
  readonly state: string;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  /** The group that the terminal's signals go to, or -1. */
  readonly foreground: number;
}

/** A process as the kernel has it, or undefined where there is none. */
function processState(pid: number): ProcessState | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The name of the program comes before, in parentheses, and may be anything.
  const [state = "", ...rest] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [parent = 0, group = 0, session = 0, , foreground = -1] = rest.map(Number);
  return { pid, state, parent, group, session, foreground };
}

/** True if what the terminal sends by Ctrl-C and Ctrl-\ comes to this program, and to all that share its group. */
export function isForeground(): boolean {
  const own = processState(process.pid);
  return own !== undefined && own.group === own.foreground;
}

export function isStopped(pid: number): boolean {
  return processState(pid)?.state === "T";
}

/** The session of this program; 0 where it cannot be known. */
export function ownSession(): number {
  return processState(process.pid)?.session ?? 0;
}

/**
 * The processes of this session that a command has started, itself included: those below it, and those that have the
 * mark in the environment they began with, whatever has become of their parents. A process that has made a session of
 * its own has left on purpose.
 */
export function processesOf(root: number | undefined, mark: string): number[] {
  const session = ownSession();
  const all = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processState(Number(name)))
    .filter((each) => each !== undefined)
    .filter((each) => each.session === session && each.pid !== process.pid && !/[ZX]/.test(each.state));
  const found = new Set(all.filter(({ pid }) => pid === root || hasMark(pid, mark)).map(({ pid }) => pid));
  for (let before = -1; before < found.size; ) {
    before = found.size;
    for (const { pid, parent } of all) if (found.has(parent)) found.add(pid);
  }
  return [...found];
}

function hasMark(pid: number, mark: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`).includes(mark);
  } catch {
    // It has ended, or is somebody else's.
    return false;
  }
}
