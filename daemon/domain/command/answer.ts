// The answer to a delivery, by command.respond or as the response to a push.
import type { CommandState, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Texts, textsAt } from "@pawl/protocol/json-text";
import {
  MAX_ANSWER_CODE_LENGTH,
  MAX_PAYLOAD_NESTING_LEVELS,
  MAX_SHOWN_MESSAGE_LENGTH,
} from "@pawl/protocol/limits";
import { nestingLevels } from "../../json/raw-json.js";
import { type Operation, one, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { lostLease, readLeaseId } from "./delivery.js";
import { finish, type LiveRow, noSuchCommand, selectLive } from "./row.js";
import { isFinal, stateAt } from "./state.js";

/** The code, for programs to match on, of an answer to a push that is no answer. */
const INVALID_RESPONSE = "INVALID_RESPONSE";

/** The answer of a receiver: the value of a success, or an error. Values are JSON texts. */
export type Answer =
  | { readonly state: "SUCCEEDED"; readonly valueText: string }
  | {
      readonly state: "FAILED";
      readonly code: string;
      readonly message: string;
      readonly detailsText: string | undefined;
    };

/** The answer to a push that was too long for a line, and of which nothing is known. */
export const ANSWER_TOO_LARGE: Answer = {
  state: "FAILED",
  code: "ANSWER_TOO_LARGE",
  message:
    "The answer was longer than a line may be (--max-message-bytes), so nothing of it was kept. Send such answers in pieces, by command.answer.",
  detailsText: undefined,
};

export const insertResponse = sql(
  "INSERT INTO pawl_command_response (seq, response) VALUES (:seq, :response)",
);

export function* respond(
  params: Parsed<"command.respond">,
  env: Env,
  texts: Texts,
): Operation<Result<"command.respond"> | PawlError> {
  const { commandId, leaseId, response } = params;
  const given = readLeaseId(leaseId, env);
  const attempt = given?.commandId === commandId ? given.attempt : undefined;
  const text = texts[0] ?? JSON.stringify(response);
  const part = response.status === "success" ? "response" : "details";
  const valueText = textsAt(text, [part])[0];
  if (isTooDeep(valueText)) {
    const path = `/response/${part}`;
    const message = `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another`;
    return refuse("invalid_params", `command.respond: ${path} ${message}.`, { issues: [{ path, message }] });
  }
  const answer: Answer =
    response.status === "success"
      ? { state: "SUCCEEDED", valueText: valueText ?? "null" }
      : { state: "FAILED", code: response.code, message: response.message, detailsText: valueText };
  return yield* takeAnswer({ commandId, attempt }, answer, env);
}

/**
 * Takes an answer to a delivery: the first one with the live lease ends the command. One to a final command is
 * kept as evidence only: counted, and logged.
 *
 * @param delivery an attempt of undefined is none that ever was.
 */
export function* takeAnswer(
  delivery: { readonly commandId: string; readonly attempt: number | undefined },
  answer: Answer,
  env: Env,
): Operation<Result<"command.respond"> | PawlError> {
  const { commandId, attempt } = delivery;
  const row = yield* one(selectLive, { commandId });
  if (row === undefined) return noSuchCommand(commandId);
  const { state } = stateAt(row, env);
  if (isFinal(state)) {
    // The response to a push that was answered in pieces is no second answer.
    const inPieces = yield* completeAnswer(row.seq);
    const isSame = inPieces !== undefined && inPieces.attempt === attempt;
    if (!isSame) tellLate({ commandId, state, attempt, answer: answer.state }, env);
    return { state, accepted: false };
  }
  const refusal = yield* refusalOf(row, state, attempt, answer.state, env);
  if (refusal !== undefined) return refusal;

  const { response, sizeBytes } = written(answer);
  const cause = answer.state === "FAILED" ? { code: answer.code, message: storable(answer.message) } : null;
  yield* finish(row, { state: answer.state, cause, responseBytes: sizeBytes }, env);
  yield* write(insertResponse, { seq: row.seq, response });
  return { state: answer.state, accepted: true };
}

const selectComplete = sql<{ attempt: number; sizeBytes: number }>(`
  SELECT attempt, size_bytes AS "sizeBytes" FROM pawl_command_answer WHERE seq = :seq AND is_complete = 1`);

/** The answer that ended a command, if it came in pieces: to which delivery, and how long the whole text is. */
export function* completeAnswer(seq: number): Operation<{ attempt: number; sizeBytes: number } | undefined> {
  return yield* one(selectComplete, { seq });
}

/** Of an answer to a command that has ended. */
export function tellLate(what: object, env: Env): void {
  env.effects.count("commandAnswersLate", 1);
  env.effects.log("late answer to a command", { ...what, caller: env.caller });
}

/**
 * Why an answer to a command that is not final is refused: its delivery is not the last one, or was given back. What
 * ended by itself may be answered late, whether or not that end is written down.
 */
export function* refusalOf(
  row: LiveRow,
  state: CommandState,
  attempt: number | undefined,
  to: CommandState,
  env: Env,
): Operation<PawlError | undefined> {
  const isLast = attempt === (row.state === "DISPATCHED" ? row.attempt : row.lateAttempt);
  if (attempt !== undefined && isLast) return undefined;
  return state === "DISPATCHED"
    ? yield* lostLease(row, attempt, env)
    : nothingToAnswer(row.commandId, state, to);
}

/** An answer as it is kept. Its size is that of the value, for an error that of the whole. */
function written(answer: Answer): { response: string; sizeBytes: number } {
  if (answer.state === "SUCCEEDED") {
    const response = `{"status":"success","response":${answer.valueText}}`;
    return { response, sizeBytes: Buffer.byteLength(answer.valueText) };
  }
  const { code, message, detailsText } = answer;
  const details = detailsText === undefined ? "" : `,"details":${detailsText}`;
  const response = `{"status":"error","code":${JSON.stringify(code)},"message":${JSON.stringify(message)}${details}}`;
  return { response, sizeBytes: Buffer.byteLength(response) };
}

/** The beginning of a message, without what SQLite would cut it at or change in it. */
export function storable(message: string): string {
  return message.slice(0, MAX_SHOWN_MESSAGE_LENGTH).replace(/[\0\p{Surrogate}]/gu, "\ufffd");
}

/** The table forbids only some of it, but a receiver must not have to know which answer it was. */
function nothingToAnswer(commandId: string, from: CommandState, to: CommandState): PawlError {
  return refuse(
    "invalid_state",
    `The command ${shown(commandId)} is ${from}: no delivery of it is under way that could be answered. A receiver whose lease has ended leases it again.`,
    { commandId, from, to },
  );
}

/**
 * The answer that a JSON-RPC response to `command.execute` is. A code that is no text of its own is in
 * `error.data`, because JSON-RPC has numbers there. A response that is none ends the command too, since its
 * receiver would send the same again: as FAILED with INVALID_RESPONSE, and `wrong` says what is wrong with it.
 *
 * @param text the response as it came.
 * @param message the same, parsed.
 */
export function answerOf(
  text: string,
  message: { result?: unknown; error?: unknown },
): { answer: Answer; wrong?: string } {
  const read = readResponse(text, message);
  if (typeof read === "string") return invalidResponse(read);
  if (!isTooDeep(read.state === "SUCCEEDED" ? read.valueText : read.detailsText)) return { answer: read };
  return invalidResponse(
    `The response to command.execute holds more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another.`,
  );
}

function readResponse(text: string, message: { result?: unknown; error?: unknown }): Answer | string {
  // Some write null for the one of the two that is not there.
  const hasError = Object.hasOwn(message, "error") && message.error !== null;
  const hasResult = Object.hasOwn(message, "result") && (!hasError || message.result !== null);
  if (hasResult && hasError) return "The response to command.execute has both a result and an error.";
  if (hasResult) return { state: "SUCCEEDED", valueText: textsAt(text, ["result"])[0] as string };
  if (!Object.hasOwn(message, "error")) {
    return "The response to command.execute has neither a result nor an error.";
  }
  const { error } = message;
  if (!isObject(error) || !Number.isInteger(error.code) || typeof error.message !== "string") {
    return "The error in the response to command.execute is not an object with a whole number as code and a text as message.";
  }
  const { data } = error;
  const own = isObject(data) && typeof data.code === "string" && isCode(data.code) ? data.code : undefined;
  return {
    state: "FAILED",
    code: own ?? String(error.code),
    message: error.message,
    detailsText: textsAt(text, own === undefined ? ["error", "data"] : ["error", "data", "details"])[0],
  };
}

function invalidResponse(wrong: string): { answer: Answer; wrong: string } {
  return {
    answer: { state: "FAILED", code: INVALID_RESPONSE, message: wrong, detailsText: undefined },
    wrong,
  };
}

function isTooDeep(text: string | undefined): boolean {
  return text !== undefined && nestingLevels(text) > MAX_PAYLOAD_NESTING_LEVELS;
}

export function isCode(text: string): boolean {
  return text.length >= 1 && text.length <= MAX_ANSWER_CODE_LENGTH && !/[\0\p{Surrogate}]/u.test(text);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
