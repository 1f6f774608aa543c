// @ts-check
/**
 * The attacks of the section `hostile`, in one table. Each is traffic that a local client can send, legal or not, from
 * as many connections as it is asked for; `attacker.js` runs one in a process of its own.
 */
import { Buffer } from "node:buffer";
import { ITEMS, QUEUES, TYPES } from "./state.js";

/**
 * @typedef {import("./attacker.js").Peer} Peer
 * @typedef {import("./attacker.js").Attacker} Attacker
 */

/**
 * @typedef {object} Attack
 * @property {string} name
 * @property {boolean} [reads] by the socket that serves only reads.
 * @property {boolean} [deaf] its connections read nothing.
 * @property {(attacker: Attacker) => Promise<void>} [before] what is there before it begins, by the main socket.
 * @property {(peer: Peer, index: number) => Promise<void>} run for each connection; begun anew, on a new connection,
 *   when it returns.
 */

const MEGABYTE = 1024 * 1024;
/** Requests in one write of a flood. */
const PIPELINED = 64;
const NOBODY = { agent: "nosuch" };

/** @param {string} method @param {unknown} [params] @param {unknown} [id] */
const line = (method, params = {}, id = 1) => `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;

/** The same request over and over, as fast as it is taken. @param {string} method @param {unknown} [params] */
const pipelined = (method, params) => (/** @type {Peer} */ peer) =>
  peer.flood(line(method, params).repeat(PIPELINED));

/** One transact of so many calls. @param {number} count @param {string} method @param {unknown} [params] */
const transact = (count, method, params = {}) =>
  line("transact", { calls: Array.from({ length: count }, () => ({ method, params })) });

/** One batch of so many calls. @param {number} count @param {string} method @param {unknown} [params] */
const batch = (count, method, params = {}) =>
  `${JSON.stringify(Array.from({ length: count }, (_, id) => ({ jsonrpc: "2.0", id, method, params })))}\n`;

/** @param {number} count @param {string} [queue] */
const batches = (count, queue = "attacked") => ({
  batches: Array.from({ length: count }, (_, number) => ({ queue, payloads: [number] })),
});

/**
 * So many requests that wait.
 *
 * @param {Peer} peer
 * @param {number} count
 * @param {string} method
 * @param {object} params
 */
const wait = (peer, count, method, params) =>
  peer.write(
    Array.from({ length: count }, (_, id) => line(method, { ...params, waitMs: 3_600_000 }, id)).join(""),
  );

const FULL_WAITS = 512;
const nested = `${"[".repeat(500_000)}${"]".repeat(500_000)}`;

/** @type {readonly Attack[]} */
export const ATTACKS = [
  // Dear reads, as many as are taken.
  { name: "lists that match nothing", run: pipelined("pipeline.list", NOBODY) },
  {
    name: "lists that match nothing, read-only socket",
    reads: true,
    run: pipelined("pipeline.list", NOBODY),
  },
  { name: "full lists of the board", reads: true, run: pipelined("pipeline.list", { limit: 1000 }) },
  { name: "transact of 64 lists", run: (peer) => peer.flood(transact(64, "pipeline.list", NOBODY)) },
  { name: "transact of 64 states", run: (peer) => peer.flood(transact(64, "sequence.state")) },
  { name: `states of ${TYPES} types`, reads: true, run: pipelined("sequence.state") },
  { name: "rebuilds that verify", run: pipelined("pipeline.rebuild", { verify: true }) },
  { name: `stats of ${QUEUES} queues`, reads: true, run: pipelined("queue.stats") },
  { name: "stats of the daemon", reads: true, run: pipelined("daemon.stats") },
  { name: "checks of the database", reads: true, run: pipelined("daemon.check", { limit: 100_000 }) },
  { name: "histories", reads: true, run: pipelined("pipeline.history", { storyId: "S-0", limit: 1000 }) },
  {
    name: "changes from the beginning",
    reads: true,
    run: pipelined("pipeline.changes", { heads: [], limit: 64 }),
  },
  {
    name: "heads with 4,096 that are known",
    reads: true,
    run(peer) {
      const head = { author: "a".repeat(64), incarnation: "b".repeat(32), seq: 1, hash: "c".repeat(64) };
      return peer.flood(line("pipeline.heads", { known: Array.from({ length: 4096 }, () => head) }));
    },
  },
  { name: "the OpenRPC document", reads: true, run: pipelined("rpc.discover") },
  { name: "batches of OpenRPC documents", reads: true, run: (peer) => peer.flood(batch(64, "rpc.discover")) },
  { name: "lists of batches", reads: true, run: pipelined("queue.list", { queue: "deep", limit: 1000 }) },
  {
    name: "lists of commands that match nothing",
    reads: true,
    run: pipelined("command.list", { projectId: "nosuch", limit: 1000 }),
  },
  { name: "lists of deployments", reads: true, run: pipelined("deployment.list", { limit: 1000 }) },
  { name: "lists of leases", reads: true, run: pipelined("lease.list", { limit: 1000 }) },
  {
    name: "batches of 1,024 lists",
    reads: true,
    run: (peer) => peer.flood(batch(1024, "pipeline.list", NOBODY)),
  },
  // Dear writes.
  {
    name: "transact of two enqueueMany of 500",
    run: (peer) => peer.flood(transact(2, "queue.enqueueMany", batches(500))),
  },
  {
    name: "transact of 64 enqueueMany of 500",
    run: (peer) => peer.flood(transact(64, "queue.enqueueMany", batches(500))),
  },
  { name: "enqueueMany of 1,000", run: pipelined("queue.enqueueMany", batches(1000)) },
  {
    name: "chains of batches that are cancelled",
    async run(peer, index) {
      const chain = Array.from({ length: 1000 }, (_, number) => ({
        queue: `chain-${index}`,
        payloads: [1],
        ref: `r${number}`,
        ...(number > 0 ? { after: [`r${number - 1}`] } : {}),
      }));
      const { batches: made } = await peer.call("queue.enqueueMany", { batches: chain });
      await peer.call("queue.cancel", { batchId: made[0].batchId });
    },
  },
  {
    name: "cancels of a batch that 1,000 wait for",
    async run(peer, index) {
      const queue = `awaited-${index}`;
      const { batch: made } = await peer.call("queue.enqueue", { queue, payloads: [1] });
      const waiting = { queue, payloads: [1], after: [made.batchId] };
      await peer.call("queue.enqueueMany", { batches: Array(1000).fill(waiting) });
      await peer.call("queue.cancel", { batchId: made.batchId });
    },
  },
  {
    name: "source keys of very many values",
    run(peer, index) {
      let number = 0;
      const payloads = [Array.from({ length: 100_000 }, () => ({}))];
      return peer.flood(() =>
        line("queue.enqueue", { queue: "keyed", sourceKey: `${index}-${number++}`, payloads }),
      );
    },
  },
  {
    name: "appends to a long batch",
    async run(peer, index) {
      const appended = (/** @type {unknown[]} */ payloads) => ({
        queue: `appended-${index}`,
        sourceKey: "k",
        onExisting: "append",
        payloads,
      });
      await peer.call("queue.enqueue", appended(Array(500).fill("x".repeat(1900))));
      await peer.flood(line("queue.enqueue", appended([1])).repeat(PIPELINED));
    },
  },
  {
    name: "batches in queues of their own",
    run(peer, index) {
      let number = 0;
      return peer.flood(() =>
        line("queue.enqueue", { queue: `q-${index}-${number++}`, payloads: [1] }).repeat(8),
      );
    },
  },
  {
    name: "payloads of a megabyte",
    run: (peer) =>
      peer.flood(line("queue.enqueue", { queue: "large", payloads: ["x".repeat(MEGABYTE - 1024)] })),
  },
  {
    name: "commands with long params",
    run: pipelined("command.create", { deployment: "attacked", command: "c", params: "x".repeat(140_000) }),
  },
  {
    name: "batches of 1,024 numbers",
    run: (peer) => peer.flood(batch(1024, "sequence.next", { type: "FR" })),
  },
  { name: "ranges of a million", run: pipelined("sequence.reserve", { type: "FR", count: 1_000_000 }) },
  {
    name: "leases of names of their own",
    run(peer, index) {
      let number = 0;
      return peer.flood(() =>
        line("lease.acquire", { name: `n-${index}-${number++}`, owner: "o" }).repeat(8),
      );
    },
  },
  { name: "one item over and over", run: pipelined("pipeline.write", { storyId: "hot", stage: "s" }) },
  {
    name: "changes that are none",
    run: pipelined("pipeline.apply", {
      changes: Array.from({ length: 64 }, () => ({ body: "{}".padEnd(2000), signature: "0".repeat(128) })),
    }),
  },
  {
    name: "uploads that never end",
    async run(peer) {
      for (;;) {
        const { commandId } = await peer.call("command.create", {
          deployment: "attacked",
          command: "c",
          upload: { sizeBytes: 100 * MEGABYTE },
        });
        const chunk = Buffer.alloc(512 * 1024, " ").toString("base64");
        await peer.call("command.upload", { commandId, offset: 0, chunk });
      }
    },
  },
  {
    name: "backups",
    run: pipelined("daemon.backup", { path: "/nonexistent/backup.db" }),
  },
  // What ends with a connection.
  {
    name: "closing with 400 claims",
    before: (attacker) => attacker.fill("claimed", 100_000),
    async run(peer) {
      await peer.callAll(400, "queue.claim", {
        queue: "claimed",
        owner: "o",
        maxBatches: 100,
        releaseOn: "disconnect",
      });
    },
  },
  {
    name: "closing with 2,000 leases",
    async run(peer, index) {
      for (let part = 0; part < 8; part++) {
        await peer.callAll(250, "lease.acquire", (number) => ({
          name: `held-${index}-${part}-${number}`,
          owner: "o",
          releaseOn: "disconnect",
        }));
      }
    },
  },
  {
    name: "serving 1,000 deployments and closing",
    async run(peer, index) {
      await peer.callAll(1000, "command.serve", (number) => ({
        deployment: `s-${index}-${number}`,
        owner: "o",
      }));
    },
  },
  // Waits.
  {
    name: "as many waits as there may be",
    run: (peer) =>
      wait(peer, FULL_WAITS, "queue.claim", { queue: "none", owner: "o" }).then(() => peer.closed),
  },
  {
    name: "batches of waits that end together",
    run: (peer) => peer.flood(batch(FULL_WAITS, "queue.claim", { queue: "none", owner: "o", waitMs: 100 })),
  },
  {
    name: "a million waits",
    run(peer) {
      let id = 0;
      return peer.flood(() =>
        Array.from({ length: PIPELINED }, () =>
          line("queue.claim", { queue: "none", owner: "o", waitMs: 3_600_000 }, id++),
        ).join(""),
      );
    },
  },
  {
    name: "watches, read-only socket",
    reads: true,
    async run(peer) {
      const { revision } = await peer.call("pipeline.watch", {});
      await wait(peer, FULL_WAITS, "pipeline.watch", { since: revision });
      await peer.closed;
    },
  },
  {
    name: "wakes of 500 waiters each",
    async run(peer) {
      await wait(peer, 500, "queue.claim", { queue: "woken", owner: "o" });
      await peer.flood(line("queue.enqueue", { queue: "woken", payloads: [1] }));
    },
  },
  {
    name: "watchers of a board that changes",
    async run(peer, index) {
      const { revision } = await peer.call("pipeline.watch", {});
      await wait(peer, 500, "pipeline.watch", { since: revision });
      await peer.call("pipeline.write", { storyId: `w-${index}`, stage: "s" });
    },
  },
  {
    name: "followers of 64 queues that change",
    async run(peer, index) {
      const topics = Array.from({ length: 64 }, (_, number) => `queue:followed-${number}`);
      await wait(peer, 500, "events.watch", { topics });
      await peer.flood(line("queue.enqueueMany", batches(50, `followed-${index}`)));
    },
  },
  {
    name: "waits for paths that meet",
    async run(peer, index) {
      const requests = Array.from({ length: 300 }, (_, id) => {
        const patterns = Array.from({ length: 32 }, (_, at) => `**/${"*a".repeat(10)}${(at + id) % 40}*/x`);
        const params = { root: "/r", patterns, owner: `${index}-${id}`, ttlMs: 300, waitMs: 3_600_000 };
        return line("path.reserve", params, id);
      });
      await peer.write(requests.join(""));
      await peer.pause(1500);
    },
  },
  {
    name: "waits for a command that ends",
    async run(peer, index) {
      const { commandId } = await peer.call("command.create", { deployment: `e-${index}`, command: "c" });
      await wait(peer, 500, "command.wait", { commandId });
      await peer.call("command.cancel", { commandId });
    },
  },
  {
    name: "waits for a lease that is given on",
    async run(peer, index) {
      const { leaseId } = await peer.call("lease.acquire", { name: `g-${index}`, owner: "o", ttlMs: 100 });
      await wait(peer, 500, "lease.acquire", { name: `g-${index}`, owner: "o", ttlMs: 100 });
      await peer.call("lease.release", { name: `g-${index}`, leaseId }).catch(() => {});
      await peer.pause(500);
    },
  },
  {
    name: "waits that are cancelled",
    run(peer) {
      let id = 0;
      return peer.flood(() => {
        id += 1;
        return (
          line("queue.claim", { queue: "none", owner: "o", waitMs: 3_600_000 }, id) +
          line("rpc.cancel", { id }, `c${id}`)
        ).repeat(8);
      });
    },
  },
  {
    name: "a thousand groups",
    run: (peer) =>
      peer.flood(
        line("queue.enqueueMany", {
          batches: Array.from({ length: 500 }, (_, number) => ({
            queue: "grouped",
            payloads: [number],
            slotPolicy: "join",
            mergeKey: { group: `g${number}` },
          })),
        }) + line("queue.claim", { queue: "grouped", owner: "o", maxBatches: 1000 }).repeat(4),
      ),
  },
  // Lines that are none.
  {
    name: "ids of 900,000 characters",
    run: (peer) =>
      peer.flood(line("queue.claim", { queue: "none", owner: "o", waitMs: 3_600_000 }, "i".repeat(900_000))),
  },
  {
    name: "500,000 nested arrays",
    run: (peer) =>
      peer.flood(line("queue.enqueue", { queue: "n", payloads: [0] }).replace("[0]", `[${nested}]`)),
  },
  {
    name: "nested arrays, all line ends at once",
    async run(peer) {
      await peer.write(
        line("queue.enqueue", { queue: "n", payloads: [0] })
          .replace("[0]", `[${nested.slice(0, 500_000)}]`)
          .trimEnd(),
      );
      await peer.pause(1000);
      await peer.write("\n");
      await peer.pause(1000);
    },
  },
  {
    name: "unfinished lines of a megabyte",
    async run(peer) {
      await peer.write("x".repeat(MEGABYTE - 1));
      await peer.closed;
    },
  },
  { name: "lines that are too long", run: (peer) => peer.flood(`${"x".repeat(2 * MEGABYTE)}\n`) },
  {
    name: "garbage",
    run: (peer) => peer.flood(() => Buffer.from(Array.from({ length: 8192 }, (_, at) => (at * 7919) & 0xff))),
  },
  {
    name: "invalid UTF-8",
    run: (peer) =>
      peer.flood(Buffer.from(`{"jsonrpc":"2.0","id":1,"method":"\xff"}\n`.repeat(PIPELINED), "latin1")),
  },
  { name: "blank lines", run: (peer) => peer.flood("\n".repeat(65_536)) },
  { name: "a thousand nulls in a batch", run: (peer) => peer.flood(`[${"null,".repeat(999)}null]\n`) },
  { name: "methods that there are not", run: pipelined("queue.clam") },
  {
    name: "params that are wrong",
    run: pipelined("queue.claim", { queue: 7, owner: null, wrong: "x".repeat(1000) }),
  },
  {
    name: "notifications",
    run: (peer) =>
      peer.flood(
        `${JSON.stringify({ jsonrpc: "2.0", method: "sequence.peek", params: { type: "FR" } })}\n`.repeat(
          PIPELINED,
        ),
      ),
  },
  { name: "pings", reads: true, run: pipelined("daemon.ping") },
  // Connections that behave badly.
  { name: "dear answers that nobody reads", deaf: true, run: pipelined("pipeline.list", { limit: 1000 }) },
  { name: "short answers that nobody reads", deaf: true, run: pipelined("daemon.ping") },
  {
    name: "one byte every 20 ms",
    async run(peer) {
      for (const byte of line("sequence.next", { type: "FR" })) {
        await peer.write(byte);
        await peer.pause(20);
      }
    },
  },
  {
    name: "half-closed with 1,000 requests",
    async run(peer) {
      await peer.end(line("pipeline.list", NOBODY).repeat(1000));
    },
  },
  { name: "connecting and closing", async run() {} },
  {
    name: "connecting, writing and closing",
    async run(peer) {
      await peer.write(line("sequence.next", { type: "FR" }).repeat(PIPELINED));
    },
  },
  {
    name: "reset after many requests",
    async run(peer) {
      await peer.write(line("queue.enqueueMany", batches(200)).repeat(8));
      peer.reset();
    },
  },
];

export { ITEMS };
