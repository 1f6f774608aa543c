// After: the batches that new ones are to wait for are found, and put in an order in which each comes behind them.
import type { BatchState } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_AFTER_BATCHES_PER_CALL } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { After, Awaited } from "./flows.js";
import { placesOf } from "./ids.js";
import { type Draft, type Enqueued, waitingFor } from "./new-batch.js";

/** Batches, and waits between two of them, that are looked at for a circle: some 4 ms of work. */
const MAX_LOOKED_AT = 800;

const BATCH_ID = /^qwb:[0-9a-f]{64}$/;

const selectAwaited = sql<{ state: BatchState; has_more: 1 | null }>(
  "SELECT state, has_more FROM pawl_batch WHERE enqueue_seq = :seq AND batch_id = :batchId",
);

/** Batches that wait for others, or would again if they came back. */
const MAY_WAIT = "('blocked', 'cancelled')";

/** What a batch waits for: others, and the end of the one that it follows. */
const selectAwaitedBy = sql<{ seq: number }>(`
  SELECT a.after_seq AS seq FROM pawl_batch_after a CROSS JOIN pawl_batch b
  WHERE a.enqueue_seq = :seq AND b.enqueue_seq = a.enqueue_seq AND b.state IN ${MAY_WAIT}
  UNION ALL
  SELECT m.follows_seq AS seq FROM pawl_batch_more m WHERE m.enqueue_seq = :seq AND m.follows_seq IS NOT NULL
  LIMIT :rows`);

/** What waits for a batch: others, and its follower. */
const selectWaitingFor = sql<{ seq: number }>(`
  SELECT a.enqueue_seq AS seq FROM pawl_batch_after a CROSS JOIN pawl_batch b
  WHERE a.after_seq = :seq AND b.enqueue_seq = a.enqueue_seq AND b.state IN ${MAY_WAIT}
  UNION ALL
  SELECT m.follower_seq AS seq FROM pawl_batch_more m WHERE m.enqueue_seq = :seq AND m.follower_seq IS NOT NULL
  LIMIT :rows`);

/** Finds batches that others wait for. Each is looked for once, and read once until any may have changed. */
export class AwaitedBatches {
  readonly #found = new Map<string, Awaited>();
  readonly #places = new Map<string, number>();
  /** The batches of one call, by their names within it. */
  readonly #named = new Map<string, { batchId: string; seq: number }>();

  /** A batch of this call, which others of it name so. */
  name(ref: string, batchId: string, seq: number): void {
    this.#named.set(ref, { batchId, seq });
  }

  /** A batch that was there has been changed, and with it perhaps others that wait for it. */
  haveChanged(): void {
    this.#found.clear();
  }

  /** The draft with the batches that it waits for, or the refusal of one that is not there. */
  *of(draft: Draft, index?: number): Operation<Draft | PawlError> {
    const { after = [], when = "success" } = draft.params;
    if (after.length === 0) return draft;
    const batches = new Map<number, Awaited>();
    for (const [place, name] of after.entries()) {
      const named = this.#named.get(name);
      const batchId = named?.batchId ?? name;
      const at = named?.seq ?? this.#places.get(batchId);
      const found = this.#found.get(batchId) ?? (yield* findAwaited(batchId, at));
      if (found === undefined) return unknown(name, place, index);
      this.#found.set(batchId, found);
      this.#places.set(batchId, found.seq);
      batches.set(found.seq, found);
    }
    return waitingFor(draft, { batches: [...batches.values()], when });
  }
}

/** @param place where it is, if that is known. */
function* findAwaited(batchId: string, place: number | undefined): Operation<Awaited | undefined> {
  for (const seq of place === undefined ? yield* placesOf(batchId) : [place]) {
    const found = yield* one(selectAwaited, { seq, batchId });
    if (found !== undefined) return { seq, batchId, state: found.state, hasMore: found.has_more !== null };
  }
  return undefined;
}

function unknown(name: string, place: number, index: number | undefined): PawlError {
  const at = index === undefined ? {} : { index };
  if (BATCH_ID.test(name)) {
    const message = `There is no batch ${shown(name)} to wait for. What is completed or cancelled is removed some days later.`;
    return refuse("not_found", message, { what: "batch", batchId: name, ...at });
  }
  const path = `${index === undefined ? "" : `/batches/${index}`}/after/${place}`;
  const message = `is ${shown(name)}, which is neither a batchId nor the \`ref\` of another batch of this call`;
  return refuse("invalid_params", `${path} ${message}.`, { issues: [{ path, message }] });
}

/**
 * The indexes of new batches in an order in which each comes behind those that it waits for: as they were given, but
 * for those that are named before they come. Refuses circles, names that two have, and too much of it.
 */
export function orderOf(batches: readonly (Enqueued & { ref?: string | undefined })[]): number[] | PawlError {
  const indexes = new Map<string, number>();
  let named = 0;
  for (const [index, { ref, after = [] }] of batches.entries()) {
    named += after.length;
    if (ref === undefined) continue;
    const path = `/batches/${index}/ref`;
    if (BATCH_ID.test(ref)) return wrong(path, `is ${shown(ref)}, which looks like a batchId`);
    if (indexes.has(ref)) return wrong(path, `is ${shown(ref)}, as that of batches[${indexes.get(ref)}]`);
    indexes.set(ref, index);
  }
  if (named > MAX_AFTER_BATCHES_PER_CALL) {
    return wrong("/batches", `wait for ${named} batches in all, and may for ${MAX_AFTER_BATCHES_PER_CALL}`);
  }
  const order: number[] = [];
  const state = new Map<number, "open" | "done">();
  const visit = (index: number): PawlError | undefined => {
    if (state.get(index) === "done") return undefined;
    if (state.get(index) === "open") {
      return wrong(`/batches/${index}/after`, "makes a circle: the batch would wait for itself");
    }
    state.set(index, "open");
    for (const name of batches[index]?.after ?? []) {
      const other = indexes.get(name);
      const refused = other === undefined ? undefined : visit(other);
      if (refused !== undefined) return refused;
    }
    state.set(index, "done");
    order.push(index);
    return undefined;
  };
  for (const index of batches.keys()) {
    const refused = visit(index);
    if (refused !== undefined) return refused;
  }
  return order;
}

/**
 * Refuses that a batch which is there waits for others that wait for it. It is looked for from both ends, and done with
 * as soon as one of them is: mostly nothing waits for a batch that is replaced.
 */
export function* circleOf(seq: number, { batches }: After): Operation<PawlError | undefined> {
  const above = new Set(batches.map((each) => each.seq));
  const below = new Set([seq]);
  if (above.has(seq)) return circle();
  // A set goes on with what is added meanwhile.
  const ends = [
    { found: below, others: above, next: below.values(), select: selectWaitingFor },
    { found: above, others: below, next: above.values(), select: selectAwaitedBy },
  ];
  for (let left = MAX_LOOKED_AT; left > 0; ) {
    for (const { found, others, next, select } of ends) {
      const { value, done } = next.next();
      if (done) return undefined;
      const rows = yield* all(select, { seq: value, rows: Math.max(left, 1) });
      left -= 1 + rows.length;
      for (const row of rows) {
        if (others.has(row.seq)) return circle();
        found.add(row.seq);
      }
    }
  }
  const message = `is about a batch of a flow in which more than ${MAX_LOOKED_AT} batches would have to be looked at for a circle`;
  return refuse("invalid_params", `/after ${message}. Use another sourceKey: a new batch makes no circle.`, {
    issues: [{ path: "/after", message }],
  });
}

function circle(): PawlError {
  return wrong("/after", "makes a circle: the batch would wait for itself");
}

function wrong(path: string, message: string): PawlError {
  return refuse("invalid_params", `${path} ${message}.`, { issues: [{ path, message }] });
}
