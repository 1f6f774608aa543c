// @ts-check
/** Section `queue`: a batch of work from enqueue to complete, and what a backlog costs. */
import { open, Session } from "./driver.js";
import { assertDistinct, together } from "./measure.js";
import * as beanstalkd from "./peers/beanstalkd.js";
import * as pawl from "./peers/pawl.js";
import * as rows from "./peers/pawl-rows.js";
import * as postgresql from "./peers/postgresql.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./driver.js").Lane} Lane
 * @typedef {import("./driver.js").Protocol} Protocol
 * @typedef {import("./peers/program.js").Peer} Peer
 * @typedef {{protocol: Protocol, lane: (index: number) => Lane, left: () => Promise<number>}} Cycle
 */

const PAYLOAD = { task: "resize", image: 12_345, width: 640 };
const CYCLE_CONNECTIONS = 64;
const CYCLE_OPERATIONS = 20_000;
const POSTGRESQL_CYCLE_OPERATIONS = 5_000;
const WARM_UP_SHARE = 0.25;

const CLAIM_CONNECTIONS = 16;
const SMALL_BACKLOG_BATCHES = 1_000;
const LARGE_BACKLOG_BATCHES = 1_000_000;
/** A round takes most of the small backlog, which is then filled up again outside of the time. */
const CLAIMS_PER_ROUND = 800;
const CLAIM_ROUNDS = 20;
const WARM_UP_ROUNDS = 10;

/**
 * @param {{pawlPeer: Peer, scale: number, progress: (text: string) => void}} options
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale, progress }) {
  const payload = JSON.stringify(PAYLOAD);
  return [
    cycleEntry(pawlPeer, CYCLE_OPERATIONS, scale, async (socket, taken) => ({
      protocol: pawl.protocol,
      lane: pawl.cycles("bench", PAYLOAD, taken),
      left: () => pawlUnfinished(socket, "bench"),
    })),
    cycleEntry(beanstalkd.beanstalkd, CYCLE_OPERATIONS, scale, async (socket, taken) => ({
      protocol: beanstalkd.protocol,
      lane: beanstalkd.cycles(payload, taken),
      async left() {
        const session = await Session.connect(socket, beanstalkd.protocol);
        const left = await beanstalkd.jobsLeft(session);
        session.close();
        return left;
      },
    })),
    cycleEntry(
      { ...postgresql.postgresql, name: "PostgreSQL, lease in row" },
      POSTGRESQL_CYCLE_OPERATIONS,
      scale,
      (socket, taken) => inPostgresql(socket, postgresql.leasedCycles(payload, taken)),
    ),
    cycleEntry(
      { ...postgresql.postgresql, name: "PostgreSQL, open transaction" },
      POSTGRESQL_CYCLE_OPERATIONS,
      scale,
      (socket, taken) => inPostgresql(socket, postgresql.lockedCycles(payload, taken)),
    ),
    backlogEntry(pawlPeer, scale, progress),
  ];
}

const CYCLE = `enqueue+claim+complete, ${CYCLE_CONNECTIONS} connections`;
/** @param {number} batches */
const backlogLoad = (batches) =>
  `claim+complete, ${CLAIM_CONNECTIONS} connections, backlog ${batches.toLocaleString("en")}`;

/** @param {{scale: number}} options @returns {import("./report.js").Target[]} */
export function targets({ scale }) {
  return [
    { of: CYCLE, peer: "beanstalkd", peerLoad: CYCLE, atLeast: 3 },
    { of: CYCLE, peer: "PostgreSQL, lease in row", peerLoad: CYCLE, atLeast: 5 },
    { of: CYCLE, peer: "PostgreSQL, open transaction", peerLoad: CYCLE, atLeast: 5 },
    {
      of: backlogLoad(SMALL_BACKLOG_BATCHES),
      peer: "pawl",
      peerLoad: backlogLoad(LARGE_BACKLOG_BATCHES * scale),
      lessThan: 1.3,
    },
  ];
}

/**
 * @param {Peer} peer
 * @param {number} work
 * @param {number} scale
 * @param {(socket: string, taken: string[]) => Promise<Cycle>} setUp
 * @returns {Entry}
 */
function cycleEntry(peer, work, scale, setUp) {
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    async measure(sample, directory) {
      const { socket, stop } = await peer.start(directory());
      try {
        const operations = Math.ceil(work * scale);
        const warmUp = Math.ceil(work * WARM_UP_SHARE);
        /** @type {string[]} */
        const taken = [];
        const { protocol, lane, left } = await setUp(socket, taken);
        const callers = await open(socket, protocol, { connections: CYCLE_CONNECTIONS, depth: 1 }, lane);
        await callers.run(warmUp);
        const run = await callers.run(operations);
        callers.close();
        assertDistinct(peer.name, taken, warmUp + operations);
        const unfinished = await left();
        if (unfinished !== 0) throw new Error(`${peer.name} has ${unfinished} batches left`);
        sample({ name: CYCLE }, run);
      } finally {
        await stop();
      }
    },
  };
}

/**
 * @param {string} socket
 * @param {{protocol: Protocol, schema: string, lane: () => Lane}} queue
 */
async function inPostgresql(socket, { protocol, schema, lane }) {
  await postgresql.query(socket, schema);
  return {
    protocol,
    lane,
    left: async () => Number((await postgresql.query(socket, "SELECT count(*) FROM batches"))?.[0]),
  };
}

/**
 * Two daemons, one with a short queue and one with a long one, asked in turn.
 *
 * @param {Peer} peer
 * @param {number} scale
 * @param {(text: string) => void} progress
 * @returns {Entry}
 */
function backlogEntry(peer, scale, progress) {
  const queue = "backlog";
  const backlogs = [SMALL_BACKLOG_BATCHES, LARGE_BACKLOG_BATCHES * scale];
  /** @type {{batches: number, server: import("./peers/program.js").Server}[]} */
  const daemons = [];
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    note: rows.HOW,
    async setUp(directory) {
      for (const batches of backlogs) {
        const server = await rows.startOn(
          peer,
          directory(),
          (socket) => pawl.enqueueMany(socket, queue, PAYLOAD, 1),
          (state) => rows.multiplyBatches(state, batches),
        );
        daemons.push({ batches, server });
        progress(`queue: ${batches.toLocaleString("en")} are waiting`);
      }
    },
    async measure(sample) {
      for (const { batches, server } of daemons) {
        /** @type {string[]} */
        const taken = [];
        const lane = pawl.claims(queue, taken);
        const callers = await open(
          server.socket,
          pawl.protocol,
          { connections: CLAIM_CONNECTIONS, depth: 1 },
          lane,
        );
        const runs = [];
        const rounds = WARM_UP_ROUNDS + Math.ceil(CLAIM_ROUNDS * scale);
        for (let round = 0; round < rounds; round++) {
          runs.push(await callers.run(CLAIMS_PER_ROUND));
          await pawl.enqueueMany(server.socket, queue, PAYLOAD, CLAIMS_PER_ROUND);
        }
        callers.close();
        assertDistinct(peer.name, taken, rounds * CLAIMS_PER_ROUND);
        const left = await pawlUnfinished(server.socket, queue);
        if (left !== batches) throw new Error(`pawl has ${left} batches, not ${batches}`);
        sample({ name: backlogLoad(batches) }, together(runs.slice(WARM_UP_ROUNDS)));
      }
    },
    async tearDown() {
      for (const { server } of daemons.splice(0)) await server.stop();
    },
  };
}

/**
 * @param {string} socket
 * @param {string} queue
 */
async function pawlUnfinished(socket, queue) {
  const session = await Session.connect(socket, pawl.protocol);
  const { queues } = await pawl.call(session, "queue.stats", { queue });
  session.close();
  const { ready, scheduled, claimed, dead } = queues[0];
  return ready + scheduled + claimed + dead;
}
