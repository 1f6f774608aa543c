import { createRequire } from "node:module";
import type { Parsed, Result } from "@pawl/protocol";
import { PROTOCOL } from "@pawl/protocol";
import type { Copied } from "../store/home.js";
import { type Operation, one, run, sql } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import type { Caller, Env } from "../turns/operation.js";
import { graph } from "./graph.js";
import type { WaitingElsewhere } from "./lease/holder.js";
import { nodeIdOf } from "./sequence/sequence.js";

export const VERSION: string = createRequire(import.meta.url)("../../package.json").version;

/** The part of `daemon.info` and `daemon.stats` that no operation knows. */
export interface OwnReport {
  /** The wall clock, which for operations stands still while nothing can be committed. */
  now(): number;
  info(
    caller: Caller,
  ): Omit<
    Result<"daemon.info">,
    "name" | "version" | "protocol" | "pid" | "mode" | "nodeId" | "idDigits" | "copied"
  >;
  stats(params: Parsed<"daemon.stats">, env: Env): Operation<Result<"daemon.stats">>;
}

/**
 * Which operation performs which method; `daemon.backup` and `daemon.check` have none.
 *
 * @param waitingElsewhere those who wait for leases that providers keep.
 */
export function daemonHandlers(
  ownReport: OwnReport,
  waitingElsewhere: () => readonly WaitingElsewhere[],
): HandlersOf<"daemon"> {
  return {
    ping: () => ping(ownReport),
    info: (_params, env) => info(env, ownReport),
    stats: (params, env) => ownReport.stats(params, env),
    acceptCopy,
    graph: (params, env) => graph(params, env, waitingElsewhere()),
  };
}

function* ping(ownReport: OwnReport): Operation<Result<"daemon.ping">> {
  return { now: ownReport.now() };
}

function* info(env: Env, ownReport: OwnReport): Operation<Result<"daemon.info">> {
  return {
    name: "pawld",
    version: VERSION,
    protocol: PROTOCOL,
    pid: process.pid,
    mode: env.mode,
    nodeId: nodeIdOf(env.mode),
    idDigits: env.idDigits,
    copied: yield* copied(),
    ...ownReport.info(env.caller),
  };
}

const selectCopied = sql<{ value: string }>("SELECT value FROM pawl_meta WHERE key = 'copied'");
const removeCopied = sql("DELETE FROM pawl_meta WHERE key = 'copied'");

function* copied(): Operation<Copied | null> {
  const row = yield* one(selectCopied);
  return row === undefined ? null : (JSON.parse(row.value) as Copied);
}

function* acceptCopy(_params: Parsed<"daemon.acceptCopy">, env: Env): Operation<Result<"daemon.acceptCopy">> {
  const accepted = yield* copied();
  if (accepted !== null) {
    yield* run(removeCopied);
    env.effects.log("the copy was accepted: the database that it was made from is gone", accepted);
  }
  return { accepted };
}
