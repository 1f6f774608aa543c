// daemon.stats counts what is there, after any history and any kind of start.
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place } from "../daemon.js";
import { RawClient } from "../raw-client.js";

/** The counts of the tables. */
function counted(path: string): object {
  const database = new Database(path, { readonly: true });
  const count = (from: string): number =>
    database.prepare(`SELECT count(*) FROM ${from}`).pluck().get() as number;
  const states = ["ready", "scheduled", "claimed", "completed", "dead", "cancelled"] as const;
  try {
    return {
      queues: Object.fromEntries(
        states.map((state) => [state, count(`pawl_batch WHERE state = '${state}'`)]),
      ),
      leases: { held: count("pawl_lease") },
      pipeline: {
        items: count("pawl_item WHERE stage IS NOT NULL"),
        changes: count("pawl_change"),
        forks: 0,
      },
    };
  } finally {
    database.close();
  }
}

async function use(client: RawClient): Promise<void> {
  const claimed = async (queue: string) => {
    const { claim } = await client.call("queue.claim", { queue, owner: "o" });
    if (claim === null) throw new Error(`${queue} is empty`);
    const { claimId, leaseToken } = claim;
    return { claimId, leaseToken };
  };
  for (const queue of ["a", "b"]) {
    for (let index = 0; index < 6; index++) {
      await client.call("queue.enqueue", { queue, payloads: [index], maxAttempts: 1 });
    }
    const later = await client.call("queue.enqueue", { queue, payloads: [1], delayMs: 100_000 });
    await client.call("queue.enqueue", { queue, payloads: [1], delayMs: 100_000 });
    await client.call("queue.cancel", { batchId: later.batch.batchId });
    await client.call("queue.complete", await claimed(queue));
    await client.call("queue.abandon", await claimed(queue));
    await client.call("queue.abandon", { ...(await claimed(queue)), error: "no" });
    await claimed(queue);
  }
  await client.call("queue.retry", { queue: "a" });
  await client.call("lease.acquire", { name: "kept", owner: "o" });
  const { lease } = await client.call("lease.acquire", { name: "released", owner: "o" });
  await client.call("lease.release", { leaseId: lease.leaseId });
  await client.call("lease.release", { leaseId: lease.leaseId });
  for (const storyId of ["A", "B", "C"]) await client.call("pipeline.write", { storyId, stage: "1_backlog" });
  await client.call("pipeline.delete", { storyId: "B" });
  await client.call("pipeline.write", { storyId: "A", stage: "2_current" });
  // A change that is undone does not count.
  const calls = [
    { method: "queue.enqueue", params: { queue: "a", payloads: [1] } },
    { method: "lease.acquire", params: { name: "undone", owner: "o" } },
    { method: "lease.acquire", params: { name: "kept", owner: "o" } },
  ];
  await client.refusal("transact", { calls });
}

// Gauges have what is in the daemon's own database.
test.skipIf(NAMES_ARE_SHARED)(
  "every change counts, refused and undone ones do not, and a restart begins with what is there",
  async () => {
    const place = new Place();
    const path = join(place.stateDir, "pawl.db");
    const first = await place.start();
    const client = await place.connect();
    await use(client);
    expect(await client.call("daemon.stats", {})).toMatchObject(counted(path));
    expect((await client.call("daemon.stats", {})).queues).toMatchObject({
      dead: 1,
      cancelled: 2,
      claimed: 2,
    });
    await first.end("SIGKILL");
    await place.start();
    const again = await place.connect();
    expect(await again.call("daemon.stats", {})).toMatchObject(counted(path));
    const socket = join(place.directory, "reader.sock");
    await place.start({ args: ["--read-only", "--socket", socket] });
    const reader = await RawClient.connect(socket);
    expect(await reader.call("daemon.stats", {})).toMatchObject(counted(path));
  },
);
