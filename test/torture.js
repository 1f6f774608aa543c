// @ts-check
// npm run torture: the long forms of the tests that have one, one file after the other. With names, as in
// `npm run torture -- history faults`, only those.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const ENDING = ".test.ts";

/** By name, the files that read the variable that asks for the long form. */
const files = new Map(
  readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ENDING))
    .filter((file) => readFileSync(path.join(TESTS, file), "utf8").includes("process.env.PAWL_TORTURE"))
    .sort()
    .map((file) => [path.basename(file, ENDING), path.join("test", file)]),
);

const names = process.argv.slice(2);
const unknown = names.filter((name) => !files.has(name));
if (unknown.length > 0) {
  console.error(
    `No long test is called ${unknown.join(" or ")}. There are: ${[...files.keys()].join(", ")}.`,
  );
  process.exit(2);
}
const chosen =
  names.length === 0 ? [...files.values()] : names.map((name) => /** @type {string} */ (files.get(name)));
const { status } = spawnSync("npx", ["vitest", "run", "--maxWorkers=1", ...chosen], {
  stdio: "inherit",
  env: { ...process.env, PAWL_TORTURE: "1" },
});
process.exit(status ?? 1);
