import type { Result } from "@pawl/protocol/types";
import type { Link } from "../link.js";

/** By convention; where moves are configured otherwise an item stays where it was. */
export const BEGUN_STAGE = "2_current";
const DONE_STAGE = "5_done";
const READY_STAGE = "1_backlog";

/** The stages of the board that work goes through. */
export interface BoardStages {
  /** Where an item goes back to, and what is done goes to. */
  readonly ready: string;
  readonly done: string;
  /** At how many failed tries an item is blocked; 0 for never. */
  readonly maxRetries: number;
  isReady(stage: string): boolean;
  isDone(stage: string): boolean;
  /** Where an item goes that is begun in a stage. */
  begunFrom(stage: string): { toStage?: string };
}

export async function boardStages(link: Link): Promise<BoardStages> {
  const { stages, transitions, maxRetries } = await link.call("pipeline.configuration", {});
  const named = (is: (rule: Result<"pipeline.configuration">["stages"][number]) => boolean | undefined) =>
    stages.filter(is).map(({ stage }) => stage);
  const [ready, done] = [named((each) => each.ready), named((each) => each.done)];
  return {
    ready: ready[0] ?? READY_STAGE,
    done: done[0] ?? DONE_STAGE,
    maxRetries,
    isReady: (stage) => ready.includes(stage),
    isDone: (stage) => done.includes(stage),
    begunFrom: (stage) =>
      transitions === null || transitions[stage]?.includes(BEGUN_STAGE) === true
        ? { toStage: BEGUN_STAGE }
        : {},
  };
}
