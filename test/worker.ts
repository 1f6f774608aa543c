// Processes beside the test that use a daemon, in test/workers/.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { PYTHON } from "./python.js";

export interface Worker<T> {
  /** The printed result, parsed; rejects if the worker failed. */
  readonly printed: Promise<T>;
  /** Ends its standard input, which tells it to come to an end. */
  finish(): void;
}

const PROGRAMS = { js: [process.execPath], py: PYTHON } as const;

/** Starts a worker; it is killed with the test if it still runs then. */
export function startWorker<T = number[]>(
  file: `${string}.${keyof typeof PROGRAMS}`,
  args: string[],
): Worker<T> {
  const [program, ...options] = PROGRAMS[file.split(".")[1] as keyof typeof PROGRAMS];
  const child = spawn(program, [...options, join(import.meta.dirname, "workers", file), ...args], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const printed = new Promise<T>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) resolve(JSON.parse(stdout) as T);
      else reject(new Error(`${file} ended with ${signal ?? code}: ${stderr}`));
    });
  });
  // A test may end before it looks.
  printed.catch(() => {});
  return { printed, finish: () => child.stdin.end() };
}

/** The integers from 1 to `last`. */
export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

/** True if each number is greater than the one before. */
export function isRising(numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number > (numbers[index - 1] as number));
}
