export type { Dispenser } from "@pawl/protocol";
export { type LocalDispenser, memoryDispenser, openDispenser } from "./dispenser.js";
export { type ConformanceOptions, leaseProviderConformance, type Stage } from "./remote/conformance.js";
export type {
  Acquired,
  AcquireRequest,
  CreateLeaseProvider,
  HeartbeatRequest,
  Holder,
  Inspected,
  LeaseProvider,
  Peer,
  ProviderOptions,
  ReleaseRequest,
} from "./remote/provider.js";
export type { DatabaseOptions } from "./store/open-database.js";
