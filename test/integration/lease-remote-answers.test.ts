// The answers of a lease provider, and what becomes of them: clients are told the kind of provider and a reason, the
// log the rest without secrets, an answer that cannot be is none, and a token that was seen is remembered.
// Not over shared names: a provider keeps these names.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory } from "../daemon.js";
import { Faulty } from "../faulty.js";
import { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const OWNER = "test";
const NAME = "out/release";

test.concurrent("the exceptions of a provider are for the log, and its secrets are for nobody", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd, { more: "password=hunter2" });
  const place = faulty.place();
  const readOnlySocket = join(place.directory, "read-only.sock");
  const daemon = await place.start({ args: [...faulty.args, "--read-only-socket", readOnlySocket] });
  const client = await place.connect();
  const reading = await RawClient.connect(readOnlySocket);
  const { lease } = await client.call("lease.acquire", { name: "out/held", owner: OWNER });
  const other = await client.call("lease.acquire", { name: "out/other", owner: OWNER });
  faulty.fault = "quote";
  const { leaseId, fencingToken } = lease;
  const check = ["lease.check", { name: "out/held", fencingToken }] as const;
  const asked = [
    [client, "lease.acquire", { name: NAME, owner: OWNER }],
    [client, "lease.heartbeat", { leaseId }],
    [client, "lease.release", { leaseId: other.lease.leaseId }],
    [client, "lease.break", { name: "out/held", reason: "test" }],
    [client, ...check],
    [reading, ...check],
    [reading, "lease.get", { name: "out/held" }],
  ] as const;
  await Promise.all(
    asked.map(async ([through, method, params]) => {
      const { data, message } = expectRefusal(await through.refusal(method, params), "provider_unavailable");
      expect(data, method).toEqual({
        kind: "provider_unavailable",
        retryable: true,
        provider: "custom",
        reason: "unreachable",
      });
      expect(message, method).toContain("cannot be reached");
    }),
  );
  const { text, provider } = await daemon.logged(({ msg }) => msg === "the lease provider does not answer");
  expect(provider).toMatch(/^custom:.*faulty-provider\.js$/);
  expect(text).toContain("no route to postgres://[user]@db/leases");
  expect(text).toContain('"password":"[password]"');
  await reading.destroy();
  expect(await daemon.end()).toBe(0);
  const log = JSON.stringify(daemon.log);
  expect(log).toContain("for [leaseId]");
  for (const secret of ["hunter2", "tiger", leaseId, other.lease.leaseId]) expect(log).not.toContain(secret);
  // Nor is it in what is copied by a backup.
  const database = readFileSync(join(place.stateDir, "pawl.db"));
  expect(database.includes("faulty-provider.js#")).toBe(true);
  expect(database.includes("hunter2")).toBe(false);
});

test.concurrent("an error of a provider at the start is told without its secrets too", async ({
  onTestFinished: atEnd,
}) => {
  const directory = privateDirectory(atEnd);
  const module = join(directory, "module.js");
  writeFileSync(
    module,
    'export const createLeaseProvider = ({ params }) => Promise.reject(new Error("no login with " + params.password));',
  );
  const daemon = new Place(undefined, atEnd).spawn({
    args: ["--lease-provider", `*=custom:${module},password=hunter2`],
  });
  expect(await daemon.exited).toBe(3);
  expect(daemon.stderr).toBe(
    `pawld: The lease provider custom:${module} cannot be used: no login with [password].\n`,
  );
});

test.concurrent("a provider that never comes to be is given up, and the daemon says so", async ({
  onTestFinished: atEnd,
}) => {
  const directory = privateDirectory(atEnd);
  const endless = "new Promise(() => {})";
  const modules = {
    "the promise of createLeaseProvider": `export const createLeaseProvider = () => ${endless};`,
    "loading the module": `await ${endless}; export const createLeaseProvider = 1;`,
  };
  await Promise.all(
    Object.entries(modules).map(async ([what, code], index) => {
      const module = join(directory, `${index}.js`);
      writeFileSync(module, code);
      const place = new Place(undefined, atEnd);
      const daemon = place.spawn({ args: ["--lease-provider", `*=custom:${module}`] });
      expect(await daemon.exited).toBe(3);
      expect(daemon.stderr).toBe(
        `pawld: The lease provider custom:${module} cannot be used: ${what} was not settled within 10000 ms.\n`,
      );
    }),
  );
});

const holder = { owner: "x", fencingToken: 7, acquiredAt: 1, remainingMs: 1, note: null };
const MALFORMED: Record<string, readonly (readonly [answer: string, says: string])[]> = {
  acquire: [
    ["undefined", "acquire answered undefined"],
    ["null", "acquire answered null"],
    ["5", "acquire answered 5"],
    ["{}", "granted"],
    ['{"granted":"yes"}', "granted"],
    ['{"granted":true}', "fencingToken"],
    ['{"granted":true,"fencingToken":"7","remainingMs":1}', "fencingToken"],
    ['{"granted":true,"fencingToken":7.5,"remainingMs":1}', "fencingToken"],
    ['{"granted":true,"fencingToken":9007199254740992,"remainingMs":1}', "fencingToken"],
    ['{"granted":true,"fencingToken":7}', "remainingMs"],
    ['{"granted":true,"fencingToken":7,"remainingMs":99999999}', "remainingMs"],
    ['{"granted":false}', "holder"],
    ['{"granted":false,"holder":null,"retryMs":1}', "holder"],
    [JSON.stringify({ granted: false, holder }), "retryMs"],
    [JSON.stringify({ granted: false, holder: { ...holder, owner: 5 }, retryMs: 1 }), "holder.owner"],
  ],
  heartbeat: [
    ["undefined", "heartbeat answered undefined"],
    ["{}", "remainingMs"],
    ['{"remainingMs":"5"}', "remainingMs"],
    ['{"remainingMs":99999999}', "remainingMs"],
  ],
  get: [
    ["undefined", "get answered undefined"],
    ['{"owner":5}', "owner"],
    [JSON.stringify({ ...holder, owner: "" }), "owner"],
    [JSON.stringify({ ...holder, owner: "x".repeat(129) }), "owner"],
    [JSON.stringify({ ...holder, owner: "\ud800" }), "owner"],
    [JSON.stringify({ ...holder, fencingToken: -1 }), "fencingToken"],
    [JSON.stringify({ ...holder, acquiredAt: "today" }), "acquiredAt"],
    [JSON.stringify({ ...holder, remainingMs: null }), "remainingMs"],
    [JSON.stringify({ ...holder, note: 5 }), "note"],
  ],
  inspect: [
    ["null", "inspect answered null"],
    ['{"holder":null}', "highest"],
    ['{"holder":null,"highest":-1}', "highest"],
    [JSON.stringify({ holder, highest: 6 }), "highest"],
    ['{"highest":1}', "holder"],
  ],
  break: [["undefined", "break answered undefined"]],
  release: [["undefined", "release answered undefined"]],
};

test.concurrent.for(Object.keys(MALFORMED))(
  "an answer to %s that cannot be is none, and the log says what is wrong with it",
  async (method, { onTestFinished: atEnd }) => {
    const faulty = new Faulty(atEnd, { forgetful: method === "get" });
    const daemon = await faulty.start();
    const client = await daemon.place.connect();
    const { lease } = await client.call("lease.acquire", { name: "out/held", owner: OWNER });
    const { leaseId } = lease;
    const ask: Record<string, () => ReturnType<RawClient["refusal"]>> = {
      acquire: () => client.refusal("lease.acquire", { name: NAME, owner: OWNER }),
      heartbeat: () => client.refusal("lease.heartbeat", { leaseId }),
      get: () => client.refusal("lease.get", { name: "out/held" }),
      inspect: () => client.refusal("lease.get", { name: "out/held" }),
      break: () => client.refusal("lease.break", { name: "out/held", reason: "test" }),
      release: () => client.refusal("lease.release", { leaseId }),
    };
    for (const [answer, says] of MALFORMED[method] as (typeof MALFORMED)[string]) {
      faulty.fault = `answer ${method} ${answer}`;
      const from = daemon.log.length;
      const error = expectRefusal(await ask[method]?.(), "provider_unavailable");
      expect(error.data, answer).toMatchObject({ provider: "custom", reason: "bad_answer" });
      const logged = await daemon.logged(
        (line) => daemon.log.indexOf(line) >= from && line.msg === "a lease provider breaks its rules",
      );
      expect(logged, answer).toMatchObject({ level: "error", text: expect.stringContaining(says) });
    }
    // Nothing is asked again that is answered wrongly. A busy machine may answer too late, which is something else.
    const warnings = daemon.log.filter(({ level, reason }) => level === "warn" && reason !== "timeout");
    expect(warnings).toEqual([]);
    if (method === "release") return;
    faulty.fault = `reject ${method} null`;
    const { data } = expectRefusal(await ask[method]?.(), "provider_unavailable");
    expect(data).toMatchObject({ provider: "custom", reason: "failed" });
    const { text } = await daemon.logged(({ msg }) => msg === "the lease provider failed");
    expect(text).toBe("null was thrown, which is no error");
  },
);

test.concurrent("a provider that cannot be used is known within the patience that is promised", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const client = await (await faulty.start()).place.connect();
  faulty.fault = "hang acquire";
  const begun = performance.now();
  // An attempt may take a quarter of the ttl: two of them would be 5 s.
  const { data } = await client.refusal("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 10_000 });
  expect(data).toMatchObject({ kind: "provider_unavailable", reason: "timeout" });
  expect(performance.now() - begun).toBeLessThan(4500);
});

test.concurrent.for([
  ["says to ask again at once", ""],
  ["tells at once that the name may be free", "eager=1"],
])("a provider that %s is not asked without end", async ([, more], { onTestFinished: atEnd }) => {
  const faulty = new Faulty(atEnd, { more });
  const client = await (await faulty.start()).place.connect();
  const other = await (await faulty.start()).place.connect();
  await other.call("lease.acquire", { name: NAME, owner: OWNER });
  faulty.fault = "soon acquire";
  const { data } = await client.refusal("lease.acquire", { name: NAME, owner: OWNER, waitMs: 1000 });
  expect(data.kind).toBe("lease_held");
  expect(faulty.calls.filter((call) => call === "acquire soon").length).toBeLessThanOrEqual(1000 / 50 + 1);
});

/** A daemon's answer about a token: `[current, highest]`. */
async function checked(client: RawClient, fencingToken: number): Promise<[boolean, number]> {
  const { current, highest } = await client.call("lease.check", { name: NAME, fencingToken });
  return [current, highest];
}

/** Acquires and releases so often, and gives the last token. */
async function rounds(client: RawClient, count: number): Promise<number> {
  let last = 0;
  for (let round = 0; round < count; round += 1) {
    const { lease } = await client.call("lease.acquire", { name: NAME, owner: OWNER });
    await client.call("lease.release", { leaseId: lease.leaseId });
    last = lease.fencingToken;
  }
  return last;
}

test.concurrent("highest never falls, whatever becomes of the lease or of the provider, and current goes with it", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const [daemon, other, fresh] = await Promise.all([faulty.start(), faulty.start(), faulty.start()]);
  const reader = faulty.place();
  await reader.start({ args: [...faulty.args, "--state-dir", fresh.place.stateDir, "--read-only"] });
  const clients = [await daemon.place.connect(), await reader.connect()];
  const holding = await other.place.connect();
  const all = (token: number) => Promise.all(clients.map((client) => checked(client, token)));

  expect(await all(1)).toEqual([
    [false, 0],
    [false, 0],
  ]);
  // Never held while one of them looked: the provider keeps it.
  const last = await rounds(holding, 3);
  expect(await all(last)).toEqual([
    [false, last],
    [false, last],
  ]);
  const { lease } = await holding.call("lease.acquire", { name: NAME, owner: OWNER });
  const token = lease.fencingToken;
  expect(await all(token)).toEqual([
    [true, token],
    [true, token],
  ]);
  expect(await all(last)).toEqual([
    [false, token],
    [false, token],
  ]);
  await holding.call("lease.break", { name: NAME, reason: "test" });
  expect(await all(token)).toEqual([
    [false, token],
    [false, token],
  ]);

  faulty.wipe();
  expect(await all(token)).toEqual([
    [false, token],
    [false, token],
  ]);
  // A daemon that never saw the name cannot know better than the provider; who has seen it does.
  const forgotten = await (await fresh.place.connect()).call("lease.acquire", { name: NAME, owner: OWNER });
  expect(forgotten.lease.fencingToken).toBe(1);
  expect(await all(1)).toEqual([
    [false, token],
    [false, token],
  ]);
  for (const client of clients) await client.destroy();
});

test.concurrent.for(["lease.get", "lease.check", "lease.acquire"] as const)(
  "a token that was seen by %s alone is remembered over kill -9, and the next one is higher",
  async (method, { onTestFinished: atEnd }) => {
    const faulty = new Faulty(atEnd, { forgetful: true });
    const place = faulty.place();
    const [daemon, other] = await Promise.all([place.start({ args: faulty.args }), faulty.start()]);
    const holding = await other.place.connect();
    await rounds(holding, 3);
    const { lease } = await holding.call("lease.acquire", { name: NAME, owner: OWNER });
    const token = lease.fencingToken;
    const client = await place.connect();
    if (method === "lease.get") await client.call(method, { name: NAME });
    if (method === "lease.check") await client.call(method, { name: NAME, fencingToken: 1 });
    if (method === "lease.acquire") await client.refusal(method, { name: NAME, owner: OWNER });
    await daemon.end("SIGKILL");
    await holding.call("lease.release", { leaseId: lease.leaseId });

    await place.start({ args: faulty.args });
    const again = await place.connect();
    expect(await checked(again, token)).toEqual([false, token]);
    faulty.wipe();
    const next = await again.call("lease.acquire", { name: NAME, owner: OWNER });
    expect(next.lease.fencingToken).toBeGreaterThan(token);
    expect(await checked(again, next.lease.fencingToken)).toEqual([true, next.lease.fencingToken]);
  },
);

test.concurrent("a daemon that learns of a higher token knows that its own holder has lost it", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const [daemon, other] = await Promise.all([faulty.start(), faulty.start()]);
  const client = await daemon.place.connect();
  const elsewhere = await other.place.connect();
  const { lease } = await client.call("lease.acquire", { name: NAME, owner: OWNER });
  await elsewhere.call("lease.break", { name: NAME, reason: "stuck" });
  const next = await elsewhere.call("lease.acquire", { name: NAME, owner: "next" });
  const told = client.line();
  expect((await client.call("lease.get", { name: NAME })).lease).toMatchObject({ owner: "next" });
  expect(JSON.parse(await told)).toMatchObject({
    method: "lease.lost",
    params: { leaseId: lease.leaseId, cause: "broken" },
  });
  const guards = [{ lease: { name: NAME, fencingToken: lease.fencingToken } }];
  const calls = [{ method: "sequence.next", params: { type: "FR" } }];
  expect((await client.refusal("transact", { calls, guards })).data.kind).toBe("lease_lost");
  expect((await client.call("lease.list", {})).leases).toEqual([]);
  expect(await checked(client, next.lease.fencingToken)).toEqual([true, next.lease.fencingToken]);
});

test.concurrent("a grant whose answer was lost is found again, also when its token was seen meanwhile", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const daemon: DaemonProcess = await faulty.start();
  const [client, looking] = [await daemon.place.connect(), await daemon.place.connect()];
  faulty.fault = "drop acquire";
  const asked = client.call("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 3_600_000 });
  const seen = async () => (await looking.call("lease.get", { name: NAME })).lease?.fencingToken;
  await until(async () => (await seen()) !== undefined);
  const token = await seen();
  faulty.fault = undefined;
  expect((await asked).lease.fencingToken).toBe(token);
});

test.concurrent("a holder that asks for a shorter ttl and gets no answer stops before another may hold it", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const [daemon, other] = await Promise.all([faulty.start(), faulty.start()]);
  const [client, elsewhere] = [await daemon.place.connect(), await other.place.connect()];
  const { lease } = await client.call("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 3_600_000 });
  const order: string[] = [];
  faulty.fault = "drop heartbeat";
  const told = (async () => {
    for (;;) {
      const { method, params } = JSON.parse(await client.line());
      if (method !== "lease.lost") continue;
      order.push("told");
      return params;
    }
  })();
  const { leaseId, fencingToken } = lease;
  client.send({
    jsonrpc: "2.0",
    id: "shorter",
    method: "lease.heartbeat",
    params: { leaseId, ttlMs: 1000 },
  });
  const next = await elsewhere.call("lease.acquire", { name: NAME, owner: "next", waitMs: 60_000 });
  order.push("granted");
  expect(next.lease.fencingToken).toBeGreaterThan(fencingToken);
  expect(await told).toMatchObject({ leaseId, cause: "expired" });
  expect(order).toEqual(["told", "granted"]);
});

test.concurrent("a ttl is made shorter and longer again, and nobody is warned too early", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const client = await (await faulty.start()).place.connect();
  const { lease } = await client.call("lease.acquire", { name: NAME, owner: OWNER, ttlMs: 3_600_000 });
  const { leaseId, fencingToken } = lease;
  for (const ttlMs of [60_000, 30_000, 3_600_000]) {
    const { remainingMs } = await client.call("lease.heartbeat", { leaseId, ttlMs });
    expect(remainingMs).toBeGreaterThan(ttlMs / 2);
    expect(remainingMs).toBeLessThanOrEqual(ttlMs);
  }
  expect(await checked(client, fencingToken)).toEqual([true, fencingToken]);
  expect(client.lines).toEqual([]);
});

test.concurrent("a provider that fails again and again fills no log, though it answers in between", async ({
  onTestFinished: atEnd,
}) => {
  const faulty = new Faulty(atEnd);
  const daemon = await faulty.start();
  const client = await daemon.place.connect();
  const attempts = (call: string) => faulty.calls.filter((each) => each === call).length;
  const logged = (text: unknown) => ({ level: "error", msg: "the lease provider failed", text });

  // A lease that may have been granted is given back, and that succeeds.
  faulty.fault = "throw acquire";
  for (const round of [1, 2]) {
    expect((await client.refusal("lease.acquire", { name: NAME, owner: OWNER })).data.kind).toBe(
      "provider_unavailable",
    );
    await until(() => attempts("release -") >= round);
  }
  expect(attempts("acquire throw")).toBeGreaterThan(2);
  // Another defect is logged too.
  faulty.fault = 'reject inspect {"message":"another"}';
  await client.refusal("lease.get", { name: NAME });
  expect(attempts("inspect reject")).toBeGreaterThan(1);
  expect(await daemon.end()).toBe(0);
  expect(daemon.log.filter(({ level }) => level === "warn" || level === "error")).toMatchObject([
    { ...logged(expect.anything()), stack: expect.stringContaining("faulty-provider.js") },
    logged("another"),
  ]);
});
