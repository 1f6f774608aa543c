import { randomUUID } from "node:crypto";
import { PawlError } from "@pawl/protocol/errors";
import { INLINE_MAX_BYTES } from "@pawl/protocol/limits";
import type { Params, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { stringify } from "../connection/json-text.js";
import { readAnswer } from "./answer-text.js";

/** How long one question for the answer waits at the daemon. */
const WAIT_MS = 60_000;
const MAX_PIECE_BYTES = 512 * 1024;
/** By how many bytes a request is longer than the params it carries, at most. */
const ENVELOPE_BYTES = 512;
const FINAL: readonly CommandState[] = ["SUCCEEDED", "FAILED", "EXPIRED"];

type CommandState = Result<"command.wait">["state"];
type CommandResponse = Params<"command.respond">["response"];

export interface SendOptions {
  /** A resource within the deployment, which a receiver may name; none by default. */
  target?: string;
  /** The one receiver that it is for: it fails with `GONE` when that has ended. Whichever takes it, by default. */
  incarnation?: string;
  /** The trace that it belongs to (W3C Trace Context), handed on to its receiver. */
  trace?: NonNullable<Params<"command.create">["trace"]>;
  /** The command becomes EXPIRED unless it is answered within so many milliseconds. */
  ttlMs?: number;
  /** The same as a point in time, in milliseconds since the Unix epoch. Not both. */
  deadline?: number;
  /** How long one delivery may take, in milliseconds: past it the command is delivered anew. */
  executionMs?: number;
  /** After so many deliveries without an answer it is FAILED; 20 by default, 0 for no limit. */
  maxAttempts?: number;
  /** How it rests between deliveries that end without an answer; not at all by default. */
  retry?: NonNullable<Params<"command.create">["retry"]>;
  /**
   * Sending again under the same key, also from another process, joins the first command instead of creating
   * another. Otherwise a key is made for each call, so that a lost connection never creates two.
   */
  idempotencyKey?: string;
  /** Cancels the command, unless another call under the same key created it. The call rejects with the reason. */
  signal?: AbortSignal;
}

/**
 * A command that ended without success: its receiver answered with an error, or it was cancelled (`CANCELLED`),
 * given up (`ATTEMPTS_EXHAUSTED`), for a receiver that has ended (`GONE`) or not answered in time (`EXPIRED`).
 */
export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  readonly commandId: string;
  readonly state: CommandState;
  /** For programs to match on. */
  readonly code: string;
  readonly details: unknown;

  constructor(commandId: string, state: CommandState, answer: Extract<CommandResponse, { status: "error" }>) {
    super(answer.message);
    this.commandId = commandId;
    this.state = state;
    this.code = answer.code;
    this.details = answer.details;
  }
}

type Created = Result<"command.create">;

/** Sends a command and resolves with its answer. See `Commands.send`. */
export function send(
  connection: Connection,
  deployment: string,
  command: string,
  params?: unknown,
  options?: SendOptions,
): Promise<unknown> {
  return sendThen(connection, deployment, command, params, options, ({ commandId }, giveUp) =>
    answerOf(connection, commandId, giveUp),
  );
}

/** Sends a command and resolves once all its params are with the daemon. See `Commands.create`. */
export function create(
  connection: Connection,
  deployment: string,
  command: string,
  params?: unknown,
  options?: SendOptions,
): Promise<Created> {
  return sendThen(connection, deployment, command, params, options, async (created) => created);
}

async function sendThen<T>(
  connection: Connection,
  deployment: string,
  command: string,
  params: unknown = null,
  options: SendOptions = {},
  finish: (created: Created, giveUp: { signal?: AbortSignal }) => Promise<T>,
): Promise<T> {
  const { signal, idempotencyKey = randomUUID(), ...limits } = options;
  const giveUp = signal === undefined ? {} : { signal };
  signal?.throwIfAborted();
  const text = Buffer.from(stringify(params) ?? "null");
  const content = text.length <= INLINE_MAX_BYTES ? { params } : { upload: { sizeBytes: text.length } };
  const request: Params<"command.create"> = { deployment, command, idempotencyKey, ...limits, ...content };
  // The call is not given up by the signal: the command that it creates is to be cancelled.
  const creating = connection.call("command.create", request);
  const onAbort = (): void => {
    creating
      .then(async ({ commandId, created }) => {
        // Under a key that others may use too, only whoever created it cancels it.
        if (options.idempotencyKey !== undefined && !created) return;
        await connection.call("command.cancel", { commandId, reason: "Its sender gave it up." });
      })
      // If this cannot be said, it is as if nobody waited for the answer.
      .catch(() => {});
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const created = await unlessAborted(creating, signal);
    if (created.next === "upload") await upload(connection, created.commandId, text, giveUp);
    return await finish(created, giveUp);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Waits for the answer to a command, for as long as it takes. See `Commands.answer`. */
export async function answerOf(
  connection: Connection,
  commandId: string,
  options: { signal?: AbortSignal } = {},
): Promise<unknown> {
  for (;;) {
    const { state } = await connection.call("command.wait", { commandId, waitMs: WAIT_MS }, options);
    if (!FINAL.includes(state)) continue;
    const { response } = await connection.call("command.response", { commandId }, options);
    if (response === null) throw new PawlError("internal", `The answer to ${commandId} is missing.`);
    const whole = "$upload" in response ? parsed(await readAnswer(connection, commandId, options)) : response;
    if (whole.status === "error") throw new CommandFailed(commandId, state, whole);
    return whole.response;
  }
}

function parsed(text: string): CommandResponse {
  return JSON.parse(text);
}

/**
 * Sends params in pieces. Where the next one begins is what the daemon says it is: a lost answer may be that of
 * a piece it has, and another sender with the same key may be uploading the same.
 */
async function upload(
  connection: Connection,
  commandId: string,
  text: Buffer,
  giveUp: { signal?: AbortSignal },
): Promise<void> {
  const pieceBytes = await pieceSize(connection);
  for (let offset = 0; offset < text.length; ) {
    const piece = text.subarray(offset, offset + pieceBytes);
    const final = offset + piece.length === text.length;
    const params = { commandId, offset, chunk: piece.toString("base64"), final };
    try {
      offset = (await connection.call("command.upload", params, giveUp)).receivedBytes;
    } catch (error) {
      if (error instanceof ConnectionLost && error.mayHaveTakenEffect && !connection.closed.aborted) continue;
      if (!(error instanceof PawlError)) throw error;
      // The command has all its params, or has ended without them: its answer will tell.
      if (error.kind === "invalid_state") return;
      const { receivedBytes } = error.details;
      if (typeof receivedBytes !== "number" || receivedBytes === offset) throw error;
      offset = receivedBytes;
    }
  }
}

/** How much of the params one request carries: base64 makes four bytes of three. */
async function pieceSize(connection: Connection): Promise<number> {
  const room = (await connection.maxMessageBytes()) - ENVELOPE_BYTES;
  return Math.min(MAX_PIECE_BYTES, Math.floor(room / 4) * 3);
}
