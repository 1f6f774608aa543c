import type { Buffer } from "node:buffer";

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;
const INITIAL_CAPACITY_BYTES = 4096;

/** The answer of `LineSplitter.next` when a line is longer than allowed; no line follows it. */
export const LINE_TOO_LONG = Symbol("line too long");

/**
 * Cuts a byte stream into lines without ever holding more than one chunk and one unfinished line. Lines end
 * with `\n`; one `\r` before it is dropped; lines of nothing but white space are skipped (spec: wire.md,
 * Transport).
 *
 * The caller pushes a chunk, takes lines until `undefined`, and may stop in between: what it has not taken
 * stays. Lines are views into the chunk or into a buffer given up to the caller; they stay valid.
 */
export class LineSplitter {
  /** The bytes of a line whose end has not arrived, in a buffer that doubles: a peer may send single bytes. */
  #partial: Buffer;
  #partialBytes = 0;
  #chunk: Buffer;
  #offset = 0;
  #tooLong = false;
  readonly #allocate: (bytes: number) => Buffer;
  /** The longest line, without its end. May be changed; also the line that is under way is held to it. */
  maxLineBytes: number;

  /**
   * @param allocate `Buffer.allocUnsafe`, passed in so that this file imports nothing at run time.
   */
  constructor(maxLineBytes: number, allocate: (bytes: number) => Buffer) {
    this.maxLineBytes = maxLineBytes;
    this.#allocate = allocate;
    this.#partial = allocate(0);
    this.#chunk = this.#partial;
  }

  /** Adds a chunk. All lines of the one before must have been taken. */
  push(chunk: Buffer): void {
    if (this.#offset < this.#chunk.length) throw new Error("push before the last chunk was used up");
    this.#chunk = chunk;
    this.#offset = 0;
  }

  /** The next line without its end, `undefined` when more bytes are needed, or `LINE_TOO_LONG` for good. */
  next(): Buffer | typeof LINE_TOO_LONG | undefined {
    while (!this.#tooLong) {
      const end = this.#chunk.indexOf(NEWLINE, this.#offset);
      if (end === -1) {
        this.#keepRest();
        if (this.#partialBytes <= this.maxLineBytes) return undefined;
        // One byte more may be the carriage return of a line that is just as long as allowed.
        const mayBeEnd = this.#partialBytes === this.maxLineBytes + 1;
        if (mayBeEnd && this.#partial[this.#partialBytes - 1] === CARRIAGE_RETURN) return undefined;
        break;
      }
      let line = this.#chunk.subarray(this.#offset, end);
      if (this.#partialBytes > 0) {
        this.#append(line);
        line = this.#partial.subarray(0, this.#partialBytes);
        this.#partialBytes = 0;
        // The view is handed out: the next unfinished line needs a buffer of its own.
        this.#partial = this.#allocate(0);
      }
      this.#offset = end + 1;
      if (line.length > 0 && line[line.length - 1] === CARRIAGE_RETURN) line = line.subarray(0, -1);
      if (line.length > this.maxLineBytes) break;
      if (!isBlank(line)) return line;
    }
    this.#tooLong = true;
    this.#partial = this.#allocate(0);
    this.#partialBytes = 0;
    this.#offset = this.#chunk.length;
    return LINE_TOO_LONG;
  }

  /** True if bytes of a line without an end are held: at the end of a stream, a message cut off. */
  get unfinished(): boolean {
    return !isBlank(this.#partial.subarray(0, this.#partialBytes));
  }

  #keepRest(): void {
    const rest = this.#chunk.subarray(this.#offset);
    this.#offset = this.#chunk.length;
    if (rest.length > 0) this.#append(rest);
  }

  #append(bytes: Buffer): void {
    const needed = this.#partialBytes + bytes.length;
    if (needed > this.#partial.length) {
      const grown = this.#allocate(Math.max(needed, this.#partial.length * 2, INITIAL_CAPACITY_BYTES));
      this.#partial.copy(grown, 0, 0, this.#partialBytes);
      this.#partial = grown;
    }
    bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes = needed;
  }
}

function isBlank(line: Buffer): boolean {
  for (let index = 0; index < line.length; index++) {
    const byte = line[index];
    if (byte !== SPACE && byte !== TAB && byte !== CARRIAGE_RETURN) return false;
  }
  return true;
}
