import { sign } from "node:crypto";
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
  type SignedChange,
  writeChange,
} from "../../daemon/dist/board/change.js";
import { Author, BOARD, hashOf, incarnation, sortedJson } from "../property/board-author.js";
import { BoardNode } from "../property/board-node.js";

const NOW = 1_000_000;
const author = new Author(0);
const stranger = new Author(1);

const op = (parts: object) => [{ i: "A-1", g: 1, s: { stage: "1_backlog" }, ...parts }];
const withSet = (fields: object) => author.change({ ops: op({ s: fields }) });
const withAdd = (fields: object) => author.change({ ops: op({ c: fields }) });
/** The change of `author.change()`, its text altered, and signed as it then is. */
const withText = (find: string, replacement: string) => {
  const { body } = author.change();
  if (!body.includes(find)) throw new Error(`${find} is not in ${body}`);
  return author.sign(body.replace(find, replacement));
};
/** A change as large as may be, give or take some bytes. */
const ofSize = (bytes: number) => {
  const fields: Record<string, string> = {};
  const size = () => Buffer.byteLength(withSet(fields).body);
  for (let index = 0; size() < bytes - MAX_FIELD_BYTES; index += 1)
    fields[`x${index}`] = "x".repeat(MAX_FIELD_BYTES - 30);
  fields.y = "";
  fields.y = "y".repeat(bytes - size());
  return withSet(fields);
};

const first = author.change();
const second = (parts: object = {}) =>
  author.change({ seq: 2, prev: hashOf(first), hlc: [1000, 1], ...parts });

// Each is signed by its author unless the signature is what is wrong with it.
const REFUSED: readonly (readonly [kind: string, what: string, change: SignedChange])[] = [
  ["too_large", "a body of one byte too many", ofSize(MAX_CHANGE_BODY_BYTES + 1)],
  ["too_large", "a value of one byte too many", withSet({ name: "x".repeat(MAX_FIELD_BYTES - 1) })],
  [
    "too_large",
    "a value of too many bytes in few characters",
    withSet({ x: "€".repeat(MAX_FIELD_BYTES / 3) }),
  ],
  [
    "too_large",
    "one op too many",
    author.change({ ops: Array.from({ length: MAX_CHANGE_OPS + 1 }, (_, n) => ({ i: `A-${n}`, g: 2 })) }),
  ],
  ["not_json", "an empty body", author.sign("")],
  ["not_json", "half a body", author.sign(first.body.slice(0, -1))],
  ["not_json", "a body and more", author.sign(`${first.body}x`)],
  ["not_json", "a byte order mark", author.sign(`\ufeff${first.body}`)],
  ["not_canonical", "white space", author.sign(` ${first.body}`)],
  ["not_canonical", "a line end", author.sign(`${first.body}\n`)],
  ["not_canonical", "members in another order", withText('"g":1,"i":"A-1"', '"i":"A-1","g":1')],
  ["not_canonical", "a member twice", withText('"g":1', '"g":1,"g":1')],
  ["not_canonical", "an escape that need not be", withText("A-1", "A\\u002d1")],
  ["not_canonical", "a number written otherwise", withText("1000", "1e3")],
  ["not_canonical", "a fraction that is none", withText('"g":1', '"g":1.0')],
  ["bad_value", "-0", withText('"hlc":[1000,0]', '"hlc":[1000,-0]')],
  ["bad_value", "-0 in an unknown field", withText('"stage":"1_backlog"', '"stage":"1_backlog","x":[-0]')],
  ["bad_value", "an integer beyond 2^53 - 1", withText("[1000,0]", "[1000,9007199254740993]")],
  ["bad_value", "a seq beyond 2^53 - 1", withText('"seq":1', '"seq":9007199254740992')],
  ["bad_value", "a number beyond all doubles", withText('"g":1', '"g":1e999')],
  ["bad_value", "an escaped lone surrogate", withText("1_backlog", "\\ud800")],
  ["bad_value", "a lone surrogate", withText("1_backlog", "\ud800")],
  ["bad_value", "a lone surrogate in a name", withText('"stage"', '"\\udc00":1,"stage"')],
  ["bad_shape", "a list", author.sign("[]")],
  ["bad_shape", "null", author.sign("null")],
  ["bad_shape", "lists in lists", author.sign("[".repeat(30_000) + "]".repeat(30_000))],
  [
    "bad_shape",
    "an op of lists in lists",
    withText('"ops":[', `"ops":[${"[".repeat(30_000)}${"]".repeat(30_000)},`),
  ],
  ["bad_shape", "a part too many", author.change({ note: "x" })],
  ["bad_shape", "a part called __proto__", withText('{"author"', '{"__proto__":{},"author"')],
  ...["author", "board", "hlc", "incarnation", "ops", "prev", "seq", "v"].map(
    (part) => ["bad_shape", `no ${part}`, author.change({ [part]: undefined })] as const,
  ),
  ["bad_shape", "an author in upper case", author.change({ author: author.id.toUpperCase() })],
  ["bad_shape", "a board that is none", author.change({ board: "x" })],
  ["bad_shape", "an incarnation that is none", author.change({ incarnation: 1 })],
  ["bad_shape", "a version that is no number", author.change({ v: "1" })],
  ["bad_shape", "a seq of 0", author.change({ seq: 0 })],
  ["bad_shape", "a seq of 1.5", author.change({ seq: 1.5 })],
  ["bad_shape", "a prev that is no hash", author.change({ seq: 2, prev: "x" })],
  ["bad_shape", "a time of one number", author.change({ hlc: [1000] })],
  ["bad_shape", "a time of three numbers", author.change({ hlc: [1000, 0, 0] })],
  ["bad_shape", "a time before 1970", author.change({ hlc: [-1, 0] })],
  ["bad_shape", "a time with a fraction", author.change({ hlc: [1000.5, 0] })],
  ["bad_shape", "a counter beyond its limit", author.change({ hlc: [1000, MAX_CLOCK_COUNTER + 1] })],
  ["bad_shape", "ops that are no list", author.change({ ops: {} })],
  ["bad_shape", "no ops", author.change({ ops: [] })],
  ["bad_shape", "an op that is no object", author.change({ ops: [["A-1", 1]] })],
  ["bad_shape", "an op that is null", author.change({ ops: [null] })],
  ["bad_shape", "an op of nothing", author.change({ ops: [{}] })],
  ["bad_shape", "an op with a part too many", author.change({ ops: op({ x: 1 }) })],
  ["bad_shape", "an op with a part called constructor", author.change({ ops: op({ constructor: 1 }) })],
  ["bad_shape", "an op without a generation", author.change({ ops: op({ g: undefined }) })],
  ["bad_shape", "an op without an item", author.change({ ops: op({ i: undefined }) })],
  ["bad_shape", "a generation that is no number", author.change({ ops: op({ g: "1" }) })],
  ["bad_shape", "fields that are a list", author.change({ ops: op({ s: ["stage"] }) })],
  ["bad_shape", "fields that are null", author.change({ ops: op({ s: null }) })],
  ["bad_shape", "fields that are empty", author.change({ ops: op({ s: {} }) })],
  ["bad_shape", "increments that are empty", author.change({ ops: op({ c: {} }) })],
  ["bad_shape", "an op that does nothing", author.change({ ops: [{ i: "A-1", g: 1 }] })],
  ["bad_shape", "two ops on one item", author.change({ ops: [...op({}), ...op({ g: 3 })] })],
  ["unsupported_version", "version 2", author.change({ v: 2, note: "of the future" })],
  ["unsupported_version", "version 0", author.change({ v: 0 })],
  ["wrong_board", "another board", author.change({ board: incarnation(7) })],
  ["unknown_author", "an author who is not trusted", stranger.change()],
  [
    "bad_signature",
    "another author's signature",
    { ...first, signature: stranger.sign(first.body).signature },
  ],
  ["bad_signature", "a signature over another body", { ...first, signature: second().signature }],
  ["bad_signature", "no signature", { ...first, signature: "" }],
  ["bad_signature", "a signature in upper case", { ...first, signature: first.signature.toUpperCase() }],
  ["bad_signature", "a signature and more", { ...first, signature: `${first.signature}00` }],
  [
    "bad_signature",
    "a signature over the body alone",
    { ...first, signature: sign(null, Buffer.from(first.body), author.privateKey).toString("hex") },
  ],
  [
    "missing_prev",
    "a predecessor that is not here",
    author.change({ seq: 2, prev: "0".repeat(64), hlc: [1000, 1] }),
  ],
  ["bad_chain", "a first change with a predecessor", author.change({ prev: hashOf(first), hlc: [1000, 1] })],
  ["bad_chain", "a second change without one", author.change({ seq: 2, hlc: [1000, 1] })],
  ["bad_chain", "a number left out", second({ seq: 3 })],
  ["bad_chain", "a predecessor in another log", second({ incarnation: incarnation(1) })],
  ["clock_not_monotonic", "the time of the one before", second({ hlc: [1000, 0] })],
  ["clock_not_monotonic", "a time before it", second({ hlc: [999, 7] })],
  ["clock_ahead", "a time too far ahead", author.change({ hlc: [NOW + MAX_CLOCK_AHEAD_MS + 1, 0] })],
  ...["", "a b", "a/b", "a:b", "ä", "a\n", "x".repeat(129)].map(
    (storyId) =>
      [
        "bad_story_id",
        JSON.stringify(storyId).slice(0, 12),
        author.change({ ops: op({ i: storyId }) }),
      ] as const,
  ),
  ["bad_generation", "generation 0", author.change({ ops: op({ g: 0 }) })],
  ["bad_generation", "generation -1", author.change({ ops: op({ g: -1 }) })],
  ["bad_generation", "generation 1.5", author.change({ ops: op({ g: 1.5 }) })],
  ["bad_generation", "a delete with fields", author.change({ ops: op({ g: 2 }) })],
  [
    "bad_generation",
    "a delete with increments",
    author.change({ ops: [{ i: "A-1", g: 2, c: { retryCount: 1 } }] }),
  ],
  ["bad_field", "an empty stage", withSet({ stage: "" })],
  ["bad_field", "a long stage", withSet({ stage: "x".repeat(65) })],
  ["bad_field", "a stage that is null", withSet({ stage: null })],
  ["bad_field", "a name with a NUL", withSet({ name: "a\0b" })],
  ["bad_field", "a name that is a number", withSet({ name: 1 })],
  ["bad_field", "an agent that is a list", withSet({ agent: [] })],
  ["bad_field", "a count that is text", withSet({ retryCount: "1" })],
  ["bad_field", "a count with a fraction", withSet({ retryCount: 1.5 })],
  ["bad_field", "blocked as a number", withSet({ blocked: 1 })],
  ["bad_field", "a rank that is none", withSet({ rank: "a00" })],
  ["bad_field", "dependsOn as a whole", withSet({ dependsOn: ["A-2"] })],
  ["bad_field", "an element that is no storyId", withSet({ "dependsOn/a b": true })],
  ["bad_field", "an element that is no boolean", withSet({ "dependsOn/A-2": 1 })],
  ["bad_field", "a field that is its storyId", withSet({ storyId: "A-2" })],
  ["bad_field", "a field that is its time", withSet({ updatedAt: 1 })],
  ["bad_field", "a field without a name", withSet({ "": 1 })],
  ["bad_field", "a field name with a NUL", withSet({ "a\0": 1 })],
  ["bad_field", "a long field name", withSet({ ["x".repeat(MAX_FIELD_NAME_BYTES + 1)]: 1 })],
  ["bad_field", "an increment of a field that is no counter", withAdd({ stage: 1 })],
  ["bad_field", "an increment of an element", withAdd({ "dependsOn/A-2": 1 })],
  ["bad_field", "an increment of text", withAdd({ retryCount: "1" })],
  ["bad_field", "an increment with a fraction", withAdd({ retryCount: 0.5 })],
  ["bad_field", "an increment that is too large", withAdd({ retryCount: MAX_INCREMENT + 1 })],
  ["bad_field", "a decrement that is too large", withAdd({ unknown: -MAX_INCREMENT - 1 })],
  [
    "bad_field",
    "a field both set and incremented",
    author.change({ ops: op({ s: { retryCount: 1 }, c: { retryCount: 1 } }) }),
  ],
];

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

describe("what is just within the limits is taken", () => {
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
      "name",
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
