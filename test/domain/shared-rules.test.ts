// The long form of what holds over both databases: every test with the rules in its own process, or with daemons, once
// more with all names in PostgreSQL. A file that has nothing to do with those says so by itself (vitest.config.ts).
// Not over shared names: it is what runs the others so.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { TORTURE } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";

const REPOSITORY = join(import.meta.dirname, "../..");
const TIME_LIMIT_MS = 3_600_000;

const FILES = [
  "test/domain",
  "test/integration",
  ...["lease", "path", "queue", "command", "board-work"].map((name) => `test/property/${name}.test.ts`),
];

test.skipIf(!HAS_POSTGRESQL || !TORTURE)(
  "every rule holds over PostgreSQL",
  async () => {
    // Daemons of another user, too, come to it by TCP.
    const postgres = await PostgreSql.start(onTestFinished, { tcp: true });
    const { PAWL_TORTURE: _, ...env } = process.env;
    const own = Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("VITEST")));
    const { status } = spawnSync("npx", ["vitest", "run", "--maxWorkers=4", ...FILES], {
      cwd: REPOSITORY,
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...own, PAWL_TEST_SHARED: postgres.url() },
    });
    expect(status).toBe(0);
  },
  TIME_LIMIT_MS,
);
