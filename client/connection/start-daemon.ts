import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync, unlinkSync } from "node:fs";
import type { Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { ConnectionLost } from "./connection-lost.js";
import { daemonCommand } from "./daemon-program.js";
import { covered } from "./inherited-descriptors.js";
import { isBusy, nobodyListens } from "./line-socket.js";
import { takeTurn } from "./start-turn.js";

const START_TIMEOUT_MS = 10_000;
const RETRY_MS = 20;
/** The exit code of pawld when its options are wrong. */
const EXIT_USAGE = 2;
/** How long another daemon may take to listen after ours has ended: ours may have been refused because of that one. */
const OTHER_DAEMON_MS = 2000;
/** After so long a process that has not got the turn starts a daemon all the same: turns are only a courtesy. */
const TURN_MS = 5000;
const MAX_SAID_BYTES = 4096;
/** Variables by which this process, or what started it, is meant. The daemon, which outlives it, is not. */
const OURS_ALONE = [
  // By this `pawl` knows what it has to end.
  "PAWL_MARKS",
  "NOTIFY_SOCKET",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
  "LISTEN_FDS",
  "LISTEN_FDNAMES",
  "LISTEN_PID",
];

export interface SpawnOptions {
  /** The daemon program and its first arguments; otherwise `$PAWLD`, `@pawl/daemon` if installed, or `pawld`. */
  command?: readonly string[];
  /** More arguments, such as `["--idle-exit", "600"]`. */
  args?: readonly string[];
  /** A file to which the daemon appends its log; otherwise nobody keeps it. */
  log?: string;
  /** How long to wait for the daemon to listen, in milliseconds; 10,000 by default. */
  timeoutMs?: number;
}

/**
 * Starts a daemon that outlives this process, and connects to whichever daemon listens first: when many
 * processes do this at once, one of them starts it and the others wait. Should two be started all the same,
 * the database's lock lets one run, and the other ends.
 *
 * Rejects with `ConnectionLost` that holds the daemon's own words when it does not start.
 *
 * @param open connects; rejects while nothing listens.
 */
export async function startDaemon(
  socketPath: string,
  instance: string,
  options: SpawnOptions,
  open: () => Promise<void>,
): Promise<void> {
  const { timeoutMs = START_TIMEOUT_MS } = options;
  const began = performance.now();
  let turn: Server | undefined;
  let daemon: StartedDaemon | undefined;
  try {
    for (;;) {
      const waited = performance.now() - began;
      let cause: unknown;
      try {
        return await open();
      } catch (error) {
        if (!nobodyListens(error) && !isBusy(error)) throw error;
        cause = error;
      }
      if (daemon?.hopeless || waited >= timeoutMs) {
        throw new ConnectionLost(whyNot(socketPath, daemon, waited), undefined, { cause });
      }
      if (turn === undefined) {
        turn = await takeTurn(socketPath);
        // Whoever had it before may have left because a daemon listens.
        if (turn !== undefined) continue;
      }
      if (turn !== undefined || waited >= TURN_MS) {
        daemon ??= new StartedDaemon(socketPath, instance, options);
      }
      await delay(RETRY_MS);
    }
  } finally {
    turn?.close();
    daemon?.leave();
  }
}

/** A daemon that this process started, until it listens. */
class StartedDaemon {
  readonly program: string;
  /** True if there is no such program. */
  isMissing = false;
  readonly #child: ChildProcess;
  /** Its standard error goes to a file without a name: a pipe would break, and a terminal be held, once we end. */
  readonly #said: number;
  #ended: { how: string; at: number; forGood: boolean } | undefined;

  constructor(socketPath: string, instance: string, { command, args = [], log }: SpawnOptions) {
    const [program = "pawld", ...before] = command ?? daemonCommand();
    this.program = program;
    this.#said = openUnnamed();
    const logFile = log === undefined ? undefined : openLog(log);
    const nothing = openSync("/dev/null", "r+");
    try {
      this.#child = spawn(program, [...before, ...args, "--socket", socketPath, "--instance", instance], {
        // A session of its own: no terminal, and no signals that are meant for us.
        detached: true,
        stdio: [nothing, logFile ?? nothing, this.#said, ...covered(nothing)],
        env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !OURS_ALONE.includes(name))),
      });
    } finally {
      closeSync(nothing);
      if (logFile !== undefined) closeSync(logFile);
    }
    this.#child.once("error", (error: NodeJS.ErrnoException) => {
      this.isMissing = error.code === "ENOENT";
      this.#end(error.message, true);
    });
    this.#child.once("exit", (code, signal) =>
      this.#end(`it ended with ${signal ?? code}`, code === EXIT_USAGE),
    );
    this.#child.unref();
  }

  /** True if the daemon has ended and there is no reason to think that another will listen. */
  get hopeless(): boolean {
    if (this.#ended === undefined) return false;
    return this.#ended.forGood || performance.now() - this.#ended.at >= OTHER_DAEMON_MS;
  }

  /** How the daemon ended and its last words, or that it runs. */
  get state(): string {
    const buffer = Buffer.alloc(MAX_SAID_BYTES);
    const from = Math.max(0, fstatSync(this.#said).size - MAX_SAID_BYTES);
    const said = buffer.toString("utf8", 0, readSync(this.#said, buffer, 0, MAX_SAID_BYTES, from)).trim();
    const how = this.#ended?.how ?? `it does not listen and still runs as pid ${this.#child.pid}`;
    return said === "" ? how : `${how}: ${said}`;
  }

  /** Leaves the daemon on its own. */
  leave(): void {
    closeSync(this.#said);
  }

  #end(how: string, forGood: boolean): void {
    this.#ended ??= { how, at: performance.now(), forGood };
  }
}

function whyNot(socketPath: string, daemon: StartedDaemon | undefined, waitedMs: number): string {
  if (daemon?.isMissing) {
    return `No daemon listens on ${socketPath}, and there is no program ${daemon.program} to start. Install one with npm install @pawl/daemon, or name it in $PAWLD.`;
  }
  return daemon === undefined
    ? `Another process has been starting a daemon for ${socketPath} for ${Math.round(waitedMs)} ms, and none listens.`
    : `Started ${daemon.program} for ${socketPath}, but ${daemon.state}.`;
}

/** Opens a file to append to. Opening a pipe waits for a reader, so one that nobody reads is refused. */
function openLog(path: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = constants;
  try {
    return openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENXIO") throw error;
    throw new PawlError(
      "invalid_params",
      `spawn.log is ${path}, a pipe that nobody reads. Start its reader, or name a file.`,
    );
  }
}

function openUnnamed(): number {
  const path = join(tmpdir(), `pawld-${randomUUID()}`);
  const fd = openSync(
    path,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND,
    0o600,
  );
  unlinkSync(path);
  return fd;
}
