/**
 * Batches that wait in queues, and the claims by which workers have them for a while (spec: queue.md).
 *
 * The files, in reading order: row (a batch, and its text in replies), ids (a batch by its batchId), lanes (the
 * order of batches), settings (of a queue, and when they close it), lines (of keys: which batch of one is next),
 * queue-row (counts and heads of a queue, read and written once a turn), listing (of queues by the beginnings of
 * their names), new-batch, after and enqueue, events (what those who follow are told), followers (of one sourceKey),
 * flows (batches that wait for others), claim-any, claim and claim-selection, claim-named (by ids), claim-held
 * (beside claims that the caller has), claims-under-lease, parents, single-claim, holder (renew, complete, abandon),
 * results, progress, terms (what few claims have), give-back, stop (of work that runs), ends (by time, with a
 * connection, over a restart), ttl (how long a batch waits), retention, cancel, update, move, purge, retry,
 * configure, pages, reads, explain, ahead (what many calls of one transaction read). How long a batch rests is in
 * grants/retry-rest.
 */
import type { HandlersOf } from "../../turns/handler.js";
import { cancel } from "./cancel.js";
import { claim } from "./claim-any.js";
import { configure, settings, throttle } from "./configure.js";
import { enqueue, enqueueMany } from "./enqueue.js";
import { explain } from "./explain.js";
import { abandon, complete, renew } from "./holder.js";
import { moveBatches } from "./move.js";
import { progress } from "./progress.js";
import { purge } from "./purge.js";
import { get, list, stats, wait } from "./reads.js";
import { retry } from "./retry.js";
import { update } from "./update.js";

/** Which operation performs which method. */
export const queueHandlers: HandlersOf<"queue"> = {
  enqueue,
  enqueueMany,
  claim,
  renew,
  progress,
  complete,
  abandon,
  get,
  wait,
  list,
  stats,
  cancel,
  update,
  move: moveBatches,
  purge,
  retry,
  configure,
  settings,
  throttle,
  explain,
};
