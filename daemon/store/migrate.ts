import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";

/** The SQL files lie beside the sources; the compiled file is one folder deeper. */
const SCHEMA_DIRECTORY = new URL("../../store/schema/", import.meta.url);
/** The build writes it (write-tables.js); before that it is not there. */
export const NEW_TABLES = new URL("../new-tables.sql", import.meta.url);

/** Told of each step before it is made: none of them can be looked into while it runs. */
type OnStep = (from: number, to: number) => void;

/**
 * Brings the tables up to the version of this program, and returns that version. The version is kept in pawl's own
 * table, because `user_version` belongs to whoever owns the file. A new database gets all at once. A database written
 * by a newer program is refused: `invalid_state`, with both versions.
 */
export function migrate(database: Database.Database, onStep: OnStep = () => {}): number {
  const latest = latestVersion();
  const version = schemaVersion(database);
  if (version > latest) {
    throw new PawlError(
      "invalid_state",
      `The database has schema version ${version}; this pawl knows up to ${latest}. Install the newer pawl that wrote it.`,
      { from: version, to: latest },
    );
  }
  const whole = version === 0 ? newTables() : undefined;
  if (whole === undefined) return takeSteps(database, version, onStep);
  onStep(0, latest);
  database.transaction(() => database.exec(whole)).immediate();
  return latest;
}

/** The same by the steps from a version on, each in a transaction of its own. */
export function takeSteps(database: Database.Database, from: number, onStep: OnStep = () => {}): number {
  const steps = migrations();
  let version = from;
  for (const name of steps.slice(version)) {
    const text = textOf(name);
    onStep(version, steps.length);
    database
      .transaction(() => {
        database.exec(text);
        version += 1;
        database
          .prepare("INSERT OR REPLACE INTO pawl_meta (key, value) VALUES ('schema_version', :version)")
          .run({ version: String(version) });
      })
      .immediate();
  }
  return version;
}

/**
 * The text that makes a database as all steps make it, in a fourteenth of their time. Undefined where the build made
 * it of other steps than there are now.
 */
function newTables(): string | undefined {
  let text: string;
  try {
    text = readFileSync(NEW_TABLES, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  return text.startsWith(digestOfSteps()) ? text : undefined;
}

/** The first line of such a text, by which it is known of which steps it was made. */
export function digestOfSteps(): string {
  const digest = createHash("sha256");
  for (const name of migrations()) digest.update(textOf(name));
  return `-- ${digest.digest("hex")}\n`;
}

function textOf(step: string): string {
  return readFileSync(new URL(step, SCHEMA_DIRECTORY), "utf8");
}

/** The schema version that this program makes and reads. */
export function latestVersion(): number {
  return migrations().length;
}

function migrations(): string[] {
  return readdirSync(SCHEMA_DIRECTORY)
    .filter((name) => name.endsWith(".sql"))
    .sort();
}

/** The schema version of a database; 0 when it has no tables of pawl. */
export function schemaVersion(database: Database.Database): number {
  const exists = database
    .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'pawl_meta'")
    .get();
  if (exists === undefined) return 0;
  const row = database.prepare("SELECT value FROM pawl_meta WHERE key = 'schema_version'").get() as
    | { value: string }
    | undefined;
  return row === undefined ? 0 : Number(row.value);
}
