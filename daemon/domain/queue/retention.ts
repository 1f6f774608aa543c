// Batches that have ended are kept for a while, then removed.
import type { BatchState } from "@pawl/protocol";
import { type Ending, retentionEnd } from "../../grants/ending.js";
import { all, each, type Operation, one, run, sql, write } from "../../store/statement.js";
import { type Env, EVERYTHING } from "../../turns/operation.js";
import { dropAfter } from "./flows.js";
import { forgetIds } from "./ids.js";
import { move, NO_COUNTS, removeIfEmpty, touchKey } from "./queue-row.js";
import { finishedKey } from "./row.js";

/** Batches that one turn removes at most: some 2 ms of work. */
const PRUNED_ROWS_PER_STEP = 100;

const earliestFinished = sql<{ at: number | null }>(
  "SELECT min(finished_at) AS at FROM pawl_batch WHERE finished_at IS NOT NULL",
);

const selectOutdated = sql<{ enqueue_seq: number; awaited: number | null }>(`
  SELECT enqueue_seq, CASE WHEN has_more IS NULL THEN 0 ELSE
    (SELECT m.awaited FROM pawl_batch_more m WHERE m.enqueue_seq = pawl_batch.enqueue_seq) END AS awaited
  FROM pawl_batch WHERE finished_at IS NOT NULL AND finished_at <= :until
  ORDER BY finished_at LIMIT :rows`);

/** Others wait for it: it is kept as if it had ended now. */
const keepLonger = sql("UPDATE pawl_batch SET finished_at = :now WHERE enqueue_seq = :seq");

const deleteBatch = sql<RemovedRow>(`
  DELETE FROM pawl_batch WHERE enqueue_seq = :seq
  RETURNING queue_id, key, has_more, state, batch_key, CASE WHEN payloads IS NULL THEN 0 ELSE 1 END AS is_inline`);

const deleteMore = sql("DELETE FROM pawl_batch_more WHERE enqueue_seq = :seq");

const deletePayloads = sql("DELETE FROM pawl_batch_payloads WHERE enqueue_seq = :seq");

interface RemovedRow {
  queue_id: number;
  key: string | null;
  has_more: 1 | null;
  state: BatchState;
  batch_key: number;
  is_inline: number;
}

/** What has ended is removed after the time of retention. What is dead stays: it is work that was not done. */
export const endedBatches: Ending = {
  *earliest(env) {
    return retentionEnd((yield* one(earliestFinished))?.at, env);
  },

  *expire(env, rows) {
    const until = env.retentionNow - env.retentionMs;
    const outdated = yield* all(selectOutdated, { until, rows: PRUNED_ROWS_PER_STEP });
    const removed: number[] = [];
    for (const { enqueue_seq: seq, awaited } of outdated) {
      if ((awaited ?? 0) === 0) removed.push(seq);
      else yield* run(keepLonger, { seq, now: env.retentionNow });
    }
    yield* removeOutdated(removed, env);
    return outdated.length < PRUNED_ROWS_PER_STEP ? outdated.length : rows;
  },
};

/** Removes batches, and queues that are empty then. */
export function* removeOutdated(seqs: readonly number[], env: Env): Operation<void> {
  const removed = (yield* each(
    deleteBatch,
    seqs.map((seq) => ({ seq })),
  )) as RemovedRow[];
  for (const [index, row] of removed.entries()) {
    const seq = seqs[index] as number;
    // A claim that names it and others waits for those, and is refused now.
    env.effects.wake(finishedKey(seq));
    if (row.is_inline === 0) yield* write(deletePayloads, { seq });
    if (row.has_more !== null) {
      env.reach?.(EVERYTHING);
      yield* dropAfter(seq, row.state);
      yield* run(deleteMore, { seq });
    }
    yield* touchKey(row.queue_id, row.key, env);
  }
  yield* forgetIds(
    removed.map(({ batch_key: batchKey }, index) => ({ batchKey, seq: seqs[index] as number })),
  );
  for (const queueId of new Set(removed.map((row) => row.queue_id))) {
    const counts = { ...NO_COUNTS };
    for (const row of removed) if (row.queue_id === queueId) counts[row.state] -= 1;
    yield* move(queueId, counts, env);
    yield* removeIfEmpty(queueId, env);
  }
}
