import { createReadStream, existsSync } from "node:fs";
import type { Readable } from "node:stream";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_TRANSACT_CALLS } from "@pawl/protocol/limits";
import type { Mode } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import { command, UsageError } from "../terminal/command.js";
import { count, plural } from "../terminal/quantities.js";
import { type Counter, MAX_SHOWN_PROBLEMS, type NodeId } from "./import/counter.js";

const imports = command({
  args: "",
  patient: () => true,
  summary: "Raise the counters to what was used elsewhere",
  options: {
    toml: {
      type: "text",
      value: "FILE",
      describe: "A table `sequences` of type to last number, with or without `mode`",
    },
    sqlite: {
      type: "text",
      value: "FILE",
      describe: "A table dispenser_sequences(node_id, type_prefix, next_val); next_val is the last number",
    },
    ids: {
      type: "text",
      value: "FILE|-",
      describe: "One id per line, such as FR-017; the highest per type counts",
    },
    "dry-run": { type: "flag", describe: "Say what would be raised, and change nothing" },
  },
  details: `Counters only go up: what is already higher stays as it is, so an import can be repeated. Everything is checked before anything is changed: one bad entry, or one of another node, and nothing is.`,
  examples: [
    ["pawl import --toml dispenser.toml --dry-run", "See what would change"],
    ["pawl import --sqlite board.db", "From the table of another program; it is only read"],
    [
      "git log --format=%s | grep -oE 'FR-[0-9]+' | pawl import --ids -",
      "From every id that was ever mentioned",
    ],
  ],
  async run({ toml, sqlite, ids, "dry-run": dryRun }, { connect, output, stdin }) {
    const counters = highestPerType(await readCounters({ toml, sqlite, ids }, stdin));
    const client = await connect();
    const { mode, sequences } = await client.dispenser().state();
    checkNode(counters, mode);

    const steps = counters.map(({ type, last }) => ({ type, from: sequences[type] ?? 0, to: last }));
    const raising = steps.filter(({ from, to }) => to > from);
    const reached = dryRun ? new Map<string, number>() : await advance(client, raising);
    // Somebody may have taken numbers meanwhile; what the daemon answered is what counts.
    const raised = raising.filter(({ type, to }) => (reached.get(type) ?? to) === to);
    const skipped = steps
      .filter((step) => !raised.includes(step))
      .map(({ type, from, to }) => ({ type, at: reached.get(type) ?? from, given: to }));

    output.result({ raised, skipped, dryRun }, () => {
      const typeWidth = Math.max(0, ...steps.map(({ type }) => type.length));
      return [
        ...raised.map(({ type, from, to }) => `${type.padEnd(typeWidth)}  ${from} -> ${to}`),
        ...skipped.map(({ type, at, given }) =>
          at === given
            ? `${type.padEnd(typeWidth)}  already at ${at}`
            : `${type.padEnd(typeWidth)}  already at ${at}, above ${given}`,
        ),
      ];
    });
    const left =
      skipped.length === 0
        ? ""
        : `, ${count(skipped.length)} left as ${skipped.length === 1 ? "it is" : "they are"}`;
    output.note(`${plural(raised.length, "counter")} ${dryRun ? "would be raised" : "raised"}${left}.`);
    return undefined;
  },
});

interface Sources {
  readonly toml: string | undefined;
  readonly sqlite: string | undefined;
  readonly ids: string | undefined;
}

async function readCounters(from: Sources, stdin: Readable): Promise<Counter[]> {
  const given = Object.values(from).filter((file) => file !== undefined);
  if (given.length !== 1) {
    throw new UsageError("Say where from, by exactly one of --toml FILE, --sqlite FILE and --ids FILE|-.");
  }
  if (given[0] !== "-" && !existsSync(given[0] as string)) {
    throw new UsageError(`There is no file ${given[0]}.`);
  }
  // The readers are loaded only when they are needed, and not for the help of all commands.
  if (from.toml !== undefined) return await (await import("./import/toml.js")).readToml(from.toml);
  if (from.sqlite !== undefined) return await (await import("./import/sqlite.js")).readSqlite(from.sqlite);
  const ids = from.ids as string;
  const { readIds } = await import("./import/ids.js");
  return ids === "-" ? await readIds(stdin, "standard input") : await readIds(createReadStream(ids), ids);
}

/** Refuses counters of another node: its numbers are not ours, and ours would skip them for nothing. */
function checkNode(counters: readonly Counter[], mode: Mode): void {
  const own: NodeId = mode.kind === "distributed" ? mode.nodeId : 0;
  const foreign = counters.filter(({ nodeId }) => nodeId !== undefined && nodeId !== own);
  if (foreign.length === 0) return;
  const name = (node: NodeId): string => (node === 0 ? "no node (centralized)" : `node ${node}`);
  const listed = foreign
    .slice(0, MAX_SHOWN_PROBLEMS)
    .map(({ place, type, nodeId }) => `${place} (${type} of ${name(nodeId as NodeId)})`);
  const more = foreign.length - listed.length;
  throw new PawlError(
    "conflict",
    `This daemon is ${own === 0 ? "centralized" : `node ${own}`}, and the import holds counters of others, so nothing was imported: ${listed.join("; ")}${more > 0 ? `; and ${more} more` : ""}. Import them at their own node.`,
    { nodeId: own, foreign: [...new Set(foreign.map(({ nodeId }) => nodeId))] },
  );
}

function highestPerType(counters: readonly Counter[]): Counter[] {
  // A counter of another node is kept beside our own, to be refused by name.
  const highest = new Map<string, Counter>();
  for (const counter of counters) {
    const key = `${counter.type}-${counter.nodeId}`;
    if ((highest.get(key)?.last ?? -1) < counter.last) highest.set(key, counter);
  }
  return [...highest.values()].sort((a, b) => (a.type < b.type ? -1 : 1));
}

/** Raises the counters, as many as one transaction takes at a time, and returns where each then is. */
async function advance(
  client: PawlClient,
  steps: readonly { type: string; to: number }[],
): Promise<Map<string, number>> {
  const reached = new Map<string, number>();
  for (let start = 0; start < steps.length; start += MAX_TRANSACT_CALLS) {
    const some = steps.slice(start, start + MAX_TRANSACT_CALLS);
    for (const { type, seq } of await advanceTogether(client, some)) reached.set(type, seq);
  }
  return reached;
}

async function advanceTogether(
  client: PawlClient,
  steps: readonly { type: string; to: number }[],
): Promise<{ type: string; seq: number }[]> {
  const params = steps.map(({ type, to }) => ({ type, to }));
  const calls = params.map((each) => ({ method: "sequence.advance", params: each }));
  try {
    const { results } = (await client.call("transact", { calls })) as {
      results: { type: string; seq: number }[];
    };
    return results;
  } catch (error) {
    // An older daemon: an advance can be repeated, so one that fails in between is made good by trying again.
    if (!(error instanceof PawlError) || error.kind !== "method_not_found") throw error;
    return await Promise.all(params.map((each) => client.sequence.advance(each)));
  }
}

const exports = command({
  args: "",
  summary: "Write the counters out as TOML",
  options: {
    toml: { type: "flag", describe: "As TOML, which is the only form so far", default: "yes" },
  },
  details: "The form is the one that `pawl import --toml` reads.",
  examples: [
    ["pawl export --toml > sequences.toml", "The mode and the last number of every type"],
    ["pawl export --toml | ssh other pawl import --toml /dev/stdin", "Onto another machine"],
  ],
  async run(_args, { connect, output }) {
    const { stringify } = await import("smol-toml");
    const found = await (await connect()).dispenser().state();
    const { mode, sequences } = found;
    output.result(found, () =>
      stringify({
        mode: mode.kind === "distributed" ? { Distributed: { node_id: mode.nodeId } } : "Centralized",
        sequences,
      }),
    );
    return undefined;
  },
});

export const commands = { import: imports, export: exports };
