// Schedules against a model that is too simple to be wrong: whatever is done in whatever order, whatever the clocks do
// and however often the daemon ends, which occurrences were enqueued and when the next one comes is what queue.md says.
import type { MethodName, Params, Result } from "@pawl/protocol";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AsynchronousInProcess } from "../asynchronous.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized, TORTURE } from "../long-form.js";
import { pickFrom, replay, report } from "./histories.js";
import {
  CRONS,
  type Definition,
  IN_TIME_MS,
  INDIA,
  isOver,
  Model,
  type ModelBatch,
  type ModelSchedule,
} from "./schedule-model.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NAMES = ["s", "t"];
/** The first is of all, and has room for everything: who of two is refused at one instant is in no rule. */
const QUEUES = ["all", "of-s", "of-t"] as const;
/** How many turns may be needed for all that is due. */
const TURNS = 2000;
const DEFAULT_ATTEMPTS = 20;
/** Time that passes at once: claims last for longer. */
const MOST_MS = 5 * HOUR;

type Schedule = Result<"schedule.get">["schedule"];
type Batch = Result<"queue.get">["batch"];
type Proof = { claimId: string; leaseToken: string };

/** A call, and how it has to end by the model, to which it has been done. */
interface Planned {
  readonly method: MethodName;
  readonly params: object;
  /** The kind of its refusal, which leaves the model as it was. */
  readonly refusal?: string;
  /** Members of its result. */
  readonly result?: object;
  /** The batch that it makes, or claims. */
  readonly made?: ModelBatch | undefined;
  readonly claimed?: ModelBatch | undefined;
}

/** Does something to the model, and says what is to be called for that; nothing where there is nothing to do it to. */
type Act = (model: Model, world: World) => Planned | undefined;

/** The daemon and the model of it. */
class World {
  model: Model;
  readonly clocks = new Clocks();
  readonly calls: string[] = [];
  pawl: InProcess;
  /** Of the last claim of each batch, by its number. */
  readonly proofs = new Map<number, Proof>();
  readonly #Daemon: typeof InProcess;
  /** When the daemon was started that found a schedule; nothing was missed before one was set. */
  #startedAt = Number.NEGATIVE_INFINITY;

  constructor(Daemon: typeof InProcess, path: string | undefined) {
    this.#Daemon = Daemon;
    this.pawl = new Daemon({ time: this.clocks, ...(path === undefined ? {} : { path }) });
    this.model = new Model(this.clocks.wall());
  }

  note(what: string): void {
    this.calls.push(`${new Date(this.clocks.wall()).toISOString()} ${what}`);
  }

  async call<N extends MethodName>(method: N, params: Params<N>): Promise<Result<N>> {
    this.note(`${method} ${JSON.stringify(params)}`);
    return await this.pawl.call(method, params);
  }

  async act(act: Act): Promise<void> {
    const planned = act(this.model, this);
    if (planned === undefined) return;
    const { method, params, refusal } = planned;
    const call = this.call(method, params as never);
    if (refusal !== undefined) return await expect(call).rejects.toMatchObject({ kind: refusal });
    this.#keep(planned, await call);
  }

  /** All of them, or none: as the first refusal, or a try, has it. */
  async transact(acts: readonly Act[], dryRun: boolean): Promise<void> {
    const copy = this.model.copy();
    const all: Planned[] = [];
    for (const act of acts) {
      const planned = act(copy, this);
      if (planned === undefined) continue;
      // Those that come after name it by the result.
      if (planned.made !== undefined)
        planned.made.batchId = { $result: `/${all.length}/batch/batchId` } as unknown as string;
      all.push(planned);
      if (planned.refusal !== undefined) break;
    }
    if (all.length === 0) return;
    const calls = all.map(({ method, params }) => ({ method, params }));
    const call = this.call("transact", { calls, ...(dryRun ? { dryRun } : {}) } as Params<"transact">);
    const refusal = all.at(-1)?.refusal;
    if (refusal !== undefined)
      return await expect(call).rejects.toMatchObject({ kind: refusal, details: { index: all.length - 1 } });
    const { results } = await call;
    if (dryRun) return;
    for (const { made } of all) if (made !== undefined) made.batchId = undefined;
    this.model = copy;
    for (const [index, planned] of all.entries()) this.#keep(planned, results[index]);
  }

  #keep({ method, result = {}, made, claimed }: Planned, answer: unknown): void {
    expect(answer, method).toMatchObject(result);
    if (made !== undefined) made.batchId = (answer as { batch: { batchId: string } }).batch.batchId;
    if (claimed === undefined) return;
    const { claim } = answer as Result<"queue.claim">;
    const { claimId, leaseToken } = claim as Proof;
    this.proofs.set(claimed.number, { claimId, leaseToken });
  }

  /** Claims go on for as long as nobody ends them. */
  async renew(): Promise<void> {
    const claimed = this.model.batches.filter(({ state, isRemoved }) => state === "claimed" && !isRemoved);
    await Promise.all(
      claimed.map(({ number }) =>
        this.pawl.call("queue.renew", { ...(this.proofs.get(number) as Proof), leaseMs: DAY }),
      ),
    );
  }

  begin(): void {
    const isSet = [...this.model.schedules.values()].some(({ nextAt }) => nextAt !== null);
    if (isSet) this.#startedAt = this.clocks.monotonic();
    this.pawl = new this.#Daemon({ time: this.clocks, path: this.pawl.path });
  }

  /** Asserts that everything that can be seen is as in the model, once all that was due has been done. */
  async compare(): Promise<void> {
    const { pawl, model } = this;
    const wall = this.clocks.wall();
    model.look(wall, this.clocks.monotonic() - this.#startedAt);
    let { schedules } = await pawl.call("schedule.list", {});
    for (let turn = 0; schedules.some(({ nextAt }) => nextAt !== null && nextAt <= wall); turn++) {
      expect(turn).toBeLessThan(TURNS);
      ({ schedules } = await pawl.call("schedule.list", {}));
    }
    const lists = await Promise.all(QUEUES.map((queue) => this.#batchesOf(queue)));
    for (const [index, queue] of QUEUES.entries())
      for (const name of NAMES) {
        const expected = model.batches.filter(
          (each) => !each.isRemoved && each.queue === queue && each.of === name,
        );
        const found = (lists[index] ?? []).filter(
          ({ payloads: [first] }) => (first as { of: string }).of === name,
        );
        for (const [at, each] of expected.entries()) each.batchId ??= found[at]?.batchId;
        expect(found.map(seen), queue).toEqual(expected.map(expectedOf));
      }
    const names = [...model.schedules.keys()].sort();
    const expected = names.map((name) => shown(model.schedules.get(name) as ModelSchedule));
    expect(schedules).toEqual(expected);
    for (const schedule of model.schedules.values()) {
      const { times } = await pawl.call("schedule.next", { name: schedule.name, count: 3 });
      expect(times).toEqual(model.timesOf(schedule, 3));
    }
  }

  async #batchesOf(queue: string): Promise<Batch[]> {
    const found: Batch[] = [];
    for (let after: number | undefined = 0; after !== undefined; ) {
      const page: Result<"queue.list"> = await this.pawl.call("queue.list", { queue, after, limit: 1000 });
      found.push(...page.batches);
      after = page.next;
    }
    return found;
  }
}

/** What is compared of a batch; what it waits for as long as it does. */
function seen({ batchId, sourceKey, state, payloads, priority, key, maxAttempts, after }: Batch) {
  return {
    batchId,
    sourceKey,
    state,
    payloads,
    priority,
    key,
    maxAttempts,
    after: state === "blocked" ? after : [],
  };
}

function expectedOf({ batchId, sourceKey, state, content, after }: ModelBatch): ReturnType<typeof seen> {
  const { payloads, priority = 0, key = null, maxAttempts = DEFAULT_ATTEMPTS } = content;
  const waitsFor = state === "blocked" ? [after?.batchId as string] : [];
  return {
    batchId: batchId as string,
    sourceKey,
    state,
    payloads,
    priority,
    key,
    maxAttempts,
    after: waitsFor,
  };
}

function shown({ definition, nextAt, lastAt, last }: ModelSchedule): Schedule {
  const whole = {
    cron: null,
    everyMs: null,
    timeZone: "UTC",
    priority: 0,
    key: null,
    maxAttempts: null,
    overlap: "one",
    missed: "last",
    missedWindowMs: DAY,
    enabled: true,
    endAt: null,
    ...definition,
    nextAt,
    lastAt,
    lastBatchId: last?.batchId ?? null,
  };
  return whole as Schedule;
}

type Op = (world: World) => Promise<void> | void;

const pick = fc.nat({ max: 1000 });
const name = fc.constantFrom(...NAMES, "s", "s");
const optional = <T>(...values: T[]) => fc.constantFrom<T | undefined>(undefined, ...values);

/** Without the members that are undefined. */
function given<T extends object>(members: T): T {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as T;
}

/** What one run draws its schedules from: with little to draw from, things meet all the time. */
interface Profile {
  readonly rhythms: readonly Partial<Definition>[];
  readonly overlaps: readonly Definition["overlap"][];
  readonly missed: readonly Definition["missed"][];
}

const RHYTHMS: readonly Partial<Definition>[] = [
  ...[SECOND, 7 * SECOND, MINUTE, 10 * MINUTE, HOUR].map((everyMs) => ({ everyMs })),
  ...Object.keys(CRONS).map((cron) => (cron === INDIA.cron ? INDIA : { cron })),
];

const ALL: Profile = {
  rhythms: RHYTHMS,
  overlaps: [undefined, "skip", "one", "all"],
  missed: [undefined, "none", "last", "all"],
};
const profile: fc.Arbitrary<Profile> = fc.oneof(
  fc.constant(ALL),
  fc
    .record({
      rhythm: fc.constantFrom(...RHYTHMS),
      overlap: fc.constantFrom(...ALL.overlaps),
      missed: fc.constantFrom(...ALL.missed),
    })
    .map(({ rhythm, overlap, missed }) => ({ rhythms: [rhythm], overlaps: [overlap], missed: [missed] })),
);

const set = ({ rhythms, overlaps, missed }: Profile): fc.Arbitrary<Act> =>
  fc
    .record({
      name,
      rhythm: fc.constantFrom(...rhythms),
      overlap: fc.constantFrom(...overlaps),
      missed: fc.constantFrom(...missed),
      isOwn: fc.boolean(),
      version: fc.constantFrom(1, 1, 2),
      priority: optional(0, 5),
      key: optional("k"),
      maxAttempts: optional(1),
      missedWindowMs: optional(0, 5 * SECOND, MINUTE, HOUR, DAY),
      enabled: optional(true, true, false),
      endsIn: optional(undefined, undefined, -SECOND, 5 * SECOND, HOUR),
      timeZone: optional("UTC"),
    })
    .map(
      ({ rhythm, isOwn, version, endsIn, timeZone, name, ...drawn }): Act =>
        (model) => {
          const definition = given({
            name,
            queue: isOwn ? `of-${name}` : "all",
            payloads: [{ of: name, version }],
            timeZone,
            ...drawn,
            ...rhythm,
            endAt: endsIn === undefined ? undefined : model.wall + endsIn,
          }) as Definition;
          model.set(definition);
          const { definition: kept, nextAt, lastAt } = model.schedules.get(name) as ModelSchedule;
          const { queue, payloads } = kept;
          const result = { schedule: { name, queue, payloads, nextAt, lastAt } };
          return { method: "schedule.set", params: definition, result };
        },
    );

/** Sets a schedule as it is, saying all of it. */
const setAgain: fc.Arbitrary<Act> = name.map((name) => (model) => {
  const known = model.schedules.get(name);
  if (known === undefined) return undefined;
  const params = { ...known.definition };
  for (const [member, value] of Object.entries(shown(known)))
    if (value !== null && !/^(nextAt|last)/.test(member)) Object.assign(params, { [member]: value });
  return { method: "schedule.set", params, result: { schedule: { name, nextAt: known.nextAt } } };
});

const remove: fc.Arbitrary<Act> = name.map((name) => (model) => {
  const result = { deleted: model.schedules.delete(name) };
  return { method: "schedule.delete", params: { name }, result };
});

const runNow: fc.Arbitrary<Act> = name.map((name) => (model) => {
  const planned = { method: "schedule.run" as const, params: { name } };
  const schedule = model.schedules.get(name);
  if (schedule === undefined) return { ...planned, refusal: "not_found" };
  const made = model.run(schedule);
  return made === undefined ? { ...planned, refusal: "exhausted" } : { ...planned, made };
});

/** Puts in by hand what a schedule is about to. */
const putIn: fc.Arbitrary<Act> = fc
  .tuple(name, fc.nat({ max: 2 }), fc.constantFrom(1, 2))
  .map(([name, index, byHand]) => (model) => {
    const schedule = model.schedules.get(name);
    const at = schedule && model.timesOf(schedule, 3)[index];
    if (schedule === undefined || at === undefined) return undefined;
    const { queue } = schedule.definition;
    const payloads = [{ of: name, byHand }];
    const sourceKey = `schedule:${name}@${at}`;
    const planned = { method: "queue.enqueue" as const, params: { queue, payloads, sourceKey } };
    const known = model.inUse(queue, sourceKey);
    if (known !== undefined) {
      const isSame = JSON.stringify(known.content.payloads) === JSON.stringify(payloads);
      return isSame ? { ...planned, result: { created: false } } : { ...planned, refusal: "conflict" };
    }
    if (model.isFull(queue)) return { ...planned, refusal: "exhausted" };
    return { ...planned, made: model.add(name, queue, { payloads }, sourceKey, undefined) };
  });

/** Something that is done with one of the last batches. */
function about<T>(
  drawn: fc.Arbitrary<T>,
  act: (batch: ModelBatch, drawn: T, model: Model, world: World) => Planned | undefined,
) {
  return fc.tuple(pick, drawn).map(
    ([index, more]): Act =>
      (model, world) => {
        const batch = pickFrom(
          model.batches.filter(({ isRemoved }) => !isRemoved),
          index,
        );
        return batch && act(batch, more, model, world);
      },
  );
}

const claim = about(fc.constant(undefined), (batch) => {
  const params = { queue: batch.queue, batchIds: [batch.batchId], owner: "o", leaseMs: DAY };
  const { queue: _, ...named } = params;
  const planned = { method: "queue.claim" as const, params: named };
  if (batch.state !== "ready") return { ...planned, result: { claim: null } };
  batch.state = "claimed";
  return { ...planned, claimed: batch };
});

const finish = about(
  fc.constantFrom("completed", "completed", "dead", "ready"),
  (batch, state, model, { proofs }) => {
    const proof = proofs.get(batch.number);
    if (batch.state !== "claimed" || proof === undefined) return undefined;
    if (state === "ready") batch.state = "ready";
    else model.end(batch, state as "completed" | "dead");
    if (state === "completed") return { method: "queue.complete", params: proof, result: { completed: 1 } };
    const params = state === "dead" ? { ...proof, dead: true } : proof;
    return { method: "queue.abandon", params };
  },
);

const cancel = about(fc.constant(undefined), (batch, _, model) => {
  const { state, batchId } = batch;
  const isLeft = state === "claimed" || isOver(batch);
  if (!isLeft) model.end(batch, "cancelled");
  const result = { outcome: isLeft ? `already_${state}` : "cancelled" };
  return { method: "queue.cancel", params: { batchId }, result };
});

const retry = about(fc.constant(undefined), (batch, _, model) => {
  const { batchId } = batch;
  return model.retry(batch)
    ? { method: "queue.retry", params: { batchId }, result: { retried: 1 } }
    : undefined;
});

const purge = about(fc.constant(undefined), (batch, _, model) => {
  if (!isOver(batch)) return undefined;
  batch.isRemoved = model.mayRemove(batch);
  const result = { purged: Number(batch.isRemoved) };
  return { method: "queue.purge", params: { batchIds: [batch.batchId] }, result };
});

const move = about(fc.constantFrom(...QUEUES), (batch, to, model) => {
  if (batch.queue === to) return undefined;
  const moved = Number(model.move(batch, to));
  return { method: "queue.move", params: { batchIds: [batch.batchId], to }, result: { moved } };
});

const limit: fc.Arbitrary<Act> = fc
  .tuple(fc.constantFrom("of-s", "of-t"), fc.constantFrom(1, 1, 2, null))
  .map(([queue, maxWaiting]) => (model) => {
    if (maxWaiting === null) model.maxWaiting.delete(queue);
    else model.maxWaiting.set(queue, maxWaiting);
    return { method: "queue.configure", params: { queue, maxWaiting }, result: { settings: { maxWaiting } } };
  });

const fail: fc.Arbitrary<Act> = fc.constant(() => ({
  method: "queue.get",
  params: { batchId: "qwb:none" },
  refusal: "not_found",
}));

/** What a machine and its clocks go through at once. */
type Passage = (world: World) => void;

/** Times until the next occurrence of any, and a bit more or less. */
const untilNext: fc.Arbitrary<(model: Model) => number> = fc
  .constantFrom(-1, 0, 0, 1, IN_TIME_MS, IN_TIME_MS + 1, MINUTE)
  .map((more) => (model) => {
    const next = [...model.schedules.values()].flatMap(({ nextAt }) => nextAt ?? []);
    const ms = next.length === 0 ? SECOND : Math.max(0, Math.min(...next) - model.wall + more);
    return Math.min(ms, MOST_MS);
  });
const passing = fc.oneof(
  fc.constantFrom(SECOND, 9 * SECOND, MINUTE, HOUR, MOST_MS).map((ms) => () => ms),
  untilNext,
);
const stepMs = fc
  .constantFrom(2 * SECOND, 15 * SECOND, 10 * MINUTE, HOUR, 5 * HOUR, DAY, 365 * DAY)
  .chain((ms) => fc.constantFrom(ms, -ms));

const passed: fc.Arbitrary<Passage> = passing.map((msOf) => (world) => {
  const ms = msOf(world.model);
  world.note(`${ms} ms pass`);
  world.clocks.pass(ms);
});
const stepped: fc.Arbitrary<Passage> = stepMs.map((ms) => (world) => {
  world.note(`the clock is set by ${ms} ms`);
  world.clocks.step(ms);
});
const slept: fc.Arbitrary<Passage> = passing.map((msOf) => (world) => {
  const ms = msOf(world.model);
  world.note(`the machine sleeps ${ms} ms`);
  world.clocks.sleep(ms);
});
const rebooted: fc.Arbitrary<Passage> = fc
  .tuple(passing, fc.constantFrom(0, 0, HOUR, -HOUR, -5 * HOUR))
  .map(([msOf, step]) => (world) => {
    const ms = msOf(world.model);
    world.note(`the machine is off for ${ms} ms, and its clock is set by ${step} ms`);
    world.clocks.reboot(ms, step);
  });

const through = (passages: readonly Passage[]): Op => {
  return async (world) => {
    await world.renew();
    for (const each of passages) each(world);
  };
};

const alone = (act: fc.Arbitrary<Act>): fc.Arbitrary<Op> => act.map((each) => (world) => world.act(each));

/** What goes on while there is no daemon: over a boot, how far the clock was set counts as time that has passed. */
const meanwhile: fc.Arbitrary<Passage[]> = fc.oneof(
  fc.array(fc.oneof({ weight: 3, arbitrary: passed }, stepped, slept), { maxLength: 3 }),
  fc.tuple(passed, rebooted),
);

const restart: fc.Arbitrary<Op> = fc
  .tuple(meanwhile, fc.boolean())
  .map(([passages, isKilled]) => async (world) => {
    await world.renew();
    world.note(isKilled ? "the daemon is killed" : "the daemon ends");
    if (isKilled) world.pawl.crash();
    else world.pawl.close();
    for (const each of passages) each(world);
    world.begin();
  });

/** The daemon comes to each of the next occurrences in time. */
const live: fc.Arbitrary<Op> = fc.integer({ min: 1, max: 6 }).map((times) => async (world) => {
  for (let done = 0; done < times; done++) {
    const { schedules, wall } = world.model;
    const next = Math.min(...[...schedules.values()].map(({ nextAt }) => nextAt ?? Number.POSITIVE_INFINITY));
    await world.renew();
    world.clocks.pass(Math.min(next - wall, MOST_MS));
    world.note("so long nothing comes, or just now");
    await world.compare();
  }
});

const ofSchedules = (profile: Profile) => [
  { weight: 6, arbitrary: set(profile) },
  { weight: 1, arbitrary: setAgain },
  { weight: 1, arbitrary: remove },
  { weight: 1, arbitrary: runNow },
  { weight: 2, arbitrary: putIn },
  { weight: 7, arbitrary: claim },
  { weight: 5, arbitrary: finish },
  { weight: 2, arbitrary: cancel },
  { weight: 1, arbitrary: retry },
  { weight: 2, arbitrary: purge },
  { weight: 1, arbitrary: move },
  { weight: 2, arbitrary: limit },
];

const transact = (profile: Profile): fc.Arbitrary<Op> =>
  fc
    .tuple(
      fc.array(fc.oneof(...ofSchedules(profile), { weight: 3, arbitrary: fail }), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.constantFrom(false, false, true),
    )
    .map(
      ([acts, dryRun]) =>
        (world) =>
          world.transact(acts, dryRun),
    );

/** Operations of runs of which each is of one profile. */
function history(isRestarted: boolean): fc.Arbitrary<Op[]> {
  return profile.chain((drawn) => {
    const first = alone(set(drawn));
    const ops = fc.oneof(
      { weight: 20, arbitrary: alone(fc.oneof(...ofSchedules(drawn))) },
      { weight: 3, arbitrary: transact(drawn) },
      { weight: 5, arbitrary: live },
      {
        weight: 5,
        arbitrary: fc
          .array(fc.oneof({ weight: 3, arbitrary: passed }, stepped, slept), { minLength: 1, maxLength: 2 })
          .map(through),
      },
      { weight: isRestarted ? 4 : 0, arbitrary: restart },
    );
    return fc
      .tuple(first, fc.array(ops, { minLength: 20, maxLength: 50, size: "max" }))
      .map(([one, more]) => [one, ...more]);
  });
}

// In the long form alone, until a claim that a `transact` makes anew is proved there by its own token and not by the
// one before.
test.skipIf(!TORTURE).each([
  ["a store that answers at once", InProcess, false, ":memory:", 20],
  ["restarts", InProcess, true, undefined, 4],
  ["a store that answers later", AsynchronousInProcess, true, undefined, 2],
] as const)(
  "with %s all is as the model says",
  { timeout: 900_000 },
  async (_, Daemon, isRestarted, path, runs) => {
    await fc.assert(
      fc.asyncProperty(history(isRestarted), async (drawn) => await replay(new World(Daemon, path), drawn)),
      { numRuns: sized(40 * runs, runs), asyncReporter: report, endOnFailure: true },
    );
  },
);
