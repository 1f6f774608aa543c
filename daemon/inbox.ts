import type { Connection } from "./connection.js";

/**
 * Requests of one connection that one turn takes up at most, give or take a batch: a client that asks for many
 * long lists at once would otherwise have all of them in memory before the first is sent.
 */
const MAX_REQUESTS_PER_TURN = 128;

/** The lines that have arrived and are not yet taken up, of all connections, in the order they came. */
export class Inbox {
  #lines: { connection: Connection; line: Buffer }[] = [];

  push(connection: Connection, line: Buffer): void {
    this.#lines.push({ connection, line });
  }

  /**
   * Hands over what may be taken up now and keeps the rest in order: a connection waits for its next turn
   * after `MAX_REQUESTS_PER_TURN`, and as long as it has too much unanswered or unsent.
   *
   * @param receive takes up one line and returns how many requests it held.
   * @returns how many lines were taken, and whether some are left that the next turn may take.
   */
  takeUp(receive: (line: Buffer, connection: Connection) => number): { taken: number; left: boolean } {
    const lines = this.#lines;
    this.#lines = [];
    const perConnection = new Map<Connection, number>();
    let taken = 0;
    let left = false;
    for (const entry of lines) {
      const { connection, line } = entry;
      const before = perConnection.get(connection) ?? 0;
      if (before < MAX_REQUESTS_PER_TURN && connection.mayTakeUp) {
        connection.taken(line);
        perConnection.set(connection, before + receive(line, connection));
        taken += 1;
      } else {
        left ||= connection.mayTakeUp;
        // What it sent after this line has to stay behind it.
        perConnection.set(connection, MAX_REQUESTS_PER_TURN);
        this.#lines.push(entry);
      }
    }
    return { taken, left };
  }
}
