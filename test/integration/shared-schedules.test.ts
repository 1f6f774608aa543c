// Schedules of queues that daemons share: several real daemons on one real server, some of which are killed.
import type { Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, madeForTests, Place } from "../daemon.js";
import { sized } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { makePlace } from "../shared-daemons.js";

const KILLS = sized(20, 0);

describe.skipIf(!HAS_POSTGRESQL)("schedules of shared queues", () => {
  const urls = madeForTests(async (atEnd) => {
    const postgres = await PostgreSql.start(atEnd);
    const both = [postgres.url("one"), postgres.url("two")] as const;
    for (const url of both) await makePlace(url);
    return Object.assign(both, { postgres });
  });

  function shared(...args: string[]): { args: string[] } {
    const [one, two] = urls();
    return { args: [...args, "--shared", `s/*=${one}`, "--shared", `queue:t/*=${two}`] };
  }

  async function start(place = new Place()): Promise<{ daemon: DaemonProcess; client: RawClient }> {
    const daemon = await place.start(shared());
    return { daemon, client: await place.connect() };
  }

  test("a schedule is where its queue is, and is found by its name at every daemon", async () => {
    const [{ client: first }, { client: second }] = [await start(), await start()];
    const given = { name: "found", payloads: [1], everyMs: 3_600_000 };
    const { schedule } = await first.call("schedule.set", { ...given, queue: "s/found" });
    expect(await second.call("schedule.get", { name: "found" })).toEqual({ schedule });
    expect((await second.call("schedule.next", { name: "found", count: 2 })).times).toEqual([
      schedule.nextAt,
      (schedule.nextAt as number) + 3_600_000,
    ]);
    const { batch } = await second.call("schedule.run", { name: "found" });
    expect((await first.call("queue.get", { batchId: batch.batchId })).batch.queue).toBe("s/found");
    // Another queue at the same place; one elsewhere is another place.
    await second.call("schedule.set", { ...given, queue: "s/other" });
    expect((await first.call("schedule.get", { name: "found" })).schedule.queue).toBe("s/other");
    const elsewhere = {
      kind: "invalid_params",
      message: expect.stringContaining('schedule "found" is kept in'),
    };
    for (const queue of ["mine", "t/found"])
      await expect(first.call("schedule.set", { ...given, queue })).rejects.toMatchObject(elsewhere);
    expect(await second.call("schedule.delete", { name: "found" })).toEqual({ deleted: true });
    expect(await first.call("schedule.delete", { name: "found" })).toEqual({ deleted: false });
    await expect(first.call("schedule.get", { name: "found" })).rejects.toMatchObject({ kind: "not_found" });
  });

  test("a list has the schedules of all places, by name, also in pages", async () => {
    const [{ client: first }, { client: second }] = [await start(), await start()];
    const names = [];
    for (const [index, queue] of ["t/l", "mine", "s/l", "s/l", "mine", "t/l"].entries()) {
      const name = `list-${index}`;
      names.push(name);
      await first.call("schedule.set", { name, queue, payloads: [1], everyMs: 3_600_000 });
    }
    const listed: string[] = [];
    for (let after: string | undefined = "list"; after !== undefined; ) {
      const page: Result<"schedule.list"> = await first.call("schedule.list", { limit: 2, after });
      listed.push(...page.schedules.map(({ name }) => name));
      expect(page.schedules.length).toBe(2);
      after = page.next;
    }
    expect(listed).toEqual(names);
    const { schedules } = await second.call("schedule.list", {});
    expect(schedules.map(({ name }) => name)).toEqual(["list-0", "list-2", "list-3", "list-5"]);
    for (const name of names) await first.call("schedule.delete", { name });
  });

  test("calls about schedules are parts of a transaction where these are", async () => {
    const { client } = await start();
    const set = (name: string, queue: string) => ({
      method: "schedule.set" as const,
      params: { name, queue, payloads: [1], everyMs: 3_600_000 },
    });
    await client.call("transact", {
      calls: [set("both", "s/both"), { method: "queue.enqueue", params: { queue: "s/both", payloads: [1] } }],
    });
    const { results } = await client.call("transact", {
      calls: [
        { method: "schedule.run", params: { name: "both" } },
        { method: "schedule.delete", params: { name: "both" } },
      ],
    });
    expect(results[1]).toEqual({ deleted: true });
    await client.call("transact", { calls: [set("both", "mine")] });
    await expect(
      client.call("transact", {
        calls: [
          { method: "schedule.delete", params: { name: "both" } },
          { method: "queue.enqueue", params: { queue: "s/both", payloads: [1] } },
        ],
      }),
    ).rejects.toMatchObject({
      kind: "invalid_params",
      message: expect.stringContaining('schedule "both" is kept by this node'),
    });
    await client.call("schedule.delete", { name: "both" });
  });

  test("calls of one connection about several places take effect in their order", async () => {
    const { client } = await start();
    const calls = [];
    for (let round = 0; round < 20; round++) {
      const queue = ["s/order", "t/order", "mine"][round % 3] as string;
      calls.push(client.call("schedule.set", { name: "order", queue, payloads: [1], everyMs: 3_600_000 }));
      calls.push(client.call("schedule.delete", { name: "order" }));
    }
    const answers = await Promise.all(calls);
    expect(answers.filter((answer) => "deleted" in answer && !answer.deleted)).toEqual([]);
  });

  test("a daemon with an enabled schedule is not idle", async () => {
    const place = new Place();
    const idle = await place.start(shared("--idle-exit", "1"));
    const client = await place.connect();
    await client.call("schedule.set", {
      name: "idle",
      queue: "s/idle",
      payloads: [1],
      everyMs: 1000,
      overlap: "all",
    });
    await client.destroy();
    // Nobody else enqueues.
    const count = "SELECT count(*) FROM one.pawl_batch WHERE source_key LIKE 'schedule:idle@%'";
    await expect
      .poll(() => Number(urls().postgres.psql(count).output), { timeout: 20_000 })
      .toBeGreaterThan(3);
    const { client: other } = await start();
    await other.call("schedule.delete", { name: "idle" });
    expect(await idle.exited).toBe(0);
  });

  test(
    `each occurrence is enqueued once by three daemons, of which the one that set it is killed, and ${KILLS} more`,
    async () => {
      const all = [await start(), await start(), await start()];
      const [first, second, third] = all as [(typeof all)[0], (typeof all)[0], (typeof all)[0]];
      const name = "ticks";
      const queue = "s/ticks";
      await first.client.call("schedule.set", { name, queue, payloads: [1], everyMs: 1000, overlap: "all" });
      await first.daemon.end("SIGKILL");
      const claiming = (client: RawClient) =>
        client.call("queue.claim", { queue, owner: "w", waitMs: 20_000, leaseMs: 3_600_000 });
      const seen: string[] = [];
      const both = [second, third];
      for (let kills = 0; ; kills += 1) {
        // Whoever fires it, a worker at each of the two is served in the end.
        for (const { client } of [...both, ...both]) {
          const { claim } = await claiming(client);
          seen.push(claim?.batches[0]?.sourceKey as string);
        }
        if (kills === KILLS) break;
        const killed = both[kills % 2] as (typeof both)[0];
        await killed.daemon.end("SIGKILL");
        both[kills % 2] = await start(killed.daemon.place);
      }
      const [{ client }] = both as [(typeof both)[0]];
      const { schedule } = await client.call("schedule.get", { name });
      await client.call("schedule.delete", { name });
      const { batches } = await client.call("queue.list", { queue, limit: 1000 });
      const times = batches.map(({ sourceKey }) => Number(sourceKey?.split("@")[1]));
      expect(new Set(seen).size).toBe(seen.length);
      expect(times.length).toBeGreaterThanOrEqual(seen.length);
      const from = times[0] as number;
      expect(times).toEqual(times.map((_, index) => from + index * 1000));
      expect(schedule.lastAt).toBeGreaterThanOrEqual(from + 3000);
    },
    120_000 + KILLS * 20_000,
  );
});
