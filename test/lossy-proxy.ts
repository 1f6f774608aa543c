// A TCP proxy on loopback that can lose what passes: connections, or answers after the request was acted upon.
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import type { AtEnd } from "./daemon.js";

export class LossyProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Of all answers, the share that is lost; its connection is closed then. */
  lostAnswers = 0;
  /** How many were lost. */
  lost = 0;

  private constructor(targetPort: number) {
    this.#server = createServer({ noDelay: true }, (from) => {
      const to = connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
      for (const [socket, other] of [
        [from, to],
        [to, from],
      ] as const) {
        this.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
      }
      from.pipe(to);
      to.on("data", (chunk) => {
        if (Math.random() < this.lostAnswers) {
          this.lost += 1;
          from.destroy();
        } else from.write(chunk);
      });
      to.on("end", () => from.end());
    });
  }

  /** Listens for connections to a port of loopback. */
  static async start(targetPort: number, atEnd: AtEnd): Promise<LossyProxy> {
    const proxy = new LossyProxy(targetPort);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    atEnd(() => proxy.cut());
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Closes all connections and takes no more. */
  async cut(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
