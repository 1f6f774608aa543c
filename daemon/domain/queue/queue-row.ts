// The row of a queue: its last fencing token, how many of its batches are in which state, and its settings. A turn
// reads it once and writes it once.
import type { BatchState } from "@pawl/protocol";
import { all, insert, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { KeptRows } from "../../turns/turn-memory.js";
import { type BatchRow, OWN_COLUMNS } from "./row.js";

/**
 * Heads that are read at once where one turn claims many batches of a queue. The first read is of one, each further
 * one of twice as many: a head costs 3 us, also where nobody claims it.
 */
const MAX_HEADS_PER_READ = 16;

export interface QueueRow extends Record<BatchState, number> {
  readonly queue_id: number;
  readonly queue: string;
  fencing_token: number;
  readonly max_attempts: number | null;
  /** As JSON. */
  readonly retry: string | null;
}

export type Settings = Pick<QueueRow, "max_attempts" | "retry">;

/** A negative number takes away. */
type Counts = { readonly [State in BatchState]?: number };

export const NO_COUNTS = { ready: 0, scheduled: 0, claimed: 0, completed: 0, dead: 0, cancelled: 0 };

const selectQueue = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue = :queue");

const selectQueueById = sql<QueueRow>("SELECT * FROM pawl_queue WHERE queue_id = :queueId");

const insertQueue = sql(`
  INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
  VALUES (:queue,
    coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'queue_fencing_floor'), 0), 0, 0, 0, 0, 0, 0)`);

const updateQueue = sql(`
  UPDATE pawl_queue SET fencing_token = :fencingToken, ready = :ready, scheduled = :scheduled, claimed = :claimed,
    completed = :completed, dead = :dead, cancelled = :cancelled
  WHERE queue_id = :queueId`);

const updateSettings = sql(
  "UPDATE pawl_queue SET max_attempts = :maxAttempts, retry = :retry WHERE queue_id = :queueId",
);

const deleteQueue = sql("DELETE FROM pawl_queue WHERE queue_id = :queueId");

/** A queue that comes again begins with this fencing token, so that the tokens of a name never come down. */
const raiseFloor = sql(`
  INSERT INTO pawl_meta (key, value) VALUES ('queue_fencing_floor', :fencingToken)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value
    WHERE CAST(pawl_meta.value AS BIGINT) < CAST(excluded.value AS BIGINT)`);

/** Without payloads that are not in the row itself: they may be large, and only the first batch is sure to go. */
const selectHeads = sql<Head>(`
  SELECT ${OWN_COLUMNS}, b.payloads
  FROM pawl_batch b WHERE b.queue_id = :queueId AND b.state = 'ready' ORDER BY b.enqueue_seq LIMIT :rows`);

/** The first ready batch of a queue, as far as its own row says. */
export type Head = Omit<BatchRow, "payloads"> & { payloads: string | null };

/** A queue as the turn has it. */
interface KeptQueue {
  readonly row: QueueRow;
  changed: boolean;
  /** The first of its ready batches, in order: one at first, more once that is not enough. */
  heads: Head[];
  /** Heads that the next read takes. */
  nextRead: number;
}

class KeptQueues implements KeptRows {
  readonly byName = new Map<string, KeptQueue>();
  readonly byId = new Map<number, KeptQueue>();

  keep(row: QueueRow | undefined): KeptQueue | undefined {
    if (row === undefined) return undefined;
    const kept = { row, changed: false, heads: [], nextRead: 1 };
    this.byName.set(row.queue, kept);
    this.byId.set(row.queue_id, kept);
    return kept;
  }

  drop({ queue, queue_id }: QueueRow): void {
    this.byName.delete(queue);
    this.byId.delete(queue_id);
  }

  *writeBack(): Operation<void> {
    for (const kept of this.byId.values()) {
      if (!kept.changed) continue;
      // Each by its name: to gather the rest of a row takes longer than the statement.
      const { queue_id: queueId, fencing_token: fencingToken, ready, scheduled, claimed } = kept.row;
      const { completed, dead, cancelled } = kept.row;
      yield* run(updateQueue, {
        queueId,
        fencingToken,
        ready,
        scheduled,
        claimed,
        completed,
        dead,
        cancelled,
      });
      kept.changed = false;
    }
  }
}

function* keptByName(queue: string, env: Env): Operation<KeptQueue | undefined> {
  const queues = env.turn.of(KeptQueues);
  return queues.byName.get(queue) ?? queues.keep(yield* one(selectQueue, { queue }));
}

function* keptById(queueId: number, env: Env): Operation<KeptQueue> {
  const queues = env.turn.of(KeptQueues);
  const kept = queues.byId.get(queueId) ?? queues.keep(yield* one(selectQueueById, { queueId }));
  if (kept === undefined) throw new Error(`there are batches of a queue ${queueId}, which is not there`);
  return kept;
}

/** Undefined for a queue that has no batches. */
export function* findQueue(queue: string, env: Env): Operation<Readonly<QueueRow> | undefined> {
  return (yield* keptByName(queue, env))?.row;
}

export function* queueOf(queueId: number, env: Env): Operation<Readonly<QueueRow>> {
  return (yield* keptById(queueId, env)).row;
}

/** Counts a batch that comes behind all others, and gives the queue; the first one makes it. */
export function* addTo(queue: string, state: "ready" | "scheduled", env: Env): Operation<Readonly<QueueRow>> {
  const kept = yield* keptOrMade(queue, env);
  kept.row[state] += 1;
  kept.changed = true;
  env.effects.count(`${state}Batches`, 1);
  return kept.row;
}

function* keptOrMade(queue: string, env: Env): Operation<KeptQueue> {
  const kept = yield* keptByName(queue, env);
  return kept ?? (yield* keptById(yield* insert(insertQueue, { queue }), env));
}

/** Sets what a queue is configured to; one without batches is there for its settings alone. */
export function* configureQueue(queue: string, settings: Settings, env: Env): Operation<void> {
  const { row } = yield* keptOrMade(queue, env);
  const { max_attempts: maxAttempts, retry } = Object.assign(row, settings);
  yield* run(updateSettings, { queueId: row.queue_id, maxAttempts, retry });
  yield* removeIfEmpty(row.queue_id, env);
}

/** Counts batches that go from state to state. */
export function* move(queueId: number, counts: Counts, env: Env): Operation<void> {
  const kept = yield* keptById(queueId, env);
  for (const [state, by] of Object.entries(counts) as [BatchState, number][]) {
    if (by === 0) continue;
    kept.row[state] += by;
    env.effects.count(`${state}Batches`, by);
  }
  kept.changed = true;
  if ((counts.ready ?? 0) !== 0) kept.heads = [];
}

/** The first batch of a queue that is ready. */
export function* headOf(
  queue: string,
  env: Env,
): Operation<{ readonly queueId: number; readonly head: Head } | undefined> {
  const kept = yield* keptByName(queue, env);
  if (kept === undefined) return undefined;
  if (kept.heads.length === 0) {
    kept.heads = yield* all(selectHeads, { queueId: kept.row.queue_id, rows: kept.nextRead });
    kept.nextRead = Math.min(2 * kept.nextRead, MAX_HEADS_PER_READ);
  }
  const [head] = kept.heads;
  return head && { queueId: kept.row.queue_id, head };
}

/** Counts the claim of the head, and of those that join it: of `size` batches together. Returns its fencing token. */
export function* countClaim(queueId: number, size: number, env: Env): Operation<number> {
  const kept = yield* keptById(queueId, env);
  const { row } = kept;
  row.fencing_token += 1;
  row.ready -= size;
  row.claimed += size;
  env.effects.count("readyBatches", -size);
  env.effects.count("claimedBatches", size);
  kept.changed = true;
  kept.heads.splice(0, size);
  env.effects.reached("queueToken", row.fencing_token);
  return row.fencing_token;
}

/** Removes a queue that has no batches and no settings any more. */
export function* removeIfEmpty(queueId: number, env: Env): Operation<void> {
  const { row } = yield* keptById(queueId, env);
  const { ready, scheduled, claimed, completed, dead, cancelled, fencing_token: fencingToken } = row;
  if (ready + scheduled + claimed + completed + dead + cancelled > 0) return;
  if (row.max_attempts !== null || row.retry !== null) return;
  env.turn.of(KeptQueues).drop(row);
  yield* run(deleteQueue, { queueId });
  yield* run(raiseFloor, { fencingToken: String(fencingToken) });
}
