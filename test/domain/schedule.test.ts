// The rules of schedules, with time, clocks and lives of the daemon as the test wants them.
import { copyFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test, vi } from "vitest";
import { occurrences } from "../../daemon/dist/domain/schedule/occurrences.js";
import { connect } from "../../daemon/dist/store/connection.js";
import { SqliteStore } from "../../daemon/dist/store/sqlite.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { TurnMemory } from "../../daemon/dist/turns/turn-memory.js";
import { Clocks, START } from "../clocks.js";
import { changeRows, InProcess } from "../in-process.js";
import { driveWithAwaits, envOf } from "./drive.js";

const SECOND = 1000;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** The hour before the tests begin: their clocks begin 13 minutes after it. */
const HOUR_BEFORE = START - (START % HOUR);

/** What is due is done in steps, each in a turn of its own. */
const PATIENCE = { timeout: 60_000, interval: 5 };

type Schedule = Result<"schedule.get">["schedule"];

/** A schedule `s` that enqueues in a queue `q` every hour. */
class Hourly {
  readonly time: Clocks;
  readonly pawl: InProcess;

  constructor(options: { path?: string; time?: Clocks; postgresql?: null } = {}) {
    this.time = options.time ?? new Clocks();
    this.pawl = new InProcess({ ...options, time: this.time });
  }

  async set(given: Partial<Params<"schedule.set">> = {}): Promise<Schedule> {
    const rhythm = given.everyMs === undefined ? { cron: "0 * * * *" } : {};
    const params = { name: "s", queue: "q", payloads: [1], ...rhythm, ...given };
    return (await this.pawl.call("schedule.set", params)).schedule;
  }

  async get(): Promise<Schedule> {
    return (await this.pawl.call("schedule.get", { name: "s" })).schedule;
  }

  /** The times of the occurrences that were enqueued, in the order of that, once no more are due. */
  async times(): Promise<number[]> {
    await vi.waitFor(async () => {
      const { nextAt } = await this.get();
      expect(nextAt ?? Number.POSITIVE_INFINITY).toBeGreaterThan(this.time.wall());
    }, PATIENCE);
    const found: number[] = [];
    for (let after = 0; ; ) {
      const page = await this.pawl.call("queue.list", { queue: "q", after, limit: 1000 });
      found.push(
        ...page.batches.map(({ sourceKey }) => Number(/^schedule:s@(\d+)$/.exec(`${sourceKey}`)?.[1])),
      );
      if (page.next === undefined) return found;
      after = page.next;
    }
  }

  /** The same, in hours since the one before the test began. */
  async hours(): Promise<number[]> {
    return (await this.times()).map((at) => (at - HOUR_BEFORE) / HOUR);
  }

  /** Time passes, and the daemon comes to each occurrence in time. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; ) {
      const { nextAt } = await this.get();
      const part = Math.min(left, (nextAt ?? Number.POSITIVE_INFINITY) - this.time.wall());
      this.time.pass(part);
      left -= part;
      await this.times();
    }
  }

  /** Claims and completes the first batch. */
  async work(): Promise<void> {
    const { claim } = await this.claim();
    if (claim === null) throw new Error("there was nothing to claim");
    const { claimId, leaseToken } = claim;
    await this.pawl.call("queue.complete", { claimId, leaseToken });
  }

  claim(): Promise<Result<"queue.claim">> {
    return this.pawl.call("queue.claim", { queue: "q", owner: "worker", leaseMs: DAY });
  }

  /** The daemon is away for so long, and is then there again. */
  async restarted(awayMs: number): Promise<Hourly> {
    this.pawl.close();
    this.time.pass(awayMs);
    const next = new Hourly({ path: this.pawl.path, time: this.time });
    await next.times();
    return next;
  }
}

describe("an occurrence", () => {
  test("is enqueued at its time, as a batch of what was set, and the schedule says so", async () => {
    const hourly = new Hourly();
    const set = await hourly.set({ payloads: [{ a: 1 }], priority: 7, key: "k", maxAttempts: 3 });
    expect(set).toMatchObject({ nextAt: HOUR_BEFORE + HOUR, lastAt: null, lastBatchId: null, enabled: true });
    hourly.time.pass((set.nextAt as number) - START - 1);
    expect(await hourly.times()).toEqual([]);
    await hourly.pass(1);
    expect(await hourly.hours()).toEqual([1]);
    const { lastAt, lastBatchId, nextAt } = await hourly.get();
    expect([lastAt, nextAt]).toEqual([HOUR_BEFORE + HOUR, HOUR_BEFORE + 2 * HOUR]);
    const { batch } = await hourly.pawl.call("queue.get", { batchId: lastBatchId as string });
    expect(batch).toMatchObject({
      payloads: [{ a: 1 }],
      priority: 7,
      key: "k",
      maxAttempts: 3,
      state: "ready",
    });
  });

  test("is enqueued once, however often the daemon is killed around its time", async () => {
    let hourly = new Hourly();
    await hourly.set({ overlap: "all", missed: "all" });
    for (let life = 0; life < 10; life += 1) {
      hourly.time.pass(HOUR);
      if (life % 2 === 0) await hourly.times();
      hourly.pawl.crash();
      hourly = new Hourly({ path: hourly.pawl.path, time: hourly.time });
    }
    expect(await hourly.hours()).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  test("whose sourceKey exists counts as enqueued, whatever its content", async () => {
    const hourly = new Hourly();
    await hourly.set();
    const at = HOUR_BEFORE + HOUR;
    const { batch } = await hourly.pawl.call("queue.enqueue", {
      queue: "q",
      payloads: ["by hand"],
      sourceKey: `schedule:s@${at}`,
    });
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([1]);
    expect(await hourly.get()).toMatchObject({ lastAt: at, lastBatchId: batch.batchId });
  });

  test("of a full queue is skipped, and the next one is not", async () => {
    const hourly = new Hourly();
    await hourly.pawl.call("queue.configure", { queue: "q", maxWaiting: 1 });
    await hourly.set({ overlap: "all" });
    await hourly.pass(2 * HOUR);
    expect(await hourly.hours()).toEqual([1]);
    await hourly.work();
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([1, 3]);
    await expect(hourly.pawl.call("schedule.run", { name: "s" })).rejects.toMatchObject({
      kind: "exhausted",
    });
  });

  test("does not come from the end of a schedule on", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "all", endAt: HOUR_BEFORE + 2 * HOUR });
    await hourly.pass(5 * HOUR);
    expect(await hourly.hours()).toEqual([1]);
    expect(await hourly.get()).toMatchObject({ nextAt: null, enabled: true });
    expect(await hourly.set({ name: "t", endAt: START })).toMatchObject({ nextAt: null });
  });

  test("of each of many schedules at one instant comes, in steps", async () => {
    const hourly = new Hourly();
    const names = Array.from({ length: 300 }, (_, index) => `s${index}`);
    await Promise.all(names.map((name) => hourly.set({ name })));
    await hourly.set();
    const turns = hourly.pawl.turns;
    hourly.time.pass(HOUR);
    await vi.waitFor(async () => {
      const { queues } = await hourly.pawl.call("queue.stats", { queue: "q" });
      expect(queues).toMatchObject([{ ready: 301 }]);
    }, PATIENCE);
    expect(hourly.pawl.turns - turns).toBeGreaterThan(10);
  });
});

describe("every so often", () => {
  test("first so long after it was set, then after each", async () => {
    const hourly = new Hourly();
    const { nextAt } = await hourly.set({ everyMs: 90 * SECOND, overlap: "all" });
    expect(nextAt).toBe(START + 90 * SECOND);
    await hourly.pass(270 * SECOND);
    expect(await hourly.times()).toEqual([90, 180, 270].map((seconds) => START + seconds * SECOND));
  });
});

describe("set again", () => {
  test("the same changes nothing; what is changed counts from now", async () => {
    const hourly = new Hourly();
    const first = await hourly.set({ everyMs: 10 * MINUTE });
    await hourly.pass(4 * MINUTE);
    expect(await hourly.set({ everyMs: 10 * MINUTE })).toEqual(first);
    const changed = await hourly.set({ everyMs: 10 * MINUTE, payloads: [2] });
    expect(changed.nextAt).toBe(START + 14 * MINUTE);
    expect(await hourly.set({ everyMs: 10 * MINUTE, payloads: [2], enabled: false })).toMatchObject({
      enabled: false,
      nextAt: null,
    });
    await hourly.pass(HOUR);
    expect(await hourly.times()).toEqual([]);
    expect((await hourly.set({ everyMs: 10 * MINUTE, payloads: [2] })).nextAt).toBe(START + 74 * MINUTE);
  });

  test("the last occurrence of before still counts for overlap", async () => {
    const hourly = new Hourly();
    await hourly.set();
    await hourly.pass(HOUR);
    await hourly.set({ payloads: [2] });
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([1]);
  });

  test("a deleted one has no occurrences, and its batches stay", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "all" });
    await hourly.pass(HOUR);
    expect(await hourly.pawl.call("schedule.delete", { name: "s" })).toEqual({ deleted: true });
    hourly.time.pass(2 * HOUR);
    expect(await hourly.pawl.call("queue.stats", { queue: "q" })).toMatchObject({ queues: [{ ready: 1 }] });
    expect(await hourly.pawl.call("schedule.delete", { name: "s" })).toEqual({ deleted: false });
  });
});

type Claimed = NonNullable<Result<"queue.claim">["claim"]>;

describe("overlap", () => {
  test("skip: nothing while the last one is unfinished", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "skip" });
    await hourly.pass(2 * HOUR);
    await hourly.claim();
    await hourly.pass(2 * HOUR);
    expect(await hourly.hours()).toEqual([1]);
  });

  test("one: at most one waits while the last one is unfinished", async () => {
    const hourly = new Hourly();
    await hourly.set();
    await hourly.pass(3 * HOUR);
    expect(await hourly.hours()).toEqual([1]);
    await hourly.claim();
    await hourly.pass(3 * HOUR);
    expect((await hourly.hours()).sort()).toEqual([1, 4]);
  });

  test("one: the one that waits is not claimed before the last one has ended, however that ends", async () => {
    const hourly = new Hourly();
    await hourly.set({ maxAttempts: 1 });
    await hourly.pass(HOUR);
    const {
      claimId,
      leaseToken,
      batches: [running],
    } = (await hourly.claim()).claim as Claimed;
    await hourly.pass(2 * HOUR);
    expect((await hourly.pawl.call("queue.claim", { queue: "q", owner: "w" })).claim).toBeNull();
    const { lastBatchId } = await hourly.get();
    const waiting = { batchId: lastBatchId as string };
    expect((await hourly.pawl.call("queue.get", waiting)).batch).toMatchObject({
      state: "blocked",
      when: "finished",
      after: [running?.batchId],
    });
    await hourly.pawl.call("queue.abandon", { claimId, leaseToken, error: "it failed" });
    expect((await hourly.claim()).claim?.batches[0]?.batchId).toBe(lastBatchId);
    await hourly.pass(HOUR);
    expect(await hourly.get()).not.toMatchObject({ lastBatchId });
  });

  test("all: each of them", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "all" });
    await hourly.pass(3 * HOUR);
    expect(await hourly.hours()).toEqual([1, 2, 3]);
  });

  test("what run enqueues counts for none, and may be removed", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "skip" });
    const { batch } = await hourly.pawl.call("schedule.run", { name: "s" });
    expect(batch).toMatchObject({ sourceKey: null, payloads: [1], queue: "q", state: "ready" });
    expect(await hourly.get()).toMatchObject({ lastAt: null, lastBatchId: null });
    await hourly.pawl.call("queue.cancel", { batchId: batch.batchId });
    await hourly.pawl.call("schedule.run", { name: "s" });
    await hourly.pass(HOUR);
    expect(await hourly.get()).toMatchObject({ lastAt: HOUR_BEFORE + HOUR });
  });

  test("a last one that is removed is finished", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "skip" });
    await hourly.pass(HOUR);
    await hourly.work();
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toHaveLength(2);
    const { lastBatchId } = await hourly.get();
    await hourly.pawl.call("queue.cancel", { batchId: lastBatchId as string });
    await hourly.pawl.call("queue.purge", { queue: "q", states: ["completed", "cancelled"] });
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([3]);
  });
});

describe("missed while there was no daemon", () => {
  const away = 5 * HOUR;

  test.each([
    ["none", []],
    ["last", [5]],
    ["all", [1, 2, 3, 4, 5]],
  ] as const)("%s: %j of five hours", async (missed, expected) => {
    const before = new Hourly();
    await before.set({ missed, overlap: "all" });
    const hourly = await before.restarted(away);
    expect(await hourly.hours()).toEqual(expected);
    // All that comes from there on comes as ever.
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([...expected, 6]);
  });

  test("a last one longer ago than the window is not made up for, and of all the others are", async () => {
    const before = new Hourly();
    await before.set({ missed: "last", missedWindowMs: 10 * MINUTE });
    expect(await (await before.restarted(away)).hours()).toEqual([]);
    const other = new Hourly();
    await other.set({ missed: "all", overlap: "all", missedWindowMs: 2 * HOUR });
    expect(await (await other.restarted(away)).hours()).toEqual([4, 5]);
  });

  test("overlap counts for what is made up for, too", async () => {
    const before = new Hourly();
    await before.set({ missed: "all" });
    expect(await (await before.restarted(away)).hours()).toEqual([1]);
  });

  test("of all the last thousand are made up for, also when the daemon is killed meanwhile", async () => {
    const before = new Hourly();
    await before.set({ everyMs: MINUTE, missed: "all", overlap: "all" });
    before.pawl.close();
    before.time.pass(DAY + MINUTE / 2);
    const interrupted = new Hourly({ path: before.pawl.path, time: before.time });
    await interrupted.get();
    interrupted.pawl.crash();
    const after = new Hourly({ path: before.pawl.path, time: before.time });
    expect(await after.times()).toEqual(
      Array.from({ length: 1000 }, (_, index) => START + DAY - (999 - index) * MINUTE),
    );
  });

  test("a running daemon that was held up for a while has missed nothing, and one that slept has", async () => {
    const hourly = new Hourly();
    await hourly.set({ everyMs: SECOND, missed: "none", overlap: "all" });
    await hourly.pass(3 * SECOND);
    expect(await hourly.times()).toEqual([1, 2, 3].map((seconds) => START + seconds * SECOND));
    hourly.time.sleep(HOUR);
    const times = await hourly.times();
    expect(times.every((at) => at <= START + 3 * SECOND || at > START + HOUR - 10 * SECOND)).toBe(true);
  });
});

describe("the wall clock is set", () => {
  test("back: what was enqueued is not enqueued again, and the next one is found anew", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "all" });
    await hourly.pass(4 * HOUR);
    hourly.time.step(-3 * HOUR);
    // The clock stands 13 minutes after the first hour again.
    expect((await hourly.get()).nextAt).toBe(HOUR_BEFORE + 2 * HOUR);
    await hourly.pass(4 * HOUR);
    expect(await hourly.hours()).toEqual([1, 2, 3, 4, 5]);
  });

  test("forward for a while: one is made up for, and what comes once it is right again is as ever", async () => {
    const hourly = new Hourly();
    await hourly.set({ overlap: "all" });
    const year = 8760;
    hourly.time.step(year * HOUR);
    expect(await hourly.hours()).toEqual([year]);
    await hourly.pass(HOUR);
    hourly.time.step(-year * HOUR);
    expect((await hourly.get()).nextAt).toBe(HOUR_BEFORE + 2 * HOUR);
    await hourly.pass(HOUR);
    expect(await hourly.hours()).toEqual([year, year + 1, 2]);
  });

  test("beyond the end of a schedule for a while: it has not ended once the clock is right again", async () => {
    const hourly = new Hourly();
    await hourly.set({ endAt: START + DAY, missed: "none" });
    hourly.time.step(365 * DAY);
    expect((await hourly.get()).nextAt).toBeNull();
    hourly.time.step(-365 * DAY);
    expect((await hourly.get()).nextAt).toBe(HOUR_BEFORE + HOUR);
  });

  test("back while there was no daemon, also over a boot", async () => {
    const before = new Hourly();
    await before.set({ overlap: "all" });
    await before.pass(2 * HOUR);
    before.time.step(-2 * HOUR);
    const hourly = await before.restarted(MINUTE);
    expect((await hourly.get()).nextAt).toBe(HOUR_BEFORE + HOUR);
    hourly.pawl.close();
    hourly.time.reboot(MINUTE, -DAY);
    const after = new Hourly({ path: hourly.pawl.path, time: hourly.time });
    expect((await after.get()).nextAt).toBe(HOUR_BEFORE + HOUR - DAY);
  });

  test("so does what comes every so often keep its rhythm", async () => {
    const hourly = new Hourly();
    hourly.time.step(365 * DAY);
    await hourly.set({ everyMs: HOUR });
    hourly.time.step(-365 * DAY);
    expect((await hourly.get()).nextAt).toBe(START + HOUR);
  });
});

describe("what comes next", () => {
  test("of a schedule, of an expression, of none", async () => {
    const hourly = new Hourly();
    await hourly.set();
    const next = (params: Params<"schedule.next">): Promise<number[]> =>
      hourly.pawl.call("schedule.next", params).then(({ times }) => times);
    const hours = (...of: number[]): number[] => of.map((hour) => HOUR_BEFORE + hour * HOUR);
    expect(await next({ name: "s" })).toEqual(hours(1));
    expect(await next({ name: "s", count: 3 })).toEqual(hours(1, 2, 3));
    expect(await next({ cron: "@hourly", count: 50 })).toEqual(
      hours(...Array.from({ length: 50 }, (_, i) => i + 1)),
    );
    await hourly.set({ endAt: HOUR_BEFORE + 3 * HOUR });
    expect(await next({ name: "s", count: 100 })).toEqual(hours(1, 2));
    await hourly.set({ enabled: false });
    expect(await next({ name: "s" })).toEqual([]);
    await expect(next({ name: "t" })).rejects.toMatchObject({
      kind: "not_found",
      details: { what: "schedule" },
    });
  });
});

test("a driver that awaits between its steps enqueues the same", async () => {
  const hourly = new Hourly({ postgresql: null });
  await hourly.set({ overlap: "all", missed: "all" });
  await hourly.set({ name: "t", queue: "q", everyMs: HOUR, missed: "none" });
  await hourly.set({ name: "u", queue: "q", everyMs: HOUR, overlap: "skip" });
  hourly.pawl.close();
  const expired = async (copy: string, perform: (operation: Operation<number>) => Promise<number>) => {
    const wallMs = START + 5 * HOUR;
    const effects = envOf({} as Partial<Env>) as unknown as Env["effects"];
    const quiet = new Proxy(effects, { get: () => () => {} });
    const random = () => Buffer.alloc(12, copy.length);
    const env = {
      now: wallMs,
      retentionNow: wallMs,
      wallMs,
      retentionMs: DAY,
      mayWait: false,
      mayGoOn: true,
      idMark: "",
    };
    for (let done = 1; done > 0; ) {
      const turn = new TurnMemory();
      done = await perform(
        (function* () {
          const rows = yield* occurrences.expire(envOf({ ...env, turn, random, effects: quiet }), 2);
          yield* turn.writeBack();
          return rows;
        })(),
      );
    }
  };
  const contents: unknown[] = [];
  for (const driver of ["s", "a"]) {
    const path = join(dirname(hourly.pawl.path), `${driver}.db`);
    copyFileSync(hourly.pawl.path, path);
    const database = connect(path);
    const store = new SqliteStore(database);
    await expired("same", async (operation) => {
      if (driver === "a") return await driveWithAwaits(database, operation);
      store.begin();
      const done = store.perform(operation);
      store.commit();
      return done;
    });
    const keys = database.prepare("SELECT source_key FROM pawl_batch ORDER BY enqueue_seq").pluck().all();
    contents.push([keys, database.prepare("SELECT * FROM pawl_schedule").all()]);
    database.close();
  }
  expect((contents[0] as [unknown[]])[0]).toHaveLength(7);
  expect(contents[1]).toEqual(contents[0]);
});

test("a schedule whose time zone is not known any more stands still, and the others go on", async () => {
  const hourly = new Hourly();
  await hourly.set({ overlap: "all" });
  await hourly.set({ name: "t", queue: "other" });
  hourly.pawl.close();
  changeRows(hourly.pawl.path, "UPDATE pawl_schedule SET time_zone = 'Mars/Olympus' WHERE name = 't'");
  const after = new Hourly({ path: hourly.pawl.path, time: hourly.time });
  await after.pass(HOUR);
  expect(await after.hours()).toEqual([1]);
  expect(await after.pawl.call("schedule.get", { name: "t" })).toMatchObject({ schedule: { nextAt: null } });
  expect(after.pawl.rolledBack).toEqual([]);
});

test("one that stands still goes on when it is set anew as it was, once it can be read", async () => {
  const hourly = new Hourly();
  await hourly.set({ timeZone: "Europe/Berlin" });
  hourly.pawl.close();
  const turnZone = (from: string, to: string): void =>
    changeRows(hourly.pawl.path, `UPDATE pawl_schedule SET time_zone = '${to}' WHERE time_zone = '${from}'`);
  turnZone("Europe/Berlin", "Mars/Olympus");
  const still = new Hourly({ path: hourly.pawl.path, time: hourly.time });
  await still.pass(HOUR);
  expect(await still.get()).toMatchObject({ nextAt: null });
  still.pawl.close();
  turnZone("Mars/Olympus", "Europe/Berlin");
  const after = new Hourly({ path: hourly.pawl.path, time: hourly.time });
  expect(await after.set({ timeZone: "Europe/Berlin" })).toMatchObject({ nextAt: HOUR_BEFORE + 2 * HOUR });
  await after.pass(HOUR);
  expect(await after.hours()).toEqual([2]);
});
