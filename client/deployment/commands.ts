// The room of deployments: commands are sent here, and received by pull and by push. The room imports
// `connection/`, `grants/` and `work/`.
import type { Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import type { WorkHandle } from "../work/worker-pool.js";
import { pull } from "./pull.js";
import { serve } from "./push.js";
import type { AnyContract, CommandContract, CommandHandlers, PullOptions, PushOptions } from "./receive.js";
import { answerOf, create, type SendOptions, send } from "./send.js";

/** A deployment whose commands are known to the compiler. */
export interface Deployment<C> {
  /** As `Commands.send`. */
  send<N extends keyof C & string>(
    command: N,
    params: C[N] extends { params: infer P } ? P : never,
    options?: SendOptions,
  ): Promise<C[N] extends { response: infer R } ? R : never>;
}

/** Commands to deployments and answers to them, over the methods of `client.command`. */
export interface Commands {
  /**
   * Sends a command and resolves with its answer, however long it takes and whether or not a receiver is
   * running yet. Params of any size are sent; large ones in pieces. A lost connection never sends it twice.
   *
   * Rejects with `CommandFailed` when it was answered with an error, cancelled, given up, not answered in time, or
   * for a receiver that has ended.
   *
   * @example
   * const { size } = await client.commands.send<{ size: number }>("builder", "build", { ref: "main" }, {
   *   ttlMs: 600_000,
   * });
   */
  send<R = unknown>(deployment: string, command: string, params?: unknown, options?: SendOptions): Promise<R>;
  /** Sends a command without waiting for its answer, which `answer` has later. */
  create(
    deployment: string,
    command: string,
    params?: unknown,
    options?: SendOptions,
  ): Promise<Result<"command.create">>;
  /** Waits for the answer to a command that was sent before, perhaps by another process. Rejects as `send` does. */
  answer<R = unknown>(commandId: string, options?: { signal?: AbortSignal }): Promise<R>;
  /**
   * A deployment by its contract, so that commands, params and answers are checked by the compiler.
   *
   * @example
   * interface Builder { build: { params: { ref: string }; response: { size: number } } }
   * const { size } = await client.commands.to<Builder>("builder").send("build", { ref: "main" });
   */
  to<C extends CommandContract<C>>(deployment: string): Deployment<C>;
  /**
   * Carries out the commands of a deployment until closed: takes them, waiting for them, and renews each while
   * its handler runs. The handler returns the answer; an error that it throws is the answer too. Its signal
   * is aborted when the command is cancelled or has expired, which is known at the next renewal.
   *
   * @example
   * const builder = client.commands.pull<Builder>("builder", {
   *   build: async ({ ref }, { signal }) => ({ size: await build(ref, signal) }),
   * }, { concurrency: 2 });
   */
  pull<C extends CommandContract<C> = AnyContract>(
    deployment: string,
    handlers: CommandHandlers<NoInfer<C>>,
    options?: PullOptions,
  ): WorkHandle;
  /**
   * The same by push: the daemon sends the commands to this connection, and says at once when one is cancelled.
   * Commands without an answer when the connection ends are delivered anew.
   */
  serve<C extends CommandContract<C> = AnyContract>(
    deployment: string,
    handlers: CommandHandlers<NoInfer<C>>,
    options?: PushOptions,
  ): WorkHandle;
}

export function commandsOf(connection: Connection): Commands {
  // Contracts are for the compiler; there is nothing of them at run time.
  const commands = {
    send: (deployment: string, command: string, params?: unknown, options?: SendOptions) =>
      send(connection, deployment, command, params, options),
    create: (deployment: string, command: string, params?: unknown, options?: SendOptions) =>
      create(connection, deployment, command, params, options),
    answer: (commandId: string, options?: { signal?: AbortSignal }) =>
      answerOf(connection, commandId, options),
    to: (deployment: string) => ({
      send: (command: string, params: unknown, options?: SendOptions) =>
        send(connection, deployment, command, params, options),
    }),
    pull: (deployment: string, handlers: Parameters<typeof pull>[2], options?: PullOptions) =>
      pull(connection, deployment, handlers, options),
    serve: (deployment: string, handlers: Parameters<typeof serve>[2], options?: PushOptions) =>
      serve(connection, deployment, handlers, options),
  };
  return commands as Commands;
}
