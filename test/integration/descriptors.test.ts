// A daemon that has few descriptors left (spec: operations.md, Faults from outside).
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { NAMES_ARE_SHARED, startDaemon } from "../daemon.js";
import { RawClient } from "../raw-client.js";

const FEW_DESCRIPTORS = 64;
const CLIENTS = 120;

test("lets new connections wait, serves those that are open, and takes up the others as these close", async () => {
  const daemon = await startDaemon({
    command: ["sh", "-c", `ulimit -n ${FEW_DESCRIPTORS}; exec "$0" "$@"`, process.execPath],
  });
  const { socket, directory } = daemon.place;
  const first = await RawClient.connect(socket);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawClient.connect(socket)));
  const answered: RawClient[] = [];
  const numbers: number[] = [];
  for (const client of clients) {
    void client.call("sequence.next", { type: "FR" }).then(({ seq }) => {
      answered.push(client);
      numbers.push(seq);
    });
  }
  expect(await daemon.logged(({ msg }) => msg.startsWith("few descriptors are left"))).toMatchObject({
    level: "warn",
    limit: FEW_DESCRIPTORS,
  });

  // Work that needs descriptors itself goes on.
  for (let round = 0; round < 3; round += 1) {
    await first.call("daemon.backup", { path: join(directory, `backup-${round}`) });
    const { connections, memoryBytes } = await first.call("daemon.stats", {});
    expect(connections.open).toBeLessThan(FEW_DESCRIPTORS);
    expect(connections.acceptPauses).toBeGreaterThan(0);
    expect(memoryBytes).toBeGreaterThan(0);
  }
  expect(numbers.length).toBeLessThan(FEW_DESCRIPTORS);

  // Each that closes makes room for one that waits, until all have had their answers.
  await vi.waitFor(
    async () => {
      await Promise.all(answered.splice(0).map((client) => client.destroy()));
      expect(numbers).toHaveLength(CLIENTS);
    },
    { timeout: 60_000, interval: 10 },
  );
  expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: CLIENTS }, (_, index) => index + 1));
  const { connections, errors } = await first.call("daemon.stats", {});
  expect([connections.accepted, errors]).toEqual([CLIENTS + 1, {}]);
  expect(daemon.log.filter(({ level }) => level !== "info")).toHaveLength(1);
  expect(await daemon.end()).toBe(0);
});

test("goes on where not one is left, with its witness too, and refuses only what needs one", async () => {
  const daemon = await startDaemon();
  const { place, pid } = daemon;
  const { socket, stateDir, directory } = place;
  const first = await RawClient.connect(socket);
  const held = await first.call("lease.acquire", { name: "held", owner: "a", ttlMs: 60_000 });
  const receiver = await RawClient.connect(socket);
  await receiver.call("command.serve", { deployment: "d", owner: "r" });
  await first.call("daemon.backup", { path: join(directory, "before") });
  // All numbers below the highest are taken by connections, and there are none above it.
  const filling: RawClient[] = [];
  const descriptors = (): number[] => readdirSync(`/proc/${pid}/fd`).map(Number);
  while (Math.max(...descriptors()) >= descriptors().length) {
    const client = await RawClient.connect(socket);
    await client.call("daemon.ping", {});
    filling.push(client);
  }
  const setLimit = (soft: number): void => {
    expect(spawnSync("prlimit", ["--pid", `${pid}`, `--nofile=${soft}:`]).status).toBe(0);
  };
  const former = readFileSync(`/proc/${pid}/limits`, "utf8").match(/open files +(\d+)/)?.[1];
  setLimit(descriptors().length);

  // The bound of the witness is raised again and again: appended to, and written anew where it was removed.
  const numbers = async (from: number, to: number): Promise<void> => {
    const calls = Array.from({ length: to - from + 1 }, () => first.call("sequence.next", { type: "FR" }));
    expect((await Promise.all(calls)).map(({ seq }) => seq - from)).toEqual(calls.map((_, index) => index));
  };
  await numbers(1, 300);
  const witness = join(stateDir, "pawl.witness");
  rmSync(witness);
  await numbers(301, 900);
  // It is about counters of the daemon's own file.
  if (!NAMES_ARE_SHARED) expect(readFileSync(witness, "utf8")).toContain("FR");
  const sent = first.call("command.create", { deployment: "d", command: "c" });
  expect(JSON.parse(await receiver.line())).toMatchObject({ method: "command.execute" });
  await sent;
  for (const [method, params] of [
    ["daemon.backup", { path: join(directory, "backup") }],
    ["daemon.check", {}],
  ] as const) {
    expect((await first.refusal(method, params)).data).toMatchObject({
      kind: "unavailable",
      retryable: true,
    });
  }
  const { memoryBytes, uptimeMs } = await first.call("daemon.stats", {});
  expect(memoryBytes).toBeGreaterThan(0);
  // After 5 s the daemon finds out for itself how much memory it uses.
  const waitMs = Math.max(5200 - uptimeMs, 0);
  await first.refusal("lease.acquire", { name: "held", owner: "b", waitMs });
  await first.call("lease.heartbeat", { leaseId: held.lease.leaseId });
  // It finds out within 2 s. Those that connect then wait, and are neither closed nor forgotten.
  await daemon.logged(({ msg }) => msg.startsWith("few descriptors are left"));
  const late = await Promise.all(Array.from({ length: 5 }, () => RawClient.connect(socket)));
  const pings = late.map((client) => client.call("daemon.ping", {}));
  await first.call("daemon.ping", {});

  setLimit(Number(former));
  await Promise.all(filling.map((client) => client.destroy()));
  await Promise.all(pings);
  await numbers(901, 1500);
  await first.call("daemon.backup", { path: join(directory, "after") });
  expect((await first.call("daemon.check", {})).problems).toEqual([]);
  expect(daemon.log.filter(({ level }) => level !== "info")).toHaveLength(1);
  expect(await daemon.end()).toBe(0);
});

test("knows the process of a connection that took the last one", async () => {
  const daemon = await startDaemon();
  const { place, pid } = daemon;
  const { socket } = place;
  const first = await RawClient.connect(socket);
  // It is accepted, and its descriptor among those that are counted.
  await first.call("daemon.ping", {});
  const descriptors = (): number[] => readdirSync(`/proc/${pid}/fd`).map(Number);
  const filling: RawClient[] = [];
  while (Math.max(...descriptors()) >= descriptors().length) {
    const client = await RawClient.connect(socket);
    await client.call("daemon.ping", {});
    filling.push(client);
  }
  const setLimit = (soft: number): void => {
    expect(spawnSync("prlimit", ["--pid", `${pid}`, `--nofile=${soft}:`]).status).toBe(0);
  };
  const former = Number(readFileSync(`/proc/${pid}/limits`, "utf8").match(/open files +(\d+)/)?.[1]);
  setLimit(descriptors().length + 1);
  const last = await RawClient.connect(socket);
  await last.call("daemon.ping", {});
  expect(descriptors()).toHaveLength(Math.max(...descriptors()) + 1);

  // This process would wait for itself: a circle of one, which is no circle.
  const { lease } = await last.call("lease.acquire", { name: "a", owner: "o", ttlMs: 60_000 });
  await first.call("lease.acquire", { name: "b", owner: "o", ttlMs: 60_000 });
  const waiting = first.call("lease.acquire", { name: "a", owner: "o", waitMs: 60_000 });
  const waiters = async () => (await last.call("lease.get", { name: "a" })).lease?.waiters;
  await expect.poll(waiters).toBe(1);
  const refused = await last.refusal("lease.acquire", { name: "b", owner: "o", waitMs: 1 });
  expect(refused.data.kind).toBe("lease_held");
  await last.call("lease.release", { leaseId: lease.leaseId });
  await waiting;
  setLimit(former);
});

test("has as many as the hard limit allows, whatever the soft one is", async () => {
  const daemon = await startDaemon({
    command: ["sh", "-c", `ulimit -Sn ${FEW_DESCRIPTORS}; exec "$0" "$@"`, process.execPath],
  });
  const { socket } = daemon.place;
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawClient.connect(socket)));
  await Promise.all(clients.map((client) => client.call("daemon.ping", {})));
  expect(daemon.log.filter(({ level }) => level !== "info")).toEqual([]);
});
