// Numbers that another node gave: a type that has such ranges takes its numbers from them alone, in order.
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_GRANTED_RANGES } from "@pawl/protocol/limits";
import { type Operation, one, run, sql } from "../../store/statement.js";

/** A counter, and the last number of the range in use; null for one that goes on by itself. */
interface AnyCounter {
  readonly nodeId: string;
  readonly type: string;
  readonly last: number;
  readonly grantedTo: number | null;
}

/** The counter of a type that has grants. */
export interface GrantedCounter extends AnyCounter {
  readonly grantedTo: number;
}

interface Range {
  readonly first: number;
  readonly last: number;
}

const OF_COUNTER = "node_id = :nodeId AND type = :type";

const selectRange = sql<Range>(`
  SELECT first, last FROM pawl_sequence_grant WHERE ${OF_COUNTER} AND last - first >= CAST(:count AS BIGINT) - 1
  ORDER BY first LIMIT 1`);

const selectRanges = sql<{ ranges: number; left: number; first: number | null; last: number | null }>(`
  SELECT count(*) AS ranges, CAST(coalesce(sum(last - first + 1), 0) AS BIGINT) AS "left", max(first) AS first,
    max(last) AS last
  FROM pawl_sequence_grant WHERE ${OF_COUNTER}`);

const insertRange = sql(`
  INSERT INTO pawl_sequence_grant (node_id, type, first, last) VALUES (:nodeId, :type, :first, :last)`);

const prolongRange = sql(
  `UPDATE pawl_sequence_grant SET last = :last WHERE ${OF_COUNTER} AND first = :first`,
);

const cutRanges = sql(`
  UPDATE pawl_sequence_grant SET first = CAST(:to AS BIGINT) + 1
  WHERE ${OF_COUNTER} AND first <= :to AND last > :to`);

const deleteRanges = sql(`DELETE FROM pawl_sequence_grant WHERE ${OF_COUNTER} AND last <= :to`);

/** The counter as it is from now on. What ranges it has is counted anew. */
const setCounter = sql(`
  INSERT INTO pawl_sequence (node_id, type, last, granted_to, granted_later)
  VALUES (:nodeId, :type, :last, :grantedTo,
    (SELECT CAST(coalesce(sum(last - first + 1), 0) AS BIGINT) FROM pawl_sequence_grant WHERE ${OF_COUNTER}))
  ON CONFLICT (node_id, type) DO UPDATE
    SET last = excluded.last, granted_to = excluded.granted_to, granted_later = excluded.granted_later`);

/**
 * Adds a range and returns how many numbers are left. Refuses with `conflict` one that is not above all that was
 * dispensed or granted, and with `exhausted` one too many.
 */
export function* add(counter: AnyCounter, { first, last }: Range): Operation<number | PawlError> {
  const { nodeId, type } = counter;
  const ranges = yield* rangesOf(counter);
  const inUseTo = counter.grantedTo ?? counter.last;
  const highest = Math.max(inUseTo, ranges.last ?? 0);
  if (first <= highest) {
    return refuse(
      "conflict",
      `Numbers of ${type} up to ${highest} were dispensed or granted here already. Grant a range that begins above that, not at ${first}.`,
      { type, highest },
    );
  }
  const adjoins = first === highest + 1;
  if (ranges.ranges >= MAX_GRANTED_RANGES && !adjoins) {
    return refuse(
      "exhausted",
      `${type} has ${MAX_GRANTED_RANGES} granted ranges of which nothing was taken. Use some of them before more are granted, or grant ranges that adjoin each other.`,
      { type, limit: MAX_GRANTED_RANGES },
    );
  }
  let grantedTo = inUseTo;
  if (adjoins && ranges.ranges === 0) grantedTo = last;
  else if (adjoins) yield* run(prolongRange, { nodeId, type, first: ranges.first as number, last });
  else yield* run(insertRange, { nodeId, type, first, last });
  yield* run(setCounter, { nodeId, type, last: counter.last, grantedTo });
  return inUseTo - counter.last + ranges.left + (last - first + 1);
}

/** The next number of a type that has grants; undefined with none left. */
export function* nextNumber(counter: GrantedCounter): Operation<number | undefined> {
  const { nodeId, type, last, grantedTo } = counter;
  return last < grantedTo ? last + 1 : (yield* one(selectRange, { nodeId, type, count: 1 }))?.first;
}

/**
 * Takes numbers that the range in use does not have any more from the first later one that has as many, and returns
 * the counter with the last of them. What is left before that range is left out.
 */
export function* takeLater(
  counter: GrantedCounter,
  count: number,
): Operation<{ last: number; grantedTo: number } | PawlError> {
  const { nodeId, type } = counter;
  const range = yield* one(selectRange, { nodeId, type, count });
  if (range === undefined) return yield* exhausted(counter, count);
  const now = { last: range.first + count - 1, grantedTo: range.last };
  yield* run(deleteRanges, { nodeId, type, to: range.last });
  yield* run(setCounter, { nodeId, type, ...now });
  return now;
}

/**
 * Leaves the numbers up to one out; above all of them, the counter goes on by itself. Returns false where nothing has
 * changed.
 */
export function* leaveOut(counter: GrantedCounter, to: number): Operation<boolean> {
  const { nodeId, type, grantedTo } = counter;
  const ranges = yield* rangesOf(counter);
  const last = Math.max(counter.last, to);
  const isAboveAll = to >= Math.max(grantedTo, ranges.last ?? 0);
  if (last === counter.last && !isAboveAll) return false;
  yield* run(deleteRanges, { nodeId, type, to });
  yield* run(cutRanges, { nodeId, type, to });
  yield* run(setCounter, { nodeId, type, last, grantedTo: isAboveAll ? null : Math.max(grantedTo, last) });
  return true;
}

export function* exhausted(counter: GrantedCounter, count: number): Operation<PawlError> {
  const { type, last, grantedTo } = counter;
  const ranges = yield* rangesOf(counter);
  const left = grantedTo - last + ranges.left;
  const highest = Math.max(grantedTo, ranges.last ?? 0);
  const rest =
    left === 0
      ? "none of them is left"
      : `${left} of them are left, and no range has the ${count} that are asked for`;
  return refuse(
    "exhausted",
    `The numbers of ${type} come from grants, and ${rest}. Have another node reserve a block and grant it here with sequence.grant; or let the counter go on by itself above ${highest}, the last that was granted, with sequence.advance.`,
    { type, last, left, granted: true },
  );
}

function* rangesOf({ nodeId, type }: AnyCounter) {
  const found = yield* one(selectRanges, { nodeId, type });
  return found ?? { ranges: 0, left: 0, first: null, last: null };
}
