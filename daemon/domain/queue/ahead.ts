// What calls that one transaction performs will read one after the other, read for all of them before the first one:
// for a store that is asked over a network, where each read is a round trip.
import type { MethodName, Parsed } from "@pawl/protocol";
import { all, type Operation, one, type Statement, sql } from "../../store/statement.js";
import type { TurnMemory } from "../../turns/turn-memory.js";
import { namedClaim } from "./holder.js";
import { insertBatch } from "./new-batch.js";
import { type Head, headsKnown, keepAhead, type QueueRow, selectQueue, selectsHeads } from "./queue-row.js";
import { queueOfScope } from "./row.js";
import { SinglesAhead, selectSingle } from "./single-claim.js";

/** Heads of a queue that are read ahead; more are read once they are needed. */
const MAX_HEADS_AHEAD = 64;

const selectHeadsByName = sql<Head>(selectsHeads("(SELECT queue_id FROM pawl_queue WHERE queue = :queue)"));

/** A call that a turn will perform, with its params as they were checked. */
export interface Coming {
  readonly method: string;
  readonly params: object;
}

/** Reads that may go on side by side, and what is to be done once all of them are. */
export interface Ahead {
  readonly reads: readonly Operation<void>[];
  readonly keep: () => void;
  /** How many rows will be inserted, as far as that is known. */
  readonly inserts: readonly Inserts[];
}

export interface Inserts {
  readonly statement: Statement<never>;
  readonly times: number;
}

/**
 * Before the first operation of a turn, also of calls that come beside others for which it was read ahead.
 *
 * @param scopes that nobody else uses while the turn lasts.
 */
export function aheadOf(calls: readonly Coming[], scopes: Iterable<string>, turn: TurnMemory): Ahead {
  /** How many heads are claimed, by the queue. */
  const wanted = new Map<string, number>();
  for (const scope of scopes) {
    const queue = queueOfScope(scope);
    if (queue !== undefined) wanted.set(queue, 0);
  }
  const claimIds = new Set<string>();
  let batches = 0;
  for (const call of calls) {
    if (isOf("queue.enqueue", call)) batches += 1;
    else if (isOf("queue.enqueueMany", call)) batches += call.params.batches.length;
    else if (isOf("queue.complete", call)) claimIds.add(call.params.claimId);
    else if (isOf("queue.claim", call)) {
      const { queue, maxBatches = 1 } = call.params;
      const before = queue === undefined ? undefined : wanted.get(queue);
      if (before !== undefined) wanted.set(queue as string, before + maxBatches);
    }
  }
  const queues = [...wanted].map(([queue, heads]) => queueAhead(queue, heads, turn));
  return {
    reads: [
      ...queues.flatMap((queue) => [
        ...(queue.isKnown ? [] : [readRow(queue)]),
        ...(queue.wanted === 0 ? [] : [readHeads(queue)]),
      ]),
      ...[...claimIds].map((claimId) => readSingle(claimId, turn.of(SinglesAhead))),
    ],
    keep: () => {
      for (const ahead of queues) keepAhead(ahead.queue, ahead.row, ahead, turn);
    },
    inserts: [{ statement: insertBatch, times: batches }],
  };
}

function isOf<M extends MethodName>(
  method: M,
  call: Coming,
): call is { readonly method: M; readonly params: Parsed<M> } {
  return call.method === method;
}

interface QueueAhead {
  readonly queue: string;
  /** True if the turn has read its row. */
  readonly isKnown: boolean;
  readonly wanted: number;
  row?: QueueRow;
  heads: Head[];
}

function queueAhead(queue: string, heads: number, turn: TurnMemory): QueueAhead {
  const known = headsKnown(queue, turn);
  const wanted = known === Number.POSITIVE_INFINITY || heads === 0 ? 0 : (known ?? 0) + heads;
  return { queue, isKnown: known !== undefined, wanted: Math.min(wanted, MAX_HEADS_AHEAD), heads: [] };
}

function* readRow(ahead: QueueAhead): Operation<void> {
  const row = yield* one(selectQueue, { queue: ahead.queue });
  if (row !== undefined) ahead.row = row;
}

function* readHeads(ahead: QueueAhead): Operation<void> {
  ahead.heads = yield* all(selectHeadsByName, { queue: ahead.queue, rows: ahead.wanted });
}

function* readSingle(claimId: string, { byId }: SinglesAhead): Operation<void> {
  const claim = namedClaim(claimId);
  const single = claim === undefined ? undefined : yield* one(selectSingle, claim);
  if (single !== undefined) byId.set(claimId, single);
}

/** An operation comes that is no such call, or may change what was read ahead of claims that it does not name. */
export function forgetAhead(coming: Coming | undefined, turn: TurnMemory): void {
  if (coming === undefined || !leavesClaims(coming)) turn.known(SinglesAhead)?.byId.clear();
}

/** What is still known of a call while it waits: a claim is short, and what others give may be long. */
export function comingWhileWaiting(coming: Coming | undefined): Coming | undefined {
  return coming?.method === "queue.claim" ? coming : undefined;
}

function leavesClaims(call: Coming): boolean {
  if (isOf("queue.enqueue", call))
    return call.params.sourceKey === undefined && call.params.after === undefined;
  if (isOf("queue.claim", call)) {
    const { batchIds, held, under } = call.params;
    return batchIds === undefined && held === undefined && under === undefined;
  }
  return call.method === "queue.complete" || call.method === "queue.renew";
}
