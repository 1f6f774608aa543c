// @ts-check
// npm run torture: the long forms of the tests that have one, one file after the other, whether the one before it
// failed or not, and a table in the end. With names, as in `npm run torture -- history shared`, only those, and files
// whose names go on after one with a dash; with `--minutes 30` as much of each as fits in about so long.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const ENDING = ".test.ts";
const LONG_FORM = "long-form.js";

/** What the whole of each takes on two cores, in minutes, where that is more than OTHERS_MINUTES. */
const WHOLE_MINUTES = {
  "async-driver": 16,
  "board-compact-mutants": 8,
  "board-work": 5,
  "command-crash": 10,
  "events-model": 5,
  faults: 60,
  history: 30,
  "lease-contention": 4,
  "lease-remote-contention": 5,
  "pipeline-torture": 4,
  "queue-crash": 8,
  "queue-mutants": 10,
  "queue-torture": 4,
  schedule: 6,
  "shared-rules": 15,
  "shared-storm": 10,
};
const OTHERS_MINUTES = 2;
/** What each takes at least, however little of it is asked for. */
const LEAST_MINUTES = 0.3;
const MINUTE_MS = 60_000;
const EXIT_USAGE = 2;

/**
 * True of a file that asks for the size of a long form, by itself or by one that it imports.
 *
 * @param {string} file
 */
function hasLongForm(file) {
  /** @param {string} name */
  const asks = (name) => readFileSync(name, "utf8").includes(`/${LONG_FORM}"`);
  const imported = [...readFileSync(file, "utf8").matchAll(/ from "(\.[^"]+)\.js"/g)].map(([, to]) =>
    path.join(path.dirname(file), `${to}.ts`),
  );
  return asks(file) || imported.some((each) => existsSync(each) && asks(each));
}

/** By name, the files that have a long form. */
const files = new Map(
  readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ENDING))
    .filter((file) => hasLongForm(path.join(TESTS, file)))
    .sort()
    .map((file) => [path.basename(file, ENDING), path.join("test", file)]),
);

/** @param {string} why */
function refuse(why) {
  console.error(why);
  process.exit(EXIT_USAGE);
}

/** @returns {{ names: string[], minutes: number | undefined }} what the command line asks for. */
function asked() {
  try {
    const { values, positionals } = parseArgs({
      options: { minutes: { type: "string" } },
      allowPositionals: true,
    });
    const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
    if (minutes !== undefined && !(minutes > 0))
      refuse(`--minutes is a number above 0, not ${values.minutes}.`);
    return { names: positionals, minutes };
  } catch (error) {
    return refuse(`${/** @type {Error} */ (error).message} There is --minutes.`);
  }
}

const { names, minutes } = asked();
/** @param {string} name */
function called(name) {
  return [...files.keys()].filter((each) => each === name || each.startsWith(`${name}-`));
}

const unknown = names.filter((name) => called(name).length === 0);
if (unknown.length > 0) {
  refuse(`No long test is called ${unknown.join(" or ")}. There are: ${[...files.keys()].join(", ")}.`);
}
const chosen = names.length === 0 ? [...files.keys()] : [...new Set(names.flatMap(called))];

/** @param {string} name */
const wholeMinutes = (name) => /** @type {Record<string, number>} */ (WHOLE_MINUTES)[name] ?? OTHERS_MINUTES;
const whole = chosen.reduce((sum, name) => sum + wholeMinutes(name), 0);
const least = chosen.length * LEAST_MINUTES;
/** The part of each that is asked for. */
const share = minutes === undefined ? 1 : Math.min(Math.max((minutes - least) / whole, 0.001), 1);

/** @param {number} ms */
function shown(ms) {
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** @type {{ name: string, result: string, ms: number }[]} */
const done = [];
const begun = performance.now();
let interrupted = false;
/** @type {import("node:child_process").ChildProcess | undefined} */
let running;
// A terminal tells vitest, too; another sender tells only us.
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM"])) {
  process.on(signal, () => {
    interrupted = true;
    running?.kill(signal);
  });
}
console.log(
  `${chosen.length} files, ${share === 1 ? "the whole of each" : `${(share * 100).toFixed(1)} % of each`}: about ${Math.ceil(least + whole * share)} minutes.`,
);
for (const [index, name] of chosen.entries()) {
  if (interrupted) break;
  const expected = shown((wholeMinutes(name) * share + LEAST_MINUTES) * MINUTE_MS);
  console.log(
    `\n--- ${index + 1} of ${chosen.length}, ${shown(performance.now() - begun)} gone: ${name}, about ${expected} ---`,
  );
  const from = performance.now();
  running = spawn("npx", ["vitest", "run", "--maxWorkers=1", /** @type {string} */ (files.get(name))], {
    stdio: "inherit",
    env: { ...process.env, PAWL_TORTURE: String(share), PAWL_BUNDLED: "1" },
  });
  const [code, signal] = await once(running, "exit");
  const result = interrupted ? "interrupted" : code === 0 ? "passed" : `failed (${signal ?? code})`;
  done.push({ name, result, ms: performance.now() - from });
}
for (const name of chosen.slice(done.length)) done.push({ name, result: "not begun", ms: 0 });

const width = Math.max(...done.map(({ name }) => name.length));
console.log(`\n${shown(performance.now() - begun)} in all:\n`);
for (const { name, result, ms } of done) {
  console.log(`${name.padEnd(width)}  ${shown(ms).padStart(6)}  ${result}`);
}
process.exitCode = done.every(({ result }) => result === "passed") ? 0 : 1;
