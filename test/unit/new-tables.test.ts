// A new database gets its tables by one text, which the build makes of the steps of store/schema.
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import Database from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { migrate, takeSteps } from "../../daemon/dist/store/migrate.js";
import { privateDirectory, REPOSITORY } from "../daemon.js";

function newDatabase(): Database.Database {
  const database = new Database(":memory:");
  onTestFinished(() => void database.close());
  return database;
}

/** All that a database has: what was made by which words, and the rows of each table. */
function contents(database: Database.Database): unknown {
  const made = database
    .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")
    .all() as { type: string; name: string }[];
  const tables = made.filter(({ type }) => type === "table").map(({ name }) => name);
  const rows = tables.map((name) => [name, database.prepare(`SELECT * FROM "${name}"`).all()]);
  return { made, rows };
}

/** How far a database had come before each change of its tables. */
function steps(make: (onStep: (from: number, to: number) => void) => number): number[] {
  const told: number[] = [];
  make((from) => told.push(from));
  return told;
}

test("a new database is what all steps make of an empty one", () => {
  const [whole, stepwise] = [newDatabase(), newDatabase()];
  expect(steps((onStep) => migrate(whole, onStep))).toEqual([0]);
  expect(steps((onStep) => takeSteps(stepwise, 0, onStep)).length).toBeGreaterThan(30);
  expect(contents(whole)).toEqual(contents(stepwise));
  expect(whole.pragma("integrity_check", { simple: true })).toBe("ok");
});

test("a text that was made of other steps is not taken", async () => {
  const copy = privateDirectory();
  mkdirSync(join(copy, "dist"));
  for (const path of ["package.json", "dist/store", "dist/new-tables.sql", "store/schema"]) {
    cpSync(join(REPOSITORY, "daemon", path), join(copy, path), { recursive: true });
  }
  symlinkSync(join(REPOSITORY, "node_modules"), join(copy, "node_modules"));
  writeFileSync(join(copy, "store/schema/9999-newer.sql"), "CREATE TABLE pawl_newer (id INTEGER);");
  const { migrate: migrateThere } = await import(pathToFileURL(join(copy, "dist/store/migrate.js")).href);
  const database = newDatabase();
  expect(steps((onStep) => migrateThere(database, onStep)).length).toBeGreaterThan(30);
  expect(database.prepare("SELECT * FROM pawl_newer").all()).toEqual([]);
});
