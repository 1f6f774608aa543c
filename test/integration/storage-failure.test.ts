// The disk is full, or fails: with real file systems and real system calls.
// Not over shared names: it is about the daemon's own database.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type DaemonProcess, Place, privateDirectory } from "../daemon.js";
import { FailingIo, noCompiler } from "../history/failing-io.js";
import { type RawClient, type RawReply, Refused } from "../raw-client.js";
import { expectRefusal, refusedStart } from "../refusal.js";
import { mountDisk, noMount } from "../small-disk.js";
import { until } from "../until.js";

const DISK_BYTES = 3 * 1024 * 1024;

const noTrace = (() => {
  const { status, stderr, error } = spawnSync("strace", ["-e", "inject=fsync:error=EIO", "true"], {
    encoding: "utf8",
  });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
})();
if (noTrace !== undefined)
  console.warn(`The tests of a failing disk are skipped: strace does not work (${noTrace}).`);

/** A place whose state directory is a small file system of its own. */
function smallPlace(): Place {
  const place = new Place(privateDirectory());
  expect(mountDisk(place.stateDir, DISK_BYTES)).toBeUndefined();
  onTestFinished(() => void spawnSync("umount", ["-l", place.stateDir]));
  return place;
}

/** Takes all the space there is, and returns how to give it back. */
function fill(place: Place, number = 0): () => void {
  const path = join(place.stateDir, `filler-${number}`);
  const file = openSync(path, "w");
  for (let bytes = 64 * 1024; bytes >= 1; ) {
    try {
      writeSync(file, Buffer.alloc(bytes));
    } catch {
      bytes = Math.floor(bytes / 2);
    }
  }
  closeSync(file);
  return () => rmSync(path);
}

/**
 * Fills the disk until not even the smallest write finds space: a refused write of several pages may leave room for
 * a smaller one. Returns how to give all of it back.
 */
async function fillWholly(place: Place, client: RawClient): Promise<() => void> {
  const giveBacks = [fill(place, 0)];
  for (let refused = 0; refused < 2; ) {
    const { last } = await nextUntilRefused(client, "FR");
    refused = last === 0 ? refused + 1 : 0;
    giveBacks.push(fill(place, giveBacks.length));
  }
  return () => {
    for (const giveBack of giveBacks) giveBack();
  };
}

/** Takes numbers until one is refused; returns the last number that was answered, and the refusal. */
async function nextUntilRefused(
  client: RawClient,
  type: string,
): Promise<{ last: number; refused: Refused }> {
  for (let last = 0; ; ) {
    try {
      last = (await client.call("sequence.next", { type })).seq;
    } catch (error) {
      return { last, refused: error as Refused };
    }
  }
}

describe.skipIf(noMount !== undefined)(
  "what is in the way of a start is not whose the directory is, but",
  () => {
    test("that there is no space left", async () => {
      const place = smallPlace();
      const giveBack = fill(place);
      const message = await refusedStart(place.spawn());
      expect(message).toContain(join(place.stateDir, "pawl.db"));
      expect(message).toContain("There is no space left on its file system. Make some");
      giveBack();
      await place.start();
      expect(await place.next()).toBe(1);
    });

    test("that it is mounted read-only", async () => {
      const place = smallPlace();
      await (await place.start()).end();
      expect(spawnSync("mount", ["-o", "remount,ro", place.stateDir]).status).toBe(0);
      const message = await refusedStart(place.spawn());
      expect(message).toContain("is on a file system that is mounted read-only. Mount it for writing");
    });
  },
);

describe.skipIf(noMount !== undefined)("a full disk", () => {
  test("refuses writes, serves reads, and takes writes again by itself once there is space", async () => {
    const place = smallPlace();
    const daemon = await place.start();
    const client = await place.connect();
    await client.call("lease.acquire", { name: "held", owner: "a", ttlMs: 60_000 });
    const giveBack = fill(place);

    const { last, refused } = await nextUntilRefused(client, "FR");
    const error = expectRefusal(refused.error, "unavailable");
    expect(error.data).toMatchObject({ retryable: true, reason: "disk_full" });
    for (let round = 0; round < 20; round += 1) {
      expectRefusal(await client.refusal("sequence.next", { type: "FR" }), "unavailable");
      expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(last + 1);
      expect((await client.call("lease.get", { name: "held" })).lease).toMatchObject({ owner: "a" });
      expectRefusal(await client.refusal("lease.acquire", { name: "other", owner: "a" }), "unavailable");
    }
    // In one turn, where reads stand between writes.
    const names = ["sequence.next", "sequence.peek", "sequence.next", "sequence.peek"];
    client.write(
      names
        .map((method, id) => `${JSON.stringify({ jsonrpc: "2.0", id, method, params: { type: "FR" } })}\n`)
        .join(""),
    );
    const replies: RawReply[] = [];
    for (const _ of names) replies.push(await client.reply());
    for (const { id, result, error: failed } of replies) {
      if (id === 0 || id === 2) expectRefusal(failed, "unavailable");
      else expect(result).toMatchObject({ seq: last + 1 });
    }
    const call = { method: "sequence.next", params: { type: "FR" } };
    const refusedAll = await client.refusal("transact", { calls: [call, call] });
    expectRefusal(refusedAll, "unavailable");

    giveBack();
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(last + 1);
    expect((await client.call("lease.acquire", { name: "other", owner: "a" })).lease.fencingToken).toBe(1);
    await daemon.logged(({ level, msg }) => level === "info" && /space/.test(msg));
    const told = daemon.log.filter(({ msg }) => /space/.test(msg)).map(({ level }) => level);
    expect(told).toEqual(["error", "info"]);

    await daemon.end("SIGKILL");
    const restarted = await place.start();
    const later = await place.connect();
    expect((await later.call("sequence.next", { type: "FR" })).seq).toBe(last + 2);
    expect((await later.call("lease.get", { name: "held" })).lease).toMatchObject({ fencingToken: 1 });
    expect(await restarted.end()).toBe(0);
  });

  test("does not keep a lease alive, and its waiter gets it once there is space", async () => {
    const place = smallPlace();
    await place.start();
    const holder = await place.connect();
    const waiter = await place.connect();
    // Long enough for the disk to be filled on a busy machine.
    const { lease } = await holder.call("lease.acquire", { name: "a", owner: "a", ttlMs: 5000 });
    const granted = waiter.call("lease.acquire", { name: "a", owner: "b", waitMs: 60_000 });
    await waiter.call("daemon.ping", {});
    const giveBack = await fillWholly(place, holder);
    await until(async () => (await holder.call("daemon.ping", {})).now >= lease.expiresAt);
    expect(await holder.call("lease.get", { name: "a" })).toMatchObject({ lease: null, holders: [] });
    expectRefusal(await holder.refusal("lease.heartbeat", { leaseId: lease.leaseId }), "lease_lost");
    expect(await holder.call("lease.check", { name: "a", fencingToken: 1 })).toEqual({
      current: false,
      highest: 1,
    });
    giveBack();
    expect((await granted).lease.fencingToken).toBe(2);
  });

  test("has nobody told that there is nothing, where something has ended that it cannot give", async () => {
    const place = smallPlace();
    await place.start();
    const client = await place.connect();
    await client.call("queue.enqueue", { queue: "q", payloads: [1], retry: { baseMs: 0 } });
    const { commandId } = await client.call("command.create", { deployment: "d", command: "c" });
    const { claim } = await client.call("queue.claim", { queue: "q", owner: "a", leaseMs: 400 });
    const { leases } = await client.call("command.lease", { deployment: "d", owner: "a", leaseMs: 400 });
    const leaseId = leases[0]?.leaseId as string;
    const giveBack = await fillWholly(place, client);
    const ended = Math.max(claim?.expiresAt as number, leases[0]?.leaseExpiresAt as number);
    await until(async () => (await client.call("daemon.ping", {})).now >= ended);

    expectRefusal(await client.refusal("queue.claim", { queue: "q", owner: "b" }), "unavailable");
    expectRefusal(await client.refusal("queue.claim", { queue: "q", owner: "b", waitMs: 50 }), "unavailable");
    expectRefusal(await client.refusal("command.lease", { deployment: "d", owner: "b" }), "unavailable");
    expectRefusal(await client.refusal("command.renew", { leaseId }), "lease_lost");
    expect(await client.call("command.get", { commandId })).toMatchObject({ state: "PENDING", attempt: 2 });

    // With the first turn that finds space, what is due has ended before anything is judged by it.
    giveBack();
    const response = { status: "success", response: 1 } as const;
    await client.call("command.respond", { commandId, leaseId, response });
    expect(await client.call("command.get", { commandId })).toMatchObject({ state: "SUCCEEDED", attempt: 2 });
    expect((await client.call("queue.claim", { queue: "q", owner: "b" })).claim?.fencingToken).toBe(2);
  });

  test("does not keep what ended with a connection", async () => {
    const place = smallPlace();
    await place.start();
    const holder = await place.connect();
    const waiter = await place.connect();
    const params = { name: "a", owner: "a", ttlMs: 3_600_000, releaseOn: "disconnect" } as const;
    await holder.call("lease.acquire", params);
    const granted = waiter.call("lease.acquire", { name: "a", owner: "b", waitMs: 60_000 });
    await waiter.call("daemon.ping", {});
    const giveBack = await fillWholly(place, holder);
    await holder.destroy();
    expect((await (await place.connect()).call("lease.get", { name: "a" })).lease).toMatchObject({
      owner: "a",
    });
    giveBack();
    expect((await granted).lease.fencingToken).toBe(2);
  });

  test.each([
    ["was stopped", "SIGTERM"],
    ["was killed", "SIGKILL"],
  ] as const)(
    "at the start of one that %s has reads be served, and writes once there is space",
    async (_, signal) => {
      const place = smallPlace();
      const before = await place.start();
      const holder = await place.connect();
      const params = { name: "held", owner: "a", ttlMs: 600_000, releaseOn: "disconnect" } as const;
      await holder.call("lease.acquire", params);
      expect(await place.next()).toBe(1);
      await before.end(signal);
      const giveBack = fill(place);

      const daemon = await place.start();
      const client = await place.connect();
      expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(2);
      expect((await client.call("lease.get", { name: "held" })).lease).toMatchObject({ owner: "a" });
      for (let round = 0; round < 3; round += 1) {
        const refused = expectRefusal(await client.refusal("sequence.next", { type: "FR" }), "unavailable");
        expect(refused.data).toMatchObject({ reason: "disk_full" });
      }
      expect(await daemon.logged(({ msg }) => msg.startsWith("no space left"))).toMatchObject({
        level: "error",
      });

      giveBack();
      await vi.waitFor(async () => expect(await place.next()).toBe(2), { timeout: 10_000 });
      await daemon.logged(({ msg }) => msg.startsWith("there is space"));
      // The witness was written, and the database is as ever.
      await daemon.end("SIGKILL");
      const after = await place.start();
      expect(await place.next()).toBe(3);
      expect(after.log.filter(({ level }) => level !== "info")).toEqual([]);
    },
  );

  test("is in the way of a start that has to make tables, which says so", async () => {
    const place = smallPlace();
    const giveBack = fill(place);
    expect(await refusedStart(place.spawn())).toContain("There is no space left on its file system");
    giveBack();
    await place.start();
    expect(await place.next()).toBe(1);
  });

  test("still lets the daemon stop in order", async () => {
    const place = smallPlace();
    const daemon = await place.start();
    const client = await place.connect();
    const giveBack = fill(place);
    const { last } = await nextUntilRefused(client, "FR");
    expect(await daemon.end("SIGTERM")).toBe(0);
    giveBack();
    await place.start();
    const later = await place.connect();
    expect((await later.call("sequence.peek", { type: "FR" })).seq).toBe(last + 1);
  });
});

test.skipIf(noCompiler !== undefined)("a quota that is used up is like a full disk", async () => {
  const place = new Place();
  const io = new FailingIo(place.directory);
  onTestFinished(() => io.close());
  const daemon = await place.start({ env: io.env });
  const client = await place.connect();
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
  io.fail({ calls: "write", error: "EDQUOT" }, 0, 1_000_000);
  const refused = expectRefusal(await client.refusal("sequence.next", { type: "FR" }), "unavailable");
  expect(refused.data).toMatchObject({ reason: "disk_full" });
  expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(2);
  io.stop();
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(2);
  await daemon.logged(({ msg }) => msg.startsWith("there is space for the database again"));
  expect(daemon.log.filter(({ level }) => level !== "info")).toHaveLength(1);
  await daemon.end("SIGKILL");
  await place.start();
  expect(await place.next()).toBe(3);
});

describe("a limit of what a file may have (ulimit -f)", () => {
  const LIMIT_BYTES = 4 * 1024 * 1024;
  const PAYLOAD = "x".repeat(20_000);

  /** Enqueues until one is refused; returns that refusal. */
  async function enqueueUntilRefused(client: RawClient): Promise<Refused> {
    for (;;) {
      try {
        await client.call("queue.enqueue", { queue: "q", payloads: [PAYLOAD] });
      } catch (error) {
        return error as Refused;
      }
    }
  }

  function setLimit({ pid }: DaemonProcess, limit: string): void {
    expect(spawnSync("prlimit", ["--pid", `${pid}`, `--fsize=${limit}`]).status).toBe(0);
  }

  test("is like a full disk: reads go on, and writes once files may grow again", async () => {
    const place = new Place();
    const daemon = await place.start();
    const client = await place.connect();
    await client.call("lease.acquire", { name: "held", owner: "a", ttlMs: 60_000 });
    setLimit(daemon, `${LIMIT_BYTES}:`);

    const refused = expectRefusal((await enqueueUntilRefused(client)).error, "unavailable");
    expect(refused.data).toMatchObject({ retryable: true, reason: "disk_full" });
    expect((await client.call("lease.get", { name: "held" })).lease).toMatchObject({ owner: "a" });
    const { err } = await daemon.logged(({ msg }) => msg.startsWith("no space left"));
    expect(err).toMatchObject({ message: expect.stringContaining(`beyond ${LIMIT_BYTES} bytes`) });
    // What is in the log is moved into the database, as long as that may grow; then nothing is left.
    for (let times = 0; times < 3; ) {
      const before = (await client.call("queue.stats", {})).queues[0]?.ready;
      await enqueueUntilRefused(client);
      times = (await client.call("queue.stats", {})).queues[0]?.ready === before ? times + 1 : 0;
    }
    const refusedBackup = await client.refusal("daemon.backup", { path: join(place.directory, "backup") });
    expect(expectRefusal(refusedBackup, "unavailable").data).toMatchObject({ reason: "disk_full" });

    setLimit(daemon, "unlimited:");
    const { ready } = (await client.call("queue.stats", {})).queues[0] as { ready: number };
    await client.call("queue.enqueue", { queue: "q", payloads: [PAYLOAD] });
    expect((await client.call("daemon.check", {})).problems).toEqual([]);
    await daemon.logged(({ msg }) => msg.startsWith("there is space"));
    expect(daemon.log.filter(({ level }) => level === "error")).toHaveLength(1);
    await daemon.end("SIGKILL");
    await place.start();
    const [queue] = (await (await place.connect()).call("queue.stats", {})).queues;
    expect(queue?.ready).toBe(ready + 1);
  });

  test("that is there at the start has the log moved in time, so that nothing is refused for it", async () => {
    const place = new Place();
    const daemon = await place.start({ command: ["prlimit", `--fsize=${LIMIT_BYTES}`, process.execPath] });
    const client = await place.connect();
    // More than the log may have, in what is soon removed.
    for (let round = 0; round < 250; round += 1) {
      await client.call("queue.enqueue", {
        queue: "q",
        payloads: [PAYLOAD],
        sourceKey: "one",
        onExisting: "replace",
      });
    }
    expect(await daemon.end()).toBe(0);
    expect(daemon.log.filter(({ level }) => level !== "info")).toEqual([]);
  });

  test("that is too small for a start is named", async () => {
    const place = new Place();
    const command = ["prlimit", "--fsize=100000", process.execPath];
    const message = await refusedStart(place.spawn({ command }));
    expect(message).toContain("may not grow beyond 100000 bytes (ulimit -f, LimitFSIZE=)");
  });
});

/** Makes every fsync of a running daemon fail from now on, or from the `when`th on (strace(1), inject). */
async function failSync(daemon: DaemonProcess, when: string): Promise<ChildProcess> {
  const inject = `inject=fsync,fdatasync:error=EIO:when=${when}`;
  const strace = spawn(
    "strace",
    ["-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject, "-p", String(daemon.pid)],
    {
      stdio: ["ignore", "ignore", "inherit"],
    },
  );
  onTestFinished(() => void strace.kill("SIGKILL"));
  // It traces once the kernel says so (proc_pid_status(5)).
  const { readFileSync } = await import("node:fs");
  while (!/^TracerPid:\s+[1-9]/m.test(readFileSync(`/proc/${daemon.pid}/status`, "utf8"))) {
    expect([strace.exitCode, strace.signalCode]).toEqual([null, null]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return strace;
}

describe.skipIf(noTrace !== undefined)("a disk that fails", () => {
  test.each([
    ["for good", "1+"],
    ["once", "1"],
    ["after a while", "20+"],
  ])(
    "%s: the daemon ends with a failure, and what was answered, and nothing else, is there afterwards",
    async (_how, when) => {
      const place = new Place();
      const daemon = await place.start();
      const client = await place.connect();
      for (let round = 0; round < 10; round += 1) await client.call("sequence.next", { type: "FR" });
      await client.call("lease.acquire", { name: "held", owner: "a", ttlMs: 60_000 });
      await failSync(daemon, when);

      const others = await Promise.all(Array.from({ length: 8 }, () => place.connect()));
      const results = await Promise.all(
        others.map(async (other, index) => {
          const first = await nextUntilRefused(other, `T${index}`);
          return { ...first, type: `T${index}` };
        }),
      );
      expect(await daemon.exited).toBe(1);
      const told = results.filter(({ refused }) => refused instanceof Refused);
      expect(told.length).toBeGreaterThan(0);
      for (const { refused } of told) {
        const error = expectRefusal(refused.error, "unavailable");
        expect(error.data).toMatchObject({ reason: "storage_failed" });
      }
      expect(daemon.log.some(({ level }) => level === "fatal")).toBe(true);

      const restarted = await place.start();
      const later = await place.connect();
      const { sequences } = await later.call("sequence.state", {});
      const answered = results.filter(({ last }) => last > 0).map(({ type, last }) => [type, last]);
      expect(sequences).toEqual({ FR: 10, ...Object.fromEntries(answered) });
      expect((await later.call("lease.get", { name: "held" })).lease).toMatchObject({ fencingToken: 1 });
      expect(await restarted.end()).toBe(0);
    },
  );
});
