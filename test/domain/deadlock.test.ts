// Waits that would never end: who closes a circle is refused, and nobody else is; where only the order of arrival
// closes one, the later request is granted first (spec: lease.md, who waits for whom).
import type { Params } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Store } from "../../daemon/dist/store/store.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";

const ROOT = "/tree";
const WAIT_MS = 3_600_000;
/** No requests of a test have so much to be done together, however little of that a turn does. */
const MAX_TURNS = 3000;

type Thing = { name: string; slots?: number; mode?: "exclusive" | "shared" } | { names: string[] } | Paths;
interface Paths {
  patterns: string[];
  mode?: "write" | "read";
}
type Answer = { secret: string } | PawlError | undefined;

/** A daemon, and processes that ask it, each over a connection of its own. */
class World {
  readonly pawl: InProcess;
  #turns = 0;

  /** @param turnMs how many milliseconds each turn has; as of the daemon, unless given. */
  constructor(parents: Readonly<Record<number, number>> = {}, turnMs?: () => number) {
    this.pawl = new InProcess({
      path: ":memory:",
      ...(turnMs === undefined ? {} : { turnMs }),
      processes: true,
      parentOf: (pid) => parents[pid],
      arrivals: {
        beginTurn: {
          value: () => {
            this.#turns += 1;
          },
        },
      },
    });
  }

  /** Asks for something, and says what came of it once all that can be answered is. */
  async ask(actor: number, thing: Thing & { root?: string }, more: object = {}): Promise<{ answer: Answer }> {
    const result: { answer: Answer } = { answer: undefined };
    const terms = { owner: `p${actor}`, waitMs: WAIT_MS, ...more };
    const asked =
      "patterns" in thing
        ? this.pawl
            .call("path.reserve", { root: ROOT, ...thing, ...terms }, actor)
            .then(({ reservation }) => reservation.reservationId)
        : this.pawl
            .call("lease.acquire", { ...thing, ...terms } as Params<"lease.acquire">, actor)
            .then((granted) => {
              const all = granted as unknown as {
                lease?: { leaseId: string };
                leases?: { leaseId: string }[];
              };
              return (all.lease ?? all.leases?.[0])?.leaseId as string;
            });
    asked.then(
      (secret) => {
        result.answer = { secret };
      },
      (error: PawlError) => {
        result.answer = error;
      },
    );
    await this.settled();
    return result;
  }

  /** What a turn has no time left for is in the next, which begins at once: until none does. */
  async settled(): Promise<void> {
    await this.pawl.call("daemon.ping", {}, 999).catch(() => {});
    const before = this.#turns;
    for (let turns = -1; turns !== this.#turns; ) {
      turns = this.#turns;
      if (turns > before + MAX_TURNS) throw new Error("turns go on for ever");
      // The first may come before the turn, the second does not.
      for (const _ of [1, 2]) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async has(actor: number, thing: Thing, more: object = {}): Promise<string> {
    const { answer } = await this.ask(actor, thing, more);
    if (answer === undefined || answer instanceof Error) throw answer ?? new Error(`p${actor} waits`);
    return answer.secret;
  }

  async waits(actor: number, thing: Thing, more: object = {}): Promise<{ answer: Answer }> {
    const asked = await this.ask(actor, thing, more);
    if (asked.answer instanceof Error) throw asked.answer;
    expect(asked.answer).toBeUndefined();
    return asked;
  }

  /** Asks for something that would close a circle; returns the processes in it. */
  async closes(actor: number, thing: Thing, more: object = {}): Promise<(number | null)[]> {
    const { answer } = await this.ask(actor, thing, more);
    expect(answer).toMatchObject({ kind: "would_deadlock", retryable: false });
    const { cycle } = (answer as Extract<PawlError, { kind: "would_deadlock" }>).details;
    return cycle.map(({ pid }) => pid);
  }

  async giveBack(secret: string): Promise<void> {
    if (secret.startsWith("path_")) await this.pawl.call("path.release", { reservationId: secret });
    else await this.pawl.call("lease.release", { leaseId: secret });
    await this.settled();
  }
}

/** A thing of its own for each number: a lease or a pattern, in turn. */
function thing(index: number): Thing {
  return index % 2 === 0 ? { name: `lease-${index}` } : { patterns: [`src/${index}/`] };
}

describe("a circle of waits", () => {
  test.each([2, 3, 10])(
    "of %i over leases and paths is refused to the last one, with the circle",
    async (size) => {
      const world = new World();
      const held: string[] = [];
      for (let actor = 1; actor <= size; actor += 1) held.push(await world.has(actor, thing(actor)));
      const waiting = [];
      for (let actor = 1; actor < size; actor += 1) waiting.push(await world.waits(actor, thing(actor + 1)));
      const circle = [size, ...Array.from({ length: size - 1 }, (_, index) => index + 1)];
      expect(await world.closes(size, thing(1))).toEqual(circle);
      // All others wait on, and are served once the last one gives back what it has.
      for (const { answer } of waiting) expect(answer).toBeUndefined();
      for (let actor = size; actor > 1; actor -= 1) {
        await world.giveBack(held[actor - 1] as string);
        const { answer } = waiting[actor - 2] as { answer: Answer };
        expect(answer).toHaveProperty("secret");
        await world.giveBack((answer as { secret: string }).secret);
      }
    },
  );

  test("says who waits for what", async () => {
    const world = new World();
    await world.has(1, { name: "a" }, { task: "import", owner: "importer" });
    await world.has(2, { patterns: ["src/"] }, { owner: "agent" });
    await world.waits(1, { patterns: ["src/a.ts"] }, { task: "import", owner: "importer" });
    const { answer } = await world.ask(2, { name: "a" }, { owner: "agent" });
    expect(answer).toMatchObject({
      message:
        'To wait for the lease "a" would close a circle of waits: it is held by "importer" (pid 1), who waits for "src/" in "/tree", held by "agent" (pid 2). Give back what others wait for first, or ask for all of it at once.',
      details: {
        cycle: [
          { pid: 2, owner: "agent", waitsFor: { kind: "lease", name: "a" } },
          {
            pid: 1,
            owner: "importer",
            task: "import",
            waitsFor: { kind: "path", root: ROOT, pattern: "src/" },
          },
        ],
      },
    });
  });

  test("of one is never refused", async () => {
    const world = new World();
    await world.has(1, { name: "a" });
    await world.has(1, { patterns: ["src/"] });
    await world.waits(1, { name: "a" });
    await world.waits(1, { patterns: ["src/*"] });
  });

  test("is none between tasks of one process, but for those that are in it", async () => {
    const world = new World();
    await world.has(1, { name: "a" }, { task: "one" });
    await world.has(2, { name: "b" });
    await world.waits(1, { name: "b" }, { task: "two" });
    await world.waits(2, { name: "a" });
    const three = new World();
    await three.has(1, { name: "a" }, { task: "one" });
    await three.has(1, { name: "b" }, { task: "two" });
    await three.waits(1, { name: "b" }, { task: "one" });
    expect(await three.closes(1, { name: "a" }, { task: "two" })).toEqual([1, 1]);
  });

  test("is none while a slot may come free", async () => {
    const world = new World();
    await world.pawl.call("lease.configure", { name: "pool", slots: 2 });
    await world.has(1, { name: "a" });
    await world.has(2, { name: "pool" });
    await world.has(3, { name: "pool" });
    await world.waits(2, { name: "a" });
    await world.waits(1, { name: "pool" });
    expect(await world.closes(3, { name: "a" })).toEqual([3, 1]);
  });

  test("is closed by each reader that a writer waits for", async () => {
    const world = new World();
    const shared = { name: "data", mode: "shared" } as const;
    await world.has(1, shared);
    await world.has(2, shared);
    await world.has(3, { name: "a" });
    await world.waits(1, { name: "a" });
    expect(await world.closes(3, { name: "data" })).toEqual([3, 1]);
    // Two who share it, and both want it alone.
    await world.waits(2, { name: "data" });
    const two = new World();
    await two.has(1, shared);
    await two.has(2, shared);
    await two.waits(1, { name: "data" });
    expect(await two.closes(2, { name: "data" })).toEqual([2, 1]);
  });

  test("is told with the owner of each hold, where a process holds and waits under several", async () => {
    const world = new World();
    await world.has(1, { name: "other" }, { owner: "first" });
    await world.has(1, { name: "a" }, { owner: "holder of a" });
    await world.has(2, { patterns: ["src/"] }, { owner: "holder of src" });
    await world.has(2, { name: "b" }, { owner: "holder of b" });
    await world.waits(1, { name: "b" }, { owner: "waiter for b" });
    const { answer } = await world.ask(2, { names: ["free", "a"] }, { owner: "asks" });
    expect((answer as PawlError).message).toMatch(
      /it is held by "holder of a" \(pid 1\), who waits for the lease "b", held by "holder of b" \(pid 2\)\./,
    );
  });

  test("is closed by one of several names", async () => {
    const world = new World();
    await world.has(1, { names: ["a", "b"] });
    await world.has(2, { name: "c" });
    await world.waits(1, { name: "c" });
    expect(await world.closes(2, { names: ["b", "free"] })).toEqual([2, 1]);
    await world.has(2, { name: "free" });
  });
});

describe("a grant that would close a circle", () => {
  const paths: Thing = { patterns: ["src/"] };
  test.each<[string, Thing, Thing]>([
    ["leases", { name: "a" }, { name: "b" }],
    ["paths", paths, { patterns: ["docs/"] }],
    ["both", paths, { name: "b" }],
  ])("of %s comes after the one who waits behind it, and nobody is refused", async (_, a, b) => {
    const world = new World();
    const first = await world.has(3, a);
    // The first waits for two things at a time; the second has the one, and comes later for the other.
    const second = await world.has(2, b);
    const outer = await world.waits(1, a);
    const inner = await world.waits(1, b);
    const other = await world.waits(2, a);
    await world.giveBack(first);
    expect(other.answer).toHaveProperty("secret");
    expect([outer.answer, inner.answer]).toEqual([undefined, undefined]);
    await world.giveBack((other.answer as { secret: string }).secret);
    expect(outer.answer).toHaveProperty("secret");
    expect(inner.answer).toBeUndefined();
    await world.giveBack(second);
    expect(inner.answer).toHaveProperty("secret");
  });

  test("ends a wait of the one who is granted it, where the others cannot be let first", async () => {
    const world = new World();
    const first = await world.has(3, { name: "a" });
    await world.has(2, { name: "b" });
    await world.has(4, { name: "c" });
    const granted = await world.waits(1, { name: "a" });
    const inner = await world.waits(1, { name: "b" });
    // What it wants beside is taken.
    const other = await world.waits(2, { names: ["a", "c"] });
    await world.giveBack(first);
    expect(granted.answer).toHaveProperty("secret");
    expect(inner.answer).toMatchObject({
      kind: "would_deadlock",
      details: { cycle: [{ pid: 1 }, { pid: 2 }] },
    });
    expect(other.answer).toBeUndefined();
  });
});

describe("what a wait costs", () => {
  test("is a few statements where many wait for the same, and no look at processes", async () => {
    const asked: number[] = [];
    const steps: string[] = [];
    const pawl = new InProcess({
      path: ":memory:",
      processes: true,
      parentOf: (pid) => {
        asked.push(pid);
        return undefined;
      },
      wrap: (store) => counting(store, steps),
    });
    const acquire = async (actor: number): Promise<number> => {
      steps.length = 0;
      void pawl.call("lease.acquire", { name: "hot", owner: "o", waitMs: WAIT_MS }, actor).catch(() => {});
      await pawl.call("daemon.ping", {}, 999).catch(() => {});
      return steps.length;
    };
    const granted = await acquire(1);
    const first = await acquire(2);
    const counts: number[] = [];
    for (let actor = 3; actor < 70; actor += 1) counts.push(await acquire(actor));
    // As ever: a look at the holders, the token, the lease.
    expect(granted).toBe(3);
    // The holders; whether anybody awaits children, of leases and of paths. Nobody else waits.
    expect(first).toBe(3);
    // The same, but for the holders, who are asked for once in the search, however many wait.
    expect([...new Set(counts)]).toEqual([3]);
    expect(asked).toEqual([]);
    // Where somebody awaits children, each is asked for once.
    await pawl.call("lease.acquire", { name: "other", owner: "o", awaitsChildren: true }, 500);
    for (let actor = 70; actor < 80; actor += 1) await acquire(actor);
    expect(new Set(asked).size).toBe(asked.length);
  });

  test("asks for some hundred holders where many names have many", async () => {
    const steps: string[] = [];
    const pawl = new InProcess({
      path: ":memory:",
      processes: true,
      wrap: (store) => counting(store, steps),
    });
    const names = (layer: number): string[] => Array.from({ length: 64 }, (_, at) => `hot ${layer} ${at}`);
    const layers = 6;
    for (let layer = 0; layer < layers; layer += 1)
      for (let actor = 1; actor <= 16; actor += 1)
        await pawl.call(
          "lease.acquire",
          { names: names(layer), owner: "o", mode: "shared" },
          100 * layer + actor,
        );
    // One of each layer waits for all of the next.
    for (let layer = layers - 2; layer >= 0; layer -= 1) {
      steps.length = 0;
      const wanted = { names: names(layer + 1), owner: "o", waitMs: WAIT_MS };
      void pawl.call("lease.acquire", wanted, 100 * layer + 1).catch(() => {});
      await pawl.call("daemon.ping", {}, 999).catch(() => {});
      // By the order of arrival and without it, some 1,000 holders each.
      expect(steps.filter((sql) => sql.includes("on_loss, lost_at, capacity")).length).toBeLessThan(2 * 60);
    }
  });
});

/** A store whose statements are told. */
function counting(store: Store, steps: string[]): Store {
  return new Proxy(store, {
    get(target, key) {
      const value = Reflect.get(target, key, target) as unknown;
      if (key !== "perform") return typeof value === "function" ? value.bind(target) : value;
      return (operation: Operation<unknown>) => target.perform(counted(operation, steps));
    },
  });
}

/** An operation whose statements are told. */
function* counted<T>(operation: Operation<T>, steps: string[]): Operation<T> {
  let step = operation.next();
  while (!step.done) {
    const { statement, params } = step.value;
    // Those that are about this lease, or about who awaits children: not the ends of each turn.
    if (String(params.name).startsWith("hot") || statement.sql.includes("awaits_children ="))
      steps.push(statement.sql);
    step = operation.next(yield step.value);
  }
  return step.value;
}

describe("the order of arrival", () => {
  test("lets a holder in that an earlier one waits for", async () => {
    const world = new World();
    const held = await world.has(1, { name: "a" });
    const both = await world.waits(2, { names: ["a", "b"] });
    const inner = await world.has(1, { name: "b" });
    expect(both.answer).toBeUndefined();
    await world.giveBack(inner);
    await world.giveBack(held);
    expect(both.answer).toHaveProperty("secret");
  });

  test("keeps others behind that nobody waits for", async () => {
    const world = new World();
    await world.has(1, { name: "a" });
    await world.waits(2, { names: ["a", "b"] });
    await world.waits(3, { name: "b" });
    await world.has(1, { name: "b" });
  });

  test("lets a reader in again before a writer that waits for it", async () => {
    const world = new World();
    await world.has(1, { name: "data", mode: "shared" });
    await world.waits(2, { name: "data" });
    await world.waits(3, { name: "data", mode: "shared" });
    await world.has(1, { name: "data", mode: "shared" });
  });

  test("lets in who takes more slots while another waits for all", async () => {
    const world = new World();
    await world.pawl.call("lease.configure", { name: "pool", slots: 3 });
    await world.has(1, { name: "pool" });
    await world.waits(2, { name: "pool", slots: 3 });
    await world.waits(3, { name: "pool" });
    await world.has(1, { name: "pool" });
  });

  test("lets one in once what it wants comes free", async () => {
    const world = new World();
    await world.has(1, { name: "a" });
    const other = await world.has(3, { name: "b" });
    const both = await world.waits(2, { names: ["a", "b"] });
    const inner = await world.waits(1, { name: "b" });
    await world.giveBack(other);
    expect(inner.answer).toHaveProperty("secret");
    expect(both.answer).toBeUndefined();
  });

  test("lets one in that waits behind another, once somebody who holds more waits for it", async () => {
    const world = new World();
    await world.has(1, { name: "a" });
    await world.has(3, { name: "c" });
    // Behind the second by order alone.
    await world.waits(2, { names: ["a", "b"] });
    const behind = await world.waits(3, { name: "b" });
    // The first waits for the third, so the second does, too.
    await world.waits(1, { name: "c" });
    expect(behind.answer).toHaveProperty("secret");
  });

  test("of paths is the same", async () => {
    const world = new World();
    await world.has(1, { patterns: ["src/"] });
    await world.waits(2, { patterns: ["src/a", "test/"] });
    await world.waits(3, { patterns: ["test/b"] });
    await world.has(1, { patterns: ["test/*"] });
    await world.has(4, { name: "lease" });
    await world.waits(1, { name: "lease" });
    expect(await world.closes(4, { patterns: ["src/c"] })).toEqual([4, 1]);
    // Behind the second and the third, who wait for the first, who waits for it.
    await world.has(4, { patterns: ["docs/"] });
  });

  test("of paths lets one in once what it wants comes free", async () => {
    const world = new World();
    await world.has(1, { patterns: ["src/"] });
    const other = await world.has(3, { patterns: ["test/x"] });
    const both = await world.waits(2, { patterns: ["src/a", "test/"] });
    const inner = await world.waits(1, { patterns: ["test/x"] });
    await world.giveBack(other);
    expect(inner.answer).toHaveProperty("secret");
    expect(both.answer).toBeUndefined();
  });
});

describe("a hold that awaits the children of its process", () => {
  const parents = { 11: 10, 12: 11 };
  const awaits = { awaitsChildren: true };

  test("waits for what they wait for", async () => {
    for (const held of [{ name: "a" }, { patterns: ["src/"] }]) {
      const world = new World(parents);
      await world.has(10, held, awaits);
      await world.has(2, { name: "b" });
      await world.waits(12, { name: "b" });
      expect(await world.closes(2, held)).toEqual([2, 10, 12]);
    }
  });

  test("waits for nothing of theirs without that", async () => {
    const world = new World(parents);
    await world.has(10, { name: "a" });
    await world.has(10, { name: "other" }, { ...awaits, task: "other" });
    await world.has(2, { name: "b" });
    await world.waits(12, { name: "b" });
    await world.waits(2, { name: "a" });
  });

  test("is refused to a child that waits for its parent, and to no other wait of that", async () => {
    for (const isChildFirst of [true, false]) {
      const world = new World({ ...parents, 13: 10 });
      const first = await world.has(1, { name: "a" });
      await world.has(2, { name: "b" });
      await world.has(3, { name: "c" });
      await world.has(12, { name: "d" });
      const granted = await world.waits(10, { name: "a" }, awaits);
      const ask = {
        // What it wants beside is taken, so it cannot be let first.
        child: () => world.waits(12, { names: ["a", "c"] }),
        // Waits for that child.
        other: () => world.waits(13, { name: "d" }),
        own: () => world.waits(10, { name: "b" }),
      };
      const asked: Partial<Record<keyof typeof ask, { answer: Answer }>> = {};
      for (const each of isChildFirst
        ? (["child", "other", "own"] as const)
        : (["own", "other", "child"] as const))
        asked[each] = await ask[each]();
      await world.giveBack(first);
      expect(granted.answer).toHaveProperty("secret");
      expect(asked.child?.answer).toMatchObject({
        kind: "would_deadlock",
        details: { cycle: [{ pid: 12 }, { pid: 10 }] },
      });
      expect(asked.own?.answer).toBeUndefined();
      expect(asked.other?.answer).toBeUndefined();
    }
  });

  test("is refused to each wait of a child that waits for its parent", async () => {
    const world = new World(parents);
    const first = await world.has(1, { name: "a" });
    await world.has(3, { name: "c" });
    await world.has(4, { name: "d" });
    const granted = await world.waits(10, { name: "a" }, awaits);
    const asked = [
      await world.waits(12, { names: ["a", "c"] }),
      await world.waits(12, { names: ["a", "d"] }),
    ];
    await world.giveBack(first);
    expect(granted.answer).toHaveProperty("secret");
    for (const { answer } of asked) expect(answer).toMatchObject({ kind: "would_deadlock" });
  });

  test("is not to be had by a child, which would wait for ever", async () => {
    const world = new World(parents);
    await world.has(10, { name: "a" }, awaits);
    expect(await world.closes(12, { name: "a" })).toEqual([12, 10]);
    await world.waits(13, { name: "a" });
  });

  test("has its children overtake those that wait for it", async () => {
    const world = new World(parents);
    await world.has(10, { name: "a" }, awaits);
    await world.waits(2, { names: ["a", "b"] });
    await world.has(12, { name: "b" });
  });

  test("may come after its child began to wait", async () => {
    const world = new World(parents);
    await world.has(2, { name: "b" });
    await world.waits(12, { name: "b" });
    await world.has(10, { name: "a" }, awaits);
    expect(await world.closes(2, { name: "a" })).toEqual([2, 10, 12]);
  });
});

/** A history of processes that take and wait, each for one thing at a time. */
interface Asked {
  readonly actor: number;
  readonly thing: Thing;
}

const CAPACITY: Readonly<Record<string, number>> = { one: 1, two: 1, three: 3 };
const name = fc.constantFrom("one", "two", "three");
const exclusive = name.chain((each) =>
  fc.integer({ min: 1, max: CAPACITY[each] as number }).map((slots): Thing => ({ name: each, slots })),
);
const asked: fc.Arbitrary<Asked> = fc.record({
  actor: fc.integer({ min: 1, max: 5 }),
  thing: fc.oneof(
    exclusive,
    name.map((each): Thing => ({ name: each, mode: "shared" })),
    fc.shuffledSubarray(["one", "two", "three"], { minLength: 2 }).map((names): Thing => ({ names })),
    fc
      .record({
        patterns: fc.shuffledSubarray(["src/", "src/a", "*/a", "docs/b"], { minLength: 1, maxLength: 2 }),
        mode: fc.constantFrom<"write" | "read">("write", "write", "read"),
      })
      .map((paths): Thing => paths),
  ),
});

/** The paths that the patterns of a history fit. */
const FITTED: Readonly<Record<string, readonly string[]>> = {
  "src/": ["src/a", "src/b"],
  "src/a": ["src/a"],
  "*/a": ["src/a", "docs/a"],
  "docs/b": ["docs/b"],
};

/** How much a thing takes of each of its parts, and how much of it there is. */
function partsOf(of: Thing): { part: string; isShared: boolean; slots: number; room: number }[] {
  if ("patterns" in of) {
    const paths = new Set(of.patterns.flatMap((pattern) => FITTED[pattern] as readonly string[]));
    return [...paths].map((part) => ({ part, isShared: of.mode === "read", slots: 1, room: 1 }));
  }
  const names = "names" in of ? of.names : [of.name];
  const isShared = "mode" in of && of.mode === "shared";
  const slots = "slots" in of ? (of.slots ?? 1) : 1;
  return names.map((part) => ({ part, isShared, slots, room: CAPACITY[part] as number }));
}

type Part = ReturnType<typeof partsOf>[number];

/** True if something is to be had beside what is held. */
function isFree(of: Thing, held: readonly Thing[]): boolean {
  const parts = held.flatMap(partsOf);
  return partsOf(of).every((part) => hasRoom(part, parts));
}

function hasRoom({ part, isShared, slots, room }: Part, held: readonly Part[]): boolean {
  const taken = held.filter((each) => each.part === part);
  if (taken.length === 0 || (isShared && taken.every((each) => each.isShared))) return true;
  if (isShared || taken.some((each) => each.isShared)) return false;
  return taken.reduce((sum, each) => sum + each.slots, 0) + slots <= room;
}

/** True if all can be done in some order: whoever has what it waits for is, and gives all back. */
function canEnd(held: ReadonlyMap<number, readonly Thing[]>, waits: ReadonlyMap<number, Thing>): boolean {
  const left = new Set([...held.keys(), ...waits.keys()]);
  for (let size = -1; size !== left.size; ) {
    size = left.size;
    for (const actor of left) {
      const others = [...left].filter((each) => each !== actor).flatMap((each) => held.get(each) ?? []);
      const [own, theirs] = [(held.get(actor) ?? []).flatMap(partsOf), others.flatMap(partsOf)];
      const wanted = waits.get(actor);
      // To wait for oneself alone is no circle.
      const isOver = (part: Part) => hasRoom(part, hasRoom(part, own) ? [...own, ...theirs] : theirs);
      if (wanted === undefined || partsOf(wanted).every(isOver)) left.delete(actor);
    }
  }
  return left.size === 0;
}

/** The same thing in a history of its own. */
function within(history: number, of: Thing): Thing & { root?: string } {
  const nameIn = (each: string): string => `${each} ${history}`;
  if ("patterns" in of) return { root: `/tree/${history}`, ...of };
  return "names" in of ? { names: of.names.map(nameIn) } : { ...of, name: nameIn(of.name) };
}

/** One history of processes that wait for one thing at a time, each as the rules have it; and the end of all waits. */
class History {
  readonly world: World;
  readonly number: number;
  readonly held = new Map<number, Thing[]>();
  readonly secrets = new Map<number, string[]>();
  readonly waits = new Map<number, { thing: Thing; asked: { answer: Answer } }>();
  refused = 0;
  waited = 0;

  constructor(world: World, number: number) {
    this.world = world;
    this.number = number;
  }

  /** What was granted meanwhile is held from now on. */
  settle(): void {
    for (const [actor, { thing: of, asked: result }] of this.waits) {
      if (result.answer === undefined) continue;
      if (result.answer instanceof Error) throw result.answer;
      this.waits.delete(actor);
      this.held.set(actor, [...(this.held.get(actor) ?? []), of]);
      this.secrets.set(actor, [...(this.secrets.get(actor) ?? []), result.answer.secret]);
    }
  }

  async ask(actor: number, of: Thing): Promise<void> {
    if (this.waits.has(actor)) return;
    const waits = new Map([...this.waits].map(([each, { thing: wanted }]) => [each, wanted]));
    const wouldEnd = canEnd(this.held, waits.set(actor, of));
    const result = await this.world.ask(actor, within(this.number, of));
    if (result.answer instanceof Error) {
      expect(result.answer).toMatchObject({ kind: "would_deadlock" });
      expect(wouldEnd, "it is refused, and could end").toBe(false);
      this.refused += 1;
      return;
    }
    if (result.answer === undefined) {
      expect(wouldEnd, "it waits, and can never end").toBe(true);
      this.waited += 1;
    } else expect(isFree(of, [...this.held.values()].flat())).toBe(true);
    this.waits.set(actor, { thing: of, asked: result });
    this.settle();
  }

  /** Whoever waits for nothing gives all back, until nobody waits: but for those who wait for themselves. */
  async end(): Promise<void> {
    for (let isMore = true; isMore; ) {
      isMore = false;
      for (const [actor, all] of this.secrets) {
        if (this.waits.has(actor) || all.length === 0) continue;
        isMore = true;
        this.secrets.set(actor, []);
        this.held.delete(actor);
        for (const secret of all) await this.world.giveBack(secret);
        this.settle();
      }
    }
    const own = [...this.waits].filter(([actor, { thing: of }]) => !isFree(of, this.held.get(actor) ?? []));
    for (const [actor, { thing: of }] of this.waits)
      expect(own.length, `p${actor} waits for ${JSON.stringify(of)} for ever`).toBeGreaterThan(0);
    for (const actor of this.waits.keys()) this.world.pawl.disconnect(actor);
    for (const secret of [...this.secrets.values()].flat()) await this.world.giveBack(secret);
    await this.world.settled();
  }
}

test("in any history a wait is refused where it could never end, and all others end", async () => {
  const world = new World();
  const [refused, waited]: number[][] = [[], []];
  let number = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(asked, { minLength: 4, maxLength: 16 }), async (all) => {
      const history = new History(world, ++number);
      await world.pawl.call("lease.configure", { name: `three ${number}`, slots: 3 });
      for (const { actor, thing: of } of all) await history.ask(actor, of);
      await history.end();
      refused?.push(history.refused);
      waited?.push(history.waited);
    }),
    { numRuns: sized(20_000, 1000) },
  );
  const sum = (counts: number[] = []): number => counts.reduce((total, count) => total + count, 0);
  // There is something to refuse, and more that is not.
  expect(sum(refused)).toBeGreaterThan(100);
  expect(sum(waited)).toBeGreaterThan(sum(refused));
}, 1_800_000);

test("a hold that comes between two waits of a turn counts for the second", async () => {
  const world = new World({ 11: 10 });
  await world.has(9, { name: "any" }, { awaitsChildren: true });
  for (const [actor, held] of [
    [2, "a"],
    [5, "b"],
    [10, "c"],
  ] as const)
    await world.has(actor, { name: held });
  await world.waits(11, { name: "a" });
  const first = world.ask(5, { name: "c" });
  const held = world.ask(10, { name: "d" }, { awaitsChildren: true });
  expect(await world.closes(2, { name: "b" })).toEqual([2, 5, 10, 11]);
  expect((await held).answer).toHaveProperty("secret");
  expect((await first).answer).toBeUndefined();
});

const FAMILY: Readonly<Record<number, number>> = { 3: 2, 4: 2, 5: 4 };
const HELD_BEFORE = 4;
/** No time but for what a turn does in any case. */
const NO_TIME = Number.NEGATIVE_INFINITY;
const ALL_TIME = Number.POSITIVE_INFINITY;

interface Request {
  readonly actor: number;
  readonly thing: Thing;
  readonly result: Promise<{ answer: Answer }>;
  answer: Answer;
  isGivenBack: boolean;
}

/** Requests that come one after the other, in turns of their own or the later ones all at once. */
async function requested(world: World, all: readonly Asked[], together: boolean): Promise<Request[]> {
  await world.pawl.call("lease.configure", { name: "three", slots: 3 });
  const requests: Request[] = [];
  for (const [index, { actor, thing: of }] of all.entries()) {
    // Two and four hold for their children, too.
    const result = world.ask(actor, of, { task: `${actor % 2}`, awaitsChildren: actor % 2 === 0 });
    const request: Request = { actor, thing: of, result, answer: undefined, isGivenBack: false };
    requests.push(request);
    const isBefore = index < HELD_BEFORE;
    if (isBefore || !together) await result;
    if (isBefore) request.answer = (await result).answer;
    // What was granted before they came is given back between them.
    const first = requests.find(({ answer, isGivenBack }) => isHeld(answer) && !isGivenBack);
    if (index <= HELD_BEFORE || index % 3 !== 0 || first === undefined) continue;
    first.isGivenBack = true;
    const given = world.giveBack((first.answer as { secret: string }).secret);
    if (!together) await given;
  }
  for (const request of requests) await request.result;
  await world.settled();
  for (const request of requests) request.answer = (await request.result).answer;
  return requests;
}

function isHeld(answer: Answer): answer is { secret: string } {
  return answer !== undefined && !(answer instanceof Error);
}

/** What came of each request. */
async function outcomesOf(all: readonly Asked[], together: boolean, turnMs: () => number): Promise<string[]> {
  const world = new World(FAMILY, turnMs);
  const requests = await requested(world, all, together);
  world.pawl.close();
  return requests.map(({ answer }) =>
    answer === undefined ? "waits" : answer instanceof Error ? answer.kind : "has it",
  );
}

test("waits that begin in one turn are refused as those that begin in turns of their own", async () => {
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(asked, { minLength: 4, maxLength: 24 }), async (all) => {
      const apart = await outcomesOf(all, false, () => ALL_TIME);
      expect(await outcomesOf(all, true, () => ALL_TIME)).toEqual(apart);
      if (apart.includes("would_deadlock")) refused += 1;
    }),
    { numRuns: sized(3000, 30) },
  );
  expect(refused).toBeGreaterThan(0);
}, 1_800_000);

test("waits are refused in turns that have no time as in those that have", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(asked, { minLength: 4, maxLength: 24 }), async (all) => {
      expect(await outcomesOf(all, false, () => NO_TIME)).toEqual(
        await outcomesOf(all, false, () => ALL_TIME),
      );
    }),
    { numRuns: sized(3000, 12) },
  );
}, 1_800_000);

/** Whose children an actor is, the nearest first. */
function ancestorsIn(family: Readonly<Record<number, number>>, actor: number): number[] {
  const parent = family[actor];
  return parent === undefined ? [] : [parent, ...ancestorsIn(family, parent)];
}

/** Whoever waits for nothing, and awaits nobody who does, gives all back, until nobody waits. */
async function endAll(world: World, requests: readonly Request[]): Promise<void> {
  const held = (actor: number): Request[] =>
    requests.filter((each) => each.actor === actor && isHeld(each.answer) && !each.isGivenBack);
  const waits = (actor: number): Request[] =>
    requests.filter((each) => each.actor === actor && each.answer === undefined);
  const awaitsOthers = (actor: number): boolean =>
    actor % 2 === 0 &&
    requests.some((each) => each.answer === undefined && ancestorsIn(FAMILY, each.actor).includes(actor));
  for (let isMore = true; isMore; ) {
    isMore = false;
    const actors = [...new Set(requests.map(({ actor }) => actor))].filter((actor) => held(actor).length > 0);
    const free = actors.filter((actor) => waits(actor).length === 0 && !awaitsOthers(actor));
    // To wait for oneself is no circle, and ends by one's own doing.
    const own = actors.filter((actor) =>
      waits(actor).some(
        ({ thing: of }) =>
          !isFree(
            of,
            held(actor).map((each) => each.thing),
          ),
      ),
    );
    for (const actor of free.length > 0 ? free : own) {
      for (const each of held(actor)) {
        isMore = true;
        each.isGivenBack = true;
        await world.giveBack((each.answer as { secret: string }).secret);
      }
    }
    for (const each of requests) each.answer = (await each.result).answer;
  }
  expect(
    requests.filter(({ answer }) => answer === undefined),
    "they wait for ever",
  ).toEqual([]);
}

test("of waits that begin together none is for ever, however little time turns have", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(asked, { minLength: 4, maxLength: 24 }),
      fc.infiniteStream(fc.constantFrom(NO_TIME, NO_TIME, NO_TIME, ALL_TIME)),
      async (all, turns) => {
        const world = new World(FAMILY, () => turns.next().value as number);
        await endAll(world, await requested(world, all, true));
        world.pawl.close();
      },
    ),
    { numRuns: sized(3000, 30) },
  );
}, 1_800_000);
