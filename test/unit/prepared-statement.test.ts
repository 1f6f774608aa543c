import { expect, test } from "vitest";
import { connect } from "../../daemon/dist/store/connection.js";
import { prepare } from "../../daemon/dist/store/prepared-statement.js";
import { sql } from "../../daemon/dist/store/statement.js";

test("a statement that is used often gives and takes what it did before", () => {
  const database = connect(":memory:");
  const two = prepare(database, sql("SELECT :a AS a, :b AS \"b-1\", :a AS again, ':a' AS text"));
  const single = prepare(database, sql("SELECT :a AS a"));
  const none = prepare(database, sql("CREATE TABLE IF NOT EXISTS t (a)"));
  const given = { a: "1", b: null };
  for (const prepared of [two, single]) {
    const values = prepared.valuesOf(given);
    const row = prepared.compiled.get(...values) as Parameters<NonNullable<typeof prepared.toObject>>[0];
    const object = prepared.toObject?.(row);
    const missing = (): unknown => prepared.valuesOf({ b: 2 });
    expect(missing).toThrow("no value for :a");
    prepared.speedUp();
    expect(prepared.valuesOf(given)).toEqual(values);
    expect(prepared.toObject?.(row)).toEqual(object);
    expect(missing).toThrow("no value for :a");
  }
  expect(two.toObject?.(two.compiled.get(...two.valuesOf(given)) as string[])).toEqual({
    a: "1",
    "b-1": null,
    again: "1",
    text: ":a",
  });
  none.speedUp();
  expect(none.toObject).toBeUndefined();
  database.close();
});
