// The scripts of the repository, run for the first time.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";

const REPOSITORY = join(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, "package.json"), "utf8"));

test("npm run torture runs all tests that have a long form, and no others", () => {
  const files = readdirSync(join(REPOSITORY, "test"), { recursive: true, encoding: "utf8" });
  const withLongForm = files
    .filter((file) => file.endsWith(".test.ts") && file !== "unit/npm-scripts.test.ts")
    .filter((file) => readFileSync(join(REPOSITORY, "test", file), "utf8").includes("PAWL_TORTURE"))
    .map((file) => file.replace(/^.*\/|\.test\.ts$/g, ""));
  const [, listed = ""] = /--maxWorkers=1 (.*)$/.exec(scripts.torture) ?? [];
  expect(listed.split(" ").sort()).toEqual(withLongForm.sort());
});

test("an installation that takes long is announced, and where there is none nothing is", () => {
  const directory = privateDirectory();
  writeFileSync(
    join(directory, "npm"),
    `#!/bin/sh\nmkdir -p node_modules; touch node_modules/.package-lock.json\n`,
    {
      mode: 0o755,
    },
  );
  writeFileSync(join(directory, "package-lock.json"), "");
  const setup = () =>
    spawnSync("sh", ["-c", scripts.setup], {
      cwd: directory,
      encoding: "utf8",
      env: { PATH: `${directory}${delimiter}${process.env.PATH}` },
    });
  expect(setup()).toMatchObject({
    status: 0,
    stdout: "",
    stderr: expect.stringMatching(/^Installing .*\.\n$/),
  });
  expect(setup()).toMatchObject({ status: 0, stdout: "", stderr: "" });
});
