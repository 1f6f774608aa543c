import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { UsageError } from "../../terminal/command.js";
import { type Counter, nodeNamed, Problems } from "./counter.js";

/** Every column as text, so that no number is rounded on its way. */
const SELECT_COUNTERS =
  "SELECT json_array(CAST(node_id AS TEXT), CAST(type_prefix AS TEXT), CAST(next_val AS TEXT)) AS counter FROM dispenser_sequences ORDER BY rowid";

export async function readSqlite(file: string): Promise<Counter[]> {
  const path = resolve(file);
  let rows: string[];
  try {
    rows = (await selectByModule(path)) ?? (await selectByProgram(path));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { stderr, message } = error as Error & { stderr?: string };
    const said = (stderr || message).trim();
    throw new UsageError(
      `Cannot read dispenser_sequences(node_id, type_prefix, next_val) from ${file}: ${said}.`,
    );
  }
  const problems = new Problems(file);
  const counters = rows.flatMap((row, index) => {
    const [node, type, last] = JSON.parse(row) as (string | null)[];
    const nodeId = nodeNamed(node ?? "");
    const shown = `(${node ?? "NULL"}, ${type ?? "NULL"}, ${last ?? "NULL"})`;
    return problems.counterOf(type ?? "", last ?? undefined, nodeId, `row ${index + 1}`, shown);
  });
  problems.refuseIfAny();
  return counters;
}

/** Reads by the SQLite module of the daemon, where its package is installed: the client has no native code. */
async function selectByModule(path: string): Promise<string[] | undefined> {
  let Sqlite: SqliteModule;
  try {
    const daemon = createRequire(import.meta.url).resolve("@pawl/daemon/package.json");
    Sqlite = createRequire(daemon)("better-sqlite3");
  } catch {
    return undefined;
  }
  const database = new Sqlite(path, { readonly: true, fileMustExist: true });
  try {
    return database.prepare(SELECT_COUNTERS).pluck().all();
  } finally {
    database.close();
  }
}

/** As much of better-sqlite3 as is used here. */
type SqliteModule = new (
  path: string,
  options: { readonly: boolean; fileMustExist: boolean },
) => { prepare(sql: string): { pluck(): { all(): string[] } }; close(): void };

/** Reads by the `sqlite3` program. */
async function selectByProgram(path: string): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)("sqlite3", ["-readonly", "-batch", path, SELECT_COUNTERS], {
      maxBuffer: Number.POSITIVE_INFINITY,
    });
    return stdout.split("\n").filter((line) => line !== "");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new UsageError(
      "Reading SQLite needs the package @pawl/daemon beside this one (npm install @pawl/daemon) or the program sqlite3 (apt install sqlite3); neither is here.",
    );
  }
}
