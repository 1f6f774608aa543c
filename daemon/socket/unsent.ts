import { elapsed } from "../clock.js";

/** A connection with replies that its peer has not read. */
export interface Reader {
  /** How many bytes of replies are made for it and not yet read by its peer. */
  readonly unsentBytes: number;
  /** Another number each time that its peer has read some of them. */
  readonly readMark: number;
  /** More may be taken up again, perhaps. */
  unsentRoom(): void;
  /** Its peer reads nothing, and memory runs out. */
  closeUnread(): void;
}

/** So much beyond the bound, which the answers of one turn do not reach, connections close that read nothing. */
const LAST_BOUND = 1.375;
/** The time without a byte read after which a connection counts as one that reads nothing ... */
const STALLED_MS = 500;
/** ... and how often that is looked at. */
const LOOK_MS = 100;
/** So much beyond it, nothing is taken up of connections that were never answered: they may ask for long answers. */
const STRANGER_BOUND = 1.5;
/** The answer that is expected by a connection that was not answered before. */
export const UNKNOWN_ANSWER_BYTES = 64 * 1024;

/**
 * The replies of all connections that are not yet read. From `maxBytes` on, nothing is taken up of a connection that
 * has more than an equal share of them, until its peer reads. As many that have none could be given one long answer
 * each, from three eighths more on no answer is made that may well be long, and those that read nothing close, the
 * longest unread first.
 */
export class Unsent {
  maxBytes: number;
  #bytes = 0;
  readonly #readers = new Map<Reader, { mark: number; since: number }>();
  readonly #heldBack = new Set<Reader>();
  #looks: NodeJS.Timeout | undefined;
  #lookedAt = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** True if more may be sent to a connection; if not, it is told by `unsentRoom` when that may change. */
  maySend(reader: Reader, expectedBytes: number): boolean {
    if (this.#bytes < this.maxBytes) return true;
    const share = this.maxBytes / Math.max(this.#readers.size, 1);
    const may = reader.unsentBytes < share && expectedBytes <= this.#longestAnswer;
    if (!may) this.#heldBack.add(reader);
    return may;
  }

  /** The unsent bytes of a connection have changed by so many. */
  changed(reader: Reader, by: number): void {
    const before = this.#bytes;
    this.#bytes += by;
    if (reader.unsentBytes === 0) this.#readers.delete(reader);
    else if (!this.#readers.has(reader))
      this.#readers.set(reader, { mark: reader.readMark, since: elapsed() });
    if (by > 0) {
      if (this.#bytes >= this.maxBytes) this.#looks ??= setInterval(() => this.#look(), LOOK_MS).unref();
    } else if (
      [1, LAST_BOUND, STRANGER_BOUND].some((bound) => isCrossed(this.maxBytes * bound, before, this.#bytes))
    ) {
      this.#release();
    }
  }

  /** A connection has closed. */
  leave(reader: Reader): void {
    this.#heldBack.delete(reader);
  }

  get #longestAnswer(): number {
    if (this.#bytes < this.maxBytes * LAST_BOUND) return Number.POSITIVE_INFINITY;
    return this.#bytes < this.maxBytes * STRANGER_BOUND ? UNKNOWN_ANSWER_BYTES : UNKNOWN_ANSWER_BYTES - 1;
  }

  #release(): void {
    const readers = [...this.#heldBack];
    this.#heldBack.clear();
    for (const reader of readers) reader.unsentRoom();
  }

  #look(): void {
    const now = elapsed();
    // A daemon that was held up has not sent what its clients would have read.
    const wasHeldUp = now - this.#lookedAt > STALLED_MS / 2;
    this.#lookedAt = now;
    for (const [reader, seen] of this.#readers) {
      const mark = reader.readMark;
      if (wasHeldUp || mark !== seen.mark) Object.assign(seen, { mark, since: now });
    }
    if (this.#bytes < this.maxBytes) {
      clearInterval(this.#looks);
      this.#looks = undefined;
      return;
    }
    if (this.#bytes < this.maxBytes * LAST_BOUND) return;
    const stalled = [...this.#readers].filter(([, { since }]) => now - since >= STALLED_MS);
    stalled.sort(([, one], [, other]) => one.since - other.since);
    for (const [reader] of stalled) {
      if (this.#bytes < this.maxBytes) break;
      reader.closeUnread();
    }
  }
}

/** True if a number has come from a bound or above to below it. */
function isCrossed(bound: number, before: number, now: number): boolean {
  return before >= bound && now < bound;
}
