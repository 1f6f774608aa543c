import { PawlError } from "@pawl/protocol/errors";
import { describe, expect, test } from "vitest";
import type { Change, Op } from "../../daemon/dist/domain/board/change.js";
import { dependencyProblems } from "../../daemon/dist/domain/board/dependencies.js";
import { type Item, type ItemRow, itemOf, merge, type Stored } from "../../daemon/dist/domain/board/merge.js";
import { describeOp, type ItemWrite, planDelete, planWrite } from "../../daemon/dist/domain/board/write.js";
import { Author } from "../property/board-author.js";
import { BoardNode } from "../property/board-node.js";

// The rules of pipeline.md one by one, by example; what they come to together is in test/property.

const NOW = 1_000_000;
const AUTHORS = [new Author(0), new Author(1)] as const;

/** Two nodes that know of each other's item A-1, and what a third sees of both in either order. */
class Pair {
  readonly one = new BoardNode(AUTHORS[0], AUTHORS);
  readonly two = new BoardNode(AUTHORS[1], AUTHORS);

  static withItem(fields: Partial<ItemWrite> = {}): Pair {
    const pair = new Pair();
    write(pair.one, { storyId: "A-1", stage: "1_backlog", ...fields }, 1000);
    pair.meet();
    return pair;
  }

  /** Both take in what the other has; gives the item that both then have. */
  meet(): Item | null {
    const changes = [...this.one.log.values(), ...this.two.log.values()];
    for (const node of [this.one, this.two]) {
      for (const change of changes) expect(node.take(change, NOW)).not.toBeInstanceOf(PawlError);
    }
    expect(this.one.tables()).toEqual(this.two.tables());
    return this.one.item("A-1");
  }
}

function write(node: BoardNode, params: ItemWrite, now: number): Change {
  const change = node.write(params, now);
  if (change === undefined || change instanceof PawlError) throw change ?? new Error("nothing was written");
  return change;
}

describe("concurrent writes", () => {
  test("of different fields both stay", () => {
    const pair = Pair.withItem();
    write(pair.one, { storyId: "A-1", name: "Sign in" }, 1001);
    write(pair.two, { storyId: "A-1", agent: "worker 3" }, 1002);
    expect(pair.meet()).toMatchObject({
      name: "Sign in",
      agent: "worker 3",
      stage: "1_backlog",
      updatedAt: 1002,
    });
  });

  test("of one field: the later wins", () => {
    const pair = Pair.withItem();
    write(pair.one, { storyId: "A-1", stage: "2_current" }, 2000);
    write(pair.two, { storyId: "A-1", stage: "3_qa" }, 1999);
    expect(pair.meet()).toMatchObject({ stage: "2_current", updatedBy: pair.one.author.id });
  });

  test("of one field at one time: the greater author wins", () => {
    const pair = Pair.withItem();
    const [lesser, greater] = [pair.one, pair.two].sort((a, b) => (a.author.id < b.author.id ? -1 : 1));
    write(greater as BoardNode, { storyId: "A-1", stage: "2_current" }, 2000);
    write(lesser as BoardNode, { storyId: "A-1", stage: "3_qa" }, 2000);
    expect(pair.meet()).toMatchObject({ stage: "2_current" });
  });

  test("a note stays behind a newer write of something else", () => {
    const pair = Pair.withItem();
    write(pair.one, { storyId: "A-1", note: "seen it" }, 1001);
    write(pair.two, { storyId: "A-1", name: "Sign in" }, 1002);
    expect(pair.meet()).toMatchObject({ name: "Sign in", notes: 1 });
  });

  test("that create an item make one item", () => {
    const pair = new Pair();
    write(pair.one, { storyId: "A-1", stage: "1_backlog", name: "Sign in" }, 1000);
    write(pair.two, { storyId: "A-1", stage: "2_current", agent: "worker 3" }, 2000);
    expect(pair.meet()).toMatchObject({ stage: "2_current", name: "Sign in", agent: "worker 3" });
    expect(pair.one.items.size).toBe(1);
  });
});

describe("a delete", () => {
  test("beats writes made at the same time, also later ones", () => {
    const pair = Pair.withItem();
    pair.one.delete("A-1", 1001);
    write(pair.two, { storyId: "A-1", stage: "2_current", retryCountDelta: 1 }, 5000);
    expect(pair.meet()).toBeNull();
  });

  test("is beaten by an explicit re-creation, also an earlier one, which begins anew", () => {
    const pair = Pair.withItem({ name: "Sign in", retryCount: 3, dependsOn: ["A-2"], blocked: true });
    pair.one.delete("A-1", 9000);
    pair.meet();
    write(pair.two, { storyId: "A-1", stage: "2_current" }, 1);
    pair.one.delete("A-1", 9001);
    expect(pair.meet()).toMatchObject({
      stage: "2_current",
      name: null,
      retryCount: 0,
      dependsOn: [],
      blocked: false,
    });
  });

  test("of a re-created item is a delete again", () => {
    const pair = Pair.withItem();
    pair.one.delete("A-1", 1001);
    write(pair.one, { storyId: "A-1", stage: "1_backlog" }, 1002);
    pair.meet();
    pair.two.delete("A-1", 1003);
    expect(pair.meet()).toBeNull();
    expect(pair.one.delete("A-1", 1004)).toBeUndefined();
  });

  test("on both nodes is one", () => {
    const pair = Pair.withItem();
    pair.one.delete("A-1", 1001);
    pair.two.delete("A-1", 1002);
    expect(pair.meet()).toBeNull();
    write(pair.one, { storyId: "A-1", stage: "3_qa" }, 1003);
    expect(pair.meet()).toMatchObject({ stage: "3_qa" });
  });
});

describe("the retry count", () => {
  test("counts all concurrent increments", () => {
    const pair = Pair.withItem({ retryCount: 10 });
    write(pair.one, { storyId: "A-1", retryCountDelta: 1 }, 2000);
    write(pair.one, { storyId: "A-1", retryCountDelta: 1 }, 2000);
    write(pair.two, { storyId: "A-1", retryCountDelta: 5 }, 1999);
    write(pair.two, { storyId: "A-1", retryCountDelta: -2 }, 2001);
    expect(pair.meet()).toMatchObject({ retryCount: 15 });
  });

  test("is set anew over older increments, and newer ones still count", () => {
    const pair = Pair.withItem();
    write(pair.one, { storyId: "A-1", retryCountDelta: 100 }, 2000);
    write(pair.one, { storyId: "A-1", retryCountDelta: 1 }, 4000);
    write(pair.two, { storyId: "A-1", retryCount: 7 }, 3000);
    expect(pair.meet()).toMatchObject({ retryCount: 8 });
    expect(pair.one.increments).toBe(1);
    write(pair.two, { storyId: "A-1", retryCount: 0 }, 5000);
    expect(pair.meet()).toMatchObject({ retryCount: 0 });
    expect(pair.one.increments).toBe(0);
  });

  test("is exact at the end of the safe integers, whatever the order", () => {
    const pair = Pair.withItem({ retryCount: Number.MAX_SAFE_INTEGER });
    write(pair.one, { storyId: "A-1", retryCountDelta: 1_000_000 }, 2000);
    expect(pair.one.item("A-1")?.retryCount).toBe(Number.MAX_SAFE_INTEGER);
    write(pair.two, { storyId: "A-1", retryCountDelta: -1_000_000 }, 2000);
    write(pair.two, { storyId: "A-1", retryCountDelta: -1 }, 2000);
    expect(pair.meet()).toMatchObject({ retryCount: Number.MAX_SAFE_INTEGER - 1 });
  });

  test("keeps nothing of before a delete", () => {
    const pair = Pair.withItem({ retryCount: 3 });
    write(pair.one, { storyId: "A-1", retryCountDelta: 1 }, 1001);
    pair.one.delete("A-1", 1002);
    write(pair.one, { storyId: "A-1", stage: "1_backlog", retryCountDelta: 2 }, 1003);
    write(pair.two, { storyId: "A-1", retryCountDelta: 50 }, 9000);
    expect(pair.meet()).toMatchObject({ retryCount: 2 });
  });
});

describe("dependencies", () => {
  test("are merged one by one", () => {
    const pair = Pair.withItem({ dependsOn: ["B", "C"] });
    write(pair.one, { storyId: "A-1", dependsOn: { add: ["D"], remove: ["B"] } }, 2000);
    write(pair.two, { storyId: "A-1", dependsOn: { add: ["E"] } }, 1999);
    expect(pair.meet()?.dependsOn).toEqual(["C", "D", "E"]);
  });

  test("given as a list replace those known, and not those added elsewhere meanwhile", () => {
    const pair = Pair.withItem({ dependsOn: ["B", "C"] });
    write(pair.one, { storyId: "A-1", dependsOn: ["C", "X"] }, 2000);
    write(pair.two, { storyId: "A-1", dependsOn: { add: ["E"] } }, 1999);
    expect(pair.meet()?.dependsOn).toEqual(["C", "E", "X"]);
    expect(pair.one.write({ storyId: "A-1", dependsOn: [] }, 3000)).not.toBeInstanceOf(PawlError);
    expect(pair.one.item("A-1")?.dependsOn).toEqual([]);
    expect(pair.one.write({ storyId: "A-1", dependsOn: [] }, 3000)).toBeUndefined();
  });

  test("that go round or nowhere are found when read", () => {
    const graph = new Map([
      ["A", ["B", "gone"]],
      ["B", ["C", "D"]],
      ["C", ["A", "C"]],
      ["D", ["B"]],
    ]);
    expect(dependencyProblems("A", graph)).toEqual({ missing: ["gone"], cycle: ["B", "C"] });
    expect(dependencyProblems("C", graph)).toEqual({ missing: [], cycle: [] });
    expect(dependencyProblems("D", graph)).toEqual({ missing: [], cycle: ["B"] });
    graph.set("C", []);
    expect(dependencyProblems("A", graph)).toEqual({ missing: ["gone"], cycle: null });
    expect(dependencyProblems("none", graph)).toEqual({ missing: [], cycle: null });
    const long = new Map(Array.from({ length: 100_000 }, (_, n) => [`${n}`, [`${(n + 1) % 100_000}`]]));
    expect(dependencyProblems("0", long).cycle).toHaveLength(99_999);
  });
});

describe("an item of which only a later change has come", () => {
  test("is not there until the one that created it comes, and then has both", () => {
    const pair = Pair.withItem({ name: "Sign in" });
    const change = write(pair.two, { storyId: "A-1", agent: "worker 3" }, 2000);
    const third = new BoardNode(new Author(2), AUTHORS);
    expect(third.take(change, NOW)).toBe("applied");
    expect(third.item("A-1")).toBeNull();
    expect(third.delete("A-1", NOW)).toBeUndefined();
    expect((third.write({ storyId: "A-1", name: "x" }, NOW) as PawlError).kind).toBe("invalid_params");
    for (const each of pair.one.log.values()) third.take(each, NOW);
    expect(third.item("A-1")).toMatchObject({ name: "Sign in", agent: "worker 3", stage: "1_backlog" });
  });
});

describe("a local write", () => {
  const stamp = { wall: 1, counter: 0, author: "a", hash: "b" };
  const rowOf = (op: Op, before?: Stored): ItemRow => merge(before, op, stamp)?.item as ItemRow;
  const plan = (row: ItemRow | undefined, params: Omit<ItemWrite, "storyId">, last: string | null = null) =>
    planWrite(row, { storyId: "A-1", ...params }, last);

  test("creates in the first generation, last in its stage, only what was given", () => {
    expect(plan(undefined, { stage: "1_backlog" }, "a4")).toEqual({
      storyId: "A-1",
      generation: 1,
      set: new Map([
        ["stage", '"1_backlog"'],
        ["rank", '"a5"'],
      ]),
      add: new Map(),
    });
    expect(plan(undefined, { stage: "1_backlog", rank: "Zz", name: null }, "a4")).toMatchObject({
      set: new Map([
        ["stage", '"1_backlog"'],
        ["name", "null"],
        ["rank", '"Zz"'],
      ]),
    });
  });

  test("creates with the rank of the last where there is no room behind it", () => {
    const last = "z".repeat(256);
    expect(plan(undefined, { stage: "1_backlog" }, last)).toMatchObject({
      set: new Map([
        ["stage", '"1_backlog"'],
        ["rank", JSON.stringify(last)],
      ]),
    });
  });

  test("of one that exists keeps its generation and sets only what was given", () => {
    const row = rowOf(plan(undefined, { stage: "1_backlog" }) as Op);
    expect(plan(row, { stage: "2_current", retryCountDelta: -0 })).toEqual({
      storyId: "A-1",
      generation: 1,
      set: new Map([["stage", '"2_current"']]),
      add: new Map([["retryCount", 0]]),
    });
    expect(plan(row, { retryCount: -0 })).toMatchObject({ set: new Map([["retryCount", "0"]]) });
  });

  test("needs a stage for what does not exist, naming it", () => {
    const deleted = rowOf({ storyId: "A-1", generation: 2, set: new Map(), add: new Map() });
    for (const row of [undefined, deleted]) {
      const refused = plan(row, { name: "x" }) as PawlError;
      expect(refused.data).toMatchObject({ kind: "invalid_params", issues: [{ path: "stage" }] });
    }
    expect(plan(deleted, { stage: "1_backlog" })).toMatchObject({ generation: 3 });
  });

  test("refuses a rank that is none, naming it", () => {
    const refused = plan(undefined, { stage: "1_backlog", rank: "a00" }) as PawlError;
    expect(refused.data).toMatchObject({ kind: "invalid_params", issues: [{ path: "rank" }] });
  });

  test("ends where generations can no longer be counted", () => {
    const generation = Number.MAX_SAFE_INTEGER;
    const last = rowOf({ storyId: "A-1", generation, set: new Map([["stage", '"x"']]), add: new Map() });
    expect(plan(last, { name: "x" })).toMatchObject({ generation });
    expect((planDelete(last) as PawlError).kind).toBe("exhausted");
    const before = rowOf({ storyId: "A-1", generation: generation - 1, set: new Map(), add: new Map() });
    expect(plan(before, { stage: "x" })).toMatchObject({ generation });
  });

  test("that loses everywhere changes no row", () => {
    const created: Op = { storyId: "A-1", generation: 3, set: new Map([["stage", '"x"']]), add: new Map() };
    const merged = merge(undefined, created, stamp);
    if (merged === undefined) throw new Error("the first op changes nothing");
    const stored = {
      item: merged.item,
      cells: new Map(merged.cells.map((cell) => [cell.field, cell])),
      increments: [],
    };
    const older = { ...stamp, wall: 0 };
    expect(merge(stored, created, older)).toBeUndefined();
    expect(
      merge(stored, { ...created, generation: 2, set: new Map() }, { ...stamp, wall: 9 }),
    ).toBeUndefined();
    expect(itemOf(merged.item)).toMatchObject({ stage: "x", rank: "a0" });
  });
});

test("history says what an op did", () => {
  const set = new Map([
    ["stage", '"2_current"'],
    ["dependsOn/B", "true"],
    ["dependsOn/C", "false"],
    ["__proto__", "1"],
  ]);
  const add = new Map([
    ["retryCount", 2],
    ["constructor", 1],
  ]);
  expect(describeOp({ storyId: "A-1", generation: 1, set, add })).toEqual({
    set: { stage: "2_current", dependsOn: { add: ["B"], remove: ["C"] } },
    delta: { retryCount: 2 },
  });
  expect(describeOp({ storyId: "A-1", generation: 2, set: new Map(), add: new Map() })).toEqual({
    set: {},
    delta: {},
    deleted: true,
  });
});
