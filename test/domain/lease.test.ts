// What leases take of the database: no more statements for shared, counted and joint ones than each of these needs, and
// none for a name that one holds alone; many holders are ended in steps.
import { expect, test } from "vitest";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

/** The words with which the statements of each operation begin. */
function recording(): { pawl: InProcess; statements: () => string[] } {
  let made: string[] = [];
  function* recorded<T>(operation: Operation<T>): Operation<T> {
    let step = operation.next();
    while (!step.done) {
      made.push(/^\s*(\w+)/.exec(step.value.statement.sql)?.[1] ?? "");
      step = operation.next(yield step.value);
    }
    return step.value;
  }
  const wrap = (store: Store): Store =>
    new Proxy(store, {
      get(target, name: keyof Store) {
        if (name === "perform") return <T>(operation: Operation<T>) => target.perform(recorded(operation));
        const member = target[name];
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  const pawl = new InProcess({ wrap, time: new Clocks() });
  return {
    pawl,
    statements() {
      const before = made;
      made = [];
      return before;
    },
  };
}

test("a lease that one holds alone is read and written once", async () => {
  const { pawl, statements } = recording();
  await pawl.call("lease.acquire", { name: "before", owner: "o" });
  statements();
  const { lease } = await pawl.call("lease.acquire", { name: "n", owner: "o" });
  // The holders, the token, the lease.
  expect(statements()).toEqual(["SELECT", "INSERT", "INSERT"]);
  await pawl.call("lease.heartbeat", { leaseId: lease.leaseId });
  expect(statements()).toEqual(["SELECT", "UPDATE"]);
  await pawl.call("lease.acquire", { name: "n", owner: "o" }).catch(() => {});
  expect(statements()).toEqual(["SELECT"]);
  await pawl.call("lease.release", { leaseId: lease.leaseId });
  expect(statements()).toEqual(["SELECT", "DELETE"]);
});

test("a lease of a long pool reads some of its members, and writes none anew", async () => {
  const { pawl, statements } = recording();
  const members = Array.from({ length: 4096 }, (_, index) => `member ${index}`);
  await pawl.call("lease.configure", { name: "n", members });
  statements();
  expect((await pawl.call("lease.acquire", { name: "n", owner: "o" })).lease.members).toEqual(["member 0"]);
  // The holders, the token, the first of the pool, the members that are taken, the lease.
  expect(statements()).toEqual(["SELECT", "INSERT", "SELECT", "SELECT", "INSERT"]);
  await pawl.call("lease.acquire", { name: "n", owner: "o", slots: 63 });
  statements();
  expect((await pawl.call("lease.acquire", { name: "n", owner: "o" })).lease.members).toEqual(["member 64"]);
  // The next part of the pool besides, and how many slots are taken.
  expect(statements()).toEqual(["SELECT", "SELECT", "INSERT", "SELECT", "SELECT", "SELECT", "INSERT"]);
});

test("many names that come free together have each who wants all of them tried once, not for each name", async () => {
  const { pawl, statements } = recording();
  const names = Array.from({ length: 64 }, (_, index) => `n${index}`);
  const acquire = (owner: string, connection: number) =>
    pawl.call("lease.acquire", { names, owner, task: owner, waitMs: 60_000 }, connection);
  const { leases } = await acquire("first", 1);
  const next = acquire("second", 2);
  for (let connection = 3; connection < 10; connection += 1) {
    acquire(`later ${connection}`, connection).catch(() => {});
  }
  await pawl.call("daemon.ping", {}, 1);
  statements();
  await pawl.call("lease.release", { leaseId: leases[0]?.leaseId as string }, 1);
  expect((await next).leases.map(({ fencingToken }) => fencingToken)).toEqual(names.map(() => 2));
  // Each name is freed and granted, and looked at for the one that is tried in vain behind.
  expect(statements().length).toBeLessThan(10 * names.length);
});

test("the graph of many that wait for many names shows some thousand of what they need, and each that waits", async () => {
  const { pawl } = recording();
  const names = Array.from({ length: 64 }, (_, index) => `n${index}`);
  const acquire = (task: string) =>
    pawl.call("lease.acquire", { names, owner: "o", task, waitMs: 60_000 }).catch(() => {});
  await acquire("holder");
  for (let index = 0; index < 100; index += 1) void acquire(`waiter ${index}`);
  const { edges, more } = await pawl.call("daemon.graph", {});
  expect(more).toBe(true);
  const waits = edges.filter(({ what }) => what === "waits");
  expect(new Set(waits.map(({ from }) => from)).size).toBe(100);
  expect(waits.length).toBe(64 * 64 + 36);
});

test("whoever is granted a name while all its holders are ended by force keeps it", async () => {
  const { pawl } = recording();
  const acquire = () => pawl.call("lease.acquire", { name: "n", owner: "o", mode: "shared" });
  await Promise.all(Array.from({ length: 450 }, acquire));
  const breaking = pawl.call("lease.break", { name: "n", reason: "over" });
  const meanwhile = pawl.call("lease.acquire", { name: "n", owner: "o", mode: "shared" }, 2);
  expect(await breaking).toEqual({ broken: true });
  const { lease } = await meanwhile;
  const { holders } = await pawl.call("lease.get", { name: "n" });
  expect(holders.map(({ fencingToken }) => fencingToken)).toEqual([lease.fencingToken]);
  expect(pawl.notified.filter(({ method }) => method === "lease.lost")).toHaveLength(450);
});

test("a transaction ends two hundred holders by force, and says that there are more", async () => {
  const { pawl } = recording();
  const shared = { name: "n", owner: "o", mode: "shared" } as const;
  await Promise.all(Array.from({ length: 201 }, () => pawl.call("lease.acquire", shared)));
  const calls = [{ method: "lease.break", params: { name: "n", reason: "over" } }] as never;
  expect((await pawl.call("transact", { calls })).results).toEqual([{ broken: true, more: true }]);
  expect((await pawl.call("transact", { calls })).results).toEqual([{ broken: true }]);
  expect((await pawl.call("transact", { calls })).results).toEqual([{ broken: false }]);
});

test("leases that end at the same time are told of by their names, whatever the order of their rows", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const names = ["a", "b", "c", "d", "e", "f"];
  for (const name of [...names].reverse())
    await pawl.call("lease.acquire", { name, owner: "o", ttlMs: 3000 });
  const told = (of: string): unknown[] =>
    pawl.notified
      .filter(({ method }) => method === of)
      .map(({ params }) => (params as { name: string }).name);
  for (const [passMs, method] of [
    [2500, "lease.expiring"],
    [500, "lease.lost"],
  ] as const) {
    time.pass(passMs);
    await pawl.call("lease.get", { name: "a" });
    expect(told(method)).toEqual(names);
  }
});
