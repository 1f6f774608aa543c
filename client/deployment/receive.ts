import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { NotificationParams, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import {
  DEFAULT_LEASE_MS,
  MAX_ANSWER_CODE_LENGTH,
  MAX_SERVED_COMMANDS,
  MAX_TIMER_MS,
  MIN_MAX_MESSAGE_BYTES,
} from "@pawl/protocol/limits";
import { type ClientConnection, ConnectionLost, RequestFailure } from "../connection/connection.js";
import { defaultOwner, Hold, type ReleaseOn, settle } from "../grants/held-grant.js";
import {
  ASK_WAIT_MS,
  Crew,
  checkConcurrency,
  FIRST_PAUSE_MS,
  isForGood,
  MAX_PAUSE_MS,
  Postpone,
  tell,
  type WorkHandle,
  warn,
} from "../work/worker-pool.js";

/** What a request is longer than the answer it carries. */
const ENVELOPE_BYTES = 512;
const MAX_MESSAGE_LENGTH = 4096;
/** The JSON-RPC code of an answer that is an error; what programs match on is `data.code`. */
const ANSWERED_WITH_ERROR = 1;

type Leased = Result<"command.lease">["leases"][number];
type Envelope = Leased["envelope"];
type CommandResponse = NonNullable<Result<"command.response">["response"]>;

/** What was leased, the result that it came in, and when it was asked for. */
interface Taken {
  readonly lease: Leased;
  readonly text: string;
  readonly askedAt: number;
}

/** Where the params are in the result of `command.lease`, and in a `command.execute`. */
const LEASED_PARAMS = ["leases", EACH, "envelope", "params"];
const PUSHED_PARAMS = ["params", "params"];

/** What a handler is told of the command it carries out. */
export interface ReceivedCommand {
  readonly commandId: string;
  readonly deployment: string;
  readonly command: string;
  /** 1 at first; higher when an earlier delivery ended without an answer. */
  readonly attempt: number;
  /** When it becomes EXPIRED, in milliseconds since the Unix epoch. */
  readonly deadline: number | null;
  /** The params as the JSON text that was sent, byte for byte: JavaScript's numbers do not hold every digit. */
  paramsText(): string;
  /**
   * Aborted when nobody waits for this answer any more. The reason is a `PawlError` `lease_lost` whose
   * `details.reason` is `cancelled` (with the canceller's words in `details.message`), `expired`, or why it is
   * delivered anew; or `ConnectionLost`.
   */
  readonly signal: AbortSignal;
}

/** The commands that a deployment takes: `{ build: { params: { ref: string }; response: { ok: boolean } } }`. */
export type CommandContract<C> = { [N in keyof C]: { params: unknown; response: unknown } };
// biome-ignore lint/suspicious/noExplicitAny: who names no contract says in the handler what the params are.
export type AnyContract = Record<string, { params: any; response: unknown }>;

/** One function per command, which returns the answer. What it throws is answered as an error. */
export type CommandHandlers<C> = {
  readonly [N in keyof C]: (
    params: C[N] extends { params: infer P } ? P : never,
    command: ReceivedCommand,
  ) => C[N] extends { response: infer R } ? R | Promise<R> : never;
};

type Handlers = Readonly<Record<string, (params: unknown, command: ReceivedCommand) => unknown>>;

export interface ServeOptions {
  /** How many commands are carried out at a time; 1 by default, 100 at most when they are pushed. */
  concurrency?: number;
  /** Who receives, for people; otherwise the program and its pid. */
  owner?: string;
  /** Ends it as `close` does. */
  signal?: AbortSignal;
  /** Told of what a handler threw, before it is answered as an error. */
  onFailure?: (error: unknown, command: ReceivedCommand) => void;
  /** Told of trouble with the daemon: commands that are lost or cannot be had. By default it is a process warning. */
  onError?: (error: unknown, command?: ReceivedCommand) => void;
}

export interface PullOptions extends ServeOptions {
  /** How long a command outlives the last sign of life, in milliseconds; 30,000 by default. */
  leaseMs?: number;
  /** `disconnect` (default) lets go of a command the moment this process ends; `expiry` when its lease has passed. */
  releaseOn?: ReleaseOn;
}

/**
 * Thrown by a handler to choose the error that answers the command. Other errors are answered with the code
 * `HANDLER_ERROR` and their message.
 *
 * @example throw new CommandError("NO_SUCH_BRANCH", `There is no ${ref}.`, { ref });
 */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly code: string;
  readonly details: unknown;

  constructor(code: string, message: string, details?: unknown) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** Takes the commands of a deployment, waiting for them, until closed. See `Commands.pull`. */
export function pull(
  connection: ClientConnection,
  deployment: string,
  handlers: Handlers,
  options: PullOptions = {},
): WorkHandle {
  const { concurrency = 1, owner = defaultOwner(), leaseMs = DEFAULT_LEASE_MS } = options;
  const { releaseOn = "disconnect", signal, onError = warn } = options;

  async function take(giveUp: AbortSignal): Promise<Taken | undefined> {
    const askedAt = performance.now();
    const { result, text } = await connection.callForText(
      "command.lease",
      { deployment, owner, leaseMs, waitMs: ASK_WAIT_MS, releaseOn },
      { signal: giveUp },
    );
    const [lease] = result.leases;
    return lease === undefined ? undefined : { lease, text, askedAt };
  }

  async function perform({ lease, text, askedAt }: Taken): Promise<void> {
    const { leaseId, commandId, envelope, leaseExpiresAt, remainingMs } = lease;
    const hold = new Hold({
      connection,
      what: `The lease of ${commandId}`,
      lostKind: "lease_lost",
      leaseMs,
      releaseOn,
      askedAt,
      // What the daemon reports ends with the deadline, if that is sooner. Then it is not the lease that ends.
      remainingMs: leaseMs,
      renew: async (giveUp) => {
        await connection.call("command.renew", { leaseId, leaseMs }, { signal: giveUp });
        return leaseMs;
      },
    });
    const { deadline } = envelope;
    const leftMs = deadline === null ? Number.POSITIVE_INFINITY : deadline - leaseExpiresAt + remainingMs;
    // At its deadline the daemon tells that the command has ended, and its handler is told.
    const atDeadline = leftMs < MAX_TIMER_MS ? setTimeout(() => hold.check(), leftMs + 1) : undefined;
    const received = new Received(envelope, hold.signal, () => textsAt(text, LEASED_PARAMS)[0] as string);
    try {
      const answer = await carryOut(connection, envelope, received, handlers, options);
      // What is lost by our clock only may be answered all the same: the daemon knows.
      if (hold.lost && !hold.overdue) throw hold.signal.reason;
      await settle(hold, connection, () =>
        answer instanceof Postpone
          ? connection.call("command.release", { leaseId, delayMs: answer.delayMs })
          : connection.call("command.respond", { commandId, leaseId, response: answer }),
      );
    } catch (error) {
      if (!isOver(error)) tell(onError, error, received);
    } finally {
      clearTimeout(atDeadline);
      hold.end();
    }
  }

  return new Crew({ connection, concurrency, take, perform, onError, signal });
}

/** Has the commands of a deployment sent to this client until closed. See `Commands.serve`. */
export function serve(
  connection: ClientConnection,
  deployment: string,
  handlers: Handlers,
  options: ServeOptions = {},
): WorkHandle {
  const receiver = RECEIVERS.get(connection) ?? new PushReceiver(connection);
  RECEIVERS.set(connection, receiver);
  return receiver.serve(deployment, handlers, options);
}

/** A connection has one `command.execute`, whatever number of deployments it serves. */
const RECEIVERS = new WeakMap<ClientConnection, PushReceiver>();

class PushReceiver {
  readonly #connection: ClientConnection;
  readonly #served = new Map<string, Serving>();

  constructor(connection: ClientConnection) {
    this.#connection = connection;
    connection.handle("command.execute", (params, line) =>
      this.#execute(params as unknown as Envelope, () => textsAt(line, PUSHED_PARAMS)[0] as string),
    );
    connection.on("command.cancelled", (params) => {
      const cancelled = params as NotificationParams<"command.cancelled">;
      for (const serving of this.#served.values()) serving.cancelled(cancelled);
    });
    connection.watch({
      up: () => {
        for (const serving of this.#served.values()) void serving.subscribe();
      },
      down: () => {
        for (const serving of this.#served.values()) serving.lost();
      },
    });
  }

  serve(deployment: string, handlers: Handlers, options: ServeOptions): WorkHandle {
    if (this.#served.has(deployment)) {
      throw new PawlError("invalid_params", `This client serves ${JSON.stringify(deployment)} already.`);
    }
    const serving = new Serving(this.#connection, deployment, handlers, options);
    this.#served.set(deployment, serving);
    serving.start(() => this.#served.delete(deployment));
    return serving;
  }

  #execute(envelope: Envelope, text: () => string): Promise<unknown> {
    const serving = this.#served.get(envelope.deployment);
    if (serving === undefined) {
      throw new PawlError("not_found", `This client does not serve ${JSON.stringify(envelope.deployment)}.`);
    }
    return serving.execute(envelope, text);
  }
}

/** One deployment that is served. Ends as `Crew` does: takes nothing more, then waits for the handlers that run. */
class Serving implements WorkHandle {
  readonly #connection: ClientConnection;
  readonly #deployment: string;
  readonly #handlers: Handlers;
  readonly #options: ServeOptions;
  readonly #closing = new AbortController();
  /** The commands that this client has: carried out, or about to be. */
  readonly #running = new Set<{ commandId: string; stop: AbortController }>();
  /** How many handlers have begun and not ended. */
  #begun = 0;
  /** Those whose turn to begin has not come: the daemon counts no command that has ended, its handler may go on. */
  readonly #waiting = new Set<() => void>();
  #atEnd: () => void = () => {};
  #idle: () => void = () => {};
  readonly done: Promise<void>;
  #finish: () => void = () => {};
  #refuse: (refusal: PawlError) => void = () => {};

  constructor(connection: ClientConnection, deployment: string, handlers: Handlers, options: ServeOptions) {
    checkConcurrency(options.concurrency ?? 1, MAX_SERVED_COMMANDS);
    this.#connection = connection;
    this.#deployment = deployment;
    this.#handlers = handlers;
    this.#options = options;
    this.done = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#refuse = reject;
    });
    // Who does not look at it is told by onError.
    this.done.catch(() => {});
  }

  /** @param onEnd is told when nothing is under way any more. */
  start(onEnd: () => void): void {
    const close = (): void => void this.close();
    const { signal } = this.#options;
    const ends = [this.#connection.closed, ...(signal === undefined ? [] : [signal])];
    setMaxListeners(0, ...ends);
    for (const end of ends) end.addEventListener("abort", close, { once: true });
    const letGo = this.#connection.keep();
    this.#atEnd = () => {
      letGo();
      for (const end of ends) end.removeEventListener("abort", close);
      onEnd();
    };
    if (ends.some((end) => end.aborted)) close();
    else void this.subscribe();
  }

  /** Asks for the commands, on this connection. */
  async subscribe(): Promise<void> {
    const { concurrency: max = 1, owner = defaultOwner(), onError = warn } = this.#options;
    const { signal } = this.#closing;
    for (let pause = FIRST_PAUSE_MS; !signal.aborted; pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
      try {
        await this.#connection.call(
          "command.serve",
          { deployment: this.#deployment, owner, max },
          { signal },
        );
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (isForGood(error)) return this.#end(error);
        // On the next connection it is asked anew.
        if (error instanceof ConnectionLost && error.mayHaveTakenEffect) return;
        tell(onError, error);
        if (error instanceof ConnectionLost) return;
      }
      await delay(pause, undefined, { signal }).catch(() => {});
    }
  }

  async execute(envelope: Envelope, text: () => string): Promise<unknown> {
    const running = { commandId: envelope.commandId, stop: new AbortController() };
    this.#running.add(running);
    let answer: CommandResponse | Postpone;
    try {
      await this.#begin(running.stop.signal);
      try {
        const received = new Received(envelope, running.stop.signal, text);
        answer = await carryOut(this.#connection, envelope, received, this.#handlers, this.#options);
      } finally {
        this.#next();
      }
    } finally {
      this.#running.delete(running);
      if (this.#running.size === 0) this.#idle();
    }
    if (answer instanceof Postpone) {
      // By push nothing is given back but by the end of the connection, which comes after this close.
      if (this.#closing.signal.aborted) return await new Promise<never>(() => {});
      throw errorOf({ ...HANDLER_ERROR, message: answer.message });
    }
    if (answer.status === "error") throw errorOf(answer);
    return answer.response;
  }

  /** Resolves once fewer handlers run than may. Rejects if the command has ended by then, or was lost. */
  async #begin(signal: AbortSignal): Promise<void> {
    const { concurrency = 1 } = this.#options;
    if (this.#begun < concurrency) {
      this.#begun += 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#waiting.add(resolve);
      signal.addEventListener("abort", () => {
        if (this.#waiting.delete(resolve)) reject(signal.reason);
      });
    });
  }

  /** A handler has ended: the first that waits has its place. */
  #next(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#begun -= 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }

  /** Nobody waits for the answer to a command any more. The handler is told as by a renewal that is refused. */
  cancelled({ commandId, reason }: NotificationParams<"command.cancelled">): void {
    const error =
      reason === "EXPIRED"
        ? new PawlError("lease_lost", `The deadline of the command ${commandId} has passed.`, {
            commandId,
            state: "EXPIRED",
            reason: "expired",
          })
        : new PawlError("lease_lost", `The command ${commandId} has been cancelled.`, {
            commandId,
            state: "FAILED",
            reason: "cancelled",
            message: reason,
          });
    for (const running of this.#running) if (running.commandId === commandId) running.stop.abort(error);
  }

  /** The connection ended, and with it the daemon's trust that these commands are carried out. */
  lost(): void {
    const error = new ConnectionLost(
      "The connection ended, so the command is delivered anew.",
      "command.execute",
    );
    for (const { stop } of this.#running) stop.abort(error);
  }

  close(): Promise<void> {
    if (!this.#closing.signal.aborted) void this.#end();
    return this.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #end(refusal?: PawlError): Promise<void> {
    this.#closing.abort();
    const { owner = defaultOwner(), onError = warn } = this.#options;
    if (refusal !== undefined) tell(onError, refusal);
    if (this.#connection.closed.aborted) {
      this.lost();
    } else if (this.#connection.up) {
      // What the daemon sent before it answers this is carried out yet. If it does not, it has nothing more to send.
      const stop = { deployment: this.#deployment, owner, max: 0 };
      await this.#connection.call("command.serve", stop).catch(() => {});
    }
    if (this.#running.size > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#atEnd();
    if (refusal === undefined) this.#finish();
    else this.#refuse(refusal);
  }
}

/** Finds the handler, reads the params, and makes of what the handler does the answer, if it is to be one. */
async function carryOut(
  connection: ClientConnection,
  envelope: Envelope,
  received: Received,
  handlers: Handlers,
  { onFailure }: ServeOptions,
): Promise<CommandResponse | Postpone> {
  const { commandId, deployment, command } = envelope;
  const handler = Object.hasOwn(handlers, command) ? handlers[command] : undefined;
  if (handler === undefined) {
    return { status: "error", code: "UNKNOWN_COMMAND", message: `${deployment} does not know ${command}.` };
  }
  if (isUploaded(envelope.params)) {
    const text = await uploadedText(connection, commandId, received.signal);
    received.paramsText = () => text;
  }
  const params = isUploaded(envelope.params) ? JSON.parse(received.paramsText()) : envelope.params;
  let answer: CommandResponse;
  let text: string;
  try {
    answer = { status: "success", response: (await handler(params, received)) ?? null };
    text = JSON.stringify(answer);
  } catch (error) {
    if (error instanceof Postpone) return error;
    if (onFailure !== undefined) tell(onFailure, error, received);
    answer = answerWith(error);
    text = JSON.stringify(answer);
  }
  const bytes = Buffer.byteLength(text) + ENVELOPE_BYTES;
  return bytes <= MIN_MAX_MESSAGE_BYTES ? answer : await fitting(connection, commandId, answer, bytes);
}

/** Params that were uploaded stay with the daemon until somebody reads them, piece by piece. */
async function uploadedText(
  connection: ClientConnection,
  commandId: string,
  signal: AbortSignal,
): Promise<string> {
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

const HANDLER_ERROR = { status: "error", code: "HANDLER_ERROR" } as const;

function answerWith(error: unknown): Extract<CommandResponse, { status: "error" }> {
  const message = (error instanceof Error ? error.message : String(error)).slice(0, MAX_MESSAGE_LENGTH);
  if (!(error instanceof CommandError)) return { ...HANDLER_ERROR, message };
  const code = error.code.slice(0, MAX_ANSWER_CODE_LENGTH);
  try {
    const details = JSON.parse(JSON.stringify(error.details ?? null));
    return { status: "error", code, message, ...(details === null ? {} : { details }) };
  } catch {
    // The details are no JSON; code and message say the most of it.
    return { status: "error", code, message };
  }
}

/** The answer if the daemon takes a line with it; otherwise one that says why there is none. */
async function fitting(
  connection: ClientConnection,
  commandId: string,
  answer: CommandResponse,
  bytes: number,
): Promise<CommandResponse> {
  const most = await connection.maxMessageBytes();
  if (bytes <= most) return answer;
  const message = `The answer to ${commandId} has ${bytes} bytes, and the daemon takes lines of ${most} (--max-message-bytes).`;
  return { status: "error", code: "ANSWER_TOO_LARGE", message };
}

class Received implements ReceivedCommand {
  readonly commandId: string;
  readonly deployment: string;
  readonly command: string;
  readonly attempt: number;
  readonly deadline: number | null;
  readonly signal: AbortSignal;
  paramsText: () => string;

  constructor(envelope: Envelope, signal: AbortSignal, paramsText: () => string) {
    this.commandId = envelope.commandId;
    this.deployment = envelope.deployment;
    this.command = envelope.command;
    this.attempt = envelope.attempt;
    this.deadline = envelope.deadline;
    this.signal = signal;
    this.paramsText = paramsText;
  }
}

function errorOf({ code, message, details }: Extract<CommandResponse, { status: "error" }>): RequestFailure {
  return new RequestFailure({ code: ANSWERED_WITH_ERROR, message, data: { code, details } });
}

/** Whether a lease was refused because its command has its final state: cancelled, expired or answered. */
function isOver(error: unknown): boolean {
  if (!(error instanceof PawlError) || error.kind !== "lease_lost") return false;
  return ["SUCCEEDED", "FAILED", "EXPIRED"].includes(error.details.state as string);
}
