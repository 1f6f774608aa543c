// Batches with one sourceKey: what becomes of the one that is there, in each of its states.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const daemon = sharedDaemon();

type Given = Partial<Params<"queue.enqueue">>;
type State = Result<"queue.get">["batch"]["state"];

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

  enqueue(payload: unknown, given: Given = {}): Promise<Result<"queue.enqueue">> {
    return this.client.call("queue.enqueue", {
      queue: this.name,
      payloads: [payload],
      sourceKey: "k",
      ...given,
    });
  }

  async claim(): Promise<{ claimId: string; leaseToken: string; payloads: unknown[] }> {
    const { claim } = await this.client.call("queue.claim", { queue: this.name, owner: "test" });
    if (claim === null) throw new Error("there was nothing to claim");
    const { claimId, leaseToken, batches } = claim;
    return { claimId, leaseToken, payloads: batches.flatMap(({ payloads }) => payloads) };
  }

  /** A batch in a state, with the sourceKey. */
  async batchIn(state: State): Promise<Result<"queue.get">["batch"]> {
    const given: Given =
      state === "scheduled"
        ? { delayMs: 3_600_000 }
        : state === "dead"
          ? { maxAttempts: 1 }
          : state === "expired"
            ? { ttlMs: 1 }
            : {};
    const { batch } = await this.enqueue("first", given);
    const { batchId } = batch;
    if (state === "cancelled") await this.client.call("queue.cancel", { batchId });
    if (state === "claimed" || state === "completed" || state === "dead") {
      const { claimId, leaseToken } = await this.claim();
      const proof = { claimId, leaseToken };
      if (state === "completed") await this.client.call("queue.complete", proof);
      if (state === "dead") await this.client.call("queue.abandon", { ...proof, error: "broken" });
    }
    const now = async () => (await this.client.call("queue.get", { batchId })).batch;
    await until(async () => (await now()).state === state);
    return await now();
  }
}

const WAITING = ["ready", "scheduled"] as const;
const ENDED = ["completed", "dead", "cancelled", "expired"] as const;
const CHANGES = [
  ["replace", "replaced"],
  ["keepTime", "kept"],
  ["append", "appended"],
] as const;

describe.each(CHANGES)("onExisting %s", (onExisting, outcome) => {
  test.each(WAITING)("of a batch that is %s has it take over what was sent", async (state) => {
    const queue = await Queue.open(`${onExisting}-${state}`);
    const first = await queue.batchIn(state);
    const given = { onExisting, priority: 7, key: "about", delayMs: 1_800_000 } as const;
    const done = await queue.enqueue("second", given);
    expect(done).toMatchObject({ created: false, outcome });
    const { batch } = done;
    expect(batch).toMatchObject({
      batchId: first.batchId,
      enqueueSeq: first.enqueueSeq,
      priority: 7,
      key: "about",
    });
    expect(batch.payloads).toEqual(onExisting === "append" ? ["first", "second"] : ["second"]);
    if (onExisting === "replace")
      expect(batch.availableAt).toBeGreaterThanOrEqual(batch.enqueuedAt + 1_800_000);
    else expect([batch.state, batch.availableAt]).toEqual([first.state, first.availableAt]);
    expect((await queue.client.call("queue.get", { batchId: first.batchId })).batch).toEqual(batch);
  });

  test("of a claimed batch makes one follower, which takes over what comes and begins with its end", async () => {
    const queue = await Queue.open(`${onExisting}-claimed`);
    await queue.enqueue("first");
    const { claimId, leaseToken } = await queue.claim();
    const second = await queue.enqueue("second", { onExisting });
    expect(second).toMatchObject({ created: true, outcome: "follower", batch: { state: "blocked" } });
    const third = await queue.enqueue("third", { onExisting });
    expect(third).toMatchObject({ created: false, outcome: "follower" });
    expect(third.batch.batchId).toBe(second.batch.batchId);
    const { batchId } = third.batch;
    expect(await queue.client.call("queue.explain", { batchId })).toMatchObject({ reason: "blocked" });
    await queue.client.call("queue.complete", { claimId, leaseToken });
    const { payloads } = await queue.claim();
    expect(payloads).toEqual(onExisting === "append" ? ["second", "third"] : ["third"]);
  });

  test.each(ENDED)("does not count a batch that is %s, which is not retried then", async (state) => {
    const queue = await Queue.open(`${onExisting}-${state}`);
    const first = await queue.batchIn(state);
    const done = await queue.enqueue("second", { onExisting });
    expect(done).toMatchObject({ created: true, outcome: "created", batch: { payloads: ["second"] } });
    const retried = await queue.client.call("queue.retry", { batchId: first.batchId });
    expect(retried).toEqual({ retried: 0, more: false });
    expect(await queue.client.call("queue.retry", { queue: queue.name })).toEqual({
      retried: 0,
      more: false,
    });
  });
});

test("keepTime keeps the delay of a batch that waits for another, which begins with the end of that", async () => {
  const queue = await Queue.open("kept-delay");
  const { batch: other } = await queue.enqueue("other", { sourceKey: "other" });
  const after = [other.batchId];
  const { batch } = await queue.enqueue("first", { after, delayMs: 3_600_000 });
  const kept = await queue.enqueue("second", { after, delayMs: 1, onExisting: "keepTime" });
  expect(kept).toMatchObject({ outcome: "kept", batch: { state: "blocked", payloads: ["second"] } });
  const { claimId, leaseToken } = await queue.claim();
  await queue.client.call("queue.complete", { claimId, leaseToken });
  const now = (await queue.client.call("queue.get", { batchId: batch.batchId })).batch;
  expect(now.state).toBe("scheduled");
  expect(now.availableAt).toBeGreaterThanOrEqual(batch.enqueuedAt + 3_600_000);
});

describe("onExisting rerun", () => {
  test.each(["ready", "scheduled", "claimed"] as const)(
    "of a batch that is %s waits for its end",
    async (state) => {
      const queue = await Queue.open(`rerun-${state}`);
      const first = await queue.batchIn(state);
      const same = await queue.enqueue("first", { onExisting: "rerun" });
      expect(same).toMatchObject({ created: true, outcome: "follower", batch: { state: "blocked" } });
      await queue.enqueue("latest", { onExisting: "rerun" });
      const { queues } = await queue.client.call("queue.stats", { queue: queue.name });
      expect(queues).toMatchObject([{ blocked: 1 }]);
      if (state === "claimed") return;
      await queue.client.call("queue.cancel", { batchId: first.batchId });
      expect((await queue.claim()).payloads).toEqual(["latest"]);
    },
  );

  test("goes on when the one before it dies, which is not retried then", async () => {
    const queue = await Queue.open("rerun-dying");
    const { batch } = await queue.enqueue("first", { maxAttempts: 1 });
    const { claimId, leaseToken } = await queue.claim();
    await queue.enqueue("second", { onExisting: "rerun" });
    await queue.client.call("queue.abandon", { claimId, leaseToken, error: "broken" });
    expect((await queue.claim()).payloads).toEqual(["second"]);
    const { batchId } = batch;
    expect(await queue.client.call("queue.retry", { batchId })).toEqual({ retried: 0, more: false });
  });

  test("is cancelled by its key before the one that it follows", async () => {
    const queue = await Queue.open("rerun-cancelled");
    const { batch } = await queue.enqueue("first");
    const { batch: follower } = await queue.enqueue("second", { onExisting: "rerun" });
    const cancel = { queue: queue.name, sourceKey: "k" };
    const stateOf = async (batchId: string) =>
      (await queue.client.call("queue.get", { batchId })).batch.state;
    expect(await queue.client.call("queue.cancel", cancel)).toEqual({ outcome: "cancelled" });
    expect([await stateOf(batch.batchId), await stateOf(follower.batchId)]).toEqual(["ready", "cancelled"]);
    expect(await queue.client.call("queue.cancel", cancel)).toEqual({ outcome: "cancelled" });
    expect(await queue.client.call("queue.cancel", cancel)).toEqual({ outcome: "already_cancelled" });
    const none = await queue.client.refusal("queue.cancel", { queue: queue.name, sourceKey: "none" });
    expect(none.data.kind).toBe("not_found");
  });
});

describe("other content", () => {
  test("is refused, or answered with the batch that is there, also when that has ended", async () => {
    const queue = await Queue.open("return");
    const { batch } = await queue.enqueue("first");
    const { data } = await queue.client.refusal("queue.enqueue", {
      queue: queue.name,
      payloads: ["second"],
      sourceKey: "k",
    });
    expect(data).toMatchObject({ kind: "conflict", first: { batchId: batch.batchId } });
    const found = await queue.enqueue("second", { onExisting: "return" });
    expect(found).toEqual({ batch, created: false, outcome: "existing" });
    await queue.client.call("queue.complete", await proofOf(queue));
    expect(await queue.enqueue("second", { onExisting: "return" })).toMatchObject({
      created: false,
      batch: { batchId: batch.batchId, state: "completed" },
    });
  });

  test("is a priority, a key or a ttl too, and not a time", async () => {
    const queue = await Queue.open("content");
    await queue.enqueue(1);
    for (const given of [{ priority: 1 }, { key: "k" }, { ttlMs: 60_000 }]) {
      const params = { queue: queue.name, payloads: [1], sourceKey: "k", ...given };
      expect((await queue.client.refusal("queue.enqueue", params)).data.kind).toBe("conflict");
    }
    expect(await queue.enqueue(1, { delayMs: 60_000, priority: 0 })).toMatchObject({ outcome: "existing" });
  });

  test("of a key that is unique while unfinished is a new batch once the first has ended", async () => {
    const queue = await Queue.open("unfinished");
    await queue.enqueue(1, { uniqueFor: "unfinished" });
    expect(await queue.enqueue(1)).toMatchObject({ outcome: "existing" });
    await queue.client.call("queue.complete", await proofOf(queue));
    expect(await queue.enqueue(1)).toMatchObject({ created: true, outcome: "created" });
  });
});

test("a debounce ends at the latest after its longest delay", async () => {
  const queue = await Queue.open("debounce");
  const given = { onExisting: "replace", delayMs: 60_000, maxDelayMs: 90_000 } as const;
  const { batch } = await queue.enqueue(1, given);
  const latest = batch.enqueuedAt + 90_000;
  const again = await queue.enqueue(2, { ...given, delayMs: 80_000 });
  expect(again.batch.availableAt).toBeLessThanOrEqual(latest + 5000);
  const late = await queue.enqueue(3, { ...given, delayMs: 3_600_000 });
  expect(late.batch.availableAt).toBeLessThanOrEqual(latest + 5000);
  const { now } = await queue.client.call("daemon.ping", {});
  const { delayMs: _, ...named } = given;
  const atNamed = await queue.enqueue(4, { ...named, availableAt: now + 7_200_000 });
  expect(atNamed.batch.availableAt).toBeLessThanOrEqual(latest + 5000);
});

test("appends payloads byte for byte, and no more than a batch takes", async () => {
  const queue = await Queue.open("append-bytes");
  await queue.enqueue(1);
  const raw = `{"jsonrpc":"2.0","id":"raw","method":"queue.enqueue","params":{"queue":"append-bytes","sourceKey":"k","onExisting":"append","payloads":[ 1.50, {"b":1,"a":2} ]}}`;
  queue.client.write(`${raw}\n`);
  await queue.client.line();
  queue.client.write(
    `{"jsonrpc":"2.0","id":"list","method":"queue.list","params":{"queue":"append-bytes"}}\n`,
  );
  const text = await queue.client.line();
  expect(text).toContain(`"payloads":[1, 1.50, {"b":1,"a":2} ]`);
  const { data } = await queue.client.refusal("queue.enqueue", {
    queue: queue.name,
    sourceKey: "k",
    onExisting: "append",
    payloads: new Array(998).fill(0),
  });
  expect(data.kind).toBe("exhausted");
});

test("many in one call are done one after the other, all or none", async () => {
  const queue = await Queue.open("many");
  const one = (payload: unknown, onExisting?: "append") => ({
    queue: queue.name,
    payloads: [payload],
    sourceKey: "k",
    ...(onExisting === undefined ? {} : { onExisting }),
  });
  const batches = [one(1), one(2, "append"), one(3, "append")];
  const done = await queue.client.call("queue.enqueueMany", { batches });
  expect(done.outcomes).toEqual(["created", "appended", "appended"]);
  expect(done.created).toEqual([true, false, false]);
  const refused = { batches: [{ queue: queue.name, payloads: ["undone"] }, one(4, "append"), one(5)] };
  const { data } = await queue.client.refusal("queue.enqueueMany", refused);
  expect(data).toMatchObject({ kind: "conflict", index: 2 });
  const { batches: left } = await queue.client.call("queue.list", { queue: queue.name });
  expect(left.map(({ payloads }) => payloads)).toEqual([[1, 2, 3]]);
});

describe("a long batch is not answered over and over", () => {
  test.each(["return", "append", "refuse"] as const)("%s", async (onExisting) => {
    const queue = await Queue.open(`long-${onExisting}`);
    const long = "x".repeat(900_000);
    // The same content as what is short: space does not count.
    const spaced = `{"queue":"${queue.name}","sourceKey":"k","payloads":[1${" ".repeat(900_000)}]}`;
    if (onExisting === "refuse") {
      queue.client.write(`{"jsonrpc":"2.0","id":"long","method":"queue.enqueue","params":${spaced}}\n`);
      await queue.client.line();
    } else await queue.enqueue(long);
    const one = { queue: queue.name, payloads: [1], sourceKey: "k", onExisting };
    const other = { queue: queue.name, payloads: ["other"] };

    const fitting = { batches: [other, ...new Array(18).fill(one)] };
    const { batches, created } = await queue.client.call("queue.enqueueMany", fitting);
    expect(created).toEqual([true, ...new Array(18).fill(false)]);
    const before = await queue.client.call("queue.list", { queue: queue.name });

    const many = { batches: [other, ...new Array(999).fill(one)] };
    const refusal = expectRefusal(await queue.client.refusal("queue.enqueueMany", many), "invalid_params");
    expect(refusal.message).toContain("more than 16777216 characters longer than what was sent");
    expect(refusal.data.issues).toMatchObject([{ path: "/batches/19" }]);
    const calls = [{ method: "queue.enqueueMany", params: many }];
    const undone = expectRefusal(await queue.client.refusal("transact", { calls }), "invalid_params");
    expect(undone.data.index).toBe(0);
    // Nothing of it was done, neither of its other batch nor of this one.
    expect(await queue.client.call("queue.list", { queue: queue.name })).toEqual(before);
    expect(batches).toHaveLength(19);
  });

  test("what was sent is answered in all its length when it is sent again", async () => {
    const place = await startDaemon({ args: ["--max-message-bytes", String(16 * 1024 * 1024)] });
    const client = await place.place.connect();
    const batches = Array.from({ length: 10 }, (_, index) => ({
      queue: "again",
      payloads: ["x".repeat(900_000)],
      sourceKey: String(index),
    }));
    const first = await client.call("queue.enqueueMany", { batches });
    const second = await client.call("queue.enqueueMany", { batches });
    expect(second.created).toEqual(new Array(10).fill(false));
    expect(second.batches.map(({ batchId }) => batchId)).toEqual(first.batches.map(({ batchId }) => batchId));
  });
});

test("what it is about is said with a sourceKey only", async () => {
  const queue = await Queue.open("without-key");
  for (const [path, given] of [
    ["/onExisting", { onExisting: "append" }],
    ["/uniqueFor", { uniqueFor: "unfinished" }],
    ["/maxDelayMs", { maxDelayMs: 1 }],
  ] as const) {
    const { data } = await queue.client.refusal("queue.enqueue", { queue: "q", payloads: [1], ...given });
    expect(data.issues).toMatchObject([{ path }]);
  }
});

test("50 at once: what each is told is what there is, and one follower at most waits", async () => {
  const queue = await Queue.open("at-once");
  await queue.enqueue("first");
  const { claimId, leaseToken } = await queue.claim();
  const others = await Promise.all(Array.from({ length: 50 }, () => Queue.open("at-once")));
  const answers = await Promise.all(
    others.map((other, index) => other.enqueue(index, { onExisting: "append" })),
  );
  expect(answers.filter(({ created }) => created)).toHaveLength(1);
  expect(new Set(answers.map(({ batch, outcome }) => `${outcome} ${batch.batchId}`)).size).toBe(1);
  const { queues } = await queue.client.call("queue.stats", { queue: "at-once" });
  expect(queues).toMatchObject([{ claimed: 1, blocked: 1 }]);
  await queue.client.call("queue.complete", { claimId, leaseToken });
  const { payloads } = await queue.claim();
  expect(payloads.toSorted((a, b) => Number(a) - Number(b))).toEqual([...others.keys()]);
});

async function proofOf(queue: Queue): Promise<{ claimId: string; leaseToken: string }> {
  const { claimId, leaseToken } = await queue.claim();
  return { claimId, leaseToken };
}
