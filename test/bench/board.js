// @ts-check
/** Section `board`: signed changes to many items, and what many changes cost. */
import { readdirSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import Database from "better-sqlite3";
import { open, Session } from "./driver.js";
import { watchOthers } from "./others.js";
import * as documents from "./peers/documents.js";
import * as pawl from "./peers/pawl.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./driver.js").Run} Run
 * @typedef {import("./peers/program.js").Peer} Peer
 * @typedef {import("./peers/program.js").Server} Server
 * @typedef {{items: number, updates: number, scale: number}} Size
 * @typedef {{sample: (of: {name: string}, run: Run) => void, progress: (text: string) => void}} Report
 * @typedef {Size & Report} Compaction
 */

const ITEMS = 10_000;
const UPDATES = 100_000;
const CONNECTIONS = 16;
/** Callers on one connection, so that the next changes are there when the last are taken in. */
const APPLY_DEPTH = 2;
const STARTS = 5;
const LISTS = 20;
const MIN_LISTS = 5;

const WRITE = `write, ${CONNECTIONS} connections`;
const APPLY = "apply, verified";
/** @param {number} scale */
const readyLoad = (scale) => `ready with ${((ITEMS + UPDATES) * scale).toLocaleString("en")} changes`;
/** @param {number} scale */
const listLoad = (scale) => `list of ${(ITEMS * scale).toLocaleString("en")} items`;
const COMPACT = "compact, a write at a time beside it";
const COMPACTED = ", compacted";

/**
 * @param {{pawlPeer: Peer, scale: number, progress: (text: string) => void}} options
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale, progress }) {
  return [
    boardEntry(pawlPeer, scale, progress),
    ...documents.LIBRARIES.map((each) => documentEntry(each, scale)),
  ];
}

/** @param {{scale: number}} options @returns {import("./report.js").Target[]} */
export function targets({ scale }) {
  return [
    { of: WRITE, perSecond: 5_000 },
    { of: APPLY, perSecond: 3_500 },
    { of: readyLoad(scale), withinMs: 300 },
    { of: listLoad(scale), withinMs: 150 },
  ];
}

/**
 * One node makes all changes, is started anew, and lists its items; another takes the changes in.
 *
 * @param {Peer} peer
 * @param {number} scale
 * @param {(text: string) => void} progress
 * @returns {Entry}
 */
function boardEntry(peer, scale, progress) {
  const items = ITEMS * scale;
  const updates = UPDATES * scale;
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    async measure(sample, directory) {
      const home = directory();
      let server = await peer.start(home);
      try {
        const callers = await open(
          server.socket,
          pawl.protocol,
          { connections: CONNECTIONS, depth: 1 },
          pawl.itemWrites(items),
        );
        // The items are made before the time starts; it is the updates of them that are measured.
        await callers.run(items);
        sample({ name: WRITE }, await callers.run(updates));
        callers.close();
        await assertBoard(server, items, items + updates);
        progress(`board: made ${(items + updates).toLocaleString("en")} changes`);

        await server.stop();
        const empty = directory();
        sample({ name: "ready, empty" }, await starts(peer, empty));
        const ready = await starts(peer, home);
        server = await peer.start(home);
        const lists = await open(
          server.socket,
          pawl.protocol,
          { connections: 1, depth: 1 },
          pawl.itemLists(items),
        );
        await lists.run(2);
        const listed = await lists.run(Math.max(MIN_LISTS, LISTS * scale));
        lists.close();
        const { memoryBytes } = await assertBoard(server, items, items + updates);
        sample({ name: readyLoad(scale) }, { ...ready, memoryBytes });
        sample({ name: listLoad(scale) }, listed);
        sample({ name: APPLY }, await taken(peer, server, directory(), items, updates));
        server = await compacted(peer, server, home, { items, updates, scale, sample, progress });
      } finally {
        await server.stop();
      }
    },
  };
}

/**
 * The same board once more, after changes on which nothing rests were taken away.
 *
 * @param {Peer} peer
 * @param {Server} before
 * @param {string} home
 * @param {Compaction} options
 * @returns {Promise<Server>}
 */
async function compacted(peer, before, home, { items, updates, scale, sample, progress }) {
  const session = await Session.connect(before.socket, pawl.protocol);
  const other = await Session.connect(before.socket, pawl.protocol);
  const usedBefore = usedBytes(home);
  const others = watchOthers();
  const cpuBefore = process.cpuUsage();
  const sinceMs = performance.now();
  let isDone = false;
  const compacting = pawl.call(session, "pipeline.compact", {}).finally(() => {
    isDone = true;
  });
  const waits = [];
  for (let index = 0; !isDone; index++) {
    const askedMs = performance.now();
    await pawl.call(other, "pipeline.write", { storyId: `S-${index % items}`, blocked: false });
    waits.push(performance.now() - askedMs);
  }
  const { changes, kept } = await compacting;
  const seconds = (performance.now() - sinceMs) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const run = { driverCpuSeconds: (user + system) / 1e6, othersCpuSeconds: others() };
  sample(
    { name: COMPACT },
    { operations: waits.length, seconds, latenciesMs: Float64Array.from(waits), ...run },
  );
  session.close();
  other.close();
  await before.stop();
  progress(
    `board: in ${seconds.toFixed(1)} s took ${changes.toLocaleString("en")} changes away and kept ${kept.toLocaleString("en")}: ${megabytes(usedBefore)} before, ${megabytes(usedBytes(home))} after`,
  );
  sample({ name: readyLoad(scale) + COMPACTED }, await starts(peer, home));
  const server = await peer.start(home);
  const lists = await open(server.socket, pawl.protocol, { connections: 1, depth: 1 }, pawl.itemLists(items));
  await lists.run(2);
  sample({ name: listLoad(scale) + COMPACTED }, await lists.run(Math.max(MIN_LISTS, LISTS * scale)));
  lists.close();
  const callers = await open(
    server.socket,
    pawl.protocol,
    { connections: CONNECTIONS, depth: 1 },
    pawl.itemWrites(items, items),
  );
  sample({ name: WRITE + COMPACTED }, await callers.run(updates));
  callers.close();
  return server;
}

/**
 * How much of a database is in use, without what is free in its file.
 *
 * @param {string} home
 */
function usedBytes(home) {
  const file = readdirSync(home, { recursive: true }).find((name) => String(name).endsWith("pawl.db"));
  const database = new Database(path.join(home, String(file)), { readonly: true });
  const [pages, free, size] = ["page_count", "freelist_count", "page_size"].map((name) =>
    Number(database.pragma(name, { simple: true })),
  );
  database.close();
  return (Number(pages) - Number(free)) * Number(size);
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Starts of a daemon, each until it answers on its socket.
 *
 * @param {Peer} peer
 * @param {string} directory
 * @returns {Promise<Run>}
 */
async function starts(peer, directory) {
  const latenciesMs = new Float64Array(STARTS);
  const others = watchOthers();
  const cpuBefore = process.cpuUsage();
  for (let index = 0; index < STARTS; index++) {
    const sinceMs = performance.now();
    const server = await peer.start(directory);
    latenciesMs[index] = performance.now() - sinceMs;
    await server.stop();
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  return {
    operations: STARTS,
    seconds: latenciesMs.reduce((sum, each) => sum + each, 0) / 1000,
    latenciesMs,
    driverCpuSeconds: (user + system) / 1e6,
    othersCpuSeconds: others(),
  };
}

/**
 * A second node takes in all changes of the first, which are fetched before the time starts.
 *
 * @param {Peer} peer
 * @param {Server} from
 * @param {string} directory
 * @param {number} items
 * @param {number} updates
 * @returns {Promise<Run>}
 */
async function taken(peer, from, directory, items, updates) {
  const { identity, calls } = await pawl.boardChanges(from.socket);
  const server = await peer.start(directory);
  try {
    const session = await Session.connect(server.socket, pawl.protocol);
    const { author, board } = identity;
    await pawl.call(session, "peer.trust", { author, board, name: "bench" });
    session.close();
    const callers = await open(
      server.socket,
      pawl.protocol,
      { connections: 1, depth: APPLY_DEPTH },
      pawl.boardApplies(calls),
    );
    const run = await callers.run(calls.length);
    callers.close();
    await assertBoard(server, items, items + updates);
    return { ...run, operations: items + updates };
  } finally {
    await server.stop();
  }
}

/**
 * @param {Server} server
 * @param {number} items
 * @param {number} changes
 * @returns {Promise<any>} `daemon.stats`.
 */
async function assertBoard(server, items, changes) {
  const session = await Session.connect(server.socket, pawl.protocol);
  const stats = await pawl.call(session, "daemon.stats", {});
  session.close();
  const { pipeline } = stats;
  if (pipeline.items !== items || pipeline.changes !== changes)
    throw new Error(
      `pawl has ${pipeline.changes} changes on ${pipeline.items} items, not ${changes} on ${items}`,
    );
  return stats;
}

/**
 * The same work on a document of a library, whose updates are appended to a file.
 *
 * @param {documents.Library} library
 * @param {number} scale
 * @returns {Entry}
 */
function documentEntry(library, scale) {
  const items = ITEMS * scale;
  const updates = UPDATES * scale;
  return {
    system: library.name,
    durability: `file of updates, fdatasync every ${CONNECTIONS}; not signed`,
    missing: library.missing,
    async measure(sample, directory) {
      const home = directory();
      const written = await documents.write(library, home, { items, updates, perSync: CONNECTIONS });
      sample({ name: `write, ${CONNECTIONS} a sync`, against: WRITE }, written);
      for (const kind of /** @type {const} */ (["updates", "snapshot"])) {
        const loaded = await documents.load(library, home, kind, { items, updates, times: STARTS });
        sample({ name: `ready, from ${kind}`, against: readyLoad(scale) }, loaded);
      }
    },
  };
}
