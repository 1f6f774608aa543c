// Calls that name little and mean much are done in steps, and answer as if they were not.
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place } from "../daemon.js";
import type { RawClient } from "../raw-client.js";

test("a history of more changes than a step shows is whole, in one page or in many", async () => {
  const place = new Place();
  await place.start();
  const client = await place.connect();
  const ids: string[] = [];
  for (let number = 0; number < 250; number++) {
    ids.unshift(
      (await client.call("pipeline.write", { storyId: "A", stage: "s", name: `${number}` })).changeId,
    );
  }
  const whole = await client.call("pipeline.history", { storyId: "A", limit: 1000 });
  expect(whole.changes.map(({ changeId }) => changeId)).toEqual(ids);
  expect(whole.next).toBeUndefined();
  for (const limit of [7, 100]) {
    const found: string[] = [];
    let after: string | undefined;
    do {
      const page = await client.call("pipeline.history", {
        storyId: "A",
        limit,
        ...(after ? { after } : {}),
      });
      expect(page.changes.length).toBeLessThanOrEqual(limit);
      found.push(...page.changes.map(({ changeId }) => changeId));
      after = page.next;
    } while (after !== undefined);
    expect(found).toEqual(ids);
  }
  // In a transaction a page ends with the step, and says where to go on.
  const { results } = await client.call("transact", {
    calls: [{ method: "pipeline.history", params: { storyId: "A", limit: 1000 } }],
  });
  const [page] = results as [{ changes: { changeId: string }[]; next: string }];
  const rest = await client.call("pipeline.history", { storyId: "A", limit: 1000, after: page.next });
  expect(page.changes.length).toBeLessThan(ids.length);
  expect([...page.changes, ...rest.changes].map(({ changeId }) => changeId)).toEqual(ids);
});

test("an item that many changes are about is replayed in steps, while others write it", async () => {
  const place = new Place();
  await place.start();
  const client = await place.connect();
  const other = await place.connect();
  for (let number = 0; number < 300; number++) {
    await client.call("pipeline.write", {
      storyId: "A",
      stage: "s",
      retryCountDelta: 1,
      dependsOn: { add: [`D${number}`] },
    });
  }
  // The call that comes after all changes replays the one item.
  let next: string | undefined;
  while (!next?.includes("item")) {
    ({ next } = await client.call("pipeline.rebuild", { verify: true, ...(next ? { after: next } : {}) }));
    expect(next).toBeDefined();
  }
  const after = next;
  let items = 0;
  const turns = await turnsOf(client, async () => {
    ({ items } = await client.call("pipeline.rebuild", { verify: true, after }));
  });
  expect(items).toBe(1);
  expect(turns).toBeGreaterThan(2);
  let done = false;
  const writing = (async () => {
    for (let number = 0; !done; number++) {
      await other.call("pipeline.write", {
        storyId: number % 3 === 0 ? "B" : "A",
        stage: "s",
        retryCountDelta: 1,
      });
    }
  })();
  const differences: unknown[] = [];
  for (let round = 0; round < 3; round++) {
    let after: string | undefined;
    do {
      const part = await client.call("pipeline.rebuild", { verify: true, ...(after ? { after } : {}) });
      differences.push(...part.differences);
      after = part.next;
    } while (after !== undefined);
  }
  done = true;
  await writing;
  expect(differences).toEqual([]);
});

test("an item that differs after many changes is put right", async () => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  for (let number = 0; number < 200; number++) {
    await client.call("pipeline.write", { storyId: "A", stage: `s${number}`, retryCountDelta: 1 });
  }
  const { item } = await client.call("pipeline.read", { storyId: "A" });
  await daemon.end();
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.exec("UPDATE pawl_item SET stage = 'wrong', retry_added = 7");
  database.close();
  await place.start();
  const again = await place.connect();
  let after: string | undefined;
  let differences = 0;
  do {
    const part = await again.call("pipeline.rebuild", after === undefined ? {} : { after });
    differences += part.differences.length;
    after = part.next;
  } while (after !== undefined);
  expect(differences).toBe(1);
  expect((await again.call("pipeline.read", { storyId: "A" })).item).toEqual(item);
});

test("what is pending is counted in steps, for one deployment with many commands", async () => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  for (const deployment of ["a", "b", "c"]) await client.call("command.create", { deployment, command: "c" });
  await daemon.end();
  const [row = {}] = await place.query("SELECT * FROM pawl_command LIMIT 1");
  const columns = Object.keys(row);
  const own: Record<string, string> = {
    seq: "1000 + i",
    command_id: "command_id || i",
    ready_place: "1000 + i",
  };
  // So many are not created one by one.
  await place.query(`
    INSERT INTO pawl_command (${columns.join(", ")})
    WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 40000)
    SELECT ${columns.map((name) => own[name] ?? name).join(", ")} FROM numbers, pawl_command
    WHERE deployment = 'b'`);
  await place.start();
  const again = await place.connect();
  let deployments: { deployment: string; pending: number }[] = [];
  const turns = await turnsOf(again, async () => {
    deployments = (await again.call("deployment.list", {})).deployments;
  });
  // The turns over shared names are those of their place.
  if (!NAMES_ARE_SHARED) expect(turns).toBeGreaterThan(2);
  expect(deployments.map(({ deployment, pending }) => [deployment, pending])).toEqual([
    ["a", 1],
    ["b", 40_001],
    ["c", 1],
  ]);
});

test("a renewal without a time lasts as long as what it renews was leased for", async () => {
  const place = new Place();
  await place.start();
  const client = await place.connect();
  await client.call("command.create", { deployment: "d", command: "c" });
  const { leases } = await client.call("command.lease", { deployment: "d", owner: "o", leaseMs: 500_000 });
  const leaseId = leases[0]?.leaseId as string;
  expect((await client.call("command.renew", { leaseId, leaseMs: 900_000 })).remainingMs).toBe(900_000);
  expect((await client.call("command.renew", { leaseId })).remainingMs).toBe(500_000);
});

/** A database that takes half of a delivery's time to grant it has that given back, as on a busy machine. */
const MOMENT_MS = NAMES_ARE_SHARED ? 2000 : 100;

test.each([
  ["before its deadline counts, and then it is EXPIRED", 20, { state: "EXPIRED", attempt: 2 }],
  ["before its deadline is the last, and then it is FAILED", 1, { state: "FAILED", attempt: 1 }],
])("over a restart, a delivery that ended %s", async (_what, maxAttempts, expected) => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  const ttlMs = 4 * MOMENT_MS;
  const given = { deployment: "d", command: "c", ttlMs, maxAttempts };
  const { commandId } = await client.call("command.create", given);
  await client.call("command.lease", { deployment: "d", owner: "o", leaseMs: MOMENT_MS });
  await daemon.end("SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, ttlMs));
  await place.start();
  expect(await (await place.connect()).call("command.get", { commandId })).toMatchObject(expected);
});

test("over a restart, a delivery whose deadline came first is EXPIRED, and not counted", async () => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  const ttlMs = 2 * MOMENT_MS;
  const { commandId } = await client.call("command.create", { deployment: "d", command: "c", ttlMs });
  await client.call("command.lease", { deployment: "d", owner: "o", leaseMs: 3 * MOMENT_MS });
  await daemon.end("SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, 3 * MOMENT_MS));
  await place.start();
  const command = await (await place.connect()).call("command.get", { commandId });
  expect(command).toMatchObject({ state: "EXPIRED", attempt: 1 });
});

/** The turns of a daemon that nobody else asks, for what is done between. */
async function turnsOf(client: RawClient, work: () => Promise<unknown>): Promise<number> {
  const total = async (): Promise<number> => (await client.call("daemon.stats", {})).turns.total;
  const before = await total();
  await work();
  // The second look is a turn of its own.
  return (await total()) - before - 1;
}
