// Real daemons for tests: each on its own socket and state in a private directory, ended with the test.
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import { beforeAll, onTestFinished } from "vitest";
import { PostgreSqlStore, SHARED_URL } from "./postgresql-store.js";
import { RawClient } from "./raw-client.js";

export const PAWLD = join(import.meta.dirname, "../daemon/bin/pawld.js");
/** The clone that is tested. */
export const REPOSITORY = join(import.meta.dirname, "..");
export const PAWL = join(import.meta.dirname, "../client/bin/pawl.js");

/** The command that runs pawld where koffi is not there, as on a machine that it has no build for. */
export const WITHOUT_KOFFI = [
  process.execPath,
  "--import",
  `data:text/javascript,${encodeURIComponent(`
    import Module from "node:module";
    const resolve = Module._resolveFilename;
    Module._resolveFilename = (name, ...rest) => {
      if (name === "koffi") throw new Error("no koffi here");
      return resolve(name, ...rest);
    };`)}`,
];

/** The database, if one is given, has all names of daemons whose tests say nothing of where these are kept. */
/** True if names are kept there. What is about the daemon's own file, its gauges or its clock is skipped then. */
export const NAMES_ARE_SHARED = SHARED_URL !== undefined;
/** With these a daemon has names, or none to write, in a way of its own. */
const OWN_PLACES = ["--shared", "--lease-provider", "--read-only"];

/** Registers what is to be done at the end: of the test that runs, unless said otherwise. */
export type AtEnd = (action: () => void | Promise<void>) => void;

/** A private directory, removed at the end. */
export function privateDirectory(atEnd: AtEnd = onTestFinished): string {
  const directory = mkdtempSync(join(tmpdir(), "pawl-test-"));
  atEnd(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface LogLine {
  level: string;
  msg: string;
  [key: string]: unknown;
}

export interface StartOptions {
  args?: string[];
  env?: Record<string, string>;
  /** The command that runs pawld, such as a tracer; Node itself by default. */
  command?: string[];
  /** The program, if it is another build than this one. */
  pawld?: string;
}

/** One place for a daemon: a socket path and a state directory that outlive its processes. */
export class Place {
  readonly directory: string;
  readonly socket: string;
  readonly stateDir: string;
  readonly #atEnd: AtEnd;
  #sharedUrl: string | undefined;

  constructor(directory?: string, atEnd: AtEnd = onTestFinished) {
    this.#atEnd = atEnd;
    this.directory = directory ?? privateDirectory(atEnd);
    this.socket = join(this.directory, "pawl.sock");
    this.stateDir = join(this.directory, "state");
  }

  /** Starts a daemon here and resolves once it listens; rejects with what it printed if it ends before. */
  async start(options: StartOptions = {}): Promise<DaemonProcess> {
    const daemon = this.spawn(options);
    await daemon.listening;
    return daemon;
  }

  /** Starts a daemon here and does not wait for it. */
  spawn(options: StartOptions = {}): DaemonProcess {
    const [program, ...before] = options.command ?? [process.execPath];
    const child = spawn(
      program as string,
      [
        ...before,
        options.pawld ?? PAWLD,
        "--socket",
        this.socket,
        "--state-dir",
        this.stateDir,
        ...(options.args ?? []),
        ...this.#shared(options),
      ],
      { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...options.env } },
    );
    const daemon = new DaemonProcess(child, this);
    this.#atEnd(async () => {
      child.kill("SIGKILL");
      await daemon.exited;
    });
    return daemon;
  }

  /** The options by which all names are in PostgreSQL, in tables of this place. */
  #shared({ args = [] }: StartOptions): string[] {
    if (SHARED_URL === undefined || args.some((arg) => OWN_PLACES.includes(arg))) return [];
    if (this.#sharedUrl === undefined) {
      const schema = `place_${randomBytes(8).toString("hex")}`;
      // It makes the tables, in a thread that is there already; a process for that takes half a second.
      new PostgreSqlStore(SHARED_URL, schema).close();
      const url = new URL(SHARED_URL);
      url.searchParams.set("schema", schema);
      this.#sharedUrl = url.href;
    }
    return ["--shared", `*=${this.#sharedUrl}`];
  }

  /**
   * Has a statement performed on what is kept here while no daemon runs, in the SQL that both databases have. Gives the
   * rows that it gives.
   */
  async query(statement: string): Promise<Record<string, unknown>[]> {
    if (this.#sharedUrl !== undefined) {
      const { Session } = await import("../daemon/dist/shared/session.js");
      const session = await Session.open(this.#sharedUrl);
      const rows = await session.query(statement);
      await session.close();
      return rows;
    }
    const database = new Database(join(this.stateDir, "pawl.db"));
    const prepared = database.prepare(statement);
    const rows = prepared.reader ? (prepared.all() as Record<string, unknown>[]) : [];
    if (!prepared.reader) prepared.run();
    database.close();
    return rows;
  }

  connect(): Promise<RawClient> {
    return RawClient.connect(this.socket);
  }

  /** Takes the next number of FR over a connection of its own: shows that a daemon serves here. */
  async next(): Promise<number> {
    const client = await this.connect();
    const { seq } = await client.call("sequence.next", { type: "FR" });
    await client.destroy();
    return seq;
  }
}

/** A running pawld. */
export class DaemonProcess {
  readonly child: ChildProcess;
  readonly place: Place;
  readonly log: LogLine[] = [];
  stderr = "";
  readonly listening: Promise<void>;
  /** Resolves with the exit code, or with the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>;
  #over: Error | undefined;
  #wanted: {
    matches: (line: LogLine) => boolean;
    resolve: (line: LogLine) => void;
    reject: (error: Error) => void;
  }[] = [];

  constructor(child: ChildProcess, place: Place) {
    this.child = child;
    this.place = place;
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        resolve(signal ?? code ?? -1);
        const error = new Error(`pawld ended with ${signal ?? code}: ${this.stderr}`);
        this.#over = error;
        for (const { reject } of this.#wanted.splice(0)) reject(error);
      });
    });
    child.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (text) => {
      const line = JSON.parse(text) as LogLine;
      this.log.push(line);
      this.#wanted = this.#wanted.filter(({ matches, resolve }) => {
        if (!matches(line)) return true;
        resolve(line);
        return false;
      });
    });
    this.listening = this.logged((line) => line.msg === "listening").then(() => {});
    // Nobody has to wait for it: a test may be about a daemon that does not start.
    this.listening.catch(() => {});
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** The first log line that matches, among those that are there or still to come; rejects if none will. */
  logged(matches: (line: LogLine) => boolean): Promise<LogLine> {
    const there = this.log.find(matches);
    if (there !== undefined) return Promise.resolve(there);
    if (this.#over !== undefined) return Promise.reject(this.#over);
    return new Promise((resolve, reject) => this.#wanted.push({ matches, resolve, reject }));
  }

  /** Resident memory in bytes, from the kernel (proc_pid_status(5)). */
  get residentBytes(): number {
    return this.#memory("VmRSS");
  }

  /** The most of it since the process started, or since `forgetPeak` (VmHWM, and proc_pid_clear_refs(5)). */
  get peakResidentBytes(): number {
    return this.#memory("VmHWM");
  }

  /** What its process has used of the processor, in hundredths of a second (proc_pid_stat(5)). */
  get usedTicks(): number {
    const [, fields = ""] = readFileSync(`/proc/${this.pid}/stat`, "utf8").split(") ");
    const [user, system] = fields.split(" ").slice(11);
    return Number(user) + Number(system);
  }

  forgetPeak(): void {
    writeFileSync(`/proc/${this.pid}/clear_refs`, "5");
  }

  #memory(line: "VmRSS" | "VmHWM"): number {
    const status = readFileSync(`/proc/${this.pid}/status`, "utf8");
    const [, kilobytes] = new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status) ?? [];
    return Number(kilobytes) * 1024;
  }

  /** Sends a signal and resolves with how the process ended. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | NodeJS.Signals> {
    this.child.kill(signal);
    return await this.exited;
  }
}

/** A daemon of its own for one test. */
export async function startDaemon(options: StartOptions = {}): Promise<DaemonProcess> {
  return await new Place().start(options);
}

/** Makes something for all tests of a file or of a `describe`, and undoes it after them. Returns what gives it. */
export function madeForTests<T>(make: (atEnd: AtEnd) => Promise<T>): () => T {
  let made: { readonly it: T } | undefined;
  beforeAll(async () => {
    const actions: Parameters<AtEnd>[0][] = [];
    made = { it: await make((action) => void actions.unshift(action)) };
    return async () => {
      for (const action of actions) await action();
    };
  });
  return () => {
    if (made === undefined) throw new Error("what is made for tests is there for these, not before them");
    return made.it;
  };
}

/** One daemon for all tests of a file or of a `describe`, for tests that do not get in each other's way. */
export function sharedDaemon(options: StartOptions = {}): () => DaemonProcess {
  return madeForTests((atEnd) => new Place(undefined, atEnd).start(options));
}
