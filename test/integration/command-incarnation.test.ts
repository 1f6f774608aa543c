import { beforeAll, describe, expect, test } from "vitest";
import { answer, answerTo, create, ended, get, newDeployment, pushed, respond, take } from "../commands.js";
import { Place, sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

const daemon = sharedDaemon();
let client: RawClient;

beforeAll(async () => {
  client = await daemon().place.connect();
});

const GONE = { state: "FAILED", error: { code: "GONE", message: expect.stringContaining("has ended") } };

/** A receiver that has named itself by taking what is there. */
async function receiver(deployment: string, incarnation: string, place = daemon().place): Promise<RawClient> {
  const connection = await place.connect();
  await connection.call("command.lease", { deployment, owner: "receiver", incarnation });
  return connection;
}

describe("a command for one receiver", () => {
  test("goes to that one alone, before what is for any, and is shown with its name", async () => {
    const deployment = newDeployment();
    const forAny = await create(client, deployment);
    const commandId = await create(client, deployment, { incarnation: "a", target: "t" });
    expect(await get(client, commandId)).toMatchObject({ state: "PENDING", incarnation: "a" });
    expect((await get(client, forAny)).incarnation).toBeUndefined();
    for (const other of [
      {},
      { incarnation: "b" },
      { targets: ["t"] },
      { incarnation: "b", targets: ["t"] },
    ]) {
      const { leases } = await client.call("command.lease", { deployment, owner: "o", max: 100, ...other });
      expect(leases.map((each) => each.commandId)).not.toContain(commandId);
      for (const { leaseId } of leases) await client.call("command.release", { leaseId });
    }
    const own = await daemon().place.connect();
    const { leases } = await own.call("command.lease", { deployment, owner: "o", incarnation: "a", max: 2 });
    expect(leases.map((each) => each.commandId)).toEqual([commandId, forAny]);
    await respond(own, leases[0] as (typeof leases)[number]);
    await own.destroy();
    expect(await get(client, commandId)).toMatchObject({ state: "SUCCEEDED" });
  });

  test("wakes the one that waits for it, and no other", async () => {
    const deployment = newDeployment();
    const [first, second] = [await daemon().place.connect(), await daemon().place.connect()];
    const waiting = [first, second].map((each, index) =>
      each.call("command.lease", { deployment, owner: "o", incarnation: `i${index}`, waitMs: 60_000 }),
    );
    const commandId = await create(client, deployment, { incarnation: "i1" });
    expect((await waiting[1])?.leases[0]?.commandId).toBe(commandId);
    const other = await create(client, deployment);
    expect((await waiting[0])?.leases[0]?.commandId).toBe(other);
  });

  test("is pushed to it, also while another with room is served, and comes back to it alone", async () => {
    const deployment = newDeployment();
    const [first, second] = [await daemon().place.connect(), await daemon().place.connect()];
    const serve = { deployment, owner: "o", max: 2, executionMs: 300 };
    await first.call("command.serve", { ...serve, incarnation: "one" });
    const commandId = await create(client, deployment, { incarnation: "two" });
    await second.call("command.serve", { ...serve, incarnation: "two" });
    expect((await pushed(second)).params).toMatchObject({ commandId, attempt: 1 });
    expect(JSON.parse(await second.line())).toMatchObject({ method: "command.cancelled" });
    const again = await pushed(second);
    expect(again.params).toMatchObject({ commandId, attempt: 2 });
    answer(second, again, { result: 1 });
    expect(await ended(client, commandId)).toMatchObject({ state: "SUCCEEDED" });
    const forFirst = await create(client, deployment, { incarnation: "one" });
    expect((await pushed(first)).params).toMatchObject({ commandId: forFirst });
  });

  test("is GONE with the last connection that named it, whatever it waits for; so is a later one, at once", async () => {
    const deployment = newDeployment();
    const connections = [await receiver(deployment, "a"), await receiver(deployment, "a")];
    const waits = await create(client, deployment, { incarnation: "a" });
    const uploads = await create(client, deployment, { incarnation: "a", upload: { sizeBytes: 10 } });
    const unseen = await create(client, deployment, { incarnation: "b" });
    await connections[0]?.destroy();
    expect(await get(client, waits)).toMatchObject({ state: "PENDING" });
    const end = ended(client, waits);
    await connections[1]?.destroy();
    expect(await end).toMatchObject(GONE);
    expect(await ended(client, uploads)).toMatchObject(GONE);
    expect(await answerTo(client, waits)).toMatchObject({ status: "error", code: "GONE" });
    expect(await get(client, unseen)).toMatchObject({ state: "PENDING" });
    const later = await client.call("command.create", { deployment, command: "run", incarnation: "a" });
    expect(later).toMatchObject({ state: "FAILED", created: true, next: "wait" });
    expect(await get(client, later.commandId)).toMatchObject(GONE);
    // A successor takes another name.
    const params = { deployment, owner: "o", incarnation: "a" };
    for (const method of ["command.lease", "command.serve"]) {
      expectRefusal(await client.refusal(method, params), "invalid_state");
    }
    expect((await take(client, deployment, { incarnation: "b" })).commandId).toBe(unseen);
  });

  test("lasts as long as a delivery to its receiver does, of whatever command", async () => {
    const deployment = newDeployment();
    const connection = await daemon().place.connect();
    await create(client, deployment);
    const leased = await take(connection, deployment, { incarnation: "a" });
    const commandId = await create(client, deployment, { incarnation: "a" });
    await connection.destroy();
    expect(await get(client, commandId)).toMatchObject({ state: "PENDING" });
    // It may come back meanwhile.
    const returned = await daemon().place.connect();
    const again = await take(returned, deployment, { incarnation: "a" });
    const own = await create(client, deployment, { incarnation: "a" });
    await returned.destroy();
    expect(await get(client, own)).toMatchObject({ state: "PENDING" });
    // The first of them went to the one that was back, and that delivery lasts too.
    expect(await get(client, commandId)).toMatchObject({ state: "DISPATCHED" });
    await respond(client, leased);
    const { leaseId } = again;
    await client.call("command.release", { leaseId });
    for (const each of [commandId, own]) expect(await ended(client, each)).toMatchObject(GONE);
  });

  test("is content of a key", async () => {
    const deployment = newDeployment();
    const given = { deployment, command: "run", idempotencyKey: "k", incarnation: "a" };
    const { commandId } = await client.call("command.create", given);
    expect(await client.call("command.create", given)).toMatchObject({ commandId, created: false });
    expectRefusal(await client.refusal("command.create", { ...given, incarnation: "b" }), "conflict");
  });

  test("has the time of a restart, in which its receiver may come back", async () => {
    const place = new Place();
    const own = await place.start();
    const before = await place.connect();
    const lost = await receiver("d", "lost", place);
    const back = await receiver("d", "back", place);
    const [one, two] = [
      await create(before, "d", { incarnation: "lost" }),
      await create(before, "d", { incarnation: "back" }),
    ];
    await own.end("SIGKILL");
    await Promise.all([lost.destroy(), back.destroy()]);
    await place.start();
    const after = await place.connect();
    const returned = await place.connect();
    const leased = await take(returned, "d", { incarnation: "back", releaseOn: "disconnect" });
    expect(leased.commandId).toBe(two);
    expect(await get(after, one)).toMatchObject({ state: "PENDING" });
    expect(await ended(after, one)).toMatchObject(GONE);
    expect(await get(after, two)).toMatchObject({ state: "DISPATCHED" });
    await returned.destroy();
    expect(await ended(after, two)).toMatchObject(GONE);
  });

  test("many of them end in steps, and what is remembered of the receiver goes with the retention", async () => {
    const place = new Place();
    const own = await place.start({ args: ["--retention-days", "1"] });
    const sender = await place.connect();
    const connection = await receiver("d", "a", place);
    const ids = await Promise.all(
      Array.from({ length: 1000 }, () => create(sender, "d", { incarnation: "a" })),
    );
    await connection.destroy();
    for (const id of ids) expect(await ended(sender, id)).toMatchObject(GONE);
    await own.end();
    const rows = await place.query("SELECT incarnation, ended_at, has_commands FROM pawl_incarnation");
    expect(rows).toEqual([{ incarnation: "a", ended_at: expect.any(Number), has_commands: null }]);
    await place.query("UPDATE pawl_incarnation SET ended_at = ended_at - 90000000");
    await place.start({ args: ["--retention-days", "1"] });
    const after = await place.connect();
    await expect
      .poll(
        async () =>
          (await after.call("command.create", { deployment: "d", command: "run", incarnation: "a" })).state,
        {
          timeout: 30_000,
        },
      )
      .toBe("PENDING");
  });
});

describe("graceMs", () => {
  test("lets a receiver come back whose connection has closed, and binds the delivery to the next", async () => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const lost = await daemon().place.connect();
    const terms = { releaseOn: "disconnect", graceMs: 600_000, leaseMs: 600_000 } as const;
    const { leaseId } = await take(lost, deployment, terms);
    await lost.destroy();
    const back = await daemon().place.connect();
    expect((await get(back, commandId)).state).toBe("DISPATCHED");
    await back.call("command.renew", { leaseId });
    await back.destroy();
    // Its connection has closed again, and it may come back again.
    expect((await respond(client, { commandId, leaseId })).accepted).toBe(true);
  });

  test("ends the delivery when it is over, and never outlives the lease", async () => {
    const deployment = newDeployment();
    for (const terms of [
      { graceMs: 300, leaseMs: 600_000 },
      { graceMs: 600_000, leaseMs: 300 },
    ]) {
      const commandId = await create(client, deployment, { maxAttempts: 1 });
      const lost = await daemon().place.connect();
      await take(lost, deployment, { releaseOn: "disconnect", ...terms });
      await lost.destroy();
      expect(await ended(client, commandId)).toMatchObject({ error: { code: "ATTEMPTS_EXHAUSTED" } });
    }
  });

  test("lasts longer than 5 s over a restart, and has each restart anew", async () => {
    const place = new Place();
    let own = await place.start();
    const first = await place.connect();
    const commandId = await create(first, "d");
    await take(first, "d", { releaseOn: "disconnect", graceMs: 60_000, leaseMs: 600_000 });
    for (let restart = 0; restart < 2; restart += 1) {
      await own.end("SIGKILL");
      own = await place.start();
      const { lease } = await get(await place.connect(), commandId);
      expect(lease?.remainingMs).toBeGreaterThan(30_000);
      expect(lease?.remainingMs).toBeLessThanOrEqual(60_000);
    }
  });

  test("is refused where the delivery does not end with its connection", async () => {
    const params = { deployment: "d", owner: "o", graceMs: 1 };
    const { data } = expectRefusal(await client.refusal("command.lease", params), "invalid_params");
    expect(data.issues).toEqual([{ path: "/graceMs", message: expect.stringContaining("disconnect") }]);
  });
});
