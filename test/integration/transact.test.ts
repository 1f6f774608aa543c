// Several calls in one transaction: all of them or none, guarded by what the caller holds.
import type { Params, Result } from "@pawl/protocol";
import { METHODS } from "@pawl/protocol";
import {
  MAX_COMPARED_PLACES,
  MAX_TRANSACT_LOOKED_LENGTH,
  MAX_TRANSACT_REFERRED_LENGTH,
} from "@pawl/protocol/limits";
import type { OneLease } from "@pawl/protocol/types";
import { describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, sharedDaemon } from "../daemon.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

type Calls = Params<"transact">["calls"];

const daemon = sharedDaemon();

/** A type that no other test of this file counts. */
let types = 0;
function newType(): string {
  types += 1;
  return `T${types}`;
}

async function next(client: RawClient, type: string): Promise<number> {
  return (await client.call("sequence.peek", { type })).seq;
}

describe("answers are bounded", () => {
  test("a call after too many results is refused, and all is undone", async () => {
    const client = await daemon().place.connect();
    const queue = "full pages";
    for (let at = 0; at < 8; at += 1) {
      await client.call("queue.enqueue", { queue, payloads: ["x".repeat(200_000)] });
    }
    const type = newType();
    const list: Calls[number] = { method: "queue.list", params: { queue, limit: 1000 } };
    const calls: Calls = [{ method: "sequence.next", params: { type } }, ...Array(63).fill(list)];
    const refusal = expectRefusal(await client.refusal("transact", { calls }), "invalid_params");
    expect(refusal.message).toContain("results of more than 4194304 characters");
    expect(refusal.data.index).toBeGreaterThan(3);
    expect(await next(client, type)).toBe(1);
    expect((await client.call("transact", { calls: calls.slice(0, 3) })).results).toHaveLength(3);
  });

  test("calls that each compare many patterns share the bound of one, and all is undone", async () => {
    const client = await daemon().place.connect();
    const root = "/compared";
    const stars = (count: number): string => "*a".repeat(count);
    for (let at = 0; at < 6; at += 1)
      await client.call("path.reserve", { root, owner: "held", patterns: [`${stars(120)}b${at}`] });
    const asked = (at: number) => ({ root, owner: "asks", patterns: [`${10 + at}${stars(100)}c`] });
    const calls: Calls = Array.from({ length: 64 }, (_, at) => ({
      method: "path.reserve",
      params: asked(at),
    }));
    const refusal = expectRefusal(await client.refusal("transact", { calls }), "exhausted");
    expect(refusal.data).toMatchObject({ limit: MAX_COMPARED_PLACES, index: expect.any(Number) });
    expect(refusal.message).toContain(
      `The calls of a transact compare ${MAX_COMPARED_PLACES} places together`,
    );
    expect((await client.call("path.list", { root, owner: "asks" })).reservations).toEqual([]);
    // Each of them alone is far below it, and some of them together are.
    const index = refusal.data.index as number;
    expect(index).toBeGreaterThan(1);
    expect((await client.call("transact", { calls: calls.slice(0, index) })).results).toHaveLength(index);
  });
});

describe("all or nothing", () => {
  test("results come in the order of the calls, each seeing what those before it wrote", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const { results } = await client.call("transact", {
      calls: [
        { method: "sequence.next", params: { type } },
        { method: "sequence.reserve", params: { type, count: 10 } },
        { method: "sequence.peek", params: { type } },
        { method: "sequence.state" },
      ],
    });
    expect(results[0]).toEqual({ type, seq: 1, id: `${type}-001` });
    expect(results[1]).toMatchObject({ first: 2, last: 11 });
    expect(results[2]).toMatchObject({ seq: 12 });
    expect((results[3] as Result<"sequence.state">).sequences[type]).toBe(11);
    expect(await next(client, type)).toBe(12);
  });

  test("the first refusal undoes all and says which call it was", async () => {
    const client = await daemon().place.connect();
    const [type, full] = [newType(), newType()];
    await client.call("sequence.advance", { type: full, to: Number.MAX_SAFE_INTEGER });
    const error = expectRefusal(
      await client.refusal("transact", {
        calls: [
          { method: "sequence.next", params: { type } },
          { method: "sequence.next", params: { type } },
          { method: "sequence.next", params: { type: full } },
          { method: "sequence.next", params: { type } },
        ],
      }),
      "exhausted",
    );
    expect(error.data).toMatchObject({ index: 2, type: full });
    expect(await next(client, type)).toBe(1);
  });

  test("others in the same turn are not touched by it", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const take = { jsonrpc: "2.0", id: 1, method: "sequence.next", params: { type } };
    const calls = [
      { method: "sequence.next", params: { type } },
      { method: "sequence.parse", params: { id: "no id" } },
    ];
    const refused = { jsonrpc: "2.0", id: 2, method: "transact", params: { calls } };
    const lines = [take, refused, { ...take, id: 3 }, { ...refused, id: 4 }, { ...take, id: 5 }];
    client.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const replies: RawReply[] = [];
    for (const _ of lines) replies.push(await client.reply());
    const seqOf = (id: number) => (replies.find((reply) => reply.id === id)?.result as { seq: number })?.seq;
    expect([seqOf(1), seqOf(3), seqOf(5)]).toEqual([1, 2, 3]);
    for (const id of [2, 4]) expectRefusal(replies.find((reply) => reply.id === id)?.error, "invalid_params");
  });

  test("a requestId taken in a transaction that is undone is not taken", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const once = { type, requestId: `once ${type}` };
    await client.refusal("transact", {
      calls: [
        { method: "sequence.next", params: once },
        { method: "sequence.parse", params: { id: "no id" } },
      ],
    });
    await client.call("sequence.next", { type });
    expect((await client.call("sequence.next", once)).seq).toBe(2);
  });

  test("a waiter is woken by a release in a transaction, and by none that is undone", async () => {
    const client = await daemon().place.connect();
    const { lease } = await client.call("lease.acquire", { name: "woken", owner: "a", ttlMs: 60_000 });
    const waiter = await daemon().place.connect();
    const granted = waiter.call("lease.acquire", { name: "woken", owner: "b", waitMs: 60_000 });
    await waiter.call("daemon.ping", {});
    const release = { method: "lease.release", params: { leaseId: lease.leaseId } };
    await client.refusal("transact", {
      calls: [release, { method: "sequence.parse", params: { id: "no id" } }],
    });
    expect((await client.call("lease.get", { name: "woken" })).lease).toMatchObject({
      owner: "a",
      waiters: 1,
    });
    await client.call("transact", { calls: [release] });
    expect((await granted).lease.fencingToken).toBe(lease.fencingToken + 1);
  });
});

describe("$result", () => {
  test("stands for a value of an earlier call, at any depth", async () => {
    const client = await daemon().place.connect();
    const [a, b, c] = [newType(), newType(), newType()];
    const { results } = await client.call("transact", {
      calls: [
        { method: "sequence.reserve", params: { type: a, count: 7 } },
        { method: "sequence.advance", params: { type: b, to: { $result: "/0/last" } } },
        { method: "sequence.parse", params: { id: { $result: "/0/lastId" } } },
        { method: "sequence.advance", params: { type: c, to: { $result: "/2/seq" } } },
      ],
    });
    expect(results[1]).toEqual({ type: b, seq: 7 });
    expect(results[2]).toEqual({ type: a, nodeId: 0, seq: 7 });
    expect(results[3]).toEqual({ type: c, seq: 7 });
  });

  test.each([
    ["a call of its own", "/1/seq"],
    ["a later call", "/2/seq"],
    ["no member", "/0/nothing"],
    ["a member of the prototype", "/0/constructor"],
    ["an index with a leading zero", "/00/seq"],
    ["the end of the list", "/-"],
    ["no pointer", "0/seq"],
    ["a bad escape", "/0/~2"],
    ["no text", 5],
  ])("that refers to %s is refused and undoes all", async (_what, pointer) => {
    const client = await daemon().place.connect();
    const type = newType();
    const error = expectRefusal(
      await client.refusal("transact", {
        calls: [
          { method: "sequence.next", params: { type } },
          { method: "sequence.advance", params: { type, to: { $result: pointer } } },
          { method: "sequence.next", params: { type } },
        ],
      }),
      "invalid_params",
    );
    expect(error.data).toMatchObject({ index: 1, issues: [{ path: "/calls/1/params/to" }] });
    expect(await next(client, type)).toBe(1);
  });

  test("is checked against the schema of the call after it was put in", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const error = expectRefusal(
      await client.refusal("transact", {
        calls: [
          { method: "sequence.next", params: { type } },
          { method: "sequence.advance", params: { type, to: { $result: "/0/id" } } },
        ],
      }),
      "invalid_params",
    );
    expect(error.data).toMatchObject({ index: 1, issues: [{ path: "/calls/1/params/to" }] });
    expect(error.message).toContain(`${type}-001`);
    expect(await next(client, type)).toBe(1);
  });

  test("takes an id, writes under it and completes the claimed batch, payloads kept as they were written", async () => {
    const client = await daemon().place.connect();
    const [queue, type] = ["inbox", newType()];
    const { lease } = await client.call("lease.acquire", { name: "intake", owner: "a", ttlMs: 60_000 });
    const text = '{"a":1.0,"b":12345678901234567890,"b":2}';
    await client.ask(
      `{"jsonrpc":"2.0","id":"e","method":"queue.enqueue","params":{"queue":"${queue}","payloads":[${text}]}}`,
    );
    const { claim } = await client.call("queue.claim", { queue, owner: "a" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    const calls = `[
      {"method":"queue.get","params":{"batchId":"${claim?.batches[0]?.batchId}"}},
      {"method":"sequence.next","params":{"type":"${type}"}},
      {"method":"queue.enqueue","params":{"queue":"outbox","payloads":[
        {"id":{"$result":"/1/id"},"half":0.50,"of":{"$result":"/0/batch/payloads/0"}},7.0]}},
      {"method":"queue.complete","params":{"claimId":"${claimId}","leaseToken":"${leaseToken}"}}]`;
    const guards = [
      { lease: { name: "intake", fencingToken: lease.fencingToken } },
      { claim: { claimId, leaseToken } },
    ];
    const line = `{"jsonrpc":"2.0","id":"t","method":"transact","params":{"calls":${calls.replaceAll(/\n\s*/g, "")},"guards":${JSON.stringify(guards)}}}`;
    const reply = await client.ask(line);
    expect(reply.error).toBeUndefined();
    expect(reply.result).toMatchObject({ results: [{}, { seq: 1 }, { created: true }, { completed: 1 }] });
    client.send({ jsonrpc: "2.0", id: "l", method: "queue.list", params: { queue: "outbox" } });
    expect(await client.line()).toContain(`"payloads":[{"id":"${type}-001","half":0.50,"of":${text}},7.0]`);
    expect((await client.call("queue.list", { queue })).batches).toMatchObject([{ state: "completed" }]);
  });

  test("with another key beside it is no reference", async () => {
    const client = await daemon().place.connect();
    const error = expectRefusal(
      await client.refusal("transact", {
        calls: [
          { method: "sequence.state" },
          { method: "sequence.peek", params: { type: { $result: "/0", and: 1 } } },
        ],
      }),
      "invalid_params",
    );
    expect(error.data).toMatchObject({
      issues: [{ path: "/calls/1/params/type", message: expect.stringContaining("must be a string") }],
    });
  });
});

describe("what references cost is bounded", () => {
  const enqueue = (payloads: unknown[]): Calls[number] => ({
    method: "queue.enqueue",
    params: { queue: "referring", payloads },
  });

  test("they put in as much as could be sent, in all calls together", async () => {
    const client = await daemon().place.connect();
    const format = { method: "sequence.format", params: { type: "FR", seq: 1 } };
    const whole = { $result: "/1/batch/payloads/0" };
    const create = { method: "command.create", params: { deployment: "d", command: "c", params: whole } };
    const kept = await client.call("queue.enqueue", { queue: "kept", payloads: ["x".repeat(100_000)] });
    const get = { method: "queue.get", params: { batchId: kept.batch.batchId } };
    const calls = [format, get, ...Array.from({ length: 62 }, () => create)];
    const refusal = expectRefusal(await client.refusal("transact", { calls }), "invalid_params");
    // Each alone is far below what one call may have.
    expect(refusal.data.index).toBe(2 + Math.floor(MAX_TRANSACT_REFERRED_LENGTH / 100_002));
    expect(refusal.message).toContain(`bring in more than ${MAX_TRANSACT_REFERRED_LENGTH} characters`);
    expect((await client.call("transact", { calls: calls.slice(0, 12) })).results).toHaveLength(12);
  });

  test("a value is looked through once, however many refer to parts of it, and not without end", async () => {
    const client = await daemon().place.connect();
    const rows = Array.from({ length: 40 }, () => Array.from({ length: 100 }, () => "y".repeat(200)));
    const { batch } = await client.call("queue.enqueue", { queue: "rows", payloads: rows });
    const get = { method: "queue.get", params: { batchId: batch.batchId } };
    const one = (at: number) => ({ $result: `/0/batch/payloads/${at % 40}/${at % 100}` });
    // Each by itself would look through 800,000 characters.
    const calls = [get, enqueue(Array.from({ length: 1000 }, (_, at) => one(at)))];
    const { results } = await client.call("transact", { calls });
    expect((results[1] as Result<"queue.enqueue">).batch.payloads[7]).toBe("y".repeat(200));

    const flat = await client.call("queue.enqueue", { queue: "flat", payloads: [Array(200_000).fill(1)] });
    const getFlat = { method: "queue.get", params: { batchId: flat.batch.batchId } };
    const first = enqueue([{ $result: "/0/batch/payloads/0/0" }]);
    const error = await client.refusal("transact", { calls: [getFlat, first] });
    const { message, data } = expectRefusal(error, "invalid_params");
    expect(message).toContain(
      `more than ${MAX_TRANSACT_LOOKED_LENGTH} characters of results are looked through`,
    );
    expect(data).toMatchObject({ index: 1, issues: [{ path: "/calls/1/params/payloads/0" }] });
  });

  test("one in a member that does not count is not put in, or counts", async () => {
    const client = await daemon().place.connect();
    const ask = async (members: string) => {
      const calls = `[{"method":"queue.enqueue","params":{"queue":"a","payloads":["${"x".repeat(5000)}"]}},
        {"method":"queue.enqueue","params":{"queue":"doubled","payloads":[{${members}"a":1}]}}]`;
      return client.ask(
        `{"jsonrpc":"2.0","id":"t","method":"transact","params":{"calls":${calls.replaceAll(/\n\s*/g, "")}}}`,
      );
    };
    const kept = await ask('"a":{"$result":"/9"},');
    const [, enqueued] = (kept.result as { results: [unknown, Result<"queue.enqueue">] }).results;
    const { batchId } = enqueued.batch;
    expect((await client.call("queue.get", { batchId })).batch.payloads).toEqual([{ a: 1 }]);
    // The text that is kept has all of them, which nobody sees who reads it as an object.
    const members = '"b":{"$result":"/0"},'.repeat(1000);
    const { error } = await ask(`${members}"a":{"$result":"/0/batch/queue"},`);
    expect(expectRefusal(error as never, "invalid_params").message).toContain("several members of one name");
  });

  test("twenty wrong ones of a call are told of", async () => {
    const client = await daemon().place.connect();
    const wrong = Array.from({ length: 1000 }, (_, at) => ({ $result: `/${at + 5}` }));
    const error = await client.refusal("transact", { calls: [enqueue(wrong)] });
    const issues = expectRefusal(error, "invalid_params").data.issues as unknown[];
    expect(issues).toHaveLength(20);
    expect(issues[0]).toMatchObject({ path: "/calls/0/params/payloads/0" });
  });
});

describe("guards", () => {
  test("a lease that is held lets the calls through; another token, or none, does not", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const calls: Calls = [{ method: "sequence.next", params: { type } }];
    const { lease } = await client.call("lease.acquire", { name: "guard", owner: "a", ttlMs: 60_000 });
    const { name, fencingToken, leaseId } = lease;
    const guards = [{ lease: { name, fencingToken } }];
    await client.call("transact", { calls, guards });

    const early = await client.refusal("transact", {
      calls,
      guards: [...guards, { lease: { name, fencingToken: fencingToken + 1 } }],
    });
    expect(expectRefusal(early, "lease_lost").data).toMatchObject({ guard: 1, name, highest: fencingToken });
    const never = { lease: { name: "never held", fencingToken: 1 } };
    expectRefusal(await client.refusal("transact", { calls, guards: [never] }), "lease_lost");

    await client.call("lease.release", { leaseId });
    expectRefusal(await client.refusal("transact", { calls, guards }), "lease_lost");
    await client.call("lease.acquire", { name: "guard", owner: "b", ttlMs: 60_000 });
    expectRefusal(await client.refusal("transact", { calls, guards }), "lease_lost");
    expect(await next(client, type)).toBe(2);
  });

  test("a claim that is held lets the calls through; one that ended, or a wrong token, does not", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const calls: Calls = [{ method: "sequence.next", params: { type } }];
    await client.call("queue.enqueue", { queue: "guarded", payloads: [1] });
    const { claim } = await client.call("queue.claim", { queue: "guarded", owner: "a" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    const held = { claim: { claimId, leaseToken } };
    await client.call("transact", { calls, guards: [held] });
    for (const wrong of [
      { claimId, leaseToken: `${leaseToken.slice(0, -1)}_` },
      { claimId: "qwc:1:999", leaseToken },
      { claimId: "nonsense", leaseToken },
    ]) {
      const error = await client.refusal("transact", { calls, guards: [held, { claim: wrong }] });
      expect(expectRefusal(error, "claim_lost").data).toMatchObject({ guard: 1 });
    }
    await client.call("queue.abandon", { claimId, leaseToken });
    expectRefusal(await client.refusal("transact", { calls, guards: [held] }), "claim_lost");
    await client.call("queue.claim", { queue: "guarded", owner: "b" });
    expectRefusal(await client.refusal("transact", { calls, guards: [held] }), "claim_lost");
    expect(await next(client, type)).toBe(2);
  });

  test("a lease past its ttl is lost at that moment", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const { lease } = await client.call("lease.acquire", { name: "short", owner: "a", ttlMs: 150 });
    const guards = [{ lease: { name: "short", fencingToken: lease.fencingToken } }];
    const calls: Calls = [{ method: "sequence.next", params: { type } }];
    await until(async () => (await client.call("daemon.ping", {})).now >= lease.expiresAt);
    expectRefusal(await client.refusal("transact", { calls, guards }), "lease_lost");
    expect(await next(client, type)).toBe(1);
  });

  test("is either a lease or a claim", async () => {
    const client = await daemon().place.connect();
    const calls: Calls = [{ method: "sequence.state" }];
    const lease = { name: "a", fencingToken: 1 };
    const claim = { claimId: "a", leaseToken: "b" };
    for (const guard of [{}, { lease, claim }]) {
      const error = expectRefusal(
        await client.refusal("transact", { calls, guards: [guard] }),
        "invalid_params",
      );
      expect(error.data).toMatchObject({ issues: [{ path: "/guards/0" }] });
    }
  });
});

describe("form", () => {
  test("every method that cannot be part of a transaction is refused in it, before anything is done", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const others = METHODS.filter(({ transactable }) => !transactable);
    expect(others.map(({ name }) => name as string)).toContain("transact");
    expect(others.map(({ name }) => name as string)).toContain("command.wait");
    for (const { name } of others) {
      const error = expectRefusal(
        await client.refusal("transact", {
          calls: [{ method: "sequence.next", params: { type } }, { method: name }],
        }),
        "invalid_params",
      );
      expect(error.data).toMatchObject({ index: 1, issues: [{ path: "/calls/1/method" }] });
      expect(error.message).toContain(name);
    }
    expect(await next(client, type)).toBe(1);
  });

  test("an unknown method is refused with the closest, before anything is done", async () => {
    const client = await daemon().place.connect();
    const error = expectRefusal(
      await client.refusal("transact", { calls: [{ method: "sequence.nxt" }] }),
      "method_not_found",
    );
    expect(error.data).toMatchObject({ index: 0, closest: "sequence.next" });
  });

  test("params of a call are checked like those of a request, with their place in this one", async () => {
    const client = await daemon().place.connect();
    const error = expectRefusal(
      await client.refusal("transact", {
        calls: [{ method: "sequence.state" }, { method: "sequence.next", params: { type: "FR", tpye: 1 } }],
      }),
      "invalid_params",
    );
    expect(error.data).toMatchObject({ index: 1, issues: [{ path: "/calls/1/params/tpye" }] });
  });

  test("up to 64 calls and 64 guards", async () => {
    const client = await daemon().place.connect();
    const call = { method: "sequence.format", params: { type: "FR", seq: 1 } };
    const { results } = await client.call("transact", { calls: Array(64).fill(call) });
    expect(results).toEqual(Array(64).fill({ id: "FR-001" }));
    for (const calls of [[], Array(65).fill(call)]) {
      expectRefusal(await client.refusal("transact", { calls }), "invalid_params");
    }
    const guards = Array(65).fill({ lease: { name: "a", fencingToken: 1 } });
    expectRefusal(await client.refusal("transact", { calls: [call], guards }), "invalid_params");
  });

  test("deeply nested params do not break the daemon", async () => {
    const client = await daemon().place.connect();
    const deep = `${'{"a":'.repeat(590)}{"$result":"/0"}${"}".repeat(590)}`;
    const reply = await client.ask(
      `{"jsonrpc":"2.0","id":1,"method":"transact","params":{"calls":[{"method":"sequence.peek","params":{"type":"FR","deep":${deep}}}]}}`,
    );
    const error = expectRefusal(reply.error, "invalid_params");
    expect(error.data).toMatchObject({ index: 0 });
  });

  test("a key named __proto__ in params is a key like others", async () => {
    const client = await daemon().place.connect();
    const reply = await client.ask(
      '{"jsonrpc":"2.0","id":1,"method":"transact","params":{"calls":[{"method":"sequence.peek","params":{"type":{"$result":""},"__proto__":{"a":1}}}]}}',
    );
    const error = expectRefusal(reply.error, "invalid_params");
    expect((error.data.issues as { path: string }[]).map(({ path }) => path)).toContain(
      "/calls/0/params/__proto__",
    );
  });
});

describe("grants", () => {
  test("a claim, a lease and a command's lease are taken in it, and are the caller's", async () => {
    const client = await daemon().place.connect();
    const [queue, deployment] = ["taken in one", "taken-in-one"];
    await client.call("queue.enqueue", { queue, payloads: [1] });
    await client.call("command.create", { deployment, command: "go", params: {} });
    const { results } = await client.call("transact", {
      calls: [
        { method: "queue.claim", params: { queue, owner: "a" } },
        { method: "lease.acquire", params: { name: "taken in one", owner: "a" } },
        { method: "command.lease", params: { deployment, owner: "a" } },
      ],
    });
    const [{ claim }, { lease }, { leases }] = results as [
      Result<"queue.claim">,
      OneLease,
      Result<"command.lease">,
    ];
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    await client.call("queue.renew", { claimId, leaseToken });
    await client.call("lease.heartbeat", { leaseId: lease.leaseId });
    await client.call("command.renew", { leaseId: leases[0]?.leaseId as string });
  });

  test("a queue with nothing to claim gives null; a lease that is held undoes all", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const name = "held elsewhere";
    const empty = { method: "queue.claim", params: { queue: "nothing here", owner: "a" } };
    expect((await client.call("transact", { calls: [empty] })).results).toEqual([{ claim: null }]);
    await client.call("lease.acquire", { name, owner: "a" });
    const calls: Calls = [
      { method: "sequence.next", params: { type } },
      { method: "lease.acquire", params: { name, owner: "b" } },
    ];
    const refusal = expectRefusal(await client.refusal("transact", { calls }), "lease_held");
    expect(refusal.data).toMatchObject({ index: 1, holder: { owner: "a" } });
    expect(await next(client, type)).toBe(1);
  });

  test.each([
    ["queue.claim", { queue: "q" }],
    ["lease.acquire", { name: "n" }],
    ["command.lease", { deployment: "d" }],
  ])("%s may not wait in it", async (method, named) => {
    const client = await daemon().place.connect();
    const calls: Calls = [{ method, params: { ...named, owner: "a", waitMs: 10 } }];
    const refusal = expectRefusal(await client.refusal("transact", { calls }), "invalid_params");
    expect(refusal.data).toMatchObject({ index: 0, issues: [{ path: "/calls/0/params/waitMs" }] });
  });
});

describe("a dry run", () => {
  test("answers what would have been answered, and leaves nothing behind", async () => {
    const client = await daemon().place.connect();
    const type = newType();
    const queue = `dry-${type}`;
    const calls: Calls = [
      { method: "sequence.next", params: { type } },
      { method: "queue.enqueue", params: { queue, payloads: [1], sourceKey: { $result: "/0/id" } } },
      { method: "lease.acquire", params: { name: queue, owner: "a" } },
    ];
    const tried = await client.call("transact", { calls, dryRun: true });
    expect(tried.results).toMatchObject([
      { seq: 1 },
      { batch: { sourceKey: `${type}-001` } },
      { lease: { fencingToken: 1 } },
    ]);
    expect(await next(client, type)).toBe(1);
    expect((await client.call("queue.list", { queue })).batches).toEqual([]);
    expect((await client.call("lease.get", { name: queue })).lease).toBeNull();
    const done = await client.call("transact", { calls });
    expect(done.results[0]).toEqual(tried.results[0]);
    expect(done.results).toMatchObject([
      { seq: 1 },
      { batch: { sourceKey: `${type}-001` } },
      { lease: { fencingToken: 1 } },
    ]);
  });

  // The board is each node's own, so that no transaction has both.
  test.skipIf(NAMES_ARE_SHARED)(
    "answers what would have been answered of the board, and leaves nothing behind",
    async () => {
      const client = await daemon().place.connect();
      const type = newType();
      const calls: Calls = [
        { method: "sequence.next", params: { type } },
        { method: "pipeline.write", params: { storyId: { $result: "/0/id" }, stage: "1_backlog" } },
      ];
      const tried = await client.call("transact", { calls, dryRun: true });
      expect(tried.results).toMatchObject([{ seq: 1 }, { item: { storyId: `${type}-001` } }]);
      expect(await next(client, type)).toBe(1);
      expect((await client.call("pipeline.read", { storyId: `${type}-001` })).item).toBeNull();
      const done = await client.call("transact", { calls });
      expect(done.results[0]).toEqual(tried.results[0]);
    },
  );

  test("shows no secret, also where one was carried elsewhere, and later calls can use it", async () => {
    const client = await daemon().place.connect();
    const queue = "tried";
    await client.call("queue.enqueue", { queue, payloads: ["kept"] });
    const calls: Calls = [
      { method: "queue.claim", params: { queue, owner: "a" } },
      { method: "lease.acquire", params: { name: "tried", owner: "a" } },
      {
        method: "queue.enqueue",
        params: {
          queue: "copies",
          payloads: [{ $result: "/0/claim/leaseToken" }, { $result: "/1/lease/leaseId" }],
        },
      },
      {
        method: "queue.complete",
        params: { claimId: { $result: "/0/claim/claimId" }, leaseToken: { $result: "/0/claim/leaseToken" } },
      },
    ];
    const { results } = await client.call("transact", { calls, dryRun: true });
    expect(results).toMatchObject([
      { claim: { leaseToken: "dry-run", batches: [{ payloads: ["kept"] }] } },
      { lease: { leaseId: "dry-run" } },
      { batch: { payloads: ["dry-run", "dry-run"] } },
      { completed: 1 },
    ]);
    const { claim } = await client.call("queue.claim", { queue, owner: "b" });
    expect(claim).toMatchObject({ fencingToken: 1, batches: [{ payloads: ["kept"], attempt: 0 }] });
    expect((await client.call("lease.get", { name: "tried" })).lease).toBeNull();
  });

  test("a refusal is answered as it would have been, and guards are checked", async () => {
    const client = await daemon().place.connect();
    const calls: Calls = [{ method: "queue.get", params: { batchId: `qwb:${"0".repeat(64)}` } }];
    const refusal = expectRefusal(await client.refusal("transact", { calls, dryRun: true }), "not_found");
    expect(refusal.data.index).toBe(0);
    const guards = [{ lease: { name: "nobody has it", fencingToken: 1 } }];
    const next = [{ method: "sequence.next", params: { type: newType() } }];
    expectRefusal(await client.refusal("transact", { calls: next, guards, dryRun: true }), "lease_lost");
  });

  test("wakes nobody", async () => {
    const [client, waiter] = [await daemon().place.connect(), await daemon().place.connect()];
    const queue = "woken by none";
    waiter.send({
      jsonrpc: "2.0",
      id: 1,
      method: "queue.claim",
      params: { queue, owner: "w", waitMs: 60_000 },
    });
    await waiter.call("daemon.ping", {});
    const calls: Calls = [{ method: "queue.enqueue", params: { queue, payloads: [1] } }];
    await client.call("transact", { calls, dryRun: true });
    expect((await client.call("queue.stats", { queue })).queues).toMatchObject([{ ready: 0, claimed: 0 }]);
    const { batch } = await client.call("queue.enqueue", { queue, payloads: [2] });
    expect(JSON.parse(await waiter.line())).toMatchObject({
      id: 1,
      result: { claim: { batches: [{ batchId: batch.batchId, payloads: [2] }] } },
    });
  });
});
