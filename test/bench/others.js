// @ts-check
/** How busy the machine is with what is not part of the measurement (Linux: proc(5)). */
import { readdirSync, readFileSync } from "node:fs";

const TICKS_PER_SECOND = 100;
/** The parent of the kernel's own threads. What they do here is the disk's work for what is measured. */
const KERNEL_PID = 2;

/**
 * Starts to watch. The result, called at the end, gives the CPU seconds that processes used which are not this
 * one and not its descendants.
 *
 * @returns {() => number}
 */
export function watchOthers() {
  const before = ticks();
  return () => {
    const after = ticks();
    return Math.max(0, after.all - before.all - (after.own - before.own)) / TICKS_PER_SECOND;
  };
}

function ticks() {
  const [, user = 0, nice = 0, system = 0] = readFileSync("/proc/stat", "utf8").split(/\s+/, 4).map(Number);
  return { all: user + nice + system, own: ownTicks() };
}

function ownTicks() {
  /** @type {Map<number, {parent: number, ticks: number}>} */
  const processes = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      // The second field is the program's name in brackets, which may hold anything.
      const fields = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .map(Number);
      const [, parent = 0, , , , , , , , , , user = 0, system = 0, childUser = 0, childSystem = 0] = fields;
      processes.set(Number(name), { parent, ticks: user + system + childUser + childSystem });
    } catch {
      // It has ended.
    }
  }
  const isOwn = (/** @type {number} */ pid) => {
    for (let at = pid; at > 1; at = processes.get(at)?.parent ?? 0) {
      if (at === process.pid || at === KERNEL_PID) return true;
    }
    return false;
  };
  let own = 0;
  for (const [pid, { ticks }] of processes) if (isOwn(pid)) own += ticks;
  return own;
}
