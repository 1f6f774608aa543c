// One command (spec: command.md): one delivery at a time, each counted, one answer, and a final state that stays.
import type { Call } from "../history.js";
import {
  type Answer,
  boundAfterRenewal,
  boundTo,
  type CallModel,
  type Circumstances,
  type Connections,
  endsByItself,
  type Json,
  type Lasting,
  modelOf,
} from "./calls.js";

interface Delivery extends Lasting {
  /** Null of a delivery that nobody saw. */
  leaseId: string | null;
  isPushed: boolean;
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

export function commandModel(connections: Connections) {
  const mayHaveEnded = endsByItself(connections);
  // One that was pushed ends with its connection, whatever ended that.
  const hasClosed = endsByItself({ boundUntil: connections.closed, cutOff: new Map() });
  const model: CallModel<State> = {
    initial: null,
    call: (state, call, answer, when) => {
      const over =
        state?.status === "DISPATCHED" &&
        state.delivery !== null &&
        (state.delivery.isPushed ? hasClosed : mayHaveEnded)(state.delivery, when.beforeMs);
      const states = over ? [state, back(state, state.delivery)] : [state];
      return states.flatMap((each) => perform(each, call, answer, when, connections));
    },
  };
  return modelOf(model);
}

/** A command whose delivery ended without an answer. */
function back(state: Command, delivery: Delivery | null): Command {
  const isSpent = state.maxAttempts > 0 && state.attempt >= state.maxAttempts;
  if (isSpent) return { ...state, status: "FAILED", delivery: null };
  return { ...state, status: "PENDING", attempt: state.attempt + 1, delivery };
}

function perform(
  state: State,
  call: Call,
  answer: Answer,
  when: Circumstances,
  connections: Connections,
): State[] {
  if (call.method === "command.create") return create(state, call, answer);
  // Of a command that is not there, nothing can be known.
  if (state === null) return answer === "unknown" ? [state] : [];
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
      return answer === "unknown" || ("result" in answer && isShown(state, answer.result)) ? [state] : [];
    case "command.response":
      return read(state, answer);
  }
  throw new Error(`no model of ${call.method}`);
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
  const delivery = {
    untilMs: when.sentMs + leaseMs,
    bound: boundTo(call, when),
    leaseId: null,
    isPushed: false,
  };
  if (state.status !== "PENDING") return [];
  if (answer === "unknown") return [{ ...state, status: "DISPATCHED", delivery }];
  if ("error" in answer) return [];
  const { leaseId, attempt } = answer.result;
  if (attempt !== state.attempt || !isNamed(state, answer.result)) return [];
  return [{ ...named(state, answer.result), status: "DISPATCHED", delivery: { ...delivery, leaseId } }];
}

/** A request of the daemon to a receiver; some of those before may have met a connection that was just lost. */
function execute(state: Command, answer: Answer, { operation, sentMs }: Circumstances): State[] {
  if (answer === "unknown" || "error" in answer) return [];
  const { leaseId, attempt } = answer.result;
  if (state.status !== "PENDING" || attempt < state.attempt || !isNamed(state, answer.result)) return [];
  const bound = [{ connection: operation.connection, sinceMs: sentMs }];
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
