// Claims of items whose leases a provider keeps: two daemons with boards of their own, and a provider that they share.
// Not over shared names: a provider keeps these names.
import { expect, test } from "vitest";
import { Faulty } from "../faulty.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";

test("an item is claimed once over all nodes, finished in a transaction, and given back", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const start = () => faulty.start("--lease-provider", `item/A*=${faulty.specification}`);
  const [daemonA, daemonB] = await Promise.all([start(), start()]);
  const [a, b] = (await Promise.all([daemonA.place.connect(), daemonB.place.connect()])) as [
    RawClient,
    RawClient,
  ];
  for (const client of [a, b]) await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });

  const { item, lease } = await a.call("pipeline.claim", { agent: "ana", toStage: "2_current" });
  expect(item).toMatchObject({ storyId: "A", stage: "2_current", claim: { agent: "ana" }, ready: false });
  expect(await b.call("pipeline.claim", { agent: "bob" })).toEqual({
    item: null,
    reason: "No item of 1_backlog is ready.",
  });
  expect(await b.call("pipeline.claim", { agent: "bob", storyId: "A" })).toMatchObject({ item: null });
  await b.call("pipeline.write", { storyId: "B", stage: "1_backlog" });
  // One that the database keeps is claimed all the same.
  const other = await b.call("pipeline.claim", { agent: "bob" });
  expect(other.item).toMatchObject({ storyId: "B", agent: "bob" });

  const refused = await a.refusal("transact", {
    calls: [{ method: "pipeline.claim", params: { agent: "ana" } }],
  });
  expect(refused.data.kind).toBe("invalid_params");
  await a.call("transact", {
    calls: [
      {
        method: "pipeline.finish",
        params: { storyId: "A", fencingToken: lease?.fencingToken, toStage: "5_done" },
      },
    ],
  });
  // The provider tells the other node nothing, so it is asked again.
  const claimB = async () => (await b.call("pipeline.claim", { agent: "bob", storyId: "A" })).item?.agent;
  await expect.poll(claimB, { timeout: 30_000 }).toBe("bob");
  const again = await b.call("lease.get", { name: "item/A" });
  expect(again.lease?.fencingToken).toBeGreaterThan(lease?.fencingToken as number);

  // A claim that is lost is taken back, whoever keeps its lease.
  await b.call("lease.break", { name: "item/A", reason: "test" });
  expect((await b.call("pipeline.read", { storyId: "A" })).item).toMatchObject({
    stage: "1_backlog",
    agent: null,
    retryCount: 1,
    ready: true,
  });
});

test("a claim that waits for an item is cancelled by its id, and woken by what makes one ready", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const { place } = await faulty.start("--lease-provider", `item/*=${faulty.specification}`);
  const client = await place.connect();
  const params = { agent: "ana", waitMs: 60_000 };
  client.send({ jsonrpc: "2.0", id: "waits", method: "pipeline.claim", params });
  client.send({ jsonrpc: "2.0", id: "cancels", method: "rpc.cancel", params: { id: "waits" } });
  const replies = [await client.reply(), await client.reply()];
  expect(replies.find(({ id }) => id === "waits")?.error?.data.kind).toBe("cancelled");
  expect(replies.find(({ id }) => id === "cancels")?.result).toEqual({ cancelled: true });
  const waiting = client.call("pipeline.claim", params);
  const writer = await place.connect();
  await until(async () => (await writer.call("daemon.stats", {})).connections.waiting === 1);
  await writer.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
  expect((await waiting).item).toMatchObject({ storyId: "A", agent: "ana" });
});
