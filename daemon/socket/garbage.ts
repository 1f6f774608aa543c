import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { processorMs } from "../clock.js";

/** Shorter messages are collected in time by themselves. */
export const LONG_MESSAGE_BYTES = 64 * 1024;
/** The garbage of long messages is collected when so many bytes of them have passed. */
const COLLECT_EVERY_BYTES = 1024 * 1024;

/** All garbage is collected when so many bytes of what is not young have become some. */
const COLLECT_OLD_EVERY_BYTES = 32 * 1024 * 1024;
/** A connection refers to what it was to send until the event loop has closed it. */
const CLOSING_MS = 10;
/** So much memory a daemon may well use and keep. */
const USUAL_BYTES = 96 * 1024 * 1024;
/** A change of what is in use, or held for connections, that is worth a look at all memory. */
const WORTH_BYTES = 12 * 1024 * 1024;
/** So much less that is held is worth one, since it may have been there at the last. */
const WORTH_HELD_BYTES = 1024 * 1024;
/** Only while no more than this is held, since the time that the look takes grows with what is in use. */
const LITTLE_BYTES = 16 * 1024 * 1024;
/** A look that comes too early, as when a connection is still closing, is followed by others. */
const TRIES = 2;
/** How often a daemon finds out how much memory it uses. */
const LOOK_MS = 5000;
/** A daemon that had its processor work so much of the time between two looks was busy: it may have left something. */
const BUSY_SHARE = 0.2;

type Collect = (options?: { type: "minor" }) => void;

let bytesSince = 0;
let oldBytesSince = 0;
let collect: Collect | undefined;

/**
 * Tells of a long message that was received or has been sent, so that what long ones leave behind is collected soon.
 * V8 looks at its own heap, which such messages are hardly a part of: they are in buffers, several times over,
 * and it lets some 60 MB of those come together. A collection of what is young takes less than a millisecond.
 */
export function noteLongMessage(bytes: number): void {
  const before = bytesSince;
  bytesSince += bytes;
  // In a turn of its own, when nothing is left of the message but garbage.
  if (before < COLLECT_EVERY_BYTES && bytesSince >= COLLECT_EVERY_BYTES) setImmediate(collectYoung);
}

/**
 * Tells of bytes that were held for a while and are let go of: replies that a peer has read late or not at all, or a
 * line that came slowly. V8 takes such for something that stays, and looks for the end of it last of all.
 */
export function noteOldBytes(bytes: number): void {
  const before = oldBytesSince;
  oldBytesSince += bytes;
  if (before < COLLECT_OLD_EVERY_BYTES && oldBytesSince >= COLLECT_OLD_EVERY_BYTES)
    setTimeout(collectAll, CLOSING_MS).unref();
}

/** So many bytes of values, of the 20 that there can be, are reckoned with for each byte of a line. */
const VALUE_BYTES = 8;

/** Tells of a line whose values have become garbage, and may be too large to be taken for young. */
export function noteOldValues(lineBytes: number): void {
  if (lineBytes >= LONG_MESSAGE_BYTES) noteOldBytes(lineBytes * VALUE_BYTES);
}

function collectAll(): void {
  oldBytesSince = 0;
  collector()();
}

function collectYoung(): void {
  bytesSince = 0;
  collector()({ type: "minor" });
}

/** The function, which without options collects all, is only in contexts that are made after the flag was set. */
function collector(): Collect {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as Collect;
  }
  return collect;
}

/** The memory that the process uses; undefined without a descriptor to read it with. */
export function residentBytes(): number | undefined {
  try {
    return process.memoryUsage.rss();
  } catch {
    return undefined;
  }
}

/**
 * Gives back to the system what a peak has left. V8 collects for the sake of its heap, which a daemon without work does
 * not fill, and the C library keeps the pages of what was freed.
 */
export class AfterPeak {
  readonly #trim: (() => void) | undefined;
  readonly #heldBytes: () => number;
  readonly #looks: NodeJS.Timeout;
  /** Bytes in use after the last look at all memory. */
  #left = USUAL_BYTES;
  /** What was held for connections then: what has left since is garbage, however little more was used meanwhile. */
  #leftHeld = 0;
  /** How many more looks there are if they bring nothing. */
  #tries = 0;
  /** What the process had used of the processor at the last look, and whether that was much since the one before. */
  #processorMs = processorMs();
  #isBusy = false;

  /**
   * @param trim has the C library give back what it keeps; undefined where it cannot be asked.
   * @param heldBytes how much is held for connections.
   */
  constructor(trim: (() => void) | undefined, heldBytes: () => number) {
    this.#trim = trim;
    this.#heldBytes = heldBytes;
    this.#looks = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  end(): void {
    clearInterval(this.#looks);
  }

  #look(): void {
    const used = residentBytes();
    if (used === undefined) return;
    this.#left = Math.max(Math.min(this.#left, used), USUAL_BYTES);
    const held = this.#heldBytes();
    const hasLeft = used >= USUAL_BYTES + WORTH_BYTES && held + WORTH_HELD_BYTES <= this.#leftHeld;
    // What calls had while they were performed is held for no connection.
    const hasCalmed = this.#becameCalm() && used >= USUAL_BYTES + WORTH_BYTES;
    if (used >= this.#left + WORTH_BYTES || hasLeft || hasCalmed) this.#tries = TRIES;
    if (this.#tries === 0 || held > LITTLE_BYTES) return;
    this.#leftHeld = held;
    collectAll();
    this.#trim?.();
    this.#left = Math.max(residentBytes() ?? used, USUAL_BYTES);
    if (this.#left === USUAL_BYTES) this.#tries = 0;
    else if (used - this.#left >= WORTH_BYTES) this.#tries = TRIES;
    else this.#tries -= 1;
  }

  /** To be asked once at each look: true if much was done until the last one, and not since. */
  #becameCalm(): boolean {
    const before = this.#processorMs;
    this.#processorMs = processorMs();
    const wasBusy = this.#isBusy;
    this.#isBusy = this.#processorMs - before > BUSY_SHARE * LOOK_MS;
    return wasBusy && !this.#isBusy;
  }
}
