// Claim: of one queue, of the first of several that has something, or of batches by their ids.
import type { Parsed } from "@pawl/protocol";
import type { Operation } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../turns/operation.js";
import { type Choice, type Claimed, choiceOf, claimGroup, claimQueue } from "./claim.js";
import { claimNamed } from "./claim-named.js";
import { nextToList, offerAfter } from "./listing.js";
import { listOffers, listQueue, queueOf } from "./queue-row.js";
import { queueOfWaitKey, waitKey } from "./row.js";

export function claim(params: Parsed<"queue.claim">, env: Env): Operation<Outcome<Claimed>> {
  if (params.queue !== undefined) return claimQueue(params.queue, params, env);
  if (params.queues !== undefined) return claimOneOf(entriesOf(params.queues), params, env);
  return claimNamed(params.batchIds as string[], params, env);
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
): Operation<Outcome<Claimed>> {
  // Nothing else of what it waits for has changed: that would wake it by itself.
  if (env.woken !== null) {
    const found = yield* choiceOf(queueOfWaitKey(env.woken), params, env);
    return found === undefined ? waitFor(entries, params) : yield* claimGroup(found, params, env);
  }
  for (const entry of entries) {
    if ("queue" in entry || !(yield* listMore(entry.prefix, env))) continue;
    return new Unfinished((later) => claimOneOf(entries, params, later));
  }
  let best: Choice | undefined;
  for (const entry of entries) {
    const choice =
      "queue" in entry
        ? yield* choiceOf(entry.queue, params, env)
        : yield* choiceUnder(entry.prefix, params, env);
    if (choice === undefined) continue;
    if (best === undefined || comesBefore(choice, best)) best = choice;
    if (params.order !== "oldest") break;
  }
  if (best !== undefined) return yield* claimGroup(best, params, env);
  return env.mayWait ? waitFor(entries, params) : { claim: null };
}

/** The first batch that may be claimed of all queues whose names begin so. */
function* choiceUnder(
  prefix: string,
  params: Parsed<"queue.claim">,
  env: Env,
): Operation<Choice | undefined> {
  yield* listOffers(env);
  const atCheckpoint = params.boundary === "active_turn_checkpoint";
  let offer = yield* offerAfter(prefix, undefined, atCheckpoint);
  // The first one can be claimed, but for a queue whose lines are being laid anew.
  while (offer !== undefined) {
    const { queue } = yield* queueOf(offer.queue_id, env);
    const choice = yield* choiceOf(queue, params, env);
    if (choice !== undefined) return choice;
    offer = yield* offerAfter(prefix, offer, atCheckpoint);
  }
  return undefined;
}

function comesBefore(one: Choice, other: Choice): boolean {
  const [a, b] = [one.found.head, other.found.head];
  return a.priority === b.priority ? a.enqueue_seq < b.enqueue_seq : a.priority > b.priority;
}

/** Lists queues under a prefix that is asked for the first time. Returns true if there are more, for a later turn. */
function* listMore(prefix: string, env: Env): Operation<boolean> {
  for (;;) {
    const queues = yield* nextToList(prefix);
    if (queues === undefined) return false;
    for (const queueId of queues) yield* listQueue(queueId, prefix, env);
    if (env.mayGoOn) return true;
  }
}

/** Each queue is waited for once, whether it is named or under a prefix, or both. */
function waitFor(entries: readonly Entry[], { boundary }: Parsed<"queue.claim">): Wait {
  const prefixes = new Set(entries.flatMap((entry) => ("queue" in entry ? [] : [entry.prefix])));
  const isUnder = (name: string): boolean =>
    [...prefixes].some((prefix) => prefix !== name && name.startsWith(prefix));
  const queues = new Set(entries.flatMap((entry) => ("queue" in entry ? [entry.queue] : [])));
  return new Wait(
    [...queues].filter((queue) => !prefixes.has(queue) && !isUnder(queue)).map(waitKey),
    boundary,
    { beginnings: [...prefixes].filter((prefix) => !isUnder(prefix)).map(waitKey) },
  );
}
