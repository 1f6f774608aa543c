// The rules of compaction and repair with one thing wrong at a time, to see that the usual runs of the model find it,
// with PAWL_TORTURE=1. Without, each of these things is only looked for in the rules.
import { type Mutants, testMutants } from "./mutants.js";

const MUTANTS: Mutants = {
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
  "what was taken away before may lie between": [
    "compact.js",
    "if (taken.length > 0 && row.seq !== at + 1)",
    "if (false)",
  ],
  "what is here of a cut stays as it is": [
    "take-cut.js",
    "cut.changes.subarray(known.count * ENTRY_BYTES)",
    "cut.changes",
  ],
  "a log of which cuts came is open": [
    "take-cut.js",
    "yield* run(widenOpen,",
    "if (false) yield* run(widenOpen,",
  ],
  "what nothing here has replaced is taken in, though it was cut elsewhere": [
    "sync.js",
    "if (place.isCut !== true ||",
    "if (true ||",
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

testMutants(MUTANTS, { folder: "board", tests: "test/property/board-compact.test.ts" });
