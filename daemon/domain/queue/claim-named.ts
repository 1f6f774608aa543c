// Claim of batches by their ids: those of them that may be claimed now, wherever they stand in their queue.
import type { Parsed } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import type { Operation } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { type Claimed, candidateOf, claimRows } from "./claim.js";
import { type HeldClaims, isWhole, takeUp } from "./claim-held.js";
import { firstUnfinished, hasRoom } from "./lines.js";
import { closureOf, mostByRate, settingsOfQueue } from "./queue-row.js";
import { type BatchRow, byIds, finishedKey, type HolderRow, isFinal, namedKey, readMore } from "./row.js";
import type { Settings } from "./settings.js";

interface NamedRow extends BatchRow, Pick<HolderRow, "claim_seq" | "fencing_token"> {
  readonly queue_id: number;
  readonly queue: string;
}

export function* claimNamed(
  batchIds: readonly string[],
  params: Parsed<"queue.claim">,
  env: Env,
  held?: HeldClaims,
): Operation<Outcome<Claimed>> {
  const named = new Map<number, NamedRow>();
  for (const [index, row] of (yield* byIds(batchIds)).entries()) {
    if (row instanceof PawlError) return row;
    const [other] = named.values();
    if (other !== undefined && row.queue_id !== other.queue_id) return ofAnother(row, other, index);
    named.set(row.enqueue_seq, row);
  }
  const all = [...named.values()];
  const { queue, queue_id: queueId } = all[0] as NamedRow;
  let rows = yield* claimable(all, params, env);
  let [head] = rows;
  const again = head && held?.of(head);
  if (again !== undefined && (yield* isWhole(again))) return yield* takeUp(queue, again, params, env);
  if (held !== undefined && rows.some((row) => held.of(row) !== undefined)) {
    const others = all.filter((row) => held.of(row) === undefined);
    rows = others.length === 0 ? [] : yield* claimable(others, params, env);
    [head] = rows;
  }
  if (head === undefined) {
    if (!env.mayWait || all.every(({ state }) => isFinal(state))) return { claim: null };
    const keys = all.map(({ enqueue_seq: seq }) => finishedKey(seq));
    // Others wait for other batches, and these may be moved to another queue, or be brought back and purged.
    return new Wait([namedKey(queue), ...keys], "named", { isAlone: true, keysChange: true });
  }

  return yield* claimRows(queue, queueId, rows, params, env);
}

/** Those of one queue that may be claimed now, in their order, as far as one claim takes them. */
function* claimable(
  named: readonly NamedRow[],
  { boundary, maxBatches = named.length }: Parsed<"queue.claim">,
  env: Env,
): Operation<NamedRow[]> {
  const ready = named.filter(
    ({ state, delivery_policy: policy }) =>
      state === "ready" && (boundary === "idle" || policy === "earliest_safe_boundary"),
  );
  const { queue_id: queueId } = named[0] as NamedRow;
  if (ready.length === 0 || (yield* closureOf(queueId, env)) !== undefined) return [];
  const most = Math.min(maxBatches, yield* mostByRate(queueId, env));
  const settings = yield* settingsOfQueue(queueId, env);
  const before = yield* earlierOfKey(ready, queueId, settings);
  const taken = new Set<NamedRow>();
  let bytes = 0;
  for (const row of ready) {
    if (taken.has(row)) continue;
    const earlier = before.get(row);
    if (earlier === undefined) continue;
    const together = [...earlier.filter((each) => !taken.has(each)), row];
    if (taken.size + together.length > most) continue;
    for (const each of together) {
      yield* readMore(each);
      bytes += candidateOf(each).bytes;
    }
    if (taken.size > 0 && bytes > MAX_PAGE_BYTES) break;
    for (const each of together) taken.add(each);
  }
  return ready.filter((row) => taken.has(row));
}

/**
 * Of ready batches, those that their keys let be claimed, each with the ones among them that have to be claimed before
 * it or with it: under a strict order the earlier ones of its key.
 */
function* earlierOfKey(
  ready: readonly NamedRow[],
  queueId: number,
  settings: Settings,
): Operation<Map<NamedRow, NamedRow[]>> {
  const before = new Map<NamedRow, NamedRow[]>();
  const byKey = new Map<string, NamedRow[]>();
  for (const row of ready) {
    if (row.key === null) before.set(row, []);
    else byKey.set(row.key, [...(byKey.get(row.key) ?? []), row]);
  }
  for (const [key, rows] of byKey) {
    if (!(yield* hasRoom(queueId, key, settings))) continue;
    if (settings.keyOrder !== "strict") {
      for (const row of rows) before.set(row, []);
      continue;
    }
    const earlier: NamedRow[] = [];
    for (const row of rows.toSorted((a, b) => a.enqueue_seq - b.enqueue_seq)) {
      const after = earlier.at(-1)?.enqueue_seq;
      if ((yield* firstUnfinished(queueId, key, undefined, after)) !== row.enqueue_seq) break;
      before.set(row, [...earlier]);
      earlier.push(row);
    }
  }
  return before;
}

function ofAnother(row: NamedRow, other: NamedRow, index: number): PawlError {
  const message = `is ${row.batch_id} of the queue ${shown(row.queue)}, and the others are of ${shown(other.queue)}`;
  return refuse("invalid_params", `queue.claim: /batchIds/${index} ${message}. A claim is of one queue.`, {
    issues: [{ path: `/batchIds/${index}`, message }],
  });
}
