// Commands of shared deployments: made at one daemon, carried out at another, some of which are killed or cut off.
import { describe, expect, onTestFinished, test } from "vitest";
import { answer, answerTo, create, ended, get, pushed, respond, stateOf, take } from "../commands.js";
import { type DaemonProcess, madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { isThere, makePlace, SilentProxy, toldOf } from "../shared-daemons.js";
import { until } from "../until.js";

const WAIT_MS = 60_000;
let deployments = 0;

describe.skipIf(!HAS_POSTGRESQL)("commands that daemons share", () => {
  const postgres = madeForTests(async (atEnd) => {
    const server = await PostgreSql.start(atEnd, { tcp: true });
    await makePlace(server.url());
    return server;
  });
  const daemons = madeForTests(async (atEnd) =>
    Promise.all([1, 2].map(() => new Place(undefined, atEnd).start(shared()))),
  );

  function shared(port?: number): { args: string[] } {
    const url = postgres().url("pawl", port);
    return { args: ["--shared", `command:s/*=${url}`, "--shared", `queue:s/*=${url}`] };
  }

  async function connect(): Promise<[RawClient, RawClient]> {
    const [first, second] = daemons() as [DaemonProcess, DaemonProcess];
    return [await first.place.connect(), await second.place.connect()];
  }

  /** A daemon that a test may do something to. */
  async function ownDaemon(port?: number): Promise<{ daemon: DaemonProcess; client: RawClient }> {
    const place = new Place();
    const daemon = await place.start(shared(port));
    return { daemon, client: await place.connect() };
  }

  function newDeployment(): string {
    deployments += 1;
    return `s/deployment-${deployments}`;
  }

  async function serve(receiver: RawClient, deployment: string, incarnation?: string): Promise<void> {
    const owner = "receiver";
    await receiver.call("command.serve", { deployment, owner, ...(incarnation && { incarnation }) });
  }

  test("one that waits at the other daemon pulls it, tells how far it is, and answers it", async () => {
    const [first, second] = await connect();
    const deployment = newDeployment();
    const taking = take(second, deployment, { waitMs: WAIT_MS });
    const commandId = await create(first, deployment, { params: { a: 1 }, idempotencyKey: "k" });
    const again = await second.call("command.create", {
      deployment,
      command: "run",
      params: { a: 1 },
      idempotencyKey: "k",
    });
    expect(again).toMatchObject({ commandId, created: false });
    const leased = await taking;
    expect(leased).toMatchObject({ commandId, attempt: 1, envelope: { params: { a: 1 } } });
    const waiting = ended(first, commandId);
    // By the leaseId alone, and at the daemon that did not lease it.
    await first.call("command.progress", { leaseId: leased.leaseId, percent: 50 });
    await first.call("command.renew", { leaseId: leased.leaseId });
    expect((await get(second, commandId)).progress).toMatchObject({ percent: 50 });
    expect(await respond(second, leased)).toEqual({ accepted: true, state: "SUCCEEDED" });
    expect((await waiting).state).toBe("SUCCEEDED");
    expect(await answerTo(first, commandId)).toEqual({ status: "success", response: "done" });
    for (const client of [first, second])
      expect((await client.call("command.list", { deployment })).commands).toHaveLength(1);
  });

  test("one that serves at the other daemon is sent it, and is told that it is cancelled", async () => {
    const [first, second] = await connect();
    const deployment = newDeployment();
    await second.call("deployment.set", { deployment, model: "push" });
    await serve(second, deployment);
    const commandId = await create(first, deployment);
    const execute = await pushed(second);
    expect(execute.params).toMatchObject({ commandId, deployment, attempt: 1 });
    answer(second, execute, { result: [7] });
    expect(await ended(first, commandId)).toMatchObject({ state: "SUCCEEDED", deploymentModel: "push" });
    const other = await create(first, deployment);
    await pushed(second);
    const told = toldOf(second, "command.cancelled");
    expect(await first.call("command.cancel", { commandId: other, reason: "enough" })).toEqual({
      state: "FAILED",
    });
    expect(await told).toEqual({ commandId: other, reason: "enough" });
    // It has room again, although it has not answered.
    const third = await create(first, deployment);
    expect((await pushed(second)).params.commandId).toBe(third);
    await second.destroy();
    expect((await take(first, deployment, { waitMs: WAIT_MS })).attempt).toBe(2);
  });

  test("parameters and answers in pieces go on at another daemon", async () => {
    const [first, second] = await connect();
    const deployment = newDeployment();
    const text = JSON.stringify("x".repeat(200_000));
    const halves = [text.slice(0, 100_000), text.slice(100_000)].map((half) => Buffer.from(half));
    const sizeBytes = text.length;
    const commandId = await create(first, deployment, { upload: { sizeBytes } });
    for (const [index, half] of halves.entries())
      await (index === 0 ? first : second).call("command.upload", {
        commandId,
        offset: index * 100_000,
        chunk: half.toString("base64"),
        final: index === 1,
      });
    const leased = await take(second, deployment);
    expect(leased.envelope.params).toEqual({ $upload: { sizeBytes } });
    const { chunk } = await first.call("command.params", { commandId, length: 16 });
    expect(Buffer.from(chunk, "base64").toString()).toBe(text.slice(0, 16));
    const whole = `{"status":"success","response":${text}}`;
    const parts = [whole.slice(0, 100_000), whole.slice(100_000)];
    for (const [index, part] of parts.entries())
      await (index === 0 ? second : first).call("command.answer", {
        commandId,
        leaseId: leased.leaseId,
        offset: index * 100_000,
        chunk: Buffer.from(part).toString("base64"),
        final: index === 1,
        sizeBytes: whole.length,
      });
    expect(await stateOf(second, commandId)).toBe("SUCCEEDED");
    expect((await second.call("command.response", { commandId })).response).toEqual({
      $upload: { sizeBytes: whole.length },
    });
  });

  test("deployments are listed where they are, and calls are about one place", async () => {
    const [first, second] = await connect();
    const deployment = newDeployment();
    await serve(second, deployment);
    await serve(second, "mine");
    const own = await second.call("deployment.list", {});
    expect(own.deployments.map((each) => each.deployment)).toEqual(["mine"]);
    const both = { method: "command.create", params: { deployment, command: "run" } } as const;
    const enqueue = { method: "queue.enqueue", params: { queue: "s/q", payloads: [1] } } as const;
    expect((await first.call("transact", { calls: [both, enqueue] })).results).toHaveLength(2);
    expect((await pushed(second)).params.deployment).toBe(deployment);
    await expect(
      first.call("transact", { calls: [both, { ...enqueue, params: { queue: "mine", payloads: [1] } }] }),
    ).rejects.toMatchObject({
      kind: "invalid_params",
      message: expect.stringContaining(`deployment "${deployment}" is kept in`),
    });
  });

  test("kill -9 of the receivers' daemon: what it had goes to those of others", async () => {
    const [first] = await connect();
    const { daemon, client } = await ownDaemon();
    const [pushes, pulls] = [newDeployment(), newDeployment()];
    await serve(client, pushes);
    const ids = [await create(first, pushes), await create(first, pulls)];
    await pushed(client);
    const kept = await take(client, pulls, { releaseOn: "disconnect", leaseMs: 60_000 });
    const meant = await ownName(client);
    await daemon.end("SIGKILL");
    // A lease may be renewed within the grace; a push ends after it: the daemon might have yet to tell its receiver.
    await leftBehind(first, kept.commandId);
    await first.call("command.renew", { leaseId: kept.leaseId });
    const second = await take(first, pushes, { waitMs: WAIT_MS });
    expect(second).toMatchObject({ commandId: ids[0], attempt: 2 });
    const third = take(first, pulls, { waitMs: WAIT_MS });
    // Renewed on this connection, it is of this connection.
    await first.call("command.release", { leaseId: kept.leaseId });
    expect(await third).toMatchObject({ commandId: ids[1], attempt: 2 });
    expect(await ended(first, meant)).toMatchObject({ state: "FAILED", error: { code: "GONE" } });
  });

  /** A receiver of this connection names itself; gives a command that is for it alone. */
  async function ownName(client: RawClient): Promise<string> {
    const deployment = newDeployment();
    await client.call("command.lease", { deployment, owner: "r", incarnation: "the one" });
    return await create(client, deployment, { incarnation: "the one" });
  }

  test("what one daemon knows to end is ended by another, after kill -9 of the first", async () => {
    const [first] = await connect();
    const { daemon, client } = await ownDaemon();
    const deployment = newDeployment();
    const expiring = await create(client, deployment, { ttlMs: 1500 });
    const resting = await create(client, newDeployment(), { retry: { baseMs: 1000, jitter: false } });
    const { deployment: other } = await get(client, resting);
    const { leaseId } = await take(client, other);
    await client.call("command.release", { leaseId });
    await daemon.end("SIGKILL");
    expect(await ended(first, expiring)).toMatchObject({ state: "EXPIRED", error: { code: "EXPIRED" } });
    expect((await take(first, other, { waitMs: WAIT_MS })).commandId).toBe(resting);
  });

  test("a receiver whose daemon is cut off is told so; what it had goes to another, and it serves on", async () => {
    const [first] = await connect();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    // A slow machine may take longer than the grace of a receiver; then it is tried once more.
    for (let livesOn = false; !livesOn; ) {
      const { daemon, client } = await ownDaemon(proxy.port);
      const { daemon: former } = await daemon.logged(isThere);
      const deployment = newDeployment();
      await serve(client, deployment, "itself");
      const commandId = await create(first, deployment);
      const execute = await pushed(client);
      const told = toldOf(client, "command.cancelled");
      const isBack = daemon.logged((line) => isThere(line) && line.daemon !== former);
      proxy.silence();
      expect(await told).toEqual({ commandId, reason: "EXECUTION_TIME" });
      proxy.cut();
      const { daemon: number } = await isBack;
      const again = await take(first, deployment, { waitMs: WAIT_MS });
      expect(again).toMatchObject({ commandId, attempt: 2 });
      await respond(first, again);
      const isNamed = `SELECT count(*) FROM pawl.pawl_incarnation_connection NATURAL JOIN pawl.pawl_incarnation
        WHERE deployment = '${deployment}' AND ended_at IS NULL AND connection / 4294967296 = ${number}`;
      const hasEnded = (): boolean =>
        daemon.log.some(({ msg }) => msg === "a receiver has ended while its daemon was cut off");
      await until(() => {
        livesOn = postgres().psql(isNamed).output.trim() === "1";
        return livesOn || hasEnded();
      });
      if (!livesOn) continue;
      const meant = await create(first, deployment, { incarnation: "itself" });
      // Until it has answered it has no room for more. That comes too late, and changes nothing.
      answer(client, execute, { result: "late" });
      expect((await pushed(client)).params.commandId).toBe(meant);
      expect(await answerTo(first, commandId)).toEqual({ status: "success", response: "done" });
    }
  });

  test("a receiver whose daemon loses all connections, and is taken for dead at once, is told before another has it", async () => {
    const [first] = await connect();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const { client } = await ownDaemon(proxy.port);
    const deployment = newDeployment();
    await serve(client, deployment);
    const commandId = await create(first, deployment);
    await pushed(client);
    const order: string[] = [];
    proxy.end();
    await Promise.all([
      toldOf(client, "command.cancelled").then((told) => order.push(`told of ${told.commandId}`)),
      take(first, deployment, { waitMs: WAIT_MS }).then((taken) => order.push(`taken ${taken.commandId}`)),
    ]);
    expect(order).toEqual([`told of ${commandId}`, `taken ${commandId}`]);
    proxy.cut();
  });

  test("one that pulled until its connection closes is told before another has it; one with a time goes on", async () => {
    const [first] = await connect();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const { client } = await ownDaemon(proxy.port);
    const deployment = newDeployment();
    for (const _ of [1, 2, 3, 4]) await create(first, deployment);
    const bound = { releaseOn: "disconnect", leaseMs: 60_000 } as const;
    const lasting = await take(client, deployment, { leaseMs: 60_000 });
    const answered = await take(client, deployment, bound);
    await respond(client, answered);
    const lost = await take(client, deployment, bound);
    // Its daemon dies, and the receiver goes on with it at the one that is cut off later.
    const other = await ownDaemon();
    const renewed = await take(other.client, deployment, bound);
    await other.daemon.end("SIGKILL");
    await leftBehind(first, renewed.commandId);
    await client.call("command.renew", { leaseId: renewed.leaseId });
    proxy.silence();
    const told = [await toldOf(client, "command.cancelled"), await toldOf(client, "command.cancelled")];
    expect(told.map(({ commandId }) => commandId)).toEqual([lost.commandId, renewed.commandId]);
    expect(told.map(({ reason }) => reason)).toEqual(["EXECUTION_TIME", "EXECUTION_TIME"]);
    const again = [await take(first, deployment, { waitMs: WAIT_MS })];
    again.push(await take(first, deployment, { waitMs: WAIT_MS }));
    expect(new Set(again.map(({ commandId }) => commandId))).toEqual(
      new Set([lost.commandId, renewed.commandId]),
    );
    expect(await respond(first, lasting)).toEqual({ accepted: true, state: "SUCCEEDED" });
  });

  /** Resolves once others have taken the daemon for dead that a command was leased at. */
  async function leftBehind(client: RawClient, commandId: string): Promise<void> {
    const bound = `SELECT count(*) FROM pawl.pawl_command WHERE command_id = '${commandId}' AND grace_ends_at IS NULL`;
    while (postgres().psql(bound).output.trim() !== "0") await client.call("daemon.ping", {});
  }
});
