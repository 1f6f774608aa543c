// References of a `transact` to the results of earlier calls.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { References } from "../../daemon/dist/domain/references.js";

/** References of one call that are told of. */
const MAX_TOLD = 20;

function substitute(params: Record<string, unknown>, results: readonly unknown[]) {
  const references = new References();
  for (const result of results) references.add(JSON.stringify(result));
  return references.putInto(params);
}

/** The value that a pointer points to in a result; undefined for none. */
function resolve(pointer: string, result: unknown): unknown {
  const { params, wrong } = substitute({ value: { $result: `/0${pointer}` } }, [result]);
  return wrong.length > 0 ? undefined : params.value;
}

describe("JSON Pointer", () => {
  // RFC 6901, section 5.
  const document = {
    foo: ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
  };

  test.each([
    ["", document],
    ["/foo", ["bar", "baz"]],
    ["/foo/0", "bar"],
    ["/", 0],
    ["/a~1b", 1],
    ["/c%d", 2],
    ["/e^f", 3],
    ["/g|h", 4],
    ["/i\\j", 5],
    ['/k"l', 6],
    ["/ ", 7],
    ["/m~0n", 8],
  ])("%j", (pointer, value) => {
    expect(resolve(pointer, document)).toEqual(value);
  });

  test.each([
    ["foo"],
    ["#/foo"],
    ["/foo/2"],
    ["/foo/-"],
    ["/foo/00"],
    ["/foo/+0"],
    ["/foo/0 "],
    ["/foo/1e0"],
    ["/foo/length"],
    ["/foo/0/0"],
    ["/a~2b"],
    ["/a~"],
    ["/toString"],
    ["/__proto__"],
  ])("%j points to nothing", (pointer) => {
    expect(resolve(pointer, document)).toBeUndefined();
  });

  test("~01 is ~1 and not /", () => {
    expect(resolve("/~01", { "~1": "right", "/": "wrong" })).toBe("right");
  });

  test("finds any member of any value by its path", () => {
    const escaped = (key: string): string => key.replaceAll("~", "~0").replaceAll("/", "~1");
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "binary" }), { maxLength: 6 }),
        // As JSON has it, which knows no -0.
        fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)) as unknown),
        (keys, value) => {
          const root = keys.reduceRight<unknown>((inner, key) => Object.fromEntries([[key, inner]]), value);
          expect(resolve(keys.map((key) => `/${escaped(key)}`).join(""), root)).toEqual(value);
        },
      ),
    );
  });
});

describe("substitute", () => {
  const results = [{ id: "FR-001", seq: 1 }, { batch: { payloads: [null, { deep: ["x"] }] } }];

  test("replaces references at any depth, and nothing else", () => {
    const params = {
      a: { $result: "/0/id" },
      list: [{ $result: "/0/seq" }, { b: { $result: "/1/batch/payloads/1/deep" } }],
      not: { $result: "/0/id", too: 1 },
      text: "$result",
      $result: "/0/id",
      none: null,
    };
    const given = structuredClone(params);
    const { params: replaced, wrong } = substitute(given, results);
    expect(wrong).toEqual([]);
    expect(replaced).toEqual({ ...params, a: "FR-001", list: [1, { b: ["x"] }] });
    expect(given).toEqual(params);
  });

  test("all results are one value, too, as many as there are", () => {
    const references = new References();
    for (const [index, result] of ["1.0", '{"a":2}'].entries()) {
      references.add(result);
      expect(references.putInto({ all: { $result: "" } }).params).toEqual({
        all: [1, { a: 2 }].slice(0, index + 1),
      });
      expect(references.putIntoText('{"all": {"$result":""} }')).toBe(
        index === 0 ? '{"all": [1.0] }' : '{"all": [1.0,{"a":2}] }',
      );
    }
  });

  test("null is a value like others", () => {
    expect(substitute({ a: { $result: "/1/batch/payloads/0" } }, results).params).toEqual({ a: null });
  });

  test("names each reference that stands for nothing", () => {
    const { wrong } = substitute(
      { a: [{ $result: "/9" }], b: { $result: 1 }, c: { $result: "/0" } },
      results,
    );
    expect(wrong.map(({ path }) => path).sort()).toEqual([["a", "0"], ["b"]]);
  });

  test("params without references are not copied", () => {
    const params = { a: [1, { b: "$result" }] };
    expect(substitute(params, results).params).toBe(params);
  });

  test("a copy of a copy is one value: what is put in stays apart from the results", () => {
    const { params } = substitute({ a: { $result: "/1" } }, results);
    (params.a as { batch: { payloads: unknown[] } }).batch.payloads.length = 0;
    expect(results[1]).toEqual({ batch: { payloads: [null, { deep: ["x"] }] } });
  });

  test("a small request cannot stand for much data", () => {
    const large = [{ text: "x".repeat(100_000) }];
    const references = Array.from({ length: 20 }, () => ({ $result: "/0/text" }));
    const { wrong } = substitute({ references }, large);
    expect(wrong).toEqual([{ path: ["references", "10"], message: expect.stringContaining("1048576") }]);
    expect(substitute({ references: references.slice(0, 10) }, large).wrong).toEqual([]);
  });

  test("does for any JSON what a few lines of recursion do", () => {
    const model = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(model);
      if (typeof value !== "object" || value === null) return value;
      const keys = Object.keys(value);
      if (keys.length === 1 && keys[0] === "$result") return "there";
      return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, model(member)]));
    };
    /** References to something else than the one result. */
    const countOther = (value: unknown): number => {
      if (typeof value !== "object" || value === null) return 0;
      const keys = Object.keys(value);
      if (!Array.isArray(value) && keys.length === 1 && keys[0] === "$result") {
        return (value as { $result: unknown }).$result === "/0" ? 0 : 1;
      }
      return Object.values(value).reduce<number>((sum, member) => sum + countOther(member), 0);
    };
    const key = fc.oneof(fc.constantFrom("$result", "__proto__", "a", "b"), fc.string());
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 6 },
        fc.constantFrom(null, 1, "x"),
        fc.constant({ $result: "/0" }),
        fc.array(tie("tree"), { maxLength: 4 }),
        fc.array(fc.tuple(key, tie("tree")), { maxLength: 4 }).map((entries) => Object.fromEntries(entries)),
      ),
    }));
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom("p", "q"), tree), (params) => {
        const { params: replaced, wrong } = substitute(params, ["there"]);
        const bad = countOther(params);
        expect(wrong.length).toBe(Math.min(bad, MAX_TOLD));
        if (bad === 0) expect(replaced).toEqual(model(params));
      }),
    );
  });
});
