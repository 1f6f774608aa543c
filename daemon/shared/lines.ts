import { EVERYTHING } from "../turns/operation.js";
import type { Parked, Waiters } from "../turns/waiters.js";
import { NOWHERE } from "./known-scopes.js";
import { CallLine, type SideBySide } from "./line.js";
import type { ScopedCall } from "./turn.js";

/** Calls under one key that are looked at for the lines that perform them. */
const MAX_WOKEN = 1000;

/** The scopes of leases and of paths. */
const HELD = /^(?:lease|path):/;

/** The lines of a place, each there while it has something to do; and which of them performs a call that waits. */
export class Lines {
  readonly #turns: SideBySide;
  readonly #waiters: Waiters;
  readonly #byScope = new Map<string, CallLine>();

  constructor(turns: SideBySide, waiters: Waiters) {
    this.#turns = turns;
    this.#waiters = waiters;
  }

  of(scopes: readonly string[]): CallLine {
    const hasAll = scopes.includes(EVERYTHING);
    // Circles of waits for what is held are looked for in one line, one turn after the other.
    const key = hasAll ? EVERYTHING : HELD.test(scopes[0] ?? "") ? "held" : (scopes[0] ?? NOWHERE);
    let line = this.#byScope.get(key);
    if (line === undefined) {
      line = new CallLine(this.#turns, hasAll, () => void this.#byScope.delete(key));
      this.#byScope.set(key, line);
    }
    return line;
  }

  /** The line of what uses rows of any scope. */
  get whole(): CallLine {
    return this.of([EVERYTHING]);
  }

  /** Has the calls performed again that wait under these keys, of which the other daemons know or are to be told. */
  wake(keys: Iterable<string>, areKnown: boolean): void {
    for (const key of keys) {
      const alone = this.#waiters.overtaking(key);
      if (alone === undefined) this.#wakeAll(key, areKnown);
      else {
        const { scopes, mayBeUndone = false } = alone.call as ScopedCall;
        this.of(scopes).wake(key, scopes, mayBeUndone, areKnown);
      }
    }
  }

  #wakeAll(key: string, isKnown: boolean): void {
    const woken = this.#waiters.wokenBy(key);
    const byLine = new Map<CallLine, Set<string>>();
    let mayBeUndone = false;
    let left = MAX_WOKEN;
    for (let parked = woken?.next(); parked !== undefined && left > 0; parked = woken?.next()) {
      left -= 1;
      const scopes = (parked.call as ScopedCall).scopesWhenWoken(key);
      const line = this.of(scopes);
      const all = byLine.get(line) ?? new Set();
      for (const scope of scopes) all.add(scope);
      byLine.set(line, all);
      if (parked.call.mayBeUndone === true) mayBeUndone = true;
    }
    for (const [line, scopes] of byLine) line.wake(key, [...scopes], mayBeUndone, isKnown);
  }

  /** Performs everything again that waits. */
  tryAll(): void {
    for (const parked of this.#waiters.all()) this.#lineOf(parked).tryAgain(parked);
  }

  /** A call has waited for as long as it may. */
  timeOut(parked: Parked): void {
    this.#lineOf(parked).timeOut(parked);
  }

  #lineOf({ call }: Parked): CallLine {
    return this.of((call as ScopedCall).scopes);
  }
}
