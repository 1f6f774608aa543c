// Calls that come at the same moment as something that excludes them, tried again and again with shifted timing:
// whichever comes first wins, the other is told so, and there is one answer. PAWL_TORTURE=1 tries each a thousand
// times.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { Params, Result } from "@pawl/protocol";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import {
  answer,
  answerTo,
  create,
  ended,
  get,
  type Leased,
  newDeployment,
  pushed,
  take,
} from "../commands.js";
import { NAMES_ARE_SHARED, sharedDaemon } from "../daemon.js";
import { sized } from "../long-form.js";
import { type RawClient, type RawReply, Refused } from "../raw-client.js";

const TRIES = sized(1000, 120);
const AT_A_TIME = 40;
/** A request for a certain moment is sent so long before it to so long after it; of shared names it has far to go. */
const EARLIEST_MS = NAMES_ARE_SHARED ? -400 : -120;
const LATEST_MS = 15;
/** What lasts no longer than twice a round trip to a database is given back. */
const LEASE_MS = NAMES_ARE_SHARED ? 2000 : 200;
const MOST_SHIFT_MICROSECONDS = 1500;
const HEAD_START_MS = 20;

const daemon = sharedDaemon();
/** Two peers that get in each other's way, and one that looks on. */
let one: RawClient;
let other: RawClient;
let client: RawClient;

beforeAll(async () => {
  [one, other, client] = [
    await daemon().place.connect(),
    await daemon().place.connect(),
    await daemon().place.connect(),
  ];
});

/** Performs all tries, some at a time, and counts how they ended. */
async function tries(perform: (number: number) => Promise<string>): Promise<Record<string, number>> {
  const ends: Record<string, number> = {};
  for (let from = 0; from < TRIES; from += AT_A_TIME) {
    const some = Array.from({ length: Math.min(AT_A_TIME, TRIES - from) }, (_, index) =>
      perform(from + index),
    );
    for (const end of await Promise.all(some)) ends[end] = (ends[end] ?? 0) + 1;
  }
  console.log(`${expect.getState().currentTestName}: ${JSON.stringify(ends)}`);
  return ends;
}

/** A moment around another, later with each try. */
function shift(number: number): number {
  return EARLIEST_MS + ((LATEST_MS - EARLIEST_MS) * number) / (TRIES - 1);
}

/** A pause shorter than timers are exact. */
async function shortPause(): Promise<void> {
  const end = performance.now() + (Math.random() * MOST_SHIFT_MICROSECONDS) / 1000;
  while (performance.now() < end) await new Promise((resolve) => setImmediate(resolve));
}

type Responded = Result<"command.respond"> | { refused: string };

async function respondWith(
  by: RawClient,
  { commandId, leaseId }: { commandId: string; leaseId: string },
  response: string,
): Promise<Responded> {
  try {
    return await by.call("command.respond", {
      commandId,
      leaseId,
      response: { status: "success", response },
    });
  } catch (error) {
    if (error instanceof Refused) return { refused: error.kind };
    throw error;
  }
}

test("a holder answers as its lease ends and a second one waits: one of them does, and the other is told", async () => {
  const ends = await tries(async (number) => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const first = await take(one, deployment, { leaseMs: LEASE_MS });
    const waiting = other.call("command.lease", { deployment, owner: "second", waitMs: LEASE_MS * 4 });
    const byFirst = sleep(first.leaseExpiresAt + shift(number) - Date.now()).then(() =>
      respondWith(one, first, "first"),
    );
    const [second] = (await waiting).leases;
    const bySecond = second === undefined ? undefined : await respondWith(other, second, "second");
    const outcome = { first: await byFirst, second: bySecond };
    const final = await get(client, commandId);
    const stored = await answerTo(client, commandId);
    if (second === undefined) {
      expect(outcome.first).toEqual({ state: "SUCCEEDED", accepted: true });
      expect(final.state).toBe("SUCCEEDED");
      // A busy daemon may find the answer late, and write the end before it, which counts the attempt.
      expect([1, 2]).toContain(final.attempt);
      const lateMs = (final.completedAt as number) - first.leaseExpiresAt;
      if (final.attempt === 2 && !NAMES_ARE_SHARED) expect(lateMs).toBeGreaterThanOrEqual(0);
      expect(stored).toEqual({ status: "success", response: "first" });
      return "first";
    }
    expect(second).toMatchObject({ commandId, attempt: 2 });
    expect(outcome.second).toEqual({ state: "SUCCEEDED", accepted: true });
    expect(final).toMatchObject({ state: "SUCCEEDED", attempt: 2 });
    expect(stored).toEqual({ status: "success", response: "second" });
    // While the second has it, or after it has answered.
    if ("refused" in outcome.first) {
      expect(outcome.first.refused).toBe("lease_lost");
      return "second, first lost";
    }
    expect(outcome.first).toEqual({ state: "SUCCEEDED", accepted: false });
    return "second, first late";
  });
  expect(ends.first).toBeGreaterThan(0);
  expect(ends.first).toBeLessThan(TRIES);
});

/** A command that a receiver has; on a busy machine others may be over before anybody is given them. */
async function takenBeforeDeadline(): Promise<{ commandId: string; leased: Leased }> {
  for (;;) {
    const deployment = newDeployment();
    const commandId = await create(client, deployment, { ttlMs: LEASE_MS });
    const { leases } = await one.call("command.lease", { deployment, owner: "test" });
    const [leased] = leases;
    if (leased !== undefined) return { commandId, leased };
  }
}

test("an answer comes with the deadline: it counts, or the command has expired", async () => {
  const ends = await tries(async (number) => {
    const { commandId, leased } = await takenBeforeDeadline();
    await sleep((leased.envelope.deadline as number) + shift(number) - Date.now());
    const outcome = await respondWith(one, leased, "in time");
    const final = await get(client, commandId);
    expect(await ended(client, commandId)).toEqual(final);
    const stored = await answerTo(client, commandId);
    if ("refused" in outcome) throw new Error(`refused: ${outcome.refused}`);
    expect(outcome).toEqual({ state: final.state, accepted: final.state === "SUCCEEDED" });
    if (outcome.accepted) {
      expect(stored).toEqual({ status: "success", response: "in time" });
      // The end of what is shared is written some milliseconds after its time, and an answer may come before it is.
      if (!NAMES_ARE_SHARED) expect(final.completedAt).toBeLessThan(final.deadline as number);
    } else {
      expect(stored).toMatchObject({ status: "error", code: "EXPIRED" });
      expect(final).toMatchObject({ state: "EXPIRED", attempt: 1 });
      expect(final.completedAt).toBeGreaterThanOrEqual(final.deadline as number);
    }
    return final.state;
  });
  expect(ends.SUCCEEDED).toBeGreaterThan(0);
  expect(ends.EXPIRED).toBeGreaterThan(0);
});

test("a cancellation comes with the answer: the command is what came first", async () => {
  const ends = await tries(async (number) => {
    const deployment = newDeployment();
    const commandId = await create(client, deployment);
    const leased = await take(one, deployment);
    // Of two that a busy daemon finds at once, the cancellation comes from who has asked for less.
    const headStartMs = number % 4 === 0 ? HEAD_START_MS : 0;
    const [outcome, cancelled] = await Promise.all([
      shortPause().then(() => respondWith(one, leased, "done")),
      sleep(headStartMs)
        .then(shortPause)
        .then(() => other.call("command.cancel", { commandId, reason: "Enough." })),
    ]);
    const final = await get(client, commandId);
    expect(cancelled).toEqual({ state: final.state });
    expect(outcome).toEqual({ state: final.state, accepted: final.state === "SUCCEEDED" });
    expect(await answerTo(client, commandId)).toEqual(
      final.state === "SUCCEEDED"
        ? { status: "success", response: "done" }
        : { status: "error", code: "CANCELLED", message: "Enough." },
    );
    return final.state;
  });
  // Round trips decide which of the two is first where names are shared.
  if (!NAMES_ARE_SHARED) expect(ends.SUCCEEDED).toBeGreaterThan(0);
  expect(ends.FAILED).toBeGreaterThan(0);
});

test("a cancellation comes with the answer to a push", async () => {
  const receiver = await daemon().place.connect();
  const ends: Record<string, number> = {};
  const deployment = newDeployment();
  let late = (await client.call("daemon.stats", {})).commands.lateAnswers;
  await receiver.call("command.serve", { deployment, owner: "receiver", max: 1 });
  for (let number = 0; number < TRIES; number += 1) {
    const commandId = await create(client, deployment);
    const request = await pushed(receiver);
    expect(request.params.commandId).toBe(commandId);
    const [, cancelled] = await Promise.all([
      shortPause().then(() => answer(receiver, request, { result: "done" })),
      shortPause().then(() => other.call("command.cancel", { commandId })),
    ]);
    await receiver.call("daemon.ping", {});
    const final = await get(client, commandId);
    expect(cancelled).toEqual({ state: final.state });
    expect((await answerTo(client, commandId))?.status).toBe(
      final.state === "SUCCEEDED" ? "success" : "error",
    );
    // Its receiver is told of it, if there was something to tell.
    const told = receiver.lines.splice(0).map((line) => JSON.parse(line).method);
    expect(told).toEqual(final.state === "SUCCEEDED" ? [] : ["command.cancelled"]);
    // An answer that came too late is counted; of many, the log has the first ones.
    if (final.state === "FAILED") late += 1;
    expect((await client.call("daemon.stats", {})).commands.lateAnswers).toBe(late);
    ends[final.state] = (ends[final.state] ?? 0) + 1;
  }
  console.log(`a cancellation comes with the answer to a push: ${JSON.stringify(ends)}`);
  expect(ends.SUCCEEDED).toBeGreaterThan(0);
  expect(ends.FAILED).toBeGreaterThan(0);
});

/** A process that creates a command for each of the params that it is given. */
class Creator {
  readonly #child: ChildProcess;
  readonly #replies: AsyncIterator<string>;

  constructor() {
    const program = join(import.meta.dirname, "../workers/create.js");
    const args = [program, daemon().place.socket, String(MOST_SHIFT_MICROSECONDS)];
    this.#child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    const output = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    this.#replies = output[Symbol.asyncIterator]();
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  async line(): Promise<string> {
    return (await this.#replies.next()).value;
  }

  async create(params: Params<"command.create">): Promise<RawReply> {
    this.#child.stdin?.write(`${JSON.stringify(params)}\n`);
    return JSON.parse(await this.line());
  }
}

test("two processes create with one key: one command, or a conflict if they differ", async () => {
  const creators = [new Creator(), new Creator()] as const;
  for (const creator of creators) expect(await creator.line()).toBe("ready");
  const deployment = newDeployment();
  const firsts = [0, 0];
  for (let number = 0; number < TRIES; number += 1) {
    const isSame = number % 2 === 0;
    const replies = await Promise.all(
      creators.map((creator, index) =>
        creator.create({
          deployment,
          command: "run",
          idempotencyKey: String(number),
          params: isSame ? { b: 1, a: number } : { process: index },
        }),
      ),
    );
    const results = replies.map(({ result }) => result as Result<"command.create"> | undefined);
    const first = results.findIndex((result) => result?.created);
    const { commandId } = results[first] as Result<"command.create">;
    const [second] = replies.toSpliced(first, 1) as [RawReply];
    if (isSame) {
      expect(second.result).toMatchObject({ commandId, created: false, state: "PENDING" });
    } else {
      expect(second.error?.data).toMatchObject({ kind: "conflict", idempotencyKey: String(number) });
      expect(second.error?.data.first).toMatchObject({ commandId });
    }
    firsts[first] = (firsts[first] as number) + 1;
  }
  const { commands } = await client.call("command.list", { deployment, state: "PENDING", limit: 1000 });
  expect(commands).toHaveLength(TRIES);
  console.log(`two processes create with one key: first ${firsts.join(" and ")} times`);
  expect(Math.min(...firsts)).toBeGreaterThan(0);
});
