// Installation as a product: what npm pack makes installs in an empty folder, and runs there.
// Not over shared names: it is about what is installed.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { privateDirectory, sharedDaemon } from "../daemon.js";
import { barePath, filesIn, installed, nativeFiles, npm, pack, registry } from "../packages.js";

/** Where a package has its code and its types. */
type Files = { types: string; default: string };
type Entry = Files | { import: Files; require: Files };

const daemon = sharedDaemon();
const { version } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8"));
let tarballs: Awaited<ReturnType<typeof pack>>;
let packages: string;
/** Nothing but Node and a shell, with which the client was installed. */
let path: string;
/** Where the client alone is installed. */
let client: string;
beforeAll(async () => {
  const actions: (() => void | Promise<void>)[] = [];
  const atEnd = (action: () => void | Promise<void>) => void actions.unshift(action);
  packages = await registry(atEnd);
  tarballs = await pack(privateDirectory(atEnd));
  path = barePath(atEnd);
  client = await installed([tarballs.client], { registry: packages, path }, atEnd);
  return async () => {
    for (const action of actions) await action();
  };
});

test("tarballs hold what is run and read, and nothing of how it is made", async () => {
  for (const [name, wanted] of Object.entries({
    protocol: ["openrpc.json", "dist/index.js", "dist/index.d.ts"],
    client: ["bin/pawl.js", "dist/bundle/index.js", "dist/index.d.ts", "dist/bundle/main.js", "man/pawl.1"],
    daemon: [
      "bin/pawld.js",
      "man/pawld.8",
      "dist/new-tables.sql",
      "store/schema/0001-core.sql",
      "systemd/network.conf",
      "systemd/system/pawld.service",
      "systemd/system/pawld@.socket",
      "systemd/user/pawld.service",
      "systemd/sysusers.d/pawl.conf",
      "systemd/tmpfiles.d/pawl.conf",
    ],
    mcp: ["dist/bundle/server/server.js", "dist/bundle/hook/hook.js", "dist/bundle/program/hook.cjs"],
  })) {
    const files = await filesIn(tarballs[name as keyof typeof tarballs]);
    expect(files).toEqual(expect.arrayContaining(["package.json", "README.md", "LICENSE", ...wanted]));
    expect(
      files.filter((file) => /(?<!\.d)\.ts$|\.map$|tsbuildinfo|^test\/|node_modules/.test(file)),
    ).toEqual([]);
    expect(tarballs[name as keyof typeof tarballs]).toContain(`pawl-${name}-${version}.tgz`);
  }
});

test("packages say what they are, have the types of all that is imported, and name no file that is not there", async () => {
  for (const [name, tarball] of Object.entries(tarballs)) {
    const files = await filesIn(tarball);
    const text = execFileSync("tar", ["-xzOf", tarball, "package/package.json"], { encoding: "utf8" });
    const about = JSON.parse(text);
    expect(about).toMatchObject({
      name: `@pawl/${name}`,
      description: expect.stringMatching(/./),
      keywords: expect.arrayContaining(["pawl"]),
      license: "MIT",
      engines: { node: expect.stringMatching(/./) },
      // A placeholder, by a top-level domain that nobody has, until there is a repository.
      repository: { url: "git+https://repository-placeholder.invalid/pawl.git", directory: name },
    });
    for (const [path, entry] of Object.entries<string | Entry>(about.exports)) {
      const entries =
        typeof entry === "string" ? [] : "import" in entry ? [entry.import, entry.require] : [entry];
      const named =
        typeof entry === "string" ? [entry] : entries.flatMap((each) => [each.types, each.default]);
      if (named.some((file) => file.endsWith(".js"))) expect([path, entries]).not.toEqual([path, []]);
      for (const file of named) expect(files).toContain(file.replace("./", ""));
    }
    expect(Object.keys(about.dependencies ?? {}).filter((other) => other.startsWith("@pawl/"))).toEqual([]);
    const code = execFileSync("tar", ["-xzOf", tarball, "--wildcards", "package/dist/*"], {
      encoding: "utf8",
      maxBuffer: 64 * 1024 * 1024,
    });
    expect(code.match(/^\/\/# sourceMappingURL=.*/m)).toBeNull();
  }
});

test("TypeScript at its strictest takes the client's types as a module, from CommonJS, and for a bundler", async () => {
  const program = `import { connect, PawlError, type PawlClient } from "@pawl/client";
export async function next(): Promise<string> {
  const client: PawlClient = await connect();
  try {
    const { claim } = await client.queue.claim({ queue: "q", owner: "o" });
    const owner: string | undefined = claim?.owner;
    // @ts-expect-error: a type that is any would take this.
    const none: boolean = (await client.sequence.next({ type: "FR" })).id;
    return owner ?? String(none);
  } catch (error) {
    if (error instanceof PawlError) return error.kind;
    throw error;
  }
}
`;
  for (const name of ["module.mts", "common.cts", "bundled.ts"]) writeFileSync(join(client, name), program);
  const values = Object.keys(await import("../../client/dist/index.js")).sort();
  const declared = readFileSync(join(client, "node_modules/@pawl/client/index.d.cts"), "utf8");
  expect([...declared.matchAll(/export declare const (\w+)/g)].map(([, name]) => name).sort()).toEqual(
    values,
  );
  const tsc = join(import.meta.dirname, "../../node_modules/typescript/bin/tsc");
  for (const [module, resolution, ...files] of [
    ["nodenext", "nodenext", "module.mts", "common.cts"],
    ["node16", "node16", "module.mts", "common.cts"],
    ["esnext", "bundler", "bundled.ts"],
  ] as const) {
    const options = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
    const where = ["--target", "es2022", "--module", module, "--moduleResolution", resolution, "--types", ""];
    const { stdout } = spawnSync(process.execPath, [tsc, ...options, ...where, ...files], {
      cwd: client,
      encoding: "utf8",
    });
    expect([module, stdout]).toEqual([module, ""]);
  }
  // And Node gives CommonJS the same module.
  const required = execFileSync(
    process.execPath,
    ["-p", "Object.keys(require('@pawl/client')).sort().join()"],
    {
      cwd: client,
      encoding: "utf8",
    },
  );
  expect(required.trim()).toBe(values.join());
});

test("the client alone installs where there is no compiler, and holds nothing native", async () => {
  expect(spawnSync("cc", ["--version"], { env: { PATH: path } }).error).toMatchObject({ code: "ENOENT" });
  expect(nativeFiles(client)).toEqual([]);
  expect(existsSync(join(client, "node_modules/zod"))).toBe(false);
  expect(readdirSync(join(client, "node_modules/@pawl"))).toEqual(["client"]);
  const pawl = (...args: string[]) =>
    execFileSync(join(client, "node_modules/.bin/pawl"), args, {
      encoding: "utf8",
      cwd: client,
      env: { PATH: path, PAWL_SOCKET: daemon().place.socket },
    });
  expect(pawl("--version")).toBe(`pawl ${version}\n`);
  expect(pawl("next", "FR")).toBe("FR-001\n");
  expect(pawl("--help")).toContain("Exit codes:");
  const program =
    'import { connect } from "@pawl/client"; const p = await connect(); console.log((await p.sequence.next({ type: "FR" })).id); p.close();';
  const ran = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    cwd: client,
    env: { PAWL_SOCKET: daemon().place.socket },
  });
  expect(ran).toBe("FR-002\n");
});

/** Runtimes beside Node, by how they start a program. Nothing depends on them; what the machine has is tested. */
for (const [runtime, ...args] of [["bun"], ["deno", "run", "-A"]] as const) {
  test(`the client and pawl run on ${runtime}`, async (context) => {
    const { error } = spawnSync(runtime, ["--version"]);
    if (error !== undefined) context.skip(`There is no ${runtime} on this machine.`);
    const folder = await installed([tarballs.client], { registry: packages });
    const run = (program: string, ...rest: string[]) =>
      execFileSync(runtime, [...args, program, ...rest], {
        encoding: "utf8",
        cwd: folder,
        env: { ...process.env, PAWL_SOCKET: daemon().place.socket, HOME: folder },
      });
    writeFileSync(
      join(folder, "program.mjs"),
      `import { connect } from "@pawl/client";
const pawl = await connect();
const { batch } = await pawl.queue.enqueue({ queue: "${runtime}", payloads: [{ to: "ada" }] });
const worker = pawl.work("${runtime}", async ({ payloads }) => ({ sent: payloads }));
const ended = await pawl.queue.wait({ batchId: batch.batchId, waitMs: 60_000 });
await worker.close();
console.log(ended.batch.state, JSON.stringify(ended.batch.result));
await pawl.withLease("${runtime}", async ({ fencingToken }) => console.log("token", fencingToken));
pawl.close();
`,
    );
    expect(run("program.mjs")).toBe('completed {"sent":[{"to":"ada"}]}\ntoken 1\n');
    const pawl = (...rest: string[]) => run("node_modules/@pawl/client/bin/pawl.js", ...rest);
    expect(pawl("next", runtime)).toBe(`${runtime.toUpperCase()}-001\n`);
    // The second one is granted the lease, so the first gave it back.
    for (const token of [2, 3]) {
      const said = pawl("lock", runtime, "--", "sh", "-c", "echo token $PAWL_FENCING_TOKEN");
      expect(said).toBe(`token ${token}\n`);
    }
    pawl("enqueue", runtime, "7");
    expect(pawl("work", runtime, "--once", "--", "cat").trim()).toBe("7");
  });
}

test("installed for everybody, the programs and their man pages are where they are looked for", async () => {
  const prefix = privateDirectory();
  const args = ["install", "--global", "--ignore-scripts", "--prefix", prefix];
  await npm(prefix, [...args, ...Object.values(tarballs)], { registry: packages });
  expect(readdirSync(join(prefix, "bin")).sort()).toEqual(["pawl", "pawld"]);
  for (const [page, name] of [
    ["man1/pawl.1", "client/man/pawl.1"],
    ["man8/pawld.8", "daemon/man/pawld.8"],
  ] as const) {
    const installedPage = realpathSync(join(prefix, "share/man", page));
    expect(installedPage).toBe(realpathSync(join(prefix, "lib/node_modules/@pawl", name)));
  }
  expect(execFileSync(join(prefix, "bin/pawl"), ["--version"], { encoding: "utf8" })).toBe(
    `pawl ${version}\n`,
  );
});

test("pawl and pawld run from an empty folder, and units and man pages are where they look for them", async () => {
  const folder = await installed(Object.values(tarballs), { registry: packages });
  const bin = (name: string): string => join(folder, "node_modules/.bin", name);
  const runtime = privateDirectory();
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: runtime,
    XDG_RUNTIME_DIR: runtime,
    XDG_STATE_HOME: runtime,
  };
  const pawl = (...args: string[]) => execFileSync(bin("pawl"), args, { encoding: "utf8", cwd: folder, env });

  const child = spawn(bin("pawld"), [], { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout })) {
    if (JSON.parse(line).msg === "listening") break;
  }
  expect(pawl("next", "FR")).toBe("FR-001\n");
  expect(JSON.parse(pawl("status", "--json")).info).toMatchObject({ version, pid: child.pid });
  expect(existsSync(join(runtime, "pawl/default/pawl.db"))).toBe(true);

  // An agent's server and hook, of which the packages of the MCP library are no part.
  const initialize = {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "test", version: "1" } },
  };
  const input = { encoding: "utf8", cwd: folder, env } as const;
  const agents = spawn(bin("pawl"), ["mcp"], { cwd: folder, env, stdio: ["pipe", "pipe", "inherit"] });
  onTestFinished(() => void agents.kill("SIGKILL"));
  agents.stdin.write(`${JSON.stringify(initialize)}\n`);
  for await (const line of createInterface({ input: agents.stdout })) {
    expect(JSON.parse(line).result.serverInfo).toMatchObject({ name: "pawl", version });
    agents.stdin.end();
  }
  const hook = {
    hook_event_name: "PreToolUse",
    session_id: "s",
    cwd: folder,
    tool_input: { file_path: "a" },
  };
  const answered = spawnSync(bin("pawl"), ["hook"], { ...input, input: JSON.stringify(hook) });
  expect(answered).toMatchObject({ status: 0, stdout: "", stderr: "" });
  expect(existsSync(join(folder, "node_modules/@modelcontextprotocol"))).toBe(false);

  for (const page of ["client/man/pawl.1", "daemon/man/pawld.8"]) {
    expect(readFileSync(join(folder, "node_modules/@pawl", page), "utf8")).toContain(`pawl ${version}`);
  }
  // The units are written with the paths of this installation, whatever is in them.
  const image = privateDirectory();
  mkdirSync(join(image, "etc"));
  const shown = spawnSync(bin("pawl"), ["service", "install", "--root", image], {
    encoding: "utf8",
    cwd: folder,
    env,
  });
  if (spawnSync("systemctl", ["--version"]).status === 0) expect(shown.stderr).toBe("");
  expect(readFileSync(join(image, "etc/systemd/system/pawld.service"), "utf8")).toContain(
    `ExecStart=${process.execPath} ${realpathSync(join(folder, "node_modules/@pawl/daemon/bin/pawld.js"))} --instance default\n`,
  );
});
