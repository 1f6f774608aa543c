import type { Call } from "./turn-loop.js";

/**
 * A call that waits for its condition.
 *
 * `fresh`: parked in the turn under way, gone again if that is rolled back. `waiting`: parked for good.
 * `serving`: its condition came true in the turn under way; back to what it was if that is rolled back.
 * `gone`: answered, or its connection closed.
 */
export interface Parked {
  readonly call: Call;
  readonly key: string;
  readonly sort: string;
  state: "fresh" | "waiting" | "serving" | "gone";
  timer: NodeJS.Timeout | undefined;
}

/** The parked calls, by what they wait for and by their connection, each in the order they came. */
export class Waiters {
  readonly #byKey = new Map<string, Set<Parked>>();
  readonly #byConnection = new Map<number, Set<Parked>>();

  park(parked: Parked): void {
    add(this.#byKey, parked.key, parked);
    add(this.#byConnection, parked.call.caller.connection, parked);
  }

  remove(parked: Parked): void {
    parked.state = "gone";
    clearTimeout(parked.timer);
    drop(this.#byKey, parked.key, parked);
    drop(this.#byConnection, parked.call.caller.connection, parked);
  }

  /** Those that wait for `key`, first come first. */
  under(key: string): Iterable<Parked> {
    return this.#byKey.get(key) ?? NONE;
  }

  /** How many callers wait for `key`, without those that the turn under way has served. */
  count(key: string): number {
    let count = 0;
    for (const { state, call } of this.under(key)) {
      if (state !== "serving" && call.caller.connection !== DAEMON_ITSELF) count += 1;
    }
    return count;
  }

  of(connection: number): Parked[] {
    return [...(this.#byConnection.get(connection) ?? NONE)];
  }

  everyone(): Parked[] {
    return [...this.#byKey.values()].flatMap((set) => [...set]);
  }

  /** How many calls wait, without those of the daemon itself. */
  get size(): number {
    let size = 0;
    for (const [connection, set] of this.#byConnection) if (connection !== DAEMON_ITSELF) size += set.size;
    return size;
  }
}

const NONE: readonly Parked[] = [];
/** The connection of calls that came by none. */
const DAEMON_ITSELF = 0;

function add<K>(map: Map<K, Set<Parked>>, key: K, parked: Parked): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([parked]));
  else set.add(parked);
}

function drop<K>(map: Map<K, Set<Parked>>, key: K, parked: Parked): void {
  const set = map.get(key);
  if (set?.delete(parked) && set.size === 0) map.delete(key);
}
