// The logs of a board as trees: what a node has of them, and up to where somebody has them who names some changes.
import type { Result } from "@pawl/protocol";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { CutChange } from "./cut.js";
import { findCut } from "./cuts.js";
import { findLog, findPlace, type StoredPlace } from "./tables.js";

const selectBranches = sql<BranchRow>("SELECT * FROM pawl_branch ORDER BY branch");

const selectAt = sql<{ change_id: string; wall: number; counter: number }>(
  "SELECT change_id, wall, counter FROM pawl_change WHERE branch = :branch AND seq = :seq",
);

export interface BranchRow {
  branch: number;
  author: string;
  incarnation: string;
  parent: number | null;
  from_seq: number;
  head_seq: number;
  head_id: string;
  /** The last change of it that compaction has taken away; 0 and null if none was. */
  cut_seq: number;
  cut_id: string | null;
  /** Between these, others took changes away, and perhaps not all has come that they have instead; else null. */
  open_seq: number | null;
  open_end: number | null;
}

/** A change by its place and its hash. */
export type Head = Result<"pipeline.heads">["heads"][number];

type OpenLog = NonNullable<Result<"pipeline.heads">["open"]>[number];

/** All branches, each after the one that it goes off from. */
export function* findBranches(): Operation<BranchRow[]> {
  return yield* all(selectBranches);
}

/** The last change of each log, the same on all nodes that have the same changes. */
export function headsOf(branches: readonly BranchRow[]): Head[] {
  const found = branches.map(({ author, incarnation, head_seq: seq, head_id: hash }) => ({
    author,
    incarnation,
    seq,
    hash,
  }));
  const key = ({ author, incarnation, hash }: Head) => `${author} ${incarnation} ${hash}`;
  return found.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** Up to where changes were taken away, of the logs of which any were. */
export function cutsOf(branches: readonly BranchRow[]): NonNullable<Result<"pipeline.heads">["cuts"]> {
  return branches.flatMap(({ author, incarnation, cut_seq: seq, cut_id: hash }) =>
    hash === null ? [] : [{ author, incarnation, cut: { seq, hash } }],
  );
}

/** Logs of which cuts came, and perhaps not all that the node that gave them has in their place. */
export function* openOf(branches: readonly BranchRow[]): Operation<OpenLog[]> {
  const open: OpenLog[] = [];
  for (const row of branches) {
    const { branch, author, incarnation, open_seq: seq, open_end: end } = row;
    if (seq === null || end === null) continue;
    const before = yield* changeBefore(row, seq + 1);
    const last = yield* changeAt(branch, end);
    if (last === undefined) continue;
    const after = before === undefined ? null : { seq, hash: before.id };
    open.push({ author, incarnation, after, cut: { seq: end, hash: last.id } });
  }
  return open;
}

/** The change at a place of a branch, whether it was taken away or not. */
export function* changeAt(branch: number, seq: number): Operation<CutChange | undefined> {
  const row = yield* one(selectAt, { branch, seq });
  return row === undefined
    ? yield* findCut(branch, seq)
    : { id: row.change_id, hlc: [row.wall, row.counter] };
}

/** The change before a place of a branch, which is another branch's at its beginning; undefined at that of a log. */
export function* changeBefore(
  { branch, parent, from_seq: fromSeq }: BranchRow,
  seq: number,
): Operation<CutChange | undefined> {
  const at = seq - 1 === fromSeq ? parent : branch;
  return at === null ? undefined : yield* changeAt(at, seq - 1);
}

/** Where a change stands that somebody gave as a head, if it is here. */
export function* placeOf(head: Head): Operation<StoredPlace | undefined> {
  return yield* findPlace(yield* findLog(head), head.seq, head.hash);
}

/** By branch, the last sequence number of these changes and of all before them in their logs. */
export function* placesUpTo(
  given: readonly Head[],
  branches: readonly BranchRow[],
): Operation<Map<number, number>> {
  const byNumber = new Map(branches.map((branch) => [branch.branch, branch]));
  const byHead = new Map(branches.map((branch) => [branch.head_id, branch]));
  const places = new Map<number, number>();
  for (const each of given) {
    const head = byHead.get(each.hash);
    const place = head === undefined ? yield* placeOf(each) : { branch: head.branch, seq: head.head_seq };
    let branch = place?.branch ?? null;
    let seq = place?.seq ?? 0;
    while (branch !== null && seq > (places.get(branch) ?? 0)) {
      places.set(branch, seq);
      const { parent, from_seq: fromSeq } = byNumber.get(branch) as BranchRow;
      branch = parent;
      seq = fromSeq;
    }
  }
  return places;
}
