import { readdirSync, readFileSync } from "node:fs";
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";

/** The SQL files lie beside the sources; the compiled file is one folder deeper. */
const SCHEMA_DIRECTORY = new URL("../../store/schema/", import.meta.url);

/**
 * Brings the tables up to the version of this program, each step in a transaction of its own, and returns
 * that version. The version is kept in pawl's own table, because `user_version` belongs to whoever owns the
 * file. A database written by a newer program is refused: `invalid_state`, with both versions.
 *
 * @param onStep told of each step before it is made: none of them can be looked into while it runs.
 */
export function migrate(
  database: Database.Database,
  onStep: (from: number, to: number) => void = () => {},
): number {
  const steps = migrations();
  let version = schemaVersion(database);
  if (version > steps.length) {
    throw new PawlError(
      "invalid_state",
      `The database has schema version ${version}; this pawl knows up to ${steps.length}. Install the newer pawl that wrote it.`,
      { from: version, to: steps.length },
    );
  }
  for (const name of steps.slice(version)) {
    const text = readFileSync(new URL(name, SCHEMA_DIRECTORY), "utf8");
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
