// Claims whose holders are told of their loss (`notify`), and what that costs those who are not.
import type { Params, Result } from "@pawl/protocol";
import { expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

const LEASE_MS = 1000;

class Queue {
  readonly time = new Clocks();
  readonly pawl = new InProcess({ time: this.time });

  async claim(given: Partial<Params<"queue.claim">> = {}, connection = 7): Promise<Claim> {
    await this.pawl.call("queue.enqueue", { queue: "q", payloads: [1] });
    const params = { queue: "q", owner: "w", leaseMs: LEASE_MS, notify: true, ...given };
    return (await this.pawl.call("queue.claim", params, connection)).claim as Claim;
  }

  /** Lets the lease run out, and gives what was told by then. */
  async told(): Promise<unknown[]> {
    this.time.pass(LEASE_MS);
    await this.pawl.call("daemon.ping", {});
    return this.pawl.notified.map(({ connection, method, params }) => ({ connection, method, ...params }));
  }
}

function proofOf({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

test("the connection that claimed it is told that a claim has run out, and no other", async () => {
  const queue = new Queue();
  const { claimId, batches } = await queue.claim();
  await queue.claim({ notify: false });
  const batchIds = batches.map(({ batchId }) => batchId);
  expect(await queue.told()).toEqual([
    { connection: 7, method: "claim.lost", claimId, queue: "q", batchIds, cause: "expired", reason: null },
  ]);
});

test("the connection that renewed it last is told; none is told of an end that its holder made", async () => {
  const queue = new Queue();
  const renewed = await queue.claim();
  const completed = await queue.claim();
  const abandoned = await queue.claim();
  await queue.pawl.call("queue.renew", { ...proofOf(renewed), leaseMs: LEASE_MS }, 9);
  expect(await queue.pawl.call("queue.complete", proofOf(completed))).toEqual({ completed: 1 });
  await queue.pawl.call("queue.abandon", proofOf(abandoned));
  expect(await queue.told()).toMatchObject([{ connection: 9, claimId: renewed.claimId }]);
});

test("a claim that is cancelled, or that its batch makes anew without notify, is told of as what it is", async () => {
  const queue = new Queue();
  const { batches } = await queue.claim();
  await queue.pawl.call("queue.cancel", { batchId: batches[0]?.batchId as string, stop: true, graceMs: 0 });
  expect(queue.pawl.notified).toMatchObject([
    { method: "claim.cancelling" },
    { method: "claim.lost", params: { cause: "cancelled" } },
  ]);
  const again = await queue.claim();
  await queue.pawl.call("queue.abandon", proofOf(again));
  await queue.claim({ notify: false });
  expect((await queue.told()).length).toBe(2);
});

test("a holder that lost its connection has a while to come back, on any connection", async () => {
  const queue = new Queue();
  const bound = { releaseOn: "disconnect", leaseMs: 60_000, graceMs: 500 } as const;
  const [gone, back, late] = [await queue.claim(bound), await queue.claim(bound), await queue.claim(bound)];
  queue.pawl.disconnect(7);
  await queue.pawl.call("daemon.ping", {});
  queue.time.pass(499);
  expect(await queue.pawl.call("queue.renew", { ...proofOf(back), leaseMs: 60_000 }, 8)).toMatchObject({
    remainingMs: 60_000,
  });
  expect(await queue.pawl.call("queue.complete", proofOf(late))).toEqual({ completed: 1 });
  queue.time.pass(1);
  await queue.pawl.call("daemon.ping", {});
  await expect(queue.pawl.call("queue.renew", proofOf(gone))).rejects.toMatchObject({ kind: "claim_lost" });
  // It is bound to the connection that renewed it, with the same grace.
  queue.pawl.disconnect(8);
  await queue.pawl.call("daemon.ping", {});
  queue.time.pass(499);
  const { claim } = (await queue.pawl.call("queue.get", { batchId: back.batches[0]?.batchId as string }))
    .batch;
  expect(claim?.remainingMs).toBe(1);
  await expect(queue.claim({ graceMs: 500 })).rejects.toMatchObject({ kind: "invalid_params" });
});
