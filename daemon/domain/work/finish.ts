import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import type { Op } from "../board/change.js";
import { findClaim, forgetClaim, notClaimed } from "../board/claims.js";
import { prepare, store } from "../board/local-change.js";
import { refuseMove } from "../board/rules.js";
import { type ShownItem, shownItem } from "../board/shown-item.js";
import { findItem, type LoadedItem, loadNode } from "../board/tables.js";
import { leaseOf } from "../board/work-state.js";
import { planWrite } from "../board/write.js";
import { drop, giveBack, heldGrant, type LeaseRow, tell } from "../lease/row.js";
import { noSuchItem } from "./claim.js";

/** The work of a claim is done: the item goes on, and its lease ends. */
export function* finish(
  { storyId, fencingToken, toStage, note, agent }: Parsed<"pipeline.finish">,
  env: Env,
): Operation<Result<"pipeline.finish"> | PawlError> {
  const item = yield* findItem(storyId);
  if (item === undefined) return noSuchItem(storyId);
  const claim = yield* findClaim(item, env);
  if (claim?.fencing_token !== fencingToken) return notClaimed(storyId, fencingToken);
  if (item.row.stage === null) return noSuchItem(storyId);
  const node = yield* loadNode(env);
  const refused = refuseMove(storyId, item.row.stage, toStage, node.rules);
  if (refused !== undefined) return refused;
  const op = planWrite(item.row, { storyId, stage: toStage, agent, note }, null);
  if (op instanceof PawlError) return op;
  const prepared = yield* prepare(op as Op, env, node);
  if (prepared instanceof PawlError) return prepared;
  yield* store(prepared, item, env, { kind: "finished", by: claim.agent });
  yield* forgetClaim(claim);
  const lease = (yield* heldGrant(leaseOf(storyId), fencingToken, env)) as LeaseRow;
  yield* drop(lease, env, true);
  tell(lease, "released", env);
  yield* giveBack(lease, env);
  // Where it went work may be taken from, too: then it is ready from here on.
  const finished = (yield* findItem(storyId)) as LoadedItem;
  return { item: (yield* shownItem(finished, env)) as ShownItem };
}
