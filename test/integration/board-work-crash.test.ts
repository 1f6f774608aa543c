// Many worker processes on one board whose items depend on each other, while some of them and the daemon itself are
// killed again and again. A short run always; with PAWL_TORTURE=1 a long one: 32 workers, 200 items, eight deaths of
// the daemon. With that, too, how long a claim that waits takes to get its item; the figure is printed, and not judged.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { differencesBy } from "../board-nodes.js";
import { Place, startDaemon } from "../daemon.js";
import { TORTURE } from "../long-form.js";
import type { RawClient } from "../raw-client.js";

const { WORKERS, ITEMS, DAEMON_KILLS, MOST_WORK_MS } = TORTURE
  ? { WORKERS: 32, ITEMS: 200, DAEMON_KILLS: 8, MOST_WORK_MS: 200 }
  : { WORKERS: 6, ITEMS: 60, DAEMON_KILLS: 1, MOST_WORK_MS: 20 };
/** A worker is killed each time that so many more are begun: however slow the machine is, they come to work. */
const BEGUN_PER_KILL = 5;
/** Long beside a stall of the machine, so that nobody who is alive outlives its lease. */
const LEASE_MS = 6000;
const LOOK_EVERY_MS = 50;
const GIVE_UP_MS = TORTURE ? 500_000 : 110_000;

interface Line {
  what: "begin" | "end" | "late" | "done" | "lost";
  storyId: string;
  token: number;
}

test(
  "workers and the daemon are killed: each item finished once, after those it depends on, and no dead agent at work",
  async () => {
    const place = new Place();
    const log = join(place.directory, "shared.log");
    writeFileSync(log, "");
    let daemon = await place.start();
    let client = await place.connect();
    await client.call("pipeline.configure", { maxRetries: 0 });
    const dependencies = new Map<string, string[]>();
    for (let index = 0; index < ITEMS; index += 1) {
      const before = [...dependencies.keys()];
      const dependsOn = [...new Set([0, 1, 2].map(() => before[Math.floor(Math.random() * ITEMS)]))];
      dependencies.set(
        `I-${index}`,
        dependsOn.filter((each) => each !== undefined),
      );
    }
    const left = [...dependencies];
    /** What comes between two kills is there once the first of them was: much may be done between two looks. */
    const part = Math.ceil(ITEMS / (DAEMON_KILLS + 2));
    const writePart = async (): Promise<void> => {
      for (const [storyId, dependsOn] of left.splice(0, part)) {
        const fields = { priority: Math.floor(Math.random() * 6) };
        await client.call("pipeline.write", { storyId, stage: "1_backlog", dependsOn, fields });
      }
    };
    await writePart();

    const workers = new Set<ChildProcess>();
    const startOne = (): void => {
      const args = [join(import.meta.dirname, "../workers/items.js"), place.socket, log];
      const child = spawn(process.execPath, [...args, String(LEASE_MS), String(MOST_WORK_MS)], {
        stdio: ["ignore", "ignore", "inherit"],
      });
      workers.add(child);
      child.once("exit", (code) => {
        workers.delete(child);
        // One that ends by itself has met something that must not be.
        if (code !== null) expect.soft(code, "exit code of a worker").toBe(0);
      });
    };
    const killAll = async (): Promise<void> => {
      const ended = [...workers].map((child) => new Promise((resolve) => child.once("exit", resolve)));
      for (const child of workers) child.kill("SIGKILL");
      await Promise.all(ended);
    };
    onTestFinished(killAll);
    for (let count = 0; count < WORKERS; count += 1) startOne();

    const killed = { workers: 0, daemons: 0, all: 0 };
    const startedAt = performance.now();
    let killWorkerAt = BEGUN_PER_KILL;
    for (;;) {
      const { working, done } = await lookAt(client);
      if (done === ITEMS) break;
      if (performance.now() - startedAt > GIVE_UP_MS) throw new Error(`only ${done} items are done`);
      expect(working.filter(({ agent, claim }) => claim === undefined || claim.agent !== agent)).toEqual([]);
      if (left.length > 0 && done > ITEMS - left.length - part / 2) {
        if (killed.all === 0 && killed.daemons >= DAEMON_KILLS / 2) {
          killed.all += 1;
          await killAll();
          // Nobody is left: so nobody is shown at work, once those of before a death of the daemon had their time.
          await expect.poll(async () => (await lookAt(client)).working, { timeout: 60_000 }).toEqual([]);
          for (let count = 0; count < WORKERS; count += 1) startOne();
        } else {
          killed.daemons += 1;
          await daemon.end("SIGKILL");
          daemon = await place.start();
          client = await place.connect();
        }
        await writePart();
      }
      const begun = begunIn(log);
      if (begun >= killWorkerAt) {
        killWorkerAt = begun + BEGUN_PER_KILL;
        // Of the older half, which are at work by now.
        const victim = [...workers][Math.floor((Math.random() * workers.size) / 2)];
        if (victim?.kill("SIGKILL")) {
          killed.workers += 1;
          startOne();
        }
      }
      await sleep(LOOK_EVERY_MS);
    }
    const tookMs = performance.now() - startedAt;
    await killAll();

    expect(killed).toMatchObject({ daemons: DAEMON_KILLS, all: 1 });
    expect(killed.workers).toBeGreaterThan(0);
    const lines = readFileSync(log, "utf8").trim().split("\n").map(parse);
    checkLog(lines, dependencies);
    let takenBack = 0;
    for (const storyId of dependencies.keys()) {
      const { changes } = await client.call("pipeline.history", { storyId, limit: 1000 });
      expect(changes.filter(({ set }) => set.stage === "5_done").length, storyId).toBe(1);
      const { item } = await client.call("pipeline.read", { storyId });
      const retries = changes.filter(({ delta }) => delta.retryCount === 1).length;
      expect(item).toMatchObject({ stage: "5_done", retryCount: retries });
      takenBack += retries;
    }
    expect(await differencesBy((params) => client.call("pipeline.rebuild", params))).toEqual([]);
    const begun = lines.filter(({ what }) => what === "begin").length;
    console.log(
      `${ITEMS} items in ${(tookMs / 1000).toFixed(1)} s; killed: ${killed.workers} workers, all of them once, ${killed.daemons} daemons; begun ${begun} times, taken back ${takenBack}`,
    );
    expect(await daemon.end()).toBe(0);
  },
  GIVE_UP_MS + 30_000,
);

async function lookAt(client: RawClient) {
  const { stages } = await client.call("pipeline.list", { limit: 1000 });
  return { working: stages["2_current"] ?? [], done: stages["5_done"]?.length ?? 0 };
}

/** How often an item was begun. */
function begunIn(log: string): number {
  return [...readFileSync(log, "utf8").matchAll(/^begin /gm)].length;
}

function parse(line: string): Line {
  const [what, storyId, token] = line.split(" ") as [Line["what"], string, string];
  return { what, storyId, token: Number(token) };
}

/** Nobody begins before what it depends on has ended, and nobody writes once another with a higher token has begun. */
function checkLog(lines: readonly Line[], dependencies: ReadonlyMap<string, readonly string[]>): void {
  const ended = new Set<string>();
  const tokens = new Map<string, number>();
  for (const { what, storyId, token } of lines) {
    const highest = tokens.get(storyId) ?? 0;
    if (what === "begin") {
      expect(token, `the token of ${storyId}`).toBeGreaterThan(highest);
      tokens.set(storyId, token);
      for (const each of dependencies.get(storyId) ?? []) {
        expect(ended.has(each), `${storyId} begins after ${each}`).toBe(true);
      }
    }
    if (what === "end") {
      expect(token, `${storyId} is worked on by one`).toBe(highest);
      ended.add(storyId);
    }
  }
  expect([...ended].sort()).toEqual([...dependencies.keys()].sort());
}

test.runIf(TORTURE)("a claim that waits has its item soon after the write that makes it ready", async () => {
  const { place } = await startDaemon();
  const [writer, worker] = [await place.connect(), await place.connect()];
  const [took, later]: [number[], number[]] = [[], []];
  for (let round = 0; round < 300; round += 1) {
    await writer.call("pipeline.write", { storyId: `A-${round}`, stage: "2_current" });
    await writer.call("pipeline.write", {
      storyId: `B-${round}`,
      stage: "1_backlog",
      dependsOn: [`A-${round}`],
    });
    const claim = worker.call("pipeline.claim", { agent: "ana", toStage: "2_current", waitMs: 60_000 });
    await worker.call("daemon.ping", {});
    let answeredAt = 0;
    const given = claim.then(() => {
      answeredAt = performance.now();
    });
    const from = performance.now();
    await writer.call("pipeline.write", { storyId: `A-${round}`, stage: "5_done" });
    const writtenAt = performance.now();
    await given;
    const { item, lease } = await claim;
    took.push(answeredAt - from);
    later.push(answeredAt - writtenAt);
    expect(item?.storyId).toBe(`B-${round}`);
    await worker.call("pipeline.finish", {
      storyId: `B-${round}`,
      fencingToken: lease?.fencingToken as number,
      toStage: "5_done",
    });
  }
  for (const [what, times] of [
    ["from the write", took],
    ["from the answer to the write", later],
  ] as const) {
    times.sort((a, b) => a - b);
    const at = (part: number): string => (times[Math.floor((times.length - 1) * part)] as number).toFixed(2);
    console.log(`${what} to the claim: median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
  }
});
