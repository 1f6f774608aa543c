// The rules of queues with one thing wrong at a time, to see that the usual runs of the model find it, with
// PAWL_TORTURE=1. Without, each of these things is only looked for in the rules.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const QUEUE = "daemon/dist/domain/queue";
const SOURCES = "daemon/domain/queue";
const ROOT = join(import.meta.dirname, "../..");
const CONFIG = join(import.meta.dirname, "mutant.config.ts");

/** By the rule that each breaks: a file, a text in it, and what stands there instead. */
const MUTANTS: Readonly<Record<string, readonly [file: string, text: string, by: string]>> = {
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
  "a follower takes the sourceKey": ["followers.js", "yield* run(giveKeyUp, { seq });", ""],
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
    "yield* run(endProgress, { seq: row.enqueue_seq });",
    "",
  ],
  "a lease that ends counts an attempt": ["claims-under-lease.js", "counts: !isReleased", "counts: false"],
};

const torture = process.env.PAWL_TORTURE === "1";
const mutants = Object.entries(MUTANTS);

test.each(mutants)("the rules say that %s", (_, [file, text]) => {
  // A build leaves what it made of a file that has another name since.
  expect(existsSync(join(ROOT, SOURCES, file.replace(/\.js$/, ".ts"))), file).toBe(true);
  const rules = readFileSync(join(ROOT, QUEUE, file), "utf8");
  expect(rules.split(text).length - 1).toBe(1);
});

test.skipIf(!torture).each(mutants)(
  "the model finds it out where it is wrong that %s",
  async (_, [file, text, by]) => {
    const child = spawn("npx", ["vitest", "run", "--bail=1", "--config", CONFIG], {
      cwd: ROOT,
      env: {
        ...process.env,
        PAWL_MUTANT: JSON.stringify({ file: `${QUEUE}/${file}`, text, by }),
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (chunk) => (output += chunk));
    const [code] = await once(child, "exit");
    expect(output).toMatch(/Property failed after \d+ tests/);
    expect(output).not.toContain("times in");
    expect(code).toBe(1);
  },
  600_000,
);
