// Rules of the daemon with one thing wrong at a time, to see that the runs of a model find it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { sized, TORTURE } from "../long-form.js";

const ROOT = join(import.meta.dirname, "../..");
const CONFIG = join(import.meta.dirname, "mutant.config.ts");

/**
 * A model draws so many times as much as usual, or until it finds something: what it is to find, the usual number of
 * runs may miss by chance, and it is run for some thirty mutants.
 */
const MOST_RUNS = 12;
const TIME_LIMIT_MS = 1_800_000;

/** By the rule that each breaks: a file as it is built, a text in it, and what stands there instead. */
export type Mutants = Readonly<Record<string, readonly [file: string, text: string, by: string]>>;

/**
 * Tests that each text is in the rules once, and with PAWL_TORTURE=1 that the model finds each of them wrong.
 *
 * @param folder of the rules, within the domain.
 * @param tests the file with the model.
 */
export function testMutants(mutants: Mutants, { folder, tests }: { folder: string; tests: string }): void {
  const each = Object.entries(mutants);
  const built = `daemon/dist/domain/${folder}`;

  test.each(each)("the rules say that %s", (_, [file, text]) => {
    // A build leaves what it made of a file that has another name since.
    const source = join(ROOT, "daemon/domain", folder, file.replace(/\.js$/, ".ts"));
    expect(existsSync(source), file).toBe(true);
    const rules = readFileSync(join(ROOT, built, file), "utf8");
    expect(rules.split(text).length - 1).toBe(1);
  });

  const step = Math.ceil(each.length / sized(each.length, 1));
  test.skipIf(!TORTURE).each(each.filter((_, index) => index % step === 0))(
    "the model finds it out where it is wrong that %s",
    async (_, [file, text, by]) => {
      const mutant = JSON.stringify({ file: `${built}/${file}`, text, by, tests });
      const child = spawn("npx", ["vitest", "run", "--bail=1", "--config", CONFIG], {
        cwd: ROOT,
        env: { ...process.env, PAWL_MUTANT: mutant, PAWL_TEST_RUNS: `${MOST_RUNS}` },
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
    TIME_LIMIT_MS,
  );
}
