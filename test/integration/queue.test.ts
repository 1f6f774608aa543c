// Queues as programs see them: lines on a socket.
import type { Params, Result } from "@pawl/protocol";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place, sharedDaemon, startDaemon } from "../daemon.js";
import { RawClient, type RawReply } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { expectRefusal } from "../refusal.js";

/** For all tests that name what no other one names. */
const daemon = sharedDaemon();

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

async function claim(
  client: RawClient,
  queue: string,
  given: Partial<Params<"queue.claim">> = {},
): Promise<Claim> {
  const result = await client.call("queue.claim", { queue, owner: "test", ...given });
  if (result.claim === null) throw new Error(`there was nothing to claim in ${queue}`);
  return result.claim;
}

function proof({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

/** Starts to wait for a batch, and returns once the daemon has taken it up, with the claim still to come. */
async function startWaiting(
  client: RawClient,
  queue: string,
  given: Partial<Params<"queue.claim">> = {},
): Promise<{ claimed: Promise<Claim> }> {
  const claimed = claim(client, queue, { waitMs: 60_000, ...given });
  claimed.catch(() => {});
  // Requests of one connection are taken up in the order sent.
  await client.call("daemon.ping", {});
  return { claimed };
}

describe("a batch", () => {
  test("is enqueued, claimed, renewed, completed and read, in the shapes of the specification", async () => {
    const client = await daemon().place.connect();
    const { batch, created } = await client.call("queue.enqueue", {
      queue: "shapes",
      payloads: [{ a: 1 }, "two", null],
      sourceKey: "s",
      slotPolicy: "join",
      mergeKey: { group: "g" },
      maxAttempts: 5,
    });
    expect(created).toBe(true);
    expect(batch).toEqual({
      batchId: expect.stringMatching(/^qwb:[0-9a-f]{64}$/),
      queue: "shapes",
      enqueueSeq: expect.any(Number),
      payloads: [{ a: 1 }, "two", null],
      priority: 0,
      key: null,
      sourceKey: "s",
      deliveryPolicy: "earliest_safe_boundary",
      slotPolicy: "join",
      mergeKey: { group: "g" },
      state: "ready",
      attempt: 0,
      maxAttempts: 5,
      retry: null,
      enqueuedAt: expect.any(Number),
      availableAt: batch.enqueuedAt,
    });

    const held = await claim(client, "shapes", { owner: "worker 1" });
    expect(held).toEqual({
      claimId: `qwc:${batch.enqueueSeq}:1`,
      leaseToken: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
      fencingToken: 1,
      queue: "shapes",
      owner: "worker 1",
      claimedAt: expect.any(Number),
      expiresAt: held.claimedAt + 30_000,
      remainingMs: 30_000,
      batches: [
        {
          ...batch,
          state: "claimed",
          claim: {
            owner: "worker 1",
            claimId: held.claimId,
            fencingToken: 1,
            expiresAt: held.expiresAt,
            remainingMs: 30_000,
          },
        },
      ],
    });
    const renewed = await client.call("queue.renew", { ...proof(held), leaseMs: 60_000 });
    expect(renewed.remainingMs).toBe(60_000);
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch.claim?.expiresAt).toBe(
      renewed.expiresAt,
    );
    // The token is for whoever was given it, and nobody else.
    for (const shown of [
      await client.call("queue.get", { batchId: batch.batchId }),
      await client.call("queue.list", { queue: "shapes" }),
      await client.call("queue.explain", { queue: "shapes" }),
    ]) {
      expect(JSON.stringify(shown)).not.toContain(held.leaseToken);
    }
    expect(await client.call("queue.complete", proof(held))).toEqual({ completed: 1 });
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch).toEqual({
      ...batch,
      state: "completed",
    });
    expect(await client.call("queue.claim", { queue: "shapes", owner: "test" })).toEqual({ claim: null });
  });

  test("enqueueSeq rises over all queues, in the order of an enqueueMany", async () => {
    const client = await daemon().place.connect();
    const { batches, created } = await client.call("queue.enqueueMany", {
      batches: ["m1", "m2", "m1", "m3"].map((queue, index) => ({ queue, payloads: [index] })),
    });
    expect(created).toEqual([true, true, true, true]);
    expect(batches.map(({ queue, payloads }) => [queue, payloads[0]])).toEqual([
      ["m1", 0],
      ["m2", 1],
      ["m1", 2],
      ["m3", 3],
    ]);
    const first = (batches[0] as { enqueueSeq: number }).enqueueSeq;
    expect(batches.map(({ enqueueSeq }) => enqueueSeq - first)).toEqual([0, 1, 2, 3]);
    expect((await claim(client, "m1")).batches[0]?.payloads).toEqual([0]);
    expect((await claim(client, "m1")).batches[0]?.payloads).toEqual([2]);
  });

  test("params that cannot be are refused with the place and the value", async () => {
    const client = await daemon().place.connect();
    const good = { queue: "q", payloads: [1] };
    const cases: [string, object, string][] = [
      ["queue.enqueue", { ...good, payloads: [] }, "/payloads"],
      ["queue.enqueue", { ...good, payloads: new Array(1001).fill(1) }, "/payloads"],
      ["queue.enqueue", { ...good, payloads: "1" }, "/payloads"],
      ["queue.enqueue", { ...good, queue: "" }, "/queue"],
      ["queue.enqueue", { ...good, queue: "x".repeat(129) }, "/queue"],
      ["queue.enqueue", { ...good, sourceKey: "" }, "/sourceKey"],
      ["queue.enqueue", { ...good, deliveryPolicy: "later" }, "/deliveryPolicy"],
      ["queue.enqueue", { ...good, slotPolicy: "shared" }, "/slotPolicy"],
      ["queue.enqueue", { ...good, mergeKey: "always" }, "/mergeKey"],
      ["queue.enqueue", { ...good, mergeKey: { group: "" } }, "/mergeKey/group"],
      ["queue.enqueue", { ...good, maxAttempts: -1 }, "/maxAttempts"],
      ["queue.enqueue", { ...good, delayMs: 1, availableAt: 1 }, "/availableAt"],
      ["queue.enqueue", { ...good, delayMs: -1 }, "/delayMs"],
      ["queue.enqueue", { ...good, urgency: 1 }, "/urgency"],
      ["queue.enqueueMany", { batches: [] }, "/batches"],
      ["queue.enqueueMany", { batches: new Array(1001).fill(good) }, "/batches"],
      ["queue.enqueueMany", { batches: [good, { ...good, payload: 1 }] }, "/batches/1/payload"],
      ["queue.claim", { queue: "q" }, "/owner"],
      ["queue.claim", { queue: "q", owner: "o", maxBatches: 0 }, "/maxBatches"],
      ["queue.claim", { queue: "q", owner: "o", maxBatches: 1001 }, "/maxBatches"],
      ["queue.claim", { queue: "q", owner: "o", leaseMs: 99 }, "/leaseMs"],
      ["queue.claim", { queue: "q", owner: "o", leaseMs: 86_400_001 }, "/leaseMs"],
      ["queue.claim", { queue: "q", owner: "o", boundary: "now" }, "/boundary"],
      ["queue.claim", { queue: "q", owner: "o", releaseOn: "exit" }, "/releaseOn"],
      ["queue.list", { queue: "q", state: "done" }, "/state"],
      ["queue.list", { queue: "q", limit: 1001 }, "/limit"],
      ["queue.retry", {}, ""],
      ["queue.retry", { queue: "q", batchId: "b" }, ""],
    ];
    for (const [method, params, path] of cases) {
      const error = expectRefusal(await client.refusal(method, params), "invalid_params");
      expect({
        method,
        params,
        paths: (error.data.issues as { path: string }[]).map((issue) => issue.path),
      }).toEqual({
        method,
        params,
        paths: [path],
      });
    }
  });

  test("one that does not exist is not found", async () => {
    const client = await daemon().place.connect();
    for (const batchId of ["x", `qwb:${"0".repeat(64)}`, `qwb:${"G".repeat(64)}`]) {
      for (const method of ["queue.get", "queue.cancel", "queue.retry"]) {
        const error = expectRefusal(await client.refusal(method, { batchId }), "not_found");
        expect(error.data).toMatchObject({ what: "batch", batchId });
      }
    }
  });

  test("is cancelled once, unless somebody has it or has had it", async () => {
    const client = await daemon().place.connect();
    const enqueue = async (given = {}) =>
      (await client.call("queue.enqueue", { queue: "cancel", payloads: [1], ...given })).batch.batchId;
    const cancel = async (batchId: string) => (await client.call("queue.cancel", { batchId })).outcome;
    const ready = await enqueue();
    const scheduled = await enqueue({ delayMs: 60_000 });
    expect([await cancel(ready), await cancel(ready)]).toEqual(["cancelled", "already_cancelled"]);
    expect(await cancel(scheduled)).toBe("cancelled");
    const claimed = await enqueue({ maxAttempts: 1 });
    const held = await claim(client, "cancel");
    expect(await cancel(claimed)).toBe("already_claimed");
    await client.call("queue.abandon", { ...proof(held), error: "x" });
    expect(await cancel(claimed)).toBe("already_dead");
    const done = await enqueue();
    await client.call("queue.complete", proof(await claim(client, "cancel")));
    expect(await cancel(done)).toBe("already_completed");
  });
});

test("a poison batch is dead after its attempts, which is logged, and the queue flows on; a retry brings it back", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const { batch } = await client.call("queue.enqueue", {
    queue: "q",
    payloads: ["poison"],
    maxAttempts: 2,
    retry: { baseMs: 0 },
  });
  await client.call("queue.enqueue", { queue: "q", payloads: ["good"] });
  for (const error of ["Error: first", "Error: last"]) {
    const held = await claim(client, "q", { owner: "cook" });
    expect(held.batches[0]?.payloads).toEqual(["poison"]);
    const result = await client.call("queue.abandon", { ...proof(held), error });
    expect(result).toEqual(error === "Error: last" ? { released: 0, dead: 1 } : { released: 1, dead: 0 });
  }
  const line = await daemon.logged(({ msg }) => msg === "batches have no attempts left");
  expect(line).toMatchObject({ queue: "q", dead: 1, owner: "cook", pid: process.pid });
  expect(JSON.stringify(daemon.log)).not.toContain("poison");
  expect((await client.call("queue.list", { queue: "q", state: "dead" })).batches).toEqual([
    { ...batch, state: "dead", attempt: 2, lastError: "Error: last", availableAt: expect.any(Number) },
  ]);

  const good = await claim(client, "q");
  expect(good.batches[0]?.payloads).toEqual(["good"]);
  await client.call("queue.complete", proof(good));
  expect(await client.call("queue.claim", { queue: "q", owner: "o" })).toEqual({ claim: null });
  expect(await client.call("queue.retry", { queue: "q" })).toEqual({ retried: 1, more: false });
  const again = await claim(client, "q");
  expect(again.batches[0]).toMatchObject({ payloads: ["poison"], attempt: 0, lastError: "Error: last" });
  expect(await client.call("queue.complete", proof(again))).toEqual({ completed: 1 });
});

describe("payloads are kept byte for byte", () => {
  /** JSON that a parser and a serializer would change. */
  const ODD = [
    "1.0",
    "1e400",
    "-0",
    "12345678901234567890",
    "0.10",
    "1E+2",
    '{"b":1,"a":2,"b":3,"10":1,"2":2}',
    '"\\u0041\\/\\ud800"',
    '{ "space" :\t[ 1 , 2 ] }',
    '{"__proto__":{"x":1}}',
    '"é😀\u2028"',
  ];

  test("from a single request to every reply", async () => {
    const client = await daemon().place.connect();
    const payloads = `[${ODD.join(", ")}]`;
    const line = `{"jsonrpc":"2.0","id":"e","method":"queue.enqueue","params":{"queue":"raw","payloads":[0],"payloads":${payloads} ,"sourceKey":"k"}}`;
    client.write(`${line}\n`);
    const enqueued = await client.line();
    expect(enqueued).toContain(`"payloads":${payloads},`);
    const { result } = JSON.parse(enqueued) as { result: Result<"queue.enqueue"> };
    const ask = async (method: string, params: object) => {
      client.send({ jsonrpc: "2.0", id: "x", method, params });
      return await client.line();
    };
    expect(await ask("queue.get", { batchId: result.batch.batchId })).toContain(`"payloads":${payloads},`);
    expect(await ask("queue.list", { queue: "raw" })).toContain(`"payloads":${payloads},`);
    expect(await ask("queue.claim", { queue: "raw", owner: "o" })).toContain(`"payloads":${payloads},`);
    // Asking again for the same content, written differently, gives what was sent first.
    client.write(`${line.replace("1E+2", "100").replace('{"b":1,"a":2', '{"a":2,"b":1')}\n`);
    const again = await client.line();
    expect(again).toContain(`"payloads":${payloads},`);
    expect(again).toContain('"created":false');
  });

  test("long ones too, which are kept elsewhere", async () => {
    const client = await daemon().place.connect();
    const payloads = `[1.0,"${"\\u0078".repeat(20_000)}", 2.00]`;
    client.write(
      `{"jsonrpc":"2.0","id":"e","method":"queue.enqueue","params":{"queue":"long","payloads":${payloads}}}\n`,
    );
    expect((await client.line()).includes(`"payloads":${payloads},`)).toBe(true);
    client.send({ jsonrpc: "2.0", id: "c", method: "queue.claim", params: { queue: "long", owner: "o" } });
    expect((await client.line()).includes(`"payloads":${payloads},`)).toBe(true);
  });

  test("in a JSON-RPC batch, an enqueueMany and a transact", async () => {
    const client = await daemon().place.connect();
    const one = (id: number, payload: string) =>
      ` { "params" : {"payloads":[${payload}], "queue":"many"} , "method":"queue.enqueue","id":${id},"jsonrpc":"2.0"}`;
    client.write(`[${ODD.map((payload, index) => one(index, payload)).join(",")}]\n`);
    const answers = await client.line();
    for (const payload of ODD) expect(answers).toContain(`"payloads":[${payload}],`);

    const batches = ODD.map((payload) => `{"queue":"many","payloads":[ ${payload} ]}`);
    client.write(
      `{"jsonrpc":"2.0","id":"m","method":"queue.enqueueMany","params":{"batches":[${batches.join()}]}}\n`,
    );
    const many = await client.line();
    for (const payload of ODD) expect(many).toContain(`"payloads":[ ${payload} ],`);

    const calls = ODD.map(
      (payload) => `{"method":"queue.enqueue","params":{"queue":"many","payloads":[${payload} ]}}`,
    );
    calls.push(
      '{"method":"queue.enqueue","params":{"queue":"many","payloads":[1.00,{"of":{"$result":"/0/batch/payloads/0"}}, {"$result":"/3/batch/payloads/0"}]}}',
    );
    client.write(`{"jsonrpc":"2.0","id":"t","method":"transact","params":{"calls":[${calls.join()}]}}\n`);
    const transacted = await client.line();
    for (const payload of ODD) expect(transacted).toContain(`"payloads":[${payload} ],`);
    expect(transacted).toContain('"payloads":[1.00,{"of":1.0}, 12345678901234567890],');
  });

  test("nested as deeply as 512 levels, and no more; more than a line may have is no JSON to the daemon", async () => {
    const client = await daemon().place.connect();
    const nested = (levels: number) => `${"[".repeat(levels)}1.0${"]".repeat(levels)}`;
    const enqueue = async (payload: string, method = "queue.enqueue", sourceKey = "") => {
      const batch = `{"queue":"deep","payloads":[0, ${payload}]${sourceKey}}`;
      const params =
        method === "queue.enqueue" ? batch : `{"batches":[{"queue":"deep","payloads":[1]},${batch}]}`;
      client.write(`{"jsonrpc":"2.0","id":"d","method":"${method}","params":${params}}\n`);
      return JSON.parse(await client.line()) as RawReply;
    };
    expect((await enqueue(nested(512))).result).toBeDefined();
    expect((await enqueue(nested(512), "queue.enqueue", ',"sourceKey":"k"')).result).toBeDefined();
    const refused = [
      await enqueue(nested(513)),
      // With the request, its params and the array of payloads: the most that a line may have.
      await enqueue(nested(597)),
      await enqueue(nested(597), "queue.enqueue", ',"sourceKey":"l"'),
      await enqueue(nested(513), "queue.enqueueMany"),
    ].map(({ error }) => expectRefusal(error, "invalid_params"));
    expect(refused.map(({ data }) => (data.issues as { path: string }[])[0]?.path)).toEqual([
      "/payloads",
      "/payloads",
      "/payloads",
      "/batches/1/payloads",
    ]);
    for (const reply of [
      await enqueue(nested(598)),
      await enqueue(nested(200_000)),
      await enqueue(nested(200_000), "queue.enqueue", ',"sourceKey":"l"'),
      await enqueue(nested(200_000), "queue.enqueueMany"),
    ]) {
      expectRefusal(reply.error, "parse_error");
    }
    expect((await client.call("queue.stats", { queue: "deep" })).queues[0]?.ready).toBe(2);
  });
});

describe("one sourceKey is one batch", () => {
  const content = { payloads: [{ a: 1, b: [1, 2] }], mergeKey: "payload_default" as const };

  test("the same content, whatever its spelling, is the same batch; other content is a conflict", async () => {
    const client = await daemon().place.connect();
    const enqueue = (given: Partial<Params<"queue.enqueue">>) => ({
      queue: "key",
      sourceKey: "k",
      ...content,
      ...given,
    });
    const first = await client.call("queue.enqueue", enqueue({}));
    expect(first.created).toBe(true);
    const same = await client.call("queue.enqueue", enqueue({ payloads: [{ b: [1, 2], a: 1 }] }));
    expect(same).toEqual({ batch: first.batch, created: false, outcome: "existing" });
    // When it is to be delivered is not what it is.
    expect((await client.call("queue.enqueue", enqueue({ delayMs: 500 }))).created).toBe(false);
    for (const other of [
      { payloads: [{ a: 1, b: [2, 1] }] },
      { payloads: [{ a: 1, b: [1, 2] }, 3] },
      { mergeKey: "never" as const },
      { slotPolicy: "join" as const },
      { deliveryPolicy: "after_current_turn_commit" as const },
      { maxAttempts: 3 },
    ]) {
      const { data } = expectRefusal(await client.refusal("queue.enqueue", enqueue(other)), "conflict");
      expect(data).toMatchObject({
        queue: "key",
        sourceKey: "k",
        first: { batchId: first.batch.batchId, payloads: '[{"a":1,"b":[1,2]}]' },
        now: { payloads: JSON.stringify(other.payloads ?? content.payloads) },
      });
    }
    // A key belongs to its queue.
    expect((await client.call("queue.enqueue", { ...enqueue({}), queue: "key2" })).created).toBe(true);
  });

  test("also after it was completed, after it was cancelled and after a restart", async () => {
    const place = new Place();
    let own = await place.start();
    let client = await place.connect();
    const completed = { queue: "q", sourceKey: "completed", ...content };
    const cancelled = { queue: "q", sourceKey: "cancelled", ...content };
    const done = await client.call("queue.enqueue", completed);
    await client.call("queue.complete", proof(await claim(client, "q")));
    const gone = await client.call("queue.enqueue", cancelled);
    await client.call("queue.cancel", { batchId: gone.batch.batchId });
    for (let life = 0; life < 2; life += 1) {
      expect(await client.call("queue.enqueue", completed)).toEqual({
        batch: { ...done.batch, state: "completed" },
        created: false,
        outcome: "existing",
      });
      expect(await client.call("queue.enqueue", cancelled)).toEqual({
        batch: { ...gone.batch, state: "cancelled" },
        created: false,
        outcome: "existing",
      });
      expectRefusal(await client.refusal("queue.enqueue", { ...completed, payloads: [0] }), "conflict");
      expect(await client.call("queue.claim", { queue: "q", owner: "o" })).toEqual({ claim: null });
      await own.end("SIGKILL");
      own = await place.start();
      client = await place.connect();
    }
  });

  test("within one enqueueMany: repeated it is one batch, with other content nothing is done", async () => {
    const client = await daemon().place.connect();
    const batch = { queue: "within", sourceKey: "k", payloads: [1] };
    const { batches, created } = await client.call("queue.enqueueMany", {
      batches: [batch, { ...batch, sourceKey: "l" }, batch, { queue: "within", payloads: [1] }, batch],
    });
    expect(created).toEqual([true, true, false, true, false]);
    expect(batches[2]).toEqual(batches[0]);
    expect(batches[4]).toEqual(batches[0]);
    const error = await client.refusal("queue.enqueueMany", {
      batches: [
        { queue: "within", payloads: ["new"] },
        { ...batch, sourceKey: "m" },
        { ...batch, sourceKey: "m", payloads: [2] },
      ],
    });
    expect(expectRefusal(error, "conflict").data).toMatchObject({
      index: 2,
      sourceKey: "m",
      first: { index: 1 },
    });
    const known = await client.refusal("queue.enqueueMany", {
      batches: [
        { queue: "within", payloads: ["new"] },
        { ...batch, payloads: [2] },
      ],
    });
    expect(expectRefusal(known, "conflict").data).toMatchObject({ index: 1, sourceKey: "k" });
    expect((await client.call("queue.stats", { queue: "within" })).queues[0]?.ready).toBe(3);
  });

  test("from 50 processes at once: one batch", async () => {
    const { place } = daemon();
    const params = { queue: "fifty", sourceKey: "the key", payloads: [{ n: 1 }] };
    const processes = Array.from({ length: 50 }, () =>
      startRaw(place.socket, [{ method: "queue.enqueue", params }]),
    );
    const results = await Promise.all(
      processes.map(async (each) => (await each.line<{ result: Result<"queue.enqueue"> }>(0)).result),
    );
    const client = await place.connect();
    const { batches } = await client.call("queue.list", { queue: "fifty" });
    expect(batches).toHaveLength(1);
    expect(results.map(({ batch }) => batch)).toEqual(results.map(() => batches[0]));
    expect(results.filter(({ created }) => created)).toHaveLength(1);
  });
});

describe("the batches that a claim takes", () => {
  test("a group goes together, as far as one reply holds it", async () => {
    const client = await daemon().place.connect();
    const payload = "x".repeat(300_000);
    const join: Params<"queue.enqueue"> = {
      queue: "large",
      payloads: [payload],
      slotPolicy: "join",
      mergeKey: "payload_default",
    };
    for (let count = 0; count < 5; count += 1) await client.call("queue.enqueue", join);
    const held = await claim(client, "large", { maxBatches: 10 });
    expect(held.batches).toHaveLength(Math.floor(MAX_PAGE_BYTES / 300_600));
    expect((await claim(client, "large", { maxBatches: 10 })).batches).toHaveLength(2);
  });

  test("more than are looked at first", async () => {
    const client = await daemon().place.connect();
    const join: Params<"queue.enqueue"> = {
      queue: "group",
      payloads: [1],
      slotPolicy: "join",
      mergeKey: { group: "g" },
    };
    await client.call("queue.enqueueMany", { batches: new Array(100).fill(join) });
    await client.call("queue.enqueue", { ...join, mergeKey: { group: "h" } });
    await client.call("queue.enqueueMany", { batches: new Array(20).fill(join) });
    const counts: number[] = [];
    for (const maxBatches of [7, 60, 1000, 1000, 1000]) {
      counts.push((await claim(client, "group", { maxBatches })).batches.length);
    }
    expect(counts).toEqual([7, 60, 33, 1, 20]);
  });

  test("at an active turn checkpoint only what may be, and the head gates", async () => {
    const client = await daemon().place.connect();
    const after = { deliveryPolicy: "after_current_turn_commit" } as const;
    await client.call("queue.enqueue", { queue: "gate", payloads: ["after"], ...after });
    await client.call("queue.enqueue", { queue: "gate", payloads: ["early"] });
    const boundary = "active_turn_checkpoint";
    expect(await client.call("queue.claim", { queue: "gate", owner: "o", boundary })).toEqual({
      claim: null,
    });
    expect(await client.call("queue.explain", { queue: "gate" })).toMatchObject({
      claimable: true,
      reason: "boundary",
      ...after,
    });
    expect((await claim(client, "gate")).batches[0]?.payloads).toEqual(["after"]);
    expect((await claim(client, "gate", { boundary })).batches[0]?.payloads).toEqual(["early"]);
  });
});

describe("the views of a queue", () => {
  test("why its head can or cannot be claimed", async () => {
    const client = await daemon().place.connect();
    const explain = () => client.call("queue.explain", { queue: "why" });
    const where = NAMES_ARE_SHARED ? { keptIn: expect.any(String) } : {};
    expect(await explain()).toEqual({
      queue: "why",
      claimable: false,
      reason: "empty",
      dead: 0,
      waiting: 0,
      ...where,
    });
    const soon = await client.call("queue.enqueue", { queue: "why", payloads: [1], delayMs: 60_000 });
    expect(await explain()).toMatchObject({
      claimable: false,
      reason: "scheduled",
      batchId: soon.batch.batchId,
      availableAt: soon.batch.availableAt,
    });
    const { batch } = await client.call("queue.enqueue", { queue: "why", payloads: [1], maxAttempts: 1 });
    expect(await explain()).toMatchObject({ claimable: true, reason: "ready", batchId: batch.batchId });
    await client.call("queue.cancel", { batchId: soon.batch.batchId });
    const held = await claim(client, "why", { owner: "the holder" });
    const { holder, ...rest } = await explain();
    expect(rest).toMatchObject({ claimable: false, reason: "claimed", batchId: batch.batchId });
    expect(holder).toEqual({
      owner: "the holder",
      pid: process.pid,
      claimId: held.claimId,
      fencingToken: held.fencingToken,
      expiresAt: held.expiresAt,
      remainingMs: expect.any(Number),
    });
    const other = await daemon().place.connect();
    await startWaiting(other, "why");
    expect((await explain()).waiting).toBe(1);
    await other.destroy();
    await client.call("queue.abandon", { ...proof(held), error: "broken" });
    expect(await explain()).toEqual({
      queue: "why",
      claimable: false,
      reason: "empty",
      dead: 1,
      waiting: 0,
      ...where,
    });
  });

  test("its batches, page by page, of all states or of one", async () => {
    const client = await daemon().place.connect();
    expect(await client.call("queue.list", { queue: "pages" })).toEqual({ batches: [] });
    const { batches } = await client.call("queue.enqueueMany", {
      batches: Array.from({ length: 25 }, (_, index) => ({
        queue: "pages",
        payloads: [index],
        maxAttempts: 1,
      })),
    });
    for (let count = 0; count < 9; count += 1) {
      const held = await claim(client, "pages");
      if (count % 3 === 0) await client.call("queue.complete", proof(held));
      if (count % 3 === 1) await client.call("queue.abandon", { ...proof(held), error: "x" });
    }
    const pages = async (params: Partial<Params<"queue.list">>) => {
      const found: number[] = [];
      let pagesRead = 0;
      let after: number | undefined;
      do {
        const page = await client.call("queue.list", {
          queue: "pages",
          ...params,
          ...(after === undefined ? {} : { after }),
        });
        found.push(...page.batches.map(({ payloads }) => payloads[0] as number));
        after = page.next;
        pagesRead += 1;
      } while (after !== undefined);
      return { found, pagesRead };
    };
    expect(await pages({ limit: 4 })).toEqual({ found: batches.map((_, index) => index), pagesRead: 7 });
    expect(await pages({ limit: 25 })).toMatchObject({ pagesRead: 1 });
    expect((await pages({ state: "completed", limit: 2 })).found).toEqual([0, 3, 6]);
    expect((await pages({ state: "dead", limit: 2 })).found).toEqual([1, 4, 7]);
    expect((await pages({ state: "claimed", limit: 2 })).found).toEqual([2, 5, 8]);
    expect((await pages({ state: "ready", limit: 5 })).found).toHaveLength(16);
    expect((await pages({ state: "cancelled" })).found).toEqual([]);
  });

  test("a page stops where a reply would grow too large", async () => {
    const client = await daemon().place.connect();
    for (let count = 0; count < 4; count += 1) {
      await client.call("queue.enqueue", { queue: "big", payloads: ["x".repeat(400_000)] });
    }
    const first = await client.call("queue.list", { queue: "big" });
    expect(first.batches).toHaveLength(2);
    const second = await client.call("queue.list", { queue: "big", after: first.next as number });
    expect(second.batches).toHaveLength(2);
    expect(second.next).toBeUndefined();
  });

  test("how many batches of which state, of one queue and of all", async () => {
    const own = await startDaemon();
    const client = await own.place.connect();
    const none = {
      ready: 0,
      scheduled: 0,
      blocked: 0,
      claimed: 0,
      completed: 0,
      dead: 0,
      cancelled: 0,
      expired: 0,
    };
    const paused = false;
    expect(await client.call("queue.stats", {})).toEqual({ queues: [] });
    expect(await client.call("queue.stats", { queue: "b" })).toEqual({
      queues: [{ queue: "b", ...none, paused, oldestReadyMs: null }],
    });
    const batches = ["b", "a", "b", "c", "b"].map((queue) => ({ queue, payloads: [1] }));
    await client.call("queue.enqueueMany", { batches });
    await client.call("queue.enqueue", { queue: "a", payloads: [1], delayMs: 60_000 });
    await claim(client, "b");
    await client.call("queue.complete", proof(await claim(client, "b")));
    const { queues } = await client.call("queue.stats", {});
    expect(queues).toEqual([
      { queue: "a", ...none, ready: 1, scheduled: 1, paused, oldestReadyMs: expect.any(Number) },
      { queue: "b", ...none, ready: 1, claimed: 1, completed: 1, paused, oldestReadyMs: expect.any(Number) },
      { queue: "c", ...none, ready: 1, paused, oldestReadyMs: expect.any(Number) },
    ]);
    const page = await client.call("queue.stats", { limit: 2 });
    expect([page.queues.map(({ queue }) => queue), page.next]).toEqual([["a", "b"], "b"]);
    const rest = await client.call("queue.stats", { limit: 2, after: "b" });
    expect([rest.queues.map(({ queue }) => queue), rest.next]).toEqual([["c"], undefined]);
    // Gauges have what is in its own database.
    if (NAMES_ARE_SHARED) return;
    expect((await client.call("daemon.stats", {})).queues).toEqual({
      ...none,
      ready: 3,
      scheduled: 1,
      claimed: 1,
      completed: 1,
    });
  });
});

describe("a claim that waits", () => {
  test("answers null when its time is over, and does not hold up its connection meanwhile", async () => {
    const client = await daemon().place.connect();
    const started = performance.now();
    let isOver = false;
    const waiting = client.call("queue.claim", { queue: "none", owner: "o", waitMs: 1000 }).finally(() => {
      isOver = true;
    });
    await client.call("daemon.ping", {});
    expect(isOver).toBe(false);
    expect(await waiting).toEqual({ claim: null });
    expect(performance.now() - started).toBeGreaterThanOrEqual(999);
  });

  test("is served by what comes by itself: the time of a batch, the end of a lease", async () => {
    const client = await daemon().place.connect();
    await client.call("queue.enqueue", { queue: "time", payloads: [1], delayMs: 100, maxAttempts: 2 });
    const { claimed } = await startWaiting(client, "time", { leaseMs: 100, owner: "first" });
    const first = await claimed;
    const second = await startWaiting(client, "time", { owner: "second" });
    const { claimedAt, fencingToken } = await second.claimed;
    expect(claimedAt).toBeGreaterThanOrEqual(first.expiresAt);
    expect(fencingToken).toBeGreaterThan(first.fencingToken);
  });

  test("gets its batch also after its client has shut its writing side", async () => {
    const { place } = daemon();
    const client = await place.connect();
    const { claimed } = await startWaiting(client, "half", { releaseOn: "disconnect" });
    client.socket.end();
    const other = await place.connect();
    // The end has been seen when the daemon answers what was sent behind it on the other connection.
    await other.call("daemon.ping", {});
    const { batch } = await other.call("queue.enqueue", { queue: "half", payloads: ["late"] });
    expect((await claimed).batches[0]?.batchId).toBe(batch.batchId);
    // With nothing left to answer, the daemon closes too, and the claim that was bound to it ends.
    await client.closed;
    const { claimed: next } = await startWaiting(other, "half");
    expect((await next).batches[0]).toMatchObject({ batchId: batch.batchId, attempt: 1 });
  });

  test("ends with its connection: nothing is granted to nobody", async () => {
    const { place } = daemon();
    const gone = await place.connect();
    await startWaiting(gone, "closed");
    await gone.destroy();
    const client = await place.connect();
    await expect.poll(async () => (await client.call("queue.explain", { queue: "closed" })).waiting).toBe(0);
    const { batch } = await client.call("queue.enqueue", { queue: "closed", payloads: [1] });
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch.state).toBe("ready");
  });

  test("in a JSON-RPC batch is answered with the others, and in a transact refused", async () => {
    const client = await daemon().place.connect();
    const params = { queue: "rpc", owner: "o", waitMs: 60_000 };
    client.send([
      { jsonrpc: "2.0", id: 1, method: "queue.claim", params },
      { jsonrpc: "2.0", id: 2, method: "queue.enqueue", params: { queue: "rpc", payloads: [1.5] } },
    ]);
    const answers = JSON.parse(await client.line()) as { id: number; result: Result<"queue.claim"> }[];
    expect(answers.find(({ id }) => id === 1)?.result.claim?.batches[0]?.payloads).toEqual([1.5]);
    const error = await client.refusal("transact", { calls: [{ method: "queue.claim", params }] });
    expect(expectRefusal(error, "invalid_params").message).toContain("queue.claim");
  });

  test("is told that the daemon stops", async () => {
    const own = await startDaemon();
    const client = await own.place.connect();
    const { claimed } = await startWaiting(client, "q");
    await own.end();
    await expect(claimed).rejects.toMatchObject({ kind: "unavailable" });
  });
});

describe("in a transact", () => {
  test("a claim guards: take an id, enqueue under it and complete, all or nothing", async () => {
    const client = await daemon().place.connect();
    await client.call("queue.enqueue", { queue: "in", payloads: ["order"] });
    const held = await claim(client, "in");
    const calls = [
      { method: "sequence.next", params: { type: "ORDER" } },
      { method: "queue.enqueue", params: { queue: "out", payloads: [{ id: { $result: "/0/id" } }] } },
      { method: "queue.complete", params: proof(held) },
    ];
    const guards = [{ claim: proof(held) }];
    const { results } = await client.call("transact", { calls, guards });
    expect(results).toMatchObject([{ id: "ORDER-001" }, { created: true }, { completed: 1 }]);
    expect((await claim(client, "out")).batches[0]?.payloads).toEqual([{ id: "ORDER-001" }]);

    // Once it is completed it is not held, though completing again would succeed.
    const lost = expectRefusal(await client.refusal("transact", { calls, guards }), "claim_lost");
    expect(lost.data).toMatchObject({ claimId: held.claimId, guard: 0 });
    const wrong = [{ claim: { ...proof(held), leaseToken: "x" } }];
    expectRefusal(await client.refusal("transact", { calls, guards: wrong }), "claim_lost");
    expect(await client.call("sequence.peek", { type: "ORDER" })).toMatchObject({ seq: 2 });
    expect((await client.call("queue.stats", { queue: "out" })).queues[0]?.ready).toBe(0);
  });

  test("a refusal undoes what was enqueued and completed before it, and wakes nobody", async () => {
    const { place } = daemon();
    const client = await place.connect();
    await client.call("queue.enqueue", { queue: "undo", payloads: [1] });
    const held = await claim(client, "undo");
    const other = await place.connect();
    const { claimed } = await startWaiting(other, "undo");
    const error = await client.refusal("transact", {
      calls: [
        { method: "queue.enqueue", params: { queue: "undo", payloads: [2] } },
        { method: "queue.abandon", params: proof(held) },
        { method: "queue.get", params: { batchId: "none" } },
      ],
    });
    expect(expectRefusal(error, "not_found").data.index).toBe(2);
    expect((await client.call("queue.stats", { queue: "undo" })).queues[0]).toMatchObject({
      ready: 0,
      claimed: 1,
    });
    await client.call("queue.abandon", proof(held));
    expect((await claimed).batches[0]?.payloads).toEqual([1]);
  });
});

test("a claim with releaseOn disconnect passes to a waiting worker the moment its process dies", async () => {
  const { place } = await startDaemon();
  const client = await place.connect();
  const params = { queue: "handover", owner: "victim", leaseMs: 60_000, releaseOn: "disconnect" };
  const latencies: number[] = [];
  let lastToken = 0;
  await client.call("queue.enqueue", {
    queue: "handover",
    payloads: [1],
    maxAttempts: 0,
    retry: { baseMs: 0 },
  });
  for (let round = 0; round < 10; round += 1) {
    const victim = startRaw(place.socket, [{ method: "queue.claim", params }]);
    const { result } = await victim.line<{ result: { claim: Claim } }>(0);
    const { claimed } = await startWaiting(client, "handover", { leaseMs: 60_000 });
    const killed = performance.now();
    victim.child.kill("SIGKILL");
    // With a lease of a minute, only the end of the connection can end it in the time of this test.
    const held = await claimed;
    latencies.push(performance.now() - killed);
    expect(result.claim.fencingToken).toBeGreaterThan(lastToken);
    expect(held.fencingToken).toBeGreaterThan(result.claim.fencingToken);
    lastToken = held.fencingToken;
    expectRefusal(await client.refusal("queue.renew", proof(result.claim)), "claim_lost");
    await client.call("queue.abandon", proof(held));
  }
  latencies.sort((a, b) => a - b);
  console.log(
    `from kill -9 of a worker to the claim of the next: median ${latencies[5]?.toFixed(1)} ms, most ${latencies[9]?.toFixed(1)} ms`,
  );
  const { batches } = await client.call("queue.list", { queue: "handover" });
  expect(batches).toMatchObject([{ attempt: 10, lastError: expect.stringMatching(/victim.*connection/) }]);
});

// It reads the file of the one that writes.
test.skipIf(NAMES_ARE_SHARED)("a read-only daemon shows queues, and changes nothing", async () => {
  const writer = await startDaemon();
  const client = await writer.place.connect();
  const { batch } = await client.call("queue.enqueue", { queue: "q", payloads: [1.5] });
  const socket = `${writer.place.directory}/read.sock`;
  const reader = writer.place.spawn({ args: ["--read-only", "--socket", socket] });
  await reader.listening;
  const reading = await RawClient.connect(socket);
  expect((await reading.call("queue.get", { batchId: batch.batchId })).batch).toEqual(batch);
  expect((await reading.call("queue.stats", {})).queues).toMatchObject([{ queue: "q", ready: 1 }]);
  expect(await reading.call("queue.explain", { queue: "q" })).toMatchObject({
    claimable: true,
    waiting: null,
  });
  for (const [method, params] of [
    ["queue.enqueue", { queue: "q", payloads: [1] }],
    ["queue.claim", { queue: "q", owner: "o" }],
    ["queue.cancel", { batchId: batch.batchId }],
  ] as const) {
    expectRefusal(await reading.refusal(method, params), "read_only");
  }
});
