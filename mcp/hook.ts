// The entry of hooks, apart from that of the server: it is loaded for each edit.
export { guard } from "./hook/guard.js";
export { type HookAnswer, type HookOptions, runHook } from "./hook/hook.js";
export { type Installed, installHooks } from "./hook/install.js";
