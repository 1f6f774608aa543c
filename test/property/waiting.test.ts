// Whoever waits is not forgotten: whatever is done in whatever order, no call waits for something that the same call
// would be given if it were made now (spec: wire.md, Waiting). Now is asked by a transaction that is only tried.
import { setImmediate as nextLoop } from "node:timers/promises";
import type { MethodName, Params, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";
import { pickFrom, replay, report } from "./histories.js";

const QUEUES = ["q", "p/a", "p/b", "p/c/d"];
const CONNECTIONS = [1, 2];
/** The one that no operation closes. */
const OWN = 9;
const DEPLOYMENT = "d";
const WAIT_MS = 3_600_000;
/** Turns that what is done may take: a change may be told in steps. */
const TURNS = 4;

type Claim = NonNullable<Result<"queue.claim">["claim"]>;
type Proof = Pick<Claim, "claimId" | "leaseToken">;

const METHODS = ["queue.claim", "queue.enqueue", "command.lease"] as const;
type Waited = (typeof METHODS)[number];

/** A call that waits, until it is answered. */
interface Parked {
  readonly method: Waited;
  readonly params: Record<string, unknown>;
  readonly connection: number;
  isAnswered: boolean;
}

/** What the runs came upon, so that none of it is missing by chance. */
const seen = Object.fromEntries(METHODS.map((method) => [method, { waited: 0, met: 0 }])) as Record<
  Waited,
  { waited: number; met: number }
>;
afterAll(() => {
  for (const { waited, met } of Object.values(seen)) {
    expect(waited).toBeGreaterThan(0);
    expect(met).toBeGreaterThan(0);
  }
});

class World {
  readonly time = new Clocks();
  pawl: InProcess;
  readonly calls: string[] = [];
  parked: Parked[] = [];
  batchIds: string[] = [];
  claims: Proof[] = [];
  commands: string[] = [];
  leaseIds: string[] = [];

  constructor(path: string | undefined) {
    this.pawl = new InProcess({ time: this.time, ...(path === undefined ? {} : { path }) });
  }

  restart(): void {
    const { path } = this.pawl;
    this.calls.push("restart");
    this.parked = [];
    this.pawl.close();
    this.pawl = new InProcess({ time: this.time, path });
  }

  disconnect(connection: number): undefined {
    this.calls.push(`disconnect ${connection}`);
    this.parked = this.parked.filter((each) => each.connection !== connection);
    this.pawl.disconnect(connection);
  }

  /** Performs a call, whatever its answer is; undefined for a refusal. */
  async call<N extends MethodName>(
    method: N,
    params: Params<N>,
    connection = OWN,
  ): Promise<Result<N> | undefined> {
    this.calls.push(`${method} ${JSON.stringify(params)} by ${connection}`);
    const answer = await this.pawl.call(method, params, connection).catch((error: unknown) => {
      if (!(error instanceof PawlError) || error.kind === "internal") throw error;
      return undefined;
    });
    return answer;
  }

  /** Makes a call that waits. */
  wait<N extends Waited>(method: N, given: Params<N>, connection: number): undefined {
    const params: Record<string, unknown> = { ...(given as object) };
    const parked: Parked = { method, params, connection, isAnswered: false };
    this.parked.push(parked);
    void this.call(method, { ...params, waitMs: WAIT_MS } as Params<N>, connection).then((answer) => {
      parked.isAnswered = true;
      this.keep(answer as object | undefined);
    });
  }

  keep(answer: object | undefined): void {
    if (answer === undefined) return;
    if ("batch" in answer) this.batchIds.push((answer as Result<"queue.enqueue">).batch.batchId);
    if ("claim" in answer && answer.claim !== null) this.claims.push(answer.claim as Claim);
    if ("leases" in answer)
      this.leaseIds.push(...(answer as Result<"command.lease">).leases.map(({ leaseId }) => leaseId));
  }

  /** Asserts that nobody waits for what is there. */
  async compare(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn += 1) {
      await this.pawl.call("daemon.ping", {}, OWN);
      await nextLoop();
    }
    for (const { method, isAnswered } of this.parked) if (isAnswered) seen[method].met += 1;
    this.parked = this.parked.filter(({ isAnswered }) => !isAnswered);
    for (const { method, params, connection } of this.parked) {
      seen[method].waited += 1;
      const now = this.pawl.call("transact", { calls: [{ method, params }], dryRun: true }, connection);
      const answer = await now.catch((error: unknown) => error);
      expect(isNothing(answer), `${method} ${JSON.stringify(params)} waits: ${JSON.stringify(answer)}`).toBe(
        true,
      );
    }
  }
}

/** True of the answer to a call that has to wait. */
function isNothing(answer: unknown): boolean {
  if (answer instanceof PawlError) return answer.kind === "exhausted";
  const [result] = (answer as { results: object[] }).results;
  if (result === undefined) return false;
  if ("claim" in result) return result.claim === null;
  return "leases" in result && (result.leases as unknown[]).length === 0;
}

type Op = (world: World) => Promise<unknown> | undefined;

const pick = fc.nat({ max: 1000 });
const connection = fc.constantFrom(...CONNECTIONS);

/**
 * What the claims of a run are like. In a run that draws from everything those that wait take whatever comes, and none
 * waits behind anything.
 */
interface Profile {
  readonly boundary: "idle" | "active_turn_checkpoint";
  readonly from: "queue" | "several" | "named";
  readonly queues: readonly string[];
  /** Whether each queue has so little room that enqueues wait for it. */
  readonly isNarrow: boolean;
}

const PROFILES: readonly Profile[] = (["idle", "active_turn_checkpoint"] as const).flatMap((boundary) =>
  (["queue", "several", "named"] as const).flatMap((from) =>
    [false, true].map((isNarrow) => ({
      boundary,
      from,
      queues: from === "several" ? QUEUES : ["q", "p/a"],
      isNarrow,
    })),
  ),
);
const policy = fc.constantFrom("earliest_safe_boundary" as const, "after_current_turn_commit" as const);

function optional<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(arbitrary, { nil: undefined, freq: 1 });
}

/** Params without what is not given. */
function given<T extends object>(params: T): T {
  return Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined)) as T;
}

const batch = ({ queues }: Profile) =>
  fc.record({
    queue: fc.constantFrom(...queues),
    priority: optional(fc.constantFrom(0, 5)),
    key: optional(fc.constantFrom("k", "l")),
    sourceKey: optional(fc.constantFrom("s", "t")),
    onExisting: optional(
      fc.constantFrom("replace" as const, "keepTime" as const, "append" as const, "rerun" as const),
    ),
    deliveryPolicy: optional(policy),
    slotPolicy: optional(fc.constantFrom("join" as const)),
    mergeKey: optional(fc.constantFrom("payload_default" as const)),
    delayMs: optional(fc.constantFrom(40, 1000)),
    ttlMs: optional(fc.constantFrom(90)),
    maxAttempts: optional(fc.constantFrom(1, 2)),
    after: fc.option(fc.array(pick, { minLength: 1, maxLength: 2 }), { nil: undefined, freq: 3 }),
    when: optional(fc.constantFrom("failure" as const, "finished" as const)),
  });

const enqueue = (profile: Profile) =>
  fc.tuple(batch(profile), connection, fc.constantFrom(false, false, true)).map(
    ([{ after, when, ...each }, by, waits]): Op =>
      (world) => {
        const ids = [...new Set((after ?? []).flatMap((index) => pickFrom(world.batchIds, index) ?? []))];
        const params = given({ ...each, payloads: [1], ...(ids.length === 0 ? {} : { after: ids, when }) });
        if (waits && each.sourceKey === undefined) return world.wait("queue.enqueue", params, by);
        return world.call("queue.enqueue", params).then((answer) => world.keep(answer));
      },
  );

/** Where a claim takes batches from. */
function origin({ from, queues }: Profile): fc.Arbitrary<object> {
  if (from === "queue") return fc.constantFrom(...queues).map((queue) => ({ queue }));
  if (from === "named") return fc.array(pick, { minLength: 1, maxLength: 2 }).map((named) => ({ named }));
  return fc
    .tuple(
      fc.constantFrom(["p/*"], ["q", "p/a"], ["p/c/*", "p/b"]),
      fc.constantFrom("listed" as const, "oldest" as const),
    )
    .map(([several, order]) => ({ queues: several, order }));
}

const claim = (profile: Profile) =>
  fc
    .record({
      from: origin(profile) as fc.Arbitrary<
        { queue: string } | { queues: string[]; order: string } | { named: number[] }
      >,
      boundary: fc.constant(profile.boundary),
      maxBatches: fc.constantFrom(1, 2),
      leaseMs: fc.constantFrom(100, 60_000),
      releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
      holds: fc.constantFrom(0, 0, 0, 2),
      by: connection,
      waits: fc.constantFrom(true, true, false),
    })
    .map(
      ({ from, by, waits, holds, ...terms }): Op =>
        (world) => {
          const batchIds =
            "named" in from
              ? [...new Set(from.named.flatMap((index) => pickFrom(world.batchIds, index) ?? []))]
              : undefined;
          if (batchIds?.length === 0) return;
          const held = world.claims.slice(-holds).map(({ claimId, leaseToken }) => ({ claimId, leaseToken }));
          const params = {
            owner: "o",
            ...terms,
            ...("named" in from ? { batchIds } : from),
            ...(holds === 0 ? {} : { held }),
          } as Params<"queue.claim">;
          if (waits) return world.wait("queue.claim", params, by);
          return world.call("queue.claim", params, by).then((answer) => world.keep(answer));
        },
    );

/** An operation on one of the last claims. */
function onClaim(perform: (world: World, proof: Proof) => Promise<unknown>): fc.Arbitrary<Op> {
  return pick.map((index) => (world: World) => {
    const found = pickFrom(world.claims, index);
    return found && perform(world, { claimId: found.claimId, leaseToken: found.leaseToken });
  });
}

/** An operation on one of the last batches. */
function onBatch<T>(
  of: fc.Arbitrary<T>,
  perform: (world: World, batchId: string, how: T) => Promise<unknown>,
): fc.Arbitrary<Op> {
  return fc.tuple(pick, of).map(([index, how]) => (world: World) => {
    const found = pickFrom(world.batchIds, index);
    return found === undefined ? undefined : perform(world, found, how);
  });
}

const complete = onClaim((world, proof) => world.call("queue.complete", proof));
const renew = onClaim((world, proof) => world.call("queue.renew", proof, 1));
const abandon = fc
  .record({
    delayMs: optional(fc.constantFrom(0, 40)),
    error: optional(fc.constantFrom("no")),
    dead: optional(fc.constant(true)),
  })
  .chain((how) => onClaim((world, proof) => world.call("queue.abandon", { ...proof, ...given(how) })));
const cancel = onBatch(
  fc.record({ stop: optional(fc.constant(true)), graceMs: optional(fc.constantFrom(0, 50)) }),
  (world, batchId, how) =>
    world.call("queue.cancel", { batchId, ...given(how.stop ? how : {}) } as Params<"queue.cancel">),
);
const update = onBatch(
  fc.record({ priority: fc.constantFrom(-5, 9), inMs: optional(fc.constantFrom(-1, 60)) }),
  (world, batchId, { priority, inMs }) => {
    const availableAt = inMs === undefined ? undefined : world.time.wall() + inMs;
    return world.call("queue.update", given({ batchId, priority, availableAt }));
  },
);
const retry = onBatch(fc.constant(undefined), (world, batchId) => world.call("queue.retry", { batchId }));
const move = ({ queues }: Profile) =>
  onBatch(fc.constantFrom(...queues), (world, batchId, to) =>
    world.call("queue.move", { batchIds: [batchId], to }),
  );
const purge = onBatch(fc.constant(undefined), (world, batchId) =>
  world.call("queue.purge", { batchIds: [batchId] }),
);

const STATES = ["ready", "scheduled", "blocked", "dead", "cancelled", "expired"] as const;
const ofQueue = ({ queues }: Profile) =>
  fc
    .tuple(
      fc.constantFrom(...queues),
      fc.constantFrom(...queues),
      fc.constantFrom(...STATES),
      fc.constantFrom("move", "purge", "retry"),
    )
    .map(
      ([from, to, state, what]): Op =>
        async (world) => {
          if (what === "retry") return await world.call("queue.retry", { queue: from });
          if (what === "purge") return await world.call("queue.purge", { queue: from, states: [state] });
          return from === to ? undefined : await world.call("queue.move", { queue: from, state, to });
        },
    );

const configure = ({ queues }: Profile) =>
  fc
    .tuple(
      fc.constantFrom(...queues),
      fc.constantFrom<Omit<Params<"queue.configure">, "queue">>(
        { maxClaimed: 1 },
        { maxClaimed: null },
        { maxClaimedPerKey: 1 },
        { maxClaimedPerKey: null },
        { keyOrder: "strict" },
        { keyOrder: null },
        { rate: { count: 2, perMs: 100 } },
        { rate: null },
        { maxWaiting: 2 },
        { maxWaiting: null },
        { paused: true },
        { paused: false },
        { retry: { baseMs: 30, factor: 1, maxMs: 30, jitter: false } },
      ),
    )
    .map(
      ([of, settings]): Op =>
        (world) =>
          world.call("queue.configure", { queue: of, ...settings }),
    );

const pauseFor = ({ queues }: Profile) =>
  fc.tuple(fc.constantFrom(...queues), fc.constantFrom("pause", "throttle", "go on")).map(
    ([of, what]): Op =>
      (world) => {
        if (what === "go on") return world.call("queue.throttle", { queue: of, untilAt: null });
        if (what === "throttle")
          return world.call("queue.throttle", { queue: of, delayMs: 70, reason: "busy" });
        const pausedUntilAt = world.time.wall() + 70;
        return world.call("queue.configure", { queue: of, paused: true, pausedUntilAt, reason: "soon" });
      },
  );

const target = fc.constantFrom("", "t", "u");

const create = fc
  .record({
    target,
    incarnation: fc.option(fc.constantFrom("i"), { nil: undefined, freq: 3 }),
    ttlMs: optional(fc.constantFrom(60, 5000)),
    maxAttempts: optional(fc.constantFrom(2)),
    executionMs: optional(fc.constantFrom(80)),
    retry: optional(fc.constantFrom({ baseMs: 30, factor: 1, maxMs: 30, jitter: false })),
    isUploaded: fc.constantFrom(false, false, true),
  })
  .map(
    ({ isUploaded, ...each }): Op =>
      async (world) => {
        const params = isUploaded ? { upload: { sizeBytes: 1 } } : { params: 1 };
        const created = await world.call(
          "command.create",
          given({ deployment: DEPLOYMENT, command: "c", ...each, ...params }),
        );
        if (created === undefined) return;
        world.commands.push(created.commandId);
      },
  );

const upload = pick.map(
  (index): Op =>
    (world) => {
      const commandId = pickFrom(world.commands, index);
      if (commandId === undefined) return;
      const chunk = Buffer.from("1").toString("base64");
      return world.call("command.upload", { commandId, offset: 0, chunk, final: true });
    },
);

const lease = fc
  .record({
    targets: optional(fc.constantFrom<string[]>(["t"], ["t", "u"])),
    incarnation: fc.option(fc.constantFrom("i", "j"), { nil: undefined, freq: 2 }),
    max: fc.constantFrom(1, 2),
    leaseMs: fc.constantFrom(100, 60_000),
    releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
    by: connection,
    waits: fc.constantFrom(true, true, false),
  })
  .map(
    ({ by, waits, ...each }): Op =>
      (world) => {
        const params = given({ deployment: DEPLOYMENT, owner: "o", ...each });
        if (waits) return world.wait("command.lease", params, by);
        return world.call("command.lease", params, by).then((answer) => world.keep(answer));
      },
  );

const onDelivery = fc.tuple(pick, fc.constantFrom("renew", "release", "delay", "progress")).map(
  ([index, what]): Op =>
    (world) => {
      const leaseId = pickFrom(world.leaseIds, index);
      if (leaseId === undefined) return;
      if (what === "renew") return world.call("command.renew", { leaseId }, 1);
      if (what === "progress") return world.call("command.progress", { leaseId, percent: 1 }, 1);
      return world.call("command.release", { leaseId, ...(what === "delay" ? { delayMs: 40 } : {}) });
    },
);

const cancelCommand = pick.map(
  (index): Op =>
    (world) => {
      const commandId = pickFrom(world.commands, index);
      return commandId === undefined ? undefined : world.call("command.cancel", { commandId });
    },
);

const pass = fc.constantFrom(20, 40, 60, 100, 1000, 70_000, 8 * 24 * 3_600_000).map(
  (ms): Op =>
    (world) => {
      // Waits end by timers of the process, for which no time passes here.
      if (ms >= WAIT_MS) for (const each of CONNECTIONS) world.disconnect(each);
      world.calls.push(`pass ${ms}`);
      world.time.pass(ms);
    },
);
const disconnect = connection.map(
  (number): Op =>
    (world) =>
      world.disconnect(number),
);
const restart = fc.constant<Op>((world) => {
  world.restart();
  return undefined;
});

const ofQueues = (profile: Profile) => [
  { weight: 9, arbitrary: enqueue(profile) },
  { weight: 9, arbitrary: claim(profile) },
  { weight: 3, arbitrary: complete },
  { weight: 1, arbitrary: renew },
  { weight: 3, arbitrary: abandon },
  { weight: 3, arbitrary: cancel },
  { weight: 3, arbitrary: update },
  { weight: 2, arbitrary: retry },
  { weight: 3, arbitrary: move(profile) },
  { weight: 2, arbitrary: purge },
  { weight: 2, arbitrary: ofQueue(profile) },
  { weight: 4, arbitrary: configure(profile) },
  { weight: 1, arbitrary: pauseFor(profile) },
];
const OF_COMMANDS = [
  { weight: 6, arbitrary: create },
  { weight: 2, arbitrary: upload },
  { weight: 8, arbitrary: lease },
  { weight: 4, arbitrary: onDelivery },
  { weight: 1, arbitrary: cancelCommand },
];
const OF_ALL = [
  { weight: 5, arbitrary: pass },
  { weight: 2, arbitrary: disconnect },
];

const RESTARTS = { weight: 2, arbitrary: restart };

/** Operations of runs of which each is of one profile. */
function history(
  of: (profile: Profile) => { weight: number; arbitrary: fc.Arbitrary<Op> }[],
): fc.Arbitrary<Op[]> {
  return fc.constantFrom(...PROFILES).chain((profile) => {
    const { queues, isNarrow } = profile;
    const narrowed = (isNarrow ? queues : []).map(
      (queue): Op =>
        (world) =>
          world.call("queue.configure", { queue, maxWaiting: 2 }),
    );
    return fc
      .array(fc.oneof(...of(profile)), { minLength: 20, maxLength: 50, size: "max" })
      .map((ops) => [...narrowed, ...ops]);
  });
}

test.each([
  ["claims and enqueues", history((profile) => [...ofQueues(profile), ...OF_ALL]), ":memory:", 60],
  ["receivers", history(() => [...OF_COMMANDS, ...OF_ALL]), ":memory:", 20],
  [
    "over restarts",
    history((profile) => [...ofQueues(profile), ...OF_COMMANDS, ...OF_ALL, RESTARTS]),
    undefined,
    4,
  ],
] as const)("%s: nobody waits for what is there", { timeout: 900_000 }, async (_, ops, path, runs) => {
  await fc.assert(
    fc.asyncProperty(ops, async (drawn) => await replay(new World(path), drawn)),
    { numRuns: sized(20 * runs, runs), asyncReporter: report },
  );
});
