// @ts-check
/**
 * Section `events`: what those who follow everything cost the hot calls, in processor time of the daemon per call. That
 * hardly depends on what else the machine does; the rounds of all daemons alternate, and compared is round by round.
 */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { open } from "./driver.js";
import * as pawl from "./peers/pawl.js";

const SUBSCRIBERS = 10;
const CONNECTIONS = 64;
const ROUNDS = 40;
const QUICK_ROUNDS = 4;
const NANOSECONDS_PER_MICROSECOND = 1000;
/** What another build may be dearer by, and what followers may add. */
const ALONE_TIMES = 1.02;
const FOLLOWED_TIMES = 1.25;

/** @typedef {{name: string, operations: number, lane: () => (index: number) => import("./driver.js").Lane}} Load */

/** @type {readonly Load[]} */
const LOADS = [
  { name: "next", operations: 4000, lane: () => pawl.increments("bench", []) },
  {
    name: "enqueue+claim+complete",
    operations: 1000,
    lane: () => pawl.cycles("bench", { task: "resize" }, []),
  },
];

/**
 * @typedef {object} Candidate a daemon under measurement.
 * @property {string} name
 * @property {number} pid
 * @property {import("./driver.js").Callers[]} callers one for each load.
 * @property {number[][]} micros per operation, by load and round.
 * @property {() => Promise<void>} stop
 *
 * @typedef {{load: string, daemon: string, micros: number, times: number}} Row
 */

/**
 * @param {{pawlPeer: import("./peers/program.js").Peer, root: string, quick: boolean, against: string | undefined,
 *   progress: (text: string) => void}} options `against` is another checkout that was built, whose daemon is compared.
 * @returns {Promise<{text: string, failed: boolean, rows: Row[]}>}
 */
export async function runEvents({ pawlPeer, root, quick, against, progress }) {
  const alone = await start("nobody follows", pawlPeer, root, 0);
  const followed = await start(`${SUBSCRIBERS} follow everything`, pawlPeer, root, SUBSCRIBERS);
  const candidates = [alone, followed];
  if (against !== undefined) {
    const other = pawl.pawl({ daemonDirectory: path.resolve(against, "daemon") });
    candidates.push(await start(against, other, root, 0));
  }
  const rounds = quick ? QUICK_ROUNDS : ROUNDS;
  // The first rounds are of code that is still compiled.
  for (let round = -Math.ceil(rounds / 4); round < rounds; round++) {
    progress(`events: round ${round + 1} of ${rounds}`);
    for (const [place, load] of LOADS.entries()) {
      // Whoever comes first in a round has another cache and another garbage collection: each does, in turn.
      for (let turn = 0; turn < candidates.length; turn++) {
        const candidate = /** @type {Candidate} */ (candidates[(turn + Math.abs(round)) % candidates.length]);
        const micros = await measured(candidate, place, load.operations);
        if (round >= 0) candidate.micros[place]?.push(micros);
      }
    }
  }
  for (const { stop } of candidates) await stop();
  const rows = LOADS.flatMap(({ name }, place) =>
    candidates.map((candidate) => rowOf(name, place, candidate, alone)),
  );
  const failed = rows.some(
    ({ daemon, times }) =>
      (daemon === followed.name && times > FOLLOWED_TIMES) || (daemon === against && 1 / times > ALONE_TIMES),
  );
  const lines = rows.map(
    ({ load, daemon, micros, times }) =>
      `${load.padEnd(24)} ${daemon.padEnd(24)} ${micros.toFixed(1).padStart(7)} us  ${times.toFixed(3)} times`,
  );
  const bounds = `At most ${FOLLOWED_TIMES} times with followers${against === undefined ? "" : `; nobody follows at most ${ALONE_TIMES} times ${against}`}: ${failed ? "MISSED" : "reached"}.`;
  return {
    text: ["Processor time of the daemon per operation, medians", ...lines, bounds].join("\n"),
    failed,
    rows,
  };
}

/**
 * @param {string} name
 * @param {import("./peers/program.js").Peer} peer
 * @param {string} root
 * @param {number} subscribers
 * @returns {Promise<Candidate>}
 */
async function start(name, peer, root, subscribers) {
  const directory = path.join(root, `events-${name.replace(/\W/g, "-")}`);
  mkdirSync(directory, { mode: 0o700 });
  const { socket, pid, stop } = await peer.start(directory);
  const following = await Promise.all(Array.from({ length: subscribers }, () => follow(socket)));
  const callers = [];
  for (const { lane } of LOADS) {
    callers.push(await open(socket, pawl.protocol, { connections: CONNECTIONS, depth: 1 }, lane()));
  }
  return {
    name,
    pid,
    callers,
    micros: LOADS.map(() => []),
    async stop() {
      for (const each of [...callers, ...following]) each.close();
      await stop();
    },
  };
}

/** Subscribes to everything, and reads what comes. @param {string} socket */
async function follow(socket) {
  const connection = net.connect(socket);
  connection.write(pawl.request(0, "events.subscribe", { topics: ["*"] }));
  await new Promise((resolve, reject) => connection.once("data", resolve).once("error", reject));
  connection.on("data", () => {});
  return { close: () => connection.destroy() };
}

/**
 * One round of a load: how long the processors worked for the daemon, per operation.
 *
 * @param {Candidate} candidate
 * @param {number} place
 * @param {number} operations
 */
async function measured({ pid, callers }, place, operations) {
  const before = processorNanoseconds(pid);
  await callers[place]?.run(operations);
  return (processorNanoseconds(pid) - before) / NANOSECONDS_PER_MICROSECOND / operations;
}

/**
 * What all threads of a process have used: schedstat counts nanoseconds, stat only hundredths of a second.
 *
 * @param {number} pid
 */
function processorNanoseconds(pid) {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).reduce((sum, task) => {
    const [used] = readFileSync(path.join(tasks, task, "schedstat"), "utf8").split(" ");
    return sum + Number(used);
  }, 0);
}

/**
 * @param {string} load
 * @param {number} place
 * @param {Candidate} candidate
 * @param {Candidate} base
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
