import { PawlError } from "@pawl/protocol/errors";
import type { Call } from "../turns/call.js";
import type { Caller, Env } from "../turns/operation.js";
import type { Slot } from "./line.js";
import type { Session } from "./session.js";

/** Reads of one snapshot. */
const MAX_READS = 64;

/**
 * Reads that give rows as they are, whatever the time is: those of any moment since they were asked for. Others judge
 * by the clock what has ended, and one that is ahead of a turn under way would say so of what that renews.
 */
export const AS_THEY_ARE: ReadonlySet<string> = new Set([
  "queue.get",
  "queue.list",
  "queue.stats",
  "sequence.peek",
]);

/** A read that is to be performed. */
interface Read {
  readonly call: Call;
  /** Called once it is answered. */
  readonly performed: () => void;
}

/**
 * Reads without a lock, all that have arrived in one snapshot: a long list would keep a queue, and figures of all
 * queues the whole place, from everybody who works there.
 */
export class SnapshotReads {
  readonly #withSlot: <T>(use: (slot: Slot) => Promise<T>) => Promise<T>;
  readonly #env: (caller: Caller) => Env;
  /** By connections, of which that whose turn it is comes first: who asks for much does not go before all others. */
  readonly #waiting = new Map<number, Read[]>();
  /** By connections, what is read once their peers have read. */
  readonly #heldUp = new Map<number, Read[]>();
  #isReading = false;
  readonly #awaitingEnd: (() => void)[] = [];

  /**
   * @param withSlot lends a session; rejects with a refusal where the database is away.
   * @param env what the operations know.
   */
  constructor(withSlot: <T>(use: (slot: Slot) => Promise<T>) => Promise<T>, env: (caller: Caller) => Env) {
    this.#withSlot = withSlot;
    this.#env = env;
  }

  add(call: Call, performed: () => void): void {
    const { connection } = call.caller;
    const before = this.#waiting.get(connection);
    if (before === undefined) this.#waiting.set(connection, [{ call, performed }]);
    else before.push({ call, performed });
    void this.#readAll();
  }

  /** The peer of a connection has read, or is gone. */
  roomAgain(connection: number): void {
    const held = this.#heldUp.get(connection);
    if (held === undefined) return;
    this.#heldUp.delete(connection);
    this.#waiting.set(connection, [...held, ...(this.#waiting.get(connection) ?? [])]);
    void this.#readAll();
  }

  get isIdle(): boolean {
    return !this.#isReading;
  }

  /** Resolves once none is under way and none waits. */
  async ended(): Promise<void> {
    if (!this.isIdle) await new Promise<void>((resolve) => this.#awaitingEnd.push(resolve));
  }

  async #readAll(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    while (this.#waiting.size > 0) await this.#readSome();
    this.#isReading = false;
    for (const resolve of this.#awaitingEnd.splice(0)) resolve();
  }

  async #readSome(): Promise<void> {
    let reads: readonly Read[] = this.#take();
    try {
      await this.#withSlot(async ({ session }) => {
        try {
          await session.begin([], { toRead: true });
          for (const read of reads) {
            const outcome = this.#holdsUp(read) ? HELD_UP : await this.#outcomeOf(read, session);
            reads = reads.slice(1);
            if (outcome === HELD_UP) continue;
            read.call.settle(outcome);
            read.performed();
          }
        } finally {
          await session.rollback();
        }
      });
    } catch (error) {
      // Of a defect only the first one is to blame.
      const failed = error instanceof PawlError ? reads : reads.slice(0, 1);
      for (const read of reads.slice(failed.length).reverse()) this.#putBack(read);
      for (const { call, performed } of failed) {
        call.settle(error);
        performed();
      }
    }
  }

  /** One read of each connection after the other. */
  #take(): Read[] {
    const reads: Read[] = [];
    for (const [connection, own] of this.#waiting) {
      if (reads.length === MAX_READS) break;
      reads.push(own.shift() as Read);
      this.#waiting.delete(connection);
      // It comes last now, and again in this loop.
      if (own.length > 0) this.#waiting.set(connection, own);
    }
    return reads;
  }

  #putBack(read: Read): void {
    const { connection } = read.call.caller;
    this.#waiting.set(connection, [read, ...(this.#waiting.get(connection) ?? [])]);
  }

  /** Many may be given long answers at once, so none is made for a peer that has too much to read. */
  #holdsUp(read: Read): boolean {
    const { connection } = read.call.caller;
    const held = this.#heldUp.get(connection);
    if (held !== undefined) held.push(read);
    else if (read.call.hasRoom === false) this.#heldUp.set(connection, [read]);
    return this.#heldUp.has(connection);
  }

  async #outcomeOf({ call }: Read, session: Session): Promise<unknown> {
    // Nobody is there any more to get it.
    if (call.closed) return null;
    return call.refusal ?? (await session.perform(call.start(this.#env(call.caller))));
  }
}

/** The read waits for its peer. */
const HELD_UP = Symbol("held up");
