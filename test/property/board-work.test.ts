// Work from the board against a model that is too simple to be wrong: whatever is written, claimed, finished, lost and
// merged in whatever order, an item is ready when the specification says so, claims take the first, and a claim that
// ends unfinished is taken back as far as it is still its own (spec: pipeline.md, Work).
import { setImmediate as nextLoop } from "node:timers/promises";
import type { Params, Result } from "@pawl/protocol";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { AsynchronousInProcess } from "../asynchronous.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized, TORTURE } from "../long-form.js";
import { Author, BOARD, hashOf } from "./board-author.js";

const IDS = ["A", "B", "C", "D"];
const STAGES = ["1_backlog", "2_current", "5_done"];
const OTHER = new Author(7);
const LONG_WAIT_MS = 3_600_000;
const MAX_RETRIES = 3;

interface Item {
  stage: string;
  agent: string | null;
  retryCount: number;
  blocked: boolean;
  dependsOn: Set<string>;
  priority: number;
  rank: string;
  /** Which write set the two last. */
  stageBy: number;
  agentBy: number;
}

interface Claim {
  readonly agent: string;
  readonly token: number;
  readonly leaseId: string;
  readonly connection: number | undefined;
  readonly expiresAt: number;
  readonly former: string;
  stageBy: number | undefined;
  agentBy: number;
}

type Claimed = Result<"pipeline.claim">;

class World {
  readonly time = new Clocks();
  readonly pawl: InProcess;
  now = 0;
  #writes = 0;
  readonly items = new Map<string, Item>();
  readonly claims = new Map<string, Claim>();
  /** Of items that are alive, and of those that were deleted. */
  readonly generations = new Map<string, number>();
  /** Leases of items that no claim made. */
  readonly leases = new Map<string, string>();
  readonly waiting: { readonly agent: string; answer: Claimed | undefined }[] = [];
  #agents = 0;
  #head: { seq: number; hash: string } | undefined;

  constructor(Daemon: typeof InProcess) {
    this.pawl = new Daemon({ time: this.time });
  }

  async begin(): Promise<void> {
    await this.pawl.call("peer.trust", { author: OTHER.id, name: "other", board: BOARD });
    await this.pawl.call("pipeline.configure", { maxRetries: MAX_RETRIES });
  }

  newAgent(): string {
    this.#agents += 1;
    return `agent-${this.#agents}`;
  }

  newWrite(): number {
    this.#writes += 1;
    return this.#writes;
  }

  isDone(storyId: string): boolean {
    return this.items.get(storyId)?.stage === "5_done";
  }

  isReady(storyId: string): boolean {
    const item = this.items.get(storyId);
    if (item === undefined || item.stage !== "1_backlog" || item.blocked) return false;
    if (this.claims.has(storyId) || this.leases.has(storyId)) return false;
    return [...item.dependsOn].every((each) => each !== storyId && this.isDone(each));
  }

  ready(): string[] {
    const key = (storyId: string) => {
      const { priority, rank } = this.items.get(storyId) as Item;
      return `${priority} ${rank} ${storyId}`;
    };
    return IDS.filter((each) => this.isReady(each)).sort((a, b) => (key(a) < key(b) ? -1 : 1));
  }

  /** A claim was granted: it is of this item, and has the highest token of it. */
  claimed(
    agent: string,
    { item, lease }: Claimed,
    storyId: string,
    how: Partial<Params<"pipeline.claim">>,
    by = 1,
  ): void {
    expect(item?.storyId).toBe(storyId);
    const known = this.items.get(storyId) as Item;
    const { toStage, ttlMs = 30_000, releaseOn } = how;
    const n = this.newWrite();
    this.claims.set(storyId, {
      agent,
      token: lease?.fencingToken as number,
      leaseId: lease?.leaseId as string,
      connection: releaseOn === "disconnect" ? by : undefined,
      expiresAt: this.now + ttlMs,
      former: known.stage,
      stageBy: toStage === undefined ? undefined : n,
      agentBy: n,
    });
    known.agent = agent;
    known.agentBy = n;
    if (toStage !== undefined) {
      known.stage = toStage;
      known.stageBy = n;
    }
  }

  /** A claim has ended without finish. */
  endClaim(storyId: string, isReleased: boolean): void {
    const claim = this.claims.get(storyId) as Claim;
    this.claims.delete(storyId);
    const item = this.items.get(storyId);
    if (item === undefined) return;
    const hasStage = claim.stageBy !== undefined && item.stageBy === claim.stageBy;
    const hasAgent = item.agentBy === claim.agentBy;
    if (hasStage) item.stage = claim.former;
    if (hasAgent) item.agent = null;
    const n = this.newWrite();
    if (hasStage) item.stageBy = n;
    if (hasAgent) item.agentBy = n;
    if (!hasAgent || (claim.stageBy !== undefined && !hasStage)) return;
    if (isReleased) return;
    item.retryCount += 1;
    if (item.retryCount >= MAX_RETRIES) item.blocked = true;
  }

  /** Serves those who wait, in their order, and compares everything. */
  async settle(): Promise<void> {
    for (let turns = 0; turns < 3; turns += 1) await nextLoop();
    for (let next = this.ready()[0]; next !== undefined && this.waiting.length > 0; next = this.ready()[0]) {
      const waiter = this.waiting.shift() as World["waiting"][number];
      await vi.waitFor(() => expect(waiter.answer).toBeDefined(), { timeout: 5000, interval: 1 });
      this.claimed(waiter.agent, waiter.answer as Claimed, next, { ttlMs: 30_000 });
      seen.served += 1;
    }
    for (const { answer } of this.waiting) expect(answer).toBeUndefined();
    const { stages } = await this.pawl.call("pipeline.list", { limit: 1000 });
    const shown = Object.values(stages)
      .flat()
      .map(({ storyId, stage, agent, retryCount, blocked, dependsOn, claim, ready }) => ({
        storyId,
        stage,
        agent,
        retryCount,
        blocked,
        dependsOn,
        claim: claim?.agent,
        ready,
      }));
    const meant = IDS.flatMap((storyId) => {
      const item = this.items.get(storyId);
      if (item === undefined) return [];
      const { stage, agent, retryCount, blocked, dependsOn } = item;
      return {
        storyId,
        stage,
        agent,
        retryCount,
        blocked,
        dependsOn: [...dependsOn].sort(),
        claim: this.claims.get(storyId)?.agent,
        ready: this.isReady(storyId),
      };
    });
    const byId = (a: { storyId: string }, b: { storyId: string }) => (a.storyId < b.storyId ? -1 : 1);
    expect(shown.sort(byId)).toEqual(meant);
    const { items } = await this.pawl.call("pipeline.ready", {});
    expect(items.map(({ storyId }) => storyId)).toEqual(this.ready());
  }

  /** What another node has written, later than everything here. */
  async merge(storyId: string, set: Record<string, unknown>): Promise<void> {
    await this.pass(10);
    const change = OTHER.change({
      hlc: [this.time.wall(), 0],
      ops: [{ i: storyId, g: this.generations.get(storyId) ?? 1, s: set }],
      prev: this.#head?.hash ?? null,
      seq: (this.#head?.seq ?? 0) + 1,
    });
    expect(await this.pawl.call("pipeline.apply", { changes: [change] })).toMatchObject({ applied: 1 });
    this.#head = { seq: (this.#head?.seq ?? 0) + 1, hash: hashOf(change) };
    await this.pass(10);
  }

  async pass(ms: number): Promise<void> {
    this.time.pass(ms);
    this.now += ms;
    await this.pawl.call("daemon.ping", {});
    const ended = [...this.claims].filter(([, { expiresAt }]) => expiresAt <= this.now);
    for (const [storyId] of ended) {
      this.endClaim(storyId, false);
      seen.expired += 1;
    }
  }
}

type Op = (world: World) => Promise<void>;

const id = fc.constantFrom(...IDS);
const stage = fc.constantFrom(...STAGES);

const write = fc
  .record({
    storyId: id,
    fields: fc.record(
      {
        stage,
        agent: fc.constantFrom("eve", null),
        blocked: fc.boolean(),
        dependsOn: fc.uniqueArray(fc.constantFrom(...IDS, "X"), { maxLength: 2 }),
        priority: fc.constantFrom(0, 1, null),
      },
      { requiredKeys: [] },
    ),
    withToken: fc.boolean(),
  })
  .map(
    ({ storyId, fields: { priority, ...fields }, withToken }): Op =>
      async (world) => {
        const item = world.items.get(storyId);
        const claim = world.claims.get(storyId);
        const params = {
          storyId,
          ...fields,
          ...(item === undefined && fields.stage === undefined ? { stage: "1_backlog" } : {}),
          ...(priority === undefined ? {} : { fields: { priority } }),
          name: "x",
          ...(withToken && claim !== undefined ? { claim: { fencingToken: claim.token } } : {}),
        };
        const answer = await world.pawl.call("pipeline.write", params).catch((error: unknown) => error);
        const needsToken = item === undefined || fields.stage !== undefined || fields.agent !== undefined;
        if (claim !== undefined && needsToken && !withToken) {
          seen.guarded += 1;
          return expect(answer).toMatchObject({ kind: "lease_held" });
        }
        const { rank } = (answer as Result<"pipeline.write">).item;
        const n = world.newWrite();
        const after: Item = item ?? {
          stage: "1_backlog",
          agent: null,
          retryCount: 0,
          blocked: false,
          dependsOn: new Set(),
          priority: 5,
          rank,
          stageBy: n,
          agentBy: 0,
        };
        if (item === undefined) world.generations.set(storyId, (world.generations.get(storyId) ?? 0) + 1);
        world.items.set(storyId, after);
        after.rank = rank;
        if (params.stage !== undefined) Object.assign(after, { stage: params.stage, stageBy: n });
        if (fields.agent !== undefined) Object.assign(after, { agent: fields.agent, agentBy: n });
        if (fields.blocked !== undefined) after.blocked = fields.blocked;
        if (fields.dependsOn !== undefined) after.dependsOn = new Set(fields.dependsOn);
        if (priority !== undefined) after.priority = priority ?? 5;
        if (claim === undefined || !withToken) return;
        if (params.stage !== undefined) claim.stageBy = n;
        if (fields.agent !== undefined) claim.agentBy = n;
      },
  );

const merge = fc
  .record({
    storyId: id,
    fields: fc.record({ stage, agent: fc.constantFrom("far", null) }, { requiredKeys: [] }),
  })
  .map(
    ({ storyId, fields }): Op =>
      async (world) => {
        const item = world.items.get(storyId);
        if (item === undefined || Object.keys(fields).length === 0) return;
        await world.merge(storyId, fields);
        // Expiry may have come first.
        const n = world.newWrite();
        if (fields.stage !== undefined) Object.assign(item, { stage: fields.stage, stageBy: n });
        if (fields.agent !== undefined) Object.assign(item, { agent: fields.agent, agentBy: n });
        if (world.claims.has(storyId)) seen.contested += 1;
      },
  );

const claim = fc
  .record({
    storyId: fc.option(id, { nil: undefined }),
    toStage: fc.constantFrom(undefined, "2_current"),
    ttlMs: fc.constantFrom(1000, 30_000),
    releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
    connection: fc.constantFrom(1, 2),
  })
  .map(
    ({ connection, storyId, toStage, ...how }): Op =>
      async (world) => {
        const agent = world.newAgent();
        const params = {
          ...how,
          agent,
          ...(storyId === undefined ? {} : { storyId }),
          ...(toStage === undefined ? {} : { toStage }),
        };
        const answer = await world.pawl
          .call("pipeline.claim", params, connection)
          .catch((error: unknown) => error);
        if (storyId !== undefined && !world.items.has(storyId))
          return expect(answer).toMatchObject({ kind: "not_found" });
        const first = storyId === undefined ? world.ready()[0] : world.isReady(storyId) ? storyId : undefined;
        if (first === undefined)
          return expect(answer).toMatchObject({ item: null, reason: expect.any(String) });
        world.claimed(agent, answer as Claimed, first, params, connection);
      },
  );

const wait = fc.constant<Op>(async (world) => {
  const agent = world.newAgent();
  const waiter: World["waiting"][number] = { agent, answer: undefined };
  world.waiting.push(waiter);
  void world.pawl.call("pipeline.claim", { agent, waitMs: LONG_WAIT_MS }, 3).then(
    (answer) => {
      waiter.answer = answer;
    },
    () => {},
  );
});

function about(perform: (storyId: string, claim: Claim, world: World) => Promise<void>): fc.Arbitrary<Op> {
  return fc.nat().map(
    (index): Op =>
      async (world) => {
        const held = [...world.claims];
        const [storyId, of] = held[index % Math.max(1, held.length)] ?? [];
        if (storyId !== undefined && of !== undefined) await perform(storyId, of, world);
      },
  );
}

const finish = fc.tuple(stage, fc.boolean()).chain(([toStage, isWrong]) =>
  about(async (storyId, of, world) => {
    const item = world.items.get(storyId);
    const fencingToken = isWrong ? of.token + 1 : of.token;
    const answer = await world.pawl
      .call("pipeline.finish", { storyId, fencingToken, toStage, note: "done" })
      .catch((error: unknown) => error);
    if (isWrong) return expect(answer).toMatchObject({ kind: "lease_lost" });
    if (item === undefined) return expect(answer).toMatchObject({ kind: "not_found" });
    Object.assign(item, { stage: toStage, stageBy: world.newWrite() });
    world.claims.delete(storyId);
    seen.finished += 1;
  }),
);

const release = about(async (storyId, { leaseId }, world) => {
  await world.pawl.call("lease.release", { leaseId });
  world.endClaim(storyId, true);
});

const breakLease = about(async (storyId, _, world) => {
  await world.pawl.call("lease.break", { name: `item/${storyId}`, reason: "test" });
  world.endClaim(storyId, false);
});

const remove = id.map(
  (storyId): Op =>
    async (world) => {
      const claim = world.claims.get(storyId);
      const params = { storyId, ...(claim === undefined ? {} : { claim: { fencingToken: claim.token } }) };
      const deleted = world.items.delete(storyId);
      if (!deleted && claim !== undefined) return;
      expect(await world.pawl.call("pipeline.delete", params)).toMatchObject({ deleted });
      if (deleted) world.generations.set(storyId, (world.generations.get(storyId) ?? 1) + 1);
      seen.deleted += deleted ? 1 : 0;
    },
);

const leaseOf = id.map(
  (storyId): Op =>
    async (world) => {
      const leaseId = world.leases.get(storyId);
      if (leaseId !== undefined) {
        await world.pawl.call("lease.release", { leaseId });
        world.leases.delete(storyId);
        return;
      }
      const answer = await world.pawl
        .call("lease.acquire", { name: `item/${storyId}`, owner: "other", ttlMs: 86_400_000 })
        .catch((error: unknown) => error);
      if (world.claims.has(storyId)) return expect(answer).toMatchObject({ kind: "lease_held" });
      world.leases.set(storyId, (answer as { lease: { leaseId: string } }).lease.leaseId);
    },
);

const pass = fc.constantFrom(1, 999, 30_000).map(
  (ms): Op =>
    (world) =>
      world.pass(ms),
);

const disconnect = fc.constantFrom(1, 2).map(
  (number): Op =>
    async (world) => {
      world.pawl.disconnect(number);
      const bound = [...world.claims].filter(([, { connection }]) => connection === number);
      for (const [storyId] of bound) world.endClaim(storyId, false);
    },
);

const op = fc.oneof(
  { weight: 10, arbitrary: write },
  { weight: 6, arbitrary: claim },
  { weight: 3, arbitrary: wait },
  { weight: 4, arbitrary: finish },
  { weight: 2, arbitrary: release },
  { weight: 2, arbitrary: breakLease },
  { weight: 3, arbitrary: merge },
  { weight: 1, arbitrary: remove },
  { weight: 2, arbitrary: leaseOf },
  { weight: 2, arbitrary: pass },
  { weight: 1, arbitrary: disconnect },
);

/** What the runs came upon, so that none of it is missing by chance. */
const seen = { served: 0, expired: 0, guarded: 0, contested: 0, finished: 0, deleted: 0 };
/** Once more so many runs, if something was not among them, and so often. */
const MORE_RUNS = 20;
const MOST_TIMES_MORE = 30;

async function draw(Daemon: typeof InProcess, numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 10, maxLength: 40, size: "max" }), async (ops) => {
      const world = new World(Daemon);
      try {
        await world.begin();
        for (const each of ops) {
          await each(world);
          await world.settle();
        }
        const { differences } = await world.pawl.call("pipeline.rebuild", {
          verify: true,
          after: '["item",""]',
        });
        expect(differences).toEqual([]);
      } finally {
        world.pawl.close();
      }
    }),
    { numRuns },
  );
}

const TIME_LIMIT_MS = TORTURE ? 1_200_000 : 600_000;

test.each([
  ["at once", InProcess, sized(1500, 24)],
  ["over a network", AsynchronousInProcess, sized(300, 6)],
])(
  "items are ready, claimed and taken back as the model says, on a store that answers %s",
  async (_, Daemon, numRuns) => {
    await draw(Daemon, numRuns);
  },
  TIME_LIMIT_MS,
);

test(
  "each of the things that can happen to a claim has happened in those",
  async () => {
    for (let more = 0; Object.values(seen).includes(0) && more < MOST_TIMES_MORE; more += 1)
      await draw(InProcess, MORE_RUNS);
    for (const count of Object.values(seen)) expect(count, JSON.stringify(seen)).toBeGreaterThan(0);
  },
  TIME_LIMIT_MS,
);
