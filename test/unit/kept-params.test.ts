// Values that are kept as their text are not parsed with the request that they are in.
import fc from "fast-check";
import { expect, test } from "vitest";
import { withoutKept, withoutParams } from "../../daemon/dist/rpc/kept-params.js";

const short = (request: object): unknown => JSON.parse(withoutKept(JSON.stringify(request)) ?? "null");

test.each([
  [
    "queue.enqueue",
    { queue: "q", payloads: [{ a: 1 }, [2], "x", null] },
    { queue: "q", payloads: [0, 0, "x", null] },
  ],
  [
    "queue.enqueueMany",
    { batches: [{ payloads: [[1]], mergeKey: { a: {} } }, { payloads: 1 }] },
    { batches: [{ payloads: [0], mergeKey: { a: {} } }, { payloads: 1 }] },
  ],
  [
    "queue.complete",
    { results: { a: { x: 1 }, b: "y" }, result: [1] },
    { results: { a: 0, b: "y" }, result: 0 },
  ],
  ["queue.progress", { checkpoint: { row: 1 }, percent: 5 }, { checkpoint: 0, percent: 5 }],
  [
    "command.respond",
    { response: { status: "success", response: { a: 1 }, other: {} } },
    { response: { status: "success", response: 0, other: {} } },
  ],
  ["command.create", { params: { a: 1 }, target: { a: 1 } }, { params: 0, target: { a: 1 } }],
  ["schedule.set", { payloads: [{ a: 1 }] }, { payloads: [0] }],
  [
    "transact",
    {
      calls: [
        { params: { payloads: [{ a: 1 }] }, method: "queue.enqueue" },
        { method: "pipeline.write", params: { fields: { a: { b: 1 } } } },
      ],
    },
    {
      calls: [
        { params: { payloads: [0] }, method: "queue.enqueue" },
        { method: "pipeline.write", params: { fields: { a: { b: 1 } } } },
      ],
    },
  ],
  ["pipeline.write", { fields: { a: { b: 1 } } }, { fields: { a: { b: 1 } } }],
  ["no.such", { payloads: [{}] }, { payloads: [{}] }],
])("%s", (method, params, expected) => {
  expect(short({ jsonrpc: "2.0", id: 1, method, params })).toEqual({
    jsonrpc: "2.0",
    id: 1,
    method,
    params: expected,
  });
  // Of two members of one name the last counts, wherever it is.
  const twice = `{"method":"no.such","params":${JSON.stringify(params)},"method":${JSON.stringify(method)}}`;
  expect(JSON.parse(withoutKept(twice) as string).params).toEqual(expected);
});

test("any JSON is shortened to JSON, and what is no request is left alone", () => {
  const json = fc.jsonValue();
  fc.assert(
    fc.property(
      json,
      json,
      fc.constantFrom("queue.enqueue", "transact", "queue.complete"),
      (a, b, method) => {
        const request = { id: a, method, params: { payloads: a, calls: b, results: b } };
        const parsed = short(request) as typeof request;
        expect(Object.keys(parsed)).toEqual(["id", "method", "params"]);
        expect(JSON.stringify(parsed).length).toBeLessThanOrEqual(JSON.stringify(request).length);
        expect(short({ params: request })).toBe(null);
      },
    ),
  );
  expect(withoutKept("[]")).toBeUndefined();
});

test("only what makes a request is left of one without its params", () => {
  const request = { jsonrpc: "2.0", id: 7, method: "m", params: { a: 1 }, other: [1] };
  expect(JSON.parse(withoutParams(JSON.stringify(request)))).toEqual({ jsonrpc: "2.0", id: 7, method: "m" });
  const long = { jsonrpc: "2.0", id: "x".repeat(10_000), method: [1] };
  expect(JSON.parse(withoutParams(JSON.stringify(long)))).toEqual({ jsonrpc: "2.0", id: {}, method: [1] });
});
