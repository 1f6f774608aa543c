import { type PawlError, refuse } from "@pawl/protocol/errors";
import { elapsed } from "../clock.js";
import { held, waitKey } from "../domain/lease/row.js";
import { pause } from "./retry.js";

/** The calls that wait for a name, first come first served. */
export interface Line {
  readonly name: string;
  readonly waiting: Waiting[];
  /** The holder of the name when the first of the line asked last; `until` by the clock that `elapsed` reads. */
  holder: { readonly owner: string; readonly until: number } | undefined;
}

interface Waiting {
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
  /** The controllers that end the asking of each connection, if it closes. */
  readonly #byConnection = new Map<number, Set<AbortController>>();

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

  /**
   * Calls `ask` when it is the turn of this call. Without a wait that is now, unless others wait, who come first: then
   * it refuses with `lease_held`, and so it does when the turn has not come within `waitMs`.
   *
   * @param ask gets the line, and a signal that is aborted when the connection closes or the daemon stops.
   */
  async inLine<T>(
    { name, waitMs, connection }: { name: string; waitMs: number; connection: number },
    ask: (line: Line, asking: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const key = waitKey(name);
    const asking = this.#beginAsking(connection);
    const line = this.#lines.get(key) ?? { name, waiting: [], holder: undefined };
    let entered: Waiting | undefined;
    try {
      if (waitMs === 0) {
        if (line.waiting.length > 0) throw this.heldBy(line);
      } else {
        this.#lines.set(key, line);
        entered = enter(line);
        await this.#untilFirst(line, entered, waitMs, asking.signal);
      }
      return await ask(line, asking.signal);
    } finally {
      this.#endAsking(connection, asking);
      if (entered !== undefined) leave(line, entered);
      if (line.waiting.length === 0 && this.#lines.get(key) === line) this.#lines.delete(key);
    }
  }

  /** The refusal of a call that does not get a name. */
  heldBy({ name, holder }: Line): PawlError {
    // While the first in the line has no answer the holder is not known: the name is taken by those who wait.
    const remainingMs = Math.max(0, Math.ceil((holder?.until ?? 0) - elapsed()));
    return held(name, holder?.owner ?? "those who wait for it", remainingMs, this.#wallMs());
  }

  /** A connection has closed: nobody waits on it any more. */
  disconnect(connection: number): void {
    const closed = refuse("unavailable", "The connection was closed.", { reason: "closed" });
    for (const asking of this.#byConnection.get(connection) ?? []) asking.abort(closed);
  }

  /** Ends the asking of everybody. */
  stop(refusal: PawlError): void {
    for (const all of this.#byConnection.values()) for (const asking of all) asking.abort(refusal);
  }

  #beginAsking(connection: number): AbortController {
    const asking = new AbortController();
    const all = this.#byConnection.get(connection) ?? new Set();
    this.#byConnection.set(connection, all.add(asking));
    if (this.#stopped.aborted) asking.abort(this.#stopped.reason);
    return asking;
  }

  #endAsking(connection: number, asking: AbortController): void {
    const all = this.#byConnection.get(connection);
    all?.delete(asking);
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

function enter(line: Line): Waiting {
  let next: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    next = resolve;
  });
  const entered = { first, next };
  line.waiting.push(entered);
  line.waiting[0]?.next();
  return entered;
}

function leave(line: Line, left: Waiting): void {
  line.waiting.splice(line.waiting.indexOf(left), 1);
  line.waiting[0]?.next();
}
