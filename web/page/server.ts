// The room of the browser: everything here runs in the page and speaks to the server that it came from.
import type { MethodName, Params, Result } from "@pawl/protocol/types";
import { useEffect, useRef, useState } from "preact/hooks";

/** What the server tells of the daemon. */
export interface LinkState {
  readonly up: boolean;
  readonly why?: string;
  readonly instance?: string;
  readonly readOnly: boolean;
}

export interface HappenedEvent {
  readonly cursor: string;
  readonly at: number;
  readonly topic: string;
  readonly kind: string;
  readonly id: string;
  readonly by?: string;
  readonly from?: string;
  readonly to?: string;
  readonly reason?: string;
}

/** Two seconds of the daemon. */
export interface Sample {
  readonly at: number;
  readonly enqueued: number;
  readonly completed: number;
  readonly failed: number;
  readonly waiting: number;
  readonly claimed: number;
}

/** Topics about which something has changed; null for all, as after a gap. */
type Change = { readonly topics: readonly string[] | null; readonly events: readonly HappenedEvent[] };

const MOST_EVENTS = 500;
const MOST_SAMPLES = 300;
const REOPEN_MS = 1500;
/** The server is asked again for what changes all the time at most so often. */
const REFRESH_MS = 400;
/** And after twice the time that the last answer took: a daemon that has much to do is asked less. */
const REST_FOR_ANSWER = 2;

/** A refusal of the daemon, or of the server. */
export class CallFailed extends Error {
  readonly kind: string;
  constructor(kind: string, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Calls a method of the daemon. Rejects with `CallFailed`. */
export async function call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>> {
  let response: Response;
  try {
    response = await fetch("/call", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ method, params }),
    });
  } catch {
    throw new CallFailed("unavailable", "pawl web does not answer.");
  }
  const body = await response.json();
  if (!response.ok) throw new CallFailed(body.error?.kind ?? "internal", body.error?.message ?? "No answer.");
  return body as Result<N>;
}

/** A value that components read, and are drawn again when it changes. */
class Live<T> {
  value: T;
  readonly #listeners = new Set<() => void>();
  constructor(value: T) {
    this.value = value;
  }
  set(value: T): void {
    this.value = value;
    for (const listener of this.#listeners) listener();
  }
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export function useLive<T>(live: Live<T>): T {
  const [value, setValue] = useState(live.value);
  useEffect(() => {
    const changed = (): void => setValue(live.value);
    // It may have changed since it was drawn.
    changed();
    return live.listen(changed);
  }, [live]);
  return value;
}

export const link = new Live<LinkState & { readonly server: boolean }>({
  up: true,
  readOnly: true,
  server: true,
});
export const samples = new Live<readonly Sample[]>([]);
export const events = new Live<readonly HappenedEvent[]>([]);
const changes = new Set<(change: Change) => void>();

/** Is told of changes, until the returned function is called. */
export function onChange(listener: (change: Change) => void): () => void {
  changes.add(listener);
  return () => changes.delete(listener);
}

function addEvents(more: readonly HappenedEvent[]): void {
  if (more.length > 0) events.set([...more.toReversed(), ...events.value].slice(0, MOST_EVENTS));
}

/**
 * Listens to the server while somebody can see the page. A browser has six connections to a server, and pages in the
 * background would take them from the one that is looked at.
 */
export function follow(): void {
  let source = document.hidden ? undefined : listen();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) source ??= listen();
    else {
      source?.close();
      source = undefined;
    }
  });
  function listen(): EventSource {
    return openSource(() => setTimeout(listenAgain, REOPEN_MS));
  }
  function listenAgain(): void {
    source = document.hidden ? undefined : listen();
  }
}

/** @param refused told when the browser does not try again by itself. */
function openSource(refused: () => void): EventSource {
  const source = new EventSource("/events");
  const on = <T>(name: string, listener: (data: T) => void): void =>
    source.addEventListener(name, (event) => listener(JSON.parse((event as MessageEvent<string>).data)));
  on<LinkState>("state", (state) => link.set({ ...state, server: true }));
  on<{ samples: Sample[]; events: HappenedEvent[] }>("history", (history) => {
    samples.set(history.samples);
    events.set([]);
    addEvents(history.events);
    // Whatever was asked before may have changed since.
    for (const listener of changes) listener({ topics: null, events: [] });
  });
  on<Sample>("sample", (sample) => samples.set([...samples.value, sample].slice(-MOST_SAMPLES)));
  on<Change>("change", (change) => {
    addEvents(change.events);
    for (const listener of changes) listener(change);
  });
  source.onerror = () => {
    link.set({ ...link.value, server: false });
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    refused();
  };
  return source;
}

export interface Asked<T> {
  /** The last answer, which stays while a newer one is asked for. */
  readonly data: T | undefined;
  readonly error: CallFailed | undefined;
  /** Asks again now. */
  readonly again: () => void;
}

/**
 * Asks something now, and again each time that one of its topics changes: at once, then after a rest.
 *
 * @param key what is asked for; another key is another question.
 * @param topics prefixes of topics: `queue:` is all queues.
 */
export function useAsked<T>(key: string, topics: readonly string[], ask: () => Promise<T>): Asked<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: CallFailed }>({ key });
  const latest = useRef(ask);
  latest.current = ask;
  const again = useRef(() => {});
  useEffect(() => {
    let running = false;
    let wanted = false;
    let ended = false;
    let timer: number | undefined;
    const run = async (): Promise<void> => {
      if (running || timer !== undefined) {
        wanted = true;
        return;
      }
      running = true;
      wanted = false;
      const from = performance.now();
      try {
        const data = await latest.current();
        if (!ended) setState({ key, data });
      } catch (error) {
        // What was shown stays, beside what went wrong.
        if (!ended)
          setState((before) => ({ ...(before.key === key ? before : { key }), error: error as CallFailed }));
      }
      running = false;
      if (ended) return;
      timer = setTimeout(
        () => {
          timer = undefined;
          if (wanted) void run();
        },
        Math.max(REFRESH_MS, REST_FOR_ANSWER * (performance.now() - from)),
      );
    };
    again.current = () => void run();
    void run();
    const stop = onChange((change) => {
      const touched =
        change.topics === null ||
        change.topics.some((topic) => topics.some((prefix) => topic.startsWith(prefix)));
      if (touched) void run();
    });
    return () => {
      ended = true;
      clearTimeout(timer);
      stop();
    };
  }, [key]);
  const current = state.key === key ? state : { key };
  return { data: current.data, error: current.error, again: () => again.current() };
}
