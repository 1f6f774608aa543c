import { createRequire } from "node:module";
import type { Parsed, Result } from "@pawl/protocol";
import { PROTOCOL } from "@pawl/protocol";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import type { Env } from "../turns/operation.js";
import { nodeIdOf } from "./sequence/sequence.js";

export const VERSION: string = createRequire(import.meta.url)("../../package.json").version;

/** The part of `daemon.info` and `daemon.stats` that no operation knows. */
export interface OwnReport {
  info(): Omit<Result<"daemon.info">, "name" | "version" | "protocol" | "pid" | "mode" | "nodeId">;
  stats(env: Env): Operation<Result<"daemon.stats">>;
}

/** Which operation performs which method; `daemon.backup` has none. */
export function daemonHandlers(ownReport: OwnReport): HandlersOf<"daemon"> {
  return {
    ping,
    info: (_params, env) => info(env, ownReport),
    stats: (_params, env) => ownReport.stats(env),
  };
}

function* ping(_params: Parsed<"daemon.ping">, env: Env): Operation<Result<"daemon.ping">> {
  return { now: env.wallMs };
}

function* info(env: Env, ownReport: OwnReport): Operation<Result<"daemon.info">> {
  return {
    name: "pawld",
    version: VERSION,
    protocol: PROTOCOL,
    pid: process.pid,
    mode: env.mode,
    nodeId: nodeIdOf(env.mode),
    ...ownReport.info(),
  };
}
