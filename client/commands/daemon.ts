import { resolve } from "node:path";
import type { Result } from "@pawl/protocol";
import { checkSocketPath } from "@pawl/protocol/paths";
import { command, indented, parseJson, readInput, UsageError } from "../terminal/command.js";
import { bytes, count, duration, type Output, plural, styled, table } from "../terminal/output.js";

export const status = command<"">()({
  options: {},
  examples: [
    ["pawl status", "An overview"],
    ["pawl status --json | jq .stats.commitMs.p99", "One figure of it"],
  ],
  async run(_args, { connect, output }) {
    const client = await connect();
    const [info, stats] = await Promise.all([client.daemon.info({}), client.daemon.stats({})]);
    output.result({ info, stats }, () => overview(info, stats));
    return undefined;
  },
});

function boardOf({ items, changes, forks }: Result<"daemon.stats">["pipeline"]): string {
  const forked = forks === 0 ? "" : `, ${plural(forks, "fork")}`;
  return `${plural(items, "item")}, ${plural(changes, "change")}${forked}`;
}

/** Methods that the overview lists. */
const MAX_METHODS = 10;

function* overview(info: Result<"daemon.info">, stats: Result<"daemon.stats">): Generator<string> {
  const { connections, turns, operationsPerTurn, commitMs, database, queues, commands, leases } = stats;
  const calls = sum(Object.values(stats.requests));
  const refused = sum(Object.values(stats.errors).flatMap((kinds) => Object.values(kinds)));
  const mode =
    info.mode.kind === "distributed"
      ? `distributed, node ${info.mode.nodeId}: ids like FR-${info.mode.nodeId}-001`
      : "centralized: ids like FR-001";

  yield `${styled("bold", `pawld ${info.version}`)} is up for ${duration(stats.uptimeMs)}${info.readOnly ? ", read-only" : ""}\n`;
  yield section("", [
    ["Instance", `${info.instance}, pid ${info.pid}`],
    ...info.sockets.map(({ path, readOnly }): [string, string] => [
      "Socket",
      readOnly ? `${path} (read-only)` : path,
    ]),
    ["Database", info.database.path],
    [
      "",
      `${bytes(database.bytes)} and ${bytes(database.walBytes)} of log, schema ${info.database.schemaVersion}`,
    ],
    ["Mode", mode],
    ["Memory", bytes(stats.memoryBytes)],
  ]);
  yield section("Now", [
    ["Connections", `${count(connections.open)} open, ${plural(connections.waiting, "call")} waiting`],
    ["Batches", states(queues)],
    ["Commands", states(commands.states)],
    ["Leases", `${count(leases.held)} held`],
    ["Board", boardOf(stats.pipeline)],
  ]);
  yield section("Since the start", [
    ["Connections", count(connections.accepted)],
    ["Calls", `${count(calls)}, ${count(refused)} of them refused`],
    ["Turns", `${count(turns.committed)} committed, ${count(turns.rolledBack)} rolled back`],
    ["Calls per turn", spread(operationsPerTurn, (each) => count(Math.round(each)))],
    ["Commit", spread(commitMs, duration)],
    ["Numbers taken", count(stats.sequences.dispensed)],
  ]);

  const methods = Object.entries(stats.requests).sort(([, a], [, b]) => b - a);
  if (methods.length === 0) return;
  yield `\n${table(
    [{ title: "METHOD" }, { title: "CALLS", align: "right" }, { title: "REFUSED", align: "right" }],
    methods
      .slice(0, MAX_METHODS)
      .map(([method, number]) => [method, count(number), refusals(stats.errors[method])]),
  )}`;
  if (methods.length > MAX_METHODS) yield `and ${plural(methods.length - MAX_METHODS, "other method")}`;
}

function section(title: string, rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  const head = title === "" ? "" : `\n${styled("bold", title)}\n`;
  return head + rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}\n`).join("");
}

function spread(of: { p50: number; p99: number; max: number }, shown: (each: number) => string): string {
  return `median ${shown(of.p50)}, p99 ${shown(of.p99)}, most ${shown(of.max)}`;
}

/** 3 ready, 1 dead */
function states(numbers: Readonly<Record<string, number>>): string {
  const some = Object.entries(numbers).filter(([, number]) => number > 0);
  return some.length === 0
    ? "none"
    : some.map(([state, number]) => `${count(number)} ${state.toLowerCase().replace("_", " ")}`).join(", ");
}

function refusals(kinds: Record<string, number> | undefined): string {
  return kinds === undefined ? "" : count(sum(Object.values(kinds)));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

export const call = command<"<method> [params]">()({
  options: {},
  details: "PARAMS is a JSON object, or - to read it from standard input.",
  examples: [
    ["pawl call daemon.ping", "A method without params"],
    [`pawl call sequence.advance '{"type": "FR", "to": 120}'`, "With params"],
    ["pawl call rpc.discover | jq -r '.methods[].name'", "The names of all methods"],
    ["pawl call transact - < calls.json", "Params from a file"],
  ],
  async run({ method, params: text }, { connect, output }) {
    const params = text === undefined ? {} : parseJson("PARAMS", text === "-" ? await readInput() : text);
    if (typeof params !== "object" || params === null || Array.isArray(params)) {
      throw new UsageError(`PARAMS is a JSON object, such as '{"type": "FR"}', not ${text}.`);
    }
    const { result, text: json } = await (await connect()).callForText(
      method,
      params as Record<string, unknown>,
    );
    output.result(result, () => indented(json), json);
    return undefined;
  },
});

export const socketPath = command<"">()({
  options: {},
  details: "It need not be running.",
  examples: [
    ["pawl socket-path", "/run/user/1000/pawl/default.sock"],
    ["socat - UNIX-CONNECT:$(pawl socket-path)", "Speak JSON-RPC to it by hand"],
  ],
  async run(_args, { output, socketPath: chosen }) {
    const path = chosen();
    checkSocketPath(path, Buffer.byteLength(path));
    output.result({ socket: path }, () => path);
    return undefined;
  },
});

export const backup = command<"<file>">()({
  options: {},
  details:
    "FILE must not exist yet. It can be opened by pawld, in a state directory of its own. The key that signs changes of the board, identity.key in the state directory, is not in it: keep a copy of that too.",
  examples: [
    ["pawl backup /backup/pawl-$(date +%F).db", "A copy of one moment; calls go on meanwhile"],
    ["pawl backup copy.db && sqlite3 copy.db 'PRAGMA integrity_check'", "And a look at it"],
  ],
  async run({ file }, { connect, output }) {
    const client = await connect();
    const stop = client.on("daemon.backupProgress", (progress) => showProgress(progress, output));
    try {
      const path = resolve(file);
      const done = await client.call("daemon.backup", { path });
      output.progress(undefined);
      output.result(done, () => `${path}: ${bytes(done.bytes)}, ${plural(done.pages, "page")}`);
    } finally {
      stop();
      output.progress(undefined);
    }
    return undefined;
  },
});

function showProgress(progress: Record<string, unknown>, output: Output): void {
  const { pages, totalPages } = progress as { pages: number; totalPages: number };
  const percent = totalPages === 0 ? 100 : Math.floor((pages / totalPages) * 100);
  output.progress(`${count(pages)} of ${count(totalPages)} pages, ${percent} %`);
}
