// Everything at once: load of all nouns, and the faults of operations.md at random. PAWL_TORTURE=1 runs for an hour
// instead of some seconds; PAWL_MINUTES says for how long, PAWL_SEED with which faults.
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { FailingIo, noCompiler } from "./failing-io.js";
import { faketime } from "./faults.js";
import { runStorm } from "./storm.js";

const SEED = Number(process.env.PAWL_SEED ?? 1);
const MINUTE_MS = 60_000;
const DURATION_MS = process.env.PAWL_MINUTES
  ? Number(process.env.PAWL_MINUTES) * MINUTE_MS
  : sized(60 * MINUTE_MS, 6000);
const LIFE_MS = TORTURE ? 15_000 : 2500;

if (noCompiler !== undefined) {
  console.warn(`The faults from outside are not tried at once: there is no C compiler (${noCompiler}).`);
}
if (faketime === undefined) {
  console.warn("The clock is not set: libfaketime is not installed (Debian: apt-get install faketime).");
}

test.skipIf(noCompiler !== undefined)(
  `${DURATION_MS / 1000} s of faults: nothing that was answered is lost, doubled or held by two`,
  async () => {
    const directory = privateDirectory();
    const io = new FailingIo(directory);
    const { findings, faults, ...counts } = await runStorm(SEED, directory, io, {
      durationMs: DURATION_MS,
      lifeMs: LIFE_MS,
    });
    io.close();
    console.log({ ...counts, violations: findings.length, faults });
    expect(findings).toEqual([]);
    expect(counts.operations).toBeGreaterThan(0);
  },
  DURATION_MS + 5 * MINUTE_MS,
);
