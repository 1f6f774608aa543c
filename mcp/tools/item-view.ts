import type { Result } from "@pawl/protocol/types";
import { z } from "zod";

type Item = NonNullable<Result<"pipeline.read">["item"]>;
type Note = NonNullable<Result<"pipeline.read">["notes"]>[number];

/** An item of the board, as an agent is shown it. */
export const itemView = z.looseObject({
  id: z.string(),
  title: z.string().nullable(),
  stage: z.string(),
  agent: z.string().nullable(),
});

/** An item without what an agent has no use for, and without what it does not have. */
export function viewOf(item: Item, notes: readonly Note[] = []): z.input<typeof itemView> {
  const { storyId, name, stage, agent, blocked, retryCount, dependsOn, labels, fields, claim, ready } = item;
  return {
    id: storyId,
    title: name,
    stage,
    agent,
    ...(ready ? { ready } : {}),
    // Whatever stage it is in.
    ...(blocked ? { blocked, offered: false } : {}),
    ...(retryCount === 0 ? {} : { failedTries: retryCount }),
    ...(dependsOn.length === 0 ? {} : { dependsOn }),
    ...(labels.length === 0 ? {} : { labels }),
    ...fields,
    // Mostly the same: a claim writes who works on it.
    ...(claim === undefined || claim.agent === agent ? {} : { claimedBy: claim.agent }),
    ...(notes.length === 0 ? {} : { notes: notes.map(({ agent: by, text }) => ({ by, text })) }),
  };
}
