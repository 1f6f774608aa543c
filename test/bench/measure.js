// @ts-check
/** Runs the entries of a section in turn, repetition by repetition, and keeps what they measured. */
import { mkdtempSync, rmSync } from "node:fs";
import path from "node:path";

/**
 * @typedef {object} Load
 * @property {string} name such as "64 connections".
 * @property {string} [against] the load of pawl that it is set beside; the one of the same name if not given.
 */

/**
 * @typedef {object} Entry a system in a section.
 * @property {string} system
 * @property {string} durability
 * @property {string} [note] what the report says of how it was measured.
 * @property {() => string | undefined} missing why it cannot be measured here.
 * @property {(sample: (load: Load, run: Run) => void, directory: () => string) => Promise<void>} measure does one
 *   repetition; `directory` makes an empty directory, which is removed after it.
 * @property {(directory: () => string) => Promise<void>} [setUp] before the first repetition.
 * @property {() => Promise<void>} [tearDown] after the last one.
 */

/**
 * @typedef {object} Row
 * @property {string} system
 * @property {string} durability
 * @property {Load} load
 * @property {Sample[]} samples one for each repetition.
 */

/**
 * @typedef {object} Sample
 * @property {number} operations
 * @property {number} perSecond
 * @property {number} p50Ms
 * @property {number} p99Ms
 * @property {number} driverCpu share of one core that the driver used.
 * @property {number} othersCpu share of one core that was used by what is not part of the measurement.
 * @property {number | undefined} memoryBytes where it was asked for.
 */

/** @typedef {import("./driver.js").Run} Run */

/** Share of one core. With more, a sample says more about the others than about the system. */
export const MAX_OTHERS_CPU = 0.25;

/**
 * @param {string} section
 * @param {Entry[]} entries
 * @param {{repetitions: number, root: string, progress: (text: string) => void}} options `root`: where the
 *   directories are made.
 * @returns {Promise<{rows: Row[], skipped: {system: string, why: string}[], failed: {system: string, error: Error}[]}>}
 */
export async function measure(section, entries, { repetitions, root, progress }) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  const skipped = [];
  const failed = [];
  /** @type {Entry[]} */
  let present = [];
  const kept = new Directories(root);
  for (const entry of entries) {
    const why = entry.missing();
    if (why === undefined) present.push(entry);
    else {
      progress(`${section}: ${entry.system} is skipped: ${why}`);
      skipped.push({ system: entry.system, why });
    }
  }

  for (let repetition = 0; repetition < repetitions; repetition++) {
    // Back and forth, so that a machine that gets slower or faster favours nobody.
    const order = repetition % 2 === 0 ? present : present.toReversed();
    for (const entry of order) {
      const own = new Directories(root);
      try {
        if (repetition === 0) await entry.setUp?.(() => kept.make());
        await entry.measure(
          (load, run) => {
            const sample = sampleOf(run);
            const key = `${entry.system}\0${load.name}`;
            const row = rows.get(key) ?? {
              system: entry.system,
              durability: entry.durability,
              load,
              samples: [],
            };
            row.samples.push(sample);
            rows.set(key, row);
            const disturbed = sample.othersCpu > MAX_OTHERS_CPU ? ", disturbed by other processes" : "";
            progress(
              `${section} ${repetition + 1}/${repetitions}: ${entry.system}, ${load.name}: ${Math.round(sample.perSecond)}/s${disturbed}`,
            );
          },
          () => own.make(),
        );
      } catch (error) {
        progress(`${section}: ${entry.system} failed: ${/** @type {Error} */ (error).message}`);
        failed.push({ system: entry.system, error: /** @type {Error} */ (error) });
        present = present.filter((other) => other !== entry);
        await entry.tearDown?.();
      } finally {
        own.remove();
      }
    }
  }
  for (const entry of present) await entry.tearDown?.();
  kept.remove();
  return { rows: [...rows.values()], skipped, failed };
}

/**
 * @param {Run[]} runs rounds of one measurement.
 * @returns {Run}
 */
export function together(runs) {
  return {
    operations: sum(runs.map((run) => run.operations)),
    seconds: sum(runs.map((run) => run.seconds)),
    latenciesMs: Float64Array.from(runs.flatMap((run) => Array.from(run.latenciesMs))),
    driverCpuSeconds: sum(runs.map((run) => run.driverCpuSeconds)),
    othersCpuSeconds: sum(runs.map((run) => run.othersCpuSeconds)),
  };
}

/** @param {number[]} values */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/**
 * Fails unless the numbers are 1 to `count`, each once.
 *
 * @param {string} system
 * @param {number[]} numbers
 * @param {number} count
 */
export function assertContiguous(system, numbers, count) {
  const sorted = Float64Array.from(numbers).sort();
  const wrong = sorted.findIndex((number, i) => number !== i + 1);
  if (wrong !== -1) throw new Error(`${system} gave ${sorted[wrong]} where ${wrong + 1} was to be expected`);
  if (sorted.length !== count) throw new Error(`${system} gave ${sorted.length} numbers, not ${count}`);
}

/**
 * Fails unless there are `count` ids, each once.
 *
 * @param {string} system
 * @param {string[]} ids
 * @param {number} count
 */
export function assertDistinct(system, ids, count) {
  const distinct = new Set(ids).size;
  if (distinct !== ids.length)
    throw new Error(`${system} gave ${ids.length - distinct} pieces of work out twice`);
  if (distinct !== count) throw new Error(`${system} finished ${distinct} pieces of work, not ${count}`);
}

/**
 * @param {Run} run
 * @returns {Sample}
 */
function sampleOf({ operations, seconds, latenciesMs, driverCpuSeconds, othersCpuSeconds, memoryBytes }) {
  const sorted = latenciesMs.toSorted();
  const percentile = (/** @type {number} */ share) =>
    sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN;
  return {
    operations,
    perSecond: operations / seconds,
    p50Ms: percentile(0.5),
    p99Ms: percentile(0.99),
    driverCpu: driverCpuSeconds / seconds,
    othersCpu: othersCpuSeconds / seconds,
    memoryBytes,
  };
}

/** @param {number[]} values */
function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** Directories that are removed together. */
class Directories {
  /** @type {string[]} */
  #made = [];
  #root;

  /** @param {string} root */
  constructor(root) {
    this.#root = root;
  }

  make() {
    const directory = mkdtempSync(path.join(this.#root, "state-"));
    this.#made.push(directory);
    return directory;
  }

  remove() {
    for (const directory of this.#made.splice(0)) rmSync(directory, { recursive: true, force: true });
  }
}
