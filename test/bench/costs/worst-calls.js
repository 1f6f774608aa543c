// @ts-check
/** The worst legal call of each method that has an operation, as far as a large database makes it dear. */

/**
 * @typedef {object} Worst
 * @property {string} method
 * @property {string} call in words.
 * @property {Params} params of each run: what is done once cannot be done again.
 * @property {number} [named] batches, changes and items that it names.
 */

/**
 * @typedef {(run: number, perform: (method: string, params: object) => any) => object} Params given what performs other
 *   calls before, whose time does not count, and answers with their results.
 */

/**
 * Methods that no operation performs by itself, or that ask what lies beyond the database: what bounds each in place of
 * a measurement. `docs/costs.md` has their bounds, too.
 *
 * @type {Readonly<Record<string, string>>}
 */
export const ELSEWHERE = {
  "command.upload": "a piece of a line, checked in parts by the loop",
  "command.answer": "a piece of a line, checked in parts by the loop",
  "command.serve": "64 commands handed out at a time, in turns of their own",
  "pipeline.apply": "steps of 12 changes, each with a signature; the section board measures them",
  "peer.seen": "a signature and a row for each of 64 statements",
  "events.watch": "events in memory",
  "events.subscribe": "events in memory",
  "events.unsubscribe": "one subscription in memory",
  "daemon.info": "no row",
  "daemon.stats": "counters in memory",
  "daemon.backup": "256 pages between two turns",
  "rpc.cancel": "the waits of one connection, in memory",
};

/** @param {number} count @param {(index: number) => unknown} make */
const many = (count, make) => Array.from({ length: count }, (_, index) => make(index));

/**
 * @param {import("better-sqlite3").Database} database that has been made large.
 * @returns {Worst[]}
 */
export function worstCalls(database) {
  const text = (/** @type {string} */ sql) => /** @type {string} */ (database.prepare(sql).pluck().get());
  const batchId = text("SELECT batch_id FROM pawl_batch ORDER BY enqueue_seq DESC LIMIT 1");
  const middleBatch = text("SELECT batch_id FROM pawl_batch ORDER BY enqueue_seq LIMIT 1 OFFSET 5000");
  const commandId = text("SELECT command_id FROM pawl_command ORDER BY seq LIMIT 1");
  const storyId = text("SELECT story_id FROM pawl_item LIMIT 1");
  database.close();
  /**
   * @param {string} method
   * @param {string} call
   * @param {object | Params} params
   * @param {number} [named]
   */
  const worst = (method, call, params, named = 0) => ({
    method,
    call,
    params: typeof params === "function" ? /** @type {Params} */ (params) : () => params,
    named,
  });
  /** A queue whose head takes 999 others with it. @type {(perform: Parameters<Params>[1]) => string} */
  const joined = (perform) => {
    const queue = `joined-${Math.random()}`;
    const batch = { queue, payloads: [1], slotPolicy: "join", mergeKey: "payload_default" };
    perform("queue.enqueueMany", { batches: many(1000, () => batch) });
    return queue;
  };
  /** @type {Params} */
  const all = (_run, perform) => ({ queue: joined(perform), owner: "o", maxBatches: 1000 });
  /** A thousand new ones of one queue. @param {(index: number) => object} terms of each. */
  const batches = (terms) => ({
    batches: many(1000, (index) => ({ queue: "new", payloads: [index], ...terms(index) })),
  });
  /** A page of schedules. @type {Params} */
  const scheduled = (run, perform) => {
    for (let index = 0; run === 0 && index < 1000; index += 1) {
      perform("schedule.set", {
        name: `s-${index}`,
        everyMs: 1000,
        queue: "q",
        payloads: [1],
        enabled: false,
      });
    }
    return { limit: 1000 };
  };
  /** The proofs of a claim of as many batches as one may have. @type {Params} */
  const claim = (run, perform) => {
    const { claimId, leaseToken } = perform("queue.claim", all(run, perform)).claim;
    return { claimId, leaseToken };
  };
  /** The proof of a delivery. @type {Params} */
  const delivery = (_run, perform) => {
    const [{ leaseId }] = perform("command.lease", { deployment: "busy", owner: "o" }).leases;
    return { leaseId };
  };
  /** A lease that was granted. @type {(run: number, perform: Parameters<Params>[1]) => any} */
  const lease = (run, perform) =>
    perform("lease.acquire", { name: `held-${run}-${Math.random()}`, owner: "o" }).lease;
  /** A batch that waits. @type {(perform: Parameters<Params>[1]) => string} */
  const waiting = (perform) => perform("queue.enqueue", { queue: "deep", payloads: [1] }).batch.batchId;
  /** A batch of a MiB. @type {(perform: Parameters<Params>[1]) => string} */
  const long = (perform) =>
    perform("queue.enqueue", { queue: "long", payloads: ["x".repeat(1_000_000)] }).batch.batchId;
  /** A reservation that was made. @type {(run: number, perform: Parameters<Params>[1]) => string} */
  const reserve = (run, perform) => {
    const patterns = many(64, (index) => `own/${run}/${index}/*.ts`);
    const params = { root: `/own-${run}-${Math.random()}`, patterns, owner: "o" };
    return perform("path.reserve", params).reservation.reservationId;
  };
  let isReserved = false;
  /** A root with nearly as many reservations as it may have. @param {Parameters<Params>[1]} perform */
  const reserved = (perform) => {
    for (let index = 0; !isReserved && index < 4000; index += 1) {
      perform("path.reserve", {
        root: "/root",
        patterns: [`held/${index}/*.ts`],
        owner: "o",
        ttlMs: 86_400_000,
      });
    }
    isReserved = true;
  };
  return [
    worst("sequence.next", "a new type", (run) => ({ type: `NEW${run}` })),
    worst("sequence.reserve", "a million numbers", { type: "FR", count: 1_000_000 }),
    worst("sequence.peek", "a type that there is not", { type: "NONE" }),
    worst("sequence.state", "a full page of types", {}),
    worst("sequence.grant", "a range behind all", (run) => ({
      type: "GR",
      first: 1 + run * 10,
      last: 5 + run * 10,
    })),
    worst("sequence.advance", "a type", (run) => ({ type: "FR", to: 10_000_000 * (run + 1) })),
    worst("queue.enqueue", "1,000 payloads", { queue: "new", payloads: many(1000, (index) => index) }),
    worst(
      "queue.enqueueMany",
      "1,000 batches",
      { batches: many(1000, (index) => ({ queue: `new-${index % 100}`, payloads: [index] })) },
      1000,
    ),
    worst(
      "queue.enqueueMany",
      "a chain of 1,000",
      batches((index) => ({ ref: `r${index}`, ...(index === 0 ? {} : { after: [`r${index - 1}`] }) })),
      1999,
    ),
    worst(
      "queue.enqueueMany",
      "1,000 that wait for 10",
      batches((index) => ({
        ref: `r${index}`,
        after: many(Math.min(index, 10), (back) => `r${index - 1 - back}`),
      })),
      10_945,
    ),
    worst(
      "queue.enqueueMany",
      "1,000 that replace others",
      batches((index) => ({ sourceKey: `k${index}`, onExisting: "replace" })),
      1000,
    ),
    worst("queue.claim", "one of a million", { queue: "deep", owner: "o", maxBatches: 1000 }),
    worst("queue.claim", "1,000 that join", all, 1000),
    worst("queue.renew", "1,000 batches", claim, 1000),
    worst("queue.complete", "1,000 batches", claim, 1000),
    worst(
      "queue.abandon",
      "1,000 with an error",
      (run, perform) => ({ ...claim(run, perform), error: "e" }),
      1000,
    ),
    worst(
      "queue.progress",
      "1,000 batches",
      (run, perform) => ({ ...claim(run, perform), percent: 50, note: "n", checkpoint: "x".repeat(1000) }),
      1000,
    ),
    worst("queue.wait", "a megabyte", (_, perform) => ({ batchId: long(perform) })),
    worst("queue.update", "behind a million", (_, perform) => ({ batchId: waiting(perform), priority: 100 })),
    worst("queue.cancel", "behind a million", (_, perform) => ({ batchId: waiting(perform) })),
    worst("queue.throttle", "a queue of a million", { queue: "deep", untilAt: null, reason: "r" }),
    worst("queue.get", "the newest", { batchId }),
    worst("queue.list", "a full page", { queue: "deep", limit: 1000 }),
    worst("queue.list", "a state that none has", { queue: "deep", state: "dead", limit: 1000 }),
    worst("queue.stats", "all queues", {}, 1000),
    worst("queue.stats", "a queue of a million", { queue: "deep" }),
    worst("queue.explain", "in the middle", { batchId: middleBatch }),
    worst("queue.retry", "a queue without any", { queue: "deep" }),
    worst("queue.configure", "a queue of a million", { queue: "deep", maxAttempts: 7 }),
    worst("queue.settings", "a queue", { queue: "deep" }),
    worst("queue.move", "10,000 of a million", { queue: "deep", state: "ready", to: "moved" }),
    worst("queue.purge", "those moved", { queue: "moved", states: ["ready"] }),
    worst("schedule.set", "a megabyte", (run) => ({
      name: `set-${run}`,
      cron: "30 2 * * *",
      timeZone: "Europe/Berlin",
      queue: "scheduled",
      payloads: ["x".repeat(1_000_000)],
      enabled: false,
    })),
    worst("schedule.get", "a megabyte", { name: "set-0" }),
    worst("schedule.list", "a full page", scheduled),
    worst("schedule.run", "a megabyte", { name: "set-0" }),
    worst("schedule.next", "100 nights", { cron: "30 2 * * *", timeZone: "Europe/Berlin", count: 100 }),
    worst("schedule.next", "one that never comes", { cron: "0 0 31 4,6,9,11 *", timeZone: "Europe/Berlin" }),
    worst("schedule.delete", "one of many", (run) => ({ name: `set-${run}` })),
    worst("deployment.set", "a new one", (run) => ({ deployment: `new-${run}` })),
    worst("deployment.list", "a full page, one of a million", { limit: 1000 }, 0),
    worst("command.create", "with a key", (run) => ({
      deployment: "busy",
      command: "c",
      params: "x".repeat(140_000),
      idempotencyKey: `k${run}`,
    })),
    worst("command.lease", "100 of a million", { deployment: "busy", owner: "o", max: 100 }, 100),
    worst("command.renew", "a delivery", delivery),
    worst("command.release", "a delivery", delivery),
    worst("command.progress", "a checkpoint of 140,000 bytes", (run, perform) => ({
      ...delivery(run, perform),
      checkpoint: "x".repeat(140_000),
    })),
    worst("command.respond", "150,000 bytes", (_, perform) => {
      const { leaseId, commandId } = perform("command.lease", { deployment: "busy", owner: "o" }).leases[0];
      const response = { status: "success", response: "x".repeat(140_000) };
      return { commandId, leaseId, response };
    }),
    worst("command.response", "the oldest", { commandId }),
    worst("command.params", "the oldest", { commandId }),
    worst("command.wait", "the oldest", { commandId }),
    worst("command.get", "the oldest", { commandId }),
    worst("command.list", "a full page", { limit: 1000 }),
    worst("command.list", "a state that none has", { state: "FAILED", limit: 1000 }),
    worst("command.cancel", "the oldest", { commandId }),
    worst("lease.acquire", "a new one", (run) => ({ name: `new-${run}`, owner: "o" })),
    worst(
      "lease.acquire",
      "64 names",
      (run) => ({ names: Array.from({ length: 64 }, (_, index) => `joint-${run}-${index}`), owner: "o" }),
      64,
    ),
    worst("lease.acquire", "of 4,096 slots, with 4,095 holders", (run, perform) => {
      const name = `counted-${run}`;
      perform("lease.configure", { name, slots: 4096 });
      for (let holders = 0; holders < 4095; holders += 1) perform("lease.acquire", { name, owner: "o" });
      return { name, owner: "o" };
    }),
    worst("lease.configure", "a pool of 4,096", (run) => ({
      name: `pool-${run}`,
      members: Array.from({ length: 4096 }, (_, index) => `member-${index}`),
    })),
    worst("lease.heartbeat", "of a million", (run, perform) => ({ leaseId: lease(run, perform).leaseId })),
    worst("lease.release", "of a million", (run, perform) => ({ leaseId: lease(run, perform).leaseId })),
    worst("lease.check", "of a million", { name: "lease5", fencingToken: 1 }),
    worst("lease.break", "of a million", (run, perform) => ({
      name: lease(run, perform).name,
      reason: "r",
    })),
    worst("lease.get", "of a million", { name: "lease5" }),
    worst("lease.list", "a full page", { limit: 1000 }),
    worst(
      "lease.acquire",
      "64 long pools",
      (run, perform) => {
        const members = Array.from({ length: 4096 }, (_, index) => String(index).padEnd(100));
        const names = many(64, (index) => `long-${index}`);
        for (const name of run === 0 ? names : []) perform("lease.configure", { name, members });
        return { names, owner: "o" };
      },
      64,
    ),
    worst(
      "path.reserve",
      "64 patterns and files below a root of 4,096",
      (run, perform) => {
        reserved(perform);
        const patterns = many(64, (index) => `new/${run}/${index}/*.ts`);
        const files = many(64, (index) => `new/${run}/${index}.md`);
        return { root: "/root", patterns, files, owner: "o" };
      },
      128,
    ),
    worst("path.check", "a path of 4,096", (_, perform) => {
      reserved(perform);
      return { root: "/root", path: "held/17/x.ts" };
    }),
    worst("path.list", "a full page", (_, perform) => {
      reserved(perform);
      return { limit: 1000 };
    }),
    worst("path.heartbeat", "64 patterns", (run, perform) => ({ reservationId: reserve(run, perform) }), 64),
    worst("path.release", "64 patterns", (run, perform) => ({ reservationId: reserve(run, perform) }), 64),
    worst("pipeline.identity", "", {}),
    worst("pipeline.configuration", "", {}),
    worst(
      "pipeline.write",
      "256 dependencies",
      (run) => ({
        storyId: `new-${run}`,
        stage: "s",
        dependsOn: { add: many(256, (index) => `none-${run}-${index}`) },
      }),
      256,
    ),
    worst("pipeline.delete", "an item", (run, perform) => {
      perform("pipeline.write", { storyId: `gone-${run}`, stage: "s" });
      return { storyId: `gone-${run}` };
    }),
    worst("pipeline.repair", "nothing ahead of the time", {}),
    worst("pipeline.finish", "an item", (run, perform) => {
      perform("pipeline.configure", {
        stages: [
          { stage: "work", ready: true },
          { stage: "done", done: true },
        ],
      });
      perform("pipeline.write", { storyId: `work-${run}`, stage: "work" });
      const { item, lease: held } = perform("pipeline.claim", { agent: "a", stages: ["work"] });
      return { storyId: item.storyId, fencingToken: held.fencingToken, toStage: "done" };
    }),
    worst("pipeline.configure", "64 stages", (run) => ({
      stages: many(64, (index) => ({ stage: `stage-${run}-${index}`, ready: true })),
    })),
    worst("peer.trust", "a peer", (run) => ({ author: String(run).padStart(64, "a"), name: "n" })),
    worst("peer.revoke", "a peer", (run, perform) => {
      perform("peer.trust", { author: String(run).padStart(64, "b"), name: "n" });
      return { author: String(run).padStart(64, "b") };
    }),
    worst("pipeline.read", "an item", { storyId }),
    worst("pipeline.list", "a full page", { limit: 1000 }),
    worst("pipeline.list", "an agent that nobody is", { agent: "nosuch", limit: 1000 }),
    worst("pipeline.list", "the first of each stage", { perStage: 100 }, 1000),
    worst("pipeline.ready", "a full page", { limit: 1000 }, 1000),
    worst("pipeline.claim", "where nothing is ready", { stages: ["nosuch"], agent: "a" }),
    worst("pipeline.history", "the item with the most", { storyId, limit: 1000 }),
    worst(
      "pipeline.heads",
      "4,096 known",
      {
        known: many(4096, () => ({
          author: "a".repeat(64),
          incarnation: "b".repeat(32),
          seq: 1,
          hash: "c".repeat(64),
        })),
      },
      4096,
    ),
    worst("pipeline.changes", "the first", { heads: [], limit: 64 }, 64),
    worst("pipeline.watch", "now", {}),
    worst("pipeline.rebuild", "changes", { verify: true }),
    worst("pipeline.rebuild", "items", { verify: true, after: '["item",""]' }),
    worst("pipeline.compact", "what it would take away", { dryRun: true }),
    worst("peer.list", "all", {}),
    worst("daemon.graph", "", {}),
    worst("daemon.ping", "", {}),
    worst("daemon.acceptCopy", "", {}),
    worst("sequence.format", "an id", { type: "FR", seq: 1 }),
    worst("sequence.parse", "an id", { id: "FR-001" }),
    worst(
      "transact",
      "1,000 batches",
      {
        calls: many(50, (queue) => ({
          method: "queue.enqueueMany",
          params: { batches: many(20, (index) => ({ queue: `new-${queue}`, payloads: [index] })) },
        })),
      },
      1000,
    ),
    worst("rpc.discover", "", {}),
  ];
}
