// @ts-check
/**
 * Section `crowded`: a batch is enqueued, claimed and completed beside very many others that cannot be claimed. Two
 * daemons are loaded in turn, one with the crowd and one without, by the same calls; the processor's time of the
 * daemons counts, by pairs, since a machine has other things to do.
 */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { Session } from "./driver.js";
import { call, protocol } from "./peers/pawl.js";

const CROWD = 100_000;
const KEYS = 10_000;
const QUEUES = 1000;
const QUICK_SCALE = 0.1;
const BATCHES_PER_CALL = 1000;
const CONNECTIONS = 8;
const CYCLES_PER_ROUND = 400;
const ROUNDS = 24;
const QUICK_ROUNDS = 6;
/** Until the code of both is compiled; the crowd was made by one of them alone. */
const WARM_UP_ROUNDS = 8;
const HOUR_MS = 3_600_000;
/** A call beside a crowd may take so many times as long as alone. */
const MOST_TIMES = 1.2;

/**
 * @typedef {{queue: string} | {queues: string[]}} Where a claim is made
 * @typedef {object} Crowd
 * @property {string} name
 * @property {object} [settings] of the queue.
 * @property {(made: Maker) => Promise<void>} make
 * @property {Where} [from] the queue, if not given.
 * @property {object} [batch] what the batches that are measured have.
 *
 * @typedef {{name: string, aloneUs: number, besideUs: number, times: number, from: number, to: number}} Row
 */

const QUEUE = "crowded/here";

/** @type {readonly Crowd[]} */
const CROWDS = [
  {
    name: "100,000 behind one full key",
    settings: { maxClaimedPerKey: 1 },
    async make(made) {
      await made.batches(CROWD, () => ({ queue: QUEUE, key: "full" }));
      await made.claim({ queue: QUEUE, owner: "w", leaseMs: HOUR_MS });
    },
  },
  {
    name: "100,000 of 10,000 keys, behind what is measured",
    settings: { maxClaimedPerKey: 1 },
    batch: { priority: 1 },
    make: (made) =>
      made.batches(CROWD, (index) => ({ queue: QUEUE, key: `key ${index % made.scaled(KEYS)}` })),
  },
  {
    name: "1,000 queues under one prefix, paused or empty",
    from: { queues: ["crowded/*"] },
    async make(made) {
      const names = Array.from({ length: made.scaled(QUEUES) }, (_, index) => `crowded/${index}`);
      for (const [index, queue] of names.entries()) {
        await made.batches(1, () => ({ queue }), 1);
        if (index % 2 === 0) await made.call("queue.configure", { queue, paused: true });
        else await made.call("queue.purge", { queue, states: ["ready"] });
      }
    },
  },
  {
    name: "100,000 blocked",
    async make(made) {
      const [parent] = await made.batches(1, () => ({ queue: QUEUE, delayMs: HOUR_MS }), 1);
      await made.batches(CROWD, () => ({ queue: QUEUE, after: [parent] }));
    },
  },
  {
    name: "100,000 scheduled at one instant",
    make: (made) => made.batches(CROWD, () => ({ queue: QUEUE, availableAt: Date.now() + HOUR_MS })),
  },
];

/** Makes a crowd in a daemon. */
class Maker {
  /**
   * @param {Session} session
   * @param {number} scale
   */
  constructor(session, scale) {
    this.session = session;
    this.scale = scale;
  }

  /** @param {number} count */
  scaled(count) {
    return Math.round(count * this.scale);
  }

  /**
   * @param {string} method
   * @param {object} params
   */
  call(method, params) {
    return call(this.session, method, params);
  }

  /**
   * @param {number} count
   * @param {(index: number) => object} batch
   * @param {number} scale
   * @returns {Promise<string[]>} the ids of the last of them.
   */
  async batches(count, batch, scale = this.scale) {
    const all = Math.round(count * scale);
    let ids = [];
    for (let from = 0; from < all; from += BATCHES_PER_CALL) {
      const length = Math.min(BATCHES_PER_CALL, all - from);
      const batches = Array.from({ length }, (_, index) => ({ payloads: [index], ...batch(from + index) }));
      const made = await this.call("queue.enqueueMany", { batches });
      ids = made.batches.map((/** @type {{batchId: string}} */ { batchId }) => batchId);
    }
    return ids;
  }

  /** @param {object} params */
  async claim(params) {
    const { claim } = await this.call("queue.claim", params);
    if (claim === null) throw new Error("there is nothing to claim");
    return claim;
  }
}

/**
 * @param {{pawlPeer: import("./peers/program.js").Peer, root: string, quick: boolean, only: string | undefined,
 *   progress: (text: string) => void}} options
 * @returns {Promise<{text: string, failed: boolean, rows: Row[]}>}
 */
export async function runCrowded({ pawlPeer, root, quick, only, progress }) {
  /** @type {Row[]} */
  const rows = [];
  for (const [index, crowd] of CROWDS.entries()) {
    if (only !== undefined && !crowd.name.includes(only)) continue;
    const sides = [];
    for (const side of ["alone", "beside"]) {
      const directory = path.join(root, `crowded-${index}-${side}`);
      mkdirSync(directory, { mode: 0o700 });
      sides.push(await Side.start(pawlPeer, directory, crowd));
    }
    const [alone, beside] = /** @type {[Side, Side]} */ (sides);
    await crowd.make(new Maker(beside.first, quick ? QUICK_SCALE : 1));
    progress(`crowded: ${crowd.name}: made`);
    const row = { name: crowd.name, ...(await compared(alone, beside, quick ? QUICK_ROUNDS : ROUNDS)) };
    rows.push(row);
    progress(`crowded: ${crowd.name}: ${row.times.toFixed(2)} times`);
    for (const side of sides) await side.stop();
  }
  return { text: shown(rows), failed: rows.some(({ times }) => times > MOST_TIMES), rows };
}

/**
 * @param {Side} alone
 * @param {Side} beside
 * @param {number} rounds
 */
async function compared(alone, beside, rounds) {
  const pairs = [];
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    for (const side of [alone, beside]) await side.round();
  }
  for (let round = 0; round < rounds; round++) {
    // Each is the first as often as the other.
    const [one, other] = round % 2 === 0 ? [alone, beside] : [beside, alone];
    const first = await one.round();
    const second = await other.round();
    pairs.push(one === alone ? { alone: first, beside: second } : { alone: second, beside: first });
  }
  const ratios = pairs.map((pair) => pair.beside / pair.alone);
  return {
    aloneUs: quantile(
      pairs.map((pair) => pair.alone),
      0.5,
    ),
    besideUs: quantile(
      pairs.map((pair) => pair.beside),
      0.5,
    ),
    times: quantile(ratios, 0.5),
    from: quantile(ratios, 0.25),
    to: quantile(ratios, 0.75),
  };
}

/**
 * @param {number[]} values
 * @param {number} part
 */
function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return /** @type {number} */ (sorted[Math.floor((sorted.length - 1) * part)]);
}

/** A daemon, and those who load it. */
class Side {
  /**
   * @param {import("./peers/program.js").Peer} peer
   * @param {string} directory
   * @param {Crowd} crowd
   */
  static async start(peer, directory, { settings, from = { queue: QUEUE }, batch = {} }) {
    const server = await peer.start(directory);
    const sessions = [];
    for (let i = 0; i < CONNECTIONS; i++) sessions.push(await Session.connect(server.socket, protocol));
    const side = new Side(server, sessions, from, batch);
    if (settings !== undefined) await call(side.first, "queue.configure", { queue: QUEUE, ...settings });
    return side;
  }

  /**
   * @param {import("./peers/program.js").Server} server
   * @param {Session[]} sessions
   * @param {Where} from
   * @param {object} batch
   */
  constructor(server, sessions, from, batch) {
    this.server = server;
    this.sessions = sessions;
    this.from = from;
    this.batch = batch;
  }

  get first() {
    return /** @type {Session} */ (this.sessions[0]);
  }

  /** Does a fixed number of cycles, and says how many microseconds of the processor the daemon took for a call. */
  async round() {
    const before = this.#processorUs();
    const cycles = CYCLES_PER_ROUND / this.sessions.length;
    await Promise.all(
      this.sessions.map(async (session) => {
        for (let cycle = 0; cycle < cycles; cycle++) await this.#cycle(session);
      }),
    );
    return (this.#processorUs() - before) / (3 * CYCLES_PER_ROUND);
  }

  /** @param {Session} session */
  async #cycle(session) {
    await call(session, "queue.enqueue", { queue: QUEUE, payloads: ["measured"], ...this.batch });
    const { claim } = await call(session, "queue.claim", { owner: "w", leaseMs: HOUR_MS, ...this.from });
    if (claim?.batches[0].payloads[0] !== "measured") throw new Error("something of the crowd was claimed");
    const { claimId, leaseToken } = claim;
    await call(session, "queue.complete", { claimId, leaseToken });
  }

  /** All threads together: schedstat of proc(5) has nanoseconds. */
  #processorUs() {
    const tasks = `/proc/${this.server.pid}/task`;
    const times = readdirSync(tasks).map((task) =>
      Number(readFileSync(`${tasks}/${task}/schedstat`, "utf8").split(" ")[0]),
    );
    return times.reduce((sum, time) => sum + time, 0) / 1000;
  }

  async stop() {
    for (const session of this.sessions) session.close();
    await this.server.stop();
  }
}

/** @param {readonly Row[]} rows */
function shown(rows) {
  const lines = rows.map(
    ({ name, aloneUs, besideUs, times, from, to }) =>
      `| ${name} | ${aloneUs.toFixed(0)} | ${besideUs.toFixed(0)} | ${times.toFixed(3)} | ${from.toFixed(3)} to ${to.toFixed(3)} |`,
  );
  return [
    `crowded: microseconds of the daemon's processor for a call of enqueue, claim, complete; at most ${MOST_TIMES} times.`,
    "",
    "| beside | alone | beside it | times, median of pairs | middle half |",
    "| --- | ---: | ---: | ---: | --- |",
    ...lines,
  ].join("\n");
}
