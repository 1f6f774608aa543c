// @ts-check
/** Queues over PostgreSQL that are libraries, each in a process of its own (jobs-worker.js). */
import { fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { watchOthers } from "../others.js";

/** @typedef {import("../driver.js").Run} Run */

/**
 * @typedef {object} Library
 * @property {string} name with its version, if it is there.
 * @property {string} module
 * @property {() => string | undefined} missing
 */

const WORKER = fileURLToPath(new URL("jobs-worker.js", import.meta.url));
/** A package of its own: nobody who works on pawl needs to install these. */
const PACKAGE = fileURLToPath(new URL("jobs/", import.meta.url));

/** @type {readonly Library[]} */
export const LIBRARIES = ["pg-boss", "graphile-worker"].map((module) => {
  const manifest = path.join(PACKAGE, "node_modules", module, "package.json");
  const isThere = existsSync(manifest);
  return {
    name: isThere ? `${module} ${JSON.parse(readFileSync(manifest, "utf8")).version}` : module,
    module,
    missing: () => (isThere ? undefined : "it is not installed: npm install --prefix test/bench/peers/jobs"),
  };
});

/**
 * Callers that enqueue a job, claim one and complete it.
 *
 * @param {Library} library
 * @param {string} directory of the server's socket.
 * @param {{callers: number, queues: number, warmUp: number, operations: number}} work
 * @returns {Promise<Run>}
 */
export async function cycles({ name, module }, directory, { callers, queues, warmUp, operations }) {
  const others = watchOthers();
  const worker = fork(WORKER, [module, directory, ...[callers, queues, warmUp, operations].map(String)], {
    serialization: "advanced",
  });
  const ended = once(worker, "exit").then(([code, signal]) => {
    throw new Error(`the worker ended with ${signal ?? code}`);
  });
  ended.catch(() => {});
  try {
    const [report] = await Promise.race([once(worker, "message"), ended]);
    const { seconds, latenciesMs, cpuSeconds, unfinished, taken, distinct } = report;
    if (taken !== warmUp + operations || distinct !== taken)
      throw new Error(`${name} finished ${distinct} jobs of ${warmUp + operations}`);
    if (unfinished !== 0) throw new Error(`${name} has ${unfinished} jobs left`);
    // The process is driver and library at once.
    return { operations, seconds, latenciesMs, driverCpuSeconds: cpuSeconds, othersCpuSeconds: others() };
  } finally {
    worker.kill("SIGKILL");
  }
}
