// Histories that were recorded and then made wrong in one place, to show that the checker finds it there as well.
import type { RawError } from "../raw-client.js";
import type { Call, Operation } from "./history.js";
import type { Json } from "./models/calls.js";

/** Each changes one answer so that it cannot be true; undefined where the history has none of the kind. */
export const MUTANTS: Record<string, (operations: readonly Operation[]) => Operation[] | undefined> = {
  "a number twice": (operations) => {
    const numbers = answersOf(operations, "sequence.next").filter(
      ({ call }) => call.params.requestId === undefined,
    );
    const [first, second] = numbers.filter(({ call }) => call.params.type === "FR");
    return (
      first && second && answeredInstead(operations, second, { ...second.result, seq: first.result.seq })
    );
  },
  "an effect that was undone": (operations) => {
    const [next] = answersOf(operations, "sequence.next");
    const peek = answersOf(operations, "sequence.peek").find(
      ({ call, operation }) =>
        next !== undefined &&
        call.params.type === next.call.params.type &&
        operation.sent.order > next.operation.ended.order,
    );
    return next && peek && answeredInstead(operations, peek, { ...peek.result, seq: next.result.seq });
  },
  "an enqueue that is lost": (operations) => {
    const list = answersOf(operations, "queue.list").find(({ result }) => result.batches.length > 0);
    const label = list?.result.batches[0].payloads[0];
    const isKnown = answersOf(operations, "queue.enqueue").some(
      ({ call, operation }) =>
        (call.params.payloads as string[])[0] === label &&
        operation.ended.order < (list as Answered).operation.sent.order,
    );
    if (list === undefined || !isKnown) return undefined;
    return answeredInstead(operations, list, { ...list.result, batches: list.result.batches.slice(1) });
  },
  "a completed batch that is claimed again": (operations) => {
    const completed = answersOf(operations, "queue.complete").find(({ result }) => result.completed === 1);
    const claims = answersOf(operations, "queue.claim").filter(({ result }) => result.claim !== null);
    const first = claims.find(({ result }) => result.claim.claimId === completed?.call.params.claimId);
    const later = claims.find(
      ({ operation, call }) =>
        call.params.queue === first?.call.params.queue &&
        operation.sent.order > (completed as Answered).operation.ended.order,
    );
    if (first === undefined || later === undefined) return undefined;
    return answeredInstead(operations, later, {
      claim: { ...later.result.claim, batches: first.result.claim.batches },
    });
  },
  "a fencing token that falls": (operations) => {
    const claims = answersOf(operations, "queue.claim").filter(({ result }) => result.claim !== null);
    const [first] = claims;
    const later = claims.find(
      ({ operation, call }) =>
        first !== undefined &&
        call.params.queue === first.call.params.queue &&
        operation.sent.order > first.operation.ended.order,
    );
    if (first === undefined || later === undefined) return undefined;
    const { fencingToken } = first.result.claim;
    const claimId = `qwc:${later.result.claim.batches[0].enqueueSeq}:${fencingToken}`;
    return answeredInstead(operations, later, { claim: { ...later.result.claim, claimId, fencingToken } });
  },
  "two holders": (operations) => {
    const breaks = operations.filter(({ calls }) => calls[0]?.method === "lease.break");
    // One whose time was not over before it was answered, and that nobody broke meanwhile.
    const first = answersOf(operations, "lease.acquire").find(
      ({ operation: { sent, ended }, call }) =>
        ended.ms - sent.ms < (call.params.ttlMs as number) / 2 &&
        breaks.every((each) => each.ended.order < sent.order || each.sent.order > ended.order),
    );
    if (first === undefined) return undefined;
    const { operation, call, result } = first;
    // Somebody else is granted the name at the same time, and for ever.
    const lease = { ...result.lease, leaseId: "other", fencingToken: result.lease.fencingToken + 1 };
    const other = {
      ...operation,
      id: Number.MAX_SAFE_INTEGER,
      connection: -1,
      waits: true,
      calls: [call],
      outcome: { kind: "answered" as const, results: [{ lease }] },
      sent: operation.ended,
      ended: { order: operation.ended.order + 0.5, ms: operation.ended.ms },
    };
    return [...operations, { ...other, sent: { ...other.sent, order: operation.ended.order + 0.1 } }];
  },
  "an answer that is accepted twice": (operations) => {
    const accepted = answersOf(operations, "command.respond").find(({ result }) => result.accepted);
    if (accepted === undefined) return undefined;
    return [...operations, besides(accepted.operation, [accepted.result])];
  },
  "a command that is delivered twice": (operations) => {
    const lease = answersOf(operations, "command.lease").find(
      ({ operation: { sent, ended }, call: { params }, result }) =>
        result.leases.length > 0 &&
        params.releaseOn === undefined &&
        ended.ms - sent.ms < (params.leaseMs as number) / 2,
    );
    if (lease === undefined) return undefined;
    const [delivery] = lease.result.leases;
    const again = { ...delivery, leaseId: "other", attempt: delivery.attempt + 1 };
    return [...operations, besides(lease.operation, [{ leases: [again] }])];
  },
  "a command that is lost": (operations) => {
    const created = answersOf(operations, "command.create").find(({ result }) => result.created);
    const get = answersOf(operations, "command.get").find(
      ({ call, operation }) =>
        call.object === created?.call.object &&
        operation.sent.order > (created as Answered).operation.ended.order,
    );
    if (get === undefined) return undefined;
    const data = { kind: "not_found", retryable: false };
    const error = { code: -32000, message: "not there", data } as RawError;
    return operations.map((each) =>
      each === get.operation ? { ...each, outcome: { kind: "refused", error } } : each,
    );
  },
};

/** Those of what only daemons that share names are asked for. */
export const SHARED_MUTANTS: typeof MUTANTS = {
  ...MUTANTS,
  "an occurrence of a schedule twice": (operations) => {
    const [list, occurrence] = occurrenceIn(operations);
    if (list === undefined) return undefined;
    const batches = (list.result.batches as Json[]).flatMap((batch) =>
      batch === occurrence
        ? [batch, { ...batch, batchId: `${batch.batchId}-`, enqueueSeq: batch.enqueueSeq + 0.5 }]
        : [batch],
    );
    return answeredInstead(operations, list, { ...list.result, batches });
  },
  "an occurrence of a schedule that is left out": (operations) => {
    const [list, occurrence] = occurrenceIn(operations);
    if (list === undefined) return undefined;
    const batches = (list.result.batches as Json[]).filter((batch) => batch !== occurrence);
    return answeredInstead(operations, list, { ...list.result, batches });
  },
};

/** A list with an occurrence of a schedule that leaves none out, and that. */
function occurrenceIn(operations: readonly Operation[]): [Answered?, Json?] {
  const whole = new Set(
    answersOf(operations, "schedule.set")
      .filter(({ call: { params } }) => params.missed === "all" && params.overlap === "all")
      .map(({ call }) => call.params.name),
  );
  for (const list of answersOf(operations, "queue.list")) {
    const found = (list.result.batches as Json[]).find(
      ({ sourceKey, payloads }) => sourceKey?.startsWith("schedule:") && whole.has(payloads[0]),
    );
    if (found !== undefined) return [list, found];
  }
  return [];
}

/** The same operation once more, right after it, and answered so. */
function besides(operation: Operation, results: readonly Json[]): Operation {
  const { ended } = operation;
  return {
    ...operation,
    id: Number.MAX_SAFE_INTEGER,
    connection: -1,
    outcome: { kind: "answered", results },
    sent: { ...ended, order: ended.order + 0.1 },
    ended: { ...ended, order: ended.order + 0.5 },
  };
}

interface Answered {
  operation: Operation;
  call: Call;
  result: Json;
}

/** The single calls of a method that were answered, in the order in which they were sent. */
function answersOf(operations: readonly Operation[], method: string): Answered[] {
  return operations.flatMap((operation) => {
    const [call] = operation.calls;
    if (operation.outcome.kind !== "answered" || operation.calls.length > 1 || call?.method !== method)
      return [];
    return [{ operation, call, result: operation.outcome.results[0] as Json }];
  });
}

function answeredInstead(
  operations: readonly Operation[],
  { operation }: Answered,
  result: Json,
): Operation[] {
  return operations.map((each) =>
    each === operation ? { ...each, outcome: { kind: "answered", results: [result] } } : each,
  );
}
