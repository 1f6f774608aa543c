// How work is taken, and what an agent is given of it.
import type { Params, Result } from "@pawl/protocol/types";
import { z } from "zod";
import { CLAIM_TERMS, TERMS } from "../sessions/grants.js";
import type { Hold } from "../sessions/state-file.js";
import type { BoardStages } from "./board-stages.js";
import { keep } from "./holding.js";
import { viewOf } from "./item-view.js";
import type { SessionCall } from "./tool.js";
import { type Around, type Ask, askedUntilMessage, ending, type Waited } from "./waiting.js";

/** How many of its notes an item is shown with. */
const NOTES = 10;
/** Of so many of its dependencies the last note is shown. */
const MAX_DEPENDENCIES = 16;
/** Ready items beside those that are passed over: others may take the first ones at the same moment. */
const SPARE_ITEMS = 8;
const ANY_ITEM = ["item:*"];

export const work = z.looseObject({ kind: z.enum(["item", "batch"]), id: z.string() });
export type Work = z.input<typeof work>;

/** What came of asking for an item. */
export interface Taken {
  readonly work: Work | null;
  readonly reason?: string;
  /** Items that are ready and that the session gave away itself. */
  readonly passedOver?: readonly string[];
}

type Wanted = Pick<Params<"pipeline.claim">, "storyId" | "stages" | "labels" | "toStage">;

/** Takes a certain item. */
export async function claimItem(
  call: SessionCall,
  wanted: Wanted,
  seconds: number | undefined,
  around: Around = {},
): Promise<Waited<Taken>> {
  return await askedUntilMessage(call, seconds, "waiting for work", claiming(call, wanted), around);
}

function claiming(call: SessionCall, wanted: Wanted): Ask<Taken> {
  const { link, session } = call;
  return async (waitMs, endWait) => {
    const request = { ...wanted, agent: session.name, ...TERMS, waitMs };
    const { item, lease, reason } = await link.call("pipeline.claim", request, ending(endWait));
    if (item === null || lease === undefined) return { work: null, reason: reason ?? "nothing is ready" };
    const { leaseId, fencingToken } = lease;
    await keep(call, { kind: "item", id: item.storyId, leaseId, fencingToken });
    session.unpass(item.storyId);
    return { work: await heldItem(call, item.storyId) };
  };
}

/** An item that is held, with its notes and the last one of each that it depends on. */
async function heldItem({ link }: SessionCall, storyId: string): Promise<Work> {
  const { item, notes } = await link.call("pipeline.read", { storyId, notes: NOTES });
  if (item === null) return { kind: "item", id: storyId };
  const { dependsOn: _, ...shown } = viewOf(item, notes);
  const before = await Promise.all(item.dependsOn.slice(0, MAX_DEPENDENCIES).map((id) => lastNote(link, id)));
  const more = item.dependsOn.slice(MAX_DEPENDENCIES).map((id) => ({ id }));
  const dependsOn = [...before, ...more];
  return { kind: "item", ...shown, ...(dependsOn.length === 0 ? {} : { dependsOn }) } as Work;
}

async function lastNote(link: SessionCall["link"], storyId: string) {
  const { item, notes = [] } = await link.call("pipeline.read", { storyId, notes: 1 });
  const [last] = notes;
  return {
    id: storyId,
    ...(item === null ? {} : { title: item.name, stage: item.stage }),
    ...(last === undefined ? {} : { note: { by: last.agent, text: last.text } }),
  };
}

/** Takes the first item that is ready, but for those that the session gave away. */
export async function nextItem(
  call: SessionCall,
  board: BoardStages,
  wanted: Pick<Wanted, "stages" | "labels">,
  seconds: number | undefined,
): Promise<Waited<Taken>> {
  const { session, link } = call;
  if (wanted.stages === undefined && wanted.labels === undefined) {
    // What was handed to this agent comes first.
    const { items } = await link.call("pipeline.ready", { agent: session.name, limit: 1 });
    for (const { storyId, stage } of items) {
      const own = await claimItem(call, { storyId, ...board.begunFrom(stage) }, 0);
      if (own.answer.work !== null) return own;
    }
  }
  const begun = wanted.stages === undefined ? board.begunFrom(board.ready) : {};
  const any = claiming(call, { ...wanted, ...begun });
  return await askedUntilMessage(call, seconds, "waiting for work", (waitMs, endWait) =>
    session.passed.size === 0 ? any(waitMs, endWait) : claimOther(call, board, wanted, waitMs, endWait),
  );
}

/** The same where some items are passed over: it looks at what is ready, and again when something has happened. */
async function claimOther(
  call: SessionCall,
  board: BoardStages,
  wanted: Pick<Wanted, "stages" | "labels">,
  waitMs: number,
  endWait: AbortSignal | undefined,
): Promise<Taken> {
  const { session, link } = call;
  const until = performance.now() + waitMs;
  for (;;) {
    // What happens after this is not missed.
    const { cursor: since } =
      waitMs === 0 ? { cursor: undefined } : await link.call("events.watch", { topics: ANY_ITEM });
    const limit = session.passed.size + SPARE_ITEMS;
    const { items } = await link.call("pipeline.ready", { ...wanted, limit });
    for (const { storyId, stage } of items) {
      if (session.passed.has(storyId)) continue;
      const begun = wanted.stages === undefined ? board.begunFrom(stage) : {};
      const taken = await claiming(call, { storyId, ...begun })(0, undefined);
      if (taken.work !== null) return taken;
    }
    const leftMs = Math.round(until - performance.now());
    if (since === undefined || leftMs <= 0 || endWait?.aborted) {
      const passedOver = items.map(({ storyId }) => storyId).filter((id) => session.passed.has(id));
      return { work: null, ...(passedOver.length === 0 ? {} : { passedOver }) };
    }
    const watched = { topics: ANY_ITEM, since, waitMs: leftMs };
    await link.call("events.watch", watched, ending(endWait));
  }
}

/** Takes a job of a queue, or a certain one. */
export async function claimBatch(
  call: SessionCall,
  wanted: Pick<Params<"queue.claim">, "queue" | "batchIds">,
  seconds: number | undefined,
): Promise<Waited<Work | undefined>> {
  const { link, session } = call;
  return await askedUntilMessage(call, seconds, "waiting for a job", async (waitMs, endWait) => {
    const request = { ...wanted, owner: session.name, notify: true, ...CLAIM_TERMS, waitMs };
    const { claim } = await link.call("queue.claim", request, ending(endWait));
    if (claim === null) return undefined;
    const { claimId, leaseToken, fencingToken, queue, batches } = claim;
    const [batch] = batches as [Result<"queue.get">["batch"]];
    await keep(call, { kind: "batch", id: batch.batchId, queue, claimId, leaseToken, fencingToken });
    return batchView(batch, queue);
  });
}

function batchView(batch: Result<"queue.get">["batch"], queue: string): Work {
  const { batchId, payloads, attempt, key, checkpoint, lastError } = batch;
  return {
    kind: "batch",
    id: batchId,
    queue,
    payloads,
    ...(key === null || key === undefined ? {} : { key }),
    ...(attempt === 0 ? {} : { failedTries: attempt }),
    ...(checkpoint === undefined || checkpoint === null ? {} : { checkpoint }),
    ...(lastError === null || lastError === undefined ? {} : { lastError }),
  };
}

/** What the session holds already, as it was given it. */
export async function heldAlready(call: SessionCall, hold: Extract<Hold, { kind: "item" | "batch" }>) {
  if (hold.kind === "item") return await heldItem(call, hold.id);
  const { batch } = await call.link.call("queue.get", { batchId: hold.id });
  return batchView(batch, hold.queue);
}
