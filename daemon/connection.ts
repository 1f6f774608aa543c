import type { Socket } from "node:net";
import { failure } from "@pawl/protocol/envelope";
import { refuse } from "@pawl/protocol/errors";
import { LINE_TOO_LONG, LineSplitter } from "@pawl/protocol/framing";
import { MAX_IN_FLIGHT_REQUESTS, MAX_UNREAD_BYTES, MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import type { Caller } from "./operation.js";
import type { Peer } from "./rpc.js";

export interface ConnectionOptions {
  socket: Socket;
  caller: Caller;
  /** Whether it came by a socket that serves only reads. */
  readOnly: boolean;
  maxMessageBytes: number;
  /** A complete line has arrived: it is to be taken up in the next turn. */
  onLine: (connection: Connection, line: Buffer) => void;
  /** A refusal that no request caused, for the log. */
  onRefused: (connection: Connection, kind: "message_too_large" | "parse_error") => void;
  /** There is room again after `congested`. */
  onRoom: () => void;
  onClose: (connection: Connection) => void;
}

/** A refused peer may be in the middle of writing; what it still sends is read and dropped for so long. */
const LINGER_MS = 5000;

/**
 * One client. Reads only while its unanswered requests, its lines not taken up and its unsent replies are
 * within their limits, so that its memory is bounded whatever it does.
 *
 * `open`: both directions. `ended`: the peer has shut its writing side and still gets its answers; then the
 * daemon closes. `refused`: what the peer sends is dropped, its earlier requests are still answered, then the
 * daemon closes. `closing`: the last bytes are on their way. `closed`: nobody is there.
 */
export class Connection implements Peer {
  readonly caller: Caller;
  readonly readOnly: boolean;
  readonly socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #lines: LineSplitter;
  #state: "open" | "ended" | "refused" | "closing" | "closed" = "open";
  #paused = false;
  /** Requests taken up and not yet answered. */
  #inFlight = 0;
  /** Lines cut and not yet taken up. */
  #untaken = 0;
  #untakenBytes = 0;
  #out: string[] = [];
  #outBytes = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.caller = options.caller;
    this.readOnly = options.readOnly;
    this.socket = options.socket;
    this.#lines = new LineSplitter(options.maxMessageBytes, Buffer.allocUnsafe);
    const { socket } = options;
    socket.on("data", (chunk: Buffer) => {
      if (this.#state !== "open") return;
      this.#lines.push(chunk);
      this.#cutLines();
    });
    socket.on("end", () => this.#ended());
    socket.on("drain", () => {
      this.#roomAgain();
      if (this.#untaken > 0) options.onRoom();
    });
    // A peer that vanished shows as an error and then as a close; the close is what counts.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#state = "closed";
      this.#out = [];
      options.onClose(this);
    });
  }

  get closed(): boolean {
    return this.#state === "closed";
  }

  /** Whether replies pile up so that no more requests should be taken up. */
  get congested(): boolean {
    return this.#outBytes + this.socket.writableLength >= MAX_UNSENT_BYTES;
  }

  /** A line that `onLine` handed out is being taken up. */
  taken(line: Buffer): void {
    this.#untaken -= 1;
    this.#untakenBytes -= line.length;
  }

  received(requests: number): void {
    this.#inFlight += requests;
  }

  answered(requests: number): void {
    this.#inFlight -= requests;
    this.#roomAgain();
    this.#closeIfDone();
  }

  send(line: string): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    // All answers of a turn go out by one write, after the last of them is known.
    if (this.#out.length === 0) process.nextTick(() => this.#flush());
    this.#out.push(line);
    this.#outBytes += line.length + 1;
  }

  /**
   * Sends what is queued, then closes. Closing while the peer is writing would show there as a broken pipe,
   * perhaps before it reads its answer; so with `linger` only our side is shut at first, and what the peer
   * still sends is read and dropped until it closes too.
   */
  close({ linger }: { linger: boolean }): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    this.#flush();
    this.#state = "closing";
    if (!linger) {
      this.socket.end(() => this.socket.destroy());
      return;
    }
    this.socket.end();
    this.#resume();
    const lingering = setTimeout(() => this.socket.destroy(), LINGER_MS);
    lingering.unref();
    this.socket.once("close", () => clearTimeout(lingering));
  }

  #cutLines(): void {
    while (this.#state === "open") {
      if (!this.#hasRoom()) {
        this.#pause();
        return;
      }
      const line = this.#lines.next();
      if (line === undefined) break;
      if (line === LINE_TOO_LONG) {
        this.#refuse("message_too_large", tooLarge(this.#options));
        break;
      }
      this.#untaken += 1;
      this.#untakenBytes += line.length;
      this.#options.onLine(this, line);
    }
    this.#resume();
  }

  #hasRoom(): boolean {
    return (
      this.#inFlight + this.#untaken < MAX_IN_FLIGHT_REQUESTS &&
      this.#untakenBytes < MAX_UNREAD_BYTES &&
      !this.congested
    );
  }

  #roomAgain(): void {
    if (this.#paused && this.#hasRoom()) this.#cutLines();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.socket.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.socket.resume();
  }

  #flush(): void {
    if (this.#out.length === 0 || this.#state === "closed") return;
    const text = `${this.#out.join("\n")}\n`;
    this.#out = [];
    this.#outBytes = 0;
    this.socket.write(text);
  }

  #ended(): void {
    if (this.#state !== "open") return;
    this.#state = "ended";
    if (this.#lines.unfinished) {
      const message = "The last line has no line end, so it was not executed. End each message with \\n.";
      return this.#refuse("parse_error", message);
    }
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    const draining = this.#state === "ended" || this.#state === "refused";
    if (draining && this.#inFlight === 0 && this.#untaken === 0) this.close({ linger: true });
  }

  /** Answers something that is no message, under the id null, and closes once earlier requests are answered. */
  #refuse(kind: "message_too_large" | "parse_error", message: string): void {
    this.#options.onRefused(this, kind);
    this.send(JSON.stringify(failure(null, refuse(kind, message))));
    this.#state = "refused";
    // Requests that wait could keep it open for an hour.
    setTimeout(() => this.close({ linger: true }), LINGER_MS).unref();
    this.#closeIfDone();
  }
}

function tooLarge({ maxMessageBytes }: ConnectionOptions): string {
  return `The line is longer than ${maxMessageBytes} bytes, so it was not executed and the connection is closed. Split the request, or start pawld with a larger --max-message-bytes.`;
}
