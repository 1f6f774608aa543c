import type { Params, Result } from "@pawl/protocol/types";
import { z } from "zod";
import { inAgentsWords, MESSAGE_CAME, Refusal } from "../refusal.js";
import { boardStages } from "./board-stages.js";
import {
  type After,
  afterEnd,
  batchCalls,
  checkEnding,
  endTogether,
  handoffCall,
  hintOfLeft,
  itemCalls,
  pathsAfter,
  type TransactCall,
} from "./ending.js";
import { clockTime } from "./held-paths.js";
import { BATCH, heldWork, noteLater } from "./held-work.js";
import { losing } from "./holding.js";
import { isThere, nobodyThere } from "./message-tools.js";
import { IDLE, isIdle, needlessPaths, whyNoWork } from "./no-work.js";
import { nameWorks, shownPaths } from "./path-works.js";
import { agentName } from "./session-tools.js";
import { claimBatch, claimItem, heldAlready, nextItem, type Taken, work } from "./taking.js";
import { ADDS, DESTROYS, hint, type SessionCall, tool, waitSeconds } from "./tool.js";
import type { Waited } from "./waiting.js";
import { heldLease, tellHolders } from "./wanting.js";

const MAX_REASON_LENGTH = 1000;
/** While work is waited for it is looked so often whether any can still come. */
const IDLE_LOOK_SECONDS = 3;

const note = z.string().min(1).max(16_000).optional();
const WORK = {
  work: work.nullable(),
  reason: z.string().optional().meta({ description: "Why there is none, and what there is." }),
  passedOver: z.array(z.string()).optional(),
  hint,
};
const id = z.string().min(1).max(256);

export const workNext = tool({
  name: "work_next",
  title: "Take the next piece of work",
  description:
    "Take the most urgent item of the board that is ready (all that it depends on is done, nobody works on it), for you alone: nobody else can take it until you call work_finish. Priority 0 comes first. Returns `work` with its title, description, the notes of earlier agents, and of each item that it depends on the last note. You may hold several. `work: null`: nothing is ready for you; `reason` says who works on what. Then finish what you hold, since others may depend on it; wait with waitSeconds; or stop. What you gave back, failed in or handed on is not offered to you again (`passedOver`); work_claim takes it. Reserve files with paths_reserve before you edit them.",
  annotations: ADDS,
  input: {
    queue: z
      .string()
      .min(1)
      .max(128)
      .optional()
      .meta({ description: "A queue of jobs, instead of the board." }),
    stages: z.array(z.string().min(1).max(64)).min(1).max(64).optional().meta({
      description: "Only items in these stages of the board, if you were told some; they stay there.",
    }),
    labels: z
      .array(z.string().min(1).max(200))
      .min(1)
      .max(16)
      .optional()
      .meta({ description: "Only items with all of these." }),
    waitSeconds: waitSeconds("until there is work", "; a message, or that none can come, ends it"),
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
      const { answer, interrupted } = await claimBatch(call, { queue }, seconds);
      if (answer !== undefined) return { work: answer };
      return { work: null, reason: `No job of ${queue} can be taken now.`, ...said(interrupted) };
    }
    const board = await boardStages(call.link);
    const wanted = {
      ...(stages === undefined ? {} : { stages }),
      ...(labels === undefined ? {} : { labels }),
    };
    let { answer, interrupted } = await nextItem(call, board, wanted, 0);
    // In pieces: whoever works may end that with nothing for others, and then nothing is left to wait for.
    for (
      let left = seconds ?? 0;
      answer.work === null && left > 0 && !interrupted;
      left -= IDLE_LOOK_SECONDS
    ) {
      if (call.signal.aborted || (await isIdle(call, answer.passedOver))) break;
      ({ answer, interrupted } = await nextItem(call, board, wanted, Math.min(left, IDLE_LOOK_SECONDS)));
    }
    if (answer.work !== null) return { work: answer.work };
    const { passedOver } = answer;
    const [reason, idle] = await Promise.all([
      whyNoWork(call, board, wanted, passedOver),
      isIdle(call, passedOver),
    ]);
    const all = idle ? `${reason} ${IDLE}` : reason;
    return {
      work: null,
      reason: all,
      ...passed(passedOver),
      ...said(interrupted, needlessPaths(call.session)),
    };
  },
});

function said(interrupted: boolean, more?: string): { hint?: string } {
  const words = [interrupted ? MESSAGE_CAME : undefined, more].filter((each) => each !== undefined);
  return words.length === 0 ? {} : { hint: words.join(" ") };
}

function passed(ids: readonly string[] | undefined): { passedOver?: string[] } {
  return ids === undefined ? {} : { passedOver: [...ids] };
}

export const workClaim = tool({
  name: "work_claim",
  title: "Take one certain piece of work",
  description:
    "Instead of work_next, when you know which item (such as FR-012) or job (qwb:...) to do. Returns the same; of what you hold already, too. Refused with lease_held if another has it: take other work, or ask the holder with message_send. `work: null`: it is not ready; `reason` says why, of a blocked one with the note that says what it needs.",
  annotations: ADDS,
  input: { id, waitSeconds: waitSeconds("until it is free") },
  output: WORK,
  async run({ id: wanted, waitSeconds: seconds }, call) {
    const own = call.session.find("item", wanted) ?? call.session.find("batch", wanted);
    if (own !== undefined)
      return { work: await heldAlready(call, own), hint: "You hold it already: go on with it." };
    if (wanted.startsWith(BATCH)) {
      const { answer, interrupted } = await claimBatch(call, { batchIds: [wanted] }, seconds);
      if (answer !== undefined) return { work: answer };
      const { reason } = await call.link.call("queue.explain", { batchId: wanted });
      return { work: null, reason: `The job is ${reason}.`, ...said(interrupted) };
    }
    const { item } = await call.link.call("pipeline.read", { storyId: wanted });
    if (item === null) throw new Refusal("not_found", `There is no item ${wanted} on the board.`);
    const { claim } = item;
    const tellHolder = async (waits: boolean): Promise<void> => {
      const words = { words: `${wanted}, which you work on`, how: "work_finish it when you do not." };
      await tellHolders(call, await heldLease(call, `item/${wanted}`, words), waits);
    };
    if (claim !== undefined && (seconds ?? 0) === 0) {
      await tellHolder(false);
      throw await heldBy(call, wanted, claim.agent);
    }
    const board = await boardStages(call.link);
    const stage =
      claim !== undefined
        ? board.begunFrom(board.ready)
        : board.isReady(item.stage)
          ? board.begunFrom(item.stage)
          : {};
    const whenWaiting = () => tellHolder(true);
    const asked = { storyId: wanted, ...stage };
    const { answer, interrupted } = await claimItem(call, asked, seconds, { whenWaiting });
    return answer.work === null
      ? await notReady(call, wanted, { answer, interrupted })
      : { work: answer.work };
  },
});

async function heldBy({ link }: SessionCall, storyId: string, owner: string): Promise<Refusal> {
  const { lease } = await link.call("lease.get", { name: `item/${storyId}` });
  const since = lease === null ? {} : { since: clockTime(lease.acquiredAt) };
  const words = lease === null ? "" : ` since ${since.since}`;
  return new Refusal("lease_held", `${owner} works on ${storyId}${words}.`, { holder: { owner, ...since } });
}

/** Why a certain item cannot be taken; of one that is blocked with the note that says what it needs. */
async function notReady({ link }: SessionCall, storyId: string, { answer, interrupted }: Waited<Taken>) {
  const { item, notes = [] } = await link.call("pipeline.read", { storyId, notes: 1 });
  const [last] = notes;
  const needs =
    item?.blocked === true && last !== undefined
      ? ` Nobody is offered it until a person unblocks it. The last note, by ${last.agent ?? "nobody"}: ${last.text}`
      : "";
  return { work: null, reason: `${inAgentsWords(answer.reason ?? "")}${needs}`, ...said(interrupted) };
}

export const workUpdate = tool({
  name: "work_update",
  title: "Say how your work goes",
  description:
    "Of work that you hold, or (a note alone) have done: leave a note for whoever comes after you (decisions, what is left, what failed), and say how far you are, after each larger step. Notes stay for good. It does not end the work: work_finish does.",
  annotations: ADDS,
  input: {
    id,
    note,
    percent: z.int().min(0).max(100).optional(),
    checkpoint: z
      .unknown()
      .optional()
      .meta({ description: "Of a job: any JSON that the next holder needs to go on." }),
  },
  output: { id: z.string() },
  async run({ id: wanted, note: text, percent, checkpoint }, call) {
    if (text === undefined && percent === undefined && checkpoint === undefined) {
      throw new Refusal("invalid_params", "Give a `note`, a `percent` or a `checkpoint`.");
    }
    const isNoteAlone = text !== undefined && percent === undefined && checkpoint === undefined;
    const { session } = call;
    if (isNoteAlone && session.hasFinished(wanted) && session.find("item", wanted) === undefined) {
      await noteLater(call, wanted, text);
      return { id: wanted };
    }
    const hold = await heldWork(call, wanted);
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

export const workFinish = tool({
  name: "work_finish",
  title: "End your work: done, failed, given back, or handed to another",
  description:
    "Call this as soon as you stop working on something that you hold, always with a note. `done`: it is finished (tested, committed), and what depends on it becomes ready. `failed`: you tried and could not; it goes back, the try is counted. `give_back`: you did not really begin; it goes back uncounted. With `blocked: true` these two park it until a person unblocks it: use that for what needs a person (a question: give_back) or is not there. `handoff`: it goes back with the name of the agent in `to`, who is sent your note; anybody may take it. What goes back is free for others at once. Your paths for it are given back too; `stillReserved` names the others. All of it happens, or, on a refusal, nothing. Refused with lease_lost: it is not yours any more, so do not commit it.",
  annotations: DESTROYS,
  input: {
    id,
    outcome: z.enum(["done", "failed", "give_back", "handoff"]),
    note: note.meta({
      description:
        "For the next one. done: what you did, with branch and commit; otherwise why you stop, and what it needs.",
    }),
    blocked: z.boolean().optional(),
    toStage: z.string().min(1).max(64).optional().meta({
      description:
        "For done and handoff, only if you were told one: a stage of the board, spelled exactly so, where somebody else goes on with it. What depends on it waits.",
    }),
    to: agentName.optional().meta({ description: "For handoff: the name of the agent." }),
    result: z
      .unknown()
      .optional()
      .meta({ description: "For done, of a job: any JSON, for whoever waits for it." }),
    keepPaths: z.boolean().optional().meta({ description: "True: keep its paths." }),
  },
  output: {
    id: z.string(),
    stage: z.string().optional(),
    free: z.boolean().optional(),
    blocked: z.boolean().optional(),
    failedTries: z.number().optional(),
    there: z.boolean().optional(),
    releasedPaths: z.array(z.string()).optional(),
    stillReserved: z.array(z.looseObject({ paths: z.array(z.string()) })).optional(),
    hint,
  },
  async run({ id: wanted, keepPaths, ...ending }, call) {
    const { session, link } = call;
    const hold = await heldWork(call, wanted);
    checkEnding(hold, session.name, ending);
    const board = await boardStages(link);
    const { released: paths, shared } = pathsAfter(session, wanted, keepPaths === true);
    const calls: TransactCall[] =
      hold.kind === "item" ? itemCalls(call, board, hold, ending) : batchCalls(hold, ending);
    if (hold.kind === "item") calls.push({ method: "pipeline.read", params: { storyId: hold.id } });
    const beside: TransactCall[] = [
      ...paths.map(({ reservationId }) => ({ method: "path.release" as const, params: { reservationId } })),
      ...(ending.to === undefined ? [] : [handoffCall(call, hold.id, ending.to, ending.note)]),
    ];
    const { results, undone } = await losing(call, hold, () =>
      session.ending([hold, ...paths], () => endTogether(link, calls, beside)),
    );
    const item = hold.kind === "item" ? (results.at(-1) as Result<"pipeline.read">).item : null;
    const { outcome, to } = ending;
    if (outcome === "done" && hold.kind === "item") session.finish(hold.id);
    for (const each of shared) {
      const works = each.works.filter((work) => work !== hold.id);
      // The work has ended by now, whatever becomes of its paths.
      await nameWorks(call, each, { works, note: each.note }).catch(() => {});
    }
    const { left } = pathsAfter(session, wanted, true);
    const there = to === undefined ? undefined : await isThere(call, to);
    const after: Partial<After> = item === null ? {} : afterEnd(item, ending, board, there);
    if (after.free === true && outcome !== "done")
      session.pass(hold.id, { how: outcome, ...(to === undefined ? {} : { to }) });
    const hints = [
      after.hint,
      there === false ? nobodyThere(to as string) : undefined,
      hintOfLeft(left, hold.id, ending),
      ...undone,
    ];
    const words = hints.filter((each) => each !== undefined).join(" ");
    return {
      id: hold.id,
      ...after,
      ...(there === undefined ? {} : { there }),
      ...(paths.length === 0 ? {} : { releasedPaths: paths.flatMap(({ patterns }) => patterns) }),
      ...(left.length === 0 ? {} : { stillReserved: left.map(shownPaths) }),
      ...(words === "" ? {} : { hint: words }),
    };
  },
});
