import { connect, type Socket } from "node:net";
import { LINE_TOO_LONG, LineSplitter } from "@pawl/protocol/framing";
import { MAX_REPLY_BYTES } from "@pawl/protocol/limits";

export interface LinkEvents {
  /** A parsed message of the daemon, or a batch of them. */
  onMessage: (message: unknown) => void;
  /** The connection has ended, by whichever side; called once. */
  onClose: () => void;
}

/** One connection to a daemon: lines in, lines out. */
export class Link {
  readonly #socket: Socket;
  #out: string[] = [];

  private constructor(socket: Socket, events: LinkEvents) {
    this.#socket = socket;
    const lines = new LineSplitter(MAX_REPLY_BYTES, Buffer.allocUnsafe);
    socket.on("data", (chunk) => {
      lines.push(chunk);
      for (let line = lines.next(); line !== undefined; line = lines.next()) {
        // What speaks like this is no daemon of ours; the requests in flight end as lost.
        if (line === LINE_TOO_LONG) return void socket.destroy();
        let message: unknown;
        try {
          message = JSON.parse(line.toString("utf8"));
        } catch {
          return void socket.destroy();
        }
        events.onMessage(message);
      }
    });
    socket.on("error", () => {});
    socket.once("close", events.onClose);
  }

  /** Rejects with the system's error (ENOENT, ECONNREFUSED, EACCES ...) when nothing listens at `path`. */
  static open(path: string, events: LinkEvents): Promise<Link> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(new Link(socket, events));
      });
    });
  }

  /** Sends one line; the lines of one moment go out in one write. */
  send(message: unknown): void {
    if (this.#out.length === 0) {
      process.nextTick(() => {
        const text = `${this.#out.join("\n")}\n`;
        this.#out = [];
        if (this.#socket.writable) this.#socket.write(text);
      });
    }
    this.#out.push(JSON.stringify(message));
  }

  /** Closes at once: answers under way are lost. */
  close(): void {
    this.#socket.destroy();
  }
}
