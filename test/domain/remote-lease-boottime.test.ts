// Events that no test at the socket can bring about: a machine that sleeps, or is booted anew.
import { expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { changeRows, InProcess } from "../in-process.js";

/** Two leases of a minute: one is kept here, the other by a provider. */
async function hold(time: Clocks): Promise<InProcess> {
  const pawl = new InProcess({ time });
  for (const name of ["here", "remote"]) {
    await pawl.call("lease.acquire", { name, owner: "a", ttlMs: 60_000 });
  }
  changeRows(
    pawl.path,
    `UPDATE pawl_lease SET provider = 'custom:/m.js', boot = '${time.boot}', ends_boottime_ms = ${time.boottime() + 60_000} WHERE name = 'remote'`,
  );
  return pawl;
}

async function remaining(pawl: InProcess): Promise<(number | undefined)[]> {
  const seen = [];
  for (const name of ["here", "remote"]) {
    seen.push((await pawl.call("lease.get", { name })).lease?.remainingMs);
  }
  return seen;
}

test("while the machine sleeps, a remote lease goes on, and one kept here does not", async () => {
  const time = new Clocks();
  const pawl = await hold(time);
  time.pass(10_000);
  time.sleep(20_000);
  expect(await remaining(pawl)).toEqual([50_000, 30_000]);
  time.sleep(31_000);
  expect(await remaining(pawl)).toEqual([50_000, undefined]);
  expect(pawl.notified).toMatchObject([{ method: "lease.lost", params: { name: "remote" } }]);
});

test("a wall clock that is set touches neither", async () => {
  const time = new Clocks();
  const pawl = await hold(time);
  time.step(3_600_000);
  expect(await remaining(pawl)).toEqual([60_000, 60_000]);
});

test("over a restart a sleep counts too", async () => {
  const time = new Clocks();
  const pawl = await hold(time);
  pawl.crash();
  time.sleep(20_000);
  const after = new InProcess({ path: pawl.path, time });
  expect(await remaining(after)).toEqual([60_000, 40_000]);
});

test("with another boot a remote lease has ended", async () => {
  const time = new Clocks();
  const pawl = await hold(time);
  pawl.crash();
  time.reboot(10_000);
  const after = new InProcess({ path: pawl.path, time });
  expect(await remaining(after)).toEqual([50_000, undefined]);
});
