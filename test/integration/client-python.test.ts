// The client for Python (clients/python), blocking and with asyncio.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { testClient, testSocketPaths } from "../client-suite.js";
import { privateDirectory, REPOSITORY } from "../daemon.js";
import { fakeDaemon } from "../fake-daemon.js";
import { PYTHON } from "../python.js";

const PACKAGE = join(REPOSITORY, "clients/python");
const SCENARIOS = join(PACKAGE, "test/scenarios.py");

const runs = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;

const [python] = PYTHON;
const hasPython = runs(python, "-c", "import sys; sys.exit(sys.version_info < (3, 9))");
if (hasPython) {
  const command = (kind: string) => () => [...PYTHON, "-W", "error", SCENARIOS, kind];
  testSocketPaths({ name: "Python", command: command("blocking") });
  for (const kind of ["blocking", "asyncio"]) testClient({ name: `Python, ${kind}`, command: command(kind) });
} else console.warn("the client for Python is not tested: python3 is not installed, or older than 3.9");

test.runIf(hasPython)(
  "a lock that is used again is held for the task of the body that it is used in",
  async () => {
    const { received, socket } = await fakeDaemon({
      onMessage: ({ id, method }, send) => {
        const lease = { leaseId: "l", fencingToken: 1, remainingMs: 30_000 };
        send({ jsonrpc: "2.0", id, result: method === "lease.acquire" ? { lease } : { released: true } });
      },
    });
    const script = `
import sys, asyncio, pawl, pawl.aio
def blocking():
    with pawl.connect(sys.argv[1]) as client:
        inner, outer = client.lock("inner"), client.lock("outer")
        with inner: pass
        with outer:
            with inner: pass
        with inner: pass
        own = client.lock("own", task="mine")
        for _ in range(2):
            with own: pass
async def main():
    client = await pawl.aio.connect(sys.argv[1])
    inner, outer = client.lock("inner"), client.lock("outer")
    async with inner: pass
    async with outer:
        async with inner: pass
    async with inner: pass
    own = client.lock("own", task="mine")
    for _ in range(2):
        async with own: pass
    await client.close()
blocking() if sys.argv[2] == "blocking" else asyncio.run(main())
`;
    for (const kind of ["blocking", "asyncio"]) {
      received.length = 0;
      const child = spawn(python, ["-c", script, socket, kind], { cwd: PACKAGE, stdio: "inherit" });
      expect(await once(child, "close")).toEqual([0, null]);
      const tasks = received.flatMap(({ method, params }) =>
        method === "lease.acquire" ? [params?.task] : [],
      );
      const [first, outer, within, last, ...own] = tasks;
      expect([kind, within]).toEqual([kind, outer]);
      expect(new Set([first, outer, last]).size).toBe(3);
      expect(own).toEqual(["mine", "mine"]);
    }
  },
);

const hasTypes = runs("mypy", "--version");
if (!hasTypes) console.warn("the types of the client for Python are not checked: mypy is not installed");
test.runIf(hasTypes)("its types are whole, for mypy at its strictest", () => {
  // What mypy has read of Python's own types is most of its work, and is kept for the next run.
  const cache = join(REPOSITORY, "node_modules/.cache/mypy");
  const { stdout, status } = spawnSync("mypy", ["--strict", "--cache-dir", cache, "pawl"], {
    cwd: PACKAGE,
    encoding: "utf8",
  });
  expect([stdout.trim().split("\n").at(-1), status]).toEqual([expect.stringContaining("no issues"), 0]);
});

// The first Python that can install may be another than the one that runs the tests.
const installer = [python, "/usr/bin/python3"].find((each) =>
  runs(each, "-c", "import setuptools, wheel, pip"),
);
if (installer === undefined)
  console.warn("installing the client for Python is not tested: pip is not installed");
test.runIf(installer !== undefined)("is installed from its folder, with its types", () => {
  // A build leaves files beside its sources.
  const [sources, target] = [join(privateDirectory(), "python"), privateDirectory()];
  cpSync(PACKAGE, sources, { recursive: true });
  const options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir", "--target", target];
  const pip = spawnSync(installer as string, ["-m", "pip", "install", ...options, sources], {
    encoding: "utf8",
  });
  expect([pip.status, pip.stdout]).toEqual([0, expect.stringContaining("Successfully installed pawl-0.1.0")]);
  const script = "import pathlib, pawl; print((pathlib.Path(pawl.__file__).parent / 'py.typed').exists())";
  const { stdout } = spawnSync(installer as string, ["-c", script], { cwd: target, encoding: "utf8" });
  expect(stdout.trim()).toBe("True");
});
