// Claims that end by time, with their connection or over a restart, and batches whose time comes.
import { dueAt, dueWallAt, type Ending } from "../../grants/ending.js";
import type { Cause, GrantRule } from "../../grants/grant.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { NEVER, sooner } from "../../turns/alarm.js";
import type { Env } from "../../turns/operation.js";
import { CLAIM_TABLE, type ClaimRow, end } from "./give-back.js";
import { GETS_IN_LINE } from "./lanes.js";
import { earliestForgotten, nextToUnlist } from "./listing.js";
import { layMore, move, openQueue, queueOf, touchKey, unlistQueue } from "./queue-row.js";
import { waitKey, wakeQueue } from "./row.js";
import { tellLost } from "./terms.js";

export const claims: GrantRule<ClaimRow> = {
  ...CLAIM_TABLE,
  /** Counted, and its holder may still complete as long as nobody else claims. */
  *end(row, cause, env) {
    const { owner, pid, fencing_token: fencingToken } = row;
    const holder = `${owner}${pid === null ? "" : `, pid ${pid}`}, fencing token ${fencingToken}`;
    const error = `The claim of ${holder} ${SAID[cause]}.`;
    if (row.has_terms !== null) yield* tellLost(row, cause, env);
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

/** Its ttl runs from when a batch is first available, also if it was put off since. */
const endDelays = sql<BegunRow>(`
  UPDATE pawl_batch SET state = 'ready', available_at_wall = available_at + :wallAheadMs, ${GETS_IN_LINE},
    ttl_ends_at = CASE WHEN ttl_ms IS NULL THEN NULL ELSE coalesce(ttl_ends_at, available_at + ttl_ms) END
  WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch
     WHERE state = 'scheduled' AND available_at_wall IS NULL AND available_at <= :now
     ORDER BY available_at, enqueue_seq LIMIT :rows)
  RETURNING queue_id, key, ttl_ends_at`);

const reachNamed = sql<BegunRow>(`
  UPDATE pawl_batch SET state = 'ready', available_at = :now, ${GETS_IN_LINE},
    ttl_ends_at = CASE WHEN ttl_ms IS NULL THEN NULL ELSE coalesce(ttl_ends_at, CAST(:now AS BIGINT) + ttl_ms) END
  WHERE enqueue_seq IN
    (SELECT enqueue_seq FROM pawl_batch WHERE state = 'scheduled' AND available_at_wall <= :wallMs
     ORDER BY available_at_wall, enqueue_seq LIMIT :rows)
  RETURNING queue_id, key, ttl_ends_at`);

interface BegunRow {
  queue_id: number;
  key: string | null;
  ttl_ends_at: number | null;
}

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

function* makeReady(rows: readonly BegunRow[], env: Env): Operation<void> {
  const counts = new Map<number, number>();
  for (const { queue_id: queueId } of rows) counts.set(queueId, (counts.get(queueId) ?? 0) + 1);
  for (const [queueId, count] of counts) {
    yield* move(queueId, { scheduled: -count, ready: count }, env);
    const { queue } = yield* queueOf(queueId, env);
    env.effects.wake(waitKey(queue));
  }
  for (const { queue_id: queueId, key, ttl_ends_at: endsAt } of rows) {
    yield* touchKey(queueId, key, env);
    if (endsAt !== null) env.effects.deadline(endsAt);
  }
}

const earliestOpening = sql<{ at: number | null }>(
  "SELECT min(opens_at) AS at FROM pawl_queue WHERE opens_at IS NOT NULL",
);

const earliestNamedOpening = sql<{ at: number | null }>(
  "SELECT min(opens_at_wall) AS at FROM pawl_queue WHERE opens_at_wall IS NOT NULL",
);

const selectOpening = sql<{ queue_id: number; queue: string }>(`
  SELECT queue_id, queue FROM pawl_queue WHERE opens_at IS NOT NULL AND opens_at <= :now
  ORDER BY opens_at LIMIT :rows`);

const selectNamedOpening = sql<{ queue_id: number; queue: string }>(`
  SELECT queue_id, queue FROM pawl_queue WHERE opens_at_wall IS NOT NULL AND opens_at_wall <= :wallMs
  ORDER BY opens_at_wall LIMIT :rows`);

/** Queues that are paused or throttled until a time, or over their rate. */
export const closedQueues: Ending = {
  *earliest(env) {
    yield* env.turn.writeBack();
    return sooner(
      dueAt((yield* one(earliestOpening))?.at),
      dueWallAt((yield* one(earliestNamedOpening))?.at),
    );
  },

  *expire(env, rows) {
    const { now, wallMs } = env;
    const opened = [
      ...(yield* all(selectOpening, { now, rows })),
      ...(yield* all(selectNamedOpening, { wallMs, rows })),
    ];
    for (const { queue_id: queueId, queue } of opened) {
      yield* openQueue(queueId, env);
      wakeQueue(queue, env);
    }
    return opened.length;
  },
};

const selectUnlaid = sql<{ queue_id: number; queue: string }>(
  "SELECT queue_id, queue FROM pawl_queue WHERE lay_after IS NOT NULL LIMIT 1",
);

/** Queues whose rules about keys have changed: their lines are laid anew in steps, which a restart does not end. */
export const unlaidQueues: Ending = {
  *earliest(env) {
    yield* env.turn.writeBack();
    return (yield* one(selectUnlaid)) === undefined ? NEVER : dueAt(env.now);
  },

  *expire(env, rows) {
    yield* env.turn.writeBack();
    const unlaid = yield* one(selectUnlaid);
    if (unlaid === undefined) return 0;
    yield* layMore(unlaid.queue_id, env);
    wakeQueue(unlaid.queue, env);
    return rows;
  },
};

/** Beginnings of names that no claim asks for any more: their queues are taken from the list in steps. */
export const unaskedPrefixes: Ending = {
  *earliest() {
    return dueAt(yield* earliestForgotten());
  },

  *expire(env, rows) {
    const unasked = yield* nextToUnlist(env);
    if (unasked === undefined) return 0;
    for (const queueId of unasked.queueIds) yield* unlistQueue(queueId, unasked.prefix, env);
    return rows;
  },
};
