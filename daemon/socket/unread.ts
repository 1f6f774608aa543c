import { MAX_ALL_UNREAD_BYTES } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";

/** A connection with requests that are not yet taken up, or with a line that has not come to its end. */
export interface Source {
  /** Another number each time that something has come of its line, or has been taken up of its requests. */
  readonly arrivalMark: number;
  /** True if nothing goes on before its peer sends or reads something. */
  readonly waitsForPeer: boolean;
  /** There may be room for more of its line. */
  unreadRoom(): void;
  /** Others need the room that its line, or its requests, take. */
  closeUnfinished(): void;
}

/** A line that is no longer than this needs no room of what all share, and as many requests of one connection. */
export const SMALL_BYTES = 64 * 1024;
/** More requests than one turn takes up: once so many are cut and wait, a connection has only a few of its own cut. */
const CROWD_LINES = 2048;
/** At least so many long lines may be under way. */
const MIN_LONG_LINES = 4;
/** While others wait for room, a connection loses its own when it has sent, or read, nothing for so long ... */
const STALLED_MS = 1000;
/** ... or when one line has taken so long. */
const MAX_LINE_MS = 10_000;
/** How often that is looked at. */
const LOOK_MS = 250;

/**
 * The room that unfinished lines and requests not yet taken up have together. A line that grows long takes room for the
 * longest that it may become, so that each that has room can come to its end. The others wait for it in the order they
 * came; those that have it and do nothing with it lose it then.
 */
export class Unread {
  /** The longest line; may change. */
  maxLineBytes: number;
  /** Of requests that wait to be taken up. */
  #queuedBytes = 0;
  #queuedLines = 0;
  /** The connections with a long line under way, or with many requests. */
  readonly #large = new Map<Source, { mark: number; since: number; begun: number; room: number }>();
  #lineBytes = 0;
  readonly #waiting = new Set<Source>();
  #looks: NodeJS.Timeout | undefined;
  #lookedAt = 0;

  constructor(maxLineBytes: number) {
    this.maxLineBytes = maxLineBytes;
  }

  get bytes(): number {
    return this.#queuedBytes + this.#lineBytes;
  }

  /** True if more than a few requests of one connection may wait to be taken up. */
  get isRoomy(): boolean {
    return this.#waiting.size === 0 && this.bytes < this.#maxBytes;
  }

  /** True if no turn takes up all that is cut: each line that waits is one more object for garbage collections. */
  get isCrowded(): boolean {
    return this.#queuedLines >= CROWD_LINES;
  }

  get #maxBytes(): number {
    return Math.max(MAX_ALL_UNREAD_BYTES, MIN_LONG_LINES * this.maxLineBytes);
  }

  /** Counts a request that is cut, with its bytes, or taken up, with as many less. */
  queued(by: number): void {
    this.#queuedBytes += by;
    this.#queuedLines += Math.sign(by);
    if (by < 0 && this.#waiting.size > 0) this.#giveRoom();
  }

  /** True if a line may grow long; if not, its connection is told by `unreadRoom` when it may. */
  mayGrow(source: Source): boolean {
    if ((this.#large.get(source)?.room ?? 0) > 0) return true;
    if (this.#waiting.size === 0 && this.#hasRoom) {
      this.#allot(source);
      return true;
    }
    this.#waiting.add(source);
    this.#looks ??= setInterval(() => this.#look(), LOOK_MS).unref();
    return false;
  }

  /** The long line of a connection is cut. What it was counts as one of its requests from now on. */
  finished(source: Source): void {
    const line = this.#large.get(source);
    if (line === undefined) return;
    this.#lineBytes -= line.room;
    line.room = 0;
    if (this.#waiting.size > 0) this.#giveRoom();
  }

  /** A connection has many requests that wait to be taken up, or has no longer. */
  keeps(source: Source, many: boolean): void {
    const kept = this.#large.get(source);
    const now = elapsed();
    if (many && kept === undefined) {
      this.#large.set(source, { mark: source.arrivalMark, since: now, begun: now, room: 0 });
    } else if (!many && kept?.room === 0) this.#large.delete(source);
  }

  /** A connection has closed, or what it sends is dropped from now on. */
  leave(source: Source): void {
    this.finished(source);
    this.#large.delete(source);
    this.#waiting.delete(source);
  }

  get #hasRoom(): boolean {
    return this.bytes + this.maxLineBytes <= this.#maxBytes;
  }

  #allot(source: Source): void {
    const now = elapsed();
    const room = this.maxLineBytes;
    this.#lineBytes += room;
    this.#large.set(source, { mark: source.arrivalMark, since: now, begun: now, room });
  }

  #giveRoom(): void {
    for (const source of this.#waiting) {
      if (!this.#hasRoom) return;
      this.#waiting.delete(source);
      this.#allot(source);
      source.unreadRoom();
    }
  }

  #look(): void {
    const now = elapsed();
    // A daemon that was held up has not read what came meanwhile.
    const wasHeldUp = now - this.#lookedAt > STALLED_MS / 2;
    this.#lookedAt = now;
    for (const [source, seen] of [...this.#large]) {
      const mark = source.arrivalMark;
      if (wasHeldUp || mark !== seen.mark) Object.assign(seen, { mark, since: now });
      if (this.#waiting.size === 0 || !source.waitsForPeer) continue;
      const takesLong = seen.room > 0 && now - seen.begun >= MAX_LINE_MS;
      if (takesLong || now - seen.since >= STALLED_MS) source.closeUnfinished();
    }
    this.#giveRoom();
    if (this.#waiting.size > 0) return;
    clearInterval(this.#looks);
    this.#looks = undefined;
  }
}
