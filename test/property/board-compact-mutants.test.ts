// The rules of compaction and repair with one thing wrong at a time, to see that the usual runs of the model find it,
// with PAWL_TORTURE=1. Without, each of these things is only looked for in the rules.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const BOARD = "daemon/dist/domain/board";
const ROOT = join(import.meta.dirname, "../..");
const CONFIG = join(import.meta.dirname, "mutant.config.ts");
const TESTS = "test/property/board-compact.test.ts";

/** By the rule that each breaks: a file, a text in it, and what stands there instead. */
const MUTANTS: Readonly<Record<string, readonly [file: string, text: string, by: string]>> = {
  "a tombstone stays": [
    "compact.js",
    "if (row.stamp.hash === stampOf(change).hash)",
    "if (row.generation % 2 === 1 && row.stamp.hash === stampOf(change).hash)",
  ],
  "an increment stays": [
    "compact.js",
    "yield* one(selectIncrement, { storyId, field, n })) !== undefined",
    "yield* one(selectIncrement, { storyId, field, n })) === null",
  ],
  "a note stays": ["compact.js", "if (noteOfField(field, value) !== undefined)", "if (false)"],
  "a cell stays": [
    "compact.js",
    "yield* one(selectCell, { storyId, field }))?.n",
    "yield* one(selectCell, { storyId, field }))?.m",
  ],
  "a column stays": ["compact.js", "isColumn(field) ? setBy[field]", "isColumn(field) ? undefined"],
  "what is here of a cut stays as it is": [
    "take-cut.js",
    "cut.changes.subarray(known.count * ENTRY_BYTES)",
    "cut.changes",
  ],
  "changes that were taken away are known": ["tables.js", "if (cut?.id === id)", "if (cut?.id === null)"],
  "cuts are given in the order of their logs": [
    "sync.js",
    "sort((a, b) => a.seq - b.seq)",
    "sort((a, b) => b.seq - a.seq)",
  ],
  "what a peer has is not given again": [
    "repair.js",
    "...peers.map(({ places }) => places.get(branch.branch) ?? 0)",
    "0",
  ],
  "notes go along with their changes": [
    "repair.js",
    "yield* run(moveNotes,",
    "if (false) yield* run(moveNotes,",
  ],
  "repair takes the time as it is": ["repair.js", "yield* latestTime(emptied)", "node.clock"],
};

const torture = process.env.PAWL_TORTURE === "1";
const mutants = Object.entries(MUTANTS);

test.each(mutants)("the rules say that %s", (_, [file, text]) => {
  const rules = readFileSync(join(ROOT, BOARD, file), "utf8");
  expect(rules.split(text).length - 1).toBe(1);
});

test.skipIf(!torture).each(mutants)(
  "the model finds it out where it is wrong that %s",
  async (_, [file, text, by]) => {
    const child = spawn("npx", ["vitest", "run", "--bail=1", "--config", CONFIG], {
      cwd: ROOT,
      env: {
        ...process.env,
        PAWL_MUTANT: JSON.stringify({ file: `${BOARD}/${file}`, text, by, tests: TESTS }),
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
