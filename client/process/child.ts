import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import type { Socket } from "node:net";
import { constants as system } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

/** Output that is still on its way when the command has ended; what it left running may hold the pipe open. */
const LAST_OUTPUT_MS = 200;
/** As shells exit for a command that is not there, or that cannot be run. */
const EXIT_NOT_FOUND = 127;
const EXIT_NOT_RUNNABLE = 126;
const EXIT_SIGNAL_BASE = 128;

export interface ChildOptions {
  /** Added to the environment of this program. */
  readonly env?: Readonly<Record<string, string>>;
  /** What stdin, stdout and stderr are; a number is a descriptor of this program. */
  readonly stdio: readonly ("inherit" | "pipe" | "ignore" | number)[];
}

/** How a command ended: the code as shells give it, 128 and the signal's number for a signal. */
export interface Ended {
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A command that runs for as long as something is held for it. It leads a process group of its own, so that
 * signals reach all it has started, and that group is killed if this program dies, however it dies: nothing
 * goes on with what it no longer holds.
 */
export class Child {
  readonly #process: ChildProcess;
  readonly ended: Promise<Ended>;
  #over = false;

  private constructor(process: ChildProcess) {
    this.#process = process;
    this.ended = new Promise((resolve) => {
      process.once("exit", (code, signal) => {
        this.#over = true;
        guard.forget(process.pid as number);
        const number = signal === null ? 0 : (system.signals[signal] ?? 0);
        resolve({ code: code ?? EXIT_SIGNAL_BASE + number, signal });
      });
    });
  }

  /** Starts a command. Throws `CannotRun` when there is no such program, or it cannot be run. */
  static async start(command: readonly string[], options: ChildOptions): Promise<Child> {
    const [program = ""] = command;
    const env = { ...process.env, ...options.env };
    checkProgram(program, env.PATH ?? "");
    guard.start();
    const child = spawn("/bin/sh", ["-c", START, program, ...command], {
      detached: true,
      env,
      stdio: [...options.stdio, "pipe"],
    });
    if (child.pid !== undefined) guard.watch(child.pid);
    const started = new Child(child);
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error: NodeJS.ErrnoException) => reject(new CannotRun(program, error)));
    });
    const go = child.stdio[3] as Writable;
    go.on("error", () => {});
    go.end("go\n");
    // Whoever stops reading its input has its reasons.
    child.stdin?.on("error", () => {});
    return started;
  }

  get pid(): number {
    return this.#process.pid as number;
  }
  get stdin(): Writable | null {
    return this.#process.stdin;
  }
  get stdout(): Readable | null {
    return this.#process.stdout;
  }
  get stderr(): Readable | null {
    return this.#process.stderr;
  }

  /** Sends a signal to the command and all of its group. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch {
      // Nobody is left in the group.
    }
  }

  /** Tells it to end, kills what is left of its group after a while, and resolves once it has ended. */
  async stop(killAfterMs: number): Promise<Ended> {
    if (!this.#over) {
      this.signal("SIGTERM");
      // One that is stopped would not hear it.
      this.signal("SIGCONT");
      const timer = setTimeout(() => this.signal("SIGKILL"), killAfterMs);
      await this.ended;
      clearTimeout(timer);
    }
    this.signal("SIGKILL");
    return await this.ended;
  }

  /** Resolves once the command has ended and its last output was read. */
  async finished(): Promise<Ended> {
    const streams = [this.stdout, this.stderr].filter((stream) => stream !== null);
    const closed = Promise.all(
      streams.map((stream) =>
        stream.closed ? undefined : new Promise((resolve) => stream.once("close", resolve)),
      ),
    );
    const ended = await this.ended;
    await Promise.race([closed, delay(LAST_OUTPUT_MS)]);
    // What it left running still has somewhere to write to, and is no reason for this program to go on.
    for (const stream of streams) (stream as Socket).unref();
    return ended;
  }
}

/**
 * Waits for the word before it becomes the command: by then the guard knows its group. If this program dies
 * before it gives the word, there is nothing to read, and the command is never begun.
 */
const START = 'read -r go <&3 && exec 3<&- && exec "$@"';

/** Throws `CannotRun` for what the shell would find only when it is too late to tell it from a failure. */
function checkProgram(program: string, path: string): void {
  const places = program.includes("/")
    ? [program]
    : path.split(":").map((each) => join(each || ".", program));
  let reason = Object.assign(new Error("no such file"), { code: "ENOENT" }) as NodeJS.ErrnoException;
  for (const place of places) {
    try {
      accessSync(place, constants.X_OK);
      if (statSync(place).isFile()) return;
      reason = Object.assign(new Error("it is no file"), { code: "EACCES" });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ENOTDIR") reason = error as NodeJS.ErrnoException;
    }
  }
  throw new CannotRun(program, reason);
}

/** The program to run is not there, or cannot be run. */
export class CannotRun extends Error {
  override readonly name = "CannotRun";
  /** What shells exit with for it. */
  readonly exitCode: number;

  constructor(program: string, error: NodeJS.ErrnoException) {
    const missing = error.code === "ENOENT";
    const what = JSON.stringify(program);
    super(missing ? `There is no program ${what} to run.` : `${what} cannot be run: ${error.message}.`);
    this.exitCode = missing ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
  }
}

/** Signals by which people and supervisors ask a program to end or to look at something. */
const PASSED: readonly NodeJS.Signals[] = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

/**
 * Passes the signals that this program gets on to the command, which decides what to do, until the returned
 * function is called.
 *
 * @param starting the command; a signal that comes while it is being started reaches it then.
 */
export function passSignals(starting: Promise<Child>): () => void {
  const pass = (signal: NodeJS.Signals): void =>
    void starting.then(
      (child) => child.signal(signal),
      () => {},
    );
  for (const signal of PASSED) process.on(signal, pass);
  return () => {
    for (const signal of PASSED) process.off(signal, pass);
  };
}

/** A command that runs, or is being started, and whether what it works with is still held. */
export interface Holder {
  readonly starting: Promise<Child>;
  /** Aborted when it is held no more. */
  readonly lost: AbortSignal;
}

/**
 * Has a Ctrl-Z stop the commands together with this program, because nobody could renew what they still work
 * with. They go on with it, but for those that have lost it meanwhile. Until the returned function is called.
 */
export function stopTogether(holders: () => Iterable<Holder>): () => void {
  const stop = async (): Promise<void> => {
    for (const { starting } of holders())
      await starting.then((child) => child.signal("SIGSTOP")).catch(() => {});
    process.kill(process.pid, "SIGSTOP");
  };
  const goOn = (): void => {
    // The timers that are overdue by now run first, and tell what is lost.
    setTimeout(() => {
      for (const { starting, lost } of holders()) {
        if (!lost.aborted) void starting.then((child) => child.signal("SIGCONT")).catch(() => {});
      }
    });
  };
  process.on("SIGTSTP", stop);
  process.on("SIGCONT", goOn);
  return () => {
    process.off("SIGTSTP", stop);
    process.off("SIGCONT", goOn);
  };
}

/** A command that has lost what it works with has this part of its time to end: the daemon's margin is a tenth. */
const KILL_FRACTION = 1 / 20;
const MAX_KILL_AFTER_MS = 5000;

/** How long such a command may go on after it was told to end. */
export function killAfterMs(leaseMs: number): number {
  return Math.min(MAX_KILL_AFTER_MS, leaseMs * KILL_FRACTION);
}

/** Of standard error, for its last line. */
const MAX_TAIL_LENGTH = 4096;
/** By what a worker or a receiver is asked to end. */
const ENDING: readonly NodeJS.Signals[] = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"];

export interface PerformOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Written to its standard input. */
  readonly input: string;
  /** Where its standard output goes; of `pipe` so many bytes are collected, and one more that shows it had more. */
  readonly stdout: "inherit" | "pipe" | number;
  readonly maxOutputBytes?: number;
  /** Aborted when what it works with is held no more: it is ended, and killed after `killAfterMs`. */
  readonly lost: AbortSignal;
  readonly killAfterMs: number;
}

/** How a command ended, and what it said. */
export interface Performed extends Ended {
  readonly output: Buffer;
  /** The last characters of its standard error. */
  readonly tail: string;
}

/**
 * The commands that a worker or a receiver runs, several at a time. A signal that asks this program to end asks
 * them all: each has `graceMs` to do so, and a second such signal kills them.
 */
export class RunningCommands {
  readonly #graceMs: number;
  readonly #running = new Set<Holder>();
  readonly #ending = new AbortController();
  readonly #end = (): void => this.end();
  readonly #stopStopping: () => void;

  constructor(graceMs: number) {
    this.#graceMs = graceMs;
    for (const signal of ENDING) process.on(signal, this.#end);
    this.#stopStopping = stopTogether(() => this.#running);
  }

  /** Aborted when this program is to end. */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  end(): void {
    const graceMs = this.ending.aborted ? 0 : this.#graceMs;
    this.#ending.abort();
    for (const { starting } of this.#running) {
      void starting.then((child) => child.stop(graceMs)).catch(() => {});
    }
  }

  /** Runs a command and resolves with how it ended, whatever that is. Rejects with `CannotRun`. */
  async perform(command: readonly string[], options: PerformOptions): Promise<Performed> {
    const { env, input, stdout, lost, maxOutputBytes = 0 } = options;
    const starting = Child.start(command, { stdio: ["pipe", stdout, "pipe"], env });
    const holder: Holder = { starting, lost };
    this.#running.add(holder);
    try {
      const child = await starting;
      if (this.ending.aborted) void child.stop(this.#graceMs);
      const onLost = (): void => void child.stop(options.killAfterMs);
      lost.addEventListener("abort", onLost, { once: true });
      if (lost.aborted) onLost();

      const chunks: Buffer[] = [];
      let size = 0;
      child.stdout?.on("data", (chunk: Buffer) => {
        if (size <= maxOutputBytes) chunks.push(chunk.subarray(0, maxOutputBytes + 1 - size));
        size += chunk.length;
      });
      let tail = "";
      child.stderr?.on("data", (chunk: Buffer) => {
        process.stderr.write(chunk);
        tail = (tail + chunk.toString("utf8")).slice(-MAX_TAIL_LENGTH);
      });
      child.stdin?.end(input);
      const ended = await child.finished();
      lost.removeEventListener("abort", onLost);
      return { ...ended, output: Buffer.concat(chunks), tail };
    } finally {
      this.#running.delete(holder);
    }
  }

  /** Lets signals be what they were. */
  close(): void {
    for (const signal of ENDING) process.off(signal, this.#end);
    this.#stopStopping();
  }
}

/** Why a command failed, in one line: how it ended, and the last line of what it said. */
export function failureOf({ code, signal, tail }: Performed): string {
  const how = signal === null ? `exit code ${code}` : `ended by ${signal}`;
  const lastLine = tail.trimEnd().split("\n").at(-1)?.trim() ?? "";
  return lastLine === "" ? how : `${how}: ${lastLine}`;
}

/** The time of day, for lines on a terminal. */
export function clockTime(): string {
  return new Date().toTimeString().slice(0, "00:00:00".length);
}

/**
 * Learns the groups by lines (`+ 123`, `- 123`) and kills those that are left when its input ends, which the
 * kernel sees to when this program dies. It ignores what a terminal sends to everybody.
 */
const GUARD = `
trap '' HUP INT TERM QUIT
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="\${groups%% $group *} \${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
`;

class Guard {
  #process: ChildProcess | undefined;
  readonly #groups = new Set<number>();

  /** Starts it, before the first command that it is to watch. */
  start(): void {
    if (this.#process !== undefined) return;
    const child = spawn("/bin/sh", ["-c", GUARD, "pawl-guard"], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    });
    this.#process = child;
    const gone = (): void => {
      if (this.#process === child) this.#process = undefined;
    };
    child.once("error", gone);
    child.once("exit", gone);
    child.stdin.on("error", () => {});
    // It ends with this program, and is no reason for it to go on.
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    for (const group of this.#groups) child.stdin.write(`+ ${group}\n`);
  }

  watch(group: number): void {
    this.#groups.add(group);
    this.#process?.stdin?.write(`+ ${group}\n`);
  }

  forget(group: number): void {
    this.#groups.delete(group);
    this.#process?.stdin?.write(`- ${group}\n`);
  }
}

const guard = new Guard();
