// Names whose leases are kept elsewhere than before, and what a daemon that ends in order still owes.
// Not over shared names: a provider keeps these names.
import { expect, test } from "vitest";
import type { AtEnd } from "../daemon.js";
import { Faulty } from "../faulty.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";

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
  await until(async () => (await client.call("lease.get", { name: NAME })).lease?.waiters === 1);
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
  const breaking = { method: "lease.break", params: { name: NAME, reason: "moved" } };
  const { data } = await client.refusal("transact", { calls: [NEXT, breaking] });
  expect(data).toMatchObject({ kind: "invalid_params", issues: [{ path: "/calls/1/method" }] });
  expect(faulty.calls).not.toContain("break -");
  expect(await client.call("lease.break", { name: NAME, reason: "moved" })).toEqual({ broken: true });
  expect(faulty.calls.at(-1)).toBe("break -");
  // No provider has to be asked any more.
  const { results } = await client.call("transact", { calls: [breaking] });
  expect(results).toEqual([{ broken: false }]);
  const next = await client.call("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 1000 });
  expect(next.lease.fencingToken).toBeGreaterThan(lease.fencingToken);
  expect(next.lease.remainingMs).toBe(1000);
});

/** A daemon over which a lease has ended that its provider did not hear of, and a connection to another daemon. */
async function ended(faulty: Faulty) {
  const place = faulty.place();
  const [daemon, other] = await Promise.all([place.start({ args: faulty.args }), faulty.start()]);
  const elsewhere = await other.place.connect();
  const request = { name: NAME, owner: OWNER, ttlMs: LONG_MS, releaseOn: "disconnect" } as const;
  const holder = await place.connect();
  await holder.call("lease.acquire", request);
  faulty.fault = "hang release";
  await holder.destroy();
  await until(() => faulty.calls.includes("release hang"));
  return { place, daemon, elsewhere, request };
}

test.concurrent("a daemon that stops gives back what has ended", async ({ onTestFinished: atEnd }) => {
  const faulty = new Faulty(atEnd);
  const { daemon, elsewhere, request } = await ended(faulty);
  faulty.fault = undefined;
  expect(await daemon.end()).toBe(0);
  // The daemon is not there any more, so it is known now or never.
  await elsewhere.call("lease.acquire", request);
});

test.concurrent("a provider that hangs keeps no daemon from ending, and is told by the next one", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const { place, daemon, elsewhere, request } = await ended(faulty);
  expect(await daemon.end()).toBe(0);
  faulty.fault = undefined;
  expect((await elsewhere.refusal("lease.acquire", request)).data.kind).toBe("lease_held");
  await place.start({ args: faulty.args });
  await elsewhere.call("lease.acquire", { ...request, waitMs: 60_000 });
});
