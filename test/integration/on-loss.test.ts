// Holders that are ended when they lose what they hold (onLoss): real processes that ignore signals, are stopped, leave
// children behind or have ended, and the next holder, which comes only once they are gone. A short run always; with
// PAWL_TORTURE=1 five hundred losses.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { ClientProcess, startProgram } from "../client-process.js";
import { NAMES_ARE_SHARED, PAWLD, Place, sharedDaemon, startDaemon, WITHOUT_KOFFI } from "../daemon.js";
import { Faulty } from "../faulty.js";
import { hasEnded, hold, type Kind } from "../holder.js";
import { sized } from "../long-form.js";
import { RawClient } from "../raw-client.js";

const REUSED_PID = fileURLToPath(new URL("../workers/reused_pid.py", import.meta.url));
const REUSES = sized(60, 2);
const LOSSES = sized(500, 12);
const AT_ONCE = 6;
/** How long a holder has that does not end by itself. */
const GRACE_MS = 40;
const WAIT_MS = 60_000;
const NEVER_MS = 3_600_000;
/** A database that takes half of it to grant something has that given back, as on a machine that has much to do. */
const SHORT_MS = NAMES_ARE_SHARED ? 3000 : 300;

/** True if a process has open files; one that ends has none, from before its connection has closed. */
function hasFiles(pid: number | undefined): boolean {
  try {
    return pid !== undefined && readdirSync(`/proc/${pid}/fd`).length > 0;
  } catch {
    return false;
  }
}

/** A process that is not to be signalled; resolves with how it ended. */
function bystander(): { pid: number; ended: Promise<unknown>; child: ChildProcess } {
  const child = spawn("sleep", ["600"], { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  return { pid: child.pid as number, ended: once(child, "exit"), child };
}

function isRunning({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}

const CAUSES = ["broken", "expired"] as const;
const KINDS: readonly Kind[] = ["obeys", "ignores", "stopped", "forks", "unreaped", "leaves"];

/** One loss of a name by a holder of a kind; the next one, who waits, finds it ended. */
async function loseOnce(
  client: RawClient,
  socket: string,
  name: string,
  kind: Kind,
  cause: string,
): Promise<void> {
  const isPath = name.startsWith("/");
  const how = kind === "leaves" ? { releaseOn: "disconnect" } : {};
  const ttlMs = kind !== "leaves" && (isPath || cause === "expired") ? SHORT_MS : NEVER_MS;
  const onLoss = { signal: "SIGTERM", graceMs: GRACE_MS };
  const { pid, child, grant, process } = await hold(socket, name, kind, { ttlMs, onLoss, ...how });
  const next = isPath
    ? client.call("path.reserve", { root: name, patterns: ["a"], owner: "next", waitMs: WAIT_MS })
    : client.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
  if (ttlMs === NEVER_MS && kind !== "leaves") {
    const { broken } = await client.call("lease.break", { name, reason: "a test" });
    expect(broken).toBe(true);
  }
  if (kind === "forks") {
    // The process has ended before, and still it is not granted: its child has the connection.
    while (!(await isBeingEnded(client, name))) await sleep(1);
    expect(hasEnded(pid)).toBe(true);
    for (let look = 0; look < 3; look += 1) expect(await isBeingEnded(client, name)).toBe(true);
    (process.stdio[3] as Writable).end();
  }
  const granted = await next;
  expect(hasEnded(pid), `${kind}, ${cause}: the process ${pid}`).toBe(true);
  // An ending process closes its files a moment before it counts as ended; it performs nothing any more then.
  expect(hasFiles(child), `${kind}, ${cause}: its child ${child}`).toBe(false);
  const token = "reservation" in granted ? granted.reservation.fencingToken : granted.lease.fencingToken;
  expect(token).toBeGreaterThan(grant.fencingToken);
  if ("reservation" in granted)
    await client.call("path.release", { reservationId: granted.reservation.reservationId });
  else await client.call("lease.release", { leaseId: granted.lease.leaseId });
  process.stdin?.end();
}

/** True if a name is lost, and not granted to anybody yet. */
async function isBeingEnded(client: RawClient, name: string): Promise<boolean> {
  if (!name.startsWith("/")) return (await client.call("lease.get", { name })).lease?.ending === true;
  const { reservations } = await client.call("path.list", { root: name });
  return reservations[0]?.ending === true;
}

describe("a holder that has lost what it holds", () => {
  const daemon = sharedDaemon();
  const socket = (): string => daemon().place.socket;

  test(
    `${LOSSES} losses: the next one is granted it only after the end, and no other process is hit`,
    async () => {
      const bystanders = Array.from({ length: 3 }, bystander);
      // One holds other leases, with onLoss too, and does not lose them.
      const kept = await hold(socket(), "kept", "obeys", { ttlMs: NEVER_MS, onLoss: {} });
      const seen = new Map<string, number>();
      let begun = 0;
      const worker = async (): Promise<void> => {
        const client = await RawClient.connect(socket());
        while (begun < LOSSES) {
          const number = begun++;
          const kind = KINDS[number % KINDS.length] as Kind;
          const cause = CAUSES[Math.floor(number / KINDS.length) % CAUSES.length] as string;
          const name = number % 4 === 3 ? `/lost/${number}` : `lost-${number}`;
          await loseOnce(client, socket(), name, kind, cause);
          seen.set(kind, (seen.get(kind) ?? 0) + 1);
        }
        await client.destroy();
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      expect([...seen.keys()].sort()).toEqual([...KINDS].sort());
      expect(
        [...bystanders.map(({ child }) => child), kept.process].filter((each) => !isRunning(each)),
      ).toEqual([]);
      const client = await RawClient.connect(socket());
      const { lease } = await client.call("lease.get", { name: "kept" });
      expect(lease?.pid).toBe(kept.pid);
      console.log(`${LOSSES} losses: ${JSON.stringify(Object.fromEntries(seen))}`);
    },
    LOSSES * 1500 + 60_000,
  );
});

/** Why no pid namespace can be had here; undefined if one can. */
const noNamespace = ((): string | undefined => {
  const script = "echo 400 >/proc/sys/kernel/ns_last_pid && exec python3 -c 'import os; print(os.getpid())'";
  const { status, stderr, error } = spawnSync(
    "unshare",
    ["--pid", "--fork", "--mount-proc", "sh", "-c", script],
    { encoding: "utf8" },
  );
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
})();
if (noNamespace !== undefined) console.warn(`the test of reused pids is skipped: ${noNamespace}`);

test.skipIf(noNamespace !== undefined)(
  `a process that has got the pid of a holder is never hit, ${REUSES} times over restarts`,
  () => {
    const { directory } = new Place();
    const program = ["python3", REUSED_PID, `${REUSES}`, process.execPath, PAWLD, directory];
    const { stdout, stderr } = spawnSync("unshare", ["--pid", "--fork", "--mount-proc", ...program], {
      encoding: "utf8",
    });
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual({ reused: REUSES, hit: 0, refused: REUSES });
  },
  REUSES * 4000 + 60_000,
);

describe("while the process of a lost lease goes on", () => {
  const daemon = sharedDaemon();
  /** Goes on until the test ends it. */
  const onLoss = { signal: "SIGTERM", graceMs: 600_000 } as const;

  test("nobody holds the lease, and nobody is granted it", async () => {
    const { socket } = daemon().place;
    const client = await daemon().place.connect();
    await client.call("lease.configure", { name: "pool", members: ["a", "b"] });
    const { pid, grant } = await hold(socket, "pool", "ignores", { ttlMs: NEVER_MS, onLoss, slots: 2 });
    const { fencingToken } = grant;
    expect((await client.call("lease.get", { name: "pool" })).lease).not.toHaveProperty("ending");
    await client.call("lease.break", { name: "pool", reason: "a test", fencingToken });

    const { lease, free } = await client.call("lease.get", { name: "pool" });
    expect(lease).toMatchObject({ ending: true, remainingMs: 0, pid, members: ["a", "b"] });
    expect(free).toBe(0);
    expect((await client.call("lease.list", { prefix: "pool" })).leases).toMatchObject([
      { ending: true, pid },
    ]);
    expect(await client.call("lease.check", { name: "pool", fencingToken })).toMatchObject({
      current: false,
    });
    expect(await client.call("lease.break", { name: "pool", reason: "again" })).toEqual({ broken: false });
    const { leaseId } = grant as unknown as { leaseId: string };
    expect(await client.call("lease.release", { leaseId })).toEqual({ released: false });
    await expect(client.call("lease.heartbeat", { leaseId })).rejects.toMatchObject({ kind: "lease_lost" });
    await expect(client.call("lease.acquire", { name: "pool", owner: "next" })).rejects.toMatchObject({
      kind: "lease_held",
      message: expect.stringContaining("whose process is being ended"),
    });
    await expect(
      client.call("queue.claim", {
        queue: "q",
        owner: "next",
        under: { lease: { name: "pool", fencingToken } },
      }),
    ).rejects.toMatchObject({ kind: "lease_lost" });

    const next = client.call("lease.acquire", { name: "pool", owner: "next", waitMs: WAIT_MS });
    process.kill(pid, "SIGKILL");
    expect((await next).lease).toMatchObject({ members: ["a"], fencingToken: fencingToken + 1 });
  });

  test("nobody is granted its paths", async () => {
    const { socket } = daemon().place;
    const client = await daemon().place.connect();
    const root = "/srv/tree";
    const { pid, grant } = await hold(socket, root, "ignores", { ttlMs: NEVER_MS, onLoss });
    const { reservationId } = grant as unknown as { reservationId: string };
    const added = { root, patterns: ["more"], reservationId, owner: "ignores" };
    await expect(
      client.call("path.reserve", { ...added, onLoss: { signal: "SIGTERM", graceMs: 1 } }),
    ).rejects.toMatchObject({ kind: "invalid_params" });
    // Its time comes by itself: whoever looks is told so from then on.
    await client.call("path.heartbeat", { reservationId, ttlMs: SHORT_MS });
    while ((await client.call("path.list", { root })).reservations[0]?.ending !== true) await sleep(5);
    expect(await client.call("path.check", { root, path: "a/b" })).toMatchObject({
      allowed: false,
      holders: [{ owner: "ignores", pid }],
    });
    await expect(client.call("path.heartbeat", { reservationId })).rejects.toMatchObject({
      kind: "lease_lost",
    });
    await expect(client.call("path.reserve", { root, patterns: ["a"], owner: "next" })).rejects.toMatchObject(
      { kind: "lease_held" },
    );
    const next = client.call("path.reserve", { root, patterns: ["a"], owner: "next", waitMs: WAIT_MS });
    process.kill(pid, "SIGKILL");
    expect((await next).reservation).toMatchObject({ fencingToken: 2 });
  });

  test.each([
    ["expires", { ttlMs: SHORT_MS }, "ignores"],
    ["is cut off", { ttlMs: NEVER_MS, releaseOn: "disconnect" }, "leaves"],
  ] as const)("a joint lease that %s is free only as a whole", async (how, params, kind) => {
    const client = await daemon().place.connect();
    const names = [`${how} one`, `${how} two`, `${how} three`];
    const { pid } = await hold(daemon().place.socket, "", kind, { names, ...params, onLoss });
    const all = () => Promise.all(names.map((name) => client.call("lease.get", { name })));
    while ((await all())[0]?.lease?.ending !== true) await sleep(5);
    expect((await all()).map(({ lease }) => lease?.ending)).toEqual([true, true, true]);
    const next = client.call("lease.acquire", { names, owner: "next", waitMs: WAIT_MS });
    process.kill(pid, "SIGKILL");
    expect((await next).leases).toHaveLength(3);
    expect((await client.call("daemon.check", {})).problems).toEqual([]);
  });

  test("a joint lease that is broken is free only as a whole", async () => {
    const client = await daemon().place.connect();
    const worker = await RawClient.connect(daemon().place.socket);
    const { pid } = await hold(daemon().place.socket, "one", "ignores", {
      names: ["one", "two"],
      ttlMs: NEVER_MS,
      onLoss,
    });
    await client.call("lease.break", { name: "two", reason: "a test" });
    const both = ["one", "two"].map((name) => client.call("lease.get", { name }));
    expect((await Promise.all(both)).map(({ lease }) => lease?.ending)).toEqual([true, true]);
    const next = worker.call("lease.acquire", { names: ["two", "one"], owner: "next", waitMs: WAIT_MS });
    process.kill(pid, "SIGKILL");
    expect((await next).leases).toHaveLength(2);
  });

  /** A process that forwards lines, and goes on when the connection of them has closed. */
  const FORWARD = `
    process.on("SIGTERM", () => process.stdout.write('"SIGTERM"\\n'));
    setInterval(() => {}, 1e6);
    const socket = require("node:net").connect(process.argv[1]);
    process.stdin.pipe(socket);
    socket.pipe(process.stdout, { end: false });
    socket.on("close", () => process.stdout.write('"closed"\\n'));`;

  function forwarding(): {
    child: ChildProcess;
    ask: (method: string, params: object) => void;
    said: () => Promise<unknown>;
  } {
    const child = spawn(process.execPath, ["-e", FORWARD, daemon().place.socket], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
    return {
      child,
      ask: (method, params) =>
        void child.stdin?.write(`${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`),
      said: async () => JSON.parse((await lines.next()).value),
    };
  }

  test("its holder is told, and then signalled", async () => {
    const client = await daemon().place.connect();
    const { child, ask, said } = forwarding();
    ask("lease.acquire", { name: "told", owner: "test", ttlMs: NEVER_MS, onLoss });
    expect(await said()).toMatchObject({ result: { lease: { name: "told" } } });
    await client.call("lease.break", { name: "told", reason: "a test" });
    const both = [await said(), await said()];
    expect(both).toContainEqual(
      expect.objectContaining({ method: "lease.lost", params: expect.objectContaining({ name: "told" }) }),
    );
    expect(both).toContain("SIGTERM");
    expect(isRunning(child)).toBe(true);
  });

  test("one that has given it back is left alone, also when its connection closes", async () => {
    const client = await daemon().place.connect();
    const { child, ask, said } = forwarding();
    ask("lease.acquire", { name: "given back", owner: "test", releaseOn: "disconnect", onLoss });
    const { result } = (await said()) as { result: { lease: { leaseId: string } } };
    ask("lease.release", { leaseId: result.lease.leaseId });
    expect(await said()).toMatchObject({ result: { released: true } });
    child.stdin?.end();
    expect(await said()).toBe("closed");
    await client.call("lease.acquire", { name: "given back", owner: "next", waitMs: WAIT_MS });
    // Whoever was to be signalled before the next one has been by now.
    const { pid } = await hold(daemon().place.socket, "another", "obeys", {
      ttlMs: NEVER_MS,
      onLoss: { signal: "SIGTERM", graceMs: GRACE_MS },
    });
    await client.call("lease.break", { name: "another", reason: "a test" });
    await client.call("lease.acquire", { name: "another", owner: "next", waitMs: WAIT_MS });
    expect(hasEnded(pid)).toBe(true);
    expect(isRunning(child)).toBe(true);
    child.kill("SIGTERM");
    // Its first signal is this one.
    expect(await said()).toBe("SIGTERM");
  });
});

test("a daemon that was started again goes on with ending a holder, and finds those that are lost later", async () => {
  const place = new Place();
  let daemon = await place.start();
  let client = await place.connect();
  // Longer than a busy machine takes to start the daemon again.
  const begun = { ttlMs: NEVER_MS, onLoss: { signal: "SIGTERM", graceMs: 8000 } };
  const first = await hold(place.socket, "first", "ignores", begun);
  const second = await hold(place.socket, "second", "ignores", { ...begun, onLoss: { graceMs: GRACE_MS } });
  const third = await hold(place.socket, "third", "obeys", begun);
  await client.call("lease.break", { name: "first", reason: "a test" });
  await daemon.end("SIGKILL");
  third.process.kill("SIGKILL");
  await once(third.process, "exit");

  daemon = await place.start();
  client = await place.connect();
  const ask = (name: string) => client.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
  expect((await client.call("lease.get", { name: "first" })).lease).toMatchObject({ ending: true });
  expect((await client.call("lease.get", { name: "second" })).lease).not.toHaveProperty("ending");
  await client.call("lease.break", { name: "second", reason: "a test" });
  await client.call("lease.break", { name: "third", reason: "a test" });
  await Promise.all(
    [first, second, third].map(async ({ pid }, index) => {
      await ask(["first", "second", "third"][index] as string);
      expect(hasEnded(pid)).toBe(true);
    }),
  );
});

// The daemon's own file has the record of it, whoever is configured to keep the name.
test.skipIf(NAMES_ARE_SHARED)(
  "a lease that is being ended is told of so where a provider has come to keep its name",
  async () => {
    const faulty = new Faulty(onTestFinished);
    const place = faulty.place();
    const first = await place.start();
    const name = "out/held";
    const held = await hold(place.socket, name, "ignores", { ttlMs: NEVER_MS, onLoss: { graceMs: 60_000 } });
    await first.end("SIGTERM");
    await place.start({ args: faulty.args });
    const client = await place.connect();
    await client.call("lease.break", { name, reason: "a test" });
    expect((await client.call("lease.get", { name })).lease).toMatchObject({
      owner: "ignores",
      ending: true,
    });
    await expect(client.call("lease.acquire", { name, owner: "next" })).rejects.toMatchObject({
      kind: "lease_held",
      message: expect.stringContaining('was lost by "ignores", whose process is being ended'),
    });
    expect(faulty.calls).toEqual([]);
    const next = client.call("lease.acquire", { name, owner: "next", waitMs: WAIT_MS });
    held.process.kill("SIGKILL");
    expect((await next).lease.fencingToken).toBeGreaterThan(held.grant.fencingToken);
  },
);

// Such a copy is one of the daemon's own file.
test.skipIf(NAMES_ARE_SHARED)("a copy of a database ends nobody", async () => {
  const first = await startDaemon();
  const client = await first.place.connect();
  const held = await hold(first.place.socket, "name", "obeys", {
    ttlMs: NEVER_MS,
    onLoss: { graceMs: GRACE_MS },
  });
  const copy = new Place();
  mkdirSync(copy.stateDir, { mode: 0o700 });
  await client.call("daemon.backup", { path: join(copy.stateDir, "pawl.db") });
  const second = await copy.start();
  const other = await copy.connect();
  const next = other.call("lease.acquire", { name: "name", owner: "next", waitMs: WAIT_MS });
  await other.call("lease.break", { name: "name", reason: "a test" });
  // After its grace, since it may be ending by itself.
  await next;
  await second.logged(({ msg }) => msg.startsWith("the process of a lost lease cannot be found"));
  expect(isRunning(held.process)).toBe(true);
});

describe("a program of a client library that loses what it holds with onLoss", () => {
  const HOLD_LEASE = `
    process.on("SIGTERM", () => {});
    const client = await connect({ socket: args[0] });
    const block = ({ signal }) => { print("held"); if (args[1]) while (true); return new Promise(() => setInterval(() => {}, 1000)); };
    const onLoss = { signal: "SIGTERM", graceMs: 50 };`;
  const LEASE = `${HOLD_LEASE} await client.withLease("held", block, { onLoss, ttlMs: args[1] ? ${SHORT_MS} : 60_000 });`;
  const PATHS = `${HOLD_LEASE} await client.withPaths({ root: "/srv/held", patterns: ["**"] }, block, { onLoss, ttlMs: ${SHORT_MS} });`;
  const PYTHON = `
import sys, time, pawl
with pawl.Client(sys.argv[1]) as client:
    with client.lock("held", onLoss={"signal": "SIGKILL", "graceMs": 50}):
        print('"held"', flush=True)
        while True:
            time.sleep(1)
`;
  const asks = {
    lease: (client: RawClient) =>
      client.call("lease.acquire", { name: "held", owner: "next", waitMs: WAIT_MS, releaseOn: "disconnect" }),
    paths: (client: RawClient) =>
      client.call("path.reserve", { root: "/srv/held", patterns: ["a"], owner: "next", waitMs: WAIT_MS }),
  };
  const python = (socket: string): ClientProcess =>
    new ClientProcess(
      spawn("python3", ["-c", PYTHON, socket], {
        env: { ...process.env, PYTHONPATH: fileURLToPath(new URL("../../clients/python", import.meta.url)) },
      }),
    );
  const program =
    (source: string, isBlocked: boolean): ((socket: string) => ClientProcess) =>
    (socket) =>
      startProgram(source, [socket, isBlocked]);

  test.each([
    ["withLease, and its event loop is blocked", "lease", program(LEASE, true)],
    ["withLease, and it ignores the loss", "lease", program(LEASE, false)],
    ["withPaths, and its event loop is blocked", "paths", program(PATHS, true)],
    ["lock of Python", "lease", python],
  ] as const)("%s: ends before the next one is granted it", async (_, what, start) => {
    const { place } = await startDaemon();
    const holder = start(place.socket);
    onTestFinished(() => void holder.child.kill("SIGKILL"));
    expect(await holder.line(0)).toBe("held");
    const client = await place.connect();
    const next = asks[what](await place.connect());
    if (what === "lease") await client.call("lease.break", { name: "held", reason: "a test" });
    await next;
    expect(hasEnded(holder.child.pid)).toBe(true);
    expect(await holder.exited).toBe("SIGKILL");
  });
});

describe("onLoss is refused at once", () => {
  const mayBeNobody = process.getuid?.() === 0;

  test.skipIf(!mayBeNobody)("by a daemon that may not signal the process", async () => {
    const place = new Place();
    chmodSync(place.directory, 0o777);
    const command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", process.execPath];
    await place.start({ command, args: ["--socket-mode", "0666"] });
    const client = await place.connect();
    const asked = { owner: "test", onLoss: {}, waitMs: WAIT_MS };
    for (const refused of [
      client.call("lease.acquire", { name: "name", ...asked }),
      client.call("path.reserve", { root: "/srv", patterns: ["a"], ...asked }),
    ])
      await expect(refused).rejects.toMatchObject({
        kind: "forbidden",
        message: expect.stringContaining(`may not signal the process ${process.pid} of the user 0`),
      });
    await client.call("lease.acquire", { name: "name", owner: "test" });
  });

  test("by a daemon that cannot ask the kernel", async () => {
    const { place } = await startDaemon({ command: WITHOUT_KOFFI });
    const client = await place.connect();
    await expect(
      client.call("lease.acquire", { name: "name", owner: "test", onLoss: {}, waitMs: WAIT_MS }),
    ).rejects.toMatchObject({ kind: "invalid_params", error: { data: { issues: [{ path: "/onLoss" }] } } });
  });

  test("in a transaction, of which nothing is done", async () => {
    const { place } = await startDaemon({ command: WITHOUT_KOFFI });
    const client = await place.connect();
    const calls = [
      { method: "sequence.next", params: { type: "FR" } },
      { method: "lease.acquire", params: { name: "name", owner: "test", onLoss: {} } },
    ];
    await expect(client.call("transact", { calls })).rejects.toMatchObject({ kind: "invalid_params" });
    expect(await client.call("sequence.next", { type: "FR" })).toMatchObject({ seq: 1 });
  });
});

test("--idle-exit: not before the process of a lost lease has ended", async () => {
  const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
  const onLoss = { signal: "SIGTERM", graceMs: 2500 };
  const meanwhile = await daemon.place.connect();
  const { pid } = await hold(daemon.place.socket, "left", "leaves", { ttlMs: SHORT_MS, onLoss });
  await meanwhile.destroy();
  expect(await daemon.exited).toBe(0);
  expect(hasEnded(pid)).toBe(true);
});
