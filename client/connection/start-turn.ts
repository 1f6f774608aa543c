import { createHash } from "node:crypto";
import { createServer, type Server } from "node:net";

/**
 * Takes the turn to start a daemon for a socket, until the server is closed. Resolves with undefined while another
 * process has it: one of all may listen under this abstract name, and the kernel takes the name back however that one
 * ends (unix(7)). Elsewhere than on Linux all have the turn.
 */
export async function takeTurn(socketPath: string): Promise<Server | undefined> {
  const server = createServer();
  const name = createHash("sha256").update(socketPath).digest("hex");
  const taken = await new Promise<boolean>((resolve) => {
    server.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code !== "EADDRINUSE"));
    server.listen(`\0pawl-start-${name}`, () => resolve(true));
  });
  server.unref();
  return taken ? server : undefined;
}
