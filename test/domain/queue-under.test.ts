// Claims that live as long as a lease (`under`): how they end with it, and what holds of them meanwhile.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;
type Lease = Extract<Result<"lease.acquire">, { lease: unknown }>["lease"];

const TTL_MS = 1000;

class Queue {
  readonly time: Clocks;
  readonly pawl: InProcess;

  constructor(path?: string, time = new Clocks()) {
    this.time = time;
    this.pawl = new InProcess({ time, ...(path === undefined ? {} : { path }) });
  }

  async enqueue(given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    return (await this.pawl.call("queue.enqueue", { queue: "q", payloads: [1], ...given })).batch.batchId;
  }

  async acquire(given: Partial<Params<"lease.acquire">> = {}): Promise<Lease> {
    const params = { name: "l", owner: "w", ttlMs: TTL_MS, ...given } as Params<"lease.acquire">;
    return ((await this.pawl.call("lease.acquire", params, 5)) as { lease: Lease }).lease;
  }

  async claim(lease: Lease, given: Partial<Params<"queue.claim">> = {}): Promise<Claim | null> {
    const under = { lease: { name: lease.name, fencingToken: lease.fencingToken } };
    return (await this.pawl.call("queue.claim", { queue: "q", owner: "w", under, ...given }, 5)).claim;
  }

  async get(batchId: string): Promise<Result<"queue.get">["batch"]> {
    return (await this.pawl.call("queue.get", { batchId })).batch;
  }

  /** The kinds of refusals of all that the holder of a claim can ask. */
  async refusals(claim: Claim): Promise<unknown[]> {
    const proof = proofOf(claim);
    const kind = (call: Promise<unknown>): Promise<unknown> =>
      call.then(
        () => "done",
        (error: { kind: string }) => error.kind,
      );
    return [
      await kind(this.pawl.call("queue.claim", { queue: "none", owner: "w", held: [proof] })),
      await kind(
        this.pawl.call("transact", {
          calls: [{ method: "queue.stats", params: {} }],
          guards: [{ claim: proof }],
        }),
      ),
      await kind(this.pawl.call("queue.renew", proof)),
      await kind(this.pawl.call("queue.complete", proof)),
    ];
  }
}

function proofOf({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

describe("a claim under a lease", () => {
  test("lasts as long as the lease is renewed, and is completed under it", async () => {
    const queue = new Queue();
    const ids = [await queue.enqueue(), await queue.enqueue()];
    const lease = await queue.acquire();
    queue.time.pass(400);
    const claim = (await queue.claim(lease, { batchIds: ids, queue: undefined } as never)) as Claim;
    expect(claim).toMatchObject({ remainingMs: 600, expiresAt: lease.expiresAt, batches: [{}, {}] });
    queue.time.pass(500);
    expect((await queue.get(ids[1] as string)).claim).toMatchObject({
      remainingMs: 100,
      claimId: claim.claimId,
    });
    await queue.pawl.call("lease.heartbeat", { leaseId: lease.leaseId, ttlMs: 5000 });
    expect(await queue.pawl.call("queue.renew", { ...proofOf(claim), leaseMs: 100 })).toMatchObject({
      remainingMs: 5000,
      cancelling: false,
    });
    queue.time.pass(4000);
    expect((await queue.pawl.call("queue.explain", { batchId: ids[0] as string })).holder).toMatchObject({
      remainingMs: 1000,
    });
    expect(await queue.pawl.call("queue.complete", proofOf(claim))).toEqual({ completed: 2 });
    await queue.pawl.call("lease.release", { leaseId: lease.leaseId });
    expect(await queue.pawl.call("queue.complete", proofOf(claim))).toEqual({ completed: 2 });
  });

  test("ends as abandoned when the lease is released, also in one transaction with the next claim", async () => {
    const queue = new Queue();
    const batchId = await queue.enqueue();
    const lease = await queue.acquire();
    const claim = (await queue.claim(lease)) as Claim;
    const { results } = await queue.pawl.call("transact", {
      calls: [
        { method: "lease.release", params: { leaseId: lease.leaseId } },
        { method: "queue.claim", params: { queue: "q", owner: "next" } },
      ],
    });
    expect(results[1]).toMatchObject({ claim: { batches: [{ batchId, attempt: 0 }] } });
    expect(queue.pawl.notified).toMatchObject([
      { connection: 5, method: "claim.lost", params: { claimId: claim.claimId, cause: "lease_ended" } },
    ]);
    const left = await queue.claim(await queue.acquire(), { queue: "other" });
    expect(left).toBeNull();
  });

  test("is lost for good with the lease, before anybody has taken it: nothing of it can be completed", async () => {
    for (const how of ["release", "break", "expire"] as const) {
      const queue = new Queue();
      const batchId = await queue.enqueue();
      const lease = await queue.acquire();
      const claim = (await queue.claim(lease)) as Claim;
      if (how === "release") await queue.pawl.call("lease.release", { leaseId: lease.leaseId });
      if (how === "break") await queue.pawl.call("lease.break", { name: "l", reason: "stuck" });
      if (how === "expire") queue.time.pass(TTL_MS);
      expect(await queue.refusals(claim)).toEqual(Array(4).fill("claim_lost"));
      const counted = how === "release" ? 0 : 1;
      expect(await queue.get(batchId)).toMatchObject({ state: "ready", attempt: counted });
      expect((await queue.get(batchId)).lastError).toEqual(
        counted === 0 ? undefined : expect.stringContaining("with the lease l"),
      );
      // What comes of the batch afterwards is as ever.
      const again = (await queue.claim(await queue.acquire())) as Claim;
      expect(await queue.pawl.call("queue.complete", proofOf(again))).toEqual({ completed: 1 });
    }
  });

  test("is made under a lease that is acquired in the same transaction, and refused under none", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const under = { lease: { name: "l", fencingToken: { $result: "/0/lease/fencingToken" } } };
    const calls = [
      { method: "lease.acquire", params: { name: "l", owner: "w", ttlMs: 700 } },
      { method: "queue.claim", params: { queue: "q", owner: "w", under } },
    ] as Params<"transact">["calls"];
    const { results } = await queue.pawl.call("transact", { calls });
    expect(results[1]).toMatchObject({ claim: { remainingMs: 700 } });
    const lease = { ...(results[0] as { lease: Lease }).lease, fencingToken: 99 };
    await expect(queue.claim(lease)).rejects.toMatchObject({ kind: "lease_lost" });
    for (const beside of [{ leaseMs: 1000 }, { releaseOn: "disconnect" as const }, { graceMs: 0 }]) {
      await expect(queue.claim(lease, beside)).rejects.toMatchObject({ kind: "invalid_params" });
    }
  });

  test("survives a restart with its lease, and is one of a thousand that end with it in steps", async () => {
    const first = new Queue();
    const batches = Array.from({ length: 130 }, () => ({ queue: "q", payloads: [1] }));
    await first.pawl.call("queue.enqueueMany", { batches });
    const lease = await first.acquire();
    const claims = await Promise.all(batches.map(() => first.claim(lease)));
    first.pawl.close();
    const queue = new Queue(first.pawl.path, first.time);
    expect(await queue.pawl.call("queue.renew", proofOf(claims[7] as Claim))).toMatchObject({
      remainingMs: TTL_MS,
    });
    await queue.pawl.call("lease.release", { leaseId: lease.leaseId });
    for (const claim of [claims[0], claims[129]]) {
      await expect(queue.pawl.call("queue.complete", proofOf(claim as Claim))).rejects.toMatchObject({
        kind: "claim_lost",
      });
    }
    for (let ready = 0; ready < 130; ) {
      ready = (await queue.pawl.call("queue.stats", { queue: "q" })).queues[0]?.ready ?? 0;
    }
  });

  test("that is cancelled ends with its grace, or with the lease", async () => {
    const queue = new Queue();
    const batchId = await queue.enqueue();
    const lease = await queue.acquire({ ttlMs: 60_000 });
    const claim = (await queue.claim(lease)) as Claim;
    await queue.pawl.call("queue.cancel", { batchId, stop: true, graceMs: 500 });
    expect(await queue.pawl.call("queue.renew", proofOf(claim))).toMatchObject({
      remainingMs: 500,
      cancelling: true,
    });
    queue.time.pass(500);
    expect(await queue.get(batchId)).toMatchObject({ state: "cancelled" });
    expect(await queue.refusals(claim)).toEqual(["done", "claim_lost", "claim_lost", "claim_lost"]);
  });
});
