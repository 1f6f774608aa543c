// @ts-check
/** Section `sequence`: the next number: by one caller, many and deep ones, and as people do it today. */
import { open } from "./driver.js";
import { countInFile } from "./files.js";
import { assertContiguous } from "./measure.js";
import { echo } from "./peers/echo.js";
import * as pawl from "./peers/pawl.js";
import * as postgresql from "./peers/postgresql.js";
import * as redis from "./peers/redis.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./measure.js").Load} Load
 * @typedef {import("./driver.js").Lane} Lane
 * @typedef {import("./driver.js").Protocol} Protocol
 * @typedef {import("./peers/program.js").Peer} Peer
 * @typedef {{protocol: Protocol, lane: (index: number) => Lane}} Requests
 * @typedef {{name: string, connections: number, depth: number, operations: number, warmUp: number}} SocketLoad
 */

/** The heaviest first: it warms the server up for the others. */
const LOADS = [
  { name: "64 connections", connections: 64, depth: 1, share: 1 },
  { name: "16 connections", connections: 16, depth: 1, share: 0.6 },
  { name: "1 connection", connections: 1, depth: 1, share: 0.1 },
  { name: "1 connection, 64 deep", connections: 1, depth: 64, share: 1 },
];
const FAST_OPERATIONS = 60_000;
/** Counter rows commit one after the other whatever the load is. */
const POSTGRESQL_OPERATIONS = 4_000;
const LOOP_OPERATIONS = 10_000;
/**
 * Of each process. SQLite's waiters sleep longer and longer, so that one process goes on while the others sleep;
 * with less work the figure is that of the last sleepers.
 */
const FILE_LOADS = [
  { processes: 8, sqlite: 2_000, toml: 100 },
  { processes: 64, sqlite: 400, toml: 15 },
];
const MIN_FILE_SCALE = 0.5;
const WARM_UP_SHARE = 0.25;

/**
 * @param {{pawlPeer: Peer, scale: number}} options `scale`: of the work, 1 for all of it.
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale }) {
  const loads = (/** @type {number} */ most, /** @type {boolean} */ even) =>
    LOADS.map(({ share, ...load }) => {
      const operations = Math.ceil(most * (even ? 1 : share));
      // Never scaled down: a server that is not warm yet is another one.
      return {
        ...load,
        operations: Math.ceil(operations * scale),
        warmUp: Math.ceil(operations * WARM_UP_SHARE),
      };
    });
  const fileScale = Math.max(scale, MIN_FILE_SCALE);
  return [
    server(pawlPeer, loads(FAST_OPERATIONS, false), async (_socket, type, numbers) => ({
      protocol: pawl.protocol,
      lane: pawl.increments(type, numbers),
    })),
    server(echo, loads(FAST_OPERATIONS, false), async (_socket, type, numbers) => ({
      protocol: pawl.protocol,
      lane: pawl.increments(type, numbers),
    })),
    server(redis.redis, loads(FAST_OPERATIONS, false), async (_socket, key, numbers) => ({
      protocol: redis.protocol,
      lane: redis.increments(key, numbers),
    })),
    server(postgresql.postgresql, loads(POSTGRESQL_OPERATIONS, true), async (socket, row, numbers) => {
      const { schema, ...counter } = postgresql.counter(row, numbers);
      await postgresql.query(socket, schema);
      return counter;
    }),
    {
      system: "SQLite file",
      durability: "WAL, synchronous=FULL",
      missing: () => undefined,
      async measure(sample, directory) {
        for (const { processes, sqlite } of FILE_LOADS) {
          const load = { name: `${processes} processes`, against: "64 connections" };
          sample(load, await inFile("sqlite", directory(), processes, sqlite * fileScale));
        }
      },
    },
    {
      system: "TOML file",
      durability: "lock file, fsync, rename, fsync of directory",
      missing: () => undefined,
      async measure(sample, directory) {
        for (const { processes, toml } of FILE_LOADS) {
          const load = { name: `${processes} processes`, against: "64 connections" };
          sample(load, await inFile("toml", directory(), processes, toml * fileScale));
        }
      },
    },
    {
      system: "SQLite plain loop",
      durability: "WAL, synchronous=FULL",
      missing: () => undefined,
      async measure(sample, directory) {
        const load = { name: "1 process", against: "1 connection" };
        sample(load, await inFile("sqlite", directory(), 1, LOOP_OPERATIONS * scale));
      },
    },
  ];
}

/** @returns {import("./report.js").Target[]} */
export const targets = () => [
  { of: "64 connections", peer: "Redis", peerLoad: "64 connections", atLeast: 0.75 },
  { of: "64 connections", peer: "PostgreSQL", peerLoad: "64 connections", atLeast: 10 },
  { of: "64 connections", peer: "SQLite file", peerLoad: "64 processes", atLeast: 20 },
  { of: "64 connections", peer: "TOML file", peerLoad: "64 processes", atLeast: 20 },
  { of: "1 connection", peer: "SQLite plain loop", peerLoad: "1 process", atLeast: 0.6 },
];

/**
 * @param {Peer} peer
 * @param {SocketLoad[]} loads
 * @param {(socket: string, counter: string, numbers: number[]) => Promise<Requests>} setUp
 * @returns {Entry}
 */
function server(peer, loads, setUp) {
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    async measure(sample, directory) {
      const { socket, stop } = await peer.start(directory());
      try {
        for (const load of loads) {
          const { name, connections, depth, operations, warmUp } = load;
          /** @type {number[]} */
          const numbers = [];
          const { protocol, lane } = await setUp(socket, `C${connections}D${depth}`, numbers);
          const callers = await open(socket, protocol, { connections, depth }, lane);
          await callers.run(warmUp);
          const run = await callers.run(operations);
          callers.close();
          assertContiguous(peer.name, numbers, warmUp + operations);
          sample({ name }, run);
        }
      } finally {
        await stop();
      }
    },
  };
}

/**
 * @param {"sqlite" | "toml"} way
 * @param {string} directory
 * @param {number} processes
 * @param {number} each
 */
async function inFile(way, directory, processes, each) {
  const operations = Math.ceil(each);
  const warmUp = Math.ceil(operations * WARM_UP_SHARE);
  const { run, numbers } = await countInFile(way, directory, { processes, warmUp, operations });
  assertContiguous(way, numbers, processes * (warmUp + operations));
  return run;
}
