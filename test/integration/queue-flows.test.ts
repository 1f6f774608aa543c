// Whatever happens to a claim, and between batches: progress, results, waiting for an end, being stopped, and flows.
import { connect } from "@pawl/client";
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { pawl as pawlCommand, startPawl } from "./cli-program.js";

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

/** The next notification of a connection. */
async function told(client: RawClient): Promise<{ method: string; params: Record<string, unknown> }> {
  return JSON.parse(await client.line()) as { method: string; params: Record<string, unknown> };
}

describe("a claimed batch that is cancelled", () => {
  const stop = { stop: true } as const;

  test("is left alone without stop; with it its holder is told, and what completes first wins", async () => {
    const queue = await Queue.open("stop");
    const other = await daemon().place.connect();
    const batchId = await queue.enqueue(1);
    const claim = await queue.claim();
    expect(await other.call("queue.cancel", { batchId })).toEqual({ outcome: "already_claimed" });
    const cancelled = await other.call("queue.cancel", {
      batchId,
      ...stop,
      graceMs: 5000,
      reason: "not needed",
    });
    expect(cancelled).toEqual({ outcome: "cancelling" });
    expect(await told(queue.client)).toMatchObject({
      method: "claim.cancelling",
      params: {
        claimId: claim.claimId,
        queue: "stop",
        batchIds: [batchId],
        reason: "not needed",
        graceMs: 5000,
      },
    });
    const renewed = await queue.client.call("queue.renew", { ...proofOf(claim), leaseMs: 60_000 });
    expect(renewed.cancelling).toBe(true);
    expect(renewed.remainingMs).toBeLessThanOrEqual(5000);
    expect((await queue.client.call("queue.progress", proofOf(claim))).cancelling).toBe(true);
    expect(await queue.client.call("queue.complete", { ...proofOf(claim), result: 1 })).toEqual({
      completed: 1,
    });
    expect(await queue.get(batchId)).toMatchObject({ state: "completed", result: 1 });
    expect(await other.call("queue.cancel", { batchId, ...stop })).toEqual({ outcome: "already_completed" });
    // Nothing of it is left for a later claim of the queue.
    await queue.enqueue(2);
    expect((await queue.client.call("queue.renew", proofOf(await queue.claim()))).cancelling).toBe(false);
  });

  test("is cancelled at the end of the grace, which only becomes shorter; the others are ready, uncounted", async () => {
    const queue = await Queue.open("stop-grace");
    const ids = [await queue.enqueue(1, JOIN), await queue.enqueue(2, JOIN), await queue.enqueue(3, JOIN)];
    const [first, second, third] = ids as [string, string, string];
    const claim = await queue.claim({ maxBatches: 3 });
    const cancel = (batchId: string, graceMs: number, reason?: string) =>
      queue.client.call("queue.cancel", { batchId, ...stop, graceMs, ...(reason && { reason }) });
    await cancel(first, 60_000, "why");
    expect((await told(queue.client)).params).toMatchObject({ batchIds: [first] });
    await cancel(first, 120_000);
    const left = await queue.client.call("queue.renew", { ...proofOf(claim), leaseMs: 600_000 });
    expect(left.remainingMs).toBeLessThanOrEqual(60_000);
    await cancel(third, 300);
    const again = await told(queue.client);
    expect(again.params).toMatchObject({ reason: "why" });
    expect(new Set(again.params.batchIds as string[])).toEqual(new Set([first, third]));
    expect(await told(queue.client)).toMatchObject({
      method: "claim.lost",
      params: { claimId: claim.claimId, batchIds: ids, cause: "cancelled", reason: "why" },
    });
    expect(await queue.get(first)).toMatchObject({ state: "cancelled", lastError: "why", attempt: 0 });
    expect(await queue.get(second)).toMatchObject({ state: "ready", attempt: 0 });
    expect((await queue.get(third)).state).toBe("cancelled");
    expect((await queue.client.refusal("queue.complete", proofOf(claim))).data.kind).toBe("claim_lost");
    const { queues } = await queue.client.call("queue.stats", { queue: queue.name });
    expect(queues[0]).toMatchObject({ ready: 1, claimed: 0, cancelled: 2 });
  });

  test("keeps the reason that was given first, as its claim does, whatever later cancels say", async () => {
    const queue = await Queue.open("stop-reasons");
    const ids = [await queue.enqueue(1, JOIN), await queue.enqueue(2, JOIN), await queue.enqueue(3, JOIN)];
    const [first, second, third] = ids as [string, string, string];
    const { claimId } = await queue.claim({ maxBatches: 3, notify: true });
    const cancel = (batchId: string, given: Partial<Params<"queue.cancel">>) =>
      queue.client.call("queue.cancel", { batchId, ...stop, graceMs: 600_000, ...given });
    await cancel(third, { reason: "first" });
    expect((await told(queue.client)).params).toMatchObject({ batchIds: [third], reason: "first" });
    await cancel(first, { graceMs: 900_000 });
    expect((await told(queue.client)).params).toMatchObject({ batchIds: [first, third], reason: "first" });
    // Nobody is told of these: they change nothing that the holder knows.
    await cancel(third, { graceMs: 900_000, reason: "again" });
    await cancel(first, { graceMs: 900_000, reason: "late" });
    await cancel(third, { graceMs: 900_000 });
    await cancel(second, { graceMs: 0, reason: "other" });
    expect(await told(queue.client)).toMatchObject({
      method: "claim.cancelling",
      params: { claimId, batchIds: ids, reason: "first", graceMs: 0 },
    });
    expect(await told(queue.client)).toMatchObject({
      method: "claim.lost",
      params: { claimId, batchIds: ids, cause: "cancelled", reason: "first" },
    });
    expect(await queue.get(third)).toMatchObject({ state: "cancelled", lastError: "first" });
    expect(await queue.get(first)).toMatchObject({ state: "cancelled", lastError: "late" });
    expect(await queue.get(second)).toMatchObject({ state: "cancelled", lastError: "other" });
  });

  test("without a reason takes a later one, and its holder is told, also where the grace is the same", async () => {
    const queue = await Queue.open("stop-later-reason");
    const ids = [await queue.enqueue(1, JOIN), await queue.enqueue(2, JOIN)];
    const [first, second] = ids as [string, string];
    const { claimId } = await queue.claim({ maxBatches: 2, notify: true });
    const cancel = (batchId: string, given: Partial<Params<"queue.cancel">>) =>
      queue.client.call("queue.cancel", { batchId, ...stop, graceMs: 600_000, ...given });
    await cancel(second, {});
    expect((await told(queue.client)).params).toMatchObject({ batchIds: [second], reason: null });
    await cancel(second, { graceMs: 900_000, reason: "why" });
    const again = (await told(queue.client)).params;
    expect(again).toMatchObject({ batchIds: [second], reason: "why" });
    expect(again.graceMs).toBeLessThanOrEqual(600_000);
    await cancel(first, { graceMs: 0 });
    expect((await told(queue.client)).params).toMatchObject({ batchIds: ids, reason: "why", graceMs: 0 });
    expect(await told(queue.client)).toMatchObject({
      method: "claim.lost",
      params: { claimId, reason: "why" },
    });
    expect(await queue.get(second)).toMatchObject({ state: "cancelled", lastError: "why" });
    const { state, lastError } = await queue.get(first);
    expect({ state, lastError }).toEqual({ state: "cancelled", lastError: undefined });
  });

  test.each(["abandon", "error", "expiry", "renewed for less", "disconnect", "now"])(
    "is cancelled by %s",
    async (how) => {
      const queue = await Queue.open(`stop-${how}`);
      const worker = await daemon().place.connect();
      const batchId = await queue.enqueue(1, JOIN);
      const other = await queue.enqueue(2, JOIN);
      const params = { queue: queue.name, owner: "w", maxBatches: 2 } as const;
      const releaseOn = how === "disconnect" ? "disconnect" : "expiry";
      const leaseMs = how === "renewed for less" ? 3_600_000 : 200;
      const { claim } = await worker.call("queue.claim", { ...params, leaseMs, releaseOn });
      const proof = proofOf(claim as Claim);
      const graceMs = how === "now" ? 0 : 3_600_000;
      expect(await queue.client.call("queue.cancel", { batchId, ...stop, graceMs })).toEqual({
        outcome: "cancelling",
      });
      if (how === "abandon")
        expect(await worker.call("queue.abandon", proof)).toEqual({ released: 1, dead: 0 });
      if (how === "error") await worker.call("queue.abandon", { ...proof, error: "stopped" });
      if (how === "disconnect") await worker.destroy();
      if (how === "renewed for less") await worker.call("queue.renew", { ...proof, leaseMs: 200 });
      expect((await queue.client.call("queue.wait", { batchId, waitMs: 60_000 })).batch.state).toBe(
        "cancelled",
      );
      expect((await queue.client.refusal("queue.complete", proof)).data.kind).toBe("claim_lost");
      const counted = how === "abandon" || how === "now" ? 0 : 1;
      expect(await queue.get(other)).toMatchObject({ attempt: counted });
      expect(await queue.client.call("queue.retry", { batchId })).toMatchObject({ retried: 1 });
      expect((await queue.get(batchId)).state).toBe("ready");
    },
  );

  test("graceMs is about stopping, and a reason stays with what was only waiting", async () => {
    const queue = await Queue.open("stop-params");
    const batchId = await queue.enqueue(1);
    const refusal = await queue.client.refusal("queue.cancel", { batchId, graceMs: 1 });
    expect(refusal.data.issues).toMatchObject([{ path: "/graceMs" }]);
    const given = { batchId, ...stop, graceMs: 1, reason: "changed" };
    expect(await queue.client.call("queue.cancel", given)).toEqual({ outcome: "cancelled" });
    expect(await queue.get(batchId)).toMatchObject({ state: "cancelled", lastError: "changed" });
  });

  test("stays so over a kill of the daemon: the grace is durable", async () => {
    const { place, child, exited } = await startDaemon();
    const client = await place.connect();
    const { batch } = await client.call("queue.enqueue", { queue: "q", payloads: [1] });
    const { claim } = await client.call("queue.claim", { queue: "q", owner: "w", leaseMs: 60_000 });
    // It outlasts the start of the next daemon on a slow machine, too.
    await client.call("queue.cancel", { batchId: batch.batchId, ...stop, graceMs: 6000, reason: "over" });
    child.kill("SIGKILL");
    await exited;
    await place.start();
    const again = await place.connect();
    expect((await again.call("queue.renew", proofOf(claim as Claim))).cancelling).toBe(true);
    const ended = await again.call("queue.wait", { batchId: batch.batchId, waitMs: 60_000 });
    expect(ended.batch).toMatchObject({ state: "cancelled", lastError: "over" });
    expect((await told(again)).method).toBe("claim.lost");
  });
});

describe("workers", () => {
  test("of the library go on from a checkpoint, keep results, and are stopped by their signal", async () => {
    const pawl = await connect({ socket: daemon().place.socket });
    onTestFinished(() => pawl.close());
    const enqueue = async () => (await pawl.queue.enqueue({ queue: "library", payloads: [1] })).batch.batchId;
    const seen: unknown[] = [];
    let begun = (): void => {};
    const cancelledWork: unknown[] = [];
    const worker = pawl.work(
      "library",
      async (work) => {
        const [{ checkpoint } = {}] = work.batches;
        seen.push(checkpoint);
        if (seen.length === 1) {
          await work.progress({ percent: 10, note: "first", checkpoint: { row: 1 } });
          throw new Error("later");
        }
        if (seen.length === 2) return { rows: 2 };
        return await new Promise((_, reject) => {
          work.signal.addEventListener("abort", () => reject(work.signal.reason));
          begun();
        });
      },
      { retryDelayMs: 0, onCancel: (work) => cancelledWork.push(work.cancelled), onFailure: () => {} },
    );
    const first = await enqueue();
    const done = (await pawl.queue.wait({ batchId: first, waitMs: 60_000 })).batch;
    expect(done).toMatchObject({ state: "completed", result: { rows: 2 }, attempt: 1 });
    expect(seen).toEqual([undefined, { row: 1 }]);

    const began = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const second = await enqueue();
    await began;
    await pawl.queue.cancel({ batchId: second, stop: true, reason: "enough" });
    const stopped = (await pawl.queue.wait({ batchId: second, waitMs: 60_000 })).batch;
    expect(stopped).toMatchObject({ state: "cancelled", lastError: "enough", attempt: 0 });
    await expect.poll(() => cancelledWork).toEqual([{ reason: "enough", graceMs: 30_000 }]);
    await worker.close();
  });

  test("of the library are told that their work was cancelled, also where it ends after the grace", async () => {
    const pawl = await connect({ socket: daemon().place.socket });
    onTestFinished(() => pawl.close());
    const { batchId } = (await pawl.queue.enqueue({ queue: "too-late", payloads: [1] })).batch;
    let begun = (): void => {};
    const began = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const told = new Promise((resolve, reject) => {
      const worker = pawl.work(
        "too-late",
        async ({ signal }) => {
          begun();
          await new Promise((aborted) => signal.addEventListener("abort", aborted));
          // Its claim has ended then, of which the same connection was told before.
          await pawl.queue.wait({ batchId, waitMs: 60_000 });
          throw signal.reason;
        },
        { onCancel: ({ cancelled }) => resolve(cancelled), onFailure: reject, onError: reject },
      );
      onTestFinished(() => worker.close());
    });
    await began;
    await pawl.queue.cancel({ batchId, stop: true, graceMs: 100, reason: "enough" });
    expect(await told).toEqual({ reason: "enough", graceMs: 100 });
  });

  test("by command keep what is printed, know the trace, and end what is cancelled", async () => {
    const { socket } = daemon().place;
    const run = (...args: string[]) => pawlCommand(args, { socket });
    const traceparent = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;
    const script = `read line; case $line in 1) printf '{"trace":"%s","n":1.0}' "$TRACEPARENT";; 2) echo text;; *)
      trap '' TERM; echo started >&2; while :; do sleep 0.05; done;; esac`;
    const worker = startPawl(["work", "by-command", "--result", "--json", "--", "sh", "-c", script], {
      socket,
    });
    const exact = (await run("enqueue", "by-command", "1", "--trace", traceparent)).stdout.trim();
    const waited = await run("wait", exact, "--for", "1m");
    expect([waited.stdout.trim(), waited.code]).toEqual([`{"trace":"${traceparent}","n":1.0}`, 0]);
    const text = (await run("enqueue", "by-command", "2")).stdout.trim();
    expect((await run("wait", text)).stdout.trim()).toBe('"text\\n"');
    const endless = (await run("enqueue", "by-command", "3")).stdout.trim();
    await worker.complained(/started/);
    expect((await run("wait", endless, "--for", "10ms")).stderr).toContain("It is still claimed.");
    const cancel = await run("cancel", endless, "--stop", "--grace", "500ms", "--reason", "too long");
    expect([cancel.stdout.trim(), cancel.code]).toEqual(["Cancelling.", 0]);
    const ended = await run("wait", endless, "--for", "1m");
    expect([ended.stderr.trim(), ended.code]).toEqual(["It is cancelled: too long.", 1]);
    await worker.printed(/"outcome":"cancelled"/);
    await worker.end("SIGTERM");
  });
});

describe("batches that wait for others", () => {
  /** Ends the next batch of a queue. */
  async function finish(queue: Queue, how: object = {}, method = "queue.complete"): Promise<Claim> {
    const claim = await queue.claim();
    await queue.client.call(method as "queue.complete", { ...proofOf(claim), ...how });
    return claim;
  }

  const states = (queue: Queue, ids: readonly string[]): Promise<string[]> =>
    Promise.all(ids.map(async (id) => (await queue.get(id)).state));

  test("are claimed once all have succeeded, with their results", async () => {
    const queue = await Queue.open("flow-fan-in");
    const first = await queue.enqueue(1);
    const second = await queue.enqueue(2);
    const after = [first, second, first];
    const last = await queue.enqueue("last", { after });
    expect(await queue.get(last)).toMatchObject({
      state: "blocked",
      after: [first, second],
      when: "success",
    });
    expect(await queue.client.call("queue.explain", { batchId: last })).toMatchObject({
      reason: "blocked",
      waitsFor: [first, second],
    });
    await finish(queue, { result: { n: 1 } });
    expect((await queue.get(last)).state).toBe("blocked");
    const waiting = queue.client.call("queue.claim", { queue: queue.name, owner: "w", waitMs: 60_000 });
    const proof = proofOf((await waiting).claim as Claim);
    const next = queue.client.call("queue.claim", { queue: queue.name, owner: "w", waitMs: 60_000 });
    await daemon().place.next();
    const other = await daemon().place.connect();
    await other.call("queue.complete", { ...proof, result: "x".repeat(149_000) });
    const { claim } = await next;
    expect(claim?.batches[0]?.batchId).toBe(last);
    expect(claim?.parents?.[first]).toEqual({ state: "completed", result: { n: 1 } });
    expect(claim?.parents?.[second]?.result).toHaveLength(149_000);
    // What waited for them need not any more.
    expect(await other.call("queue.purge", { batchIds: [first] })).toMatchObject({ purged: 0 });
    await other.call("queue.complete", proofOf(claim as Claim));
    expect(await other.call("queue.purge", { batchIds: [first, second] })).toMatchObject({ purged: 2 });
  });

  test("are cancelled downwards when one fails, and come back when it is retried", async () => {
    const queue = await Queue.open("flow-down");
    const [root, middle, leaf, whatever] = (
      await queue.client.call("queue.enqueueMany", {
        batches: [
          { queue: queue.name, payloads: ["root"], ref: "root", maxAttempts: 1 },
          { queue: queue.name, payloads: ["middle"], ref: "middle", after: ["root"] },
          { queue: queue.name, payloads: ["leaf"], after: ["middle"] },
          { queue: queue.name, payloads: ["whatever"], after: ["root"], when: "finished" },
        ],
      })
    ).batches.map(({ batchId }) => batchId) as [string, string, string, string];
    const failed = await finish(queue, { error: "no" }, "queue.abandon");
    expect(await states(queue, [root, middle, leaf, whatever])).toEqual([
      "dead",
      "cancelled",
      "cancelled",
      "ready",
    ]);
    expect((await queue.get(middle)).lastError).toBe(
      `The batch ${root}, which it waits for to succeed, is dead.`,
    );
    expect((await queue.get(leaf)).lastError).toContain(
      `${middle}, which it waits for to succeed, is cancelled`,
    );
    expect((await queue.client.refusal("queue.complete", proofOf(failed))).data.kind).toBe("claim_lost");
    expect(await queue.client.call("queue.retry", { batchId: leaf })).toMatchObject({ retried: 0 });
    expect(await queue.client.call("queue.retry", { batchId: root })).toMatchObject({ retried: 1 });
    expect(await states(queue, [root, middle, leaf, whatever])).toEqual([
      "ready",
      "blocked",
      "blocked",
      "ready",
    ]);
    expect(await queue.get(middle)).not.toHaveProperty("lastError");
    for (const payload of ["root", "middle", "leaf", "whatever"]) {
      expect((await finish(queue)).batches[0]?.payloads).toEqual([payload]);
    }
    const { queues } = await queue.client.call("queue.stats", { queue: queue.name });
    expect(queues[0]).toMatchObject({ completed: 4, blocked: 0, cancelled: 0, dead: 0 });
  });

  test("for a failure are cancelled when all succeed, and begin their delay when one fails", async () => {
    const queue = await Queue.open("flow-failure");
    const good = await queue.enqueue("good");
    const bad = await queue.enqueue("bad", { maxAttempts: 1 });
    const never = await queue.enqueue("never", { after: [good], when: "failure" });
    const cleanup = await queue.enqueue("cleanup", {
      after: [good, bad],
      when: "failure",
      delayMs: 200,
      ttlMs: 60_000,
    });
    await finish(queue);
    expect(await states(queue, [never, cleanup])).toEqual(["cancelled", "blocked"]);
    const before = Date.now();
    await finish(queue, { error: "no" }, "queue.abandon");
    const scheduled = await queue.get(cleanup);
    expect(scheduled.state).toBe("scheduled");
    expect(scheduled.availableAt).toBeGreaterThanOrEqual(before + 200);
    const { parents } = await queue.claim({ waitMs: 60_000 });
    expect(parents).toEqual({ [good]: { state: "completed" }, [bad]: { state: "dead" } });
    // What is final already counts at once.
    const done = await queue.enqueue("at once", { after: [good] });
    const hopeless = await queue.enqueue("hopeless", { after: [bad] });
    expect(await states(queue, [done, hopeless])).toEqual(["ready", "cancelled"]);
  });

  test("a blocked one that a caller cancels comes back blocked, and unknown ones and circles are refused", async () => {
    const queue = await Queue.open("flow-refused");
    const first = await queue.enqueue(1);
    const second = await queue.enqueue(2, { after: [first], sourceKey: "second" });
    await queue.client.call("queue.cancel", { batchId: second });
    expect(await queue.client.call("queue.retry", { batchId: second })).toMatchObject({ retried: 1 });
    expect((await queue.get(second)).state).toBe("blocked");
    const third = await queue.enqueue(3, { after: [second] });
    const refused = async (params: object, method = "queue.enqueue") =>
      await queue.client.refusal(method, params);
    const one = { queue: queue.name, payloads: [1] };
    expect((await refused({ ...one, after: [`qwb:${"0".repeat(64)}`] })).data.kind).toBe("not_found");
    expect((await refused({ ...one, after: ["ref"] })).data.issues).toMatchObject([{ path: "/after/0" }]);
    expect((await refused({ ...one, when: "failure" })).data.issues).toMatchObject([{ path: "/when" }]);
    const circle = [
      { ...one, ref: "a", after: ["b"] },
      { ...one, ref: "b", after: ["a"] },
    ];
    expect((await refused({ batches: circle }, "queue.enqueueMany")).message).toContain("makes a circle");
    const twice = [
      { ...one, ref: "a" },
      { ...one, ref: "a" },
    ];
    expect((await refused({ batches: twice }, "queue.enqueueMany")).data.issues).toMatchObject([
      { path: "/batches/1/ref" },
    ]);
    const back = { ...one, sourceKey: "second", onExisting: "replace", after: [third] };
    expect((await refused(back)).message).toContain("makes a circle");
    // The content has what it waits for.
    expect((await refused({ queue: queue.name, payloads: [2], sourceKey: "second" })).data.kind).toBe(
      "conflict",
    );
    expect(await queue.enqueue(2, { after: [first], sourceKey: "second" })).toBe(second);
    await queue.enqueue(4, { sourceKey: "second", onExisting: "replace" });
    expect(await queue.get(second)).toMatchObject({ state: "ready", payloads: [4] });
    expect(await queue.get(second)).not.toHaveProperty("after");
  });

  test("of those that are purged once they have ended, none is counted twice by what they waited for", async () => {
    const queue = await Queue.open("flow-purged");
    const purge = (batchId: string) => queue.client.call("queue.purge", { batchIds: [batchId] });
    const awaited = await queue.enqueue("awaited");
    const cancelled = await queue.enqueue("cancelled", { after: [awaited] });
    await queue.client.call("queue.cancel", { batchId: cancelled });
    expect((await purge(cancelled)).purged).toBe(1);
    const other = await queue.enqueue("other", { after: [awaited] });
    expect((await purge(awaited)).purged).toBe(0);
    expect((await purge(other)).purged).toBe(1);
    expect((await purge(awaited)).purged).toBe(1);
  });

  test("what was removed before it had ended is not waited for again, whoever brings those that waited back", async () => {
    const queue = await Queue.open("flow-removed");
    const [removed, failed] = [await queue.enqueue(1, { delayMs: 60_000 }), await queue.enqueue(2)];
    const alone = await queue.enqueue(3, { after: [removed] });
    const both = await queue.enqueue(4, { after: [failed, removed] });
    const any = await queue.enqueue(5, { after: [removed], when: "finished" });
    for (const batchId of [alone, any, failed]) await queue.client.call("queue.cancel", { batchId });
    expect(await queue.client.call("queue.purge", { batchIds: [removed] })).toMatchObject({ purged: 1 });
    expect(await queue.client.call("queue.retry", { batchId: alone })).toMatchObject({ retried: 0 });
    await queue.client.call("queue.retry", { batchId: failed });
    await queue.client.call("queue.retry", { batchId: any });
    expect(await states(queue, [alone, both, any])).toEqual(["cancelled", "cancelled", "ready"]);
  });

  test("see what became of those by an earlier batch of the same call", async () => {
    const queue = await Queue.open("changed-meanwhile");
    const [before, failed] = [await queue.enqueue("before"), await queue.enqueue("failed")];
    await queue.client.call("queue.cancel", { batchId: failed });
    const replaced = await queue.enqueue("replaced", { sourceKey: "r", after: [before] });
    const child = await queue.enqueue("child", { after: [replaced] });
    const to = { queue: queue.name, payloads: [1] };
    const finished: Params<"queue.enqueue"> = { ...to, after: [child], when: "finished" };
    const again: Params<"queue.enqueue"> = { ...to, sourceKey: "r", onExisting: "replace", after: [failed] };
    const { batches } = await queue.client.call("queue.enqueueMany", {
      batches: [finished, again, finished],
    });
    const states = [];
    for (const { batchId } of batches) states.push((await queue.get(batchId)).state);
    expect(states).toEqual(["ready", "cancelled", "ready"]);
    expect((await queue.get(child)).state).toBe("cancelled");
  });

  test("a time that is named for a blocked batch takes the place of its delay", async () => {
    const queue = await Queue.open("flow-update");
    const parent = await queue.enqueue(1);
    const child = await queue.enqueue(2, { after: [parent], delayMs: 60_000 });
    await queue.client.call("queue.update", { batchId: child, availableAt: Date.now() });
    await finish(queue);
    expect((await queue.get(child)).state).toBe("ready");
  });

  test("a batch that is completed late is shown with the time that was named for it meanwhile", async () => {
    const queue = await Queue.open("flow-late");
    const batchId = await queue.enqueue(1);
    const claim = await queue.claim({ leaseMs: 100 });
    await expect.poll(async () => (await queue.get(batchId)).state).toBe("ready");
    const availableAt = Date.now() + 3_600_000;
    await queue.client.call("queue.update", { batchId, availableAt });
    expect(await queue.client.call("queue.complete", proofOf(claim))).toEqual({ completed: 1 });
    expect(await queue.get(batchId)).toMatchObject({ state: "completed", availableAt });
  });

  test("a dead batch whose follower was released cannot be completed late", async () => {
    const queue = await Queue.open("flow-dead-followed");
    const one = { queue: queue.name, payloads: [1], sourceKey: "key", maxAttempts: 1 };
    const { batch } = await queue.client.call("queue.enqueue", one);
    const { claimId, leaseToken } = await queue.claim({ leaseMs: 100 });
    await queue.client.call("queue.enqueue", { ...one, onExisting: "rerun" });
    await queue.client.call("queue.wait", { batchId: batch.batchId, waitMs: 60_000 });
    expect((await queue.get(batch.batchId)).state).toBe("dead");
    const late = await queue.client.refusal("queue.complete", { claimId, leaseToken });
    expect(late.data.kind).toBe("claim_lost");
  });

  test.each([
    ["failure", "success", "queue.complete"],
    ["success", "failure", "queue.abandon"],
  ] as const)(
    "a follower that waits for the same batch is let go where that end cancels the one before it (%s, then %s)",
    async (when, other, end) => {
      const queue = await Queue.open(`flow-same-${when}`);
      const awaited = await queue.enqueue("awaited", { maxAttempts: 1 });
      const one = { sourceKey: "key", after: [awaited] };
      const before = await queue.enqueue("before", { ...one, when });
      const follower = await queue.enqueue("follower", { ...one, when: other, onExisting: "rerun" });
      const claim = await queue.claim();
      await queue.client.call(end, { ...proofOf(claim), ...(end === "queue.abandon" && { error: "no" }) });
      expect((await queue.get(before)).state).toBe("cancelled");
      expect((await queue.get(follower)).state).toBe("ready");
      expect((await queue.claim()).batches[0]?.batchId).toBe(follower);
    },
  );

  test("a batch that is replaced may not wait for its follower, nor for what waits for that", async () => {
    const queue = await Queue.open("flow-follower");
    const one = { queue: queue.name, payloads: [1], sourceKey: "key" };
    await queue.client.call("queue.enqueue", one);
    const { batch: follower } = await queue.client.call("queue.enqueue", { ...one, onExisting: "rerun" });
    const behind = await queue.enqueue(2, { after: [follower.batchId] });
    for (const after of [follower.batchId, behind]) {
      const params = { ...one, onExisting: "replace", after: [after] };
      expect((await queue.client.refusal("queue.enqueue", params)).message).toContain("makes a circle");
    }
  });

  test("a replaced batch in a large flow is refused where a circle cannot be excluded in time", async () => {
    const queue = await Queue.open("flow-large");
    const chain = Array.from({ length: 900 }, (_, index) => ({
      queue: queue.name,
      payloads: [index],
      ref: `${index}`,
      sourceKey: `${index}`,
      after: index === 0 ? [] : [`${index - 1}`],
    }));
    const { batches } = await queue.client.call("queue.enqueueMany", { batches: chain });
    const last = batches.at(-1)?.batchId as string;
    const other = await queue.enqueue("other", { after: [last] });
    const replace = (sourceKey: string, after: string) => ({
      queue: queue.name,
      payloads: [0],
      sourceKey,
      onExisting: "replace" as const,
      after: [after],
    });
    // Near an end of the flow little has to be looked at.
    expect((await queue.client.refusal("queue.enqueue", replace("899", other))).message).toContain("circle");
    await queue.client.call("queue.enqueue", replace("899", batches[898]?.batchId as string));
    expect((await queue.client.refusal("queue.enqueue", replace("1", last))).message).toContain(
      "more than 800 batches would have to be looked at for a circle. Use another sourceKey",
    );
    expect((await queue.client.refusal("queue.enqueue", replace("700", last))).message).toContain(
      "makes a circle: the batch would wait for itself",
    );
    await queue.client.call("queue.enqueue", replace("1", batches[0]?.batchId as string));
  });

  test("a large fan is told in steps, over a kill of the daemon too, and a batch named before it comes is found", async () => {
    const { place, child, exited } = await startDaemon();
    const client = await place.connect();
    const one = (payload: unknown) => ({ queue: "q", payloads: [payload] });
    const fan = Array.from({ length: 300 }, (_, index) => ({
      ...one(index),
      ref: `${index}`,
      after: ["root"],
    }));
    const join = { ...one("join"), after: fan.map(({ ref }) => ref) };
    const { batches } = await client.call("queue.enqueueMany", {
      batches: [join, ...fan, { ...one("root"), ref: "root" }],
    });
    const { claim } = await client.call("queue.claim", { queue: "q", owner: "w" });
    expect(claim?.batches[0]?.payloads).toEqual(["root"]);
    await client.call("queue.abandon", { ...proofOf(claim as Claim), dead: true });
    child.kill("SIGKILL");
    await exited;
    await place.start();
    const again = await place.connect();
    const joinId = batches[0]?.batchId as string;
    const ended = (await again.call("queue.wait", { batchId: joinId, waitMs: 60_000 })).batch;
    expect(ended.state).toBe("cancelled");
    const depths = async () => (await again.call("queue.stats", { queue: "q" })).queues[0];
    await expect.poll(depths).toMatchObject({ cancelled: 301, dead: 1, blocked: 0 });
    const rootId = batches.at(-1)?.batchId as string;
    await again.call("queue.retry", { batchId: rootId });
    await expect.poll(depths).toMatchObject({ blocked: 301, ready: 1, cancelled: 0 });
    const root = (await again.call("queue.claim", { queue: "q", owner: "w" })).claim as Claim;
    await again.call("queue.complete", proofOf(root));
    await expect.poll(depths).toMatchObject({ blocked: 1, ready: 300 });
    for (let index = 0; index < 300; index++) {
      const each = (await again.call("queue.claim", { queue: "q", owner: "w" })).claim as Claim;
      await again.call("queue.complete", { ...proofOf(each), result: index });
    }
    const last = (await again.call("queue.claim", { queue: "q", owner: "w", waitMs: 60_000 })).claim as Claim;
    expect(last.batches[0]?.batchId).toBe(joinId);
    expect(Object.keys(last.parents ?? {})).toHaveLength(300);
    expect((await again.call("daemon.check", {})).problems).toEqual([]);
  });
});

describe("a ttl", () => {
  test("runs from when the batch was first available, also if that is put off since", async () => {
    const queue = await Queue.open("ttl");
    const batchId = await queue.enqueue(1, { ttlMs: 60_000 });
    const first = await queue.get(batchId);
    const put = await queue.client.call("queue.update", { batchId, availableAt: Date.now() + 3_600_000 });
    expect(put.batch).toMatchObject({ state: "scheduled", expiresAt: first.expiresAt });
    await queue.client.call("queue.update", { batchId, availableAt: 0 });
    expect(await queue.get(batchId)).toMatchObject({ state: "ready", expiresAt: first.expiresAt });
    const short = await queue.enqueue(2, { ttlMs: 300 });
    await queue.client.call("queue.update", { batchId: short, availableAt: Date.now() + 3_600_000 });
    expect((await queue.client.call("queue.wait", { batchId: short, waitMs: 60_000 })).batch.state).toBe(
      "expired",
    );
    const { queues } = await queue.client.call("queue.stats", { queue: queue.name });
    expect(queues[0]).toMatchObject({ ready: 1, scheduled: 0, expired: 1 });
  });

  test("of a scheduled batch is shown from its time on, with what remains", async () => {
    const queue = await Queue.open("ttl-scheduled");
    const delayed = await queue.get(await queue.enqueue(1, { ttlMs: 1000, delayMs: 60_000 }));
    expect(delayed.expiresAt).toBe(delayed.availableAt + 1000);
    expect(delayed.remainingMs).toBeGreaterThan(50_000);
    const at = Date.now() + 60_000;
    const named = await queue.get(await queue.enqueue(2, { ttlMs: 1000, availableAt: at }));
    expect(named.expiresAt).toBe(at + 1000);
    const blocked = await queue.enqueue(3, { ttlMs: 1000, after: [delayed.batchId] });
    expect(await queue.get(blocked)).not.toHaveProperty("expiresAt");
  });
});
