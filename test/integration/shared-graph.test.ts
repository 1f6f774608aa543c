// Who holds what daemons share and who waits for it, what keeps a daemon from being idle, and what it finds at a start.

import { hostname } from "node:os";
import type { Result } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { type DaemonProcess, madeForTests, Place } from "../daemon.js";
import { hasEnded, hold } from "../holder.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { makePlace, SilentProxy } from "../shared-daemons.js";
import { until } from "../until.js";
import { pawl } from "./cli-program.js";

type Graph = Result<"daemon.graph">;

const LONG_MS = 3_600_000;
/** The grace of what was held when a daemon died. */
const GRACE_MS = 5000;

/** Who holds and who waits for what, by pid, or by the owner of one that is no process of this machine's daemon. */
function edgesOf({ nodes, edges }: Graph): string[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  return edges.map(({ from, to, what }) => `${byId.get(from)?.pid} ${what} ${to}`).sort();
}

describe.skipIf(!HAS_POSTGRESQL)("names that daemons share", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd, { tcp: true }));
  let schemas = 0;

  /** The options of daemons that share names in tables of their own. */
  async function newPlace(): Promise<(port?: number) => string[]> {
    schemas += 1;
    const schema = `test_${schemas}`;
    await makePlace(postgres().url(schema));
    return (port) => {
      const url = postgres().url(schema, port);
      return ["--shared", `s/*=${url}`, "--shared", `path:/s/*=${url}`];
    };
  }

  async function start(args: string[], place = new Place()): Promise<DaemonProcess> {
    return await place.start({ args });
  }

  test("the graph has holders at all daemons, and who waits at this one, beside what is its own", async () => {
    const args = await newPlace();
    const [first, second] = await Promise.all([start(args()), start(args())]);
    const client = await second.place.connect();
    await client.call("queue.enqueue", { queue: "s/q", payloads: [1], key: "k" });
    await client.call("command.create", { deployment: "s/d", command: "c" });
    const holder = startRaw(first.place.socket, [
      { method: "lease.acquire", params: { name: "s/a", owner: "holder", ttlMs: 60_000 } },
      { method: "path.reserve", params: { root: "/s/tree", patterns: ["src/"], owner: "holder" } },
      { method: "queue.claim", params: { queue: "s/q", owner: "holder" } },
      { method: "command.lease", params: { deployment: "s/d", owner: "holder" } },
    ]);
    await holder.line(3);
    const waiter = startRaw(second.place.socket, [
      { method: "lease.acquire", params: { name: "own", owner: "waiter", ttlMs: 60_000 } },
      { method: "lease.acquire", params: { name: "s/b", owner: "waiter", ttlMs: 60_000 } },
      { method: "lease.acquire", params: { name: "s/a", owner: "waiter", waitMs: LONG_MS } },
      { method: "queue.claim", params: { queue: "s/q", owner: "waiter", waitMs: LONG_MS } },
      { method: "daemon.ping" },
    ]);
    // The last is answered behind both waits.
    await waiter.line(2);

    const graph = await client.call("daemon.graph", {});
    const { id: command } = graph.nodes.find(({ kind }) => kind === "command") as Graph["nodes"][number];
    const [held, waits] = [holder.child.pid, waiter.child.pid];
    const ofHolder = [command, "key:s/q k", "lease:s/a", "path:/s/tree src/", "queue:s/q"];
    expect(edgesOf(graph)).toEqual(
      [
        ...ofHolder.map((id) => `${held} holds ${id}`),
        `${waits} holds lease:own`,
        `${waits} holds lease:s/b`,
        `${waits} waits lease:s/a`,
        `${waits} waits queue:s/q`,
      ].sort(),
    );
    expect(graph).not.toHaveProperty("away");
    for (const { sinceMs } of graph.edges) expect(sinceMs).toEqual(expect.any(Number));
    const processes = graph.nodes.filter(({ kind }) => kind === "process");
    // One node has all that a process holds, of shared names and of others; that of another daemon says of which.
    expect(processes).toHaveLength(2);
    const at = { daemon: expect.any(Number), host: hostname() };
    expect(processes.find(({ pid }) => pid === held)).toMatchObject({ owner: "holder", ...at });
    expect(processes.find(({ pid }) => pid === waits)).not.toHaveProperty("daemon");

    const about = await client.call("daemon.graph", { pid: waits });
    expect(edgesOf(about)).toContain(`${held} holds lease:s/a`);
    for (const what of [["lease", "s/a"], ["s/a"]]) {
      const { stdout } = await pawl(["why", ...what], { socket: second.place.socket });
      expect(stdout).toMatch(
        new RegExp(
          `^process ${held} \\(holder, daemon \\d+ at ${hostname()}\\) holds lease s/a for .*\\.\nprocess ${waits} \\(waiter\\) waits for it for`,
          "m",
        ),
      );
    }
    const nothing = await pawl(["why", "s/nothing"], { socket: second.place.socket });
    expect([nothing.code, nothing.stderr]).toEqual([
      1,
      expect.stringContaining('There is no queue and no item "s/nothing"'),
    ]);
    // At the other daemon nobody waits, and this one's are those of another.
    const there = await (await first.place.connect()).call("daemon.graph", {});
    expect(edgesOf(there)).toEqual(
      [...ofHolder.map((id) => `${held} holds ${id}`), `${waits} holds lease:s/b`].sort(),
    );
    expect(there.nodes.find(({ pid }) => pid === held)).not.toHaveProperty("daemon");
    expect(there.nodes.find(({ pid }) => pid === waits)).toMatchObject(at);
  });

  test.each(["closed", "silent"] as const)(
    "where the database is %s, the graph has the rest, and says so",
    async (how) => {
      const args = await newPlace();
      const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
      const { place } = await start(args(proxy.port));
      const client = await place.connect();
      await client.call("queue.enqueue", { queue: "s/q", payloads: [1] });
      await client.call("lease.acquire", { name: "own", owner: "o", ttlMs: 60_000 });
      if (how === "closed") proxy.end();
      else proxy.silence();
      const graph = await client.call("daemon.graph", {});
      const [shared] = (await client.call("daemon.info", {})).shared;
      expect(graph.away).toEqual([shared?.place]);
      expect(edgesOf(graph)).toEqual([`${process.pid} holds lease:own`]);
      const { stdout, stderr } = await pawl(["graph"], { socket: place.socket });
      expect(stdout).toMatch(/^lease own\n/);
      expect(stderr).toContain(`What is held in ${shared?.place} is missing: it cannot be reached.`);
    },
  );

  test("what was woken for nothing at two daemons is looked at once by each, and they do not wake one another", async () => {
    const args = await newPlace();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    let commits = 0;
    proxy.onSent = (text) => {
      commits += text.split("pawl_commit").length - 1;
      return "pass";
    };
    const daemons = [await start(args()), await start(args()), await start(args(proxy.port))];
    const clients = await Promise.all(daemons.map(({ place }) => place.connect()));
    const [first, ...others] = clients as [RawClient, ...RawClient[]];
    // Two wait at each of two daemons, so that some do at both once one of them has its batch.
    const claims = others.flatMap((client) =>
      [1, 2].map(() => client.call("queue.claim", { queue: "s/q", owner: "o", waitMs: LONG_MS })),
    );
    for (const claim of claims) claim.catch(() => {});
    for (const client of others)
      await until(async () => (await client.call("daemon.stats", {})).connections.waiting === 2);
    await first.call("queue.enqueue", { queue: "s/q", payloads: [1] });
    await Promise.race(claims);
    const before = commits;
    for (let more = 0; more < 100; more += 1)
      await first.call("queue.enqueue", { queue: "s/another", payloads: [more] });
    // Each look would be told to the other, which would look.
    expect(commits - before).toBeLessThan(20);
  });

  test("a circle of waits for shared leases and paths is refused to the last one", async () => {
    const args = await newPlace();
    const { place } = await start(args());
    const [one, two] = [await place.connect(), await place.connect()];
    const reserve = { root: "/s/circle", patterns: ["**"] };
    await one.call("lease.acquire", { name: "s/circle", owner: "one", task: "1", ttlMs: 60_000 });
    await two.call("path.reserve", { ...reserve, owner: "two", task: "2", ttlMs: 60_000 });
    one.send({
      jsonrpc: "2.0",
      id: 9,
      method: "path.reserve",
      params: { ...reserve, owner: "one", task: "1", waitMs: LONG_MS },
    });
    await one.call("daemon.ping", {});
    const refused = { name: "s/circle", owner: "two", task: "2", waitMs: LONG_MS };
    await expect(two.call("lease.acquire", refused)).rejects.toMatchObject({ kind: "would_deadlock" });
  });

  test.each([
    ["lease.acquire", { name: "s/idle", owner: "o", ttlMs: 2500 }],
    ["path.reserve", { root: "/s/idle", patterns: ["a"], owner: "o", ttlMs: 2500 }],
    ["queue.claim", { queue: "s/idle", owner: "o", leaseMs: 2500 }],
    ["command.lease", { deployment: "s/idle", owner: "o", leaseMs: 2500 }],
  ] as const)(
    "a daemon is not idle while what %s has granted lasts, and is where others hold more",
    async (method, params) => {
      const args = await newPlace();
      const daemon = await start([...args(), "--idle-exit", "1"]);
      const client = await daemon.place.connect();
      const other = await start(args());
      const elsewhere = await other.place.connect();
      await elsewhere.call("lease.acquire", { name: "s/long", owner: "o", ttlMs: LONG_MS });
      await elsewhere.call("queue.enqueue", { queue: "s/idle", payloads: [1] });
      await elsewhere.call("command.create", { deployment: "s/idle", command: "c" });
      await client.call(method, params as never);
      await client.destroy();
      const isHeld = async (): Promise<boolean> => {
        const { edges } = await elsewhere.call("daemon.graph", {});
        return edges.some(({ to }) => /^(lease:s\/idle|path:\/s\/idle|queue:s\/idle|command:)/.test(to));
      };
      while (await isHeld()) expect(daemon.child.exitCode).toBeNull();
      expect(await daemon.exited).toBe(0);
    },
  );

  test("a daemon is not idle before it has ended the process of a shared lease that was lost", async () => {
    const args = await newPlace();
    const daemon = await start([...args(), "--idle-exit", "1"]);
    const onLoss = { signal: "SIGTERM", graceMs: 2500 };
    const meanwhile = await daemon.place.connect();
    const { pid } = await hold(daemon.place.socket, "s/left", "leaves", { ttlMs: 300, onLoss });
    await meanwhile.destroy();
    expect(await daemon.exited).toBe(0);
    expect(hasEnded(pid)).toBe(true);
  });

  test("who comes back as soon as the daemon is there again keeps what it held", async () => {
    const args = await newPlace();
    const daemon = await start(args());
    const client = await daemon.place.connect();
    const bound = { name: "s/bound", owner: "o", ttlMs: 60_000, releaseOn: "disconnect" } as const;
    const { lease } = await client.call("lease.acquire", bound);
    await daemon.end("SIGKILL");
    const again = await start(args(), daemon.place);
    const back = await daemon.place.connect();
    await back.call("lease.heartbeat", { leaseId: lease.leaseId });
    await again.logged(({ msg }) => msg.startsWith("another daemon has gone"));
    const { lease: held } = await back.call("lease.get", { name: "s/bound" });
    expect(held?.remainingMs).toBeGreaterThan(2 * GRACE_MS);
  });

  test("a grace begins anew with each start before which no daemon was there", async () => {
    const args = await newPlace();
    const place = new Place();
    let daemon = await start(args(), place);
    const bound = { name: "s/grace", owner: "o", ttlMs: 60_000, releaseOn: "disconnect" } as const;
    await (await place.connect()).call("lease.acquire", bound);
    const ends: number[] = [];
    for (let restart = 0; restart < 2; restart += 1) {
      await daemon.end("SIGKILL");
      daemon = await start(args(), place);
      const client = await place.connect();
      ends.push((await client.call("lease.get", { name: "s/grace" })).lease?.expiresAt as number);
    }
    const [first, second] = ends as [number, number];
    expect(second).toBeGreaterThan(first);
    // Beside another daemon, where it could have been renewed, it goes on.
    await start(args());
    await daemon.end("SIGKILL");
    await start(args(), place);
    const { lease } = await (await place.connect()).call("lease.get", { name: "s/grace" });
    // Where the starts have taken longer than the grace, it has ended; but not before its time.
    expect(lease?.expiresAt ?? Math.min(Date.now(), second)).toBe(second);
  });
});
