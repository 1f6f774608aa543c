// Writes the text that makes a new database as all steps of store/schema make it, with the rows that they put there.
import { writeFileSync } from "node:fs";
import Database from "better-sqlite3";
import { digestOfSteps, NEW_TABLES, takeSteps } from "./dist/store/migrate.js";

const database = new Database(":memory:");
takeSteps(database, 0);
/** An index of words makes tables of its own, with their rows, by itself. */
const own = new Set(ofType("shadow"));
const made = database
  .prepare(
    "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
  )
  .all()
  .filter(({ name }) => !own.has(name));
const rows = ofType("table")
  .filter((name) => !name.startsWith("sqlite_"))
  .flatMap(insertsInto);
const statements = [...made.map(({ sql }) => sql), ...rows];
writeFileSync(NEW_TABLES, `${digestOfSteps()}${statements.map((sql) => `${sql};\n`).join("")}`);

/** @param {"table" | "shadow"} type */
function ofType(type) {
  return database
    .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = ?")
    .pluck()
    .all(type);
}

/** @param {string} table */
function insertsInto(table) {
  const columns = database.prepare("SELECT name FROM pragma_table_info(?)").pluck().all(table);
  const values = columns.map((name) => `quote(${name})`).join(" || ', ' || ");
  const all = database.prepare(`SELECT ${values} FROM ${table}`).pluck().all();
  return all.map((row) => `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${row})`);
}
