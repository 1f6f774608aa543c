import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ConnectionLost } from "./client.js";

const START_TIMEOUT_MS = 10_000;
const RETRY_MS = 20;
/** What pawld exits with when its options are wrong, or it could not start; another daemon may have won. */
const EXIT_USAGE = 2;
const MAX_KEPT_TEXT = 4096;

export interface SpawnOptions {
  /** The daemon program and its first arguments; otherwise `$PAWLD`, `@pawl/daemon` if installed, or `pawld`. */
  command?: readonly string[];
  /** More arguments, such as `["--idle-exit", "600"]`. */
  args?: readonly string[];
  /** How long to wait for it to listen, in milliseconds. */
  timeoutMs?: number;
}

/**
 * Starts a daemon that outlives this process, and connects to whichever daemon listens first: when many
 * processes do this at once, the database's lock lets one of their daemons run, and the others end.
 *
 * @param open connects; rejects while nothing listens.
 */
export async function startDaemon(
  socketPath: string,
  instance: string,
  options: SpawnOptions,
  open: () => Promise<void>,
): Promise<void> {
  const [program, ...args] = [...(options.command ?? daemonCommand()), ...(options.args ?? [])];
  const child = spawn(program as string, [...args, "--socket", socketPath, "--instance", instance], {
    detached: true,
    // It must not hold our terminal or our pipes; what it says before it is up is told in our error.
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  let ended: string | undefined;
  let misused = false;
  child.stderr.on("data", (chunk) => {
    said = (said + chunk).slice(-MAX_KEPT_TEXT);
  });
  child.once("error", (error) => {
    ended = error.message;
    misused = true;
  });
  child.once("exit", (code, signal) => {
    ended = `it ended with ${signal ?? code}`;
    misused = code === EXIT_USAGE;
  });
  child.unref();

  const givingUp = performance.now() + (options.timeoutMs ?? START_TIMEOUT_MS);
  let cause: unknown;
  while (!misused && performance.now() < givingUp) {
    try {
      await open();
      child.stderr.destroy();
      return;
    } catch (error) {
      cause = error;
    }
    await delay(RETRY_MS);
  }
  child.stderr.destroy();
  const reason = [ended, said.trim()].filter(Boolean).join(": ") || "it does not listen";
  throw new ConnectionLost(`Started ${program} for ${socketPath}, but ${reason}.`, undefined, { cause });
}

function daemonCommand(): string[] {
  if (process.env.PAWLD) return [process.env.PAWLD];
  try {
    // Beside us in a clone or in an application that has both packages.
    const manifest = createRequire(import.meta.url).resolve("@pawl/daemon/package.json");
    return [process.execPath, join(dirname(manifest), "bin/pawld.js")];
  } catch {
    return ["pawld"];
  }
}
