// Turns and time: expiry, steps of the clock and the time that the database keeps.
import { refuse } from "@pawl/protocol/errors";
import { expect, test, vi } from "vitest";
import type { Store } from "../../daemon/dist/store/store.js";
import { TurnLoop } from "../../daemon/dist/turns/turn-loop.js";
import { Clocks, START } from "../clocks.js";
import { InProcess, rowsOf } from "../in-process.js";
import { until } from "../until.js";

const HOUR_MS = 3_600_000;

const YEAR_MS = 365 * 24 * HOUR_MS;

function keptTime(path: string): { elapsedMs: number; wallMs: number } {
  return JSON.parse(rowsOf(path, "SELECT value FROM pawl_meta WHERE key = 'clock'")[0]?.value as string);
}

test("the time is written with what is written, at most once a second, and not for reads", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const next = () => pawl.call("sequence.next", { type: "FR" });
  time.pass(999);
  await next();
  expect(keptTime(pawl.path).elapsedMs).toBe(START);
  time.pass(HOUR_MS);
  await pawl.call("sequence.state", {});
  expect(keptTime(pawl.path).elapsedMs).toBe(START);
  await next();
  expect(keptTime(pawl.path).elapsedMs).toBe(START + HOUR_MS + 999);
});

test("a step of the wall clock is told, kept, and moves nothing that was given as a duration", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
  for (const byMs of [YEAR_MS, -2 * YEAR_MS, YEAR_MS]) {
    time.step(byMs);
    const { lease } = await pawl.call("lease.get", { name: "a" });
    expect(lease).toMatchObject({ remainingMs: 60_000, expiresAt: time.wall() + 60_000 });
    expect(keptTime(pawl.path)).toMatchObject({ elapsedMs: START, wallMs: time.wall() });
  }
  expect(pawl.steps.map(({ byMs }) => byMs)).toEqual([YEAR_MS, -2 * YEAR_MS, YEAR_MS]);
});

test("after a crash and a reboot the time goes on from the last that was written", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("lease.acquire", { name: "a", owner: "a", ttlMs: HOUR_MS });
  time.pass(600_000);
  await pawl.call("sequence.next", { type: "FR" });
  pawl.crash();
  time.reboot(60_000);
  const after = new InProcess({ path: pawl.path, time });
  expect((await after.call("lease.get", { name: "a" })).lease?.remainingMs).toBe(HOUR_MS - 660_000);
});

test("a reboot with a clock that is a year ahead ends leases, and of retention a day", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("lease.acquire", { name: "a", owner: "a", ttlMs: HOUR_MS });
  const once = { queue: "q", payloads: [1], sourceKey: "once" };
  await pawl.call("queue.enqueue", once);
  const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "a" });
  const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
  await pawl.call("queue.complete", { claimId, leaseToken });
  const { commandId } = await pawl.call("command.create", { deployment: "d", command: "c" });
  await pawl.call("command.cancel", { commandId });
  pawl.close();
  time.reboot(YEAR_MS);
  const after = new InProcess({ path: pawl.path, time });
  expect((await after.call("lease.get", { name: "a" })).lease).toBeNull();
  const kept = async () => {
    await after.call("daemon.ping", {});
    return (await after.call("command.list", {})).commands.length;
  };
  time.pass(6 * 24 * HOUR_MS - 1);
  expect((await after.call("queue.enqueue", once)).created).toBe(false);
  expect(await kept()).toBe(1);
  time.pass(1);
  expect((await after.call("queue.enqueue", once)).created).toBe(true);
  time.pass(60_000);
  expect(await kept()).toBe(0);
});

test("after it was held up, and once a second at most, what has run out goes on for 200 ms", async () => {
  const time = new Clocks();
  const alarm = { ms: 0 };
  const pawl = new InProcess({ time, elapsed: () => alarm.ms });
  const isHeld = async () => (await pawl.call("queue.stats", { queue: "q" })).queues[0]?.claimed === 1;
  /** Claims a batch, and lets its lease run out in a process that sees that so much later. */
  const runOut = async (lateMs: number, leaseMs = 1000) => {
    await pawl.call("queue.enqueue", { queue: "q", payloads: [1] });
    const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "a", leaseMs });
    expect(claim).not.toBeNull();
    time.pass(leaseMs);
    alarm.ms += leaseMs + lateMs;
  };
  await runOut(20);
  expect(await isHeld()).toBe(false);
  for (let again = 0; again < 2; again += 1) {
    await runOut(21);
    expect(await isHeld()).toBe(true);
    time.pass(199);
    expect(await isHeld()).toBe(true);
    time.pass(1);
    expect(await isHeld()).toBe(false);
  }
  await runOut(21, 999);
  expect(await isHeld()).toBe(false);
});

test("a command that is given back goes behind those that wait, also within a millisecond", async () => {
  const pawl = new InProcess({ time: new Clocks() });
  const ids: string[] = [];
  for (let n = 0; n < 3; n += 1) {
    ids.push((await pawl.call("command.create", { deployment: "d", command: "c" })).commandId);
  }
  const seen: (string | undefined)[] = [];
  for (let n = 0; n < 4; n += 1) {
    const [lease] = (await pawl.call("command.lease", { deployment: "d", owner: "a" })).leases;
    seen.push(lease?.commandId);
    await pawl.call("command.release", { leaseId: lease?.leaseId as string });
  }
  expect(seen).toEqual([...ids, ids[0]]);
});

test("a step that cannot be written ends no lease", async () => {
  const time = new Clocks();
  let failing = false;
  const pawl = new InProcess({
    time,
    wrap: (store) =>
      new Proxy(store, {
        get: (target, name: keyof Store) => {
          if (name !== "commit")
            return typeof target[name] === "function" ? target[name].bind(target) : target[name];
          return () => {
            if (failing) throw new Error("no commit");
            return target.commit();
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
  expect(lease).toMatchObject({ remainingMs: 60_000, expiresAt: START + HOUR_MS + 60_000 });
});

test("times that were named and have come stay come, though more than a turn can do were due", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const deadline = START + HOUR_MS;
  const created = await Promise.all(
    Array.from({ length: 1200 }, () =>
      pawl.call("command.create", { deployment: "d", command: "c", deadline }),
    ),
  );
  time.step(HOUR_MS);
  await pawl.call("daemon.ping", {});
  time.step(-HOUR_MS);
  for (const { commandId } of created) {
    expect(await pawl.call("command.get", { commandId })).toMatchObject({ state: "EXPIRED", deadline });
  }
});

test("many leases that end at one moment end in steps, and their waiters still come before others", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const names = Array.from({ length: 1200 }, (_, index) => `n${String(index).padStart(4, "0")}`);
  await Promise.all(
    names.map((name) => pawl.call("lease.acquire", { name, owner: "first", ttlMs: 1000 }, 1)),
  );
  // A connection may have 512 waits.
  const granted = names.map((name, index) =>
    pawl.call("lease.acquire", { name, owner: "waiter", ttlMs: 1000, waitMs: 60_000 }, 4 + (index % 3)),
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
}, 600_000);

test("a turn whose time is over serves one of many that wait for the same, however many things came free", async () => {
  const pawl = new InProcess();
  const ids = Array.from({ length: 30 }, (_, index) => `ITEM-${index}`);
  for (const storyId of ids) {
    await pawl.call("pipeline.write", { storyId, stage: "1_backlog", dependsOn: ["GATE"] });
  }
  const claims = ids.map((agent) => pawl.call("pipeline.claim", { agent, waitMs: 60_000 }));
  await pawl.call("daemon.ping", {});
  const before = pawl.turns;
  // The time of every turn is over as soon as somebody looks at it.
  let ms = performance.now();
  const hurried = vi.spyOn(performance, "now").mockImplementation(() => (ms += 1000));
  await pawl.call("pipeline.write", { storyId: "GATE", stage: "5_done" });
  const claimed = await Promise.all(claims);
  hurried.mockRestore();
  expect(claimed.map(({ item }) => item?.agent)).toEqual(ids);
  // Two at most: one of those that an earlier turn left, and one of those whom the turn itself has work for.
  expect(pawl.turns - before).toBeGreaterThanOrEqual(ids.length / 2);
});

test("calls that were woken leave half of a turn to requests that have arrived, and are charged for themselves", async () => {
  let waiting = 1000;
  const took: number[] = [];
  const served = new Map<number, number>();
  const arrivals = {
    get mayTakeMore() {
      return waiting > 0;
    },
    took: (ms: number) => void took.push(ms),
    used: (connection: number, ms: number) => void served.set(connection, (served.get(connection) ?? 0) + ms),
  };
  let ms = 0;
  let inOneTurn = 0;
  let most = 0;
  const perTurn = (): void => {
    most = Math.max(most, inOneTurn);
    inOneTurn = 0;
  };
  const pawl = new InProcess({
    arrivals: {
      ...Object.getOwnPropertyDescriptors(arrivals),
    },
    committed: perTurn,
  });
  const { revision } = await pawl.call("pipeline.watch", {});
  const waits = Array.from({ length: 40 }, () =>
    pawl.call("pipeline.watch", { since: revision, waitMs: 60_000 }, 7).then(() => {
      inOneTurn += 1;
    }),
  );
  await pawl.call("daemon.ping", {});
  // Each look at the clock takes 0.2 ms, so that 2.5 ms are over after some.
  const slow = vi.spyOn(performance, "now").mockImplementation(() => (ms += 0.2));
  await pawl.call("pipeline.write", { storyId: "a", stage: "s" });
  await Promise.all(waits);
  slow.mockRestore();
  waiting = 0;
  expect(most).toBeLessThan(12);
  expect(served.get(7)).toBeGreaterThan(40 * 0.2);
});

test("whose turn it was before others of its sort is not overtaken while many of another sort are served", async () => {
  const pawl = new InProcess();
  const leased: string[] = [];
  const receiver = (owner: string, target: string): Promise<unknown> =>
    pawl
      .call("command.lease", { deployment: "d", targets: [target], owner, waitMs: 60_000 })
      .then(() => leased.push(owner));
  const created = {
    method: "command.create",
    params: { deployment: "d", command: "c", target: "many" },
  } as const;
  const first = receiver("first", "few");
  const others = Array.from({ length: 40 }, () => receiver("other", "many"));
  const last = receiver("last", "few");
  await pawl.call("daemon.ping", {});
  let ms = performance.now();
  // Each look at the clock takes 0.2 ms, so that no turn has time for all whom the commands wake.
  const slow = vi.spyOn(performance, "now").mockImplementation(() => (ms += 0.2));
  await pawl.call("transact", { calls: others.map(() => created) });
  const servedBefore = leased.length;
  await pawl.call("command.create", { ...created.params, target: "few" });
  slow.mockRestore();
  await Promise.all([first, ...others]);
  expect(servedBefore).toBeLessThan(others.length);
  expect(leased).not.toContain("last");
  await pawl.call("command.create", { ...created.params, target: "few" });
  await last;
});

const stopping = refuse("unavailable", "The daemon is stopping.", { reason: "stopping" });

/** A loop that only reads, and what it is asked for. */
function loopWith(takeNext: () => number | undefined, store: object = { writer: undefined }): TurnLoop {
  const arrivals = { waiting: 0, mayTakeMore: false, beginTurn() {}, takeNext, took() {} };
  const reports = { committed() {} };
  const reading = { now: START, retentionNow: START, wallMs: START };
  const clock = { read: () => reading, takeJump: () => undefined };
  const setting = { store, readOnly: true, clock };
  return new TurnLoop({ setting, arrivals, reports } as unknown as ConstructorParameters<typeof TurnLoop>[0]);
}

test.each([
  ["in its first request", [100, 0, 0, 0, 0, 0, 0], 5],
  ["in each request, which counts once", [100, 100, 100, 100], 2],
])("a turn has as much longer as others had the processor %s", async (_, othersMs, expected) => {
  let [ms, usedMs, taken] = [0, 0, 0];
  vi.spyOn(performance, "now").mockImplementation(() => ms);
  vi.spyOn(process, "cpuUsage").mockImplementation(() => ({ user: 1000 * usedMs, system: 0 }));
  const loop = loopWith(() => {
    ms += 1 + (othersMs[taken] ?? 0);
    usedMs += 1;
    taken += 1;
    return 0;
  });
  loop.schedule();
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  vi.restoreAllMocks();
  expect(taken).toBe(expected);
});

test("what nobody asked for leaves those who ask a half of a turn, also where it took longer than one", async () => {
  let [ms, taken] = [0, 0];
  vi.spyOn(performance, "now").mockImplementation(() => ms);
  vi.spyOn(process, "cpuUsage").mockImplementation(() => ({ user: 1000 * ms, system: 0 }));
  const store = { writer: undefined, wrote: false, begin() {}, commit() {}, perform: () => undefined };
  const takeNext = (): number | undefined => {
    if (taken === 10) return undefined;
    ms += 1;
    taken += 1;
    return 0;
  };
  const loop = loopWith(takeNext, store);
  const own = { caller: { connection: 0 }, waitMs: 0, closed: false, settle() {} };
  loop.submit({
    ...own,
    start: () => {
      ms += 20;
      return (function* () {})();
    },
  } as unknown as Parameters<TurnLoop["submit"]>[0]);
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  vi.restoreAllMocks();
  expect(taken).toBe(3);
});

test("a loop that has stopped refuses what arrives until it rests, and then takes up nothing", async () => {
  let taken = 0;
  const loop = loopWith(() => {
    taken += 1;
    return undefined;
  });
  expect(await loop.stop(stopping)).toBe(true);
  const turn = async (): Promise<number> => {
    taken = 0;
    loop.schedule();
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    return taken;
  };
  expect(await turn()).toBe(1);
  loop.rest();
  expect(await turn()).toBe(0);
  const outcomes: unknown[] = [];
  const settle = (outcome: unknown): void => void outcomes.push(outcome);
  loop.submit({ settle } as unknown as Parameters<TurnLoop["submit"]>[0]);
  expect(outcomes).toEqual([stopping]);
});

test("a loop that stops says that it could not refuse all that had arrived in time", async () => {
  const loop = loopWith(() => 0);
  let ms = performance.now();
  const slow = vi.spyOn(performance, "now").mockImplementation(() => (ms += 50));
  expect(await loop.stop(stopping)).toBe(false);
  slow.mockRestore();
});

test("a loop that stops ends waits for as long as it may, and leaves the rest to the end of their connections", async () => {
  const pawl = new InProcess();
  await pawl.call("lease.acquire", { name: "n", owner: "first" });
  const ended: string[] = [];
  for (let index = 0; index < 100; index += 1) {
    const owner = `waiter ${index}`;
    pawl.call("lease.acquire", { name: "n", owner, waitMs: 60_000 }).catch(({ kind }) => ended.push(kind));
  }
  await pawl.call("daemon.ping", {});
  let ms = performance.now();
  const slow = vi.spyOn(performance, "now").mockImplementation(() => (ms += 50));
  await pawl.loop.stop(stopping);
  slow.mockRestore();
  expect(pawl.loop.waiting).toBe(0);
  await new Promise((resolve) => setImmediate(resolve));
  expect(new Set(ended)).toEqual(new Set(["unavailable"]));
  expect(ended.length).toBeGreaterThan(5);
  expect(ended.length).toBeLessThan(20);
});

test("a wait that only reads is answered once its peer has room, also when its time is up, and holds up nobody", async () => {
  const full = new Set([2]);
  const pawl = new InProcess({ hasRoom: (connection) => !full.has(connection) });
  const answered: string[] = [];
  const wait = (name: string, batchId: string, connection: number, waitMs: number): Promise<unknown> =>
    pawl.call("queue.wait", { batchId, waitMs }, connection).then(({ batch }) => {
      answered.push(`${name} ${batch.state}`);
    });
  const { batch } = await pawl.call("queue.enqueue", { queue: "q", payloads: [1] });
  const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "a" });
  const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
  const other = (await pawl.call("queue.enqueue", { queue: "q", payloads: [2] })).batch;
  const held = [wait("held", batch.batchId, 2, 60_000), wait("over", other.batchId, 2, 10)];
  // A call that takes something is served by its place.
  const taken = pawl.call("queue.claim", { queue: "q2", owner: "b", waitMs: 60_000 }, 2);
  const free = [wait("free", batch.batchId, 3, 60_000), wait("free", other.batchId, 3, 10)];
  await pawl.call("queue.complete", { claimId, leaseToken });
  await Promise.all(free);
  await pawl.call("queue.enqueue", { queue: "q2", payloads: [3] });
  expect((await taken).claim).not.toBeNull();
  expect(answered).toEqual(["free completed", "free ready"]);
  expect(pawl.loop.waiting).toBe(2);
  pawl.loop.roomAgain(2);
  await pawl.call("daemon.ping", {});
  expect(answered).toHaveLength(2);
  full.clear();
  pawl.loop.roomAgain(2);
  await Promise.all(held);
  expect(answered.slice(2).sort()).toEqual(["held completed", "over ready"]);
  expect(pawl.loop.waiting).toBe(0);
});

test("no turn follows another for a connection that has closed, several of whose calls waited for the same", async () => {
  let turns = 0;
  const beginTurn = {
    value: () => {
      turns += 1;
    },
  };
  const pawl = new InProcess({ time: new Clocks(), arrivals: { beginTurn } });
  await pawl.call("lease.acquire", { name: "a", owner: "a" });
  const terms = { name: "a", owner: "b", waitMs: HOUR_MS };
  for (let waits = 0; waits < 3; waits++) void pawl.call("lease.acquire", terms, 2);
  await vi.waitUntil(() => pawl.loop.waiting === 3);
  pawl.disconnect(2);
  const before = turns;
  for (let more = 0; more < 10; more++) await new Promise((resolve) => setImmediate(resolve));
  expect(turns - before).toBeLessThanOrEqual(1);
});

test("of the calls in lines that one change lets through a turn performs no more than it has time for", async () => {
  const pawl = new InProcess({ turnMs: () => 0, processes: true, postgresql: null });
  const paths = Array.from({ length: 20 }, (_, number) => `${number}.ts`);
  const reserve = (name: string, owner: string, connection: number, more: object) =>
    pawl.call("path.reserve", { root: "/r", patterns: [name], owner, ...more }, connection);
  for (const name of paths) await reserve(name, "holder", 1, { releaseOn: "disconnect" });
  const served = paths.map(async (name, number) => {
    await reserve(name, name, 2 + number, { waitMs: 60_000 });
    return pawl.turns;
  });
  await until(() => pawl.loop.waiting === paths.length);

  pawl.disconnect(1);
  const turns = await Promise.all(served);
  const most = Math.max(...turns.map((turn) => turns.filter((other) => other === turn).length));
  expect(most).toBeLessThan(5);
});
