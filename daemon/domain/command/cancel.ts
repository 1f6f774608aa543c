import type { Parsed, Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import { type Operation, one } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { abort, noSuchCommand, selectLive } from "./row.js";
import { isFinal, stateAt } from "./state.js";

export function* cancel(
  params: Parsed<"command.cancel">,
  env: Env,
): Operation<Result<"command.cancel"> | PawlError> {
  const { commandId, reason = null } = params;
  const row = yield* one(selectLive, { commandId });
  if (row === undefined) return noSuchCommand(commandId);
  const { state } = stateAt(row, env);
  if (isFinal(state)) return { state };
  const cause = { code: "CANCELLED", message: reason ?? "It was cancelled." };
  yield* abort(row, { state: "FAILED", cause, reason }, env);
  return { state: "FAILED" };
}
