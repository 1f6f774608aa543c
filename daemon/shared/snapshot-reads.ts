import { PawlError } from "@pawl/protocol/errors";
import type { Call } from "../turns/call.js";
import type { Caller, Env } from "../turns/operation.js";
import type { Slot } from "./line.js";

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
  readonly #waiting: Read[] = [];
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
    this.#waiting.push({ call, performed });
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
    while (this.#waiting.length > 0) await this.#readSome();
    this.#isReading = false;
    for (const resolve of this.#awaitingEnd.splice(0)) resolve();
  }

  async #readSome(): Promise<void> {
    let reads: readonly Read[] = this.#waiting.splice(0, MAX_READS);
    try {
      await this.#withSlot(async ({ session }) => {
        try {
          await session.begin([], { toRead: true });
          for (const { call, performed } of reads) {
            const outcome = await session.perform(call.start(this.#env(call.caller)));
            reads = reads.slice(1);
            call.settle(outcome);
            performed();
          }
        } finally {
          await session.rollback();
        }
      });
    } catch (error) {
      // Of a defect only the first one is to blame.
      const failed = error instanceof PawlError ? reads : reads.slice(0, 1);
      this.#waiting.unshift(...reads.slice(failed.length));
      for (const { call, performed } of failed) {
        call.settle(error);
        performed();
      }
    }
  }
}
