// The selection table of queue.md, Policies.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Candidate, selectBatches } from "../../daemon/dist/domain/queue/claim-selection.js";

const RUNS = 500 * Number(process.env.PAWL_TEST_RUNS ?? 1);
const NOW = 1_000_000;

interface Named extends Candidate {
  readonly name: string;
}

let names = 0;

function batch(given: Partial<Named> = {}): Named {
  return {
    name: String.fromCharCode(97 + (names++ % 26)),
    availableAt: NOW,
    heldUntil: null,
    deliveryPolicy: "earliest_safe_boundary",
    slotPolicy: "exclusive",
    priority: 0,
    key: null,
    mergeKey: null,
    bytes: 100,
    ...given,
  };
}

const exclusive = (given: Partial<Named> = {}) => batch({ mergeKey: "g", ...given });
const join = (given: Partial<Named> = {}) => batch({ slotPolicy: "join", mergeKey: "g", ...given });
const after = { deliveryPolicy: "after_current_turn_commit" } as const;
const scheduled = { availableAt: NOW + 1 };
const held = { heldUntil: NOW + 1 };

/** How many candidates from the first on are expected, or which. */
function expectSelected(
  candidates: Named[],
  expected: number | number[],
  claiming: Partial<Parameters<typeof selectBatches>[1]> = {},
): void {
  const selected = selectBatches(candidates, {
    now: NOW,
    boundary: "idle",
    maxBatches: 10,
    maxBytes: 10_000,
    ...claiming,
  });
  const indexes = typeof expected === "number" ? [...Array(expected).keys()] : expected;
  expect(selected).toEqual(indexes.map((index) => candidates[index]));
}

describe("the head", () => {
  test("nothing there: nothing is claimed", () => expectSelected([], 0));
  test("an exclusive head is claimed alone", () => expectSelected([exclusive(), exclusive()], 1));
  test("an exclusive head takes no joining batch with it", () => expectSelected([exclusive(), join()], 1));
  test("a join head without others is claimed alone", () => expectSelected([join()], 1));
  test("a single batch is claimed however large it is", () =>
    expectSelected([join({ bytes: 20_000 }), join()], 1));
});

describe("joining batches", () => {
  test("batches of the same group", () => expectSelected([join(), join(), join()], 3));
  test("payload_default with payload_default", () =>
    expectSelected([join({ mergeKey: "" }), join({ mergeKey: "" })], 2));
  test("never joins with nothing, not even with itself", () =>
    expectSelected([join({ mergeKey: null }), join({ mergeKey: null })], 1));
  test("after_current_turn_commit with its like", () => expectSelected([join(after), join(after)], 2));
});

describe("the end of a group", () => {
  test("an exclusive batch, also of the same merge key", () =>
    expectSelected([join(), join(), exclusive(), join()], 2));
  test("another delivery policy", () => expectSelected([join(), join(after), join()], 1));
  test("another group", () => expectSelected([join(), join({ mergeKey: "h" }), join()], 1));
  test("payload_default after a group", () => expectSelected([join(), join({ mergeKey: "" })], 1));
  test("a group after payload_default", () => expectSelected([join({ mergeKey: "" }), join()], 1));
  test("never", () => expectSelected([join(), join({ mergeKey: null }), join()], 1));
  test("the most batches that are asked for", () =>
    expectSelected([join(), join(), join(), join()], 3, { maxBatches: 3 }));
  test("one batch asked for", () => expectSelected([join(), join()], 1, { maxBatches: 1 }));
  test("the size of the reply", () =>
    expectSelected([join({ bytes: 4000 }), join({ bytes: 6000 }), join({ bytes: 1 })], 2));
  test("a batch that is too large, also where a smaller one follows", () =>
    expectSelected([join({ bytes: 4000 }), join({ bytes: 6001 }), join({ bytes: 1 })], 1));
});

describe("boundaries", () => {
  const policies = ["earliest_safe_boundary", "after_current_turn_commit"] as const;
  test.each([
    ["idle", policies[0], 2],
    ["idle", policies[1], 2],
    ["active_turn_checkpoint", policies[0], 2],
    ["active_turn_checkpoint", policies[1], 0],
  ] as const)("at %s a head with %s", (boundary, deliveryPolicy, expected) => {
    expectSelected([join({ deliveryPolicy }), join({ deliveryPolicy })], expected, { boundary });
    expectSelected([exclusive({ deliveryPolicy })], Math.min(1, expected), { boundary });
  });

  test("a head that may not be claimed is not overtaken by one that might", () =>
    expectSelected([exclusive(after), exclusive(), join()], 0, { boundary: "active_turn_checkpoint" }));
  test("a group at a checkpoint ends where the policy does", () =>
    expectSelected([join(), join(), join(after)], 2, { boundary: "active_turn_checkpoint" }));
});

describe("batches that are passed over", () => {
  test("a scheduled head", () => expectSelected([exclusive(scheduled), exclusive()], [1]));
  test("a held head", () => expectSelected([exclusive(held), exclusive()], [1]));
  test("all of them", () => expectSelected([join(scheduled), join(held)], []));
  test("batches within a group, of any kind", () =>
    expectSelected([join(), join(scheduled), exclusive(held), join()], [0, 3]));
  test("a scheduled head that would be gated does not gate", () =>
    expectSelected([exclusive({ ...after, ...scheduled }), exclusive()], [1], {
      boundary: "active_turn_checkpoint",
    }));
  test("at the very moment it is available", () =>
    expectSelected([exclusive({ availableAt: NOW, heldUntil: NOW })], 1));
});

test("whatever the candidates are, the rules hold", () => {
  const candidate = fc.record({
    name: fc.string(),
    availableAt: fc.constantFrom(NOW - 5, NOW, NOW, NOW, NOW + 1),
    heldUntil: fc.constantFrom(null, null, null, NOW - 1, NOW, NOW + 1),
    deliveryPolicy: fc.constantFrom("earliest_safe_boundary" as const, "after_current_turn_commit" as const),
    slotPolicy: fc.constantFrom("exclusive" as const, "join" as const, "join" as const),
    priority: fc.constantFrom(0, 0, 0, 1),
    key: fc.constantFrom(null, null, null, "k"),
    mergeKey: fc.constantFrom(null, "", "g", "g", "g"),
    bytes: fc.constantFrom(1, 10, 3000),
  });
  const claiming = fc.record({
    now: fc.constant(NOW),
    boundary: fc.constantFrom("idle" as const, "active_turn_checkpoint" as const),
    maxBatches: fc.integer({ min: 1, max: 8 }),
    maxBytes: fc.constantFrom(10, 100, 10_000),
  });
  fc.assert(
    fc.property(fc.array(candidate, { maxLength: 20 }), claiming, (candidates, how) => {
      const selected = selectBatches(candidates, how);
      const available = candidates.filter(
        (each) => each.availableAt <= NOW && (each.heldUntil === null || each.heldUntil <= NOW),
      );
      // A beginning of what is available, without gaps.
      expect(selected).toEqual(available.slice(0, selected.length));
      expect(selected.length).toBeLessThanOrEqual(how.maxBatches);
      const [head] = available;
      const isGated =
        how.boundary === "active_turn_checkpoint" && head?.deliveryPolicy === "after_current_turn_commit";
      expect(selected.length > 0).toBe(head !== undefined && !isGated);
      if (head === undefined || selected.length === 0) return;
      const bytes = (batches: Named[]) => batches.reduce((sum, each) => sum + each.bytes, 0);
      const isAlike = (each: Named) =>
        each.slotPolicy === "join" &&
        each.mergeKey !== null &&
        each.mergeKey === head.mergeKey &&
        each.priority === head.priority &&
        each.key === head.key &&
        each.deliveryPolicy === head.deliveryPolicy;
      if (selected.length > 1) {
        expect(selected.every(isAlike)).toBe(true);
        expect(bytes(selected)).toBeLessThanOrEqual(how.maxBytes);
      }
      // It ended for a reason.
      const next = available[selected.length];
      const couldGoOn =
        next !== undefined &&
        isAlike(head) &&
        isAlike(next) &&
        selected.length < how.maxBatches &&
        bytes([...selected, next]) <= how.maxBytes;
      expect(couldGoOn).toBe(false);
      // Reading fewer candidates changes nothing, unless all of them that are available are taken.
      const fewer = candidates.slice(0, -1);
      const selectedOfFewer = selectBatches(fewer, how);
      const availableOfFewer = fewer.filter((each) => available.includes(each));
      if (selectedOfFewer.length < availableOfFewer.length) expect(selected).toEqual(selectedOfFewer);
    }),
    { numRuns: RUNS },
  );
});
