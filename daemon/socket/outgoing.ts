import type { Socket } from "node:net";
import { MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import type { LongLine } from "../json/base64-insertion.js";
import { SharedText } from "../json/shared-json.js";
import { LONG_MESSAGE_BYTES, noteLongMessage, noteOldBytes } from "./garbage.js";

/** Long lines that a peer has not yet read: one goes out while the next is made. */
const MAX_UNSENT_LONG_LINES = 2;

/** A text is without its end; other bytes have it, and a buffer has whole lines and no header. */
type Line = string | Buffer | LongLine | SharedText;

export interface OutgoingEvents {
  /** `mayMakeLong` may be true again. */
  onLongLineSent: () => void;
  /** `unsentBytes` has changed by so many. */
  onUnsent: (by: number) => void;
}

/** The lines on their way to a peer. All that are queued in a turn go out by one write, after the last is known. */
export class Outgoing {
  readonly #socket: Socket;
  readonly #events: OutgoingEvents;
  #lines: Line[] = [];
  #bytes = 0;
  #unsentLongLines = 0;
  /** Shared bytes that are written, or have left since that was last looked at: nothing of them becomes garbage. */
  #sharedBytes = 0;
  #sharedBytesSent = 0;
  /** The bytes of answers that wait for the last one of their batch. */
  #keptBytes = 0;
  /** Bytes that were written and not read, when that was last looked at. */
  #unreadBytes = 0;
  #isDropped = false;
  /** True if messages go out with the headers of the Language Server Protocol instead of as lines. */
  withHeaders = false;

  constructor(socket: Socket, events: OutgoingEvents) {
    this.#socket = socket;
    this.#events = events;
  }

  /** True if the peer has so much to read that it gets no more for now. */
  get congested(): boolean {
    return this.#bytes + this.#socket.writableLength >= MAX_UNSENT_BYTES;
  }

  /** Bytes that the peer has not read, without the few that the stream does not tell of, or is not sent yet. */
  get unsentBytes(): number {
    return this.#unreadBytes + this.#keptBytes;
  }

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Grows with what the kernel has taken. */
  get readMark(): number {
    const { bytesWritten = 0, writeQueueSize = 0 } = handleOf(this.#socket) ?? {};
    return bytesWritten - writeQueueSize;
  }

  /** True if another long line may be made. */
  get mayMakeLong(): boolean {
    return this.#unsentLongLines < MAX_UNSENT_LONG_LINES;
  }

  /** @param line without its end; a buffer is of lines with theirs, and never where headers go out. */
  push(line: Line): void {
    if (this.#lines.length === 0) process.nextTick(flush, this);
    this.#lines.push(line);
    if (typeof line === "string" || line instanceof SharedText) {
      this.#bytes += line.length + 1;
    } else if (Buffer.isBuffer(line)) {
      this.#bytes += line.length;
    } else {
      this.#bytes += line.bytes.length;
      this.#unsentLongLines += 1;
    }
  }

  /** Answers of a batch of so many bytes more, or fewer, wait for the last one. */
  keep(bytes: number): void {
    this.#keptBytes += bytes;
    this.#events.onUnsent(bytes);
  }

  /** Nobody is there to read what is queued or kept. */
  drop(): void {
    this.#lines = [];
    this.#isDropped = true;
    this.#countAs(0);
    if (this.#keptBytes > 0) this.keep(-this.#keptBytes);
  }

  /** Looks how much of what was written is read. */
  count(): void {
    const { writableLength, writableHighWaterMark } = this.#socket;
    // Of less, a stream does not tell when it is gone.
    const unread = this.#isDropped || writableLength < writableHighWaterMark ? 0 : writableLength;
    if (unread !== this.#unreadBytes) this.#countAs(unread);
  }

  #countAs(unread: number): void {
    const by = unread - this.#unreadBytes;
    this.#unreadBytes = unread;
    const own = -by - this.#sharedBytes;
    if (own > 0) noteOldBytes(own);
    this.#sharedBytes -= this.#sharedBytesSent;
    this.#sharedBytesSent = 0;
    if (by !== 0) this.#events.onUnsent(by);
  }

  /** Writes what is queued. */
  flush(): void {
    const lines = this.#lines;
    if (lines.length === 0) return;
    this.#lines = [];
    this.#bytes = 0;
    const [first] = lines;
    if (this.withHeaders) this.#writeWithHeaders(lines);
    else if (lines.length === 1 && typeof first === "string") this.#writeText(`${first}\n`);
    else this.#writeAll(lines);
    this.count();
  }

  #writeAll(lines: readonly Line[]): void {
    let text = "";
    for (const line of lines) {
      if (typeof line === "string") text += `${line}\n`;
      // Many long lists at once would be more than one string can hold.
      if (text !== "" && (typeof line !== "string" || text.length >= MAX_UNSENT_BYTES)) {
        this.#writeText(text);
        text = "";
      }
      if (Buffer.isBuffer(line)) this.#socket.write(line);
      else if (line instanceof SharedText) this.#writeShared(line);
      else if (typeof line !== "string") this.#writeLong(line);
    }
    if (text !== "") this.#writeText(text);
  }

  #writeWithHeaders(lines: readonly Line[]): void {
    let text = "";
    for (const line of lines) {
      if (Buffer.isBuffer(line)) throw new Error("lines that are made for several peers have no headers");
      if (typeof line === "string") {
        text += `${headerOf(Buffer.byteLength(line))}${line}`;
        if (text.length < MAX_UNSENT_BYTES) continue;
      } else {
        text += headerOf(line instanceof SharedText ? line.length + 1 : line.bytes.length);
      }
      this.#writeText(text);
      text = "";
      // Its line end is white space to a reader of JSON.
      if (line instanceof SharedText) this.#writeShared(line);
      else if (typeof line !== "string") this.#writeLong(line);
    }
    if (text !== "") this.#writeText(text);
  }

  #writeShared({ parts }: SharedText): void {
    this.#socket.cork();
    for (const part of parts) {
      if (typeof part === "string") {
        this.#socket.write(part);
        continue;
      }
      this.#sharedBytes += part.length;
      this.#socket.write(part, () => {
        this.#sharedBytesSent += part.length;
      });
    }
    this.#socket.write("\n");
    this.#socket.uncork();
  }

  #writeText(text: string): void {
    if (text.length < LONG_MESSAGE_BYTES) return void this.#socket.write(text);
    // As bytes, since Node would take room for three times as many as the text has characters, and keep the text of all
    // but the first until it is written.
    this.#socket.write(Buffer.from(text));
    noteLongMessage(text.length);
  }

  #writeLong(line: LongLine): void {
    this.#socket.write(line.bytes, (error) => {
      // After an error it is not certain that nothing reads it any more.
      if (!error) line.giveBack();
      noteLongMessage(line.bytes.length);
      this.#unsentLongLines -= 1;
      this.#events.onLongLineSent();
    });
  }
}

/** Node's own view of a socket, which tells how much the kernel has taken. */
function handleOf(socket: Socket): { bytesWritten?: number; writeQueueSize?: number } | undefined {
  return (socket as unknown as { _handle?: { bytesWritten?: number; writeQueueSize?: number } })._handle;
}

function flush(outgoing: Outgoing): void {
  outgoing.flush();
}

function headerOf(bytes: number): string {
  return `Content-Length: ${bytes}\r\n\r\n`;
}
