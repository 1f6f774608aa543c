// @ts-check
/** Section `events`: what those who follow everything cost the hot calls, in processor time of the daemon per call. */
import net from "node:net";
import path from "node:path";
import * as pawl from "./peers/pawl.js";
import { compareRounds } from "./rounds.js";

const SUBSCRIBERS = 10;
const CONNECTIONS = 64;
/** What another build may be dearer by, and what followers may add. */
const ALONE_TIMES = 1.02;
const FOLLOWED_TIMES = 1.25;

/** @type {readonly import("./rounds.js").Load[]} */
const LOADS = [
  {
    name: "next",
    connections: CONNECTIONS,
    operations: 4000,
    lane: () => pawl.increments("bench", []),
  },
  {
    name: "enqueue+claim+complete",
    connections: CONNECTIONS,
    operations: 1000,
    lane: () => pawl.cycles("bench", { task: "resize" }, []),
  },
];
const FOLLOWED = `${SUBSCRIBERS} follow everything`;

/**
 * @param {{pawlPeer: import("./peers/program.js").Peer, root: string, quick: boolean, against: string | undefined,
 *   progress: (text: string) => void}} options `against` is another checkout that was built, whose daemon is compared.
 * @returns {Promise<{text: string, failed: boolean, rows: import("./rounds.js").Row[]}>}
 */
export async function runEvents({ pawlPeer, root, quick, against, progress }) {
  /** @type {import("./rounds.js").Candidate[]} */
  const candidates = [
    { name: "nobody follows", peer: pawlPeer },
    { name: FOLLOWED, peer: pawlPeer, prepare: followAll },
  ];
  if (against !== undefined) {
    candidates.push({
      name: against,
      peer: pawl.pawl({ daemonDirectory: path.resolve(against, "daemon") }),
    });
  }
  const options = { section: "events", loads: LOADS, candidates, root, quick, progress };
  const { rows, text } = await compareRounds(options);
  const failed = rows.some(
    ({ daemon, times }) =>
      (daemon === FOLLOWED && times > FOLLOWED_TIMES) || (daemon === against && 1 / times > ALONE_TIMES),
  );
  const bounds = `At most ${FOLLOWED_TIMES} times with followers${against === undefined ? "" : `; nobody follows at most ${ALONE_TIMES} times ${against}`}: ${failed ? "MISSED" : "reached"}.`;
  return { text: `${text}\n${bounds}`, failed, rows };
}

/** @param {string} socket */
async function followAll(socket) {
  const following = await Promise.all(Array.from({ length: SUBSCRIBERS }, () => follow(socket)));
  return () => {
    for (const each of following) each.close();
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
