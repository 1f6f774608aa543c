// A claim of an item: its lease, and what is written of the item, in one transaction.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../turns/operation.js";
import type { Op } from "../board/change.js";
import { keepClaim } from "../board/claims.js";
import { type Prepared, prepare, store } from "../board/local-change.js";
import { ReadyItems, stagesOf, whyNotReady } from "../board/ready.js";
import { allowedAfter, type Rules, refuseMove } from "../board/rules.js";
import { type ShownItem, shownItem } from "../board/shown-item.js";
import { findItem, type LoadedItem, loadedItem, loadNode, type Node } from "../board/tables.js";
import { isReady, itemKey, leaseOf, RULES_KEY, readyKey } from "../board/work-state.js";
import { acquire } from "../lease/acquire.js";
import { type Lease, waitKey } from "../lease/row.js";

/** Ready items that one step of a claim tries: somebody may have asked for the lease of one together with others. */
const TRIED_ITEMS = 16;
/** Items with one of several labels that one step looks at for the others: some 3 ms of work. */
const LOOKED_ITEMS = 1000;

type Params = Parsed<"pipeline.claim">;
type Claimed = Result<"pipeline.claim">;

/** What is done with an item that is ready; undefined if it is not to be had after all, null if it is passed over. */
type Take<T> = (
  item: LoadedItem,
  params: Params,
  node: Node,
  env: Env,
) => Operation<T | PawlError | undefined | null>;

export function* claim(params: Params, env: Env): Operation<Outcome<Claimed>> {
  return yield* findAndTake(params, take, env);
}

/**
 * For a claim whose lease a provider keeps: the item to ask for, or the answer if there is none.
 *
 * @param passed items whose leases others have, and the change that each was at then.
 */
export function* nextToClaim(
  params: Params,
  passed: ReadonlyMap<string, string>,
  env: Env,
): Operation<Outcome<Claimed | { storyId: string; changeId: string }>> {
  return yield* findAndTake(
    params,
    function* ({ row: { storyId, stamp } }) {
      return passed.get(storyId) === stamp.hash ? null : { storyId, changeId: stamp.hash };
    },
    env,
  );
}

/** Makes a claim of a lease that a provider has granted; undefined if the item is not ready any more. */
export function* claimUnder(
  storyId: string,
  lease: Lease,
  params: Params,
  env: Env,
): Operation<Claimed | PawlError | undefined> {
  const item = yield* findItem(storyId);
  const node = yield* loadNode(env);
  if (item === undefined || !isReady({ ...item.row, waits: item.work.waits, held: false }, node.rules)) {
    return undefined;
  }
  const refused = refuseMove(storyId, item.row.stage, params.toStage, node.rules);
  if (refused !== undefined) return refused;
  const prepared = yield* prepare(opOf(item, params), env, node);
  return prepared instanceof PawlError ? prepared : yield* keep(prepared, item, lease, params, env);
}

function* findAndTake<T>(params: Params, taking: Take<T>, env: Env): Operation<Outcome<T | Claimed>> {
  const { storyId } = params;
  const node = yield* loadNode(env);
  return storyId === undefined
    ? yield* takeNext(params, node, taking, env)
    : yield* takeNamed(storyId, params, node, taking, env);
}

function* takeNamed<T>(
  storyId: string,
  params: Params,
  node: Node,
  taking: Take<T>,
  env: Env,
): Operation<Outcome<T | Claimed>> {
  const item = yield* findItem(storyId);
  if (item === undefined || item.row.stage === null) return noSuchItem(storyId);
  const refused = refuseMove(storyId, item.row.stage, params.toStage, node.rules);
  if (refused !== undefined) return refused;
  const taken = item.work.ready ? yield* taking(item, params, node, env) : undefined;
  if (taken !== undefined && taken !== null) return taken;
  if (env.mayWait) return new Wait([itemKey(storyId), RULES_KEY, waitKey(leaseOf(storyId))]);
  const reason = yield* whyNotReady(item, node.rules, env);
  return { item: null, reason: reason ?? `The lease item/${storyId} is kept for somebody who waits for it.` };
}

export function noSuchItem(storyId: string): PawlError {
  return refuse("not_found", `There is no item ${storyId}. Create it with pipeline.write.`, { what: "item" });
}

function* takeNext<T>(
  params: Params,
  node: Node,
  taking: Take<T>,
  env: Env,
): Operation<Outcome<T | Claimed>> {
  const { labels = [], toStage } = params;
  const { rules } = node;
  const from = stagesOf(params.stages, rules);
  const stages = from.filter((stage) => mayFollow(stage, toStage, rules));
  if (from.length > 0 && stages.length === 0) {
    return refuseMove("An item", from[0] as string, toStage, rules) as PawlError;
  }
  const ready = new ReadyItems({ stages, labels });
  const taken = yield* takeFrom(ready, { params, from, node, taking }, env);
  if (taken !== undefined) return taken;
  if (env.mayWait) {
    const sort = JSON.stringify([params.stages, labels, toStage]);
    // By other rules work is taken from other stages, for each that waits.
    const isAlone = env.woken === RULES_KEY;
    return new Wait([RULES_KEY, ...stages.map(readyKey)], sort, { isAlone, keysChange: true });
  }
  return { item: null, reason: nothingReady(params, from) };
}

/**
 * Takes the first item that can be had; undefined if there is none. A claim that does not wait goes on in steps until
 * it has seen all; one that waits looks at those of one step each time that it is tried.
 */
function* takeFrom<T>(
  ready: ReadyItems,
  search: { params: Params; from: readonly string[]; node: Node; taking: Take<T> },
  env: Env,
): Operation<Outcome<T | Claimed> | undefined> {
  const { params, from, node, taking } = search;
  const items = ready.rest();
  const until = items.looked + LOOKED_ITEMS;
  for (let tried = 0; tried < TRIED_ITEMS && items.looked < until; ) {
    const row = yield* items.next(until);
    if (row === undefined && items.looked < until) return undefined;
    if (row === undefined) break;
    const taken = yield* taking(loadedItem(row), params, node, env);
    if (taken === undefined) tried += 1;
    else if (taken !== null) return taken;
  }
  if (params.waitMs > 0 || !env.mayGoOn) return undefined;
  return new Unfinished(function* (later) {
    const taken = yield* takeFrom(items, { ...search, node: yield* loadNode(later) }, later);
    return taken ?? { item: null, reason: nothingReady(params, from) };
  });
}

function mayFollow(stage: string, to: string | undefined, rules: Rules): boolean {
  if (to === undefined || to === stage) return true;
  return allowedAfter(stage, rules)?.includes(to) ?? true;
}

function nothingReady({ stages, labels = [] }: Params, from: readonly string[]): string {
  if (from.length === 0) {
    const named = stages === undefined ? "No stage is" : `None of ${stages.join(", ")} is`;
    return `${named} one that work is taken from; pipeline.configure says which are.`;
  }
  const having = labels.length === 0 ? "" : ` and has ${labels.join(", ")}`;
  return `No item of ${from.join(", ")} is ready${having}.`;
}

/** Gives the item to the caller; undefined if its lease is not to be had. */
function* take(
  item: LoadedItem,
  params: Params,
  node: Node,
  env: Env,
): Operation<Claimed | PawlError | undefined> {
  const { agent, ttlMs, releaseOn, graceMs } = params;
  const name = leaseOf(item.row.storyId);
  const prepared = yield* prepare(opOf(item, params), env, node);
  if (prepared instanceof PawlError) return prepared;
  const asked = { name, owner: agent, mode: "exclusive", ttlMs, releaseOn, graceMs, waitMs: 0 } as const;
  const granted = yield* acquire(asked, { ...env, mayWait: false });
  if (granted instanceof PawlError) return granted.kind === "lease_held" ? undefined : granted;
  return yield* keep(prepared, item, (granted as { lease: Lease }).lease, params, env);
}

function opOf({ row: { storyId, generation } }: LoadedItem, { agent, toStage }: Params): Op {
  const set = new Map([["agent", JSON.stringify(agent)]]);
  if (toStage !== undefined) set.set("stage", JSON.stringify(toStage));
  return { storyId, generation, set, add: new Map() };
}

/** Writes of an item whose lease is granted that somebody works on it. */
function* keep(
  prepared: Prepared,
  item: LoadedItem,
  lease: Lease,
  { agent, toStage }: Params,
  env: Env,
): Operation<Claimed> {
  const held = { ...item, work: { ...item.work, held: true, ready: false } };
  const claimed = yield* store(prepared, held, env, { kind: "claimed", by: agent });
  yield* keepClaim(lease.fencingToken, agent, item.row.stage as string, claimed, toStage !== undefined);
  return { item: (yield* shownItem(claimed, env)) as ShownItem, lease };
}
