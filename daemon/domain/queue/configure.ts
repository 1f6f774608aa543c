// The settings of a queue.
import type { Parsed, Result } from "@pawl/protocol";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { configureQueue, findQueue, type Settings } from "./queue-row.js";

const NO_SETTINGS: Settings = { max_attempts: null, retry: null };

export function* configure(
  params: Parsed<"queue.configure">,
  env: Env,
): Operation<Result<"queue.configure">> {
  const { queue, retry, maxAttempts } = params;
  const before = (yield* findQueue(queue, env)) ?? NO_SETTINGS;
  const settings: Settings = {
    max_attempts: maxAttempts === undefined ? before.max_attempts : maxAttempts,
    retry: retry === undefined ? before.retry : retry === null ? null : JSON.stringify(retry),
  };
  yield* configureQueue(queue, settings, env);
  return { settings: shown(settings) };
}

export function* settings(params: Parsed<"queue.settings">, env: Env): Operation<Result<"queue.settings">> {
  return { settings: shown((yield* findQueue(params.queue, env)) ?? NO_SETTINGS) };
}

function shown({ retry, max_attempts: maxAttempts }: Settings): Result<"queue.settings">["settings"] {
  return { retry: retry === null ? null : JSON.parse(retry), maxAttempts };
}
