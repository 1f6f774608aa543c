// Events at the socket (spec: events.md): one for each effect, in the order of commits, none for what was refused.
import type { Params } from "@pawl/protocol";
import { expect, test } from "vitest";
import { connect } from "../../client/dist/index.js";
import { type DaemonProcess, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";
import { startPawl } from "./cli-program.js";

type Told = { topic: string; kind: string; id: string; cursor: string; [member: string]: unknown };

/** What has happened since a cursor, as `topic kind id`. */
async function since(client: RawClient, cursor: string, topics = ["*"]): Promise<string[]> {
  const { events, gap } = await client.call("events.watch", { topics, since: cursor, limit: 1000 });
  expect(gap).toBe(false);
  return events.map(({ topic, kind, id }) => `${topic} ${kind} ${id}`);
}

async function begin(): Promise<{ daemon: DaemonProcess; client: RawClient; cursor: string }> {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const { cursor, events, gap } = await client.call("events.watch", { topics: ["*"] });
  expect([events, gap]).toEqual([[], false]);
  return { daemon, client, cursor };
}

test("one event for each effect, none for what is refused, tried, repeated or undone", async () => {
  const { client, cursor } = await begin();
  await client.call("sequence.next", { type: "fr", requestId: "once" });
  await client.call("sequence.next", { type: "fr", requestId: "once" });
  await client.call("sequence.reserve", { type: "fr", count: 3 });
  await client.call("sequence.advance", { type: "fr", to: 3 });
  await client.call("sequence.advance", { type: "fr", to: 9 });
  const call = { method: "sequence.next", params: { type: "FR" } };
  await client.call("transact", { calls: [call], dryRun: true });
  const refused = { method: "queue.complete", params: { claimId: "claim_x", leaseToken: "x" } };
  expectRefusal(await client.refusal("transact", { calls: [call, refused] }), "claim_lost");
  await client.call("transact", { calls: [call, call] });
  expect(await since(client, cursor)).toEqual([
    "sequence:FR dispensed FR-001",
    "sequence:FR reserved FR-002",
    "sequence:FR advanced FR-009",
    "sequence:FR dispensed FR-010",
    "sequence:FR dispensed FR-011",
  ]);
});

test("commands and items", async () => {
  const { client, cursor } = await begin();
  const { commandId } = await client.call("command.create", { deployment: "d", command: "c", params: {} });
  const { leases } = await client.call("command.lease", { deployment: "d", owner: "worker" });
  const { leaseId = "" } = leases[0] ?? {};
  await client.call("command.respond", { commandId, leaseId, response: { status: "success", response: 1 } });
  const write = (params: Params<"pipeline.write">) => client.call("pipeline.write", params);
  await write({ storyId: "S-1", stage: "todo" });
  await write({ storyId: "S-1", stage: "done", agent: "coder" });
  await write({ storyId: "S-1", name: "A name" });
  await client.call("pipeline.delete", { storyId: "S-1" });
  const { events } = await client.call("events.watch", { topics: ["*"], since: cursor });
  expect(events).toMatchObject([
    { topic: "command:d", kind: "created", id: commandId },
    { topic: "command:d", kind: "dispatched", id: commandId, by: "worker" },
    { topic: "command:d", kind: "answered", id: commandId, to: "SUCCEEDED" },
    { topic: "item:S-1", kind: "created", to: "todo" },
    { topic: "item:S-1", kind: "moved", from: "todo", to: "done", by: "coder" },
    { topic: "item:S-1", kind: "changed" },
    { topic: "item:S-1", kind: "deleted", from: "done" },
  ]);
});

test("batches: each step, with who did it", async () => {
  const { client, cursor } = await begin();
  const enqueue = async (params: Omit<Params<"queue.enqueue">, "queue" | "payloads"> = {}) =>
    (await client.call("queue.enqueue", { queue: "q", payloads: [1], ...params })).batch.batchId;
  const claim = async () => {
    const { claim } = await client.call("queue.claim", { queue: "q", owner: "w" });
    return { claimId: claim?.claimId ?? "", leaseToken: claim?.leaseToken ?? "" };
  };
  const a = await enqueue({ maxAttempts: 1 });
  await client.call("queue.progress", { ...(await claim()), percent: 50 }).then(() => undefined);
  const told: string[] = [];
  const rest = await client.call("events.watch", { topics: ["queue:q"], since: cursor });
  told.push(...rest.events.map(({ kind }) => kind));
  expect(told).toEqual(["enqueued", "claimed", "progressed"]);
  expect(rest.events[1]).toMatchObject({ id: a, by: "w", fencingToken: 1 });
  const b = await enqueue({ sourceKey: "b" });
  const second = await claim();
  await client.call("queue.abandon", second);
  await client.call("queue.abandon", { ...(await claim()), error: "it broke", delayMs: 0 });
  await client.call("queue.complete", await claim());
  const c = await enqueue();
  await client.call("queue.update", { batchId: c, priority: 1 });
  await client.call("queue.cancel", { batchId: c });
  await client.call("queue.retry", { batchId: c });
  await client.call("queue.move", { batchIds: [c], to: "elsewhere" });
  await client.call("queue.configure", { queue: "q", paused: true, reason: "lunch" });
  await client.call("queue.configure", { queue: "q", paused: false });
  await client.call("queue.configure", { queue: "q", maxClaimed: 3 });
  const { events } = await client.call("events.watch", {
    topics: ["queue:q", "queue:else*"],
    since: rest.cursor,
  });
  expect(events.map(({ id, kind }) => [id, kind])).toEqual([
    [b, "enqueued"],
    [b, "claimed"],
    [b, "released"],
    [b, "claimed"],
    [b, "failed"],
    [b, "claimed"],
    [b, "completed"],
    [c, "enqueued"],
    [c, "updated"],
    [c, "cancelled"],
    [c, "retried"],
    [c, "moved"],
    [c, "moved"],
    ["q", "paused"],
    ["q", "resumed"],
    ["q", "configured"],
  ]);
});

test("leases, and what ends with a connection", async () => {
  const { daemon, client, cursor } = await begin();
  const { lease } = await client.call("lease.acquire", { name: "a/b", owner: "me" });
  await client.call("lease.release", { leaseId: lease.leaseId });
  await client.call("lease.acquire", { name: "a/b", owner: "me" });
  await client.call("lease.break", { name: "a/b", reason: "stuck" });
  const other = await daemon.place.connect();
  await other.call("lease.acquire", { name: "a/b", owner: "me", releaseOn: "disconnect" });
  await client.call("queue.enqueue", { queue: "q", payloads: [1], maxAttempts: 1 });
  await other.call("queue.claim", { queue: "q", owner: "w", releaseOn: "disconnect" });
  const { cursor: before } = await client.call("events.watch", { topics: ["*"] });
  await other.destroy();
  const told: unknown[] = [];
  for (let from = before; told.length < 2; ) {
    const page = await client.call("events.watch", { topics: ["*"], since: from, waitMs: 60_000 });
    told.push(...page.events.map(({ topic, kind }) => [topic, kind]));
    from = page.cursor;
  }
  expect(told).toContainEqual(["lease:a/b", "lost"]);
  expect(told).toContainEqual(["queue:q", "dead"]);
  const { events } = await client.call("events.watch", { topics: ["lease:a/*"], since: cursor });
  expect(events.map(({ kind, by, reason }) => [kind, by, reason])).toEqual([
    ["acquired", "me", undefined],
    ["released", "me", undefined],
    ["acquired", "me", undefined],
    ["broken", "me", "stuck"],
    ["acquired", "me", undefined],
    ["lost", "me", undefined],
  ]);
});

test("topics fit names, beginnings of names, nouns and everything; a page says where to go on", async () => {
  const { client, cursor } = await begin();
  for (const type of ["A", "AB", "B"]) await client.call("sequence.next", { type });
  await client.call("pipeline.write", { storyId: "A", stage: "todo" });
  expect(await since(client, cursor, ["sequence:A"])).toEqual(["sequence:A dispensed A-001"]);
  expect(await since(client, cursor, ["sequence:A*", "item:nosuch"])).toHaveLength(2);
  expect(await since(client, cursor, ["item:*"])).toEqual(["item:A created A"]);
  expect(await since(client, cursor, ["daemon"])).toEqual([]);
  const first = await client.call("events.watch", { topics: ["*"], since: cursor, limit: 3 });
  expect(first.events).toHaveLength(3);
  expect(first.cursor).toBe(first.events.at(-1)?.cursor);
  const rest = await client.call("events.watch", { topics: ["*"], since: first.cursor, limit: 3 });
  expect(rest.events.map(({ topic }) => topic)).toEqual(["item:A"]);
  for (const topic of ["nosuch:a", "queue:", "queue", "", "seq:*"])
    expectRefusal(await client.refusal("events.watch", { topics: [topic] }), "invalid_params");
});

test("a call waits for the first event that its topics fit, from the moment at which it was made", async () => {
  const { daemon, client, cursor } = await begin();
  const waits = [
    { topics: ["sequence:B"] },
    { topics: ["sequence:B", "item:*"] },
    { topics: ["sequence:B"], since: cursor },
  ].map(async (params) => {
    const waiting = await daemon.place.connect();
    return waiting.call("events.watch", { ...params, waitMs: 60_000 });
  });
  await until(async () => (await client.call("daemon.stats", {})).connections.waiting >= waits.length);
  await client.call("sequence.next", { type: "A" });
  await client.call("sequence.next", { type: "B" });
  for (const { events } of await Promise.all(waits)) expect(events.map(({ id }) => id)).toEqual(["B-001"]);
  const soon = await client.call("events.watch", { topics: ["item:*"], since: cursor, waitMs: 1 });
  expect([soon.events, soon.gap]).toEqual([[], false]);
  // Events of other topics are behind it.
  expect(await since(client, soon.cursor)).toEqual([]);
});

test("a cursor of another life, or older than what is kept, says that events may be missing", async () => {
  const { daemon, client, cursor } = await begin();
  for (let sent = 0; sent < 17_000; sent += 1000) {
    const calls = Array.from({ length: 1000 }, (_, id) => ({
      jsonrpc: "2.0",
      id,
      method: "sequence.next",
      params: { type: "X" },
    }));
    client.write(`${JSON.stringify(calls)}\n`);
    await client.line();
  }
  const old = await client.call("events.watch", { topics: ["*"], since: cursor });
  expect([old.gap, old.events]).toEqual([true, []]);
  // Of other nouns nothing is missing.
  expect(await since(client, cursor, ["item:*", "queue:q"])).toEqual([]);
  expect(await since(client, old.cursor)).toEqual([]);
  await daemon.end("SIGKILL");
  await daemon.place.start();
  const again = await daemon.place.connect();
  const lost = await again.call("events.watch", { topics: ["*"], since: old.cursor, waitMs: 60_000 });
  expect(lost.gap).toBe(true);
  // Who followed the life before is told that this one has begun, and goes on behind that.
  const begun = { topic: "daemon", kind: "started", id: "pawld", cursor: lost.cursor };
  expect(lost.events).toMatchObject([begun]);
  const of = async (topics: string[], behind?: string) =>
    (await again.call("events.watch", { topics, ...(behind === undefined ? {} : { since: behind }) })).events;
  expect(await of(["queue:*"], old.cursor)).toEqual([]);
  expect(await of(["daemon"], old.cursor)).toMatchObject([begun]);
  expect(await of(["*"], lost.cursor)).toEqual([]);
  expect(await of(["*"])).toEqual([]);
});

test("a subscription is told after its answer, in order, until it ends or its connection closes", async () => {
  const { daemon, client } = await begin();
  const follower = await daemon.place.connect();
  const { subscriptionId, gap } = await follower.call("events.subscribe", { topics: ["sequence:*"] });
  expect(gap).toBe(false);
  for (let number = 0; number < 20; number += 1) await client.call("sequence.next", { type: "N" });
  await client.call("pipeline.write", { storyId: "S", stage: "todo" });
  const told = async (): Promise<{ method: string; params: Told }> => JSON.parse(await follower.line());
  for (let number = 1; number <= 20; number += 1) {
    expect(await told()).toMatchObject({
      method: "event",
      params: {
        subscriptionId,
        topic: "sequence:N",
        kind: "dispensed",
        id: `N-${String(number).padStart(3, "0")}`,
      },
    });
  }
  // From a cursor on: first the answer, then what was missed.
  const { cursor } = await client.call("events.watch", { topics: ["*"] });
  await client.call("sequence.next", { type: "N" });
  expect((await told()).params.id).toBe("N-021");
  const second = await follower.call("events.subscribe", { topics: ["sequence:N"], since: cursor });
  expect((await told()).params).toMatchObject({ subscriptionId: second.subscriptionId, id: "N-021" });
  expect(await follower.call("events.unsubscribe", { subscriptionId })).toEqual({ unsubscribed: true });
  expect(await follower.call("events.unsubscribe", { subscriptionId })).toEqual({ unsubscribed: false });
  await client.call("sequence.next", { type: "N" });
  expect((await told()).params).toMatchObject({ subscriptionId: second.subscriptionId, id: "N-022" });
  expect(follower.lines).toEqual([]);
});

test("a subscriber that does not read slows nobody, and is told of a gap once it reads", async () => {
  const { daemon, client } = await begin();
  const follower = await daemon.place.connect();
  await follower.call("events.subscribe", { topics: ["sequence:*"] });
  follower.socket.pause();
  const type = "T".repeat(32);
  const { cursor } = await client.call("events.watch", { topics: ["*"] });
  const calls = Array.from({ length: 1000 }, (_, id) => ({
    jsonrpc: "2.0",
    id,
    method: "sequence.next",
    params: { type },
  }));
  // More than may be unsent to one connection, and more than is kept.
  for (let batch = 0; batch < 60; batch += 1) {
    client.write(`${JSON.stringify(calls)}\n`);
    await client.line();
  }
  expect((await client.call("events.watch", { topics: ["sequence:*"], since: cursor })).gap).toBe(true);
  follower.socket.resume();
  let last: Told | undefined;
  let gaps = 0;
  while (last?.id !== `${type}-60000`) {
    last = JSON.parse(await follower.line()).params as Told;
    if (last.kind !== "gap") continue;
    gaps += 1;
    await client.call("sequence.advance", { type, to: 59_999 + gaps });
    if (gaps === 1) await client.call("sequence.next", { type });
    break;
  }
  expect(gaps).toBe(1);
});

test("the library follows over a restart, and says where events may be missing", async () => {
  const { daemon } = await begin();
  await using client = await connect({ socket: daemon.place.socket });
  const seen: string[] = [];
  const follow = (async () => {
    for await (const event of client.events(["sequence:*"])) {
      seen.push("topic" in event ? event.id : event.kind);
      if (seen.at(-1) === "Z-002") break;
    }
  })();
  while (seen.length === 0) await client.sequence.next({ type: "A" });
  await daemon.end("SIGTERM");
  await daemon.place.start();
  await until(() => seen.includes("gap"));
  await client.sequence.next({ type: "Z" });
  await client.sequence.next({ type: "Z" });
  await follow;
  expect(seen.slice(-3)).toEqual(["gap", "Z-001", "Z-002"]);
});

test("pawl events prints a line for each, and ends by a signal", async () => {
  const { daemon, client } = await begin();
  const pawl = startPawl(["events", "sequence:*"], { socket: daemon.place.socket });
  await until(async () => (await client.call("daemon.stats", {})).connections.waiting !== 0);
  await client.call("sequence.next", { type: "FR" });
  await pawl.printed(/sequence:FR {2}dispensed {2}FR-001\n/);
  pawl.child.kill("SIGINT");
  expect((await pawl.ended).code).not.toBe(0);
});
