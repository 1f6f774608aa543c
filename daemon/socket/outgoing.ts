import type { Socket } from "node:net";
import { MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import type { LongLine } from "../json/base64-insertion.js";
import { LONG_MESSAGE_BYTES, noteLongMessage } from "./garbage.js";

/** Long lines that a peer has not yet read: one goes out while the next is made. */
const MAX_UNSENT_LONG_LINES = 2;

/** The lines on their way to a peer. All that are queued in a turn go out by one write, after the last is known. */
export class Outgoing {
  readonly #socket: Socket;
  readonly #onLongLineSent: () => void;
  #lines: (string | LongLine)[] = [];
  #bytes = 0;
  #unsentLongLines = 0;

  /** @param onLongLineSent called when `mayMakeLong` may be true again. */
  constructor(socket: Socket, onLongLineSent: () => void) {
    this.#socket = socket;
    this.#onLongLineSent = onLongLineSent;
  }

  /** True if the peer has so much to read that it gets no more for now. */
  get congested(): boolean {
    return this.#bytes + this.#socket.writableLength >= MAX_UNSENT_BYTES;
  }

  /** True if another long line may be made. */
  get mayMakeLong(): boolean {
    return this.#unsentLongLines < MAX_UNSENT_LONG_LINES;
  }

  push(line: string | LongLine): void {
    if (this.#lines.length === 0) process.nextTick(flush, this);
    this.#lines.push(line);
    if (typeof line === "string") {
      this.#bytes += line.length + 1;
    } else {
      this.#bytes += line.bytes.length;
      this.#unsentLongLines += 1;
    }
  }

  /** Nobody is there to read what is queued. */
  drop(): void {
    this.#lines = [];
  }

  /** Writes what is queued. */
  flush(): void {
    const lines = this.#lines;
    if (lines.length === 0) return;
    this.#lines = [];
    this.#bytes = 0;
    const [first] = lines;
    if (lines.length === 1 && typeof first === "string") return this.#writeText(`${first}\n`);
    let text = "";
    for (const line of lines) {
      if (typeof line === "string") text += `${line}\n`;
      // Many long lists at once would be more than one string can hold.
      if (text !== "" && (typeof line !== "string" || text.length >= MAX_UNSENT_BYTES)) {
        this.#writeText(text);
        text = "";
      }
      if (typeof line !== "string") this.#writeLong(line);
    }
    if (text !== "") this.#writeText(text);
  }

  #writeText(text: string): void {
    if (text.length < LONG_MESSAGE_BYTES) this.#socket.write(text);
    // Not before it is written: until then it would only be found to be alive, and be kept for longer.
    else this.#socket.write(text, () => noteLongMessage(text.length));
  }

  #writeLong(line: LongLine): void {
    this.#socket.write(line.bytes, (error) => {
      // After an error it is not certain that nothing reads it any more.
      if (!error) line.giveBack();
      noteLongMessage(line.bytes.length);
      this.#unsentLongLines -= 1;
      this.#onLongLineSent();
    });
  }
}

function flush(outgoing: Outgoing): void {
  outgoing.flush();
}
