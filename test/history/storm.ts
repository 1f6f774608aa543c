// Everything at once: a load of all nouns, and faults at random, life after life, with the checker behind them.
import { setTimeout as sleep } from "node:timers/promises";
import { Checker, type Finding } from "./check.js";
import type { FailingIo } from "./failing-io.js";
import { Clock, ENDS, FAULTS, faketime, type Stage } from "./faults.js";
import { type Life, Lives } from "./lives.js";
import { Scene } from "./load.js";
import { Random } from "./random.js";
import { serve } from "./run.js";

const LEAST_LIVES = 2;
const CALLERS = 6;
const MOST_PIPELINED = 5;
const MOST_BETWEEN_MS = 40;
const CONNECTS_AGAIN_MS = 20;
/** After so many operations the load goes on to new queues, leases and commands. */
const MOST_OF_ONE_SCENE = 400;
/** Of a life, the descriptors where they are few. */
const FEW_DESCRIPTORS = 200;
const MIB = 1024 * 1024;
/** However hostile the load is, memory stays below it (spec: wire.md). */
const MOST_MEMORY_BYTES = 400 * MIB;
const ANSWERED_MS = 20_000;

export interface Storm {
  findings: Finding[];
  /** How many of each fault. */
  faults: Record<string, number>;
  operations: number;
  unknown: number;
  lives: number;
  /** The most memory that a daemon had, and the most that one had at the end of a life, in MiB. */
  peakMiB: number;
  restMiB: number;
}

/**
 * Runs for so long.
 *
 * @param lifeMs how long one life of the daemon lasts, about.
 */
export async function runStorm(
  seed: number,
  directory: string,
  io: FailingIo,
  { durationMs, lifeMs }: { durationMs: number; lifeMs: number },
): Promise<Storm> {
  const storm = new RunningStorm(seed, directory, io);
  const until = performance.now() + durationMs;
  try {
    while (performance.now() < until || storm.result.lives < LEAST_LIVES) await storm.live(lifeMs);
    await storm.check();
    await storm.stage.lives.end("SIGTERM");
  } finally {
    io.stop();
    storm.stage.lives.signal("SIGCONT");
    storm.stage.lives.signal("SIGKILL");
  }
  return storm.result;
}

class RunningStorm {
  readonly stage: Stage;
  readonly result: Storm = {
    findings: [],
    faults: {},
    operations: 0,
    unknown: 0,
    lives: 0,
    peakMiB: 0,
    restMiB: 0,
  };
  readonly #checker: Checker;
  /** Names whose state has not been read in the end. */
  #scenes: Scene[] = [];
  #epoch = 0;
  #sceneBegan = 0;
  #hasEnded = false;

  constructor(seed: number, directory: string, io: FailingIo) {
    const lives = new Lives(directory);
    this.stage = {
      lives,
      random: new Random(seed),
      io,
      clock: faketime === undefined ? undefined : new Clock(directory, faketime),
      complain: (what) => this.#find(what),
    };
    this.#checker = new Checker(lives.recording);
    this.#beginScene();
  }

  /** One life: the check of the one before, a load, faults, and an end. */
  async live(lifeMs: number): Promise<void> {
    const { lives, random } = this.stage;
    await this.check();
    this.result.lives += 1;
    this.#hasEnded = false;
    const callers = Array.from({ length: CALLERS }, (_, index) => this.#caller(index));
    const until = performance.now() + lifeMs * (0.5 + random.next());
    while (performance.now() < until && lives.isAlive) {
      await sleep(random.next() * 1000);
      // The fault before may have ended it meanwhile.
      if (!lives.isAlive) break;
      await this.#bring(FAULTS);
      await this.#isAnswered();
    }
    this.#measure();
    if (lives.isAlive) await this.#bring(ENDS);
    else await this.#endedByItself();
    this.#hasEnded = true;
    await Promise.all(callers);
  }

  /** Starts the next life, reads all that there is, and has the checker follow it. */
  async check(): Promise<void> {
    const { lives } = this.stage;
    await lives.start(this.#life());
    const connection = await lives.tryConnect();
    for (const scene of this.#scenes) await connection?.send(scene.readAll());
    const operations = lives.takeOperations();
    this.result.operations += operations.length;
    this.result.unknown += operations.filter(({ outcome }) => outcome.kind === "unknown").length;
    for (const finding of [...lives.complaints.splice(0), ...this.#checker.check(operations)])
      this.#find(finding);
    this.#checker.forget((object) => !object.startsWith("sequence:"));
    this.#scenes = [];
    this.#beginScene();
  }

  /** A daemon on which the faults can have an effect. */
  #life(): Life {
    const { random, io, clock } = this.stage;
    const preloaded = [clock?.env.LD_PRELOAD, io.library].filter((path) => path !== undefined);
    const life: Life = { env: { ...clock?.env, ...io.env, LD_PRELOAD: preloaded.join(":") } };
    const kind = random.next();
    if (kind < 0.15) {
      this.#count("log on a full disk");
      return { ...life, log: "/dev/full" };
    }
    return kind < 0.4 ? { ...life, descriptors: FEW_DESCRIPTORS } : life;
  }

  async #bring(faults: Record<string, (stage: Stage) => Promise<void>>): Promise<void> {
    const name = this.stage.random.of(Object.keys(faults));
    if (name === "clock step" && this.stage.clock === undefined) return;
    this.#count(name);
    await faults[name]?.(this.stage);
  }

  /** Nothing but its disk may end a daemon, with 1. */
  async #endedByItself(): Promise<void> {
    const how = await this.stage.lives.end();
    this.#count("gave up by itself");
    if (how !== 1) this.#find(`it ended with ${how}: ${this.stage.lives.log.slice(-5).join("\n")}`);
  }

  /** After a fault it answers whoever comes. */
  async #isAnswered(): Promise<void> {
    const { lives } = this.stage;
    const from = performance.now();
    while (lives.isAlive && performance.now() - from < ANSWERED_MS) {
      const connection = await lives.tryConnect();
      const answer = connection?.send([{ calls: [{ object: "", method: "daemon.ping", params: {} }] }]);
      const [reply] = (await Promise.race([answer, sleep(ANSWERED_MS, [], { ref: false })])) ?? [];
      connection?.destroy();
      if (reply !== undefined) return;
      await sleep(CONNECTS_AGAIN_MS);
    }
    if (lives.isAlive) this.#find(`it does not answer: ${lives.log.slice(-5).join("\n")}`);
  }

  #measure(): void {
    if (!this.stage.lives.isAlive) return;
    const { now, peak } = this.stage.lives.memory();
    this.result.peakMiB = Math.max(this.result.peakMiB, Math.round(peak / MIB));
    this.result.restMiB = Math.max(this.result.restMiB, Math.round(now / MIB));
    if (peak > MOST_MEMORY_BYTES) this.#find(`it had ${Math.round(peak / MIB)} MiB of memory`);
  }

  /** Asks over one connection after the other. */
  async #caller(index: number): Promise<void> {
    const { lives, random } = this.stage;
    while (!this.#hasEnded && lives.isAlive) {
      const connection = await lives.tryConnect();
      if (connection === undefined) {
        await sleep(CONNECTS_AGAIN_MS);
        continue;
      }
      if (index === 0) serve(lives, connection, this.#scene);
      for (let rounds = random.upTo(200); rounds > 0 && !connection.isOver && !this.#hasEnded; rounds -= 1) {
        const scene = this.#scene;
        const planned = scene.plan(MOST_PIPELINED);
        scene.learn(planned, await connection.send(planned));
        await sleep(random.next() * MOST_BETWEEN_MS);
      }
      connection.destroy();
    }
  }

  /** The present one; a new one when it has had its share. */
  get #scene(): Scene {
    if (this.stage.lives.operations - this.#sceneBegan > MOST_OF_ONE_SCENE) this.#beginScene();
    return this.#scenes.at(-1) as Scene;
  }

  #beginScene(): void {
    this.#epoch += 1;
    this.#sceneBegan = this.stage.lives.operations;
    this.#scenes.push(new Scene(this.stage.random, `-e${this.#epoch}`, { withBoard: true }));
  }

  #count(name: string): void {
    this.result.faults[name] = (this.result.faults[name] ?? 0) + 1;
  }

  #find(what: string): void {
    this.result.findings.push(what);
    console.error(what);
  }
}
