// @ts-check
/**
 * `jobs-worker.js LIBRARY DIRECTORY CALLERS QUEUES WARM_UP OPERATIONS` has callers enqueue a job, claim one and
 * complete it, each the next once it has, over a pool with a connection for each; and sends what that took.
 */
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";

const USER = "bench";
const DATABASE = "postgres";
const PAYLOAD = { task: "resize", image: 12_345, width: 640 };

/**
 * @typedef {object} Library
 * @property {(queue: string) => Promise<string>} cycle gives the id of the job that was completed.
 * @property {() => Promise<number>} left how many jobs there are that are not completed.
 * @property {() => Promise<void>} stop
 */

const [library = "", directory = "", ...numbers] = process.argv.slice(2);
const [callers = 1, queueCount = 1, warmUp = 0, operations = 0] = numbers.map(Number);
const require = createRequire(new URL("jobs/package.json", import.meta.url));
const queues = Array.from({ length: queueCount }, (_, index) => `bench-${index}`);
const place = { host: directory, user: USER, database: DATABASE };

const makers = { "pg-boss": pgBoss, "graphile-worker": graphileWorker };
const { cycle, left, stop } = await makers[/** @type {keyof typeof makers} */ (library)]();
/** @type {string[]} */
const taken = [];
await run(warmUp);
const cpuBefore = process.cpuUsage();
const startedAtMs = performance.now();
const latenciesMs = await run(operations);
const unfinished = await waitForNone();
const seconds = (performance.now() - startedAtMs) / 1000;
const { user, system } = process.cpuUsage(cpuBefore);
process.send?.({
  seconds,
  latenciesMs,
  cpuSeconds: (user + system) / 1e6,
  unfinished,
  taken: taken.length,
  distinct: new Set(taken).size,
});
await stop();

/** @param {number} count */
async function run(count) {
  const found = new Float64Array(count);
  let started = 0;
  let done = 0;
  const caller = async (/** @type {number} */ index) => {
    while (started < count) {
      started += 1;
      const sinceMs = performance.now();
      taken.push(await cycle(/** @type {string} */ (queues[index % queues.length])));
      found[done++] = performance.now() - sinceMs;
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, index) => caller(index)));
  return found;
}

/** What was worked on is completed a moment later where the library does so by itself. */
async function waitForNone() {
  const giveUpAtMs = performance.now() + 5_000;
  for (;;) {
    const count = await left();
    if (count === 0 || performance.now() > giveUpAtMs) return count;
  }
}

/** @returns {Promise<Library>} */
async function pgBoss() {
  const PgBoss = require("pg-boss");
  const boss = new PgBoss({ ...place, max: callers, supervise: false, schedule: false });
  boss.on("error", fail);
  await boss.start();
  for (const queue of queues) await boss.createQueue(queue);
  return {
    async cycle(queue) {
      await boss.send(queue, PAYLOAD);
      for (;;) {
        // Somebody else may have had the last one of what the claim saw.
        const [job] = await boss.fetch(queue);
        if (job === undefined) continue;
        await boss.complete(queue, job.id);
        return job.id;
      }
    },
    left: async () => {
      const sizes = await Promise.all(
        queues.map((queue) => boss.getQueueSize(queue, { before: "completed" })),
      );
      return sizes.reduce((sum, size) => sum + size, 0);
    },
    stop: () => boss.stop({ graceful: false }),
  };
}

/** It completes a job when the function that works on it has returned. @returns {Promise<Library>} */
async function graphileWorker() {
  const { run: start, makeWorkerUtils, Logger } = require("graphile-worker");
  const { Pool } = createRequire(require.resolve("graphile-worker"))("pg");
  // Of those who enqueue, and of those who work.
  const enqueuing = new Pool({ ...place, max: Math.ceil(callers / 2) });
  const working = new Pool({ ...place, max: callers + 2 });
  for (const pool of [enqueuing, working]) pool.on("error", fail);
  /** @type {Map<string, (id: string) => void>} */
  const waiting = new Map();
  const logger = new Logger(() => () => {});
  const utils = await makeWorkerUtils({ pgPool: enqueuing, logger });
  await utils.migrate();
  const runner = await start({
    pgPool: working,
    logger,
    concurrency: callers,
    noHandleSignals: true,
    taskList: Object.fromEntries(
      queues.map((queue) => [
        queue,
        async (_payload, { job }) => {
          const finish = waiting.get(job.id);
          waiting.delete(job.id);
          // The caller may not have heard yet which job it has.
          if (finish === undefined) waiting.set(job.id, () => {});
          else finish(job.id);
        },
      ]),
    ),
  });
  return {
    async cycle(queue) {
      const { id } = await utils.addJob(queue, PAYLOAD);
      if (waiting.delete(id)) return id;
      return await new Promise((resolve) => waiting.set(id, resolve));
    },
    left: async () =>
      Number((await enqueuing.query("SELECT count(*) AS n FROM graphile_worker.jobs")).rows[0].n),
    async stop() {
      await runner.stop();
      await utils.release();
      await Promise.all([enqueuing.end(), working.end()]);
    },
  };
}

/** @param {Error} error */
function fail(error) {
  throw error;
}
