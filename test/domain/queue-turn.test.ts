// The row of a queue is read and written once a turn: whatever shares a turn, the counts are those of the batches.
import type { Params } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { InProcess, rowsOf } from "../in-process.js";

const LEASE_MS = 60_000;

function enqueue(pawl: InProcess, payload: unknown = 1) {
  return pawl.call("queue.enqueue", { queue: "q", payloads: [payload] });
}
function claim(pawl: InProcess, given: Partial<Params<"queue.claim">> = {}) {
  return pawl.call("queue.claim", { queue: "q", owner: "worker", leaseMs: LEASE_MS, ...given });
}
/** Two batches and then a completion that is refused: all three are undone. */
function refused(pawl: InProcess) {
  const add = { method: "queue.enqueue", params: { queue: "q", payloads: ["undone"] } } as const;
  const complete = { method: "queue.complete", params: { claimId: "qwc:1:1", leaseToken: "no" } } as const;
  return pawl.call("transact", { calls: [add, add, complete] }).then(
    () => "done",
    (error: { kind: string }) => error.kind,
  );
}

/** As the rows of the batches have it, and as the row of the queue has it. */
function counts(path: string) {
  const states = rowsOf(path, "SELECT state, count(*) AS batches FROM pawl_batch GROUP BY state");
  const [row] = rowsOf(path, "SELECT * FROM pawl_queue WHERE queue = 'q'") as Record<string, number>[];
  const counted = Object.fromEntries(
    (states as { state: string; batches: number }[]).map(({ state, batches }) => [state, batches]),
  );
  const none = { ready: 0, scheduled: 0, claimed: 0, completed: 0, dead: 0, cancelled: 0 };
  return { counted: { ...none, ...counted }, row };
}

test("enqueue, claim, an undone transact, cancel and statistics in one turn", async () => {
  const pawl = new InProcess();
  const first = await enqueue(pawl);
  const calls = [
    enqueue(pawl),
    claim(pawl),
    refused(pawl),
    enqueue(pawl),
    pawl.call("queue.cancel", { batchId: first.batch.batchId }),
    pawl.call("queue.stats", { queue: "q" }),
    claim(pawl),
    pawl.call("queue.stats", {}),
    claim(pawl),
  ] as const;
  const [, one, undone, , cancelled, between, two, all, three] = await Promise.all(calls);
  expect(one.claim?.batches[0]?.batchId).toBe(first.batch.batchId);
  expect(undone).toBe("claim_lost");
  expect(cancelled).toEqual({ outcome: "already_claimed" });
  expect(between.queues).toMatchObject([{ ready: 2, claimed: 1 }]);
  expect(two.claim?.fencingToken).toBe((one.claim?.fencingToken ?? 0) + 1);
  expect(all.queues).toMatchObject([{ queue: "q", ready: 1, claimed: 2 }]);
  expect(three.claim?.fencingToken).toBe((one.claim?.fencingToken ?? 0) + 2);
  expect(pawl.rolledBack).toEqual([]);
  const { counted, row } = counts(pawl.path);
  expect(row).toMatchObject(counted);
  expect(counted).toMatchObject({ ready: 0, claimed: 3 });
});

test("many claims of a turn take the batches in their order, each once, also past one that comes back", async () => {
  const pawl = new InProcess();
  const long = "x".repeat(5000);
  const added = await Promise.all(
    Array.from({ length: 50 }, (_, index) => enqueue(pawl, index % 7 ? index : long)),
  );
  const head = (await claim(pawl)).claim;
  if (head === null) throw new Error("nothing was claimed");
  const before = Array.from({ length: 20 }, () => claim(pawl));
  const back = pawl.call("queue.abandon", { claimId: head.claimId, leaseToken: head.leaseToken });
  const after = Array.from({ length: 30 }, () => claim(pawl));
  const claims = [...(await Promise.all(before)), ...(await Promise.all(after))];
  expect(await back).toEqual({ released: 1, dead: 0 });
  const ids = added.map(({ batch }) => batch.batchId);
  const expected = [...ids.slice(1, 21), ids[0], ...ids.slice(21)];
  expect(claims.map((each) => each.claim?.batches[0]?.batchId)).toEqual(expected);
  const payloads = claims.flatMap((each) => each.claim?.batches[0]?.payloads);
  expect(payloads.filter((payload) => payload === long)).toHaveLength(8);
  const { counted, row } = counts(pawl.path);
  expect(row).toMatchObject(counted);
});

describe("who has just come is served behind those who waited before, though no turn had time for all of them:", () => {
  /** Whoever is answered is noted. */
  async function waiting(pawl: InProcess, wait: (name: string, connection: number) => Promise<unknown>) {
    const served: string[] = [];
    const start = (name: string, connection: number) => wait(name, connection).then(() => served.push(name));
    const before = ["a", "b", "c"].map((name, index) => start(name, 10 + index));
    for (const _ of before) await pawl.call("daemon.ping", {});
    return { served, start, before };
  }

  test("a claim", async () => {
    const pawl = new InProcess({ turnMs: () => 0 });
    const { served, start, before } = await waiting(pawl, (owner, connection) =>
      pawl.call("queue.claim", { queue: "q", owner, waitMs: 60_000 }, connection),
    );
    const batches = [1, 2, 3].map((payload) => ({ queue: "q", payloads: [payload] }));
    const added = pawl.call("queue.enqueueMany", { batches });
    const last = start("d", 20);
    await Promise.all([added, ...before]);
    await enqueue(pawl);
    await last;
    expect(served).toEqual(["a", "b", "c", "d"]);
  });

  test("one that may be claimed at other boundaries is not forgotten", async () => {
    const pawl = new InProcess({ turnMs: () => 0 });
    const { before } = await waiting(pawl, (owner, connection) =>
      pawl.call("queue.claim", { queue: "q", owner, waitMs: 60_000 }, connection),
    );
    const batches = [1, 2, 3, 4].map((payload) => ({ queue: "q", payloads: [payload] }));
    const added = pawl.call("queue.enqueueMany", { batches });
    const boundary = "active_turn_checkpoint";
    const other = pawl.call("queue.claim", { queue: "q", owner: "d", waitMs: 60_000, boundary }, 20);
    await Promise.all([added, ...before]);
    expect((await other).claim?.batches[0]?.payloads).toEqual([4]);
  });

  test("a batch for which there has to be room", async () => {
    const pawl = new InProcess({ turnMs: () => 0 });
    await pawl.call("queue.configure", { queue: "q", maxWaiting: 3 });
    const full = await Promise.all([enqueue(pawl), enqueue(pawl), enqueue(pawl)]);
    const { served, start, before } = await waiting(pawl, (name, connection) =>
      pawl.call("queue.enqueue", { queue: "q", payloads: [name], waitMs: 60_000 }, connection),
    );
    const purged = pawl.call("queue.purge", { batchIds: full.map(({ batch }) => batch.batchId) });
    const last = start("d", 20);
    await Promise.all([purged, ...before]);
    await pawl.call("queue.purge", { queue: "q", states: ["ready"] });
    await last;
    expect(served).toEqual(["a", "b", "c", "d"]);
  });
});
