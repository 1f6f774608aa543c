export type { Dispenser } from "@pawl/protocol";
export { type LocalDispenser, memoryDispenser, openDispenser } from "./dispenser.js";
export type { EngineOptions } from "./engine.js";
export { type ConformanceOptions, leaseProviderConformance, type Stage } from "./providers/conformance.js";
export type {
  Acquired,
  AcquireRequest,
  Answer,
  CreateLeaseProvider,
  HeartbeatRequest,
  Holder,
  Inspected,
  LeaseProvider,
  Peer,
  Place,
  ProviderOptions,
  ReleaseRequest,
} from "./providers/provider.js";
