// The database's files are moved, removed or replaced under the daemon (spec: operations.md, Faults from outside).
// Not over shared names: it is about the daemon's own database.
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, Place, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

const databaseOf = ({ stateDir }: Place): string => join(stateDir, "pawl.db");

/** A daemon whose database has numbers 1 to 3 in its file, and 4 in its log. */
async function used(): Promise<{ daemon: DaemonProcess; client: RawClient }> {
  const place = new Place();
  const first = await place.start();
  for (let number = 1; number <= 3; number += 1) expect(await place.next()).toBe(number);
  await first.end();
  const daemon = await place.start();
  const client = await place.connect();
  await client.call("sequence.next", { type: "FR" });
  return { daemon, client };
}

/** Checks that a write is refused and that the daemon says why it ends. */
async function expectTheEnd(daemon: DaemonProcess, client: RawClient, name: string): Promise<void> {
  const refused = await client.refusal("sequence.next", { type: "FR" }).catch(() => undefined);
  // The daemon may have found out by itself before, and closed the connection.
  if (refused !== undefined) expect(expectRefusal(refused, "unavailable").data.reason).toBe("storage_failed");
  expect(await daemon.exited).toBe(1);
  expect(daemon.log.find(({ level }) => level === "fatal")).toMatchObject({
    err: { message: expect.stringContaining(`${name} was moved, removed or replaced`) },
  });
}

const WAYS: readonly [string, string, (place: Place) => void][] = [
  [
    "the directory is moved, and another put in its place",
    "pawl.db",
    (place) => {
      renameSync(place.stateDir, `${place.stateDir}.old`);
      mkdirSync(place.stateDir, { mode: 0o700 });
      copyFileSync(join(`${place.stateDir}.old`, "pawl.db"), databaseOf(place));
    },
  ],
  ["the database is removed", "pawl.db", (place) => rmSync(databaseOf(place))],
  [
    "the database is replaced",
    "pawl.db",
    (place) => {
      copyFileSync(databaseOf(place), `${databaseOf(place)}.copy`);
      renameSync(`${databaseOf(place)}.copy`, databaseOf(place));
    },
  ],
  ["the log is removed", "pawl.db-wal", (place) => rmSync(`${databaseOf(place)}-wal`)],
  ["the index of the log is removed", "pawl.db-shm", (place) => rmSync(`${databaseOf(place)}-shm`)],
  [
    "the directory is removed with all in it",
    "pawl.db",
    (place) => rmSync(place.stateDir, { recursive: true }),
  ],
];

describe.each(WAYS)("%s", (_, name, move) => {
  test("the next write is refused, and the daemon ends", async () => {
    const { daemon, client } = await used();
    move(daemon.place);
    await expectTheEnd(daemon, client, name);
  });
});

test("a daemon that nobody asks ends too, and so does one that only reads", async () => {
  const { daemon } = await used();
  const reader = new Place();
  const reading = reader.spawn({ args: ["--read-only", "--state-dir", daemon.place.stateDir] });
  await reading.listening;
  const movedAt = Date.now();
  renameSync(databaseOf(daemon.place), `${databaseOf(daemon.place)}.old`);
  const ended = await Promise.all(
    [daemon, reading].map(async ({ exited, log }) => {
      expect(await exited).toBe(1);
      return Number(log.find(({ level }) => level === "fatal")?.time);
    }),
  );
  for (const at of ended) expect(at - movedAt).toBeLessThan(1000);
});

test("one that ends leaves the files of the one that has taken its place alone", async () => {
  const { daemon } = await used();
  const { place } = daemon;
  // Stopped, as by a busy machine: it finds out only after the other has begun.
  daemon.child.kill("SIGSTOP");
  renameSync(place.stateDir, `${place.stateDir}.old`);
  mkdirSync(place.stateDir, { mode: 0o700 });
  copyFileSync(join(`${place.stateDir}.old`, "pawl.db"), databaseOf(place));
  const other = new Place();
  const second = other.spawn({ args: ["--state-dir", place.stateDir] });
  await second.listening;
  expect(await other.next()).toBe(4);
  daemon.child.kill("SIGCONT");
  expect(await daemon.exited).toBe(1);
  expect(readdirSync(place.stateDir)).toContain("pawl.db-wal");
  expect(await other.next()).toBe(5);
});

test("a stop after it has happened touches nothing that has taken their place", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  await place.next();
  daemon.child.kill("SIGSTOP");
  renameSync(place.stateDir, `${place.stateDir}.old`);
  mkdirSync(place.stateDir, { mode: 0o700 });
  const other = new Place();
  const second = other.spawn({ args: ["--state-dir", place.stateDir] });
  await second.listening;
  expect(await other.next()).toBe(1);
  daemon.child.kill("SIGTERM");
  daemon.child.kill("SIGCONT");
  await daemon.exited;
  expect(readdirSync(place.stateDir)).toContain("pawl.db-wal");
  expect(readdirSync(place.stateDir)).toContain("pawl.holder");
  expect(await other.next()).toBe(2);
});
