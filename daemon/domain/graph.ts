// Who waits for whom: the holders of all nouns, the calls that wait, and what a process has to do with.
import type { Parsed, Result } from "@pawl/protocol";
import { MAX_CIRCLE_WAITS, MAX_GRAPH_ROWS, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { endOf } from "../grants/grant.js";
import { all, type Operation, one, sql } from "../store/statement.js";
import type { Caller, Env, WaitingCall } from "../turns/operation.js";
import { LIVE_COLUMNS, type LiveRow } from "./command/row.js";
import { stateAt } from "./command/state.js";
import { actorOf, type HeldThing, type HolderColumns, type Party, type Search } from "./deadlock/holders.js";
import { needsOfChildren, newSearch, type WaitForOthers } from "./deadlock/untangle.js";
import type { WaitingElsewhere } from "./lease/holder.js";
import { TAKEN as TAKEN_LEASE } from "./lease/row.js";
import { TAKEN as TAKEN_RESERVATION } from "./path/row.js";
import { LEASE_END } from "./queue/row.js";

type Node = Result<"daemon.graph">["nodes"][number];
type Edge = Result<"daemon.graph">["edges"][number];

const HOLDER = "pid, start_ticks, connection, owner, task, acquired_at";
const selectLeases = sql<HolderColumns & { acquired_at: number; name: string }>(
  `SELECT ${HOLDER}, name FROM pawl_lease WHERE ${TAKEN_LEASE} ORDER BY name, fencing_token LIMIT :rows`,
);
const selectReservations = sql<HolderColumns & { acquired_at: number; root: string; number: number }>(`
  SELECT ${HOLDER}, root, number FROM pawl_path_reservation CROSS JOIN pawl_path_root
  WHERE ${TAKEN_RESERVATION} AND pawl_path_root.root_id = pawl_path_reservation.root_id ORDER BY number LIMIT :rows`);
const selectPatterns = sql<{ pattern: string }>(
  "SELECT pattern FROM pawl_path_pattern WHERE number = :number ORDER BY position LIMIT :rows",
);
const selectClaims = sql<ClaimColumns>(`
  SELECT queue, key, owner, pid, holder_connection, claimed_at, expires_at, grace_ends_at
  FROM pawl_batch CROSS JOIN pawl_queue
  WHERE expires_at IS NOT NULL AND expires_at > :now AND pawl_queue.queue_id = pawl_batch.queue_id
  ORDER BY expires_at LIMIT :rows`);
/** Claims that live as long as a lease have no end of their own. */
const selectClaimsUnder = sql<ClaimColumns>(`
  SELECT q.queue, b.key, b.owner, b.pid, b.holder_connection, b.claimed_at, ${LEASE_END} AS expires_at,
    b.grace_ends_at
  FROM pawl_claim_terms t CROSS JOIN pawl_batch b CROSS JOIN pawl_lease l CROSS JOIN pawl_queue q
  WHERE t.lease_name IS NOT NULL AND b.enqueue_seq = t.enqueue_seq AND b.fencing_token = t.fencing_token
    AND b.state = 'claimed' AND b.expires_at IS NULL AND l.name = t.lease_name AND l.fencing_token = t.lease_token
    AND q.queue_id = b.queue_id
  ORDER BY t.lease_name, t.lease_token LIMIT :rows`);
const selectDeliveries = sql<LiveRow & DeliveryColumns>(`
  SELECT ${LIVE_COLUMNS}, lease_owner AS owner, lease_pid AS pid, holder_connection AS connection,
    dispatched_at AS "dispatchedAt" FROM pawl_command
  WHERE state = 'DISPATCHED' ORDER BY seq LIMIT :rows`);
const selectQueueOf = sql<{ queue: string }>(`
  SELECT queue FROM pawl_batch CROSS JOIN pawl_queue
  WHERE enqueue_seq = :seq AND pawl_queue.queue_id = pawl_batch.queue_id`);

/** Things that those who wait need, all together, and that are shown: of each that waits beyond, the first. */
const MAX_SHOWN_NEEDS = 4096;
/** Patterns of one reservation that are shown, and those of all: of each reservation beyond, the first. */
const MAX_SHOWN_PATTERNS = 64;
const MAX_ALL_SHOWN_PATTERNS = 4096;
/** The parts of an answer: of those who wait, and of each kind of holder. What one leaves is the next's. */
const MAX_WAITS_BYTES = MAX_PAGE_BYTES / 2;
const MAX_KIND_BYTES = MAX_PAGE_BYTES / 8;

interface ClaimColumns {
  queue: string;
  key: string | null;
  owner: string;
  pid: number | null;
  holder_connection: number | null;
  /** In elapsed time; null for a claim that an earlier version has made. */
  claimed_at: number | null;
  expires_at: number;
  grace_ends_at: number | null;
}

/** Who holds or waits, as a row or a call tells. */
export interface Who extends Partial<Pick<Party, "owner" | "task">> {
  readonly pid: number | null;
  /** As `actorOf` names it; undefined where that is not known. */
  readonly actor: string | undefined;
  /** Undefined for one of this daemon; 0 or null for one that nobody knows any more. */
  readonly connection?: number | null;
}

/** Whom that is, where several daemons share the rows. */
export interface Recognized {
  /** The actor as this daemon names those of its own machine. */
  readonly actor: string | undefined;
  /** The daemon that has its connection, of another one: its number, null if it has gone; and its host. */
  readonly at?: { readonly daemon: number | null; readonly host?: string };
  /** True if its pid may be that of another machine. */
  readonly isElsewhere: boolean;
}

/** How the holders and the calls that wait are read which have to do with one database. */
export interface GraphSource {
  /** Those who wait for leases that providers keep. */
  readonly elsewhere: readonly WaitingElsewhere[];
  /** A caller of this daemon as rows name it. */
  readonly known: (caller: Caller) => Caller;
  readonly recognize: (who: Who) => Recognized;
}

/** This node's own database, which has nobody of another daemon. */
export function ownSource(elsewhere: readonly WaitingElsewhere[]): GraphSource {
  return { elsewhere, known: (caller) => caller, recognize: ({ actor }) => ({ actor, isElsewhere: false }) };
}

interface DeliveryColumns {
  owner: string;
  pid: number | null;
  connection: number | null;
  dispatchedAt: number;
}

export function* graph(
  { pid }: Parsed<"daemon.graph">,
  env: Env,
  elsewhere: readonly WaitingElsewhere[],
): Operation<Result<"daemon.graph">> {
  const found = new Found();
  yield* find(found, env, ownSource(elsewhere));
  return found.shown(pid);
}

/** Adds who holds what is in one database, and who waits for it here. */
export function* find(found: Found, env: Env, source: GraphSource): Operation<void> {
  found.begin(source);
  yield* findWaits(found, env, source);
  findElsewhere(found, source);
  yield* findHolders(found, env);
}

/** Nodes and edges, each once, and no more than there is room for. */
export class Found {
  readonly #nodes = new Map<string, Node>();
  readonly #edges = new Map<string, Edge>();
  /** The node of a process whose start is not known: of the first of that number that its daemon has. */
  readonly #byPid = new Map<string, string>();
  /** Processes whose pids may be those of another machine. */
  readonly #elsewhere = new Set<string>();
  readonly #databases: number;
  #recognize: GraphSource["recognize"] = ownSource([]).recognize;
  #leftBytes = 0;
  more = false;

  /** @param databases of how many something is found: what they have shares the room. */
  constructor(databases = 1) {
    this.#databases = databases;
  }

  /** What comes next is of another database. */
  begin({ recognize }: GraphSource): void {
    this.#recognize = recognize;
  }

  /** What is found next may take so much, and what was left before. */
  allow(bytes: number): void {
    this.#leftBytes += bytes / this.#databases;
  }

  /** The node of who holds or waits; undefined for one of whom nothing is known. */
  process(who: Who): Node | undefined {
    const { pid, owner, task = null } = who;
    if (who.actor === undefined && pid === null) return undefined;
    const { actor, at, isElsewhere } = this.#recognize(who);
    const number = at === undefined ? `${pid}` : `${pid}@${at.daemon ?? ""}`;
    const id = `process:${actor ?? this.#byPid.get(number) ?? number}`;
    if (pid !== null && actor !== undefined && task === null) this.#byPid.set(number, actor);
    if (isElsewhere) this.#elsewhere.add(id);
    const known = this.#nodes.get(id);
    if (known === undefined)
      return {
        id,
        kind: "process",
        pid,
        ...(owner === undefined ? {} : { owner }),
        ...(task === null ? {} : { task }),
        ...at,
      };
    if (owner !== undefined) known.owner ??= owner;
    return known;
  }

  /** Adds an edge with its ends, if there is room. */
  edge(from: Node | undefined, to: Node, what: Edge["what"], sinceMs: number | null): void {
    if (from === undefined) return;
    const key = `${what} ${from.id} ${to.id}`;
    const known = this.#edges.get(key);
    if (known !== undefined) {
      if (sinceMs !== null && sinceMs >= (known.sinceMs ?? 0)) known.sinceMs = sinceMs;
      return;
    }
    const edge = { from: from.id, to: to.id, what, sinceMs };
    const ends = [from, to].filter(({ id }) => !this.#nodes.has(id));
    const bytes = [edge, ...ends].reduce((sum, each) => sum + Buffer.byteLength(JSON.stringify(each)), 0);
    if (bytes > this.#leftBytes) {
      this.more = true;
      return;
    }
    this.#leftBytes -= bytes;
    this.#edges.set(key, edge);
    for (const end of ends) this.#nodes.set(end.id, end);
  }

  /**
   * The answer.
   *
   * @param pid of the process of this machine that it is about; undefined for all.
   * @param away the databases that could not be asked.
   */
  shown(pid: number | undefined, away: readonly string[] = []): Result<"daemon.graph"> {
    const { nodes, edges } =
      pid === undefined ? { nodes: this.#nodes.values(), edges: this.#edges.values() } : this.#about(pid);
    return {
      nodes: [...nodes],
      edges: [...edges],
      ...(this.more ? { more: true } : {}),
      ...(away.length > 0 ? { away: [...away] } : {}),
    };
  }

  /** What a process waits for, be it by others, and who waits for it so. */
  #about(pid: number): { nodes: Iterable<Node>; edges: Iterable<Edge> } {
    const isOwn = (node: Node): boolean => node.pid === pid && !this.#elsewhere.has(node.id);
    const own = [...this.#nodes.values()].filter(isOwn).map(({ id }) => id);
    const edges = new Set<Edge>();
    const follow = (next: (id: string) => Edge[]): void => {
      const reached = new Set(own);
      for (const id of reached) {
        for (const edge of next(id)) {
          edges.add(edge);
          reached.add(edge.from).add(edge.to);
        }
      }
    };
    const [from, to] = [groupedBy(this.#edges.values(), "from"), groupedBy(this.#edges.values(), "to")];
    // What it waits for, and who holds that; and what it holds, and who waits for that.
    follow((id) => [
      ...(from.get(id) ?? []).filter(({ what }) => what === "waits"),
      ...(to.get(id) ?? []).filter(({ what }) => what === "holds"),
    ]);
    follow((id) => [
      ...(from.get(id) ?? []).filter(({ what }) => what === "holds"),
      ...(to.get(id) ?? []).filter(({ what }) => what === "waits"),
    ]);
    const ids = new Set([...own, ...[...edges].flatMap((edge) => [edge.from, edge.to])]);
    return { nodes: [...ids].map((id) => this.#nodes.get(id) as Node), edges };
  }
}

function groupedBy(edges: Iterable<Edge>, end: "from" | "to"): Map<string, Edge[]> {
  const groups = new Map<string, Edge[]>();
  for (const edge of edges) {
    const group = groups.get(edge[end]);
    if (group === undefined) groups.set(edge[end], [edge]);
    else group.push(edge);
  }
  return groups;
}

function* findWaits(found: Found, env: Env, { known }: GraphSource): Operation<void> {
  found.allow(MAX_WAITS_BYTES);
  const waiting = env.contenders.everyone(MAX_GRAPH_ROWS + 1);
  if (waiting.length > MAX_GRAPH_ROWS) found.more = true;
  const search = newSearch(env);
  let left = MAX_SHOWN_NEEDS;
  for (const [index, call] of waiting.slice(0, MAX_GRAPH_ROWS).entries()) {
    const { contender, since, keys } = call;
    const { pid, startTicks = null, connection } = known(call.caller);
    const sinceMs = Math.max(0, env.now - since);
    if (contender === undefined) {
      const process = found.process({ pid, actor: actorOf(pid, startTicks, connection, null), connection });
      for (const key of keys) {
        const node = yield* nodeOfKey(key);
        if (node !== undefined) found.edge(process, node, "waits", sinceMs);
      }
      continue;
    }
    const wait = contender.contest as WaitForOthers;
    const process = found.process({ ...wait.party, actor: wait.actor, connection });
    const isLookedAt = index < MAX_CIRCLE_WAITS && left > 0;
    const things = isLookedAt ? yield* thingsOf(wait, search) : [wait.thing];
    left -= things.length;
    if (left <= 0) found.more = true;
    for (const thing of things) found.edge(process, nodeOf(thing), "waits", sinceMs);
  }
  yield* findChildren(found, waiting, search);
}

function findElsewhere(found: Found, { elsewhere }: GraphSource): void {
  if (elsewhere.length > MAX_GRAPH_ROWS) found.more = true;
  for (const { name, caller, owner, task, sinceMs } of elsewhere.slice(0, MAX_GRAPH_ROWS)) {
    const { pid, startTicks = null, connection } = caller;
    const process = found.process({
      pid,
      actor: actorOf(pid, startTicks, connection, task),
      connection,
      owner,
      task,
    });
    found.edge(process, nodeOf({ kind: "lease", name }), "waits", Math.floor(sinceMs));
  }
}

/** What a call waits for: what others hold, or where only others come before it, what it wants. */
function* thingsOf(wait: WaitForOthers, search: Search): Operation<HeldThing[]> {
  const things = (yield* wait.needs(search)).map(({ about }) => about);
  return things.length === 0 ? [wait.thing] : things;
}

/** Holders that wait for their child processes. */
function* findChildren(found: Found, waiting: readonly WaitingCall[], search: Search): Operation<void> {
  const sinceOf = new Map(waiting.map(({ contender, since }) => [contender?.contest.actor, since]));
  for (const [actor, party] of [...search.parties]) {
    for (const { held } of yield* needsOfChildren(actor, search)) {
      for (const child of held.keys()) {
        const to = found.process({ ...(search.parties.get(child) as Party), actor: child }) as Node;
        const since = sinceOf.get(child);
        const sinceMs = since === undefined ? null : Math.max(0, search.env.now - since);
        found.edge(found.process({ ...party, actor }), to, "waits", sinceMs);
      }
    }
  }
}

function nodeOf(thing: HeldThing): Node {
  if (thing.kind === "lease") return { id: `lease:${thing.name}`, kind: "lease", name: thing.name };
  const { root, pattern } = thing;
  return { id: `path:${root} ${pattern}`, kind: "path", root, pattern };
}

/** The thing that a call waits for under a key of a queue or a command; undefined for what is none. */
function* nodeOfKey(key: string): Operation<Node | undefined> {
  const [kind = ""] = key.split(":", 1);
  const name = key.slice(kind.length + 1);
  if (kind === "queue" || kind === "named" || kind === "room") {
    const of = name.endsWith("/") ? `${name}*` : name;
    return { id: `queue:${of}`, kind: "queue", name: of };
  }
  if (kind === "command.final") return { id: `command:${name}`, kind: "command", name };
  if (kind !== "batch") return undefined;
  const queue = (yield* one(selectQueueOf, { seq: Number(name) }))?.queue;
  return queue === undefined ? undefined : { id: `queue:${queue}`, kind: "queue", name: queue };
}

/** Who holds what. The turn keeps counts of queues in memory; the batches themselves are in their table. */
function* findHolders(found: Found, env: Env): Operation<void> {
  const params = { now: env.now, rows: MAX_GRAPH_ROWS + 1 };
  const first = <Row>(rows: Row[]): Row[] => {
    found.allow(MAX_KIND_BYTES);
    if (rows.length > MAX_GRAPH_ROWS) found.more = true;
    return rows.slice(0, MAX_GRAPH_ROWS);
  };
  const sinceWall = (at: number): number => Math.max(0, env.wallMs - at);
  const holder = (row: HolderColumns): Node | undefined =>
    found.process({ ...row, actor: actorOf(row.pid, row.start_ticks, row.connection, row.task) });

  for (const row of first(yield* all(selectLeases, params)))
    found.edge(holder(row), nodeOf({ kind: "lease", name: row.name }), "holds", sinceWall(row.acquired_at));

  let left = MAX_ALL_SHOWN_PATTERNS;
  for (const row of first(yield* all(selectReservations, params))) {
    const rows = Math.max(1, Math.min(MAX_SHOWN_PATTERNS, left));
    const patterns = yield* all(selectPatterns, { number: row.number, rows });
    left -= patterns.length;
    if (left <= 0) found.more = true;
    for (const { pattern } of patterns) {
      const path = nodeOf({ kind: "path", root: row.root, pattern });
      found.edge(holder(row), path, "holds", sinceWall(row.acquired_at));
    }
  }

  const claims = [...(yield* all(selectClaims, params)), ...(yield* all(selectClaimsUnder, params))];
  for (const { queue, key, owner, pid, holder_connection: connection, ...times } of first(claims)) {
    // Its end may have come, and not been seen to yet.
    if (endOf(times.expires_at, times.grace_ends_at) <= env.now) continue;
    const sinceMs = times.claimed_at === null ? null : Math.max(0, env.now - times.claimed_at);
    const process = found.process({ pid, actor: ofConnection(pid, connection), connection, owner });
    found.edge(process, { id: `queue:${queue}`, kind: "queue", name: queue }, "holds", sinceMs);
    if (key === null) continue;
    found.edge(process, { id: `key:${queue} ${key}`, kind: "key", queue, name: key }, "holds", sinceMs);
  }

  for (const row of first(yield* all(selectDeliveries, params))) {
    if (stateAt(row, env).state !== "DISPATCHED") continue;
    const { commandId: id, owner, pid, connection, dispatchedAt } = row;
    const process = found.process({ pid, actor: ofConnection(pid, connection), connection, owner });
    const node = { id: `command:${id}`, kind: "command", name: id } as const;
    found.edge(process, node, "holds", sinceWall(dispatchedAt));
  }
}

/** The actor of a hold of which only the pid, or where there is none the connection, is kept. */
function ofConnection(pid: number | null, connection: number | null): string | undefined {
  return pid === null ? actorOf(null, null, connection ?? 0, null) : undefined;
}
