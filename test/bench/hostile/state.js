// @ts-check
/** The rows that the daemon has when it is attacked: enough that every dear read is dear. */
import { open, Session } from "../driver.js";
import * as pawl from "../peers/pawl.js";
import { addDeployments, addQueues, addTypes } from "../peers/pawl-rows.js";

export const ITEMS = 30_000;
export const TYPES = 52_000;
export const QUEUES = 100_000;
const DEPLOYMENTS = 10_000;
/** Changes of one item, for its history. */
const WRITES = 2000;
const BATCHES = 20_000;
const CONNECTIONS = 16;

/**
 * @param {import("../peers/program.js").Peer} peer
 * @param {string} directory an empty one.
 * @param {number} scale
 * @returns {Promise<void>} once the daemon that made it has stopped.
 */
export async function makeState(peer, directory, scale) {
  const server = await peer.start(directory);
  const load = { connections: CONNECTIONS, depth: 1 };
  const items = ITEMS * scale;
  const writers = await open(server.socket, pawl.protocol, load, pawl.itemWrites(items));
  await writers.run(items);
  writers.close();
  const session = await Session.connect(server.socket, pawl.protocol);
  for (let written = 0; written < WRITES * scale; written++) {
    await pawl.call(session, "pipeline.write", { storyId: "S-0", stage: "1_backlog", name: `${written}` });
  }
  for (let enqueued = 0; enqueued < BATCHES * scale; enqueued += 1000) {
    const batches = Array.from({ length: 1000 }, (_, number) => ({ queue: "deep", payloads: [number] }));
    await pawl.call(session, "queue.enqueueMany", { batches });
  }
  session.close();
  await server.stop();
  addTypes(directory, TYPES * scale);
  addQueues(directory, QUEUES * scale);
  addDeployments(directory, DEPLOYMENTS * scale);
}
