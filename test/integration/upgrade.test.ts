// An upgrade under load: workers go on while systemd restarts the daemon on a newer build.
// Not over shared names: systemd starts its daemons.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { startProgram } from "../client-process.js";
import { privateDirectory } from "../daemon.js";
import { sized } from "../long-form.js";
import { pack, unpacked } from "../packages.js";
import { RawClient } from "../raw-client.js";
import { UserSystemd, whyNoSystemd } from "../user-systemd.js";

const WORKERS = 8;
/** After the upgrade the same build is restarted so often, for more figures. */
const MORE_RESTARTS = sized(30, 2);
/** After the last of these it is restarted so often again, at once. */
const IN_A_ROW = 3;
const BATCHES = 200 * (1 + MORE_RESTARTS);
/** Batches that are completed after a restart before the next: several by each worker. */
const BACK_AT_WORK = 8 * WORKERS;
const NEWER_VERSION = "99.0.0";
const why = whyNoSystemd();
if (why !== undefined) console.warn(`the test of an upgrade under systemd is skipped: ${why}`);

interface Report {
  /** The numbers of the batches that it completed, in its own words. */
  completed: number[];
  /** The numbers it took, while it worked. */
  numbers: number[];
  /** Everything that was refused or lost. */
  errors: string[];
  /** When calls were made and how long they took, in milliseconds. */
  calls: [at: number, ms: number][];
}

/** Works on the queue, and takes numbers one after the other, until its standard input ends. */
const WORKER = `
  const [name, socket] = args;
  const pawl = await connect({ socket });
  const report = { completed: [], numbers: [], errors: [], calls: [] };
  const work = pawl.work("load", async ({ payloads, signal }) => {
    // Long enough for many to be in the middle of it whenever the daemon is restarted.
    await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 60));
    signal.throwIfAborted();
  }, {
    concurrency: 2,
    onComplete: ({ payloads }) => report.completed.push(payloads[0].n),
    onFailure: (error) => report.errors.push("failed: " + error.message),
    onError: (error) => report.errors.push("trouble: " + error.message),
  });
  let over = false;
  process.stdin.resume().once("end", () => { over = true; });
  print("ready");
  for (let call = 0; !over; call += 1) {
    const at = Date.now();
    const began = performance.now();
    try {
      report.numbers.push((await pawl.sequence.next({ type: "FR", requestId: name + "/" + call })).seq);
    } catch (error) {
      report.errors.push("next: " + error.message);
    }
    report.calls.push([at, performance.now() - began]);
    // Others have to be served too, on machines with few processors.
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await work.close();
  pawl.close();
  print(report);
`;

/** Makes an installed build newer: another version, and one more step for the database. */
function makeNewer(folders: Readonly<Record<"client" | "daemon", string>>): void {
  for (const folder of Object.values(folders)) {
    const path = join(folder, "package.json");
    writeFileSync(
      path,
      JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), version: NEWER_VERSION }),
    );
  }
  const step = "CREATE TABLE pawl_newer (id INTEGER PRIMARY KEY) STRICT;";
  writeFileSync(join(folders.daemon, "store/schema/9999-newer.sql"), step);
}

function percentile(numbers: readonly number[], share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
}

test.runIf(why === undefined)(
  `${WORKERS} workers go on through an upgrade: no claim lost, no request failed`,
  async () => {
    const actions: (() => void | Promise<void>)[] = [];
    const [systemd, tarballs] = await Promise.all([
      UserSystemd.start((action) => void actions.unshift(action)),
      pack(privateDirectory(), ["client", "daemon"]),
    ]);
    try {
      const [old, next] = [unpacked(tarballs), unpacked(tarballs)];
      makeNewer(next);
      await systemd.pawlOf(join(old.client, "bin/pawl.js"), "service", "install", "--user");
      const socket = systemd.socket();
      const client = await RawClient.connect(socket);
      const before = await client.call("daemon.info", {});
      for (let n = 0; n < BATCHES; n += 1)
        await client.call("queue.enqueue", { queue: "load", payloads: [{ n }] });
      await client.destroy();

      const workers = Array.from({ length: WORKERS }, (_, index) =>
        startProgram(WORKER, [`worker-${index}`, socket]),
      );
      await Promise.all(workers.map((worker) => worker.line(0)));

      const restartService = async (): Promise<void> => {
        // The unit may be started 30 times a minute, which the long form of this test exceeds.
        await systemd.systemctl("reset-failed", "pawld.service");
        await systemd.systemctl("restart", "pawld.service");
      };
      const restarts: { from: number; to: number }[] = [];
      for (let restart = 0; restart <= MORE_RESTARTS; restart += 1) {
        const from = Date.now();
        // Only the first is an upgrade: the newer build installs itself, and that restarts what runs.
        if (restart === 0)
          await systemd.pawlOf(join(next.client, "bin/pawl.js"), "service", "install", "--user");
        else await restartService();
        // The last time nobody is given the time to come back in between.
        for (let more = 0; restart === MORE_RESTARTS && more < IN_A_ROW; more += 1) await restartService();
        restarts.push({ from, to: Date.now() });
        // The next one comes when all are back at work, so that it finds them in the middle of it.
        const counting = await RawClient.connect(socket);
        const completed = async (): Promise<number> =>
          (await counting.call("queue.stats", { queue: "load" })).queues[0]?.completed ?? 0;
        const enough = Math.min((await completed()) + BACK_AT_WORK, BATCHES);
        while ((await completed()) < enough) await new Promise((resolve) => setTimeout(resolve, 20));
        await counting.destroy();
      }
      const watcher = await RawClient.connect(socket);
      const after = await watcher.call("daemon.info", {});
      expect(after.version).toBe(NEWER_VERSION);
      expect(after.database).toEqual({
        path: before.database.path,
        schemaVersion: before.database.schemaVersion + 1,
      });
      const depths = async () => (await watcher.call("queue.stats", { queue: "load" })).queues[0];
      while ((await depths())?.completed !== BATCHES) await new Promise((resolve) => setTimeout(resolve, 50));

      for (const { child } of workers) child.stdin?.end();
      const reports = await Promise.all(workers.map((worker) => worker.line<Report>(1)));
      // A claim can be renewed for 5 s after the start of a daemon; a failure tells if that may be too short here.
      const longest = Math.max(...reports.flatMap(({ calls }) => calls.map(([, ms]) => ms)));
      expect(
        reports.flatMap(({ errors }) => errors),
        `the longest call took ${Math.round(longest)} ms`,
      ).toEqual([]);
      // Each batch was done once, and completed by who did it; every number was given to one.
      const inOrder = (numbers: number[]) => numbers.sort((a, b) => a - b);
      expect(inOrder(reports.flatMap(({ completed }) => completed))).toEqual(
        Array.from({ length: BATCHES }, (_, n) => n),
      );
      const numbers = inOrder(reports.flatMap((report) => report.numbers));
      expect(numbers).toEqual(numbers.map((_, index) => index + 1));
      await watcher.destroy();

      // The longest call of each worker that was under way in a restart is how long it had to pause.
      const pauses = restarts.flatMap(({ from, to }) =>
        reports.map(({ calls }) =>
          Math.max(0, ...calls.filter(([at, ms]) => at <= to && at + ms >= from).map(([, ms]) => ms)),
        ),
      );
      expect(pauses).toHaveLength(WORKERS * (1 + MORE_RESTARTS));
      const figures = [0.5, 0.99, 1].map((share) => Math.round(percentile(pauses, share)));
      console.info(
        `pause of ${WORKERS} workers over an upgrade and ${MORE_RESTARTS} more restarts: median ${figures[0]} ms, p99 ${figures[1]} ms, most ${figures[2]} ms; ${numbers.length} calls and ${BATCHES} batches, none failed`,
      );
    } finally {
      for (const action of actions) await action();
    }
  },
);
