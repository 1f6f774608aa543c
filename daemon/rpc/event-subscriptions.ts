import type { Subscriptions } from "../domain/events.js";
import type { Journal, Topics } from "../turns/journal.js";
import { type Peer, SharedLines } from "./peer.js";

/** So many events go to a subscriber before others have their turn. */
const EVENTS_PER_ROUND = 256;

/** ... and no more once they are so many bytes. */
const BYTES_PER_ROUND = 65_536;

/**
 * After a round the next one waits for so long, unless that one left events behind: a write to each of ten subscribers
 * costs a daemon under load as much as some calls, whether it is of one event or of a hundred.
 */
const REST_MS = 10;

interface Subscription {
  /** The same topics, in the same order, are told the same. */
  readonly sort: string;
  readonly id: string;
  readonly connection: number;
  readonly topics: Topics;
  /** The number of the last event that it was told of, or that it does not want. */
  told: number;
  /** True until it is told that the daemon has started. */
  restarted: boolean;
}

/** What several subscriptions are told in a round, made once. */
interface Portion {
  readonly lines: SharedLines | undefined;
  /** The number of the last event that it is about. */
  readonly next: number;
  /** True if there may be more. */
  readonly areMore: boolean;
}

/**
 * The connections that are told of events. Each subscription is a place in the journal: what its peer has room for is
 * sent from there, and a peer that does not read stays behind without holding up anything.
 */
export class EventSubscriptions implements Subscriptions {
  readonly #journal: Journal | undefined;
  readonly #peer: (connection: number) => Peer | undefined;
  readonly #wallMs: () => number;
  readonly #byConnection = new Map<number, Map<string, Subscription>>();
  /** The last id of each connection. */
  readonly #ids = new Map<number, number>();
  #round: NodeJS.Immediate | undefined;
  #rest: NodeJS.Timeout | undefined;
  /** True if there is something to tell after the rest. */
  #isWanted = false;

  /** @param wallMs the wall clock, for the time of a gap. */
  constructor(
    journal: Journal | undefined,
    peer: (connection: number) => Peer | undefined,
    wallMs: () => number,
  ) {
    this.#journal = journal;
    this.#peer = peer;
    this.#wallMs = wallMs;
    if (journal !== undefined) journal.onAdded = () => this.#tellSoon();
  }

  count(connection: number): number {
    return this.#byConnection.get(connection)?.size ?? 0;
  }

  nextId(connection: number): string {
    const id = (this.#ids.get(connection) ?? 0) + 1;
    if (this.#peer(connection) !== undefined) this.#ids.set(connection, id);
    return String(id);
  }

  has(connection: number, id: string): boolean {
    return this.#byConnection.get(connection)?.has(id) ?? false;
  }

  add(connection: number, id: string, topics: Topics, since: number, restarted: boolean): void {
    if (this.#peer(connection) === undefined) return;
    let all = this.#byConnection.get(connection);
    if (all === undefined) {
      all = new Map();
      this.#byConnection.set(connection, all);
    }
    all.set(id, { sort: `${id} ${topics.text}`, id, connection, topics, told: since, restarted });
    this.#tellSoon();
  }

  remove(connection: number, id: string): void {
    this.#byConnection.get(connection)?.delete(id);
  }

  /** The connection has closed. */
  leave(connection: number): void {
    this.#ids.delete(connection);
    this.#byConnection.delete(connection);
  }

  /** The peer has read what was in the way of sending it more. */
  roomAgain(connection: number): void {
    if (this.#byConnection.has(connection)) this.#tellSoon();
  }

  /** After the answers of the turn under way, or after the rest. */
  #tellSoon(): void {
    if (this.#byConnection.size === 0) return;
    if (this.#rest !== undefined) this.#isWanted = true;
    else this.#round ??= setImmediate(() => this.#tellAll());
  }

  #restAWhile(): void {
    this.#rest = setTimeout(() => {
      this.#rest = undefined;
      if (!this.#isWanted) return;
      this.#isWanted = false;
      this.#tellSoon();
    }, REST_MS);
  }

  #tellAll(): void {
    this.#round = undefined;
    const portions = new Map<string, Portion>();
    let areMore = false;
    for (const [connection, all] of this.#byConnection) {
      const peer = this.#peer(connection);
      if (peer === undefined) continue;
      for (const subscription of all.values()) if (this.#tell(peer, subscription, portions)) areMore = true;
    }
    if (areMore) this.#tellSoon();
    else this.#restAWhile();
  }

  /** Returns true if there are more events, and its peer may have room for them. */
  #tell(peer: Peer, subscription: Subscription, portions: Map<string, Portion>): boolean {
    const journal = this.#journal;
    if (journal === undefined || !peer.mayBeAsked) return false;
    if (subscription.restarted) {
      subscription.restarted = false;
      peer.send(`${beginningOf(subscription)}${journal.startedText(subscription.told).slice(1)}}`);
    }
    if (subscription.told >= journal.lastCommitted) return false;
    const key = `${subscription.told} ${subscription.sort}`;
    let portion = portions.get(key);
    if (portion === undefined) {
      portion = this.#portion(subscription, journal);
      portions.set(key, portion);
    }
    if (portion.lines !== undefined) peer.sendShared(portion.lines);
    subscription.told = portion.next;
    return portion.areMore;
  }

  #portion(subscription: Subscription, journal: Journal): Portion {
    const { events, next, gap } = journal.read(subscription.topics, subscription.told, EVENTS_PER_ROUND);
    const beginning = beginningOf(subscription);
    if (gap) {
      const text = JSON.stringify({
        cursor: journal.cursor(next),
        at: this.#wallMs(),
        topic: "daemon",
        kind: "gap",
        id: "pawld",
      });
      return { lines: new SharedLines([`${beginning}${text.slice(1)}}`]), next, areMore: false };
    }
    const lines: string[] = [];
    let bytes = 0;
    let last = next;
    for (const event of events) {
      const line = `${beginning}${journal.textOf(event).slice(1)}}`;
      lines.push(line);
      bytes += line.length;
      if (bytes < BYTES_PER_ROUND) continue;
      last = event.number;
      break;
    }
    return {
      lines: lines.length === 0 ? undefined : new SharedLines(lines),
      next: last,
      areMore: last < journal.lastCommitted,
    };
  }
}

/** A notification up to the members of its event. */
function beginningOf({ id }: Subscription): string {
  return `{"jsonrpc":"2.0","method":"event","params":{"subscriptionId":"${id}",`;
}
