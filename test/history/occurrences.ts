// The occurrences of schedules as operations, since nobody asks for them: each was enqueued at some moment between its
// time and the first answer that shows its batch, by one transaction that also has its schedule go on.
//
// All batches of a schedule have the same payloads, so each is called here by its sourceKey, or by its id if it was
// enqueued by `schedule.run`.
import { type Call, type Moment, type Operation, WALL_SLACK_MS, wallOf } from "./history.js";
import type { Json } from "./models/calls.js";
import { OCCURRENCE } from "./models/schedule.js";

/** The ids of these operations, and the connections that they are of, are no other's. */
const FIRST_ID = 2 ** 40;

const OF_SCHEDULE = /^schedule:(.*)@(\d+)$/;

/** A batch that a schedule has enqueued, and the answer that shows it first. */
interface Seen {
  batch: Json;
  object: string;
  schedule: string;
  /** Its time by the wall clock; undefined of one besides the occurrences. */
  at: number | undefined;
  by: Operation;
}

/** The operations with those of occurrences, and what must not be. */
export function withOccurrences(given: readonly Operation[]): {
  operations: Operation[];
  findings: string[];
} {
  const queues = new Set(
    given.flatMap(({ calls }) => calls.filter(({ method }) => method === "schedule.set").map(queueOf)),
  );
  if (queues.size === 0) return { operations: [...given], findings: [] };
  const operations = given.map((operation) => named(operation, queues));
  const seen = seenIn(operations, queues);
  const runs = operations.filter(({ calls }) => calls[0]?.method === "schedule.run");
  for (const { outcome } of runs) {
    if (outcome.kind === "answered") seen.delete(keyOf((outcome.results[0] as Json).batch));
  }
  const unheard = runs.filter(({ outcome }) => outcome.kind === "unknown");
  const findings: string[] = [];
  const enqueued = [...seen.values()].map((each, index) => {
    const id = FIRST_ID + index;
    if (each.at !== undefined) return enqueuedBy(each, id, momentOf(each.at, operations), true);
    const run = unheard.findIndex(({ calls }) => calls[0]?.params.name === each.schedule);
    if (run < 0) findings.push(`${each.object}: nobody has asked for ${each.batch.batchId}`);
    const [asked] = run < 0 ? [each.by] : unheard.splice(run, 1);
    return enqueuedBy(each, id, (asked as Operation).sent, false);
  });
  return { operations: [...operations.map(withBatch), ...enqueued], findings };
}

function queueOf({ params }: Call): string {
  return `queue:${params.queue}`;
}

function isShowing(call: Call, queues: ReadonlySet<string>): boolean {
  return call.method === "schedule.run" || queues.has(call.object);
}

/** An operation whose answer calls each batch of a schedule by a name of its own. */
function named(operation: Operation, queues: ReadonlySet<string>): Operation {
  const { outcome, calls } = operation;
  if (outcome.kind !== "answered" || !calls.some((call) => isShowing(call, queues))) return operation;
  const results = outcome.results.map((result, index) =>
    isShowing(calls[index] as Call, queues) ? withNames(result) : result,
  );
  return { ...operation, outcome: { kind: "answered", results } };
}

function withNames(result: Json): Json {
  if (result === null || typeof result !== "object") return result;
  const { batch, batches, claim } = result;
  return {
    ...result,
    ...(batch ? { batch: withName(batch) } : {}),
    ...(batches ? { batches: batches.map(withName) } : {}),
    ...(claim ? { claim: { ...claim, batches: claim.batches.map(withName) } } : {}),
  };
}

function withName(batch: Json): Json {
  return { ...batch, payloads: [batch.sourceKey ?? batch.batchId, ...batch.payloads] };
}

/** Each batch, as it was shown first. */
function seenIn(operations: readonly Operation[], queues: ReadonlySet<string>): Map<string, Seen> {
  const seen = new Map<string, Seen>();
  for (const by of [...operations].sort((a, b) => a.ended.order - b.ended.order)) {
    if (by.outcome.kind !== "answered") continue;
    for (const [index, call] of by.calls.entries()) {
      if (!isShowing(call, queues)) continue;
      for (const batch of shownIn(by.outcome.results[index])) {
        const [name, schedule] = batch.payloads as [string, string];
        const [, , at] = OF_SCHEDULE.exec(name) ?? [];
        const key = keyOf(batch);
        if (!seen.has(key))
          seen.set(key, {
            batch,
            object: `queue:${batch.queue}`,
            schedule,
            at: at ? Number(at) : undefined,
            by,
          });
      }
    }
  }
  return seen;
}

/** Two that were enqueued for the same time are two. */
function keyOf({ batchId, enqueueSeq }: Json): string {
  return `${batchId} ${enqueueSeq}`;
}

function shownIn(result: Json): Json[] {
  const { batch, batches = [], claim } = result ?? {};
  return [...batches, ...(claim?.batches ?? []), ...(batch ? [batch] : [])];
}

function enqueuedBy(
  { batch, object, schedule, at, by }: Seen,
  id: number,
  sent: Moment,
  isOccurrence: boolean,
): Operation {
  const [label] = batch.payloads as [string];
  const made = enqueueOf(object, label);
  const occurrence: Call = { object: `schedule:${schedule}`, method: OCCURRENCE, params: { at } };
  return {
    id,
    connection: -id,
    waits: true,
    calls: isOccurrence ? [occurrence, made] : [made],
    outcome: { kind: "answered", results: [...(isOccurrence ? [{}] : []), { batch, created: true }] },
    sent,
    ended: by.ended,
  };
}

/** How long one of its batches rests after a delivery is as its queue says. */
function enqueueOf(object: string, label: string): Call {
  return { object, method: "queue.enqueue", params: { payloads: [label], rests: true } };
}

/** A run that was answered has enqueued its batch, too. */
function withBatch(operation: Operation): Operation {
  const { calls, outcome } = operation;
  const [call] = calls;
  if (call?.method !== "schedule.run" || outcome.kind !== "answered") return operation;
  const { batch } = outcome.results[0] as Json;
  const made = enqueueOf(`queue:${batch.queue}`, batch.payloads[0]);
  return {
    ...operation,
    calls: [call, made],
    outcome: { kind: "answered", results: [{}, { batch, created: true }] },
  };
}

/** The moment of a time of the wall clock, or one a little before it. */
function momentOf(at: number, operations: readonly Operation[]): Moment {
  let [moment] = operations.map(({ sent }) => sent);
  for (const { sent, ended } of operations) {
    for (const each of [sent, ended]) {
      if (wallOf(each.ms) + WALL_SLACK_MS > at) continue;
      if (moment === undefined || each.order > moment.order) moment = each;
    }
  }
  return { order: (moment?.order ?? 0) + 0.5, ms: at - wallOf(0) - WALL_SLACK_MS };
}
