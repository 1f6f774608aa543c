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
}

export class ConnectionOrder {
  readonly #connections = new Map<number, Line>();

  /**
   * Begins a call once all of its connection that came before are performed, or at once if one line performs all of
   * them in their order.
   *
   * @param line that performs it; undefined where that is not known yet.
   */
  add(connection: number, line: unknown, begin: () => void): void {
    let own = this.#connections.get(connection);
    if (own === undefined) {
      own = { line: undefined, underWay: 0, waiting: [] };
      this.#connections.set(connection, own);
    }
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

  /** A call that was begun is performed: answered, or it waits for its condition. */
  performed(connection: number): void {
    const own = this.#connections.get(connection);
    if (own === undefined) return;
    own.underWay -= 1;
    this.#begin(own);
    if (own.underWay === 0 && own.waiting.length === 0) this.#connections.delete(connection);
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
