/// <reference lib="esnext.disposable" preserve="true" />
export type { Dispenser } from "@pawl/protocol/dispenser";
export { type DetailsOf, type ErrorKind, PawlError } from "@pawl/protocol/errors";
export type {
  MethodName,
  Mode,
  NotificationName,
  NotificationParams,
  Params,
  Result,
} from "@pawl/protocol/types";
export {
  type ConnectOptions,
  connect,
  type PawlClient,
  type TransactCall,
  type TransactResults,
} from "./connect.js";
export type { CallOptions, WithText } from "./connection/call.js";
export { ConnectionLost } from "./connection/connection-lost.js";
export type { EventsOptions, Gap } from "./connection/events.js";
export { defaultSocketPath } from "./connection/socket-path.js";
export type { SpawnOptions } from "./connection/start-daemon.js";
export type { Commands, Deployment } from "./deployment/commands.js";
export {
  CommandError,
  type CommandHandlers,
  type PullOptions,
  type PushOptions,
  type ReceivedCommand,
  type ServeOptions,
} from "./deployment/receive.js";
export { CommandFailed, type SendOptions } from "./deployment/send.js";
export type { HoldOptions } from "./grants/hold.js";
export type { HeldLease, HeldName, LeaseRequest, WithLeaseOptions } from "./grants/with-lease.js";
export type { HeldPaths, PathRequest } from "./grants/with-paths.js";
export { type Refused, type Synced, type SyncOptions, syncBoards } from "./sync/sync-boards.js";
export { Postpone } from "./work/postpone.js";
export type { Work, WorkOptions } from "./work/queue-worker.js";
export type { Schedule, Schedules } from "./work/schedules.js";
export type { ClaimedItem, DoneItem, ItemRequest, WithItemOptions } from "./work/with-item.js";
export type { WorkHandle } from "./work/worker-pool.js";
