import { createRequire } from "node:module";
import type { Parsed, Result } from "@pawl/protocol";
import { openrpc, PROTOCOL } from "@pawl/protocol";
import type { Operation } from "../store/statement.js";
import type { Env } from "../turns/operation.js";
import { nodeIdOf } from "./sequence/sequence.js";

export const VERSION: string = createRequire(import.meta.url)("../../package.json").version;

/** What `daemon.info` and `daemon.stats` report beside what an operation knows itself. */
export interface Inside {
  info(): Omit<Result<"daemon.info">, "name" | "version" | "protocol" | "pid" | "mode" | "nodeId">;
  stats(env: Env): Operation<Result<"daemon.stats">>;
}

export function* ping(_params: Parsed<"daemon.ping">, env: Env): Operation<Result<"daemon.ping">> {
  return { now: env.now };
}

export function* info(env: Env, inside: Inside): Operation<Result<"daemon.info">> {
  return {
    name: "pawld",
    version: VERSION,
    protocol: PROTOCOL,
    pid: process.pid,
    mode: env.mode,
    nodeId: nodeIdOf(env.mode),
    ...inside.info(),
  };
}

let document: Result<"rpc.discover"> | undefined;

export function* discover(): Operation<Result<"rpc.discover">> {
  // Made when it is first asked for: it takes some 10 ms, and never changes.
  document ??= openrpc(VERSION);
  return document;
}
