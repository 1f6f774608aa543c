// The room of processes: the programs that `work`, `serve` and `lock` run for as long as something is held for them.
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import type { Socket } from "node:net";
import { constants as system } from "node:os";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { groupGuard } from "./group-guard.js";
import { ignoredSignals, inheritedDescriptors } from "./inherited.js";
import { CannotRun, checkProgram } from "./program.js";
import { hasTerminal, isForeground, isStopped, processesOf } from "./terminal-session.js";

/** How long output may be on its way when the command has ended: processes that it left may hold the pipe open. */
const LAST_OUTPUT_MS = 200;
/** How long a program may take to stop by itself after Ctrl-Z: an editor puts the terminal in order first. */
const STOP_MS = 200;
const LOOK_MS = 5;
/** How often those are looked for that a command has started since one last looked. */
const MAX_KILL_ROUNDS = 10;
/** Signals that the terminal sends to all that share the group in the foreground. */
const OF_TERMINAL: readonly NodeJS.Signals[] = ["SIGINT", "SIGQUIT"];
/** Shells exit with this and the number of the signal that ended a command. */
const EXIT_SIGNAL_BASE = 128;

export interface ChildOptions {
  /** Added to the environment of this program; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Stdin, stdout and stderr of the command; a number is a descriptor of this program. */
  readonly stdio: readonly ("inherit" | "pipe" | "ignore" | number)[];
}

/** How a command ended: the code as shells give it, 128 and the signal's number for a signal. */
export interface Ended {
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A command that runs for as long as something is held for it. All that it has started is reached by its signals and
 * is killed if this program dies, however it dies: nothing goes on with what it no longer holds.
 *
 * Without a terminal the command leads a session and a process group of its own. On a terminal it stays in the group of
 * this program, as under flock(1), so that the terminal is its own too: what it has started is then known by a mark in
 * the environment.
 */
export class Child {
  readonly #process: ChildProcess;
  /** In the environment of all that it starts; undefined if it has a group of its own. */
  readonly #mark: string | undefined;
  readonly ended: Promise<Ended>;
  #over = false;

  private constructor(process: ChildProcess, mark: string | undefined) {
    this.#process = process;
    this.#mark = mark;
    this.ended = new Promise((resolve) => {
      process.once("exit", (code, signal) => {
        this.#over = true;
        groupGuard.forget(mark ?? (process.pid as number));
        const number = signal === null ? 0 : (system.signals[signal] ?? 0);
        resolve({ code: code ?? EXIT_SIGNAL_BASE + number, signal });
      });
    });
  }

  /** Starts a command. Throws `CannotRun` when there is no such program, or it cannot be run. */
  static async start(command: readonly string[], options: ChildOptions): Promise<Child> {
    const [program = ""] = command;
    const mark = hasTerminal() ? randomUUID() : undefined;
    const env: NodeJS.ProcessEnv = { ...process.env, ...options.env, ...marked(mark) };
    checkProgram(program, env.PATH ?? "");
    groupGuard.start();
    if (mark !== undefined) groupGuard.watch(mark);
    const { stdio, gate } = descriptors(options.stdio);
    const child = spawn("/bin/sh", ["-c", startScript(gate), program, ...command], {
      detached: mark === undefined,
      env,
      stdio,
    });
    if (child.pid !== undefined && mark === undefined) groupGuard.watch(child.pid);
    const started = new Child(child, mark);
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error: NodeJS.ErrnoException) => reject(new CannotRun(program, error)));
    });
    const go = child.stdio[gate as 3] as Writable | undefined;
    go?.on("error", () => {});
    go?.end("go\n");
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

  /** Sends a signal to the command and all that it has started. */
  signal(signal: NodeJS.Signals): void {
    if (this.#mark === undefined) return void send(-this.pid, signal);
    const root = this.#over ? undefined : this.pid;
    for (let round = 0; round < MAX_KILL_ROUNDS; round++) {
      const processes = processesOf(root, this.#mark);
      for (const pid of processes) send(pid, signal);
      // Others may have been started meanwhile. Any other signal comes once.
      if (signal !== "SIGKILL" || processes.length === 0) return;
    }
  }

  /** Passes a signal on that this program got, unless the terminal has sent it to the command too. */
  pass(signal: NodeJS.Signals): void {
    if (this.#mark !== undefined && OF_TERMINAL.includes(signal) && isForeground()) return;
    this.signal(signal);
  }

  /** Stops the command, because this program is about to be: on a terminal Ctrl-Z has told it too. */
  async suspend(): Promise<void> {
    const givingUp = performance.now() + STOP_MS;
    while (this.#mark !== undefined && !this.#over && !isStopped(this.pid) && performance.now() < givingUp) {
      await delay(LOOK_MS);
    }
    this.signal("SIGSTOP");
  }

  /** Tells the command to end, and resolves once it has. What it has started is killed then, or after a while. */
  async stop(killAfterMs: number, signal: NodeJS.Signals = "SIGTERM"): Promise<Ended> {
    if (!this.#over) {
      this.signal(signal);
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

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** `pawl` may run `pawl`: the marks of all of them are in the environment. */
function marked(mark: string | undefined): NodeJS.ProcessEnv {
  return mark === undefined ? {} : { PAWL_MARKS: [process.env.PAWL_MARKS, mark].filter(Boolean).join(" ") };
}

type Stdio = ("inherit" | "pipe" | "ignore" | number)[];

/** The streams of a command, the descriptors that this program inherited under their numbers, and the gate's number. */
function descriptors(streams: ChildOptions["stdio"]): { stdio: Stdio; gate: number } {
  const stdio: Stdio = [...streams];
  const put = (fd: number, what: Stdio[number]): void => {
    while (stdio.length < fd) stdio.push("ignore");
    stdio[fd] = what;
  };
  for (const fd of inheritedDescriptors) put(fd, fd);
  // A shell names descriptors by one digit.
  const gate = [3, 4, 5, 6, 7, 8, 9].find((fd) => !inheritedDescriptors.includes(fd)) ?? NO_GATE;
  if (gate !== NO_GATE) put(gate, "pipe");
  return { stdio, gate };
}

const NO_GATE = -1;

/**
 * Waits at the gate for the word before it becomes the command: by then the guard knows its group. If this program dies
 * before it gives the word, there is nothing to read, and the command is never begun. Signals that were ignored when
 * this program was started are ignored again: Node has them do what they do by default.
 */
function startScript(gate: number): string {
  const traps = ignoredSignals.map((name) => system.signals[name]).filter((number) => !UNTRAPPED.has(number));
  const ignoring = traps.length === 0 ? "" : `trap '' ${traps.join(" ")}; `;
  const waiting = gate === NO_GATE ? "" : `read -r go <&${gate} && exec ${gate}<&- && `;
  return `${ignoring}${waiting}exec "$@"`;
}

/** Signals that a shell cannot ignore, or waits by. */
const UNTRAPPED = new Set([system.signals.SIGKILL, system.signals.SIGSTOP, system.signals.SIGCHLD]);
