// The directory in which the servers of a run find what initdb has made for the first of them (test/postgresql.ts).
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export default function makeDirectory(): () => void {
  const directory = mkdtempSync(join(tmpdir(), "pawl-postgresql-"));
  // The user that runs the servers need not be the one that runs the tests.
  chmodSync(directory, 0o755);
  process.env.PAWL_POSTGRESQL_TEMPLATE = directory;
  return () => rmSync(directory, { recursive: true, force: true });
}
