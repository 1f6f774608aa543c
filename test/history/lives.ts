// A daemon that is killed and started again, on one state directory, with everything that a run recorded of it.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PAWLD } from "../daemon.js";
import { Connection } from "./connection.js";
import { GRACE_MS, type Operation, Recording } from "./history.js";

const LOOK_EVERY_MS = 10;
/** A start that takes longer has failed. */
const START_MS = 60_000;
const MOST_LOG_LINES = 200;

/** How a daemon's lives are recorded. */
export interface LivesOptions {
  /** That of others, too. */
  recording?: Recording;
  /** Others go on when it dies, and end what was bound to its connections. */
  hasOthers?: boolean;
  /** Resolves once nothing can take effect any more that a daemon began that has ended. */
  settled?: () => Promise<void>;
  /** Told of each line of its log. */
  onLog?: (line: string) => void;
}

export interface Life {
  env?: Record<string, string>;
  args?: string[];
  /** Where its log goes: a pipe that is read, or a file that is always full. */
  log?: "pipe" | "/dev/full";
  /** Of open files. */
  descriptors?: number;
}

export class Lives {
  readonly recording: Recording;
  readonly directory: string;
  readonly socket: string;
  readonly stateDir: string;
  /** Of the present life. */
  connections: Connection[] = [];
  /** The operations since `takeOperations`, in the order in which they were sent. */
  #operations: Operation[] = [];
  #child: ChildProcess | undefined;
  #exited: Promise<number | NodeJS.Signals> = Promise.resolve(0);
  #hasEnded = true;
  readonly log: string[] = [];
  readonly complaints: string[] = [];

  readonly #hasOthers: boolean;

  readonly #settled: () => Promise<void>;
  readonly #onLog: (line: string) => void;

  constructor(
    directory: string,
    { recording = new Recording(), hasOthers = false, settled, onLog }: LivesOptions = {},
  ) {
    this.recording = recording;
    this.#hasOthers = hasOthers;
    this.#settled = settled ?? (async () => {});
    this.#onLog = onLog ?? (() => {});
    this.directory = directory;
    this.socket = join(directory, "pawl.sock");
    this.stateDir = join(directory, "state");
  }

  get pid(): number {
    return this.#child?.pid as number;
  }

  /** True while the process is there. */
  get isAlive(): boolean {
    return !this.#hasEnded;
  }

  /** The present life's end, however it comes. */
  get exited(): Promise<number | NodeJS.Signals> {
    return this.#exited;
  }

  get operations(): number {
    return this.#operations.length;
  }

  get stdout(): NodeJS.ReadableStream | null {
    return this.#child?.stdout ?? null;
  }

  /** Starts it and resolves once it answers. */
  async start({ env = {}, args = [], log = "pipe", descriptors }: Life = {}): Promise<void> {
    const limit = descriptors === undefined ? "" : `ulimit -n ${descriptors};`;
    const from = performance.now();
    this.recording.storageFailed = undefined;
    // Bound grants of before are held from now on for a while.
    for (const [id, until] of this.recording.boundUntil) {
      if (until === Number.POSITIVE_INFINITY) this.recording.boundUntil.set(id, from + GRACE_MS);
    }
    const command = [process.execPath, PAWLD, "--socket", this.socket, "--state-dir", this.stateDir, ...args];
    const stdout = log === "pipe" ? "pipe" : openSync(log, "w");
    const child = spawn("/bin/sh", ["-c", `${limit} exec "$@"`, "sh", ...command], {
      stdio: ["ignore", stdout, "pipe"],
      env: { ...process.env, ...env },
    });
    if (stdout !== "pipe") closeSync(stdout);
    this.#child = child;
    this.#hasEnded = false;
    this.#exited = new Promise((resolve) =>
      child.once("exit", (code, signal) => {
        this.#hasEnded = true;
        resolve(signal ?? code ?? -1);
      }),
    );
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk) => {
        const lines = String(chunk).trimEnd().split("\n");
        for (const line of lines) this.#onLog(line);
        this.log.push(...lines);
        this.log.splice(0, this.log.length - MOST_LOG_LINES);
      });
    }
    for (;;) {
      const connection = await this.tryConnect();
      if (connection !== undefined) {
        const [reply] = await connection.send([
          { calls: [{ object: "", method: "daemon.ping", params: {} }] },
        ]);
        connection.destroy();
        if (reply !== undefined) return;
      }
      if (this.#hasEnded) throw new DidNotStart(`pawld ended: ${this.log.slice(-10).join("\n")}`);
      if (performance.now() - from > START_MS)
        throw new Error(`pawld does not start: ${this.log.join("\n")}`);
      await sleep(LOOK_EVERY_MS);
    }
  }

  /** A connection, unless nobody listens now. */
  async tryConnect(): Promise<Connection | undefined> {
    try {
      const connection = await Connection.open(this.socket, this.recording, (operation) => {
        this.#operations.push(operation);
      });
      this.connections.push(connection);
      return connection;
    } catch {
      return undefined;
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#hasEnded) this.#child?.kill(signal);
  }

  /** Resolves when it has ended, by whatever, and all that it had said was heard. */
  async end(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals> {
    if (signal !== undefined) this.signal(signal);
    const askedMs = this.isAlive ? this.recording.now().ms : undefined;
    const how = await this.#exited;
    for (const connection of this.connections) connection.setDeaf(false);
    await Promise.all(this.connections.map(({ closed }) => closed));
    await this.#settled();
    this.#giveUp(askedMs);
    return how;
  }

  /** Resident memory in bytes, now and at most in this life (proc_pid_status(5)). */
  memory(): { now: number; peak: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, "utf8");
    const bytesOf = (line: string): number =>
      Number(new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) * 1024;
    return { now: bytesOf("VmRSS"), peak: bytesOf("VmHWM") };
  }

  /** An operation that was not sent as a request, such as a push that arrived. */
  record(operation: Omit<Operation, "id">): void {
    this.#operations.push({ ...operation, id: this.recording.nextOperation() });
  }

  /** Whatever was not answered on connections that are lost has no effect any more. */
  settle(): void {
    const now = this.recording.now();
    for (const operation of this.#operations) {
      if (operation.ended.order === Number.POSITIVE_INFINITY) operation.ended = now;
    }
  }

  /** The records since the last time; to be asked for after an end, or when nothing is under way. */
  takeOperations(): Operation[] {
    const taken = this.#operations.filter(({ calls }) => calls.length > 0);
    this.#operations = [];
    return taken;
  }

  /** Of what was not answered nobody knows, but that it has no effect any more. */
  #giveUp(askedMs: number | undefined): void {
    this.settle();
    const end = this.recording.now();
    for (const { id } of this.connections) {
      if (this.recording.closed.has(id)) continue;
      this.recording.closed.set(id, askedMs ?? end.ms);
      const from = this.#hasOthers ? (askedMs ?? end.ms) + GRACE_MS : Number.POSITIVE_INFINITY;
      this.recording.boundUntil.set(id, from);
    }
    this.complaints.push(...this.connections.flatMap(({ complaints }) => complaints));
    this.connections = [];
  }
}

export class DidNotStart extends Error {}
