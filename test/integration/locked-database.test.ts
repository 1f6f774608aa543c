// Another program holds a lock on the database (spec: operations.md, Faults from outside).
// Not over shared names: it is about the daemon's own database.
import { statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type DaemonProcess, Place, startDaemon } from "../daemon.js";
import { OtherProgram } from "../other-program.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal, refusedStart } from "../refusal.js";
import { until } from "../until.js";
import { pawl } from "./cli-program.js";

const LOCK = "BEGIN IMMEDIATE";
const UNLOCK = "ROLLBACK";
/** Twice as long the database is locked: less than writes wait for it. */
const LEASE_MS = 1500;

const databaseOf = ({ stateDir }: Place): string => join(stateDir, "pawl.db");

/** Has another program lock the database of a daemon. */
async function lock(daemon: Pick<DaemonProcess, "place">): Promise<OtherProgram> {
  const other = await opened(daemon);
  await other.execute(LOCK);
  return other;
}

/** Another program that has the database open, and locks it as soon as it is told to: no lease ends before. */
async function opened({ place }: Pick<DaemonProcess, "place">): Promise<OtherProgram> {
  const other = new OtherProgram(databaseOf(place));
  await other.execute("PRAGMA user_version");
  return other;
}

async function passTime(client: RawClient, end: number): Promise<void> {
  await until(async () => (await client.call("daemon.ping", {})).now >= end);
}

/** Resolves to what is true of a promise at present. */
async function isPending(promise: Promise<unknown>, client: RawClient): Promise<boolean> {
  let pending = true;
  promise.then(
    () => {
      pending = false;
    },
    () => {
      pending = false;
    },
  );
  for (let turn = 0; turn < 20; turn += 1) await client.call("daemon.ping", {});
  return pending;
}

test("reads go on, writes wait, and those behind a write of the same connection wait with it", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const [writer, reader] = await Promise.all([place.connect(), place.connect()]);
  expect((await writer.call("sequence.next", { type: "FR" })).seq).toBe(1);
  const { lease } = await writer.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
  const other = await lock(daemon);

  const written = writer.call("sequence.next", { type: "FR" });
  const behind = writer.call("sequence.peek", { type: "FR" });
  expect(await isPending(Promise.race([written, behind]), reader)).toBe(true);
  expect((await reader.call("sequence.peek", { type: "FR" })).seq).toBe(2);
  expect((await reader.call("lease.get", { name: "a" })).lease).toMatchObject({ fencingToken: 1 });
  expect((await reader.call("daemon.stats", {})).connections.open).toBe(2);
  expect((await reader.call("queue.stats", {})).queues).toEqual([]);
  // In one batch, the reads before a write are not answered sooner, and those behind it see it.
  reader.write(
    `${JSON.stringify([
      { jsonrpc: "2.0", id: 1, method: "sequence.peek", params: { type: "BUG" } },
      { jsonrpc: "2.0", id: 2, method: "sequence.next", params: { type: "BUG" } },
      { jsonrpc: "2.0", id: 3, method: "sequence.peek", params: { type: "BUG" } },
    ])}\n`,
  );
  await other.execute(UNLOCK);
  expect((await written).seq).toBe(2);
  expect((await behind).seq).toBe(3);
  expect(JSON.parse(await reader.line())).toMatchObject([
    { id: 1, result: { seq: 1 } },
    { id: 2, result: { seq: 1 } },
    { id: 3, result: { seq: 2 } },
  ]);
  await writer.call("lease.release", { leaseId: lease.leaseId });
  expect(daemon.log.filter(({ level }) => level !== "info")).toEqual([]);
});

test("a lock that is held for ever has writes refused, in their order, by name, and the daemon stops", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const [first, second, reader] = await Promise.all([place.connect(), place.connect(), place.connect()]);
  await first.call("lease.acquire", { name: "held", owner: "a", ttlMs: 600_000 });
  const waiting = reader.refusal("lease.acquire", { name: "held", owner: "b", waitMs: 600_000 });
  await reader.call("daemon.ping", {});
  const other = await lock(daemon);

  const refused: string[] = [];
  const next = async (client: RawClient, name: string): Promise<void> => {
    const { data, message } = expectRefusal(
      await client.refusal("sequence.next", { type: "FR" }),
      "unavailable",
    );
    expect(data).toMatchObject({ reason: "database_locked", pid: other.pid });
    expect(message).toContain(`The process ${other.pid} has locked the database`);
    refused.push(name);
  };
  // All that one connection has sent has waited as long as its first.
  const all = [next(first, "1"), next(first, "2"), next(first, "3")];
  await reader.call("daemon.ping", {});
  expect(await daemon.logged(({ msg }) => msg.startsWith("another program has locked"))).toMatchObject({
    level: "warn",
    pid: other.pid,
  });
  all.push(next(second, "4"));
  expect((await reader.call("sequence.peek", { type: "FR" })).seq).toBe(1);
  await Promise.all(all);
  expect(refused).toEqual(["1", "2", "3", "4"]);

  const last = first.refusal("sequence.next", { type: "FR" });
  await reader.call("sequence.peek", { type: "FR" });
  daemon.child.kill("SIGTERM");
  expect(expectRefusal(await last, "unavailable").data.reason).toBe("stopping");
  expect(expectRefusal(await waiting, "unavailable").data.reason).toBe("stopping");
  expect(await daemon.exited).toBe(0);
  await other.execute(UNLOCK);
  const after = await place.start();
  expect(await place.next()).toBe(1);
  expect((await (await place.connect()).call("lease.get", { name: "held" })).lease).toMatchObject({
    owner: "a",
  });
  expect(after.log.filter(({ level }) => level !== "info")).toEqual([]);
});

test("nothing ends meanwhile, and what ran out is judged after the renewals that had arrived", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const other = await opened(daemon);
  const [holder, worker, waiter, reader] = await Promise.all([
    place.connect(),
    place.connect(),
    place.connect(),
    place.connect(),
  ]);
  await holder.call("queue.enqueue", { queue: "q", payloads: [1] });
  const renewed = await holder.call("lease.acquire", { name: "renewed", owner: "a", ttlMs: LEASE_MS });
  const dropped = await holder.call("lease.acquire", { name: "dropped", owner: "a", ttlMs: LEASE_MS });
  const { claim } = await worker.call("queue.claim", { queue: "q", owner: "a", leaseMs: LEASE_MS });
  const { commandId } = await worker.call("command.create", {
    deployment: "d",
    command: "c",
    ttlMs: LEASE_MS,
  });
  const late = await worker.call("command.create", { deployment: "d", command: "c", ttlMs: LEASE_MS });
  const [delivery] = (await worker.call("command.lease", { deployment: "d", owner: "a", leaseMs: LEASE_MS }))
    .leases;
  expect(delivery?.commandId).toBe(commandId);
  const [notYet, next] = ["renewed", "dropped"].map((name) =>
    waiter.call("lease.acquire", { name, owner: "b", waitMs: 600_000 }),
  );
  // The one that is not granted waits until the test ends.
  notYet?.catch(() => {});
  const timedOut = reader.refusal("lease.acquire", { name: "dropped", owner: "c", waitMs: LEASE_MS });
  await Promise.all([waiter, reader].map((client) => client.call("daemon.ping", {})));
  await other.execute(LOCK);

  const { leaseId } = renewed.lease;
  const heartbeat = holder.call("lease.heartbeat", { leaseId, ttlMs: 60_000 });
  const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
  const batch = worker.call("queue.renew", { claimId, leaseToken, leaseMs: 60_000 });
  const answer = worker.call("command.respond", {
    commandId,
    leaseId: delivery?.leaseId as string,
    response: { status: "success", response: 1 },
  });
  await passTime(reader, Math.max(renewed.lease.expiresAt, dropped.lease.expiresAt) + LEASE_MS);
  expectRefusal(await timedOut, "lease_held");
  for (const name of ["renewed", "dropped"]) {
    expect((await reader.call("lease.get", { name })).lease).toMatchObject({ owner: "a" });
    expect(await reader.call("lease.check", { name, fencingToken: 1 })).toMatchObject({ current: true });
  }
  expect((await reader.call("command.get", { commandId: late.commandId })).state).toBe("PENDING");

  await other.execute(UNLOCK);
  expect((await heartbeat).remainingMs).toBeGreaterThan(LEASE_MS);
  expect((await batch).remainingMs).toBeGreaterThan(LEASE_MS);
  expect(await answer).toMatchObject({ accepted: true, state: "SUCCEEDED" });
  const got = await next;
  expect(got?.lease).toMatchObject({ name: "dropped", fencingToken: dropped.lease.fencingToken + 1 });
  expect((await reader.call("lease.get", { name: "renewed" })).lease).toMatchObject({ owner: "a" });
  expect((await reader.call("command.get", { commandId: late.commandId })).state).toBe("EXPIRED");
  await worker.call("queue.complete", { claimId, leaseToken });
});

test("a deadline that comes by the wall clock meanwhile ends nothing that was answered by then", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const locking = await opened(daemon);
  const [sender, receiver, reader, waiter] = await Promise.all([
    place.connect(),
    place.connect(),
    place.connect(),
    place.connect(),
  ]);
  const { now } = await sender.call("daemon.ping", {});
  const deadline = now + LEASE_MS;
  const create = async (): Promise<string> =>
    (await sender.call("command.create", { deployment: "d", command: "c", deadline })).commandId;
  const [answered, taken, left] = [await create(), await create(), await create()];
  const { leases } = await receiver.call("command.lease", {
    deployment: "d",
    owner: "a",
    max: 2,
    leaseMs: 60_000,
  });
  const [delivery, other] = leases as [(typeof leases)[0], (typeof leases)[0]];
  expect([delivery.commandId, other.commandId]).toEqual([answered, taken]);
  const end = waiter.call("command.wait", { commandId: left, waitMs: 60_000 });
  await waiter.call("daemon.ping", {});
  await locking.execute(LOCK);

  const response = { status: "success", response: 1 } as const;
  const answer = receiver.call("command.respond", {
    commandId: answered,
    leaseId: delivery.leaseId,
    response,
  });
  await passTime(reader, deadline + LEASE_MS);
  for (const [commandId, state] of [
    [taken, "DISPATCHED"],
    [left, "PENDING"],
  ] as const) {
    expect(await reader.call("command.get", { commandId })).toMatchObject({ state, deadline });
  }
  await locking.execute(UNLOCK);
  expect(await answer).toEqual({ accepted: true, state: "SUCCEEDED" });
  expect(await end).toMatchObject({ state: "EXPIRED" });
  // Shown as it was named, as far as the clock was not set meanwhile.
  const shown = (await reader.call("command.get", { commandId: left })).deadline as number;
  expect(Math.abs(shown - deadline)).toBeLessThanOrEqual(2);
  const late = { commandId: taken, leaseId: other.leaseId, response } as const;
  await reader.call("command.wait", { commandId: taken, waitMs: 60_000 });
  expect(await receiver.call("command.respond", late)).toEqual({ accepted: false, state: "EXPIRED" });
});

test("a renewal that was refused leaves its grant to the next one", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const [holder, waiter] = await Promise.all([place.connect(), place.connect()]);
  const { lease } = await holder.call("lease.acquire", { name: "a", owner: "a", ttlMs: LEASE_MS });
  const other = await lock(daemon);
  const { leaseId } = lease;
  expectRefusal(await holder.refusal("lease.heartbeat", { leaseId }), "unavailable");
  const again = holder.call("lease.heartbeat", { leaseId, ttlMs: 60_000 });
  const refused = waiter.refusal("lease.acquire", { name: "a", owner: "b" });
  await (await place.connect()).call("daemon.ping", {});
  await other.execute(UNLOCK);
  expect((await again).remainingMs).toBeGreaterThan(LEASE_MS);
  expectRefusal(await refused, "lease_held");
});

test("what ends with its connection ends once something can be written, also if its program is killed", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const [holder, waiter, reader] = await Promise.all([place.connect(), place.connect(), place.connect()]);
  await holder.call("lease.acquire", { name: "a", owner: "a", ttlMs: 600_000, releaseOn: "disconnect" });
  const next = waiter.call("lease.acquire", { name: "a", owner: "b", waitMs: 600_000 });
  await waiter.call("daemon.ping", {});
  const other = await lock(daemon);
  holder.send({ jsonrpc: "2.0", id: 1, method: "sequence.next", params: { type: "FR" } });
  await holder.destroy();
  expect(await isPending(next, reader)).toBe(true);
  expect((await reader.call("lease.get", { name: "a" })).lease).toMatchObject({ owner: "a" });
  await other.kill();
  expect((await next).lease.fencingToken).toBe(2);
  // Sent before the connection closed.
  expect((await reader.call("sequence.peek", { type: "FR" })).seq).toBe(2);
});

test("a daemon that starts meanwhile serves reads, and writes once it can", async () => {
  const place = new Place();
  const before = await place.start();
  const holder = await place.connect();
  await holder.call("lease.acquire", { name: "a", owner: "a", ttlMs: 600_000, releaseOn: "disconnect" });
  expect(await place.next()).toBe(1);
  await before.end("SIGKILL");
  const other = await lock({ place });
  const daemon = await place.start();
  const client = await place.connect();
  expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(2);
  expect((await client.call("lease.get", { name: "a" })).lease).toMatchObject({ owner: "a" });
  const next = place.next();
  expect(await isPending(next, client)).toBe(true);
  expect((await client.call("daemon.stats", {})).leases.held).toBe(1);
  await other.execute(UNLOCK);
  expect(await next).toBe(2);
  // The time in which the holder may come back begins now.
  expect((await client.call("lease.get", { name: "a" })).lease).toMatchObject({ owner: "a" });
  expect(await daemon.end()).toBe(0);
});

test("a lock that keeps others from reading is in the way of a start, which names who holds it", async () => {
  const place = new Place();
  await (await place.start()).end();
  const other = new OtherProgram(databaseOf(place));
  await other.execute("PRAGMA locking_mode = EXCLUSIVE");
  await other.execute("BEGIN EXCLUSIVE");
  const message = await refusedStart(place.spawn());
  expect(message).toContain(`Another program (pid ${other.pid}) holds a lock on it`);
  await other.kill();
  await place.start();
  expect(await place.next()).toBe(1);
});

test("a program that writes again and again, and one that reads for ever, keep no write from being done", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const client = await place.connect();
  const other = new OtherProgram(databaseOf(place));
  const reading = new OtherProgram(databaseOf(place));
  await other.execute("CREATE TABLE theirs (a INTEGER)");
  await reading.execute("BEGIN");
  await reading.execute("SELECT * FROM pawl_meta");
  const writing = (async () => {
    for (let round = 0; round < 300; round += 1) await other.execute("INSERT INTO theirs VALUES (1)");
  })();
  for (let number = 1; number <= 300; number += 1) {
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(number);
  }
  await writing;
  expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(301);
  expect(await daemon.end()).toBe(0);
  await reading.kill();
  await place.start();
  expect(await place.next()).toBe(301);
});

test("a program that reads for ever has the log grow, which is told once; it is cut when that ends", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const client = await place.connect();
  const reading = new OtherProgram(databaseOf(place));
  await client.call("sequence.next", { type: "FR" });
  await reading.execute("BEGIN");
  await reading.execute("SELECT * FROM pawl_meta");
  const payloads = ["x".repeat(950_000)];
  const grow = async (): Promise<void> => {
    const params = { queue: "q", payloads, sourceKey: "one", onExisting: "replace" } as const;
    await client.call("queue.enqueue", params);
  };
  const bytesOf = (name: string): number => statSync(join(place.stateDir, name)).size;
  while (bytesOf("pawl.db-wal") < 80 * 1024 * 1024) await grow();
  expect(await daemon.logged(({ msg }) => msg.startsWith("the write-ahead log grows"))).toMatchObject({
    level: "warn",
    pid: reading.pid,
  });
  const { heldLog } = await client.call("daemon.info", {});
  expect(heldLog).toMatchObject({ pid: reading.pid });
  expect(heldLog?.walBytes).toBeGreaterThan(72 * 1024 * 1024);
  expect((await pawl(["status"], { socket: place.socket })).stdout).toContain(
    `grows, since the process ${reading.pid} reads the database without end`,
  );
  await grow();
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(2);

  await reading.kill();
  // Nothing is written meanwhile.
  await daemon.logged(({ msg }) => msg.startsWith("the write-ahead log is moved and cut"));
  expect(bytesOf("pawl.db-wal")).toBe(0);
  expect((await client.call("daemon.info", {})).heldLog).toBeNull();
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(3);
  expect(daemon.log.filter(({ level }) => level !== "info")).toHaveLength(1);
  await daemon.end("SIGKILL");
  await place.start();
  expect(await place.next()).toBe(4);
});
