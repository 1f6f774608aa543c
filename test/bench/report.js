// @ts-check
/** What a run measured, as text: the machine, a table for each section, and the targets. */
import { closeSync, fdatasyncSync, openSync, readFileSync, statfsSync, writeSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { median } from "./measure.js";

/**
 * @typedef {import("./measure.js").Row} Row
 *
 * @typedef {object} Target pawl's rate under a load, beside a system's rate under its own.
 * @property {string} of load of pawl.
 * @property {string} peer
 * @property {string} peerLoad
 * @property {number} [atLeast] so many times the other rate.
 * @property {number} [lessThan] so many times the other rate.
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
    `driver    one Node process for all systems, over Unix sockets, sharing the cores with the server`,
  ].join("\n");
}

/**
 * @param {string} section
 * @param {Row[]} rows
 */
export function table(section, rows) {
  const cells = rows.map((row) => {
    const rates = row.samples.map((sample) => sample.perSecond);
    const middle = (/** @type {"p50Ms" | "p99Ms" | "driverCpu"} */ key) =>
      median(row.samples.map((sample) => sample[key]));
    return [
      row.system,
      row.load.name,
      row.durability,
      whole(median(rates)),
      rates.length > 1 ? `${whole(Math.min(...rates))}..${whole(Math.max(...rates))}` : "",
      middle("p50Ms").toFixed(2),
      middle("p99Ms").toFixed(2),
      `${Math.round(middle("driverCpu") * 100)} %`,
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

/**
 * @param {Row[]} rows
 * @param {Target[]} targets
 * @returns {string}
 */
export function verdicts(rows, targets) {
  return targets
    .map(({ of, peer, peerLoad, atLeast, lessThan }) => {
      const ratio = rate(rows, PAWL, of) / rate(rows, peer, peerLoad);
      const wanted = atLeast === undefined ? `less than ${lessThan}` : `at least ${atLeast}`;
      const reached = atLeast === undefined ? ratio < Number(lessThan) : ratio >= atLeast;
      const verdict = Number.isNaN(ratio) ? "NOT MEASURED" : reached ? "reached" : "NOT REACHED";
      const figure = Number.isNaN(ratio) ? "" : `${ratio.toFixed(2)} `;
      return `${verdict.padEnd(12)}  ${figure}(${wanted}) times ${peer}, ${peerLoad}: pawl, ${of}`;
    })
    .join("\n");
}

/**
 * pawl's rate under the like load, as a multiple of this row's.
 *
 * @param {Row[]} rows
 * @param {Row} row
 */
function timesOf(rows, row) {
  if (row.system === PAWL) return "";
  const ratio = rate(rows, PAWL, row.load.against ?? row.load.name) / rate(rows, row.system, row.load.name);
  return Number.isNaN(ratio) ? "" : `${ratio.toFixed(2)} x`;
}

/**
 * @param {Row[]} rows
 * @param {string} system
 * @param {string} load
 * @returns {number} NaN when it was not measured.
 */
function rate(rows, system, load) {
  const row = rows.find((each) => each.system === system && each.load.name === load);
  return row === undefined ? Number.NaN : median(row.samples.map((sample) => sample.perSecond));
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
