// The clock of the server of shared names is set, back above all, while daemons use it.
import { describe, expect, test } from "vitest";
import { type DaemonProcess, madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { makePlace } from "../shared-daemons.js";

const HOUR_MS = 3_600_000;
/** As much as a machine under load may take for a few calls. */
const BUSY_MS = 60_000;

describe.skipIf(!HAS_POSTGRESQL)("the clock of a place of shared names", () => {
  const postgres = madeForTests(async (atEnd) => {
    const made = await PostgreSql.start(atEnd);
    made.takeClock();
    return made;
  });
  let schemas = 0;

  /** Two daemons on tables of their own, with the server's clock right. */
  async function twoDaemons(): Promise<{ daemons: DaemonProcess[]; clients: RawClient[] }> {
    schemas += 1;
    postgres().setClock(0);
    const url = postgres().url(`clock_${schemas}`);
    await makePlace(url);
    const places = [new Place(), new Place()];
    const daemons = [];
    for (const place of places) daemons.push(await place.start({ args: ["--shared", `s/*=${url}`] }));
    return { daemons, clients: await Promise.all(places.map((place) => place.connect())) };
  }

  const isSet = ({ msg }: { msg: string }): boolean =>
    msg.startsWith("the clock of the database of shared names was set");

  test("set back by an hour, it keeps nothing from ending that was granted before or is granted then", async () => {
    const { daemons, clients } = await twoDaemons();
    const [holder, other] = clients as [RawClient, RawClient];
    await holder.call("lease.acquire", { name: "s/before", owner: "a", ttlMs: 3000 });
    await holder.call("lease.acquire", { name: "s/long", owner: "a", ttlMs: 2 * HOUR_MS });
    await holder.call("queue.enqueue", { queue: "s/delayed", payloads: [1], delayMs: 3000 });
    const wait = { owner: "b", waitMs: 30_000 };
    const acquiring = other.call("lease.acquire", { ...wait, name: "s/before" });
    const claiming = other.call("queue.claim", { ...wait, queue: "s/delayed" });
    postgres().setClock(-HOUR_MS);
    expect((await acquiring).lease.owner).toBe("b");
    expect((await claiming).claim?.batches).toHaveLength(1);
    await Promise.any(daemons.map((daemon) => daemon.logged(isSet)));

    const before = Date.now() - HOUR_MS;
    const { lease } = await holder.call("lease.acquire", { name: "s/then", owner: "a", ttlMs: 3000 });
    // It is shown by the clock as it is.
    expect(lease.expiresAt).toBeGreaterThan(before);
    expect(lease.expiresAt).toBeLessThan(before + BUSY_MS);
    expect((await other.call("lease.acquire", { ...wait, name: "s/then" })).lease.owner).toBe("b");
    const { lease: long } = await other.call("lease.get", { name: "s/long" });
    expect(long?.remainingMs).toBeGreaterThan(2 * HOUR_MS - BUSY_MS);
  });

  test("what is named as a time comes by the clock as it is after it was set back", async () => {
    const { daemons, clients } = await twoDaemons();
    const [first, second] = clients as [RawClient, RawClient];
    await first.call("queue.enqueue", { queue: "s/q", payloads: ["before"], availableAt: Date.now() + 4000 });
    postgres().setClock(-HOUR_MS);
    await Promise.any(daemons.map((daemon) => daemon.logged(isSet)));
    const availableAt = Date.now() - HOUR_MS + 3000;
    await first.call("queue.enqueue", { queue: "s/q", payloads: ["after"], availableAt });
    const { claim } = await second.call("queue.claim", { queue: "s/q", owner: "b", waitMs: 30_000 });
    expect(claim?.batches.map(({ payloads }) => payloads)).toEqual([["after"]]);
    expect(Date.now() - HOUR_MS).toBeGreaterThanOrEqual(availableAt);
    // The other comes an hour later.
    expect((await second.call("queue.stats", { queue: "s/q" })).queues[0]).toMatchObject({ scheduled: 1 });
  });

  test("set back and right again, it ends nothing that lasts", async () => {
    const { daemons, clients } = await twoDaemons();
    const [holder, other] = clients as [RawClient, RawClient];
    const { lease } = await holder.call("lease.acquire", { name: "s/x", owner: "a", ttlMs: BUSY_MS * 10 });
    postgres().setClock(-HOUR_MS);
    await Promise.any(daemons.map((daemon) => daemon.logged(isSet)));
    postgres().setClock(0);
    const [{ lease: now }] = await Promise.all([
      other.call("lease.get", { name: "s/x" }),
      Promise.any(daemons.map((daemon) => daemon.logged((line) => isSet(line) && Number(line.byMs) > 0))),
    ]);
    expect(now).toMatchObject({ owner: "a", fencingToken: lease.fencingToken });
    expect(Math.abs((now?.expiresAt ?? 0) - lease.expiresAt)).toBeLessThan(BUSY_MS);
    await holder.call("lease.heartbeat", { leaseId: lease.leaseId });
  });
});
