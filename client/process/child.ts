// The room of processes: the programs that `work`, `serve` and `lock` run for as long as something is held for them.
import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { constants as system } from "node:os";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { groupGuard } from "./group-guard.js";
import { CannotRun, checkProgram } from "./program.js";

/** How long output may be on its way when the command has ended: processes that it left may hold the pipe open. */
const LAST_OUTPUT_MS = 200;
/** Shells exit with this and the number of the signal that ended a command. */
const EXIT_SIGNAL_BASE = 128;

export interface ChildOptions {
  /** Added to the environment of this program. */
  readonly env?: Readonly<Record<string, string>>;
  /** Stdin, stdout and stderr of the command; a number is a descriptor of this program. */
  readonly stdio: readonly ("inherit" | "pipe" | "ignore" | number)[];
}

/** How a command ended: the code as shells give it, 128 and the signal's number for a signal. */
export interface Ended {
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A command that runs for as long as something is held for it. The command leads a process group of its own, so that
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
        groupGuard.forget(process.pid as number);
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
    groupGuard.start();
    const child = spawn("/bin/sh", ["-c", START, program, ...command], {
      detached: true,
      env,
      stdio: [...options.stdio, "pipe"],
    });
    if (child.pid !== undefined) groupGuard.watch(child.pid);
    const started = new Child(child);
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error: NodeJS.ErrnoException) => reject(new CannotRun(program, error)));
    });
    const go = child.stdio[3] as Writable;
    go.on("error", () => {});
    go.end("go\n");
    // A command may stop reading its input.
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

  /** Tells the command to end, kills the rest of its group after a while, and resolves once the command has ended. */
  async stop(killAfterMs: number): Promise<Ended> {
    if (!this.#over) {
      this.signal("SIGTERM");
      // A command that is stopped would not hear it.
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
    // Processes that the command left running still have somewhere to write to, and do not keep this program.
    for (const stream of streams) (stream as Socket).unref();
    return ended;
  }
}

/**
 * Waits for the word before it becomes the command: by then the guard knows its group. If this program dies
 * before it gives the word, there is nothing to read, and the command is never begun.
 */
const START = 'read -r go <&3 && exec 3<&- && exec "$@"';
