import type { Socket } from "node:net";
import type { Access } from "./access.js";
import { Connection, type ConnectionOptions } from "./connection.js";
import type { Siblings } from "./inbox.js";
import type { HangUps } from "./kernel.js";
import { ReadingRounds } from "./reading-rounds.js";
import { Unread } from "./unread.js";
import { Unsent } from "./unsent.js";

/** The time that peers have to read their last answers when the daemon stops, and at least. */
const DRAIN_MS = 2000;
const MIN_DRAIN_MS = 500;

/** Events of connections. */
type ConnectionEvents = Pick<
  ConnectionOptions,
  | "mayTakeUp"
  | "onLine"
  | "isAsked"
  | "onSkipped"
  | "onRefused"
  | "onWrote"
  | "onHolds"
  | "onRoom"
  | "onDrain"
  | "onSilent"
  | "onClose"
  | "onOverload"
>;

/** The open connections, by the number that grants are bound to. */
export class Connections {
  readonly #access: Access;
  readonly #hangUps: HangUps | undefined;
  readonly #events: ConnectionEvents;
  readonly #onChange: () => void;
  readonly #open = new Map<number, Connection>();
  /** By pid, those that are open. */
  readonly #siblings = new Map<number, Siblings & { open: number }>();
  readonly #unsent: Unsent;
  readonly #unread: Unread;
  readonly #readingRounds = new ReadingRounds(this);
  #maxMessageBytes: number;
  /** How many were closed because of what they kept in memory. */
  #overloads = 0;
  /** How many connections were accepted in this life. */
  #accepted = 0;

  /** @param options `onChange` is called when a connection was opened or has closed. */
  constructor(options: {
    access: Access;
    hangUps: HangUps | undefined;
    maxMessageBytes: number;
    maxUnsentBytes: number;
    events: ConnectionEvents;
    onChange: () => void;
  }) {
    this.#access = options.access;
    this.#hangUps = options.hangUps;
    this.#maxMessageBytes = options.maxMessageBytes;
    this.#unsent = new Unsent(options.maxUnsentBytes);
    this.#unread = new Unread(options.maxMessageBytes);
    this.#events = options.events;
    this.#onChange = options.onChange;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Replies that are not yet read, and requests that are not yet taken up, of all. */
  get unsentBytes(): number {
    return this.#unsent.bytes;
  }

  get unreadBytes(): number {
    return this.#unread.bytes;
  }

  get heldBytes(): number {
    return this.unsentBytes + this.unreadBytes;
  }

  get overloads(): number {
    return this.#overloads;
  }

  get accepted(): number {
    return this.#accepted;
  }

  [Symbol.iterator](): Iterator<Connection> {
    return this.#open.values();
  }

  get(number: number): Connection | undefined {
    return this.#open.get(number);
  }

  /** @param readOnly whether the connection came by a socket that serves only reads. */
  accept(socket: Socket, readOnly: boolean): void {
    this.#accepted += 1;
    const caller = { connection: this.#accepted, ...this.#access.credentials(socket) };
    const connection = new Connection({
      ...this.#events,
      socket,
      caller,
      siblings: this.#siblingsOf(caller.pid),
      readOnly,
      forbidden: this.#access.refusalOf(socket, caller),
      hangUps: this.#hangUps,
      maxMessageBytes: this.#maxMessageBytes,
      unsent: this.#unsent,
      unread: this.#unread,
      readingRounds: this.#readingRounds,
      onOverload: (overloaded, reason) => {
        this.#overloads += 1;
        this.#events.onOverload(overloaded, reason);
      },
      onClose: (closed) => {
        this.#open.delete(closed.caller.connection);
        this.#leave(closed.caller.pid);
        this.#events.onClose(closed);
        this.#onChange();
      },
    });
    this.#open.set(caller.connection, connection);
    this.#onChange();
  }

  #siblingsOf(pid: number | null): Siblings {
    if (pid === null) return { ready: 0 };
    const siblings = this.#siblings.get(pid) ?? { ready: 0, open: 0 };
    siblings.open += 1;
    this.#siblings.set(pid, siblings);
    return siblings;
  }

  #leave(pid: number | null): void {
    const siblings = pid === null ? undefined : this.#siblings.get(pid);
    if (siblings === undefined) return;
    siblings.open -= 1;
    if (siblings.open === 0) this.#siblings.delete(pid as number);
  }

  /** Applies to the open connections too what a reload has changed: what they may hold, and who is allowed. */
  reconfigure({
    maxMessageBytes,
    maxUnsentBytes,
  }: {
    maxMessageBytes: number;
    maxUnsentBytes: number;
  }): void {
    this.#maxMessageBytes = maxMessageBytes;
    this.#unread.maxLineBytes = maxMessageBytes;
    this.#unsent.maxBytes = maxUnsentBytes;
    for (const connection of this.#open.values()) {
      connection.maxMessageBytes = maxMessageBytes;
      connection.forbidden = this.#access.refusalOf(connection.socket, connection.caller);
    }
  }

  /** Nothing is cut any more of what arrives: that of many who send on would take longer than all else of a stop. */
  dropArrivals(): void {
    for (const connection of this.#open.values()) connection.dropArrivals();
  }

  /** Closes each connection once its peer has read its last answer, at the latest after `DRAIN_MS`, or sooner. */
  async close(withinMs = DRAIN_MS): Promise<void> {
    // Answers from outside the turns travel by promises; the next turn of the event loop finds them all queued.
    await new Promise((resolve) => setImmediate(resolve));
    const closed = [...this.#open.values()].map(
      ({ socket }) => new Promise((resolve) => socket.once("close", resolve)),
    );
    for (const connection of this.#open.values()) connection.close({ linger: false });
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, Math.min(Math.max(withinMs, MIN_DRAIN_MS), DRAIN_MS));
    });
    await Promise.race([Promise.all(closed), timeout]);
    clearTimeout(timer);
    for (const connection of this.#open.values()) connection.socket.destroy();
  }
}
