// Handlers: the application gives them, and they are told of the command. pull.ts and push.ts have how commands come,
// carry-out.ts has what is done with one.
import type { Trace } from "@pawl/protocol/types";
import type { ReleaseOn } from "../grants/held-grant.js";

/** A command, as its handler is told of it. */
export interface ReceivedCommand {
  readonly commandId: string;
  readonly deployment: string;
  /** The resource within the deployment; empty for none. */
  readonly target: string;
  readonly command: string;
  /** 1 at first; higher when an earlier delivery ended without an answer. */
  readonly attempt: number;
  /** When it becomes EXPIRED, in milliseconds since the Unix epoch. */
  readonly deadline: number | null;
  /** How long this delivery may take, in milliseconds; null for no limit. */
  readonly executionMs: number | null;
  /** What an earlier delivery left to go on from, if one did. */
  readonly checkpoint?: unknown;
  /** The trace that it belongs to, if its sender gave one. */
  readonly trace?: Trace;
  /**
   * Says how far it has come; what is not given stays as it was. A checkpoint, any JSON of up to 150,000 bytes, is
   * given to the next delivery. Rejects with `PawlError` `lease_lost` when this one has ended.
   */
  progress(done: { percent?: number; note?: string; checkpoint?: unknown }): Promise<void>;
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

/** One function per command, which returns the answer. An error that it throws is the answer too. */
export type CommandHandlers<C> = {
  readonly [N in keyof C]: (
    params: C[N] extends { params: infer P } ? P : never,
    command: ReceivedCommand,
  ) => C[N] extends { response: infer R } ? R | Promise<R> : never;
};

export type Handlers = Readonly<Record<string, (params: unknown, command: ReceivedCommand) => unknown>>;

export interface ServeOptions {
  /** The targets whose commands are taken; those of all by default. */
  targets?: readonly string[];
  /**
   * The receiver, by a name that no other ever has, such as a UUID: it has the commands that are for it alone, too. It
   * lives as long as its connection or a delivery to it; then the daemon takes no other for it, and this one ends.
   */
  incarnation?: string;
  /** How many commands are carried out at a time; 1 by default, 100 at most when they are pushed. */
  concurrency?: number;
  /** The receiver's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** Ends it as `close` does. */
  signal?: AbortSignal;
  /** Told of what a handler threw, before it is answered as an error. */
  onFailure?: (error: unknown, command: ReceivedCommand) => void;
  /** Told of trouble with the daemon: commands that are lost or cannot be had. By default it is a process warning. */
  onError?: (error: unknown, command?: ReceivedCommand) => void;
}

export interface PushOptions extends ServeOptions {
  /**
   * How long one delivery may take, in milliseconds, unless its command says; 15 minutes by default. Past it the signal
   * of the handler is aborted, and the command is delivered anew.
   */
  executionMs?: number;
}

export interface PullOptions extends ServeOptions {
  /** How long a command outlives the last sign of life, in milliseconds; 30,000 by default. */
  leaseMs?: number;
  /** `disconnect` (default) lets go of a command the moment this process ends; `expiry` when its lease has passed. */
  releaseOn?: ReleaseOn;
  /** With `disconnect`: how long a command is held after the connection was lost, in milliseconds; 0 by default. */
  graceMs?: number;
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
