import type { Connection } from "./connection.js";

/**
 * Lines of one connection that one turn takes up at most: a client that asks for many long lists at once
 * would otherwise have all of them in memory before the first is sent.
 */
const MAX_LINES_PER_TURN = 128;

/** The lines that have arrived and are not yet taken up, of all connections, in the order they came. */
export class Inbox {
  #lines: { connection: Connection; line: Buffer }[] = [];

  push(connection: Connection, line: Buffer): void {
    this.#lines.push({ connection, line });
  }

  /**
   * Hands over what may be taken up now and keeps the rest in order: a connection waits for its next turn
   * after `MAX_LINES_PER_TURN`, and for its peer to read while its replies pile up.
   *
   * @param receive takes up one line.
   * @returns how many were taken, and whether lines are left that the next turn may take.
   */
  takeUp(receive: (line: Buffer, connection: Connection) => void): { taken: number; left: boolean } {
    const lines = this.#lines;
    this.#lines = [];
    const perConnection = new Map<Connection, number>();
    let taken = 0;
    let left = false;
    for (const entry of lines) {
      const { connection, line } = entry;
      const before = perConnection.get(connection) ?? 0;
      if (before < MAX_LINES_PER_TURN && !connection.congested) {
        perConnection.set(connection, before + 1);
        connection.taken(line);
        receive(line, connection);
        taken += 1;
      } else {
        left ||= !connection.congested;
        if (!connection.closed) this.#lines.push(entry);
      }
    }
    return { taken, left };
  }
}
