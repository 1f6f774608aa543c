// @ts-check
/** The results of a run, as text: the machine, a table for each section, and the targets. */
import { closeSync, fdatasyncSync, openSync, readFileSync, statfsSync, writeSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { MAX_OTHERS_CPU, median } from "./measure.js";

/**
 * @typedef {import("./measure.js").Row} Row
 *
 * @typedef {object} Comparison pawl's rate under a load, beside a system's rate under its own.
 * @property {"p99Ms"} [figure] that is compared instead of the rate.
 * @property {string} of load of pawl.
 * @property {string} peer
 * @property {string} peerLoad
 * @property {number} [atLeast] so many times the other rate.
 * @property {number} [lessThan] so many times the other rate.
 *
 * @typedef {object} Figure what pawl is to reach under a load by itself.
 * @property {string} of load of pawl.
 * @property {number} [perSecond] at least.
 * @property {number} [withinMs] half of the operations.
 *
 * @typedef {Comparison | Figure} Target
 */

const FSYNCS = 200;
const FSYNC_BYTES = 4096;
const PAWL = "pawl";

/**
 * The machine and what its disk can do: rates of durable systems mean nothing without it.
 *
 * @param {string} directory where the state is kept.
 * @param {string[]} versions of what is measured.
 */
export function machine(directory, versions) {
  const processor = os.cpus()[0]?.model.trim() || os.arch();
  const gib = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 30)} GiB`;
  return [
    `machine   ${os.cpus().length} cores (${processor}), ${gib(os.totalmem())}, ${os.type()} ${os.release()}`,
    `disk      ${filesystem(directory)}; one ${FSYNC_BYTES}-byte write and fdatasync takes ${fsyncMs(directory).toFixed(2)} ms`,
    `versions  node ${process.versions.node}, ${versions.join(", ")}`,
    `load      ${os.loadavg()[0]?.toFixed(2)} before the start`,
    `driver    one Node process for all systems, over Unix sockets, sharing the cores with the server`,
  ].join("\n");
}

/**
 * @param {string} section
 * @param {Row[]} rows
 */
export function table(section, rows) {
  const withMemory = rows.some((row) => row.samples.some((sample) => sample.memoryBytes !== undefined));
  const cells = rows.map((row) => {
    const samples = row.samples.some(undisturbed) ? row.samples.filter(undisturbed) : row.samples;
    const rates = samples.map((sample) => sample.perSecond);
    const middle = (/** @type {"p50Ms" | "p99Ms" | "driverCpu"} */ key) =>
      median(samples.map((sample) => sample[key]));
    const used = `${row.samples.some(undisturbed) ? samples.length : 0} of ${row.samples.length}`;
    return [
      row.system,
      row.load.name,
      row.durability,
      whole(median(rates)),
      rates.length > 1 ? `${whole(Math.min(...rates))}..${whole(Math.max(...rates))}` : "",
      middle("p50Ms").toFixed(2),
      middle("p99Ms").toFixed(2),
      `${Math.round(middle("driverCpu") * 100)} %`,
      ...(withMemory ? [memoryOf(samples)] : []),
      used,
      timesOf(rows, row),
    ];
  });
  const head = [
    "system",
    "load",
    "durability",
    "per second",
    "from..to",
    "p50 ms",
    "p99 ms",
    "driver CPU",
    ...(withMemory ? ["memory"] : []),
    "quiet",
    "pawl is",
  ];
  const widths = head.map((title, i) =>
    Math.max(title.length, ...cells.map((cell) => (cell[i] ?? "").length)),
  );
  // Text to the left, figures to the right.
  const line = (/** @type {string[]} */ cell) =>
    cell
      .map((text, i) => (i < 3 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd();
  return [
    `## ${section}`,
    "",
    line(head),
    line(widths.map((width) => "-".repeat(width))),
    ...cells.map(line),
  ].join("\n");
}

/** @param {import("./measure.js").Sample[]} samples */
function memoryOf(samples) {
  const known = samples.flatMap(({ memoryBytes }) => memoryBytes ?? []);
  return known.length === 0 ? "" : `${whole(median(known) / 1e6)} MB`;
}

/**
 * @param {Row[]} rows
 * @param {Target[]} targets
 * @returns {string}
 */
export function verdicts(rows, targets) {
  return targets
    .map((target) => {
      if (!("peer" in target)) return figureOf(rows, target);
      const { of, peer, peerLoad, atLeast, lessThan, figure: compared = "perSecond" } = target;
      const times = ratio(find(rows, PAWL, of), find(rows, peer, peerLoad), compared);
      const wanted = atLeast === undefined ? `less than ${lessThan}` : `at least ${atLeast}`;
      const reached = atLeast === undefined ? times < Number(lessThan) : times >= atLeast;
      const verdict = Number.isNaN(times) ? "NOT MEASURED" : reached ? "reached" : "NOT REACHED";
      const figure = Number.isNaN(times) ? "?" : times.toFixed(2);
      const what = compared === "perSecond" ? "" : "the p99 of ";
      return `${verdict.padEnd(12)}  ${figure} times, wanted ${wanted}: ${what}pawl, ${of}, beside ${peer}, ${peerLoad}`;
    })
    .join("\n");
}

/**
 * @param {Row[]} rows
 * @param {Figure} target
 */
function figureOf(rows, { of, perSecond, withinMs }) {
  const samples = find(rows, PAWL, of)?.samples ?? [];
  const quiet = samples.filter(undisturbed);
  const chosen = quiet.length > 0 ? quiet : samples;
  const figure = median(chosen.map((sample) => (perSecond === undefined ? sample.p50Ms : sample.perSecond)));
  const reached = perSecond === undefined ? figure <= Number(withinMs) : figure >= perSecond;
  const verdict = Number.isNaN(figure) ? "NOT MEASURED" : reached ? "reached" : "NOT REACHED";
  const unit = perSecond === undefined ? "ms" : "per second";
  const wanted = perSecond === undefined ? `at most ${withinMs}` : `at least ${whole(perSecond)}`;
  return `${verdict.padEnd(12)}  ${Number.isNaN(figure) ? "?" : whole(figure)} ${unit}, wanted ${wanted}: pawl, ${of}`;
}

/**
 * pawl's rate under the like load, as a multiple of this row's.
 *
 * @param {Row[]} rows
 * @param {Row} row
 */
function timesOf(rows, row) {
  if (row.system === PAWL) return "";
  const times = ratio(find(rows, PAWL, row.load.against ?? row.load.name), row, "perSecond");
  return Number.isNaN(times) ? "" : `${times.toFixed(2)} x`;
}

/**
 * @param {Row[]} rows
 * @param {string} system
 * @param {string} load
 */
function find(rows, system, load) {
  return rows.find((row) => row.system === system && row.load.name === load);
}

/**
 * The median of the ratios within each repetition: what was measured at about the same time is compared, as
 * machines get slower and faster by more than what is to be seen. Pairs that other processes disturbed count only
 * when there are no others.
 *
 * @param {Row | undefined} row
 * @param {Row | undefined} other
 * @param {"perSecond" | "p99Ms"} figure
 * @returns {number} NaN when one of them was not measured.
 */
function ratio(row, other, figure) {
  if (row === undefined || other === undefined) return Number.NaN;
  /** @type {{rate: number, quiet: boolean}[]} */
  const ratios = [];
  for (const [i, sample] of row.samples.entries()) {
    const beside = other.samples[i];
    if (beside === undefined) continue;
    const quiet = undisturbed(sample) && undisturbed(beside);
    ratios.push({ rate: sample[figure] / beside[figure], quiet });
  }
  const quiet = ratios.filter((each) => each.quiet);
  return median((quiet.length > 0 ? quiet : ratios).map((each) => each.rate));
}

/** @param {import("./measure.js").Sample} sample */
function undisturbed(sample) {
  return sample.othersCpu <= MAX_OTHERS_CPU;
}

/** @param {number} value */
function whole(value) {
  return Math.round(value).toLocaleString("en");
}

/** @param {string} directory */
function filesystem(directory) {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" "));
  const holds = (/** @type {string} */ mount) =>
    directory === mount || directory.startsWith(mount === "/" ? "/" : `${mount}/`);
  const mount = mounts.findLast(
    ([, at = ""]) => holds(at) && !mounts.some(([, other = ""]) => holds(other) && other.length > at.length),
  );
  return `${mount?.[2] ?? `type ${statfsSync(directory).type}`} on ${mount?.[0] ?? "?"}`;
}

/** @param {string} directory */
function fsyncMs(directory) {
  const descriptor = openSync(path.join(directory, "fsync"), "w");
  const block = Buffer.alloc(FSYNC_BYTES);
  const times = [];
  for (let i = 0; i < FSYNCS; i++) {
    const startedAtMs = performance.now();
    writeSync(descriptor, block);
    fdatasyncSync(descriptor);
    times.push(performance.now() - startedAtMs);
  }
  closeSync(descriptor);
  return median(times);
}
