// The long form of what holds over both databases: every test that has the rules in its own process, and names no
// database, once more with the rows in PostgreSQL; and tests with daemons of what none in one process has.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { TORTURE } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";

const TESTS = join(import.meta.dirname, "..");
const TIME_LIMIT_MS = 3_600_000;

/** They are about SQLite, about PostgreSQL, or about both. */
const OF_A_DATABASE =
  /^(async-driver|shared-\w+|statements|write-ahead-log|(lease-pool|two-clocks)-migration|dispenser)\.test\.ts$/;

const domain = readdirSync(join(TESTS, "domain")).filter(
  (name) => name.endsWith(".test.ts") && !OF_A_DATABASE.test(name),
);
const files = [
  ...domain.map((name) => join("test/domain", name)),
  ...["lease", "path", "queue", "board-work"].map((name) => `test/property/${name}.test.ts`),
  // Of commands most is about connections.
  ...["answer", "states", "targets"].map((name) => `test/integration/command-${name}.test.ts`),
];

test.skipIf(!HAS_POSTGRESQL || !TORTURE)(
  "every rule holds over PostgreSQL",
  async () => {
    const postgres = await PostgreSql.start(onTestFinished);
    const { PAWL_TORTURE: _, ...env } = process.env;
    const own = Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("VITEST")));
    const { status } = spawnSync("npx", ["vitest", "run", "--maxWorkers=2", ...files], {
      cwd: join(TESTS, ".."),
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...own, PAWL_TEST_SHARED: postgres.url() },
    });
    expect(status).toBe(0);
  },
  TIME_LIMIT_MS,
);
