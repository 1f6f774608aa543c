import { randomUUID } from "node:crypto";
import { MAX_PARAMS_PIECE_BYTES } from "@pawl/protocol/limits";
import { BufferPool } from "./buffer-pool.js";
import { encode } from "./raw-json.js";

/** Shorter values are not worth it. */
const LONG_VALUE_BYTES = 48 * 1024;
/** The rest of a line beside its long value, if it is to be in a buffer that is used again. */
const MAX_ENVELOPE_BYTES = 4 * 1024;
/** Turned into text at a time: whole groups of three bytes, because each gives four characters. */
const STAGE_BYTES = 24 * 1024;
const NEWLINE = 0x0a;

/** Stands for the long value of the line that is being made. It never leaves the process: nobody can send it. */
const PLACEHOLDER = randomUUID();
const QUOTED_PLACEHOLDER = JSON.stringify(PLACEHOLDER);

/** Bytes that a reply shows as base64. */
export class Base64 {
  #parts: readonly Uint8Array[];
  readonly byteLength: number;

  /** @param parts the bytes, in pieces that follow one another. */
  constructor(parts: readonly Uint8Array[]) {
    this.#parts = parts;
    this.byteLength = parts.reduce((sum, part) => sum + part.length, 0);
  }

  /** The value that `JSON.stringify` asks for: inside `encodeLine` a placeholder for a long text, else the text. */
  toJSON(): string {
    if (longValues !== undefined && this.byteLength >= LONG_VALUE_BYTES) {
      longValues.push(this);
      // A second one is as rare as it is harmless: it is made as a text.
      if (longValues.length === 1) return PLACEHOLDER;
    }
    return Buffer.concat(this.#parts).toString("base64");
  }

  /**
   * Writes the text into a buffer and gives the place behind it. The bytes are let go of then: this object is garbage,
   * but older garbage may refer to it, and with that it would stay until V8 looks at all of its heap.
   */
  moveTo(target: Buffer, at: number): number {
    const parts = this.#parts;
    this.#parts = [];
    let end = at;
    let staged = 0;
    for (const part of parts) {
      for (let from = 0; from < part.length; ) {
        const taken = Math.min(part.length - from, STAGE_BYTES - staged);
        stage.set(part.subarray(from, from + taken), staged);
        from += taken;
        staged += taken;
        if (staged < STAGE_BYTES) continue;
        end += target.write(stage.toString("base64", 0, staged), end, "latin1");
        staged = 0;
      }
    }
    return end + target.write(stage.toString("base64", 0, staged), end, "latin1");
  }
}

/** The values that were left out of the text of the line that is being made. */
let longValues: Base64[] | undefined;
const stage = Buffer.allocUnsafeSlow(STAGE_BYTES);

/** A line with its end, as bytes that are to be given back once they are written. */
export class LongLine {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** For when nobody reads the bytes any more. If that cannot be known, they are left to be collected. */
  giveBack(): void {
    buffers.giveBack(this.bytes);
  }
}

const buffers = new BufferPool(base64Length(MAX_PARAMS_PIECE_BYTES) + MAX_ENVELOPE_BYTES);

/**
 * The opposite of `extractBase64`: a reply as a line without its end, or if there is a long base64 text in it, as bytes
 * that have never been a text. As texts it would be in memory some five times until the next collection of
 * garbage, and as it is too long to be among what is young for V8, until the one after many.
 */
export function encodeLine(reply: unknown): string | LongLine {
  longValues = [];
  try {
    const text = encode(reply);
    const [value] = longValues;
    return value === undefined ? text : insert(text, value);
  } finally {
    longValues = undefined;
  }
}

function insert(text: string, value: Base64): LongLine {
  const place = text.indexOf(QUOTED_PLACEHOLDER);
  const before = text.slice(0, place + 1);
  const after = text.slice(place + QUOTED_PLACEHOLDER.length - 1);
  const length = Buffer.byteLength(before) + base64Length(value.byteLength) + Buffer.byteLength(after) + 1;
  const buffer = length <= buffers.bytes ? buffers.take() : Buffer.allocUnsafeSlow(length);
  let end = buffer.write(before, 0);
  end = value.moveTo(buffer, end);
  end += buffer.write(after, end);
  buffer[end] = NEWLINE;
  return new LongLine(buffer.subarray(0, length));
}

/** Characters of the base64 text of so many bytes, with its padding. */
export function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}
