// Work from the board at the socket: what is ready, claims, their ends, and what a node says of stages.
import { describe, expect, test } from "vitest";
import { startDaemon } from "../daemon.js";
import { Author, BOARD } from "../property/board-author.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

async function board(): Promise<RawClient> {
  return await (await startDaemon()).place.connect();
}

async function write(client: RawClient, storyId: string, fields: object = {}): Promise<void> {
  await client.call("pipeline.write", { storyId, stage: "1_backlog", ...fields });
}

async function readyIds(client: RawClient, params: object = {}): Promise<string[]> {
  return (await client.call("pipeline.ready", params)).items.map(({ storyId }) => storyId);
}

async function read(client: RawClient, storyId: string) {
  return await client.call("pipeline.read", { storyId });
}

/** Claims an item that is there to be claimed. */
async function claimed(client: RawClient, params: object = {}) {
  const { item, lease } = await client.call("pipeline.claim", { agent: "ana", ...params });
  if (item === null || lease === undefined) throw new Error("there was nothing to claim");
  return { item, lease };
}

describe("what is ready", () => {
  test("is by rank, and waits until all that it depends on is there and done", async () => {
    const client = await board();
    await write(client, "A", { dependsOn: ["B", "C"] });
    await write(client, "B");
    expect(await readyIds(client)).toEqual(["B"]);
    expect((await read(client, "A")).reason).toBe(
      'A depends on B, which is in "1_backlog", and on C, which does not exist.',
    );
    await write(client, "B", { stage: "5_done" });
    await write(client, "C", { stage: "5_done" });
    expect(await readyIds(client)).toEqual(["A"]);
    expect((await read(client, "A")).item?.ready).toBe(true);
    await write(client, "C", { stage: "3_qa" });
    expect(await readyIds(client)).toEqual([]);
    await client.call("pipeline.write", { storyId: "A", dependsOn: { remove: ["C"] } });
    expect(await readyIds(client)).toEqual(["A"]);
    await client.call("pipeline.delete", { storyId: "B" });
    expect(await readyIds(client)).toEqual([]);
    await client.call("pipeline.write", { storyId: "A", dependsOn: [], blocked: true });
    expect((await read(client, "A")).reason).toBe("A is blocked.");
    await client.call("pipeline.write", { storyId: "A", blocked: false });
    expect(await readyIds(client)).toEqual(["A"]);
  });

  test("is nothing that depends on itself, or on another that depends on it", async () => {
    const client = await board();
    await write(client, "A", { dependsOn: ["A"] });
    await write(client, "B", { dependsOn: ["C"] });
    await write(client, "C", { dependsOn: ["B"] });
    expect(await readyIds(client)).toEqual([]);
    expect((await read(client, "A")).reason).toBe("A depends on itself.");
    expect((await read(client, "B")).cycle).toEqual(["C"]);
    await write(client, "A", { stage: "5_done" });
    await write(client, "A");
    expect(await readyIds(client)).toEqual([]);
  });

  test("is told to all that depend on an item, however many", async () => {
    const client = await board();
    const ids = Array.from({ length: 320 }, (_, index) => `W-${index}`);
    await write(client, "ONE");
    for (let from = 0; from < ids.length; from += 64) {
      const calls = ids.slice(from, from + 64).map((storyId) => ({
        method: "pipeline.write" as const,
        params: { storyId, stage: "1_backlog", dependsOn: ["ONE"] },
      }));
      await client.call("transact", { calls });
    }
    await write(client, "ONE", { stage: "5_done" });
    const got = new Set<string>();
    while (got.size < ids.length) {
      const { item } = await client.call("pipeline.claim", { agent: "ana", waitMs: 60_000 });
      got.add(item?.storyId as string);
    }
    expect([...got].sort()).toEqual(ids.sort());
    expect(await client.call("pipeline.rebuild", { verify: true })).toMatchObject({ differences: [] });
  });

  test("by other stages, once these are configured", async () => {
    const client = await board();
    await write(client, "A");
    await write(client, "Q", { stage: "3_qa" });
    await write(client, "W", { stage: "3_qa", dependsOn: ["Q2"] });
    await write(client, "Q2", { stage: "4_merge" });
    const stages = [
      { stage: "3_qa", ready: true },
      { stage: "4_merge", done: true },
    ];
    expect(await client.call("pipeline.configure", { stages })).toEqual({
      stages,
      transitions: null,
      maxRetries: 5,
    });
    expect(await readyIds(client)).toEqual(["Q", "W"]);
    expect(await readyIds(client, { stages: ["1_backlog"] })).toEqual([]);
    expect(await client.call("pipeline.claim", { agent: "ana", stages: ["1_backlog"] })).toEqual({
      item: null,
      reason: "None of 1_backlog is one that work is taken from; pipeline.configure says which are.",
    });
    await client.call("pipeline.configure", { stages: null });
    expect(await readyIds(client)).toEqual(["A"]);
    expect(await client.call("pipeline.configuration", {})).toMatchObject({ maxRetries: 5 });
  });
});

describe("a change of the stages", () => {
  test("by which those that an item depends on are no longer done leaves it not ready", async () => {
    const client = await board();
    await client.call("pipeline.configure", { stages: [{ stage: "s", done: true }] });
    await write(client, "A", { stage: "s" });
    await write(client, "B", { stage: "s", dependsOn: ["A"] });
    await client.call("pipeline.configure", { stages: [{ stage: "s", ready: true }] });
    expect(await readyIds(client)).toEqual(["A"]);
    expect(await client.call("pipeline.rebuild", { verify: true })).toMatchObject({ differences: [] });
  });

  test("has those who wait for any item wait for those of the new stages, too", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    const waiting = [];
    for (const agent of ["ana", "bea"]) {
      const waiter = await daemon.place.connect();
      waiting.push(waiter.call("pipeline.claim", { agent, waitMs: 600_000 }));
      // The wait has begun when this is answered.
      await waiter.call("daemon.ping", {});
    }
    const stages = ["1_backlog", "2_more"].map((stage) => ({ stage, ready: true }));
    await client.call("pipeline.configure", { stages });
    for (const storyId of ["A", "B"]) await write(client, storyId, { stage: "2_more" });
    const claims = await Promise.all(waiting);
    expect(claims.map(({ item }) => [item?.storyId, item?.agent])).toEqual([
      ["A", "ana"],
      ["B", "bea"],
    ]);
  });
});

describe("a claim", () => {
  test("gives the first that is ready, with its lease, and finish sends it on", async () => {
    const client = await board();
    await write(client, "A");
    await write(client, "B", { dependsOn: ["A"] });
    const { item, lease } = await claimed(client, { toStage: "2_current" });
    expect(item).toMatchObject({
      storyId: "A",
      stage: "2_current",
      agent: "ana",
      ready: false,
      claim: { agent: "ana", pid: process.pid },
    });
    expect(lease).toMatchObject({ name: "item/A", owner: "ana", fencingToken: 1 });
    expect(await client.call("lease.check", { name: "item/A", fencingToken: 1 })).toMatchObject({
      current: true,
    });
    expect(await client.call("pipeline.claim", { agent: "bob" })).toEqual({
      item: null,
      reason: "No item of 1_backlog is ready.",
    });
    const finish = { storyId: "A", fencingToken: 1, toStage: "5_done" };
    const done = (await client.call("pipeline.finish", finish)).item;
    expect(done).toMatchObject({ stage: "5_done", agent: "ana", retryCount: 0 });
    expect(done.claim).toBeUndefined();
    expectRefusal(await client.refusal("pipeline.finish", finish), "lease_lost");
    expect(await client.call("lease.get", { name: "item/A" })).toMatchObject({ lease: null });
    expect((await claimed(client)).item).toMatchObject({ storyId: "B", stage: "1_backlog" });
  });

  test("of a named item says why it is not to be had, and refuses one that is unknown", async () => {
    const client = await board();
    await write(client, "A");
    await claimed(client, { storyId: "A" });
    const { item, reason } = await client.call("pipeline.claim", { agent: "bob", storyId: "A" });
    expect([item, reason]).toEqual([null, expect.stringMatching(/^A is claimed by "ana" for \d+ ms more/)]);
    const unknown = await client.refusal("pipeline.claim", { agent: "bob", storyId: "X" });
    expect(expectRefusal(unknown, "not_found").data.what).toBe("item");
  });

  test("guards the stage, the agent and the deletion of its item", async () => {
    const client = await board();
    await write(client, "A");
    const { lease } = await claimed(client);
    const claim = { fencingToken: lease.fencingToken };
    for (const fields of [{ stage: "3_qa" }, { agent: "bob" }, { stage: "1_backlog", name: "x" }]) {
      const refusal = await client.refusal("pipeline.write", { storyId: "A", ...fields });
      expect(expectRefusal(refusal, "lease_held").data.holder).toMatchObject({ owner: "ana" });
    }
    expectRefusal(await client.refusal("pipeline.delete", { storyId: "A" }), "lease_held");
    await client.call("pipeline.write", { storyId: "A", name: "anybody may" });
    await client.call("pipeline.write", { storyId: "A", stage: "3_qa", claim });
    const wrong = { storyId: "A", name: "x", claim: { fencingToken: 99 } };
    expectRefusal(await client.refusal("pipeline.write", wrong), "lease_lost");
    expect(await client.call("pipeline.delete", { storyId: "A", claim })).toMatchObject({ deleted: true });
    expectRefusal(await client.refusal("pipeline.write", { storyId: "A", stage: "1_backlog" }), "lease_held");
    await client.call("pipeline.write", { storyId: "A", stage: "1_backlog", claim });
    await client.call("lease.release", { leaseId: lease.leaseId });
    expectRefusal(await client.refusal("pipeline.write", { storyId: "A", name: "x", claim }), "lease_lost");
  });

  test("is not made by another lease of its name, which makes the item not ready", async () => {
    const client = await board();
    const { lease } = await client.call("lease.acquire", { name: "item/A", owner: "eve" });
    await write(client, "A");
    expect(await readyIds(client)).toEqual([]);
    expect((await read(client, "A")).reason).toBe("The lease item/A is held, and not by a claim.");
    await client.call("pipeline.write", { storyId: "A", agent: "anybody" });
    await client.call("lease.release", { leaseId: lease.leaseId });
    expect(await readyIds(client)).toEqual(["A"]);
    const { lease: again } = await client.call("lease.acquire", { name: "item/A", owner: "eve" });
    expect(await readyIds(client)).toEqual([]);
    await client.call("lease.break", { name: "item/A", reason: "test" });
    expect(again.fencingToken).toBe(2);
    expect((await read(client, "A")).item).toMatchObject({ agent: "anybody", retryCount: 0, ready: true });
  });

  test("waits for what makes an item ready, and is served in the order of arrival", async () => {
    const client = await board();
    await write(client, "A", { dependsOn: ["B"] });
    await write(client, "B", { stage: "2_current" });
    await write(client, "C", { blocked: true });
    const first = client.call("pipeline.claim", { agent: "first", waitMs: 60_000 });
    const second = client.call("pipeline.claim", { agent: "second", waitMs: 60_000 });
    const named = client.call("pipeline.claim", { agent: "third", storyId: "C", waitMs: 60_000 });
    await write(client, "B", { stage: "5_done" });
    const one = await first;
    expect(one.item).toMatchObject({ storyId: "A", agent: "first" });
    await client.call("lease.release", { leaseId: one.lease?.leaseId as string });
    expect((await second).item).toMatchObject({ storyId: "A", agent: "second", retryCount: 0 });
    await client.call("pipeline.write", { storyId: "C", blocked: false });
    expect((await named).item).toMatchObject({ storyId: "C", agent: "third" });
  });

  test("in a transaction with its finish, all or nothing", async () => {
    const client = await board();
    await write(client, "A");
    const { results } = await client.call("transact", {
      calls: [
        { method: "pipeline.claim", params: { agent: "ana" } },
        {
          method: "pipeline.finish",
          params: { storyId: "A", fencingToken: { $result: "/0/lease/fencingToken" }, toStage: "5_done" },
        },
        { method: "pipeline.claim", params: { agent: "ana" } },
      ],
    });
    expect(results).toMatchObject([
      { item: { storyId: "A" } },
      { item: { stage: "5_done" } },
      { item: null },
    ]);
    await write(client, "B");
    const calls = [
      { method: "pipeline.claim", params: { agent: "ana", toStage: "2_current" } },
      { method: "pipeline.finish", params: { storyId: "B", fencingToken: 17, toStage: "5_done" } },
    ];
    expectRefusal(await client.refusal("transact", { calls }), "lease_lost");
    expect((await read(client, "B")).item).toMatchObject({ stage: "1_backlog", agent: null, ready: true });
    const tried = await client.call("transact", { calls: calls.slice(0, 1) as never, dryRun: true });
    expect(tried.results[0]).toMatchObject({ lease: { leaseId: "dry-run" } });
    expect((await read(client, "B")).item).toMatchObject({ agent: null, ready: true });
  });
});

describe("a claim that ends without finish", () => {
  test("is taken back in the turn in which its connection closes", async () => {
    const daemon = await startDaemon();
    const [client, worker] = [await daemon.place.connect(), await daemon.place.connect()];
    await write(client, "A");
    await claimed(worker, { toStage: "2_current", releaseOn: "disconnect" });
    const next = client.call("pipeline.claim", { agent: "bob", waitMs: 60_000 });
    await worker.destroy();
    expect((await next).item).toMatchObject({
      storyId: "A",
      stage: "1_backlog",
      agent: "bob",
      retryCount: 1,
    });
  });

  test("by its time or by force counts as a retry, given up it does not", async () => {
    const client = await board();
    await write(client, "A", { stage: "1_backlog" });
    await claimed(client, { toStage: "2_current", ttlMs: 100 });
    const again = (
      await client.call("pipeline.claim", { agent: "bob", waitMs: 60_000, toStage: "2_current" })
    ).item;
    expect(again).toMatchObject({ storyId: "A", retryCount: 1, agent: "bob" });
    await client.call("lease.break", { name: "item/A", reason: "test" });
    expect((await read(client, "A")).item).toMatchObject({ stage: "1_backlog", agent: null, retryCount: 2 });
    const { lease } = await claimed(client, { toStage: "2_current" });
    await client.call("lease.release", { leaseId: lease.leaseId });
    expect((await read(client, "A")).item).toMatchObject({ stage: "1_backlog", agent: null, retryCount: 2 });
  });

  test("takes back what was written under it, too", async () => {
    const client = await board();
    await write(client, "A");
    const { lease } = await claimed(client, { toStage: "2_current" });
    // Under the claim: its own.
    await client.call("pipeline.write", {
      storyId: "A",
      stage: "3_qa",
      claim: { fencingToken: lease.fencingToken },
    });
    await client.call("lease.break", { name: "item/A", reason: "test" });
    expect((await read(client, "A")).item).toMatchObject({ stage: "1_backlog", agent: null, retryCount: 1 });
  });

  test("leaves what another node has written meanwhile, of which the holder is told", async () => {
    const other = new Author(1);
    const { place } = await startDaemon();
    const holder = await place.connect();
    await holder.call("peer.trust", { author: other.id, name: "other", board: BOARD });
    await write(holder, "A");
    const { lease } = await claimed(holder, { toStage: "2_current" });
    const { fencingToken } = lease;
    const client = await place.connect();
    const ops = [{ i: "A", g: 1, s: { agent: "bob", stage: "3_qa" } }];
    const change = other.change({ ops, hlc: [Date.now() + 5000, 0] });
    expect(await client.call("pipeline.apply", { changes: [change] })).toMatchObject({ applied: 1 });
    expect(JSON.parse(await holder.line())).toEqual({
      jsonrpc: "2.0",
      method: "item.contested",
      params: { storyId: "A", fencingToken, otherAgent: "bob", author: other.id, agent: "bob" },
    });
    // The claim stays, and its end takes nothing from the other one.
    expect((await client.call("lease.get", { name: "item/A" })).lease?.fencingToken).toBe(fencingToken);
    await client.call("lease.break", { name: "item/A", reason: "test" });
    expect((await read(client, "A")).item).toMatchObject({ stage: "3_qa", agent: "bob", retryCount: 0 });
    expect(client.lines).toEqual([]);
  });

  test("blocks the item at as many retries as are configured", async () => {
    const client = await board();
    await client.call("pipeline.configure", { maxRetries: 2 });
    await write(client, "A");
    for (const blocked of [false, true]) {
      await claimed(client);
      await client.call("lease.break", { name: "item/A", reason: "test" });
      expect((await read(client, "A")).item).toMatchObject({ blocked, agent: null });
    }
    expect(await readyIds(client)).toEqual([]);
  });

  test("over a restart, unless its holder comes back", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    await write(client, "A");
    await write(client, "B");
    await claimed(client, { storyId: "A", releaseOn: "disconnect", ttlMs: 60_000 });
    const { lease } = await claimed(client, { storyId: "B", releaseOn: "disconnect", ttlMs: 60_000 });
    await daemon.end("SIGKILL");
    await daemon.place.start();
    const later = await daemon.place.connect();
    await later.call("lease.heartbeat", { leaseId: lease.leaseId });
    const next = await later.call("pipeline.claim", { agent: "bob", waitMs: 60_000 });
    expect(next.item).toMatchObject({ storyId: "A", retryCount: 1 });
    expect((await read(later, "B")).item).toMatchObject({ agent: "ana", claim: { agent: "ana" } });
  });
});

describe("transitions", () => {
  test("refuse a jump, and say what is allowed", async () => {
    const client = await board();
    await client.call("pipeline.configure", {
      transitions: { "1_backlog": ["2_current"], "2_current": ["3_qa", "1_backlog"] },
    });
    await write(client, "A");
    const refused = await client.refusal("pipeline.write", { storyId: "A", stage: "5_done" });
    expect(expectRefusal(refused, "invalid_state").data).toMatchObject({
      from: "1_backlog",
      to: "5_done",
      allowed: ["2_current"],
    });
    const jump = { agent: "ana", toStage: "5_done" };
    expectRefusal(await client.refusal("pipeline.claim", jump), "invalid_state");
    expectRefusal(await client.refusal("pipeline.claim", { ...jump, storyId: "A" }), "invalid_state");
    const { lease } = await claimed(client, { toStage: "2_current" });
    const finish = { storyId: "A", fencingToken: lease.fencingToken, toStage: "5_done" };
    expectRefusal(await client.refusal("pipeline.finish", finish), "invalid_state");
    await client.call("pipeline.finish", { ...finish, toStage: "3_qa" });
    const last = await client.refusal("pipeline.write", { storyId: "A", stage: "4_merge" });
    expect(expectRefusal(last, "invalid_state").data.allowed).toEqual([]);
    await client.call("pipeline.configure", { transitions: null });
    await write(client, "A", { stage: "4_merge" });
  });

  test("of a stage that could not be kept are refused, and not left out", async () => {
    const client = await board();
    const transitions = JSON.parse('{"1_backlog":["2_current"],"__proto__":["2_current"]}');
    const { data } = expectRefusal(
      await client.refusal("pipeline.configure", { transitions }),
      "invalid_params",
    );
    const message = 'has a name that must be another one, not "__proto__"';
    expect(data.issues).toEqual([{ path: "/transitions/__proto__", message }]);
    expect((await client.call("pipeline.configuration", {})).transitions).toBeNull();
  });
});
