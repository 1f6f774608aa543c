// docs/costs.md says of each method what its dearest call is and how that is bounded.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Database } from "better-sqlite3";
import { expect, test } from "vitest";
import { METHODS } from "../../protocol/dist/methods.js";
import { ELSEWHERE, worstCalls } from "../bench/costs/worst-calls.js";

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

test("the benchmark measures a worst call of each method, or says why it does not", () => {
  const row = { pluck: () => ({ get: () => "x" }) };
  const database = { prepare: () => row, close() {} } as unknown as Database;
  const measured = new Set(worstCalls(database).map(({ method }) => method));
  // That is measured by its pieces.
  measured.add("daemon.check");
  const names = METHODS.map(({ name }) => name as string);
  expect([...measured, ...Object.keys(ELSEWHERE)].sort()).toEqual(names.sort());
});
