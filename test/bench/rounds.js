// @ts-check
/**
 * Daemons beside each other by the processor's time that they take for an operation. That hardly depends on what else
 * the machine does; the rounds of all daemons alternate, and compared is round by round.
 */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { open } from "./driver.js";
import * as pawl from "./peers/pawl.js";

const ROUNDS = 40;
const QUICK_ROUNDS = 4;
const NANOSECONDS_PER_MICROSECOND = 1000;

/**
 * @typedef {{name: string, connections: number, operations: number,
 *   lane: () => (index: number) => import("./driver.js").Lane}} Load
 *
 * @typedef {object} Candidate a daemon to be measured.
 * @property {string} name
 * @property {import("./peers/program.js").Peer} peer
 * @property {(socket: string) => Promise<() => void>} [prepare] once it runs; gives what is to be done before it stops.
 *
 * @typedef {object} Started one under measurement.
 * @property {string} name
 * @property {number} pid
 * @property {number | undefined} withPid another that works for it, with its children.
 * @property {import("./driver.js").Callers[]} callers one for each load.
 * @property {number[][]} micros per operation, by load and round.
 * @property {() => Promise<void>} stop
 *
 * @typedef {{load: string, daemon: string, micros: number, times: number}} Row `times` as much as the first candidate.
 */

/**
 * @param {{section: string, loads: readonly Load[], candidates: readonly Candidate[], root: string, quick: boolean,
 *   progress: (text: string) => void}} options
 * @returns {Promise<{rows: Row[], text: string}>}
 */
export async function compareRounds({ section, loads, candidates, root, quick, progress }) {
  /** @type {Started[]} */
  const started = [];
  for (const [place, candidate] of candidates.entries()) {
    const directory = path.join(root, `${section}-rounds-${place}`);
    mkdirSync(directory, { mode: 0o700 });
    started.push(await start(candidate, loads, directory));
  }
  const rounds = quick ? QUICK_ROUNDS : ROUNDS;
  // The first rounds are of code that is still compiled.
  for (let round = -Math.ceil(rounds / 4); round < rounds; round++) {
    progress(`${section}: round ${round + 1} of ${rounds}`);
    for (const [place, load] of loads.entries()) {
      // Whoever comes first in a round has another cache and another garbage collection: each does, in turn.
      for (let turn = 0; turn < started.length; turn++) {
        const candidate = /** @type {Started} */ (started[(turn + Math.abs(round)) % started.length]);
        const micros = await measured(candidate, place, load.operations);
        if (round >= 0) candidate.micros[place]?.push(micros);
      }
    }
  }
  for (const { stop } of started) await stop();
  const rows = loads.flatMap(({ name }, place) =>
    started.map((candidate) => rowOf(name, place, candidate, /** @type {Started} */ (started[0]))),
  );
  const width = Math.max(...rows.map(({ load }) => load.length));
  const lines = rows.map(
    ({ load, daemon, micros, times }) =>
      `${load.padEnd(width)}  ${daemon.padEnd(24)} ${micros.toFixed(1).padStart(7)} us  ${times.toFixed(3)} times`,
  );
  return {
    rows,
    text: ["Processor time of the daemon, and of what works for it, per operation, medians", ...lines].join(
      "\n",
    ),
  };
}

/**
 * @param {Candidate} candidate
 * @param {readonly Load[]} loads
 * @param {string} directory
 * @returns {Promise<Started>}
 */
async function start({ name, peer, prepare }, loads, directory) {
  const { socket, pid, withPid, stop } = await peer.start(directory);
  const undo = await prepare?.(socket);
  const callers = [];
  for (const { connections, lane } of loads) {
    callers.push(await open(socket, pawl.protocol, { connections, depth: 1 }, lane()));
  }
  return {
    name,
    pid,
    withPid,
    callers,
    micros: loads.map(() => []),
    async stop() {
      for (const each of callers) each.close();
      undo?.();
      await stop();
    },
  };
}

/**
 * One round of a load: how long the processors worked for the daemon, per operation.
 *
 * @param {Started} candidate
 * @param {number} place
 * @param {number} operations
 */
async function measured({ pid, withPid, callers }, place, operations) {
  // Those that come and go meanwhile are no part of the work.
  const pids = [pid, ...(withPid === undefined ? [] : [withPid, ...childrenOf(withPid)])];
  const before = pids.map(processorNanoseconds);
  await callers[place]?.run(operations);
  const used = pids.map((each, at) => processorNanoseconds(each) - Number(before[at]));
  return used.reduce((sum, each) => sum + Math.max(0, each), 0) / NANOSECONDS_PER_MICROSECOND / operations;
}

/**
 * What all threads of a process have used: schedstat counts nanoseconds, stat only hundredths of a second. 0 of one
 * that has ended.
 *
 * @param {number} pid
 */
function processorNanoseconds(pid) {
  const tasks = `/proc/${pid}/task`;
  try {
    return readdirSync(tasks).reduce((sum, task) => {
      const [used] = readFileSync(path.join(tasks, task, "schedstat"), "utf8").split(" ");
      return sum + Number(used);
    }, 0);
  } catch {
    return 0;
  }
}

/** @param {number} pid */
function childrenOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter(Boolean)
    .map(Number);
}

/**
 * @param {string} load
 * @param {number} place
 * @param {Started} candidate
 * @param {Started} base
 * @returns {Row}
 */
function rowOf(load, place, candidate, base) {
  const micros = candidate.micros[place] ?? [];
  const times = micros.map((each, round) => each / (base.micros[place]?.[round] ?? Number.NaN));
  return { load, daemon: candidate.name, micros: middle(micros), times: middle(times) };
}

/** @param {number[]} values */
function middle(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return /** @type {number} */ (sorted[sorted.length >> 1]);
}
