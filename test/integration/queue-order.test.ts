// The order in which a queue hands out its batches, and what keeps it from doing so: priorities, keys, limits, pauses.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

const daemon = sharedDaemon();

/** A queue of its own for each test. */
class Queue {
  readonly #name: string;
  readonly client: RawClient;

  constructor(name: string, client: RawClient) {
    this.#name = name;
    this.client = client;
  }

  static async open(name: string, place = daemon().place): Promise<Queue> {
    return new Queue(name, await place.connect());
  }

  async enqueue(payload: unknown, given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    const params = { queue: this.#name, payloads: [payload], ...given };
    return (await this.client.call("queue.enqueue", params)).batch.batchId;
  }

  /** The payloads of the next claim; undefined for nothing to claim. */
  async next(given: Partial<Params<"queue.claim">> = {}): Promise<unknown[] | undefined> {
    return (await this.claim(given))?.batches.flatMap(({ payloads }) => payloads);
  }

  async claim(given: Partial<Params<"queue.claim">> = {}): Promise<Claim | null> {
    return (await this.client.call("queue.claim", { queue: this.#name, owner: "test", ...given })).claim;
  }

  async complete(claim: Claim | null): Promise<void> {
    const { claimId, leaseToken } = claim as Claim;
    await this.client.call("queue.complete", { claimId, leaseToken });
  }

  /** Starts to wait for a claim, and returns once the daemon has taken it up. */
  async waiting(given: Partial<Params<"queue.claim">> = {}): Promise<{ claimed: Promise<unknown> }> {
    const claimed = this.next({ waitMs: 60_000, ...given });
    claimed.catch(() => {});
    await this.client.call("daemon.ping", {});
    return { claimed };
  }

  async configure(
    given: Omit<Params<"queue.configure">, "queue">,
  ): Promise<Result<"queue.settings">["settings"]> {
    return (await this.client.call("queue.configure", { queue: this.#name, ...given })).settings;
  }

  async explain(): Promise<Result<"queue.explain">> {
    return await this.client.call("queue.explain", { queue: this.#name });
  }
}

describe("priority", () => {
  test("comes before the order of arrival, and a batch that comes back keeps its place", async () => {
    const queue = await Queue.open("priority");
    await queue.enqueue("first");
    await queue.enqueue("low", { priority: -100 });
    await queue.enqueue("high", { priority: 100 });
    await queue.enqueue("second");
    const { claimId, leaseToken } = (await queue.claim()) as Claim;
    await queue.client.call("queue.abandon", { claimId, leaseToken });
    for (const payload of ["high", "first", "second", "low"]) expect(await queue.next()).toEqual([payload]);
    expect(await queue.next()).toBeUndefined();
  });

  test("of another ends a group, and lists go on in the order of arrival", async () => {
    const queue = await Queue.open("priority-groups");
    const join = { slotPolicy: "join", mergeKey: "payload_default" } as const;
    for (const [payload, priority] of [
      [1, 0],
      [2, 5],
      [3, 0],
      [4, 5],
    ] as const) {
      await queue.enqueue(payload, { ...join, priority });
    }
    const { batches } = await queue.client.call("queue.list", { queue: "priority-groups", limit: 3 });
    expect(batches.flatMap(({ payloads }) => payloads)).toEqual([1, 2, 3]);
    expect(await queue.next({ maxBatches: 10 })).toEqual([2, 4]);
    expect(await queue.next({ maxBatches: 10 })).toEqual([1, 3]);
  });

  test("is from -100 to 100", async () => {
    const queue = await Queue.open("priority-bounds");
    const refusal = await queue.client.refusal("queue.enqueue", { queue: "q", payloads: [1], priority: 101 });
    expect(refusal.data.issues).toMatchObject([{ path: "/priority" }]);
  });
});

describe("keys", () => {
  test("that are full are passed over, and taken up when a slot is free", async () => {
    const queue = await Queue.open("keys");
    await queue.configure({ maxClaimedPerKey: 1 });
    await queue.enqueue("a1", { key: "a" });
    await queue.enqueue("a2", { key: "a" });
    await queue.enqueue("b1", { key: "b" });
    await queue.enqueue("none");
    const held = await queue.claim();
    expect(await queue.next()).toEqual(["b1"]);
    expect(await queue.next()).toEqual(["none"]);
    expect(await queue.next()).toBeUndefined();
    expect(await queue.explain()).toMatchObject({
      claimable: false,
      reason: "key_full",
      key: "a",
      claims: 1,
      most: 1,
    });
    const { claimed } = await queue.waiting();
    await queue.complete(held);
    expect(await claimed).toEqual(["a2"]);
  });

  test("in strict order wait for every earlier batch, also for a dead one, which is named", async () => {
    const queue = await Queue.open("strict");
    await queue.configure({ keyOrder: "strict" });
    const first = await queue.enqueue("1", { key: "a", maxAttempts: 1, priority: -5 });
    await queue.enqueue("2", { key: "a", priority: 9 });
    await queue.enqueue("other", { key: "b", priority: -10 });
    const { claimId, leaseToken } = (await queue.claim()) as Claim;
    expect(await queue.next()).toEqual(["other"]);
    await queue.client.call("queue.abandon", { claimId, leaseToken, error: "broken" });
    expect(await queue.explain()).toMatchObject({
      claimable: false,
      reason: "strict",
      key: "a",
      behind: first,
      behindState: "dead",
    });
    const { claimed } = await queue.waiting();
    await queue.client.call("queue.retry", { batchId: first });
    expect(await claimed).toEqual(["1"]);
  });

  test("of one group are one claim, which earlier ones of the group hold up nothing of", async () => {
    const queue = await Queue.open("strict-group");
    await queue.configure({ keyOrder: "strict", maxClaimedPerKey: 1 });
    const join = { key: "a", slotPolicy: "join", mergeKey: "payload_default" } as const;
    for (const payload of [1, 2, 3]) await queue.enqueue(payload, join);
    await queue.enqueue("later", { ...join, delayMs: 3_600_000 });
    await queue.enqueue("behind it", join);
    const claim = await queue.claim({ maxBatches: 10 });
    expect(claim?.batches.flatMap(({ payloads }) => payloads)).toEqual([1, 2, 3]);
    await queue.complete(claim);
    expect(await queue.explain()).toMatchObject({ reason: "strict", behindState: "scheduled" });
  });

  test("of many batches are laid anew when the settings change", async () => {
    const queue = await Queue.open("many-keys");
    for (const payload of [1, 2]) {
      const batches = Array.from({ length: 400 }, (_, key) => ({
        queue: "many-keys",
        payloads: [payload],
        key: `k${key}`,
      }));
      await queue.client.call("queue.enqueueMany", { batches });
    }
    const held = [];
    for (let claim = 0; claim < 400; claim += 1) held.push(await queue.claim());
    await queue.configure({ maxClaimedPerKey: 1 });
    expect(await queue.next()).toBeUndefined();
    await queue.configure({ maxClaimedPerKey: 2 });
    const { claimed } = await queue.waiting();
    expect(await claimed).toEqual([expect.any(Number)]);
  });
});

describe("limits", () => {
  test("of claims count over all workers, and the end of one lets the next in", async () => {
    const queue = await Queue.open("max-claimed");
    await queue.configure({ maxClaimed: 2 });
    for (const payload of [1, 2, 3]) await queue.enqueue(payload);
    const first = await queue.claim();
    await queue.claim();
    expect(await queue.explain()).toMatchObject({ claimable: false, reason: "full", claims: 2, most: 2 });
    const { claimed } = await queue.waiting();
    await queue.complete(first);
    expect(await claimed).toEqual([3]);
  });

  test("of claims hold over a kill of the daemon", async () => {
    let own = await startDaemon();
    const queue = await Queue.open("killed", own.place);
    await queue.configure({ maxClaimed: 1, maxClaimedPerKey: 1 });
    for (const payload of [1, 2]) await queue.enqueue(payload, { key: "k" });
    const held = (await queue.claim()) as Claim;
    await own.end("SIGKILL");
    own = await own.place.start();
    const again = await Queue.open("killed", own.place);
    expect(await again.next()).toBeUndefined();
    await again.complete(held);
    expect(await again.next()).toEqual([2]);
  });

  test("of a rate hold back what is over it, and open by themselves", async () => {
    const queue = await Queue.open("rate");
    await queue.configure({ rate: { count: 2, perMs: 500 } });
    for (const payload of [1, 2, 3]) await queue.enqueue(payload);
    await queue.next();
    await queue.next();
    const { claimed } = await queue.waiting();
    const refilled = await claimed;
    expect(refilled).toEqual([3]);
  });

  test("of a rate end a group where the tokens end", async () => {
    const queue = await Queue.open("rate-group");
    await queue.configure({ rate: { count: 2, perMs: 3_600_000 } });
    const join = { slotPolicy: "join", mergeKey: "payload_default" } as const;
    for (const payload of [1, 2, 3]) await queue.enqueue(payload, join);
    expect(await queue.next({ maxBatches: 10 })).toEqual([1, 2]);
    expect(await queue.explain()).toMatchObject({ reason: "rate", until: expect.any(Number) });
  });

  test("of what waits refuse more, or let it wait for room in the order of arrival", async () => {
    const queue = await Queue.open("max-waiting");
    const others = await Promise.all([Queue.open("max-waiting"), Queue.open("max-waiting")]);
    await queue.configure({ maxWaiting: 1 });
    await queue.enqueue("first");
    const one = { queue: "max-waiting", payloads: [1] };
    const { data } = await queue.client.refusal("queue.enqueue", one);
    expect(data).toMatchObject({ kind: "exhausted", waiting: 1, maxWaiting: 1, retryable: true });
    const many = await queue.client.refusal("queue.enqueueMany", { batches: [one] });
    expect(many.data.kind).toBe("exhausted");
    const added: string[] = [];
    const waits = [];
    for (const [index, other] of others.entries()) {
      waits.push(other.enqueue(`waited ${index}`, { waitMs: 60_000 }).then(() => added.push(`${index}`)));
      await other.client.call("daemon.ping", {});
    }
    for (const payload of ["first", "waited 0", "waited 1"]) expect(await queue.next()).toEqual([payload]);
    await Promise.all(waits);
    expect(added).toEqual(["0", "1"]);
  });

  test("of what waits let in what comes back or is moved there, and refuse what is enqueued beside it", async () => {
    const queue = await Queue.open("max-waiting-move");
    const from = await Queue.open("max-waiting-from");
    await queue.configure({ maxWaiting: 1 });
    await queue.enqueue("held");
    const { claimId, leaseToken } = (await queue.claim()) as Claim;
    await queue.enqueue("waits");
    for (const payload of ["moved 0", "moved 1"]) await from.enqueue(payload);
    const move = { queue: "max-waiting-from", state: "ready", to: "max-waiting-move" } as const;
    expect(await queue.client.call("queue.move", move)).toEqual({ moved: 2, kept: 0, more: false });
    await queue.client.call("queue.abandon", { claimId, leaseToken });
    const one = { queue: "max-waiting-move", payloads: [1] };
    const { data } = await queue.client.refusal("queue.enqueue", one);
    expect(data).toMatchObject({ kind: "exhausted", waiting: 4, maxWaiting: 1 });
  });

  test("of what waits are asked for without a wait within a transaction", async () => {
    const queue = await Queue.open("transact-wait");
    const refusal = await queue.client.refusal("transact", {
      calls: [{ method: "queue.enqueue", params: { queue: "transact-wait", payloads: [1], waitMs: 1 } }],
    });
    expect(refusal.data).toMatchObject({
      kind: "invalid_params",
      issues: [{ path: "/calls/0/params/waitMs" }],
    });
  });
});

describe("a pause", () => {
  test("keeps everything from being claimed, says by whom and why, and lets claims go on", async () => {
    const queue = await Queue.open("paused");
    await queue.enqueue(1);
    await queue.enqueue(2);
    const held = await queue.claim();
    const settings = await queue.configure({ paused: true, reason: "the printer is on fire" });
    expect(settings).toMatchObject({ paused: true, pausedBy: { pid: process.pid } });
    expect(await queue.next()).toBeUndefined();
    await queue.complete(held);
    expect(await queue.explain()).toMatchObject({
      reason: "paused",
      until: null,
      pause: { reason: "the printer is on fire", by: { pid: process.pid } },
    });
    const { queues } = await queue.client.call("queue.stats", { queue: "paused" });
    expect(queues).toMatchObject([{ paused: true, ready: 1 }]);
    const { claimed } = await queue.waiting();
    expect(await queue.configure({ paused: false })).toMatchObject({
      paused: false,
      reason: null,
      pausedBy: null,
    });
    expect(await claimed).toEqual([2]);
  });

  test("until a time ends then, by itself", async () => {
    const queue = await Queue.open("paused-until");
    await queue.enqueue(1);
    const { now } = await queue.client.call("daemon.ping", {});
    await queue.configure({ paused: true, pausedUntilAt: now + 300 });
    const { claimed } = await queue.waiting();
    expect(await claimed).toEqual([1]);
    const { settings } = await queue.client.call("queue.settings", { queue: "paused-until" });
    expect(settings).toMatchObject({ paused: false, pausedUntilAt: null });
  });

  test("is what its end and its reason are about", async () => {
    const queue = await Queue.open("not-paused");
    for (const [name, params] of [
      ["reason", { reason: "why" }],
      ["pausedUntilAt", { paused: false, pausedUntilAt: 1 }],
    ] as const) {
      const refusal = await queue.client.refusal("queue.configure", { queue: "not-paused", ...params });
      expect(refusal.data.issues).toMatchObject([{ path: `/${name}` }]);
    }
  });
});

describe("a throttle", () => {
  test("holds until the later of its ends, and null ends it", async () => {
    const queue = await Queue.open("throttled");
    await queue.enqueue(1);
    const throttle = async (given: object) =>
      (await queue.client.call("queue.throttle", { queue: "throttled", ...given } as never)).settings;
    const { throttledUntilAt } = await throttle({ delayMs: 3_600_000, reason: "429" });
    expect(await throttle({ delayMs: 10, reason: "sooner" })).toMatchObject({ throttledReason: "429" });
    expect(await queue.next()).toBeUndefined();
    expect(await queue.explain()).toMatchObject({ reason: "throttled", throttle: { reason: "429" } });
    const later = (throttledUntilAt as number) + 10_000;
    expect(await throttle({ untilAt: later })).toMatchObject({ throttledUntilAt: later });
    const { claimed } = await queue.waiting();
    expect(await throttle({ untilAt: null })).toMatchObject({ throttledUntilAt: null });
    expect(await claimed).toEqual([1]);
  });

  test("ends by itself", async () => {
    const queue = await Queue.open("throttled-while");
    await queue.enqueue(1);
    await queue.client.call("queue.throttle", { queue: "throttled-while", delayMs: 200 });
    const { claimed } = await queue.waiting();
    expect(await claimed).toEqual([1]);
  });
});

describe("a ttl", () => {
  test("ends what nobody has claimed, which can be brought back", async () => {
    const queue = await Queue.open("ttl");
    const claimedOnce = await queue.enqueue("claimed", { ttlMs: 300 });
    const { claimId, leaseToken } = (await queue.claim()) as Claim;
    await queue.client.call("queue.abandon", { claimId, leaseToken, delayMs: 3_600_000 });
    const batchId = await queue.enqueue("late", { ttlMs: 300 });
    // The ttl of this one begins with it, and ends after the others'.
    await queue.configure({ paused: true });
    await queue.enqueue("last", { ttlMs: 301 });
    const stateOf = async () => (await queue.client.call("queue.get", { batchId })).batch.state;
    await until(async () => (await stateOf()) !== "ready");
    expect(await stateOf()).toBe("expired");
    expect((await queue.client.call("queue.get", { batchId: claimedOnce })).batch.state).toBe("scheduled");
    expect(await queue.client.call("queue.explain", { batchId })).toMatchObject({
      reason: "final",
      state: "expired",
    });
    expect(await queue.client.call("queue.cancel", { batchId })).toEqual({ outcome: "already_expired" });
    expect(await queue.client.call("queue.retry", { batchId })).toEqual({ retried: 1, more: false });
    await queue.configure({ paused: false });
    expect(await queue.next()).toEqual(["late"]);
  });

  test("of the queue counts for batches that are enqueued without one", async () => {
    const queue = await Queue.open("ttl-of-queue");
    await queue.configure({ ttlMs: 60_000 });
    const batchId = await queue.enqueue(1);
    const { batch } = await queue.client.call("queue.get", { batchId });
    expect(batch.expiresAt).toBeGreaterThan(batch.enqueuedAt + 59_000);
  });
});
