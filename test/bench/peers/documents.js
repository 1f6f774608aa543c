// @ts-check
/** Document libraries whose replicas merge, each in a process of its own (documents-worker.js). */
import { fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { watchOthers } from "../others.js";

/** @typedef {import("../driver.js").Run} Run */

/**
 * @typedef {object} Library
 * @property {string} name with its version, if it is there.
 * @property {string} module
 * @property {() => string | undefined} missing
 */

const WORKER = fileURLToPath(new URL("documents-worker.js", import.meta.url));
/** A package of its own: nobody who works on pawl needs to install these. */
const PACKAGE = fileURLToPath(new URL("documents/", import.meta.url));

/** @type {readonly Library[]} */
export const LIBRARIES = [
  library("Automerge", "@automerge/automerge"),
  library("Yjs", "yjs"),
  library("Loro", "loro-crdt"),
];

/**
 * @param {string} name
 * @param {string} module
 * @returns {Library}
 */
function library(name, module) {
  const manifest = path.join(PACKAGE, "node_modules", module, "package.json");
  const isThere = existsSync(manifest);
  return {
    name: isThere ? `${name} ${JSON.parse(readFileSync(manifest, "utf8")).version}` : name,
    module,
    missing: () =>
      isThere ? undefined : "it is not installed: npm install --prefix test/bench/peers/documents",
  };
}

/**
 * Makes items, then updates them, each a change of its own that is appended to a file; the updates are timed.
 *
 * @param {Library} library
 * @param {string} directory
 * @param {{items: number, updates: number, perSync: number}} work
 * @returns {Promise<Run>}
 */
export async function write({ module }, directory, { items, updates, perSync }) {
  const others = watchOthers();
  const report = await work(["write", module, directory, items, updates, perSync]);
  const { seconds, latenciesMs, cpuSeconds, memoryBytes } = report;
  // The process is driver and system at once.
  return {
    operations: updates,
    seconds,
    latenciesMs,
    driverCpuSeconds: cpuSeconds,
    othersCpuSeconds: others(),
    memoryBytes,
  };
}

/**
 * Processes that load what is on disk until they have listed all items, one after the other.
 *
 * @param {Library} library
 * @param {string} directory
 * @param {"updates" | "snapshot"} kind
 * @param {{items: number, updates: number, times: number}} work
 * @returns {Promise<Run>}
 */
export async function load({ module, name }, directory, kind, { items, updates, times }) {
  const latenciesMs = new Float64Array(times);
  const others = watchOthers();
  const cpuBefore = process.cpuUsage();
  let memoryBytes = 0;
  for (let index = 0; index < times; index++) {
    const sinceMs = performance.now();
    const loaded = await work(["load", module, directory, items, updates, kind]);
    // Until it was ready, without what it then checked.
    latenciesMs[index] = loaded.readyAtMs - (performance.timeOrigin + sinceMs);
    memoryBytes = Math.max(memoryBytes, loaded.memoryBytes);
    if (loaded.items !== items || loaded.retries !== loaded.expectedRetries)
      throw new Error(
        `${name} has ${loaded.items} items and ${loaded.retries} retries after loading ${kind}`,
      );
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  return {
    operations: times,
    seconds: latenciesMs.reduce((sum, each) => sum + each, 0) / 1000,
    latenciesMs,
    driverCpuSeconds: (user + system) / 1e6,
    othersCpuSeconds: others(),
    memoryBytes,
  };
}

/**
 * @param {(string | number)[]} args
 * @returns {Promise<any>} what the worker reports.
 */
async function work(args) {
  const worker = fork(WORKER, args.map(String), { serialization: "advanced" });
  const ended = once(worker, "exit").then(([code, signal]) => {
    throw new Error(`the worker ended with ${signal ?? code}`);
  });
  ended.catch(() => {});
  try {
    const [report] = await Promise.race([once(worker, "message"), ended]);
    return report;
  } finally {
    worker.kill("SIGKILL");
  }
}
