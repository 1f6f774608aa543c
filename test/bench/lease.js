// @ts-check
/** Section `lease`: acquire a lock and release it: one caller and many, each a name of its own, and all of them one. */
import path from "node:path";
import { open } from "./driver.js";
import { assertContiguous } from "./measure.js";
import * as etcd from "./peers/etcd.js";
import { flock, lockInLoops } from "./peers/flock.js";
import * as pawl from "./peers/pawl.js";
import * as redis from "./peers/redis.js";
import { compareRounds } from "./rounds.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./peers/program.js").Peer} Peer
 * @typedef {import("./peers/program.js").Holds} Holds
 * @typedef {{protocol: import("./driver.js").Protocol, lane: (index: number) => import("./driver.js").Lane}} Requests
 * @typedef {(index: number) => string} NameOf
 * @typedef {typeof LOADS[0]} Load
 */

/** The heaviest first: it warms the server up for the others. Of one name only one caller at a time gets on. */
const LOADS = [
  { name: "64 connections, a name each", connections: 64, isOneName: false, share: 1 },
  { name: "64 connections, one name", connections: 64, isOneName: true, share: 0.3 },
  { name: "16 connections, a name each", connections: 16, isOneName: false, share: 0.6 },
  { name: "16 connections, one name", connections: 16, isOneName: true, share: 0.3 },
  { name: "1 connection", connections: 1, isOneName: true, share: 0.1 },
];
const OPERATIONS = 20_000;
/** etcd writes each step into its log, and one name's steps one after the other. */
const ETCD_OPERATIONS = 6_000;
/** Of all shells together: each is two starts of a process. */
const FLOCK_OPERATIONS = 1_920;
const WARM_UP_SHARE = 0.25;
/** Afterwards each caller holds its lock for so long, so many times: two who hold it at a time are seen. */
const CHECKED_HOLD_MS = 1;
const CHECKED_OPERATIONS = 128;
/** As fast as another build, but for what two runs of one differ by. */
const AGAINST_AT_LEAST = 0.95;
const COMPARED_OPERATIONS = 1_000;

/**
 * @param {{pawlPeer: Peer, scale: number, against?: string | undefined}} options `scale`: of the work, 1 for all of
 *   it. `against`: another checkout that was built, which is measured too.
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale, against }) {
  /** @type {(peer: Peer) => Entry} */
  const ofPawl = (peer) =>
    server(peer, OPERATIONS * scale, async (_socket, _load, nameOf, holds) => {
      const tokens = new Map();
      const lane = pawl.leases(nameOf, holds, tokens);
      return { protocol: pawl.protocol, lane, verify: () => assertTokens(tokens) };
    });
  return [
    ofPawl(pawlPeer),
    ...(against === undefined ? [] : [ofPawl({ ...otherPawl(against), name: nameOfOther(against) })]),
    {
      ...server(redis.redis, OPERATIONS * scale, async (_socket, _load, nameOf, holds) => ({
        protocol: redis.lockProtocol,
        lane: redis.locks(nameOf, holds),
        verify: () => {},
      })),
      note: "Redis: SET NX PX, and the script that deletes the caller's own lock; who finds it taken asks again after 1 to 5 ms.",
    },
    {
      ...server(etcd.etcd, ETCD_OPERATIONS * scale, async (socket, { connections }, nameOf, holds) => ({
        protocol: etcd.protocol,
        lane: etcd.locks(await etcd.sessions(socket, connections), nameOf, holds),
        verify: () => {},
      })),
      note: "etcd: its lock service over the JSON gateway, with a session for each caller, as its client has.",
    },
    flockEntry(scale),
  ];
}

/** @param {{against?: string | undefined}} options @returns {import("./report.js").Target[]} */
export const targets = ({ against }) =>
  against === undefined
    ? []
    : LOADS.map(({ name }) => ({
        of: name,
        peer: nameOfOther(against),
        peerLoad: name,
        atLeast: AGAINST_AT_LEAST,
      }));

/**
 * The processor's time of the daemon beside that of another checkout, which hardly depends on what else the machine
 * does.
 *
 * @param {{pawlPeer: Peer, root: string, quick: boolean, against: string, progress: (text: string) => void}} options
 */
export function compare({ pawlPeer, root, quick, against, progress }) {
  const loads = LOADS.map(({ name, connections, isOneName, share }) => ({
    name,
    connections,
    operations: COMPARED_OPERATIONS * share,
    lane: () => pawl.leases(namesOf(isOneName, name), { ms: 0, log: [] }, new Map()),
  }));
  const candidates = [
    { name: "this checkout", peer: pawlPeer },
    { name: against, peer: otherPawl(against) },
  ];
  return compareRounds({ section: "lease", loads, candidates, root, quick, progress });
}

/** @param {string} against */
function otherPawl(against) {
  return pawl.pawl({ daemonDirectory: path.resolve(against, "daemon") });
}

/** @param {string} against */
function nameOfOther(against) {
  return `pawl of ${against}`;
}

/**
 * @param {boolean} isOneName
 * @param {string} load
 * @returns {NameOf}
 */
function namesOf(isOneName, load) {
  return (index) => (isOneName ? load : `${load} ${index}`);
}

/**
 * @param {Peer} peer
 * @param {number} most operations of a load.
 * @param {(socket: string, load: Load, nameOf: NameOf, holds: Holds) => Promise<Requests & {verify: () => void}>} setUp
 * @returns {Entry}
 */
function server(peer, most, setUp) {
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    async measure(sample, directory) {
      const { socket, stop } = await peer.start(directory());
      try {
        for (const load of LOADS) {
          const { name, connections, isOneName, share } = load;
          const operations = Math.ceil(most * share);
          /** @type {Holds} */
          const holds = { ms: 0, log: [] };
          const { protocol, lane, verify } = await setUp(socket, load, namesOf(isOneName, name), holds);
          const callers = await open(socket, protocol, { connections, depth: 1 }, lane);
          await callers.run(Math.ceil(operations * WARM_UP_SHARE));
          const run = await callers.run(operations);
          verify();
          holds.ms = CHECKED_HOLD_MS;
          await callers.run(CHECKED_OPERATIONS);
          callers.close();
          assertAlone(peer.name, holds.log, isOneName);
          sample({ name }, run);
        }
      } finally {
        await stop();
      }
    },
  };
}

/**
 * @param {number} scale
 * @returns {Entry}
 */
function flockEntry(scale) {
  return {
    system: flock.name,
    durability: flock.durability,
    note: "flock(1): shells that lock a file, count and unlock it, so two starts of a process each time; each shell is set beside a connection.",
    missing: flock.missing,
    async measure(sample, directory) {
      for (const { name, connections, isOneName } of LOADS) {
        const operations = Math.ceil((FLOCK_OPERATIONS * scale) / connections);
        const work = { processes: connections, isOneName, operations };
        const warmUp = Math.ceil(operations * WARM_UP_SHARE);
        const load = name.replace("connections", "shells").replace("connection", "shell");
        sample({ name: load, against: name }, await lockInLoops(directory(), { ...work, warmUp }));
      }
    },
  };
}

/**
 * Fails if somebody was told that it holds a lock before whoever held it had asked to give it back.
 *
 * @param {string} system
 * @param {readonly number[]} log
 * @param {boolean} isOneName
 */
function assertAlone(system, log, isOneName) {
  const holding = new Set();
  let grants = 0;
  for (const entry of log) {
    if (entry < 0) holding.delete(~entry);
    else if (isOneName && holding.size > 0) throw new Error(`${system} let two callers hold one lock`);
    else {
      holding.add(entry);
      grants += 1;
    }
  }
  if (grants !== CHECKED_OPERATIONS || holding.size > 0)
    throw new Error(
      `${system} granted ${grants} of ${CHECKED_OPERATIONS} locks, and ${holding.size} are held`,
    );
}

/** @param {ReadonlyMap<string, number[]>} tokens */
function assertTokens(tokens) {
  for (const [name, own] of tokens) assertContiguous(`pawl, ${name},`, own, own.length);
}
