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

test("npm run torture goes on after a failure, with the part that fits in the time, and ends with a table", () => {
  const directory = privateDirectory();
  const npx = '#!/bin/sh\necho "asked: $PAWL_TORTURE $*"\ncase $* in *circle*) exit 1 ;; esac\n';
  writeFileSync(join(directory, "npx"), npx, { mode: 0o755 });
  const torture = (...args: string[]) =>
    spawnSync(process.execPath, [join(REPOSITORY, "test/torture.js"), ...args], {
      encoding: "utf8",
      env: { PATH: `${directory}${delimiter}${process.env.PATH}` },
    });
  const both = torture("--minutes", "1", "circle", "path-pattern");
  expect(both.status).toBe(1);
  expect(both.stdout.match(/^asked: 0\.1 .*$/gm)).toEqual([
    expect.stringContaining("test/unit/circle.test.ts"),
    expect.stringContaining("test/unit/path-pattern.test.ts"),
  ]);
  expect(both.stdout).toMatch(/\ncircle +0:0\d {2}failed \(1\)\npath-pattern +0:0\d {2}passed\n$/);
  const one = torture("path-pattern");
  expect(one).toMatchObject({ status: 0, stdout: expect.stringMatching(/^asked: 1 /m) });
  expect(torture("--minutes", "half")).toMatchObject({ status: 2, stderr: expect.stringContaining("half") });
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
