import type { PawlError } from "@pawl/protocol/errors";
import type { LongLine } from "../json/base64-insertion.js";
import type { SharedText } from "../json/shared-json.js";
import type { Call } from "../turns/call.js";
import type { Sender } from "../turns/handler.js";

/** A connection, as far as JSON-RPC needs to know it. */
export interface Peer extends Sender {
  /** The answer to every request, if its user may not use the daemon. */
  readonly forbidden: PawlError | undefined;
  /** True if a request of the daemon could still be answered. */
  readonly mayAnswer: boolean;
  /** True if a request of the daemon would reach it soon. */
  readonly mayBeAsked: boolean;
  /** False while it has so much to read that an answer to a request that has waited is not made. */
  readonly hasRoom: boolean;
  /** True if more answers of batches may be kept until the last one of each is there. */
  readonly mayKeep: boolean;
  /** Answers of a batch of so many bytes more, or fewer, wait for its last one; shared ones were not made for it. */
  keep(bytes: number, sharing: { isShared: boolean }): void;
  /** A line holds so many requests; each is in flight until `answered`. */
  received(requests: number): void;
  answered(requests: number): void;
  /** Nobody reads the bytes of a line any more. */
  releaseLine(line: Buffer): void;
  /** Told that nothing refers any more to the values of a line of so many characters. */
  forgotValues(characters: number): void;
  /** A request was taken up whose answer may well have so many bytes. */
  expects(bytes: number): void;
  /** A request was answered with so many bytes, by themselves or within a batch; shared ones were not made for it. */
  wrote(bytes: number, sharing: { isShared: boolean }): void;
  /** Queues one line, as a text without its end. */
  send(line: string | LongLine | SharedText): void;
  /** Queues lines that other peers are sent, too. */
  sendShared(lines: SharedLines): void;
}

/** The same lines for several peers, whose bytes are made once. */
export class SharedLines {
  readonly lines: readonly string[];
  #bytes: Buffer | undefined;

  constructor(lines: readonly string[]) {
    this.lines = lines;
  }

  /** All of them, with the end of each. */
  get bytes(): Buffer {
    this.#bytes ??= Buffer.from(`${this.lines.join("\n")}\n`);
    return this.#bytes;
  }
}

/** A line whose requests are taken up in several turns: a batch, or one request that takes long to be read. */
export interface LineUnderWay {
  /** How many requests are still to be taken up. */
  readonly left: number;
  /** Takes up at most so many more and adds their calls, or goes on with one. */
  goOn(most: number, calls: Call[]): void;
}
