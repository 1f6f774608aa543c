// Run: a batch of a schedule now, besides its occurrences.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { byName, enqueueBatch } from "./row.js";

export function* runNow(
  { name }: Parsed<"schedule.run">,
  env: Env,
): Operation<Result<"schedule.run"> | PawlError> {
  const row = yield* byName(name);
  if (row instanceof PawlError) return row;
  const enqueued = yield* enqueueBatch(row, undefined, env);
  if (enqueued instanceof PawlError) return enqueued;
  env.effects.tell("schedule", name, "ran", enqueued.batchId);
  return { batch: enqueued.text as unknown as Result<"schedule.run">["batch"] };
}
