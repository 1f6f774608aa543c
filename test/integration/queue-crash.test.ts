// Many worker processes on one queue, while some of them and the daemon itself are killed again and again: of batches
// without keys, and of keys in their order, one at a time. A short run of each always; with PAWL_TORTURE=1 a long one:
// 20 workers, 20,000 batches, ten deaths of the daemon, and 8 workers on 8,000 batches of 16 keys.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { type DaemonProcess, Place } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import type { RawClient } from "../raw-client.js";

const WITHOUT_KEYS: Run = TORTURE
  ? { workers: 20, batches: sized(20_000, 600), batchesPerKill: 40, daemonKills: sized(10, 2), keys: 0 }
  : { workers: 5, batches: 240, batchesPerKill: 20, daemonKills: 2, keys: 0 };
const WITH_KEYS: Run = TORTURE
  ? { workers: 8, batches: sized(8000, 160), batchesPerKill: 40, daemonKills: sized(8, 1), keys: 16 }
  : { workers: 5, batches: 80, batchesPerKill: 10, daemonKills: 1, keys: 3 };
/** Long beside a stall of the machine, so that nobody who is alive outlives its lease. */
const LEASE_MS = 3000;
const MOST_WORK_MS = 8;
const ENQUEUED_AT_ONCE = 500;
const LOOK_EVERY_MS = 50;
const GIVE_UP_MS = TORTURE ? 600_000 : 110_000;

interface Run {
  readonly workers: number;
  readonly batches: number;
  /** A worker is killed each time that so many more are completed: however slow the machine is, they come to work. */
  readonly batchesPerKill: number;
  readonly daemonKills: number;
  /** How many keys the batches are of, each in its order and one at a time; 0 for none. */
  readonly keys: number;
}

interface Line {
  what: "begin" | "end" | "late" | "done" | "lost";
  seq: number;
  token: number;
}

test.each([
  ["each done once", WITHOUT_KEYS],
  ["never two of a key at once, none out of its order, none stuck", WITH_KEYS],
])(
  "workers, batches, kill -9 of workers and of the daemon: %s",
  async (
    _,
    { workers: WORKERS, batches: BATCHES, batchesPerKill, daemonKills: DAEMON_KILLS, keys: KEYS },
  ) => {
    const place = new Place();
    const log = join(place.directory, "shared.log");
    writeFileSync(log, "");
    let daemon = await place.start();
    let client = await place.connect();
    const seqs: number[] = [];
    if (KEYS > 0) {
      await client.call("queue.configure", { queue: "work", maxClaimedPerKey: 1, keyOrder: "strict" });
    }
    const keyOf = (index: number): string => `key ${index % KEYS}`;
    for (let from = 0; from < BATCHES; from += ENQUEUED_AT_ONCE) {
      const batches = Array.from({ length: Math.min(ENQUEUED_AT_ONCE, BATCHES - from) }, (_, index) => ({
        queue: "work",
        payloads: [from + index],
        ...(KEYS === 0 ? {} : { key: keyOf(from + index) }),
        maxAttempts: 0,
        retry: { baseMs: 0 },
      }));
      const result = await client.call("queue.enqueueMany", { batches });
      seqs.push(...result.batches.map(({ enqueueSeq }) => enqueueSeq));
    }

    const workers = new Set<ChildProcess>();
    const startOne = (): void => {
      const args = [join(import.meta.dirname, "../workers/queue.js"), place.socket, "work", log];
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
    onTestFinished(() => {
      for (const child of workers) child.kill("SIGKILL");
    });
    for (let count = 0; count < WORKERS; count += 1) startOne();

    const killed = { workers: 0, daemons: 0 };
    const startedAt = performance.now();
    let killWorkerAt = batchesPerKill;
    for (;;) {
      const completed = await completedOf(client);
      if (completed === BATCHES) break;
      if (performance.now() - startedAt > GIVE_UP_MS)
        throw new Error(`only ${completed} batches are completed`);
      // Spread over the whole run by how much of the work is done.
      if (
        completed > (BATCHES * (killed.daemons + 1)) / (DAEMON_KILLS + 2) &&
        killed.daemons < DAEMON_KILLS
      ) {
        killed.daemons += 1;
        ({ daemon, client } = await restart(daemon, place));
      }
      if (completed >= killWorkerAt) {
        killWorkerAt += batchesPerKill;
        // Of the older half, which are at work by now.
        const victim = [...workers][Math.floor((Math.random() * workers.size) / 2)];
        if (victim?.kill("SIGKILL")) {
          killed.workers += 1;
          startOne();
        }
      }
      await sleep(LOOK_EVERY_MS);
    }

    expect(killed.daemons).toBe(DAEMON_KILLS);
    expect(killed.workers).toBeGreaterThan(DAEMON_KILLS);
    const { queues } = await client.call("queue.stats", { queue: "work" });
    expect(queues[0]).toMatchObject({
      ready: 0,
      scheduled: 0,
      claimed: 0,
      completed: BATCHES,
      dead: 0,
      cancelled: 0,
    });
    for (const child of workers) child.kill("SIGKILL");
    const lines = readFileSync(log, "utf8").trim().split("\n").map(parse);
    checkLog(lines, seqs);
    if (KEYS > 0) checkKeys(lines, new Map(seqs.map((seq, index) => [seq, keyOf(index)])));
    const redone = lines.filter(({ what }) => what === "begin").length - BATCHES;
    console.log(
      `${BATCHES} batches in ${((performance.now() - startedAt) / 1000).toFixed(1)} s; killed: ${killed.workers} workers, ${killed.daemons} daemons; begun again: ${redone}`,
    );
    expect(await daemon.end()).toBe(0);
  },
  GIVE_UP_MS + 30_000,
);

async function completedOf(client: RawClient): Promise<number> {
  const { queues } = await client.call("queue.stats", { queue: "work" });
  return queues[0]?.completed ?? 0;
}

async function restart(
  daemon: DaemonProcess,
  place: Place,
): Promise<{ daemon: DaemonProcess; client: RawClient }> {
  await daemon.end("SIGKILL");
  return { daemon: await place.start(), client: await place.connect() };
}

function parse(text: string): Line {
  const [what, seq, token] = text.split(" ");
  return { what: what as Line["what"], seq: Number(seq), token: Number(token) };
}

/**
 * Each batch was begun under rising tokens, nobody worked on it after somebody else had begun with a higher token,
 * and once its completion was confirmed nobody got it any more.
 */
function checkLog(lines: readonly Line[], seqs: readonly number[]): void {
  const batches = new Map<number, { token: number; isEnded: boolean; done: number | undefined }>();
  const offenders: string[] = [];
  for (const { what, seq, token } of lines) {
    const batch = batches.get(seq) ?? { token: 0, isEnded: true, done: undefined };
    batches.set(seq, batch);
    const complain = (why: string): void => void offenders.push(`${what} ${seq} ${token}: ${why}`);
    if (what === "begin") {
      if (token <= batch.token) complain(`after a begin with ${batch.token}`);
      if (batch.done !== undefined) complain(`after it was done with ${batch.done}`);
      batch.token = token;
      batch.isEnded = false;
    } else if (what === "end") {
      if (token !== batch.token) complain(`while it was held with ${batch.token}`);
      if (batch.isEnded) complain("it had ended");
      batch.isEnded = true;
    } else if (what === "done") {
      if (token !== batch.token) complain(`though ${batch.token} was given out`);
      if (batch.done !== undefined && batch.done !== token) complain(`also done with ${batch.done}`);
      batch.done = token;
    }
  }
  expect(offenders).toEqual([]);
  // None that was enqueued was never begun, and nothing else was.
  expect([...batches.keys()].sort((a, b) => a - b)).toEqual([...seqs].sort((a, b) => a - b));
}

/**
 * No batch of a key was begun before each earlier one of it had been worked on to its end, nor while another was worked
 * on: one whose worker was killed is begun again first.
 */
function checkKeys(lines: readonly Line[], keys: ReadonlyMap<number, string>): void {
  const all = [...keys];
  const begun = new Set<number>();
  const ended = new Set<number>();
  const offenders: string[] = [];
  for (const { what, seq } of lines) {
    if (what === "end" || what === "late") ended.add(seq);
    if (what !== "begin") continue;
    for (const [other, key] of all) {
      if (key !== keys.get(seq)) continue;
      if (other < seq && !ended.has(other)) offenders.push(`${seq} was begun before ${other} had ended`);
      if (other > seq && begun.has(other)) offenders.push(`${seq} was begun after ${other}`);
    }
    begun.add(seq);
    ended.delete(seq);
  }
  expect(offenders).toEqual([]);
}
