// A claim at a checkpoint waits behind a head that is only for the end of a turn, and is served once that head is gone.
import type { Params } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";

/** Longer than any test: a wait that ends by itself would fail it. */
const WAIT_MS = 600_000;

/** A gating head, a batch behind it, and a claim at a checkpoint that waits for that. */
async function waitBehind(daemon: DaemonProcess, queue: string) {
  const client = await daemon.place.connect();
  const gate = await client.call("queue.enqueue", {
    queue,
    payloads: ["gate"],
    sourceKey: "gate",
    deliveryPolicy: "after_current_turn_commit",
  });
  await client.call("queue.enqueue", { queue, payloads: ["behind"] });
  const waiter = await daemon.place.connect();
  const served = waiter.call("queue.claim", {
    queue,
    owner: "at a checkpoint",
    boundary: "active_turn_checkpoint",
    waitMs: WAIT_MS,
  });
  // One connection's requests take effect in order, so the wait has begun when this is answered.
  await waiter.call("daemon.ping", {});
  return { client, gate: gate.batch, served };
}

function replacing(queue: string, delayMs: number): Params<"queue.enqueue"> {
  return { queue, payloads: ["other"], sourceKey: "gate", onExisting: "replace", delayMs };
}

async function expectBehind(served: Promise<{ claim: { batches: { payloads: unknown[] }[] } | null }>) {
  expect((await served).claim?.batches.map(({ payloads }) => payloads)).toEqual([["behind"]]);
}

describe("a claim that waits at a checkpoint is served when the head before it", () => {
  const cases: Record<string, (client: RawClient, queue: string, batchId: string) => Promise<unknown>> = {
    "is claimed": (client, queue) => client.call("queue.claim", { queue, owner: "idle" }),
    "is cancelled": (client, _queue, batchId) => client.call("queue.cancel", { batchId }),
    "is cancelled in a transaction": (client, _queue, batchId) =>
      client.call("transact", { calls: [{ method: "queue.cancel", params: { batchId } }] }),
    "is removed": (client, _queue, batchId) => client.call("queue.purge", { batchIds: [batchId] }),
    "is moved elsewhere": (client, _queue, batchId) =>
      client.call("queue.move", { batchIds: [batchId], to: "elsewhere" }),
    "is replaced by one for later": (client, queue) =>
      client.call("queue.enqueue", replacing(queue, WAIT_MS)),
    "is replaced by one that waits for another": async (client, queue) => {
      const { batch } = await client.call("queue.enqueue", { queue: "elsewhere", payloads: [1] });
      await client.call("queue.enqueue", { ...replacing(queue, 0), after: [batch.batchId] });
    },
  };
  for (const [name, act] of Object.entries(cases)) {
    test(name, async () => {
      const daemon = await startDaemon();
      const { client, gate, served } = await waitBehind(daemon, "q");
      await act(client, "q", gate.batchId);
      await expectBehind(served);
    });
  }
});
