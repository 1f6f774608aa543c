// How long a delivery of a command may take, and what becomes of an answer that comes after its end.
import { join } from "node:path";
import Database from "better-sqlite3";
import { beforeAll, describe, expect, test } from "vitest";
import { answer, answerTo, create, ended, get, newDeployment, pushed, respond, take } from "../commands.js";
import { NAMES_ARE_SHARED, Place, sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

/** Waits until a delivery of a command has ended. */
async function untilAttempt(commandId: string, attempt: number): Promise<void> {
  await until(async () => (await get(client, commandId)).attempt >= attempt);
}

async function serving(deployment: string, given: object = {}): Promise<RawClient> {
  const receiver = await daemon().place.connect();
  await receiver.call("command.serve", { deployment, owner: "receiver", ...given });
  return receiver;
}

describe("executionMs", () => {
  test("of a command ends a lease, whatever it is renewed for, and is in the envelope", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { executionMs: 400 });
    const leased = await take(client, deployment, { leaseMs: 60_000 });
    expect(leased.envelope).toMatchObject({ executionMs: 400, attempt: 1 });
    expect(leased.remainingMs).toBe(400);
    const { remainingMs } = await client.call("command.renew", { leaseId: leased.leaseId, leaseMs: 60_000 });
    expect(remainingMs).toBeLessThanOrEqual(400);
    expect((await get(client, commandId)).lease?.remainingMs).toBeLessThanOrEqual(400);
    const [again] = (
      await client.call("command.lease", { deployment, owner: "next", waitMs: 30_000, leaseMs: 60_000 })
    ).leases;
    expect(again).toMatchObject({ commandId, attempt: 2 });
    expectRefusal(await client.refusal("command.renew", { leaseId: leased.leaseId }), "lease_lost");
  });

  test("of the receiver ends a push that hangs; another receiver has the command, and the one that hangs is told", async () => {
    const deployment = newDeployment();
    const hanging = await serving(deployment, { executionMs: 300 });
    const commandId = await create(client, deployment);
    const { params } = await pushed(hanging);
    expect(params).toMatchObject({ commandId, executionMs: 300 });
    expect(JSON.parse(await hanging.line())).toEqual({
      jsonrpc: "2.0",
      method: "command.cancelled",
      params: { commandId, reason: "EXECUTION_TIME" },
    });
    // Its one place is taken until it answers.
    expect(await get(client, commandId)).toMatchObject({ state: "PENDING", attempt: 2 });
    const other = await serving(deployment);
    const second = await pushed(other);
    expect(second.params).toMatchObject({ commandId, attempt: 2, executionMs: 900_000 });
    answer(other, second, { result: "done" });
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED" });
  });

  test("of the command counts before that of the receiver, and of both is content of a key", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, { executionMs: 60_000 });
    const given = { executionMs: 70_000, idempotencyKey: "k" };
    const commandId = await create(client, deployment, given);
    expect((await pushed(receiver)).params.executionMs).toBe(70_000);
    expect((await get(client, commandId)).executionMs).toBe(70_000);
    expect(await create(client, deployment, given)).toBe(commandId);
    for (const other of [{ executionMs: 1 }, { executionMs: undefined }, { maxAttempts: 20 }]) {
      const params = { deployment, command: "run", ...given, ...other };
      expectRefusal(await client.refusal("command.create", params), "conflict");
    }
  });
});

describe("retry", () => {
  const REST_MS = 300;
  const retry = { baseMs: REST_MS, factor: 2, jitter: false };

  /** Leases the command again, and returns how long it rested since then by the daemon's clock, at least. */
  async function afterRest(
    deployment: string,
    since: number,
  ): Promise<{ leaseId: string; restedMs: number }> {
    const { leases } = await client.call("command.lease", {
      deployment,
      owner: "next",
      waitMs: 30_000,
      leaseMs: 60_000,
    });
    expect(leases).toHaveLength(1);
    const { now } = await client.call("daemon.ping", {});
    return { leaseId: leases[0]?.leaseId as string, restedMs: now - since };
  }

  test("has what is given back rest, each time longer, and hold up nobody; delayMs wins", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { retry });
    const first = await take(client, deployment);
    const { now } = await client.call("daemon.ping", {});
    expect(await client.call("command.release", { leaseId: first.leaseId })).toEqual({
      state: "PENDING",
      attempt: 2,
    });
    const other = await create(client, deployment);
    const [meanwhile] = (await client.call("command.lease", { deployment, owner: "o", max: 2 })).leases;
    expect(meanwhile?.commandId).toBe(other);
    expect(await client.call("command.lease", { deployment, owner: "o" })).toEqual({ leases: [] });
    const { leaseId, restedMs } = await afterRest(deployment, now);
    expect(restedMs).toBeGreaterThanOrEqual(REST_MS);
    await client.call("command.release", { leaseId, delayMs: 0 });
    expect(await take(client, deployment)).toMatchObject({ commandId, attempt: 3 });
  });

  test("lets the first end by itself pass, not the others, which rest for a time that fits their number", async () => {
    const deployment = newDeployment();
    await create(client, deployment, { retry });
    await take(client, deployment, { leaseMs: 100 });
    const receiver = await daemon().place.connect();
    const [second] = (
      await receiver.call("command.lease", {
        deployment,
        owner: "r",
        waitMs: 30_000,
        releaseOn: "disconnect",
      })
    ).leases;
    expect(second?.attempt).toBe(2);
    const { now } = await client.call("daemon.ping", {});
    await receiver.destroy();
    expect((await afterRest(deployment, now)).restedMs).toBeGreaterThan(REST_MS);
  });

  test("is for pushes, too", async () => {
    const deployment = newDeployment();
    const receivers = [await serving(deployment)];
    await create(client, deployment, { retry });
    for (const attempt of [1, 2]) {
      const receiver = receivers.pop() as RawClient;
      expect((await pushed(receiver)).params.attempt).toBe(attempt);
      receivers.push(await serving(deployment));
      await receiver.destroy();
    }
    const { now } = await client.call("daemon.ping", {});
    expect((await pushed(receivers[0] as RawClient)).params.attempt).toBe(3);
    expect((await client.call("daemon.ping", {})).now - now).toBeGreaterThan(REST_MS);
  });

  test("is content of a key, and lasts over a restart", async () => {
    const own = await new Place().start();
    const sender = await own.place.connect();
    const given = { idempotencyKey: "k", retry: { baseMs: 60_000 } };
    const commandId = await create(sender, "d", given);
    expect(await create(sender, "d", { ...given, retry: { baseMs: 60_000, factor: 2 } })).toBe(commandId);
    for (const other of [undefined, { baseMs: 1 }]) {
      const params = { deployment: "d", command: "run", ...given, retry: other };
      expectRefusal(await sender.refusal("command.create", params), "conflict");
    }
    await sender.call("command.release", { leaseId: (await take(sender, "d")).leaseId });
    await own.end("SIGKILL");
    await own.place.start();
    const after = await own.place.connect();
    expect(await after.call("command.lease", { deployment: "d", owner: "o" })).toEqual({ leases: [] });
    expect(await get(after, commandId)).toMatchObject({ state: "PENDING", attempt: 2 });
    const wrong = { deployment: "d", command: "run", retry: { baseMs: -1 } };
    expectRefusal(await after.refusal("command.create", wrong), "invalid_params");
  });
});

describe("a late answer", () => {
  const late = { status: "success", response: "late" } as const;

  test("to a lease that expired is taken while nobody else has the command", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const leased = await take(client, deployment, { leaseMs: 100 });
    await untilAttempt(commandId, 2);
    expect(await respond(client, leased, late)).toEqual({ state: "SUCCEEDED", accepted: true });
    expect(await answerTo(client, commandId)).toEqual(late);
    expect(await client.call("command.lease", { deployment, owner: "next" })).toEqual({ leases: [] });
  });

  test("is refused once another has had it, and after it was given back", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const first = await take(client, deployment, { leaseMs: 100 });
    await untilAttempt(commandId, 2);
    const second = await take(client, deployment, { waitMs: 60_000 });
    const { commandId: id, leaseId } = first;
    const params = { commandId: id, leaseId, response: late };
    expectRefusal(await client.refusal("command.respond", params), "lease_lost");
    await client.call("command.release", { leaseId: second.leaseId });
    for (const each of [first, second]) {
      const given = { commandId, leaseId: each.leaseId, response: late };
      expectRefusal(await client.refusal("command.respond", given), "invalid_state");
    }
    expect(await get(client, commandId)).toMatchObject({ state: "PENDING", attempt: 3 });
  });

  test("is refused if what had expired is given back all the same", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment, { leaseMs: 100 });
    await untilAttempt(commandId, 2);
    expect(await client.call("command.release", { leaseId })).toEqual({ state: "PENDING", attempt: 2 });
    expectRefusal(
      await client.refusal("command.respond", { commandId, leaseId, response: late }),
      "invalid_state",
    );
  });

  test("by the response to a push that took too long is taken", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment, { executionMs: 100 });
    const commandId = await create(client, deployment);
    const push = await pushed(receiver);
    await untilAttempt(commandId, 2);
    answer(receiver, push, { result: 12 });
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED", attempt: 2 });
    expect(await answerTo(client, commandId)).toEqual({ status: "success", response: 12 });
  });

  test("to a push whose connection has closed comes by its leaseId", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    const { leaseId } = (await pushed(receiver)).params as unknown as { leaseId: string };
    await receiver.destroy();
    await untilAttempt(commandId, 2);
    expect(await respond(client, { commandId, leaseId }, late)).toEqual({
      state: "SUCCEEDED",
      accepted: true,
    });
  });
});

describe("a push", () => {
  test("is given back by its leaseId, and its response is no answer then", async () => {
    const deployment = newDeployment();
    const receiver = await serving(deployment);
    const commandId = await create(client, deployment);
    const push = await pushed(receiver);
    const { leaseId } = push.params as unknown as { leaseId: string };
    expect(await receiver.call("command.release", { leaseId })).toEqual({ state: "PENDING", attempt: 2 });
    answer(receiver, push, { error: { code: 1, message: "stopped" } });
    const again = await pushed(receiver);
    expect(again.params).toMatchObject({ commandId, attempt: 2 });
    answer(receiver, again, { result: 1 });
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED" });
  });
});

describe("maxAttempts", () => {
  // The earlier database is the daemon's own file.
  test.skipIf(NAMES_ARE_SHARED)(
    "is 20 for new commands; those of an earlier database keep what they have, and their content",
    async () => {
      const place = new Place();
      let own = await place.start();
      let caller = await place.connect();
      const params = { deployment: "d", command: "run", params: { a: 1 }, idempotencyKey: "k" };
      const { commandId } = await caller.call("command.create", params);
      expect((await get(caller, commandId)).maxAttempts).toBe(20);
      await own.end();
      const database = new Database(join(place.stateDir, "pawl.db"));
      database.exec(`UPDATE pawl_command SET max_attempts = 0,
      content = substr(content, length('given ') + 1, 64)`);
      database.close();
      own = await place.start();
      caller = await place.connect();
      expect((await get(caller, commandId)).maxAttempts).toBe(0);
      expect(await caller.call("command.create", params)).toMatchObject({ commandId, created: false });
      await own.end();
    },
  );
});
