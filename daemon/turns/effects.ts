import type { EventKind, EventNoun, NotificationName } from "@pawl/protocol";
import type { Reached, Counter as WitnessedCounter } from "../store/witness.js";
import type { Due } from "./alarm.js";
import { type EventDetails, eventsKey, type Journal } from "./journal.js";
import type { Counter, Effects } from "./operation.js";
import type { Tally } from "./tally.js";

/** The key of those who follow several things. */
const EVERY_EVENT = eventsKey(undefined);

/** Where the effects of a committed turn go. */
export interface Outlet {
  /** Adds to a counter of `daemon.stats`. */
  count(counter: Counter, by: number): void;
  /** Sends a notification to a connection, if it is still open and its peer reads. */
  notify(connection: number, method: NotificationName, params: object): void;
  /** Writes a log line. */
  log(message: string, details: object): void;
}

/** The effects of the operations of one attempt, held back until its transaction is committed. */
export class CollectedEffects implements Effects {
  readonly #journal: Journal | undefined;
  readonly #tally: Tally | undefined;
  readonly #wallMs: number;
  readonly #woken: string[] = [];
  #nextWoken = 0;
  readonly #counters: Counter[] = [];
  readonly #amounts: number[] = [];
  readonly #reachedCounters: WitnessedCounter[] = [];
  readonly #reachedValues: number[] = [];
  readonly #actions: ((outlet: Outlet) => void)[] = [];
  /** Connections that were granted something. One too many only costs one look when that connection closes. */
  readonly holders: number[] = [];
  /** How much there was of each when the operation under way began. */
  #wokenBefore = 0;
  #countsBefore = 0;
  #reachedBefore = 0;
  #actionsBefore = 0;
  #eventsBefore = 0;
  #notesBefore = 0;
  /** True if those who follow several things are about to be woken. */
  #followersWoken = false;
  /** The earliest times at which something ends, by each clock. A time too early only costs one look. */
  #earliestAt = Number.POSITIVE_INFINITY;
  #earliestWallAt = Number.POSITIVE_INFINITY;

  /** @param wallMs the time of its events. */
  constructor(journal: Journal | undefined, tally: Tally | undefined, wallMs: number) {
    this.#journal = journal;
    this.#tally = tally;
    this.#wallMs = wallMs;
  }

  wake(key: string): void {
    this.#woken.push(key);
  }

  deadline(at: number): void {
    if (at < this.#earliestAt) this.#earliestAt = at;
  }

  wallDeadline(wallAt: number): void {
    if (wallAt < this.#earliestWallAt) this.#earliestWallAt = wallAt;
  }

  get earliestEnd(): Due {
    return { at: this.#earliestAt, wallAt: this.#earliestWallAt };
  }

  count(counter: Counter, by: number): void {
    this.#counters.push(counter);
    this.#amounts.push(by);
  }

  reached(counter: WitnessedCounter, value: number): void {
    this.#reachedCounters.push(counter);
    this.#reachedValues.push(value);
  }

  /** The highest value of each counter that was reached. */
  get highestReached(): Reached {
    const highest = new Map<WitnessedCounter, number>();
    for (const [index, counter] of this.#reachedCounters.entries()) {
      const value = this.#reachedValues[index] as number;
      if (value > (highest.get(counter) ?? 0)) highest.set(counter, value);
    }
    return highest;
  }

  bind(connection: number): void {
    this.holders.push(connection);
  }

  notify(connection: number, method: NotificationName, params: object): void {
    this.#actions.push((outlet) => outlet.notify(connection, method, params));
  }

  tell<N extends EventNoun>(
    noun: N,
    name: string,
    kind: EventKind<N>,
    id: string,
    details?: EventDetails,
  ): void {
    this.#tally?.note(noun, name, kind, 1);
    const journal = this.#journal;
    if (journal === undefined || !journal.isKept) return;
    journal.add(noun, name, kind, id, this.#wallMs, details);
    if (!journal.isWatched) return;
    if (!this.#followersWoken) this.wake(EVERY_EVENT);
    this.#followersWoken = true;
    this.wake(eventsKey({ noun, name }));
  }

  note<N extends EventNoun>(noun: N, name: string, kind: EventKind<N>, times: number): void {
    this.#tally?.note(noun, name, kind, times);
  }

  noteDuration(queue: string, what: "wait" | "run", ms: number): void {
    this.#tally?.noteDuration(queue, what, ms);
  }

  get isFollowed(): boolean {
    return this.#journal?.isKept === true;
  }

  log(message: string, details: object): void {
    this.#actions.push((outlet) => outlet.log(message, details));
  }

  afterCommit(action: () => void): void {
    this.#actions.push(action);
  }

  /** The next key to wake, each once for each time that an operation woke it. */
  nextWoken(): string | undefined {
    if (this.#nextWoken >= this.#woken.length) return undefined;
    const key = this.#woken[this.#nextWoken++];
    if (key === EVERY_EVENT) this.#followersWoken = false;
    return key;
  }

  /** An operation begins. */
  begin(): void {
    this.#wokenBefore = this.#woken.length;
    this.#countsBefore = this.#counters.length;
    this.#reachedBefore = this.#reachedCounters.length;
    this.#actionsBefore = this.#actions.length;
    this.#eventsBefore = this.#journal?.pending ?? 0;
    this.#notesBefore = this.#tally?.pending ?? 0;
  }

  /** The operation under way was refused: forgets its effects. */
  forget(): void {
    this.#woken.length = this.#wokenBefore;
    this.#counters.length = this.#countsBefore;
    this.#amounts.length = this.#countsBefore;
    this.#reachedCounters.length = this.#reachedBefore;
    this.#reachedValues.length = this.#reachedBefore;
    this.#actions.length = this.#actionsBefore;
    this.#journal?.forget(this.#eventsBefore);
    this.#tally?.forget(this.#notesBefore);
    this.#followersWoken = false;
  }

  /** Counts, then carries out everything else in the order of the operations. */
  carryOut(outlet: Outlet): void {
    for (const [index, counter] of this.#counters.entries())
      outlet.count(counter, this.#amounts[index] as number);
    for (const action of this.#actions) action(outlet);
  }
}
