// What the scripts of the repository say to who runs them for the first time.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";

test("an installation that takes long is announced, and where there is none nothing is", () => {
  const { scripts } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8"));
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
