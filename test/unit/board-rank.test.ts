import { PawlError } from "@pawl/protocol/errors";
import { MAX_RANK_LENGTH } from "@pawl/protocol/limits";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isRank, rankBetween } from "../../daemon/dist/domain/board/rank.js";

const LEAST = `A${"0".repeat(26)}`;
const GREATEST = `z${"z".repeat(26)}`;

describe("ranks", () => {
  // The examples of https://github.com/rocicorp/fractional-indexing, whose keys these are.
  test.each([
    [null, null, "a0"],
    [null, "a0", "Zz"],
    [null, "Zz", "Zy"],
    ["a0", null, "a1"],
    ["a1", null, "a2"],
    ["a0", "a1", "a0V"],
    ["a1", "a2", "a1V"],
    ["a0V", "a1", "a0l"],
    ["Zz", "a0", "ZzV"],
    ["Zz", "a1", "a0"],
    [null, "Y00", "Xzzz"],
    ["bzz", null, "c000"],
    ["a0", "a0V", "a0G"],
    ["a0", "a0G", "a08"],
    ["b125", "b129", "b127"],
    ["a0", "a1V", "a1"],
    ["Zz", "a01", "a0"],
    [null, "a0V", "a0"],
    ["a01", "a02V", "a02"],
    ["a01", "a02", "a01V"],
    [null, "b999", "b99"],
    [null, `${LEAST}1`, `${LEAST}0V`],
    [null, `${LEAST.slice(0, -1)}1`, `${LEAST}V`],
    ["zzzzzzzzzzzzzzzzzzzzzzzzzzy", null, GREATEST],
    [GREATEST, null, `${GREATEST}V`],
  ])("between %s and %s comes %s", (below, above, key) => {
    expect(rankBetween(below, above)).toBe(key);
  });

  test.each([
    "",
    "a",
    "0",
    "a00",
    "a0V0",
    "b0",
    "a!",
    "a0 ",
    "a0\n",
    "é0",
    LEAST,
    `${LEAST}0`,
    `a0${"V".repeat(MAX_RANK_LENGTH - 1)}`,
  ])("%j is none", (key) => {
    expect(isRank(key)).toBe(false);
    expect((rankBetween(key, null) as PawlError).kind).toBe("invalid_params");
    expect((rankBetween(null, key) as PawlError).kind).toBe("invalid_params");
  });

  test.each(["a0", "a0V", "Zz", "b00", "Y00", `${LEAST}V`, `a0${"V".repeat(MAX_RANK_LENGTH - 2)}`])(
    "%s is one",
    (key) => {
      expect(isRank(key)).toBe(true);
    },
  );

  test("nothing is between equal ones, or the wrong way round", () => {
    expect((rankBetween("a0", "a0") as PawlError).kind).toBe("invalid_params");
    expect((rankBetween("a1", "a0") as PawlError).kind).toBe("invalid_params");
  });

  test("keys that would be too long are refused", () => {
    const longest = `a0${"0".repeat(MAX_RANK_LENGTH - 3)}1`;
    expect(isRank(longest)).toBe(true);
    expect((rankBetween("a0", longest) as PawlError).kind).toBe("exhausted");
    const shorter = `a0${"0".repeat(MAX_RANK_LENGTH - 4)}1`;
    expect(rankBetween("a0", shorter)).toHaveLength(MAX_RANK_LENGTH);
    expect(rankBetween(longest, "a1")).not.toBeInstanceOf(PawlError);
  });

  test("there is a key at any place of any list, however often one inserts", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 120, size: "max" }),
        (places) => {
          const keys: string[] = [];
          for (const place of places) {
            const index = Math.round(place * keys.length);
            const key = rankBetween(keys[index - 1] ?? null, keys[index] ?? null) as string;
            expect(isRank(key)).toBe(true);
            keys.splice(index, 0, key);
          }
          expect([...keys].sort()).toEqual(keys);
          expect(new Set(keys).size).toBe(keys.length);
        },
      ),
    );
  });

  test("a thousand at the end, at the beginning and in one gap stay short", () => {
    for (const [next, longest] of [
      [(keys: string[]) => [keys.at(-1) ?? null, null], 4],
      [(keys: string[]) => [null, keys.at(-1) ?? null], 4],
      [(keys: string[]) => ["a0", keys.at(-1) ?? "a1"], 200],
    ] as const) {
      const keys: string[] = [];
      for (let count = 0; count < 1000; count += 1) {
        const [below, above] = next(keys) as [string | null, string | null];
        keys.push(rankBetween(below, above) as string);
      }
      expect(Math.max(...keys.map(({ length }) => length))).toBeLessThanOrEqual(longest);
    }
  });
});
