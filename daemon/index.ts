export type { Dispenser } from "@pawl/protocol";
export { type LocalDispenser, memoryDispenser, openDispenser } from "./dispenser.js";
export type { EngineOptions } from "./engine.js";
