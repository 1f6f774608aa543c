// Calls that are done in steps: each step is committed, others are served meanwhile, and the answer tells of all.
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { Store } from "../../daemon/dist/store/store.js";
import { privateDirectory } from "../daemon.js";
import { InProcess, rowsOf } from "../in-process.js";
import { SHARED_URL } from "../postgresql-store.js";

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
  return rowsOf(path, "SELECT count(*) AS n FROM pawl_batch WHERE state = 'ready'")[0]?.n as number;
}

// Where each step asks a server, it takes all the time that a turn has, and others come after all of them.
test.skipIf(SHARED_URL !== undefined)(
  "steps are committed one by one, others come between them, and later calls of the connection come after",
  async () => {
    const pawl = new InProcess();
    await die(pawl, 1000);
    // On a machine where a step takes all the time of a turn, others come after all of them here, too.
    const clock = vi.spyOn(performance, "now").mockReturnValue(performance.now());
    onTestFinished(() => clock.mockRestore());
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
    expect(seen).toBeLessThan(1000);
    expect(ready(pawl.path)).toBe(seen);
    expect(await retried).toEqual({ retried: 1000, more: false });
    expect((await behind).queues[0]).toMatchObject({ ready: 1000, dead: 0 });
    expect(order).toEqual(["other", "retry", "behind"]);
  },
);

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
  expect(await retried).toEqual({ retried: 600, more: false });
  expect((await behind).queues[0]).toMatchObject({ ready: 600, dead: 0 });
  expect(pawl.rolledBack).toHaveLength(1);
});

test("a step that fails by itself too is the answer, and another call does the rest", async () => {
  const { pawl, fail } = withFailingCommits();
  await die(pawl, 600);
  fail(2);
  await expect(pawl.call("queue.retry", { queue: "q" })).rejects.toMatchObject({ kind: "internal" });
  expect(await pawl.call("queue.retry", { queue: "q" })).toEqual({ retried: 600, more: false });
});

test("a list whose steps are done again leaves nothing out", async () => {
  const { pawl, fail } = withFailingCommits();
  const stage = "1_backlog";
  await pawl.call("pipeline.configure", { stages: [{ stage, ready: true }] });
  const write = (storyId: string, agent: string) => pawl.call("pipeline.write", { storyId, stage, agent });
  const many = Array.from({ length: 2300 }, (_, index) => write(`I-${index}`, "many"));
  const few = Array.from({ length: 300 }, (_, index) => `Z-${index}`);
  await Promise.all([...many, ...few.map((storyId) => write(storyId, "few"))]);
  let listed: string[] | undefined;
  void pawl.call("pipeline.ready", { agent: "few", limit: 1000 }, 1).then(({ items }) => {
    listed = items.map(({ storyId }) => storyId);
  });
  while (listed === undefined) {
    fail(1);
    await pawl.call("sequence.next", { type: "FR" }, 2);
  }
  expect(listed.sort()).toEqual(few.sort());
  expect(pawl.rolledBack).not.toEqual([]);
});

test("a claim finds the one item that has all the labels behind any number that have the first", async () => {
  const pawl = new InProcess();
  const stage = "1_backlog";
  await pawl.call("pipeline.configure", { stages: [{ stage, ready: true }] });
  const write = (storyId: string, ...labels: string[]) =>
    pawl.call("pipeline.write", { storyId, stage, labels: { add: labels } });
  await Promise.all(Array.from({ length: 2200 }, (_, index) => write(`I-${index}`, "ui")));
  await write("Z-1", "ui", "urgent");
  const wanted = { agent: "a", labels: ["ui", "urgent"] };
  expect((await pawl.call("pipeline.claim", wanted)).item).toMatchObject({ storyId: "Z-1" });
  expect(await pawl.call("pipeline.claim", wanted)).toMatchObject({ item: null, reason: expect.any(String) });
});

/** Follows `next` and gives the items of all pages, with how many pages there were. */
async function listAll(pawl: InProcess, filter: object): Promise<{ ids: string[]; pages: number }> {
  const ids: string[] = [];
  let [pages, after] = [0, undefined as string | undefined];
  do {
    const page = await pawl.call("pipeline.list", { ...filter, ...(after === undefined ? {} : { after }) });
    ids.push(...Object.values(page.stages).flatMap((items) => items.map(({ storyId }) => storyId)));
    after = page.next;
    pages += 1;
  } while (after !== undefined);
  return { ids, pages };
}

test("a filter that fits few items ends its pages after so many items, and misses none", async () => {
  const pawl = new InProcess();
  const made = Array.from({ length: 2500 }, (_, index) => `I-${String(index).padStart(4, "0")}`);
  await Promise.all(
    made.map((storyId, index) =>
      pawl.call("pipeline.write", {
        storyId,
        stage: index < 1500 ? "1_backlog" : "2_current",
        ...(index % 1200 === 7 ? { agent: "rare", blocked: true } : {}),
      }),
    ),
  );
  const rare = ["I-0007", "I-1207", "I-2407"];
  expect(await listAll(pawl, { agent: "rare" })).toEqual({ ids: rare, pages: 3 });
  expect(await listAll(pawl, { agent: "nosuch" })).toEqual({ ids: [], pages: 3 });
  expect(await listAll(pawl, { blocked: true, stage: "1_backlog" })).toEqual({
    ids: rare.slice(0, 2),
    pages: 2,
  });
  expect(await listAll(pawl, { agent: "rare", limit: 1 })).toEqual({ ids: rare, pages: 3 });
  expect((await listAll(pawl, { blocked: false, limit: 1000 })).ids).toHaveLength(2497);
  expect(await listAll(pawl, { limit: 1000 })).toEqual({ ids: made, pages: 3 });
  expect(await listAll(pawl, { limit: 250 })).toEqual({ ids: made, pages: 10 });
});

/** More than two steps of a list, made in one turn or a few. */
function many(make: (index: number) => Promise<unknown>): Promise<unknown> {
  return Promise.all(Array.from({ length: 600 }, (_, index) => make(index)));
}

/** What is listed, by the method that lists it: made, listed, and a page's rows by what tells them apart. */
const LISTS = {
  "queue.list": {
    make: async (pawl: InProcess) => {
      const batches = Array.from({ length: 600 }, (_, index) => ({ queue: "q", payloads: [index] }));
      await pawl.call("queue.enqueueMany", { batches });
    },
    page: async (pawl: InProcess, limit: number, after?: number) => {
      const page = await pawl.call("queue.list", { queue: "q", limit, ...(after ? { after } : {}) });
      return { rows: page.batches.map(({ batchId }) => batchId), next: page.next };
    },
  },
  "path.list": {
    make: async (pawl: InProcess) => {
      await many((index) => pawl.call("path.reserve", { root: "/r", patterns: [`${index}.ts`], owner: "o" }));
    },
    page: async (pawl: InProcess, limit: number, after?: string) => {
      const page = await pawl.call("path.list", { limit, ...(after ? { after } : {}) });
      return { rows: page.reservations.map(({ patterns }) => String(patterns)), next: page.next };
    },
  },
  "lease.list": {
    make: async (pawl: InProcess) => {
      await many((index) => pawl.call("lease.acquire", { name: `n-${index}`, owner: "o" }));
    },
    page: async (pawl: InProcess, limit: number, after?: string) => {
      const page = await pawl.call("lease.list", { limit, ...(after ? { after } : {}) });
      return { rows: page.leases.map(({ name }) => name), next: page.next };
    },
  },
  "command.list": {
    make: async (pawl: InProcess) => {
      await many(() => pawl.call("command.create", { deployment: "d", command: "c" }));
    },
    page: async (pawl: InProcess, limit: number, after?: string) => {
      const page = await pawl.call("command.list", { limit, ...(after ? { after } : {}) });
      return { rows: page.commands.map(({ commandId }) => commandId), next: page.next };
    },
  },
  "schedule.list": {
    make: async (pawl: InProcess) => {
      const rest = { everyMs: 60_000, queue: "q", payloads: [1], enabled: false };
      await many((index) => pawl.call("schedule.set", { name: `s-${index}`, ...rest }));
    },
    page: async (pawl: InProcess, limit: number, after?: string) => {
      const page = await pawl.call("schedule.list", { limit, ...(after ? { after } : {}) });
      return { rows: page.schedules.map(({ name }) => name), next: page.next };
    },
  },
  "pipeline.list": {
    make: async (pawl: InProcess) => {
      await many((index) =>
        pawl.call("pipeline.write", { storyId: `I-${index}`, stage: index % 3 === 0 ? "1" : "2" }),
      );
    },
    page: async (pawl: InProcess, limit: number, after?: string) => {
      const page = await pawl.call("pipeline.list", { limit, ...(after ? { after } : {}) });
      const items = Object.values(page.stages).flat();
      return { rows: items.map(({ storyId }) => storyId), next: page.next };
    },
  },
} as const satisfies Record<string, { make: unknown; page: unknown }>;

test.each(Object.entries(LISTS))(
  "a page of %s that takes several steps has what short pages have",
  async (_method, { make, page: pageOf }) => {
    const pawl = new InProcess();
    await make(pawl);
    const page = pageOf as (pawl: InProcess, limit: number, after?: unknown) => ReturnType<typeof pageOf>;
    const before = pawl.turns;
    const whole = await page(pawl, 1000);
    expect(pawl.turns - before).toBeGreaterThan(2);
    expect(new Set(whole.rows).size).toBe(600);
    expect(whole.next).toBeUndefined();
    const [first, rest] = [await page(pawl, 550), await page(pawl, 1000, (await page(pawl, 550)).next)];
    expect([...first.rows, ...rest.rows]).toEqual(whole.rows);
    const pages: string[] = [];
    let after: unknown;
    do {
      const short = await page(pawl, 100, after);
      pages.push(...short.rows);
      after = short.next;
    } while (after !== undefined);
    expect(pages).toEqual(whole.rows);
  },
);

/** Hardly any time passes until the test ends: calls of others come between two steps on a slow machine, too. */
function haveTime(): void {
  let ms = performance.now();
  const clock = vi.spyOn(performance, "now").mockImplementation(() => (ms += 0.001));
  onTestFinished(() => clock.mockRestore());
}

test.skipIf(SHARED_URL !== undefined)(
  "an item that is moved between two steps of a list is on the page once, and one that is deleted is not",
  async () => {
    const pawl = new InProcess();
    const name = (index: number): string => `I-${String(index).padStart(4, "0")}`;
    const move = (index: number, stage: string) =>
      pawl.call("pipeline.write", { storyId: name(index), stage }, 2);
    await Promise.all(Array.from({ length: 600 }, (_, index) => move(index, "2_current")));
    haveTime();
    const listed = pawl.call("pipeline.list", { limit: 1000 }, 1);
    await Promise.all([
      move(0, "3_done"),
      move(599, "1_backlog"),
      move(598, "3_done"),
      pawl.call("pipeline.delete", { storyId: name(300) }, 2),
    ]);
    const { stages, next } = await listed;
    const ids = Object.entries(stages).map(([stage, items]) => [stage, items.map(({ storyId }) => storyId)]);
    const left = Array.from({ length: 598 }, (_, index) => name(index)).filter((_, index) => index !== 300);
    expect(ids).toEqual([
      ["1_backlog", [name(599)]],
      ["2_current", left],
      ["3_done", [name(598)]],
    ]);
    expect(next).toBeUndefined();
  },
);

test.skipIf(SHARED_URL !== undefined)(
  "a lease that is given on between two steps of a list is shown with its holder of then",
  async () => {
    const pawl = new InProcess();
    const names = Array.from({ length: 300 }, (_, index) => `n-${String(index).padStart(3, "0")}`);
    const granted = await Promise.all(
      names.map((name) => pawl.call("lease.acquire", { name, owner: "first" })),
    );
    haveTime();
    const listed = pawl.call("lease.list", { limit: 1000 }, 1);
    const given = [200, 249, 250].flatMap((index) => [
      pawl.call("lease.release", { leaseId: granted[index]?.lease.leaseId as string }, 2),
      pawl.call("lease.acquire", { name: names[index] as string, owner: "second" }, 2),
    ]);
    const { leases } = await listed;
    await Promise.all(given);
    expect(leases.map(({ name }) => name)).toEqual(names);
    expect(leases.filter(({ owner }) => owner === "second").map(({ name }) => name)).toEqual(
      names.slice(249, 251),
    );
  },
);

test("all types are in one page, and all heads that are known, though both take several steps", async () => {
  const pawl = new InProcess();
  const type = (index: number): string =>
    `T${String(index).replaceAll(/\d/g, (digit) => "ABCDEFGHIJ"[Number(digit)] as string)}`;
  const types = Array.from({ length: 2500 }, (_, index) => type(index));
  await Promise.all(types.map((each) => pawl.call("sequence.next", { type: each })));
  await pawl.call("sequence.grant", { type: "GRANTED", first: 5, last: 7 });
  const state = await pawl.call("sequence.state", {});
  expect(state).toMatchObject({ mode: { kind: "centralized" }, granted: { GRANTED: 3 } });
  expect(Object.keys(state.sequences).sort()).toEqual(types.sort());
  expect(state.next).toBeUndefined();
  const { changeId } = await pawl.call("pipeline.write", { storyId: "A", stage: "s" });
  const { heads } = await pawl.call("pipeline.identity", {});
  const [head] = heads;
  if (head === undefined) throw new Error("nothing was written");
  const others = Array.from({ length: 2500 }, () => ({ ...head, hash: "0".repeat(64) }));
  const before = pawl.turns;
  const { known } = await pawl.call("pipeline.heads", { known: [head, ...others, head] });
  expect(known).toEqual([changeId, changeId]);
  expect(pawl.turns - before).toBeGreaterThan(1);
});

test("changes are taken in a few at a time, and within transact the first of them", async () => {
  const [source, target, whole] = [new InProcess(), new InProcess(), new InProcess()];
  for (let index = 0; index < 40; index++) {
    await source.call("pipeline.write", { storyId: `I-${index}`, stage: "1_backlog" });
  }
  const { author, board } = await source.call("pipeline.identity", {});
  for (const node of [target, whole]) {
    await node.call("peer.trust", { author, name: "source", ...(board === null ? {} : { board }) });
  }
  const { changes } = await source.call("pipeline.changes", { heads: [] });
  expect(changes).toHaveLength(40);
  const before = target.turns;
  expect(await target.call("pipeline.apply", { changes })).toEqual({
    applied: 40,
    duplicate: 0,
    rejected: [],
  });
  expect(target.turns - before).toBeGreaterThan(2);
  expect(await target.call("pipeline.apply", { changes })).toEqual({
    applied: 0,
    duplicate: 40,
    rejected: [],
  });

  const calls = [{ method: "pipeline.apply", params: { changes } }];
  const [first] = (await whole.call("transact", { calls })).results as [{ applied: number }];
  expect(first).toEqual({ applied: expect.any(Number), duplicate: 0, rejected: [], more: true });
  expect((await whole.call("pipeline.watch", {})).revision).toBe(first.applied);

  const rebuilt = source.call("pipeline.rebuild", { verify: true }, 1);
  await source.call("pipeline.watch", {}, 2);
  const step = await rebuilt;
  expect(step).toMatchObject({ changes: 40, items: 0, differences: [] });
  const items = await source.call("pipeline.rebuild", { verify: true, after: step.next as string });
  expect(items).toEqual({ changes: 40, items: 40, differences: [] });
});

test("the items that can be reached from one are looked at in steps", async () => {
  const pawl = new InProcess();
  const name = (index: number): string => `I-${index}`;
  const long = 1200;
  for (let index = 0; index < long; index++) {
    const dependsOn = [name((index + 1) % long), ...(index === 0 ? ["nowhere"] : [])];
    void pawl.call("pipeline.write", { storyId: name(index), stage: "1_backlog", dependsOn });
  }
  const { missing, cycle } = await pawl.call("pipeline.read", { storyId: name(0) });
  expect(missing).toEqual(["nowhere"]);
  expect(cycle).toEqual(Array.from({ length: long - 1 }, (_, index) => name(index + 1)));
});

test("the claims of a connection that closes end in steps, each whole", async () => {
  const seen = new Set<number>();
  const path = join(privateDirectory(), "pawl.db");
  const pawl = new InProcess({ path, committed: () => seen.add(ready(path)) });
  const each = { queue: "q", payloads: [1], slotPolicy: "join", mergeKey: "payload_default" } as const;
  for (let index = 0; index < 3; index++) {
    await pawl.call("queue.enqueueMany", { batches: new Array(400).fill(each) });
    const params = { queue: "q", owner: "o", maxBatches: 1000, releaseOn: "disconnect" } as const;
    expect((await pawl.call("queue.claim", params, 1)).claim?.batches).toHaveLength(400);
  }
  await pawl.call("lease.acquire", { name: "n", owner: "o", releaseOn: "disconnect" }, 1);
  seen.clear();
  pawl.disconnect(1);
  await expect.poll(() => [...seen]).toEqual([400, 800, 1200]);
  expect((await pawl.call("lease.get", { name: "n" }, 2)).lease).toBeNull();
  const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "o", maxBatches: 1000 });
  expect(
    claim?.batches.every(({ attempt, lastError }) => attempt === 1 && lastError?.includes("connection")),
  ).toBe(true);
});

describe("a transact", () => {
  const each = { queue: "q", payloads: [1], slotPolicy: "join", mergeKey: "payload_default" } as const;

  test.each<[string, number, { method: string; params: Record<string, unknown> }[]]>([
    [
      "batches",
      1001,
      [
        { method: "queue.enqueueMany", params: { batches: new Array(1000).fill(each) } },
        { method: "sequence.next", params: { type: "FR" } },
      ],
    ],
    [
      "items that filters look at",
      9600,
      Array(64).fill({ method: "pipeline.list", params: { agent: "no" } }),
    ],
    ["types", 6400, Array(64).fill({ method: "sequence.state", params: {} })],
    ["queues of dead ones", 16_000, Array(64).fill({ method: "queue.retry", params: { queue: "q" } })],
    [
      "changes that are not known yet",
      1001,
      [
        { method: "sequence.next", params: { type: "FR" } },
        { method: "pipeline.apply", params: { changes: { $result: "/0/seq" } } },
      ],
    ],
  ])("that names too many %s is refused before it is begun, with the bound", async (_what, named, calls) => {
    const pawl = new InProcess();
    const refused = await pawl.call("transact", { calls }).catch((error) => error);
    expect(refused).toMatchObject({
      kind: "invalid_params",
      details: { named, most: 1000, issues: [{ path: "/calls" }] },
    });
    expect(refused.message).toContain("at most 1000");
    expect((await pawl.call("sequence.peek", { type: "FR" })).seq).toBe(1);
  });

  test("counts the batches of a claim that it completes, and takes as many as there may be", async () => {
    const pawl = new InProcess();
    for (let index = 0; index < 2; index++)
      await pawl.call("queue.enqueueMany", { batches: new Array(600).fill(each) });
    const claims = [];
    for (let index = 0; index < 2; index++) {
      const { claim } = await pawl.call("queue.claim", { queue: "q", owner: "o", maxBatches: 600 });
      claims.push({ claimId: claim?.claimId as string, leaseToken: claim?.leaseToken as string });
    }
    const complete = claims.map((params) => ({ method: "queue.complete", params }));
    await expect(pawl.call("transact", { calls: complete })).rejects.toMatchObject({
      details: { named: 1200 },
    });
    const { results } = await pawl.call("transact", { calls: complete.slice(1) });
    expect(results).toEqual([{ completed: 600 }]);
    const calls = [{ method: "queue.enqueueMany", params: { batches: new Array(1000).fill(each) } }];
    await pawl.call("transact", { calls });
  });
});
