// Waits that the client library and pawl end, by rpc.cancel.
import { setImmediate as nextLoop } from "node:timers/promises";
import { connect, type PawlClient } from "@pawl/client";
import type { MethodName } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { sharedDaemon } from "../daemon.js";
import { until } from "../until.js";
import { startPawl } from "./cli-program.js";

const daemon = sharedDaemon();
const WAIT_MS = 3_600_000;
const REASON = new Error("not wanted any more");

async function client(): Promise<PawlClient> {
  const pawl = await connect({ socket: daemon().place.socket });
  onTestFinished(() => pawl.close());
  return pawl;
}

/** How many claims wait for a queue. */
async function waiting(pawl: PawlClient, queue: string): Promise<number | null> {
  return (await pawl.queue.explain({ queue })).waiting;
}

describe("a signal", () => {
  test.each<[MethodName, object]>([
    ["queue.claim", { queue: "signal", owner: "test" }],
    ["command.lease", { deployment: "signal", owner: "test" }],
    ["lease.acquire", { name: "signal", owner: "test" }],
  ])("that is aborted ends the wait of %s", async (method, params) => {
    const [pawl, other] = await Promise.all([client(), client()]);
    const { lease } = await other.lease.acquire({ name: "signal", owner: "holder" });
    const controller = new AbortController();
    const call = pawl.call(method, { ...params, waitMs: WAIT_MS } as Record<string, unknown>, {
      signal: controller.signal,
    });
    await pawl.daemon.ping({});
    expect((await other.daemon.stats({})).connections.waiting).toBe(1);
    controller.abort(REASON);
    await expect(call).rejects.toBe(REASON);
    // The cancel is performed before what is sent after it.
    await pawl.daemon.ping({});
    expect((await other.daemon.stats({})).connections.waiting).toBe(0);
    await other.lease.release({ leaseId: lease.leaseId });
  });

  test("that ends the wait alone is answered by the daemon: cancelled, or with what was granted before", async () => {
    const [pawl, other] = await Promise.all([client(), client()]);
    const held = await other.lease.acquire({ name: "end-wait", owner: "holder" });
    const [first, second] = [new AbortController(), new AbortController()];
    const ask = (endWait: AbortSignal) =>
      pawl.call("lease.acquire", { name: "end-wait", owner: "test", waitMs: WAIT_MS }, { endWait });
    const waits = ask(first.signal);
    await pawl.daemon.ping({});
    first.abort(REASON);
    await expect(waits).rejects.toMatchObject({ kind: "cancelled" });
    const granted = ask(second.signal);
    await pawl.daemon.ping({});
    await other.lease.release({ leaseId: held.lease.leaseId });
    second.abort(REASON);
    const { lease } = await granted;
    expect(await pawl.lease.release({ leaseId: lease.leaseId })).toEqual({ released: true });
  });

  test("gives back what was granted before, whichever comes first", async () => {
    const [pawl, other] = await Promise.all([client(), client()]);
    const queue = "signal-race";
    for (let round = 0; round < 100; round++) {
      const controller = new AbortController();
      const call = pawl.queue.claim({ queue, owner: "test", waitMs: WAIT_MS }, { signal: controller.signal });
      const outcome = call.then(
        ({ claim }) => claim,
        () => null,
      );
      const { batch } = await other.queue.enqueue({ queue, payloads: [round] });
      if (round % 2 === 1) await nextLoop();
      controller.abort(REASON);
      const mine = await outcome;
      // Whoever waits gets the batch, uncounted, unless the call had its answer before it was given up.
      const claim = mine ?? (await other.queue.claim({ queue, owner: "other", waitMs: WAIT_MS })).claim;
      expect(claim?.batches).toMatchObject([{ batchId: batch.batchId, attempt: 0 }]);
      const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
      await other.queue.complete({ claimId, leaseToken });
    }
    await pawl.daemon.ping({});
    expect((await other.queue.stats({ queue })).queues).toMatchObject([{ claimed: 0, completed: 100 }]);
  });
});

/** Resolves once what was called is written, and before any answer can be read. */
const written = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));

describe("a call that is given up after it was sent", () => {
  test("gives back the item that it was granted", async () => {
    const [pawl, other] = await Promise.all([client(), client()]);
    const storyId = "GIVEN-UP";
    await pawl.pipeline.write({ storyId, stage: "1_backlog" });
    const controller = new AbortController();
    const call = pawl.call("pipeline.claim", { storyId, agent: "test" }, { signal: controller.signal });
    await written();
    controller.abort(REASON);
    await expect(call).rejects.toBe(REASON);
    const { lease } = await other.pipeline.claim({ storyId, agent: "other", waitMs: 20_000 });
    // Its token says that the item was granted before, to the call that was given up.
    expect(lease?.fencingToken).toBe(2);
    expect((await other.pipeline.read({ storyId })).item).toMatchObject({ retryCount: 0, agent: "other" });
  });

  test("gives back the paths that it was granted, but not what they were added to", async () => {
    const [pawl, other] = await Promise.all([client(), client()]);
    const asked = { root: "/given-up", patterns: ["a"], owner: "test" };
    const givingUp = async (params: Record<string, unknown>): Promise<void> => {
      const controller = new AbortController();
      const call = pawl.call("path.reserve", params, { signal: controller.signal });
      await written();
      controller.abort(REASON);
      await expect(call).rejects.toBe(REASON);
    };
    await givingUp(asked);
    const { reservation } = await other.path.reserve({ ...asked, owner: "other", waitMs: 20_000 });
    expect(reservation.fencingToken).toBe(2);
    const mine = await pawl.path.reserve({ ...asked, patterns: ["b"] });
    await givingUp({ ...asked, patterns: ["c"], reservationId: mine.reservation.reservationId });
    // What it would give back comes behind this.
    for (let times = 0; times < 2; times++) await pawl.daemon.ping({});
    const { reservations } = await other.path.list({ root: asked.root, owner: "test" });
    expect(reservations).toMatchObject([{ patterns: ["b", "c"] }]);
  });
});

describe("Ctrl-C", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("(%s) ends a pawl that waits, and its wait", async (signal) => {
    const pawl = await client();
    const queue = `interrupted-${signal}`;
    const waits = startPawl(["claim", queue, "--wait", "1h"], { socket: daemon().place.socket });
    await until(async () => (await waiting(pawl, queue)) === 1);
    const { code, stdout, stderr } = await waits.end(signal);
    expect({ code, stdout, stderr }).toEqual({ code: signal, stdout: "", stderr: "" });
    await until(async () => (await waiting(pawl, queue)) === 0);
    const { batch } = await pawl.queue.enqueue({ queue, payloads: [1] });
    expect(await pawl.queue.get({ batchId: batch.batchId })).toMatchObject({ batch: { state: "ready" } });
  });
});
