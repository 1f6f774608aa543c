// Pipelined requests of several connections, while the daemon is killed and stopped and its disk fails: is there an
// order in which all that was answered can have happened (see search.ts)? PAWL_TORTURE=1 runs 200 seeds instead of 1;
// PAWL_SEED begins with another one, PAWL_SEEDS runs so many.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";
import { sized } from "../long-form.js";
import { Checker } from "./check.js";
import { FailingIo, noCompiler } from "./failing-io.js";
import { MUTANTS } from "./mutants.js";
import { runHistory } from "./run.js";

const FIRST_SEED = Number(process.env.PAWL_SEED ?? 1);
const SEEDS = Number(process.env.PAWL_SEEDS ?? sized(200, 1));
/** The first seeds are made wrong, too, in each way that they have an answer for; which the checker has to find. */
const MADE_WRONG = 5;
const MOST_OF_ONE_SEED_MS = 60_000;

if (noCompiler !== undefined) {
  console.warn(
    `The history of a daemon whose disk fails is not tested: there is no C compiler (${noCompiler}).`,
  );
}

test.skipIf(noCompiler !== undefined)(
  `${SEEDS} seeds from ${FIRST_SEED} on: everything that was answered can be explained`,
  async () => {
    const directory = privateDirectory();
    const io = new FailingIo(directory);
    const total: Record<string, number> = { seeds: 0, violations: 0 };
    const findings: string[] = [];
    const mutants = new Map(Object.keys(MUTANTS).map((name) => [name, 0]));
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed += 1) {
      const place = join(directory, `seed-${seed}`);
      mkdirSync(place);
      const run = await runHistory(seed, place, io);
      rmSync(place, { recursive: true });
      for (const [name, mutant] of seed < FIRST_SEED + MADE_WRONG ? Object.entries(MUTANTS) : []) {
        const wrong = mutant(run.operations);
        if (wrong === undefined) continue;
        mutants.set(name, (mutants.get(name) as number) + 1);
        expect(new Checker(run.connections).check(wrong), `seed ${seed}: ${name}`).not.toEqual([]);
      }
      for (const [name, count] of Object.entries(run.counts)) total[name] = (total[name] ?? 0) + count;
      total.seeds = (total.seeds as number) + 1;
      total.violations = (total.violations as number) + run.findings.length;
      for (const finding of run.findings) {
        findings.push(`seed ${seed}: ${finding}`);
        console.error(findings.at(-1));
      }
    }
    io.close();
    console.log(
      Object.entries(total)
        .map(([name, count]) => `${name}: ${count}`)
        .join(", "),
    );
    expect(findings).toEqual([]);
    expect(total.kills).toBeGreaterThan(0);
    // A short history may lack an answer of some kind.
    if (SEEDS >= MADE_WRONG)
      for (const [name, count] of mutants) expect([name, count > 0]).toEqual([name, true]);
  },
  (1 + SEEDS) * MOST_OF_ONE_SEED_MS,
);
