/**
 * The room of sockets: bytes to lines and back, and who is at the other end.
 *
 *     connection  one client          inbox          lines that wait for their turn
 *     framing     bytes to messages   hang-up-watch  finds out that it has closed
 *     outgoing    replies to it       dear-requests  what a line is expected to take
 *     resting     has those wait that send much
 *     reading-rounds                  ends a round of reading that takes too long
 *     processor-time                  what a request needed of the processor
 *     unsent, unread, garbage         the memory that all connections share
 *     connections, access, listener, served-sockets, supervisor, kernel  who connects, and where
 */
import type { Socket } from "node:net";
import { type ErrorDetails, type PawlError, refuse } from "@pawl/protocol/errors";
import { LINE_TOO_LONG, NO_ROOM } from "@pawl/protocol/framing";
import {
  DEFAULT_MAX_MESSAGE_BYTES,
  MAX_BATCH_ANSWER_BYTES,
  MAX_IN_FLIGHT_REQUESTS,
  MAX_UNREAD_BYTES,
  MAX_UNSENT_BYTES,
} from "@pawl/protocol/limits";
import type { LongLine } from "../json/base64-insertion.js";
import { BufferPool } from "../json/buffer-pool.js";
import type { SharedText } from "../json/shared-json.js";
import { type TopMember, TopMembers } from "../json/top-members.js";
import { notification } from "../rpc/json-rpc.js";
import type { Peer, SharedLines } from "../rpc/peer.js";
import type { Caller } from "../turns/operation.js";
import { MessageSplitter, WrongHeaders } from "./framing.js";
import { LONG_MESSAGE_BYTES, noteLongMessage, noteOldBytes, noteOldValues } from "./garbage.js";
import { HangUpWatch } from "./hang-up-watch.js";
import { Lane, type Siblings } from "./inbox.js";
import type { HangUps } from "./kernel.js";
import { Outgoing } from "./outgoing.js";
import type { ReadingRounds, ReadSource } from "./reading-rounds.js";
import { afterRest } from "./resting.js";
import { SMALL_BYTES, type Source, type Unread } from "./unread.js";
import { type Reader, UNKNOWN_ANSWER_BYTES, type Unsent } from "./unsent.js";

export interface ConnectionOptions {
  socket: Socket;
  caller: Caller;
  /** The connections of its process. */
  siblings: Siblings;
  /** True if it came by a socket that serves only reads. */
  readOnly: boolean;
  /** The answer to each of its requests, if its user may not use the daemon. */
  forbidden: PawlError | undefined;
  /** Tells when a peer has closed that is not being read; without it, that is found out within a second. */
  hangUps: HangUps | undefined;
  maxMessageBytes: number;
  /** The replies and the requests of all connections. */
  unsent: Unsent;
  unread: Unread;
  readingRounds: ReadingRounds;
  /** False while so many of its requests as one turn may take up are performed outside of turns, by a database. */
  mayTakeUp: (connection: Connection) => boolean;
  /** A complete line has arrived: it is to be taken up in the next turn. */
  onLine: (connection: Connection, line: Buffer) => void;
  /** True if requests of the daemon are open, one of which a line that is too long may answer. */
  isAsked: (connection: Connection) => boolean;
  /** A line that was too long has come to its end, with these members; to be taken up in its place. */
  onSkipped: (connection: Connection, members: readonly TopMember[]) => void;
  /** Something has arrived that is no line: to be answered like one that is no message. */
  onRefused: (connection: Connection, refusal: PawlError) => void;
  /** A request was answered with so many bytes. */
  onWrote: (connection: Connection, bytes: number, sharing: { isShared: boolean }) => void;
  /** Its requests that are done in steps take so many bytes more, or fewer, between two of them. */
  onHolds: (bytes: number) => void;
  /** `mayTakeUp` may be true again. */
  onRoom: (connection: Connection) => void;
  /** All that was in the way of sending it more has been read. */
  onDrain: (connection: Connection) => void;
  /** Nothing more comes from it, and all that came has been taken up. May be told more than once. */
  onSilent: (connection: Connection) => void;
  onClose: (connection: Connection) => void;
  /** The connection is closed because of what it keeps in memory, for this reason. */
  onOverload: (connection: Connection, reason: string) => void;
}

/** Lines that are read beyond the requests that may be in flight: the next one may end the wait of one of those. */
const LINES_BEYOND_IN_FLIGHT = 8;
/** Lines of one connection that are cut while those of all are more than a turn takes up. */
const LINES_IN_CROWD = 16;
/** After so many bytes a connection is not read until a next round of the event loop. */
const REST_AFTER_BYTES = 128 * 1024;
/** A refused peer may be in the middle of writing; what it still sends is read and dropped for so long. */
const LINGER_MS = 5000;
/** Requests that one turn takes up of a connection at most, so that no client has the turns for itself ... */
const MAX_REQUESTS_PER_TURN = 128;
/** ... and as many bytes of answers as can be foreseen, unless it is one: what makes them long takes time. */
const MAX_ANSWER_BYTES_PER_TURN = 1024 * 1024;
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
export class Connection implements Peer, Reader, Source, ReadSource {
  readonly caller: Caller;
  readonly siblings: Siblings;
  readonly readOnly: boolean;
  /** May change when the configuration is read again. */
  forbidden: PawlError | undefined;
  readonly socket: Socket;
  /** Its lines that are not yet taken up. */
  readonly lane = new Lane(this);
  readonly #options: ConnectionOptions;
  readonly #lines: MessageSplitter;
  readonly #outgoing: Outgoing;
  readonly #hangUpWatch: HangUpWatch;
  #state: "open" | "ended" | "refused" | "closing" | "closed" = "open";
  #paused = false;
  #rests = false;
  readRound = Number.NEGATIVE_INFINITY;
  /** True once what it sends is dropped, since the daemon ends. */
  #dropsArrivals = false;
  /** Bytes that were read since the last rest. */
  #readBytes = 0;
  /** Requests taken up and not yet answered. */
  #inFlight = 0;
  /** Lines cut and not yet taken up. */
  #waitingLines = 0;
  #waitingBytes = 0;
  /** True if so many bytes of lines wait that all connections have to know. */
  #hasManyWaiting = false;
  /** The members of a line that is too long and is read to its end. */
  #skipped: TopMembers | undefined;
  /** Lines taken up. */
  #tookUp = 0;
  /** Bytes of the requests that wait for a condition. */
  #parkedBytes = 0;
  /** Bytes of the requests that are done in steps, and of what these have collected. */
  #heldBytes = 0;
  /** How long an answer may well be: the longest of late. */
  #answerBytes = UNKNOWN_ANSWER_BYTES;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.caller = options.caller;
    this.siblings = options.siblings;
    this.readOnly = options.readOnly;
    this.forbidden = options.forbidden;
    this.socket = options.socket;
    this.#lines = new MessageSplitter(options.maxMessageBytes, (bytes) => this.#forLine(bytes));
    const { socket } = options;
    this.#outgoing = new Outgoing(socket, {
      onLongLineSent: () => {
        if (this.#waitingLines > 0) options.onRoom(this);
      },
      onUnsent: (by) => options.unsent.changed(this, by),
    });
    this.#hangUpWatch = new HangUpWatch(
      socket,
      options.hangUps,
      () => this.#state === "ended" || (this.#state === "open" && this.#paused),
      () => {
        // The socket says so only after the turn, in which others may be waiting for what this peer had.
        this.#gone();
        socket.destroy();
      },
    );
    socket.on("data", (chunk: Buffer) => {
      options.readingRounds.read(this, chunk.length);
      this.#rest(chunk.length);
      if (this.#state !== "open" || this.#dropsArrivals) return;
      this.#lines.push(chunk);
      this.#outgoing.withHeaders = this.#lines.withHeaders;
      this.#cutLines();
    });
    socket.on("end", () => this.#ended());
    socket.on("drain", () => {
      this.#outgoing.count();
      this.#roomAgain();
      if (this.#waitingLines > 0) options.onRoom(this);
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
    this.#lines.maxMessageBytes = bytes;
  }

  /**
   * True if one more line may be taken up: neither unsent replies nor unanswered requests have piled up.
   * The lines that a peer sent before it closed are performed, and no answer to them piles up.
   */
  get mayTakeUp(): boolean {
    if (this.closed) return true;
    if (this.#outgoing.congested || this.#inFlight >= MAX_IN_FLIGHT_REQUESTS) return false;
    if (!this.#options.mayTakeUp(this)) return false;
    return this.#outgoing.mayMakeLong && this.#options.unsent.maySend(this, this.#answerBytes);
  }

  /** True if a request that ends a wait may be taken up, although there are too many unanswered ones for any other. */
  get mayTakeUpCancel(): boolean {
    return !this.#outgoing.congested && this.#outgoing.mayMakeLong;
  }

  /**
   * How many requests one turn may take up: as many as can be expected not to be answered by too much, since
   * all their answers are there before the first is sent. May change with each that is taken up.
   */
  get requestsPerTurn(): number {
    const fitting = Math.floor(MAX_ANSWER_BYTES_PER_TURN / this.#answerBytes);
    return Math.min(Math.max(fitting, 1), MAX_REQUESTS_PER_TURN);
  }

  /** How many bytes the next answer may well have. */
  get answerBytes(): number {
    return this.#answerBytes;
  }

  /** True if more may be taken up of a batch that was begun. */
  get mayGoOn(): boolean {
    return this.closed || (!this.#outgoing.congested && this.#options.mayTakeUp(this));
  }

  /** True if a request of the daemon could still be answered. */
  get mayAnswer(): boolean {
    return this.#state === "open";
  }

  /** True if a request of the daemon would reach it soon. */
  get mayBeAsked(): boolean {
    return this.mayAnswer && !this.#outgoing.congested && this.#options.unsent.maySend(this, 0);
  }

  /** True if more answers of batches may be kept until the last one of each is there. */
  get mayKeep(): boolean {
    if (this.closed) return true;
    const isLittle = this.#outgoing.keptBytes < MAX_BATCH_ANSWER_BYTES;
    return isLittle && this.#options.unsent.maySend(this, this.#answerBytes);
  }

  get hasRoom(): boolean {
    if (this.closed) return true;
    return !this.#outgoing.congested && this.#options.unsent.maySend(this, this.#answerBytes);
  }

  get unsentBytes(): number {
    return this.#outgoing.unsentBytes;
  }

  get readMark(): number {
    return this.#outgoing.readMark;
  }

  get arrivalMark(): number {
    return this.socket.bytesRead + this.#tookUp;
  }

  get waitsForPeer(): boolean {
    return this.#waitingLines === 0 || !this.mayTakeUp;
  }

  /** A line that `onLine` handed out is being taken up. */
  tookUp(line: Buffer): void {
    this.#waitingLines -= 1;
    this.#tookUp += 1;
    this.#countWaiting(-line.length);
    this.#roomSoon();
    // After this line itself has been taken up.
    if (this.#drains) queueMicrotask(() => this.#closeIfDone());
  }

  /** From now on what it sends is read and dropped. */
  dropArrivals(): void {
    this.#dropsArrivals = true;
    this.#resume();
  }

  /** Answers that a line was too long, and takes nothing more. */
  refuseTooLong(): void {
    if (this.#state === "open" || this.#state === "ended")
      this.#refuse("message_too_large", tooLarge(this.#options));
  }

  releaseLine(line: Buffer): void {
    lineBuffers.giveBack(line);
  }

  parked(bytes: number): void {
    this.#parkedBytes += bytes;
    if (bytes < 0) this.#roomSoon();
    else noteOldValues(bytes);
  }

  holds(bytes: number): void {
    if (this.closed) return;
    this.#heldBytes += bytes;
    this.#options.onHolds(bytes);
    if (bytes < 0) this.#roomSoon();
  }

  forgotValues(characters: number): void {
    noteOldValues(characters);
  }

  keep(bytes: number, { isShared }: { isShared: boolean }): void {
    if (!this.closed) this.#outgoing.keep(bytes);
    // The row and the value that it was made of are garbage, and too large to be taken for young.
    if (bytes >= LONG_MESSAGE_BYTES && !isShared) noteOldBytes(bytes);
  }

  received(requests: number): void {
    this.#inFlight += requests;
  }

  answered(requests: number): void {
    this.#inFlight -= requests;
    this.#roomSoon();
    if (this.#waitingLines > 0) this.#options.onRoom(this);
    this.#closeIfDone();
  }

  expects(bytes: number): void {
    this.#answerBytes = Math.max(bytes, this.#answerBytes);
  }

  wrote(bytes: number, sharing: { isShared: boolean }): void {
    this.#answerBytes = Math.max(bytes, this.#answerBytes * FORGETTING);
    this.#options.onWrote(this, bytes, sharing);
  }

  send(line: string | LongLine | SharedText): void {
    if (this.#state !== "closing" && this.#state !== "closed") this.#outgoing.push(line);
  }

  sendShared(lines: SharedLines): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    if (!this.#outgoing.withHeaders) this.#outgoing.push(lines.bytes);
    else for (const line of lines.lines) this.#outgoing.push(line);
  }

  /**
   * Sends what nobody asked for, and says whether it does. A peer that does not even read its answers is not sent
   * more of these.
   */
  notify(method: string, params: object): boolean {
    if (this.#outgoing.congested || !this.#options.unsent.maySend(this, 0)) return false;
    this.send(JSON.stringify(notification(method, params)));
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
      // The connection may be lingering already.
      if (this.socket.writableFinished) this.socket.destroy();
      else this.socket.once("finish", () => this.socket.destroy());
    }
    if (this.#state === "closing") return;
    this.#outgoing.flush();
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
    this.holds(-this.#heldBytes);
    this.#state = "closed";
    this.#outgoing.drop();
    this.#dropUnfinished();
    this.#options.unsent.leave(this);
    this.#hangUpWatch.end();
    this.#options.onClose(this);
  }

  unsentRoom(): void {
    if (this.#waitingLines > 0) this.#options.onRoom(this);
    this.#options.onDrain(this);
  }

  closeUnread(): void {
    this.#options.onOverload(this, "its peer reads nothing");
    this.#gone();
    this.socket.destroy();
  }

  unreadRoom(): void {
    this.#roomAgain();
  }

  closeUnfinished(): void {
    if (this.#waitingLines > 0) return this.closeUnread();
    this.#options.onOverload(this, "its line does not come to an end");
    this.#refuse("exhausted", UNFINISHED, { retryable: true });
  }

  /** A buffer for a line that comes in parts; undefined if it is long and others' lines take all room for those. */
  #forLine(bytes: number): Buffer | undefined {
    if (bytes <= SMALL_BYTES) return Buffer.allocUnsafe(bytes);
    if (!this.#options.unread.mayGrow(this)) return undefined;
    // One that has become long may well become as long as is allowed by default.
    return bytes <= lineBuffers.bytes ? lineBuffers.take() : Buffer.allocUnsafeSlow(bytes);
  }

  #countWaiting(bytes: number): void {
    this.#waitingBytes += bytes;
    const { unread } = this.#options;
    unread.queued(bytes);
    const isMany = this.#waitingBytes > SMALL_BYTES;
    if (isMany === this.#hasManyWaiting) return;
    this.#hasManyWaiting = isMany;
    unread.keeps(this, isMany);
  }

  /** Lets go of a line that has no end. */
  #dropUnfinished(): void {
    const buffer = this.#lines.drop();
    if (buffer !== undefined) {
      lineBuffers.giveBack(buffer);
      noteOldBytes(buffer.length);
    }
    this.#options.unread.leave(this);
    if (this.#hasManyWaiting) this.#options.unread.keeps(this, true);
  }

  #cutLines(): void {
    while (this.#state === "open" || this.#state === "ended") {
      if (!this.#hasRoom()) {
        this.#pause();
        return;
      }
      if (this.#skipped !== undefined && !this.#skip(this.#skipped)) break;
      const line = this.#lines.next();
      if (line === undefined) break;
      if (line === NO_ROOM) return this.#pause();
      if (line === LINE_TOO_LONG) {
        if (this.#options.isAsked(this)) {
          this.#skipped = new TopMembers();
          continue;
        }
        this.refuseTooLong();
        break;
      }
      if (line instanceof WrongHeaders) {
        this.#refuse("parse_error", line.message);
        break;
      }
      this.#waitingLines += 1;
      this.#countWaiting(line.length);
      if (line.length >= SMALL_BYTES) this.#options.unread.finished(this);
      this.#options.onLine(this, line);
      if (line.length >= LONG_MESSAGE_BYTES) noteLongMessage(line.length);
    }
    this.#resume();
    if (this.#state === "ended") this.#allCut();
  }

  /** Reads more of a line that is too long, and keeps none of it. Returns true if its end has come. */
  #skip(members: TopMembers): boolean {
    const hasEnded = this.#lines.skip((bytes) => {
      members.take(bytes);
      lineBuffers.giveBack(bytes);
    });
    this.#options.unread.finished(this);
    if (!hasEnded) return false;
    this.#skipped = undefined;
    this.#waitingLines += 1;
    this.#options.onSkipped(this, members.members);
    return true;
  }

  #hasRoom(): boolean {
    if (this.#outgoing.congested) return false;
    const inFlight = this.#inFlight + this.#waitingLines;
    if (inFlight >= MAX_IN_FLIGHT_REQUESTS && this.#waitingLines >= LINES_BEYOND_IN_FLIGHT) return false;
    if (this.#waitingLines >= LINES_IN_CROWD && this.#options.unread.isCrowded) return false;
    if (this.#waitingBytes >= (this.#options.unread.isRoomy ? MAX_UNREAD_BYTES : SMALL_BYTES)) return false;
    const heldBytes = this.#parkedBytes + this.#heldBytes;
    return this.#waitingBytes + heldBytes + this.#outgoing.unreadBytes < MAX_UNSENT_BYTES;
  }

  /** Not at once: lines are being taken up, and what is cut now would come before those that are kept back. */
  #roomSoon(): void {
    if (this.#paused) queueMicrotask(() => this.#roomAgain());
  }

  #roomAgain(): void {
    if (this.#paused && !this.#dropsArrivals && this.#hasRoom()) this.#cutLines();
  }

  /** Lets the others be read, and a turn be performed, before more is: a peer may send faster than anything is cut. */
  #rest(bytes: number): void {
    this.#readBytes += bytes;
    if (this.#readBytes < REST_AFTER_BYTES) return;
    this.#readBytes = 0;
    this.#rests = true;
    this.#stopReading();
    afterRest(() => {
      this.#rests = false;
      if (!this.#paused) this.#readAgain();
    });
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#stopReading();
    this.#hangUpWatch.start({ tryNow: false });
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#state === "open") this.#hangUpWatch.stop();
    this.#readAgain();
  }

  /**
   * Node reads on for a stream that was paused, up to 64 KiB at once and more of them, as long as the kernel has some.
   * With a hundred connections that takes longer than a turn. So its reading is stopped, after it was begun for that.
   */
  #stopReading(): void {
    this.socket.pause();
    queueMicrotask(() => {
      if (this.socket.isPaused()) this.holdReading();
    });
  }

  get isNew(): boolean {
    return this.socket.bytesRead === 0;
  }

  holdReading(): boolean {
    const handle = handleOf(this.socket);
    if (handle?.reading !== true) return false;
    handle.reading = false;
    handle.readStop();
    return true;
  }

  readOn(): void {
    if (!this.#paused && !this.#rests) this.#readAgain();
  }

  #readAgain(): void {
    this.socket.resume();
    // The stream takes it that its last read is still under way, and would not begin another.
    if (handleOf(this.socket)?.reading === false) this.socket._read(0);
  }

  #ended(): void {
    if (this.#state !== "open") return;
    this.#state = "ended";
    // A paused stream says all the same that it has ended, while lines are left to be cut.
    if (!this.#paused) this.#allCut();
    if (this.#state === "ended") this.#hangUpWatch.start({ tryNow: true });
  }

  #allCut(): void {
    if (!this.#lines.unfinished) return this.#closeIfDone();
    this.#refuse(
      "parse_error",
      this.#lines.withHeaders
        ? "The last message is shorter than its Content-Length, so it was not executed."
        : "The last line has no line end, so it was not executed. End each message with \\n.",
    );
  }

  /** True if nothing more will be cut of what it sends. */
  get #drains(): boolean {
    return (this.#state === "ended" && !this.#paused) || this.#state === "refused";
  }

  #tellSilent(): void {
    if (this.#drains && this.#waitingLines === 0) this.#options.onSilent(this);
  }

  #closeIfDone(): void {
    this.#tellSilent();
    if (this.#drains && this.#inFlight === 0 && this.#waitingLines === 0) this.close({ linger: true });
  }

  /** Has it answered, takes nothing more, and closes once earlier requests are answered. */
  #refuse(
    kind: "message_too_large" | "parse_error" | "exhausted",
    message: string,
    details?: ErrorDetails,
  ): void {
    this.#state = "refused";
    this.#dropUnfinished();
    this.#resume();
    this.#options.onRefused(this, refuse(kind, message, details));
    // Requests that wait could keep it open for an hour.
    setTimeout(() => this.close({ linger: true }), LINGER_MS).unref();
    this.#closeIfDone();
  }
}

/** With room for a line end of two characters. */
const lineBuffers = new BufferPool(DEFAULT_MAX_MESSAGE_BYTES + 2);

/** Node's own view of a socket: whether it is read. */
function handleOf(socket: Socket): { reading: boolean; readStop: () => number } | undefined {
  return (socket as unknown as { _handle?: { reading: boolean; readStop: () => number } })._handle;
}

function tooLarge({ maxMessageBytes }: ConnectionOptions): string {
  return `The line is longer than ${maxMessageBytes} bytes, so it was not executed and the connection is closed. Split the request, or start pawld with a larger --max-message-bytes.`;
}

const UNFINISHED =
  "The unfinished lines of all connections take all room that there is for them, and this one did not come to its end, so it was not executed and the connection is closed. Connect again, and send each line in one go.";
