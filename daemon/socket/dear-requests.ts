/** A request that takes so long is dear: a few hundred of them hold others up. */
export const DEAR_MS = 0.5;
/** One that takes so long is a turn by itself: the others of its turn would be answered that much later. */
export const WHOLE_TURN_MS = 5;
/** A line of so many bytes may well take a whole turn, as long as nothing is known of its kind. */
export const LONG_LINE_BYTES = 8 * 1024;
/** So many dear requests make their method dear: one may have been held up by something else. */
const ENOUGH = 2;
const MAX_COUNTED = 4;
/** A long line does not take so long by chance: the next one like it is not to come first. */
const CERTAIN_MS = 40;
/** So much of a dear one is made up for by one that was not. */
const MADE_UP = 0.25;
/** How fast it is forgotten how long the dearest took. */
const FORGETTING = 0.8;
/** The part of a line in which its method is looked for. */
const HEAD_BYTES = 160;
const MAX_KINDS = 256;

/** Requests of one kind: what two of them took of late, how many bytes they had, and how many were dear. */
interface Seen {
  ms: number;
  bytes: number;
  /** How long one took: two do not take long by chance, as when garbage is collected meanwhile. */
  onceMs: number;
  dear: number;
}

/** What requests are expected to take: what others of their method took of late, in proportion to their length. */
export class DearRequests {
  readonly #seen = new Map<string, Seen>();
  /** The longest line of each kind that took less than a whole turn, if that was a long one. */
  readonly #passed = new Map<string, number>();
  /** No shorter line takes a whole turn, for all that is known. */
  #shortestWholeTurn = Number.POSITIVE_INFINITY;

  /** True if no kind has been dear of late. */
  get isEmpty(): boolean {
    return this.#seen.size === 0;
  }

  /** How many whole turns a request may well take. */
  wholeTurns(line: Buffer): number {
    if (line.length < this.#shortestWholeTurn && line.length < LONG_LINE_BYTES) return 0;
    const turns = Math.floor(this.expectedMs(line) / WHOLE_TURN_MS);
    return turns === 0 && this.#isUnknown(line) ? 1 : turns;
  }

  /** True of a long line, unless one of its kind that had half as many bytes took less than a turn. */
  #isUnknown(line: Buffer): boolean {
    return line.length >= LONG_LINE_BYTES && line.length > 2 * (this.#passed.get(kindOf(line)) ?? 0);
  }

  /** How many milliseconds a request may well take; 0 if it is not dear for all that is known. */
  expectedMs(line: Buffer): number {
    const seen = this.#seen.get(kindOf(line));
    if (seen === undefined || seen.dear < ENOUGH) return 0;
    const ms = inProportion(seen, line);
    return ms >= DEAR_MS ? ms : 0;
  }

  /** A request took so long; a short one says little about long ones. Returns true if it was expected to be dear. */
  took(line: Buffer, ms: number): boolean {
    const kind = kindOf(line);
    const seen = this.#seen.get(kind);
    const wasExpected = seen !== undefined && seen.dear >= ENOUGH;
    this.#learn(line, ms, kind, seen);
    if (line.length >= LONG_LINE_BYTES && ms < WHOLE_TURN_MS) this.#pass(kind, line.length);
    if (Math.max(ms, seen?.ms ?? 0) >= WHOLE_TURN_MS) this.#shortestWholeTurn = this.#findShortest();
    return wasExpected;
  }

  #learn(line: Buffer, ms: number, kind: string, seen: Seen | undefined): void {
    const isLong = seen !== undefined && line.length >= seen.bytes / 2;
    if (ms < DEAR_MS) {
      if (!isLong) return;
      seen.dear -= MADE_UP;
      forget(seen);
      if (seen.dear <= 0) this.#seen.delete(kind);
    } else if (seen === undefined) {
      if (this.#seen.size >= MAX_KINDS) this.#seen.clear();
      const [ofTwoMs, dear] = isCertain(line, ms) ? [ms, ENOUGH] : [DEAR_MS, 1];
      this.#seen.set(kind, { ms: ofTwoMs, bytes: line.length, onceMs: ms, dear });
    } else {
      seen.dear = Math.min(seen.dear + 1, MAX_COUNTED);
      const twiceMs = Math.min(ms, seen.onceMs);
      seen.onceMs = Math.max(ms, FORGETTING * seen.onceMs);
      if (twiceMs >= FORGETTING * inProportion(seen, line))
        Object.assign(seen, { ms: twiceMs, bytes: line.length });
      else if (isLong) seen.ms *= FORGETTING;
    }
  }

  #pass(kind: string, bytes: number): void {
    if (this.#passed.size >= MAX_KINDS) this.#passed.clear();
    this.#passed.set(kind, Math.max(bytes, this.#passed.get(kind) ?? 0));
  }

  #findShortest(): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const { ms, bytes } of this.#seen.values()) {
      if (ms >= WHOLE_TURN_MS) shortest = Math.min(shortest, (bytes * WHOLE_TURN_MS) / ms);
    }
    return shortest;
  }
}

/** True of a request that can be told to be dear by itself. */
export function isCertain(line: Buffer, ms: number): boolean {
  return line.length >= LONG_LINE_BYTES && ms >= CERTAIN_MS;
}

function forget(seen: Seen): void {
  seen.ms *= FORGETTING;
  seen.onceMs *= FORGETTING;
}

function inProportion({ ms, bytes }: Seen, line: Buffer): number {
  return ms * Math.min(1, line.length / bytes);
}

/** What is expected to cost alike: the method, as far as the beginning of a line shows it. Batches are told apart. */
function kindOf(line: Buffer): string {
  const head = line.toString("latin1", 0, HEAD_BYTES);
  const at = head.indexOf('"method"');
  const begin = at === -1 ? -1 : head.indexOf('"', at + 8);
  const method = begin === -1 ? "" : head.slice(begin + 1, head.indexOf('"', begin + 1));
  return head.startsWith("[") ? `[${method}` : method;
}
