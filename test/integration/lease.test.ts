// Leases as clients see them: a daemon on a real socket, holders and waiters on connections of their own.
import { MAX_WAITS_PER_CONNECTION } from "@pawl/protocol/limits";
import type { Lease } from "@pawl/protocol/types";
import { describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place, sharedDaemon, startDaemon } from "../daemon.js";
import { isInTime } from "../in-time.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

/** How often a peer that is not read is tried where the kernel does not tell that it has closed. */
const PROBE_MS = 1000;
/** So many looks in a row find that a daemon has used no hundredth of a second of the processor, if it rests. */
const RESTED_LOOKS = 15;

async function acquire(
  client: RawClient,
  name: string,
  other: { ttlMs?: number; waitMs?: number; releaseOn?: "expiry" | "disconnect"; owner?: string } = {},
): Promise<Lease> {
  return (await client.call("lease.acquire", { name, owner: "test", ...other })).lease;
}

/** Starts to wait for a name, and returns once the daemon has taken it up, with the grant still to come. */
async function startWaiting(
  client: RawClient,
  name: string,
  other: { ttlMs?: number; releaseOn?: "expiry" | "disconnect"; owner?: string } = {},
): Promise<{ granted: Promise<Lease> }> {
  const granted = acquire(client, name, { waitMs: 60_000, ...other });
  granted.catch(() => {});
  // Requests of one connection are taken up in the order sent.
  await client.call("daemon.ping", {});
  return { granted };
}

describe("methods", () => {
  const daemon = sharedDaemon();

  test("a lease is granted, shown without its id, checked, renewed and released", async () => {
    const client = await daemon().place.connect();
    const { lease } = await client.call("lease.acquire", {
      name: "db",
      owner: "migration",
      ttlMs: 5000,
      note: "adding an index",
    });
    expect(lease).toEqual({
      name: "db",
      leaseId: expect.stringMatching(/^lease_[0-9a-f]{32}$/),
      fencingToken: 1,
      owner: "migration",
      mode: "exclusive",
      slots: 1,
      acquiredAt: expect.any(Number),
      expiresAt: lease.acquiredAt + 5000,
      remainingMs: 5000,
    });

    const shown = await client.call("lease.get", { name: "db" });
    expect(shown.lease).toEqual({
      name: "db",
      owner: "migration",
      fencingToken: 1,
      mode: "exclusive",
      acquiredAt: lease.acquiredAt,
      expiresAt: lease.expiresAt,
      remainingMs: expect.any(Number),
      waiters: 0,
      note: "adding an index",
      pid: process.pid,
      uid: process.getuid?.(),
    });
    expect(JSON.stringify(shown)).not.toContain(lease.leaseId);
    expect(shown.lease?.remainingMs).toBeLessThanOrEqual(5000);

    expect(await client.call("lease.check", { name: "db", fencingToken: 1 })).toEqual({
      current: true,
      highest: 1,
    });
    expect(await client.call("lease.check", { name: "db", fencingToken: 2 })).toEqual({
      current: false,
      highest: 1,
    });

    const renewed = await client.call("lease.heartbeat", { leaseId: lease.leaseId, ttlMs: 9000 });
    expect(renewed.remainingMs).toBe(9000);
    // Without a ttl it is renewed for what it was acquired with.
    expect((await client.call("lease.heartbeat", { leaseId: lease.leaseId })).remainingMs).toBe(5000);
    expect((await client.call("lease.get", { name: "db" })).lease?.acquiredAt).toBe(lease.acquiredAt);

    expect(await client.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
    expect(await client.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: false });
    expectRefusal(await client.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
    expect(await client.call("lease.get", { name: "db" })).toEqual({
      lease: null,
      holders: [],
      slots: 1,
      free: 1,
    });
    expect(await client.call("lease.check", { name: "db", fencingToken: 1 })).toEqual({
      current: false,
      highest: 1,
    });
  });

  test("a held name is refused with its holder, also to the same owner", async () => {
    const client = await daemon().place.connect();
    const { expiresAt } = await acquire(client, "held", { owner: "deploy", ttlMs: 60_000 });
    const error = expectRefusal(
      await client.refusal("lease.acquire", { name: "held", owner: "deploy" }),
      "lease_held",
    );
    expect(error.data.holder).toEqual({ owner: "deploy", expiresAt, remainingMs: expect.any(Number) });
    expect(error.data.holders).toEqual([error.data.holder]);
    expect(Object.keys(error.data).sort()).toEqual(["holder", "holders", "kind", "retryable"]);
  });

  test("a wait that ends without the lease is refused like one that did not wait", async () => {
    const client = await daemon().place.connect();
    await acquire(client, "busy", { ttlMs: 60_000 });
    expectRefusal(
      await client.refusal("lease.acquire", { name: "busy", owner: "second", waitMs: 20 }),
      "lease_held",
    );
  });

  test("the list goes page by page in the order of names", async () => {
    const client = await daemon().place.connect();
    const names = ["page/a", "page/b", "page/c", "page/ö", "page/🔒"];
    for (const name of [...names].reverse()) await acquire(client, name, { ttlMs: 60_000 });
    const listed: string[] = [];
    const prefix = "page/";
    for (let after: string | undefined; ; ) {
      const page = await client.call("lease.list", { prefix, limit: 2, ...(after && { after }) });
      expect(page.leases.length).toBeLessThanOrEqual(2);
      expect(JSON.stringify(page)).not.toContain("lease_");
      listed.push(...page.leases.map(({ name }) => name));
      if (page.next === undefined) break;
      after = page.next;
    }
    expect(listed).toEqual(names);
  });

  test("check of a name that was never held", async () => {
    const client = await daemon().place.connect();
    const answer = await client.call("lease.check", { name: "never", fencingToken: 1 });
    expect(answer).toEqual({ current: false, highest: 0 });
  });

  test("break ends a lease, tells its holder, is logged, and the next token is higher", async () => {
    const holder = await daemon().place.connect();
    const other = await daemon().place.connect();
    const lease = await acquire(holder, "stuck", { ttlMs: 60_000, owner: "gone away" });
    const reason = "the process hangs";
    expect(await other.call("lease.break", { name: "stuck", reason })).toEqual({ broken: true });
    expect(await other.call("lease.break", { name: "stuck", reason })).toEqual({ broken: false });
    expect(await holder.reply()).toEqual({
      jsonrpc: "2.0",
      method: "lease.lost",
      params: { name: "stuck", leaseId: lease.leaseId, fencingToken: 1, cause: "broken", reason },
    });
    expectRefusal(await holder.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
    expect((await acquire(other, "stuck")).fencingToken).toBe(2);
    const line = await daemon().logged(({ msg }) => msg === "lease broken");
    expect(line).toMatchObject({
      lease: { name: "stuck", owner: "gone away", fencingToken: 1, pid: process.pid },
      reason,
      caller: { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() },
    });
    expect(JSON.stringify(daemon().log)).not.toContain(lease.leaseId);
  });

  test.each([
    ["lease.acquire", { name: "", owner: "a" }, "/name"],
    ["lease.acquire", { name: "a" }, "/owner"],
    ["lease.acquire", { name: "a", owner: "a", ttlMs: 99 }, "/ttlMs"],
    ["lease.acquire", { name: "a", owner: "a", ttlMs: 86_400_001 }, "/ttlMs"],
    ["lease.acquire", { name: "a", owner: "a", releaseOn: "never" }, "/releaseOn"],
    ["lease.acquire", { name: "a", owner: "a", note: "x".repeat(1025) }, "/note"],
    ["lease.break", { name: "a" }, "/reason"],
    ["lease.heartbeat", { leaseId: "x", ttlMs: 1.5 }, "/ttlMs"],
  ])("%s refuses %j at %s", async (method, params, path) => {
    const client = await daemon().place.connect();
    const error = expectRefusal(await client.refusal(method, params), "invalid_params");
    expect(error.data.issues).toMatchObject([{ path }]);
  });
});

describe("waiting", () => {
  const daemon = sharedDaemon();

  test("waiters are served in the order they came, and counted", async () => {
    const holder = await daemon().place.connect();
    const { leaseId } = await acquire(holder, "order", { ttlMs: 60_000 });
    const served: number[] = [];
    const waiters = [];
    for (let number = 0; number < 10; number += 1) {
      const client = await daemon().place.connect();
      const { granted } = await startWaiting(client, "order", { ttlMs: 60_000 });
      waiters.push(
        granted.then(async (lease) => {
          served.push(number);
          await client.call("lease.release", { leaseId: lease.leaseId });
          return lease.fencingToken;
        }),
      );
      expect((await holder.call("lease.get", { name: "order" })).lease?.waiters).toBe(number + 1);
    }
    await holder.call("lease.release", { leaseId });
    const tokens = await Promise.all(waiters);
    expect(served).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(tokens).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  test("one that does not wait never gets a name before those who do", async () => {
    const holder = await daemon().place.connect();
    const waiter = await daemon().place.connect();
    const { leaseId } = await acquire(holder, "no-barging", { ttlMs: 60_000 });
    const { granted } = await startWaiting(waiter, "no-barging", { owner: "waiter" });
    // Both in one write, so that they are in one turn.
    const release = { jsonrpc: "2.0", id: "r", method: "lease.release", params: { leaseId } };
    const barge = {
      jsonrpc: "2.0",
      id: "b",
      method: "lease.acquire",
      params: { name: "no-barging", owner: "x" },
    };
    holder.write(`${JSON.stringify(release)}\n${JSON.stringify(barge)}\n`);
    const replies = [await holder.reply(), await holder.reply()];
    expect(replies.find(({ id }) => id === "r")?.result).toEqual({ released: true });
    const refused = expectRefusal(replies.find(({ id }) => id === "b")?.error, "lease_held");
    expect(refused.data.holder).toMatchObject({ owner: "waiter" });
    await granted;
  });

  test("a waiter that has closed is skipped", async () => {
    const holder = await daemon().place.connect();
    const { leaseId } = await acquire(holder, "skip", { ttlMs: 60_000 });
    const first = await daemon().place.connect();
    const second = await daemon().place.connect();
    await startWaiting(first, "skip");
    const { granted } = await startWaiting(second, "skip", { owner: "second" });
    await first.destroy();
    await holder.call("lease.release", { leaseId });
    expect((await granted).fencingToken).toBe(2);
  });

  test("a waiter that only half-closed is served; killed, it is skipped", async () => {
    const holder = await daemon().place.connect();
    const { leaseId } = await acquire(holder, "half", { ttlMs: 60_000 });
    const wait = {
      method: "lease.acquire",
      params: { name: "half", owner: "half", ttlMs: 60_000, waitMs: 60_000 },
    };
    const waiting = (count: number): Promise<void> =>
      until(async () => (await holder.call("lease.get", { name: "half" })).lease?.waiters === count);
    const killed = startRaw(daemon().place.socket, [wait], { halfClose: true });
    await waiting(1);
    const served = startRaw(daemon().place.socket, [wait], { halfClose: true });
    await waiting(2);
    await killed.end("SIGKILL");
    const ended = performance.now();
    await waiting(1);
    // By the kernel's word, not by the try once a second that there is without it.
    expect(performance.now() - ended).toBeLessThan(PROBE_MS / 2);
    await holder.call("lease.release", { leaseId });
    expect(await served.line<RawReply>(0)).toMatchObject({ id: 1, result: { lease: { fencingToken: 2 } } });
    expect(killed.printed).toEqual([]);
  });

  test("a waiter with as many waits as a connection may have is noticed when it is killed", async () => {
    const holder = await daemon().place.connect();
    await acquire(holder, "crowd", { ttlMs: 60_000 });
    const wait = { method: "lease.acquire", params: { name: "crowd", owner: "crowd", waitMs: 60_000 } };
    const waiting = (count: number): Promise<void> =>
      until(async () => (await holder.call("lease.get", { name: "crowd" })).lease?.waiters === count);
    const crowd = startRaw(daemon().place.socket, Array(MAX_WAITS_PER_CONNECTION).fill(wait));
    await waiting(MAX_WAITS_PER_CONNECTION);
    await crowd.end("SIGKILL");
    const ended = performance.now();
    await waiting(0);
    expect(performance.now() - ended).toBeLessThan(PROBE_MS / 2);
  });
});

describe("the end of a lease", () => {
  const daemon = sharedDaemon();

  test("without a heartbeat it ends when its ttl ends: not before, and not much after", async () => {
    const late: number[] = [];
    while (!isInTime(late)) {
      const holder = await daemon().place.connect();
      const waiter = await daemon().place.connect();
      const start = performance.now();
      const held = await acquire(holder, "ttl", { ttlMs: 300 });
      const { granted } = await startWaiting(waiter, "ttl", { ttlMs: 300 });
      // A holder with `expiry` may die without the lease ending early.
      await holder.destroy();
      const next = await granted;
      expect(next.acquiredAt).toBeGreaterThanOrEqual(held.expiresAt);
      expect(performance.now() - start).toBeGreaterThanOrEqual(300);
      late.push(performance.now() - start - 300);
      expect(next.fencingToken).toBe(held.fencingToken + 1);
      await waiter.call("lease.release", { leaseId: next.leaseId });
    }
  });

  test("a process that is killed loses a lease with `disconnect` at once", async () => {
    const late: number[] = [];
    while (!isInTime(late)) {
      const params = { name: "dies", owner: "victim", ttlMs: 60_000, releaseOn: "disconnect" };
      const holder = startRaw(daemon().place.socket, [{ method: "lease.acquire", params }]);
      const { result } = await holder.line<{ result: { lease: Lease } }>(0);
      const waiter = await daemon().place.connect();
      expect((await waiter.call("lease.get", { name: "dies" })).lease?.pid).toBe(holder.child.pid);
      const { granted } = await startWaiting(waiter, "dies");
      const killed = performance.now();
      holder.child.kill("SIGKILL");
      const next = await granted;
      late.push(performance.now() - killed);
      expect(next.fencingToken).toBe(result.lease.fencingToken + 1);
      await waiter.call("lease.release", { leaseId: next.leaseId });
    }
  });

  test("a lease with `disconnect` never outlives its ttl", async () => {
    const holder = await daemon().place.connect();
    const waiter = await daemon().place.connect();
    const held = await acquire(holder, "both", { ttlMs: 200, releaseOn: "disconnect" });
    const { granted } = await startWaiting(waiter, "both");
    expect((await granted).acquiredAt).toBeGreaterThanOrEqual(held.expiresAt);
  });

  test("a grant to a connection that closed right after asking does not stay", async () => {
    const observer = await daemon().place.connect();
    for (let round = 0; round < 20; round += 1) {
      const client = await daemon().place.connect();
      const params = { name: "fleeting", owner: "gone", ttlMs: 60_000, releaseOn: "disconnect" };
      client.send({ jsonrpc: "2.0", id: 1, method: "lease.acquire", params });
      await client.destroy();
    }
    const lease = await acquire(observer, "fleeting", { waitMs: 10_000 });
    expect(lease.name).toBe("fleeting");
  });

  test("another connection that renews a lease with `disconnect` does not take it along", async () => {
    const holder = await daemon().place.connect();
    const other = await daemon().place.connect();
    const { leaseId } = await acquire(holder, "renewed elsewhere", {
      ttlMs: 60_000,
      releaseOn: "disconnect",
    });
    await other.call("lease.heartbeat", { leaseId });
    await other.destroy();
    expect((await holder.call("lease.heartbeat", { leaseId })).remainingMs).toBe(60_000);
    const observer = await daemon().place.connect();
    await holder.destroy();
    await acquire(observer, "renewed elsewhere", { waitMs: 10_000 });
  });

  test("the holder is told at a third of the ttl, and when the lease is lost", async () => {
    const holder = await daemon().place.connect();
    const ttlMs = 1200;
    const lease = await acquire(holder, "warned", { ttlMs });
    const { name, leaseId, fencingToken, expiresAt } = lease;
    const expiring = await holder.reply();
    expect(expiring).toEqual({
      jsonrpc: "2.0",
      method: "lease.expiring",
      params: { name, leaseId, fencingToken, expiresAt, remainingMs: expect.any(Number) },
    });
    const { remainingMs } = (expiring as unknown as { params: { remainingMs: number } }).params;
    expect(remainingMs).toBeLessThanOrEqual(ttlMs / 3);
    expect(remainingMs).toBeGreaterThan(0);
    expect(await holder.reply()).toEqual({
      jsonrpc: "2.0",
      method: "lease.lost",
      params: { name, leaseId, fencingToken, cause: "expired", reason: null },
    });
  });

  test("a holder that renews in time is told nothing, and neither is one that releases", async () => {
    const holder = await daemon().place.connect();
    const ttlMs = 1500;
    const { leaseId } = await acquire(holder, "quiet", { ttlMs });
    for (let passed = 0; passed < ttlMs * 1.2; passed += ttlMs / 5) {
      await new Promise((resolve) => setTimeout(resolve, ttlMs / 5));
      await holder.call("lease.heartbeat", { leaseId });
    }
    await holder.call("lease.release", { leaseId });
    const next = await acquire(holder, "quiet", { ttlMs });
    await holder.call("lease.release", { leaseId: next.leaseId });
    for (;;) {
      const { now } = await holder.call("daemon.ping", {});
      if (now > next.expiresAt) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(holder.lines).toEqual([]);
  });
});

test("leases, tokens and what ends with a connection over a restart", async () => {
  const place = new Place();
  let daemon = await place.start();
  const before = await place.connect();
  const kept = await acquire(before, "kept", { ttlMs: 60_000 });
  const bound = await acquire(before, "bound", { ttlMs: 60_000, releaseOn: "disconnect" });
  const given = await acquire(before, "given back");
  await before.call("lease.release", { leaseId: given.leaseId });
  await daemon.end("SIGKILL");

  daemon = await place.start();
  const after = await place.connect();
  const shown = (await after.call("lease.get", { name: "kept" })).lease;
  expect(shown?.fencingToken).toBe(kept.fencingToken);
  // Shown anew by the wall clock, which may be slewed meanwhile, and yet less than a restart takes.
  expect(Math.abs((shown?.expiresAt ?? 0) - kept.expiresAt)).toBeLessThanOrEqual(50);
  // A lease that ended with its connection can be renewed for a moment, on a new one, and then ends with that.
  const grace = (await after.call("lease.get", { name: "bound" })).lease?.remainingMs as number;
  expect(grace).toBeGreaterThan(0);
  expect(grace).toBeLessThanOrEqual(5000);
  expect((await after.call("lease.heartbeat", { leaseId: bound.leaseId })).remainingMs).toBe(60_000);
  expect((await acquire(after, "given back")).fencingToken).toBe(2);
  await after.destroy();
  const observer = await place.connect();
  const next = await acquire(observer, "bound", { waitMs: 10_000 });
  expect(next.fencingToken).toBe(bound.fencingToken + 1);
  expect((await observer.call("lease.heartbeat", { leaseId: kept.leaseId })).remainingMs).toBe(60_000);
  // Gauges have what is in its own database.
  if (!NAMES_ARE_SHARED) expect((await observer.call("daemon.stats", {})).leases).toEqual({ held: 3 });
  expect(await daemon.end()).toBe(0);
});

test("the daemon rests once a connection has closed on which several calls waited for one name", async () => {
  const daemon = await startDaemon();
  const holder = await daemon.place.connect();
  await acquire(holder, "held", { ttlMs: 3_600_000 });
  const waiter = await daemon.place.connect();
  for (let waits = 0; waits < 3; waits += 1) await startWaiting(waiter, "held");
  await waiter.destroy();
  let [used, restedLooks] = [0, 0];
  await until(() => {
    restedLooks = daemon.usedTicks === used ? restedLooks + 1 : 0;
    used = daemon.usedTicks;
    return restedLooks === RESTED_LOOKS;
  });
});

test("a daemon with --idle-exit stays as long as a lease is held", async () => {
  const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
  const client = await daemon.place.connect();
  const start = performance.now();
  await acquire(client, "work", { ttlMs: 1500 });
  await client.destroy();
  expect(await daemon.exited).toBe(0);
  expect(performance.now() - start).toBeGreaterThan(2500);
});
