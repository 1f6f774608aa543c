// The places of changes that were taken away, as rows: nothing of a log is forgotten but what its changes say.
import { Buffer } from "node:buffer";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type CutChange, ENTRY_BYTES, entryAt, MAX_CUT_CHANGES } from "./cut.js";

/** A row of so many is left as it is. */
const FULL_BYTES = MAX_CUT_CHANGES * ENTRY_BYTES;
/** Rows that are in memory at once where the last of a branch are looked through: 22 KiB. */
const ROWS_FROM_END = 8;

const selectCutAt = sql<CutRow>(
  "SELECT seq, changes FROM pawl_cut WHERE branch = :branch AND seq >= :seq ORDER BY seq LIMIT 1",
);

const selectCutsAfter = sql<CutRow>(`
  SELECT seq, changes FROM pawl_cut WHERE branch = :branch AND seq > :seq ORDER BY seq LIMIT :rows`);

const selectCutsBefore = sql<CutRow>(`
  SELECT seq, changes FROM pawl_cut WHERE branch = :branch AND seq < :before ORDER BY seq DESC LIMIT :rows`);

const selectLastCut = sql<CutRow>(
  "SELECT seq, changes FROM pawl_cut WHERE branch = :branch ORDER BY seq DESC LIMIT 1",
);

const insertCut = sql("INSERT INTO pawl_cut (branch, seq, changes) VALUES (:branch, :seq, :changes)");

const deleteCut = sql("DELETE FROM pawl_cut WHERE branch = :branch AND seq = :seq");

const noteLastCut = sql("UPDATE pawl_branch SET cut_seq = :seq, cut_id = :id WHERE branch = :branch");

interface CutRow {
  /** The place of the last. */
  seq: number;
  changes: Uint8Array;
}

/** Changes that followed each other on a branch and were taken away. */
export interface CutRun {
  readonly first: number;
  readonly last: number;
  /** `ENTRY_BYTES` for each. */
  readonly changes: Buffer;
}

function runOf({ seq, changes }: CutRow): CutRun {
  return {
    first: seq - changes.length / ENTRY_BYTES + 1,
    last: seq,
    changes: Buffer.from(changes.buffer, changes.byteOffset, changes.length),
  };
}

/** The change that was at a place of a branch, if it was taken away. */
export function* findCut(branch: number, seq: number): Operation<CutChange | undefined> {
  const row = yield* one(selectCutAt, { branch, seq });
  const found = row && runOf(row);
  return found === undefined || found.first > seq ? undefined : entryAt(found.changes, seq - found.first);
}

/** Those that end behind a place, at most `rows`. */
export function* cutsAfter(branch: number, seq: number, rows: number): Operation<CutRun[]> {
  return (yield* all(selectCutsAfter, { branch, seq, rows })).map(runOf);
}

/** Puts down changes that are taken away, or were elsewhere, together with their neighbours that were so before. */
export function* keepCut(branch: number, first: number, changes: Buffer): Operation<void> {
  let [from, to, whole] = [first, first + changes.length / ENTRY_BYTES - 1, changes];
  const before = from === 1 ? undefined : yield* one(selectCutAt, { branch, seq: from - 1 });
  if (before?.seq === from - 1 && before.changes.length < FULL_BYTES) {
    const joined = runOf(before);
    yield* run(deleteCut, { branch, seq: before.seq });
    [from, whole] = [joined.first, Buffer.concat([joined.changes, whole])];
  }
  const after = yield* one(selectCutAt, { branch, seq: to + 1 });
  const following = after && runOf(after);
  if (following?.first === to + 1 && following.changes.length < FULL_BYTES) {
    yield* run(deleteCut, { branch, seq: following.last });
    [to, whole] = [following.last, Buffer.concat([whole, following.changes])];
  }
  for (let at = 0; at < whole.length; at += FULL_BYTES) {
    const part = whole.subarray(at, at + FULL_BYTES);
    const seq = from + (at + part.length) / ENTRY_BYTES - 1;
    yield* run(insertCut, { branch, seq, changes: part });
  }
  yield* noteCuts(branch);
}

/** Takes a place out of what was taken away: the change itself has come again. */
export function* takeOut(branch: number, seq: number): Operation<void> {
  const row = yield* one(selectCutAt, { branch, seq });
  if (row === undefined || runOf(row).first > seq) throw new Error(`branch ${branch} has no cut at ${seq}`);
  const { first, last, changes } = runOf(row);
  yield* run(deleteCut, { branch, seq: last });
  const before = changes.subarray(0, (seq - first) * ENTRY_BYTES);
  const after = changes.subarray((seq - first + 1) * ENTRY_BYTES);
  if (before.length > 0) yield* run(insertCut, { branch, seq: seq - 1, changes: before });
  if (after.length > 0) yield* run(insertCut, { branch, seq: last, changes: after });
  yield* noteCuts(branch);
}

/**
 * The place of the last change of a branch that was taken away and is not later than a time; 0 if none is. Only those
 * that are later are read, and some before them.
 */
export function* lastCutAtMost(branch: number, wallMs: number): Operation<number> {
  let before = Number.MAX_SAFE_INTEGER;
  for (;;) {
    const rows = yield* all(selectCutsBefore, { branch, before, rows: ROWS_FROM_END });
    for (const { last, changes } of rows.map(runOf)) {
      for (let index = changes.length / ENTRY_BYTES - 1, seq = last; index >= 0; index -= 1, seq -= 1) {
        if (entryAt(changes, index).hlc[0] <= wallMs) return seq;
      }
      before = last;
    }
    if (rows.length < ROWS_FROM_END) return 0;
  }
}

/** Forgets those behind a place, as the branch then ends there. */
export function* dropCutsAfter(branch: number, seq: number): Operation<void> {
  for (const { first, last, changes } of yield* cutsAfter(branch, seq, Number.MAX_SAFE_INTEGER)) {
    yield* run(deleteCut, { branch, seq: last });
    if (first > seq) continue;
    yield* run(insertCut, { branch, seq, changes: changes.subarray(0, (seq - first + 1) * ENTRY_BYTES) });
  }
  yield* noteCuts(branch);
}

function* noteCuts(branch: number): Operation<void> {
  const row = yield* one(selectLastCut, { branch });
  const last = row && runOf(row);
  const id = last && entryAt(last.changes, last.last - last.first).id;
  yield* run(noteLastCut, { branch, seq: last?.last ?? 0, id: id ?? null });
}
