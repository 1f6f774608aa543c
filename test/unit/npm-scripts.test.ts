// The scripts of the repository, run for the first time.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
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
  // The first one to begin ends once the second one has begun, too.
  const npx = `#!/bin/sh
echo "asked: $PAWL_TORTURE $*"
case $* in
*circle*) while [ -p ${directory}/second ]; do read -r _ <${directory}/second && break; done; exit 1 ;;
*path-pattern*) if [ -p ${directory}/second ]; then echo >${directory}/second; fi ;;
esac
`;
  writeFileSync(join(directory, "npx"), npx, { mode: 0o755 });
  const torture = (...args: string[]) =>
    spawnSync(process.execPath, [join(REPOSITORY, "test/torture.js"), ...args], {
      encoding: "utf8",
      timeout: 60_000,
      env: { PATH: `${directory}${delimiter}${process.env.PATH}` },
    });
  const inTurn = torture("--jobs", "1", "--minutes", "1", "circle", "path-pattern");
  expect(inTurn.status).toBe(1);
  expect(inTurn.stdout.match(/^.* \| asked: .*$/gm)).toEqual([
    expect.stringMatching(/^circle +\| asked: 0\.1 .*test\/unit\/circle\.test\.ts$/),
    expect.stringMatching(/^path-pattern \| asked: 0\.1 .*test\/unit\/path-pattern\.test\.ts$/),
  ]);
  expect(inTurn.stdout).toMatch(/\ncircle +0:0\d {2}failed \(1\)\npath-pattern +0:0\d {2}passed\n$/);

  expect(spawnSync("mkfifo", [join(directory, "second")]).status).toBe(0);
  const both = torture("--minutes", "1", "circle", "path-pattern");
  expect(both.status).toBe(1);
  expect(both.stdout.match(/^.* \| asked: .*$/gm)?.sort()).toEqual([
    expect.stringMatching(/^circle +\| asked: 0\.35 /),
    expect.stringMatching(/^path-pattern \| asked: 0\.35 /),
  ]);
  for (const line of ["circle failed (1)", "path-pattern passed"])
    expect(both.stdout).toContain(` done: ${line} after `);
  expect(both.stdout).toMatch(/ gone, 2 of 2 done: /);
  expect(both.stdout).toMatch(/\ncircle +0:0\d {2}failed \(1\)\npath-pattern +0:0\d {2}passed\n$/);
  rmSync(join(directory, "second"));

  const one = torture("path-pattern");
  expect(one).toMatchObject({ status: 0, stdout: expect.stringMatching(/ \| asked: 1 /) });
  for (const wrong of [
    ["--minutes", "half"],
    ["--jobs", "half"],
  ])
    expect(torture(...wrong)).toMatchObject({ status: 2, stderr: expect.stringContaining("half") });
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
