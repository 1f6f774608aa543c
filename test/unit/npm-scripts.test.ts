// The scripts of the repository, run for the first time.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";

const REPOSITORY = join(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, "package.json"), "utf8"));

test("npm run torture refuses what has no long form, and names what has one", () => {
  const torture = (...names: string[]) =>
    spawnSync(process.execPath, [join(REPOSITORY, "test/torture.js"), ...names], { encoding: "utf8" });
  const { status, stderr } = torture("nosuch");
  expect(status).toBe(2);
  expect(stderr).toMatch(/^No long test is called nosuch\. There are: /);
  for (const name of ["history", "faults", "queue-crash"])
    expect(stderr).toMatch(new RegExp(`\\b${name}\\b`));
  expect(stderr).not.toContain("npm-scripts");
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
