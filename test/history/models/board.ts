// One item of the board on one node: what was written last is read, and increments add up (spec: pipeline.md).
import type { Call } from "../history.js";
import { type CallModel, type Granted, type Json, modelOf } from "./calls.js";

interface Item {
  stage: string;
  name: string | null;
  retryCount: number;
}

type State = Item | null;

const item: CallModel<State> = {
  initial: null,
  call: (state, call, answer) => {
    if (answer !== "unknown" && "error" in answer) return [];
    switch (call.method) {
      case "pipeline.write":
        return write(state, call, answer);
      case "pipeline.read":
        return answer === "unknown" || isShown(state, answer.result.item) ? [state] : [];
      case "pipeline.delete":
        if (answer !== "unknown" && answer.result.deleted !== (state !== null)) return [];
        return [state === null ? state : null];
    }
    throw new Error(`no model of ${call.method}`);
  },
};

export const boardModel = modelOf(item);

function write(state: State, { params }: Call, answer: Granted): State[] {
  const before = state ?? { stage: "", name: null, retryCount: 0 };
  const {
    stage = before.stage,
    name = before.name,
    retryCountDelta = 0,
  } = params as Partial<Item> & {
    retryCountDelta?: number;
  };
  const after = { stage, name, retryCount: before.retryCount + retryCountDelta };
  return answer === "unknown" || isShown(after, answer.result.item) ? [after] : [];
}

function isShown(state: State, shown: Json): boolean {
  if (state === null || shown === null) return state === shown;
  return state.stage === shown.stage && state.name === shown.name && state.retryCount === shown.retryCount;
}
