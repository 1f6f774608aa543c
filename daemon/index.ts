export type { Dispenser } from "@pawl/protocol";
export { type LocalDispenser, memoryDispenser, openDispenser } from "./dispenser.js";
export type { Holder, Inspected, Peer } from "./domain/lease/holder.js";
export { type ConformanceOptions, leaseProviderConformance, type Stage } from "./remote/conformance.js";
export type {
  Acquired,
  AcquireRequest,
  CreateLeaseProvider,
  HeartbeatRequest,
  LeaseProvider,
  ProviderOptions,
  ReleaseRequest,
} from "./remote/provider.js";
export type { DatabaseOptions } from "./store/open-database.js";
