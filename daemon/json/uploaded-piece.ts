import { JsonSyntax } from "./syntax.js";

/** Base64 decoded and checked in one step: whole groups of four characters, and some half a millisecond of work. */
const STEP_CHARACTERS = 64 * 1024;
const PADDING = 0x3d;
/** Uploads of which it is remembered how far they are. */
const MAX_REMEMBERED = 64;

/** How far the text of an upload is checked, up to some place: as `JsonSyntax` saves it. */
interface Checked {
  readonly at: number;
  readonly saved: Uint8Array;
}

/** By the ids of commands, and of deliveries, those of late last. Only a guess, compared with what is stored. */
const remembered = new Map<string, Checked>();

/** Says that an upload is checked up to here, so that its next piece can be before it is looked up. */
export function rememberChecked(id: string, at: number, saved: Uint8Array): void {
  remembered.delete(id);
  remembered.set(id, { at, saved });
  if (remembered.size > MAX_REMEMBERED) remembered.delete(remembered.keys().next().value as string);
}

/**
 * A piece of an upload: the bytes that its base64 text stands for, and whether JSON goes on with them. Both are found
 * in steps, so that others are served in between: as much work as all the rest of the upload, and it needs neither
 * the transaction nor, as a rule, the database. The bytes take the place of the text, of which nothing is left.
 */
export class UploadedPiece {
  readonly #text: Buffer;
  /** Without the padding. */
  readonly #length: number;
  #read = 0;
  #written = 0;
  /** The check up to the piece, if that is known, and then the outcome of the piece's own. */
  readonly #before: Uint8Array | undefined;
  readonly #syntax: JsonSyntax;
  #offender: number | undefined;

  /**
   * @param text base64, with or without padding at its end; not checked yet.
   * @param place of the piece, if it is known: nothing of that is checked either.
   */
  constructor(text: Buffer, place: { commandId?: unknown; leaseId?: unknown; offset?: unknown } = {}) {
    this.#text = text;
    this.#length = text.length - (text.at(-1) !== PADDING ? 0 : text.at(-2) === PADDING ? 2 : 1);
    const known = remembered.get(String(place.leaseId ?? place.commandId));
    const saved = place.offset === 0 ? NOTHING : known?.saved;
    this.#before = place.offset === 0 || known?.at === place.offset ? saved : undefined;
    this.#syntax = syntaxAfter(this.#before ?? NOTHING);
  }

  /** Does the next part of the work; false when all is done. */
  step(): boolean {
    if (this.#read >= this.#length) return false;
    const end = Math.min(this.#read + STEP_CHARACTERS, this.#length);
    const from = this.#written;
    // As a short string, because a long one is collected later.
    this.#written += this.#text.write(this.#text.toString("latin1", this.#read, end), from, "base64");
    this.#read = end;
    if (this.#before !== undefined && this.#offender === undefined) {
      const offender = this.#syntax.take(this.#text.subarray(from, this.#written));
      if (offender !== undefined) this.#offender = from + offender;
    }
    return true;
  }

  /** The bytes that the text stands for, or null if it is no base64. */
  get bytes(): Buffer | null {
    while (this.step());
    // The decoder leaves out what is not base64, and then there are fewer bytes than characters stand for. Four
    // characters stand for three bytes, and one alone for none.
    const isBase64 = this.#length % 4 !== 1 && this.#written === Math.floor((this.#length * 3) / 4);
    return isBase64 ? this.#text.subarray(0, this.#written) : null;
  }

  /**
   * True if JSON goes on with the bytes.
   *
   * @param before how far the text before them is checked.
   * @returns the place of the first byte that cannot be there, or else the check with them.
   */
  checkAfter(before: Uint8Array): number | JsonSyntax {
    const bytes = this.bytes as Buffer;
    if (this.#before !== undefined && Buffer.compare(this.#before, before) === 0) {
      return this.#offender ?? this.#syntax;
    }
    const syntax = syntaxAfter(before);
    return syntax.take(bytes) ?? syntax;
  }
}

const NOTHING = new Uint8Array();

function syntaxAfter(saved: Uint8Array): JsonSyntax {
  return saved.length === 0 ? new JsonSyntax() : JsonSyntax.restore(saved);
}
