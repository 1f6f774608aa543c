import type { Call } from "../turns/call.js";
import type { Connection } from "./connection.js";

/**
 * A line of several requests, which are taken up one after the other, in one turn or in several; or of one that takes
 * several turns.
 */
export interface Batch {
  /** How many are still to be taken up. */
  readonly left: number;
  /** Takes up so many more at most, or goes on with one; adds their calls. */
  take(most: number, calls: Call[]): void;
}

/** Lines that one turn takes up of a connection hold no more than this together, unless it is one. */
const MAX_LINE_BYTES_PER_TURN = 1024 * 1024;

/** What a turn has taken up of a connection. */
interface Share {
  requests: number;
  bytes: number;
}

interface Entry {
  readonly connection: Connection;
  readonly line: Buffer;
  /** The line, once it was taken up in part. */
  batch: Batch | undefined;
}

/** The lines that have arrived and are not yet taken up, of all connections, in the order they came. */
export class Inbox {
  #entries: Entry[] = [];

  push(connection: Connection, line: Buffer): void {
    this.#entries.push({ connection, line, batch: undefined });
  }

  /**
   * Hands over what may be taken up now and keeps the rest in order: a connection waits for its next turn
   * after its share (`requestsPerTurn`, `MAX_LINE_BYTES_PER_TURN`), and as long as it has too much unanswered or unsent.
   *
   * @param receive takes up one line; returns what it begins if it holds a batch.
   * @param calls those of what is taken up are added.
   * @returns how many lines were taken up, whole or in part, and whether the next turn may take up more.
   */
  takeUp(
    receive: (line: Buffer, connection: Connection) => Batch | undefined,
    calls: Call[],
  ): { taken: number; left: boolean } {
    const entries = this.#entries;
    this.#entries = [];
    const shares = new Map<Connection, Share>();
    let taken = 0;
    let left = false;
    for (const entry of entries) {
      const { connection, line } = entry;
      let share = shares.get(connection);
      if (share === undefined) {
        share = { requests: 0, bytes: 0 };
        shares.set(connection, share);
      }
      const most = connection.requestsPerTurn - share.requests;
      const fits = share.bytes === 0 || share.bytes + line.length <= MAX_LINE_BYTES_PER_TURN;
      if (most > 0 && fits && mayTakeUp(entry)) {
        share.requests += takeUp(entry, most, receive, calls);
        share.bytes += line.length;
        taken += 1;
        if (entry.batch === undefined || entry.batch.left === 0) continue;
      }
      left ||= mayTakeUp(entry);
      // What it sent after this line has to stay behind it.
      share.requests = Number.POSITIVE_INFINITY;
      this.#entries.push(entry);
    }
    return { taken, left };
  }
}

function mayTakeUp({ connection, batch }: Entry): boolean {
  return batch === undefined ? connection.mayTakeUp : connection.mayGoOn;
}

/** Returns how many requests were taken up. */
function takeUp(
  entry: Entry,
  most: number,
  receive: (line: Buffer, connection: Connection) => Batch | undefined,
  calls: Call[],
): number {
  const { connection, line } = entry;
  if (entry.batch === undefined) {
    const batch = receive(line, connection);
    if (batch === undefined) {
      connection.taken(line);
      return 1;
    }
    entry.batch = batch;
  }
  const before = entry.batch.left;
  entry.batch.take(most, calls);
  if (entry.batch.left === 0) connection.taken(line);
  return before - entry.batch.left;
}
