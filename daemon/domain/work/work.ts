// Work from the board: items that are claimed, worked on and finished.
import type { HandlersOf } from "../../turns/handler.js";
import { boardHandlers } from "../board/pipeline.js";
import { claim } from "./claim.js";
import { finish } from "./finish.js";

/** Which operation performs which method. */
export const pipelineHandlers: HandlersOf<"pipeline"> = { ...boardHandlers, claim, finish };
