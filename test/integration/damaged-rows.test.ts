// Rows that cannot be read any more are an error of the call that asks for them, and of no other.
// Not over shared names: it is about the daemon's own database.
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { Place } from "../daemon.js";

test.each([
  ["payloads", "UPDATE pawl_batch SET payloads = '[1,' WHERE enqueue_seq = 1"],
  ["an id", `UPDATE pawl_batch SET batch_id = '"' || substr(batch_id, 2) WHERE enqueue_seq = 1`],
  ["a policy", `UPDATE pawl_batch SET slot_policy = 'ex"clusive' WHERE enqueue_seq = 1`],
])("%s that a flipped bit has changed never become a reply that is no JSON", async (_what, damage) => {
  const place = new Place();
  const first = await place.start();
  const client = await place.connect();
  for (const payload of ["damaged", "whole"]) {
    await client.call("queue.enqueue", { queue: payload, payloads: [payload] });
  }
  await client.call("command.create", { deployment: "d", command: "c", params: { a: 1 } });
  await first.end();
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.exec(damage);
  database.exec("UPDATE pawl_command_params SET params = '{\"a\":'");
  database.close();
  const again = await place.start();
  const reader = await place.connect();
  const [refusedClaim, refusedList, refusedLease, claimed, listed] = await Promise.all([
    reader.refusal("queue.claim", { queue: "damaged", owner: "o" }),
    reader.refusal("queue.list", { queue: "damaged" }),
    reader.refusal("command.lease", { deployment: "d", owner: "o" }),
    reader.call("queue.claim", { queue: "whole", owner: "o" }),
    reader.call("queue.stats", { queue: "damaged" }),
  ]);
  for (const { data, message } of [refusedClaim, refusedList, refusedLease]) {
    expect(data).toEqual({ kind: "internal", retryable: false, reference: expect.any(String) });
    expect(message).toMatch(/^The (batch with enqueueSeq 1|command cmd_\S+) is damaged in the database: /);
    expect(message).toContain("`pawl check` lists all that is damaged");
    expect(message).toContain(String(data.reference));
  }
  expect(claimed.claim?.batches[0]?.payloads).toEqual(["whole"]);
  expect(listed.queues[0]).toMatchObject({ ready: 1, claimed: 0 });
  expect(await again.end()).toBe(0);
});

test("a counter above all numbers is damaged, and told as that by whatever reads it", async () => {
  const place = new Place();
  const first = await place.start();
  const client = await place.connect();
  for (const type of ["FR", "NFR"]) await client.call("sequence.next", { type });
  await first.end();
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.exec("UPDATE pawl_sequence SET last = 9223372036854775807 WHERE type = 'FR'");
  database.close();
  await place.start();
  const again = await place.connect();
  const refusals = [
    await again.refusal("sequence.next", { type: "FR" }),
    await again.refusal("sequence.reserve", { type: "FR", count: 2 }),
    await again.refusal("sequence.peek", { type: "FR" }),
    await again.refusal("sequence.advance", { type: "FR", to: 7 }),
    await again.refusal("sequence.grant", { type: "FR", first: 1, last: 7 }),
    await again.refusal("sequence.state", {}),
  ];
  for (const { data, message } of refusals) {
    expect(data).toMatchObject({ kind: "internal" });
    expect(message).toMatch(
      /^The counter of FR is damaged in the database: it stands above 9007199254740991\./,
    );
  }
  expect(await again.call("sequence.next", { type: "NFR" })).toMatchObject({ seq: 2 });
});
