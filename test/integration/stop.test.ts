// How a daemon stops (spec: operations.md, pawld).
import { existsSync, readdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place, startDaemon } from "../daemon.js";
import type { RawReply } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

/** Stopping takes no longer (spec: operations.md). */
const STOP_MS = 5000;
/** So many answers to rpc.discover are more than the kernel holds for a peer that does not read. */
const MADE_ANSWERS = 10;

test.skipIf(NAMES_ARE_SHARED).each([["SIGTERM"], ["SIGINT"]] as const)(
  "%s: exit 0, no socket, everything in the database file",
  async (signal) => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    await client.call("sequence.next", { type: "FR" });
    expect(await daemon.end(signal)).toBe(0);
    await client.ended;
    // An idle connection is no reason to wait, as one that does not read is.
    const [stopping, stopped] = daemon.log.slice(-2).map(({ time }) => Number(time));
    expect((stopped as number) - (stopping as number)).toBeLessThan(1500);
    expect(existsSync(daemon.place.socket)).toBe(false);
    expect(readdirSync(daemon.place.stateDir).sort()).toEqual(["pawl.db", "pawl.witness"]);
    expect(daemon.log.map(({ msg }) => msg)).toEqual(["listening", "stopping", "stopped"]);
    const database = new Database(join(daemon.place.stateDir, "pawl.db"), { readonly: true });
    expect(database.prepare("SELECT last FROM pawl_sequence").pluck().all()).toEqual([1]);
    database.close();
  },
);

test("a request that was received is answered: nothing takes effect that its caller does not hear of", async () => {
  const place = new Place();
  const daemon = await place.start();
  const clients = await Promise.all(Array.from({ length: 8 }, () => place.connect()));
  const line = '{"jsonrpc":"2.0","id":"s","method":"sequence.next","params":{"type":"FR"}}\n';
  for (const client of clients) client.write(line.repeat(3000));
  await clients[0]?.line();
  const ended = daemon.end();
  await Promise.all(
    clients.map(async (client) => {
      await client.ended;
      client.socket.destroy();
      await client.closed;
    }),
  );
  expect(await ended).toBe(0);
  const replies = clients.flatMap(({ lines }) => lines.map((text) => JSON.parse(text) as RawReply));
  const numbers = replies.flatMap(({ result }) =>
    result === undefined ? [] : [(result as { seq: number }).seq],
  );
  const refusals = replies.flatMap(({ error }) => error?.data ?? []);
  for (const { kind } of refusals) expect(kind).toBe("unavailable");
  // The first reply was taken by itself.
  const answered = numbers.length + 1;
  // Of a commit that its database has not answered in time the callers are told that it may have been done.
  const unknown = refusals.filter(({ reason }) => reason === "shared_outcome_unknown").length;
  await place.start();
  const next = await place.next();
  expect(next).toBeGreaterThan(answered);
  expect(next).toBeLessThanOrEqual(answered + unknown + 1);
});

test("waits end with `unavailable`", async () => {
  const daemon = await startDaemon();
  const [holder, waiter] = [await daemon.place.connect(), await daemon.place.connect()];
  await holder.call("lease.acquire", { name: "x", owner: "holder" });
  const waits = Array.from({ length: 100 }, () =>
    waiter.refusal("lease.acquire", { name: "x", owner: "waiter", waitMs: 3_600_000 }),
  );
  await until(async () => (await holder.call("daemon.stats", {})).connections.waiting >= waits.length);
  expect(await daemon.end()).toBe(0);
  for (const error of await Promise.all(waits)) {
    expect(expectRefusal(error, "unavailable").data.reason).toBe("stopping");
  }
});

test("a client that never reads does not keep it from ending in time", async () => {
  const daemon = await startDaemon();
  const socket = connect(daemon.place.socket).pause();
  socket.on("error", () => {});
  socket.write('{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'.repeat(MAX_UNSENT_BYTES / 10_000));
  const watcher = await daemon.place.connect();
  await until(
    async () => ((await watcher.call("daemon.stats", {})).requests["rpc.discover"] ?? 0) >= MADE_ANSWERS,
  );
  const start = performance.now();
  expect(await daemon.end()).toBe(0);
  expect(performance.now() - start).toBeLessThan(STOP_MS);
  socket.destroy();
});

test("clients that send on and on do not keep it from ending in time, and hear that it does", async () => {
  const daemon = await startDaemon();
  const line = '{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"FR"}}\n'.repeat(1000);
  const clients = await Promise.all(Array.from({ length: 20 }, () => daemon.place.connect()));
  for (const { socket } of clients) {
    const send = (): void => void (socket.writable && socket.write(line, () => setImmediate(send)));
    send();
  }
  await clients[0]?.line();
  const start = performance.now();
  expect(await daemon.end()).toBe(0);
  expect(performance.now() - start).toBeLessThan(STOP_MS);
  const replies = clients.flatMap(({ lines }) => lines.map((text) => JSON.parse(text) as RawReply));
  const refusals = replies.flatMap(({ error }) => (error === undefined ? [] : [error.data.kind]));
  expect(new Set(refusals)).toEqual(new Set(["unavailable"]));
});

test("a second signal ends it at once", async () => {
  const daemon = await startDaemon();
  const socket = connect(daemon.place.socket).pause();
  socket.on("error", () => {});
  socket.write('{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'.repeat(MAX_UNSENT_BYTES / 10_000));
  const watcher = await daemon.place.connect();
  await until(
    async () => ((await watcher.call("daemon.stats", {})).requests["rpc.discover"] ?? 0) >= MADE_ANSWERS,
  );
  daemon.child.kill("SIGTERM");
  await daemon.logged(({ msg }) => msg === "stopping");
  const start = performance.now();
  expect(await daemon.end("SIGTERM")).toBe(1);
  expect(performance.now() - start).toBeLessThan(1000);
  expect(daemon.log.map(({ msg }) => msg)).not.toContain("stopped");
  socket.destroy();
});

test("--idle-exit: not while somebody is connected, then soon", async () => {
  const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
  const client = await daemon.place.connect();
  // A timer of the daemon that ran from its start would be over by now.
  await new Promise((resolve) => setTimeout(resolve, 1300));
  await client.call("sequence.next", { type: "FR" });
  await client.destroy();
  expect(await daemon.exited).toBe(0);
  // But for what is told of a place of shared names.
  const told = daemon.log.filter(({ place }) => place === undefined);
  expect(told.map(({ msg, reason }) => reason ?? msg)).toEqual(["listening", "idle", "stopped"]);
  expect(existsSync(daemon.place.socket)).toBe(false);
});

test("--idle-exit: a daemon that nobody ever connects to", async () => {
  const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
  expect(await daemon.exited).toBe(0);
});

test("losing the reader of its log does not end it", async () => {
  const daemon = await startDaemon();
  daemon.child.stdout?.destroy();
  const client = await daemon.place.connect();
  for (let i = 0; i < 50; i += 1) await client.refusal("sequence.next", {});
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
  expect(await daemon.end()).toBe(0);
});
