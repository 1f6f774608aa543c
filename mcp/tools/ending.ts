// How work ends: the calls of its transaction, and what is said of it.
import type { MethodName, Params, Result } from "@pawl/protocol/types";
import type { Link } from "../link.js";
import { kindOf, Refusal } from "../refusal.js";
import type { Session } from "../sessions/session.js";
import type { Hold } from "../sessions/state-file.js";
import type { BoardStages } from "./board-stages.js";
import { inboxCall } from "./message-tools.js";
import { inWords, type Reserved, reservedBy, worksOf } from "./path-works.js";
import type { SessionCall } from "./tool.js";

const MAX_REASON_LENGTH = 1000;

export interface Ending {
  readonly outcome: "done" | "failed" | "give_back" | "handoff";
  readonly note?: string | undefined;
  readonly blocked?: boolean | undefined;
  readonly toStage?: string | undefined;
  readonly to?: string | undefined;
  readonly result?: unknown;
}

export type HeldWork = Extract<Hold, { kind: "item" | "batch" }>;
export type TransactCall = Params<"transact">["calls"][number];
type Item = NonNullable<Result<"pipeline.read">["item"]>;

/** Refuses what does not fit together. */
export function checkEnding(hold: HeldWork, name: string, ending: Ending): void {
  const { outcome, note: text, toStage, to, result, blocked } = ending;
  const isHandoff = outcome === "handoff";
  const goesBack = outcome === "failed" || outcome === "give_back";
  const isBatch = hold.kind === "batch";
  const wrongs: readonly (readonly [boolean, string])[] = [
    [isHandoff && to === undefined, "For handoff, name the agent in `to`."],
    [!isHandoff && to !== undefined, "`to` is for handoff only."],
    [to === name, "You are `to` yourself: go on with it, or give it back."],
    [blocked === true && (isBatch || !goesBack), "`blocked` is for an item that is given back or failed."],
    [blocked === true && text === undefined, "Say in `note` what it needs."],
    [
      toStage !== undefined && goesBack,
      "`toStage` is for done and handoff; otherwise the item goes back to where it was.",
    ],
    [
      isBatch && (isHandoff || toStage !== undefined),
      "A job of a queue has no stages and cannot be handed to one agent: finish it, or give it back.",
    ],
    [
      result !== undefined && (!isBatch || outcome !== "done"),
      "`result` is for a job of a queue that is done. Say it in `note`.",
    ],
    [outcome === "failed" && text === undefined, "Say in `note` why it failed."],
  ];
  const wrong = wrongs.find(([isSo]) => isSo);
  if (wrong !== undefined) throw new Refusal("invalid_params", wrong[1]);
}

export function itemCalls(
  { session }: SessionCall,
  { ready, done }: BoardStages,
  { id: storyId, leaseId, fencingToken }: Extract<HeldWork, { kind: "item" }>,
  { outcome, note: text, toStage, to, blocked }: Ending,
): TransactCall[] {
  const said = text === undefined ? {} : { note: { text, agent: session.name } };
  const claim = { fencingToken };
  if (outcome === "done" || outcome === "handoff") {
    const stage = toStage ?? (outcome === "done" ? done : ready);
    const agent = to === undefined ? {} : { agent: to };
    return [
      { method: "pipeline.finish", params: { storyId, fencingToken, toStage: stage, ...agent, ...said } },
    ];
  }
  const parked = blocked === true ? { blocked } : {};
  const written: TransactCall[] =
    text === undefined ? [] : [{ method: "pipeline.write", params: { storyId, claim, ...said, ...parked } }];
  if (outcome === "give_back") return [...written, { method: "lease.release", params: { leaseId } }];
  const reason = (text ?? outcome).slice(0, MAX_REASON_LENGTH);
  const broken = { name: `item/${storyId}`, fencingToken, reason };
  return [...written, { method: "lease.break", params: broken }];
}

export function batchCalls(
  { claimId, leaseToken }: Extract<HeldWork, { kind: "batch" }>,
  { outcome, note: text, result }: Ending,
): TransactCall[] {
  if (outcome === "done") {
    const params = { claimId, leaseToken, ...(result === undefined ? {} : { result }) };
    return [{ method: "queue.complete", params }];
  }
  const error = outcome === "failed" ? { error: (text ?? "failed").slice(0, MAX_REASON_LENGTH) } : {};
  return [{ method: "queue.abandon", params: { claimId, leaseToken, ...error } }];
}

/**
 * Ends work, and with it what was for it, in one transaction. Where daemons share some of the names that is one about
 * several places, which nobody makes: then the work ends by itself, and the rest right after it.
 *
 * @param work the calls that end it; their results are given.
 * @param beside what ends with it.
 * @returns `undone` says of the rest what could not be done, in sentences for the agent.
 */
export async function endTogether(
  link: Link,
  work: readonly TransactCall[],
  beside: readonly TransactCall[],
): Promise<{ results: Result<"transact">["results"]; undone: readonly string[] }> {
  try {
    const { results } = await link.call("transact", { calls: [...work, ...beside] });
    return { results: results.slice(0, work.length), undone: [] };
  } catch (error) {
    if (kindOf(error) !== "invalid_params" || beside.length === 0) throw error;
    const { shared } = await link.call("daemon.info", {});
    if (shared.length === 0) throw error;
  }
  const { results } = await link.call("transact", { calls: [...work] });
  // The work has ended by now, whatever becomes of the rest.
  const undone: string[] = [];
  for (const { method, params } of beside) {
    await link.call(method as MethodName, params as never).catch((error: Error) => {
      const what = method === "path.release" ? "Paths are still reserved" : "The other agent was not told";
      undone.push(`${what}: ${error.message}`);
    });
  }
  return { results, undone };
}

export function handoffCall(
  { session }: SessionCall,
  storyId: string,
  to: string,
  text: string | undefined,
): TransactCall {
  const words = text === undefined ? "" : ` Note: ${text}`;
  return inboxCall(
    session,
    to,
    `${session.name} would like you to take ${storyId}: work_claim it; it is free for anybody.${words}`,
  );
}

/** What became of an item that goes back, for the agent. */
export interface After {
  readonly stage: string;
  readonly free?: boolean;
  readonly blocked?: boolean;
  readonly failedTries?: number;
  readonly hint?: string;
}

/** Says what follows from an end. */
export function afterEnd(
  item: Item,
  { outcome, to = "" }: Ending,
  { maxRetries }: BoardStages,
  isThere: boolean | undefined,
): After {
  const { stage, blocked, retryCount, storyId } = item;
  if (outcome === "done") return { stage };
  const counted = outcome === "failed" ? { failedTries: retryCount } : {};
  const of = maxRetries === 0 ? "" : ` of ${maxRetries}`;
  const tried = outcome === "failed" ? `Try ${retryCount}${of} failed. ` : "";
  if (blocked)
    return {
      stage,
      free: false,
      blocked,
      ...counted,
      hint: `${tried}${storyId} is blocked now: it stays in ${stage}, but nobody is offered it until a person unblocks it. Tell your user if it is urgent.`,
    };
  const last = outcome === "failed" && maxRetries > 0 ? ` At ${maxRetries} failed tries it is blocked.` : "";
  const told = isThere === true ? `${to} was told; leave it to ${to}.` : "";
  const taking =
    outcome === "handoff"
      ? told
      : `${storyId} is free for anybody again; work_next does not offer it to you, but work_claim takes it.`;
  const next = item.ready ? taking : `${told} ${storyId} is in ${stage}, and not ready there.`.trimStart();
  const hint = `${tried}${next}${last}`;
  return { stage, free: item.ready, ...counted, ...(hint === "" ? {} : { hint }) };
}

/** What becomes of reserved paths at the end of work. */
export interface PathsAfter {
  readonly released: readonly Reserved[];
  /** Those that are for other work of the session, too. */
  readonly shared: readonly Reserved[];
  readonly left: readonly Reserved[];
}

export function pathsAfter(session: Session, id: string, keeps: boolean): PathsAfter {
  const all = reservedBy(session);
  const others = worksOf(session).filter((work) => work !== id);
  const own = keeps ? [] : all.filter(({ works }) => works.includes(id));
  const shared = own.filter(({ works }) => works.some((work) => others.includes(work)));
  const released = own.filter((each) => !shared.includes(each));
  return { released, shared, left: all.filter((each) => !released.includes(each)) };
}

/** Says what to do about the paths that are left. */
export function hintOfLeft(left: readonly Reserved[], id: string, { outcome }: Ending): string | undefined {
  if (left.length === 0) return undefined;
  const kept = left.filter(({ works }) => works.includes(id));
  if (outcome === "done" || kept.length === 0)
    return `You still have ${left.map(inWords).join(", ")}: paths_release what you need no more.`;
  const paths = kept.flatMap(({ patterns }) => patterns).join(" ");
  return `You keep ${paths}, though ${id} is not yours any more: paths_release what was for that alone.`;
}
