// What /proc tells of real processes: when they began, and which they descend from.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { Ancestors, startTicksOf } from "../../daemon/socket/process-status.js";

test("the ancestors of a process begin with its parent, and none are those of another that had its pid", async () => {
  // The name of a program may look like what follows it.
  const program = "exec -a 'a) R 1 2 (b' sleep 600 & echo $!; wait";
  const shell = spawn("bash", ["-c", program], { stdio: ["ignore", "pipe", "inherit"], detached: true });
  onTestFinished(() => void process.kill(-(shell.pid as number), "SIGKILL"));
  const [line] = (await once(createInterface({ input: shell.stdout }), "line")) as [string];
  const caller = { connection: 1, pid: Number(line), uid: 0, gid: 0, startTicks: startTicksOf(Number(line)) };
  expect(caller.startTicks).toBeGreaterThan(0);
  const ancestors = new Ancestors();
  for (let time = 0; time < 2; time += 1) {
    expect(ancestors.of(caller).slice(0, 2)).toEqual([
      { pid: shell.pid, startTicks: startTicksOf(shell.pid as number) },
      { pid: process.pid, startTicks: startTicksOf(process.pid) },
    ]);
  }
  expect(ancestors.of({ ...caller, startTicks: (caller.startTicks as number) - 1 })).toEqual([]);
  expect(ancestors.of({ ...caller, pid: null })).toEqual([]);
  expect(startTicksOf(2 ** 30)).toBe(null);
});
