// One run of the history: a seed, a daemon, several lives of it, and what the checker says.
import { setTimeout as sleep } from "node:timers/promises";
import { Checker, type Finding } from "./check.js";
import type { Connection, Planned } from "./connection.js";
import type { FailingIo, Failure } from "./failing-io.js";
import type { Operation } from "./history.js";
import { DidNotStart, Lives } from "./lives.js";
import { Scene } from "./load.js";
import type { Connections, Json } from "./models/calls.js";
import { Random } from "./random.js";

const LIVES = 3;
const CALLERS = 5;
/** Requests that are sent at once. */
const MOST_PIPELINED = 6;
/** A life ends after some number of requests, which a slow machine may not reach. */
const LEAST_OPERATIONS = 30;
const MOST_OPERATIONS = 400;
const MOST_LIFE_MS = 3000;
const LOOK_EVERY_MS = 5;
const MOST_BEFORE_STOP_MS = 200;
const MOST_STOPPED_MS = 500;
const MOST_BETWEEN_MS = 12;
/** Nothing of the load is delayed for longer. */
const LONGEST_DELAY_MS = 200;

const FAILURES: readonly Failure[] = [
  { calls: "write", error: "EIO" },
  { calls: "write", error: "ENOSPC" },
  { calls: "write", error: "short" },
  { calls: "sync", error: "EIO" },
  { calls: "sync", error: "ENOSPC" },
];

export interface Counts {
  operations: number;
  unknown: number;
  kills: number;
  stops: number;
  /** Calls to the kernel that failed. */
  failures: number;
  /** Ends by itself of a daemon whose disk failed. */
  gaveUp: number;
  restarts: number;
}

export interface Run {
  findings: Finding[];
  counts: Counts;
  operations: Operation[];
  connections: Connections;
}

/** Runs one seed in a directory of its own. */
export async function runHistory(seed: number, directory: string, io: FailingIo): Promise<Run> {
  const random = new Random(seed);
  const lives = new Lives(directory);
  const scene = new Scene(random);
  const counts: Counts = {
    operations: 0,
    unknown: 0,
    kills: 0,
    stops: 0,
    failures: -io.failed,
    gaveUp: 0,
    restarts: 0,
  };
  const findings: Finding[] = [];
  try {
    for (let life = 0; life < LIVES; life += 1) await live(lives, scene, random, io, counts);
    await lives.start({ env: io.env });
    await drainAll(lives, scene);
    const how = await lives.end("SIGTERM");
    if (how !== 0) findings.push(`after SIGTERM it ended with ${how}: ${lives.log.slice(-5).join("\n")}`);
  } finally {
    io.stop();
    lives.signal("SIGKILL");
  }
  const operations = lives.takeOperations();
  counts.operations = operations.length;
  counts.unknown = operations.filter(({ outcome }) => outcome.kind === "unknown").length;
  counts.failures += io.failed;
  findings.push(...lives.complaints, ...new Checker(lives.recording).check(operations));
  return { findings, counts, operations, connections: lives.recording };
}

/** One life of the daemon: load, and something that goes wrong. */
async function live(
  lives: Lives,
  scene: Scene,
  random: Random,
  io: FailingIo,
  counts: Counts,
): Promise<void> {
  await startThatMayFail(lives, io);
  counts.restarts += 1;
  const callers = Array.from({ length: CALLERS }, (_, index) => caller(lives, scene, random, index));
  const kind = random.next();
  const until = lives.operations + LEAST_OPERATIONS + random.upTo(MOST_OPERATIONS);
  let end: NodeJS.Signals = "SIGKILL";
  const failedBefore = io.failed;
  const fails = kind < 0.4;
  if (fails) {
    const failure = random.of(FAILURES);
    io.fail(failure, random.upTo(40), failure.error === "EIO" ? 1 : random.upTo(40));
  } else if (kind < 0.65) {
    await sleep(random.next() * MOST_BEFORE_STOP_MS);
    lives.signal("SIGSTOP");
    await sleep(random.next() * MOST_STOPPED_MS);
    lives.signal("SIGCONT");
    counts.stops += 1;
  } else if (kind < 0.72) {
    end = "SIGTERM";
  }
  const from = performance.now();
  const isDone = (): boolean => lives.operations >= until && !(fails && io.failed === failedBefore);
  while (lives.isAlive && !isDone() && performance.now() - from < MOST_LIFE_MS) await sleep(LOOK_EVERY_MS);
  const byItself = !lives.isAlive;
  const how = await lives.end(end);
  io.stop();
  await Promise.all(callers);
  if (how === "SIGKILL") counts.kills += 1;
  if (byItself) counts.gaveUp += 1;
  // A disk that fails ends a daemon with 1; nothing else does.
  if (byItself && how !== 1)
    lives.complaints.push(`the daemon ended with ${how}: ${lives.log.slice(-5).join("\n")}`);
}

async function startThatMayFail(lives: Lives, io: FailingIo): Promise<void> {
  try {
    await lives.start({ env: io.env });
  } catch (error) {
    if (!(error instanceof DidNotStart)) throw error;
    lives.complaints.push(error.message);
    await lives.start({ env: io.env });
  }
}

/** Asks until its connection is lost, which it may bring about itself. */
async function caller(lives: Lives, scene: Scene, random: Random, index: number): Promise<void> {
  const connection = await lives.tryConnect();
  if (connection === undefined) return;
  if (index === 0) await ask(connection, scene, scene.readAll());
  if (index === 1) serve(lives, connection, scene);
  // One of them dies, with requests under way.
  const dies = index === CALLERS - 1;
  for (let round = random.upTo(40); !connection.isOver; round -= 1) {
    const answered = ask(connection, scene, scene.plan(MOST_PIPELINED));
    if (dies && round === 0) {
      await sleep(1);
      connection.destroy();
    }
    await answered;
    await sleep(random.next() * MOST_BETWEEN_MS);
  }
}

async function ask(connection: Connection, scene: Scene, planned: readonly Planned[]): Promise<void> {
  scene.learn(planned, await connection.send(planned));
}

/**
 * Has commands pushed to a connection, and records what it is sent and what it answers.
 *
 * @param deployment of which nothing is answered; undefined for the one of the load.
 */
export function serve(lives: Lives, connection: Connection, scene: Scene, deployment?: string): void {
  const sent = lives.recording.now();
  connection.onExecute = (execution) => {
    const params = execution.params as Json;
    const object = `command:${params.params.label}`;
    const common = { connection: connection.id, waits: true };
    lives.record({
      ...common,
      calls: [{ object, method: "command.execute", params: {} }],
      outcome: { kind: "answered", results: [params] },
      sent,
      ended: lives.recording.now(),
    });
    const response = deployment === undefined ? scene.answer(connection, execution) : undefined;
    if (response === undefined) return;
    const { commandId, leaseId } = params;
    lives.record({
      ...common,
      calls: [{ object, method: "command.respond", params: { commandId, leaseId, response } }],
      outcome: { kind: "unknown" },
      sent: lives.recording.now(),
      ended: { order: Number.POSITIVE_INFINITY, ms: Number.POSITIVE_INFINITY },
    });
  };
  const params = { deployment: deployment ?? scene.pushed, owner: "load", max: 2 };
  connection.write(JSON.stringify({ jsonrpc: "2.0", id: "serve", method: "command.serve", params }));
}

/** Takes all that is left in the queues. A claim that finds nothing although there is something, the checker sees. */
export async function drainAll(lives: Lives, scene: Scene): Promise<void> {
  const connection = (await lives.tryConnect()) as Connection;
  await ask(connection, scene, scene.readAll());
  await Promise.all(scene.queues.map((queue) => drain(connection, queue)));
  await ask(connection, scene, scene.readAll());
  await Promise.all(scene.queues.map((queue) => drain(connection, queue)));
}

async function drain(connection: Connection, queue: string): Promise<void> {
  const object = `queue:${queue}`;
  for (;;) {
    const params = { queue, owner: "drain", maxBatches: 100, waitMs: 2 * LONGEST_DELAY_MS };
    const [claimed] = await connection.send([
      { calls: [{ object, method: "queue.claim", params }], waits: true },
    ]);
    const claim = claimed?.kind === "answered" ? (claimed.results[0] as Json).claim : null;
    if (claim === null) return;
    const { claimId, leaseToken } = claim;
    await connection.send([
      { calls: [{ object, method: "queue.complete", params: { claimId, leaseToken } }] },
    ]);
  }
}
