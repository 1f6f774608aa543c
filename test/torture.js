// @ts-check
// npm run torture: the long forms of the tests that have one, one file after the other. With names, as in
// `npm run torture -- history shared`, only those: files of that name, and those whose names go on after it with a dash.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const ENDING = ".test.ts";

const VARIABLE = "process.env.PAWL_TORTURE";

/**
 * True of a file that reads the variable that asks for the long form, by itself or by one that it imports.
 *
 * @param {string} file
 */
function hasLongForm(file) {
  const text = readFileSync(file, "utf8");
  if (text.includes(VARIABLE)) return true;
  const imported = [...text.matchAll(/ from "(\.[^"]+)\.js"/g)].map(([, to]) =>
    path.join(path.dirname(file), `${to}.ts`),
  );
  return imported.some((each) => existsSync(each) && readFileSync(each, "utf8").includes(VARIABLE));
}

/** By name, the files that have a long form. */
const files = new Map(
  readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ENDING))
    .filter((file) => hasLongForm(path.join(TESTS, file)))
    .sort()
    .map((file) => [path.basename(file, ENDING), path.join("test", file)]),
);

const names = process.argv.slice(2);
/** @param {string} name */
function filesOf(name) {
  return [...files].filter(([each]) => each === name || each.startsWith(`${name}-`)).map(([, file]) => file);
}

const unknown = names.filter((name) => filesOf(name).length === 0);
if (unknown.length > 0) {
  console.error(
    `No long test is called ${unknown.join(" or ")}. There are: ${[...files.keys()].join(", ")}.`,
  );
  process.exit(2);
}
const chosen = names.length === 0 ? [...files.values()] : [...new Set(names.flatMap(filesOf))];
const { status } = spawnSync("npx", ["vitest", "run", "--maxWorkers=1", ...chosen], {
  stdio: "inherit",
  env: { ...process.env, PAWL_TORTURE: "1" },
});
process.exit(status ?? 1);
