import { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonical, type Json } from "../../daemon/dist/domain/board/canonical.js";
import { sortedJson } from "../property/board-author.js";

const RUNS = Number(process.env.PAWL_TEST_RUNS ?? 1);

function kindOf(value: unknown): string {
  const text = canonical(value as Json);
  return text instanceof PawlError ? text.kind : text;
}

describe("canonical JSON", () => {
  test("is that of the examples in RFC 8785", () => {
    // Section 3.2.2, without its 1E30, which is an integer beyond what is allowed here.
    const input = `{
      "numbers": [333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\"\\/",
      "literals": [null, true, false]
    }`;
    expect(canonical(JSON.parse(input))).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],' +
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    );
    // Section 3.2.3: names are sorted by UTF-16 code units, so the emoji comes before U+FB33.
    const names = ["\u20ac", "\r", "\ufb33", "1", "\u{1f600}", "\u0080", "\u00f6"];
    expect(canonical(Object.fromEntries(names.map((name) => [name, 0])))).toBe(
      '{"\\r":0,"1":0,"\u0080":0,"\u00f6":0,"\u20ac":0,"\u{1f600}":0,"\ufb33":0}',
    );
  });

  test.each([
    // Appendix B of RFC 8785, as far as these are not integers beyond 2^53 - 1.
    [0, "0"],
    [5e-324, "5e-324"],
    [-5e-324, "-5e-324"],
    [9007199254740991, "9007199254740991"],
    [-9007199254740991, "-9007199254740991"],
    [1e-7, "1e-7"],
    [0.000001, "0.000001"],
    [333333333.3333332, "333333333.3333332"],
    [-0.0000033333333333333333, "-0.0000033333333333333333"],
    [1424953923781206.2, "1424953923781206.2"],
  ])("writes the number %d as %s", (value, text) => {
    expect(canonical(value)).toBe(text);
  });

  test.each([
    ["-0", -0],
    ["2^53", 2 ** 53],
    ["-2^53", -(2 ** 53)],
    ["an integer in exponent form", 1e30],
    ["a number too large for a double", JSON.parse("1e400")],
    ["not a number", Number.NaN],
    ["a lone high surrogate", "\ud800"],
    ["a lone low surrogate", "a\udc00b"],
    ["surrogates the wrong way round", "\udc00\ud800"],
    ["a lone surrogate in a name", { "\ud800": 1 }],
    ["one deep inside", [{ a: [[{ b: -0 }]] }]],
    ["undefined", [undefined]],
    ["a bigint", 1n],
  ])("refuses %s", (_what, value) => {
    expect(kindOf(value)).toBe("bad_value");
  });

  test("takes pairs of surrogates and control characters", () => {
    expect(canonical(["\u{1f600}", "\u0000\u001f\u007f\u2028"])).toBe(
      '["\u{1f600}","\\u0000\\u001f\u007f\u2028"]',
    );
  });

  test("takes names of Object.prototype as names like others", () => {
    const text = '{"__proto__":{"__proto__":null},"constructor":1,"hasOwnProperty":2,"toString":3}';
    expect(canonical(JSON.parse(text))).toBe(text);
    expect(canonical(Object.assign(Object.create(null), { b: 1, a: 2 }))).toBe('{"a":2,"b":1}');
    expect(canonical({})).toBe("{}");
    expect(canonical([[], {}, [{}]])).toBe("[[],{},[{}]]");
  });

  test("does not recurse", () => {
    const depth = 50_000;
    const arrays = "[".repeat(depth) + "]".repeat(depth);
    expect(canonical(JSON.parse(arrays)) === arrays).toBe(true);
    const objects = `${'{"a":'.repeat(depth)}0${"}".repeat(depth)}`;
    expect(canonical(JSON.parse(objects)) === objects).toBe(true);
  });

  test("reads back as the value, and is its own canonical form", () => {
    const string = fc.string({ unit: "grapheme", maxLength: 4 });
    const number = fc
      .oneof(fc.maxSafeInteger(), fc.double({ min: -1e9, max: 1e9, noNaN: true }))
      .map((n) => n + 0);
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { depthSize: "small" },
        fc.oneof(string, number, fc.boolean(), fc.constant(null)),
        fc.array(tie("value"), { maxLength: 4 }),
        fc.dictionary(fc.oneof(string, fc.constant("__proto__")), tie("value"), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(value, (any) => {
        const parsed = JSON.parse(JSON.stringify(any));
        const text = canonical(parsed) as string;
        expect(text).toBe(sortedJson(parsed));
        expect(JSON.parse(text)).toEqual(parsed);
        expect(canonical(JSON.parse(text))).toBe(text);
      }),
      { numRuns: 200 * RUNS },
    );
  });
});
