// @ts-check
/** `npm run bench`: see README.md in this directory. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import * as board from "./board.js";
import * as command from "./command.js";
import { runCosts } from "./costs.js";
import { runCrowded } from "./crowded.js";
import { runEvents } from "./events.js";
import { runHostile } from "./hostile.js";
import * as lease from "./lease.js";
import { measure } from "./measure.js";
import { beanstalkd } from "./peers/beanstalkd.js";
import { etcd } from "./peers/etcd.js";
import { flock } from "./peers/flock.js";
import { pawl } from "./peers/pawl.js";
import { postgresql } from "./peers/postgresql.js";
import { redis } from "./peers/redis.js";
import * as queue from "./queue.js";
import { machine, table, verdicts } from "./report.js";
import * as sequence from "./sequence.js";
import * as shared from "./shared.js";
import { slowSync } from "./slow-sync.js";

const USAGE = `Usage: npm run bench -- [sequence] [queue] [command] [board] [lease] [shared] [options]
       npm run bench -- hostile|costs|crowded|events [options]

Measures pawld beside the systems that are installed. All sections when none is named. \`hostile\` measures pawld alone:
how long a polite client waits beside clients that are not. \`costs\` measures the worst call of each method. \`crowded\`
measures queues beside very many batches that cannot be claimed, \`events\` what those who follow everything cost the
others.

  --quick            a tenth of the work, once: shows that it runs; the figures are rough
  --repetitions N    default 5; medians are reported
  --only NAMES       only systems whose name starts with one of these, such as pawl,Redis; with hostile, only attacks
                     whose name has one of these in it
  --sync-delay MS    each sync takes so much longer, for all systems: shows how they compare on a slower disk
  --dir DIR          where state is kept; default the temporary directory. Not on tmpfs, where nothing is durable
  --profile DIR      writes a CPU profile of each pawld into DIR
  --against DIR      with events, lease or shared: another checkout that was built, whose daemon is compared
  --json FILE        writes all samples to FILE
`;

const SECTIONS = { sequence, queue, command, board, lease, shared };
/** Sections about pawl alone, which run only when they are named, and by themselves. */
const ALONE = { hostile: runHostile, costs: runCosts, crowded: runCrowded, events: runEvents };
const DEFAULT_REPETITIONS = 5;
const QUICK_SCALE = 0.1;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM"]))
  process.on(signal, () => process.exit(EXIT_FAILED));

const { options, sections, alone } = parsed();
const repetitions = Number(options.repetitions ?? (options.quick ? 1 : DEFAULT_REPETITIONS));
const scale = options.quick ? QUICK_SCALE : 1;
const pawlPeer = pawl({ profileDirectory: options.profile });
const startedAtMs = performance.now();

const root = mkdtempSync(path.join(path.resolve(options.dir ?? os.tmpdir()), "pawl-bench-"));
// A server that runs as another user has to get to its own directory in it.
chmodSync(root, 0o711);
process.on("exit", () => rmSync(root, { recursive: true, force: true, maxRetries: 10 }));

const versions = [pawlPeer, redis, postgresql, beanstalkd, etcd, flock].map(
  (peer) => `${peer.name} ${peer.missing() ?? peer.version()}`,
);
console.log(machine(root, versions));
if (options["sync-delay"] !== undefined) {
  slowSync(Number(options["sync-delay"]), root);
  console.log(
    `delay     each sync of every system takes ${options["sync-delay"]} ms more than the disk does`,
  );
}

/** @type {Record<string, object[]>} */
const samples = {};
let exitCode = 0;
if (alone !== undefined) {
  const { quick = false, only, against } = options;
  const { text, failed, rows } = await alone({ pawlPeer, root, quick, only, against, progress });
  samples[/** @type {string} */ (alone.name)] = rows;
  console.log(`\n${text}`);
  if (failed) exitCode = EXIT_FAILED;
}
for (const name of sections) {
  const section = SECTIONS[name];
  const { against } = options;
  const chosen = section
    .entries({ pawlPeer, scale, progress, against })
    .filter(({ system }) => wanted(system));
  const { rows, skipped, failed } = await measure(name, chosen, { repetitions, root, progress });
  samples[name] = rows;
  console.log(`\n${table(name, rows)}\n`);
  for (const { note } of chosen) if (note !== undefined) console.log(note);
  for (const { system, why } of skipped) console.log(`${system} is not measured: ${why}.`);
  for (const { system, error } of failed) console.log(`${system} FAILED: ${error.message}`);
  console.log(verdicts(rows, section.targets({ scale, against })));
  if ("compare" in section && against !== undefined) {
    const { quick = false } = options;
    const compared = await section.compare({ pawlPeer, root, quick, against, progress });
    console.log(`\n${compared.text}`);
  }
  if (failed.length > 0) exitCode = EXIT_FAILED;
}
if (options.json) writeFileSync(options.json, JSON.stringify(samples, undefined, 2));
process.exit(exitCode);

/** @param {string} text */
function progress(text) {
  const seconds = Math.round((performance.now() - startedAtMs) / 1000);
  process.stderr.write(`${String(seconds).padStart(4)} s  ${text}\n`);
}

/** @param {string} system */
function wanted(system) {
  const starts = options.only?.toLowerCase().split(",");
  return starts === undefined || starts.some((start) => system.toLowerCase().startsWith(start));
}

/** The command line, or the end of the process with what is wrong with it. */
function parsed() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: "boolean" },
        repetitions: { type: "string" },
        only: { type: "string" },
        "sync-delay": { type: "string" },
        dir: { type: "string" },
        profile: { type: "string" },
        against: { type: "string" },
        json: { type: "string" },
        help: { type: "boolean" },
      },
    });
    if (values.help) {
      process.stdout.write(USAGE);
      process.exit(0);
    }
    const [first] = positionals;
    const alone =
      first !== undefined && Object.hasOwn(ALONE, first)
        ? ALONE[/** @type {keyof typeof ALONE} */ (first)]
        : undefined;
    if (alone !== undefined && positionals.length > 1) throw new Error(`${first} runs by itself.`);
    for (const name of positionals) {
      if (alone === undefined && !Object.hasOwn(SECTIONS, name))
        throw new Error(`There is no section ${name}.`);
    }
    if (values.repetitions !== undefined && !/^[1-9]\d*$/.test(values.repetitions)) {
      throw new Error(`--repetitions takes a number from 1, not ${values.repetitions}.`);
    }
    const delay = values["sync-delay"];
    if (delay !== undefined && !/^\d{1,3}(\.\d+)?$/.test(delay)) {
      throw new Error(`--sync-delay takes milliseconds below 1,000, such as 0.5 or 2, not ${delay}.`);
    }
    const chosen = alone !== undefined ? [] : positionals.length > 0 ? positionals : Object.keys(SECTIONS);
    return { options: values, alone, sections: /** @type {(keyof typeof SECTIONS)[]} */ (chosen) };
  } catch (error) {
    process.stderr.write(`${/** @type {Error} */ (error).message}\n\n${USAGE}`);
    process.exit(EXIT_USAGE);
  }
}
