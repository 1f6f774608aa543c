import { type Call, DAEMON } from "./call.js";
import type { Wait } from "./operation.js";

/**
 * A call that waits for its condition.
 *
 *     fresh ----> waiting ----> serving ----> gone
 *
 * `fresh`: parked in the turn under way. The commit makes it `waiting`; a rollback, or its condition coming true in the
 * same turn, makes it `gone`.
 * `waiting`: parked for good, until its condition comes true, its time is up, or its connection closes.
 * `serving`: performed in the turn under way. The commit makes it `gone`; a rollback makes it `waiting` again.
 * `gone`: answered, or its connection has closed.
 */
export interface Parked {
  readonly call: Call;
  readonly key: string;
  readonly sort: string;
  readonly state: "fresh" | "waiting" | "serving" | "gone";
}

interface Entry extends Parked {
  state: Parked["state"];
  timer: NodeJS.Timeout | undefined;
}

/** The parked calls, by their keys and by their connections, each in the order they came. */
export class Waiters {
  readonly #byKey = new Map<string, Set<Entry>>();
  readonly #byConnection = new Map<number, Set<Entry>>();
  /** The calls that the turn under way has parked or served. */
  #touched: Entry[] = [];
  readonly #onTimeUp: (parked: Parked) => void;

  /** @param onTimeUp called when a call has waited for as long as it may. */
  constructor(onTimeUp: (parked: Parked) => void) {
    this.#onTimeUp = onTimeUp;
  }

  /** Parks a call in the turn under way. */
  park(call: Call, { key, sort }: Wait): void {
    const entry: Entry = { call, key, sort, state: "fresh", timer: undefined };
    add(this.#byKey, key, entry);
    add(this.#byConnection, call.caller.connection, entry);
    this.#touched.push(entry);
  }

  /** Says that the turn under way has performed a parked call. */
  serve(parked: Parked): void {
    const entry = parked as Entry;
    if (entry.state === "fresh") return this.remove(entry);
    entry.state = "serving";
    this.#touched.push(entry);
  }

  /** The turn under way is committed. */
  commit(): void {
    if (this.#touched.length === 0) return;
    for (const entry of this.#touched) {
      if (entry.state === "serving") this.remove(entry);
      else if (entry.state === "fresh") this.#startWaiting(entry);
    }
    this.#touched = [];
  }

  /** The turn under way is rolled back. */
  rollBack(): void {
    for (const entry of this.#touched) {
      if (entry.state === "fresh") this.remove(entry);
      else if (entry.state === "serving") entry.state = "waiting";
    }
    this.#touched = [];
  }

  remove(parked: Parked): void {
    const entry = parked as Entry;
    entry.state = "gone";
    clearTimeout(entry.timer);
    drop(this.#byKey, entry.key, entry);
    drop(this.#byConnection, entry.call.caller.connection, entry);
  }

  removeOf(connection: number): void {
    for (const entry of [...(this.#byConnection.get(connection) ?? [])]) this.remove(entry);
  }

  /** The calls that wait for `key`, first come first. */
  under(key: string): Iterable<Parked> {
    return this.#byKey.get(key) ?? [];
  }

  everyone(): Parked[] {
    return [...this.#byKey.values()].flatMap((entries) => [...entries]);
  }

  /** How many callers wait for `key`, without those that the turn under way has served. */
  count(key: string): number {
    let count = 0;
    for (const { state, call } of this.under(key)) {
      if (state !== "serving" && call.caller.connection !== DAEMON.connection) count += 1;
    }
    return count;
  }

  /** How many calls wait, without those of the daemon itself. */
  get size(): number {
    let size = 0;
    for (const [connection, entries] of this.#byConnection) {
      if (connection !== DAEMON.connection) size += entries.size;
    }
    return size;
  }

  #startWaiting(entry: Entry): void {
    entry.state = "waiting";
    entry.timer = setTimeout(() => this.#onTimeUp(entry), entry.call.waitMs);
    // A wait by itself is no reason for the process to live on: its connection is.
    entry.timer.unref();
  }
}

function add<K>(map: Map<K, Set<Entry>>, key: K, entry: Entry): void {
  const entries = map.get(key);
  if (entries === undefined) map.set(key, new Set([entry]));
  else entries.add(entry);
}

function drop<K>(map: Map<K, Set<Entry>>, key: K, entry: Entry): void {
  const entries = map.get(key);
  if (entries?.delete(entry) && entries.size === 0) map.delete(key);
}
