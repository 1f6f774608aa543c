import { openrpc, type Result } from "@pawl/protocol";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import { VERSION } from "./daemon.js";

/** Which operation performs which method. */
export const rpcHandlers: HandlersOf<"rpc"> = { discover };

let document: Result<"rpc.discover"> | undefined;

function* discover(): Operation<Result<"rpc.discover">> {
  // Made when it is first asked for: it takes some 10 ms, and never changes.
  document ??= openrpc(VERSION);
  return document;
}
