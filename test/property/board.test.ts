import { isUtf8 } from "node:buffer";
import { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Item } from "../../daemon/dist/domain/board/merge.js";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import type { ItemWrite } from "../../daemon/dist/domain/board/write.js";
import { sized } from "../long-form.js";
import { Author } from "./board-author.js";
import { AUTHORS, changeSet, type Delivery, delivery, ordered, text } from "./board-changes.js";
import { type Model, model } from "./board-model.js";
import { mutant } from "./board-mutant.js";
import { BoardNode, RULES, type Rules } from "./board-node.js";

/** Multiplies the runs of every property. */
const RUNS = Number(process.env.PAWL_TEST_RUNS ?? sized(20, 1));
const TIMEOUT_MS = 60_000 * RUNS;

/** Only takes in what others wrote. */
const READER = new Author(99);
/** Later than any time in a generated change. */
const NOW = 1_000_000;

/** Offers changes until all are in, those whose predecessor is missing again and again. */
function deliver(node: BoardNode, changes: readonly SignedChange[]): { forks: number; duplicates: number } {
  const counts = { forks: 0, duplicates: 0 };
  let waiting = [...changes];
  while (waiting.length > 0) {
    const refused: SignedChange[] = [];
    for (const change of waiting) {
      const taken = node.take(change, NOW);
      if (taken === "forked") counts.forks += 1;
      if (taken === "duplicate") counts.duplicates += 1;
      if (!(taken instanceof PawlError)) continue;
      if (taken.kind !== "missing_prev") throw taken;
      refused.push(change);
    }
    if (refused.length === waiting.length) throw new Error("changes are missing that were delivered");
    waiting = refused;
  }
  return counts;
}

function reader(rules: Rules = RULES): BoardNode {
  return new BoardNode(READER, AUTHORS, rules);
}

/** That what a node shows and keeps is what the set of changes that it holds means. */
function expectModel(node: BoardNode): Model {
  const meant = model([...node.log.values()].map(({ body }) => body));
  expect(withoutIds(node)).toEqual(meant.items);
  expect(node.heads()).toEqual(meant.heads);
  const kept = [...node.fields()].map(
    ([id, cells]) => [id, new Map([...cells].map(([field, json]) => [field, JSON.parse(json)]))] as const,
  );
  expect(new Map(kept)).toEqual(meant.fields);
  for (const [storyId, notes] of meant.notes) expect(node.notes(storyId)).toEqual(notes);
  return meant;
}

function withoutIds(node: BoardNode): Map<string, unknown> {
  return new Map([...node.items].map(([id, { storyId, ...rest }]) => [id, id === storyId ? rest : storyId]));
}

const UNSEEN = {
  forks: 0,
  duplicates: 0,
  deletes: 0,
  recreated: 0,
  increments: 0,
  ties: 0,
  hidden: 0,
  labels: 0,
  own: 0,
  notes: 0,
};

/** Delivers a set of changes in several orders and checks that all come to what the model says. */
function converge(
  changes: readonly SignedChange[],
  deliveries: readonly Delivery[],
  rules: Rules,
  seen: typeof UNSEEN,
): void {
  const first = reader(rules);
  deliver(first, changes);
  const meant = expectModel(first);
  const tables = JSON.stringify(first.tables());
  for (const times of deliveries) {
    const node = reader(rules);
    const { forks, duplicates } = deliver(node, ordered(changes, times));
    if (JSON.stringify(node.tables()) !== tables) expect(node.tables()).toEqual(first.tables());
    expect(node.clock).toEqual(first.clock);
    expect(forks).toBe(meant.forks);
    seen.forks += forks;
    seen.duplicates += duplicates;
  }
  const bodies = changes.map(({ body }) => JSON.parse(body));
  const ops = bodies.flatMap((body) => body.ops);
  seen.deletes += ops.filter(({ g }) => g % 2 === 0).length;
  seen.recreated += ops.filter(({ g }) => g === 3).length;
  seen.increments += first.increments;
  seen.ties += bodies.length - new Set(bodies.map(({ hlc }) => String(hlc))).size;
  seen.hidden += first.fields().size - first.items.size;
  for (const { labels, fields, notes } of meant.items.values()) {
    seen.labels += labels.length;
    seen.own += Object.keys(fields).length;
    seen.notes += Math.max(0, notes - 1);
  }
}

const converging = (rules: Rules, seen: typeof UNSEEN) =>
  fc.property(changeSet, fc.array(delivery, { minLength: 2, maxLength: 2 }), (changes, deliveries) =>
    converge(changes, deliveries, rules, seen),
  );

describe("a set of changes", { timeout: TIMEOUT_MS }, () => {
  test("means the same in any order, with duplicates and retries: what the model says", () => {
    const seen = { ...UNSEEN };
    fc.assert(converging(RULES, seen), { numRuns: 80 * RUNS });
    // Otherwise the property would say less than it seems to.
    for (const count of Object.values(seen)) expect(count, JSON.stringify(seen)).toBeGreaterThan(0);
  });

  test("says the same when it is replayed from the log", () => {
    fc.assert(
      fc.property(changeSet, (changes) => {
        const node = reader();
        deliver(node, changes);
        const rebuilt = reader();
        deliver(rebuilt, [...node.log.values()]);
        expect(rebuilt.tables()).toEqual(node.tables());
      }),
      { numRuns: 30 * RUNS },
    );
  });
});

describe("a flipped bit", { timeout: TIMEOUT_MS }, () => {
  const [author] = AUTHORS as [Author];

  test("is refused wherever it is in a change, and changes nothing", () => {
    const change = author.change({
      ops: [{ i: "A-1", g: 1, s: { stage: "1_backlog" }, c: { retryCount: 1 } }],
    });
    const node = reader();
    const empty = JSON.stringify(node.tables());
    for (const part of ["body", "signature"] as const) {
      for (const flipped of flips(change[part])) {
        expect(node.take({ ...change, [part]: flipped }, NOW), flipped).toBeInstanceOf(PawlError);
      }
    }
    expect(JSON.stringify(node.tables())).toBe(empty);
    expect(node.clock).toEqual([0, 0]);
    expect(node.take(change, NOW)).toBe("applied");
    for (const flipped of flips(change.signature)) {
      expect(node.take({ ...change, signature: flipped }, NOW)).toBeInstanceOf(PawlError);
    }
  });

  test("is refused in any change of a set", () => {
    fc.assert(
      fc.property(changeSet, fc.nat(), fc.nat(), (changes, which, bit) => {
        const node = reader();
        const { body, signature } = changes[which % changes.length] as SignedChange;
        const before = JSON.stringify(node.tables());
        const flipped = flip(body, bit % (Buffer.byteLength(body) * 8)) ?? "";
        expect(node.take({ body: flipped, signature }, NOW)).toBeInstanceOf(PawlError);
        expect(JSON.stringify(node.tables())).toBe(before);
      }),
      { numRuns: 50 * RUNS },
    );
  });

  /** Every text that differs in one bit of its UTF-8. */
  function flips(value: string): string[] {
    const bits = Array.from({ length: Buffer.byteLength(value) * 8 }, (_, bit) => flip(value, bit));
    return bits.filter((flipped) => flipped !== undefined);
  }

  /** A text with one bit of its UTF-8 flipped; undefined if it no longer is any, as messages always are. */
  function flip(value: string, bit: number): string | undefined {
    const bytes = Buffer.from(value);
    bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
    return isUtf8(bytes) ? bytes.toString() : undefined;
  }
});

// Nodes that write, meet, and are restored from copies, with clocks that go where they like.

const node = fc.nat({ max: 2 });
const storyId = fc.constantFrom("A-1", "A-2");
const now = fc.integer({ min: 1_000, max: 1_040 });
const writeParams = fc.record(
  {
    stage: fc.constantFrom("1_backlog", "2_current"),
    name: fc.option(text),
    agent: fc.option(text),
    blocked: fc.boolean(),
    count: fc.oneof(
      fc.record({ retryCount: fc.integer({ min: -5, max: 5 }) }),
      fc.record({ retryCountDelta: fc.integer({ min: -5, max: 5 }) }),
    ),
    dependsOn: fc.oneof(
      fc.subarray(["A-1", "A-2", "A-3"]),
      fc.record({ add: fc.subarray(["A-1", "A-2"]), remove: fc.subarray(["A-3"]) }),
    ),
    rank: fc.constantFrom("a0", "a5"),
    labels: fc.oneof(
      fc.subarray(["x", "y", "z"]),
      fc.record({ add: fc.subarray(["x", "y"]), remove: fc.subarray(["z"]) }),
    ),
    fields: fc.dictionary(fc.constantFrom("priority", "type"), fc.constantFrom<unknown>(null, 1, "x", [{}]), {
      maxKeys: 2,
    }),
    note: fc.oneof(text, fc.record({ text, agent: fc.option(text) })),
  },
  { requiredKeys: [] },
);
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("write" as const), node, storyId, now, params: writeParams }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("delete" as const), node, storyId, now }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("sync" as const),
      from: node,
      to: node,
      count: fc.nat({ max: 12 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("copy" as const), node }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restore" as const), node }) },
);
const history = fc.array(action, { minLength: 5, maxLength: 60, size: "max" });

type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;
const NOTHING = {
  written: 0,
  deleted: 0,
  recreated: 0,
  increments: 0,
  restored: 0,
  forks: 0,
  renamed: 0,
  noted: 0,
};

/** Performs a history, checking every answer, then lets all nodes meet and checks that they agree. */
function live(actions: readonly Action[], rules: Rules, seen: typeof NOTHING): void {
  const nodes = AUTHORS.map((author) => new BoardNode(author, AUTHORS, rules)) as [
    BoardNode,
    BoardNode,
    BoardNode,
  ];
  const copies = nodes.map((each) => each.copy());
  const sync = (from: BoardNode, to: BoardNode, count = Number.POSITIVE_INFINITY) => {
    const lacking = [...from.log.values()].filter(({ id }) => !to.log.has(id)).sort((a, b) => a.seq - b.seq);
    const before = to.incarnation;
    for (const change of lacking.slice(0, count)) {
      const taken = to.take(change, NOW);
      if (taken === "forked") seen.forks += 1;
      expect(taken).toBeOneOf(["applied", "forked"]);
    }
    if (to.incarnation !== before) seen.renamed += 1;
    return lacking.length;
  };

  for (const each of actions) {
    if (each.do === "sync") {
      sync(nodes[each.from] as BoardNode, nodes[each.to] as BoardNode, each.count);
      continue;
    }
    const at = nodes[each.node] as BoardNode;
    if (each.do === "copy") {
      copies[each.node] = at.copy();
    } else if (each.do === "restore") {
      at.restore(copies[each.node] as ReturnType<BoardNode["copy"]>);
      seen.restored += 1;
    } else if (each.do === "delete") {
      const before = at.item(each.storyId);
      const change = at.delete(each.storyId, each.now);
      expect(at.item(each.storyId)).toBeNull();
      expect(change === undefined).toBe(before === null);
      if (before !== null) seen.deleted += 1;
    } else {
      const { count, ...params } = each.params;
      const before = at.item(each.storyId);
      const existedOnce = [...at.log.values()].some(({ ops }) =>
        ops.some((done) => done.storyId === each.storyId),
      );
      const write = { storyId: each.storyId, ...params, ...count };
      const change = at.write(write, each.now);
      const after = at.item(each.storyId);
      if (before === null && params.stage === undefined) {
        expect((change as PawlError).kind).toBe("invalid_params");
        expect(after).toBeNull();
        continue;
      }
      expect(change).not.toBeInstanceOf(PawlError);
      expectWritten(after, before, write);
      seen.written += 1;
      if ("retryCountDelta" in write) seen.increments += 1;
      if (params.note !== undefined) {
        seen.noted += 1;
        const { text: said, agent = undefined } =
          typeof params.note === "string" ? { text: params.note } : params.note;
        const by = agent ?? params.agent ?? (before === null ? null : before.agent);
        expect(at.notes(each.storyId).at(-1)).toMatch(/^\d+ \w+ /);
        expect(at.notes(each.storyId).at(-1)?.split(" ").slice(2).join(" ")).toBe(`${by} ${said}`);
      }
      if (before === null && existedOnce) seen.recreated += 1;
    }
  }

  const held = new Set(nodes.flatMap(({ log }) => [...log.keys()]));
  let moved: number;
  do {
    moved = 0;
    for (const from of nodes) for (const to of nodes) moved += sync(from, to);
  } while (moved > 0);
  const [first, second, third] = nodes;
  expect(new Set(first.log.keys())).toEqual(held);
  expect(second.tables()).toEqual(first.tables());
  expect(third.tables()).toEqual(first.tables());
  expectModel(first);
}

/** That exactly the given fields of an item changed; of one that is new here, that they are as given. */
function expectWritten(after: Item | null, before: Item | null, write: ItemWrite): void {
  const { retryCountDelta = 0, dependsOn = {}, labels = {}, fields = {}, note, ...given } = write;
  const elements = elementsAfter(before?.dependsOn, dependsOn);
  const labelled = elementsAfter(before?.labels, labels);
  const own = Object.entries({ ...before?.fields, ...fields }).filter(([, value]) => value !== null);
  if (before === null) {
    expect(after).toMatchObject(given);
    if (isList(dependsOn)) expect(after?.dependsOn).toEqual(elements);
    if (isList(labels)) expect(after?.labels).toEqual(labelled);
    return;
  }
  expect(after).toEqual({
    ...before,
    retryCount: before.retryCount + retryCountDelta,
    ...given,
    dependsOn: elements,
    labels: labelled,
    fields: Object.fromEntries(own),
    notes: before.notes + (note === undefined ? 0 : 1),
    updatedAt: after?.updatedAt,
    updatedBy: after?.updatedBy,
  });
}

type SetWrite = NonNullable<ItemWrite["dependsOn"]>;

function elementsAfter(before: readonly string[] = [], given: SetWrite): string[] {
  const { add = [], remove = [] } = isList(given) ? { add: given, remove: before } : given;
  const elements = new Set(before);
  for (const each of remove) elements.delete(each);
  for (const each of add) elements.add(each);
  return [...elements].sort();
}

function isList(given: SetWrite): given is readonly string[] {
  return Array.isArray(given);
}

const living = (rules: Rules, seen: typeof NOTHING) =>
  fc.property(history, (actions) => live(actions, rules, seen));

describe("nodes that write, meet and are restored", { timeout: TIMEOUT_MS }, () => {
  test("agree in the end, and hold everything that any of them held", () => {
    const seen = { ...NOTHING };
    fc.assert(living(RULES, seen), { numRuns: 60 * RUNS });
    for (const count of Object.values(seen)) expect(count, JSON.stringify(seen)).toBeGreaterThan(0);
  });
});

describe("the properties find", () => {
  // Each takes a rule of pipeline.md away or turns it round.
  const MUTANTS: readonly [what: string, file: string, text: string, replacement: string][] = [
    ["a smaller wall clock winning", "merge.js", "a.wall > b.wall", "a.wall < b.wall"],
    ["the wall clock left out", "merge.js", "a.wall !== b.wall", "false"],
    ["a smaller counter winning", "merge.js", "a.counter > b.counter", "a.counter < b.counter"],
    ["the counter left out", "merge.js", "a.counter !== b.counter", "false"],
    ["a smaller author winning", "merge.js", "a.author > b.author", "a.author < b.author"],
    ["the author left out", "merge.js", "a.author !== b.author", "false"],
    ["a smaller hash winning", "merge.js", "a.hash > b.hash", "a.hash < b.hash"],
    ["the first to come winning a tie", "merge.js", "return a.hash > b.hash", "return false"],
    ["the last to come winning a tie", "merge.js", "return a.hash > b.hash", "return true"],
    ["writes to an older generation", "merge.js", "op.generation < stored.item.generation", "false"],
    [
      "only one write in a generation",
      "merge.js",
      "op.generation < stored.item.generation",
      "op.generation <= stored.item.generation",
    ],
    [
      "a higher generation that keeps the cells",
      "merge.js",
      "op.generation > stored.item.generation",
      "false",
    ],
    [
      "every write starting anew",
      "merge.js",
      "op.generation > stored.item.generation",
      "op.generation >= stored.item.generation",
    ],
    ["rows of an older generation left", "merge.js", "{ item, reset, cells", "{ item, reset: false, cells"],
    ["old cells seen through a reset", "merge.js", "reset ? undefined : stored", "stored"],
    ["items without a stage being shown", "merge.js", "row.stage === null", "false"],
    ["a set value swallowing newer increments", "merge.js", "&& isNewer(stamp, each.stamp)", ""],
    ["a set value swallowing nothing", "merge.js", "each.field === field &&", "false &&"],
    ["a set value swallowing other counters", "merge.js", "each.field === field &&", ""],
    ["swallowed increments counted", "merge.js", "item.retryAdded - sum(older)", "item.retryAdded"],
    [
      "increments counted without a sign",
      "merge.js",
      "item.retryAdded + amount",
      "item.retryAdded + Math.abs(amount)",
    ],
    ["the last increment alone", "merge.js", "item.retryAdded + amount", "amount"],
    [
      "elements of dependsOn that stay",
      "merge.js",
      "field.slice(DEPENDS_ON.length), value === true",
      "field.slice(DEPENDS_ON.length), true",
    ],
    ["labels that stay", "merge.js", "label, value === true", "label, true"],
    ["sets in the order of arrival", "merge.js", "[...set, each].sort()", "[...set, each]"],
    ["fields that stay when null is written", "merge.js", "own, value !== null", "own, true"],
    [
      "the last note alone",
      "merge.js",
      "notes.push({ index, stamp });",
      "notes.splice(0, 1, { index, stamp });",
    ],
    ["notes that are not counted", "merge.js", "item.notes + notes.length", "item.notes"],
    ["notes that are cells", "merge.js", "if (index !== undefined) {", "if (false) {"],
    ["what looks like a note", "merge.js", "noteOf(JSON.parse(json)) === undefined", "false"],
    ["the time of the last to come", "merge.js", "if (newest)", "if (true)"],
    ["deletes without fields ignored", "merge.js", "!newest && cells", "cells"],
    ["a head left behind", "log.js", "replaces: prev", "replaces: null"],
    ["a fork that loses a head", "log.js", "heads.has(prev)", "heads.size > 0"],
    ["no generation after a delete", "write.js", "(row?.generation ?? 0) + 1", "(row?.generation ?? 1)"],
    ["a generation for every write", "write.js", "isAlive ? row.generation :", "false ? row.generation :"],
    ["a delete that skips a generation", "write.js", "row.generation + 1;", "row.generation + 2;"],
    ["a list of a set that only adds", "write.js", "!given.includes(each)", "false"],
    [
      "elements removed that are to be added",
      "write.js",
      'set.set(prefix + each, "true")',
      'set.set(prefix + each, "false")',
    ],
    ["labels that are dependencies", "write.js", "setElements(set, LABEL", "setElements(set, DEPENDS_ON"],
    ["a note by nobody", "write.js", "by ?? agent ?? (isAlive ? row.agent : null)", "by ?? null"],
  ];

  test.each(MUTANTS)("%s", async (_what, file, text, replacement) => {
    const rules: Rules = { ...RULES, ...(await mutant<Partial<Rules>>(file, text, replacement)) };
    const options = { numRuns: 2000, endOnFailure: true };
    const { failed } =
      file === "write.js"
        ? fc.check(living(rules, { ...NOTHING }), options)
        : fc.check(converging(rules, { ...UNSEEN }), options);
    expect(failed).toBe(true);
  });
});
