// The rules of queues with one thing wrong at a time, to see that the usual runs of the model find it, with
// PAWL_TORTURE=1. Without, each of these things is only looked for in the rules.
import { type Mutants, testMutants } from "./mutants.js";

const MUTANTS: Mutants = {
  "batches of a key keep their order under a strict one": [
    "lines.js",
    '(keyOrder === "strict") {',
    '(keyOrder === "loose") {',
  ],
  "higher priorities come first": [
    "queue-row.js",
    "ORDER BY b.lane, b.enqueue_seq",
    "ORDER BY b.enqueue_seq",
  ],
  "a key has so many slots": [
    "lines.js",
    "(yield* one(selectAnyClaimed, { queueId, key })) === undefined",
    "(yield* one(selectAnyClaimed, { queueId, key })) !== null",
  ],
  "a queue has so many slots": [
    "queue-row.js",
    "row.claims >= settings.maxClaimed",
    "row.claims > settings.maxClaimed",
  ],
  "a follower takes the sourceKey": ["followers.js", "yield* write(giveKeyUp, { seq });", ""],
  "a prefix offers what comes first": [
    "listing.js",
    "UNION ALL ${nextOffer(1)} ORDER BY lane, enqueue_seq LIMIT 1",
    "UNION ALL ${nextOffer(1)} ORDER BY lane DESC, enqueue_seq DESC LIMIT 1",
  ],
  "a queue is listed with what it offers now": [
    "queue-row.js",
    "if (kept.offersElse && kept.row.prefixes !== null)\n                yield* relist(kept, this.time);",
    "",
  ],
  "a claim is taken up again only as a whole": ["claim-held.js", "?.batches === size - 1", "!== undefined"],
  "named batches keep to a strict order": ["claim-named.js", "!== row.enqueue_seq)", "=== -1)"],
  "a batch waits for all of those that it names": ["flows.js", "if (now > 0)", "if (now > 1)"],
  "what waits for the success of one that fails is cancelled": [
    "flows.js",
    'outcome === ENDED_OTHERWISE && when === "success"',
    'outcome === ENDED_OTHERWISE && when === "always"',
  ],
  "what was cancelled comes back with what it waits for": [
    "flows.js",
    "waiting.cancel_cause === about.enqueue_seq && outcome === null",
    "waiting.cancel_cause === about.enqueue_seq && outcome === COMPLETED",
  ],
  "a grace to stop that is over counts no attempt": ["stop.js", "counts: false", "counts: true"],
  "a delivery begins without progress": [
    "claim.js",
    "yield* write(endProgress, { seq: row.enqueue_seq });",
    "",
  ],
  "a lease that ends counts an attempt": ["claims-under-lease.js", "counts: !isReleased", "counts: false"],
};

testMutants(MUTANTS, { folder: "queue", tests: "test/property/queue.test.ts" });
