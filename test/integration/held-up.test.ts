// A daemon that was stopped and goes on reads what was sent meanwhile before it ends anything (spec: wire.md, Time).
import { expect, onTestFinished, test } from "vitest";
import { NAMES_ARE_SHARED, startDaemon } from "../daemon.js";

const LEASE_MS = 2000;
/** Of the lease, the part after which it is renewed. */
const RENEWED_AFTER_MS = 700;
const STOPPED_MS = 3300;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

// While a daemon is held up, others may end and be granted what is shared.
test.skipIf(NAMES_ARE_SHARED)(
  "a renewal that was sent in time counts, what nobody renewed ends, and its waiter gets it",
  async () => {
    const daemon = await startDaemon();
    const { place } = daemon;
    const [holder, worker, waiter] = await Promise.all([place.connect(), place.connect(), place.connect()]);
    await holder.call("queue.enqueue", { queue: "q", payloads: [1] });
    const renewed = await holder.call("lease.acquire", { name: "renewed", owner: "a", ttlMs: LEASE_MS });
    const dropped = await holder.call("lease.acquire", { name: "dropped", owner: "a", ttlMs: LEASE_MS });
    const { claim } = await worker.call("queue.claim", { queue: "q", owner: "a", leaseMs: LEASE_MS });
    const { now } = await worker.call("daemon.ping", {});
    const deadline = now + LEASE_MS;
    const { commandId } = await worker.call("command.create", { deployment: "d", command: "c", deadline });
    const [delivery] = (
      await worker.call("command.lease", { deployment: "d", owner: "a", leaseMs: LEASE_MS })
    ).leases;
    const [, next] = ["renewed", "dropped"].map((name) => {
      const got = waiter.call("lease.acquire", { name, owner: "b", waitMs: LEASE_MS + STOPPED_MS + 60_000 });
      // The one that is not granted waits until the test ends.
      got.catch(() => {});
      return got;
    });
    await waiter.call("daemon.ping", {});

    daemon.child.kill("SIGSTOP");
    onTestFinished(() => void daemon.child.kill("SIGCONT"));
    await pause(RENEWED_AFTER_MS);
    const { leaseId } = renewed.lease;
    const lease = holder.call("lease.heartbeat", { leaseId, ttlMs: 60_000 });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    const batch = worker.call("queue.renew", { claimId, leaseToken, leaseMs: 60_000 });
    const response = { status: "success", response: 1 } as const;
    const answer = worker.call("command.respond", {
      commandId,
      leaseId: delivery?.leaseId as string,
      response,
    });
    await pause(STOPPED_MS - RENEWED_AFTER_MS);
    daemon.child.kill("SIGCONT");

    expect((await lease).remainingMs).toBeGreaterThan(LEASE_MS);
    expect((await batch).remainingMs).toBeGreaterThan(LEASE_MS);
    expect(await answer).toEqual({ accepted: true, state: "SUCCEEDED" });
    const got = await next;
    expect(got?.lease.name).toBe("dropped");
    expect(got?.lease.fencingToken).toBeGreaterThan(dropped.lease.fencingToken);
    expect((await holder.call("lease.get", { name: "renewed" })).lease).toMatchObject({ owner: "a" });
    await holder.call("queue.complete", { claimId, leaseToken });
  },
);
