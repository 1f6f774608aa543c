// Changes that a node must refuse, each for one reason alone, and what to say for it.
import { sign } from "node:crypto";
import {
  MAX_CHANGE_BODY_BYTES,
  MAX_CHANGE_OPS,
  MAX_CLOCK_COUNTER,
  MAX_FIELD_BYTES,
  MAX_FIELD_NAME_BYTES,
  MAX_INCREMENT,
} from "@pawl/protocol/limits";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { Author, hashOf, incarnation } from "./board-author.js";

/** Ahead of every clock that these changes are offered by. */
const YEAR_2096_MS = 4_000_000_000_000;

export const author = new Author(0);
export const stranger = new Author(1);

export const op = (parts: object) => [{ i: "A-1", g: 1, s: { stage: "1_backlog" }, ...parts }];
export const withSet = (fields: object) => author.change({ ops: op({ s: fields }) });
const withAdd = (fields: object) => author.change({ ops: op({ c: fields }) });
/** The change of `author.change()`, its text altered, and signed as it then is. */
export const withText = (find: string, replacement: string) => {
  const { body } = author.change();
  if (!body.includes(find)) throw new Error(`${find} is not in ${body}`);
  return author.sign(body.replace(find, replacement));
};
/** A change as large as may be, give or take some bytes. */
export const ofSize = (bytes: number) => {
  const fields: Record<string, string> = {};
  const size = () => Buffer.byteLength(withSet(fields).body);
  for (let index = 0; size() < bytes - MAX_FIELD_BYTES; index += 1)
    fields[`x${index}`] = "x".repeat(MAX_FIELD_BYTES - 30);
  fields.y = "";
  fields.y = "y".repeat(bytes - size());
  return withSet(fields);
};

export const first = author.change();
export const second = (parts: object = {}) =>
  author.change({ seq: 2, prev: hashOf(first), hlc: [1000, 1], ...parts });

// Each is signed by its author unless the signature is what is wrong with it.
export const REFUSED: readonly (readonly [kind: string, what: string, change: SignedChange])[] = [
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
  ["clock_ahead", "a time too far ahead", author.change({ hlc: [YEAR_2096_MS, 0] })],
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
