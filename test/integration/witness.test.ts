// An older copy of the database is known by its witness (spec: operations.md, Faults from outside).
// Not over shared names: it is about the daemon's own database.
import { copyFileSync, cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AtEnd, Place, privateDirectory } from "../daemon.js";
import { refusedStart } from "../refusal.js";

const databaseOf = ({ stateDir }: Place): string => join(stateDir, "pawl.db");
const witnessOf = ({ stateDir }: Place): string => join(stateDir, "pawl.witness");
const warnings = (log: readonly { level: string; msg: string }[]): string[] =>
  log.filter(({ level }) => level === "warn").map(({ msg }) => msg);

/** A place where a daemon gave numbers of FR and stopped. */
async function used(numbers: number, atEnd?: AtEnd): Promise<Place> {
  const place = new Place(undefined, atEnd);
  const daemon = await place.start();
  for (let number = 1; number <= numbers; number += 1) expect(await place.next()).toBe(number);
  await daemon.end();
  expect(warnings(daemon.log)).toEqual([]);
  return place;
}

async function more(place: Place, signal: NodeJS.Signals): Promise<number> {
  const daemon = await place.start();
  expect(warnings(daemon.log)).toEqual([]);
  const number = await place.next();
  await daemon.end(signal);
  return number;
}

const REFUSED: readonly [string, (place: Place) => Promise<void>][] = [
  [
    "a copy from before the last stop",
    async (place) => {
      copyFileSync(databaseOf(place), `${databaseOf(place)}.copy`);
      await more(place, "SIGTERM");
      copyFileSync(`${databaseOf(place)}.copy`, databaseOf(place));
    },
  ],
  [
    "a copy of before the start of one that was killed",
    async (place) => {
      copyFileSync(databaseOf(place), `${databaseOf(place)}.copy`);
      await more(place, "SIGKILL");
      rmSync(`${databaseOf(place)}-wal`);
      copyFileSync(`${databaseOf(place)}.copy`, databaseOf(place));
    },
  ],
  [
    "a write-ahead log that was removed",
    async (place) => {
      await more(place, "SIGKILL");
      rmSync(`${databaseOf(place)}-wal`);
    },
  ],
  [
    "a write-ahead log that was emptied",
    async (place) => {
      await more(place, "SIGKILL");
      truncateSync(`${databaseOf(place)}-wal`);
    },
  ],
  ["a database that was removed", async (place) => rmSync(databaseOf(place))],
  ["a database that was emptied", async (place) => truncateSync(databaseOf(place))],
  ["another database", async (place) => renameSync(databaseOf(await used(9)), databaseOf(place))],
];

describe("instead of the database", () => {
  let origin: string;
  const atEnd: (() => void | Promise<void>)[] = [];
  beforeAll(async () => {
    origin = join(
      privateDirectory((action) => void atEnd.push(action)),
      "state",
    );
    const { stateDir } = await used(3, (action) => void atEnd.push(action));
    renameSync(stateDir, origin);
  });
  afterAll(async () => {
    for (const action of atEnd.reverse()) await action();
  });

  test.each(REFUSED)("%s is refused, and accepted goes on above all that was given", async (_, damage) => {
    const place = new Place();
    cpSync(origin, place.stateDir, { recursive: true });
    await damage(place);
    const message = await refusedStart(place.spawn());
    expect(message).toContain("is an older copy of itself");
    expect(message).toMatch(/its witness was written, at 20\d\d-\d\d-\d\dT/);
    expect(message).toContain("--accept-restore");
    const accepted = await place.start({ args: ["--accept-restore"] });
    const number = await place.next();
    expect(number).toBeGreaterThan(5);
    expect(warnings(accepted.log)).toContain(
      "the database is an older copy of itself; it goes on above all that was given",
    );
    await accepted.end();
    // Once accepted, everything is as ever.
    expect(await more(place, "SIGKILL")).toBe(number + 1);
    expect(await more(place, "SIGTERM")).toBe(number + 2);
  });
});

test("both points in time are named", async () => {
  const place = await used(1);
  copyFileSync(databaseOf(place), `${databaseOf(place)}.copy`);
  await more(place, "SIGTERM");
  copyFileSync(`${databaseOf(place)}.copy`, databaseOf(place));
  const message = await refusedStart(place.spawn());
  const [copy, witness] = [...message.matchAll(/20\d\d-\d\d-\d\dT[\d:.]+Z/g)].map(([time]) =>
    Date.parse(time),
  );
  expect(copy).toBeLessThan(witness as number);
  expect(message).toContain("the last number of FR was 2, and is 1");
});

test("what a restored copy granted is void, and tokens go on above those of after the copy", async () => {
  const place = new Place();
  const first = await place.start();
  const before = await place.connect();
  await before.call("queue.enqueue", { queue: "q", payloads: [1] });
  await before.call("queue.enqueue", { queue: "q", payloads: [2] });
  const { claim } = (await before.call("queue.claim", { queue: "q", owner: "a", leaseMs: 60_000 })) as {
    claim: { claimId: string; leaseToken: string; fencingToken: number };
  };
  const { lease } = await before.call("lease.acquire", { name: "x", owner: "a", ttlMs: 60_000 });
  await first.end();
  copyFileSync(databaseOf(place), `${databaseOf(place)}.copy`);

  const second = await place.start();
  const after = await place.connect();
  await after.call("lease.release", { leaseId: lease.leaseId });
  const later = (await after.call("lease.acquire", { name: "x", owner: "b" })).lease;
  await after.call("lease.acquire", { name: "y", owner: "b" });
  const enqueued = await after.call("queue.enqueue", { queue: "q", payloads: [3] });
  await second.end();
  copyFileSync(`${databaseOf(place)}.copy`, databaseOf(place));

  await place.start({ args: ["--accept-restore"] });
  const client = await place.connect();
  const { claimId, leaseToken } = claim;
  expect((await client.refusal("queue.complete", { claimId, leaseToken })).data.kind).toBe("claim_lost");
  expect((await client.refusal("lease.heartbeat", { leaseId: lease.leaseId })).data.kind).toBe("lease_lost");
  await client.call("lease.break", { name: "x", reason: "restored" });
  for (const name of ["x", "y", "new"]) {
    const granted = (await client.call("lease.acquire", { name, owner: "c" })).lease;
    expect(granted.fencingToken).toBeGreaterThan(later.fencingToken);
  }
  const again = await client.call("queue.enqueue", { queue: "q", payloads: [4] });
  expect(again.batch.enqueueSeq).toBeGreaterThan(enqueued.batch.enqueueSeq);
  const next = (await client.call("queue.claim", {
    queue: "q",
    owner: "c",
    leaseMs: 60_000,
  })) as typeof claim extends infer C ? { claim: C } : never;
  expect(next.claim.fencingToken).toBeGreaterThan(claim.fencingToken);
});

describe("a warning, and made anew", () => {
  test.each<[string, string, (place: Place) => Promise<void>]>([
    [
      "missing",
      "the witness of the database is missing; it is made anew",
      async (place) => rmSync(witnessOf(place)),
    ],
    [
      "unreadable",
      "the witness of the database is unreadable; it is made anew",
      async (place) => writeFileSync(witnessOf(place), "spoilt\nspoilt\n"),
    ],
    [
      "older than the database",
      "the witness is older than the database; it is made anew",
      async (place) => {
        const old = readFileSync(witnessOf(place));
        const daemon = await place.start();
        const client = await place.connect();
        await client.call("sequence.reserve", { type: "FR", count: 1_000_000 });
        await daemon.end();
        writeFileSync(witnessOf(place), old);
      },
    ],
  ])("%s", async (_, message, spoil) => {
    const place = await used(2);
    await spoil(place);
    const daemon = await place.start();
    await daemon.logged(({ msg }) => msg === message);
    const number = await place.next();
    await daemon.end();
    expect(await more(place, "SIGTERM")).toBe(number + 1);
  });
});

test("a bound is on disk before a number passes it, whenever the daemon is killed", async () => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  for (const count of [1, 150, 1000, 300_000]) {
    const { last } = await client.call("sequence.reserve", { type: "FR", count });
    expect(boundOf(place, "0/FR")).toBeGreaterThanOrEqual(last);
  }
  const { seq } = await client.call("sequence.advance", { type: "FR", to: 5_000_000 });
  expect(boundOf(place, "0/FR")).toBeGreaterThanOrEqual(seq);
  await daemon.end("SIGKILL");
  // A copy of the whole directory, witness included, is a database like any other.
  const copy = new Place();
  cpSync(place.stateDir, copy.stateDir, { recursive: true });
  await copy.start();
  expect(await copy.next()).toBe(5_000_001);
  expect(await more(place, "SIGTERM")).toBe(5_000_001);
});

test("what an undone turn asked for is no reason to refuse a start", async () => {
  const place = new Place();
  const daemon = await place.start();
  const client = await place.connect();
  const refused = await client.refusal("transact", {
    calls: [
      { method: "sequence.reserve", params: { type: "FR", count: 1_000_000 } },
      { method: "queue.retry", params: { batchId: "nosuch" } },
    ],
  });
  expect(refused.data.index).toBe(1);
  await daemon.end();
  expect(await more(place, "SIGTERM")).toBe(1);
});

function boundOf(place: Place, counter: string): number {
  const lines = readFileSync(witnessOf(place), "utf8").split("\n").slice(1, -1);
  const found = lines.map((line) => JSON.parse(line)).findLast((line) => line.counter === counter);
  return found.bound;
}
