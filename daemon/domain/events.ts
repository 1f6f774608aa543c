import type { MethodName, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_SUBSCRIPTIONS } from "@pawl/protocol/limits";
import { RawJson } from "../json/raw-json.js";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import { eventsKey, type Journal, Topics } from "../turns/journal.js";
import { type Env, type Outcome, Wait } from "../turns/operation.js";

/** The subscriptions of all connections. */
export interface Subscriptions {
  count(connection: number): number;
  /** Makes an id within a connection, which is told from the next turn of the event loop on, so after the answer. */
  nextId(connection: number): string;
  /** @param restarted true of one that followed an earlier life of the daemon: it is told first that this one began. */
  add(connection: number, id: string, topics: Topics, since: number, restarted: boolean): void;
  remove(connection: number, id: string): void;
  has(connection: number, id: string): boolean;
}

/** @param journal undefined in a daemon that only reads: another one performs what it would tell of. */
export function eventsHandlers(
  journal: Journal | undefined,
  subscriptions: Subscriptions,
): HandlersOf<"events"> {
  if (journal === undefined) {
    return {
      watch: () => onlyReads("events.watch"),
      subscribe: () => onlyReads("events.subscribe"),
      unsubscribe: () => onlyReads("events.unsubscribe"),
    };
  }
  return {
    watch: (params, env) => watch(params, env, journal),
    subscribe: (params, env) => subscribe(params, env, journal, subscriptions),
    unsubscribe: (params, env) => unsubscribe(params, env, subscriptions),
  };
}

function* onlyReads(method: MethodName): Operation<PawlError> {
  return refuse("read_only", "This daemon only reads. Follow events at the one that writes the database.", {
    method,
  });
}

/** What is told of the daemon itself. */
const DAEMON = { noun: "daemon", name: "" } as const;

/** True for one who followed the daemon in a life before this: it is told that this one has started. */
function hasRestarted(since: string | undefined, topics: Topics, journal: Journal): boolean {
  return since !== undefined && journal.isOfAnotherLife(since) && topics.fit(DAEMON);
}

/** A call of `events.watch` that may wait: the same over all its tries. */
interface Search {
  readonly topics: Topics;
  /** The number behind which it looks. */
  from: number;
}

const searches = new WeakMap<object, Search>();

function* watch(
  params: Parsed<"events.watch">,
  env: Env,
  journal: Journal,
): Operation<Outcome<Result<"events.watch">>> {
  journal.keep();
  const { since, limit } = params;
  const { last } = journal;
  let search = searches.get(params);
  if (search === undefined) {
    const from = since === undefined ? last : journal.numberOf(since);
    const topics = new Topics(params.topics);
    if (from === undefined) {
      const started = hasRestarted(since, topics, journal) ? [new RawJson(journal.startedText(last))] : [];
      return { events: started as never, cursor: journal.cursor(last), gap: true };
    }
    search = { topics, from };
    searches.set(params, search);
  }
  // A turn that was rolled back has given its numbers back.
  search.from = Math.min(search.from, last);
  const { events, next, gap } = journal.read(search.topics, search.from, limit);
  if (events.length === 0 && !gap && env.mayWait) {
    journal.isWatched = true;
    // Events of the turn under way may still be forgotten, and others get their numbers.
    search.from = Math.max(search.from, journal.lastCommitted);
    return new Wait(eventsKey(search.topics.only), `${search.from} ${params.topics.join(" ")}`);
  }
  const shown = events.map((event) => new RawJson(journal.textOf(event)));
  return { events: shown as never, cursor: journal.cursor(next), gap };
}

function* subscribe(
  { topics, since }: Parsed<"events.subscribe">,
  env: Env,
  journal: Journal,
  subscriptions: Subscriptions,
): Operation<Outcome<Result<"events.subscribe">>> {
  const { connection } = env.caller;
  if (subscriptions.count(connection) >= MAX_SUBSCRIPTIONS) {
    return refuse(
      "exhausted",
      `This connection has ${MAX_SUBSCRIPTIONS} subscriptions. End one, or give one of them more topics.`,
      { limit: MAX_SUBSCRIPTIONS },
    );
  }
  journal.keep();
  const wanted = new Topics(topics);
  const { last } = journal;
  const from = since === undefined ? last : journal.numberOf(since);
  const gap = from === undefined || journal.read(wanted, from, 1).gap;
  const begin = gap ? last : from;
  const subscriptionId = subscriptions.nextId(connection);
  const restarted = hasRestarted(since, wanted, journal);
  env.effects.afterCommit(() => subscriptions.add(connection, subscriptionId, wanted, begin, restarted));
  return { subscriptionId, cursor: journal.cursor(begin), gap };
}

function* unsubscribe(
  { subscriptionId }: Parsed<"events.unsubscribe">,
  env: Env,
  subscriptions: Subscriptions,
): Operation<Result<"events.unsubscribe">> {
  const { connection } = env.caller;
  const unsubscribed = subscriptions.has(connection, subscriptionId);
  if (unsubscribed) env.effects.afterCommit(() => subscriptions.remove(connection, subscriptionId));
  return { unsubscribed };
}
