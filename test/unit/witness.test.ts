// What the witness of a database with very many counters writes down, and that nobody waits for all of it.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { type Counter, readWitness, type Testimony, Witness } from "../../daemon/dist/store/witness.js";
import { privateDirectory } from "../daemon.js";
import { mountDisk, noMount } from "../small-disk.js";
import { until } from "../until.js";

const COUNTERS = 3000;
/** Longer than the time after which what was reached is written down. */
const WHILE_MS = 11_000;

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

const counterOf = (number: number): Counter => `0/T${number}`;

function begun(directory = privateDirectory()): {
  path: string;
  witness: Witness;
  values: Map<Counter, number>;
} {
  const path = join(directory, "pawl.witness");
  const values = new Map<Counter, number>();
  for (let number = 0; number < COUNTERS; number += 1) values.set(counterOf(number), 1);
  let wallMs = 1_000_000;
  const witness = new Witness(path, "of the test", values, () => (wallMs += 1));
  onTestFinished(() => witness.close());
  witness.begin(1);
  return { path, witness, values };
}

/** Has all counters go up by one, as turns do. */
function raiseAll(witness: Witness, values: Map<Counter, number>): void {
  for (const [counter, value] of values) values.set(counter, value + 1);
  witness.raise(values);
  witness.committed(values);
}

function read(path: string): Testimony {
  const testimony = readWitness(path);
  if (testimony === undefined || testimony === "unreadable") throw new Error(`it is ${testimony}`);
  return testimony;
}

const valuesOf = (path: string): Map<Counter, number> =>
  new Map([...read(path).counters].map(([counter, { value }]) => [counter, value]));

test("what a few of many counters have reached is appended after a while, with the time", () => {
  const { path, witness } = begun();
  const { size, ino } = statSync(path);
  const { writtenAt } = read(path);
  witness.raise(new Map([[counterOf(7), 5]]));
  witness.committed(new Map([[counterOf(7), 5]]));
  expect(statSync(path).size).toBe(size);
  vi.advanceTimersByTime(WHILE_MS);
  const after = statSync(path);
  expect(after.ino).toBe(ino);
  expect(after.size - size).toBeLessThan(200);
  expect(read(path).counters.get(counterOf(7))?.value).toBe(5);
  expect(read(path).writtenAt).toBeGreaterThan(writtenAt);
});

test("what all have reached is written down in steps, and all at a stop", () => {
  const { path, witness, values } = begun();
  raiseAll(witness, values);
  vi.advanceTimersToNextTimer();
  const said = [...valuesOf(path).values()].filter((value) => value === 2).length;
  expect(said).toBeGreaterThan(0);
  expect(said).toBeLessThan(COUNTERS / 2);
  vi.advanceTimersByTime(WHILE_MS);
  expect(valuesOf(path)).toEqual(values);
  raiseAll(witness, values);
  witness.stop();
  expect(valuesOf(path)).toEqual(values);
});

test("a file that has grown is written whole, with what is raised meanwhile", async () => {
  const { path, witness, values } = begun();
  const { size, ino } = statSync(path);
  while (!existsSync(`${path}.new`)) {
    raiseAll(witness, values);
    vi.advanceTimersByTime(WHILE_MS);
    await new Promise(setImmediate);
  }
  expect(statSync(path).size).toBeGreaterThan(2 * size);
  // It has passed the first counters by now, and not the last; both are on disk before anything else happens.
  for (const counter of [counterOf(0), counterOf(COUNTERS - 1), "0/NEW" as const]) {
    values.set(counter, 10_000);
    witness.raise(new Map([[counter, 10_000]]));
    witness.committed(new Map([[counter, 10_000]]));
    expect(read(path).counters.get(counter)?.bound).toBeGreaterThan(10_000);
  }
  await until(() => statSync(path).ino !== ino);
  expect(existsSync(`${path}.new`)).toBe(false);
  expect(statSync(path).size).toBeLessThan(2 * size);
  const { counters } = read(path);
  for (const [counter, value] of values) expect(counters.get(counter)?.bound).toBeGreaterThan(value);
  // From then on it is that which is appended to.
  vi.advanceTimersByTime(WHILE_MS);
  expect(valuesOf(path)).toEqual(values);
});

test("a file that was removed is written whole: at once for a bound, after a while for what was reached", async () => {
  const { path, witness, values } = begun();
  rmSync(path);
  witness.raise(new Map([[counterOf(7), 1000]]));
  expect(read(path).counters.size).toBe(COUNTERS);
  expect(read(path).counters.get(counterOf(7))?.bound).toBeGreaterThan(1000);
  rmSync(path);
  witness.committed(new Map([[counterOf(7), 1000]]));
  vi.advanceTimersByTime(WHILE_MS);
  await until(() => existsSync(path));
  expect(valuesOf(path)).toEqual(values.set(counterOf(7), 1000));
});

test("one that stops or is closed while it is written whole leaves the former one, and nothing else", async () => {
  for (const end of ["stop", "close"] as const) {
    const { path, witness, values } = begun();
    while (!existsSync(`${path}.new`)) {
      raiseAll(witness, values);
      vi.advanceTimersByTime(WHILE_MS);
      await new Promise(setImmediate);
    }
    witness[end]();
    expect(existsSync(`${path}.new`)).toBe(false);
    expect(valuesOf(path)).toEqual(values);
  }
});

test("what a daemon that was killed has left of a whole one is removed by the next", () => {
  const { path, witness } = begun();
  writeFileSync(`${path}.new`, "half");
  witness.begin(2);
  expect(existsSync(`${path}.new`)).toBe(false);
  expect(read(path).starts).toBe(2);
});

test("a line that was not written to its end is none", () => {
  const { path } = begun();
  truncateSync(path, statSync(path).size - 3);
  expect(read(path).counters.size).toBe(COUNTERS - 1);
  expect(readFileSync(path, "utf8")).not.toMatch(/\n$/);
});

test.skipIf(noMount !== undefined)(
  "a line for which there is no space is none, and the next one counts",
  () => {
    const disk = join(privateDirectory(), "disk");
    expect(mountDisk(disk, 1024 * 1024)).toBeUndefined();
    onTestFinished(() => void spawnSync("umount", ["-l", disk]));
    const { path, witness, values } = begun(disk);
    const before = readFileSync(path);
    // What is left is enough for some of the lines of all, and for a page more than those of one.
    writeFileSync(join(disk, "filler"), Buffer.alloc(1024 * 1024 - before.length - 64 * 1024));
    const higher = new Map([...values.keys()].map((counter) => [counter, 1000]));
    expect(() => witness.raise(higher)).toThrow(/^the witness of the database cannot be written: ENOSPC/);
    expect(readFileSync(path).equals(before)).toBe(true);
    witness.raise(new Map([[counterOf(7), 1000]]));
    expect(read(path).counters.get(counterOf(7))?.bound).toBeGreaterThan(1000);
    rmSync(join(disk, "filler"));
    witness.raise(higher);
    for (const { bound } of read(path).counters.values()) expect(bound).toBeGreaterThan(1000);
  },
);
