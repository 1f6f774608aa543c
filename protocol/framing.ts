import type { Buffer } from "node:buffer";

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;
const INITIAL_CAPACITY_BYTES = 4096;

/** The answer of `LineSplitter.next` when a line is longer than allowed; no line follows it, unless it is skipped. */
export const LINE_TOO_LONG = Symbol("line too long");
/** The answer of `LineSplitter.next` when there is no room for the bytes that have come of a line. */
export const NO_ROOM = Symbol("no room");

/**
 * Cuts a byte stream into lines without ever holding more than one chunk and one unfinished line. Lines end
 * with `\n`; one `\r` before it is dropped; lines of nothing but white space are skipped (spec: wire.md,
 * Transport).
 *
 * The caller pushes a chunk, takes lines until `undefined`, and may stop in between: what it has not taken
 * stays. Lines are views into the chunk or into a buffer given up to the caller; they stay valid.
 */
export class LineSplitter<Room extends Buffer | undefined = Buffer> {
  /** The bytes of a line whose end has not arrived, in a buffer that doubles: a peer may send single bytes. */
  #partial: Buffer | undefined;
  #partialBytes = 0;
  #chunk: Buffer | undefined;
  #offset = 0;
  #tooLong = false;
  readonly #allocate: (bytes: number) => Room;
  /** The longest line, without its end. May be changed; also the line that is under way is held to it. */
  maxLineBytes: number;

  /**
   * @param allocate `Buffer.allocUnsafe`, passed in so that this file imports nothing at run time; it may give
   *     undefined where there is no room for now.
   */
  constructor(maxLineBytes: number, allocate: (bytes: number) => Room) {
    this.maxLineBytes = maxLineBytes;
    this.#allocate = allocate;
  }

  /** Adds a chunk. All lines of the one before must have been taken. */
  push(chunk: Buffer): void {
    if (this.#chunk !== undefined && !this.#tooLong)
      throw new Error("push before the last chunk was used up");
    this.#chunk = chunk;
    this.#offset = 0;
  }

  /**
   * The next line without its end, `undefined` when more bytes are needed, `LINE_TOO_LONG` from then on, or `NO_ROOM`
   * until `allocate` gives some.
   */
  next(): Buffer | typeof LINE_TOO_LONG | (undefined extends Room ? typeof NO_ROOM : never) | undefined {
    while (!this.#tooLong) {
      const chunk = this.#chunk;
      if (chunk === undefined) return undefined;
      if (this.#partialBytes === 0 && this.#skipBlank(chunk)) return undefined;
      const end = chunk.indexOf(NEWLINE, this.#offset);
      let line = chunk.subarray(this.#offset, end === -1 ? chunk.length : end);
      if (this.#isTooLong(line)) break;
      if ((end === -1 || this.#partialBytes > 0) && !this.#append(line)) return NO_ROOM as never;
      if (end === -1 || end === chunk.length - 1) this.#chunk = undefined;
      if (end === -1) return undefined;
      this.#offset = end + 1;
      if (this.#partialBytes > 0) {
        line = (this.#partial as Buffer).subarray(0, this.#partialBytes);
        // The view is handed out: the next unfinished line needs a buffer of its own.
        this.#partial = undefined;
        this.#partialBytes = 0;
      }
      if (line.length > 0 && line[line.length - 1] === CARRIAGE_RETURN) line = line.subarray(0, -1);
      if (!isBlank(line)) return line;
    }
    this.#tooLong = true;
    return LINE_TOO_LONG;
  }

  /**
   * Goes behind the blank lines that come next, byte by byte: a chunk may hold nothing else, and cutting each out would
   * take a thousand times as long as reading it. Returns true if nothing follows them yet.
   */
  #skipBlank(chunk: Buffer): boolean {
    let begin = this.#offset;
    for (let at = begin; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (byte === NEWLINE && at - begin <= this.maxLineBytes) begin = at + 1;
      else if (!isWhite(byte)) break;
    }
    this.#offset = begin;
    if (begin < chunk.length) return false;
    this.#chunk = undefined;
    return true;
  }

  /**
   * Gives the bytes of a line that is too long as far as they have come, and lets go of them. Returns true if its end
   * is among them: lines follow it again then; otherwise to be called once more after each `push`.
   */
  skip(take: (bytes: Buffer) => void): boolean {
    if (this.#partialBytes > 0) take((this.#partial as Buffer).subarray(0, this.#partialBytes));
    this.#partial = undefined;
    this.#partialBytes = 0;
    const chunk = this.#chunk;
    if (chunk === undefined) return false;
    const end = chunk.indexOf(NEWLINE, this.#offset);
    take(chunk.subarray(this.#offset, end === -1 ? chunk.length : end));
    this.#offset = end + 1;
    if (end === -1 || end === chunk.length - 1) this.#chunk = undefined;
    this.#tooLong = end === -1;
    return !this.#tooLong;
  }

  /** Lets go of all bytes. Returns the buffer of the unfinished line, if there is one. */
  drop(): Buffer | undefined {
    const partial = this.#partial;
    this.#partial = undefined;
    this.#partialBytes = 0;
    this.#chunk = undefined;
    return partial;
  }

  /** True if bytes of a line without an end are held: at the end of a stream, a message cut off. */
  get unfinished(): boolean {
    return (
      !this.#tooLong &&
      this.#partialBytes > 0 &&
      !isBlank((this.#partial as Buffer).subarray(0, this.#partialBytes))
    );
  }

  /** @param part what has come last of a line. */
  #isTooLong(part: Buffer): boolean {
    const bytes = this.#partialBytes + part.length;
    if (bytes <= this.maxLineBytes) return false;
    // One byte more may be the carriage return of a line that is just as long as allowed.
    const last = part.length > 0 ? part[part.length - 1] : this.#partial?.[this.#partialBytes - 1];
    return bytes > this.maxLineBytes + 1 || last !== CARRIAGE_RETURN;
  }

  /** Returns false if there is no room. */
  #append(bytes: Buffer): boolean {
    const needed = this.#partialBytes + bytes.length;
    if (bytes.length === 0) return true;
    if (needed > (this.#partial?.length ?? 0)) {
      const doubled = (this.#partial?.length ?? 0) * 2;
      const grown = this.#allocate(Math.max(needed, doubled, INITIAL_CAPACITY_BYTES));
      if (grown === undefined) return false;
      this.#partial?.copy(grown, 0, 0, this.#partialBytes);
      this.#partial = grown;
    }
    bytes.copy(this.#partial as Buffer, this.#partialBytes);
    this.#partialBytes = needed;
    return true;
  }
}

function isBlank(line: Buffer): boolean {
  for (let index = 0; index < line.length; index++) if (!isWhite(line[index] as number)) return false;
  return true;
}

function isWhite(byte: number): boolean {
  return byte === SPACE || byte === TAB || byte === CARRIAGE_RETURN;
}
