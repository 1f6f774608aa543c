import type { Event, Methods } from "@pawl/protocol/types";
import type { CallOptions } from "./call.js";
import type { Connection } from "./connection.js";
import { groupOf } from "./method-groups.js";

/** So long one call waits for the next event. */
const WAIT_MS = 600_000;
const EVENTS_PER_CALL = 1000;

/** Events may be missing before this cursor: list again what is followed. */
export interface Gap {
  readonly kind: "gap";
  readonly cursor: string;
}

export interface EventsOptions {
  /** The cursor behind which to begin; from now on by default. */
  since?: string;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

/** The methods of the noun; called itself, it iterates over events. */
export type Events = Methods<CallOptions>["events"] &
  ((topics: readonly string[], options?: EventsOptions) => AsyncIterableIterator<Event | Gap>);

export function eventsOf(connection: Connection): Events {
  const methods = groupOf(connection, "events") as object;
  const follow = (topics: readonly string[], options: EventsOptions = {}) =>
    new Following(connection, topics, options);
  return new Proxy(follow, {
    get: (target, name) =>
      Reflect.has(target, name) ? Reflect.get(target, name) : Reflect.get(methods, name),
  }) as unknown as Events;
}

/** Follows topics over restarts of the daemon; breaking out of the loop ends the wait. */
class Following implements AsyncIterableIterator<Event | Gap> {
  readonly #ending = new AbortController();
  readonly #events: AsyncGenerator<Event | Gap>;

  constructor(connection: Connection, topics: readonly string[], { since, signal }: EventsOptions) {
    const ended = this.#ending.signal;
    const both = signal === undefined ? ended : AbortSignal.any([ended, signal]);
    this.#events = follow(connection, [...topics], since, both);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Event | Gap>> {
    return this.#events.next();
  }

  async return(): Promise<IteratorResult<Event | Gap>> {
    this.#ending.abort();
    return await this.#events.return(undefined);
  }
}

async function* follow(
  connection: Connection,
  topics: string[],
  since: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<Event | Gap> {
  let cursor = since;
  while (!signal.aborted) {
    const place = cursor === undefined ? {} : { since: cursor, waitMs: WAIT_MS };
    try {
      const page = await connection.call(
        "events.watch",
        { topics, limit: EVENTS_PER_CALL, ...place },
        { signal },
      );
      cursor = page.cursor;
      if (page.gap) yield { kind: "gap", cursor };
      yield* page.events;
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
