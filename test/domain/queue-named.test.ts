// Claims of batches by their ids: which of them are claimed, what holds them up, and how they are waited for.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { NAMES_ARE_SHARED } from "../daemon.js";
import { InProcess } from "../in-process.js";

const DAY_MS = 24 * 3_600_000;

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

class Queue {
  readonly time = new Clocks();
  readonly pawl = new InProcess({ time: this.time });

  async enqueue(payload: unknown, given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    return (await this.pawl.call("queue.enqueue", { queue: "q", payloads: [payload], ...given })).batch
      .batchId;
  }

  async claim(batchIds: string[], given: Partial<Params<"queue.claim">> = {}): Promise<Claim | null> {
    return (await this.pawl.call("queue.claim", { batchIds, owner: "w", leaseMs: 1000, ...given })).claim;
  }

  /** The payloads that a claim of these batches has. */
  async taken(batchIds: string[], given: Partial<Params<"queue.claim">> = {}): Promise<unknown> {
    const claim = await this.claim(batchIds, given);
    return claim === null ? null : claim.batches.flatMap(({ payloads }) => payloads);
  }

  /** Starts to wait. */
  async waiting(batchIds: string[]): Promise<{ taken: Promise<unknown> }> {
    const taken = this.taken(batchIds, { waitMs: 60_000 });
    taken.catch(() => {});
    await this.pawl.call("daemon.ping", {});
    return { taken };
  }

  async end(claim: Claim | null, how: "complete" | "abandon" = "complete"): Promise<unknown> {
    const { claimId, leaseToken } = claim as Claim;
    return await this.pawl.call(`queue.${how}`, { claimId, leaseToken });
  }

  configure(given: Omit<Params<"queue.configure">, "queue">): Promise<unknown> {
    return this.pawl.call("queue.configure", { queue: "q", ...given });
  }
}

describe("a claim of batches by their ids", () => {
  test("takes what may be claimed, in the order given, wherever it stands, and is one claim", async () => {
    const queue = new Queue();
    const [a, b, c, d] = [
      await queue.enqueue("a"),
      await queue.enqueue("b", { slotPolicy: "join", mergeKey: "payload_default", priority: 9 }),
      await queue.enqueue("c"),
      await queue.enqueue("d", { delayMs: 1000 }),
    ];
    const claim = (await queue.claim([c, d, b, c])) as Claim;
    expect(claim.batches.map(({ batchId }) => batchId)).toEqual([c, b]);
    expect(claim.claimId).toBe(`qwc:3:${claim.fencingToken}`);
    expect((await queue.pawl.call("queue.stats", { queue: "q" })).queues).toMatchObject([
      { ready: 1, claimed: 2, scheduled: 1 },
    ]);
    expect(await queue.taken([b, c])).toBeNull();
    await queue.end(claim, "abandon");
    // What comes back keeps its place.
    expect(await queue.taken([a, b, c], { maxBatches: 2 })).toEqual(["a", "b"]);
    expect(
      (await queue.pawl.call("queue.claim", { queue: "q", owner: "w" })).claim?.batches[0]?.batchId,
    ).toBe(c);
    expect(await queue.end(claim).catch(({ kind }) => kind)).toBe("claim_lost");
  });

  test("is lost as a whole, and completed as a whole, also late", async () => {
    const queue = new Queue();
    const ids = [await queue.enqueue("a"), await queue.enqueue("b"), await queue.enqueue("c")];
    const claim = await queue.claim([ids[2] as string, ids[0] as string]);
    queue.time.pass(1000);
    expect(await queue.end(claim)).toEqual({ completed: 2 });
    expect(await queue.taken(ids)).toEqual(["b"]);
  });

  test("keeps to the limits of its queue and of keys, and to a strict order", async () => {
    const queue = new Queue();
    const keyed = async (payload: unknown, key: string): Promise<string> =>
      await queue.enqueue(payload, { key });
    const [a1, a2, a3, b1] = [
      await keyed("a1", "a"),
      await keyed("a2", "a"),
      await keyed("a3", "a"),
      await keyed("b1", "b"),
    ];
    await queue.configure({ maxClaimedPerKey: 1, retry: { baseMs: 0 } });
    // In line behind another of its key, and claimed all the same.
    const first = await queue.claim([a2]);
    expect(first?.batches[0]?.payloads).toEqual(["a2"]);
    expect(await queue.taken([a1, a3])).toBeNull();
    await queue.end(first, "abandon");
    await queue.configure({ keyOrder: "strict" });
    expect(await queue.taken([a2])).toBeNull();
    expect(await queue.taken([a3, a1])).toEqual(["a1"]);
    expect(await queue.taken([a2, b1])).toEqual(["b1"]);
    queue.time.pass(1000);
    // Earlier ones of the same claim hold up nothing, in whatever order they are named.
    expect(await queue.taken([a3, b1, a2, a1], { maxBatches: 3 })).toEqual(["a3", "a2", "a1"]);
    queue.time.pass(1000);
    await queue.configure({ maxClaimedPerKey: null, keyOrder: null, rate: { count: 2, perMs: 3_600_000 } });
    const two = await queue.claim([a3, a2, a1]);
    expect(two?.batches.length).toBe(2);
    expect(await queue.taken([a1])).toBeNull();
    await queue.configure({ rate: null, paused: true });
    expect(await queue.taken([a1])).toBeNull();
  });

  test("takes at a checkpoint only what may come there", async () => {
    const queue = new Queue();
    const late = await queue.enqueue("late", { deliveryPolicy: "after_current_turn_commit" });
    const early = await queue.enqueue("early");
    const boundary = "active_turn_checkpoint" as const;
    expect(await queue.taken([late, early], { boundary })).toEqual(["early"]);
    expect(await queue.taken([late], { boundary })).toBeNull();
    expect(await queue.taken([late])).toEqual(["late"]);
  });

  test("is refused for an unknown batch, for batches of two queues, and for more than a hundred", async () => {
    const queue = new Queue();
    const [here, there] = [await queue.enqueue(1), await queue.enqueue(1, { queue: "other" })];
    await expect(queue.claim([here, `qwb:${"0".repeat(64)}`])).rejects.toMatchObject({ kind: "not_found" });
    await expect(queue.claim([here, there])).rejects.toMatchObject({
      kind: "invalid_params",
      details: { issues: [{ path: "/batchIds/1" }] },
    });
    await expect(queue.claim(Array.from({ length: 101 }, () => here))).rejects.toMatchObject({
      kind: "invalid_params",
    });
    await expect(queue.claim([here], { queue: "q" })).rejects.toMatchObject({ kind: "invalid_params" });
  });

  test("is one of a transact", async () => {
    const queue = new Queue();
    const batchId = await queue.enqueue("a");
    const { results } = await queue.pawl.call("transact", {
      calls: [
        { method: "queue.claim", params: { batchIds: [batchId], owner: "w" } },
        {
          method: "queue.complete",
          params: {
            claimId: { $result: "/0/claim/claimId" },
            leaseToken: { $result: "/0/claim/leaseToken" },
          } as never,
        },
      ],
    });
    expect(results[1]).toEqual({ completed: 1 });
  });
});

describe("waiting for batches by their ids", () => {
  test("ends when one may be claimed: given back, at its time, or let through by the limits of its queue", async () => {
    const queue = new Queue();
    const [a, b] = [await queue.enqueue("a", { key: "k" }), await queue.enqueue("b", { key: "k" })];
    const held = await queue.claim([a]);
    const returned = await queue.waiting([a]);
    await queue.enqueue("another");
    await queue.end(held, "abandon");
    expect(await returned.taken).toEqual(["a"]);
    queue.time.pass(1000);
    await queue.configure({ maxClaimedPerKey: 1 });
    const first = await queue.claim([a]);
    const ofKey = await queue.waiting([b]);
    await queue.end(first);
    expect(await ofKey.taken).toEqual(["b"]);
    await queue.configure({ paused: true });
    queue.time.pass(1000);
    const paused = await queue.waiting([b]);
    await queue.configure({ paused: false });
    expect(await paused.taken).toEqual(["b"]);
    const later = await queue.enqueue("later", { delayMs: 500 });
    const scheduled = await queue.waiting([later]);
    queue.time.pass(500);
    await queue.pawl.call("daemon.ping", {});
    expect(await scheduled.taken).toEqual(["later"]);
  });

  test("goes on in the queue that they are moved to", async () => {
    const queue = new Queue();
    await queue.configure({ paused: true });
    await queue.pawl.call("queue.configure", { queue: "shut", paused: true });
    const [a, b] = [await queue.enqueue("a"), await queue.enqueue("b")];
    const [first, second] = [await queue.waiting([a]), await queue.waiting([b])];
    await queue.pawl.call("queue.move", { batchIds: [a], to: "open" });
    expect(await first.taken).toEqual(["a"]);
    await queue.pawl.call("queue.move", { batchIds: [b], to: "shut" });
    await queue.pawl.call("queue.configure", { queue: "shut", paused: false });
    expect(await second.taken).toEqual(["b"]);
  });

  test("ends with nothing once all of them have ended, or at once if they have", async () => {
    const queue = new Queue();
    const [a, b] = [await queue.enqueue("a"), await queue.enqueue("b", { delayMs: 5000 })];
    const held = await queue.claim([a]);
    const { taken } = await queue.waiting([a, b]);
    await queue.pawl.call("queue.cancel", { batchId: b });
    await queue.end(held);
    expect(await taken).toBeNull();
    expect(await queue.taken([a, b], { waitMs: 60_000 })).toBeNull();
  });

  test("is served what was moved to another queue, at once or in its time", async () => {
    const queue = new Queue();
    const [now, later] = [await queue.enqueue("now"), await queue.enqueue("later", { delayMs: 1000 })];
    await queue.configure({ paused: true });
    const first = await queue.waiting([now]);
    const second = await queue.waiting([later]);
    await queue.pawl.call("queue.move", { batchIds: [now, later], to: "r" });
    expect(await first.taken).toEqual(["now"]);
    queue.time.pass(1000);
    await queue.pawl.call("daemon.ping", {});
    expect(await second.taken).toEqual(["later"]);
  });

  test("is refused once its batches are of two queues", async () => {
    const queue = new Queue();
    const [a, b] = [await queue.enqueue("a", { delayMs: 1000 }), await queue.enqueue("b", { delayMs: 1000 })];
    const { taken } = await queue.waiting([a, b]);
    await queue.pawl.call("queue.move", { batchIds: [b], to: "r" });
    await expect(taken).rejects.toMatchObject({ kind: "invalid_params" });
  });

  test("is refused once one of its batches is gone that had ended, and was brought back blocked", async () => {
    const queue = new Queue();
    const a = await queue.enqueue("a", { delayMs: 1000 });
    const b = await queue.enqueue("b", { after: [a] });
    const { taken } = await queue.waiting([a, b]);
    await queue.pawl.call("queue.cancel", { batchId: b });
    await queue.pawl.call("queue.retry", { batchId: b });
    await queue.pawl.call("queue.purge", { batchIds: [b] });
    await expect(taken).rejects.toMatchObject({ kind: "not_found" });
  });

  test("is refused once one of its batches is gone that had ended, and that another waited for", async () => {
    const queue = new Queue();
    const [a, b] = [await queue.enqueue("a", { delayMs: 1000 }), await queue.enqueue("b")];
    const after = await queue.enqueue("after", { after: [b] });
    await queue.pawl.call("queue.cancel", { batchId: b });
    await queue.pawl.call("queue.purge", { batchIds: [after] });
    const { taken } = await queue.waiting([a, b]);
    expect(await queue.pawl.call("queue.purge", { batchIds: [b] })).toMatchObject({ purged: 1 });
    await expect(taken).rejects.toMatchObject({ kind: "not_found" });
  });

  test("is refused once one of its batches is gone after the time of retention", async () => {
    const queue = new Queue();
    const a = await queue.enqueue("a", { delayMs: 30 * DAY_MS });
    const b = await queue.enqueue("b");
    await queue.configure({ paused: true });
    await queue.pawl.call("queue.cancel", { batchId: b });
    const { taken } = await queue.waiting([a, b]);
    queue.time.pass(8 * DAY_MS);
    await queue.pawl.call("daemon.ping", {});
    await expect(taken).rejects.toMatchObject({ kind: "not_found" });
  });

  test("is served at a checkpoint what is replaced by what may be claimed there", async () => {
    const queue = new Queue();
    const gated = { sourceKey: "s", deliveryPolicy: "after_current_turn_commit" } as const;
    const batchId = await queue.enqueue("gated", gated);
    const taken = queue.taken([batchId], { waitMs: 60_000, boundary: "active_turn_checkpoint" });
    await queue.pawl.call("daemon.ping", {});
    await queue.enqueue("free", { sourceKey: "s", onExisting: "replace" });
    expect(await taken).toEqual(["free"]);
  });

  test("is served however many wait for others: each turn goes on where the one before had no time left", async () => {
    const queue = new Queue();
    // More than a turn has time for.
    const delayed = Array.from({ length: NAMES_ARE_SHARED ? 100 : 1000 }, (_, index) => ({
      queue: "q",
      payloads: [index],
      delayMs: 3_600_000,
    }));
    const first = await queue.enqueue("first");
    const firstHeld = await queue.claim([first]);
    const { batches } = await queue.pawl.call("queue.enqueueMany", { batches: delayed });
    const last = await queue.enqueue("last");
    const lastHeld = await queue.claim([last]);
    const wait = (batchId: string, connection: number): Promise<Result<"queue.claim">> =>
      queue.pawl.call("queue.claim", { batchIds: [batchId], owner: "w", waitMs: 60_000 }, connection);
    const forFirst = wait(first, 1);
    for (const [index, { batchId }] of batches.entries()) void wait(batchId, 2 + (index % 4)).catch(() => {});
    const forLast = wait(last, 1);
    await queue.pawl.call("daemon.ping", {});
    await queue.end(lastHeld, "abandon");
    // Woken again while it goes on, those that it has come by are tried, too.
    await queue.end(firstHeld, "abandon");
    expect((await forLast).claim?.batches[0]?.payloads).toEqual(["last"]);
    expect((await forFirst).claim?.batches[0]?.payloads).toEqual(["first"]);
    for (let connection = 1; connection <= 5; connection += 1) queue.pawl.disconnect(connection);
  });
});
