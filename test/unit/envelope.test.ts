import { checkRequest, idOf, isResponse } from "@pawl/protocol/envelope";
import { ERRORS, type ErrorKind, PawlError, refuse, shown } from "@pawl/protocol/errors";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { failure } from "../../daemon/dist/rpc/json-rpc.js";

/** The kind of the refusal of a message, or undefined if it is a request. */
function kindOf(message: unknown): ErrorKind | undefined {
  const checked = checkRequest(message);
  return checked instanceof PawlError ? checked.kind : undefined;
}

describe("requests", () => {
  test("a request comes back as it is", () => {
    for (const message of [
      { jsonrpc: "2.0", method: "m" },
      { jsonrpc: "2.0", method: "m", id: 1 },
      { jsonrpc: "2.0", method: "", id: null, params: {} },
      { jsonrpc: "2.0", method: "m", id: "x", params: { a: [1] }, more: true },
    ]) {
      expect(checkRequest(message)).toBe(message);
    }
  });

  test("any JSON value is a request or refused, and never throws", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (message) => {
        expect(kindOf(message)).toBe("invalid_request");
        expect(idOf(message)).toSatisfy((id) => id === null || ["string", "number"].includes(typeof id));
      }),
    );
  });

  test("a request of any parts is taken if and only if each of them is right", () => {
    const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
    fc.assert(
      fc.property(
        fc.constantFrom("2.0", "1.0", 2, null, undefined),
        maybe(fc.oneof(fc.string(), fc.integer(), fc.double(), fc.boolean(), fc.constantFrom(null, {}, []))),
        maybe(fc.oneof(fc.string(), fc.integer(), fc.constantFrom(null, {}, []))),
        maybe(fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(null, 1, "x", true))),
        (jsonrpc, id, method, params) => {
          const message = JSON.parse(JSON.stringify({ jsonrpc, id, method, params }));
          const idIsRight =
            !("id" in message) ||
            message.id === null ||
            typeof message.id === "string" ||
            (typeof message.id === "number" &&
              (Math.abs(message.id) < 2 ** 53 || !Number.isInteger(message.id)));
          const right =
            jsonrpc === "2.0" &&
            typeof method === "string" &&
            (params === undefined || typeof params === "object") &&
            idIsRight;
          expect(kindOf(message) === undefined).toBe(right);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("null and an empty array say that there are no params", () => {
    for (const params of [null, []]) {
      expect(checkRequest({ jsonrpc: "2.0", id: 1, method: "m", params })).toEqual({
        jsonrpc: "2.0",
        id: 1,
        method: "m",
      });
    }
  });

  test("positional params are invalid params, since JSON-RPC allows them and this protocol does not", () => {
    expect(kindOf({ jsonrpc: "2.0", id: 1, method: "m", params: ["a"] })).toBe("invalid_params");
  });
});

describe("ids", () => {
  test("a refusal goes to the id of its message if it has one", () => {
    expect([{ id: 5 }, { id: "x" }, { id: null }, { id: 1.5 }].map(idOf)).toEqual([5, "x", null, 1.5]);
    expect([{}, { id: {} }, { id: [] }, { id: true }, { id: 2 ** 53 }, null, 1, "x", [1]].map(idOf)).toEqual(
      Array(9).fill(null),
    );
  });
});

describe("responses", () => {
  test("are told from requests", () => {
    expect(isResponse({ jsonrpc: "2.0", id: 1, result: null })).toBe(true);
    expect(isResponse({ jsonrpc: "2.0", id: 1, error: { code: 1, message: "" } })).toBe(true);
    for (const other of [{ method: "m", result: 1 }, { id: 1 }, null, [], "result"]) {
      expect(isResponse(other)).toBe(false);
    }
  });

  test("a failure carries code, sentence, kind and details", () => {
    const error = refuse("lease_held", "Somebody has it.", { holder: { owner: "a" } });
    expect(failure("id", error)).toEqual({
      jsonrpc: "2.0",
      id: "id",
      error: {
        code: -32012,
        message: "Somebody has it.",
        data: { kind: "lease_held", retryable: true, holder: { owner: "a" } },
      },
    });
  });
});

describe("errors", () => {
  test("each kind has a code of its own", () => {
    const codes = Object.values(ERRORS).map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
  });

  test("a refusal is an error without a trace, and leaves traces of others alone", () => {
    const error = refuse("conflict", "No.");
    expect(error).toBeInstanceOf(PawlError);
    expect(error.stack).not.toContain("\n    at ");
    expect(new Error("other").stack).toContain("\n    at ");
  });

  test("values are shown as JSON, and cut", () => {
    expect(shown("a\nb")).toBe('"a\\nb"');
    expect(shown(undefined)).toBe("undefined");
    expect(shown(5n)).toBe("5n");
    expect(shown({ a: [1] })).toBe('{"a":[1]}');
    expect(shown("x".repeat(1000))).toHaveLength(80);
    expect(shown("x".repeat(78))).toBe(`"${"x".repeat(78)}"`);
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const json = JSON.stringify(value);
        expect(shown(value)).toBe(json.length <= 80 ? json : `${json.slice(0, 77)}...`);
      }),
    );
    expect(shown(JSON.parse("[".repeat(100_000) + "]".repeat(100_000)))).toBe(`${"[".repeat(77)}...`);
  });
});
