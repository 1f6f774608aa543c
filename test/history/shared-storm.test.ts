// Several daemons on one PostgreSQL, with faults of each and of the server at random. PAWL_TORTURE=1 runs for ten
// minutes instead of some seconds; PAWL_MINUTES says for how long, PAWL_SEED with which faults.
import { expect, onTestFinished, test } from "vitest";
import { sized, TORTURE } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import { Checker } from "./check.js";
import { OCCURRENCE } from "./models/schedule.js";
import { SHARED_MUTANTS } from "./mutants.js";
import { runSharedStorm } from "./shared-storm.js";

const SEED = Number(process.env.PAWL_SEED ?? 1);
const MINUTE_MS = 60_000;
const DURATION_MS = process.env.PAWL_MINUTES
  ? Number(process.env.PAWL_MINUTES) * MINUTE_MS
  : sized(10 * MINUTE_MS, 3000);
/** Of all things, the share that may be asked for in too many ways at once to be followed. */
const MOST_UNDECIDED = 0.1;
/** What the load is about, and what schedules enqueue by themselves. */
const NOUNS = ["sequence", "queue", "schedule", "lease", "path", "deployment", "command", OCCURRENCE];
const ROUND_MS = TORTURE ? 20_000 : 3000;

test.skipIf(!HAS_POSTGRESQL)(
  `${DURATION_MS / 1000} s of faults: nothing that daemons share is lost, doubled or held by two`,
  async () => {
    const server = await PostgreSql.start(onTestFinished, { tcp: true });
    const { findings, faults, answered, counts, operations, recording } = await runSharedStorm(
      server,
      { seed: SEED, daemons: TORTURE ? 3 : 2, durationMs: DURATION_MS, roundMs: ROUND_MS },
      onTestFinished,
    );
    console.log({ ...counts, violations: findings.length, answered, faults });
    expect(findings).toEqual([]);
    expect(counts.operations).toBeGreaterThan(0);
    if (counts.rounds > 1)
      for (const noun of NOUNS) expect([noun, answered[noun]]).toEqual([noun, expect.any(Number)]);
    // One round alone has all that there was from its beginning on, and can be made wrong.
    for (const [name, mutant] of counts.rounds === 1 ? Object.entries(SHARED_MUTANTS) : []) {
      const wrong = mutant(operations);
      if (wrong !== undefined) expect(new Checker(recording).check(wrong), name).not.toEqual([]);
    }
    expect(counts.undecided).toBeLessThanOrEqual(counts.things * MOST_UNDECIDED);
  },
  2 * DURATION_MS + 5 * MINUTE_MS,
);
