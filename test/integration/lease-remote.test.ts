// Leases that a provider keeps, at the socket: two daemons with databases of their own, and a provider
// that fails when it is told to.
// Not over shared names: a provider keeps these names.
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Params } from "@pawl/protocol";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import type { AtEnd, DaemonProcess } from "../daemon.js";
import { Faulty } from "../faulty.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";

const OWNER = "test";

/** Two daemons on one provider, and a connection to each. */
async function two(atEnd: AtEnd) {
  const faulty = new Faulty(atEnd);
  const daemons = await Promise.all([faulty.start(), faulty.start()]);
  const [a, b] = (await Promise.all(daemons.map(({ place }) => place.connect()))) as [RawClient, RawClient];
  return { faulty, a, b, daemonA: daemons[0] as DaemonProcess, daemonB: daemons[1] as DaemonProcess };
}

/** The next notification to a client that gets no other lines. */
async function notified(client: RawClient): Promise<unknown> {
  return JSON.parse(await client.line());
}

function acquireRequest(params: Params<"lease.acquire">): object {
  return { jsonrpc: "2.0", id: "acquire", method: "lease.acquire", params };
}

test.concurrent("a lease is granted once over all daemons, and everybody may know of it but for its id", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER, ttlMs: 60_000, note: "4.2" });
  // A tenth of the ttl is kept back: its holder stops before another can begin.
  expect(lease.remainingMs).toBeLessThanOrEqual(54_000);
  expect(lease.remainingMs).toBeGreaterThan(40_000);
  expect(lease.expiresAt - lease.acquiredAt).toBe(lease.remainingMs);
  for (const client of [a, b]) {
    const { data } = await client.refusal("lease.acquire", { name, owner: OWNER });
    expect(data).toMatchObject({ kind: "lease_held", retryable: true, holder: { owner: OWNER } });
    const got = await client.call("lease.get", { name });
    expect(got.lease).toMatchObject({
      owner: OWNER,
      fencingToken: lease.fencingToken,
      note: "4.2",
      waiters: 0,
    });
    expect(JSON.stringify(got)).not.toContain(lease.leaseId);
    const { fencingToken } = lease;
    expect(await client.call("lease.check", { name, fencingToken })).toEqual({
      current: true,
      highest: fencingToken,
    });
    expect((await client.call("lease.check", { name, fencingToken: fencingToken + 1 })).current).toBe(false);
  }
  // Only the daemon that granted it knows the process.
  expect((await a.call("lease.get", { name })).lease?.pid).toBe(process.pid);
  expect((await b.call("lease.get", { name })).lease?.pid).toBe(null);
  expect((await a.call("lease.list", {})).leases.map((each) => each.name)).toEqual([name]);
  expect((await b.call("lease.list", {})).leases).toEqual([]);

  const renewed = await a.call("lease.heartbeat", { leaseId: lease.leaseId, ttlMs: 90_000 });
  expect(renewed.remainingMs).toBeGreaterThan(54_000);
  expect(renewed.remainingMs).toBeLessThanOrEqual(81_000);
  expect((await b.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  expect(await b.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: false });
  expect(await a.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
  expect(await a.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: false });
  expect((await a.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");

  const next = await b.call("lease.acquire", { name, owner: OWNER });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect((await a.call("lease.check", { name, fencingToken: lease.fencingToken })).current).toBe(false);
});

test.concurrent("a name that no pattern fits is kept here, and the first pattern that fits counts", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const daemon = await faulty
    .place()
    .start({ args: ["--lease-provider", "out/mine/*=local", ...faulty.args] });
  const client = await daemon.place.connect();
  expect((await client.call("daemon.info", {})).leaseProviders).toEqual([
    { pattern: "out/mine/*", kind: "local" },
    { pattern: "out/*", kind: "custom" },
  ]);
  for (const name of ["other", "out", "out/mine/a"]) {
    const { lease } = await client.call("lease.acquire", { name, owner: OWNER, ttlMs: 1000 });
    expect(lease.remainingMs, name).toBe(1000);
  }
  expect(faulty.calls).toEqual([]);
  await client.call("lease.acquire", { name: "out/a", owner: OWNER });
  expect(faulty.calls).toEqual(["acquire -"]);
});

test.concurrent("waiters are served in the order they came, over both daemons when it is released", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b, daemonA } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER });
  const served: string[] = [];
  const waits = ["first", "second"].map(async (owner) => {
    const client = await daemonA.place.connect();
    const asked = client.call("lease.acquire", { name, owner, waitMs: 60_000 });
    const granted = asked.then(async (result) => {
      served.push(owner);
      await client.call("lease.release", { leaseId: result.lease.leaseId });
      return result.lease.fencingToken;
    });
    await client.call("daemon.ping", {});
    return granted;
  });
  await until(async () => (await a.call("lease.get", { name })).lease?.waiters === 2);
  expect((await a.call("lease.list", {})).leases[0]?.waiters).toBe(2);
  const elsewhere = b
    .call("lease.acquire", { name, owner: "elsewhere", waitMs: 60_000 })
    .then(async (result) => {
      served.push("elsewhere");
      await b.call("lease.release", { leaseId: result.lease.leaseId });
      return result.lease.fencingToken;
    });
  // Nobody goes before those who wait.
  const { data } = await a.refusal("lease.acquire", { name, owner: "pushy" });
  expect(data).toMatchObject({ kind: "lease_held" });
  await a.call("lease.release", { leaseId: lease.leaseId });
  const tokens = await Promise.all([...waits, elsewhere]);
  expect(new Set(tokens).size).toBe(3);
  expect(served.indexOf("first")).toBeLessThan(served.indexOf("second"));
});

test.concurrent("a wait ends with its time, with its connection, and with the daemon", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b, daemonB } = await two(atEnd);
  const name = "out/release";
  await a.call("lease.acquire", { name, owner: "holder" });
  const { data } = await b.refusal("lease.acquire", { name, owner: OWNER, waitMs: 300 });
  expect(data).toMatchObject({ kind: "lease_held", holder: { owner: "holder" } });
  expect((data.holder as { remainingMs: number }).remainingMs).toBeGreaterThan(0);

  const gone = await daemonB.place.connect();
  gone.send(acquireRequest({ name, owner: "gone", waitMs: 60_000 }));
  await until(async () => (await b.call("lease.get", { name })).lease?.waiters === 1);
  await gone.destroy();
  await until(async () => (await b.call("lease.get", { name })).lease?.waiters === 0);

  const waits = b.refusal("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });
  const other = await daemonB.place.connect();
  await until(async () => (await other.call("lease.get", { name })).lease?.waiters === 1);
  const ended = daemonB.end();
  expect((await waits).data).toMatchObject({ kind: "unavailable", reason: "stopping" });
  expect(await ended).toBe(0);
});

test.concurrent("the graph shows those of this daemon who hold a name, and who wait for it", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b, daemonA } = await two(atEnd);
  const name = "out/graph";
  await a.call("lease.acquire", { name, owner: "holder", task: "one" });
  const waiter = await daemonA.place.connect();
  const params = { name, owner: "waiter", task: "two", waitMs: 60_000 };
  waiter.send({ jsonrpc: "2.0", id: "waits", method: "lease.acquire", params });
  await until(async () => (await a.call("lease.get", { name })).lease?.waiters === 1);
  const { nodes, edges } = await a.call("daemon.graph", { pid: process.pid });
  const lease = nodes.find((node) => node.kind === "lease");
  expect(lease).toMatchObject({ name });
  const told = edges.map(({ from, to, what, sinceMs }) => {
    const { owner, task } = nodes.find(({ id }) => id === from) as { owner?: string; task?: string };
    expect([to, Number.isInteger(sinceMs)]).toEqual([lease?.id, true]);
    return { owner, task, what };
  });
  expect(told).toEqual([
    { owner: "waiter", task: "two", what: "waits" },
    { owner: "holder", task: "one", what: "holds" },
  ]);
  // Another daemon knows nobody of this one.
  expect((await b.call("daemon.graph", {})).edges).toEqual([]);
  await waiter.destroy();
  await until(async () => (await a.call("daemon.graph", {})).edges.length === 1);
});

test.concurrent("a lease that ends with its connection is given back to the provider at once", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b, daemonA } = await two(atEnd);
  const name = "out/release";
  const holder = await daemonA.place.connect();
  const request = { name, owner: OWNER, ttlMs: 3_600_000, releaseOn: "disconnect" } as const;
  const { lease } = await holder.call("lease.acquire", request);
  const waits = b.call("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });
  await holder.destroy();
  expect((await waits).lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect((await a.call("lease.list", {})).leases).toEqual([]);
});

test.concurrent("a holder that cannot renew is told that it lost before another is granted the name", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, a, b } = await two(atEnd);
  const name = "out/release";
  const ttlMs = 2000;
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER, ttlMs });
  const told = notified(a).then(async (expiring) => {
    const lost = await notified(a);
    return { expiring, lost, at: performance.now() };
  });
  faulty.fault = "hang heartbeat";
  const begun = performance.now();
  const refused = await a.refusal("lease.heartbeat", { leaseId: lease.leaseId });
  // Not lost: nobody could have it yet. And it was tried for as long as it lasted.
  expect(refused.data).toMatchObject({ kind: "provider_unavailable", retryable: true });
  expect(performance.now() - begun).toBeGreaterThan(ttlMs / 4);
  const { lease: next } = await b.call("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });
  const grantedAt = performance.now();
  const { expiring, lost, at } = await told;
  expect(expiring).toMatchObject({ method: "lease.expiring", params: { name, leaseId: lease.leaseId } });
  expect(lost).toMatchObject({ method: "lease.lost", params: { leaseId: lease.leaseId, cause: "expired" } });
  expect(at).toBeLessThan(grantedAt);
  expect(next.fencingToken).toBeGreaterThan(lease.fencingToken);
  faulty.fault = undefined;
  expect((await a.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  expect((await b.call("lease.get", { name })).lease?.fencingToken).toBe(next.fencingToken);
});

test.concurrent("a renewal that fails for a while succeeds while the lease lasts", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, a } = await two(atEnd);
  const { lease } = await a.call("lease.acquire", { name: "out/release", owner: OWNER, ttlMs: 30_000 });
  faulty.fault = "fail heartbeat";
  const renewed = a.call("lease.heartbeat", { leaseId: lease.leaseId });
  await until(() => faulty.calls.filter((call) => call === "heartbeat fail").length >= 2);
  faulty.fault = undefined;
  expect((await renewed).remainingMs).toBeGreaterThan(20_000);
});

test.concurrent.for(["fail", "hang", "throw"])(
  "a provider that does not answer (%s) is neither lost nor free",
  async (fault, { onTestFinished: atEnd }) => {
    const { faulty, a, daemonA } = await two(atEnd);
    const { lease } = await a.call("lease.acquire", { name: "out/held", owner: OWNER, ttlMs: 30_000 });
    faulty.fault = fault;
    const fencingToken = lease.fencingToken;
    const refusals = await Promise.all([
      a.refusal("lease.acquire", { name: "out/other", owner: OWNER, ttlMs: 1000 }),
      a.refusal("lease.heartbeat", { leaseId: lease.leaseId }),
      a.refusal("lease.get", { name: "out/held" }),
      a.refusal("lease.check", { name: "out/held", fencingToken }),
      a.refusal("lease.break", { name: "out/other", reason: "test" }),
    ]);
    for (const { data, message } of refusals) {
      expect(data).toMatchObject({
        kind: "provider_unavailable",
        retryable: true,
        provider: "custom",
      });
      // The provider's own error stays in the log.
      expect(message).not.toContain("node:");
    }
    // Leases that it has, and answers by the record alone, go on.
    expect((await a.call("lease.list", {})).leases.map((each) => each.name)).toEqual(["out/held"]);
    expect(await a.call("sequence.next", { type: "FR" })).toMatchObject({ id: "FR-001" });
    // A method that throws is a defect of the provider, and says nothing of whether it can be reached.
    const said =
      fault === "throw"
        ? { level: "error", msg: "the lease provider failed" }
        : { level: "warn", msg: "the lease provider does not answer" };
    await daemonA.logged(({ level }) => level === said.level);
    const logged = daemonA.log.filter(({ level }) => level === "warn" || level === "error");
    expect(new Set(logged.map(({ msg }) => msg))).toEqual(new Set([said.msg]));
    if (fault !== "throw") expect(logged.length).toBe(1);
  },
);

test.concurrent("a lease that was granted with no answer is found again, or given back", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, a, b } = await two(atEnd);
  const name = "out/release";
  faulty.fault = "drop acquire";
  const asked = a.call("lease.acquire", { name, owner: OWNER, ttlMs: 3_600_000 });
  await until(() => faulty.calls.includes("acquire drop"));
  faulty.fault = undefined;
  const { lease } = await asked;
  expect((await b.call("lease.get", { name })).lease?.fencingToken).toBe(lease.fencingToken);
  // The first attempt had taken it: asking again gave the same.
  expect(faulty.calls.filter((call) => call === "acquire -").length).toBe(1);
  await a.call("lease.release", { leaseId: lease.leaseId });

  faulty.fault = "drop acquire";
  const { data } = await a.refusal("lease.acquire", { name, owner: OWNER, ttlMs: 3_600_000 });
  expect(data.kind).toBe("provider_unavailable");
  faulty.fault = undefined;
  // Nobody holds it, and the provider is told so without anybody asking.
  const { lease: last } = await b.call("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });
  expect(last.fencingToken).toBeGreaterThan(lease.fencingToken);
});

test.concurrent("a release with no answer is no success; asked again, it is", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, a, b } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER, ttlMs: 3_600_000 });
  faulty.fault = "fail release";
  const { data } = await a.refusal("lease.release", { leaseId: lease.leaseId });
  expect(data.kind).toBe("provider_unavailable");
  // It may have been released: so it is not held here any more, and not free there yet.
  expect((await a.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  expect((await a.call("lease.check", { name, fencingToken: lease.fencingToken })).current).toBe(false);
  expect((await b.refusal("lease.acquire", { name, owner: OWNER })).data.kind).toBe("lease_held");
  faulty.fault = undefined;
  await b.call("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });

  const { lease: second } = await a.call("lease.acquire", { name: "out/2", owner: OWNER });
  faulty.fault = "drop release";
  const released = a.call("lease.release", { leaseId: second.leaseId });
  await until(() => faulty.calls.includes("release drop"));
  faulty.fault = undefined;
  expect(await released).toEqual({ released: true });
});

test.concurrent("a token that does not rise is not handed out", async ({ onTestFinished: atEnd }) => {
  const { faulty, a, daemonA } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER });
  await a.call("lease.release", { leaseId: lease.leaseId });
  faulty.fault = "low acquire";
  const { data } = await a.refusal("lease.acquire", { name, owner: OWNER });
  expect(data).toMatchObject({ kind: "provider_unavailable" });
  const { level } = await daemonA.logged(({ msg }) => msg === "a lease provider breaks its rules");
  expect(level).toBe("error");
  faulty.fault = undefined;
  // And what the provider believes to have granted is given back.
  const next = await a.call("lease.acquire", { name, owner: OWNER, waitMs: 60_000 });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
});

test.concurrent("ended by force elsewhere, it is lost at the next renewal; here, at once", async ({
  onTestFinished: atEnd,
}) => {
  const { a, b, daemonB } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER });
  const told = notified(a);
  expect(await b.call("lease.break", { name, reason: "stuck" })).toEqual({ broken: true });
  await daemonB.logged(({ msg }) => msg === "lease broken");
  const next = await b.call("lease.acquire", { name, owner: OWNER });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect((await a.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  expect(await told).toMatchObject({
    method: "lease.lost",
    params: { leaseId: lease.leaseId, cause: "broken", reason: null },
  });

  const toldB = notified(b);
  const breaker = await daemonB.place.connect();
  expect(await breaker.call("lease.break", { name, reason: "stuck again" })).toEqual({ broken: true });
  expect(await toldB).toMatchObject({
    method: "lease.lost",
    params: { leaseId: next.lease.leaseId, cause: "broken", reason: "stuck again" },
  });
  expect(await breaker.call("lease.break", { name, reason: "nobody" })).toEqual({ broken: false });
});

test.concurrent("a provider keeps names that one holds alone, and a daemon says so of the rest", async ({
  onTestFinished: atEnd,
}) => {
  const { a } = await two(atEnd);
  const name = "out/alone";
  const refused = async (
    method: "lease.acquire" | "lease.configure" | "lease.break" | "lease.heartbeat",
    params: object,
    path: string,
  ): Promise<void> => {
    const { data } = await a.refusal(method, params as never);
    expect(data).toMatchObject({ kind: "invalid_params", issues: [{ path }] });
  };
  await refused("lease.acquire", { name, owner: OWNER, mode: "shared" }, "/mode");
  await refused("lease.acquire", { name, owner: OWNER, onLoss: {} }, "/onLoss");
  await refused("lease.acquire", { name, owner: OWNER, slots: 2 }, "/slots");
  await refused("lease.acquire", { names: ["here", name], owner: OWNER }, "/names");
  await refused("lease.configure", { name, slots: 2 }, "/name");
  const how = { slots: 1, releaseOn: "disconnect" as const, graceMs: 30_000 };
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER, ttlMs: 60_000, ...how });
  expect(lease).toMatchObject({ mode: "exclusive", slots: 1 });
  const shown = await a.call("lease.get", { name });
  expect(shown).toMatchObject({ holders: [shown.lease], slots: 1, free: 0 });
  await refused("lease.heartbeat", { leaseId: lease.leaseId, note: "x" }, "/note");
  await refused("lease.break", { name, reason: "x", fencingToken: lease.fencingToken }, "/fencingToken");
  const joint = { method: "lease.acquire", params: { names: ["here", name], owner: OWNER } };
  const { data } = await a.refusal("transact", { calls: [joint] as never });
  expect(data).toMatchObject({ kind: "invalid_params", index: 0 });
  await a.call("lease.release", { leaseId: lease.leaseId });
  expect(await a.call("lease.get", { name })).toEqual({ lease: null, holders: [], slots: 1, free: 1 });
});

test.concurrent("a provider that cannot end leases by force says so", async ({ onTestFinished: atEnd }) => {
  const daemon = await new Faulty(atEnd, { force: false }).start();
  const client = await daemon.place.connect();
  const { data, message } = await client.refusal("lease.break", { name: "out/a", reason: "stuck" });
  expect(data.kind).toBe("invalid_params");
  expect(message).toContain("cannot end leases by force");
});

test.concurrent("transact: guards go by the record; a call that would ask a provider is refused", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, a } = await two(atEnd);
  const name = "out/release";
  const { lease } = await a.call("lease.acquire", { name, owner: OWNER });
  const { leaseId, fencingToken } = lease;
  const guards = [{ lease: { name, fencingToken } }];
  const next = { method: "sequence.next", params: { type: "FR" } };
  const calls = faulty.calls.length;
  expect((await a.call("transact", { calls: [next], guards })).results).toMatchObject([{ seq: 1 }]);
  for (const [method, params] of [
    ["lease.heartbeat", { leaseId }],
    ["lease.release", { leaseId }],
    ["lease.get", { name }],
    ["lease.check", { name, fencingToken }],
    ["lease.break", { name, reason: "test" }],
    ["lease.acquire", { name, owner: OWNER }],
  ] as const) {
    const { data } = await a.refusal("transact", { calls: [next, { method, params }], guards });
    expect(data, method).toMatchObject({ kind: "invalid_params" });
    expect(data.issues, method).toMatchObject([{ path: "/calls/1/method" }]);
  }
  // Of names that are kept here, all of that may be part of it but waiting.
  const inside = await a.call("lease.acquire", { name: "inside", owner: OWNER });
  const { results } = await a.call("transact", {
    calls: [
      { method: "lease.list", params: {} },
      { method: "lease.heartbeat", params: { leaseId: inside.lease.leaseId } },
      { method: "lease.get", params: { name: "inside" } },
    ],
  });
  expect(results[0]).toMatchObject({ leases: [{ name: "inside" }, { name }] });
  expect(faulty.calls.length).toBe(calls);
  await a.call("lease.release", { leaseId });
  expect((await a.refusal("transact", { calls: [next], guards })).data.kind).toBe("lease_lost");
  expect((await a.call("sequence.peek", { type: "FR" })).seq).toBe(2);
});

test.concurrent("a lease that is held when the daemon is killed is held by the next one, until it ends by the machine's clock", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const first = await place.start({ args: faulty.args });
  const other = await (await faulty.start()).place.connect();
  const before = await place.connect();
  const ttlMs = 60_000;
  const { lease } = await before.call("lease.acquire", { name: "out/a", owner: OWNER, ttlMs });
  const { lease: second } = await before.call("lease.acquire", { name: "out/b", owner: OWNER, ttlMs });
  await first.end("SIGKILL");

  // The second is of another boot of the machine: then nobody is left who holds it.
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.prepare("UPDATE pawl_lease SET boot = 'another' WHERE name = 'out/b'").run();
  database.close();
  await place.start({ args: faulty.args });
  const after = await place.connect();
  expect((await after.call("lease.heartbeat", { leaseId: lease.leaseId })).remainingMs).toBeGreaterThan(
    30_000,
  );
  expect((await other.refusal("lease.acquire", { name: "out/a", owner: OWNER })).data.kind).toBe(
    "lease_held",
  );
  expect((await after.refusal("lease.heartbeat", { leaseId: second.leaseId })).data.kind).toBe("lease_lost");
  const taken = await other.call("lease.acquire", { name: "out/b", owner: OWNER, waitMs: 60_000 });
  expect(taken.lease.fencingToken).toBeGreaterThan(second.fencingToken);
});

test.concurrent("a lease that ended by the clock of the boot while the daemon was down stays lost, whatever other clocks say", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const first = await place.start({ args: faulty.args });
  const before = await place.connect();
  const { lease } = await before.call("lease.acquire", { name: "out/a", owner: OWNER, ttlMs: 3_600_000 });
  await first.end("SIGKILL");
  const database = new Database(join(place.stateDir, "pawl.db"));
  // By the others there is an hour left.
  database.prepare("UPDATE pawl_lease SET ends_boottime_ms = 1").run();
  database.close();
  await place.start({ args: faulty.args });
  const after = await place.connect();
  expect((await after.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  const next = await after.call("lease.acquire", { name: "out/a", owner: OWNER, waitMs: 60_000 });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
});

test.concurrent("a lease that was being asked for when the daemon was killed is given back by the next one", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const first = await place.start({ args: faulty.args });
  const other = await (await faulty.start()).place.connect();
  const client = await place.connect();
  faulty.fault = "drop acquire";
  client.send(acquireRequest({ name: "out/a", owner: "orphan", ttlMs: 3_600_000, waitMs: 60_000 }));
  await until(async () => await held(other));
  await first.end("SIGKILL");
  faulty.fault = undefined;
  expect((await other.refusal("lease.acquire", { name: "out/a", owner: OWNER })).data.kind).toBe(
    "lease_held",
  );
  await place.start({ args: faulty.args });
  await other.call("lease.acquire", { name: "out/a", owner: OWNER, waitMs: 60_000 });

  async function held(through: RawClient): Promise<boolean> {
    return (await through.call("lease.get", { name: "out/a" })).lease !== null;
  }
});

test.concurrent("a lease of a provider that is not configured any more is neither renewed nor given to another here", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const first = await place.start({ args: faulty.args });
  const before = await place.connect();
  const { lease } = await before.call("lease.acquire", { name: "out/a", owner: OWNER, ttlMs: 60_000 });
  await first.end();
  const second = await place.start();
  const after = await place.connect();
  for (const method of ["lease.heartbeat", "lease.release"] as const) {
    expect((await after.refusal(method, { leaseId: lease.leaseId })).data).toMatchObject({
      kind: "provider_unavailable",
      provider: "custom",
      reason: "not_configured",
    });
  }
  const { data } = await after.refusal("lease.break", { name: "out/a", reason: "test" });
  expect(data.kind).toBe("provider_unavailable");
  expect((await after.refusal("lease.acquire", { name: "out/a", owner: OWNER })).data.kind).toBe(
    "lease_held",
  );
  await second.end();
  await place.start({ args: faulty.args });
  const last = await place.connect();
  expect(await last.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
});

test.concurrent("a daemon that only reads asks the provider for what it reads", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const writer = await faulty.start();
  const client = await writer.place.connect();
  const { lease } = await client.call("lease.acquire", { name: "out/a", owner: OWNER });
  const reader = faulty.place();
  const directory = writer.place.stateDir;
  await reader.start({ args: [...faulty.args, "--state-dir", directory, "--read-only"] });
  const reading = await reader.connect();
  const { fencingToken } = lease;
  expect((await reading.call("lease.get", { name: "out/a" })).lease).toMatchObject({
    fencingToken,
    waiters: null,
  });
  expect((await reading.call("lease.check", { name: "out/a", fencingToken })).current).toBe(true);
  expect((await reading.refusal("lease.acquire", { name: "out/a", owner: OWNER })).data.kind).toBe(
    "read_only",
  );
  await reading.destroy();
});
