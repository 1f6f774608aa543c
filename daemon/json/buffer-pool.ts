/** Buffers that are kept for what comes next, of each kind. */
const MAX_IDLE_BUFFERS = 2;

/**
 * Buffers of one size for what is too long for the heap of V8, which are used again as soon as they are given
 * back. As garbage they would be freed when V8 next looks at all of its heap, which it does for the sake of that
 * heap alone; until then some 60 MB of them come together.
 */
export class BufferPool {
  readonly bytes: number;
  readonly #idle: Buffer[] = [];
  /** The buffers that are out, so that one that is given back twice, or was never taken, does no harm. */
  readonly #lent = new WeakSet<ArrayBufferLike>();

  /** @param bytes of each buffer. */
  constructor(bytes: number) {
    this.bytes = bytes;
  }

  take(): Buffer {
    const buffer = this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.bytes);
    this.#lent.add(buffer.buffer);
    return buffer;
  }

  /** Takes back a buffer, or a view into it, that nobody reads or writes any more; any other is left alone. */
  giveBack({ buffer }: Buffer): void {
    if (this.#lent.delete(buffer) && this.#idle.length < MAX_IDLE_BUFFERS) {
      this.#idle.push(Buffer.from(buffer as ArrayBuffer));
    }
  }
}
