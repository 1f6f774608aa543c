import { EVERYTHING } from "../turns/operation.js";
import { ALL, type Parked, type Rest, type Waiters } from "../turns/waiters.js";
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
    const key = keyOf(scopes);
    const hasAll = key === EVERYTHING;
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
    for (const key of keys) this.#wake(key, areKnown ? ALL : undefined);
  }

  /** Has those calls performed again that a turn has left, which the other daemons know of. */
  wakeLeft(left: ReadonlyMap<string, Rest>): void {
    for (const [key, rest] of left) this.#wake(key, rest);
  }

  /** @param rest of what waits under the key; undefined if the other daemons are to be told. */
  #wake(key: string, rest: Rest | undefined): void {
    const alone = this.#waiters.overtaking(key);
    if (alone !== undefined) {
      const { scopes, mayBeUndone = false } = alone.call as ScopedCall;
      return this.of(scopes).wake(key, scopes, mayBeUndone, rest);
    }
    // The line of the first performs what it can, in order, and leaves the others to that of the first of these.
    const woken = this.#waiters.wokenBy(key, rest);
    const all = new Set<string>();
    let lineKey: string | undefined;
    let mayBeUndone = false;
    let looked = 0;
    for (let parked = woken?.next(); parked !== undefined && looked < MAX_WOKEN; parked = woken?.next()) {
      looked += 1;
      const scopes = (parked.call as ScopedCall).scopesWhenWoken(key);
      lineKey ??= keyOf(scopes);
      if (keyOf(scopes) !== lineKey) continue;
      for (const scope of scopes) all.add(scope);
      if (parked.call.mayBeUndone === true) mayBeUndone = true;
    }
    const scopes = [...all];
    if (lineKey !== undefined) this.of(scopes).wake(key, scopes, mayBeUndone, rest);
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

/** Calls with the same key are performed by one line, one turn after the other. */
function keyOf(scopes: readonly string[]): string {
  if (scopes.includes(EVERYTHING)) return EVERYTHING;
  // Circles of waits for what is held are looked for in one line.
  return HELD.test(scopes[0] ?? "") ? "held" : (scopes[0] ?? NOWHERE);
}
