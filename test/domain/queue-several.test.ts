// Claims of several queues: which batch comes first, who waits for which, and what it costs.
import type { Params, Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import { PREFIX_KEPT_MS } from "../../daemon/dist/domain/queue/listing.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

/** A daemon, and how many statements about queues its operations have made. */
class Queues {
  readonly pawl: InProcess;
  statements = 0;

  constructor(path?: string, time?: TimeSource) {
    const wrap = (store: Store): Store =>
      new Proxy(store, {
        get: (target, name) => {
          const value: unknown = Reflect.get(target, name, target);
          if (name !== "perform" && name !== "performOrUndo") {
            return typeof value === "function" ? value.bind(target) : value;
          }
          return (operation: Generator<unknown, unknown, unknown>, ...rest: unknown[]) =>
            (value as (...args: unknown[]) => unknown).call(target, this.#counted(operation), ...rest);
        },
      });
    this.pawl = new InProcess({ ...(path === undefined ? {} : { path }), ...(time && { time }), wrap });
  }

  *#counted(operation: Generator<unknown, unknown, unknown>): Generator<unknown, unknown, unknown> {
    for (let step = operation.next(); ; ) {
      if (step.done) return step.value;
      // The time is kept now and then, whatever is asked.
      const { statement } = step.value as { statement: { sql: string } };
      if (/pawl_(batch|queue)/.test(statement.sql)) this.statements += 1;
      step = operation.next(yield step.value);
    }
  }

  async enqueue(queue: string, given: Partial<Params<"queue.enqueue">> = {}): Promise<string> {
    return (await this.pawl.call("queue.enqueue", { queue, payloads: [1], ...given })).batch.batchId;
  }

  async fill(count: number, name: (index: number) => string, payload: unknown = 1): Promise<void> {
    const batches = Array.from({ length: count }, (_, index) => ({
      queue: name(index),
      payloads: [payload],
    }));
    await this.pawl.call("queue.enqueueMany", { batches });
  }

  async claim(queues: string[], given: Partial<Params<"queue.claim">> = {}): Promise<Claim | null> {
    return (await this.pawl.call("queue.claim", { queues, owner: "w", ...given }, 1)).claim;
  }

  /** The queue that a claim is of, and the payloads of it. */
  async next(queues: string[], given: Partial<Params<"queue.claim">> = {}): Promise<unknown> {
    const claim = await this.claim(queues, given);
    return claim === null ? null : claim.queue;
  }

  /** Starts to wait. */
  async waiting(params: Partial<Params<"queue.claim">>): Promise<{ claimed: Promise<string | undefined> }> {
    const claimed = this.pawl
      .call("queue.claim", { owner: "w", waitMs: 60_000, ...params })
      .then(({ claim }) => claim?.queue);
    claimed.catch(() => {});
    await this.pawl.call("daemon.ping", {});
    return { claimed };
  }

  /** How many statements something takes. */
  async cost(what: () => Promise<unknown>): Promise<number> {
    const before = this.statements;
    await what();
    return this.statements - before;
  }

  configure(queue: string, given: Omit<Params<"queue.configure">, "queue">): Promise<unknown> {
    return this.pawl.call("queue.configure", { queue, ...given });
  }
}

/** Calls that share a turn. */
function times<T>(count: number, call: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => call(index)));
}

describe("the order of several queues", () => {
  test("is that of the list, and within a prefix that of priority, then of arrival", async () => {
    const queues = new Queues();
    await queues.enqueue("b/1");
    await queues.enqueue("b/2", { priority: 5 });
    await queues.enqueue("b/deep/3");
    await queues.enqueue("a");
    await queues.enqueue("bb");
    await queues.enqueue("b");
    const all = ["none", "a", "b/*"];
    expect([await queues.next(all), await queues.next(all), await queues.next(all)]).toEqual([
      "a",
      "b/2",
      "b/1",
    ]);
    expect(await queues.next(["b/deep/*", "b/*"])).toBe("b/deep/3");
    expect(await queues.next(all)).toBeNull();
    // What comes while they are listed is found, also in queues that are made then.
    await queues.enqueue("b/new/1");
    await queues.enqueue("b/1");
    expect([await queues.next(all), await queues.next(all)]).toEqual(["b/new/1", "b/1"]);
  });

  test("oldest is that of priority and arrival over all of them", async () => {
    const queues = new Queues();
    for (const queue of ["x", "p/1", "y", "p/2"]) await queues.enqueue(queue);
    await queues.enqueue("y", { priority: 1 });
    const all = ["y", "x", "p/*"];
    const taken = [];
    for (let count = 0; count < 6; count += 1) taken.push(await queues.next(all, { order: "oldest" }));
    expect(taken).toEqual(["y", "x", "p/1", "y", "p/2", null]);
  });

  test("passes over what is empty, paused, throttled, full, over its rate, or held up by keys", async () => {
    const queues = new Queues();
    for (const name of ["paused", "throttled", "full", "rate", "key", "strict", "open"]) {
      await queues.enqueue(`p/${name}`, { key: "k" });
      await queues.enqueue(`p/${name}`, { key: "k" });
    }
    await queues.configure("p/full", { maxClaimed: 1 });
    await queues.configure("p/rate", { rate: { count: 1, perMs: 3_600_000 } });
    await queues.configure("p/key", { maxClaimedPerKey: 1 });
    await queues.configure("p/strict", { keyOrder: "strict" });
    // The claims that close them are found by the same list.
    expect(await queues.next(["p/*"])).toBe("p/paused");
    await queues.configure("p/paused", { paused: true });
    await queues.pawl.call("queue.throttle", { queue: "p/throttled", delayMs: 3_600_000 });
    for (const name of ["full", "rate", "key", "strict", "open", "open"]) {
      expect(await queues.next(["p/*"])).toBe(`p/${name}`);
    }
    expect(await queues.next(["p/*"])).toBeNull();
    await queues.configure("p/paused", { paused: false });
    expect(await queues.next(["p/*"])).toBe("p/paused");
    await queues.configure("p/full", { maxClaimed: 2 });
    expect(await queues.next(["p/*"], { order: "oldest" })).toBe("p/full");
  });

  test("has each queue stop at its own boundary", async () => {
    const queues = new Queues();
    await queues.enqueue("p/1", { deliveryPolicy: "after_current_turn_commit" });
    await queues.enqueue("p/1");
    await queues.enqueue("p/2");
    const boundary = "active_turn_checkpoint" as const;
    expect(await queues.next(["p/*"], { boundary })).toBe("p/2");
    expect(await queues.next(["p/*"], { boundary })).toBeNull();
    expect(await queues.next(["p/*"])).toBe("p/1");
    expect(await queues.next(["p/*"], { boundary })).toBe("p/1");
  });

  test("goes on over a restart, moves, purges, priorities and new content", async () => {
    const queues = new Queues();
    const first = await queues.enqueue("p/1", { sourceKey: "k" });
    await queues.enqueue("p/2");
    expect(await queues.next(["p/none/*", "p/*"])).toBe("p/1");
    const second = await queues.enqueue("p/2");
    queues.pawl.close();
    const again = new Queues(queues.pawl.path);
    await again.pawl.call("queue.move", { batchIds: [second], to: "p/0" });
    await again.pawl.call("queue.update", { batchId: second, priority: 3 });
    expect(await again.next(["p/*"])).toBe("p/0");
    await again.pawl.call("queue.purge", { queue: "p/2", states: ["ready"] });
    expect(await again.next(["p/*"])).toBeNull();
    await again.enqueue("p/3", { sourceKey: "r", deliveryPolicy: "after_current_turn_commit" });
    await again.enqueue("p/3", { sourceKey: "r", onExisting: "replace", priority: -1 });
    expect(await again.next(["p/*"], { boundary: "active_turn_checkpoint" })).toBe("p/3");
    expect(first).toMatch(/^qwb:/);
  });

  test("takes a group of one queue, in a transaction too, and an undone one leaves the list as it was", async () => {
    const queues = new Queues();
    const join = { slotPolicy: "join", mergeKey: "payload_default" } as const;
    for (const queue of ["p/1", "p/2", "p/1"]) await queues.enqueue(queue, join);
    const params = { queues: ["p/*"], owner: "w", maxBatches: 5 };
    const claimCall = { method: "queue.claim", params } as const;
    const wrong = { method: "queue.complete", params: { claimId: "qwc:1:1", leaseToken: "no" } } as const;
    await expect(queues.pawl.call("transact", { calls: [claimCall, wrong] })).rejects.toMatchObject({
      kind: "claim_lost",
    });
    const done = await queues.pawl.call("transact", { calls: [claimCall, claimCall, claimCall] });
    const claims = done.results.map((each) => (each as { claim: Claim | null }).claim);
    expect(claims.map((claim) => claim && [claim.queue, claim.batches.length])).toEqual([
      ["p/1", 2],
      ["p/2", 1],
      null,
    ]);
  });

  test("is refused where it cannot be: no queue, two ways of naming it, an order of one", async () => {
    const queues = new Queues();
    for (const params of [
      {},
      { queue: "q", queues: ["q"] },
      { queues: [] },
      { queue: "q", order: "oldest" },
      { queues: Array.from({ length: 65 }, (_, index) => `q${index}`) },
    ]) {
      const call = queues.pawl.call("queue.claim", { owner: "w", ...params } as Params<"queue.claim">);
      await expect(call).rejects.toMatchObject({ kind: "invalid_params" });
    }
    // A queue is never a prefix.
    await queues.enqueue("p/1");
    expect((await queues.pawl.call("queue.claim", { queue: "p/*", owner: "w" })).claim).toBeNull();
    await queues.enqueue("p/*");
    expect((await queues.pawl.call("queue.claim", { queue: "p/*", owner: "w" })).claim?.queue).toBe("p/*");
  });
});

describe("waiting for several queues", () => {
  test("is in the order of arrival with those who wait for one", async () => {
    const queues = new Queues();
    const both = await queues.waiting({ queues: ["x", "p/*"] });
    const one = await queues.waiting({ queue: "p/1" });
    const prefix = await queues.waiting({ queues: ["p/1", "p/*"] });
    const explained = await queues.pawl.call("queue.explain", { queue: "p/1" });
    expect(explained.waiting).toBe(3);
    await queues.enqueue("p/1");
    expect(await both.claimed).toBe("p/1");
    await queues.enqueue("p/1");
    expect(await one.claimed).toBe("p/1");
    await queues.enqueue("p/sub/2");
    expect(await prefix.claimed).toBe("p/sub/2");
    expect((await queues.pawl.call("queue.explain", { queue: "p/1" })).waiting).toBe(0);
  });

  test("goes on where another boundary is waited for, and ends when a queue opens", async () => {
    const queues = new Queues();
    await queues.configure("p/1", { paused: true });
    const checkpoint = await queues.waiting({ queues: ["p/*"], boundary: "active_turn_checkpoint" });
    const idle = await queues.waiting({ queues: ["p/*"] });
    await queues.enqueue("p/1", { deliveryPolicy: "after_current_turn_commit" });
    await queues.enqueue("p/1");
    await queues.configure("p/1", { paused: false });
    expect(await idle.claimed).toBe("p/1");
    expect(await checkpoint.claimed).toBe("p/1");
  });

  test("is given what is first in its order of all that one call has added, unless another waited for that before", async () => {
    const add = (queues: Queues): Promise<unknown> =>
      queues.pawl.call("queue.enqueueMany", {
        batches: [
          { queue: "p/a", payloads: [1] },
          { queue: "p/b", payloads: [1], priority: 5 },
        ],
      });
    const first = async (...waiting: { queues: string[] }[]): Promise<unknown[]> => {
      const queues = new Queues();
      const claimed = [];
      for (const each of waiting) claimed.push((await queues.waiting(each)).claimed);
      await add(queues);
      return await Promise.all(claimed);
    };
    expect(await first({ queues: ["p/*"] })).toEqual(["p/b"]);
    expect(await first({ queues: ["p/b", "p/a"] })).toEqual(["p/b"]);
    expect(await first({ queues: ["p/a", "p/b"] })).toEqual(["p/a"]);
    expect(await first({ queues: ["p/b"] }, { queues: ["p/*"] })).toEqual(["p/b", "p/a"]);
    expect(await first({ queues: ["x", "p/*"] }, { queues: ["p/*"] })).toEqual(["p/b", "p/a"]);
  });

  test("wakes nobody but the first, whatever it waits for and however many wait", async () => {
    const queues = new Queues(undefined, new Clocks());
    const names = Array.from({ length: 63 }, (_, index) => `other-${index}`);
    const few = await Promise.all(
      Array.from({ length: 3 }, () => queues.waiting({ queues: [...names, "p/*"] })),
    );
    // The last of these has the prefix listed.
    const cost = await queues.cost(() => queues.enqueue("p/1"));
    expect(await few[0]?.claimed).toBe("p/1");
    await times(400, () => queues.waiting({ queues: [...names, "p/*"] }));
    expect(await queues.cost(() => queues.enqueue("p/1"))).toBeLessThanOrEqual(cost);
    await queues.configure("p/1", { paused: true });
    expect(await queues.cost(() => queues.enqueue("p/1"))).toBeLessThanOrEqual(cost);
  });
});

describe("what a claim by prefix costs", () => {
  test("is the same however many queues match and are empty, paused, full or full of keys", async () => {
    const queues = new Queues(undefined, new Clocks());
    await queues.enqueue("few/1");
    await queues.enqueue("few/2");
    await queues.claim(["few/*"]);
    await queues.fill(300, (index) => `many/empty-${index}`);
    await times(300, () => queues.claim(["many/*"]));
    await queues.fill(200, (index) => `many/paused-${index}`);
    await queues.fill(200, (index) => `many/keyed-${index % 100}`);
    await times(200, (index) => queues.configure(`many/paused-${index}`, { paused: true }));
    await times(200, () => queues.claim(["many/*"]));
    await queues.enqueue("many/last");
    const few = await queues.cost(() => queues.claim(["few/*"]));
    const many = await queues.cost(async () => expect(await queues.next(["many/*"])).toBe("many/last"));
    expect(many).toBe(few);
    const none = await queues.cost(async () => expect(await queues.next(["many/*"])).toBeNull());
    expect(none).toBeLessThan(few);
  });

  test("is paid by nobody who does not ask by a prefix", async () => {
    const queues = new Queues();
    await queues.enqueue("p/1");
    await queues.enqueue("q");
    const cycle = async (queue: string): Promise<void> => {
      await queues.enqueue(queue);
      const { claim } = await queues.pawl.call("queue.claim", { queue, owner: "w" });
      const { claimId, leaseToken } = claim as Claim;
      await queues.pawl.call("queue.complete", { claimId, leaseToken });
    };
    expect(await queues.cost(() => cycle("p/1"))).toBe(await queues.cost(() => cycle("q")));
  });

  test("ends a while after the last claim that asked by the prefix, in steps, and a later one lists anew", async () => {
    let passed = 0;
    const queues = new Queues(undefined, {
      boot: "boot",
      wall: () => 1_700_000_000_000 + passed,
      monotonic: () => passed,
      boottime: () => passed,
    });
    // Some more than one step lists, or takes from the list.
    await queues.fill(200, (index) => `p/${index}`);
    await queues.enqueue("p/deep/1");
    const unlisted = await queues.cost(() => queues.enqueue("p/1"));
    const nextAfter = async (ms: number): Promise<unknown> => {
      passed += ms;
      return await queues.next(["p/*"]);
    };
    expect(await nextAfter(0)).toBe("p/0");
    expect(await queues.next(["p/deep/*"])).toBe("p/deep/1");
    const listed = await queues.cost(() => queues.enqueue("p/1"));
    expect(listed).toBeGreaterThan(unlisted);
    // One that is asked for stays, however long that goes on.
    for (let count = 0; count < 3; count += 1) expect(await nextAfter(PREFIX_KEPT_MS - 1)).toMatch(/^p/);
    expect(await queues.cost(() => queues.enqueue("p/1"))).toBe(listed);
    const waiting = await queues.waiting({ queues: ["p/empty/*"] });
    passed += PREFIX_KEPT_MS;
    // Each turn does a step of what has ended.
    for (let count = 0; count < 4; count += 1) await queues.pawl.call("daemon.ping", {});
    for (const name of ["p/1", "p/199", "p/deep/1"]) {
      await queues.enqueue(name);
      expect(await queues.cost(() => queues.enqueue(name))).toBe(unlisted);
    }
    await queues.enqueue("p/empty/1");
    expect(await waiting.claimed).toBe("p/empty/1");
    await queues.enqueue("p/200", { priority: 9 });
    expect(await nextAfter(0)).toBe("p/200");
    expect(await queues.next(["p/deep/*"])).toBe("p/deep/1");
  });

  test("is asked for again while its queues are taken from the list: none is left out", async () => {
    let passed = 0;
    const queues = new Queues(undefined, {
      boot: "boot",
      wall: () => 1_700_000_000_000 + passed,
      monotonic: () => passed,
      boottime: () => passed,
    });
    await queues.fill(400, (index) => `p/${String(index).padStart(3, "0")}`);
    expect(await queues.next(["p/*"])).toBe("p/000");
    passed += PREFIX_KEPT_MS;
    await queues.pawl.call("daemon.ping", {});
    await queues.enqueue("p/0000");
    const taken = new Set<unknown>();
    // The claim of the first one has expired.
    for (let count = 0; count < 401; count += 1) taken.add(await queues.next(["p/*"]));
    expect(taken.size).toBe(401);
    expect(await queues.next(["p/*"])).toBeNull();
  });
});
