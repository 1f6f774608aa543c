export * from "./envelope.js";
export * from "./errors.js";
export * from "./framing.js";
export * from "./limits.js";
export type { Method } from "./method.js";
export * from "./methods.js";
export { openrpc } from "./openrpc.js";
export * from "./paths.js";
export type { Mode } from "./sequence.js";
