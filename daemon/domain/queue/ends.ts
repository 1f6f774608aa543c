// Claims that end by time, with their connection or over a restart, and batches whose time comes.
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { ownEnd, postponedConnection } from "../../grants/restart-grace.js";
import { all, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { CLAIM_COLUMNS, type ClaimRow, type End, end } from "./give-back.js";
import { move, queueOf } from "./queue-row.js";
import { waitKey } from "./row.js";

const earliestEnd = sql<{ at: number | null }>(
  "SELECT min(expires_at) AS at FROM pawl_batch WHERE expires_at IS NOT NULL",
);

const latestEnd = sql<{ at: number | null }>(
  "SELECT max(expires_at) AS at FROM pawl_batch WHERE expires_at IS NOT NULL",
);

const earliestScheduled = sql<{ at: number | null }>(
  "SELECT min(available_at) AS at FROM pawl_batch WHERE state = 'scheduled'",
);

const selectExpired = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.expires_at IS NOT NULL AND b.expires_at <= :now AND q.queue_id = b.queue_id
  ORDER BY b.expires_at LIMIT :rows`);

const selectOfConnection = sql<ClaimRow>(`
  SELECT ${CLAIM_COLUMNS}
  FROM pawl_batch b CROSS JOIN pawl_queue q
  WHERE b.connection = :connection AND q.queue_id = b.queue_id
  ORDER BY b.enqueue_seq LIMIT :rows`);

const expireOfConnection = sql(
  "UPDATE pawl_batch SET expires_at = :now, connection = NULL WHERE connection = :connection",
);

const makeAvailable = sql<{ queue_id: number }>(`
  UPDATE pawl_batch SET state = 'ready' WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE state = 'scheduled' AND available_at <= :now
     ORDER BY available_at, enqueue_seq LIMIT :rows)
  RETURNING queue_id`);

const postponeEnds = sql(`
  UPDATE pawl_batch SET expires_at = expires_at + :byMs,
    connection = ${postponedConnection("connection")}
  WHERE expires_at IS NOT NULL`);

const CLAIM_END = ownEnd("connection", "expires_at");

const orphan = sql(`
  UPDATE pawl_batch SET connection = -${CLAIM_END}, expires_at = min(:grace, ${CLAIM_END})
  WHERE connection IS NOT NULL`);

/** Claims that end by time, with their connection or after a restart, and batches whose time comes. */
export const claims: Expiry = {
  *earliest() {
    const claimEnd = (yield* one(earliestEnd))?.at ?? Number.POSITIVE_INFINITY;
    const available = (yield* one(earliestScheduled))?.at ?? Number.POSITIVE_INFINITY;
    const at = Math.min(claimEnd, available);
    return Number.isFinite(at) ? at : undefined;
  },

  *expire(env, rows) {
    let ended = 0;
    for (const head of yield* all(selectExpired, { now: env.now, rows })) {
      // A claim can hold more batches than one step is meant to do: the rest follows in the next.
      if (ended >= rows) break;
      yield* end(head, unasked("expired", head, env), env);
      ended += head.claim_size;
    }
    const available = yield* all(makeAvailable, { now: env.now, rows });
    for (const [queueId, count] of countBy(available, (row) => row.queue_id)) {
      yield* move(queueId, { scheduled: -count, ready: count }, env);
      const { queue } = yield* queueOf(queueId, env);
      env.effects.wake(waitKey(queue));
    }
    return Math.max(ended, available.length);
  },

  *postpone(byMs) {
    yield* run(postponeEnds, { byMs });
  },

  *disconnect(connection, env, rows) {
    const heads = yield* all(selectOfConnection, { connection, rows });
    for (const head of heads) {
      yield* end(head, unasked("ended with its connection", head, env), env);
    }
    if (heads.length < rows) return;
    // The rest ends as if it had expired now, in steps that do not stall others.
    yield* run(expireOfConnection, { connection, now: env.now });
    env.effects.deadline(env.now);
  },

  *restart(env) {
    yield* run(orphan, { grace: env.now + RESTART_GRACE_MS });
  },

  *latest() {
    return (yield* one(latestEnd))?.at ?? undefined;
  },
};

/** An end that the holder did not ask for: counted, and it may still complete as long as nobody else claims. */
function unasked(what: string, { owner, pid, fencing_token: fencingToken }: ClaimRow, env: Env): End {
  const holder = `${owner}${pid === null ? "" : `, pid ${pid}`}, fencing token ${fencingToken}`;
  return { counts: true, error: `The claim of ${holder} ${what}.`, availableAt: env.now, final: false };
}

function countBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, number> {
  const counts = new Map<K, number>();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1);
  return counts;
}
