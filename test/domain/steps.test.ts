// Calls that are done in steps: each step is committed, others are served meanwhile, and the answer tells of all.
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import type { Store } from "../../daemon/dist/store/store.js";
import { InProcess } from "../in-process.js";

/** Dead batches in the queue `q`. */
async function die(pawl: InProcess, batches: number): Promise<void> {
  const each = {
    queue: "q",
    payloads: [1],
    maxAttempts: 1,
    slotPolicy: "join",
    mergeKey: "payload_default",
  } as const;
  await pawl.call("queue.enqueueMany", { batches: new Array(batches).fill(each) });
  const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "o", maxBatches: 1000 });
  if (claim === null) throw new Error("nothing was claimed");
  const { claimId, leaseToken } = claim;
  expect(await pawl.call("queue.abandon", { claimId, leaseToken, error: "no" })).toEqual({
    released: 0,
    dead: batches,
  });
}

function ready(path: string): number {
  const database = new Database(path, { readonly: true });
  const count = database
    .prepare("SELECT count(*) FROM pawl_batch WHERE state = 'ready'")
    .pluck()
    .get() as number;
  database.close();
  return count;
}

test("steps are committed one by one, others come between them, and later calls of the connection come after", async () => {
  const pawl = new InProcess();
  await die(pawl, 600);
  const order: string[] = [];
  const done = <T>(name: string, answer: Promise<T>): Promise<T> =>
    answer.then((result) => {
      order.push(name);
      return result;
    });
  const retried = done("retry", pawl.call("queue.retry", { queue: "q" }, 1));
  const behind = done("behind", pawl.call("queue.stats", { queue: "q" }, 1));
  const other = done("other", pawl.call("queue.stats", { queue: "q" }, 2));
  const seen = (await other).queues[0]?.ready as number;
  expect(seen).toBeGreaterThan(0);
  expect(seen).toBeLessThan(600);
  expect(ready(pawl.path)).toBe(seen);
  expect(await retried).toEqual({ retried: 600 });
  expect((await behind).queues[0]).toMatchObject({ ready: 600, dead: 0 });
  expect(order).toEqual(["other", "retry", "behind"]);
});

test("in transact one step is done, which says that there is more", async () => {
  const pawl = new InProcess();
  await die(pawl, 600);
  const calls = [{ method: "queue.retry", params: { queue: "q" } }];
  const { results } = await pawl.call("transact", { calls });
  expect(results).toEqual([{ retried: expect.any(Number), more: true }]);
  expect(ready(pawl.path)).toBe((results[0] as { retried: number }).retried);
});

/** The commits of turns that write fail while `failures` is above 0, each once. */
function withFailingCommits(): { pawl: InProcess; fail: (times: number) => void } {
  let failures = 0;
  const commit = (store: Store): void => {
    if (!store.wrote || failures === 0) return store.commit();
    failures -= 1;
    throw new Error("no commit");
  };
  const wrap = (store: Store): Store =>
    new Proxy(store, {
      get(target, name: keyof Store) {
        const value = target[name];
        if (typeof value !== "function") return value;
        return name === "commit" ? () => commit(target) : value.bind(target);
      },
    });
  const fail = (times: number): void => {
    failures = times;
  };
  return { pawl: new InProcess({ wrap }), fail };
}

test("a turn that fails is performed again with the step that it had, and no step is done twice", async () => {
  const { pawl, fail } = withFailingCommits();
  await die(pawl, 600);
  fail(1);
  const retried = pawl.call("queue.retry", { queue: "q" }, 1);
  const behind = pawl.call("queue.stats", { queue: "q" }, 1);
  expect(await retried).toEqual({ retried: 600 });
  expect((await behind).queues[0]).toMatchObject({ ready: 600, dead: 0 });
  expect(pawl.rolledBack).toHaveLength(1);
});

test("a step that fails by itself too is the answer, and another call does the rest", async () => {
  const { pawl, fail } = withFailingCommits();
  await die(pawl, 600);
  fail(2);
  await expect(pawl.call("queue.retry", { queue: "q" })).rejects.toMatchObject({ kind: "internal" });
  expect(await pawl.call("queue.retry", { queue: "q" })).toEqual({ retried: 600 });
});
