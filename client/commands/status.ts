import type { Result } from "@pawl/protocol/types";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { bytes, count, duration, plural } from "../terminal/quantities.js";
import { patternsOf } from "./kept-elsewhere.js";

const status = command({
  args: "",
  summary: "Show what the daemon is and does",
  options: {
    "accept-copy": {
      type: "flag",
      describe: "Say that the database which this one was copied from is gone",
    },
  },
  examples: [
    ["pawl status", "An overview"],
    ["pawl status --accept-copy", "The machine that the database was copied from is gone"],
    ["pawl status --json | jq .stats.commitMs.p99", "One figure of it"],
  ],
  async run({ "accept-copy": acceptCopy }, { connect, output }) {
    const client = await connect();
    if (acceptCopy) {
      const done = await client.daemon.acceptCopy({});
      output.result(done, () => describeAccepted(done));
      return undefined;
    }
    const [info, stats] = await Promise.all([client.daemon.info({}), client.daemon.stats({})]);
    output.result({ info, stats }, () => overview(info, stats, output));
    return undefined;
  },
});

function acceptedOf({ accepted, acceptPauses, overloads }: Result<"daemon.stats">["connections"]): string {
  const paused = `; new ones had to wait ${plural(acceptPauses, "time")}: few descriptors left`;
  const closed = `; ${overloads} closed that did not read, or not end their lines, while memory ran out`;
  return `${count(accepted)}${acceptPauses === 0 ? "" : paused}${overloads === 0 ? "" : closed}`;
}

/** A log that nobody could take whole. */
function logOf({ logLinesDropped }: Result<"daemon.stats">): [string, string][] {
  if (logLinesDropped === 0) return [];
  return [["Log", `${plural(logLinesDropped, "line")} dropped: nobody could take them`]];
}

function boardOf({ items, changes, forks }: Result<"daemon.stats">["pipeline"]): string {
  const forked = forks === 0 ? "" : `, ${plural(forks, "fork")}`;
  return `${plural(items, "item")}, ${plural(changes, "change")}${forked}`;
}

/** Methods that the overview lists. */
const MAX_METHODS = 10;

function* overview(
  info: Result<"daemon.info">,
  stats: Result<"daemon.stats">,
  output: Output,
): Generator<string> {
  const { connections, turns, operationsPerTurn, commitMs, database, queues, commands, leases } = stats;
  const calls = sum(Object.values(stats.requests));
  const refused = sum(Object.values(stats.errors).flatMap((kinds) => Object.values(kinds)));
  const one = "1".padStart(info.idDigits, "0");
  const mode =
    info.mode.kind === "distributed"
      ? `distributed, node ${info.mode.nodeId}: ids like FR-${info.mode.nodeId}-${one}`
      : `centralized: ids like FR-${one}`;

  yield `${output.styled("bold", `pawld ${info.version}`)} is up for ${duration(stats.uptimeMs)}${info.readOnly ? ", read-only" : ""}\n`;
  yield section(output.styled, "", [
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
    ...info.leaseProviders.map(({ pattern, kind }): [string, string] => ["Leases", `${pattern} by ${kind}`]),
    ...info.shared.map(({ pattern, noun, place, connected }): [string, string] => [
      "Shared",
      `${noun === null ? "" : `${noun}:`}${pattern} in ${place}${connected ? "" : ", which cannot be reached now"}`,
    ]),
    ...clockOf(info),
    ...copyOf(info),
    ...heldLogOf(info),
    ...configErrorOf(info),
  ]);
  yield section(output.styled, "Now", [
    ["Connections", `${count(connections.open)} open, ${plural(connections.waiting, "call")} waiting`],
    ["Batches", states(queues)],
    ["Commands", states(commands.states)],
    ["Leases", `${count(leases.held)} held`],
    ["Board", boardOf(stats.pipeline)],
    ...elsewhereOf(info),
  ]);
  yield section(output.styled, "Since the start", [
    ["Connections", acceptedOf(connections)],
    ["Calls", `${count(calls)}, ${count(refused)} of them refused`],
    ["Turns", `${count(turns.committed)} committed, ${count(turns.rolledBack)} rolled back`],
    ["Calls per turn", spread(operationsPerTurn, (each) => count(Math.round(each)))],
    ["Commit", spread(commitMs, duration)],
    ["Numbers taken", count(stats.sequences.dispensed)],
    ...logOf(stats),
  ]);

  const methods = Object.entries(stats.requests).sort(([, a], [, b]) => b - a);
  if (methods.length === 0) return;
  yield `\n${output.table(
    [{ title: "METHOD" }, { title: "CALLS", align: "right" }, { title: "REFUSED", align: "right" }],
    methods
      .slice(0, MAX_METHODS)
      .map(([method, number]) => [method, count(number), refusals(stats.errors[method])]),
  )}`;
  if (methods.length > MAX_METHODS) yield `and ${plural(methods.length - MAX_METHODS, "other method")}`;
}

/** The figures of what there is have this node's own database alone. */
function elsewhereOf({ shared }: Result<"daemon.info">): [string, string][] {
  const patterns = patternsOf(shared, ["queue", "command", "lease"]);
  if (patterns === "") return [];
  return [["Elsewhere", `what is kept in PostgreSQL (${patterns}) is not counted, and is found by its name`]];
}

function clockOf({ clock }: Result<"daemon.info">): [string, string][] {
  if (clock === null) return [];
  const { steppedAt, byMs } = clock;
  const way = byMs > 0 ? "forward" : "back";
  return [["Clock", `set ${way} by ${duration(Math.abs(byMs))}, to ${new Date(steppedAt).toISOString()}`]];
}

function copyOf({ copied }: Result<"daemon.info">): [string, string][] {
  if (copied === null) return [];
  return [
    ["Copy", `of ${copied.from}, as it was at ${new Date(copied.since).toISOString()}`],
    ["", "If that lives on, both give the same numbers; once it is gone: pawl status --accept-copy"],
  ];
}

function heldLogOf({ heldLog }: Result<"daemon.info">): [string, string][] {
  if (heldLog === null) return [];
  const who = heldLog.pid === null ? "another program" : `the process ${heldLog.pid}`;
  return [["Log", `grows, since ${who} reads the database without end; end it, or its transaction`]];
}

function configErrorOf({ configError }: Result<"daemon.info">): [string, string][] {
  if (configError === null) return [];
  return [["Config", `not taken over when it was read again, the former one stays: ${configError}`]];
}

function describeAccepted({ accepted }: Result<"daemon.acceptCopy">): string {
  if (accepted === null) return "The database is no copy whose first may live on.";
  return `Accepted: ${accepted.from} is gone, and this database goes on in its place.`;
}

function section(
  styled: Output["styled"],
  title: string,
  rows: readonly (readonly [string, string])[],
): string {
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

export const commands = { status };
