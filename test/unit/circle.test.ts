// The rules of circles of waits, against somebody who tries every order in which holders could be done.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  circleThrough,
  type Need,
  type Needs,
  type Step,
  stuckIn,
  tangledWith,
} from "../../daemon/dist/domain/deadlock/circle.js";
import { sized } from "../long-form.js";

const ACTORS = ["A", "B", "C", "D", "E"] as const;

function need(held: Record<string, number>, spare = 0): Need {
  return { held: new Map(Object.entries(held)), spare, about: Object.keys(held).join() };
}

/** A graph by the needs of each actor. */
function graph(needs: Record<string, Need[]>): Needs {
  return new Map(Object.entries(needs));
}

function actorsOf(steps: readonly { actor: string }[] | undefined): string[] | undefined {
  return steps?.map(({ actor }) => actor);
}

describe("a circle of waits", () => {
  test.each([2, 3, 10])("of %i is found from each of them, and ends where it begins", (size) => {
    const names = Array.from({ length: size }, (_, index) => `actor ${index}`);
    const needs = new Map(
      names.map((name, index) => [name, [need({ [names[(index + 1) % size] as string]: 1 })]]),
    );
    for (const [index, name] of names.entries()) {
      expect(actorsOf(circleThrough(needs, name))).toEqual([...names.slice(index), ...names.slice(0, index)]);
    }
    // Without any one of the waits there is none.
    for (const left of names) {
      const others = new Map([...needs].filter(([name]) => name !== left));
      for (const name of names) expect(circleThrough(others, name)).toBeUndefined();
    }
  });

  test("of many who need the same of many is found by few looks at each need", () => {
    let looks = 0;
    class Counted extends Map<string, number> {
      override get(key: string) {
        looks += 1;
        return super.get(key);
      }
      override has(key: string) {
        looks += 1;
        return super.has(key);
      }
      override *keys(): MapIterator<string> {
        for (const key of super.keys()) {
          looks += 1;
          yield key;
        }
      }
      override *[Symbol.iterator](): MapIterator<[string, number]> {
        for (const entry of super.entries()) {
          looks += 1;
          yield entry;
        }
      }
    }
    const [actors, names, holders] = [256, 64, 64];
    const actor = (index: number): string => `actor ${index % actors}`;
    const all = Array.from({ length: names }, (_, name) => ({
      held: new Counted(Array.from({ length: holders }, (_, holder) => [actor(name + 3 * holder), 1])),
      spare: 0,
      about: name,
    }));
    looks = 0;
    const needs = new Map(Array.from({ length: actors }, (_, index) => [actor(index), all]));
    expect(circleThrough(needs, actor(5))).toHaveLength(2);
    expect(tangledWith(needs, actor(5)).size).toBe(253);
    // Some for each actor and need of it, and for each need and holder of it; not for each of an actor's.
    expect(looks).toBeLessThan(10 * (actors * names + names * holders));
  });

  test("of one is none", () => {
    expect(circleThrough(graph({ A: [need({ A: 1 })] }), "A")).toBeUndefined();
    expect(stuckIn(graph({ A: [need({ A: 1 })] }))).toEqual(new Set());
  });

  test("counts what one has of what one wants more of", () => {
    // Of three slots A has two and B one: one more for A is that of B.
    const more = need({ A: 2, B: 1 }, 2);
    expect(actorsOf(circleThrough(graph({ A: [more], B: [need({ A: 1 })] }), "B"))).toEqual(["B", "A"]);
  });

  test("is none while one of several holders can be done, and is one when all of them wait", () => {
    const slots = need({ B: 1, C: 1 }, 1);
    expect(circleThrough(graph({ A: [slots], B: [need({ A: 1 })] }), "A")).toBeUndefined();
    const all = graph({ A: [slots], B: [need({ A: 1 })], C: [need({ B: 1 })] });
    expect(actorsOf(circleThrough(all, "A"))).toEqual(["A", "B"]);
  });

  test("is not told to who only waits for those in it", () => {
    const needs = graph({ A: [need({ B: 1 })], B: [need({ A: 1 })], C: [need({ A: 1 })] });
    expect(circleThrough(needs, "C")).toBeUndefined();
    expect(stuckIn(needs)).toEqual(new Set(["A", "B", "C"]));
    expect(tangledWith(needs, "C")).toEqual(new Set(["C"]));
    expect(tangledWith(needs, "A")).toEqual(new Set(["A", "B"]));
  });

  test("makes those stuck that wait for one who is never done", () => {
    const needs = graph({ B: [need({ A: 1 })], C: [need({ B: 1, D: 1 }, 1)], E: [need({ B: 1 })] });
    expect(stuckIn(needs, "A")).toEqual(new Set(["A", "B", "E"]));
  });
});

/** A request in a history: so much of a thing, where others may hold the rest. */
interface Asked {
  readonly actor: number;
  readonly wants: readonly { readonly thing: number; readonly slots: number }[];
}

/** What each thing has room for. */
const ROOM = [1, 1, 2, 3];

const asked: fc.Arbitrary<Asked> = fc.record({
  actor: fc.nat({ max: ACTORS.length - 1 }),
  wants: fc
    .uniqueArray(fc.nat({ max: ROOM.length - 1 }), { minLength: 1, maxLength: 2 })
    .chain((things) =>
      fc.tuple(
        ...things.map((thing) =>
          fc.record({ thing: fc.constant(thing), slots: fc.integer({ min: 1, max: ROOM[thing] as number }) }),
        ),
      ),
    ),
});

/** What actors hold and what they wait for; an actor that waits asks for nothing else. */
class World {
  readonly held = ROOM.map(() => new Map<string, number>());
  readonly waits = new Map<string, Asked["wants"]>();

  isFree(actor: string, wants: Asked["wants"], without: ReadonlySet<string> = new Set()): boolean {
    return wants.every(({ thing, slots }) => {
      const holders = this.held[thing] as Map<string, number>;
      const room = ROOM[thing] as number;
      let taken = 0;
      for (const [holder, much] of holders) if (holder !== actor && !without.has(holder)) taken += much;
      const own = holders.get(actor) ?? 0;
      // To wait for oneself alone is no circle.
      return taken === 0 || taken + slots + (own + slots > room ? 0 : own) <= room;
    });
  }

  grant(actor: string, wants: Asked["wants"]): void {
    for (const { thing, slots } of wants) {
      const holders = this.held[thing] as Map<string, number>;
      holders.set(actor, (holders.get(actor) ?? 0) + slots);
    }
  }

  /** True if some order lets each be done: tried one after the other, each order of all. */
  canAllBeDone(): boolean {
    return permutations([...ACTORS]).some((order) => {
      const done = new Set<string>();
      for (const actor of order) {
        const wants = this.waits.get(actor);
        if (wants !== undefined && !this.isFree(actor, wants, done)) return false;
        done.add(actor);
      }
      return true;
    });
  }

  needs(): Needs {
    return new Map(
      [...this.waits].map(([actor, wants]) => [
        actor,
        wants.map(({ thing, slots }) => ({
          held: this.held[thing] as Map<string, number>,
          spare: (ROOM[thing] as number) - slots,
          about: thing,
        })),
      ]),
    );
  }
}

function permutations<T>(values: readonly T[]): T[][] {
  if (values.length === 0) return [[]];
  return values.flatMap((value, index) =>
    permutations(values.filter((_, other) => other !== index)).map((rest) => [value, ...rest]),
  );
}

type Rule = (needs: Needs, start: string) => Step<unknown>[] | undefined;

/** Plays a history, and returns how many waits were refused; throws where the rule and the orders disagree. */
function play(history: readonly Asked[], rule: Rule): number {
  const world = new World();
  let refused = 0;
  for (const { actor: index, wants } of history) {
    const actor = ACTORS[index] as string;
    // One that waits for nothing is done sooner or later, here at once.
    if (world.waits.has(actor)) continue;
    if (world.isFree(actor, wants)) {
      world.grant(actor, wants);
      continue;
    }
    world.waits.set(actor, wants);
    const circle = rule(world.needs(), actor);
    const isDeadlock = !world.canAllBeDone();
    if ((circle !== undefined) !== isDeadlock)
      throw new Error(`${actor} ${isDeadlock ? "closes a circle that is not found" : "closes none"}`);
    if (circle === undefined) continue;
    refused += 1;
    world.waits.delete(actor);
    // Each step waits for something that the next one has, and the last one for the first.
    for (const [at, { need: of }] of circle.entries()) {
      const next = circle[(at + 1) % circle.length] as { actor: string };
      if (!of.held.has(next.actor)) throw new Error(`${next.actor} is in nobody's way`);
    }
  }
  return refused;
}

const histories = fc.array(asked, { minLength: 3, maxLength: 14 });

describe("a wait", () => {
  test("is refused exactly where nobody finds an order in which all could be done", {
    timeout: 120_000,
  }, () => {
    let refused = 0;
    let hists = 0;
    fc.assert(
      fc.property(histories, (history) => {
        hists += 1;
        refused += play(history, circleThrough);
      }),
      { numRuns: sized(20_000, 1000) },
    );
    // The histories are such that there is something to refuse.
    expect(refused).toBeGreaterThan(hists / 10);
  });

  const MUTANTS: Record<string, Rule> = {
    "takes each wait for a holder as one that cannot end": (needs, start) => {
      const direct = new Map(
        [...needs].map(([actor, all]) => [actor, all.map((each) => ({ ...each, spare: 0 }))]),
      );
      return circleThrough(direct, start);
    },
    "looks at circles of two alone": (needs, start) => {
      const circle = circleThrough(needs, start);
      return circle?.length === 2 ? circle : undefined;
    },
    "looks at the first thing that somebody waits for": (needs, start) =>
      circleThrough(new Map([...needs].map(([actor, all]) => [actor, all.slice(0, 1)])), start),
    "counts what one holds oneself": (needs, start) => {
      const mine = needs.get(start)?.find(({ held, spare }) => (held.get(start) ?? 0) > spare);
      return mine === undefined ? circleThrough(needs, start) : [{ actor: start, need: mine }];
    },
  };
  test.each(Object.entries(MUTANTS))("is told wrongly by a rule that %s", (_, rule) => {
    const seeds = fc.sample(histories, { numRuns: 1000, seed: 17 });
    const failed = seeds.some((history) => {
      try {
        play(history, rule);
        return false;
      } catch {
        return true;
      }
    });
    expect(failed).toBe(true);
  });
});
