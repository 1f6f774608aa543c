export {
  COMMAND_STATES,
  type Command,
  type CommandResponse,
  type CommandState,
  type Envelope,
} from "./command.js";
export type { Dispenser } from "./dispenser.js";
export * from "./envelope.js";
export * from "./errors.js";
export { EVENT_KINDS, type EventKind, type EventNoun } from "./events.js";
export * from "./framing.js";
export { LEASE_MODES } from "./lease.js";
export * from "./limits.js";
export type { Method } from "./method.js";
export * from "./methods.js";
export * from "./paths.js";
export {
  BATCH_STATES,
  type BatchState,
  type Boundary,
  type DeliveryPolicy,
  type MergeKey,
  type SlotPolicy,
} from "./queue.js";
export { MISSED, type Missed, OVERLAPS, type Overlap } from "./schedule.js";
export type { Retry } from "./schemas.js";
export type { Mode, NodeId } from "./sequence.js";
