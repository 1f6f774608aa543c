// The calls of one connection take effect in the order in which they came, also where places, or lines of one place,
// that go side by side perform them.

interface Waiting {
  readonly line: unknown;
  readonly begin: () => void;
}

interface Line {
  /** What performs those that are under way. */
  line: unknown;
  underWay: number;
  readonly waiting: Waiting[];
  /** What the requests of all its calls take. */
  bytes: number;
}

/**
 * Of a connection whose requests have so many bytes, no more are taken up before one of them is performed: until then
 * they are kept as values, which may take 20 times as much.
 */
const MAX_BYTES = 32 * 1024;

export class ConnectionOrder {
  readonly #connections = new Map<number, Line>();
  readonly #onPerformed: (connection: number) => void;

  /** @param onPerformed called each time that one more call of a connection is performed: see `mayTakeUp`. */
  constructor(onPerformed: (connection: number) => void) {
    this.#onPerformed = onPerformed;
  }

  /**
   * True if one more call of a connection may be taken up. All that are taken up may be answered at once, before
   * anybody knows whether its peer reads, and are kept until then.
   *
   * @param most how many may be there.
   */
  mayTakeUp(connection: number, most: number): boolean {
    const own = this.#connections.get(connection);
    return own === undefined || (own.underWay + own.waiting.length < most && own.bytes < MAX_BYTES);
  }

  /**
   * Begins a call once all of its connection that came before are performed, or at once if one line performs all of
   * them in their order.
   *
   * @param line that performs it; undefined where that is not known yet.
   * @param bytes of its request.
   */
  add(connection: number, line: unknown, begin: () => void, bytes = 0): void {
    let own = this.#connections.get(connection);
    if (own === undefined) {
      own = { line: undefined, underWay: 0, waiting: [], bytes: 0 };
      this.#connections.set(connection, own);
    }
    own.bytes += bytes;
    own.waiting.push({ line, begin });
    this.#begin(own);
  }

  /**
   * Does something once all calls are performed that came before it on a connection, and those that come after it once
   * it says that it is performed.
   */
  inOrder(connection: number, begin: (performed: () => void) => void): void {
    this.add(connection, undefined, () => begin(() => this.performed(connection)));
  }

  /** True if a call of a connection is under way. */
  has(connection: number): boolean {
    return this.#connections.has(connection);
  }

  /** A call that was begun is performed: answered, or it waits for its condition. `bytes` are those of its request. */
  performed(connection: number, bytes = 0): void {
    const own = this.#connections.get(connection);
    if (own === undefined) return;
    own.underWay -= 1;
    own.bytes -= bytes;
    this.#begin(own);
    if (own.underWay === 0 && own.waiting.length === 0) this.#connections.delete(connection);
    this.#onPerformed(connection);
  }

  #begin(own: Line): void {
    for (let next = own.waiting[0]; next !== undefined; next = own.waiting[0]) {
      if (own.underWay > 0 && (next.line === undefined || next.line !== own.line)) return;
      own.waiting.shift();
      own.underWay += 1;
      own.line = next.line;
      next.begin();
    }
  }
}
