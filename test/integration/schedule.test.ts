// Schedules at the socket of real daemons: over changes of the hour and days without a daemon (libfaketime), with kill
// -9 at the moment of an occurrence. A few kills always; with PAWL_TORTURE=1 two hundred.
import { setTimeout as sleep } from "node:timers/promises";
import type { Params } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { ClockPlace, library } from "../clock-place.js";
import { type DaemonProcess, NAMES_ARE_SHARED, Place, sharedDaemon, startDaemon } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import type { RawClient } from "../raw-client.js";

const KILLS = sized(200, 4);
const GIVE_UP_MS = TORTURE ? 600_000 : 120_000;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
/** The longest that an occurrence may be waited for. */
const WAIT_MS = 20_000;

const daemon = sharedDaemon();

function set(client: RawClient, given: Partial<Params<"schedule.set">> & { name: string }) {
  return client.call("schedule.set", { queue: given.name, payloads: [given.name], ...given });
}

/** Waits for a batch of a queue and completes it; gives its sourceKey. */
async function work(client: RawClient, queue: string): Promise<string | null | undefined> {
  const { claim } = await client.call("queue.claim", { queue, owner: "worker", waitMs: WAIT_MS });
  if (claim === null) return undefined;
  const { claimId, leaseToken } = claim;
  await client.call("queue.complete", { claimId, leaseToken });
  return claim.batches[0]?.sourceKey;
}

/** The times of the occurrences of a schedule that were enqueued in the queue of its name. */
async function times(client: RawClient, name: string): Promise<number[]> {
  const found: number[] = [];
  for (let after = 0; ; ) {
    const page = await client.call("queue.list", { queue: name, after, limit: 1000 });
    found.push(...page.batches.map(({ sourceKey }) => Number(`${sourceKey}`.split("@")[1])));
    if (page.next === undefined) return found;
    after = page.next;
  }
}

test("an occurrence wakes the worker that waits, and is what was set, byte for byte", async () => {
  const client = await daemon().place.connect();
  client.write(
    `{"jsonrpc":"2.0","id":"raw","method":"schedule.set","params":{"name":"raw","everyMs":1000,"queue":"raw","payloads":[1.0, {"a":1e400,"a":2}],"key":"k"}}\n`,
  );
  expect(await client.line()).toContain(`"payloads":[1.0, {"a":1e400,"a":2}]`);
  const { schedule } = await client.call("schedule.get", { name: "raw" });
  const sourceKey = await work(client, "raw");
  expect(sourceKey).toBe(`schedule:raw@${schedule.nextAt}`);
  await client.call("schedule.delete", { name: "raw" });
});

test("lists go on from page to page", async () => {
  const client = await daemon().place.connect();
  for (const name of ["p1", "p2", "p3"]) await set(client, { name, cron: "@yearly" });
  const first = await client.call("schedule.list", { limit: 2, after: "p" });
  expect(first.schedules.map(({ name }) => name)).toEqual(["p1", "p2"]);
  const second = await client.call("schedule.list", { limit: 2, after: first.next as string });
  expect(second).toMatchObject({ schedules: [{ name: "p3" }] });
  expect(second.next).toBeUndefined();
});

test.each([
  [{ name: "x" }, "/cron"],
  [{ name: "x", cron: "@daily", everyMs: 1000 }, "/everyMs"],
  [{ name: "x", everyMs: 999 }, "/everyMs"],
  [{ name: "x", cron: "0 25 * * *" }, "/cron"],
  [{ name: "x", cron: "0 0 30 2 *" }, "/cron"],
  [{ name: "x", cron: "@daily", timeZone: "Europe/Atlantis" }, "/timeZone"],
  [{ name: "x", cron: "@daily", overlap: "two" }, "/overlap"],
  [{ name: "x", cron: "@daily", payloads: [] }, "/payloads"],
  [{ name: "", cron: "@daily" }, "/name"],
])("%j is refused at %s", async (params, path) => {
  const client = await daemon().place.connect();
  const { data } = await client.refusal("schedule.set", { queue: "x", payloads: [1], ...params });
  expect(data).toMatchObject({ kind: "invalid_params", issues: [{ path }] });
});

test("in a transaction, all or nothing, and as a try", async () => {
  const client = await daemon().place.connect();
  const params = { name: "t", cron: "@yearly", queue: "t", payloads: [1] };
  const tried = await client.call("transact", { calls: [{ method: "schedule.set", params }], dryRun: true });
  expect(tried.results).toMatchObject([{ schedule: { name: "t" } }]);
  await client.refusal("transact", {
    calls: [
      { method: "schedule.set", params },
      { method: "schedule.run", params: { name: "u" } },
    ],
  });
  expect((await client.refusal("schedule.get", { name: "t" })).data).toMatchObject({ what: "schedule" });
});

test("a full queue skips an occurrence, and the log and the events say so", async () => {
  const client = await daemon().place.connect();
  const topics = ["schedule:full"];
  const { cursor } = await client.call("events.watch", { topics });
  await client.call("queue.configure", { queue: "full", maxWaiting: 1 });
  await client.call("queue.enqueue", { queue: "full", payloads: [1] });
  await set(client, { name: "full", everyMs: SECOND });
  const line = await daemon().logged(({ msg }) => msg === "an occurrence of a schedule was skipped");
  expect(line).toMatchObject({ schedule: "full", reason: expect.stringContaining("may have 1") });
  await client.call("queue.configure", { queue: "full", maxWaiting: null });
  await client.call("schedule.run", { name: "full" });
  await client.call("schedule.delete", { name: "full" });
  const { events } = await client.call("events.watch", { topics, since: cursor });
  const kinds = events.map(({ kind }) => kind).filter((kind, index, all) => kind !== all[index - 1]);
  expect(kinds).toEqual(["set", "skipped", "ran", "deleted"]);
  expect(events[1]).toMatchObject({ reason: expect.stringContaining("may have 1") });
});

test("a daemon with an enabled schedule is not idle", async () => {
  const pawld = await startDaemon({ args: ["--idle-exit", "1"] });
  const client = await pawld.place.connect();
  await set(client, { name: "s", cron: "@yearly" });
  await client.destroy();
  expect(await Promise.race([pawld.exited, sleep(2500, "there")])).toBe("there");
  const again = await pawld.place.connect();
  await set(again, { name: "s", cron: "@yearly", enabled: false });
  await again.destroy();
  expect(await pawld.exited).toBe(0);
});

test(
  `kill -9 at the moment of an occurrence, ${KILLS} times: each comes once`,
  async () => {
    const names = Array.from({ length: 10 }, (_, index) => `s${index}`);
    const place = new Place();
    let pawld = await place.start();
    let client = await place.connect();
    const firsts = new Map<string, number>();
    for (const name of names) {
      const { schedule } = await set(client, { name, everyMs: SECOND, overlap: "all", missed: "all" });
      firsts.set(name, schedule.nextAt as number);
      await sleep(SECOND / names.length);
    }
    for (let kill = 0; kill < KILLS; kill += 1) {
      const { schedules } = await client.call("schedule.list", {});
      const soon = Date.now() + 20;
      const coming = schedules.map(({ nextAt }) => nextAt as number).filter((at) => at > soon);
      const next = Math.min(soon + SECOND, ...coming);
      // From just before it to just after its commit.
      await sleep(next - Date.now() - 1 + (kill % 8));
      await pawld.end("SIGKILL");
      pawld = await place.start();
      client = await place.connect();
    }
    for (const name of names)
      await client.call("schedule.set", { ...(await definition(client, name)), enabled: false });
    for (const name of names) {
      const found = await times(client, name);
      const first = firsts.get(name) as number;
      expect([name, ...found]).toEqual([name, ...found.map((_, index) => first + index * SECOND)]);
      expect(found.length).toBeGreaterThan(0);
    }
  },
  GIVE_UP_MS,
);

async function definition(client: RawClient, name: string): Promise<Params<"schedule.set">> {
  const { schedule } = await client.call("schedule.get", { name });
  return { name, queue: schedule.queue, payloads: schedule.payloads, everyMs: schedule.everyMs as number };
}

// Shared schedules follow the clock of the server.
describe.skipIf(library === undefined || NAMES_ARE_SHARED)("by a clock that the test sets", () => {
  /** A daemon whose wall clock shows this time now, and a client of it. */
  async function at(place: ClockPlace, time: number | string): Promise<[DaemonProcess, RawClient]> {
    place.setClock(new Date(time).getTime() - Date.now());
    return [await place.startWithClock(), await place.connect()];
  }

  const nights: readonly (readonly [string, string, string, string])[] = [
    // Left out: later by as much. Shown twice: the first time.
    ["Europe/Berlin", "30 2 * * *", "2026-03-29T01:30Z", "2026-03-30T00:30Z"],
    ["Europe/Berlin", "30 2 * * *", "2026-10-25T00:30Z", "2026-10-26T01:30Z"],
    ["America/New_York", "30 2 * * *", "2026-03-08T07:30Z", "2026-03-09T06:30Z"],
    ["America/New_York", "30 1 * * *", "2026-11-01T05:30Z", "2026-11-02T06:30Z"],
    ["Australia/Lord_Howe", "15 2 * * *", "2026-10-03T15:45Z", "2026-10-04T15:15Z"],
    ["Australia/Lord_Howe", "*/15 * * * *", "2026-04-04T15:00Z", "2026-04-04T15:15Z"],
  ];
  test.each(nights.filter((_, index) => TORTURE || index % 2 === 0))(
    "in %s, %s comes at %s, then at %s",
    async (timeZone, cron, ...expected) => {
      const place = new ClockPlace();
      const [first, second] = expected.map((time) => Date.parse(time)) as [number, number];
      const [pawld, client] = await at(place, first - 10 * MINUTE);
      const { schedule } = await set(client, { name: "s", cron, timeZone });
      expect(schedule.nextAt).toBe(first);
      place.setClock(first - Date.now() - 200);
      expect(await work(client, "s")).toBe(`schedule:s@${first}`);
      expect((await client.call("schedule.get", { name: "s" })).schedule.nextAt).toBe(second);
      // Without a daemon until after the next one, which is made up for.
      await pawld.end();
      const [, later] = await at(place, second + MINUTE);
      expect(await work(later, "s")).toBe(`schedule:s@${second}`);
    },
  );

  test.each([
    ["none", 0],
    ["last", 1],
    ["all", 24],
  ] as const)("a day without a daemon, missed %s: %i of 24", async (missed, count) => {
    const place = new ClockPlace();
    const [pawld, client] = await at(place, "2026-06-01T00:30:00Z");
    await set(client, { name: "s", cron: "@hourly", missed, overlap: "all" });
    await pawld.end("SIGKILL");
    const [, later] = await at(place, "2026-06-02T00:29:00Z");
    await later.call("daemon.ping", {});
    const last = Date.parse("2026-06-02T00:00:00Z");
    const found = await times(later, "s");
    expect(found).toEqual(
      Array.from({ length: count }, (_, index) => last - (count - 1 - index) * 60 * MINUTE),
    );
    const { schedule } = await later.call("schedule.get", { name: "s" });
    expect(schedule.nextAt).toBe(last + 60 * MINUTE);
  });

  test("the clock is set under a running daemon: none is doubled and none is lost", async () => {
    const place = new ClockPlace();
    const [, client] = await at(place, "2026-06-01T11:30:00Z");
    const clock = (time: string): void => place.setClock(Date.parse(time) - Date.now());
    await set(client, { name: "s", cron: "@hourly", overlap: "all" });
    clock("2026-06-01T11:59:59.800Z");
    expect(await work(client, "s")).toBe(`schedule:s@${Date.parse("2026-06-01T12:00Z")}`);
    clock("2026-06-01T11:59:57Z");
    const nextAt = async (): Promise<number | null> =>
      (await client.call("schedule.get", { name: "s" })).schedule.nextAt;
    await expect.poll(nextAt, { interval: 20, timeout: WAIT_MS }).toBe(Date.parse("2026-06-01T12:00Z"));
    // Noon comes again and is over.
    await expect.poll(nextAt, { interval: 100, timeout: WAIT_MS }).toBe(Date.parse("2026-06-01T13:00Z"));
    clock("2027-06-01T11:30:00Z");
    expect(await work(client, "s")).toBe(`schedule:s@${Date.parse("2027-06-01T11:00Z")}`);
    clock("2026-06-01T12:59:59Z");
    expect(await work(client, "s")).toBe(`schedule:s@${Date.parse("2026-06-01T13:00Z")}`);
    expect(await times(client, "s")).toEqual(
      ["2026-06-01T12:00Z", "2027-06-01T11:00Z", "2026-06-01T13:00Z"].map((time) => Date.parse(time)),
    );
  });
});
