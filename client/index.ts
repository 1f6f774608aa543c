export type { Dispenser, MethodName, Mode, Params, Result } from "@pawl/protocol";
export { type ErrorKind, PawlError } from "@pawl/protocol/errors";
export { type CallOptions, ConnectionLost } from "./client.js";
export { type ConnectOptions, connect, defaultSocketPath, type PawlClient } from "./connect.js";
export type { SpawnOptions } from "./spawn.js";
