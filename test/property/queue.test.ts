// Queues against a model that is too simple to be wrong: whatever is done to them in whatever order, each answer,
// each batch and each count is what the rules of queue.md say.
import type { Params, Result } from "@pawl/protocol";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import { AsynchronousInProcess } from "../asynchronous.js";
import { InProcess } from "../in-process.js";

const FACTOR = Number(process.env.PAWL_TEST_RUNS ?? 1);
const START = 1_700_000_000_000;
const GRACE_MS = 5000;
const QUEUES = ["a", "b"] as const;
/** Of batches that have none of their own. */
const QUEUE_RETRY = { baseMs: 20, factor: 3, maxMs: 100, jitter: false };
const CONNECTIONS = [1, 2] as const;

type Batch = Result<"queue.get">["batch"];
type State = Batch["state"];

interface ModelBatch {
  readonly batchId: string;
  readonly params: Params<"queue.enqueue">;
  readonly seq: number;
  state: State;
  attempt: number;
  /** A delivery of it ended by expiry or with its connection. */
  wasLost: boolean;
  availableAt: number;
  /** The last claim, as long as it may be completed. */
  claim: ModelClaim | undefined;
}

interface ModelClaim {
  readonly proof: { claimId: string; leaseToken: string };
  readonly queue: string;
  readonly batches: readonly ModelBatch[];
  readonly leaseMs: number;
  /** When it ends by itself; in a grace after a restart it may end sooner. */
  ownEnd: number;
  expiresAt: number;
  isHeld: boolean;
  isCompleted: boolean;
  /** Undefined if its connection has nothing to say; null after a restart. */
  connection: number | null | undefined;
}

class Model {
  readonly batches: ModelBatch[] = [];
  readonly claims: ModelClaim[] = [];
  readonly keys = new Map<string, ModelBatch>();
  readonly tokens = new Map<string, number>();
  now = START;

  pass(ms: number): void {
    this.now += ms;
    for (const claim of this.claims) if (claim.isHeld && claim.expiresAt <= this.now) this.end(claim, true);
    for (const batch of this.batches) {
      if (batch.state === "scheduled" && batch.availableAt <= this.now) batch.state = "ready";
    }
  }

  end(claim: ModelClaim, counts: boolean, final = false, given?: number): { released: number; dead: number } {
    claim.isHeld = false;
    if (counts) for (const batch of claim.batches) batch.attempt += 1;
    const hasNoAttemptsLeft = ({ params: { maxAttempts = 20 }, attempt }: ModelBatch): boolean =>
      counts && maxAttempts > 0 && attempt >= maxAttempts;
    const back = claim.batches.filter((batch) => !hasNoAttemptsLeft(batch));
    const highest = Math.max(...back.map(({ attempt }) => attempt));
    const rests = back
      .filter(({ wasLost }) => counts && (final || wasLost))
      .map(({ params: { retry = QUEUE_RETRY } }) =>
        Math.min(retry.maxMs ?? 0, (retry.baseMs ?? 0) * (retry.factor ?? 1) ** (highest - 1)),
      );
    const delayMs = given ?? Math.max(0, ...rests);
    let dead = 0;
    for (const batch of claim.batches) {
      if (final) batch.claim = undefined;
      else batch.wasLost = true;
      const isDead = hasNoAttemptsLeft(batch);
      batch.state = isDead ? "dead" : delayMs > 0 ? "scheduled" : "ready";
      // Expiry is noticed at the next turn, which in these tests is when time has passed.
      batch.availableAt = this.now + delayMs;
      if (isDead) dead += 1;
    }
    return { released: claim.batches.length - dead, dead };
  }

  /** The batches that a claim takes, by the words of the specification. */
  next(queue: string, boundary: string, maxBatches: number): ModelBatch[] {
    const [head, ...following] = this.batches.filter(
      ({ params, state }) => params.queue === queue && state === "ready",
    );
    if (head === undefined) return [];
    const policy = ({ params }: ModelBatch) => params.deliveryPolicy ?? "earliest_safe_boundary";
    const merge = ({ params }: ModelBatch) => JSON.stringify(params.mergeKey ?? "never");
    if (boundary === "active_turn_checkpoint" && policy(head) !== "earliest_safe_boundary") return [];
    const taken = [head];
    if (head.params.slotPolicy !== "join" || merge(head) === '"never"') return taken;
    for (const batch of following) {
      const joins =
        batch.params.slotPolicy === "join" && policy(batch) === policy(head) && merge(batch) === merge(head);
      if (!joins || taken.length === maxBatches) break;
      taken.push(batch);
    }
    return taken;
  }

  isWhole(claim: ModelClaim): boolean {
    return claim.batches.every((batch) => batch.claim === claim && batch.state !== "cancelled");
  }
}

class Time implements TimeSource {
  passed = 0;
  readonly boot = "boot";
  wall = (): number => START + this.passed;
  monotonic = (): number => this.passed;
  boottime = (): number => this.passed;
}

/** The daemon and the model of it. */
class World {
  readonly model = new Model();
  readonly time = new Time();
  readonly #Daemon: typeof InProcess;
  pawl: InProcess;

  constructor(path: string | undefined, Daemon: typeof InProcess) {
    this.#Daemon = Daemon;
    this.pawl = new Daemon({ time: this.time, ...(path === undefined ? {} : { path }) });
  }

  async configure(): Promise<void> {
    for (const queue of QUEUES) await this.pawl.call("queue.configure", { queue, retry: QUEUE_RETRY });
  }

  restart(): void {
    const { path } = this.pawl;
    this.pawl.close();
    this.pawl = new this.#Daemon({ time: this.time, path });
    for (const claim of this.model.claims) {
      if (!claim.isHeld || claim.connection === undefined) continue;
      claim.connection = null;
      claim.expiresAt = Math.min(claim.ownEnd, this.model.now + GRACE_MS);
    }
  }

  /** Asserts that everything that can be seen is as in the model. */
  async compare(): Promise<void> {
    const { model, pawl } = this;
    for (const queue of QUEUES) {
      const expected = model.batches.filter(({ params }) => params.queue === queue);
      const { batches } = await pawl.call("queue.list", { queue, limit: 1000 });
      expect(
        batches.map(({ batchId, state, attempt, availableAt, claim }) => ({
          batchId,
          state,
          attempt,
          availableAt,
          claimId: claim?.claimId,
          expiresAt: claim?.expiresAt,
        })),
      ).toEqual(
        expected.map(({ batchId, state, attempt, availableAt, claim }) => ({
          batchId,
          state,
          attempt,
          availableAt,
          claimId: state === "claimed" ? claim?.proof.claimId : undefined,
          expiresAt: state === "claimed" ? claim?.expiresAt : undefined,
        })),
      );
      const { queues } = await pawl.call("queue.stats", { queue });
      const counts = { ready: 0, scheduled: 0, claimed: 0, completed: 0, dead: 0, cancelled: 0 };
      for (const { state } of expected) counts[state] += 1;
      expect(queues[0]).toMatchObject(counts);
      const { claimable } = await pawl.call("queue.explain", { queue });
      expect(claimable).toBe(counts.ready > 0);
    }
  }
}

type Op = (world: World) => Promise<void>;

const queue = fc.constantFrom(...QUEUES);
const pick = fc.nat({ max: 1000 });

function pickFrom<T>(items: readonly T[], index: number): T | undefined {
  // The last ones are where things happen.
  return items.at(-1 - (index % Math.max(1, Math.min(items.length, 8))));
}

const newBatch = fc.record(
  {
    queue,
    payloads: fc.constantFrom<unknown[]>([1], [2]),
    sourceKey: fc.constantFrom("k", "l"),
    deliveryPolicy: fc.constantFrom("earliest_safe_boundary" as const, "after_current_turn_commit" as const),
    slotPolicy: fc.constantFrom("join" as const, "join" as const, "exclusive" as const),
    mergeKey: fc.constantFrom<NonNullable<Params<"queue.enqueue">["mergeKey"]>>("payload_default", "never", {
      group: "g",
    }),
    maxAttempts: fc.constantFrom(0, 1, 2),
    delayMs: fc.constantFrom(0, 40),
    retry: fc.constantFrom({ baseMs: 30, factor: 1, maxMs: 500, jitter: false }),
  },
  { requiredKeys: ["queue", "payloads"] },
);

/** The content that is compared under one sourceKey. */
function contentOf(params: Params<"queue.enqueue">): string {
  const { payloads, deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry } = params;
  return JSON.stringify([
    payloads,
    deliveryPolicy ?? "earliest_safe_boundary",
    slotPolicy ?? "exclusive",
    mergeKey ?? "never",
    maxAttempts ?? null,
    retry ?? null,
  ]);
}

function expectEnqueued(
  { model }: World,
  params: Params<"queue.enqueue">,
  batch: Batch,
  created: boolean,
): void {
  const key = params.sourceKey === undefined ? undefined : `${params.queue}/${params.sourceKey}`;
  const known = key === undefined ? undefined : model.keys.get(key);
  expect(created).toBe(known === undefined);
  if (known !== undefined) {
    expect(batch.batchId).toBe(known.batchId);
    return;
  }
  const availableAt = model.now + (params.delayMs ?? 0);
  expect(batch.enqueueSeq).toBeGreaterThan(model.batches.at(-1)?.seq ?? 0);
  const state = availableAt > model.now ? "scheduled" : "ready";
  const added: ModelBatch = {
    batchId: batch.batchId,
    params,
    seq: batch.enqueueSeq,
    state,
    attempt: 0,
    wasLost: false,
    availableAt,
    claim: undefined,
  };
  model.batches.push(added);
  if (key !== undefined) model.keys.set(key, added);
}

const enqueue = newBatch.map(
  (params): Op =>
    async (world) => {
      const known = world.model.keys.get(`${params.queue}/${params.sourceKey}`);
      const call = world.pawl.call("queue.enqueue", params);
      if (
        params.sourceKey !== undefined &&
        known !== undefined &&
        contentOf(known.params) !== contentOf(params)
      ) {
        await expect(call).rejects.toMatchObject({ kind: "conflict" });
        return;
      }
      const { batch, created } = await call;
      expectEnqueued(world, params, batch, created);
    },
);

const enqueueMany = fc.array(newBatch, { minLength: 1, maxLength: 4 }).map(
  (all): Op =>
    async (world) => {
      const contents = new Map([...world.model.keys].map(([key, { params }]) => [key, contentOf(params)]));
      let conflicts = false;
      for (const params of all) {
        if (params.sourceKey === undefined) continue;
        const key = `${params.queue}/${params.sourceKey}`;
        const first = contents.get(key) ?? contentOf(params);
        contents.set(key, first);
        conflicts ||= first !== contentOf(params);
      }
      const call = world.pawl.call("queue.enqueueMany", { batches: all });
      if (conflicts) {
        await expect(call).rejects.toMatchObject({ kind: "conflict" });
        return;
      }
      const { batches, created } = await call;
      for (const [index, params] of all.entries()) {
        expectEnqueued(world, params, batches[index] as Batch, created[index] as boolean);
      }
    },
);

const claim = fc
  .record({
    queue,
    boundary: fc.constantFrom("idle" as const, "idle" as const, "active_turn_checkpoint" as const),
    maxBatches: fc.integer({ min: 1, max: 4 }),
    leaseMs: fc.constantFrom(100, 200, 20_000),
    releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
    connection: fc.constantFrom(...CONNECTIONS),
  })
  .map(
    ({ connection, ...params }): Op =>
      async ({ model, pawl }) => {
        const expected = model.next(params.queue, params.boundary, params.maxBatches);
        const result = (await pawl.call("queue.claim", { ...params, owner: "o" }, connection)).claim;
        expect(result?.batches.map(({ batchId }) => batchId) ?? []).toEqual(
          expected.map(({ batchId }) => batchId),
        );
        if (result === null) return;
        expect(result.fencingToken).toBeGreaterThan(model.tokens.get(params.queue) ?? 0);
        model.tokens.set(params.queue, result.fencingToken);
        expect(result.claimId).toBe(`qwc:${expected[0]?.seq}:${result.fencingToken}`);
        const taken: ModelClaim = {
          proof: { claimId: result.claimId, leaseToken: result.leaseToken },
          queue: params.queue,
          batches: expected,
          leaseMs: params.leaseMs,
          ownEnd: model.now + params.leaseMs,
          expiresAt: model.now + params.leaseMs,
          isHeld: true,
          isCompleted: false,
          connection: params.releaseOn === "disconnect" ? connection : undefined,
        };
        model.claims.push(taken);
        for (const batch of expected) {
          batch.state = "claimed";
          batch.claim = taken;
        }
      },
  );

const complete = pick.map(
  (index): Op =>
    async ({ model, pawl }) => {
      const taken = pickFrom(model.claims, index);
      if (taken === undefined) return;
      const call = pawl.call("queue.complete", taken.proof);
      if (!taken.isCompleted && !model.isWhole(taken)) {
        await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
        return;
      }
      expect(await call).toEqual({ completed: taken.batches.length });
      if (taken.isCompleted) return;
      taken.isCompleted = true;
      taken.isHeld = false;
      for (const batch of taken.batches) batch.state = "completed";
    },
);

const renew = fc.tuple(pick, fc.constantFrom(undefined, 100, 300), fc.constantFrom(...CONNECTIONS)).map(
  ([index, leaseMs, connection]): Op =>
    async ({ model, pawl }) => {
      const taken = pickFrom(model.claims, index);
      if (taken === undefined) return;
      const call = pawl.call(
        "queue.renew",
        { ...taken.proof, ...(leaseMs === undefined ? {} : { leaseMs }) },
        connection,
      );
      if (!taken.isHeld) {
        await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
        return;
      }
      const remainingMs = leaseMs ?? taken.leaseMs;
      taken.ownEnd = model.now + remainingMs;
      taken.expiresAt = taken.ownEnd;
      expect(await call).toEqual({ expiresAt: taken.expiresAt, remainingMs });
      if (taken.connection === null) taken.connection = connection;
    },
);

const abandon = fc.tuple(pick, fc.constantFrom(undefined, 0, 60), fc.constantFrom(undefined, "failed")).map(
  ([index, delayMs, error]): Op =>
    async ({ model, pawl }) => {
      const taken = pickFrom(model.claims, index);
      if (taken === undefined) return;
      const call = pawl.call("queue.abandon", {
        ...taken.proof,
        ...(delayMs === undefined ? {} : { delayMs }),
        ...(error === undefined ? {} : { error }),
      });
      if (!taken.isHeld) {
        await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
        return;
      }
      expect(await call).toEqual(model.end(taken, error !== undefined, true, delayMs));
    },
);

const cancel = pick.map(
  (index): Op =>
    async ({ model, pawl }) => {
      const batch = pickFrom(model.batches, index);
      if (batch === undefined) return;
      const { outcome } = await pawl.call("queue.cancel", { batchId: batch.batchId });
      const isFree = batch.state === "ready" || batch.state === "scheduled";
      expect(outcome).toBe(isFree ? "cancelled" : `already_${batch.state}`);
      if (isFree) batch.state = "cancelled";
    },
);

const retry = fc.tuple(pick, queue, fc.boolean()).map(
  ([index, name, whole]): Op =>
    async ({ model, pawl }) => {
      const one = pickFrom(model.batches, index);
      const params = whole || one === undefined ? { queue: name } : { batchId: one.batchId };
      const dead = model.batches.filter(
        (batch) =>
          batch.state === "dead" &&
          ("queue" in params ? batch.params.queue === name : batch.batchId === params.batchId),
      );
      expect(await pawl.call("queue.retry", params)).toEqual({ retried: dead.length });
      const anew = { state: "ready", attempt: 0, wasLost: false, availableAt: model.now } as const;
      for (const batch of dead) Object.assign(batch, anew);
    },
);

const pass = fc.constantFrom(10, 40, 100, 150).map(
  (ms): Op =>
    async ({ model, time }) => {
      time.passed += ms;
      model.pass(ms);
    },
);

const disconnect = fc.constantFrom(...CONNECTIONS).map(
  (connection): Op =>
    async ({ model, pawl }) => {
      pawl.disconnect(connection);
      for (const taken of model.claims) {
        if (taken.isHeld && taken.connection === connection) model.end(taken, true);
      }
    },
);

const restart = fc.constant<Op>(async (world) => world.restart());

const op = fc.oneof(
  { weight: 6, arbitrary: enqueue },
  { weight: 2, arbitrary: enqueueMany },
  { weight: 8, arbitrary: claim },
  { weight: 5, arbitrary: complete },
  { weight: 3, arbitrary: renew },
  { weight: 4, arbitrary: abandon },
  { weight: 2, arbitrary: cancel },
  { weight: 2, arbitrary: retry },
  { weight: 5, arbitrary: pass },
  { weight: 2, arbitrary: disconnect },
);

async function follow(ops: readonly Op[], path: string | undefined, Daemon = InProcess): Promise<void> {
  const world = new World(path, Daemon);
  try {
    await world.configure();
    for (const each of ops) {
      await each(world);
      await world.compare();
    }
    expect(world.pawl.rolledBack).toEqual([]);
  } finally {
    world.pawl.close();
  }
}

test("whatever is done, the rules hold", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 20, maxLength: 60 }), (ops) => follow(ops, ":memory:")),
    { numRuns: 60 * FACTOR, interruptAfterTimeLimit: 8000 * FACTOR, markInterruptAsFailure: false },
  );
});

test.each([
  ["", InProcess, 10],
  [", driven with awaits between the steps of each operation", AsynchronousInProcess, 4],
])("whatever is done, also across restarts, the rules hold%s", async (_, Daemon, runs) => {
  const opOrRestart = fc.oneof({ weight: 10, arbitrary: op }, { weight: 1, arbitrary: restart });
  await fc.assert(
    fc.asyncProperty(fc.array(opOrRestart, { minLength: 20, maxLength: 40 }), (ops) =>
      follow(ops, undefined, Daemon),
    ),
    { numRuns: runs * FACTOR, interruptAfterTimeLimit: 8000 * FACTOR, markInterruptAsFailure: false },
  );
});
