// A queue as the specification has it, in the simplest words there are: no indexes, no lines of keys, no steps.
import type { Params, Result } from "@pawl/protocol";

export const START = 1_700_000_000_000;
export const GRACE_MS = 5000;
export const QUEUES = ["p/a", "p/b"] as const;
/** Of batches that have none of their own. */
export const QUEUE_RETRY = { baseMs: 20, factor: 3, maxMs: 100, jitter: false };
/** What a batch without a ttl has. */
export const NEVER = Number.POSITIVE_INFINITY;

type When = NonNullable<Params<"queue.enqueue">["when"]>;
type Refusal = "conflict" | "exhausted" | "invalid_params";

export type Batch = Result<"queue.get">["batch"];
export type State = Batch["state"];

export interface ModelBatch {
  /** Of its own in the model; its batchId is unknown until it is answered. */
  readonly number: number;
  batchId: string;
  params: Params<"queue.enqueue">;
  seq: number;
  state: State;
  attempt: number;
  /** How many deliveries of it ended by expiry, with their connections or with a lease. */
  losses: number;
  availableAt: number;
  /** The time was named, not given as a delay. */
  isNamed: boolean;
  /** From when its ttl runs, once it is available. */
  since: number;
  /** It was cancelled while it was blocked, so nobody can say when it would have been available. */
  isTimeless: boolean;
  /** The content that later ones of its sourceKey are compared with. */
  content: string;
  /** What it waits for, or has waited for; `waits` as long as it has not been let go. */
  after: readonly ModelBatch[] | undefined;
  when: When;
  waits: boolean;
  /** The batch for whose end it was cancelled. */
  cause: ModelBatch | undefined;
  /** The delay that begins once it waits for nothing. */
  delayMs: number;
  isRemoved: boolean;
  percent: number | undefined;
  checkpoint: number | undefined;
  result: number | undefined;
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

export interface Enqueued {
  readonly batch: ModelBatch;
  readonly created: boolean;
  readonly outcome: Result<"queue.enqueue">["outcome"];
}

export interface ModelClaim {
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
  /** When it is lost because its holder was told to stop, and the batches that are cancelled then. */
  cancelAt: number;
  readonly stopped: Set<ModelBatch>;
}

export interface ModelLease {
  readonly leaseId: string;
  readonly fencingToken: number;
  expiresAt: number;
}

/** A claim as it is to be answered: these batches, or one of before again. */
export interface Next {
  readonly head: ModelBatch;
  readonly batches: readonly ModelBatch[];
  readonly again?: ModelClaim;
}

/** What a queue is configured to, and how much of its rate is left. */
export interface ModelQueue {
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

export class Model {
  readonly queues: Record<string, ModelQueue> = Object.fromEntries(
    QUEUES.map((name) => [name, { pausedUntil: 0, throttledUntil: 0, tokens: 0 }]),
  );
  readonly batches: ModelBatch[] = [];
  readonly claims: ModelClaim[] = [];
  readonly keys = new Map<string, ModelBatch>();
  readonly tokens = new Map<string, number>();
  lease: ModelLease | undefined;
  now = START;
  /** Batches that have ended, and of which those that wait for them are still to be told. */
  readonly #ended: ModelBatch[] = [];
  #isTelling = false;
  #made = 0;

  pass(ms: number): void {
    this.now += ms;
    if (this.lease !== undefined && this.lease.expiresAt <= this.now) this.endLease(false);
    const byEnd = [...this.claims].sort((a, b) => a.expiresAt - b.expiresAt);
    for (const claim of [...this.claims].sort((a, b) => a.cancelAt - b.cancelAt)) {
      if (claim.isHeld && claim.cancelAt <= this.now) this.end(claim, false, true, 0);
    }
    for (const claim of byEnd) {
      if (claim.lease === undefined && claim.isHeld && claim.expiresAt <= this.now) this.end(claim, true);
    }
    for (const batch of this.batches) {
      if (batch.state === "scheduled" && batch.availableAt <= this.now) {
        batch.state = "ready";
        if (batch.isNamed) batch.since = this.now;
        batch.isNamed = false;
        if (batch.ttlEndsAt === NEVER) batch.ttlEndsAt = batch.since + (batch.ttlMs ?? NEVER);
      }
    }
    for (const batch of [...this.batches].sort((a, b) => a.ttlEndsAt - b.ttlEndsAt)) {
      if ((batch.state === "ready" || batch.state === "scheduled") && batch.ttlEndsAt <= this.now) {
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

  /** A batch has ended: its follower takes the sourceKey and its turn, and those that wait for it are told. */
  finish(batch: ModelBatch): void {
    const { follower } = batch;
    if (follower !== undefined) {
      batch.follower = undefined;
      batch.keyElsewhere = true;
      if (batch.state === "dead") batch.claim = undefined;
      follower.follows = undefined;
      follower.keyElsewhere = false;
      this.keys.set(`${follower.params.queue}/${follower.params.sourceKey}`, follower);
      if (!follower.waits) this.release(follower, follower.availableAt);
    }
    this.#ended.push(batch);
    if (this.#isTelling) return;
    this.#isTelling = true;
    for (let next = this.#ended.shift(); next !== undefined; next = this.#ended.shift()) {
      for (const child of this.batches) {
        if (child.state === "blocked" && child.waits && child.after?.includes(next)) this.judge(child, next);
      }
    }
    this.#isTelling = false;
  }

  /** Batches of one claim have ended. */
  finishAll(batches: readonly ModelBatch[], head: ModelBatch | undefined): void {
    const rank = (batch: ModelBatch): number => (batch === head ? 0 : batch.seq);
    for (const batch of [...batches].sort((a, b) => rank(a) - rank(b))) this.finish(batch);
  }

  /** A blocked batch waits for nothing any more. */
  release(batch: ModelBatch, availableAt: number): void {
    batch.state = availableAt > this.now ? "scheduled" : "ready";
    batch.availableAt = Math.max(availableAt, this.now);
    batch.since = batch.availableAt;
    batch.isTimeless = false;
    if (batch.state === "ready") {
      batch.isNamed = false;
      batch.ttlEndsAt = this.now + (batch.ttlMs ?? NEVER);
    }
  }

  /** One that a batch waits for has ended. */
  judge(child: ModelBatch, about: ModelBatch): void {
    const { after = [], when } = child;
    if (when === "success" && hasFailed(about)) return this.cancelWaiting(child, about);
    // One that has failed, too, is still to be told of.
    if (!after.every(isOver) || (when === "success" && after.some(hasFailed))) return;
    if (when === "failure" && !after.some(hasFailed)) return this.cancelWaiting(child, about);
    child.waits = false;
    if (when !== "success") this.forgetDead(after);
    if (child.follows !== undefined) return;
    const isNamed = child.isNamed && child.availableAt > this.now;
    if (!isNamed) child.isNamed = false;
    this.release(child, isNamed ? child.availableAt : this.now + child.delayMs);
  }

  /** What was done because they died keeps their claims from being completed. */
  forgetDead(batches: readonly ModelBatch[]): void {
    for (const batch of batches) if (batch.state === "dead") batch.claim = undefined;
  }

  /** What a batch waits for cannot come true any more. */
  cancelWaiting(child: ModelBatch, cause: ModelBatch): void {
    this.unfollow(child);
    Object.assign(child, { state: "cancelled", cause, isTimeless: true });
    this.forgetDead([cause]);
    this.finish(child);
  }

  unfollow(batch: ModelBatch): void {
    if (batch.follows !== undefined) batch.follows.follower = undefined;
    batch.follows = undefined;
  }

  /** A batch has come back: so do those that were cancelled for its end, unless others are in their way. */
  cameBack(batch: ModelBatch): void {
    for (const child of this.batches) {
      if (child.state !== "cancelled" || child.cause !== batch || child.keyElsewhere) continue;
      const failed = [...(child.after ?? [])].sort((a, b) => a.seq - b.seq).find(hasFailed);
      if (child.when === "success" && failed !== undefined) child.cause = failed;
      else this.blockAgain(child);
    }
  }

  blockAgain(batch: ModelBatch): void {
    Object.assign(batch, {
      state: "blocked",
      waits: true,
      attempt: 0,
      losses: 0,
      ttlEndsAt: NEVER,
      claim: undefined,
      cause: undefined,
    });
    this.cameBack(batch);
  }

  /** Tries a batch again. Returns false where that is not to be. */
  retry(batch: ModelBatch, isOfQueue: boolean): boolean {
    const { state, after, when } = batch;
    const mayCome = isOfQueue ? state === "dead" : ["dead", "cancelled", "expired"].includes(state);
    if (!mayCome || batch.keyElsewhere || batch.cause !== undefined) return false;
    if (after !== undefined && batch.waits) {
      const isPossible =
        when === "finished" ||
        (when === "success" ? !after.some(hasFailed) : !after.every(isOver) || after.some(hasFailed));
      if (!isPossible) return false;
      if (!after.every(isOver)) {
        this.blockAgain(batch);
        return true;
      }
      batch.waits = false;
    }
    Object.assign(batch, {
      state: "ready",
      attempt: 0,
      losses: 0,
      availableAt: this.now,
      since: this.now,
      isNamed: false,
      isTimeless: false,
      claim: undefined,
      ttlEndsAt: this.now + (batch.ttlMs ?? NEVER),
    });
    this.cameBack(batch);
    return true;
  }

  /** Whether others wait for a batch, or may be tried again and have waited for it. */
  isAwaited(batch: ModelBatch): boolean {
    const ended = ["completed", "cancelled", "expired"];
    return this.batches.some((each) => each.after?.includes(batch) && !ended.includes(each.state));
  }

  remove(batch: ModelBatch): void {
    this.unfollow(batch);
    this.finish(batch);
    batch.isRemoved = true;
    batch.claim = undefined;
    this.batches.splice(this.batches.indexOf(batch), 1);
    const key = `${batch.params.queue}/${batch.params.sourceKey}`;
    if (this.keys.get(key) === batch) this.keys.delete(key);
  }

  /** A batch that waits becomes available at a time that was named, or now if that has come. */
  setTime(batch: ModelBatch, at: number): void {
    batch.isNamed = at > this.now;
    batch.availableAt = Math.max(at, this.now);
    batch.since = this.now;
    batch.isTimeless = false;
    if (batch.state === "blocked") {
      batch.delayMs = 0;
      return;
    }
    batch.state = batch.isNamed ? "scheduled" : "ready";
    if (batch.state === "ready" && batch.ttlEndsAt === NEVER)
      batch.ttlEndsAt = this.now + (batch.ttlMs ?? NEVER);
  }

  /** Puts a batch into another queue. Returns false where it has to stay. */
  move(batch: ModelBatch, to: string): boolean {
    const { queue, sourceKey } = batch.params;
    const isFree = !["claimed", "completed"].includes(batch.state);
    if (!isFree || batch.follower !== undefined || batch.follows !== undefined) return false;
    if (sourceKey !== undefined && !batch.keyElsewhere) {
      if (this.keys.has(`${to}/${sourceKey}`)) return false;
      this.keys.delete(`${queue}/${sourceKey}`);
      this.keys.set(`${to}/${sourceKey}`, batch);
    }
    batch.params = { ...batch.params, queue: to };
    batch.claim = undefined;
    this.tokens.set(to, Math.max(this.tokens.get(to) ?? 0, this.tokens.get(queue) ?? 0));
    return true;
  }

  /** Whether a batch that waits for these would wait for itself. */
  makesCircle(batch: ModelBatch, after: readonly ModelBatch[]): boolean {
    const seen = new Set(after);
    for (const each of seen) {
      if (each === batch) return true;
      if (each.follows !== undefined) seen.add(each.follows);
      if (!["blocked", "cancelled"].includes(each.state)) continue;
      for (const other of each.after ?? []) seen.add(other);
    }
    return false;
  }

  /** A batch is enqueued, its batchId and enqueueSeq being yet unknown; or the kind of its refusal. */
  enqueue(params: Params<"queue.enqueue">, after?: readonly ModelBatch[]): Enqueued | Refusal {
    const { queue, sourceKey, onExisting = "refuse" } = params;
    const key = `${queue}/${sourceKey}`;
    const known = sourceKey === undefined ? undefined : this.keys.get(key);
    const isFull = this.waiting(queue) >= ((this.queues[queue] as ModelQueue).maxWaiting ?? NEVER);
    const changes = onExisting !== "refuse" && onExisting !== "return";
    const isFree =
      known !== undefined &&
      ["completed", "dead", "cancelled", "expired"].includes(known.state) &&
      (changes || known.params.uniqueFor === "unfinished");
    if (known === undefined || isFree) {
      if (isFull) return "exhausted";
      if (known !== undefined) known.keyElsewhere = true;
      const batch = this.add(params);
      if (sourceKey !== undefined) this.keys.set(key, batch);
      this.awaits(batch, after);
      return { batch, created: true, outcome: "created" };
    }
    if (!changes) {
      if (onExisting === "refuse" && known.content !== contentOf(params, after)) return "conflict";
      return { batch: known, created: false, outcome: "existing" };
    }
    if (known.state !== "claimed" && onExisting !== "rerun") {
      const refused = this.change(known, params, after);
      if (refused !== undefined) return refused;
      const outcome = { replace: "replaced", keepTime: "kept", append: "appended" } as const;
      return { batch: known, created: false, outcome: outcome[onExisting] };
    }
    if (known.follower !== undefined) {
      const { follower } = known;
      const refused = this.change(follower, params, after);
      return refused ?? { batch: follower, created: false, outcome: "follower" };
    }
    if (isFull) return "exhausted";
    const follower = this.add(params);
    Object.assign(follower, { state: "blocked", ttlEndsAt: NEVER, keyElsewhere: true, follows: known });
    known.follower = follower;
    this.awaits(follower, after);
    return { batch: follower, created: true, outcome: "follower" };
  }

  /** A batch that waits is to wait for these, too. */
  awaits(batch: ModelBatch, after: readonly ModelBatch[] | undefined): void {
    const { when = "success", delayMs = 0 } = batch.params;
    Object.assign(batch, { after, when, waits: false, cause: undefined, delayMs });
    batch.content = contentOf(batch.params, after);
    if (after === undefined) return;
    const obstacle =
      when === "success"
        ? after.find(hasFailed)
        : when === "failure" && after.every(({ state }) => state === "completed")
          ? after.at(-1)
          : undefined;
    if (obstacle === undefined && after.every(isOver)) {
      if (when !== "success") this.forgetDead(after);
      return;
    }
    Object.assign(batch, { state: "blocked", waits: true, ttlEndsAt: NEVER });
    if (obstacle !== undefined) this.cancelWaiting(batch, obstacle);
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
      isNamed: false,
      since: availableAt,
      isTimeless: false,
      content: contentOf(params, undefined),
      number: this.#made++,
      after: undefined,
      when: "success",
      waits: false,
      cause: undefined,
      delayMs: 0,
      isRemoved: false,
      percent: undefined,
      checkpoint: undefined,
      result: undefined,
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
  change(
    batch: ModelBatch,
    given: Params<"queue.enqueue">,
    after: readonly ModelBatch[] | undefined,
  ): Refusal | undefined {
    if (after !== undefined && this.makesCircle(batch, after)) return "invalid_params";
    const appends = given.onExisting === "append";
    const payloads = appends ? [...batch.params.payloads, ...given.payloads] : given.payloads;
    if (payloads.length > 1000) return "exhausted";
    const wasBlocked = batch.state === "blocked";
    const { availableAt, since } = batch;
    const leftMs = batch.isNamed ? 0 : Math.max(availableAt - this.now, 0);
    const delayMs = wasBlocked && batch.after !== undefined ? batch.delayMs : leftMs;
    if (!appends && given.onExisting !== "keepTime") {
      if (given.maxDelayMs !== undefined) batch.replaceUntil ??= this.now + given.maxDelayMs;
      const until = Math.max(this.now, batch.replaceUntil ?? NEVER);
      batch.availableAt = Math.min(this.now + (given.delayMs ?? 0), until);
      batch.isNamed = false;
      batch.since = batch.availableAt;
      batch.isTimeless = false;
    }
    if (batch.follows === undefined && (wasBlocked || !keepsTime(given))) {
      batch.isTimeless = false;
      batch.availableAt = Math.max(batch.availableAt, this.now);
      if (!batch.isNamed || batch.availableAt === this.now) batch.since = batch.availableAt;
      batch.state = batch.availableAt > this.now ? "scheduled" : "ready";
      if (batch.state === "ready") batch.isNamed = false;
    }
    const { uniqueFor } = batch.params;
    batch.params = { ...given, payloads };
    // For how long a sourceKey is kept is the batch's from its beginning on.
    if (uniqueFor === undefined) delete batch.params.uniqueFor;
    else batch.params.uniqueFor = uniqueFor;
    batch.attempt = 0;
    batch.losses = 0;
    batch.claim = undefined;
    batch.percent = undefined;
    batch.checkpoint = undefined;
    batch.ttlMs = given.ttlMs ?? (this.queues[given.queue] as ModelQueue).ttlMs ?? undefined;
    batch.ttlEndsAt = batch.state === "ready" ? batch.since + (batch.ttlMs ?? NEVER) : NEVER;
    this.awaits(batch, after);
    // The old time of one that waits for others again counts once they have ended.
    if (wasBlocked && keepsTime(given) && batch.waits) Object.assign(batch, { availableAt, since });
    if (keepsTime(given)) batch.delayMs = delayMs;
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
    const stopped = claim.batches.filter((batch) => claim.stopped.has(batch));
    const batches = claim.batches.filter((batch) => !claim.stopped.has(batch));
    claim.cancelAt = NEVER;
    claim.stopped.clear();
    if (counts) for (const batch of batches) batch.attempt += 1;
    const hasNoAttemptsLeft = ({ params: { maxAttempts = 20 }, attempt }: ModelBatch): boolean =>
      counts && maxAttempts > 0 && attempt >= maxAttempts;
    const back = batches.filter((batch) => !hasNoAttemptsLeft(batch));
    const highest = Math.max(...back.map(({ attempt }) => attempt));
    const rests = back
      .filter(({ losses }) => counts && (final || losses > 0))
      .map(({ params: { retry = QUEUE_RETRY } }) =>
        Math.min(retry.maxMs ?? 0, (retry.baseMs ?? 0) * (retry.factor ?? 1) ** (highest - 1)),
      );
    const delayMs = given ?? Math.max(0, ...rests);
    const ended = [...stopped];
    for (const batch of stopped) Object.assign(batch, { state: "cancelled", claim: undefined });
    for (const batch of batches) {
      if (final) batch.claim = undefined;
      else if (counts) batch.losses += 1;
      const isDead = hasNoAttemptsLeft(batch);
      batch.state = isDead ? "dead" : delayMs > 0 ? "scheduled" : "ready";
      // Expiry is noticed at the next turn, which in these tests is when time has passed.
      batch.availableAt = this.now + delayMs;
      batch.since = batch.availableAt;
      batch.isNamed = false;
      if (isDead) ended.push(batch);
    }
    this.finishAll(ended, claim.batches[0]);
    const dead = ended.length - stopped.length;
    return { released: batches.length - dead, dead };
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

/** Whether a batch has ended, or was removed before. */
export function isOver({ state, isRemoved }: ModelBatch): boolean {
  return isRemoved || ["completed", "dead", "cancelled", "expired"].includes(state);
}

/** Whether a batch has ended otherwise than completed. */
function hasFailed(batch: ModelBatch): boolean {
  return isOver(batch) && batch.state !== "completed";
}

function keepsTime({ onExisting }: Params<"queue.enqueue">): boolean {
  return onExisting === "append" || onExisting === "keepTime";
}

/** The content that is compared under one sourceKey. */
function contentOf(params: Params<"queue.enqueue">, after: readonly ModelBatch[] | undefined): string {
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
    after?.map(({ number }) => number) ?? null,
    params.when ?? null,
  ]);
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
