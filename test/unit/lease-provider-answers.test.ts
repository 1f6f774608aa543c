// The answers of a lease provider that are believed, and failures that are logged. The rest is tested at the socket:
// test/integration/lease-remote-answers.test.ts.
import { expect, test } from "vitest";
import type { Acquired, AcquireRequest, LeaseProvider } from "../../daemon/dist/index.js";
import { withCheckedAnswers } from "../../daemon/dist/remote/checked-answers.js";
import { Failure, unavailable } from "../../daemon/dist/remote/refusals.js";
import { loggable } from "../../daemon/dist/remote/secrets.js";
import { parseProvider } from "../../daemon/dist/remote/specification.js";

const REQUEST: AcquireRequest = {
  name: "release",
  leaseId: `lease_${"0".repeat(32)}`,
  owner: "test",
  ttlMs: 1000,
  note: null,
  peer: { pid: 1, uid: 2, gid: 3 },
  tokenAbove: 5,
};
const HOLDER = {
  owner: "other",
  fencingToken: 7,
  acquiredAt: 1,
  remainingMs: 10,
  note: null,
  peer: { pid: null, uid: null, gid: null },
};

/** A provider that has these methods, whatever they are. */
function providerWith(methods: object): LeaseProvider {
  return withCheckedAnswers(methods as LeaseProvider);
}

test("fields beyond the contract go no further, and fields that may be left out are filled in", async () => {
  const { peer: _, note: __, ...least } = HOLDER;
  const provider = providerWith({
    acquire: () => ({ granted: false, retryMs: 5, holder: { ...HOLDER, leaseId: "secret" } }),
    get: async () => least,
  });
  expect(await provider.acquire(REQUEST)).toEqual({ granted: false, retryMs: 5, holder: HOLDER });
  expect(await provider.get("release")).toEqual(HOLDER);
});

test("a provider cannot change what it was asked", async () => {
  const provider = providerWith({
    acquire: async (request: { ttlMs: number }) => {
      request.ttlMs = 1_000_000;
      return { granted: true, fencingToken: 6, remainingMs: 900_000 };
    },
  });
  await expect(provider.acquire(REQUEST)).rejects.toThrow("at most the ttl of 1000 ms");
});

test("methods that throw, getters that do, and what is no promise are rejections", async () => {
  const thrown = (): never => {
    throw new Error("from the module");
  };
  const hostile = Object.defineProperty({}, "granted", { get: thrown }) as Acquired;
  const provider = providerWith({ acquire: () => hostile, watch: thrown, close: thrown, break: thrown });
  await expect(provider.acquire(REQUEST)).rejects.toThrow("from the module");
  await expect(provider.watch?.("release", AbortSignal.abort())).rejects.toThrow("from the module");
  await expect(provider.break?.("release")).rejects.toThrow("from the module");
  await expect(provider.close?.()).rejects.toThrow("from the module");
  expect(await providerWith({ watch: () => undefined }).watch?.("a", AbortSignal.abort())).toBe(undefined);
});

test("a provider has no more methods for being checked", () => {
  expect(Object.keys(providerWith({}))).toEqual(["acquire", "heartbeat", "release", "get"]);
});

test.each([
  ["timeout", Object.assign(new Error(), { name: "TimeoutError" })],
  ["unreachable", Object.assign(new Error(), { code: "ECONNREFUSED" })],
  ["untrusted", Object.assign(new Error(), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" })],
  ["untrusted", Object.assign(new Error(), { code: "CERT_HAS_EXPIRED" })],
  ["denied", Object.assign(new Error(), { name: "AccessDeniedException" })],
  ["denied", Object.assign(new Error(), { name: "CredentialsProviderError" })],
  ["overloaded", Object.assign(new Error(), { name: "ProvisionedThroughputExceededException" })],
  ["contended", new Failure("contended", "said")],
  ["unreachable", Object.assign(new Error("said"), { kind: "provider_unavailable" })],
  ["failed", new Error("said")],
  ["failed", null],
  ["failed", undefined],
  ["failed", "said"],
  ["failed", { code: 5 }],
])("clients are told %s, and nothing of what was said", (reason, error) => {
  const { kind, message, details, cause } = unavailable("etcd", error);
  expect({ kind, details, cause }).toEqual({
    kind: "provider_unavailable",
    details: { provider: "etcd", reason },
    cause: error,
  });
  expect(message).not.toContain("said");
});

test("of a secret only its name is logged, however it is written", () => {
  const value = 'p"ss wörd';
  const more = loggable(parseProvider(`custom:/m.js,key=${value},longer=${value}-2,n=1`), {});
  expect(more.title).toBe("custom:/m.js");
  expect(more.text(`a ${value} b ${encodeURIComponent(value)} c ${JSON.stringify({ value })} 1`)).toBe(
    'a [key] b [key] c {"value":"[key]"} 1',
  );
  expect(more.text(`${value}-2`)).toBe("[longer]");
  expect(more.text(REQUEST.leaseId)).toBe("[leaseId]");

  const env = {
    ETCDCTL_USER: "root:se:cret",
    ETCDCTL_PASSWORD: "another",
    AWS_SECRET_ACCESS_KEY: "wJalrXUtnFEMI",
    AWS_SESSION_TOKEN: "FwoGZXIvYXdz",
  };
  const etcd = loggable(parseProvider("etcd:endpoints=http://e:1"), env);
  expect(etcd.title).toBe("etcd:endpoints=http://e:1");
  for (const secret of ["se:cret", "another", "wJalrXUtnFEMI", "FwoGZXIvYXdz"]) {
    expect(etcd.text(`with ${secret} it failed`)).toMatch(/^with \[[\w ]+\] it failed$/);
  }
});

test("whatever is thrown, something can be logged of it", () => {
  const { error, stack } = loggable(parseProvider("custom:/m.js,key=secret"), {});
  expect(error(new Error("outer", { cause: new Error("secret") }))).toBe("outer: [key]");
  expect(error(Object.assign(new AggregateError([]), { code: "ECONNREFUSED" }))).toBe("ECONNREFUSED");
  expect(error({ message: "plain" })).toBe("plain");
  expect(error(undefined)).toContain("undefined was thrown");
  expect(error(Object.create(null))).toContain("cannot even be shown");
  expect(error(new Error("x".repeat(5000)))).toHaveLength(1000);
  // Where it comes from, and not what it says again, however long that is.
  expect(stack(new Error(`secret\n${"x".repeat(100_000)}`))).toMatch(/^ {4}at [^\n]*lease-provider-answers/);
  const at = Object.assign(new Error(), { stack: "Error\n    at secret (file:///a.js:1:1)" });
  expect(stack(at)).toBe("    at [key] (file:///a.js:1:1)");
  at.stack = `Error\n    at ${"y".repeat(100_000)}`;
  expect(stack(at)).toHaveLength(1000);
  expect(stack("no error")).toBe(undefined);
});
