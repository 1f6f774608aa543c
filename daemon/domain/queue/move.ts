// Move: batches that nobody holds go to another queue, in steps.
import type { BatchState, Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_MOVED_BATCHES } from "@pawl/protocol/limits";
import { each, type Operation, sql, write } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished } from "../../turns/operation.js";
import { pageOf } from "./pages.js";
import {
  findQueue,
  forgetHeads,
  move,
  queueOf,
  queueToFill,
  raiseToken,
  removeIfEmpty,
  touchKey,
} from "./queue-row.js";
import { byIds, finishedKey, waitKey } from "./row.js";

/** Batches that one step moves: some 4 ms of work. */
const BATCHES_PER_STEP = 150;

const selectBatch = sql<MovedRow>(`
  SELECT enqueue_seq, queue_id, batch_id, state, key, source_key, key_elsewhere, has_more FROM pawl_batch WHERE enqueue_seq = :seq`);

const selectUser = sql<{ enqueue_seq: number }>(`
  SELECT enqueue_seq FROM pawl_batch
  WHERE queue_id = :queueId AND source_key = :sourceKey AND key_elsewhere IS NULL`);

const selectFollowing = sql<{ follower_seq: number | null; follows_seq: number | null }>(
  "SELECT follower_seq, follows_seq FROM pawl_batch_more WHERE enqueue_seq = :seq",
);

/** The end of an earlier claim is not to be completed any more. */
const moveBatch = sql(
  `UPDATE pawl_batch SET queue_id = :queueId, claim_seq = NULL, fencing_token = NULL,
    in_line = CASE WHEN key IS NULL THEN NULL ELSE 1 END
  WHERE enqueue_seq = :seq`,
  { writes: "seq" },
);

interface MovedRow {
  readonly enqueue_seq: number;
  readonly queue_id: number;
  readonly batch_id: string;
  readonly state: BatchState;
  readonly key: string | null;
  readonly source_key: string | null;
  readonly key_elsewhere: 1 | null;
  readonly has_more: 1 | null;
}

export function* moveBatches(
  params: Parsed<"queue.move">,
  env: Env,
): Operation<Outcome<Result<"queue.move">>> {
  const { batchIds, queue, to } = params;
  if (queue === to) {
    const message = `is ${shown(to)}, where they are`;
    return refuse("invalid_params", `queue.move: /to ${message}. Name another queue.`, {
      issues: [{ path: "/to", message }],
    });
  }
  if (batchIds === undefined) return yield* moveQueue(params, { moved: 0, kept: 0, after: 0 }, env);
  const seqs = new Set<number>();
  for (const row of yield* byIds(batchIds)) {
    if (row instanceof PawlError) return row;
    seqs.add(row.enqueue_seq);
  }
  const moved = yield* moveAll([...seqs], to, env);
  return { moved, kept: seqs.size - moved, more: false };
}

interface Progress {
  readonly moved: number;
  readonly kept: number;
  readonly after: number;
}

function* moveQueue(
  params: Parsed<"queue.move">,
  before: Progress,
  env: Env,
): Operation<Outcome<Result<"queue.move">>> {
  const { state, to } = params;
  yield* env.turn.writeBack();
  const queue = yield* findQueue(params.queue as string, env);
  let { moved, kept } = before;
  if (queue === undefined) return { moved, kept, more: false };
  const rows = Math.min(BATCHES_PER_STEP, MAX_MOVED_BATCHES - moved);
  const page = yield* pageOf(queue.queue_id, { state, after: before.after, rows });
  const seqs = page.map(({ enqueue_seq: seq }) => seq);
  const movedNow = yield* moveAll(seqs, to, env);
  moved += movedNow;
  kept += page.length - movedNow;
  if (page.length < rows) return { moved, kept, more: false };
  if (moved === MAX_MOVED_BATCHES || !env.mayGoOn) return { moved, kept, more: true };
  const after = page.at(-1)?.enqueue_seq ?? 0;
  return new Unfinished((later) => moveQueue(params, { moved, kept, after }, later));
}

/**
 * Moves those that are not claimed or completed, have no follower and are none, and whose sourceKey is not in use
 * there. Says how many.
 */
function* moveAll(seqs: readonly number[], to: string, env: Env): Operation<number> {
  const found = yield* each(
    selectBatch,
    seqs.map((seq) => ({ seq })),
  );
  const queueId = (yield* findQueue(to, env))?.queue_id;
  const rows = found.filter((row): row is MovedRow => row !== undefined && mayMove(row, queueId));
  const users = queueId === undefined ? new Set<string>() : yield* keysInUse(rows, queueId);
  const linked = yield* linkedOf(rows);
  let moved = 0;
  for (const row of rows) {
    const { enqueue_seq: seq, source_key: sourceKey } = row;
    const hasKey = sourceKey !== null && row.key_elsewhere === null;
    if (hasKey && users.has(sourceKey)) continue;
    if (linked.has(seq)) continue;
    yield* moveOne(row, to, env);
    if (hasKey) users.add(sourceKey);
    moved += 1;
  }
  return moved;
}

/** Those of these batches that have a follower or are one. */
function* linkedOf(rows: readonly MovedRow[]): Operation<Set<number>> {
  const seqs = rows.flatMap(({ enqueue_seq: seq, has_more: hasMore }) => (hasMore === null ? [] : [seq]));
  const found = yield* each(
    selectFollowing,
    seqs.map((seq) => ({ seq })),
  );
  const isLinked = (index: number): boolean =>
    (found[index]?.follower_seq ?? null) !== null || (found[index]?.follows_seq ?? null) !== null;
  return new Set(seqs.filter((_, index) => isLinked(index)));
}

function mayMove({ state, queue_id: from }: MovedRow, queueId: number | undefined): boolean {
  return state !== "claimed" && state !== "completed" && from !== queueId;
}

/** Which of the sourceKeys of these batches are in use in a queue. */
function* keysInUse(rows: readonly MovedRow[], queueId: number): Operation<Set<string>> {
  const keys = rows.flatMap(({ source_key: sourceKey, key_elsewhere: elsewhere }) =>
    sourceKey === null || elsewhere !== null ? [] : [sourceKey],
  );
  const users = yield* each(
    selectUser,
    keys.map((sourceKey) => ({ queueId, sourceKey })),
  );
  return new Set(keys.filter((_, index) => users[index] !== undefined));
}

function* moveOne(row: MovedRow, to: string, env: Env): Operation<void> {
  const { enqueue_seq: seq, queue_id: from, state, key } = row;
  const queueId = yield* queueToFill(to, env);
  yield* raiseToken(queueId, from, env);
  yield* write(moveBatch, { seq, queueId });
  yield* move(from, { [state]: -1 }, env);
  yield* move(queueId, { [state]: 1 }, env);
  yield* forgetHeads(queueId, env);
  yield* touchKey(from, key, env);
  yield* touchKey(queueId, key, env);
  const { queue } = yield* queueOf(from, env);
  if (env.effects.isFollowed) {
    env.effects.tell("queue", queue, "moved", row.batch_id, { from: queue, to });
    env.effects.tell("queue", to, "moved", row.batch_id, { from: queue, to });
  } else {
    env.effects.note("queue", queue, "moved", 1);
    env.effects.note("queue", to, "moved", 1);
  }
  yield* removeIfEmpty(from, env);
  if (state === "ready") env.effects.wake(waitKey(to));
  // Whoever waits for this one does so by its queue.
  env.effects.wake(finishedKey(seq));
}
