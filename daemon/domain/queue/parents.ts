// Parents: a claim carries what the batches have come to that its own have waited for.
import type { BatchState } from "@pawl/protocol";
import { MAX_PARENT_RESULTS_BYTES } from "@pawl/protocol/limits";
import { keptJson, RawJson } from "../../json/raw-json.js";
import { all, type Operation, sql } from "../../store/statement.js";
import type { BatchRow } from "./row.js";

const selectParents = sql<{ batch_id: string; state: BatchState; result: string | null }>(`
  SELECT p.batch_id, p.state, m.result FROM pawl_batch_after a CROSS JOIN pawl_batch p
    LEFT JOIN pawl_batch_more m ON m.enqueue_seq = p.enqueue_seq
  WHERE a.enqueue_seq = :seq AND p.enqueue_seq = a.after_seq ORDER BY a.after_seq`);

/** Undefined if the batches have waited for none. Their results are in it as far as there is room. */
export function* parentsOf(rows: readonly BatchRow[]): Operation<RawJson | undefined> {
  const parents = new Map<string, string>();
  let left = MAX_PARENT_RESULTS_BYTES;
  for (const { enqueue_seq: seq, more } of rows) {
    if (more === undefined || more.after_ids === null) continue;
    for (const { batch_id: batchId, state, result } of yield* all(selectParents, { seq })) {
      if (parents.has(batchId)) continue;
      const bytes = result === null ? 0 : Buffer.byteLength(result);
      const fits = bytes <= left;
      if (fits) left -= bytes;
      const shown =
        result === null
          ? ""
          : `,"result":${fits ? keptJson(result, `The batch ${batchId}`).text : `{"$result":{"sizeBytes":${bytes}}}`}`;
      parents.set(batchId, `"${batchId}":{"state":"${state}"${shown}}`);
    }
  }
  return parents.size === 0 ? undefined : new RawJson(`{${[...parents.values()].join(",")}}`);
}
