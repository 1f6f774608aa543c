// Modules loaded and refused at the start of a daemon with lease providers, and the table that is made for one.
// Not over shared names: a provider keeps these names.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { PAWL, PAWLD, Place, privateDirectory, startDaemon } from "../daemon.js";
import { AWS_ENV, Dynalite } from "../dynalite.js";

/** Module hooks that write down what a process loads, and say of the AWS SDK that it is not there if told so. */
function watchingLoads({ withoutSdk = false } = {}): { env: Record<string, string>; loaded: () => string } {
  const directory = privateDirectory();
  const list = join(directory, "loaded");
  writeFileSync(list, "");
  const hooks = join(directory, "hooks.cjs");
  writeFileSync(
    hooks,
    `const fs = require("node:fs");
     const { appendFileSync, readFileSync } = fs;
     const Module = require("node:module");
     // The files of the bundle are read and compiled by pawld itself.
     fs.readFileSync = function (file, ...rest) {
       if (String(file).endsWith(".cjs")) appendFileSync(${JSON.stringify(list)}, "file://" + file + "\\n");
       return readFileSync.call(this, file, ...rest);
     };
     Module.syncBuiltinESMExports();
     const load = Module._load;
     Module._load = function (name, parent, isMain) {
       if (${withoutSdk} && name.startsWith("@aws-sdk/")) {
         throw Object.assign(new Error("Cannot find module"), { code: "MODULE_NOT_FOUND" });
       }
       const found = Module._resolveFilename(name, parent, isMain);
       const url = Module.isBuiltin(found) ? "node:" + found.replace("node:", "") : "file://" + found;
       appendFileSync(${JSON.stringify(list)}, url + "\\n");
       return load.call(this, name, parent, isMain);
     };`,
  );
  return { env: { NODE_OPTIONS: `--require ${hooks}` }, loaded: () => readFileSync(list, "utf8") };
}

/** Modules of Node that only providers need, and that take their time to load too. */
const OF_THE_NETWORK = /^node:(https?|http2|tls|dns|readline)$/m;

/** Where the AWS SDK finds no region. */
const NO_REGION = {
  AWS_REGION: "",
  AWS_DEFAULT_REGION: "",
  AWS_CONFIG_FILE: "/nowhere/config",
  AWS_SHARED_CREDENTIALS_FILE: "/nowhere/credentials",
};

/** What each provider loads, by parts of the names: in the bundle of pawld it is a file of its own. */
const OF_ETCD = ["/bundle/etcd-"];
const OF_DYNAMODB = ["/bundle/dynamodb-", "/@aws-sdk/", "/@smithy/"];

test("without a provider configured, nothing of any is loaded", async () => {
  const { env, loaded } = watchingLoads();
  const daemon = await startDaemon({ env });
  await daemon.place.next();
  expect(loaded()).toContain("better-sqlite3");
  expect(partsIn(loaded(), [...OF_ETCD, ...OF_DYNAMODB])).toEqual([]);
  expect(loaded()).not.toMatch(OF_THE_NETWORK);
});

test("with etcd configured, etcd's alone is; with dynamodb, its own and the SDK", async () => {
  const etcd = watchingLoads();
  await startDaemon({
    env: etcd.env,
    args: ["--lease-provider", "*=etcd:endpoints=http://127.0.0.1:1"],
  });
  expect(partsIn(etcd.loaded(), [...OF_ETCD, ...OF_DYNAMODB])).toEqual(OF_ETCD);
  expect(etcd.loaded()).toMatch(OF_THE_NETWORK);
  const dynamodb = watchingLoads();
  await startDaemon({
    env: { ...AWS_ENV, ...dynamodb.env },
    args: ["--lease-provider", "*=dynamodb:table=leases"],
  });
  expect(dynamodb.loaded()).toContain("@aws-sdk/client-dynamodb");
  expect(partsIn(dynamodb.loaded(), [...OF_ETCD, ...OF_DYNAMODB])).toEqual(OF_DYNAMODB);
});

function partsIn(loaded: string, parts: readonly string[]): string[] {
  return parts.filter((part) => loaded.includes(part));
}

test("a provider that cannot be reached is told by its kind; where it is, and what the SDK says, is in the log", async () => {
  const specifications = {
    etcd: "etcd:endpoints=http://127.0.0.1:1,prefix=secret/",
    dynamodb: "dynamodb:table=leases,endpoint=http://127.0.0.1:1",
  };
  await Promise.all(
    Object.entries(specifications).map(async ([provider, specification]) => {
      const daemon = await new Place().start({
        env: AWS_ENV,
        args: ["--lease-provider", `*=${specification}`],
      });
      const client = await daemon.place.connect();
      const { data, message } = await client.refusal("lease.get", { name: "a" });
      expect(data).toEqual({
        kind: "provider_unavailable",
        retryable: true,
        provider,
        reason: "unreachable",
      });
      expect(message).not.toMatch(/127\.0\.0\.1|secret|leases|ECONN/);
      const logged = await daemon.logged(({ reason }) => reason === "unreachable");
      expect(logged).toMatchObject({ level: "warn", provider: specification });
      expect(logged.text).toContain("ECONNREFUSED 127.0.0.1:1");
    }),
  );
});

test("a provider that cannot be loaded is said at the start, with what to do", async () => {
  const missing = watchingLoads({ withoutSdk: true });
  const directory = privateDirectory();
  const module = join(directory, "module.js");
  writeFileSync(module, "export const nothing = 1;");
  const pem = join(directory, "no.pem");
  writeFileSync(pem, "no certificate");
  const cases = [
    ["dynamodb:table=leases", "npm install @aws-sdk/client-dynamodb", missing.env],
    [`custom:${module}`, "it exports no function createLeaseProvider", {}],
    ["custom:/nowhere/module.js", "/nowhere/module.js", {}],
    ["etcd:endpoints=https://127.0.0.1:1,ca=/nowhere/ca.pem", "/nowhere/ca.pem", {}],
    [`etcd:endpoints=https://127.0.0.1:1,cert=${pem},key=${pem}`, "PEM", {}],
    [
      "dynamodb:table=leases",
      /dynamodb:table=leases has no region .* Give it: dynamodb:table=leases,region=eu-central-1,/,
      NO_REGION,
    ],
  ] as const;
  await Promise.all(
    cases.map(async ([specification, says, env]) => {
      const daemon = new Place().spawn({ args: ["--lease-provider", `*=${specification}`], env });
      expect(await daemon.exited, specification).toBe(3);
      expect(daemon.stderr, specification).toMatch(says);
    }),
  );
});

test("a --lease-provider that cannot be read is refused by name", () => {
  const { status, stderr } = spawnSync(process.execPath, [PAWLD, "--lease-provider", "a/*=redis:x"], {
    encoding: "utf8",
  });
  expect(status).toBe(2);
  expect(stderr).toContain("no provider");
  expect(stderr).toContain("--lease-provider");
});

test("pawl lease-table create makes the table once, and the daemon then uses it", async () => {
  const dynalite = await Dynalite.start(onTestFinished);
  const withoutRegion = `dynamodb:table=leases,endpoint=${dynalite.endpoint}`;
  const specification = `${withoutRegion},region=eu-central-1`;
  const env = { ...AWS_ENV, ...NO_REGION };
  const pawl = (...args: string[]) =>
    spawnSync(process.execPath, [PAWL, "lease-table", ...args], {
      encoding: "utf8",
      env: { ...process.env, ...env },
    });
  const daemon = await startDaemon({ env, args: ["--lease-provider", `*=${specification}`] });
  const client = await daemon.place.connect();
  const { data, message } = await client.refusal("lease.get", { name: "a" });
  expect(data).toMatchObject({ kind: "provider_unavailable", provider: "dynamodb", reason: "no_table" });
  expect(message).toContain("pawl lease-table create");
  const { text } = await daemon.logged(({ reason }) => reason === "no_table");
  expect(text).toContain(`pawl lease-table create ${specification}`);

  expect(pawl("create", specification)).toMatchObject({ status: 0, stdout: "leases: made\n" });
  const again = pawl("create", specification, "--json");
  expect(JSON.parse(again.stdout)).toEqual({ table: "leases", created: false });
  expect((await client.call("lease.acquire", { name: "a", owner: "test" })).lease.fencingToken).toBe(1);

  expect(pawl("create", "etcd:endpoints=http://127.0.0.1:1").status).toBe(2);
  expect(pawl("destroy", specification).status).toBe(2);
  const nowhere = pawl("create", withoutRegion);
  expect(nowhere.status).toBe(2);
  expect(nowhere.stderr).toContain("Give it: dynamodb:table=leases,region=eu-central-1");
  expect(nowhere.stderr).not.toContain("try again");
  await dynalite.stop();
  const unreachable = pawl("create", specification);
  expect(unreachable.status).toBe(4);
  expect(unreachable.stderr).toContain("provider_unavailable");
  expect(unreachable.stderr).toContain("ECONNREFUSED");
});
