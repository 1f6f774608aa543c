// `--watch` of the commands that list: shown again after what happens, by events, until a signal ends it.
import { expect, test } from "vitest";
import { startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";
import { startPawl } from "./cli-program.js";

const lease = { owner: "w", ttlMs: 60_000 };

/** What is listed, what changes it, and what of the line then shows that. */
const LISTS: readonly [args: string[], change: (client: RawClient) => Promise<unknown>, shows: RegExp][] = [
  [
    ["queues"],
    (client) => client.call("queue.enqueue", { queue: "mail", payloads: [1] }),
    /"queue":"mail","ready":1/,
  ],
  [
    ["batches", "mail"],
    (client) => client.call("queue.enqueue", { queue: "mail", payloads: [1] }),
    /"batches":\[\{"batchId/,
  ],
  [
    ["dead", "mail"],
    async (client) => {
      await client.call("queue.enqueue", { queue: "mail", payloads: [1], maxAttempts: 1 });
      const { claim } = await client.call("queue.claim", { queue: "mail", owner: "w" });
      const { claimId = "", leaseToken = "" } = claim ?? {};
      await client.call("queue.abandon", { claimId, leaseToken, error: "no" });
    },
    /"state":"dead"/,
  ],
  [
    ["leases", "de"],
    (client) => client.call("lease.acquire", { name: "deploy", ...lease }),
    /"name":"deploy"/,
  ],
  [
    ["paths"],
    (client) => client.call("path.reserve", { root: "/srv", patterns: ["*.md"], mode: "write", ...lease }),
    /"root":"\/srv"/,
  ],
  [
    ["commands", "d"],
    (client) => client.call("command.create", { deployment: "d", command: "c", params: {} }),
    /"state":"PENDING"/,
  ],
  [
    ["schedule", "list"],
    (client) => client.call("schedule.set", { name: "s", queue: "q", payloads: [1], everyMs: 3_600_000 }),
    /"name":"s"/,
  ],
  [["state"], (client) => client.call("sequence.next", { type: "FR" }), /"FR":1/],
  [["board"], (client) => client.call("pipeline.write", { storyId: "S", stage: "todo" }), /"storyId":"S"/],
];

test.each(LISTS)("pawl %s --watch shows a change, and ends by a signal", async (args, change, shows) => {
  const { place } = await startDaemon();
  const client = await place.connect();
  const pawl = startPawl([...args, "--watch", "--json"], { socket: place.socket });
  await pawl.printed(/^\{.*\}\n/u);
  expect(pawl.stdout).not.toMatch(shows);
  await until(async () => (await client.call("daemon.stats", {})).connections.waiting !== 0);
  await change(client);
  await pawl.printed(shows);
  expect((await pawl.end("SIGTERM")).code).toBe("SIGTERM");
});

test("a list is shown again after a restart of the daemon, and not when something else happens", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const pawl = startPawl(["leases", "a/", "-w", "--json"], { socket: daemon.place.socket });
  await pawl.printed(/^\{.*\}\n/u);
  await until(async () => (await client.call("daemon.stats", {})).connections.waiting !== 0);
  await client.call("lease.acquire", { name: "b/1", ...lease });
  await client.call("sequence.next", { type: "FR" });
  await daemon.end("SIGKILL");
  await daemon.place.start();
  await pawl.printed(/^(?:\{"leases":\[\]\}\n){2}$/u);
  const again = await daemon.place.connect();
  await until(async () => (await again.call("daemon.stats", {})).connections.waiting !== 0);
  await again.call("lease.acquire", { name: "a/1", ...lease });
  await pawl.printed(/"name":"a\/1"/u);
  expect(pawl.stdout.trim().split("\n")).toHaveLength(3);
});
