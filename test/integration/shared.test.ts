// Names kept in PostgreSQL: several real daemons on one real server.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type DaemonProcess,
  madeForTests,
  NAMES_ARE_SHARED,
  Place,
  REPOSITORY,
  startDaemon,
} from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { makePlace, toldOf } from "../shared-daemons.js";
import { pawl } from "./cli-program.js";

test("what every daemon loads has nothing that speaks to PostgreSQL", () => {
  const bundle = join(REPOSITORY, "daemon/dist/bundle");
  const withPostgreSql = readdirSync(bundle)
    .filter((name) => name.endsWith(".cjs"))
    .filter((name) => /require\("pg"\)/.test(readFileSync(join(bundle, name), "utf8")));
  expect(withPostgreSql.length).toBeGreaterThan(0);
  // What is loaded at the start: the rest only by functions that are called where it is configured.
  const started = new Set(["pawld.cjs"]);
  for (const name of started) {
    const text = readFileSync(join(bundle, name), "utf8");
    for (const [, other] of text.matchAll(/= require\("\.\/([^"]+)"\)/g)) started.add(other as string);
  }
  expect(started.size).toBeGreaterThan(1);
  for (const name of withPostgreSql) expect([...started]).not.toContain(name);
});

describe.skipIf(!HAS_POSTGRESQL)("names that daemons share", () => {
  const daemons = madeForTests(async (atEnd) => {
    const url = (await PostgreSql.start(atEnd)).url();
    await makePlace(url);
    const args = ["--shared", `s/*=${url}`, "--shared", `sequence:S*=${url}`, "--shared", `path:/s/*=${url}`];
    return await Promise.all([1, 2].map(() => new Place(undefined, atEnd).start({ args })));
  });

  async function connect(): Promise<[RawClient, RawClient]> {
    const [first, second] = daemons() as [DaemonProcess, DaemonProcess];
    return [await first.place.connect(), await second.place.connect()];
  }

  test.each(["leases", "queues", "paths", "commands"])(
    "pawl %s says of an empty list that it is of this node",
    async (list) => {
      const [{ place }] = daemons() as [DaemonProcess];
      const { code, stdout, stderr } = await pawl([list], { socket: place.socket });
      expect([code, stdout]).toEqual([0, ""]);
      expect(stderr).toMatch(
        /^(No|There are no) .+ on this node: what is kept in PostgreSQL \(s\/\*.*\) is found by its name\.\n$/,
      );
    },
  );

  test("pawl status and pawl state say what they do not count", async () => {
    const [{ place }] = daemons() as [DaemonProcess];
    const run = async (...args: string[]) => await pawl(args, { socket: place.socket });
    expect((await run("status")).stdout).toMatch(
      /\n {2}Elsewhere +what is kept in PostgreSQL \(s\/\*\) is not counted, and is found by its name\n/,
    );
    const said = "That is so on this node: what is kept in PostgreSQL (s/*, S*) is found by its name.\n";
    expect((await run("state")).stderr).toContain(said);
    await run("next", "OWN");
    const { stdout, stderr } = await run("state");
    expect([stdout.split("\n")[1]?.slice(0, 4), stderr]).toEqual(["OWN ", said]);
    expect((await run("state", "--json")).stderr).toBe("");
  });

  test.skipIf(NAMES_ARE_SHARED)("what is kept here is listed whole", async () => {
    const own = await startDaemon();
    expect((await pawl(["status"], { socket: own.place.socket })).stdout).not.toContain("PostgreSQL");
    expect((await pawl(["state"], { socket: own.place.socket })).stderr).toBe(
      "No numbers have been taken yet.\n",
    );
  });

  test("a sequence goes on over both, and what is not shared does not", async () => {
    const [first, second] = await connect();
    const numbers = [];
    for (const client of [first, second, second, first])
      numbers.push((await client.call("sequence.next", { type: "SHARED" })).seq);
    expect(numbers).toEqual([1, 2, 3, 4]);
    expect((await first.call("sequence.next", { type: "FR" })).seq).toBe(1);
    expect((await second.call("sequence.next", { type: "FR" })).seq).toBe(1);
  });

  test("a batch that one enqueues is claimed by a worker that waits at the other, which completes it", async () => {
    const [first, second] = await connect();
    const claiming = second.call("queue.claim", { queue: "s/wait", owner: "w", waitMs: 20_000 });
    await waitsAt(second, "s/wait");
    const { batch } = await first.call("queue.enqueue", { queue: "s/wait", payloads: [1] });
    const { claim } = await claiming;
    expect(claim?.batches[0]?.batchId).toBe(batch.batchId);
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    // By the token alone, at the other daemon.
    expect(await first.call("queue.complete", { claimId, leaseToken })).toEqual({ completed: 1 });
    expect((await second.call("queue.get", { batchId: batch.batchId })).batch.state).toBe("completed");
  });

  test("what calls of one turn read is as those before them have left it", async () => {
    const [first] = await connect();
    const asked = { queue: "s/turn", payloads: [1], sourceKey: "k", onExisting: "rerun" as const };
    await first.call("queue.enqueue", asked);
    const { claim } = await first.call("queue.claim", { queue: "s/turn", owner: "a" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    // Sent together: the first turn has one of them, the next one the rest.
    const [, followed, completed, again, next, none, lost] = await Promise.all([
      first.call("queue.enqueue", { queue: "s/turn-other", payloads: [1] }),
      first.call("queue.enqueue", asked),
      first.call("queue.complete", { claimId, leaseToken }),
      first.call("queue.complete", { claimId, leaseToken }),
      first.call("queue.claim", { queue: "s/turn", owner: "b" }),
      first.call("queue.claim", { queue: "s/turn", owner: "c" }),
      first.call("queue.abandon", { claimId, leaseToken }).catch(({ kind }) => kind),
    ]);
    expect(followed.outcome).toBe("follower");
    expect([completed, again]).toEqual([{ completed: 1 }, { completed: 1 }]);
    // The end of the one has made the other ready, and there is no third.
    expect(next.claim?.batches[0]?.batchId).toBe(followed.batch.batchId);
    expect([none.claim, lost]).toEqual([null, "claim_lost"]);
  });

  test("what a daemon has done is counted there before it is answered, also once somebody follows it", async () => {
    const [first, second] = await connect();
    const enqueue = () => first.call("queue.enqueue", { queue: "s/counted", payloads: [1] });
    const enqueued = async (client: RawClient) => {
      const { byQueue } = await client.call("daemon.stats", { queues: true });
      return byQueue?.find(({ queue }) => queue === "s/counted")?.events.enqueued;
    };
    for (const times of [1, 2]) {
      await enqueue();
      expect(await enqueued(first)).toBe(times);
    }
    const { cursor } = await first.call("events.watch", { topics: ["queue:s/counted"] });
    const { batch } = await enqueue();
    const told = { topics: ["queue:s/counted"], since: cursor, waitMs: 20_000 };
    expect((await first.call("events.watch", told)).events).toMatchObject([
      { kind: "enqueued", id: batch.batchId },
    ]);
    expect(await enqueued(first)).toBe(3);
    expect(await enqueued(second)).toBeUndefined();
  });

  test("a claim that ends with its connection goes to one who waits at the other daemon", async () => {
    const [first, second] = await connect();
    await first.call("queue.enqueue", { queue: "s/gone", payloads: [1], retry: { baseMs: 0, maxMs: 0 } });
    const held = await first.call("queue.claim", { queue: "s/gone", owner: "a", releaseOn: "disconnect" });
    const claiming = second.call("queue.claim", { queue: "s/gone", owner: "b", waitMs: 20_000 });
    await waitsAt(second, "s/gone");
    await first.destroy();
    const { claim } = await claiming;
    expect(claim?.fencingToken).toBe((held.claim?.fencingToken ?? 0) + 1);
  });

  test("what a holder is told by the other daemon arrives whole, however long it is", async () => {
    const [first, second] = await connect();
    const { lease } = await first.call("lease.acquire", { name: "s/run", owner: "a", ttlMs: 60_000 });
    const each = { queue: "s/many", payloads: [1], slotPolicy: "join" as const, mergeKey: { group: "k" } };
    const { batches } = await first.call("queue.enqueueMany", { batches: new Array(300).fill(each) });
    const { claim } = await first.call("queue.claim", {
      queue: "s/many",
      owner: "a",
      maxBatches: 300,
      notify: true,
      under: { lease: { name: lease.name, fencingToken: lease.fencingToken } },
    });
    expect(claim?.batches).toHaveLength(300);
    const told = toldOf(first, "claim.lost");
    await second.call("lease.break", { name: "s/run", reason: "hangs" });
    expect((await told).batchIds).toEqual(batches.map(({ batchId }) => batchId));
  });

  test("a claim that runs out goes to one who waits at the other daemon", async () => {
    const [first, second] = await connect();
    await first.call("queue.enqueue", { queue: "s/over", payloads: [1], retry: { baseMs: 0, maxMs: 0 } });
    await first.call("queue.claim", { queue: "s/over", owner: "a", leaseMs: 1000 });
    const { claim } = await second.call("queue.claim", { queue: "s/over", owner: "b", waitMs: 20_000 });
    expect(claim?.owner).toBe("b");
  });

  test("a lease goes to one who waits at the other daemon, with a higher token", async () => {
    const [first, second] = await connect();
    const { lease } = await first.call("lease.acquire", { name: "s/lease", owner: "a", ttlMs: 60_000 });
    await expect(
      second.call("lease.acquire", { name: "s/lease", owner: "b", ttlMs: 60_000 }),
    ).rejects.toMatchObject({ kind: "lease_held" });
    const acquiring = second.call("lease.acquire", {
      name: "s/lease",
      owner: "b",
      ttlMs: 60_000,
      waitMs: 20_000,
    });
    await expect
      .poll(async () => (await second.call("lease.get", { name: "s/lease" })).lease?.waiters)
      .toBe(1);
    // By its id, at the daemon that did not grant it.
    await second.call("lease.heartbeat", { leaseId: lease.leaseId });
    expect(await second.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
    expect((await acquiring).lease.fencingToken).toBe(lease.fencingToken + 1);
  });

  test("paths that one has reserved are granted at the other daemon once they are free", async () => {
    const [first, second] = await connect();
    const root = "/s/tree";
    const { reservation } = await first.call("path.reserve", {
      root,
      owner: "a",
      patterns: ["src/"],
      releaseOn: "disconnect",
    });
    const waiting = second.call("path.reserve", { root, owner: "b", patterns: ["src/a.ts"], waitMs: 20_000 });
    expect((await second.call("path.check", { root, path: "src/a.ts" })).allowed).toBe(false);
    const { reservationId } = reservation;
    await second.call("path.heartbeat", { reservationId });
    await first.destroy();
    expect((await waiting).reservation.fencingToken).toBeGreaterThan(reservation.fencingToken);
  });

  test("a claim of several queues that waits is met by a batch of any of them, also by a beginning", async () => {
    const [first, second] = await connect();
    const named = second.call("queue.claim", { queues: ["s/m/a", "s/m/b"], owner: "w", waitMs: 20_000 });
    await waitsAt(second, "s/m/b");
    await first.call("queue.enqueue", { queue: "s/m/b", payloads: [1] });
    expect((await named).claim?.queue).toBe("s/m/b");
    const begun = second.call("queue.claim", { queues: ["s/n/*"], owner: "w", waitMs: 20_000 });
    await waitsAt(second, "s/n/any");
    await first.call("queue.enqueue", { queue: "s/n/any", payloads: [1] });
    expect((await begun).claim?.queue).toBe("s/n/any");
  });

  test("a batch that waits for one of another queue is released by its end, wherever that is told", async () => {
    const [first, second] = await connect();
    const { batch } = await first.call("queue.enqueue", { queue: "s/f/1", payloads: [1] });
    await second.call("queue.enqueue", { queue: "s/f/2", payloads: [2], after: [batch.batchId] });
    const { claim } = await second.call("queue.claim", { queue: "s/f/1", owner: "w" });
    const next = second.call("queue.claim", { queue: "s/f/2", owner: "w", waitMs: 20_000 });
    await waitsAt(second, "s/f/2");
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    await first.call("queue.complete", { claimId, leaseToken });
    expect((await next).claim?.batches).toHaveLength(1);
  });

  test("a call about names in different places is refused, and says where they are", async () => {
    const [first] = await connect();
    const refused = { kind: "invalid_params", message: expect.stringContaining("is kept by this node") };
    await expect(first.call("queue.claim", { queues: ["s/a", "mine"], owner: "w" })).rejects.toMatchObject(
      refused,
    );
    await expect(
      first.call("lease.acquire", { names: ["s/a", "mine"], owner: "w", ttlMs: 1000 }),
    ).rejects.toMatchObject(refused);
    await expect(
      first.call("transact", {
        calls: [
          { method: "queue.enqueue", params: { queue: "s/t", payloads: [1] } },
          { method: "queue.enqueue", params: { queue: "mine", payloads: [1] } },
        ],
      }),
    ).rejects.toMatchObject(refused);
    const { results } = await first.call("transact", {
      calls: [
        { method: "queue.enqueue", params: { queue: "s/t1", payloads: [1] } },
        { method: "lease.acquire", params: { name: "s/t2", owner: "w", ttlMs: 1000 } },
      ],
    });
    expect(results).toHaveLength(2);
  });

  test("what can be no part of a transaction, and what is no id, is refused as for names of one's own", async () => {
    const [first] = await connect();
    const taken = { method: "sequence.next", params: { type: "SPART" } };
    const tried = (call: { method: string; params?: object }) =>
      first.refusal("transact", { calls: [taken, call] as never });
    expect((await tried({ method: "daemon.ping" })).data).toMatchObject({
      kind: "invalid_params",
      index: 1,
      issues: [{ path: "/calls/1/method" }],
    });
    const noId = { method: "queue.get", params: { batchId: "none" } };
    expect((await tried(noId)).data).toMatchObject({ kind: "not_found", index: 1 });
  });

  /** Resolves once a call of a client waits for a queue; its daemon is asked on the same connection. */
  async function waitsAt(client: RawClient, queue: string): Promise<void> {
    await expect.poll(async () => (await client.call("queue.explain", { queue })).waiting).toBeGreaterThan(0);
  }
});
