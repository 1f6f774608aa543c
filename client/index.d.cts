// The types of `require("@pawl/client")`, which gives the same module as an import does: `node16` of TypeScript takes no
// types of a module for CommonJS.
import type * as pawl from "./dist/index.js" with { "resolution-mode": "import" };

export type * from "./dist/index.js" with { "resolution-mode": "import" };

export declare const connect: typeof pawl.connect;
export declare const defaultSocketPath: typeof pawl.defaultSocketPath;
export declare const syncBoards: typeof pawl.syncBoards;
export declare const PawlError: typeof pawl.PawlError;
export type PawlError = pawl.PawlError;
export declare const ConnectionLost: typeof pawl.ConnectionLost;
export type ConnectionLost = pawl.ConnectionLost;
export declare const CommandError: typeof pawl.CommandError;
export type CommandError = pawl.CommandError;
export declare const CommandFailed: typeof pawl.CommandFailed;
export type CommandFailed = pawl.CommandFailed;
export declare const Postpone: typeof pawl.Postpone;
export type Postpone = pawl.Postpone;
