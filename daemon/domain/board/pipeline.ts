import type { HandlersOf } from "../../turns/handler.js";
import { history, list, read, remove, write } from "./items.js";
import { rebuild } from "./rebuild.js";
import { apply, changes, heads, identity, watch } from "./sync.js";

/** Which operation performs which method. */
export const pipelineHandlers: HandlersOf<"pipeline"> = {
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
};
