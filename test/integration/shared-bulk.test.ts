// Calls about thousands of batches of a shared queue, whose round trips to the database are counted on their way.
import type { Result } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { Session } from "../../daemon/dist/shared/session.js";
import { madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { makePlace, SilentProxy } from "../shared-daemons.js";
import { until } from "../until.js";

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

  test("are waited for by their ids by so many that no turn comes to all of them", async () => {
    const url = postgres().url("waited");
    await makePlace(url);
    const place = new Place();
    await place.start({ args: ["--shared", `s/*=${url}`] });
    const clients = await Promise.all(Array.from({ length: 4 }, () => place.connect()));
    const [client] = clients as [RawClient];
    const enqueue = async (payload: string): Promise<string> =>
      (await client.call("queue.enqueue", { queue: "s/q", payloads: [payload] })).batch.batchId;
    const claim = (from: RawClient, batchId: string, waitMs: number): Promise<Result<"queue.claim">> =>
      from.call("queue.claim", { batchIds: [batchId], owner: "w", waitMs });
    const delayed = Array.from({ length: 1000 }, (_, number) => ({
      queue: "s/q",
      payloads: [number],
      delayMs: 3_600_000,
    }));
    const { batches } = await client.call("queue.enqueueMany", { batches: delayed });
    const last = await enqueue("last");
    const held = (await claim(client, last, 0)).claim as NonNullable<Result<"queue.claim">["claim"]>;
    const others = batches.map(({ batchId }, index) =>
      claim(clients[index % 4] as RawClient, batchId, 3_600_000).catch(() => {}),
    );
    // Less than the 30 s after which everything that waits is tried again.
    const waiting = claim(client, last, 25_000);
    // All wait once those of each connection that came before this do.
    await Promise.all(clients.map((each) => each.call("queue.stats", { queue: "s/q" })));
    await client.call("queue.abandon", { claimId: held.claimId, leaseToken: held.leaseToken });
    expect((await waiting).claim?.batches.map(({ payloads }) => payloads)).toEqual([["last"]]);
    for (const each of clients) each.destroy();
    await Promise.all(others);
  });

  test("that come while another daemon has the queue are added in one turn", async () => {
    const url = postgres().url("taken");
    await makePlace(url);
    const place = new Place();
    await place.start({ args: ["--shared", `s/*=${url}`] });
    const clients = await Promise.all(Array.from({ length: 22 }, () => place.connect()));
    const [client] = clients as [RawClient];
    const enqueue = (number: number): Promise<Result<"queue.enqueue">> =>
      (clients[number] as RawClient).call("queue.enqueue", { queue: "s/q", payloads: [number] });
    const turns = (): number =>
      Number(postgres().psql("SELECT sum(turn) FROM taken.pawl_shared_turn").output.trim());
    await enqueue(0);
    const before = turns();
    // As a turn of another daemon, that lasts.
    const session = await Session.open(url);
    await session.query(
      "SELECT pg_advisory_lock(hashtextextended('pawl taken queue:s/q', 0)) IS NULL AS locked",
    );
    const first = enqueue(1);
    const isWaiting = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    await until(() => postgres().psql(isWaiting).output.trim() === "t");
    const others = Array.from({ length: 20 }, (_, index) => enqueue(index + 2));
    await until(async () => (await client.call("daemon.stats", {})).requests["queue.enqueue"] === 22);
    await session.close();
    await Promise.all([first, ...others]);
    expect(turns() - before).toBe(1);
    const { batches } = await client.call("queue.list", { queue: "s/q", limit: 100 });
    const listed = await Promise.all(batches.map(({ batchId }) => client.call("queue.get", { batchId })));
    const order = listed.map(({ batch }) => batch.payloads?.[0] as number).sort((a, b) => a - b);
    expect(order).toEqual(Array.from({ length: 22 }, (_, number) => number));
  });
});
