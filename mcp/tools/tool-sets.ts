import { board, idNext, itemEdit } from "./board-tools.js";
import { forceRelease, lock, unlock, who } from "./lock-tools.js";
import { inbox, messageSend } from "./message-tools.js";
import { pathsRelease, pathsReserve } from "./path-tools.js";
import { sessionStart } from "./session-tools.js";
import type { Tool } from "./tool.js";
import { workClaim, workFinish, workNext, workUpdate } from "./work-tools.js";

const CORE: readonly Tool[] = [
  sessionStart,
  workNext,
  workClaim,
  workUpdate,
  workFinish,
  pathsReserve,
  pathsRelease,
  messageSend,
  inbox,
];

/** Those that every agent is shown, whose descriptions cost each of them tokens; or all. */
export const TOOL_SETS: Readonly<Record<"core" | "full", readonly Tool[]>> = {
  core: CORE,
  full: [...CORE, idNext, itemEdit, lock, unlock, board, who, forceRelease],
};
