import { elapsed } from "../clock.js";

/** After so long no more is read in a round of the event loop: less than a turn lasts. */
const MAX_ROUND_MS = 4;
/** A shorter chunk takes no time worth telling. */
const LONG_CHUNK_BYTES = 8192;
/** Who has sent none in so many rounds that had some is not held up by those who have. */
const LATELY_ROUNDS = 64;

/** A connection, as far as it is read. */
export interface ReadSource {
  /** The last round in which a long chunk of it was read, if there was one. */
  readRound: number;
  /** True if nothing of it was read yet. */
  readonly isNew: boolean;
  /** Has nothing read of it until `readOn`; returns false if nothing is anyway. */
  holdReading(): boolean;
  readOn(): void;
}

/**
 * Ends a round of reading that takes too long. Node reads all connections that have sent something before anything else
 * is done: with a hundred that send much, that takes longer than the turn for which the others wait. So once it has
 * taken its time, those that send much or have just come are read in the next round, first those that were not in this
 * one. The others, of which one may have sent a single request meanwhile, are still read in this one.
 */
export class ReadingRounds {
  readonly #sources: Iterable<ReadSource>;
  #round = 1;
  /** When the first long chunk of this round was read. */
  #begun: number | undefined;
  #held: ReadSource[] = [];

  /** @param sources all that are open, in the order they came. */
  constructor(sources: Iterable<ReadSource>) {
    this.#sources = sources;
  }

  /** A chunk of a connection was read. */
  read(source: ReadSource, bytes: number): void {
    if (bytes < LONG_CHUNK_BYTES) return;
    source.readRound = this.#round;
    const now = elapsed();
    if (this.#begun === undefined) {
      this.#begun = now;
      setImmediate(() => this.#next());
    } else if (this.#held.length === 0 && now - this.#begun >= MAX_ROUND_MS) {
      for (const each of this.#sources)
        if (this.#mayBeMuch(each) && each.holdReading()) this.#held.push(each);
    }
  }

  #mayBeMuch({ readRound, isNew }: ReadSource): boolean {
    return isNew || this.#round - readRound < LATELY_ROUNDS;
  }

  #next(): void {
    this.#round += 1;
    this.#begun = undefined;
    const held = this.#held;
    if (held.length === 0) return;
    this.#held = [];
    // The kernel tells of them in the order in which they are asked for again.
    held.sort((one, other) =>
      one.readRound < other.readRound ? -1 : one.readRound > other.readRound ? 1 : 0,
    );
    for (const each of held) each.readOn();
  }
}
