import { expect, test } from "vitest";
import { fits } from "../../daemon/dist/domain/name-pattern.js";
import { parseLeaseRule } from "../../daemon/dist/remote/specification.js";

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

test.each([
  ["release", "no PATTERN=SPEC"],
  ["=local", "no PATTERN=SPEC"],
  ["a/*=redis:x", "no provider"],
  ["a/*=dynamodb:", "key=value"],
  ["a/*=dynamodb:region=eu", "lacks table="],
  ["a/*=dynamodb:table=t,colour=red", "unknown parameter"],
  ["a/*=dynamodb:table=t,table=u", "twice"],
  ["a/*=dynamodb:table=a b", "table=a b"],
  ["a/*=etcd:endpoints=127.0.0.1:2379", "URL"],
  ["a/*=etcd:endpoints=http://me@127.0.0.1:2379", "credentials"],
  ["a/*=etcd:endpoints=https://e:2379,cert=c.pem", "together"],
  ["a/*=custom:", "names no module"],
  ["a/*=dynamodb:table=a/b", "table=a/b"],
  ["a/*=dynamodb:table=leases,region=no where", "region=no where"],
  ["a/*=etcd:endpoints=http://:secret@127.0.0.1:2379", "credentials do not belong there"],
])("%s is refused", (rule, says) => {
  expect(() => parseLeaseRule(rule)).toThrow(says);
});

test.each(["leases", "l-1_2.x", "arn:aws:dynamodb:eu-central-1:123456789012:table/leases"])(
  "a table may be called %s",
  (table) => {
    expect(parseLeaseRule(`*=dynamodb:table=${table}`).provider).toMatchObject({ table });
  },
);

test("a fault of a provider of one's own is named without its other parameters", () => {
  const refused = () => parseLeaseRule("*=custom:/m.js,password=hunter2,password=again");
  expect(refused).toThrow("custom:/m.js");
  expect(refused).not.toThrow("hunter2");
});

test("providers of one's own are told apart by all that they were given, without keeping it", () => {
  const texts = ["", ",a=1", ",a=2", ",a=1,b=secret"].map(
    (more) => parseLeaseRule(`*=custom:/m.js${more}`).provider.text,
  );
  expect(new Set(texts).size).toBe(4);
  expect(texts[0]).toBe("custom:/m.js");
  expect(texts.join()).not.toContain("secret");
  expect(parseLeaseRule("*=custom:/m.js,a=1").provider.text).toBe(texts[1]);
});
