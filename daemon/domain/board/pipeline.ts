import type { HandlersOf } from "../../turns/handler.js";
import { compact } from "./compact.js";
import { configuration, configure } from "./configure.js";
import { history, list, read, remove, write } from "./items.js";
import { ready } from "./ready.js";
import { rebuild } from "./rebuild.js";
import { repair } from "./repair.js";
import { apply, changes, heads, identity, watch } from "./sync.js";

/** Which operation performs which method; those that need leases are above this room (`work/work.ts`). */
export const boardHandlers: Omit<HandlersOf<"pipeline">, "claim" | "finish"> = {
  write,
  read,
  list,
  delete: remove,
  history,
  identity,
  heads,
  changes,
  apply,
  watch,
  rebuild,
  compact,
  repair,
  configure,
  configuration,
  ready,
};
