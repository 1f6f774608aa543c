// Processes that hold a connection of their own without the client library, to be killed.
import { spawn } from "node:child_process";
import { onTestFinished } from "vitest";
import { ClientProcess } from "./client-process.js";

const SOURCE = `
  import { connect } from "node:net";
  const [socketPath, halfClose, ...requests] = process.argv.slice(1);
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.on("data", (chunk) => process.stdout.write(chunk));
  for (const request of requests) socket.write(request + "\\n");
  if (halfClose === "half-close") socket.end();
`;

/**
 * Starts a process that sends requests on one connection, prints every line that comes back, and stays. With
 * `halfClose` it shuts its writing side after the last request, as `printf ... | socat` does. `command` runs
 * it, such as one that changes the user; by default nothing does.
 */
export function startRaw(
  socketPath: string,
  requests: readonly { method: string; params?: object }[],
  options: { halfClose?: boolean; command?: readonly string[] } = {},
): ClientProcess {
  const lines = requests.map((request, index) =>
    JSON.stringify({ jsonrpc: "2.0", id: index + 1, ...request }),
  );
  const ending = options.halfClose ? "half-close" : "open";
  const [program, ...args] = [
    ...(options.command ?? []),
    ...[process.execPath, "--input-type=module", "--eval", SOURCE, "--", socketPath, ending, ...lines],
  ] as [string, ...string[]];
  const child = spawn(program, args, { cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
  const running = new ClientProcess(child);
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await running.exited;
  });
  return running;
}
