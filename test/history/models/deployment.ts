// A deployment (spec: command.md): what was set last is what its commands are made with, and what a list shows.
import type { Call } from "../history.js";
import { type Answer, type CallModel, type Json, modelOf } from "./calls.js";

interface State {
  model: string;
  projectId: string | null;
}

/** Of one that nobody has set. */
const UNSET: State = { model: "pull", projectId: null };

const deployment: CallModel<State> = {
  initial: UNSET,
  call: (state, call, answer) => {
    switch (call.method) {
      case "deployment.set": {
        const after = { ...UNSET, ...(call.params as Partial<State>) };
        const { model, projectId } = after;
        if (answer === "unknown") return [{ model, projectId }];
        return "result" in answer && isShown({ model, projectId }, answer.result)
          ? [{ model, projectId }]
          : [];
      }
      case "deployment.list":
        return listed(state, call, answer);
      case "command.create":
        return answer === "unknown" || ("result" in answer && isUsed(state, answer.result)) ? [state] : [];
    }
    throw new Error(`no model of ${call.method}`);
  },
};

export const deploymentModel = modelOf(deployment);

function isShown({ model, projectId }: State, shown: Json): boolean {
  return shown.model === model && shown.projectId === projectId;
}

/** One that was neither set nor used may be missing. */
function listed(state: State, { object }: Call, answer: Answer): State[] {
  if (answer === "unknown") return [state];
  if ("error" in answer) return [];
  const shown = answer.result.deployments.find((each: Json) => `deployment:${each.deployment}` === object);
  return isShown(state, shown ?? UNSET) ? [state] : [];
}

/** A command that was there before tells of another time. */
function isUsed({ model, projectId }: State, { created, deploymentModel, projectId: shown }: Json): boolean {
  return !created || (deploymentModel === model && shown === projectId);
}
