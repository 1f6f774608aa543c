import { shown } from "@pawl/protocol/errors";
import { LINE_TOO_LONG, LineSplitter, NO_ROOM } from "@pawl/protocol/framing";

const FIRST_HEADER = "content-length";
/** The first bytes of a connection that speaks with headers; a message of JSON cannot begin so. */
const FIRST_BYTES = `${FIRST_HEADER}:`;
const END_OF_HEADERS = "\r\n\r\n";
const MAX_HEADERS_BYTES = 4096;
const INITIAL_CAPACITY_BYTES = 4096;

const EMPTY = Buffer.alloc(0);

/** A fault in headers, as a sentence; no message follows it. */
export class WrongHeaders {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

/** Gives a buffer of at least so many bytes, or undefined where there is no room for now. */
type Allocate = (bytes: number) => Buffer | undefined;

/** A message, what is wrong for good, `NO_ROOM` until there is some, or undefined when more bytes are needed. */
type Next = Buffer | typeof LINE_TOO_LONG | typeof NO_ROOM | WrongHeaders | undefined;

/**
 * Cuts the bytes of a connection into messages. Its first bytes decide the framing for its whole life. As with
 * `LineSplitter`, the caller pushes a chunk, takes messages until `undefined`, and may stop in between.
 */
export class MessageSplitter {
  readonly #allocate: Allocate;
  #cutter: LineSplitter<Buffer | undefined> | BodySplitter;
  /** The first bytes, as long as they do not decide the framing; undefined once they have. */
  #undecided: Buffer | undefined = EMPTY;

  constructor(maxMessageBytes: number, allocate: Allocate) {
    this.#allocate = allocate;
    this.#cutter = new LineSplitter<Buffer | undefined>(maxMessageBytes, allocate);
  }

  /** True once the connection is known to speak with headers, in both directions. */
  get withHeaders(): boolean {
    return this.#cutter instanceof BodySplitter;
  }

  /** The longest message; may be changed. */
  set maxMessageBytes(bytes: number) {
    this.#cutter.maxLineBytes = bytes;
  }

  /** Adds a chunk. All messages of the one before must have been taken. */
  push(chunk: Buffer): void {
    if (this.#undecided === undefined) return this.#cutter.push(chunk);
    const first = this.#undecided.length === 0 ? chunk : Buffer.concat([this.#undecided, chunk]);
    const begin = first.toString("latin1", 0, FIRST_BYTES.length).toLowerCase();
    if (begin.length < FIRST_BYTES.length && FIRST_BYTES.startsWith(begin)) {
      this.#undecided = first;
      return;
    }
    this.#undecided = undefined;
    if (begin === FIRST_BYTES) this.#cutter = new BodySplitter(this.#cutter.maxLineBytes, this.#allocate);
    this.#cutter.push(first);
  }

  next(): Next {
    return this.#cutter.next();
  }

  /** Gives the bytes of a message that is too long, as `LineSplitter.skip` does. Returns true once its end has come. */
  skip(take: (bytes: Buffer) => void): boolean {
    return this.#cutter.skip(take);
  }

  /** Lets go of all bytes. Returns the buffer of the unfinished message, if there is one. */
  drop(): Buffer | undefined {
    return this.#cutter.drop();
  }

  /** True if bytes of a message without an end are held: at the end of a stream, a message cut off. */
  get unfinished(): boolean {
    return (this.#undecided?.length ?? 0) > 0 || this.#cutter.unfinished;
  }
}

/**
 * Cuts messages out of what the base protocol of the Language Server Protocol says: headers with CRLF, an empty line,
 * and a body of as many bytes as `Content-Length` says.
 */
class BodySplitter {
  readonly #allocate: Allocate;
  #chunk: Buffer = EMPTY;
  #offset = 0;
  /** The headers whose end has not arrived. */
  #headers = "";
  /** The length of the body under way; undefined in headers. */
  #bodyBytes: number | undefined;
  /** The part of the body that has arrived, in a buffer that doubles: a peer may announce much and send little. */
  #body: Buffer | undefined;
  #heldBytes = 0;
  #wrong: typeof LINE_TOO_LONG | WrongHeaders | undefined;
  /** The longest body. May be changed; also the one that is under way is held to it. */
  maxLineBytes: number;

  constructor(maxLineBytes: number, allocate: Allocate) {
    this.maxLineBytes = maxLineBytes;
    this.#allocate = allocate;
  }

  push(chunk: Buffer): void {
    if (this.#offset < this.#chunk.length) throw new Error("push before the last chunk was used up");
    this.#chunk = chunk;
    this.#offset = 0;
  }

  next(): Next {
    if (this.#wrong === undefined && this.#bodyBytes === undefined) this.#takeHeaders();
    const bodyBytes = this.#bodyBytes;
    if (bodyBytes !== undefined && bodyBytes > this.maxLineBytes) this.#wrong ??= LINE_TOO_LONG;
    if (this.#wrong !== undefined) return this.#wrong;
    const next = bodyBytes === undefined ? undefined : this.#takeBody(bodyBytes);
    this.#letGoOfChunk();
    return next;
  }

  skip(take: (bytes: Buffer) => void): boolean {
    if (this.#body !== undefined) take(this.#body.subarray(0, this.#heldBytes));
    const missing = (this.#bodyBytes ?? 0) - this.#heldBytes;
    this.#body = undefined;
    this.#heldBytes = 0;
    const part = this.#chunk.subarray(this.#offset, this.#offset + missing);
    take(part);
    this.#offset += part.length;
    this.#letGoOfChunk();
    const hasEnded = part.length === missing;
    this.#bodyBytes = hasEnded ? undefined : missing - part.length;
    if (hasEnded) this.#wrong = undefined;
    return hasEnded;
  }

  /** A chunk that is used up is not kept for as long as nothing follows it. */
  #letGoOfChunk(): void {
    if (this.#offset < this.#chunk.length) return;
    this.#chunk = EMPTY;
    this.#offset = 0;
  }

  drop(): Buffer | undefined {
    const body = this.#body;
    this.#body = undefined;
    this.#heldBytes = 0;
    this.#chunk = EMPTY;
    this.#offset = 0;
    return body;
  }

  get unfinished(): boolean {
    return this.#wrong === undefined && (this.#headers !== "" || this.#bodyBytes !== undefined);
  }

  #takeHeaders(): void {
    const from = this.#headers.length;
    const rest = this.#chunk.toString("latin1", this.#offset, this.#offset + MAX_HEADERS_BYTES);
    const headers = this.#headers + rest;
    const end = headers.indexOf(END_OF_HEADERS);
    if (end === -1) {
      this.#offset += rest.length;
      this.#headers = headers;
      const isTooLong = headers.length >= MAX_HEADERS_BYTES;
      // Whoever ends lines with \n alone would wait for an answer.
      const hasLineFeed = /(^|[^\r])\n/.test(headers);
      if (isTooLong || hasLineFeed) this.#wrong = new WrongHeaders(NO_END);
      return;
    }
    this.#offset += end + END_OF_HEADERS.length - from;
    this.#headers = "";
    const length = lengthIn(headers.slice(0, end));
    if (length instanceof WrongHeaders) this.#wrong = length;
    else this.#bodyBytes = length;
  }

  #takeBody(bytes: number): Next {
    const missing = bytes - this.#heldBytes;
    const part = this.#chunk.subarray(this.#offset, this.#offset + missing);
    const isWhole = part.length === missing;
    if ((!isWhole || this.#heldBytes > 0) && !this.#append(part, bytes)) return NO_ROOM;
    this.#offset += part.length;
    if (!isWhole) return undefined;
    this.#bodyBytes = undefined;
    if (this.#heldBytes === 0) return part;
    // The view is handed out: the next body needs a buffer of its own.
    const body = (this.#body as Buffer).subarray(0, bytes);
    this.#body = undefined;
    this.#heldBytes = 0;
    return body;
  }

  /** Returns false if there is no room. */
  #append(part: Buffer, bytes: number): boolean {
    const needed = this.#heldBytes + part.length;
    if (part.length === 0) return true;
    if (needed > (this.#body?.length ?? 0)) {
      const doubled = Math.min(Math.max((this.#body?.length ?? 0) * 2, INITIAL_CAPACITY_BYTES), bytes);
      const grown = this.#allocate(Math.max(needed, doubled));
      if (grown === undefined) return false;
      this.#body?.copy(grown, 0, 0, this.#heldBytes);
      this.#body = grown;
    }
    part.copy(this.#body as Buffer, this.#heldBytes);
    this.#heldBytes = needed;
    return true;
  }
}

/** The length of the body that headers announce, or what is wrong with them. */
function lengthIn(headers: string): number | WrongHeaders {
  let length: number | undefined;
  for (const line of headers.split("\r\n")) {
    const [, name = "", value = ""] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
    if (name === "") return new WrongHeaders(`The header ${shown(line)} has no name and value. ${HOW}`);
    if (name.toLowerCase() === "content-type" && !isUtf8Type(value)) {
      return new WrongHeaders(`The Content-Type is ${shown(value)}. Send JSON encoded as UTF-8.`);
    }
    if (name.toLowerCase() !== FIRST_HEADER) continue;
    if (length !== undefined) return new WrongHeaders(`There is more than one Content-Length. ${HOW}`);
    if (!/^\d{1,15}$/.test(value)) {
      return new WrongHeaders(`The Content-Length ${shown(value)} is no number of bytes. ${HOW}`);
    }
    length = Number(value);
  }
  return length ?? new WrongHeaders(`There is no Content-Length. ${HOW}`);
}

function isUtf8Type(value: string): boolean {
  const charset = /charset="?([^";\s]+)/i.exec(value)?.[1] ?? "utf-8";
  return /^utf-?8$/i.test(charset);
}

const HOW = 'Send "Content-Length: N", an empty line, and a body of N bytes, with CRLF as line ends.';
const NO_END = `The headers of a message do not end. ${HOW}`;
