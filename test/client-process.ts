// Programs that use the client library in processes of their own.
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";

const REPOSITORY = join(import.meta.dirname, "..");

/** A program under way, by the lines it prints: each is one JSON value. */
export class ClientProcess {
  readonly child: ChildProcess;
  readonly printed: unknown[] = [];
  stderr = "";
  /** Resolves with how it ended, once all that it printed was read. */
  readonly exited: Promise<number | NodeJS.Signals>;
  #over = false;
  #wanted: (() => void)[] = [];

  constructor(child: ChildProcess) {
    this.child = child;
    child.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      this.printed.push(JSON.parse(line));
      for (const look of this.#wanted.splice(0)) look();
    });
    this.exited = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        this.#over = true;
        for (const look of this.#wanted.splice(0)) look();
        resolve(signal ?? code ?? -1);
      });
    });
  }

  /** The value it prints as number `index`, from 0; rejects if it ends without. */
  async line<T>(index: number): Promise<T> {
    while (this.printed.length <= index) {
      if (this.#over) throw new Error(`the program ended after ${this.printed.length} lines: ${this.stderr}`);
      await new Promise<void>((resolve) => this.#wanted.push(resolve));
    }
    return this.printed[index] as T;
  }

  tell(text: string): void {
    this.child.stdin?.write(`${text}\n`);
  }

  async end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals> {
    this.child.kill(signal);
    return await this.exited;
  }
}

/**
 * Starts a program that has `connect` and the rest of the client library, its arguments as `args`, and
 * `print(value)`. Ended with the test.
 */
export function startProgram(
  source: string,
  args: readonly unknown[] = [],
  options: { stdio?: StdioOptions; detached?: boolean; env?: Record<string, string> } = {},
): ClientProcess {
  const program = `
    import * as library from "@pawl/client";
    const { connect, ConnectionLost, PawlError } = library;
    const args = ${JSON.stringify(args)};
    const print = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
    ${source}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: REPOSITORY,
    stdio: options.stdio ?? ["pipe", "pipe", "pipe"],
    detached: options.detached ?? false,
    env: { ...process.env, ...options.env },
  });
  const running = new ClientProcess(child);
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await running.exited;
  });
  return running;
}
