// Results: the JSON that a worker leaves with the batches that it has completed, kept byte for byte.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { memberTexts, type Texts } from "@pawl/protocol/json-text";
import { MAX_PAGE_BYTES, MAX_PAYLOAD_NESTING_LEVELS, MAX_RESULT_BYTES } from "@pawl/protocol/limits";
import { nestingLevels } from "../../json/raw-json.js";
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

/**
 * The refusal of a result or a checkpoint that is too long, or too deep.
 *
 * @param batches how many keep it.
 */
export function tooLarge(method: string, path: string, text: string, batches: number): PawlError | undefined {
  if (nestingLevels(text) > MAX_PAYLOAD_NESTING_LEVELS) {
    return wrongParam(
      method,
      path,
      `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another. Send it as text, or flatten it`,
    );
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_RESULT_BYTES) {
    return wrongParam(
      method,
      path,
      `has ${bytes} bytes of JSON, and may have ${MAX_RESULT_BYTES}. Keep what is larger elsewhere, and its place here`,
    );
  }
  if (bytes * batches <= MAX_PAGE_BYTES) return undefined;
  return wrongParam(
    method,
    path,
    `has ${bytes} bytes of JSON for each of ${batches} batches, and all together may have ${MAX_PAGE_BYTES}. Make it shorter`,
  );
}

function wrongParam(method: string, path: string, message: string): PawlError {
  return refuse("invalid_params", `${method}: ${shown(path)} ${message}.`, { issues: [{ path, message }] });
}
