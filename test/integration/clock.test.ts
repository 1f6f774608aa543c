// The wall clock jumps under a running daemon, and between its lives (libfaketime; only the wall clock is faked).
import { existsSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, Place } from "../daemon.js";
import { expectRefusal } from "../refusal.js";

const HOUR_MS = 3_600_000;
const TTL_MS = 1500;
/** How long an answer may take on a machine that is busy: far from an hour. */
const ANSWERED_MS = 2000;
/** Between two readings of two clocks by two processes. */
const SLACK_MS = 20;

const library = readdirSync("/usr/lib")
  .map((directory) => join("/usr/lib", directory, "faketime/libfaketimeMT.so.1"))
  .find((path) => existsSync(path));
if (library === undefined) {
  console.warn(
    "The tests of the clock are skipped: libfaketime is not installed (Debian: apt-get install faketime).",
  );
}

/** A place whose daemons have a wall clock that the test sets. */
class ClockPlace extends Place {
  get #file(): string {
    return join(this.directory, "clock");
  }

  /** Sets the wall clock of the daemon, running or to come, to so much before or after the real one. */
  setClock(offsetMs: number): void {
    const seconds = offsetMs / 1000;
    writeFileSync(`${this.#file}.new`, `${seconds >= 0 ? "+" : ""}${seconds}`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  startWithClock(): Promise<DaemonProcess> {
    return this.start({
      env: {
        LD_PRELOAD: library as string,
        FAKETIME_TIMESTAMP_FILE: this.#file,
        FAKETIME_NO_CACHE: "1",
        FAKETIME_DONT_FAKE_MONOTONIC: "1",
        DONT_FAKE_MONOTONIC: "1",
      },
    });
  }
}

describe.skipIf(library === undefined)("a clock that is set", () => {
  test.each([
    ["forward by an hour", [HOUR_MS]],
    ["back by an hour", [-HOUR_MS]],
    ["forward and back", [HOUR_MS, -HOUR_MS]],
    ["forward again and again", [HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]],
  ])("%s: a lease neither ends early nor lives longer", async (_how, offsets) => {
    const place = new ClockPlace();
    place.setClock(0);
    await place.startWithClock();
    const holder = await place.connect();
    const waiter = await place.connect();
    const observer = await place.connect();

    const asked = performance.now();
    const { lease } = await holder.call("lease.acquire", { name: "short", owner: "a", ttlMs: TTL_MS });
    const acquired = performance.now();
    const long = await holder.call("lease.acquire", { name: "long", owner: "a", ttlMs: 10 * HOUR_MS });
    const granted = waiter.call("lease.acquire", {
      name: "short",
      owner: "b",
      waitMs: 60_000,
      ttlMs: TTL_MS,
    });
    await waiter.call("daemon.ping", {});

    let { expiresAt } = lease;
    let before = (await observer.call("daemon.ping", {})).now;
    for (const offset of offsets) {
      place.setClock(offset);
      const { now } = await observer.call("daemon.ping", {});
      expect(now).toBeGreaterThanOrEqual(before);
      before = now;
      const { lease: shown } = await observer.call("lease.get", { name: "short" });
      const passed = performance.now() - acquired;
      expect(shown).toMatchObject({ owner: "a", fencingToken: lease.fencingToken });
      expect(shown?.remainingMs).toBeGreaterThanOrEqual(TTL_MS - (performance.now() - asked) - SLACK_MS);
      expect(shown?.remainingMs).toBeLessThanOrEqual(TTL_MS - passed + ANSWERED_MS);
      expiresAt = shown?.expiresAt as number;
    }
    const { lease: kept } = await observer.call("lease.get", { name: "long" });
    expect(kept?.remainingMs).toBeGreaterThan(10 * HOUR_MS - 10_000);
    expect(kept?.remainingMs).toBeLessThanOrEqual(10 * HOUR_MS);
    expect(kept?.fencingToken).toBe(long.lease.fencingToken);

    const next = (await granted).lease;
    const held = performance.now();
    expect(held - asked).toBeGreaterThanOrEqual(TTL_MS);
    expect(held - asked).toBeLessThan(TTL_MS + ANSWERED_MS);
    expect(next.acquiredAt).toBeGreaterThanOrEqual(expiresAt);
    expect(next.acquiredAt).toBeLessThan(expiresAt + ANSWERED_MS);
    expect(next.fencingToken).toBe(lease.fencingToken + 1);
    expectRefusal(await holder.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
  });

  test("the clock follows a step forward", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    await place.startWithClock();
    const client = await place.connect();
    const before = (await client.call("daemon.ping", {})).now;
    place.setClock(HOUR_MS);
    const { now } = await client.call("daemon.ping", {});
    expect(now - before).toBeGreaterThanOrEqual(HOUR_MS);
    expect(now - before).toBeLessThan(HOUR_MS + 10_000);
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
    let daemon = await place.startWithClock();
    let client = await place.connect();
    const ended = (await client.call("lease.acquire", { name: "ended", owner: "a", ttlMs: 200 })).lease;
    const waited = await client.call("lease.acquire", {
      name: "ended",
      owner: "b",
      waitMs: 5000,
      ttlMs: 200,
    });
    const kept = (await client.call("lease.acquire", { name: "kept", owner: "a", ttlMs: HOUR_MS })).lease;
    // Nothing is written between the end of this lease and the death of the daemon but that it ended.
    for (;;) {
      const { lease } = await client.call("lease.get", { name: "ended" });
      if (lease === null) break;
    }
    const { lease: before } = await client.call("lease.get", { name: "kept" });
    await daemon.end("SIGKILL");

    place.setClock(-HOUR_MS);
    daemon = await place.startWithClock();
    client = await place.connect();
    expect((await client.call("daemon.ping", {})).now).toBeGreaterThanOrEqual(waited.lease.expiresAt);
    expect(await client.call("lease.get", { name: "ended" })).toEqual({ lease: null });
    for (const { leaseId } of [ended, waited.lease]) {
      expectRefusal(await client.refusal("lease.heartbeat", { leaseId }), "lease_lost");
    }
    const { lease: after } = await client.call("lease.get", { name: "kept" });
    expect(after?.expiresAt).toBe(kept.expiresAt);
    // What passed since the last write before the death of the daemon is not known to anybody.
    expect(after?.remainingMs).toBeLessThanOrEqual((before?.remainingMs as number) + 5000);
    expect((await client.call("lease.acquire", { name: "ended", owner: "c" })).lease.fencingToken).toBe(3);
    expect(await daemon.end()).toBe(0);
  });

  test("over a restart with the clock set forward, what has ended meanwhile has ended", async () => {
    const place = new ClockPlace();
    place.setClock(0);
    const daemon = await place.startWithClock();
    const client = await place.connect();
    const { lease } = await client.call("lease.acquire", { name: "a", owner: "a", ttlMs: HOUR_MS / 2 });
    await daemon.end("SIGKILL");
    place.setClock(HOUR_MS);
    await place.startWithClock();
    const later = await place.connect();
    expect(await later.call("lease.get", { name: "a" })).toEqual({ lease: null });
    expectRefusal(await later.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
    expect((await later.call("lease.acquire", { name: "a", owner: "b" })).lease.fencingToken).toBe(2);
  });
});
