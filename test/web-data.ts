// A node with something of everything, as a team might have it: for tests of the page and for its pictures.
import { setTimeout as delay } from "node:timers/promises";
import type { RawClient } from "./raw-client.js";

export interface Seeded {
  /** A batch that has failed for good. */
  readonly dead: string;
  /** A command that nobody has answered. */
  readonly command: string;
  /** Batches that come, are worked on and completed, for so long. */
  busy(forMs: number): Promise<void>;
}

const HOUR_MS = 3_600_000;

/** Fills a new daemon. What is held is held by the connection of this client, so it stays until that closes. */
export async function seed(client: RawClient): Promise<Seeded> {
  const mail = ["ada@example.org", "grace@example.org", "barbara@example.org", "edsger@example.org"];
  const letters = mail.flatMap((to) => [
    { to, subject: "Welcome" },
    { to, subject: "Your invoice", invoice: "INV-2041" },
  ]);
  await client.call("queue.enqueueMany", {
    batches: letters.map((letter) => ({ queue: "mail", payloads: [letter], maxAttempts: 1 })),
  });
  const { claim } = await client.call("queue.claim", { queue: "mail", owner: "mailer-1", maxBatches: 1 });
  if (claim === null) throw new Error("There was nothing to claim.");
  const { claimId, leaseToken } = claim;
  await client.call("queue.abandon", { claimId, leaseToken, error: "SMTP 550: no such mailbox", dead: true });
  const thumbnails = Array.from({ length: 42 }, (_, n) => ({
    queue: "thumbnails",
    payloads: [{ image: `s3://photos/2026/${1000 + n}.jpg`, width: 320 }],
  }));
  await client.call("queue.enqueueMany", { batches: thumbnails });
  const work = await client.call("queue.claim", {
    queue: "thumbnails",
    owner: "resizer-2",
    leaseMs: HOUR_MS,
  });
  if (work.claim !== null) {
    await client.call("queue.progress", {
      claimId: work.claim.claimId,
      leaseToken: work.claim.leaseToken,
      percent: 65,
      note: "resampling",
    });
  }
  await client.call("queue.enqueueMany", {
    batches: [
      { queue: "reports", payloads: [{ month: "2026-10" }], delayMs: 2 * HOUR_MS },
      { queue: "reports", payloads: [{ month: "2026-11" }], delayMs: 5 * HOUR_MS },
      { queue: "search-index", payloads: [{ documents: [1, 2, 3] }] },
      { queue: "search-index", payloads: [{ documents: [4, 5] }] },
    ],
  });
  await client.call("queue.configure", {
    queue: "search-index",
    paused: true,
    reason: "the index moves to other disks",
  });
  await client.call("schedule.set", {
    name: "monthly-report",
    queue: "reports",
    payloads: [{ kind: "monthly" }],
    cron: "0 3 1 * *",
    timeZone: "Europe/Berlin",
  });
  await client.call("schedule.set", {
    name: "clean-up",
    queue: "clean-up",
    payloads: [{}],
    everyMs: HOUR_MS,
  });
  await client.call("deployment.set", { deployment: "shop", model: "pull", projectId: "retail" });
  const { commandId: done } = await client.call("command.create", {
    deployment: "shop",
    command: "restart",
    params: { service: "cart" },
  });
  const { leases } = await client.call("command.lease", { deployment: "shop", owner: "shop-1" });
  for (const { leaseId, commandId } of leases) {
    const response = { status: "success", response: { tookMs: 840 } } as const;
    await client.call("command.respond", { commandId, leaseId, response });
  }
  const { commandId: command } = await client.call("command.create", {
    deployment: "shop",
    command: "rotate-keys",
    params: { keep: 2, after: done },
  });
  const deploy = { name: "deploy/shop", ttlMs: HOUR_MS } as const;
  await client.call("lease.acquire", { ...deploy, owner: "ci-412", task: "ci-412", note: "release 3.8.0" });
  const database = { name: "staging-db", ttlMs: HOUR_MS } as const;
  await client.call("lease.acquire", {
    ...database,
    owner: "ci-413",
    task: "ci-413",
    note: "a copy of orders",
  });
  for (const owner of ["ci-413", "ci-414"]) {
    client.send({
      jsonrpc: "2.0",
      id: owner,
      method: "lease.acquire",
      params: { ...deploy, owner, task: owner, waitMs: HOUR_MS },
    });
  }
  const migration = { ...database, owner: "migration", task: "migration", waitMs: HOUR_MS };
  client.send({ jsonrpc: "2.0", id: "migration", method: "lease.acquire", params: migration });
  const gpu = { name: "gpu/0", ttlMs: HOUR_MS } as const;
  await client.call("lease.acquire", {
    ...gpu,
    owner: "ci-412",
    task: "ci-412",
    note: "renders the pictures",
  });
  const trainer = { ...gpu, owner: "trainer", task: "trainer", waitMs: HOUR_MS };
  client.send({ jsonrpc: "2.0", id: "trainer", method: "lease.acquire", params: trainer });
  await client.call("path.reserve", {
    root: "/srv/shop",
    owner: "agent-cart",
    patterns: ["src/cart/", "test/cart-*.ts"],
    ttlMs: HOUR_MS,
    note: "the cart's totals",
  });
  await client.call("path.reserve", {
    root: "/srv/shop",
    owner: "agent-docs",
    patterns: ["docs/"],
    mode: "read",
    ttlMs: HOUR_MS,
  });
  const items = [
    ["1_backlog", "Export orders as CSV"],
    ["1_backlog", "Remember the last search"],
    ["1_backlog", "Drop the old address form"],
    ["2_current", "Totals with several currencies"],
    ["2_current", "Sign in with a passkey"],
    ["3_qa", "Faster first page"],
    ["4_merge", "Refunds in parts"],
    ["5_done", "Dark colours"],
    ["5_done", "Invoices by mail"],
  ] as const;
  for (const [stage, name] of items) {
    const { id: storyId } = await client.call("sequence.next", { type: "FR" });
    await client.call("pipeline.write", {
      storyId,
      stage,
      name,
      ...(stage === "2_current" ? { agent: storyId === "FR-004" ? "agent-cart" : "agent-login" } : {}),
      ...(storyId === "FR-003" ? { dependsOn: ["FR-005"] } : {}),
      ...(storyId === "FR-006" ? { blocked: true, retryCount: 2 } : {}),
    });
  }
  await client.call("sequence.reserve", { type: "INV", count: 2041 });
  const dead = claim.batches[0]?.batchId as string;
  return { dead, command, busy: (forMs) => busy(client, forMs) };
}

async function busy(client: RawClient, forMs: number): Promise<void> {
  const end = performance.now() + forMs;
  for (let turn = 0; performance.now() < end; turn += 1) {
    const most = 3 + Math.round(2 * Math.sin(turn / 40));
    await client.call("queue.enqueueMany", {
      batches: Array.from({ length: most }, (_, n) => ({ queue: "thumbnails", payloads: [{ turn, n }] })),
    });
    for (let done = 0; done < most; done += 1) {
      const { claim } = await client.call("queue.claim", { queue: "thumbnails", owner: "resizer-1" });
      if (claim === null) break;
      await client.call("queue.complete", { claimId: claim.claimId, leaseToken: claim.leaseToken });
    }
    await delay(50);
  }
}
