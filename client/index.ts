export type {
  Dispenser,
  MethodName,
  Mode,
  NotificationName,
  NotificationParams,
  Params,
  Result,
} from "@pawl/protocol";
export { type ErrorKind, PawlError } from "@pawl/protocol/errors";
export { type CallOptions, ConnectionLost, type WithText } from "./client.js";
export {
  type ConnectOptions,
  connect,
  defaultSocketPath,
  type PawlClient,
  type TransactCall,
  type TransactResults,
} from "./connect.js";
export { Postpone, type WorkHandle } from "./crew.js";
export type { Commands, Deployment } from "./deployments.js";
export type { HeldLease, WithLeaseOptions } from "./hold.js";
export {
  CommandError,
  type CommandHandlers,
  type PullOptions,
  type ReceivedCommand,
  type ServeOptions,
} from "./receive.js";
export { CommandFailed, type SendOptions } from "./send.js";
export type { SpawnOptions } from "./spawn.js";
export { type Refused, type Synced, type SyncOptions, syncBoards } from "./sync.js";
export type { Work, WorkOptions } from "./work.js";
