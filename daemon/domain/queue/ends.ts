// Claims that end by time, with their connection or over a restart, and batches whose time comes.
import { dueAt, dueWallAt, type Ending } from "../../grants/ending.js";
import type { Cause, GrantRule } from "../../grants/grant.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { sooner } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import { CLAIM_TABLE, type ClaimRow, end } from "./give-back.js";
import { move, queueOf } from "./queue-row.js";
import { waitKey } from "./row.js";

export const claims: GrantRule<ClaimRow> = {
  ...CLAIM_TABLE,
  /** Counted, and its holder may still complete as long as nobody else claims. */
  *end(row, cause, env) {
    const { owner, pid, fencing_token: fencingToken } = row;
    const holder = `${owner}${pid === null ? "" : `, pid ${pid}`}, fencing token ${fencingToken}`;
    const error = `The claim of ${holder} ${SAID[cause]}.`;
    yield* end(row, { counts: true, error, delayMs: undefined, final: false }, env);
    return row.claim_size;
  },
};

const SAID: Readonly<Record<Cause, string>> = {
  expired: "expired",
  disconnected: "ended with its connection",
};

const earliestDelay = sql<{ at: number | null }>(
  "SELECT min(available_at) AS at FROM pawl_batch WHERE state = 'scheduled' AND available_at_wall IS NULL",
);

const earliestNamed = sql<{ at: number | null }>(
  "SELECT min(available_at_wall) AS at FROM pawl_batch WHERE state = 'scheduled' AND available_at_wall IS NOT NULL",
);

const endDelays = sql<{ queue_id: number }>(`
  UPDATE pawl_batch SET state = 'ready', available_at_wall = available_at + :wallAheadMs WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch
     WHERE state = 'scheduled' AND available_at_wall IS NULL AND available_at <= :now
     ORDER BY available_at, enqueue_seq LIMIT :rows)
  RETURNING queue_id`);

const reachNamed = sql<{ queue_id: number }>(`
  UPDATE pawl_batch SET state = 'ready', available_at = :now WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE state = 'scheduled' AND available_at_wall <= :wallMs
     ORDER BY available_at_wall, enqueue_seq LIMIT :rows)
  RETURNING queue_id`);

/** Batches that wait for the end of a delay, or for a time that was named. */
export const scheduledBatches: Ending = {
  *earliest() {
    return sooner(dueAt((yield* one(earliestDelay))?.at), dueWallAt((yield* one(earliestNamed))?.at));
  },

  *expire(env, rows) {
    const { now, wallMs } = env;
    const delayed = yield* all(endDelays, { now, wallAheadMs: wallMs - now, rows });
    const named = yield* all(reachNamed, { now, wallMs, rows });
    yield* makeReady([...delayed, ...named], env);
    return Math.max(delayed.length, named.length);
  },
};

function* makeReady(rows: readonly { queue_id: number }[], env: Env): Operation<void> {
  const counts = new Map<number, number>();
  for (const { queue_id: queueId } of rows) counts.set(queueId, (counts.get(queueId) ?? 0) + 1);
  for (const [queueId, count] of counts) {
    yield* move(queueId, { scheduled: -count, ready: count }, env);
    const { queue } = yield* queueOf(queueId, env);
    env.effects.wake(waitKey(queue));
  }
}
