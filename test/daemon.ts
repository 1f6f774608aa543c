// Real daemons for tests: each on its own socket and state in a private directory, ended with the test.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { RawClient } from "./raw-client.js";

export const PAWLD = join(import.meta.dirname, "../daemon/bin/pawld.js");
export const PAWL = join(import.meta.dirname, "../client/bin/pawl.js");

/** A private directory, removed when the test ends. */
export function privateDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "pawl-test-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface LogLine {
  level: string;
  msg: string;
  [key: string]: unknown;
}

/** One place for a daemon: a socket path and a state directory that outlive its processes. */
export class Place {
  readonly directory: string;
  readonly socket: string;
  readonly stateDir: string;

  constructor(directory = privateDirectory()) {
    this.directory = directory;
    this.socket = join(directory, "pawl.sock");
    this.stateDir = join(directory, "state");
  }

  /** Starts a daemon here and resolves once it listens; rejects with what it printed if it ends before. */
  async start(
    options: { args?: string[]; env?: Record<string, string>; command?: string[] } = {},
  ): Promise<DaemonProcess> {
    const [program, ...before] = options.command ?? [process.execPath];
    const child = spawn(
      program as string,
      [...before, PAWLD, "--socket", this.socket, "--state-dir", this.stateDir, ...(options.args ?? [])],
      { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...options.env } },
    );
    const daemon = new DaemonProcess(child, this);
    onTestFinished(() => void child.kill("SIGKILL"));
    await daemon.listening;
    return daemon;
  }

  connect(): Promise<RawClient> {
    return RawClient.connect(this.socket);
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
  #wanted: { matches: (line: LogLine) => boolean; resolve: (line: LogLine) => void }[] = [];

  constructor(child: ChildProcess, place: Place) {
    this.child = child;
    this.place = place;
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => resolve(signal ?? code ?? -1));
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
    this.listening = Promise.race([
      this.logged((line) => line.msg === "listening").then(() => {}),
      this.exited.then((code) => {
        throw new Error(`pawld ended with ${code}: ${this.stderr}${this.log.map((line) => line.msg)}`);
      }),
    ]);
    // Nobody has to wait for it: a test may be about a daemon that does not start.
    this.listening.catch(() => {});
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** The first log line that matches, among those that are there or still to come. */
  logged(matches: (line: LogLine) => boolean): Promise<LogLine> {
    const there = this.log.find(matches);
    if (there !== undefined) return Promise.resolve(there);
    return new Promise((resolve) => this.#wanted.push({ matches, resolve }));
  }

  /** Sends a signal and resolves with how the process ended. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | NodeJS.Signals> {
    this.child.kill(signal);
    return await this.exited;
  }
}

/** A daemon of its own for one test. */
export async function startDaemon(
  options: { args?: string[]; env?: Record<string, string> } = {},
): Promise<DaemonProcess> {
  return await new Place().start(options);
}
