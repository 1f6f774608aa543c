import type { Socket } from "node:net";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { LINE_TOO_LONG, LineSplitter } from "@pawl/protocol/framing";
import {
  DEFAULT_MAX_MESSAGE_BYTES,
  MAX_IN_FLIGHT_REQUESTS,
  MAX_UNREAD_BYTES,
  MAX_UNSENT_BYTES,
} from "@pawl/protocol/limits";
import type { LongLine } from "../json/base64-insertion.js";
import type { Peer } from "../rpc/rpc.js";
import type { Caller } from "../turns/operation.js";
import { LONG_MESSAGE_BYTES, passed } from "./garbage.js";
import type { HangUps } from "./kernel.js";
import { SpareBuffers } from "./line-buffers.js";

export interface ConnectionOptions {
  socket: Socket;
  caller: Caller;
  /** Whether it came by a socket that serves only reads. */
  readOnly: boolean;
  /** What its requests are answered by, if its user may not use the daemon. */
  forbidden: PawlError | undefined;
  /** Tells when a peer has closed that is not being read; without it, that is found out within a second. */
  hangUps: HangUps | undefined;
  maxMessageBytes: number;
  /** A complete line has arrived: it is to be taken up in the next turn. */
  onLine: (connection: Connection, line: Buffer) => void;
  /** Something has arrived that is no line: to be answered like one that is no message. */
  onRefused: (connection: Connection, refusal: PawlError) => void;
  /** `mayTakeUp` may be true again. */
  onRoom: () => void;
  /** All that was in the way of sending it more has been read. */
  onDrain: (connection: Connection) => void;
  /** Nothing more comes from it, and all that came has been taken up. May be told more than once. */
  onSilent: (connection: Connection) => void;
  onClose: (connection: Connection) => void;
}

/** A refused peer may be in the middle of writing; what it still sends is read and dropped for so long. */
const LINGER_MS = 5000;
/** How often a peer that is not read is tried, where the kernel does not tell that it has closed. */
const PROBE_MS = 1000;
/** Requests that one turn takes up of a connection at most, so that no client has the turns for itself ... */
const MAX_REQUESTS_PER_TURN = 128;
/** ... and as many bytes of answers as can be foreseen, unless it is one: what makes them long takes time. */
const MAX_ANSWER_BYTES_PER_TURN = 1024 * 1024;
/** Of a connection whose answers are not known yet: each of them may be a long list. */
const FIRST_REQUESTS_PER_TURN = 16;
/** Long lines that the peer has not yet read: one goes out while the next is made. */
const MAX_UNSENT_LONG_LINES = 2;
/** How fast a long answer is forgotten: after some 50 short ones it counts for 1 in 200. */
const FORGETTING = 0.9;

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
  /** May change when the configuration is read again. */
  forbidden: PawlError | undefined;
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
  #out: (string | LongLine)[] = [];
  #outBytes = 0;
  #unsentLongLines = 0;
  /** How long an answer may well be: the longest of late. */
  #answerBytes = MAX_ANSWER_BYTES_PER_TURN / FIRST_REQUESTS_PER_TURN;
  #unwatch: (() => void) | undefined;
  #probeTimer: NodeJS.Timeout | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.caller = options.caller;
    this.readOnly = options.readOnly;
    this.forbidden = options.forbidden;
    this.socket = options.socket;
    this.#lines = new LineSplitter(options.maxMessageBytes, forLine);
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
      options.onDrain(this);
    });
    // A peer that vanished shows as an error and then as a close; the close is what counts.
    socket.on("error", () => {});
    socket.on("close", () => this.#gone());
  }

  get closed(): boolean {
    return this.#state === "closed";
  }

  /** The longest line that is taken from now on; may change when the configuration is read again. */
  set maxMessageBytes(bytes: number) {
    this.#options.maxMessageBytes = bytes;
    this.#lines.maxLineBytes = bytes;
  }

  /**
   * Whether one more line may be taken up: neither unsent replies nor unanswered requests have piled up. What
   * a peer sent before it closed is performed, and no answer to it piles up.
   */
  get mayTakeUp(): boolean {
    if (this.closed) return true;
    return (
      !this.#congested &&
      this.#inFlight < MAX_IN_FLIGHT_REQUESTS &&
      this.#unsentLongLines < MAX_UNSENT_LONG_LINES
    );
  }

  /**
   * How many requests one turn may take up: as many as can be expected not to be answered by too much, since
   * all their answers are there before the first is sent. May change with each that is taken up.
   */
  get requestsPerTurn(): number {
    const fitting = Math.floor(MAX_ANSWER_BYTES_PER_TURN / this.#answerBytes);
    return Math.min(Math.max(fitting, 1), MAX_REQUESTS_PER_TURN);
  }

  /** Whether more may be taken up of a batch that was begun. */
  get mayGoOn(): boolean {
    return this.closed || !this.#congested;
  }

  /** Whether a request of the daemon could still be answered. */
  get mayAnswer(): boolean {
    return this.#state === "open";
  }

  /** Whether a request of the daemon would reach it soon. */
  get mayBeAsked(): boolean {
    return this.mayAnswer && !this.#congested;
  }

  get #congested(): boolean {
    return this.#outBytes + this.socket.writableLength >= MAX_UNSENT_BYTES;
  }

  /** A line that `onLine` handed out is being taken up. */
  taken(line: Buffer): void {
    this.#untaken -= 1;
    this.#untakenBytes -= line.length;
    this.#roomSoon();
    // After this line itself has been taken up.
    if (this.#drains) queueMicrotask(() => this.#tellSilent());
  }

  done(line: Buffer): void {
    lineBuffers.giveBack(line);
  }

  received(requests: number): void {
    this.#inFlight += requests;
  }

  answered(requests: number): void {
    this.#inFlight -= requests;
    this.#roomSoon();
    if (this.#untaken > 0) this.#options.onRoom();
    this.#closeIfDone();
  }

  expects(bytes: number): void {
    this.#answerBytes = Math.max(bytes, this.#answerBytes);
  }

  wrote(bytes: number): void {
    this.#answerBytes = Math.max(bytes, this.#answerBytes * FORGETTING);
  }

  send(line: string | LongLine): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    // All answers of a turn go out by one write, after the last of them is known.
    if (this.#out.length === 0) process.nextTick(() => this.#flush());
    this.#out.push(line);
    if (typeof line === "string") {
      this.#outBytes += line.length + 1;
    } else {
      this.#outBytes += line.bytes.length;
      this.#unsentLongLines += 1;
    }
  }

  /**
   * Sends what nobody asked for, and says whether it does. A peer that does not even read its answers is not sent
   * more of these.
   */
  notify(method: string, params: object): boolean {
    if (this.#congested) return false;
    this.send(JSON.stringify({ jsonrpc: "2.0", method, params }));
    return true;
  }

  /**
   * Sends what is queued, then closes. Closing while the peer is writing would show there as a broken pipe,
   * perhaps before it reads its answer; so with `linger` only our side is shut at first, and what the peer
   * still sends is read and dropped until it closes too.
   */
  close({ linger }: { linger: boolean }): void {
    if (this.#state === "closed") return;
    if (!linger) {
      // It may be lingering already.
      if (this.socket.writableFinished) this.socket.destroy();
      else this.socket.once("finish", () => this.socket.destroy());
    }
    if (this.#state === "closing") return;
    this.#flush();
    this.#state = "closing";
    this.socket.end();
    if (!linger) return;
    this.#resume();
    const lingering = setTimeout(() => this.socket.destroy(), LINGER_MS);
    lingering.unref();
    this.socket.once("close", () => clearTimeout(lingering));
  }

  #gone(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#out = [];
    clearTimeout(this.#probeTimer);
    this.#unwatchHangUp();
    this.#options.onClose(this);
  }

  #cutLines(): void {
    while (this.#state === "open" || this.#state === "ended") {
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
      if (line.length >= LONG_MESSAGE_BYTES) passed(line.length);
    }
    this.#resume();
    if (this.#state === "ended") this.#allCut();
  }

  #hasRoom(): boolean {
    return (
      this.#inFlight + this.#untaken < MAX_IN_FLIGHT_REQUESTS &&
      this.#untakenBytes < MAX_UNREAD_BYTES &&
      !this.#congested
    );
  }

  /** Not at once: lines are being taken up, and what is cut now would come before those that are kept back. */
  #roomSoon(): void {
    if (this.#paused) queueMicrotask(() => this.#roomAgain());
  }

  #roomAgain(): void {
    if (this.#paused && this.#hasRoom()) this.#cutLines();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.socket.pause();
    if (!this.#watchHangUp()) this.#probeLater();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#state === "open") this.#unwatchHangUp();
    this.socket.resume();
  }

  #flush(): void {
    if (this.#out.length === 0 || this.#state === "closed") return;
    const lines = this.#out;
    this.#out = [];
    this.#outBytes = 0;
    let texts: string[] = [];
    let length = 0;
    for (const line of lines) {
      if (typeof line !== "string") {
        this.#writeTexts(texts, length);
        texts = [];
        length = 0;
        this.#writeLong(line);
        continue;
      }
      texts.push(line);
      length += line.length + 1;
      // Many long lists at once would be more than one string can hold.
      if (length < MAX_UNSENT_BYTES) continue;
      this.#writeTexts(texts, length);
      texts = [];
      length = 0;
    }
    this.#writeTexts(texts, length);
  }

  #writeTexts(texts: readonly string[], length: number): void {
    if (texts.length === 0) return;
    const text = `${texts.join("\n")}\n`;
    if (length < LONG_MESSAGE_BYTES) this.socket.write(text);
    // Not before it is written: until then it would only be found to be alive, and be kept for longer.
    else this.socket.write(text, () => passed(length));
  }

  #writeLong(line: LongLine): void {
    this.socket.write(line.bytes, (error) => {
      // After an error it is not certain that nothing reads it any more.
      if (!error) line.giveBack();
      passed(line.bytes.length);
      this.#unsentLongLines -= 1;
      if (this.#untaken > 0) this.#options.onRoom();
    });
  }

  #ended(): void {
    if (this.#state !== "open") return;
    this.#state = "ended";
    // A paused stream says all the same that it has ended, while lines are left to be cut.
    if (!this.#paused) this.#allCut();
    if (this.#state === "ended" && !this.#watchHangUp()) this.#probe();
  }

  #allCut(): void {
    if (!this.#lines.unfinished) return this.#closeIfDone();
    this.#refuse(
      "parse_error",
      "The last line has no line end, so it was not executed. End each message with \\n.",
    );
  }

  /**
   * A peer that has only shut its writing side gets its answers; one that has closed, or died, must not keep
   * its waits and grants. The end of what it sends looks the same, and while it is not read there is not even
   * that. Returns whether the kernel will tell.
   */
  #watchHangUp(): boolean {
    this.#unwatch ??= this.#options.hangUps?.watch(this.socket, () => {
      // The socket says so only after the turn, in which others may be waiting for what this peer had.
      this.#gone();
      this.socket.destroy();
    });
    return this.#unwatch !== undefined;
  }

  #unwatchHangUp(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
  }

  /**
   * Where the kernel cannot be asked: writing, even nothing, fails only to a peer that has closed (unix(7),
   * EPIPE), and that closes the connection.
   */
  #probe(): void {
    if (this.#state !== "ended" && !(this.#state === "open" && this.#paused)) return;
    // What is still to be written finds out by itself.
    if (this.socket.writableLength === 0) this.socket.write("");
    this.#probeLater();
  }

  #probeLater(): void {
    if (this.#probeTimer !== undefined || this.closed) return;
    this.#probeTimer = setTimeout(() => {
      this.#probeTimer = undefined;
      this.#probe();
    }, PROBE_MS);
    this.#probeTimer.unref();
  }

  /** Whether nothing more will be cut of what it sends. */
  get #drains(): boolean {
    return (this.#state === "ended" && !this.#paused) || this.#state === "refused";
  }

  #tellSilent(): void {
    if (this.#drains && this.#untaken === 0) this.#options.onSilent(this);
  }

  #closeIfDone(): void {
    this.#tellSilent();
    if (this.#drains && this.#inFlight === 0 && this.#untaken === 0) this.close({ linger: true });
  }

  /** Has it answered, takes nothing more, and closes once earlier requests are answered. */
  #refuse(kind: "message_too_large" | "parse_error", message: string): void {
    this.#state = "refused";
    this.#options.onRefused(this, refuse(kind, message));
    // Requests that wait could keep it open for an hour.
    setTimeout(() => this.close({ linger: true }), LINGER_MS).unref();
    this.#closeIfDone();
  }
}

/** For a line that comes in parts. One that has become long may well become as long as is allowed by default. */
function forLine(bytes: number): Buffer {
  return bytes > LONG_MESSAGE_BYTES && bytes <= lineBuffers.bytes
    ? lineBuffers.take()
    : Buffer.allocUnsafe(bytes);
}

/** With room for a line end of two characters. */
const lineBuffers = new SpareBuffers(DEFAULT_MAX_MESSAGE_BYTES + 2);

function tooLarge({ maxMessageBytes }: ConnectionOptions): string {
  return `The line is longer than ${maxMessageBytes} bytes, so it was not executed and the connection is closed. Split the request, or start pawld with a larger --max-message-bytes.`;
}
