import { expect, test } from "vitest";
import { fits, parseLeaseRule } from "../../daemon/dist/providers/specification.js";

test.each([
  ["release", "release", true],
  ["release", "releases", false],
  ["*", "", true],
  ["*", "a/b", true],
  ["release/*", "release/", true],
  ["release/*", "release/a/b", true],
  ["release/*", "release", false],
  ["*/db", "a/b/db", true],
  ["*/db", "db", false],
  ["a*b*c", "abc", true],
  ["a*b*c", "a-b-b-c", true],
  ["a*b*c", "acb", false],
  ["ab*ba", "aba", false],
  ["a*a*a", "aa", false],
  ["a.c", "abc", false],
  ["**", "x", true],
])("%s and the name %s: %s", (pattern, name, expected) => {
  expect(fits(pattern, name)).toBe(expected);
});

test("a rule is read with all it can have", () => {
  expect(parseLeaseRule("a/*=etcd:endpoints=http://a:1,https://b:2,prefix=p/")).toMatchObject({
    pattern: "a/*",
    provider: { kind: "etcd", endpoints: ["http://a:1", "https://b:2"], prefix: "p/", ca: undefined },
  });
  expect(parseLeaseRule("*=dynamodb:table=t,endpoint=http://a:1,region=r").provider).toMatchObject({
    kind: "dynamodb",
    table: "t",
    endpoint: "http://a:1",
    region: "r",
  });
  expect(parseLeaseRule("*=custom:/m.js,a=1,2,b=x=y").provider).toMatchObject({
    kind: "custom",
    module: "/m.js",
    params: { a: "1,2", b: "x=y" },
  });
  expect(parseLeaseRule("mine/*=local").provider.kind).toBe("local");
});
