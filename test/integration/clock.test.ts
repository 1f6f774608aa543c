// The wall clock is set under a running daemon, and between its lives (libfaketime; only the wall clock is faked).
import type { Result } from "@pawl/protocol";
import { describe, expect, test, vi } from "vitest";
import { ClockPlace, library } from "../clock-place.js";
import { type DaemonProcess, NAMES_ARE_SHARED, type Place } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { pawl } from "./cli-program.js";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const YEAR_MS = 365 * DAY_MS;
/** A grant or a delay of so long outlives each test. */
const LONG_MS = 600_000;
const TTL_MS = 1500;
/** How long an answer may take on a machine that is busy: far from an hour. */
const ANSWERED_MS = 5000;
/** Between two readings of two clocks by two processes. */
const SLACK_MS = 20;

const STEPS = [
  ["8 hours", 8 * HOUR_MS],
  ["9 days", 9 * DAY_MS],
  ["a year", YEAR_MS],
] as const;
const BOTH_WAYS = STEPS.flatMap(([by, ms]) => [
  [`forward by ${by}`, ms] as const,
  [`back by ${by}`, -ms] as const,
]);

/** One of everything that time ends or begins, given as a duration, and the same by times that are named. */
class Scene {
  readonly #client: RawClient;
  readonly #began = performance.now();

  private constructor(client: RawClient) {
    this.#client = client;
  }

  static async make(client: RawClient, named: number): Promise<Scene> {
    await client.call("lease.acquire", { name: "lease", owner: "a", ttlMs: LONG_MS });
    await client.call("queue.enqueue", { queue: "claimed", payloads: [1] });
    await client.call("queue.claim", { queue: "claimed", owner: "a", leaseMs: LONG_MS });
    await client.call("command.create", { deployment: "leased", command: "c" });
    await client.call("command.lease", { deployment: "leased", owner: "a", leaseMs: LONG_MS });
    await client.call("queue.enqueue", { queue: "delayed", payloads: [1], delayMs: LONG_MS });
    await client.call("command.create", { deployment: "ttl", command: "c", ttlMs: LONG_MS });
    await client.call("sequence.next", { type: "FR", requestId: "once" });
    await client.call("command.create", { deployment: "keyed", command: "c", idempotencyKey: "once" });
    await client.call("queue.enqueue", { queue: "kept", payloads: [1], sourceKey: "once" });
    const { claim } = await client.call("queue.claim", { queue: "kept", owner: "a" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    await client.call("queue.complete", { claimId, leaseToken });
    await client.call("pipeline.write", { storyId: "FR-1", stage: "1_backlog", name: "first" });
    await client.call("queue.enqueue", { queue: "named", payloads: [1], availableAt: named });
    await client.call("command.create", { deployment: "named", command: "c", deadline: named });
    return new Scene(client);
  }

  /** The scene after a restart. */
  on(client: RawClient): Scene {
    const scene = new Scene(client);
    return Object.assign(scene, { began: this.#began });
  }

  /** Everything given as a duration goes on by the time that has passed, and its end is shown by the wall clock. */
  async expectDurations(): Promise<void> {
    const client = this.#client;
    const { now } = await client.call("daemon.ping", {});
    const { lease } = await client.call("lease.get", { name: "lease" });
    const claimed = await this.batch("claimed");
    const leased = await this.command("leased");
    for (const held of [lease, claimed.claim, leased.lease]) {
      expect(held?.remainingMs).toBeGreaterThan(LONG_MS - 60_000);
      expect(held?.remainingMs).toBeLessThanOrEqual(LONG_MS);
      this.expectShown(held?.expiresAt as number, held?.remainingMs as number, now);
    }
    const delayed = await this.batch("delayed");
    const ttl = await this.command("ttl");
    expect([delayed.state, ttl.state]).toEqual(["scheduled", "PENDING"]);
    for (const end of [delayed.availableAt, ttl.deadline as number]) {
      expect(end - now).toBeGreaterThan(LONG_MS - 60_000);
      expect(end - now).toBeLessThanOrEqual(LONG_MS);
    }
    expect((await client.call("sequence.next", { type: "FR", requestId: "once" })).seq).toBe(1);
    const again = { deployment: "keyed", command: "c", idempotencyKey: "once" };
    expect((await client.call("command.create", again)).created).toBe(false);
    const kept = { queue: "kept", payloads: [1], sourceKey: "once" };
    expect((await client.call("queue.enqueue", kept)).created).toBe(false);
    const { item } = await client.call("pipeline.write", { storyId: "FR-1", name: `at ${now}` });
    expect(item.name).toBe(`at ${now}`);
  }

  private expectShown(expiresAt: number, remainingMs: number, now: number): void {
    expect(expiresAt - remainingMs).toBeGreaterThanOrEqual(now);
    expect(expiresAt - remainingMs).toBeLessThan(now + ANSWERED_MS);
  }

  async expectNamed(hasCome: boolean): Promise<void> {
    const { state } = await this.batch("named");
    expect([state, (await this.command("named")).state]).toEqual(
      hasCome ? ["ready", "EXPIRED"] : ["scheduled", "PENDING"],
    );
  }

  async batch(queue: string): Promise<Result<"queue.get">["batch"]> {
    const { batches } = await this.#client.call("queue.list", { queue });
    return batches[0] as Result<"queue.get">["batch"];
  }

  async command(deployment: string): Promise<Result<"command.get">> {
    const { commands } = await this.#client.call("command.list", { deployment });
    return commands[0] as Result<"command.get">;
  }
}

// Shared names follow the clock of the server.
describe.skipIf(library === undefined || NAMES_ARE_SHARED)("a clock that is set", () => {
  test.each(BOTH_WAYS)("%s, and right again", async (_how, byMs) => {
    const place = new ClockPlace();
    place.setClock(0);
    const daemon = await place.startWithClock();
    const client = await place.connect();
    expect((await client.call("daemon.info", {})).clock).toBeNull();
    const named = Date.now() + HOUR_MS;
    const scene = await Scene.make(client, named);
    await scene.expectDurations();
    await scene.expectNamed(false);

    place.setClock(byMs);
    const { now } = await client.call("daemon.ping", {});
    expect(Math.abs(now - Date.now() - byMs)).toBeLessThan(ANSWERED_MS);
    await scene.expectDurations();
    await scene.expectNamed(byMs > 0);
    await expectTold(place, daemon, byMs, 1);

    place.setClock(0);
    await scene.expectDurations();
    // A time that has come stays come.
    await scene.expectNamed(byMs > 0);
    await expectTold(place, daemon, -byMs, 2);
  });

  test.each(BOTH_WAYS)("%s over a restart, and right again over another", async (_how, byMs) => {
    const place = new ClockPlace();
    place.setClock(0);
    let daemon = await place.startWithClock();
    const scene = await Scene.make(await place.connect(), Date.now() + HOUR_MS);
    for (const [offset, step] of [
      [byMs, byMs],
      [0, -byMs],
    ] as const) {
      await daemon.end("SIGKILL");
      place.setClock(offset);
      daemon = await place.startWithClock();
      const after = scene.on(await place.connect());
      await after.expectDurations();
      await after.expectNamed(byMs > 0);
      await expectTold(place, daemon, step, 1);
    }
  });

  test("for 3 seconds ends nothing and is told twice", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    const daemon = await place.startWithClock();
    const client = await place.connect();
    const scene = await Scene.make(client, Date.now() + HOUR_MS);
    place.setClock(3000);
    await scene.expectDurations();
    await scene.expectNamed(false);
    await expectTold(place, daemon, 3000, 1);
    place.setClock(0);
    await scene.expectDurations();
    await expectTold(place, daemon, -3000, 2);
  });

  test("brings what was named to whoever waits for it, though nobody asks", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    await place.startWithClock();
    const client = await place.connect();
    const at = Date.now() + 8 * HOUR_MS;
    await client.call("queue.enqueue", { queue: "q", payloads: [1], availableAt: at });
    const { commandId } = await client.call("command.create", {
      deployment: "d",
      command: "c",
      deadline: at,
    });
    const claimed = client.call("queue.claim", { queue: "q", owner: "a", waitMs: 60_000 });
    const ended = client.call("command.wait", { commandId, waitMs: 60_000 });
    await client.call("daemon.ping", {});
    place.setClock(8 * HOUR_MS);
    const set = performance.now();
    expect((await claimed).claim?.batches[0]).toMatchObject({ availableAt: at });
    expect(await ended).toMatchObject({ state: "EXPIRED", deadline: at });
    expect(performance.now() - set).toBeLessThan(ANSWERED_MS);
  });

  test.each([
    ["forward by an hour", [HOUR_MS]],
    ["back by an hour", [-HOUR_MS]],
    ["forward and back", [HOUR_MS, -HOUR_MS]],
    ["forward again and again", [HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]],
  ])("%s: a lease ends when it would have", async (_how, offsets) => {
    const place = new ClockPlace();
    place.setClock(0);
    await place.startWithClock();
    const holder = await place.connect();
    const waiter = await place.connect();
    const asked = performance.now();
    const { lease } = await holder.call("lease.acquire", { name: "short", owner: "a", ttlMs: TTL_MS });
    const granted = waiter.call("lease.acquire", {
      name: "short",
      owner: "b",
      waitMs: 60_000,
      ttlMs: TTL_MS,
    });
    await waiter.call("daemon.ping", {});
    for (const offset of offsets) {
      place.setClock(offset);
      await holder.call("daemon.ping", {});
    }
    expect((await granted).lease.fencingToken).toBe(lease.fencingToken + 1);
    expect(performance.now() - asked).toBeGreaterThanOrEqual(TTL_MS - SLACK_MS);
    expect(performance.now() - asked).toBeLessThan(TTL_MS + ANSWERED_MS);
    expectRefusal(await holder.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
  });

  test("a wait lasts as long as was asked for", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    await place.startWithClock();
    const client = await place.connect();
    await client.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
    for (const offset of [HOUR_MS, -HOUR_MS]) {
      const start = performance.now();
      const refused = client.refusal("lease.acquire", { name: "a", owner: "b", waitMs: 500 });
      await client.call("daemon.ping", {});
      place.setClock(offset);
      await client.call("daemon.ping", {});
      expectRefusal(await refused, "lease_held");
      expect(performance.now() - start).toBeGreaterThanOrEqual(500 - SLACK_MS);
      expect(performance.now() - start).toBeLessThan(500 + ANSWERED_MS);
    }
  });

  test("over a restart with the clock set back, no lease is revived or prolonged", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    const daemon = await place.startWithClock();
    const client = await place.connect();
    const { lease } = await client.call("lease.acquire", { name: "a", owner: "a", ttlMs: 200 });
    await client.call("lease.acquire", { name: "a", owner: "b", waitMs: 5000, ttlMs: LONG_MS });
    const { lease: before } = await client.call("lease.get", { name: "a" });
    await daemon.end("SIGKILL");
    place.setClock(-HOUR_MS);
    await place.startWithClock();
    const later = await place.connect();
    expectRefusal(await later.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
    const { lease: after } = await later.call("lease.get", { name: "a" });
    expect(after?.remainingMs).toBeLessThanOrEqual(before?.remainingMs as number);
  });
});

/** A step is in the log, in `daemon.info` and in `pawl status`. */
async function expectTold(place: Place, daemon: DaemonProcess, byMs: number, steps: number): Promise<void> {
  const client = await place.connect();
  const { clock } = await client.call("daemon.info", {});
  expect(Math.abs((clock?.byMs as number) - byMs)).toBeLessThan(ANSWERED_MS);
  const logged = () => daemon.log.filter(({ byMs: each }) => each !== undefined);
  await vi.waitFor(() => expect(logged().length).toBe(steps));
  expect(logged().at(-1)).toMatchObject({ level: "warn", ...clock });
  const { stdout } = await pawl(["status"], { socket: place.socket });
  expect(stdout).toMatch(byMs > 0 ? /Clock +set forward by / : /Clock +set back by /);
}
