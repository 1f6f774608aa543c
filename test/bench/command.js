// @ts-check
/** Section `command`: a command from create to its answer, with few and with many finished ones kept (issue 5). */
import { open, Session } from "./driver.js";
import { assertDistinct } from "./measure.js";
import * as pawl from "./peers/pawl.js";

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

/** @param {number} finished when the first repetition starts; each adds its own. */
const load = (finished) =>
  `create+lease+respond, ${CONNECTIONS} connections, ${finished.toLocaleString("en")} finished before`;

/** @param {{scale: number}} options @returns {import("./report.js").Target[]} */
export function targets({ scale }) {
  return [
    {
      of: load(FEW_FINISHED_COMMANDS),
      peer: "pawl",
      peerLoad: load(MANY_FINISHED_COMMANDS * scale),
      lessThan: 1.3,
    },
  ];
}

/**
 * Two daemons, one with a short history and one with a long one, asked in turn.
 *
 * @param {{pawlPeer: Peer, scale: number, progress: (text: string) => void}} options
 * @returns {Entry[]}
 */
export function entries({ pawlPeer, scale, progress }) {
  /** @type {{finished: number, server: import("./peers/program.js").Server}[]} */
  const daemons = [];
  return [
    {
      system: pawlPeer.name,
      durability: pawlPeer.durability,
      missing: pawlPeer.missing,
      async setUp(directory) {
        for (const finished of [FEW_FINISHED_COMMANDS, MANY_FINISHED_COMMANDS * scale]) {
          const server = await pawlPeer.start(directory());
          daemons.push({ finished, server });
          await pawl.finishCommands(server.socket, DEPLOYMENT, PARAMS, finished, (done) =>
            progress(`command: finished ${done.toLocaleString("en")} of ${finished.toLocaleString("en")}`),
          );
        }
      },
      async measure(sample) {
        for (const { finished, server } of daemons) {
          const operations = Math.ceil(OPERATIONS * scale);
          const warmUp = Math.ceil(OPERATIONS * WARM_UP_SHARE);
          /** @type {string[]} */
          const answered = [];
          const lane = pawl.commands(DEPLOYMENT, PARAMS, answered);
          const crew = await open(server.socket, pawl.protocol, { connections: CONNECTIONS, depth: 1 }, lane);
          await crew.run(warmUp);
          const run = await crew.run(operations);
          crew.close();
          assertDistinct(pawlPeer.name, answered, warmUp + operations);
          await assertNonePending(server.socket);
          sample({ name: load(finished) }, run);
        }
      },
      async tearDown() {
        for (const { server } of daemons.splice(0)) await server.stop();
      },
    },
  ];
}

/** @param {string} socket */
async function assertNonePending(socket) {
  const session = await Session.connect(socket, pawl.protocol);
  const { deployments } = await pawl.call(session, "deployment.list", {});
  session.close();
  const { pending } = deployments.find((/** @type {any} */ each) => each.deployment === DEPLOYMENT);
  if (pending !== 0) throw new Error(`${pending} commands are still pending`);
}
