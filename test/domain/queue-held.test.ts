// Claims beside those that the caller has (`held`): what is passed over, and what is taken up again.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

const LEASE_MS = 1000;

class Queue {
  readonly time = new Clocks();
  readonly pawl = new InProcess({ time: this.time });

  async enqueue(payload: unknown, given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    return (await this.pawl.call("queue.enqueue", { queue: "q", payloads: [payload], ...given })).batch
      .batchId;
  }

  async claim(held: (Claim | null)[], given: Partial<Params<"queue.claim">> = {}): Promise<Claim | null> {
    const from = given.queues === undefined && given.batchIds === undefined ? { queue: "q" } : {};
    const proofs = held.map((claim) => proofOf(claim as Claim));
    const params = { ...from, owner: "w", leaseMs: LEASE_MS, held: proofs, ...given };
    return (await this.pawl.call("queue.claim", params)).claim;
  }

  async taken(held: (Claim | null)[], given: Partial<Params<"queue.claim">> = {}): Promise<unknown> {
    const claim = await this.claim(held, given);
    return claim === null ? null : claim.batches.flatMap(({ payloads }) => payloads);
  }

  async state(batchId: string): Promise<unknown> {
    const { state, attempt } = (await this.pawl.call("queue.get", { batchId })).batch;
    return { state, attempt };
  }
}

function proofOf({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

const join = { slotPolicy: "join", mergeKey: "payload_default" } as const;

describe("a claim that names those that its caller has", () => {
  test("takes one up again that ran out: the same claim, and the attempt is taken back", async () => {
    const queue = new Queue();
    const ids = [await queue.enqueue("a", join), await queue.enqueue("b", join)];
    const claim = (await queue.claim([], { maxBatches: 2 })) as Claim;
    queue.time.pass(LEASE_MS);
    expect(await queue.state(ids[0] as string)).toEqual({ state: "ready", attempt: 1 });
    const again = (await queue.claim([claim], { leaseMs: 5000 })) as Claim;
    expect(again).toMatchObject({
      ...proofOf(claim),
      fencingToken: claim.fencingToken,
      remainingMs: 5000,
      batches: [{ attempt: 0 }, { attempt: 0 }],
    });
    expect(await queue.state(ids[1] as string)).toEqual({ state: "claimed", attempt: 0 });
    expect((await queue.pawl.call("queue.stats", { queue: "q" })).queues).toMatchObject([
      { ready: 0, claimed: 2 },
    ]);
    expect(await queue.pawl.call("queue.renew", proofOf(claim))).toMatchObject({ remainingMs: 5000 });
    expect(await queue.pawl.call("queue.complete", proofOf(again))).toEqual({ completed: 2 });
    expect(await queue.taken([claim])).toBeNull();
  });

  test("passes over the rest of one that another has taken from, also within a group", async () => {
    const queue = new Queue();
    const ids = [
      await queue.enqueue("a", join),
      await queue.enqueue("b", join),
      await queue.enqueue("c", join),
    ];
    const claim = await queue.claim([], { batchIds: [ids[1] as string, ids[0] as string] });
    const other = await queue.enqueue("d", join);
    queue.time.pass(LEASE_MS);
    expect(await queue.taken([], { batchIds: [ids[0] as string] })).toEqual(["a"]);
    // Of a, b, c, d: a is claimed, and b was left by the claim.
    expect(await queue.taken([claim], { maxBatches: 3 })).toEqual(["c", "d"]);
    expect(await queue.taken([claim])).toBeNull();
    expect(await queue.taken([])).toEqual(["b"]);
    expect(await queue.state(other)).toMatchObject({ state: "claimed" });
  });

  test("passes over one of which anything was replaced, retried, moved or ended", async () => {
    for (const change of ["replace", "cancel", "move", "dead"] as const) {
      const queue = new Queue();
      const given = { ...join, maxAttempts: change === "dead" ? 1 : 20 };
      const first = await queue.enqueue("a", { ...given, sourceKey: "k" });
      const second = await queue.enqueue("b", join);
      const claim = await queue.claim([], { batchIds: [first, second] });
      queue.time.pass(LEASE_MS);
      await queue.enqueue("c");
      if (change === "replace") await queue.enqueue("n", { ...given, sourceKey: "k", onExisting: "replace" });
      if (change === "cancel") await queue.pawl.call("queue.cancel", { batchId: first });
      if (change === "move") await queue.pawl.call("queue.move", { batchIds: [first], to: "other" });
      expect(await queue.taken([claim])).toEqual([change === "replace" ? "n" : "c"]);
    }
  });

  test("takes what comes before the one that ran out, and waits for that to end otherwise", async () => {
    const queue = new Queue();
    await queue.enqueue("a");
    const claim = (await queue.claim([])) as Claim;
    // It is held: nothing of it is a candidate, and it is waited for.
    const waiting = queue.claim([claim], { waitMs: 60_000 });
    await queue.pawl.call("daemon.ping", {});
    queue.time.pass(LEASE_MS);
    await queue.pawl.call("daemon.ping", {});
    expect(await waiting).toMatchObject(proofOf(claim));
    queue.time.pass(LEASE_MS);
    await queue.enqueue("b", { priority: 1 });
    expect(await queue.taken([claim])).toEqual(["b"]);
    expect(await queue.claim([claim], { queues: ["none", "q"] })).toMatchObject(proofOf(claim));
  });

  test("keeps to keys: the next of one that is passed over comes, and under a strict order waits", async () => {
    const queue = new Queue();
    const [a, b] = [await queue.enqueue("a", { key: "k" }), await queue.enqueue("b", { key: "k" })];
    const extra = await queue.enqueue("x");
    const claim = await queue.claim([], { batchIds: [a, extra] });
    queue.time.pass(LEASE_MS);
    await queue.taken([], { batchIds: [extra] });
    await queue.pawl.call("queue.configure", { queue: "q", keyOrder: "strict" });
    expect(await queue.taken([claim])).toBeNull();
    await queue.pawl.call("queue.configure", { queue: "q", keyOrder: "free" });
    expect(await queue.taken([claim])).toEqual(["b"]);
    expect(await queue.state(b)).toMatchObject({ state: "claimed" });
  });

  test("looks below a prefix past queues whose first batch is passed over", async () => {
    const queue = new Queue();
    const ids = [await queue.enqueue("a", { queue: "p/1" }), await queue.enqueue("b", { queue: "p/1" })];
    await queue.enqueue("c", { queue: "p/2" });
    await queue.enqueue("d", { queue: "p/1" });
    const claim = await queue.claim([], { batchIds: ids });
    queue.time.pass(LEASE_MS);
    expect(await queue.taken([claim], { queues: ["p/*"] })).toEqual(["a", "b"]);
    queue.time.pass(LEASE_MS);
    await queue.pawl.call("queue.cancel", { batchId: ids[1] as string });
    expect(await queue.taken([claim], { queues: ["p/*"] })).toEqual(["c"]);
    expect(await queue.taken([claim], { queues: ["p/*"] })).toEqual(["d"]);
    expect(await queue.taken([claim], { queues: ["p/*"] })).toBeNull();
    expect(await queue.taken([], { queues: ["p/*"] })).toEqual(["a"]);
  });

  test("is refused for a token that is not that of the claim, and not for a claim that has ended", async () => {
    const queue = new Queue();
    await queue.enqueue("a");
    const claim = (await queue.claim([])) as Claim;
    await queue.pawl.call("queue.complete", proofOf(claim));
    expect(await queue.taken([claim])).toBeNull();
    const wrong = queue.claim([{ ...claim, leaseToken: "no" }]);
    await expect(wrong).rejects.toMatchObject({ kind: "claim_lost", details: { claimId: claim.claimId } });
    await expect(queue.claim(Array.from({ length: 65 }, () => claim))).rejects.toMatchObject({
      kind: "invalid_params",
    });
  });
});
