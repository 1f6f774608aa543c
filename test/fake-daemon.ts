// Programs that listen where a daemon should, and are none or not quite one.
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { privateDirectory } from "./daemon.js";

export interface FakeRequest {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { code: number; message: string };
}

export interface FakeDaemon {
  socket: string;
  /** The messages received, over all connections. */
  received: FakeRequest[];
  connections: Socket[];
  /** Resolves with the first message that was or will be received and matches. */
  message: (matches: (message: FakeRequest) => boolean) => Promise<FakeRequest>;
}

/**
 * @param onConnection is told of each connection as it comes.
 * @param onMessage is told of each message; `send` writes one line.
 */
export async function fakeDaemon(behaviour: {
  onConnection?: (connection: Socket, index: number) => void;
  onMessage?: (message: FakeRequest, send: (message: unknown) => void, connection: Socket) => void;
}): Promise<FakeDaemon> {
  const socket = join(privateDirectory(), "fake.sock");
  const received: FakeRequest[] = [];
  const connections: Socket[] = [];
  let wanted: { matches: (message: FakeRequest) => boolean; resolve: (message: FakeRequest) => void }[] = [];
  const server = createServer((connection) => {
    connections.push(connection);
    connection.on("error", () => {});
    createInterface({ input: connection }).on("line", (line) => {
      const message = JSON.parse(line) as FakeRequest;
      received.push(message);
      wanted = wanted.filter(({ matches, resolve }) => {
        if (matches(message)) resolve(message);
        return !matches(message);
      });
      const send = (answer: unknown): void => void connection.write(`${JSON.stringify(answer)}\n`);
      behaviour.onMessage?.(message, send, connection);
    });
    behaviour.onConnection?.(connection, connections.length - 1);
  });
  server.listen(socket);
  await once(server, "listening");
  onTestFinished(() => {
    for (const connection of connections) connection.destroy();
    server.close();
  });
  return {
    socket,
    received,
    connections,
    message: (matches) => {
      const there = received.find(matches);
      if (there !== undefined) return Promise.resolve(there);
      return new Promise((resolve) => wanted.push({ matches, resolve }));
    },
  };
}
