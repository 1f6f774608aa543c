// Several daemons that share names in one PostgreSQL, under a load of all nouns that are shared: daemons are killed and
// stopped, cut off from the server, and the server is killed and started again, with the checker behind all of them.
import { setTimeout as sleep } from "node:timers/promises";
import { Session } from "../../daemon/dist/shared/session.js";
import type { AtEnd } from "../daemon.js";
import { privateDirectory } from "../daemon.js";
import type { PostgreSql } from "../postgresql.js";
import { makePlace, SilentProxy } from "../shared-daemons.js";
import { Checker, type Finding } from "./check.js";
import type { Connection, Planned } from "./connection.js";
import { GRACE_MS, type Operation, Recording } from "./history.js";
import { Lives } from "./lives.js";
import { KEPT, type Kept, Scene } from "./load.js";
import type { Json } from "./models/calls.js";
import { withOccurrences } from "./occurrences.js";
import { Random } from "./random.js";
import { serve } from "./run.js";
import { twoHolders } from "./two-holders.js";

const SECOND_MS = 1000;
/** Callers of each daemon that ask often, and those that hold and wait for long. */
const QUICK_CALLERS = 2;
const SLOW_CALLERS = 3;
/** The share of quick connections that are lost with requests under way. */
const DIES = 0.05;
/** The share of connections that serve a deployment. */
const SERVES = 0.5;
const MOST_PIPELINED = 3;
const MOST_BETWEEN_MS = 60;
const MOST_BETWEEN_SLOW_MS = 600;
/** Those who only hold do so for longer than others leave them alone whose daemon is cut off. */
const MOST_KEPT_MS = 4 * GRACE_MS;
const CONNECTS_AGAIN_MS = 20;
/** After so many operations the load goes on to new queues, leases and paths. */
const MOST_OF_ONE_SCENE = 300;
const LEASES_MS = [1200, 3000, 8000];
const LONG_LEASES_MS = [8000, 60_000, 60_000];
/** A daemon may have lost the server so long before it says so. */
const SAID_LATE_MS = 3000;
/** Between two faults of one daemon, and of the server. */
const MOST_QUIET_MS = 8000;
const LONGEST_FAULT_MS = 8000;
const AGAIN_MS = 20 * SECOND_MS;
const SETTLED_MS = 200;

export interface SharedStorm {
  findings: Finding[];
  /** How many of each fault. */
  faults: Record<string, number>;
  /** How many calls were answered, by their noun, and how many batches schedules have enqueued. */
  answered: Record<string, number>;
  operations: Operation[];
  recording: Recording;
  /** `things` are queues, names of leases and roots; of those that are `undecided` there are too many explanations. */
  counts: Record<"rounds" | "operations" | "unknown" | "told" | "things" | "undecided", number>;
}

export interface SharedStormOptions {
  seed: number;
  daemons: number;
  durationMs: number;
  /** Within which the same things are asked for; no fault lasts longer. */
  roundMs: number;
}

export async function runSharedStorm(
  server: PostgreSql,
  options: SharedStormOptions,
  atEnd: AtEnd,
): Promise<SharedStorm> {
  const storm = new RunningStorm(server, options);
  await storm.begin(options.daemons, atEnd);
  const until = performance.now() + options.durationMs;
  do await storm.round(options.roundMs);
  while (performance.now() < until);
  return storm.result;
}

/** One daemon, and the way from it to the server. */
interface Node {
  name: string;
  lives: Lives;
  proxy: SilentProxy;
  args: string[];
  /** When what goes on began that may have others take it for dead. */
  troubledMs: number | undefined;
  isStopped: boolean;
  wasStopped: boolean;
}

class RunningStorm {
  readonly result: SharedStorm;
  readonly #server: PostgreSql;
  readonly #random: Random;
  readonly #recording = new Recording();
  readonly #checker = new Checker(this.#recording);
  readonly #schema: string;
  readonly #nodes: Node[] = [];
  readonly #longestMs: number;
  #epoch = 0;
  #asked = 0;
  #scenes: Scene[] = [];
  #quick: Scene | undefined;
  #slow: Scene | undefined;
  #isOver = false;
  #serverIsDown = false;

  constructor(server: PostgreSql, { seed, roundMs }: SharedStormOptions) {
    this.#longestMs = Math.min(LONGEST_FAULT_MS, roundMs / 2);
    this.#server = server;
    this.#random = new Random(seed);
    this.#schema = `storm_${seed}`;
    const counts = { rounds: 0, operations: 0, unknown: 0, told: 0, things: 0, undecided: 0 };
    this.result = {
      findings: [],
      faults: {},
      answered: {},
      operations: [],
      recording: this.#recording,
      counts,
    };
  }

  async begin(daemons: number, atEnd: AtEnd): Promise<void> {
    await makePlace(this.#server.url(this.#schema));
    for (let index = 0; index < daemons; index += 1) {
      const proxy = await SilentProxy.start(this.#server.port as number, atEnd);
      const lives = new Lives(privateDirectory(atEnd), {
        recording: this.#recording,
        hasOthers: true,
        settled: () => this.#settled(),
        onLog: (line) => this.#heard(node, line),
      });
      atEnd(async () => {
        lives.signal("SIGCONT");
        lives.signal("SIGKILL");
        await lives.exited;
      });
      const args = ["--shared", `*=${this.#server.url(this.#schema, proxy.port)}`];
      const name = `daemon ${index + 1}`;
      const node: Node = {
        name,
        lives,
        proxy,
        args,
        troubledMs: undefined,
        isStopped: false,
        wasStopped: false,
      };
      this.#nodes.push(node);
      await lives.start({ args });
    }
  }

  /** A load of new things, faults meanwhile, and the checker over all that was answered. */
  async round(roundMs: number): Promise<void> {
    this.#isOver = false;
    this.#newScene();
    this.#epoch += 1;
    this.#slow = new Scene(this.#random, `-s${this.#epoch}`, {
      isShared: true,
      leasesMs: LONG_LEASES_MS,
      waitsMs: [0, roundMs / 10, roundMs / 2],
    });
    this.#scenes.push(this.#slow);
    const callers = this.#nodes.flatMap((node) => [
      ...Array.from({ length: QUICK_CALLERS }, () => this.#caller(node, true)),
      ...Array.from({ length: SLOW_CALLERS }, () => this.#caller(node, false)),
      ...KEPT.map((kind) => this.#keeper(node, kind)),
    ]);
    const until = performance.now() + roundMs;
    await Promise.all([
      ...this.#nodes.map((node) => this.#trouble(until, () => this.#ofNode(node))),
      this.#trouble(until, () => this.#ofServer()),
    ]);
    this.#isOver = true;
    await this.#heal();
    await Promise.all(callers);
    await this.#check();
  }

  async #trouble(until: number, bring: () => Promise<void>): Promise<void> {
    for (;;) {
      const quietMs = this.#random.next() * MOST_QUIET_MS;
      await sleep(Math.max(0, Math.min(quietMs, until - performance.now())));
      if (performance.now() >= until) return;
      await bring();
    }
  }

  // ---- load

  async #caller(node: Node, isQuick: boolean): Promise<void> {
    const random = this.#random;
    while (!this.#isOver) {
      const connection = node.isStopped ? undefined : await node.lives.tryConnect();
      if (connection === undefined) {
        await sleep(CONNECTS_AGAIN_MS);
        continue;
      }
      // Commands are pushed to some, while others pull.
      if (random.chance(SERVES)) serve(node.lives, connection, isQuick ? this.#scene : (this.#slow as Scene));
      for (let rounds = random.upTo(60); rounds > 0 && !connection.isOver && !this.#isOver; rounds -= 1) {
        const scene = isQuick ? this.#scene : (this.#slow as Scene);
        const planned = scene.plan(isQuick ? MOST_PIPELINED : 1);
        const asked = this.#ask(scene, planned, connection.send(planned));
        // One of them dies, with requests under way.
        if (isQuick && rounds === 1 && random.chance(DIES)) break;
        await asked;
        await sleep(random.next() * (isQuick ? MOST_BETWEEN_MS : MOST_BETWEEN_SLOW_MS));
      }
      connection.destroy();
    }
  }

  /** Asks for what keepers at the other daemons want as well, and holds it for a while, whatever it is told. */
  async #keeper(node: Node, kind: Kept): Promise<void> {
    const scene = this.#slow as Scene;
    while (!this.#isOver) {
      const connection = node.isStopped ? undefined : await node.lives.tryConnect();
      if (connection === undefined) {
        await sleep(CONNECTS_AGAIN_MS);
        continue;
      }
      if (kind === "pushed") serve(node.lives, connection, scene, scene.keptPushed);
      const reply = (await connection.send(scene.keep(kind))).at(-1);
      const isHeld = kind === "pushed" || (reply?.kind === "answered" && isGrant(reply.results[0] as Json));
      const until = performance.now() + (isHeld ? this.#random.next() * MOST_KEPT_MS : 0);
      while (!connection.isOver && !this.#isOver && performance.now() < until) await sleep(CONNECTS_AGAIN_MS);
      connection.destroy();
    }
  }

  async #ask(scene: Scene, planned: readonly Planned[], sent: Promise<Json[]>): Promise<void> {
    this.#asked += planned.length;
    scene.learn(planned, await sent);
  }

  get #scene(): Scene {
    if (this.#asked > MOST_OF_ONE_SCENE) this.#newScene();
    return this.#quick as Scene;
  }

  #newScene(): void {
    this.#epoch += 1;
    this.#asked = 0;
    this.#quick = new Scene(this.#random, `-e${this.#epoch}`, { isShared: true, leasesMs: LEASES_MS });
    this.#scenes.push(this.#quick);
  }

  // ---- faults

  async #ofNode(node: Node): Promise<void> {
    const { lives, proxy } = node;
    const random = this.#random;
    const faults: Record<string, () => Promise<void>> = {
      "kill -9": () => this.#ended(node, "SIGKILL"),
      SIGTERM: () => this.#ended(node, "SIGTERM"),
      stopped: () => this.#stopped(node, () => {}),
      "stopped and cut off": () => this.#stopped(node, () => proxy.cut()),
      "connections reset": async () => proxy.cut(),
      "silent network": async () => {
        proxy.silence();
        await sleep(random.next() * random.of([800, this.#longestMs]));
        proxy.cut();
      },
      "commit without an answer": async () => {
        const fate = random.of(["hold", "drop"] as const);
        proxy.onSent = (text) => {
          if (!text.includes("COMMIT")) return "pass";
          proxy.onSent = undefined;
          return fate;
        };
        await sleep(random.next() * SECOND_MS);
        proxy.onSent = undefined;
        proxy.cut();
      },
    };
    const name = random.of(Object.keys(faults));
    this.#count(name);
    this.#beginTrouble(node);
    await faults[name]?.();
    if (lives.isAlive) await this.#isConnected(node);
    this.#endTrouble(node);
  }

  async #ended(node: Node, signal: NodeJS.Signals): Promise<void> {
    const how = await node.lives.end(signal);
    if (signal === "SIGTERM" && how !== 0)
      this.#find(`after SIGTERM it ended with ${how}: ${node.lives.log.slice(-5).join("\n")}`);
    await sleep(this.#random.next() * this.#random.of([500, this.#longestMs]));
    await node.lives.start({ args: node.args });
  }

  async #stopped(node: Node, meanwhile: () => void): Promise<void> {
    node.isStopped = true;
    node.wasStopped = true;
    node.lives.signal("SIGSTOP");
    await sleep(this.#random.next() * SECOND_MS);
    meanwhile();
    await sleep(this.#random.next() * this.#random.of([500, this.#longestMs]));
    node.lives.signal("SIGCONT");
    node.isStopped = false;
  }

  /** The server fails all daemons at once, so less often. */
  async #ofServer(): Promise<void> {
    if (!this.#random.chance(0.35)) return;
    const faults: Record<string, () => Promise<void>> = {
      "server crashes": () => this.#serverEnds("SIGQUIT"),
      "server killed": () => this.#serverEnds("SIGKILL"),
      "server stopped": () => this.#serverHangs(),
      "session of the server killed": async () => {
        const session = await Session.open(this.#server.url(this.#schema));
        const pids = await session.query<{ pid: number }>(
          "SELECT pid FROM pg_stat_activity WHERE application_name = 'pawld' AND pid <> pg_backend_pid()",
        );
        await session.close();
        // The server ends all others then, and recovers; one that has just ended by itself is none.
        try {
          if (pids.length > 0) process.kill(this.#random.of(pids).pid, "SIGKILL");
        } catch {}
      },
    };
    const name = this.#random.of(Object.keys(faults));
    this.#count(name);
    for (const node of this.#nodes) this.#beginTrouble(node);
    await faults[name]?.();
    await Promise.all(
      this.#nodes.map(async (node) => {
        if (node.lives.isAlive && !node.isStopped) await this.#isConnected(node);
      }),
    );
    for (const node of this.#nodes) this.#endTrouble(node);
  }

  async #serverEnds(signal: NodeJS.Signals): Promise<void> {
    this.#serverIsDown = true;
    await this.#server.end(signal);
    await sleep(this.#random.next() * this.#random.of([100, 3000]));
    await this.#server.runAgain();
    this.#serverIsDown = false;
  }

  async #serverHangs(): Promise<void> {
    this.#serverIsDown = true;
    this.#server.stall();
    await sleep(this.#random.next() * this.#random.of([500, this.#longestMs]));
    this.#server.goOn();
    this.#serverIsDown = false;
  }

  #beginTrouble(node: Node): void {
    node.troubledMs ??= performance.now();
    node.wasStopped ||= node.isStopped;
  }

  /** Others may have taken it for dead since it began. */
  #endTrouble(node: Node): void {
    if (node.troubledMs === undefined) return;
    this.#cutOff(node, node.troubledMs);
    node.troubledMs = undefined;
    node.wasStopped = node.isStopped;
  }

  #cutOff({ lives, wasStopped }: Node, fromMs: number): void {
    const { ms: untilMs } = this.#recording.now();
    const { cutOff } = this.#recording;
    for (const { id } of lives.connections) {
      cutOff.set(id, [...(cutOff.get(id) ?? []), { fromMs, untilMs, couldTell: !wasStopped }]);
    }
  }

  /** A daemon may lose the server by itself, where the machine is slow. */
  #heard(node: Node, line: string): void {
    if (line.includes("the database of shared names is away"))
      node.troubledMs ??= performance.now() - SAID_LATE_MS;
    if (line.includes("the database of shared names is there") && node.troubledMs !== undefined)
      this.#cutOff(node, node.troubledMs);
    if (line.includes('"level":"error"') || line.includes('"level":50'))
      this.#find(`${node.name} says: ${line.slice(0, 1000)}`);
  }

  async #isConnected({ lives, name }: Node): Promise<void> {
    const from = performance.now();
    while (lives.isAlive) {
      const connection = await lives.tryConnect();
      const asked = connection?.send([{ calls: [{ object: "", method: "daemon.info", params: {} }] }]);
      const [reply] = (await Promise.race([asked, sleep(SECOND_MS, [])])) ?? [];
      connection?.destroy();
      const info = reply?.kind === "answered" ? (reply.results[0] as Json) : undefined;
      if (info?.shared.every(({ connected }: Json) => connected)) return;
      if (this.#serverIsDown || this.#nodes.some((each) => each.lives === lives && each.isStopped)) return;
      if (performance.now() - from > AGAIN_MS) {
        return this.#find(`${name} does not connect again: ${lives.log.slice(-5).join("\n")}`);
      }
      await sleep(CONNECTS_AGAIN_MS);
    }
  }

  async #heal(): Promise<void> {
    for (const node of this.#nodes) {
      this.#beginTrouble(node);
      await this.#isConnected(node);
      this.#endTrouble(node);
    }
  }

  // ---- checks

  /** Nothing is under way at the server that any daemon began before. */
  async #settled(): Promise<void> {
    for (;;) {
      try {
        const session = await Session.open(this.#server.url(this.#schema));
        await session.query("SELECT pg_advisory_lock(hashtextextended($1, 0)) IS NULL AS locked", [
          `pawl ${this.#schema}`,
        ]);
        await session.close();
        return;
      } catch {
        // The server is away, and with it all that was under way.
        await sleep(CONNECTS_AGAIN_MS);
      }
    }
  }

  async #check(): Promise<void> {
    const [node] = this.#nodes as [Node];
    await sleep(SETTLED_MS);
    await this.#settled();
    for (const { lives } of this.#nodes) lives.settle();
    const connection = await node.lives.tryConnect();
    if (connection !== undefined) await this.#endSchedules(connection);
    for (const scene of this.#scenes) await connection?.send(scene.readAll());
    connection?.destroy();
    const operations = this.#nodes
      .flatMap(({ lives }) => lives.takeOperations())
      .sort((a, b) => a.sent.order - b.sent.order);
    keepForWaits(this.#recording, operations);
    const { counts } = this.result;
    counts.rounds += 1;
    counts.operations += operations.length;
    counts.unknown += operations.filter(({ outcome }) => outcome.kind === "unknown").length;
    counts.told = this.#recording.told.size;
    countAnswers(operations, this.result.answered);
    const complaints = this.#nodes.flatMap(({ lives }) => lives.complaints.splice(0));
    const findings = [
      ...complaints,
      ...this.#checker.check(operations),
      ...twoHolders(operations, this.#recording),
    ];
    for (const finding of findings) {
      if (UNDECIDED.test(finding)) counts.undecided += 1;
      else this.#find(finding);
    }
    counts.things += new Set(operations.flatMap(({ calls }) => calls.map(({ object }) => object))).size;
    this.#checker.forget((object) => !object.startsWith("sequence:"));
    this.result.operations = operations;
    this.#scenes = [];
  }

  /** What has come by now is enqueued, and no more of it comes. */
  async #endSchedules(connection: Connection): Promise<void> {
    const now = Date.now();
    for (const scene of this.#scenes) {
      for (const name of scene.schedules) {
        const get = { object: `schedule:${name}`, method: "schedule.get", params: { name } };
        const from = performance.now();
        for (;;) {
          const [reply] = await connection.send([{ calls: [get] }]);
          const schedule = reply?.kind === "answered" ? (reply.results[0] as Json).schedule : undefined;
          if (schedule === undefined || schedule.nextAt > now) break;
          if (performance.now() - from > AGAIN_MS) {
            this.#find(`the schedule ${name} does not go on: ${JSON.stringify(schedule)}`);
            break;
          }
          await sleep(CONNECTS_AGAIN_MS);
        }
      }
      await connection.send(scene.deleteSchedules());
    }
  }

  #count(name: string): void {
    this.result.faults[name] = (this.result.faults[name] ?? 0) + 1;
  }

  #find(what: string): void {
    this.result.findings.push(what);
    console.error(what);
  }
}

/** Whether whoever waited for something has it now. */
function isGrant({ claim, leases = [claim] }: Json): boolean {
  return leases.length > 0 && claim !== null;
}

function countAnswers(operations: readonly Operation[], answered: Record<string, number>): void {
  for (const { calls, outcome } of withOccurrences(operations).operations) {
    if (outcome.kind !== "answered") continue;
    for (const { method } of calls) {
      const [noun = method] = method.split(".");
      answered[noun] = (answered[noun] ?? 0) + 1;
    }
  }
}

const UNDECIDED = /^\S+: undecided,/;

/**
 * What comes free at one daemon may be kept for those who wait at another, who are told of it: meanwhile somebody who
 * does not wait is refused it.
 */
function keepForWaits({ refusedWaits }: Recording, operations: readonly Operation[]): void {
  for (const { calls, waits, sent, ended } of operations) {
    const [call] = calls;
    if (!waits || call === undefined) continue;
    const wait = { fromMs: sent.ms, untilMs: ended.ms };
    refusedWaits.set(call.object, [...(refusedWaits.get(call.object) ?? []), wait]);
  }
}
