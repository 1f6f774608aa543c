// Reservations of paths against a model that is too simple to be wrong: whatever is asked for in whatever order, no two
// hold a path that one of them writes, all patterns are granted or none, and whoever waits is served in the order of
// arrival as far as requests overlap, and at once when nothing is in the way (spec: lease.md).
import { setImmediate as nextLoop } from "node:timers/promises";
import type { Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AsynchronousInProcess } from "../asynchronous.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";

const ROOT = "/tree";
const CONNECTIONS = [1, 2, 3];
const RESTART_GRACE_MS = 5000;
const FOR_EVER = Number.POSITIVE_INFINITY;

/** What each pattern means, in other words. */
const MEANINGS = {
  "src/": /^src\/.+$/,
  "src/a*": /^src\/a[^/]*$/,
  "src/a": /^src\/a$/,
  "*/b": /^[^/]+\/b$/,
  "**/b": /^(.+\/)?b$/,
  "docs/**": /^docs(\/.+)?$/,
  "docs/[ab]": /^docs\/[ab]$/,
  x: /^x$/,
} as const;
type Pattern = keyof typeof MEANINGS;
const PATTERNS = Object.keys(MEANINGS) as Pattern[];
/** Where any two of them that meet do. */
const PATHS = [
  "src/a",
  "src/ab",
  "src/b",
  "src/c",
  "docs",
  "docs/a",
  "docs/b",
  "docs/c/b",
  "x",
  "x/b",
  "b",
  "src/a/b",
];

interface Request {
  readonly patterns: readonly Pattern[];
  readonly mode: "write" | "read";
  readonly ttlMs: number;
  readonly bound: boolean;
  readonly graceMs: number;
  readonly connection: number;
}

type Reservation = Result<"path.reserve">["reservation"];

interface Held {
  readonly owner: string;
  readonly mode: "write" | "read";
  readonly reservationId: string;
  readonly graceMs: number;
  patterns: readonly Pattern[];
  fencingToken: number;
  /** Undefined if it does not end with one; null while nobody is there. */
  connection: number | null | undefined;
  expiresAt: number;
  graceEndsAt: number;
}

interface Waiter {
  readonly request: Request;
  /** Undefined until it is answered. */
  answer: Reservation | Error | undefined;
}

type Wanted = Pick<Request, "patterns" | "mode">;

function overlap(a: Wanted, b: Wanted): boolean {
  const both = (path: string): boolean => isFor(a.patterns, path) && isFor(b.patterns, path);
  return (a.mode === "write" || b.mode === "write") && PATHS.some(both);
}

function isFor(patterns: readonly Pattern[], path: string): boolean {
  return patterns.some((pattern) => MEANINGS[pattern].test(path));
}

function show({ patterns, mode }: Wanted): string {
  return `${mode} ${patterns.join(" ")}`;
}

/** What the daemon has to do, by the words of the specification. */
class Model {
  now = 0;
  held: Held[] = [];
  waiting: Waiter[] = [];
  highest = 0;

  isFree(wanted: Wanted, own?: Held): boolean {
    return this.held.every((held) => held === own || !overlap(held, wanted));
  }

  isBehind(wanted: Wanted, before = this.waiting.length): boolean {
    return this.waiting.slice(0, before).some(({ request }) => overlap(request, wanted));
  }

  /** As `isBehind`, but for those who wait for this holder themselves. */
  isBehindOthers(wanted: Wanted, own: Held): boolean {
    const stuck: Wanted[] = [own];
    return this.waiting.some(({ request }) => {
      if (!stuck.some((each) => overlap(each, request))) return overlap(request, wanted);
      stuck.push(request);
      return false;
    });
  }

  takeToken(token: number, before = this.highest): void {
    expect(token).toBeGreaterThan(before);
    expect(this.held.filter(({ fencingToken }) => fencingToken === token)).toEqual([]);
    this.highest = Math.max(this.highest, token);
  }

  /** @param before the highest token of before what made room for it. */
  grant(
    request: Request,
    { reservationId, patterns, mode, fencingToken }: Reservation,
    before = this.highest,
  ): void {
    expect({ patterns, mode }).toEqual({ patterns: request.patterns, mode: request.mode });
    this.takeToken(fencingToken, before);
    this.held.push({
      owner: show(request),
      mode,
      reservationId,
      graceMs: request.graceMs,
      patterns: request.patterns,
      fencingToken,
      connection: request.bound ? request.connection : undefined,
      expiresAt: this.now + request.ttlMs,
      graceEndsAt: FOR_EVER,
    });
  }

  renew(held: Held, ttlMs: number, by: number): void {
    held.expiresAt = this.now + ttlMs;
    held.graceEndsAt = FOR_EVER;
    if (held.connection === null) held.connection = by;
  }

  disconnect(connection: number): void {
    this.waiting = this.waiting.filter(({ request }) => request.connection !== connection);
    for (const held of this.held) {
      if (held.connection === connection) this.leave(held, held.graceMs);
    }
    this.pass(0);
  }

  restart(): void {
    this.waiting = [];
    for (const held of this.held) {
      if (held.connection !== undefined) this.leave(held, Math.max(RESTART_GRACE_MS, held.graceMs));
    }
  }

  leave(held: Held, graceMs: number): void {
    held.connection = null;
    held.graceEndsAt = this.now + graceMs;
  }

  pass(ms: number): void {
    this.now += ms;
    this.held = this.held.filter(({ expiresAt, graceEndsAt }) => Math.min(expiresAt, graceEndsAt) > this.now);
  }

  /**
   * What becomes of those who wait, one after the other as they came; compared with what the daemon has done. Of holds
   * that end at the same time one ends first, and who waited only for that has a lower token than who came before.
   */
  settle(): void {
    const before = this.highest;
    const known = this.held.length;
    for (let index = 0; index < this.waiting.length; ) {
      const { request, answer } = this.waiting[index] as Waiter;
      if (answer instanceof Error) throw answer;
      if (this.isBehind(request, index) || !this.isFree(request)) {
        expect(answer, `${show(request)} is granted, and something is in its way`).toBeUndefined();
        index += 1;
        continue;
      }
      expect(answer, `${show(request)} waits, and nothing is in its way`).toBeDefined();
      this.grant(request, answer as Reservation, before);
      this.waiting.splice(index, 1);
    }
    // They are listed in the order in which they were granted.
    this.held.push(...this.held.splice(known).sort((a, b) => a.fencingToken - b.fencingToken));
  }
}

class World {
  readonly time = new Clocks();
  readonly model = new Model();
  readonly #Daemon: typeof InProcess;
  pawl: InProcess;
  #tasks = 0;

  constructor(Daemon: typeof InProcess) {
    this.#Daemon = Daemon;
    this.pawl = new Daemon({ time: this.time });
  }

  restart(): void {
    const { path } = this.pawl;
    this.pawl.close();
    this.pawl = new this.#Daemon({ time: this.time, path });
    this.model.restart();
  }

  async reserve(request: Request, waitMs: number): Promise<Reservation> {
    const { patterns, mode, ttlMs, bound, graceMs, connection } = request;
    const how = bound ? { releaseOn: "disconnect" as const, graceMs } : {};
    // Each by itself: circles of waits have a test of their own.
    const terms = { root: ROOT, owner: show(request), task: `task ${++this.#tasks}`, ttlMs, waitMs };
    const params = { ...terms, patterns: [...patterns], mode, ...how };
    return (await this.pawl.call("path.reserve", params, connection)).reservation;
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
    const { reservations } = await pawl.call("path.list", { root: ROOT });
    expect(reservations).toMatchObject(
      model.held.map(({ owner, mode, patterns, fencingToken }) => ({ owner, mode, patterns, fencingToken })),
    );
    expect(reservations).toHaveLength(model.held.length);
    for (const path of PATHS) {
      const { allowed, holders } = await pawl.call("path.check", { root: ROOT, path });
      const expected = model.held.filter(({ patterns }) => isFor(patterns, path));
      expect(holders.map(({ owner }) => owner)).toEqual(expected.map(({ owner }) => owner));
      expect(allowed).toBe(expected.length === 0);
    }
  }
}

type Op = (world: World) => Promise<void> | void;

const connection = fc.constantFrom(...CONNECTIONS);
const patterns = fc.shuffledSubarray(PATTERNS, { minLength: 1, maxLength: 3 });
const request: fc.Arbitrary<Request> = fc
  .record({
    patterns,
    mode: fc.constantFrom("write" as const, "read" as const),
    ttlMs: fc.constantFrom(1000, 60_000),
    bound: fc.boolean(),
    graceMs: fc.constantFrom(0, 0, 2000, 20_000),
    connection,
  })
  .map((each) => ({ ...each, graceMs: each.bound ? each.graceMs : 0 }));

const reserve = request.map(
  (asked): Op =>
    async (world) => {
      const { model } = world;
      const answer = await world.reserve(asked, 0).catch((error: Error) => error);
      if (!model.isBehind(asked) && model.isFree(asked)) {
        if (answer instanceof Error) throw answer;
        return model.grant(asked, answer);
      }
      expect(answer).toMatchObject({ kind: "lease_held" });
      const { holders } = (answer as PawlError).details as { holders: { owner: string }[] };
      const inTheWay = model.held.filter((held) => overlap(held, asked)).map(({ owner }) => owner);
      if (!model.isBehind(asked)) expect(holders.map(({ owner }) => owner)).toEqual(inTheWay);
    },
);

const wait = request.map(
  (asked): Op =>
    async (world) => {
      const waiter: Waiter = { request: asked, answer: undefined };
      world.reserve(asked, 3_600_000).then(
        (reservation) => {
          waiter.answer = reservation;
        },
        (error: Error) => {
          waiter.answer = error;
        },
      );
      await world.untilAnswered();
      world.model.waiting.push(waiter);
    },
);

/** What is about a reservation that is held. */
function about(
  perform: (held: Held, of: { by: number; some: readonly Pattern[] }, world: World) => Promise<void>,
): fc.Arbitrary<Op> {
  return fc.record({ index: fc.nat(), by: connection, some: patterns }).map(
    ({ index, ...of }): Op =>
      async (world) => {
        const { held } = world.model;
        if (held.length > 0) await perform(held[index % held.length] as Held, of, world);
      },
  );
}

const release = about(async (held, { by }, { model, pawl }) => {
  const { reservationId } = held;
  expect(await pawl.call("path.release", { reservationId }, by)).toEqual({ released: true, patterns: [] });
  model.held = model.held.filter((each) => each !== held);
  await expect(pawl.call("path.heartbeat", { reservationId })).rejects.toMatchObject({ kind: "lease_lost" });
});

const giveBack = about(async (held, { by, some }, { model, pawl }) => {
  const { reservationId } = held;
  const left = held.patterns.filter((pattern) => !some.includes(pattern));
  expect(await pawl.call("path.release", { reservationId, patterns: [...some] }, by)).toEqual({
    released: left.length < held.patterns.length,
    patterns: left,
  });
  held.patterns = left;
  model.held = model.held.filter(({ patterns: rest }) => rest.length > 0);
});

const add = about(async (held, { by, some }, { model, pawl }) => {
  const { reservationId, owner, mode } = held;
  const added = some.filter((pattern) => !held.patterns.includes(pattern));
  const wanted = { patterns: added, mode };
  const params = { root: ROOT, patterns: [...some], owner, reservationId, ttlMs: 30_000 };
  const answer = await pawl.call("path.reserve", params, by).catch((error: Error) => error);
  if (model.isBehindOthers(wanted, held) || !model.isFree(wanted, held))
    return expect(answer).toMatchObject({ kind: "lease_held" });
  if (answer instanceof Error) throw answer;
  held.patterns = [...held.patterns, ...added];
  expect(answer.reservation.patterns).toEqual(held.patterns);
  if (added.length > 0) model.takeToken(answer.reservation.fencingToken);
  held.fencingToken = answer.reservation.fencingToken;
  model.renew(held, 30_000, by);
});

const heartbeat = about(async (held, { by }, { model, pawl }) => {
  const { reservationId } = held;
  await pawl.call("path.heartbeat", { reservationId, ttlMs: 20_000 }, by);
  model.renew(held, 20_000, by);
});

const pass = fc.constantFrom(0, 999, 1000, 5000, 30_000).map(
  (ms): Op =>
    ({ time, model }) => {
      time.pass(ms);
      model.pass(ms);
    },
);
const disconnect = connection.map(
  (number): Op =>
    ({ pawl, model }) => {
      pawl.disconnect(number);
      model.disconnect(number);
    },
);
const restart = fc.constant<Op>((world) => world.restart());

const op = fc.oneof(
  { weight: 4, arbitrary: reserve },
  { weight: 6, arbitrary: wait },
  { weight: 4, arbitrary: release },
  { weight: 2, arbitrary: giveBack },
  { weight: 2, arbitrary: add },
  { weight: 1, arbitrary: heartbeat },
  { weight: 1, arbitrary: pass },
  { weight: 1, arbitrary: disconnect },
  { weight: 1, arbitrary: restart },
);

test.each([
  ["a store that answers at once", InProcess],
  ["a store that answers later", AsynchronousInProcess],
])("%s: as the model says", { timeout: 900_000 }, async (_, Daemon) => {
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 20, maxLength: 40, size: "max" }), async (ops) => {
      const world = new World(Daemon);
      for (const each of ops) {
        await each(world);
        await world.compare();
      }
      world.pawl.close();
    }),
    { numRuns: sized(1000, 8) },
  );
});
