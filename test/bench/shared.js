// @ts-check
/** Section `shared`: a batch from enqueue to complete, in PostgreSQL that daemons share, and in other queues there. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { open, Session } from "./driver.js";
import { assertDistinct } from "./measure.js";
import * as jobs from "./peers/jobs.js";
import * as pawl from "./peers/pawl.js";
import { postgresql } from "./peers/postgresql.js";
import { compareRounds } from "./rounds.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./peers/program.js").Peer} Peer
 * @typedef {import("./peers/program.js").Server} Server
 * @typedef {{name: string, connections: number, queues: number, operations: number}} Load
 */

const PAYLOAD = { task: "resize", image: 12_345, width: 640 };
const WARM_UP_SHARE = 0.25;
const DAEMON = fileURLToPath(new URL("../../daemon/bin/pawld.js", import.meta.url));
const SEVERAL_DAEMONS = 3;

/** Of the holders that die one after the other. */
const DEATHS = { connection: 200, daemon: 6 };
/** What a killed daemon's connections held has this time, for who comes back (spec: wire.md). */
const GRACE_MS = 5000;
const LEASE_MS = 3_600_000;
const WAITS_MS = 5;
/** Of a round of the comparison with another build. */
const COMPARED_CYCLES = 400;

const ONE_QUEUE = "64 connections";
const MANY_QUEUES = "64 connections, 16 queues";
/** @type {readonly Load[]} */
const LOADS = [
  { name: "1 connection", connections: 1, queues: 1, operations: 400 },
  { name: "16 connections", connections: 16, queues: 1, operations: 3_000 },
  { name: ONE_QUEUE, connections: 64, queues: 1, operations: 6_000 },
  { name: MANY_QUEUES, connections: 64, queues: 16, operations: 6_000 },
];

/**
 * @param {{pawlPeer: Peer, scale: number}} options
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale }) {
  return [
    {
      system: "pawl",
      durability: `PostgreSQL ${postgresql.durability}`,
      missing: () => pawlPeer.missing() ?? postgresql.missing(),
      note: HOW,
      async measure(sample, directory) {
        await inPostgresql(1, { pawlPeer, scale, sample, directory });
        await nextHolders({ pawlPeer, scale, sample, directory });
      },
    },
    {
      system: "pawl, 3 daemons",
      durability: `PostgreSQL ${postgresql.durability}`,
      missing: () => pawlPeer.missing() ?? postgresql.missing(),
      measure: (sample, directory) => inPostgresql(SEVERAL_DAEMONS, { pawlPeer, scale, sample, directory }),
    },
    {
      system: "pawl, local",
      durability: pawlPeer.durability,
      missing: pawlPeer.missing,
      async measure(sample, directory) {
        for (const load of LOADS) {
          const daemon = await pawlPeer.start(directory());
          try {
            sample({ name: load.name }, await cycles([daemon], load, scale));
          } finally {
            await daemon.stop();
          }
        }
      },
    },
    ...jobs.LIBRARIES.map((library) => ({
      system: library.name,
      durability: `PostgreSQL ${postgresql.durability}`,
      missing: () => library.missing() ?? postgresql.missing(),
      /** @type {Entry["measure"]} */
      async measure(sample, directory) {
        for (const { name, connections: callers, queues, operations } of LOADS) {
          const at = directory();
          const server = await postgresql.start(at);
          try {
            const work = { callers, queues, ...counts(operations, scale) };
            sample({ name }, await jobs.cycles(library, at, work));
          } finally {
            await server.stop();
          }
        }
      },
    })),
  ];
}

const HOW =
  "A cycle is one job added, fetched and completed by itself, each step on disk before the next; nobody takes several at once, and what arrives together may share a commit. Each load has a server of its own, with what initdb sets but for the durability. pg-boss fetches and completes by its methods, graphile-worker by its runner; both have a connection of PostgreSQL for each caller, pawl a few for each daemon.";

/**
 * The processor's time for a cycle, of daemon and server, beside that of another build, in rounds that alternate.
 *
 * @param {{pawlPeer: Peer, root: string, quick: boolean, against: string, progress: (text: string) => void}} options
 */
export function compare({ pawlPeer, root, quick, against, progress }) {
  const loads = LOADS.map(({ name, connections, queues }) => ({
    name,
    connections,
    operations: COMPARED_CYCLES * Math.min(1, connections / 16),
    lane: () => {
      const lanes = Array.from({ length: queues }, (_, at) => pawl.cycles(`${name} ${at}`, PAYLOAD, []));
      return (/** @type {number} */ index) => {
        const lane = lanes[index % lanes.length];
        return /** @type {NonNullable<typeof lane>} */ (lane)(index);
      };
    },
  }));
  const candidates = [
    { name: "this checkout", peer: overPostgresql(path.dirname(path.dirname(DAEMON))) },
    { name: against, peer: overPostgresql(path.resolve(against, "daemon")) },
  ];
  return compareRounds({ section: "shared", loads, candidates, root, quick, progress });

  /**
   * A daemon with a server of its own.
   *
   * @param {string} daemonDirectory
   * @returns {Peer}
   */
  function overPostgresql(daemonDirectory) {
    const peer = pawl.pawl({ daemonDirectory });
    return {
      ...pawlPeer,
      async start(directory) {
        const [at, own] = ["server", "daemon"].map((name) => path.join(directory, name));
        for (const each of [at, own]) mkdirSync(/** @type {string} */ (each), { mode: 0o711 });
        chmodSync(directory, 0o711);
        const server = await postgresql.start(/** @type {string} */ (at));
        const url = `postgresql://bench@localhost/postgres?host=${encodeURIComponent(/** @type {string} */ (at))}`;
        const program = path.join(daemonDirectory, "bin/pawld.js");
        execFileSync(process.execPath, [program, "--create-shared-tables", url], { stdio: "ignore" });
        const daemon = await peer.start(/** @type {string} */ (own), ["--shared", `queue:*=${url}`]);
        return {
          ...daemon,
          withPid: server.pid,
          async stop() {
            await daemon.stop();
            await server.stop();
          },
        };
      },
    };
  }
}

/** @returns {import("./report.js").Target[]} */
export function targets() {
  return jobs.LIBRARIES.flatMap(({ name: peer }) => [
    { of: ONE_QUEUE, peer, peerLoad: ONE_QUEUE, atLeast: 1.5 },
    { of: MANY_QUEUES, peer, peerLoad: MANY_QUEUES, atLeast: 2.5 },
  ]);
}

/**
 * From the death of a holder at one daemon until one who waits at another holds the lease: of its connection, and of
 * the daemon by kill -9, there beyond the grace.
 *
 * @param {{pawlPeer: Peer, scale: number, sample: Parameters<Entry["measure"]>[0], directory: () => string}} options
 */
async function nextHolders({ pawlPeer, scale, sample, directory }) {
  const at = directory();
  const server = await postgresql.start(at);
  const url = `postgresql://bench@localhost/postgres?host=${encodeURIComponent(at)}`;
  const asked = { name: "bench", owner: "bench", ttlMs: LEASE_MS, waitMs: LEASE_MS, releaseOn: "disconnect" };
  /** @type {Server | undefined} */
  let holders;
  /** @type {Server | undefined} */
  let others;
  try {
    execFileSync(process.execPath, [DAEMON, "--create-shared-tables", url], { stdio: "ignore" });
    const place = directory();
    const start = () => pawlPeer.start(place, ["--shared", `lease:*=${url}`]);
    holders = await start();
    others = await pawlPeer.start(directory(), ["--shared", `lease:*=${url}`]);
    for (const [what, count] of /** @type {const} */ ([
      ["connection", DEATHS.connection],
      ["daemon", DEATHS.daemon],
    ])) {
      const times = Math.ceil(count * scale);
      const latenciesMs = new Float64Array(times);
      for (let index = 0; index < times; index++) {
        const holder = await Session.connect(holders.socket, pawl.protocol);
        holder.onFailure = () => {};
        await pawl.call(holder, "lease.acquire", asked);
        const waiter = await Session.connect(others.socket, pawl.protocol);
        const granted = pawl.call(waiter, "lease.acquire", asked);
        await waits(others.socket);
        const diedAtMs = performance.now();
        if (what === "connection") holder.close();
        else process.kill(holders.pid, "SIGKILL");
        await granted;
        latenciesMs[index] = performance.now() - diedAtMs - (what === "connection" ? 0 : GRACE_MS);
        waiter.close();
        if (what === "daemon") {
          await holders.stop();
          holders = await start();
        }
      }
      const seconds = latenciesMs.reduce((sum, ms) => sum + ms, 0) / 1000;
      sample(
        { name: `next holder, the ${what} died` },
        { operations: times, seconds, latenciesMs, driverCpuSeconds: 0, othersCpuSeconds: 0 },
      );
    }
  } finally {
    await holders?.stop();
    await others?.stop();
    await server.stop();
  }
}

/**
 * Resolves once a call waits at a daemon.
 *
 * @param {string} socket
 */
async function waits(socket) {
  const session = await Session.connect(socket, pawl.protocol);
  while ((await pawl.call(session, "daemon.stats", {})).connections.waiting === 0) await sleep(WAITS_MS);
  session.close();
}

/**
 * Each load on a fresh server, which so many daemons share.
 *
 * @param {number} count
 * @param {{pawlPeer: Peer, scale: number, sample: Parameters<Entry["measure"]>[0], directory: () => string}} options
 */
async function inPostgresql(count, { pawlPeer, scale, sample, directory }) {
  for (const load of LOADS) {
    if (load.connections < count) continue;
    const at = directory();
    const server = await postgresql.start(at);
    const url = `postgresql://bench@localhost/postgres?host=${encodeURIComponent(at)}`;
    /** @type {Server[]} */
    const daemons = [];
    try {
      execFileSync(process.execPath, [DAEMON, "--create-shared-tables", url], { stdio: "ignore" });
      for (let index = 0; index < count; index++) {
        daemons.push(await pawlPeer.start(directory(), ["--shared", `queue:*=${url}`]));
      }
      sample({ name: load.name }, await cycles(daemons, load, scale));
    } finally {
      for (const daemon of daemons) await daemon.stop();
      await server.stop();
    }
  }
}

/**
 * The connections are shared out over the daemons.
 *
 * @param {readonly Server[]} daemons
 * @param {Load} load
 * @param {number} scale
 * @returns {Promise<import("./driver.js").Run>}
 */
async function cycles(daemons, { connections, queues, operations }, scale) {
  /** @type {string[]} */
  const taken = [];
  const names = Array.from({ length: queues }, (_, index) => `bench-${index}`);
  const lanes = names.map((queue) => pawl.cycles(queue, PAYLOAD, taken));
  const shares = daemons.map((_, at) => Math.floor((connections + at) / daemons.length));
  const callers = await Promise.all(
    daemons.map(({ socket }, at) =>
      open(socket, pawl.protocol, { connections: /** @type {number} */ (shares[at]), depth: 1 }, (index) => {
        // The callers of a queue are with all daemons.
        const lane = lanes[(index + at) % lanes.length];
        return /** @type {NonNullable<typeof lane>} */ (lane)(index);
      }),
    ),
  );
  const { warmUp, operations: counted } = counts(operations, scale);
  const each = (/** @type {number} */ count) =>
    Promise.all(
      callers.map((one, at) =>
        one.run(Math.ceil((count * /** @type {number} */ (shares[at])) / connections)),
      ),
    );
  const before = await each(warmUp);
  const startedAtMs = performance.now();
  const runs = await each(counted);
  const seconds = (performance.now() - startedAtMs) / 1000;
  for (const one of callers) one.close();
  const done = runs.reduce((sum, run) => sum + run.operations, 0);
  assertDistinct("pawl", taken, done + before.reduce((sum, run) => sum + run.operations, 0));
  for (const { socket } of daemons) {
    const left = await unfinished(socket, names);
    if (left !== 0) throw new Error(`pawl has ${left} batches left`);
  }
  // One driver has all the callers, whose daemons run at the same time.
  return {
    operations: done,
    seconds,
    latenciesMs: Float64Array.from(runs.flatMap(({ latenciesMs }) => Array.from(latenciesMs))),
    driverCpuSeconds: Math.max(...runs.map(({ driverCpuSeconds }) => driverCpuSeconds)),
    othersCpuSeconds: Math.max(...runs.map(({ othersCpuSeconds }) => othersCpuSeconds)),
  };
}

/**
 * The warm-up is the same at any scale, and for all systems: before its code is compiled a daemon takes three times the
 * processor for a cycle.
 *
 * @param {number} operations
 * @param {number} scale
 */
function counts(operations, scale) {
  return { warmUp: Math.ceil(operations * WARM_UP_SHARE), operations: Math.ceil(operations * scale) };
}

/**
 * @param {string} socket
 * @param {readonly string[]} names
 */
async function unfinished(socket, names) {
  const session = await Session.connect(socket, pawl.protocol);
  let left = 0;
  for (const queue of names) {
    const { queues } = await pawl.call(session, "queue.stats", { queue });
    for (const { ready, scheduled, claimed, dead } of queues) left += ready + scheduled + claimed + dead;
  }
  session.close();
  return left;
}
