import { MAX_ANSWER_CODE_LENGTH, MIN_MAX_MESSAGE_BYTES } from "@pawl/protocol/limits";
import type { Params, Result, Trace } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { stringify } from "../connection/json-text.js";
import { callListener } from "../work/listeners.js";
import { Postpone } from "../work/postpone.js";
import { textOfThrown } from "../work/thrown.js";
import { CommandError, type Handlers, type ReceivedCommand, type ServeOptions } from "./receive.js";

/** By how many bytes a request is longer than the answer it carries, at most. */
const ENVELOPE_BYTES = 512;
const MAX_MESSAGE_LENGTH = 4096;

export type Envelope = Result<"command.lease">["leases"][number]["envelope"];
export type CommandResponse = Params<"command.respond">["response"];
export type ErrorResponse = Extract<CommandResponse, { status: "error" }>;

/**
 * Has the handler of a command carry it out. Resolves with the answer, which may be an error or too long for a line, or
 * with `Postpone` if there is to be none yet. Rejects when the daemon refuses to tell the params or its limits.
 */
export async function carryOut(
  connection: Connection,
  envelope: Envelope,
  received: Received,
  handlers: Handlers,
  { onFailure }: ServeOptions,
): Promise<CommandResponse | LongAnswer | Postpone> {
  const { deployment, command } = envelope;
  const handler = Object.hasOwn(handlers, command) ? handlers[command] : undefined;
  if (handler === undefined) {
    return { status: "error", code: "UNKNOWN_COMMAND", message: `${deployment} does not know ${command}.` };
  }
  const params = await readParams(connection, envelope, received);
  const answer = await answerOf(handler, params, received, onFailure);
  return answer instanceof Postpone ? answer : await fitting(connection, answer);
}

/** The params, read from the daemon first if they were uploaded. */
async function readParams(connection: Connection, envelope: Envelope, received: Received): Promise<unknown> {
  if (!isUploaded(envelope.params)) return envelope.params;
  const text = await uploadedText(connection, envelope.commandId, received.signal);
  received.paramsText = () => text;
  return JSON.parse(text);
}

/** An answer and its JSON text. */
interface WrittenAnswer {
  readonly answer: CommandResponse;
  readonly text: string;
}

async function answerOf(
  handler: Handlers[string],
  params: unknown,
  received: Received,
  onFailure: ServeOptions["onFailure"],
): Promise<WrittenAnswer | Postpone> {
  try {
    return written({ status: "success", response: (await handler(params, received)) ?? null });
  } catch (error) {
    if (error instanceof Postpone) return error;
    if (onFailure !== undefined) callListener(onFailure, error, received);
    return written(errorAnswer(error));
  }
}

/** Throws the error of JSON.stringify for an answer that is no JSON. */
function written(answer: CommandResponse): WrittenAnswer {
  return { answer, text: stringify(answer) };
}

/** Params that were uploaded stay with the daemon until somebody reads them, piece by piece. */
async function uploadedText(connection: Connection, commandId: string, signal: AbortSignal): Promise<string> {
  const pieces: Buffer[] = [];
  for (let offset = 0; ; ) {
    const { chunk, sizeBytes } = await connection.call("command.params", { commandId, offset }, { signal });
    const piece = Buffer.from(chunk, "base64");
    pieces.push(piece);
    offset += piece.length;
    if (offset >= sizeBytes || piece.length === 0) break;
  }
  return Buffer.concat(pieces).toString("utf8");
}

function isUploaded(params: unknown): boolean {
  if (typeof params !== "object" || params === null || Object.keys(params).join() !== "$upload") return false;
  return typeof (params as { $upload?: { sizeBytes?: unknown } | null }).$upload?.sizeBytes === "number";
}

export const HANDLER_ERROR = { status: "error", code: "HANDLER_ERROR" } as const;

function errorAnswer(error: unknown): ErrorResponse {
  const message = textOfThrown(error, MAX_MESSAGE_LENGTH);
  if (!(error instanceof CommandError)) return { ...HANDLER_ERROR, message };
  const code = textOfThrown(error.code, MAX_ANSWER_CODE_LENGTH) || HANDLER_ERROR.code;
  try {
    const details = JSON.parse(JSON.stringify(error.details ?? null));
    return { status: "error", code, message, ...(details === null ? {} : { details }) };
  } catch {
    // The details are no JSON; code and message say the most of it.
    return { status: "error", code, message };
  }
}

/** An answer for the line that it fits into; else its text, to be sent in pieces. */
async function fitting(
  connection: Connection,
  { answer, text }: WrittenAnswer,
): Promise<CommandResponse | LongAnswer> {
  const lineBytes = Buffer.byteLength(text) + ENVELOPE_BYTES;
  const fits = lineBytes <= MIN_MAX_MESSAGE_BYTES || lineBytes <= (await connection.maxMessageBytes());
  return fits ? answer : new LongAnswer(text);
}

/** An answer that no line takes, as the JSON text of what `command.respond` would have. */
export class LongAnswer {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export class Received implements ReceivedCommand {
  readonly commandId: string;
  readonly deployment: string;
  readonly target: string;
  readonly command: string;
  readonly attempt: number;
  readonly deadline: number | null;
  readonly executionMs: number | null;
  readonly checkpoint?: unknown;
  readonly trace?: Trace;
  readonly signal: AbortSignal;
  paramsText: () => string;
  readonly progress: ReceivedCommand["progress"];

  /** @param leaseId of the delivery. */
  constructor(
    connection: Connection,
    leaseId: string,
    envelope: Envelope,
    signal: AbortSignal,
    paramsText: () => string,
  ) {
    this.commandId = envelope.commandId;
    this.deployment = envelope.deployment;
    this.target = envelope.target;
    this.command = envelope.command;
    if (envelope.checkpoint !== undefined) this.checkpoint = envelope.checkpoint;
    if (envelope.trace !== undefined) this.trace = envelope.trace;
    this.progress = async (done) => {
      await connection.call("command.progress", { leaseId, ...done }, { signal });
    };
    this.attempt = envelope.attempt;
    this.deadline = envelope.deadline;
    this.executionMs = envelope.executionMs;
    this.signal = signal;
    this.paramsText = paramsText;
  }
}
