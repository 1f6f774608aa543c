// Queues against a model that is too simple to be wrong: whatever is done to them in whatever order, each answer,
// each batch and each count is what the rules of queue.md say.
import type { Params, Result } from "@pawl/protocol";
import fc from "fast-check";
import { afterAll, expect, test, vi } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import { Alarm } from "../../daemon/dist/turns/alarm.js";
import { AsynchronousInProcess } from "../asynchronous.js";
import { InProcess } from "../in-process.js";

// A daemon that was held up has grants go on; here only the clocks of the test say what has ended.
const neverLate = vi.spyOn(Alarm.prototype, "lateMs", "get").mockReturnValue(0);
afterAll(() => neverLate.mockRestore());

const FACTOR = Number(process.env.PAWL_TEST_RUNS ?? 1);
const START = 1_700_000_000_000;
const GRACE_MS = 5000;
const QUEUES = ["p/a", "p/b"] as const;
/** Of the lease that claims are under. */
const LEASE = "l";
/** Of batches that have none of their own. */
const QUEUE_RETRY = { baseMs: 20, factor: 3, maxMs: 100, jitter: false };
const CONNECTIONS = [1, 2] as const;
/** What a batch without a ttl has. */
const NEVER = Number.POSITIVE_INFINITY;

type Batch = Result<"queue.get">["batch"];
type State = Batch["state"];

interface ModelBatch {
  batchId: string;
  params: Params<"queue.enqueue">;
  seq: number;
  state: State;
  attempt: number;
  /** How many deliveries of it ended by expiry, with their connections or with a lease. */
  losses: number;
  availableAt: number;
  /** How long it may be available before its first claim, as long as it may still expire. */
  ttlMs: number | undefined;
  ttlEndsAt: number;
  /** Another batch has its sourceKey, or had it. */
  keyElsewhere: boolean;
  /** Until when `replace` may begin its delay anew. */
  replaceUntil: number | undefined;
  /** Of the same sourceKey: what waits for its end, and whose end it waits for. */
  follower: ModelBatch | undefined;
  follows: ModelBatch | undefined;
  /** The last claim, as long as it may be completed. */
  claim: ModelClaim | undefined;
}

interface Enqueued {
  readonly batch: ModelBatch;
  readonly created: boolean;
  readonly outcome: Result<"queue.enqueue">["outcome"];
}

interface ModelClaim {
  readonly proof: { claimId: string; leaseToken: string };
  readonly queue: string;
  readonly batches: readonly ModelBatch[];
  leaseMs: number;
  /** The lease that it lives as long as; undefined for a time of its own. */
  lease: ModelLease | undefined;
  /** The lease has ended: nothing of it can be completed any more. */
  isOver: boolean;
  /** When it ends by itself; in a grace after a restart it may end sooner. */
  ownEnd: number;
  expiresAt: number;
  isHeld: boolean;
  isCompleted: boolean;
  /** Undefined if its connection has nothing to say; null after a restart. */
  connection: number | null | undefined;
}

interface ModelLease {
  readonly leaseId: string;
  readonly fencingToken: number;
  expiresAt: number;
}

/** A claim as it is to be answered: these batches, or one of before again. */
interface Next {
  readonly head: ModelBatch;
  readonly batches: readonly ModelBatch[];
  readonly again?: ModelClaim;
}

/** What a queue is configured to, and how much of its rate is left. */
interface ModelQueue {
  maxClaimed?: number | null;
  maxClaimedPerKey?: number | null;
  keyOrder?: "free" | "strict" | null;
  rate?: { count: number; perMs: number } | null;
  maxWaiting?: number | null;
  ttlMs?: number | null;
  pausedUntil: number;
  throttledUntil: number;
  tokens: number;
}

class Model {
  readonly queues: Record<string, ModelQueue> = Object.fromEntries(
    QUEUES.map((name) => [name, { pausedUntil: 0, throttledUntil: 0, tokens: 0 }]),
  );
  readonly batches: ModelBatch[] = [];
  readonly claims: ModelClaim[] = [];
  readonly keys = new Map<string, ModelBatch>();
  readonly tokens = new Map<string, number>();
  lease: ModelLease | undefined;
  now = START;

  pass(ms: number): void {
    this.now += ms;
    if (this.lease !== undefined && this.lease.expiresAt <= this.now) this.endLease(false);
    for (const claim of this.claims) {
      if (claim.lease === undefined && claim.isHeld && claim.expiresAt <= this.now) this.end(claim, true);
    }
    for (const batch of this.batches) {
      if (batch.state === "scheduled" && batch.availableAt <= this.now) {
        batch.state = "ready";
        batch.ttlEndsAt = batch.availableAt + (batch.ttlMs ?? NEVER);
      }
      if (batch.state === "ready" && batch.ttlEndsAt <= this.now) {
        batch.state = "expired";
        batch.ttlEndsAt = NEVER;
        this.finish(batch);
      }
    }
    for (const each of Object.values(this.queues)) {
      if (each.rate) {
        each.tokens = Math.min(each.rate.count, each.tokens + (ms * each.rate.count) / each.rate.perMs);
      }
    }
  }

  /** The lease ends, and with it all claims under it. */
  endLease(isReleased: boolean): void {
    for (const claim of this.claims) {
      if (!claim.isHeld || claim.lease !== this.lease) continue;
      this.end(claim, !isReleased, false, isReleased ? 0 : undefined);
      claim.isOver = true;
    }
    this.lease = undefined;
  }

  waiting(queue: string): number {
    return this.batches.filter(
      ({ params, state }) => params.queue === queue && ["ready", "scheduled", "blocked"].includes(state),
    ).length;
  }

  /** A batch has ended: its follower takes the sourceKey and its turn. */
  finish(batch: ModelBatch): void {
    const { follower } = batch;
    if (follower === undefined) return;
    batch.follower = undefined;
    batch.keyElsewhere = true;
    follower.follows = undefined;
    follower.keyElsewhere = false;
    this.keys.set(`${follower.params.queue}/${follower.params.sourceKey}`, follower);
    follower.state = follower.availableAt > this.now ? "scheduled" : "ready";
    follower.availableAt = Math.max(follower.availableAt, this.now);
    if (follower.state === "ready") follower.ttlEndsAt = this.now + (follower.ttlMs ?? NEVER);
  }

  /** A batch is enqueued, its batchId and enqueueSeq being yet unknown; or the kind of its refusal. */
  enqueue(params: Params<"queue.enqueue">): Enqueued | "conflict" | "exhausted" {
    const { queue, sourceKey, onExisting = "refuse" } = params;
    const key = `${queue}/${sourceKey}`;
    const known = sourceKey === undefined ? undefined : this.keys.get(key);
    const isFull = this.waiting(queue) >= ((this.queues[queue] as ModelQueue).maxWaiting ?? NEVER);
    const changes = onExisting !== "refuse" && onExisting !== "return";
    const isOver =
      known !== undefined &&
      ["completed", "dead", "cancelled", "expired"].includes(known.state) &&
      (changes || known.params.uniqueFor === "unfinished");
    if (known === undefined || isOver) {
      if (isFull) return "exhausted";
      if (known !== undefined) known.keyElsewhere = true;
      const batch = this.add(params);
      if (sourceKey !== undefined) this.keys.set(key, batch);
      return { batch, created: true, outcome: "created" };
    }
    if (!changes) {
      if (onExisting === "refuse" && contentOf(known.params) !== contentOf(params)) return "conflict";
      return { batch: known, created: false, outcome: "existing" };
    }
    if (known.state !== "claimed" && onExisting !== "rerun") {
      if (this.change(known, params) === "exhausted") return "exhausted";
      const outcome = { replace: "replaced", keepTime: "kept", append: "appended" } as const;
      return { batch: known, created: false, outcome: outcome[onExisting] };
    }
    if (known.follower !== undefined) {
      if (this.change(known.follower, params) === "exhausted") return "exhausted";
      return { batch: known.follower, created: false, outcome: "follower" };
    }
    if (isFull) return "exhausted";
    const follower = this.add(params);
    Object.assign(follower, { state: "blocked", ttlEndsAt: NEVER, keyElsewhere: true, follows: known });
    known.follower = follower;
    return { batch: follower, created: true, outcome: "follower" };
  }

  add(params: Params<"queue.enqueue">): ModelBatch {
    const availableAt = this.now + (params.delayMs ?? 0);
    const state = availableAt > this.now ? "scheduled" : "ready";
    const ttlMs = params.ttlMs ?? (this.queues[params.queue] as ModelQueue).ttlMs ?? undefined;
    const batch: ModelBatch = {
      batchId: "",
      params,
      seq: NEVER,
      state,
      attempt: 0,
      losses: 0,
      availableAt,
      ttlMs,
      ttlEndsAt: state === "ready" ? this.now + (ttlMs ?? NEVER) : NEVER,
      keyElsewhere: false,
      replaceUntil: params.maxDelayMs === undefined ? undefined : this.now + params.maxDelayMs,
      follower: undefined,
      follows: undefined,
      claim: undefined,
    };
    this.batches.push(batch);
    return batch;
  }

  /** A batch that waits takes over what was asked for. */
  change(batch: ModelBatch, given: Params<"queue.enqueue">): "exhausted" | undefined {
    const appends = given.onExisting === "append";
    const payloads = appends ? [...batch.params.payloads, ...given.payloads] : given.payloads;
    if (payloads.length > 1000) return "exhausted";
    if (!appends && given.onExisting !== "keepTime") {
      if (given.maxDelayMs !== undefined) batch.replaceUntil ??= this.now + given.maxDelayMs;
      const until = Math.max(this.now, batch.replaceUntil ?? NEVER);
      batch.availableAt = Math.min(this.now + (given.delayMs ?? 0), until);
      if (batch.state !== "blocked") batch.state = batch.availableAt > this.now ? "scheduled" : "ready";
    }
    const { uniqueFor } = batch.params;
    batch.params = { ...given, payloads };
    // For how long a sourceKey is kept is the batch's from its beginning on.
    if (uniqueFor === undefined) delete batch.params.uniqueFor;
    else batch.params.uniqueFor = uniqueFor;
    batch.attempt = 0;
    batch.losses = 0;
    batch.claim = undefined;
    batch.ttlMs = given.ttlMs ?? (this.queues[given.queue] as ModelQueue).ttlMs ?? undefined;
    batch.ttlEndsAt = batch.state === "ready" ? batch.availableAt + (batch.ttlMs ?? NEVER) : NEVER;
    return undefined;
  }

  /** What undoes all that is done to batches from now on. */
  snapshot(): () => void {
    const batches = this.batches.map((batch) => [batch, { ...batch }] as const);
    const keys = [...this.keys];
    return () => {
      this.batches.length = batches.length;
      for (const [batch, before] of batches) Object.assign(batch, before);
      this.keys.clear();
      for (const [key, batch] of keys) this.keys.set(key, batch);
    };
  }

  isOpen(queue: string): boolean {
    const { pausedUntil, throttledUntil, maxClaimed, rate, tokens } = this.queues[queue] as ModelQueue;
    const held = this.claims.filter((claim) => claim.isHeld && claim.queue === queue).length;
    return (
      pausedUntil <= this.now &&
      throttledUntil <= this.now &&
      held < (maxClaimed ?? NEVER) &&
      (!rate || tokens >= 1 - 1e-6)
    );
  }

  /** True if its key lets a batch be claimed, together with those of a group. */
  isCandidate(batch: ModelBatch, group: readonly ModelBatch[] = []): boolean {
    const { queue, key } = batch.params;
    if (batch.state !== "ready") return false;
    if (key === undefined) return true;
    const { maxClaimedPerKey, keyOrder } = this.queues[queue] as ModelQueue;
    const ofKey = this.batches.filter(({ params }) => params.queue === queue && params.key === key);
    const held = this.claims.filter(
      (claim) => claim.isHeld && claim.batches.some((each) => ofKey.includes(each)),
    ).length;
    if (held >= (maxClaimedPerKey ?? NEVER)) return false;
    return (
      keyOrder !== "strict" ||
      !ofKey.some(
        (each) =>
          each.seq < batch.seq &&
          !group.includes(each) &&
          ["ready", "scheduled", "claimed", "dead"].includes(each.state),
      )
    );
  }

  end(claim: ModelClaim, counts: boolean, final = false, given?: number): { released: number; dead: number } {
    claim.isHeld = false;
    if (counts) for (const batch of claim.batches) batch.attempt += 1;
    const hasNoAttemptsLeft = ({ params: { maxAttempts = 20 }, attempt }: ModelBatch): boolean =>
      counts && maxAttempts > 0 && attempt >= maxAttempts;
    const back = claim.batches.filter((batch) => !hasNoAttemptsLeft(batch));
    const highest = Math.max(...back.map(({ attempt }) => attempt));
    const rests = back
      .filter(({ losses }) => counts && (final || losses > 0))
      .map(({ params: { retry = QUEUE_RETRY } }) =>
        Math.min(retry.maxMs ?? 0, (retry.baseMs ?? 0) * (retry.factor ?? 1) ** (highest - 1)),
      );
    const delayMs = given ?? Math.max(0, ...rests);
    let dead = 0;
    for (const batch of claim.batches) {
      if (final) batch.claim = undefined;
      else if (counts) batch.losses += 1;
      const isDead = hasNoAttemptsLeft(batch);
      batch.state = isDead ? "dead" : delayMs > 0 ? "scheduled" : "ready";
      // Expiry is noticed at the next turn, which in these tests is when time has passed.
      batch.availableAt = this.now + delayMs;
      if (!isDead) continue;
      dead += 1;
      this.finish(batch);
    }
    return { released: claim.batches.length - dead, dead };
  }

  /** The claim of before that left a batch, if its holder names it. */
  leftBy(batch: ModelBatch, held: readonly ModelClaim[]): ModelClaim | undefined {
    return held.find((claim) => !claim.isHeld && !claim.isCompleted && batch.claim === claim);
  }

  /** The claim that a queue gives, by the words of the specification; undefined for none. */
  next(
    queue: string,
    boundary: string,
    maxBatches: number,
    held: readonly ModelClaim[] = [],
  ): Next | undefined {
    if (!this.isOpen(queue)) return undefined;
    const ready = this.batches
      .filter(({ params, state }) => params.queue === queue && state === "ready")
      .sort(byOrder);
    const head = ready.find((batch) => {
      const left = this.leftBy(batch, held);
      return this.isCandidate(batch) && (left === undefined || this.isUntouched(left));
    });
    if (head === undefined) return undefined;
    if (boundary === "active_turn_checkpoint" && policyOf(head) !== "earliest_safe_boundary")
      return undefined;
    const again = this.leftBy(head, held);
    if (again !== undefined) return { head, batches: again.batches, again };
    const merge = ({ params }: ModelBatch) => JSON.stringify(params.mergeKey ?? "never");
    const taken = [head];
    const { rate, tokens } = this.queues[queue] as ModelQueue;
    const most = Math.min(maxBatches, rate ? Math.floor(tokens + 1e-6) : NEVER);
    if (head.params.slotPolicy !== "join" || merge(head) === '"never"') return { head, batches: taken };
    for (const batch of ready.slice(ready.indexOf(head) + 1)) {
      if (!this.isCandidate(batch, taken) || this.leftBy(batch, held) !== undefined) continue;
      const joins =
        batch.params.slotPolicy === "join" &&
        policyOf(batch) === policyOf(head) &&
        merge(batch) === merge(head) &&
        priorityOf(batch) === priorityOf(head) &&
        batch.params.key === head.params.key;
      if (!joins || taken.length >= most) break;
      taken.push(batch);
    }
    return { head, batches: taken };
  }

  /** The claim that several queues give. */
  nextOf(
    entries: readonly string[],
    order: string | undefined,
    boundary: string,
    maxBatches: number,
    held: readonly ModelClaim[],
  ): Next | undefined {
    let best: Next | undefined;
    for (const entry of entries) {
      const found = QUEUES.filter((name) =>
        entry.endsWith("/*") ? name.startsWith(entry.slice(0, -1)) : name === entry,
      )
        .map((name) => this.next(name, boundary, maxBatches, held))
        .filter((next) => next !== undefined);
      for (const each of found) if (best === undefined || byOrder(each.head, best.head) < 0) best = each;
      if (best !== undefined && order !== "oldest") break;
    }
    return best;
  }

  /** The claim that certain batches of one queue give. */
  nextNamed(
    named: readonly ModelBatch[],
    boundary: string,
    maxBatches: number,
    held: readonly ModelClaim[],
  ): Next | undefined {
    const queue = named[0]?.params.queue as string;
    if (!this.isOpen(queue)) return undefined;
    const { rate, tokens } = this.queues[queue] as ModelQueue;
    const most = Math.min(maxBatches, rate ? Math.floor(tokens + 1e-6) : NEVER);
    const select = (from: readonly ModelBatch[]): ModelBatch[] => {
      const ready = from.filter(
        (batch) =>
          batch.state === "ready" && (boundary === "idle" || policyOf(batch) === "earliest_safe_boundary"),
      );
      const taken: ModelBatch[] = [];
      for (const batch of ready) {
        const { key } = batch.params;
        // Of its key those that come before it have to be claimed with it, where that is what lets it be claimed.
        const earlier = ready.filter(
          ({ params, seq }) => key !== undefined && params.key === key && seq < batch.seq,
        );
        const together = this.isCandidate(batch) ? [batch] : [...earlier, batch];
        if (!together.every((each) => this.isCandidate(each, together))) continue;
        const more = together.filter((each) => !taken.includes(each));
        if (taken.length + more.length <= most) taken.push(...more);
      }
      return ready.filter((batch) => taken.includes(batch));
    };
    const [head] = select(named);
    const again = head && this.leftBy(head, held);
    if (head !== undefined && again !== undefined && this.isUntouched(again)) {
      return { head, batches: again.batches, again };
    }
    const batches = select(named.filter((batch) => this.leftBy(batch, held) === undefined));
    return batches[0] && { head: batches[0], batches };
  }

  /** True of a claim that ran out, if all its batches are as it left them, and there to be claimed. */
  isUntouched(claim: ModelClaim): boolean {
    return claim.batches.every((batch) => batch.claim === claim && batch.state === "ready");
  }

  isWhole(claim: ModelClaim): boolean {
    return (
      !claim.isOver && claim.batches.every((batch) => batch.claim === claim && batch.state !== "cancelled")
    );
  }
}

function priorityOf({ params }: ModelBatch): number {
  return params.priority ?? 0;
}

function policyOf({ params }: ModelBatch): string {
  return params.deliveryPolicy ?? "earliest_safe_boundary";
}

/** The order in which batches are claimed. */
function byOrder(a: ModelBatch, b: ModelBatch): number {
  return priorityOf(b) - priorityOf(a) || a.seq - b.seq;
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
      if (!claim.isHeld || claim.connection === undefined || claim.lease !== undefined) continue;
      claim.connection = null;
      claim.expiresAt = Math.min(claim.ownEnd, this.model.now + GRACE_MS);
    }
  }

  /** Asserts that everything that can be seen is as in the model. */
  async compare(): Promise<void> {
    const { model, pawl } = this;
    model.pass(0);
    for (const queue of QUEUES) {
      const expected = model.batches.filter(({ params }) => params.queue === queue);
      const { batches } = await pawl.call("queue.list", { queue, limit: 1000 });
      expect(
        batches.map(({ batchId, state, attempt, availableAt, expiresAt, claim }) => ({
          batchId,
          expires: expiresAt ?? NEVER,
          state,
          attempt,
          availableAt,
          claimId: claim?.claimId,
          expiresAt: claim?.expiresAt,
        })),
      ).toEqual(
        expected.map(({ batchId, state, attempt, availableAt, ttlMs, ttlEndsAt, claim }) => ({
          batchId,
          expires: state === "scheduled" && ttlMs !== undefined ? availableAt + ttlMs : ttlEndsAt,
          state,
          attempt,
          availableAt,
          claimId: state === "claimed" ? claim?.proof.claimId : undefined,
          expiresAt: state === "claimed" ? (claim?.lease ?? claim)?.expiresAt : undefined,
        })),
      );
      const { queues } = await pawl.call("queue.stats", { queue });
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
      const { claimable, reason } = await pawl.call("queue.explain", { queue });
      expect(claimable, reason).toBe(model.next(queue, "idle", 1) !== undefined);
      for (const batch of expected.slice(-1)) {
        const { batchId } = batch;
        const why = await pawl.call("queue.explain", { batchId });
        expect(why.claimable, why.reason).toBe(model.isOpen(queue) && model.isCandidate(batch));
      }
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

const anyBatch = fc.record(
  {
    queue,
    payloads: fc.constantFrom<unknown[]>([1], [2]),
    priority: fc.constantFrom(0, 5, -100),
    key: fc.constantFrom("x", "x", "y"),
    ttlMs: fc.constantFrom(90, 10_000),
    sourceKey: fc.constantFrom("k", "l"),
    deliveryPolicy: fc.constantFrom("earliest_safe_boundary" as const, "after_current_turn_commit" as const),
    slotPolicy: fc.constantFrom("join" as const, "join" as const, "exclusive" as const),
    mergeKey: fc.constantFrom<NonNullable<Params<"queue.enqueue">["mergeKey"]>>("payload_default", "never", {
      group: "g",
    }),
    maxAttempts: fc.constantFrom(0, 1, 2),
    delayMs: fc.constantFrom(0, 40),
    retry: fc.constantFrom({ baseMs: 30, factor: 1, maxMs: 500, jitter: false }),
    onExisting: fc.constantFrom("return", "replace", "keepTime", "append", "rerun", "refuse", "refuse"),
    maxDelayMs: fc.constantFrom(60),
    uniqueFor: fc.constantFrom("unfinished" as const),
  },
  { requiredKeys: ["queue", "payloads"] },
);

const newBatch = anyBatch.map(({ sourceKey, onExisting, maxDelayMs, uniqueFor, ...rest }) => ({
  ...rest,
  ...(sourceKey === undefined ? {} : { sourceKey }),
  ...(sourceKey === undefined || onExisting === undefined ? {} : { onExisting }),
  ...(sourceKey === undefined || onExisting !== "replace" || maxDelayMs === undefined ? {} : { maxDelayMs }),
  ...(sourceKey === undefined || uniqueFor === undefined ? {} : { uniqueFor }),
})) as fc.Arbitrary<Params<"queue.enqueue">>;

/** The content that is compared under one sourceKey. */
function contentOf(params: Params<"queue.enqueue">): string {
  const { payloads, priority, key, ttlMs, deliveryPolicy, slotPolicy, mergeKey, maxAttempts, retry } = params;
  return JSON.stringify([
    payloads,
    priority ?? 0,
    key ?? null,
    ttlMs ?? null,
    deliveryPolicy ?? "earliest_safe_boundary",
    slotPolicy ?? "exclusive",
    mergeKey ?? "never",
    maxAttempts ?? null,
    retry ?? null,
  ]);
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

const enqueue = newBatch.map(
  (params): Op =>
    async (world) => {
      const expected = world.model.enqueue(params);
      const call = world.pawl.call("queue.enqueue", params);
      if (typeof expected === "string") {
        await expect(call).rejects.toMatchObject({ kind: expected });
        return;
      }
      const { batch, created, outcome } = await call;
      expectEnqueued(world, expected, batch, created, outcome);
    },
);

const enqueueMany = fc.array(newBatch, { minLength: 1, maxLength: 4 }).map(
  (all): Op =>
    async (world) => {
      const undo = world.model.snapshot();
      const expected: Enqueued[] = [];
      let refusal: string | undefined;
      for (const params of all) {
        const one = world.model.enqueue(params);
        if (typeof one === "string") refusal = one;
        else expected.push(one);
        if (refusal !== undefined) break;
      }
      const call = world.pawl.call("queue.enqueueMany", { batches: all });
      if (refusal !== undefined) {
        undo();
        await expect(call).rejects.toMatchObject({ kind: refusal });
        return;
      }
      const { batches, created, outcomes } = await call;
      for (const [index, one] of expected.entries()) {
        const { payloads: _, ...batch } = batches[index] as Batch;
        // Later ones of the same call may have changed it meanwhile.
        const { payloads } = one.batch.params;
        const answer = { ...batch, payloads } as Batch;
        expectEnqueued(world, one, answer, created[index] as boolean, outcomes[index] as string);
      }
    },
);

const from = fc.oneof(
  { weight: 4, arbitrary: queue.map((name) => ({ queue: name })) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(
        fc.constantFrom(["p/*"], ["p/b", "p/a"], ["none", "p/b", "p/*"], ["p/c/*", "p/a"]),
        fc.constantFrom(undefined, "listed" as const, "oldest" as const),
      )
      .map(([queues, order]) => ({ queues, ...(order === undefined ? {} : { order }) })),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(queue, fc.array(pick, { minLength: 1, maxLength: 4 }))
      .map(([of, named]) => ({ of, named })),
  },
);

const claim = fc
  .record({
    from,
    boundary: fc.constantFrom("idle" as const, "idle" as const, "active_turn_checkpoint" as const),
    maxBatches: fc.integer({ min: 1, max: 4 }),
    leaseMs: fc.constantFrom(100, 200, 20_000),
    releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
    connection: fc.constantFrom(...CONNECTIONS),
    under: fc.constantFrom(false, false, true),
    holds: fc.constantFrom(undefined, undefined, [0], [0, 1, 2]),
  })
  .map(
    ({ from, boundary, maxBatches, leaseMs, releaseOn, connection, under, holds }): Op =>
      async ({ model, pawl }) => {
        const held = (holds ?? []).flatMap((index) => model.claims.at(-1 - index) ?? []);
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
          const named = [...new Set(from.named.flatMap((index) => pickFrom(ofQueue, index) ?? []))];
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
          connection: lease === undefined && releaseOn === "disconnect" ? connection : undefined,
        };
        const { again } = expected;
        if (again !== undefined) {
          expect({ claimId: result.claimId, leaseToken: result.leaseToken }).toEqual(again.proof);
          Object.assign(again, terms);
          for (const batch of again.batches) {
            batch.state = "claimed";
            batch.attempt = Math.max(0, batch.attempt - 1);
            batch.losses = Math.max(0, batch.losses - 1);
          }
          return;
        }
        expect(result.batches.map(({ batchId }) => batchId)).toEqual(
          expected.batches.map(({ batchId }) => batchId),
        );
        expect(result.fencingToken).toBeGreaterThan(model.tokens.get(queueOf) ?? 0);
        model.tokens.set(queueOf, result.fencingToken);
        expect(result.claimId).toBe(`qwc:${expected.batches[0]?.seq}:${result.fencingToken}`);
        const taken: ModelClaim = {
          proof: { claimId: result.claimId, leaseToken: result.leaseToken },
          queue: queueOf,
          batches: expected.batches,
          isCompleted: false,
          isOver: false,
          ...terms,
        };
        model.claims.push(taken);
        (model.queues[queueOf] as ModelQueue).tokens -= expected.batches.length;
        for (const batch of expected.batches) {
          batch.state = "claimed";
          batch.claim = taken;
          batch.ttlMs = undefined;
          batch.ttlEndsAt = NEVER;
        }
      },
  );

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
      for (const batch of taken.batches) {
        batch.state = "completed";
        model.finish(batch);
      }
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
      const { lease } = taken;
      const remainingMs = lease === undefined ? (leaseMs ?? taken.leaseMs) : lease.expiresAt - model.now;
      expect(await call).toEqual({ expiresAt: model.now + remainingMs, remainingMs, cancelling: false });
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

const cancel = fc.tuple(pick, fc.boolean()).map(
  ([index, byKey]): Op =>
    async ({ model, pawl }) => {
      let batch = pickFrom(model.batches, index);
      if (batch === undefined) return;
      const { queue: name, sourceKey } = batch.params;
      let params: Params<"queue.cancel"> = { batchId: batch.batchId };
      if (byKey && sourceKey !== undefined) {
        params = { queue: name, sourceKey };
        const owner = model.keys.get(`${name}/${sourceKey}`) as ModelBatch;
        batch = owner.follower ?? owner;
      }
      const { outcome } = await pawl.call("queue.cancel", params);
      const isFree = ["ready", "scheduled", "blocked"].includes(batch.state);
      expect(outcome).toBe(isFree ? "cancelled" : `already_${batch.state}`);
      if (!isFree) return;
      batch.state = "cancelled";
      batch.ttlEndsAt = NEVER;
      if (batch.follows !== undefined) batch.follows.follower = undefined;
      batch.follows = undefined;
      model.finish(batch);
    },
);

const retry = fc.tuple(pick, queue, fc.boolean()).map(
  ([index, name, whole]): Op =>
    async ({ model, pawl }) => {
      const one = pickFrom(model.batches, index);
      const params = whole || one === undefined ? { queue: name } : { batchId: one.batchId };
      const dead = model.batches.filter(
        (batch) =>
          !batch.keyElsewhere &&
          ("queue" in params
            ? batch.state === "dead" && batch.params.queue === name
            : ["dead", "cancelled", "expired"].includes(batch.state) && batch.batchId === params.batchId),
      );
      expect(await pawl.call("queue.retry", params)).toEqual({ retried: dead.length, more: false });
      const anew = {
        state: "ready",
        attempt: 0,
        losses: 0,
        availableAt: model.now,
        claim: undefined,
      } as const;
      for (const batch of dead) {
        Object.assign(batch, anew);
        batch.ttlEndsAt = model.now + (batch.ttlMs ?? NEVER);
      }
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

const op = fc.oneof(
  { weight: 6, arbitrary: enqueue },
  { weight: 2, arbitrary: enqueueMany },
  { weight: 10, arbitrary: claim },
  { weight: 2, arbitrary: changeLease },
  { weight: 5, arbitrary: complete },
  { weight: 3, arbitrary: renew },
  { weight: 4, arbitrary: abandon },
  { weight: 2, arbitrary: cancel },
  { weight: 2, arbitrary: retry },
  { weight: 5, arbitrary: pass },
  { weight: 2, arbitrary: disconnect },
  { weight: 2, arbitrary: configure },
  { weight: 1, arbitrary: throttle },
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

/** Draws runs one after the other, as long as there is time for another; a run that was begun goes to its end. */
async function draw(
  arbitrary: fc.Arbitrary<Op>,
  length: number,
  runs: number,
  run: (ops: Op[]) => Promise<void>,
) {
  const until = performance.now() + 8000 * FACTOR;
  await fc.assert(
    fc.asyncProperty(fc.array(arbitrary, { minLength: 20, maxLength: length }), async (ops) => {
      if (performance.now() < until) await run(ops);
    }),
    { numRuns: runs * FACTOR },
  );
}

test("whatever is done, the rules hold", () => draw(op, 60, 60, (ops) => follow(ops, ":memory:")));

test.each([
  ["", InProcess, 10],
  [", driven with awaits between the steps of each operation", AsynchronousInProcess, 4],
])("whatever is done, also across restarts, the rules hold%s", async (_, Daemon, runs) => {
  const opOrRestart = fc.oneof({ weight: 10, arbitrary: op }, { weight: 1, arbitrary: restart });
  await draw(opOrRestart, 40, runs, (ops) => follow(ops, undefined, Daemon));
});
