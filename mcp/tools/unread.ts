import { kindOf } from "../refusal.js";
import { RECEIVERS } from "../sessions/receiver.js";
import type { SessionCall } from "./tool.js";

/** Messages for a name are a queue below this. */
export const INBOXES = "inbox/";
/** More messages than these are not counted. */
const MAX_COUNTED = 50;
const ENDED: readonly string[] = ["SUCCEEDED", "FAILED", "EXPIRED"];
/** So long one look for messages waits: longer than any tool does. */
const LOOK_MS = 60_000;

type Reader = Pick<SessionCall, "session" | "link">;

/** A request of one's own; undefined once it is forgotten, days after its end. */
export async function requestOf({ link }: Pick<SessionCall, "link">, commandId: string) {
  return await link.call("command.get", { commandId }).catch((error: unknown) => {
    if (kindOf(error) !== "not_found") throw error;
    return undefined;
  });
}

export function hasEnded({ state }: { readonly state: string }): boolean {
  return ENDED.includes(state);
}

/**
 * How many messages, requests and answers wait.
 *
 * @param waitedFor a request whose answer is not counted, since somebody waits for it.
 */
export async function unreadOf({ session, link }: Reader, waitedFor?: string): Promise<number> {
  const open = session.open.filter(({ id }) => id !== waitedFor);
  const [{ queues }, { commands }, ...own] = await Promise.all([
    link.call("queue.stats", { queue: INBOXES + session.name }),
    link.call("command.list", { deployment: RECEIVERS + session.name, state: "PENDING", limit: MAX_COUNTED }),
    ...open.map(({ id }) => requestOf({ link }, id)),
  ]);
  const mine = commands.filter(({ incarnation = session.id }) => incarnation === session.id);
  const ended = own.filter((request) => request === undefined || hasEnded(request));
  return (queues[0]?.ready ?? 0) + mine.length + ended.length;
}

/** Resolves once something waits that the agent has not read, which may be so from the start on. */
export async function messageCame(reader: Reader, waitedFor: string | undefined, signal: AbortSignal) {
  const { session, link } = reader;
  const asked = new Set([session.name, ...session.open.map(({ to }) => to)]);
  const topics = [
    `queue:${INBOXES}${session.name}`,
    ...[...asked].map((name) => `command:${RECEIVERS}${name}`),
  ];
  // From here on nothing is missed that comes after the count.
  let { cursor: since } = await link.call("events.watch", { topics }, { signal });
  while ((await unreadOf(reader, waitedFor)) === 0) {
    ({ cursor: since } = await link.call("events.watch", { topics, since, waitMs: LOOK_MS }, { signal }));
    signal.throwIfAborted();
  }
}
