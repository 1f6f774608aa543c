import { chmodSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { isTaken, pidSpace } from "../sessions/process-mark.js";
import { sessionsDirectory } from "../sessions/runtime-directory.js";
import { runHook } from "./hook.js";

/** A socket of it is called by the pid of its process. */
const ENDING = ".hooks";
/** A longer hook is answered by a process of its own. */
const MAX_INPUT_BYTES = 16 * 1024 * 1024;

/**
 * Answers hooks in this process, which runs for as long as its agent does: to start Node for each edit takes longer
 * than all that a hook has to do. `pawl hook` asks here first (client/bin/pawl.js), and starts Node if nobody answers.
 *
 * A request is a line with the pid of the hook's parent and its pid namespace, a line with `$PAWL_SESSION`, and the
 * host's JSON, to the end. An answer is a line with the exit code and the bytes of both outputs, then these. What this
 * process cannot know as the hook would is not answered.
 */
export function serveHooks(socketPath: string): Server | undefined {
  const directory = sessionsDirectory(socketPath);
  const path = join(directory, `${process.pid}${ENDING}`);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    removeLeftOver(directory);
    rmSync(path, { force: true });
  } catch {
    return undefined;
  }
  const server = createServer({ allowHalfOpen: true }, (socket) => void answer(socket, socketPath));
  // Without it hooks are answered all the same.
  server.on("error", () => {});
  server.listen(path, () => chmodSync(path, 0o600));
  return server.unref();
}

/** Sockets of processes that were killed. */
function removeLeftOver(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (name.endsWith(ENDING) && !isTaken(Number(name.slice(0, -ENDING.length)))) {
      rmSync(join(directory, name), { force: true });
    }
  }
}

async function answer(socket: Socket, socketPath: string): Promise<void> {
  try {
    const [caller = "", session = "", ...lines] = (await all(socket)).split("\n");
    const input = lines.join("\n");
    const [parent = "", space] = caller.split(" ");
    const { cwd } = JSON.parse(input) as { cwd?: unknown };
    if (space !== pidSpace() || typeof cwd !== "string")
      throw new Error("it is not known whose hook this is");
    const { PAWL_SESSION: _, ...env } = process.env;
    const own = session === "" ? env : { ...env, PAWL_SESSION: session };
    const { code, stdout, stderr } = await runHook({
      socketPaths: [socketPath],
      env: own,
      input,
      parent: Number(parent),
    });
    const [out, err] = [Buffer.from(stdout), Buffer.from(stderr)];
    socket.end(Buffer.concat([Buffer.from(`${code} ${out.length} ${err.length}\n`), out, err]));
  } catch {
    socket.destroy();
  }
}

/** All that comes until the peer has said all; its side of the socket stays open for the answer. */
function all(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_INPUT_BYTES) reject(new Error("it is too long"));
      else chunks.push(chunk);
    });
    socket.once("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    socket.once("error", reject).once("close", () => reject(new Error("it has gone")));
  });
}
