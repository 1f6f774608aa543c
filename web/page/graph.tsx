import type { Result } from "@pawl/protocol/types";
import { Badge } from "./parts.js";
import { to } from "./route.js";
import { call, useAsked } from "./server.js";
import { duration } from "./wording.js";

type Graph = Result<"daemon.graph">;
type Node = Graph["nodes"][number];
type Edge = Graph["edges"][number];

/** A process that others wait for, what they wait for, and who waits for them in turn. */
interface Held {
  readonly process: Node;
  /** For how long it waits itself, if it does. */
  readonly waitsMs: number | null | undefined;
  readonly things: readonly { readonly thing: Node; readonly waiting: readonly Held[] }[];
}

/** Those who wait for nobody come first; who waits for them stands below them. A circle is entered somewhere. */
function trees({ nodes, edges }: Graph): Held[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const holds = edges.filter(({ what }) => what === "holds");
  const waits = edges.filter(({ what }) => what === "waits");
  const shown = new Set<string>();
  const below = (process: Node, waitsMs: number | null | undefined): Held => {
    shown.add(process.id);
    const wanted = [
      ...holds.filter(({ from }) => from === process.id).map((edge) => edge.to),
      // Who waits for a process itself, waits for a child of it.
      process.id,
    ];
    const things = wanted.flatMap((id) => {
      const waiting = waits
        .filter((edge) => edge.to === id && !shown.has(edge.from))
        .sort((a, b) => (b.sinceMs ?? 0) - (a.sinceMs ?? 0));
      const thing = byId.get(id);
      if (thing === undefined || waiting.length === 0) return [];
      return [{ thing, waiting: waiting.flatMap((edge) => heldOf(edge, byId, below)) }];
    });
    return { process, waitsMs, things };
  };
  const waiters = new Set(waits.map(({ from }) => from));
  const processes = nodes.filter(({ kind }) => kind === "process");
  const first = [...processes.filter(({ id }) => !waiters.has(id)), ...processes];
  return first.flatMap((process) => {
    if (shown.has(process.id)) return [];
    const tree = below(process, undefined);
    return tree.things.length === 0 ? [] : [tree];
  });
}

function heldOf(
  edge: Edge,
  byId: ReadonlyMap<string, Node>,
  below: (process: Node, waitsMs: number | null) => Held,
): Held[] {
  const process = byId.get(edge.from);
  return process === undefined ? [] : [below(process, edge.sinceMs)];
}

/** Who waits for whom, as a picture; nothing where nobody waits. */
export function Graph() {
  const { data } = useAsked("graph", ["lease:", "path:", "queue:", "command:"], () =>
    call("daemon.graph", {}),
  );
  const found = data === undefined ? [] : trees(data);
  if (found.length === 0) return null;
  return (
    <section>
      <h2>Who waits for whom</h2>
      <ul class="graph">
        {found.map((held) => (
          <Process key={held.process.id} held={held} />
        ))}
      </ul>
    </section>
  );
}

function Process({ held: { process, waitsMs, things } }: { held: Held }) {
  const { owner, pid, task, host } = process;
  return (
    <li>
      <span class="graph-process">
        <b>{owner ?? "a process"}</b>
        {pid === null || pid === undefined ? null : <span class="faint"> pid {pid}</span>}
        {task === undefined || task === owner ? null : <span class="faint"> {task}</span>}
        {host === undefined ? null : <span class="faint"> on {host}</span>}{" "}
        {waitsMs === undefined ? null : (
          <Badge tone="warn">waits{waitsMs === null ? "" : ` for ${duration(waitsMs)}`}</Badge>
        )}
      </span>
      {things.map(({ thing, waiting }) => (
        <div key={thing.id} class="graph-thing">
          <span>
            {thing.kind === "process" ? "is waited for by" : "holds"} <Thing of={thing} />
          </span>
          <ul>
            {waiting.map((each) => (
              <Process key={each.process.id} held={each} />
            ))}
          </ul>
        </div>
      ))}
    </li>
  );
}

function Thing({ of: { kind, name = "", queue, root, pattern } }: { of: Node }) {
  switch (kind) {
    case "lease":
      return <a href={to("leases", name)}>{name}</a>;
    case "queue":
      return <a href={to("queues", name)}>{name}</a>;
    case "key":
      return <a href={to("queues", queue ?? "")}>{`${queue}, key ${name}`}</a>;
    case "command":
      return <a href={to("command", name)}>a command</a>;
    case "path":
      return <span class="mono">{`${root}/${pattern}`}</span>;
    default:
      return null;
  }
}
