// Injected failures of the disk: a library that is preloaded into the daemon, built here with the C compiler.
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readSync, writeFileSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";

const CONTROL_BYTES = 20;
/** `ON_WRITE` and `ON_SYNC` of the library, with `OF_COMMITS` or `OF_OTHERS`. */
const CALLS = {
  write: 1,
  sync: 2,
  "write of a commit": 1 | 4,
  "sync of a commit": 2 | 4,
  "other sync": 2 | 8,
};
/** `SHORT_WRITE` of the library. */
const SHORT = -1;

export type Failure = { calls: keyof typeof CALLS; error: "EIO" | "ENOSPC" | "EDQUOT" | "short" };

/** Why no failures can be injected here, if that is so. */
export const noCompiler = (() => {
  const { status, error } = spawnSync("gcc", ["--version"]);
  return status === 0 ? undefined : (error?.message ?? "gcc does not work");
})();

export class FailingIo {
  /** For a daemon that is to be subject to the failures. */
  readonly env: Record<string, string>;
  readonly library: string;
  readonly #file: number;

  /** @param directory where the library and its control file are put. */
  constructor(directory: string) {
    this.library = join(directory, "failing-io.so");
    const source = join(import.meta.dirname, "failing-io.c");
    const { status, stderr } = spawnSync(
      "gcc",
      ["-O2", "-Wall", "-shared", "-fPIC", "-o", this.library, source, "-ldl"],
      { encoding: "utf8" },
    );
    if (status !== 0) throw new Error(`gcc: ${stderr}`);
    const control = join(directory, "failing-io");
    writeFileSync(control, Buffer.alloc(CONTROL_BYTES));
    this.#file = openSync(control, "r+");
    this.env = { LD_PRELOAD: this.library, PAWL_FAILING_IO: control };
  }

  /** From now on, after so many calls that pass, so many fail. */
  fail({ calls, error }: Failure, passing: number, failing: number): void {
    const errno = error === "short" ? SHORT : constants.errno[error];
    // Which calls comes last, so that the library finds a whole plan.
    this.#write(4, [errno, passing, failing]);
    this.#write(0, [CALLS[calls]]);
  }

  /** The disk is well again. */
  stop(): void {
    this.#write(0, [0]);
  }

  /** How many calls have failed. */
  get failed(): number {
    const bytes = Buffer.alloc(CONTROL_BYTES);
    readSync(this.#file, bytes, 0, CONTROL_BYTES, 0);
    return bytes.readInt32LE(16);
  }

  close(): void {
    closeSync(this.#file);
  }

  #write(at: number, values: readonly number[]): void {
    const bytes = Buffer.alloc(4 * values.length);
    values.forEach((value, index) => {
      bytes.writeInt32LE(value, 4 * index);
    });
    writeSync(this.#file, bytes, 0, bytes.length, at);
  }
}
