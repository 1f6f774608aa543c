// @ts-check
// npm run torture: the long forms of the tests that have one, two files at a time, those that take longest first,
// whether one fails or not, and a table in the end. With names, as in `npm run torture -- history shared`, only those,
// and files whose names go on after one with a dash; with `--minutes 30` as much of each as fits in about so long; with
// `--jobs 1` one file after the other.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const TESTS = fileURLToPath(new URL(".", import.meta.url));
const ENDING = ".test.ts";
const LONG_FORM = "long-form.js";

/** What the whole of each takes alone on two cores, in minutes, where that is more than OTHERS_MINUTES. */
const WHOLE_MINUTES = {
  "async-driver": 16,
  "board-compact": 4,
  "board-compact-mutants": 8,
  "board-work": 5,
  command: 6,
  "command-crash": 10,
  "events-model": 5,
  faults: 60,
  history: 13,
  "lease-contention": 4,
  "lease-remote-contention": 5,
  "pipeline-torture": 4,
  queue: 6,
  "queue-crash": 8,
  "queue-mutants": 10,
  "queue-torture": 4,
  schedule: 6,
  "shared-rules": 28,
  "shared-storm": 10,
};
const OTHERS_MINUTES = 2;
/** What each takes at least, however little of it is asked for. */
const LEAST_MINUTES = 0.3;
/** Most of each is waiting, for daemons that start and leases that end: two files leave neither of two cores idle. */
const JOBS = 2;
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

/** @returns {{ names: string[], minutes: number | undefined, jobs: number }} what the command line asks for. */
function asked() {
  try {
    const { values, positionals } = parseArgs({
      options: { minutes: { type: "string" }, jobs: { type: "string" } },
      allowPositionals: true,
    });
    const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
    if (minutes !== undefined && !(minutes > 0))
      refuse(`--minutes is a number above 0, not ${values.minutes}.`);
    const jobs = values.jobs === undefined ? JOBS : Number(values.jobs);
    if (!(Number.isInteger(jobs) && jobs > 0))
      refuse(`--jobs is a whole number above 0, not ${values.jobs}.`);
    return { names: positionals, minutes, jobs };
  } catch (error) {
    return refuse(`${/** @type {Error} */ (error).message} There are --minutes and --jobs.`);
  }
}

const { names, minutes, jobs } = asked();
/** @param {string} name */
function called(name) {
  return [...files.keys()].filter((each) => each === name || each.startsWith(`${name}-`));
}

const unknown = names.filter((name) => called(name).length === 0);
if (unknown.length > 0) {
  refuse(`No long test is called ${unknown.join(" or ")}. There are: ${[...files.keys()].join(", ")}.`);
}
const chosen = names.length === 0 ? [...files.keys()] : [...new Set(names.flatMap(called))];

/**
 * What a file takes of which a part is asked for, as far as is known before.
 *
 * @param {string} name
 * @param {number} share
 */
function minutesOf(name, share) {
  const whole = /** @type {Record<string, number>} */ (WHOLE_MINUTES)[name] ?? OTHERS_MINUTES;
  return whole * share + LEAST_MINUTES;
}

/** The order in which they begin, so that no long one is left to end alone. */
const order = [...chosen].sort((a, b) => minutesOf(b, 1) - minutesOf(a, 1));

/**
 * What all of these take, each begun as soon as another has ended.
 *
 * @param {readonly string[]} waiting
 * @param {number} share
 */
function minutesOfAll(waiting, share) {
  const busy = Array(jobs).fill(0);
  for (const name of waiting) busy[busy.indexOf(Math.min(...busy))] += minutesOf(name, share);
  return Math.max(...busy);
}

/** The part of each that is asked for, in thousandths. */
let share = 1;
while (minutes !== undefined && share > 0.001 && minutesOfAll(order, share) > minutes) {
  share = Math.round(share * 1000 - 1) / 1000;
}

/** @param {number} ms */
function shown(ms) {
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

const begun = performance.now();
const width = Math.max(...chosen.map((name) => name.length));
/** @type {Map<string, { result: string, ms: number }>} */
const done = new Map();
/** @type {Map<string, import("node:child_process").ChildProcess>} */
const running = new Map();
let interrupted = false;
// A terminal tells vitest, too; another sender tells only us.
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM"])) {
  process.on(signal, () => {
    interrupted = true;
    for (const child of running.values()) child.kill(signal);
  });
}

/**
 * Says how far all are, in a line of its own.
 *
 * @param {string} what
 */
function report(what) {
  const gone = shown(performance.now() - begun);
  console.log(`--- ${gone} gone, ${done.size} of ${chosen.length} done: ${what} ---`);
}

/**
 * Runs one file to its end. Each line that it prints has its name before it, since another one prints meanwhile.
 *
 * @param {string} name
 */
async function runFile(name) {
  report(`${name} begins, about ${shown(minutesOf(name, share) * MINUTE_MS)}`);
  const from = performance.now();
  const child = spawn("npx", ["vitest", "run", "--maxWorkers=1", /** @type {string} */ (files.get(name))], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, PAWL_TORTURE: String(share), PAWL_BUNDLED: "1" },
  });
  running.set(name, child);
  for (const [from, to] of /** @type {const} */ ([
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ])) {
    createInterface({ input: from }).on("line", (line) => to.write(`${name.padEnd(width)} | ${line}\n`));
  }
  const [code, signal] = await once(child, "close");
  running.delete(name);
  const result = interrupted ? "interrupted" : code === 0 ? "passed" : `failed (${signal ?? code})`;
  const ms = performance.now() - from;
  done.set(name, { result, ms });
  report(`${name} ${result} after ${shown(ms)}`);
}

console.log(
  `${chosen.length} files, ${share === 1 ? "the whole of each" : `${(share * 100).toFixed(1)} % of each`}, ${jobs} at a time: about ${Math.ceil(minutesOfAll(order, share))} minutes.`,
);
await Promise.all(
  Array.from({ length: jobs }, async () => {
    for (let name = order.shift(); name !== undefined && !interrupted; name = order.shift())
      await runFile(name);
  }),
);

console.log(`\n${shown(performance.now() - begun)} in all:\n`);
for (const name of chosen) {
  const { result, ms } = done.get(name) ?? { result: "not begun", ms: 0 };
  console.log(`${name.padEnd(width)}  ${shown(ms).padStart(6)}  ${result}`);
}
process.exitCode = chosen.every((name) => done.get(name)?.result === "passed") ? 0 : 1;
