import type { Params, Result } from "@pawl/protocol/types";
import { z } from "zod";
import type { Link } from "../link.js";
import { Refusal } from "../refusal.js";
import { CLAIM_TERMS, TERMS } from "../sessions/grants.js";
import type { Hold } from "../sessions/state-file.js";
import { keep, losing } from "./holding.js";
import { viewOf } from "./item-view.js";
import { inboxCall } from "./message-tools.js";
import { agentName } from "./session-tools.js";
import { ADDS, asked, DESTROYS, type SessionCall, tool, waitSeconds } from "./tool.js";

/** By convention; where moves are configured otherwise an item stays where it was. */
const BEGUN_STAGE = "2_current";
const DONE_STAGE = "5_done";
const READY_STAGE = "1_backlog";
/** How many of its notes an item is shown with. */
const NOTES = 10;
/** Ids of batches begin so; no story's id holds a colon. */
const BATCH = "qwb:";
const MAX_REASON_LENGTH = 1000;

const note = z.string().min(1).max(16_000).optional();
const work = z.looseObject({ kind: z.enum(["item", "batch"]), id: z.string() });
const WORK = {
  work: work.nullable().meta({ description: "Null: there is nothing to do now; `reason` says why." }),
  reason: z.string().optional(),
};
const id = z.string().min(1).max(256);

export const workNext = tool({
  name: "work_next",
  title: "Take the next piece of work",
  description:
    "Use this when you are free and want something to do. Takes the most urgent item of the board that is ready (all that it depends on is done, nobody works on it), for you alone, and moves it to the stage 2_current. Returns `work` with its id, title, description and notes of earlier agents; nobody else can take it until you call work_finish. With `queue` it takes from that queue of jobs instead. `work: null` means that nothing is ready now: finish what you hold, since others may depend on it; then wait with waitSeconds, or stop. Reserve files with paths_reserve before you edit them.",
  annotations: ADDS,
  input: {
    queue: z
      .string()
      .min(1)
      .max(128)
      .optional()
      .meta({ description: "A queue of jobs, instead of the board." }),
    stages: z
      .array(z.string().min(1).max(64))
      .min(1)
      .max(64)
      .optional()
      .meta({ description: "Only items in these stages, such as 3_qa for a tester; the item stays there." }),
    labels: z.array(z.string().min(1).max(200)).min(1).max(16).optional().meta({
      description: "Only items with all of these labels.",
    }),
    waitSeconds,
  },
  output: WORK,
  async run({ queue, stages, labels, waitSeconds: seconds }, call) {
    if (queue !== undefined) {
      if (stages !== undefined || labels !== undefined) {
        throw new Refusal(
          "invalid_params",
          "`stages` and `labels` are of the board, and `queue` is none of it.",
        );
      }
      const taken = await claimBatch(call, { queue }, seconds);
      return taken === undefined
        ? { work: null, reason: `no job of ${queue} can be taken now` }
        : { work: taken };
    }
    const { begun } = await boardStages(call.link);
    if (stages === undefined && labels === undefined) {
      // What was handed to this agent comes first.
      const { items } = await call.link.call("pipeline.ready", { agent: call.session.name, limit: 1 });
      for (const { storyId } of items) {
        const own = await claimItem(call, { storyId, ...begun }, 0);
        if (own.work !== null) return own;
      }
    }
    const wanted = {
      ...(stages === undefined ? begun : { stages }),
      ...(labels === undefined ? {} : { labels }),
    };
    return await claimItem(call, wanted, seconds);
  },
});

/** The stages of the board that work goes through. */
async function boardStages(
  link: Link,
): Promise<{ begun: { toStage?: string }; ready: string; done: string }> {
  const { stages, transitions } = await link.call("pipeline.configuration", {});
  const ready = stages.find((each) => each.ready === true)?.stage ?? READY_STAGE;
  const done = stages.find((each) => each.done === true)?.stage ?? DONE_STAGE;
  const allowed = transitions === null || transitions[ready]?.includes(BEGUN_STAGE) === true;
  return { begun: allowed ? { toStage: BEGUN_STAGE } : {}, ready, done };
}

export const workClaim = tool({
  name: "work_claim",
  title: "Take one certain piece of work",
  description:
    "Use this instead of work_next when you were told which item (such as FR-012) or job (qwb:...) to do. Returns the same as work_next. Refused with lease_held if another agent has it: do not start on it, take other work or ask the holder with message_send. `work: null` with a reason means that it is not ready, for example because of what it depends on.",
  annotations: ADDS,
  input: {
    id: id.meta({ description: "The id of the item, or of the job." }),
    waitSeconds,
  },
  output: WORK,
  async run({ id: wanted, waitSeconds: seconds }, call) {
    if (call.session.find("item", wanted) ?? call.session.find("batch", wanted)) {
      throw new Refusal("conflict", `You hold ${wanted} already.`, {}, "Go on with it.");
    }
    if (wanted.startsWith(BATCH)) {
      const taken = await claimBatch(call, { batchIds: [wanted] }, seconds);
      if (taken !== undefined) return { work: taken };
      const { reason } = await call.link.call("queue.explain", { batchId: wanted });
      return { work: null, reason: `the job is ${reason}` };
    }
    const { item } = await call.link.call("pipeline.read", { storyId: wanted });
    if (item === null) throw new Refusal("not_found", `There is no item ${wanted} on the board.`);
    const { claim } = item;
    if (claim !== undefined && (seconds ?? 0) === 0) {
      const holder = { owner: claim.agent, pid: claim.pid, expiresAt: claim.expiresAt };
      throw new Refusal("lease_held", `${claim.agent} works on ${wanted}.`, { holder });
    }
    const { begun, ready } = await boardStages(call.link);
    const stage = item.stage === ready || claim !== undefined ? begun : {};
    return await claimItem(call, { storyId: wanted, ...stage }, seconds);
  },
});

async function claimItem(
  call: SessionCall,
  wanted: Pick<Params<"pipeline.claim">, "storyId" | "stages" | "labels" | "toStage">,
  seconds: number | undefined,
): Promise<{ work: z.input<typeof work> | null; reason?: string }> {
  const { link, session, signal } = call;
  const { item, lease, reason } = await asked(call, seconds, "waiting for work", (waitMs) =>
    link.call("pipeline.claim", { ...wanted, agent: session.name, ...TERMS, waitMs }, { signal }),
  );
  if (item === null || lease === undefined) return { work: null, reason: reason ?? "nothing is ready" };
  const { leaseId, fencingToken } = lease;
  await keep(call, { kind: "item", id: item.storyId, leaseId, fencingToken });
  const { notes } = await link.call("pipeline.read", { storyId: item.storyId, notes: NOTES });
  return { work: { kind: "item", ...viewOf(item, notes) } };
}

async function claimBatch(
  call: SessionCall,
  wanted: Pick<Params<"queue.claim">, "queue" | "batchIds">,
  seconds: number | undefined,
): Promise<z.input<typeof work> | undefined> {
  const { link, session, signal } = call;
  const { claim } = await asked(call, seconds, "waiting for a job", (waitMs) =>
    link.call(
      "queue.claim",
      { ...wanted, owner: session.name, notify: true, ...CLAIM_TERMS, waitMs },
      { signal },
    ),
  );
  if (claim === null) return undefined;
  const { claimId, leaseToken, fencingToken, queue, batches } = claim;
  const [batch] = batches as [Result<"queue.get">["batch"]];
  await keep(call, { kind: "batch", id: batch.batchId, queue, claimId, leaseToken, fencingToken });
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

type Work = Extract<Hold, { kind: "item" | "batch" }>;

function heldWork({ session }: SessionCall, wanted: string): Work {
  const hold = session.find("item", wanted) ?? session.find("batch", wanted);
  if (hold !== undefined) return hold;
  const held = session.holds.filter(({ kind }) => kind === "item" || kind === "batch").map((each) => each.id);
  throw new Refusal(
    "lease_lost",
    `You do not hold ${wanted}.`,
    { held },
    held.length === 0
      ? "Take it with work_claim before you work on it; if that is refused, leave it alone."
      : `You hold ${held.join(", ")}. Use one of these ids, or take that one with work_claim.`,
  );
}

export const workUpdate = tool({
  name: "work_update",
  title: "Say how your work goes",
  description:
    "Use this for work that you hold: leave a note for whoever comes after you (decisions, what is left, what failed), and say how far you are, after each larger step. Notes stay on the item for good. It does not end the work: work_finish does.",
  annotations: ADDS,
  input: {
    id: id.meta({ description: "The id of the work that you hold." }),
    note: note.meta({ description: "Something to know about it." }),
    percent: z.int().min(0).max(100).optional().meta({ description: "How much of it is done." }),
    checkpoint: z.json().optional().meta({
      description: "Of a job: anything that the next holder needs to go on if you do not come to the end.",
    }),
  },
  output: { id: z.string() },
  async run({ id: wanted, note: text, percent, checkpoint }, call) {
    const hold = heldWork(call, wanted);
    if (text === undefined && percent === undefined && checkpoint === undefined) {
      throw new Refusal("invalid_params", "Give a `note`, a `percent` or a `checkpoint`.");
    }
    await losing(call, hold, async () => {
      if (hold.kind === "item") {
        if (checkpoint !== undefined) {
          throw new Refusal("invalid_params", "Items have no `checkpoint`. Say it in a `note`.");
        }
        await call.link.call("pipeline.write", {
          storyId: hold.id,
          claim: { fencingToken: hold.fencingToken },
          ...(text === undefined ? {} : { note: { text, agent: call.session.name } }),
          ...(percent === undefined ? {} : { fields: { percent } }),
        });
      } else {
        const { claimId, leaseToken } = hold;
        await call.link.call("queue.progress", {
          claimId,
          leaseToken,
          ...(text === undefined ? {} : { note: text.slice(0, MAX_REASON_LENGTH) }),
          ...(percent === undefined ? {} : { percent }),
          ...(checkpoint === undefined
            ? {}
            : { checkpoint: checkpoint as Params<"queue.progress">["checkpoint"] }),
        });
      }
    });
    return { id: hold.id };
  },
});

interface Ending {
  readonly outcome: "done" | "failed" | "give_back" | "handoff";
  readonly note?: string | undefined;
  readonly toStage?: string | undefined;
  readonly to?: string | undefined;
  readonly result?: unknown;
}

type TransactCall = Params<"transact">["calls"][number];

export const workFinish = tool({
  name: "work_finish",
  title: "End your work: done, failed, given back, or handed to another",
  description:
    "Call this as soon as you stop working on something that you hold, always with a note. `done`: it is finished (tested, committed); it moves to 5_done, and what depends on it becomes ready; or to `toStage` if somebody else is to go on with it there, such as 3_qa. `failed`: you tried and could not; it goes back, and the try is counted. `give_back`: you did not really begin; it goes back uncounted. `handoff`: it goes back with the name of the agent in `to`, who is sent your note; it is not kept for it, so work_next may give it to anybody, you too. Your reserved paths are given back too when this was your last work. All of it happens, or, on a refusal, nothing. Refused with lease_lost: it is not yours any more, so do not commit it.",
  annotations: DESTROYS,
  input: {
    id: id.meta({ description: "The id of the work that you hold." }),
    outcome: z.enum(["done", "failed", "give_back", "handoff"]),
    note: note.meta({ description: "What you did, or why you stop: the next one reads it." }),
    toStage: z.string().min(1).max(64).optional().meta({
      description:
        "For done and handoff: a stage of the board, spelled exactly as there. Leave it out unless you were told one: in a stage that nobody looks at the item is lost from sight, and what depends on it waits.",
    }),
    to: agentName.optional().meta({ description: "For handoff: the name of the agent." }),
    result: z
      .json()
      .optional()
      .meta({ description: "For done, of a job: its result, for whoever waits for it." }),
    keepPaths: z.boolean().optional().meta({ description: "True: keep your reserved paths." }),
  },
  output: { id: z.string(), stage: z.string().optional(), releasedPaths: z.array(z.string()).optional() },
  async run({ id: wanted, keepPaths, ...ending }, call) {
    const { session, link } = call;
    const hold = heldWork(call, wanted);
    check(hold, ending);
    const last = !session.holds.some(
      (each) => each !== hold && (each.kind === "item" || each.kind === "batch"),
    );
    const paths =
      last && keepPaths !== true
        ? session.holds.filter((each): each is Extract<Hold, { kind: "paths" }> => each.kind === "paths")
        : [];
    const calls: TransactCall[] = [
      ...(hold.kind === "item" ? await itemCalls(call, hold, ending) : batchCalls(hold, ending)),
      ...paths.map(({ reservationId }) => ({ method: "path.release" as const, params: { reservationId } })),
      ...(ending.to === undefined ? [] : [handoffCall(call, hold.id, ending.to, ending.note)]),
    ];
    const { results } = await losing(call, hold, () => link.call("transact", { calls }));
    for (const each of [hold, ...paths]) session.drop(each);
    const finished = results.find((each) => (each as { item?: unknown }).item !== undefined);
    const stage = (finished as { item: { stage: string } } | undefined)?.item.stage;
    return {
      id: hold.id,
      ...(stage === undefined ? {} : { stage }),
      ...(paths.length === 0 ? {} : { releasedPaths: paths.flatMap(({ patterns }) => patterns) }),
    };
  },
});

/** Refuses what does not fit together. */
function check(hold: Work, { outcome, note: text, toStage, to, result }: Ending): void {
  const wrong =
    outcome === "handoff" && to === undefined
      ? "For handoff, name the agent in `to`."
      : outcome !== "handoff" && to !== undefined
        ? "`to` is for handoff only."
        : toStage !== undefined && outcome !== "done" && outcome !== "handoff"
          ? "`toStage` is for done and handoff; otherwise the item goes back to where it was."
          : hold.kind === "batch" && (outcome === "handoff" || toStage !== undefined)
            ? "A job of a queue has no stages and cannot be handed to one agent: finish it, or give it back."
            : result !== undefined && (hold.kind === "item" || outcome !== "done")
              ? "`result` is for a job of a queue that is done. Say it in `note`."
              : outcome === "failed" && text === undefined
                ? "Say in `note` why it failed."
                : undefined;
  if (wrong !== undefined) throw new Refusal("invalid_params", wrong);
}

async function itemCalls(
  { link, session }: SessionCall,
  { id: storyId, leaseId, fencingToken }: Extract<Work, { kind: "item" }>,
  { outcome, note: text, toStage, to }: Ending,
): Promise<TransactCall[]> {
  const said = text === undefined ? {} : { note: { text, agent: session.name } };
  const claim = { fencingToken };
  if (outcome === "done" || outcome === "handoff") {
    const { ready, done } = await boardStages(link);
    const stage = toStage ?? (outcome === "done" ? done : ready);
    const agent = to === undefined ? {} : { agent: to };
    return [
      { method: "pipeline.finish", params: { storyId, fencingToken, toStage: stage, ...agent, ...said } },
    ];
  }
  const written: TransactCall[] =
    text === undefined ? [] : [{ method: "pipeline.write", params: { storyId, claim, ...said } }];
  if (outcome === "give_back") return [...written, { method: "lease.release", params: { leaseId } }];
  const reason = (text ?? outcome).slice(0, MAX_REASON_LENGTH);
  const broken = { name: `item/${storyId}`, fencingToken, reason };
  return [...written, { method: "lease.break", params: broken }];
}

function batchCalls(
  { claimId, leaseToken }: Extract<Work, { kind: "batch" }>,
  { outcome, note: text, result }: Ending,
): TransactCall[] {
  if (outcome === "done") {
    const params = { claimId, leaseToken, ...(result === undefined ? {} : { result }) };
    return [{ method: "queue.complete", params }];
  }
  const error = outcome === "failed" ? { error: (text ?? "failed").slice(0, MAX_REASON_LENGTH) } : {};
  return [{ method: "queue.abandon", params: { claimId, leaseToken, ...error } }];
}

function handoffCall(
  { session }: SessionCall,
  storyId: string,
  to: string,
  text: string | undefined,
): TransactCall {
  const words = text === undefined ? "" : `: ${text}`;
  return inboxCall(session, to, `${storyId} is yours to go on with (work_claim ${storyId})${words}`);
}
