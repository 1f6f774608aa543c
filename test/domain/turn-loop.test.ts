// What turns owe to time: expiry, steps of the clock and the time that the database keeps.
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { InProcess } from "../in-process.js";

const START = 1_700_000_000_000;
const HOUR_MS = 3_600_000;

/** Two clocks that a test moves. */
class Clocks implements TimeSource {
  #wall = START;
  #monotonic = 0;
  wall = (): number => this.#wall;
  monotonic = (): number => this.#monotonic;
  pass(ms: number): void {
    this.#wall += ms;
    this.#monotonic += ms;
  }
  step(ms: number): void {
    this.#wall += ms;
  }
}

/** How far ahead of the time the store keeps it. */
const TIME_AHEAD_MS = 100;

function keptTime(path: string): number {
  const database = new Database(path, { readonly: true });
  const value = database.prepare("SELECT value FROM pawl_meta WHERE key = 'high_water_mark'").pluck().get();
  database.close();
  return Number(value);
}

test("while a lease is held, the time is kept in the database, so a crash turns it back by little", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("lease.acquire", { name: "a", owner: "a", ttlMs: HOUR_MS });
  for (let passed = 0; passed < 10; passed += 1) {
    time.pass(60_000);
    // Only reads.
    await pawl.call("sequence.state", {});
    expect(keptTime(pawl.path)).toBe(time.wall() + TIME_AHEAD_MS);
  }
  const { lease } = await pawl.call("lease.get", { name: "a" });
  expect(lease?.remainingMs).toBe(HOUR_MS - 600_000);
  pawl.crash();

  time.step(-HOUR_MS);
  const after = new InProcess({ path: pawl.path, time });
  const remainingMs = HOUR_MS - 600_000 - TIME_AHEAD_MS;
  expect((await after.call("lease.get", { name: "a" })).lease?.remainingMs).toBe(remainingMs);
  after.close();
  expect(keptTime(pawl.path)).toBe(time.wall() + HOUR_MS + TIME_AHEAD_MS);
});

test("the time is written before it passes what was written, not with each commit", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const next = () => pawl.call("sequence.next", { type: "FR" });
  await next();
  time.pass(TIME_AHEAD_MS);
  await next();
  expect(keptTime(pawl.path)).toBe(START + TIME_AHEAD_MS);
  time.pass(1);
  await next();
  expect(keptTime(pawl.path)).toBe(time.wall() + TIME_AHEAD_MS);
});

test("with nothing granted, reads do not write", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("sequence.next", { type: "FR" });
  time.pass(HOUR_MS);
  await pawl.call("sequence.state", {});
  expect(keptTime(pawl.path)).toBe(START + TIME_AHEAD_MS);
});

test("a step forward that cannot be written is not followed until it can, and ends no lease", async () => {
  const time = new Clocks();
  let failing = false;
  const pawl = new InProcess({
    time,
    wrap: (store) =>
      new Proxy(store, {
        get: (target, name: keyof Store) => {
          if (name !== "commit")
            return typeof target[name] === "function" ? target[name].bind(target) : target[name];
          return (now: number) => {
            if (failing) throw new Error("no commit");
            return target.commit(now);
          };
        },
      }),
  });
  await pawl.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
  failing = true;
  time.step(HOUR_MS);
  await expect(pawl.call("lease.get", { name: "a" })).rejects.toMatchObject({ kind: "internal" });
  expect(pawl.rolledBack.length).toBeGreaterThan(0);
  failing = false;
  const { lease } = await pawl.call("lease.get", { name: "a" });
  expect(lease?.remainingMs).toBe(60_000);
  expect(lease?.expiresAt).toBe(START + HOUR_MS + 60_000);
});

test("many leases that end at one moment end in steps, and their waiters still come before others", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const names = Array.from({ length: 1200 }, (_, index) => `n${String(index).padStart(4, "0")}`);
  await Promise.all(
    names.map((name) => pawl.call("lease.acquire", { name, owner: "first", ttlMs: 1000 }, 1)),
  );
  const granted = names.map((name) =>
    pawl.call("lease.acquire", { name, owner: "waiter", ttlMs: 1000, waitMs: 60_000 }, 2),
  );
  await pawl.call("sequence.state", {});
  time.pass(1000);
  // In the turn in which they end, before most of them are removed.
  const barging = names.map((name) => pawl.call("lease.acquire", { name, owner: "barging" }, 3));
  const outcomes = await Promise.allSettled(barging);
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toEqual([]);
  const leases = await Promise.all(granted);
  expect(leases.every(({ lease }) => lease.owner === "waiter" && lease.fencingToken === 2)).toBe(true);
  const lost = pawl.notified.filter(({ method, connection }) => method === "lease.lost" && connection === 1);
  expect(lost.length).toBe(names.length);
});
