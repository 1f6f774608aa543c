import type { Id } from "@pawl/protocol/envelope";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_WAITS_PER_CONNECTION } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";
import type { WaitingElsewhere } from "../domain/lease/holder.js";
import { held, waitKey } from "../domain/lease/row.js";
import type { Caller } from "../turns/operation.js";
import { CANCELLED, TOO_MANY_WAITS } from "../turns/waiters.js";
import { pause } from "./retry.js";

/** The calls that wait for a name, first come first served. */
export interface Line {
  readonly name: string;
  readonly waiting: Waiting[];
  /** The holder of the name when the first of the line asked last; `until` by the clock that `elapsed` reads. */
  holder: { readonly owner: string; readonly until: number } | undefined;
}

/** One call that asks for a name. */
export class Asker {
  readonly #controller = new AbortController();
  /** The id of its request; undefined for a notification. */
  readonly #id: Id | undefined;
  /** True once the name is its own: too late to be cancelled. */
  #granted = false;

  constructor(id: Id | undefined) {
    this.#id = id;
  }

  /** Aborted when the connection closes, the daemon stops, or the call is cancelled before it is granted. */
  get over(): AbortSignal {
    return this.#controller.signal;
  }

  granted(): void {
    this.#granted = true;
  }

  end(refusal: PawlError): void {
    this.#controller.abort(refusal);
  }

  /** Returns whether the call has this id and is ended by that. */
  cancel(id: Id): boolean {
    if (this.#id !== id || this.#granted || this.over.aborted) return false;
    this.end(CANCELLED);
    return true;
  }
}

/** Whoever asks for a name, and how long it waits. */
export interface AskedFor {
  readonly name: string;
  readonly owner: string;
  readonly task?: string | undefined;
  readonly waitMs: number;
  readonly caller: Caller;
  readonly id: Id | undefined;
}

interface Waiting {
  readonly asked: AskedFor;
  /** By the clock that `elapsed` reads. */
  readonly since: number;
  /** Resolves when it is the first. */
  readonly first: Promise<void>;
  readonly next: () => void;
}

/**
 * The lines of calls that wait for names that providers keep. They cannot be parked in the turn loop, which knows
 * nothing of providers. The first of a line asks the provider; the others wait for it.
 */
export class WaitingLines {
  readonly #stopped: AbortSignal;
  readonly #wallMs: () => number;
  /** By the key under which the calls would be parked if the name were kept here. */
  readonly #lines = new Map<string, Line>();
  readonly #byConnection = new Map<number, Set<Asker>>();

  /**
   * @param stopped aborted with a refusal when the daemon stops.
   * @param wallMs the wall clock, by which refusals tell the end of a lease.
   */
  constructor(stopped: AbortSignal, wallMs: () => number) {
    this.#stopped = stopped;
    this.#wallMs = wallMs;
  }

  /** The number of calls that wait under a key. */
  waiting(key: string): number {
    return this.#lines.get(key)?.waiting.length ?? 0;
  }

  /** All that wait, for every name. */
  everyone(): WaitingElsewhere[] {
    const now = elapsed();
    return [...this.#lines.values()].flatMap(({ name, waiting }) =>
      waiting.map(({ asked: { owner, task = null, caller }, since }) => ({
        name,
        caller,
        owner,
        task,
        sinceMs: now - since,
      })),
    );
  }

  /**
   * Calls `ask` when it is the turn of this call. Without a wait that is now, unless others wait, who come first: then
   * it refuses with `lease_held`, and so it does when the turn has not come within `waitMs`.
   *
   * @param ask gets the line, and the one that asks.
   */
  async inLine<T>(asked: AskedFor, ask: (line: Line, asker: Asker) => Promise<T>): Promise<T> {
    const { name, waitMs, caller, id } = asked;
    const { connection } = caller;
    const key = waitKey(name);
    const asker = this.#beginAsking(connection, id);
    const line = this.#lines.get(key) ?? { name, waiting: [], holder: undefined };
    let entered: Waiting | undefined;
    try {
      if (waitMs === 0) {
        if (line.waiting.length > 0) throw this.heldBy(line);
      } else {
        this.#lines.set(key, line);
        entered = enter(line, asked);
        await this.#untilFirst(line, entered, waitMs, asker.over);
      }
      return await ask(line, asker);
    } finally {
      this.#endAsking(connection, asker);
      if (entered !== undefined) leave(line, entered);
      if (line.waiting.length === 0 && this.#lines.get(key) === line) this.#lines.delete(key);
    }
  }

  /** The refusal of a call that does not get a name. */
  heldBy({ name, holder }: Line): PawlError {
    // While the first in the line has no answer the holder is not known: the name is taken by those who wait.
    const remainingMs = Math.max(0, Math.ceil((holder?.until ?? 0) - elapsed()));
    return held(name, holder === undefined ? [] : [{ owner: holder.owner, remainingMs }], this.#wallMs());
  }

  /** A connection has closed: nobody waits on it any more. */
  disconnect(connection: number): void {
    const closed = refuse("unavailable", "The connection was closed.", { reason: "closed" });
    for (const asker of this.#byConnection.get(connection) ?? []) asker.end(closed);
  }

  /** Ends the calls of a connection under an id that are not granted; returns whether there was one. */
  cancel(connection: number, id: Id): boolean {
    const askers = [...(this.#byConnection.get(connection) ?? [])];
    return askers.filter((asker) => asker.cancel(id)).length > 0;
  }

  /** Ends the asking of everybody. */
  stop(refusal: PawlError): void {
    for (const all of this.#byConnection.values()) for (const asker of all) asker.end(refusal);
  }

  #beginAsking(connection: number, id: Id | undefined): Asker {
    const all = this.#byConnection.get(connection) ?? new Set();
    if (all.size >= MAX_WAITS_PER_CONNECTION) throw TOO_MANY_WAITS;
    const asker = new Asker(id);
    this.#byConnection.set(connection, all.add(asker));
    if (this.#stopped.aborted) asker.end(this.#stopped.reason);
    return asker;
  }

  #endAsking(connection: number, asker: Asker): void {
    const all = this.#byConnection.get(connection);
    all?.delete(asker);
    if (all?.size === 0) this.#byConnection.delete(connection);
  }

  async #untilFirst(line: Line, { first }: Waiting, waitMs: number, asking: AbortSignal): Promise<void> {
    const over = new AbortController();
    const inTime = await Promise.race([
      first.then(() => true),
      pause(waitMs, asking, over.signal).then(() => false),
    ]).finally(() => over.abort());
    if (!inTime) throw this.heldBy(line);
  }
}

function enter(line: Line, asked: AskedFor): Waiting {
  let next: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    next = resolve;
  });
  const entered = { asked, since: elapsed(), first, next };
  line.waiting.push(entered);
  line.waiting[0]?.next();
  return entered;
}

function leave(line: Line, left: Waiting): void {
  line.waiting.splice(line.waiting.indexOf(left), 1);
  line.waiting[0]?.next();
}
