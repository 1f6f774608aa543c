// Waits that are ended by those who began them (rpc.cancel), at the socket. With PAWL_TORTURE=1 a cancel meets a grant
// a thousand times.
import { join } from "node:path";
import { setImmediate as nextLoop } from "node:timers/promises";
import type { MethodName, Params, Result } from "@pawl/protocol";
import { ERRORS } from "@pawl/protocol/errors";
import { MAX_IN_FLIGHT_REQUESTS, MAX_WAITS_PER_CONNECTION } from "@pawl/protocol/limits";
import type { OneLease } from "@pawl/protocol/types";
import { describe, expect, test } from "vitest";
import { privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { Faulty } from "../faulty.js";
import { sized } from "../long-form.js";
import { RawClient, type RawReply } from "../raw-client.js";
import { until } from "../until.js";
import { startWorker } from "../worker.js";

const daemon = sharedDaemon();
const OWNER = "test";
const WAIT_MS = 3_600_000;
/** How often a cancel meets a grant. */
const ROUNDS = sized(1000, 100);
/** The same for each method, from another language. */
const ROUNDS_OF_EACH = sized(1000, 30);

type Id = string | number | null;

function request<N extends MethodName>(id: Id, method: N, params: Params<N>): object {
  return { jsonrpc: "2.0", id, method, params };
}

function cancelRequest(id: Id, cancelled: Id): object {
  return request(id, "rpc.cancel", { id: cancelled });
}

/** Sends messages in one write, so that they are taken up together. */
function sendAll(client: RawClient, messages: readonly object[]): void {
  client.write(messages.map((each) => `${JSON.stringify(each)}\n`).join(""));
}

function claimRequest(id: Id, queue: string): object {
  return request(id, "queue.claim", { queue, owner: OWNER, waitMs: WAIT_MS });
}

/** The next replies, by their ids; each id may be there once. */
async function replies(client: RawClient, count: number): Promise<Map<Id, RawReply>> {
  const found = new Map<Id, RawReply>();
  for (let index = 0; index < count; index++) {
    const reply = await client.reply();
    expect(found.has(reply.id), `${reply.id} is answered once`).toBe(false);
    found.set(reply.id, reply);
  }
  return found;
}

const CANCELLED = { code: ERRORS.cancelled.code, data: { kind: "cancelled", retryable: false } };

/** A call of each method that waits, and what makes its condition true and shows that nobody was given anything. */
const WAITING: readonly {
  method: MethodName;
  begin: (client: RawClient) => Promise<Record<string, unknown>>;
  after: (client: RawClient) => Promise<void>;
}[] = [
  {
    method: "queue.claim",
    begin: async () => ({ queue: "cancel-each", owner: OWNER }),
    after: async (client) => {
      const { batch } = await client.call("queue.enqueue", { queue: "cancel-each", payloads: [1] });
      expect(await client.call("queue.get", { batchId: batch.batchId })).toMatchObject({
        batch: { state: "ready", attempt: 0 },
      });
    },
  },
  {
    method: "lease.acquire",
    begin: async (client) => {
      await client.call("lease.acquire", { name: "cancel-each", owner: "holder" });
      return { name: "cancel-each", owner: OWNER };
    },
    after: async (client) => {
      await client.call("lease.break", { name: "cancel-each", reason: "test" });
      expect(await client.call("lease.get", { name: "cancel-each" })).toMatchObject({
        lease: null,
        holders: [],
      });
    },
  },
  {
    method: "command.lease",
    begin: async () => ({ deployment: "cancel-each", owner: OWNER }),
    after: async (client) => {
      const { commandId } = await client.call("command.create", { deployment: "cancel-each", command: "go" });
      expect(await client.call("command.get", { commandId })).toMatchObject({
        state: "PENDING",
        dispatchedAt: null,
      });
    },
  },
  {
    method: "command.wait",
    begin: async (client) => {
      const { commandId } = await client.call("command.create", { deployment: "cancel-wait", command: "go" });
      return { commandId };
    },
    after: async () => {},
  },
  {
    method: "pipeline.watch",
    begin: async (client) => ({ ...(await client.call("pipeline.watch", {})).valueOf(), since: 0 }),
    after: async () => {},
  },
];

describe("each method that waits", () => {
  test.each(WAITING)(
    "$method is ended, is answered once, and is granted nothing",
    async ({ method, begin, after }) => {
      const [client, other] = await Promise.all([daemon().place.connect(), daemon().place.connect()]);
      const params = { ...(await begin(other)), waitMs: WAIT_MS } as Record<string, unknown>;
      if (method === "pipeline.watch") {
        params.since = params.revision;
        delete params.revision;
      }
      client.send(request("wait", method, params as Params<MethodName>));
      // What is sent after it is answered before it.
      expect(await client.ask(JSON.stringify(request("ping", "daemon.ping", {})))).toMatchObject({
        id: "ping",
      });
      sendAll(client, [cancelRequest("cancel", "wait"), cancelRequest("again", "wait")]);
      const answers = await replies(client, 3);
      expect(answers.get("wait")?.error).toMatchObject(CANCELLED);
      expect(answers.get("cancel")?.result).toEqual({ cancelled: true });
      expect(answers.get("again")?.result).toEqual({ cancelled: false });
      await after(other);
      await client.call("daemon.ping", {});
      expect(client.lines).toEqual([]);
    },
  );
});

describe("a cancel", () => {
  test("as the notification of the Language Server Protocol is not answered itself", async () => {
    const client = await daemon().place.connect();
    sendAll(client, [
      claimRequest(1, "cancel-lsp"),
      { jsonrpc: "2.0", method: "$/cancelRequest", params: { id: 1 } },
    ]);
    expect((await client.reply()).error).toMatchObject(CANCELLED);
    sendAll(client, [
      claimRequest(2, "cancel-lsp"),
      { jsonrpc: "2.0", method: "rpc.cancel", params: { id: 2 } },
    ]);
    expect((await client.reply()).error).toMatchObject(CANCELLED);
    // A wrong one is not answered either.
    sendAll(client, [
      { jsonrpc: "2.0", method: "$/cancelRequest" },
      { jsonrpc: "2.0", method: "$/setTrace", params: { value: "off" } },
      request("ping", "daemon.ping", {}),
    ]);
    expect((await client.reply()).id).toBe("ping");
  });

  test("ends all requests with its id, of each kind of id, and none of another connection", async () => {
    const [client, other] = await Promise.all([daemon().place.connect(), daemon().place.connect()]);
    const queue = "cancel-ids";
    other.send(claimRequest(7, queue));
    await other.ask(JSON.stringify(request("ping", "daemon.ping", {})));
    const ids = ["7", 7, 7, 7.5, null, "x".repeat(1024)];
    sendAll(client, [
      ...ids.map((id) => claimRequest(id, queue)),
      ...[...new Set(ids)].map((id) => cancelRequest(`cancel ${id}`.slice(0, 20), id)),
    ]);
    const answered: RawReply[] = [];
    while (answered.length < ids.length + 5) answered.push(await client.reply());
    const ended = answered.filter(({ error }) => error?.data.kind === "cancelled");
    expect(ended.map(({ id }) => id)).toEqual(ids);
    expect(answered.flatMap(({ result }) => result ?? [])).toEqual(Array(5).fill({ cancelled: true }));
    expect((await client.refusal("rpc.cancel", { id: {} })).data.kind).toBe("invalid_params");
    expect((await client.refusal("rpc.cancel", {})).data.kind).toBe("invalid_params");
    await client.call("queue.enqueue", { queue, payloads: [1] });
    expect((await other.reply()).result).toMatchObject({ claim: { batches: [{}] } });
  });

  test("reaches a request within a batch, which then is answered as a whole", async () => {
    const client = await daemon().place.connect();
    const ping = request("ping", "daemon.ping", {});
    client.write(
      `${JSON.stringify([ping, claimRequest(1, "cancel-batch"), claimRequest(2, "cancel-batch")])}\n`,
    );
    client.send(cancelRequest("first", 1));
    expect(await client.reply()).toMatchObject({ id: "first", result: { cancelled: true } });
    client.send(cancelRequest("second", 2));
    const [batch, second] = [JSON.parse(await client.line()), await client.reply()].toSorted((a, b) =>
      Array.isArray(a) ? -1 : Array.isArray(b) ? 1 : 0,
    );
    expect(second).toMatchObject({ id: "second", result: { cancelled: true } });
    expect(batch).toMatchObject([{ id: "ping" }, { id: 1, error: CANCELLED }, { id: 2, error: CANCELLED }]);
    // A batch may hold both.
    client.write(`${JSON.stringify([claimRequest(3, "cancel-batch"), cancelRequest("own", 3)])}\n`);
    expect(JSON.parse(await client.line())).toMatchObject([
      { id: 3, error: CANCELLED },
      { id: "own", result: { cancelled: true } },
    ]);
  });

  test("acts in its place: what was granted before it in the same turn stays granted", async () => {
    const client = await daemon().place.connect();
    const queue = "cancel-place";
    sendAll(client, [
      claimRequest("claim", queue),
      request("batch", "queue.enqueue", { queue, payloads: [1] }),
      cancelRequest("cancel", "claim"),
    ]);
    const granted = await replies(client, 3);
    expect(granted.get("claim")?.result).toMatchObject({ claim: { fencingToken: 1 } });
    expect(granted.get("cancel")?.result).toEqual({ cancelled: false });
    sendAll(client, [
      claimRequest("claim", queue),
      cancelRequest("cancel", "claim"),
      request("batch", "queue.enqueue", { queue, payloads: [2] }),
    ]);
    const cancelled = await replies(client, 3);
    expect(cancelled.get("claim")?.error).toMatchObject(CANCELLED);
    expect(cancelled.get("cancel")?.result).toEqual({ cancelled: true });
    expect((await client.call("queue.claim", { queue, owner: OWNER })).claim).toMatchObject({
      fencingToken: 2,
      batches: [{ payloads: [2] }],
    });
  });

  test("does not end what is done in steps: its place comes after the last of them", async () => {
    const client = await daemon().place.connect();
    const queue = "cancel-steps";
    const batches = Array.from({ length: 600 }, () => ({
      queue,
      payloads: [1],
      slotPolicy: "join" as const,
      mergeKey: { group: "g" },
      maxAttempts: 1,
    }));
    await client.call("queue.enqueueMany", { batches });
    const { claim } = await client.call("queue.claim", { queue, owner: OWNER, maxBatches: 1000 });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    expect(await client.call("queue.abandon", { claimId, leaseToken, error: "no" })).toEqual({
      released: 0,
      dead: 600,
    });
    sendAll(client, [request("retry", "queue.retry", { queue }), cancelRequest("cancel", "retry")]);
    const answers = await replies(client, 2);
    expect(answers.get("retry")?.result).toMatchObject({ retried: 600 });
    expect(answers.get("cancel")?.result).toEqual({ cancelled: false });
  });

  test("gets through when as many requests wait as may", async () => {
    const client = await daemon().place.connect();
    const queue = "cancel-full";
    sendAll(
      client,
      Array.from({ length: MAX_WAITS_PER_CONNECTION + 1 }, (_, id) => claimRequest(id, queue)),
    );
    expect((await client.reply()).error?.data.kind).toBe("exhausted");
    client.send(cancelRequest("cancel", 0));
    const answers = await replies(client, 2);
    expect(answers.get(0)?.error).toMatchObject(CANCELLED);
    expect(answers.get("cancel")?.result).toEqual({ cancelled: true });
    // There is room for one more.
    sendAll(client, [claimRequest("next", queue), request("ping", "daemon.ping", {})]);
    expect((await client.reply()).id).toBe("ping");
  });

  test("gets through when as many requests are in flight as may, and makes room for others", async () => {
    const client = await daemon().place.connect();
    const pings = (count: number): object[] =>
      Array.from({ length: count }, (_, index) => request(`ping ${index}`, "daemon.ping", {}));
    const whole = [claimRequest("first", "cancel-flight"), ...pings(MAX_IN_FLIGHT_REQUESTS - 1)];
    client.write(`${JSON.stringify(whole)}\n`);
    client.send(cancelRequest("cancel", "first"));
    client.send(request("after", "daemon.ping", {}));
    const lines = [await client.line(), await client.line(), await client.line()].map((line) =>
      JSON.parse(line),
    );
    const batch = lines.find((each) => Array.isArray(each)) as RawReply[];
    expect(batch).toHaveLength(MAX_IN_FLIGHT_REQUESTS);
    expect(batch[0]?.error).toMatchObject(CANCELLED);
    expect(lines).toContainEqual({ jsonrpc: "2.0", id: "cancel", result: { cancelled: true } });
    expect(lines).toContainEqual({ jsonrpc: "2.0", id: "after", result: { now: expect.any(Number) } });
  });

  test("is served where only reads are", async () => {
    const directory = privateDirectory();
    const readsOnly = join(directory, "reads.sock");
    const { place } = await startDaemon({ args: ["--read-only-socket", readsOnly] });
    const [client, writer] = await Promise.all([RawClient.connect(readsOnly), place.connect()]);
    const { commandId } = await writer.call("command.create", { deployment: "cancel-reads", command: "go" });
    sendAll(client, [
      request("wait", "command.wait", { commandId, waitMs: WAIT_MS }),
      cancelRequest("cancel", "wait"),
    ]);
    expect((await replies(client, 2)).get("wait")?.error).toMatchObject(CANCELLED);
  });
});

/**
 * Brings what grants and the cancel together: how much later the cancel is sent than the grant, in turns of the event
 * loop. Less than 0 sends it before. Each round moves towards the other outcome, further while that does not come.
 */
class Moment {
  #loops = 0;
  #step = 1;
  #wasCancelled: boolean | undefined;

  /** Begins both; resolves when both are begun. */
  async meet(grant: () => void, cancel: () => void): Promise<void> {
    const [first, second] = this.#loops < 0 ? [cancel, grant] : [grant, cancel];
    first();
    for (let index = 0; index < Math.abs(this.#loops); index++) await nextLoop();
    second();
  }

  /** @param cancelled whether the cancel came first. */
  after(cancelled: boolean): void {
    this.#step = cancelled === this.#wasCancelled ? this.#step * 2 : 1;
    this.#wasCancelled = cancelled;
    this.#loops += cancelled ? this.#step : -this.#step;
  }
}

/** The two answers of a round: that of the wait, and whether the cancel says that it ended it. */
async function outcome(client: RawClient, round: number): Promise<{ wait: RawReply; cancelled: boolean }> {
  const answers = await replies(client, 2);
  const { result } = answers.get(`cancel ${round}`) as RawReply;
  return { wait: answers.get(round) as RawReply, cancelled: (result as { cancelled: boolean }).cancelled };
}

describe(`around the moment of the grant, ${ROUNDS} times`, { timeout: sized(600_000, 120_000) }, () => {
  test("a claim is granted or cancelled, and nothing that was granted is left", async () => {
    const [client, other] = await Promise.all([daemon().place.connect(), daemon().place.connect()]);
    const queue = "cancel-race";
    const count = { granted: 0, cancelled: 0 };
    const moment = new Moment();
    for (let round = 0; round < ROUNDS; round++) {
      client.send(claimRequest(round, queue));
      let enqueued: Promise<Result<"queue.enqueue">> | undefined;
      await moment.meet(
        () => {
          enqueued = other.call("queue.enqueue", { queue, payloads: [round] });
        },
        () => client.send(cancelRequest(`cancel ${round}`, round)),
      );
      const { wait, cancelled } = await outcome(client, round);
      const { batch } = (await enqueued) as Result<"queue.enqueue">;
      moment.after(cancelled);
      if (cancelled) expect(wait.error).toMatchObject(CANCELLED);
      count[cancelled ? "cancelled" : "granted"] += 1;
      // The one batch is with the waiter, or is still there for the next one, untouched.
      const { claim } = cancelled
        ? await other.call("queue.claim", { queue, owner: OWNER })
        : (wait.result as Result<"queue.claim">);
      const { claimId, leaseToken, batches } = claim as NonNullable<typeof claim>;
      expect(batches).toMatchObject([{ batchId: batch.batchId, attempt: 0 }]);
      expect(await other.call("queue.complete", { claimId, leaseToken })).toEqual({ completed: 1 });
    }
    expect(count.granted).toBeGreaterThan(0);
    expect(count.cancelled).toBeGreaterThan(0);
    expect((await other.call("queue.stats", { queue })).queues).toMatchObject([
      { ready: 0, claimed: 0, completed: ROUNDS },
    ]);
    expect(client.lines).toEqual([]);
  });

  test("a lease is granted or cancelled, and its name is free afterwards", async () => {
    const [client, other] = await Promise.all([daemon().place.connect(), daemon().place.connect()]);
    const count = await raceForLease(client, other, "cancel-race", ROUNDS);
    expect(count.granted).toBeGreaterThan(0);
    expect(count.cancelled).toBeGreaterThan(0);
  });

  test("so is a lease that a provider keeps", async ({ onTestFinished: atEnd }) => {
    const faulty = new Faulty(atEnd);
    const { place } = await faulty.start();
    const [client, other] = await Promise.all([place.connect(), place.connect()]);
    // A round asks the provider several times.
    const count = await raceForLease(client, other, "out/cancel-race", ROUNDS / 2, 10_000);
    expect(count.granted).toBeGreaterThan(0);
    expect(count.cancelled).toBeGreaterThan(0);
  });

  test("a program in Python finds the same with each method that waits", async () => {
    const { place } = await startDaemon();
    const { printed } = startWorker<Record<string, [number, number]>>("cancel.py", [
      place.socket,
      String(ROUNDS_OF_EACH),
    ]);
    const counts = await printed;
    const { methods } = await (await place.connect()).call("rpc.discover", {});
    const waiting = (methods as { name: string; params: { name: string }[] }[]).filter(({ params }) =>
      params.some(({ name }) => name === "waitMs"),
    );
    expect(Object.keys(counts).sort()).toEqual(waiting.map(({ name }) => name).sort());
    for (const [method, [granted, cancelled]] of Object.entries(counts)) {
      expect([method, granted + cancelled]).toEqual([method, ROUNDS_OF_EACH]);
      expect([method, Math.min(granted, cancelled)]).not.toEqual([method, 0]);
    }
  }, 600_000);
});

/** @param waitMs how long the name may be taken still at the end: a late grant is given back after the answer. */
async function raceForLease(client: RawClient, other: RawClient, name: string, rounds: number, waitMs = 0) {
  const count = { granted: 0, cancelled: 0 };
  const moment = new Moment();
  let highest = 0;
  for (let round = 0; round < rounds; round++) {
    const held = await other.call("lease.acquire", { name, owner: "holder", waitMs: 10_000 });
    client.send(request(round, "lease.acquire", { name, owner: OWNER, waitMs: WAIT_MS }));
    let released: Promise<unknown> | undefined;
    await moment.meet(
      () => {
        released = other.call("lease.release", { leaseId: held.lease.leaseId });
      },
      () => client.send(cancelRequest(`cancel ${round}`, round)),
    );
    const { wait, cancelled } = await outcome(client, round);
    expect(await released).toEqual({ released: true });
    count[cancelled ? "cancelled" : "granted"] += 1;
    moment.after(cancelled);
    if (cancelled) {
      expect(wait.error).toMatchObject(CANCELLED);
      continue;
    }
    const { lease } = wait.result as OneLease;
    expect(lease.fencingToken).toBeGreaterThan(highest);
    highest = lease.fencingToken;
    expect(await other.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
  }
  // Nobody has it who does not know.
  const { lease } = await other.call("lease.acquire", { name, owner: OWNER, waitMs });
  await other.call("lease.release", { leaseId: lease.leaseId });
  expect(await other.call("lease.get", { name })).toMatchObject({ lease: null, holders: [] });
  expect(client.lines).toEqual([]);
  return count;
}

describe("a lease that a provider keeps", () => {
  const name = "out/cancel";

  test("is not waited for any more: in line, and while its provider says that it is held", async ({
    onTestFinished: atEnd,
  }) => {
    const faulty = new Faulty(atEnd);
    const daemons = await Promise.all([faulty.start(), faulty.start()]);
    const [client, holder] = await Promise.all(daemons.map(({ place }) => place.connect()));
    if (client === undefined || holder === undefined) throw new Error("no clients");
    const { lease } = await holder.call("lease.acquire", { name, owner: "holder" });
    const ids = ["first", "second", "third"];
    sendAll(
      client,
      ids.map((id) => request(id, "lease.acquire", { name, owner: OWNER, waitMs: WAIT_MS })),
    );
    await until(async () => (await client.call("lease.get", { name })).lease?.waiters === 3);
    for (const id of ["second", "first"]) {
      client.send(cancelRequest("cancel", id));
      const answers = await replies(client, 2);
      expect(answers.get(id)?.error).toMatchObject(CANCELLED);
      expect(answers.get("cancel")?.result).toEqual({ cancelled: true });
    }
    expect((await client.call("lease.get", { name })).lease?.waiters).toBe(1);
    await holder.call("lease.release", { leaseId: lease.leaseId });
    const { id, result } = await client.reply();
    expect({ id, result }).toMatchObject({ id: "third", result: { lease: {} } });
  });

  test("is given back when it is granted after all", async ({ onTestFinished: atEnd }) => {
    const faulty = new Faulty(atEnd);
    const [{ place }, elsewhere] = await Promise.all([faulty.start(), faulty.start()]);
    const [client, other] = await Promise.all([place.connect(), elsewhere.place.connect()]);
    // The provider has granted it, and its answer is lost: it is asked again and again.
    faulty.fault = "drop acquire";
    client.send(request("wait", "lease.acquire", { name, owner: OWNER, waitMs: WAIT_MS }));
    await until(() => faulty.calls.includes("acquire drop"));
    client.send(cancelRequest("cancel", "wait"));
    const answers = await replies(client, 2);
    expect(answers.get("wait")?.error).toMatchObject(CANCELLED);
    expect(answers.get("cancel")?.result).toEqual({ cancelled: true });
    faulty.fault = undefined;
    const { lease } = await other.call("lease.acquire", { name, owner: "other", waitMs: 30_000 });
    expect(lease.owner).toBe("other");
    expect(faulty.calls).toContain("release -");
  });

  test("is not asked for any more when its provider never answers", async ({ onTestFinished: atEnd }) => {
    const faulty = new Faulty(atEnd);
    const { place } = await faulty.start();
    const client = await place.connect();
    faulty.fault = "hang acquire";
    client.send(request("wait", "lease.acquire", { name, owner: OWNER, waitMs: WAIT_MS }));
    await until(() => faulty.calls.includes("acquire hang"));
    client.send(cancelRequest("cancel", "wait"));
    const answers = await replies(client, 2);
    expect(answers.get("wait")?.error).toMatchObject(CANCELLED);
  });
});
