import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";

/** The far end prints this once forwarding is set up: ssh listens before it starts the command there. */
const READY = "pawl-forwarding";

const ENDING_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

/** A socket here behind which a daemon on another machine answers. */
export interface Forwarding extends AsyncDisposable {
  readonly socket: string;
}

/** A peer's daemon: on a path here, or on another machine. */
export type PeerAddress =
  | { readonly kind: "socket"; readonly path: string }
  | { readonly kind: "ssh"; readonly host: string; readonly path: string | undefined };

/**
 * Reads `PATH`, or `ssh:HOST[:SOCKET]`. An IPv6 address is put in brackets. Undefined when it is neither.
 */
export function parsePeer(text: string): PeerAddress | undefined {
  if (!text.startsWith("ssh:")) return text === "" ? undefined : { kind: "socket", path: text };
  const [, user = "", bracketed, plain, path] =
    /^ssh:([^@:/]+@)?(?:\[([^\]]+)\]|([^:/@[\]]+))(?::(\/.+))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  return host === undefined ? undefined : { kind: "ssh", host: user + host, path };
}

/**
 * Forwards the socket of a daemon on another machine by ssh, until disposed. ssh asks on the terminal for what
 * it needs, and its own messages go to stderr. Rejects with `unavailable` when it does not come to be.
 */
export async function forward(host: string, path: string | undefined): Promise<Forwarding> {
  const remote = path ?? (await remoteSocketPath(host));
  // Only we may get at the directory, whatever mode ssh gives the socket.
  const directory = mkdtempSync(join(tmpdir(), "pawl-sync-"));
  const socket = join(directory, "peer.sock");
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  const ssh = startSsh(
    ["-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "-L", `${socket}:${remote}`],
    host,
    // The command ends when its input does: soon after this program is gone, however it went.
    `echo ${READY}; exec cat`,
  );
  // ssh would stay until the daemon there has answered what this program no longer waits for.
  const leave = (signal: NodeJS.Signals): void => {
    ssh.kill();
    remove();
    process.kill(process.pid, signal);
  };
  for (const signal of ENDING_SIGNALS) process.once(signal, leave);
  const dispose = async (): Promise<void> => {
    for (const signal of ENDING_SIGNALS) process.off(signal, leave);
    ssh.stdin?.end();
    if (ssh.exitCode === null && ssh.signalCode === null && ssh.pid !== undefined) {
      ssh.kill();
      await once(ssh, "close");
    }
    remove();
  };
  try {
    await saysReady(ssh, host);
  } catch (error) {
    await dispose();
    throw error;
  }
  return { socket, [Symbol.asyncDispose]: dispose };
}

/** The path on which the daemon listens there, as `pawl` there says. */
async function remoteSocketPath(host: string): Promise<string> {
  const ssh = startSsh([], host, "pawl socket-path");
  ssh.stdin?.end();
  let output = "";
  ssh.stdout?.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  const [code] = await ended(ssh, host);
  const path = output.trim();
  if (code !== 0 || !path.startsWith("/")) {
    throw unavailable(`\`pawl socket-path\` on ${host} says no path (exit code ${code})`, host);
  }
  return path;
}

function startSsh(options: readonly string[], host: string, command: string): ChildProcess {
  const ssh = spawn("ssh", ["-T", ...options, "--", host, command], { stdio: ["pipe", "pipe", "inherit"] });
  // ssh may be gone before its input is.
  ssh.stdin?.on("error", () => {});
  return ssh;
}

async function saysReady(ssh: ChildProcess, host: string): Promise<void> {
  let output = "";
  const ready = new Promise<void>((resolve) => {
    ssh.stdout?.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (output.includes(READY)) resolve();
    });
  });
  const over = ended(ssh, host).then(([code]) => {
    throw unavailable(`ssh to ${host} ended with ${code} before it forwarded anything`, host);
  });
  // After it was ready, its end is seen by the connection through it.
  over.catch(() => {});
  await Promise.race([ready, over]);
}

async function ended(ssh: ChildProcess, host: string): Promise<[number | null, NodeJS.Signals | null]> {
  try {
    return (await once(ssh, "close")) as [number | null, NodeJS.Signals | null];
  } catch (error) {
    throw unavailable(`ssh cannot be run (${(error as NodeJS.ErrnoException).code})`, host);
  }
}

function unavailable(what: string, host: string): PawlError {
  return new PawlError(
    "unavailable",
    `${what}. See that \`ssh ${host}\` works, or name the daemon's socket there: ssh:${host}:/path/to/pawl.sock.`,
    { reason: "ssh" },
  );
}
