// Names whose leases are kept elsewhere than before, and daemons that end in order while leases are held outside.
import { expect, test } from "vitest";
import { connect } from "../../client/dist/index.js";
import type { AtEnd } from "../daemon.js";
import { Faulty } from "../faulty.js";
import type { RawClient } from "../raw-client.js";

const OWNER = "test";
const NAME = "out/release";
const LONG_MS = 3_600_000;
const NEXT = { method: "sequence.next", params: { type: "FR" } };

/** That all methods tell of one and the same lease, and none of them says that there is none. */
async function expectHeld(
  client: RawClient,
  { fencingToken, leaseId }: { fencingToken: number; leaseId: string },
): Promise<void> {
  const told = { name: NAME, owner: OWNER, fencingToken };
  expect((await client.call("lease.get", { name: NAME })).lease).toMatchObject(told);
  expect((await client.call("lease.list", {})).leases).toMatchObject([told]);
  expect(await client.call("lease.check", { name: NAME, fencingToken })).toEqual({
    current: true,
    highest: fencingToken,
  });
  const { data } = await client.refusal("lease.acquire", { name: NAME, owner: "other" });
  expect(data).toMatchObject({ kind: "lease_held", holder: { owner: OWNER } });
  expect((await client.call("lease.heartbeat", { leaseId })).remainingMs).toBeGreaterThan(LONG_MS / 2);
  const guards = [{ lease: { name: NAME, fencingToken } }];
  await client.call("transact", { calls: [NEXT], guards });
}

/** A lease that was granted under some rules, and a connection to the daemon under others. */
async function moved(atEnd: AtEnd, faulty: Faulty, rules: { before: string[]; after: string[] }) {
  const place = faulty.place();
  const first = await place.start({ args: rules.before });
  const { lease } = await (await place.connect()).call("lease.acquire", {
    name: NAME,
    owner: OWNER,
    ttlMs: LONG_MS,
  });
  await first.end("SIGKILL");
  await place.start({ args: rules.after });
  const client = await place.connect();
  atEnd(() => client.destroy());
  return { place, lease, client };
}

test.concurrent("a lease that was granted here stays here until it ends, whatever keeps its name now", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const { lease, client, place } = await moved(atEnd, faulty, { before: [], after: faulty.args });
  // It does not depend on the provider.
  faulty.fault = "fail";
  await expectHeld(client, lease);
  expect(faulty.calls).toEqual([]);
  faulty.fault = undefined;

  const waiting = await place.connect();
  const waits = waiting.call("lease.acquire", { name: NAME, owner: "next", waitMs: 60_000 });
  while ((await client.call("lease.get", { name: NAME })).lease?.waiters !== 1);
  const { leaseId, fencingToken } = lease;
  expect(await client.call("lease.release", { leaseId })).toEqual({ released: true });
  const next = await waits;
  expect(next.lease.fencingToken).toBeGreaterThan(fencingToken);
  expect(faulty.calls).toContain("acquire -");
  expect((await client.call("lease.get", { name: NAME })).lease).toMatchObject({ owner: "next" });
  expect(await client.call("lease.check", { name: NAME, fencingToken })).toEqual({
    current: false,
    highest: next.lease.fencingToken,
  });
});

test.concurrent("a lease that was granted here is broken here, whatever keeps its name now", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const { lease, client } = await moved(atEnd, faulty, { before: [], after: faulty.args });
  await client.call("lease.heartbeat", { leaseId: lease.leaseId });
  const told = client.line();
  expect(await client.call("lease.break", { name: NAME, reason: "moved" })).toEqual({ broken: true });
  expect(JSON.parse(await told)).toMatchObject({ method: "lease.lost", params: { reason: "moved" } });
  expect(faulty.calls).toEqual([]);
  expect((await client.call("lease.get", { name: NAME })).lease).toBe(null);
  const next = await client.call("lease.acquire", { name: NAME, owner: OWNER });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
});

test.concurrent("a lease that one provider granted stays with it when its name is given to another", async ({
  onTestFinished: atEnd,
}) => {
  const [old, now] = [new Faulty(atEnd), new Faulty(atEnd)];
  const after = [...now.args, "--lease-provider", `old/*=${old.specification}`];
  const { lease, client } = await moved(atEnd, old, { before: old.args, after });
  now.fault = "fail";
  await expectHeld(client, lease);
  expect(await client.call("lease.break", { name: NAME, reason: "moved" })).toEqual({ broken: true });
  expect(old.calls.at(-1)).toBe("break -");
  expect(now.calls).toEqual([]);
  now.fault = undefined;
  const next = await client.call("lease.acquire", { name: NAME, owner: OWNER });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect(now.calls).toEqual(["acquire -"]);
});

test.concurrent("a lease that a provider granted stays with it when its name is kept here", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const after = ["--lease-provider", `old/*=${faulty.specification}`];
  const { lease, client } = await moved(atEnd, faulty, { before: faulty.args, after });
  await expectHeld(client, lease);
  expect(await client.call("lease.break", { name: NAME, reason: "moved" })).toEqual({ broken: true });
  expect(faulty.calls.at(-1)).toBe("break -");
  const next = await client.call("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 1000 });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect(next.lease.remainingMs).toBe(1000);
});

test.concurrent("a daemon that stops gives back what ends with its connections, and nothing else", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const [daemon, other] = await Promise.all([faulty.start(), faulty.start()]);
  const [holder, elsewhere] = [await daemon.place.connect(), await other.place.connect()];
  const request = { owner: OWNER, ttlMs: LONG_MS } as const;
  const { lease } = await holder.call("lease.acquire", { ...request, name: NAME, releaseOn: "disconnect" });
  await holder.call("lease.acquire", { ...request, name: "out/stays" });
  const dying = await daemon.place.connect();
  await dying.call("lease.acquire", { ...request, name: "out/dying", releaseOn: "disconnect" });

  const order: string[] = [];
  const waits = elsewhere.call("lease.acquire", { ...request, name: NAME, waitMs: 60_000 }).then((result) => {
    order.push("granted");
    return result;
  });
  while (!faulty.calls.includes("acquire -")) await other.place.next();
  const told = holder.line().then((line) => {
    order.push("told");
    return JSON.parse(line) as unknown;
  });
  void dying.destroy();
  const ended = daemon.end();
  expect(await told).toMatchObject({
    method: "lease.lost",
    params: { leaseId: lease.leaseId, cause: "broken", reason: "the daemon is stopping" },
  });
  await holder.ended;
  await holder.destroy();
  expect((await waits).lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect(order).toEqual(["told", "granted"]);
  expect(await ended).toBe(0);
  // The daemon is not there any more, so it is known now or never.
  const dead = await elsewhere.call("lease.acquire", { ...request, name: "out/dying" });
  expect(dead.lease.fencingToken).toBeGreaterThan(0);
  const { data } = await elsewhere.refusal("lease.acquire", { ...request, name: "out/stays" });
  expect(data.kind).toBe("lease_held");
});

test.concurrent("a holder that takes no notice of the end keeps its lease", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const [daemon, other] = await Promise.all([place.start({ args: faulty.args }), faulty.start()]);
  const elsewhere = await other.place.connect();
  const request = { name: NAME, owner: OWNER, ttlMs: LONG_MS, releaseOn: "disconnect" } as const;
  const unaware = await place.connect();
  const { lease } = await unaware.call("lease.acquire", request);
  // It does not close its side: it may be in the middle of a write.
  expect(await daemon.end()).toBe(0);
  expect((await elsewhere.refusal("lease.acquire", request)).data.kind).toBe("lease_held");
  await place.start({ args: faulty.args });
  const again = await place.connect();
  await again.call("lease.heartbeat", { leaseId: lease.leaseId });
  expect(await again.call("lease.release", { leaseId: lease.leaseId })).toEqual({ released: true });
  await unaware.destroy();
});

test.concurrent("a provider that hangs keeps no daemon from ending, and is told by the next one", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const place = faulty.place();
  const [daemon, other] = await Promise.all([place.start({ args: faulty.args }), faulty.start()]);
  const elsewhere = await other.place.connect();
  const request = { name: NAME, owner: OWNER, ttlMs: LONG_MS, releaseOn: "disconnect" } as const;
  const holder = await place.connect();
  await holder.call("lease.acquire", request);
  faulty.fault = "hang release";
  const ended = daemon.end();
  await holder.ended;
  await holder.destroy();
  expect(await ended).toBe(0);
  faulty.fault = undefined;
  expect((await elsewhere.refusal("lease.acquire", request)).data.kind).toBe("lease_held");
  await place.start({ args: faulty.args });
  await elsewhere.call("lease.acquire", { ...request, waitMs: 60_000 });
});

test.concurrent("withLease is told by a daemon that stops, before another is granted the name", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const [daemon, other] = await Promise.all([faulty.start(), faulty.start()]);
  const elsewhere = await other.place.connect();
  const client = await connect({ socket: daemon.place.socket });
  atEnd(() => client.close());
  const order: string[] = [];
  let begun: () => void = () => {};
  const holds = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const used = client.withLease(
    NAME,
    async ({ signal }) => {
      const over = new Promise<void>((resolve) =>
        signal.addEventListener("abort", () => {
          order.push("told");
          resolve();
        }),
      );
      begun();
      await over;
      throw signal.reason;
    },
    { ttlMs: LONG_MS },
  );
  used.catch(() => {});
  await holds;
  const waits = elsewhere
    .call("lease.acquire", { name: NAME, owner: OWNER, waitMs: 60_000 })
    .then(() => order.push("granted"));
  expect(await daemon.end()).toBe(0);
  await waits;
  expect(order).toEqual(["told", "granted"]);
  await expect(used).rejects.toMatchObject({ kind: "lease_lost" });
});
