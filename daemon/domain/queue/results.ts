// Results: the JSON that a worker leaves with the batches that it has completed, kept byte for byte.
import type { PawlError } from "@pawl/protocol/errors";
import { memberTexts, type Texts } from "@pawl/protocol/json-text";
import { tooLarge, wrongParam } from "../../json/kept-values.js";
import { type Operation, one, run, sql } from "../../store/statement.js";

const selectId = sql<{ batch_id: string }>("SELECT batch_id FROM pawl_batch WHERE enqueue_seq = :seq");

const setResult = sql(`
  INSERT INTO pawl_batch_more (enqueue_seq, result) VALUES (:seq, :result)
  ON CONFLICT (enqueue_seq) DO UPDATE SET result = excluded.result`);

const setHasMore = sql("UPDATE pawl_batch SET has_more = 1 WHERE enqueue_seq = :seq");

/** The result of each batch by its enqueueSeq. */
type Results = ReadonlyMap<number, string>;

/**
 * What `queue.complete` says about results, checked.
 *
 * @param seqs the batches of the claim.
 * @param texts of `result` and of `results`, if they are given.
 * @returns undefined if nothing is said.
 */
export function* resultsFor(
  seqs: readonly number[],
  [ofAll, ofEach]: Texts,
): Operation<Results | PawlError | undefined> {
  if (ofAll !== undefined) {
    const wrong = tooLarge("queue.complete", "/result", ofAll, seqs.length);
    return wrong ?? new Map(seqs.map((seq) => [seq, ofAll]));
  }
  if (ofEach === undefined) return undefined;
  const seqById = new Map<string, number>();
  for (const seq of seqs)
    seqById.set(((yield* one(selectId, { seq })) as { batch_id: string }).batch_id, seq);
  const found = new Map<number, string>();
  for (const [batchId, text] of memberTexts(ofEach)) {
    const path = `/results/${batchId.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    const seq = seqById.get(batchId);
    if (seq === undefined)
      return wrongParam("queue.complete", path, "is no batch of the claim. Name its own");
    const wrong = tooLarge("queue.complete", path, text, 1);
    if (wrong !== undefined) return wrong;
    found.set(seq, text);
  }
  return found;
}

/** Keeps results with their batches. */
export function* keepResults(results: Results): Operation<void> {
  for (const [seq, result] of results) {
    yield* run(setResult, { seq, result });
    yield* run(setHasMore, { seq });
  }
}
