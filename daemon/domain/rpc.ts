import { createRequire } from "node:module";
import type { Parsed, Result } from "@pawl/protocol";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import type { Env } from "../turns/operation.js";

/** Which operation performs which method. */
export const rpcHandlers: HandlersOf<"rpc"> = { discover, cancel };

let document: Result<"rpc.discover"> | undefined;

function* discover(): Operation<Result<"rpc.discover">> {
  // A file of the program: read when it is first asked for, so that neither it nor what makes it costs at the start.
  document ??= createRequire(import.meta.url)("@pawl/protocol/openrpc.json");
  return document as Result<"rpc.discover">;
}

function* cancel({ id }: Parsed<"rpc.cancel">, env: Env): Operation<Result<"rpc.cancel">> {
  return { cancelled: env.cancelWaits(env.caller, id) };
}
