// The rules of queues with time, connections and restarts as the test wants them.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { restMs } from "../../daemon/dist/grants/retry-rest.js";
import { digestOfMeaning } from "../../daemon/dist/json/digest.js";
import { Clocks, START } from "../clocks.js";
import { changeRows, InProcess, rowsOf } from "../in-process.js";

const DAY_MS = 24 * 60 * 60 * 1000;
const RETENTION_MS = 7 * DAY_MS;
/** A batch that is only kept is removed so much later at most. */
const PRUNE_MS = 60_000;
const GRACE_MS = 5000;
const LEASE_MS = 1000;

type Batch = Result<"queue.get">["batch"];
type Claim = NonNullable<Result<"queue.claim">["claim"]>;

/** A queue `q` in a database of its own. */
class Queue {
  readonly time: Clocks;
  readonly pawl: InProcess;

  constructor(options: { path?: string; time?: Clocks } = {}) {
    this.time = options.time ?? new Clocks();
    this.pawl = new InProcess({ ...options, time: this.time });
  }

  /** The next life of the daemon. */
  restarted(): Queue {
    this.pawl.close();
    return new Queue({ path: this.pawl.path, time: this.time });
  }

  async enqueue(given: Partial<Params<"queue.enqueue">> = {}): Promise<Batch> {
    return (await this.pawl.call("queue.enqueue", { queue: "q", payloads: [1], ...given })).batch;
  }

  async tryClaim(given: Partial<Params<"queue.claim">> = {}, connection = 1): Promise<Claim | null> {
    const params = { queue: "q", owner: "worker", leaseMs: LEASE_MS, ...given };
    return (await this.pawl.call("queue.claim", params, connection)).claim;
  }

  async claim(given: Partial<Params<"queue.claim">> = {}, connection = 1): Promise<Claim> {
    const claim = await this.tryClaim(given, connection);
    if (claim === null) throw new Error("there was nothing to claim");
    return claim;
  }

  async complete(claim: Claim): Promise<number> {
    return (await this.pawl.call("queue.complete", proof(claim))).completed;
  }

  async get({ batchId }: { batchId: string }): Promise<Batch> {
    return (await this.pawl.call("queue.get", { batchId })).batch;
  }

  async state(batch: { batchId: string }): Promise<Batch["state"]> {
    return (await this.get(batch)).state;
  }

  async stats(): Promise<Result<"queue.stats">["queues"][number]> {
    const { queues } = await this.pawl.call("queue.stats", { queue: "q" });
    return queues[0] as Result<"queue.stats">["queues"][number];
  }

  /** Waits until what is due now and takes several turns is done. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 50; turn += 1) {
      await this.pawl.call("daemon.ping", {});
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Makes calls that share a turn. */
async function together<T>(count: number, call: (index: number) => Promise<T>): Promise<T[]> {
  return await Promise.all(Array.from({ length: count }, (_, index) => call(index)));
}

function proof({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

async function expectLost(call: Promise<unknown>): Promise<void> {
  await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
}

describe("a claim and its lease", () => {
  test("ends exactly at its deadline", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue();
    const claim = await queue.claim();
    expect(claim).toMatchObject({ claimedAt: START, expiresAt: START + LEASE_MS, remainingMs: LEASE_MS });
    queue.time.pass(LEASE_MS - 1);
    expect(await queue.get(batch)).toMatchObject({ state: "claimed", attempt: 0 });
    expect(await queue.tryClaim()).toBeNull();
    queue.time.pass(1);
    expect(await queue.get(batch)).toMatchObject({
      state: "ready",
      attempt: 1,
      availableAt: START + LEASE_MS,
      lastError: expect.stringMatching(/worker.*expired/),
    });
    expect((await queue.get(batch)).claim).toBeUndefined();
  });

  test("is renewed from the moment of renewing, for what is asked or for what it was claimed for", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim();
    queue.time.pass(LEASE_MS - 1);
    const renewed = await queue.pawl.call("queue.renew", { ...proof(claim), leaseMs: 5000 });
    expect(renewed).toEqual({ expiresAt: START + LEASE_MS - 1 + 5000, remainingMs: 5000, cancelling: false });
    // It can also be made to end sooner.
    queue.time.pass(1);
    const again = await queue.pawl.call("queue.renew", proof(claim));
    expect(again).toEqual({ expiresAt: START + 2 * LEASE_MS, remainingMs: LEASE_MS, cancelling: false });
    queue.time.pass(LEASE_MS);
    await expectLost(queue.pawl.call("queue.renew", proof(claim)));
    expect(await queue.stats()).toMatchObject({ ready: 1, claimed: 0 });
  });

  test("of a step of the clock nothing is noticed: what remains stays", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim();
    queue.time.pass(400);
    queue.time.step(3_600_000);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.time.pass(599);
    expect(await queue.pawl.call("queue.renew", proof(claim))).toMatchObject({ remainingMs: LEASE_MS });
    queue.time.step(-7_200_000);
    queue.time.pass(LEASE_MS - 1);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.time.pass(1);
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1 });
  });

  test("a scheduled batch follows the wall clock", async () => {
    const queue = new Queue();
    await queue.enqueue({ availableAt: START + 3_600_000 });
    queue.time.step(3_600_000);
    expect(await queue.stats()).toMatchObject({ scheduled: 0, ready: 1 });
  });

  test("many that end at one moment all end, in bounded steps", async () => {
    const queue = new Queue();
    const batches = Array.from({ length: 1200 }, () => ({ queue: "q", payloads: [1] }));
    await queue.pawl.call("queue.enqueueMany", { batches: batches.slice(0, 600) });
    await queue.pawl.call("queue.enqueueMany", { batches: batches.slice(600) });
    await together(1200, () => queue.claim());
    expect(await queue.stats()).toMatchObject({ claimed: 1200, ready: 0 });
    queue.time.pass(LEASE_MS);
    const first = await queue.stats();
    expect(first.ready).toBeGreaterThan(0);
    expect(first.ready).toBeLessThan(1200);
    expect(first.ready + first.claimed).toBe(1200);
    await queue.settle();
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1200 });
  });
});

describe("completion after the end of a claim", () => {
  async function expired(given: Partial<Params<"queue.enqueue">> = {}) {
    const queue = new Queue();
    const batch = await queue.enqueue(given);
    const claim = await queue.claim();
    queue.time.pass(LEASE_MS);
    return { queue, batch, claim };
  }

  test("succeeds while nobody else has claimed, and takes the batch out of the queue", async () => {
    const { queue, batch, claim } = await expired();
    expect(await queue.complete(claim)).toBe(1);
    expect(await queue.state(batch)).toBe("completed");
    expect(await queue.tryClaim()).toBeNull();
    expect(await queue.stats()).toMatchObject({ ready: 0, claimed: 0, completed: 1 });
    // And twice, and after a restart.
    expect(await queue.complete(claim)).toBe(1);
    expect(await queue.restarted().complete(claim)).toBe(1);
  });

  test("is lost once another claims, also after that one has ended", async () => {
    const { queue, batch, claim } = await expired();
    const other = await queue.claim({ owner: "other" });
    expect(other.fencingToken).toBeGreaterThan(claim.fencingToken);
    await expectLost(queue.complete(claim));
    queue.time.pass(LEASE_MS);
    await expectLost(queue.complete(claim));
    expect(await queue.complete(other)).toBe(1);
    await expectLost(queue.complete(claim));
    expect(await queue.state(batch)).toBe("completed");
  });

  test("brings back what was dead by the expiry", async () => {
    const { queue, batch, claim } = await expired({ maxAttempts: 1 });
    expect(await queue.state(batch)).toBe("dead");
    expect(await queue.complete(claim)).toBe(1);
    expect(await queue.stats()).toMatchObject({ dead: 0, completed: 1 });
  });

  test("is lost after a retry of what was dead", async () => {
    const { queue, batch, claim } = await expired({ maxAttempts: 1 });
    expect(await queue.pawl.call("queue.retry", { batchId: batch.batchId })).toEqual({
      retried: 1,
      more: false,
    });
    await expect(queue.complete(claim)).rejects.toMatchObject({ kind: "claim_lost" });
    expect(await queue.stats()).toMatchObject({ dead: 0, ready: 1, completed: 0 });
  });

  test("is lost when the batch was cancelled meanwhile", async () => {
    const { queue, batch, claim } = await expired();
    const { batchId } = batch;
    expect(await queue.pawl.call("queue.cancel", { batchId })).toEqual({ outcome: "cancelled" });
    await expectLost(queue.complete(claim));
    expect(await queue.state(batch)).toBe("cancelled");
  });

  test.each([{}, { error: "broken", delayMs: 0 }, { error: "broken" }, { delayMs: 5000 }])(
    "is lost after it was abandoned with %j",
    async (how) => {
      const queue = new Queue();
      const batch = await queue.enqueue();
      const claim = await queue.claim();
      await queue.pawl.call("queue.abandon", { ...proof(claim), ...how });
      await expectLost(queue.complete(claim));
      await expectLost(queue.pawl.call("queue.renew", proof(claim)));
      await expectLost(queue.pawl.call("queue.abandon", proof(claim)));
      const isAtOnce = how.delayMs === 0 || (how.delayMs === undefined && how.error === undefined);
      expect(await queue.state(batch)).toBe(isAtOnce ? "ready" : "scheduled");
    },
  );

  test("succeeds after the connection that it was bound to has closed", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim({ releaseOn: "disconnect" }, 7);
    queue.pawl.disconnect(7);
    expect(await queue.stats()).toMatchObject({ ready: 1, claimed: 0 });
    await expectLost(queue.pawl.call("queue.renew", proof(claim)));
    expect(await queue.complete(claim)).toBe(1);
  });

  test("renewing and abandoning are lost at once", async () => {
    const { queue, claim } = await expired();
    await expectLost(queue.pawl.call("queue.renew", proof(claim)));
    await expectLost(queue.pawl.call("queue.abandon", { ...proof(claim), error: "late" }));
    expect(await queue.stats()).toMatchObject({ ready: 1 });
  });
});

describe("a claim of several batches", () => {
  const alike = { slotPolicy: "join", mergeKey: "payload_default" } as const;

  async function group(given: Partial<Params<"queue.enqueue">>[] = [{}, {}, {}]) {
    const queue = new Queue();
    const batches: Batch[] = [];
    for (const each of given) batches.push(await queue.enqueue({ ...alike, ...each }));
    const claim = await queue.claim({ maxBatches: 10 });
    expect(claim.batches.map(({ batchId }) => batchId)).toEqual(batches.map(({ batchId }) => batchId));
    expect(claim.claimId).toBe(`qwc:${batches[0]?.enqueueSeq}:${claim.fencingToken}`);
    return { queue, batches, claim };
  }

  test("is completed as a whole, twice with the same answer", async () => {
    const { queue, batches, claim } = await group();
    expect(await queue.complete(claim)).toBe(3);
    expect(await queue.complete(claim)).toBe(3);
    for (const batch of batches) expect(await queue.state(batch)).toBe("completed");
    expect(await queue.stats()).toMatchObject({ claimed: 0, completed: 3 });
  });

  test("each of its batches shows the holder", async () => {
    const { queue, batches, claim } = await group();
    await queue.pawl.call("queue.renew", { ...proof(claim), leaseMs: 7000 });
    for (const batch of batches) {
      expect((await queue.get(batch)).claim).toEqual({
        owner: "worker",
        claimId: claim.claimId,
        fencingToken: claim.fencingToken,
        expiresAt: START + 7000,
        remainingMs: 7000,
      });
    }
  });

  test("gives all back when it expires, and each counts for itself", async () => {
    const { queue, batches } = await group([{ maxAttempts: 1 }, {}, { maxAttempts: 1 }]);
    queue.time.pass(LEASE_MS);
    expect(await Promise.all(batches.map((batch) => queue.state(batch)))).toEqual(["dead", "ready", "dead"]);
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1, dead: 2 });
  });

  test("tells how many came back and how many died", async () => {
    const { queue, claim } = await group([{ maxAttempts: 1 }, {}, {}]);
    const result = await queue.pawl.call("queue.abandon", { ...proof(claim), error: "no" });
    expect(result).toEqual({ released: 2, dead: 1 });
  });

  test("is completed late as a whole: what is ready, scheduled by a retry, or dead", async () => {
    const { queue, batches, claim } = await group([{ maxAttempts: 1 }, {}, {}]);
    queue.time.pass(LEASE_MS);
    expect(await queue.complete(claim)).toBe(3);
    for (const batch of batches) expect(await queue.state(batch)).toBe("completed");
    expect(await queue.stats()).toMatchObject({ ready: 0, dead: 0, claimed: 0, completed: 3 });
  });

  test.each([0, 1, 2])("is lost as a whole when batch %i has been cancelled", async (which) => {
    const { queue, batches, claim } = await group();
    queue.time.pass(LEASE_MS);
    await queue.pawl.call("queue.cancel", { batchId: (batches[which] as Batch).batchId });
    await expectLost(queue.complete(claim));
    expect(await queue.stats()).toMatchObject({ ready: 2, cancelled: 1, completed: 0 });
  });

  test("is lost as a whole when another claim has taken only some of them", async () => {
    const { queue, batches, claim } = await group();
    queue.time.pass(LEASE_MS);
    // The head is cancelled, so that the rest is another group.
    const other = await queue.claim({ maxBatches: 2 });
    expect(other.batches).toHaveLength(2);
    await expectLost(queue.complete(claim));
    expect(await queue.complete(other)).toBe(2);
    await expectLost(queue.complete(claim));
    expect(await queue.state(batches[2] as Batch)).toBe("ready");
  });

  test("is lost as a whole when another claim has taken all but the head", async () => {
    const { queue, batches, claim } = await group([{ maxAttempts: 1 }, {}, {}]);
    queue.time.pass(LEASE_MS);
    // The head is dead.
    const other = await queue.claim({ maxBatches: 2 });
    expect(other.batches.map(({ batchId }) => batchId)).toEqual(
      batches.slice(1).map(({ batchId }) => batchId),
    );
    await expectLost(queue.complete(claim));
    expect(await queue.state(batches[0] as Batch)).toBe("dead");
    expect(await queue.complete(other)).toBe(2);
  });

  test("of a thousand batches ends like one", async () => {
    const queue = new Queue();
    const batches = Array.from({ length: 1000 }, () => ({ queue: "q", payloads: [1], ...alike }));
    await queue.pawl.call("queue.enqueueMany", { batches });
    const claim = await queue.claim({ maxBatches: 1000 });
    expect(claim.batches).toHaveLength(1000);
    expect(await queue.stats()).toMatchObject({ ready: 0, claimed: 1000 });
    queue.time.pass(LEASE_MS);
    expect(await queue.stats()).toMatchObject({ ready: 1000, claimed: 0 });
    expect(await queue.complete(claim)).toBe(1000);
    expect(await queue.stats()).toMatchObject({ ready: 0, completed: 1000 });
  });
});

describe("attempts", () => {
  test("a delivery that is given back without an error does not count", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue({ maxAttempts: 1 });
    for (let time = 0; time < 3; time += 1) {
      const claim = await queue.claim();
      expect(claim.batches[0]).toMatchObject({ attempt: 0, state: "claimed" });
      const result = await queue.pawl.call("queue.abandon", proof(claim));
      expect(result).toEqual({ released: 1, dead: 0 });
    }
    expect(await queue.get(batch)).toMatchObject({ state: "ready", attempt: 0 });
    expect((await queue.get(batch)).lastError).toBeUndefined();
  });

  test("errors, expiries and disconnects count, and the last of them is kept", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue({ maxAttempts: 4 });
    const error = "no route to host";
    await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error, delayMs: 0 });
    expect(await queue.get(batch)).toMatchObject({
      state: "ready",
      attempt: 1,
      lastError: "no route to host",
    });
    await queue.claim();
    queue.time.pass(LEASE_MS);
    expect(await queue.get(batch)).toMatchObject({ state: "ready", attempt: 2 });
    await queue.claim({ releaseOn: "disconnect" }, 9);
    queue.pawl.disconnect(9);
    expect(await queue.get(batch)).toMatchObject({
      state: "scheduled",
      attempt: 3,
      lastError: expect.stringContaining("connection"),
    });
    queue.time.pass(4000);
    await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error: "the last" });
    expect(await queue.get(batch)).toMatchObject({ state: "dead", attempt: 4, lastError: "the last" });
    expect(await queue.tryClaim()).toBeNull();
  });

  test("without a limit a batch never dies", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue({ maxAttempts: 0 });
    for (let time = 0; time < 30; time += 1) {
      await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error: "again", delayMs: 0 });
    }
    expect(await queue.get(batch)).toMatchObject({ state: "ready", attempt: 30 });
  });

  test("a poison batch dies and the queue flows on; a retry brings it back with a fresh count", async () => {
    const queue = new Queue();
    const poison = await queue.enqueue({ payloads: ["poison"], maxAttempts: 3 });
    const good = await queue.enqueue({ payloads: ["good"] });
    for (let time = 0; time < 3; time += 1) {
      const claim = await queue.claim();
      expect(claim.batches[0]?.batchId).toBe(poison.batchId);
      await queue.pawl.call("queue.abandon", { ...proof(claim), error: "boom", delayMs: 0 });
    }
    expect((await queue.claim()).batches[0]?.batchId).toBe(good.batchId);
    expect(await queue.tryClaim()).toBeNull();
    expect(await queue.pawl.call("queue.retry", { queue: "q" })).toEqual({ retried: 1, more: false });
    expect(await queue.get(poison)).toMatchObject({ state: "ready", attempt: 0, lastError: "boom" });
    expect(await queue.complete(await queue.claim())).toBe(1);
    expect(await queue.state(poison)).toBe("completed");
    expect(await queue.pawl.call("queue.retry", { queue: "q" })).toEqual({ retried: 0, more: false });
    expect(await queue.pawl.call("queue.retry", { batchId: poison.batchId })).toEqual({
      retried: 0,
      more: false,
    });
  });

  test("a delay postpones what is given back, and what is dead is dead at once", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue({ maxAttempts: 2 });
    await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error: "busy", delayMs: 300 });
    expect(await queue.get(batch)).toMatchObject({
      state: "scheduled",
      attempt: 1,
      availableAt: START + 300,
    });
    queue.time.pass(299);
    expect(await queue.tryClaim()).toBeNull();
    queue.time.pass(1);
    const result = await queue.pawl.call("queue.abandon", {
      ...proof(await queue.claim()),
      error: "busy",
      delayMs: 300,
    });
    expect(result).toEqual({ released: 0, dead: 1 });
    expect(await queue.state(batch)).toBe("dead");
  });
});

describe("rests", () => {
  const retry = { baseMs: 1000, factor: 2, maxMs: 5000, jitter: false };

  async function fail(queue: Queue, how: object = {}): Promise<void> {
    await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error: "no", ...how });
  }

  /** How long a batch rests from now on; it is over afterwards. */
  async function restOf(queue: Queue, batch: Batch): Promise<number> {
    const { state, availableAt } = await queue.get(batch);
    const rest = availableAt - queue.time.wall();
    expect(state).toBe(rest > 0 ? "scheduled" : "ready");
    if (rest > 0) {
      queue.time.pass(rest - 1);
      expect(await queue.tryClaim()).toBeNull();
      queue.time.pass(1);
    }
    return Math.max(0, rest);
  }

  test("double with each attempt up to the most, by what the batch has, else its queue, else by default", async () => {
    const queue = new Queue();
    const own = await queue.enqueue({ retry });
    for (const rest of [1000, 2000, 4000, 5000, 5000]) {
      await fail(queue);
      expect(await restOf(queue, own)).toBe(rest);
    }
    await queue.complete(await queue.claim());

    await queue.pawl.call("queue.configure", { queue: "q", retry: { ...retry, baseMs: 10, factor: 10 } });
    const other = await queue.enqueue();
    expect(other).toMatchObject({ retry: null });
    for (const rest of [10, 100]) {
      await fail(queue);
      expect(await restOf(queue, other)).toBe(rest);
    }
    await queue.pawl.call("queue.configure", { queue: "q", retry: null });
    await fail(queue);
    const byDefault = await restOf(queue, other);
    expect(byDefault).toBeGreaterThanOrEqual(2000);
    expect(byDefault).toBeLessThanOrEqual(4000);
    await fail(queue, { delayMs: 7 });
    expect(await restOf(queue, other)).toBe(7);
    await fail(queue, { delayMs: 0 });
    expect(await restOf(queue, other)).toBe(0);
  });

  test("are none after the first loss, and after each further one as after an error", async () => {
    const queue = new Queue();
    const batch = await queue.enqueue({ retry });
    await fail(queue);
    expect(await restOf(queue, batch)).toBe(1000);
    const lose = [
      async (): Promise<void> => {
        await queue.claim();
        queue.time.pass(LEASE_MS);
      },
      async (): Promise<void> => {
        await queue.claim({ releaseOn: "disconnect" }, 5);
        queue.pawl.disconnect(5);
      },
    ];
    const rests: number[] = [];
    for (const each of lose) {
      await each();
      rests.push(await restOf(queue, batch));
    }
    expect(rests).toEqual([0, 4000]);
  });

  test("are those of a group together, by its highest count", async () => {
    const queue = new Queue();
    const alike = { slotPolicy: "join", mergeKey: "payload_default", retry } as const;
    const tried = await queue.enqueue(alike);
    for (const rest of [1000, 2000]) {
      await fail(queue);
      expect(await restOf(queue, tried)).toBe(rest);
    }
    const fresh = await queue.enqueue(alike);
    const claim = await queue.claim({ maxBatches: 2 });
    expect(claim.batches).toHaveLength(2);
    await queue.pawl.call("queue.abandon", { ...proof(claim), error: "no" });
    for (const batch of [tried, fresh]) {
      expect(await queue.get(batch)).toMatchObject({ availableAt: queue.time.wall() + 4000 });
    }
    expect(await queue.pawl.call("queue.explain", { queue: "q" })).toMatchObject({
      claimable: false,
      reason: "resting",
      batchId: tried.batchId,
      availableAt: queue.time.wall() + 4000,
    });
  });

  test("let others pass, and a batch that rests is completed late as one that is ready", async () => {
    const queue = new Queue();
    const poison = await queue.enqueue({ retry, maxAttempts: 0 });
    const good = await queue.enqueue();
    await fail(queue);
    expect((await queue.claim()).batches[0]?.batchId).toBe(good.batchId);
    queue.time.pass(1000);
    for (const leaseMs of [100, 100]) {
      const claim = await queue.claim({ leaseMs });
      queue.time.pass(leaseMs);
      if ((await queue.state(poison)) === "ready") continue;
      const { availableAt } = await queue.get(poison);
      expect(await queue.complete(claim)).toBe(1);
      expect(await queue.get(poison)).toMatchObject({ state: "completed", availableAt });
    }
    expect(await queue.state(poison)).toBe("completed");
  });

  test("by jitter end anywhere from half of the time to all of it", () => {
    const jitter = { baseMs: 100, factor: 2, maxMs: 1000, jitter: true };
    expect([0, 0.5, 1].map((chance) => restMs(jitter, 2, chance))).toEqual([100, 150, 200]);
    expect(restMs(jitter, 1_000_000, 1)).toBe(1000);
    expect(restMs({ ...jitter, baseMs: 0 }, 1_000_000, 1)).toBe(0);
  });
});

describe("settings", () => {
  test("change by what is given, last over restarts and without batches, and end with the last of them", async () => {
    const queue = new Queue();
    const configure = async (given: object) =>
      (await queue.pawl.call("queue.configure", { queue: "q", ...given })).settings;
    const none = (await queue.pawl.call("queue.settings", { queue: "q" })).settings;
    const { paused, ...others } = none;
    expect(paused).toBe(false);
    expect(new Set(Object.values(others))).toEqual(new Set([null]));
    expect(await configure({ maxAttempts: 3 })).toEqual({ ...none, maxAttempts: 3 });
    const retry = { baseMs: 5, factor: 2, maxMs: 3_600_000, jitter: true };
    expect(await configure({ retry: { baseMs: 5 } })).toEqual({ ...none, retry, maxAttempts: 3 });
    const next = queue.restarted();
    expect((await next.pawl.call("queue.settings", { queue: "q" })).settings).toEqual({
      ...none,
      retry,
      maxAttempts: 3,
    });
    expect((await next.enqueue()).maxAttempts).toBe(3);
    expect((await next.enqueue({ maxAttempts: 0 })).maxAttempts).toBe(0);
    for (const _ of [1, 2]) await next.complete(await next.claim());
    next.time.pass(RETENTION_MS + PRUNE_MS);
    expect(await next.stats()).toMatchObject({ ready: 0, completed: 0 });
    const { settings } = await next.pawl.call("queue.configure", {
      queue: "q",
      retry: null,
      maxAttempts: null,
    });
    expect(settings).toEqual(none);
    expect((await next.pawl.call("queue.stats", {})).queues).toEqual([]);
  });

  test("that fill in what was not given do not make other content of it", async () => {
    const queue = new Queue();
    const first = await queue.enqueue({ sourceKey: "k" });
    await queue.pawl.call("queue.configure", { queue: "q", maxAttempts: 3 });
    expect(await queue.enqueue({ sourceKey: "k" })).toEqual(first);
    for (const other of [{ maxAttempts: 3 }, { retry: {} }]) {
      await expect(queue.enqueue({ sourceKey: "k", ...other })).rejects.toMatchObject({ kind: "conflict" });
    }
  });

  test.each([
    ["what was given", "given ", '[[1],["earliest_safe_boundary","exclusive","never",null,null]]', undefined],
    ["what was given or filled in", "", '[[1],["earliest_safe_boundary","exclusive","never",20]]', 20],
  ])("leave entries of before, of %s, to be compared as before", async (_, prefix, meaning, maxAttempts) => {
    const queue = new Queue();
    const first = await queue.enqueue({ sourceKey: "k", ...(maxAttempts && { maxAttempts }) });
    queue.pawl.close();
    const digest = prefix + digestOfMeaning(meaning);
    changeRows(queue.pawl.path, `UPDATE pawl_batch SET content_digest = '${digest}'`);
    const next = new Queue({ path: queue.pawl.path, time: queue.time });
    expect(await next.enqueue({ sourceKey: "k" })).toEqual(first);
    if (maxAttempts) expect(await next.enqueue({ sourceKey: "k", maxAttempts })).toEqual(first);
    for (const other of [{ maxAttempts: 3 }, { retry: {} }]) {
      await expect(next.enqueue({ sourceKey: "k", ...other })).rejects.toMatchObject({ kind: "conflict" });
    }
  });
});

describe("batches that become available", () => {
  test("does so at its moment, and takes its place by the order of enqueueing", async () => {
    const queue = new Queue();
    const later = await queue.enqueue({ delayMs: 500 });
    const now = await queue.enqueue();
    expect(later).toMatchObject({ state: "scheduled", availableAt: START + 500 });
    expect(now).toMatchObject({ state: "ready", availableAt: START });
    expect((await queue.claim()).batches[0]?.batchId).toBe(now.batchId);
    queue.time.pass(499);
    expect(await queue.tryClaim()).toBeNull();
    queue.time.pass(1);
    const third = await queue.enqueue();
    expect((await queue.claim()).batches[0]?.batchId).toBe(later.batchId);
    expect((await queue.claim()).batches[0]?.batchId).toBe(third.batchId);
  });

  test("in the past is now", async () => {
    const queue = new Queue();
    expect(await queue.enqueue({ availableAt: START - 5000 })).toMatchObject({
      state: "ready",
      availableAt: START,
    });
    expect(await queue.enqueue({ availableAt: START })).toMatchObject({ state: "ready" });
    expect(await queue.enqueue({ delayMs: 0 })).toMatchObject({ state: "ready" });
  });

  test("all at one moment, in bounded steps", async () => {
    const queue = new Queue();
    const batches = Array.from({ length: 1000 }, () => ({ queue: "q", payloads: [1], delayMs: 100 }));
    await queue.pawl.call("queue.enqueueMany", { batches });
    await queue.pawl.call("queue.enqueueMany", { batches: batches.slice(0, 200) });
    expect(await queue.stats()).toMatchObject({ scheduled: 1200, oldestReadyMs: null });
    queue.time.pass(100);
    await queue.settle();
    expect(await queue.stats()).toMatchObject({ scheduled: 0, ready: 1200, oldestReadyMs: 0 });
    queue.time.pass(40);
    expect(await queue.stats()).toMatchObject({ oldestReadyMs: 40 });
  });
});

describe("a claim that waits", () => {
  const wait = (queue: Queue, owner: string, given: Partial<Params<"queue.claim">> = {}, connection = 1) =>
    queue.tryClaim({ waitMs: 60_000, owner, ...given }, connection);

  test.each<[string, (queue: Queue) => Promise<unknown>]>([
    ["an enqueue", (queue) => queue.enqueue()],
    [
      "an enqueueMany",
      (queue) => queue.pawl.call("queue.enqueueMany", { batches: [{ queue: "q", payloads: [1] }] }),
    ],
    [
      "the coming of availableAt",
      async (queue) => {
        await queue.enqueue({ delayMs: 50 });
        queue.time.pass(50);
        await queue.pawl.call("daemon.ping", {});
      },
    ],
  ])("is served by %s", async (_name, act) => {
    const queue = new Queue();
    const waiting = wait(queue, "waiting");
    await act(queue);
    expect((await waiting)?.owner).toBe("waiting");
  });

  test.each<[string, (queue: Queue, held: Claim) => unknown]>([
    ["an abandon", (queue, held) => queue.pawl.call("queue.abandon", proof(held))],
    [
      "an abandon with an error",
      (queue, held) => queue.pawl.call("queue.abandon", { ...proof(held), error: "x", delayMs: 0 }),
    ],
    [
      "the end of a lease",
      (queue) => {
        queue.time.pass(LEASE_MS);
        return queue.pawl.call("daemon.ping", {});
      },
    ],
    ["the end of a connection", (queue) => queue.pawl.disconnect(5)],
  ])("is served by %s", async (_name, act) => {
    const queue = new Queue();
    await queue.enqueue();
    const held = await queue.claim({ releaseOn: "disconnect" }, 5);
    const waiting = wait(queue, "waiting");
    await act(queue, held);
    expect((await waiting)?.owner).toBe("waiting");
  });

  test.each<[string, (batch: Batch) => Params<"queue.retry">]>([
    ["of a batch", ({ batchId }) => ({ batchId })],
    ["of a queue", () => ({ queue: "q" })],
  ])("is served by a retry %s, and not before", async (_name, what) => {
    const queue = new Queue();
    const batch = await queue.enqueue({ maxAttempts: 1 });
    const waiting = wait(queue, "waiting");
    expect(await queue.get(batch)).toMatchObject({ claim: { owner: "waiting" } });
    const again = wait(queue, "again");
    queue.time.pass(LEASE_MS);
    expect(await queue.stats()).toMatchObject({ dead: 1, claimed: 0 });
    await queue.pawl.call("queue.retry", what(batch));
    expect((await again)?.owner).toBe("again");
    expect((await waiting)?.fencingToken).toBe(1);
  });

  test("is served first come first served, and by what the one before gave back", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const holder = await queue.claim();
    const first = wait(queue, "first", { releaseOn: "disconnect" }, 2);
    const second = wait(queue, "second", {}, 3);
    await queue.pawl.call("queue.abandon", proof(holder));
    expect((await first)?.owner).toBe("first");
    queue.pawl.disconnect(2);
    expect((await second)?.owner).toBe("second");
  });

  test("whose connection has closed is passed over", async () => {
    const queue = new Queue();
    void wait(queue, "gone", {}, 2);
    const second = wait(queue, "second", {}, 3);
    await queue.pawl.call("daemon.ping", {});
    queue.pawl.disconnect(2);
    await queue.enqueue();
    expect((await second)?.owner).toBe("second");
  });

  test("at a boundary where it cannot be met does not hold up those behind it", async () => {
    const queue = new Queue();
    const boundary = "active_turn_checkpoint";
    const atCheckpoint = [
      wait(queue, "checkpoint 1", { boundary }),
      wait(queue, "checkpoint 2", { boundary }),
    ];
    const idle = wait(queue, "idle");
    await queue.enqueue({ deliveryPolicy: "after_current_turn_commit" });
    expect((await idle)?.owner).toBe("idle");
    await queue.enqueue();
    expect((await atCheckpoint[0])?.owner).toBe("checkpoint 1");
    await queue.enqueue();
    expect((await atCheckpoint[1])?.owner).toBe("checkpoint 2");
  });

  test("at a checkpoint is served when the head that it had to wait behind is claimed", async () => {
    const queue = new Queue();
    const boundary = "active_turn_checkpoint";
    await queue.enqueue({ deliveryPolicy: "after_current_turn_commit", payloads: ["gated"] });
    await queue.enqueue({ payloads: ["behind"] });
    const atCheckpoint = wait(queue, "checkpoint", { boundary });
    expect((await queue.claim()).batches[0]?.payloads).toEqual(["gated"]);
    expect((await atCheckpoint)?.batches[0]?.payloads).toEqual(["behind"]);
  });

  const gated = { deliveryPolicy: "after_current_turn_commit", sourceKey: "s" } as const;

  test.each<[string, (queue: Queue, head: Batch) => Promise<unknown>]>([
    ["moved", ({ pawl }, { batchId }) => pawl.call("queue.move", { batchIds: [batchId], to: "r" })],
    ["purged", ({ pawl }, { batchId }) => pawl.call("queue.purge", { batchIds: [batchId] })],
    ["cancelled", ({ pawl }, { batchId }) => pawl.call("queue.cancel", { batchId })],
    [
      "put off",
      ({ pawl, time }, { batchId }) =>
        pawl.call("queue.update", { batchId, availableAt: time.wall() + LEASE_MS }),
    ],
    [
      "replaced by what comes later",
      (queue) => queue.enqueue({ ...gated, onExisting: "replace", delayMs: LEASE_MS }),
    ],
    [
      "replaced by what waits for another",
      async (queue) => {
        const { batchId } = await queue.enqueue({ queue: "r" });
        await queue.enqueue({ ...gated, onExisting: "replace", after: [batchId] });
      },
    ],
    [
      "expired",
      async ({ pawl, time }) => {
        time.pass(2 * LEASE_MS);
        await pawl.call("daemon.ping", {});
      },
    ],
  ])("at a checkpoint is served when the head that it had to wait behind is %s", async (_, act) => {
    const queue = new Queue();
    const head = await queue.enqueue({ ...gated, ttlMs: 2 * LEASE_MS });
    await queue.enqueue({ payloads: ["behind"] });
    const atCheckpoint = wait(queue, "checkpoint", { boundary: "active_turn_checkpoint" });
    expect(await queue.stats()).toMatchObject({ ready: 2 });
    await act(queue, head);
    expect((await atCheckpoint)?.batches[0]?.payloads).toEqual(["behind"]);
  });

  test("at a checkpoint is served when the head that it had to wait behind is completed late", async () => {
    const queue = new Queue();
    await queue.enqueue({ deliveryPolicy: "after_current_turn_commit" });
    await queue.enqueue({ payloads: ["behind"] });
    const late = await queue.claim();
    await queue.claim();
    queue.time.pass(LEASE_MS);
    const atCheckpoint = wait(queue, "checkpoint", { boundary: "active_turn_checkpoint" });
    expect(await queue.stats()).toMatchObject({ ready: 2 });
    await queue.complete(late);
    expect((await atCheckpoint)?.batches[0]?.payloads).toEqual(["behind"]);
  });

  test("beside many others gets its own batch of an enqueueMany, in the order they came", async () => {
    const queue = new Queue();
    const waiting = Array.from({ length: 20 }, (_, index) => wait(queue, String(index)));
    const { batches } = await queue.pawl.call("queue.enqueueMany", {
      batches: waiting.map((_, index) => ({ queue: "q", payloads: [index] })),
    });
    const claims = await Promise.all(waiting);
    expect(claims.map((claim) => claim?.owner)).toEqual(batches.map((_, index) => String(index)));
    expect(claims.map((claim) => claim?.batches[0]?.batchId)).toEqual(batches.map(({ batchId }) => batchId));
    expect(claims.map((claim) => claim?.fencingToken)).toEqual(batches.map((_, index) => index + 1));
  });
});

describe("claims that end with their connection", () => {
  test("all of them end, and others do not", async () => {
    const queue = new Queue();
    for (let count = 0; count < 4; count += 1) await queue.enqueue();
    await queue.claim({ releaseOn: "disconnect" }, 1);
    await queue.claim({ releaseOn: "disconnect" }, 2);
    await queue.claim({ releaseOn: "disconnect" }, 1);
    await queue.claim({ releaseOn: "expiry" }, 1);
    queue.pawl.disconnect(1);
    expect(await queue.stats()).toMatchObject({ ready: 2, claimed: 2 });
  });

  test("more of them than one step takes all end too", async () => {
    const queue = new Queue();
    const batches = Array.from({ length: 700 }, () => ({ queue: "q", payloads: [1] }));
    await queue.pawl.call("queue.enqueueMany", { batches });
    await together(700, () => queue.claim({ releaseOn: "disconnect" }, 5));
    queue.pawl.disconnect(5);
    await queue.settle();
    expect(await queue.stats()).toMatchObject({ ready: 700, claimed: 0 });
  });

  test("never outlive their lease", async () => {
    const queue = new Queue();
    await queue.enqueue();
    await queue.claim({ releaseOn: "disconnect" }, 5);
    queue.time.pass(LEASE_MS);
    expect(await queue.stats()).toMatchObject({ ready: 1, claimed: 0 });
  });

  test("stay with their connection when another renews them", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim({ releaseOn: "disconnect" }, 5);
    await queue.pawl.call("queue.renew", proof(claim), 6);
    queue.pawl.disconnect(6);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.pawl.disconnect(5);
    expect(await queue.stats()).toMatchObject({ claimed: 0 });
  });
});

describe("a restart of the daemon", () => {
  test("claims survive it: they are renewed and completed as before", async () => {
    const queue = new Queue();
    await queue.enqueue();
    await queue.enqueue();
    const claims = [await queue.claim(), await queue.claim()];
    const after = queue.restarted();
    expect(await after.stats()).toMatchObject({ claimed: 2 });
    expect(await after.pawl.call("queue.renew", proof(claims[0] as Claim))).toMatchObject({
      remainingMs: LEASE_MS,
    });
    expect(await after.complete(claims[1] as Claim)).toBe(1);
    expect(await after.restarted().complete(claims[1] as Claim)).toBe(1);
  });

  test.each([
    ["long lease has its grace after each", 60_000, GRACE_MS],
    ["short lease ends with that, however often it is restarted", 2000, 2000 - 2 * 500],
  ])("a claim bound to its connection, with a %s", async (_name, leaseMs, leftMs) => {
    let queue = new Queue();
    await queue.enqueue();
    await queue.claim({ releaseOn: "disconnect", leaseMs });
    for (let restart = 0; restart < 3; restart += 1) {
      if (restart > 0) queue.time.pass(500);
      queue = queue.restarted();
    }
    queue.time.pass(leftMs - 1);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.time.pass(1);
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1 });
  });

  test("the rest after several restarts is moved with the clock", async () => {
    let queue = new Queue();
    await queue.enqueue();
    await queue.claim({ releaseOn: "disconnect", leaseMs: 8000 });
    queue = queue.restarted();
    queue.time.step(3_600_000);
    await queue.stats();
    queue = queue.restarted();
    queue.time.pass(4000);
    await queue.stats();
    queue = queue.restarted();
    queue.time.pass(3999);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.time.pass(1);
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1 });
  });

  test("the connection that renews it then is the one whose end ends it", async () => {
    let queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim({ releaseOn: "disconnect", leaseMs: 60_000 }, 5);
    queue = queue.restarted();
    // The number of the connection in the former life says nothing in this one.
    queue.pawl.disconnect(5);
    const renewed = await queue.pawl.call("queue.renew", proof(claim), 8);
    expect(renewed).toMatchObject({ remainingMs: 60_000 });
    queue.time.pass(GRACE_MS + 1);
    expect(await queue.stats()).toMatchObject({ claimed: 1 });
    queue.pawl.disconnect(8);
    expect(await queue.stats()).toMatchObject({ claimed: 0, ready: 1 });
  });

  test("the secret that tokens are derived with belongs to the database", async () => {
    const queue = new Queue();
    await queue.enqueue();
    const claim = await queue.claim();
    const other = new Queue();
    await other.enqueue();
    const foreign = await other.claim();
    expect(foreign.claimId).toBe(claim.claimId);
    expect(foreign.leaseToken).not.toBe(claim.leaseToken);
    await expectLost(other.complete(claim));
    expect(await other.complete(foreign)).toBe(1);
  });
});

describe("fencing", () => {
  test("tokens rise with every claim of a queue, whatever happens to batches", async () => {
    let queue = new Queue();
    let last = 0;
    const expectHigher = async () => {
      const { fencingToken } = await queue.claim();
      expect(fencingToken).toBeGreaterThan(last);
      last = fencingToken;
    };
    await queue.enqueue();
    await queue.enqueue();
    await expectHigher();
    await expectHigher();
    queue.time.pass(LEASE_MS);
    await expectHigher();
    queue = queue.restarted();
    await expectHigher();
    expect(last).toBe(4);
  });

  test("also after all of its batches have gone, and the queue with them", async () => {
    const queue = new Queue();
    await queue.enqueue();
    await queue.enqueue({ queue: "other" });
    await queue.complete(await queue.claim());
    await queue.enqueue();
    const claim = await queue.claim();
    await queue.complete(claim);
    queue.time.pass(RETENTION_MS + PRUNE_MS);
    await queue.settle();
    expect(await queue.pawl.call("queue.stats", {})).toMatchObject({ queues: [{ queue: "other" }] });
    await queue.enqueue();
    const next = await queue.claim();
    expect(next.fencingToken).toBeGreaterThan(claim.fencingToken);
    expect(next.batches[0]?.enqueueSeq).toBeGreaterThan(claim.batches[0]?.enqueueSeq as number);
    await expectLost(queue.complete(claim));
  });
});

describe("batches that have ended", () => {
  test("is kept for the time of retention, and its sourceKey with it", async () => {
    const queue = new Queue();
    const key = { sourceKey: "k", payloads: [{ a: 1 }] };
    const batch = await queue.enqueue(key);
    const claim = await queue.claim();
    await queue.complete(claim);
    queue.time.pass(RETENTION_MS - 1);
    expect(await queue.enqueue(key)).toMatchObject({ batchId: batch.batchId, state: "completed" });
    expect(await queue.complete(claim)).toBe(1);
    queue.time.pass(1);
    // From the exact moment on the key is free, though the batch is removed only with others.
    const next = await queue.enqueue(key);
    expect(next.batchId).not.toBe(batch.batchId);
    expect(next.enqueueSeq).toBeGreaterThan(batch.enqueueSeq);
    expect(await queue.stats()).toMatchObject({ ready: 1, completed: 0 });
  });

  test("frees its key for other content too, also in an enqueueMany", async () => {
    const queue = new Queue();
    await queue.pawl.call("queue.cancel", { batchId: (await queue.enqueue({ sourceKey: "k" })).batchId });
    await queue.complete((await queue.enqueue({ sourceKey: "l" })) && (await queue.claim()));
    queue.time.pass(RETENTION_MS);
    const { created } = await queue.pawl.call("queue.enqueueMany", {
      batches: [
        { queue: "q", payloads: [2], sourceKey: "k" },
        { queue: "q", payloads: [3], sourceKey: "l" },
        { queue: "q", payloads: [2], sourceKey: "k" },
      ],
    });
    expect(created).toEqual([true, true, false]);
    expect(await queue.stats()).toMatchObject({ ready: 2, completed: 0, cancelled: 0 });
  });

  test("is removed in small steps, with its payloads, and what has not ended stays", async () => {
    const queue = new Queue();
    const long = "x".repeat(5000);
    await queue.enqueue({ payloads: [long] });
    await queue.enqueue({ payloads: [long], maxAttempts: 1 });
    await together(250, (index) => queue.enqueue({ payloads: [index % 2 ? long : 1] }));
    await queue.complete(await queue.claim());
    await queue.pawl.call("queue.abandon", { ...proof(await queue.claim()), error: "dead" });
    const held = await queue.claim({ leaseMs: 86_400_000 });
    const done = await together(240, async () => queue.complete(await queue.claim()));
    expect(done).toEqual(done.map(() => 1));
    queue.time.pass(RETENTION_MS + PRUNE_MS);
    const { completed } = await queue.stats();
    expect(completed).toBeGreaterThan(0);
    expect(completed).toBeLessThan(241);
    await queue.settle();
    expect(await queue.stats()).toMatchObject({ completed: 0, dead: 1, claimed: 0, ready: 10 });
    await expectLost(queue.pawl.call("queue.renew", proof(held)));
    const count = (table: string) => rowsOf(queue.pawl.path, `SELECT count(*) AS n FROM ${table}`)[0]?.n;
    expect(count("pawl_batch")).toBe(11);
    // The dead one, and every second of those that are ready.
    expect(count("pawl_batch_payloads")).toBe(6);
  });
});

test("a purge that asks for no age removes what was enqueued before the clock was set back, too", async () => {
  const queue = new Queue();
  await queue.enqueue();
  const { batch } = await queue.pawl.call("queue.enqueue", { queue: "q", payloads: [2] });
  queue.time.step(-3_600_000);
  expect(await queue.pawl.call("queue.purge", { batchIds: [batch.batchId] })).toMatchObject({ purged: 1 });
  expect(await queue.pawl.call("queue.purge", { queue: "q", states: ["ready"] })).toMatchObject({
    purged: 1,
  });
});

test("a batch that keeps its time, since when its new ttl is over, is expired at once, and given to nobody", async () => {
  const clocks = new Clocks();
  const pawl = new InProcess({ time: clocks });
  const kept = { queue: "q", sourceKey: "k", onExisting: "keepTime" } as const;
  await pawl.call("queue.enqueue", { ...kept, payloads: [1], deliveryPolicy: "after_current_turn_commit" });
  const waiting = { queue: "q", owner: "w", boundary: "active_turn_checkpoint", waitMs: 60_000 } as const;
  const claiming = pawl.call("queue.claim", waiting, 2);
  clocks.pass(100);
  const { batch, outcome } = await pawl.call("queue.enqueue", { ...kept, payloads: [2], ttlMs: 90 });
  expect([outcome, batch.state]).toEqual(["kept", "expired"]);
  const { batch: next } = await pawl.call("queue.enqueue", { queue: "q", payloads: [3] });
  expect((await claiming).claim?.batches.map(({ batchId }) => batchId)).toEqual([next.batchId]);
});
