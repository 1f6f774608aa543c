// The tables of a place: making them, bringing them up to date, and that they are those of this program.
import { PawlError } from "@pawl/protocol/errors";
import { ConnectionLost } from "./failure.js";
import type { MigrationStep } from "./own-tables.js";
import { migrationSteps } from "./schema.js";
import type { Session } from "./session.js";

/** Steps that the tables of a database lack, and those that they have and this program does not know. */
interface Difference {
  readonly made: number;
  readonly missing: readonly MigrationStep[];
  readonly unknown: readonly string[];
}

/** The outcome of `createTables`. */
export interface Created {
  /** How many steps the tables had before; 0 where there were none. */
  readonly from: number;
  /** Those that were made, or would be. */
  readonly steps: readonly MigrationStep[];
}

/**
 * Makes the tables in the schema of the session, or brings them up to date, all in one transaction. Refuses tables of a
 * newer program, and to change tables that daemons are using: both `invalid_state`.
 *
 * @param options.dryRun true if nothing is to be changed.
 */
export async function createTables(session: Session, options: { dryRun: boolean }): Promise<Created> {
  await session.begin();
  try {
    await session.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [
      `pawl create ${session.schema}`,
    ]);
    const { made, missing, unknown } = await difference(session);
    if (unknown.length > 0) throw newerTables(session, unknown);
    if (!options.dryRun && missing.length > 0) await make(session, missing, made);
    await session.commit();
    return { from: made, steps: missing };
  } catch (error) {
    await session.rollback();
    throw error;
  }
}

async function make(session: Session, steps: readonly MigrationStep[], made: number): Promise<void> {
  const [lock] = await session.query<{ free: number }>(
    "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS free",
    [useKey(session)],
  );
  if (made > 0 && lock?.free !== 1) {
    throw new PawlError(
      "invalid_state",
      `Daemons are using the tables in ${session.shown}. Stop them, then migrate.`,
      { from: made, to: made + steps.length },
    );
  }
  // Not by IF NOT EXISTS, for which PostgreSQL wants the right to make one even where it is there.
  const [schema] = await session.query<{ there: number }>("SELECT to_regnamespace($1) IS NOT NULL AS there", [
    session.schema,
  ]);
  if (schema?.there !== 1) await session.script(`CREATE SCHEMA ${session.schema}`);
  await session.script(
    'CREATE TABLE IF NOT EXISTS pawl_shared_step (name text COLLATE "C" PRIMARY KEY, made_at timestamptz NOT NULL)',
  );
  for (const { name, sql } of steps) {
    await session.script(sql);
    await session.query("INSERT INTO pawl_shared_step (name, made_at) VALUES ($1, now())", [name]);
  }
}

/**
 * Says, for as long as the session lasts, that a daemon uses the tables. Refuses tables that are not those of this
 * program, or that are not there: `invalid_state`, with the command that mends it.
 */
export async function useTables(session: Session): Promise<void> {
  await session.query("SELECT pg_advisory_lock_shared(hashtextextended($1, 0))", [useKey(session)]);
  const { made, missing, unknown } = await difference(session);
  if (unknown.length > 0) throw newerTables(session, unknown);
  if (missing.length === 0) return;
  const state = made === 0 ? "There are no tables of pawl" : "The tables are those of an older pawl";
  throw new PawlError(
    "invalid_state",
    `${state} in ${session.shown}: they have ${made} of ${made + missing.length} steps. Run: pawl shared create URL`,
    { from: made, to: made + missing.length },
  );
}

function newerTables(session: Session, unknown: readonly string[]): PawlError {
  return new PawlError(
    "invalid_state",
    `The tables in ${session.shown} are those of a newer pawl: this one does not know ${unknown.join(", ")}. Install the newer pawl that made them.`,
    { from: unknown.at(-1) ?? "", to: migrationSteps().at(-1)?.name ?? "" },
  );
}

async function difference(session: Session): Promise<Difference> {
  const [there] = await session.query<{ there: number }>("SELECT to_regclass($1) IS NOT NULL AS there", [
    `${session.schema}.pawl_shared_step`,
  ]);
  const made =
    there?.there === 1 ? await session.query<{ name: string }>("SELECT name FROM pawl_shared_step") : [];
  const names = new Set(made.map(({ name }) => name));
  const steps = migrationSteps();
  const known = new Set(steps.map(({ name }) => name));
  return {
    made: made.length,
    missing: steps.filter(({ name }) => !names.has(name)),
    unknown: [...names].filter((name) => !known.has(name)).sort(),
  };
}

/**
 * Which tables these are, as a column: others once they were dropped and made again. The server finds it out when it
 * plans a statement, and plans that anew once they are gone, so it costs nothing each time.
 */
export const TABLES = "CAST(CAST('pawl_meta' AS regclass) AS oid)::bigint AS tables";

/** The tables of a session are not those that it began with. */
export class TablesReplaced extends ConnectionLost {
  constructor() {
    super("the tables are not those of before");
  }
}

/** The text whose lock daemons share while they use the tables. */
function useKey(session: Session): string {
  return `pawl use ${session.schema}`;
}
