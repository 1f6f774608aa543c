import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { textsAt } from "@pawl/protocol/json-text";
import { MAX_SERVED_COMMANDS } from "@pawl/protocol/limits";
import type { NotificationParams } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { RequestFailure } from "../connection/incoming-requests.js";
import { defaultOwner } from "../grants/owner.js";
import { callListener, warn } from "../work/listeners.js";
import { Postpone } from "../work/postpone.js";
import { isForGood } from "../work/refusals.js";
import { checkConcurrency, FIRST_PAUSE_MS, MAX_PAUSE_MS, type WorkHandle } from "../work/worker-pool.js";
import { sendAnswer } from "./answer-text.js";
import {
  type CommandResponse,
  carryOut,
  type Envelope,
  type ErrorResponse,
  HANDLER_ERROR,
  LongAnswer,
  Received,
} from "./carry-out.js";
import { HandlerSlots } from "./handler-slots.js";
import type { Handlers, PushOptions } from "./receive.js";

/** The JSON-RPC code of an answer that is an error; programs match on `data.code`. */
const ANSWERED_WITH_ERROR = 1;
/** The reason of a delivery that takes longer than it may, as the daemon sends it and a handler is told it. */
const EXECUTION_TIME = "EXECUTION_TIME";
const OVERLONG = "overlong";

type PushedEnvelope = Envelope & { readonly leaseId: string };

/** Where the params are in a `command.execute`. */
const PARAMS = ["params", "params"];

/** Has the commands of a deployment sent to this client until closed. See `Commands.serve`. */
export function serve(
  connection: Connection,
  deployment: string,
  handlers: Handlers,
  options: PushOptions = {},
): WorkHandle {
  const receiver = RECEIVERS.get(connection) ?? new PushReceiver(connection);
  RECEIVERS.set(connection, receiver);
  return receiver.serve(deployment, handlers, options);
}

/** A connection has one `command.execute`, whatever number of deployments it serves. */
const RECEIVERS = new WeakMap<Connection, PushReceiver>();

class PushReceiver {
  readonly #connection: Connection;
  readonly #served = new Map<string, ServedDeployment>();

  constructor(connection: Connection) {
    this.#connection = connection;
    connection.handle("command.execute", (params, line) =>
      this.#execute(params as unknown as PushedEnvelope, () => textsAt(line, PARAMS)[0] as string),
    );
    connection.on("command.cancelled", (params) => {
      const notification = params as NotificationParams<"command.cancelled">;
      for (const served of this.#served.values()) served.cancelled(notification);
    });
    connection.watch({
      up: () => {
        for (const served of this.#served.values()) void served.subscribe();
      },
      down: () => {
        for (const served of this.#served.values()) served.lost();
      },
    });
  }

  serve(deployment: string, handlers: Handlers, options: PushOptions): WorkHandle {
    if (this.#served.has(deployment)) {
      throw new PawlError("invalid_params", `This client serves ${JSON.stringify(deployment)} already.`);
    }
    const served = new ServedDeployment(this.#connection, deployment, handlers, options);
    this.#served.set(deployment, served);
    served.start(() => this.#served.delete(deployment));
    return served;
  }

  #execute(envelope: PushedEnvelope, text: () => string): Promise<unknown> {
    const served = this.#served.get(envelope.deployment);
    if (served === undefined) {
      throw new PawlError("not_found", `This client does not serve ${JSON.stringify(envelope.deployment)}.`);
    }
    return served.execute(envelope, text);
  }
}

/**
 * One deployment that is served. Ends as a `WorkerPool` does: takes nothing more, then waits for the handlers that run.
 */
class ServedDeployment implements WorkHandle {
  readonly #connection: Connection;
  readonly #deployment: string;
  readonly #handlers: Handlers;
  readonly #options: PushOptions;
  readonly #closing = new AbortController();
  /** The commands that this client has: carried out, or about to be. */
  readonly #running = new Set<{ commandId: string; stop: AbortController }>();
  readonly #slots: HandlerSlots;
  #atEnd: () => void = () => {};
  #idle: () => void = () => {};
  readonly done: Promise<void>;
  #finish: () => void = () => {};
  #refuse: (refusal: PawlError) => void = () => {};

  constructor(connection: Connection, deployment: string, handlers: Handlers, options: PushOptions) {
    const { concurrency = 1 } = options;
    checkConcurrency(concurrency, MAX_SERVED_COMMANDS);
    this.#slots = new HandlerSlots(concurrency);
    this.#connection = connection;
    this.#deployment = deployment;
    this.#handlers = handlers;
    this.#options = options;
    this.done = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#refuse = reject;
    });
    // An application that does not look at it is told by onError.
    this.done.catch(() => {});
  }

  /** @param onEnd is told when nothing is under way any more. */
  start(onEnd: () => void): void {
    const close = (): void => void this.close();
    const { signal } = this.#options;
    const ends = [this.#connection.closed, ...(signal === undefined ? [] : [signal])];
    setMaxListeners(0, ...ends);
    for (const end of ends) end.addEventListener("abort", close, { once: true });
    const stopKeeping = this.#connection.keep();
    this.#atEnd = () => {
      stopKeeping();
      for (const end of ends) end.removeEventListener("abort", close);
      onEnd();
    };
    if (ends.some((end) => end.aborted)) close();
    else void this.subscribe();
  }

  /** Asks for the commands, on this connection. */
  async subscribe(): Promise<void> {
    const {
      concurrency: max = 1,
      owner = defaultOwner(),
      executionMs,
      targets,
      incarnation,
      onError = warn,
    } = this.#options;
    const { signal } = this.#closing;
    for (let pause = FIRST_PAUSE_MS; !signal.aborted; pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
      try {
        await this.#connection.call(
          "command.serve",
          {
            deployment: this.#deployment,
            owner,
            max,
            ...(executionMs === undefined ? {} : { executionMs }),
            ...(targets === undefined ? {} : { targets: [...targets] }),
            ...(incarnation === undefined ? {} : { incarnation }),
          },
          { signal },
        );
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (isForGood(error)) return this.#end(error);
        // On the next connection it is asked anew.
        if (error instanceof ConnectionLost && error.mayHaveTakenEffect) return;
        callListener(onError, error);
        if (error instanceof ConnectionLost) return;
      }
      await delay(pause, undefined, { signal }).catch(() => {});
    }
  }

  async execute(envelope: PushedEnvelope, text: () => string): Promise<unknown> {
    const running = { commandId: envelope.commandId, stop: new AbortController() };
    this.#running.add(running);
    let answer: CommandResponse | LongAnswer | Postpone;
    try {
      await this.#slots.begin(running.stop.signal);
      try {
        const received = new Received(
          this.#connection,
          envelope.leaseId,
          envelope,
          running.stop.signal,
          text,
        );
        answer = await carryOut(this.#connection, envelope, received, this.#handlers, this.#options);
      } finally {
        this.#slots.end();
      }
    } finally {
      this.#running.delete(running);
      if (this.#running.size === 0) this.#idle();
    }
    // The daemon delivers it anew, or has already: this answer would be one too many.
    if (running.stop.signal.reason instanceof ConnectionLost) return await new Promise<never>(() => {});
    if (
      isOverlong(running.stop.signal) &&
      (answer instanceof Postpone || ("status" in answer && answer.status === "error"))
    ) {
      // What a handler says that was stopped is no answer. The daemon takes none to a delivery that was given back.
      await this.#connection.call("command.release", { leaseId: envelope.leaseId }).catch(() => {});
    }
    if (answer instanceof Postpone) {
      // A pushed command is given back only by the end of the connection, which comes after this close.
      if (this.#closing.signal.aborted) return await new Promise<never>(() => {});
      throw failureOf({ ...HANDLER_ERROR, message: answer.message });
    }
    // The response to what was answered in pieces is ignored.
    if (answer instanceof LongAnswer) return void (await sendAnswer(this.#connection, envelope, answer.text));
    if (answer.status === "error") throw failureOf(answer);
    return answer.response;
  }

  /** Nobody waits for the answer to a command any more. The handler is told as by a renewal that is refused. */
  cancelled({ commandId, reason }: NotificationParams<"command.cancelled">): void {
    const error =
      reason === "EXPIRED"
        ? expired(commandId)
        : reason === EXECUTION_TIME
          ? overlong(commandId)
          : cancelled(commandId, reason);
    for (const running of this.#running) {
      if (running.commandId === commandId) running.stop.abort(error);
    }
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
    if (refusal !== undefined) callListener(onError, refusal);
    if (this.#connection.closed.aborted) {
      this.lost();
    } else if (this.#connection.up) {
      // A command that the daemon sends before it answers this is carried out yet.
      const stop = { deployment: this.#deployment, owner, max: 0 };
      await this.#connection.call("command.serve", stop).catch(() => {});
    }
    if (this.#running.size > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#atEnd();
    if (refusal === undefined) this.#finish();
    else this.#refuse(refusal);
  }
}

function expired(commandId: string): PawlError {
  return new PawlError("lease_lost", `The deadline of the command ${commandId} has passed.`, {
    commandId,
    state: "EXPIRED",
    reason: "expired",
  });
}

function overlong(commandId: string): PawlError {
  return new PawlError(
    "lease_lost",
    `The command ${commandId} takes longer than it may, and is delivered anew.`,
    {
      commandId,
      state: "PENDING",
      reason: OVERLONG,
    },
  );
}

function isOverlong({ reason }: AbortSignal): boolean {
  return reason instanceof PawlError && reason.details.reason === OVERLONG;
}

/** @param message the words of whoever cancelled the command. */
function cancelled(commandId: string, message: string | null): PawlError {
  return new PawlError("lease_lost", `The command ${commandId} has been cancelled.`, {
    commandId,
    state: "FAILED",
    reason: "cancelled",
    message,
  });
}

function failureOf({ code, message, details }: ErrorResponse): RequestFailure {
  return new RequestFailure({ code: ANSWERED_WITH_ERROR, message, data: { code, details } });
}
