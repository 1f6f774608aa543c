// @ts-check
/** The ways without a server: many processes on one file. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";
import { watchOthers } from "./others.js";

const WORKER = fileURLToPath(new URL("files-worker.js", import.meta.url));

/**
 * Lets processes raise one counter in one file, each so many times.
 *
 * @param {"toml" | "sqlite"} way
 * @param {string} directory an empty one.
 * @param {{processes: number, warmUp: number, operations: number}} work of each process.
 * @returns {Promise<{run: import("./driver.js").Run, numbers: number[]}>} the numbers of the warm-up too.
 */
export async function countInFile(way, directory, { processes, warmUp, operations }) {
  const file = path.join(directory, way === "toml" ? "sequences.toml" : "sequences.db");
  if (way === "toml") writeFileSync(file, "[sequences]\nFR = 0\n");
  else createDatabase(file);

  const workers = Array.from({ length: processes }, () =>
    fork(WORKER, [way, file, String(warmUp), String(operations)], { serialization: "advanced" }),
  );
  /** The next words of all workers. @returns {Promise<any[]>} */
  const all = () => Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
  try {
    // All have started, opened the file and warmed up before the first is timed.
    await all();
    const others = watchOthers();
    const cpuBefore = process.cpuUsage();
    const startedAtMs = performance.now();
    const done = all();
    for (const worker of workers) worker.send("go");
    await done;
    const seconds = (performance.now() - startedAtMs) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const othersCpuSeconds = others();

    const results = all();
    for (const worker of workers) worker.send("report");
    const reports = await results;
    return {
      run: {
        operations: processes * operations,
        seconds,
        latenciesMs: Float64Array.from(reports.flatMap((report) => Array.from(report.latenciesMs))),
        driverCpuSeconds: (user + system) / 1e6,
        othersCpuSeconds,
      },
      numbers: reports.flatMap((report) => report.numbers),
    };
  } finally {
    for (const worker of workers) worker.kill("SIGKILL");
  }
}

/** @param {string} file */
function createDatabase(file) {
  const database = new Database(file);
  database.pragma("journal_mode = WAL");
  database.exec("CREATE TABLE counters (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT");
  database.exec("INSERT INTO counters VALUES ('FR', 0)");
  database.close();
}
