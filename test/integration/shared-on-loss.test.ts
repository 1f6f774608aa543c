// Holders of shared leases that are ended when they lose them: real processes, real daemons, one real server.
import type { Writable } from "node:stream";
import { describe, expect, onTestFinished, test } from "vitest";
import { Session } from "../../daemon/dist/shared/session.js";
import { type DaemonProcess, type LogLine, madeForTests, Place } from "../daemon.js";
import { hasEnded, hold } from "../holder.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import { isThere, makePlace, SilentProxy, toldOf } from "../shared-daemons.js";
import { until } from "../until.js";

const onLoss = { signal: "SIGTERM", graceMs: 40 } as const;
const WAIT_MS = 60_000;

describe.skipIf(!HAS_POSTGRESQL)("a holder that loses what daemons share", () => {
  const postgres = madeForTests(async (atEnd) => {
    const server = await PostgreSql.start(atEnd, { tcp: true });
    await makePlace(server.url());
    return server;
  });

  function shared(port?: number): { args: string[] } {
    const url = postgres().url("pawl", port);
    return { args: ["--shared", `s/*=${url}`, "--shared", `path:/s/*=${url}`] };
  }

  test("is ended by the daemon that it is connected to, before one at another daemon is granted it", async () => {
    const [one, two] = [new Place(), new Place()];
    await Promise.all([one, two].map((place) => place.start(shared())));
    const other = await two.connect();
    for (const kind of ["obeys", "ignores"] as const) {
      const name = `s/${kind}`;
      const { pid } = await hold(one.socket, name, kind, { ttlMs: 60_000, onLoss });
      const next = other.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
      expect(await other.call("lease.break", { name, reason: "a test" })).toEqual({ broken: true });
      await next;
      expect(hasEnded(pid)).toBe(true);
    }
    const root = "/s/tree";
    const { pid } = await hold(one.socket, root, "ignores", { ttlMs: 300, onLoss });
    const reserved = { root, patterns: ["a"], owner: "next", waitMs: WAIT_MS };
    await other.call("path.reserve", reserved);
    expect(hasEnded(pid)).toBe(true);
  });

  test("is ended by the next life of its daemon that was killed; if there is none, it is passed over after its grace", async () => {
    const [one, two, three] = [new Place(), new Place(), new Place()];
    const started = await Promise.all([one, two, three].map((place) => place.start(shared())));
    const [first, second, third] = started as [DaemonProcess, DaemonProcess, DaemonProcess];
    const other = await two.connect();
    const held = { ttlMs: 60_000, onLoss, releaseOn: "disconnect" };
    const { pid } = await hold(one.socket, "s/again", "leaves", held);
    const { pid: left } = await hold(three.socket, "s/gone", "leaves", held);
    const acquire = (name: string) => other.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
    const [again, gone] = [acquire("s/again"), acquire("s/gone")];
    await Promise.all([first.end("SIGKILL"), third.end("SIGKILL")]);
    const next = await one.start(shared());
    await again;
    expect(hasEnded(pid)).toBe(true);
    const toldOf = (holder: number) => (line: LogLine) =>
      line.msg.startsWith("the daemon has gone that could end the process") && line.pid === holder;
    // Whichever comes first passes over the one that is left.
    await Promise.race([second.logged(toldOf(left)), next.logged(toldOf(left))]);
    await gone;
    for (const { log } of [second, next]) expect(log.some(toldOf(pid))).toBe(false);
  });

  test("is ended although its daemon is cut off, and before anybody else is granted it", async () => {
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    await one.start(shared(proxy.port));
    await two.start(shared());
    const other = await two.connect();
    const name = "s/cut";
    const { pid } = await hold(one.socket, name, "ignores", { ttlMs: 3000, onLoss });
    proxy.silence();
    await expect.poll(() => hasEnded(pid), { timeout: 20_000 }).toBe(true);
    await expect(other.call("lease.acquire", { name, owner: "next" })).rejects.toMatchObject({
      kind: "lease_held",
    });
    proxy.cut();
    await other.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
  });

  test("has its connection closed first, too, where its daemon has another number by then", async () => {
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    const [first, second] = await Promise.all([one.start(shared(proxy.port)), two.start(shared())]);
    const [client, other] = [await one.connect(), await two.connect()];
    await client.call("lease.acquire", { name: "s/told", owner: "a", ttlMs: 60_000 });
    const name = "s/forked";
    const { pid, child, process } = await hold(one.socket, name, "forks", { ttlMs: 60_000, onLoss });
    // Whoever takes up whom it has to end has the whole place.
    const session = await Session.open(postgres().url());
    await session.query("SELECT pg_advisory_lock_shared(hashtextextended('pawl pawl', 0)) IS NULL AS locked");
    await other.call("lease.break", { name, reason: "a test" });
    // What connections are told comes in order: the one of the forked process was told by then.
    const told = toldOf(client, "lease.lost");
    await other.call("lease.break", { name: "s/told", reason: "a test" });
    await told;
    const waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    await until(() => postgres().psql(waiting).output.trim() !== "0");
    const { daemon } = await first.logged(isThere);
    const isGone = second.logged(
      (line) => line.msg.startsWith("another daemon has gone") && line.daemon === daemon,
    );
    proxy.end();
    await session.close();
    await isGone;
    const isBack = first.logged((line) => isThere(line) && line.daemon !== daemon);
    proxy.cut();
    await isBack;
    const isTaken = "SELECT count(*) FROM pawl.pawl_on_loss WHERE is_taken = 1";
    await until(() => postgres().psql(isTaken).output.trim() !== "0");
    // This has the whole place, after the turn that would free it.
    await client.call("queue.purge", { queue: "s/purged", states: ["completed"] });
    expect(hasEnded(pid)).toBe(true);
    expect((await other.call("lease.get", { name })).lease).toMatchObject({ ending: true });
    const next = other.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
    (process.stdio[3] as Writable).end();
    await next;
    expect(hasEnded(child)).toBe(true);
  });
});
