// Requests under a `requestId`: their answers are kept for a while, so that a repetition is given the same.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { REQUEST_ID_RETENTION_MS } from "@pawl/protocol/limits";
import { dueAt, type Ending, PRUNE_EVERY_MS } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";

const selectRequest = sql<{ request: string; result: string }>(`
  SELECT request, result FROM pawl_request WHERE request_id = :requestId AND expires_at > :now`);

const insertRequest = sql(`
  INSERT INTO pawl_request (request_id, request, result, expires_at)
  VALUES (:requestId, :request, :result, :expiresAt)
  ON CONFLICT (request_id) DO UPDATE
    SET request = excluded.request, result = excluded.result, expires_at = excluded.expires_at`);

/** A request under a `requestId`, with its defaults filled in, so that only what differs in meaning is a conflict. */
interface Once {
  method: string;
  type: string;
  count?: number;
}

/**
 * The first answer to a repeated `requestId`, or the refusal of one that came with another request;
 * undefined for a new one.
 */
export function* answeredBefore<R>(
  requestId: string | undefined,
  request: Once,
  env: Env,
): Operation<R | PawlError | undefined> {
  if (requestId === undefined) return undefined;
  const known = yield* one(selectRequest, { requestId, now: env.now });
  if (known === undefined) return undefined;
  const text = JSON.stringify(request);
  if (known.request === text) return JSON.parse(known.result) as R;
  return refuse(
    "conflict",
    `The requestId ${shown(requestId)} was used for ${known.request}, now for ${text}. Use a new requestId for a new request.`,
    { requestId, first: JSON.parse(known.request), now: request },
  );
}

/** Keeps the answer for a repetition. */
export function* remember(
  requestId: string | undefined,
  request: Once,
  result: object,
  env: Env,
): Operation<undefined> {
  if (requestId === undefined) return;
  const expiresAt = env.now + REQUEST_ID_RETENTION_MS;
  yield* run(insertRequest, {
    requestId,
    request: JSON.stringify(request),
    result: JSON.stringify(result),
    expiresAt,
  });
  env.effects.deadline(expiresAt + PRUNE_EVERY_MS);
}

const earliestRequest = sql<{ at: number | null }>("SELECT min(expires_at) AS at FROM pawl_request");

const deleteRequests = sql<{ request_id: string }>(`
  DELETE FROM pawl_request WHERE request_id IN
    (SELECT request_id FROM pawl_request WHERE expires_at <= :now ORDER BY expires_at LIMIT :rows)
  RETURNING request_id`);

/** Answers that nobody may ask for again. */
export const requests: Ending = {
  *earliest() {
    const at = (yield* one(earliestRequest))?.at ?? null;
    return dueAt(at === null ? null : at + PRUNE_EVERY_MS);
  },

  *expire(env, rows) {
    return (yield* all(deleteRequests, { now: env.now, rows })).length;
  },
};
