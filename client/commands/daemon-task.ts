// What the daemon's program does instead of serving, since the packages for it are the daemon's: with our environment.
import { execFile } from "node:child_process";
import { type ErrorDetails, type ErrorKind, PawlError } from "@pawl/protocol/errors";
import { daemonCommand } from "../connection/daemon-program.js";
import { UsageError } from "../terminal/command.js";

/** The exit code of pawld when its options are wrong. */
const EXIT_USAGE = 2;
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

interface Refused {
  readonly error?: { readonly kind: ErrorKind; readonly message: string; readonly details: ErrorDetails };
}

/** Runs pawld with some flags, and resolves with the line of JSON that it prints; rejects with the refusal in it. */
export function askProgram<T>(flags: readonly string[]): Promise<T> {
  const [program = "pawld", ...before] = daemonCommand();
  return new Promise((resolve, reject) => {
    execFile(program, [...before, ...flags], { maxBuffer: MAX_ANSWER_BYTES }, (error, stdout, stderr) => {
      const line = stdout.trim();
      if (line.startsWith("{")) {
        const answer = JSON.parse(line) as T & Refused;
        if (answer.error === undefined) return resolve(answer);
        const { kind, message, details } = answer.error;
        return reject(new PawlError(kind, message, details));
      }
      const said = stderr.trim().replace(/^pawld: /, "");
      const usage = error !== null && error.code === EXIT_USAGE;
      reject(usage ? new UsageError(said) : new PawlError("unavailable", said || String(error?.message)));
    });
  });
}
