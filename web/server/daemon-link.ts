// The room of the server: one connection to the daemon, and what browsers are given of it.
import { setTimeout as delay } from "node:timers/promises";
import type { Followers } from "./followers.js";
import { type HappenedEvent, History } from "./history.js";

/** As much of a client as the page needs. */
export interface DaemonClient {
  callForText(
    method: string,
    params?: Record<string, unknown>,
    options?: { signal?: AbortSignal },
  ): Promise<{ result: unknown; text: string }>;
  close(): void;
}

interface EventPage {
  readonly events: HappenedEvent[];
  readonly cursor: string;
  readonly gap: boolean;
}

interface Info {
  readonly instance: string;
  readonly readOnly: boolean;
  readonly canWrite: boolean;
}

/** What pages are told of the daemon. */
export interface LinkState {
  readonly up: boolean;
  /** Why it is not up, in a sentence. */
  readonly why?: string;
  readonly instance?: string;
  /** True if nothing can be changed from here. */
  readonly readOnly: boolean;
}

const TOPICS = ["*"];
const EVENTS_PER_CALL = 1000;
/** An idle daemon is asked again so often; it answers sooner when something happens. */
const WAIT_MS = 600_000;
/** What happens within so long is told to pages at once, and asked of the daemon in one call. */
const GATHER_MS = 200;
/** If one call cannot bring all events, pages read their lists anew, at most once in this time. */
const OVERFLOW_MS = 1000;
/** A daemon that only reads tells of no events. */
const READ_ONLY_RELIST_MS = 5000;
const MIN_RETRY_MS = 100;
const MAX_RETRY_MS = 2000;
const SAMPLE_MS = 2000;
const MOST_TOPICS = 200;
const MOST_EVENTS = 100;

/** One connection to the daemon for all pages, made when it is first needed and again when it was lost. */
export class DaemonLink<C extends DaemonClient = DaemonClient> {
  readonly history = new History();
  /** What happened last, for a page that is opened later. */
  readonly recent: HappenedEvent[] = [];
  readonly #connect: () => Promise<C>;
  readonly #followers: Followers;
  readonly #readOnly: boolean;
  #client: Promise<C> | undefined;
  #state: LinkState;
  #following: AbortController | undefined;
  #sampler: NodeJS.Timeout | undefined;

  constructor(connect: () => Promise<C>, followers: Followers, readOnly: boolean) {
    this.#connect = connect;
    this.#followers = followers;
    this.#readOnly = readOnly;
    this.#state = { up: false, why: "Connecting to the daemon.", readOnly };
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Calls a method and resolves with the JSON text of its result, as the daemon sent it. */
  async call(method: string, params: Record<string, unknown>, signal?: AbortSignal): Promise<string> {
    const options = signal === undefined ? {} : { signal };
    return await this.use(async (client) => (await client.callForText(method, params, options)).text);
  }

  /** Does something with the client. Rejects with `ConnectionLost` where there is no daemon. */
  async use<T>(ask: (client: C) => Promise<T>): Promise<T> {
    this.#client ??= this.#connect();
    const asked = this.#client;
    try {
      return await ask(await asked);
    } catch (error) {
      if (isLost(error)) this.#drop(asked);
      throw error;
    }
  }

  /** Begins to follow events, when the first page is there. */
  follow(): void {
    if (this.#following !== undefined) return;
    this.#following = new AbortController();
    void this.#followWhile(this.#following.signal);
    this.#sampler = setInterval(() => void this.#sample(), SAMPLE_MS);
  }

  /** Follows no more: the daemon keeps nothing for a page that nobody looks at. */
  unfollow(): void {
    this.#following?.abort();
    this.#following = undefined;
    clearInterval(this.#sampler);
  }

  close(): void {
    this.unfollow();
    this.#client?.then(
      (client) => client.close(),
      () => {},
    );
    this.#client = undefined;
  }

  #drop(lost: Promise<C>): void {
    if (this.#client === lost) this.#client = undefined;
    lost.then(
      (client) => client.close(),
      () => {},
    );
  }

  async #followWhile(signal: AbortSignal): Promise<void> {
    let pauseMs = MIN_RETRY_MS;
    while (!signal.aborted) {
      try {
        const info = JSON.parse(await this.call("daemon.info", {}, signal)) as Info;
        pauseMs = MIN_RETRY_MS;
        await (info.readOnly ? this.#relist(info, signal) : this.#followEvents(info, signal));
      } catch (error) {
        if (signal.aborted) return;
        this.#tell({ up: false, why: (error as Error).message, readOnly: this.#readOnly });
        await delay(pauseMs, undefined, { signal }).catch(() => {});
        pauseMs = Math.min(pauseMs * 2, MAX_RETRY_MS);
      }
    }
  }

  #isUp({ instance, canWrite }: Info): void {
    this.#tell({ up: true, instance, readOnly: this.#readOnly || !canWrite });
    this.#followers.send("change", { topics: null, events: [] });
  }

  #tell(state: LinkState): void {
    if (JSON.stringify(state) === JSON.stringify(this.#state)) return;
    this.#state = state;
    this.#followers.send("state", state);
  }

  async #relist(info: Info, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.call("daemon.ping", {}, signal);
      this.#isUp(info);
      await delay(READ_ONLY_RELIST_MS, undefined, { signal });
    }
  }

  async #followEvents(info: Info, signal: AbortSignal): Promise<void> {
    let cursor: string | undefined;
    while (!signal.aborted) {
      const place = cursor === undefined ? {} : { since: cursor, waitMs: WAIT_MS };
      const params = { topics: TOPICS, limit: EVENTS_PER_CALL, ...place };
      const page = JSON.parse(await this.call("events.watch", params, signal)) as EventPage;
      const missed = page.gap || page.events.length === EVENTS_PER_CALL;
      if (cursor === undefined) this.#isUp(info);
      else if (missed || page.events.length > 0) this.#changed(page.events, missed);
      // What is too much to be told is skipped, so that following costs the daemon the same at any rate.
      const skipped = missed && cursor !== undefined;
      cursor = skipped ? undefined : page.cursor;
      if (page.events.length > 0) {
        this.history.count(page.events);
        await delay(skipped ? OVERFLOW_MS : GATHER_MS, undefined, { signal });
      }
    }
  }

  #changed(events: readonly HappenedEvent[], all: boolean): void {
    const topics = new Set(events.map(({ topic }) => topic));
    this.recent.push(...events.slice(-MOST_EVENTS));
    this.recent.splice(0, this.recent.length - MOST_EVENTS);
    this.#followers.send("change", {
      topics: all || topics.size > MOST_TOPICS ? null : [...topics],
      events: events.slice(-MOST_EVENTS),
    });
  }

  async #sample(): Promise<void> {
    if (!this.#state.up) return;
    try {
      if (this.history.wantsDepths) this.history.depths(JSON.parse(await this.call("daemon.stats", {})));
      this.#followers.send("sample", this.history.sample(Date.now()));
    } catch {
      // The loop that follows says so.
    }
  }
}

/** True if the connection is gone, and another may be better. */
export function isLost(error: unknown): boolean {
  return (error as Error | undefined)?.name === "ConnectionLost";
}
