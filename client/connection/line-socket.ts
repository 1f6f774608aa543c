import { isUtf8 } from "node:buffer";
import { connect, type Socket } from "node:net";
import { LINE_TOO_LONG, LineSplitter } from "@pawl/protocol/framing";
import { MAX_REPLY_BYTES } from "@pawl/protocol/limits";

/** One line on its way to the daemon. */
export interface Outgoing {
  readonly line: string;
  /** True if the line may have reached the daemon. While false, it certainly has not. */
  sent: boolean;
  /** Set to give the line up before it is sent. */
  dropped: boolean;
}

/** How a connection ended. */
export interface Ending {
  /** True if all that the daemon sent was read, to the last byte: it answered nothing else. */
  complete: boolean;
  /** The fault of the peer for which this side ended the connection, if it did. */
  reason: string | undefined;
}

export interface LineSocketEvents {
  /**
   * Called with each line of the daemon, parsed and as it came. Returns undefined, or why no pawld sends this: then the
   * connection is ended.
   */
  onMessage: (message: unknown, line: string) => string | undefined;
  /** The connection has ended, by whichever side; called once. */
  onClose: (ending: Ending) => void;
}

/** One connection to a daemon: lines in, lines out. */
export class LineSocket {
  readonly #socket: Socket;
  readonly #lines = new LineSplitter(MAX_REPLY_BYTES, Buffer.allocUnsafe);
  #out: Outgoing[] = [];
  /** The line that was written last. */
  #last: Outgoing | undefined;
  #reason: string | undefined;

  private constructor(socket: Socket, events: LineSocketEvents) {
    this.#socket = socket;
    let ended = false;
    socket.on("data", (chunk) => this.#received(chunk, events));
    socket.on("end", () => {
      ended = true;
    });
    // A daemon that closed without reading our last lines shows as a reset, after all it sent has been read.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "ECONNRESET") return;
      ended = true;
      // A socket of this family is reset only when it was closed with something left to read: the end of this line.
      if (this.#last !== undefined) this.#last.sent = false;
    });
    socket.once("close", () => {
      events.onClose({ complete: ended && !this.#lines.unfinished, reason: this.#reason });
    });
  }

  /** Rejects with the system's error (ENOENT, ECONNREFUSED, EACCES ...) when nothing listens at `path`. */
  static open(path: string, events: LineSocketEvents): Promise<LineSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(new LineSocket(socket, events));
      });
    });
  }

  /** Sends one line; the lines of one moment go out in one write. */
  send(outgoing: Outgoing): void {
    if (this.#out.length === 0) process.nextTick(() => this.#flush());
    this.#out.push(outgoing);
  }

  /** The number of its file, which programs that are started can be given; undefined once it is closed. */
  get descriptor(): number | undefined {
    // Deno takes a socket away from the program that gives it to another.
    if (process.versions.deno !== undefined) return undefined;
    // Node has no other name for it.
    const handle = (this.#socket as unknown as { _handle: { fd?: number } | null })._handle;
    return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
  }

  /** Closes once what was given to `send` is on its way; what comes from the daemon is lost. */
  close(): void {
    this.#flush();
    this.#socket.destroySoon();
  }

  #flush(): void {
    const batch = this.#out.filter(({ dropped }) => !dropped);
    this.#out = [];
    if (batch.length === 0 || !this.#socket.writable) return;
    this.#socket.write(`${batch.map(({ line }) => line).join("\n")}\n`);
    // A daemon that has just closed shows here as a broken pipe, known before `write` returns: then nothing
    // of this batch left the process. Later errors may come after a part of it has arrived.
    if (this.#socket.errored !== null) return;
    for (const outgoing of batch) outgoing.sent = true;
    this.#last = batch.at(-1);
  }

  #received(chunk: Buffer, events: LineSocketEvents): void {
    if (this.#reason !== undefined) return;
    this.#lines.push(chunk);
    for (let line = this.#lines.next(); line !== undefined; line = this.#lines.next()) {
      const wrong =
        line === LINE_TOO_LONG ? `it sent a line of over ${MAX_REPLY_BYTES} bytes` : this.#take(line, events);
      if (wrong !== undefined) {
        this.#reason = wrong;
        this.#socket.destroy();
        return;
      }
    }
  }

  #take(line: Buffer, events: LineSocketEvents): string | undefined {
    if (!isUtf8(line)) return "it sent what is not UTF-8";
    const text = line.toString("utf8");
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return "it sent what is not JSON";
    }
    return events.onMessage(message, text);
  }
}

/** True if connecting failed for want of a daemon. */
export function nobodyListens(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ECONNREFUSED";
}

/** True if a daemon listens but has more connections waiting than the kernel queues. */
export function isBusy(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "EAGAIN";
}
