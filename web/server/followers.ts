import type { ServerResponse } from "node:http";

/** Pages that may be open at once. */
const MOST_FOLLOWERS = 64;
/** A page that has so much unread is told nothing more until it has read that. */
const MOST_UNREAD_BYTES = 128 * 1024;
/** It is given up when it has not read for so long. */
const MOST_BEHIND_MS = 60_000;
/** A line now and then shows that the other end is there. */
const SIGN_OF_LIFE_MS = 15_000;

interface Follower {
  /** When it stopped reading, by the clock of the process; undefined while it reads. */
  behindSince: number | undefined;
}

/** The pages that follow, by server-sent events. None slows another, and none has much kept for it. */
export class Followers {
  readonly #pages = new Map<ServerResponse, Follower>();
  readonly #changed: (open: number) => void;
  readonly #signs: NodeJS.Timeout;

  /** @param changed told how many are open, each time that one comes or goes. */
  constructor(changed: (open: number) => void) {
    this.#changed = changed;
    this.#signs = setInterval(() => this.#signOfLife(), SIGN_OF_LIFE_MS);
    this.#signs.unref();
  }

  get full(): boolean {
    return this.#pages.size >= MOST_FOLLOWERS;
  }

  add(response: ServerResponse): void {
    this.#pages.set(response, { behindSince: undefined });
    response.once("close", () => {
      this.#pages.delete(response);
      this.#changed(this.#pages.size);
    });
    response.on("drain", () => this.#goesOn(response));
    this.#changed(this.#pages.size);
  }

  /** Tells all pages; one that does not read hears `change` of everything when it does. */
  send(event: string, data: unknown): void {
    const text = message(event, data);
    for (const [response, follower] of this.#pages) {
      if (follower.behindSince !== undefined) continue;
      response.write(text);
      if (response.writableLength > MOST_UNREAD_BYTES) follower.behindSince = performance.now();
    }
  }

  close(): void {
    clearInterval(this.#signs);
    for (const response of this.#pages.keys()) response.destroy();
  }

  #goesOn(response: ServerResponse): void {
    const follower = this.#pages.get(response);
    if (follower?.behindSince === undefined) return;
    follower.behindSince = undefined;
    response.write(message("change", { topics: null, events: [] }));
  }

  #signOfLife(): void {
    const now = performance.now();
    for (const [response, { behindSince }] of this.#pages) {
      if (behindSince === undefined) response.write(":\n\n");
      else if (now - behindSince > MOST_BEHIND_MS) response.destroy();
    }
  }
}

export function message(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
