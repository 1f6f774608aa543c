import { lstatSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname } from "node:path";
import type { Dispenser, MethodName, Params, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import {
  checkInstance,
  checkSocketPath,
  DEFAULT_INSTANCE,
  type Surroundings,
  sharedTemporaryDirectory,
  socketPath,
} from "@pawl/protocol/paths";
import {
  type CallOptions,
  ClientConnection,
  ConnectionLost,
  DEFAULT_RECONNECT_MS,
  dispenserOf,
  type Groups,
  groupsOf,
} from "./client.js";
import { type SpawnOptions, startDaemon } from "./spawn.js";

export interface ConnectOptions {
  /** Path of the daemon's socket; otherwise by the rule of `pawl socket-path`. */
  socket?: string;
  /** Which daemon of this user, when `socket` is not given. */
  instance?: string;
  /** Starts a daemon when none listens. Any number of processes may do so at once: one daemon runs. */
  spawn?: boolean | SpawnOptions;
  /** How long requests wait for a daemon that went away, in milliseconds. */
  reconnectMs?: number;
}

/** A client: one typed group per noun, and what is built on them. */
export interface PawlClient extends Groups, AsyncDisposable {
  readonly socketPath: string;
  /** Calls any method by its name. */
  call<N extends MethodName>(method: N, params: Params<N>, options?: CallOptions): Promise<Result<N>>;
  call(method: string, params?: Record<string, unknown>, options?: CallOptions): Promise<unknown>;
  /** The sequences behind the interface that is also there without a daemon. */
  dispenser(): Dispenser;
  /** Closes the connection. What was not answered is rejected with `ConnectionLost`. */
  close(): void;
}

/**
 * Connects to a daemon. Rejects with `ConnectionLost` when none listens (and none is to be started), and with
 * a `PawlError` when the path cannot be right.
 */
export async function connect(options: ConnectOptions = {}): Promise<PawlClient> {
  const instance = options.instance ?? DEFAULT_INSTANCE;
  const path = options.socket ?? defaultSocketPath(instance);
  checkSocketPath(path, Buffer.byteLength(path));
  const connection = new ClientConnection(path, options.reconnectMs ?? DEFAULT_RECONNECT_MS);
  try {
    await connection.open();
  } catch (error) {
    if (!options.spawn || !nobodyListens(error)) throw cannotConnect(path, error as NodeJS.ErrnoException);
    await startDaemon(path, instance, options.spawn === true ? {} : options.spawn, () => connection.open());
  }
  return assemble(connection);
}

/** Where the daemon of an instance listens, by the rule that daemon and client share. */
export function defaultSocketPath(instance: string = DEFAULT_INSTANCE): string {
  checkInstance(instance);
  const around: Surroundings = {
    env: process.env,
    uid: process.getuid?.() ?? userInfo().uid,
    temporaryDirectory: tmpdir(),
    homeDirectory: homedir(),
  };
  const path = socketPath(around, instance);
  // Anybody can make a directory of this name in the temporary directory and listen in it.
  const shared = sharedTemporaryDirectory(around);
  const found = dirname(path) === shared ? lstatSync(shared, { throwIfNoEntry: false }) : undefined;
  if (found !== undefined && (found.uid !== around.uid || (found.mode & 0o077) !== 0)) {
    throw new PawlError(
      "forbidden",
      `${shared} belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR.`,
    );
  }
  return path;
}

function assemble(connection: ClientConnection): PawlClient {
  const own = {
    socketPath: connection.socketPath,
    call: (method: string, params?: Record<string, unknown>, options?: CallOptions) =>
      connection.call(method, params ?? {}, options),
    dispenser: () => dispenserOf(connection),
    close: () => connection.close(),
    [Symbol.asyncDispose]: async () => connection.close(),
  };
  const groups = groupsOf(connection);
  return new Proxy(own as unknown as PawlClient, {
    get(target, name) {
      if (Reflect.has(target, name) || typeof name !== "string" || name === "then")
        return Reflect.get(target, name);
      return Reflect.get(groups, name);
    },
  });
}

function nobodyListens(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ECONNREFUSED";
}

function cannotConnect(path: string, error: NodeJS.ErrnoException): ConnectionLost {
  const message = nobodyListens(error)
    ? `No daemon listens on ${path}. Start one with pawld.`
    : `Cannot connect to ${path}: ${error.message}`;
  return new ConnectionLost(message, undefined, { cause: error });
}
