// The time for a claim or lease that ends with its connection to be renewed after a restart (spec: queue.md, Rules).
import { expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place } from "../daemon.js";

const GRACE_MS = 5000;
const LONG_MS = 60_000;
/** Shorter than the grace. */
const SHORT_MS = 4500;
const CLOCKS_APART_MS = 50;

test("each restart begins it anew, and it never outlives what was granted", async () => {
  const place = new Place();
  let daemon = await place.start();
  let client = await place.connect();
  const bound = { owner: "bound", releaseOn: "disconnect" } as const;
  const claim = async (leaseMs: number) => {
    await client.call("queue.enqueue", { queue: "q", payloads: [leaseMs] });
    const granted = (await client.call("queue.claim", { queue: "q", leaseMs, ...bound })).claim;
    const batchId = granted?.batches[0]?.batchId as string;
    return async () => (await client.call("queue.get", { batchId })).batch.claim?.expiresAt;
  };
  const lease = async (ttlMs: number) => {
    const { name } = (await client.call("lease.acquire", { name: `lease of ${ttlMs} ms`, ttlMs, ...bound }))
      .lease;
    return async () => (await client.call("lease.get", { name })).lease?.expiresAt;
  };
  const delivery = async (leaseMs: number) => {
    const { commandId } = await client.call("command.create", { deployment: "d", command: "c" });
    await client.call("command.lease", { deployment: "d", leaseMs, ...bound });
    return async () => (await client.call("command.get", { commandId })).lease?.expiresAt;
  };
  const ends = [];
  for (const grant of [claim, lease, delivery]) {
    const [long, short] = [await grant(LONG_MS), await grant(SHORT_MS)];
    ends.push({ long, short, shortEnd: await short(), seen: [] as number[] });
  }

  for (let restart = 0; restart < 3; restart += 1) {
    await daemon.end("SIGKILL");
    daemon = await place.start();
    client = await place.connect();
    for (const { long, short, shortEnd, seen } of ends) {
      seen.push((await long()) as number);
      const end = await short();
      const { now } = await client.call("daemon.ping", {});
      expect(seen.at(-1)).toBeLessThanOrEqual(now + GRACE_MS);
      // On a slow machine it has ended meanwhile; of a shared name that is written some milliseconds later.
      if ((end === undefined || NAMES_ARE_SHARED) && now >= (shortEnd as number)) continue;
      // Shown by the wall clock, which each life reads beside the elapsed time, some milliseconds apart.
      expect(Math.abs((end as number) - (shortEnd as number))).toBeLessThan(CLOCKS_APART_MS);
    }
  }
  for (const { seen } of ends) expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
});
