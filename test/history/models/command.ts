// One command (spec: command.md): one delivery at a time, each counted, one answer, and a final state that stays.
import type { Call } from "../history.js";
import {
  type Answer,
  boundAfterRenewal,
  boundEndMs,
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

interface Delivery extends Lasting {
  /** Null of a delivery that nobody saw. */
  leaseId: string | null;
  isPushed: boolean;
  /** Once it has ended by itself: when that may have been; infinity where nobody saw for how long it was. */
  endedMs?: number;
}

interface Command {
  commandId: string | null;
  status: "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED";
  attempt: number;
  maxAttempts: number;
  /** The one that is under way, or the last one handed out, which may still be answered. */
  delivery: Delivery | null;
  /** The text of the answer. */
  response: string | null;
  /** Deliveries may have gone to receivers that were gone before they could tell. */
  isPushed: boolean;
}

type State = Command | null;

const DEFAULT_LEASE_MS = 30_000;
const DEFAULT_ATTEMPTS = 20;
/** Of a push: as long as its connection. */
const FOR_EVER = Number.POSITIVE_INFINITY;
/** A push was handed out at most so long before it arrived, unless its connection was lost. */
const SENT_BEFORE_MS = 1000;
/** The time within which daemons that were held up notice that a delivery has ended by its time. */
const NOTICED_MS = 10_000;

export function commandModel(connections: Connections) {
  const mayHaveEnded = endsByItself(connections);
  // One that was pushed ends with its connection, whatever ended that; if its daemon is taken for dead, after a grace.
  const hasClosed = endsByItself({ boundUntil: connections.closed, cutOff: connections.cutOff }, 0);
  const model: CallModel<State> = {
    initial: null,
    call: (state, call, answer, when) => {
      const delivery = state?.status === "DISPATCHED" ? state.delivery : null;
      const over =
        delivery !== null && (delivery.isPushed ? hasClosed : mayHaveEnded)(delivery, when.beforeMs);
      const states = over ? [state, back(state as Command, ended(delivery, connections))] : [state];
      return states
        .flatMap((each) => (isSpentUnseen(each, answer) ? [each, spent(each)] : [each]))
        .flatMap((each) => perform(each, call, answer, when, connections));
    },
  };
  return modelOf(model);
}

function ended(delivery: Delivery, connections: Connections): Delivery {
  const ends = delivery.bound.map((each) => boundEndMs(connections, each));
  const endedMs = delivery.leaseId === null ? Number.POSITIVE_INFINITY : Math.min(delivery.untilMs, ...ends);
  return { ...delivery, endedMs };
}

/** A command whose delivery ended without an answer. */
function back(state: Command, delivery: Delivery | null): Command {
  const isSpent = state.maxAttempts > 0 && state.attempt >= state.maxAttempts;
  if (isSpent) return { ...state, status: "FAILED", delivery: null };
  return { ...state, status: "PENDING", attempt: state.attempt + 1, delivery };
}

/** True if pushes that nobody has seen may have been the last ones, which an answer tells. */
function isSpentUnseen(state: State, answer: Answer): state is Command {
  if (state === null || !state.isPushed || state.maxAttempts === 0 || state.status !== "PENDING")
    return false;
  return answer !== "unknown" && "result" in answer && answer.result?.state === "FAILED";
}

function spent(state: Command): Command {
  return { ...state, status: "FAILED", attempt: state.maxAttempts, delivery: null };
}

function perform(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  if (call.method === "command.create") return create(state, call, answer);
  if (state === null) return answer === "unknown" || isOfOthers(call, answer) ? [state] : [];
  switch (call.method) {
    case "command.lease":
      return lease(state, call, answer, when);
    case "command.execute":
      return execute(state, answer, when);
    case "command.renew":
      return renew(state, call, answer, when, connections);
    case "command.release":
      return release(state, call, answer);
    case "command.respond":
      return respond(state, call, answer);
    case "command.cancel":
      return cancel(state, answer);
    case "command.get":
    case "command.wait":
      return answer === "unknown" || ("result" in answer && isShown(state, answer.result)) ? [state] : [];
    case "command.response":
      return read(state, answer);
  }
  throw new Error(`no model of ${call.method}`);
}

/** Of a command that is not there, nothing can be known but that nobody leases it. */
function isOfOthers({ method }: Call, answer: Exclude<Answer, "unknown">): boolean {
  return method === "command.lease" && "result" in answer && answer.result === null;
}

function create(state: State, { params }: Call, answer: Answer): State[] {
  if (answer !== "unknown" && "error" in answer) return [];
  const shown = answer === "unknown" ? undefined : answer.result;
  if (state !== null) {
    if (shown === undefined) return [state];
    return !shown.created && isNamed(state, shown) && shown.state === state.status
      ? [named(state, shown)]
      : [];
  }
  if (shown !== undefined && (!shown.created || shown.state !== "PENDING")) return [];
  return [
    {
      commandId: shown?.commandId ?? null,
      status: "PENDING",
      attempt: 1,
      maxAttempts: (params.maxAttempts as number | undefined) ?? DEFAULT_ATTEMPTS,
      delivery: null,
      response: null,
      isPushed: (params.deployment as string).startsWith("pushed"),
    },
  ];
}

function isNamed(state: Command, shown: Json): boolean {
  return state.commandId === null || state.commandId === shown.commandId;
}

function named(state: Command, shown: Json): Command {
  return state.commandId === null ? { ...state, commandId: shown.commandId } : state;
}

function lease(state: Command, call: Call, answer: Answer, when: Circumstances): State[] {
  const leaseMs = (call.params.leaseMs as number | undefined) ?? DEFAULT_LEASE_MS;
  // It was not to be had. One that may be pushed may be on its way to a receiver that has not told of it.
  if (answer !== "unknown" && "result" in answer && answer.result === null)
    return state.status !== "PENDING" || state.isPushed || isToBeNoticed(state, when) ? [state] : [];
  if (state.status !== "PENDING") return [];
  if (answer === "unknown") return [{ ...state, status: "DISPATCHED", delivery: UNSEEN }];
  if ("error" in answer) return [];
  const { leaseId, attempt } = answer.result;
  const isNext = state.isPushed ? attempt >= state.attempt : attempt === state.attempt;
  if (!isNext || !isNamed(state, answer.result)) return [];
  const untilMs = grantedUntilMs(leaseMs, when);
  const delivery = { untilMs, bound: boundTo(call, when), leaseId, isPushed: false };
  return [{ ...named(state, answer.result), status: "DISPATCHED", attempt, delivery }];
}

/** True of one that is shown as it is by now, and is ready once a daemon has come to the end of its delivery. */
function isToBeNoticed({ delivery }: Command, { sentMs }: Circumstances): boolean {
  return delivery?.endedMs !== undefined && sentMs < delivery.endedMs + NOTICED_MS;
}

/** Whose it is, and for how long, makes no difference: so what several of them did can be told in few ways. */
const UNSEEN: Delivery = { untilMs: 0, bound: [], leaseId: null, isPushed: false };

/** A request of the daemon to a receiver; some of those before may have met a connection that was just lost. */
function execute(state: Command, answer: Answer, { operation }: Circumstances): State[] {
  if (answer === "unknown" || "error" in answer) return [];
  const { leaseId, attempt } = answer.result;
  if (state.status !== "PENDING" || attempt < state.attempt || !isNamed(state, answer.result)) return [];
  const bound = [{ connection: operation.connection, sinceMs: operation.ended.ms - SENT_BEFORE_MS }];
  const delivery = { untilMs: FOR_EVER, bound, leaseId, isPushed: true };
  return [{ ...named(state, answer.result), status: "DISPATCHED", attempt, delivery }];
}

const LOST = new Set(["lease_lost", "invalid_state"]);

function isLost(answer: Answer): boolean {
  return answer !== "unknown" && "error" in answer && LOST.has(answer.error.data.kind);
}

function isDelivered(state: Command, call: Call): boolean {
  return state.status === "DISPATCHED" && state.delivery?.leaseId === call.params.leaseId;
}

function renew(
  state: Command,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  if (!isDelivered(state, call)) return answer === "unknown" || isLost(answer) ? [state] : [];
  if (answer !== "unknown" && "error" in answer) return [];
  const before = state.delivery as Delivery;
  const untilMs = when.sentMs + ((call.params.leaseMs as number | undefined) ?? DEFAULT_LEASE_MS);
  const bound = boundAfterRenewal(before, connections, when);
  return [{ ...state, delivery: { ...before, untilMs, bound } }];
}

function release(state: Command, call: Call, answer: Answer): State[] {
  if (!isDelivered(state, call)) {
    if (answer === "unknown" || isLost(answer)) return [state];
    // The same state again is accepted; then the delivery may not be answered late any more.
    const isSame = "result" in answer && state.status === "PENDING" && isShown(state, answer.result);
    return isSame ? [state, { ...state, delivery: null }] : [];
  }
  if (answer !== "unknown" && "error" in answer) return [];
  const after = back(state, null);
  if (answer === "unknown") return [after];
  return answer.result.state === after.status && answer.result.attempt === after.attempt ? [after] : [];
}

function respond(state: Command, call: Call, answer: Answer): State[] {
  const isFinal = state.status === "SUCCEEDED" || state.status === "FAILED";
  const isLast = !isFinal && state.delivery !== null && state.delivery.leaseId === call.params.leaseId;
  const { status, response } = call.params.response as { status: string; response: unknown };
  const after: Command = {
    ...state,
    status: status === "success" ? "SUCCEEDED" : "FAILED",
    response: JSON.stringify(response),
    delivery: null,
  };
  if (answer === "unknown") return [isLast ? after : state];
  if ("error" in answer) return !isLast && !isFinal && isLost(answer) ? [state] : [];
  if (isLast) return answer.result.accepted && answer.result.state === after.status ? [after] : [];
  return isFinal && !answer.result.accepted && answer.result.state === state.status ? [state] : [];
}

function cancel(state: Command, answer: Answer): State[] {
  const isFinal = state.status === "SUCCEEDED" || state.status === "FAILED";
  const after: Command = isFinal ? state : { ...state, status: "FAILED", delivery: null };
  if (answer === "unknown") return [after];
  return "result" in answer && answer.result.state === after.status ? [after] : [];
}

function isShown(state: Command, shown: Json): boolean {
  if (shown.commandId !== undefined && !isNamed(state, shown)) return false;
  if (!state.isPushed) return shown.state === state.status && shown.attempt === state.attempt;
  // It may be on its way to a receiver that has not told of it.
  const isOnItsWay = state.status === "PENDING" && shown.state === "DISPATCHED";
  return (shown.state === state.status || isOnItsWay) && shown.attempt >= state.attempt;
}

function read(state: Command, answer: Answer): State[] {
  if (answer === "unknown") return [state];
  if ("error" in answer) return [];
  const { response } = answer.result;
  const isFinal = state.status === "SUCCEEDED" || state.status === "FAILED";
  if (!isFinal) return response === null ? [state] : [];
  if (state.response === null) return [state];
  return JSON.stringify(response?.response) === state.response ? [state] : [];
}
