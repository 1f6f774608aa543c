import { readdirSync, readFileSync } from "node:fs";

/** The flag of open(2), the same on all Linux architectures that Node runs on; Node does not export it. */
const O_CLOEXEC = 0o2000000;

/**
 * Covers descriptors that this process inherited, from 3 on, by the one given. The daemon would inherit them too, and
 * hold a lock or a pipe of whoever started this process until it ends.
 */
export function covered(by: number): ("ignore" | number)[] {
  const cover: ("ignore" | number)[] = [];
  for (const fd of inherited()) {
    while (cover.length < fd - 3) cover.push("ignore");
    cover.push(by);
  }
  return cover;
}

/** Descriptors from 3 on that a program started by us gets, in ascending order; what Node opens is not among them. */
function inherited(): number[] {
  try {
    return readdirSync("/proc/self/fdinfo")
      .map(Number)
      .filter((fd) => fd > 2 && !closesOnExec(fd))
      .sort((a, b) => a - b);
  } catch {
    return [];
  }
}

function closesOnExec(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "0";
    return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0;
  } catch {
    // The descriptor was the one through which the directory was read.
    return true;
  }
}
