// Leases that are shared, counted, or of several names, at the socket.
import type { Params } from "@pawl/protocol";
import type { Lease } from "@pawl/protocol/types";
import { describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place, sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

type Request = Omit<Params<"lease.acquire">, "owner" | "name" | "names">;

const daemon = sharedDaemon();
const connect = (): Promise<RawClient> => daemon().place.connect();

async function acquire(client: RawClient, name: string, how: Request = {}): Promise<Lease> {
  return (await client.call("lease.acquire", { name, owner: "test", ...how })).lease;
}

async function acquireAll(client: RawClient, names: string[], how: Request = {}): Promise<Lease[]> {
  return (await client.call("lease.acquire", { names, owner: "test", ...how })).leases;
}

/** Begins to wait, and returns once the daemon has taken that up. */
async function waitFor(
  client: RawClient,
  names: string[],
  how: Request = {},
): Promise<{ granted: Promise<Lease[]>; isGranted: () => Promise<boolean> }> {
  let done = false;
  const granted = acquireAll(client, names, { waitMs: 60_000, ...how });
  granted.then(
    () => {
      done = true;
    },
    () => {},
  );
  await client.call("daemon.ping", {});
  const isGranted = async (): Promise<boolean> => {
    await client.call("daemon.ping", {});
    return done;
  };
  return { granted, isGranted };
}

const release = async (client: RawClient, ...leases: (Lease | undefined)[]): Promise<void> => {
  for (const lease of leases) await client.call("lease.release", { leaseId: (lease as Lease).leaseId });
};

describe("a shared name", () => {
  test("has any number of holders, each with a token, and no exclusive one beside them", async () => {
    const client = await connect();
    const first = await acquire(client, "s", { mode: "shared" });
    const second = await acquire(client, "s", { mode: "shared", note: "reads" });
    expect([first, second]).toMatchObject([
      { mode: "shared", slots: 1, fencingToken: 1 },
      { mode: "shared", slots: 1, fencingToken: 2 },
    ]);
    const { lease, holders, slots, free } = await client.call("lease.get", { name: "s" });
    expect([slots, free]).toEqual([1, 0]);
    expect(lease).toEqual(holders[0]);
    expect(holders).toMatchObject([
      { fencingToken: 1, mode: "shared", note: null },
      { fencingToken: 2, mode: "shared", note: "reads" },
    ]);
    for (const fencingToken of [1, 2]) {
      expect(await client.call("lease.check", { name: "s", fencingToken })).toEqual({
        current: true,
        highest: 2,
      });
    }
    const refused = expectRefusal(
      await client.refusal("lease.acquire", { name: "s", owner: "w" }),
      "lease_held",
    );
    expect(refused.data.holders).toHaveLength(2);
    await release(client, first, second);
    await acquire(client, "s");
    expectRefusal(
      await client.refusal("lease.acquire", { name: "s", owner: "r", mode: "shared" }),
      "lease_held",
    );
  });

  test("is not given to later readers while a writer waits, and to all of them after it", async () => {
    const [client, others] = [await connect(), await connect()];
    const reader = await acquire(client, "rw", { mode: "shared" });
    const writer = await waitFor(others, ["rw"]);
    const later = [
      await waitFor(others, ["rw"], { mode: "shared" }),
      await waitFor(others, ["rw"], { mode: "shared" }),
    ];
    expectRefusal(
      await client.refusal("lease.acquire", { name: "rw", owner: "r", mode: "shared" }),
      "lease_held",
    );
    expect((await client.call("lease.get", { name: "rw" })).lease?.waiters).toBe(3);
    await release(client, reader);
    const [written] = await writer.granted;
    expect(await later[0]?.isGranted()).toBe(false);
    await release(client, written);
    const tokens = await Promise.all(later.map(async ({ granted }) => (await granted)[0]?.fencingToken));
    expect(tokens).toEqual([3, 4]);
  });

  test("many refusals name sixteen holders, and get two hundred and fifty-six", async () => {
    const client = await connect();
    await Promise.all(Array.from({ length: 300 }, () => acquire(client, "crowd", { mode: "shared" })));
    const refused = expectRefusal(
      await client.refusal("lease.acquire", { name: "crowd", owner: "w" }),
      "lease_held",
    );
    expect(refused.data.holders).toHaveLength(16);
    expect((await client.call("lease.get", { name: "crowd" })).holders).toHaveLength(256);
    const tokens: number[] = [];
    for (let after: string | undefined; ; ) {
      const page = await client.call("lease.list", { prefix: "crow", limit: 99, ...(after && { after }) });
      tokens.push(...page.leases.map(({ fencingToken }) => fencingToken));
      after = page.next;
      if (after === undefined) break;
    }
    expect(tokens).toEqual(Array.from({ length: 300 }, (_, index) => index + 1));
    expect(await client.call("lease.break", { name: "crowd", reason: "over" })).toEqual({ broken: true });
    expect(await client.call("lease.get", { name: "crowd" })).toMatchObject({ lease: null, free: 1 });
  });
});

describe("a name with slots", () => {
  test("is held by as many as it has, or by one that takes them all; more than there is is refused", async () => {
    const client = await connect();
    expect(await client.call("lease.configure", { name: "gpu", slots: 4 })).toEqual({
      name: "gpu",
      slots: 4,
    });
    const one = await acquire(client, "gpu");
    const two = await acquire(client, "gpu", { slots: 2 });
    expect(await client.call("lease.get", { name: "gpu" })).toMatchObject({ slots: 4, free: 1 });
    expectRefusal(await client.refusal("lease.acquire", { name: "gpu", owner: "x", slots: 2 }), "lease_held");
    const more = expectRefusal(
      await client.refusal("lease.acquire", { name: "gpu", owner: "x", slots: 5 }),
      "invalid_params",
    );
    expect(more.data.issues).toEqual([{ path: "/slots", message: 'is 5, and "gpu" has 4 slots' }]);
    const last = await acquire(client, "gpu");
    await release(client, one, two, last);
    expect(await acquire(client, "gpu", { slots: 4 })).toMatchObject({ slots: 4, fencingToken: 4 });
    expectRefusal(await client.refusal("lease.acquire", { name: "gpu", owner: "x" }), "lease_held");
  });

  test("those who want much do not starve, and whoever came first leaves room for the next when it gives up", async () => {
    const [client, others] = [await connect(), await connect()];
    await client.call("lease.configure", { name: "much", slots: 3 });
    const held = await acquire(client, "much");
    const much = waitFor(others, ["much"], { slots: 3, waitMs: 200 });
    const { granted } = await much;
    granted.catch(() => {});
    const little = await waitFor(others, ["much"]);
    expect(await little.isGranted()).toBe(false);
    await expect(granted).rejects.toThrow();
    expect((await little.granted)[0]?.fencingToken).toBe(2);
    await release(client, held);
  });

  test("fewer slots take nothing back, more are given out at once", async () => {
    const [client, others] = [await connect(), await connect()];
    await client.call("lease.configure", { name: "shrinks", slots: 2 });
    const held = [await acquire(client, "shrinks"), await acquire(client, "shrinks")];
    await client.call("lease.configure", { name: "shrinks", slots: 1 });
    const waiter = await waitFor(others, ["shrinks"]);
    expect(await client.call("lease.get", { name: "shrinks" })).toMatchObject({ slots: 1, free: 0 });
    await release(client, held[0]);
    expect(await waiter.isGranted()).toBe(false);
    await client.call("lease.configure", { name: "shrinks", slots: 2 });
    await waiter.granted;
    expect(await client.call("lease.configure", { name: "shrinks" })).toEqual({ name: "shrinks", slots: 2 });
  });

  test("a pool gives each holder members of its own", async () => {
    const client = await connect();
    const members = ["4001", "4002", "4003"];
    expect(await client.call("lease.configure", { name: "port", members })).toEqual({
      name: "port",
      slots: 3,
      members,
    });
    const first = await acquire(client, "port");
    const others = await acquire(client, "port", { slots: 2 });
    expect([first.members, others.members]).toEqual([["4001"], ["4002", "4003"]]);
    expect((await client.call("lease.get", { name: "port" })).holders).toMatchObject([
      { members: ["4001"] },
      { members: ["4002", "4003"], slots: 2 },
    ]);
    await release(client, first);
    expect((await acquire(client, "port")).members).toEqual(["4001"]);
    await release(client, others);
    await client.call("lease.configure", { name: "port", members: ["4003", "4001", "4009"] });
    expect((await acquire(client, "port", { slots: 2 })).members).toEqual(["4003", "4009"]);
  });

  test("a label of a pool is given as it is, from wherever in a long pool it is the first that is free", async () => {
    const client = await connect();
    const odd = ['a "quoted" one', "back\\slash", "é, [1]", "~"];
    await client.call("lease.configure", { name: "odd", members: odd });
    expect((await acquire(client, "odd")).members).toEqual(odd.slice(0, 1));
    expect((await acquire(client, "odd", { slots: 3 })).members).toEqual(odd.slice(1));
    const members = Array.from({ length: 4096 }, (_, index) => String(index).padEnd(100));
    await client.call("lease.configure", { name: "long", members });
    expect(await client.call("lease.configure", { name: "long" })).toEqual({
      name: "long",
      slots: 4096,
      members,
    });
    const first = await acquire(client, "long");
    expect((await acquire(client, "long", { slots: 4000 })).members).toEqual(members.slice(1, 4001));
    await release(client, first);
    expect((await acquire(client, "long", { slots: 96 })).members).toEqual([
      members[0],
      ...members.slice(4001),
    ]);
    await client.call("lease.configure", { name: "long", members: ["one"] });
    expect(await client.call("lease.configure", { name: "long" })).toMatchObject({
      slots: 1,
      members: ["one"],
    });
    await client.call("lease.configure", { name: "one", members: ["one"] });
    expect((await acquire(client, "one")).members).toEqual(["one"]);
    await client.call("lease.configure", { name: "one", slots: 1 });
    expect(await client.call("lease.configure", { name: "one" })).toEqual({ name: "one", slots: 1 });
  });

  test("long pools are leased together, up to as many members as one may have", async () => {
    const client = await connect();
    const members = Array.from({ length: 4096 }, (_, index) => String(index).padEnd(100));
    const names = ["long-a", "long-b", "long-c"];
    for (const name of names) await client.call("lease.configure", { name, members });
    const together = { owner: "o", names, slots: 1365 };
    const { leases } = await client.call("lease.acquire", together);
    expect(leases.map((lease) => lease.members)).toEqual(names.map(() => members.slice(0, 1365)));
    await expect(client.call("lease.acquire", { ...together, slots: 1366 })).rejects.toMatchObject({
      kind: "invalid_params",
      error: { data: { issues: [{ path: "/names" }] } },
    });
    // Slots without members are no more than a number.
    const counted = ["counted-a", "counted-b"];
    for (const name of counted) await client.call("lease.configure", { name, slots: 4096 });
    const both = await client.call("lease.acquire", { owner: "o", names: counted, slots: 4096 });
    expect(both.leases).toMatchObject([{ slots: 4096 }, { slots: 4096 }]);
  });
});

describe("several names", () => {
  test("are granted all or none, renewed, lost and released together", async () => {
    const [client, other] = [await connect(), await connect()];
    const b = await acquire(other, "j/b");
    const refused = expectRefusal(
      await client.refusal("lease.acquire", { names: ["j/a", "j/b"], owner: "x" }),
      "lease_held",
    );
    expect(refused.data).toMatchObject({ name: "j/b", holder: { owner: "test" } });
    await release(other, b);
    const [first, second] = (await acquireAll(client, ["j/b", "j/a"], { ttlMs: 60_000 })) as [Lease, Lease];
    expect([first.name, second.name]).toEqual(["j/b", "j/a"]);
    expect([first.fencingToken, second.fencingToken]).toEqual([2, 1]);
    expect(second.leaseId).toBe(first.leaseId);
    await client.call("lease.heartbeat", { leaseId: first.leaseId, ttlMs: 90_000, note: "goes on" });
    for (const name of ["j/a", "j/b"]) {
      const { lease } = await client.call("lease.get", { name });
      expect(lease?.remainingMs).toBeGreaterThan(80_000);
      expect(lease?.note).toBe("goes on");
    }
    expect(await other.call("lease.break", { name: "j/a", reason: "why", fencingToken: 2 })).toEqual({
      broken: false,
    });
    expect(await other.call("lease.break", { name: "j/a", reason: "why", fencingToken: 1 })).toEqual({
      broken: true,
    });
    const lost = [await client.reply(), await client.reply()].map(
      (each) => (each as unknown as { params: object }).params,
    );
    expect(lost).toMatchObject([
      { name: "j/a", fencingToken: 1, cause: "broken", reason: "why" },
      { name: "j/b", fencingToken: 2, cause: "broken", reason: "why" },
    ]);
    expectRefusal(await client.refusal("lease.heartbeat", { leaseId: first.leaseId }), "lease_lost");
    const again = await acquireAll(client, ["j/a", "j/b"]);
    expect(await client.call("lease.release", { leaseId: again[0]?.leaseId as string })).toEqual({
      released: true,
    });
    expect((await client.call("lease.list", { prefix: "j/" })).leases).toEqual([]);
  });

  test("wait in the order of arrival as far as they overlap, and no further", async () => {
    const [client, others] = [await connect(), await connect()];
    const [a, c] = [await acquire(client, "o/a"), await acquire(client, "o/c")];
    const joint = await waitFor(others, ["o/a", "o/b"]);
    const behind = await waitFor(others, ["o/b"]);
    const free = await waitFor(others, ["o/d"]);
    const [d] = await free.granted;
    // Free, and yet wanted by one who came before.
    const refused = expectRefusal(
      await client.refusal("lease.acquire", { name: "o/b", owner: "x" }),
      "lease_held",
    );
    expect(refused.data).toMatchObject({ holders: [], holder: { owner: "those who wait for it" } });
    const other = await waitFor(others, ["o/c", "o/d"]);
    await release(client, d, c);
    await other.granted;
    expect(await behind.isGranted()).toBe(false);
    await release(client, a);
    const granted = await joint.granted;
    expect(await behind.isGranted()).toBe(false);
    await release(client, granted[0]);
    await behind.granted;
  });

  test("whoever gives up, or closes, lets those behind it through", async () => {
    const [client, others, closing] = [await connect(), await connect(), await connect()];
    await acquire(client, "g/a");
    const closed = await waitFor(closing, ["g/a", "g/b"]);
    closed.granted.catch(() => {});
    const first = await waitFor(others, ["g/b"]);
    await closing.destroy();
    const [b] = await first.granted;
    await release(others, b);

    const params = { names: ["g/a", "g/b"], owner: "x", waitMs: 60_000 };
    others.send({ jsonrpc: "2.0", id: "joint", method: "lease.acquire", params });
    const second = await waitFor(client, ["g/b"]);
    expect(await others.call("rpc.cancel", { id: "joint" })).toEqual({ cancelled: true });
    await release(client, (await second.granted)[0]);

    const late = await waitFor(others, ["g/a", "g/b"], { waitMs: 100 });
    const third = await waitFor(client, ["g/b"]);
    await expect(late.granted).rejects.toThrow();
    await third.granted;
  });

  test("those that share a name do not hold each other up", async () => {
    const [client, others] = [await connect(), await connect()];
    const held = await acquire(client, "h/x");
    const joint = await waitFor(others, ["h/x", "h/s"], { mode: "shared" });
    await acquire(client, "h/s", { mode: "shared" });
    expect(await joint.isGranted()).toBe(false);
    await release(client, held);
    await joint.granted;
  });

  test("end together with their connection, and with their time", async () => {
    const [holder, client] = [await connect(), await connect()];
    await acquireAll(holder, ["e/a", "e/b"], { ttlMs: 60_000, releaseOn: "disconnect" });
    await acquireAll(holder, ["e/c", "e/d"], { ttlMs: 200 });
    const first = await waitFor(client, ["e/a", "e/b"]);
    const second = await waitFor(client, ["e/d", "e/c"]);
    await holder.destroy();
    await Promise.all([first.granted, second.granted]);
  });
});

describe("a holder that may come back", () => {
  test("keeps its lease for that time after its connection has closed, and is bound to the next", async () => {
    const [holder, client] = [await connect(), await connect()];
    const how = { ttlMs: 60_000, releaseOn: "disconnect" as const, graceMs: 30_000 };
    const [lease] = await acquireAll(holder, ["back/a", "back/b"], how);
    const quick = await acquire(holder, "back/quick", { ...how, graceMs: 100 });
    const waiter = await waitFor(client, ["back/quick"]);
    await holder.destroy();
    expect((await waiter.granted)[0]?.fencingToken).toBe(quick.fencingToken + 1);
    const shown = await client.call("lease.get", { name: "back/a" });
    expect(shown.lease?.remainingMs).toBeLessThanOrEqual(30_000);
    const again = await connect();
    const { leaseId } = lease as Lease;
    expect((await again.call("lease.heartbeat", { leaseId })).remainingMs).toBe(60_000);
    await again.destroy();
    // Bound to the connection that renewed it, it has that time anew when that one closes.
    await until(async () => {
      const { lease: left } = await client.call("lease.get", { name: "back/b" });
      return (left as NonNullable<typeof left>).remainingMs <= 30_000;
    });
    expect(await client.call("lease.release", { leaseId })).toEqual({ released: true });
  });
});

test.each<[string, object, string]>([
  ["both", { name: "n", names: ["n"] }, "must have either `name` or `names`"],
  ["neither", {}, "must have either `name` or `names`"],
  ["one name twice", { names: ["n", "n"] }, "must not hold the same name twice"],
  ["slots of a shared name", { name: "n", mode: "shared", slots: 1 }, "is for exclusive leases"],
  ["a grace without a connection", { name: "n", graceMs: 1 }, "is for grants with `releaseOn: disconnect`"],
  ["more slots than there are", { names: ["n", "m"], slots: 2 }, "has one slot"],
  ["no slot", { name: "n", slots: 0 }, "/slots"],
  ["65 names", { names: Array.from({ length: 65 }, (_, index) => `n${index}`) }, "/names"],
  ["161 characters", { name: "n".repeat(161) }, "/name"],
])("%s is refused", async (_, params, says) => {
  const client = await connect();
  const refused = expectRefusal(
    await client.refusal("lease.acquire", { owner: "x", ...params } as never),
    "invalid_params",
  );
  expect(JSON.stringify(refused)).toContain(says);
});

test("a name may have 160 characters", async () => {
  const client = await connect();
  const { name, leaseId } = await acquire(client, "🔒".repeat(80));
  expect((await client.call("lease.list", { prefix: name })).leases).toHaveLength(1);
  await client.call("lease.release", { leaseId });
});

test("a transaction takes several names, is guarded by any of their tokens, and a try takes none", async () => {
  const client = await connect();
  const params = { names: ["t/a", "t/b"], owner: "x", mode: "shared" };
  const calls = [{ method: "lease.acquire", params }] as never;
  const tried = await client.call("transact", { calls, dryRun: true });
  expect(tried.results).toMatchObject([{ leases: [{ leaseId: "dry-run" }, { leaseId: "dry-run" }] }]);
  expect((await client.call("lease.list", { prefix: "t/" })).leases).toEqual([]);
  const { results } = await client.call("transact", { calls });
  const [{ leases }] = results as unknown as [{ leases: Lease[] }];
  const guard = ({ name, fencingToken }: Lease) => ({ lease: { name, fencingToken } });
  const beside = await acquire(client, "t/a", { mode: "shared" });
  const ping = { method: "sequence.peek", params: { type: "FR" } };
  await client.call("transact", { calls: [ping] as never, guards: [...leases, beside].map(guard) });
  await release(client, leases[1]);
  const lost = await client.refusal("transact", { calls: [ping] as never, guards: leases.map(guard) });
  expect(expectRefusal(lost, "lease_lost").data.guard).toBe(0);
});

test("what a restart finds is held as it was", async () => {
  const place = new Place();
  const before = await place.start();
  const client = await place.connect();
  await client.call("lease.configure", { name: "r/pool", members: ["x", "y"] });
  const pooled = await acquire(client, "r/pool", { ttlMs: 60_000 });
  const joint = await acquireAll(client, ["r/a", "r/b"], { ttlMs: 60_000, releaseOn: "disconnect" });
  const shared = await acquire(client, "r/s", { ttlMs: 60_000, mode: "shared" });
  await before.end("SIGKILL");
  await place.start();
  const after = await place.connect();
  for (const { name, fencingToken } of [pooled, ...joint, shared]) {
    expect((await after.call("lease.check", { name, fencingToken })).current).toBe(true);
  }
  await after.call("lease.heartbeat", { leaseId: joint[1]?.leaseId as string });
  expect((await acquire(after, "r/pool")).members).toEqual(["y"]);
  await acquire(after, "r/s", { mode: "shared" });
  // Gauges have what is in its own database.
  if (!NAMES_ARE_SHARED) expect((await after.call("daemon.stats", {})).leases).toEqual({ held: 6 });
  await after.destroy();
  const next = await place.connect();
  await acquireAll(next, ["r/b", "r/a"], { waitMs: 10_000 });
});
