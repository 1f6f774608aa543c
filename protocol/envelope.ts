import { type PawlError, refuse, shortened, shown } from "./errors.js";
import { MAX_ID_LENGTH, MAX_INTEGER } from "./limits.js";

/** The shapes of JSON-RPC 2.0 (https://www.jsonrpc.org/specification). */
export type Id = string | number | null;

export interface Request {
  jsonrpc: "2.0";
  /** Absent for a notification, which is never answered. */
  id?: Id;
  method: string;
  params?: Record<string, unknown>;
}

export interface ErrorObject {
  code: number;
  message: string;
  data?: unknown;
}

export interface Success {
  jsonrpc: "2.0";
  id: Id;
  result: unknown;
}

export interface Failure {
  jsonrpc: "2.0";
  id: Id;
  error: ErrorObject;
}

export type Response = Success | Failure;

/** The id to answer under when a message is refused as a whole: its own if that is an id, else null. */
export function idOf(message: unknown): Id {
  const id = isObject(message) ? message.id : undefined;
  return isId(id) ? id : null;
}

/** True if a message answers one of ours, rather than asking: it has a result or an error and no method. */
export function isResponse(message: unknown): message is Response {
  return isObject(message) && !("method" in message) && ("result" in message || "error" in message);
}

/**
 * Checks one element of a line against JSON-RPC 2.0 and against the rule that params are an object or none.
 * Stricter than most implementations, which take `[null]`, object ids and string params for granted.
 *
 * @param idText gives the id as it was sent, for a refusal: of a number that is no id JavaScript keeps another one.
 */
export function checkRequest(message: unknown, idText?: () => string | undefined): Request | PawlError {
  if (!isObject(message)) {
    return invalid(`A request is a JSON object, not ${shown(message)}.`);
  }
  if (message.jsonrpc !== "2.0") {
    return invalid(`A request has "jsonrpc": "2.0", not ${shown(message.jsonrpc)}.`);
  }
  if ("id" in message && !isId(message.id)) {
    const ids = `a string of at most ${MAX_ID_LENGTH} characters, null or a number up to ${MAX_INTEGER}`;
    return invalid(
      `A request id is ${ids}, not ${shownId(message.id, idText)}. Use a short string for others.`,
    );
  }
  if (typeof message.method !== "string") {
    return invalid(`A request names its method by a string, not ${shown(message.method)}.`);
  }
  if ("params" in message && !isObject(message.params)) return withoutParams(message);
  return message as unknown as Request;
}

/**
 * A request whose params are no object. Null and the empty array say that there are none, as several libraries write
 * it; JSON-RPC also allows other arrays, which this protocol refuses, and nothing else.
 */
function withoutParams({ params, ...message }: Record<string, unknown>): Request | PawlError {
  const isArray = Array.isArray(params);
  if (params === null || (isArray && params.length === 0)) return message as unknown as Request;
  const text = `Params are by name: send an object, not ${shown(params)}.`;
  return isArray ? refuse("invalid_params", text, { issues: [{ path: "", message: text }] }) : invalid(text);
}

function invalid(message: string): PawlError {
  return refuse("invalid_request", message);
}

/** An id as a refusal shows it: a number as it was sent, where its text is there. */
function shownId(id: unknown, text?: () => string | undefined): string {
  const sent = typeof id === "number" ? text?.() : undefined;
  return sent === undefined ? shown(id) : shortened(sent);
}

function isId(value: unknown): value is Id {
  if (typeof value === "string") return value.length <= MAX_ID_LENGTH;
  if (typeof value !== "number") return value === null;
  // A larger integer is already rounded, and its answer would come under another id.
  return Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
