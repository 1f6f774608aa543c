// The meaning of what goes wrong with a database on a network.
import { DatabaseError } from "pg";

/**
 * `lost`: the connection, or the server behind it, is away; what a commit under way has come to is not known.
 * `retry`: the transaction was undone for the sake of others, and may be performed again as it is.
 * `full`: no space on the server; reads go on and writes will again.
 * `refused`: the server takes nobody with these credentials, or has no such database, schema or table.
 * `defect`: anything else, to be blamed on the operation.
 */
export type SharedFailure = "lost" | "retry" | "full" | "refused" | "defect";

/** The session has no connection to the server any more, or never had one. */
export class ConnectionLost extends Error {}

/** Codes of PostgreSQL, or beginnings of them (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
const FAILURES: readonly (readonly [code: string, failure: SharedFailure])[] = [
  // Connection exceptions; too many connections; shut down, crashed, not ready; a server that only reads.
  ["08", "lost"],
  ["53300", "lost"],
  ["57P", "lost"],
  ["25006", "lost"],
  ["25P03", "lost"],
  ["25P04", "lost"],
  // Serialization, deadlock, lock not available, cancelled.
  ["40", "retry"],
  ["55P03", "retry"],
  ["57014", "retry"],
  // Out of disk or memory.
  ["53", "full"],
  // Authentication; no such database, schema, table or column; no privilege.
  ["28", "refused"],
  ["3D", "refused"],
  ["3F", "refused"],
  ["42P01", "refused"],
  ["42501", "refused"],
];

/** Sorts an error that a session threw. */
export function classifyShared(error: unknown): SharedFailure {
  if (error instanceof ConnectionLost) return "lost";
  const { code } = error as { code?: unknown };
  if (!(error instanceof DatabaseError) || typeof code !== "string") return "defect";
  return FAILURES.find(([beginning]) => code.startsWith(beginning))?.[1] ?? "defect";
}
