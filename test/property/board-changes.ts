// Sets of changes as bad luck and bad will could make them, and orders in which they could arrive.
import fc from "fast-check";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { Author, hashOf, incarnation } from "./board-author.js";

export const AUTHORS = [0, 1, 2].map((number) => new Author(number));
const STORIES = ["A-1", "A-2", "__proto__"];
const MAX_CHANGES = 40;

// Few logs, forked anywhere; few items; few clock
// readings, so that most ties are broken by the author or the hash.

export const text = fc.string({
  unit: fc.constantFrom("a", "Z", '"', "\n", "\u2028", "\uffff", "\u{1f600}"),
  maxLength: 3,
});
const element = fc.constantFrom("A-1", "A-2", "A-3").map((id) => `dependsOn/${id}`);
const note = fc.constantFrom({ agent: null, text: "a" }, { agent: "b", text: "" });
/** Fields of the user's own, labels and notes as nodes write them ... */
const wellFormed = fc.record(
  {
    "f/priority": fc.constantFrom(null, 2),
    "f/description": fc.constantFrom("x", "aZ a"),
    "l/x": fc.boolean(),
    "l/ü": fc.boolean(),
    "n/0": note,
    "n/1": note,
  },
  { requiredKeys: [] },
);
/** ... and what only looks like one. */
const looksLike = fc.dictionary(
  fc.constantFrom(
    "f/priority",
    "f/description",
    "f/type",
    "f/Type",
    "l/x",
    "l/ü",
    "l/",
    "n/0",
    "n/1",
    "n/10",
    "n/01",
  ),
  fc.constantFrom<unknown>(
    null,
    true,
    false,
    2,
    "x",
    "aZ a",
    { agent: null, text: "a" },
    { agent: "b", text: "" },
  ),
  { maxKeys: 3 },
);
const own = fc.oneof(wellFormed, looksLike);
const fields = fc
  .record(
    {
      stage: fc.constantFrom("1_backlog", "2_current", "__proto__"),
      name: fc.option(text),
      agent: fc.option(text),
      retryCount: fc.integer({ min: -3, max: 3 }),
      unknownCount: fc.nat({ max: 2 }),
      blocked: fc.boolean(),
      rank: fc.constantFrom("a0", "a1", "a1V", "Zz"),
      constructor: fc.constantFrom(null, "x", true),
    },
    { requiredKeys: [] },
  )
  .chain((known) =>
    fc
      .tuple(
        fc.dictionary(element, fc.boolean(), { maxKeys: 3 }),
        fc.option(fc.constantFrom<unknown>(0, "x", [{ __proto__: null }])),
        fc.oneof(fc.constant({}), own),
      )
      .map(([elements, unknown, parts]) => {
        const all: [string, unknown][] = Object.entries({ ...known, ...elements, ...parts });
        return Object.fromEntries(unknown === null ? all : [...all, ["__proto__", unknown]]);
      }),
  );
const generation = fc.oneof(
  { weight: 6, arbitrary: fc.constant(1) },
  { weight: 2, arbitrary: fc.constantFrom(2, 3) },
  { weight: 1, arbitrary: fc.constantFrom(4, 5) },
);
const op = fc
  .record({
    i: fc.constantFrom(...STORIES),
    g: generation,
    s: fc.option(fc.oneof({ weight: 5, arbitrary: fields }, { weight: 1, arbitrary: own }), {
      freq: 2,
      nil: {},
    }),
    c: fc.option(fc.integer({ min: -3, max: 3 })),
  })
  .map(({ i, g, s, c }) => {
    if (g % 2 === 0) return { i, g };
    // A field is either set or incremented by one op, and an op without any is none.
    const increments = Object.entries({ retryCount: c, unknownCount: c, "f/type": c }).filter(
      ([counter, amount]) => amount !== null && !Object.hasOwn(s, counter),
    );
    const parts = {
      ...(Object.keys(s).length > 0 ? { s } : {}),
      ...(increments.length > 0 ? { c: Object.fromEntries(increments) } : {}),
    };
    return { i, g, ...(Object.keys(parts).length > 0 ? parts : { s: { blocked: true } }) };
  });
const rawChange = fc.record({
  log: fc.nat({ max: 3 }),
  parent: fc.oneof(
    { weight: 6, arbitrary: fc.constant("last" as const) },
    { weight: 2, arbitrary: fc.nat() },
    { weight: 1, arbitrary: fc.constant("none" as const) },
  ),
  wall: fc.nat({ max: 1 }),
  counter: fc.nat({ max: 1 }),
  ops: fc.uniqueArray(op, { selector: ({ i }) => i, minLength: 1, maxLength: 3 }),
});
export const changeSet = fc
  .array(rawChange, { minLength: 1, maxLength: MAX_CHANGES, size: "max" })
  .map((raw) => build(raw));

type Raw = typeof rawChange extends fc.Arbitrary<infer T> ? T : never;

/** Signs raw changes into logs: numbers 0 and 1 are two incarnations of one author. */
function build(raw: readonly Raw[]): SignedChange[] {
  const logs = new Map<number, { signed: SignedChange; hlc: [number, number]; seq: number }[]>();
  for (const { log, parent, wall, counter, ops } of raw) {
    const made = logs.get(log) ?? [];
    logs.set(log, made);
    const prev =
      parent === "none" ? undefined : made[parent === "last" ? made.length - 1 : parent % (made.length + 1)];
    const hlc: [number, number] =
      prev === undefined
        ? [1 + wall, counter]
        : wall === 0
          ? [prev.hlc[0], prev.hlc[1] + 1 + counter]
          : [prev.hlc[0] + 1, counter];
    const seq = (prev?.seq ?? 0) + 1;
    const signed = (AUTHORS[Math.max(0, log - 1)] as Author).change({
      hlc,
      incarnation: incarnation(log === 1 ? 1 : 0),
      ops,
      prev: prev === undefined ? null : hashOf(prev.signed),
      seq,
    });
    made.push({ signed, hlc, seq });
  }
  return [...logs.values()].flat().map(({ signed }) => signed);
}

/** For each change, when to deliver it, and perhaps when to deliver it again. */
export const delivery = fc.array(fc.tuple(fc.nat(), fc.option(fc.nat())), {
  minLength: MAX_CHANGES,
  maxLength: MAX_CHANGES,
  size: "max",
});
export type Delivery = typeof delivery extends fc.Arbitrary<infer T> ? T : never;

export function ordered(changes: readonly SignedChange[], times: Delivery): SignedChange[] {
  return changes
    .flatMap((change, index) => (times[index] ?? []).map((time) => ({ change, time })))
    .filter((each): each is { change: SignedChange; time: number } => each.time !== null)
    .sort((a, b) => a.time - b.time)
    .map(({ change }) => change);
}
