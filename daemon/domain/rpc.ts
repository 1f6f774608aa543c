import { createRequire } from "node:module";
import type { Parsed, Result } from "@pawl/protocol";
import { SharedJson } from "../json/shared-json.js";
import type { Operation } from "../store/statement.js";
import type { HandlersOf } from "../turns/handler.js";
import type { Env } from "../turns/operation.js";

/** Which operation performs which method. */
export const rpcHandlers: HandlersOf<"rpc"> = { discover, cancel };

/** The document as an answer has it: made once, since each making would take as long as a whole turn does. */
let document: SharedJson | undefined;

function* discover(): Operation<Result<"rpc.discover">> {
  // A file of the program: read when it is first asked for, so that neither it nor what makes it costs at the start.
  document ??= SharedJson.read(fileOfDocument());
  return document as unknown as Result<"rpc.discover">;
}

function fileOfDocument(): string {
  return createRequire(import.meta.url).resolve("@pawl/protocol/openrpc.json");
}

function* cancel({ id }: Parsed<"rpc.cancel">, env: Env): Operation<Result<"rpc.cancel">> {
  return { cancelled: env.cancelWaits(env.caller, id) };
}
