import type { LineUnderWay } from "../rpc/peer.js";
import type { Call } from "../turns/call.js";
import type { Taken } from "../turns/turn-loop.js";
import type { Connection } from "./connection.js";

/** Lines that one turn takes up of a connection hold no more than this together, unless it is one. */
const MAX_LINE_BYTES_PER_TURN = 1024 * 1024;

/** Takes up one line and adds its calls; returns a line that takes more than one turn, nothing of it taken up yet. */
type Receive = (line: Buffer, connection: Connection, calls: Call[]) => LineUnderWay | undefined;

interface ArrivedLine {
  readonly connection: Connection;
  readonly line: Buffer;
  /** The line, once it was taken up in part. */
  underWay: LineUnderWay | undefined;
}

/** The part of a connection's lines that a turn has taken up. */
interface Share {
  requests: number;
  bytes: number;
}

/** The lines that have arrived and are not yet taken up, of all connections, in the order they came. */
export class Inbox {
  readonly #receive: Receive;
  #lines: ArrivedLine[] = [];

  constructor(receive: Receive) {
    this.#receive = receive;
  }

  push(connection: Connection, line: Buffer): void {
    this.#lines.push({ connection, line, underWay: undefined });
  }

  /**
   * Takes up what may be taken up now and keeps the rest in order: a connection waits for its next turn after its share
   * (`requestsPerTurn`, `MAX_LINE_BYTES_PER_TURN`), and as long as it has too much unanswered or unsent.
   *
   * @param calls those of what is taken up are added.
   */
  take(calls: Call[]): Taken {
    const arrivedLines = this.#lines;
    if (arrivedLines.length === 0) return NOTHING;
    this.#lines = [];
    const shares = new Map<Connection, Share>();
    let lines = 0;
    let left = false;
    for (const arrived of arrivedLines) {
      const { connection, line } = arrived;
      let share = shares.get(connection);
      if (share === undefined) {
        share = { requests: 0, bytes: 0 };
        shares.set(connection, share);
      }
      const most = connection.requestsPerTurn - share.requests;
      const fits = share.bytes === 0 || share.bytes + line.length <= MAX_LINE_BYTES_PER_TURN;
      if (most > 0 && fits && mayTakeUp(arrived)) {
        share.requests += this.#takeUp(arrived, most, calls);
        share.bytes += line.length;
        lines += 1;
        if (arrived.underWay === undefined || arrived.underWay.left === 0) continue;
      }
      left ||= mayTakeUp(arrived);
      // The lines that the peer sent after this one have to stay behind it.
      share.requests = Number.POSITIVE_INFINITY;
      this.#lines.push(arrived);
    }
    return { lines, left };
  }

  /** Returns how many requests were taken up. */
  #takeUp(arrived: ArrivedLine, most: number, calls: Call[]): number {
    const { connection, line } = arrived;
    arrived.underWay ??= this.#receive(line, connection, calls);
    const { underWay } = arrived;
    if (underWay === undefined) {
      connection.tookUp(line);
      return 1;
    }
    const before = underWay.left;
    underWay.goOn(most, calls);
    if (underWay.left === 0) connection.tookUp(line);
    return before - underWay.left;
  }
}

const NOTHING: Taken = { lines: 0, left: false };

function mayTakeUp({ connection, underWay }: ArrivedLine): boolean {
  return underWay === undefined ? connection.mayTakeUp : connection.mayGoOn;
}
