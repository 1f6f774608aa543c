// Too much is refused by its count, before any of it is looked at.
import { METHODS, type MethodName } from "@pawl/protocol";
import { expect, test } from "vitest";
import type { z } from "zod";
import { withoutNulls } from "../../daemon/dist/rpc/null-params.js";
import { describeIssues } from "../../daemon/dist/rpc/validation-errors.js";

const paramsOf = (name: MethodName): z.ZodType =>
  (METHODS.find((method) => method.name === name) as (typeof METHODS)[number]).params;
const enqueued = paramsOf("queue.enqueueMany");

/** An object whose members throw when they are read. */
function untouchable(count: number): object {
  const object = {};
  for (let index = 0; index < count; index++) {
    Object.defineProperty(object, `name${index}`, {
      enumerable: true,
      get: () => {
        throw new Error("it was looked at");
      },
    });
  }
  return object;
}

test.each([
  ["transitions", "pipeline.configure", {}, 64, "must hold at most 64 stages"],
  ["fields", "pipeline.write", { storyId: "A" }, 64, "must hold at most 64 fields"],
  ["results", "queue.complete", { claimId: "c", leaseToken: "t" }, 1000, "must hold at most 1000 batches"],
] as const)("too many names in %s are refused by their count", (name, method, others, max, message) => {
  const params = paramsOf(method);
  const { error } = params.safeParse({ ...others, [name]: untouchable(max + 1) });
  expect(error?.issues.filter(({ path }) => path[0] === name)).toMatchObject([{ path: [name], message }]);
  expect(() => params.safeParse({ ...others, [name]: untouchable(max) })).toThrow("looked at");
});

test.each([
  ["lease.check", "/fencingToken", { name: "n", fencingToken: -1 }, "must be at least 1, not -1"],
  ["lease.check", "/fencingToken", { name: "n", fencingToken: 0 }, "must be at least 1, not 0"],
  ["lease.configure", "/slots", { name: "n", slots: 1_000_000 }, "must be at most 4096, not 1000000"],
  ["lease.configure", "/slots", { name: "n", slots: 2 ** 53 }, "must be at most 4096, not 9007199254740992"],
  ["queue.configure", "/maxAttempts", { queue: "q", maxAttempts: 2 ** 53 }, "must be at most 1000000, not"],
  ["sequence.advance", "/to", { type: "FR", to: 2 ** 53 }, "must be at most 9007199254740991, not"],
] as const)("of the bounds of a number the narrowest is told: %s %s %j", (name, path, params, message) => {
  const { error } = paramsOf(name).safeParse(params);
  const refusal = describeIssues(name, error?.issues ?? [], params);
  expect(refusal.data.issues).toEqual([{ path, message: expect.stringContaining(message) }]);
  expect(refusal.message).toContain(`${name}: ${path} ${message}`);
});

test("bounds of several values are told one by one", () => {
  const params = { names: ["", "x".repeat(5000)], owner: "", ttlMs: -1 };
  const { error } = paramsOf("lease.acquire").safeParse(params);
  const { issues } = describeIssues("lease.acquire", error?.issues ?? [], params).data;
  const paths = (issues as { path: string }[]).map(({ path }) => path);
  expect(paths.sort()).toEqual(["/names/0", "/names/1", "/owner", "/ttlMs"]);
});

test("nulls are looked for in no array that is too long", () => {
  const looked = () => {
    throw new Error("it was looked at");
  };
  const element = new Proxy({}, { get: looked, getOwnPropertyDescriptor: looked });
  const params = { batches: Array(1001).fill(element) };
  expect(withoutNulls(enqueued, params)).toBe(params);
  expect(() => withoutNulls(enqueued, { batches: [element] })).toThrow("looked at");
});

test("a schema is asked once whether it takes null, however many there are", () => {
  let asked = 0;
  const { batches: array } = (enqueued as z.ZodObject).shape;
  const batch = (array as z.ZodArray<z.ZodObject>).element;
  const delay = batch.shape.delayMs as z.ZodType;
  const { safeParse } = delay;
  delay.safeParse = (...given) => {
    asked += 1;
    return safeParse(...given);
  };
  try {
    const batches = Array.from({ length: 1000 }, () => ({ queue: "q", payloads: [1], delayMs: null }));
    const without = withoutNulls(enqueued, { batches }) as { batches: object[] };
    expect(without.batches).toHaveLength(1000);
    expect(without.batches.every((batch) => !("delayMs" in batch))).toBe(true);
    expect(asked).toBeLessThanOrEqual(2);
  } finally {
    delay.safeParse = safeParse;
  }
});

test("of many faults no more are looked at than are told", () => {
  let looked = 0;
  const issues = Array.from({ length: 10_000 }, (_, index) => ({
    code: "custom" as const,
    message: "is wrong",
    get path() {
      looked += 1;
      return [index];
    },
  }));
  const refusal = describeIssues("queue.claim", issues, {});
  expect(refusal.data.issues).toHaveLength(20);
  expect(looked).toBeLessThan(100);
});
