// Ids that sort by the time they were made at (RFC 9562, version 7).
import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { Uuid7 } from "../../daemon/dist/identity/uuid7.js";

const NOW = 1_750_000_000_000;
const FORM = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const timeOf = (uuid: string): number => Number.parseInt(uuid.replace("-", "").slice(0, 12), 16);

test("has the form, the version, the variant and the time", () => {
  const ids = new Uuid7();
  for (let index = 0; index < 1000; index += 1) {
    const id = ids.next(NOW + index, randomBytes);
    expect(id).toMatch(FORM);
    expect(timeOf(id)).toBe(NOW + index);
  }
});

test("each is greater than the one before, however many there are in a millisecond, and if time stands or goes back", () => {
  const ids = new Uuid7();
  const made = Array.from({ length: 20_000 }, (_, index) =>
    ids.next(NOW + (index < 15_000 ? 0 : -5), randomBytes),
  );
  expect(made.filter((id) => !FORM.test(id))).toEqual([]);
  expect(made.filter((id, index) => index > 0 && id <= (made[index - 1] as string))).toEqual([]);
  const last = made.at(-1) as string;
  // 4,096 a millisecond, so it has run ahead by some.
  expect(timeOf(last) - NOW).toBeGreaterThanOrEqual(4);
  expect(timeOf(last) - NOW).toBeLessThan(12);
});

test("two that know nothing of each other do not make the same", () => {
  const [a, b] = [new Uuid7(), new Uuid7()];
  const made = new Set<string>();
  for (let index = 0; index < 5000; index += 1) {
    made.add(a.next(NOW, randomBytes));
    made.add(b.next(NOW, randomBytes));
  }
  expect(made.size).toBe(10_000);
});
