// A transaction of several calls whose store fails at each of its statements: all of it is there afterwards, or
// nothing. (That it is so when the daemon is killed there: test/integration/transact-killed.test.ts.)
import type { Params } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { contentOf, InProcess } from "../in-process.js";

/** Steps of a turn at which the store can fail: each statement, before and after it, and the ends. */
type Fault = (step: { number: number; name: string }) => void;

/** A store that tells of each step before it is done and after it was done, so that either can fail. */
class FaultyStore implements Store {
  readonly #inner: Store;
  #step = 0;
  fault: Fault | undefined;

  constructor(inner: Store) {
    this.#inner = inner;
  }

  #at(name: string): void {
    this.#step += 1;
    this.fault?.({ number: this.#step, name });
  }
  /** Counts from 1 again. */
  reset(fault: Fault | undefined): void {
    this.#step = 0;
    this.fault = fault;
  }

  *#watched<T>(operation: Operation<T>): Operation<T> {
    let step = operation.next();
    while (!step.done) {
      const { sql } = step.value.statement;
      this.#at(`before ${sql}`);
      const rows = yield step.value;
      this.#at(`after ${sql}`);
      step = operation.next(rows);
    }
    return step.value;
  }

  beginToRead(): void {
    this.#inner.beginToRead();
  }

  begin(): void {
    this.#at("before begin");
    this.#inner.begin();
    this.#at("after begin");
  }
  get wrote(): boolean {
    return this.#inner.wrote;
  }
  commit(): void {
    this.#at("before commit");
    this.#inner.commit();
  }
  perform<T>(operation: Operation<T>): T {
    return this.#inner.perform(this.#watched(operation));
  }
  performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): T {
    const outcome = this.#inner.performOrUndo(this.#watched(operation), isToUndo);
    this.#at("after the operation");
    return outcome;
  }
  rollback(): void {
    this.#inner.rollback();
  }
  get writer(): Store["writer"] {
    return this.#inner.writer;
  }
}

interface Scene {
  pawl: InProcess;
  store: FaultyStore;
  /** Takes an id, writes under it, and completes the claimed batch, guarded by the lease and the claim. */
  params: Params<"transact">;
  claim: { claimId: string; leaseToken: string };
}

/** A lease and a claim are held; what the transaction is to do has not been done. */
async function setUp(): Promise<Scene> {
  let store: FaultyStore | undefined;
  const pawl = new InProcess({
    wrap: (inner) => {
      store = new FaultyStore(inner);
      return store;
    },
  });
  const { lease } = await pawl.call("lease.acquire", { name: "board", owner: "worker", ttlMs: 600_000 });
  await pawl.call("queue.enqueue", { queue: "work", payloads: [{ task: 1 }] });
  const { claim } = await pawl.call("queue.claim", { queue: "work", owner: "worker", leaseMs: 600_000 });
  if (claim === null) throw new Error("nothing to claim");
  const { claimId, leaseToken } = claim;
  const params = {
    guards: [
      { lease: { name: "board", fencingToken: lease.fencingToken } },
      { claim: { claimId, leaseToken } },
    ],
    calls: [
      { method: "sequence.next", params: { type: "FR", requestId: "once" } },
      {
        method: "queue.enqueue",
        params: { queue: "items", payloads: [{ id: { $result: "/0/id" }, text: "1.0" }], sourceKey: "item" },
      },
      { method: "queue.complete", params: { claimId, leaseToken } },
    ],
  };
  return { pawl, store: store as unknown as FaultyStore, params, claim: { claimId, leaseToken } };
}

/** The rows that the transaction leaves when nothing fails, and at how many steps it could. */
async function withoutFault(): Promise<{ steps: string[] }> {
  const { pawl, store, params } = await setUp();
  const steps: string[] = [];
  store.reset(({ name }) => void steps.push(name));
  await pawl.call("transact", params);
  return { steps };
}

async function expectDone({ pawl }: Scene): Promise<void> {
  expect((await pawl.call("sequence.state", {})).sequences).toEqual({ FR: 1 });
  const { batches } = await pawl.call("queue.list", { queue: "items" });
  expect(batches).toMatchObject([{ state: "ready", payloads: [{ id: "FR-001", text: "1.0" }] }]);
  const { batches: work } = await pawl.call("queue.list", { queue: "work" });
  expect(work).toMatchObject([{ state: "completed" }]);
}

/** Each step is one of a daemon and a database of its own: over PostgreSQL, on a busy machine, four seconds. */
const EACH_STEP_MS = 600_000;

describe("the store fails at each step", { timeout: EACH_STEP_MS }, () => {
  test("every time: nothing is there, the caller is told, and it can be done afterwards", async () => {
    const { steps } = await withoutFault();
    // Ten or more statements, each before and after; fewer would mean that the test is not at the calls.
    expect(steps.length).toBeGreaterThan(25);
    for (const [index, name] of steps.entries()) {
      const scene = await setUp();
      const { pawl, store, params } = scene;
      const before = contentOf(pawl.path);
      const failAt = index + 1;
      // The turn is tried as a whole and then call by call: both fail at this step.
      let begun = 0;
      store.reset((step) => {
        if (step.name === "before begin") begun = step.number - 1;
        if (step.number - begun === failAt) throw new Error(`injected at ${name}`);
      });
      await expect(pawl.call("transact", params), name).rejects.toMatchObject({ kind: "internal" });
      expect(contentOf(pawl.path), name).toEqual(before);
      store.reset(undefined);
      await pawl.call("transact", params);
      await expectDone(scene);
      pawl.close();
    }
  });

  test("once: it is done again, once, and then all is there", async () => {
    const { steps } = await withoutFault();
    for (const [index, name] of steps.entries()) {
      const scene = await setUp();
      const { pawl, store, params } = scene;
      store.reset((step) => {
        if (step.number === index + 1) throw new Error(`injected at ${name}`);
      });
      const { results } = await pawl.call("transact", params);
      expect(results, name).toMatchObject([{ id: "FR-001" }, { created: true }, { completed: 1 }]);
      expect(pawl.rolledBack.length).toBe(1);
      await expectDone(scene);
      pawl.close();
    }
  });

  test("with others in its turn: they are done, and it is not", async () => {
    const { pawl, store, params } = await setUp();
    store.reset(({ name }) => {
      if (/^after\s+INSERT INTO pawl_batch/.test(name)) throw new Error("injected");
    });
    const outcomes = await Promise.allSettled([
      pawl.call("sequence.next", { type: "A" }),
      pawl.call("transact", params),
      pawl.call("sequence.next", { type: "A" }),
      pawl.call("lease.get", { name: "board" }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
    store.reset(undefined);
    expect((await pawl.call("sequence.state", {})).sequences).toEqual({ A: 2 });
    expect((await pawl.call("queue.list", { queue: "items" })).batches).toEqual([]);
  });
});

describe("a guard that no longer holds", () => {
  test.each([
    ["the lease was broken", "lease_lost"],
    ["the claim was given back", "claim_lost"],
    ["both", "lease_lost"],
  ])("%s: nothing is there", async (what, kind) => {
    const { pawl, params, claim } = await setUp();
    if (what !== "the claim was given back")
      await pawl.call("lease.break", { name: "board", reason: "test" });
    if (what !== "the lease was broken") await pawl.call("queue.abandon", claim);
    const before = contentOf(pawl.path);
    await expect(pawl.call("transact", params)).rejects.toMatchObject({ kind });
    expect(contentOf(pawl.path)).toEqual(before);
  });

  test("a call that is refused after others have written undoes them", async () => {
    const { pawl, params } = await setUp();
    const before = contentOf(pawl.path);
    const calls = [...params.calls, { method: "sequence.parse", params: { id: "no id" } }];
    await expect(pawl.call("transact", { ...params, calls })).rejects.toMatchObject({
      kind: "invalid_params",
      details: { index: 3 },
    });
    expect(contentOf(pawl.path)).toEqual(before);
  });
});
