import { Child, type Ended } from "./child.js";
import { notIgnored } from "./inherited.js";
import { CannotRun } from "./program.js";
import { type HeldCommand, stopTogether } from "./signals.js";

/** A command that has lost its grant has this part of the grant's time to end: the client's margin is a tenth. */
const KILL_FRACTION = 1 / 20;
const MAX_KILL_AFTER_MS = 5000;

/** How long such a command may go on after it was told to end. */
export function killAfterMs(leaseMs: number): number {
  return Math.min(MAX_KILL_AFTER_MS, leaseMs * KILL_FRACTION);
}

/** How many characters of standard error are kept, for its last line. */
const MAX_TAIL_LENGTH = 4096;
/** Signals by which a worker or a receiver is asked to end. */
const ENDING = notIgnored(["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]);

export interface PerformOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Written to its standard input. */
  readonly input: string;
  /** Where its standard output goes; of `pipe` so many bytes are collected, and one more that shows it had more. */
  readonly stdout: "inherit" | "pipe" | number;
  readonly maxOutputBytes?: number;
  /** Aborted when the grant that the command works with is lost: it is ended, and killed after `killAfterMs` then. */
  readonly lost: AbortSignal;
  readonly killAfterMs: () => number;
}

/** How a command ended, and its output. */
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
  readonly #running = new Set<HeldCommand>();
  readonly #ending = new AbortController();
  readonly #end = (): void => this.end();
  readonly #stopStopping: () => void;
  #unable: CannotRun | undefined;

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

  /**
   * Runs a command and resolves with how it ended, whatever that is. Rejects with `CannotRun`, and then asks all others
   * to end: no other could be run either.
   */
  async perform(command: readonly string[], options: PerformOptions): Promise<Performed> {
    const { env, stdout, lost } = options;
    const starting = Child.start(command, { stdio: ["pipe", stdout, "pipe"], env });
    const held: HeldCommand = { starting, lost };
    this.#running.add(held);
    try {
      const child = await starting;
      if (this.ending.aborted) void child.stop(this.#graceMs);
      return await untilEnd(child, options);
    } catch (error) {
      if (error instanceof CannotRun) {
        this.#unable = error;
        this.end();
      }
      throw error;
    } finally {
      this.#running.delete(held);
    }
  }

  /** Throws `CannotRun` if a command could not be run. */
  throwIfUnable(): void {
    if (this.#unable !== undefined) throw this.#unable;
  }

  /** Lets signals be what they were. */
  close(): void {
    for (const signal of ENDING) process.off(signal, this.#end);
    this.#stopStopping();
  }
}

/** Gives a command its input and reads its output, until it has ended. */
async function untilEnd(child: Child, options: PerformOptions): Promise<Performed> {
  const { input, lost, killAfterMs: graceMs, maxOutputBytes = 0 } = options;
  const onLost = (): void => void child.stop(graceMs());
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
}

/** Why a command failed, in one line: how it ended, and the last line of what it said. */
export function failureOf({ code, signal, tail }: Performed): string {
  const how = signal === null ? `exit code ${code}` : `ended by ${signal}`;
  const lastLine = tail.trimEnd().split("\n").at(-1)?.trim() ?? "";
  return lastLine === "" ? how : `${how}: ${lastLine}`;
}
