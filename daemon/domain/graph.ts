// Who waits for whom: the holders of all nouns, the calls that wait, and what a process has to do with.
import type { Parsed, Result } from "@pawl/protocol";
import { MAX_CIRCLE_WAITS, MAX_GRAPH_ROWS } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../store/statement.js";
import type { Env, WaitingCall } from "../turns/operation.js";
import { actorOf, type HolderColumns, type Search, type Thing } from "./deadlock/holders.js";
import { needsOfChildren, newSearch, type WaitForOthers } from "./deadlock/untangle.js";
import type { WaitingElsewhere } from "./lease/holder.js";
import { TAKEN as TAKEN_LEASE } from "./lease/row.js";
import { TAKEN as TAKEN_RESERVATION } from "./path/row.js";

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
const selectClaims = sql<{ queue: string; key: string | null; owner: string; pid: number | null }>(`
  SELECT queue, key, owner, pid FROM pawl_batch CROSS JOIN pawl_queue
  WHERE expires_at IS NOT NULL AND expires_at > :now AND pawl_queue.queue_id = pawl_batch.queue_id
  ORDER BY expires_at LIMIT :rows`);
const selectDeliveries = sql<{ id: string; owner: string | null; pid: number | null; at: number | null }>(`
  SELECT command_id AS id, lease_owner AS owner, lease_pid AS pid, dispatched_at AS at FROM pawl_command
  WHERE lease_expires_at IS NOT NULL AND lease_expires_at > :now ORDER BY lease_expires_at LIMIT :rows`);
const selectQueueOf = sql<{ queue: string }>(`
  SELECT queue FROM pawl_batch CROSS JOIN pawl_queue
  WHERE enqueue_seq = :seq AND pawl_queue.queue_id = pawl_batch.queue_id`);

/** Things that those who wait need, all together, and that are shown: of each that waits beyond, the first. */
const MAX_SHOWN_NEEDS = 4096;
/** Patterns of one reservation that are shown. */
const MAX_SHOWN_PATTERNS = 64;

export function* graph(
  { pid }: Parsed<"daemon.graph">,
  env: Env,
  elsewhere: readonly WaitingElsewhere[],
): Operation<Result<"daemon.graph">> {
  const found = new Found();
  yield* findWaits(found, env);
  findElsewhere(found, elsewhere);
  yield* findHolders(found, env);
  const { nodes, edges } = pid === undefined ? found : found.about(pid);
  return { nodes: [...nodes.values()], edges: [...edges.values()], ...(found.more ? { more: true } : {}) };
}

/** Nodes and edges, each once. */
class Found {
  readonly nodes = new Map<string, Node>();
  readonly edges = new Map<string, Edge>();
  /** The node of a process whose start is not known: of the first of that number that was found. */
  readonly #byPid = new Map<number, string>();
  more = false;

  /** @param actor as `actorOf` names it; undefined where that is not known. */
  process(
    pid: number | null,
    actor: string | undefined,
    { owner, task = null }: { owner?: string | null; task?: string | null } = {},
  ): string | undefined {
    if (actor === undefined && pid === null) return undefined;
    const id = `process:${actor ?? this.#byPid.get(pid as number) ?? pid}`;
    const known = this.nodes.get(id);
    const label = known?.owner ?? owner ?? undefined;
    this.nodes.set(id, {
      id,
      kind: "process",
      pid,
      ...(label === undefined ? {} : { owner: label }),
      ...(task === null ? {} : { task }),
    });
    if (pid !== null && actor !== undefined && task === null) this.#byPid.set(pid, actor);
    return id;
  }

  thing(node: Node): string {
    if (!this.nodes.has(node.id)) this.nodes.set(node.id, node);
    return node.id;
  }

  edge(from: string | undefined, to: string, what: Edge["what"], sinceMs: number | null): void {
    if (from === undefined) return;
    const key = `${what} ${from} ${to}`;
    const known = this.edges.get(key);
    if (known === undefined) this.edges.set(key, { from, to, what, sinceMs });
    else if (sinceMs !== null && sinceMs > (known.sinceMs ?? 0)) known.sinceMs = sinceMs;
  }

  /** What a process waits for, be it by others, and who waits for it so. */
  about(pid: number): Pick<Found, "nodes" | "edges"> {
    const own = [...this.nodes.values()].filter((node) => node.pid === pid).map(({ id }) => id);
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
    const [from, to] = [groupedBy(this.edges.values(), "from"), groupedBy(this.edges.values(), "to")];
    // What it waits for, and who holds that; and what it holds, and who waits for that.
    follow((id) => [
      ...(from.get(id) ?? []).filter(({ what }) => what === "waits"),
      ...(to.get(id) ?? []).filter(({ what }) => what === "holds"),
    ]);
    follow((id) => [
      ...(from.get(id) ?? []).filter(({ what }) => what === "holds"),
      ...(to.get(id) ?? []).filter(({ what }) => what === "waits"),
    ]);
    const nodes = new Map<string, Node>();
    for (const id of [...own, ...[...edges].flatMap((edge) => [edge.from, edge.to])])
      nodes.set(id, this.nodes.get(id) as Node);
    return { nodes, edges: new Map([...edges].map((edge, index) => [String(index), edge])) };
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

function* findWaits(found: Found, env: Env): Operation<void> {
  const waiting = env.contenders.everyone(MAX_GRAPH_ROWS + 1);
  if (waiting.length > MAX_GRAPH_ROWS) found.more = true;
  const search = newSearch(env);
  let left = MAX_SHOWN_NEEDS;
  for (const [index, call] of waiting.slice(0, MAX_GRAPH_ROWS).entries()) {
    const { caller, contender, since } = call;
    const wait = contender?.contest as WaitForOthers | undefined;
    const actor = wait?.actor ?? actorOf(caller.pid, caller.startTicks ?? null, caller.connection, null);
    const process = found.process(caller.pid, actor, wait?.party);
    const sinceMs = env.now - since;
    const isLookedAt = index < MAX_CIRCLE_WAITS && left > 0;
    const things = wait === undefined ? [] : yield* thingsOf(call, wait, isLookedAt, search);
    left -= things.length;
    if (left <= 0) found.more = true;
    for (const thing of things) found.edge(process, found.thing(nodeOf(thing)), "waits", sinceMs);
    if (wait !== undefined) continue;
    for (const key of call.keys) {
      const node = yield* nodeOfKey(key);
      if (node !== undefined) found.edge(process, found.thing(node), "waits", sinceMs);
    }
  }
  yield* findChildren(found, waiting, search);
}

function findElsewhere(found: Found, elsewhere: readonly WaitingElsewhere[]): void {
  if (elsewhere.length > MAX_GRAPH_ROWS) found.more = true;
  for (const { name, caller, owner, task, sinceMs } of elsewhere.slice(0, MAX_GRAPH_ROWS)) {
    const actor = actorOf(caller.pid, caller.startTicks ?? null, caller.connection, task);
    const to = found.thing(nodeOf({ kind: "lease", name }));
    found.edge(found.process(caller.pid, actor, { owner, task }), to, "waits", Math.floor(sinceMs));
  }
}

/** What a call waits for: what others hold, or where only others come before it, what it wants. */
function* thingsOf(
  { contender }: WaitingCall,
  wait: WaitForOthers,
  isLookedAt: boolean,
  search: Search,
): Operation<Thing[]> {
  if (!isLookedAt || contender === undefined) return [wait.thing];
  const things = (yield* wait.needs(search)).map(({ about }) => about);
  return things.length === 0 ? [wait.thing] : things;
}

/** Holders that wait for their child processes. */
function* findChildren(found: Found, waiting: readonly WaitingCall[], search: Search): Operation<void> {
  const sinceOf = new Map(waiting.map(({ contender, since }) => [contender?.contest.actor, since]));
  for (const [actor, party] of [...search.parties]) {
    for (const { held } of yield* needsOfChildren(actor, search)) {
      for (const child of held.keys()) {
        const from = found.process(party.pid, actor, party);
        const to = found.process(search.parties.get(child)?.pid ?? null, child, search.parties.get(child));
        const since = sinceOf.get(child);
        if (to !== undefined)
          found.edge(from, to, "waits", since === undefined ? null : search.env.now - since);
      }
    }
  }
}

function nodeOf(thing: Thing): Node {
  if (thing.kind === "lease") return { id: `lease:${thing.name}`, kind: "lease", name: thing.name };
  if (thing.kind === "path") return pathNode(thing.root, thing.pattern);
  return { id: `process:${thing.pid}`, kind: "process", pid: thing.pid };
}

function pathNode(root: string, pattern: string): Node {
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

function* findHolders(found: Found, env: Env): Operation<void> {
  // The turn keeps counts of queues in memory; the batches themselves are in their table.
  const params = { now: env.now, rows: MAX_GRAPH_ROWS + 1 };
  const first = <Row>(rows: Row[]): Row[] => {
    if (rows.length > MAX_GRAPH_ROWS) found.more = true;
    return rows.slice(0, MAX_GRAPH_ROWS);
  };
  const sinceWall = (at: number): number => Math.max(0, env.wallMs - at);
  const holder = (row: HolderColumns): string | undefined =>
    found.process(row.pid, actorOf(row.pid, row.start_ticks, row.connection, row.task), row);

  for (const row of first(yield* all(selectLeases, params))) {
    const to = found.thing(nodeOf({ kind: "lease", name: row.name }));
    found.edge(holder(row), to, "holds", sinceWall(row.acquired_at));
  }
  for (const row of first(yield* all(selectReservations, params))) {
    for (const { pattern } of yield* all(selectPatterns, { number: row.number, rows: MAX_SHOWN_PATTERNS })) {
      found.edge(holder(row), found.thing(pathNode(row.root, pattern)), "holds", sinceWall(row.acquired_at));
    }
  }
  for (const { queue, key, owner, pid } of first(yield* all(selectClaims, params))) {
    const process = found.process(pid, undefined, { owner });
    found.edge(process, found.thing({ id: `queue:${queue}`, kind: "queue", name: queue }), "holds", null);
    if (key === null) continue;
    const node = { id: `key:${queue} ${key}`, kind: "key", queue, name: key } as const;
    found.edge(process, found.thing(node), "holds", null);
  }
  for (const { id, owner, pid, at } of first(yield* all(selectDeliveries, params))) {
    const process = found.process(pid, undefined, { owner });
    const node = { id: `command:${id}`, kind: "command", name: id } as const;
    found.edge(process, found.thing(node), "holds", at === null ? null : sinceWall(at));
  }
}
