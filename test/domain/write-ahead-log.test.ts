// The write-ahead log has blocks ahead of use: zeros, and frames of earlier rounds, must never come back as commits.
// Not over shared names: it is about the daemon's own database.
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import fc from "fast-check";
import { expect, onTestFinished, test, vi } from "vitest";
import { openDatabase } from "../../daemon/dist/store/open-database.js";
import { run, sql } from "../../daemon/dist/store/statement.js";
import { privateDirectory } from "../daemon.js";

const HEADER_BYTES = 32;
const FRAME_BYTES = 24 + 4096;
const MIB = 1024 * 1024;
const count = sql(
  "INSERT INTO pawl_meta (key, value) VALUES ('counted', :to) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
);
const large = sql("INSERT INTO pawl_meta (key, value) VALUES ('large', :text)");

/** A database whose one value is counted up, a commit for each number. */
function counted(path = join(privateDirectory(), "pawl.db")) {
  const database = openDatabase({ path });
  onTestFinished(() => database.close());
  const { store } = database;
  const commit = (statement: typeof count, params: Record<string, string>): void => {
    store.begin();
    store.perform(run(statement, params));
    store.commit();
  };
  return {
    path,
    database,
    to: (number: number) => commit(count, { to: String(number) }),
    /** Writes so much that the log is made longer, and waits for that. */
    async extend(): Promise<void> {
      commit(large, { text: "x".repeat(MIB) });
      await vi.waitFor(() => expect(database.sizes().walBytes).toBeGreaterThan(3 * MIB), { timeout: 10_000 });
    },
  };
}

/** Where the last frame ends, of the commits that another connection sees. */
function usedBytes(path: string): number {
  const database = new Database(path);
  const [{ log }] = database.pragma("wal_checkpoint(NOOP)") as [{ log: number }];
  database.close();
  return HEADER_BYTES + log * FRAME_BYTES;
}

/** The number that recovery finds in a database and a log as they lie on disk. */
function recovered(path: string): number {
  const database = new Database(path);
  try {
    expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
    return Number(database.prepare("SELECT value FROM pawl_meta WHERE key = 'counted'").pluck().get());
  } finally {
    database.close();
  }
}

test("the log is longer than what is in it, and keeps its length when its content has been moved", async () => {
  // The migrations write so much that the next commit would have the log made longer: they are not in this one.
  const path = join(privateDirectory(), "pawl.db");
  openDatabase({ path }).close();
  const { database, to, extend } = counted(path);
  to(1);
  expect(database.sizes().walBytes).toBe(usedBytes(path));
  await extend();
  const { walBytes } = database.sizes();
  expect(walBytes).toBeGreaterThanOrEqual(usedBytes(path) + 2 * MIB);
  database.begin();
  to(2);
  expect(usedBytes(path)).toBeLessThan(MIB);
  expect(database.sizes().walBytes).toBe(walBytes);
  database.end();
  expect(database.sizes().walBytes).toBe(0);
});

test("SQLite's locks outlast the lengthening: no other process gets at what this one has locked", async () => {
  const { path, database, extend } = counted();
  const locks = (): string[] => {
    const files = [path, `${path}-shm`].map((each) => `:${statSync(each).ino} `);
    const lines = readFileSync("/proc/locks", "utf8").split("\n");
    return lines
      .filter((line) => files.some((file) => line.includes(file)))
      .map((line) => line.slice(line.indexOf(" ")))
      .sort();
  };
  database.store.begin();
  const held = locks();
  expect(held.length).toBeGreaterThan(0);
  database.store.rollback();
  await extend();
  database.store.begin();
  expect(locks()).toEqual(held);
  database.store.rollback();
});

test("whatever follows the last whole commit on disk, zeros or frames of earlier rounds, none of it comes back", async () => {
  const { path, database, to, extend } = counted();
  await extend();
  for (let number = 1; number <= 60; number += 1) to(number);
  const former = readFileSync(`${path}-wal`);
  database.begin();
  const moved = join(privateDirectory(), "moved.db");
  copyFileSync(path, moved);
  /** Where each commit of the second round ends. */
  const ends: number[] = [];
  for (let number = 61; number <= 100; number += 1) {
    to(number);
    ends.push(usedBytes(path));
  }
  const present = readFileSync(`${path}-wal`);
  const end = ends.at(-1) as number;
  expect(end).toBeLessThan(former.length);

  const cut = fc.oneof(
    // The header of a round is on disk before any of its frames.
    fc.integer({ min: HEADER_BYTES, max: end }),
    fc.constantFrom(...ends).chain((each) => fc.integer({ min: -25, max: 25 }).map((by) => each + by)),
  );
  const tail = fc.constantFrom("zeros", "former", "former, then zeros", "nothing");
  fc.assert(
    fc.property(cut, tail, (at, kind) => {
      const rest = {
        zeros: Buffer.alloc(former.length - at),
        former: former.subarray(at),
        "former, then zeros": Buffer.concat([former.subarray(at, at + 50_000), Buffer.alloc(MIB)]),
        nothing: Buffer.alloc(0),
      }[kind];
      const log = Buffer.concat([present.subarray(0, at), rest]);
      // What follows may happen to be what was cut off.
      const isWhole = (end: number) => log.subarray(0, end).equals(present.subarray(0, end));
      expect(recoveredFrom(moved, log)).toBe(60 + ends.filter(isWhole).length);
    }),
    { numRuns: 60 },
  );
  expect(recoveredFrom(moved, former)).toBe(60);
});

/** The number that recovery finds in a copy of a database with this beside it as its log. */
function recoveredFrom(database: string, log: Buffer): number {
  const image = join(privateDirectory(), "image.db");
  copyFileSync(database, image);
  writeFileSync(`${image}-wal`, log);
  return recovered(image);
}

test("a process that is killed at any moment leaves all that it said was committed, over the same log", async () => {
  const path = join(privateDirectory(), "pawl.db");
  let said = 0;
  for (let round = 0; round < 4; round += 1) {
    const before = said;
    const child = countingProcess(path, said + 1);
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      said = Number(line);
      if (said === before + 150 + 100 * round) setTimeout(() => child.kill("SIGKILL"), 5 * Math.random());
    }
    // It may have been killed between a commit and its word.
    const found = recoveredFrom(path, readFileSync(`${path}-wal`));
    expect(found - said === 0 || found - said === 1).toBe(true);
    said = found;
  }
  expect(statSync(`${path}-wal`).size).toBeGreaterThan(3 * MIB);
});

/** Counts up from a number, says each that is committed, and has the log made longer meanwhile. */
function countingProcess(path: string, from: number): ChildProcess {
  const module = (name: string): string =>
    JSON.stringify(join(import.meta.dirname, "../../daemon/dist/store", name));
  const child = spawn(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `import { writeSync } from "node:fs";
       import { openDatabase } from ${module("open-database.js")};
       import { run, sql } from ${module("statement.js")};
       const { store, begin } = openDatabase({ path: ${JSON.stringify(path)} });
       const count = sql(${JSON.stringify(count.sql)});
       const large = sql(${JSON.stringify(large.sql.replace("'large'", "'large' || :at"))});
       begin();
       for (let number = ${from}; ; number += 1) {
         store.begin();
         store.perform(run(count, { to: String(number) }));
         if (number % 50 === 0) store.perform(run(large, { at: number, text: "x".repeat(200_000) }));
         store.commit();
         writeSync(1, number + "\\n");
         await new Promise((resolve) => setImmediate(resolve));
       }`,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  onTestFinished(() => void child.kill("SIGKILL"));
  return child;
}
