// Purge: batches that nobody holds are removed for good, in steps.
import type { BatchState, Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_PURGED_BATCHES } from "@pawl/protocol/limits";
import { each, type Operation, one, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { ended, isTurning } from "./flows.js";
import { unfollow } from "./followers.js";
import { pageOf } from "./pages.js";
import { findQueue } from "./queue-row.js";
import { removeOutdated } from "./retention.js";
import { byIds, isFinal } from "./row.js";

/** Batches that one step removes: some 3 ms of work. */
const BATCHES_PER_STEP = 100;

const selectBatch = sql<PurgedRow>(`
  SELECT b.enqueue_seq, b.state, b.finished_at, b.enqueued_at, b.has_more, q.queue
  FROM pawl_batch b CROSS JOIN pawl_queue q WHERE b.enqueue_seq = :seq AND q.queue_id = b.queue_id`);

const selectAwaited = sql<{ awaited: number | null }>(
  "SELECT awaited FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

interface PurgedRow {
  readonly enqueue_seq: number;
  readonly state: BatchState;
  readonly finished_at: number | null;
  readonly enqueued_at: number;
  readonly has_more: 1 | null;
  readonly queue: string;
}

export function* purge(params: Parsed<"queue.purge">, env: Env): Operation<Outcome<Result<"queue.purge">>> {
  const { batchIds } = params;
  if (batchIds === undefined) return yield* purgeQueue(params, { purged: 0, state: 0, after: 0 }, env);
  const seqs = new Set<number>();
  for (const row of yield* byIds(batchIds)) {
    if (row instanceof PawlError) return row;
    if (row.state !== "claimed") seqs.add(row.enqueue_seq);
  }
  return { purged: yield* purgeAll([...seqs], params, env), more: false };
}

/** How far a purge of a queue has come: in which of its states, and up to which enqueueSeq. */
interface Progress {
  readonly purged: number;
  readonly state: number;
  readonly after: number;
}

function* purgeQueue(
  params: Parsed<"queue.purge">,
  { purged: before, state, after }: Progress,
  env: Env,
): Operation<Outcome<Result<"queue.purge">>> {
  const states = [...new Set(params.states)];
  yield* env.turn.writeBack();
  const queue = yield* findQueue(params.queue as string, env);
  if (queue === undefined || state >= states.length) return { purged: before, more: false };
  const rows = Math.min(BATCHES_PER_STEP, MAX_PURGED_BATCHES - before);
  const page = yield* pageOf(queue.queue_id, { state: states[state], after, rows });
  const seqs = page.map(({ enqueue_seq: seq }) => seq);
  const purged = before + (yield* purgeAll(seqs, params, env));
  const last = page.at(-1)?.enqueue_seq ?? 0;
  const next = page.length < rows ? { purged, state: state + 1, after: 0 } : { purged, state, after: last };
  if (next.state >= states.length) return { purged, more: false };
  if (purged === MAX_PURGED_BATCHES || !env.mayGoOn) return { purged, more: true };
  return new Unfinished((later) => purgeQueue(params, next, later));
}

/**
 * Removes those that are old enough and that no others wait for, and says how many. Whoever waited for the end of one
 * need not any more.
 */
function* purgeAll(seqs: readonly number[], params: Parsed<"queue.purge">, env: Env): Operation<number> {
  const found = yield* each(
    selectBatch,
    seqs.map((seq) => ({ seq })),
  );
  const { olderThanMs = 0, dryRun } = params;
  const rows = found.filter((row) => row !== undefined && ageOf(row, env) >= olderThanMs) as PurgedRow[];
  const plain = rows.filter((row) => row.has_more === null);
  if (dryRun !== true) {
    yield* removeOutdated(
      plain.map(({ enqueue_seq: seq }) => seq),
      env,
    );
  }
  let purged = plain.length;
  for (const row of rows) if (row.has_more !== null && (yield* purgeLinked(row, params, env))) purged += 1;
  return purged;
}

/** Never less than 0, also of one that was enqueued before the clock was set back. */
function ageOf({ finished_at: finishedAt, enqueued_at: enqueuedAt }: PurgedRow, env: Env): number {
  return Math.max(0, finishedAt === null ? env.wallMs - enqueuedAt : env.retentionNow - finishedAt);
}

/** Of those that have to do with others: one after the other, since the end of one lets go of others. */
function* purgeLinked(row: PurgedRow, { dryRun }: Parsed<"queue.purge">, env: Env): Operation<boolean> {
  const { enqueue_seq: seq, state, queue, has_more: hasMore } = row;
  if (((yield* one(selectAwaited, { seq }))?.awaited ?? 0) > 0) return false;
  if (yield* isTurning(seq)) return false;
  if (dryRun) return true;
  if (!isFinal(state)) {
    yield* unfollow(seq, hasMore);
    yield* ended(seq, queue, hasMore, env);
  }
  yield* removeOutdated([seq], env);
  return true;
}
