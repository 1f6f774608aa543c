import { PawlError } from "@pawl/protocol/errors";
import {
  MAX_CHANGE_BODY_BYTES,
  MAX_CHANGE_OPS,
  MAX_CLOCK_AHEAD_MS,
  MAX_CLOCK_COUNTER,
  MAX_FIELD_BYTES,
  MAX_FIELD_NAME_BYTES,
  MAX_INCREMENT,
} from "@pawl/protocol/limits";
import { describe, expect, test } from "vitest";
import {
  type Change,
  type Op,
  openChange,
  readStored,
  writeChange,
} from "../../daemon/dist/domain/board/change.js";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { BOARD, hashOf, incarnation, sortedJson } from "../property/board-author.js";
import { BoardNode } from "../property/board-node.js";
import {
  author,
  first,
  ofSize,
  op,
  REFUSED,
  second,
  stranger,
  withSet,
  withText,
} from "../property/board-refused.js";

const NOW = 1_000_000;
describe("a change is refused for", () => {
  test.each(REFUSED)("%s: %s", (kind, _what, change) => {
    const node = new BoardNode(stranger, [author]);
    expect(node.take(first, NOW)).toBe("applied");
    const before = { tables: JSON.stringify(node.tables()), clock: node.clock };
    const refused = node.take(change, NOW) as PawlError;
    expect(refused).toBeInstanceOf(PawlError);
    expect(refused.kind).toBe(kind);
    expect(refused.message).toMatch(/\.$/);
    expect({ tables: JSON.stringify(node.tables()), clock: node.clock }).toEqual(before);
    // Nor does it stand in the way of the next one.
    expect(node.take(second(), NOW)).toBe("applied");
  });

  test("revoked_author: an author who was trusted", () => {
    const refused = openChange(first, BOARD, () => "revoked") as PawlError;
    expect(refused.kind).toBe("revoked_author");
  });

  test("weak_key: a signature that holds for any body, by a key of small order", () => {
    // With the neutral element as key, R = S B verifies for every message; S = 0 makes R the neutral element too.
    const neutral = `01${"00".repeat(31)}`;
    const { body } = author.change({ author: neutral });
    const refused = openChange({ body, signature: `${neutral}${"00".repeat(32)}` }, BOARD, () => "trusted");
    expect((refused as PawlError).kind).toBe("weak_key");
  });
});

describe("a refusal", () => {
  const addressOf = (change: SignedChange) =>
    (openChange(change, BOARD, (id) => (id === author.id ? "trusted" : "unknown")) as PawlError).details;
  const address = { author: author.id, incarnation: incarnation(0), seq: 1 };

  test("says which log and place it is about, as far as the body does", () => {
    expect(addressOf({ ...first, signature: "" })).toEqual(address);
    expect(addressOf(withSet({ stage: "" }))).toEqual(address);
    expect(addressOf(author.change({ seq: "x" }))).toEqual({
      author: author.id,
      incarnation: incarnation(0),
    });
    expect(addressOf(author.change({ seq: 0 }))).toEqual({ author: author.id, incarnation: incarnation(0) });
    expect(addressOf(author.change({ v: 2, seq: 5, author: 1 }))).toEqual({
      incarnation: incarnation(0),
      seq: 5,
    });
    expect(addressOf(author.sign("[]"))).toEqual({});
    expect(addressOf(author.sign("{"))).toEqual({});
  });

  test("of a change ahead of the clock says when to offer it again, and then it is taken", () => {
    const node = new BoardNode(stranger, [author]);
    const ahead = author.change({ hlc: [NOW + MAX_CLOCK_AHEAD_MS + 250, 0] });
    const refused = node.take(ahead, NOW) as PawlError;
    expect(refused.data).toMatchObject({ kind: "clock_ahead", retryable: true, retryMs: 250, ...address });
    expect(node.take(ahead, NOW + 249)).toBeInstanceOf(PawlError);
    expect(node.take(ahead, NOW + 250)).toBe("applied");
    expect(node.clock).toEqual([NOW + MAX_CLOCK_AHEAD_MS + 250, 0]);
  });

  test("does not stop other logs, and the past is always accepted", () => {
    const node = new BoardNode(stranger, [author]);
    expect(node.take(author.change({ hlc: [NOW * 2, 0] }), NOW)).toBeInstanceOf(PawlError);
    expect(node.take(author.change({ hlc: [0, 0], incarnation: incarnation(1) }), NOW)).toBe("applied");
  });
});

describe("values just within the limits are taken", () => {
  const elements = Object.fromEntries(
    Array.from({ length: 256 }, (_, n) => [`dependsOn/${"x".repeat(125)}${100 + n}`, true]),
  );
  test.each<[string, SignedChange]>([
    ["a body of 64 KiB", ofSize(MAX_CHANGE_BODY_BYTES)],
    ["a value of 4 KiB", withSet({ name: "x".repeat(MAX_FIELD_BYTES - 2) })],
    [
      "256 ops",
      author.change({ ops: Array.from({ length: MAX_CHANGE_OPS }, (_, n) => ({ i: `A-${n}`, g: 2 })) }),
    ],
    ["256 long dependencies", withSet(elements)],
    ["a long storyId", author.change({ ops: op({ i: "x".repeat(128) }) })],
    ["a long field name", withSet({ ["x".repeat(MAX_FIELD_NAME_BYTES)]: 1 })],
    ["a stage of 64 characters", withSet({ stage: "x".repeat(64) })],
    ["the greatest generation", author.change({ ops: op({ g: Number.MAX_SAFE_INTEGER }) })],
    [
      "the greatest counts",
      author.change({ ops: op({ s: { retryCount: -Number.MAX_SAFE_INTEGER }, c: { x: MAX_INCREMENT } }) }),
    ],
    ["the greatest clock counter", author.change({ hlc: [1000, MAX_CLOCK_COUNTER] })],
    ["a time as far ahead as may be", author.change({ hlc: [NOW + MAX_CLOCK_AHEAD_MS, 0] })],
    [
      "an unknown field nested deeply",
      withText('"stage":"1_backlog"', `"x":${"[".repeat(2000)}${"]".repeat(2000)}`),
    ],
  ])("%s", (_what, change) => {
    expect(new BoardNode(stranger, [author]).take(change, NOW)).toBe("applied");
  });
});

describe("fields not known here", () => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "estimate", "Ünïcode"];
  const change = author.change({
    ops: [
      {
        i: "A-1",
        g: 1,
        s: Object.fromEntries([["stage", "1_backlog"], ...names.map((name) => [name, { [name]: [name] }])]),
        c: Object.fromEntries([["valueOf", 3]]),
      },
    ],
  });

  test("are read as they are, kept, passed on and not shown", () => {
    const opened = openChange(change, BOARD, () => "trusted") as Change;
    const [{ set, add }] = opened.ops as [Op];
    expect([...set.keys()].sort()).toEqual([...names, "stage"].sort());
    expect([...add]).toEqual([["valueOf", 3]]);
    const node = new BoardNode(stranger, [author]);
    node.take(change, NOW);
    for (const name of names)
      expect(node.fields().get("A-1")?.get(name)).toBe(sortedJson({ [name]: [name] }));
    expect(node.log.get(hashOf(change))?.body).toBe(change.body);
    expect(Object.keys(node.item("A-1") ?? {}).sort()).toEqual([
      "agent",
      "blocked",
      "dependsOn",
      "fields",
      "labels",
      "name",
      "notes",
      "rank",
      "retryCount",
      "stage",
      "storyId",
      "updatedAt",
      "updatedBy",
    ]);
    expect(({} as Record<string, unknown>).estimate).toBeUndefined();
  });
});

describe("a local change", () => {
  const ops: Op[] = [
    {
      storyId: "A-1",
      generation: 1,
      set: new Map([
        ["stage", '"1_backlog"'],
        ["__proto__", "[1]"],
      ]),
      add: new Map([["retryCount", -2]]),
    },
  ];
  const log = {
    author: author.id,
    board: BOARD,
    incarnation: incarnation(3),
    head: null,
    clock: [2000, 4] as const,
  };

  test("is what other nodes open, and continues its log", () => {
    const change = writeChange(log, ops, 1000, author.privateKey) as Change;
    expect(change).toMatchObject({ seq: 1, prev: null, hlc: [2000, 5], incarnation: incarnation(3) });
    expect(change.body).toBe(
      `{"author":"${author.id}","board":"${BOARD}","hlc":[2000,5],"incarnation":"${incarnation(3)}",` +
        '"ops":[{"c":{"retryCount":-2},"g":1,"i":"A-1","s":{"__proto__":[1],"stage":"1_backlog"}}],' +
        '"prev":null,"seq":1,"v":1}',
    );
    expect(change.id).toBe(hashOf(change));
    expect(change.signature).toBe(author.sign(change.body).signature);
    expect(openChange(change, BOARD, () => "trusted")).toEqual(change);
    expect(openChange(change, null, () => "trusted")).toEqual(change);
    const head = { seq: change.seq, hash: change.id };
    const next = writeChange({ ...log, head, clock: change.hlc }, ops, 3000, author.privateKey) as Change;
    expect(next).toMatchObject({ seq: 2, prev: change.id, hlc: [3000, 0] });
  });

  test("is refused as other nodes would refuse it", () => {
    const refusedFor = (parts: Partial<Op>) => {
      const refused = writeChange(log, [{ ...(ops[0] as Op), ...parts }], 1000, author.privateKey);
      return refused instanceof PawlError ? refused.kind : "written";
    };
    expect(refusedFor({ set: new Map([["name", JSON.stringify("x".repeat(MAX_FIELD_BYTES))]]) })).toBe(
      "too_large",
    );
    const many = Array.from({ length: 17 }, (_, n) => [`x${n}`, JSON.stringify("x".repeat(4000))] as const);
    expect(refusedFor({ set: new Map(many) })).toBe("too_large");
    expect(refusedFor({ set: new Map([["stage", "null"]]) })).toBe("bad_field");
    // The rest of the body is as long in both: the second has one byte too many.
    const size = (
      writeChange(
        log,
        [{ ...(ops[0] as Op), set: new Map([...many.slice(1)]) }],
        1000,
        author.privateKey,
      ) as Change
    ).body.length;
    const filled = (length: number) =>
      new Map([...many.slice(1), ["x0", JSON.stringify("x".repeat(length))]]);
    expect(size).toBeGreaterThan(MAX_CHANGE_BODY_BYTES - 4000);
    expect(refusedFor({ set: filled(MAX_CHANGE_BODY_BYTES - size - '"x0":"",'.length) })).toBe("written");
    expect(refusedFor({ set: filled(MAX_CHANGE_BODY_BYTES - size - '"x0":"",'.length + 1) })).toBe(
      "too_large",
    );
    expect(refusedFor({ add: new Map([["retryCount", -0]]) })).toBe("bad_value");
    expect(refusedFor({ storyId: "a b" })).toBe("bad_story_id");
    expect(refusedFor({ generation: 2 })).toBe("bad_generation");
    expect(refusedFor({ set: new Map([["retryCount", "1"]]) })).toBe("bad_field");
  });
});

describe("a stored change", () => {
  const id = hashOf(first);

  test("is read without its author being known", () => {
    expect(readStored(id, first)).toEqual(openChange(first, BOARD, () => "trusted"));
  });

  test.each<readonly [what: string, stored: string, body: string]>([
    ["a byte changed", id, first.body.replace("A-1", "A-2")],
    ["its end lost", id, first.body.slice(0, -2)],
    ["nothing left", id, ""],
    ["another change in its place", id, second().body],
    ["a body that was never valid", hashOf(author.change({ seq: 0 })), author.change({ seq: 0 }).body],
    ...[{ author: 1 }, { board: 1 }, { v: 2 }].map(
      (parts) =>
        [
          `a ${Object.keys(parts)} that is none`,
          hashOf(author.change(parts)),
          author.change(parts).body,
        ] as const,
    ),
    [
      "a value that has no one form",
      hashOf(withText('"1_backlog"', "-0")),
      withText('"1_backlog"', "-0").body,
    ],
    ["a body that is no object", hashOf(author.sign("[]")), "[]"],
    ["a body that is no JSON", hashOf(author.sign("{")), "{"],
  ])("stops everything with %s", (_what, stored, body) => {
    const read = () => readStored(stored, { body, signature: first.signature });
    expect(read).toThrow(PawlError);
    expect(read).toThrow(stored);
    expect(read).toThrow(expect.objectContaining({ kind: "log_corrupt", details: { changeId: stored } }));
  });
});
