// Receivers that commands are pushed to: requests of the daemon on the connection that serves, and their responses
// as answers (spec: command.md, Push).
import { INLINE_MAX_BYTES, MAX_PAYLOAD_NESTING_LEVELS, MAX_SERVED_DEPLOYMENTS } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import {
  answer,
  answerTo,
  create,
  ended,
  get,
  lateAnswers,
  newDeployment,
  pushed,
  stateOf,
  take,
} from "../commands.js";
import { NAMES_ARE_SHARED, sharedDaemon, startDaemon } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

/** A connection that serves a deployment. */
async function serving(deployment: string, max = 1): Promise<RawClient> {
  const receiver = await daemon().place.connect();
  await receiver.call("command.serve", { deployment, owner: "receiver", max });
  return receiver;
}

/** The lines that have come to a connection once the daemon has answered all that was sent before. */
async function arrived(receiver: RawClient): Promise<string[]> {
  await client.call("daemon.ping", {});
  await receiver.call("daemon.ping", {});
  return receiver.lines.splice(0);
}

describe("a push", () => {
  test("is held by its receiver until it is answered", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const { commandId } = await client.call("command.create", { deployment, command: "run" });
    const { id } = JSON.parse(await receiver.line());
    const holders = async (): Promise<(string | undefined)[]> => {
      const { nodes, edges } = await client.call("daemon.graph", {});
      const held = edges.filter(({ to, what }) => to === `command:${commandId}` && what === "holds");
      return held.map(({ from }) => nodes.find((node) => node.id === from)?.owner);
    };
    expect(await holders()).toEqual(["receiver"]);
    receiver.write(`${JSON.stringify({ jsonrpc: "2.0", id, result: null })}\n`);
    await ended(client, commandId);
    expect(await holders()).toEqual([]);
  });

  test("is a JSON-RPC request with the envelope as params", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const deadline = Date.now() + 60_000;
    const text = '{"a":1.0,"b":12345678901234567890}';
    client.write(
      `{"jsonrpc":"2.0","id":"c","method":"command.create","params":{"deployment":"${deployment}","command":"run","deadline":${deadline},"params":${text}}}\n`,
    );
    const { commandId } = (await client.reply()).result as { commandId: string };
    const line = await receiver.line();
    expect(line).toContain(`"params":${text}`);
    const request = JSON.parse(line);
    expect(request).toEqual({
      jsonrpc: "2.0",
      id: expect.any(String),
      method: "command.execute",
      params: {
        protocol: "arc.v1",
        commandId,
        deployment,
        target: "",
        command: "run",
        attempt: 1,
        deadline,
        executionMs: 900_000,
        leaseId: expect.stringContaining(commandId),
        params: JSON.parse(text),
      },
    });
    const command = await get(client, commandId);
    expect(command).toMatchObject({ state: "DISPATCHED", attempt: 1 });
    expect(command.lease).toEqual({
      owner: "receiver",
      pid: process.pid,
      // The deadline is sooner than the 15 minutes of a push.
      expiresAt: expect.any(Number),
      remainingMs: expect.any(Number),
    });
    answer(receiver, request, { result: null });
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED", error: null });
  });

  test("waits for somebody to serve, also one who comes long after", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    expect(await stateOf(client, commandId)).toBe("PENDING");
    const receiver = await serving(deployment);
    expect((await pushed(receiver)).params.commandId).toBe(commandId);
  });

  test("comes after the reply to command.serve", async () => {
    const deployment = newDeployment();
    await create(client, deployment);
    const receiver = await daemon().place.connect();
    const line = `{"jsonrpc":"2.0","id":"s","method":"command.serve","params":{"deployment":"${deployment}","owner":"x"}}`;
    expect((await receiver.ask(line)).result).toEqual({ deployment });
    await pushed(receiver);
  });
});

describe("the response", () => {
  /** Has a command answered by this line, in which ID is the id of the request, and returns the answer. */
  async function answeredBy(line: string) {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    const { id } = await pushed(receiver);
    receiver.write(`${line.replace("ID", JSON.stringify(id))}\n`);
    const command = await ended(client, commandId);
    return { command, response: await answerTo(client, commandId), receiver };
  }

  test.each([
    ['{"jsonrpc":"2.0","id":ID,"result":{"ok":[1]}}', { ok: [1] }],
    ['{"jsonrpc":"2.0","id":ID,"result":null}', null],
    ['{"jsonrpc":"2.0","id":ID,"result":5,"error":null}', 5],
    ['[{"jsonrpc":"2.0","id":ID,"result":"in a batch"}]', "in a batch"],
  ])("%s is a success", async (line, value) => {
    const { command, response } = await answeredBy(line);
    expect(command.state).toBe("SUCCEEDED");
    expect(response).toEqual({ status: "success", response: value });
  });

  test("is kept byte for byte", async () => {
    const text = '{"b":1.0,"a":12345678901234567890,"s":"\\u0041"}';
    const { command, receiver } = await answeredBy(`{"jsonrpc":"2.0", "id":ID, "result": ${text} }`);
    const { commandId } = command;
    receiver.write(
      `{"jsonrpc":"2.0","id":"r","method":"command.response","params":{"commandId":"${commandId}"}}\n`,
    );
    expect(await receiver.line()).toContain(`"response":${text}`);
  });

  test.each([
    ['{"code":-32000,"message":"No."}', { code: "-32000", message: "No." }],
    ['{"code":7,"message":"No.","data":[1]}', { code: "7", message: "No.", details: [1] }],
    ['{"code":7,"message":"No.","data":{"code":5}}', { code: "7", message: "No.", details: { code: 5 } }],
    ['{"code":7,"message":"No.","data":{"code":"DISK"}}', { code: "DISK", message: "No." }],
    [
      '{"code":7,"message":"No.","data":{"code":"DISK","details":{"free":0}}}',
      { code: "DISK", message: "No.", details: { free: 0 } },
    ],
    ['{"code":7,"message":"","data":{"code":""}}', { code: "7", message: "", details: { code: "" } }],
  ])("with the error %s is a failure", async (error, wanted) => {
    const { command, response } = await answeredBy(`{"jsonrpc":"2.0","id":ID,"error":${error}}`);
    expect(command).toMatchObject({ state: "FAILED", error: { code: wanted.code, message: wanted.message } });
    expect(response).toEqual({ status: "error", ...wanted });
  });

  const deep = "[".repeat(MAX_PAYLOAD_NESTING_LEVELS + 1) + "]".repeat(MAX_PAYLOAD_NESTING_LEVELS + 1);
  test.each([
    ['"result":1,"error":{"code":1,"message":"m"}'],
    // A program whose result is undefined sends this.
    ['"more":1'],
    ['"error":"boom"'],
    ['"error":null'],
    ['"error":{"code":"E","message":"m"}'],
    ['"error":{"code":1.5,"message":"m"}'],
    ['"error":{"code":1}'],
    [`"result":${deep}`],
    [`"error":{"code":1,"message":"m","data":${deep}}`],
  ])("with %s is none: the command is FAILED and the receiver is told", async (members) => {
    const { command, receiver } = await answeredBy(`{"jsonrpc":"2.0","id":ID,${members}}`);
    expect(command).toMatchObject({ state: "FAILED", error: { code: "INVALID_RESPONSE" } });
    const reply = await receiver.reply();
    expect(reply.id).toBeNull();
    expectRefusal(reply.error, "invalid_request");
    // The connection goes on.
    const commandId = await create(client, command.deployment);
    answer(receiver, await pushed(receiver), { result: 1 });
    expect((await ended(client, commandId)).state).toBe("SUCCEEDED");
  });

  test("to nothing, or for the second time, is refused under the id null and changes nothing", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    const request = await pushed(receiver);
    for (const id of ["none", 1, "pawld-2"]) {
      const reply = await receiver.ask(JSON.stringify({ jsonrpc: "2.0", id, result: 1 }));
      expect(reply.id).toBeNull();
      expect(expectRefusal(reply.error, "invalid_request").data.answered).toBe(id);
    }
    expect(await stateOf(client, commandId)).toBe("DISPATCHED");
    answer(receiver, request, { result: "first" });
    answer(receiver, request, { result: "second" });
    expectRefusal((await receiver.reply()).error, "invalid_request");
    expect(await answerTo(client, commandId)).toEqual({ status: "success", response: "first" });
    // A peer that says that something of the daemon's was no message is not answered: the two could go on for ever.
    receiver.send({ jsonrpc: "2.0", id: null, error: { code: -32600, message: "What?" } });
    expect(await arrived(receiver)).toEqual([]);
  });

  test("of a connection that was never asked anything is no request", async () => {
    const stranger = await daemon().place.connect();
    const reply = await stranger.ask('{"jsonrpc":"2.0","id":"pawld-1","result":1}');
    expectRefusal(reply.error, "invalid_request");
  });

  test("counts before what the same connection sends behind it", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    for (let round = 0; round < 20; round += 1) {
      const commandId = await create(client, deployment, { params: round });
      const { id } = await pushed(receiver);
      receiver.write(
        `${JSON.stringify({ jsonrpc: "2.0", id, result: round })}\n${JSON.stringify({ jsonrpc: "2.0", id: "get", method: "command.get", params: { commandId } })}\n`,
      );
      expect((await receiver.reply()).result).toMatchObject({ state: "SUCCEEDED" });
    }
  });
});

describe("max", () => {
  test("bounds what is unanswered on a connection, and can be changed", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, 2);
    const ids: string[] = [];
    for (let index = 0; index < 6; index += 1) ids.push(await create(client, deployment));
    const [first, second] = [await pushed(receiver), await pushed(receiver)];
    expect([first, second].map(({ params }) => params.commandId)).toEqual(ids.slice(0, 2));
    expect(await arrived(receiver)).toEqual([]);

    answer(receiver, second, { result: 1 });
    const third = await pushed(receiver);
    expect(third.params.commandId).toBe(ids[2]);
    expect(await arrived(receiver)).toEqual([]);

    await receiver.call("command.serve", { deployment, owner: "receiver", max: 3 });
    expect((await pushed(receiver)).params.commandId).toBe(ids[3]);
    await receiver.call("command.serve", { deployment, owner: "receiver", max: 0 });
    answer(receiver, first, { result: 1 });
    answer(receiver, third, { result: 1 });
    expect(await arrived(receiver)).toEqual([]);
    expect((await ended(client, ids[2] as string)).state).toBe("SUCCEEDED");
    await receiver.call("command.serve", { deployment, owner: "receiver", max: 100 });
    expect((await pushed(receiver)).params.commandId).toBe(ids[4]);
    expect((await pushed(receiver)).params.commandId).toBe(ids[5]);
  });

  test("is for each deployment by itself", async () => {
    const [one, two] = [newDeployment(), newDeployment()];
    const receiver = await serving(one);
    await receiver.call("command.serve", { deployment: two, owner: "receiver" });
    for (const deployment of [one, two, one, two]) await create(client, deployment);
    const both = [await pushed(receiver), await pushed(receiver)];
    expect(both.map(({ params }) => params.deployment).toSorted()).toEqual([one, two].toSorted());
    expect(await arrived(receiver)).toEqual([]);
  });

  test("there are no more deployments on a connection than it can have", async () => {
    const receiver = await daemon().place.connect();
    await Promise.all(
      Array.from({ length: MAX_SERVED_DEPLOYMENTS }, (_, index) =>
        receiver.call("command.serve", { deployment: `served/${index}`, owner: "x" }),
      ),
    );
    await receiver.call("command.serve", { deployment: "served/0", owner: "x" });
    const refused = await receiver.refusal("command.serve", { deployment: "served/more", owner: "x" });
    expectRefusal(refused, "exhausted");
    await receiver.destroy();
  });
});

describe("several receivers", () => {
  test("of one deployment share what comes evenly", async () => {
    const deployment = newDeployment();
    const receivers = [
      await serving(deployment, 100),
      await serving(deployment, 100),
      await serving(deployment, 100),
    ];
    for (let index = 0; index < 90; index += 1) await create(client, deployment);
    const counts: number[] = [];
    for (const receiver of receivers) counts.push((await arrived(receiver)).length);
    expect(counts).toEqual([30, 30, 30]);
  });

  test("get what was there before them evenly, up to the max of each", async () => {
    const deployment = newDeployment();
    for (let index = 0; index < 50; index += 1) await create(client, deployment);
    const small = await serving(deployment, 0);
    const large = await serving(deployment, 0);
    await Promise.all([
      small.call("command.serve", { deployment, owner: "small", max: 5 }),
      large.call("command.serve", { deployment, owner: "large", max: 100 }),
    ]);
    for (let index = 0; index < 5; index += 1) await small.line();
    for (let index = 0; index < 45; index += 1) await large.line();
    expect([await arrived(small), await arrived(large)]).toEqual([[], []]);
  });

  test("by push and by pull take turns", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, 100);
    let pulled = 0;
    for (let index = 0; index < 20; index += 1) {
      const wait = client.call("command.lease", { deployment, owner: "pull", waitMs: 60_000 });
      await client.call("daemon.ping", {});
      await create(client, deployment);
      await create(client, deployment);
      pulled += (await wait).leases.length;
    }
    expect(pulled).toBe(20);
    expect(await arrived(receiver)).toHaveLength(20);
  });

  test("one that does not read what it is sent is not sent more, and others are", async () => {
    const deployment = newDeployment();
    const params = "x".repeat(INLINE_MAX_BYTES - 2);
    // As much as may lie unsent, and what the kernel holds besides.
    const commands = 90;
    const stuck = await serving(deployment, 100);
    stuck.socket.pause();
    for (let index = 0; index < commands; index += 1) await create(client, deployment, { params });
    const stuckWith = async () =>
      (await client.call("command.list", { deployment, state: "DISPATCHED" })).commands.length;
    const before = await stuckWith();
    expect(before).toBeGreaterThan(30);
    expect(before).toBeLessThan(commands);
    const ids = new Set<string>();
    const reading = await serving(deployment, 100);
    while (ids.size < commands - before) ids.add((await pushed(reading)).params.commandId);
    expect(await arrived(reading)).toEqual([]);
    // Once it reads, it gets what is there again.
    stuck.socket.resume();
    for (let index = 0; index < before; index += 1) ids.add((await pushed(stuck)).params.commandId);
    expect(ids.size).toBe(commands);
    const more = newDeployment();
    await stuck.call("command.serve", { deployment: more, owner: "receiver" });
    const commandId = await create(client, more);
    expect((await pushed(stuck)).params.commandId).toBe(commandId);
  });
});

describe("a receiver that goes", () => {
  test("gives back what it has not answered, to the next one", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, 3);
    const ids = [await create(client, deployment), await create(client, deployment)];
    const [first] = [await pushed(receiver), await pushed(receiver)];
    answer(receiver, first, { result: "answered" });
    await ended(client, ids[0] as string);
    await receiver.destroy();
    const next = await serving(deployment);
    const again = await pushed(next);
    expect(again.params).toMatchObject({ commandId: ids[1], attempt: 2 });
    expect(await get(client, ids[0] as string)).toMatchObject({ state: "SUCCEEDED", attempt: 1 });
  });

  test("by kill -9 gives back at once", async () => {
    const deployment = newDeployment();
    const receiver = startRaw(daemon().place.socket, [
      { method: "command.serve", params: { deployment, owner: "x" } },
    ]);
    await receiver.line(0);
    const commandId = await create(client, deployment);
    await receiver.line(1);
    await receiver.end("SIGKILL");
    expect(await take(client, deployment, { waitMs: 30_000 })).toMatchObject({ commandId, attempt: 2 });
  });

  test("has used up an attempt", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { maxAttempts: 2 });
    for (let attempt = 1; attempt <= 2; attempt += 1) {
      const receiver = await serving(deployment);
      expect((await pushed(receiver)).params.attempt).toBe(attempt);
      await receiver.destroy();
    }
    expect(await ended(client, commandId)).toMatchObject({
      state: "FAILED",
      attempt: 2,
      error: { code: "ATTEMPTS_EXHAUSTED" },
    });
  });

  test("right after its answer has answered", async () => {
    const deployment = newDeployment();
    for (let round = 0; round < 30; round += 1) {
      const receiver = await serving(deployment, 2);
      const commandId = await create(client, deployment);
      const request = await pushed(receiver);
      // By closing its side, by closing altogether, or with something unread.
      if (round % 3 === 2) {
        receiver.socket.pause();
        await create(client, deployment);
      }
      receiver.socket.write(`${JSON.stringify({ jsonrpc: "2.0", id: request.id, result: round })}\n`, () => {
        if (round % 3 === 0) receiver.socket.end();
        else receiver.socket.destroy();
      });
      expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED", attempt: 1 });
      receiver.socket.destroy();
      await receiver.closed;
      if (round % 3 === 2) await take(client, deployment, { waitMs: 30_000 });
    }
  });

  test("shutting only its side can answer no more, and gives back at once", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    await pushed(receiver);
    // A wait keeps the connection open.
    receiver.send({ jsonrpc: "2.0", id: "w", method: "command.wait", params: { commandId, waitMs: 60_000 } });
    receiver.socket.end();
    expect(await take(client, deployment, { waitMs: 30_000 })).toMatchObject({ commandId, attempt: 2 });
    const { deployments } = await client.call("deployment.list", { limit: 1000 });
    expect(deployments.find((each) => each.deployment === deployment)?.receivers).toBe(0);
    await client.call("command.cancel", { commandId });
    expect((await receiver.reply()).result).toMatchObject({ commandId, state: "FAILED" });
  });

  test("leaves many deployments without a call performed for each, and others serve them", async () => {
    const all = Array.from({ length: 600 }, newDeployment);
    const receiver = await daemon().place.connect();
    receiver.write(
      all
        .map((deployment, id) => ({ id, deployment, owner: "receiver" }))
        .map(({ id, ...params }) => JSON.stringify({ jsonrpc: "2.0", id, method: "command.serve", params }))
        .join("\n")
        .concat("\n"),
    );
    for (const _ of all) expect((await receiver.reply()).error).toBeUndefined();
    const operations = async (): Promise<number> => (await client.call("daemon.stats", {})).turns.operations;
    // Those that wait for commands do so from the turn after the answers on.
    await operations();
    const { connections } = await client.call("daemon.stats", {});
    const before = await operations();
    let asked = 0;
    await receiver.destroy();
    await until(async () => {
      asked += 1;
      return (await client.call("daemon.stats", {})).connections.open < connections.open;
    });
    const [first, last] = [all[0], all.at(-1)] as [string, string];
    for (const deployment of [first, last]) {
      const other = await serving(deployment);
      const commandId = await create(client, deployment);
      expect((await pushed(other)).params).toMatchObject({ commandId });
      await other.destroy();
      expect(await take(client, deployment, { waitMs: 30_000 })).toMatchObject({ commandId });
    }
    expect((await operations()) - before - asked).toBeLessThan(100);
  });

  test("shutting only its side gives back more commands than one step does", async () => {
    const all = [newDeployment(), newDeployment()];
    const receiver = await daemon().place.connect();
    for (const deployment of all)
      await receiver.call("command.serve", { deployment, owner: "receiver", max: 100 });
    for (let number = 0; number < 120; number += 1) {
      const params = { deployment: all[number % 2], command: "run" };
      client.send({ jsonrpc: "2.0", id: number, method: "command.create", params });
    }
    for (let number = 0; number < 120; number += 1) await client.reply();
    for (let number = 0; number < 120; number += 1) await receiver.line();
    // A wait keeps the connection open.
    const params = { queue: "none", owner: "o", waitMs: 3_600_000 };
    receiver.send({ jsonrpc: "2.0", id: "w", method: "queue.claim", params });
    receiver.socket.end();
    await until(async () => {
      const { commands } = await client.call("command.list", { state: "PENDING", limit: 1000 });
      return commands.filter(({ deployment }) => all.includes(deployment)).length === 120;
    });
    await receiver.destroy();
  });

  test("is not sent what it was not there for", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    await receiver.destroy();
    const commandId = await create(client, deployment);
    expect(await take(client, deployment, { waitMs: 30_000 })).toMatchObject({ commandId });
  });

  test("with its daemon: over a restart a push is given back", async () => {
    const first = await startDaemon();
    const { place } = first;
    const before = await place.connect();
    await before.call("command.serve", { deployment: "d", owner: "x" });
    const commandId = await create(before, "d");
    await pushed(before);
    await first.end("SIGKILL");
    await place.start();
    const after = await place.connect();
    // Of shared names nobody can tell that its connections have ended with it: they are given back after a grace.
    if (!NAMES_ARE_SHARED)
      expect(await get(after, commandId)).toMatchObject({ state: "PENDING", attempt: 2 });
    await after.call("command.serve", { deployment: "d", owner: "x" });
    answer(after, await pushed(after), { result: 1 });
    expect(await ended(after, commandId)).toMatchObject({ state: "SUCCEEDED", attempt: 2 });
  });
});

describe("commands that end while they are carried out", () => {
  test("a cancelled command: the receiver is told, and its answer is evidence", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    const request = await pushed(receiver);
    const waiting = await create(client, deployment);
    expect(await client.call("command.cancel", { commandId, reason: "Enough." })).toEqual({
      state: "FAILED",
    });
    expect(JSON.parse(await receiver.line())).toEqual({
      jsonrpc: "2.0",
      method: "command.cancelled",
      params: { commandId, reason: "Enough." },
    });
    // Nobody waits for this answer any more, so the next one does not either.
    expect((await pushed(receiver)).params.commandId).toBe(waiting);
    answer(receiver, request, { result: "too late" });
    expect(await answerTo(client, commandId)).toMatchObject({ status: "error", code: "CANCELLED" });
    await daemon().logged((line) => line.msg === "late answer to a command" && line.commandId === commandId);
    expect(lateAnswers(daemon(), commandId)).toBe(1);
  });

  test("without a reason it is null", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    await pushed(receiver);
    await client.call("command.cancel", { commandId });
    expect(JSON.parse(await receiver.line()).params).toEqual({ commandId, reason: null });
  });

  test("a deadline that passes: the receiver is told", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment, { ttlMs: 300 });
    const request = await pushed(receiver);
    expect(JSON.parse(await receiver.line())).toEqual({
      jsonrpc: "2.0",
      method: "command.cancelled",
      params: { commandId, reason: "EXPIRED" },
    });
    const next = await create(client, deployment);
    expect((await pushed(receiver)).params.commandId).toBe(next);
    answer(receiver, request, { result: "too late" });
    await receiver.call("daemon.ping", {});
    expect(await get(client, commandId)).toMatchObject({ state: "EXPIRED" });
  });

  test("its receiver has room for one more, and no more than one", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, 2);
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) ids.push(await create(client, deployment));
    const [first] = [await pushed(receiver), await pushed(receiver)];
    await client.call("command.cancel", { commandId: ids[0] as string });
    expect(JSON.parse(await receiver.line()).method).toBe("command.cancelled");
    expect((await pushed(receiver)).params.commandId).toBe(ids[2]);
    // Its answer makes no room for a second time.
    answer(receiver, first, { result: "too late" });
    await client.call("command.cancel", { commandId: ids[0] as string });
    expect(await arrived(receiver)).toEqual([]);
  });

  test("others are preferred to a receiver that may still be at work on it", async () => {
    const deployment = newDeployment();
    const [busy, free] = [await serving(deployment, 2), await serving(deployment, 2)];
    const hung = await create(client, deployment);
    await pushed(busy);
    await client.call("command.cancel", { commandId: hung });
    await busy.line();
    const next = await create(client, deployment);
    expect((await pushed(free)).params.commandId).toBe(next);
  });

  test("in the turn in which it was sent: its receiver is told after it has got it", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    await create(client, deployment);
    const first = await pushed(receiver);
    const commandId = await create(client, deployment);
    // The answer makes room for the second one, which is cancelled before the turn is over.
    const done = JSON.stringify({ jsonrpc: "2.0", id: first.id, result: 1 });
    const cancel = JSON.stringify({
      jsonrpc: "2.0",
      id: "cancel",
      method: "command.cancel",
      params: { commandId },
    });
    receiver.write(`${done}\n${cancel}\n`);
    expect((await pushed(receiver)).params.commandId).toBe(commandId);
    expect(JSON.parse(await receiver.line())).toMatchObject({
      method: "command.cancelled",
      params: { commandId },
    });
    expect(await receiver.reply()).toMatchObject({ id: "cancel", result: { state: "FAILED" } });
    // And it has room again.
    const next = await create(client, deployment);
    expect((await pushed(receiver)).params.commandId).toBe(next);
  });

  test("is left unanswered so often that its receiver is sent no more", async () => {
    const deployment = newDeployment();
    const atOnce = 50;
    const receiver = await serving(deployment, atOnce);
    let last: Awaited<ReturnType<typeof pushed>> | undefined;
    for (let count = 0; count < 1000; count += atOnce) {
      const ids = await Promise.all(Array.from({ length: atOnce }, () => create(client, deployment)));
      for (const _ of ids) last = await pushed(receiver);
      await Promise.all(ids.map((commandId) => client.call("command.cancel", { commandId })));
      for (const _ of ids) await receiver.line();
    }
    const commandId = await create(client, deployment);
    expect(await arrived(receiver)).toEqual([]);
    answer(receiver, last as Awaited<ReturnType<typeof pushed>>, { result: 1 });
    expect((await pushed(receiver)).params.commandId).toBe(commandId);
  });
});

test("a socket that serves only reads takes no receivers", async () => {
  const { place } = await startDaemon({
    args: ["--read-only-socket", `${daemon().place.directory}/ro.sock`],
  });
  const reader = await RawClient.connect(`${daemon().place.directory}/ro.sock`);
  expectRefusal(await reader.refusal("command.serve", { deployment: "d", owner: "x" }), "read_only");
  const commandId = await create(await place.connect(), "d");
  expect(await get(reader, commandId)).toMatchObject({ state: "PENDING" });
});

describe("an answer that is longer than a line may be", () => {
  const long = "x".repeat(3 * 1024 * 1024);

  /** A receiver that has two commands. */
  async function busy() {
    const deployment = newDeployment();
    const receiver = await serving(deployment, 2);
    const pushes = [];
    for (let i = 0; i < 2; i += 1) {
      await create(client, deployment, { maxAttempts: 2 });
      pushes.push(await pushed(receiver));
    }
    const [first, second] = pushes as [
      Awaited<ReturnType<typeof pushed>>,
      Awaited<ReturnType<typeof pushed>>,
    ];
    return { receiver, first, second };
  }

  test.each([
    ["before it", (id: string) => `{"jsonrpc":"2.0","id":"${id}","result":"${long}"}`],
    ["behind it", (id: string) => `{"result":{"id":"no","deep":["${long}"]},"jsonrpc":"2.0","id":"${id}"}`],
    ["written otherwise", (id: string) => `{"error":"\\"${long}\\\\","\\u0069d" : "${id}" }`],
  ])("fails the command that its id names, %s; the connection goes on", async (_, answerWith) => {
    const { receiver, first, second } = await busy();
    receiver.write(`${answerWith(second.id)}\n`);
    const command = await ended(client, second.params.commandId);
    expect(command).toMatchObject({ state: "FAILED", attempt: 1, error: { code: "ANSWER_TOO_LARGE" } });
    expect(await answerTo(client, second.params.commandId)).toMatchObject({ code: "ANSWER_TOO_LARGE" });
    answer(receiver, first, { result: "short" });
    expect(await ended(client, first.params.commandId)).toMatchObject({ state: "SUCCEEDED" });
    expect(await arrived(receiver)).toEqual([]);
    await receiver.destroy();
  });

  test("without an id fails the oldest that is not answered before it", async () => {
    const { receiver, first, second } = await busy();
    answer(receiver, first, { result: "short" });
    receiver.write(`{"result":"${long}"}\n`);
    expect(await ended(client, second.params.commandId)).toMatchObject({
      state: "FAILED",
      error: { code: "ANSWER_TOO_LARGE" },
    });
    expect(await ended(client, first.params.commandId)).toMatchObject({ state: "SUCCEEDED" });
    await receiver.destroy();
  });

  test.each([
    ["a request", (id: string) => `{"id":"${id}","method":"daemon.ping","params":"${long}"}`],
    ["an answer to nothing", () => `{"id":"pawld-99","result":"${long}"}`],
  ])("%s that is too long closes the connection as ever", async (_, line) => {
    const { receiver, first } = await busy();
    receiver.write(`${line(first.id)}\n`);
    expect((await receiver.reply()).error?.data.kind).toBe("message_too_large");
    await receiver.ended;
    await receiver.destroy();
    expect((await get(client, first.params.commandId)).state).not.toBe("FAILED");
  });

  test("without its end gives the command back when the connection closes", async () => {
    const { receiver, first } = await busy();
    const before = daemon().residentBytes;
    for (let i = 0; i < 20; i += 1) receiver.write(`${i === 0 ? '{"result":"' : ""}${long}`);
    receiver.socket.end();
    await receiver.ended;
    expect(daemon().residentBytes - before).toBeLessThan(40_000_000);
    await receiver.destroy();
    expect(await stateOf(client, first.params.commandId)).toBe("PENDING");
  });
});
