// Leases against a model that is too simple to be wrong: whatever is asked for in whatever order, nobody holds more
// than there is, no member has two holders, several names are granted all or none, and whoever waits is served in the
// order of arrival as far as requests overlap, and at once when nothing is in the way (spec: lease.md).
import { setImmediate as nextLoop } from "node:timers/promises";
import type { Params } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import type { Lease } from "@pawl/protocol/types";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { AsynchronousInProcess } from "../asynchronous.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized, TORTURE } from "../long-form.js";

const NAMES = ["a", "b", "c"] as const;
const CONNECTIONS = [1, 2, 3];
const RESTART_GRACE_MS = 5000;
const POOL = ["x", "y", "z"];
const LONG_WAIT_MS = 3_600_000;
const FOR_EVER = Number.POSITIVE_INFINITY;

type Name = (typeof NAMES)[number];
type Mode = "exclusive" | "shared";

interface Request {
  readonly names: readonly Name[];
  readonly mode: Mode;
  readonly slots: number;
  readonly ttlMs: number;
  readonly bound: boolean;
  readonly graceMs: number;
  readonly connection: number;
}

interface Held {
  readonly request: Request;
  readonly leaseId: string;
  readonly parts: ReadonlyMap<string, Lease>;
  /** Undefined if it does not end with one; null while nobody is there. */
  connection: number | null | undefined;
  expiresAt: number;
  graceEndsAt: number;
}

interface Waiter {
  readonly request: Request;
  /** Undefined until it is answered. */
  answer: readonly Lease[] | PawlError | undefined;
}

/** What the daemon has to do, by the words of the specification. */
class Model {
  now: number;
  held: Held[] = [];
  waiting: Waiter[] = [];
  readonly slots: Record<Name, number> = { a: 1, b: 3, c: 3 };
  readonly pools: Record<Name, readonly string[] | undefined> = { a: undefined, b: undefined, c: POOL };
  readonly highest: Record<Name, number> = { a: 0, b: 0, c: 0 };

  constructor(now: number) {
    this.now = now;
  }

  holders(name: Name): Held[] {
    return this.held
      .filter(({ parts }) => parts.has(name))
      .sort((a, b) => tokenOf(a, name) - tokenOf(b, name));
  }

  taken(name: Name): number {
    return this.holders(name).reduce((sum, { request }) => sum + request.slots, 0);
  }

  free(name: Name): number {
    if (this.holders(name).some(({ request }) => request.mode === "shared")) return 0;
    return Math.max(0, this.slots[name] - this.taken(name));
  }

  isPossible({ names, slots }: Request): boolean {
    return names.every((name) => slots <= this.slots[name]);
  }

  hasRoom({ names, mode, slots }: Request): boolean {
    return names.every((name) => {
      const holders = this.holders(name);
      if (holders.length === 0) return true;
      if (mode === "shared") return holders.every(({ request }) => request.mode === "shared");
      return slots <= this.free(name);
    });
  }

  /** Whether somebody came before who waits and wants what overlaps. */
  isBehind(request: Request, before = this.waiting.length): boolean {
    return this.waiting.slice(0, before).some(({ request: earlier }) => overlap(earlier, request));
  }

  /**
   * What is granted holds all that it asked for, and nothing that anybody else has.
   *
   * @param before the highest tokens before others that were granted at the same moment: those that share a name have
   * theirs in any order.
   */
  grant(
    request: Request,
    leases: readonly Lease[],
    before: Readonly<Record<Name, number>> = this.highest,
  ): void {
    expect(leases.map(({ name }) => name)).toEqual(request.names);
    expect(new Set(leases.map(({ leaseId }) => leaseId)).size).toBe(1);
    for (const lease of leases) {
      const name = lease.name as Name;
      const floor = request.mode === "shared" ? before[name] : this.highest[name];
      expect(lease.fencingToken).toBeGreaterThan(floor);
      expect(this.holders(name).map((held) => tokenOf(held, name))).not.toContain(lease.fencingToken);
      this.highest[name] = Math.max(this.highest[name], lease.fencingToken);
      expect(lease).toMatchObject({ mode: request.mode, slots: request.slots });
      const pool = request.mode === "shared" ? undefined : this.pools[name];
      expect(lease.members?.length).toBe(pool === undefined ? undefined : request.slots);
      const others = this.holders(name).flatMap(({ parts }) => parts.get(name)?.members ?? []);
      for (const member of lease.members ?? []) {
        expect(pool).toContain(member);
        expect(others).not.toContain(member);
      }
    }
    this.held.push({
      request,
      leaseId: (leases[0] as Lease).leaseId,
      parts: new Map(leases.map((lease) => [lease.name, lease])),
      connection: request.bound ? request.connection : undefined,
      expiresAt: this.now + request.ttlMs,
      graceEndsAt: FOR_EVER,
    });
  }

  end(ends: (held: Held) => boolean): void {
    this.held = this.held.filter((held) => !ends(held));
  }

  disconnect(connection: number): void {
    this.waiting = this.waiting.filter(({ request }) => request.connection !== connection);
    for (const held of this.held) {
      if (held.connection !== connection) continue;
      held.connection = null;
      held.graceEndsAt = this.now + held.request.graceMs;
    }
    this.pass(0);
  }

  restart(): void {
    this.waiting = [];
    for (const held of this.held) {
      if (held.connection === undefined) continue;
      held.connection = null;
      held.graceEndsAt = this.now + Math.max(RESTART_GRACE_MS, held.request.graceMs);
    }
  }

  pass(ms: number): void {
    this.now += ms;
    this.end(({ expiresAt, graceEndsAt }) => Math.min(expiresAt, graceEndsAt) <= this.now);
  }

  /** What becomes of those who wait, one after the other as they came; compared with what the daemon has done. */
  settle(): void {
    const before = { ...this.highest };
    for (let index = 0; index < this.waiting.length; ) {
      const waiter = this.waiting[index] as Waiter;
      const { request, answer } = waiter;
      const isBehind = this.isBehind(request, index);
      if (!this.isPossible(request) && (!isBehind || answer !== undefined)) {
        expect(answer, show(request)).toMatchObject({ kind: "invalid_params" });
      } else if (!isBehind && this.hasRoom(request)) {
        expect(answer, `${show(request)} waits, and nothing is in its way`).toBeInstanceOf(Array);
        this.grant(request, answer as readonly Lease[], before);
      } else {
        expect(answer, `${show(request)} is answered, and something is in its way`).toBeUndefined();
        index += 1;
        continue;
      }
      this.waiting.splice(index, 1);
    }
  }
}

function tokenOf({ parts }: Held, name: Name): number {
  return parts.get(name)?.fencingToken as number;
}

function overlap(a: Request, b: Request): boolean {
  return (a.mode !== "shared" || b.mode !== "shared") && a.names.some((name) => b.names.includes(name));
}

function show({ names, mode, slots }: Request): string {
  return `${names.join("+")} ${mode}${slots === 1 ? "" : ` ${slots} slots`}`;
}

class World {
  readonly time = new Clocks();
  readonly model = new Model(0);
  readonly #Daemon: typeof InProcess;
  pawl: InProcess;
  #tasks = 0;

  constructor(Daemon: typeof InProcess, path: string | undefined) {
    this.#Daemon = Daemon;
    this.pawl = new Daemon({ time: this.time, ...(path === undefined ? {} : { path }) });
  }

  restart(): void {
    const { path } = this.pawl;
    this.pawl.close();
    this.pawl = new this.#Daemon({ time: this.time, path });
    this.model.restart();
  }

  async acquire(request: Request, wait: boolean): Promise<readonly Lease[]> {
    const { names, mode, slots, ttlMs, bound, graceMs, connection } = request;
    const params = {
      owner: show(request),
      // Each by itself: circles of waits have a test of their own.
      task: `task ${++this.#tasks}`,
      mode,
      ...(mode === "shared" ? {} : { slots }),
      ttlMs,
      ...(bound ? { releaseOn: "disconnect" as const, graceMs } : {}),
      ...(wait ? { waitMs: LONG_WAIT_MS } : {}),
    };
    if (names.length > 1) {
      return (await this.pawl.call("lease.acquire", { names: [...names], ...params }, connection)).leases;
    }
    return [(await this.pawl.call("lease.acquire", { name: names[0] as Name, ...params }, connection)).lease];
  }

  /** All that can be answered now is answered, and those who asked know. */
  async untilAnswered(): Promise<void> {
    await this.pawl.call("daemon.ping", {});
    await nextLoop();
  }

  /** Asserts that all that can be seen is as in the model. */
  async compare(): Promise<void> {
    const { model, pawl } = this;
    await this.untilAnswered();
    model.settle();
    for (const name of NAMES) {
      const holders = model.holders(name);
      const shown = await pawl.call("lease.get", { name });
      expect(shown.holders).toMatchObject(
        holders.map(({ request: { mode }, parts }) => {
          const { fencingToken, owner, members } = parts.get(name) as Lease;
          return { name, owner, fencingToken, mode, ...(members === undefined ? {} : { members }) };
        }),
      );
      expect(shown.holders).toHaveLength(holders.length);
      expect(shown.lease).toEqual(shown.holders[0] ?? null);
      expect(shown).toMatchObject({ slots: model.slots[name], free: model.free(name) });
      const waiters = model.waiting.filter(({ request }) => request.names.includes(name)).length;
      for (const holder of shown.holders) expect(holder.waiters).toBe(waiters);
      expect((await pawl.call("lease.check", { name, fencingToken: 1 })).highest).toBe(model.highest[name]);
    }
    const { leases } = await pawl.call("lease.list", {});
    expect(leases).toHaveLength(model.held.reduce((sum, { parts }) => sum + parts.size, 0));
  }
}

type Op = (world: World) => Promise<void> | void;

const name = fc.constantFrom(...NAMES);
const connection = fc.constantFrom(...CONNECTIONS);
const request: fc.Arbitrary<Request> = fc
  .record({
    names: fc.oneof(
      { weight: 2, arbitrary: name.map((each) => [each]) },
      { weight: 1, arbitrary: fc.shuffledSubarray([...NAMES], { minLength: 2 }) },
    ),
    mode: fc.constantFrom<Mode>("exclusive", "exclusive", "shared"),
    slots: fc.constantFrom(1, 1, 1, 2, 3),
    ttlMs: fc.constantFrom(1000, 60_000),
    bound: fc.boolean(),
    graceMs: fc.constantFrom(0, 0, 2000, 20_000),
    connection,
  })
  .map((each) => ({
    ...each,
    slots: each.mode === "shared" ? 1 : each.slots,
    graceMs: each.bound ? each.graceMs : 0,
  }));

const acquire = request.map(
  (asked): Op =>
    async (world) => {
      const { model } = world;
      const answer = await world.acquire(asked, false).catch((error: unknown) => error);
      if (!model.isPossible(asked)) return expect(answer).toMatchObject({ kind: "invalid_params" });
      if (!model.isBehind(asked) && model.hasRoom(asked)) {
        if (answer instanceof Error) throw answer;
        return model.grant(asked, answer as readonly Lease[]);
      }
      expect(answer).toMatchObject({ kind: "lease_held" });
      const { holder, holders } = (answer as PawlError).details as { holder: object; holders: object[] };
      if (holders.length > 0) expect(holders[0]).toEqual(holder);
      const all = asked.names.map((each) => model.holders(each).map(({ request: of }) => show(of)));
      expect([[], ...all]).toContainEqual(holders.map((each) => (each as { owner: string }).owner));
    },
);

const wait = request.map(
  (asked): Op =>
    async (world) => {
      const { model } = world;
      const waiter: Waiter = { request: asked, answer: undefined };
      world.acquire(asked, true).then(
        (leases) => {
          waiter.answer = leases;
        },
        (error: PawlError) => {
          waiter.answer = error;
        },
      );
      await world.untilAnswered();
      if (!model.isPossible(asked)) return expect(waiter.answer).toMatchObject({ kind: "invalid_params" });
      model.waiting.push(waiter);
    },
);

/** What is about a lease that is held, or one that no longer is. */
function about(perform: (held: Held, connection: number, world: World) => Promise<void>): fc.Arbitrary<Op> {
  return fc.record({ index: fc.nat(), by: connection }).map(
    ({ index, by }): Op =>
      async (world) => {
        const { held } = world.model;
        if (held.length > 0) await perform(held[index % held.length] as Held, by, world);
      },
  );
}

const release = about(async ({ leaseId }, by, { model, pawl }) => {
  expect(await pawl.call("lease.release", { leaseId }, by)).toEqual({ released: true });
  model.end((held) => held.leaseId === leaseId);
  await expect(pawl.call("lease.heartbeat", { leaseId })).rejects.toMatchObject({ kind: "lease_lost" });
});

const heartbeat = about(async (held, by, { model, pawl }) => {
  const { leaseId, request: of } = held;
  const { remainingMs } = await pawl.call("lease.heartbeat", { leaseId, note: "renewed" }, by);
  expect(remainingMs).toBe(of.ttlMs);
  held.expiresAt = model.now + of.ttlMs;
  held.graceEndsAt = FOR_EVER;
  if (held.connection === null) held.connection = by;
});

const breakOne = about(async ({ leaseId, parts }, by, { model, pawl }) => {
  const { name: of, fencingToken } = [...parts.values()].at(-1) as Lease;
  expect(await pawl.call("lease.break", { name: of, fencingToken, reason: "why" }, by)).toEqual({
    broken: true,
  });
  model.end((held) => held.leaseId === leaseId);
});

const breakAll = name.map(
  (of): Op =>
    async ({ model, pawl }) => {
      const broken = model.holders(of).length > 0;
      expect(await pawl.call("lease.break", { name: of, reason: "why" })).toEqual({ broken });
      model.end(({ parts }) => parts.has(of));
    },
);

const guarded = fc.record({ of: name, back: fc.nat({ max: 2 }), asked: request }).map(
  ({ of, back, asked }): Op =>
    async ({ model, pawl }) => {
      const fencingToken = Math.max(1, model.highest[of] - back);
      const isHeld = model.holders(of).some((held) => tokenOf(held, of) === fencingToken);
      const guards = [{ lease: { name: of, fencingToken } }];
      const { names, mode, slots } = asked;
      const params = { names: [...names], owner: "try", mode, ...(mode === "shared" ? {} : { slots }) };
      // A try is undone by the turn loop, which does not perform the calls of the other driver.
      const dryRun = !(pawl instanceof AsynchronousInProcess);
      const calls = dryRun
        ? [{ method: "lease.acquire" as const, params }]
        : [{ method: "lease.get" as const, params: { name: of } }];
      const answer = await pawl.call("transact", { calls, guards, dryRun }).catch((error: unknown) => error);
      if (!isHeld) return expect(answer).toMatchObject({ kind: "lease_lost" });
      if (!dryRun) return expect(answer).toMatchObject({ results: [{ lease: { name: of } }] });
      if (!model.isPossible(asked)) return expect(answer).toMatchObject({ kind: "invalid_params" });
      if (model.isBehind(asked) || !model.hasRoom(asked))
        return expect(answer).toMatchObject({ kind: "lease_held" });
      const granted = names.map((each) => ({ name: each, leaseId: "dry-run" }));
      expect(answer).toMatchObject({ results: [{ leases: granted }] });
    },
);

const configure = fc
  .record({
    of: name,
    what: fc.constantFrom<{ slots?: number; members?: string[] }>(
      { slots: 1 },
      { slots: 2 },
      { slots: 4 },
      { members: ["x", "y"] },
      { members: ["v", "w", "x"] },
      {},
    ),
  })
  .map(
    ({ of, what }): Op =>
      async ({ model, pawl }) => {
        const { slots, members } = what;
        if (members !== undefined || slots !== undefined) {
          model.slots[of] = members?.length ?? slots ?? 1;
          model.pools[of] = members;
        }
        const pool = model.pools[of];
        expect(
          await pawl.call("lease.configure", { name: of, ...what } as Params<"lease.configure">),
        ).toEqual({
          name: of,
          slots: model.slots[of],
          ...(pool === undefined ? {} : { members: pool }),
        });
      },
  );

const pass = fc.constantFrom(1, 999, 3000, 30_000).map(
  (ms): Op =>
    async ({ time, model, pawl }) => {
      time.pass(ms);
      await pawl.call("daemon.ping", {});
      model.pass(ms);
    },
);

const disconnect = connection.map(
  (number): Op =>
    ({ model, pawl }) => {
      pawl.disconnect(number);
      model.disconnect(number);
    },
);

const op = fc.oneof(
  { weight: 8, arbitrary: wait },
  { weight: 5, arbitrary: acquire },
  { weight: 6, arbitrary: release },
  { weight: 2, arbitrary: heartbeat },
  { weight: 1, arbitrary: breakOne },
  { weight: 1, arbitrary: breakAll },
  { weight: 3, arbitrary: configure },
  { weight: 2, arbitrary: guarded },
  { weight: 2, arbitrary: pass },
  { weight: 2, arbitrary: disconnect },
);
const opOrRestart = fc.oneof(
  { weight: 15, arbitrary: op },
  { weight: 1, arbitrary: fc.constant<Op>((world) => world.restart()) },
);

/** What the runs came upon, so that none of it is missing by chance. */
const seen = { waits: 0, granted: 0, behind: 0 };
afterAll(() => {
  for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0);
});

async function follow(ops: readonly Op[], Daemon: typeof InProcess, path?: string): Promise<void> {
  const world = new World(Daemon, path);
  try {
    await world.pawl.call("lease.configure", { name: "b", slots: 3 });
    await world.pawl.call("lease.configure", { name: "c", members: POOL });
    for (const each of ops) {
      const before = world.model.waiting.length;
      await each(world);
      const { waiting } = world.model;
      const behind = waiting.filter(
        ({ request: of }, index) => world.model.isBehind(of, index) && world.model.hasRoom(of),
      );
      seen.waits += waiting.length;
      seen.behind += behind.length;
      await world.compare();
      seen.granted += Math.max(0, before - world.model.waiting.length);
    }
    expect(world.pawl.rolledBack).toEqual([]);
  } finally {
    world.pawl.close();
  }
}

test.each([
  ["", op, InProcess, ":memory:", 15],
  [", also across restarts", opOrRestart, InProcess, undefined, 4],
  [", driven with awaits between the steps", opOrRestart, AsynchronousInProcess, undefined, 2],
])(
  "whatever is asked for, the rules hold%s",
  async (_, arbitrary, Daemon, path, runs) => {
    await fc.assert(
      fc.asyncProperty(fc.array(arbitrary, { minLength: 20, maxLength: 50, size: "max" }), (ops) =>
        follow(ops, Daemon, path),
      ),
      { numRuns: sized(runs * 100, runs), interruptAfterTimeLimit: sized(180_000, 10_000) },
    );
  },
  TORTURE ? 300_000 : 60_000,
);
