// A restart of the daemon while leases are held that end with their connections, here and at a provider: whoever
// comes back in the grace goes on with the same token; whoever does not loses it then, and long before its ttl.
// Not over shared names: a provider keeps these names.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { connect } from "../../client/dist/index.js";
import { type AtEnd, privateDirectory } from "../daemon.js";
import { Faulty } from "../faulty.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";
import { startPawl } from "./cli-program.js";

const OWNER = "test";
const LONG_MS = 3_600_000;
const GRACE_MS = 5000;
const REMOTE = "out/release";
const LOCAL = "release";
const REQUEST = { owner: OWNER, ttlMs: LONG_MS, releaseOn: "disconnect" } as const;

/** A daemon with a provider, another that shares only that, and what stops the first and starts it again. */
async function twoDaemons(atEnd: AtEnd) {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const start = () => place.start({ args: faulty.args });
  const [first, other] = await Promise.all([start(), faulty.start()]);
  let daemon = first;
  const stop = (how: NodeJS.Signals = "SIGTERM") => daemon.end(how);
  const again = async () => {
    daemon = await start();
  };
  return { faulty, place, stop, again, elsewhere: await other.place.connect() };
}

/** Asks until the daemon's clock says so. */
async function untilTime(client: RawClient, at: number): Promise<void> {
  while ((await client.call("daemon.ping", {})).now <= at) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test.concurrent("pawl lock: who lives goes on with the same token; who was killed meanwhile loses it after the grace", async ({
  onTestFinished: atEnd,
}) => {
  const { place, stop, again, elsewhere } = await twoDaemons(atEnd);
  const go = join(privateDirectory(atEnd), "go");
  const lock = (name: string, command: string) =>
    startPawl(["lock", name, "--ttl", "1h", "--", "sh", "-c", command], { socket: place.socket, atEnd });
  const work = `echo "begun $PAWL_FENCING_TOKEN"; while [ ! -e ${go} ]; do sleep 0.05; done; echo "done $PAWL_FENCING_TOKEN"`;
  const living = [LOCAL, REMOTE].map((name) => lock(name, work));
  const dying = ["dying", "out/dying"].map((name) => lock(name, "echo begun; exec sleep 600"));
  await Promise.all([...living, ...dying].map((each) => each.printed(/begun/)));
  const tokens = new Map<string, number>();
  const before = await place.connect();
  for (const { name, fencingToken } of (await before.call("lease.list", {})).leases) {
    tokens.set(name, fencingToken);
  }
  expect(tokens.size).toBe(4);
  await before.destroy();

  expect(await stop()).toBe(0);
  for (const name of [REMOTE, "out/dying"]) {
    expect((await elsewhere.refusal("lease.acquire", { ...REQUEST, name })).data.kind, name).toBe(
      "lease_held",
    );
  }
  await Promise.all(dying.map((each) => each.end("SIGKILL")));
  await again();
  const after = await place.connect();
  const since = (await after.call("daemon.ping", {})).now;
  // Nobody has taken these up, and for all that is known their holders may still do so.
  for (const name of ["dying", "out/dying"]) {
    const { lease } = await after.call("lease.get", { name });
    expect(lease, name).toMatchObject({ fencingToken: tokens.get(name) });
    expect(lease?.remainingMs, name).toBeLessThanOrEqual(GRACE_MS);
  }
  const next = await Promise.all([
    after.call("lease.acquire", { ...REQUEST, name: "dying", waitMs: 60_000 }),
    elsewhere.call("lease.acquire", { ...REQUEST, name: "out/dying", waitMs: 60_000 }),
  ]);
  for (const { lease } of next) {
    expect(lease.fencingToken).toBeGreaterThan(tokens.get(lease.name) as number);
    expect(lease.acquiredAt - since, lease.name).toBeGreaterThan(GRACE_MS / 2);
  }
  await untilTime(after, since + GRACE_MS);

  for (const name of [LOCAL, REMOTE]) {
    const { lease } = await after.call("lease.get", { name });
    expect(lease, name).toMatchObject({ fencingToken: tokens.get(name) });
    expect(lease?.remainingMs, name).toBeGreaterThan(LONG_MS / 2);
  }
  writeFileSync(go, "");
  for (const [index, name] of [LOCAL, REMOTE].entries()) {
    const token = tokens.get(name);
    expect(await living[index]?.ended, name).toEqual({
      code: 0,
      stdout: `begun ${token}\ndone ${token}\n`,
      stderr: "",
    });
  }
  await elsewhere.call("lease.acquire", { ...REQUEST, name: REMOTE, waitMs: 60_000 });
});

test.concurrent.for(["SIGTERM", "SIGKILL"] as const)(
  "nobody is told of a loss (%s), and who renews after a second one has it again, on that connection",
  async (how, { onTestFinished: atEnd }) => {
    const { place, stop, again, elsewhere } = await twoDaemons(atEnd);
    const before = await place.connect();
    const held = new Map<string, { leaseId: string; fencingToken: number }>();
    for (const name of [LOCAL, REMOTE]) {
      held.set(name, (await before.call("lease.acquire", { ...REQUEST, name })).lease);
    }
    await stop(how);
    await before.ended;
    expect(before.lines).toEqual([]);
    await again();
    await stop(how);
    await again();
    const after = await place.connect();
    for (const [name, { leaseId, fencingToken }] of held) {
      const { remainingMs } = await after.call("lease.heartbeat", { leaseId });
      expect(remainingMs, name).toBeGreaterThan(LONG_MS / 2);
      expect(await after.call("lease.check", { name, fencingToken }), name).toMatchObject({
        current: true,
      });
    }
    await after.destroy();
    const { lease } = await elsewhere.call("lease.acquire", { ...REQUEST, name: REMOTE, waitMs: 60_000 });
    expect(lease.fencingToken).toBeGreaterThan(held.get(REMOTE)?.fencingToken as number);
  },
);

test.concurrent("withLease: a provider that cannot be asked after the restart, for longer than the grace, takes nothing away", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, place, stop, again, elsewhere } = await twoDaemons(atEnd);
  const client = await connect({ socket: place.socket });
  atEnd(() => client.close());
  const outcome = await client.withLease(
    REMOTE,
    async ({ signal, fencingToken }) => {
      expect(await stop()).toBe(0);
      faulty.fault = "fail heartbeat";
      await again();
      const observer = await place.connect();
      const from = (await observer.call("daemon.ping", {})).now;
      await untilTime(observer, from + GRACE_MS * 1.2);
      expect(signal.aborted).toBe(false);
      expect(faulty.calls).toContain("heartbeat fail");
      expect(faulty.calls).not.toContain("heartbeat -");
      const { leases } = await observer.call("lease.list", {});
      expect(leases).toMatchObject([{ name: REMOTE, fencingToken }]);
      expect(leases[0]?.remainingMs).toBeGreaterThan(LONG_MS / 2);
      faulty.fault = undefined;
      await until(() => faulty.calls.includes("heartbeat -"));
      expect((await elsewhere.refusal("lease.acquire", { ...REQUEST, name: REMOTE })).data.kind).toBe(
        "lease_held",
      );
      return signal.aborted ? "lost" : "kept";
    },
    { ttlMs: LONG_MS },
  );
  expect(outcome).toBe("kept");
  await elsewhere.call("lease.acquire", { ...REQUEST, name: REMOTE, waitMs: 60_000 });
});

test.concurrent("a holder that comes back has no more than by the clock that goes on while the machine sleeps", async ({
  onTestFinished: atEnd,
}) => {
  const { faulty, place, stop, again } = await twoDaemons(atEnd);
  const before = await place.connect();
  const { lease } = await before.call("lease.acquire", { ...REQUEST, name: REMOTE });
  await stop("SIGKILL");
  // As if the machine had slept for most of the ttl.
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.prepare("UPDATE pawl_lease SET ends_boottime_ms = ends_boottime_ms - ?").run(LONG_MS * 0.8);
  database.close();
  faulty.fault = "fail heartbeat";
  await again();
  const after = await place.connect();
  const { data } = await after.refusal("lease.heartbeat", { leaseId: lease.leaseId });
  expect(data.kind).toBe("provider_unavailable");
  const { leases } = await after.call("lease.list", {});
  expect(leases[0]?.remainingMs).toBeLessThan(LONG_MS * 0.2);
  expect(leases[0]?.remainingMs).toBeGreaterThan(GRACE_MS);
});
