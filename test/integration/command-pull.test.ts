// Receivers that lease commands: order, waiting, the ends of a delivery, and answers (spec: command.md, Pull).
import { INLINE_MAX_BYTES, MAX_PAGE_BYTES, MAX_RESULT_BYTES } from "@pawl/protocol/limits";
import { beforeAll, describe, expect, test } from "vitest";
import {
  answerTo,
  create,
  ended,
  get,
  lateAnswers,
  newDeployment,
  respond,
  stateOf,
  take,
} from "../commands.js";
import { sharedDaemon, startDaemon } from "../daemon.js";
import { isInTime } from "../in-time.js";
import type { RawClient } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const SHORT_LEASE_MS = 300;

const daemon = sharedDaemon();
let client: RawClient;
let other: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
  other = await daemon().place.connect();
});

describe("lease", () => {
  test("gives the envelope, and the command is DISPATCHED under it", async () => {
    const deployment = newDeployment();
    const deadline = Date.now() + 60_000;
    const commandId = await create(client, deployment, { params: { a: [1] }, deadline });
    const leased = await take(client, deployment, { owner: "me", leaseMs: 5000 });
    expect(leased).toEqual({
      leaseId: expect.any(String),
      leaseExpiresAt: expect.any(Number),
      remainingMs: 5000,
      commandId,
      attempt: 1,
      envelope: {
        protocol: "arc.v1",
        commandId,
        deployment,
        target: "",
        command: "run",
        attempt: 1,
        deadline,
        executionMs: null,
        params: { a: [1] },
      },
    });
    const command = await get(client, commandId);
    expect(command).toMatchObject({ state: "DISPATCHED", dispatchedAt: leased.leaseExpiresAt - 5000 });
    expect(command.lease).toMatchObject({
      owner: "me",
      pid: process.pid,
      expiresAt: leased.leaseExpiresAt,
    });
    expect(command.lease?.remainingMs).toBeLessThanOrEqual(5000);
    expect(JSON.stringify(command)).not.toContain(leased.leaseId);
  });

  test("takes the oldest first, each once, up to max", async () => {
    const deployment = newDeployment();
    const ids: string[] = [];
    for (let index = 0; index < 25; index += 1) ids.push(await create(client, deployment));
    const both = await Promise.all(
      [client, other].map((each) => each.call("command.lease", { deployment, owner: "x", max: 10 })),
    );
    const taken = both.flatMap(({ leases }) => leases.map(({ commandId }) => commandId));
    expect(taken.toSorted()).toEqual(ids.slice(0, 20));
    for (const { leases } of both) {
      const each = leases.map(({ commandId }) => commandId);
      expect(each).toEqual(each.toSorted());
    }
    const { leases } = await client.call("command.lease", { deployment, owner: "x", max: 100 });
    expect(leases.map(({ commandId }) => commandId)).toEqual(ids.slice(20));
    expect(await client.call("command.lease", { deployment, owner: "x" })).toEqual({ leases: [] });
  });

  test("stops when the params are more than a page, and never before the first", async () => {
    const deployment = newDeployment();
    const params = "x".repeat(INLINE_MAX_BYTES - 2);
    for (let index = 0; index < 20; index += 1) await create(client, deployment, { params });
    const { leases } = await client.call("command.lease", { deployment, owner: "x", max: 20 });
    expect(leases).toHaveLength(Math.floor(MAX_PAGE_BYTES / INLINE_MAX_BYTES));
    const rest = await client.call("command.lease", { deployment, owner: "x", max: 20 });
    expect(rest.leases.length).toBeGreaterThan(0);
  });

  test("gives no more checkpoints than a page holds, and the others next", async () => {
    const deployment = newDeployment();
    const checkpoint = "x".repeat(MAX_RESULT_BYTES - 2);
    const ids: string[] = [];
    for (let index = 0; index < 10; index += 1) ids.push(await create(client, deployment));
    const first = await client.call("command.lease", { deployment, owner: "x", max: 20 });
    for (const { leaseId } of first.leases) {
      await client.call("command.progress", { leaseId, checkpoint });
      await client.call("command.release", { leaseId });
    }
    const got: string[] = [];
    for (const count of [6, 4]) {
      const { leases } = await client.call("command.lease", { deployment, owner: "x", max: 20 });
      expect(leases).toHaveLength(count);
      for (const { commandId, envelope } of leases) {
        expect(envelope.checkpoint).toBe(checkpoint);
        got.push(commandId);
      }
    }
    expect(got).toEqual(ids);
  });

  test("waits for a command, first come first served, without holding up the connection", async () => {
    const deployment = newDeployment();
    const order: string[] = [];
    const waits = [client, other, client].map(async (each, index) => {
      const leased = await take(each, deployment, { waitMs: 60_000 });
      order.push(`${index} ${leased.commandId}`);
    });
    await client.call("daemon.ping", {});
    await other.call("daemon.ping", {});
    const ids: string[] = [];
    for (let index = 0; index < 3; index += 1) {
      ids.push(await create(client, deployment));
      // The reply to one that waits is sent with that to the creation.
      await client.call("daemon.ping", {});
      await other.call("daemon.ping", {});
    }
    await Promise.all(waits);
    // Of the two on one connection the first was first; where the other stood is not known to the test.
    expect(order.map((each) => each.slice(2))).toEqual(ids);
    expect(order.findIndex((each) => each.startsWith("0"))).toBeLessThan(
      order.findIndex((each) => each.startsWith("2")),
    );
  });

  test("gives nothing when the wait ends", async () => {
    const deployment = newDeployment();
    expect(await client.call("command.lease", { deployment, owner: "x", waitMs: 100 })).toEqual({
      leases: [],
    });
  });

  test("does not give a command to one that has gone", async () => {
    const deployment = newDeployment();
    const gone = await daemon().place.connect();
    const lost = gone.call("command.lease", { deployment, owner: "gone", waitMs: 60_000 });
    await gone.call("daemon.ping", {});
    await gone.destroy();
    await expect(lost).rejects.toThrow("closed");
    // The daemon has seen that it closed once it says so.
    await until(async () => {
      const { deployments } = await client.call("deployment.list", { after: "deployment-", limit: 1000 });
      return (deployments.find((each) => each.deployment === deployment)?.receivers ?? 0) === 0;
    });
    const commandId = await create(client, deployment);
    expect(await stateOf(client, commandId)).toBe("PENDING");
  });
});

describe("a delivery ends unanswered", () => {
  test("by a release: there is another, behind those that wait already", async () => {
    const deployment = newDeployment();
    const [first, second] = [await create(client, deployment), await create(client, deployment)];
    const { leaseId } = await take(client, deployment);
    expect(await client.call("command.release", { leaseId })).toEqual({ state: "PENDING", attempt: 2 });
    expect(await client.call("command.release", { leaseId })).toEqual({ state: "PENDING", attempt: 2 });
    expect((await take(client, deployment)).commandId).toBe(second);
    const again = await take(client, deployment);
    expect(again).toMatchObject({ commandId: first, attempt: 2, envelope: { attempt: 2 } });
    expect(await get(client, first)).toMatchObject({ state: "DISPATCHED", attempt: 2 });
  });

  test("by a release with a delay: nobody gets it before, and who waits gets it then", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    const { now } = await client.call("daemon.ping", {});
    await client.call("command.release", { leaseId, delayMs: 400 });
    expect(await client.call("command.lease", { deployment, owner: "x" })).toEqual({ leases: [] });
    expect(await stateOf(client, commandId)).toBe("PENDING");
    expect((await take(other, deployment, { waitMs: 30_000 })).commandId).toBe(commandId);
    const { dispatchedAt } = await get(client, commandId);
    expect((dispatchedAt as number) - now).toBeGreaterThanOrEqual(400);
  });

  test("by the end of the lease: to the one who waits, at that moment", async () => {
    const late: number[] = [];
    while (!isInTime(late)) {
      const deployment = newDeployment();
      const commandId = await create(client, deployment);
      const first = await take(client, deployment, { leaseMs: SHORT_LEASE_MS });
      const second = await take(other, deployment, { waitMs: 30_000 });
      expect(second).toMatchObject({ commandId, attempt: 2 });
      late.push(((await get(client, commandId)).dispatchedAt as number) - first.leaseExpiresAt);
    }
    expect(Math.min(...late)).toBeGreaterThanOrEqual(0);
  });

  test("not while it is renewed", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const first = await take(client, deployment, { leaseMs: SHORT_LEASE_MS });
    const { leaseId } = first;
    const renewed = await client.call("command.renew", { leaseId, leaseMs: 60_000 });
    expect(renewed.remainingMs).toBe(60_000);
    expect(renewed.leaseExpiresAt).toBeGreaterThan(first.leaseExpiresAt + 50_000);
    // Another lease of the same length, begun later, ends: so would this one have.
    const marker = newDeployment();
    await create(client, marker);
    await take(client, marker, { leaseMs: SHORT_LEASE_MS });
    await take(other, marker, { waitMs: 30_000 });
    expect(await get(client, commandId)).toMatchObject({ state: "DISPATCHED", attempt: 1 });
    expect(await respond(client, { commandId, leaseId })).toEqual({ state: "SUCCEEDED", accepted: true });
  });

  test("by the deadline of its command at the latest, and that is what is reported", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { ttlMs: 20_000 });
    const { deadline } = await get(client, commandId);
    const { leaseId, leaseExpiresAt, remainingMs } = await take(client, deployment, { leaseMs: 60_000 });
    expect(leaseExpiresAt).toBe(deadline);
    expect(remainingMs).toBeLessThanOrEqual(20_000);
    const renewed = await client.call("command.renew", { leaseId, leaseMs: 86_400_000 });
    expect(renewed.leaseExpiresAt).toBe(deadline);
    expect(renewed.remainingMs).toBeLessThanOrEqual(remainingMs);
    const { lease } = await get(client, commandId);
    expect(lease?.expiresAt).toBe(deadline);
    expect(lease?.remainingMs).toBeLessThanOrEqual(renewed.remainingMs);
    const shorter = await client.call("command.renew", { leaseId, leaseMs: 5000 });
    expect(shorter.remainingMs).toBe(5000);
    expect(shorter.leaseExpiresAt).toBeLessThan(deadline as number);
  });

  test("by the end of its connection, at once, if it was leased so", async () => {
    const deployment = newDeployment();
    const [bound, free] = [await create(client, deployment), await create(client, deployment)];
    const receiver = startRaw(daemon().place.socket, [
      {
        method: "command.lease",
        params: { deployment, owner: "x", leaseMs: 3_600_000, releaseOn: "disconnect" },
      },
      { method: "command.lease", params: { deployment, owner: "x", leaseMs: 3_600_000 } },
    ]);
    await receiver.line(1);
    await receiver.end("SIGKILL");
    const again = await take(other, deployment, { waitMs: 30_000 });
    expect(again).toMatchObject({ commandId: bound, attempt: 2 });
    expect(await get(client, free)).toMatchObject({ state: "DISPATCHED", attempt: 1 });
  });

  test("for the last time: FAILED with ATTEMPTS_EXHAUSTED", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { maxAttempts: 3 });
    const one = await take(client, deployment);
    expect(await client.call("command.release", { leaseId: one.leaseId })).toEqual({
      state: "PENDING",
      attempt: 2,
    });
    await take(client, deployment, { leaseMs: 100 });
    const three = await take(client, deployment, { waitMs: 30_000 });
    expect(three.attempt).toBe(3);
    const waiting = ended(other, commandId);
    expect(await client.call("command.release", { leaseId: three.leaseId })).toEqual({
      state: "FAILED",
      attempt: 3,
    });
    expect(await waiting).toMatchObject({
      state: "FAILED",
      attempt: 3,
      error: { code: "ATTEMPTS_EXHAUSTED" },
    });
    expect(await answerTo(client, commandId)).toMatchObject({ status: "error", code: "ATTEMPTS_EXHAUSTED" });
    expect(await client.call("command.lease", { deployment, owner: "x" })).toEqual({ leases: [] });
  });
});

describe("an answer", () => {
  test("is taken once; a second one is evidence: counted and logged", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const leased = await take(client, deployment);
    const before = (await client.call("daemon.stats", {})).commands.lateAnswers;
    expect(await respond(client, leased, { status: "success", response: 1 })).toEqual({
      state: "SUCCEEDED",
      accepted: true,
    });
    const late = { state: "SUCCEEDED", accepted: false };
    expect(await respond(client, leased, { status: "success", response: 2 })).toEqual(late);
    expect(await respond(client, leased, { status: "error", code: "E", message: "m" })).toEqual(late);
    expect(await answerTo(client, commandId)).toEqual({ status: "success", response: 1 });
    expect((await client.call("daemon.stats", {})).commands.lateAnswers).toBe(before + 2);
    await daemon().logged((line) => line.msg === "late answer to a command" && line.answer === "FAILED");
    expect(lateAnswers(daemon(), commandId)).toBe(2);
  });

  test("of one whose lease has ended is lease_lost when a second has it, whose answer counts", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const first = await take(client, deployment, { leaseMs: 100 });
    const second = await take(other, deployment, { waitMs: 30_000 });
    const error = await client.refusal("command.respond", {
      commandId,
      leaseId: first.leaseId,
      response: { status: "success", response: "first" },
    });
    expect(expectRefusal(error, "lease_lost").data).toMatchObject({
      commandId,
      state: "DISPATCHED",
      attempt: 2,
      reason: "superseded",
    });
    expect(await respond(other, second, { status: "success", response: "second" })).toMatchObject({
      accepted: true,
    });
    expect(await respond(client, first)).toEqual({ state: "SUCCEEDED", accepted: false });
    expect(await answerTo(client, commandId)).toEqual({ status: "success", response: "second" });
  });

  test("with the lease of another command, or none, is lease_lost and changes nothing", async () => {
    const deployment = newDeployment();
    const [one, two] = [await create(client, deployment), await create(client, deployment)];
    const [first, second] = [await take(client, deployment), await take(client, deployment)];
    const response = { status: "success", response: 1 };
    const forged = [
      second.leaseId,
      "x",
      first.leaseId.slice(0, -1),
      first.leaseId.replace(":1:", ":2:"),
      `${first.leaseId}=`,
      one,
    ];
    for (const leaseId of forged) {
      const error = await client.refusal("command.respond", { commandId: one, leaseId, response });
      expectRefusal(error, "lease_lost");
    }
    for (const leaseId of forged.slice(1)) {
      expectRefusal(await client.refusal("command.renew", { leaseId }), "lease_lost");
      expectRefusal(await client.refusal("command.release", { leaseId }), "lease_lost");
    }
    expect(await stateOf(client, one)).toBe("DISPATCHED");
    expect(await stateOf(client, two)).toBe("DISPATCHED");
    expect(await respond(client, first)).toMatchObject({ accepted: true });
  });

  test.each([
    ["no status", {}],
    ["an unknown status", { status: "maybe" }],
    ["an error without a code", { status: "error", message: "m" }],
    ["a code that is a number", { status: "error", code: 5, message: "m" }],
    ["an unknown member", { status: "success", response: 1, more: 1 }],
    ["no object", "done"],
  ])("with %s is invalid_params", async (_what, response) => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    expectRefusal(
      await client.refusal("command.respond", { commandId, leaseId, response }),
      "invalid_params",
    );
    expect(await stateOf(client, commandId)).toBe("DISPATCHED");
  });
});

describe("a holder that renews is told why it cannot", () => {
  async function lost(leaseId: string) {
    return expectRefusal(await client.refusal("command.renew", { leaseId }), "lease_lost").data;
  }

  test("cancelled, in the words of whoever did it", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    await other.call("command.cancel", { commandId, reason: "Changed my mind." });
    expect(await lost(leaseId)).toMatchObject({
      commandId,
      state: "FAILED",
      reason: "cancelled",
      message: "Changed my mind.",
    });
  });

  test("past the deadline", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { ttlMs: 200 });
    const { leaseId } = await take(client, deployment);
    await ended(client, commandId);
    expect(await lost(leaseId)).toMatchObject({ commandId, state: "EXPIRED", reason: "expired" });
  });

  test("given back, or in other hands", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const { leaseId } = await take(client, deployment);
    await client.call("command.release", { leaseId });
    expect(await lost(leaseId)).toMatchObject({
      commandId,
      state: "PENDING",
      attempt: 2,
      reason: "superseded",
    });
    await take(other, deployment);
    expect(await lost(leaseId)).toMatchObject({ state: "DISPATCHED", attempt: 2, reason: "superseded" });
  });

  test("answered", async () => {
    const deployment = newDeployment();
    await create(client, deployment);
    const leased = await take(client, deployment);
    await respond(client, leased);
    expect(await lost(leased.leaseId)).toMatchObject({ state: "SUCCEEDED", reason: "ended" });
  });
});

describe("over a restart", () => {
  test("leases go on; those that end with their connection have a grace, to be renewed on another", async () => {
    const first = await startDaemon();
    const { place } = first;
    const before = await place.connect();
    for (let index = 0; index < 3; index += 1) await create(before, "d");
    const leaseMs = 60_000;
    const lasting = await take(before, "d", { leaseMs });
    const renewed = await take(before, "d", { leaseMs, releaseOn: "disconnect" });
    const left = await take(before, "d", { leaseMs, releaseOn: "disconnect" });
    await first.end("SIGKILL");

    await place.start();
    const after = await place.connect();
    for (const { commandId } of [renewed, left]) {
      const { lease, attempt } = await get(after, commandId);
      expect(attempt).toBe(1);
      expect(lease?.remainingMs).toBeLessThanOrEqual(5000);
    }
    await after.call("command.renew", { leaseId: renewed.leaseId, leaseMs });
    const given = await take(after, "d", { waitMs: 30_000 });
    expect(given).toMatchObject({ commandId: left.commandId, attempt: 2 });
    expect(await respond(after, lasting)).toEqual({ state: "SUCCEEDED", accepted: true });

    // The one that was renewed ends with the connection that renewed it.
    const watcher = await place.connect();
    await after.destroy();
    const again = await take(watcher, "d", { waitMs: 30_000 });
    expect(again).toMatchObject({ commandId: renewed.commandId, attempt: 2 });
    const stillHeld = await get(watcher, left.commandId);
    expect(stillHeld).toMatchObject({ state: "DISPATCHED", attempt: 2 });
  });
});
