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
export * from "./framing.js";
export * from "./limits.js";
export type { Method } from "./method.js";
export * from "./methods.js";
export { openrpc } from "./openrpc.js";
export * from "./paths.js";
export type { BatchState, Boundary, DeliveryPolicy, MergeKey, Retry, SlotPolicy } from "./queue.js";
export type { Mode } from "./sequence.js";
