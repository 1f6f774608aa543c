// Daemons that share names in one PostgreSQL.

import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import type { NotificationName, NotificationParams } from "@pawl/protocol";
import { Session } from "../daemon/dist/shared/session.js";
import { createTables } from "../daemon/dist/shared/tables.js";
import type { AtEnd, LogLine } from "./daemon.js";
import type { RawClient } from "./raw-client.js";

/** True of the line that a daemon logs once it is connected to a place. */
export function isThere({ msg }: LogLine): boolean {
  return msg === "the database of shared names is there";
}

/** Makes the tables at a place. */
export async function makePlace(url: string): Promise<void> {
  const session = await Session.open(url);
  await createTables(session, { dryRun: false });
  await session.close();
}

/** A TCP proxy on loopback that can go silent: nothing passes then, and nobody is told. */
export class SilentProxy {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #isSilent = false;
  /**
   * Told of what a client sends, by which connection: `pass` it, pass it and `hold` what is answered, or `drop` it and
   * all that follows.
   */
  onSent: ((text: string, by: Socket) => "pass" | "hold" | "drop") | undefined;

  private constructor(targetPort: number) {
    this.#server = createServer({ noDelay: true }, (from) => {
      const to = connectTcp({ port: targetPort, host: "127.0.0.1", noDelay: true });
      const pair = [from, to] as const;
      this.#pairs.add(pair);
      for (const socket of pair) {
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#pairs.delete(pair);
          for (const each of pair) each.destroy();
        });
      }
      from.on("data", (chunk) => {
        const fate = this.#isSilent ? "drop" : (this.onSent?.(chunk.toString("latin1"), from) ?? "pass");
        if (fate !== "pass") this.#isSilent = true;
        if (fate !== "drop") to.write(chunk);
      });
      to.on("data", (chunk) => {
        if (!this.#isSilent) from.write(chunk);
      });
    });
  }

  static async start(targetPort: number, atEnd: AtEnd): Promise<SilentProxy> {
    const proxy = new SilentProxy(targetPort);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    atEnd(async () => {
      proxy.cut();
      await new Promise((resolve) => proxy.#server.close(resolve));
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Nothing passes any more, and nobody is told. */
  silence(): void {
    this.#isSilent = true;
  }

  /** What is sent waits, in both directions, until `goOn`. */
  pause(): void {
    for (const socket of [...this.#pairs].flat()) socket.pause();
  }

  goOn(): void {
    for (const socket of [...this.#pairs].flat()) socket.resume();
  }

  /** Closes all connections; new ones pass. */
  cut(): void {
    this.#isSilent = false;
    this.#end();
  }

  /** Closes all connections, and is silent to new ones. */
  end(): void {
    this.#isSilent = true;
    this.#end();
  }

  #end(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }
}

/** Reads what a client is sent until it is told this; gives what it is told. */
export async function toldOf<M extends NotificationName>(
  client: RawClient,
  method: M,
): Promise<NotificationParams<M>> {
  for (;;) {
    const message = JSON.parse(await client.line()) as { method?: string; params: NotificationParams<M> };
    if (message.method === method) return message.params;
  }
}
