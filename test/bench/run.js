// @ts-check
/** `npm run bench`: see README.md in this directory. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import * as command from "./command.js";
import { measure } from "./measure.js";
import { beanstalkd } from "./peers/beanstalkd.js";
import { pawl } from "./peers/pawl.js";
import { postgresql } from "./peers/postgresql.js";
import { redis } from "./peers/redis.js";
import * as queue from "./queue.js";
import { machine, table, verdicts } from "./report.js";
import * as sequence from "./sequence.js";

const USAGE = `Usage: npm run bench -- [sequence] [queue] [command] [options]

Measures pawld beside the systems that are installed. All sections when none is named.

  --quick            a tenth of the work, once: shows that it runs; the figures are rough
  --repetitions N    default 3; medians are reported
  --only NAMES       only systems whose name starts with one of these, such as pawl,Redis
  --dir DIR          where state is kept; default the temporary directory. Not on tmpfs, where nothing is durable
  --profile DIR      writes a CPU profile of each pawld into DIR
  --json FILE        writes all samples to FILE
`;

const SECTIONS = { sequence, queue, command };
const DEFAULT_REPETITIONS = 3;
const QUICK_SCALE = 0.1;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM"])) process.on(signal, () => process.exit(EXIT_FAILED));

const { values: options, positionals } = arguments_();
const names = positionals.length > 0 ? positionals : Object.keys(SECTIONS);
const repetitions = Number(options.repetitions ?? (options.quick ? 1 : DEFAULT_REPETITIONS));
const scale = options.quick ? QUICK_SCALE : 1;
const only = options.only?.toLowerCase().split(",");
const pawlPeer = pawl({ profileDirectory: options.profile });
const root = mkdtempSync(path.join(options.dir ?? os.tmpdir(), "pawl-bench-"));
process.on("exit", () => rmSync(root, { recursive: true, force: true }));
