// `pawl shared create`: the tables of a place are made by hand, never by a daemon that starts.
import { PawlError } from "@pawl/protocol/errors";
import { classifyShared } from "./failure.js";
import { placeOf, Session } from "./session.js";
import { createTables } from "./tables.js";

export interface SharedTables {
  /** The server and the database, without credentials. */
  readonly place: string;
  readonly schema: string;
  /** How many steps the tables had before. */
  readonly from: number;
  /** Those that were made, or would be. */
  readonly steps: readonly string[];
  /** Their statements, where they were not made. */
  readonly sql?: string;
}

/** Makes the tables of a place, or brings them up to date; a dry run says what it would do. */
export async function createSharedTables(url: string, dryRun: boolean): Promise<SharedTables> {
  const { shown: place, schema } = placeOf(url);
  let session: Session | undefined;
  try {
    session = await Session.open(url, { application: "pawl shared create" });
    const { from, steps } = await createTables(session, { dryRun });
    const names = steps.map(({ name }) => name);
    if (!dryRun) return { place, schema, from, steps: names };
    return {
      place,
      schema,
      from,
      steps: names,
      sql: steps.map(({ name, sql }) => `-- ${name}\n${sql}\n`).join("\n"),
    };
  } catch (error) {
    throw explained(error, place);
  } finally {
    await session?.close();
  }
}

function explained(error: unknown, place: string): unknown {
  if (error instanceof PawlError) return error;
  const { code, message } = error as { code?: string; message: string };
  switch (classifyShared(error)) {
    case "lost":
    case "retry":
    case "full":
      return new PawlError("unavailable", `There is no answer from ${place}: ${message}`);
    case "refused":
      if (code === "3D000") return new PawlError("not_found", `${place}: ${message}`, { what: "database" });
      return new PawlError("forbidden", `${place}: ${message}`);
    default:
      return error;
  }
}
