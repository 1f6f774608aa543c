const COUNTER_LIMIT = 2 ** 12;
/** Random bytes of one id: those of its end, and those that a counter starts from. */
const RANDOM_BYTES = 10;

/**
 * UUIDs of version 7 (RFC 9562, section 5.7), each greater than the one before also within a millisecond: after
 * the time comes a counter of 12 bits (section 6.2, method 1), and 62 random bits.
 */
export class Uuid7 {
  #time = 0;
  #counter = 0;

  /**
   * @param now milliseconds since the Unix epoch.
   * @param random cryptographically strong random bytes.
   */
  next(now: number, random: (bytes: number) => Buffer): string {
    const bytes = random(RANDOM_BYTES);
    this.#counter += 1;
    if (now > this.#time || this.#counter === COUNTER_LIMIT) {
      // A counter that is used up borrows the next millisecond. A new one starts in its lower half, to have room.
      this.#time = Math.max(now, this.#time + 1);
      this.#counter = bytes.readUInt16BE(0) % (COUNTER_LIMIT / 2);
    }
    const time = this.#time.toString(16).padStart(12, "0");
    const counter = this.#counter.toString(16).padStart(3, "0");
    // The variant is in the two highest bits.
    const variant = (((bytes[2] as number) & 0x3f) | 0x80).toString(16);
    const rest = bytes.toString("hex", 3);
    return `${time.slice(0, 8)}-${time.slice(8)}-7${counter}-${variant}${rest.slice(0, 2)}-${rest.slice(2)}`;
  }
}
