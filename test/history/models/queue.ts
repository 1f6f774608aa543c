// A queue (spec: queue.md): batches in the order in which they were added, and the claims by which somebody has them.
//
// The load gives each batch a label, the first payload, by which the model knows it: of a batch whose enqueue was not
// answered nobody knows the batchId.
import type { Call } from "../history.js";
import { GUARD } from "../history.js";
import {
  type Answer,
  boundAfterRenewal,
  boundTo,
  type CallModel,
  type Circumstances,
  type Connections,
  endsByItself,
  grantedUntilMs,
  type Json,
  type Lasting,
  modelOf,
} from "./calls.js";

interface Claim extends Lasting {
  /** The claimId, or a name of its own for a claim that was not answered. */
  id: string;
  isKnown: boolean;
  token: number | null;
  size: number;
  leaseMs: number;
  /** Its holder was told that it is lost, while a list may still show it: its end comes with the next commit. */
  isLost: boolean;
  /** The daemon ends it by itself, as one that it could not answer for in time: that is no delivery. */
  isGivenBack: boolean;
}

type Status = "ready" | "claimed" | "dead";
type Final = "completed" | "cancelled";

interface Batch {
  label: string;
  batchId: string | null;
  seq: number | null;
  maxAttempts: number;
  group: string | null;
  /** After a delivery that counts it may rest, for as long as its queue says. */
  rests: boolean;
  status: Status;
  attempt: number;
  /** The batch cannot be claimed before the one, and nothing keeps it from being claimed after the other. */
  notBeforeMs: number;
  surelyMs: number;
  /** The one that has it, or the last one, which may still complete it. */
  claim: Claim | null;
}

interface State {
  /** In order. */
  batches: readonly Batch[];
  /** Batches that are final, by label. */
  ended: Readonly<Record<string, { status: Final; claim: string | null; batchId: string | null }>>;
  labels: Readonly<Record<string, string>>;
  highest: { seq: number; token: number };
}

const DEFAULT_LEASE_MS = 30_000;
const DEFAULT_ATTEMPTS = 20;
/** Of a delay, the time within which a daemon that was held up notices that it is over. */
const NOTICED_MS = 5000;

/** Of claims that may have ended, those of which all combinations are tried. */
const MAX_SUBSETS = 5;

interface QueueCircumstances extends Circumstances {
  connections: Connections;
  /** True if a claim may have ended by itself by now. */
  mayHaveEnded: (claim: Claim) => boolean;
}

type Perform = (state: State, call: Call, answer: Answer, when: QueueCircumstances) => State[];

export function queueModel(connections: Connections) {
  const isOver = endsByItself(connections);
  const performers: Record<string, Perform> = {
    "queue.enqueue": enqueue,
    "queue.enqueueMany": enqueueMany,
    "queue.claim": claim,
    "queue.renew": renew,
    "queue.complete": complete,
    "queue.abandon": abandon,
    "queue.cancel": cancel,
    "queue.get": (state, _call, answer) =>
      answer === "unknown" || ("result" in answer && isShown(state, answer.result.batch)) ? [state] : [],
    "queue.list": (state, _call, answer) => (answer === "unknown" ? [state] : list(state, answer)),
    [GUARD]: guard,
  };
  const model: CallModel<State> = {
    initial: { batches: [], ended: {}, labels: {}, highest: { seq: 0, token: 0 } },
    call: (state, call, answer, when) => {
      const perform = performers[call.method];
      if (perform === undefined) throw new Error(`no model of ${call.method}`);
      const mayHaveEnded = (claim: Claim): boolean => isOver(claim, when.beforeMs);
      const states = withEnds(state, call, answer, mayHaveEnded).flatMap((each) =>
        perform(each, call, answer, { ...when, connections, mayHaveEnded }),
      );
      return states.map((each) => named(each, answer));
    },
  };
  return modelOf(model);
}

/** The state with the ids that an answer shows of batches whose own answers were not seen. */
function named(state: State, answer: Answer): State {
  if (answer === "unknown" || "error" in answer) return state;
  const { batch, batches = [], claim } = answer.result ?? {};
  const shown: Json[] = [...batches, ...(claim?.batches ?? []), ...(batch === undefined ? [] : [batch])];
  if ([...state.batches, ...Object.values(state.ended)].every(({ batchId }) => batchId !== null))
    return state;
  const ids = new Map<string, string>(shown.map(({ payloads, batchId }) => [payloads[0], batchId]));
  const withId = <T extends { batchId: string | null }>(label: string, each: T): T => {
    const batchId = each.batchId ?? ids.get(label) ?? null;
    return batchId === each.batchId ? each : { ...each, batchId };
  };
  const final = Object.entries(state.ended).map(([label, each]) => [label, withId(label, each)] as const);
  return {
    ...changed(state, (each) => withId(each.label, each)),
    ended: Object.fromEntries(final),
  };
}

/** The state with those claims ended that may have, as far as the call and its answer have to do with them. */
function withEnds(state: State, call: Call, answer: Answer, ends: (claim: Claim) => boolean): State[] {
  const isOver = ({ status, claim }: Batch): boolean => status === "claimed" && claim !== null && ends(claim);
  const over = state.batches.filter(isOver);
  if (over.length === 0) return [state];
  // The answer tells which claims must have ended.
  if (answer !== "unknown" && "result" in answer && !Object.hasOwn(call.params, "claimId")) {
    const free = freeIn(call, answer.result);
    if (free !== undefined) return [over.filter(({ label }) => free.has(label)).reduce(expireThat, state)];
  }
  const { claimId, batchId } = call.params as { claimId?: string; batchId?: string };
  const meant = over.find((batch) =>
    claimId === undefined ? batch.batchId === batchId : batch.claim?.id === claimId,
  );
  if (meant !== undefined) return [state, expireThat(state, meant)];
  if (call.method !== "queue.claim" || answer !== "unknown") return [state];
  // One that nobody saw may have come after some of them.
  let states = [state];
  for (const batch of over.slice(0, MAX_SUBSETS)) {
    states = states.flatMap((each) => [each, expireThat(each, batch)]);
  }
  return states;
}

function expireThat(state: State, { claim }: Batch): State {
  return claim === null ? state : expire(state, claim.id);
}

/** The labels of batches that an answer shows as held by nobody, or by the one who asked. */
function freeIn({ method }: Call, result: Json): Set<string> | undefined {
  const all: Json[] | undefined =
    method === "queue.claim"
      ? (result.claim?.batches ?? [])
      : method === "queue.list" || method === "queue.enqueueMany"
        ? result.batches.filter(({ state }: Json) => state !== "claimed")
        : result.batch === undefined
          ? undefined
          : [result.batch].filter(({ state }) => state !== "claimed");
  return all && new Set(all.map(({ payloads }) => payloads[0]));
}

function expire(state: State, claimId: string): State {
  return changed(state, (batch) =>
    batch.status === "claimed" && batch.claim?.id === claimId ? counted(batch) : batch,
  );
}

/** A batch after a delivery that counts. */
function counted(batch: Batch): Batch {
  if (batch.claim?.isGivenBack) return { ...batch, status: "ready", claim: null };
  const attempt = batch.attempt + 1;
  const isDead = batch.maxAttempts > 0 && attempt >= batch.maxAttempts;
  // Nobody can complete late what nobody was told to have.
  const claim = batch.claim?.isKnown ? batch.claim : null;
  const rest = batch.rests ? { surelyMs: Number.POSITIVE_INFINITY } : {};
  return { ...batch, ...rest, attempt, status: isDead ? "dead" : "ready", claim };
}

function changed(state: State, change: (batch: Batch) => Batch): State {
  return { ...state, batches: state.batches.map(change) };
}

function enqueue(state: State, { params }: Call, answer: Answer, when: Circumstances): State[] {
  if (answer !== "unknown" && "error" in answer) {
    const isTaken = state.labels[keyOf(params)] !== undefined;
    return answer.error.data.kind === "conflict" && isTaken ? [state] : [];
  }
  const shown = answer === "unknown" ? undefined : answer.result;
  const [label] = params.payloads as [string];
  const existing = state.labels[keyOf(params)];
  if (existing !== undefined) {
    if (shown === undefined) return [state];
    return existing === label && !shown.created && isShown(state, shown.batch) ? [state] : [];
  }
  if (shown !== undefined && (!shown.created || shown.batch.enqueueSeq <= state.highest.seq)) return [];
  const delayMs = (params.delayMs as number | undefined) ?? 0;
  const batch: Batch = {
    label,
    batchId: shown?.batch.batchId ?? null,
    seq: shown?.batch.enqueueSeq ?? null,
    maxAttempts: (params.maxAttempts as number | undefined) ?? DEFAULT_ATTEMPTS,
    group: (params.mergeKey as { group: string } | undefined)?.group ?? null,
    rests: params.rests === true,
    status: "ready",
    attempt: 0,
    ...delayed(delayMs, when),
    claim: null,
  };
  return [
    {
      ...state,
      batches: [...state.batches, batch],
      labels: { ...state.labels, [keyOf(params)]: label },
      highest: { ...state.highest, seq: batch.seq ?? state.highest.seq },
    },
  ];
}

function delayed(
  delayMs: number,
  { operation, sentMs }: Circumstances,
): Pick<Batch, "notBeforeMs" | "surelyMs"> {
  if (delayMs === 0) return { notBeforeMs: 0, surelyMs: 0 };
  return { notBeforeMs: sentMs + delayMs, surelyMs: operation.ended.ms + delayMs + NOTICED_MS };
}

/** A batch without a sourceKey has its label for one, which no other has. */
function keyOf(params: Call["params"]): string {
  const { sourceKey, payloads } = params as { sourceKey?: string; payloads: [string] };
  return sourceKey === undefined ? `label ${payloads[0]}` : `key ${sourceKey}`;
}

function enqueueMany(state: State, call: Call, answer: Answer, when: Circumstances): State[] {
  if (answer !== "unknown" && "error" in answer) return [];
  const batches = call.params.batches as Call["params"][];
  let states = [state];
  batches.forEach((params, index) => {
    const each: Answer =
      answer === "unknown"
        ? answer
        : { result: { batch: answer.result.batches[index], created: answer.result.created[index] } };
    states = states.flatMap((before) => enqueue(before, { ...call, params }, each, when));
  });
  return states;
}

function claim(state: State, call: Call, answer: Answer, when: QueueCircumstances): State[] {
  if (answer === "unknown") return claimOfUnknown(state, call, when);
  if ("error" in answer) return [];
  const shown = answer.result.claim;
  const candidates = state.batches.filter((batch) => availability(batch, when) !== "no");
  if (shown === null) return candidates.some((batch) => availability(batch, when) === "yes") ? [] : [state];
  const labels = shown.batches.map(({ payloads }: Json) => payloads[0]) as string[];
  if (shown.fencingToken <= state.highest.token) return [];
  if (shown.claimId !== `qwc:${shown.batches[0].enqueueSeq}:${shown.fencingToken}`) return [];
  if (!isHead(candidates, labels, call, when)) return [];
  if (!shown.batches.every((batch: Json) => batch.state === "claimed" && isTheSame(state, batch))) return [];
  return givenBackOrNot(when).map((isGivenBack) =>
    claimed(state, labels, call, when, {
      id: shown.claimId,
      token: shown.fencingToken,
      isGivenBack,
    }),
  );
}

/** True if a claim takes these of the candidates: the head, and what may and has to go with it. */
function isHead(
  candidates: readonly Batch[],
  labels: readonly string[],
  { params }: Call,
  when: QueueCircumstances,
): boolean {
  const most = (params.maxBatches as number | undefined) ?? 1;
  let taken = 0;
  let group: string | null = null;
  for (const batch of candidates) {
    const isNext = batch.label === labels[taken];
    if (isNext && taken > 0 && (group === null || batch.group !== group)) return false;
    if (isNext) {
      group = taken === 0 ? batch.group : group;
      taken += 1;
      continue;
    }
    const endsGroup = taken === most || group === null || batch.group !== group;
    // One that may just as well not have been there yet: it has ended the group, or kept nobody from anything. So may
    // one whose claim is lost and has not ended; but nobody may be told that there is nothing because of that.
    if (availability(batch, when) === "maybe" || isHeldByLost(batch)) {
      if (taken > 0 && taken === labels.length && endsGroup) return true;
      continue;
    }
    if (taken === 0 || taken < labels.length) return false;
    return endsGroup;
  }
  return taken === labels.length && taken <= most;
}

function isHeldByLost({ status, claim }: Batch): boolean {
  return status === "claimed" && claim?.isLost === true;
}

function availability(
  batch: Batch,
  { sentMs, beforeMs, mayHaveEnded }: QueueCircumstances,
): "yes" | "no" | "maybe" {
  if (batch.status === "claimed" && batch.claim !== null) {
    if (isHeldByLost(batch)) return counted(batch).status === "ready" ? "yes" : "no";
    return mayHaveEnded(batch.claim) ? "maybe" : "no";
  }
  if (batch.status !== "ready" || beforeMs + 2 < batch.notBeforeMs) return "no";
  return sentMs > batch.surelyMs ? "yes" : "maybe";
}

function claimed(
  state: State,
  labels: readonly string[],
  call: Call,
  when: Circumstances,
  { id, token, isGivenBack }: Pick<Claim, "id" | "isGivenBack"> & { token: number },
): State {
  const leaseMs = (call.params.leaseMs as number | undefined) ?? DEFAULT_LEASE_MS;
  const claim: Claim = {
    id,
    isKnown: true,
    token,
    size: labels.length,
    isLost: false,
    leaseMs,
    isGivenBack,
    untilMs: grantedUntilMs(leaseMs, when),
    bound: boundTo(call, when),
  };
  const after = changed(state, (batch) =>
    labels.includes(batch.label) ? { ...batch, status: "claimed", claim } : batch,
  );
  return { ...after, highest: { ...state.highest, token } };
}

/** A claim whose answer nobody saw may have taken any head, with as many as may go with it. */
function claimOfUnknown(state: State, call: Call, when: QueueCircumstances): State[] {
  const most = (call.params.maxBatches as number | undefined) ?? 1;
  const candidates = state.batches.filter(
    (batch) => batch.status === "ready" && availability(batch, when) !== "no",
  );
  const found: State[] = [];
  const claims = (labels: readonly string[]): State[] =>
    givenBackOrNot(when).map((isGivenBack) => claimedByUnknown(state, labels, isGivenBack));
  for (const [index, head] of candidates.entries()) {
    const group = [head.label];
    let ended = 0;
    for (const next of candidates.slice(index + 1)) {
      if (group.length === most || head.group === null) break;
      if (next.group === head.group) group.push(next.label);
      else if (availability(next, when) === "yes") break;
      // One that may have been there already has ended the group then.
      else if (ended !== group.length) {
        found.push(...claims(group.slice()));
        ended = group.length;
      }
    }
    found.push(...claims(group));
    if (availability(head, when) === "yes") break;
  }
  return found;
}

function givenBackOrNot({ operation }: Circumstances): readonly boolean[] {
  return operation.mayBeGivenBack === true ? [true, false] : [false];
}

/** Whose claim it was, and for how long, makes no difference: so what several of them did can be told in few ways. */
function claimedByUnknown(state: State, labels: readonly string[], isGivenBack: boolean): State {
  const claim: Claim = {
    id: `not answered, ${labels[0]}`,
    isKnown: false,
    token: null,
    size: labels.length,
    isLost: false,
    isGivenBack,
    leaseMs: 0,
    untilMs: 0,
    bound: [],
  };
  return changed(state, (batch) =>
    labels.includes(batch.label) ? { ...batch, status: "claimed", claim } : batch,
  );
}

/** The batches of a claim that nothing has taken from it, expired or not. */
function batchesOf(state: State, { params }: Call): Batch[] {
  return state.batches.filter(({ claim }) => claim?.id === params.claimId);
}

function isWhole(batches: readonly Batch[]): boolean {
  return batches.length > 0 && batches.length === batches[0]?.claim?.size;
}

function isLive(state: State, call: Call): boolean {
  const batches = batchesOf(state, call);
  return isWhole(batches) && batches.every(({ status, claim }) => status === "claimed" && !claim?.isLost);
}

/** The refusal of a claim that is over by its time. */
function lost(state: State, { params }: Call, answer: Answer, when: QueueCircumstances): State[] {
  const isOver = ({ claim }: Batch): boolean =>
    claim?.id === params.claimId && when.mayHaveEnded(claim as Claim);
  if (!isRefusal(answer, "claim_lost") || !state.batches.some(isOver)) return [];
  return [
    changed(state, (batch) =>
      isOver(batch) ? { ...batch, claim: { ...(batch.claim as Claim), isLost: true } } : batch,
    ),
  ];
}

function isRefusal(answer: Answer, kind: string): boolean {
  return answer !== "unknown" && "error" in answer && answer.error.data.kind === kind;
}

function guard(state: State, call: Call, answer: Answer): State[] {
  if (answer === "unknown") return isLive(state, call) ? [state] : [];
  return isLive(state, call) ? [state] : [];
}

function renew(state: State, call: Call, answer: Answer, when: QueueCircumstances): State[] {
  if (!isLive(state, call)) return answer === "unknown" || isRefusal(answer, "claim_lost") ? [state] : [];
  if (answer !== "unknown" && "error" in answer) return lost(state, call, answer, when);
  const { claimId, leaseMs } = call.params as { claimId: string; leaseMs?: number };
  return [
    changed(state, (batch) => {
      if (batch.claim?.id !== claimId) return batch;
      const { claim } = batch;
      const untilMs = when.sentMs + (leaseMs ?? claim.leaseMs);
      const bound = boundAfterRenewal(claim, when.connections, when);
      return { ...batch, claim: { ...claim, untilMs, bound } };
    }),
  ];
}

function complete(state: State, call: Call, answer: Answer): State[] {
  const batches = batchesOf(state, call);
  const { claimId } = call.params as { claimId: string };
  const before = Object.values(state.ended).filter(
    (each) => each.status === "completed" && each.claim === claimId,
  );
  if (!isWhole(batches)) {
    if (answer === "unknown") return [state];
    if ("error" in answer)
      return before.length === 0 && answer.error.data.kind === "claim_lost" ? [state] : [];
    return before.length > 0 && answer.result.completed === before.length ? [state] : [];
  }
  if (answer !== "unknown" && ("error" in answer || answer.result.completed !== batches.length)) return [];
  return [ended(state, batches, "completed", claimId)];
}

function ended(state: State, batches: readonly Batch[], status: Final, claim: string | null): State {
  return {
    ...state,
    batches: state.batches.filter((batch) => !batches.includes(batch)),
    ended: {
      ...state.ended,
      ...Object.fromEntries(batches.map(({ label, batchId }) => [label, { status, claim, batchId }])),
    },
  };
}

function abandon(state: State, call: Call, answer: Answer, when: QueueCircumstances): State[] {
  if (!isLive(state, call)) return answer === "unknown" || isRefusal(answer, "claim_lost") ? [state] : [];
  if (answer !== "unknown" && "error" in answer) return lost(state, call, answer, when);
  const {
    claimId,
    error,
    delayMs = 0,
  } = call.params as { claimId: string; error?: string; delayMs?: number };
  const after = changed(state, (batch) => {
    if (batch.claim?.id !== claimId) return batch;
    const back: Batch = error === undefined ? { ...batch, status: "ready" } : counted(batch);
    return { ...back, claim: null, ...delayed(delayMs, when) };
  });
  if (answer === "unknown") return [after];
  const labels = batchesOf(state, call).map(({ label }) => label);
  const dead = after.batches.filter(
    ({ label, status }) => labels.includes(label) && status === "dead",
  ).length;
  const { released, dead: shownDead } = answer.result;
  return shownDead === dead && released === labels.length - dead ? [after] : [];
}

function cancel(state: State, { params }: Call, answer: Answer): State[] {
  if (answer !== "unknown" && "error" in answer) return [];
  const batch = state.batches.find(({ batchId }) => batchId === params.batchId);
  const final = Object.values(state.ended).find(({ batchId }) => batchId === params.batchId);
  const status = batch?.status ?? final?.status;
  const expected = status === "ready" ? "cancelled" : `already_${status}`;
  if (answer !== "unknown" && answer.result.outcome !== expected) return [];
  return batch?.status === "ready" ? [ended(state, [batch], "cancelled", null)] : [state];
}

/** All that was added is there, in order, each as it is shown. */
function list(state: State, answer: Exclude<Answer, "unknown">): State[] {
  if ("error" in answer) return [];
  const shown = answer.result.batches as Json[];
  if (shown.length !== state.batches.length + Object.keys(state.ended).length) return [];
  if (!shown.every((batch) => isShown(state, batch))) return [];
  const order = shown.map(({ payloads }) => payloads[0]).filter((label) => state.ended[label] === undefined);
  if (!state.batches.every(({ label }, index) => order[index] === label)) return [];
  return [learned(state, shown)];
}

/** Facts that a list tells of batches and claims whose answers were not seen. */
function learned(state: State, shown: readonly Json[]): State {
  if (state.batches.every(({ batchId, claim }) => batchId !== null && claim?.isKnown !== false)) return state;
  const byLabel = new Map(shown.map((batch) => [batch.payloads[0], batch]));
  const after = changed(state, (batch) => {
    const { batchId, enqueueSeq: seq, claim } = byLabel.get(batch.label);
    if (batch.claim === null || batch.claim.isKnown || claim === undefined) return { ...batch, batchId, seq };
    const { claimId: id, fencingToken: token } = claim;
    return { ...batch, batchId, seq, claim: { ...batch.claim, id, token, isKnown: true } };
  });
  const highest = (known: number, each: (batch: Batch) => number | null | undefined): number =>
    Math.max(known, ...after.batches.map((batch) => each(batch) ?? 0));
  return {
    ...after,
    highest: {
      seq: highest(state.highest.seq, ({ seq }) => seq),
      token: highest(state.highest.token, ({ claim }) => claim?.token),
    },
  };
}

/** True if a batch, as an answer shows it, is as it is in this state. */
function isShown(state: State, shown: Json): boolean {
  const [label] = shown.payloads as [string];
  const final = state.ended[label];
  if (final !== undefined) return shown.state === final.status;
  const batch = state.batches.find((each) => each.label === label);
  if (batch === undefined || !isTheSame(state, shown)) return false;
  if (batch.status !== "claimed")
    return batch.status === (shown.state === "scheduled" ? "ready" : shown.state);
  return shown.state === "claimed" && (!batch.claim?.isKnown || batch.claim.id === shown.claim.claimId);
}

/** True if this is the batch of its label, delivered as often as it was. */
function isTheSame(state: State, shown: Json): boolean {
  const batch = state.batches.find(({ label }) => label === shown.payloads[0]);
  return (
    batch !== undefined &&
    batch.attempt === shown.attempt &&
    (batch.batchId === null || batch.batchId === shown.batchId) &&
    (batch.seq === null || batch.seq === shown.enqueueSeq)
  );
}
