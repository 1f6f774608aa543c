import { accessSync, constants, statSync } from "node:fs";
import { join } from "node:path";

/** Exit codes of shells for a command that is not there, or that cannot be run. */
const EXIT_NOT_FOUND = 127;
const EXIT_NOT_RUNNABLE = 126;

/**
 * Throws `CannotRun` unless there is such a program. The shell would find out only when that cannot be told from a
 * failure of the program any more.
 */
export function checkProgram(program: string, path: string): void {
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
  /** The exit code of shells for it. */
  readonly exitCode: number;

  constructor(program: string, error: NodeJS.ErrnoException) {
    const missing = error.code === "ENOENT";
    const what = JSON.stringify(program);
    super(missing ? `There is no program ${what} to run.` : `${what} cannot be run: ${error.message}.`);
    this.exitCode = missing ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
  }
}
