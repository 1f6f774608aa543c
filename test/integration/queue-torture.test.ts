// What queues promise where many act at once: rates, one sourceKey from many processes, flows whose batches fail, and
// cancels at the moment of completion. A short run of each always; with PAWL_TORTURE=1 a long one.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { BatchState, Params, Result } from "@pawl/protocol";
import { expect, onTestFinished, test } from "vitest";
import { ClientProcess } from "../client-process.js";
import { Place } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { Refused } from "../raw-client.js";

const RATE_FOR_MS = sized(60_000, 3000);
const PROCESSES = TORTURE ? 50 : 4;
const FLOW_BATCHES = sized(1000, 60);
const CANCELS = sized(1000, 60);
const LONG_MS = TORTURE ? 590_000 : 60_000;

type Batch = Result<"queue.get">["batch"];
type Claim = NonNullable<Result<"queue.claim">["claim"]>;

const RELAY = join(import.meta.dirname, "../workers/relay.js");

function proofOf({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

async function startDaemon(): Promise<Place> {
  const place = new Place();
  await place.start();
  return place;
}

/** The kind of a refusal, or what was answered. */
async function outcomeOf<T>(call: Promise<T>): Promise<T | string> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof Refused) return error.kind;
    throw error;
  }
}

test(
  "a rate over eight workers is never exceeded, in whatever window",
  async () => {
    const RATE = { count: 50, perMs: 1000 };
    const place = await startDaemon();
    const client = await place.connect();
    const queue = "limited";
    await client.call("queue.configure", { queue, rate: RATE });
    const wanted = RATE.count + Math.ceil((RATE_FOR_MS / RATE.perMs) * RATE.count);
    for (let left = wanted; left > 0; left -= 1000) {
      const batches = Array.from({ length: Math.min(1000, left) }, (_, index) => ({
        queue,
        payloads: [index],
      }));
      await client.call("queue.enqueueMany", { batches });
    }
    const claimedAt: number[] = [];
    const work = async (): Promise<void> => {
      const worker = await place.connect();
      for (;;) {
        const params = { queue, owner: "w", waitMs: 2000, maxBatches: 1 };
        const { claim } = await worker.call("queue.claim", params);
        if (claim === null) return;
        claimedAt.push(claim.claimedAt);
        await worker.call("queue.complete", proofOf(claim));
      }
    };
    await Promise.all(Array.from({ length: 8 }, work));
    claimedAt.sort((a, b) => a - b);
    expect(claimedAt).toHaveLength(wanted);
    // Between any two claims lie as many as the bucket holds, and those that came into it meanwhile.
    let closest = Number.POSITIVE_INFINITY;
    for (const [first, from] of claimedAt.entries()) {
      for (let last = first; last < claimedAt.length; last += 1) {
        // Times are shown to the millisecond.
        const ms = (claimedAt[last] as number) - from + 1;
        const room = RATE.count + (ms * RATE.count) / RATE.perMs - (last - first + 1);
        closest = Math.min(closest, room);
      }
    }
    expect(closest).toBeGreaterThanOrEqual(0);
    const tookMs = (claimedAt.at(-1) as number) - (claimedAt[0] as number);
    console.log(
      `${wanted} claims at ${RATE.count}/s in ${tookMs} ms; the bucket had ${closest.toFixed(2)} left`,
    );
  },
  RATE_FOR_MS * 3 + 30_000,
);

type Mode = NonNullable<Params<"queue.enqueue">["onExisting"]>;
const MODES: Mode[] = ["refuse", "return", "replace", "keepTime", "append", "rerun"];
type Start = BatchState | "none";
const STARTS: Start[] = [
  "none",
  "ready",
  "scheduled",
  "blocked",
  "claimed",
  "completed",
  "dead",
  "cancelled",
  "expired",
];
const KEY = "key";

/** Has the first batch of a sourceKey be in a state. */
async function bringTo(client: RawClient, queue: string, state: Start): Promise<Batch | undefined> {
  if (state === "none") return undefined;
  const more: Partial<Params<"queue.enqueue">> = {};
  if (state === "scheduled") more.delayMs = 3_600_000;
  if (state === "expired") more.ttlMs = 1;
  if (state === "blocked") {
    const parent = { queue: `${queue} parent`, payloads: [0], delayMs: 3_600_000 };
    more.after = [(await client.call("queue.enqueue", parent)).batch.batchId];
  }
  const params = { queue, payloads: ["first"], sourceKey: KEY, ...more };
  const { batch } = await client.call("queue.enqueue", params);
  const { batchId } = batch;
  if (state === "cancelled") await client.call("queue.cancel", { batchId });
  if (state === "expired") await client.call("queue.wait", { batchId, waitMs: 60_000 });
  if (state === "claimed" || state === "completed" || state === "dead") {
    const { claim } = await client.call("queue.claim", { queue, owner: "w", leaseMs: 3_600_000 });
    const proof = proofOf(claim as Claim);
    if (state === "completed") await client.call("queue.complete", proof);
    if (state === "dead") await client.call("queue.abandon", { ...proof, dead: true, error: "hopeless" });
  }
  const found = (await client.call("queue.get", { batchId })).batch;
  expect(found.state).toBe(state);
  return found;
}

/** What the first of many enqueues with one sourceKey is answered, and what all later ones are. */
function expectedOf(mode: Mode, state: Start): readonly [first: string, others: string] {
  const isFinal = ["completed", "dead", "cancelled", "expired"].includes(state);
  if (mode === "return") return [state === "none" ? "created" : "existing", "existing"];
  if (mode === "refuse") return [state === "none" ? "created" : "conflict", "conflict"];
  const changed = { replace: "replaced", keepTime: "kept", append: "appended", rerun: "follower" }[mode];
  if (state === "none" || isFinal) return ["created", changed];
  return mode === "rerun" || state === "claimed" ? ["follower", "follower"] : [changed, changed];
}

test(
  "one sourceKey, from many processes at once, in each mode and each state: outcomes say what is there",
  async () => {
    const place = await startDaemon();
    const client = await place.connect();
    const processes = Array.from({ length: PROCESSES }, () => {
      const child = spawn(process.execPath, [RELAY, place.socket], { stdio: ["pipe", "pipe", "inherit"] });
      const relay = new ClientProcess(child);
      onTestFinished(async () => {
        child.kill("SIGKILL");
        await relay.exited;
      });
      return relay;
    });
    let round = 0;
    for (const onExisting of MODES) {
      for (const state of STARTS) {
        const what = `${onExisting} of ${state}`;
        const queue = `dedupe ${onExisting} ${state}`;
        const first = await bringTo(client, queue, state);
        for (const [index, relay] of processes.entries()) {
          const params = { queue, payloads: [index], sourceKey: KEY, onExisting };
          relay.tell(JSON.stringify({ jsonrpc: "2.0", id: index, method: "queue.enqueue", params }));
        }
        const replies = await Promise.all(processes.map((relay) => relay.line<RawReply>(round)));
        round += 1;
        const answers = replies.map(({ result, error }) =>
          error === undefined ? (result as Result<"queue.enqueue">) : error.data.kind,
        );
        const outcomes = answers.map((each) => (typeof each === "string" ? each : each.outcome));
        const [one, others] = expectedOf(onExisting, state);
        expect(outcomes.toSorted(), what).toEqual(
          [one, ...Array.from({ length: PROCESSES - 1 }, () => others)].toSorted(),
        );

        const { batches } = await client.call("queue.list", { queue });
        const made = answers.filter((each) => typeof each !== "string" && each.created);
        expect(batches, what).toHaveLength((first === undefined ? 0 : 1) + made.length);
        const added = batches.filter(({ batchId }) => batchId !== first?.batchId);
        expect(added.length, what).toBeLessThanOrEqual(1 + (onExisting === "rerun" ? 1 : 0));
        const waiting = batches.filter((each) => each.state === "blocked" && each.after === undefined);
        expect(waiting.length, what).toBeLessThanOrEqual(1);
        for (const each of answers) {
          if (typeof each === "string") continue;
          expect(
            batches.some(({ batchId }) => batchId === each.batch.batchId),
            what,
          ).toBe(true);
        }

        if (onExisting === "refuse" || onExisting === "return") continue;
        // What was asked for last is what is there, whatever came before; appended is everything, each once.
        const { batch } = await client.call("queue.enqueue", {
          queue,
          payloads: ["last"],
          sourceKey: KEY,
          onExisting,
        });
        const held = (await client.call("queue.get", { batchId: batch.batchId })).batch.payloads;
        const all = Array.from({ length: PROCESSES }, (_, index) => index);
        const isAppended = onExisting === "append";
        const kept = isAppended && ["ready", "scheduled", "blocked"].includes(state) ? ["first"] : [];
        expect(isAppended ? new Set(held) : held, what).toEqual(
          isAppended ? new Set([...kept, ...all, "last"]) : ["last"],
        );
        if (isAppended) expect(held, what).toHaveLength(kept.length + PROCESSES + 1);
      }
    }
  },
  LONG_MS,
);

/** Numbers that are the same each time. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

test(
  "a flow with a fan-in, whose batches fail, are retried, cancelled and removed: each ends, and says why",
  async () => {
    const place = await startDaemon();
    const client = await place.connect();
    const queue = "flow";
    const random = randomFrom(16);
    const parents = (index: number): string[] =>
      index < 10 ? [] : Array.from({ length: 1 + random(3) }, () => `${random(index)}`);
    const batches = Array.from({ length: FLOW_BATCHES - 1 }, (_, index) => ({
      queue,
      payloads: [index],
      ref: `${index}`,
      after: [...new Set(parents(index))],
      ...(index < 10
        ? {}
        : { when: (["success", "success", "failure", "finished"] as const)[random(4)] as "success" }),
      maxAttempts: 2,
      retry: { baseMs: 1, factor: 1, jitter: false },
      ...(random(10) === 0 ? { delayMs: random(50) } : {}),
    }));
    // What others wait for is kept, so of the first half those can be removed that nobody else waits for.
    const awaited = batches.slice(FLOW_BATCHES / 2).map(({ ref }) => ref);
    const fanIn = { queue, payloads: ["last"], after: awaited, when: "finished" as const };
    const made = await client.call("queue.enqueueMany", { batches: [...batches, fanIn] });
    const ids = made.batches.map(({ batchId }) => batchId);
    const join = ids.at(-1) as string;
    let isOver = false;
    let isWorkedOff = false;
    const counted = { failed: 0, stopped: 0, cancelled: 0, retried: 0, purged: 0 };

    const work = async (): Promise<void> => {
      const worker = await place.connect();
      while (!isWorkedOff) {
        const { claim } = await worker.call("queue.claim", { queue, owner: "w", waitMs: 200 });
        if (claim === null) continue;
        await sleep(random(10));
        const how = random(6);
        const proof = proofOf(claim);
        if (how === 0) await outcomeOf(worker.call("queue.abandon", { ...proof, error: "it failed" }));
        else if (how === 1)
          await outcomeOf(worker.call("queue.abandon", { ...proof, error: "no", dead: true }));
        else await outcomeOf(worker.call("queue.complete", { ...proof, result: how }));
        if (how < 2) counted.failed += 1;
      }
    };
    const meddle = async (): Promise<void> => {
      const meddler = await place.connect();
      for (let count = 0; count < FLOW_BATCHES && !isOver; count += 1) {
        const batchId = ids[random(FLOW_BATCHES - 1)] as string;
        const how = random(5);
        if (how === 0) {
          const done = await outcomeOf(meddler.call("queue.cancel", { batchId, reason: "a test wants it" }));
          if (typeof done !== "string" && done.outcome === "cancelled") counted.cancelled += 1;
        } else if (how === 1) {
          // One that somebody works on.
          const { batches: held } = await meddler.call("queue.list", { queue, state: "claimed", limit: 10 });
          const one = held.find((each) => each.batchId !== join)?.batchId;
          if (one === undefined) continue;
          const params = { batchId: one, reason: "a test wants it", stop: true, graceMs: random(5) };
          const done = await outcomeOf(meddler.call("queue.cancel", params));
          if (typeof done !== "string" && done.outcome === "cancelling") counted.stopped += 1;
        } else if (how === 2) {
          const done = await outcomeOf(meddler.call("queue.purge", { batchIds: [batchId] }));
          if (typeof done !== "string") counted.purged += done.purged;
        } else {
          const done = await outcomeOf(meddler.call("queue.retry", { batchId }));
          if (typeof done !== "string") counted.retried += done.retried;
        }
        await sleep(random(4));
      }
    };
    const workers = Array.from({ length: 4 }, work);
    const meddling = meddle();
    const { batch: last } = await client.call("queue.wait", { batchId: join, waitMs: LONG_MS - 10_000 });
    isOver = true;
    await meddling;
    // Some may have been retried since.
    for (const batchId of ids) await outcomeOf(client.call("queue.wait", { batchId, waitMs: 60_000 }));
    isWorkedOff = true;
    await Promise.all(workers);

    expect(last.state).toMatch(/^(completed|dead)$/);
    const left: Batch[] = [];
    for (let after: number | undefined; ; ) {
      const page: Result<"queue.list"> = await client.call("queue.list", {
        queue,
        limit: 1000,
        ...(after === undefined ? {} : { after }),
      });
      left.push(...page.batches);
      if (page.next === undefined) break;
      after = page.next;
    }
    expect(left).toHaveLength(FLOW_BATCHES - counted.purged);
    const silent = left.filter(({ state, lastError }) => {
      if (state === "completed") return false;
      if (state === "dead") return lastError === undefined;
      return (
        state !== "cancelled" || !/^(a test wants it$|The batch qwb:|It waits for one)/.test(lastError ?? "")
      );
    });
    expect(silent).toEqual([]);
    const states = new Set(left.map(({ state }) => state));
    const shown = [...states].map((each) => `${left.filter(({ state }) => state === each).length} ${each}`);
    console.log(`${FLOW_BATCHES} batches: ${shown.join(", ")}; ${JSON.stringify(counted)}`);
  },
  LONG_MS,
);

test(
  "a cancel at the moment of completion: one of them is first, and all see the same",
  async () => {
    const place = await startDaemon();
    const [holder, other] = [await place.connect(), await place.connect()];
    const queue = "cancelled";
    const random = randomFrom(61);
    const first = { completed: 0, cancelled: 0 };
    for (let count = 0; count < CANCELS; count += 1) {
      const { batch } = await holder.call("queue.enqueue", { queue, payloads: [count] });
      const { batchId } = batch;
      const { claim } = await holder.call("queue.claim", { queue, owner: "w", notify: true });
      const proof = proofOf(claim as Claim);
      const graceMs = random(2) === 0 ? 0 : 60_000;
      const cancel = () =>
        outcomeOf(other.call("queue.cancel", { batchId, stop: true, graceMs, reason: "stop" }));
      const complete = () => outcomeOf(holder.call("queue.complete", { ...proof, result: count }));
      const isCancelFirst = random(2) === 0;
      const calls = isCancelFirst ? [cancel(), complete()] : [complete(), cancel()];
      const answers = await Promise.all(calls);
      const [cancelled, completed] = isCancelFirst ? answers : answers.toReversed();
      const { state, result, lastError } = (await other.call("queue.get", { batchId })).batch;
      if (state === "completed") {
        first.completed += 1;
        expect(completed).toEqual({ completed: 1 });
        expect(result).toBe(count);
        expect(["already_completed", ...(graceMs === 0 ? [] : ["cancelling"])]).toContain(
          (cancelled as { outcome: string }).outcome,
        );
      } else {
        first.cancelled += 1;
        expect([state, lastError, completed, graceMs]).toEqual(["cancelled", "stop", "claim_lost", 0]);
        expect(cancelled).toEqual({ outcome: "cancelling" });
      }
    }
    console.log(`${CANCELS} cancels: ${first.completed} were completed first, ${first.cancelled} cancelled`);
    expect(first.completed * first.cancelled).toBeGreaterThan(0);
  },
  LONG_MS,
);
