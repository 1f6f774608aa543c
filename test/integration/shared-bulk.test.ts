// Calls about thousands of batches of a shared queue, whose round trips to the database are counted on their way.
import { describe, expect, onTestFinished, test } from "vitest";
import { madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import { makePlace, SilentProxy } from "../shared-daemons.js";

const BATCHES = 1500;

describe.skipIf(!HAS_POSTGRESQL)("many batches of a shared queue", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd, { tcp: true }));

  test("are moved and purged with fewer messages to the database than there are batches", async () => {
    await makePlace(postgres().url());
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const place = new Place();
    await place.start({ args: ["--shared", `s/*=${postgres().url("pawl", proxy.port)}`] });
    const client = await place.connect();
    const enqueued = Array.from({ length: BATCHES }, (_, number) =>
      client.call("queue.enqueue", {
        queue: "s/from",
        payloads: [number],
        sourceKey: `source ${number}`,
        key: `key ${number % 5}`,
      }),
    );
    // One of them stays: its sourceKey is in use where they go.
    enqueued.push(
      client.call("queue.enqueue", { queue: "s/to", payloads: ["there"], sourceKey: "source 7" }),
    );
    await Promise.all(enqueued);
    let messages = 0;
    proxy.onSent = () => {
      messages += 1;
      return "pass";
    };
    const moved = await client.call("queue.move", { queue: "s/from", to: "s/to", state: "ready" });
    expect(moved).toEqual({ moved: BATCHES - 1, kept: 1, more: false });
    expect(messages).toBeLessThan(BATCHES / 2);
    messages = 0;
    const purged = await client.call("queue.purge", { queue: "s/to", states: ["ready"] });
    expect(purged).toEqual({ purged: BATCHES, more: false });
    expect(messages).toBeLessThan(BATCHES / 2);
    const { queues } = await client.call("queue.stats", { queue: "s/from" });
    expect(queues[0]).toMatchObject({ ready: 1 });
  });
});
