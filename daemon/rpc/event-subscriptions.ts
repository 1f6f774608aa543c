import type { Subscriptions } from "../domain/events.js";
import { encode } from "../json/raw-json.js";
import type { Journal, Topics } from "../turns/journal.js";
import { notification } from "./json-rpc.js";
import type { Peer } from "./peer.js";

/** So many events go to a subscriber before others have their turn. */
const EVENTS_PER_ROUND = 256;

interface Subscription {
  readonly id: string;
  readonly connection: number;
  readonly topics: Topics;
  /** The number of the last event that it was told of, or that it does not want. */
  told: number;
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
  #ids = 0;
  #round: NodeJS.Immediate | undefined;

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

  nextId(): string {
    this.#ids += 1;
    return String(this.#ids);
  }

  has(connection: number, id: string): boolean {
    return this.#byConnection.get(connection)?.has(id) ?? false;
  }

  add(connection: number, id: string, topics: Topics, since: number): void {
    if (this.#peer(connection) === undefined) return;
    let all = this.#byConnection.get(connection);
    if (all === undefined) {
      all = new Map();
      this.#byConnection.set(connection, all);
    }
    all.set(id, { id, connection, topics, told: since });
    this.#tellSoon();
  }

  remove(connection: number, id: string): void {
    this.#byConnection.get(connection)?.delete(id);
  }

  /** The connection has closed. */
  leave(connection: number): void {
    this.#byConnection.delete(connection);
  }

  /** The peer has read what was in the way of sending it more. */
  roomAgain(connection: number): void {
    if (this.#byConnection.has(connection)) this.#tellSoon();
  }

  /** After the answers of the turn under way. */
  #tellSoon(): void {
    if (this.#byConnection.size === 0) return;
    this.#round ??= setImmediate(() => this.#tellAll());
  }

  #tellAll(): void {
    this.#round = undefined;
    let areMore = false;
    for (const [connection, all] of this.#byConnection) {
      const peer = this.#peer(connection);
      if (peer === undefined) continue;
      for (const subscription of all.values()) if (this.#tell(peer, subscription)) areMore = true;
    }
    if (areMore) this.#tellSoon();
  }

  /** Returns true if there are more events, and its peer may have room for them. */
  #tell(peer: Peer, subscription: Subscription): boolean {
    const journal = this.#journal;
    if (journal === undefined) return false;
    if (subscription.told >= journal.lastCommitted || !peer.mayBeAsked) return false;
    const { events, next, gap } = journal.read(subscription.topics, subscription.told, EVENTS_PER_ROUND);
    const beginning = `{"jsonrpc":"2.0","method":"event","params":{"subscriptionId":${JSON.stringify(subscription.id)},`;
    if (gap) {
      const params = {
        subscriptionId: subscription.id,
        cursor: journal.cursor(next),
        at: this.#wallMs(),
        topic: "daemon",
        kind: "gap",
        id: "pawld",
      };
      peer.send(encode(notification("event", params)));
      subscription.told = next;
      return false;
    }
    for (const { number, text } of events) {
      if (!peer.mayBeAsked) return false;
      peer.send(`${beginning}${text.slice(1)}}`);
      subscription.told = number;
    }
    subscription.told = next;
    return next < journal.lastCommitted;
  }
}
