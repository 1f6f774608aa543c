// docs/costs.md says of each method what its dearest call is and how that is bounded.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { METHODS } from "../../protocol/dist/methods.js";

const rows = readFileSync(join(import.meta.dirname, "../../docs/costs.md"), "utf8")
  .split("\n")
  .map((line) => /^\| `([\w.]+)` \| (.+) \| (.+) \|$/.exec(line))
  .filter((row) => row !== null)
  .map(([, name, dearest, bound]) => ({ name, dearest, bound }));

test("docs/costs.md has a row for each method, in their order, and no others", () => {
  expect(rows.map(({ name }) => name)).toEqual(METHODS.map(({ name }) => name));
});

test("each row says what is dear, and what bounds it", () => {
  const empty = rows.filter(({ dearest, bound }) => dearest?.trim() === "" || bound?.trim() === "");
  expect(empty).toEqual([]);
});
