// The board at the socket of one node: items, their order, their history, and what survives.
// Not over shared names: the board is each node's own.
import { statSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { Place, sharedDaemon, startDaemon } from "../daemon.js";
import { contentOf } from "../in-process.js";
import { Author, BOARD, hashOf, incarnation } from "../property/board-author.js";
import { type RawClient, Refused } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

const daemon = sharedDaemon();

/** Names that no other test of this file uses. */
let names = 0;
function newName(prefix: string): string {
  names += 1;
  return `${prefix}-${names}`;
}

async function create(client: RawClient, stage: string, storyId = newName("FR")): Promise<string> {
  await client.call("pipeline.write", { storyId, stage });
  return storyId;
}

async function idsIn(client: RawClient, stage: string): Promise<string[]> {
  const { stages } = await client.call("pipeline.list", { stage, limit: 1000 });
  return (Object.values(stages)[0] ?? []).map(({ storyId }) => storyId);
}

describe("an item", () => {
  test("is made with a stage, and has what was given and nothing else", async () => {
    const client = await daemon().place.connect();
    const { author } = await client.call("pipeline.identity", {});
    const storyId = newName("FR");
    const { item, changeId } = await client.call("pipeline.write", {
      storyId,
      stage: "1_backlog",
      name: "Ünï",
    });
    expect(changeId).toMatch(/^[0-9a-f]{64}$/);
    expect(item).toMatchObject({
      storyId,
      stage: "1_backlog",
      name: "Ünï",
      agent: null,
      retryCount: 0,
      blocked: false,
      dependsOn: [],
      updatedBy: author,
    });
    expect(await client.call("pipeline.read", { storyId })).toEqual({ item });
  });

  test("needs a stage to exist, and is refused without one", async () => {
    const client = await daemon().place.connect();
    const storyId = newName("FR");
    const { data } = expectRefusal(
      await client.refusal("pipeline.write", { storyId, name: "x" }),
      "invalid_params",
    );
    expect(data.issues).toMatchObject([{ path: "stage" }]);
    expect(await client.call("pipeline.read", { storyId })).toEqual({ item: null });
  });

  test("only the given fields change", async () => {
    const client = await daemon().place.connect();
    const storyId = await create(client, "1_backlog");
    const steps: [object, object][] = [
      [{ name: "a" }, { name: "a", agent: null }],
      [{ agent: "coder" }, { name: "a", agent: "coder" }],
      [{ blocked: true }, { agent: "coder", blocked: true }],
      [{ retryCount: 5 }, { blocked: true, retryCount: 5 }],
      [{ retryCountDelta: -7 }, { retryCount: -2 }],
      [{ dependsOn: ["B", "A"] }, { dependsOn: ["A", "B"], retryCount: -2 }],
      [{ dependsOn: { add: ["C"], remove: ["A"] } }, { dependsOn: ["B", "C"] }],
      [{ dependsOn: [] }, { dependsOn: [] }],
      [
        { stage: "2_current", name: null },
        { stage: "2_current", name: null, agent: "coder", blocked: true },
      ],
    ];
    for (const [given, expected] of steps) {
      const { item } = await client.call("pipeline.write", { storyId, ...given });
      expect(item).toMatchObject(expected);
      expect((await client.call("pipeline.read", { storyId })).item).toEqual(item);
    }
  });

  test("that nothing is said about keeps its last change", async () => {
    const client = await daemon().place.connect();
    const storyId = newName("FR");
    const made = await client.call("pipeline.write", { storyId, stage: "1_backlog" });
    const again = await client.call("pipeline.write", { storyId, dependsOn: [] });
    expect(again).toEqual(made);
  });

  test("is deleted once, and made anew without what it had", async () => {
    const client = await daemon().place.connect();
    const storyId = newName("FR");
    await client.call("pipeline.write", {
      storyId,
      stage: "1_backlog",
      name: "old",
      retryCount: 3,
      dependsOn: ["X"],
    });
    const { deleted, changeId } = await client.call("pipeline.delete", { storyId });
    expect([deleted, changeId]).toEqual([true, expect.stringMatching(/^[0-9a-f]{64}$/)]);
    expect(await client.call("pipeline.delete", { storyId })).toEqual({ deleted: false });
    expect(await client.call("pipeline.read", { storyId })).toEqual({ item: null });
    expect((await client.refusal("pipeline.write", { storyId, name: "x" })).data.kind).toBe("invalid_params");
    const { item } = await client.call("pipeline.write", { storyId, stage: "3_qa" });
    expect(item).toMatchObject({ name: null, retryCount: 0, dependsOn: [], stage: "3_qa" });
  });

  test("whose dependencies are missing or go round says so when it is read, and is not refused", async () => {
    const client = await daemon().place.connect();
    const [a, b, c] = [newName("D"), newName("D"), newName("D")];
    const read = async (storyId: string) => {
      const { item: _, reason: __, ...problems } = await client.call("pipeline.read", { storyId });
      return problems;
    };
    await client.call("pipeline.write", { storyId: a, stage: "1_backlog", dependsOn: [b] });
    expect(await read(a)).toEqual({ missing: [b] });
    await client.call("pipeline.write", { storyId: b, stage: "1_backlog", dependsOn: [c] });
    expect(await read(a)).toEqual({});
    await client.call("pipeline.write", { storyId: c, stage: "1_backlog", dependsOn: [a] });
    expect(await read(a)).toEqual({ cycle: [b, c] });
    await client.call("pipeline.delete", { storyId: b });
    expect(await read(a)).toEqual({ missing: [b] });
  });

  test("too large for a change is refused, and nothing moves", async () => {
    const client = await daemon().place.connect();
    const path = join(daemon().place.stateDir, "pawl.db");
    const storyId = await create(client, "1_backlog");
    const before = contentOf(path);
    const long = { storyId, name: "x".repeat(4095) };
    expectRefusal(await client.refusal("pipeline.write", long), "too_large");
    expect(contentOf(path)).toEqual(before);
    await client.call("pipeline.write", { storyId, name: "x".repeat(4094) });
  });
});

describe("fields, labels and notes", () => {
  test("are set one by one, and shown with the item wherever it is", async () => {
    const client = await daemon().place.connect();
    const [storyId, stage] = [newName("FR"), newName("stage")];
    const steps: [object, object][] = [
      [
        { stage, labels: ["web", "a", "web"] },
        { labels: ["a", "web"], fields: {}, notes: 0 },
      ],
      [{ labels: { add: ["b"], remove: ["web"] } }, { labels: ["a", "b"] }],
      [
        { fields: { priority: 1, type: "bug" } },
        { labels: ["a", "b"], fields: { priority: 1, type: "bug" } },
      ],
      [
        { fields: { type: null, parent: { id: [null] } } },
        { fields: { priority: 1, parent: { id: [null] } } },
      ],
      [{ note: "once" }, { notes: 1, fields: { priority: 1, parent: { id: [null] } } }],
      [{ note: "twice", agent: "ana" }, { notes: 2 }],
      [{ labels: [] }, { labels: [] }],
    ];
    for (const [given, expected] of steps) {
      const { item } = await client.call("pipeline.write", { storyId, ...given });
      expect(item).toMatchObject(expected);
      expect((await client.call("pipeline.read", { storyId })).item).toEqual(item);
      expect((await client.call("pipeline.list", { stage })).stages[stage]).toEqual([item]);
    }
    const { changes } = await client.call("pipeline.history", { storyId });
    expect(changes.map(({ set }) => set).reverse()).toMatchObject([
      { labels: { add: ["a", "web"], remove: [] } },
      { labels: { add: ["b"], remove: ["web"] } },
      { fields: { priority: 1, type: "bug" } },
      { fields: { type: null, parent: { id: [null] } } },
      { notes: [{ agent: null, text: "once" }] },
      { notes: [{ agent: "ana", text: "twice" }], agent: "ana" },
      { labels: { add: [], remove: ["a", "b"] } },
    ]);
    await client.call("pipeline.delete", { storyId });
    const { item } = await client.call("pipeline.write", { storyId, stage });
    expect(item).toMatchObject({ labels: [], fields: {}, notes: 0 });
    expect(await client.call("pipeline.read", { storyId, notes: 9 })).toEqual({
      item,
      notes: [],
      reason: expect.stringContaining("work is taken from"),
    });
  });

  test("notes are read in their order, the last first to come, each once", async () => {
    const client = await daemon().place.connect();
    const { author } = await client.call("pipeline.identity", {});
    const storyId = await create(client, "1_backlog");
    for (let index = 0; index < 10; index += 1) {
      const note = index % 2 === 0 ? `${index}` : { text: `${index}`, agent: "ben" };
      await client.call("pipeline.write", { storyId, note });
    }
    const texts: string[] = [];
    let before: string | undefined;
    do {
      const page = await client.call("pipeline.read", { storyId, notes: 3, ...(before ? { before } : {}) });
      for (const note of page.notes ?? []) {
        expect(note).toMatchObject({ author, agent: Number(note.text) % 2 === 0 ? null : "ben" });
      }
      texts.unshift(...(page.notes ?? []).map(({ text }) => text));
      before = page.before;
    } while (before !== undefined);
    expect(texts.join("")).toBe("0123456789");
    for (const wrong of ["x", "[]", '[1,2,"a","b"]', '[1,2,"a","b",3,4]']) {
      const refused = await client.refusal("pipeline.read", { storyId, notes: 1, before: wrong });
      expect(expectRefusal(refused, "invalid_params").data.issues).toMatchObject([{ path: "/before" }]);
    }
  });

  test("have limits, which a refusal names, and nothing moves", async () => {
    const client = await daemon().place.connect();
    const storyId = await create(client, "1_backlog");
    await client.call("pipeline.write", { storyId, fields: { description: "é".repeat(8191) } });
    await client.call("pipeline.write", { storyId, note: "é".repeat(8192) });
    await client.call("pipeline.write", {
      storyId,
      note: { text: "x".repeat(16_384), agent: "x".repeat(4094) },
    });
    await client.call("pipeline.write", { storyId, labels: ["é".repeat(100)] });
    const many = Object.fromEntries(Array.from({ length: 64 }, (_, index) => [`f${index}`, index]));
    await client.call("pipeline.write", { storyId, fields: { ...many, description: null } }).catch(() => {});
    await client.call("pipeline.write", { storyId, fields: { description: null } });
    await client.call("pipeline.write", { storyId, fields: many });
    const before = contentOf(join(daemon().place.stateDir, "pawl.db"));
    for (const [given, bound] of [
      [{ fields: { f0: `é${"x".repeat(16_381)}` } }, "16384"],
      [{ note: `é${"x".repeat(16_383)}` }, "16384"],
      [{ note: { text: "x".repeat(5000), agent: "x".repeat(4095) } }, "4096"],
      [{ fields: { one: 1 } }, "64"],
    ] as const) {
      const { message } = expectRefusal(
        await client.refusal("pipeline.write", { storyId, ...given }),
        "too_large",
      );
      expect(message).toContain(bound);
    }
    expectRefusal(await client.refusal("pipeline.write", { storyId, fields: { f0: 2 ** 60 } }), "bad_value");
    const beyond = `{"storyId":${JSON.stringify(storyId)},"fields":{"f0":[1e400]}}`;
    const far = await client.ask(`{"jsonrpc":"2.0","id":"far","method":"pipeline.write","params":${beyond}}`);
    expectRefusal(far.error, "bad_value");
    const upper = await client.refusal("pipeline.write", { storyId, fields: { Upper: 1 } });
    expect(upper.data.issues).toEqual([
      {
        path: "/fields/Upper",
        message:
          'has a name that must be a lower-case letter and up to 63 letters, digits or `_`, not "Upper"',
      },
    ]);
    for (const given of [
      { fields: JSON.parse('{"__proto__":1}') },
      { labels: [`é${"x".repeat(199)}`] },
      { labels: [""] },
      { labels: { add: ["a"], remove: ["a"] } },
      { fields: { Upper: 1 } },
      { fields: { "": 1 } },
      { fields: { [`a${"b".repeat(64)}`]: 1 } },
      { note: "" },
    ]) {
      const refused = await client.refusal("pipeline.write", { storyId, ...given });
      expect(refused.data.kind, JSON.stringify(given)).toBe("invalid_params");
    }
    expect(contentOf(join(daemon().place.stateDir, "pawl.db"))).toEqual(before);
  });

  test("of a version that knows more are kept, passed on and not shown", async () => {
    const client = await (await startDaemon()).place.connect();
    const author = new Author(4);
    await client.call("peer.trust", { author: author.id, name: "far away", board: BOARD });
    const s = {
      stage: "1_backlog",
      "f/Upper": 1,
      "l/": true,
      "l/x": "yes",
      "n/01": {},
      "n/0": 1,
      "n/1": { text: "x" },
    };
    const change = author.change({ ops: [{ i: "A", g: 1, s, c: { "f/count": 1, "l/count": 1, "n/7": 1 } }] });
    expect(await client.call("pipeline.apply", { changes: [change] })).toMatchObject({
      applied: 1,
      rejected: [],
    });
    const { item } = await client.call("pipeline.read", { storyId: "A" });
    expect(item).toMatchObject({ labels: [], fields: {}, notes: 0 });
    expect((await client.call("pipeline.changes", { heads: [] })).changes).toEqual([change]);
  });
});

describe("a write with a condition", () => {
  test("is made only if the item is what it says, and else answered with the item as it is", async () => {
    const client = await daemon().place.connect();
    const storyId = newName("FR");
    const write = { storyId, stage: "2_current" };
    const otherwise = async (condition: object, item: unknown) => {
      const refused = await client.refusal("pipeline.write", { ...write, if: condition });
      expect(expectRefusal(refused, "conflict").data.item).toEqual(item);
    };
    for (const condition of [{ stage: "1_backlog" }, { agent: null }, { updatedAt: 1 }]) {
      await otherwise(condition, null);
    }
    const { item } = await client.call("pipeline.write", {
      storyId,
      stage: "1_backlog",
      agent: "ana",
      if: { stage: null },
    });
    for (const condition of [
      { stage: null },
      { stage: "3_qa" },
      { agent: null },
      { agent: "ben" },
      { updatedAt: item.updatedAt - 1 },
      { stage: "1_backlog", agent: "ben" },
    ]) {
      await otherwise(condition, item);
    }
    expect((await client.call("pipeline.read", { storyId })).item).toEqual(item);
    await client.call("pipeline.write", { storyId, name: "x", if: {} });
    const { stage, agent } = item;
    const { item: now } = await client.call("pipeline.write", { ...write, if: { stage, agent } });
    await client.call("pipeline.write", { storyId, blocked: true, if: { updatedAt: now.updatedAt } });
    expect((await client.refusal("pipeline.write", { storyId, if: {} })).data.kind).toBe("invalid_params");
  });
});

describe("a list", () => {
  test("is in the order of stages and ranks, new items last", async () => {
    const client = await daemon().place.connect();
    const stage = newName("stage");
    const [a, b, c] = [await create(client, stage), await create(client, stage), await create(client, stage)];
    expect(await idsIn(client, stage)).toEqual([a, b, c]);
    await client.call("pipeline.write", { storyId: c, rank: "Zz" });
    expect(await idsIn(client, stage)).toEqual([c, a, b]);
    // Equal ranks: by storyId.
    const { item } = await client.call("pipeline.read", { storyId: a });
    await client.call("pipeline.write", { storyId: b, rank: item?.rank as string });
    expect(await idsIn(client, stage)).toEqual([c, ...[a, b].sort()]);
    const refused = await client.refusal("pipeline.write", { storyId: b, rank: "a00" });
    expect(refused.data.kind).toBe("invalid_params");
  });

  test("comes in pages that together are the whole, each item once", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    const made: string[] = [];
    for (let index = 0; index < 25; index += 1) {
      made.push(
        await create(client, ["1_backlog", "2_current", "__proto__"][index % 3] as string, `I-${index}`),
      );
    }
    const listed: string[] = [];
    const stages = new Set<string>();
    let after: string | undefined;
    let pages = 0;
    do {
      const page = await client.call("pipeline.list", {
        limit: 4,
        ...(after === undefined ? {} : { after }),
      });
      for (const [stage, items] of Object.entries(page.stages)) {
        stages.add(stage);
        for (const item of items) {
          expect(item.stage).toBe(stage);
          listed.push(item.storyId);
        }
      }
      after = page.next;
      pages += 1;
    } while (after !== undefined);
    expect(pages).toBe(7);
    expect(listed.toSorted()).toEqual(made.toSorted());
    expect([...stages].sort()).toEqual(["1_backlog", "2_current", "__proto__"]);
  });

  test("can be of a stage, of an agent or of nobody, of what is blocked or is not", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    for (const [storyId, stage, agent, blocked] of [
      ["A", "1_backlog", "x", true],
      ["B", "1_backlog", null, false],
      ["C", "2_current", "x", false],
      ["D", "2_current", null, true],
    ] as const) {
      await client.call("pipeline.write", { storyId, stage, agent, blocked });
    }
    const ids = async (filter: object) => {
      const { stages } = await client.call("pipeline.list", filter);
      return Object.values(stages)
        .flat()
        .map(({ storyId }) => storyId)
        .join("");
    };
    expect(await ids({})).toBe("ABCD");
    expect(await ids({ stage: "1_backlog" })).toBe("AB");
    expect(await ids({ agent: "x" })).toBe("AC");
    expect(await ids({ agent: null })).toBe("BD");
    expect(await ids({ blocked: true })).toBe("AD");
    expect(await ids({ blocked: false, agent: "x" })).toBe("C");
    expect(await ids({ stage: "2_current", agent: null, blocked: false })).toBe("");
  });

  test("ends a page early where items have many fields, and misses none", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    const fields = Object.fromEntries(Array.from({ length: 64 }, (_, index) => [`f${index}`, index]));
    for (let index = 10; index < 60; index += 1) {
      await client.call("pipeline.write", { storyId: `I-${index}`, stage: index % 2 ? "a" : "b", fields });
    }
    const listed: string[] = [];
    let after: string | undefined;
    do {
      const page = await client.call("pipeline.list", { limit: 1000, ...(after ? { after } : {}) });
      const items = Object.values(page.stages).flat();
      expect(items.length).toBeLessThanOrEqual(32);
      listed.push(...items.map(({ storyId }) => storyId));
      after = page.next;
    } while (after !== undefined);
    expect(listed.sort()).toEqual(Array.from({ length: 50 }, (_, index) => `I-${index + 10}`));
    const { stages, counts, next } = await client.call("pipeline.list", { perStage: 1000 });
    expect([stages.a?.length, stages.b?.length, counts, next]).toEqual([25, 7, { a: 25, b: 25 }, undefined]);
  });

  test("can be the first items of each stage, with the counts of all", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    const stages = ["1_backlog", "2_current", "__proto__"];
    await Promise.all(
      Array.from({ length: 2500 }, (_, index) =>
        client.call("pipeline.write", {
          storyId: `I-${index}`,
          stage: stages[index % 3 === 1 ? 1 : index % 30 === 0 ? 2 : 0] as string,
          ...(index % 5 === 0
            ? { labels: ["Web"], agent: "ana" }
            : index % 5 === 1
              ? { labels: ["web"] }
              : {}),
        }),
      ),
    );
    const all = new Map<string, string[]>();
    for (const stage of stages) {
      const ids: string[] = [];
      let after: string | undefined;
      do {
        const page = await client.call("pipeline.list", { stage, limit: 1000, ...(after ? { after } : {}) });
        ids.push(...(Object.values(page.stages)[0] ?? []).map(({ storyId }) => storyId));
        after = page.next;
      } while (after !== undefined);
      all.set(stage, ids);
    }
    const numberOf = (storyId: string) => Number(storyId.slice(2));
    for (const [filter, fits] of [
      [{}, () => true],
      [{ agent: "ana" }, (id) => numberOf(id) % 5 === 0],
      [{ label: "web" }, (id) => numberOf(id) % 5 === 1],
      [{ blocked: true }, () => false],
    ] as [object, (storyId: string) => boolean][]) {
      for (const limit of [1000, 3]) {
        const found = new Map<string, [string[], number]>();
        let after: string | undefined;
        do {
          const params = { ...filter, perStage: 7, limit, ...(after ? { after } : {}) };
          const page = await client.call("pipeline.list", params);
          for (const [stage, items] of Object.entries(page.stages)) {
            found.set(stage, [items.map(({ storyId }) => storyId), page.counts?.[stage] as number]);
          }
          after = page.next;
        } while (after !== undefined);
        const expected = [...all].map(([stage, ids]) => [stage, ids.filter(fits)] as const);
        expect(found).toEqual(
          new Map(
            expected
              .filter(([, ids]) => ids.length > 0)
              .map(([stage, ids]) => [stage, [ids.slice(0, 7), ids.length]]),
          ),
        );
      }
    }
    for (const other of [{ stage: "1_backlog" }, { text: "a" }]) {
      expect((await client.refusal("pipeline.list", { perStage: 1, ...other })).data.kind).toBe(
        "invalid_params",
      );
    }
    const transact = { calls: [{ method: "pipeline.list", params: { perStage: 1 } }] };
    expect((await client.refusal("transact", transact)).data.kind).toBe("invalid_params");
  });

  test("can be of a label, and of words in names, descriptions and notes, in pages in the order of all", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    const items: [string, object][] = [
      ["A", { stage: "1_backlog", name: "Sign in with a Ключ", labels: ["web", "100%"] }],
      [
        "B",
        {
          stage: "2_current",
          name: "Sign out",
          labels: ["we"],
          fields: { description: "After signing-in, café" },
        },
      ],
      ["C", { stage: "1_backlog", labels: ["web"], note: "the sign is wrong" }],
      [
        "D",
        {
          stage: "2_current",
          name: "Nothing",
          labels: ["100x", "We", 'a"b'],
          fields: { description: ["sign"] },
        },
      ],
    ];
    for (const [storyId, given] of items) await client.call("pipeline.write", { storyId, ...given });
    const ids = async (filter: object, limit = 100) => {
      const found: string[] = [];
      let after: string | undefined;
      do {
        const page = await client.call("pipeline.list", { ...filter, limit, ...(after ? { after } : {}) });
        found.push(...Object.values(page.stages).flatMap((each) => each.map(({ storyId }) => storyId)));
        after = page.next;
      } while (after !== undefined);
      return found.join("");
    };
    const finds = async (expected: readonly (readonly [object, string])[]) => {
      for (const [filter, found] of expected) {
        expect(await ids(filter), JSON.stringify(filter)).toBe(found);
        expect(await ids(filter, 1)).toBe(found);
      }
    };
    await finds([
      [{ label: "web" }, "AC"],
      [{ label: "we" }, "B"],
      [{ label: "We" }, "D"],
      [{ label: "100%" }, "A"],
      [{ label: 'a"b' }, "D"],
      [{ label: "x" }, ""],
      [{ text: "sign" }, "ACB"],
      [{ text: "SIGN i" }, "ACB"],
      [{ text: "ключ" }, "A"],
      [{ text: "cafe" }, "B"],
      [{ text: "signing-in" }, "B"],
      [{ text: 'out" OR "wrong' }, ""],
      [{ text: "out after" }, "B"],
      [{ text: "sign", stage: "1_backlog" }, "AC"],
      [{ text: "sign", label: "web" }, "AC"],
      [{ text: "sign", blocked: true }, ""],
      [{ text: "--" }, ""],
    ]);
    await client.call("pipeline.write", { storyId: "A", name: "Log in" });
    await client.call("pipeline.write", { storyId: "B", fields: { description: null } });
    await client.call("pipeline.write", { storyId: "D", note: "a sign at last" });
    await client.call("pipeline.delete", { storyId: "C" });
    await client.call("pipeline.write", { storyId: "C", stage: "1_backlog" });
    await finds([
      [{ text: "sign" }, "BD"],
      [{ text: "log" }, "A"],
      [{ text: "cafe" }, ""],
      [{ text: "wrong" }, ""],
    ]);
    for (const text of [" ", "\t\n", "\u3000"]) {
      expectRefusal(await client.refusal("pipeline.list", { text }), "invalid_params");
    }
    const transact = { calls: [{ method: "pipeline.list", params: { text: "sign" } }] };
    const { data } = expectRefusal(await client.refusal("transact", transact), "invalid_params");
    expect(data.issues).toMatchObject([{ path: "/text" }]);
  });

  test.each(["x", "[]", "[1,2,3]", '["a","b"]', '["2_current","a0","A"]'])(
    "refuses what is no next of it: %s",
    async (after) => {
      const client = await daemon().place.connect();
      const { data } = expectRefusal(
        await client.refusal("pipeline.list", { stage: "1_backlog", after }),
        "invalid_params",
      );
      expect(data.issues).toMatchObject([{ path: "/after" }]);
    },
  );
});

describe("the history of an item", () => {
  test("is in the order of the times, whatever the order of arrival, on pages of any size", async () => {
    const client = await (await startDaemon()).place.connect();
    const author = new Author(3);
    await client.call("peer.trust", { author: author.id, name: "far away", board: BOARD });
    // More than are kept with the item, some at the same time as another.
    const changes = Array.from({ length: 90 }, (_, index) =>
      author.change({
        incarnation: incarnation(index),
        hlc: [1000 + ((index * 37) % 80), index % 2],
        ops: [{ i: "A", g: 1, s: { stage: "1_backlog", name: `${index}` } }],
      }),
    );
    for (const part of [changes.slice(0, 50), changes.slice(50)]) {
      await client.call("pipeline.apply", { changes: part });
    }
    const timeOf = (change: (typeof changes)[number]): [number, number] => JSON.parse(change.body).hlc;
    const inOrder = [...changes].sort((a, b) => {
      const [[wallA, counterA], [wallB, counterB]] = [timeOf(a), timeOf(b)];
      return wallB - wallA || counterB - counterA || (hashOf(a) < hashOf(b) ? 1 : -1);
    });
    for (const limit of [1, 7, 90]) {
      const ids: string[] = [];
      let after: string | undefined;
      do {
        const page = await client.call("pipeline.history", {
          storyId: "A",
          limit,
          ...(after ? { after } : {}),
        });
        expect(page.changes.length).toBeLessThanOrEqual(limit);
        ids.push(...page.changes.map(({ changeId }) => changeId));
        after = page.next;
      } while (after !== undefined);
      expect(ids).toEqual(inOrder.map(hashOf));
    }
  });

  test("is what was done to it, newest first, in pages", async () => {
    const client = await daemon().place.connect();
    const storyId = newName("FR");
    const ids: string[] = [];
    for (const fields of [
      { stage: "1_backlog" },
      { name: "a" },
      { retryCountDelta: 2 },
      { dependsOn: ["X"] },
    ]) {
      ids.push((await client.call("pipeline.write", { storyId, ...fields })).changeId);
    }
    ids.push((await client.call("pipeline.delete", { storyId })).changeId as string);
    const { author } = await client.call("pipeline.identity", {});
    const first = await client.call("pipeline.history", { storyId, limit: 2 });
    expect(first.changes).toMatchObject([
      { changeId: ids[4], author, name: null, deleted: true, set: {}, delta: {} },
      { changeId: ids[3], set: { dependsOn: { add: ["X"], remove: [] } } },
    ]);
    const rest = await client.call("pipeline.history", { storyId, after: first.next as string });
    expect(rest.changes.map(({ changeId }) => changeId)).toEqual(ids.slice(0, 3).reverse());
    expect(rest.changes[0]).toMatchObject({ set: {}, delta: { retryCount: 2 } });
    expect(rest.next).toBeUndefined();
    expect(await client.call("pipeline.history", { storyId: newName("none") })).toEqual({ changes: [] });
    for (const after of ["0".repeat(64), "[]", '[1,2,"a"]', '[1,2,"a","b","c"]', '["1",2,"a","b"]']) {
      expect((await client.refusal("pipeline.history", { storyId, after })).data.kind).toBe("invalid_params");
    }
  });
});

describe("a transaction", () => {
  test("takes an id and makes the item under it, all or nothing", async () => {
    const client = await daemon().place.connect();
    const path = join(daemon().place.stateDir, "pawl.db");
    const calls = (stage: string | undefined) => [
      { method: "sequence.next", params: { type: "STORY" } },
      { method: "pipeline.write", params: { storyId: { $result: "/0/id" }, stage: "1_backlog" } },
      { method: "pipeline.write", params: { storyId: { $result: "/0/id" }, retryCountDelta: 1 } },
      { method: "pipeline.delete", params: { storyId: { $result: "/0/id" } } },
      { method: "pipeline.write", params: { storyId: { $result: "/0/id" }, stage } },
    ];
    const before = contentOf(path);
    const refused = await client.refusal("transact", { calls: calls(undefined) });
    expect(refused.data).toMatchObject({ kind: "invalid_params", index: 4 });
    expect(contentOf(path)).toEqual(before);
    const { results } = await client.call("transact", { calls: calls("2_current") });
    const { id } = results[0] as { id: string };
    const { item } = await client.call("pipeline.read", { storyId: id });
    expect(item).toMatchObject({ stage: "2_current", retryCount: 0 });
    // A log without gaps, and each change later than the one before it.
    const { heads } = await client.call("pipeline.heads", {});
    expect(heads).toHaveLength(1);
    const { changes } = await client.call("pipeline.history", { storyId: id });
    expect(changes).toHaveLength(4);
  });

  test("may not wait for the board", async () => {
    const client = await daemon().place.connect();
    const refused = await client.refusal("transact", { calls: [{ method: "pipeline.watch", params: {} }] });
    expect(refused.data.kind).toBe("invalid_params");
  });
});

describe("waiting for the board", () => {
  test("ends with the next change, and at once when there was one", async () => {
    const client = await daemon().place.connect();
    const { revision } = await client.call("pipeline.watch", {});
    const waiting = client.call("pipeline.watch", { since: revision, waitMs: 60_000 });
    const storyId = await create(await daemon().place.connect(), "1_backlog");
    expect(await waiting).toEqual({ revision: revision + 1 });
    expect(await client.call("pipeline.watch", { since: revision, waitMs: 60_000 })).toEqual({
      revision: revision + 1,
    });
    await client.call("pipeline.delete", { storyId });
  });
});

describe("acknowledged writes", () => {
  test("is there after kill -9, under the same identity, without the log being replayed", async () => {
    const place = new Place();
    const first = await place.start();
    const client = await place.connect();
    const before = await client.call("pipeline.identity", {});
    expect(before).toMatchObject({ board: null, heads: [] });
    const acknowledged = new Set<string>();
    const writing = (async () => {
      for (let number = 0; ; number += 1) {
        acknowledged.add(
          (await client.call("pipeline.write", { storyId: `S-${number}`, stage: "1_backlog" })).item.storyId,
        );
        if (number === 50) first.child.kill("SIGKILL");
      }
    })();
    await expect(writing).rejects.toThrow("connection closed");
    await first.exited;
    await place.start();
    const again = await place.connect();
    const after = await again.call("pipeline.identity", {});
    expect(after).toMatchObject({ author: before.author, incarnation: before.incarnation });
    for (const storyId of acknowledged) {
      expect((await again.call("pipeline.read", { storyId })).item?.storyId).toBe(storyId);
    }
    const { pipeline } = await again.call("daemon.stats", {});
    expect(pipeline.items).toBeGreaterThanOrEqual(acknowledged.size);
    expect(pipeline).toEqual({ items: pipeline.items, changes: pipeline.items, forks: 0 });
  });

  test("a stored change that was damaged ends the daemon, which names it; nothing is skipped", async () => {
    const place = new Place();
    const first = await place.start();
    const client = await place.connect();
    const { changeId } = await client.call("pipeline.write", {
      storyId: "A",
      stage: "1_backlog",
      name: "abc",
    });
    await first.end();
    const database = new Database(join(place.stateDir, "pawl.db"));
    database.exec("UPDATE pawl_change SET body = replace(body, 'abc', 'abd')");
    database.close();
    for (const read of ["pipeline.changes", "pipeline.history", "pipeline.rebuild"] as const) {
      const again = await place.start();
      const reader = await place.connect();
      // Not read at the start, nor to show items.
      expect((await reader.call("pipeline.read", { storyId: "A" })).item?.name).toBe("abc");
      const params = {
        "pipeline.changes": { heads: [] },
        "pipeline.history": { storyId: "A" },
        "pipeline.rebuild": {},
      };
      const other = await place.connect();
      const [refused, pinged] = await Promise.all([
        reader.refusal(read, params[read]),
        other.call("daemon.ping", {}).catch((error) => error),
      ]);
      expect(expectRefusal(refused, "log_corrupt").data).toMatchObject({ changeId });
      // Others that were asked in the same turn are answered, or told that the daemon ends.
      if (pinged instanceof Refused) expect(pinged.kind).toBe("unavailable");
      else expect(pinged).toHaveProperty("now");
      expect(await again.exited).toBe(1);
      const line = again.log.find(({ level }) => level === "fatal");
      expect(JSON.stringify(line)).toContain(changeId);
    }
  });
});

describe("a rebuild", () => {
  async function steps(client: RawClient, verify: boolean) {
    const differences: unknown[] = [];
    let [items, after] = [0, undefined as string | undefined];
    do {
      const step = await client.call("pipeline.rebuild", {
        verify,
        limit: 3,
        ...(after === undefined ? {} : { after }),
      });
      differences.push(...step.differences);
      items += step.items;
      after = step.next;
    } while (after !== undefined);
    return { items, differences };
  }

  test("finds nothing, finds what differs, and puts it right", async () => {
    const place = new Place();
    const first = await place.start();
    const path = join(place.stateDir, "pawl.db");
    let client = await place.connect();
    for (let index = 0; index < 10; index += 1) {
      await create(client, "1_backlog", `I-${index}`);
      await client.call("pipeline.write", {
        storyId: `I-${index}`,
        retryCountDelta: index,
        dependsOn: ["X"],
        labels: ["a"],
        fields: { index },
      });
      if (index % 3 === 0) await client.call("pipeline.delete", { storyId: `I-${index}` });
      if (index % 6 === 0) await create(client, "2_current", `I-${index}`);
    }
    await client.call("pipeline.write", { storyId: "I-0", note: "a" });
    // More changes than are kept with an item before they go into a table of their own.
    for (let index = 0; index < 80; index += 1) {
      await client.call("pipeline.write", { storyId: `I-${8 - (index % 2) * 7}`, blocked: index % 4 === 0 });
    }
    expect(await steps(client, true)).toEqual({ items: 10, differences: [] });
    const right = boardOf(path);
    await first.end();
    const database = new Database(path);
    const kept = database.prepare("SELECT story_id FROM pawl_touch GROUP BY story_id").pluck().all();
    expect(kept).toEqual(["I-1", "I-8"]);
    database.exec(`
      UPDATE pawl_item SET name = 'forged' WHERE story_id = 'I-1';
      DELETE FROM pawl_item WHERE story_id = 'I-2';
      CREATE TEMP TABLE copied AS SELECT * FROM pawl_item WHERE story_id = 'I-4';
      UPDATE copied SET story_id = 'I-99', recent = '[7, 99999]';
      INSERT INTO pawl_item SELECT * FROM copied;
      UPDATE pawl_item SET labels = '["x"]' WHERE story_id = 'I-4';
      DELETE FROM pawl_note WHERE story_id = 'I-0';
      UPDATE pawl_cell SET value = 'false' WHERE story_id = 'I-5' AND field = 'dependsOn/X';
      UPDATE pawl_increment SET amount = 100 WHERE story_id = 'I-7';
      DELETE FROM pawl_touch WHERE story_id = 'I-8' AND n = (SELECT max(n) FROM pawl_touch WHERE story_id = 'I-8');
      INSERT INTO pawl_touch SELECT 'I-9', wall, counter, n FROM pawl_touch WHERE story_id = 'I-8' LIMIT 1;
      UPDATE pawl_item SET recent = '[]' WHERE story_id = 'I-5';
      UPDATE pawl_item SET recent = '[1, 2]' WHERE story_id = 'I-6';
      UPDATE pawl_branch SET head_seq = head_seq - 1;
      UPDATE pawl_board SET wall = 1;`);
    database.close();
    await place.start();
    client = await place.connect();
    const forged = contentOf(path);
    const { differences } = await steps(client, true);
    expect(contentOf(path)).toEqual(forged);
    const named = differences as { storyId?: string; changeId?: string; what: string }[];
    const stories = new Set(
      named.flatMap(
        ({ storyId, what }) => storyId ?? /^is missing in the history of (\S+)$/.exec(what)?.[1] ?? [],
      ),
    );
    expect([...stories].sort()).toEqual([
      "I-0",
      "I-1",
      "I-2",
      "I-4",
      "I-5",
      "I-6",
      "I-7",
      "I-8",
      "I-9",
      "I-99",
    ]);
    expect(named.filter(({ changeId }) => changeId !== undefined).length).toBeGreaterThan(2);
    await steps(client, false);
    expect(await steps(client, true)).toMatchObject({ differences: [] });
    expect(boardOf(path)).toEqual(right);
  });
});

/** All that a database holds but the count of its starts, wherever it keeps which changes were about an item. */
function boardOf(path: string): unknown {
  const database = new Database(path, { readonly: true });
  const touches = database
    .prepare(`
      SELECT story_id, n FROM pawl_touch UNION ALL
      SELECT story_id, value FROM pawl_item, json_each(recent) ORDER BY story_id, n`)
    .all();
  database.close();
  const tables = contentOf(path);
  const items = (tables.pawl_item as Record<string, unknown>[]).map(({ recent: _, ...each }) => each);
  const meta = (tables.pawl_meta as { key: string }[]).filter(({ key }) => key !== "starts");
  return { ...tables, pawl_meta: meta, pawl_item: items, pawl_touch: touches };
}

describe("a daemon that only reads", () => {
  test("shows the board of the one that writes, and refuses to write", async () => {
    const place = new Place();
    await place.start();
    const client = await place.connect();
    await create(client, "1_backlog", "A");
    const identity = await client.call("pipeline.identity", {});
    const reader = new Place(place.directory);
    Object.assign(reader, { socket: join(place.directory, "read.sock") });
    await reader.start({ args: ["--read-only"] });
    const reading = await reader.connect();
    expect(await reading.call("pipeline.identity", {})).toEqual(identity);
    expect((await reading.call("pipeline.read", { storyId: "A" })).item?.stage).toBe("1_backlog");
    expect((await reading.call("pipeline.changes", { heads: [] })).changes).toHaveLength(1);
    const refused = await reading.refusal("pipeline.write", { storyId: "A", name: "x" });
    expectRefusal(refused, "read_only");
    expect(statSync(join(place.stateDir, "identity.key")).mode & 0o777).toBe(0o600);
  });
});
