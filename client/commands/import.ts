import { execFile } from "node:child_process";
import { createReadStream, existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_NODE_ID, MAX_TRANSACT_CALLS, MAX_TYPE_LENGTH } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";
import { command, shorten, UsageError } from "../terminal/command.js";
import { count, plural } from "../terminal/output.js";

/** A counter as another system kept it. */
interface Counter {
  /** Upper case. */
  readonly type: string;
  /** The last number that was handed out. */
  readonly last: number;
  /** 0 in centralized mode; undefined where the source does not say. */
  readonly nodeId: number | undefined;
  /** Where in the source, for messages. */
  readonly place: string;
}

/** Bad entries that one message lists. */
const MAX_SHOWN_PROBLEMS = 10;

export const imports = command<"">()({
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
  async run({ toml, sqlite, ids, "dry-run": dryRun }, { connect, output }) {
    const counters = highestPerType(await readCounters({ toml, sqlite, ids }));
    const client = await connect();
    const { mode, sequences } = await client.sequence.state({});
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

async function readCounters(from: {
  toml: string | undefined;
  sqlite: string | undefined;
  ids: string | undefined;
}): Promise<Counter[]> {
  const given = Object.values(from).filter((file) => file !== undefined);
  if (given.length !== 1) {
    throw new UsageError("Say where from, by exactly one of --toml FILE, --sqlite FILE and --ids FILE|-.");
  }
  if (given[0] !== "-" && !existsSync(given[0] as string)) {
    throw new UsageError(`There is no file ${given[0]}.`);
  }
  if (from.toml !== undefined) return await readToml(from.toml);
  if (from.sqlite !== undefined) return await readSqlite(from.sqlite);
  return await readIds(from.ids as string);
}

async function readToml(file: string): Promise<Counter[]> {
  const { parse } = await import("smol-toml");
  let content: Record<string, unknown>;
  try {
    // Numbers beyond 2^53 then arrive whole and are refused by their value, not rounded.
    content = parse(await readFile(file, "utf8"), { integersAsBigInt: true });
  } catch (error) {
    throw new UsageError(`${file} is not TOML: ${(error as Error).message.trim()}`);
  }
  if (!isTable(content.sequences)) {
    throw new UsageError(`${file} has no table [sequences] of types and last numbers.`);
  }
  const nodeId = nodeOfToml(file, content.mode);
  const problems = new Problems(file);
  const counters = Object.entries(content.sequences).flatMap(([type, last]) => {
    const place = `sequences.${type}`;
    return problems.checked(
      type,
      typeof last === "bigint" ? String(last) : undefined,
      nodeId,
      place,
      `${type} = ${shownToml(last)}`,
    );
  });
  problems.refuseIfAny();
  return counters;
}

/** `mode = "Centralized"`, or a table `Distributed` with `node_id`: the two spellings of a Rust enum. */
function nodeOfToml(file: string, mode: unknown): number | undefined {
  if (mode === undefined) return undefined;
  if (mode === "Centralized") return 0;
  const nodeId = isTable(mode) && isTable(mode.Distributed) ? mode.Distributed.node_id : undefined;
  if (typeof nodeId === "bigint" && nodeId >= 1n && nodeId <= BigInt(MAX_NODE_ID)) return Number(nodeId);
  throw new UsageError(
    `The mode in ${file} is ${shownToml(mode)}; it is "Centralized", or a table Distributed with a node_id from 1 to ${MAX_NODE_ID}.`,
  );
}

/** Every column as text, so that no number is rounded on its way. */
const SELECT_COUNTERS =
  "SELECT json_array(CAST(node_id AS TEXT), CAST(type_prefix AS TEXT), CAST(next_val AS TEXT)) AS counter FROM dispenser_sequences ORDER BY rowid";

async function readSqlite(file: string): Promise<Counter[]> {
  const path = resolve(file);
  let rows: string[];
  try {
    rows = (await selectByModule(path)) ?? (await selectByProgram(path));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { stderr, message } = error as Error & { stderr?: string };
    const said = (stderr || message).trim();
    throw new UsageError(
      `Cannot read dispenser_sequences(node_id, type_prefix, next_val) from ${file}: ${said}.`,
    );
  }
  const problems = new Problems(file);
  const counters = rows.flatMap((row, index) => {
    const [node, type, last] = JSON.parse(row) as (string | null)[];
    const nodeId = /^[0-9]{1,10}$/.test(node ?? "") ? Number(node) : Number.NaN;
    const shown = `(${node ?? "NULL"}, ${type ?? "NULL"}, ${last ?? "NULL"})`;
    return problems.checked(type ?? "", last ?? undefined, nodeId, `row ${index + 1}`, shown);
  });
  problems.refuseIfAny();
  return counters;
}

/** By the SQLite module of the daemon, where its package is installed; the client's own has no native code. */
async function selectByModule(path: string): Promise<string[] | undefined> {
  let Sqlite: SqliteModule;
  try {
    const daemon = createRequire(import.meta.url).resolve("@pawl/daemon/package.json");
    Sqlite = createRequire(daemon)("better-sqlite3");
  } catch {
    return undefined;
  }
  const database = new Sqlite(path, { readonly: true, fileMustExist: true });
  try {
    return database.prepare(SELECT_COUNTERS).pluck().all();
  } finally {
    database.close();
  }
}

/** As much of better-sqlite3 as is used here. */
type SqliteModule = new (
  path: string,
  options: { readonly: boolean; fileMustExist: boolean },
) => { prepare(sql: string): { pluck(): { all(): string[] } }; close(): void };

/** By the `sqlite3` program. */
async function selectByProgram(path: string): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)("sqlite3", ["-readonly", "-batch", path, SELECT_COUNTERS], {
      maxBuffer: Number.POSITIVE_INFINITY,
    });
    return stdout.split("\n").filter((line) => line !== "");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new UsageError(
      "Reading SQLite needs the package @pawl/daemon beside this one (npm install @pawl/daemon) or the program sqlite3 (apt install sqlite3); neither is here.",
    );
  }
}

const ID = /^([A-Za-z][A-Za-z0-9_]*)(?:-([0-9]+))?-([0-9]+)$/;

async function readIds(file: string): Promise<Counter[]> {
  const input = file === "-" ? process.stdin : createReadStream(file);
  const problems = new Problems(file === "-" ? "standard input" : file);
  // The highest per type and node, so that a file of any length fits.
  const highest = new Map<string, Counter>();
  let number = 0;
  for await (const raw of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    number += 1;
    const line = raw.replace(/^\ufeff/, "").trim();
    if (line === "" || line.startsWith("#")) continue;
    const [, type = "", node, last] = ID.exec(line) ?? [];
    const nodeId = node === undefined ? 0 : Number(node);
    // Node 0 is what an id without a node has; it is never spelled out.
    const badNode = node !== undefined && nodeId === 0;
    const [counter] = problems.checked(
      type,
      last === undefined || badNode || Number(last) === 0 ? undefined : last,
      nodeId,
      `line ${number}`,
      JSON.stringify(shorten(line)),
    );
    if (counter === undefined) continue;
    const key = `${counter.type}-${counter.nodeId}`;
    if ((highest.get(key)?.last ?? -1) < counter.last) highest.set(key, counter);
  }
  problems.refuseIfAny();
  return [...highest.values()];
}

/** Collects what is wrong with a source, to refuse it once with all of it. */
class Problems {
  readonly #source: string;
  readonly #found: string[] = [];
  #total = 0;

  constructor(source: string) {
    this.#source = source;
  }

  /** The counter, or nothing and a problem noted. `last` is undefined where there is no whole number. */
  checked(
    type: string,
    last: string | undefined,
    nodeId: number | undefined,
    place: string,
    shown: string,
  ): Counter[] {
    const number = /^[0-9]+$/.test(last ?? "") ? Number(last) : Number.NaN;
    const goodNode = nodeId === undefined || (Number.isSafeInteger(nodeId) && nodeId <= MAX_NODE_ID);
    if (
      /^[A-Za-z][A-Za-z0-9_]*$/.test(type) &&
      type.length <= MAX_TYPE_LENGTH &&
      number <= MAX_INTEGER &&
      goodNode
    ) {
      return [{ type: type.toUpperCase(), last: number, nodeId, place }];
    }
    this.#total += 1;
    if (this.#found.length < MAX_SHOWN_PROBLEMS) this.#found.push(`${place}: ${shown}`);
    return [];
  }

  refuseIfAny(): void {
    if (this.#total === 0) return;
    const more = this.#total - this.#found.length;
    throw new UsageError(
      `${this.#source} has ${plural(this.#total, "entry", "entries")} that cannot be a counter (a type of letters, digits and _, and a number up to ${MAX_INTEGER}), so nothing was imported: ${this.#found.join("; ")}${more > 0 ? `; and ${more} more` : ""}.`,
    );
  }
}

/** Refuses counters of another node: its numbers are not ours, and ours would skip them for nothing. */
function checkNode(counters: readonly Counter[], mode: Mode): void {
  const own = mode.kind === "distributed" ? mode.nodeId : 0;
  const foreign = counters.filter(({ nodeId }) => nodeId !== undefined && nodeId !== own);
  if (foreign.length === 0) return;
  const name = (node: number): string => (node === 0 ? "no node (centralized)" : `node ${node}`);
  const listed = foreign
    .slice(0, MAX_SHOWN_PROBLEMS)
    .map(({ place, type, nodeId }) => `${place} (${type} of ${name(nodeId as number)})`);
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

export const exports = command<"">()({
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
    const found = await (await connect()).sequence.state({});
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

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A TOML value as a message shows it; JSON has no numbers as large as these may be. */
function shownToml(value: unknown): string {
  if (typeof value === "bigint") return shorten(String(value));
  return shorten(JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? String(each) : each)));
}
