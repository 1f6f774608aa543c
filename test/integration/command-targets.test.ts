// Targets, progress and traces of commands, and what a list lets through (spec: command.md).
import { MAX_RESULT_BYTES } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import { connect } from "../../client/dist/index.js";
import { create, get, newDeployment, respond } from "../commands.js";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";
import { startPawl } from "./cli-program.js";

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

const lease = (deployment: string, params: { targets?: string[]; max?: number; waitMs?: number } = {}) =>
  client.call("command.lease", { deployment, owner: "worker", max: 100, ...params });

describe("targets", () => {
  test("a receiver that names some is given only theirs, in their order; one that names none is given all", async () => {
    const deployment = newDeployment();
    const send = (target?: string) => create(client, deployment, target === undefined ? {} : { target });
    const ids = [await send("a"), await send(), await send("b"), await send("a"), await send("c")];
    const of = async (targets?: string[]) =>
      (await lease(deployment, targets === undefined ? {} : { targets })).leases.map(
        ({ commandId, envelope }) => [commandId, envelope.target],
      );
    expect(await of(["nosuch"])).toEqual([]);
    expect(await of(["b", "a", "a"])).toEqual([
      [ids[0], "a"],
      [ids[2], "b"],
      [ids[3], "a"],
    ]);
    expect(await of()).toEqual([
      [ids[1], ""],
      [ids[4], "c"],
    ]);
    for (const targets of [[], [""], ["a:b"], Array(65).fill("a")]) {
      const refusal = await client.refusal("command.lease", { deployment, owner: "w", targets });
      expectRefusal(refusal, "invalid_params");
    }
  });

  test("each wait is met by a command of its own targets", async () => {
    const deployment = newDeployment();
    const others = await Promise.all([1, 2, 3].map(() => daemon().place.connect()));
    const taken: string[] = [];
    const waits = [["a"], ["b"], undefined].map(async (targets, index) => {
      const params = { deployment, owner: "worker", waitMs: 60_000, ...(targets && { targets }) };
      const { leases } = await (others[index] as RawClient).call("command.lease", params);
      taken.push(`${targets ?? "any"} ${leases[0]?.envelope.target}`);
    });
    await until(async () => (await client.call("daemon.stats", {})).connections.waiting >= 3);
    await create(client, deployment, { target: "b" });
    await waits[1];
    await create(client, deployment, { target: "c" });
    await waits[2];
    await create(client, deployment, { target: "a" });
    await waits[0];
    expect(taken).toEqual(["b b", "any c", "a a"]);
  });

  test("an idempotencyKey is of one target", async () => {
    const deployment = newDeployment();
    const key = { deployment, command: "run", idempotencyKey: "once" };
    const first = await client.call("command.create", { ...key, target: "a" });
    expect((await client.call("command.create", { ...key, target: "b" })).created).toBe(true);
    expect((await client.call("command.create", key)).created).toBe(true);
    const again = await client.call("command.create", { ...key, target: "a" });
    expect([again.created, again.commandId]).toEqual([false, first.commandId]);
  });

  test("a connection that serves is pushed those of its targets, and others go to whoever takes all", async () => {
    const deployment = newDeployment();
    const [some, all] = await Promise.all([daemon().place.connect(), daemon().place.connect()]);
    const pushed = async (to: RawClient) => JSON.parse(await to.line()).params.target;
    await some.call("command.serve", { deployment, owner: "some", targets: ["a"], max: 10 });
    await create(client, deployment, { target: "b" });
    await create(client, deployment, { target: "a" });
    expect(await pushed(some)).toBe("a");
    await all.call("command.serve", { deployment, owner: "all", max: 1 });
    expect(await pushed(all)).toBe("b");
    await create(client, deployment, { target: "c" });
    await create(client, deployment, { target: "a" });
    expect(await pushed(some)).toBe("a");
    expect([some.lines, all.lines]).toEqual([[], []]);
  });
});

describe("progress", () => {
  test("is shown, and leaves a checkpoint for the next delivery, byte for byte", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, {});
    const take = async () =>
      (await lease(deployment)).leases[0] as NonNullable<Awaited<ReturnType<typeof lease>>["leases"][0]>;
    const first = await take();
    expect("checkpoint" in first.envelope).toBe(false);
    const renewed = await client.call("command.progress", {
      leaseId: first.leaseId,
      percent: 10,
      note: "begun",
    });
    expect(renewed).toMatchObject({ cancelling: false });
    expect(renewed.remainingMs).toBeGreaterThan(0);
    client.write(
      `{"jsonrpc":"2.0","id":1,"method":"command.progress","params":{"leaseId":"${first.leaseId}","percent":55.5,"checkpoint":{"row": 9007199254740993.10}}}\n`,
    );
    await client.line();
    expect((await get(client, commandId)).progress).toEqual({ percent: 55.5, note: "begun" });
    await client.call("command.release", { leaseId: first.leaseId });
    expectRefusal(
      await client.refusal("command.progress", { leaseId: first.leaseId, percent: 1 }),
      "lease_lost",
    );
    client.write(
      `{"jsonrpc":"2.0","id":1,"method":"command.lease","params":{"deployment":"${deployment}","owner":"w"}}\n`,
    );
    const line = await client.line();
    expect(line).toContain('"checkpoint":{"row": 9007199254740993.10}');
    expect((await get(client, commandId)).progress).toBeUndefined();
  });

  test("of a push says what remains of it", async () => {
    const deployment = newDeployment();
    const receiver = await daemon().place.connect();
    await receiver.call("command.serve", { deployment, owner: "w", executionMs: 60_000 });
    const commandId = await create(client, deployment, {});
    const { params } = JSON.parse(await receiver.line());
    const { remainingMs } = await client.call("command.progress", { leaseId: params.leaseId, note: "half" });
    expect(remainingMs).toBeGreaterThan(30_000);
    expect(remainingMs).toBeLessThanOrEqual(60_000);
    expect((await get(client, commandId)).progress).toEqual({ note: "half" });
  });

  test("a checkpoint that is too long is refused", async () => {
    const deployment = newDeployment();
    await create(client, deployment, {});
    const { leaseId = "" } = (await lease(deployment)).leases[0] ?? {};
    const checkpoint = "x".repeat(MAX_RESULT_BYTES - 2);
    await client.call("command.progress", { leaseId, checkpoint });
    const refusal = await client.refusal("command.progress", { leaseId, checkpoint: `${checkpoint}x` });
    expectRefusal(refusal, "invalid_params");
  });
});

test("a trace is shown and handed on", async () => {
  const deployment = newDeployment();
  const trace = { traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`, tracestate: "vendor=1" };
  const commandId = await create(client, deployment, { trace });
  expect((await get(client, commandId)).trace).toEqual(trace);
  expect((await lease(deployment)).leases[0]?.envelope.trace).toEqual(trace);
  const wrong = { deployment, command: "run", trace: { traceparent: "00-1" } };
  expectRefusal(await client.refusal("command.create", wrong), "invalid_params");
});

test("a list lets through what its filters say, page by page", async () => {
  const deployment = newDeployment();
  const ids: string[] = [];
  for (let index = 0; index < 12; index += 1) {
    const target = index % 3 === 0 ? "a" : "b";
    const command = index % 2 === 0 ? "even" : "odd";
    ids.unshift((await client.call("command.create", { deployment, target, command })).commandId);
  }
  const pages = async (filter: object): Promise<string[]> => {
    const found: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await client.call("command.list", {
        deployment,
        limit: 2,
        ...filter,
        ...(after === undefined ? {} : { after }),
      });
      expect(page.commands.length).toBeLessThanOrEqual(2);
      found.push(...page.commands.map(({ commandId }) => commandId));
      if (page.next === undefined) return found;
      after = page.next;
    }
  };
  expect(await pages({})).toEqual(ids);
  expect(await pages({ target: "a" })).toEqual(ids.filter((_, index) => (11 - index) % 3 === 0));
  expect(await pages({ target: "a", command: "odd" })).toEqual([ids[2], ids[8]]);
  expect(await pages({ target: "" })).toEqual([]);
  const { createdAt } = await get(client, ids[5] as string);
  const [before, after] = [
    await pages({ createdBefore: createdAt }),
    await pages({ createdAfter: createdAt }),
  ];
  expect([...after, ...before]).toEqual(ids);
  expect(after).toContain(ids[5]);
});

test("the library and pawl send to targets, serve some, and tell of progress", async () => {
  const { socket } = daemon().place;
  await using library = await connect({ socket });
  const deployment = newDeployment();
  const seen: unknown[] = [];
  const handle = library.commands.pull(
    deployment,
    {
      run: async (_params: unknown, { target, checkpoint, progress }) => {
        seen.push([target, checkpoint]);
        await progress({ percent: 50, checkpoint: { at: 1 } });
        return target;
      },
    },
    { targets: ["mine"] },
  );
  expect(await library.commands.send(deployment, "run", null, { target: "mine" })).toBe("mine");
  await handle.close();
  expect(seen).toEqual([["mine", undefined]]);

  const served = newDeployment();
  const program = ["sh", "-c", 'echo "$PAWL_TARGET $TRACEPARENT"'];
  const serving = startPawl(["serve", served, "--targets", "x,y", "--", ...program], { socket });
  const traceparent = `00-${"c".repeat(32)}-${"d".repeat(16)}-01`;
  const args = ["send", served, "run", "--target", "y", "--wait", "1m"];
  const { stdout } = await startPawl(args, { socket, env: { TRACEPARENT: traceparent } }).ended;
  expect(stdout).toBe(`y ${traceparent}\n`);
  expect((await serving.end("SIGTERM")).code).toBe(0);
});

test("an answer ends what a progress was of", async () => {
  const deployment = newDeployment();
  const commandId = await create(client, deployment, {});
  const leased = (await lease(deployment)).leases[0] as Parameters<typeof respond>[1];
  await client.call("command.progress", { leaseId: leased.leaseId, percent: 99 });
  await respond(client, leased);
  expect(await get(client, commandId)).toMatchObject({ state: "SUCCEEDED", progress: { percent: 99 } });
});
