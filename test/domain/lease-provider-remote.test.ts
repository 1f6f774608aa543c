// The providers, under the suite that every provider has to pass: against what they stand on, in
// processes of its own. Where expiry is judged by a clock that the provider is given, that clock is made up.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { renameSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LeaseProvider, leaseProviderConformance } from "../../daemon/dist/index.js";
import { createTable, loadProvider } from "../../daemon/dist/remote/load.js";
import {
  type DynamoDbSpecification,
  type EtcdSpecification,
  parseProvider,
} from "../../daemon/dist/remote/specification.js";
import { Authority, HAS_OPENSSL } from "../certificates.js";
import { type AtEnd, privateDirectory } from "../daemon.js";
import { Dynalite, signHere } from "../dynalite.js";
import { EtcdCluster, HAS_ETCD } from "../etcd.js";
import { LossyProxy } from "../lossy-proxy.js";

const EXAMPLE = join(import.meta.dirname, "../../docs/providers/directory-provider.js");

/** Registers what is to be done at the end of a stage. */
function stageEnd(): { atEnd: AtEnd; close: () => Promise<void> } {
  const actions: (() => void | Promise<void>)[] = [];
  return {
    atEnd: (action) => void actions.unshift(action),
    close: async () => {
      for (const action of actions.splice(0)) await action();
    },
  };
}

/** Time that passes when it is told to. */
function madeUpClock() {
  let passedMs = 0;
  return {
    clocks: { elapsed: () => passedMs, now: () => 1_700_000_000_000 + passedMs },
    pass: async (ms: number) => {
      passedMs += ms;
    },
  };
}

describe("dynamodb", () => {
  let dynalite: Dynalite;
  const { atEnd, close } = stageEnd();
  beforeAll(async () => {
    signHere(atEnd);
    dynalite = await Dynalite.start(atEnd);
  });
  afterAll(close);

  const specificationFor = (port: number): DynamoDbSpecification =>
    parseProvider(
      `dynamodb:table=leases-${randomUUID()},endpoint=http://127.0.0.1:${port}`,
    ) as DynamoDbSpecification;

  leaseProviderConformance({
    test,
    takeoverMs: (ttlMs) => 2 * ttlMs,
    stage: async () => {
      const end = stageEnd();
      const proxy = await LossyProxy.start(dynalite.port, end.atEnd);
      const specification = specificationFor(proxy.port);
      expect(await createTable(specification, sleep)).toBe(true);
      const { clocks, pass } = madeUpClock();
      return {
        open: async () => closing(await loadProvider(specification, clocks), end.atEnd),
        pass,
        cut: () => proxy.cut(),
        close: end.close,
      };
    },
  });

  test("a table is made once, and one for something else is refused", async () => {
    const specification = specificationFor(dynalite.port);
    expect(await createTable(specification, sleep)).toBe(true);
    expect(await createTable(specification, sleep)).toBe(false);
    const { DynamoDBClient, CreateTableCommand } = await import("@aws-sdk/client-dynamodb");
    const client = new DynamoDBClient({ endpoint: dynalite.endpoint });
    const TableName = `orders-${randomUUID()}`;
    await client.send(
      new CreateTableCommand({
        TableName,
        AttributeDefinitions: [{ AttributeName: "orderId", AttributeType: "S" }],
        KeySchema: [{ AttributeName: "orderId", KeyType: "HASH" }],
        BillingMode: "PAY_PER_REQUEST",
      }),
    );
    client.destroy();
    await expect(createTable({ ...specification, table: TableName }, sleep)).rejects.toMatchObject({
      kind: "conflict",
      details: { table: TableName, key: "orderId (HASH)" },
    });
  });

  test("a table that is not there is told, with what makes it", async () => {
    const specification = specificationFor(dynalite.port);
    const { clocks } = madeUpClock();
    const end = stageEnd();
    const provider = closing(await loadProvider(specification, clocks), end.atEnd);
    await expect(provider.get("release")).rejects.toMatchObject({
      kind: "provider_unavailable",
      details: { provider: "dynamodb", reason: "no_table" },
      cause: { message: expect.stringContaining(`pawl lease-table create ${specification.text}`) },
    });
    await end.close();
  });
});

describe.skipIf(!HAS_ETCD)("etcd", { concurrent: true }, () => {
  let cluster: EtcdCluster;
  const { atEnd, close } = stageEnd();
  beforeAll(async () => {
    if (HAS_ETCD) cluster = await EtcdCluster.start(3, atEnd);
  });
  afterAll(close);

  const realClocks = { elapsed: () => performance.now(), now: () => Date.now() };

  leaseProviderConformance({
    test,
    // etcd grants a second here at least, looks for what has ended twice a second, and the machine may be busy.
    takeoverMs: () => 5000,
    stage: async () => {
      const end = stageEnd();
      const proxies = await Promise.all(
        cluster.endpoints.map((endpoint) => LossyProxy.start(Number(new URL(endpoint).port), end.atEnd)),
      );
      const endpoints = proxies.map(({ port }) => `http://127.0.0.1:${port}`).join(",");
      const specification = parseProvider(
        `etcd:endpoints=${endpoints},prefix=${randomUUID()}/`,
      ) as EtcdSpecification;
      return {
        open: async () => closing(await loadProvider(specification, realClocks), end.atEnd),
        pass: async (ms) => {
          await sleep(ms);
        },
        cut: async () => {
          for (const proxy of proxies) await proxy.cut();
        },
        close: end.close,
      };
    },
  });

  test("a change of the ttl whose answer was lost loses nothing", async ({ onTestFinished }) => {
    let losing = false;
    let lost = 0;
    const before = createServer(async (request, response) => {
      const answer = await fetch(new URL(request.url as string, cluster.endpoints[0]), {
        method: "POST",
        body: await text(request),
      });
      const body = await answer.text();
      // etcd has done it by now.
      if (losing && request.url === "/v3/kv/txn") {
        lost += 1;
        response.destroy();
      } else response.writeHead(answer.status).end(body);
    });
    onTestFinished(() => void before.close().closeAllConnections());
    before.listen(0, "127.0.0.1");
    await once(before, "listening");
    const { port } = before.address() as AddressInfo;
    const specification = parseProvider(`etcd:endpoints=http://127.0.0.1:${port},prefix=${randomUUID()}/`);
    const provider = closing(
      await loadProvider(specification as EtcdSpecification, realClocks),
      onTestFinished,
    );
    const request = {
      name: "release",
      leaseId: `lease_${randomUUID()}`,
      owner: "test",
      ttlMs: 60_000,
      note: null,
      peer: { pid: null, uid: null, gid: null },
      tokenAbove: 0,
    };
    const { fencingToken } = (await provider.acquire(request)) as { fencingToken: number };
    losing = true;
    await expect(provider.heartbeat({ ...request, ttlMs: 90_000 })).rejects.toMatchObject({
      kind: "provider_unavailable",
    });
    losing = false;
    expect(lost).toBeGreaterThan(0);
    // The holder goes on as if it had never asked.
    expect((await provider.heartbeat(request))?.remainingMs).toBeGreaterThan(30_000);
    expect(await provider.get("release")).toMatchObject({ fencingToken });
    expect(await provider.release(request)).toBe(true);
    expect(await provider.heartbeat(request)).toBe(null);
  });
});

test.skipIf(!HAS_ETCD)("etcd with users: as etcdctl takes them, and a wrong password is told", async () => {
  const end = stageEnd();
  const cluster = await EtcdCluster.start(1, end.atEnd);
  const [endpoint] = cluster.endpoints;
  for (const [path, body] of [
    ["user/add", { name: "root", password: "secret:1" }],
    ["role/add", { name: "root" }],
    ["user/grant", { user: "root", role: "root" }],
    ["enable", {}],
  ] as const) {
    const { status } = await fetch(`${endpoint}/v3/auth/${path}`, {
      method: "POST",
      body: JSON.stringify(body),
    });
    expect(status, path).toBe(200);
  }
  const specification = parseProvider(`etcd:endpoints=${endpoint}`) as EtcdSpecification;
  const clocks = { elapsed: () => performance.now(), now: () => Date.now() };
  try {
    for (const [user, password] of [
      ["root:secret:1", undefined],
      ["root", "secret:1"],
    ]) {
      process.env.ETCDCTL_USER = user;
      if (password !== undefined) process.env.ETCDCTL_PASSWORD = password;
      const provider = closing(await loadProvider(specification, clocks), end.atEnd);
      expect(await provider.get("release")).toBe(null);
    }
    process.env.ETCDCTL_USER = "root:wrong";
    const provider = closing(await loadProvider(specification, clocks), end.atEnd);
    await expect(provider.get("release")).rejects.toMatchObject({
      kind: "provider_unavailable",
      details: { provider: "etcd", reason: "denied" },
      cause: { message: expect.stringContaining("authentication failed") },
    });
  } finally {
    delete process.env.ETCDCTL_USER;
    delete process.env.ETCDCTL_PASSWORD;
    await end.close();
  }
});

describe.skipIf(!HAS_ETCD || !HAS_OPENSSL)("etcd by TLS", () => {
  let cluster: EtcdCluster;
  let ours: Authority;
  let theirs: Authority;
  const { atEnd, close } = stageEnd();
  beforeAll(async () => {
    if (!HAS_ETCD || !HAS_OPENSSL) return;
    const directory = privateDirectory(atEnd);
    ours = new Authority(directory, "ours");
    theirs = new Authority(directory, "theirs");
    cluster = await EtcdCluster.start(1, atEnd, ours.sign("etcd"));
  });
  afterAll(close);

  const open = async (files: { ca?: string; cert?: string; key?: string }): Promise<LeaseProvider> => {
    const params = Object.entries(files).map(([name, path]) => `,${name}=${path}`);
    const text = `etcd:endpoints=${cluster.endpoints[0]}${params.join("")}`;
    const clocks = { elapsed: () => performance.now(), now: () => Date.now() };
    return closing(await loadProvider(parseProvider(text) as EtcdSpecification, clocks), atEnd);
  };

  test("with a certificate that both trust, leases are granted, watched and given back", async () => {
    const provider = await open(ours.sign("pawld"));
    const request = {
      name: "release",
      leaseId: `lease_${randomUUID()}`,
      owner: "test",
      ttlMs: 60_000,
      note: null,
      peer: { pid: null, uid: null, gid: null },
      tokenAbove: 0,
    };
    const { fencingToken } = (await provider.acquire(request)) as { fencingToken: number };
    expect(await provider.get("release")).toMatchObject({ owner: "test", fencingToken });
    const watched = provider.watch?.("release", AbortSignal.timeout(60_000));
    expect(await provider.heartbeat(request)).not.toBe(null);
    expect(await provider.release(request)).toBe(true);
    await watched;
    expect(await provider.get("release")).toBe(null);
  });

  test.each([
    ["no certificate of ours", () => ({ ca: ours.ca })],
    ["a certificate of another authority", () => ({ ...theirs.sign("pawld"), ca: ours.ca })],
    ["another authority to trust", () => ({ ...ours.sign("pawld"), ca: theirs.ca })],
    ["only the authorities that everybody trusts", () => ({})],
  ])("with %s, it is told that one is not trusted", async (_, files) => {
    const provider = await open(files());
    await expect(provider.get("release")).rejects.toMatchObject({
      kind: "provider_unavailable",
      details: { provider: "etcd", reason: "untrusted" },
    });
  });
});

describe("custom, by the example of the documentation", () => {
  leaseProviderConformance({
    test,
    takeoverMs: (ttlMs) => 2 * ttlMs,
    stage: async () => {
      const end = stageEnd();
      const directory = join(privateDirectory(end.atEnd), "leases");
      const specification = parseProvider(`custom:${EXAMPLE},directory=${directory}`) as EtcdSpecification;
      const { clocks, pass } = madeUpClock();
      return {
        open: async () => closing(await loadProvider(specification, clocks), end.atEnd),
        pass,
        cut: async () => {
          renameSync(directory, `${directory}-gone`);
        },
        close: end.close,
      };
    },
  });
});

function closing(provider: LeaseProvider, atEnd: AtEnd): LeaseProvider {
  atEnd(() => provider.close?.());
  return provider;
}
