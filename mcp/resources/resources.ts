// The room of resources: what there is to look at, and who is told when it changes.
import {
  type McpServer,
  ProtocolError,
  ProtocolErrorCode,
  ResourceTemplate,
} from "@modelcontextprotocol/server";
import type { LateLink, Link } from "../link.js";
import { SESSION_LEASES } from "../sessions/session-name.js";
import { noteOf } from "../sessions/sessions.js";

const BOARD = "pawl://board";
const AGENTS = "pawl://agents";
const PATHS = "pawl://paths";
const ITEM = "pawl://item/";
const QUEUE = "pawl://queue/";
const PER_STAGE = 50;
const MAX_ROWS = 1000;
const MAX_NOTES = 50;
const MIME = "application/json";

/** How each is read. Resolves with undefined if there is no such thing. */
async function read(link: Link, uri: string): Promise<unknown> {
  if (uri === BOARD) return await link.call("pipeline.list", { perStage: PER_STAGE });
  if (uri === PATHS) return (await link.call("path.list", { limit: MAX_ROWS })).reservations;
  if (uri === AGENTS) {
    const { leases } = await link.call("lease.list", { prefix: SESSION_LEASES, limit: MAX_ROWS });
    return leases.map(({ owner, note, pid, acquiredAt }) => ({
      name: owner,
      acquiredAt,
      pid,
      ...noteOf(note),
    }));
  }
  if (uri.startsWith(ITEM)) {
    const found = await link.call("pipeline.read", { storyId: nameIn(uri, ITEM), notes: MAX_NOTES });
    return found.item === null ? undefined : found;
  }
  if (!uri.startsWith(QUEUE)) return undefined;
  const queue = nameIn(uri, QUEUE);
  const [{ queues }, { batches }, { settings }] = await Promise.all([
    link.call("queue.stats", { queue }),
    link.call("queue.list", { queue, limit: PER_STAGE }),
    link.call("queue.settings", { queue }),
  ]);
  return { queue, stats: queues[0] ?? null, settings, batches };
}

/** The topics of events by which a resource changes. */
function topicsOf(uri: string): readonly string[] {
  if (uri === BOARD) return ["item:*"];
  if (uri === AGENTS) return [`lease:${SESSION_LEASES}*`];
  if (uri === PATHS) return ["path:*"];
  if (uri.startsWith(ITEM)) return [`item:${nameIn(uri, ITEM)}`];
  return uri.startsWith(QUEUE) ? [`queue:${nameIn(uri, QUEUE)}`] : [];
}

function nameIn(uri: string, beginning: string): string {
  return decodeURIComponent(uri.slice(beginning.length));
}

/** Adds the resources to a server. */
export function addResources(server: McpServer, late: LateLink): void {
  const text = async (uri: string) => {
    const value = await read(await late.get(), uri);
    if (value === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `There is no ${uri}.`);
    return { contents: [{ uri, mimeType: MIME, text: JSON.stringify(value) }] };
  };
  const fixed = (name: string, uri: string, title: string, description: string): void => {
    server.registerResource(name, uri, { title, description, mimeType: MIME }, () => text(uri));
  };
  fixed("board", BOARD, "The board", `The first ${PER_STAGE} items of each stage, and how many there are.`);
  fixed("agents", AGENTS, "The agents", "Who is here: name, role, work tree, process.");
  fixed("paths", PATHS, "Reserved paths", "Which files are reserved, by whom and what for.");
  const one = (name: string, template: string, title: string, description: string): void => {
    const listed = new ResourceTemplate(template, { list: undefined });
    server.registerResource(name, listed, { title, description, mimeType: MIME }, (uri) => text(uri.href));
  };
  one("item", `${ITEM}{id}`, "An item", "One item of the board with its notes, and why it is not ready.");
  one("queue", `${QUEUE}{+name}`, "A queue", "Its figures, its settings and its first jobs.");
}

/** Tells of resources that change, those that somebody follows, by the daemon's events. */
export class Following {
  readonly #late: LateLink;
  readonly #changed: (uri: string) => void;
  /** By URI, how many follow it. */
  readonly #followed = new Map<string, number>();
  #watching: AbortController | undefined;
  /** What happened before this place of the daemon's events has been told; undefined while nothing is followed. */
  #told: string | undefined;

  /** @param changed is called with the URI of a resource that has changed. */
  constructor(late: LateLink, changed: (uri: string) => void) {
    this.#late = late;
    this.#changed = changed;
  }

  /** Resolves once nothing that happens from now on is missed. */
  async follow(uris: readonly string[]): Promise<void> {
    for (const uri of uris) this.#followed.set(uri, (this.#followed.get(uri) ?? 0) + 1);
    await this.#watchAnew();
  }

  async unfollow(uris: readonly string[]): Promise<void> {
    for (const uri of uris) {
      const left = (this.#followed.get(uri) ?? 0) - 1;
      if (left > 0) this.#followed.set(uri, left);
      else this.#followed.delete(uri);
    }
    await this.#watchAnew();
  }

  close(): void {
    this.#watching?.abort();
  }

  /** Follows other topics, from the place that the watch before has come to: nothing between the two is missed. */
  async #watchAnew(): Promise<void> {
    this.#watching?.abort();
    const topics = [...new Set([...this.#followed.keys()].flatMap(topicsOf))].slice(0, MAX_TOPICS);
    if (topics.length === 0) {
      this.#told = undefined;
      return;
    }
    const ending = new AbortController();
    this.#watching = ending;
    const link = await this.#late.get();
    if (this.#told === undefined) {
      const { cursor } = await link.call("events.watch", { topics });
      // Of two that begin at the same time the earlier place counts.
      this.#told ??= cursor;
    }
    if (ending.signal.aborted) return;
    void this.#watch(link, topics, ending.signal).catch((error: unknown) => {
      if (!ending.signal.aborted)
        process.stderr.write(`pawl mcp: resources are not followed any more: ${error}\n`);
    });
  }

  async #watch(link: Link, topics: string[], signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const since = this.#told;
      const wanted = { topics, waitMs: WATCH_MS, limit: MAX_ROWS };
      const page = await link.call("events.watch", since === undefined ? wanted : { ...wanted, since }, {
        signal,
      });
      // Another watch has taken this one's place, and tells of it.
      if (signal.aborted) return;
      this.#told = page.cursor;
      const happened = new Set(page.events.map(({ topic }) => topic));
      for (const uri of this.#followed.keys()) {
        if (page.gap || topicsOf(uri).some((topic) => fits(topic, happened))) this.#changed(uri);
      }
    }
  }
}

/** So many topics one call follows. */
const MAX_TOPICS = 64;
const WATCH_MS = 600_000;

function fits(pattern: string, topics: ReadonlySet<string>): boolean {
  if (!pattern.endsWith("*")) return topics.has(pattern);
  const beginning = pattern.slice(0, -1);
  return [...topics].some((topic) => topic.startsWith(beginning));
}
