// Commands as those who send them see them: creation, keys, what is kept, lists (spec: command.md).
import type { Params } from "@pawl/protocol";
import { INLINE_MAX_BYTES, MAX_PAGE_BYTES, MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import { answerTo, create, ended, get, newDeployment, respond, stateOf, take } from "../commands.js";
import { NAMES_ARE_SHARED, sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

type Given = Partial<Params<"command.create">>;

const daemon = sharedDaemon();
let client: RawClient;
let other: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
  other = await daemon().place.connect();
});

describe("create", () => {
  test("answers with all that is needed to go on", async () => {
    const deployment = newDeployment();
    const result = await client.call("command.create", { deployment, command: "run" });
    expect(result).toEqual({
      commandId: expect.stringMatching(
        /^cmd_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      ),
      state: "PENDING",
      deploymentModel: "pull",
      projectId: null,
      created: true,
      inlineMaxBytes: INLINE_MAX_BYTES,
      next: "wait",
    });
    expect(await get(client, result.commandId)).toEqual({
      commandId: result.commandId,
      deployment,
      target: "",
      command: "run",
      projectId: null,
      deploymentModel: "pull",
      state: "PENDING",
      attempt: 1,
      maxAttempts: 20,
      executionMs: null,
      deadline: null,
      createdAt: expect.any(Number),
      dispatchedAt: null,
      completedAt: null,
      requestSizeBytes: 4,
      responseSizeBytes: null,
      error: null,
    });
  });

  test("ids sort by the order of creation, also within one millisecond", async () => {
    const deployment = newDeployment();
    const ids = await Promise.all(Array.from({ length: 300 }, () => create(client, deployment)));
    expect(ids).toEqual(ids.toSorted());
    expect(new Set(ids).size).toBe(300);
  });

  test.each([
    ["deployment", "a:b"],
    ["deployment", ""],
    ["deployment", "ä"],
    ["deployment", "x".repeat(129)],
    ["command", "a b"],
    ["command", "a\nb"],
    ["maxAttempts", -1],
    ["ttlMs", 0],
    ["deadline", "tomorrow"],
    ["idempotencyKey", ""],
    ["upload", { sizeBytes: 0 }],
    ["upload", {}],
  ])("refuses %s %j by name", async (name, value) => {
    const error = await client.refusal("command.create", { deployment: "d", command: "c", [name]: value });
    const { issues } = expectRefusal(error, "invalid_params").data as unknown as {
      issues: { path: string }[];
    };
    expect(issues[0]?.path).toMatch(new RegExp(`^/${name}`));
  });

  test("takes every name that the rules allow", async () => {
    const name = "AZaz09._/-".padEnd(128, "x");
    const { commandId } = await client.call("command.create", { deployment: name, command: name });
    expect(await get(client, commandId)).toMatchObject({ deployment: name, command: name });
  });

  test.each([
    ["deadline and ttlMs", "/ttlMs", { deadline: 5_000_000_000_000, ttlMs: 1000 }],
    ["params and upload", "/upload", { params: null, upload: { sizeBytes: 10 } }],
    ["params larger than inlineMaxBytes", "/params", { params: "x".repeat(INLINE_MAX_BYTES - 1) }],
    [
      "params nested too deeply",
      "/params",
      {
        params: JSON.parse(
          `${"[".repeat(MAX_PAYLOAD_NESTING_LEVELS + 1)}${"]".repeat(MAX_PAYLOAD_NESTING_LEVELS + 1)}`,
        ),
      },
    ],
  ])("refuses %s", async (_what, path, params) => {
    const deployment = newDeployment();
    const error = await client.refusal("command.create", { deployment, command: "run", ...params });
    expect(expectRefusal(error, "invalid_params").data.issues).toEqual([
      { path, message: expect.any(String) },
    ]);
    expect((await client.call("command.list", { deployment })).commands).toEqual([]);
  });

  test("takes params of inlineMaxBytes", async () => {
    const params = "x".repeat(INLINE_MAX_BYTES - 2);
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { params });
    expect((await get(client, commandId)).requestSizeBytes).toBe(INLINE_MAX_BYTES);
    expect((await take(client, deployment)).envelope.params).toBe(params);
  });

  test("counts ttlMs from now", async () => {
    const commandId = await create(client, newDeployment(), { ttlMs: 60_000 });
    const { createdAt, deadline } = await get(client, commandId);
    expect(deadline).toBe(createdAt + 60_000);
  });

  test("with a deadline that has passed gives a command that is EXPIRED", async () => {
    const deployment = newDeployment();
    const result = await client.call("command.create", { deployment, command: "run", deadline: 1 });
    expect(result).toMatchObject({ state: "EXPIRED", created: true, next: "wait" });
    const command = await get(client, result.commandId);
    expect(command).toMatchObject({ state: "EXPIRED", deadline: 1, error: { code: "EXPIRED" } });
    expect(command.completedAt).toBe(command.createdAt);
    expect(await answerTo(client, result.commandId)).toMatchObject({ status: "error", code: "EXPIRED" });
    expect(await client.call("command.lease", { deployment, owner: "x" })).toEqual({ leases: [] });
  });
});

describe("an idempotency key", () => {
  test("gives the first command again for the same content, in whatever state it is", async () => {
    const deployment = newDeployment();
    const request = { deployment, command: "run", params: { a: 1, b: [2] }, idempotencyKey: "k" };
    const first = await client.call("command.create", request);
    expect(first.created).toBe(true);
    expect(await other.call("command.create", request)).toEqual({ ...first, created: false });
    await respond(client, await take(client, deployment));
    expect(await other.call("command.create", request)).toEqual({
      ...first,
      created: false,
      state: "SUCCEEDED",
    });
    expect((await client.call("command.list", { deployment })).commands).toHaveLength(1);
  });

  test.each([
    ["the order of members", '{"a":1,"b":[1,{"c":2,"d":3}]}', '{ "b": [1, {"d": 3, "c": 2}], "a": 1 }'],
    ["how numbers are written", "[1,100,0.5]", "[1.0,1e2,5E-1]"],
    ["how characters are escaped", '"é/"', '"\\u00e9\\/"'],
    ["numbers that a double cannot hold", "12345678901234567890", "1234567890123456789e1"],
  ])("does not mind %s", async (_what, one, two) => {
    const deployment = newDeployment();
    const line = (params: string) =>
      `{"jsonrpc":"2.0","id":"x","method":"command.create","params":{"deployment":"${deployment}","command":"c","idempotencyKey":"k","params":${params}}}`;
    const first = (await client.ask(line(one))).result as { commandId: string };
    expect((await client.ask(line(two))).result).toEqual({ ...first, created: false });
  });

  test.each([
    ["other params", { params: [1] }, { params: [1, 2] }],
    ["another type", { params: 1 }, { params: "1" }],
    ["params and none", { params: 1 }, {}],
    ["an upload of another size", { upload: { sizeBytes: 10 } }, { upload: { sizeBytes: 11 } }],
    ["an upload", { params: 1 }, { upload: { sizeBytes: 1 } }],
  ])("with %s is a conflict that names both", async (_what, one, two) => {
    const deployment = newDeployment();
    const base = { deployment, command: "run", idempotencyKey: "k" };
    const { commandId } = await client.call("command.create", { ...base, ...one });
    const { data } = expectRefusal(await other.refusal("command.create", { ...base, ...two }), "conflict");
    expect(data).toMatchObject({ idempotencyKey: "k", first: { commandId }, now: {} });
    expect((await client.call("command.list", { deployment })).commands).toHaveLength(1);
  });

  const RETRY = { baseMs: 1000, factor: 2, maxMs: 60_000, jitter: false };

  test.each<[string, Given, Given, object, object]>([
    ["another maxAttempts", { maxAttempts: 3 }, { maxAttempts: 5 }, { maxAttempts: 3 }, { maxAttempts: 5 }],
    ["another maxAttempts", {}, { maxAttempts: 5 }, { maxAttempts: null }, { maxAttempts: 5 }],
    ["another executionMs", { executionMs: 1000 }, {}, { executionMs: 1000 }, { executionMs: null }],
    [
      "another incarnation",
      { incarnation: "a" },
      { incarnation: "b" },
      { incarnation: "a" },
      { incarnation: "b" },
    ],
    [
      "another retry",
      { retry: RETRY, incarnation: "a" },
      { incarnation: "a" },
      { retry: RETRY },
      { retry: null },
    ],
    [
      "another retry and another incarnation",
      { retry: RETRY, incarnation: "a" },
      { retry: { ...RETRY, jitter: true } },
      { retry: RETRY, incarnation: "a" },
      { retry: { ...RETRY, jitter: true }, incarnation: null },
    ],
    [
      "other params, another maxAttempts and another executionMs",
      { params: [1, 2] },
      { upload: { sizeBytes: 7 }, maxAttempts: 2, executionMs: 5 },
      { requestSizeBytes: 5, upload: false, maxAttempts: null, executionMs: null },
      { requestSizeBytes: 7, upload: true, maxAttempts: 2, executionMs: 5 },
    ],
  ])("with %s is a conflict that says so, and names what differs", async (words, one, two, first, now) => {
    const base = { deployment: newDeployment(), command: "run", idempotencyKey: "k" };
    const { commandId } = await client.call("command.create", { ...base, ...one });
    const { message, data } = await other.refusal("command.create", { ...base, ...two });
    expect(message).toBe(
      `The idempotencyKey "k" was used for ${commandId} with ${words}. Use a new key for a new command.`,
    );
    const { createdAt } = await get(client, commandId);
    expect(data).toMatchObject({ kind: "conflict", idempotencyKey: "k" });
    expect(data.first).toEqual({ commandId, createdAt, ...first });
    expect(data.now).toEqual(now);
  });

  test("no params and null are the same", async () => {
    const base = { deployment: newDeployment(), command: "run", idempotencyKey: "k" };
    const { commandId } = await client.call("command.create", base);
    expect(await client.call("command.create", { ...base, params: null })).toMatchObject({
      commandId,
      created: false,
    });
  });

  test("belongs to a deployment and a command name", async () => {
    const [one, two] = [newDeployment(), newDeployment()];
    const requests = [
      { deployment: one, command: "a", params: 1 },
      { deployment: one, command: "b", params: 2 },
      { deployment: two, command: "a", params: 3 },
    ];
    for (const request of requests) {
      const { created } = await client.call("command.create", { ...request, idempotencyKey: "k" });
      expect(created).toBe(true);
    }
  });

  test("of two creations at once makes one command, whichever is first", async () => {
    for (let round = 0; round < 50; round += 1) {
      const request = { deployment: newDeployment(), command: "run", params: round, idempotencyKey: "k" };
      const both = await Promise.all([
        client.call("command.create", request),
        other.call("command.create", request),
      ]);
      expect(both.filter(({ created }) => created)).toHaveLength(1);
      expect(both[0].commandId).toBe(both[1].commandId);
    }
  });
});

describe("params and answers", () => {
  /** JSON that JSON.parse and JSON.stringify would change. */
  const TEXT =
    '{"b":1.0, "a":12345678901234567890,"e":1e400,"s":"\\u0041\\/\\ud800\\u0000é","a":-0,"__proto__":{"x":[ ]}}';

  test("are kept byte for byte, whichever way they travel", async () => {
    const deployment = newDeployment();
    client.write(
      `{"jsonrpc":"2.0","id":"x","method":"command.create","params":{"deployment":"${deployment}","command":"c","params": ${TEXT} }}\n`,
    );
    const { commandId } = (await client.reply()).result as { commandId: string };
    expect((await get(client, commandId)).requestSizeBytes).toBe(Buffer.byteLength(TEXT));

    client.write(
      `{"jsonrpc":"2.0","id":"y","method":"command.lease","params":{"deployment":"${deployment}","owner":"o"}}\n`,
    );
    const leaseLine = await client.line();
    expect(leaseLine).toContain(`"params":${TEXT}`);
    const [{ leaseId }] = JSON.parse(leaseLine).result.leases;

    client.write(
      `{"jsonrpc":"2.0","id":"z","method":"command.respond","params":{"commandId":"${commandId}","leaseId":"${leaseId}","response":{"response":${TEXT},"status":"success"}}}\n`,
    );
    expect((await client.reply()).result).toEqual({ state: "SUCCEEDED", accepted: true });
    expect((await get(client, commandId)).responseSizeBytes).toBe(Buffer.byteLength(TEXT));
    client.write(
      `{"jsonrpc":"2.0","id":"r","method":"command.response","params":{"commandId":"${commandId}"}}\n`,
    );
    expect(await client.line()).toContain(`{"response":{"status":"success","response":${TEXT}}}`);

    const { chunk, offset, sizeBytes } = await client.call("command.params", { commandId });
    expect(Buffer.from(chunk, "base64").toString()).toBe(TEXT);
    expect({ offset, sizeBytes }).toEqual({ offset: 0, sizeBytes: Buffer.byteLength(TEXT) });
  });

  test.each([null, true, false, 0, "", [], {}, "null", [[]], { "": "" }])("can be %j", async (value) => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { params: value });
    const leased = await take(client, deployment);
    expect(leased.envelope.params).toEqual(value);
    await respond(client, leased, { status: "success", response: value });
    expect(await answerTo(client, commandId)).toEqual({ status: "success", response: value });
  });

  test("an error is kept with its details, and shown with the command; a list leaves them out", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const error = {
      status: "error",
      code: "DISK_FULL",
      message: "No space.\0\ud800",
      details: { free: 1 },
    } as const;
    expect(await respond(client, await take(client, deployment), error)).toEqual({
      state: "FAILED",
      accepted: true,
    });
    expect(await answerTo(client, commandId)).toEqual(error);
    const shown = { code: "DISK_FULL", message: "No space.\ufffd\ufffd" };
    expect((await get(client, commandId)).error).toEqual({ ...shown, details: { free: 1 } });
    expect((await ended(client, commandId)).error).toEqual({ ...shown, details: { free: 1 } });
    const { commands } = await client.call("command.list", { deployment });
    expect(commands[0]?.error).toEqual(shown);
  });

  test("the details of an error are shown byte for byte", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    const ask = (method: string, params: string): void =>
      client.write(
        `{"jsonrpc":"2.0","id":"d","method":"${method}","params":{"commandId":"${commandId}"${params}}}\n`,
      );
    ask(
      "command.respond",
      `,"leaseId":"${leaseId}","response":{"status":"error","code":"E","message":"m","details":${TEXT}}`,
    );
    expect((await client.reply()).result).toEqual({ state: "FAILED", accepted: true });
    ask("command.get", "");
    expect(await client.line()).toContain(`"error":{"code":"E","message":"m","details":${TEXT}}`);
  });

  test("an answer of another form is refused, and the refusal says which there are", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    for (const [response, path, message] of [
      [{ status: "x" }, "/response/status", 'must be "success" or "error", not "x"'],
      [{}, "/response/status", "is required"],
      [{ status: "error", code: "E" }, "/response/message", "is required"],
      ["success", "/response", 'must be an object, not "success"'],
    ] as const) {
      const error = await client.refusal("command.respond", { commandId, leaseId, response });
      expect(expectRefusal(error, "invalid_params").data.issues).toEqual([{ path, message }]);
      expect(error.message).toContain(message);
    }
    expect(await stateOf(client, commandId)).toBe("DISPATCHED");
  });

  test("a success without a value is null, an error without details has none", async () => {
    const deployment = newDeployment();
    const [one, two] = [await create(client, deployment), await create(client, deployment)];
    await respond(client, await take(client, deployment), { status: "success" });
    await respond(client, await take(client, deployment), { status: "error", code: "E", message: "" });
    expect(await answerTo(client, one)).toEqual({ status: "success", response: null });
    expect(await answerTo(client, two)).toEqual({ status: "error", code: "E", message: "" });
  });

  test("a long message is shown in part and kept whole", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const message = "é".repeat(100_000);
    await respond(client, await take(client, deployment), { status: "error", code: "E", message });
    expect((await get(client, commandId)).error?.message).toBe(message.slice(0, 1024));
    expect(await answerTo(client, commandId)).toEqual({ status: "error", code: "E", message });
  });

  test("an answer nested too deeply is refused, and the command can still be answered", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const leased = await take(client, deployment);
    const levels = MAX_PAYLOAD_NESTING_LEVELS + 1;
    const line = `{"jsonrpc":"2.0","id":"x","method":"command.respond","params":{"commandId":"${commandId}","leaseId":"${leased.leaseId}","response":{"status":"success","response":${"[".repeat(levels)}${"]".repeat(levels)}}}}`;
    expectRefusal((await client.ask(line)).error, "invalid_params");
    expect(await respond(client, leased)).toEqual({ state: "SUCCEEDED", accepted: true });
  });

  test("the answer is null until there is one", async () => {
    const commandId = await create(client, newDeployment());
    expect(await answerTo(client, commandId)).toBeNull();
  });

  test("params are read in pieces, up to their end and beyond", async () => {
    const text = JSON.stringify({ text: "äöü€".repeat(500) });
    const commandId = await create(client, newDeployment(), { params: JSON.parse(text) });
    const bytes = Buffer.from(text);
    const pieces: Buffer[] = [];
    for (let offset = 0; ; ) {
      const piece = await client.call("command.params", { commandId, offset, length: 777 });
      expect(piece).toMatchObject({ offset, sizeBytes: bytes.length });
      const chunk = Buffer.from(piece.chunk, "base64");
      if (chunk.length === 0) break;
      expect(chunk.length).toBeLessThanOrEqual(777);
      pieces.push(chunk);
      offset += chunk.length;
    }
    expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
    const { chunk } = await client.call("command.params", { commandId, offset: bytes.length + 5 });
    expect(chunk).toBe("");
  });
});

describe("wait", () => {
  test("is answered by the write that ends the command, and all who wait are", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const waits = [ended(client, commandId), ended(other, commandId), ended(other, commandId)];
    await respond(client, await take(client, deployment));
    for (const command of await Promise.all(waits)) {
      expect(command).toMatchObject({ commandId, state: "SUCCEEDED" });
    }
  });

  test("is answered at once for a final command, and with waitMs 0", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    expect((await client.call("command.wait", { commandId, waitMs: 0 })).state).toBe("PENDING");
    await client.call("command.cancel", { commandId });
    expect((await ended(client, commandId)).state).toBe("FAILED");
  });

  test("gives the command as it is when the time is up", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const waiting = client.call("command.wait", { commandId, waitMs: 200 });
    await take(other, deployment);
    expect(await waiting).toMatchObject({ commandId, state: "DISPATCHED" });
  });
});

describe("cancel", () => {
  test("ends a command with the words of whoever did it, and what is final stays", async () => {
    const commandId = await create(client, newDeployment());
    expect(await client.call("command.cancel", { commandId, reason: "Not any more." })).toEqual({
      state: "FAILED",
    });
    const cancelled = await get(client, commandId);
    expect(cancelled.error).toEqual({ code: "CANCELLED", message: "Not any more." });
    expect(await answerTo(client, commandId)).toEqual({
      status: "error",
      code: "CANCELLED",
      message: "Not any more.",
    });
    expect(await client.call("command.cancel", { commandId, reason: "Again." })).toEqual({ state: "FAILED" });
    expect(await get(client, commandId)).toEqual(cancelled);
  });

  test("takes a command out of what is pending", async () => {
    const deployment = newDeployment();
    const [first, second] = [await create(client, deployment), await create(client, deployment)];
    await client.call("command.cancel", { commandId: first });
    expect((await take(client, deployment)).commandId).toBe(second);
  });
});

describe("deployments", () => {
  test("are what was said of them last, for commands from then on", async () => {
    const deployment = newDeployment();
    const before = await create(client, deployment);
    expect(await client.call("deployment.set", { deployment, model: "push", projectId: "p-1" })).toEqual({
      deployment,
      model: "push",
      projectId: "p-1",
    });
    const created = await client.call("command.create", { deployment, command: "run" });
    expect(created).toMatchObject({ deploymentModel: "push", projectId: "p-1" });
    expect(await get(client, created.commandId)).toMatchObject({ deploymentModel: "push", projectId: "p-1" });
    expect(await get(client, before)).toMatchObject({ deploymentModel: "pull", projectId: null });
    expect(await client.call("deployment.set", { deployment })).toEqual({
      deployment,
      model: "pull",
      projectId: null,
    });
  });

  test("are listed by name with receivers and what is pending, and by project", async () => {
    const { place } = await startDaemon();
    const sender = await place.connect();
    for (const [deployment, projectId] of [
      ["b", "p"],
      ["d", "q"],
      ["a", undefined],
    ] as const) {
      await sender.call("deployment.set", { deployment, ...(projectId && { projectId }) });
    }
    await create(sender, "c");
    await create(sender, "b");
    await create(sender, "b");
    // One waits, one serves what nobody has ever sent anything to, one works and is no receiver meanwhile.
    const waiting = await place.connect();
    const wait = waiting.call("command.lease", { deployment: "d", owner: "w", waitMs: 60_000 });
    const serving = await place.connect();
    await serving.call("command.serve", { deployment: "e", owner: "s" });
    await serving.call("command.serve", { deployment: "d", owner: "s" });
    await waiting.call("daemon.ping", {});
    await take(sender, "c");

    const list = [
      { deployment: "a", model: "pull", projectId: null, receivers: 0, pending: 0 },
      { deployment: "b", model: "pull", projectId: "p", receivers: 0, pending: 2 },
      { deployment: "c", model: "pull", projectId: null, receivers: 0, pending: 0 },
      { deployment: "d", model: "pull", projectId: "q", receivers: 2, pending: 0 },
      { deployment: "e", model: "pull", projectId: null, receivers: 1, pending: 0 },
    ];
    expect(await sender.call("deployment.list", {})).toEqual({ deployments: list });
    expect(await sender.call("deployment.list", { projectId: "p" })).toEqual({ deployments: [list[1]] });

    const pages: string[] = [];
    let after: string | undefined;
    do {
      const { deployments, next } = await sender.call("deployment.list", {
        limit: 2,
        ...(after && { after }),
      });
      pages.push(deployments.map(({ deployment }) => deployment).join(""));
      after = next;
    } while (after !== undefined);
    expect(pages).toEqual(["ab", "cd", "e"]);

    await serving.destroy();
    await waiting.destroy();
    await expect(wait).rejects.toThrow("closed");
    const { deployments } = await sender.call("deployment.list", {});
    expect(deployments.map(({ deployment, receivers }) => `${deployment}${receivers}`)).toEqual([
      "a0",
      "b0",
      "c0",
      "d0",
    ]);
  });
});

describe("list", () => {
  test("is newest first, in pages, by deployment, state and project", async () => {
    const { place } = await startDaemon();
    const sender = await place.connect();
    await sender.call("deployment.set", { deployment: "a", projectId: "p" });
    const all: { commandId: string; deployment: string; state: string }[] = [];
    for (let index = 0; index < 40; index += 1) {
      const deployment = index % 2 === 0 ? "a" : "b";
      const commandId = await create(sender, deployment);
      if (index % 5 === 1) await sender.call("command.cancel", { commandId });
      if (index % 5 === 2) await respond(sender, await take(sender, deployment));
      all.unshift({ commandId, deployment, state: await stateOf(sender, commandId) });
    }
    // The oldest are leased first, so the states have changed meanwhile.
    for (const each of all) each.state = await stateOf(sender, each.commandId);
    expect(new Set(all.map(({ state }) => state))).toEqual(new Set(["PENDING", "FAILED", "SUCCEEDED"]));

    for (const deployment of [undefined, "a", "b", "none"]) {
      for (const state of [undefined, "PENDING", "SUCCEEDED", "FAILED", "EXPIRED"] as const) {
        for (const projectId of [undefined, "p"]) {
          const wanted = all.filter(
            (each) =>
              (deployment === undefined || each.deployment === deployment) &&
              (state === undefined || each.state === state) &&
              (projectId === undefined || each.deployment === "a"),
          );
          const filter = {
            ...(deployment && { deployment }),
            ...(state && { state }),
            ...(projectId && { projectId }),
          };
          const listed: string[] = [];
          let after: string | undefined;
          do {
            const page = await sender.call("command.list", { ...filter, limit: 7, ...(after && { after }) });
            expect(page.commands.length).toBeLessThanOrEqual(7);
            listed.push(...page.commands.map(({ commandId }) => commandId));
            after = page.next;
          } while (after !== undefined);
          expect(listed).toEqual(wanted.map(({ commandId }) => commandId));
        }
      }
    }
  });

  test("goes on behind any id, also one that is not there", async () => {
    const { place } = await startDaemon();
    const sender = await place.connect();
    const ids = [await create(sender, "a"), await create(sender, "a"), await create(sender, "a")];
    const between = `${ids[1]?.slice(0, -1)}~`;
    const idsAfter = async (after: string) =>
      (await sender.call("command.list", { after })).commands.map(({ commandId }) => commandId);
    expect(await idsAfter(ids[1] as string)).toEqual([ids[0]]);
    expect(await idsAfter(between)).toEqual([ids[1], ids[0]]);
    expect(await idsAfter("cmd_f")).toEqual(ids.toReversed());
    expect(await idsAfter("cmd_0")).toEqual([]);
  });

  test("stops before it is too much, and says where to go on", async () => {
    const deployment = newDeployment();
    const message = "€".repeat(2000);
    for (let index = 0; index < 1200; index += 100) {
      const ids = await Promise.all(Array.from({ length: 100 }, () => create(client, deployment)));
      const { leases } = await client.call("command.lease", { deployment, owner: "x", max: 100 });
      expect(leases.map(({ commandId }) => commandId)).toEqual(ids);
      await Promise.all(leases.map((each) => respond(client, each, { status: "error", code: "E", message })));
    }
    const first = await client.call("command.list", { deployment, limit: 1000 });
    expect(first.commands.length).toBeGreaterThan(100);
    expect(JSON.stringify(first).length).toBeLessThan(3 * MAX_PAGE_BYTES);
    const listed = new Set(first.commands.map(({ commandId }) => commandId));
    let after = first.next;
    while (after !== undefined) {
      const page = await client.call("command.list", { deployment, after });
      for (const { commandId } of page.commands) listed.add(commandId);
      after = page.next;
    }
    expect(listed.size).toBe(1200);
  });
});

test("daemon.stats counts commands by state, and goes on after a restart", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  let sender = await place.connect();
  for (let index = 0; index < 6; index += 1) await create(sender, "d");
  await create(sender, "d", { deadline: 1 });
  await create(sender, "d", { upload: { sizeBytes: 5 } });
  await respond(sender, await take(sender, "d"));
  const leased = await take(sender, "d");
  await respond(sender, leased, { status: "error", code: "E", message: "m" });
  await respond(sender, leased);
  await take(sender, "d");
  // Gauges have what is in its own database, counters what it has done.
  const kept = { PENDING_UPLOAD: 1, PENDING: 3, DISPATCHED: 1, SUCCEEDED: 1, FAILED: 1, EXPIRED: 1 };
  const none = { PENDING_UPLOAD: 0, PENDING: 0, DISPATCHED: 0, SUCCEEDED: 0, FAILED: 0, EXPIRED: 0 };
  const states = NAMES_ARE_SHARED ? none : kept;
  expect((await sender.call("daemon.stats", {})).commands).toEqual({
    states,
    // One had expired before it was created.
    ended: { SUCCEEDED: 1, FAILED: 1, EXPIRED: 1 },
    lateAnswers: 1,
  });
  await daemon.end("SIGKILL");
  await place.start();
  sender = await place.connect();
  expect((await sender.call("daemon.stats", {})).commands).toEqual({
    states,
    ended: { SUCCEEDED: 0, FAILED: 0, EXPIRED: 0 },
    lateAnswers: 0,
  });
});

test("a transaction creates, answers and reads commands, or does nothing of it", async () => {
  const deployment = newDeployment();
  const params = { text: "1.0", number: 1 };
  const { results } = await client.call("transact", {
    calls: [
      { method: "sequence.next", params: { type: "CMD" } },
      { method: "command.create", params: { deployment, command: "run", params } },
      { method: "command.get", params: { commandId: { $result: "/1/commandId" } } },
    ],
  });
  expect(results[2]).toMatchObject({ deployment, state: "PENDING" });
  const error = await client.refusal("transact", {
    calls: [
      { method: "command.create", params: { deployment, command: "run" } },
      { method: "command.cancel", params: { commandId: "cmd_none" } },
    ],
  });
  expectRefusal(error, "not_found");
  expect((await client.call("command.list", { deployment })).commands).toHaveLength(1);
  expect((await take(client, deployment)).envelope.params).toEqual(params);
  for (const [method, params] of [
    ["command.lease", { deployment, owner: "x", waitMs: 10 }],
    ["command.wait", { commandId: "x", waitMs: 1 }],
    ["command.serve", { deployment, owner: "x" }],
  ] as const) {
    expectRefusal(await client.refusal("transact", { calls: [{ method, params }] }), "invalid_params");
  }
});
