// Params that are not given, in the ways in which libraries and generated clients write that.
import type { MethodName, Params } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";

const daemon = sharedDaemon();

/** Calls with params that the types of a careful client would not allow. */
function call(client: RawClient, method: MethodName, params: unknown): Promise<Record<string, never>> {
  return client.call(method, params as Params<MethodName>) as unknown as Promise<Record<string, never>>;
}

describe("a request without params", () => {
  test.each([
    ["", "absent"],
    [',"params":null', "null"],
    [',"params":{}', "an empty object"],
    [',"params":[]', "an empty array"],
  ])("may have them%s: %s", async (params) => {
    const client = await daemon().place.connect();
    expect(await client.ask(`{"jsonrpc":"2.0","id":1,"method":"daemon.ping"${params}}`)).toMatchObject({
      id: 1,
      result: { now: expect.any(Number) },
    });
    // A method that needs some says which.
    const missing = await client.ask(`{"jsonrpc":"2.0","id":2,"method":"sequence.next"${params}}`);
    expect(missing.error?.data).toMatchObject({
      kind: "invalid_params",
      issues: [{ path: "/type", message: "is required" }],
    });
    client.write(`[{"jsonrpc":"2.0","id":3,"method":"daemon.ping"${params}}]\n`);
    const [inBatch] = JSON.parse(await client.line());
    expect(inBatch).toMatchObject({ id: 3, result: {} });
  });

  test("has no positional ones, and no others", async () => {
    const client = await daemon().place.connect();
    for (const params of [[1], [null], [{}]]) {
      expect((await client.refusal("daemon.ping", params)).data.kind).toBe("invalid_params");
    }
    for (const params of [1, "x", true]) {
      const { error } = await client.ask(
        JSON.stringify({ jsonrpc: "2.0", id: 1, method: "daemon.ping", params }),
      );
      expect(error?.data.kind).toBe("invalid_request");
    }
  });
});

describe("null for an optional param", () => {
  test("says that it is not given", async () => {
    const client = await daemon().place.connect();
    expect(await call(client, "sequence.next", { type: "NULLS", requestId: null })).toMatchObject({ seq: 1 });
    const { claim } = await call(client, "queue.claim", {
      queue: "params-empty",
      owner: "o",
      boundary: null,
      maxBatches: null,
      leaseMs: null,
      waitMs: null,
      releaseOn: null,
    });
    expect(claim).toBeNull();
    expect(await call(client, "command.list", { deployment: null, state: null, limit: null })).toHaveProperty(
      "commands",
    );
  });

  test("is still a mistake for one that is required, named as what it is", async () => {
    const client = await daemon().place.connect();
    const { data, message } = await client.refusal("sequence.next", { type: null, requestId: null });
    expect(message).toBe("sequence.next: /type must be a string, not null.");
    expect(data.issues).toHaveLength(1);
    expect((await client.refusal("sequence.next", { type: "NULLS", noSuch: null })).data.kind).toBe(
      "invalid_params",
    );
  });

  test("is found in nested objects, in unions and in elements of arrays", async () => {
    const client = await daemon().place.connect();
    const nulls = {
      sourceKey: null,
      deliveryPolicy: null,
      slotPolicy: null,
      mergeKey: null,
      delayMs: null,
      availableAt: null,
      maxAttempts: null,
    };
    const retry = { baseMs: 5, factor: null, maxMs: null, jitter: null };
    const { batches } = (await call(client, "queue.enqueueMany", {
      batches: [
        { queue: "params-nested", payloads: [null, { a: null }], ...nulls, retry },
        { queue: "params-nested", payloads: [1], ...nulls, retry: null },
      ],
    })) as unknown as { batches: unknown[] };
    expect(batches).toMatchObject([
      {
        payloads: [null, { a: null }],
        sourceKey: null,
        mergeKey: "never",
        retry: { baseMs: 5, factor: 2, maxMs: 3_600_000, jitter: true },
      },
      { retry: null, maxAttempts: 20 },
    ]);
    await call(client, "pipeline.write", {
      storyId: "P-1",
      stage: "1_backlog",
      dependsOn: { add: ["P-0"], remove: null },
    });
    expect(await client.call("pipeline.read", { storyId: "P-1" })).toMatchObject({
      item: { dependsOn: ["P-0"] },
    });
  });

  test("makes no other content: keys that make a retry safe take it for absent", async () => {
    const client = await daemon().place.connect();
    const batch = { queue: "params-keys", payloads: [1], sourceKey: "k" };
    const first = await client.call("queue.enqueue", batch);
    const nulls = { maxAttempts: null, retry: null, delayMs: null, availableAt: null, mergeKey: null };
    expect(await call(client, "queue.enqueue", { ...batch, ...nulls })).toMatchObject({
      created: false,
      batch: { batchId: first.batch.batchId },
    });
    const command = { deployment: "params", command: "go", idempotencyKey: "k" };
    const { commandId } = await client.call("command.create", command);
    const again = {
      ...command,
      params: null,
      maxAttempts: null,
      executionMs: null,
      upload: null,
      ttlMs: null,
    };
    expect(await call(client, "command.create", again)).toMatchObject({ commandId, created: false });
    const one = await client.call("sequence.next", { type: "KEYS", requestId: "r" });
    expect(await client.call("sequence.next", { type: "KEYS", requestId: "r" })).toEqual(one);
  });

  test("in calls of a transact too, whose own params may be none in each way", async () => {
    const client = await daemon().place.connect();
    const { results } = (await call(client, "transact", {
      calls: [
        { method: "sequence.next", params: { type: "TRX", requestId: null } },
        {
          method: "queue.enqueue",
          params: { queue: "params-trx", payloads: [null], retry: { baseMs: null } },
        },
        { method: "sequence.state", params: null },
        { method: "sequence.state", params: [] },
        { method: "sequence.state", params: { limit: null } },
        { method: "queue.retry", params: { queue: "params-trx", batchId: null } },
      ],
      guards: null,
    })) as unknown as { results: unknown[] };
    expect(results).toMatchObject([
      { seq: 1 },
      { batch: { payloads: [null], retry: { baseMs: 1000 } } },
      { sequences: {} },
      { sequences: {} },
      { sequences: {} },
      { retried: 0 },
    ]);
    const board = { calls: [{ method: "pipeline.heads", params: { known: null } }] };
    expect(await call(client, "transact", board)).toMatchObject({ results: [{}] });
    const positional = { calls: [{ method: "sequence.state", params: [1] }] };
    expect((await client.refusal("transact", positional)).data.kind).toBe("invalid_params");
    const name = await client.call("sequence.next", { type: "TRX" });
    expect(name.seq).toBe(2);
  });
});

describe("null that is a value", () => {
  test("stays one: it takes a setting of a queue back", async () => {
    const client = await daemon().place.connect();
    const queue = "params-settings";
    await client.call("queue.configure", { queue, maxAttempts: 3, retry: { baseMs: 7 } });
    await client.call("queue.configure", { queue, maxAttempts: null });
    expect(await client.call("queue.settings", { queue })).toMatchObject({
      settings: { maxAttempts: null, retry: { baseMs: 7 } },
    });
    // Within a setting it is an optional param as elsewhere.
    await call(client, "queue.configure", { queue, retry: { baseMs: 9, jitter: null } });
    expect(await client.call("queue.settings", { queue })).toMatchObject({
      settings: { maxAttempts: null, retry: { baseMs: 9, jitter: true } },
    });
  });

  test("stays one: the text of an item, a payload, an answer", async () => {
    const client = await daemon().place.connect();
    const storyId = "P-2";
    await client.call("pipeline.write", { storyId, stage: "1_backlog", name: "n", agent: "a" });
    await call(client, "pipeline.write", { storyId, name: null, stage: null });
    expect(await client.call("pipeline.read", { storyId })).toMatchObject({
      item: { stage: "1_backlog", name: null, agent: "a" },
    });
    const { data } = await client.refusal("pipeline.write", { storyId, stage: null });
    expect(data.issues).toMatchObject([
      { message: `must set at least one field, not {"storyId":"${storyId}"}` },
    ]);

    const { commandId } = await client.call("command.create", { deployment: "params-answer", command: "go" });
    const { leases } = await client.call("command.lease", { deployment: "params-answer", owner: "o" });
    const leaseId = leases[0]?.leaseId as string;
    const response = { status: "success", response: null } as const;
    await client.call("command.respond", { commandId, leaseId, response });
    expect(await client.call("command.response", { commandId })).toMatchObject({ response });
  });
});
