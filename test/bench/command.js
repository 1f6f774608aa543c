// @ts-check
/**
 * Section `command`: a command from create to its answer, with few and with many finished ones kept, and what
 * others notice while large params are moved.
 */
import { open, Session } from "./driver.js";
import { assertDistinct, together } from "./measure.js";
import * as pawl from "./peers/pawl.js";
import * as rows from "./peers/pawl-rows.js";
import { startTransfer } from "./transfer.js";

/**
 * @typedef {import("./measure.js").Entry} Entry
 * @typedef {import("./peers/program.js").Peer} Peer
 */

const DEPLOYMENT = "renderer";
const PARAMS = { scene: "harbour", frame: 12_345 };
const CONNECTIONS = 16;
const OPERATIONS = 10_000;
/** As much as is measured: the daemon with the short history has done little before. */
const WARM_UP_SHARE = 1;
const FEW_FINISHED_COMMANDS = 1_000;
const MANY_FINISHED_COMMANDS = 1_000_000;

const TRANSFER_BYTES = 100_000_000;
const OTHERS_CONNECTIONS = 8;
const OTHERS_WARM_UP_OPERATIONS = 20_000;
/** Before each of the two transfers, with nothing else to do. */
const OTHERS_ALONE_OPERATIONS = 10_000;
/** Between two looks at whether the transfer is done. */
const OTHERS_OPERATIONS_PER_ROUND = 500;

/** @param {number} finished when the first repetition starts; each adds its own. */
const load = (finished) =>
  `create+lease+respond, ${CONNECTIONS} connections, ${finished.toLocaleString("en")} finished before`;

/** @param {string} meanwhile */
const othersLoad = (meanwhile) => `sequence.next, ${OTHERS_CONNECTIONS} connections, ${meanwhile}`;
const ALONE = othersLoad("nothing else");
const UPLOADING = othersLoad(`${TRANSFER_BYTES / 1e6} MB being uploaded`);
const READING = othersLoad(`${TRANSFER_BYTES / 1e6} MB being read back`);

/** @param {{scale: number}} options @returns {import("./report.js").Target[]} */
export function targets({ scale }) {
  return [
    {
      of: load(FEW_FINISHED_COMMANDS),
      peer: "pawl",
      peerLoad: load(MANY_FINISHED_COMMANDS * scale),
      lessThan: 1.3,
    },
    { figure: "p99Ms", of: UPLOADING, peer: "pawl", peerLoad: ALONE, lessThan: 5 },
    { figure: "p99Ms", of: READING, peer: "pawl", peerLoad: ALONE, lessThan: 5 },
  ];
}

/**
 * @param {{pawlPeer: Peer, scale: number, progress: (text: string) => void}} options
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale, progress }) {
  return [historyEntry(pawlPeer, scale, progress), othersEntry(pawlPeer)];
}

/**
 * Two daemons, one with a short history and one with a long one, asked in turn.
 *
 * @param {Peer} peer
 * @param {number} scale
 * @param {(text: string) => void} progress
 * @returns {Entry}
 */
function historyEntry(peer, scale, progress) {
  /** @type {{finished: number, server: import("./peers/program.js").Server}[]} */
  const daemons = [];
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    note: rows.HOW,
    async setUp(directory) {
      for (const finished of [FEW_FINISHED_COMMANDS, MANY_FINISHED_COMMANDS * scale]) {
        const server = await rows.startOn(
          peer,
          directory(),
          (socket) => pawl.finishCommand(socket, DEPLOYMENT, PARAMS),
          (state) => rows.multiplyCommands(state, finished),
        );
        daemons.push({ finished, server });
        progress(`command: ${finished.toLocaleString("en")} are finished`);
      }
    },
    async measure(sample) {
      for (const { finished, server } of daemons) {
        const operations = Math.ceil(OPERATIONS * scale);
        const warmUp = Math.ceil(OPERATIONS * WARM_UP_SHARE);
        /** @type {string[]} */
        const answered = [];
        const lane = pawl.commands(DEPLOYMENT, PARAMS, answered);
        const callers = await open(
          server.socket,
          pawl.protocol,
          { connections: CONNECTIONS, depth: 1 },
          lane,
        );
        await callers.run(warmUp);
        const run = await callers.run(operations);
        callers.close();
        assertDistinct(peer.name, answered, warmUp + operations);
        await assertNonePending(server.socket);
        sample({ name: load(finished) }, run);
      }
    },
    async tearDown() {
      for (const { server } of daemons.splice(0)) await server.stop();
    },
  };
}

/** @param {string} socket */
async function assertNonePending(socket) {
  const session = await Session.connect(socket, pawl.protocol);
  const { deployments } = await pawl.call(session, "deployment.list", {});
  session.close();
  const { pending } = deployments.find((/** @type {any} */ each) => each.deployment === DEPLOYMENT);
  if (pending !== 0) throw new Error(`${pending} commands are still pending`);
}

/**
 * Callers of another method: alone, while another process uploads large params, alone, and while it reads them back.
 *
 * @param {Peer} peer
 * @returns {Entry}
 */
function othersEntry(peer) {
  return {
    system: peer.name,
    durability: peer.durability,
    missing: peer.missing,
    async measure(sample, directory) {
      const { socket, stop } = await peer.start(directory());
      const transfer = await startTransfer(socket, TRANSFER_BYTES);
      try {
        const connections = { connections: OTHERS_CONNECTIONS, depth: 1 };
        const callers = await open(socket, pawl.protocol, connections, pawl.increments("OTHERS", []));
        await callers.run(OTHERS_WARM_UP_OPERATIONS);
        /** @param {"up" | "down"} direction */
        const during = async (direction) => {
          await transfer.prepare(direction);
          const alone = await callers.run(OTHERS_ALONE_OPERATIONS);
          const done = transfer.go();
          let going = true;
          void done.then(() => {
            going = false;
          });
          const rounds = [];
          // The last one, during which the transfer ends, does not count.
          for (let last; going; ) {
            if (last !== undefined) rounds.push(last);
            last = await callers.run(OTHERS_OPERATIONS_PER_ROUND);
          }
          await transfer.checked();
          if (rounds.length === 0) throw new Error("the transfer was over before anything was measured");
          return { alone, meanwhile: together(rounds) };
        };
        const up = await during("up");
        const down = await during("down");
        callers.close();
        sample({ name: ALONE }, together([up.alone, down.alone]));
        sample({ name: UPLOADING }, up.meanwhile);
        sample({ name: READING }, down.meanwhile);
      } finally {
        transfer.end();
        await stop();
      }
    },
  };
}
