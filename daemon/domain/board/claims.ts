// Items that somebody works on: a claim is the lease of the item, granted together with what it writes of the item.
// Another lease of that name only makes the item not ready.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type OnLossColumns, remainingOf as remainingOfGrant } from "../../grants/on-loss.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { NOTE, type Note, type Op } from "./change.js";
import { prepare, store } from "./local-change.js";
import { itemOf } from "./merge.js";
import type { Rules } from "./rules.js";
import { findItem, type LoadedItem, loadNode, type Node } from "./tables.js";
import { freeItem, LEASE_BEGINNING, leaseOf } from "./work-state.js";

const selectClaim = sql<ClaimRow>(`
  SELECT c.story_id, c.fencing_token, c.agent, c.former_stage, c.stage_n, c.agent_n,
    l.lease_id, l.expires_at, l.grace_ends_at, l.on_loss, l.lost_at, l.pid, l.connection
  FROM pawl_item_claim c JOIN pawl_lease l ON l.name = :name AND l.fencing_token = c.fencing_token
  WHERE c.story_id = :storyId`);

const insertClaim = sql(`
  INSERT INTO pawl_item_claim (story_id, fencing_token, agent, former_stage, stage_n, agent_n)
  VALUES (:storyId, :fencingToken, :agent, :formerStage, :stageN, :agentN)
  ON CONFLICT (story_id) DO UPDATE SET fencing_token = excluded.fencing_token, agent = excluded.agent,
    former_stage = excluded.former_stage, stage_n = excluded.stage_n, agent_n = excluded.agent_n`);

const setWritten = sql(`
  UPDATE pawl_item_claim SET stage_n = coalesce(:stageN, stage_n), agent_n = coalesce(:agentN, agent_n)
  WHERE story_id = :storyId`);

const deleteClaim = sql<EndedRow>(`
  DELETE FROM pawl_item_claim WHERE story_id = :storyId AND fencing_token = :fencingToken
  RETURNING agent, former_stage, stage_n, agent_n`);

/** What a claim has written of its item. */
interface EndedRow {
  agent: string;
  former_stage: string;
  /** The number of the change by which it last set the stage, and the agent; null if it did not. */
  stage_n: number | null;
  agent_n: number | null;
}

export interface ClaimRow extends EndedRow, OnLossColumns {
  story_id: string;
  fencing_token: number;
  lease_id: string;
  expires_at: number;
  grace_ends_at: number | null;
  pid: number | null;
  connection: number;
}

/** The claim of an item, if it has one that has not run out. */
export function* findClaim({ row, work }: LoadedItem, env: Env): Operation<ClaimRow | undefined> {
  if (!work.held) return undefined;
  const { storyId } = row;
  const claim = yield* one(selectClaim, { storyId, name: leaseOf(storyId) });
  return claim !== undefined && remainingOf(claim, env) > 0 ? claim : undefined;
}

/** Of the lease that a claim is, in milliseconds. */
export function remainingOf(claim: ClaimRow, env: Env): number {
  return remainingOfGrant(claim, env);
}

/** Notes that an item, as the claim has made it, is claimed under the lease with this token. */
export function* keepClaim(
  fencingToken: number,
  agent: string,
  formerStage: string,
  { row: { storyId }, setBy }: LoadedItem,
  writesStage: boolean,
): Operation<void> {
  const [stageN, agentN] = [writesStage ? (setBy.stage ?? null) : null, setBy.agent ?? null];
  yield* run(insertClaim, { storyId, fencingToken, agent, formerStage, stageN, agentN });
}

/** The claim of an item ends now, and what it wrote stays. Its lease is to be ended next. */
export function* forgetClaim({ story_id: storyId, fencing_token: fencingToken }: ClaimRow): Operation<void> {
  yield* all(deleteClaim, { storyId, fencingToken });
}

/** A write that was made under a claim is one of the claim's. */
export function* wroteUnderClaim(
  { row: { storyId }, setBy }: LoadedItem,
  wrote: { readonly stage: boolean; readonly agent: boolean },
): Operation<void> {
  if (!wrote.stage && !wrote.agent) return;
  yield* run(setWritten, {
    storyId,
    stageN: wrote.stage ? (setBy.stage ?? null) : null,
    agentN: wrote.agent ? (setBy.agent ?? null) : null,
  });
}

/**
 * The claim under which an item is written; undefined if it has none, or none is needed. Refuses with `lease_lost` a
 * token that is not that of its claim, and with `lease_held` what needs one that was not given.
 *
 * @param needs true for a write of the stage or the agent, a deletion, or the creation of what was deleted.
 */
export function* underClaim(
  storyId: string,
  item: LoadedItem | undefined,
  given: { readonly fencingToken: number } | undefined,
  needs: boolean,
  env: Env,
): Operation<ClaimRow | PawlError | undefined> {
  if (given === undefined && !needs) return undefined;
  const claim = item === undefined ? undefined : yield* findClaim(item, env);
  if (given !== undefined) {
    return claim?.fencing_token === given.fencingToken ? claim : notClaimed(storyId, given.fencingToken);
  }
  return claim && claimedBy(claim, env);
}

export function notClaimed(storyId: string, fencingToken: number): PawlError {
  return refuse(
    "lease_lost",
    `${storyId} is not claimed with the fencing token ${fencingToken}: the claim ended, or somebody else has the item now. Nothing was done. Stop the work; claim it again for a new token.`,
    { name: leaseOf(storyId), fencingToken },
  );
}

function claimedBy(claim: ClaimRow, env: Env): PawlError {
  const remainingMs = remainingOf(claim, env);
  const holder = { owner: claim.agent, expiresAt: env.wallMs + remainingMs, remainingMs };
  return refuse(
    "lease_held",
    `${claim.story_id} is claimed by ${shown(claim.agent)} for ${remainingMs} ms more unless that is renewed. Its stage, its agent and its deletion need the fencing token of the claim, as \`claim\`; or wait until it has ended.`,
    { holder, holders: [holder], name: leaseOf(claim.story_id) },
  );
}

/** The item that the name of a lease stands for; undefined for any other name. */
export function itemOfLease(name: string): string | undefined {
  return name.startsWith(LEASE_BEGINNING) ? name.slice(LEASE_BEGINNING.length) : undefined;
}

/**
 * The lease of an item has ended. A claim that was not finished is taken back: nobody works on the item, it is where it
 * was before, and it was tried once more, unless the holder gave it up. What somebody else wrote meanwhile stays.
 */
export function* leaseEnded(
  storyId: string,
  fencingToken: number,
  isReleased: boolean,
  env: Env,
): Operation<void> {
  const [claim] = yield* all(deleteClaim, { storyId, fencingToken });
  const item = claim && (yield* findItem(storyId));
  const node = item && (yield* loadNode(env));
  const op = claim && item && node && takeBack(claim, item, isReleased, node.rules);
  if (op !== undefined) {
    const prepared = yield* prepare(op, env, node as Node);
    if ("change" in prepared) {
      yield* store(prepared, item, env, { kind: "abandoned", by: (claim as EndedRow).agent });
    } else {
      env.effects.log("a claim could not be taken back", { storyId, why: prepared.message });
    }
  }
  yield* freeItem(storyId, env);
}

/** The op that takes back what a claim has written; undefined if nothing is left of that. */
function takeBack(
  { agent, former_stage: formerStage, stage_n: stageN, agent_n: agentN }: EndedRow,
  { row, setBy }: LoadedItem,
  isReleased: boolean,
  { maxRetries }: Rules,
): Op | undefined {
  const item = itemOf(row);
  if (item === null) return undefined;
  const hasStage = stageN !== null && setBy.stage === stageN;
  const hasAgent = agentN !== null && setBy.agent === agentN;
  const set = new Map<string, string>();
  if (hasStage) set.set("stage", JSON.stringify(formerStage));
  if (hasAgent) set.set("agent", "null");
  if (set.size === 0) return undefined;
  const isWhole = (stageN === null || hasStage) && (agentN === null || hasAgent);
  const counts = isWhole && !isReleased;
  if (counts && maxRetries > 0 && item.retryCount + 1 >= maxRetries && !item.blocked) {
    set.set("blocked", "true");
    const text = `Blocked: it was tried ${item.retryCount + 1} times, and each time its claim ended unfinished. The last was that of ${agent}.`;
    const note: Note = { agent: null, text };
    set.set(`${NOTE}0`, JSON.stringify(note));
  }
  const { storyId, generation } = row;
  return { storyId, generation, set, add: new Map(counts ? [["retryCount", 1]] : []) };
}
