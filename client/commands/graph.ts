import { isAbsolute, join, relative } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { noItem } from "./item.js";
import { placeOf, root } from "./path.js";
import { BATCH_ID, isThere, noQueue, sentencesOf as sentencesOfQueue } from "./queue.js";

type Graph = Result<"daemon.graph">;
type Node = Graph["nodes"][number];
type Edge = Graph["edges"][number];

/** The things that `pawl why` takes before a name. */
const NOUNS = ["lease", "queue", "command", "path", "item"] as const;

const graph = command({
  args: "",
  summary: "Show who waits for whom",
  options: {
    pid: { type: "number", value: "PID", describe: "Only what has to do with this process" },
    dot: { type: "flag", describe: "As a graph for Graphviz and others that read its language" },
  },
  details:
    "Each tree begins with something that is held: below it who holds it, and who waits for it, the longest first; below each of those what it holds itself, if somebody waits for that. A process that waits for its child stands below that.",
  examples: [
    ["pawl graph", "A tree in the terminal"],
    ["pawl graph --dot | dot -Tsvg > graph.svg", "A picture"],
    ["pawl graph --pid 4711 --json | jq -r '.edges[] | select(.what == \"waits\") | .to'", "Its waits"],
  ],
  async run({ pid, dot }, { connect, output }) {
    const found = await graphOf(await connect(), output, pid);
    output.result(found, () => {
      if (dot) return dotOf(found);
      if (found.edges.length === 0) output.note("Nothing is held, and nobody waits.");
      return treeOf(found).map(printable);
    });
    return undefined;
  },
});

/** The graph of all, or of what has to do with a process; says what could not be looked at. */
async function graphOf(client: PawlClient, output: Output, pid?: number): Promise<Graph> {
  const found = await client.daemon.graph(pid === undefined ? {} : { pid });
  for (const place of found.away ?? [])
    output.note(`What is held in ${place} is missing: it cannot be reached.`);
  if (found.more) output.note("There is more than this.");
  return found;
}

/** Each thing that is held or waited for, with its holders and those who wait for it, and what waits for those. */
function treeOf(found: Graph): string[] {
  const view = new View(found);
  const lines: string[] = [];
  const things = found.nodes.filter(({ kind }) => kind !== "process");
  // What a process that waits holds is shown below that wait.
  const isBelow = ({ id }: Node): boolean =>
    view.holders(id).length > 0 && view.holders(id).every(({ from }) => view.waitsOf(from).length > 0);
  const roots = things.filter((thing) => !isBelow(thing));
  const shown = new Set<string>();
  const show = (thing: Node, depth: number): void => {
    const indent = "   ".repeat(depth);
    lines.push(`${indent}${nameOf(thing)}${shown.has(thing.id) ? " (see above)" : ""}`);
    if (shown.has(thing.id)) return;
    shown.add(thing.id);
    const [holders, waiters] = [view.holders(thing.id), view.waiters(thing.id)];
    for (const { from, sinceMs } of holders)
      lines.push(`${indent}├─ held by ${nameOf(view.node(from))}${forSince(sinceMs)}`);
    for (const { from, sinceMs } of waiters) {
      lines.push(`${indent}├─ wanted by ${nameOf(view.node(from))}${forSince(sinceMs)}`);
      for (const { to } of view.holdsOf(from)) show(view.node(to), depth + 1);
    }
  };
  for (const root of roots) show(root, 0);
  // Circles have no beginning.
  for (const thing of things) if (!shown.has(thing.id)) show(thing, 0);
  for (const { from, to, sinceMs } of view.childWaits)
    lines.push(
      `${nameOf(view.node(from))} waits for its child, ${nameOf(view.node(to))}${forSince(sinceMs)}`,
    );
  return lines;
}

/** A graph, by the ends of its edges; of several edges the longest is the first. */
class View {
  readonly #nodes: ReadonlyMap<string, Node>;
  readonly #edges: readonly Edge[];

  constructor({ nodes, edges }: Graph) {
    this.#nodes = new Map(nodes.map((node) => [node.id, node]));
    this.#edges = [...edges].sort((one, other) => (other.sinceMs ?? 0) - (one.sinceMs ?? 0));
  }

  node(id: string): Node {
    return this.#nodes.get(id) as Node;
  }

  holders(id: string): Edge[] {
    return this.#edges.filter(({ to, what }) => to === id && what === "holds");
  }

  waiters(id: string): Edge[] {
    return this.#edges.filter(({ to, what }) => to === id && what === "waits");
  }

  holdsOf(id: string): Edge[] {
    return this.#edges.filter(({ from, what }) => from === id && what === "holds");
  }

  waitsOf(id: string): Edge[] {
    return this.#edges.filter(({ from, what }) => from === id && what === "waits");
  }

  get childWaits(): Edge[] {
    return this.#edges.filter(({ to, what }) => what === "waits" && this.node(to).kind === "process");
  }
}

/** A node in words, as within a sentence. */
function nameOf({
  kind,
  pid = null,
  owner,
  task,
  name = "",
  queue = "",
  root = "",
  pattern = "",
  daemon,
  host,
}: Node): string {
  switch (kind) {
    case "process": {
      const who = pid === null ? "a process" : `process ${pid}`;
      const where =
        daemon === undefined ? undefined : daemon === null ? "no daemon now" : `daemon ${daemon} at ${host}`;
      const labels = [owner, task === undefined ? undefined : `task ${task}`, where].filter(
        (each) => each !== undefined,
      );
      return labels.length === 0 ? who : `${who} (${labels.join(", ")})`;
    }
    case "key":
      return `key ${JSON.stringify(name)} of queue ${queue}`;
    case "path":
      return `path ${pattern} in ${root}`;
    default:
      return `${kind} ${name}`;
  }
}

function forSince(sinceMs: number | null): string {
  return sinceMs === null ? "" : ` for ${duration(sinceMs)}`;
}

/** The graph in the language of Graphviz. */
function dotOf({ nodes, edges }: Graph): string[] {
  const lines = ["digraph pawl {", "  rankdir=LR;"];
  for (const node of nodes) {
    const shape = node.kind === "process" ? "box" : "ellipse";
    lines.push(`  ${quoted(node.id)} [label=${quoted(nameOf(node))}, shape=${shape}];`);
  }
  for (const { from, to, what, sinceMs } of edges) {
    const label = quoted(sinceMs === null ? what : `${what} ${duration(sinceMs)}`);
    // Whoever waits points at what it waits for, and what is held at its holder: so a circle is one by its arrows.
    if (what === "holds") lines.push(`  ${quoted(to)} -> ${quoted(from)} [label=${label}];`);
    else lines.push(`  ${quoted(from)} -> ${quoted(to)} [label=${label}, style=dashed];`);
  }
  lines.push("}");
  return lines;
}

function quoted(text: string): string {
  return `"${printable(text).replace(/\\/g, "\\\\").replace(/"/g, '\\"')}"`;
}

const why = command({
  args: "<what> [name]",
  summary: "Say why something waits: a process, a lease, paths, a queue, a batch, a command or an item",
  options: { root },
  details:
    "A number is a process. `lease NAME`, `queue NAME`, `command ID`, `path PATH` and `item ID` (of the board) name a thing, and so does a queue or the id of a batch or a command by itself. Where no queue is called so, a name by itself is that of a lease or paths that somebody holds or waits for, or of an item; with --json it is always that of a queue. PATH is a path, of which those are told who have reserved it by whatever pattern, or one of the patterns; it is relative to the directory here, or to --root.",
  examples: [
    ["pawl why 4711", "process 4711 (deploy) waits for lease production for 3 s, held by process 4700 ..."],
    ["pawl why lease production", "Who holds it, and who waits for it"],
    [
      "pawl why qwb:6d1a6f0f4d6f2c1d0c7f4f6a6bd1b7a6c8a55f1b8d3f8e3c1f6f0e7d9a2b4c6e",
      "Why one batch is not claimed",
    ],
    ["pawl why mails", "Nothing in mails can be claimed now: ..."],
    ["pawl why production", "The same as with `lease`, as long as no queue is called so"],
    ["pawl why path src/cart/total.ts", "Who has reserved it, by which pattern, and who waits for that"],
    ["pawl why mails --json | jq .holder", "Who holds its head"],
    ["pawl why item FR-001", "Why an item of the board is not ready"],
  ],
  async run({ what, name, root: tree }, { connect, output }) {
    const noun = NOUNS.find((each) => each === what);
    if (name !== undefined && noun === undefined)
      throw new UsageError(
        `${what} is none of ${NOUNS.join(", ")}. Name a thing as in pawl why lease production.`,
      );
    if (tree !== undefined && noun !== "path") throw new UsageError("--root belongs to pawl why path.");
    const client = await connect();
    if (name === undefined && /^[1-9][0-9]{0,9}$/.test(what)) {
      const found = await graphOf(client, output, Number(what));
      output.result(found, () => sentencesOfProcess(Number(what), found).map(printable));
      return undefined;
    }
    if (noun === "item" && name !== undefined) return await whyItem(name, client, output);
    if (noun === "path" && name !== undefined) return await whyPath(name, tree, client, output);
    if (noun === "command" && name !== undefined) return await whyCommand(name, client, output);
    if (name === undefined && COMMAND_ID.test(what)) return await whyCommand(what, client, output);
    if (name === undefined) return await whyName(what, client, output);
    if (noun === "queue") return await whyQueue(name, client, output);
    const found = await graphOf(client, output);
    const things = found.nodes.filter((node) => node.kind === noun && node.name === name);
    output.result(partOf(found, things), () =>
      sentencesOfThings(`${noun} ${name}`, things, found).map(printable),
    );
    return undefined;
  },
});

/** Things, and who has to do with them. */
function partOf({ edges, away }: Graph, things: readonly Node[]): Pick<Graph, "nodes" | "edges" | "away"> {
  const own = edges.filter(({ to }) => things.some(({ id }) => id === to));
  return { nodes: [...things], edges: own, ...(away === undefined ? {} : { away }) };
}

async function whyQueue(name: string, client: PawlClient, output: Output): Promise<undefined> {
  const found = await explained(name, client);
  const none = !output.json && (await isNone(found, client)) ? [noQueue(name)] : [];
  output.result(found, () => [...none, ...sentencesOfQueue(found).slice(none.length)].map(printable));
  return undefined;
}

type Explained = Result<"queue.explain">;

async function explained(name: string, client: PawlClient): Promise<Explained> {
  return await client.queue.explain(BATCH_ID.test(name) ? { batchId: name } : { queue: name });
}

/** True if there is no such queue. */
async function isNone({ queue, reason, waiting }: Explained, client: PawlClient): Promise<boolean> {
  return reason === "empty" && !waiting && !(await isThere(queue, client));
}

/** A name by itself is that of a queue, or where there is none, of whatever else is called so. */
async function whyName(name: string, client: PawlClient, output: Output): Promise<undefined> {
  const queue = await explained(name, client);
  // A program is answered by the same shape, whatever there is.
  if (output.json || !(await isNone(queue, client))) {
    output.result(queue, () => sentencesOfQueue(queue).map(printable));
    return undefined;
  }
  const [found, item] = await Promise.all([graphOf(client, output), itemOf(name, client)]);
  const [top, place] = placeOf(undefined);
  const things = found.nodes.filter(
    ({ kind, name: own, root: tree, pattern }) =>
      (kind === "lease" && own === name) ||
      (kind === "path" && (pattern === name || (tree === top && pattern === join(place, name)))),
  );
  if (things.length === 0 && item === null) throw nothingCalled(name);
  output.result(partOf(found, things), () => {
    const ofThings = things.length === 0 ? [] : sentencesOfThings(name, things, found);
    return [...ofThings, ...(item === null ? [] : sentencesOfItem(name, item))].map(printable);
  });
  return undefined;
}

/** An item of the board and whether it is ready; null where there is none, and for what cannot be the id of one. */
async function itemOf(storyId: string, client: PawlClient): Promise<Result<"pipeline.read"> | null> {
  try {
    const found = await client.pipeline.read({ storyId });
    return found.item === null ? null : found;
  } catch (error) {
    if (error instanceof PawlError && error.kind === "invalid_params") return null;
    throw error;
  }
}

function nothingCalled(name: string): PawlError {
  return new PawlError(
    "not_found",
    `There is no queue and no item ${JSON.stringify(name)}, and nobody holds a lease or a path of that name, or waits for one. See pawl queues, leases, paths or board, or say what it is: pawl why ${NOUNS.join("|")} NAME.`,
    { what: "queue" },
  );
}

/** Who has reserved a path, by whatever pattern, and who waits for that. */
async function whyPath(
  name: string,
  tree: string | undefined,
  client: PawlClient,
  output: Output,
): Promise<undefined> {
  const [top, place] = placeOf(tree);
  const path = isAbsolute(name) ? relative(top, name) : join(place, name);
  // A pattern fits many paths, and a search for the patterns that meet it is none of the daemon's.
  const isPattern = /[*?[\]{}]|\/$/.test(path);
  const [found, { holders }] = await Promise.all([
    graphOf(client, output),
    isPattern ? { holders: [] } : client.path.check({ root: top, path }),
  ]);
  const fitting = new Set([path, ...holders.map(({ pattern }) => pattern)]);
  const things = found.nodes.filter(
    ({ kind, root: of, pattern = "" }) =>
      kind === "path" && ((of === top && fitting.has(pattern)) || pattern === name),
  );
  // Of more holders than a graph has, some are told of by the check alone.
  const others = holders.filter(({ pattern }) => !things.some((thing) => thing.pattern === pattern));
  output.result({ ...partOf(found, things), holders }, () => {
    const said = others.map(
      ({ owner, pid, pattern }) =>
        `${nameOf({ id: "", kind: "process", pid, owner })} holds path ${pattern} in ${top}.`,
    );
    if (things.length > 0 || said.length === 0) {
      said.push(...sentencesOfThings(isPattern ? `path ${name}` : `path ${path} in ${top}`, things, found));
    }
    // Patterns are compared as texts here.
    if (isPattern && things.length === 0) said[0] += " Other patterns may cover it: see pawl paths.";
    return said.map(printable);
  });
  return undefined;
}

const COMMAND_ID = /^cmd_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Why a command is not answered. */
async function whyCommand(commandId: string, client: PawlClient, output: Output): Promise<undefined> {
  const sent = await client.command.get({ commandId });
  const state = await sentencesOfCommand(sent, client);
  const found = await graphOf(client, output);
  const things = found.nodes.filter(({ kind, name }) => kind === "command" && name === commandId);
  const said = things.length === 0 ? [] : sentencesOfThings(`command ${commandId}`, things, found);
  output.result({ ...partOf(found, things), command: sent }, () => [...state, ...said].map(printable));
  return undefined;
}

/** Why an item of the board is not ready. */
async function whyItem(storyId: string, client: PawlClient, output: Output): Promise<undefined> {
  const found = await client.pipeline.read({ storyId });
  if (found.item === null) throw noItem(storyId);
  output.result(found, () => sentencesOfItem(storyId, found).map(printable));
  return undefined;
}

function sentencesOfItem(storyId: string, { reason, missing, cycle }: Result<"pipeline.read">): string[] {
  const said = [reason ?? `${storyId} is ready: it can be claimed now.`];
  if (missing !== undefined) said.push(`It depends on what does not exist: ${missing.join(", ")}.`);
  if (cycle !== undefined) {
    said.push(`It depends on itself: ${[storyId, ...cycle, storyId].join(" → ")}.`);
  }
  return said;
}

async function sentencesOfCommand(sent: Result<"command.get">, client: PawlClient): Promise<string[]> {
  const { commandId, deployment, state, error, attempt, incarnation } = sent;
  const said = [`command ${commandId} to ${deployment} is ${state}.`];
  if (error !== null) said.push(`It ended with ${error.code}: ${error.message}`);
  if (state === "PENDING_UPLOAD") said.push("Its params have not been sent whole.");
  if (state !== "PENDING") return said;
  const receivers = await receiversOf(deployment, client);
  if (receivers === 0) said.push(`Nobody serves the deployment ${deployment} now.`);
  else if (receivers !== null) {
    said.push(`${plural(receivers, "receiver serves", "receivers serve")} the deployment ${deployment} now.`);
  }
  if (incarnation !== undefined) said.push(`It is for the receiver ${incarnation} alone.`);
  if (attempt > 1) {
    const times = plural(attempt - 1, "delivery", "deliveries");
    said.push(`${times} of it ended without an answer: it may rest before the next.`);
  }
  return said;
}

/** How many receive commands of a deployment now; null if that is not known. */
async function receiversOf(deployment: string, client: PawlClient): Promise<number | null> {
  let after: string | undefined;
  do {
    const page: Result<"deployment.list"> = await client.deployment.list({
      limit: 1000,
      ...(after === undefined ? {} : { after }),
    });
    const found = page.deployments.find((each) => each.deployment === deployment);
    if (found !== undefined) return found.receivers;
    after = page.next;
  } while (after !== undefined);
  return null;
}

/** What a process waits for, who holds that, and what those wait for themselves. */
function sentencesOfProcess(pid: number, found: Graph): string[] {
  const view = new View(found);
  const own = found.nodes.filter((node) => node.kind === "process" && node.pid === pid);
  if (own.length === 0) return [`process ${pid} holds nothing, and waits for nothing.`];
  const said: string[] = [];
  const told = new Set<string>();
  const tell = (process: Node): void => {
    if (told.has(process.id)) return;
    told.add(process.id);
    for (const { to, sinceMs } of view.waitsOf(process.id)) {
      said.push(`${nameOf(process)} waits for ${thingWithHolders(view.node(to), view)}${forSince(sinceMs)}.`);
      const next = view.node(to).kind === "process" ? [view.node(to)] : [];
      for (const each of [...next, ...view.holders(to).map(({ from }) => view.node(from))]) tell(each);
    }
  };
  for (const process of own) tell(process);
  for (const process of own) {
    for (const { to, sinceMs } of view.holdsOf(process.id)) {
      const waiters = view.waiters(to).map(({ from }) => nameOf(view.node(from)));
      const wanted = waiters.length === 0 ? "nobody waits for it" : `${waiters.join(", ")} waits for it`;
      said.push(`${nameOf(process)} holds ${nameOf(view.node(to))}${forSince(sinceMs)}: ${wanted}.`);
    }
  }
  return said;
}

function thingWithHolders(thing: Node, view: View): string {
  if (thing.kind === "process") return `its child, ${nameOf(thing)}`;
  const holders = view.holders(thing.id).map(({ from }) => nameOf(view.node(from)));
  if (holders.length > 0) return `${nameOf(thing)}, held by ${holders.join(" and ")},`;
  return thing.kind === "queue" || thing.kind === "command"
    ? nameOf(thing)
    : `${nameOf(thing)}, which others who came before want,`;
}

/** @param what names the thing where nobody has to do with it. */
function sentencesOfThings(what: string, things: readonly Node[], found: Graph): string[] {
  if (things.length === 0) {
    return [`Nobody holds ${what}, and nobody waits for it.`];
  }
  const view = new View(found);
  const said: string[] = [];
  for (const thing of things) {
    const [holders, waiters] = [view.holders(thing.id), view.waiters(thing.id)];
    if (holders.length === 0) said.push(`Nobody holds ${nameOf(thing)}.`);
    for (const { from, sinceMs } of holders) {
      said.push(`${nameOf(view.node(from))} holds ${nameOf(thing)}${forSince(sinceMs)}.`);
      for (const wait of view.waitsOf(from))
        said.push(
          `${nameOf(view.node(from))} waits for ${thingWithHolders(view.node(wait.to), view)}${forSince(wait.sinceMs)}.`,
        );
    }
    for (const { from, sinceMs } of waiters)
      said.push(`${nameOf(view.node(from))} waits for it${forSince(sinceMs)}.`);
    if (waiters.length === 0) said.push("Nobody waits for it.");
  }
  return said;
}

export const commands = { graph, why };
