// Whatever happens to a claim, and between batches: progress, results, waiting for an end, being stopped, and flows.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;
type Batch = Result<"queue.get">["batch"];

const daemon = sharedDaemon();

/** A queue of its own for each test. */
class Queue {
  readonly name: string;
  readonly client: RawClient;

  constructor(name: string, client: RawClient) {
    this.name = name;
    this.client = client;
  }

  static async open(name: string): Promise<Queue> {
    return new Queue(name, await daemon().place.connect());
  }

  async enqueue(payload: unknown, given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    const params = { queue: this.name, payloads: [payload], ...given };
    return (await this.client.call("queue.enqueue", params)).batch.batchId;
  }

  async claim(given: Partial<Params<"queue.claim">> = {}): Promise<Claim> {
    const { claim } = await this.client.call("queue.claim", { queue: this.name, owner: "test", ...given });
    if (claim === null) throw new Error(`there is nothing to claim in ${this.name}`);
    return claim;
  }

  async get(batchId: string): Promise<Batch> {
    return (await this.client.call("queue.get", { batchId })).batch;
  }
}

function proofOf({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

const JOIN = { slotPolicy: "join", mergeKey: "payload_default" } as const;

/** JSON that no parser gives back as it was. */
const EXACT = '{"b":1.0,"a":12345678901234567890,"a":[1e400, "\\u00e9"]}';

/** The line of a request, and the line of its answer. */
async function lineOf(client: RawClient, method: string, params: string): Promise<string> {
  client.write(`{"jsonrpc":"2.0","id":"raw","method":"${method}","params":${params}}\n`);
  return await client.line();
}

describe("progress", () => {
  test("is shown, merges what is given, and the checkpoint goes to the next holder byte for byte", async () => {
    const queue = await Queue.open("progress");
    const batchId = await queue.enqueue(1);
    const claim = await queue.claim({ leaseMs: 1000 });
    const proof = proofOf(claim);
    const held = await queue.client.call("queue.progress", { ...proof, percent: 12.5, leaseMs: 60_000 });
    expect(held.cancelling).toBe(false);
    expect(held.remainingMs).toBe(60_000);
    await queue.client.call("queue.progress", { ...proof, note: "half" });
    const params = `{"claimId":"${claim.claimId}","leaseToken":"${claim.leaseToken}","checkpoint":${EXACT}}`;
    expect(await lineOf(queue.client, "queue.progress", params)).toContain('"cancelling":false');
    expect(await queue.get(batchId)).toMatchObject({ progress: { percent: 12.5, note: "half" } });

    await queue.client.call("queue.abandon", proof);
    const again = await lineOf(queue.client, "queue.claim", '{"queue":"progress","owner":"next"}');
    expect(again).toContain(`"checkpoint":${EXACT}`);
    expect((await queue.get(batchId)).progress).toBeUndefined();
    expect((await queue.client.refusal("queue.progress", { ...proof, percent: 1 })).data.kind).toBe(
      "claim_lost",
    );
  });

  test("of a group is that of each batch, and bounds hold", async () => {
    const queue = await Queue.open("progress-bounds");
    const ids = [await queue.enqueue(1, JOIN), await queue.enqueue(2, JOIN)];
    const proof = proofOf(await queue.claim({ maxBatches: 2 }));
    await queue.client.call("queue.progress", { ...proof, percent: 100, checkpoint: "x".repeat(149_998) });
    for (const id of ids) expect((await queue.get(id)).progress).toEqual({ percent: 100 });
    for (const wrong of [
      { percent: 101 },
      { percent: -1 },
      { percent: "half" },
      { note: "x".repeat(1025) },
      { checkpoint: "x".repeat(149_999) },
    ]) {
      const refusal = await queue.client.refusal("queue.progress", { ...proof, ...wrong });
      expect(refusal.data.issues).toMatchObject([{ path: `/${Object.keys(wrong)[0]}` }]);
    }
  });
});

describe("results", () => {
  test("are kept byte for byte, of all batches or of each", async () => {
    const queue = await Queue.open("results");
    const one = await queue.enqueue(1);
    const { claimId, leaseToken } = await queue.claim();
    const params = `{"claimId":"${claimId}","leaseToken":"${leaseToken}","result":${EXACT}}`;
    for (const _ of ["first", "again"]) {
      expect(await lineOf(queue.client, "queue.complete", params)).toContain('"completed":1');
    }
    expect(await lineOf(queue.client, "queue.get", `{"batchId":"${one}"}`)).toContain(`"result":${EXACT}`);

    const ids = [await queue.enqueue(2, JOIN), await queue.enqueue(3, JOIN), await queue.enqueue(4, JOIN)];
    const proof = proofOf(await queue.claim({ maxBatches: 3 }));
    const [first, second, third] = ids as [string, string, string];
    const refusal = await queue.client.refusal("queue.complete", { ...proof, results: { [one]: 1 } });
    expect(refusal.data.issues).toMatchObject([{ path: `/results/${one}` }]);
    await queue.client.call("queue.complete", {
      ...proof,
      results: { [first]: null, [third]: { ok: true } },
    });
    expect((await queue.get(first)).result).toBeNull();
    expect(await queue.get(second)).not.toHaveProperty("result");
    expect((await queue.get(third)).result).toEqual({ ok: true });
  });

  test("have bounds, and result and results exclude one another", async () => {
    const queue = await Queue.open("results-bounds");
    for (let index = 0; index < 8; index++) await queue.enqueue(index, JOIN);
    const proof = proofOf(await queue.claim({ maxBatches: 8 }));
    const call = (given: object) => queue.client.refusal("queue.complete", { ...proof, ...given });
    expect((await call({ result: "x".repeat(149_999) })).message).toContain("150001 bytes");
    expect((await call({ result: "x".repeat(140_000) })).message).toContain("8 batches");
    expect((await call({ result: 1, results: {} })).data.issues).toMatchObject([{ path: "/results" }]);
    expect(await queue.client.call("queue.complete", { ...proof, result: 1 })).toEqual({ completed: 8 });
  });
});

describe("the wait for an end", () => {
  test("is answered by the completion, at once for what is final, and as it is when it is over", async () => {
    const queue = await Queue.open("wait");
    const other = await daemon().place.connect();
    const batchId = await queue.enqueue(1);
    const waited = other.call("queue.wait", { batchId, waitMs: 60_000 });
    await daemon().place.next();
    expect((await queue.client.call("queue.wait", { batchId, waitMs: 1 })).batch.state).toBe("ready");
    const proof = proofOf(await queue.claim());
    await queue.client.call("queue.complete", { ...proof, result: 7 });
    expect((await waited).batch).toMatchObject({ state: "completed", result: 7 });
    expect((await other.call("queue.wait", { batchId, waitMs: 60_000 })).batch.state).toBe("completed");
    const unknown = `qwb:${"0".repeat(64)}`;
    expect((await other.refusal("queue.wait", { batchId: unknown, waitMs: 1 })).data.kind).toBe("not_found");
  });

  test("ends with a cancel, a death and a purge", async () => {
    const queue = await Queue.open("wait-ends");
    const other = await daemon().place.connect();
    const ids = [await queue.enqueue(1), await queue.enqueue(2), await queue.enqueue(3)];
    const [dies, cancelled, purged] = ids as [string, string, string];
    const waits = ids.map((batchId) => other.call("queue.wait", { batchId, waitMs: 60_000 }));
    for (const wait of waits) wait.catch(() => {});
    await daemon().place.next();
    const given = { ...proofOf(await queue.claim()), dead: true, error: "hopeless" };
    expect(await queue.client.call("queue.abandon", given)).toEqual({ released: 0, dead: 1 });
    await queue.client.call("queue.cancel", { batchId: cancelled });
    await queue.client.call("queue.purge", { batchIds: [purged] });
    expect((await waits[0])?.batch).toMatchObject({ state: "dead", lastError: "hopeless", attempt: 1 });
    expect((await waits[1])?.batch.state).toBe("cancelled");
    await expect(waits[2]).rejects.toThrow("not_found");
    expect(await queue.get(dies)).toMatchObject({ state: "dead" });
  });
});

test("a batch that is given up is dead whatever attempts are left, and can be retried", async () => {
  const queue = await Queue.open("give-up");
  const batchId = await queue.enqueue(1, { maxAttempts: 0 });
  const proof = proofOf(await queue.claim());
  const refusal = await queue.client.refusal("queue.abandon", { ...proof, dead: true, delayMs: 5 });
  expect(refusal.data.issues).toMatchObject([{ path: "/delayMs" }]);
  expect(await queue.client.call("queue.abandon", { ...proof, dead: true })).toEqual({
    released: 0,
    dead: 1,
  });
  expect(await queue.get(batchId)).toMatchObject({ state: "dead", attempt: 0 });
  expect((await queue.client.refusal("queue.complete", proof)).data.kind).toBe("claim_lost");
  expect(await queue.client.call("queue.retry", { batchId })).toMatchObject({ retried: 1 });
  expect((await queue.claim()).batches[0]?.batchId).toBe(batchId);
});

test("a trace is handed on with the claim and is no part of the content", async () => {
  const queue = await Queue.open("trace");
  const trace = { traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`, tracestate: "vendor=1" };
  const once = { sourceKey: "once" };
  const batchId = await queue.enqueue(1, { ...once, trace });
  expect(await queue.enqueue(1, once)).toBe(batchId);
  const other = { traceparent: `00-${"c".repeat(32)}-${"d".repeat(16)}-00` };
  expect(await queue.enqueue(1, { ...once, trace: other })).toBe(batchId);
  expect((await queue.get(batchId)).trace).toEqual(trace);
  await queue.enqueue(1, { ...once, onExisting: "replace", trace: other });
  expect((await queue.claim()).batches[0]?.trace).toEqual(other);
  const wrong = { queue: "trace", payloads: [1], trace: { traceparent: "00-abc" } };
  const refusal = await queue.client.refusal("queue.enqueue", wrong);
  expect(refusal.data.issues).toMatchObject([{ path: "/trace/traceparent" }]);
});
