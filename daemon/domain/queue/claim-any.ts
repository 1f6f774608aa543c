// Claim: of one queue, of the first of several that has something, or of batches by their ids.
import type { Parsed } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../turns/operation.js";
import { type Claimed, choiceOf, claimGroup, claimQueue } from "./claim.js";
import { type HeldClaims, heldClaims, type Taking, takingBeside } from "./claim-held.js";
import { claimNamed } from "./claim-named.js";
import { remainingUnder } from "./claims-under-lease.js";
import { nextToList, offerAfter } from "./listing.js";
import { findQueue, listOffers, listQueue, queueOf } from "./queue-row.js";
import { queueOfWaitKey, waitKey } from "./row.js";

export function claim(params: Parsed<"queue.claim">, env: Env): Operation<Outcome<Claimed>> {
  if (params.held !== undefined || params.under !== undefined) return claimBeside(params, env);
  if (params.queue !== undefined) return claimQueue(params.queue, params, env);
  return claimAny(params, env);
}

/** A claim beside those that the caller has, or under a lease. */
function* claimBeside(params: Parsed<"queue.claim">, env: Env): Operation<Outcome<Claimed>> {
  const lease = params.under?.lease;
  const left = lease === undefined ? undefined : yield* remainingUnder(lease, env);
  if (left instanceof PawlError) return left;
  const held = params.held === undefined ? undefined : yield* heldClaims(params.held, env);
  return held instanceof PawlError ? held : yield* claimAny(params, env, held);
}

function claimAny(params: Parsed<"queue.claim">, env: Env, held?: HeldClaims): Operation<Outcome<Claimed>> {
  const { queue, queues = [], batchIds } = params;
  if (batchIds !== undefined) return claimNamed(batchIds, params, env, held);
  return claimOneOf(queue === undefined ? entriesOf(queues) : [{ queue }], params, env, held);
}

/** A queue, or all queues whose names begin so; a prefix ends in a slash. */
type Entry = { readonly queue: string } | { readonly prefix: string };

function entriesOf(queues: readonly string[]): Entry[] {
  return queues.map((name) => (name.endsWith("/*") ? { prefix: name.slice(0, -1) } : { queue: name }));
}

/** Of several queues: from the first entry that has something, or what comes first over all. */
function* claimOneOf(
  entries: readonly Entry[],
  params: Parsed<"queue.claim">,
  env: Env,
  held: HeldClaims | undefined,
): Operation<Outcome<Claimed>> {
  if (env.woken !== null) {
    const woken = yield* takingOf(queueOfWaitKey(env.woken), params, env, held);
    // Whatever else of what it waits for changes wakes it by itself.
    if (woken === undefined) return waitFor(entries, params, held);
    // One call may have added to several of its queues. Of those in a shared place only this one is locked.
    const first = env.reach === undefined ? yield* takingOfAny(entries, params, env, held) : undefined;
    const isOthers = first !== undefined && env.waitsBefore(waitKey(first.queue));
    return yield* (first === undefined || isOthers ? woken : first).take();
  }
  for (const entry of entries) {
    if ("queue" in entry || !(yield* listMore(entry.prefix, env))) continue;
    return new Unfinished((later) => claim(params, later));
  }
  const first = yield* takingOfAny(entries, params, env, held);
  if (first !== undefined) return yield* first.take();
  return env.mayWait ? waitFor(entries, params, held) : { claim: null };
}

function* takingOfAny(
  entries: readonly Entry[],
  params: Parsed<"queue.claim">,
  env: Env,
  held: HeldClaims | undefined,
): Operation<Taking | undefined> {
  let first: Taking | undefined;
  for (const entry of entries) {
    const taking =
      "queue" in entry
        ? yield* takingOf(entry.queue, params, env, held)
        : yield* takingUnder(entry.prefix, params, env, held);
    first = firstOf(first, taking);
    if (first !== undefined && params.order !== "oldest") break;
  }
  return first;
}

function* takingOf(
  queue: string,
  params: Parsed<"queue.claim">,
  env: Env,
  held: HeldClaims | undefined,
): Operation<Taking | undefined> {
  const queueId = held === undefined ? undefined : (yield* findQueue(queue, env))?.queue_id;
  if (held !== undefined && queueId !== undefined && held.queueIds.includes(queueId)) {
    return yield* takingBeside(queue, queueId, held, params, env);
  }
  const choice = yield* choiceOf(queue, params, env);
  if (choice === undefined) return undefined;
  const { priority, enqueue_seq } = choice.found.head;
  return { queue, priority, enqueue_seq, take: () => claimGroup(choice, params, env) };
}

/** The first batch that may be claimed of all queues whose names begin so. */
function* takingUnder(
  prefix: string,
  params: Parsed<"queue.claim">,
  env: Env,
  held: HeldClaims | undefined,
): Operation<Taking | undefined> {
  yield* listOffers(env);
  const atCheckpoint = params.boundary === "active_turn_checkpoint";
  const ownQueues = held?.queueIds ?? [];
  let first: Taking | undefined;
  // The first one can be claimed, but for a queue whose lines are being laid anew.
  for (let offer = yield* offerAfter(prefix, undefined, atCheckpoint); offer !== undefined; ) {
    if (!ownQueues.includes(offer.queue_id)) {
      const { queue } = yield* queueOf(offer.queue_id, env);
      first = yield* takingOf(queue, params, env, undefined);
      if (first !== undefined) break;
    }
    offer = yield* offerAfter(prefix, offer, atCheckpoint);
  }
  // For this caller these may offer something else than they are listed with.
  for (const queueId of ownQueues) {
    const { queue } = yield* queueOf(queueId, env);
    if (queue.startsWith(prefix)) first = firstOf(first, yield* takingOf(queue, params, env, held));
  }
  return first;
}

function firstOf(one: Taking | undefined, other: Taking | undefined): Taking | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  const isFirst =
    one.priority === other.priority ? one.enqueue_seq <= other.enqueue_seq : one.priority > other.priority;
  return isFirst ? one : other;
}

/** Lists queues under a prefix that is asked for the first time. Returns true if there are more, for a later turn. */
function* listMore(prefix: string, env: Env): Operation<boolean> {
  for (;;) {
    const queues = yield* nextToList(prefix, env);
    if (queues === undefined) return false;
    for (const queueId of queues) yield* listQueue(queueId, prefix, env);
    if (env.mayGoOn) return true;
  }
}

/** Each queue is waited for once, whether it is named or under a prefix, or both. */
function waitFor(
  entries: readonly Entry[],
  { boundary }: Parsed<"queue.claim">,
  held: HeldClaims | undefined,
): Wait {
  const prefixes = new Set(entries.flatMap((entry) => ("queue" in entry ? [] : [entry.prefix])));
  const isUnder = (name: string): boolean =>
    [...prefixes].some((prefix) => prefix !== name && name.startsWith(prefix));
  const queues = new Set(entries.flatMap((entry) => ("queue" in entry ? [entry.queue] : [])));
  return new Wait(
    [...queues].filter((queue) => !prefixes.has(queue) && !isUnder(queue)).map(waitKey),
    boundary,
    {
      beginnings: [...prefixes].filter((prefix) => !isUnder(prefix)).map(waitKey),
      isAlone: held?.hasPassed === true,
    },
  );
}
