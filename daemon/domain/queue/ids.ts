// Batches by their ids, which are random: store/schema/0009-batch-ids.sql says how they are kept, and why.
import { hash } from "node:crypto";
import { all, each, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, marked } from "../../turns/operation.js";

/** Hexadecimal digits of a batch id that its index holds: 48 bits, the most that SQLite keeps in six bytes. */
const BATCH_KEY_DIGITS = 12;
/** That of a text that is no batch id, which no batch has. */
const NO_KEY = -1;
const NONCE_BYTES = 12;
/** Ids that are entered at once, or go to the next level: some 1 ms of work. Fewer batches are in no index. */
const IDS_PER_STEP = 512;
/** Of a level to the one before it. Each step writes 1 page of a level for every 12 or so of its ids. */
const LEVEL_GROWTH = 16;
const LEVELS = "1, 2, 3, 4";

const selectEntered = sql<{ enqueue_seq: number }>(`
  SELECT enqueue_seq FROM pawl_batch_id WHERE level IN (${LEVELS}) AND batch_key = :batchKey`);

const selectNew = sql<{ enqueue_seq: number }>(`
  SELECT enqueue_seq FROM pawl_batch
  WHERE enqueue_seq > (SELECT next FROM pawl_batch_level WHERE level = 0) AND batch_key = :batchKey`);

const selectLevels = sql<LevelRow>("SELECT level, ids, next FROM pawl_batch_level ORDER BY level");

const updateLevel = sql("UPDATE pawl_batch_level SET ids = :ids, next = :next WHERE level = :level");

const countRemoved = sql("UPDATE pawl_batch_level SET ids = ids - 1 WHERE level = :level");

const enterNew = sql(`
  INSERT INTO pawl_batch_id (level, batch_key, enqueue_seq)
  SELECT 1, batch_key, enqueue_seq FROM pawl_batch WHERE enqueue_seq > :after AND enqueue_seq <= :last
  ORDER BY batch_key`);

const selectRange = sql<{ ids: number; last: number | null }>(`
  SELECT count(*) AS ids, max(batch_key) AS last FROM
    (SELECT batch_key FROM pawl_batch_id WHERE level = :level AND batch_key >= :next
     ORDER BY batch_key LIMIT :rows) AS range`);

const copyRange = sql(`
  INSERT INTO pawl_batch_id (level, batch_key, enqueue_seq)
  SELECT level + 1, batch_key, enqueue_seq FROM pawl_batch_id
  WHERE level = :level AND batch_key >= :next AND batch_key <= :last ORDER BY batch_key`);

const deleteRange = sql(
  "DELETE FROM pawl_batch_id WHERE level = :level AND batch_key >= :next AND batch_key <= :last",
);

const deleteId = sql<{ level: number }>(`
  DELETE FROM pawl_batch_id WHERE level IN (${LEVELS}) AND batch_key = :batchKey AND enqueue_seq = :seq
  RETURNING level`);

interface LevelRow {
  readonly level: number;
  ids: number;
  next: number;
}

/** A new id, and the part of it that its index holds. */
export function newId(
  queueText: string,
  sourceKey: string | null,
  env: Env,
): { batchId: string; batchKey: number } {
  const nonce = env.random(NONCE_BYTES).toString("base64");
  const digest = marked(
    hash("sha256", `[${queueText},${JSON.stringify(sourceKey)},${env.now},"${nonce}"]`, "hex"),
    env,
  );
  return { batchId: `qwb:${digest}`, batchKey: keyOf(digest) };
}

/** The places of the batches that may have this id: mostly one, or none. */
export function* placesOf(batchId: string): Operation<number[]> {
  const batchKey = keyOfId(batchId);
  if (batchKey === NO_KEY) return [];
  const found = [...(yield* all(selectEntered, { batchKey })), ...(yield* all(selectNew, { batchKey }))];
  return found.map((row) => row.enqueue_seq);
}

/** For each id a place where its batch may be, of those that are looked up together; undefined if there is none. */
export function* placeOfEach(batchIds: readonly string[]): Operation<(number | undefined)[]> {
  const keys = batchIds.map((batchId) => ({ batchKey: keyOfId(batchId) }));
  const entered = yield* each(selectEntered, keys);
  const added = yield* each(selectNew, keys);
  return batchIds.map((_, index) => (entered[index] ?? added[index])?.enqueue_seq);
}

function keyOfId(batchId: string): number {
  const [, digest] = /^qwb:([0-9a-f]{64})$/.exec(batchId) ?? [];
  return digest === undefined ? NO_KEY : keyOf(digest);
}

function keyOf(digest: string): number {
  return Number.parseInt(digest.slice(0, BATCH_KEY_DIGITS), 16);
}

/**
 * True if so many batches were added that their ids are to be entered. Not where several daemons add some side by side,
 * of which one turn sees not all: there the batches have an index of their own.
 */
export function isStep(seq: number, env: Env): boolean {
  return seq % IDS_PER_STEP === 0 && env.reach === undefined;
}

/** Enters the ids of the batches up to one that was added: of those that are not entered yet. */
export function* enterIds(seq: number): Operation<void> {
  const levels = yield* all(selectLevels);
  const [added, first] = levels as [LevelRow, LevelRow];
  first.ids += yield* run(enterNew, { after: added.next, last: seq });
  added.next = seq;
  for (const [index, level] of levels.entries()) {
    const following = levels[index + 1];
    if (level === added || following === undefined) continue;
    if (level.ids > IDS_PER_STEP * LEVEL_GROWTH ** level.level) yield* handOn(level, following);
  }
  for (const { level, ids, next } of levels) yield* run(updateLevel, { level, ids, next });
}

/** The ids that come next in the order of a level, which begins anew behind its last one, go to the following level. */
function* handOn(from: LevelRow, to: LevelRow): Operation<void> {
  const { level, next } = from;
  const range = yield* one(selectRange, { level, next, rows: IDS_PER_STEP });
  const last = range?.last ?? null;
  if (last === null) {
    from.next = 0;
    return;
  }
  const ids = yield* run(copyRange, { level, next, last });
  yield* run(deleteRange, { level, next, last });
  from.ids -= ids;
  from.next = last + 1;
  to.ids += ids;
}

/** Removes the ids of batches that are removed. */
export function* forgetIds(
  batches: readonly { readonly batchKey: number; readonly seq: number }[],
): Operation<void> {
  for (const entered of yield* each(deleteId, batches))
    if (entered !== undefined) yield* run(countRemoved, { level: entered.level });
}
