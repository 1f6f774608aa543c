// The client for Go (clients/go).
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type ClientUnderTest, testClient, testSocketPaths } from "../client-suite.js";
import { privateDirectory } from "../daemon.js";

const MODULE = join(import.meta.dirname, "../../clients/go");
/** No network and no C compiler; what the toolchain keeps of a build makes the next one short. */
const ENVIRONMENT = {
  ...process.env,
  CGO_ENABLED: "0",
  GOFLAGS: "-mod=mod",
  GOPROXY: "off",
  GOTOOLCHAIN: "local",
};

/** Runs a command of Go; fails with what it said. */
function go(directory: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync("go", args, {
    cwd: directory,
    env: ENVIRONMENT,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`go ${args.join(" ")}: ${stderr}${stdout}`);
  return stdout;
}

const hasGo = spawnSync("go", ["version"]).status === 0;
if (hasGo) {
  const directory = mkdtempSync(join(tmpdir(), "pawl-go-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const program = join(directory, "scenarios");
  let built = false;
  const client: ClientUnderTest = {
    name: "Go",
    command: () => {
      if (!built) go(MODULE, "build", "-o", program, "./internal/scenarios");
      built = true;
      return [program];
    },
  };
  testSocketPaths(client);
  testClient(client);
} else console.warn("the client for Go is not tested: golang-go is not installed");

test.runIf(hasGo)("its sources are formatted, and nothing in them is suspicious", () => {
  const { stdout } = spawnSync("gofmt", ["-l", "."], { cwd: MODULE, encoding: "utf8" });
  expect(stdout).toBe("");
  expect(go(MODULE, "vet", "./...")).toBe("");
});

test.runIf(hasGo)("is used by another module from its folder", () => {
  const directory = join(privateDirectory(), "app");
  mkdirSync(directory);
  writeFileSync(join(directory, "go.mod"), "module app\n\ngo 1.19\n");
  writeFileSync(
    join(directory, "main.go"),
    'package main\n\nimport (\n\t"fmt"\n\n\tpawl "pawl.example/clients/go"\n)\n\nfunc main() { fmt.Print(pawl.ErrLeaseHeld.Kind) }\n',
  );
  go(
    directory,
    "mod",
    "edit",
    "-require=pawl.example/clients/go@v0.0.0",
    `-replace=pawl.example/clients/go=${MODULE}`,
  );
  expect(go(directory, "run", ".")).toBe("lease_held");
});
