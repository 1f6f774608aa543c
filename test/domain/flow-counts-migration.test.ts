// What versions before left wrong between batches that wait for one another is put right once.
// Not over shared names: it is about the daemon's own database.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { changeRows, InProcess } from "../in-process.js";

const STEP = join(import.meta.dirname, "../../daemon/store/schema/0040-flow-counts.sql");

/** Leaves a database as the version before would have, and takes the step. */
function stepFrom(path: string, change: string): void {
  changeRows(path, change);
  changeRows(path, readFileSync(STEP, "utf8"));
}

test("a batch that was counted out too often is not purged while others wait for it", async () => {
  const before = new InProcess();
  const { batch: awaited } = await before.call("queue.enqueue", { queue: "q", payloads: [1] });
  await before.call("queue.enqueue", { queue: "q", payloads: [2], after: [awaited.batchId] });
  before.close();
  stepFrom(before.path, "UPDATE pawl_batch_more SET awaited = 0 WHERE awaited = 1");
  const pawl = new InProcess({ path: before.path });
  expect((await pawl.call("queue.purge", { batchIds: [awaited.batchId] })).purged).toBe(0);
});

test("a follower that was left blocked is let go", async () => {
  const before = new InProcess();
  const { batch: first } = await before.call("queue.enqueue", { queue: "q", payloads: [1] });
  const one = { queue: "q", sourceKey: "s", key: "k" };
  await before.call("queue.enqueue", { ...one, payloads: [2], after: [first.batchId] });
  const rerun = { ...one, payloads: [3], onExisting: "rerun" as const };
  const { batch: follower } = await before.call("queue.enqueue", rerun);
  expect(follower.state).toBe("blocked");
  before.close();
  stepFrom(before.path, "UPDATE pawl_batch_more SET follower_seq = NULL, follows_seq = NULL");
  const pawl = new InProcess({ path: before.path });
  expect((await pawl.call("queue.get", { batchId: follower.batchId })).batch.state).toBe("ready");
  const { queues } = await pawl.call("queue.stats", { queue: "q" });
  expect(queues[0]).toMatchObject({ ready: 2, scheduled: 0, blocked: 1 });
  const { claim } = await pawl.call("queue.claim", { batchIds: [follower.batchId], owner: "o" });
  expect(claim?.batches[0]?.batchId).toBe(follower.batchId);
});
