// Queues against a model that is too simple to be wrong: whatever is done to them in whatever order, each answer,
// each batch and each count is what the rules of queue.md say.
import type { Params, Result } from "@pawl/protocol";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import { AsynchronousInProcess } from "../asynchronous.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";
import { pickFrom, report } from "./histories.js";
import {
  type Batch,
  type Enqueued,
  GRACE_MS,
  isOver,
  Model,
  type ModelBatch,
  type ModelClaim,
  type ModelQueue,
  NEVER,
  type Next,
  QUEUE_RETRY,
  QUEUES,
  START,
} from "./queue-model.js";

/** How many times as many runs as in the tests: those with something wrong in the rules ask for some by this. */
const FACTOR = Number(process.env.PAWL_TEST_RUNS ?? sized(20, 1));
/** Of the lease that claims are under. */
const LEASE = "l";
const CONNECTIONS = [1, 2] as const;

class Time implements TimeSource {
  passed = 0;
  readonly boot = "boot";
  wall = (): number => START + this.passed;
  monotonic = (): number => this.passed;
  boottime = (): number => this.passed;
}

/** A claim that waits, as it was asked for. */
interface WaitingClaim {
  readonly boundary: "idle" | "active_turn_checkpoint";
  readonly maxBatches: number;
  /** What it would be given now. */
  next(): Next | undefined;
  /** The batches that it names. */
  readonly named: readonly ModelBatch[] | undefined;
  /** What it was given, or why it was refused; undefined as long as it waits. */
  answer: { readonly claim: Claim | null } | Error | undefined;
  readonly call: Promise<unknown>;
}

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

/** Of claims that wait. */
const WAITING_LEASE_MS = 20_000;

/** The daemon and the model of it. */
class World {
  readonly model = new Model();
  readonly time = new Time();
  readonly #Daemon: typeof InProcess;
  pawl: InProcess;
  readonly calls: string[] = [];
  /** The one claim that waits, if there is one. */
  waiting: WaitingClaim | undefined;
  /** Calls that wait for the ends of batches. */
  waits: { batch: ModelBatch; answer: Batch | undefined; call: Promise<unknown> }[] = [];

  constructor(path: string | undefined, Daemon: typeof InProcess) {
    this.#Daemon = Daemon;
    this.pawl = this.#recorded(new Daemon({ time: this.time, ...(path === undefined ? {} : { path }) }));
  }

  /** The daemon, of which all calls that change something are written down. */
  #recorded(pawl: InProcess): InProcess {
    const call = pawl.call.bind(pawl) as (...given: unknown[]) => Promise<unknown>;
    const recorded = (method: string, params: object, connection?: number): Promise<unknown> => {
      const isLook = ["queue.list", "queue.stats", "queue.explain", "queue.settings"].includes(method);
      if (!isLook) this.calls.push(`+${this.time.passed} ${method} ${JSON.stringify(params)}`);
      return call(method, params, connection);
    };
    pawl.call = recorded as typeof pawl.call;
    return pawl;
  }

  async configure(initial: Initial): Promise<void> {
    for (const queue of QUEUES) {
      await this.pawl.call("queue.configure", { queue, retry: QUEUE_RETRY, ...initial });
      const kept = this.model.queues[queue] as ModelQueue;
      Object.assign(kept, initial, { tokens: initial.rate?.count ?? 0 });
    }
  }

  restart(): void {
    const { path } = this.pawl;
    this.waits = [];
    this.waiting = undefined;
    this.pawl.close();
    this.calls.push("restart");
    this.pawl = this.#recorded(new this.#Daemon({ time: this.time, path }));
    for (const claim of this.model.claims) {
      if (!claim.isHeld || claim.connection === undefined || claim.lease !== undefined) continue;
      claim.connection = null;
      claim.expiresAt = Math.min(claim.ownEnd, this.model.now + GRACE_MS);
    }
  }

  /** Whoever waits is given what can be claimed, in the turn in which it can be, and nothing else. */
  async #serveWaiting(): Promise<void> {
    const { waiting, model, pawl } = this;
    if (waiting === undefined) return;
    // One of several queues may be done in steps.
    for (let turn = 0; turn < 3; turn++) await pawl.call("daemon.ping", {});
    const { named, answer } = waiting;
    const queues = new Set(named?.map(({ params }) => params.queue));
    if (named?.some(({ isRemoved }) => isRemoved) || queues.size > 1) {
      expect(answer).toBeInstanceOf(Error);
      this.waiting = undefined;
      return;
    }
    const next = waiting.next();
    if (next === undefined && named?.every(isOver) !== true) {
      expect(answer).toBeUndefined();
      return;
    }
    // What could be claimed was not given to whoever waits, if this has no answer.
    expect(answer).toBeDefined();
    expect(answer).not.toBeInstanceOf(Error);
    this.waiting = undefined;
    const { claim: given } = answer as { claim: Claim | null };
    expect(given?.batches.map(({ batchId }) => batchId)).toEqual(next?.batches.map(({ batchId }) => batchId));
    if (given === null || next === undefined) return;
    const end = model.now + WAITING_LEASE_MS;
    expect(given.expiresAt).toBe(end);
    begin(model, given, next, {
      leaseMs: WAITING_LEASE_MS,
      lease: undefined,
      ownEnd: end,
      expiresAt: end,
      isHeld: true,
      cancelAt: NEVER,
      connection: undefined,
    });
  }

  /** Asserts that everything that can be seen is as in the model. */
  async compare(): Promise<void> {
    const { model, pawl } = this;
    model.pass(0);
    await this.#serveWaiting();
    // Calls that are made together share a turn.
    const looks = QUEUES.map(async (queue) => {
      const expected = model.batches
        .filter(({ params }) => params.queue === queue)
        .sort((a, b) => a.seq - b.seq);
      const last = expected.at(-1);
      const [{ batches }, { queues }, ofQueue, ofLast] = await Promise.all([
        pawl.call("queue.list", { queue, limit: 1000 }),
        pawl.call("queue.stats", { queue }),
        pawl.call("queue.explain", { queue }),
        last && pawl.call("queue.explain", { batchId: last.batchId }),
      ]);
      return { queue, expected, last, batches, queues, ofQueue, ofLast };
    });
    for (const { queue, expected, last, batches, queues, ofQueue, ofLast } of await Promise.all(looks)) {
      expect(
        batches.map(({ batchId, state, attempt, availableAt, expiresAt, claim, ...batch }, index) => ({
          batchId,
          expires: expiresAt ?? NEVER,
          state,
          attempt,
          availableAt: expected[index]?.isTimeless ? undefined : availableAt,
          claimId: claim?.claimId,
          expiresAt: claim?.expiresAt,
          after: batch.after,
          percent: batch.progress?.percent,
          checkpoint: batch.checkpoint,
          result: batch.result,
          saysWhy: /^(The batch qwb:|It waits)/.test(batch.lastError ?? ""),
        })),
      ).toEqual(
        expected.map(({ batchId, state, attempt, availableAt, ttlMs, ttlEndsAt, claim, ...batch }) => ({
          batchId,
          expires:
            state === "scheduled" && ttlMs !== undefined && ttlEndsAt === NEVER
              ? availableAt + ttlMs
              : ttlEndsAt,
          state,
          attempt,
          availableAt: batch.isTimeless ? undefined : availableAt,
          claimId: state === "claimed" ? claim?.proof.claimId : undefined,
          expiresAt: state === "claimed" ? (claim?.lease ?? claim)?.expiresAt : undefined,
          after: batch.after?.map((each) => each.batchId),
          percent: batch.percent,
          checkpoint: batch.checkpoint,
          result: batch.result,
          saysWhy: batch.cause !== undefined,
        })),
      );
      const counts = {
        ready: 0,
        scheduled: 0,
        blocked: 0,
        claimed: 0,
        completed: 0,
        dead: 0,
        cancelled: 0,
        expired: 0,
      };
      for (const { state } of expected) counts[state] += 1;
      expect(queues[0]).toMatchObject(counts);
      expect(ofQueue.claimable, ofQueue.reason).toBe(model.next(queue, "idle", 1) !== undefined);
      if (last === undefined) continue;
      expect(ofLast?.claimable, ofLast?.reason).toBe(model.isOpen(queue) && model.isCandidate(last));
    }
    this.waits = this.waits.filter(({ batch }) => !batch.isRemoved);
    for (const wait of this.waits) {
      if (isOver(wait.batch)) await wait.call;
      expect(wait.answer?.state).toBe(isOver(wait.batch) ? wait.batch.state : undefined);
    }
    this.waits = this.waits.filter(({ answer }) => answer === undefined);
  }
}

type Op = (world: World) => Promise<void>;

/** What a queue is configured to before a run begins. */
type Initial = Omit<Params<"queue.configure">, "queue">;

/**
 * All that one run draws from. A run that draws from everything rarely has two things meet; one that draws often from
 * little has them meet all the time.
 */
interface Profile {
  readonly initial: Initial;
  /** How often a batch has each of its optional members. */
  readonly members: Readonly<Record<string, "never" | "sometimes" | "always">>;
  /** The operations beside those that each run has. */
  readonly operations: readonly string[];
  readonly queues: readonly string[];
  readonly keys: readonly string[];
  /** How most claims say where from, and whether they name those of before. */
  readonly claims: "queue" | "several" | "named" | "any";
  readonly holds: boolean;
  /** Whether claims wait. */
  readonly waits: boolean;
}

const queue = fc.constantFrom(...QUEUES);
const pick = fc.nat({ max: 1000 });

/** The members that a batch may have beside its queue and its payloads. */
const MEMBERS = {
  priority: fc.constantFrom(0, 5, -100),
  ttlMs: fc.constantFrom(90, 10_000),
  sourceKey: fc.constantFrom("k", "k", "l"),
  deliveryPolicy: fc.constantFrom("earliest_safe_boundary" as const, "after_current_turn_commit" as const),
  slotPolicy: fc.constantFrom("join" as const, "join" as const, "join" as const, "exclusive" as const),
  mergeKey: fc.constantFrom<NonNullable<Params<"queue.enqueue">["mergeKey"]>>(
    { group: "g" },
    { group: "g" },
    "payload_default",
    "never",
  ),
  maxAttempts: fc.constantFrom(0, 1, 1, 2),
  delayMs: fc.constantFrom(0, 40),
  retry: fc.constantFrom({ baseMs: 30, factor: 1, maxMs: 500, jitter: false }),
  onExisting: fc.constantFrom(
    "return",
    "replace",
    "keepTime",
    "append",
    "rerun",
    "rerun",
    "refuse",
    "refuse",
  ),
  maxDelayMs: fc.constantFrom(60),
  uniqueFor: fc.constantFrom("unfinished" as const),
  after: fc.array(pick, { minLength: 1, maxLength: 2 }),
  when: fc.constantFrom("success" as const, "failure" as const, "finished" as const),
};

type NewBatch = Params<"queue.enqueue">;
/** A batch to be enqueued, and which of those that are there, or come before it in the same call, it waits for. */
interface Drawn {
  readonly params: NewBatch;
  readonly after: readonly number[] | undefined;
}

function batchOf({ members, queues, keys }: Profile): fc.Arbitrary<Drawn> {
  const all = { ...MEMBERS, key: fc.constantFrom(...keys) };
  const drawn = Object.entries(all).filter(([name]) => (members[name] ?? "sometimes") !== "never");
  const always = drawn.map(([name]) => name).filter((name) => members[name] === "always");
  return fc
    .record(
      {
        queue: fc.constantFrom(...queues),
        payloads: fc.constantFrom<unknown[]>([1], [2]),
        ...(Object.fromEntries(drawn) as Partial<typeof all>),
      },
      { requiredKeys: ["queue", "payloads", ...always] as never[] },
    )
    .map((record) => {
      const { sourceKey, onExisting, maxDelayMs, uniqueFor, after, when, ...rest } =
        record as unknown as NewBatch & { after?: number[] };
      const params = {
        ...rest,
        ...(sourceKey === undefined ? {} : { sourceKey }),
        ...(sourceKey === undefined || onExisting === undefined ? {} : { onExisting }),
        ...(sourceKey === undefined || onExisting !== "replace" || maxDelayMs === undefined
          ? {}
          : { maxDelayMs }),
        ...(sourceKey === undefined || uniqueFor === undefined ? {} : { uniqueFor }),
        ...(after === undefined || when === undefined ? {} : { when }),
      } as NewBatch;
      return { params, after };
    });
}

/** What a batch is to wait for, of those that there are; without it, it has no `when` either. */
function awaiting(
  { params, after }: Drawn,
  batches: readonly ModelBatch[],
): { params: NewBatch; after: ModelBatch[] | undefined } {
  const found = [...new Set((after ?? []).flatMap((index) => pickFrom(batches, index) ?? []))];
  if (found.length > 0) return { params, after: found };
  const { when: _, ...rest } = params;
  return { params: rest, after: undefined };
}

function expectEnqueued(
  { model }: World,
  expected: Enqueued,
  batch: Batch,
  created: boolean,
  outcome: string,
) {
  expect({ created, outcome }).toEqual({ created: expected.created, outcome: expected.outcome });
  const known = expected.batch;
  if (known.batchId === "") {
    expect(batch.enqueueSeq).toBeGreaterThan(
      Math.max(0, ...model.batches.map(({ seq }) => seq).filter(Number.isFinite)),
    );
    known.batchId = batch.batchId;
    known.seq = batch.enqueueSeq;
  }
  expect(batch.batchId).toBe(known.batchId);
  expect(batch.payloads).toEqual(known.params.payloads);
}

const enqueue = (profile: Profile) =>
  batchOf(profile).map(
    (drawn): Op =>
      async (world) => {
        const { params: given, after } = awaiting(drawn, world.model.batches);
        const params = after === undefined ? given : { ...given, after: after.map(({ batchId }) => batchId) };
        const expected = world.model.enqueue(params, after);
        const call = world.pawl.call("queue.enqueue", params);
        if (typeof expected === "string") {
          await expect(call).rejects.toMatchObject({ kind: expected });
          return;
        }
        const { batch, created, outcome } = await call;
        expectEnqueued(world, expected, batch, created, outcome);
      },
  );

const enqueueMany = (profile: Profile) =>
  fc.array(batchOf(profile), { minLength: 1, maxLength: 4 }).map(
    (all): Op =>
      async (world) => {
        const { model } = world;
        const undo = model.snapshot();
        const expected: Enqueued[] = [];
        const batches: Params<"queue.enqueueMany">["batches"] = [];
        let refusal: string | undefined;
        for (const [index, drawn] of all.entries()) {
          // Those of this call have no ids yet, and are named by their refs.
          const earlier = expected.map(({ batch }) => batch);
          const { params, after } = awaiting(drawn, [
            ...model.batches.filter((b) => b.batchId !== ""),
            ...earlier,
          ]);
          const named = (after ?? []).map((batch) => {
            const ref = expected.findIndex((each) => each.batch === batch);
            return ref === -1 ? batch.batchId : `ref-${ref}`;
          });
          const given = after === undefined ? params : { ...params, after: named };
          batches.push({ ...given, ref: `ref-${index}` });
          const one = refusal === undefined ? model.enqueue(given, after) : refusal;
          if (typeof one === "string") refusal ??= one;
          else expected.push(one);
          if (refusal !== undefined) break;
        }
        const call = world.pawl.call("queue.enqueueMany", { batches });
        if (refusal !== undefined) {
          undo();
          await expect(call).rejects.toMatchObject({ kind: refusal });
          return;
        }
        const answer = await call;
        for (const [index, one] of expected.entries()) {
          const { payloads: _, ...batch } = answer.batches[index] as Batch;
          // Later ones of the same call may have changed it meanwhile.
          const { payloads } = one.batch.params;
          const shown = { ...batch, payloads } as Batch;
          expectEnqueued(
            world,
            one,
            shown,
            answer.created[index] as boolean,
            answer.outcomes[index] as string,
          );
        }
      },
  );

const fromAny = (style: Profile["claims"]) =>
  fc.oneof(
    { weight: style === "queue" ? 20 : 4, arbitrary: queue.map((name) => ({ queue: name })) },
    {
      weight: style === "several" ? 20 : 3,
      arbitrary: fc
        .tuple(
          fc.constantFrom(["p/*"], ["p/b", "p/a"], ["none", "p/b", "p/*"], ["p/c/*", "p/a"]),
          fc.constantFrom(undefined, "listed" as const, "oldest" as const),
        )
        .map(([queues, order]) => ({ queues, ...(order === undefined ? {} : { order }) })),
    },
    {
      weight: style === "named" ? 20 : 2,
      arbitrary: fc
        .tuple(queue, fc.array(pick, { minLength: 1, maxLength: 4 }))
        .map(([of, named]) => ({ of, named })),
    },
  );

/** Claims of several batches that ran out: of those there is most to say, since others may claim a part of one. */
function leftGroups({ claims }: Model): ModelClaim[] {
  return claims.filter(({ isHeld, isCompleted, batches }) => !isHeld && !isCompleted && batches.length > 1);
}

const claim = ({ claims: style, holds: often }: Profile) =>
  fc
    .record({
      from: fromAny(style),
      boundary: fc.constantFrom("idle" as const, "idle" as const, "active_turn_checkpoint" as const),
      maxBatches: fc.integer({ min: 1, max: 4 }),
      leaseMs: fc.constantFrom(100, 200, 20_000),
      releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
      connection: fc.constantFrom(...CONNECTIONS),
      under: fc.constantFrom(false, false, true),
      holds: often
        ? fc.constantFrom(undefined, [0], [0, 1, 2])
        : fc.constantFrom(undefined, undefined, [0], [0, 1, 2]),
    })
    .map(
      ({ from, boundary, maxBatches, leaseMs, releaseOn, connection, under, holds }): Op =>
        async ({ model, pawl }) => {
          const groups = often ? leftGroups(model) : [];
          const known = groups.length > 0 ? groups : model.claims;
          const held = (holds ?? []).flatMap((index) => known.at(-1 - index) ?? []);
          const lease = under ? model.lease : undefined;
          const params: Params<"queue.claim"> = {
            owner: "o",
            boundary,
            maxBatches,
            ...(lease === undefined
              ? { leaseMs, releaseOn }
              : { under: { lease: { name: LEASE, fencingToken: lease.fencingToken } } }),
            ...(holds === undefined ? {} : { held: held.map(({ proof }) => proof) }),
          };
          let expected: Next | undefined;
          if ("named" in from) {
            const ofQueue = model.batches.filter(({ params: { queue: name } }) => name === from.of);
            const others = holds === undefined ? groups.at(-1)?.batches.slice(1) : undefined;
            const named = others ?? [
              ...new Set(from.named.flatMap((index) => pickFrom(ofQueue, index) ?? [])),
            ];
            if (named.length === 0) return;
            params.batchIds = named.map(({ batchId }) => batchId);
            expected = model.nextNamed(named, boundary, maxBatches, held);
          } else {
            Object.assign(params, from);
            expected =
              "queue" in from
                ? model.next(from.queue, boundary, maxBatches, held)
                : model.nextOf(from.queues, from.order, boundary, maxBatches, held);
          }
          const call = pawl.call("queue.claim", params, connection);
          if (held.some((each) => each.isOver && each.batches[0]?.claim === each)) {
            await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
            return;
          }
          const result = (await call).claim;
          expect(result?.batches.map(({ batchId }) => batchId).sort() ?? []).toEqual(
            expected?.batches.map(({ batchId }) => batchId).sort() ?? [],
          );
          if (result === null || expected === undefined) return;
          const queueOf = expected.head.params.queue;
          expect(result.queue).toBe(queueOf);
          const end = lease?.expiresAt ?? model.now + leaseMs;
          expect(result.expiresAt).toBe(end);
          const terms = {
            leaseMs,
            lease,
            ownEnd: end,
            expiresAt: end,
            isHeld: true,
            cancelAt: NEVER,
            connection: lease === undefined && releaseOn === "disconnect" ? connection : undefined,
          };
          const { again } = expected;
          if (again !== undefined) {
            expect({ claimId: result.claimId, leaseToken: result.leaseToken }).toEqual(again.proof);
            Object.assign(again, terms);
            for (const batch of again.batches) {
              batch.state = "claimed";
              batch.percent = undefined;
              batch.attempt = Math.max(0, batch.attempt - 1);
              batch.losses = Math.max(0, batch.losses - 1);
            }
            return;
          }
          expect(result.batches.map(({ batchId }) => batchId)).toEqual(
            expected.batches.map(({ batchId }) => batchId),
          );
          begin(model, result, expected, terms);
        },
    );

/** A claim waits from now on, unless another one does. */
const waitToClaim = ({ claims: style }: Profile) =>
  fc
    .record({
      from: fromAny(style),
      boundary: fc.constantFrom(
        "idle" as const,
        "active_turn_checkpoint" as const,
        "active_turn_checkpoint" as const,
      ),
      maxBatches: fc.integer({ min: 1, max: 4 }),
    })
    .map(
      ({ from, boundary, maxBatches }): Op =>
        async (world) => {
          const { model, pawl } = world;
          if (world.waiting !== undefined) return;
          const params = { owner: "w", boundary, maxBatches, leaseMs: WAITING_LEASE_MS, waitMs: 600_000 };
          let named: ModelBatch[] | undefined;
          if ("named" in from) {
            const ofQueue = model.batches.filter(({ params: { queue: name } }) => name === from.of);
            named = [...new Set(from.named.flatMap((index) => pickFrom(ofQueue, index) ?? []))];
            if (named.length === 0) return;
            Object.assign(params, { batchIds: named.map(({ batchId }) => batchId) });
          } else Object.assign(params, from);
          const next = (): Next | undefined => {
            if ("named" in from) return model.nextNamed(named as ModelBatch[], boundary, maxBatches, []);
            if ("queue" in from) return model.next(from.queue, boundary, maxBatches);
            return model.nextOf(from.queues, from.order, boundary, maxBatches, []);
          };
          const call = pawl.call("queue.claim", params as Params<"queue.claim">, 3);
          const waiting: WaitingClaim = { boundary, maxBatches, next, named, answer: undefined, call };
          call.then(
            (answer) => {
              waiting.answer = answer;
            },
            (error: Error) => {
              waiting.answer = error;
            },
          );
          world.waiting = waiting;
        },
    );

/** A claim is held from now on. */
function begin(
  model: Model,
  given: Claim,
  { head, batches }: Next,
  terms: Omit<ModelClaim, "proof" | "queue" | "batches" | "isCompleted" | "isOver" | "stopped">,
): void {
  const { queue: name } = head.params;
  expect(given.fencingToken).toBeGreaterThan(model.tokens.get(name) ?? 0);
  model.tokens.set(name, given.fencingToken);
  expect(given.claimId).toBe(`qwc:${batches[0]?.seq}:${given.fencingToken}`);
  const taken: ModelClaim = {
    proof: { claimId: given.claimId, leaseToken: given.leaseToken },
    queue: name,
    batches,
    isCompleted: false,
    isOver: false,
    stopped: new Set(),
    ...terms,
  };
  model.claims.push(taken);
  (model.queues[name] as ModelQueue).tokens -= batches.length;
  for (const batch of batches) {
    batch.state = "claimed";
    batch.percent = undefined;
    batch.claim = taken;
    batch.ttlMs = undefined;
    batch.ttlEndsAt = NEVER;
  }
}

/** The lease that claims are under is acquired, renewed or released. */
const changeLease = fc.tuple(fc.boolean(), fc.constantFrom(150, 20_000)).map(
  ([renews, ttlMs]): Op =>
    async ({ model, pawl }) => {
      const { lease } = model;
      if (lease === undefined) {
        const acquired = await pawl.call("lease.acquire", { name: LEASE, owner: "o", ttlMs });
        const { leaseId, fencingToken } = (acquired as { lease: { leaseId: string; fencingToken: number } })
          .lease;
        model.lease = { leaseId, fencingToken, expiresAt: model.now + ttlMs };
      } else if (renews) {
        await pawl.call("lease.heartbeat", { leaseId: lease.leaseId, ttlMs });
        lease.expiresAt = model.now + ttlMs;
      } else {
        await pawl.call("lease.release", { leaseId: lease.leaseId });
        model.endLease(true);
      }
    },
);

const complete = fc
  .tuple(pick, fc.constantFrom<"result" | "results" | undefined>(undefined, "result", "results"), pick)
  .map(
    ([index, kind, value]): Op =>
      async ({ model, pawl }) => {
        const taken = pickFrom(model.claims, index);
        if (taken === undefined) return;
        const [head] = taken.batches;
        const given =
          kind === undefined
            ? {}
            : kind === "result"
              ? { result: value }
              : { results: { [taken.batches.at(-1)?.batchId as string]: value } };
        const call = pawl.call("queue.complete", { ...taken.proof, ...given });
        const isKnown = taken.isCompleted ? head?.isRemoved === false : model.isWhole(taken);
        if (!isKnown) {
          await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
          return;
        }
        expect(await call).toEqual({ completed: taken.batches.length });
        if (taken.isCompleted) return;
        Object.assign(taken, { isCompleted: true, isHeld: false, cancelAt: NEVER });
        taken.stopped.clear();
        for (const batch of taken.batches) batch.state = "completed";
        const told = kind === "results" ? taken.batches.slice(-1) : kind === "result" ? taken.batches : [];
        for (const batch of told) batch.result = value;
        model.finishAll(taken.batches, head);
      },
  );

/** Renews a claim, or says how far its work has come, which renews it. */
const renew = fc
  .tuple(
    pick,
    fc.constantFrom(undefined, 100, 300),
    fc.constantFrom(...CONNECTIONS),
    fc.constantFrom(undefined, 10, 20),
    fc.constantFrom(undefined, 1, 2),
  )
  .map(
    ([index, leaseMs, connection, percent, checkpoint]): Op =>
      async ({ model, pawl }) => {
        const taken = pickFrom(model.claims, index);
        if (taken === undefined) return;
        const tells = percent !== undefined || checkpoint !== undefined;
        const given = {
          ...(leaseMs === undefined ? {} : { leaseMs }),
          ...(percent === undefined ? {} : { percent }),
          ...(checkpoint === undefined ? {} : { checkpoint }),
        };
        const method = tells ? "queue.progress" : "queue.renew";
        const call = pawl.call(method, { ...taken.proof, ...given }, connection);
        if (!taken.isHeld) {
          await expect(call).rejects.toMatchObject({ kind: "claim_lost" });
          return;
        }
        const { lease } = taken;
        const ownMs = lease === undefined ? (leaseMs ?? taken.leaseMs) : lease.expiresAt - model.now;
        const remainingMs = Math.min(ownMs, taken.cancelAt - model.now);
        const cancelling = taken.cancelAt !== NEVER;
        expect(await call).toEqual({ expiresAt: model.now + remainingMs, remainingMs, cancelling });
        for (const batch of taken.batches) {
          batch.percent = percent ?? batch.percent;
          batch.checkpoint = checkpoint ?? batch.checkpoint;
        }
        if (lease !== undefined) return;
        taken.ownEnd = model.now + remainingMs;
        taken.expiresAt = taken.ownEnd;
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

const cancel = fc.tuple(pick, fc.boolean(), fc.constantFrom(undefined, undefined, 0, 60, 500)).map(
  ([index, byKey, graceMs]): Op =>
    async ({ model, pawl }) => {
      const claimed = graceMs === undefined ? [] : model.batches.filter(({ state }) => state === "claimed");
      let batch = pickFrom(claimed.length > 0 ? claimed : model.batches, index);
      if (batch === undefined) return;
      const { queue: name, sourceKey } = batch.params;
      let params: Params<"queue.cancel"> = { batchId: batch.batchId };
      if (byKey && sourceKey !== undefined) {
        params = { queue: name, sourceKey };
        const owner = model.keys.get(`${name}/${sourceKey}`);
        if (owner === undefined) return;
        batch = owner.follower ?? owner;
      }
      if (graceMs !== undefined) Object.assign(params, { stop: true, graceMs });
      const { outcome } = await pawl.call("queue.cancel", params);
      const { claim } = batch;
      if (graceMs !== undefined && batch.state === "claimed" && claim !== undefined) {
        expect(outcome).toBe("cancelling");
        claim.stopped.add(batch);
        claim.cancelAt = Math.min(claim.cancelAt, model.now + graceMs);
        claim.ownEnd = Math.min(claim.ownEnd, claim.cancelAt);
        claim.expiresAt = Math.min(claim.expiresAt, claim.cancelAt);
        if (graceMs === 0) model.end(claim, false, true, 0);
        return;
      }
      const isFree = !isOver(batch) && batch.state !== "claimed";
      expect(outcome).toBe(isFree ? "cancelled" : `already_${batch.state}`);
      if (!isFree) return;
      if (batch.state === "blocked") batch.isTimeless = true;
      batch.state = "cancelled";
      batch.ttlEndsAt = NEVER;
      model.unfollow(batch);
      model.finish(batch);
    },
);

const retry = fc.tuple(pick, queue, fc.constantFrom(false, false, true)).map(
  ([index, name, whole]): Op =>
    async ({ model, pawl }) => {
      const one = pickFrom(model.batches, index);
      const params = whole || one === undefined ? { queue: name } : { batchId: one.batchId };
      const dead = model.batches.filter(
        (batch) => batch.state === "dead" && batch.params.queue === name && !batch.keyElsewhere,
      );
      const tried = "queue" in params ? dead : [one as ModelBatch];
      const retried = tried.filter((batch) => model.retry(batch, "queue" in params)).length;
      expect(await pawl.call("queue.retry", params)).toEqual({ retried, more: false });
    },
);

/** A batch gets another priority, another time, or both. */
const update = fc.tuple(pick, fc.constantFrom(undefined, 0, 5), fc.constantFrom(undefined, -10, 60)).map(
  ([index, priority, laterMs]): Op =>
    async ({ model, pawl }) => {
      const batch = pickFrom(model.batches, index);
      if (batch === undefined || (priority === undefined && laterMs === undefined)) return;
      const call = pawl.call("queue.update", {
        batchId: batch.batchId,
        ...(priority === undefined ? {} : { priority }),
        ...(laterMs === undefined ? {} : { availableAt: model.now + laterMs }),
      });
      if (isOver(batch) || batch.state === "claimed") {
        await expect(call).rejects.toMatchObject({ kind: "invalid_state" });
        return;
      }
      await call;
      if (priority !== undefined) batch.params = { ...batch.params, priority };
      if (laterMs !== undefined) model.setTime(batch, model.now + laterMs);
    },
);

const move = fc.tuple(pick, queue).map(
  ([index, to]): Op =>
    async ({ model, pawl }) => {
      const batch = pickFrom(model.batches, index);
      if (batch === undefined || batch.params.queue === to) return;
      const moved = model.move(batch, to) ? 1 : 0;
      const params = { batchIds: [batch.batchId], to };
      expect(await pawl.call("queue.move", params)).toEqual({ moved, kept: 1 - moved, more: false });
    },
);

const purge = pick.map(
  (index): Op =>
    async ({ model, pawl }) => {
      const batch = pickFrom(model.batches, index);
      if (batch === undefined) return;
      const isFree = batch.state !== "claimed" && !model.isAwaited(batch);
      if (isFree) model.remove(batch);
      const { purged } = await pawl.call("queue.purge", { batchIds: [batch.batchId] });
      expect(purged).toBe(isFree ? 1 : 0);
    },
);

const wait = pick.map(
  (index): Op =>
    async (world) => {
      const batch = pickFrom(world.model.batches, index);
      if (batch === undefined) return;
      const params = { batchId: batch.batchId, waitMs: 600_000 };
      const wait: World["waits"][number] = { batch, answer: undefined, call: Promise.resolve() };
      // Of a connection that nothing else ends.
      wait.call = world.pawl.call("queue.wait", params, 3).then((answer) => {
        wait.answer = answer.batch;
      });
      wait.call.catch(() => {});
      world.waits.push(wait);
    },
);

const orNull = <T>(...values: T[]) => fc.constantFrom<T | null>(null, ...values);

const configure = fc
  .tuple(
    queue,
    fc.record(
      {
        maxClaimed: orNull(1, 2),
        maxClaimedPerKey: orNull(1, 2),
        keyOrder: orNull("free" as const, "strict" as const),
        rate: orNull({ count: 2, perMs: 100 }, { count: 3, perMs: 300 }),
        maxWaiting: orNull(6),
        ttlMs: orNull(120),
      },
      { requiredKeys: [] },
    ),
    fc.constantFrom(undefined, undefined, 0, 50, NEVER),
  )
  .map(
    ([name, given, pauseMs]): Op =>
      async ({ model, pawl }) => {
        const pausedUntilAt = pauseMs === undefined || pauseMs === NEVER ? null : model.now + pauseMs;
        const pause =
          pauseMs === undefined ? {} : pauseMs === 0 ? { paused: false } : { paused: true, pausedUntilAt };
        const { settings } = await pawl.call("queue.configure", { queue: name, ...given, ...pause });
        const kept = model.queues[name] as ModelQueue;
        if (given.rate !== undefined) {
          const missing = kept.rate ? kept.rate.count - kept.tokens : 0;
          kept.tokens = given.rate === null ? 0 : Math.max(0, given.rate.count - missing);
        }
        Object.assign(kept, given);
        if (pauseMs !== undefined) kept.pausedUntil = model.now + pauseMs;
        expect(settings).toMatchObject({
          ...JSON.parse(JSON.stringify(given)),
          paused: kept.pausedUntil > model.now,
          retry: QUEUE_RETRY,
        });
        expect((await pawl.call("queue.settings", { queue: name })).settings).toEqual(settings);
      },
  );

const throttle = fc.tuple(queue, fc.constantFrom(30, 80, null)).map(
  ([name, ms]): Op =>
    async ({ model, pawl }) => {
      const kept = model.queues[name] as ModelQueue;
      kept.throttledUntil = ms === null ? 0 : Math.max(kept.throttledUntil, model.now + ms);
      const params = ms === null ? { untilAt: null } : { delayMs: ms };
      const { settings } = await pawl.call("queue.throttle", { queue: name, ...params });
      expect(settings.throttledUntilAt).toBe(kept.throttledUntil > model.now ? kept.throttledUntil : null);
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

/** Those that each run has, and those that only some have, by their weights. */
const ALWAYS = {
  complete: [5, complete],
  abandon: [3, abandon],
  pass: [5, pass],
} as const;
const SOMETIMES = {
  renew: [3, renew],
  cancel: [4, cancel],
  retry: [4, retry],
  changeLease: [2, changeLease],
  disconnect: [2, disconnect],
  configure: [2, configure],
  throttle: [1, throttle],
  update: [3, update],
  move: [3, move],
  purge: [3, purge],
  wait: [3, wait],
} as const;

const INITIAL: Initial[] = [
  {},
  {},
  { maxClaimed: 1 },
  { maxClaimedPerKey: 1 },
  { maxClaimedPerKey: 2 },
  { keyOrder: "strict" },
  { keyOrder: "strict", maxClaimedPerKey: 1 },
  { rate: { count: 3, perMs: 300 } },
];

/** Members that mean little without others. */
const TOGETHER = { sourceKey: "onExisting", after: "when", slotPolicy: "mergeKey" } as const;

const profile: fc.Arbitrary<Profile> = fc
  .record({
    initial: fc.constantFrom(...INITIAL),
    members: fc.record(
      Object.fromEntries(
        [...Object.keys(MEMBERS), "key"].map((name) => [
          name,
          fc.constantFrom("never" as const, "never" as const, "sometimes" as const, "always" as const),
        ]),
      ),
    ),
    operations: fc.subarray(Object.keys(SOMETIMES)),
    queues: fc.constantFrom(["p/a"], ["p/a", "p/b"]),
    keys: fc.constantFrom(["x"], ["x", "x", "y"]),
    claims: fc.constantFrom<Profile["claims"]>("queue", "several", "named", "any"),
    holds: fc.constantFrom(false, false, true),
    groups: fc.boolean(),
    waits: fc.boolean(),
  })
  .map((drawn) => {
    const { initial } = drawn;
    const members: Record<string, "never" | "sometimes" | "always"> = { ...drawn.members };
    for (const [one, other] of Object.entries(TOGETHER))
      if (members[one] !== "never") members[other] = "always";
    if ("keyOrder" in initial || "maxClaimedPerKey" in initial) members.key = "always";
    // Some claims are of groups, which batches that differ in anything do not make.
    if (drawn.groups) Object.assign(members, { slotPolicy: "always", mergeKey: "always", priority: "never" });
    // Some wait behind others.
    if (drawn.waits) members.deliveryPolicy = "always";
    return { ...drawn, members };
  });

function operationsOf(drawn: Profile, restarts: boolean): fc.Arbitrary<Op> {
  const some = drawn.operations.map((name) => SOMETIMES[name as keyof typeof SOMETIMES]);
  return fc.oneof(
    { weight: 6, arbitrary: enqueue(drawn) },
    { weight: 10, arbitrary: claim(drawn) },
    { weight: 2, arbitrary: enqueueMany(drawn) },
    ...(drawn.waits ? [{ weight: 4, arbitrary: waitToClaim(drawn) }] : []),
    ...[...Object.values(ALWAYS), ...some].map(([weight, arbitrary]) => ({ weight, arbitrary })),
    ...(restarts ? [{ weight: 3, arbitrary: restart }] : []),
  );
}

/** The first pair that is not the same. */
function differing(actual: readonly unknown[], expected: readonly unknown[]): string {
  const pairs = actual.map((each, index) => [JSON.stringify(each), JSON.stringify(expected[index])]);
  const [is, should] = pairs.find(([one, other]) => one !== other) ?? [];
  return `: ${is}, not ${should}`;
}

async function follow(
  initial: Initial,
  ops: readonly Op[],
  path: string | undefined,
  Daemon = InProcess,
): Promise<void> {
  const world = new World(path, Daemon);
  try {
    await world.configure(initial);
    for (const each of ops) {
      await each(world);
      await world.compare();
    }
    expect(world.pawl.rolledBack).toEqual([]);
  } catch (error) {
    const { actual, expected } = error as { actual?: unknown; expected?: unknown };
    const apart = Array.isArray(actual) && Array.isArray(expected) ? differing(actual, expected) : "";
    throw new Error(`${error}${apart}\nafter ${JSON.stringify(initial)}\n${world.calls.join("\n")}`);
  } finally {
    world.pawl.close();
  }
}

/** Draws runs one after the other, as long as there is time for another; a run that was begun goes to its end. */
async function draw(
  restarts: boolean,
  length: number,
  runs: number,
  run: (initial: Initial, ops: Op[]) => Promise<void>,
) {
  // With something wrong in the rules, as long as it takes for as much work as ever on a machine that has nothing else.
  const now =
    process.env.PAWL_MUTANT === undefined ? () => performance.now() : () => process.cpuUsage().user / 1000;
  const until = now() + 8000 * FACTOR;
  const drawn = profile.chain((each) =>
    fc.tuple(
      fc.constant(each.initial),
      fc.array(operationsOf(each, restarts), { minLength: 15, maxLength: length }),
    ),
  );
  await fc.assert(
    fc.asyncProperty(drawn, async ([initial, ops]) => {
      if (now() < until) await run(initial, ops);
    }),
    {
      numRuns: runs * FACTOR,
      // The calls that were made are with the error.
      asyncReporter: report,
    },
  );
}

const options = { timeout: 60_000 + 60_000 * FACTOR };

test("whatever is done, the rules hold", options, () =>
  draw(false, 60, 150, (initial, ops) => follow(initial, ops, ":memory:")),
);

test.each([
  ["", InProcess, 10],
  [", driven with awaits between the steps of each operation", AsynchronousInProcess, 4],
])("whatever is done, also across restarts, the rules hold%s", options, async (_, Daemon, runs) => {
  await draw(true, 40, runs, (initial, ops) => follow(initial, ops, undefined, Daemon));
});
