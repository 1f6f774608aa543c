import { createHash } from "node:crypto";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { digestOfMeaning, PLAIN_CHARACTERS } from "../../daemon/dist/json/digest.js";
import { encode, nestingLevels, RawJson, replaceReferences } from "../../daemon/dist/json/raw-json.js";

const RUNS = 300 * Number(process.env.PAWL_TEST_RUNS ?? 1);

/** Space that JSON allows between tokens. */
const space = fc.string({ unit: fc.constantFrom(" ", "\t", "\r"), maxLength: 2 });
/** A string as JSON text, with some of its characters escaped that need not be. */
const stringText = fc
  .array(
    fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 3 }).map((text) => JSON.stringify(text).slice(1, -1)),
      fc.integer({ min: 0, max: 0xffff }).map((code) => `\\u${code.toString(16).padStart(4, "0")}`),
      fc.constantFrom("\\\\", '\\"', "\\/", "\\n", "{", "}", "[", "]", ",", ":", "$result"),
    ),
    { maxLength: 5 },
  )
  .map((parts) => `"${parts.join("")}"`);
const numberText = fc
  .tuple(
    fc.constantFrom("", "-"),
    fc.oneof(fc.nat().map(String), fc.constantFrom("0", "12345678901234567890")),
    fc.constantFrom("", ".0", ".50", ".125"),
    fc.constantFrom("", "e2", "E+400", "e-3"),
  )
  .map((parts) => parts.join(""));

/** The text of any JSON value, as nobody would write it. */
const { jsonText } = fc.letrec<{ jsonText: string; member: string }>((tie) => ({
  jsonText: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom("null", "true", "false"),
    numberText,
    stringText,
    fc
      .tuple(fc.array(tie("jsonText"), { maxLength: 4 }), space)
      .map(([items, gap]) => `[${gap}${items.join(`${gap},`)}${gap}]`),
    fc
      .tuple(fc.array(tie("member"), { maxLength: 4 }), space)
      .map(([members, gap]) => `{${gap}${members.join(`,${gap}`)}${gap}}`),
  ),
  member: fc
    .tuple(stringText, space, space, tie("jsonText"))
    .map(([name, before, after, value]) => `${name}${before}:${after}${value}`),
}));

describe("the text at a path", () => {
  test.each<[string, string[], (string | undefined)[]]>([
    ['{"a":1.0}', ["a"], ["1.0"]],
    [' { "a" : [ 1 , 2 ] , "b" : 3 } ', ["a"], ["[ 1 , 2 ]"]],
    ['{"a":{"b":{"c":"]}"}}}', ["a", "b", "c"], ['"]}"']],
    ['{"a":"\\\\","b":"\\"","c":-1e400}', ["c"], ["-1e400"]],
    ['{"a":"x\\\\\\"y","b":true}', ["b"], ["true"]],
    ['{"\\u0061":1}', ["a"], ["1"]],
    ['{"a\\"b":1}', ['a"b'], ["1"]],
    ['{"":null}', [""], ["null"]],
    ['{"__proto__":1}', ["__proto__"], ["1"]],
    // Of members of one name the last counts, whatever the first held.
    ['{"a":{"b":1},"a":{"b":2}}', ["a", "b"], ["2"]],
    ['{"a":{"b":1},"a":3}', ["a", "b"], [undefined]],
    ["{}", ["a"], [undefined]],
    ["[]", ["a"], [undefined]],
    ["7", ["a", "b"], [undefined]],
    ['{"a":[]}', ["a", EACH], []],
    ['{"a":[{"p":1.0},{"q":2},[3],{"p": 4e0 }]}', ["a", EACH, "p"], ["1.0", undefined, undefined, "4e0"]],
    ["[ [1], [2,3] ]", [EACH, EACH], ["1", "2", "3"]],
    ['{"*":5}', [EACH], ["5"]],
    [" 12 ", [], ["12"]],
  ])("%s at %j", (json, path, expected) => {
    expect(textsAt(json, path)).toEqual(expected);
  });

  test("is what the parser finds there, however the JSON is written", () => {
    fc.assert(
      fc.property(
        fc.array(jsonText, { maxLength: 4 }),
        stringText,
        jsonText,
        space,
        (values, name, other, gap) => {
          const members = values.map(
            (value, index) => `{${gap}"x":${other},${name}:${gap}${value}${gap},"n":${index}}`,
          );
          const json = `{"first":${other},"list":[${members.join(`${gap},`)}]}`;
          // The name may be one of the two others.
          const key = JSON.parse(name) as string;
          const parsed = JSON.parse(json) as { list: Record<string, unknown>[] };
          const texts = textsAt(json, ["list", EACH, key]);
          expect(texts.map((text) => JSON.parse(text as string))).toEqual(
            parsed.list.map((each) => each[key]),
          );
          if (key !== "x" && key !== "n") expect(texts).toEqual(values);
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("is found in JSON that is nested more deeply than the stack", () => {
    const deep = `${"[".repeat(500_000)}1.0${"]".repeat(500_000)}`;
    expect(textsAt(`{"a":${deep},"b":2.0}`, ["b"])).toEqual(["2.0"]);
    expect(textsAt(`{"a":${deep}}`, ["a"])[0]).toHaveLength(deep.length);
    expect(nestingLevels(deep)).toBe(500_000);
  });

  test("is found in time that grows with the line alone", () => {
    // Quadratic steps over a string of escapes, or over members of one name, would take minutes.
    const escapes = `{"a":"${'\\\\\\"'.repeat(250_000)}","b":1}`;
    expect(textsAt(escapes, ["b"])).toEqual(["1"]);
    const members = `{${'"a":{"b":1},'.repeat(80_000)}"a":{"b":2}}`;
    expect(textsAt(members, ["a", "b"])).toEqual(["2"]);
  });
});

test("nesting levels are counted outside of strings", () => {
  expect(nestingLevels("1")).toBe(0);
  expect(nestingLevels("[]")).toBe(1);
  expect(nestingLevels('[{"a":[1],"b":"[[[["},[[]]]')).toBe(3);
});

describe("encode", () => {
  test("puts texts where they belong, byte for byte", () => {
    const value = {
      id: 1,
      list: [new RawJson("1.0"), { a: new RawJson('{ "b":1e400, "b":2 }') }],
      last: new RawJson('"\\u0041"'),
    };
    expect(encode(value)).toBe('{"id":1,"list":[1.0,{"a":{ "b":1e400, "b":2 }}],"last":"\\u0041"}');
    expect(encode(new RawJson("12345678901234567890"))).toBe("12345678901234567890");
  });

  test("is JSON.stringify for what holds no text", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(encode(value)).toBe(JSON.stringify(value));
      }),
    );
  });

  test("any text in any place comes out as it is", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(jsonText, fc.string()), { maxLength: 5 }), (pairs) => {
        const value = pairs.map(([text, name]) => ({ name, raw: new RawJson(text) }));
        const expected = pairs.map(([text, name]) => `{"name":${JSON.stringify(name)},"raw":${text}}`);
        expect(encode(value)).toBe(`[${expected.join()}]`);
      }),
      { numRuns: RUNS },
    );
  });

  test("a failure leaves nothing behind for the next", () => {
    const broken = {
      raw: new RawJson("1.0"),
      toJSON(): unknown {
        throw new Error("broken");
      },
    };
    expect(() => encode([new RawJson("2.0"), broken])).toThrow("broken");
    expect(encode({ a: new RawJson("3.0") })).toBe('{"a":3.0}');
  });

  test("a text read by others is its value", () => {
    expect(JSON.stringify({ a: new RawJson("[1.0]") })).toBe('{"a":[1]}');
  });
});

describe("references", () => {
  const replaced = (json: string) => replaceReferences(json, "$result", (reference) => `<${reference}>`);

  test.each<[string, string]>([
    ['{"$result":"/0/id"}', "</0/id>"],
    ['[1.0,{ "$result" : "/0" } ,2.0]', "[1.0,</0> ,2.0]"],
    ['{"a":{"b":[{"$result":"/1"}]},"c":{"$result":"/2"}}', '{"a":{"b":[</1>]},"c":</2>}'],
    ['{"\\u0024result":"\\u002f0"}', "</0>"],
    // One name twice is one member, and the last counts.
    ['{"$result":"/0","$result":"/1"}', "</1>"],
    ['{"$result":"/0","other":1}', '{"$result":"/0","other":1}'],
    ['{"other":1,"$result":"/0"}', '{"other":1,"$result":"/0"}'],
    ['{"$result":{"$result":"/0"}}', '{"$result":</0>}'],
    ['{"$result":7}', '{"$result":7}'],
    ['"{\\"$result\\":\\"/0\\"}"', '"{\\"$result\\":\\"/0\\"}"'],
    ["{}", "{}"],
    [" [ ] ", " [ ] "],
  ])("%s", (json, expected) => {
    expect(replaced(json)).toBe(expected);
  });

  test("objects in objects are not read again at every level", () => {
    const deep = `${'{"$result":'.repeat(100_000)}"/0"${"}".repeat(100_000)}`;
    expect(replaced(deep)).toBe(`${'{"$result":'.repeat(99_999)}</0>${"}".repeat(99_999)}`);
  });
});

describe("the digest of what JSON means", () => {
  const digests = (texts: string[], plainCharacters?: number) =>
    new Set(texts.map((text) => digestOfMeaning(text, plainCharacters))).size;
  const same = (...texts: string[]) =>
    expect([digests(texts), digests(texts, PLAIN_CHARACTERS)]).toEqual([1, 1]);
  const different = (...texts: string[]) =>
    expect([digests(texts), digests(texts, PLAIN_CHARACTERS)]).toEqual([texts.length, texts.length]);

  test("is the same for one value written differently", () => {
    same('{"a":1,"b":[1,2]}', ' { "b" : [ 1 , 2 ] , "a" : 1 } ', '{"\\u0062":[1.0,20e-1],"a":0.1e1}');
    same("1", "1.0", "1e0", "10e-1", "0.01E+2", "1.000");
    same("100", "1e2", "1E2", "100.00");
    same("0", "-0", "0.000", "0e7", "-0.0e-5");
    same('"A"', '"\\u0041"');
    same('"/"', '"\\/"');
    same('"é"', '"\\u00e9"');
    same('"😀"', '"\\ud83d\\ude00"');
  });

  test("is another for another value, also where doubles are the same", () => {
    different("12345678901234567890", "12345678901234567891", "1.2345678901234567890e20");
    different("1e400", "1e401", "-1e400", "null");
    different("1", '"1"', "true", "[1]", '{"1":1}', "[[1]]");
    different("[1,2]", "[2,1]", "[1,2,null]", "[12]");
    different('"\\ud800"', '"\\ud801"', '"\ufffd"');
    different('{"a":1}', '{"a":1,"b":null}', '{"A":1}', "{}", "[]");
    different('["ab","c"]', '["a","bc"]', '["ab,c"]');
    different("1e999999999999999999999", "1e999999999999999999998");
    // Readers disagree on which of two members of one name counts, so they are not the same as either.
    different('{"a":1,"a":2}', '{"a":2,"a":1}', '{"a":2}', '{"a":1}');
  });

  test("depends on the parsed value alone, whatever the order and the space", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        expect(digestOfMeaning(JSON.stringify(a))).toBe(
          digestOfMeaning(JSON.stringify(reversed(a), undefined, 2)),
        );
        const equal = JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
        expect(digestOfMeaning(JSON.stringify(a)) === digestOfMeaning(JSON.stringify(b))).toBe(equal);
      }),
      { numRuns: RUNS },
    );
  });

  test("takes any JSON, and gives another for a text that is not the same value", () => {
    fc.assert(
      fc.property(jsonText, (text) => {
        expect(digestOfMeaning(text)).toMatch(/^[0-9a-f]{64}$/);
      }),
      {
        numRuns: RUNS,
      },
    );
  });

  test("is made at once of what is short, however deep", () => {
    const deep = `${"[".repeat(PLAIN_CHARACTERS / 2 - 2)}true${"]".repeat(PLAIN_CHARACTERS / 2 - 2)}`;
    const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
    expect(digestOfMeaning(deep, PLAIN_CHARACTERS)).toBe(sha256(deep));
    expect(digestOfMeaning(`[${deep}]`, PLAIN_CHARACTERS)).toBe(sha256(`#${sha256(`[${deep}]`)}`));
  });

  // Databases keep digests: a batch is compared with one of years ago.
  test("stays what it was", () => {
    const many = Array.from({ length: 300 }, (_, index) => `"k${(index * 71) % 300}é":${index}00.50e-2`);
    const texts = [
      ' [ 0, -0.0e7, 1, 10, 120.050e3, -7e-20, 12345678901234567890, 1e99999999999999999, true, false, null ] ',
      '["", "plain", "\\u0041\\/\\n\\u001f\\"", "é\\u00e9", "😀\\ud83d\\ude00", "\\ud800", "\u007f\u2028"]',
      '{"b":1,"a":{"z":[],"y":{}},"b":2,"aa":[[1],[{"c":"x"}]],"":0,"\\u0061":3,"é":4,"😀":5,"\uffee":6}',
      `{${many.join()}}`,
      `{"long":[${many.map((member) => `{${member}}`).join()}],"text":"${"é😀".repeat(200)}"}`,
      `${"[".repeat(300)}"${"x".repeat(100)}"${"]".repeat(300)}`,
      `["${"é".repeat(250)}",${"1,".repeat(60)}2]`,
    ];
    const all = (plainCharacters?: number) =>
      createHash("sha256").update(texts.map((text) => digestOfMeaning(text, plainCharacters)).join()).digest("hex");
    expect(all()).toBe("048994e02649cfe6a090caeb09c6c1029cfbb1cd174b6c778b611d91a58bdf34");
    expect(all(PLAIN_CHARACTERS)).toBe("9c343e92e0bd7e3e07fd579fd2625939aa08444e651c0720d2123594299de8a0");
  });

  test("does not overflow the stack, and takes time in proportion", () => {
    const deep = `${'[{"a":'.repeat(20_000)}1${"}]".repeat(20_000)}`;
    expect(digestOfMeaning(deep)).not.toBe(digestOfMeaning(deep.replace("1", "2")));
    expect(digestOfMeaning(`1${"0".repeat(500_000)}1`)).toMatch(/^[0-9a-f]{64}$/);
  });
});

/** With the members of each object in the opposite order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== "object" || value === null) return value;
  return fromEntries(
    Object.entries(value)
      .reverse()
      .map(([name, each]) => [name, reversed(each)]),
  );
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  // JSON has one zero.
  if (Object.is(value, -0)) return 0;
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return { members: members.map(([name, each]) => [name, sorted(each)]) };
}

/** An object with these as its own members, also `__proto__`. */
function fromEntries(entries: [string, unknown][]): object {
  const object = {};
  for (const [name, value] of entries) {
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  }
  return object;
}
