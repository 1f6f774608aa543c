// The work that a call is about.
import { kindOf, Refusal } from "../refusal.js";
import { boardStages } from "./board-stages.js";
import type { HeldWork } from "./ending.js";
import { worksOf } from "./path-works.js";
import type { SessionCall } from "./tool.js";

/** Ids of batches begin so; no story's id holds a colon. */
export const BATCH = "qwb:";

/** The work that the session holds; refuses what it does not hold. */
export async function heldWork(call: SessionCall, wanted: string): Promise<HeldWork> {
  const { session } = call;
  const hold = session.find("item", wanted) ?? session.find("batch", wanted);
  if (hold !== undefined) return hold;
  const held = worksOf(session);
  const done = await doneStage(call, wanted);
  const yours = held.length === 0 ? "" : `You hold ${held.join(", ")}. `;
  if (done !== undefined) {
    const how = session.hasFinished(wanted)
      ? "You have done it: there is nothing to end; work_update with a `note` alone adds to it."
      : "It is done: there is nothing to take or to end.";
    throw new Refusal("lease_lost", `You do not hold ${wanted}, which is in ${done}.`, { held }, yours + how);
  }
  const how =
    held.length === 0
      ? "Take it with work_claim before you work on it; if that is refused, leave it alone."
      : "Use one of these ids, or take that one with work_claim.";
  throw new Refusal("lease_lost", `You do not hold ${wanted}.`, { held }, yours + how);
}

/** The stage of an item that is done; undefined of all else. */
async function doneStage({ link }: SessionCall, storyId: string): Promise<string | undefined> {
  if (storyId.startsWith(BATCH)) return undefined;
  try {
    const { item } = await link.call("pipeline.read", { storyId });
    return item !== null && (await boardStages(link)).isDone(item.stage) ? item.stage : undefined;
  } catch (error) {
    // What is no id of an item is none that is done.
    if (["bad_story_id", "invalid_params"].includes(kindOf(error))) return undefined;
    throw error;
  }
}

/** A note about what the session has done, for those who go on from it. */
export async function noteLater(
  { link, session }: SessionCall,
  storyId: string,
  text: string,
): Promise<void> {
  await link.call("pipeline.write", { storyId, note: { text, agent: session.name } });
}
